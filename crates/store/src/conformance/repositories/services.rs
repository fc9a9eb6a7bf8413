//! Services, what is asked of them, and how readers see delegations.

use std::sync::Arc;

use caracal_authority::invocation::InvocationStatus;
use serde_json::json;

use super::management::change;
use crate::agent_services::{self, AgentService};
use crate::clock::ManualClock;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::delegations::{self, EdgeRow};
use crate::error::StoreError;
use crate::invocations::{self, Invocation, InvocationFilter};
use crate::{delegation_reads, sessions};

pub async fn services_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::agent_service("v-1", true), samples::agent_service("v-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            agent_services::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = AgentService { id: id!("v-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, twice, |tx, row| agent_services::add(tx, row).await);
    assert!(matches!(refused.unwrap_err(), StoreError::Conflict { .. }));
    let changed = AgentService {
        protocol_versions: vec!["9".to_owned()],
        framework_name: None,
        framework_version: None,
        capabilities: Vec::new(),
        health: "degraded".to_owned(),
        metadata: json!({"b": 2}).as_object().unwrap().clone(),
        last_heartbeat_at: None,
        ..rows[0].clone()
    };
    let done = change!(fresh.store, changed.clone(), |tx, row| agent_services::update(tx, row).await);
    assert!(done.unwrap());
    let absent =
        change!(fresh.store, samples::agent_service("v-9", true), |tx, row| agent_services::update(tx, row).await);
    assert!(!absent.unwrap());

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    let changed = AgentService { updated_at: start(), ..changed };
    for row in [&changed, &rows[1]] {
        same(&agent_services::lookup(read, &row.id).await.unwrap().unwrap(), row);
        let found = agent_services::find_by_endpoint(read, &row.application_id, &row.endpoint_url).await.unwrap();
        same(&found.unwrap(), row);
    }
    let other = id!("app-9");
    assert!(agent_services::find_by_endpoint(read, &other, &rows[0].endpoint_url).await.unwrap().is_none());
    for (application, before, limit, shown) in [
        (None, None, 10, vec!["v-2", "v-1"]),
        (None, None, 1, vec!["v-2"]),
        (None, Some(id!("v-2")), 10, vec!["v-1"]),
        (Some(rows[1].application_id.clone()), None, 10, vec!["v-2"]),
        (Some(other.clone()), None, 10, vec![]),
    ] {
        let listed = agent_services::list(read, application.as_ref(), before.as_ref(), limit).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), shown);
    }
}

pub async fn invocations_come_back_as_stored(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    let under_way = Invocation {
        status: InvocationStatus::CancelRequested,
        deadline_at: Some(at(5)),
        ..samples::invocation("i-2", true)
    };
    let rows = [samples::invocation("i-1", false), under_way.clone(), samples::invocation("i-3", true)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            invocations::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&invocations::lookup(read, &row.id).await.unwrap().unwrap(), row);
    }
    let all = InvocationFilter::default;
    for (filter, before, limit, shown) in [
        (all(), None, 10, vec!["i-3", "i-2", "i-1"]),
        (all(), Some(id!("i-3")), 1, vec!["i-2"]),
        (InvocationFilter { party: Some(id!("app-2")), ..all() }, None, 10, vec!["i-3", "i-2"]),
        (InvocationFilter { party: Some(id!("app-1")), ..all() }, None, 10, vec!["i-3", "i-2", "i-1"]),
        (InvocationFilter { party: Some(id!("app-9")), ..all() }, None, 10, vec![]),
        (InvocationFilter { status: Some(InvocationStatus::Pending), ..all() }, None, 10, vec!["i-1"]),
        (InvocationFilter { service: Some(id!("v-1")), ..all() }, None, 10, vec!["i-3", "i-2", "i-1"]),
        (InvocationFilter { service: Some(id!("v-9")), ..all() }, None, 10, vec![]),
        (InvocationFilter { session: Some(id!("s-source")), ..all() }, None, 10, vec!["i-3", "i-2"]),
        (InvocationFilter { session: Some(id!("s-target")), ..all() }, None, 10, vec!["i-3", "i-2"]),
    ] {
        let listed = invocations::list(read, &filter, before.as_ref(), limit).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), shown, "{filter:?}");
    }
    assert!(invocations::list_overdue(read, 10).await.unwrap().is_empty());
    let counts = invocations::count_by_status(&mut snapshot.deployment()).await.unwrap();
    let expected =
        [(InvocationStatus::CancelRequested, 1), (InvocationStatus::Failed, 1), (InvocationStatus::Pending, 1)];
    assert_eq!(counts, expected);
    assert_eq!(invocations::find_overdue_zone(&mut snapshot.deployment(), None).await.unwrap(), None);
    // What nobody has begun, and only from the instant on that is named.
    let asked = invocations::lookup(&mut snapshot.zone(&zone("z-1")), &id!("i-1")).await.unwrap().unwrap();
    let (then, earlier) = (asked.created_at, asked.created_at.minus(std::time::Duration::from_micros(1)));
    let listed = invocations::list_unstarted(&mut snapshot.zone(&zone("z-1")), then, 10).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["i-1"]);
    for (zone_id, before, limit) in [("z-1", earlier, 10), ("z-1", then, 0), ("z-2", then, 10)] {
        let none = invocations::list_unstarted(&mut snapshot.zone(&zone(zone_id)), before, limit).await.unwrap();
        assert!(none.is_empty(), "{zone_id} {limit}");
    }
    let mut everywhere = snapshot.deployment();
    assert_eq!(invocations::find_unstarted_zone(&mut everywhere, None, then).await.unwrap(), Some(zone("z-1")));
    assert_eq!(invocations::find_unstarted_zone(&mut everywhere, None, earlier).await.unwrap(), None);
    let beyond = invocations::find_unstarted_zone(&mut everywhere, Some(&zone("z-1")), then).await.unwrap();
    assert_eq!(beyond, None);
    drop(snapshot);

    clock.advance(6);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let overdue = invocations::list_overdue(&mut snapshot.zone(&zone("z-1")), 10).await.unwrap();
    same(&overdue, &vec![under_way.clone()]);
    let mut everywhere = snapshot.deployment();
    assert_eq!(invocations::find_overdue_zone(&mut everywhere, None).await.unwrap(), Some(zone("z-1")));
    assert_eq!(invocations::find_overdue_zone(&mut everywhere, Some(&zone("z-1"))).await.unwrap(), None);
    drop(snapshot);
    let over = Invocation {
        status: InvocationStatus::TimedOut,
        attempts: 7,
        deadline_at: None,
        cancel_requested_at: None,
        started_at: None,
        completed_at: Some(at(6)),
        error: None,
        metadata: json!({"b": 2}).as_object().unwrap().clone(),
        ..under_way
    };
    assert!(change!(fresh.store, over.clone(), |tx, row| invocations::update(tx, row).await).unwrap());
    let absent = change!(fresh.store, samples::invocation("i-9", true), |tx, row| invocations::update(tx, row).await);
    assert!(!absent.unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    let over = Invocation { updated_at: read.now(), ..over };
    same(&invocations::lookup(read, &over.id).await.unwrap().unwrap(), &over);
    assert!(invocations::list_overdue(read, 10).await.unwrap().is_empty());
}

/// `s-1` lends to `s-2` twice, and `s-2` to `s-3` and back to `s-1`; one more edge has lapsed, one was revoked.
pub async fn what_hangs_on_an_edge_is_each_edge_once(make: Make) {
    let fresh = fresh(make).await;
    let edge = |name: &str, source: &str, target: &str| EdgeRow {
        source_session_id: id!(source),
        target_session_id: id!(target),
        issuer_application_id: id!("app-1"),
        receiver_application_id: id!("app-2"),
        parent_edge_id: None,
        status: "active".to_owned(),
        expires_at: at(100),
        ..samples::edge(name, false)
    };
    let rows = vec![
        edge("e-1", "s-1", "s-2"),
        edge("e-2", "s-1", "s-2"),
        edge("e-3", "s-2", "s-3"),
        edge("e-4", "s-2", "s-1"),
        EdgeRow { expires_at: start(), ..edge("e-5", "s-3", "s-4") },
        EdgeRow { status: "revoked".to_owned(), ..edge("e-6", "s-3", "s-4") },
    ];
    change!(fresh.store, rows, |tx, rows| {
        for row in rows {
            delegations::add(tx, row).await?;
        }
        for (name, record) in [("s-1", "rec-1"), ("s-2", "rec-2"), ("s-3", "rec-2"), ("s-4", "rec-4")] {
            let row = sessions::SessionRow {
                id: id!(name),
                parent_id: None,
                subject_record_id: id!(record),
                ..samples::session(name, false)
            };
            sessions::add(tx, &row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    let ids = |rows: Vec<EdgeRow>| rows.iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>();
    for (first, reached, records) in [
        ("e-1", vec!["e-1", "e-2", "e-3", "e-4"], vec!["rec-1", "rec-2"]),
        ("e-3", vec!["e-3"], vec!["rec-2"]),
        ("e-5", vec![], vec![]),
        ("e-6", vec![], vec![]),
        ("absent", vec![], vec![]),
    ] {
        let first = id!(first);
        assert_eq!(ids(delegation_reads::list_live_downstream(read, &first).await.unwrap()), reached, "{first}");
        let anchors = delegation_reads::list_records_downstream(read, &first).await.unwrap();
        assert_eq!(anchors.iter().map(|id| id.as_str()).collect::<Vec<_>>(), records, "{first}");
    }
    let (app, stranger, before) = (id!("app-2"), id!("app-9"), id!("e-3"));
    for (party, before, limit, shown) in [
        (None, None, 10, vec!["e-4", "e-3", "e-2", "e-1"]),
        (Some(&app), None, 2, vec!["e-4", "e-3"]),
        (Some(&app), Some(&before), 10, vec!["e-2", "e-1"]),
        (Some(&stranger), None, 10, vec![]),
    ] {
        assert_eq!(ids(delegation_reads::list_live(read, party, before, limit).await.unwrap()), shown);
    }
    let source = id!("s-3");
    assert_eq!(ids(delegation_reads::list_from(read, &source, None, 10).await.unwrap()), ["e-6", "e-5"]);
    let before = id!("e-6");
    assert_eq!(ids(delegation_reads::list_from(read, &source, Some(&before), 10).await.unwrap()), ["e-5"]);
    assert_eq!(ids(delegation_reads::list_from(read, &source, None, 1).await.unwrap()), ["e-6"]);
}
