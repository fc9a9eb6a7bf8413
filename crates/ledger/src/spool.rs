//! Evidence on disk, while the store takes none (contract: audit-and-streams.md §3.1, W11).
//!
//! A Gateway's call has ended, its caller has the answer, and the store is away. What is on record of the call lies in the
//! memory of a process that may be killed. So it is put here first: a file for each batch of a zone, one signed line for each
//! event, synced with its directory before anybody relies on it. Whoever starts next, or looks while it runs, brings it into
//! the chain and removes the file; an event that came into the chain after all is known there by its id and is not added again.
//!
//! A line that is not what we wrote is never ingested. It is moved to a file beside, for somebody to look at, and keeps no
//! other line from its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_authority::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chain::ChainRecord;
use crate::event::{Evidence, StoredEvent};
use crate::hex;
use crate::keys::{ChainKey, Keys, Sealed};

const WAITING: &str = "ndjson";
const ASIDE: &str = "quarantined";
/// Keeps these seals apart from everything else the audit key signs.
const DOMAIN: &[u8] = b"caracal ledger spool v1\n";

/// A directory of evidence that waits.
pub struct Spool {
    directory: PathBuf,
    key: Arc<dyn ChainKey>,
    count: AtomicU64,
}

/// A batch that lies on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spooled(PathBuf);

/// A batch as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Events that we wrote, in their order, each with its line.
    pub events: Vec<(StoredEvent, Vec<u8>)>,
    /// Lines that we did not.
    pub bad: Vec<Vec<u8>>,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Batches.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// The event as text, so that the seal is over the very bytes.
    data: String,
    sig: String,
}

impl Spool {
    /// In `directory`, which is made for its owner alone when it is not there.
    pub fn open(directory: PathBuf, key: Arc<dyn ChainKey>) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&directory)?;
        Ok(Self { directory, key, count: AtomicU64::new(0) })
    }

    /// Puts events on disk. All of them are encoded before there is a file, and none is left when it can't be finished.
    pub fn write(&self, events: &[Evidence], now: Timestamp) -> io::Result<Spooled> {
        let mut text = Vec::new();
        for event in events {
            let event = event.to_stored().map_err(io::Error::other)?;
            self.add_line(&mut text, serde_json::to_string(&event)?)?;
        }
        self.write_new(WAITING, &text, now).map(Spooled)
    }

    /// Keeps events that no chain takes beside those that wait, for somebody to look at. One that has no form of its
    /// columns is kept as what is known of it.
    pub fn put_aside(&self, events: &[Evidence], now: Timestamp) -> io::Result<()> {
        let mut text = Vec::new();
        for event in events {
            let data = match event.to_stored() {
                Ok(event) => serde_json::to_string(&event)?,
                Err(_) => serde_json::to_string(&serde_json::json!({
                    "id": event.id.as_str(),
                    "zone_id": event.zone.as_str(),
                    "event_type": event.event_type.as_str(),
                    "request_id": event.request_id,
                    "decision": event.decision.as_str(),
                    "evaluation_status": event.evaluation_status.as_str(),
                    "determining_policies_json": event.determining_policies,
                    "diagnostics_json": event.diagnostics,
                    "metadata_json": event.metadata.clone().into_map(),
                    "occurred_at_micros": event.occurred_at.as_micros(),
                }))?,
            };
            self.add_line(&mut text, data)?;
        }
        self.write_new(ASIDE, &text, now).map(|_| ())
    }

    fn add_line(&self, text: &mut Vec<u8>, data: String) -> io::Result<()> {
        let sig = hex::encode(&self.seal(&data));
        serde_json::to_writer(&mut *text, &Line { data, sig })?;
        text.push(b'\n');
        Ok(())
    }

    fn write_new(&self, extension: &str, text: &[u8], now: Timestamp) -> io::Result<PathBuf> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("pending-{}-{:020}-{number:06}.{extension}", std::process::id(), now.as_micros());
        let path = self.directory.join(name);
        let written = new_file(&path).and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        });
        let written = written.and_then(|()| sync(&self.directory));
        if let Err(error) = written {
            // Of a disk that is full; half a batch would be brought into the chain, and then all of it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// The batches that wait, oldest first.
    pub fn list(&self) -> io::Result<Vec<Spooled>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == WAITING) {
                found.push(Spooled(path));
            }
        }
        // By when they were written, whichever process did.
        found.sort_by_key(|Spooled(path)| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.split('-').skip(2).collect::<String>()
        });
        Ok(found)
    }

    /// Reads a batch.
    pub fn read(&self, Spooled(path): &Spooled) -> io::Result<Batch> {
        let mut batch = Batch::default();
        for line in fs::read(path)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match self.event(line) {
                Some(event) => batch.events.push((event, line.to_vec())),
                None => batch.bad.push(line.to_vec()),
            }
        }
        Ok(batch)
    }

    fn event(&self, line: &[u8]) -> Option<StoredEvent> {
        let Line { data, sig } = serde_json::from_slice(line).ok()?;
        // A batch may have waited while the key was replaced.
        let sealed = Keys::of(self.key.as_ref()).who(&message(&data), &sig, None, 0);
        if !matches!(sealed, Sealed::By(_)) {
            return None;
        }
        let event: StoredEvent = serde_json::from_str(&data).ok()?;
        event.defect().is_none().then_some(event)
    }

    /// Puts lines beside the batch they were in, for somebody to look at.
    pub fn quarantine(&self, Spooled(path): &Spooled, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut text = lines.join(&b'\n');
        text.push(b'\n');
        let mut file = truncated(&path.with_extension(ASIDE))?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync(&self.directory)
    }

    /// Removes a batch whose events are in their chain.
    pub fn remove(&self, Spooled(path): &Spooled) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What waits, as of now.
    pub fn backlog(&self, now: Timestamp) -> io::Result<Backlog> {
        let mut backlog = Backlog::default();
        for Spooled(path) in self.list()? {
            // Somebody may have removed it meanwhile.
            let Ok(found) = fs::metadata(&path) else { continue };
            backlog.files += 1;
            backlog.bytes += found.len();
            backlog.oldest = backlog.oldest.max(written_at(&path).map_or(Duration::ZERO, |at| at.until(now)));
        }
        Ok(backlog)
    }

    /// Whether anything could be put here.
    pub fn check(&self) -> io::Result<()> {
        let path = self.directory.join(format!("check-{}", std::process::id()));
        let mut file = truncated(&path)?;
        file.write_all(b"?")?;
        fs::remove_file(&path)
    }

    fn seal(&self, data: &str) -> [u8; 32] {
        self.key.sign(&message(data))
    }
}

fn message(data: &str) -> Vec<u8> {
    [DOMAIN, data.as_bytes()].concat()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true);
    options
}

fn new_file(path: &Path) -> io::Result<File> {
    options().create_new(true).open(path)
}

fn truncated(path: &Path) -> io::Result<File> {
    options().create(true).truncate(true).open(path)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn written_at(path: &Path) -> Option<Timestamp> {
    let name = path.file_name()?.to_str()?;
    let micros = name.split('-').nth(2)?.parse().ok()?;
    Some(Timestamp::from_micros(micros))
}
