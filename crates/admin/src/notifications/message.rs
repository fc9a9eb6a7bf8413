//! What is sent: the body, and the header fields with its signature (contract: admin-api.md §8).

use caracal_authority::Timestamp;
use caracal_crypto::SecretText;
use caracal_crypto::hmac::webhook_signature;
use caracal_store::evidence::EvidenceRow;
use caracal_store::notification_deliveries::Delivery;
use http::header::{CONTENT_TYPE, HeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue};
use serde::de::IgnoredAny;
use serde_json::Value;

/// The body of an event. Its metadata goes out as it lies in the ledger, byte for byte. `None`: what lies there is no JSON.
pub(super) fn body(event: &EvidenceRow) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(&event.metadata).ok()?;
    let text = |value: &str| Value::from(value).to_string();
    Some(format!(
        r#"{{"id":{},"type":{},"zone_id":{},"decision":{},"occurred_at":{},"data":{}}}"#,
        text(&event.id),
        text(&event.event_type),
        text(&event.zone_id),
        text(&event.decision),
        text(&Timestamp::from_micros(event.occurred_at).to_millis_text()),
        event.metadata
    ))
}

/// The header fields of an attempt at `now`.
pub(super) fn headers(
    delivery: &Delivery,
    secret: &SecretText,
    body: &str,
    now: Timestamp,
) -> Result<HeaderMap, InvalidHeaderValue> {
    let seconds = now.as_seconds();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [
        ("x-caracal-event", delivery.event_type.clone()),
        ("x-caracal-delivery", delivery.id.to_string()),
        ("x-caracal-sink", delivery.sink_id.to_string()),
        ("x-caracal-timestamp", seconds.to_string()),
        ("x-caracal-signature", webhook_signature(secret, seconds, body.as_bytes())),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    Ok(headers)
}
