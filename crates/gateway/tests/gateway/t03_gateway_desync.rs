//! Upstreams that frame their answers so that two readers disagree where one ends (gateway.md properties 6 and 23). Kept
//! connections are shared by callers who do not know each other: whatever is left on one must reach nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use crate::upstream::{Upstream, read_head};
use crate::world::World;

/// Says `first` on its first connection and then waits for more requests there; answers `clean` to every request but the
/// first.
async fn poisoned(first: &'static [u8]) -> Upstream {
    let answered = Arc::new(AtomicUsize::new(0));
    Upstream::raw(move |mut stream| {
        let answered = answered.clone();
        async move {
            while let head = read_head(&mut stream).await
                && !head.is_empty()
            {
                let clean = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean";
                let answer = if answered.fetch_add(1, Ordering::SeqCst) == 0 { first } else { clean };
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_an_upstream_sends_behind_its_answer_reaches_no_other_caller() {
    for first in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokpoison",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    ] {
        let upstream = poisoned(first).await;
        let world = World::before(&upstream).await;
        let answer = world.get("/x").await;
        assert!(matches!(answer.text().as_str(), "ok" | ""), "{}", String::from_utf8_lossy(first));
        for _ in 0..3 {
            let next = world.get("/x").await;
            assert_eq!((next.status(), next.text().as_str()), (200, "clean"), "{}", String::from_utf8_lossy(first));
        }
        assert!(upstream.connections() > 1, "the spoiled connection is not used again");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_follows_it() {
    let upstream = poisoned(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
    let world = World::before(&upstream).await;
    let request = world.request("HEAD", "/x", "").await;
    let answer = world.ask(&request).await;
    assert_eq!((answer.status(), answer.get("content-length")), (200, Some("6")));
    for _ in 0..3 {
        assert_eq!(world.get("/x").await.text(), "clean");
    }
}

#[tokio::test]
async fn an_answer_that_is_framed_in_two_ways_is_read_in_one_or_refused() {
    for (first, expected) in [
        // Chunked wins (RFC 9112 §6.3), and the caller is told of no length.
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"[..],
            Some("whole"),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nwhole", Some("whole")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\n Content-Length: 5\r\n\r\nwhole", None),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nwhole", None),
        (b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nwhole", None),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole", None),
    ] {
        let upstream = poisoned(first).await;
        let world = World::before(&upstream).await;
        let answer = world.get("/x").await;
        let name = String::from_utf8_lossy(first);
        match expected {
            Some(text) => {
                assert_eq!((answer.status(), answer.text().as_str(), answer.whole), (200, text, true), "{name}");
                let lengths = answer.head.all("content-length").len();
                let chunked = answer.get("transfer-encoding") == Some("chunked");
                assert_eq!(lengths + usize::from(chunked), 1, "{name}");
            }
            None => {
                let unreachable = (502, "internal_error".to_owned(), "upstream unreachable".to_owned());
                assert_eq!(answer.refusal(), unreachable, "{name}");
            }
        }
        assert_eq!(world.get("/x").await.text(), "clean", "{name}");
    }
}

#[tokio::test]
async fn a_chunked_answer_whose_chunks_are_none_never_ends_in_order() {
    for body in [
        "5;\r\nwhole\r\nzz\r\n\r\n",
        "5\r\nwholeX\r\n0\r\n\r\n",
        "-5\r\nwhole\r\n0\r\n\r\n",
        "5 5\r\nwhole\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nwhole\r\n0\r\n\r\n",
        "5\nwhole\n0\n\n",
    ] {
        let first = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let upstream = poisoned(first.leak().as_bytes()).await;
        let world = World::before(&upstream).await;
        let answer = world.get("/x").await;
        assert!(answer.status() == 502 || !answer.whole, "{body:?}: {answer:?}");
        assert_eq!(world.get("/x").await.text(), "clean", "{body:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_neither_relayed_nor_taken_for_the_final_one() {
    let first = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = poisoned(first).await;
    let world = World::before(&upstream).await;
    let answer = world.get("/x").await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("link")), (200, "ok", None));
    assert_eq!(world.get("/x").await.text(), "clean");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_head_without_bounds_is_given_up() {
    for head in [
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(200_000)),
        format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: 1\r\n".repeat(1_000)),
    ] {
        let upstream = poisoned(head.leak().as_bytes()).await;
        let world = World::before(&upstream).await;
        let unreachable = (502, "internal_error".to_owned(), "upstream unreachable".to_owned());
        assert_eq!(world.get("/x").await.refusal(), unreachable);
        assert_eq!(world.get("/x").await.text(), "clean");
    }
}
