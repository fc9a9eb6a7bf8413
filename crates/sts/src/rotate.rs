//! A zone's next signing key, for operators (contract: sts.md §6, README D5).
//!
//! The new key is published by the commit that adds it, and signs a quarter of an hour later
//! ([`caracal_custody::schedule`]). That commit also holds the record of who asked for it: a key that nobody is known to
//! have added is not there. Whoever proves nothing is counted and not recorded (difference D11).

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::ZoneId;
use caracal_crypto::chance;
use caracal_custody::{CustodyError, NewKey, Rotation};
use caracal_http::{Problem, Profile, RequestId};
use caracal_ledger::{AdminRecord, Ledger};
use caracal_store::{StoreError, zones};
use http::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Map;

use crate::routes::{BEARER_CHALLENGE, bears};
use crate::{ExchangeError, Sts};

/// What the contract answers, and from when on the key signs.
#[derive(Serialize)]
struct Rotated<'r> {
    rotated: bool,
    zone_id: &'r ZoneId,
    kid: &'r str,
    signs_from: caracal_authority::Timestamp,
}

pub(crate) async fn rotate(
    State(sts): State<Arc<Sts>>,
    id: RequestId,
    zone: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let Some(token) = &sts.config.admin_token else {
        return (StatusCode::NOT_FOUND, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], "404 page not found\n").into_response();
    };
    if !bears(&headers, token) {
        sts.denials.count("sts", "operator_unauthenticated");
        let challenge = [(WWW_AUTHENTICATE, BEARER_CHALLENGE), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return (StatusCode::UNAUTHORIZED, challenge, "unauthorized\n").into_response();
    }
    let zone = zone.ok().and_then(|Path(zone)| ZoneId::parse(&zone).ok());
    let rotated = match zone {
        Some(zone) => sts.rotate(&zone, &id).await.map(|made| (zone, made)),
        None => Err(NotRotated::NoZone),
    };
    match rotated {
        Ok((zone, Rotation { kid, signs_from })) => {
            tracing::info!(zone = %zone, %kid, %signs_from, "a signing key was added");
            let answer = Rotated { rotated: true, zone_id: &zone, kid: kid.as_str(), signs_from };
            Profile::STS.json(StatusCode::OK, &answer).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Why no key was added.
#[derive(Debug, thiserror::Error)]
enum NotRotated {
    /// There is no such zone, or it was archived.
    #[error("there is no such zone")]
    NoZone,
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
    ledger: Arc<Ledger>,
    record: AdminRecord,
}

impl Sts {
    async fn rotate(&self, zone: &ZoneId, id: &RequestId) -> Result<Rotation, NotRotated> {
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
        let addition = Addition { key: self.keys.prepare(zone)?, ledger: self.ledger.clone(), record };
        self.store
            .commit(zone, addition, |tx, addition| {
                Box::pin(async move {
                    if zones::lookup(tx).await?.is_none_or(|zone| zone.archived_at.is_some()) {
                        return Err(NotRotated::NoZone);
                    }
                    let made = addition.key.add(tx).await?;
                    let mut record = addition.record.clone();
                    record.payload = Some(Map::from_iter([
                        ("change_kind".to_owned(), "action".into()),
                        ("changed_fields".to_owned(), serde_json::Value::Array(Vec::new())),
                        ("kid".to_owned(), made.kid.as_str().into()),
                        ("signs_from".to_owned(), made.signs_from.to_millis_text().into()),
                    ]));
                    record.occurred_at = tx.now();
                    addition.ledger.record_change(tx, &record).await?;
                    Ok(made)
                })
            })
            .await
    }
}
