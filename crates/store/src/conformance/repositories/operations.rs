//! Grants, what users hold, and what processes say of themselves.

use caracal_authority::{AuthorityRecordId, ReplicaId};

use super::management::change;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, touched, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::grants::{self, Grant, GrantFilter, ListedGrant};
use crate::page::Page;
use crate::policy_replicas::{self, LoadedPolicy, Replica};
use crate::records::{self, RecordRow};
use crate::{applications, providers, resources};

pub async fn grants_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let unknown = Grant { application_id: id!("app-9"), resource_id: id!("r-9"), ..samples::grant("g-2", false) };
    let rows = [samples::grant("g-1", true), unknown];
    change!(fresh.store, rows.clone(), |tx, rows| {
        applications::add(tx, &samples::application("app-1", false)).await?;
        providers::add(tx, &samples::provider("prov-1", true)).await?;
        resources::add(tx, &samples::resource("r-1", true)).await?;
        for row in rows {
            grants::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&grants::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    let bare = |grant: &Grant| ListedGrant {
        grant: grant.clone(),
        application_name: None,
        resource_name: None,
        provider_id: None,
        provider_name: None,
        provider_kind: None,
    };
    let named = ListedGrant {
        application_name: Some(samples::application("app-1", false).name),
        resource_name: Some(samples::resource("r-1", true).name),
        provider_id: Some(id!("prov-1")),
        provider_name: Some(samples::provider("prov-1", true).name),
        provider_kind: Some("api_key".to_owned()),
        ..bare(&rows[0])
    };
    let all = vec![bare(&rows[1]), named];
    same(&grants::list(&mut read, &GrantFilter::default(), &Page::first(10)).await.unwrap(), &all);
    let some = |text: &str| Some(text.to_owned());
    let scopes = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let none = GrantFilter::default;
    for (filter, found) in [
        (GrantFilter { application_id: some("app-1"), ..none() }, "g-1"),
        (GrantFilter { resource_id: some("r-9"), ..none() }, "g-2"),
        (GrantFilter { provider_id: some("prov-1"), ..none() }, "g-1"),
        (GrantFilter { user_id: some(samples::ODD), status: some("active"), ..none() }, "g-2 g-1"),
        (GrantFilter { status: some("revoked"), ..none() }, ""),
        (GrantFilter { scopes: scopes(&["n:read", "n:pay_all"]), ..none() }, "g-1"),
        (GrantFilter { scopes: scopes(&["n:read"]), ..none() }, "g-2 g-1"),
        (GrantFilter { scopes: scopes(&["n:payxall"]), ..none() }, ""),
        (GrantFilter { scopes: scopes(&["n:rea"]), ..none() }, ""),
        (GrantFilter { scopes: scopes(&["n:read\",\"n:pay_all"]), ..none() }, ""),
    ] {
        let listed = grants::list(&mut read, &filter, &Page::first(10)).await.unwrap();
        let ids: Vec<&str> = listed.iter().map(|row| row.grant.id.as_str()).collect();
        assert_eq!(ids.join(" "), found, "{filter:?}");
    }
    drop(snapshot);
    for (name, found) in [("g-1", true), ("g-1", true), ("g-9", false)] {
        let done = change!(fresh.store, name, |tx, name| grants::revoke(tx, &id!(name), "token:2").await);
        assert_eq!(done.unwrap(), found, "{name}");
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let revoked = grants::lookup(&mut snapshot.zone(&zone("z-1")), &id!("g-1")).await.unwrap().unwrap();
    let mut by = touched(&rows[0].attribution);
    (by.updated_via_operator, by.updated_at) = (Some(false), Some(start()));
    same(&revoked, &Grant { status: "revoked".to_owned(), attribution: by, ..rows[0].clone() });
}

/// Page after page, children of what an earlier page revoked included; never what is not the user's.
pub async fn what_a_user_holds_is_listed_oldest_first(make: Make) {
    let fresh = fresh(make).await;
    let record = |name: &str, kind: &str, subject: &str, parent: Option<&str>, age: u64| RecordRow {
        kind: kind.to_owned(),
        subject_id: subject.to_owned(),
        parent_id: parent.map(|parent| id!(parent)),
        created_at: at(age),
        ..samples::record(name, false)
    };
    let mut lapsed = record("lapsed", "user", "u", None, 0);
    lapsed.expires_at = start();
    let rows = vec![
        record("second", "user", "u", None, 2),
        record("first", "user", "u", None, 1),
        record("child", "user", "other", Some("first"), 3),
        record("grandchild", "user", "other", Some("child"), 4),
        record("other", "user", "other", None, 1),
        record("shared", "application", "u", None, 1),
        lapsed,
    ];
    change!(fresh.store, rows, |tx, rows| {
        for row in rows {
            records::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut pages = Vec::new();
    loop {
        let page: Vec<AuthorityRecordId> = change!(fresh.store, (), |tx, _unused| {
            let page = records::list_active_of_user(tx, "u", start(), 2).await?;
            records::revoke_each(tx, &page, "test").await?;
            Ok(page)
        })
        .unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    }
    assert_eq!(pages, ["first second", "child grandchild"]);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for (name, status) in [("first", "revoked"), ("grandchild", "revoked"), ("other", "active"), ("shared", "active")] {
        let row = records::lookup(&mut snapshot.zone(&zone("z-1")), &id!(name)).await.unwrap().unwrap();
        assert_eq!(row.status, status, "{name}");
    }
}

pub async fn what_processes_have_loaded_is_told_while_they_are_there(make: Make) {
    let fresh = fresh(make).await;
    let full = LoadedPolicy {
        policy_set_version_id: Some(id!("v-1")),
        manifest_sha256: "ab".to_owned(),
        loaded_at: Some(at(1)),
        error: Some(samples::ODD.to_owned()),
        checked_at: at(2),
    };
    let bare = LoadedPolicy { policy_set_version_id: None, loaded_at: None, error: None, ..full.clone() };
    let told: Vec<(&str, &str, LoadedPolicy)> =
        vec![("a", "z-1", full.clone()), ("b", "z-1", bare.clone()), ("b", "z-2", full.clone())];
    let noted: Result<(), StoreError> = fresh
        .store
        .commit_upkeep(told, |tx, told| {
            Box::pin(async move {
                policy_replicas::note_seen(tx, &id!("c")).await?;
                for (replica, of, loaded) in told {
                    let replica: ReplicaId = id!(replica);
                    policy_replicas::note_seen(tx, &replica).await?;
                    policy_replicas::note_loaded(tx, &replica, &zone(of), loaded).await?;
                }
                // Later it was something else; what is told late is not what was seen last.
                let (late, early) = (at(9), at(1));
                let newer = LoadedPolicy { manifest_sha256: "cd".to_owned(), checked_at: late, ..told[0].2.clone() };
                policy_replicas::note_loaded(tx, &id!("a"), &zone("z-1"), &newer).await?;
                let older = LoadedPolicy { checked_at: early, ..told[0].2.clone() };
                policy_replicas::note_loaded(tx, &id!("a"), &zone("z-1"), &older).await
            })
        })
        .await;
    noted.unwrap();
    let newer = LoadedPolicy { manifest_sha256: "cd".to_owned(), checked_at: at(9), ..full.clone() };
    let replica = |name: &str, loaded: Option<LoadedPolicy>| Replica { id: id!(name), seen_at: start(), loaded };
    let list = async |of: &str, since| {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        policy_replicas::list(&mut snapshot.zone(&zone(of)), since).await.unwrap()
    };
    let expected = [replica("a", Some(newer)), replica("b", Some(bare)), replica("c", None)];
    assert_eq!(list("z-1", start()).await, expected);
    assert_eq!(list("z-2", start()).await[1], replica("b", Some(full)));
    assert!(list("z-1", at(0)).await.is_empty(), "nobody was seen since");
    let gone: Result<usize, StoreError> = fresh
        .store
        .commit_upkeep((), |tx, ()| {
            Box::pin(async move {
                policy_replicas::forget(tx, &id!("a")).await?;
                assert_eq!(policy_replicas::forget_unseen(tx, start()).await?, 0);
                policy_replicas::forget_unseen(tx, at(0)).await
            })
        })
        .await;
    assert_eq!(gone.unwrap(), 4, "two of them, and what one said of two zones");
    assert!(list("z-1", start()).await.is_empty());
}
