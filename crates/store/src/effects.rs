//! What a committed group of changes means to those who do not read the store: published messages and chain heads.

use caracal_authority::{OutboxId, Timestamp, ZoneId};

/// A message that a change put into the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique for ever; consumers recognise repetitions by it.
    pub id: OutboxId,
    /// The zone it concerns.
    pub zone: ZoneId,
    /// The topic, for example `caracal.sessions.revoke` (contract: audit-and-streams.md §6.1).
    pub topic: String,
    /// Unique within the topic; a second message with the same key is not added.
    pub dedupe_key: String,
    /// Flat fields, in the order given. Values are wire text.
    pub fields: Vec<(String, String)>,
    /// When the change was made.
    pub created_at: Timestamp,
}

impl Message {
    /// The field called `name`, if it is there and not empty.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// Which hash chain a head belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChainKind {
    /// Evidence of decisions.
    Evidence,
    /// Evidence of management changes.
    Admin,
}

/// The newest link of one chain after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// Which of the two kinds of chain.
    pub kind: ChainKind,
    /// The zone's id, or `(none)` for the management chain of records without a zone.
    pub chain: String,
    /// Sequence number of the newest row.
    pub chain_seq: i64,
    /// Its content hash, lower-case hex.
    pub content_sha256: String,
}

/// Everything one durable commit brought about, in order.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Messages added to the outbox.
    pub messages: Vec<Message>,
    /// The newest head of every chain that grew; an earlier head of the same chain may precede it.
    pub heads: Vec<ChainHead>,
    /// Statements that the changes took, those of repetitions and of failed ones among them.
    pub statements: u64,
}

impl Committed {
    /// Whether nobody needs to hear of it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.heads.is_empty()
    }
}

/// Called by the committing writer after the commit is durable and before any of its callers is answered, so that
/// what a caller was told is already visible to every observer. Must be quick and must not wait for the store.
pub trait Observer: Send + Sync + 'static {
    /// Takes note of a commit.
    fn committed(&self, committed: &Committed);
}

impl<F: Fn(&Committed) + Send + Sync + 'static> Observer for F {
    fn committed(&self, committed: &Committed) {
        self(committed);
    }
}
