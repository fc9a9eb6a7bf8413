//! A request waits for a human, and is minted once they agreed (contract: sts.md §7.1–§7.5; property 9).

use caracal_authority::{AgentSessionId, PolicySetId};
use caracal_store::approvals::{self, ApprovalRow};
use caracal_store::{policy_sets, resources};
use serde_json::{Value, json};

use crate::support::*;

fn id_of(hold: &Value) -> &str {
    hold["approval_id"].as_str().unwrap()
}

/// The gated mint, with the approval it waited for.
fn with(id: &str) -> Ask {
    Ask::mint().set("approval_id", id)
}

async fn types(world: &World) -> Vec<String> {
    world.evidence().await.iter().map(|event| format!("{} {}", event.row.event_type, event.outcome())).collect()
}

mod t02_sts_approvals {
    use super::*;

    #[tokio::test]
    async fn a_gated_mint_is_told_what_to_wait_for() {
        let world = World::held().await;
        let answer = Ask::mint().send(&world).await;
        assert_eq!(answer.outcome(), "401 interaction_required");
        assert_eq!(answer.header("www-authenticate"), r#"Bearer error="interaction_required""#);
        let hold = answer.json.clone();
        assert_eq!((hold["approval_type"].as_str(), hold["state"].as_str()), (Some("human_approval"), Some("pending")));
        assert_eq!(
            (hold["tier"].as_str(), hold["requestId"].as_str()),
            (Some("reading"), Some(answer.header("x-request-id")))
        );
        assert_eq!(hold["approval_expires_at"], after(14_400).to_seconds_text());
        assert_eq!(hold["binding"].as_str().unwrap().len(), 64);
        let id = id_of(&hold);
        assert_eq!(&id[14..15], "4", "a random id: {id}");
        let row = world.approval(id).await.unwrap();
        assert_eq!(row.principal_id, APP);
        assert_eq!(Value::from(row.metadata), {
            let version = world.active_version().await;
            json!({
                "requested_scopes": ["docs:read"],
                "resources": [DOCS],
                "agent_session_id": "s-1",
                "agent_labels": ["reader"],
                "delegation_edge_id": "e-1",
                "policy_set_version_id": version.0,
                "policy_manifest_sha": version.1,
                "decision_contract_version": "2026-07-12",
                "decision_contract_sha": caracal_policy::decision_contract_sha256(),
            })
        });
        assert!(world.record_ids().len() == 1, "nothing was minted");
    }

    #[tokio::test]
    async fn its_evidence_is_a_denial_and_the_hold_that_was_issued() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert_eq!(
            types(&world).await,
            [
                "token_exchange deny approval_required",
                "token_exchange deny approval_required",
                "step_up_issued pending complete",
            ]
        );
        let event = world.last_event().await;
        for (name, expected) in [
            ("challenge_id", id_of(&hold)),
            ("tier", "reading"),
            ("approver_class", "operator"),
            ("privacy_mode", "identified"),
            ("binding", hold["binding"].as_str().unwrap()),
            ("expires_at", hold["approval_expires_at"].as_str().unwrap()),
            ("application_id", APP),
            ("application_name", "Name of app-docs"),
            ("agent_session_id", "s-1"),
            ("delegation_edge_id", "e-1"),
        ] {
            assert_eq!(event.text(name), expected, "{name}");
        }
        assert_eq!(event.metadata["agent_labels"], json!(["reader"]));
        // Who asks again is told of the same hold, and nothing is issued.
        assert_eq!(world.hold().await["approval_id"], hold["approval_id"]);
        assert_eq!(types(&world).await.iter().filter(|kind| kind.starts_with("step_up_issued")).count(), 1);
    }

    #[tokio::test]
    async fn what_was_approved_is_minted_once_and_its_evidence_tells_all_of_it() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "401 interaction_required");
        assert!(world.operator_decides(id_of(&hold), true).await);
        let records = world.record_ids().len();
        let claims = with(id_of(&hold)).send(&world).await.claims();
        assert_eq!((claims["use"].as_str(), claims["scope"].as_str()), (Some("gateway"), Some("docs:read")));
        assert_eq!(world.record_ids().len(), records + 1);
        let row = world.approval(id_of(&hold)).await.unwrap();
        assert_eq!(row.consumed_record_id.unwrap().as_str(), claims["sid"].as_str().unwrap());
        assert_eq!(world.state_of(id_of(&hold)).await, "consumed");
        let last = types(&world).await;
        assert_eq!(last[last.len() - 2..], ["token_exchange allow complete", "step_up_consumed consumed complete"]);
        let event = world.last_event().await;
        assert_eq!(event.text("challenge_id"), id_of(&hold));
        assert_eq!(event.text("authority_record_id"), claims["sid"].as_str().unwrap());
        assert!(event.metadata.get("reissued").is_none());
    }

    #[tokio::test]
    async fn an_approval_is_spent_by_the_same_request_though_it_names_none() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        assert_eq!(Ask::mint().send(&world).await.status, 200);
        assert_eq!(world.state_of(id_of(&hold)).await, "consumed");
        // The next one waits anew.
        assert_ne!(world.hold().await["approval_id"], hold["approval_id"]);
    }

    #[tokio::test]
    async fn order_and_repetition_of_scopes_are_the_same_request() {
        let world = World::held().await;
        world.add_edge("e-2", |row| row.scopes = vec!["docs:read".to_owned(), "docs:write".to_owned()]).await;
        world
            .activate(
                &held_for("operator")
                    .replace("\"reader\": [\"docs:read\"]", "\"reader\": [\"docs:read\", \"docs:write\"]"),
            )
            .await;
        let ask = |scope: &str| Ask::mint().set("delegation_edge_id", "e-2").set("scope", scope);
        let one = ask("docs:read docs:write").send(&world).await;
        assert_eq!(one.outcome(), "401 interaction_required");
        for scope in ["docs:write docs:read", "docs:read  docs:write docs:read"] {
            let again = ask(scope).send(&world).await;
            assert_eq!(
                (again.text("approval_id"), again.text("binding")),
                (one.text("approval_id"), one.text("binding"))
            );
        }
        assert_ne!(ask("docs:read").send(&world).await.text("approval_id"), one.text("approval_id"));
    }

    #[tokio::test]
    async fn an_approval_is_good_for_its_request_alone() {
        let world = World::held().await;
        let hold = world.hold().await;
        let id = id_of(&hold).to_owned();
        assert!(world.operator_decides(&id, true).await);
        world.add_application("app-2", |_| {}).await;
        world.add_session("s-2", |_| {}).await;
        world.add_edge("e-2", |row| row.target_session_id = AgentSessionId::parse("s-2").unwrap()).await;
        world.add_edge("e-3", |_| {}).await;
        let asks = [
            ("an unknown id", with("0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11")),
            ("no id at all", with("anything")),
            ("a record", with(&id).set("session_id", "rec-app")),
            ("another session", with(&id).set("agent_session_id", "s-2").set("delegation_edge_id", "e-2")),
            ("another delegation", with(&id).set("delegation_edge_id", "e-3")),
            ("another scope", with(&id).set("scope", "docs:write")),
            ("another resource", with(&id).add("resource", NOTES)),
            ("another case", with(&id).set("resource", "Resource://docs")),
            ("another application", with(&id).set("application_id", "app-2")),
            ("no delegation", Ask::bootstrap().set("approval_id", &id)),
        ];
        for (what, ask) in asks {
            let answer = ask.send(&world).await;
            assert_eq!(answer.outcome(), "401 access_denied", "{what}");
            assert_eq!(world.last_event().await.outcome(), "deny approval_invalid", "{what}");
        }
        assert_eq!(world.state_of(&id).await, "approved", "and none of them has spent it");
        assert_eq!(with(&id).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn what_stands_behind_a_name_is_part_of_what_was_approved() {
        let changes: [fn(&mut resources::Resource); 4] = [
            |row| row.upstream_url = Some("https://elsewhere.example".to_owned()),
            |row| row.operations.truncate(1),
            |row| row.operation_enforcement = "transport_uniform".to_owned(),
            |row| row.credential_provider_id = "prov-x".parse().ok(),
        ];
        for change in changes {
            let world = World::held().await;
            let hold = world.hold().await;
            assert!(world.operator_decides(id_of(&hold), true).await);
            world.change_resource("r-docs", change).await;
            assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "401 access_denied");
            assert_ne!(world.hold().await["approval_id"], hold["approval_id"], "it waits anew");
        }
    }

    #[tokio::test]
    async fn an_activation_voids_what_was_approved_before_it() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        world.activate(&held_for("operator")).await;
        assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "401 access_denied");
        assert_ne!(world.hold().await["approval_id"], hold["approval_id"]);
        assert_eq!(world.state_of(id_of(&hold)).await, "approved");
    }

    #[tokio::test]
    async fn a_no_stands_until_the_hold_is_over() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), false).await);
        for ask in [Ask::mint(), with(id_of(&hold))] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
            let event = world.last_event().await;
            assert_eq!(event.outcome(), "deny approval_rejected");
            assert_eq!(event.text("challenge_id"), id_of(&hold));
        }
        // Sessions and edges of the world live as long as the hold does not.
        world.expire(id_of(&hold)).await;
        assert_eq!(world.state_of(id_of(&hold)).await, "rejected");
        assert_ne!(world.hold().await["approval_id"], hold["approval_id"]);
    }

    #[tokio::test]
    async fn what_is_over_is_neither_spent_nor_surfaced() {
        for approved in [true, false] {
            let world = World::held().await;
            let hold = world.hold().await;
            if approved {
                assert!(world.operator_decides(id_of(&hold), true).await);
            }
            world.expire(id_of(&hold)).await;
            assert_eq!(world.state_of(id_of(&hold)).await, "expired");
            assert!(!world.operator_decides(id_of(&hold), true).await);
            assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "401 access_denied");
            assert_eq!(world.last_event().await.outcome(), "deny approval_expired");
            assert_ne!(world.hold().await["approval_id"], hold["approval_id"]);
        }
    }

    #[tokio::test]
    async fn tiers_decide_who_may_approve_and_for_how_long() {
        let tiers = |list: Value| {
            let scopes = json!(
                list.as_array()
                    .unwrap()
                    .iter()
                    .map(|tier| json!({"scope": "docs:read", "tier": tier["tier"]}))
                    .collect::<Vec<_>>()
            );
            format!("{POLICY}risk := {scopes}\napproval_tiers := {list}\n")
        };
        for (list, class, seconds) in [
            (json!([{"tier": "a", "approver": "any"}]), "any", 900),
            (json!([{"tier": "a", "approver": "subject"}]), "subject", 900),
            (json!([{"tier": "a", "ttl_seconds": 1}]), "operator", 60),
            (json!([{"tier": "a", "approver": "subject", "ttl_seconds": 2_592_000}]), "subject", 86_400),
        ] {
            let world = World::new().await;
            world.activate(&tiers(list)).await;
            let hold = world.hold().await;
            assert_eq!(world.approval(id_of(&hold)).await.unwrap().approver_class, class);
            assert_eq!(hold["approval_expires_at"], after(seconds).to_seconds_text(), "{class}");
        }
    }

    #[tokio::test]
    async fn tiers_that_no_one_person_can_serve_are_refused() {
        let world = World::new().await;
        let two = json!([{"tier": "a", "approver": "operator"}, {"tier": "b", "approver": "subject"}]);
        let risk = r#"[{"scope": "docs:read", "tier": "a"}, {"scope": "docs:write", "tier": "b"}]"#;
        world.add_edge("e-2", |row| row.scopes = vec!["docs:read".to_owned(), "docs:write".to_owned()]).await;
        world.add_session("s-w", |row| row.labels = vec!["writer".to_owned()]).await;
        world
            .add_edge("e-w", |row| {
                row.target_session_id = AgentSessionId::parse("s-w").unwrap();
                row.scopes = vec!["docs:read".to_owned(), "docs:write".to_owned()];
            })
            .await;
        world.activate(&format!("{POLICY}risk := {risk}\napproval_tiers := {two}\n")).await;
        let ask = Ask::mint().set("agent_session_id", "s-w").set("delegation_edge_id", "e-w");
        let answer = ask.set("scope", "docs:read docs:write").send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.outcome(), "deny approval_class_conflict");
        assert_eq!(world.approvals().await, 0);
    }

    #[tokio::test]
    async fn a_request_that_can_never_be_minted_holds_nobody_up() {
        let world = World::held().await;
        let session = Ask::bootstrap().send(&world).await.token().to_owned();
        for (ask, expected) in [
            (Ask::mint().set("ttl_seconds", "-1"), "400 invalid_token"),
            (Ask::mint().set("ttl_seconds", "3601"), "400 invalid_token"),
            (Ask::mint().set("scope", "docs:write"), "403 access_denied"),
            (Ask::mint().set("delegation_edge_id", "e-none"), "403 access_denied"),
            (Ask::direct(&session), "403 access_denied"),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), expected);
        }
        assert_eq!(world.approvals().await, 0);
    }

    #[tokio::test]
    async fn nobody_can_bury_what_others_wait_for_under_requests_of_their_own() {
        let world = World::held().await;
        let hold = world.hold().await;
        let mut row = world.approval(id_of(&hold)).await.unwrap();
        (row.binding, row.tier) = (String::new(), "buried".to_owned());
        world
            .change(row, |tx, row| {
                Box::pin(async move {
                    for number in 1..1_000 {
                        let (id, binding) = (format!("a-{number}").parse().unwrap(), format!("{number:064x}"));
                        approvals::add(tx, &ApprovalRow { id, binding, ..row.clone() }).await?;
                    }
                    Ok(())
                })
            })
            .await;
        let another = Ask::mint().add("resource", "resource://another").send(&world).await;
        assert_eq!((another.outcome().as_str(), another.header("retry-after")), ("429 provider_rate_limited", "60"));
        assert_eq!(world.last_event().await.text("refusal"), "TooManyApprovals");
        assert_eq!(world.approvals().await, 1_000);
        assert_eq!(world.hold().await["approval_id"], hold["approval_id"], "what waits is still told");
        world.tamper("DELETE FROM approvals WHERE id = 'a-7'");
        let another = Ask::mint().add("resource", "resource://another").send(&world).await;
        assert_eq!(another.outcome(), "401 interaction_required");
    }

    #[tokio::test]
    async fn a_refusal_after_the_approval_does_not_burn_it() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        assert_eq!(with(id_of(&hold)).set("ttl_seconds", "-1").send(&world).await.outcome(), "400 invalid_token");
        assert_eq!(world.state_of(id_of(&hold)).await, "approved");
        // Nor does a commit that fails: there is neither a spent hold without a record, nor a record without its spending.
        let records = world.record_ids().len();
        world.break_evidence();
        assert_eq!(with(id_of(&hold)).send(&world).await.status, 500);
        assert_eq!((world.state_of(id_of(&hold)).await.as_str(), world.record_ids().len()), ("approved", records));
        world.mend_evidence();
        assert_eq!(with(id_of(&hold)).send(&world).await.status, 200);
    }
}

mod t02_sts_reissue {
    use super::*;

    #[tokio::test]
    async fn a_lost_answer_is_given_again_for_two_minutes_under_the_same_record() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        let first = with(id_of(&hold)).send(&world).await.claims();
        let records = world.record_ids().len();
        world.clock.advance(60);
        let again = with(id_of(&hold)).send(&world).await;
        let claims = again.claims();
        assert_eq!(claims["sid"], first["sid"]);
        assert_ne!(claims["jti"], first["jti"]);
        assert_eq!((claims["exp"].as_i64(), again.json["expires_in"].as_i64()), (first["exp"].as_i64(), Some(840)));
        assert_eq!(world.record_ids().len(), records, "no second record");
        let event = world.last_event().await;
        assert_eq!(event.row.event_type, "step_up_consumed");
        assert_eq!((event.metadata["reissued"].as_bool(), event.text("challenge_id")), (Some(true), id_of(&hold)));
        assert_eq!(event.text("authority_record_id"), first["sid"].as_str().unwrap());
        world.clock.advance(61);
        let late = with(id_of(&hold)).send(&world).await;
        assert_eq!(late.outcome(), "409 approval_consumed");
        assert_eq!(world.last_event().await.outcome(), "deny approval_already_consumed");
    }

    #[tokio::test]
    async fn what_was_revoked_is_not_issued_again() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        let first = with(id_of(&hold)).send(&world).await.claims();
        world.revoke_record(first["sid"].as_str().unwrap()).await;
        assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "409 approval_consumed");
    }

    #[tokio::test]
    async fn however_often_it_is_told_again_all_of_it_is_on_record_and_ends_with_the_one_record() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(with(id_of(&hold)).send(&world).await.token().to_owned());
        }
        let claims: Vec<Value> = told.iter().map(|mandate| claims_of(mandate)).collect();
        let sid = claims[0]["sid"].as_str().unwrap();
        assert!(claims.iter().all(|claims| claims["sid"] == sid));
        let recorded = world.evidence().await.into_iter().filter(|event| event.row.event_type == "step_up_consumed");
        let recorded: Vec<Value> = recorded.map(|event| event.metadata["mandate_id"].clone()).collect();
        assert_eq!(recorded, claims.iter().map(|claims| claims["jti"].clone()).collect::<Vec<_>>());
        assert!(world.sts.exchange_for_gateway(gateway_call(&told[0])).await.is_ok());
        world.revoke_record(sid).await;
        for mandate in &told[1..] {
            let refused = world.sts.exchange_for_gateway(gateway_call(mandate)).await.err().unwrap();
            assert_eq!((refused.status().as_u16(), refused.code()), (403, "access_denied"));
        }
    }

    #[tokio::test]
    async fn a_mandate_that_was_issued_again_is_a_mandate() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        with(id_of(&hold)).send(&world).await.claims();
        let again = with(id_of(&hold)).send(&world).await.token().to_owned();
        assert!(world.sts.exchange_for_gateway(gateway_call(&again)).await.is_ok());
        assert!(world.sts.exchange_for_gateway(gateway_call(&again)).await.is_err(), "for one call");
    }
}

mod t02_sts_approval_races {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn gated_mints_that_race_are_told_of_one_hold_and_one_is_issued() {
        let world = Arc::new(World::in_real_time().await);
        world.activate(&held_for("operator")).await;
        let mints = (0..16).map(|_| {
            let world = world.clone();
            tokio::spawn(async move { Ask::mint().send(&world).await.text("approval_id").to_owned() })
        });
        let mut ids = std::collections::BTreeSet::new();
        for mint in mints.collect::<Vec<_>>() {
            ids.insert(mint.await.unwrap());
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(world.approvals().await, 1);
        let issued = types(&world).await.iter().filter(|kind| kind.starts_with("step_up_issued")).count();
        assert_eq!(issued, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_consumers_that_race_one_is_granted_a_record() {
        let world = Arc::new(World::in_real_time().await);
        world.activate(&held_for("operator")).await;
        for round in 0..10 {
            let hold = world.hold().await;
            let id = id_of(&hold).to_owned();
            assert!(world.operator_decides(&id, true).await);
            let records = world.record_ids().len();
            let consumers = (0..8).map(|number| {
                let (world, id) = (world.clone(), id.clone());
                let ask = if number % 2 == 0 { with(&id) } else { Ask::mint() };
                tokio::spawn(async move {
                    let answer = ask.send(&world).await;
                    let sid = (answer.status == 200).then(|| answer.claims()["sid"].as_str().unwrap().to_owned());
                    (answer.outcome(), sid)
                })
            });
            let mut sids = std::collections::BTreeSet::new();
            for consumer in consumers.collect::<Vec<_>>() {
                let (outcome, sid) = consumer.await.unwrap();
                let expected = ["200 ", "409 approval_consumed", "401 interaction_required"];
                assert!(expected.contains(&outcome.as_str()), "round {round}: {outcome}");
                sids.extend(sid);
            }
            // Whoever came a moment later was told again of the same record.
            assert_eq!((sids.len(), world.record_ids().len()), (1, records + 1), "round {round}");
            world.activate(&held_for("operator")).await;
        }
    }

    /// Both decide on the same approved hold before either commits.
    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_that_decided_at_the_same_moment_one_is_told_that_it_lost() {
        let world = World::held().await;
        let hold = world.hold().await;
        assert!(world.operator_decides(id_of(&hold), true).await);
        let held = Held::back(&world).await;
        let ask = with(id_of(&hold));
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
        assert_eq!(lost.text("challenge_id"), id_of(&hold));
    }

    #[tokio::test]
    async fn a_hold_that_cannot_be_is_not_believed() {
        let world = World::held().await;
        let hold = world.hold().await;
        world.tamper("UPDATE approvals SET consumed_at = 1");
        assert_eq!(with(id_of(&hold)).send(&world).await.outcome(), "503 sts_unavailable");
    }
}

#[tokio::test]
async fn no_active_policy_holds_nothing() {
    let world = World::held().await;
    let version = world.activate(&held_for("operator")).await;
    let set = PolicySetId::parse(&version.as_str().replacen("psv-", "ps-", 1)).unwrap();
    world.change(set, |tx, set| Box::pin(async move { policy_sets::deactivate(tx, set).await })).await;
    assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied");
    assert_eq!(world.approvals().await, 0);
}
