//! Accounts at providers, and who renews them.

use caracal_authority::Timestamp;

use super::management::change;
use crate::conformance::Make;
use crate::conformance::fixtures::{at, fresh, id, same, start, zone};
use crate::conformance::repositories::samples;
use crate::error::StoreError;
use crate::page::Page;
use crate::provider_connections::{self, Connection, ConnectionFilter, SHARED_SUBJECT, SealedTokens};

pub async fn connections_come_back_as_stored(make: Make) {
    let fresh = fresh(make).await;
    let row = |name: &str, full: bool, subject: &str, status: &str| Connection {
        subject_id: subject.to_owned(),
        status: status.to_owned(),
        ..samples::connection(name, full)
    };
    let shared = row("c-1", false, SHARED_SUBJECT, "active");
    let own = row("c-2", true, "user-1", "active");
    let old = row("c-3", true, "user-1", "revoked");
    let rows = [shared.clone(), own.clone(), old.clone()];
    change!(fresh.store, rows.clone(), |tx, rows| {
        for row in rows {
            provider_connections::add(tx, row).await?;
        }
        Ok(())
    })
    .unwrap();
    let twice = row("c-4", true, "user-1", "active");
    let refused = change!(fresh.store, twice, |tx, row| provider_connections::add(tx, row).await);
    assert!(matches!(refused.unwrap_err(), StoreError::Conflict { .. }));

    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    for row in &rows {
        same(&provider_connections::lookup(&mut read, &row.id).await.unwrap().unwrap(), row);
    }
    let provider = id!("prov-1");
    for (subject, found) in [("user-1", "c-2"), ("user-2", "c-1"), (SHARED_SUBJECT, "c-1")] {
        let usable = provider_connections::find_usable(&mut read, &provider, subject).await.unwrap().unwrap();
        assert_eq!(usable.id.as_str(), found, "{subject}");
    }
    assert!(provider_connections::find_usable(&mut read, &id!("prov-2"), "user-1").await.unwrap().is_none());
    assert!(provider_connections::find_active(&mut read, &provider, "user-2").await.unwrap().is_none());
    same(&provider_connections::find_active(&mut read, &provider, "user-1").await.unwrap().unwrap(), &own);
    let some = |text: &str| Some(text.to_owned());
    for (filter, shown) in [
        (ConnectionFilter::default(), vec![old.clone(), own.clone(), shared.clone()]),
        (ConnectionFilter { status: some("active"), ..Default::default() }, vec![own.clone(), shared.clone()]),
        (ConnectionFilter { subject_id: some("user-1"), ..Default::default() }, vec![old.clone(), own.clone()]),
        (ConnectionFilter { provider_id: some("prov-2"), ..Default::default() }, vec![]),
    ] {
        same(&provider_connections::list(&mut read, &filter, &Page::first(10)).await.unwrap(), &shown);
    }
    drop(snapshot);

    // Other tokens for the same account.
    let tokens = SealedTokens { access_token: vec![9], refresh_token: None, expires_at: None };
    let done = change!(fresh.store, tokens.clone(), |tx, tokens| {
        provider_connections::replace_tokens(tx, &id!("c-2"), tokens).await
    });
    assert!(done.unwrap());
    let expected = Connection {
        access_token: vec![9],
        refresh_token: None,
        expires_at: None,
        refreshed_at: None,
        refresh_failed_at: None,
        lease_until: None,
        version: own.version + 1,
        updated_at: start(),
        ..own
    };
    let found = async |name: &str| {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        provider_connections::lookup(&mut snapshot.zone(&zone("z-1")), &id!(name)).await.unwrap().unwrap()
    };
    same(&found("c-2").await, &expected);
    for (name, ended) in [("c-2", true), ("c-2", false), ("c-3", false)] {
        let done = change!(fresh.store, name, |tx, name| provider_connections::end(tx, &id!(name), "expired").await);
        assert_eq!(done.unwrap(), ended, "{name}");
    }
    assert_eq!((found("c-2").await.status.as_str(), found("c-3").await.status.as_str()), ("expired", "revoked"));
    let done =
        change!(fresh.store, tokens, |tx, tokens| provider_connections::replace_tokens(tx, &id!("c-2"), tokens).await);
    assert!(!done.unwrap());
}

pub async fn a_connection_is_renewed_by_one_at_a_time(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, samples::connection("c-1", false), |tx, row| provider_connections::add(tx, row).await)
        .unwrap();
    let claim = async |holder: &'static str, version: i64, until: Timestamp| {
        change!(fresh.store, (holder, version, until), |tx, input| {
            provider_connections::claim_refresh(tx, &id!("c-1"), input.1, input.0, input.2).await
        })
        .unwrap()
    };
    let version = samples::connection("c-1", false).version;
    assert!(!claim("a", version + 1, at(15)).await);
    assert!(claim("a", version, at(15)).await);
    assert!(!claim("b", version, at(15)).await);
    // One whose time is over is no holder.
    let lapsed =
        change!(fresh.store, (), |tx, _unused| provider_connections::refresh_failed(tx, &id!("c-1"), "b").await);
    lapsed.unwrap();
    assert!(!claim("b", version, at(15)).await);
    change!(fresh.store, (), |tx, _unused| provider_connections::refresh_failed(tx, &id!("c-1"), "a").await).unwrap();
    assert!(claim("b", version, start()).await);
    assert!(claim("c", version, at(15)).await);
    // Who works for longer than its lease keeps it.
    let extend = async |holder: &'static str, until: Timestamp| {
        change!(fresh.store, (holder, until), |tx, input| {
            provider_connections::extend_refresh(tx, &id!("c-1"), input.0, input.1).await
        })
        .unwrap()
    };
    assert!(extend("c", start()).await);
    assert!(extend("c", at(30)).await, "nobody has taken it meanwhile");
    assert!(!extend("b", at(60)).await);
    assert!(!claim("d", version, at(15)).await);
    // The late one's work does not undo the newer one's.
    let store = async |version: i64, token: u8| {
        change!(fresh.store, (version, token), |tx, input| {
            let tokens = SealedTokens { access_token: vec![input.1], refresh_token: None, expires_at: Some(at(60)) };
            provider_connections::store_refreshed(tx, &id!("c-1"), input.0, &tokens).await
        })
        .unwrap()
    };
    assert!(store(version, 7).await);
    assert!(!store(version, 8).await);
    assert!(!extend("c", at(60)).await, "it was given back with the tokens");
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let row = provider_connections::lookup(&mut snapshot.zone(&zone("z-1")), &id!("c-1")).await.unwrap().unwrap();
    assert_eq!((row.access_token, row.version, row.refreshed_at), (vec![7], version + 1, Some(start())));
    assert_eq!((row.lease_until, row.refresh_failed_at), (None, None));
}

/// A new token is no reason to decide anew; an account that is taken away is.
pub async fn ending_a_connection_voids_decisions_and_renewing_does_not(make: Make) {
    let fresh = fresh(make).await;
    change!(fresh.store, samples::connection("c-1", false), |tx, row| provider_connections::add(tx, row).await)
        .unwrap();
    let version = samples::connection("c-1", false).version;
    let z = zone("z-1");
    let (decided_at, _snapshot) = fresh.store.decision_snapshot(&z, &Default::default()).await.unwrap();
    let holds = async || change!(fresh.store, decided_at, |tx, version| tx.is_at(*version).await).unwrap();
    change!(fresh.store, version, |tx, version| {
        provider_connections::claim_refresh(tx, &id!("c-1"), *version, "a", at(15)).await?;
        let tokens = SealedTokens { access_token: vec![7], refresh_token: None, expires_at: None };
        provider_connections::store_refreshed(tx, &id!("c-1"), *version, &tokens).await
    })
    .unwrap();
    assert!(holds().await);
    change!(fresh.store, (), |tx, _unused| provider_connections::end(tx, &id!("c-1"), "revoked").await).unwrap();
    assert!(!holds().await);
}
