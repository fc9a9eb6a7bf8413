//! Liveness and readiness bodies (contract: control-cli-deploy.md §8; sts.md §15, gateway.md §20.1, admin-api.md §12,
//! audit-and-streams.md §7).
//!
//! Two families: STS, Gateway and ledger answer with a `reason`, Admin API and Coordinator with an `error` and the
//! dependency it is about. What is checked, and in which order, is each service's own; here is only how it is said.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::problem::{Problem, Profile};

/// What there is to object to a service that has its store. Which objection comes first is each service's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objections {
    /// Redis does not answer.
    pub redis_unreachable: bool,
    /// So many messages lie dead in the outbox.
    pub outbox_dead: u64,
}

/// What a service can't do without beside its store.
pub trait Probe: Send + Sync + 'static {
    /// What there is to object.
    fn objections(&self) -> Pin<Box<dyn Future<Output = Objections> + Send + '_>>;
}

/// The probe of a service, where whoever composes it has given one.
#[derive(Default)]
pub struct Probes(OnceLock<Arc<dyn Probe>>);

impl Probes {
    /// Gives the probe. The first one stays.
    pub fn set(&self, probe: Arc<dyn Probe>) {
        let _ = self.0.set(probe);
    }

    /// What the probe objects; nothing without one.
    pub async fn objections(&self) -> Objections {
        match self.0.get() {
            Some(probe) => probe.objections().await,
            None => Objections::default(),
        }
    }
}

/// `GET /health` of STS, Gateway and ledger: 200 with an empty body.
pub fn alive_empty() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::new()))
}

/// `GET /health`, and `GET /ready` when ready, of Admin API and Coordinator: 200 `{"ok":true}`.
pub fn ok(profile: Profile) -> Response<Full<Bytes>> {
    profile.json(StatusCode::OK, &json!({"ok": true}))
}

/// `GET /ready` of STS and Gateway when ready: 200 `{"ok":true,"ready":true}`.
pub fn ready(profile: Profile) -> Response<Full<Bytes>> {
    profile.json(StatusCode::OK, &json!({"ok": true, "ready": true}))
}

/// `GET /ready` of the ledger's service when ready: 200 `{"ready":true}`.
pub fn ready_audit(profile: Profile) -> Response<Full<Bytes>> {
    profile.json(StatusCode::OK, &json!({"ready": true}))
}

/// 503 `{"ok":false,"ready":false,"reason":…}`: STS, Gateway and ledger.
pub fn not_ready(reason: &'static str) -> Problem {
    unavailable().member("ready", false).member("reason", reason)
}

/// 503 `{"ok":false,"error":…,"dependency":…}`: Admin API and Coordinator.
pub fn dependency_down(error: &'static str, dependency: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).member("ok", false).member("dependency", dependency)
}

/// 503 `{"ok":false,"error":"outbox_dead_messages","deadCount":…,"limit":…}`: Admin API.
pub fn outbox_dead(dead: u64, limit: u64) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "outbox_dead_messages")
        .member("ok", false)
        .member("deadCount", Value::from(dead))
        .member("limit", Value::from(limit))
}

/// 503 `{"ok":false,"draining":true}`: Admin API and Coordinator, from the first moment of a shutdown.
pub fn draining() -> Problem {
    unavailable().member("draining", true)
}

fn unavailable() -> Problem {
    Problem::uncoded(StatusCode::SERVICE_UNAVAILABLE).member("ok", false)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::request_id::RequestId;

    async fn body(response: Response<Full<Bytes>>) -> Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn each_service_says_it_in_its_own_words() {
        let ids = json!({"requestId": "r", "request_id": "r"});
        for (problem, expected) in [
            (not_ready("redis_unreachable"), json!({"ok": false, "ready": false, "reason": "redis_unreachable"})),
            (
                dependency_down("postgres_unreachable", "postgres"),
                json!({"ok": false, "error": "postgres_unreachable", "dependency": "postgres"}),
            ),
            (outbox_dead(7, 5), json!({"ok": false, "error": "outbox_dead_messages", "deadCount": 7, "limit": 5})),
            (draining(), json!({"ok": false, "draining": true})),
        ] {
            let response = problem.render(&RequestId::parse(b"r").unwrap(), Profile::STS);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key("retry-after"));
            let mut expected = expected;
            expected.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
            assert_eq!(body(response).await, expected);
        }
        assert_eq!(body(ok(Profile::ADMIN)).await, json!({"ok": true}));
        assert_eq!(body(ready(Profile::STS)).await, json!({"ok": true, "ready": true}));
        assert_eq!(body(ready_audit(Profile::AUDIT)).await, json!({"ready": true}));
        assert!(alive_empty().into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
