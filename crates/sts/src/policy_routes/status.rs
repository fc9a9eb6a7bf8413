//! `GET /internal/policy/status/{zoneID}`: what this replica has loaded of a zone, after it has looked.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::{PolicySetVersionId, Timestamp, ZoneId};
use caracal_http::{Problem, Profile};
use http::{Request, StatusCode};
use serde::Serialize;

use crate::wire::Ended;
use crate::{ExchangeError, Sts};

#[derive(Serialize)]
struct Status {
    zone_id: ZoneId,
    loaded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_set_version_id: Option<PolicySetVersionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Why the version could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

pub(crate) async fn status(State(sts): State<Arc<Sts>>, Path(zone): Path<String>, request: Request<Body>) -> Response {
    match sts.status(&zone, request).await {
        Ok(status) => Profile::STS.json(StatusCode::OK, &status).into_response(),
        Err(problem) => problem.into_response(),
    }
}

impl Sts {
    async fn status(&self, zone: &str, request: Request<Body>) -> Result<Status, Problem> {
        self.signed_body(request, 0).await.map_err(Problem::from)?;
        let zone_id = ZoneId::parse(zone).map_err(|_| {
            Problem::new(StatusCode::NOT_FOUND, "resource_not_found").describe("that is not the id of a zone")
        })?;
        let (loaded, _) =
            self.policy.look(&self.store, &zone_id).await.map_err(|error| Ended::from(ExchangeError::from(error)))?;
        Ok(Status {
            zone_id,
            loaded: loaded.loaded_at.is_some(),
            age_seconds: loaded.loaded_at.map(|at| at.until(self.store.now()).as_secs()),
            loaded_at: loaded.loaded_at,
            policy_set_version_id: loaded.policy_set_version_id,
            manifest_sha256: Some(loaded.manifest_sha256).filter(|manifest| !manifest.is_empty()),
            detail: loaded.error,
        })
    }
}
