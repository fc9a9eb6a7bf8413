//! What a mandate is worth to those who can't verify it themselves (contract: coordinator.md §8).

use axum::http::StatusCode;
use caracal_authority::ZoneId;
use serde_json::{Value, json};

use crate::support::{House, Reply, request};

const PATH: &str = "/v1/verify";

async fn verify(house: &House, body: Value) -> Reply {
    house.send(request("POST", PATH, "", Some(body), &[])).await
}

/// Verifies claims of `app-1`'s session mandate after `change`, signed, with further members of the request.
async fn judged(house: &House, change: impl FnOnce(&mut Value), further: Value) -> StatusCode {
    let mut claims = house.claims("app-1");
    change(&mut claims);
    let mut body = json!({"zone_id": "z-1", "token": house.sign(&claims).await});
    body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    let reply = verify(house, body).await;
    if reply.status != StatusCode::OK {
        reply.refused(401, "token_invalid");
        assert_eq!(reply.body["valid"], false);
    }
    reply.status
}

#[tokio::test]
async fn a_good_mandate_is_told_with_its_claims() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let expected = json!({"valid": true, "claims": {
        "sub": "app-1", "zoneId": "z-1", "clientId": "app-1", "authorityRecordId": "rec-1",
        "rootAuthorityRecordId": "rec-1", "use": "session", "subType": "application", "jti": "jti-1",
        "issuedAt": house.now(), "expiresAt": house.now() + 900, "scope": "agent:lifecycle",
    }});
    for body in [
        json!({"zone_id": "z-1", "token": token}),
        json!({"zone_id": "z-1", "authorization": format!("Bearer {token}")}),
        json!({"zone_id": "z-1", "authorization": token}),
        json!({"zone_id": "z-1", "token": token, "required_scope": "agent:lifecycle", "require_session": false}),
    ] {
        assert_eq!(verify(&house, body).await.expect(200).body, expected);
    }
    assert!(house.changes("z-1").await.is_empty(), "it leaves no record");
}

#[tokio::test]
async fn a_request_that_is_none_says_so_and_every_refusal_says_valid_false() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
        (json!({"zone_id": "z-1", "token": token, "extra": 1}), 400, "invalid_request"),
        (json!({"zone_id": "z-1"}), 400, "missing_token"),
        (json!({"zone_id": "z-1", "authorization": "Bearer "}), 400, "missing_token"),
        (json!({"zone_id": "z-2", "token": token}), 401, "token_invalid"),
        (json!({"zone_id": "../z", "token": token}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": "x"}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": "x".repeat(5_000)}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": token, "required_scope": "other"}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": token, "require_session": true}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": token, "require_delegation": true}), 401, "token_invalid"),
        (json!({"zone_id": "z-1", "token": token, "audience": "https://other.test"}), 401, "token_invalid"),
    ] {
        let reply = verify(&house, body.clone()).await;
        reply.refused(status, code);
        assert_eq!(reply.body["valid"], false, "{body}");
    }
}

mod t16_verify {
    use super::*;

    #[tokio::test]
    async fn every_claim_has_to_be_what_a_mandate_says() {
        let house = House::open().await;
        let later = house.now() + 61;
        for (name, value) in [
            ("iss", json!("https://other.test")),
            ("aud", json!(["https://other.test"])),
            ("exp", json!(house.now() - 60)),
            ("exp", json!("soon")),
            ("iat", json!(later)),
            ("nbf", json!(later)),
            ("use", json!("gateway")),
            ("use", json!("other")),
            ("sub_type", json!("robot")),
            ("sub", json!("")),
            ("jti", Value::Null),
            ("sid", Value::Null),
            ("root_sid", Value::Null),
            ("client_id", Value::Null),
            ("hop_count", json!(11)),
            ("hop_count", json!(-1)),
            ("hop_count", json!(1.5)),
            ("agent_session_id", json!(7)),
            ("target", json!([""])),
            ("delegation_chain", json!([{"agent_session_id": "s"}])),
        ] {
            let change = |claims: &mut Value| claims[name] = value.clone();
            assert_eq!(judged(&house, change, json!({})).await, StatusCode::UNAUTHORIZED, "{name}: {value}");
        }
        let within_leeway = |claims: &mut Value| claims["exp"] = json!(house.now() - 59);
        assert_eq!(judged(&house, within_leeway, json!({})).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_resource_mandate_is_verified_for_its_resource_and_for_nobody_else() {
        let house = House::open().await;
        let resource = |claims: &mut Value| {
            (claims["use"], claims["aud"]) = (json!("resource"), json!(["resource://docs"]));
        };
        assert_eq!(judged(&house, resource, json!({"audience": "resource://docs"})).await, StatusCode::OK);
        for further in [json!({}), json!({"audience": "resource://mail"})] {
            assert_eq!(judged(&house, resource, further).await, StatusCode::UNAUTHORIZED);
        }
    }

    #[tokio::test]
    async fn a_mandate_signed_with_the_key_of_another_zone_is_worth_nothing_in_either() {
        let house = House::open().await;
        let other = ZoneId::parse("z-2").unwrap();
        house.add_application_in(&other, "app-9", "managed").await;
        house.add_record_in(&other, "rec-9", "application", "app-9", "app-9", None).await;
        let mut claims = house.claims("app-9");
        claims["zone_id"] = json!("z-2");
        let token = house.sign(&claims).await;
        verify(&house, json!({"zone_id": "z-1", "token": token})).await.refused(401, "token_invalid");
        verify(&house, json!({"zone_id": "z-2", "token": token})).await.expect(200);
    }
}

mod t16_verify_revoked {
    use super::*;

    #[tokio::test]
    async fn a_mandate_is_worth_nothing_once_its_record_or_the_root_of_it_is_revoked() {
        let house = House::open().await;
        house.add_record("rec-root", "application", "app-1", "app-1").await;
        let rooted = |claims: &mut Value| claims["root_sid"] = json!("rec-root");
        assert_eq!(judged(&house, rooted, json!({})).await, StatusCode::OK);
        house.revoke_record("rec-root").await;
        assert_eq!(judged(&house, rooted, json!({})).await, StatusCode::UNAUTHORIZED);
        assert_eq!(judged(&house, |_| (), json!({})).await, StatusCode::OK);
        house.revoke_record("rec-1").await;
        assert_eq!(judged(&house, |_| (), json!({})).await, StatusCode::UNAUTHORIZED);
        let unknown = |claims: &mut Value| claims["sid"] = json!("rec-unknown");
        assert_eq!(judged(&house, unknown, json!({})).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_mandate_is_worth_nothing_once_its_session_or_a_delegation_of_its_path_has_ended() {
        let house = House::open().await;
        let operator = crate::support::OPERATOR;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let first = house.edge(&a, &b, |body| body["constraints"] = json!({"max_hops": 3})).await;
        let second = house.edge(&b, &c, |_| ()).await;
        let through = |claims: &mut Value| {
            claims["agent_session_id"] = json!(a);
            claims["delegation_edge_id"] = json!(second);
            claims["delegation_path"] = json!([first, second]);
            claims["hop_count"] = json!(2);
        };
        let wanted = json!({"require_session": true, "require_delegation": true});
        assert_eq!(judged(&house, through, wanted.clone()).await, StatusCode::OK);
        house.revoke(operator, &first).await.expect(200);
        assert_eq!(judged(&house, through, wanted).await, StatusCode::UNAUTHORIZED);
        let alone = |claims: &mut Value| claims["agent_session_id"] = json!(a);
        assert_eq!(judged(&house, alone, json!({})).await, StatusCode::OK);
        house.terminate(operator, &a).await.expect(204);
        assert_eq!(judged(&house, alone, json!({})).await, StatusCode::UNAUTHORIZED);
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn an_outage_is_no_verdict() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        house.store.close().await;
        let reply = verify(&house, json!({"zone_id": "z-1", "token": token})).await;
        assert_eq!((reply.status.as_u16(), &reply.body["valid"]), (503, &json!(false)));
        assert!(reply.headers.contains_key("retry-after"));
    }

    #[tokio::test]
    async fn verifications_have_a_budget_of_their_own_per_address() {
        let house = House::with(|config| config.verify_rate_limit_per_minute = 1).await;
        verify(&house, json!({})).await.refused(400, "invalid_request");
        let limited = verify(&house, json!({})).await;
        limited.refused(429, "rate_limited");
        assert_eq!(limited.body["valid"], false);
        assert_eq!(limited.headers["retry-after"], "60");
        house.get("/nowhere", "").await.refused(401, "missing_token");
    }
}
