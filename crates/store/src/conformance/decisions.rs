//! Decisions on snapshots, and the changes that make them wrong (difference D4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use caracal_authority::ZoneId;

use super::Make;
use super::fixtures::{Held, at, crowd, fresh, id, looked_at, zone};
use crate::error::StoreError;
use crate::holdings::{self, Holder};
use crate::store::{Snapshot, Store};
use crate::version::ZoneVersion;
use crate::{Named, delegation_reads, delegations, deployment, records, sealed_secrets, sessions, used_mandates};

/// Commits something under the condition that the decision made at `version` still holds; says whether it did.
async fn mint(store: &Store, zone: &ZoneId, version: ZoneVersion, jti: &str) -> bool {
    let minted: Result<bool, StoreError> = store
        .commit(zone, (version, jti.to_owned()), |tx, (version, jti)| {
            Box::pin(
                async move { Ok(tx.is_at(*version).await? && used_mandates::consume(tx, jti, "r-1", at(60)).await?) },
            )
        })
        .await;
    minted.unwrap()
}

async fn shrink(store: &Store, zone: &ZoneId) {
    let done: Result<i64, StoreError> =
        store.commit(zone, (), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await })).await;
    done.unwrap();
}

/// Those of the same zone and those of all zones, not those of another.
pub async fn what_takes_authority_away_voids_decisions_of_its_zone(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let (z1, z2) = (zone("z-1"), zone("z-2"));
    let (version, _snapshot) = store.decision_snapshot(&z1, &Named::default()).await.unwrap();
    shrink(store, &z2).await;
    assert!(mint(store, &z1, version, "after another zone's").await);
    shrink(store, &z1).await;
    assert!(!mint(store, &z1, version, "after its own").await);
    let (version, _snapshot) = store.decision_snapshot(&z1, &Named::default()).await.unwrap();
    assert!(mint(store, &z1, version, "decided anew").await);
    let done: Result<(), StoreError> =
        store.commit_deployment((), |tx, ()| Box::pin(async move { deployment::put(tx, "name", "value").await })).await;
    done.unwrap();
    assert!(!mint(store, &z1, version, "after everybody's").await);
    // Within one change that spans zones, a zone's part counts for that zone alone.
    let (first, _snapshot) = store.decision_snapshot(&z1, &Named::default()).await.unwrap();
    let (second, _snapshot) = store.decision_snapshot(&z2, &Named::default()).await.unwrap();
    let done: Result<i64, StoreError> = store
        .commit_deployment(z2.clone(), |tx, z2| {
            Box::pin(async move { delegations::raise_epoch(&mut tx.zone_write(z2)).await })
        })
        .await;
    done.unwrap();
    assert!(mint(store, &z1, first, "beside a part").await);
    assert!(!mint(store, &z2, second, "after its part").await);
}

/// Neither additions, nor what changes no row, nor reads.
pub async fn what_only_adds_voids_no_decision(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    let (version, _snapshot) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
    for round in 0..3 {
        assert!(mint(store, &z, version, &format!("jti-{round}")).await);
    }
    let done: Result<bool, StoreError> = store
        .commit(&z, (), |tx, ()| {
            Box::pin(async move {
                sealed_secrets::remove(tx, "absent").await?;
                delegations::revoke(tx, &id!("absent")).await
            })
        })
        .await;
    assert!(!done.unwrap());
    assert!(mint(store, &z, version, "after nothing").await);
}

/// A revocation has run and is not committed yet. Who decides now sees the state before it, but commits after it.
pub async fn a_change_that_ran_counts_before_it_is_committed(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    let (ran, has_run) = tokio::sync::oneshot::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let input = (std::sync::Mutex::new(Some(ran)), std::sync::Mutex::new(gone));
    let revocation = tokio::spawn({
        let (store, z) = (store.clone(), z.clone());
        async move {
            let done: Result<i64, StoreError> = store
                .commit(&z, input, |tx, (ran, gone)| {
                    Box::pin(async move {
                        let epoch = delegations::raise_epoch(tx).await?;
                        ran.lock().unwrap().take().unwrap().send(()).unwrap();
                        let _ = tokio::task::block_in_place(|| gone.lock().unwrap().recv());
                        Ok(epoch)
                    })
                })
                .await;
            done.unwrap()
        }
    });
    has_run.await.unwrap();
    let (version, mut snapshot) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
    assert_eq!(delegations::epoch(&mut snapshot.zone(&z)).await.unwrap(), 0, "it is not committed");
    let minted = tokio::spawn({
        let (store, z) = (store.clone(), z.clone());
        async move { mint(&store, &z, version, "jti-1").await }
    });
    while store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    drop(go);
    assert_eq!(revocation.await.unwrap(), 1);
    assert!(!minted.await.unwrap(), "decided before the revocation, committed after it");
}

/// What a decision is made on in [`no_decision_outlives_a_change_of_its_facts`].
async fn facts(snapshot: &mut Snapshot, zone: &ZoneId) -> (i64, Option<String>) {
    let epoch = delegations::epoch(&mut snapshot.zone(zone)).await.unwrap();
    (epoch, deployment::lookup(&mut snapshot.deployment(), "round").await.unwrap())
}

const ROUNDS: u32 = 150;

/// Minters decide and commit while others revoke, in the zone and in all, some of them in vain. Whenever a commit finds
/// itself at the version of its decision, the facts must be the ones that were decided on.
pub async fn no_decision_outlives_a_change_of_its_facts(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    let over = Arc::new(AtomicBool::new(false));
    let (held, voided) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut minters = Vec::new();
    for _ in 0..4 {
        let (store, z, over) = (store.clone(), z.clone(), over.clone());
        let (held, voided) = (held.clone(), voided.clone());
        minters.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let (version, mut snapshot) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
                let decided_on = facts(&mut snapshot, &z).await;
                drop(snapshot);
                if held.load(Ordering::SeqCst).is_multiple_of(3) {
                    // Sometimes a decision takes longer.
                    tokio::task::yield_now().await;
                }
                let committed: Result<bool, StoreError> = store
                    .commit_deployment((z.clone(), version, decided_on), |tx, (z, version, decided_on)| {
                        Box::pin(async move {
                            let mut zone = tx.zone_write(z);
                            if !zone.is_at(*version).await? {
                                return Ok(false);
                            }
                            let epoch = delegations::epoch(&mut zone).await?;
                            let round = deployment::lookup(tx, "round").await?;
                            assert_eq!((epoch, round), *decided_on, "committed on facts that had changed");
                            Ok(true)
                        })
                    })
                    .await;
                // A failed assertion inside the change is a failed change.
                let counter = if committed.unwrap() { &held } else { &voided };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let mut revokers = Vec::new();
    for part in 0..3 {
        let (store, z, held) = (store.clone(), z.clone(), held.clone());
        revokers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let before = held.load(Ordering::SeqCst);
                let input = (z.clone(), part, round);
                let _: Result<(), StoreError> = store
                    .commit_deployment(input, |tx, (z, part, round)| {
                        Box::pin(async move {
                            match part {
                                0 => delegations::raise_epoch(&mut tx.zone_write(z)).await.map(|_| ()),
                                1 => deployment::put(tx, "round", &round.to_string()).await,
                                _ => {
                                    delegations::raise_epoch(&mut tx.zone_write(z)).await?;
                                    Err(StoreError::Statement { reason: "in vain".to_owned() })
                                }
                            }
                        })
                    })
                    .await;
                if round.is_multiple_of(8) {
                    // Now and then let a decision through, so that both outcomes occur.
                    while held.load(Ordering::SeqCst) == before {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }));
    }
    for revoker in revokers {
        revoker.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for minter in minters {
        minter.await.unwrap();
    }
    let (held, voided) = (held.load(Ordering::SeqCst), voided.load(Ordering::SeqCst));
    assert!(held > 0 && voided > 0, "{held} decisions held, {voided} were void");
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(facts(&mut snapshot, &z).await, (i64::from(ROUNDS), Some((ROUNDS - 1).to_string())));
    // The store held no change back meanwhile.
    Held::hold(store).await.release().await;
}

/// Upkeep runs beside everything else, so it must not be able to make a decision wrong.
pub async fn upkeep_takes_no_authority_away(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    let (version, _) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
    let refused: Result<i64, StoreError> = store
        .commit_upkeep(z.clone(), |tx, z| {
            Box::pin(async move { delegations::raise_epoch(&mut tx.zone_write(z)).await })
        })
        .await;
    assert!(matches!(refused, Err(StoreError::Statement { .. })), "{refused:?}");
    let kept: Result<bool, StoreError> = store
        .commit_upkeep((), |tx, ()| Box::pin(async move { used_mandates::consume_nonce(tx, "n-1", at(60)).await }))
        .await;
    assert!(kept.unwrap());
    assert!(mint(store, &z, version, "jti-1").await);
    assert_eq!(delegations::epoch(&mut store.snapshot().await.unwrap().zone(&z)).await.unwrap(), 0);
    // What comes after it in the same process is no upkeep.
    let raised: Result<i64, StoreError> =
        store.commit(&z, (), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await })).await;
    assert_eq!(raised.unwrap(), 1);
}

/// A zone in which much has been granted decides as fast as a new one.
pub async fn a_decision_looks_at_what_it_names_however_much_else_there_is(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let (z, record, session, edge) = (zone("z-1"), id!("r-3"), id!("s-3"), id!("e-3"));
    let named = Named { record: Some(&record), session: Some(&session), delegation: Some(&edge), ..Named::default() };
    let mut costs = Vec::new();
    for (from, to) in [(0, 9), (10, 3_000)] {
        crowd(store, from, to).await;
        // What it prepares, too, counts once.
        for _ in 0..8 {
            drop(store.decision_snapshot(&z, &named).await.unwrap());
        }
        let before = looked_at(store.snapshot().await.unwrap().deployment().tx()).await;
        let (_, mut snapshot) = store.decision_snapshot(&z, &named).await.unwrap();
        let mut read = snapshot.zone(&z);
        for session in ["s-2", "s-3"] {
            assert!(sessions::lookup(&mut read, &id!(session)).await.unwrap().is_some());
        }
        for edge in ["e-2", "e-3"] {
            assert!(delegations::lookup(&mut read, &id!(edge)).await.unwrap().is_some());
        }
        for record in ["r-2", "r-3"] {
            assert!(records::lookup(&mut read, &id!(record)).await.unwrap().is_some());
        }
        let embedded = snapshot.deployment().tx().is_embedded();
        let looked_at = looked_at(snapshot.deployment().tx()).await;
        costs.push(if embedded { looked_at - before } else { looked_at });
    }
    assert!(costs[0] > 0 && costs[1] <= costs[0] + costs[0] / 4, "{costs:?}");
}

/// What falls with a user, a record or an edge is found by what hangs on it, however much else stands in the zone.
pub async fn taking_back_looks_at_what_falls_however_much_else_there_is(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    let z = zone("z-1");
    let mut costs = Vec::new();
    for (from, to) in [(0, 9), (10, 3_000)] {
        crowd(store, from, to).await;
        let changed: Result<(), StoreError> = store
            .commit(&z, (), |tx, ()| {
                Box::pin(async move {
                    let of_a_user = "UPDATE authority_records SET subject_id = 'user-1', kind = 'user'
                                     WHERE zone_id = 'z-1' AND id = 'r-4'";
                    tx.tx.append(of_a_user, &[]).await?;
                    let below = "UPDATE authority_records SET parent_id = 'r-4' WHERE zone_id = 'z-1' AND id = 'r-5'";
                    tx.tx.append(below, &[]).await?;
                    Ok(())
                })
            })
            .await;
        changed.unwrap();
        // What it prepares counts once.
        for is_counted in [false, true] {
            let mut snapshot = store.snapshot().await.unwrap();
            let before = looked_at(snapshot.deployment().tx()).await;
            let mut read = snapshot.zone(&z);
            let of_user = records::list_active_of_user(&mut read, "user-1", at(0), 10).await.unwrap();
            assert_eq!(of_user, [id!("r-4"), id!("r-5")]);
            let held = Holder::Subject("user-1");
            assert_eq!(holdings::list_active_records(&mut read, held, at(0)).await.unwrap(), of_user);
            let running = holdings::list_running_sessions(&mut read, held).await.unwrap();
            assert_eq!(running.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["s-4", "s-5"]);
            let reached = delegation_reads::list_live_downstream(&mut read, &id!("e-3")).await.unwrap();
            assert_eq!(reached.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["e-3"]);
            let anchors = delegation_reads::list_records_downstream(&mut read, &id!("e-3")).await.unwrap();
            assert_eq!(anchors, [id!("r-3")]);
            let cost = looked_at(snapshot.deployment().tx()).await - before;
            costs.extend(is_counted.then_some(cost));
        }
    }
    assert!(costs[0] > 0 && costs[1] <= costs[0] + costs[0] / 4, "{costs:?}");
}
