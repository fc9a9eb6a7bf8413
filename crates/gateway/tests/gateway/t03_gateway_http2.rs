//! Callers of HTTP/2, and gRPC from end to end (gateway.md §2, §10.6, §17; README D10; properties 14, 23).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_gateway::{ExchangeRefusal, GatewayConfig};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{World, config, to};

const STUCK: Duration = Duration::from_secs(10);

/// A body as a test feeds it.
struct Fed(mpsc::Receiver<Frame<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

fn fed() -> (mpsc::Sender<Frame<Bytes>>, Fed) {
    let (feed, food) = mpsc::channel(8);
    (feed, Fed(food))
}

fn nothing() -> Fed {
    fed().1
}

async fn connect(world: &World) -> SendRequest<Fed> {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (sender, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn asking(world: &World, path: &str, body: Fed) -> Request<Fed> {
    let mandate = world.mandate(json!({})).await;
    Request::builder()
        .method("POST")
        .uri(format!("http://gateway.test{path}"))
        .header("authorization", format!("Bearer {mandate}"))
        .header("x-caracal-resource", "resource://items")
        .header("x-request-id", "r-1")
        .body(body)
        .unwrap()
}

async fn speaking_http2(upstream: String, change: impl Fn(&mut GatewayConfig)) -> World {
    let mut config = GatewayConfig { cleartext_http2: true, ..config() };
    change(&mut config);
    World::with(config, move |_| Said::Go(to(upstream.clone()))).await
}

/// Everything of a body, and whether it ended in order.
async fn all(response: Response<Incoming>) -> (Vec<u8>, HeaderMap, bool) {
    let (mut body, mut data, mut trailers) = (response.into_body(), Vec::new(), HeaderMap::new());
    loop {
        match timeout(STUCK, body.frame()).await.unwrap() {
            None => return (data, trailers, true),
            Some(Err(_)) => return (data, trailers, false),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(more) => data.extend(more),
                Err(frame) => trailers = frame.into_trailers().unwrap(),
            },
        }
    }
}

#[tokio::test]
async fn a_call_over_http2_reaches_its_upstream_as_a_plain_one() {
    let upstream = Upstream::ok().await;
    let world = speaking_http2(upstream.url("/base"), |_| ()).await;
    let mut sender = connect(&world).await;
    let mut request = asking(&world, "/x?y=%20", nothing()).await;
    for piece in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", piece.parse().unwrap());
    }
    request.headers_mut().insert("x-caracal-identity", "forged".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-request-id"]), (200, &"r-1".parse().unwrap()));
    assert_eq!(response.headers().get("connection"), None);
    assert_eq!(all(response).await, (b"ok".to_vec(), HeaderMap::new(), true));
    let received = upstream.only();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/base/x?y=%20"));
    assert_eq!(received.all("cookie"), ["a=1; b=2"]);
    assert_eq!(
        (received.get("x-forwarded-host"), received.get("x-forwarded-proto")),
        (Some("gateway.test"), Some("http"))
    );
    assert_eq!((received.get("x-caracal-identity"), received.get("te")), (None, None));
    assert_eq!(received.get("host"), Some(upstream.address.to_string().as_str()));
    // A refusal is one here as well, and many go over one connection.
    let bare = Request::get("http://gateway.test/x").body(nothing()).unwrap();
    let refused = sender.send_request(bare).await.unwrap();
    assert_eq!(refused.status(), 401);
    let body: serde_json::Value = serde_json::from_slice(&all(refused).await.0).unwrap();
    assert_eq!(body["error"], "invalid_token");
}

/// An upstream of HTTP/1 that writes `bytes` and then says nothing, or hangs up.
async fn saying(bytes: &'static [u8], hang_up: bool) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
        if !hang_up {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_revocation_ends_a_stream_with_the_trailer_or_where_a_length_was_promised_not_in_order() {
    for (head, in_order) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi", false),
    ] {
        let upstream = saying(head, false).await;
        let world = speaking_http2(upstream.url(""), |_| ()).await;
        let response = connect(&world).await.send_request(asking(&world, "/x", nothing()).await).await.unwrap();
        assert_eq!(response.headers()["trailer"], "X-Caracal-Revoked");
        world.revoke("agent_session_id", "s-1").await;
        let (data, trailers, ended) = all(response).await;
        assert_eq!((data.as_slice(), ended), (&b"hi"[..], in_order));
        assert_eq!(trailers.get("x-caracal-revoked").is_some(), in_order);
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), &metadata["revocation_interrupted"]), ("executed", &json!(true)));
    }
}

#[tokio::test]
async fn a_body_that_its_upstream_breaks_off_is_an_error_of_its_stream_alone() {
    let upstream = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", true).await;
    let world = speaking_http2(upstream.url(""), |_| ()).await;
    let mut sender = connect(&world).await;
    for n in 1..=2 {
        let mut request = asking(&world, "/x", nothing()).await;
        request.headers_mut().insert("x-request-id", format!("r-{n}").parse().unwrap());
        let response = sender.send_request(request).await.unwrap();
        let (data, trailers, ended) = all(response).await;
        assert_eq!((data.as_slice(), trailers.len(), ended), (&b"hi"[..], 0, false));
        let metadata = world.event(&format!("r-{n}")).await.2;
        assert_eq!(
            (&metadata["error_kind"], &metadata["ended_by"]),
            (&json!("response_copy_failed"), &json!("upstream"))
        );
    }
}

#[tokio::test]
async fn a_caller_who_resets_its_stream_is_recorded_as_who_ended_it() {
    let upstream = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", false).await;
    let world = speaking_http2(upstream.url(""), |_| ()).await;
    let response = connect(&world).await.send_request(asking(&world, "/x", nothing()).await).await.unwrap();
    drop(response);
    let metadata = world.event("r-1").await.2;
    assert_eq!((&metadata["error_kind"], &metadata["ended_by"]), (&json!("response_copy_failed"), &json!("caller")));
}

/// As fast as the STS can be asked, and not faster than that.
#[tokio::test]
async fn calls_that_are_taken_back_while_they_are_decided_reach_no_upstream_and_cost_no_mandate() {
    let upstream = Upstream::ok().await;
    let world = speaking_http2(upstream.url(""), |_| ()).await;
    world.sts.says(|_| Said::Hang);
    let mandate = world.mandate(json!({})).await;
    let mut sender = connect(&world).await;
    let mut taken_back = 0;
    while taken_back < 1_000 {
        let mut request = asking(&world, "/x", nothing()).await;
        request.headers_mut().insert("authorization", format!("Bearer {mandate}").parse().unwrap());
        tokio::select! {
            ended = sender.send_request(request) => {
                assert!(ended.is_err(), "nobody was to answer");
                break;
            }
            () = world.sts.arrived.notified() => taken_back += 1,
        }
    }
    assert!((256..1_000).contains(&taken_back), "cut off after {taken_back}");
    while world.sts.under_way.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(upstream.connections(), 0);
    // As many of them are on record as of any refusal; the rest is counted.
    for event in world.events("r-1", 10).await {
        assert_eq!((event.decision.as_str(), event.evaluation_status.as_str()), ("deny", "sts_outcome_unknown"));
    }
    let url = upstream.url("");
    world.sts.says(move |_| Said::Go(to(url.clone())));
    let held = crate::world::request("GET", "/x", &mandate, "X-Request-Id: r-2\r\n");
    assert_eq!(world.ask(&held).await.status(), 200);
    assert_eq!(world.event("r-2").await.1, "executed");
}

mod grpc {
    use super::*;

    type Answering = dyn Fn(Request<Incoming>) -> Option<Response<Fed>> + Send + Sync;

    /// A server of HTTP/2, and the heads of what it was asked.
    async fn serving(
        answer: impl Fn(Request<Incoming>) -> Response<Fed> + Send + Sync + 'static,
    ) -> (String, Arc<Mutex<Vec<http::request::Parts>>>) {
        serving_or_not(move |request| Some(answer(request))).await
    }

    /// The same, for one that may never answer.
    async fn serving_or_not(
        answer: impl Fn(Request<Incoming>) -> Option<Response<Fed>> + Send + Sync + 'static,
    ) -> (String, Arc<Mutex<Vec<http::request::Parts>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Arc<Answering> = Arc::new(answer);
        let heads: Arc<Mutex<Vec<http::request::Parts>>> = Arc::default();
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), seen.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (parts, body) = request.into_parts();
                    let mut noted = Request::new(()).into_parts().0;
                    (noted.method, noted.uri) = (parts.method.clone(), parts.uri.clone());
                    (noted.version, noted.headers) = (parts.version, parts.headers.clone());
                    seen.lock().unwrap().push(noted);
                    let response = answer(Request::from_parts(parts, body));
                    async move {
                        match response {
                            Some(response) => Ok::<_, Infallible>(response),
                            None => std::future::pending().await,
                        }
                    }
                });
                tokio::spawn(
                    server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (url, heads)
    }

    fn grpc(body: Fed) -> Response<Fed> {
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// Says back what it hears, message for message, and what came behind the body behind its own.
    fn echo(request: Request<Incoming>) -> Response<Fed> {
        let (feed, body) = fed();
        tokio::spawn(async move {
            let mut heard = request.into_body();
            let mut trailers = fields(&[("grpc-status", "0"), ("set-cookie", "a=1"), ("x-caracal-revoked", "true")]);
            while let Some(Ok(frame)) = heard.frame().await {
                match frame.into_data() {
                    Ok(data) => feed.send(Frame::data(data)).await.unwrap(),
                    Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
                }
            }
            let _ = feed.send(Frame::trailers(trailers)).await;
        });
        grpc(body)
    }

    async fn call(world: &World, body: Fed) -> Response<Incoming> {
        let request = asking_grpc(world, body).await;
        connect(world).await.send_request(request).await.unwrap()
    }

    async fn asking_grpc(world: &World, body: Fed) -> Request<Fed> {
        let mut request = asking(world, "/items.Items/Watch", body).await;
        request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        request.headers_mut().insert("grpc-timeout", "5S".parse().unwrap());
        request
    }

    #[tokio::test]
    async fn a_call_is_a_conversation_with_fields_behind_it_at_both_ends() {
        let (url, heads) = serving(echo).await;
        let world = speaking_http2(url.clone(), |_| ()).await;
        let (say, body) = fed();
        let response = call(&world, body).await;
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut heard = response.into_body();
        for message in ["one", "two"] {
            say.send(Frame::data(Bytes::from(message))).await.unwrap();
            let frame = timeout(STUCK, heard.frame()).await.unwrap().unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        let behind = fields(&[
            ("x-checksum", "1"),
            ("x-caracal-identity", "forged"),
            ("authorization", "forged"),
            ("x-http-method-override", "DELETE"),
            ("traceparent", "forged"),
        ]);
        say.send(Frame::trailers(behind)).await.unwrap();
        let trailers = timeout(STUCK, heard.frame()).await.unwrap().unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers, fields(&[("grpc-status", "0"), ("x-checksum", "1")]));
        let seen = heads.lock().unwrap().pop().unwrap();
        assert_eq!(seen.uri.to_string(), format!("{url}/items.Items/Watch"));
        assert_eq!((seen.version, &seen.headers["te"]), (http::Version::HTTP_2, &"trailers".parse().unwrap()));
        assert_eq!(seen.headers["authorization"], "Bearer minted.for.resource");
        assert_eq!(seen.headers["grpc-timeout"], "5S");
        assert!(!seen.headers.keys().any(|name| name.as_str().starts_with("x-caracal")));
        assert_eq!(world.sts.asked()[0].path, "/items.Items/Watch");
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), metadata.get("ended_by")), ("executed", None));
        assert_eq!((&metadata["request_bytes"], &metadata["response_bytes"]), (&json!(6), &json!(6)));
    }

    #[tokio::test]
    async fn a_call_that_fails_with_its_head_says_why() {
        let (url, _heads) = serving(|_| {
            let mut response = grpc(nothing());
            response.headers_mut().extend(fields(&[("grpc-status", "5"), ("grpc-message", "no such item")]));
            response
        })
        .await;
        let world = speaking_http2(url, |_| ()).await;
        let response = call(&world, nothing()).await;
        assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"5".parse().unwrap()));
        assert_eq!(all(response).await, (Vec::new(), HeaderMap::new(), true));
    }

    #[tokio::test]
    async fn a_revocation_ends_a_call_with_a_status_and_its_upload_with_it() {
        let (told, mut hears) = mpsc::channel(1);
        let (url, _heads) = serving(move |request| {
            let (feed, body) = fed();
            let told = told.clone();
            tokio::spawn(async move {
                feed.send(Frame::data(Bytes::from_static(b"hi"))).await.unwrap();
                let mut heard = request.into_body();
                while let Some(Ok(_)) = heard.frame().await {}
                told.send(()).await.unwrap();
            });
            grpc(body)
        })
        .await;
        let world = speaking_http2(url, |_| ()).await;
        let (say, body) = fed();
        let response = call(&world, body).await;
        say.send(Frame::data(Bytes::from_static(b"hello"))).await.unwrap();
        world.revoke("delegation_edge_id", "e-1").await;
        let (data, trailers, ended) = all(response).await;
        assert_eq!((data.as_slice(), ended), (&b"hi"[..], true));
        let expected = [("x-caracal-revoked", "true"), ("grpc-status", "16"), ("grpc-message", "session revoked")];
        assert_eq!(trailers, fields(&expected));
        timeout(STUCK, hears.recv()).await.unwrap().unwrap();
        assert_eq!(world.event("r-1").await.2["revocation_interrupted"], true);
    }

    /// A call whose caller talks and whose upstream answers at its end: no deadline would end it, and there is no response yet
    /// that could be cut.
    #[tokio::test]
    async fn a_revocation_ends_a_call_that_only_its_caller_talks_in() {
        let (told, mut hears) = mpsc::channel(4);
        let (url, _heads) = serving_or_not(move |request| {
            let told = told.clone();
            tokio::spawn(async move {
                let mut heard = request.into_body();
                while let Some(Ok(frame)) = heard.frame().await {
                    told.send(frame.into_data().is_ok()).await.unwrap();
                }
                told.send(false).await.unwrap();
            });
            None
        })
        .await;
        let world = speaking_http2(url, |_| ()).await;
        let (say, body) = fed();
        let (mut sender, request) = (connect(&world).await, asking_grpc(&world, body).await);
        let calling = tokio::spawn(async move { sender.send_request(request).await });
        say.send(Frame::data(Bytes::from_static(b"hello"))).await.unwrap();
        assert!(timeout(STUCK, hears.recv()).await.unwrap().unwrap());
        world.revoke("delegation_edge_id", "e-1").await;
        let response = timeout(STUCK, calling).await.expect("an end at once").unwrap().unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers());
        assert_eq!((status, &headers["grpc-status"]), (401, &"16".parse().unwrap()));
        assert_eq!(headers["grpc-message"], "session revoked");
        assert!(!timeout(STUCK, hears.recv()).await.expect("its upload ends").unwrap());
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), &metadata["revocation_interrupted"]), ("executed", &json!(true)));
        assert_eq!((&metadata["ended_by"], &metadata["request_bytes"]), (&json!("revocation"), &json!(5)));
    }

    /// A subscription: one message up, many down, the upload left open. And then nobody says anything.
    #[tokio::test]
    async fn a_call_lives_while_either_side_talks_and_ends_when_both_are_silent() {
        let pause = Duration::from_millis(60);
        let (url, _heads) = serving(move |request| {
            let (feed, body) = fed();
            tokio::spawn(async move {
                for _ in 0..8 {
                    feed.send(Frame::data(Bytes::from_static(b"."))).await.unwrap();
                    tokio::time::sleep(pause).await;
                }
                let _held = (feed, request);
                tokio::time::sleep(STUCK).await;
            });
            grpc(body)
        })
        .await;
        let world = speaking_http2(url, |config| {
            config.stream_idle_timeout = pause * 3;
            (config.sts_timeout, config.upstream_timeout) = (pause, pause);
            config.read_timeout = pause * 3;
        })
        .await;
        let (say, body) = fed();
        say.send(Frame::data(Bytes::from_static(b"go"))).await.unwrap();
        let (data, _, ended) = all(call(&world, body).await).await;
        assert_eq!((data.as_slice(), ended), (&b"........"[..], false));
        assert_eq!(world.event("r-1").await.2["ended_by"], "silence");
    }

    #[tokio::test]
    async fn without_authority_no_call_is_made() {
        let (url, heads) = serving(echo).await;
        let world = speaking_http2(url, |_| ()).await;
        world.revoke("session_id", "r-1").await;
        let response = call(&world, nothing()).await;
        assert_eq!(response.status(), 401);
        assert!(heads.lock().unwrap().is_empty());
    }

    /// A refusal in the shape of gRPC: one head, no body, the HTTP status that everybody else gets.
    #[tokio::test]
    async fn a_refused_call_is_told_why_in_its_own_terms_and_others_in_the_contracts() {
        let world =
            World::with(GatewayConfig { cleartext_http2: true, ..config() }, |request| match request.path.as_str() {
                "/items.Items/Denied" => {
                    Said::No(ExchangeRefusal::denied(StatusCode::FORBIDDEN, "access_denied", "100% denied"))
                }
                "/items.Items/Silent" => {
                    Said::No(ExchangeRefusal::denied(StatusCode::FORBIDDEN, "policy_eval_failed", ""))
                }
                _ => Said::Go(to("http://127.0.0.1:1")),
            })
            .await;
        for (path, status, grpc, message) in [
            ("/items.Items/Denied", 403, "7", "100%25 denied"),
            ("/items.Items/Silent", 403, "7", "policy_eval_failed"),
            ("/items.Items/Away", 502, "14", "upstream unreachable"),
            ("/items.Items/%2e%2e", 400, "3", "path traversal not permitted"),
        ] {
            let mut request = asking(&world, path, nothing()).await;
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let response = connect(&world).await.send_request(request).await.unwrap();
            let headers = response.headers().clone();
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!((response.status().as_u16(), text("grpc-status")), (status, Some(grpc)), "{path}");
            assert_eq!((text("grpc-message"), text("content-type")), (Some(message), Some("application/grpc")));
            assert_eq!((text("x-request-id"), text("content-length")), (Some("r-1"), None));
            assert!(response.body().is_end_stream(), "one head is all there is");
            // Nobody else hears of gRPC.
            let response = connect(&world).await.send_request(asking(&world, path, nothing()).await).await.unwrap();
            assert_eq!((response.status().as_u16(), response.headers().get("grpc-status")), (status, None));
            assert_eq!(response.headers()["content-type"], "application/json");
        }
        let _places = crate::t08_overload::overloaded(&world);
        let mut request = asking(&world, "/items.Items/List", nothing()).await;
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let response = connect(&world).await.send_request(request).await.unwrap();
        let headers = response.headers();
        assert_eq!((response.status().as_u16(), &headers["grpc-status"]), (503, &"14".parse().unwrap()));
        assert_eq!(
            (&headers["retry-after"], &headers["x-request-id"]),
            (&"1".parse().unwrap(), &"r-1".parse().unwrap())
        );
    }
}
