//! What stands behind a request on its connection is read like the first, and by nobody before that.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use caracal_testkit::corpora;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(60);
const PATIENT: Limits = Limits { head: LONG, idle: LONG, write_stall: LONG, max_connections: 64, grace: LONG };

/// A caller whose bytes come in exactly these pieces, and who then waits until the connection is closed.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    said: Arc<Mutex<Vec<u8>>>,
    closed: bool,
    /// Every other write finds no room, and each of the others little.
    slow: Option<bool>,
}

impl Socket for Script {
    fn break_off(&self) {}
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.pieces.pop_front() {
            Some(mut piece) => {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.pieces.push_front(rest);
                }
                Poll::Ready(Ok(()))
            }
            None if self.closed => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(full) = &mut self.slow {
            *full = !*full;
            if *full {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let bytes = bytes.get(..100).filter(|_| self.slow.is_some()).unwrap_or(bytes);
        self.said.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

/// What a connection came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// The statuses in order.
    statuses: Vec<u16>,
    /// What the service was asked, in order.
    served: Vec<String>,
}

/// Runs one connection to its end and gives all that was said on it.
async fn converse<S, B>(pieces: &[&[u8]], slow: bool, service: S) -> String
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let pieces = pieces.iter().map(|piece| piece.to_vec()).filter(|piece| !piece.is_empty()).collect();
    let said = Arc::new(Mutex::new(Vec::new()));
    let script = Script { pieces, said: said.clone(), closed: false, slow: slow.then_some(false) };
    let (_stop, stopped) = watch::channel(false);
    let peer = PeerAddr(([127, 0, 0, 1], 1).into());
    let fresh = FreshId::new(|| "fresh".to_owned());
    let ended = serve_socket(Box::new(script), peer, service, fresh, PATIENT, stopped);
    timeout(LONG, ended).await.expect("the connection stays open");
    let said = said.lock().unwrap().clone();
    String::from_utf8(said).unwrap()
}

/// What a connection comes to when every body is read.
async fn outcome(pieces: &[&[u8]]) -> Outcome {
    let served = Arc::new(Mutex::new(Vec::new()));
    let asked = served.clone();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        asked.lock().unwrap().push(request.uri().path().to_owned());
        async move {
            let whole = request.into_body().collect().await.is_ok();
            let status = if whole { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = status;
            if !whole {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let said = converse(pieces, false, service).await;
    let statuses = said.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect();
    let served = served.lock().unwrap().clone();
    Outcome { statuses, served }
}

fn door<S>(service: S) -> Door<S> {
    Door {
        service,
        fresh: FreshId::new(|| "fresh".to_owned()),
        peer: PeerAddr(([127, 0, 0, 1], 1).into()),
        tls: false,
        pacer: Pacer::new(),
        on_head_fault: None,
    }
}

/// Good requests of every framing. The bodies would be heads, or the ends of heads, to who looked for them there.
const GOOD: [&str; 5] = [
    "GET /good HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /good HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n\n\n\r\n\r\nGE",
    "POST /good HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n\n\r\n\r\n\n\r\n0\r\n\r\n",
    "POST /good HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n0\r\n\r\n\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n",
    "\r\nPUT /good HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
];

/// Serves `service` on a socket, says `bytes` there at once and gives all that comes back.
async fn heard<F>(limits: Limits, service: fn(Request<Incoming>) -> F, bytes: &[u8]) -> String
where
    F: Future<Output = Result<Response<Pieces>, Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let serving = serve(listener, tower::service_fn(service), FreshId::new(|| "fresh".to_owned()), limits, stopped);
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        timeout(LONG, stream.read_to_end(&mut said)).await.expect("the connection stays open").unwrap();
        String::from_utf8(said).unwrap()
    };
    tokio::select! {
        said = asking => said,
        _ = serving => unreachable!("nobody stops it"),
    }
}

const PIECES: usize = 16;
const PIECE: usize = 1_000;

/// A large body, of unknown length.
struct Pieces(usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'-'; PIECE])))))
    }
}

async fn large(_: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
    Ok(Response::new(Pieces(PIECES)))
}

async fn empty(_: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
    Ok(Response::new(Pieces(0)))
}

const BAD: &str = "GET /smuggled HTTP/1.1\nHost: h\n\n";

/// What each of the corpus hides.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

mod t03_gateway_framing {
    use super::*;

    #[tokio::test]
    async fn what_alone_is_refused_is_refused_behind_anything_however_it_is_cut() {
        let cases: Vec<_> = corpora::requests().into_iter().filter(|case| case.verdict == "refuse").collect();
        assert!(cases.len() > 40);
        for case in cases {
            assert!(case.bytes.ends_with(SMUGGLED.as_bytes()), "{}", case.name);
            let alone = outcome(&[&case.bytes]).await;
            assert_eq!(alone, Outcome { statuses: vec![400], served: Vec::new() }, "{} alone", case.name);
            for good in GOOD {
                let bytes = [good.as_bytes(), &case.bytes].concat();
                let expected = Outcome { statuses: vec![200, 400], served: vec!["/good".to_owned()] };
                // From within the request before to within what a reader that was misled would take for the next.
                for cut in good.len() - 6..bytes.len() - SMUGGLED.len() + 3 {
                    let (first, second) = bytes.split_at(cut);
                    assert_eq!(outcome(&[first, second]).await, expected, "{} behind {good:?} at {cut}", case.name);
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(outcome(&single).await, expected, "{} behind {good:?}, byte by byte", case.name);
            }
        }
    }

    #[tokio::test]
    async fn behind_chunks_that_two_readers_cut_differently_nothing_is_served() {
        let never = corpora::requests().into_iter().filter(|case| case.verdict == "never-two").map(|case| case.bytes);
        let trailers = [
            "A: b\n\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
            "A: b\n\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        ];
        let trailers = trailers.map(|trailers| {
            format!("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}").into_bytes()
        });
        for case in never.chain(trailers) {
            for good in GOOD {
                let bytes = [good.as_bytes(), &case].concat();
                for cut in good.len()..bytes.len() {
                    let (first, second) = bytes.split_at(cut);
                    let outcome = outcome(&[first, second]).await;
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    assert_eq!((&*outcome.statuses, outcome.served.len()), (&[200, 400][..], 2), "{text:?} at {cut}");
                }
            }
        }
    }

    #[tokio::test]
    async fn good_requests_are_all_answered_in_order_however_they_are_cut() {
        let numbered = |(n, good): (usize, &str)| good.replace("/good", &format!("/{n}"));
        let mut bytes: String = GOOD.into_iter().chain(GOOD).enumerate().map(numbered).collect();
        bytes.push_str("GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let served = (0..GOOD.len() * 2).map(|n| format!("/{n}")).chain(["/last".to_owned()]).collect();
        let expected = Outcome { statuses: vec![200; GOOD.len() * 2 + 1], served };
        let bytes = bytes.as_bytes();
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(outcome(&[first, second]).await, expected, "at {cut}");
        }
        for size in 1..40 {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(outcome(&pieces).await, expected, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_request_that_waits_to_be_asked_for_its_body_is_asked_behind_another() {
        let expecting = "POST /good HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        for good in GOOD {
            let first = format!("{good}{expecting}");
            let second = "abcGET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            let outcome = outcome(&[first.as_bytes(), second.as_bytes()]).await;
            assert_eq!(outcome.statuses, [200, 100, 200, 200], "{good:?}");
        }
    }

    /// The door itself lets nothing in that was not looked at, wherever the parser has it from.
    #[tokio::test]
    async fn a_head_that_nobody_looked_at_is_not_served() {
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"served"))))
        });
        let said = Arc::new(Mutex::new(Vec::new()));
        let script = Script { pieces: [GOOD[0].into()].into(), said: said.clone(), closed: false, slow: None };
        let served =
            http1::Builder::new().serve_connection(TokioIo::new(script), TowerToHyperService::new(door(service)));
        timeout(LONG, served).await.unwrap().unwrap();
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("connection: close\r\n"), "{said}");
    }

    #[tokio::test]
    async fn an_answer_is_sent_whole_before_what_came_behind_its_request_is_refused() {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n\r\n{BAD}");
        let said = converse(&[request.as_bytes()], true, tower::service_fn(large)).await;
        assert_eq!(said.matches("---").count(), PIECES * (PIECE / 3));
        let (_, behind) = said.split_once("\r\n0\r\n\r\n").expect("the last chunk");
        assert!(behind.starts_with("HTTP/1.1 400 "), "{behind}");
        // Here the refusal would be read as the end of the body.
        let request = format!("GET / HTTP/1.0\r\n\r\n{BAD}");
        let said = converse(&[request.as_bytes()], true, tower::service_fn(large)).await;
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(body.len() == PIECES * PIECE && body.bytes().all(|byte| byte == b'-'), "{}", body.len());
    }

    /// What is left of a body is not the other protocol's, and no protocol begins before its request has ended.
    #[tokio::test]
    async fn a_connection_is_not_taken_over_within_a_request() {
        async fn switching(_: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
            let mut response = Response::new(Pieces(0));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.extensions_mut().insert(Takeover::new(|mut taken| async move {
                let mut bytes = [0; 5];
                let _ = taken.socket.read_exact(&mut bytes).await;
                let _ = taken.socket.write_all(&bytes).await;
            }));
            Ok(response)
        }
        let head = |length: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\nfirst");
        let said = heard(PATIENT, switching, format!("{}other", head(5)).as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 101 ") && said.ends_with("\r\n\r\nother"), "{said}");
        let said = heard(PATIENT, switching, head(6).as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 101 ") && said.ends_with("\r\n\r\n"), "{said}");
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn a_part_of_a_head_behind_a_request_has_the_time_of_a_head() {
        let limits = Limits { head: SHORT, ..PATIENT };
        for part in ["G", "GET /next HTTP/1.1\r\nHost: h\r\n", "\r\n"] {
            let said = heard(limits, empty, format!("GET / HTTP/1.1\r\nHost: h\r\n\r\n{part}").as_bytes()).await;
            assert_eq!(said.matches("HTTP/1.1 200 ").count(), 1, "{part:?}: {said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{part:?}: {said}");
        }
    }
}
