//! Bodies in both directions: as they come, within their limits, never whole when they are not (gateway.md §15.5, §16,
//! §17.2; README D10, D21; properties 20, 21, 23).

use std::time::Duration;

use caracal_gateway::{Directive, GatewayConfig};
use http::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::sts::Said;
use crate::upstream::{Upstream, full, read_head};
use crate::world::{World, config, request, to};

async fn configured(upstream: &Upstream, config: GatewayConfig) -> World {
    let url = upstream.url("");
    World::with(config, move |_| Said::Go(to(url.clone()))).await
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test]
async fn an_event_is_delivered_before_the_next_is_produced() {
    let (next, wanted) = mpsc::channel::<()>(1);
    let wanted = std::sync::Arc::new(tokio::sync::Mutex::new(wanted));
    let upstream = Upstream::raw(move |mut stream| {
        let wanted = wanted.clone();
        async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            for event in [&b"8\r\ndata: 1\n\r\n"[..], b"8\r\ndata: 2\n\r\n", b"8\r\ndata: 3\n\r\n", b"0\r\n\r\n"] {
                stream.write_all(event).await.unwrap();
                if wanted.lock().await.recv().await.is_none() {
                    return;
                }
            }
        }
    })
    .await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    assert_eq!(caller.head().await.status, 200);
    for n in 1..=3 {
        assert_eq!(caller.chunk().await.unwrap(), format!("data: {n}\n").as_bytes());
        next.send(()).await.unwrap();
    }
    assert_eq!(caller.chunk().await.unwrap(), b"");
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["response_bytes"]), ("executed", &json!(24)));
}

#[tokio::test]
async fn a_body_that_its_upstream_breaks_off_breaks_off_for_the_caller() {
    for (n, bytes) in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ]
    .into_iter()
    .enumerate()
    {
        let upstream = Upstream::saying(bytes).await;
        let world = World::before(&upstream).await;
        let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
        let answer = world.ask(&request).await;
        assert!(!answer.whole, "{n}");
        // What had come before is not withheld.
        assert!(answer.text().starts_with("hel"), "{n}: {}", answer.text());
        assert_eq!(answer.trailers, []);
        let (decision, status, metadata) = world.event("r-1").await;
        assert_eq!((decision.as_str(), status.as_str()), ("allow", "upstream_error"));
        assert_eq!(
            (&metadata["error_kind"], &metadata["gateway_status"]),
            (&json!("response_copy_failed"), &json!(200))
        );
        assert_eq!(world.metric("upstream_errors").await, 1);
    }
}

#[tokio::test]
async fn a_caller_of_http_1_0_sees_a_part_end_otherwise_than_the_whole() {
    for (bytes, in_order) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
    ] {
        let upstream = Upstream::saying(bytes).await;
        let world = World::before(&upstream).await;
        let mut caller = world.caller().await;
        caller.send(world.request("GET", "/x", "").await.replace("HTTP/1.1", "HTTP/1.0")).await;
        let head = caller.head().await;
        assert_eq!((head.get("content-length"), head.get("transfer-encoding")), (None, None));
        assert_eq!(caller.rest_and_how().await, (b"hello".to_vec(), in_order));
    }
}

#[tokio::test]
async fn an_upstream_that_falls_silent_is_cut() {
    for head in [
        &b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
    ] {
        let upstream = Upstream::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(head).await.unwrap();
            let _ = stream.read_u8().await;
        })
        .await;
        let world = configured(&upstream, GatewayConfig { stream_idle_timeout: millis(60), ..config() }).await;
        let answer = world.get("/x").await;
        assert!(!answer.whole);
        assert_eq!((answer.text().as_str(), answer.trailers.as_slice()), ("x", &[][..]));
    }
}

#[tokio::test]
async fn a_known_length_has_to_make_progress_and_may_take_its_time_as_a_whole() {
    let trickle = |head: &'static [u8], each: &'static [u8], end: &'static [u8]| {
        Upstream::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(head).await;
            for _ in 0..20 {
                tokio::time::sleep(millis(10)).await;
                if stream.write_all(each).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(end).await;
            let _ = stream.read_u8().await;
        })
    };
    let limits = || GatewayConfig { write_timeout: millis(80), stream_idle_timeout: millis(2_000), ..config() };
    let upstream = trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b"x", b"").await;
    let world = configured(&upstream, limits()).await;
    let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
    let answer = world.ask(&request).await;
    assert!(!answer.whole && !answer.body.is_empty());
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["ended_by"]), ("upstream_error", &json!("slowness")));
    // Far longer than the limit, and fast enough.
    static LARGE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let upstream = trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1310720\r\n\r\n", &LARGE, b"").await;
    let answer = configured(&upstream, limits()).await.get("/x").await;
    assert!(answer.whole);
    assert_eq!(answer.body.len(), 20 * LARGE.len());
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upstream = trickle(chunked, b"1\r\nx\r\n", b"0\r\n\r\n").await;
    let answer = configured(&upstream, limits()).await.get("/x").await;
    assert!(answer.whole);
    assert_eq!(answer.body.len(), 20);
    // An event stream is one whatever length it claims.
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 20\r\n\r\n";
    let answer = configured(&trickle(events, b"x", b"").await, limits()).await.get("/x").await;
    assert!(answer.whole);
}

#[tokio::test]
async fn a_long_stream_outlives_the_time_for_reading_requests() {
    let upstream = Upstream::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(millis(20)).await;
            stream.write_all(b"1\r\nx\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let short =
        GatewayConfig { sts_timeout: millis(30), upstream_timeout: millis(30), read_timeout: millis(80), ..config() };
    let answer = configured(&upstream, short).await.get("/x").await;
    assert!(answer.whole);
    assert_eq!(answer.body.len(), 10);
}

#[tokio::test]
async fn a_caller_who_goes_away_cancels_the_upstream() {
    let (gone, is_gone) = oneshot::channel();
    let gone = std::sync::Arc::new(std::sync::Mutex::new(Some(gone)));
    let upstream = Upstream::raw(move |mut stream| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await.unwrap();
            assert!(stream.read_u8().await.is_err());
            gone.lock().unwrap().take().unwrap().send(()).unwrap();
        }
    })
    .await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    caller.head().await;
    caller.chunk().await.unwrap();
    drop(caller);
    is_gone.await.unwrap();
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_error", &json!("response_copy_failed")));
    assert_eq!(metadata["ended_by"], "caller");
}

#[tokio::test]
async fn a_caller_who_goes_away_before_the_response_is_recorded_as_such() {
    let (arrived, has_arrived) = mpsc::channel::<()>(1);
    let mut has_arrived = has_arrived;
    let upstream = Upstream::raw(move |mut stream| {
        let arrived = arrived.clone();
        async move {
            read_head(&mut stream).await;
            arrived.send(()).await.unwrap();
            assert!(stream.read_u8().await.is_err(), "the upstream call is cancelled");
            arrived.send(()).await.unwrap();
        }
    })
    .await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    has_arrived.recv().await.unwrap();
    drop(caller);
    has_arrived.recv().await.unwrap();
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_error", &json!("transport_error")));
    assert_eq!(metadata["gateway_status"], 499);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_never_complete_upstream() {
    let upstream = Upstream::ok().await;
    let world = configured(&upstream, GatewayConfig { max_request_bytes: 16, ..config() }).await;
    let head = world.request("POST", "/x", "Transfer-Encoding: chunked\r\nX-Request-Id: r-1\r\n").await;
    let mut caller = world.caller().await;
    caller.send(head).await;
    caller.try_send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024))).await;
    let answer = caller.answer(true).await;
    assert_eq!(answer.refusal(), (413, "payload_too_large".to_owned(), "request body too large".to_owned()));
    assert!(caller.is_closed().await);
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["gateway_status"]), ("upstream_error", &json!(413)));
    assert!(upstream.received().iter().all(|received| !received.whole && received.body.len() <= 16));
    let exact = world.request("POST", "/x", "Transfer-Encoding: chunked\r\n").await;
    assert_eq!(world.ask(&format!("{exact}10\r\n{}\r\n0\r\n\r\n", "x".repeat(16))).await.status(), 200);
}

#[tokio::test]
async fn a_slow_upload_is_given_up() {
    let upstream = Upstream::ok().await;
    let short =
        GatewayConfig { sts_timeout: millis(30), upstream_timeout: millis(30), read_timeout: millis(100), ..config() };
    let world = configured(&upstream, short).await;
    let mut caller = world.caller().await;
    caller.send(world.request("POST", "/x", "Content-Length: 10\r\n").await).await;
    caller.send("x").await;
    let answer = caller.answer(true).await;
    assert_eq!(answer.refusal(), (502, "internal_error".to_owned(), "upstream unreachable".to_owned()));
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn a_body_goes_on_as_it_comes() {
    let (got, mut has_got) = mpsc::channel(1);
    let upstream = Upstream::raw(move |mut stream| {
        let got = got.clone();
        async move {
            let head = read_head(&mut stream).await;
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let mut first = [0; 8];
            stream.read_exact(&mut first).await.unwrap();
            got.send(first).await.unwrap();
            let mut rest = [0; 13];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"3\r\ntwo\r\n0\r\n\r\n"[..13].as_array().unwrap());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("POST", "/x", "Transfer-Encoding: chunked\r\n").await).await;
    caller.send("3\r\none\r\n").await;
    assert_eq!(&has_got.recv().await.unwrap(), b"3\r\none\r\n");
    caller.send("3\r\ntwo\r\n0\r\nX-Trailer: dropped\r\n\r\n").await;
    assert_eq!(caller.answer(true).await.status(), 200);
}

#[tokio::test]
async fn a_body_is_asked_for_only_after_all_checks() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let expect = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    let mut caller = world.caller().await;
    caller.send(world.request("POST", "/x", expect).await).await;
    assert_eq!(caller.answer(true).await.status(), 100);
    caller.send("abc").await;
    assert_eq!(caller.answer(true).await.status(), 200);
    let received = upstream.only();
    assert_eq!((received.body.as_slice(), received.get("expect")), (&b"abc"[..], None));
    // A refused caller is never told to send.
    let mut caller = world.caller().await;
    caller.send(request("POST", "/x", "no.man.date", expect)).await;
    assert_eq!(caller.answer(true).await.status(), 401);
}

#[tokio::test]
async fn failures_of_the_upstream_are_told_apart_and_tried_once() {
    let unreachable = (502, "internal_error".to_owned(), "upstream unreachable".to_owned());
    for bytes in [
        &b""[..],
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        let upstream = Upstream::saying(bytes).await;
        let world = World::before(&upstream).await;
        let request = world.request("GET", "/x", "X-Request-Id: r-1\r\nUpgrade: x\r\nConnection: upgrade\r\n").await;
        assert_eq!(world.ask(&request).await.refusal(), unreachable, "{}", String::from_utf8_lossy(bytes));
        assert_eq!(upstream.connections(), 1);
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_error", &json!("transport_error")));
    }
    let silent = Upstream::raw(|mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let world = configured(&silent, GatewayConfig { upstream_timeout: millis(50), ..config() }).await;
    let expected = (504, "internal_error".to_owned(), "upstream timeout".to_owned());
    assert_eq!(world.get("/x").await.refusal(), expected);
    assert_eq!(silent.connections(), 1);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = World::scripted(move |_| Said::Go(to(format!("http://{nobody}/")))).await;
    assert_eq!(world.get("/x").await.refusal(), unreachable);
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_costs_no_caller_a_502() {
    // Closes each connection after one answer without saying so.
    let upstream = Upstream::saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let world = World::before(&upstream).await;
    for _ in 0..5 {
        assert_eq!(world.get("/x").await.status(), 200);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_an_upstream_says_before_its_response_is_not_relayed() {
    let upstream = Upstream::saying(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let answer = World::before(&upstream).await.get("/x").await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("link")), (200, "ok", None));
}

#[tokio::test]
async fn upstream_trailers_reach_who_asks_for_them_when_announced_and_harmless() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTrailer: X-Caracal-Revoked, X-Sum, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nok\r\n0\r\nX-Caracal-Revoked: true\r\nX-Sum: 1\r\nSet-Cookie: a=1\r\nX-Unsaid: 1\r\n\r\n";
    let upstream = Upstream::saying(chunked).await;
    let world = World::before(&upstream).await;
    let sum = [("x-sum".to_owned(), "1".to_owned())];
    for (te, announced, trailers) in [
        ("", "X-Caracal-Revoked", &[][..]),
        ("TE: trailers\r\nConnection: TE\r\n", "X-Caracal-Revoked, x-sum", &sum[..]),
    ] {
        let request = world.request("GET", "/x", te).await;
        let answer = world.ask(&request).await;
        assert!(answer.whole);
        assert_eq!(answer.get("trailer"), Some(announced));
        assert_eq!((answer.text().as_str(), answer.trailers.as_slice()), ("ok", trailers));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_passes_both_ways() {
    let upstream = Upstream::answering(|received| Response::new(full(received.body.clone()))).await;
    let world = World::before(&upstream).await;
    let body: Vec<u8> = (0..4_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let head = world.request("PUT", "/x", &format!("Content-Length: {}\r\n", body.len())).await;
    let mut caller = world.caller().await;
    caller.send([head.as_bytes(), &body].concat()).await;
    let answer = caller.answer(true).await;
    assert!(answer.whole);
    assert!(answer.body == body);
    assert_eq!(upstream.only().get("content-length"), Some("4000000"));
    assert_eq!(answer.get("content-length"), Some("4000000"));
}

/// The upstream reads the wire itself: what a library leaves out is not seen in what it hands on.
#[tokio::test]
async fn a_callers_trailers_reach_an_upstream_when_announced_and_harmless() {
    let (told, mut hears) = mpsc::channel(2);
    let upstream = Upstream::raw(move |mut stream| {
        let told = told.clone();
        async move {
            let head = read_head(&mut stream).await;
            let mut body = String::new();
            while !body.ends_with("\r\n\r\n") {
                body.push(char::from(stream.read_u8().await.unwrap()));
            }
            told.send((head.to_ascii_lowercase(), body)).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let url = upstream.url("");
    let world =
        World::scripted(move |_| Said::Go(Directive { auth_header: "X-Api-Key".to_owned(), ..to(url.clone()) })).await;
    let trailers =
        "X-Sum: 1\r\nX-Api-Key: forged\r\nx_api_key: forged\r\nX-Caracal-Identity: forged\r\nX-Unsaid: 1\r\n";
    let body = format!("2\r\nok\r\n0\r\n{trailers}\r\n");
    for (announced, line, expected) in [
        ("", None, "2\r\nok\r\n0\r\n\r\n"),
        (
            "Trailer: X-Sum, X-Api-Key, x_api_key\r\nTrailer: X-Caracal-Identity, Content-Length\r\n",
            Some("trailer: x-sum\r\n"),
            "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
    ] {
        let head = world.request("POST", "/x", &format!("{announced}Transfer-Encoding: chunked\r\n")).await;
        let mut caller = world.caller().await;
        caller.send(head + &body).await;
        assert_eq!(caller.answer(true).await.status(), 204);
        let (head, sent) = hears.recv().await.unwrap();
        assert_eq!(head.contains("trailer"), line.is_some(), "{head}");
        assert!(line.is_none_or(|line| head.contains(line)), "{head}");
        assert_eq!(sent.to_ascii_lowercase(), expected);
    }
}
