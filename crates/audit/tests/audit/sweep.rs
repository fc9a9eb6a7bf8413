//! The sweep: what it counts, and what it makes of readiness (contract: audit-and-streams.md §5.3, §7.3, §12).

use std::sync::atomic::Ordering;

use caracal_ledger::AdminRecord;
use caracal_store::StoreError;
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::ChainRow;
use serde_json::json;

use crate::world::{BEARER, NOON, World, configured, event, until};

/// Four events in one zone, one in another.
async fn recorded() -> World {
    let world = World::new().await;
    for number in 1..=4 {
        world.record(vec![event("z-1", &format!("e-{number}"), number).request("req-1")]).await;
    }
    world.record(vec![event("z-2", "other", 0)]).await;
    world
}

impl World {
    /// A sweep whose verifier fails.
    async fn sweep_in_vain(&self) {
        let said = || async { self.ask("GET", "/ready", None).await.json()["reason"].clone() };
        let before = said().await;
        self.fails.store(true, Ordering::SeqCst);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let sweeping = tokio::spawn(self.audit.clone().run_sweep(stopped));
        while self.fails.load(Ordering::SeqCst) || (before.is_null() && said().await.is_null()) {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        sweeping.await.unwrap();
    }

    /// `mismatch`, `breaks`, `hmac` as counted so far, and the reason for which it is not ready.
    async fn found(&self) -> (i64, i64, i64, Option<String>) {
        let metrics = self.metrics().await;
        let of = |name: &str| metrics[name].as_i64().unwrap();
        let ready = self.ask("GET", "/ready", None).await.json();
        let reason = ready["reason"].as_str().map(str::to_owned);
        assert_eq!(ready["ready"], json!(reason.is_none()));
        (of("tamper_mismatch_total"), of("tamper_chain_breaks"), of("tamper_hmac_failures"), reason)
    }
}

fn tampered() -> Option<String> {
    Some("ledger_tampered".to_owned())
}

mod t06_evidence_sweep {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_intact_ledger_leaves_the_service_ready() {
        let world = recorded().await;
        assert_eq!(world.metrics().await["tamper_last_full_unix"], 0, "no sweep yet");
        world.sweep().await;
        assert_eq!(world.found().await, (0, 0, 0, None));
        let metrics = world.metrics().await;
        assert_eq!(
            (&metrics["tamper_checked_total"], &metrics["tamper_last_full_unix"]),
            (&json!(5), &json!(1_767_268_801))
        );
        assert_eq!(metrics["tamper_last_sweep_unix"], metrics["tamper_last_full_unix"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_changed_column_is_a_mismatch() {
        let world = recorded().await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        world.sweep().await;
        assert_eq!(world.found().await, (1, 0, 0, tampered()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_whose_hashes_were_made_to_fit_breaks_link_and_seal() {
        let world = recorded().await;
        let other = "1".repeat(64);
        world.tamper(&format!(
            "UPDATE audit_events SET prev_content_sha256 = '{other}' WHERE id = 'e-3';
             UPDATE audit_events SET chain_hmac = '{other}' WHERE id = 'e-4'"
        ));
        world.sweep().await;
        // A seal also covers the link, so the changed link shows in both.
        assert_eq!(world.found().await, (0, 1, 2, tampered()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removed_row_and_a_cut_tail_are_breaks() {
        let world = recorded().await;
        world.tamper("DELETE FROM audit_events WHERE id = 'e-2'");
        world.sweep().await;
        let (mismatch, breaks, seals, reason) = world.found().await;
        assert_eq!((mismatch, seals, reason), (0, 0, tampered()));
        assert!(breaks >= 1);

        let world = recorded().await;
        world.tamper("DELETE FROM audit_events WHERE id = 'e-4'");
        world.sweep().await;
        assert_eq!(world.found().await, (0, 1, 0, tampered()), "the heads outside the store remember it");
    }

    /// A report keeps a thousand findings of a chain; the counts are of all there are.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_finding_is_counted_however_many_there_are() {
        let world = World::new().await;
        world.record((1..=1_100).map(|number| event("z-1", &format!("e-{number}"), number)).collect()).await;
        let other = "1".repeat(64);
        world.tamper(&format!(
            "UPDATE audit_events SET decision = 'deny';
             UPDATE audit_events SET prev_content_sha256 = '{other}' WHERE id = 'e-1050'"
        ));
        world.sweep().await;
        assert_eq!(world.found().await, (1_100, 1, 1, tampered()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_that_can_t_be_read_is_a_mismatch() {
        let world = recorded().await;
        // Text that is none, which only a file takes; a server has a type for the column, but its owner can take away that
        // there is a value.
        world.tamper(match world.place.database() {
            None => "UPDATE audit_events SET decision = CAST(x'ff' AS TEXT) WHERE id = 'e-2'",
            Some(_) => {
                "ALTER TABLE audit_events ALTER decision DROP NOT NULL;
                 UPDATE audit_events SET decision = NULL WHERE id = 'e-2'"
            }
        });
        world.sweep().await;
        let (mismatch, _, _, reason) = world.found().await;
        assert_eq!((mismatch, reason), (1, tampered()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_seal_of_a_key_that_is_not_at_hand_is_unverified_and_not_called_tampering() {
        const ALL: &str = "zone_id=z-1&since=2020-01-01T00:00:00Z&until=2030-01-01T00:00:00Z";
        let world = recorded().await;
        let events = async || world.search(ALL).await.is(200)["events"].as_array().unwrap().len();
        let before = events().await;
        world.tamper("UPDATE audit_events SET key_id = '0123456789abcdef' WHERE id = 'e-2'");
        world.sweep().await;
        assert_eq!(world.found().await, (0, 0, 0, Some("ledger_unverified".to_owned())));
        assert_eq!(events().await, before, "no incident");
        // Beside anything else that is wrong it changes nothing.
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-3'");
        world.sweep().await;
        assert_eq!(world.found().await, (1, 0, 0, tampered()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readiness_follows_the_last_sweep_and_counters_only_rise() {
        let world = recorded().await;
        world.sweep().await;
        world.tamper("UPDATE audit_events SET request_id = 'req-x' WHERE id = 'e-1'");
        world.sweep().await;
        assert_eq!(world.found().await, (1, 0, 0, tampered()));
        world.tamper("UPDATE audit_events SET request_id = 'req-1' WHERE id = 'e-1'");
        world.sweep().await;
        assert_eq!(world.found().await, (1, 0, 0, None));
        assert_eq!(world.metrics().await["tamper_checked_total"], 5 + 5 + 6, "the incident is in the chain, too");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sweep_that_could_not_run_counts_nothing_and_clears_no_verdict() {
        let world = recorded().await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        world.sweep().await;
        let counted = async || {
            let mut metrics = world.metrics().await;
            metrics.as_object_mut().unwrap().retain(|name, _| name.starts_with("tamper_"));
            metrics
        };
        let before = counted().await;
        world.sweep_in_vain().await;
        assert_eq!(counted().await, before);
        assert_eq!(world.found().await.3, tampered());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_could_not_be_verified_does_not_look_intact() {
        let world = recorded().await;
        world.sweep().await;
        world.sweep_in_vain().await;
        assert_eq!(world.found().await, (0, 0, 0, Some("ledger_unverified".to_owned())));
        world.sweep().await;
        assert_eq!(world.found().await, (0, 0, 0, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_forms_of_the_metrics_say_the_same() {
    let world = recorded().await;
    world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
    world.sweep().await;
    let json = world.metrics().await;
    let text = world.ask("GET", "/metrics", Some(&format!("Bearer {BEARER}"))).await;
    assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut lines = text.text.lines();
    let (mut names, renamed) = (
        0,
        [
            ("consumer_pel_oldest_secs", "consumer_pel_oldest_seconds"),
            ("dlq_oldest_age_secs", "dlq_oldest_age_seconds"),
            ("tamper_chain_breaks", "tamper_chain_breaks_total"),
            ("tamper_hmac_failures", "tamper_hmac_failures_total"),
            ("retention_lease_changes_total", "retention_lease_transitions_total"),
            ("export_duration_ms", "export_duration_seconds"),
            ("export_lease_changes_total", "export_lease_transitions_total"),
        ],
    );
    while let (Some(kind), Some(value)) = (lines.next(), lines.next()) {
        let (name, value) = value.strip_prefix("caracal_audit_").unwrap().split_once(' ').unwrap();
        let expected = if name.ends_with("_total") { "counter" } else { "gauge" };
        assert_eq!(kind, format!("# TYPE caracal_audit_{name} {expected}"));
        let key = renamed.iter().find(|(_, scraped)| *scraped == name).map_or(name, |(key, _)| *key);
        let said = &json[key];
        let said =
            said.as_f64().or(said.as_bool().map(|flag| f64::from(u8::from(flag)))).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(value.parse::<f64>().unwrap(), said, "{name}");
        names += 1;
    }
    assert_eq!((names, json.as_object().unwrap().len()), (28, 28), "each has its line");
    assert_eq!(json["tamper_mismatch_total"], 1);
}

mod t06_evidence_incidents {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_found_is_an_incident_in_its_zone_once() {
        let world = recorded().await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        world.sweep().await;
        world.sweep().await;
        let found = world.search("zone_id=z-1&cursor=4").await.is(200);
        let events = found["events"].as_array().unwrap();
        assert_eq!(events.len(), 1, "{found}");
        let event = &events[0]["Event"];
        assert_eq!(
            (&event["event_type"], &event["decision"], &event["evaluation_status"]),
            (&json!("ledger_incident"), &json!("deny"), &json!("anomaly"))
        );
        let expected = json!({
            "problem": "content_mismatch", "chain": "evidence", "findings": 1, "chain_seq": 2, "event_id": "e-2",
        });
        assert_eq!(event["metadata_json"], expected);
        assert_eq!(world.search("zone_id=z-2&cursor=1").await.is(200)["events"], json!(null), "not of other zones");
        assert_eq!(world.metrics().await["incidents_standing"], 1);
    }

    /// Who sends requests chooses what they are called. Nothing that can be known before the incident keeps it back.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_request_that_was_named_before_keeps_an_incident_back() {
        let world = recorded().await;
        let finding =
            "evidence chain of zone z-1: event e-2 (seq 2): the stored columns do not match their content hash";
        let digest = caracal_crypto::hmac::sha256_hex(finding.as_bytes());
        let planted = [format!("incident-{}", &digest[..32]), format!("incident-{digest}")];
        for (at, request) in (5..).zip(&planted) {
            world.record(vec![event("z-1", &format!("e-{at}"), at).request(request.as_str())]).await;
        }
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        world.sweep().await;
        let incidents = incidents(&world).await;
        assert_eq!(incidents.len(), 1, "{incidents:?}");
        assert!(!planted.contains(&incidents[0].1), "{incidents:?}");
    }

    /// While it stands it is told once, by whatever process; once a pass over everything did not find it, it is news again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_back_after_it_was_mended_is_told_again() {
        let mut world = recorded().await;
        let mut told = Vec::new();
        for expected in 1..=2 {
            world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
            for _ in 0..2 {
                world.sweep().await;
                told = incidents(&world).await;
                assert_eq!(
                    (told.len(), &world.metrics().await["incidents_standing"]),
                    (expected, &json!(1)),
                    "{told:?}"
                );
                world = another(world).await;
            }
            world.tamper("UPDATE audit_events SET decision = 'allow' WHERE id = 'e-2'");
            world.sweep().await;
            assert_eq!(
                (incidents(&world).await, &world.metrics().await["incidents_standing"]),
                (told.clone(), &json!(0))
            );
            world = another(world).await;
        }
        assert_eq!(told[0].0, told[1].0);
        assert_ne!(told[0].1, told[1].1, "each has a request id of its own");
    }

    /// Only the first is told of a chain, and the one behind it is news once it is the first. It stood all the while.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_stands_behind_another_is_not_taken_for_mended() {
        let world = recorded().await;
        let alter = |id: &str, decision: &str| {
            world.tamper(&format!("UPDATE audit_events SET decision = '{decision}' WHERE id = '{id}'"));
        };
        alter("e-3", "deny");
        world.sweep().await;
        alter("e-2", "deny");
        world.sweep().await;
        alter("e-2", "allow");
        world.sweep().await;
        let seqs: Vec<_> = incidents(&world).await.into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [json!(3), json!(2)]);
    }

    /// Cut off between the note that it stands and the event.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_noted_and_not_recorded_is_recorded_by_the_next_pass() {
        let world = recorded().await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        // The next event's place seems to be taken.
        world.tamper("UPDATE audit_heads SET chain_seq = 3 WHERE zone_id = 'z-1'");
        world.sweep().await;
        assert_eq!(incidents(&world).await, []);
        world.tamper("UPDATE audit_heads SET chain_seq = 4 WHERE zone_id = 'z-1'");
        world.sweep().await;
        assert_eq!(incidents(&world).await.len(), 1);
    }

    /// What belongs to no zone has no evidence and nobody who is sent it: it is a record in the chain of its own, and counted.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_belongs_to_no_zone_is_told_once_too_and_again_when_it_comes_back() {
        let mut world = World::new().await;
        let record = AdminRecord {
            id: "a-1".to_owned(),
            request_id: "req-1".to_owned(),
            actor_id: None,
            actor_name: None,
            actor_scope: None,
            action: "POST /v1/zones".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/zones".to_owned(),
            zone: None,
            entity_type: None,
            entity_id: None,
            status_code: 201,
            payload: None,
            occurred_at: world.store.now(),
        };
        let recorded: Result<(), StoreError> = world
            .store
            .commit_deployment((world.ledger.clone(), record), |tx, (ledger, record)| {
                Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
            })
            .await;
        recorded.unwrap();
        let alter = |world: &World, status: u16| {
            let free = match world.place.database() {
                None => "DROP TRIGGER IF EXISTS admin_audit_events_are_not_changed",
                Some(_) => "ALTER TABLE admin_audit_events DISABLE TRIGGER USER",
            };
            world.tamper(&format!("{free}; UPDATE admin_audit_events SET status_code = {status} WHERE id = 'a-1'"));
        };
        let told = async |world: &World| {
            let mut snapshot = world.store.snapshot().await.unwrap();
            let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 2, 100).await.unwrap();
            let rows = rows.into_iter().map(|row| match row {
                ChainRow::Read(row) => (row.action, row.request_id, row.payload.unwrap()),
                unreadable => panic!("{unreadable:?}"),
            });
            rows.collect::<Vec<_>>()
        };
        for expected in 1..=2 {
            alter(&world, 500);
            for _ in 0..2 {
                world.sweep().await;
                assert_eq!(told(&world).await.len(), expected);
                assert_eq!(world.metrics().await["incidents_standing"], 1);
                world = another(world).await;
            }
            alter(&world, 201);
            world.sweep().await;
            assert_eq!((told(&world).await.len(), &world.metrics().await["incidents_standing"]), (expected, &json!(0)));
            world = another(world).await;
        }
        let told = told(&world).await;
        assert_eq!(told[0].0, "Ledger incident");
        assert!(told[0].2.contains("content_mismatch"), "{told:?}");
        assert_ne!(told[0].1, told[1].1, "each has a request id of its own");
    }

    /// Which row each is about, and its request id.
    async fn incidents(world: &World) -> Vec<(serde_json::Value, String)> {
        let found = world.search("zone_id=z-1&limit=1000").await.is(200);
        let events = found["events"].as_array().unwrap().iter().map(|row| &row["Event"]);
        let ours = events.filter(|event| event["event_type"] == "ledger_incident");
        ours.map(|event| {
            (event["metadata_json"]["chain_seq"].clone(), event["request_id"].as_str().unwrap().to_owned())
        })
        .collect()
    }

    async fn another(world: World) -> World {
        let now = world.store.now().as_seconds() + 1;
        World::again(world.end().await, now, configured(), None).await
    }
}

mod t06_evidence_marks {
    use super::*;

    /// Ends once the service says so.
    async fn sweep_until(world: &World, reason: Option<&str>, full: i64) {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let sweeping = tokio::spawn(world.audit.clone().run_sweep(stopped));
        until("swept", async || {
            world.found().await.3.as_deref() == reason && world.metrics().await["tamper_last_full_unix"] == full
        })
        .await;
        stop.send_replace(true);
        sweeping.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_later_process_goes_on_at_the_mark_and_then_goes_over_everything() {
        let world = World::with_marks(configured()).await;
        for number in 1..=4 {
            world.record(vec![event("z-1", &format!("e-{number}"), number)]).await;
        }
        sweep_until(&world, None, NOON).await;
        assert_eq!(world.metrics().await["tamper_checked_total"], 4);
        world.clock.advance(10);
        world.record(vec![event("z-1", "e-5", 5)]).await;
        sweep_until(&world, None, NOON + 10).await;
        assert_eq!(world.metrics().await["tamper_checked_total"], 4 + 2 + 5, "the marked event, the new one, and all");
        assert_eq!(world.metrics().await["retention_lease_changes_total"], 4);
    }

    /// Neither a short pass nor one over everything lets pass that the end is gone, though no head says so.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_tail_that_was_seen_once_is_missed_without_heads() {
        let world = World::with_marks(configured()).await;
        for number in 1..=4 {
            world.record(vec![event("z-1", &format!("e-{number}"), number)]).await;
        }
        sweep_until(&world, None, NOON).await;
        std::fs::write(world.place.path().join("heads.log"), "").unwrap();
        world.tamper(
            "DELETE FROM audit_events WHERE chain_seq >= 3; UPDATE audit_heads SET chain_seq = 2, content_sha256 =
               (SELECT content_sha256 FROM audit_events WHERE chain_seq = 2)",
        );
        world.clock.advance(10);
        sweep_until(&world, Some("ledger_tampered"), NOON + 10).await;
        let (mismatches, breaks, seals, _) = world.found().await;
        assert!(mismatches == 0 && breaks >= 1 && seals == 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_altered_before_the_mark_is_found_at_the_next_start() {
        let world = World::with_marks(configured()).await;
        for number in 1..=4 {
            world.record(vec![event("z-1", &format!("e-{number}"), number)]).await;
        }
        sweep_until(&world, None, NOON).await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-1'");
        world.clock.advance(10);
        sweep_until(&world, Some("ledger_tampered"), NOON + 10).await;
        assert_eq!(world.found().await.0, 1);
    }
}
