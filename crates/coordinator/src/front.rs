//! From a request to its answer, in the order that callers can observe (contract: coordinator.md §1): rate limit, body,
//! authentication and zone, unknown route, path parameters, then the route's own checks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use caracal_authority::{AgentSessionId, EdgeId, InvocationId};
use caracal_http::limits::Source;
use caracal_http::rate::Kind;
use caracal_http::{PeerAddr, Problem, Profile, RequestId, body, health, json};
use serde_json::Value;

use crate::Coordinator;
use crate::auth::{Sources, Unauthenticated, authenticate};
use crate::delegate::delegate;
use crate::delegation_reads::{
    effective_authority, impact, list_active, list_inbound, list_outbound, read_epoch, read_inbound, traverse,
};
use crate::evidence::Caller;
use crate::lease::{heartbeat, take_over_lease};
use crate::operations::{metrics, stats};
use crate::outbox;
use crate::read_session::read_session;
use crate::revoke::revoke;
use crate::route::{Recognised, Route, ZoneRoute, recognise};
use crate::session_lists::{list_children, list_sessions};
use crate::start::start;
use crate::suspension::{resume, suspend};
use crate::terminate::terminate;
use crate::verify::verify;
use crate::wire::{Answer, invalid_params, unknown_route};
use crate::{agent_services, invocations};

const SERVICE: &str = "coordinator";
/// How long readiness waits for the store.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// What a route needs of an authenticated request.
struct Call {
    caller: Arc<Caller>,
    headers: HeaderMap,
    query: Option<String>,
    body: Option<Value>,
}

/// Answers any request.
pub(crate) async fn serve(coordinator: Arc<Coordinator>, request: Request) -> Response {
    match answer(&coordinator, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn answer(coordinator: &Coordinator, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let Recognised { route, zone } = recognise(&parts.method, parts.uri.path());
    coordinator.check_rate(&parts, &route).await?;
    let body = document(coordinator, &parts, body).await?;
    let route = match route {
        Route::Health => return Ok(health::ok(Profile::COORDINATOR).into_response()),
        Route::Ready => return coordinator.readiness().await,
        Route::Verify => return Ok(verify(coordinator, body.as_ref()).await?.into_response()),
        Route::Stats => return coordinator.watched(stats(coordinator, &parts.headers, &parts.method).await),
        Route::Metrics => return coordinator.watched(metrics(coordinator, &parts.headers, &parts.method).await),
        Route::InZone(route) => Some(route),
        Route::Unknown => None,
    };
    let sources = Sources { config: &coordinator.config, store: &coordinator.store, keys: coordinator.keys.as_ref() };
    let principal = authenticate(&sources, &parts.headers, &parts.method, route.as_ref(), zone.as_deref()).await;
    let principal = principal.map_err(|refused| coordinator.unheard(refused))?;
    let request_id = parts.extensions.get::<RequestId>().cloned().ok_or_else(Problem::internal)?;
    let caller = Arc::new(Caller {
        principal,
        request_id,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        in_zone: zone.is_some(),
    });
    let query = parts.uri.query().map(str::to_owned);
    let call = Call { caller: caller.clone(), headers: parts.headers, query, body };
    let keyed = match &route {
        Some(ZoneRoute::StartSession | ZoneRoute::CreateDelegation) => call.headers.contains_key("idempotency-key"),
        Some(ZoneRoute::CreateInvocation) => true,
        _ => false,
    };
    let outcome = match route {
        Some(route) => perform(coordinator, route, call).await,
        None => Err(unknown_route()),
    };
    if keyed {
        coordinator.outcomes.note(&outcome);
    }
    match outcome {
        Ok(answer) => Ok(answer.into_response()),
        Err(problem) => {
            coordinator.failures.note(&caller, problem.status().as_u16(), coordinator.store.now());
            Err(problem)
        }
    }
}

async fn perform(coordinator: &Coordinator, route: ZoneRoute, call: Call) -> Result<Answer, Problem> {
    let Call { caller, headers, query, body } = call;
    let (query, body) = (query.as_deref(), body.as_ref());
    match route {
        ZoneRoute::StartSession => start(coordinator, caller, &headers, body).await,
        ZoneRoute::CreateDelegation => delegate(coordinator, caller, &headers, body).await,
        ZoneRoute::ReadSession(id) => read_session(coordinator, &caller.principal, &session(&id)?).await,
        ZoneRoute::ListSessions => list_sessions(coordinator, &caller.principal, query).await,
        ZoneRoute::ListChildren(id) => list_children(coordinator, &caller.principal, &session(&id)?, query).await,
        ZoneRoute::SuspendSession(id) => suspend(coordinator, caller, session(&id)?).await,
        ZoneRoute::ResumeSession(id) => resume(coordinator, caller, session(&id)?).await,
        ZoneRoute::TakeOverLease(id) => take_over_lease(coordinator, caller, session(&id)?).await,
        ZoneRoute::Heartbeat(id) => heartbeat(coordinator, caller, session(&id)?, body).await,
        ZoneRoute::TerminateSession(id) => terminate(coordinator, caller, session(&id)?, query, body).await,
        ZoneRoute::RevokeDelegation(id) => revoke(coordinator, caller, edge(&id)?).await,
        ZoneRoute::ListInbound(id) => list_inbound(coordinator, &caller.principal, &session(&id)?, query).await,
        ZoneRoute::ListOutbound(id) => list_outbound(coordinator, &caller.principal, &session(&id)?, query).await,
        ZoneRoute::ListActive => list_active(coordinator, &caller.principal, query).await,
        ZoneRoute::ReadEpoch => read_epoch(coordinator, &caller.principal).await,
        ZoneRoute::Traverse(id) => traverse(coordinator, &caller.principal, &edge(&id)?).await,
        ZoneRoute::Impact(id) => impact(coordinator, &caller.principal, &edge(&id)?).await,
        ZoneRoute::EffectiveAuthority(id) => effective_authority(coordinator, &caller.principal, &session(&id)?).await,
        ZoneRoute::RegisterService => agent_services::register(coordinator, caller, body).await,
        ZoneRoute::ListServices => agent_services::list(coordinator, &caller.principal, query).await,
        ZoneRoute::CreateInvocation => invocations::create(coordinator, caller, body).await,
        ZoneRoute::ListInvocations => invocations::list(coordinator, &caller.principal, query).await,
        ZoneRoute::ReadInvocation(id) => invocations::read(coordinator, &caller.principal, &invocation(&id)?).await,
        ZoneRoute::StartInvocation(id) => invocations::start(coordinator, caller, invocation(&id)?).await,
        ZoneRoute::CancelInvocation(id) => invocations::cancel(coordinator, caller, invocation(&id)?, body).await,
        ZoneRoute::CompleteInvocation(id) => invocations::complete(coordinator, caller, invocation(&id)?, body).await,
        ZoneRoute::ListDeadMessages => outbox::list_dead(coordinator, &caller.principal).await,
        ZoneRoute::RequeueMessages => outbox::requeue_all(coordinator, caller).await,
        ZoneRoute::RequeueMessage(id) => outbox::requeue(coordinator, caller, &id).await,
        ZoneRoute::ReadInbound(id, edge_id) => {
            read_inbound(coordinator, &caller.principal, &session(&id)?, &edge(&edge_id)?).await
        }
    }
}

fn session(id: &str) -> Result<AgentSessionId, Problem> {
    AgentSessionId::parse(id).map_err(|_| invalid_params())
}

fn edge(id: &str) -> Result<EdgeId, Problem> {
    EdgeId::parse(id).map_err(|_| invalid_params())
}

fn invocation(id: &str) -> Result<InvocationId, Problem> {
    InvocationId::parse(id).map_err(|_| invalid_params())
}

/// The body as JSON, before anybody knows who sent it. Reading routes have none, whatever was sent.
async fn document(coordinator: &Coordinator, parts: &Parts, body: Body) -> Result<Option<Value>, Problem> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(None);
    }
    let config = &coordinator.config;
    let bytes = body::read(body, config.body_limit, config.body_deadline).await?;
    Ok(json::document(&parts.headers, &bytes)?)
}

impl Coordinator {
    /// Every route has one limit, readiness a second; liveness has none, but only in its plainest form.
    async fn check_rate(&self, parts: &Parts, route: &Route) -> Result<(), Problem> {
        if *route == Route::Health && parts.uri.query().is_none() {
            return Ok(());
        }
        let now = self.store.now();
        let source = self.source(parts).map(|source| source.to_string()).unwrap_or_default();
        let limited = |wait| Problem::limited("rate_limited", wait);
        if *route != Route::Ready {
            let kind = match route {
                Route::InZone(
                    ZoneRoute::TerminateSession(_) | ZoneRoute::SuspendSession(_) | ZoneRoute::RevokeDelegation(_),
                ) => Kind::TakesAway,
                _ => Kind::Other,
            };
            self.requests.hit(&source, kind, now).await?;
            if *route == Route::Verify {
                let verification = self.verifications.hit(&source, Kind::Other, now).await;
                verification.map_err(|refused| Problem::from(refused).member("valid", false))?;
            }
            return Ok(());
        }
        self.requests.hit_here(&source, now).into_result().map_err(limited)?;
        self.probes.hit_here(&source, now).into_result().map_err(limited)
    }

    /// Where the request comes from; none when nobody can say, and then all such requests share one budget.
    fn source(&self, parts: &Parts) -> Option<Source> {
        let peer = parts.extensions.get::<PeerAddr>().map(|peer| peer.ip());
        Source::of(&parts.headers, peer, self.config.trust_proxy)
    }

    /// A caller that was not heard proved nothing, so it is counted and not chained (difference D11).
    fn unheard(&self, refused: Unauthenticated) -> Problem {
        let problem = Problem::from(refused);
        let reason = match problem.code() {
            Some("missing_token") => "missing_token",
            Some("missing_scope") => "missing_scope",
            Some("zone_mismatch") => "zone_mismatch",
            Some("identity_revoked") => "identity_revoked",
            Some("sts_unavailable") => "sts_unavailable",
            _ => "invalid_token",
        };
        self.denials.count(SERVICE, reason);
        problem
    }

    /// Who asks for what is the operator's and is not the operator is counted as other callers are who were not heard.
    fn watched(&self, outcome: Result<Response, Problem>) -> Result<Response, Problem> {
        outcome.inspect_err(|problem| match problem.code() {
            Some("missing_token") => self.denials.count(SERVICE, "missing_token"),
            Some("operator_token_required") => self.denials.count(SERVICE, "operator_token_required"),
            _ => {}
        })
    }

    async fn readiness(&self) -> Result<Response, Problem> {
        if self.is_draining() {
            return Err(health::draining());
        }
        match tokio::time::timeout(PROBE_DEADLINE, self.store.check()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(health::dependency_down("postgres_unreachable", "postgres")),
        }
        let objections = self.dependencies.objections().await;
        if objections.outbox_dead > 0 {
            return Err(health::dependency_down("outbox_dead", "outbox"));
        }
        if objections.redis_unreachable {
            return Err(health::dependency_down("redis_unreachable", "redis"));
        }
        Ok(health::ok(Profile::COORDINATOR).into_response())
    }
}
