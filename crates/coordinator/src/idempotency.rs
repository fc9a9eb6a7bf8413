//! One key, at most one effect (contract: coordinator.md §10, README D29).
//!
//! A client that hears nothing asks again with the same `Idempotency-Key`. The receipt of the first success was committed
//! with its effect, so the second request finds both or neither: it gets the first one's answer, or it executes. A key
//! under which something else was asked before is refused, and so is one whose result is gone, because handing out a
//! dead session as if it were new helps nobody.
//!
//! The key itself never reaches the store: what is kept is its digest under a key of ours.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use caracal_authority::ApplicationId;
use caracal_crypto::hmac::sha256_hex;
use caracal_http::Problem;
pub(crate) use caracal_http::idempotency::{BadKey, check_key};
use caracal_store::receipts::{self, KeyScope, Receipt};
use caracal_store::{StoreError, ZoneRead, ZoneWrite};
use serde_json::Value;

use crate::auth::Application;
use crate::canonical::canonical;
use crate::config::CoordinatorConfig;
use crate::outage::Outage;

const KIND: HeaderName = HeaderName::from_static("idempotency-key-kind");
const DOMAIN: &[u8] = b"caracal:coordinator:idempotency:v1\0";

/// An operation that takes keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Starting a session.
    StartSession,
    /// Making a delegation.
    CreateDelegation,
    /// Asking something of a service.
    CreateInvocation,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::StartSession => "session.start.v2",
            Self::CreateDelegation => "delegation.create.v2",
            Self::CreateInvocation => "invocation.create.v2",
        }
    }
}

/// Why a request with a well-formed key does not execute.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyRefused {
    /// Something else was asked under this key before.
    #[error("the idempotency key was used for a different request")]
    Conflict,
    /// What came of it has ended since.
    #[error("what the idempotency key brought about is no longer active")]
    ResultInactive,
    /// Too many explicit keys are remembered in this scope.
    #[error("too many idempotency keys are remembered for this application")]
    TooMany,
    /// The answer is too large to be remembered.
    #[error("the answer is too large to be remembered under an idempotency key")]
    AnswerTooLarge,
    /// The store failed.
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<receipts::KeyRefused> for KeyRefused {
    fn from(error: receipts::KeyRefused) -> Self {
        match error {
            receipts::KeyRefused::Conflict => Self::Conflict,
            receipts::KeyRefused::TooMany => Self::TooMany,
            receipts::KeyRefused::AnswerTooLarge => Self::AnswerTooLarge,
            receipts::KeyRefused::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for KeyRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<KeyRefused> for Problem {
    fn from(error: KeyRefused) -> Self {
        let (status, code) = match &error {
            KeyRefused::Conflict => (StatusCode::CONFLICT, "idempotency_key_conflict"),
            KeyRefused::ResultInactive => (StatusCode::CONFLICT, "idempotency_result_inactive"),
            KeyRefused::TooMany => (StatusCode::TOO_MANY_REQUESTS, "idempotency_receipt_limit_exceeded"),
            KeyRefused::AnswerTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "internal_error"),
            KeyRefused::Outage(outage) => return outage.problem(),
        };
        Problem::new(status, code).member("message", error.to_string())
    }
}

/// A request under a key.
pub(crate) struct Keyed(receipts::Keyed);

impl Keyed {
    /// Reads the headers of a request for `operation` in the scope of `scope`; `None` when it carries no key.
    /// `content` is what makes two requests the same, the caller excepted, which is added here.
    pub(crate) fn read(
        headers: &HeaderMap,
        config: &CoordinatorConfig,
        operation: Operation,
        scope: &ApplicationId,
        caller: &Application,
        content: Value,
    ) -> Result<Option<Self>, BadKey> {
        let Some(key) = caracal_http::idempotency::key_of(headers)? else { return Ok(None) };
        let generated = headers.get(&KIND).is_some_and(|kind| kind.as_bytes() == b"generated");
        let Self(explicit) = Self::explicit(key, config, operation, scope, caller, content);
        // The kind says who made a delegation's key up, so that it does not count against the cap, but not how long it
        // is kept.
        let short_lived = generated && operation == Operation::StartSession;
        let retention = if short_lived { config.generated_idempotency_retention } else { explicit.retention };
        Ok(Some(Self(receipts::Keyed { generated, retention, ..explicit })))
    }

    /// A key that the caller chose: one that [`check_key`] let through.
    pub(crate) fn explicit(
        key: &str,
        config: &CoordinatorConfig,
        operation: Operation,
        scope: &ApplicationId,
        caller: &Application,
        content: Value,
    ) -> Self {
        let current = &config.idempotency_hmac_key;
        let digest_keys = [Some(current), config.idempotency_hmac_key_previous.as_ref()];
        let digests = digest_keys.into_iter().flatten().map(|digest| digest.sign_hex(&[DOMAIN, key.as_bytes()]));
        Self(receipts::Keyed {
            operation: operation.name().to_owned(),
            scope: KeyScope::Application(scope.clone()),
            key_digests: digests.collect(),
            request_digest: request_digest(caller, content),
            generated: false,
            retention: config.idempotency_retention,
            most_explicit: config.idempotency_max_receipts,
        })
    }

    /// What is known of the key: the receipt of an equal request, or nothing and room for one.
    pub(crate) async fn find_receipt(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Receipt>, KeyRefused> {
        Ok(self.0.find_receipt(tx).await?)
    }

    /// Adds the receipt, in the transaction of the effect.
    pub(crate) async fn add_receipt(
        &self,
        tx: &mut ZoneWrite<'_>,
        entity: &str,
        status: StatusCode,
        body: &Value,
    ) -> Result<(), KeyRefused> {
        Ok(self.0.add_receipt(tx, entity, status.as_u16(), body).await?)
    }
}

/// The answer a receipt keeps.
pub(crate) fn remembered_body(receipt: &Receipt) -> Result<Value, KeyRefused> {
    Ok(receipt.answer()?)
}

fn request_digest(caller: &Application, content: Value) -> String {
    let mut content = content;
    if let Value::Object(members) = &mut content {
        let principal = serde_json::json!({"client_id": caller.id, "subject": caller.subject});
        members.insert("principal".to_owned(), principal);
    }
    sha256_hex(canonical(&content).as_bytes())
}

#[cfg(test)]
mod tests {
    use caracal_authority::AuthorityRecordId;
    use caracal_crypto::hmac::HmacKey;
    use caracal_http::idempotency::KEY;
    use serde_json::json;

    use super::*;

    fn config() -> CoordinatorConfig {
        let key: Vec<u8> = (0..32).collect();
        CoordinatorConfig::new("https://issuer.test", HmacKey::from_bytes(&key).unwrap())
    }

    fn read(lines: &[&[u8]]) -> Result<Option<Keyed>, BadKey> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(KEY, axum::http::HeaderValue::from_bytes(line).unwrap());
        }
        let id = ApplicationId::parse("app-1").unwrap();
        let record = AuthorityRecordId::parse("rec-1").unwrap();
        let caller = Application { id: id.clone(), subject: "app-1".to_owned(), record };
        let content = json!({
            "application_id": "app-1", "subject_authority_record_id": "rec-1", "parent_id": null, "lifecycle": "task",
            "labels": ["a"], "ttl_seconds": 3600, "parent_authority": "inherit", "inherit_parent_edge_id": null,
            "metadata": {},
        });
        Keyed::read(&headers, &config(), Operation::StartSession, &id, &caller, content)
    }

    #[test]
    fn the_contracts_vectors_hold() {
        let keyed = read(&[b"delivery-42"]).unwrap().unwrap();
        assert_eq!(keyed.0.key_digests, ["070a7f8528252fdcc7ea14f666d07a66cb20c36566328f9f94ef24d74d0dd6ce"]);
        let digest = "d7a39bb3c841f8ed47661193a91303b0c66b8f5e2b0acf5b9dfdec59a46e66fa";
        assert_eq!(keyed.0.request_digest, digest);
    }

    #[test]
    fn a_key_is_1_to_255_bytes_of_plain_text() {
        for key in [&b"a"[..], "ключ".as_bytes(), &[b'x'; 255], b"a, b", b"A"] {
            assert!(read(&[key]).unwrap().is_some(), "{key:?}");
        }
        for key in [&b""[..], &[b'x'; 256], b" a", "\u{a0}a".as_bytes(), b"a\tb", b"\xff"] {
            assert_eq!(read(&[key]).err(), Some(BadKey::Invalid), "{key:?}");
        }
        assert!(read(&[]).unwrap().is_none());
        assert_eq!(read(&[b"a", b"a"]).err(), Some(BadKey::Multiple));
    }
}
