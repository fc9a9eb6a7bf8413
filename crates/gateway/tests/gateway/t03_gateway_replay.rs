//! One mandate, one call (gateway.md §9, README D8 and D35; properties 2, 3, 20).

use std::collections::HashMap;

use caracal_gateway::ExchangeRefusal;
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{Deployment, World, config, request, to};

fn replayed() -> (u16, String, String) {
    (401, "invalid_token".to_owned(), "token replay detected".to_owned())
}

#[tokio::test]
async fn the_second_presentation_is_refused_and_leaves_one_event() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({"jti": "m-x"})).await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n")).await.status(), 200);
    let again = world.ask(&request("GET", "/x", &mandate, "X-Request-Id: r-2\r\n")).await;
    assert_eq!(again.refusal(), replayed());
    let event = world.events("r-2", 1).await.remove(0);
    assert_eq!((event.event_type.as_str(), event.decision.as_str()), ("replay_detected", "deny"));
    assert_eq!((event.evaluation_status.as_str(), event.diagnostics.as_str()), ("anomaly", "[]"));
    let metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
    let fingerprint = metadata["subject_fp"].as_str().unwrap();
    assert_eq!(fingerprint.len(), 16);
    let expected = json!({
        "jti": "m-x", "resource": "resource://items", "client_id": "app-1", "subject_fp": fingerprint,
        "request_id": "r-2",
    });
    assert_eq!(metadata, expected);
    assert_eq!(upstream.received().len(), 1);
    assert_eq!(world.metric("denials_jti_replay").await, 1);
    // The Gateway remembered; the STS was not asked again.
    assert_eq!(world.sts.times_asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_presentations_at_two_gateways_exactly_one_passes() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let deployment = Deployment::new(move |_| Said::Go(to(url.clone()))).await;
    let one = World::join(deployment.clone(), config()).await;
    let two = World::join(deployment.clone(), config()).await;
    let mandate = deployment.mandate(json!({})).await;
    let presentations = (0..50).map(|n| {
        let world = if n % 2 == 0 { &one } else { &two };
        let request = request("GET", "/x", &mandate, &format!("X-Request-Id: r-{n}\r\n"));
        async move { world.ask(&request).await.status() }
    });
    let mut outcomes: HashMap<u16, usize> = HashMap::new();
    for status in join_all(presentations).await {
        *outcomes.entry(status).or_default() += 1;
    }
    assert_eq!(outcomes, HashMap::from([(200, 1), (401, 49)]));
    assert_eq!(upstream.received().len(), 1);
    let mut passed = 0;
    for n in 0..50 {
        let event = deployment.events(&format!("r-{n}"), 1).await.remove(0);
        passed += usize::from(event.event_type == "gateway_resource_request");
    }
    assert_eq!(passed, 1);
}

#[tokio::test]
async fn a_used_mandate_stays_used_when_the_gateway_forgets() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let deployment = Deployment::new(move |_| Said::Go(to(url.clone()))).await;
    let first = World::join(deployment.clone(), config()).await;
    let mandate = deployment.mandate(json!({})).await;
    assert_eq!(first.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
    first.stop().await;
    let second = World::join(deployment.clone(), config()).await;
    assert_eq!(second.ask(&request("GET", "/x", &mandate, "")).await.refusal(), replayed());
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn a_denied_mandate_is_used_up() {
    let denied = |_: &_| Said::No(ExchangeRefusal::denied(StatusCode::FORBIDDEN, "access_denied", "policy denied"));
    let world = World::scripted(denied).await;
    let mandate = world.mandate(json!({})).await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 403);
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.refusal(), replayed());
}

#[tokio::test]
async fn an_sts_that_could_not_decide_costs_no_mandate() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.sts.says(|_| Said::Unable(ExchangeRefusal::unavailable()));
    let mandate = world.mandate(json!({})).await;
    let request = request("GET", "/x", &mandate, "");
    assert_eq!(world.ask(&request).await.refusal().0, 503);
    let url = upstream.url("");
    world.sts.says(move |_| Said::Go(to(url.clone())));
    assert_eq!(world.ask(&request).await.status(), 200);
}

#[tokio::test]
async fn what_the_sts_calls_invalid_is_not_called_a_replay() {
    let world = World::scripted(|_| Said::Unable(invalid())).await;
    fn invalid() -> ExchangeRefusal {
        ExchangeRefusal::denied(StatusCode::UNAUTHORIZED, "invalid_token", "invalid subject_token")
    }
    let session = world.mandate(json!({"use": "session"})).await;
    for _ in 0..2 {
        assert_eq!(world.ask(&request("GET", "/x", &session, "")).await.refusal().2, "invalid subject_token");
    }
}

#[tokio::test]
async fn a_forged_token_uses_up_no_genuine_one() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let genuine = world.mandate(json!({"jti": "m-x"})).await;
    let mut claims = world.claims();
    claims["jti"] = json!("m-x");
    let forged = world.sign("z-2", &claims).await;
    assert_eq!(world.ask(&request("GET", "/x", &forged, "")).await.refusal().2, "bearer signature invalid");
    assert_eq!(world.ask(&request("GET", "/x", &genuine, "")).await.status(), 200);
}

#[tokio::test]
async fn a_mandate_of_another_zone_with_the_same_jti_is_another_mandate() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mut claims = world.claims();
    let one = world.sign("z-1", &claims).await;
    claims["zone_id"] = json!("z-2");
    let two = world.sign("z-2", &claims).await;
    for mandate in [one, two] {
        assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
    }
}
