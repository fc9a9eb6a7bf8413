//! Base64 as RFC 4648 §4 has it, with padding: the form of every hash and signature of checkpoints and proofs. What is
//! read is only what would have been written.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
