//! Signed notes (C2SP signed-note): text with signatures of Ed25519 keys below it, and witnesses' cosignatures of
//! checkpoints (C2SP tlog-cosignature).

use std::fmt;

use caracal_crypto::ed25519::{self, PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey};
use ring::digest;

use super::base64;

/// Of a note; whatever is longer is none.
const MOST_BYTES: usize = 64 << 10;
/// Signatures that are looked at; a note may carry more.
const MOST_SIGNATURES: usize = 64;

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Notes of its own: what a log signs.
    Note,
    /// That it saw a checkpoint at some time, and that it was consistent with all it had seen of that log before.
    Cosignature,
}

impl Use {
    fn byte(self) -> u8 {
        match self {
            Self::Note => 1,
            Self::Cosignature => 4,
        }
    }
}

/// A public key with the name that its signatures carry, written `name+id+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    used_for: Use,
    public: [u8; PUBLIC_BYTES],
}

/// Why a text is no verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// It is not `name+id+key`.
    #[error("it is not of the form NAME+ID+KEY, which `caracal audit log-key` prints")]
    Form,
    /// It is a key, but not one of Ed25519.
    #[error("it is a key of an algorithm that is not supported here: only Ed25519 is")]
    Algorithm,
    /// Its id is not the one of that name and key.
    #[error("its id does not belong to its name and key: a character may have been lost in copying")]
    Id,
}

impl VerifierKey {
    /// The key called `name`, which must not be empty nor have spaces or a `+`.
    pub fn new(name: &str, used_for: Use, public: [u8; PUBLIC_BYTES]) -> Option<Self> {
        is_name(name).then(|| Self { name: name.to_owned(), used_for, public })
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        // The key may have a `+` of its own: it is base64.
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotAKey::Form);
        };
        let bytes = base64::decode(key).ok_or(NotAKey::Form)?;
        let used_for = match bytes.first() {
            Some(1) => Use::Note,
            Some(4) => Use::Cosignature,
            Some(_) => return Err(NotAKey::Algorithm),
            None => return Err(NotAKey::Form),
        };
        let public = bytes.get(1..).and_then(|key| key.try_into().ok()).ok_or(NotAKey::Form)?;
        let key = Self::new(name, used_for, public).ok_or(NotAKey::Form)?;
        if key.id_text() == id { Ok(key) } else { Err(NotAKey::Id) }
    }

    /// Whose key it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn used_for(&self) -> Use {
        self.used_for
    }

    /// The id that signatures name it by, as hex.
    pub fn id_text(&self) -> String {
        crate::hex::encode(&self.id())
    }

    fn id(&self) -> [u8; 4] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.name.as_bytes());
        context.update(b"\n");
        context.update(&[self.used_for.byte()]);
        context.update(&self.public);
        let hash = context.finish();
        let mut id = [0; 4];
        for (to, from) in id.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        id
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.used_for.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id_text(), base64::encode(&key))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// Why a text is no note, or not one signed by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// It is no signed note at all.
    #[error("it is not a signed note")]
    Form,
    /// No signature of it is by that key.
    #[error("it is not signed by that key")]
    OtherKey,
    /// It names the key, and the signature is not one of this text.
    #[error("its signature is wrong: it was changed, or another key signed it")]
    WrongSignature,
}

/// A note as it was read. Its text is worth nothing until a signature has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Note {
    /// Takes a note apart.
    pub fn parse(note: &str) -> Result<Self, NotSigned> {
        let is_control = |c: char| c < ' ' && c != '\n';
        if note.len() > MOST_BYTES || note.contains(is_control) {
            return Err(NotSigned::Form);
        }
        let at = note.rfind("\n\n").ok_or(NotSigned::Form)?;
        let (text, below) = (&note[..=at], &note[at + 2..]);
        let lines = below.strip_suffix('\n').ok_or(NotSigned::Form)?.split('\n');
        let signature = |line: &str| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let bytes = base64::decode(signature).filter(|bytes| bytes.len() > 4)?;
            is_name(name).then(|| (name.to_owned(), bytes))
        };
        let signatures: Option<Vec<_>> = lines.map(signature).collect();
        let signatures = signatures.filter(|all| all.len() <= MOST_SIGNATURES).ok_or(NotSigned::Form)?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The signed text, once `key` is known to have signed it. Keys that are not asked about don't matter.
    pub fn verified_by(&self, key: &VerifierKey) -> Result<&str, NotSigned> {
        self.check(key, |public, signature| ed25519::verifies(public, self.text.as_bytes(), signature).then_some(()))?;
        Ok(&self.text)
    }

    /// When the witness that owns `key` says it saw this checkpoint, in seconds since 1970.
    pub fn cosigned_by(&self, key: &VerifierKey) -> Result<u64, NotSigned> {
        self.check(key, |public, signature| {
            let (time, signature) = signature.split_first_chunk::<8>()?;
            let time = u64::from_be_bytes(*time);
            let message = cosigned(&self.text, time);
            (i64::try_from(time).is_ok() && ed25519::verifies(public, message.as_bytes(), signature)).then_some(time)
        })
    }

    fn check<T>(
        &self,
        key: &VerifierKey,
        verify: impl Fn(&[u8; PUBLIC_BYTES], &[u8]) -> Option<T>,
    ) -> Result<T, NotSigned> {
        let mut found = Err(NotSigned::OtherKey);
        for (name, bytes) in &self.signatures {
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else { continue };
            if *name == key.name && *id == key.id() {
                // One that names the key and is not by it spoils the note, whatever else is there.
                found = Ok(verify(&key.public, signature).ok_or(NotSigned::WrongSignature)?);
            }
        }
        found
    }
}

/// What a witness signs.
fn cosigned(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The signature line of `signature` under the name of `key`.
fn line(key: &VerifierKey, signature: &[u8]) -> String {
    let mut bytes = key.id().to_vec();
    bytes.extend_from_slice(signature);
    format!("\u{2014} {} {}\n", key.name, base64::encode(&bytes))
}

/// `text`, which ends its last line, as a note signed by `key` under `name`. `None` when that can't be a name.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Option<String> {
    let verifier = VerifierKey::new(name, Use::Note, key.public())?;
    Some(format!("{text}\n{}", line(&verifier, &key.sign(text.as_bytes()))))
}

/// The line that a witness adds to `note` to say that it saw it at `time`, in seconds since 1970.
pub fn cosign(note: &Note, name: &str, key: &SigningKey, time: u64) -> Option<String> {
    let verifier = VerifierKey::new(name, Use::Cosignature, key.public())?;
    let mut signature = Vec::with_capacity(8 + SIGNATURE_BYTES);
    signature.extend_from_slice(&time.to_be_bytes());
    signature.extend_from_slice(&key.sign(cosigned(&note.text, time).as_bytes()));
    Some(line(&verifier, &signature))
}
