//! Everything sealed, across zones, for a new key-encryption key.

use std::collections::BTreeSet;

use super::management::change;
use super::samples;
use crate::conformance::Make;
use crate::conformance::fixtures::{fresh, zone};
use crate::envelopes::{self, Found, OPEN, REFERENCED, SEALED};
use crate::error::StoreError;
use crate::{
    Store, applications, notification_sinks, oauth_states, provider_connections, providers, sealed_secrets,
    signing_keys, transparency, workloads,
};

/// What a key-encryption key protects and nobody lists here would be lost with the key.
pub async fn no_sealed_column_is_forgotten(make: Make) {
    let fresh = fresh(make).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let raw = envelopes::list_raw_columns(&mut snapshot.deployment()).await.unwrap();
    let listed = SEALED.iter().map(|sealed| (sealed.table, sealed.column)).chain(OPEN.iter().copied());
    let listed: BTreeSet<(String, String)> =
        listed.map(|(table, column)| (table.to_owned(), column.to_owned())).collect();
    assert_eq!(raw.into_iter().collect::<BTreeSet<_>>(), listed);
}

async fn all(store: &Store, sealed: &envelopes::Sealed, page: i64) -> Vec<Found> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut snapshot = store.snapshot().await.unwrap();
        let next = envelopes::list(&mut snapshot.deployment(), sealed, after.as_ref(), page).await.unwrap();
        let Some(last) = next.last() else { return found };
        after = Some(last.place());
        found.extend(next);
    }
}

pub async fn every_envelope_is_found_once_and_replaced_only_where_it_still_lies(make: Make) {
    let fresh = fresh(make).await;
    for name in ["z-1", "z-2"] {
        let added: Result<(), StoreError> = fresh
            .store
            .commit(&zone(name), (), |tx, ()| {
                Box::pin(async move {
                    for number in 1..=3 {
                        signing_keys::add(tx, &samples::signing_key(&format!("k-{number}"), number)).await?;
                        sealed_secrets::put(tx, &format!("r-{number}"), &[1, 2, 3]).await?;
                    }
                    transparency::add_log_key(tx, &samples::log_key()).await?;
                    for name in ["x-1", "x-2", "x-3"] {
                        notification_sinks::add(tx, &samples::sink(name, true)).await?;
                        let digest = format!("{}-{name}", tx.zone());
                        oauth_states::add(tx, &samples::oauth_state(&digest)).await?;
                    }
                    provider_connections::add(tx, &samples::connection("c-1", true)).await?;
                    let mut over = samples::connection("c-2", false);
                    over.status = "revoked".to_owned();
                    provider_connections::add(tx, &over).await
                })
            })
            .await;
        added.unwrap();
    }
    for sealed in SEALED {
        // One of the two accounts of a zone has no refresh token.
        let expected = match (sealed.table, sealed.column) {
            (_, "access_token") => 4,
            (_, "refresh_token") | ("ledger_log_keys", _) => 2,
            _ => 6,
        };
        let found = all(&fresh.store, sealed, 100).await;
        assert_eq!(found.len(), expected, "{sealed:?}");
        for page in [1, 2, 5] {
            assert_eq!(all(&fresh.store, sealed, page).await, found, "{sealed:?} by {page}");
        }
        let replaced: Result<(bool, bool, bool), StoreError> = fresh
            .store
            .commit_upkeep((*sealed, found[0].clone()), |tx, (sealed, found)| {
                Box::pin(async move {
                    let first = envelopes::replace(tx, sealed, found, &[9]).await?;
                    let again = envelopes::replace(tx, sealed, found, &[8]).await?;
                    let absent = Found { key: "none".to_owned(), ..found.clone() };
                    Ok((first, again, envelopes::replace(tx, sealed, &absent, &[8]).await?))
                })
            })
            .await;
        assert_eq!(replaced.unwrap(), (true, false, false), "{sealed:?}");
        let mut expected = found;
        expected[0].envelope = vec![9];
        assert_eq!(all(&fresh.store, sealed, 100).await, expected, "{sealed:?}");
    }
}

pub async fn rows_with_a_secret_elsewhere_are_named(make: Make) {
    let fresh = fresh(make).await;
    let added = change!(fresh.store, (), |tx, _unused| {
        for (id, full) in [("a-1", true), ("a-2", false)] {
            applications::add(tx, &samples::application(id, full)).await?;
            providers::add(tx, &samples::provider(id, full)).await?;
        }
        workloads::add(tx, &samples::workload("a-1", true)).await?;
        Ok(())
    });
    added.unwrap();
    for referenced in REFERENCED {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        let mut all = snapshot.deployment();
        let found = envelopes::list_referenced(&mut all, referenced, None, 10).await.unwrap();
        let first = ("z-1".to_owned(), "a-1".to_owned());
        assert_eq!(found, std::slice::from_ref(&first), "{referenced:?}");
        let behind = envelopes::list_referenced(&mut all, referenced, Some(&first), 10).await.unwrap();
        assert!(behind.is_empty());
    }
}
