//! Opening a data directory: what is ours comes back, what is not stays exactly as it was (threat T17).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::{
    Clock, ManualClock, OpenError, SqliteOptions, SteadyClock, Store, StoreError, SystemClock, deployment,
    known_version, used_mandates,
};
use rusqlite::Connection;
use tempfile::TempDir;

fn try_open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock))
}

fn refused(directory: &Path) -> OpenError {
    match try_open(directory) {
        Err(error) => error,
        Ok(_) => panic!("{} was opened", directory.display()),
    }
}

async fn put(store: &Store, name: &str) {
    let done: Result<(), StoreError> = store
        .commit_deployment(name.to_owned(), |tx, name| Box::pin(async move { deployment::put(tx, name, "1").await }))
        .await;
    done.unwrap();
}

async fn has(store: &Store, name: &str) -> bool {
    let mut snapshot = store.snapshot().await.unwrap();
    deployment::lookup(&mut snapshot.deployment(), name).await.unwrap().is_some()
}

/// A directory with a store in it that was closed in order.
async fn closed_store() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = try_open(directory.path()).unwrap();
    put(&store, "kept").await;
    store.close().await;
    directory
}

/// Every file below `directory` with its bytes.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
            found.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            found.insert(path, bytes);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_committed_is_there_when_the_store_is_opened_again() {
    let directory = closed_store().await;
    for _ in 0..3 {
        let store = try_open(directory.path()).unwrap();
        assert!(has(&store, "kept").await);
        store.close().await;
    }
}

#[tokio::test]
async fn t05_secrets_files_are_the_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let store = try_open(&directory).unwrap();
    put(&store, "something").await;
    assert_eq!(mode(&directory), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 4, "the lock, the database, its log and the log's index");
    store.close().await;
}

/// What plays the other process: this very test, run again in a child that is told to.
const HOLD: &str = "CARACAL_STORE_TEST_HOLD";

mod t17_rollback {
    use super::*;

    #[tokio::test]
    async fn two_processes_never_own_one_store() {
        if let Ok(directory) = std::env::var(HOLD) {
            let store = try_open(Path::new(&directory)).unwrap();
            eprintln!("owned");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            store.close().await;
            return;
        }
        let directory = closed_store().await;
        let name = "t17_rollback::two_processes_never_own_one_store";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(HOLD, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "owned"));
        let error = refused(directory.path());
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        let store = try_open(directory.path()).unwrap();
        // Nor two owners within one process.
        assert!(matches!(refused(directory.path()), OpenError::Locked { .. }));
        assert!(has(&store, "kept").await);
        store.close().await;
    }

    /// What lies where the database should be, and is none of ours.
    fn foreign(name: &str, path: &Path) {
        match name {
            "random bytes" => {
                fs::write(path, (0..4096u32).map(|byte| (byte * 7 % 251) as u8).collect::<Vec<_>>()).unwrap()
            }
            "text" => fs::write(path, "hello").unwrap(),
            "nothing in it" => fs::write(path, "").unwrap(),
            "the magic and no more" => fs::write(path, "SQLite format 3\0").unwrap(),
            "another program's database" | "an unmarked database" => {
                let connection = Connection::open(path).unwrap();
                let id = if name == "an unmarked database" { 0 } else { 7 };
                connection
                    .execute_batch(&format!(
                        "PRAGMA application_id={id}; CREATE TABLE t (a); INSERT INTO t VALUES (1);"
                    ))
                    .unwrap();
            }
            "a database with a log of its own" => {
                let connection = Connection::open(path).unwrap();
                connection
                    .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1);")
                    .unwrap();
                // Never closed, as after a crash: the log stays.
                std::mem::forget(connection);
            }
            "a marked database without our tables" => {
                let connection = Connection::open(path).unwrap();
                connection
                    .execute_batch(&format!("PRAGMA application_id={}; CREATE TABLE t (a);", 0x4352_434C))
                    .unwrap();
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        for name in [
            "random bytes",
            "text",
            "nothing in it",
            "the magic and no more",
            "another program's database",
            "an unmarked database",
            "a database with a log of its own",
        ] {
            let directory = tempfile::tempdir().unwrap();
            foreign(name, &directory.path().join("caracal.db"));
            let before = content(directory.path());
            let error = refused(directory.path());
            assert!(matches!(error, OpenError::Foreign { .. }), "{name}: {error}");
            assert_eq!(content(directory.path()), before, "{name}");
        }
        // One that claims to be ours gets a lock file beside it before it is found out.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("caracal.db");
        foreign("a marked database without our tables", &path);
        let before = fs::read(&path).unwrap();
        assert!(matches!(refused(directory.path()), OpenError::Foreign { .. }));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(content(directory.path()).len(), 2);
    }

    /// Taken for a first start, it would have forgotten every revocation.
    #[tokio::test]
    async fn a_store_whose_file_was_emptied_or_lost_is_not_started_afresh() {
        let directory = closed_store().await;
        fs::write(directory.path().join("caracal.db"), "").unwrap();
        assert!(matches!(refused(directory.path()), OpenError::Foreign { .. }));

        let directory = closed_store().await;
        let store = try_open(directory.path()).unwrap();
        put(&store, "in the log").await;
        let copy = tempfile::tempdir().unwrap();
        fs::copy(directory.path().join("caracal.db-wal"), copy.path().join("caracal.db-wal")).unwrap();
        store.close().await;
        let before = content(copy.path());
        let error = refused(copy.path());
        assert!(matches!(&error, OpenError::Unusable { path, .. } if path.ends_with("caracal.db-wal")), "{error}");
        assert_eq!(content(copy.path()), before);
    }

    #[test]
    fn a_place_that_cannot_be_used_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        fs::write(at("file"), "hello").unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        fs::create_dir_all(at("database is a directory/caracal.db/inside")).unwrap();
        fs::create_dir_all(at("lock is a directory/lock/inside")).unwrap();
        fs::create_dir_all(at("database leads nowhere")).unwrap();
        symlink(at("nowhere"), at("database leads nowhere/caracal.db")).unwrap();
        let before = content(parent.path());
        for (directory, named) in [
            ("file", "file"),
            ("file/below", "file/below"),
            ("loop", "loop"),
            ("loop/below", "loop/below"),
            ("database is a directory", "database is a directory/caracal.db"),
            ("lock is a directory", "lock is a directory/lock"),
            ("database leads nowhere", "database leads nowhere/caracal.db"),
        ] {
            match refused(&at(directory)) {
                OpenError::Unusable { path, .. } => assert_eq!(path, at(named), "{directory}"),
                other => panic!("{directory}: {other}"),
            }
            assert_eq!(content(parent.path()), before, "{directory}");
        }
    }

    /// Changes the migrations table of a closed store.
    fn tamper(directory: &Path, sql: &str) -> Vec<u8> {
        let path = directory.join("caracal.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&format!("PRAGMA journal_mode=DELETE; {sql}")).unwrap();
        drop(connection);
        fs::read(path).unwrap()
    }

    #[tokio::test]
    async fn a_newer_schema_is_left_to_the_newer_version() {
        let directory = closed_store().await;
        let next = known_version() + 1;
        let before =
            tamper(directory.path(), &format!("INSERT INTO schema_migrations VALUES ({next}, 'next', 'x', 0)"));
        match refused(directory.path()) {
            OpenError::Newer { found, known, .. } => assert_eq!((found, known), (next, known_version())),
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(directory.path().join("caracal.db")).unwrap(), before);
        assert_eq!(content(directory.path()).len(), 2, "the database and the lock");
    }

    #[tokio::test]
    async fn an_altered_migration_is_refused() {
        for (sql, version) in [
            ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", 1),
            ("INSERT INTO schema_migrations VALUES (0, 'before', 'x', 0)", 0),
            ("UPDATE schema_migrations SET version = -1 WHERE version = 1", -1),
        ] {
            let directory = closed_store().await;
            let before = tamper(directory.path(), sql);
            match refused(directory.path()) {
                OpenError::Altered { version: found, .. } => assert_eq!(found, version, "{sql}"),
                other => panic!("{sql}: {other}"),
            }
            assert_eq!(fs::read(directory.path().join("caracal.db")).unwrap(), before, "{sql}");
        }
    }

    /// A first start that was cut off left half a database beside the place of the real one.
    #[tokio::test]
    async fn a_first_start_that_was_cut_off_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("caracal.db.new"), "half").unwrap();
        fs::write(directory.path().join("caracal.db.new-journal"), "half").unwrap();
        let store = try_open(directory.path()).unwrap();
        put(&store, "kept").await;
        store.close().await;
        let files: Vec<_> = content(directory.path()).into_keys().collect();
        assert_eq!(files, ["caracal.db", "lock"].map(|name| directory.path().join(name)));
    }
}

mod t08_availability_clocks {
    use super::*;

    const NOON: i64 = 1_767_268_800;

    fn machine(seconds: i64) -> Arc<ManualClock> {
        Arc::new(ManualClock::at(Timestamp::from_seconds(seconds)))
    }

    fn steady(seconds: i64) -> Arc<dyn Clock> {
        Arc::new(SteadyClock::of(machine(seconds)))
    }

    fn opened(directory: &Path, clock: Arc<dyn Clock>) -> Store {
        Store::open(&SqliteOptions::in_directory(directory), clock).unwrap()
    }

    /// Its lock goes with the last value of it.
    async fn closed(store: Store) {
        store.close().await;
    }

    #[tokio::test]
    async fn a_store_opened_by_a_clock_set_back_goes_on_from_the_time_it_has_seen() {
        let directory = tempfile::tempdir().unwrap();
        let store = opened(directory.path(), steady(NOON));
        put(&store, "kept").await;
        closed(store).await;
        // A program that believes its clock lives by that, and takes nothing from what the store knows.
        let store = opened(directory.path(), machine(NOON - 7_200));
        assert_eq!(store.now().as_seconds(), NOON - 7_200);
        put(&store, "by a clock set back").await;
        closed(store).await;
        for (starts_at, expected) in [(NOON - 3_600, NOON), (NOON, NOON), (NOON + 60, NOON + 60)] {
            let store = opened(directory.path(), steady(starts_at));
            assert_eq!(store.now().as_seconds(), expected);
            assert_eq!(store.snapshot().await.unwrap().now().as_seconds(), expected);
            closed(store).await;
        }
    }

    /// Used at noon; over and forgotten a quarter of an hour later; then the clock says noon again.
    #[tokio::test]
    async fn the_use_of_a_mandate_is_forgotten_only_when_its_time_will_not_come_again() {
        let (directory, zone) = (tempfile::tempdir().unwrap(), ZoneId::parse("z-1").unwrap());
        let over = Timestamp::from_seconds(NOON + 900);
        let hands = machine(NOON);
        let store = opened(directory.path(), Arc::new(SteadyClock::of(hands.clone())));
        let used: Result<bool, StoreError> = store
            .commit(&zone, over, |tx, over| {
                Box::pin(async move { used_mandates::consume(tx, "jti-1", "request-1", *over).await })
            })
            .await;
        assert!(used.unwrap());
        hands.advance(901);
        let forgotten: Result<usize, StoreError> = store
            .commit_deployment((), |tx, ()| {
                Box::pin(async move {
                    let now = tx.now();
                    used_mandates::purge_expired(tx, now, 10).await
                })
            })
            .await;
        assert_eq!(forgotten.unwrap(), 1);
        hands.advance(-901);
        assert!(store.now() > over);
        closed(store).await;
        let store = opened(directory.path(), steady(NOON));
        assert!(store.now() > over);
        closed(store).await;
    }
}
