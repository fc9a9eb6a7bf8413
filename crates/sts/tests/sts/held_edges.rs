//! Edges of what waits for a human (contract: sts.md "Edge cases worth a test", §7).

use serde_json::{Value, json};

use crate::support::*;

fn id_of(hold: &Value) -> &str {
    hold["approval_id"].as_str().unwrap()
}

fn with(id: &str) -> Ask {
    Ask::mint().set("approval_id", id)
}

/// A session that may write, and reading and writing in tiers of these declarations.
async fn two_tiers(world: &World, tiers: Value) -> Ask {
    let both = || vec!["docs:read".to_owned(), "docs:write".to_owned()];
    world.add_session("s-w", |row| row.labels = vec!["writer".to_owned()]).await;
    world
        .add_edge("e-w", |row| {
            row.target_session_id = "s-w".parse().unwrap();
            row.scopes = both();
        })
        .await;
    let risk = r#"[{"scope": "docs:read", "tier": "a"}, {"scope": "docs:write", "tier": "b"}]"#;
    world.activate(&format!("{POLICY}risk := {risk}\napproval_tiers := {tiers}\n")).await;
    Ask::mint().set("agent_session_id", "s-w").set("delegation_edge_id", "e-w").set("scope", "docs:read docs:write")
}

mod t02_sts_hold_states {
    use super::*;

    #[tokio::test]
    async fn what_was_spent_stays_spent_when_its_time_is_over() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        assert_eq!(with(id_of(&hold)).send(&world).await.status, 200);
        world.expire(id_of(&hold)).await;
        assert_eq!(world.state_of(id_of(&hold)).await, "consumed");
    }

    #[tokio::test]
    async fn who_may_be_anybody_yields_to_who_has_to_be_the_subject() {
        let world = World::new().await;
        let tiers = json!([
            {"tier": "a", "approver": "any", "ttl_seconds": 600, "privacy": "pseudonymous"},
            {"tier": "b", "approver": "subject", "ttl_seconds": 300},
        ]);
        let answer = two_tiers(&world, tiers).await.send(&world).await;
        assert_eq!((answer.outcome().as_str(), answer.text("tier")), ("401 interaction_required", "a,b"));
        let row = world.approval(answer.text("approval_id")).await.unwrap();
        assert_eq!((row.approver_class.as_str(), row.privacy_mode.as_str()), ("subject", "pseudonymous"));
        assert_eq!(row.expires_at, after(300));
    }

    /// A hold that names a record is spent only while that record is live.
    #[tokio::test]
    async fn an_approval_given_to_a_record_ends_with_the_record_and_is_not_burnt() {
        let world = World::held().await;
        let ask = Ask::mint().set("session_id", "rec-app");
        let hold = ask.send(&world).await;
        assert_eq!(hold.outcome(), "401 interaction_required");
        let id = hold.text("approval_id").to_owned();
        assert!(world.operator_decides(&id, true).await);
        world.revoke_record("rec-app").await;
        for ask in [ask.clone(), ask.set("approval_id", &id)] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
        }
        assert_eq!(
            with(&id).send(&world).await.outcome(),
            "401 access_denied",
            "without the record it is another request"
        );
        assert_eq!(world.state_of(&id).await, "approved");
    }

    /// The record behind a lost answer has less than a second left: nothing is told again, and no second record made.
    #[tokio::test]
    async fn a_lost_answer_is_not_given_again_for_less_than_a_second() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        let sid = with(id_of(&hold)).send(&world).await.claims()["sid"].as_str().unwrap().to_owned();
        let records = world.record_ids().len();
        for (micros, expected) in [(1_000_000, 200), (999_999, 403), (0, 409)] {
            let end = START * 1_000_000 + micros;
            world.tamper(&format!("UPDATE authority_records SET expires_at = {end} WHERE id = '{sid}'"));
            assert_eq!(with(id_of(&hold)).send(&world).await.status, expected, "{micros}");
        }
        assert_eq!(world.record_ids().len(), records);
    }
}

mod t02_sts_holds_for_nothing {
    use super::*;

    #[tokio::test]
    async fn a_mint_over_its_rate_holds_nobody_up() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 1).await;
        world.activate(&held_for("operator")).await;
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        assert_eq!(Ask::mint().send(&world).await.outcome(), "429 provider_rate_limited");
        assert_eq!(world.approvals().await, 0);
    }

    #[tokio::test]
    async fn a_life_of_less_than_a_second_holds_nobody_up() {
        let world = World::held().await;
        world
            .add_edge("e-short", |row| row.expires_at = after(0).plus(std::time::Duration::from_micros(999_999)))
            .await;
        assert_eq!(Ask::mint().set("delegation_edge_id", "e-short").send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.approvals().await, 0);
    }

    /// Nobody is asked to approve what no mandate could carry.
    #[tokio::test]
    async fn what_no_mandate_can_carry_holds_nobody_up() {
        let world = World::held().await;
        world.add_edge("e-wide", |row| row.resource_id = None).await;
        let mut grants = String::new();
        let mut ask = Ask::mint().set("delegation_edge_id", "e-wide");
        for number in 0..40 {
            let name = format!("resource://a-name-of-fair-length-with-a-few-words-more-and-a-number-{number}");
            world.add_resource(&format!("r-{number}"), &name, |_| {}).await;
            grants.push_str(&format!(
                "{name:?}: {{\"application\": \"docs\", \"roles\": {{\"reader\": [\"docs:read\"]}}}},\n"
            ));
            ask = ask.add("resource", &name);
        }
        world.activate(&held_for("operator").replace("grants := {", &format!("grants := {{{grants}"))).await;
        assert_eq!(ask.send(&world).await.outcome(), "400 invalid_token");
        assert_eq!(world.last_event().await.outcome(), "deny mandate_too_large");
        assert_eq!(world.approvals().await, 0);
        // A few of them are a request like any other.
        let few = Ask::mint().set("delegation_edge_id", "e-wide").add("resource", "r-1").add("resource", "r-2");
        assert_eq!(few.send(&world).await.outcome(), "401 interaction_required");
    }
}

mod t08_availability_counts {
    use super::*;

    #[tokio::test]
    async fn what_becomes_of_approvals_is_counted() {
        let world = World::held_by("any").await;
        let counts = async || {
            let request =
                http::Request::get("/metrics.json").header("authorization", format!("Bearer {METRICS_BEARER}"));
            let answer = world.send(request.body(axum::body::Body::empty()).unwrap()).await;
            let count = |name: &str| answer.json["sts"][format!("approvals_{name}")].as_u64().unwrap();
            ["issued", "approved", "rejected", "decisions_refused", "consumed", "reissued"].map(count)
        };
        let person = world.sign_in("user-1", "rec-u").await;
        let hold = world.hold().await;
        assert_eq!(world.hold().await["approval_id"], hold["approval_id"]);
        assert_eq!(counts().await, [1, 0, 0, 0, 0, 0], "told again is not issued again");
        let says = |decision: &str, hold: &Value| json!({"decision": decision, "binding": hold["binding"]});
        assert_eq!(world.say("no mandate", id_of(&hold), &says("approved", &hold)).await.status, 401);
        let wrong = json!({"decision": "approved", "binding": "0"});
        assert_eq!(world.say(&person.mandate, id_of(&hold), &wrong).await.status, 409);
        assert_eq!(world.say(&person.mandate, id_of(&hold), &says("approved", &hold)).await.status, 200);
        assert_eq!(counts().await, [1, 1, 0, 1, 0, 0]);
        for _ in 0..2 {
            assert_eq!(with(id_of(&hold)).send(&world).await.status, 200);
        }
        assert_eq!(counts().await, [1, 1, 0, 1, 1, 1]);
        let another = world.hold().await;
        assert_eq!(world.say(&person.mandate, id_of(&another), &says("rejected", &another)).await.status, 200);
        assert_eq!(counts().await, [2, 1, 1, 1, 1, 1]);
    }
}
