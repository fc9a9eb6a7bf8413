//! Checkpoints (C2SP tlog-checkpoint): a log says how large its tree is and what its root is, and signs it.

use caracal_authority::ZoneId;
use caracal_crypto::ed25519::{PUBLIC_BYTES, SigningKey};

use super::merkle::TreeHash;
use super::note::{self, NotSigned, Note, Use, VerifierKey};

/// The name of a zone's log: the first line of its checkpoints, and the name of its key.
pub fn origin(zone: &ZoneId) -> String {
    format!("caracal/ledger/{zone}")
}

/// The public key of a zone's log, as verifiers are given it. `None` when the zone's id can't be part of a name.
pub fn verifier_key(zone: &ZoneId, public: &[u8; PUBLIC_BYTES]) -> Option<VerifierKey> {
    VerifierKey::new(&origin(zone), Use::Note, *public)
}

/// The id and the text of a zone's [`verifier_key`].
pub fn key_names(zone: &ZoneId, public: &[u8; PUBLIC_BYTES]) -> (String, String) {
    verifier_key(zone, public).map(|key| (key.id_text(), key.to_string())).unwrap_or_default()
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Leaves of its tree.
    pub size: u64,
    /// Its root.
    pub root: TreeHash,
}

/// Why a text is no checkpoint of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotACheckpoint {
    /// Its signature.
    #[error(transparent)]
    Note(#[from] NotSigned),
    /// Its text.
    #[error("its text is not a checkpoint's")]
    Text,
    /// Another log's key signed it.
    #[error("it speaks of another log than the one whose key signed it")]
    OtherLog,
}

impl Checkpoint {
    /// Signs it; `None` when its origin can't be the name of a key.
    pub fn sign(&self, key: &SigningKey) -> Option<String> {
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64());
        note::sign(&text, &self.origin, key)
    }

    /// What `note` says, once the log that owns `key` is known to have said it.
    pub fn verified(note: &Note, key: &VerifierKey) -> Result<Self, NotACheckpoint> {
        let checkpoint = Self::read(note.verified_by(key)?).ok_or(NotACheckpoint::Text)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(NotACheckpoint::OtherLog) }
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        let is_canonical = number.to_string() == size && !origin.is_empty() && lines.all(|line| !line.is_empty());
        let root = TreeHash::from_base64(root)?;
        is_canonical.then(|| Self { origin: origin.to_owned(), size: number, root })
    }
}
