//! From a URI to a connection: resolve once, judge everything, dial only what was admitted.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::EgressError;
use super::identity::ClientIdentity;
use super::policy::{AddressPolicy, Admitted};
use super::race::{self, Lost};
use super::target::{Host, TargetError, TargetUrl};
use super::tls::TlsTrust;

/// Connections that are kept open for another request, of all upstreams together. Each of a tenant's resources can name an
/// upstream of its own, and without a bound each would hold a socket long after its call.
const MOST_KEPT: usize = 2_048;

/// Turns names into addresses.
pub trait Resolver: Send + Sync + 'static {
    /// Every address of `host`, in order of preference. Need not keep time: the caller has a deadline.
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

    /// No address of `host` could be connected to: what is remembered of it may be out of date.
    fn forget(&self, _host: &str) {}
}

/// How long each step of a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the name.
    pub resolve: Duration,
    /// Connecting to one address.
    pub connect: Duration,
    /// Connecting to all addresses together: a name may have hundreds.
    pub connect_all: Duration,
    /// How long one address is tried alone before the next is tried beside it.
    pub stagger: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            connect_all: Duration::from_secs(15),
            // The delay that RFC 8305 §5 recommends.
            stagger: Duration::from_millis(250),
            handshake: Duration::from_secs(5),
        }
    }
}

/// The connector of every outbound HTTP client. Cloning shares everything.
#[derive(Clone)]
pub struct GuardedConnector(Arc<Inner>);

struct Inner {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolver>,
    trust: TlsTrust,
    timeouts: Timeouts,
    kept: Arc<Semaphore>,
}

impl GuardedConnector {
    /// Connects where `policy` allows, with the default [`Timeouts`].
    pub fn new(policy: AddressPolicy, resolver: Arc<dyn Resolver>, trust: TlsTrust) -> Self {
        Self::with_timeouts(policy, resolver, trust, Timeouts::default())
    }

    /// The same with other timeouts.
    pub fn with_timeouts(
        policy: AddressPolicy,
        resolver: Arc<dyn Resolver>,
        trust: TlsTrust,
        timeouts: Timeouts,
    ) -> Self {
        Self::keeping(MOST_KEPT, policy, resolver, trust, timeouts)
    }

    /// The same, with at most `most` connections that can be kept.
    pub(super) fn keeping(
        most: usize,
        policy: AddressPolicy,
        resolver: Arc<dyn Resolver>,
        trust: TlsTrust,
        timeouts: Timeouts,
    ) -> Self {
        let kept = Arc::new(Semaphore::new(most));
        Self(Arc::new(Inner { policy, resolver, trust, timeouts, kept }))
    }

    /// The same, that shows `identity` to servers which ask for a certificate.
    pub fn presenting(&self, identity: &ClientIdentity) -> Self {
        let Inner { policy, resolver, trust, timeouts, .. } = &*self.0;
        Self::with_timeouts(policy.clone(), resolver.clone(), trust.presenting(identity), *timeouts)
    }

    /// Resolves and judges without connecting, for whoever wants to refuse a URL when it is configured. It promises
    /// nothing about later: a connection judges again.
    pub async fn admit(&self, host: &Host, port: u16) -> Result<Admitted, EgressError> {
        self.0.admit(host, port).await
    }
}

impl Service<Uri> for GuardedConnector {
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
        // Parsed like any other target, whoever built it: a literal in a URI is judged as surely as a resolved name.
        let (scheme, authority) = (uri.scheme_str(), uri.authority().map(|authority| authority.as_str()));
        let (Some(scheme), Some(authority)) = (scheme, authority) else {
            return Err(TargetError::NotAbsolute.into());
        };
        let target = TargetUrl::parse(&format!("{scheme}://{authority}/"))?;
        let admitted = self.admit(target.host(), target.port()).await?;
        let stream = self.dial(&admitted).await?;
        let reuse = Reuse::among(&self.kept);
        if target.is_https() {
            self.secure(admitted.host(), stream, reuse).await
        } else {
            Ok(EgressStream::Plain(stream, reuse))
        }
    }

    async fn admit(&self, host: &Host, port: u16) -> Result<Admitted, EgressError> {
        let name = match host {
            Host::Address(address) => return self.policy.admit(host, port, &[*address]),
            Host::Name(name) => name,
        };
        let failed = |reason: String| EgressError::ResolveFailed { host: name.clone(), reason };
        match timeout(self.timeouts.resolve, self.resolver.resolve(name)).await {
            Ok(Ok(addresses)) => self.policy.admit(host, port, &addresses),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("no answer in time".to_owned())),
        }
    }

    async fn dial(&self, admitted: &Admitted) -> Result<TcpStream, EgressError> {
        let host = || admitted.host().to_string();
        race::connect(admitted.addresses(), &self.timeouts).await.map_err(|lost| {
            if let Host::Name(name) = admitted.host() {
                self.resolver.forget(name);
            }
            match lost {
                Lost::Refused(error) => EgressError::ConnectFailed { host: host(), reason: error.to_string() },
                Lost::TimedOut => EgressError::ConnectTimeout { host: host() },
            }
        })
    }

    async fn secure(&self, host: &Host, stream: TcpStream, reuse: Reuse) -> Result<EgressStream, EgressError> {
        match timeout(self.timeouts.handshake, secure(&self.trust, host, stream)).await {
            Ok(secured) => secured.map(|stream| EgressStream::Tls(Box::new(stream), reuse)),
            Err(_) => Err(EgressError::TlsFailed { host: host.to_string(), reason: "handshake timed out".to_owned() }),
        }
    }
}

/// The TLS handshake with whoever has to prove to be `host`.
pub(super) async fn secure(
    trust: &TlsTrust,
    host: &Host,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, EgressError> {
    let failed = |reason: String| EgressError::TlsFailed { host: host.to_string(), reason };
    let config = trust.config().map_err(|error| failed(error.to_string()))?;
    let name = match host {
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| failed(error.to_string()))?,
        Host::Address(address) => ServerName::from(*address),
    };
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| failed(error.to_string()))
}

/// One attempt, without any limit of time.
pub(super) async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a connection may be kept for another request.
pub struct Reuse {
    is_surplus: bool,
    /// Given back when the connection closes.
    _kept: Option<OwnedSemaphorePermit>,
}

impl Reuse {
    /// As long as fewer connections are open than can be kept. One more is not: it serves its request and closes.
    fn among(kept: &Arc<Semaphore>) -> Self {
        let kept = kept.clone().try_acquire_owned().ok();
        Self { is_surplus: kept.is_none(), _kept: kept }
    }

    /// Without a bound, where it is few who are connected to.
    pub(super) fn unbounded() -> Self {
        Self { is_surplus: false, _kept: None }
    }
}

/// An outbound connection to an admitted address.
pub enum EgressStream {
    /// `http`.
    Plain(TcpStream, Reuse),
    /// `https`.
    Tls(Box<TlsStream<TcpStream>>, Reuse),
}

impl Connection for EgressStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        let (Self::Plain(_, reuse) | Self::Tls(_, reuse)) = self;
        if reuse.is_surplus {
            connected.poison();
        }
        connected
    }
}

impl AsyncRead for EgressStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for EgressStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream, _) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }
}
