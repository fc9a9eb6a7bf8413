//! Nothing is granted without evidence, and nothing is evidence of a grant that was not (README D11; security property 1).

use std::collections::{BTreeMap, BTreeSet};

use caracal_ledger::verify_store;
use serde_json::json;

use crate::support::*;

/// A reproducible sequence; the number in a failure's text is enough to see it again.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX generator: quality is not the point, order is.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

async fn assert_chain_is_intact(world: &World) {
    let mut snapshot = world.store.snapshot().await.unwrap();
    let key = ledger_key();
    let report =
        verify_store(&mut snapshot.deployment(), Some(key.as_ref()), &BTreeMap::new(), |_, _| {}).await.unwrap();
    assert!(report.is_intact(), "{:?}", report.first());
}

mod t06_evidence_of_grants {
    use super::*;

    /// Joins records and evidence: every record has its allow, every allow its record, and they say the same.
    async fn assert_joined(world: &World) {
        let seeded = BTreeSet::from(["rec-app".to_owned()]);
        let records: BTreeSet<String> = world.record_ids().into_iter().collect();
        let events = world.evidence().await;
        let mut granted = BTreeSet::new();
        for event in &events {
            let id = event.text("authority_record_id").to_owned();
            if event.row.decision != "allow" {
                assert_eq!((event.row.decision.as_str(), id.as_str()), ("deny", ""));
                continue;
            }
            let record = world.record(&id).await.unwrap();
            assert_eq!(record.jti, event.text("mandate_id"));
            assert_eq!(record.use_class, event.text("use"));
            assert_eq!(record.client_id.as_str(), event.text("application_id"));
            let session = record.agent_session_id.as_ref().map_or("", |id| id.as_str());
            assert_eq!(session, event.text("agent_session_id"));
            assert_eq!(record.created_at.as_micros(), event.row.occurred_at);
            granted.insert(id);
        }
        assert_eq!(granted, records.difference(&seeded).cloned().collect());
    }

    #[tokio::test]
    async fn every_record_has_its_allow_and_every_allow_its_record() {
        for seed in 0..3 {
            let world = World::new().await;
            world.add_resource("r-more", "resource://more", |_| {}).await;
            let mut choice = Choice(seed);
            let mut mandates: Vec<String> = Vec::new();
            let mut granted = 0;
            for step in 0..120 {
                let answer = match choice.below(10) {
                    0 => Ask::bootstrap().send(&world).await,
                    1 => Ask::bootstrap().add("resource", "resource://more").send(&world).await,
                    2 => Ask::bootstrap().set("session_id", "rec-app").set("ttl_seconds", "4000").send(&world).await,
                    3 => Ask::bootstrap().set("client_secret", "cs_wrong").set("application_id", "").send(&world).await,
                    4 => Ask::mint().set("scope", "docs:write").send(&world).await,
                    5 => Ask::mint().set("session_id", "rec-app").send(&world).await,
                    6 => match mandates.is_empty() {
                        true => continue,
                        false => {
                            let taken =
                                mandates.swap_remove(usize::try_from(choice.below(mandates.len() as u64)).unwrap());
                            let path = if choice.below(3) == 0 { "/admin" } else { "/items" };
                            let exchange = Signed::exchange(&world, &taken).set("request_path", path);
                            if choice.below(4) == 0 {
                                // Comes back later, when it is used up.
                                mandates.push(taken);
                            }
                            exchange.send(&world).await
                        }
                    },
                    7 => Ask::direct("no token").send(&world).await,
                    _ => {
                        let answer = Ask::mint().send(&world).await;
                        mandates.push(answer.token().to_owned());
                        answer
                    }
                };
                granted += usize::from(answer.status == 200);
                assert!(answer.status < 500, "seed {seed}, step {step}: {}", answer.outcome());
                world.clock.advance(1);
            }
            assert_eq!(world.record_ids().len(), granted + 1, "seed {seed}");
            assert_joined(&world).await;
            assert_chain_is_intact(&world).await;
        }
    }

    #[tokio::test]
    async fn a_mint_whose_evidence_cannot_be_written_is_none() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let records = world.record_ids();
        // The place of the next event is taken.
        world.tamper(
            "INSERT INTO audit_events SELECT zone_id, chain_seq + 1, 'taken', event_type, request_id, decision,
               policy_set_id, policy_set_version_id, manifest_sha, evaluation_status, determining_policies, diagnostics,
               metadata, occurred_at, ingested_at, content_sha256, prev_content_sha256, chain_hmac, key_id
               FROM audit_events",
        );
        assert_eq!(Ask::mint().send(&world).await.outcome(), "500 internal_error");
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "500 internal_error");
        // Not even a denial is given without it.
        assert_eq!(Ask::mint().set("scope", "docs:write").send(&world).await.outcome(), "500 internal_error");
        assert_eq!(world.record_ids(), records);
        // And nothing was used up by what did not happen.
        let mut snapshot = world.store.snapshot().await.unwrap();
        let jti = claims_of(&mandate)["jti"].as_str().unwrap().to_owned();
        assert!(!caracal_store::used_mandates::is_used(&mut snapshot.zone(&zone()), &jti).await.unwrap());
    }

    /// §12, §16: no two mandates have one name.
    #[tokio::test]
    async fn a_mandate_whose_id_is_taken_is_none_and_that_is_on_record() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let records = world.record_ids();
        world.take_every_jti();
        for request in [Ask::mint().request(), Signed::exchange(&world, &mandate).request()] {
            let answer = world.send(request).await;
            assert_eq!(answer.outcome(), "500 internal_error");
            let event = world.last_event().await;
            assert_eq!((event.row.event_type.as_str(), event.outcome().as_str()), ("jti_collision", "deny anomaly"));
            assert_eq!((event.text("app_id"), event.text("request_id")), (APP, answer.header("x-request-id")));
            assert_eq!(event.text("jti").len(), 36);
        }
        assert_eq!(world.record_ids(), records);
        // What was presented is used up, as by any other decision.
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token");
        assert_chain_is_intact(&world).await;
    }

    #[tokio::test]
    async fn what_was_allowed_and_then_refused_as_a_whole_is_no_allow() {
        let world = World::new().await;
        let answer = Ask::bootstrap().set("ttl_seconds", "3601").send(&world).await;
        assert_eq!(answer.outcome(), "400 invalid_token");
        let events = world.evidence().await;
        assert_eq!(events.iter().map(Event::outcome).collect::<Vec<_>>(), ["deny ttl_invalid"; 2]);
        // What policy said is kept all the same.
        assert_eq!(events[0].row.determining_policies, r#"[{"policy": "caracal-bootstrap"}]"#);
        assert_eq!((events[0].text("resource"), events[0].text("refusal")), (DOCS, "TtlAboveMaximum"));
    }
}

mod t06_evidence_of_denials {
    use super::*;

    #[tokio::test]
    async fn whoever_proved_who_they_are_leaves_evidence_of_every_refusal() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 4).await;
        world.add_application("app-far", |row| row.zone_id = OTHER_ZONE.parse().unwrap()).await;
        world.add_session("s-notes", |row| row.application_id = "app-notes".parse().unwrap()).await;
        let session = Ask::bootstrap().send(&world).await.token().to_owned();
        let mandate = world.mandate().await;
        let id_token = "urn:ietf:params:oauth:token-type:id_token";
        let rows = [
            ("no resource", Ask::bootstrap().without("resource").request(), "request_invalid"),
            ("no such resource", Ask::bootstrap().set("resource", "none").request(), "exchange_denied"),
            ("no such scope", Ask::bootstrap().set("scope", "none").request(), "exchange_denied"),
            ("no policy for it", Ask::bootstrap().set("application_id", "app-notes").request(), "exchange_denied"),
            ("no such record", Ask::bootstrap().set("session_id", "none").request(), "reference_invalid"),
            ("no such session", Ask::mint().set("agent_session_id", "none").request(), "reference_invalid"),
            ("another's session", Ask::mint().set("agent_session_id", "s-notes").request(), "reference_invalid"),
            ("no such edge", Ask::mint().set("delegation_edge_id", "none").request(), "reference_invalid"),
            ("too wide", Ask::mint().set("scope", "docs:write").request(), "reference_invalid"),
            ("an approval", Ask::bootstrap().set("approval_id", "x").request(), "approval_invalid"),
            ("a bad token", Ask::direct("x").request(), "subject_token_invalid"),
            ("a session mandate", Ask::direct(&session).request(), "exchange_denied"),
            (
                "an id token",
                Ask::direct("x").set("subject_token_type", id_token).request(),
                "subject_federation_invalid",
            ),
            ("too long", Ask::bootstrap().set("ttl_seconds", "3601").request(), "ttl_invalid"),
            ("no zone", Ask::bootstrap().without("zone_id").request(), "client_unauthenticated"),
            ("a Gateway's bad token", Signed::exchange(&world, "x").request(), "subject_token_invalid"),
            (
                "an operation",
                Signed::exchange(&world, &mandate).set("request_path", "/x").request(),
                "operation_not_permitted",
            ),
            ("too often", Ask::bootstrap().request(), "exchange_denied"),
        ];
        for (what, request, status) in rows {
            let before = world.evidence().await.len();
            let answer = world.send(request).await;
            assert!((400..500).contains(&answer.status), "{what}: {}", answer.outcome());
            let events = world.evidence().await;
            assert!(events.len() > before, "{what}");
            for event in &events[before..] {
                assert_eq!(
                    (event.row.decision.as_str(), event.row.request_id.as_str()),
                    ("deny", answer.header("x-request-id"))
                );
            }
            assert_eq!(events.last().unwrap().row.evaluation_status, status, "{what}");
        }
        assert_eq!(world.last_event().await.text("refusal"), "RateLimited");
        assert_chain_is_intact(&world).await;
    }

    #[tokio::test]
    async fn whoever_proved_nothing_is_counted_and_never_writes_to_a_chain() {
        let world = World::new().await;
        let far = Signed::exchange(&world, "x").set("zone_id", "z-9");
        let unknown = Signed::exchange(&world, "x").set("application_id", "app-9");
        let unnamed = Signed::exchange(&world, "x").without("application_id");
        for request in [
            Ask::bootstrap().set("client_secret", "x").request(),
            Ask::bootstrap().set("application_id", "app-9").request(),
            far.request(),
            unknown.request(),
            unnamed.request(),
        ] {
            assert_eq!(world.send(request).await.outcome(), "401 access_denied");
        }
        assert_eq!(world.counted("client_unauthenticated").await, 5);
        for zone in [ZONE, OTHER_ZONE, "z-9"] {
            assert!(world.evidence_of(zone).await.is_empty());
        }
    }

    #[tokio::test]
    async fn a_failed_policy_is_evidence_of_the_version_that_failed() {
        let world = World::new().await;
        let version = world.activate_as("package caracal.authz\n".to_owned(), "0".repeat(64)).await;
        let answer = Ask::mint().send(&world).await;
        assert_eq!((answer.outcome().as_str(), answer.header("retry-after")), ("503 policy_eval_failed", "1"));
        let event = world.last_event().await;
        assert_eq!((event.outcome().as_str(), event.text("resource")), ("deny policy_eval_failed", DOCS));
        assert_eq!((event.row.policy_set_version_id.as_str(), event.row.manifest_sha.len()), (version.as_str(), 64));
        assert!(event.diagnostics[0]["error"].as_str().unwrap().contains("hash"), "{}", event.diagnostics);
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn of_several_resources_each_has_its_own_event() {
        let world = World::new().await;
        let ask = Ask::bootstrap().add("resource", NOTES).add("resource", "resource://unknown");
        let answer = ask.send(&world).await;
        assert_eq!(answer.json["target_resources"], json!([DOCS]));
        let found: Vec<(String, String)> =
            world.evidence().await.iter().map(|event| (event.text("resource").to_owned(), event.outcome())).collect();
        let expected =
            [(DOCS, "allow complete"), (NOTES, "deny complete"), ("resource://unknown", "deny resource_not_found")];
        assert_eq!(found, expected.map(|(resource, outcome)| (resource.to_owned(), outcome.to_owned())));
    }
}
