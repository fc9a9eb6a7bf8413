//! Killed at every step of an append and of a checkpoint: before each durable write, with all of it written and nothing
//! committed, and behind it. What lies there then is read by an outsider who shares no code with the ledger, and by the
//! verifier; then the next process goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "support/outsider.rs"]
mod outsider;
mod support;
#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use caracal_crypto::hmac::HmacKey;
use caracal_ledger::transparency::{Given, prove};
use caracal_ledger::{Chain, HeadsObserver, find_rollback, verify_store};
use caracal_store::conformance::{self, WatchedClock};
use caracal_store::{Committed, Store, StoreError, SystemClock};
use caracal_testkit::{Place, Steps, kill_at};

use support::*;
use trees::{log, verify};

/// Processes are started between the opening and the closing of stores: one at a time, as each of them has for a moment
/// whatever locks the others hold.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn audit_key() -> HmacKey {
    HmacKey::from_bytes(&(1..=32).collect::<Vec<u8>>()).unwrap()
}

/// The store of a process that is to be killed; `steps` are taken whenever it asks for the time.
async fn open_watched(steps: &Arc<Steps>, done: &Arc<AtomicI64>) -> Store {
    let (directory, url) = Steps::place();
    let (steps, done) = (steps.clone(), done.clone());
    let asked = move || steps.take(&format!("before a write, {} done", done.load(Ordering::SeqCst)));
    let clock = WatchedClock { of: Arc::new(SystemClock), asked: Box::new(asked) };
    conformance::open(&directory, url.as_deref(), Arc::new(clock)).await
}

/// Closes it and lets go of its lock.
async fn end(store: Store) {
    store.close().await;
}

fn done_in(step: &str) -> i64 {
    step.split(' ').find_map(|word| word.parse().ok()).unwrap()
}

/// The verifier and the start of the next process are content with what lies there and with the heads beside it.
async fn is_content(place: &Place, step: &str) {
    let (store, heads) = (open(place).await, heads_in(place));
    let mut snapshot = store.snapshot().await.unwrap();
    let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
    assert!(report.is_intact(), "{step}: {report}");
    let rollback = find_rollback(&mut snapshot.deployment(), Some(key().as_ref()), &heads).await.unwrap();
    assert_eq!(rollback, None, "{step}");
    drop(snapshot);
    end(store).await;
}

mod t06_evidence_crash {
    use super::*;

    /// Three events, a change and a change without zone, each with its effect.
    async fn append(steps: Arc<Steps>) {
        let done = Arc::new(AtomicI64::new(0));
        let store = open_watched(&steps, &done).await;
        let told = |what: &'static str| {
            let (steps, done) = (steps.clone(), done.clone());
            Arc::new(move |_: &Committed| steps.take(&format!("{what}, {} done", done.load(Ordering::SeqCst))))
        };
        store.observe(told("committed"));
        store.observe(Arc::new(HeadsObserver::open(&Steps::place().0, key()).unwrap()));
        store.observe(told("noted beside the store"));
        steps.begin();
        for number in 6..=8 {
            record(&store, &zone("z-1"), &format!("e-{number}")).await.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        }
        record_change(&store, &zone("z-1"), "a-6").await.unwrap();
        done.fetch_add(1, Ordering::SeqCst);
        record_zoneless(&store, change(None, "n-4")).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_append_that_is_killed_anywhere_is_there_with_its_effect_or_not_at_all() {
        if let Some(steps) = Steps::of_this_process() {
            return append(steps).await;
        }
        let name = "t06_evidence_crash::an_append_that_is_killed_anywhere_is_there_with_its_effect_or_not_at_all";
        let _alone = ALONE.lock().await;
        let original = Place::new();
        recorded(&original).await.close().await;
        let mut seen = BTreeSet::new();
        for number in 1.. {
            let place = original.copy();
            let Some(step) = kill_at(name, number, &place) else { break };
            let done = done_in(&step);
            let there = done + i64::from(!step.starts_with("before"));
            let noted = done + i64::from(step.starts_with("noted"));
            let found = outsider::read(&place, &audit_key());
            assert_eq!(found.ends("z-1"), (1, 5 + there.min(3)), "{step}");
            let used = outsider::rows(&place, &["jti"], "used_mandates WHERE zone_id = 'z-1'").len();
            assert_eq!(used as i64, 5 + there.min(3), "{step}: an event without its effect");
            let changes = outsider::rows(&place, &["id"], "admin_audit_events").len();
            assert_eq!(changes as i64, 8 + (there - 3).max(0), "{step}");
            let heads = heads_in(&place);
            let expected = [5 + noted.min(3), 5 + (noted - 3).clamp(0, 1), 3 + (noted - 4).max(0)];
            let chains = [evidence_of("z-1"), Chain::Admin(Some(zone("z-1"))), Chain::Admin(None)];
            assert_eq!(chains.map(|chain| heads[&chain].chain_seq), expected, "{step}");
            is_content(&place, &step).await;
            // The next process goes on where this one was.
            let store = open(&place).await;
            store.observe(Arc::new(HeadsObserver::open(place.path(), key()).unwrap()));
            record(&store, &zone("z-1"), "next").await.unwrap();
            end(store).await;
            assert_eq!(outsider::read(&place, &audit_key()).ids("z-1").pop(), Some("next"), "{step}");
            is_content(&place, &step).await;
            seen.insert(step);
        }
        let expected = (0..5).flat_map(|done| {
            ["before a write", "committed", "noted beside the store"].map(|what| format!("{what}, {done} done"))
        });
        assert_eq!(seen, expected.collect(), "a step is missing from the table");
    }

    const EVENTS: i64 = 1_200;

    /// A tree of five leaves, and a chain that went on so far that it takes two commits to catch up.
    async fn behind(place: &Place) -> String {
        let store = recorded(place).await;
        log(&store).catch_up().await.unwrap();
        let held = trees::checkpoint_of(&store).await;
        let events: Vec<_> = (6..=EVENTS).map(|number| event(&zone("z-1"), &format!("e-{number}"))).collect();
        let added: Result<(), StoreError> = store
            .commit(&zone("z-1"), (ledger(), events), |tx, (ledger, events)| {
                Box::pin(async move { ledger.record(tx, events).await })
            })
            .await;
        added.unwrap();
        store.close().await;
        held
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkpoint_that_is_killed_anywhere_is_over_a_whole_tree_and_the_next_one_continues_it() {
        if let Some(steps) = Steps::of_this_process() {
            let store = open_watched(&steps, &Arc::default()).await;
            steps.begin();
            log(&store).catch_up().await.unwrap();
            return;
        }
        let name = "t06_evidence_crash::\
                    a_checkpoint_that_is_killed_anywhere_is_over_a_whole_tree_and_the_next_one_continues_it";
        let _alone = ALONE.lock().await;
        let original = Place::new();
        let held = behind(&original).await;
        let (mut sizes, found) = (BTreeSet::new(), outsider::read(&original, &audit_key()));
        assert_eq!(held.lines().nth(2), Some(outsider::root(&found.chains["z-1"][..5]).as_str()));
        for number in 1.. {
            let place = original.copy();
            if kill_at(name, number, &place).is_none() {
                break;
            }
            let size = outsider::tree(&place, "z-1", &found);
            is_content(&place, &format!("step {number}")).await;
            let store = open(&place).await;
            let added = log(&store).catch_up().await.unwrap();
            assert_eq!(added as i64, EVENTS - size as i64, "step {number}");
            assert_eq!(outsider::tree(&place, "z-1", &found) as i64, EVENTS, "step {number}");
            let given = Given { since: Some(&held), against: None };
            let made = prove(&mut store.snapshot().await.unwrap().zone(&zone("z-1")), "req-e-1100", given).await;
            assert_eq!(verify(&made.unwrap(), Some(&held)).unwrap().continues, Some(5), "step {number}");
            end(store).await;
            is_content(&place, &format!("step {number}")).await;
            sizes.insert(size);
        }
        // Before the first commit, and between the two; behind the second there is nothing left to do.
        assert_eq!(sizes, BTreeSet::from([5, 1_029]));
    }
}
