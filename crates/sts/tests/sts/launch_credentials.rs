//! The credentials that workloads are started with, and why they are not (contract: sts.md §11 rows 5 to 15).

use caracal_store::workloads::Binding;
use caracal_testkit::Reply;
use serde_json::json;

use crate::support::launches::*;
use crate::support::providers::TokenEndpoint;
use crate::support::*;

mod t02_sts_credential {
    use super::*;

    #[tokio::test]
    async fn a_stored_credential_is_released_with_evidence_and_nothing_else() {
        let world = launchable().await;
        let records = world.record_ids().len();
        let answer = Ask::credential(" DOCS_TOKEN ").send(&world).await;
        assert_eq!((answer.status, &answer.json), (200, &json!({"env": ENV, "credential": "bt-docs"})));
        assert_eq!(answer.header("cache-control"), "no-store");
        let event = world.last_event().await;
        assert_eq!((event.row.event_type.as_str(), event.outcome().as_str()), ("token_exchange", "allow complete"));
        assert_eq!(event.row.determining_policies, r#"[{"policy": "caracal-workload-mint"}]"#);
        assert_eq!(event.row.policy_set_version_id, world.active_version().await.0);
        let mut metadata = event.metadata.clone();
        assert!(metadata["provider_id"].take().as_str().unwrap().starts_with("p-"));
        assert_eq!(
            metadata,
            json!({
                "workload_id": WORKLOAD, "workload_name": "nightly", "env": ENV, "resource": DOCS,
                "requested_scopes": ["docs:read"], "provider_id": null,
            })
        );
        assert!(!event.row.metadata.contains("bt-docs"));
        assert_eq!(world.record_ids().len(), records, "a workload has no authority record");
    }

    #[tokio::test]
    async fn a_key_is_released_wherever_a_gateway_would_have_put_it() {
        let world = launchable().await;
        for place in [json!({"header_name": "X-Key"}), json!({"auth_location": "query", "query_param_name": "key"})] {
            let mut config = place.clone();
            config["allow_runtime_injection"] = json!(true);
            world.provide("api_key", config, Some(json!({"api_key": "sk-docs"}))).await;
            assert_eq!(Ask::credential(ENV).send(&world).await.text("credential"), "sk-docs", "{place}");
        }
        // A resource without an upstream has credentials, too: nobody has to reach it through the Gateway.
        world.change_resource("r-docs", |row| row.upstream_url = None).await;
        assert_eq!(Ask::credential(ENV).send(&world).await.text("credential"), "sk-docs");
    }

    #[tokio::test]
    async fn an_issued_token_is_released_with_its_end() {
        let world = launchable().await;
        let endpoint = TokenEndpoint::new(issuing);
        world.provide("oauth2_client_credentials", issued(&endpoint), client_secret()).await;
        for _ in 0..2 {
            let answer = Ask::credential(ENV).send(&world).await;
            assert_eq!(answer.json, json!({"env": ENV, "credential": "at-docs", "expires_at": START + 600}));
        }
        assert_eq!(endpoint.seen().len(), 1, "asked for once");
    }

    /// Rows 5 to 9 and 14, with what evidence says of each, and the edge cases "unknown env; injection disabled;
    /// http_basic; auth-code".
    #[tokio::test]
    async fn each_row_that_fails_is_told_and_recorded_as_the_contract_has_it() {
        let world = launchable().await;
        let secret = || Some(json!({"bearer_token": "bt-docs", "password": "p"}));
        let on = json!({"allow_runtime_injection": true});
        let check = async |world: &World, env: &str, outcome: &str, status: &str, reason: &str| {
            let answer = Ask::credential(env).send(world).await;
            assert_eq!(answer.outcome(), outcome, "{status} {reason}");
            assert_eq!(answer.json["requestId"], answer.header("x-request-id"));
            let event = world.last_event().await;
            assert_eq!(event.row.event_type, "token_exchange");
            assert_eq!((event.outcome(), event.text("reason")), (format!("deny {status}"), reason));
            assert_eq!((event.text("workload_id"), event.text("env")), (WORKLOAD, env));
        };
        check(&world, "OTHER", "404 resource_not_found", "binding_not_found", "").await; // 5

        world.change_workload(|row| row.bindings = bindings(&[bound(ENV, "resource://none", &[])])).await;
        check(&world, ENV, "404 resource_not_found", "resource_not_found", "").await; // 6
        assert_eq!(world.last_event().await.text("resource"), "resource://none");
        world.change_workload(|row| row.bindings = bindings(&[bound(ENV, DOCS, &["docs:read", "docs:none"])])).await;
        check(&world, ENV, "403 access_denied", "scope_mismatch", "").await;
        world.change_workload(|row| row.bindings = bindings(&[bound(ENV, NOTES, &[])])).await;
        check(&world, ENV, "403 access_denied", "credential_not_provisioned", "no_provider").await; // 7
        world.change_workload(|row| row.bindings = bindings(&[docs()])).await;

        for (kind, config, status, reason) in [
            ("api_key", on.clone(), "provider_unavailable", "provider_config_invalid"),
            ("API_KEY", on.clone(), "provider_unavailable", "provider_config_invalid"),
            ("oauth2_client_credentials", on.clone(), "provider_unavailable", "provider_config_invalid"),
            ("bearer_token", json!({}), "credential_injection_denied", "runtime_injection_not_allowed"), // 8
            (
                "bearer_token",
                json!({"allow_runtime_injection": "true"}),
                "credential_injection_denied",
                "runtime_injection_not_allowed",
            ),
            ("none", on.clone(), "credential_injection_denied", "runtime_injection_not_allowed"),
            ("caracal_mandate", on.clone(), "credential_injection_denied", "runtime_injection_not_allowed"),
            (
                "http_basic",
                json!({"username": "u", "allow_runtime_injection": true}),
                "credential_injection_denied",
                "runtime_injection_not_allowed",
            ),
            ("oauth2_authorization_code", on.clone(), "credential_not_provisioned", "no_user_principal"), // 9
            ("oauth2_authorization_code", json!({}), "credential_injection_denied", "runtime_injection_not_allowed"),
        ] {
            world.provide(kind, config, secret()).await;
            check(&world, ENV, "403 access_denied", status, reason).await;
        }
        let provider = world.provide("bearer_token", on, secret()).await;
        world.tamper(&format!("UPDATE providers SET archived_at = 1 WHERE id = '{provider}'"));
        check(&world, ENV, "403 access_denied", "provider_unavailable", "provider_not_found").await;
    }

    #[tokio::test]
    async fn what_policy_says_is_done() {
        let world = launchable().await;
        // Launches need no grant, and are stopped by what stops everything.
        world.activate("app_ids := {}\ngrants := {}").await;
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        world.activate(&format!("{POLICY}restrict := [\"frozen\"]\n")).await;
        let denied = Ask::credential(ENV).send(&world).await;
        assert_eq!(denied.outcome(), "403 access_denied"); // 14
        assert_eq!(denied.text("error_description"), "policy denied (restriction_active)");
        let event = world.last_event().await;
        assert_eq!(event.outcome(), "deny complete");
        assert_eq!(event.diagnostics[0]["reason"], "restriction_active");
        // A document that is a program is told who asks.
        let condition = "restrict contains \"x\" if input.principal.type == \"Workload\"";
        world.activate(&format!("{POLICY}{condition}\n")).await;
        assert_eq!(Ask::credential(ENV).send(&world).await.outcome(), "403 access_denied");
        assert_eq!(Ask::mint().send(&world).await.status, 200);
        world.activate("app_ids := {").await;
        let failed = Ask::credential(ENV).send(&world).await; // 11
        assert_eq!((failed.outcome().as_str(), failed.header("retry-after")), ("503 policy_eval_failed", "1"));
        let event = world.last_event().await;
        assert_eq!(event.outcome(), "deny policy_eval_failed");
        assert!(event.diagnostics[0]["error"].is_string());
    }

    /// Row 15.
    #[tokio::test]
    async fn a_credential_that_is_not_had_is_a_502_whose_reason_is_in_evidence_alone() {
        let world = launchable().await;
        let refusing = TokenEndpoint::new(|_| Reply::json(401, r#"{"error":"invalid_client"}"#));
        let on = json!({"allow_runtime_injection": true});
        for (kind, config, secret, reason) in [
            ("bearer_token", on, None, "provider_secret_unavailable"),
            ("oauth2_client_credentials", issued(&refusing), client_secret(), "token_endpoint_refused"),
        ] {
            world.provide(kind, config, secret).await;
            let answer = Ask::credential(ENV).send(&world).await;
            assert_eq!(answer.outcome(), "502 http_request_failed");
            assert_eq!(answer.text("error_description"), "the provider credential could not be obtained");
            let event = world.last_event().await;
            assert_eq!(
                (event.outcome(), event.text("reason")),
                ("deny provider_credential_unavailable".into(), reason)
            );
        }
    }

    #[tokio::test]
    async fn a_binding_may_name_its_resource_by_id() {
        let world = launchable().await;
        world.change_workload(|row| row.bindings = bindings(&[bound(ENV, "r-docs", &["docs:read"])])).await;
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        assert_eq!(world.last_event().await.text("resource"), DOCS);
    }

    fn bindings(bindings: &[Binding]) -> caracal_store::workloads::Bindings {
        caracal_store::workloads::Bindings::of(bindings)
    }
}

mod t05_secrets_of_launches {
    use super::*;

    #[tokio::test]
    async fn a_credential_and_a_workloads_secret_are_in_no_log_no_evidence_and_no_file() {
        let world = held().await;
        world
            .provide(
                "bearer_token",
                json!({"allow_runtime_injection": true}),
                Some(json!({"bearer_token": "bt-never-to-be-seen"})),
            )
            .await;
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, true).await);
        assert_eq!(with(&id).send(&world).await.text("credential"), "bt-never-to-be-seen");
        assert_eq!(Ask::manifest().set("secret", "ws_never-to-be-seen").send(&world).await.status, 401);
        let mut seen = logged();
        for event in world.evidence().await {
            seen.push_str(&format!("{:?}", event.row));
        }
        let stored = world.directory.everything_stored();
        assert!(seen.contains(WORKLOAD));
        for secret in ["bt-never-to-be-seen", "ws_never-to-be-seen"] {
            assert!(!seen.contains(secret), "{secret}");
            assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{secret}");
        }
    }
}
