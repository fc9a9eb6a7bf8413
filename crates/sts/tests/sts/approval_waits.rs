//! Asking after an approval, and waiting for it (contract: sts.md §7.6).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::support::*;

fn at(id: &str) -> String {
    format!("/approvals/{id}")
}

/// Waits for `id` in a task of its own; returns once it is seated and has looked.
async fn waiting(world: &Arc<World>, id: &str) -> tokio::task::JoinHandle<Answer> {
    let (world, path) = (world.clone(), format!("{}?wait=25", at(id)));
    let mut asked = Box::pin(async move { world.get(&path).await });
    // It looks once before it waits; from the second poll on it is told.
    for _ in 0..200 {
        assert!(waits(asked.as_mut()).await, "answered at once");
        tokio::task::yield_now().await;
    }
    tokio::spawn(asked)
}

mod t02_sts_approval_status {
    use super::*;

    #[tokio::test]
    async fn whoever_knows_the_id_is_told_the_state_and_nothing_else() {
        let world = World::held().await;
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap();
        let answer = world.get(&at(id)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json, json!({"id": id, "state": "pending", "expires_at": hold["approval_expires_at"]}));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(world.operator_decides(id, true).await);
        assert_eq!(
            world.get(&at(id)).await.json,
            json!({"id": id, "state": "approved", "expires_at": hold["approval_expires_at"]})
        );
        assert_eq!(world.get(&at(&id.to_uppercase())).await.status, 200);
        let head = world.send(Request::head(at(id)).body(Body::empty()).unwrap()).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }

    #[tokio::test]
    async fn what_is_no_id_or_nobodys_is_not_found() {
        let world = World::held().await;
        for id in ["x", "0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11", "%00", "a%2Fb"] {
            for query in ["", "?wait=25"] {
                assert_eq!(world.get(&format!("{}{query}", at(id))).await.outcome(), "404 resource_not_found", "{id}");
            }
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_no_number_is_refused() {
        let world = World::held().await;
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap();
        for wait in ["-1", "oops", "", "1.5"] {
            assert_eq!(world.get(&format!("{}?wait={wait}", at(id))).await.outcome(), "400 invalid_token", "{wait}");
        }
        assert!(world.operator_decides(id, false).await);
        for wait in ["0", "25", "99", "99999999999999999999"] {
            assert_eq!(world.get(&format!("{}?wait={wait}", at(id))).await.text("state"), "rejected", "{wait}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_wait_that_nobody_ended_is_pending() {
        let world = World::held().await;
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap();
        assert_eq!(world.get(&format!("{}?wait=1", at(id))).await.text("state"), "pending");
    }
}

mod t08_availability_waits {
    use super::*;

    #[tokio::test]
    async fn a_decision_of_this_process_is_told_at_once() {
        // Nobody reads within the test: what is told was told by the commit.
        let world = World::configured(|config| config.waiting.every = Duration::from_secs(3_600)).await;
        world.activate(&held_for("operator")).await;
        let world = Arc::new(world);
        for approved in [true, false] {
            let hold = world.hold().await;
            let id = hold["approval_id"].as_str().unwrap().to_owned();
            let (one, other) = (waiting(&world, &id).await, waiting(&world, &id).await);
            assert!(world.operator_decides(&id, approved).await);
            for waiting in [one, other] {
                let expected = if approved { "approved" } else { "rejected" };
                assert_eq!(waiting.await.unwrap().text("state"), expected);
            }
            world.activate(&held_for("operator")).await;
        }
    }

    #[tokio::test]
    async fn a_decision_of_another_process_is_told_as_soon_as_its_word_arrives() {
        let world = World::configured(|config| config.waiting.every = Duration::from_secs(3_600)).await;
        world.activate(&held_for("operator")).await;
        let world = Arc::new(world);
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let waiting = waiting(&world, &id).await;
        world.tamper("UPDATE approvals SET approved_at = 1, approver_id = 'x'");
        let word = |topic: &str, id: &str| caracal_store::Message {
            id: "m-1".parse().unwrap(),
            zone: zone(),
            topic: topic.to_owned(),
            dedupe_key: id.to_owned(),
            fields: vec![("approval_id".to_owned(), id.to_owned())],
            created_at: after(0),
        };
        // Words of other things, and of holds that nobody waits for, are none.
        world.sts.hear(&word("caracal.policy.invalidate", &id));
        world.sts.hear(&word("caracal.approvals.decided", "0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11"));
        world.sts.hear(&word("caracal.approvals.decided", "no id"));
        world.sts.hear(&word("caracal.approvals.decided", &id));
        assert_eq!(waiting.await.unwrap().text("state"), "approved");
    }

    #[tokio::test]
    async fn a_decision_that_nobody_announced_is_seen_by_the_next_reading() {
        let world = Arc::new(World::held().await);
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let waiting = waiting(&world, &id).await;
        world.tamper("UPDATE approvals SET approved_at = 1, approver_id = 'x'");
        assert_eq!(waiting.await.unwrap().text("state"), "approved");
    }

    #[tokio::test]
    async fn the_end_of_its_time_ends_a_wait() {
        let world = Arc::new(World::held().await);
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let waiting = waiting(&world, &id).await;
        world.clock.advance(14_400);
        assert_eq!(waiting.await.unwrap().text("state"), "expired");
    }

    #[tokio::test]
    async fn a_hold_that_is_gone_ends_a_wait() {
        let world = Arc::new(World::held().await);
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let waiting = waiting(&world, &id).await;
        world.tamper("DELETE FROM approvals");
        assert_eq!(waiting.await.unwrap().outcome(), "404 resource_not_found");
    }

    #[tokio::test]
    async fn many_who_wait_cost_as_many_readings_as_one() {
        let world = Arc::new(World::held().await);
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(waiting(&world, &id).await);
        }
        assert!(world.operator_decides(&id, true).await);
        for waiting in all {
            assert_eq!(waiting.await.unwrap().text("state"), "approved");
        }
        // Everybody has left, and the next one is served as the first was.
        world.activate(&held_for("operator")).await;
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap().to_owned();
        let waiting = waiting(&world, &id).await;
        assert!(world.operator_decides(&id, true).await);
        assert_eq!(waiting.await.unwrap().text("state"), "approved");
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_and_the_next_is_told_to_come_back() {
        let world = World::configured(|config| {
            config.waiting.most = 3;
            config.waiting.most_for_one = 2;
        });
        let world = Arc::new(world.await);
        world.activate(&held_for("operator")).await;
        let one = world.hold().await["approval_id"].as_str().unwrap().to_owned();
        world.activate(&held_for("operator")).await;
        let other = world.hold().await["approval_id"].as_str().unwrap().to_owned();
        let first = waiting(&world, &one).await;
        let second = waiting(&world, &one).await;
        let third = world.get(&format!("{}?wait=25", at(&one))).await;
        assert_eq!((third.outcome().as_str(), third.header("retry-after")), ("429 provider_rate_limited", "5"));
        let elsewhere = waiting(&world, &other).await;
        let fourth = world.get(&format!("{}?wait=25", at(&other))).await;
        assert_eq!((fourth.outcome().as_str(), fourth.header("retry-after")), ("503 sts_unavailable", "5"));
        assert_eq!(world.get(&at(&other)).await.text("state"), "pending", "who does not wait needs no room");
        // A caller that goes away gives its place up.
        elsewhere.abort();
        assert!(elsewhere.await.is_err());
        let again = waiting(&world, &other).await;
        for waiting in [first, second, again] {
            waiting.abort();
        }
    }

    #[tokio::test]
    async fn who_waits_when_the_service_stops_is_answered() {
        let world = Arc::new(World::held().await);
        let (stop, stopping) = tokio::sync::watch::channel(false);
        world.sts.end_waits_on(stopping);
        let hold = world.hold().await;
        let waiting = waiting(&world, hold["approval_id"].as_str().unwrap()).await;
        stop.send_replace(true);
        assert_eq!(waiting.await.unwrap().text("state"), "pending");
    }

    #[tokio::test]
    async fn a_store_that_is_gone_is_an_outage() {
        let world = World::held().await;
        let hold = world.hold().await;
        let id = hold["approval_id"].as_str().unwrap();
        world.store.close().await;
        for query in ["", "?wait=5"] {
            assert_eq!(world.get(&format!("{}{query}", at(id))).await.outcome(), "503 sts_unavailable");
        }
    }
}
