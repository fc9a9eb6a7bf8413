use std::net::SocketAddr;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::*;
use crate::server::{Limits, serve};
use crate::{FreshId, Problem, Profile};

/// What one processor may always work on.
const FLOOR: usize = 32;

/// Time that the test lets pass.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn passes(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn class(method: &Method, path: &str, _: &HeaderMap) -> Class {
    match (method.as_str(), path) {
        (_, "/mint" | "/stream") => Class::Begins,
        (_, "/call") => Class::Completes,
        _ => Class::Spared,
    }
}

/// A body that says nothing and does not end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

fn refusal(id: &crate::RequestId, _: &HeaderMap) -> Sorry {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable").render(id, Profile::STS)
}

/// A service whose mints are answered when the test says so.
struct Server {
    address: SocketAddr,
    gate: Arc<Gate>,
    time: Time,
    /// One permit for each mint that may be answered.
    answers: Arc<Semaphore>,
    minting: Arc<AtomicU64>,
    told: Arc<AtomicU64>,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        let (time, answers, minting) = (Time::default(), Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let told = Arc::new(AtomicU64::new(0));
        let (clock, tells) = (time.clone(), told.clone());
        let gate = Gate::new(Admission::new(1, move || clock.now()), move || {
            tells.fetch_add(1, Ordering::SeqCst);
        });
        let (waits, begun) = (answers.clone(), minting.clone());
        let mint = move |body: Bytes| async move {
            begun.fetch_add(1, Ordering::SeqCst);
            waits.acquire().await.unwrap().forget();
            body
        };
        let stream = || async { axum::body::Body::new(Endless) };
        let router = Router::new()
            .route("/mint", post(mint))
            .route("/stream", get(stream))
            .route("/call", get(|| async { "called" }))
            .route("/revoke", post(|| async { "revoked" }))
            .route("/health", get(|| async { "alive" }));
        let service = gate.guard(Manners { class, refusal }, router);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let fresh = FreshId::new(|| "fresh".to_owned());
        tokio::spawn(serve(listener, service, fresh, Limits::default(), stopped));
        Self { address, gate, time, answers, minting, told, _stop: stop }
    }

    async fn connect(&self) -> Caller {
        Caller(TcpStream::connect(self.address).await.unwrap())
    }

    /// Callers whose mints are being worked on.
    async fn minting(&self, callers: usize) -> Vec<Caller> {
        let before = self.minting.load(Ordering::SeqCst);
        let mut minting = Vec::new();
        for _ in 0..callers {
            let mut caller = self.connect().await;
            caller.send("POST /mint HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok").await;
            minting.push(caller);
        }
        let all = before + u64::try_from(callers).unwrap();
        until(|| self.minting.load(Ordering::SeqCst) == all).await;
        minting
    }

    fn in_progress(&self) -> u64 {
        self.gate.counts().in_progress
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("waited in vain");
}

struct Caller(TcpStream);

impl Caller {
    async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Head and body of an answer that says its length. One that is never given is a failure, not a wait.
    async fn answer(&mut self) -> (String, String) {
        tokio::time::timeout(PATIENCE, self.heard()).await.expect("no answer")
    }

    async fn heard(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn ask(&mut self, request: &str) -> (String, String) {
        self.send(request).await;
        self.answer().await
    }
}

const CALL: &str = "GET /call HTTP/1.1\r\nHost: h\r\n\r\n";
const MINT: &str = "POST /mint HTTP/1.1\r\nHost: h\r\nX-Request-Id: r-1\r\nContent-Length: 2\r\n\r\nok";

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_shed_at_once_and_what_is_under_way_is_answered() {
        let server = Server::start().await;
        let mut under_way = server.minting(FLOOR + 8).await;
        // For longer than a burst nothing is answered.
        server.time.passes(400);
        let mut caller = server.connect().await;
        let (head, body) = caller.ask(MINT).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
        assert!(head.contains("x-request-id: r-1\r\n"), "{head}");
        assert_eq!(body, "{\"error\":\"sts_unavailable\",\"requestId\":\"r-1\",\"request_id\":\"r-1\"}\n");
        // Nobody waits for the body of who is turned away.
        let unsent = "POST /mint HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
        assert!(server.connect().await.ask(unsent).await.0.starts_with("HTTP/1.1 503 "));
        // On the same connection goes what must not be shed, and what completes what was begun.
        for spared in [CALL, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n", "POST /revoke HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let (head, _) = caller.ask(spared).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{spared}: {head}");
        }
        let counts = server.gate.counts();
        assert_eq!((counts.shed, counts.in_progress, counts.limit), (2, 40, 32));
        assert_eq!((server.told.load(Ordering::SeqCst), server.minting.load(Ordering::SeqCst)), (2, 40));
        server.answers.add_permits(FLOOR + 9);
        for caller in &mut under_way {
            assert!(caller.answer().await.0.starts_with("HTTP/1.1 200 "));
        }
        // At once, with no time to get over it.
        let (head, body) = caller.ask(MINT).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}");
        assert_eq!(server.in_progress(), 0);
    }

    #[tokio::test]
    async fn who_sends_slowly_takes_nobodys_place() {
        let server = Server::start().await;
        let mut slow = Vec::new();
        for _ in 0..=FLOOR {
            let mut caller = server.connect().await;
            caller.send("POST /mint HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\no").await;
            slow.push(caller);
        }
        // On each connection in turn, so that all have been looked at.
        for caller in &mut slow {
            caller.send("k").await;
        }
        let all = u64::try_from(slow.len()).unwrap();
        until(|| server.minting.load(Ordering::SeqCst) == all).await;
        assert_eq!(server.in_progress(), all);
        let mut slower = Vec::new();
        for _ in 0..8 {
            let mut caller = server.connect().await;
            caller.send("POST /mint HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n").await;
            slower.push(caller);
        }
        server.answers.add_permits(slow.len());
        for caller in &mut slow {
            assert!(caller.answer().await.0.starts_with("HTTP/1.1 200 "));
        }
        // Of those who have sent nothing none is worked on, and the time they take is not ours.
        until(|| server.in_progress() == 0).await;
        server.time.passes(60_000);
        server.answers.add_permits(slower.len());
        for caller in &mut slower {
            assert!(caller.ask("ok").await.0.starts_with("HTTP/1.1 200 "));
        }
        assert_eq!((server.in_progress(), server.gate.counts().shed), (0, 0));
        // A minute passed in between: these are the answers of the last window alone.
        assert_eq!(server.gate.admission.controller().answers(), (8, 0));
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_head_and_who_goes_away_gives_his_place_back() {
        let server = Server::start().await;
        let mut caller = server.connect().await;
        caller.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut head = [0; 12];
        caller.0.read_exact(&mut head).await.unwrap();
        assert_eq!((&head[..], server.in_progress()), (&b"HTTP/1.1 200"[..], 0));
        let gone = server.minting(3).await;
        assert_eq!(server.in_progress(), 3);
        drop(gone);
        until(|| server.in_progress() == 0).await;
    }
}
