//! An agent's application asks for one call's authority, through the delegation its session holds
//! (contract: sts.md §3.6, §3.11, §5, §9).

use caracal_authority::session::SessionStatus;
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, ResourceId};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::records::RecordRow;
use caracal_store::sessions::{self, SessionRow};
use serde_json::json;

use crate::support::*;

fn session(id: &str) -> AgentSessionId {
    AgentSessionId::parse(id).unwrap()
}

/// A mint for session `s-NAME` through edge `e-NAME`.
fn mint_of(name: &str) -> Ask {
    Ask::mint().set("agent_session_id", &format!("s-{name}")).set("delegation_edge_id", &format!("e-{name}"))
}

mod t02_sts_delegated_mint {
    use super::*;

    #[tokio::test]
    async fn a_delegated_mint_yields_a_one_shot_gateway_mandate_that_tells_its_lineage() {
        let world = World::new().await;
        world.change((), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await })).await;
        let answer = Ask::mint().send(&world).await;
        let claims = answer.claims();
        assert_eq!(
            claims,
            json!({
                "iss": ISSUER,
                "sub": APP,
                "aud": [ISSUER],
                "exp": START + 900,
                "iat": START,
                "jti": claims["jti"],
                "zone_id": ZONE,
                "client_id": APP,
                "sid": claims["sid"],
                "root_sid": claims["sid"],
                "use": "gateway",
                "sub_type": "application",
                "scope": "docs:read",
                "target": [DOCS],
                "agent_session_id": "s-1",
                "delegation_edge_id": "e-1",
                "source_session_id": "s-root",
                "target_session_id": "s-1",
                "delegation_path": ["e-1"],
                "delegation_chain": [
                    {"application_id": APP, "agent_session_id": "s-root", "delegation_edge_id": "e-1"},
                    {"application_id": APP, "agent_session_id": "s-1"},
                ],
                "hop_count": 1,
                "delegation_graph_epoch": 1,
            })
        );
        assert!(answer.json.get("upstreams").is_none());
        let record = world.record(claims["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(record.use_class, "gateway");
        assert_eq!(
            (record.agent_session_id, record.delegation_edge_id),
            (Some(session("s-1")), EdgeId::parse("e-1").ok())
        );
    }

    #[tokio::test]
    async fn an_epoch_of_zero_is_left_out() {
        let world = World::new().await;
        assert!(Ask::mint().send(&world).await.claims().get("delegation_graph_epoch").is_none());
    }

    #[tokio::test]
    async fn its_evidence_says_who_asked_for_which_session_through_whom_and_what_it_became() {
        let world = World::new().await;
        let version = world.activate(POLICY).await;
        world.change((), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await })).await;
        let answer = Ask::mint().set("session_id", "rec-app").send(&world).await;
        let claims = answer.claims();
        let events = world.evidence().await;
        let [event] = &events[..] else { panic!("{} events", events.len()) };
        assert_eq!(event.outcome(), "allow complete");
        assert_eq!(event.row.event_type, "token_exchange");
        assert_eq!(event.row.request_id, answer.header("x-request-id"));
        assert_eq!(event.row.policy_set_version_id, version.as_str());
        assert_eq!((event.row.policy_set_id.is_empty(), event.row.manifest_sha.len()), (false, 64));
        assert_eq!(event.row.determining_policies, r#"[{"policy": "caracal-docs-mint"}]"#);
        assert_eq!(event.diagnostics, json!([]));
        assert_eq!(
            event.metadata,
            json!({
                "application_id": APP,
                "application_name": "Name of app-docs",
                "application_registration_method": "managed",
                "resource": DOCS,
                "requested_scopes": ["docs:read"],
                "session_id": "rec-app",
                "agent_session_id": "s-1",
                "delegation_edge_id": "e-1",
                "subject_kind": "application",
                "agent_lifecycle": "task",
                "agent_labels": ["reader"],
                "agent_depth": 0,
                "agent_parent_id": "s-root",
                "delegation_chain": [{"application_id": APP, "agent_session_id": "s-root", "delegation_edge_id": "e-1"}],
                "delegation_hop_count": 1,
                "delegation_graph_epoch": 1,
                "delegation_scopes": ["docs:read"],
                "authority_record_id": claims["sid"],
                "mandate_id": claims["jti"],
                "use": "gateway",
            })
        );
    }

    #[tokio::test]
    async fn a_delegation_serves_the_session_it_was_given_to_and_its_application_alone() {
        let world = World::new().await;
        let notes = ApplicationId::parse("app-notes").unwrap();
        world.add_session("s-notes", |row| row.application_id = notes.clone()).await;
        world
            .add_edge("e-notes", |row| {
                row.target_session_id = session("s-notes");
                row.receiver_application_id = notes.clone();
            })
            .await;
        for (what, ask) in [
            ("another target", Ask::mint().set("agent_session_id", "s-root")),
            ("the source's own application", mint_of("notes").set("agent_session_id", "s-notes")),
            ("a third application", Ask::mint().set("application_id", "app-notes")),
            ("a session of a third application", Ask::mint().set("agent_session_id", "s-notes")),
            ("no session", Ask::mint().without("agent_session_id")),
            ("an unknown session", Ask::mint().set("agent_session_id", "s-9")),
            ("an unknown edge", Ask::mint().set("delegation_edge_id", "e-9")),
            ("what can be no session", Ask::mint().set("agent_session_id", "no id")),
            ("what can be no edge", Ask::mint().set("delegation_edge_id", "no id")),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied", "{what}");
            assert_eq!(world.last_event().await.outcome(), "deny reference_invalid", "{what}");
        }
        // And the application it was given to may use it.
        let policy = POLICY.replace(r#""docs": "app-docs""#, r#""docs": "app-notes""#);
        world.activate(&policy).await;
        let ask = mint_of("notes").set("application_id", "app-notes");
        assert_eq!(ask.send(&world).await.claims()["delegation_chain"][1]["application_id"], "app-notes");
    }

    #[tokio::test]
    async fn a_delegation_that_was_taken_back_or_has_lapsed_lends_nothing() {
        let world = World::new().await;
        world.add_constrained("lapsed", json!({"expires_at": "2026-01-01T00:00:00Z"})).await;
        assert_eq!(mint_of("lapsed").send(&world).await.outcome(), "403 access_denied");
        world.clock.advance(1799);
        assert_eq!(Ask::mint().send(&world).await.json["expires_in"], 1);
        world.clock.advance(1);
        assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied");
        world.add_edge("e-2", |_| {}).await;
        let ask = Ask::mint().set("delegation_edge_id", "e-2");
        assert_eq!(ask.send(&world).await.status, 200);
        world.revoke_edge("e-2").await;
        assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn neither_scopes_nor_life_exceed_what_is_lent() {
        let world = World::new().await;
        world.add_constrained("brief", json!({"ttl_seconds": 30})).await;
        world.add_constrained("dated", json!({"expires_at": "2026-01-01T00:00:20Z"})).await;
        for (ask, expected) in [
            (Ask::mint().set("scope", "docs:write"), "403 access_denied"),
            (Ask::mint().set("scope", "docs:read docs:write"), "403 access_denied"),
            (Ask::mint().set("scope", "docs:read docs:read"), "900"),
            (mint_of("brief").set("ttl_seconds", "60"), "403 access_denied"),
            (mint_of("brief").set("ttl_seconds", "30"), "30"),
            (mint_of("brief").set("ttl_seconds", "29"), "29"),
            (mint_of("brief"), "30"),
            (mint_of("brief").set("ttl_seconds", "0"), "30"),
            (mint_of("dated"), "20"),
            (mint_of("dated").set("ttl_seconds", "60"), "20"),
            (Ask::mint().set("ttl_seconds", "3600"), "1800"),
        ] {
            let answer = ask.send(&world).await;
            let found = if answer.status == 200 { answer.json["expires_in"].to_string() } else { answer.outcome() };
            assert_eq!(found, expected, "{}", ask.encoded());
        }
    }

    #[tokio::test]
    async fn constraints_that_cannot_be_read_lend_nothing() {
        let world = World::new().await;
        for (number, (constraints, lends)) in [
            (json!({}), true),
            (json!({"max_hops": 3, "max_depth": 3}), true),
            (json!({"resources": [DOCS]}), true),
            // Known, and it only narrows (README D24).
            (json!({"budget": 1}), true),
            (json!({"spend": 1}), false),
            (json!({"scopes": ["docs:read"]}), false),
            (json!({"ttl_seconds": "30"}), false),
            (json!({"ttl_seconds": -1}), false),
            (json!({"expires_at": "soon"}), false),
            (json!({"max_hops": 1, "max_depth": 2}), false),
            (json!({"max_hops": 11}), false),
            (json!({"resources": "resource://docs"}), false),
            (json!({"policy_approved": "yes"}), false),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("c{number}");
            world.add_constrained(&name, constraints.clone()).await;
            let answer = mint_of(&name).send(&world).await;
            assert_eq!(answer.status, if lends { 200 } else { 403 }, "{constraints}");
        }
        // Nor does what is no object, which nobody here can have written.
        for damaged in ["[]", "null", "7", "", "{"] {
            world.tamper(&format!("UPDATE delegation_edges SET constraints_json = '{damaged}' WHERE id = 'e-c0'"));
            assert_eq!(mint_of("c0").send(&world).await.status, 403, "{damaged}");
        }
    }

    #[tokio::test]
    async fn a_resource_outside_the_delegation_is_not_granted() {
        let world = World::new().await;
        world.add_resource("r-more", "resource://more", |_| {}).await;
        world.activate(&POLICY.replace(r#""resource://docs""#, r#""resource://more""#)).await;
        world.add_constrained("named", json!({"resources": ["resource://else"]})).await;
        for (what, ask) in [
            ("edge of another row", Ask::mint().set("resource", "resource://more")),
            ("constraint of another name", mint_of("named").set("resource", DOCS)),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied", "{what}");
            let events = world.evidence().await;
            let event = &events[events.len() - 2];
            assert_eq!(event.outcome(), "deny resource_outside_delegation", "{what}");
            assert_eq!(event.metadata["delegation_hop_count"], 1);
        }
        // An edge whose resource is gone lends nothing; a resource that is made anew does not inherit it.
        world.tamper("UPDATE resources SET archived_at = 1 WHERE id = 'r-docs'");
        world.add_resource("r-docs-again", DOCS, |_| {}).await;
        assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied");
    }

    /// An edge from `s-top` to a session of its own, cut from `e-top`, which may be followed by two.
    async fn add_hop(world: &World, name: &str, change: impl FnOnce(&mut EdgeRow)) {
        let target = session(&format!("s-{name}"));
        world.add_session(target.as_str(), |_| {}).await;
        world
            .add_edge(&format!("e-{name}"), |row| {
                row.parent_edge_id = EdgeId::parse("e-top").ok();
                row.source_session_id = session("s-top");
                row.target_session_id = target;
                row.expires_at = after(600);
                change(row);
            })
            .await;
    }

    #[tokio::test]
    async fn a_lineage_is_told_from_its_root_and_every_bound_of_it_counts() {
        let world = World::new().await;
        world.add_constrained("top", json!({"max_hops": 3, "ttl_seconds": 300})).await;
        add_hop(&world, "ok", |row| row.constraints = json!({"ttl_seconds": 300}).as_object().unwrap().clone()).await;
        let answer = mint_of("ok").send(&world).await;
        let claims = answer.claims();
        assert_eq!(answer.json["expires_in"], 300);
        assert_eq!(claims["delegation_path"], json!(["e-top", "e-ok"]));
        assert_eq!(claims["hop_count"], 2);
        let chain = json!([
            {"application_id": APP, "agent_session_id": "s-root", "delegation_edge_id": "e-top"},
            {"application_id": APP, "agent_session_id": "s-top", "delegation_edge_id": "e-ok"},
            {"application_id": APP, "agent_session_id": "s-ok"},
        ]);
        assert_eq!(claims["delegation_chain"], chain);
        assert_eq!((&claims["source_session_id"], &claims["target_session_id"]), (&json!("s-top"), &json!("s-ok")));
        world.clock.advance(590);
        assert_eq!(mint_of("ok").send(&world).await.json["expires_in"], 10);
    }

    #[tokio::test]
    async fn a_lineage_that_breaks_anywhere_lends_nothing() {
        let world = World::new().await;
        world.add_constrained("top", json!({"max_hops": 3})).await;
        add_hop(&world, "ok", |_| {}).await;
        add_hop(&world, "gap", |row| row.source_session_id = session("s-1")).await;
        add_hop(&world, "foreign", |row| row.issuer_application_id = ApplicationId::parse("app-notes").unwrap()).await;
        add_hop(&world, "wide", |row| row.scopes.push("docs:write".to_owned())).await;
        add_hop(&world, "long", |row| row.expires_at = after(1801)).await;
        add_hop(&world, "hops", |row| row.constraints = json!({"max_hops": 3}).as_object().unwrap().clone()).await;
        add_hop(&world, "elsewhere", |row| row.resource_id = ResourceId::parse("r-notes").ok()).await;
        add_hop(&world, "everywhere", |row| row.resource_id = None).await;
        add_hop(&world, "orphan", |row| row.parent_edge_id = EdgeId::parse("e-nowhere").ok()).await;
        add_hop(&world, "itself", |row| row.parent_edge_id = EdgeId::parse("e-itself").ok()).await;
        // `e-1` may not be followed at all: it has one hop, itself.
        add_hop(&world, "beyond", |row| {
            row.parent_edge_id = EdgeId::parse("e-1").ok();
            row.source_session_id = session("s-1");
        })
        .await;
        for name in ["gap", "foreign", "wide", "long", "hops", "elsewhere", "everywhere", "orphan", "itself", "beyond"]
        {
            assert_eq!(mint_of(name).send(&world).await.outcome(), "403 access_denied", "{name}");
            assert_eq!(world.last_event().await.outcome(), "deny reference_invalid", "{name}");
        }
        assert_eq!(mint_of("ok").send(&world).await.status, 200);
        world.revoke_edge("e-top").await;
        assert_eq!(mint_of("ok").send(&world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn a_lineage_of_more_than_ten_edges_lends_nothing() {
        let world = World::new().await;
        let mut above: Option<String> = None;
        for depth in 0..11 {
            let name = format!("d{depth}");
            world.add_session(&format!("s-{name}"), |_| {}).await;
            world
                .add_edge(&format!("e-{name}"), |row| {
                    row.target_session_id = session(&format!("s-{name}"));
                    row.constraints = json!({"max_hops": 10}).as_object().unwrap().clone();
                    if let Some(above) = &above {
                        // Mirrors consume no hop, so only the length is at fault.
                        row.mirrored = true;
                        row.parent_edge_id = EdgeId::parse(&format!("e-{above}")).ok();
                        row.source_session_id = session(&format!("s-{above}"));
                    }
                })
                .await;
            above = Some(name);
        }
        assert_eq!(mint_of("d9").send(&world).await.claims()["hop_count"], 10);
        assert_eq!(mint_of("d10").send(&world).await.outcome(), "403 access_denied");
    }

    type Different<'d> = &'d dyn Fn(&mut SessionRow);

    #[tokio::test]
    async fn a_session_acts_only_while_it_lives() {
        let world = World::new().await;
        world.add_record("rec-lapsed", |row| row.expires_at = after(0)).await;
        let user = |row: &mut RecordRow| {
            row.kind = "user".to_owned();
            row.subject_id = "user-1".to_owned();
        };
        world.add_record("rec-user", user).await;
        world.add_record("rec-user-gone", user).await;
        world.revoke_record("rec-user-gone").await;
        let service = |row: &mut SessionRow, deadline| {
            row.lifecycle = "service".to_owned();
            row.ttl_seconds = None;
            row.lease_generation = 1;
            row.heartbeat_deadline_at = Some(after(deadline));
        };
        let anchored =
            |row: &mut SessionRow, record: &str| row.subject_record_id = AuthorityRecordId::parse(record).unwrap();
        let rows: [(&str, Different<'_>, u16); 10] = [
            ("task", &|_| {}, 200),
            ("overdue", &|row| row.ttl_seconds = Some(0), 403),
            ("suspended", &|row| row.status = "suspended".to_owned(), 403),
            ("terminated", &|row| row.status = "terminated".to_owned(), 403),
            ("service", &|row| service(row, 1), 200),
            ("stale-service", &|row| service(row, 0), 403),
            ("user", &|row| anchored(row, "rec-user"), 200),
            ("user-gone", &|row| anchored(row, "rec-user-gone"), 403),
            ("application-lapsed", &|row| anchored(row, "rec-lapsed"), 200),
            ("unanchored", &|row| anchored(row, "rec-unknown"), 403),
        ];
        for (name, change, expected) in rows {
            world.add_session(&format!("s-{name}"), change).await;
            world.add_edge(&format!("e-{name}"), |row| row.target_session_id = session(&format!("s-{name}"))).await;
            assert_eq!(mint_of(name).send(&world).await.status, expected, "{name}");
        }
        // Who lends has to live, too.
        world
            .change(session("s-root"), |tx, root| {
                Box::pin(async move { sessions::end(tx, root, SessionStatus::Terminated, "test").await })
            })
            .await;
        assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn what_an_unsigned_caller_says_of_an_upstream_call_is_not_heard() {
        let world = World::new().await;
        let ask = Ask::mint()
            .set("request_method", "DELETE")
            .set("request_path", "/admin")
            .set("gateway_request_id", "anything");
        let answer = ask.send(&world).await;
        assert_eq!(answer.status, 200);
        assert!(answer.json.get("upstreams").is_none());
        let event = world.last_event().await;
        assert!(event.metadata.get("method").is_none() && event.metadata.get("path").is_none());
    }

    #[tokio::test]
    async fn policy_holds_the_role_against_every_scope() {
        let world = World::new().await;
        world.add_constrained("writer", json!({})).await;
        world.tamper(r#"UPDATE delegation_edges SET scopes = '["docs:read","docs:write"]' WHERE id = 'e-writer'"#);
        let ask = mint_of("writer").set("scope", "docs:read docs:write");
        assert_eq!(ask.send(&world).await.text("error_description"), "policy denied (role_scope_mismatch)");
        world.tamper(r#"UPDATE agent_sessions SET labels = '["writer"]' WHERE id = 's-writer'"#);
        assert_eq!(ask.send(&world).await.json["scope"], "docs:read docs:write");
    }
}
