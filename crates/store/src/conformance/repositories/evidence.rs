//! Evidence and management evidence.

use super::management::change;
use crate::admin_evidence::{self, ZONELESS_CHAIN};
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::evidence::{self, ChainRow, EvidenceFilter};
use crate::page::Page;

pub async fn evidence_comes_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let rows: Vec<_> = (1..=4).map(samples::evidence).collect();
    let admin: Vec<_> = (1..=2).map(|seq| samples::admin_evidence("z-1", seq)).collect();
    change!(fresh.store, (rows.clone(), admin.clone()), |tx, input| {
        for row in &input.0 {
            evidence::append(tx, row).await?;
        }
        for row in &input.1 {
            admin_evidence::append(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let zoneless = admin_evidence::AdminEvidenceRow { zone_id: None, ..samples::admin_evidence(ZONELESS_CHAIN, 1) };
    let added: Result<(), StoreError> = fresh
        .store
        .commit_deployment(zoneless.clone(), |tx, row| {
            Box::pin(async move { admin_evidence::append_zoneless(tx, row).await })
        })
        .await;
    added.unwrap();

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    assert_eq!(evidence::list_chain(&mut read, 1, 10).await.unwrap(), readable(&rows));
    assert_eq!(evidence::list_chain(&mut read, 2, 2).await.unwrap(), readable(&rows[1..3]));
    assert_eq!(evidence::find_by_request(&mut read, "req-3").await.unwrap(), rows[2..3]);
    for (request, of, has) in
        [("req-3", "replay_detected", true), ("req-3", "token_exchange", false), ("req-9", "replay_detected", false)]
    {
        assert_eq!(evidence::has_of_request(&mut read, request, of).await.unwrap(), has, "{request} {of}");
    }
    let some = |text: &str| Some(text.to_owned());
    for (filter, shown) in [
        (EvidenceFilter::default(), vec![4, 3, 2, 1]),
        (EvidenceFilter { since: Some(at(2)), ..Default::default() }, vec![4, 3, 2]),
        (EvidenceFilter { until: Some(at(2)), ..Default::default() }, vec![1]),
        (EvidenceFilter { request_id: some("req-2"), ..Default::default() }, vec![2]),
        (EvidenceFilter { decision: some("deny"), ..Default::default() }, vec![3, 1]),
        (
            EvidenceFilter { event_types: vec!["token_exchange".to_owned(), "other".to_owned()], ..Default::default() },
            vec![4, 2],
        ),
        (EvidenceFilter { application_id: some("app-1"), ..Default::default() }, vec![1]),
        (EvidenceFilter { agent_session_id: some("s-2"), ..Default::default() }, vec![2]),
        (EvidenceFilter { authority_record_id: some("r-3"), ..Default::default() }, vec![3]),
        (EvidenceFilter { label: some("l-4"), ..Default::default() }, vec![4]),
        (EvidenceFilter { label: some("all"), decision: some("allow"), ..Default::default() }, vec![4, 2]),
        (EvidenceFilter { label: some("l-4"), decision: some("deny"), ..Default::default() }, vec![]),
    ] {
        let found = evidence::list(&mut read, &filter, &Page::first(10)).await.unwrap();
        assert_eq!(found.iter().map(|row| row.chain_seq).collect::<Vec<_>>(), shown, "{filter:?}");
        // The same in the order of the chain, and from any position of it.
        for after in 0..=4 {
            let found = evidence::search(&mut read, &filter, after, 2).await.unwrap();
            let behind: Vec<_> = shown.iter().rev().copied().filter(|seq| *seq > after).take(2).collect();
            assert_eq!(found.iter().map(|row| row.chain_seq).collect::<Vec<_>>(), behind, "{filter:?} after {after}");
        }
    }
    let mut all = snapshot.deployment();
    assert_eq!(evidence::list_chains(&mut all).await.unwrap(), [zone("z-1")]);
    assert_eq!(admin_evidence::list_chain(&mut all, "z-1", 1, 10).await.unwrap(), readable(&admin));
    assert_eq!(admin_evidence::list_chain(&mut all, "z-1", 2, 10).await.unwrap(), readable(&admin[1..]));
    let without_zone = admin_evidence::list_chain(&mut all, ZONELESS_CHAIN, 1, 10).await.unwrap();
    assert_eq!(without_zone, readable(&[zoneless]));
    let mut chains = admin_evidence::list_chains(&mut all).await.unwrap();
    chains.sort();
    assert_eq!(chains, [ZONELESS_CHAIN, "z-1"]);
    assert_eq!(admin_evidence::zoneless_head(&mut all).await.unwrap().unwrap().chain_seq, 1);
}

/// Callers choose request ids; who uses one for everything must not make a look-up grow without end.
pub async fn a_crowd_under_one_request_id_is_cut_and_hides_no_denial(make: Make) {
    let fresh = fresh(make).await;
    let total = evidence::MAX_OF_REQUEST + 20;
    let rows: Vec<_> = (1..=total)
        .map(|seq| evidence::EvidenceRow {
            request_id: "req".to_owned(),
            decision: if seq == total { "deny" } else { "allow" }.to_owned(),
            ..samples::evidence(seq)
        })
        .collect();
    change!(fresh.store, rows, |tx, rows| {
        for row in rows {
            evidence::append(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let found = evidence::find_by_request(&mut snapshot.zone(&zone("z-1")), "req").await.unwrap();
    let shown: Vec<_> = found.iter().map(|row| row.chain_seq).collect();
    let expected: Vec<_> = (1..evidence::MAX_OF_REQUEST).chain([total]).collect();
    assert_eq!(shown, expected);
}

fn readable<R: Clone>(rows: &[R]) -> Vec<ChainRow<R>> {
    rows.iter().cloned().map(ChainRow::Read).collect()
}
