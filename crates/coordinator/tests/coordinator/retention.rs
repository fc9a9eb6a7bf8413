//! The job that marks what lapsed and forgets what is over (contract: coordinator.md §13).

use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_authority::{AgentSessionId, EdgeId};
use caracal_store::{delegations, sessions};
use serde_json::json;
use tokio::sync::watch;

use crate::support::{House, INVALIDATE, about, delegation, zone};

const DAY: i64 = 86_400;

async fn house() -> House {
    House::with(|config| config.retention_interval = Duration::from_millis(1)).await
}

/// Lets the job run at least once from now on.
async fn clean(house: &House) {
    let (stop, stopped) = watch::channel(false);
    let job = tokio::spawn(house.coordinator.clone().run_retention(stopped));
    let runs = || house.coordinator.jobs().retention.runs.load(Ordering::Relaxed);
    let before = runs();
    let ran = async {
        while runs() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ran).await.unwrap();
    stop.send(true).unwrap();
    job.await.unwrap();
    assert_eq!(house.coordinator.jobs().retention.failures.load(Ordering::Relaxed), 0);
}

async fn has_edge(house: &House, id: &str) -> bool {
    let mut snapshot = house.store.snapshot().await.unwrap();
    delegations::lookup(&mut snapshot.zone(&zone()), &EdgeId::parse(id).unwrap()).await.unwrap().is_some()
}

async fn has_session(house: &House, id: &str) -> bool {
    let mut snapshot = house.store.snapshot().await.unwrap();
    sessions::lookup(&mut snapshot.zone(&zone()), &AgentSessionId::parse(id).unwrap()).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn lapsed_delegations_expire_together_and_the_epoch_rises_once() {
    let house = house().await;
    let (a, b, c, d) = (house.task().await, house.task().await, house.task().await, house.task().await);
    let first = house.edge(&a, &b, |_| ()).await;
    let second = house.edge(&a, &c, |_| ()).await;
    let third = house.edge(&a, &d, |_| ()).await;
    house.clock.advance(599);
    house.messages();
    clean(&house).await;
    assert_eq!((house.edge_row(&first).await.status.as_str(), house.epoch().await), ("active", 0));
    let extended = house.task().await;
    let kept = house.edge(&a, &extended, |_| ()).await;
    house.clock.advance(1);
    house.messages();
    clean(&house).await;
    clean(&house).await;
    for edge in [&first, &second, &third] {
        let row = house.edge_row(edge).await;
        assert_eq!((row.status.as_str(), row.edge_version, row.revoked_at), ("expired", 0, None));
    }
    assert_eq!(house.edge_row(&kept).await.status, "active");
    assert_eq!(house.epoch().await, 1);
    let messages = house.messages();
    let told = about(&messages, INVALIDATE, "event", "edge_expire");
    assert_eq!((told.len(), messages.len()), (1, 1));
    assert_eq!((told[0].field("affected_edges"), told[0].field("epoch")), (Some("3"), Some("1")));
    assert_eq!(told[0].dedupe_key, "edge_expire:z-1:1");
    let mut listed: Vec<String> = serde_json::from_str(told[0].field("edge_ids").unwrap()).unwrap();
    listed.sort();
    assert_eq!(listed, [first, second, third]);
    for session in [&a, &b, &c, &d] {
        assert_eq!(house.session(session).await.status, "active", "a lapse ends no session");
    }
    house.revoke(crate::support::OPERATOR, &kept).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_edges_are_kept_for_90_days_after_their_end_and_then_forgotten() {
    let house = house().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    let child = house.child(&a).await;
    let edge = house.edge(&a, &b, |_| ()).await;
    for id in [&a, &b] {
        house.terminate(&token, id).await.expect(204);
    }
    house.clock.advance(90 * DAY);
    clean(&house).await;
    assert!(has_session(&house, &a).await && has_edge(&house, &edge).await);
    house.clock.advance(1);
    clean(&house).await;
    assert!(!has_edge(&house, &edge).await);
    for id in [&a, &b, &child] {
        assert!(!has_session(&house, id).await, "{id}");
    }
    let counts = &house.coordinator.jobs().retention;
    assert_eq!((counts.ended.load(Ordering::Relaxed), counts.deleted_edges.load(Ordering::Relaxed)), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_session_was_lent_is_remembered_as_long_as_it_runs() {
    let house = house().await;
    let token = house.mandate("app-1").await;
    let source = house.task().await;
    let far = house.store.now().plus(Duration::from_secs(400 * 86_400));
    let serves = |session: &mut sessions::SessionRow| {
        (session.lifecycle, session.ttl_seconds, session.lease_generation) = ("service".to_owned(), None, 1);
        session.heartbeat_deadline_at = Some(far);
    };
    house.add_session("s-long", serves).await;
    let edge = house.edge(&source, "s-long", |body| body["constraints"] = json!({"max_hops": 3})).await;
    house.terminate(&token, &source).await.expect(204);
    house.clock.advance(200 * DAY);
    // Mandates of these days need records of these days.
    house.add_record("rec-9", "application", "app-1", "app-1").await;
    let mut claims = house.claims("app-1");
    (claims["sid"], claims["root_sid"]) = (json!("rec-9"), json!("rec-9"));
    let token = house.sign(&claims).await;
    clean(&house).await;
    assert!(has_edge(&house, &edge).await, "it tells that the session was narrowed once");
    assert!(has_session(&house, &source).await, "an edge names it");
    let target = house.start(&token, json!({"application_id": "app-1"})).await.expect(201).text("agent_session_id");
    let lent = house.post("/zones/z-1/delegations", &token, delegation("s-long", &target)).await;
    lent.refused(403, "parent_delegation_not_active");
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_goes_on_in_small_commits_until_all_is_gone() {
    let house = House::with(|config| {
        config.retention_interval = Duration::from_millis(1);
        config.retention_batch = 2;
    })
    .await;
    let token = house.mandate("app-1").await;
    let root = house.task().await;
    for _ in 0..5 {
        house.child(&root).await;
    }
    house.terminate(&token, &root).await.expect(204);
    house.clock.advance(90 * DAY + 1);
    clean(&house).await;
    assert!(!has_session(&house, &root).await);
    assert_eq!(house.coordinator.jobs().retention.ended.load(Ordering::Relaxed), 6);
}
