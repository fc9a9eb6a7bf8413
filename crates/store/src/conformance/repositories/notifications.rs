//! Sinks, what is on its way to them, and consents under way.

use std::sync::Arc;

use caracal_authority::Timestamp;

use super::management::change;
use crate::clock::ManualClock;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::conformance::{Fresh, Make};
use crate::error::StoreError;
use crate::notification_deliveries::{self, Delivery};
use crate::notification_sinks::{self, Behind, Claimed, Failure, Health, Sink};
use crate::oauth_states;
use crate::page::Page;

/// Runs upkeep of zone `z-1`; the closure captures nothing.
macro_rules! upkeep {
    ($store:expr, $input:expr, |$tx:ident, $value:ident| $body:expr) => {{
        let done: Result<_, StoreError> = $store
            .commit_upkeep($input, |tx, $value| {
                Box::pin(async move {
                    let $tx = &mut tx.zone_write(&zone("z-1"));
                    $body
                })
            })
            .await;
        done.unwrap()
    }};
}

async fn sink(fresh: &Fresh, name: &str) -> Option<Sink> {
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    notification_sinks::lookup(&mut snapshot.zone(&zone("z-1")), &id!(name)).await.unwrap()
}

async fn deliveries(fresh: &Fresh, sink: &str) -> Vec<Delivery> {
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    notification_deliveries::list(&mut read, &id!(sink), &Page::first(10)).await.unwrap()
}

async fn due(fresh: &Fresh, health: Health) -> Vec<String> {
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let due = notification_sinks::list_due(&mut snapshot.deployment(), health, 10).await.unwrap();
    due.into_iter().map(|due| due.id.to_string()).collect()
}

pub async fn sinks_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::sink("n-1", false), samples::sink("n-2", true)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            notification_sinks::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    for row in &rows {
        same(&sink(&fresh, row.id.as_str()).await.unwrap(), row);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    same(
        &notification_sinks::list(&mut read, &Page::first(10)).await.unwrap(),
        &vec![rows[1].clone(), rows[0].clone()],
    );
    assert_eq!(notification_sinks::count(&mut read).await.unwrap(), 2);
    drop(snapshot);

    let other = Sink {
        name: "other".to_owned(),
        url: "https://elsewhere.example/".to_owned(),
        event_types: vec!["step_up_decided".to_owned()],
        active: false,
        ..samples::sink("n-2", true)
    };
    let found = change!(fresh.store, other.clone(), |tx, row| {
        let found = notification_sinks::update(tx, row).await?;
        notification_sinks::forget_failures(tx, &row.id).await?;
        let replaced = notification_sinks::replace_secret(tx, &row.id, &[9]).await?;
        let nobody = notification_sinks::replace_secret(tx, &id!("n-9"), &[9]).await?;
        let absent = Sink { id: id!("n-9"), ..row.clone() };
        Ok((found, replaced, nobody, notification_sinks::update(tx, &absent).await?))
    });
    assert_eq!(found.unwrap(), (true, true, false, false));
    let expected =
        Sink { secret: vec![9], consecutive_failures: 0, last_error: None, updated_at: start(), ..other.clone() };
    same(&sink(&fresh, "n-2").await.unwrap(), &expected);
    let removed = change!(fresh.store, (), |tx, _unused| {
        notification_deliveries::add(tx, &samples::delivery("d-1", "n-2", 1)).await?;
        let removed = notification_sinks::remove(tx, &id!("n-2")).await?;
        Ok((removed, notification_sinks::remove(tx, &id!("n-2")).await?))
    });
    assert_eq!(removed.unwrap(), (true, false));
    assert!(sink(&fresh, "n-2").await.is_none() && deliveries(&fresh, "n-2").await.is_empty());
}

pub async fn a_sink_takes_each_event_once_and_in_order(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, (), |tx, _unused| {
        for seq in 1..=3 {
            crate::evidence::append(tx, &samples::evidence(seq)).await?;
        }
        let sink = Sink { position: 1, due_at: None, active: true, ..samples::sink("n-1", true) };
        notification_sinks::add(tx, &sink).await?;
        notification_sinks::add(tx, &Sink { position: 0, active: false, ..samples::sink("n-2", true) }).await?;
        notification_sinks::add(tx, &Sink { position: 3, active: true, ..samples::sink("n-3", true) }).await
    })
    .unwrap();
    let behind = async |after: Option<&Behind>| {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        notification_sinks::list_behind(&mut snapshot.deployment(), after, 10).await.unwrap()
    };
    let place = Behind { zone_id: zone("z-1"), position: 1 };
    assert_eq!(behind(None).await, std::slice::from_ref(&place));
    assert!(behind(Some(&place)).await.is_empty());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let there = notification_sinks::list_at(&mut read, 1).await.unwrap();
    assert_eq!(there.iter().map(|sink| sink.id.as_str()).collect::<Vec<_>>(), ["n-1"]);
    let filter = crate::evidence::EvidenceFilter::default();
    let found = crate::evidence::search_up_to(&mut read, &filter, (1, 2), 9).await.unwrap();
    assert_eq!(found.iter().map(|event| event.chain_seq).collect::<Vec<_>>(), [2]);
    drop(snapshot);

    let advance = async |from: i64, to: i64, added: Vec<Delivery>| {
        upkeep!(fresh.store, (from, to, added), |tx, input| {
            notification_sinks::advance(tx, &id!("n-1"), (input.0, input.1), &input.2).await
        })
    };
    assert!(!advance(0, 3, vec![samples::delivery("d-9", "n-1", 9)]).await, "it is not there");
    assert!(advance(1, 2, Vec::new()).await);
    assert_eq!(sink(&fresh, "n-1").await.unwrap().due_at, None);
    assert!(advance(2, 3, vec![samples::delivery("d-3", "n-1", 3), samples::delivery("d-2", "n-1", 2)]).await);
    assert!(!advance(2, 3, vec![samples::delivery("d-4", "n-1", 3)]).await, "somebody else has done it");
    let row = sink(&fresh, "n-1").await.unwrap();
    assert_eq!((row.position, row.due_at), (3, Some(start())));
    assert!(behind(None).await.is_empty());
    assert_eq!(deliveries(&fresh, "n-1").await.len(), 2);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for (most, counted) in [(1, 1), (9, 2)] {
        assert_eq!(notification_deliveries::count_open(&mut read, &id!("n-1"), most).await.unwrap(), counted);
    }
    let backlog = notification_deliveries::backlog(&mut snapshot.deployment()).await.unwrap();
    assert_eq!(backlog.0, 2);
    assert!(backlog.1.is_some());
    drop(snapshot);
    let oldest =
        upkeep!(fresh.store, (), |tx, _unused| notification_sinks::claim(tx, &id!("n-1"), start(), at(30)).await);
    assert_eq!(oldest.unwrap().delivery.event_seq, 2);
}

pub async fn a_sink_is_served_by_one_at_a_time(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    change!(fresh.store, (), |tx, _unused| {
        let sink = Sink { due_at: Some(start()), active: true, consecutive_failures: 0, ..samples::sink("n-1", true) };
        notification_sinks::add(tx, &sink).await?;
        notification_deliveries::add(tx, &samples::delivery("d-1", "n-1", 1)).await?;
        notification_deliveries::add(tx, &samples::delivery("d-2", "n-1", 2)).await
    })
    .unwrap();
    let claim = async |due: Timestamp, until: Timestamp| {
        upkeep!(fresh.store, (due, until), |tx, input| {
            notification_sinks::claim(tx, &id!("n-1"), input.0, input.1).await
        })
    };
    let open = |claimed: Option<Claimed>| claimed.map(|claimed| claimed.delivery.id.to_string());
    assert_eq!((due(&fresh, Health::Well).await, due(&fresh, Health::Failing).await), (vec!["n-1".to_owned()], vec![]));
    assert_eq!(open(claim(start(), at(30)).await).as_deref(), Some("d-1"));
    assert_eq!(open(claim(start(), at(31)).await), None, "another has it");
    assert!(due(&fresh, Health::Well).await.is_empty(), "it is not due while it is served");

    // Its holder is gone, and the next takes it over; what the first one brings later moves nothing.
    assert_eq!(open(claim(at(30), at(60)).await).as_deref(), Some("d-1"));
    let late = Failure { status: Some(500), error: "late".to_owned(), retry_at: Some(at(99)) };
    let moved = upkeep!(fresh.store, late, |tx, failure| {
        notification_sinks::failed(tx, &samples::delivery("d-1", "n-1", 1), at(30), failure).await
    });
    assert!(!moved);
    let failure = Failure { status: Some(503), error: "away".to_owned(), retry_at: Some(at(90)) };
    let moved = upkeep!(fresh.store, failure, |tx, failure| {
        notification_sinks::failed(tx, &samples::delivery("d-1", "n-1", 1), at(60), failure).await
    });
    assert!(moved);
    let row = sink(&fresh, "n-1").await.unwrap();
    assert_eq!((row.due_at, row.consecutive_failures, row.last_error.as_deref()), (Some(at(90)), 1, Some("away")));
    let first = deliveries(&fresh, "n-1").await.into_iter().find(|row| row.event_seq == 1).unwrap();
    assert_eq!((first.attempts, first.available_at, first.response_status), (1, at(90), Some(503)));
    clock.advance(91);
    let now = fresh.store.now();
    assert_eq!((due(&fresh, Health::Well).await, due(&fresh, Health::Failing).await), (vec![], vec!["n-1".to_owned()]));

    // Taken, then the next one, which is given up, then there is nothing.
    assert_eq!(open(claim(at(90), at(120)).await).as_deref(), Some("d-1"));
    let held = upkeep!(fresh.store, (), |tx, _unused| {
        notification_sinks::delivered(tx, &samples::delivery("d-1", "n-1", 1), at(120), 204).await
    });
    let row = sink(&fresh, "n-1").await.unwrap();
    assert_eq!((held, row.consecutive_failures, row.due_at, row.last_success_at), (true, 0, Some(now), Some(now)));
    assert_eq!(open(claim(now, at(121)).await).as_deref(), Some("d-2"));
    let given_up = upkeep!(fresh.store, (), |tx, _unused| {
        notification_sinks::given_up(tx, &samples::delivery("d-2", "n-1", 2), at(121), "gone").await
    });
    assert!(given_up);
    assert_eq!(open(claim(now, at(122)).await), None);
    assert_eq!(sink(&fresh, "n-1").await.unwrap().due_at, None);
    let rows = deliveries(&fresh, "n-1").await;
    let settled: Vec<_> = rows.iter().map(|row| (row.event_seq, row.delivered_at, row.abandoned_at)).collect();
    assert!(settled.contains(&(1, Some(now), None)) && settled.contains(&(2, None, Some(now))), "{settled:?}");

    // One that is switched off is not due, whatever lies there.
    change!(fresh.store, (), |tx, _unused| {
        let sink = Sink { due_at: Some(start()), active: false, ..samples::sink("n-2", true) };
        notification_sinks::add(tx, &sink).await
    })
    .unwrap();
    assert!(due(&fresh, Health::Failing).await.is_empty());

    let purge = async |before: Timestamp| -> usize {
        let purged: Result<usize, StoreError> = fresh
            .store
            .commit_upkeep(before, |tx, before| {
                Box::pin(async move { notification_deliveries::purge_settled(tx, *before, 10).await })
            })
            .await;
        purged.unwrap()
    };
    assert_eq!((purge(now).await, purge(at(92)).await, deliveries(&fresh, "n-1").await.len()), (0, 2, 0));
}

pub async fn a_consent_is_finished_once(make: Make) {
    let fresh = fresh(make).await;
    let row = samples::oauth_state("digest-1");
    change!(fresh.store, row.clone(), |tx, row| oauth_states::add(tx, row).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.deployment();
    same(&oauth_states::find_in_any_zone(&mut read, "digest-1").await.unwrap().unwrap(), &row);
    assert!(oauth_states::find_in_any_zone(&mut read, "digest-2").await.unwrap().is_none());
    drop(snapshot);
    let consume = async || -> bool {
        let consumed: Result<bool, StoreError> = fresh
            .store
            .commit_upkeep(row.clone(), |tx, row| Box::pin(async move { oauth_states::consume(tx, row).await }))
            .await;
        consumed.unwrap()
    };
    let (one, other) = tokio::join!(consume(), consume());
    assert!(one != other, "of two that race one wins");
    change!(fresh.store, row.clone(), |tx, row| oauth_states::add(tx, row).await).unwrap();
    let purge = async |before: Timestamp| -> usize {
        let purged: Result<usize, StoreError> = fresh
            .store
            .commit_upkeep(before, |tx, before| {
                Box::pin(async move { oauth_states::purge_expired(tx, *before, 10).await })
            })
            .await;
        purged.unwrap()
    };
    assert_eq!((purge(at(60)).await, purge(at(61)).await), (0, 1));
}
