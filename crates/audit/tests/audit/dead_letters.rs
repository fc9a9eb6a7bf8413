//! What was put aside, looked at and offered again (contract: audit-and-streams.md §4.2, §7, §7.2, §13).

use caracal_audit::{AuditConfig, Thresholds};
use caracal_stream::AUDIT_DEAD_LETTERS;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ingest::{data, signed};
use crate::world::{NOON, World, configured, frame_key, until};

const ROUTES: [(&str, &str); 3] =
    [("GET", "/api/audit/dlq"), ("GET", "/api/audit/dlq/1-0"), ("POST", "/api/audit/dlq/replay")];

impl World {
    async fn letter(&self, fields: &[(&str, &str)]) -> String {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.streams.add_raw(AUDIT_DEAD_LETTERS, fields).await.unwrap()
    }
}

fn ids(listed: &Value) -> Vec<&str> {
    listed["entries"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

mod t01_control_plane_dead_letters {
    use super::*;

    #[tokio::test]
    async fn without_the_token_nothing_is_shown_or_done() {
        let world = World::new().await;
        for (method, path) in ROUTES {
            for line in [None, Some("Bearer wrong")] {
                let refused = world.ask(method, &format!("{path}?limit=0"), line).await;
                refused.is_refused(401, "unauthorized");
                assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"caracal-audit\"");
            }
        }
    }

    #[tokio::test]
    async fn without_a_configured_token_there_are_no_such_routes() {
        let world = World::with(AuditConfig { admin_token: None, ..configured() }).await;
        for (method, path) in ROUTES {
            world.operator(method, path).await.is_refused(404, "resource_not_found");
        }
    }

    #[tokio::test]
    async fn another_method_is_not_allowed() {
        let world = World::new().await;
        for (method, path) in
            [("POST", "/api/audit/dlq"), ("GET", "/api/audit/dlq/replay"), ("DELETE", "/api/audit/dlq/1-0")]
        {
            let refused = world.operator(method, path).await;
            let expected =
                if path.ends_with("replay") { StatusCode::NOT_FOUND } else { StatusCode::METHOD_NOT_ALLOWED };
            assert!(
                [expected, StatusCode::METHOD_NOT_ALLOWED].contains(&refused.status),
                "{method} {path}: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn dead_letters_are_shown_with_what_can_be_read_of_them() {
    let world = World::new().await;
    let full = world
        .letter(&[
            ("reason", "pg_permanent_error:boom"),
            ("received_at", "1767268800999"),
            ("src_id", "req-1"),
            ("src_data", &data("ev-1", "allow")),
            ("src_sig", "ab"),
        ])
        .await;
    let bare = world.letter(&[("reason", "missing_data_field"), ("received_at", "not-ms")]).await;
    world.letter(&[("reason", "json_parse_error:x"), ("received_at", "-1"), ("src_data", "{")]).await;
    world.letter(&[("reason", "hmac_verify_failed"), ("received_at", "")]).await;
    world.clock.advance(90);
    let listed = world.operator("GET", "/api/audit/dlq").await;
    assert_eq!(listed.headers["cache-control"], "no-store");
    let listed = listed.is(200);
    let entries = listed["entries"].as_array().unwrap();
    assert_eq!(
        entries[0],
        json!({
            "id": full, "source_id": "req-1", "reason": "pg_permanent_error:boom", "received_at": "2026-01-01T12:00:00Z",
            "age_seconds": 90, "replayable": true, "event_id": "ev-1", "zone_id": "z-1", "event_type": "acme.thing",
            "decision": "allow", "source_sig": "ab",
        })
    );
    assert_eq!(
        entries[1],
        json!({"id": bare, "reason": "missing_data_field", "received_at": "not-ms", "age_seconds": 90, "replayable": false})
    );
    assert_eq!(entries[2]["received_at"], "-1");
    assert!(!entries[3].as_object().unwrap().contains_key("received_at"));
    assert_eq!(listed["next_cursor"], entries[3]["id"]);

    let detail = world.operator("GET", &format!("/api/audit/dlq/{full}")).await.is(200);
    assert_eq!((&detail["source_event"]["id"], &detail["fields"]["src_sig"]), (&json!("ev-1"), &json!("ab")));
    assert_eq!(detail["fields"].as_object().unwrap().len(), 5);
    for absent in ["1-0", "99999999999-7", "x", "1", "-", "1-x", "99999999999999999999999-0"] {
        world.operator("GET", &format!("/api/audit/dlq/{absent}")).await.is_refused(404, "resource_not_found");
    }
}

#[tokio::test]
async fn a_page_begins_with_the_entry_that_it_is_asked_for() {
    let world = World::new().await;
    assert_eq!(world.operator("GET", "/api/audit/dlq").await.is(200), json!({"entries": [], "next_cursor": ""}));
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(world.letter(&[("reason", "missing_data_field")]).await);
    }
    let page = async |query: &str| world.operator("GET", &format!("/api/audit/dlq?{query}")).await.is(200);
    let first = page("limit=3").await;
    assert_eq!(
        (ids(&first), &first["next_cursor"]),
        (expected[..3].iter().map(String::as_str).collect(), &json!(expected[2]))
    );
    assert_eq!(ids(&page(&format!("limit=2&start={}", expected[2])).await), [&expected[2], &expected[3]]);
    assert_eq!(ids(&page("start=-&limit=5000").await).len(), 5);
    for query in ["limit=0", "limit=-1", "limit=x", "limit=1.5"] {
        let refused = world.operator("GET", &format!("/api/audit/dlq?{query}")).await;
        refused.is_refused(400, "invalid_query");
        assert_eq!(refused.json()["error_description"], "limit must be a positive integer");
        world.operator("POST", &format!("/api/audit/dlq/replay?{query}")).await.is_refused(400, "invalid_query");
    }
    world.operator("GET", "/api/audit/dlq?start=zz").await.is_refused(400, "invalid_query");
}

/// Only what failed for a reason that may have passed; a forged frame stays where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t06_evidence_what_is_offered_again_is_judged_as_if_it_came_for_the_first_time() {
    let world = World::new().await;
    let good = signed(&frame_key(), &data("ev-1", "allow"));
    let forged = data("ev-2", "allow");
    world.letter(&[("reason", "missing_data_field"), ("src_sig", "ab")]).await;
    world.letter(&[("reason", "hmac_verify_failed"), ("src_data", &forged)]).await;
    world.letter(&[("reason", "pg_permanent_error:x"), ("src_data", "  ")]).await;
    world.letter(&[("reason", "pg_permanent_error:x"), ("src_data", &good[1].1), ("src_sig", &good[2].1)]).await;
    world.letter(&[("reason", "transient_exceeded_max_deliveries:x"), ("src_data", &forged), ("src_sig", "00")]).await;
    let replayed = world.operator("POST", "/api/audit/dlq/replay?limit=2").await.is(200);
    let blocked = (&replayed["scanned"], &replayed["replayed"], &replayed["skipped"]);
    assert_eq!(blocked, (&json!(2), &json!(0), &json!(2)));
    let start = replayed["next_cursor"].as_str().unwrap();
    let replayed = world.operator("POST", &format!("/api/audit/dlq/replay?start={start}")).await.is(200);
    assert_eq!((&replayed["scanned"], &replayed["replayed"], &replayed["skipped"]), (&json!(4), &json!(2), &json!(2)));
    assert_eq!(world.letters().await.len(), 3);
    world.ingest_all().await;
    assert_eq!(world.metrics().await["inserts_total"], 1);
    let letters = world.letters().await;
    assert_eq!(letters.last().unwrap().field("reason"), Some("hmac_verify_failed"), "it still is forged");
    assert_eq!(letters.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_is_not_ready_once_a_threshold_is_passed() {
    for (thresholds, reason) in [
        (Thresholds { dead: Some(1), ..Thresholds::default() }, "audit_dlq_threshold"),
        (Thresholds { lag: Some(1), ..Thresholds::default() }, "audit_lag_threshold"),
        (Thresholds { oldest_pending_secs: Some(30), ..Thresholds::default() }, "audit_pel_oldest_threshold"),
        (Thresholds { dead: Some(2), lag: Some(2), oldest_pending_secs: Some(90) }, ""),
    ] {
        let world = World::with(AuditConfig { thresholds, ..configured() }).await;
        for _ in 0..2 {
            world.letter(&[("reason", "missing_data_field")]).await;
            world.add(signed(&frame_key(), &data("ev-1", "allow"))).await;
        }
        world
            .streams
            .create_group("caracal.audit.events", "audit-ingestor", caracal_stream::Begin::Start)
            .await
            .unwrap();
        let mut holds = world.streams.member("caracal.audit.events", "audit-ingestor", "holds");
        assert_eq!(holds.read(1, std::time::Duration::ZERO).await.unwrap().len(), 1);
        assert_eq!(world.ask("GET", "/ready", None).await.is(200), json!({"ready": true}), "nothing was looked at yet");
        world.clock.advance(40);
        let (stop, stopped) = watch::channel(false);
        let looking = tokio::spawn(world.audit.clone().run_gauges(stopped));
        until("looked", async || world.metrics().await["dlq_oldest_age_secs"] == 40).await;
        stop.send_replace(true);
        looking.await.unwrap();
        let metrics = world.metrics().await;
        let of = |name: &str| metrics[name].as_i64().unwrap();
        assert_eq!((of("dlq_size"), of("consumer_lag"), of("consumer_pel_oldest_secs")), (2, 2, 40));
        let ready = world.ask("GET", "/ready", None).await.json();
        assert_eq!(ready["reason"].as_str().unwrap_or_default(), reason, "{NOON}");
    }
}
