//! The same over a real connection.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use caracal_http::FreshId;
use caracal_http::server::{Limits, serve};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::{House, delegation, request};

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_an_application_transport_over_a_loopback_socket() {
    let house = House::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    let fresh = FreshId::new(|| "fresh".to_owned());
    let server = tokio::spawn(serve(listener, house.router.clone(), fresh, Limits::default(), stopped));
    #[expect(clippy::disallowed_methods, reason = "a caller, who has no addresses to judge")]
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let send = async |request: Request<Body>| {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("{base}{}", parts.uri).parse().unwrap();
        let response = client.request(Request::from_parts(parts, body)).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (parts, body)
    };
    let token = house.mandate("app-1").await;
    let mut sessions = Vec::new();
    for key in ["7e0b8b9e-58a5-4f0c-9d2e-1f5f0a3d7c11", "1d4f6a52-7a9b-4c57-8b57-6a0f4f7c2f90"] {
        let body = json!({"application_id": "app-1", "labels": ["app-1"], "ttl_seconds": 1_020});
        let keyed = request("POST", "/zones/z-1/agents", &token, Some(body), &[("idempotency-key", key)]);
        let (parts, body) = send(keyed).await;
        assert_eq!(parts.status, 201);
        assert_eq!(parts.headers["content-type"], "application/json; charset=utf-8");
        sessions.push(body["agent_session_id"].as_str().unwrap().to_owned());
    }
    let mut body = delegation(&sessions[0], &sessions[1]);
    body["constraints"] = json!({"resources": ["resource://docs"]});
    body.as_object_mut().unwrap().remove("resource_id");
    let (parts, body) = send(request("POST", "/zones/z-1/delegations", &token, Some(body), &[])).await;
    assert_eq!(parts.status, 201);
    let edge = body["delegation_edge_id"].as_str().unwrap();
    let inbound = format!("/zones/z-1/delegations/inbound/{}/{edge}", sessions[1]);
    let (_, body) = send(request("GET", &inbound, &token, None, &[])).await;
    assert_eq!(body["status"], "active");
    for session in &sessions {
        let (parts, body) = send(request("DELETE", &format!("/zones/z-1/agents/{session}"), &token, None, &[])).await;
        assert_eq!((parts.status.as_u16(), &body), (204, &Value::Null));
        assert!(!parts.headers.contains_key("content-type"));
    }
    let (parts, body) = send(request("GET", "/zones/z-1/agents/unknown", &token, None, &[])).await;
    assert_eq!((parts.status.as_u16(), &body["request_id"]), (404, &json!("fresh")));
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(30), server).await.unwrap().unwrap();
}
