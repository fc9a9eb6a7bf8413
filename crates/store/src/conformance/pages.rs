//! Keyset pages (difference D20).

use std::collections::BTreeSet;

use super::Make;
use super::fixtures::{at, fresh, id, zone};
use super::repositories::samples;
use crate::error::StoreError;
use crate::evidence::{EvidenceFilter, EvidenceRow};
use crate::page::{Page, Position};
use crate::resources::ResourceFilter;
use crate::zones::ZoneFilter;
use crate::{
    applications, approvals, evidence, policies, policy_sets, providers, resources, subject_issuers, workloads, zones,
};

const ROWS: usize = 600;
/// Not a divisor of [`ROWS`], so that the last page is a short one.
const LIMIT: usize = 37;

/// Reads one listing from the first page to the last and demands each row once, newest id first.
macro_rules! check {
    ($what:literal, |$page:ident| $list:expr, |$row:ident| $position:expr) => {{
        let (mut seen, mut after) = (Vec::new(), None::<Position>);
        loop {
            let $page = Page { limit: LIMIT, after: after.take() };
            let rows = $list;
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
