//! Keyset pages (difference D20).

use std::collections::BTreeSet;

use caracal_authority::Timestamp;

use super::Make;
use super::fixtures::{at, crowd, fresh, id, looked_at, start, zone};
use super::repositories::samples;
use crate::error::StoreError;
use crate::evidence::{EvidenceFilter, EvidenceRow};
use crate::oversight::{self, RecordFilter, SessionFilter};
use crate::page::{Page, Position};
use crate::resources::ResourceFilter;
use crate::sqlite::work;
use crate::subjects::{self, SubjectFilter};
use crate::value::{Bind, params};
use crate::zones::ZoneFilter;
use crate::{
    applications, approvals, evidence, policies, policy_sets, providers, resources, subject_issuers, workloads, zones,
};

const ROWS: usize = 600;
/// Not a divisor of [`ROWS`], so that the last page is a short one.
const LIMIT: usize = 37;

/// Reads one listing from the first page to the last and demands each row once, newest id first. On the embedded engine, which
/// counts what it does and plans without looking at how much there is, no page may cost much more than the first.
macro_rules! check {
    ($what:literal, |$page:ident| $list:expr, |$row:ident| $position:expr) => {{
        let (mut seen, mut after) = (Vec::new(), None::<Position>);
        let mut first_cost = None;
        loop {
            let $page = Page { limit: LIMIT, after: after.take() };
            let before = work::done();
            let rows = $list;
            let cost = work::done() - before;
            let first_cost = *first_cost.get_or_insert(cost);
            assert!(cost <= first_cost + first_cost / 4, "{}: {cost} instead of {first_cost}", $what);
            assert!(rows.len() <= LIMIT, "{}: {} rows", $what, rows.len());
            let positions = rows.iter().map(|$row| {
                let (at, id) = $position;
                Position { at, id: id.to_owned() }
            });
            seen.extend(positions);
            if rows.len() < LIMIT {
                break;
            }
            after = seen.last().cloned();
        }
        assert_eq!(seen.len(), ROWS, "{}", $what);
        assert!(seen.windows(2).all(|pair| pair[0].id > pair[1].id), "{}: out of order", $what);
        assert_eq!(seen.into_iter().map(|position| position.id).collect::<BTreeSet<_>>().len(), ROWS, "{}", $what);
    }};
}

/// 600 rows of every kind that is listed, all made in one microsecond.
pub async fn rows_of_one_instant_are_each_on_one_page(make: Make) {
    let fresh = fresh(make).await;
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                for number in 0..ROWS {
                    let name = format!("row-{number:04}");
                    zones::add(tx, &samples::a_zone(&name, true)).await?;
                    let mut zone = tx.zone_write(&zone("z-1"));
                    applications::add(&mut zone, &samples::application(&name, true)).await?;
                    workloads::add(&mut zone, &samples::workload(&name, true)).await?;
                    providers::add(&mut zone, &samples::provider(&name, true)).await?;
                    subject_issuers::add(&mut zone, &samples::subject_issuer(&name, true)).await?;
                    resources::add(&mut zone, &samples::resource(&name, true)).await?;
                    policies::add(&mut zone, &samples::policy(&name, true)).await?;
                    policy_sets::add(&mut zone, &samples::policy_set(&name, true)).await?;
                    let binding = format!("{number:064x}");
                    let hold = approvals::ApprovalRow { binding, ..samples::approval(&name, true) };
                    approvals::add(&mut zone, &hold).await?;
                    let number = i64::try_from(number).unwrap() + 1;
                    let version = policy_sets::PolicySetVersion {
                        id: id!(name),
                        version: number,
                        ..samples::policy_set_version("s-1", 1)
                    };
                    policy_sets::add_version(&mut zone, &version).await?;
                    let event = EvidenceRow { id: name, occurred_at: at(1).as_micros(), ..samples::evidence(number) };
                    evidence::append(&mut zone, &event).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let z = zone("z-1");
    let everywhere = EvidenceFilter { label: Some("all".to_owned()), ..EvidenceFilter::default() };
    let visible = ZoneFilter { hidden_name_prefix: "x".to_owned(), hidden_slug_prefix: "x".to_owned(), owner: None };
    check!("zones", |page| zones::list(&mut snapshot.deployment(), &page).await.unwrap(), |row| (
        row.attribution.created_at,
        row.id.as_str()
    ));
    check!(
        "visible zones",
        |page| zones::list_visible(&mut snapshot.deployment(), &visible, &page).await.unwrap(),
        |row| (row.attribution.created_at, row.id.as_str())
    );
    check!("applications", |page| applications::list(&mut snapshot.zone(&z), false, &page).await.unwrap(), |row| (
        row.attribution.created_at,
        row.id.as_str()
    ));
    check!("workloads", |page| workloads::list(&mut snapshot.zone(&z), &page).await.unwrap(), |row| (
        row.attribution.created_at,
        row.id.as_str()
    ));
    check!("providers", |page| providers::list(&mut snapshot.zone(&z), false, &page).await.unwrap(), |row| (
        row.attribution.created_at,
        row.id.as_str()
    ));
    check!("subject issuers", |page| subject_issuers::list(&mut snapshot.zone(&z), &page).await.unwrap(), |row| (
        row.attribution.created_at,
        row.id.as_str()
    ));
    check!(
        "resources",
        |page| resources::list(&mut snapshot.zone(&z), &ResourceFilter::default(), &page).await.unwrap(),
        |row| (row.attribution.created_at, row.id.as_str())
    );
    check!("policies", |page| policies::list(&mut snapshot.zone(&z), &page).await.unwrap(), |row| (
        row.0.attribution.created_at,
        row.0.id.as_str()
    ));
    check!("policy sets", |page| policy_sets::list(&mut snapshot.zone(&z), &page).await.unwrap(), |row| (
        row.0.attribution.created_at,
        row.0.id.as_str()
    ));
    check!(
        "set versions",
        |page| policy_sets::list_versions(&mut snapshot.zone(&z), &id!("s-1"), &page).await.unwrap(),
        |row| (row.created_at, row.id.as_str())
    );
    check!(
        "approvals",
        |page| approvals::list(&mut snapshot.zone(&z), &approvals::ApprovalFilter::default(), &page).await.unwrap(),
        |row| (row.created_at, row.id.as_str())
    );
    check!("evidence", |page| evidence::list(&mut snapshot.zone(&z), &everywhere, &page).await.unwrap(), |row| (
        at(1),
        row.id.as_str()
    ));
}

/// So many applications, and as many that are archived and newer.
const MANY: i64 = 10_000;

/// The last of ten thousand applications are as quickly found as the first, however many others are archived.
pub async fn a_page_costs_the_same_wherever_it_lies(make: Make) {
    let fresh = fresh(make).await;
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| {
            Box::pin(async move {
                zones::add(tx, &samples::a_zone("z-1", true)).await?;
                let sql = "INSERT INTO applications (zone_id, id, name, registration_method, traits, created_via_operator,
                             created_at, archived_at, name_key)
                           WITH RECURSIVE n (i) AS
                             (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < CAST(?1 AS BIGINT))
                           SELECT 'z-1', 'app-' || i, 'a', 'managed', '[]', 0, CAST(?2 AS BIGINT) + i,
                             CASE WHEN i > CAST(?1 AS BIGINT) / 2 THEN CAST(?2 AS BIGINT) + i ELSE NULL END, 'a' FROM n";
                let mut zone = tx.zone_write(&zone("z-1"));
                zone.tx.append(sql, params![2 * MANY, start()]).await?;
                if !zone.tx.is_embedded() {
                    // What its upkeep does in its own time, and the runtime role may not.
                    for sql in ["RESET ROLE", "ANALYZE applications", "SET ROLE caracal_runtime"] {
                        zone.tx.append(sql, &[]).await?;
                    }
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    for archived in [false, true] {
        let newest = if archived { 2 * MANY } else { MANY };
        let behind = |position: i64| Position {
            at: Timestamp::from_micros(start().as_micros() + position),
            id: format!("app-{position}"),
        };
        let mut costs = Vec::new();
        for after in [None, Some(behind(newest - MANY / 2)), Some(behind(newest - MANY + 101))] {
            let page = Page { limit: 100, after };
            let before = looked_at(snapshot.deployment().tx()).await;
            let found = applications::list(&mut snapshot.zone(&zone("z-1")), archived, &page).await.unwrap();
            costs.push(looked_at(snapshot.deployment().tx()).await - before);
            assert_eq!((found.len(), found[0].archived_at.is_some()), (100, archived));
        }
        let (least, most) = (*costs.iter().min().unwrap(), *costs.iter().max().unwrap());
        assert!(least > 0 && most <= least + least / 4, "archived {archived}: {costs:?}");
    }
}

/// Who asks for the little that is one subject's, or one session's, does not pay for the rest of the zone.
pub async fn a_filtered_list_costs_what_it_finds(make: Make) {
    let fresh = fresh(make).await;
    crowd(&fresh.store, 0, 3_000).await;
    let added: Result<(), StoreError> = fresh
        .store
        .commit(&zone("z-1"), (), |tx, ()| {
            Box::pin(async move {
                // Older than all others, where a walk through the list comes to it last.
                let of_one = "UPDATE authority_records SET subject_id = 'one' WHERE zone_id = 'z-1' AND id = 'r-1'";
                tx.tx.append(of_one, &[]).await?;
                let child = "UPDATE agent_sessions SET parent_id = 's-7', application_id = 'app-2'
                             WHERE zone_id = 'z-1' AND id = 's-1'";
                tx.tx.append(child, &[]).await?;
                Ok(())
            })
        })
        .await;
    added.unwrap();
    let (of_zone, page) = (zone("z-1"), Page::first(10));
    let text = |text: &str| Some(text.to_owned());
    let filter = SessionFilter { parent_id: text("s-7"), ..SessionFilter::default() };
    let mut costs = Vec::new();
    // Once to be prepared, then counted.
    for is_counted in [false, true] {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        let before = looked_at(snapshot.deployment().tx()).await;
        let found = oversight::list_sessions(&mut snapshot.zone(&of_zone), &filter, &page).await.unwrap();
        assert_eq!(found.iter().map(|row| row.session.id.as_str()).collect::<Vec<_>>(), ["s-1"]);
        costs.extend(is_counted.then_some(looked_at(snapshot.deployment().tx()).await - before));
        let before = looked_at(snapshot.deployment().tx()).await;
        let filter = RecordFilter { subject_id: text("one"), ..RecordFilter::default() };
        let found = oversight::list_records(&mut snapshot.zone(&of_zone), &filter, &page).await.unwrap();
        assert_eq!(found.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["r-1"]);
        costs.extend(is_counted.then_some(looked_at(snapshot.deployment().tx()).await - before));
        let before = looked_at(snapshot.deployment().tx()).await;
        let filter = SubjectFilter { id: text("one"), ..SubjectFilter::default() };
        let found = subjects::list(&mut snapshot.zone(&of_zone), &filter, &page).await.unwrap();
        assert_eq!(found.iter().map(|row| (row.id.as_str(), row.total)).collect::<Vec<_>>(), [("one", 1)]);
        costs.extend(is_counted.then_some(looked_at(snapshot.deployment().tx()).await - before));
    }
    // Steps of the embedded engine, which takes some for each row and statement; rows of a server.
    assert!(costs.iter().all(|cost| (0..1_500).contains(cost)), "{costs:?}");
}
