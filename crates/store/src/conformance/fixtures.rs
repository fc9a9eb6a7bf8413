//! What cases are made of.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};

use super::{Fresh, Make};
use crate::attribution::Attribution;
use crate::clock::ManualClock;
use crate::error::StoreError;
use crate::sqlite::work;
use crate::store::Store;
use crate::tx::{Engine, Tx};
use crate::value::{Bind, params};

/// When the clock of every case stands at first.
pub(super) fn start() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// `seconds` after [`start`], with some microseconds so that precision that is lost shows.
pub(super) fn at(seconds: u64) -> Timestamp {
    start().plus(Duration::from_secs(seconds)).plus(Duration::from_micros(123_456))
}

/// A fresh store whose clock stands at [`start`].
pub(super) async fn fresh(make: Make) -> Fresh {
    make(Arc::new(ManualClock::at(start()))).await
}

pub(super) fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

/// An id of whatever kind is wanted.
macro_rules! id {
    ($text:expr) => {
        $text.parse().unwrap()
    };
}
pub(super) use id;

/// Every column of the two forms an attribution takes when a row is added.
pub(super) fn attribution(full: bool, updated: bool) -> Attribution {
    Attribution {
        created_by: full.then(|| "token:1".to_owned()),
        created_via_operator: full,
        updated_by: None,
        updated_via_operator: None,
        created_at: at(1),
        updated_at: updated.then(|| at(1)),
    }
}

/// What a later change leaves in an attribution.
pub(super) fn touched(attribution: &Attribution) -> Attribution {
    Attribution {
        updated_by: Some("token:2".to_owned()),
        updated_via_operator: Some(true),
        updated_at: Some(at(9)),
        ..attribution.clone()
    }
}

/// Rows are compared by all they hold; they have no equality of their own.
#[track_caller]
pub(super) fn same<T: Debug>(found: &T, expected: &T) {
    assert_eq!(format!("{found:#?}"), format!("{expected:#?}"));
}

/// Holds the store inside a change until it is dropped, so that what is submitted meanwhile has to wait.
pub(super) struct Held {
    release: Option<mpsc::Sender<()>>,
    done: Option<tokio::task::JoinHandle<Result<(), StoreError>>>,
}

impl Held {
    /// Returns once the change runs.
    pub(super) async fn hold(store: &Store) -> Self {
        let (release, released) = mpsc::channel();
        let (running, runs) = tokio::sync::oneshot::channel();
        let input = (std::sync::Mutex::new(Some(running)), std::sync::Mutex::new(released));
        let store = store.clone();
        let done = tokio::spawn(async move {
            store
                .commit_deployment(input, |_, (running, released)| {
                    Box::pin(async move {
                        if let Some(running) = running.lock().unwrap().take() {
                            running.send(()).unwrap();
                        }
                        // An error means that the sender is gone, which is the sign. Engines that run changes on the
                        // runtime are told that this thread is busy.
                        let _ = tokio::task::block_in_place(|| released.lock().unwrap().recv());
                        Ok(())
                    })
                })
                .await
        });
        runs.await.unwrap();
        Self { release: Some(release), done: Some(done) }
    }

    /// Lets the change end, and waits for its answer.
    pub(super) async fn release(mut self) {
        self.release = None;
        if let Some(done) = self.done.take() {
            done.await.unwrap().unwrap();
        }
    }
}

/// What the engine looked at for this transaction so far: steps of the embedded one, rows of a server.
pub(super) async fn looked_at(tx: &mut Tx) -> i64 {
    if matches!(tx.engine, Engine::Sqlite(_)) {
        return work::done();
    }
    let sql = "SELECT CAST(sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)) AS BIGINT) FROM pg_stat_xact_user_tables";
    tx.query_one(sql, &[]).await.unwrap().unwrap().columns("statistics").next().unwrap()
}

/// Live sessions, their records, and what is delegated to each of them, in chains of two.
pub(super) async fn crowd(store: &Store, from: i64, to: i64) {
    let numbers = "WITH RECURSIVE n (i) AS
        (SELECT CAST(?1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < CAST(?2 AS BIGINT))";
    let added: Result<(), StoreError> = store
        .commit(&zone("z-1"), (numbers, from, to), |tx, (numbers, from, to)| {
            Box::pin(async move {
                for insert in [
                    "INSERT INTO authority_records (zone_id, id, kind, subject_id, client_id, use_class, jti, status, expires_at,
                       created_at) NUMBERS SELECT 'z-1', 'r-' || i, 'application', 'app-1', 'app-1', 'subject', 'j-' || i, 'active',
                       4000000000000000, i FROM n",
                    "INSERT INTO agent_sessions (zone_id, id, application_id, subject_record_id, lifecycle, labels, metadata,
                       status, depth, ttl_seconds, started_at, last_active_at, lease_generation, updated_at, capacity_until)
                       NUMBERS SELECT 'z-1', 's-' || i, 'app-1', 'r-' || i, 'task', '[]', '{}', 'active', 0, 60, i, i, 0, i,
                       4000000000000000 FROM n",
                    "INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id,
                       receiver_application_id, parent_edge_id, mirrored, scopes, constraints_json, status, expires_at,
                       edge_version, created_at) NUMBERS SELECT 'z-1', 'e-' || i, 's-' || (i - i % 2), 's-' || i, 'app-1', 'app-1',
                       CASE WHEN i % 2 = 1 THEN 'e-' || (i - 1) ELSE NULL END, 0, '[]', '{}', 'active', 4000000000000000, 1, i
                       FROM n",
                ] {
                    tx.tx.append(&insert.replace("NUMBERS", numbers), params![*from, *to]).await?;
                }
                if !tx.tx.is_embedded() {
                    // What its upkeep does in its own time, and the runtime role may not.
                    for sql in ["RESET ROLE", "ANALYZE", "SET ROLE caracal_runtime"] {
                        tx.tx.append(sql, &[]).await?;
                    }
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}
