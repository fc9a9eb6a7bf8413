//! Verifiers for tokens that are 256 random bits: nothing to guess, so nothing for a slow hash to slow down
//! (decision D22). The digest is keyed, so that a leaked table can neither be searched for tokens of an operator's own
//! choosing nor be written to with digests that fit.

use crate::encoding::push_base64url;
use crate::hmac::HmacKey;
use crate::secret::{Secret, SecretText};

/// What a token is stored and looked up by, in lower-case hex. Two tokens collide only if SHA-256 does, so looking up
/// by the digest is the whole verification.
pub fn token_digest(key: &HmacKey, token: &str) -> String {
    key.sign_hex(&[b"caracal:token:v1\0", token.as_bytes()])
}

/// The tokens a console derives from the deployment's admin token (contract: admin-api.md §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleToken {
    /// `console-read-only`, capability read.
    ReadOnly,
    /// `console-write`, capability write.
    Write,
    /// `console-approve`, capability approve.
    Approve,
}

impl ConsoleToken {
    /// All three, in the order they are seeded.
    pub const ALL: [Self; 3] = [Self::ReadOnly, Self::Write, Self::Approve];

    fn label(self) -> &'static str {
        match self {
            Self::ReadOnly => "caracal:console:read-only:v1",
            Self::Write => "caracal:console:write:v1",
            Self::Approve => "caracal:console:approve:v1",
        }
    }

    /// The token that belongs to `admin_token`: `cat_` and the label signed with it, in base64url.
    pub fn derive(self, admin_token: &str) -> SecretText {
        let tag = Secret::new(HmacKey::of_any_length(admin_token.as_bytes()).sign(&[self.label().as_bytes()]));
        let mut text = String::with_capacity("cat_".len() + 43);
        text.push_str("cat_");
        push_base64url(&mut text, tag.expose());
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_console_tokens_match_the_contract() {
        let derived = ConsoleToken::ALL.map(|token| token.derive("admin-secret-0123456789"));
        assert_eq!(derived[0].expose(), "cat_Sp6iAD5MOSI82OMCg1lmY1PlM_jWSOgOrbVEOxfBy4w");
        assert_eq!(derived[1].expose(), "cat_v590D48wJmSI-VIakhlJOoc-q4Ls5VDr2QPQQcZxDOA");
        assert_eq!(derived[2].expose(), "cat_CNqkw8U-S0NimLDuJ0PZoTWok5pqwcstOCLwp00I4qo");
    }

    mod t05_secrets {
        use super::*;

        #[test]
        fn a_stored_digest_is_keyed_and_bound_to_the_whole_token() {
            let key = HmacKey::from_bytes(&[1; 32]).unwrap();
            let other = HmacKey::from_bytes(&[2; 32]).unwrap();
            let digest = token_digest(&key, "cat_a");
            assert_eq!(digest.len(), 64);
            assert_eq!(digest, token_digest(&key, "cat_a"));
            assert_ne!(digest, token_digest(&key, "cat_b"));
            assert_ne!(digest, token_digest(&key, "cat_a "));
            assert_ne!(digest, token_digest(&other, "cat_a"));
            assert!(!digest.contains("cat_a"));
        }
    }
}
