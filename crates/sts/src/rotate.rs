//! A zone's next signing key, for operators (contract: sts.md §6, README D5).
//!
//! The new key is published by the commit that adds it, and signs a quarter of an hour later
//! ([`caracal_custody::schedule`]). In an emergency, when a key may be in other hands, waiting helps whoever has it: with
//! `{"emergency": true}` every key of the zone is withdrawn in the same commit, and the new one signs at once. What the old
//! ones signed is dead here and at every Gateway, and elsewhere as soon as a verifier's cache ends.
//!
//! That commit also holds the record of who asked for it: a key that nobody is known to have added is not there. Whoever
//! proves nothing is counted and not recorded (difference D11).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::{KeyId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_custody::{CustodyError, NewKey, Replacement, Rotation};
use caracal_http::{Problem, Profile, RequestId, body, json};
use caracal_ledger::{AdminRecord, Ledger};
use caracal_store::{StoreError, zones};
use http::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Request, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::routes::{BEARER_CHALLENGE, bears};
use crate::{ExchangeError, Sts};

/// Bytes of a body, at most.
const MAX_BODY: usize = 1_024;

/// What the contract answers, from when on the key signs, and in an emergency what it replaced.
#[derive(Serialize)]
struct Rotated<'r> {
    rotated: bool,
    zone_id: &'r ZoneId,
    kid: &'r KeyId,
    signs_from: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<&'r [KeyId]>,
}

pub(crate) async fn rotate(
    State(sts): State<Arc<Sts>>,
    id: RequestId,
    zone: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let Some(token) = &sts.config.admin_token else {
        return (StatusCode::NOT_FOUND, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], "404 page not found\n").into_response();
    };
    if !bears(request.headers(), token) {
        sts.denials.count("sts", "operator_unauthenticated");
        let challenge = [(WWW_AUTHENTICATE, BEARER_CHALLENGE), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return (StatusCode::UNAUTHORIZED, challenge, "unauthorized\n").into_response();
    }
    let zone = zone.ok().and_then(|Path(zone)| ZoneId::parse(&zone).ok());
    match sts.rotation(zone, &id, request).await {
        Ok(Done { zone, made: Rotation { kid, signs_from }, withdrawn: None }) => {
            tracing::info!(zone = %zone, %kid, %signs_from, "a signing key was added");
            let answer = Rotated { rotated: true, zone_id: &zone, kid: &kid, signs_from, withdrawn: None };
            Profile::STS.json(StatusCode::OK, &answer).into_response()
        }
        Ok(Done { zone, made: Rotation { kid, signs_from }, withdrawn: Some(withdrawn) }) => {
            tracing::warn!(zone = %zone, %kid, withdrawn = withdrawn.len(), "all signing keys were withdrawn for a new one");
            let answer = Rotated { rotated: true, zone_id: &zone, kid: &kid, signs_from, withdrawn: Some(&withdrawn) };
            Profile::STS.json(StatusCode::OK, &answer).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// What a rotation came to; `withdrawn` in an emergency.
struct Done {
    zone: ZoneId,
    made: Rotation,
    withdrawn: Option<Vec<KeyId>>,
}

/// Whether the body asks for an emergency: nothing, or an object with that one flag. What is not understood here must not
/// pass for the ordinary rotation, which leaves a leaked key in force.
fn is_emergency(headers: &HeaderMap, bytes: &[u8]) -> Result<bool, NotRotated> {
    let document = json::document(headers, bytes).map_err(|error| NotRotated::Body(error.to_string()))?;
    let expected = || NotRotated::Body(r#"expected no body, or {"emergency": true}"#.to_owned());
    match document {
        None => Ok(false),
        Some(Value::Object(members)) => {
            let emergency = members.get("emergency");
            if members.len() > usize::from(emergency.is_some()) {
                return Err(expected());
            }
            emergency.map_or(Ok(false), |emergency| emergency.as_bool().ok_or_else(expected))
        }
        Some(_) => Err(expected()),
    }
}

/// Why no key was added.
#[derive(Debug, thiserror::Error)]
enum NotRotated {
    /// There is no such zone, or it was archived.
    #[error("there is no such zone")]
    NoZone,
    /// What was sent is not understood.
    #[error("the body is not understood: {0}; no key was added")]
    Body(String),
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Chance(#[from] chance::ChanceUnavailable),
}

impl From<StoreError> for NotRotated {
    fn from(error: StoreError) -> Self {
        Self::Custody(error.into())
    }
}

impl From<NotRotated> for Problem {
    fn from(error: NotRotated) -> Self {
        match error {
            NotRotated::NoZone => Self::new(StatusCode::NOT_FOUND, "resource_not_found").describe(error.to_string()),
            NotRotated::Body(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_request").describe(error.to_string()),
            NotRotated::Custody(CustodyError::Crowded { retry_after, .. }) => {
                Self::limited("provider_rate_limited", retry_after).describe(error.to_string())
            }
            NotRotated::Custody(error) => ExchangeError::from(error).into(),
            NotRotated::Chance(error) => ExchangeError::from(error).into(),
        }
    }
}

/// Everything one rotation makes durable.
struct Addition {
    key: NewKey,
    emergency: bool,
    ledger: Arc<Ledger>,
    record: AdminRecord,
}

impl Sts {
    async fn rotation(&self, zone: Option<ZoneId>, id: &RequestId, request: Request<Body>) -> Result<Done, NotRotated> {
        let (parts, body) = request.into_parts();
        let bytes = body::read(body, MAX_BODY, self.config.body_deadline).await;
        let bytes = bytes.map_err(|error| NotRotated::Body(error.to_string()))?;
        let emergency = is_emergency(&parts.headers, &bytes)?;
        let zone = zone.ok_or(NotRotated::NoZone)?;
        let (made, withdrawn) = self.rotate(&zone, emergency, id).await?;
        Ok(Done { zone, made, withdrawn })
    }

    async fn rotate(
        &self,
        zone: &ZoneId,
        emergency: bool,
        id: &RequestId,
    ) -> Result<(Rotation, Option<Vec<KeyId>>), NotRotated> {
        let now = self.store.now();
        let path = format!("/internal/zones/{zone}/signing-key/rotate");
        let record = AdminRecord {
            id: chance::uuid_v7(now)?.to_string(),
            request_id: id.as_str().to_owned(),
            // The token stands for whoever operates the deployment; it has no id of its own.
            actor_id: None,
            actor_name: Some("STS_ADMIN_TOKEN".to_owned()),
            actor_scope: None,
            action: format!("POST {path}"),
            method: "POST".to_owned(),
            path,
            zone: Some(zone.clone()),
            entity_type: Some("zones".to_owned()),
            entity_id: Some(zone.as_str().to_owned()),
            status_code: StatusCode::OK.as_u16(),
            payload: None,
            occurred_at: now,
        };
        let (key, ledger) = (self.keys.prepare(zone)?, self.ledger.clone());
        let addition = Addition { key, emergency, ledger, record };
        self.store
            .commit(zone, addition, |tx, addition| {
                Box::pin(async move {
                    if zones::lookup(tx).await?.is_none_or(|zone| zone.archived_at.is_some()) {
                        return Err(NotRotated::NoZone);
                    }
                    let (made, withdrawn) = match addition.emergency {
                        false => (addition.key.add(tx).await?, None),
                        true => {
                            let Replacement { made, withdrawn } = addition.key.replace_all(tx).await?;
                            (made, Some(withdrawn))
                        }
                    };
                    let mut record = addition.record.clone();
                    let mut payload = Map::from_iter([
                        ("change_kind".to_owned(), "action".into()),
                        ("changed_fields".to_owned(), Value::Array(Vec::new())),
                        ("kid".to_owned(), made.kid.as_str().into()),
                        ("signs_from".to_owned(), made.signs_from.to_millis_text().into()),
                    ]);
                    if let Some(withdrawn) = &withdrawn {
                        let kids: Vec<&str> = withdrawn.iter().map(KeyId::as_str).collect();
                        payload.insert("emergency".to_owned(), true.into());
                        payload.insert("withdrawn".to_owned(), kids.into());
                    }
                    record.payload = Some(payload);
                    record.occurred_at = tx.now();
                    addition.ledger.record_change(tx, &record).await?;
                    Ok((made, withdrawn))
                })
            })
            .await
    }
}
