//! Framing is made anew on each side, and what could be framed in two ways is refused (gateway.md §2, §17.1; README
//! D21).

use http::{Response, StatusCode};
use serde_json::json;

use crate::upstream::{Upstream, full};
use crate::world::{World, request};

#[tokio::test]
async fn a_known_length_is_kept_both_ways_and_an_unknown_one_is_chunked() {
    let upstream = Upstream::answering(|received| Response::new(full(received.body.clone()))).await;
    let world = World::before(&upstream).await;
    for (headers, body, length) in [
        ("Content-Length: 3\r\n", "abc", Some("3")),
        ("Content-Length: 0\r\n", "", Some("0")),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", None),
    ] {
        let request = world.request("POST", "/x", headers).await;
        let answer = world.ask(&format!("{request}{body}")).await;
        assert_eq!(answer.status(), 200);
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.get("content-length"), length, "{headers}");
        assert_eq!(received.get("transfer-encoding").is_some(), length.is_none(), "{headers}");
        assert_eq!(answer.body, received.body);
        assert_eq!(answer.get("content-length"), Some(received.body.len().to_string().as_str()));
    }
}

#[tokio::test]
async fn a_request_without_a_body_has_none_upstream() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "QUERY"] {
        let request = world.request(method, "/x", "").await;
        assert_eq!(world.ask(&request).await.status(), 200, "{method}");
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.method.as_str(), received.body.len()), (method, 0));
        assert_eq!(received.get("transfer-encoding"), None, "{method}");
        // Some servers want to be told.
        let expected = matches!(method, "POST" | "PUT" | "PATCH").then_some("0");
        assert_eq!(received.get("content-length"), expected, "{method}");
    }
}

/// Header lines, and a body, that two readers could frame in two ways.
const AMBIGUOUS: [(&str, &str); 17] = [
    ("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
    ("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
    ("Content-Length: +3\r\n", "abc"),
    ("Content-Length: 3, 4\r\n", "abcd"),
    ("Transfer-Encoding: gzip\r\n", "abc"),
    ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
    ("Content-Length: 100\r\nTransfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 100\r\n", "1\r\na\r\n0\r\n\r\n"),
    ("X: a\n", ""),
    ("X: a\nContent-Length: 3\r\n", "abc"),
    ("X: a\r\n folded: b\r\n", ""),
    ("X\x00Y: a\r\n", ""),
    ("X: a\x00b\r\n", ""),
];

#[tokio::test]
async fn what_could_be_framed_in_two_ways_reaches_nobody() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (headers, body) in AMBIGUOUS {
        let request = world.request("POST", "/x", headers).await;
        let mut caller = world.caller().await;
        caller.send(format!("{request}{body}")).await;
        assert_eq!(caller.head().await.status, 400, "{headers:?}");
    }
    assert!(upstream.received().is_empty());
}

/// Sent ahead of the answer to a good call, it is read no sooner and no more leniently.
#[tokio::test]
async fn what_could_be_framed_in_two_ways_reaches_nobody_behind_a_good_call_either() {
    let upstream = Upstream::answering(|received| Response::new(full(received.target.clone()))).await;
    let world = World::before(&upstream).await;
    let mut calls = 0;
    for (headers, body) in AMBIGUOUS {
        for (method, framing, good) in [
            ("GET", "", ""),
            ("POST", "Content-Length: 4\r\n", "\n\n\r\n"),
            ("POST", "Transfer-Encoding: chunked\r\n", "1\r\n\n\r\n0\r\n\r\n"),
            ("POST", "Transfer-Encoding: chunked\r\n", "1;a=b\r\na\r\n0\r\nX: y\r\n\r\n"),
        ] {
            let first = world.request(method, "/good", framing).await;
            let second = world.request("POST", "/bad", headers).await;
            let mut caller = world.caller().await;
            caller.send(format!("{first}{good}{second}{body}")).await;
            assert_eq!(caller.answer(true).await.text(), "/good", "{framing:?}");
            assert_eq!(caller.head().await.status, 400, "{headers:?} behind {framing:?}");
            // Until the connection is closed.
            let rest = caller.rest().await;
            assert!(!rest.starts_with(b"HTTP/") && rest.len() < 20, "{}", String::from_utf8_lossy(&rest));
            calls += 1;
        }
    }
    let received = upstream.received();
    assert_eq!(received.len(), calls);
    assert!(received.iter().all(|received| received.target == "/good"));
}

#[tokio::test]
async fn a_body_whose_chunks_are_none_never_arrives_whole() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (n, chunks) in [
        "FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1\r\nab\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let headers = format!("Transfer-Encoding: chunked\r\nX-Request-Id: r-{n}\r\n");
        let request = world.request("POST", "/x", &headers).await;
        let mut caller = world.caller().await;
        caller.send(format!("{request}{chunks}")).await;
        let answer = caller.answer(true).await;
        assert_eq!(
            answer.refusal(),
            (400, "internal_error".to_owned(), "request body malformed".to_owned()),
            "{chunks:?}"
        );
        assert!(caller.is_closed().await);
        let (_, status, metadata) = world.event(&format!("r-{n}")).await;
        assert_eq!((status.as_str(), &metadata["gateway_status"]), ("upstream_error", &json!(400)));
    }
    assert!(upstream.received().iter().all(|received| !received.whole));
    // Extensions of a chunk and fields behind the last one say nothing to anybody.
    let request = world.request("POST", "/x", "Transfer-Encoding: chunked\r\n").await;
    let answer = world.ask(&format!("{request}1;a=\"b\"\r\nx\r\n0\r\nX-Caracal-Identity: x\r\n\r\n")).await;
    assert_eq!(answer.status(), 200);
    let received = upstream.received().pop().unwrap();
    assert_eq!((received.body.as_slice(), received.get("x-caracal-identity")), (&b"x"[..], None));
}

#[tokio::test]
async fn heads_that_name_no_host_or_several_or_are_too_large_are_refused() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({})).await;
    for request in [
        "GET /x HTTP/1.1\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET /x y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        let mut caller = world.caller().await;
        caller.send(&request).await;
        assert_eq!(caller.head().await.status, 400, "{request}");
    }
    let fits = request("GET", "/x", &mandate, &format!("X-Large: {}\r\n", "x".repeat(18_000)));
    assert_eq!(world.ask(&fits).await.status(), 200);
    for length in [21_000, 40_000, 200_000] {
        let mut caller = world.caller().await;
        caller.try_send(request("GET", "/x", &mandate, &format!("X-Large: {}\r\n", "x".repeat(length)))).await;
        assert_eq!(caller.head().await.status, 431, "{length}");
    }
    let answer = world.ask(&request("GET", "/x", &mandate, &format!("X-Large: {}\r\n", "x".repeat(21_000)))).await;
    assert_eq!(
        (answer.get("content-type"), answer.get("connection")),
        (Some("text/plain; charset=utf-8"), Some("close"))
    );
}

#[tokio::test]
async fn special_targets_are_not_proxied() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let answer = world.ask("OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    let answer = world.ask("GET * HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert_eq!((answer.status(), answer.get("connection")), (400, Some("close")));
    let answer = world.ask("CONNECT other.example:443 HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text().as_str()), (404, "404 page not found\n"));
    for other in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /x HTTP/2.0\r\nHost: g\r\n\r\n", "GET /x\r\n\r\n"] {
        let mut caller = world.caller().await;
        caller.send(other).await;
        assert_eq!(caller.head().await.status, 400, "{other:?}");
        assert!(caller.is_closed().await);
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn responses_without_a_body_have_their_heads() {
    for status in [204, 304, 200] {
        let upstream = Upstream::answering(move |_| {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("etag", "x".parse().unwrap());
            response
        })
        .await;
        let world = World::before(&upstream).await;
        let mut caller = world.caller().await;
        // The connection stays usable, so nothing of a body was sent or expected.
        for _ in 0..2 {
            let answer = caller.ask(&world.request("GET", "/x", "").await).await;
            assert_eq!((answer.status(), answer.get("etag"), answer.body.len()), (status, Some("x"), 0));
            assert_eq!(answer.get("x-caracal-token-expires-in"), Some("300"));
        }
    }
    let upstream = Upstream::answering(|_| Response::new(full("hello"))).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    for _ in 0..2 {
        let answer = caller.ask(&world.request("HEAD", "/x", "").await).await;
        assert_eq!((answer.status(), answer.get("content-length")), (200, Some("5")));
        assert_eq!((answer.get("x-caracal-token-expires-in"), answer.body.len()), (Some("300"), 0));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_chunked_for_the_caller() {
    let upstream = Upstream::saying(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let world = World::before(&upstream).await;
    let answer = world.get("/x").await;
    assert!(answer.whole);
    assert_eq!((answer.text().as_str(), answer.get("transfer-encoding")), ("until the end", Some("chunked")));
}

#[tokio::test]
async fn one_connection_carries_many_calls_and_pipelined_ones_stay_in_order() {
    let upstream = Upstream::answering(|received| Response::new(full(received.target.clone()))).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    for n in 0..3 {
        assert_eq!(caller.ask(&world.request("GET", &format!("/{n}"), "").await).await.text(), format!("/{n}"));
    }
    let pipelined = [world.request("GET", "/a", "").await, world.request("GET", "/b", "").await].concat();
    caller.send(pipelined).await;
    assert_eq!(caller.answer(true).await.text(), "/a");
    assert_eq!(caller.answer(true).await.text(), "/b");
}

#[tokio::test]
async fn a_flood_of_header_lines_is_refused_and_costs_no_mandate() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({})).await;
    let lines = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let mut caller = world.caller().await;
    caller.send(request("GET", "/x", &mandate, &lines(200))).await;
    assert_eq!(caller.head().await.status, 431);
    assert_eq!(world.ask(&request("GET", "/x", &mandate, &lines(90))).await.status(), 200);
    assert_eq!(upstream.received().len(), 1);
}

/// Stacks that hand headers on as variables fold `_` into `-`: there, each of these would be one of ours.
#[tokio::test]
async fn headers_that_only_look_like_others_do_not_reach_who_could_mistake_them() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let lines = "Content_Length: 3\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: 1.2.3.4\r\nX_Caracal_Identity: x\r\n\
                 Authorization_: x\r\nX_Kept: 1\r\n";
    let request = world.request("GET", "/x", lines).await;
    assert_eq!(world.ask(&request).await.status(), 200);
    let received = upstream.only();
    for name in ["content_length", "transfer_encoding", "x_forwarded_for", "x_caracal_identity"] {
        assert_eq!(received.get(name), None, "{name}");
    }
    assert_eq!((received.get("x_kept"), received.body.len()), (Some("1"), 0));
}

/// 64 KiB of zeros.
const COMPRESSED: &[u8] = b"\
    \x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xed\xc1\x01\x01\x00\x00\x00\x80\x90\xfe\xaf\xee\x08\x0a\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x6a\xeb\x8e\x97\xd7\x00\x00\x01\x00";

/// §15.3, §17.1: nothing is asked for that the caller did not ask for, and nothing is unpacked here, so nothing can swell here.
#[tokio::test]
async fn a_compressed_body_is_passed_on_as_it_came() {
    let upstream = Upstream::answering(|_| {
        let mut response = Response::new(full(COMPRESSED));
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response
    })
    .await;
    let world = World::before(&upstream).await;
    for (asked, seen) in [("", None), ("Accept-Encoding: gzip, br\r\n", Some("gzip, br"))] {
        let headers = format!(
            "{asked}Content-Encoding: gzip\r\nContent-Length: {}\r\nX-Request-Id: r{}\r\n",
            COMPRESSED.len(),
            asked.len()
        );
        let mut caller = world.caller().await;
        caller.send(world.request("POST", "/x", &headers).await).await;
        caller.send(COMPRESSED).await;
        let answer = caller.answer(true).await;
        assert_eq!((answer.status(), answer.get("content-encoding")), (200, Some("gzip")));
        assert_eq!(answer.get("content-length"), Some(COMPRESSED.len().to_string().as_str()));
        assert_eq!(answer.body, COMPRESSED);
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.get("accept-encoding"), received.body.as_slice()), (seen, COMPRESSED));
        let metadata = world.event(&format!("r{}", asked.len())).await.2;
        assert_eq!(
            (&metadata["request_bytes"], &metadata["response_bytes"]),
            (&json!(COMPRESSED.len()), &json!(COMPRESSED.len()))
        );
    }
}

/// A length that lies: the caller hangs up before it has sent what it promised.
#[tokio::test]
async fn a_caller_who_sends_less_than_it_said_completes_nothing_upstream() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (id, framing, part) in [
        ("r-1", "Content-Length: 10\r\n", "abc"),
        ("r-2", "Transfer-Encoding: chunked\r\n", "a\r\nabc"),
        ("r-3", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
        ("r-4", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n"),
    ] {
        let mut caller = world.caller().await;
        caller.send(world.request("POST", "/x", &format!("{framing}X-Request-Id: {id}\r\n")).await).await;
        caller.send(part).await;
        drop(caller);
        let (_, status, metadata) = world.event(id).await;
        assert_eq!((status.as_str(), &metadata["gateway_status"]), ("upstream_error", &json!(499)), "{id}");
    }
    assert!(upstream.received().iter().all(|received| !received.whole));
}
