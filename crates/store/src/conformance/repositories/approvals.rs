//! Holds: one for each request, decided once, spent once, whoever races.

use std::sync::Arc;

use caracal_authority::ApprovalId;
use caracal_authority::approval::{Binding, HoldState};
use serde_json::json;

use super::management::change;
use crate::approvals::{self, ApprovalFilter, ApprovalRow, Verdict};
use crate::clock::ManualClock;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::conformance::{Fresh, Make};
use crate::error::StoreError;
use crate::page::Page;
use crate::store::Store;

/// Adds holds; those that were there already come back.
async fn add(store: &Store, rows: Vec<ApprovalRow>) -> Vec<Option<ApprovalRow>> {
    change!(store, rows, |tx, rows| {
        let mut found = Vec::new();
        for row in rows {
            found.push(approvals::add(tx, row).await?);
        }
        Ok(found)
    })
    .unwrap()
}

fn verdict(approved: bool, message: &str) -> Verdict {
    Verdict {
        approved,
        approver: format!("subject:{}", samples::ODD),
        approver_record: Some(id!("rec-user")),
        reason: Some(samples::ODD.to_owned()),
        message: id!(message),
    }
}

async fn decide(store: &Store, name: &str, approved: bool, message: &str) -> bool {
    let input: (ApprovalId, Verdict) = (id!(name), verdict(approved, message));
    change!(store, input, |tx, input| approvals::decide(tx, &input.0, &input.1).await).unwrap()
}

async fn consume(store: &Store, name: &str, binding: &str) -> bool {
    let input: (ApprovalId, Binding) = (id!(name), Binding::parse(binding).unwrap());
    change!(store, input, |tx, input| approvals::consume(tx, &input.0, &input.1, Some(&id!("rec-made"))).await).unwrap()
}

async fn found(store: &Store, name: &str) -> Option<ApprovalRow> {
    let mut snapshot = store.snapshot().await.unwrap();
    approvals::lookup(&mut snapshot.zone(&zone("z-1")), &id!(name)).await.unwrap()
}

async fn with_clock(make: Make) -> (Fresh, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(start()));
    (make(clock.clone()).await, clock)
}

pub async fn holds_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = vec![samples::approval("a-1", true), samples::approval("a-2", false)];
    assert!(add(&fresh.store, rows.clone()).await.iter().all(Option::is_none));
    for row in &rows {
        same(&found(&fresh.store, row.id.as_str()).await.unwrap(), row);
        row.facts().unwrap();
    }
    let labels = rows[0].facts().unwrap().labels;
    assert_eq!(labels, ["reader", samples::ODD]);
    // Whoever knows the ids finds them in any zone, one or many.
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut all = snapshot.deployment();
    same(&approvals::find_anywhere(&mut all, &[id!("a-2")]).await.unwrap(), &vec![rows[1].clone()]);
    let many: Vec<_> = (0..100).map(|number| id!(&format!("a-{number}"))).collect();
    assert_eq!(approvals::find_anywhere(&mut all, &many).await.unwrap().len(), 2);
    assert!(approvals::find_anywhere(&mut all, &[]).await.unwrap().is_empty());
    drop(snapshot);

    assert!(decide(&fresh.store, "a-1", true, "m-1").await);
    assert!(decide(&fresh.store, "a-2", false, "m-2").await);
    assert!(consume(&fresh.store, "a-1", &rows[0].binding).await);
    let decided = |row: &ApprovalRow| ApprovalRow {
        approver_id: Some(format!("subject:{}", samples::ODD)),
        approver_record_id: Some(id!("rec-user")),
        decision_reason: Some(samples::ODD.to_owned()),
        ..row.clone()
    };
    let spent = ApprovalRow {
        approved_at: Some(start()),
        consumed_at: Some(start()),
        consumed_record_id: Some(id!("rec-made")),
        ..decided(&rows[0])
    };
    same(&found(&fresh.store, "a-1").await.unwrap(), &spent);
    same(&found(&fresh.store, "a-2").await.unwrap(), &ApprovalRow { rejected_at: Some(start()), ..decided(&rows[1]) });
    assert_eq!(spent.facts().unwrap().state(start()), HoldState::Consumed);
}

pub async fn a_request_has_one_hold_while_one_answers_for_it(make: Make) {
    let (fresh, clock) = with_clock(make).await;
    let row = |name: &str| ApprovalRow { id: id!(name), ..samples::approval("a-1", false) };
    assert!(add(&fresh.store, vec![row("a-1")]).await[0].is_none());
    let again = add(&fresh.store, vec![row("a-2")]).await.remove(0).unwrap();
    same(&again, &row("a-1"));
    // Another record, another principal, another binding: another request.
    let others = vec![
        ApprovalRow { record_id: Some(id!("rec-1")), ..row("a-3") },
        ApprovalRow { principal_id: "other".to_owned(), ..row("a-4") },
        ApprovalRow { binding: "c".repeat(64), ..row("a-5") },
    ];
    assert!(add(&fresh.store, others).await.iter().all(Option::is_none));
    // A no stands until it is over.
    assert!(decide(&fresh.store, "a-1", false, "m-1").await);
    let rejected = add(&fresh.store, vec![row("a-6")]).await.remove(0).unwrap();
    assert_eq!((rejected.id.as_str(), rejected.rejected_at), ("a-1", Some(start())));
    clock.advance(60);
    assert!(add(&fresh.store, vec![ApprovalRow { expires_at: at(120), ..row("a-6") }]).await[0].is_none());
    assert!(found(&fresh.store, "a-1").await.is_some(), "what is over can still be asked for");
    // What is spent answers for nothing.
    assert!(decide(&fresh.store, "a-6", true, "m-6").await);
    assert!(consume(&fresh.store, "a-6", &row("a-6").binding).await);
    assert!(add(&fresh.store, vec![ApprovalRow { expires_at: at(120), ..row("a-7") }]).await[0].is_none());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let live = approvals::find_live(&mut read, &row("a-7").principal_id, None, &row("a-7").binding).await.unwrap();
    assert_eq!(live.unwrap().id, id!("a-7"));
    // What is spent or over does not count.
    for (at_most, expected) in [(10, 1), (1, 1), (0, 0)] {
        assert_eq!(approvals::count_live(&mut read, &row("a-7").principal_id, at_most).await.unwrap(), expected);
    }
    assert_eq!(approvals::count_live(&mut read, "nobody", 10).await.unwrap(), 0);
}

pub async fn a_hold_is_decided_and_spent_under_its_conditions_only(make: Make) {
    let (fresh, clock) = with_clock(make).await;
    let row = |name: &str, fill: char| ApprovalRow {
        id: id!(name),
        binding: fill.to_string().repeat(64),
        ..samples::approval(name, false)
    };
    let [one, two, three] = [row("a-1", '1'), row("a-2", '2'), row("a-3", '3')];
    add(&fresh.store, vec![one.clone(), two.clone(), three.clone()]).await;
    assert!(!consume(&fresh.store, "a-1", &one.binding).await, "nobody has approved it");
    assert!(decide(&fresh.store, "a-1", true, "m-1").await);
    assert!(!decide(&fresh.store, "a-1", false, "m-2").await, "it is decided");
    assert!(!consume(&fresh.store, "a-1", &two.binding).await, "another binding");
    assert!(consume(&fresh.store, "a-1", &one.binding).await);
    assert!(!consume(&fresh.store, "a-1", &one.binding).await, "it is spent");
    assert!(decide(&fresh.store, "a-2", false, "m-3").await);
    assert!(!consume(&fresh.store, "a-2", &two.binding).await, "it was rejected");
    assert!(decide(&fresh.store, "a-3", true, "m-4").await);
    assert!(!decide(&fresh.store, "a-9", true, "m-5").await, "there is none");
    clock.advance(60);
    assert!(!consume(&fresh.store, "a-3", &three.binding).await, "it is over");
    add(&fresh.store, vec![ApprovalRow { expires_at: at(0), ..row("a-4", '4') }]).await;
    assert!(!decide(&fresh.store, "a-4", true, "m-6").await, "it was over before anybody decided");
}

pub async fn of_those_who_race_for_a_hold_one_wins(make: Make) {
    const RACERS: usize = 8;
    let fresh = fresh(make).await;
    let mut raised = Vec::new();
    for number in 0..RACERS {
        let (store, name) = (fresh.store.clone(), format!("a-{number}"));
        raised.push(tokio::spawn(async move {
            add(&store, vec![ApprovalRow { id: id!(&name), ..samples::approval("a", false) }]).await.remove(0)
        }));
    }
    let mut answers = Vec::new();
    for raised in raised {
        answers.push(raised.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "one is new");
    let known: std::collections::BTreeSet<String> = answers.iter().flatten().map(|row| row.id.to_string()).collect();
    assert_eq!(known.len(), 1, "and the others were told of it");
    let winner = known.into_iter().next().unwrap();

    let deciders = (0..RACERS).map(|number| {
        let (store, winner) = (fresh.store.clone(), winner.clone());
        tokio::spawn(async move { decide(&store, &winner, true, &format!("m-{number}")).await })
    });
    assert_eq!(winners(deciders.collect()).await, 1);
    let spenders = (0..RACERS).map(|_| {
        let (store, winner) = (fresh.store.clone(), winner.clone());
        tokio::spawn(async move { consume(&store, &winner, &samples::approval("a", false).binding).await })
    });
    assert_eq!(winners(spenders.collect()).await, 1);
}

async fn winners(racers: Vec<tokio::task::JoinHandle<bool>>) -> usize {
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.unwrap());
    }
    winners
}

pub async fn a_change_that_fails_leaves_a_hold_unspent_and_undecided(make: Make) {
    let fresh = fresh(make).await;
    let row = samples::approval("a-1", false);
    add(&fresh.store, vec![row.clone()]).await;
    let binding = Binding::parse(&row.binding).unwrap();
    let failed = change!(fresh.store, verdict(true, "m-1"), |tx, verdict| {
        assert!(approvals::decide(tx, &id!("a-1"), verdict).await?);
        Err::<(), _>(StoreError::Statement { reason: "on purpose".to_owned() })
    });
    assert!(failed.is_err());
    same(&found(&fresh.store, "a-1").await.unwrap(), &row);
    assert!(decide(&fresh.store, "a-1", true, "m-1").await, "the message was not sent either");
    let failed = change!(fresh.store, binding, |tx, binding| {
        assert!(approvals::consume(tx, &id!("a-1"), binding, None).await?);
        Err::<(), _>(StoreError::Statement { reason: "on purpose".to_owned() })
    });
    assert!(failed.is_err());
    assert!(consume(&fresh.store, "a-1", &row.binding).await);
}

pub async fn holds_are_listed_and_counted_by_the_state_they_are_in_now(make: Make) {
    let (fresh, clock) = with_clock(make).await;
    let mut rows = Vec::new();
    for (name, fill) in [("a-1", '1'), ("a-2", '2'), ("a-3", '3'), ("a-4", '4'), ("a-5", '5')] {
        rows.push(ApprovalRow {
            binding: fill.to_string().repeat(64),
            tier: format!("tier-{fill}"),
            principal_id: format!("principal-{fill}"),
            created_at: at(fill.to_digit(10).unwrap().into()),
            expires_at: if name == "a-4" { at(0) } else { at(600) },
            ..samples::approval(name, false)
        });
    }
    add(&fresh.store, rows.clone()).await;
    decide(&fresh.store, "a-2", true, "m-2").await;
    decide(&fresh.store, "a-3", false, "m-3").await;
    decide(&fresh.store, "a-5", true, "m-5").await;
    assert!(consume(&fresh.store, "a-5", &rows[4].binding).await);
    clock.advance(10);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    let states = [
        (HoldState::Pending, "a-1"),
        (HoldState::Approved, "a-2"),
        (HoldState::Rejected, "a-3"),
        (HoldState::Expired, "a-4"),
        (HoldState::Consumed, "a-5"),
    ];
    let counts = approvals::count_by_state(read).await.unwrap();
    for (state, name) in states {
        assert!(counts.contains(&(state, 1)), "{state:?}");
        let filter = ApprovalFilter { state: Some(state), ..ApprovalFilter::default() };
        let listed = approvals::list(read, &filter, &Page::first(10)).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [name]);
        let now = read.now();
        assert_eq!(listed[0].facts().unwrap().state(now), state, "statement and code agree");
    }
    for (filter, expected) in [
        (ApprovalFilter::default(), vec!["a-5", "a-4", "a-3", "a-2", "a-1"]),
        (ApprovalFilter { tier: Some("tier-2".to_owned()), ..ApprovalFilter::default() }, vec!["a-2"]),
        (ApprovalFilter { principal: Some("principal-3".to_owned()), ..ApprovalFilter::default() }, vec!["a-3"]),
        (ApprovalFilter { since: Some(at(2)), until: Some(at(3)), ..ApprovalFilter::default() }, vec!["a-3", "a-2"]),
    ] {
        let listed = approvals::list(read, &filter, &Page::first(10)).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let like = |row: &ApprovalRow| ApprovalRow { binding: row.binding.clone(), ..rows[0].clone() };
    let asked = [like(&rows[1]), like(&rows[2]), rows[0].clone()];
    assert_eq!(approvals::count_prior(read, &asked).await.unwrap(), [(1, 0), (0, 1), (0, 0)]);
    let stored = approvals::list(read, &ApprovalFilter::default(), &Page::first(10)).await.unwrap();
    assert_eq!(approvals::count_prior(read, &stored).await.unwrap(), [(0, 0); 5], "none counts itself");
    assert!(approvals::count_prior(read, &[]).await.unwrap().is_empty());
}

pub async fn holds_are_forgotten_a_while_after_everything_is_over(make: Make) {
    let (fresh, clock) = with_clock(make).await;
    let mut rows = Vec::new();
    for (name, fill, end) in [("a-1", '1', 10), ("a-2", '2', 10), ("a-3", '3', 5_000)] {
        rows.push(ApprovalRow {
            binding: fill.to_string().repeat(64),
            expires_at: at(end),
            ..samples::approval(name, false)
        });
    }
    add(&fresh.store, rows.clone()).await;
    decide(&fresh.store, "a-2", true, "m-2").await;
    assert!(consume(&fresh.store, "a-2", &rows[1].binding).await);
    clock.advance(100);
    for (before, expected) in [(at(9), 0), (at(50), 1), (at(50), 1), (at(50), 0)] {
        let removed: Result<usize, StoreError> = fresh
            .store
            .commit_upkeep(before, |tx, before| {
                Box::pin(async move { approvals::purge_terminal(tx, *before, 1).await })
            })
            .await;
        assert_eq!(removed.unwrap(), expected, "{before}");
    }
    assert!(found(&fresh.store, "a-1").await.is_none() && found(&fresh.store, "a-2").await.is_none());
    assert!(found(&fresh.store, "a-3").await.is_some());
}

pub async fn marks_that_cannot_be_are_corruption(_make: Make) {
    let row = || samples::approval("a-1", true);
    let odd: [fn(&mut ApprovalRow); 7] = [
        |row| (row.approved_at, row.rejected_at) = (Some(at(1)), Some(at(1))),
        |row| row.consumed_at = Some(at(1)),
        |row| (row.approved_at, row.consumed_record_id) = (Some(at(1)), Some(id!("rec-1"))),
        |row| row.approver_class = "anybody".to_owned(),
        |row| row.privacy_mode = String::new(),
        |row| row.binding = "AB".repeat(32),
        |row| row.binding.clear(),
    ];
    for change in odd {
        let mut row = row();
        change(&mut row);
        assert!(matches!(row.facts(), Err(StoreError::Corrupt { .. })), "{row:?}");
    }
    let mut unlabelled = row();
    unlabelled.metadata = json!({"agent_labels": "reader"}).as_object().cloned().unwrap();
    assert!(unlabelled.facts().unwrap().labels.is_empty());
}
