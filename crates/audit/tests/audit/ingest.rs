//! Frames of clients: what gets into the ledger, and what is put aside (contract: audit-and-streams.md §2.4, §4, §12, §13).

use std::sync::Arc;
use std::time::Duration;

use caracal_audit::AuditConfig;
use caracal_crypto::hmac::HmacKey;
use caracal_stream::{AUDIT_DEAD_LETTERS, AUDIT_EVENTS, Begin, RawEntry};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{World, configured, frame_key, previous_key, until};

pub(crate) fn data(id: &str, decision: &str) -> String {
    format!(
        r#"{{"zone_id":"z-1","id":"{id}","event_type":"acme.thing","decision":"{decision}","metadata_json":{{"b":1.0,"a":"<é>"}},"occurred_at":"2026-01-01T12:00:00.5Z"}}"#
    )
}

pub(crate) fn signed(key: &HmacKey, data: &str) -> Vec<(String, String)> {
    let fields = [("id", "req-1".to_owned()), ("data", data.to_owned()), ("sig", key.sign_hex(&[data.as_bytes()]))];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl World {
    pub(crate) async fn add(&self, fields: Vec<(String, String)>) {
        self.streams.add_raw(AUDIT_EVENTS, fields).await.unwrap();
    }

    pub(crate) async fn letters(&self) -> Vec<RawEntry> {
        self.streams.list_raw(AUDIT_DEAD_LETTERS, None, 100).await.unwrap()
    }

    /// What the group has not let go of or not seen yet.
    async fn open_frames(&self) -> u64 {
        let groups = self.streams.list_groups(AUDIT_EVENTS).await.unwrap();
        groups.iter().find(|group| group.name == "audit-ingestor").map_or(1, |group| group.pending + group.lag)
    }

    pub(crate) fn ingest(&self) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (stop, stopped) = watch::channel(false);
        (stop, tokio::spawn(self.audit.clone().run_ingest(stopped)))
    }

    /// Everything there is, to its end.
    pub(crate) async fn ingest_all(&self) {
        let (stop, ingesting) = self.ingest();
        until("every frame was let go", async || self.open_frames().await == 0).await;
        stop.send_replace(true);
        ingesting.await.unwrap();
    }

    /// No dead letter can be written from now on.
    fn refuse_letters(&self) {
        self.tamper(if self.place.database().is_some() {
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON stream_entries FOR EACH ROW
             WHEN (NEW.topic = 'caracal.audit.events.dlq') EXECUTE FUNCTION refuse()"
        } else {
            "CREATE TRIGGER refuse BEFORE INSERT ON stream_entries WHEN NEW.topic = 'caracal.audit.events.dlq'
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        });
    }

    fn take_letters(&self) {
        self.tamper(if self.place.database().is_some() {
            "DROP TRIGGER refuse ON stream_entries"
        } else {
            "DROP TRIGGER refuse"
        });
    }

    async fn events(&self) -> Vec<Value> {
        let found = self.search("zone_id=z-1&since=2020-01-01T00:00:00Z&until=2030-01-01T00:00:00Z").await.is(200);
        found["events"].as_array().cloned().unwrap_or_default()
    }
}

mod t06_evidence_ingest {
    use super::*;

    /// Also one that was added before anybody read.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_signed_frame_becomes_one_event_however_often_it_comes() {
        let world = World::new().await;
        let frame = signed(&frame_key(), &data("ev-1", "allow"));
        world.add(frame.clone()).await;
        world.add(frame.clone()).await;
        world.ingest_all().await;
        world.add(frame).await;
        let mut upper = signed(&frame_key(), &data("ev-2", "deny"));
        upper[2].1 = upper[2].1.to_uppercase();
        world.add(upper).await;
        world.ingest_all().await;
        let events = world.events().await;
        let ids: Vec<_> = events.iter().map(|row| (&row["Event"]["id"], &row["ChainSeq"])).collect();
        assert_eq!(ids, [(&json!("ev-1"), &json!(1)), (&json!("ev-2"), &json!(2))]);
        assert_eq!(events[0]["Event"]["metadata_json"], json!({"a": "<é>", "b": 1.0}));
        let metrics = world.metrics().await;
        assert_eq!((&metrics["inserts_total"], &metrics["dlq_total"]), (&json!(2), &json!(0)));
        assert!(world.letters().await.is_empty());
        world.sweep().await;
        assert_eq!(world.ask("GET", "/ready", None).await.is(200), json!({"ready": true}), "the sweep finds it clean");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn frames_under_the_key_that_was_replaced_are_taken_for_a_day_and_no_longer() {
        let world = World::new().await;
        let late = |id: &str| signed(&previous_key(), &data(id, "allow"));
        for (id, wait) in [("ev-1", 0), ("ev-2", 86_399), ("ev-3", 1), ("ev-4", 86_400)] {
            world.clock.advance(wait);
            world.add(late(id)).await;
            world.ingest_all().await;
        }
        world.add(signed(&frame_key(), &data("ev-5", "allow"))).await;
        world.ingest_all().await;
        let events = world.events().await;
        let ids: Vec<_> = events.iter().map(|row| &row["Event"]["id"]).collect();
        assert_eq!(ids, ["ev-1", "ev-2", "ev-5"]);
        let letters = world.letters().await;
        assert_eq!(letters.len(), 2);
        assert!(letters.iter().all(|letter| letter.field("reason") == Some("hmac_verify_failed")), "{letters:?}");
        // What was taken is sealed with the key in use.
        world.sweep().await;
        assert_eq!(world.ask("GET", "/ready", None).await.is(200), json!({"ready": true}));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_forged_or_no_event_is_put_aside_with_its_reason_and_never_stored() {
        let world = World::new().await;
        let key = frame_key();
        let sig = |value: &str| {
            let mut fields = signed(&key, &data("ev-1", "allow"));
            fields[2].1 = value.to_owned();
            fields
        };
        let mut changed = signed(&key, &data("ev-1", "allow"));
        changed[1].1 = data("ev-1", "deny");
        let stranger = HmacKey::from_bytes(&[8; 32]).unwrap();
        let cases = [
            (vec![("sig".to_owned(), "00".to_owned())], "missing_data_field"),
            (sig("bad"), "hmac_verify_failed"),
            (sig(""), "hmac_verify_failed"),
            (sig(&"0".repeat(64)), "hmac_verify_failed"),
            (changed, "hmac_verify_failed"),
            (signed(&stranger, &data("ev-1", "allow")), "hmac_verify_failed"),
            (signed(&key, "{"), "json_parse_error:"),
            (signed(&key, r#"{"id":"e"}"#), "json_parse_error:"),
            (signed(&key, &data("ev-1", "allow").replace("\"allow\"", "5")), "json_parse_error:"),
            (signed(&key, &format!("{} x", data("ev-1", "allow"))), "json_parse_error:"),
        ];
        for (fields, _) in &cases {
            world.add(fields.clone()).await;
        }
        world.ingest_all().await;
        let letters = world.letters().await;
        assert_eq!(letters.len(), cases.len());
        for (letter, (fields, reason)) in letters.iter().zip(&cases) {
            assert!(letter.field("reason").unwrap().starts_with(reason), "{letter:?}");
            assert_eq!(letter.field("received_at"), Some("1767268800000"));
            for (name, value) in fields {
                assert_eq!(letter.field(&format!("src_{name}")), Some(value.as_str()), "{letter:?}");
            }
            // Where a frame has no id of its own, the entry's name stands there.
            let entry = letter.field("src_entry_id").unwrap();
            let expected = if fields.len() == 3 { "req-1" } else { entry };
            assert_eq!(letter.field("src_id"), Some(expected));
        }
        assert!(world.events().await.is_empty());
        let metrics = world.metrics().await;
        let of = |name: &str| metrics[name].as_u64().unwrap();
        assert_eq!((of("dlq_total"), of("hmac_failures_total"), of("parse_errors_total")), (10, 5, 5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_content_under_a_known_name_changes_nothing_and_is_an_incident() {
        let world = World::new().await;
        world.add(signed(&frame_key(), &data("ev-1", "allow"))).await;
        for _ in 0..2 {
            world.add(signed(&frame_key(), &data("ev-1", "deny"))).await;
        }
        world.ingest_all().await;
        let events = world.events().await;
        assert_eq!((events.len(), &events[0]["Event"]["decision"]), (2, &json!("allow")), "{events:?}");
        let incident = &events[1]["Event"];
        assert_eq!((&incident["event_type"], &incident["decision"]), (&json!("ledger_incident"), &json!("deny")));
        let about = &incident["metadata_json"];
        assert_eq!((&about["event_id"], &about["stored"]), (&json!("ev-1"), &events[0]["ContentSHA256"]));
        let letters = world.letters().await;
        assert_eq!(
            letters.iter().map(|letter| letter.field("reason")).collect::<Vec<_>>(),
            [Some("tamper_on_replay"); 2]
        );
        assert_eq!(world.metrics().await["tamper_replay_total"], 2);
    }

    /// The clock is the store's, and evidence is kept for two days.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_not_have_happened_yet_or_is_not_kept_any_more_is_put_aside_and_counted() {
        let world = World::with(AuditConfig { retention_days: 2, ..configured() }).await;
        for (at, instant) in [
            "2026-01-01T12:05:00Z",
            "2026-01-01T14:05:00.000001+02:00",
            "9999-12-31T23:59:59Z",
            "2025-12-30T12:00:00Z",
            "2025-12-30T11:59:59.999999Z",
        ]
        .into_iter()
        .enumerate()
        {
            let frame = data(&format!("ev-{at}"), "allow").replace("2026-01-01T12:00:00.5Z", instant);
            world.add(signed(&frame_key(), &frame)).await;
        }
        world.ingest_all().await;
        let rows = world.search("zone_id=z-1&since=2020-01-01T00:00:00Z&until=9999-12-31T23:59:59.9Z").await.is(200);
        let ids: Vec<_> = rows["events"].as_array().unwrap().iter().map(|row| row["Event"]["id"].clone()).collect();
        assert_eq!(ids, ["ev-0", "ev-3"]);
        let letters = world.letters().await;
        assert_eq!(letters.len(), 3);
        assert!(letters.iter().all(|letter| letter.field("reason").unwrap().starts_with("occurred_at_out_of_bounds:")));
        let metrics = world.metrics().await;
        assert_eq!((&metrics["dlq_total"], &metrics["occurred_at_out_of_bounds_total"]), (&json!(3), &json!(3)));
        assert_eq!(world.operator("POST", "/api/audit/dlq/replay").await.is(200)["replayed"], 0);
    }

    /// Whoever can bring what the ledger says of itself could raise alarms, and have a true one taken for told.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_incident_can_be_neither_brought_nor_kept_back_by_what_was_named_like_it() {
        let world = World::new().await;
        let (stored, incoming) = (data("ev-1", "allow"), data("ev-1", "deny"));
        let hash = caracal_ledger::ChainRecord::content_sha256(&caracal_ledger::read_event(&incoming).unwrap().1);
        // Who holds the key of frames knows even this.
        let signed_text = format!("caracal ledger incident v1\nz-1\nreplay ev-1 {hash}");
        let request = format!("incident-{}", &frame_key().sign_hex(&[signed_text.as_bytes()])[..32]);
        for word in ["ledger_incident", "ledger_\\u0000incident"] {
            let planted = data("planted", "deny").replace("acme.thing", word);
            let planted = planted.replace(r#""decision""#, &format!(r#""request_id":"{request}","decision""#));
            world.add(signed(&frame_key(), &planted)).await;
        }
        world.record(vec![crate::world::event("z-1", "e-1", 1).request(request.as_str())]).await;
        world.add(signed(&frame_key(), &stored)).await;
        for _ in 0..2 {
            world.add(signed(&frame_key(), &incoming)).await;
        }
        world.ingest_all().await;
        let events = world.events().await;
        let said: Vec<_> =
            events.iter().map(|row| (&row["Event"]["event_type"], &row["Event"]["request_id"])).collect();
        let (exchange, thing, incident) = (json!("token_exchange"), json!("acme.thing"), json!("ledger_incident"));
        let (request, none) = (json!(request), json!(""));
        assert_eq!(said, [(&exchange, &request), (&thing, &none), (&incident, &request)]);
        let reasons: Vec<_> =
            world.letters().await.iter().map(|letter| letter.field("reason").unwrap().to_owned()).collect();
        assert!(reasons[..2].iter().all(|reason| reason.starts_with("reserved_event_type:")), "{reasons:?}");
        assert_eq!(reasons[2..], ["tamper_on_replay"; 2]);
    }

    /// One that kills whoever reads it must not do so for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_frame_that_nobody_came_to_an_end_with_is_put_aside_in_the_end() {
        let config = AuditConfig { max_deliveries: 2, claim_idle: Duration::ZERO, ..configured() };
        let world = World::with(config).await;
        world.streams.create_group(AUDIT_EVENTS, "audit-ingestor", Begin::Start).await.unwrap();
        world.add(signed(&frame_key(), &data("ev-1", "allow"))).await;
        let mut dies = world.streams.member(AUDIT_EVENTS, "audit-ingestor", "dies");
        assert_eq!(dies.read(10, Duration::ZERO).await.unwrap().len(), 1);
        let patience = caracal_stream::Patience { first: Duration::ZERO, longest: Duration::ZERO };
        assert_eq!(dies.reclaim(patience, 10).await.unwrap()[0].deliveries(), 2);
        world.ingest_all().await;
        let letters = world.letters().await;
        assert!(letters[0].field("reason").unwrap().starts_with("transient_exceeded_max_deliveries:"), "{letters:?}");
        assert!(world.events().await.is_empty());
    }

    /// It would be in no place at all if it was let go.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_not_be_put_aside_is_kept_uncounted_until_it_can() {
        let config = AuditConfig { claim_idle: Duration::ZERO, max_deliveries: u64::MAX, ..configured() };
        let world = World::with(config).await;
        world.refuse_letters();
        world.add(signed(&frame_key(), "{")).await;
        let (stop, ingesting) = world.ingest();
        let counted = async || {
            let metrics = world.metrics().await;
            ["retries_total", "dlq_total", "parse_errors_total"].map(|name| metrics[name].as_u64().unwrap())
        };
        until("it was handed out again", async || counted().await[0] > 0).await;
        assert_eq!(
            (&counted().await[1..], world.letters().await.len(), world.open_frames().await),
            (&[0, 0][..], 0, 1)
        );
        world.take_letters();
        until("it was let go", async || world.open_frames().await == 0).await;
        stop.send_replace(true);
        ingesting.await.unwrap();
        assert_eq!((&counted().await[1..], world.letters().await.len()), (&[1, 1][..], 1));
    }

    /// A page of frames begins with more bad ones than a page has, and every one of them is due at once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_not_be_put_aside_keeps_no_other_frame_and_the_service_is_not_ready() {
        let world = World::with(AuditConfig { claim_idle: Duration::ZERO, max_deliveries: 2, ..configured() }).await;
        world.refuse_letters();
        for n in 0..120 {
            world.add(signed(&frame_key(), "{")).await;
            if n % 40 == 20 {
                world.add(signed(&frame_key(), &data(&format!("ev-{n}"), "allow"))).await;
            }
        }
        world.sweep().await;
        let (stop, ingesting) = world.ingest();
        until("the good ones are stored", async || world.events().await.len() == 3).await;
        world.add(signed(&frame_key(), &data("ev-late", "allow"))).await;
        until("a later one is stored", async || world.events().await.len() == 4).await;
        until("the others were tried again", async || world.metrics().await["retries_total"].as_u64() > Some(240))
            .await;
        until("what was stored was let go, and nothing else", async || world.open_frames().await == 120).await;
        assert_eq!((world.letters().await.len(), world.ask("GET", "/health", None).await.status.as_u16()), (0, 200));
        assert_eq!(world.ask("GET", "/ready", None).await.is(503)["reason"], "audit_dlq_unavailable");
        world.take_letters();
        until("they are put aside", async || world.open_frames().await == 0).await;
        stop.send_replace(true);
        ingesting.await.unwrap();
        assert_eq!((world.letters().await.len(), world.events().await.len()), (100, 4));
        assert_eq!(world.metrics().await["dlq_total"], 120);
        world.ask("GET", "/ready", None).await.is(200);
    }

    /// After it was handed a frame, and after the event's commit: nobody has let go of the frame in either case.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_is_there_once_wherever_its_reader_was_killed() {
        let world = World::with(AuditConfig { claim_idle: Duration::ZERO, ..configured() }).await;
        world.streams.create_group(AUDIT_EVENTS, "audit-ingestor", Begin::Start).await.unwrap();
        for id in ["ev-1", "ev-2"] {
            world.add(signed(&frame_key(), &data(id, "allow"))).await;
        }
        let mut forged = signed(&frame_key(), &data("ev-3", "allow"));
        forged[2].1 = "00".to_owned();
        world.add(forged).await;
        let mut dies = world.streams.member(AUDIT_EVENTS, "audit-ingestor", "dies");
        assert_eq!(dies.read(10, Duration::ZERO).await.unwrap().len(), 3);
        let (zone, event) = caracal_ledger::read_event(&data("ev-2", "allow")).unwrap();
        let committed: Result<_, caracal_store::StoreError> = world
            .store
            .commit(&zone, (world.ledger.clone(), event), |tx, (ledger, event)| {
                Box::pin(async move { ledger.ingest(tx, event).await })
            })
            .await;
        committed.unwrap();
        drop(dies);
        world.ingest_all().await;
        let mut ids: Vec<_> = world.events().await.iter().map(|row| row["Event"]["id"].to_string()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["\"ev-1\"", "\"ev-2\""]);
        let reasons: Vec<_> =
            world.letters().await.iter().map(|letter| letter.field("reason").unwrap().to_owned()).collect();
        assert_eq!(reasons, ["hmac_verify_failed"]);
    }

    /// Nothing but what names it and says when.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_without_type_and_decision_is_stored() {
        let world = World::new().await;
        let bare = r#"{"id":"ev-1","zone_id":"z-1","occurred_at":"2026-01-01T12:00:00Z"}"#;
        world.add(signed(&frame_key(), bare)).await;
        world.ingest_all().await;
        let events = world.events().await;
        let event = &events[0]["Event"];
        assert_eq!((&event["id"], &event["event_type"], &event["decision"]), (&json!("ev-1"), &json!(""), &json!("")));
        assert!(world.letters().await.is_empty());
    }

    /// An instant is stored in UTC and to the microsecond, whatever its producer wrote, and is part of what an event is known by.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_instant_that_differs_below_a_microsecond_or_in_its_offset_is_the_same() {
        let world = World::new().await;
        let at =
            |instant: &str| signed(&frame_key(), &data("ev-1", "allow").replace("2026-01-01T12:00:00.5Z", instant));
        for instant in ["2026-01-01T14:00:00.123456789+02:00", "2026-01-01T12:00:00.123456001Z"] {
            world.add(at(instant)).await;
        }
        world.ingest_all().await;
        let instants = async || {
            let rows = world.events().await;
            rows.iter().map(|row| row["Event"]["occurred_at"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(instants().await, ["2026-01-01T12:00:00.123456Z"]);
        world.add(at("2026-01-01T12:00:00.123457Z")).await;
        world.ingest_all().await;
        assert_eq!(instants().await.len(), 2, "a microsecond later is another");
        assert!(world.letters().await.is_empty());
        world.sweep().await;
        assert_eq!(world.ask("GET", "/ready", None).await.is(200), json!({"ready": true}), "the sweep finds it clean");
    }

    /// An error that no second try mends.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_store_refuses_for_good_is_put_aside_and_can_be_offered_again() {
        let world = World::new().await;
        world.record(vec![crate::world::event("z-1", "e-1", 1)]).await;
        // The next event's place seems to be the one that is taken.
        world.tamper("UPDATE audit_heads SET chain_seq = 0 WHERE zone_id = 'z-1'");
        world.add(signed(&frame_key(), &data("ev-1", "allow"))).await;
        world.ingest_all().await;
        let letters = world.letters().await;
        assert!(letters[0].field("reason").unwrap().starts_with("pg_permanent_error:"), "{letters:?}");
        world.tamper("UPDATE audit_heads SET chain_seq = 1 WHERE zone_id = 'z-1'");
        let replayed = world.operator("POST", "/api/audit/dlq/replay").await.is(200);
        assert_eq!((&replayed["scanned"], &replayed["replayed"]), (&json!(1), &json!(1)));
        world.ingest_all().await;
        let ids: Vec<_> = world.events().await.iter().map(|row| row["Event"]["id"].clone()).collect();
        assert_eq!(ids, ["e-1", "ev-1"]);
    }

    /// The commit is what costs; a page has a hundred frames at most.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_page_is_one_commit_for_each_of_its_zones() {
        let world = World::new().await;
        for number in 0..60 {
            let frame = data(&format!("ev-{number}"), "allow").replace("z-1", &format!("z-{}", 1 + number % 2));
            world.add(signed(&frame_key(), &frame)).await;
        }
        let commits = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = commits.clone();
        world.store.observe(Arc::new(move |committed: &caracal_store::Committed| {
            seen.lock().unwrap().push(committed.heads.len());
        }));
        world.ingest_all().await;
        let mut with_heads = commits.lock().unwrap().clone();
        with_heads.retain(|heads| *heads > 0);
        assert_eq!(with_heads, [30, 30]);
        assert_eq!(world.metrics().await["inserts_total"], 60);
        let ids: Vec<_> = world.events().await.iter().map(|row| row["Event"]["id"].clone()).collect();
        assert_eq!(ids, (0..30).map(|half| format!("ev-{}", half * 2)).collect::<Vec<_>>(), "in the order they came");
    }

    /// In one page: what is forged, what the store refuses for good, one twice, and one that says something else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bad_frame_neither_holds_back_nor_fails_the_others_of_its_page() {
        let world = World::new().await;
        world.tamper(if world.place.database().is_some() {
            "ALTER TABLE audit_events ADD CONSTRAINT never CHECK (id <> 'ev-bad')"
        } else {
            "CREATE TRIGGER never BEFORE INSERT ON audit_events WHEN NEW.id = 'ev-bad'
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        });
        let mut forged = signed(&frame_key(), &data("ev-forged", "allow"));
        forged[2].1 = "00".to_owned();
        let frame = |id: &str, decision: &str| signed(&frame_key(), &data(id, decision));
        for fields in [
            frame("ev-1", "allow"),
            forged,
            frame("ev-bad", "allow"),
            frame("ev-1", "allow"),
            frame("ev-1", "deny"),
            frame("ev-2", "allow"),
        ] {
            world.add(fields).await;
        }
        world.ingest_all().await;
        let events = world.events().await;
        let ids: Vec<_> = events.iter().map(|row| row["Event"]["id"].as_str().unwrap()).collect();
        let ours: Vec<_> = ids.iter().filter(|id| id.starts_with("ev-")).collect();
        assert_eq!((ours, ids.len()), (vec![&"ev-1", &"ev-2"], 3), "and an incident");
        let reasons: Vec<_> =
            world.letters().await.iter().map(|letter| letter.field("reason").unwrap().to_owned()).collect();
        assert_eq!(
            (reasons.len(), reasons[0].as_str(), reasons[2].as_str()),
            (3, "hmac_verify_failed", "tamper_on_replay")
        );
        assert!(reasons[1].starts_with("pg_permanent_error:"), "{reasons:?}");
        assert_eq!(world.metrics().await["inserts_total"], 2);
    }

    /// The commit is there and nobody has let go of a frame: all of them come again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_page_that_was_stored_and_not_let_go_of_is_stored_once() {
        let world = World::with(AuditConfig { claim_idle: Duration::ZERO, ..configured() }).await;
        world.tamper(if world.place.database().is_some() {
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON stream_pending FOR EACH ROW EXECUTE FUNCTION refuse()"
        } else {
            "CREATE TRIGGER refuse BEFORE DELETE ON stream_pending BEGIN SELECT RAISE(ABORT, 'refused'); END"
        });
        for number in 0..10 {
            world.add(signed(&frame_key(), &data(&format!("ev-{number}"), "allow"))).await;
        }
        let (stop, ingesting) = world.ingest();
        until("it is stored", async || world.events().await.len() == 10).await;
        stop.send_replace(true);
        ingesting.await.unwrap();
        assert_eq!(world.open_frames().await, 10);
        world.tamper(if world.place.database().is_some() {
            "DROP TRIGGER refuse ON stream_pending"
        } else {
            "DROP TRIGGER refuse"
        });
        world.ingest_all().await;
        assert_eq!((world.events().await.len(), &world.metrics().await["inserts_total"]), (10, &json!(10)));
        assert!(world.letters().await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn replicas_make_one_chain_without_gaps() {
        let world = World::new().await;
        for number in 0..60 {
            world.add(signed(&frame_key(), &data(&format!("ev-{number}"), "allow"))).await;
        }
        let both = [world.ingest(), world.ingest()];
        until("stored", async || world.open_frames().await == 0).await;
        for (stop, ingesting) in both {
            stop.send_replace(true);
            ingesting.await.unwrap();
        }
        let seqs: Vec<_> = world.events().await.iter().map(|row| row["ChainSeq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, (1..=60).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_contracts_frame_has_the_contracts_signature() {
    let key = HmacKey::from_hex("cc7d03253da31f992f76b1a1b99f3e0324c5c926d4a48eec28a92a4ccc3ed55f").unwrap();
    let data = r#"{"id":"ev-1","zone_id":"z-1","event_type":"token_exchange","request_id":"req-1","decision":"allow","evaluation_status":"complete","determining_policies_json":[{"policy":"p1"}],"diagnostics_json":[],"metadata_json":{"resource":"resource://api","requested_scopes":["read"]},"occurred_at":"2026-01-02T03:04:05.123456789Z"}"#;
    let frame = signed(&Arc::new(key), data);
    assert_eq!(frame[2].1, "6333298de062503ad82c123126cb4e1289ad882a11430666b6edad2a69225123");
}
