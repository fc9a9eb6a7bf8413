//! What only the embedded engine promises: how commits are shared, and what makes its writer stop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use caracal_authority::ZoneId;
use caracal_store::{Committed, SqliteOptions, Store, StoreError, SystemClock, deployment, outbox};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

fn open(directory: &Path) -> Store {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
}

async fn put(store: &Store, name: String) -> Result<(), StoreError> {
    store.commit_deployment(name, |tx, name| Box::pin(async move { deployment::put(tx, name, "1").await })).await
}

async fn has(store: &Store, name: &str) -> bool {
    let mut snapshot = store.snapshot().await.unwrap();
    deployment::lookup(&mut snapshot.deployment(), name).await.unwrap().is_some()
}

/// Keeps the writer inside a change until the sender is dropped.
async fn hold(store: &Store) -> (mpsc::Sender<()>, JoinHandle<Result<(), StoreError>>) {
    let (release, released) = mpsc::channel();
    let (running, runs) = oneshot::channel();
    let input = (Mutex::new(Some(running)), Mutex::new(released));
    let store = store.clone();
    let held = tokio::spawn(async move {
        store
            .commit_deployment(input, |_, (running, released)| {
                Box::pin(async move {
                    running.lock().unwrap().take().unwrap().send(()).unwrap();
                    let _ = released.lock().unwrap().recv();
                    Ok(())
                })
            })
            .await
    });
    runs.await.unwrap();
    (release, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_together_share_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (release, held) = hold(&store).await;
    let tasks: Vec<_> = (0..600)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, format!("n-{number}")).await })
        })
        .collect();
    while store.waiting() < 600 {
        tokio::task::yield_now().await;
    }
    drop(release);
    held.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // 256 at most share a commit: the one that was held and 255 others, 256, and the last 89.
    assert_eq!((store.commits(), store.changes()), (3, 601));
    put(&store, "alone".to_owned()).await.unwrap();
    assert_eq!((store.commits(), store.changes()), (4, 602));
    let failed: Result<(), StoreError> = store
        .commit_deployment((), |_, ()| {
            Box::pin(async { Err(StoreError::Statement { reason: "on purpose".to_owned() }) })
        })
        .await;
    assert!(failed.is_err());
    assert_eq!((store.commits(), store.changes()), (4, 602), "there was nothing to commit");
}

#[tokio::test]
async fn a_change_that_waits_for_something_else_is_refused_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let done: Result<(), StoreError> = store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                deployment::put(tx, "half", "1").await?;
                std::future::pending::<()>().await;
                deployment::put(tx, "other half", "1").await
            })
        })
        .await;
    assert!(matches!(done, Err(StoreError::Statement { .. })), "{done:?}");
    assert!(!has(&store, "half").await);
    put(&store, "next".to_owned()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_no_longer_polled_does_not_keep_the_store_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (release, held) = hold(&store).await;
    // Fill the queue, so that the next caller has to wait for room.
    let mut tasks = Vec::new();
    for number in 0..4096 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move { put(&store, format!("n-{number}")).await }));
    }
    while store.waiting() < 4096 {
        tokio::task::yield_now().await;
    }
    let mut forgotten = Box::pin(put(&store, "forgotten".to_owned()));
    let polled = poll_fn(|cx| Poll::Ready(forgotten.as_mut().poll(cx).is_pending())).await;
    assert!(polled);
    let mut closing = Box::pin(store.close());
    assert!(poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx).is_pending())).await);
    drop(release);
    closing.await;
    held.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    drop(forgotten);
}

/// The observer stands for a Gateway's revocation view: if it may have missed a commit, nothing may be decided any more.
#[tokio::test(flavor = "multi_thread")]
async fn t08_availability_an_observer_that_fails_stops_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let others_heard = Arc::new(AtomicBool::new(false));
    store.observe(Arc::new(|_: &Committed| panic!("on purpose")));
    let heard = others_heard.clone();
    store.observe(Arc::new(move |_: &Committed| heard.store(true, Ordering::SeqCst)));
    put(&store, "nothing to tell".to_owned()).await.unwrap();
    store.check().await.unwrap();
    let zone = ZoneId::parse("z-1").unwrap();
    let told: Result<bool, StoreError> = store
        .commit(&zone, (), |tx, ()| {
            Box::pin(async move { outbox::add(tx, "m-1".parse().unwrap(), "topic", "key", Vec::new()).await })
        })
        .await;
    assert!(matches!(told, Err(StoreError::Unavailable { .. })), "{told:?}");
    assert!(others_heard.load(Ordering::SeqCst), "the others are told nevertheless");
    assert!(matches!(put(&store, "next".to_owned()).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.check().await, Err(StoreError::Unavailable { .. })));
    assert!(!has(&store, "next").await, "reads are still served");
    store.close().await;
}
