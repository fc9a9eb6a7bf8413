//! The outermost wrapper of every service.
//!
//! A request comes in without an id, or with one nobody should trust; a handler refuses it, or panics, or the router
//! knows no such path. Whatever happens inside, what leaves carries `X-Request-Id`, and what leaves as a
//! [`Problem`] has the service's one error body with the same id in it (contract: README D28). An answer that is not a
//! problem, such as one relayed from an upstream, keeps its body and every other header.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use crate::problem::{Problem, Profile};
use crate::request_id::{self, FreshId, RequestId};
use crate::trace;

/// What an answer's body is once it has passed the face: ours, or the inner service's.
pub type FaceBody<B> = Either<Full<Bytes>, B>;

/// How a service looks from outside: its JSON form and where request ids come from.
#[derive(Clone)]
pub struct Face {
    profile: Profile,
    fresh: FreshId,
}

impl Face {
    /// The face of a service that writes JSON as `profile` says.
    pub fn new(profile: Profile, fresh: FreshId) -> Self {
        Self { profile, fresh }
    }

    /// Wraps a whole router (after `with_state`) or any other service whose errors are answers.
    ///
    /// Wrap from outside rather than with `Router::layer`: only then do the router's own refusals pass through too,
    /// and answers are not boxed a second time.
    pub fn wrap<S>(&self, inner: S) -> FaceService<S> {
        FaceService { inner, face: self.clone() }
    }
}

impl<S> Layer<S> for Face {
    type Service = FaceService<S>;

    fn layer(&self, inner: S) -> FaceService<S> {
        self.wrap(inner)
    }
}

/// A service behind its [`Face`].
#[derive(Clone)]
pub struct FaceService<S> {
    inner: S,
    face: Face,
}

impl<S, I, B> Service<Request<I>> for FaceService<S>
where
    S: Service<Request<I>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<FaceBody<B>>;
    type Error = Infallible;
    type Future = FaceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<I>) -> Self::Future {
        // The listener may have named the request already.
        let id = match request.extensions().get::<RequestId>() {
            Some(id) => id.clone(),
            None => {
                let id = RequestId::adopt(request.headers(), &self.face.fresh);
                request.extensions_mut().insert(id.clone());
                id
            }
        };
        let profile = self.face.profile;
        let path = request.uri().path();
        let span = trace::request(profile.service(), request.method(), path, request.headers(), &id);
        let inner = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).ok());
        FaceFuture { inner, id, profile, span }
    }
}

pin_project! {
    /// The answer of a [`FaceService`].
    pub struct FaceFuture<F> {
        // None when the inner service panicked before it returned a future.
        #[pin]
        inner: Option<F>,
        id: RequestId,
        profile: Profile,
        span: Span,
    }
}

impl<F, B> Future for FaceFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<FaceBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _within = this.span.enter();
        let polled = match this.inner.as_pin_mut() {
            Some(inner) => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))),
            None => return Poll::Ready(Ok(after_panic(this.id, *this.profile, this.span))),
        };
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => {
                let response = finish(response, this.id, *this.profile);
                trace::answered(this.span, response.status());
                Poll::Ready(Ok(response))
            }
            Ok(Poll::Ready(Err(never))) => match never {},
            // Not polled again: `Ready` ends this future, and dropping the rest is all that is left.
            Err(_) => Poll::Ready(Ok(after_panic(this.id, *this.profile, this.span))),
        }
    }
}

/// The payload of a panic may quote anything, a secret included: only the id goes to the log.
fn after_panic<B>(id: &RequestId, profile: Profile, span: &Span) -> Response<FaceBody<B>> {
    tracing::error!(request_id = %id, "a handler panicked");
    trace::answered(span, StatusCode::INTERNAL_SERVER_ERROR);
    Problem::internal().render(id, profile).map(Either::Left)
}

fn finish<B>(mut response: Response<B>, id: &RequestId, profile: Profile) -> Response<FaceBody<B>> {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        response.headers_mut().insert(request_id::HEADER, id.to_header());
        return response.map(Either::Right);
    };
    let (mut parts, _empty) = response.into_parts();
    for framing in [CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING] {
        parts.headers.remove(framing);
    }
    let (rendered, body) = problem.render(id, profile).into_parts();
    parts.headers.extend(rendered.headers);
    Response::from_parts(parts, Either::Left(body))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::header::{ALLOW, WWW_AUTHENTICATE};
    use axum::response::IntoResponse;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn explodes() -> StatusCode {
        panic!("with a secret")
    }

    async fn refuses() -> impl IntoResponse {
        ([(WWW_AUTHENTICATE, "Bearer")], Problem::new(StatusCode::UNAUTHORIZED, "invalid_token"))
    }

    async fn relays() -> impl IntoResponse {
        (StatusCode::SERVICE_UNAVAILABLE, [("x-request-id", "the upstream's")], "busy upstream")
    }

    async fn check(method: &str, path: &str) -> (http::response::Parts, Bytes) {
        let router = Router::new()
            .route("/ok", get(|id: RequestId| async move { id.to_string() }))
            .route("/refuses", get(refuses))
            .route("/explodes", get(explodes))
            .route("/relays", get(relays))
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found") });
        let face = Face::new(Profile::ADMIN, FreshId::new(|| "fresh".to_owned()));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (parts, body) = face.wrap(router).oneshot(request).await.unwrap().into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn every_answer_carries_the_request_id_and_every_refusal_has_it_twice_in_its_body() {
        let (parts, body) = check("GET", "/ok").await;
        assert_eq!(
            (parts.status, &parts.headers["x-request-id"], &body[..]),
            (StatusCode::OK, &"fresh".parse().unwrap(), &b"fresh"[..])
        );
        for (method, path, status, code) in [
            ("GET", "/refuses", StatusCode::UNAUTHORIZED, "invalid_token"),
            ("GET", "/explodes", StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            ("GET", "/nowhere", StatusCode::NOT_FOUND, "not_found"),
        ] {
            let (parts, body) = check(method, path).await;
            assert_eq!(parts.status, status, "{path}");
            assert_eq!(parts.headers["x-request-id"], "fresh", "{path}");
            assert_eq!(parts.headers[CONTENT_TYPE], "application/json; charset=utf-8", "{path}");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"error": code, "requestId": "fresh", "request_id": "fresh"}), "{path}");
        }
    }

    #[tokio::test]
    async fn headers_beside_a_refusal_survive() {
        assert_eq!(check("GET", "/refuses").await.0.headers[WWW_AUTHENTICATE], "Bearer");
    }

    #[tokio::test]
    async fn the_routers_own_405_passes_the_face() {
        let (parts, _) = check("POST", "/ok").await;
        assert_eq!(parts.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(parts.headers["x-request-id"], "fresh");
        assert!(parts.headers.contains_key(ALLOW));
    }

    #[tokio::test]
    async fn a_relayed_answer_keeps_its_body_but_not_a_foreign_request_id() {
        let (parts, body) = check("GET", "/relays").await;
        assert_eq!(&body[..], b"busy upstream");
        assert_eq!(parts.headers.get_all("x-request-id").iter().collect::<Vec<_>>(), ["fresh"]);
    }

    #[tokio::test]
    async fn a_service_that_panics_before_its_future_exists_is_answered_too() {
        let rash = tower::service_fn(|_: Request<Body>| -> std::future::Ready<Result<Response<Body>, Infallible>> {
            panic!("at once")
        });
        let face = Face::new(Profile::STS, FreshId::new(|| "fresh".to_owned()));
        let response = face.wrap(rash).oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["x-request-id"], "fresh");
    }
}
