//! The console account behind a derived token (contract: admin-api.md §3).
//!
//! The console holds three tokens derived from the deployment's admin token, and all its users act through them. So such
//! a token alone is nobody: every request must also carry an assertion, signed with the admin token, of whose account it
//! acts for. Other tokens speak for themselves, and a header that claims an account is not looked at.

use caracal_authority::Timestamp;
use caracal_crypto::hmac::{HmacKey, KeyError};
use caracal_crypto::{Secret, SecretText, constant_time_eq, encoding};
use caracal_store::admin_tokens::AdminToken;
use http::HeaderMap;

use crate::{Admin, seed};

const HEADER: &str = "x-caracal-account";
const VERSION: &str = "v1";
const CONTEXT: &[u8] = b"caracal:account:v1:";
const MAX_ACCOUNT_BYTES: usize = 256;
/// HMAC-SHA256's block size: shorter keys are filled up to it with zeros (RFC 2104 §2).
const BLOCK: usize = 64;

/// Whom a request acts for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The token speaks for itself.
    NotNeeded,
    /// An assertion is due, and there is none, or none that holds.
    Invalid,
    /// This account.
    Proven(String),
}

/// The account that a request with this token acts for.
pub(crate) fn claimed(admin: &Admin, headers: &HeaderMap, token: &AdminToken, now: Timestamp) -> Claim {
    let Some(key) = admin.account_key.as_ref().filter(|_| seed::is_derived(&token.created_by)) else {
        return Claim::NotNeeded;
    };
    let mut lines = headers.get_all(HEADER).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Claim::Invalid };
    let account = line.to_str().ok().and_then(|assertion| verify(key, assertion, now));
    account.map_or(Claim::Invalid, Claim::Proven)
}

/// The key that assertions are signed with: the admin token itself, whose length is the operator's.
pub(crate) fn key(admin_token: &SecretText) -> Result<HmacKey, KeyError> {
    let mut block = Vec::with_capacity(admin_token.expose().len().max(BLOCK));
    block.extend_from_slice(admin_token.expose().as_bytes());
    block.resize(block.len().max(BLOCK), 0);
    HmacKey::from_bytes(Secret::new(block).expose())
}

/// The account of `v1.<account>.<exp>.<mac>` if the signature is right and `exp` lies ahead.
fn verify(key: &HmacKey, assertion: &str, now: Timestamp) -> Option<String> {
    let mut parts = assertion.split('.');
    let (version, account, end, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || version != VERSION {
        return None;
    }
    let account = encoding::from_base64url(account)?;
    let expected = key.sign(&[CONTEXT, &account, b":", end.as_bytes()]);
    if !constant_time_eq(&encoding::from_base64url(mac)?, &expected) {
        return None;
    }
    let is_number = end.bytes().all(|byte| byte.is_ascii_digit());
    let expires = end.parse::<i64>().ok().filter(|_| is_number)?;
    let is_bounded = (1..=MAX_ACCOUNT_BYTES).contains(&account.len());
    (is_bounded && expires > now.as_seconds()).then(|| String::from_utf8(account).ok()).flatten()
}

#[cfg(test)]
mod t01_control_plane_accounts {
    use super::*;

    const VECTOR: &str = "v1.YWNjdC0x.1893456000.Emm8I4ebW0VsBVRbb2r5MjqMs8sQ-UxWEJ4_tDeGaHQ";

    fn check(assertion: &str, now: i64) -> Option<String> {
        let key = key(&Secret::new("admin-secret-0123456789".to_owned())).unwrap();
        verify(&key, assertion, Timestamp::from_seconds(now))
    }

    #[test]
    fn the_contracts_assertion_holds_until_its_last_second() {
        assert_eq!(check(VECTOR, 1_893_455_999).as_deref(), Some("acct-1"));
        assert_eq!(check(VECTOR, 1_893_456_000), None);
    }

    #[test]
    fn any_other_text_proves_nothing() {
        for (from, to) in [
            ("v1.", "v2."),
            ("YWNjdC0x", "YWNjdC0y"),
            ("1893456000", "1893456001"),
            ("1893456000", "+1893456000"),
            ("GaHQ", "GaHR"),
            ("GaHQ", "GaHQ.x"),
            (".Emm8", "Emm8"),
        ] {
            assert_eq!(check(&VECTOR.replace(from, to), 0), None, "{to}");
        }
        assert_eq!(check("", 0), None);
    }

    #[test]
    fn a_long_admin_token_is_its_own_key() {
        let long = "x".repeat(100);
        let mac = HmacKey::from_bytes(long.as_bytes()).unwrap().sign(&[CONTEXT, b"a", b":", b"9"]);
        let assertion = format!("v1.{}.9.{}", encoding::base64url(b"a"), encoding::base64url(&mac));
        assert_eq!(verify(&key(&Secret::new(long)).unwrap(), &assertion, Timestamp::EPOCH).as_deref(), Some("a"));
    }
}
