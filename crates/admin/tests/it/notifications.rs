//! Approval events on their way to receivers outside: real servers on loopback, the real chain of the zone, and a clock
//! that the tests move.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use caracal_admin::AdminConfig;
use caracal_authority::ZoneId;
use caracal_crypto::chance;
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Metadata, MetadataKey};
use caracal_store::StoreError;
use caracal_store::notification_sinks;
use caracal_testkit::{FakeServer, Received, Reply};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::{START, World, hooks};

/// A receiver that answers with these, and then with 204.
fn receiver(statuses: &[u16]) -> FakeServer {
    let script = Mutex::new(VecDeque::from(statuses.to_vec()));
    FakeServer::http(move |_| match script.lock().unwrap().pop_front() {
        Some(302) => Reply::bytes(302, "").with("location", "https://elsewhere.example/"),
        Some(status) => Reply::bytes(status, "no, for a long reason"),
        None => Reply::bytes(204, ""),
    })
}

fn sinks(zone: &str) -> String {
    format!("/v1/zones/{zone}/notification-sinks")
}

/// A sink of the zone: its path, and its secret.
async fn sink(world: &World, zone: &str, url: &str, more: Value) -> (String, String) {
    let mut body = json!({"name": "Pager", "url": url});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = world.call("POST", &sinks(zone), Some(body)).await.is(201);
    let path = format!("{}/{}", sinks(zone), made["id"].as_str().unwrap());
    (path, made["secret"].as_str().unwrap().to_owned())
}

/// An event of the zone's chain. Gives its id.
async fn record(world: &World, zone: &str, event_type: EventType) -> String {
    let (zone, now) = (ZoneId::parse(zone).unwrap(), world.store.now());
    let id = chance::uuid_v7(now).unwrap().to_string();
    let metadata = Metadata::new()
        .with(MetadataKey::ChallengeId, "ap-1")
        .with(MetadataKey::SessionId, "rec-1")
        .with(MetadataKey::Reason, "\u{1F600}\"\\");
    let event = Evidence::new(
        id.parse().unwrap(),
        zone.clone(),
        event_type,
        Decision::Approved,
        EvaluationStatus::Complete,
        now,
    )
    .request("req-1")
    .with_metadata(metadata);
    let recorded: Result<(), StoreError> = world
        .store
        .commit(&zone, (world.ledger.clone(), event), |tx, (ledger, event)| {
            Box::pin(async move { ledger.record(tx, std::slice::from_ref(event)).await.map(|_| ()) })
        })
        .await;
    recorded.unwrap();
    id
}

async fn pass(world: &World) {
    world.admin.send_due_notifications().await.unwrap();
}

/// The ids of the events that a receiver has seen, in their order.
fn events(seen: &[Received]) -> Vec<String> {
    let id = |request: &Received| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    };
    seen.iter().map(id).collect()
}

fn is_signed(request: &Received, secret: &str) -> bool {
    let (timestamp, signature) = (request.header("x-caracal-timestamp"), request.header("x-caracal-signature"));
    let key = HmacKey::from_bytes(secret.as_bytes()).unwrap();
    let tag = signature.unwrap().strip_prefix("v1=").unwrap();
    key.verify_hex(&[timestamp.unwrap().as_bytes(), b".", &request.body], tag)
}

#[tokio::test]
async fn a_secret_is_shown_when_it_is_made_and_never_again() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let body = json!({"name": "Pager", "url": "https://hooks.example/in"});
    let mut made = world.call("POST", &sinks(&zone), Some(body)).await.is(201);
    let secret = made.as_object_mut().unwrap().remove("secret").unwrap();
    let secret = secret.as_str().unwrap().to_owned();
    assert_eq!(
        made,
        json!({"id": made["id"], "zone_id": zone, "name": "Pager", "url": "https://hooks.example/in",
            "event_types": ["step_up_issued", "step_up_decided", "step_up_consumed"], "active": true,
            "consecutive_failures": 0, "last_success_at": null, "last_failure_at": null, "last_error": null,
            "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z"})
    );
    let one = format!("{}/{}", sinks(&zone), made["id"].as_str().unwrap());
    assert_eq!(world.get(&one).await.is(200), made);
    assert_eq!(world.get(&sinks(&zone)).await.is(200), json!({"items": [made], "next_cursor": null}));
    let rotated = world.call("POST", &format!("{one}/rotate-secret"), None).await.is(200);
    let other = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(other, secret);
    let everything = String::from_utf8_lossy(&world.bytes_on_disk()).into_owned();
    assert!(!everything.contains(&secret) && !everything.contains(&other));
    let made_record = world.records(Some(&zone)).await.into_iter().find(|row| row.path == sinks(&zone)).unwrap();
    assert_eq!(
        (made_record.entity_type.as_deref(), made_record.entity_id.as_deref()),
        (Some("notification-sinks"), made["id"].as_str())
    );
}

#[tokio::test]
async fn what_is_no_sink_is_refused() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let create = async |more: Value| {
        let mut body = json!({"name": "Pager", "url": "https://hooks.example/"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.call("POST", &sinks(&zone), Some(body)).await
    };
    for (more, code) in [
        (json!({"name": ""}), "invalid_sink"),
        (json!({"name": "x".repeat(121)}), "invalid_sink"),
        (json!({"url": ""}), "invalid_sink"),
        (json!({"url": null}), "invalid_sink"),
        (json!({"url": format!("https://h.example/{}", "x".repeat(2048))}), "invalid_sink"),
        (json!({"event_types": []}), "invalid_sink"),
        (json!({"event_types": null}), "invalid_sink"),
        (json!({"event_types": ["token_exchanged"]}), "invalid_sink"),
        (json!({"url": "http://hooks.example"}), "invalid_sink_url"),
        (json!({"url": "https://10.0.0.1"}), "invalid_sink_url"),
        (json!({"url": "https://[fe90::1]/"}), "invalid_sink_url"),
        (json!({"url": "ftp://x"}), "invalid_sink_url"),
        (json!({"url": "https://u:p@hooks.example/"}), "invalid_sink_url"),
    ] {
        create(more).await.is_refused(400, code);
    }
    let made = create(json!({"url": "http://[::1]/h", "event_types": ["step_up_consumed", "step_up_issued"]})).await;
    let made = made.is(201);
    assert_eq!(made["event_types"], json!(["step_up_issued", "step_up_consumed"]));
    let one = format!("{}/{}", sinks(&zone), made["id"].as_str().unwrap());
    for (patch, code) in [
        (json!({"url": "http://hooks.example"}), "invalid_sink_url"),
        (json!({"active": "yes"}), "invalid_sink"),
        (json!({"event_types": []}), "invalid_sink"),
    ] {
        world.call("PATCH", &one, Some(patch)).await.is_refused(400, code);
    }
    let same = world.call("PATCH", &one, Some(json!({}))).await.is(200);
    assert_eq!((&same["url"], &same["name"]), (&made["url"], &made["name"]));
    for _ in 1..20 {
        create(json!({})).await.is(201);
    }
    create(json!({})).await.is_refused(409, "sink_limit_reached");
    world.call("DELETE", &one, None).await.is(204);
    world.call("DELETE", &one, None).await.is_refused(404, "sink_not_found");
    world.get(&one).await.is_refused(404, "sink_not_found");
    world.call("PATCH", &one, Some(json!({}))).await.is_refused(404, "sink_not_found");
    world.call("POST", &format!("{one}/rotate-secret"), None).await.is_refused(404, "sink_not_found");
    create(json!({})).await.is(201);
    let nowhere = sinks("0199c0de-0000-7000-8000-000000000001");
    let body = json!({"name": "Pager", "url": "https://hooks.example/"});
    world.call("POST", &nowhere, Some(body)).await.is_refused(404, "zone_not_found");
}

mod t03_egress {
    use super::*;

    /// The contract's property 16.
    #[tokio::test]
    async fn what_is_sent_is_signed_over_its_time_and_every_byte_of_it() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        record(&world, &zone, EventType::StepUpIssued).await;
        let path = format!("/{zone}");
        let (one, secret) = sink(&world, &zone, &format!("{}{path}", hooks().url()), json!({})).await;
        let id = record(&world, &zone, EventType::StepUpDecided).await;
        record(&world, &zone, EventType::TokenExchange).await;
        pass(&world).await;
        pass(&world).await;
        let seen: Vec<_> = hooks().seen().into_iter().filter(|request| request.path() == path).collect();
        let [request] = &seen[..] else { panic!("{} requests: neither what was before it, nor twice", seen.len()) };
        let expected = format!(
            "{{\"id\":\"{id}\",\"type\":\"step_up_decided\",\"zone_id\":\"{zone}\",\"decision\":\"approved\",\
             \"occurred_at\":\"2026-01-01T00:00:00.000Z\",\"data\":"
        );
        assert!(request.text().starts_with(&expected), "{}", request.text());
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["data"], json!({"challenge_id": "ap-1", "session_id": "rec-1", "reason": "\u{1F600}\"\\"}));
        let delivery = &world.get(&format!("{one}/deliveries")).await.is(200)["items"][0];
        assert_eq!(
            *delivery,
            json!({"id": delivery["id"], "sink_id": one.rsplit('/').next().unwrap(), "event_id": id,
                "event_type": "step_up_decided", "attempts": 1, "available_at": delivery["available_at"],
                "delivered_at": "2026-01-01T00:00:00.000Z", "abandoned_at": null, "response_status": 204,
                "last_error": null, "created_at": "2026-01-01T00:00:00.000Z"})
        );
        let start = START.to_string();
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-caracal-event", "step_up_decided"),
            ("x-caracal-delivery", delivery["id"].as_str().unwrap()),
            ("x-caracal-sink", one.rsplit('/').next().unwrap()),
            ("x-caracal-timestamp", &start),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        assert!(is_signed(request, &secret));
        let mut forged = request.clone();
        forged.body.push(b' ');
        assert!(!is_signed(&forged, &secret));
        assert_eq!(world.get(&one).await.is(200)["last_success_at"], "2026-01-01T00:00:00.000Z");

        // Another secret counts from the moment at which it is answered.
        let rotated = world.call("POST", &format!("{one}/rotate-secret"), None).await.is(200);
        record(&world, &zone, EventType::StepUpConsumed).await;
        pass(&world).await;
        let request = hooks().seen().into_iter().rfind(|request| request.path() == path).unwrap();
        assert!(is_signed(&request, rotated["secret"].as_str().unwrap()) && !is_signed(&request, &secret));
    }

    #[tokio::test]
    async fn a_receiver_that_leads_inside_is_never_called() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let mut paths = Vec::new();
        for (host, class) in [
            ("metadata.example", "cloud metadata"),
            ("nat64.example", "cloud metadata"),
            ("private.example", "private"),
            ("mixed.example", "private"),
        ] {
            paths.push((sink(&world, &zone, &format!("https://{host}/in?token=t0p"), json!({})).await.0, class));
        }
        record(&world, &zone, EventType::StepUpIssued).await;
        pass(&world).await;
        for (path, class) in paths {
            let shown = world.get(&path).await.is(200);
            let error = shown["last_error"].as_str().unwrap();
            assert!(error.contains(&format!("refused: {class} address")), "{error}");
            assert!(!error.contains("t0p"), "{error}");
            assert_eq!(shown["consecutive_failures"], 1);
        }
    }
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_eight_times_with_growing_pauses_and_then_given_up() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let server = receiver(&[302, 500, 404, 500, 500, 500, 500, 500]);
    let (one, _) = sink(&world, &zone, &server.url(), json!({})).await;
    let first = record(&world, &zone, EventType::StepUpIssued).await;
    let second = record(&world, &zone, EventType::StepUpDecided).await;
    for (number, pause) in [30, 60, 120, 240, 480, 900, 900].into_iter().enumerate() {
        pass(&world).await;
        assert_eq!(server.seen().len(), number + 1);
        if number == 0 {
            let shown = world.get(&one).await.is(200);
            assert_eq!(
                (&shown["consecutive_failures"], &shown["last_error"]),
                (&json!(1), &json!("sink responded 302"))
            );
        }
        world.clock.advance(pause - 1);
        pass(&world).await;
        assert_eq!(server.seen().len(), number + 1, "not before its time");
        world.clock.advance(pause / 3 + 1);
    }
    pass(&world).await;
    let shown = world.get(&format!("{one}/deliveries")).await.is(200);
    let of = |event: &str| shown["items"].as_array().unwrap().iter().find(|item| item["event_id"] == event).unwrap();
    let given_up = of(&first);
    assert_eq!((&given_up["attempts"], &given_up["response_status"]), (&json!(8), &json!(500)));
    assert!(given_up["abandoned_at"].is_string() && given_up["delivered_at"].is_null());
    assert_eq!(of(&second)["attempts"], 0, "what comes later has waited");
    // It is over for that one, and the next has its turn; the sink was never switched off.
    world.clock.advance(1);
    pass(&world).await;
    world.clock.advance(100_000);
    pass(&world).await;
    let seen = events(&server.seen());
    assert_eq!(seen.len(), 9);
    assert!(seen[..8].iter().all(|event| *event == first) && seen[8] == second);
    let ids: Vec<_> =
        server.seen().iter().map(|request| request.header("x-caracal-delivery").unwrap().to_owned()).collect();
    assert!(ids[..8].windows(2).all(|pair| pair[0] == pair[1]) && ids[8] != ids[0]);
    let shown = world.get(&one).await.is(200);
    assert_eq!((&shown["active"], &shown["consecutive_failures"]), (&json!(true), &json!(0)));

    // Failures of another address are not this one's.
    let away = receiver(&[503]);
    world.call("PATCH", &one, Some(json!({"url": away.url()}))).await.is(200);
    record(&world, &zone, EventType::StepUpIssued).await;
    pass(&world).await;
    assert_eq!(world.get(&one).await.is(200)["last_error"], "sink responded 503");
    let moved = world.call("PATCH", &one, Some(json!({"url": server.url()}))).await.is(200);
    assert_eq!((&moved["consecutive_failures"], &moved["last_error"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn metrics_say_how_notifications_go() {
    let world = World::with(AdminConfig { open_metrics: true, ..AdminConfig::default() }).await;
    let zone = world.zone("Ops").await;
    let server = receiver(&[500, 500, 500, 500, 500, 500, 500, 500]);
    sink(&world, &zone, &server.url(), json!({})).await;
    record(&world, &zone, EventType::StepUpIssued).await;
    record(&world, &zone, EventType::StepUpDecided).await;
    let told = async |name: &str| -> u64 {
        let text = world.call_as(None, "GET", "/metrics", None).await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    for _ in 0..7 {
        pass(&world).await;
        assert_eq!(told("caracal_notifications_pending").await, 2);
        world.clock.advance(1_200);
    }
    assert_eq!(told("caracal_notifications_oldest_pending_age_seconds").await, 7 * 1_200);
    for _ in 0..3 {
        pass(&world).await;
        world.clock.advance(1_200);
    }
    assert_eq!(told("caracal_notifications_pending").await, 0);
    for (outcome, count) in [("delivered", 1), ("failed", 8), ("abandoned", 1)] {
        let name = format!("caracal_notification_attempts_total{{outcome=\"{outcome}\"}}");
        assert_eq!(told(&name).await, count, "{outcome}");
    }
}

#[tokio::test]
async fn events_reach_a_sink_in_the_order_of_the_chain_and_each_once() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let (all, some) = (receiver(&[]), receiver(&[]));
    sink(&world, &zone, &all.url(), json!({})).await;
    sink(&world, &zone, &some.url(), json!({"event_types": ["step_up_decided"]})).await;
    let mut recorded = Vec::new();
    for number in 0..7 {
        let event_type = if number % 2 == 0 { EventType::StepUpIssued } else { EventType::StepUpDecided };
        recorded.push(record(&world, &zone, event_type).await);
        if number == 3 {
            pass(&world).await;
        }
    }
    pass(&world).await;
    assert_eq!(events(&all.seen()), recorded);
    let decided: Vec<String> = recorded.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(events(&some.seen()), decided);
}

/// Whoever collects what is recorded names it; approvals alone are what a sink gets that names nothing.
#[tokio::test]
async fn every_type_of_evidence_can_be_forwarded_signed_and_in_the_order_of_the_chain() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let (siem, desk) = (receiver(&[]), receiver(&[]));
    let types: Vec<&str> = EventType::ALL.iter().map(EventType::as_str).collect();
    let (one, secret) = sink(&world, &zone, &siem.url(), json!({"event_types": types})).await;
    sink(&world, &zone, &desk.url(), json!({})).await;
    assert_eq!(world.get(&one).await.is(200)["event_types"].as_array().unwrap().len(), types.len());
    let mut recorded = Vec::new();
    for event_type in EventType::ALL {
        recorded.push(record(&world, &zone, event_type.clone()).await);
    }
    record(&world, &zone, EventType::parse("acme.thing")).await;
    pass(&world).await;
    assert_eq!(events(&siem.seen()), recorded);
    assert!(siem.seen().iter().all(|request| is_signed(request, &secret)));
    let sent: Vec<_> =
        siem.seen().iter().map(|request| request.header("x-caracal-event").unwrap().to_owned()).collect();
    assert_eq!(sent, types);
    assert_eq!(desk.seen().len(), 3);
}

#[tokio::test]
async fn a_sink_that_is_switched_off_keeps_its_place_and_goes_on_from_there() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let (server, other) = (receiver(&[503]), receiver(&[]));
    let (one, _) = sink(&world, &zone, &server.url(), json!({})).await;
    sink(&world, &zone, &other.url(), json!({})).await;
    let first = record(&world, &zone, EventType::StepUpIssued).await;
    pass(&world).await;
    world.call("PATCH", &one, Some(json!({"active": false}))).await.is(200);
    let second = record(&world, &zone, EventType::StepUpDecided).await;
    world.clock.advance(10_000);
    pass(&world).await;
    assert_eq!(
        events(&server.seen()),
        std::slice::from_ref(&first),
        "nothing is sent, what has failed before included"
    );
    assert_eq!(world.get(&format!("{one}/deliveries")).await.is(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(events(&other.seen()), [first.clone(), second.clone()]);
    world.call("PATCH", &one, Some(json!({"active": true}))).await.is(200);
    pass(&world).await;
    assert_eq!(events(&server.seen()), [first.clone(), first, second]);
}

#[tokio::test]
async fn an_attempt_that_nobody_noted_is_made_again_under_the_same_id() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let server = receiver(&[503]);
    let (one, _) = sink(&world, &zone, &server.url(), json!({})).await;
    record(&world, &zone, EventType::StepUpIssued).await;
    pass(&world).await;
    world.clock.advance(60);
    // A process takes the sink, sends, and is gone before it can say so.
    let id: caracal_authority::NotificationSinkId = one.rsplit('/').next().unwrap().parse().unwrap();
    let zone_id = ZoneId::parse(&zone).unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let row = notification_sinks::lookup(&mut snapshot.zone(&zone_id), &id).await.unwrap().unwrap();
    drop(snapshot);
    let until = world.store.now().plus(Duration::from_secs(30));
    let claimed: Result<_, StoreError> = world
        .store
        .commit_upkeep((zone_id, id, row.due_at.unwrap(), until), |tx, (zone, id, due, until)| {
            Box::pin(async move { notification_sinks::claim(&mut tx.zone_write(zone), id, *due, *until).await })
        })
        .await;
    assert!(claimed.unwrap().is_some());
    world.clock.advance(29);
    pass(&world).await;
    assert_eq!(server.seen().len(), 1, "it may still be at work");
    world.clock.advance(1);
    pass(&world).await;
    let ids: Vec<_> =
        server.seen().iter().map(|request| request.header("x-caracal-delivery").unwrap().to_owned()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1]);
    assert!(world.get(&format!("{one}/deliveries")).await.is(200)["items"][0]["delivered_at"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_says_nothing_holds_back_no_other() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let silent = FakeServer::http(move |_| {
        let _ = held.lock().unwrap().recv();
        Reply::bytes(204, "")
    });
    let (heard, hears) = mpsc::channel();
    let (heard, loud) = (Mutex::new(heard), Arc::new(Mutex::new(hears)));
    let server = FakeServer::http(move |_| {
        heard.lock().unwrap().send(()).unwrap();
        Reply::bytes(204, "")
    });
    sink(&world, &zone, &silent.url(), json!({})).await;
    sink(&world, &zone, &server.url(), json!({})).await;
    let (stop, stopped) = watch::channel(false);
    let sending = tokio::spawn(world.admin.clone().run_notifications(stopped));
    for _ in 0..2 {
        record(&world, &zone, EventType::StepUpIssued).await;
        let loud = loud.clone();
        let got = tokio::task::spawn_blocking(move || loud.lock().unwrap().recv_timeout(Duration::from_secs(8)));
        got.await.unwrap().unwrap();
    }
    // What is being sent is brought to its end.
    stop.send_replace(true);
    drop(release);
    sending.await.unwrap();
    let listed = world.get(&sinks(&zone)).await.is(200);
    assert!(listed["items"].as_array().unwrap().iter().all(|sink| sink["last_success_at"].is_string()), "{listed}");
}

#[tokio::test]
async fn t01_control_plane_a_sink_of_another_zone_is_not_there() {
    let world = World::new().await;
    let (own, other) = (world.zone("Own").await, world.zone("Other").await);
    let server = receiver(&[]);
    let (path, _) = sink(&world, &other, &server.url(), json!({})).await;
    record(&world, &own, EventType::StepUpIssued).await;
    pass(&world).await;
    assert!(server.seen().is_empty(), "events of one zone are not sent to sinks of another");
    let foreign = path.replace(&other, &own);
    let token = world.mint("write", Some(&own)).await;
    for (method, path, body) in [
        ("GET", foreign.clone(), None),
        ("PATCH", foreign.clone(), Some(json!({"active": false}))),
        ("POST", format!("{foreign}/rotate-secret"), None),
        ("DELETE", foreign.clone(), None),
    ] {
        world.call_as(Some(&token), method, &path, body).await.is_refused(404, "sink_not_found");
    }
    record(&world, &other, EventType::StepUpIssued).await;
    pass(&world).await;
    assert_eq!(server.seen().len(), 1);
    let listed = world.get(&format!("{foreign}/deliveries")).await.is(200);
    assert_eq!(listed, json!({"items": [], "next_cursor": null}));
}
