//! A server that comes back with less than it had: an older copy in the database's place, a standby.

use super::*;

/// Takes authority away in `zone`, so that its version moves.
async fn revoke(store: &Store, z: &ZoneId) {
    raise(store, z).await.unwrap();
}

/// Uses a mandate up, which moves no version.
async fn consume(store: &Store, z: &ZoneId, jti: &'static str) -> Result<bool, StoreError> {
    store
        .commit(z, jti, |tx, jti| {
            Box::pin(async move {
                let expires_at = tx.now().plus(Duration::from_secs(60));
                used_mandates::consume(tx, jti, "r", expires_at).await
            })
        })
        .await
}

fn is_refused<T>(answer: Result<T, StoreError>) {
    let refused = answer.map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
}

async fn until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

/// Nothing is read, decided or changed, and readiness ends.
async fn serves_nothing(store: &Store, z: &ZoneId) {
    is_refused(store.snapshot().await);
    is_refused(store.decision_snapshot(z, &Named::default()).await);
    is_refused(consume(store, z, "afterwards").await);
    is_refused(raise(store, z).await);
    is_refused(store.commit_upkeep((), |_, ()| Box::pin(async { Ok::<_, StoreError>(()) })).await);
    is_refused(store.check().await);
}

/// What was done after the copy was made, by the process that finds the copy in the database's place, or by another.
#[derive(Debug, Clone, Copy)]
enum Since {
    RevokedHere,
    RevokedElsewhere,
    UsedHere,
    UsedElsewhere,
}

async fn is_found_out(since: Since) {
    let z = zone("z-1");
    let database = Database::create_for_store().unwrap();
    let (store, other) = (open(&database).await, open(&database).await);
    revoke(&store, &z).await;
    assert!(consume(&store, &z, "before").await.unwrap());
    let older = database.copy().unwrap();
    // With all that it had, it goes on, also where connections were cut.
    store.check().await.unwrap();
    match since {
        Since::RevokedHere => revoke(&store, &z).await,
        Since::UsedHere => assert!(consume(&store, &z, "since").await.unwrap()),
        Since::RevokedElsewhere => {
            revoke(&other, &z).await;
            store.decision_snapshot(&z, &Named::default()).await.unwrap();
        }
        Since::UsedElsewhere => {
            assert!(consume(&other, &z, "since").await.unwrap());
            store.check().await.unwrap();
        }
    }
    database.trade_places_with(&older).unwrap();
    let dump = || matches!(since, Since::UsedHere).then(|| database.dump().unwrap());
    let before = dump();
    match since {
        Since::UsedHere => is_refused(consume(&store, &z, "since").await),
        _ => is_refused(store.decision_snapshot(&z, &Named::default()).await),
    }
    serves_nothing(&store, &z).await;
    assert_eq!(dump(), before, "{since:?}: nothing was changed");
    // Not even with the newest back: somebody is to have looked.
    database.trade_places_with(&older).unwrap();
    serves_nothing(&store, &z).await;
    let again = open(&database).await;
    again.check().await.unwrap();
    assert!(consume(&again, &z, "afterwards").await.unwrap());
    for store in [store, other, again] {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_in_the_databases_place_ends_all_service() {
    tokio::join!(is_found_out(Since::UsedHere), is_found_out(Since::UsedElsewhere));
    tokio::join!(is_found_out(Since::RevokedHere), is_found_out(Since::RevokedElsewhere));
}

/// Connections that a proxy leads elsewhere do not break, so that nothing but what they say tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_went_down_ends_all_service_at_the_next_transaction() {
    for of in ["z-1", ""] {
        let database = Database::create_for_store().unwrap();
        let (store, z) = (open(&database).await, zone("z-1"));
        revoke(&store, &z).await;
        let put: Result<(), StoreError> = store
            .commit_deployment((), |tx, ()| Box::pin(async move { deployment::put(tx, "what", "ever").await }))
            .await;
        put.unwrap();
        let sql = format!("UPDATE zone_versions SET version = version - 1 WHERE zone_id = '{of}'");
        assert_eq!(database.run(&sql).unwrap().trim(), "UPDATE 1", "`{of}`");
        is_refused(store.decision_snapshot(&z, &Named::default()).await);
        serves_nothing(&store, &z).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_changes_serves_no_decision_until_it_does() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url(), "caracal").unwrap();
    let (store, z) = (open(&database).await, zone("z-1"));
    revoke(&store, &z).await;
    let outside = connect(&server.url()).await;
    outside.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    let tell = async |sql: &str| {
        outside.batch_execute(sql).await.unwrap();
        outside.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    // The open connection stays; what it is told next is another default.
    tell("ALTER SYSTEM SET default_transaction_read_only = on").await;
    let read_only = async || {
        let refused = store.decision_snapshot(&z, &Named::default()).await.map(|_| ());
        refused.is_err_and(|refused| matches!(&refused, StoreError::Unavailable { .. }))
    };
    until(async || read_only().await).await;
    serves_nothing(&store, &z).await;
    tell("ALTER SYSTEM RESET default_transaction_read_only").await;
    until(async || !read_only().await).await;
    // It had lost nothing, and so nobody has to lend a hand.
    store.check().await.unwrap();
    assert_eq!(raise(&store, &z).await.unwrap(), 2);
    store.close().await;
}
