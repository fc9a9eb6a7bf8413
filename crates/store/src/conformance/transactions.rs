//! Atomicity, isolation, durability of answers, and the order in which others hear of commits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use caracal_authority::ZoneId;

use super::fixtures::{Held, at, fresh, id, zone};
use super::{Fresh, Make};
use crate::clock::ManualClock;
use crate::effects::Committed;
use crate::error::StoreError;
use crate::store::{Connections, Store};
use crate::{delegations, deployment, outbox, used_mandates};

/// Marks the mandate `jti` as used.
async fn consume(store: &Store, zone: &ZoneId, jti: &str) -> Result<bool, StoreError> {
    store
        .commit(zone, jti.to_owned(), |tx, jti| {
            Box::pin(async move { used_mandates::consume(tx, jti, "r-1", at(60)).await })
        })
        .await
}

async fn put(store: &Store, name: &str) -> Result<(), StoreError> {
    store
        .commit_deployment(name.to_owned(), |tx, name| Box::pin(async move { deployment::put(tx, name, "1").await }))
        .await
}

async fn value(store: &Store, name: &str) -> Option<String> {
    let mut snapshot = store.snapshot().await.unwrap();
    deployment::lookup(&mut snapshot.deployment(), name).await.unwrap()
}

/// 50 tasks, one mandate: one of them wins.
pub async fn a_mandate_is_consumed_once_whoever_races(make: Make) {
    let fresh = fresh(make).await;
    let tasks = (0..50).map(|_| {
        let store = fresh.store.clone();
        tokio::spawn(async move { consume(&store, &zone("z-1"), "jti-1").await.unwrap() })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
    assert!(consume(&fresh.store, &zone("z-2"), "jti-1").await.unwrap(), "a mandate of another zone is another one");
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert!(used_mandates::is_used(&mut snapshot.zone(&zone("z-1")), "jti-1").await.unwrap());
    assert!(!used_mandates::is_used(&mut snapshot.zone(&zone("z-1")), "jti-2").await.unwrap());
}

/// The same for nonces, which belong to no zone.
pub async fn a_nonce_is_consumed_once_whoever_races(make: Make) {
    let fresh = fresh(make).await;
    let tasks = (0..50).map(|_| {
        let store = fresh.store.clone();
        tokio::spawn(async move {
            let change = store.commit_deployment((), |tx, ()| {
                Box::pin(async move { used_mandates::consume_nonce(tx, "n-1", at(60)).await })
            });
            let won: Result<bool, StoreError> = change.await;
            won.unwrap()
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

/// Changes are serialised: each reads what the one before wrote, also within a group.
pub async fn a_change_sees_what_was_committed_before_it(make: Make) {
    let fresh = fresh(make).await;
    let tasks = (0..100).map(|_| {
        let store = fresh.store.clone();
        tokio::spawn(async move {
            let raised: Result<i64, StoreError> = store
                .commit(&zone("z-1"), (), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await }))
                .await;
            raised.unwrap()
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut epochs = Vec::new();
    for task in tasks {
        epochs.push(task.await.unwrap());
    }
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=100).collect::<Vec<_>>());
}

/// What `caller` does in the group of three: write a row and a message, then succeed, fail, or succeed.
async fn say(store: Store, name: &'static str) -> Result<(), StoreError> {
    store
        .commit(&zone("z-1"), name, |tx, name| {
            Box::pin(async move {
                used_mandates::consume(tx, name, "r-1", at(60)).await?;
                outbox::add(tx, id!(name), "topic", name, vec![("name".to_owned(), (*name).to_owned())]).await?;
                if *name == "fails" {
                    return Err(StoreError::Statement { reason: "on purpose".to_owned() });
                }
                assert!(*name != "panics", "on purpose");
                Ok(())
            })
        })
        .await
}

/// Names of the messages observers were told of.
fn heard(store: &Store) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    store.observe(Arc::new(move |committed: &Committed| {
        let names = committed.messages.iter().filter_map(|message| message.field("name")).map(str::to_owned);
        told.lock().unwrap().extend(names);
    }));
    heard
}

async fn one_falls_and_its_neighbours_stand(make: Make, fallen: &'static str) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let heard = heard(store);
    let held = Held::hold(store).await;
    let mut answers = Vec::new();
    for name in ["before", fallen, "after"] {
        let task = tokio::spawn(say(store.clone(), name));
        // One after the other into the queue, so that all three wait when the store is let go.
        while !task.is_finished() && store.waiting() <= answers.len() {
            tokio::task::yield_now().await;
        }
        answers.push(task);
    }
    held.release().await;
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await.unwrap());
    }
    assert!(matches!(results[..], [Ok(()), Err(_), Ok(())]), "{results:?}");
    assert_eq!(*heard.lock().unwrap(), ["before", "after"]);
    let mut snapshot = store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for (name, kept) in [("before", true), (fallen, false), ("after", true)] {
        assert_eq!(used_mandates::is_used(&mut read, name).await.unwrap(), kept, "{name}");
        assert_eq!(outbox::lookup(&mut read, &id!(name)).await.unwrap().is_some(), kept, "{name}");
    }
    drop(snapshot);
    // What failed can be done again: nothing of it, such as its dedupe key, is left.
    assert!(consume(store, &zone("z-1"), fallen).await.unwrap());
}

/// Rows and messages of a failed change are gone, those of changes that were committed with it are not.
pub async fn a_failed_change_leaves_nothing_and_its_neighbours_stand(make: Make) {
    one_falls_and_its_neighbours_stand(make, "fails").await;
}

/// A panic is a failure like any other.
pub async fn a_panicking_change_is_rolled_back_and_the_store_goes_on(make: Make) {
    one_falls_and_its_neighbours_stand(make, "panics").await;
}

/// Every commit is told once, in order, and its caller's answer comes later.
pub async fn observers_hear_in_commit_order_and_before_the_caller(make: Make) {
    let fresh = fresh(make).await;
    let heard = heard(&fresh.store);
    let tasks = (0..100).map(|_| {
        let (store, heard) = (fresh.store.clone(), heard.clone());
        tokio::spawn(async move {
            let name: Result<String, StoreError> = store
                .commit(&zone("z-1"), (), |tx, ()| {
                    Box::pin(async move {
                        let name = delegations::raise_epoch(tx).await?.to_string();
                        outbox::add(tx, id!(name), "topic", &name, vec![("name".to_owned(), name.clone())]).await?;
                        Ok(name)
                    })
                })
                .await;
            let name = name.unwrap();
            assert!(heard.lock().unwrap().contains(&name), "answered before it was told: {name}");
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let expected: Vec<String> = (1..=100).map(|number: i64| number.to_string()).collect();
    assert_eq!(*heard.lock().unwrap(), expected);
}

/// From the moment it is opened, not from its first read.
pub async fn a_snapshot_is_one_instant(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    put(store, "before").await.unwrap();
    let mut unread = store.snapshot().await.unwrap();
    let mut read = store.snapshot().await.unwrap();
    assert!(deployment::lookup(&mut read.deployment(), "before").await.unwrap().is_some());
    put(store, "after").await.unwrap();
    for snapshot in [&mut unread, &mut read] {
        assert!(deployment::lookup(&mut snapshot.deployment(), "before").await.unwrap().is_some());
        assert!(deployment::lookup(&mut snapshot.deployment(), "after").await.unwrap().is_none());
    }
    assert!(value(store, "after").await.is_some());
    // A connection that served an old snapshot serves the next one afresh.
    drop((unread, read));
    for _ in 0..20 {
        assert!(value(store, "after").await.is_some());
    }
}

/// The clock may go on, a transaction's time does not.
pub async fn a_snapshot_has_one_time(make: Make) {
    let clock = Arc::new(ManualClock::at(at(0)));
    let fresh = make(clock.clone()).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    clock.advance(60);
    assert_eq!(snapshot.now(), at(0));
    assert_eq!(snapshot.zone(&zone("z-1")).now(), at(0));
    assert_eq!(snapshot.deployment().now(), at(0));
    let moved: Result<_, StoreError> = fresh
        .store
        .commit(&zone("z-1"), clock.clone(), |tx, clock| {
            Box::pin(async move {
                let before = tx.now();
                clock.advance(60);
                Ok((before, tx.now()))
            })
        })
        .await;
    let (before, after) = moved.unwrap();
    assert_eq!((before, after), (at(60), at(60)));
    assert_eq!(fresh.store.now(), at(120));
}

/// What is shown to operators as the use of the store's connections.
pub async fn a_connection_is_in_use_as_long_as_its_transaction(make: Make) {
    let Fresh { store, kept: _kept } = fresh(make).await;
    let settled = async |in_use: usize| {
        let given_back = async {
            while store.connections().in_use != in_use {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), given_back).await.unwrap();
    };
    settled(0).await;
    let all = store.connections().all;
    assert!(all >= 2);
    let (one, other) = (store.snapshot().await.unwrap(), store.snapshot().await.unwrap());
    assert_eq!(store.connections(), Connections { all, in_use: 2 });
    drop(one);
    settled(1).await;
    drop(other);
    settled(0).await;
}

/// Callers are dropped before their change was submitted, while it waits for room, and after; each wrote two rows.
pub async fn a_caller_that_goes_away_leaves_its_change_done_or_not(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let held = Held::hold(store).await;
    let names: Vec<String> = (0..6_000).map(|number| format!("m-{number}")).collect();
    let mut abandoned = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let z = zone("z-1");
        let mut change = Box::pin(store.commit(&z, name.clone(), |tx, name| {
            Box::pin(async move {
                used_mandates::consume(tx, name, "r-1", at(60)).await?;
                outbox::add(tx, id!(name), "topic", name, Vec::new()).await
            })
        }));
        if number % 7 > 0 {
            let polled: Poll<Result<bool, StoreError>> = poll_fn(|cx| Poll::Ready(change.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        drop(change);
        abandoned.push(number % 7 > 0);
        tokio::task::yield_now().await;
    }
    held.release().await;
    assert!(consume(store, &zone("z-1"), "last").await.unwrap(), "behind all that were submitted");
    let mut snapshot = store.snapshot().await.unwrap();
    let mut done = 0;
    for (name, submitted) in names.iter().zip(abandoned) {
        let mut read = snapshot.zone(&zone("z-1"));
        let (row, message) = (
            used_mandates::is_used(&mut read, name).await.unwrap(),
            outbox::lookup(&mut read, &id!(name)).await.unwrap().is_some(),
        );
        assert_eq!(row, message, "half of {name} is there");
        assert!(submitted || !row, "{name} was never submitted");
        done += u32::from(row);
    }
    assert!(done >= 1_000, "{done} of those that were submitted are there");
}

/// Waiting changes are finished, a caller that found no room included; what comes later is refused.
pub async fn closing_finishes_what_was_submitted_and_then_refuses(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let held = Held::hold(store).await;
    let mut answers = Vec::new();
    for number in 0..300 {
        let store = store.clone();
        answers.push(tokio::spawn(async move { put(&store, &format!("n-{number}")).await }));
    }
    while store.waiting() < 300 {
        tokio::task::yield_now().await;
    }
    let closed = Arc::new(AtomicBool::new(false));
    let mut closing = pin!(async {
        store.close().await;
        closed.store(true, Ordering::SeqCst);
    });
    let started: Poll<()> = poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx))).await;
    assert!(started.is_pending() && !closed.load(Ordering::SeqCst));
    let second = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    assert!(matches!(put(store, "late").await, Err(StoreError::Unavailable { .. })));
    held.release().await;
    closing.await;
    second.await.unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(matches!(put(store, "late").await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.snapshot().await.map(|_| ()), Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.check().await, Err(StoreError::Unavailable { .. })));
    assert_eq!(store.changes(), 301);
}

/// The second one is not told to anybody either, and a message with control characters is refused.
pub async fn a_message_is_added_once_per_topic_and_key(make: Make) {
    let fresh = fresh(make).await;
    let heard = heard(&fresh.store);
    let z = zone("z-1");
    for (message, topic, key, added) in [
        ("m-1", "a", "k", Ok(true)),
        ("m-2", "a", "k", Ok(false)),
        ("m-3", "b", "k", Ok(true)),
        ("m-4", "a", "l", Ok(true)),
        ("m\n5", "a", "m", Err(())),
    ] {
        let done: Result<bool, StoreError> = fresh
            .store
            .commit(&z, (message, topic, key), |tx, (message, topic, key)| {
                Box::pin(async move {
                    let fields = vec![("name".to_owned(), (*message).to_owned()), ("empty".to_owned(), String::new())];
                    outbox::add(tx, id!(message.replace('\n', "-")), topic, key, fields).await
                })
            })
            .await;
        assert_eq!(done.map_err(|_| ()), added, "{message:?}");
    }
    assert_eq!(*heard.lock().unwrap(), ["m-1", "m-3", "m-4"]);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&z);
    let row = outbox::lookup(&mut read, &id!("m-1")).await.unwrap().unwrap();
    assert_eq!((row.topic.as_str(), row.attempts, row.last_error), ("a", 0, None));
    assert_eq!(row.fields, [("name".to_owned(), "m-1".to_owned()), ("empty".to_owned(), String::new())]);
    assert!(outbox::lookup(&mut read, &id!("m-2")).await.unwrap().is_none());
    let newest = outbox::find_newest(&mut read, "a", "l").await.unwrap().unwrap();
    assert_eq!(newest.id, id!("m-4"));
    assert!(outbox::find_newest(&mut read, "a", "x").await.unwrap().is_none());
}
