//! From a parsed head to an answer: the target is made sure to mean one thing, fixed routes answer, everything else is
//! checked and forwarded (contract: gateway.md §1 phases A–J, §2, §3).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use caracal_http::admission::{Class, Place};
use caracal_http::path::{self, Canonical};
use caracal_http::{PeerAddr, Profile, RequestId, request_id, trace};
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::{Instrument, Span};

use crate::Gateway;
use crate::checks;
use crate::egress::{self, Inbound};
use crate::grpc;
use crate::operator::{self, plain};
use crate::outgoing::{Answer, Outgoing};
use crate::wire::Refusal;

/// The Gateway as what a listener serves.
#[derive(Clone)]
pub(crate) struct Ingress {
    gateway: Arc<Gateway>,
    door: Door,
}

/// Whom a listener is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Callers, and operators who come the same way.
    Shared,
    /// Callers alone.
    Callers,
    /// Operators alone.
    Operators,
}

impl Ingress {
    /// For callers, and for operators where they have no listener of their own.
    pub(crate) fn public(gateway: Arc<Gateway>) -> Self {
        let door = if gateway.config.separate_operators { Door::Callers } else { Door::Shared };
        Self { gateway, door }
    }

    pub(crate) fn operators(gateway: Arc<Gateway>) -> Self {
        Self { gateway, door: Door::Operators }
    }
}

impl tower::Service<Request<Incoming>> for Ingress {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { gateway, door } = self.clone();
        // The listener has named every request; one that it has not would still get a name.
        let id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| gateway.fresh.next());
        let (service, path) = (Profile::GATEWAY.service(), request.uri().path());
        let span = trace::request(service, request.method(), path, request.headers(), &id);
        let answer = async move {
            let response = gateway.answer(request, id, door).await;
            trace::answered(&Span::current(), response.status());
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

impl Gateway {
    /// Answers one request.
    async fn answer(self: Arc<Self>, request: Request<Incoming>, id: RequestId, door: Door) -> Response<Outgoing> {
        let answering = std::panic::AssertUnwindSafe(route(&self, request, &id, door)).catch_unwind();
        // The payload of a panic may quote anything, a secret included: only the id goes to the log.
        let answer = answering.await.unwrap_or_else(|_| {
            tracing::error!(request_id = %id, "a request panicked");
            Answered::Ours(caracal_http::Problem::internal().render(&id, caracal_http::Profile::GATEWAY))
        });
        let mut response = match answer {
            Answered::Ours(response) => response.map(Outgoing::Ours),
            Answered::Relayed(response) => response.map(Outgoing::relayed),
        };
        response.headers_mut().insert(request_id::HEADER, id.to_header());
        response
    }
}

enum Answered {
    Ours(Response<Full<Bytes>>),
    Relayed(Answer),
}

async fn route(gateway: &Arc<Gateway>, request: Request<Incoming>, id: &RequestId, door: Door) -> Answered {
    let (mut parts, body) = request.into_parts();
    settle_method(&mut parts);
    if let Some(answer) = settle_target(&parts) {
        return Answered::Ours(answer);
    }
    if door != Door::Callers
        && let Some(answer) = operator::answer(gateway, &parts, id).await
    {
        return Answered::Ours(answer);
    }
    if door == Door::Operators {
        return Answered::Ours(plain(StatusCode::NOT_FOUND, "not found\n"));
    }
    let started = tokio::time::Instant::now();
    // Missing only without the listener that knows it, and then nobody may be forwarded as nobody.
    let Some(peer) = parts.extensions.get::<PeerAddr>().copied() else {
        return Answered::Ours(caracal_http::Problem::internal().render(id, caracal_http::Profile::GATEWAY));
    };
    let is_grpc = grpc::is_call(&parts);
    let outcome = match enter(gateway) {
        Ok(place) => proxy(gateway, Inbound { parts, body, peer, id: id.clone(), started }, place).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(answer) => Answered::Relayed(answer),
        Err(refusal) if is_grpc => Answered::Ours(grpc::shape(refusal.render(id), refusal.message())),
        Err(refusal) => Answered::Ours(refusal.render(id)),
    }
}

/// Before anything of a call is looked at: whether there is room for one more. Who is turned away is counted, and neither
/// logged nor known.
fn enter(gateway: &Gateway) -> Result<Option<Place>, Refusal> {
    gateway.metrics.requests.up();
    let entered = gateway.gate.get().map(|gate| gate.ask(Class::Completes)).transpose();
    entered.map_err(|_| {
        Refusal::Overloaded.count(&gateway.metrics);
        Refusal::Overloaded
    })
}

async fn proxy(gateway: &Gateway, inbound: Inbound, place: Option<Place>) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let id = inbound.id.clone();
    let declared = inbound.body.size_hint().exact();
    let checked = checks::check(gateway, &inbound.parts, &inbound.id, declared).await;
    // What comes now is as slow as the upstream and as long as its answer: nothing that turning others away would help.
    if let Some(place) = place {
        place.leave(checked.is_ok());
    }
    let outcome = match checked {
        Ok(permit) => egress::forward(gateway, permit, inbound).await,
        Err(refusal) => {
            refusal.count(&gateway.metrics);
            Err(refusal)
        }
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &outcome {
        Ok(answer) => tracing::info!(request_id = %id, status = answer.status().as_u16(), elapsed_ms, "relayed"),
        Err(refusal) => {
            let (status, reason) = (refusal.status().as_u16(), refusal.reason());
            tracing::info!(request_id = %id, status, reason, elapsed_ms, "refused");
        }
    }
    outcome
}

/// Gives a method its one spelling: what is authorised without case must be sent in the case that was meant.
pub(crate) fn settle_method(request: &mut Parts) {
    let name = request.method.as_str();
    if name.bytes().any(|byte| byte.is_ascii_lowercase())
        && let Ok(settled) = Method::from_bytes(name.to_ascii_uppercase().as_bytes())
    {
        request.method = settled;
    }
}

/// Refuses targets that different readers would read differently, and sends unclean paths to their clean form. Nothing
/// is authenticated, counted or used up here.
pub(crate) fn settle_target(request: &Parts) -> Option<Response<Full<Bytes>>> {
    if request.method == Method::CONNECT {
        return Some(plain(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let path = request.uri.path();
    if path == "*" {
        return Some(match request.method {
            Method::OPTIONS => Response::new(Full::new(Bytes::new())),
            _ => closing(plain(StatusCode::BAD_REQUEST, "400 Bad Request\n")),
        });
    }
    if !egress::escapes_are_whole(path) {
        return Some(closing(plain(StatusCode::BAD_REQUEST, "400 Bad Request\n")));
    }
    match path::canonical(path, request.uri.query()) {
        Canonical::Clean => None,
        Canonical::Redirect(location) => Some(redirect(&request.method, &location)),
    }
}

fn redirect(method: &Method, location: &str) -> Response<Full<Bytes>> {
    let page = matches!(*method, Method::GET | Method::HEAD).then(|| {
        let mut link = String::with_capacity(location.len() + 64);
        for character in location.chars() {
            match character {
                '&' => link.push_str("&amp;"),
                '<' => link.push_str("&lt;"),
                '>' => link.push_str("&gt;"),
                '"' => link.push_str("&#34;"),
                '\'' => link.push_str("&#39;"),
                other => link.push(other),
            }
        }
        format!("<a href=\"{link}\">Temporary Redirect</a>.\n")
    });
    let html = page.is_some();
    let mut response = Response::new(Full::new(Bytes::from(page.unwrap_or_default())));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    // Cleaning leaves nothing that could not stand in a header; the fallback is unreachable.
    headers.insert(LOCATION, HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/")));
    if html {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    response
}

fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
