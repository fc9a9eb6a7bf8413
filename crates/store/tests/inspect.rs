//! A store's file looked at from outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use caracal_store::{OpenError, SqliteOptions, Store, StoreError, SystemClock, deployment, inspect};

fn open(directory: &Path) -> Store {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
}

async fn put(store: &Store, name: &str) {
    let done: Result<(), StoreError> = store
        .commit_deployment(name.to_owned(), |tx, name| Box::pin(async move { deployment::put(tx, name, "1").await }))
        .await;
    done.unwrap();
}

fn seen(path: &Path, name: &str) -> bool {
    let mut inspection = inspect(path).unwrap();
    inspection.run(async |tx| deployment::lookup(tx, name).await).unwrap().is_some()
}

fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

#[tokio::test]
async fn a_copy_of_a_running_store_can_be_inspected_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "kept").await;
    // Odd characters in the path are no part of any query.
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("a?mode=rw#%41 ä");
    fs::create_dir(&copy).unwrap();
    for name in ["caracal.db", "caracal.db-wal"] {
        fs::copy(directory.path().join(name), copy.join(name)).unwrap();
    }
    put(&store, "after the copy").await;
    let before = content(&copy);
    for _ in 0..2 {
        assert!(seen(&copy.join("caracal.db"), "kept"));
        assert!(!seen(&copy.join("caracal.db"), "after the copy"));
        assert!(content(&copy) == before, "{:?}", content(&copy).keys());
    }
    // The copy is a whole store.
    let restored = open(&copy);
    let mut snapshot = restored.snapshot().await.unwrap();
    assert!(deployment::lookup(&mut snapshot.deployment(), "kept").await.unwrap().is_some());
    drop(snapshot);
    restored.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_running_store_can_be_inspected_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("caracal.db");
    let store = open(directory.path());
    put(&store, "first").await;
    assert!(seen(&path, "first"));
    let mut inspection = inspect(&path).unwrap();
    put(&store, "second").await;
    let second = inspection.run(async |tx| deployment::lookup(tx, "second").await);
    assert!(second.unwrap().is_some());
    drop(inspection);
    store.close().await;
    assert!(seen(&path, "second"));
}

#[tokio::test]
async fn a_closed_store_can_be_inspected_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "kept").await;
    store.close().await;
    let before = content(directory.path());
    assert!(seen(&directory.path().join("caracal.db"), "kept"));
    assert_eq!(content(directory.path()), before);
}

#[test]
fn what_is_no_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("caracal.db");
    let refused = || match inspect(&path) {
        Err(error) => error,
        Ok(_) => panic!("it was opened"),
    };
    assert!(matches!(refused(), OpenError::Unusable { .. }));
    fs::create_dir(&path).unwrap();
    assert!(matches!(refused(), OpenError::Unusable { .. }));
    fs::remove_dir(&path).unwrap();
    for bytes in [&b""[..], b"hello", &[7; 8192]] {
        fs::write(&path, bytes).unwrap();
        let before = content(directory.path());
        let error = refused();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert_eq!(content(directory.path()), before);
    }
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(other);
    assert!(matches!(refused(), OpenError::Foreign { .. }));
}
