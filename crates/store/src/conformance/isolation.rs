//! A zone is a type: what belongs to one is absent in every other, under whichever id it is asked for.

use caracal_authority::ApplicationId;
use caracal_authority::approval::Binding;
use caracal_authority::session::SessionStatus;

use super::fixtures::{at, fresh, id, same, zone};
use super::repositories::samples;
use super::{Fresh, Make};
use crate::approvals::ApprovalFilter;
use crate::error::StoreError;
use crate::evidence::EvidenceFilter;
use crate::grants::GrantFilter;
use crate::invocations::InvocationFilter;
use crate::page::Page;
use crate::receipts::KeyScope;
use crate::resources::ResourceFilter;
use crate::sessions::Among;
use crate::{
    admin_evidence, agent_services, applications, approvals, delegation_reads, delegations, evidence, grants,
    invocations, notification_deliveries, notification_sinks, outbox, policies, policy_sets, providers, receipts,
    records, resources, sealed_secrets, sessions, signing_keys, subject_issuers, used_mandates, workloads, zones,
};

/// Zone `z-1` has one of everything, `z-2` exists and has nothing.
async fn one_zone_has_it_all(make: Make) -> Fresh {
    let fresh = fresh(make).await;
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                zones::add(tx, &samples::a_zone("z-1", true)).await?;
                zones::add(tx, &samples::a_zone("z-2", true)).await?;
                let zone = &mut tx.zone_write(&zone("z-1"));
                zones::give_to(zone, "account-1").await?;
                applications::add(zone, &samples::application("app-1", false)).await?;
                workloads::add(zone, &samples::workload("w-1", true)).await?;
                providers::add(zone, &samples::provider("prov-1", true)).await?;
                subject_issuers::add(zone, &samples::subject_issuer("i-1", true)).await?;
                resources::add(zone, &samples::resource("r-1", true)).await?;
                policies::add(zone, &samples::policy("p-1", true)).await?;
                policies::add_version(zone, &samples::policy_version("p-1", 1)).await?;
                policy_sets::add(zone, &samples::policy_set("s-1", true)).await?;
                policy_sets::add_version(zone, &samples::policy_set_version("s-1", 1)).await?;
                policy_sets::activate(zone, &id!("s-1"), &id!("s-1-v1")).await?;
                policy_sets::note_announcement(zone, &id!("m-1"), &id!("s-1"), &id!("s-1-v1")).await?;
                grants::add(zone, &samples::grant("g-1", true)).await?;
                signing_keys::add(zone, &samples::signing_key("k-1", 1)).await?;
                sealed_secrets::put(zone, "secret", &[1]).await?;
                sessions::add(zone, &samples::session("s-1", true)).await?;
                delegations::add(zone, &samples::edge("e-1", true)).await?;
                delegations::raise_epoch(zone).await?;
                agent_services::add(zone, &samples::agent_service("v-1", true)).await?;
                invocations::add(zone, &samples::invocation("n-1", true)).await?;
                records::add(zone, &samples::record("rec-1", true)).await?;
                receipts::add(zone, &samples::receipt("key", false)).await?;
                used_mandates::consume(zone, "jti-1", "r-1", at(60)).await?;
                approvals::add(zone, &samples::approval("ap-1", true)).await?;
                outbox::add(zone, id!("m-1"), "topic", "key", Vec::new()).await?;
                notification_sinks::add(zone, &samples::sink("n-1", true)).await?;
                notification_deliveries::add(zone, &samples::delivery("d-1", "n-1", 1)).await?;
                evidence::append(zone, &samples::evidence(1)).await?;
                admin_evidence::append(zone, &samples::admin_evidence("z-1", 1)).await
            })
        })
        .await;
    added.unwrap();
    fresh
}

/// Says of each kind whether the zone has any of it, by every way there is to ask.
async fn holdings(fresh: &Fresh, name: &str) -> Vec<(&'static str, bool)> {
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone(name));
    let (page, keys) = (Page::first(10), ["key".to_owned()]);
    let app: ApplicationId = id!("app-1");
    let caller = KeyScope::Application(app.clone());
    vec![
        ("owner", zones::find_owner(read).await.unwrap().is_some()),
        ("application", applications::lookup(read, &app).await.unwrap().is_some()),
        (
            "application by name",
            applications::find_managed_by_name(read, &samples::application("app-1", false).name, None)
                .await
                .unwrap()
                .is_some(),
        ),
        ("applications", !applications::list(read, false, &page).await.unwrap().is_empty()),
        ("workload", workloads::lookup(read, &id!("w-1")).await.unwrap().is_some()),
        (
            "workload by name",
            workloads::find_by_name(read, &samples::workload("w-1", true).name, None).await.unwrap().is_some(),
        ),
        ("workloads", !workloads::list(read, &page).await.unwrap().is_empty()),
        ("provider", providers::lookup(read, &id!("prov-1")).await.unwrap().is_some()),
        ("providers", !providers::list(read, false, &page).await.unwrap().is_empty()),
        ("provider names", !providers::list_identifiers(read, "provider://prov").await.unwrap().is_empty()),
        ("subject issuer", subject_issuers::lookup(read, &id!("i-1")).await.unwrap().is_some()),
        (
            "subject issuer by issuer",
            subject_issuers::find_by_issuer(read, &samples::subject_issuer("i-1", true).issuer)
                .await
                .unwrap()
                .is_some(),
        ),
        ("subject issuers", !subject_issuers::list(read, &page).await.unwrap().is_empty()),
        ("subject issuer count", subject_issuers::count_live(read).await.unwrap() > 0),
        ("resource", resources::lookup(read, &id!("r-1")).await.unwrap().is_some()),
        ("resource by identifier", resources::find_by_name(read, "resource://r-1").await.unwrap().is_some()),
        ("resource by id", resources::find_by_name(read, "r-1").await.unwrap().is_some()),
        ("resources", !resources::list(read, &ResourceFilter::default(), &page).await.unwrap().is_empty()),
        ("resource count", resources::count_live(read).await.unwrap() > 0),
        ("resource names", !resources::list_identifiers(read, "resource://r").await.unwrap().is_empty()),
        ("policy", policies::lookup(read, &id!("p-1")).await.unwrap().is_some()),
        ("policy version", policies::lookup_version(read, &id!("p-1-v1")).await.unwrap().is_some()),
        ("policies", !policies::list(read, &page).await.unwrap().is_empty()),
        ("policy versions", !policies::list_versions(read, &id!("p-1")).await.unwrap().is_empty()),
        ("highest policy version", policies::highest_version(read, &id!("p-1")).await.unwrap() > 0),
        ("set", policy_sets::lookup(read, &id!("s-1")).await.unwrap().is_some()),
        ("set version", policy_sets::lookup_version(read, &id!("s-1-v1")).await.unwrap().is_some()),
        ("sets", !policy_sets::list(read, &page).await.unwrap().is_empty()),
        ("set versions", !policy_sets::list_versions(read, &id!("s-1"), &page).await.unwrap().is_empty()),
        ("highest set version", policy_sets::highest_version(read, &id!("s-1")).await.unwrap() > 0),
        ("active set", policy_sets::find_active(read).await.unwrap().is_some()),
        ("announcement", {
            let (set, version) = (id!("s-1"), id!("s-1-v1"));
            policy_sets::find_announcement(read, &set, &version).await.unwrap().is_some()
        }),
        ("announced", policy_sets::find_announced(read, &id!("m-1")).await.unwrap().is_some()),
        ("grant", grants::lookup(read, &id!("g-1")).await.unwrap().is_some()),
        ("grants", !grants::list(read, &GrantFilter::default(), &page).await.unwrap().is_empty()),
        ("user's records", {
            let subject = samples::record("rec-1", true).subject_id;
            !records::list_active_of_user(read, &subject, at(0), 9).await.unwrap().is_empty()
        }),
        ("signing key", signing_keys::lookup(read, &id!("k-1")).await.unwrap().is_some()),
        ("signing keys", !signing_keys::list(read).await.unwrap().is_empty()),
        ("signing key of that name", signing_keys::exists(read, "k-1").await.unwrap()),
        ("signing key of now", signing_keys::find_signing_id(read).await.unwrap().is_some()),
        ("secret", sealed_secrets::lookup(read, "secret").await.unwrap().is_some()),
        ("session", sessions::lookup(read, &id!("s-1")).await.unwrap().is_some()),
        ("capacity", sessions::count_holding_capacity(read, Among::Zone, 9).await.unwrap() > 0),
        ("capacity of app", sessions::count_holding_capacity(read, Among::Application(&app), 9).await.unwrap() > 0),
        ("reached capacity", sessions::holding_reaches(read, Among::Zone, 1).await.unwrap()),
        ("reached capacity of app", sessions::holding_reaches(read, Among::Application(&app), 1).await.unwrap()),
        ("children", !sessions::list_running_children(read, &id!("parent")).await.unwrap().is_empty()),
        ("sessions listed", !sessions::list(read, &Default::default(), None, 9).await.unwrap().is_empty()),
        ("anchor", sessions::is_anchor(read, &id!("rec-1")).await.unwrap()),
        ("edge", delegations::lookup(read, &id!("e-1")).await.unwrap().is_some()),
        ("lineage", !delegations::lineage(read, &id!("e-1"), 9).await.unwrap().is_empty()),
        ("edges from", !delegations::list_active_from(read, &id!("s-1")).await.unwrap().is_empty()),
        ("edges to", !delegations::list_active_to(read, &id!("s-2")).await.unwrap().is_empty()),
        ("edges under", !delegations::list_active_derived(read, &id!("parent")).await.unwrap().is_empty()),
        ("all edges to", !delegations::list_to(read, &id!("s-2"), None, 9).await.unwrap().is_empty()),
        ("epoch", delegations::epoch(read).await.unwrap() > 0),
        ("all edges from", !delegation_reads::list_from(read, &id!("s-1"), None, 9).await.unwrap().is_empty()),
        ("live edges", !delegation_reads::list_live(read, None, None, 9).await.unwrap().is_empty()),
        ("edges below", !delegation_reads::list_live_downstream(read, &id!("e-1")).await.unwrap().is_empty()),
        ("service", agent_services::lookup(read, &id!("v-1")).await.unwrap().is_some()),
        ("service by endpoint", {
            let endpoint = samples::agent_service("v-1", true).endpoint_url;
            agent_services::find_by_endpoint(read, &app, &endpoint).await.unwrap().is_some()
        }),
        ("services", !agent_services::list(read, None, None, 9).await.unwrap().is_empty()),
        ("invocation", invocations::lookup(read, &id!("n-1")).await.unwrap().is_some()),
        ("invocations", { !invocations::list(read, &InvocationFilter::default(), None, 9).await.unwrap().is_empty() }),
        ("record", records::lookup(read, &id!("rec-1")).await.unwrap().is_some()),
        ("receipt", receipts::find_live(read, "session.start.v2", &caller, &keys).await.unwrap().is_some()),
        ("receipts", receipts::count_live_explicit(read, "session.start.v2", &caller, 9).await.unwrap() > 0),
        ("used mandate", used_mandates::is_used(read, "jti-1").await.unwrap()),
        ("approval", approvals::lookup(read, &id!("ap-1")).await.unwrap().is_some()),
        ("live approval", {
            let row = samples::approval("ap-1", true);
            let live = approvals::find_live(read, &row.principal_id, row.record_id.as_ref(), &row.binding);
            live.await.unwrap().is_some()
        }),
        ("approvals", !approvals::list(read, &ApprovalFilter::default(), &page).await.unwrap().is_empty()),
        ("approval counts", !approvals::count_by_state(read).await.unwrap().is_empty()),
        ("sink", notification_sinks::lookup(read, &id!("n-1")).await.unwrap().is_some()),
        ("sinks", !notification_sinks::list(read, &page).await.unwrap().is_empty()),
        ("sink count", notification_sinks::count(read).await.unwrap() > 0),
        ("sinks at a place", !notification_sinks::list_at(read, 7).await.unwrap().is_empty()),
        ("deliveries", !notification_deliveries::list(read, &id!("n-1"), &page).await.unwrap().is_empty()),
        ("open deliveries", notification_deliveries::count_open(read, &id!("n-1"), 9).await.unwrap() > 0),
        ("message", outbox::lookup(read, &id!("m-1")).await.unwrap().is_some()),
        ("newest message", outbox::find_newest(read, "topic", "").await.unwrap().is_some()),
        ("head", evidence::head(read).await.unwrap().is_some()),
        ("chain", !evidence::list_chain(read, 0, 9).await.unwrap().is_empty()),
        ("request", !evidence::find_by_request(read, "req-1").await.unwrap().is_empty()),
        ("event of request", evidence::has_of_request(read, "req-1", "replay_detected").await.unwrap()),
        ("search", !evidence::search(read, &EvidenceFilter::default(), 0, 9).await.unwrap().is_empty()),
        ("events", !evidence::list(read, &EvidenceFilter::default(), &page).await.unwrap().is_empty()),
        ("management head", admin_evidence::head(read).await.unwrap().is_some()),
    ]
}

/// Foreign ids look like absent ids.
pub async fn another_zones_ids_are_absent(make: Make) {
    let fresh = one_zone_has_it_all(make).await;
    for (zone, has) in [("z-1", true), ("z-2", false), ("z-3", false)] {
        for (what, found) in holdings(&fresh, zone).await {
            assert_eq!(found, has, "{zone}: {what}");
        }
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let other = &mut snapshot.zone(&zone("z-2"));
    assert!(policies::version_is_elsewhere(other, &id!("p-1-v1")).await.unwrap());
    let own = &mut snapshot.zone(&zone("z-1"));
    assert!(!policies::version_is_elsewhere(own, &id!("p-1-v1")).await.unwrap());
}

/// Changes with a foreign id change nothing, here or there.
pub async fn another_zones_rows_cannot_be_changed(make: Make) {
    let fresh = one_zone_has_it_all(make).await;
    let done: Result<(), StoreError> = fresh
        .store
        .commit(&zone("z-2"), (), |tx, ()| {
            Box::pin(async move {
                let renamed =
                    applications::Application { name: "renamed".to_owned(), ..samples::application("app-1", false) };
                applications::update(tx, &renamed).await?;
                let renamed = workloads::Workload { name: "renamed".to_owned(), ..samples::workload("w-1", true) };
                assert!(!workloads::update(tx, &renamed).await?);
                assert!(!workloads::remove(tx, &id!("w-1")).await?);
                providers::update(
                    tx,
                    &providers::Provider { name: "renamed".to_owned(), ..samples::provider("prov-1", true) },
                )
                .await?;
                resources::update(
                    tx,
                    &resources::Resource { name: "renamed".to_owned(), ..samples::resource("r-1", true) },
                )
                .await?;
                let moved = subject_issuers::SubjectIssuer {
                    jwks_url: "https://elsewhere.example".to_owned(),
                    ..samples::subject_issuer("i-1", true)
                };
                assert!(!subject_issuers::update(tx, &moved).await?);
                assert!(!subject_issuers::archive(tx, &id!("i-1"), "x").await?);
                assert!(!policies::archive(tx, &id!("p-1"), "x").await?);
                assert!(!policy_sets::archive(tx, &id!("s-1"), "x").await?);
                assert!(!policy_sets::deactivate(tx, &id!("s-1")).await?);
                policy_sets::touch(tx, &id!("s-1"), "x").await?;
                assert!(!grants::revoke(tx, &id!("g-1"), "x").await?);
                records::revoke_each(tx, &[id!("rec-1")], "x").await?;
                sealed_secrets::remove(tx, "secret").await?;
                assert_eq!(signing_keys::purge_below(tx, 99).await?, 0);
                assert!(signing_keys::withdraw_all(tx).await?.is_empty());
                assert!(!sessions::end(tx, &id!("s-1"), SessionStatus::Terminated, "x").await?);
                assert!(!sessions::suspend(tx, &id!("s-1")).await?);
                assert!(!delegations::revoke(tx, &id!("e-1")).await?);
                assert!(!agent_services::update(tx, &samples::agent_service("v-1", false)).await?);
                assert!(!invocations::update(tx, &samples::invocation("n-1", false)).await?);
                assert!(records::revoke_with_descendants(tx, &id!("rec-1"), "x").await?.is_empty());
                assert!(used_mandates::consume(tx, "jti-1", "r-1", at(60)).await?);
                let verdict = approvals::Verdict {
                    approved: true,
                    approver: "x".to_owned(),
                    approver_record: None,
                    reason: None,
                    message: id!("m-9"),
                };
                assert!(!approvals::decide(tx, &id!("ap-1"), &verdict).await?);
                assert!(!notification_sinks::update(tx, &samples::sink("n-1", false)).await?);
                assert!(!notification_sinks::replace_secret(tx, &id!("n-1"), &[9]).await?);
                assert!(!notification_sinks::remove(tx, &id!("n-1")).await?);
                assert!(notification_sinks::claim(tx, &id!("n-1"), at(4), at(30)).await?.is_none());
                let binding = Binding::parse(&samples::approval("ap-1", true).binding).unwrap();
                assert!(!approvals::consume(tx, &id!("ap-1"), &binding, None).await?);
                Ok(())
            })
        })
        .await;
    done.unwrap();
    for (what, found) in holdings(&fresh, "z-1").await {
        assert!(found, "{what}");
    }
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let read = &mut snapshot.zone(&zone("z-1"));
    same(&applications::lookup(read, &id!("app-1")).await.unwrap().unwrap(), &samples::application("app-1", false));
    same(&workloads::lookup(read, &id!("w-1")).await.unwrap().unwrap(), &samples::workload("w-1", true));
    same(&providers::lookup(read, &id!("prov-1")).await.unwrap().unwrap(), &samples::provider("prov-1", true));
    same(&subject_issuers::lookup(read, &id!("i-1")).await.unwrap().unwrap(), &samples::subject_issuer("i-1", true));
    same(&resources::lookup(read, &id!("r-1")).await.unwrap().unwrap(), &samples::resource("r-1", true));
    same(&records::lookup(read, &id!("rec-1")).await.unwrap().unwrap(), &samples::record("rec-1", true));
    same(&sessions::lookup(read, &id!("s-1")).await.unwrap().unwrap(), &samples::session("s-1", true));
    let service = agent_services::lookup(read, &id!("v-1")).await.unwrap().unwrap();
    same(&service, &samples::agent_service("v-1", true));
    let invocation = invocations::lookup(read, &id!("n-1")).await.unwrap().unwrap();
    same(&invocation, &samples::invocation("n-1", true));
    let set = policy_sets::lookup(read, &id!("s-1")).await.unwrap().unwrap();
    assert_eq!(set.attribution.updated_by, None);
}
