//! Sessions as lists, leases, and what is forgotten.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::session::{Lease, Lifecycle, SessionStatus};

use super::management::change;
use crate::clock::ManualClock;
use crate::conformance::Make;
use crate::conformance::fixtures::{Held, at, fresh, id, start, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::sessions::{SessionFilter, SessionRow};
use crate::waiting_changes::{self, WaitingChange};
use crate::{delegations, forgetting, leases, sessions};

pub async fn sessions_are_listed_newest_first_by_every_filter(make: Make) {
    let fresh = fresh(make).await;
    let rows = [
        samples::session("s-1", true),
        samples::session("s-2", false),
        SessionRow { application_id: id!("app-2"), status: "suspended".to_owned(), ..samples::session("s-3", false) },
    ];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            sessions::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let odd = rows[0].labels[0].clone();
    let (app, other, parent) = (id!("app-1"), id!("app-2"), id!("parent"));
    let all = SessionFilter::default();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for (filter, before, limit, names) in [
        (all, None, 10, vec!["s-3", "s-2", "s-1"]),
        (all, None, 2, vec!["s-3", "s-2"]),
        (all, Some(id!("s-2")), 10, vec!["s-1"]),
        (SessionFilter { status: Some(SessionStatus::Suspended), ..all }, None, 10, vec!["s-3"]),
        (SessionFilter { lifecycle: Some(Lifecycle::Service), ..all }, None, 10, vec!["s-1"]),
        (SessionFilter { application: Some(&app), ..all }, None, 10, vec!["s-2", "s-1"]),
        (SessionFilter { application: Some(&other), parent: Some(&parent), ..all }, None, 10, vec![]),
        (SessionFilter { parent: Some(&parent), ..all }, None, 10, vec!["s-1"]),
        (SessionFilter { label: Some(&odd), ..all }, None, 10, vec!["s-1"]),
        (SessionFilter { label: Some("b"), ..all }, Some(id!("s-1")), 10, vec![]),
        (SessionFilter { label: Some("B"), ..all }, None, 10, vec![]),
    ] {
        let found = sessions::list(&mut read, &filter, before.as_ref(), limit).await.unwrap();
        let found: Vec<&str> = found.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(found, names, "{filter:?}");
    }
}

pub async fn a_lease_moves_only_under_its_own_conditions(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    change!(fresh.store, samples::session("s-1", true), |tx, row| sessions::add(tx, row).await).unwrap();
    let lease = |generation, seconds| Lease { generation, deadline: at(seconds) };
    let renew = async |generation, seconds| {
        let moved: Result<bool, StoreError> = fresh
            .store
            .commit_row(&zone("z-1"), "s-1", lease(generation, seconds), |tx, lease| {
                Box::pin(async move { leases::renew(tx, &id!("s-1"), *lease).await })
            })
            .await;
        moved.unwrap()
    };
    let take_over = async |generation, seconds| {
        change!(fresh.store, lease(generation, seconds), |tx, lease| leases::take_over(tx, &id!("s-1"), *lease).await)
            .unwrap()
    };
    let suspend_missed =
        async || change!(fresh.store, (), |tx, _unused| leases::suspend_missed(tx, &id!("s-1")).await).unwrap();
    assert!(renew(1, 450).await && !renew(2, 450).await && !renew(0, 450).await);
    assert!(take_over(2, 500).await && !take_over(2, 500).await && !take_over(4, 500).await);
    assert!(!renew(1, 600).await && renew(2, 600).await);
    assert!(!suspend_missed().await);
    clock.advance(601);
    assert!(!renew(2, 700).await && !take_over(3, 700).await);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert_eq!(leases::find_overdue_zone(&mut snapshot.deployment(), None).await.unwrap(), Some(zone("z-1")));
    let missed = leases::list_missed(&mut snapshot.zone(&zone("z-1")), 10).await.unwrap();
    assert_eq!(missed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["s-1"]);
    drop(snapshot);
    assert!(suspend_missed().await && !suspend_missed().await);
    assert!(renew(2, 800).await && !renew(1, 800).await && !take_over(3, 800).await);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert_eq!(leases::find_overdue_zone(&mut snapshot.deployment(), None).await.unwrap(), None);
    let mut read = snapshot.zone(&zone("z-1"));
    let row = sessions::lookup(&mut read, &id!("s-1")).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.lease_generation, row.heartbeat_deadline_at), ("suspended", 2, Some(at(800))));
    assert_eq!(sessions::count_holding_capacity(&mut read, sessions::Among::Zone, 9).await.unwrap(), 1);
    drop(snapshot);
    let resumed = async || {
        let length = Duration::from_secs(60);
        change!(fresh.store, length, |tx, length| sessions::resume(tx, &id!("s-1"), *length).await).unwrap()
    };
    assert!(resumed().await && !resumed().await);
    let suspended = async || change!(fresh.store, (), |tx, _unused| sessions::suspend(tx, &id!("s-1")).await).unwrap();
    assert!(suspended().await && !suspended().await);
    let ended = change!(fresh.store, (), |tx, _unused| {
        sessions::end(tx, &id!("s-1"), SessionStatus::Terminated, "reason").await
    });
    assert!(ended.unwrap());
    assert!(!renew(2, 900).await && !resumed().await && !suspended().await && !suspend_missed().await);
}

pub async fn a_renewal_waits_for_no_other_change_and_takes_nothing_away(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, samples::session("s-1", true), |tx, row| sessions::add(tx, row).await).unwrap();
    let taking: Result<bool, StoreError> = fresh
        .store
        .commit_row(&zone("z-1"), "s-1", (), |tx, ()| Box::pin(async move { sessions::suspend(tx, &id!("s-1")).await }))
        .await;
    assert!(matches!(taking, Err(StoreError::Statement { .. })), "{taking:?}");
    // What comes after it in the same process may.
    let suspended = change!(fresh.store, (), |tx, _unused| sessions::suspend(tx, &id!("s-1")).await);
    assert!(suspended.unwrap());
    // The embedded engine has one writer, and nothing runs beside it.
    if !fresh.store.is_shared() {
        return;
    }
    let held = Held::hold(&fresh.store).await;
    let lease = Lease { generation: 1, deadline: at(450) };
    let renewed: Result<bool, StoreError> = fresh
        .store
        .commit_row(&zone("z-1"), "s-1", lease, |tx, lease| {
            Box::pin(async move { leases::renew(tx, &id!("s-1"), *lease).await })
        })
        .await;
    assert!(renewed.unwrap());
    held.release().await;
}

pub async fn what_is_over_is_forgotten_from_the_leaves_on(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    let ended = |name: &str, parent: Option<&str>| SessionRow {
        parent_id: parent.map(|parent| id!(parent)),
        status: "terminated".to_owned(),
        terminated_at: Some(at(10)),
        ..samples::session(name, false)
    };
    let edge = |name: &str, status: &str| delegations::EdgeRow {
        status: status.to_owned(),
        expires_at: at(20),
        revoked_at: (status == "revoked").then(|| at(10)),
        ..samples::edge(name, false)
    };
    let sessions_of_old =
        [ended("s-1", None), ended("s-2", None), ended("s-3", Some("s-2")), samples::session("s-4", false)];
    let edges_of_old = [
        edge("e-1", "revoked"),
        edge("e-2", "active"),
        delegations::EdgeRow { target_session_id: id!("s-4"), ..edge("e-3", "revoked") },
    ];
    change!(fresh.store, (sessions_of_old, edges_of_old), |tx, both| {
        for row in &both.0 {
            sessions::add(tx, row).await?;
        }
        for edge in &both.1 {
            delegations::add(tx, edge).await?;
        }
        Ok(())
    })
    .unwrap();
    let forgettable = async |before| {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        let found = forgetting::find_zone(&mut snapshot.deployment(), None, before, before).await.unwrap();
        let mut read = snapshot.zone(&zone("z-1"));
        let edges = forgetting::list_forgettable_edges(&mut read, before, 10).await.unwrap();
        let sessions = forgetting::list_forgettable_sessions(&mut read, before, 10).await.unwrap();
        let edges: Vec<String> = edges.iter().map(ToString::to_string).collect();
        let sessions: Vec<String> = sessions.iter().map(ToString::to_string).collect();
        (found.is_some(), edges, sessions)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(forgettable(at(10)).await, (false, vec![], vec![]));
    // `e-3` led to a session that runs; `s-1` and `s-2` are named by edges, `s-2` by its child, too.
    assert_eq!(forgettable(at(11)).await, (true, names(&["e-1"]), names(&["s-3"])));
    let expire =
        async || change!(fresh.store, (), |tx, _unused| forgetting::expire_edge(tx, &id!("e-2")).await).unwrap();
    let lapsed = async || {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        forgetting::list_lapsed_edges(&mut snapshot.zone(&zone("z-1")), 10).await.unwrap().len()
    };
    assert_eq!((lapsed().await, expire().await), (0, false));
    clock.advance(21);
    assert_eq!((lapsed().await, expire().await, expire().await, lapsed().await), (1, true, false, 0));
    let removed = change!(fresh.store, (), |tx, _unused| {
        let edges = [
            forgetting::remove_edge(tx, &id!("e-1")).await?,
            forgetting::remove_edge(tx, &id!("e-2")).await?,
            forgetting::remove_edge(tx, &id!("e-2")).await?,
        ];
        let sessions =
            [forgetting::remove_session(tx, &id!("s-3")).await?, forgetting::remove_session(tx, &id!("s-4")).await?];
        Ok((edges, sessions))
    });
    assert_eq!(removed.unwrap(), ([true, true, false], [true, false]), "what runs is not removed");
    assert_eq!(forgettable(at(21)).await, (true, vec![], names(&["s-2"])), "`s-1` is named by `e-3`");
}

pub async fn records_of_changes_wait_in_the_order_of_their_ids(make: Make) {
    let fresh = fresh(make).await;
    let waiting = |name: &str| WaitingChange { id: name.to_owned(), record: format!("{{\"id\":\"{name}\"}}") };
    let rows = [waiting("b"), waiting("a"), waiting("c")];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            waiting_changes::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut all = snapshot.deployment();
    assert_eq!(waiting_changes::find_zone(&mut all, None).await.unwrap(), Some(zone("z-1")));
    assert_eq!(waiting_changes::find_zone(&mut all, Some(&zone("z-1"))).await.unwrap(), None);
    let listed = waiting_changes::list(&mut snapshot.zone(&zone("z-1")), 2).await.unwrap();
    assert_eq!(listed, [rows[1].clone(), rows[0].clone()]);
    assert!(waiting_changes::list(&mut snapshot.zone(&zone("z-2")), 2).await.unwrap().is_empty());
    drop(snapshot);
    change!(fresh.store, (), |tx, _unused| waiting_changes::remove(tx, "a").await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert_eq!(
        waiting_changes::list(&mut snapshot.zone(&zone("z-1")), 9).await.unwrap(),
        [rows[0].clone(), rows[2].clone()]
    );
}
