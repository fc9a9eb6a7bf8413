//! Upstreams whose credential a token endpoint issues to the client itself (contract: sts.md §10.3).

use caracal_testkit::{Received, Reply};
use serde_json::{Value, json};

use crate::support::providers::TokenEndpoint;
use crate::support::*;

const KIND: &str = "oauth2_client_credentials";

fn config(endpoint: &TokenEndpoint, more: Value) -> Value {
    let mut config =
        json!({"token_endpoint": endpoint.url(), "client_id": "client-1", "allowed_token_hosts": ["localhost"]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn secret() -> Option<Value> {
    Some(json!({"client_secret": "cs-upstream"}))
}

fn issuing(_: &Received) -> Reply {
    Reply::json(200, r#"{"access_token":"at-upstream","token_type":"Bearer","expires_in":600}"#)
}

mod t02_sts_service_tokens {
    use super::*;

    #[tokio::test]
    async fn an_issued_token_is_in_the_directive_and_asked_for_once() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(issuing);
        let provider = world.provide(KIND, config(&endpoint, json!({"scopes": ["a"]})), secret()).await;
        for _ in 0..3 {
            let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
            assert_eq!(answer.status, 200, "{}", answer.outcome());
            // Where tokens are asked for says nothing of where they go: no `allowed_token_hosts`.
            let expected = json!({
                "url": "https://upstream.example/base",
                "auth_mode": "provider_oauth",
                "auth_header": "Authorization",
                "auth_scheme": "Bearer",
                "provider_token": "at-upstream",
                "provider_id": provider.as_str(),
            });
            assert_eq!(answer.json["upstreams"][DOCS], expected);
        }
        let seen = endpoint.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].text(), "grant_type=client_credentials&scope=a");
        assert_eq!(seen[0].header("authorization"), Some("Basic Y2xpZW50LTE6Y3MtdXBzdHJlYW0="));
    }

    #[tokio::test]
    async fn a_token_of_another_type_goes_with_a_configured_scheme_only() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(|_| Reply::json(200, r#"{"access_token":"at-mac","token_type":"mac"}"#));
        world.provide(KIND, config(&endpoint, json!({})), secret()).await;
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.outcome(), "502 http_request_failed");
        assert_eq!(world.last_event().await.text("reason"), "token_answer_invalid");
        let more = json!({"auth_scheme": "MAC", "auth_header": "X-Token", "forward_caracal_identity": true});
        world.provide(KIND, config(&endpoint, more), secret()).await;
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        let directive = &answer.json["upstreams"][DOCS];
        assert_eq!((&directive["auth_header"], &directive["auth_scheme"]), (&json!("X-Token"), &json!("MAC")));
        assert_eq!(directive["forward_caracal_identity"], true);
    }

    #[tokio::test]
    async fn nobody_is_asked_for_what_is_not_granted() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(issuing);
        world.provide(KIND, config(&endpoint, json!({})), secret()).await;
        let mandate = world.mandate().await;
        world.activate("app_ids := {}\ngrants := {}").await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        assert!(Ask::bootstrap().send(&world).await.status != 502);
        assert!(endpoint.seen().is_empty());
    }

    #[tokio::test]
    async fn a_token_that_is_not_had_grants_nothing_and_says_why_in_evidence_alone() {
        let world = World::new().await;
        let refusing = TokenEndpoint::new(|_| Reply::json(401, r#"{"error":"invalid_client"}"#));
        let elsewhere = TokenEndpoint::new(issuing);
        for (endpoint, more, secret, reason) in [
            (&refusing, json!({}), secret(), "token_endpoint_refused"),
            (&refusing, json!({}), None, "provider_secret_unavailable"),
            (&refusing, json!({"client_id": 1}), secret(), "provider_config_invalid"),
            (&refusing, json!({"auth_scheme": "no scheme"}), secret(), "provider_config_invalid"),
            (&elsewhere, json!({"allowed_token_hosts": ["example"]}), secret(), "token_endpoint_not_allowed"),
            (
                &elsewhere,
                json!({"token_endpoint": "https://169.254.169.254/", "allowed_token_hosts": ["169.254.169.254"]}),
                secret(),
                "token_endpoint_not_allowed",
            ),
        ] {
            world.provide(KIND, config(endpoint, more.clone()), secret).await;
            let mandate = world.mandate().await;
            let records = world.record_ids().len();
            let answer = Signed::exchange(&world, &mandate).send(&world).await;
            assert_eq!(answer.outcome(), "502 http_request_failed", "{more}");
            assert_eq!(answer.text("error_description"), "the provider credential could not be obtained");
            let event = world.last_event().await;
            assert_eq!(event.outcome(), "deny provider_credential_unavailable", "{more}");
            assert_eq!((event.text("reason"), event.text("resource")), (reason, DOCS), "{more}");
            assert_eq!(world.record_ids().len(), records);
        }
        assert!(elsewhere.seen().is_empty());
        assert_eq!(refusing.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_revocation_that_comes_while_a_token_is_asked_for_is_heeded() {
        let world = World::in_real_time().await;
        let (asked, hears) = std::sync::mpsc::channel();
        let (answers, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Mutex::new(waits);
        let endpoint = TokenEndpoint::new(move |request| {
            let _ = asked.send(());
            let _ = waits.lock().unwrap().recv();
            issuing(request)
        });
        world.provide(KIND, config(&endpoint, json!({})), secret()).await;
        let (sts, mandate) = (world.sts.clone(), world.mandate().await);
        let call = tokio::spawn(async move { sts.exchange_for_gateway(gateway_call(&mandate)).await.map(|_| ()) });
        tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
        // Nothing that the exchange holds is in the way of a change.
        world.revoke_edge("e-1").await;
        answers.send(()).unwrap();
        assert_eq!(call.await.unwrap().unwrap_err().code(), "access_denied");
        assert_eq!(endpoint.seen().len(), 1);
    }

    #[tokio::test]
    async fn what_is_counted_of_providers_is_shown() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(|_| Reply::json(500, "{}"));
        world.provide(KIND, config(&endpoint, json!({})), secret()).await;
        for _ in 0..6 {
            Signed::exchange(&world, &world.mandate().await).send(&world).await;
        }
        assert_eq!(world.last_event().await.text("reason"), "provider_circuit_open");
        assert_eq!(endpoint.seen().len(), 10);
        let request = http::Request::get("/metrics").header("authorization", format!("Bearer {METRICS_BEARER}"));
        let answer = world.send(request.body(axum::body::Body::empty()).unwrap()).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains("caracal_sts_provider_circuit_open_total 1\n"), "{text}");
    }
}
