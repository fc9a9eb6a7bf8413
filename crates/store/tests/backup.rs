//! Copies of a store: complete, beside its owner, and never a store themselves before what was alive in them is ended
//! (threat T17).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::backup::{self, Ended};
use caracal_store::{ManualClock, OpenError, SqliteOptions, Store, StoreError, deployment, inspect, known_version};
use rusqlite::Connection;

const NOW: i64 = 1_800_000_000;

fn options(directory: &Path) -> SqliteOptions {
    SqliteOptions::in_directory(directory)
}

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(now()))
}

fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(&options(directory), clock())
}

async fn put(store: &Store, name: String) {
    let done: Result<(), StoreError> =
        store.commit_deployment(name, |tx, name| Box::pin(async move { deployment::put(tx, name, "1").await })).await;
    done.unwrap();
}

fn names_in(database: &Path) -> BTreeSet<String> {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT name FROM deployment").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Lays a copy into a directory as its store, as somebody would who knows nothing of restoring.
fn in_place(copy: &Path, directory: &Path) {
    std::fs::copy(copy, options(directory).database()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_has_all_that_was_acknowledged_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, acknowledged, ended) = (store.clone(), acknowledged.clone(), ended.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("{writer}-{number}-{}", "x".repeat(2_000));
                    put(&store, name.clone()).await;
                    acknowledged.lock().unwrap().insert(name);
                }
            })
        })
        .collect();
    for round in 1..=5 {
        while acknowledged.lock().unwrap().len() < round * 200 {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.lock().unwrap().clone();
        let (from, to) = (options(directory.path()), directory.path().join(format!("copy-{round}")));
        let copied = to.clone();
        tokio::task::spawn_blocking(move || backup::copy(&from, &copied, now(), |_, _| ())).await.unwrap().unwrap();
        let found = names_in(&to);
        assert!(before.is_subset(&found), "round {round}: {} of {}", found.len(), before.len());
        backup::check_integrity(&to).unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_one_instant_though_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for number in 0..40 {
        put(&store, format!("{number}-{}", "x".repeat(400_000))).await;
    }
    let to = directory.path().join("copy");
    let mut later = 0;
    let version = tokio::task::block_in_place(|| {
        backup::copy(&options(directory.path()), &to, now(), |_, _| {
            later += 1;
            assert!(later < 100, "it starts over after every commit");
            tokio::runtime::Handle::current().block_on(put(&store, format!("later-{later}")));
        })
    });
    assert_eq!(version.unwrap(), known_version());
    assert!(later > 2, "it was done in {later} steps");
    let found = names_in(&to);
    assert!(!found.iter().any(|name| name.starts_with("later")), "it has what came after it began");
    assert_eq!(found.iter().filter(|name| name.contains("xxx")).count(), 40);
    store.close().await;
}

mod t17_rollback {
    use super::*;

    #[tokio::test]
    async fn a_copy_in_a_store_s_place_is_refused_until_its_mark_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
        put(&store, "kept".to_owned()).await;
        let copy = directory.path().join("copy");
        backup::copy(&options(directory.path()), &copy, now(), |_, _| ()).unwrap();
        store.close().await;
        let other = tempfile::tempdir().unwrap();
        in_place(&copy, other.path());
        let before = std::fs::read(options(other.path()).database()).unwrap();
        let Err(error) = open(other.path()) else { panic!("a copy was opened as a store") };
        assert!(matches!(error, OpenError::Copy { .. }) && error.to_string().contains("caracal restore"), "{error}");
        assert_eq!(std::fs::read(options(other.path()).database()).unwrap(), before, "a refusal changes nothing");
        assert!(inspect(&options(other.path()).database()).is_ok(), "looking at it is fine");

        let store = backup::open_copy(&options(other.path()), clock()).unwrap();
        let done: Result<(), StoreError> =
            store.commit_deployment((), |tx, ()| Box::pin(async move { backup::remove_mark(tx).await })).await;
        done.unwrap();
        store.close().await;
        drop(store);
        let store = open(other.path()).unwrap();
        let mut snapshot = store.snapshot().await.unwrap();
        assert!(deployment::lookup(&mut snapshot.deployment(), "kept").await.unwrap().is_some());
        drop(snapshot);
        store.close().await;
    }

    /// What is not ended comes back as it was. So whoever adds a table says here which it is to be.
    #[tokio::test]
    async fn every_table_is_either_ended_or_may_come_back_as_it_was() {
        let ended = [
            "admin_tokens",
            "agent_sessions",
            "approvals",
            "authority_records",
            "delegation_edges",
            "invocations",
            "oauth_states",
            "provider_connections",
            "session_counts",
        ];
        // Moved on, so that no number stands for two things.
        let moved = ["delegation_epochs", "deployment"];
        // What was used up or answered stays so.
        let spent = [
            "gateway_nonces",
            "idempotency_receipts",
            "notification_deliveries",
            "outbox",
            "policy_announcements",
            "stream_entries",
            "stream_groups",
            "stream_handled",
            "stream_pending",
            "stream_topics",
            "used_mandates",
            "withdrawn_keys",
        ];
        let evidence = [
            "admin_audit_events",
            "admin_audit_heads",
            "audit_anchors",
            "audit_events",
            "audit_heads",
            "ledger_log_keys",
            "ledger_tiles",
            "ledger_trees",
            "waiting_changes",
        ];
        // What the operator set up: older than it could be, and the operator is told.
        let provisioned = [
            "active_policy_sets",
            "agent_services",
            "applications",
            "delegated_grants",
            "notification_sinks",
            "policies",
            "policy_set_versions",
            "policy_sets",
            "policy_versions",
            "providers",
            "resources",
            "sealed_secrets",
            "signing_keys",
            "subject_issuers",
            "workloads",
            "zone_owners",
            "zones",
        ];
        // What processes that are gone said of themselves, and counted.
        let stale = ["counts", "loaded_policies", "sts_replicas"];
        let judged: BTreeSet<&str> =
            [&ended[..], &moved, &spent, &evidence, &provisioned, &stale, &["schema_migrations"]]
                .concat()
                .into_iter()
                .collect();
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap().close().await;
        let connection = Connection::open(options(directory.path()).database()).unwrap();
        let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
        let found: BTreeSet<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let found: BTreeSet<&str> =
            found.iter().map(String::as_str).filter(|name| !name.starts_with("sqlite_")).collect();
        assert_eq!(found, judged, "crates/store/src/backup.rs has to end what grants something");
    }

    #[tokio::test]
    async fn everything_that_was_alive_ends_and_what_was_spent_stays_spent() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap().close().await;
        let connection = Connection::open(options(directory.path()).database()).unwrap();
        connection
            .execute_batch(&format!(
                "{}
                 INSERT INTO session_counts VALUES ('known', '', 2), ('known', 'app', 2), ('lost', '', 1);
                 INSERT INTO provider_connections VALUES ('known', 'c', 's', 'p', 'active', x'00', NULL, NULL, NULL, 0, NULL,
                                                          NULL, NULL, 1, 1);
                 INSERT INTO delegation_epochs VALUES ('known', 41);
                 INSERT INTO used_mandates VALUES ('known', 'j', 'r', 1, {far});
                 INSERT INTO admin_tokens VALUES ('t1', 'n', 'global', 'write', NULL, 'd1', 'by', 1, NULL, NULL, NULL),
                                                 ('t2', 'n', 'global', 'write', NULL, 'd2', 'by', 1, NULL, 2, NULL);
                 INSERT INTO idempotency_receipts VALUES ('known', 'o', 'app', 'k', 'd', 'e', 0, 201, '{{}}', 1, {far});",
                rows_alive(),
                far = i64::MAX
            ))
            .unwrap();
        drop(connection);
        let store = open(directory.path()).unwrap();
        let ended: Result<(Vec<ZoneId>, Vec<Ended>, usize), StoreError> = store
            .commit_deployment((), |tx, ()| {
                Box::pin(async move {
                    let zones = backup::list_zones(tx).await?;
                    let mut all = Vec::new();
                    for zone in &zones {
                        all.push(backup::end_authority(&mut tx.zone_write(zone), "restored").await?);
                    }
                    Ok((zones, all, backup::forget_admin_tokens(tx).await?))
                })
            })
            .await;
        let (zones, ended, tokens) = ended.unwrap();
        assert_eq!(zones.iter().map(ZoneId::as_str).collect::<Vec<_>>(), ["known", "lost"]);
        let expected = [Ended { records: 2, sessions: 2, edges: 2 }, Ended { records: 1, sessions: 1, edges: 1 }];
        assert_eq!((ended.as_slice(), tokens), (&expected[..], 1));
        store.close().await;

        let connection = Connection::open(options(directory.path()).database()).unwrap();
        let count = |sql: &str| -> i64 { connection.query_one(sql, [], |row| row.get(0)).unwrap() };
        let alive = "SELECT (SELECT count(*) FROM authority_records WHERE status <> 'revoked' OR revoked_at IS NULL)
                          + (SELECT count(*) FROM agent_sessions WHERE status NOT IN ('terminated', 'expired')
                               OR terminated_at IS NULL OR capacity_until IS NOT NULL)
                          + (SELECT count(*) FROM delegation_edges WHERE status <> 'revoked' OR revoked_at IS NULL)
                          + (SELECT count(*) FROM provider_connections WHERE status = 'active')
                          + (SELECT sum(running) FROM session_counts)
                          + (SELECT count(*) FROM invocations WHERE status NOT IN ('canceled', 'succeeded'))
                          + (SELECT count(*) FROM approvals WHERE is_live = 1 OR consumed_at IS NULL AND expires_at > 9e15)";
        assert_eq!(count(alive), 0);
        assert_eq!(count("SELECT count(*) FROM authority_records WHERE revoked_reason = 'earlier'"), 1, "as it was");
        assert_eq!(count("SELECT count(*) FROM invocations WHERE status = 'succeeded'"), 1, "as it was");
        assert_eq!(count("SELECT min(epoch) FROM delegation_epochs"), NOW);
        assert_eq!(count("SELECT count(*) FROM used_mandates") + count("SELECT count(*) FROM idempotency_receipts"), 2);
        assert_eq!(count("SELECT count(*) FROM admin_tokens WHERE revoked_at IS NOT NULL"), 1);
    }

    /// In one zone that is known and one that is not: something running, something that ran out, something ended.
    fn rows_alive() -> String {
        let record = |zone: &str, id: &str, status: &str, until: i64, end: &str| {
            format!(
                "INSERT INTO authority_records VALUES ('{zone}', '{id}', 'application', 's', 'app', 'session', '{id}',
                   '{status}', NULL, NULL, NULL, {until}, 1, {end}, NULL);"
            )
        };
        let session = |zone: &str, id: &str, status: &str, end: &str, capacity: &str| {
            format!(
                "INSERT INTO agent_sessions VALUES ('{zone}', '{id}', 'app', NULL, 'r', 'task', '[]', '{{}}', '{status}',
                   0, 60, 1, 1, NULL, NULL, 0, {end}, 1, {capacity});"
            )
        };
        let edge = |zone: &str, id: &str, status: &str, end: &str| {
            format!(
                "INSERT INTO delegation_edges VALUES ('{zone}', '{id}', 'a', 'b', 'app', 'app', NULL, 0, NULL, '[]', '{{}}',
                   '{status}', {}, 1, NULL, {end}, 1);",
                i64::MAX
            )
        };
        let approval = |zone: &str, id: &str, marks: &str, live: i64| {
            format!(
                "INSERT INTO approvals VALUES ('{zone}', '{zone}-{id}', 'app', 'application', '', 'app', NULL, NULL, '[]', 't',
                   'any', 'identified', NULL, '{id}', '{{}}', 1, {}, {marks}, NULL, NULL, NULL, NULL, NULL, {live});",
                i64::MAX
            )
        };
        let invocation = |zone: &str, id: &str, status: &str| {
            format!(
                "INSERT INTO invocations VALUES ('{zone}', '{id}', 'v', 'app', 'app', NULL, NULL, 'm', '{{}}', '{{}}',
                   '{status}', 1, 3, 0, 1, 1, NULL, 1, NULL, NULL, 1, 1, 0);"
            )
        };
        let zone = "INSERT INTO zones VALUES ('known', 'n', 's', 0, 0, 0, NULL, 0, NULL, NULL, 1, 1, NULL);";
        [
            zone.to_owned(),
            record("known", "running", "active", i64::MAX, "NULL, NULL"),
            record("known", "ran-out", "active", 2, "NULL, NULL"),
            record("known", "ended", "revoked", i64::MAX, "2, 'earlier'"),
            record("lost", "running", "active", i64::MAX, "NULL, NULL"),
            session("known", "running", "active", "NULL, NULL", "9000000000000000"),
            session("known", "waiting", "suspended", "NULL, NULL", "9000000000000000"),
            session("known", "ended", "expired", "2, 'earlier'", "NULL"),
            session("lost", "running", "active", "NULL, NULL", "9000000000000000"),
            approval("known", "waiting", "NULL, NULL", 1),
            approval("known", "given", "1, NULL", 1),
            approval("known", "rejected", "NULL, 1", 1),
            approval("lost", "waiting", "NULL, NULL", 1),
            edge("known", "running", "active", "NULL"),
            edge("known", "another", "active", "NULL"),
            edge("known", "ended", "revoked", "2"),
            edge("lost", "running", "active", "NULL"),
            invocation("known", "waiting", "pending"),
            invocation("known", "to-be-tried-again", "failed"),
            invocation("known", "done", "succeeded"),
            invocation("lost", "running", "running"),
        ]
        .concat()
    }
}

#[tokio::test]
async fn a_store_at_rest_can_not_be_started_while_it_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await;
    let mut refusals = 0;
    let to = directory.path().join("copy");
    backup::copy(&options(directory.path()), &to, now(), |_, _| {
        assert!(matches!(open(directory.path()), Err(OpenError::Locked { .. })));
        refusals += 1;
    })
    .unwrap();
    assert!(refusals > 0);
    open(directory.path()).unwrap().close().await;
}

#[tokio::test]
async fn what_a_killed_owner_left_in_its_log_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    put(&store, "in the log".to_owned()).await;
    let killed = tempfile::tempdir().unwrap();
    for name in ["caracal.db", "caracal.db-wal"] {
        std::fs::copy(directory.path().join(name), killed.path().join(name)).unwrap();
    }
    let to = killed.path().join("copy");
    backup::copy(&options(killed.path()), &to, now(), |_, _| ()).unwrap();
    assert!(names_in(&to).contains("in the log"));
    store.close().await;
}

#[tokio::test]
async fn a_copy_replaces_nothing_and_is_of_stores_only() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await;
    let there = directory.path().join("there");
    std::fs::write(&there, "somebody else's").unwrap();
    let copy = |from: &Path, to: &Path| backup::copy(&options(from), to, now(), |_, _| ());
    assert!(matches!(copy(directory.path(), &there), Err(OpenError::Unusable { .. })));
    assert_eq!(std::fs::read(&there).unwrap(), b"somebody else's");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(copy(empty.path(), &there), Err(OpenError::Unusable { .. })));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "not even a lock file");
    std::fs::write(options(empty.path()).database(), "foreign").unwrap();
    assert!(matches!(copy(empty.path(), &there), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for number in 0..50 {
        put(&store, format!("{number}-{}", "x".repeat(500))).await;
    }
    let to = directory.path().join("copy");
    backup::copy(&options(directory.path()), &to, now(), |_, _| ()).unwrap();
    backup::check_integrity(&to).unwrap();
    let mut bytes = std::fs::read(&to).unwrap();
    let at = bytes.windows(8).rposition(|window| window == b"xxxxxxxx").unwrap() / 4096 * 4096;
    bytes[at..at + 64].fill(0xFF);
    std::fs::write(&to, bytes).unwrap();
    assert!(backup::check_integrity(&to).is_err());
    store.close().await;
}
