//! The same over a real listener: framing, peer addresses, request ids.

use std::sync::Arc;

use caracal_http::{Face, FreshId};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_serves_mints_exchanges_keys_and_refusals() {
    let world = Arc::new(World::in_real_time().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listening = Listening::on(listener, &world);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";

    let minted = listening.say(&format!("POST /oauth/2/token HTTP/1.1\r\n{form}"), &Ask::mint().encoded()).await;
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
    let granted = listening.say(&signed, &exchange.ask.encoded()).await;
    assert!(granted.starts_with("HTTP/1.1 200 OK\r\n") && granted.contains("\"upstreams\""), "{granted}");
    let replayed = listening.say(&signed, &exchange.ask.encoded()).await;
    assert!(replayed.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{replayed}");

    let keys = listening.say("GET /.well-known/jwks.json?zone_id=z-1 HTTP/1.1\r\n", "").await;
    assert!(keys.contains("\"kty\":\"EC\"") && keys.ends_with("}\n"), "{keys}");
    let head_only = listening.say("HEAD /.well-known/jwks.json?zone_id=z-1 HTTP/1.1\r\n", "").await;
    assert!(head_only.starts_with("HTTP/1.1 200 OK\r\n") && head_only.ends_with("\r\n\r\n"), "{head_only}");
    let lost = listening.say("GET /nowhere HTTP/1.1\r\n", "").await;
    assert!(lost.starts_with("HTTP/1.1 404 Not Found\r\n") && lost.contains("\"request_id\""), "{lost}");
    // A target in absolute form is routed by its path like any other.
    let absolute = listening.say("GET http://sts/nowhere?/health HTTP/1.1\r\n", "").await;
    assert!(absolute.starts_with("HTTP/1.1 404 Not Found\r\n"), "{absolute}");

    listening.end().await;
    assert_eq!(world.evidence().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_forms_are_told_apart_over_a_socket() {
    let world = World::new().await;
    let listening = Listening::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), &world);
    let whole = Ask::bootstrap().encoded();
    let form = "application/x-www-form-urlencoded";
    let too_large = format!("{whole}&padding={}", "a".repeat(65_537 - whole.len() - 9));
    assert_eq!(too_large.len(), 65_537);
    for (target, media_type, body, expected) in [
        ("/oauth/2/token?x=1", form, whole.clone(), "400"),
        ("/oauth/2/token", "application/json", "{}".to_owned(), "415"),
        ("/oauth/2/token", form, too_large, "413"),
        ("/oauth/2/token", form, format!("{whole}&a=%zz"), "400"),
        ("/oauth/2/token", form, format!("{whole}&a=1;b=2"), "400"),
        ("/oauth/2/token", form, format!("{whole}&scope=b"), "400"),
        ("/oauth/2/token", form, format!("{whole}&foo=1&foo=2"), "400"),
        ("/oauth/2/token", form, format!("{whole}&resource="), "400"),
        ("/oauth/2/token", form, format!("{whole}&actor_token="), "400"),
        ("/oauth/2/token", form, format!("{whole}&ttl_seconds=abc"), "400"),
        ("/oauth/2/token", form, format!("{whole}&subject_token=x"), "400"),
        ("/oauth/2/token", form, format!("{whole}&resource=+resource://docs+"), "200"),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nContent-Type: {media_type}\r\n");
        let answer = listening.say(&head, &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{target} {media_type}: {answer}");
        assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{answer}");
    }
    listening.end().await;
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
