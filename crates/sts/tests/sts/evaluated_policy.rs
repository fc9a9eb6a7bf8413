//! Documents of policy that are programs, on the path that signs (contract: policy.md §2, §5, §14; security property 8).

use std::time::{Duration, Instant};

use caracal_authority::ZoneId;
use futures_util::future::join_all;

use crate::support::*;

fn with(rules: &str) -> String {
    format!("{POLICY}\n{rules}")
}

/// A product of a list with itself, three times over: nine million steps.
const JOIN: &str = "xs := [1 | some i in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]; some j in \
                    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]\n\
                    some a in xs; some b in xs; some c in xs; a + b + c == -1";

fn hostile(body: &str) -> String {
    with(&format!("restrict contains \"x\" if {{\ninput.principal\n{body}\n}}\n"))
}

/// Another zone with an application, a resource and a policy that must be evaluated, too.
async fn second_zone(world: &World) -> Ask {
    let other = ZoneId::parse(OTHER_ZONE).unwrap();
    world.add_application("app-other", |row| row.zone_id = other.clone()).await;
    world
        .add_resource("r-other", "resource://other", |row| {
            row.zone_id = other.clone();
            row.scopes = vec!["other:read".to_owned()];
            row.operations.clear();
        })
        .await;
    let rules = "app_ids := {\"other\": \"app-other\"}\n\
                 grants := {\"resource://other\": {\"application\": \"other\", \"roles\": {}}}\n\
                 restrict contains \"x\" if input.principal.id != \"app-other\"";
    world.activate_in(&other, rules).await;
    Ask::by("app-other", SECRET)
        .set("zone_id", OTHER_ZONE)
        .set("resource", "resource://other")
        .set("scope", "agent:lifecycle")
}

mod t02_sts_evaluated_policy {
    use super::*;

    #[tokio::test]
    async fn a_condition_on_the_question_decides_and_evidence_names_its_set() {
        let world = World::new().await;
        let version =
            world.activate(&with("restrict contains l if { some l in input.principal.labels; l == \"writer\" }")).await;
        assert_eq!(Ask::mint().send(&world).await.status, 200);
        let granted = world.last_event().await;
        assert_eq!(granted.outcome(), "allow complete");
        assert_eq!(granted.row.policy_set_version_id, version.as_str());
        world.add_session("s-writer", |row| row.labels = vec!["reader".to_owned(), "writer".to_owned()]).await;
        world
            .add_edge("e-writer", |row| {
                row.target_session_id = caracal_authority::AgentSessionId::parse("s-writer").unwrap()
            })
            .await;
        let frozen =
            Ask::mint().set("agent_session_id", "s-writer").set("delegation_edge_id", "e-writer").send(&world).await;
        assert_eq!(frozen.outcome(), "403 access_denied");
        assert_eq!(frozen.text("error_description"), "policy denied (restriction_active)");
        assert_eq!(Ask::mint().send(&world).await.status, 200);
    }

    /// Security property 3, with the control that what a Gateway says of its call does reach policy.
    #[tokio::test]
    async fn the_operation_that_an_unsigned_caller_names_reaches_neither_policy_nor_the_floor() {
        let world = World::new().await;
        let told = "restrict contains \"method\" if input.action.method\n\
                    restrict contains \"path\" if input.action.path";
        world.activate(&with(told)).await;
        for ask in [Ask::mint(), Ask::bootstrap()] {
            let ask = ask.set("request_method", "DELETE").set("request_path", "/admin").set("gateway_request_id", "x");
            assert_eq!(ask.send(&world).await.status, 200, "{}", ask.encoded());
        }
        let signed = Signed::exchange(&world, &world.mandate().await).send(&world).await;
        assert_eq!(signed.text("error_description"), "policy denied (restriction_active)");
    }

    #[tokio::test]
    async fn every_resource_of_an_exchange_is_a_question_of_its_own() {
        let world = World::new().await;
        world.activate(&with("restrict contains \"notes\" if input.resource.identifier == \"resource://notes\"")).await;
        world.change_application("app-docs", |_| {}).await;
        let answer = Ask::bootstrap().add("resource", NOTES).send(&world).await;
        assert_eq!(answer.claims()["target"], serde_json::json!([DOCS]));
        let outcomes: Vec<String> = world.evidence().await.iter().map(Event::outcome).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.starts_with("allow")).count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.starts_with("deny")).count(), 1, "{outcomes:?}");
    }

    #[tokio::test]
    async fn the_first_request_after_a_start_finds_its_documents_read() {
        let world = World::new().await;
        world.activate(&with("restrict contains \"x\" if input.principal.id == \"nobody\"")).await;
        let restarted = world.restarted();
        assert_eq!(send_to(&restarted, Ask::mint().request()).await.status, 200);
        let loaded = world.restarted().tell_loaded(&zone()).await.unwrap();
        assert!(loaded.policy_set_version_id.is_some() && loaded.loaded_at.is_some());
    }

    #[tokio::test]
    async fn a_mint_that_is_decided_twice_is_counted_once() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 2).await;
        world.activate(&with("restrict contains \"x\" if input.principal.id == \"nobody\"")).await;
        for _ in 0..2 {
            assert_eq!(Ask::mint().send(&world).await.status, 200);
        }
        assert_eq!(Ask::mint().send(&world).await.outcome(), "429 provider_rate_limited");
        assert!(world.evidence().await.iter().any(|event| event.outcome() == "deny rate_limited"));
    }

    #[tokio::test]
    async fn a_gateway_exchange_asks_the_documents_again() {
        let world = World::new().await;
        let (first, second) = (world.mandate().await, world.mandate().await);
        world.activate(&with("restrict contains \"m\" if input.action.method == \"POST\"")).await;
        assert_eq!(Signed::exchange(&world, &first).send(&world).await.status, 200);
        world.activate(&with("restrict contains \"m\" if input.action.method == \"GET\"")).await;
        assert_eq!(Signed::exchange(&world, &second).send(&world).await.outcome(), "403 access_denied");
    }

    /// Never a half result: whatever does not come about is 503, leaves evidence, and uses a presented mandate up.
    #[tokio::test]
    async fn an_evaluation_that_fails_denies_says_so_and_uses_a_mandate_up() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.activate(&with("restrict := {\"x\"} if input.principal\nrestrict := {} if input.resource\n")).await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(answer.outcome(), "503 policy_eval_failed");
        let event = world.last_event().await;
        assert_eq!(event.outcome(), "deny policy_eval_failed");
        assert!(event.diagnostics[0]["error"].as_str().unwrap().contains("conflicts"), "{}", event.diagnostics);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token");
    }

    /// Security property 8: no document can crash, hang or slow another zone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hostile_zone_is_given_up_and_no_other_zone_notices() {
        let world = World::new().await;
        let other = second_zone(&world).await;
        assert_eq!(other.send(&world).await.status, 200);
        let doubled: String = (0..60).map(|n| format!("a{} := [a{n}, a{n}]\n", n + 1)).collect();
        for body in [JOIN.to_owned(), format!("a0 := [input]\n{doubled}a60 == a59")] {
            world.activate(&hostile(&body)).await;
            let started = Instant::now();
            let attacks = join_all((0..24).map(|_| async { Ask::mint().send(&world).await.outcome() }));
            let others = async {
                let mut slowest = Duration::ZERO;
                for _ in 0..10 {
                    let asked = Instant::now();
                    assert_eq!(other.send(&world).await.status, 200);
                    slowest = slowest.max(asked.elapsed());
                }
                slowest
            };
            let (attacks, slowest) = tokio::join!(attacks, others);
            assert!(attacks.iter().all(|outcome| outcome == "503 policy_eval_failed"), "{attacks:?}");
            // Generous: other tests share the processors. Without bounds one of these would take minutes.
            assert!(slowest < Duration::from_secs(10), "{slowest:?}");
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
            let event = world.last_event().await;
            assert_eq!(event.outcome(), "deny policy_eval_failed");
        }
        // And the zone itself is well again with the next set.
        world.activate(POLICY).await;
        assert_eq!(Ask::mint().send(&world).await.status, 200);
    }

    /// Texts that could abort or occupy the process are never handed to an engine.
    #[tokio::test]
    async fn documents_that_must_not_run_are_not_loaded_and_deny() {
        let world = World::new().await;
        for rules in [
            "restrict contains \"x\" if restrict[\"y\"]".to_owned(),
            "risk := [] if count(restrict) > 0\nrestrict contains \"x\" if count(risk) > 0".to_owned(),
            format!("restrict := {{{}1{}}} if input.a", "[".repeat(20), "]".repeat(20)),
            "restrict contains \"x\" if numbers.range(1, 1000000000)[0] == 1".to_owned(),
            format!("restrict := {}", "(".repeat(256 << 10)),
            "result := {\"decision\": \"allow\"} if input.a".to_owned(),
        ] {
            world.activate(&with(&rules)).await;
            assert_eq!(Ask::mint().send(&world).await.outcome(), "503 policy_eval_failed", "{:.60}", rules);
            assert_eq!(world.sts.tell_loaded(&zone()).await.unwrap().loaded_at, None);
        }
    }
}
