//! The job that ends tasks whose time is up (contract: coordinator.md §13).

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use crate::support::{House, LIFECYCLE, about};

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_task_expires_and_its_children_end_with_it() {
    let house = House::with(|config| config.ttl_sweep_interval = Duration::from_millis(1)).await;
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "ttl_seconds": 1});
    let root = house.start(&token, body).await.expect(201).text("agent_session_id");
    let child = house.child(&root).await;
    let other = house.task().await;
    let (stop, stopped) = watch::channel(false);
    let job = tokio::spawn(house.coordinator.clone().run_ttl_sweeper(stopped));
    house.clock.advance(1);
    let swept = async {
        while house.session(&root).await.status == "active" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.unwrap();
    stop.send(true).unwrap();
    job.await.unwrap();
    let (root, child) = (house.session(&root).await, house.session(&child).await);
    assert_eq!((root.status.as_str(), root.termination_reason.as_deref()), ("expired", Some("ttl")));
    assert_eq!((child.status.as_str(), child.termination_reason.as_deref()), ("terminated", Some("parent_terminated")));
    assert_eq!(house.session(&other).await.status, "active");
    let messages = house.messages();
    let ended: Vec<_> = about(&messages, LIFECYCLE, "event", "terminate");
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|message| message.field("reason") == Some("ttl")));
}

mod t08_availability {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_that_cannot_be_swept_keeps_no_other_from_it() {
        let house = House::with(|config| config.ttl_sweep_interval = Duration::from_millis(1)).await;
        let first = caracal_authority::ZoneId::parse("a-1").unwrap();
        // A row that is neither a task nor a service: damaged on disk.
        let damaged = |session: &mut caracal_store::sessions::SessionRow| {
            (session.ttl_seconds, session.lease_generation) = (Some(1), 7);
        };
        house.add_session_in(&first, "s-damaged", damaged).await;
        house.add_session("s-lapsed", |session| session.ttl_seconds = Some(1)).await;
        house.clock.advance(1);
        let (stop, stopped) = watch::channel(false);
        let job = tokio::spawn(house.coordinator.clone().run_ttl_sweeper(stopped));
        let swept = async {
            while house.session("s-lapsed").await.status == "active" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), swept).await.unwrap();
        stop.send(true).unwrap();
        job.await.unwrap();
    }
}
