//! What agents bring about.

use std::sync::Arc;

use caracal_authority::session::SessionStatus;

use super::management::change;
use crate::clock::ManualClock;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::counts::{self, Count};
use crate::error::StoreError;
use crate::receipts::{KeyRefused, KeyScope, Keyed};
use crate::revocations::{Anchor, AnchorKind};
use crate::sessions::Among;
use crate::tx::ZoneRead;
use crate::{delegations, receipts, records, revocations, sessions, used_mandates};

pub async fn sessions_come_back_as_stored(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    let rows = [samples::session("s-1", true), samples::session("s-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            sessions::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&sessions::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
        row.facts().unwrap();
    }
    for (among, at_most, count) in [
        (Among::Zone, 10, 2),
        (Among::Zone, 1, 1),
        (Among::Application(&id!("app-1")), 10, 2),
        (Among::Application(&id!("app-2")), 10, 0),
        (Among::ChildrenOf(&id!("parent")), 10, 1),
    ] {
        assert_eq!(sessions::count_holding_capacity(&mut read, among, at_most).await.unwrap(), count, "{among:?}");
    }
    reached(&mut read, [2, 2, 1]).await;
    assert!(sessions::is_anchor(&mut read, &id!("rec-1")).await.unwrap());
    assert!(!sessions::is_anchor(&mut read, &id!("rec-2")).await.unwrap());
    let children = sessions::list_running_children(&mut read, &id!("parent")).await.unwrap();
    same(&children, &vec![rows[0].clone()]);
    assert!(sessions::list_lapsed_tasks(&mut read, 10).await.unwrap().is_empty());
    drop(snapshot);

    clock.advance(1_000);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    assert_eq!(sessions::count_holding_capacity(&mut read, Among::Zone, 10).await.unwrap(), 0, "both have lapsed");
    reached(&mut read, [0, 0, 0]).await;
    same(&sessions::list_lapsed_tasks(&mut read, 10).await.unwrap(), &vec![rows[1].clone()]);
    drop(snapshot);
    for ended in [true, false] {
        let done = change!(fresh.store, (), |tx, _unused| {
            sessions::end(tx, &id!("s-1"), SessionStatus::Terminated, "reason").await
        });
        assert_eq!(done.unwrap(), ended);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let now = read.now();
    let ended = sessions::SessionRow {
        status: "terminated".to_owned(),
        terminated_at: Some(now),
        termination_reason: Some("reason".to_owned()),
        updated_at: now,
        ..rows[0].clone()
    };
    same(&sessions::lookup(&mut read, &id!("s-1")).await.unwrap().unwrap(), &ended);
    assert!(sessions::list_running_children(&mut read, &id!("parent")).await.unwrap().is_empty());
    drop(snapshot);

    // What has ended makes room at once; what was rolled back never took any.
    clock.advance(-1_000);
    let rolled_back = change!(fresh.store, samples::session("s-3", false), |tx, row| {
        sessions::add(tx, row).await?;
        reached(tx, [2, 2, 0]).await;
        Err::<(), _>(StoreError::Statement { reason: "on purpose".to_owned() })
    });
    assert!(matches!(rolled_back, Err(StoreError::Statement { reason }) if reason == "on purpose"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    reached(&mut snapshot.zone(&zone("z-1")), [1, 1, 0]).await;
}

/// Whether limits count as reached exactly when this many sessions hold a slot in the zone, of `app-1`, under `parent`.
async fn reached(read: &mut ZoneRead<'_>, [in_zone, of_application, under_parent]: [i64; 3]) {
    let (application, parent) = (id!("app-1"), id!("parent"));
    for limit in 0..4 {
        for (among, count) in [
            (Among::Zone, in_zone),
            (Among::Application(&application), of_application),
            (Among::ChildrenOf(&parent), under_parent),
        ] {
            let reached = sessions::holding_reaches(read, among, limit).await.unwrap();
            assert_eq!(reached, count >= limit, "{count} of {limit} in {among:?}");
        }
    }
}

pub async fn edges_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let root = samples::edge("e-1", false);
    let middle = delegations::EdgeRow { parent_edge_id: Some(id!("e-1")), ..samples::edge("e-2", true) };
    let leaf = delegations::EdgeRow { parent_edge_id: Some(id!("e-2")), ..samples::edge("e-3", true) };
    let orphan = samples::edge("e-4", true);
    let rows = [root, middle, leaf, orphan];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            delegations::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&delegations::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    for (edge, limit, ids) in [
        ("e-3", 10, vec!["e-1", "e-2", "e-3"]),
        ("e-3", 2, vec!["e-2", "e-3"]),
        ("e-4", 10, vec!["e-4"]),
        ("e-5", 10, vec![]),
    ] {
        let lineage = delegations::lineage(&mut read, &id!(edge), limit).await.unwrap();
        assert_eq!(lineage.iter().map(|edge| edge.id.as_str()).collect::<Vec<_>>(), ids, "{edge}");
    }
    same(&delegations::list_active_from(&mut read, &id!("s-1")).await.unwrap(), &rows.to_vec());
    same(&delegations::list_active_to(&mut read, &id!("s-2")).await.unwrap(), &rows.to_vec());
    assert!(delegations::list_active_to(&mut read, &id!("s-1")).await.unwrap().is_empty());
    same(&delegations::list_active_derived(&mut read, &id!("e-2")).await.unwrap(), &vec![rows[2].clone()]);
    let page = delegations::list_to(&mut read, &id!("s-2"), Some(&id!("e-4")), 2).await.unwrap();
    same(&page, &vec![rows[2].clone(), rows[1].clone()]);
    assert_eq!(delegations::epoch(&mut read).await.unwrap(), 0);
    drop(snapshot);

    for revoked in [true, false] {
        let done = change!(fresh.store, (), |tx, _unused| delegations::revoke(tx, &id!("e-2")).await);
        assert_eq!(done.unwrap(), revoked);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let revoked = delegations::EdgeRow {
        status: "revoked".to_owned(),
        revoked_at: Some(start()),
        edge_version: rows[1].edge_version + 1,
        ..rows[1].clone()
    };
    same(&delegations::lookup(&mut read, &id!("e-2")).await.unwrap().unwrap(), &revoked);
    assert_eq!(delegations::list_active_from(&mut read, &id!("s-1")).await.unwrap().len(), 3);
    assert_eq!(delegations::list_to(&mut read, &id!("s-2"), None, 10).await.unwrap().len(), 4);
}

pub async fn records_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let root = samples::record("rec-1", false);
    let child = records::RecordRow { parent_id: Some(id!("rec-1")), ..samples::record("rec-2", true) };
    let grandchild = records::RecordRow { parent_id: Some(id!("rec-2")), ..samples::record("rec-3", true) };
    let rows = [root, child, grandchild, samples::record("rec-4", true)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            records::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = records::RecordRow { id: id!("rec-5"), ..rows[0].clone() };
    let refused = change!(fresh.store, twice, |tx, row| records::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("authority_records.jti"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for row in &rows {
        same(&records::lookup(&mut snapshot.zone(&zone("z-1")), &row.id).await.unwrap().unwrap(), row);
    }
    drop(snapshot);
    for (record, reason, fallen) in
        [("rec-2", "first", vec!["rec-2", "rec-3"]), ("rec-1", "second", vec!["rec-1"]), ("rec-9", "none", vec![])]
    {
        let revoked = change!(fresh.store, (record, reason), |tx, input| {
            records::revoke_with_descendants(tx, &id!(input.0), input.1).await
        });
        let revoked = revoked.unwrap();
        assert_eq!(revoked.iter().map(|id| id.as_str()).collect::<Vec<_>>(), fallen, "{record}");
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for (record, reason) in
        [("rec-1", Some("second")), ("rec-2", Some("first")), ("rec-3", Some("first")), ("rec-4", None)]
    {
        let row = records::lookup(&mut snapshot.zone(&zone("z-1")), &id!(record)).await.unwrap().unwrap();
        assert_eq!(row.status, if reason.is_some() { "revoked" } else { "active" }, "{record}");
        assert_eq!((row.revoked_reason.as_deref(), row.revoked_at), (reason, reason.map(|_| start())), "{record}");
    }
    let mut anchors = revocations::list(&mut snapshot.deployment(), start()).await.unwrap();
    anchors.sort_by(|left, right| left.id.cmp(&right.id));
    let expected =
        ["rec-1", "rec-2", "rec-3"].map(|id| Anchor { zone: zone("z-1"), kind: AnchorKind::Record, id: id.to_owned() });
    assert_eq!(anchors, expected);
    assert!(revocations::list(&mut snapshot.deployment(), at(1)).await.unwrap().is_empty());
    let mut tx = snapshot.zone(&zone("z-1"));
    assert_eq!(revocations::list_of_zone(&mut tx, start(), 10).await.unwrap(), expected);
    assert_eq!(revocations::list_of_zone(&mut tx, start(), 2).await.unwrap(), expected[..2]);
    assert!(revocations::list_of_zone(&mut tx, at(1), 10).await.unwrap().is_empty());
    assert!(revocations::list_of_zone(&mut snapshot.zone(&zone("z-2")), start(), 10).await.unwrap().is_empty());
}

/// A cascade that stops at some depth leaves authority alive that nobody sees.
pub async fn all_that_descends_from_a_record_falls_however_deep(make: Make) {
    let fresh = fresh(make).await;
    let rows: Vec<_> = (1..=70)
        .map(|depth| records::RecordRow {
            parent_id: (depth > 1).then(|| id!(format!("rec-{}", depth - 1).as_str())),
            ..samples::record(&format!("rec-{depth}"), depth > 1)
        })
        .collect();
    change!(fresh.store, rows, |tx, rows| {
        for row in rows {
            records::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let revoked =
        change!(fresh.store, (), |tx, _none| records::revoke_with_descendants(tx, &id!("rec-1"), "all").await).unwrap();
    assert_eq!((revoked.len(), revoked[0].as_str()), (70, "rec-1"));
}

pub async fn a_key_is_remembered_with_its_request_in_its_scope(make: Make) {
    let fresh = make(Arc::new(ManualClock::at(start()))).await;
    let key = Keyed {
        operation: "admin.create".to_owned(),
        scope: KeyScope::AdminToken(id!("token-1")),
        key_digests: vec!["digest".to_owned()],
        request_digest: "request".to_owned(),
        generated: false,
        retention: std::time::Duration::from_secs(60),
        most_explicit: 1,
    };
    let answer = serde_json::json!({"id": "thing-1"});
    let other_request = Keyed { request_digest: "another".to_owned(), ..key.clone() };
    let one_too_many = Keyed { key_digests: vec!["digest-2".to_owned()], ..key.clone() };
    let of_another = Keyed { scope: KeyScope::AdminToken(id!("token-2")), ..key.clone() };
    let added: Result<(), KeyRefused> = fresh
        .store
        .commit(&zone("z-1"), (key.clone(), answer.clone()), |tx, (key, answer)| {
            Box::pin(async move {
                assert!(key.find_receipt(tx).await?.is_none());
                key.add_receipt(tx, "thing-1", 201, answer).await
            })
        })
        .await;
    added.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let receipt = key.find_receipt(&mut read).await.unwrap().unwrap();
    assert_eq!((receipt.answer().unwrap(), receipt.status, receipt.entity_id.as_str()), (answer, 201, "thing-1"));
    assert!(matches!(other_request.find_receipt(&mut read).await, Err(KeyRefused::Conflict)));
    assert!(matches!(one_too_many.find_receipt(&mut read).await, Err(KeyRefused::TooMany)));
    assert!(of_another.find_receipt(&mut read).await.unwrap().is_none());
    assert!(key.find_receipt(&mut snapshot.zone(&zone("z-2"))).await.unwrap().is_none());
    drop(snapshot);
    let large = serde_json::json!("x".repeat(64 * 1024));
    let refused: Result<(), KeyRefused> = fresh
        .store
        .commit(&zone("z-1"), (of_another, large), |tx, (key, answer)| {
            Box::pin(async move { key.add_receipt(tx, "thing-2", 201, answer).await })
        })
        .await;
    assert!(matches!(refused, Err(KeyRefused::AnswerTooLarge)));
}

pub async fn receipts_come_back_as_stored(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    let rows = [samples::receipt("k-1", true), samples::receipt("k-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            receipts::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let refused = change!(fresh.store, samples::receipt("k-1", false), |tx, row| receipts::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict());
    let (operation, scope) = ("session.start.v2", KeyScope::Application(id!("app-1")));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        let digests = ["absent".to_owned(), row.key_digest.clone()];
        let found = receipts::find_live(&mut read, operation, &scope, &digests).await.unwrap();
        same(&found.unwrap(), row);
    }
    for (operation, scope) in [("session.end", scope.clone()), (operation, KeyScope::Application(id!("app-2")))] {
        let found = receipts::find_live(&mut read, operation, &scope, &["k-1".to_owned()]).await.unwrap();
        assert!(found.is_none(), "{operation} {scope:?}");
    }
    assert_eq!(receipts::count_live_explicit(&mut read, operation, &scope, 10).await.unwrap(), 1);
    let oldest = rows.iter().map(|row| row.created_at).min();
    assert_eq!(receipts::count_all(&mut snapshot.deployment()).await.unwrap(), (2, oldest));
    drop(snapshot);

    clock.advance(3_600);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    assert!(receipts::find_live(&mut read, operation, &scope, &["k-1".to_owned()]).await.unwrap().is_none());
    assert_eq!(receipts::count_live_explicit(&mut read, operation, &scope, 10).await.unwrap(), 0);
    drop(snapshot);
    let renewed = receipts::Receipt { entity_id: "s-2".to_owned(), expires_at: at(9_000), ..rows[0].clone() };
    change!(fresh.store, renewed, |tx, row| receipts::add(tx, row).await).unwrap();
    let purged: Result<[usize; 2], StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                let now = tx.now();
                Ok([receipts::purge_expired(tx, now, 10).await?, receipts::purge_expired(tx, now, 10).await?])
            })
        })
        .await;
    assert_eq!(purged.unwrap(), [1, 0]);
}

pub async fn used_mandates_are_forgotten_once_expired(make: Make) {
    let fresh = fresh(make).await;
    let purged: Result<[usize; 4], StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                for (jti, end) in [("a", 10), ("b", 20), ("c", 30)] {
                    assert!(used_mandates::consume(&mut tx.zone_write(&zone("z-1")), jti, "r-1", at(end)).await?);
                    assert!(used_mandates::consume_nonce(tx, jti, at(end)).await?);
                }
                Ok([
                    used_mandates::purge_expired(tx, at(10), 10).await?,
                    used_mandates::purge_expired(tx, at(30), 1).await?,
                    used_mandates::purge_expired(tx, at(30), 10).await?,
                    used_mandates::purge_expired(tx, at(30), 10).await?,
                ])
            })
        })
        .await;
    assert_eq!(purged.unwrap(), [0, 2, 2, 0]);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for (jti, used) in [("a", false), ("b", false), ("c", true)] {
        let is_used = used_mandates::is_used(&mut snapshot.zone(&zone("z-1")), jti).await.unwrap();
        assert_eq!(is_used, used, "{jti}");
    }
}

pub async fn the_line_of_a_record_is_itself_and_its_ancestors(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, (), |tx, _unused| {
        for (name, parent) in [("r-1", None), ("r-2", Some("r-1")), ("r-3", Some("r-2")), ("r-9", Some("r-9"))] {
            let parent_id = parent.map(|parent| id!(parent));
            records::add(tx, &records::RecordRow { parent_id, ..samples::record(name, false) }).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    for (name, expected) in
        [("r-3", vec!["r-1", "r-2", "r-3"]), ("r-1", vec!["r-1"]), ("r-9", vec!["r-9"]), ("gone", vec!["gone"])]
    {
        let line = records::line(read, &id!(name)).await.unwrap();
        assert_eq!(line[0].as_str(), name);
        let mut line: Vec<&str> = line.iter().map(AsRef::as_ref).collect();
        line.sort_unstable();
        assert_eq!(line, expected);
    }
}

/// The next process takes up what this one counted, the newest if there is too much of it.
pub async fn counts_come_back_as_last_kept_and_the_newest_first_choice(make: Make) {
    let fresh = fresh(make).await;
    let count =
        |name: &str, count, began, blocked| Count { name: name.to_owned(), count, began_at: at(began), blocked };
    let rows = [
        count("a:1", 1, 0, false),
        count("a:2", 60, 5, false),
        count("a:3", 7, 10, false),
        count("b:1", 2, 10, false),
        count("a:2", 0, 20, true),
    ];
    let kept = fresh.store.commit_upkeep(rows.clone(), |tx, rows| {
        Box::pin(async move {
            for row in rows {
                counts::put(tx, row).await?;
            }
            Ok::<_, StoreError>(())
        })
    });
    kept.await.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let [first, _, third, other, blocked] = rows;
    let read = &mut snapshot.deployment();
    assert_eq!(counts::list(read, "a:", at(0), 10).await.unwrap(), [first, third.clone(), blocked.clone()]);
    assert_eq!(counts::list(read, "a:", at(1), 1).await.unwrap(), std::slice::from_ref(&blocked));
    assert_eq!(counts::list(read, "a:", at(10), 10).await.unwrap(), [third.clone(), blocked]);
    assert_eq!(counts::list(read, "b:", at(10), 10).await.unwrap(), [other]);
    drop(snapshot);
    let forgotten = fresh.store.commit_upkeep((), |tx, ()| {
        Box::pin(async move {
            let some = counts::purge_older(tx, at(20), 2).await?;
            Ok::<_, StoreError>((some, counts::purge_older(tx, at(20), 10).await?))
        })
    });
    assert_eq!(forgotten.await.unwrap(), (2, 1));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert_eq!(counts::list(&mut snapshot.deployment(), "a:", at(0), 10).await.unwrap().len(), 1);
}
