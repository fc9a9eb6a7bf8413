//! Many callers at once: what holds alone holds together (contract: coordinator.md §11, §17).

use std::sync::{Arc, Mutex};

use caracal_authority::AuthorityRecordId;
use caracal_store::{StoreError, records};
use serde_json::{Value, json};

use crate::support::{House, Reply, delegation, request, send, zone};

/// Sends all requests at once.
pub(crate) async fn together(house: &House, requests: Vec<axum::http::Request<axum::body::Body>>) -> Vec<Reply> {
    let start = Arc::new(tokio::sync::Barrier::new(requests.len()));
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let (router, start) = (house.router.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                send(&router, request).await
            })
        })
        .collect();
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    replies
}

pub(crate) fn count(replies: &[Reply], status: u16) -> usize {
    replies.iter().filter(|reply| reply.status.as_u16() == status).count()
}

fn start(token: &str, body: Value, headers: &[(&str, &str)]) -> axum::http::Request<axum::body::Body> {
    request("POST", "/zones/z-1/agents", token, Some(body), headers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_slots_of_a_zone_are_given_once() {
    let house = House::with(|config| config.max_sessions_per_zone = 7).await;
    let token = house.mandate("app-1").await;
    let body = || json!({"application_id": "app-1"});
    let replies = together(&house, (0..40).map(|_| start(&token, body(), &[])).collect()).await;
    assert_eq!((count(&replies, 201), count(&replies, 429)), (7, 33));
    assert_eq!(house.holding().await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_places_under_a_parent_are_given_once() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let parent = house.task().await;
    let body = || json!({"application_id": "app-1", "parent_id": parent});
    let replies = together(&house, (0..40).map(|_| start(&token, body(), &[])).collect()).await;
    assert_eq!((count(&replies, 201), count(&replies, 429)), (10, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_self_registered_application_is_bound_once() {
    let house = House::open().await;
    house.add_application("app-3", "dcr").await;
    house.add_record("rec-3", "application", "app-3", "app-3").await;
    let token = house.mandate("app-3").await;
    let body = || json!({"application_id": "app-3"});
    let replies = together(&house, (0..20).map(|_| start(&token, body(), &[])).collect()).await;
    assert_eq!((count(&replies, 201), count(&replies, 409)), (1, 19));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_has_one_effect_and_everybody_gets_the_same_answer() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let body = || json!({"application_id": "app-1"});
    let key = [("idempotency-key", "key-1")];
    let replies = together(&house, (0..30).map(|_| start(&token, body(), &key)).collect()).await;
    assert_eq!(count(&replies, 201), 30);
    assert!(replies.iter().all(|reply| reply.body == replies[0].body));
    let replayed = |reply: &&Reply| reply.headers.contains_key("idempotency-replayed");
    assert_eq!(replies.iter().filter(replayed).count(), 29);
    assert_eq!(house.holding().await, 1);
    // Different requests under one key: one of them, and only one.
    let labelled = |number: usize| json!({"application_id": "app-1", "labels": [number.to_string()]});
    let key = [("idempotency-key", "key-2")];
    let replies = together(&house, (0..30).map(|number| start(&token, labelled(number), &key)).collect()).await;
    assert_eq!((count(&replies, 201), count(&replies, 409)), (1, 29));
    assert_eq!(house.holding().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_edges_that_would_close_a_circle_together_are_not_both_made() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for _ in 0..10 {
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let make = |source: &str, target: &str| {
            let mut body = delegation(source, target);
            body["constraints"] = json!({"max_hops": 5});
            request("POST", "/zones/z-1/delegations", &token, Some(body), &[])
        };
        let replies = together(&house, vec![make(&a, &b), make(&b, &c), make(&c, &a)]).await;
        assert!(count(&replies, 201) < 3, "a circle of three was closed");
        assert!(replies.iter().all(|reply| [201, 403, 409].contains(&reply.status.as_u16())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_alive_under_a_session_that_ends_meanwhile() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for _ in 0..10 {
        let parent = house.task().await;
        let body = || json!({"application_id": "app-1", "parent_id": parent});
        let mut requests: Vec<_> = (0..8).map(|_| start(&token, body(), &[])).collect();
        requests.insert(4, request("DELETE", &format!("/zones/z-1/agents/{parent}"), &token, None, &[]));
        let replies = together(&house, requests).await;
        assert_eq!(count(&replies, 204), 1);
        assert_eq!(house.holding().await, 0, "an orphan was left");
        assert_eq!(count(&replies, 201) + count(&replies, 404), 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_built_on_a_delegation_that_is_revoked_meanwhile() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for _ in 0..10 {
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |body| body["constraints"] = json!({"max_hops": 3})).await;
        let mut requests = Vec::new();
        for _ in 0..6 {
            let target = house.task().await;
            let mut body = delegation(&b, &target);
            body["ttl_seconds"] = json!(60);
            requests.push(request("POST", "/zones/z-1/delegations", &token, Some(body), &[]));
        }
        let revoke = request("PATCH", &format!("/zones/z-1/delegations/{edge}/revoke"), &token, None, &[]);
        requests.insert(3, revoke);
        let replies = together(&house, requests).await;
        assert_eq!(count(&replies, 200), 1);
        for reply in replies.iter().filter(|reply| reply.status.as_u16() == 201) {
            let made = reply.text("delegation_edge_id");
            assert_eq!(house.edge_row(&made).await.status, "revoked");
            assert_eq!(house.session(&reply.text("target_session_id")).await.status, "terminated");
        }
        // Source ended first, or the edge was made first and fell with it: nothing else can have happened.
        assert_eq!(count(&replies, 201) + count(&replies, 404), 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_is_ended_once_and_its_end_is_told_once() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    house.edge(&a, &b, |_| ()).await;
    house.messages();
    let end = || request("DELETE", &format!("/zones/z-1/agents/{a}"), &token, None, &[]);
    let replies = together(&house, (0..10).map(|_| end()).collect()).await;
    assert_eq!((count(&replies, 204), count(&replies, 404)), (1, 9));
    assert_eq!(house.epoch().await, 1);
    assert_eq!(house.messages().len(), 4);
}

/// Lets `request` be authenticated and queue for the writer, revokes the caller's record in the change before it, and
/// says what became of the request.
async fn revoked_meanwhile(house: &House, request: axum::http::Request<axum::body::Body>) -> Reply {
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (entered, has_entered) = std::sync::mpsc::channel::<()>();
    let store = house.store.clone();
    let input = (Mutex::new(waits), entered, AuthorityRecordId::parse("rec-1").unwrap());
    let revoking = tokio::spawn(async move {
        let revoked: Result<Vec<_>, StoreError> = store
            .commit(&zone(), input, |tx, (waits, entered, record)| {
                Box::pin(async move {
                    entered.send(()).unwrap();
                    tokio::task::block_in_place(|| waits.lock().unwrap().recv().unwrap());
                    records::revoke_with_descendants(tx, record, "test").await
                })
            })
            .await;
        assert_eq!(revoked.unwrap().len(), 1);
    });
    while has_entered.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    let router = house.router.clone();
    let asking = tokio::spawn(async move { send(&router, request).await });
    while house.store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    revoking.await.unwrap();
    asking.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_made_for_a_caller_who_was_revoked_while_it_waited_its_turn() {
    for operation in ["start", "delegate", "terminate", "revoke"] {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let asked = match operation {
            "start" => start(&token, json!({"application_id": "app-1"}), &[("idempotency-key", "key-1")]),
            "delegate" => request("POST", "/zones/z-1/delegations", &token, Some(delegation(&a, &b)), &[]),
            "terminate" => request("DELETE", &format!("/zones/z-1/agents/{a}"), &token, None, &[]),
            _ => request("PATCH", &format!("/zones/z-1/delegations/{edge}/revoke"), &token, None, &[]),
        };
        let before = (house.holding().await, house.changes("z-1").await.len());
        house.messages();
        let reply = revoked_meanwhile(&house, asked).await;
        assert_eq!(reply.refusal(), (401, "identity_revoked"), "{operation}");
        assert_eq!((house.holding().await, house.changes("z-1").await.len()), before, "{operation}");
        assert!(house.messages().is_empty(), "{operation}");
        assert_eq!(house.edge_row(&edge).await.status, "active", "{operation}");
    }
}
