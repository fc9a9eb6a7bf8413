//! What leaves as an answer: a body of ours or a relayed one.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::listener::Busy;
use crate::relay::RelayBody;

/// A relayed response; `None` where there is no body to relay.
pub(crate) type Answer = Response<Option<Box<RelayBody>>>;

/// A body on its way to the caller. Its request counts as under way until it is dropped.
pub(crate) struct Outgoing {
    content: Content,
    _busy: Busy,
}

/// Whose body it is.
pub(crate) enum Content {
    Ours(Full<Bytes>),
    Relayed(Box<RelayBody>),
}

impl Outgoing {
    pub(crate) fn ours(body: Full<Bytes>, busy: Busy) -> Self {
        Self { content: Content::Ours(body), _busy: busy }
    }

    pub(crate) fn relayed(body: Option<Box<RelayBody>>, busy: Busy) -> Self {
        let content = match body {
            Some(body) => Content::Relayed(body),
            None => Content::Ours(Full::new(Bytes::new())),
        };
        Self { content, _busy: busy }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.content {
            Content::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Content::Relayed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Ours(body) => body.is_end_stream(),
            Content::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Ours(body) => body.size_hint(),
            Content::Relayed(body) => body.size_hint(),
        }
    }
}
