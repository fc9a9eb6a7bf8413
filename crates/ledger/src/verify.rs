//! Verification of one chain, row by row, in constant memory (contract: audit-and-streams.md §5.3, §12, W4, W22).
//!
//! The verifier trusts nothing of what it is fed. It recomputes each content hash from the columns as they stand,
//! compares each link with the row before, recomputes each seal from the stored hashes, and expects the sequence to
//! run from 1 without a gap. Against the recorded head, kept outside the store, it finds what a chain alone cannot
//! show: a tail that was cut, or a whole chain that was swapped for an older or a rewritten one.
//!
//! **Read the recorded heads first, then the rows.** A running ledger grows meanwhile, and the chain may be ahead of
//! the recorded head but never behind it; read the other way round, an intact chain would look cut. That is why the
//! head is an argument of the constructor.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use caracal_authority::ZoneId;

use crate::admin_chain::StoredAdminRecord;
use crate::chain::{Chain, ChainRecord, Head, StoredRow, sealed_text};
use crate::event::StoredEvent;
use crate::keys::{ChainKey, Keys, Sealed};
use crate::report::{ChainReport, Finding, Problem, Totals};

/// Findings kept per chain. The first ones tell what happened; a chain broken at every row must not fill memory.
pub const MAX_FINDINGS: usize = 1_000;

/// Every chain that has to be verified: those the store knows and those that were recorded. A chain whose rows were
/// all removed is only among the latter.
pub fn chains_to_verify(stored: impl IntoIterator<Item = Chain>, recorded: &BTreeMap<Chain, Head>) -> BTreeSet<Chain> {
    stored.into_iter().chain(recorded.keys().cloned()).collect()
}

/// Whether a store still holds what was recorded, for a look at one row instead of a whole pass: `hash_there` is the
/// content hash of the row at the recorded sequence number, `last_seq` the last number of the chain, 0 when empty.
pub fn holds_recorded(recorded: &Head, hash_there: Option<&str>, last_seq: i64) -> Result<(), Problem> {
    match hash_there {
        _ if last_seq < recorded.chain_seq => Err(Problem::TailCut { recorded: recorded.chain_seq, found: last_seq }),
        None => Err(Problem::SequenceGap { expected: recorded.chain_seq, found: last_seq }),
        Some(hash) if hash != recorded.content_sha256 => Err(Problem::HeadMismatch { recorded: recorded.chain_seq }),
        Some(_) => Ok(()),
    }
}

/// Verifies the evidence chain of one zone.
pub type ZoneVerifier<'k> = ChainVerifier<'k, StoredEvent>;

/// Verifies one chain of admin records.
pub type AdminVerifier<'k> = ChainVerifier<'k, StoredAdminRecord>;

/// Takes the rows of one chain in order of `chain_seq` and collects what is wrong with them.
pub struct ChainVerifier<'k, R> {
    keys: Option<Keys<'k>>,
    /// Age of the newest key that sealed a row so far.
    newest: Option<usize>,
    /// Whether a row named its key.
    named: bool,
    /// The sequence number that has to come next.
    expected: i64,
    before: Before,
    /// Events that the chain has to pass through, beside the recorded head.
    passing: Vec<Head>,
    report: ChainReport,
    record: PhantomData<fn(&R)>,
}

/// What stands before the next row.
enum Before {
    Nothing,
    /// The row that is the report's head so far.
    Head,
    /// A row is missing or could not be read, so the next link has nothing to be compared with.
    Unknown,
}

impl<'k> ZoneVerifier<'k> {
    /// Starts at the first event of `zone`. Without a key, seals are not checked. `recorded` is the zone's recorded
    /// head, read before the rows.
    pub fn new(zone: ZoneId, key: Option<&'k dyn ChainKey>, recorded: Option<Head>) -> Self {
        Self::of_chain(Chain::Evidence(zone), key, recorded)
    }
}

impl<'k> AdminVerifier<'k> {
    /// Starts at the first admin record of `zone`, or of the chain without zone.
    pub fn new(zone: Option<ZoneId>, key: Option<&'k dyn ChainKey>, recorded: Option<Head>) -> Self {
        Self::of_chain(Chain::Admin(zone), key, recorded)
    }
}

impl<'k, R: ChainRecord> ChainVerifier<'k, R> {
    fn of_chain(chain: Chain, key: Option<&'k dyn ChainKey>, recorded_head: Option<Head>) -> Self {
        let report = ChainReport {
            chain,
            rows: 0,
            head: None,
            head_key_id: None,
            recorded_head,
            tree: None,
            seals_checked: key.is_some(),
            findings: Vec::new(),
            findings_total: 0,
            totals: Totals::default(),
        };
        let keys = key.map(Keys::of);
        Self {
            keys,
            newest: None,
            named: false,
            expected: 1,
            before: Before::Nothing,
            passing: Vec::new(),
            report,
            record: PhantomData,
        }
    }

    /// Starts behind `checkpoint` instead, which an earlier pass found intact: feed only later rows.
    #[must_use]
    pub fn resuming_behind(mut self, checkpoint: Head) -> Self {
        self.compare_with_recorded(&checkpoint, None);
        self.expected = checkpoint.chain_seq.saturating_add(1);
        self.before = Before::Head;
        self.report.head = Some(checkpoint);
        self
    }

    /// Starts at position `seq` instead, whose row has to be there: feed only rows from there on.
    #[must_use]
    pub(crate) fn starting_at(mut self, seq: i64) -> Self {
        self.expected = seq;
        self.before = if seq == 1 { Before::Nothing } else { Before::Unknown };
        self
    }

    /// Expects an event that was there before.
    #[must_use]
    pub(crate) fn passing(mut self, head: Head) -> Self {
        self.passing.push(head);
        self
    }

    /// Notes what is wrong with an anchor.
    pub(crate) fn bad_anchor(&mut self, anchored: i64, problem: Problem) {
        self.found(Some(anchored), None, problem);
    }

    /// The next row.
    pub fn next(&mut self, row: &StoredRow<R>) {
        self.report.rows += 1;
        let (record, link) = (&row.record, &row.link);
        let seq = link.chain_seq;
        let mut problems = Vec::new(); // allocates only when something is wrong
        if seq != self.expected {
            problems.push(Problem::SequenceGap { expected: self.expected, found: seq });
            self.before = Before::Unknown;
        }
        if record.zone_id() != self.report.chain.zone().map(ZoneId::as_str) {
            problems.push(Problem::WrongZone { found: record.zone_id().map(str::to_owned) });
        }
        if let Some(reason) = record.defect() {
            problems.push(Problem::UnreadableRow { reason });
        }
        if record.content_sha256() != link.content_sha256 {
            problems.push(Problem::ContentMismatch);
        }
        let prev = link.prev_content_sha256.as_deref();
        let linked = match &self.before {
            Before::Nothing => prev.is_none(),
            Before::Head => prev == self.report.head.as_ref().map(|head| head.content_sha256.as_str()),
            // Only the first row of a chain has no row before it.
            Before::Unknown => prev.is_some() == (seq != 1),
        };
        if !linked {
            problems.push(Problem::BrokenLink);
        }
        problems.extend(self.look_at_seal(row));
        for problem in problems {
            self.found(Some(seq), Some(record.id()), problem);
        }
        let head = link.head();
        self.compare_with_recorded(&head, Some(record.id()));
        self.expected = seq.saturating_add(1);
        self.before = Before::Head;
        self.report.head = Some(head);
        self.report.head_key_id.clone_from(&row.key_id);
    }

    fn look_at_seal(&mut self, row: &StoredRow<R>) -> Option<Problem> {
        let (keys, link) = (self.keys.as_ref()?, &row.link);
        let unnamed = self.named && row.key_id.is_none();
        self.named |= row.key_id.is_some();
        let message = sealed_text(&link.content_sha256, link.prev_content_sha256.as_deref());
        match keys.who(&message, &link.chain_hmac, row.key_id.as_deref(), self.newest.unwrap_or_default()) {
            Sealed::Wrong => Some(Problem::WrongHmac),
            Sealed::ByUnknown(key_id) => Some(Problem::UnknownKey { key_id }),
            Sealed::By(age) => {
                let newest = self.newest.map_or(age, |newest| newest.min(age));
                self.newest = Some(newest);
                let name = |age| keys.name(age).unwrap_or_default().to_owned();
                let replaced = || Problem::ReplacedKey { key_id: name(age), later: name(newest) };
                (age > newest).then(replaced).or(unnamed.then_some(Problem::UnnamedKey))
            }
        }
    }

    /// A row that could not even be read as one, with what is known of it. Without a sequence number it is taken to
    /// be the row that had to come next.
    pub fn next_unreadable(&mut self, chain_seq: Option<i64>, event_id: Option<&str>, reason: impl Into<String>) {
        self.report.rows += 1;
        self.found(chain_seq, event_id, Problem::UnreadableRow { reason: reason.into() });
        let seq = chain_seq.unwrap_or(self.expected);
        if seq != self.expected {
            self.found(chain_seq, event_id, Problem::SequenceGap { expected: self.expected, found: seq });
        }
        self.expected = seq.saturating_add(1);
        self.before = Before::Unknown;
    }

    /// The verdict, once every row was fed.
    pub fn finish(mut self) -> ChainReport {
        let last = self.expected.saturating_sub(1);
        // One finding is enough, of the newest that is missing.
        let heads = self.report.recorded_head.iter().chain(&self.passing);
        if let Some(recorded) = heads.map(|head| head.chain_seq).max()
            && last < recorded
        {
            self.found(None, None, Problem::TailCut { recorded, found: last });
        }
        self.report
    }

    fn compare_with_recorded(&mut self, head: &Head, event_id: Option<&str>) {
        let other = |known: &&Head| known.chain_seq == head.chain_seq && known.content_sha256 != head.content_sha256;
        let mut heads = self.report.recorded_head.iter().chain(&self.passing);
        if let Some(recorded) = heads.find(other).map(|known| known.chain_seq) {
            self.found(Some(recorded), event_id, Problem::HeadMismatch { recorded });
        }
    }

    fn found(&mut self, chain_seq: Option<i64>, event_id: Option<&str>, problem: Problem) {
        self.report.add(Finding { chain_seq, event_id: event_id.map(str::to_owned), problem });
    }
}
