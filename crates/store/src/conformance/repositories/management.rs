//! What operators manage.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::Timestamp;

use crate::ahead::Named;
use crate::attribution::Attribution;
use crate::clock::ManualClock;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, touched, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::mint_limit::MintLimit;
use crate::page::Page;
use crate::policies::LatestVersion;
use crate::policy_sets::LatestSetVersion;
use crate::resources::ResourceFilter;
use crate::revocations::{Anchor, AnchorKind};
use crate::zones::ZoneFilter;
use crate::{
    admin_tokens, applications, mint_limit, policies, policy_sets, providers, resources, revocations, sealed_secrets,
    signing_keys, subject_issuers, workloads, zones,
};

/// Runs a change of zone `z-1`; the closure captures nothing.
macro_rules! change {
    ($store:expr, $input:expr, |$tx:ident, $value:ident| $body:expr) => {{
        let done: Result<_, StoreError> =
            $store.commit(&zone("z-1"), $input, |$tx, $value| Box::pin(async move { $body })).await;
        done
    }};
}
pub(super) use change;

pub async fn zones_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::a_zone("z-1", true), samples::a_zone("z-2", false)];
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment(rows.clone(), |tx, rows| {
            Box::pin(async move {
                for row in rows {
                    zones::add(tx, row).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
    let twice = zones::Zone { id: id!("z-3"), ..rows[0].clone() };
    let refused: Result<(), StoreError> =
        fresh.store.commit_deployment(twice, |tx, row| Box::pin(async move { zones::add(tx, row).await })).await;
    assert!(refused.unwrap_err().is_conflict_on("zones.slug"));
    change!(fresh.store, (), |tx, _unused| zones::give_to(tx, "account-1").await).unwrap();

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for row in &rows {
        same(&zones::lookup(&mut snapshot.zone(&row.id)).await.unwrap().unwrap(), row);
    }
    assert!(zones::lookup(&mut snapshot.zone(&zone("z-3"))).await.unwrap().is_none());
    assert_eq!(zones::find_owner(&mut snapshot.zone(&zone("z-1"))).await.unwrap().as_deref(), Some("account-1"));
    assert_eq!(zones::find_owner(&mut snapshot.zone(&zone("z-2"))).await.unwrap(), None);
    let mut all = snapshot.deployment();
    let [first, second] = rows;
    same(&zones::list(&mut all, &Page::first(10)).await.unwrap(), &vec![second.clone(), first.clone()]);
    assert!(zones::slug_is_taken(&mut all, "slug-z-1").await.unwrap());
    assert!(!zones::slug_is_taken(&mut all, "slug-z").await.unwrap());
    let mut slugs = zones::list_slugs(&mut all, "slug-z").await.unwrap();
    slugs.sort();
    assert_eq!(slugs, ["slug-z-1", "slug-z-2"]);
    for (filter, shown) in [
        (
            ZoneFilter { hidden_name_prefix: "x".to_owned(), hidden_slug_prefix: "x".to_owned(), owner: None },
            vec![second.clone(), first.clone()],
        ),
        (
            ZoneFilter { hidden_name_prefix: "x".to_owned(), hidden_slug_prefix: "slug-z-2".to_owned(), owner: None },
            vec![first.clone()],
        ),
        (
            ZoneFilter {
                hidden_name_prefix: "x".to_owned(),
                hidden_slug_prefix: "x".to_owned(),
                owner: Some("account-1".to_owned()),
            },
            vec![first.clone()],
        ),
        (
            ZoneFilter {
                hidden_name_prefix: "x".to_owned(),
                hidden_slug_prefix: "x".to_owned(),
                owner: Some("account-2".to_owned()),
            },
            Vec::new(),
        ),
    ] {
        same(&zones::list_visible(&mut all, &filter, &Page::first(10)).await.unwrap(), &shown);
    }
}

pub async fn applications_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::application("app-1", true), samples::application("app-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            applications::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let changed = applications::Application {
        name: "İstanbul".to_owned(),
        traits: vec!["t".to_owned()],
        secret_hash: None,
        attribution: touched(&rows[1].attribution),
        ..rows[1].clone()
    };
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&applications::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    assert!(applications::lookup(&mut read, &id!("app-3")).await.unwrap().is_none());
    drop(snapshot);
    change!(fresh.store, changed.clone(), |tx, row| applications::update(tx, row).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    same(&applications::lookup(&mut read, &id!("app-2")).await.unwrap().unwrap(), &changed);
    same(
        &applications::list(&mut read, false, &Page::first(10)).await.unwrap(),
        &vec![changed.clone(), rows[0].clone()],
    );
    assert!(applications::list(&mut read, true, &Page::first(10)).await.unwrap().is_empty());
    for (name, except, found) in [
        ("İSTANBUL", None, true),
        ("İstanbul", Some(id!("app-2")), false),
        ("istanbul", None, false),
        // Not a managed one.
        (rows[0].name.as_str(), None, false),
    ] {
        let same_name = applications::find_managed_by_name(&mut read, name, except.as_ref()).await.unwrap();
        assert_eq!(same_name.is_some(), found, "{name}");
    }
    let anywhere = applications::find_in_any_zone(&mut snapshot.deployment(), &id!("app-1")).await.unwrap();
    same(&anywhere.unwrap(), &rows[0]);
}

pub async fn workloads_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::workload("w-1", true), samples::workload("w-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            workloads::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = workloads::Workload { name: "Other".to_owned(), ..rows[0].clone() };
    let elsewhere: Result<(), StoreError> =
        fresh.store.commit(&zone("z-2"), twice, |tx, row| Box::pin(async move { workloads::add(tx, row).await })).await;
    assert!(elsewhere.unwrap_err().is_conflict_on("workloads.id"), "an id names one workload of the deployment");
    let same_name = workloads::Workload { id: id!("w-3"), name: rows[0].name.to_lowercase(), ..rows[0].clone() };
    let refused = change!(fresh.store, same_name, |tx, row| workloads::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("workloads.name_key"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for row in &rows {
        same(&workloads::lookup(&mut snapshot.zone(&zone("z-1")), &row.id).await.unwrap().unwrap(), row);
        same(&workloads::find_in_any_zone(&mut snapshot.deployment(), &row.id).await.unwrap().unwrap(), row);
    }
    assert!(workloads::find_in_any_zone(&mut snapshot.deployment(), &id!("w-9")).await.unwrap().is_none());
    let [required, optional] = &rows[0].bindings.read().unwrap()[..] else { panic!("two bindings") };
    assert_eq!((required.env.as_str(), required.optional, required.on_failure), ("NOTES_TOKEN", false, None));
    assert_eq!((optional.optional, optional.on_failure), (true, Some(workloads::OnFailure::Warn)));
    let mut read = snapshot.zone(&zone("z-1"));
    same(&workloads::list(&mut read, &Page::first(10)).await.unwrap(), &vec![rows[1].clone(), rows[0].clone()]);
    for (name, except, found) in [
        (rows[0].name.to_lowercase(), None, true),
        (rows[0].name.to_lowercase(), Some(id!("w-1")), false),
        ("nobody".to_owned(), None, false),
    ] {
        let taken = workloads::find_by_name(&mut read, &name, except.as_ref()).await.unwrap();
        assert_eq!(taken.is_some(), found, "{name}");
    }
    drop(snapshot);
    let changed = workloads::Workload {
        name: "Renamed".to_owned(),
        secret_hash: "argon2id$c$d".to_owned(),
        bindings: rows[0].bindings.clone(),
        attribution: touched(&rows[1].attribution),
        ..rows[1].clone()
    };
    assert!(change!(fresh.store, changed.clone(), |tx, row| workloads::update(tx, row).await).unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    same(&workloads::lookup(&mut snapshot.zone(&zone("z-1")), &id!("w-2")).await.unwrap().unwrap(), &changed);
    drop(snapshot);
    assert!(change!(fresh.store, (), |tx, _unused| workloads::remove(tx, &id!("w-2")).await).unwrap());
    assert!(!change!(fresh.store, (), |tx, _unused| workloads::remove(tx, &id!("w-2")).await).unwrap());
    assert!(!change!(fresh.store, changed, |tx, row| workloads::update(tx, row).await).unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    same(&workloads::list(&mut read, &Page::first(10)).await.unwrap(), &vec![rows[0].clone()]);
}

pub async fn providers_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::provider("prov-1", true), samples::provider("prov-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            providers::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = providers::Provider { id: id!("prov-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, twice, |tx, row| providers::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("providers.identifier"));
    let changed = providers::Provider {
        identifier: "provider://prov-1-2".to_owned(),
        kind: "bearer_token".to_owned(),
        attribution: touched(&rows[0].attribution),
        ..samples::provider("prov-1", false)
    };
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for row in &rows {
        same(&providers::lookup(&mut snapshot.zone(&zone("z-1")), &row.id).await.unwrap().unwrap(), row);
    }
    drop(snapshot);
    change!(fresh.store, changed.clone(), |tx, row| providers::update(tx, row).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    same(&providers::list(&mut read, false, &Page::first(10)).await.unwrap(), &vec![rows[1].clone(), changed]);
    assert!(providers::list(&mut read, true, &Page::first(10)).await.unwrap().is_empty());
    assert_eq!(providers::list_identifiers(&mut read, "provider://prov-1").await.unwrap(), ["provider://prov-1-2"]);
}

pub async fn subject_issuers_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::subject_issuer("i-1", true), samples::subject_issuer("i-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            subject_issuers::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = subject_issuers::SubjectIssuer { id: id!("i-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, twice.clone(), |tx, row| subject_issuers::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("subject_issuers.issuer"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&subject_issuers::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
        same(&subject_issuers::find_by_issuer(&mut read, &row.issuer).await.unwrap().unwrap(), row);
    }
    let other_case = rows[0].issuer.to_uppercase();
    assert!(subject_issuers::find_by_issuer(&mut read, &other_case).await.unwrap().is_none());
    drop(snapshot);
    let changed = subject_issuers::SubjectIssuer {
        jwks_url: "https://idp.example/other".to_owned(),
        audience: "other".to_owned(),
        attribution: touched(&rows[0].attribution),
        ..rows[0].clone()
    };
    assert!(change!(fresh.store, changed.clone(), |tx, row| subject_issuers::update(tx, row).await).unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let listed = subject_issuers::list(&mut read, &Page::first(10)).await.unwrap();
    same(&listed, &vec![rows[1].clone(), changed.clone()]);
    assert_eq!(subject_issuers::count_live(&mut read).await.unwrap(), 2);
    drop(snapshot);
    // An archived one is found by its id alone, is changed by nobody, and leaves its issuer free.
    let archived = change!(fresh.store, (), |tx, _unused| subject_issuers::archive(tx, &id!("i-1"), "x").await);
    assert!(archived.unwrap());
    let again = change!(fresh.store, (), |tx, _unused| subject_issuers::archive(tx, &id!("i-1"), "x").await);
    assert!(!again.unwrap());
    assert!(!change!(fresh.store, changed, |tx, row| subject_issuers::update(tx, row).await).unwrap());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let gone = subject_issuers::lookup(&mut read, &id!("i-1")).await.unwrap().unwrap();
    assert!(gone.archived_at.is_some() && gone.attribution.updated_by.as_deref() == Some("x"));
    assert!(subject_issuers::find_by_issuer(&mut read, &gone.issuer).await.unwrap().is_none());
    assert_eq!(subject_issuers::count_live(&mut read).await.unwrap(), 1);
    assert_eq!(subject_issuers::list(&mut read, &Page::first(10)).await.unwrap().len(), 1);
    drop(snapshot);
    change!(fresh.store, twice, |tx, row| subject_issuers::add(tx, row).await).unwrap();
}

pub async fn resources_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::resource("r-1", true), samples::resource("r-2", false)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            resources::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = resources::Resource { id: id!("r-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, twice, |tx, row| resources::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("resources.identifier"));
    // Names that differ in case are two.
    let other_case = resources::Resource { id: id!("r-3"), identifier: "resource://R-1".to_owned(), ..rows[0].clone() };
    change!(fresh.store, other_case.clone(), |tx, row| resources::add(tx, row).await).unwrap();
    let changed = resources::Resource {
        identifier: "r-1".to_owned(),
        operation_enforcement: "transport_uniform".to_owned(),
        attribution: touched(&rows[1].attribution),
        ..samples::resource("r-2", true)
    };
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for row in &rows {
        same(&resources::lookup(&mut snapshot.zone(&zone("z-1")), &row.id).await.unwrap().unwrap(), row);
    }
    drop(snapshot);
    change!(fresh.store, changed.clone(), |tx, row| resources::update(tx, row).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    same(
        &resources::list(&mut read, &ResourceFilter::default(), &Page::first(10)).await.unwrap(),
        &vec![other_case.clone(), changed.clone(), rows[0].clone()],
    );
    let hidden = ResourceFilter { archived: false, hidden: Some("r-1".to_owned()) };
    same(&resources::list(&mut read, &hidden, &Page::first(10)).await.unwrap(), &vec![other_case, rows[0].clone()]);
    let archived = ResourceFilter { archived: true, hidden: None };
    assert!(resources::list(&mut read, &archived, &Page::first(10)).await.unwrap().is_empty());
    assert_eq!(resources::count_live(&mut read).await.unwrap(), 3);
    // By identifier first: the name `r-1` is the identifier of one and the id of another.
    for (name, found) in [("r-1", Some("r-2")), ("resource://r-1", Some("r-1")), ("r-3", Some("r-3")), ("r", None)] {
        let resource = resources::find_by_name(&mut read, name).await.unwrap();
        assert_eq!(resource.as_ref().map(|resource| resource.id.as_str()), found, "{name}");
    }
    let mut taken = resources::list_identifiers(&mut read, "r").await.unwrap();
    taken.sort();
    assert_eq!(taken, ["r-1"]);
}

pub async fn policies_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::policy("p-1", true), samples::policy("p-2", false)];
    let versions = [samples::policy_version("p-1", 1), samples::policy_version("p-1", 2)];
    change!(fresh.store, (rows.clone(), versions.clone()), |tx, input| {
        for row in &input.0 {
            policies::add(tx, row).await?;
        }
        for version in &input.1 {
            policies::add_version(tx, version).await?;
        }
        Ok(())
    })
    .unwrap();
    let name_twice = policies::Policy { id: id!("p-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, name_twice, |tx, row| policies::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("policies.name"));
    let number_twice = policies::PolicyVersion { id: id!("another"), ..versions[1].clone() };
    let refused = change!(fresh.store, number_twice, |tx, row| policies::add_version(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("policy_versions.version"));

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&policies::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    for version in &versions {
        same(&policies::lookup_version(&mut read, &version.id).await.unwrap().unwrap(), version);
    }
    let latest = LatestVersion { id: id!("p-1-v2"), version: 2, content_sha256: versions[1].content_sha256.clone() };
    same(
        &policies::list(&mut read, &Page::first(10)).await.unwrap(),
        &vec![(rows[1].clone(), None), (rows[0].clone(), Some(latest))],
    );
    let [first, second] = versions;
    same(&policies::list_versions(&mut read, &id!("p-1")).await.unwrap(), &vec![second, first]);
    assert_eq!(policies::highest_version(&mut read, &id!("p-1")).await.unwrap(), 2);
    assert_eq!(policies::highest_version(&mut read, &id!("p-2")).await.unwrap(), 0);
    drop(snapshot);

    for archived in [true, false] {
        let done = change!(fresh.store, (), |tx, _unused| policies::archive(tx, &id!("p-1"), "token:2").await);
        assert_eq!(done.unwrap(), archived);
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let expected = policies::Policy {
        archived_at: Some(start()),
        attribution: Attribution {
            updated_by: Some("token:2".to_owned()),
            updated_via_operator: Some(false),
            updated_at: Some(start()),
            ..rows[0].attribution.clone()
        },
        ..rows[0].clone()
    };
    same(&policies::lookup(&mut read, &id!("p-1")).await.unwrap().unwrap(), &expected);
    same(&policies::list(&mut read, &Page::first(10)).await.unwrap(), &vec![(rows[1].clone(), None)]);
    assert!(policies::lookup_version(&mut read, &id!("p-1-v2")).await.unwrap().is_some());
}

pub async fn policy_sets_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::policy_set("s-1", true), samples::policy_set("s-2", false)];
    let versions = [samples::policy_set_version("s-1", 1), samples::policy_set_version("s-1", 2)];
    change!(fresh.store, (rows.clone(), versions.clone()), |tx, input| {
        for row in &input.0 {
            policy_sets::add(tx, row).await?;
        }
        for version in &input.1 {
            policy_sets::add_version(tx, version).await?;
        }
        Ok(())
    })
    .unwrap();
    let name_twice = policy_sets::PolicySet { id: id!("s-3"), ..rows[0].clone() };
    let refused = change!(fresh.store, name_twice, |tx, row| policy_sets::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("policy_sets.name"));
    let number_twice = policy_sets::PolicySetVersion { id: id!("another"), ..versions[1].clone() };
    let refused = change!(fresh.store, number_twice, |tx, row| policy_sets::add_version(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("policy_set_versions.version"));

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&policy_sets::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    for version in &versions {
        same(&policy_sets::lookup_version(&mut read, &version.id).await.unwrap().unwrap(), version);
    }
    let latest =
        LatestSetVersion { id: id!("s-1-v2"), version: 2, manifest_sha256: versions[1].manifest_sha256.clone() };
    same(
        &policy_sets::list(&mut read, &Page::first(10)).await.unwrap(),
        &vec![(rows[1].clone(), None), (rows[0].clone(), Some(latest))],
    );
    assert_eq!(policy_sets::list_versions(&mut read, &id!("s-1"), &Page::first(10)).await.unwrap().len(), 2);
    assert_eq!(policy_sets::highest_version(&mut read, &id!("s-1")).await.unwrap(), 2);
    assert_eq!(policy_sets::highest_version(&mut read, &id!("s-2")).await.unwrap(), 0);
    assert_eq!(policy_sets::find_active(&mut read).await.unwrap(), None);
    drop(snapshot);

    for version in ["s-1-v1", "s-1-v2"] {
        change!(fresh.store, version, |tx, version| {
            policy_sets::activate(tx, &id!("s-1"), &id!(version)).await?;
            policy_sets::note_announcement(tx, &id!(format!("message-{version}")), &id!("s-1"), &id!(version)).await
        })
        .unwrap();
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let active = policy_sets::find_active(&mut read).await.unwrap().unwrap();
    assert_eq!((active.version_id, active.activated_at), (id!("s-1-v2"), start()));
    assert_eq!(active.manifest_sha256, versions[1].manifest_sha256);
    let set = policy_sets::lookup(&mut read, &id!("s-1")).await.unwrap().unwrap();
    assert_eq!(set.active_version_id, Some(id!("s-1-v2")));
    for version in ["s-1-v1", "s-1-v2"] {
        let message = policy_sets::find_announcement(&mut read, &id!("s-1"), &id!(version)).await.unwrap().unwrap();
        assert_eq!(message, id!(format!("message-{version}")));
        let announced = policy_sets::find_announced(&mut read, &message).await.unwrap();
        assert_eq!(announced, Some((id!("s-1"), id!(version))));
    }
    assert_eq!(policy_sets::find_announcement(&mut read, &id!("s-2"), &id!("s-1-v1")).await.unwrap(), None);
    assert_eq!(policy_sets::find_announced(&mut read, &id!("none")).await.unwrap(), None);
    assert_eq!(policy_sets::list_active(&mut snapshot.deployment()).await.unwrap(), [(zone("z-1"), id!("s-1-v2"))]);
    drop(snapshot);

    change!(fresh.store, (), |tx, _unused| {
        policy_sets::activate(tx, &id!("s-1"), &id!("s-1-v1")).await?;
        policy_sets::touch(tx, &id!("s-1"), "token:2").await?;
        assert!(!policy_sets::deactivate(tx, &id!("s-2")).await?, "another set decides");
        assert!(policy_sets::deactivate(tx, &id!("s-1")).await?);
        assert!(policy_sets::archive(tx, &id!("s-1"), "token:3").await?);
        assert!(!policy_sets::archive(tx, &id!("s-1"), "token:4").await?);
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    assert_eq!(policy_sets::find_active(&mut read).await.unwrap(), None);
    let set = policy_sets::lookup(&mut read, &id!("s-1")).await.unwrap().unwrap();
    assert_eq!((set.archived_at, set.attribution.updated_by.as_deref()), (Some(start()), Some("token:3")));
    same(&policy_sets::list(&mut read, &Page::first(10)).await.unwrap(), &vec![(rows[1].clone(), None)]);
}

pub async fn admin_tokens_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::admin_token("t-1", true), samples::admin_token("t-2", false)];
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment(rows.clone(), |tx, rows| {
            Box::pin(async move {
                admin_tokens::add(tx, &rows[0], "digest-1").await?;
                admin_tokens::add(tx, &rows[1], "digest-2").await
            })
        })
        .await;
    added.unwrap();
    let refused: Result<(), StoreError> = fresh
        .store
        .commit_deployment(samples::admin_token("t-3", false), |tx, row| {
            Box::pin(async move { admin_tokens::add(tx, row, "digest-1").await })
        })
        .await;
    assert!(refused.unwrap_err().is_conflict_on("admin_tokens.token_digest"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut all = snapshot.deployment();
    same(&admin_tokens::find_by_digest(&mut all, "digest-1").await.unwrap().unwrap(), &rows[0]);
    same(&admin_tokens::find_by_digest(&mut all, "digest-2").await.unwrap().unwrap(), &rows[1]);
    assert!(admin_tokens::find_by_digest(&mut all, "digest").await.unwrap().is_none());
    drop(snapshot);
    let revoked: Result<usize, StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                assert_eq!(admin_tokens::revoke_predecessors(tx, "someone else", "digest-2").await?, 0);
                admin_tokens::revoke_predecessors(tx, "env-bootstrap", "digest-2").await
            })
        })
        .await;
    assert_eq!(revoked.unwrap(), 1);
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut all = snapshot.deployment();
    let revoked_at = admin_tokens::find_by_digest(&mut all, "digest-1").await.unwrap().unwrap().revoked_at;
    assert_eq!(revoked_at, Some(start()));
    assert_eq!(admin_tokens::find_by_digest(&mut all, "digest-2").await.unwrap().unwrap().revoked_at, None);
}

pub async fn keys_and_secrets_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows = [samples::signing_key("k-1", 1), samples::signing_key("k-2", 2)];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            signing_keys::add(tx, row).await?;
        }
        sealed_secrets::put(tx, "a", &[0, 255, 39]).await?;
        sealed_secrets::put(tx, "b", &[]).await?;
        sealed_secrets::put(tx, "b", &[1]).await?;
        sealed_secrets::put(tx, "c", &[2]).await?;
        sealed_secrets::remove(tx, "c").await
    })
    .unwrap();
    let twice = signing_keys::SigningKeyRow { kid: id!("k-3"), created_at: at(3), ..rows[1].clone() };
    let refused = change!(fresh.store, twice, |tx, row| signing_keys::add(tx, row).await);
    assert!(refused.unwrap_err().is_conflict_on("signing_keys.version"));
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&signing_keys::lookup(&mut read, &row.kid).await.unwrap().unwrap(), row);
    }
    let [first, second] = rows;
    same(&signing_keys::list(&mut read).await.unwrap(), &vec![second, first]);
    for (reference, envelope) in [("a", Some(vec![0, 255, 39])), ("b", Some(vec![1])), ("c", None)] {
        assert_eq!(sealed_secrets::lookup(&mut read, reference).await.unwrap(), envelope, "{reference}");
    }
}

pub async fn the_latest_key_whose_time_has_come_signs(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    let signs = async || {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        signing_keys::find_signing_id(&mut snapshot.zone(&zone("z-1"))).await.unwrap()
    };
    assert_eq!(signs().await, None);
    let from =
        |kid, version, signs_from| signing_keys::SigningKeyRow { signs_from, ..samples::signing_key(kid, version) };
    let later = start().plus(Duration::from_secs(600));
    let rows = [from("k-1", 1, Timestamp::EPOCH), from("k-2", 2, later), from("k-3", 3, later)];
    change!(fresh.store, rows, |tx, rows| {
        for row in rows {
            signing_keys::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    clock.advance(599);
    assert_eq!(signs().await, Some(id!("k-1")));
    clock.advance(1);
    assert_eq!(signs().await, Some(id!("k-3")), "k-2 was overtaken before its time had come");
    let purged = change!(fresh.store, 3, |tx, version| signing_keys::purge_below(tx, *version).await);
    assert_eq!(purged.unwrap(), 2);
    assert_eq!(signs().await, Some(id!("k-3")));
}

pub async fn withdrawn_keys_are_gone_and_remembered_and_the_zone_has_moved(make: Make) {
    let clock = Arc::new(ManualClock::at(start()));
    let fresh = make(clock.clone()).await;
    for name in ["z-1", "z-2"] {
        let rows = [samples::signing_key("k-1", 1), samples::signing_key("k-2", 2)];
        let added: Result<(), StoreError> = fresh
            .store
            .commit(&zone(name), rows, |tx, rows| {
                Box::pin(async move {
                    for row in rows {
                        signing_keys::add(tx, row).await?;
                    }
                    Ok(())
                })
            })
            .await;
        added.unwrap();
    }
    let (before, _) = fresh.store.decision_snapshot(&zone("z-1"), &Named::default()).await.unwrap();
    let withdrawn = change!(fresh.store, (), |tx, _unused| signing_keys::withdraw_all(tx).await).unwrap();
    assert_eq!(withdrawn, [id!("k-2"), id!("k-1")]);
    let moved = change!(fresh.store, before, |tx, before| tx.is_at(*before).await).unwrap();
    assert!(!moved, "what was decided with the old key could still be committed");
    assert!(change!(fresh.store, (), |tx, _unused| signing_keys::withdraw_all(tx).await).unwrap().is_empty());
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for (name, left) in [("z-1", 0), ("z-2", 2)] {
        let mut read = snapshot.zone(&zone(name));
        assert_eq!(signing_keys::list(&mut read).await.unwrap().len(), left, "{name}");
        for (kid, there) in [("k-1", left == 2), ("k-3", false)] {
            assert_eq!(signing_keys::exists(&mut read, kid).await.unwrap(), there, "{name} {kid}");
        }
    }
    let mut all = snapshot.deployment();
    let expected = ["k-1", "k-2"].map(|kid| (zone("z-1"), id!(kid)));
    assert_eq!(signing_keys::list_withdrawn(&mut all, start()).await.unwrap(), expected);
    assert!(signing_keys::list_withdrawn(&mut all, at(1)).await.unwrap().is_empty());
    let mut anchors = revocations::list(&mut all, start()).await.unwrap();
    anchors.sort_by(|left, right| left.id.cmp(&right.id));
    let anchor = |kid: &str| Anchor { zone: zone("z-1"), kind: AnchorKind::Key, id: kid.to_owned() };
    assert_eq!(anchors, [anchor("k-1"), anchor("k-2")]);
    drop(snapshot);
    // A week later nobody can have it in memory.
    clock.advance(8 * 24 * 60 * 60);
    change!(fresh.store, (), |tx, _unused| signing_keys::withdraw_all(tx).await).unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    assert!(signing_keys::list_withdrawn(&mut snapshot.deployment(), start()).await.unwrap().is_empty());
}

pub async fn the_limit_of_mints_comes_back_as_set(make: Make) {
    let fresh = fresh(make).await;
    let found = async || {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        mint_limit::find(&mut snapshot.deployment()).await
    };
    assert_eq!(found().await.unwrap(), None);
    for per_minute in [7, u32::MAX, 1] {
        let set: Result<_, StoreError> = fresh
            .store
            .commit_deployment(per_minute, |tx, limit| {
                Box::pin(async move { mint_limit::set(tx, *limit, "admin:t-1").await })
            })
            .await;
        let expected = MintLimit { per_minute, updated_by: "admin:t-1".to_owned(), updated_at: start() };
        assert_eq!((set.unwrap(), found().await.unwrap()), (expected.clone(), Some(expected)));
    }
}
