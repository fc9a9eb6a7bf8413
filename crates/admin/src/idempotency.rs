//! One `Idempotency-Key`, at most one object (docs/decisions/0047; contract: admin-api.md §17, additive).
//!
//! A client that hears nothing of its create asks again under the same key. The receipt of the first success was committed
//! with the object, so the second request finds both or neither: it gets the first one's answer, or it creates. Of two that
//! ask at the same time, one creates; the other finds the receipt where it would have left its own, takes everything back
//! and gets the first one's answer.
//!
//! What a receipt keeps is that answer without its secret. A secret that is shown once is shown once: were it kept for
//! replays, even sealed, whoever holds the token and overhears a key could ask for it again unaudited. Neither the key nor
//! the request, which may hold secrets, is kept but as a digest under a key of ours.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_http::Problem;
use caracal_http::idempotency::{REPLAYED, key_of};
use caracal_ledger::canonical::canonical_value;
use caracal_store::receipts::{KeyRefused, KeyScope, Keyed, Receipt};
use caracal_store::{DeploymentWrite, ZoneRead};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::Admin;
use crate::answer::Changed;
use crate::evidence::{Trace, is_collection};
use crate::gate::{Caller, Route};
use crate::problem::Refusal;

/// For how long a key is good.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// So many keys of one token are remembered in one zone.
const MOST: u32 = 10_000;
const KEY_DOMAIN: &[u8] = b"caracal:admin:idempotency:v1\0";
const REQUEST_DOMAIN: &[u8] = b"caracal:admin:idempotent-request:v1\0";
const OPERATION: &str = "admin.create";
/// Where receipts of what belongs to no zone lie. No zone has this id, for ids of zones are UUIDs.
const NO_ZONE: &str = "no-zone";

/// The key of a request that creates something, if it carries one. Elsewhere the header means nothing.
pub(crate) fn keyed(
    admin: &Admin,
    route: &Route,
    parts: &Parts,
    caller: &Caller,
    body: Option<&Value>,
) -> Result<Option<Keyed>, Refusal> {
    if !creates(route) {
        return Ok(None);
    }
    let refuse = |bad: caracal_http::idempotency::BadKey| Refusal::invalid(bad.code()).describe(bad.to_string());
    let Some(key) = key_of(&parts.headers).map_err(refuse)? else { return Ok(None) };
    // Accounts share the console's token, and must not meet each other's keys.
    let actor = caller.actor();
    let content = canonical_value(body.unwrap_or(&Value::Null)).map_err(|_| Problem::internal())?;
    let request = [REQUEST_DOMAIN, parts.uri.path().as_bytes(), b"\0", content.as_bytes()];
    Ok(Some(Keyed {
        operation: OPERATION.to_owned(),
        scope: KeyScope::AdminToken(caller.token().id.clone()),
        key_digests: vec![admin.token_key.sign_hex(&[KEY_DOMAIN, actor.as_bytes(), b"\0", key.as_bytes()])],
        request_digest: admin.token_key.sign_hex(&request),
        generated: false,
        retention: RETENTION,
        most_explicit: MOST,
    }))
}

/// Whether success is a 201 of something that was not there.
pub(crate) fn creates(route: &Route) -> bool {
    let last = route.path.rsplit('/').next().unwrap_or_default();
    route.method == Method::POST && (is_collection(last) || matches!(last, "versions" | "dcr"))
}

/// The answer that this request got when it was first made; none when it was not, so that it has to be carried out. That
/// it was asked for again is on record.
pub(crate) async fn replay(
    admin: &Admin,
    zone: Option<&ZoneId>,
    keyed: &Keyed,
    trace: &Arc<Trace>,
) -> Result<Option<Changed>, Refusal> {
    let place = zone.cloned().map_or_else(no_zone, Ok)?;
    let mut snapshot = admin.store.snapshot().await?;
    let found = keyed.find_receipt(&mut snapshot.zone(&place)).await?;
    drop(snapshot);
    let Some(receipt) = found else { return Ok(None) };
    let status = answer_status(&receipt)?;
    let told = (trace.replayed(), receipt.entity_id.clone());
    let recorded = match zone {
        Some(zone) => {
            let record = admin.store.commit(zone, told, move |tx, (trace, id)| {
                Box::pin(async move { trace.change(tx, status, Some(id)).await })
            });
            record.await?
        }
        None => {
            let record = admin.store.commit_deployment(told, |tx, (trace, id)| {
                Box::pin(async move { trace.zoneless_record(tx, id).await })
            });
            record.await?
        }
    };
    let mut answer = recorded.answer(&receipt.answer()?);
    answer.0.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Some(answer))
}

fn answer_status(receipt: &Receipt) -> Result<StatusCode, Refusal> {
    let status = u16::try_from(receipt.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| Problem::internal().into())
}

/// The place of receipts of what belongs to no zone.
pub(crate) fn no_zone() -> Result<ZoneId, Refusal> {
    ZoneId::parse(NO_ZONE).map_err(|_| Problem::internal().into())
}

/// 409 where another request under the same key was faster: what this one did is taken back.
pub(crate) async fn require_first(tx: &mut ZoneRead<'_>, keyed: &Keyed) -> Result<(), Refusal> {
    match keyed.find_receipt(tx).await? {
        None => Ok(()),
        Some(_) => Err(Refusal::conflict("idempotency_key_conflict")),
    }
}

/// The same for what belongs to no zone.
pub(crate) async fn remember_zoneless(
    tx: &mut DeploymentWrite<'_>,
    keyed: &Keyed,
    id: &str,
    answer: &Value,
) -> Result<(), Refusal> {
    let mut tx = tx.zone_write(&no_zone()?);
    require_first(&mut tx, keyed).await?;
    Ok(keyed.add_receipt(&mut tx, id, StatusCode::CREATED.as_u16(), answer).await?)
}

impl From<KeyRefused> for Refusal {
    fn from(error: KeyRefused) -> Self {
        let (status, code) = match &error {
            KeyRefused::Conflict => (StatusCode::CONFLICT, "idempotency_key_conflict"),
            KeyRefused::TooMany => (StatusCode::TOO_MANY_REQUESTS, "idempotency_receipt_limit_exceeded"),
            KeyRefused::AnswerTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "idempotency_answer_too_large"),
            KeyRefused::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        };
        match error {
            KeyRefused::Store(error) => error.into(),
            told => Self::new(status, code).describe(told.to_string()),
        }
    }
}
