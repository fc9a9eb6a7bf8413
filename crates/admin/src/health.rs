//! `GET /health` and `GET /ready` (contract: admin-api.md §12).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caracal_http::{Profile, health};

use crate::{Admin, gate};

const DEADLINE: Duration = Duration::from_secs(5);

/// The process answers. Nothing is looked at.
pub(crate) async fn alive() -> Response {
    health::ok(Profile::ADMIN).map(Body::new)
}

async fn beside_the_store(admin: &Admin) -> Response {
    let objections = admin.probes.objections().await;
    if objections.redis_unreachable {
        return health::dependency_down("redis_unreachable", "redis").into_response();
    }
    match objections.outbox_dead {
        0 => health::ok(Profile::ADMIN).map(Body::new),
        dead => health::outbox_dead(dead, 0).into_response(),
    }
}

/// Requests can be served: not going down, and the store reads and writes.
pub(crate) async fn ready(admin: Arc<Admin>, request: Request) -> Response {
    if let Err(refusal) = admin.limits.probe(gate::source(&admin, &request), admin.store.now()) {
        return refusal.problem.into_response();
    }
    if admin.is_draining() {
        return health::draining().into_response();
    }
    match tokio::time::timeout(DEADLINE, admin.store.check()).await {
        Ok(Ok(())) => return beside_the_store(&admin).await,
        Ok(Err(error)) => tracing::warn!(%error, "not ready"),
        Err(_) => tracing::warn!("not ready, the store does not answer"),
    }
    // The contract's name for "the store does not answer", whichever engine it is.
    health::dependency_down("postgres_unreachable", "postgres").into_response()
}
