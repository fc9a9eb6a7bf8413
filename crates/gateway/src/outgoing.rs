//! What leaves as an answer: a body of ours or a relayed one.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::relay::RelayBody;

/// A relayed response; `None` where there is no body to relay.
pub(crate) type Answer = Response<Option<Box<RelayBody>>>;

/// A body on its way to the caller.
pub(crate) enum Outgoing {
    Ours(Full<Bytes>),
    Relayed(Box<RelayBody>),
}

impl Outgoing {
    pub(crate) fn relayed(body: Option<Box<RelayBody>>) -> Self {
        body.map_or_else(|| Self::Ours(Full::new(Bytes::new())), Self::Relayed)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(body) => body.is_end_stream(),
            Self::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(body) => body.size_hint(),
            Self::Relayed(body) => body.size_hint(),
        }
    }
}
