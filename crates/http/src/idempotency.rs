//! The header under which a client asks again for the same thing (contract: coordinator.md §10, admin-api.md §1).

use http::{HeaderMap, HeaderName, StatusCode};

use crate::Problem;

/// The key.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// On an answer: it is the one that an earlier request under the same key got.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const MAX_KEY_BYTES: usize = 255;

/// A header that holds no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Empty, too long, surrounded by white space, or with control characters.
    #[error("the idempotency key must be 1 to 255 bytes without surrounding white space or control characters")]
    Invalid,
    /// Several header lines.
    #[error("only one idempotency key is accepted")]
    Multiple,
}

impl BadKey {
    /// The code of its 400.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "idempotency_key_invalid",
            Self::Multiple => "idempotency_key_multiple",
        }
    }
}

impl From<BadKey> for Problem {
    fn from(error: BadKey) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.code()).member("message", error.to_string())
    }
}

/// The key of a request, if it carries one.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, BadKey> {
    let mut lines = headers.get_all(&KEY).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => check_key(line.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(BadKey::Multiple),
    }
}

/// The text of a key, if it is one.
pub fn check_key(bytes: &[u8]) -> Result<&str, BadKey> {
    let key = std::str::from_utf8(bytes).map_err(|_| BadKey::Invalid)?;
    let control = |character: char| character <= '\u{1f}' || character == '\u{7f}';
    let fits = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.trim() == key && !key.contains(control);
    if fits { Ok(key) } else { Err(BadKey::Invalid) }
}
