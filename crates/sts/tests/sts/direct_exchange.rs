//! A client presents a mandate itself: looked at in full, never traded (contract: sts.md §3.6, §3.7 steps 5 to 7, 13).

use serde_json::{Value, json};

use crate::support::*;

/// Claims of a session mandate of `app-docs`, and a token of exactly these claims.
async fn session_claims(world: &World) -> Value {
    Ask::bootstrap().send(world).await.claims()
}

fn with(claims: &Value, member: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(member);
    } else {
        claims[member] = value;
    }
    claims
}

mod t02_sts_direct_exchange {
    use super::*;

    #[tokio::test]
    async fn a_session_mandate_is_never_traded_outside_the_gateway() {
        let world = World::new().await;
        let token = Ask::bootstrap().send(&world).await.token().to_owned();
        for ask in [
            Ask::direct(&token),
            Ask::direct(&token).set("scope", "agent:lifecycle"),
            Ask::direct(&token)
                .set("scope", "docs:read")
                .set("agent_session_id", "s-1")
                .set("delegation_edge_id", "e-1"),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied", "{}", ask.encoded());
        }
        let records = world.record_ids();
        assert_eq!(records.len(), 2, "{records:?}");
        // It stays what it is: reusable, and refused each time.
        assert_eq!(Ask::direct(&token).send(&world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn mandates_of_other_classes_are_no_subject_tokens_for_a_client() {
        let world = World::new().await;
        let gateway = world.mandate().await;
        let resource = Signed::exchange(&world, &world.mandate().await).send(&world).await.token().to_owned();
        for token in [&gateway, &resource] {
            assert_eq!(Ask::direct(token).send(&world).await.outcome(), "401 invalid_token");
            assert_eq!(world.last_event().await.outcome(), "deny subject_token_invalid");
        }
        // And looking at it did not use it up.
        assert_eq!(Signed::exchange(&world, &gateway).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_token_that_does_not_verify_is_refused_with_evidence() {
        let world = World::new().await;
        let token = Ask::bootstrap().send(&world).await.token().to_owned();
        let parts: Vec<&str> = token.split('.').collect();
        let encode = |value: Value| caracal_crypto::encoding::base64url(value.to_string().as_bytes());
        let header = |value: Value| format!("{}.{}.{}", encode(value), parts[1], parts[2]);
        let kid = caracal_crypto::encoding::from_base64url(parts[0]).unwrap();
        let kid = serde_json::from_slice::<Value>(&kid).unwrap()["kid"].clone();
        let mut wider = claims_of(&token);
        wider["scope"] = json!("agent:lifecycle docs:write");
        let mut other_zone = claims_of(&token);
        other_zone["zone_id"] = json!(OTHER_ZONE);
        for (what, token) in [
            ("nothing of a token", "token".to_owned()),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("another payload", format!("{}.{}.{}", parts[0], encode(wider), parts[2])),
            ("another zone", format!("{}.{}.{}", parts[0], encode(other_zone), parts[2])),
            ("alg none", header(json!({"alg": "none", "kid": kid, "typ": "JWT"}))),
            ("a symmetric alg", header(json!({"alg": "HS256", "kid": kid, "typ": "JWT"}))),
            ("no kid", header(json!({"alg": "ES256", "typ": "JWT"}))),
            ("an unknown kid", header(json!({"alg": "ES256", "kid": "unknown", "typ": "JWT"}))),
            ("four parts", format!("{token}.x")),
        ] {
            let answer = Ask::direct(&token).send(&world).await;
            assert_eq!(answer.outcome(), "401 invalid_token", "{what}");
            let event = world.last_event().await;
            assert_eq!(
                (event.outcome().as_str(), event.text("refusal")),
                ("deny subject_token_invalid", "SubjectTokenInvalid")
            );
            assert_eq!(event.text("application_name"), "Name of app-docs");
        }
    }

    #[tokio::test]
    async fn signed_claims_have_to_be_meant_for_us_here_and_now() {
        let world = World::new().await;
        let claims = session_claims(&world).await;
        for (what, claims) in [
            ("another issuer", with(&claims, "iss", json!("https://else.example"))),
            ("another audience", with(&claims, "aud", json!(["https://else.example"]))),
            ("no audience", with(&claims, "aud", Value::Null)),
            ("no expiry", with(&claims, "exp", Value::Null)),
            ("expired beyond the leeway", with(&claims, "exp", json!(START - 60))),
            ("issued in the future", with(&claims, "iat", json!(START + 61))),
            ("not yet", with(&claims, "nbf", json!(START + 61))),
            ("an unknown use", with(&claims, "use", json!("everything"))),
            ("no use", with(&claims, "use", Value::Null)),
            ("an expiry that is text", with(&claims, "exp", json!((START + 900).to_string()))),
            ("an expiry with a fraction", with(&claims, "exp", json!(f64::from(i32::MAX) + 0.5))),
            ("a scope that is a list", with(&claims, "scope", json!(["agent:lifecycle"]))),
            ("a kind nobody knows", with(&claims, "sub_type", json!("root"))),
            ("no jti", with(&claims, "jti", Value::Null)),
        ] {
            let token = world.sign(&claims).await;
            assert_eq!(Ask::direct(&token).send(&world).await.outcome(), "401 invalid_token", "{what}");
        }
        // As it was signed first, it is accepted this far.
        for claims in
            [claims.clone(), with(&claims, "aud", json!(["x", ISSUER])), with(&claims, "nbf", json!(START + 60))]
        {
            assert_eq!(Ask::direct(&world.sign(&claims).await).send(&world).await.outcome(), "403 access_denied");
        }
    }

    #[tokio::test]
    async fn a_mandate_counts_only_with_the_record_behind_it() {
        let world = World::new().await;
        let claims = session_claims(&world).await;
        world.add_record("rec-notes", |row| row.client_id = "app-notes".parse().unwrap()).await;
        world.add_record("rec-else", |row| row.subject_id = "someone".to_owned()).await;
        for (what, claims, expected) in [
            ("no sid", with(&claims, "sid", Value::Null), "403 invalid_token"),
            ("an unknown sid", with(&claims, "sid", json!("rec-unknown")), "403 access_denied"),
            ("the record of another client", with(&claims, "sid", json!("rec-notes")), "403 access_denied"),
            ("the record of another subject", with(&claims, "sid", json!("rec-else")), "403 access_denied"),
            ("another client", with(&claims, "client_id", json!("app-notes")), "403 access_denied"),
        ] {
            let token = world.sign(&claims).await;
            assert_eq!(Ask::direct(&token).send(&world).await.outcome(), expected, "{what}");
            let status = world.last_event().await.outcome();
            assert!(
                ["deny reference_invalid", "deny subject_token_invalid"].contains(&status.as_str()),
                "{what}: {status}"
            );
        }
        let token = world.sign(&claims).await;
        world.revoke_record(claims["sid"].as_str().unwrap()).await;
        assert_eq!(Ask::direct(&token).send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("refusal"), "RecordNotLive");
    }

    #[tokio::test]
    async fn the_first_failing_step_is_the_answer() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        // Step 1 before 5: a Gateway's application that is not there, with a token that is none.
        let exchange = Signed::exchange(&world, "no token").set("application_id", "app-unknown");
        assert_eq!(exchange.send(&world).await.outcome(), "401 access_denied");
        // 1 before 3: an application that has lapsed, and no resource.
        world.add_application("app-lapsed", |row| row.expires_at = Some(after(0))).await;
        let exchange = Signed::exchange(&world, &mandate).set("application_id", "app-lapsed").without("resource");
        assert_eq!(exchange.send(&world).await.outcome(), "401 access_denied");
        let mandate = world.mandate().await;
        // 3 before 5: no resource, and a token that is none.
        assert_eq!(Ask::direct("no token").without("resource").send(&world).await.outcome(), "400 invalid_token");
        assert_eq!(world.last_event().await.outcome(), "deny request_invalid");
        // 5 before 7: a token that is none, and a reference that is none.
        let ask = Ask::direct("no token").set("agent_session_id", "no id");
        assert_eq!(ask.send(&world).await.outcome(), "401 invalid_token");
        // 6 before 9 and 10: a contradiction, and a resource nobody knows.
        let exchange =
            Signed::exchange(&world, &mandate).set("session_id", "rec-app").set("resource", "resource://none");
        assert_eq!(exchange.send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("refusal"), "RecordDiffersFromToken");
        // 12 before 14: nothing granted, and a life beyond all bounds.
        let ask = Ask::bootstrap().set("resource", "resource://none").set("ttl_seconds", "9999");
        assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
    }
}
