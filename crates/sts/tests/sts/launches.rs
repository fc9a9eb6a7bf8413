//! What workloads are told and who they have to be (contract: sts.md §11, and the edge cases that begin with "run").

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_store::BoxFuture;
use caracal_store::workloads::{Binding, OnFailure};
use caracal_sts::{LaunchKey, LaunchRate, ProcessLaunchRate, StsConfig};
use serde_json::json;

use crate::support::launches::*;
use crate::support::*;

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
        // Of the second it is known what was asked for, and nothing of what is bound to it.
        let event = world.last_event().await;
        assert_eq!((event.text("env"), &event.metadata["requested_scopes"]), (ENV, &json!([])));
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
