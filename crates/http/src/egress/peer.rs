//! The way to another part of the same deployment: a Gateway's to its STS.
//!
//! Where it lies is the operator's word and not a tenant's, and it usually lies on a private network. So no policy
//! judges the address here; the guard stays what everything else goes through. A request names the replica by address,
//! `http://10.0.0.7:8080/…`, and connections are pooled by it: whoever asks chooses among the replicas behind a name,
//! and an open connection to one of them does not draw every request to it. TLS still insists on the name.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tower::Service;

use super::EgressError;
use super::connect::{EgressStream, Reuse, dial_one, secure};
use super::target::{Host, TargetError};
use super::tls::TlsTrust;

/// A pooling HTTP/1 client to replicas of one peer. It follows no redirect.
pub type PeerClient<B> = Client<PeerConnector, B>;

/// Connects to the address that a URI names. Cloning shares everything.
#[derive(Clone)]
pub struct PeerConnector(Arc<Inner>);

struct Inner {
    name: Host,
    trust: TlsTrust,
    patience: Duration,
}

impl PeerConnector {
    /// `name` is whom TLS has to prove; `patience` bounds a connection with its handshake.
    pub fn new(name: Host, trust: TlsTrust, patience: Duration) -> Self {
        Self(Arc::new(Inner { name, trust, patience }))
    }
}

impl Service<Uri> for PeerConnector {
    type Response = TokioIo<EgressStream>;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, EgressError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Inner {
    async fn connect(&self, uri: &Uri) -> Result<EgressStream, EgressError> {
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let address: SocketAddr = authority.parse().map_err(|_| TargetError::Host)?;
        let host = || self.name.to_string();
        let connecting = async {
            let stream = dial_one(address)
                .await
                .map_err(|error| EgressError::ConnectFailed { host: host(), reason: error.to_string() })?;
            match uri.scheme_str() {
                Some("https") => secure(&self.trust, &self.name, stream)
                    .await
                    .map(|stream| EgressStream::Tls(Box::new(stream), Reuse::unbounded())),
                _ => Ok(EgressStream::Plain(stream, Reuse::unbounded())),
            }
        };
        match timeout(self.patience, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(EgressError::ConnectTimeout { host: host() }),
        }
    }
}
