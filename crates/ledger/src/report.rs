//! What verification found, for people and for programs.

use std::fmt;

use caracal_authority::ZoneId;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::chain::{Chain, Head};
use crate::verify::MAX_FINDINGS;

/// What is wrong at one place of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// The row's columns do not hash to its stored content hash: a column or the hash was changed.
    ContentMismatch,
    /// The row's `prev_content_sha256` is not the content hash of the row before, or the first row has one.
    BrokenLink,
    /// The seal does not match the row's stored hashes, or is missing.
    WrongHmac,
    /// The seal is said to be one of a key that is not at hand: what it covers can't be verified without that key.
    UnknownKey {
        /// The key's public name.
        key_id: String,
    },
    /// The seal is one of a key that was replaced, though something before it is sealed with a later key.
    ReplacedKey {
        /// The key's public name.
        key_id: String,
        /// That of the later one.
        later: String,
    },
    /// It isn't said which key made the seal, though it was of something before it.
    UnnamedKey,
    /// Rows are missing, repeated or out of order.
    SequenceGap {
        /// The sequence number that should have come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// The row cannot be what we wrote.
    UnreadableRow {
        /// What is wrong with it.
        reason: String,
    },
    /// A row of another zone lies in this chain.
    WrongZone {
        /// The zone it names, if it names one.
        found: Option<String>,
    },
    /// The chain ends before the recorded head: its tail was cut, or an older copy of the store was put in place.
    TailCut {
        /// Sequence number of the recorded head.
        recorded: i64,
        /// Sequence number of the last row found, 0 when there is none.
        found: i64,
    },
    /// The store's own note of where the chain ends is another. Whoever looks for what is new goes by it, and so does the
    /// next append.
    HeadMoved {
        /// The sequence number that it notes, if it is there.
        noted: Option<i64>,
        /// Sequence number of the last row, 0 when there is none.
        last: i64,
    },
    /// An anchor, which says where the chain begins, was not made with the audit key.
    ForgedAnchor {
        /// Sequence number of the last row that it says was removed.
        anchored: i64,
    },
    /// The tree has another leaf in the row's place, or none: a column was changed since, or the tree was.
    NotInTree,
    /// The tree itself, or its checkpoint.
    TreeDamaged {
        /// What is wrong with it.
        reason: String,
    },
    /// The row at the recorded head has another hash: the chain was rewritten, or another one was put in its place.
    HeadMismatch {
        /// Sequence number of the recorded head.
        recorded: i64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentMismatch => f.write_str("the stored columns do not match their content hash"),
            Self::BrokenLink => f.write_str("the link does not name the event before it"),
            Self::WrongHmac => f.write_str("the seal does not match the stored hashes"),
            Self::UnknownKey { key_id } => write!(
                f,
                "signed with an audit key that is not at hand (id {}): give it in AUDIT_HMAC_KEY_PREVIOUS",
                Shown(key_id)
            ),
            Self::ReplacedKey { key_id, later } => write!(
                f,
                "the seal was made with a key that had been replaced (id {key_id}), behind one made with a later key (id \
                 {later})"
            ),
            Self::UnnamedKey => f.write_str("it is not noted which key made the seal, though it is for events before"),
            Self::SequenceGap { expected, found } => write!(f, "expected seq {expected} here and found seq {found}"),
            Self::UnreadableRow { reason } => write!(f, "unreadable row: {}", Shown(reason)),
            Self::WrongZone { found: Some(zone) } => write!(f, "the event belongs to zone {}", Shown(zone)),
            Self::WrongZone { found: None } => f.write_str("the event belongs to no zone"),
            Self::ForgedAnchor { anchored } => {
                write!(f, "the anchor that says that all up to seq {anchored} was removed has no valid seal")
            }
            Self::TailCut { recorded, found: 0 } => {
                write!(f, "the recorded head is seq {recorded}, but the chain is empty")
            }
            Self::TailCut { recorded, found } => {
                write!(f, "the recorded head is seq {recorded}, but the chain ends at seq {found}")
            }
            Self::HeadMoved { noted: None, last } => {
                write!(f, "the store does not note where the chain ends, which is at seq {last}")
            }
            Self::HeadMoved { noted: Some(noted), last } if noted != last => {
                write!(f, "the store notes that the chain ends at seq {noted}, but it ends at seq {last}")
            }
            Self::HeadMoved { last, .. } => {
                write!(f, "the store notes another hash or another key for the end of the chain at seq {last}")
            }
            Self::NotInTree => f.write_str("the ledger's tree does not have the event in this place"),
            Self::TreeDamaged { reason } => write!(f, "the ledger's tree: {}", Shown(reason)),
            Self::HeadMismatch { recorded } => {
                write!(f, "the event at the recorded head, seq {recorded}, has another hash than was recorded")
            }
        }
    }
}

/// A problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Sequence number of the row, where the row has a readable one.
    pub chain_seq: Option<i64>,
    /// Id of the row's event, where there is a row with a readable one.
    pub event_id: Option<String>,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.event_id, self.chain_seq) {
            (Some(id), Some(seq)) => write!(f, "event {} (seq {seq}): ", Shown(id))?,
            (Some(id), None) => write!(f, "event {}: ", Shown(id))?,
            (None, Some(seq)) => write!(f, "seq {seq}: ")?,
            (None, None) => {}
        }
        self.problem.fmt(f)
    }
}

/// Text out of a store that may have been tampered with, on its way to a terminal.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}

/// How many findings there are of each kind, as metrics count them (contract: audit-and-streams.md §5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that are not what was hashed, or can't be read.
    pub mismatches: u64,
    /// Seals that are not ours.
    pub seals: u64,
    /// Everything else: rows missing, moved or put in, ends and trees that are others.
    pub breaks: u64,
    /// Seals of keys that are not at hand, of which nothing can be said.
    pub unknown_keys: u64,
}

/// The verdict on one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Which chain.
    pub chain: Chain,
    /// Rows looked at, unreadable ones included.
    pub rows: u64,
    /// The last row found.
    pub head: Option<Head>,
    /// Name of the key that the last row says it is sealed with.
    pub(crate) head_key_id: Option<String>,
    /// The head that was recorded outside the store.
    pub recorded_head: Option<Head>,
    /// The chain's tree, where it was found intact: its size as the position, its root as the hash.
    pub tree: Option<Head>,
    /// Whether seals were checked: not without the audit key.
    pub seals_checked: bool,
    /// The first findings, in order.
    pub findings: Vec<Finding>,
    /// How many there are in all; may be more than are kept.
    pub findings_total: u64,
    /// The same by kind.
    pub totals: Totals,
}

impl ChainReport {
    /// Whether nothing was found.
    pub fn is_intact(&self) -> bool {
        self.findings_total == 0
    }

    /// Whether nothing was found but that keys are not at hand: then nothing says that anybody altered it, and nothing that
    /// nobody did.
    pub fn lacks_keys_only(&self) -> bool {
        self.findings_total > 0 && self.findings_total == self.totals.unknown_keys
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        let of_kind = match finding.problem {
            Problem::ContentMismatch | Problem::UnreadableRow { .. } => &mut self.totals.mismatches,
            Problem::UnknownKey { .. } => &mut self.totals.unknown_keys,
            Problem::WrongHmac | Problem::ReplacedKey { .. } => &mut self.totals.seals,
            _ => &mut self.totals.breaks,
        };
        *of_kind += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// The first finding: everything behind it may only follow from it.
    pub fn first(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

/// One line for an intact chain; for a broken one, the first broken event on that line and every kept finding below.
impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first() else {
            write!(f, "{}: {} events verify", self.chain, self.rows)?;
            if let Some(head) = &self.head {
                write!(f, ", head {} {}", head.chain_seq, Shown(&head.content_sha256))?;
            }
            if !self.seals_checked {
                f.write_str(" (seals not checked: no audit key)")?;
            }
            return Ok(());
        };
        let verdict = if self.lacks_keys_only() { "NOT VERIFIED from" } else { "BROKEN at" };
        write!(f, "{}: {verdict} {first}", self.chain)?;
        if self.findings_total > 1 {
            write!(f, "\n  {} findings in {} events:", self.findings_total, self.rows)?;
            for finding in &self.findings {
                write!(f, "\n  - {finding}")?;
            }
            let kept = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
            if self.findings_total > kept {
                write!(f, "\n  - and {} more", self.findings_total - kept)?;
            }
        }
        Ok(())
    }
}

impl Serialize for ChainReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("chain", self.chain.kind())?;
        map.serialize_entry("zone_id", &self.chain.zone())?;
        map.serialize_entry("intact", &self.is_intact())?;
        map.serialize_entry("events", &self.rows)?;
        map.serialize_entry("head", &self.head)?;
        map.serialize_entry("recorded_head", &self.recorded_head)?;
        map.serialize_entry("seals_checked", &self.seals_checked)?;
        map.serialize_entry("first_broken", &self.first())?;
        map.serialize_entry("findings_total", &self.findings_total)?;
        map.serialize_entry("findings", &self.findings)?;
        map.end()
    }
}

/// The verdict on all chains of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    /// One per chain.
    pub chains: Vec<ChainReport>,
}

impl LedgerReport {
    /// Whether every chain is intact.
    pub fn is_intact(&self) -> bool {
        self.chains.iter().all(ChainReport::is_intact)
    }

    /// Whether nothing was found in any chain but that keys are not at hand.
    pub fn lacks_keys_only(&self) -> bool {
        !self.is_intact() && self.chains.iter().all(|chain| chain.is_intact() || chain.lacks_keys_only())
    }

    /// Events looked at.
    pub fn rows(&self) -> u64 {
        self.chains.iter().map(|chain| chain.rows).sum()
    }

    /// The first finding of the first broken chain.
    pub fn first(&self) -> Option<(&Chain, &Finding)> {
        self.chains.iter().find_map(|report| Some((&report.chain, report.first()?)))
    }
}

/// The chains one below the other, then a line that sums them up.
impl fmt::Display for LedgerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chain in &self.chains {
            writeln!(f, "{chain}")?;
        }
        let (chains, rows) = (self.chains.len(), self.rows());
        match self.chains.iter().filter(|chain| !chain.is_intact()).count() {
            0 => write!(f, "ledger intact: {rows} events in {chains} chains"),
            unverified if self.lacks_keys_only() => write!(
                f,
                "ledger NOT VERIFIED: {unverified} of {chains} chains, {rows} events; audit keys that sealed them are not at hand"
            ),
            broken => write!(f, "ledger BROKEN: {broken} of {chains} chains, {rows} events"),
        }
    }
}

impl Serialize for LedgerReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A finding that says itself in which chain it is.
        #[derive(Serialize)]
        struct Placed<'a> {
            chain: &'static str,
            zone_id: Option<&'a ZoneId>,
            #[serde(flatten)]
            finding: &'a Finding,
        }
        let first = self.first().map(|(chain, finding)| Placed { chain: chain.kind(), zone_id: chain.zone(), finding });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("intact", &self.is_intact())?;
        map.serialize_entry("events", &self.rows())?;
        map.serialize_entry("first_broken", &first)?;
        map.serialize_entry("chains", &self.chains)?;
        map.end()
    }
}
