//! Leases, suspensions and sweeps at once: whoever comes second finds what the first one left (contract: coordinator.md
//! §11, §17).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{House, OPERATOR, request};
use crate::t04_state_races::{count, together};

async fn service(house: &House) -> String {
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "lifecycle": "service"});
    house.start(&token, body).await.expect(201).text("agent_session_id")
}

fn ask(
    token: &str,
    method: &str,
    id: &str,
    action: &str,
    body: Option<Value>,
) -> axum::http::Request<axum::body::Body> {
    request(method, &format!("/zones/z-1/agents/{id}{action}"), token, body, &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_holders_one_renews_whatever_the_order() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for _ in 0..5 {
        let id = service(&house).await;
        let beat =
            |generation: u64| ask(&token, "POST", &id, "/heartbeat", Some(json!({"lease_generation": generation})));
        let mut requests: Vec<_> = (0..8).map(|_| beat(1)).collect();
        requests.insert(4, ask(&token, "POST", &id, "/lease", None));
        requests.extend((0..4).map(|_| beat(2)));
        let replies = together(&house, requests).await;
        assert_eq!(replies[4].body["lease_generation"], 2);
        for reply in &replies {
            assert!(matches!(reply.refusal(), (200, "") | (409, "session_lease_fenced")), "{}", reply.body);
        }
        house.send(beat(1)).await.refused(409, "session_lease_fenced");
        house.send(beat(2)).await.expect(200);
        let session = house.session(&id).await;
        assert_eq!((session.lease_generation, session.status.as_str()), (2, "active"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_take_over_gets_a_generation_of_its_own() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    let replies = together(&house, (0..10).map(|_| ask(&token, "POST", &id, "/lease", None)).collect()).await;
    let mut given: Vec<_> = replies.iter().map(|reply| reply.body["lease_generation"].as_u64().unwrap()).collect();
    given.sort_unstable();
    assert_eq!(given, (2..=11).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_ends_meanwhile_is_not_brought_back_by_a_heartbeat() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for way in ["end", "suspend"] {
        for _ in 0..5 {
            let id = service(&house).await;
            let beat = || ask(&token, "POST", &id, "/heartbeat", Some(json!({"lease_generation": 1})));
            let mut requests: Vec<_> = (0..8).map(|_| beat()).collect();
            requests.insert(
                3,
                match way {
                    "end" => ask(OPERATOR, "DELETE", &id, "", None),
                    _ => ask(OPERATOR, "PATCH", &id, "/suspend", None),
                },
            );
            let replies = together(&house, requests).await;
            let (status, after) = if way == "end" { ("terminated", 409) } else { ("suspended", 200) };
            assert_eq!(house.session(&id).await.status, status);
            assert!(replies.iter().all(|reply| [200, 204, 409].contains(&reply.status.as_u16())));
            house.send(beat()).await.expect(after);
            assert_eq!(house.session(&id).await.status, status);
            // A suspended service keeps its slot, an ended one does not get it back.
            assert_eq!(house.holding().await, if way == "end" { 0 } else { 1 });
            if way == "suspend" {
                house.terminate(OPERATOR, &id).await.expect(204);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_renewed_in_time_is_never_suspended_by_a_sweep() {
    let house = House::with(|config| config.lease_sweep_interval = Duration::from_millis(1)).await;
    let id = service(&house).await;
    let (stop, stopped) = watch::channel(false);
    let sweeps = [stopped.clone(), stopped].map(|on| tokio::spawn(house.coordinator.clone().run_lease_sweeper(on)));
    for _ in 0..20 {
        house.clock.advance(119);
        let token = house.mandate("app-1").await;
        let beat = ask(&token, "POST", &id, "/heartbeat", Some(json!({"lease_generation": 1})));
        let reply = house.send(beat).await.expect(200);
        assert_eq!(reply.body["agent"]["status"], "active");
    }
    stop.send(true).unwrap();
    for sweep in sweeps {
        sweep.await.unwrap();
    }
    assert_eq!(house.session(&id).await.status, "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_resumption_against_the_end_of_a_task_leaves_it_ended() {
    let house = House::with(|config| config.ttl_sweep_interval = Duration::from_millis(1)).await;
    let token = house.mandate("app-1").await;
    for _ in 0..5 {
        let body = json!({"application_id": "app-1", "ttl_seconds": 10});
        let id = house.start(&token, body).await.expect(201).text("agent_session_id");
        let child = house.child(&id).await;
        house.send(ask(&token, "PATCH", &id, "/suspend", None)).await.expect(200);
        house.clock.advance(10);
        let (stop, stopped) = watch::channel(false);
        // Two at once: each is safe beside the other.
        let sweeps = [stopped.clone(), stopped].map(|on| tokio::spawn(house.coordinator.clone().run_ttl_sweeper(on)));
        let replies = together(&house, (0..4).map(|_| ask(&token, "PATCH", &id, "/resume", None)).collect()).await;
        assert!(count(&replies, 200) <= 1 && count(&replies, 200) + count(&replies, 409) == 4);
        let ended = async {
            while house.session(&id).await.status != "expired" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        stop.send(true).unwrap();
        for sweep in sweeps {
            sweep.await.unwrap();
        }
        let (root, child) = (house.session(&id).await, house.session(&child).await);
        assert_eq!(root.termination_reason.as_deref(), Some("ttl"));
        assert_eq!(
            (child.status.as_str(), child.termination_reason.as_deref()),
            ("terminated", Some("parent_terminated"))
        );
        assert_eq!(house.holding().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_child_stays_active_under_a_parent_that_is_suspended_meanwhile() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for _ in 0..5 {
        let parent = house.task().await;
        let body = json!({"application_id": "app-1", "parent_id": parent});
        let start = || request("POST", "/zones/z-1/agents", &token, Some(body.clone()), &[]);
        let mut requests: Vec<_> = (0..8).map(|_| start()).collect();
        requests.insert(4, ask(&token, "PATCH", &parent, "/suspend", None));
        let replies = together(&house, requests).await;
        assert_eq!(count(&replies, 201) + count(&replies, 404), 8);
        let path = format!("/zones/z-1/agents/{parent}/children");
        for child in house.get(&path, &token).await.expect(200).body["items"].as_array().unwrap() {
            assert_eq!(child["status"], "suspended");
        }
    }
}
