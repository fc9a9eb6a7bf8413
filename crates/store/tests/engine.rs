//! What the seam promises, on the embedded engine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_store::{SqliteOptions, Store, StoreError, SystemClock, deployment, used_mandates};

fn open(directory: &std::path::Path) -> Store {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mandate_is_consumed_once_whoever_races() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let zone = ZoneId::parse("z-1").unwrap();
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let (store, zone) = (store.clone(), zone.clone());
        tasks.push(tokio::spawn(async move {
            store
                .commit(&zone, (), |tx, ()| {
                    Box::pin(async move {
                        let end = tx.now();
                        used_mandates::consume(tx, "jti-1", "r-1", end).await
                    })
                })
                .await
                .unwrap()
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_failed_change_leaves_nothing_and_its_neighbours_stand() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let failed: Result<(), StoreError> = store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                deployment::put(tx, "a", "1").await?;
                Err(StoreError::Unavailable { reason: "no".to_owned() })
            })
        })
        .await;
    assert!(failed.is_err());
    let kept: Result<(), StoreError> =
        store.commit_deployment((), |tx, ()| Box::pin(async move { deployment::put(tx, "b", "2").await })).await;
    kept.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(deployment::lookup(&mut snapshot.deployment(), "a").await.unwrap(), None);
    assert_eq!(deployment::lookup(&mut snapshot.deployment(), "b").await.unwrap().as_deref(), Some("2"));
    drop(snapshot);
    store.close().await;
    drop(store);
    let store = open(directory.path());
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(deployment::lookup(&mut snapshot.deployment(), "b").await.unwrap().as_deref(), Some("2"));
}
