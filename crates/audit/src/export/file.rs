//! A file of events, as the archive has them: the one writer behind its objects and what is exported on demand.

use caracal_crypto::hmac::sha256_hex;
use caracal_store::evidence::EvidenceRow;

use super::{parquet, rows};

/// Under which name a file says which events are in it.
const IDENTITY: &str = "caracal.events";

/// Events on their way into a Parquet file.
pub struct EventsFile {
    writer: parquet::Writer,
    /// A hash over which events are in it.
    identity: String,
    events: u64,
}

impl Default for EventsFile {
    fn default() -> Self {
        Self::new()
    }
}

impl EventsFile {
    /// One without events.
    pub fn new() -> Self {
        Self { writer: parquet::Writer::new(rows::COLUMNS), identity: String::new(), events: 0 }
    }

    /// Adds an event. The archive's order is by zone, then by position.
    pub fn add(&mut self, row: &EvidenceRow) {
        self.writer.row(rows::cells(row));
        let text = format!("{}{}\n{}\n{}", self.identity, row.zone_id, row.chain_seq, row.content_sha256);
        self.identity = sha256_hex(text.as_bytes());
        self.events += 1;
    }

    /// How many there are.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes so far, those that were taken among them.
    pub fn size(&self) -> usize {
        self.writer.size()
    }

    /// The next bytes of the file that are whole by now, for who writes it piece by piece; none, as a rule.
    pub fn take(&mut self) -> Vec<u8> {
        self.writer.take()
    }

    /// The file, or what of it was not taken, and the hash over which events are in it.
    pub fn finish(self) -> (Vec<u8>, String) {
        let file = self.writer.finish((IDENTITY, &self.identity));
        (file, self.identity)
    }
}
