//! `POST /internal/policy/simulate`: what documents would decide that need not be active. Without an input it is the check
//! of a bundle (contract: policy.md §7.3).
//!
//! A body may be as large as a bundle may weigh. Since a signature is over the body, it has to be read before anybody is
//! known; so few are read at a time, and a further one is told to come back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use caracal_authority::ZoneId;
use caracal_http::{Problem, Profile, json};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::policy::{NotSimulated, Simulation};
use crate::{ExchangeError, Sts};

/// Largest body: what a bundle may weigh.
pub(crate) const MAX_BYTES: usize = 32 << 20;
/// How many are read and answered at a time.
pub(crate) const AT_ONCE: usize = 2;

/// Whatever else is sent is ignored.
#[derive(Deserialize)]
struct Asked {
    policy_set_id: String,
    version_id: String,
    manifest_sha256: String,
    policies: Vec<Entry>,
    #[serde(default)]
    input: Option<Map<String, Value>>,
    /// Whose share of the evaluators is used. Who leaves it out has one by the set.
    #[serde(default)]
    zone_id: Option<ZoneId>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    content: String,
}

#[derive(Serialize)]
struct Simulated {
    policy_set_id: String,
    version_id: String,
    manifest_sha256: String,
    result: caracal_policy::Verdict,
}

pub(crate) async fn simulate(State(sts): State<Arc<Sts>>, request: Request<Body>) -> Response {
    match sts.simulate_signed(request).await {
        Ok(simulated) => Profile::STS.json(StatusCode::OK, &simulated).into_response(),
        Err(problem) => problem.into_response(),
    }
}

impl Sts {
    async fn simulate_signed(&self, request: Request<Body>) -> Result<Simulated, Problem> {
        let Ok(_turn) = self.simulations.try_acquire() else { return Err(ExchangeError::Busy.into()) };
        let body = self.signed_body(request, MAX_BYTES).await?;
        let malformed = |what: String| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_token").describe(format!("the body is no question: {what}"))
        };
        // Read once and strictly: `input` goes on as a document of its own, and has to say the same to whoever evaluates it.
        let document = json::parse(&body).map_err(|error| malformed(error.to_string()))?;
        drop(body);
        let asked: Asked = serde_json::from_value(document).map_err(|error| malformed(error.to_string()))?;
        if asked.policies.is_empty() {
            return Err(malformed("`policies` is empty".to_owned()));
        }
        let share = asked.zone_id.as_ref().map_or(asked.policy_set_id.as_str(), ZoneId::as_str);
        let documents = asked.policies.into_iter().map(|entry| (entry.id, entry.content)).collect();
        let result = self.policy.simulate(share, Simulation { documents, input: asked.input }).await?;
        let Asked { policy_set_id, version_id, manifest_sha256, .. } = asked;
        Ok(Simulated { policy_set_id, version_id, manifest_sha256, result })
    }
}

impl From<NotSimulated> for Problem {
    fn from(error: NotSimulated) -> Self {
        match error {
            NotSimulated::Failed(error) => {
                let status = match error.code() {
                    "invalid_token" => StatusCode::BAD_REQUEST,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                Self::new(status, error.code()).describe(error.to_string())
            }
            NotSimulated::NobodyEvaluates(_) => ExchangeError::Busy.into(),
        }
    }
}
