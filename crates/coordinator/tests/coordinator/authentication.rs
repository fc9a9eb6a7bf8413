//! Who is heard (contract: coordinator.md §2).

use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{House, ISSUER, OPERATOR, request, zone};

const PATH: &str = "/zones/z-1/agents/s-1";

async fn with_header(house: &House, value: &str) -> (u16, String) {
    let request = Request::builder().uri(PATH).header("authorization", value).body(axum::body::Body::empty()).unwrap();
    let reply = house.send(request).await;
    (reply.status.as_u16(), reply.code().to_owned())
}

#[tokio::test]
async fn a_bearer_has_1_to_4096_characters_behind_its_exact_scheme() {
    let house = House::open().await;
    let missing = (401, "missing_token".to_owned());
    for header in ["", "Bearer", "Bearer ", "Bearer    ", "bearer x", "BEARER x", "Basic x", "x"] {
        assert_eq!(with_header(&house, header).await, missing, "{header:?}");
    }
    assert_eq!(with_header(&house, &format!("Bearer {}", "x".repeat(4_097))).await, missing);
    let invalid = (401, "invalid_token".to_owned());
    assert_eq!(with_header(&house, &format!("Bearer {}", "x".repeat(4_096))).await, invalid);
    assert_eq!(house.send(request("GET", PATH, "", None, &[])).await.refusal(), (401, "missing_token"));
    let token = house.mandate("app-1").await;
    assert_eq!(with_header(&house, &format!("Bearer  {token}")).await, (404, "session_not_found".to_owned()));
    let bearer = format!("Bearer {token}");
    let two = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(house.send(request("GET", PATH, "", None, &two)).await.refusal(), (401, "missing_token"));
}

mod t04_state_authentication {
    use super::*;

    async fn check(house: &House, change: impl FnOnce(&mut Value)) -> (u16, String) {
        let mut claims = house.claims("app-1");
        change(&mut claims);
        let token = house.sign(&claims).await;
        let reply = house.get(PATH, &token).await;
        (reply.status.as_u16(), reply.code().to_owned())
    }

    #[tokio::test]
    async fn only_a_session_mandate_of_this_issuer_in_force_is_heard() {
        let house = House::open().await;
        let heard = (404, "session_not_found".to_owned());
        let invalid = (401, "invalid_token".to_owned());
        assert_eq!(check(&house, |_| ()).await, heard);
        assert_eq!(check(&house, |claims| claims["aud"] = json!(["resource://x", ISSUER])).await, heard);
        assert_eq!(check(&house, |claims| claims["aud"] = json!(ISSUER)).await, heard);
        let now = house.now();
        assert_eq!(check(&house, |claims| claims["exp"] = json!(now - 59)).await, heard);
        for (name, value) in [
            ("iss", json!("https://other.test")),
            ("iss", json!(format!("{ISSUER}/"))),
            ("aud", json!(["resource://x"])),
            ("aud", json!([])),
            ("use", json!("gateway")),
            ("use", json!("resource")),
            ("use", json!(["session"])),
            ("exp", json!(now - 60)),
            ("exp", Value::Null),
            ("exp", json!("soon")),
            ("iat", json!(now + 61)),
            ("nbf", json!(now + 61)),
            ("sub", json!("")),
            ("client_id", json!("")),
            ("client_id", json!("../app")),
            ("sid", Value::Null),
            ("sid", json!("")),
            ("sid", json!(1)),
            ("zone_id", json!(1)),
            ("zone_id", json!("../z")),
        ] {
            assert_eq!(check(&house, |claims| claims[name] = value.clone()).await, invalid, "{name} {value}");
        }
    }

    #[tokio::test]
    async fn a_mandate_without_sid_is_not_heard_because_nothing_could_be_revoked_behind_it() {
        let house = House::open().await;
        let mut claims = house.claims("app-1");
        claims.as_object_mut().unwrap().remove("sid");
        let token = house.sign(&claims).await;
        house.get(PATH, &token).await.refused(401, "invalid_token");
        house.start(&token, json!({"application_id": "app-1"})).await.refused(401, "invalid_token");
    }

    #[tokio::test]
    async fn the_lifecycle_scope_is_needed_exactly() {
        let house = House::open().await;
        let missing = (403, "missing_scope".to_owned());
        for scope in ["", "agent", "agent:lifecycle:x", "Agent:lifecycle", "coordinator.admin"] {
            assert_eq!(check(&house, |claims| claims["scope"] = json!(scope)).await, missing, "{scope}");
        }
        assert_eq!(check(&house, |claims| claims["scope"] = json!("x agent:lifecycle")).await.0, 404);
    }

    #[tokio::test]
    async fn no_mandate_acts_in_another_zone_whatever_path_and_body_say() {
        let house = House::open().await;
        let other = caracal_authority::ZoneId::parse("z-2").unwrap();
        house.add_application_in(&other, "app-9", "managed").await;
        house.add_record_in(&other, "rec-9", "application", "app-9", "app-9", None).await;
        let session = house.task().await;
        let mut claims = house.claims("app-9");
        claims["zone_id"] = json!("z-2");
        let token = house.sign(&claims).await;
        let path = format!("/zones/z-1/agents/{session}");
        house.get(&path, &token).await.refused(403, "zone_mismatch");
        house.post("/zones/z-1/agents", &token, json!({"application_id": "app-9"})).await.refused(403, "zone_mismatch");
        house.get("/zones/z-1/nowhere", &token).await.refused(403, "zone_mismatch");
        house.get("/zones/%2e%2e/agents/x", &token).await.refused(403, "zone_mismatch");
        // In its own zone, what belongs to the other one does not exist.
        house.get(&format!("/zones/z-2/agents/{session}"), &token).await.refused(404, "session_not_found");
        let anchored = json!({"application_id": "app-9", "subject_session_id": "rec-1"});
        house.post("/zones/z-2/agents", &token, anchored).await.refused(404, "session_not_found");
        let child = json!({"application_id": "app-9", "parent_id": session});
        house.post("/zones/z-2/agents", &token, child).await.refused(404, "parent_not_found");
        house
            .call("DELETE", &format!("/zones/z-2/agents/{session}"), &token, None)
            .await
            .refused(404, "session_not_found");
        assert_eq!(house.session(&session).await.status, "active");
    }

    #[tokio::test]
    async fn a_mandate_of_one_zone_signed_with_the_key_of_another_is_refused() {
        let house = House::open().await;
        let theirs = house.keys.create(&caracal_authority::ZoneId::parse("z-2").unwrap()).await.unwrap();
        house.keys.create(&zone()).await.unwrap();
        let forged = theirs.sign(&house.claims("app-1")).unwrap();
        house.get(PATH, &forged).await.refused(401, "invalid_token");
        let genuine = house.mandate("app-1").await;
        let (signed, _) = genuine.rsplit_once('.').unwrap();
        house.get(PATH, &format!("{signed}.AAAA")).await.refused(401, "invalid_token");
        house.get(PATH, &format!("{signed}.")).await.refused(401, "invalid_token");
    }

    #[tokio::test]
    async fn a_revoked_record_or_a_dead_application_is_refused_at_the_next_request() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        house.get(PATH, &token).await.refused(404, "session_not_found");
        house.revoke_record("rec-1").await;
        house.get(PATH, &token).await.refused(401, "identity_revoked");
        let mut claims = house.claims("app-2");
        claims["sid"] = json!("rec-unknown");
        house.get(PATH, &house.sign(&claims).await).await.refused(401, "identity_revoked");
        let mut claims = house.claims("app-2");
        claims["client_id"] = json!("app-unknown");
        house.get(PATH, &house.sign(&claims).await).await.refused(401, "identity_revoked");
        let mut claims = house.claims("app-2");
        claims["exp"] = json!(house.now() + 30 * 86_400);
        let token = house.sign(&claims).await;
        house.get(PATH, &token).await.refused(404, "session_not_found");
        house.clock.advance(7 * 86_400);
        house.get(PATH, &token).await.refused(401, "identity_revoked");
    }

    #[tokio::test]
    async fn an_outage_of_keys_or_store_is_never_the_callers_fault() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        // Heard before, and not on the strength of what was read then.
        house.get(PATH, &token).await.refused(404, "session_not_found");
        house.store.close().await;
        let reply = house.get(PATH, &token).await;
        reply.refused(503, "sts_unavailable");
        house.start(&token, json!({"application_id": "app-1"})).await.refused(503, "sts_unavailable");
        assert!(reply.headers.contains_key("retry-after"));
        house.get("/ready", "").await.refused(503, "postgres_unreachable");
        house.get("/health", "").await.expect(200);
    }
}

mod t04_state_operator {
    use super::*;

    #[tokio::test]
    async fn the_operators_token_opens_its_list_and_nothing_else() {
        let house = House::open().await;
        let session = house.task().await;
        for (method, path, status) in [
            ("GET", format!("/zones/z-1/agents/{session}"), 200),
            ("GET", format!("/zones/z-1/delegations/inbound/{session}"), 200),
            ("GET", format!("/zones/z-1/delegations/inbound/{session}/e"), 404),
            ("PATCH", "/zones/z-1/delegations/e/revoke".to_owned(), 404),
            ("HEAD", format!("/zones/z-1/agents/{session}"), 401),
            ("HEAD", "/zones/z-1/agents".to_owned(), 401),
            ("GET", format!("/zones/z-1/delegations/outbound/{session}"), 200),
            ("GET", "/zones/z-1/delegations/active".to_owned(), 200),
            ("GET", "/zones/z-1/delegations/epoch".to_owned(), 200),
            ("GET", "/zones/z-1/delegations/e/traverse".to_owned(), 200),
            ("GET", "/zones/z-1/delegations/e/impact".to_owned(), 404),
            ("GET", format!("/zones/z-1/agents/{session}/effective-authority"), 200),
            ("GET", "/zones/z-1/agent-services".to_owned(), 200),
            ("GET", "/zones/z-1/invocations".to_owned(), 200),
            ("POST", "/zones/z-1/agent-services".to_owned(), 401),
            ("POST", "/zones/z-1/invocations".to_owned(), 401),
            ("GET", "/zones/z-1/invocations/i".to_owned(), 401),
            ("PATCH", "/zones/z-1/invocations/i/start".to_owned(), 401),
            ("PATCH", "/zones/z-1/invocations/i/cancel".to_owned(), 401),
            ("PATCH", "/zones/z-1/invocations/i/complete".to_owned(), 401),
            ("GET", "/nowhere".to_owned(), 401),
            ("GET", "/zones/z%2F1/agents/s".to_owned(), 401),
            ("DELETE", format!("/zones/z-1/agents/{session}"), 204),
        ] {
            let reply = house.call(method, &path, OPERATOR, None).await;
            assert_eq!(reply.status.as_u16(), status, "{method} {path}");
            if status == 401 && method != "HEAD" {
                assert_eq!(reply.code(), "invalid_token", "{path}");
            }
        }
        let start = json!({"application_id": "app-1", "subject_session_id": "rec-1"});
        house.start(OPERATOR, start).await.refused(401, "invalid_token");
        house.post("/zones/z-1/delegations", OPERATOR, json!({})).await.refused(401, "invalid_token");
    }

    #[tokio::test]
    async fn without_a_configured_token_nobody_is_the_operator() {
        for token in [None, Some("")] {
            let house = House::with(|config| {
                config.operator_token = token.map(|token| caracal_crypto::Secret::new(token.to_owned()));
            })
            .await;
            house.get(PATH, OPERATOR).await.refused(401, "invalid_token");
            house.get(PATH, "").await.refused(401, "missing_token");
        }
    }

    #[tokio::test]
    async fn the_operator_ends_sessions_and_delegations_of_any_application() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        house.revoke(OPERATOR, &edge).await.expect(200);
        house.terminate(OPERATOR, &a).await.expect(204);
        house
            .add_session("s-service", |session| {
                session.lifecycle = "service".to_owned();
                session.ttl_seconds = None;
                session.lease_generation = 3;
                session.heartbeat_deadline_at = Some(house.store.now().plus(std::time::Duration::from_secs(60)));
            })
            .await;
        house.terminate(OPERATOR, "s-service").await.expect(204);
    }
}
