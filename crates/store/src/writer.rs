//! Group commit. One thread owns the writing connection. It takes every change that is waiting, runs each in a
//! savepoint of one transaction, commits once, and only then answers: concurrent changes share one sync.
//!
//! A change that fails is rolled back to its savepoint and does not disturb the others of its group. Answers, failures
//! included, leave only after the commit, because a change may have judged by what another of its group wrote.
//! When the commit itself fails, nobody's change happened. After a failed sync the engine's idea of what is on disk
//! can't be trusted, so the writer stops for good and every later change is refused; it never retries into success.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, Waker};

use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::effects::Observer;
use crate::error::StoreError;
use crate::tx::{Engine, Tx};
use crate::version::Versions;

/// Changes that share one commit, at most.
const GROUP: usize = 256;

/// A change waiting for its turn.
pub(crate) trait Job: Send {
    /// Runs the change inside its savepoint. `true` keeps what it wrote.
    fn run(&mut self, tx: &mut Tx) -> bool;
    /// Answers the caller, with the commit's failure if there was one.
    fn settle(self: Box<Self>, failure: Option<StoreError>);
}

pub(crate) type Observers = Arc<RwLock<Vec<Arc<dyn Observer>>>>;

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) jobs: mpsc::Receiver<Box<dyn Job>>,
    pub(crate) observers: Observers,
    /// What readers may know of the zones' versions: those of committed groups.
    pub(crate) published: Arc<RwLock<Versions>>,
    pub(crate) versions: Versions,
    /// Set once a sync has failed.
    pub(crate) stopped: Arc<AtomicBool>,
}

impl Writer {
    /// Serves until every sender is gone.
    pub(crate) fn serve(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            if self.stopped.load(Ordering::SeqCst) {
                first.settle(Some(stopped()));
                continue;
            }
            self = self.serve_group(first);
        }
    }

    fn serve_group(mut self, first: Box<dyn Job>) -> Self {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            first.settle(Some(error.into()));
            return self;
        }
        let versions = std::mem::take(&mut self.versions);
        let mut tx = Tx::new(Engine::Sqlite(self.connection), self.clock.now(), versions);
        let mut done = Vec::new();
        let mut kept = false;
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            kept |= run_in_savepoint(&mut tx, job.as_mut(), self.clock.as_ref());
            done.push(job);
            if done.len() < GROUP {
                next = self.jobs.try_recv().ok();
            }
        }
        let Engine::Sqlite(connection) = tx.engine;
        self.connection = connection;
        self.versions = tx.versions;
        let failure = if kept {
            self.commit()
        } else {
            let _ = self.connection.execute_batch("ROLLBACK");
            None
        };
        // A version that moved for a change that was rolled back costs others a second look, nothing more.
        self.published.write().unwrap_or_else(std::sync::PoisonError::into_inner).publish(&self.versions, tx.moved);
        if failure.is_none() && !tx.effects.is_empty() {
            let observers = self.observers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            for observer in observers.iter() {
                observer.committed(&tx.effects);
            }
        }
        for job in done {
            job.settle(failure.clone());
        }
        self
    }

    fn commit(&self) -> Option<StoreError> {
        let error = self.connection.execute_batch("COMMIT").err()?;
        let sync_failed = error.sqlite_error().is_some_and(|failure| {
            matches!(failure.extended_code, rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC)
        });
        if sync_failed || (!self.connection.is_autocommit() && self.connection.execute_batch("ROLLBACK").is_err()) {
            tracing::error!(%error, "a commit could not be made durable; the store accepts no further change");
            self.stopped.store(true, Ordering::SeqCst);
        }
        Some(StoreError::from(error)).map(|error| match error {
            StoreError::Unavailable { .. } => error,
            other => StoreError::Unavailable { reason: other.to_string() },
        })
    }
}

fn run_in_savepoint(tx: &mut Tx, job: &mut dyn Job, clock: &dyn Clock) -> bool {
    tx.now = clock.now();
    let before = (tx.effects.messages.len(), tx.effects.heads.len());
    if savepoint(tx, "SAVEPOINT change").is_err() {
        return false;
    }
    let keep = catch_unwind(AssertUnwindSafe(|| job.run(tx))).unwrap_or_else(|panic| {
        tracing::error!(panic = panic_text(&panic), "a change panicked and was rolled back");
        false
    });
    if keep {
        return savepoint(tx, "RELEASE change").is_ok();
    }
    tx.effects.messages.truncate(before.0);
    tx.effects.heads.truncate(before.1);
    let _ = savepoint(tx, "ROLLBACK TO change");
    let _ = savepoint(tx, "RELEASE change");
    false
}

fn savepoint(tx: &mut Tx, sql: &str) -> Result<(), StoreError> {
    let Engine::Sqlite(connection) = &mut tx.engine;
    Ok(connection.prepare_cached(sql)?.raw_execute().map(|_| ())?)
}

fn panic_text(panic: &Box<dyn Any + Send>) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

pub(crate) fn stopped() -> StoreError {
    StoreError::Unavailable { reason: "the store has stopped".to_owned() }
}

/// Runs a future that waits for nothing but the embedded engine, which never makes it wait.
pub(crate) fn run_now<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(awaited_elsewhere()),
    }
}

pub(crate) fn awaited_elsewhere() -> StoreError {
    StoreError::Statement { reason: "a change awaited something other than the store".to_owned() }
}
