//! The same over a real listener: framing, peer addresses, request ids.

use std::net::SocketAddr;
use std::sync::Arc;

use caracal_http::server::{Ended, Limits, serve};
use caracal_http::{Face, FreshId};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::*;

/// Sends one request on a connection of its own and reads until the server closes.
async fn say(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Host: sts\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_serves_mints_exchanges_keys_and_refusals() {
    let world = Arc::new(World::in_real_time().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let fresh = FreshId::new(|| "from-the-listener".to_owned());
    let serving = tokio::spawn(serve(listener, world.sts.clone().router(), fresh, Limits::default(), stopped));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";

    let minted = say(address, &format!("POST /oauth/2/token HTTP/1.1\r\n{form}"), &Ask::mint().encoded()).await;
    let (head, body) = minted.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{minted}");
    assert!(head.contains("\r\nx-request-id: from-the-listener"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let mandate = body["access_token"].as_str().unwrap();

    let exchange = Signed::exchange(&world, mandate);
    let signed = format!(
        "POST /oauth/2/token HTTP/1.1\r\n{form}X-Request-Id: {}\r\nX-Caracal-Gateway-Timestamp: {}\r\n\
         X-Caracal-Gateway-Request: {}\r\nX-Caracal-Gateway-Signature: {}\r\n",
        exchange.request_id,
        exchange.timestamp,
        exchange.nonce,
        exchange.signature()
    );
    let granted = say(address, &signed, &exchange.ask.encoded()).await;
    assert!(granted.starts_with("HTTP/1.1 200 OK\r\n") && granted.contains("\"upstreams\""), "{granted}");
    let replayed = say(address, &signed, &exchange.ask.encoded()).await;
    assert!(replayed.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{replayed}");

    let keys = say(address, "GET /.well-known/jwks.json?zone_id=z-1 HTTP/1.1\r\n", "").await;
    assert!(keys.contains("\"kty\":\"EC\"") && keys.ends_with("}\n"), "{keys}");
    let head_only = say(address, "HEAD /.well-known/jwks.json?zone_id=z-1 HTTP/1.1\r\n", "").await;
    assert!(head_only.starts_with("HTTP/1.1 200 OK\r\n") && head_only.ends_with("\r\n\r\n"), "{head_only}");
    let lost = say(address, "GET /nowhere HTTP/1.1\r\n", "").await;
    assert!(lost.starts_with("HTTP/1.1 404 Not Found\r\n") && lost.contains("\"request_id\""), "{lost}");
    // A target in absolute form is routed by its path like any other.
    let absolute = say(address, "GET http://sts/nowhere?/health HTTP/1.1\r\n", "").await;
    assert!(absolute.starts_with("HTTP/1.1 404 Not Found\r\n"), "{absolute}");

    stop.send(true).unwrap();
    assert_eq!(serving.await.unwrap(), Ended::Drained);
    assert_eq!(world.evidence().await.len(), 2);
}

#[tokio::test]
async fn a_face_around_the_router_changes_nothing_twice() {
    let world = World::new().await;
    let face = Face::new(caracal_http::Profile::STS, FreshId::new(|| "outer".to_owned()));
    let service = face.wrap(world.sts.clone().router());
    let request = http::Request::get("/nowhere").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(response.headers().get_all("x-request-id").iter().collect::<Vec<_>>(), ["outer"]);
}
