//! How a Gateway is told to reach an upstream (contract: sts.md §10.1, §10.2).

use std::sync::Arc;

use caracal_custody::{BackendError, SecretBackend};
use caracal_store::BoxFuture;
use caracal_store::resources::CallLimits;
use serde_json::{Value, json};

use crate::support::*;

/// The directive for `resource://docs` behind a provider of this kind, without the members that are always the same.
async fn directive(world: &World, kind: &str, config: Value, secret: Option<Value>) -> Value {
    let provider = world.provide(kind, config, secret).await;
    let answer = Signed::exchange(world, &world.mandate().await).send(world).await;
    assert_eq!(answer.status, 200, "{}", answer.outcome());
    let mut directive = answer.json["upstreams"][DOCS].clone();
    let members = directive.as_object_mut().unwrap();
    assert_eq!(members.remove("url"), Some(json!("https://upstream.example/base")));
    assert_eq!(members.remove("provider_id"), Some(json!(provider.as_str())));
    directive
}

mod t02_sts_directives {
    use super::*;

    #[tokio::test]
    async fn every_kind_says_where_its_credential_goes() {
        let world = World::new().await;
        let key = || Some(json!({"api_key": "k-123"}));
        let bearer = || Some(json!({"bearer_token": "b-123"}));
        let rows = [
            ("none", json!({}), None, json!({"auth_mode": "none"})),
            (
                "caracal_mandate",
                json!({}),
                None,
                json!({"auth_mode": "caracal_jwt", "auth_header": "Authorization", "auth_scheme": "Bearer"}),
            ),
            (
                "api_key",
                json!({"auth_location": "header", "header_name": "X-Api-Key"}),
                key(),
                json!({
                    "auth_mode": "provider_apikey",
                    "auth_location": "header",
                    "auth_header": "X-Api-Key",
                    "provider_token": "k-123",
                }),
            ),
            (
                "api_key",
                json!({
                    "header_name": "Authorization",
                    "auth_scheme": "Api-Key1",
                    "allowed_token_hosts": ["Upstream.Example"],
                    "forward_caracal_identity": true,
                }),
                key(),
                json!({
                    "auth_mode": "provider_apikey",
                    "auth_location": "header",
                    "auth_header": "Authorization",
                    "auth_scheme": "Api-Key1",
                    "allowed_token_hosts": ["upstream.example"],
                    "forward_caracal_identity": true,
                    "provider_token": "k-123",
                }),
            ),
            (
                "api_key",
                json!({"auth_location": "query", "query_param_name": "api.key_~-1"}),
                key(),
                json!({
                    "auth_mode": "provider_apikey",
                    "auth_location": "query",
                    "query_param_name": "api.key_~-1",
                    "provider_token": "k-123",
                }),
            ),
            (
                "bearer_token",
                json!({}),
                bearer(),
                json!({
                    "auth_mode": "provider_oauth",
                    "auth_header": "Authorization",
                    "auth_scheme": "Bearer",
                    "provider_token": "b-123",
                }),
            ),
            (
                "bearer_token",
                json!({"auth_header": "X-Token", "auth_scheme": "Token", "allowed_token_hosts": ["a.example", "b.example"]}),
                bearer(),
                json!({
                    "auth_mode": "provider_oauth",
                    "auth_header": "X-Token",
                    "auth_scheme": "Token",
                    "allowed_token_hosts": ["a.example", "b.example"],
                    "provider_token": "b-123",
                }),
            ),
            (
                "http_basic",
                json!({"username": " agent "}),
                Some(json!({"password": "p:w d"})),
                json!({
                    "auth_mode": "provider_oauth",
                    "auth_header": "Authorization",
                    "auth_scheme": "Basic",
                    // agent:p:w d
                    "provider_token": "YWdlbnQ6cDp3IGQ=",
                }),
            ),
        ];
        for (kind, config, secret, expected) in rows {
            assert_eq!(directive(&world, kind, config, secret).await, expected, "{kind}");
        }
    }

    #[tokio::test]
    async fn limits_of_a_resource_reach_the_gateway_with_and_without_a_provider() {
        let world = World::new().await;
        let limits =
            CallLimits { upstream_timeout_ms: Some(120_000), max_request_bytes: Some(1024), ..CallLimits::default() };
        world.change_resource("r-docs", |row| row.limits = limits).await;
        let expected = json!({"upstream_timeout_ms": 120_000, "max_request_bytes": 1024});
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.json["upstreams"][DOCS]["limits"], expected);
        let provided = directive(&world, "none", json!({}), None).await;
        assert_eq!(provided["limits"], expected);
    }

    const CONFIG: &str = "provider_config_invalid";
    const SECRET: &str = "provider_secret_unavailable";

    /// What is configured so is a 502 that says nothing, with its reason in evidence alone, and grants nothing.
    async fn none_is_made(rows: impl IntoIterator<Item = (&'static str, Value, Option<Value>, &'static str)>) {
        let world = World::new().await;
        for (kind, config, secret, reason) in rows {
            let what = format!("{kind:?} {config}");
            world.provide(kind, config, secret).await;
            let mandate = world.mandate().await;
            let records = world.record_ids().len();
            let answer = Signed::exchange(&world, &mandate).send(&world).await;
            assert_eq!(answer.outcome(), "502 http_request_failed", "{what}");
            assert_eq!(answer.text("error_description"), "the provider credential could not be obtained");
            let event = world.last_event().await;
            assert_eq!(event.outcome(), "deny provider_credential_unavailable", "{what}");
            assert_eq!((event.text("reason"), event.text("resource")), (reason, DOCS), "{what}");
            assert_eq!(world.record_ids().len(), records, "{what}");
            // The decision was made, so the mandate is used up.
            assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token", "{what}");
        }
    }

    fn key() -> Option<Value> {
        Some(json!({"api_key": "k-123"}))
    }

    /// A header for the key, and more.
    fn with(more: Value) -> Value {
        let mut config = json!({"header_name": "X-Api-Key"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    #[tokio::test]
    async fn a_kind_in_another_case_with_a_space_or_unset_is_no_kind() {
        none_is_made([
            ("API_KEY", with(json!({})), key(), CONFIG),
            ("api_key ", with(json!({})), key(), CONFIG),
            ("", with(json!({})), key(), CONFIG),
        ])
        .await;
    }

    #[tokio::test]
    async fn an_api_key_has_a_header_name_or_a_parameter_and_no_scheme_in_the_query_and_goes_into_no_cookie() {
        none_is_made([
            ("api_key", json!({"auth_header": "X-Api-Key"}), key(), CONFIG),
            ("api_key", with(json!({"auth_location": "cookie"})), key(), CONFIG),
            ("api_key", json!({"auth_location": "query"}), key(), CONFIG),
            ("api_key", json!({"auth_location": "query", "query_param_name": "a&b"}), key(), CONFIG),
            (
                "api_key",
                json!({"auth_location": "query", "query_param_name": "key", "auth_scheme": "Bearer"}),
                key(),
                CONFIG,
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_directive_that_cannot_be_made_grants_nothing_and_says_nothing() {
        none_is_made([
            ("oauth2_client_credentials", json!({}), None, CONFIG),
            ("api_key", json!({"header_name": "X Api Key"}), key(), CONFIG),
            ("api_key", json!({"header_name": ["X-Api-Key"]}), key(), CONFIG),
            ("api_key", with(json!({"auth_scheme": "1st"})), key(), CONFIG),
            ("api_key", with(json!({"auth_scheme": "Bearer x"})), key(), CONFIG),
            ("api_key", with(json!({"allowed_token_hosts": []})), key(), CONFIG),
            ("api_key", with(json!({"allowed_token_hosts": "a.example"})), key(), CONFIG),
            ("api_key", with(json!({"allowed_token_hosts": ["a.example", "b..example"]})), key(), CONFIG),
            ("api_key", with(json!({"allowed_token_hosts": ["a.example:443"]})), key(), CONFIG),
            ("api_key", with(json!({"forward_caracal_identity": "yes"})), key(), CONFIG),
            ("http_basic", json!({}), Some(json!({"password": "p"})), CONFIG),
            ("http_basic", json!({"username": "a:b"}), Some(json!({"password": "p"})), CONFIG),
            ("api_key", with(json!({})), None, SECRET),
            ("api_key", with(json!({})), Some(json!({"api_key": ""})), SECRET),
            ("api_key", with(json!({})), Some(json!({"bearer_token": "b"})), SECRET),
            ("api_key", with(json!({})), Some(json!(["k-123"])), SECRET),
            ("bearer_token", json!({}), None, SECRET),
            ("http_basic", json!({"username": "a"}), None, SECRET),
        ])
        .await;
    }

    #[tokio::test]
    async fn t05_secrets_a_backend_that_fails_is_no_credential_and_one_that_has_nothing_neither() {
        struct Down(bool);
        type Done<'a, T> = BoxFuture<'a, Result<T, BackendError>>;
        impl Down {
            fn done<'a, T: Send + 'a>(&self, value: T) -> Done<'a, T> {
                let error = BackendError { kind: "vault", doing: "read", reason: "status 503".to_owned() };
                Box::pin(std::future::ready(if self.0 { Err(error) } else { Ok(value) }))
            }
        }
        impl SecretBackend for Down {
            fn read<'a>(&'a self, _: &'a str) -> Done<'a, Option<Vec<u8>>> {
                self.done(None)
            }
            fn write<'a>(&'a self, _: &'a str, _: &'a [u8]) -> Done<'a, ()> {
                self.done(())
            }
            fn remove<'a>(&'a self, _: &'a str) -> Done<'a, ()> {
                self.done(())
            }
        }
        for is_down in [true, false] {
            let mut world = World::new().await;
            // What lies in the store is not fallen back on.
            world.provide("api_key", with(json!({})), key()).await;
            world.secrets = world.secrets.clone().in_backend(Arc::new(Down(is_down)), world.store.clone());
            let world = world.tuned(|broker| broker);
            let records = world.record_ids().len();
            let mandate = world.mandate().await;
            let answer = Signed::exchange(&world, &mandate).send(&world).await;
            assert_eq!(answer.outcome(), "502 http_request_failed", "{is_down}");
            assert_eq!(world.last_event().await.text("reason"), SECRET, "{is_down}");
            assert_eq!(world.record_ids().len(), records + 1, "the mint's own");
        }
    }

    #[tokio::test]
    async fn a_secret_that_does_not_open_is_no_credential() {
        let world = World::new().await;
        let config = json!({"header_name": "X-Api-Key"});
        let one = world.provide("api_key", config.clone(), Some(json!({"api_key": "k-one"}))).await;
        let two = world.provide("api_key", config, Some(json!({"api_key": "k-two"}))).await;
        // Somebody with access to the disk puts one provider's envelope in another's place.
        world.tamper(&format!(
            "UPDATE sealed_secrets SET envelope = (SELECT envelope FROM sealed_secrets
               WHERE reference LIKE '%{one}%') WHERE reference LIKE '%{two}%'"
        ));
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.outcome(), "502 http_request_failed");
        assert_eq!(world.last_event().await.text("reason"), "provider_secret_unavailable");
    }

    #[tokio::test]
    async fn a_provider_that_is_gone_or_not_connected_is_a_refusal() {
        let world = World::new().await;
        let provider = world.provide("none", json!({}), None).await;
        world.tamper(&format!("UPDATE providers SET archived_at = 1 WHERE id = '{provider}'"));
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        let events = world.evidence().await;
        assert_eq!(events[events.len() - 2].outcome(), "deny provider_unavailable");
        world.provide("oauth2_authorization_code", json!({}), None).await;
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        let events = world.evidence().await;
        let event = &events[events.len() - 2];
        assert_eq!(
            (event.outcome().as_str(), event.text("reason")),
            ("deny credential_not_provisioned", "no_provider_connection")
        );
    }

    #[tokio::test]
    async fn a_resource_without_upstream_cannot_be_reached() {
        let world = World::new().await;
        world.change_resource("r-docs", |row| row.upstream_url = None).await;
        let answer = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(answer.outcome(), "502 http_request_failed");
        assert_eq!(world.last_event().await.text("reason"), "no_upstream");
    }

    #[tokio::test]
    async fn only_a_gateway_is_shown_a_directive() {
        let world = World::new().await;
        world.provide("api_key", json!({"header_name": "X-Api-Key"}), Some(json!({"api_key": "k-hidden"}))).await;
        let session = Ask::bootstrap().send(&world).await;
        for answer in [
            Ask::mint().send(&world).await,
            Ask::direct(session.token()).send(&world).await,
            Signed::exchange(&world, session.token()).send(&world).await,
            session,
        ] {
            assert!(!String::from_utf8_lossy(&answer.body).contains("k-hidden"));
            assert!(answer.json.get("upstreams").is_none());
        }
    }
}
