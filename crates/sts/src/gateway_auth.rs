//! Whether a request is a Gateway's (contract: sts.md §10.1). If any of the three headers is there, all must verify;
//! nothing that claims to be a Gateway falls back to being a client.

use caracal_authority::Timestamp;
use caracal_crypto::hmac::{HmacKey, verify_gateway_signature};
use caracal_store::{Store, StoreError, used_mandates};
use http::HeaderMap;
use std::time::Duration;

const TIMESTAMP: &str = "x-caracal-gateway-timestamp";
const NONCE: &str = "x-caracal-gateway-request";
const SIGNATURE: &str = "x-caracal-gateway-signature";

const SKEW_SECONDS: i64 = 60;
/// Longer than both sides of the skew together: a nonce that is forgotten has a time that is refused.
const NONCE_KEPT: Duration = Duration::from_secs(121);
const LONGEST_NONCE: usize = 128;

/// A signature that does not prove a Gateway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAGateway {
    #[error("the gateway signature does not verify")]
    Signature,
    #[error("the gateway signature's time is more than a minute away")]
    Skew,
    #[error("the gateway request was seen before")]
    Replayed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the three headers say, if any of them is there.
pub(crate) struct Presented<'h> {
    timestamp: Option<&'h str>,
    nonce: Option<&'h str>,
    signature: Option<&'h str>,
}

/// What is signed.
pub(crate) struct SignedRequest<'r> {
    pub(crate) method: &'r str,
    pub(crate) escaped_path: &'r str,
    pub(crate) body: &'r [u8],
}

impl<'h> Presented<'h> {
    /// `None`: the request does not claim to be a Gateway's.
    pub(crate) fn by(headers: &'h HeaderMap) -> Option<Self> {
        let named = [TIMESTAMP, NONCE, SIGNATURE].iter().any(|name| headers.contains_key(*name));
        // A header that is repeated or not text counts as a wrong one.
        let only = |name: &str| {
            let mut lines = headers.get_all(name).iter();
            let first = lines.next()?;
            if lines.next().is_some() { None } else { first.to_str().ok() }
        };
        named.then(|| Self { timestamp: only(TIMESTAMP), nonce: only(NONCE), signature: only(SIGNATURE) })
    }

    /// Checks time and signature, then takes the nonce. Without a key nothing verifies.
    pub(crate) async fn verify(
        &self,
        key: Option<&HmacKey>,
        request: &SignedRequest<'_>,
        now: Timestamp,
        store: &Store,
    ) -> Result<(), NotAGateway> {
        let (Some(key), Some(timestamp), Some(nonce), Some(signature)) =
            (key, self.timestamp, self.nonce, self.signature)
        else {
            return Err(NotAGateway::Signature);
        };
        let seconds: i64 = timestamp.parse().map_err(|_| NotAGateway::Signature)?;
        if nonce.is_empty() || nonce.len() > LONGEST_NONCE || timestamp.starts_with('+') {
            return Err(NotAGateway::Signature);
        }
        let (method, path, body) = (request.method, request.escaped_path, request.body);
        if !verify_gateway_signature(key, seconds, nonce, method, path, body, signature) {
            return Err(NotAGateway::Signature);
        }
        if seconds.abs_diff(now.as_seconds()) > SKEW_SECONDS.unsigned_abs() {
            return Err(NotAGateway::Skew);
        }
        // Only now: an unsigned request must not be able to use up a nonce.
        let taken: Result<bool, StoreError> = store
            .commit_upkeep((nonce.to_owned(), now.plus(NONCE_KEPT)), |tx, (nonce, until)| {
                Box::pin(async move { used_mandates::consume_nonce(tx, nonce, *until).await })
            })
            .await;
        if taken? { Ok(()) } else { Err(NotAGateway::Replayed) }
    }
}
