//! A service behind a gate.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower::Service;

use super::{Gate, Place};
use crate::admission::Class;
use crate::request_id::RequestId;

/// What a service knows about its requests, and how it turns one away.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// What a request is, by method, path and headers. Nothing of it has been checked.
    pub class: fn(&Method, &str, &HeaderMap) -> Class,
    /// The finished answer to who is turned away.
    pub refusal: fn(&RequestId, &HeaderMap) -> Sorry,
}

/// A finished answer to who is turned away.
pub type Sorry = Response<Full<Bytes>>;

impl Gate {
    /// Puts `inner` behind this gate. Stands outside of everything that costs something; what passes is as it came.
    pub fn guard<S>(self: &Arc<Self>, manners: Manners, inner: S) -> Guarded<S> {
        Guarded { gate: self.clone(), manners, inner }
    }
}

/// A service behind a [`Gate`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    gate: Arc<Gate>,
    manners: Manners,
    inner: S,
}

impl<S, I, B> Service<Request<I>> for Guarded<S>
where
    S: Service<Request<Arriving<I>>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let class = (self.manners.class)(request.method(), request.uri().path(), request.headers());
        // The listener has named every request.
        let place = match (self.gate.ask(class), request.extensions().get::<RequestId>()) {
            (Ok(place), _) => Some(place),
            (Err(_), Some(id)) => {
                let refusal = (self.manners.refusal)(id, request.headers());
                return Answer { inner: None, refusal: Some(refusal), place: None };
            }
            (Err(_), None) => None,
        };
        let arriving = request.map(|body| Arriving { body, place: place.clone() });
        Answer { inner: Some(self.inner.call(arriving)), refusal: None, place }
    }
}

pin_project! {
    /// The answer of a [`Guarded`] service.
    pub struct Answer<F> {
        #[pin]
        inner: Option<F>,
        refusal: Option<Sorry>,
        place: Option<Place>,
    }
}

impl<F, B> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Either<Full<Bytes>, B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.refusal.take(), this.inner.as_pin_mut()) {
            (Some(refusal), _) => Poll::Ready(Ok(refusal.map(Either::Left))),
            (None, Some(inner)) => {
                let response = match ready!(inner.poll(cx)) {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                if let Some(place) = this.place.take() {
                    place.leave(response.status().as_u16() < 400);
                }
                Poll::Ready(Ok(response.map(Either::Right)))
            }
            // Polled after its end.
            (None, None) => Poll::Pending,
        }
    }
}

pin_project! {
    /// A body whose caller may take his time: while he does, his request is not worked on.
    #[derive(Debug)]
    pub struct Arriving<B> {
        #[pin]
        body: B,
        place: Option<Place>,
    }
}

impl<B: Body> Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Some(place) = this.place {
            match polled {
                Poll::Pending => place.pause(),
                Poll::Ready(_) => place.resume(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
