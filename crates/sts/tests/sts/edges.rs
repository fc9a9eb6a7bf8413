//! Edges that lie between the subjects of the other files (contract: sts.md "Edge cases worth a test", §3.7, §3.11).

use std::time::Duration;

use caracal_authority::{AgentSessionId, AuthorityRecordId};
use caracal_store::records::RecordRow;
use serde_json::{Value, json};

use crate::support::*;

/// What ends so many microseconds after [`START`].
fn micros_after(micros: u64) -> caracal_authority::Timestamp {
    after(0).plus(Duration::from_micros(micros))
}

fn session(id: &str) -> AgentSessionId {
    AgentSessionId::parse(id).unwrap()
}

mod t02_sts_lifetimes {
    use super::*;

    /// The shortest life there is, or the refusal of one.
    fn told(answer: &Answer) -> String {
        if answer.status == 200 { answer.json["expires_in"].to_string() } else { answer.outcome() }
    }

    /// Clients refuse `expires_in` 0, so what is left of less than a second is nothing.
    #[tokio::test]
    async fn whatever_ends_within_the_second_lends_nothing_and_a_whole_second_is_lent() {
        for (micros, expected) in [(1_000_000, "1"), (999_999, "403 access_denied")] {
            let end = micros_after(micros);
            let world = World::new().await;
            world.add_edge("e-short", |row| row.expires_at = end).await;
            world.add_record("rec-short", |row| row.expires_at = end).await;
            let user = |row: &mut RecordRow| {
                row.kind = "user".to_owned();
                row.expires_at = end;
            };
            world.add_record("rec-user", user).await;
            world
                .add_session("s-user", |row| row.subject_record_id = AuthorityRecordId::parse("rec-user").unwrap())
                .await;
            world.add_edge("e-user", |row| row.target_session_id = session("s-user")).await;
            world
                .add_session("s-short", |row| {
                    row.ttl_seconds = Some(10);
                    row.started_at = end.minus(Duration::from_secs(10));
                })
                .await;
            world.add_edge("e-session", |row| row.target_session_id = session("s-short")).await;
            world.add_edge("e-source", |row| row.source_session_id = session("s-short")).await;
            for (what, ask) in [
                ("its edge", Ask::mint().set("delegation_edge_id", "e-short")),
                ("the asserted record", Ask::mint().set("session_id", "rec-short")),
                (
                    "the user behind its session",
                    Ask::mint().set("agent_session_id", "s-user").set("delegation_edge_id", "e-user"),
                ),
                ("its session", Ask::mint().set("agent_session_id", "s-short").set("delegation_edge_id", "e-session")),
                ("the session that lends", Ask::mint().set("delegation_edge_id", "e-source")),
                ("the record of a bootstrap", Ask::bootstrap().set("session_id", "rec-short")),
            ] {
                let answer = ask.send(&world).await;
                assert_eq!(told(&answer), expected, "{what}, {micros} us");
                if answer.status != 200 {
                    let event = world.last_event().await;
                    assert_eq!(event.outcome(), "deny lifetime_exhausted", "{what}");
                    assert_eq!(event.text("refusal"), "LifetimeExhausted", "{what}");
                }
            }
            // What was presented, by the record behind it.
            let mandate = world.mandate().await;
            let sid = claims_of(&mandate)["sid"].as_str().unwrap().to_owned();
            world.tamper(&format!("UPDATE authority_records SET expires_at = {} WHERE id = '{sid}'", end.as_micros()));
            assert_eq!(told(&Signed::exchange(&world, &mandate).send(&world).await), expected, "{micros} us");
            // The application itself.
            world.add_application("app-short", |row| row.expires_at = Some(end)).await;
            world.activate(&POLICY.replace("app-docs", "app-short")).await;
            let ask = Ask::bootstrap().set("application_id", "app-short");
            assert_eq!(told(&ask.send(&world).await), expected, "{micros} us");
        }
    }

    #[tokio::test]
    async fn a_control_key_that_ends_within_the_second_mints_nothing() {
        for (end, expected) in [("01.0", "1"), ("00.999", "403 access_denied")] {
            let world = World::new().await;
            world
                .add_resource("r-control", "caracal-control", |row| row.scopes = vec!["control:app:read".to_owned()])
                .await;
            let traits = ["control:invoke", "control:scope:control:app:read"].map(str::to_owned);
            let end = format!("control:expires:2026-01-01T00:00:{end}Z");
            world.change_application(APP, |row| row.traits = traits.into_iter().chain([end]).collect()).await;
            let ask = Ask::bootstrap().set("resource", "caracal-control").set("scope", "control:app:read");
            assert_eq!(told(&ask.send(&world).await), expected);
        }
    }
}

mod t02_sts_direct_exchange {
    use super::*;

    /// In no other test does policy allow what a client presents itself: a session mandate as nobody mints it, with all
    /// that policy wants of one that is used.
    #[tokio::test]
    async fn a_session_mandate_that_policy_allows_is_not_minted_for_outside_the_gateway() {
        let world = World::new().await;
        world.keys.create(&zone()).await.unwrap();
        let token = world
            .mandate_of(APP, "rec-app", |claims| {
                claims["sub_type"] = json!("application");
                claims["agent_session_id"] = json!("s-1");
                claims["delegation_edge_id"] = json!("e-1");
                claims["scope"] = json!("docs:read");
                claims["target"] = json!([DOCS]);
            })
            .await;
        let answer = Ask::direct(&token).send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        assert!(answer.json.get("access_token").is_none() && answer.json.get("upstreams").is_none());
        let events = world.evidence().await;
        let [of_resource, of_exchange] = &events[..] else { panic!("{} events", events.len()) };
        assert_eq!(of_resource.row.determining_policies, r#"[{"policy": "caracal-docs-use"}]"#);
        for event in [of_resource, of_exchange] {
            assert_eq!(event.outcome(), "deny gateway_required");
            assert_eq!(event.text("refusal"), "SubjectTokenOutsideGateway");
        }
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn a_record_that_has_ended_by_the_store_s_clock_ends_its_mandate() {
        let world = World::new().await;
        let token = Ask::bootstrap().send(&world).await.token().to_owned();
        let sid = claims_of(&token)["sid"].as_str().unwrap().to_owned();
        world.tamper(&format!("UPDATE authority_records SET expires_at = {START}000000 WHERE id = '{sid}'"));
        assert_eq!(Ask::direct(&token).send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("refusal"), "RecordNotLive");
    }
}

mod t02_sts_explained {
    use super::*;

    /// Difference D33: evidence of a denial says all that the decision saw.
    #[tokio::test]
    async fn a_denied_exchange_tells_what_the_presented_mandate_carried() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.activate(&POLICY.replace(r#""reader": ["docs:read"], "#, "")).await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(answer.text("error_description"), "policy denied (role_scope_mismatch)");
        for event in world.evidence().await.iter().skip(1) {
            let metadata = &event.metadata;
            assert_eq!(
                (&metadata["presented_scope"], &metadata["presented_targets"], &metadata["requested_scopes"]),
                (&json!("docs:read"), &json!([DOCS]), &json!([]))
            );
            assert_eq!(
                (&metadata["delegation_scopes"], &metadata["agent_labels"]),
                (&json!(["docs:read"]), &json!(["reader"]))
            );
            assert_eq!((event.text("method"), event.text("path")), ("GET", "/items"));
        }
    }

    #[tokio::test]
    async fn a_denied_mint_tells_what_its_delegation_lends_and_of_no_mandate() {
        let world = World::new().await;
        world.activate(&POLICY.replace(r#""reader": ["docs:read"], "#, "")).await;
        let answer = Ask::mint().send(&world).await;
        assert_eq!(answer.text("error_description"), "policy denied (role_scope_mismatch)");
        let metadata: Vec<Value> = world.evidence().await.into_iter().map(|event| event.metadata).collect();
        for metadata in metadata {
            assert_eq!(metadata["delegation_scopes"], json!(["docs:read"]));
            assert!(metadata.get("presented_scope").is_none() && metadata.get("presented_targets").is_none());
        }
    }
}
