//! What may only be added, and never twice in one place.

use super::Make;
use super::fixtures::{at, fresh, zone};
use super::repositories::samples;
use crate::error::StoreError;
use crate::store::Store;
use crate::transparency::{self, TreeRow};
use crate::{admin_evidence, evidence, policies, policy_sets};

/// The engine itself refuses, whatever the statement.
async fn refuses_change(make: Make, tables: &[&str]) {
    let fresh = fresh(make).await;
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                let mut zone = tx.zone_write(&zone("z-1"));
                evidence::append(&mut zone, &samples::evidence(1)).await?;
                admin_evidence::append(&mut zone, &samples::admin_evidence("z-1", 1)).await?;
                policies::add_version(&mut zone, &samples::policy_version("p-1", 1)).await?;
                policy_sets::add_version(&mut zone, &samples::policy_set_version("s-1", 1)).await?;
                let row = samples::admin_evidence(admin_evidence::ZONELESS_CHAIN, 1);
                admin_evidence::append_zoneless(tx, &row).await
            })
        })
        .await;
    added.unwrap();
    for table in tables {
        for statement in [
            "UPDATE {} SET id = id",
            "UPDATE {} SET zone_id = zone_id WHERE zone_id = 'z-1'",
            "DELETE FROM {}",
            "DELETE FROM {} WHERE zone_id = 'z-1'",
            // One of the two is no statement of this engine at all.
            "INSERT OR REPLACE INTO {} SELECT * FROM {}",
            "INSERT INTO {} SELECT * FROM {} WHERE true ON CONFLICT ON CONSTRAINT {}_pkey DO UPDATE SET id = excluded.id",
        ] {
            let statement = statement.replace("{}", table);
            let changed = run(&fresh.store, &statement).await;
            assert!(matches!(changed, Err(StoreError::Statement { .. })), "{statement}: {changed:?}");
        }
        // The statements are valid ones: where no row matches, an engine may find nothing to refuse, or refuse the right.
        for statement in ["DELETE FROM {} WHERE zone_id = 'z-2'", "UPDATE {} SET id = id WHERE zone_id = 'z-2'"] {
            match run(&fresh.store, &statement.replace("{}", table)).await {
                Ok(changed) => assert_eq!(changed, 0),
                Err(error) => assert!(error.to_string().contains("permission denied for table"), "{error}"),
            }
        }
    }
}

/// Runs a statement with the very rights the store has.
pub(super) async fn run(store: &Store, statement: &str) -> Result<usize, StoreError> {
    store
        .commit_deployment(statement.to_owned(), |tx, statement| {
            Box::pin(async move { tx.tx().append(statement, &[]).await })
        })
        .await
}

/// Evidence of decisions and of management.
pub async fn evidence_can_be_neither_changed_nor_removed(make: Make) {
    refuses_change(make, &["audit_events", "admin_audit_events"]).await;
}

/// What was once decided by stays readable as it was.
pub async fn published_versions_can_be_neither_changed_nor_removed(make: Make) {
    refuses_change(make, &["policy_versions", "policy_set_versions"]).await;
}

/// Two writers that read one head can't both extend it, and an event is stored once.
pub async fn a_position_in_a_chain_is_taken_once(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    for (seq, id, stored) in [(1, "e-1", true), (1, "e-2", false), (2, "e-1", false), (2, "e-2", true)] {
        let row = evidence::EvidenceRow { id: id.to_owned(), occurred_at: at(1).as_micros(), ..samples::evidence(seq) };
        let added: Result<(), StoreError> =
            store.commit(&z, row, |tx, row| Box::pin(async move { evidence::append(tx, row).await })).await;
        match added {
            Ok(()) => assert!(stored, "{seq} {id}"),
            Err(error) => assert!(!stored && error.is_conflict(), "{seq} {id}: {error}"),
        }
    }
    for (seq, stored) in [(1, true), (1, false), (2, true)] {
        let row = samples::admin_evidence("z-1", seq);
        let added: Result<(), StoreError> =
            store.commit(&z, row, |tx, row| Box::pin(async move { admin_evidence::append(tx, row).await })).await;
        assert_eq!(added.is_ok(), stored, "{seq}");
    }
    let mut snapshot = store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&z);
    let head = evidence::head(&mut read).await.unwrap().unwrap();
    assert_eq!((head.chain_seq, head.content_sha256), (2, samples::evidence(2).content_sha256));
    assert_eq!(admin_evidence::head(&mut read).await.unwrap().unwrap().chain_seq, 2);
    assert_eq!(evidence::list_chain(&mut read, 1, 10).await.unwrap().len(), 2);
}

/// What a checkpoint was signed over can't be taken back, and two who move one tree can't both.
pub async fn the_tree_of_a_ledger_comes_back_as_stored_and_only_grows(make: Make) {
    let fresh = fresh(make).await;
    let (store, z) = (&fresh.store, zone("z-1"));
    let tree =
        |size: i64| TreeRow { size, checkpoint: format!("checkpoint {size}\n"), signed_at: at(size.unsigned_abs()) };
    for (from, to, moved) in [(0, 2, true), (0, 1, false), (1, 3, false), (2, 3, true), (2, 4, false)] {
        let change: Result<bool, StoreError> = store
            .commit_upkeep((from, tree(to)), |tx, (from, to)| {
                Box::pin(async move { transparency::advance(&mut tx.zone_write(&zone("z-1")), *from, to).await })
            })
            .await;
        assert_eq!(change.unwrap(), moved, "{from} to {to}");
    }
    let put = |hashes: Vec<u8>| async move {
        let put: Result<(), StoreError> = store
            .commit_upkeep(hashes, |tx, hashes| {
                Box::pin(async move { transparency::put_tile(&mut tx.zone_write(&zone("z-1")), 1, 7, hashes).await })
            })
            .await;
        put
    };
    put(vec![0, 255]).await.unwrap();
    put(vec![0, 255, 39]).await.unwrap();
    for other in [vec![0, 255], vec![0, 254, 39], vec![1, 255, 39, 4]] {
        assert!(matches!(put(other.clone()).await, Err(StoreError::Statement { .. })), "{other:?}");
    }
    for statement in ["DELETE FROM ledger_trees", "DELETE FROM ledger_tiles", "UPDATE ledger_trees SET size = 1"] {
        let changed = run(store, statement).await;
        assert!(matches!(changed, Err(StoreError::Statement { .. })), "{statement}: {changed:?}");
    }
    for second in [false, true] {
        let key = samples::log_key();
        let added: Result<(), StoreError> =
            store.commit(&z, key, |tx, key| Box::pin(async move { transparency::add_log_key(tx, key).await })).await;
        assert_eq!(added.is_err_and(|error| error.is_conflict()), second);
        let row = samples::evidence(if second { 2 } else { 1 });
        let added: Result<(), StoreError> =
            store.commit(&z, row, |tx, row| Box::pin(async move { evidence::append(tx, row).await })).await;
        added.unwrap();
    }
    let mut snapshot = store.snapshot().await.unwrap();
    // It reaches further than the chain: no reason to let it grow.
    assert!(transparency::list_behind(&mut snapshot.deployment()).await.unwrap().is_empty());
    let mut read = snapshot.zone(&z);
    assert_eq!(transparency::find_tree(&mut read).await.unwrap(), Some(tree(3)));
    assert_eq!(transparency::find_tile(&mut read, 1, 7).await.unwrap(), Some(vec![0, 255, 39]));
    assert_eq!(transparency::find_tile(&mut read, 1, 8).await.unwrap(), None);
    let (found, added) = (transparency::find_log_key(&mut read).await.unwrap().unwrap(), samples::log_key());
    assert_eq!((found.key_id, found.verifier_key), (added.key_id, added.verifier_key));
    assert_eq!((found.sealed_private, found.created_at), (added.sealed_private, added.created_at));
    let mut other = snapshot.zone(&zone("z-2"));
    assert_eq!(transparency::find_tree(&mut other).await.unwrap(), None);
    assert!(transparency::find_log_key(&mut other).await.unwrap().is_none());
    drop(snapshot);
    let row = evidence::EvidenceRow { zone_id: "z-2".to_owned(), ..samples::evidence(1) };
    let added: Result<(), StoreError> =
        store.commit(&zone("z-2"), row, |tx, row| Box::pin(async move { evidence::append(tx, row).await })).await;
    added.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let mut all = snapshot.deployment();
    assert_eq!(transparency::list_behind(&mut all).await.unwrap(), [zone("z-2")]);
    let keys = transparency::list_log_keys(&mut all).await.unwrap();
    assert_eq!(keys, [(zone("z-1"), samples::log_key().verifier_key)]);
    for (request, zones) in [("req-1", vec![zone("z-1"), zone("z-2")]), ("req-2", vec![zone("z-1")]), ("no", vec![])] {
        assert_eq!(transparency::list_zones_of_request(&mut all, request).await.unwrap(), zones, "{request}");
    }
}
