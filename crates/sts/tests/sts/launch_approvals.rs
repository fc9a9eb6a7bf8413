//! Credentials of workloads that a human has to agree to (contract: sts.md §7.4, §11 rows 10 to 13 and 16).

use std::sync::Arc;

use serde_json::json;

use crate::support::launches::*;
use crate::support::providers::TokenEndpoint;
use crate::support::*;

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
