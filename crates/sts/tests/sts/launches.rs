//! What workloads are started with (contract: sts.md §11, and the edge cases that begin with "run").

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_store::BoxFuture;
use caracal_store::workloads::{Binding, OnFailure};
use caracal_sts::{LaunchKey, LaunchRate, ProcessLaunchRate, StsConfig};
use caracal_testkit::{Received, Reply};
use serde_json::{Value, json};

use crate::support::providers::TokenEndpoint;
use crate::support::*;

const ENV: &str = "DOCS_TOKEN";
const LAUNCH: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

fn bound(env: &str, resource: &str, scopes: &[&str]) -> Binding {
    Binding {
        env: env.to_owned(),
        resource: resource.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        optional: false,
        on_failure: None,
    }
}

fn docs() -> Binding {
    bound(ENV, DOCS, &["docs:read"])
}

/// A bearer token that may be injected stands before the docs, and `w-1` is bound to it.
async fn launchable() -> World {
    let world = World::new().await;
    ready(&world).await;
    world
}

async fn ready(world: &World) {
    let injectable = json!({"allow_runtime_injection": true});
    world.provide("bearer_token", injectable, Some(json!({"bearer_token": "bt-docs"}))).await;
    world.add_workload(&[docs()]).await;
}

/// The same where reading the docs is held for an operator.
async fn held() -> World {
    let world = World::held().await;
    ready(&world).await;
    world
}

/// The id of the hold that asking for the credential raises.
async fn hold(world: &World) -> String {
    let answer = Ask::credential(ENV).send(world).await;
    assert_eq!(answer.outcome(), "401 interaction_required");
    answer.text("approval_id").to_owned()
}

fn with(approval: &str) -> Ask {
    Ask::credential(ENV).set("approval_id", approval)
}

/// Types and outcomes of all evidence so far.
async fn types(world: &World) -> Vec<String> {
    world.evidence().await.iter().map(|event| format!("{} {}", event.row.event_type, event.outcome())).collect()
}

mod t02_sts_manifest {
    use super::*;

    #[tokio::test]
    async fn a_workload_is_told_what_is_bound_to_it_and_that_is_on_record() {
        let world = World::new().await;
        let optional =
            Binding { optional: true, on_failure: Some(OnFailure::Warn), ..bound("MAPS", "resource://maps", &[]) };
        world.add_workload(&[docs(), optional]).await;
        let answer = Ask::manifest().set("workload_id", " w-1 ").send(&world).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json,
            json!({"zone_id": ZONE, "workload_id": WORKLOAD, "bindings": [
                {"env": "DOCS_TOKEN", "resource": DOCS, "scopes": ["docs:read"]},
                {"env": "MAPS", "resource": "resource://maps", "optional": true, "on_failure": "warn"},
            ]})
        );
        assert_eq!(answer.header("cache-control"), "no-store");
        let event = world.last_event().await;
        assert_eq!((event.row.event_type.as_str(), event.outcome().as_str()), ("run_launch", "allow complete"));
        assert_eq!((event.text("workload_id"), event.text("workload_name")), (WORKLOAD, "nightly"));
        assert_eq!(event.metadata["binding_count"], 2);
        assert_eq!(event.row.request_id, answer.header("x-request-id"));
        assert!(event.metadata.get("launch_id").is_none());
    }

    #[tokio::test]
    async fn a_workload_without_bindings_is_told_so() {
        let world = World::new().await;
        world.add_workload(&[]).await;
        assert_eq!(Ask::manifest().send(&world).await.outcome(), "404 resource_not_found");
        assert_eq!(types(&world).await, ["run_launch deny binding_not_found"]);
    }

    #[tokio::test]
    async fn damaged_bindings_are_our_fault_and_told_to_the_workload_alone() {
        let world = launchable().await;
        world.tamper("UPDATE workloads SET bindings = '{}'");
        assert_eq!(Ask::manifest().set("secret", "x").send(&world).await.outcome(), "401 access_denied");
        assert_eq!(Ask::manifest().send(&world).await.outcome(), "500 internal_error");
        assert_eq!(Ask::credential(ENV).send(&world).await.outcome(), "500 internal_error");
        for damage in [r#"[{"env": "DOCS_TOKEN", "resource": "r", "value": "x"}]"#, r#"[{"env": "DOCS_TOKEN"}]"#] {
            world.tamper(&format!("UPDATE workloads SET bindings = '{damage}'"));
            assert_eq!(Ask::manifest().send(&world).await.outcome(), "500 internal_error", "{damage}");
        }
    }

    /// Edge case: `X-Caracal-Launch-Id: nope`.
    #[tokio::test]
    async fn only_a_uuid_is_recorded_as_the_id_of_a_launch() {
        let world = launchable().await;
        for (sent, recorded) in [("nope", None), (LAUNCH, Some(LAUNCH)), (&LAUNCH.to_uppercase(), Some(LAUNCH))] {
            for ask in [Ask::manifest(), Ask::credential(ENV)] {
                let mut request = ask.request();
                request.headers_mut().insert("x-caracal-launch-id", sent.parse().unwrap());
                assert_eq!(world.send(request).await.status, 200, "{sent}");
                assert_eq!(world.last_event().await.metadata["launch_id"].as_str(), recorded, "{sent}");
            }
        }
    }
}

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
        assert_eq!((event.text("workload_id"), event.text("env"), event.text("resource")), (WORKLOAD, ENV, DOCS));
        assert_eq!(event.metadata["requested_scopes"], json!(["docs:read"]));
        assert!(event.text("provider_id").starts_with("p-"));
        assert!(event.metadata.get("application_id").is_none());
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

fn issuing(_: &Received) -> Reply {
    Reply::json(200, r#"{"access_token":"at-docs","token_type":"Bearer","expires_in":600}"#)
}

fn issued(endpoint: &TokenEndpoint) -> Value {
    json!({
        "token_endpoint": endpoint.url(), "client_id": "c", "allowed_token_hosts": ["localhost"],
        "allow_runtime_injection": true,
    })
}

fn client_secret() -> Option<Value> {
    Some(json!({"client_secret": "cs-upstream"}))
}

mod t02_sts_launch_forms {
    use super::*;

    #[tokio::test]
    async fn the_form_rules_of_the_token_route_hold_here() {
        let world = launchable().await;
        let post = |path: &str, content: &str, body: String| {
            let request = http::Request::post(path).header("content-type", content);
            request.body(axum::body::Body::from(body)).unwrap()
        };
        let form = "application/x-www-form-urlencoded";
        for path in ["/v1/run/manifest", "/v1/run/credential"] {
            let good = format!("workload_id=w-1&secret={SECRET}&env={ENV}");
            for (request, outcome) in [
                (post(&format!("{path}?x=1"), form, good.clone()), "400 invalid_token"),
                (post(path, "application/json", "{}".to_owned()), "415 invalid_token"),
                (post(path, form, "a".repeat(65_537)), "413 payload_too_large"),
                (post(path, form, "a=%zz".to_owned()), "400 invalid_token"),
                (post(path, form, format!("{good}&secret=x")), "400 invalid_token"),
                (post(path, form, format!("{good}&foo=1&foo=2")), "400 invalid_token"),
                (post(path, form, format!("{good}&foo=1")), "200 "),
            ] {
                assert_eq!(world.send(request).await.outcome(), outcome, "{path}");
            }
        }
    }

    /// Row 1: before anything is counted or derived.
    #[tokio::test]
    async fn a_missing_field_is_named() {
        let world = World::counting_derivations().await;
        for (ask, name) in [
            (Ask::manifest(), "workload_id"),
            (Ask::manifest(), "secret"),
            (Ask::credential(ENV), "workload_id"),
            (Ask::credential(ENV), "secret"),
            (Ask::credential(ENV), "env"),
        ] {
            for ask in [ask.clone().without(name), ask.set(name, "")] {
                let answer = ask.send(&world).await;
                assert_eq!(answer.outcome(), "400 invalid_token");
                assert_eq!(answer.text("error_description"), format!("`{name}` is required"));
            }
        }
        assert_eq!(world.verifier.derivations(), 0);
    }
}

mod t02_sts_launch_authentication {
    use super::*;

    #[tokio::test]
    async fn an_unknown_workload_and_a_wrong_secret_are_told_apart_by_nobody() {
        let world = World::counting_derivations().await;
        world.add_workload(&[docs()]).await;
        let mut answers = Vec::new();
        for (number, ask) in [
            Ask::manifest().set("secret", "ws_wrong"),
            Ask::manifest().set("workload_id", "w-2"),
            Ask::manifest().set("workload_id", "not an id"),
            Ask::credential(ENV).set("secret", "ws_wrong"),
            Ask::credential("OTHER").set("secret", "ws_wrong"),
            Ask::credential(ENV).set("workload_id", "w-2"),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = ask.send(&world).await;
            assert_eq!(answer.outcome(), "401 access_denied");
            // Unknown ones cost one derivation, too, inside the budget (difference D17).
            assert_eq!(world.verifier.derivations(), number as u64 + 1);
            answers.push(answer.text("error_description").to_owned());
        }
        answers.dedup();
        assert_eq!(answers, ["invalid workload credentials"]);
        assert_eq!(world.counted("workload_unauthenticated").await, 6);
    }

    #[tokio::test]
    async fn a_wrong_secret_is_on_record_once_a_minute_and_counted_each_time() {
        let world = launchable().await;
        for _ in 0..3 {
            assert_eq!(Ask::manifest().set("secret", "x").send(&world).await.status, 401);
        }
        let failures = async || {
            // The answer does not wait for it.
            let found = async {
                loop {
                    let all = types(&world).await;
                    if !all.is_empty() {
                        return all;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), found).await.unwrap()
        };
        assert_eq!(failures().await, ["run_launch deny workload_auth_failed"]);
        let event = world.last_event().await;
        assert_eq!((event.text("workload_id"), event.text("workload_name")), (WORKLOAD, "nightly"));
        assert_eq!(world.counted("workload_unauthenticated").await, 3);
    }

    #[tokio::test]
    async fn a_rotated_secret_and_an_archived_zone_launch_nothing() {
        let world = launchable().await;
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        world.tamper("UPDATE zones SET archived_at = 1 WHERE id = 'z-1'");
        assert_eq!(Ask::manifest().send(&world).await.outcome(), "401 access_denied");
        assert_eq!(Ask::credential(ENV).send(&world).await.outcome(), "401 access_denied");
        assert_eq!(types(&world).await[1..], ["run_launch deny workload_auth_failed"; 2]);
        world.tamper("UPDATE zones SET archived_at = NULL WHERE id = 'z-1'");
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        world.change_workload(|row| row.secret_hash = "argon2id$AAAA$AAAA".to_owned()).await;
        assert_eq!(Ask::manifest().send(&world).await.outcome(), "401 access_denied");
        assert_eq!(Ask::credential(ENV).send(&world).await.outcome(), "401 access_denied");
    }

    #[tokio::test]
    async fn an_application_is_no_workload_and_a_workload_no_application() {
        let world = launchable().await;
        assert_eq!(Ask::manifest().set("workload_id", APP).send(&world).await.status, 401);
        assert_eq!(Ask::bootstrap().set("application_id", WORKLOAD).send(&world).await.status, 401);
    }
}

mod t14_automation_of_launches {
    use super::*;

    /// Edge case "gated": 401 with the hold; and what a human is shown of it.
    #[tokio::test]
    async fn a_gated_credential_waits_for_a_human_and_is_released_once() {
        let world = held().await;
        let answer = Ask::credential(ENV).send(&world).await;
        assert_eq!(answer.outcome(), "401 interaction_required");
        assert_eq!(answer.header("www-authenticate"), r#"Bearer error="interaction_required""#);
        assert_eq!((answer.text("approval_type"), answer.text("state")), ("human_approval", "pending"));
        assert_eq!((answer.text("tier"), answer.text("requestId")), ("reading", answer.header("x-request-id")));
        let id = answer.text("approval_id").to_owned();
        let row = world.approval(&id).await.unwrap();
        assert_eq!((row.principal_id.as_str(), row.principal_kind.as_str()), (WORKLOAD, "workload"));
        assert_eq!((row.application_id, row.record_id, row.subject_anchor), (None, None, None));
        assert_eq!(row.binding, answer.text("binding"));
        let shown = |name: &str| row.metadata[name].clone();
        assert_eq!((shown("workload_id"), shown("workload_name")), (json!(WORKLOAD), json!("nightly")));
        assert_eq!((shown("env"), shown("resources")), (json!(ENV), json!([DOCS])));
        assert_eq!(shown("requested_scopes"), json!(["docs:read"]));

        assert_eq!(hold(&world).await, id, "one hold while it waits");
        assert_eq!(with(&id).send(&world).await.outcome(), "401 interaction_required");
        assert!(world.operator_decides(&id, true).await);
        assert_eq!(world.state_of(&id).await, "approved");
        assert_eq!(with(&id).send(&world).await.text("credential"), "bt-docs");
        assert_eq!(world.state_of(&id).await, "consumed");
        // No window in which it is told again: the next one waits anew.
        assert_eq!(with(&id).send(&world).await.outcome(), "409 approval_consumed");
        assert_ne!(hold(&world).await, id);
        assert_eq!(
            types(&world).await,
            [
                "token_exchange deny approval_required",
                "step_up_issued pending complete",
                "token_exchange deny approval_required",
                "token_exchange deny approval_required",
                "token_exchange allow complete",
                "step_up_consumed consumed complete",
                "token_exchange deny approval_already_consumed",
                "token_exchange deny approval_required",
                "step_up_issued pending complete",
            ]
        );
        let events = world.evidence().await;
        for event in &events {
            assert_eq!((event.text("workload_id"), event.text("env")), (WORKLOAD, ENV), "{}", event.row.event_type);
        }
        assert_eq!((events[1].text("challenge_id"), events[5].text("challenge_id")), (id.as_str(), id.as_str()));
    }

    #[tokio::test]
    async fn an_approval_is_spent_by_who_does_not_name_it() {
        let world = held().await;
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, true).await);
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        assert_eq!(world.state_of(&id).await, "consumed");
    }

    #[tokio::test]
    async fn a_rejected_an_expired_and_a_foreign_approval_release_nothing() {
        let world = held().await;
        let of_an_application = world.hold().await;
        for id in ["nope", LAUNCH, of_an_application["approval_id"].as_str().unwrap()] {
            assert_eq!(with(id).send(&world).await.outcome(), "401 access_denied", "{id}");
            assert_eq!(world.last_event().await.outcome(), "deny approval_invalid", "{id}");
        }
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, false).await);
        for ask in [with(&id), Ask::credential(ENV)] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
            let event = world.last_event().await;
            assert_eq!((event.outcome().as_str(), event.text("challenge_id")), ("deny approval_rejected", id.as_str()));
        }
        world.expire(&id).await;
        let next = hold(&world).await;
        assert!(world.operator_decides(&next, true).await);
        world.expire(&next).await;
        assert_eq!(with(&next).send(&world).await.outcome(), "401 access_denied");
        assert_eq!(world.last_event().await.outcome(), "deny approval_expired");
        // A workload's approval is nobody else's.
        let other = hold(&world).await;
        assert!(world.operator_decides(&other, true).await);
        assert_eq!(Ask::mint().set("approval_id", &other).send(&world).await.outcome(), "401 access_denied");
        assert_eq!(world.state_of(&other).await, "approved");
    }

    #[tokio::test]
    async fn an_approval_is_void_once_what_it_was_given_for_is_another() {
        let world = held().await;
        let approved = async || {
            let id = hold(&world).await;
            assert!(world.operator_decides(&id, true).await);
            id
        };
        let id = approved().await;
        world.activate(&held_for("operator")).await;
        assert_eq!(with(&id).send(&world).await.outcome(), "401 access_denied", "another policy");
        let id = approved().await;
        world.change_resource("r-docs", |row| row.upstream_url = Some("https://elsewhere.example".to_owned())).await;
        assert_eq!(with(&id).send(&world).await.outcome(), "401 access_denied", "another place");
        let id = approved().await;
        let injectable = json!({"allow_runtime_injection": true});
        world.provide("bearer_token", injectable, Some(json!({"bearer_token": "bt-other"}))).await;
        assert_eq!(with(&id).send(&world).await.outcome(), "401 access_denied", "another provider");
        assert_eq!(world.last_event().await.outcome(), "deny approval_invalid");
    }

    /// A hold of a workload names no application, so no user of one may decide it (§7.7 check 9).
    #[tokio::test]
    async fn no_user_decides_for_a_workload() {
        let world = World::held_by("any").await;
        ready(&world).await;
        let answer = Ask::credential(ENV).send(&world).await;
        let person = world.sign_in("user-1", "rec-user").await;
        let body = json!({"decision": "approved", "binding": answer.text("binding")});
        let said = world.say(&person.mandate, answer.text("approval_id"), &body).await;
        assert_eq!(said.outcome(), "403 access_denied");
        assert_eq!(world.state_of(answer.text("approval_id")).await, "pending");
    }

    /// Row 13.
    #[tokio::test]
    async fn tiers_that_contradict_each_other_are_refused_and_said_so() {
        let world = launchable().await;
        let risk = r#"risk := [{"scope": "docs:read", "tier": "a"}, {"scope": "docs:write", "tier": "b"}]"#;
        let tiers =
            r#"approval_tiers := [{"tier": "a", "approver": "operator"}, {"tier": "b", "approver": "subject"}]"#;
        world.activate(&format!("{POLICY}{risk}\n{tiers}\n")).await;
        let both = caracal_store::workloads::Bindings::of(&[bound(ENV, DOCS, &["docs:read", "docs:write"])]);
        world.change_workload(|row| row.bindings = both.clone()).await;
        assert_eq!(Ask::credential(ENV).send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.outcome(), "deny approval_class_conflict");
    }

    /// Row 16: both decide on the same approved hold before either commits.
    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_that_spend_one_approval_at_the_same_moment_one_is_refused() {
        let world = held().await;
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, true).await);
        // Once, so that the secret is known and nobody has to wait for a derivation.
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        let held = Held::back(&world).await;
        let ask = with(&id);
        let (mut one, mut other) = (std::pin::pin!(ask.send(&world)), std::pin::pin!(ask.send(&world)));
        while world.store.waiting() < 2 {
            assert!(waits(one.as_mut()).await && waits(other.as_mut()).await, "answered without a commit");
            tokio::task::yield_now().await;
        }
        held.let_go().await;
        let (one, other) = tokio::join!(one, other);
        let mut outcomes = [one.outcome(), other.outcome()];
        outcomes.sort();
        assert_eq!(outcomes, ["200 ", "409 approval_consumed"]);
        let events = world.evidence().await;
        let lost = events.iter().find(|event| event.outcome() == "deny approval_already_consumed").unwrap();
        assert_eq!(lost.text("challenge_id"), id);
        assert_eq!(
            events.iter().filter(|event| event.outcome() == "allow complete").count(),
            2,
            "manifest, credential"
        );
    }

    /// Row 12, and: nothing that a launch holds while it waits for a provider is in the way of a change.
    #[tokio::test]
    async fn a_policy_that_changes_while_an_approval_is_used_refuses_it() {
        let world = Arc::new(World::in_real_time().await);
        world.activate(&held_for("operator")).await;
        let (asked, hears) = std::sync::mpsc::channel();
        let (answers, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Mutex::new(waits);
        let endpoint = TokenEndpoint::new(move |request| {
            let _ = asked.send(());
            let _ = waits.lock().unwrap().recv();
            issuing(request)
        });
        world.provide("oauth2_client_credentials", issued(&endpoint), client_secret()).await;
        world.add_workload(&[docs()]).await;
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, true).await);
        let (launching, ask) = (world.clone(), with(&id));
        let launch = tokio::spawn(async move { ask.send(&launching).await });
        tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
        world.activate(&held_for("operator")).await;
        answers.send(()).unwrap();
        assert_eq!(launch.await.unwrap().outcome(), "409 access_denied");
        assert_eq!(world.last_event().await.outcome(), "deny approval_policy_changed");
        assert_eq!(world.state_of(&id).await, "approved", "it was not spent");
    }

    #[tokio::test]
    async fn a_crash_or_a_refusal_behind_the_approval_leaves_it_unspent() {
        let world = held().await;
        let id = hold(&world).await;
        assert!(world.operator_decides(&id, true).await);
        world.break_evidence();
        let broken = with(&id).send(&world).await;
        assert_eq!(broken.outcome(), "500 internal_error");
        assert!(!String::from_utf8_lossy(&broken.body).contains("bt-docs"), "no evidence, no credential");
        world.mend_evidence();
        assert_eq!(world.state_of(&id).await, "approved");
        assert_eq!(with(&id).send(&world).await.status, 200);
    }
}

mod t08_availability_of_launches {
    use super::*;

    #[tokio::test]
    async fn manifest_and_credentials_have_a_budget_each_per_workload_counted_before_the_secret() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 2).await;
        ready(&world).await;
        let limited = |answer: Answer| (answer.outcome(), answer.header("retry-after").to_owned());
        let over = ("429 provider_rate_limited".to_owned(), "60".to_owned());
        assert_eq!(Ask::manifest().set("secret", "x").send(&world).await.status, 401);
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        assert_eq!(limited(Ask::manifest().send(&world).await), over);
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        assert_eq!(Ask::credential("OTHER").send(&world).await.status, 404);
        assert_eq!(limited(Ask::credential(ENV).send(&world).await), over);
        // Another name has its own, whether or not there is such a workload.
        assert_eq!(Ask::manifest().set("workload_id", "w-2").send(&world).await.status, 401);
        assert_eq!(world.counted("launch_rate_limited").await, 2);
        world.clock.advance(60);
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
    }

    /// A counter that nobody can ask.
    struct Unreachable;

    impl LaunchRate for Unreachable {
        fn count<'a>(&'a self, _: &'a LaunchKey, _: u32, _: Timestamp) -> BoxFuture<'a, Rate> {
            Box::pin(std::future::ready(Rate::Unavailable))
        }
    }

    /// Difference D7: the reference says 429.
    #[tokio::test]
    async fn a_counter_that_is_down_launches_nothing_and_says_so() {
        let world = launchable().await;
        let sts = world.launcher(StsConfig::for_issuer(ISSUER), Arc::new(Unreachable));
        for ask in [Ask::manifest(), Ask::credential(ENV)] {
            let answer = send_to(&sts, ask.request()).await;
            assert_eq!((answer.outcome().as_str(), answer.header("retry-after")), ("503 sts_unavailable", "1"));
        }
        assert_eq!(types(&world).await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn replicas_that_share_a_counter_share_the_budget_of_a_workload() {
        let world = launchable().await;
        let counter: Arc<dyn LaunchRate> = Arc::new(ProcessLaunchRate::default());
        let limited = || StsConfig { mint_rate_limit_per_min: 3, ..StsConfig::for_issuer(ISSUER) };
        let replicas = [world.launcher(limited(), counter.clone()), world.launcher(limited(), counter)];
        let mut told = 0;
        for number in 0..6 {
            told += u32::from(send_to(&replicas[number % 2], Ask::manifest().request()).await.status == 200);
        }
        assert_eq!(told, 3);
    }

    #[tokio::test]
    async fn without_its_store_nothing_is_launched() {
        let world = launchable().await;
        world.store.close().await;
        for ask in [Ask::manifest(), Ask::credential(ENV), Ask::manifest().set("secret", "x")] {
            let answer = ask.send(&world).await;
            assert_eq!((answer.outcome().as_str(), answer.header("retry-after")), ("503 sts_unavailable", "1"));
        }
    }

    #[tokio::test]
    async fn a_launch_is_one_change_and_a_stranger_causes_none() {
        let world = launchable().await;
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        let before = world.store.changes();
        assert_eq!(Ask::manifest().send(&world).await.status, 200);
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        assert_eq!(world.store.changes() - before, 2);
        assert_eq!(Ask::manifest().set("workload_id", "w-2").send(&world).await.status, 401);
        assert_eq!(Ask::manifest().without("secret").send(&world).await.status, 400);
        assert_eq!(world.store.changes() - before, 2);
        let before = world.store.round_trips();
        assert_eq!(Ask::credential(ENV).send(&world).await.status, 200);
        // Two for the workload, one for all facts, five for the commit: a mint's without the record.
        let expected = if world.store.is_shared() { 8 } else { 0 };
        assert_eq!(world.store.round_trips() - before, expected);
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
