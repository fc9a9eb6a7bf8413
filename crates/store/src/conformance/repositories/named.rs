//! What a decision names beforehand is what it would have read by itself, and costs one round trip.

use caracal_authority::session::SessionStatus;

use super::management::change;
use crate::ahead::Named;
use crate::conformance::Make;
use crate::conformance::fixtures::{fresh, id, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::store::{Snapshot, Store};
use crate::{
    applications, approvals, delegations, policies, policy_sets, provider_connections, providers, records, resources,
    sealed_secrets, sessions, signing_keys, subject_issuers, workloads, zones,
};

/// A zone with a line of delegations, resources behind providers, a policy, a key and secrets; and another zone with
/// secrets under the same names.
async fn fill(store: &Store) {
    let root = delegations::EdgeRow { resource_id: Some(id!("r-2")), ..samples::edge("e-1", false) };
    let middle = delegations::EdgeRow { parent_edge_id: Some(id!("e-1")), ..samples::edge("e-2", true) };
    let leaf = delegations::EdgeRow { parent_edge_id: Some(id!("e-2")), ..samples::edge("e-3", true) };
    // A line without an end, which nothing of ours writes.
    let ring = delegations::EdgeRow { parent_edge_id: Some(id!("e-9")), ..samples::edge("e-9", true) };
    let sessions = [
        samples::session("s-1", true),
        sessions::SessionRow { subject_record_id: id!("rec-2"), ..samples::session("s-2", false) },
    ];
    // A resource whose identifier is another one's id: the identifier wins.
    let twin = resources::Resource { identifier: "r-1".to_owned(), ..samples::resource("r-3", false) };
    let gone = resources::Resource {
        archived_at: Some(crate::conformance::fixtures::at(1)),
        ..samples::resource("r-4", true)
    };
    let rows = (
        [root, middle, leaf, ring],
        sessions,
        [samples::resource("r-1", true), samples::resource("r-2", true), twin, gone],
    );
    change!(store, rows, |tx, rows| {
        let (edges, sessions, resources) = rows;
        applications::add(tx, &samples::application("app-1", true)).await?;
        workloads::add(tx, &samples::workload("w-1", true)).await?;
        for record in ["rec-1", "rec-2"] {
            records::add(tx, &samples::record(record, false)).await?;
        }
        for session in sessions {
            sessions::add(tx, session).await?;
        }
        for provider in [samples::provider("prov-1", true), samples::provider("prov-2", false)] {
            providers::add(tx, &provider).await?;
        }
        for (name, subject) in [("c-own", "user-1"), ("c-shared", provider_connections::SHARED_SUBJECT)] {
            let account = samples::connection(name, false);
            let account = provider_connections::Connection {
                subject_id: subject.to_owned(),
                status: "active".to_owned(),
                ..account
            };
            provider_connections::add(tx, &account).await?;
        }
        subject_issuers::add(tx, &samples::subject_issuer("i-1", true)).await?;
        for resource in resources {
            resources::add(tx, resource).await?;
        }
        for edge in edges {
            delegations::add(tx, edge).await?;
        }
        approvals::add(tx, &samples::approval("ap-1", true)).await?;
        signing_keys::add(tx, &samples::signing_key("k-1", 1)).await?;
        signing_keys::add(tx, &samples::signing_key("k-2", 2)).await?;
        policies::add(tx, &samples::policy("p-1", true)).await?;
        policies::add_version(tx, &samples::policy_version("p-1", 1)).await?;
        policy_sets::add(tx, &samples::policy_set("set-1", true)).await?;
        policy_sets::add_version(tx, &samples::policy_set_version("set-1", 1)).await?;
        policy_sets::activate(tx, &id!("set-1"), &id!("set-1-v1")).await?;
        delegations::raise_epoch(tx).await?;
        sealed_secrets::put(tx, "zones/z-1/providers/prov-1/secretConfig", b"sealed").await
    })
    .unwrap();
    let other: Result<(), StoreError> = store
        .commit(&zone("z-2"), (), |tx, ()| {
            Box::pin(async move { sealed_secrets::put(tx, "zones/z-1/providers/prov-1/secretConfig", b"other").await })
        })
        .await;
    other.unwrap();
}

/// Everything that a decision may look at, as text.
async fn look(snapshot: &mut Snapshot) -> Vec<String> {
    let mut seen = look_at_facts(snapshot).await;
    seen.push(format!("{:?}", records::lookup(&mut snapshot.zone(&zone("z-1")), &id!("none")).await.unwrap()));
    seen
}

async fn look_at_facts(snapshot: &mut Snapshot) -> Vec<String> {
    let mut read = snapshot.zone(&zone("z-1"));
    let read = &mut read;
    let mut seen = vec![
        format!("{:?}", applications::lookup(read, &id!("app-1")).await.unwrap()),
        format!("{:?}", workloads::lookup(read, &id!("w-1")).await.unwrap()),
        format!("{:?}", workloads::lookup(read, &id!("none")).await.unwrap()),
        format!("{:?}", zones::lookup(read).await.unwrap()),
        format!("{:?}", policy_sets::find_active(read).await.unwrap()),
        format!("{:?}", signing_keys::find_signing_id(read).await.unwrap()),
        format!("{:?}", delegations::epoch(read).await.unwrap()),
    ];
    for record in ["rec-1", "rec-2"] {
        seen.push(format!("{:?}", records::lookup(read, &id!(record)).await.unwrap()));
    }
    for approval in ["ap-1", "none"] {
        seen.push(format!("{:?}", approvals::lookup(read, &id!(approval)).await.unwrap()));
    }
    for session in ["s-1", "s-2", "none"] {
        seen.push(format!("{:?}", sessions::lookup(read, &id!(session)).await.unwrap()));
    }
    for edge in ["e-1", "e-2", "e-3", "e-9", "none"] {
        seen.push(format!("{:?}", delegations::lineage(read, &id!(edge), 12).await.unwrap()));
    }
    for resource in ["r-1", "r-2", "r-3", "r-4", "none"] {
        seen.push(format!("{:?}", resources::lookup(read, &id!(resource)).await.unwrap()));
        seen.push(format!("{:?}", resources::find_by_name(read, resource).await.unwrap()));
    }
    for provider in ["prov-1", "prov-2", "none"] {
        seen.push(format!("{:?}", providers::lookup(read, &id!(provider)).await.unwrap()));
        let reference = format!("zones/z-1/providers/{provider}/secretConfig");
        seen.push(format!("{:?}", sealed_secrets::lookup(read, &reference).await.unwrap()));
    }
    for (provider, subject) in [("prov-1", "user-1"), ("prov-1", "user-2"), ("prov-2", "user-1"), ("none", "user-1")] {
        let account = provider_connections::find_usable(read, &id!(provider), subject).await.unwrap();
        seen.push(format!("{account:?}"));
    }
    for issuer in [samples::subject_issuer("i-1", true).issuer.as_str(), "https://none.example"] {
        seen.push(format!("{:?}", subject_issuers::find_by_issuer(read, issuer).await.unwrap()));
    }
    seen
}

/// Whatever is named, the facts are the same.
pub async fn what_is_named_is_what_would_be_read(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    fill(store).await;
    let z = zone("z-1");
    let (_, mut alone) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
    let expected = look(&mut alone).await;
    drop(alone);
    let issuer = samples::subject_issuer("i-1", true).issuer;
    let names = ["r-1", "resource://r-2", "r-4", "none", "O'Neil"];
    for application in [Some(id!("app-1")), Some(id!("none")), None] {
        for record in [Some(id!("rec-1")), Some(id!("none")), None] {
            for (session, secrets) in [(Some(id!("s-2")), true), (Some(id!("none")), false), (None, true)] {
                for delegation in ["e-3", "e-1", "e-9", "none", ""] {
                    let delegation = (!delegation.is_empty()).then(|| id!(delegation));
                    let named = Named {
                        application: application.as_ref(),
                        workload: Some(&id!(if secrets { "w-1" } else { "none" })),
                        record: record.as_ref(),
                        session: session.as_ref(),
                        delegation: delegation.as_ref(),
                        resources: if secrets { &names } else { &[] },
                        secrets,
                        account_of: session.as_ref().map(|_| if secrets { "user-1" } else { "user-2" }),
                        approval: Some(&id!(if secrets { "ap-1" } else { "none" })),
                        subject_issuer: secrets.then_some(&issuer),
                    };
                    let (_, mut snapshot) = store.decision_snapshot(&z, &named).await.unwrap();
                    let seen = look(&mut snapshot).await;
                    assert_eq!(seen, expected, "{named:?}");
                }
            }
        }
    }
}

/// What is remembered is what would be read, and nothing is remembered past a change of it (difference D4).
pub async fn what_is_remembered_is_what_would_be_read(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    fill(store).await;
    let (z, named) = (zone("z-1"), Named::default());
    let remembered = async || {
        let (version, mut snapshot) = store.remembered_decision(&z, &named)?;
        let seen = look_at_facts(&mut snapshot).await;
        assert!(!snapshot.is_incomplete());
        Some((version, seen))
    };
    let read = async || {
        let (version, mut snapshot) = store.decision_snapshot(&z, &named).await.unwrap();
        (version, look_at_facts(&mut snapshot).await)
    };
    assert!(remembered().await.is_none(), "nothing was read yet");
    let mut last = read().await;
    macro_rules! after {
        ($what:literal, |$tx:ident| $change:expr) => {
            assert_eq!(remembered().await, (!store.is_shared()).then(|| last.clone()), "before {}", $what);
            change!(store, (), |$tx, _rows| $change).unwrap();
            assert_eq!(remembered().await, None, "after {}", $what);
            let next = read().await;
            assert_ne!(next.1, last.1, "{} changes nothing", $what);
            last = next;
        };
    }
    after!("a session ends", |tx| sessions::end(tx, &id!("s-1"), SessionStatus::Terminated, "over").await);
    after!("a delegation is revoked", |tx| delegations::revoke(tx, &id!("e-2")).await);
    after!("a record is revoked", |tx| records::revoke_with_descendants(tx, &id!("rec-1"), "over").await);
    after!("a resource is archived", |tx| resources::archive(tx, &id!("r-2"), "admin").await);
    after!("a provider is archived", |tx| providers::archive(tx, &id!("prov-2"), "admin").await);
    after!("an application is archived", |tx| applications::archive(tx, &id!("app-1"), "admin").await);
    after!("a key is added", |tx| signing_keys::add(tx, &samples::signing_key("k-3", 3)).await);
    after!("a resource is added", |tx| resources::add(tx, &samples::resource("none", true)).await);
    after!("a secret is replaced", |tx| {
        sealed_secrets::put(tx, "zones/z-1/providers/prov-1/secretConfig", b"new").await
    });
    // What everybody adds with every call disturbs nothing.
    change!(store, (), |tx, _rows| records::add(tx, &samples::record("rec-9", true)).await).unwrap();
    assert_eq!(remembered().await, (!store.is_shared()).then(|| last.clone()));
    // Nor does what happens in another zone.
    let elsewhere: Result<(), StoreError> = store
        .commit(&zone("z-2"), (), |tx, ()| Box::pin(async move { sealed_secrets::put(tx, "a", b"b").await }))
        .await;
    elsewhere.unwrap();
    assert_eq!(remembered().await, (!store.is_shared()).then(|| last.clone()));
}

/// That there was no record is not remembered: every decision adds one.
pub async fn that_a_record_was_missing_is_not_remembered(make: Make) {
    let fresh = fresh(make).await;
    let (store, z, named) = (&fresh.store, zone("z-1"), Named::default());
    for _ in 0..2 {
        let (_, mut snapshot) = store.decision_snapshot(&z, &named).await.unwrap();
        assert!(records::lookup(&mut snapshot.zone(&z), &id!("rec-1")).await.unwrap().is_none());
    }
    assert!(store.remembered_decision(&z, &named).is_none());
}

/// A mandate's record is known when the mandate is presented, as it was added; and as it is, once it was revoked.
pub async fn a_record_is_known_as_soon_as_it_is_added(make: Make) {
    let fresh = fresh(make).await;
    let (store, z) = (&fresh.store, zone("z-1"));
    let add = async |name: &'static str| {
        change!(store, samples::record(name, name.ends_with('1')), |tx, row| records::add(tx, row).await).unwrap();
    };
    let ids = ["rec-1", "rec-2", "rec-3"].map(|name| id!(name));
    let named = |record| Named { record: Some(record), ..Named::default() };
    add("rec-1").await;
    let (_, mut snapshot) = store.decision_snapshot(&z, &named(&ids[0])).await.unwrap();
    records::lookup(&mut snapshot.zone(&z), &ids[0]).await.unwrap();
    drop(snapshot);
    add("rec-2").await;
    for record in &ids[..2] {
        let (_, mut snapshot) = store.decision_snapshot(&z, &Named::default()).await.unwrap();
        let stored = format!("{:?}", records::lookup(&mut snapshot.zone(&z), record).await.unwrap().unwrap());
        drop(snapshot);
        let Some((_, mut snapshot)) = store.remembered_decision(&z, &named(record)) else {
            assert!(store.is_shared());
            continue;
        };
        let known = records::lookup(&mut snapshot.zone(&z), record).await.unwrap().unwrap();
        assert_eq!(format!("{known:?}"), stored);
    }
    assert!(store.remembered_decision(&z, &named(&ids[2])).is_none(), "nobody has added it");
    let failed: Result<(), StoreError> = store
        .commit(&z, samples::record("rec-3", false), |tx, row| {
            Box::pin(async move {
                records::add(tx, row).await?;
                Err(StoreError::Statement { reason: "undone".to_owned() })
            })
        })
        .await;
    assert!(failed.is_err() && store.remembered_decision(&z, &named(&ids[2])).is_none(), "it was not added");
    change!(store, (), |tx, _rows| records::revoke_with_descendants(tx, &id!("rec-2"), "over").await).unwrap();
    assert!(store.remembered_decision(&z, &named(&ids[1])).is_none());
}

/// A decision that asks more than others of its kind did is told to ask the store, and is not answered from memory again.
pub async fn what_is_not_remembered_is_asked(make: Make) {
    let fresh = fresh(make).await;
    let (store, z, named) = (&fresh.store, zone("z-1"), Named::default());
    let (_, mut snapshot) = store.decision_snapshot(&z, &named).await.unwrap();
    sessions::lookup(&mut snapshot.zone(&z), &id!("s-1")).await.unwrap();
    drop(snapshot);
    if let Some((_, mut snapshot)) = store.remembered_decision(&z, &named) {
        sessions::lookup(&mut snapshot.zone(&z), &id!("s-1")).await.unwrap();
        assert!(!snapshot.is_incomplete());
        assert!(sessions::lookup(&mut snapshot.zone(&z), &id!("s-2")).await.is_err());
        assert!(snapshot.is_incomplete());
    }
    assert!(store.remembered_decision(&z, &named).is_none());
}

/// A decision on a delegated session with two resources, read as the token service reads it.
pub async fn all_that_a_decision_names_is_read_in_one_round_trip(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    fill(store).await;
    let (application, record, session, delegation) = (id!("app-1"), id!("rec-1"), id!("s-2"), id!("e-3"));
    let approval = id!("ap-1");
    let issuer = samples::subject_issuer("i-1", true).issuer;
    let named = Named {
        application: Some(&application),
        workload: None,
        record: Some(&record),
        session: Some(&session),
        delegation: Some(&delegation),
        resources: &["resource://r-1", "resource://r-2"],
        secrets: true,
        account_of: Some("user-1"),
        approval: Some(&approval),
        subject_issuer: Some(&issuer),
    };
    let before = store.round_trips();
    let (_, mut snapshot) = store.decision_snapshot(&zone("z-1"), &named).await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let read = &mut read;
    assert!(applications::lookup(read, &application).await.unwrap().is_some());
    assert!(zones::lookup(read).await.unwrap().is_none(), "the zone has no row here");
    assert!(records::lookup(read, &record).await.unwrap().is_some());
    assert!(subject_issuers::find_by_issuer(read, &issuer).await.unwrap().is_some());
    let own = sessions::lookup(read, &session).await.unwrap().unwrap();
    assert!(records::lookup(read, &own.subject_record_id).await.unwrap().is_some());
    let line = delegations::lineage(read, &delegation, 12).await.unwrap();
    assert_eq!(line.len(), 3);
    for edge in &line {
        assert!(resources::lookup(read, edge.resource_id.as_ref().unwrap()).await.unwrap().is_some());
    }
    let source = sessions::lookup(read, &line[2].source_session_id).await.unwrap().unwrap();
    assert!(records::lookup(read, &source.subject_record_id).await.unwrap().is_some());
    assert_eq!(delegations::epoch(read).await.unwrap(), 1);
    for name in named.resources {
        let resource = resources::find_by_name(read, name).await.unwrap().unwrap();
        assert!(providers::lookup(read, resource.credential_provider_id.as_ref().unwrap()).await.unwrap().is_some());
    }
    let account = provider_connections::find_usable(read, &id!("prov-1"), "user-1").await.unwrap();
    assert_eq!(account.unwrap().id.as_str(), "c-own");
    let secret = sealed_secrets::lookup(read, "zones/z-1/providers/prov-1/secretConfig").await.unwrap();
    assert_eq!(secret.as_deref(), Some(b"sealed".as_slice()));
    assert!(approvals::lookup(read, &approval).await.unwrap().is_some());
    assert!(policy_sets::find_active(read).await.unwrap().is_some());
    assert_eq!(signing_keys::find_signing_id(read).await.unwrap(), Some(id!("k-2")));
    assert_eq!(store.round_trips() - before, u64::from(store.is_shared()));
}

/// The same of a workload that wants a credential.
pub async fn all_that_a_launch_names_is_read_in_one_round_trip(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    fill(store).await;
    let (workload, approval) = (id!("w-1"), id!("ap-1"));
    let named = Named {
        workload: Some(&workload),
        resources: &["resource://r-1"],
        secrets: true,
        approval: Some(&approval),
        ..Named::default()
    };
    let before = store.round_trips();
    let (_, mut snapshot) = store.decision_snapshot(&zone("z-1"), &named).await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let read = &mut read;
    assert!(workloads::lookup(read, &workload).await.unwrap().is_some());
    assert!(zones::lookup(read).await.unwrap().is_none(), "the zone has no row here");
    let resource = resources::find_by_name(read, "resource://r-1").await.unwrap().unwrap();
    assert!(providers::lookup(read, resource.credential_provider_id.as_ref().unwrap()).await.unwrap().is_some());
    let secret = sealed_secrets::lookup(read, "zones/z-1/providers/prov-1/secretConfig").await.unwrap();
    assert_eq!(secret.as_deref(), Some(b"sealed".as_slice()));
    assert!(approvals::lookup(read, &approval).await.unwrap().is_some());
    assert!(policy_sets::find_active(read).await.unwrap().is_some());
    assert_eq!(store.round_trips() - before, u64::from(store.is_shared()));
}
