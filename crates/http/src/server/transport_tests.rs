//! What lies below HTTP/1: TLS, HTTP/2, and connections that stop being HTTP.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::http2::TAKEN_BACK;
use super::*;
use crate::egress::{
    AddressPolicy, GuardedConnector, PoolSettings, PrivateHosts, Resolver, TlsTrust, client as egress_client,
    either_client, http2_client,
};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(60);
const PATIENT: Limits = Limits { head: LONG, idle: LONG, write_stall: LONG, max_connections: 64, grace: LONG };

/// A certificate and its key, both as PEM.
fn identity() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der()))
}

/// Files of one certificate, in a directory of their own.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        this.renew();
        this
    }

    /// Writes another certificate and its key; gives the certificate.
    fn renew(&self) -> String {
        let (certificate, key) = identity();
        std::fs::write(self.certificate(), &certificate).unwrap();
        std::fs::write(self.key(), key).unwrap();
        certificate
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn load(&self) -> Arc<ServerTls> {
        ServerTls::load(&self.certificate(), &self.key()).unwrap()
    }
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: JoinHandle<Ended>,
}

async fn start<S, B>(service: S, limits: Limits, transport: Transport) -> Running
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let fresh = FreshId::new(|| "fresh".to_owned());
    Running { address, stop, ended: tokio::spawn(serve_over(listener, service, fresh, limits, transport, stopped)) }
}

/// Says how a request arrived.
fn describing()
-> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future = impl Send + 'static>
+ Clone
+ Send
+ 'static {
    tower::service_fn(|request: Request<Incoming>| async move {
        let secure = request.extensions().get::<Tls>().is_some();
        let text = format!("{:?} {} {secure}", request.version(), request.uri().path());
        Ok(Response::new(Full::new(Bytes::from(text))))
    })
}

/// A TLS connection that trusts exactly this certificate.
async fn secure(
    address: SocketAddr,
    certificate: &Path,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("gateway.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

type Sender = SendRequest<Full<Bytes>>;

async fn http2<T>(stream: T) -> Sender
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn cleartext(running: &Running) -> Sender {
    let stream = TcpStream::connect(running.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    http2(stream).await
}

fn get(target: &str) -> Request<Full<Bytes>> {
    Request::builder().method(Method::GET).uri(target).body(Full::new(Bytes::new())).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const CLEARTEXT: Transport = Transport { tls: None, cleartext_http2: true, on_head_fault: None };

#[tokio::test]
async fn a_caller_gets_the_http_that_it_offers_and_none_without_tls() {
    let files = Files::new();
    let tls = Transport { tls: Some(files.load()), ..Transport::default() };
    let running = start(describing(), PATIENT, tls).await;
    let mut sender = http2(secure(running.address, &files.certificate(), &[b"h2"]).await.unwrap()).await;
    let response = sender.send_request(get("https://gateway.test/a")).await.unwrap();
    assert_eq!(text(response).await, "HTTP/2.0 /a true");
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let mut stream = secure(running.address, &files.certificate(), alpn).await.unwrap();
        stream.write_all(b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // An end of TLS in order, too: nobody can cut the answer short unnoticed.
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("HTTP/1.1 /b true"), "{answer}");
    }
    let mut plain = TcpStream::connect(running.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    // Who stops answering the handshake is given up like who sends no head.
    let hasty = Transport { tls: Some(files.load()), ..Transport::default() };
    let running = start(describing(), Limits { head: SHORT, ..PATIENT }, hasty).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(timeout(LONG, silent.read(&mut [0; 16])).await.unwrap().unwrap_or(0), 0);
}

/// What is refused below the service is no request to it; somebody counts it all the same.
#[tokio::test]
async fn each_head_that_is_refused_is_told_once_and_no_other() {
    let heard: Arc<Mutex<Vec<HeadFault>>> = Arc::default();
    let hear = {
        let heard = heard.clone();
        Arc::new(move |fault| heard.lock().unwrap().push(fault))
    };
    let running = start(describing(), PATIENT, Transport { on_head_fault: Some(hear.clone()), ..CLEARTEXT }).await;
    let large = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    let good = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    for (said, faults) in [
        (good.to_owned(), &[][..]),
        ("GET / HTTP/1.1\r\nHo".to_owned(), &[]),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), &[HeadFault::Malformed]),
        ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), &[HeadFault::Malformed]),
        ("nonsense\r\n\r\n".to_owned(), &[HeadFault::Malformed]),
        (large(21_000), &[HeadFault::TooLarge]),
        (large(100_000), &[HeadFault::TooLarge]),
        (good.replace("Connection: close\r\n", "") + "GET / HTTP/1.1\nHost: h\n\n", &[HeadFault::Malformed]),
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("an end");
        assert_eq!(std::mem::take(&mut *heard.lock().unwrap()), faults, "{:?}", said.get(..40));
    }
    let mut sender = http2(TcpStream::connect(running.address).await.unwrap()).await;
    let mut request = get("http://gateway.test/a");
    request.headers_mut().insert("host", "other.test".parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
    assert_eq!(sender.send_request(get("http://gateway.test/a")).await.unwrap().status(), 200);
    assert_eq!(*heard.lock().unwrap(), [HeadFault::Malformed]);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_a_broken_one_never_replaces_a_good_one() {
    let files = Files::new();
    let tls = files.load();
    let running = start(describing(), PATIENT, Transport { tls: Some(tls.clone()), ..Transport::default() }).await;
    assert_eq!(tls.reload(), Ok(false));
    let first = std::fs::read(files.certificate()).unwrap();
    let second = files.renew();
    let kept = files.directory.path().join("second.pem");
    std::fs::write(&kept, second).unwrap();
    assert!(secure(running.address, &files.certificate(), &[]).await.is_err(), "nobody has looked yet");
    assert_eq!(tls.reload(), Ok(true));
    assert!(secure(running.address, &kept, &[]).await.is_ok());
    // The certificate of one, the key of the other.
    std::fs::write(files.certificate(), &first).unwrap();
    assert!(matches!(tls.reload(), Err(ServerTlsError::Mismatch { .. })));
    std::fs::write(files.certificate(), "nothing").unwrap();
    assert!(matches!(tls.reload(), Err(ServerTlsError::NoCertificate { .. })));
    std::fs::remove_file(files.certificate()).unwrap();
    assert!(matches!(tls.reload(), Err(ServerTlsError::Unreadable { .. })));
    assert!(secure(running.address, &kept, &[]).await.is_ok());
    // And by itself, as soon as the files are good again.
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(tls.clone().keep_reloading(Duration::from_millis(5), stopped));
    files.renew();
    let renewed = async {
        while secure(running.address, &files.certificate(), &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, renewed).await.unwrap();
}

#[tokio::test]
async fn files_that_make_no_identity_are_named() {
    let files = Files::new();
    let (certificate, key) = (files.certificate(), files.key());
    let load = || ServerTls::load(&certificate, &key).err().map(|error| error.to_string()).unwrap_or_default();
    let secret = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    assert!(load().ends_with("holds no private key in PEM form"), "{}", load());
    std::fs::write(&key, identity().1).unwrap();
    assert!(load().contains("is not the key of the certificate"), "{}", load());
    let quoted = secret.lines().nth(1).unwrap();
    assert!(!load().contains(quoted));
    std::fs::remove_file(&key).unwrap();
    assert!(load().contains("could not be read"), "{}", load());
}

#[tokio::test]
async fn cleartext_http2_is_spoken_only_where_it_was_said_so() {
    let running = start(describing(), PATIENT, CLEARTEXT).await;
    let mut sender = cleartext(&running).await;
    assert_eq!(text(sender.send_request(get("http://h/x")).await.unwrap()).await, "HTTP/2.0 /x false");
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // In pieces: the first bytes do not tell yet.
    for piece in [&b"P"[..], b"RX", b" /y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"] {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("HTTP/1.1 /y false"), "{answer}");
    assert_eq!(running.stop.send(true).map(|()| true), Ok(true));
    assert_eq!(running.ended.await.unwrap(), Ended::Drained);
}

#[tokio::test]
async fn an_http2_head_that_is_not_plain_is_refused_before_the_service() {
    let running = start(describing(), PATIENT, CLEARTEXT).await;
    let mut sender = cleartext(&running).await;
    let with = |name: &'static str, value: &str| {
        let mut request = get("http://h/x");
        request.headers_mut().append(name, value.parse().unwrap());
        request
    };
    let mut two_lengths = with("content-length", "0");
    two_lengths.headers_mut().append("content-length", HeaderValue::from_static("0"));
    for (request, status) in [
        (two_lengths, 400),
        (with("content-length", "0"), 200),
        (with("host", "other"), 400),
        (with("x-large", &"x".repeat(18_000)), 200),
        (with("x-large", &"x".repeat(21_000)), 431),
        (get("http://user@h/x"), 400),
        (with("host", "h"), 200),
    ] {
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

/// A body that goes on for as long as somebody sends, and holds something meanwhile.
struct Fed<T>(mpsc::Receiver<Bytes>, T);

impl<T: Unpin> Body for Fed<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

mod t08_availability {
    use super::*;

    /// The stream is open and has no room: the body must not live for as long as the caller likes.
    #[tokio::test]
    async fn a_stream_of_which_nothing_is_taken_is_given_up() {
        let gone = Arc::new(Notify::new());
        let told = gone.clone();
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let told = told.clone();
            async move {
                let (feed, food) = mpsc::channel(1);
                tokio::spawn(async move {
                    while feed.send(Bytes::from(vec![0; 60_000])).await.is_ok() {}
                    told.notify_one();
                });
                Ok::<_, Infallible>(Response::new(Fed(food, ())))
            }
        });
        let running = start(service, Limits { write_stall: SHORT, ..PATIENT }, CLEARTEXT).await;
        let mut sender = cleartext(&running).await;
        let response = sender.send_request(get("http://h/")).await.unwrap();
        timeout(LONG, gone.notified()).await.expect("given up");
        assert!(response.into_body().collect().await.is_err(), "an end that is none");
    }

    #[tokio::test]
    async fn a_caller_who_resets_its_stream_ends_the_body() {
        let gone = Arc::new(Notify::new());
        let told = gone.clone();
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let told = told.clone();
            async move {
                let (feed, food) = mpsc::channel(1);
                tokio::spawn(async move {
                    feed.closed().await;
                    told.notify_one();
                });
                Ok::<_, Infallible>(Response::new(Fed(food, ())))
            }
        });
        let running = start(service, PATIENT, CLEARTEXT).await;
        let mut sender = cleartext(&running).await;
        let response = sender.send_request(get("http://h/")).await.unwrap();
        drop(response);
        timeout(LONG, gone.notified()).await.expect("ended");
    }

    /// The library counts resets of what it has not looked at yet. These it has, one by one.
    #[tokio::test]
    async fn a_caller_who_takes_back_most_of_what_it_asks_is_cut_off() {
        let arrived = Arc::new(Notify::new());
        let told = arrived.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let told = told.clone();
            async move {
                if request.uri().path() == "/never" {
                    told.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        let running = start(service, PATIENT, CLEARTEXT).await;
        for (each, is_cut) in [(0, true), (2, false)] {
            let (mut sender, mut taken_back) = (cleartext(&running).await, 0);
            let asking = async {
                while taken_back < 600 {
                    tokio::select! {
                        ended = sender.send_request(get("http://h/never")) => return ended.is_err(),
                        () = arrived.notified() => taken_back += 1,
                    }
                    for _ in 0..each {
                        assert_eq!(sender.send_request(get("http://h/")).await.unwrap().status(), 200);
                    }
                }
                false
            };
            let ended = timeout(LONG, asking).await;
            assert_eq!(ended.ok(), Some(is_cut), "{each} answers between, {taken_back}");
            assert!(taken_back > TAKEN_BACK, "{taken_back}");
        }
        // Somebody else is none the worse for it.
        assert_eq!(cleartext(&running).await.send_request(get("http://h/")).await.unwrap().status(), 200);
    }

    /// With no room at all the library asks nothing of the stream again; it has to be told.
    #[tokio::test]
    async fn a_stream_that_was_given_no_room_is_reset_when_it_is_given_up() {
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer"))))
        });
        let running = start(service, Limits { write_stall: SHORT, ..PATIENT }, CLEARTEXT).await;
        let stream = TcpStream::connect(running.address).await.unwrap();
        let (mut sender, connection) = client::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(0)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let response = sender.send_request(get("http://h/")).await.unwrap();
            let ended = timeout(LONG, response.into_body().collect()).await.expect("given up");
            assert!(ended.is_err(), "an end that is none");
        }
    }

    #[tokio::test]
    async fn a_connection_without_streams_ends_when_idle() {
        let running = start(describing(), Limits { idle: SHORT, ..PATIENT }, CLEARTEXT).await;
        let mut sender = cleartext(&running).await;
        assert_eq!(sender.send_request(get("http://h/")).await.unwrap().status(), 200);
        let closed = async {
            while sender.ready().await.is_ok() && !sender.is_closed() {
                tokio::time::sleep(SHORT).await
            }
        };
        timeout(LONG, closed).await.expect("closed");
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_has_lost_its_bodies_before_the_end_is_told() {
    struct Dropped(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let witness = dropped.clone();
    let service = tower::service_fn(move |_: Request<Incoming>| {
        let dropped = Dropped(witness.clone());
        async move {
            let (feed, food) = mpsc::channel::<Bytes>(1);
            Ok::<_, Infallible>(Response::new(Fed(food, (dropped, feed))))
        }
    });
    let running = start(service, Limits { grace: SHORT, ..PATIENT }, CLEARTEXT).await;
    let mut sender = cleartext(&running).await;
    let _response = sender.send_request(get("http://h/")).await.unwrap();
    running.stop.send(true).unwrap();
    assert_eq!(running.ended.await.unwrap(), Ended::Cut { open: 1 });
    assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn a_connection_is_taken_over_with_what_was_sent_ahead_and_told_of_a_stop() {
    let service = tower::service_fn(|_: Request<Incoming>| async move {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.extensions_mut().insert(Takeover::new(|mut taken| async move {
            let mut buffer = [0; 64];
            loop {
                let read = tokio::select! {
                    read = taken.socket.read(&mut buffer) => read.unwrap_or(0),
                    () = stopped(&mut taken.stop) => {
                        let _ = taken.socket.write_all(b"bye").await;
                        return;
                    }
                };
                if read == 0 {
                    return;
                }
                let _ = taken.socket.write_all(&buffer[..read]).await;
            }
        }));
        Ok::<_, Infallible>(response)
    });
    let running = start(service, PATIENT, Transport::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n\nhead";
    stream.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut echoed = [0; 10];
    timeout(LONG, stream.read_exact(&mut echoed[..5])).await.unwrap().unwrap();
    stream.write_all(b"later").await.unwrap();
    timeout(LONG, stream.read_exact(&mut echoed[5..])).await.unwrap().unwrap();
    assert_eq!(&echoed, b"\nheadlater");
    running.stop.send(true).unwrap();
    let mut rest = String::new();
    timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!((rest.as_str(), running.ended.await.unwrap()), ("bye", Ended::Drained));
}

/// Each request says who it is by its path; what is hidden in a body must not be one.
#[tokio::test]
async fn t03_gateway_framing_a_head_that_two_readers_could_read_in_two_ways_is_refused() {
    let running = start(describing(), PATIENT, Transport::default()).await;
    for request in [
        "GET /a HTTP/1.1\nHost: h\n\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nX: y\n\r\n",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // In two pieces, so that the parser could have begun.
        let (first, second) = request.split_at(9);
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(second.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{request:?}: {answer}");
    }
    // The second head of a connection is looked at like the first, and a body like no head.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\n\nab").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"/a false") {
        answer.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    stream.write_all(b"GET /b HTTP/1.1\nHost: h\n\n").await.unwrap();
    let mut rest = String::new();
    let _ = timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 ") && rest.ends_with("\r\n\r\n"), "{rest}");
}

/// Every name is this machine.
struct Here;

impl Resolver for Here {
    fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

#[tokio::test]
async fn an_upstream_is_spoken_to_in_the_http_that_it_chooses() {
    let files = Files::new();
    let trust = TlsTrust::from_pem(false, Some(&std::fs::read(files.certificate()).unwrap()));
    let connector = GuardedConnector::new(AddressPolicy::new(true, PrivateHosts::default()), Arc::new(Here), trust);
    let secured = Transport { tls: Some(files.load()), ..Transport::default() };
    let (secured, plain) = (start(describing(), PATIENT, secured).await, start(describing(), PATIENT, CLEARTEXT).await);
    let pool = PoolSettings::default();
    let (either, old, new) = (
        either_client::<Full<Bytes>>(&connector, &pool),
        egress_client::<Full<Bytes>>(connector.clone(), &pool),
        http2_client::<Full<Bytes>>(&connector, &pool),
    );
    for (client, scheme, running, version) in [
        (&either, "https", &secured, "HTTP/2.0 /x true"),
        (&either, "http", &plain, "HTTP/1.1 /x false"),
        (&old, "https", &secured, "HTTP/1.1 /x true"),
        (&old, "http", &plain, "HTTP/1.1 /x false"),
        (&new, "https", &secured, "HTTP/2.0 /x true"),
        (&new, "http", &plain, "HTTP/2.0 /x false"),
    ] {
        let uri = format!("{scheme}://gateway.test:{}/x", running.address.port());
        let answer = timeout(LONG, client.request(get(&uri))).await.unwrap().unwrap();
        assert_eq!(text(answer).await, version, "{scheme}");
    }
}
