//! What operators look at, and what hangs on what they end.

use caracal_authority::record::{RecordStatus, SubjectKind};

use super::change;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::evidence::EvidenceRow;
use crate::holdings::{self, Holder};
use crate::oversight::{self, RecordFilter, SessionFilter};
use crate::page::{Page, Position};
use crate::records::RecordRow;
use crate::sessions::SessionRow;
use crate::store::Store;
use crate::subjects::{self, SubjectFilter};
use crate::{
    admin_evidence, admin_tokens, applications, delegations, evidence, policy_sets, providers, records, resources,
    sessions, zones,
};

async fn add_zone(store: &Store) {
    let added: Result<(), StoreError> = store
        .commit_deployment(samples::a_zone("z-1", true), |tx, row| Box::pin(async move { zones::add(tx, row).await }))
        .await;
    added.unwrap();
}

pub async fn zones_are_changed_and_archived_once(make: Make) {
    let fresh = fresh(make).await;
    add_zone(&fresh.store).await;
    let mut changed = samples::a_zone("z-1", false);
    changed.slug = "other".to_owned();
    changed.attribution.updated_by = Some("somebody".to_owned());
    changed.attribution.updated_via_operator = Some(false);
    changed.attribution.updated_at = Some(at(9));
    changed.attribution.created_by = samples::a_zone("z-1", true).attribution.created_by;
    changed.attribution.created_via_operator = samples::a_zone("z-1", true).attribution.created_via_operator;
    change!(fresh.store, changed.clone(), |tx, row| zones::update(tx, row).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    same(&zones::lookup(&mut snapshot.zone(&zone("z-1"))).await.unwrap().unwrap(), &changed);
    drop(snapshot);
    assert!(change!(fresh.store, (), |tx, _none| zones::archive(tx, "operator").await).unwrap());
    assert!(!change!(fresh.store, (), |tx, _none| zones::archive(tx, "operator").await).unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let row = zones::lookup(&mut snapshot.zone(&zone("z-1"))).await.unwrap().unwrap();
    assert_eq!((row.archived_at.is_some(), row.attribution.updated_by.as_deref()), (true, Some("operator")));
}

pub async fn what_is_archived_is_archived_once(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, (), |tx, _none| {
        applications::add(tx, &samples::application("app-1", true)).await?;
        providers::add(tx, &samples::provider("p-1", true)).await?;
        resources::add(tx, &samples::resource("r-1", true)).await
    })
    .unwrap();
    for expected in [true, false] {
        let archived = change!(fresh.store, (), |tx, _none| Ok([
            applications::archive(tx, &id!("app-1"), "operator").await?,
            providers::archive(tx, &id!("p-1"), "operator").await?,
            resources::archive(tx, &id!("r-1"), "operator").await?,
        ]));
        assert_eq!(archived.unwrap(), [expected; 3]);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let row = applications::lookup(&mut read, &id!("app-1")).await.unwrap().unwrap();
    assert_eq!((row.archived_at.is_some(), row.attribution.updated_by.as_deref()), (true, Some("operator")));
    assert!(providers::lookup(&mut read, &id!("p-1")).await.unwrap().unwrap().archived_at.is_some());
    assert!(resources::lookup(&mut read, &id!("r-1")).await.unwrap().unwrap().archived_at.is_some());
}

pub async fn admin_tokens_are_listed_used_and_revoked_once(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::admin_token("t-1", true), samples::admin_token("t-2", false)];
    let changed: Result<(), StoreError> = fresh
        .store
        .commit_deployment(rows.clone(), |tx, rows| {
            Box::pin(async move {
                admin_tokens::add(tx, &rows[0], "digest-1").await?;
                admin_tokens::add(tx, &rows[1], "digest-2").await?;
                admin_tokens::note_use(tx, &rows[1].id, at(20)).await?;
                admin_tokens::note_use(tx, &rows[1].id, at(10)).await
            })
        })
        .await;
    changed.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let listed = admin_tokens::list(&mut snapshot.deployment(), &Page::first(10)).await.unwrap();
    let used = admin_tokens::AdminToken { last_used_at: Some(at(20)), ..rows[1].clone() };
    same(&listed, &vec![used, rows[0].clone()]);
    let after = Page { limit: 10, after: Some(Position { at: rows[1].created_at, id: "t-2".to_owned() }) };
    same(&admin_tokens::list(&mut snapshot.deployment(), &after).await.unwrap(), &vec![rows[0].clone()]);
    same(&admin_tokens::lookup(&mut snapshot.deployment(), &rows[0].id).await.unwrap().unwrap(), &rows[0]);
    drop(snapshot);
    let revoked: Result<_, StoreError> = fresh
        .store
        .commit_deployment(rows, |tx, rows| {
            Box::pin(async move {
                let first = admin_tokens::revoke(tx, &rows[1].id).await?;
                let again = admin_tokens::revoke(tx, &rows[1].id).await?;
                let of_zone = admin_tokens::revoke_of_zone(tx, &zone("z-1")).await?;
                Ok((first, again, of_zone, admin_tokens::revoke_of_zone(tx, &zone("z-1")).await?))
            })
        })
        .await;
    assert_eq!(revoked.unwrap(), (true, false, 1, 0));
}

pub async fn applications_that_ended_by_themselves_are_archived_in_small_numbers(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, (), |tx, _none| {
        for (name, full) in [("app-1", true), ("app-2", true), ("app-3", false)] {
            applications::add(tx, &samples::application(name, full)).await?;
        }
        Ok(())
    })
    .unwrap();
    for (before, expected) in [(at(99), 0), (at(100), 1), (at(100), 1), (at(100), 0)] {
        let archived: Result<usize, StoreError> = fresh
            .store
            .commit_upkeep(before, |tx, before| {
                Box::pin(async move { applications::archive_ended(tx, *before, 1).await })
            })
            .await;
        assert_eq!(archived.unwrap(), expected);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let listed = applications::list(&mut snapshot.zone(&zone("z-1")), true, &Page::first(10)).await.unwrap();
    assert_eq!(listed.len(), 2);
}

fn record(name: &str, change: impl FnOnce(&mut RecordRow)) -> RecordRow {
    let mut row = RecordRow { parent_id: None, ..samples::record(name, false) };
    row.jti = format!("jti of {name}");
    change(&mut row);
    row
}

fn session(name: &str, record: &str, change: impl FnOnce(&mut SessionRow)) -> SessionRow {
    let mut row = SessionRow { subject_record_id: id!(record), ..samples::session(name, false) };
    change(&mut row);
    row
}

/// Adds records and sessions in the order given.
async fn stand(store: &Store, records: Vec<RecordRow>, sessions: Vec<SessionRow>) {
    let added: Result<(), StoreError> = store
        .commit(&zone("z-1"), (records, sessions), |tx, (records, sessions)| {
            Box::pin(async move {
                for row in records {
                    records::add(tx, row).await?;
                }
                for row in sessions {
                    sessions::add(tx, row).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}

pub async fn records_are_listed_by_what_they_are_now(make: Make) {
    let fresh = fresh(make).await;
    let rows = vec![
        record("r-1", |row| row.expires_at = start()),
        record("r-2", |row| row.subject_id = "some\\one's".to_owned()),
        record("r-3", |row| row.kind = "user".to_owned()),
    ];
    stand(&fresh.store, rows, Vec::new()).await;
    change!(fresh.store, (), |tx, _none| records::revoke_each(tx, &[id!("r-3")], "test").await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let none = RecordFilter::default;
    for (filter, expected) in [
        (none(), vec!["r-3", "r-2", "r-1"]),
        (RecordFilter { status: Some(RecordStatus::Expired), ..none() }, vec!["r-1"]),
        (RecordFilter { status: Some(RecordStatus::Active), ..none() }, vec!["r-2"]),
        (RecordFilter { status: Some(RecordStatus::Revoked), ..none() }, vec!["r-3"]),
        (RecordFilter { kind: Some(SubjectKind::User), ..none() }, vec!["r-3"]),
        (RecordFilter { subject_id: Some("some\\one's".to_owned()), ..none() }, vec!["r-2"]),
        (RecordFilter { id: Some("r-2".to_owned()), ..none() }, vec!["r-2"]),
    ] {
        let listed = oversight::list_records(&mut read, &filter, &Page::first(10)).await.unwrap();
        let ids: Vec<&str> = listed.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, expected, "{filter:?}");
        for row in &listed {
            let state = RecordFilter { status: Some(oversight::record_status(row, read.now())), ..none() };
            let same_state = oversight::list_records(&mut read, &state, &Page::first(10)).await.unwrap();
            assert!(same_state.iter().any(|found| found.id == row.id), "the list and the row agree");
        }
    }
}

pub async fn sessions_are_listed_with_whose_authority_they_ride(make: Make) {
    let fresh = fresh(make).await;
    let user = record("rec-u", |row| {
        row.kind = "user".to_owned();
        row.provenance = Some(records::Provenance { iss: samples::ODD.to_owned() });
    });
    let sessions = vec![
        session("s-1", "rec-u", |row| row.labels = vec![samples::ODD.to_owned()]),
        session("s-2", "rec-u", |row| row.parent_id = Some(id!("s-1"))),
        session("s-3", "gone", |row| row.application_id = id!("app-9")),
    ];
    stand(&fresh.store, vec![user.clone()], sessions).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let none = SessionFilter::default;
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (none(), vec!["s-3", "s-2", "s-1"]),
        (SessionFilter { label: text(samples::ODD), ..none() }, vec!["s-1"]),
        (SessionFilter { label: text("%"), ..none() }, vec![]),
        (SessionFilter { parent_id: text("s-1"), ..none() }, vec!["s-2"]),
        (SessionFilter { application_id: text("app-9"), status: text("active"), ..none() }, vec!["s-3"]),
        (
            SessionFilter { subject_id: Some(user.subject_id.clone()), lifecycle: text("task"), ..none() },
            vec!["s-2", "s-1"],
        ),
        (SessionFilter { lifecycle: text("service"), ..none() }, vec![]),
    ] {
        let listed = oversight::list_sessions(&mut read, &filter, &Page::first(10)).await.unwrap();
        let ids: Vec<&str> = listed.iter().map(|row| row.session.id.as_str()).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
    let all = oversight::list_sessions(&mut read, &none(), &Page::first(10)).await.unwrap();
    assert_eq!(
        (all[2].child_count, all[2].subject_id.as_ref(), all[2].subject_kind.as_deref()),
        (1, Some(&user.subject_id), Some("user"))
    );
    assert_eq!(all[2].provenance, user.provenance);
    assert_eq!((all[0].child_count, &all[0].subject_id, &all[0].provenance), (0, &None, &None));
}

pub async fn subjects_are_what_their_records_tell(make: Make) {
    let fresh = fresh(make).await;
    let rows = vec![
        record("r-1", |row| {
            row.subject_id = "auth0|a\\B%".to_owned();
            row.kind = "user".to_owned();
            row.provenance = Some(records::Provenance { iss: "https://i.example".to_owned() });
        }),
        record("r-2", |row| row.subject_id = "app-1".to_owned()),
        record("r-3", |row| {
            row.subject_id = "app-1".to_owned();
            row.expires_at = start();
        }),
    ];
    stand(&fresh.store, rows, vec![session("s-1", "r-1", |_| ())]).await;
    change!(fresh.store, (), |tx, _none| {
        applications::add(tx, &samples::application("app-1", false)).await?;
        records::revoke_each(tx, &[id!("r-1")], "test").await
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let searched = |text: &str| SubjectFilter { search: Some(text.to_owned()), ..SubjectFilter::default() };
    for (filter, expected) in [
        (searched("A\\b"), vec!["auth0|a\\B%"]),
        (searched("_uth0"), vec!["auth0|a\\B%"]),
        // By the application's name.
        (searched("O'NEIL"), vec!["app-1"]),
        (searched("nobody"), vec![]),
        (SubjectFilter { kind: Some(SubjectKind::User), ..SubjectFilter::default() }, vec!["auth0|a\\B%"]),
        (SubjectFilter { id: Some("app-1".to_owned()), ..SubjectFilter::default() }, vec!["app-1"]),
    ] {
        let listed = subjects::list(&mut read, &filter, &Page::first(10)).await.unwrap();
        let ids: Vec<&str> = listed.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
    let all = subjects::list(&mut read, &SubjectFilter::default(), &Page::first(10)).await.unwrap();
    let [user, app] = &all[..] else { panic!("{all:?}") };
    assert_eq!((user.is_user, user.total, user.active, user.revoked), (true, 1, 0, 1));
    assert_eq!(user.provenance.as_ref().map(|from| from.iss.as_str()), Some("https://i.example"));
    assert!(user.last_revoked.is_some());
    assert_eq!((app.is_user, app.total, app.active, app.revoked, app.last_revoked), (false, 2, 1, 0, None));
    assert_eq!(app.application_name.as_deref(), Some(samples::application("app-1", false).name.as_str()));
    let around = subjects::surroundings(&mut read, &user.id).await.unwrap();
    assert_eq!((around.sessions, around.running_sessions, around.recent.len(), around.approvals), (1, 1, 1, 0));
    assert!(subjects::is_known(&mut read, "app-1").await.unwrap());
    assert!(!subjects::is_known(&mut read, "app").await.unwrap());
}

pub async fn what_hangs_on_a_holder_is_found_however_deep(make: Make) {
    let fresh = fresh(make).await;
    let below = |parent: &'static str| move |row: &mut RecordRow| row.parent_id = Some(id!(parent));
    let rows = vec![
        record("mine", |row| row.subject_id = "me".to_owned()),
        record("child", below("mine")),
        record("grandchild", below("child")),
        record("theirs", |row| {
            row.subject_id = "them".to_owned();
            row.client_id = id!("app-7");
        }),
        record("over", |row| {
            row.subject_id = "me".to_owned();
            row.expires_at = start();
        }),
    ];
    let sessions = vec![
        session("rides-grandchild", "grandchild", |_| ()),
        session("rides-over", "over", |_| ()),
        session("rides-theirs", "theirs", |_| ()),
        session("runs-as-app", "unknown", |row| row.application_id = id!("app-7")),
    ];
    stand(&fresh.store, rows, sessions).await;
    // What was revoked before does not hide what descends from it.
    change!(fresh.store, (), |tx, _none| records::revoke_each(tx, &[id!("child")], "test").await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let app = id!("app-7");
    let now = read.now();
    for (holder, records, sessions) in [
        (Holder::Subject("me"), vec!["grandchild", "mine"], vec!["rides-grandchild", "rides-over"]),
        (Holder::Client(&app), vec!["theirs"], vec!["rides-theirs", "runs-as-app"]),
        (
            Holder::Zone,
            vec!["grandchild", "mine", "theirs"],
            vec!["rides-grandchild", "rides-over", "rides-theirs", "runs-as-app"],
        ),
        (Holder::Subject("nobody"), vec![], vec![]),
    ] {
        let found = holdings::list_active_records(&mut read, holder, now).await.unwrap();
        let mut found: Vec<&str> = found.iter().map(AsRef::as_ref).collect();
        found.sort_unstable();
        assert_eq!(found, records, "{holder:?}");
        let found = holdings::list_running_sessions(&mut read, holder).await.unwrap();
        let found: Vec<&str> = found.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(found, sessions, "{holder:?}");
    }
}

pub async fn what_hangs_on_a_resource_is_found(make: Make) {
    let fresh = fresh(make).await;
    let mandate = |row: &mut RecordRow| row.use_class = "resource".to_owned();
    let session = |row: &mut RecordRow| row.use_class = "session".to_owned();
    let rows = vec![record("for-it", mandate), record("of-a-session", session), record("for-another", mandate)];
    stand(&fresh.store, rows, Vec::new()).await;
    let event = |seq: i64, record: &str, resource: &str| EvidenceRow {
        event_type: "token_exchange".to_owned(),
        decision: "allow".to_owned(),
        metadata: serde_json::json!({"resource": resource, "authority_record_id": record}).to_string(),
        occurred_at: at(10).as_micros(),
        id: format!("event-{seq}"),
        ..samples::evidence(seq)
    };
    let events = vec![
        event(1, "for-it", "resource://r"),
        event(2, "for-it", "resource://r"),
        event(3, "of-a-session", "resource://r"),
        event(4, "for-another", "resource://s"),
    ];
    let bound = delegations::EdgeRow { resource_id: Some(id!("r-1")), ..samples::edge("bound", true) };
    let edges = vec![bound, samples::edge("unbound", false)];
    change!(fresh.store, (events, edges), |tx, rows| {
        for event in &rows.0 {
            evidence::append(tx, event).await?;
        }
        for edge in &rows.1 {
            delegations::add(tx, edge).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let found = holdings::list_active_mandates(&mut read, "resource://r", at(5)).await.unwrap();
    assert_eq!(found, [id!("for-it")]);
    assert!(holdings::list_active_mandates(&mut read, "resource://r", at(11)).await.unwrap().is_empty());
    let found = holdings::list_active_edges(&mut read, &id!("r-1")).await.unwrap();
    assert_eq!(found.iter().map(|edge| edge.id.as_str()).collect::<Vec<_>>(), ["bound"]);
}

pub async fn management_records_are_listed_by_chain(make: Make) {
    let fresh = fresh(make).await;
    let own = [samples::admin_evidence("z-1", 1), samples::admin_evidence("z-1", 2)];
    let zoneless = samples::admin_evidence(admin_evidence::ZONELESS_CHAIN, 1);
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment((own.clone(), zoneless.clone()), |tx, (own, zoneless)| {
            Box::pin(async move {
                for row in own {
                    admin_evidence::append(&mut tx.zone_write(&zone("z-1")), row).await?;
                }
                admin_evidence::append_zoneless(tx, zoneless).await
            })
        })
        .await;
    added.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let all = admin_evidence::AdminEvidenceFilter::default();
    let mut listed = admin_evidence::list(&mut snapshot.zone(&zone("z-1")), &all, &Page::first(10)).await.unwrap();
    listed.sort_by_key(|row| row.chain_seq);
    same(&listed, &own.to_vec());
    let listed = admin_evidence::list_zoneless(&mut snapshot.deployment(), &all, &Page::first(10)).await.unwrap();
    same(&listed, &vec![zoneless]);
    let foreign = admin_evidence::AdminEvidenceFilter { actor_id: Some("nobody".to_owned()), ..all };
    assert!(
        admin_evidence::list(&mut snapshot.zone(&zone("z-1")), &foreign, &Page::first(10)).await.unwrap().is_empty()
    );
    assert!(
        admin_evidence::list(&mut snapshot.zone(&zone("z-2")), &foreign, &Page::first(10)).await.unwrap().is_empty()
    );
}

pub async fn a_zone_in_numbers_leaves_out_what_is_archived(make: Make) {
    let fresh = fresh(make).await;
    stand(&fresh.store, vec![record("r-1", |_| ())], Vec::new()).await;
    change!(fresh.store, (), |tx, _none| {
        for (name, full) in [("app-1", true), ("app-2", false), ("app-3", false)] {
            applications::add(tx, &samples::application(name, full)).await?;
        }
        applications::archive(tx, &id!("app-3"), "operator").await?;
        resources::add(tx, &samples::resource("r-1", true)).await?;
        providers::add(tx, &samples::provider("p-1", true)).await?;
        policy_sets::add(tx, &samples::policy_set("s-1", false)).await?;
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let of_zone = zone("z-1");
    let mut read = snapshot.zone(&of_zone);
    let seen = oversight::overview(&mut read).await.unwrap();
    assert_eq!((seen.applications, seen.resources, seen.providers, seen.policy_sets), (2, 1, 1, 1));
    assert_eq!((seen.expired_applications, seen.expiring_applications), (0, 1));
    assert_eq!((seen.active_records, seen.allowed, seen.denied), (1, 0, 0));
    assert_eq!(oversight::count_live_registrations(&mut read).await.unwrap(), 1);
    assert_eq!(oversight::list_live_registrations(&mut read).await.unwrap(), [id!("app-1")]);
}
