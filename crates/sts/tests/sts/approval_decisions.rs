//! The user for whom an agent works decides (contract: sts.md §7.7; property 10).

use axum::body::Body;
use caracal_authority::{AgentSessionId, AuthorityRecordId};
use http::Request;
use serde_json::{Value, json};

use crate::support::*;

/// A hold and what approves it.
async fn held(world: &World) -> (String, Value) {
    let hold = world.hold().await;
    let id = hold["approval_id"].as_str().unwrap().to_owned();
    (id, json!({"decision": "approved", "binding": hold["binding"]}))
}

fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[name] = value;
    body
}

/// A mint for the session `s-u`, which is anchored to `record`.
pub(crate) async fn mint_for(world: &World, record: &str) -> Ask {
    let record = AuthorityRecordId::parse(record).unwrap();
    world.add_session("s-u", |row| row.subject_record_id = record).await;
    world.add_edge("e-u", |row| row.target_session_id = AgentSessionId::parse("s-u").unwrap()).await;
    Ask::mint().set("agent_session_id", "s-u").set("delegation_edge_id", "e-u")
}

mod t14_automation_decisions {
    use super::*;

    #[tokio::test]
    async fn a_user_of_the_application_approves_and_the_request_is_minted() {
        let world = World::held_by("any").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        let answer = world.say(&person.mandate, &id, &with(&body, "reason", json!("looks right"))).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        assert_eq!(answer.json, json!({"id": id, "state": "approved", "expires_at": answer.json["expires_at"]}));
        let row = world.approval(&id).await.unwrap();
        assert_eq!(row.approver_id.as_deref(), Some("subject:user-1"));
        assert_eq!(row.approver_record_id.as_ref().map(AsRef::as_ref), Some("rec-u"));
        assert_eq!(row.decision_reason.as_deref(), Some("looks right"));
        assert_eq!(Ask::mint().set("approval_id", &id).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_user_rejects() {
        let world = World::held_by("subject").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        let answer = world.say(&person.mandate, &id, &with(&body, "decision", json!("rejected"))).await;
        assert_eq!((answer.status, answer.text("state")), (200, "rejected"));
        let event = world.last_event().await;
        assert_eq!((event.row.event_type.as_str(), event.outcome().as_str()), ("step_up_decided", "rejected complete"));
        assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn its_evidence_names_the_sign_in_and_not_the_person() {
        let world = World::held_by("any").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        assert_eq!(world.say(&person.mandate, &id, &with(&body, "reason", json!("secret words"))).await.status, 200);
        let event = world.last_event().await;
        assert_eq!((event.row.event_type.as_str(), event.outcome().as_str()), ("step_up_decided", "approved complete"));
        assert_eq!(event.row.request_id, id);
        let row = world.approval(&id).await.unwrap();
        assert_eq!(
            event.metadata,
            json!({
                "challenge_id": id,
                "tier": "reading",
                "approver_class": "any",
                "privacy_mode": "identified",
                "binding": row.binding,
                "expires_at": row.expires_at.to_seconds_text(),
                "application_id": APP,
                "agent_session_id": "s-1",
                "delegation_edge_id": "e-1",
                "agent_labels": ["reader"],
                "approver_plane": "subject",
                "approver_session_id": "rec-u",
            })
        );
    }

    #[tokio::test]
    async fn what_is_kept_of_the_person_is_what_the_zone_s_privacy_allows() {
        for (privacy, expected) in [
            ("identified", "subject:user-1"),
            // SHA-256 of `z-1`, a NUL and `user-1`.
            ("pseudonymous", "subject:pseudonym:"),
            ("anonymous", "subject:redacted"),
        ] {
            let world = World::held().await;
            let tier = json!([{"tier": "reading", "approver": "any", "privacy": privacy}]);
            let risk = r#"[{"scope": "docs:read", "tier": "reading"}]"#;
            world.activate(&format!("{POLICY}risk := {risk}\napproval_tiers := {tier}\n")).await;
            let (id, body) = held(&world).await;
            let person = world.sign_in("user-1", "rec-u").await;
            assert_eq!(world.say(&person.mandate, &id, &body).await.status, 200);
            let row = world.approval(&id).await.unwrap();
            let kept = row.approver_id.unwrap();
            assert!(kept.starts_with(expected), "{kept}");
            assert_eq!(kept.contains("user-1"), privacy == "identified");
            assert_eq!(row.approver_record_id.unwrap().as_str(), "rec-u", "the sign-in is always kept");
        }
    }

    /// In the order of the contract's checks; each is right in everything that is checked before.
    #[tokio::test]
    async fn each_check_refuses_with_its_own_status() {
        let world = World::held_by("any").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        let other_application = world.mandate_of("user-1", "rec-u", |claims| claims["client_id"] = json!("app-notes"));
        let application = world.mandate_of(APP, "rec-app", |claims| claims["sub_type"] = json!("application"));
        let wrong_class = world.mandate_of("user-1", "rec-u", |claims| claims["use"] = json!("gateway"));
        let other_zone = world.mandate_of("user-1", "rec-u", |claims| claims["zone_id"] = json!(OTHER_ZONE));
        let over = world.mandate_of("user-1", "rec-u", |claims| claims["exp"] = json!(START - 61));
        let no_record = world.mandate_of("user-1", "rec-gone", |_| {});
        let other_person = world.mandate_of("user-2", "rec-u", |_| {});
        let decision = |value: Value| with(&body, "decision", value);
        let good = person.mandate.as_str();
        let wrong = Value::from(body["binding"].as_str().unwrap().to_uppercase());
        for (what, mandate, id, body, expected) in [
            ("1 no id", good, "x", body.clone(), "404 resource_not_found"),
            ("4 no decision", good, &id, json!({"binding": body["binding"]}), "400 invalid_token"),
            ("4 another decision", good, &id, decision(json!("maybe")), "400 invalid_token"),
            ("4 another case", good, &id, decision(json!("Approved")), "400 invalid_token"),
            ("5 a long reason", good, &id, with(&body, "reason", json!("x".repeat(501))), "400 invalid_token"),
            ("6 nobody's", good, "0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11", body.clone(), "404 resource_not_found"),
            ("7 no token", "x", &id, body.clone(), "401 invalid_token"),
            ("7 another class", &wrong_class.await, &id, body.clone(), "401 invalid_token"),
            ("7 another zone", &other_zone.await, &id, body.clone(), "401 invalid_token"),
            ("7 over", &over.await, &id, body.clone(), "401 invalid_token"),
            ("8 an application", &application.await, &id, body.clone(), "403 access_denied"),
            ("10 another application", &other_application.await, &id, body.clone(), "403 access_denied"),
            ("10 no record", &no_record.await, &id, body.clone(), "403 access_denied"),
            ("10 another person's record", &other_person.await, &id, body.clone(), "403 access_denied"),
            ("14 upper case", good, &id, with(&body, "binding", wrong), "409 access_denied"),
            ("14 none", good, &id, json!({"decision": "approved"}), "409 access_denied"),
        ] {
            assert_eq!(world.say(mandate, id, &body).await.outcome(), expected, "{what}");
        }
        assert_eq!(world.state_of(&id).await, "pending");
        assert_eq!(world.say(good, &id, &with(&body, "reason", json!("x".repeat(500)))).await.status, 200);
        assert_eq!(world.say(good, &id, &body).await.outcome(), "409 access_denied", "15 a second decision");
    }

    #[tokio::test]
    async fn the_mandate_is_asked_for_as_a_bearer_before_the_body_is_looked_at() {
        let world = World::held_by("any").await;
        let (id, _) = held(&world).await;
        for line in ["", "Bearer ", "bearer x", "Basic x"] {
            let request = Request::post(format!("/approvals/{id}/decision")).header("authorization", line);
            let answer = world.send(request.body(Body::from("no json")).unwrap()).await;
            assert_eq!(answer.outcome(), "401 invalid_token", "{line}");
            assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="caracal-sts""#);
        }
        // Who brought one is told that it was not accepted (RFC 6750 §3.1).
        let wrong = Request::post(format!("/approvals/{id}/decision")).header("authorization", "Bearer x");
        let wrong = world.send(wrong.body(Body::from(json!({"decision": "approved"}).to_string())).unwrap()).await;
        let challenge = r#"Bearer realm="caracal-sts", error="invalid_token""#;
        assert_eq!((wrong.outcome().as_str(), wrong.header("www-authenticate")), ("401 invalid_token", challenge));
        let large = json!({"decision": "approved", "padding": "x".repeat(65_536)}).to_string();
        // Whoever reads the first and whoever reads the last of two members read two decisions.
        let twice = r#"{"decision": "rejected", "decision": "approved"}"#;
        let spelt = r#"{"decision": "rejected", "\u0064ecision": "approved"}"#;
        for body in ["", "no json", "[]", r#"{"decision": 1}"#, twice, spelt, &large] {
            let request = Request::post(format!("/approvals/{id}/decision")).header("authorization", "Bearer x");
            assert_eq!(
                world.send(request.body(Body::from(body.to_owned())).unwrap()).await.outcome(),
                "400 invalid_token"
            );
        }
        assert_eq!(world.counted("approver_unauthenticated").await, 5);
    }

    #[tokio::test]
    async fn what_waits_for_an_operator_is_not_the_user_s() {
        let world = World::held_by("operator").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        assert_eq!(world.say(&person.mandate, &id, &body).await.outcome(), "403 access_denied");
        let event = world.last_event().await;
        assert_eq!(
            (event.row.event_type.as_str(), event.outcome().as_str()),
            ("step_up_refused", "deny approver_refused")
        );
        assert_eq!((event.text("refusal"), event.text("approver_session_id")), ("ReservedForOperators", "rec-u"));
    }

    #[tokio::test]
    async fn who_works_for_a_user_waits_for_that_user_signed_in_anew() {
        let world = World::held_by("subject").await;
        let own = world.sign_in("user-1", "rec-u").await;
        let ask = mint_for(&world, "rec-u").await;
        let hold = ask.send(&world).await;
        assert_eq!(hold.outcome(), "401 interaction_required");
        let id = hold.text("approval_id").to_owned();
        assert_eq!(world.approval(&id).await.unwrap().subject_anchor.as_deref(), Some("user-1"));
        let body = json!({"decision": "approved", "binding": hold.text("binding")});
        // The agent's application holds the mandate of the sign-in that its session stands on.
        assert_eq!(world.say(&own.mandate, &id, &body).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("refusal"), "RequestingLineage");
        let other = world.sign_in("user-2", "rec-other").await;
        assert_eq!(world.say(&other.mandate, &id, &body).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("refusal"), "AnotherPerson");
        // Neither a descendant of that sign-in nor an ancestor is another one.
        world
            .add_record("rec-child", |row| {
                row.kind = "user".to_owned();
                row.subject_id = "user-1".to_owned();
                row.parent_id = AuthorityRecordId::parse("rec-u").ok();
            })
            .await;
        let child = world.mandate_of("user-1", "rec-child", |_| {}).await;
        assert_eq!(world.say(&child, &id, &body).await.outcome(), "403 access_denied");
        let anew = world.sign_in("user-1", "rec-anew").await;
        assert_eq!(world.say(&anew.mandate, &id, &body).await.status, 200);
        assert_eq!(ask.send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_sign_in_that_was_revoked_decides_nothing() {
        let world = World::held_by("any").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        world.revoke_record("rec-u").await;
        assert_eq!(world.say(&person.mandate, &id, &body).await.outcome(), "403 access_denied");
        assert_eq!(world.state_of(&id).await, "pending");
    }

    #[tokio::test]
    async fn a_decision_without_its_evidence_does_not_happen() {
        let world = World::held_by("any").await;
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        world.break_evidence();
        assert_eq!(world.say(&person.mandate, &id, &body).await.status, 500);
        assert_eq!(world.state_of(&id).await, "pending");
        world.mend_evidence();
        assert_eq!(world.say(&person.mandate, &id, &body).await.status, 200);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_those_who_decide_at_once_one_has_decided() {
        let world = std::sync::Arc::new(World::held_by("any").await);
        let (id, body) = held(&world).await;
        let person = world.sign_in("user-1", "rec-u").await;
        let deciders = (0..8).map(|number| {
            let (world, id, mandate) = (world.clone(), id.clone(), person.mandate.clone());
            let body = if number % 2 == 0 { body.clone() } else { with(&body, "decision", json!("rejected")) };
            tokio::spawn(async move {
                if number == 7 {
                    return if world.operator_decides(&id, true).await { 200 } else { 409 };
                }
                world.say(&mandate, &id, &body).await.status
            })
        });
        let mut statuses = Vec::new();
        for decider in deciders.collect::<Vec<_>>() {
            statuses.push(decider.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    }
}
