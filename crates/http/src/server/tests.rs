use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::routing::{get, post};
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::{Face, Profile};

/// Long enough never to matter in a test that passes.
const LONG: Duration = Duration::from_secs(30);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(100);

const PATIENT: Limits = Limits { head: LONG, idle: LONG, write_stall: LONG, max_connections: 64, grace: LONG };

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: JoinHandle<Ended>,
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a connection of its own and returns everything that comes back until the server closes.
    async fn say(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        until_closed(&mut stream).await
    }

    async fn stop(self) -> Ended {
        self.stop.send(true).unwrap();
        self.ended.await.unwrap()
    }
}

async fn start<S, B>(service: S, limits: Limits) -> Running
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
    Running { address, stop, ended: tokio::spawn(serve(listener, service, fresh, limits, stopped)) }
}

fn router() -> impl Service<
    Request<Incoming>,
    Response = Response<impl Body<Data = Bytes, Error = impl Into<Box<dyn Error + Send + Sync>>> + Send + 'static>,
    Error = Infallible,
    Future = impl Send + 'static,
> + Clone
+ Send
+ 'static {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/peer", get(|peer: PeerAddr| async move { peer.ip().to_string() }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/explodes", get(|| async { panic!("boom") as &'static str }))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found") });
    Face::new(Profile::STS, FreshId::new(|| "inner".to_owned())).wrap(router)
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is a close, too.
    let _ = tokio::time::timeout(LONG / 3, stream.read_to_end(&mut bytes)).await.expect("never closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).ends_with(end) {
        let byte = stream.read_u8().await.expect("closed early");
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

fn get_close(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_router_is_served_with_ids_and_peer_addresses() {
    let server = start(router(), PATIENT).await;
    let answer = server.say(&get_close("/peer")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n127.0.0.1"), "{answer}");
    assert!(answer.contains("x-request-id: fresh\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("\r\nserver:"), "{answer}");
    let named = b"GET /none HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n";
    let answer = server.say(named).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("x-request-id: mine\r\n"), "{answer}");
    assert!(answer.ends_with("{\"error\":\"not_found\",\"requestId\":\"mine\",\"request_id\":\"mine\"}\n"), "{answer}");
    let answer = server.say(b"HEAD /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(server.stop().await, Ended::Drained);
}

#[tokio::test]
async fn a_panic_is_answered_and_the_connection_goes_on() {
    let server = start(router(), PATIENT).await;
    let two = [b"GET /explodes HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), get_close("/")].concat();
    let answer = server.say(&two).await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"error\":\"internal_error\""), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_plain_function_is_served_as_well() {
    let echo = tower::service_fn(|request: Request<Incoming>| async move {
        let id = request.extensions().get::<RequestId>().unwrap().to_string();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{} {id}", request.uri())))))
    });
    let server = start(echo, PATIENT).await;
    assert!(server.say(&get_close("/a%2Fb//c?x=%zz")).await.ends_with("/a%2Fb//c?x=%zz fresh"));
}

#[tokio::test]
async fn a_head_that_is_not_plain_is_refused_before_the_service() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = tower::service_fn(move |_: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) }
    });
    let server = start(service, PATIENT).await;
    let large =
        |size: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(size));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400"),
        (large(21_000), "431"),
        (large(100_000), "431"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(), "400"),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "400"),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(), "400"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            "400",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = server.say(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let refused = server.say(large(21_000).as_bytes()).await;
    assert!(refused.contains("x-request-id: fresh\r\n") && refused.contains("connection: close\r\n"), "{refused}");
    for request in [large(18_000), "GET / HTTP/1.0\r\n\r\n".to_owned()] {
        assert!(server.say(request.as_bytes()).await.starts_with("HTTP/1."));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_says_nothing_or_drips_its_head_is_cut() {
        let server = start(router(), Limits { head: SHORT, ..PATIENT }).await;
        assert_eq!(server.say(b"").await, "");
        assert_eq!(server.say(b"GET / HTTP/1.1\r\nHost: ").await, "");
        let mut stream = server.connect().await;
        // Every byte arrives in good time; the head as a whole does not. Ends with an error once the server has closed.
        let drip = async { while stream.write_all(b"X").await.is_ok() && tick().await {} };
        tokio::time::timeout(LONG, drip).await.unwrap();
    }

    async fn tick() -> bool {
        tokio::time::sleep(SHORT / 6).await;
        true
    }

    #[tokio::test]
    async fn an_idle_connection_outlives_the_head_deadline_but_not_the_idle_limit() {
        let server = start(router(), Limits { head: SHORT, idle: SHORT * 8, ..PATIENT }).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut stream, "hello").await;
        // Nothing arrives, and the connection is still there, after several head deadlines.
        assert!(tokio::time::timeout(SHORT * 3, stream.read_u8()).await.is_err());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut stream, "hello").await;
        assert_eq!(until_closed(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_second_head_has_its_own_deadline() {
        let server = start(router(), Limits { head: SHORT, ..PATIENT }).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut stream, "hello").await;
        stream.write_all(b"GET / HT").await.unwrap();
        assert_eq!(until_closed(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_request_under_way_is_not_cut_by_the_head_or_idle_limit() {
        let gate = Arc::new(Notify::new());
        let waiting = gate.clone();
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let gate = waiting.clone();
            async move {
                gate.notified().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"late"))))
            }
        });
        let server = start(service, Limits { head: SHORT, idle: SHORT, ..PATIENT }).await;
        let mut stream = server.connect().await;
        stream.write_all(&get_close("/")).await.unwrap();
        assert!(tokio::time::timeout(SHORT * 4, stream.read_u8()).await.is_err());
        gate.notify_one();
        assert!(until_closed(&mut stream).await.ends_with("late"));
    }

    /// Sends as long as anybody takes it, and says when it is dropped.
    struct Endless(Arc<Notify>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 65_536])))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[tokio::test]
    async fn a_caller_that_does_not_read_is_given_up() {
        let dropped = Arc::new(Notify::new());
        let signal = dropped.clone();
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let body = Endless(signal.clone());
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let server = start(service, Limits { write_stall: SHORT, ..PATIENT }).await;
        let mut stream = server.connect().await;
        stream.write_all(&get_close("/")).await.unwrap();
        tokio::time::timeout(LONG, dropped.notified()).await.unwrap();
    }

    #[tokio::test]
    async fn callers_beyond_the_limit_wait_until_a_connection_ends() {
        let server = start(router(), Limits { max_connections: 1, ..PATIENT }).await;
        let mut first = server.connect().await;
        first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut first, "hello").await;
        let mut second = server.connect().await;
        second.write_all(&get_close("/")).await.unwrap();
        assert!(tokio::time::timeout(SHORT, second.read_u8()).await.is_err());
        drop(first);
        assert!(until_closed(&mut second).await.ends_with("hello"));
    }
}

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_lets_requests_finish() {
    let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, wait) = (entered.clone(), gate.clone());
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (enter, wait) = (enter.clone(), wait.clone());
        async move {
            if request.uri() == "/slow" {
                enter.notify_one();
                wait.notified().await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
        }
    });
    let server = start(service, PATIENT).await;
    let (mut untouched, mut idle, mut slow) = (server.connect().await, server.connect().await, server.connect().await);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut idle, "done").await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    entered.notified().await;
    server.stop.send(true).unwrap();
    assert_eq!(until_closed(&mut idle).await, "");
    assert_eq!(until_closed(&mut untouched).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepting");
    gate.notify_one();
    assert!(until_closed(&mut slow).await.ends_with("done"));
    assert_eq!(server.ended.await.unwrap(), Ended::Drained);
}

#[tokio::test]
async fn a_stop_waits_for_nothing_more_from_who_is_idle() {
    let server = start(router(), PATIENT).await;
    let mut idle = server.connect().await;
    idle.write_all(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nwords").await.unwrap();
    read_until(&mut idle, "words").await;
    let begun = std::time::Instant::now();
    assert_eq!(server.stop().await, Ended::Drained);
    assert!(begun.elapsed() < LINGER, "the caller still has the connection, and nothing to send");
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_cut_and_counted() {
    let entered = Arc::new(Notify::new());
    let enter = entered.clone();
    let service = tower::service_fn(move |_: Request<Incoming>| {
        enter.notify_one();
        pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let server = start(service, Limits { grace: SHORT, ..PATIENT }).await;
    let mut stream = server.connect().await;
    stream.write_all(&get_close("/")).await.unwrap();
    entered.notified().await;
    assert_eq!(server.stop().await, Ended::Cut { open: 1 });
    assert_eq!(until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn a_listener_nobody_can_stop_any_more_stops() {
    let Running { address, stop, ended } = start(router(), PATIENT).await;
    drop(stop);
    assert_eq!(ended.await.unwrap(), Ended::Drained);
    assert!(TcpStream::connect(address).await.is_err());
}

mod t03_gateway_framing {
    use std::collections::VecDeque;

    use tokio::sync::mpsc;

    use super::*;

    type Failure = Box<dyn Error + Send + Sync>;
    const WORDS: LastWords = LastWords { trailer: "X-Why: cut" };

    /// Yields its frames one by one, then fails.
    struct Failing(VecDeque<&'static str>, Option<Failure>);

    impl Body for Failing {
        type Data = Bytes;
        type Error = Failure;

        fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
            if let Some(frame) = self.0.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(frame.as_bytes())))));
            }
            Poll::Ready(self.1.take().map(Err))
        }
    }

    /// What a caller gets of a body that yields two frames and then fails.
    async fn answer(version: &str, failure: fn() -> Failure) -> (String, bool) {
        let service = tower::service_fn(move |_: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Failing(["one", "two"].into(), Some(failure()))))
        });
        let server = start(service, PATIENT).await;
        let mut stream = server.connect().await;
        stream.write_all(format!("GET / {version}\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(LONG / 3, stream.read_to_end(&mut bytes)).await.expect("never closed");
        let text = String::from_utf8(bytes).unwrap();
        (text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()), ended.is_ok())
    }

    #[tokio::test]
    async fn a_body_with_last_words_ends_in_order_and_with_its_trailer() {
        let (body, in_order) = answer("HTTP/1.1", || Box::new(WORDS)).await;
        assert_eq!(body, "3\r\none\r\n3\r\ntwo\r\n0\r\nX-Why: cut\r\n\r\n");
        assert!(in_order);
    }

    #[tokio::test]
    async fn a_body_that_fails_never_looks_whole() {
        let (body, _) = answer("HTTP/1.1", || "failed".into()).await;
        assert_eq!(body, "3\r\none\r\n3\r\ntwo\r\n", "without its last chunk");
        // Here only the end of the connection would tell.
        let (_, in_order) = answer("HTTP/1.0", || "failed".into()).await;
        assert!(!in_order, "the end of a part must not look like the end of the whole");
    }

    /// Yields a frame for each signal, then has last words.
    struct Signalled(mpsc::Receiver<()>);

    impl Body for Signalled {
        type Data = Bytes;
        type Error = LastWords;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LastWords>>> {
            let frame = Bytes::from_static(&[b'x'; 1_000]);
            self.0.poll_recv(cx).map(|signal| Some(signal.map(|()| Frame::data(frame)).ok_or(WORDS)))
        }
    }

    /// Signals up to `most` frames to a caller that takes nothing, then the end. Says how many were yielded before
    /// everything on the way was full, and what the caller gets when it then reads.
    async fn unread(most: usize) -> (usize, String) {
        let (signal, signals) = mpsc::channel::<()>(1);
        let signals = Arc::new(std::sync::Mutex::new(Some(signals)));
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let signals = signals.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(Response::new(Signalled(signals))) }
        });
        let server = start(service, PATIENT).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut count = 0;
        while count < most && matches!(tokio::time::timeout(SHORT, signal.send(())).await, Ok(Ok(()))) {
            count += 1;
        }
        drop(signal);
        // The body fails, if it is asked, before anything is taken.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        (count, until_closed(&mut stream).await)
    }

    #[tokio::test]
    async fn last_words_are_said_only_behind_everything_that_was_to_come_before_them() {
        let (full, _) = unread(usize::MAX).await;
        for missing in (1..20).step_by(3) {
            let (count, answer) = unread(full - missing).await;
            let sent = answer.bytes().filter(|byte| *byte == b'x').count();
            assert!(!answer.contains("X-Why") || sent == count * 1_000, "{sent} of {count} frames and a trailer");
        }
    }

    #[tokio::test]
    async fn an_answer_is_sent_to_its_end_though_its_request_was_not_read() {
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; 16 << 20]))))
        });
        let server = start(service, PATIENT).await;
        let mut stream = server.connect().await;
        stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\na").await.unwrap();
        let answer = until_closed(&mut stream).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 16 << 20);
    }

    #[tokio::test]
    async fn a_caller_that_is_still_sending_gets_its_answer() {
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"enough"))))
        });
        let server = start(service, PATIENT).await;
        for _ in 0..20 {
            let mut stream = server.connect().await;
            let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(&[&head[..], &vec![b'x'; 500_000]].concat()).await.unwrap();
            assert!(until_closed(&mut stream).await.ends_with("enough"));
        }
    }
}
