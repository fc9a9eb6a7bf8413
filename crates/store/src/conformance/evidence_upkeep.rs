//! What is removed of the evidence, and what is asked of it beside.

use std::time::Duration;

use super::Make;
use super::fixtures::{at, fresh, start, zone};
use super::repositories::samples;
use crate::error::StoreError;
use crate::evidence::{self, EvidenceRow};
use crate::retention::{self, Anchor, Retention};
use crate::store::Store;

async fn add(store: &Store, of: &'static str, rows: Vec<EvidenceRow>) {
    let added: Result<(), StoreError> = store
        .commit(&zone(of), rows, |tx, rows| {
            Box::pin(async move {
                for row in rows {
                    evidence::append(tx, row).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}

/// A row of `of` that was stored `hours` after the start.
fn stored(of: &str, seq: i64, hours: u64) -> EvidenceRow {
    let ingested_at = start().plus(Duration::from_secs(hours * 3_600)).as_micros();
    EvidenceRow { zone_id: of.to_owned(), ingested_at, ..samples::evidence(seq) }
}

fn anchor(of: &str, seq: i64) -> Anchor {
    Anchor {
        zone_id: of.to_owned(),
        chain_seq: seq,
        content_sha256: format!("{seq:064x}"),
        older_than: at(5).as_micros(),
        created_at: at(6).as_micros(),
        seal: "5ea1".to_owned(),
    }
}

async fn remove(store: &Store, of: &str, limit: i64) -> Result<usize, StoreError> {
    store.commit(&zone(of), limit, |tx, limit| Box::pin(retention::remove_anchored(tx, *limit))).await
}

async fn left(store: &Store, of: &str) -> Vec<i64> {
    let mut snapshot = store.snapshot().await.unwrap();
    let rows = evidence::list_between(&mut snapshot.zone(&zone(of)), 0, i64::MAX, 100).await.unwrap();
    rows.iter().map(|row| row.chain_seq).collect()
}

/// Whatever the statement, and whoever's anchor lies beside.
pub async fn evidence_leaves_at_its_old_end_and_behind_an_anchor_only(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    for of in ["z-1", "z-2"] {
        add(store, of, (1..=5).map(|seq| stored(of, seq, seq.unsigned_abs())).collect()).await;
    }
    assert_eq!(remove(store, "z-1", 10).await.unwrap(), 0, "nothing is anchored");
    let older = async |of: &str, hours: u64| {
        let mut snapshot = store.snapshot().await.unwrap();
        let before = start().plus(Duration::from_secs(hours * 3_600));
        let found = retention::find_last_older(&mut snapshot.zone(&zone(of)), before).await.unwrap();
        found.map(|head| (head.chain_seq, head.content_sha256))
    };
    let at_seq = |seq: i64| Some((seq, format!("{seq:064x}")));
    assert_eq!(older("z-1", 1).await, None);
    assert_eq!(older("z-1", 4).await, at_seq(3));
    assert_eq!(older("z-1", 100).await, at_seq(4), "the newest stays");
    assert_eq!(older("z-none", 100).await, None);
    let happened_later = EvidenceRow { occurred_at: at(500_000).as_micros(), ..stored("z-3", 2, 1) };
    add(store, "z-3", vec![stored("z-3", 1, 1), happened_later, stored("z-3", 3, 3)]).await;
    assert_eq!(older("z-3", 100).await, at_seq(1), "what it says of its storing is not enough");

    let anchored: Result<(), StoreError> =
        store.commit(&zone("z-1"), anchor("z-1", 3), |tx, anchor| Box::pin(retention::add_anchor(tx, anchor))).await;
    anchored.unwrap();
    assert_eq!(remove(store, "z-2", 10).await.unwrap(), 0, "another zone's anchor");
    assert_eq!(remove(store, "z-1", 2).await.unwrap(), 2);
    assert_eq!(left(store, "z-1").await, [3, 4, 5], "the oldest first");
    assert_eq!(remove(store, "z-1", 10).await.unwrap(), 1);
    assert_eq!((left(store, "z-1").await, left(store, "z-2").await), (vec![4, 5], vec![1, 2, 3, 4, 5]));
    for statement in [
        "DELETE FROM audit_events WHERE chain_seq >= 4",
        "UPDATE audit_events SET decision = 'deny'",
        "DELETE FROM audit_anchors",
        "UPDATE audit_anchors SET chain_seq = 5",
    ] {
        let refused = super::ledger::run(store, statement).await;
        assert!(matches!(refused, Err(StoreError::Statement { .. })), "{statement}: {refused:?}");
    }
    assert_eq!(left(store, "z-1").await, [4, 5]);

    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(retention::find_anchor(&mut snapshot.zone(&zone("z-1"))).await.unwrap(), Some(anchor("z-1", 3)));
    assert_eq!(retention::find_anchor(&mut snapshot.zone(&zone("z-2"))).await.unwrap(), None);
    assert_eq!(retention::list_anchored(&mut snapshot.deployment()).await.unwrap(), [zone("z-1")]);
    drop(snapshot);
    add(store, "z-1", vec![stored("z-1", 6, 6)]).await;
    assert_eq!(left(store, "z-1").await, [4, 5, 6], "the chain goes on");
}

/// One for the deployment; the newest counts.
pub async fn how_long_evidence_is_kept_comes_back_as_set(make: Make) {
    let fresh = fresh(make).await;
    let found = async || {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        retention::find(&mut snapshot.deployment()).await.unwrap()
    };
    assert_eq!(found().await, None);
    for days in [30, 1] {
        let set: Result<_, StoreError> =
            fresh.store.commit_deployment(days, |tx, days| Box::pin(retention::set(tx, *days, "admin:t-1"))).await;
        let expected = Retention { days, updated_by: "admin:t-1".to_owned(), updated_at: start() };
        assert_eq!((set.unwrap(), found().await), (expected.clone(), Some(expected)));
    }
}

/// Asked for by its name, and for a stretch of its chain.
pub async fn an_event_is_found_by_its_identity_and_its_place(make: Make) {
    let fresh = fresh(make).await;
    let rows: Vec<EvidenceRow> = (1..=4).map(|seq| stored("z-1", seq, 1)).collect();
    add(&fresh.store, "z-1", rows.clone()).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let at_three = rows[2].occurred_at;
    for (id, at, found) in
        [("e-3", at_three, Some(format!("{:064x}", 3))), ("e-3", at_three + 1, None), ("e-2", at_three, None)]
    {
        assert_eq!(evidence::find_by_identity(&mut read, id, at).await.unwrap(), found, "{id} {at}");
    }
    assert_eq!(evidence::list_between(&mut read, 1, 3, 10).await.unwrap(), rows[1..3]);
    assert_eq!(evidence::list_between(&mut read, 0, 9, 2).await.unwrap(), rows[..2]);
    let mut other = snapshot.zone(&zone("z-2"));
    assert_eq!(evidence::find_by_identity(&mut other, "e-3", at_three).await.unwrap(), None);
}
