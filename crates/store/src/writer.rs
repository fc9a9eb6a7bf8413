//! Group commit. One thread owns the writing connection. It takes every change that is waiting, runs each in one
//! transaction, commits once, and only then answers: concurrent changes share one sync.
//!
//! A change that fails does not disturb the others of its group. Most do so before they have written anything, and leave
//! nothing to undo. Where one has written, the transaction is rolled back and the whole group run again, each change in a
//! savepoint of its own: a savepoint keeps a copy of every page that is changed under it, which is too much to pay for
//! what almost never happens. Answers, failures included, leave only after the commit, because a change may have judged
//! by what another of its group wrote.
//!
//! Three things end differently:
//!
//! - *The engine gives the transaction up by itself*, as SQLite does when space or memory runs out inside a statement.
//!   Whatever the group wrote is gone with it, so the whole group is refused, those that had succeeded included, and
//!   the next group starts afresh.
//! - *The commit fails.* Nobody's change happened. After a failed sync the engine's idea of what is on disk can't be
//!   trusted, so the writer stops for good and every later change is refused; it never retries into success.
//! - *An observer panics.* It may have missed a revocation that the caller would take for known, so here, too, the
//!   writer stops. A stopped store refuses every enforcement, which is what the observer can no longer guarantee.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use rusqlite::Connection;
use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::deployment;
use crate::effects::{Committed, Observer};
use crate::error::StoreError;
use crate::facts::Facts;
use crate::store::BoxFuture;
use crate::tx::{Engine, Mark, Tx};
use crate::version::Versions;

const BEGIN: &str = "BEGIN IMMEDIATE";

/// Changes that share one commit, at most.
pub(crate) const GROUP: usize = 256;

/// Changes that may wait for their turn before callers have to.
pub(crate) const WAITING: usize = 4096;

/// A change waiting for its turn.
pub(crate) trait Job: Send {
    /// Runs the change inside its savepoint, again where an engine has to. `true` keeps what it wrote.
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool>;
    /// Answers the caller, with the group's failure if there was one.
    fn settle(self: Box<Self>, failure: Option<StoreError>);
}

/// What the writer is told, in the order submitted.
pub(crate) enum Order {
    Change(Box<dyn Job>),
    /// Finish what was submitted before this, take nothing more.
    Stop,
}

/// The queue, from the writer's side.
pub(crate) struct Orders {
    queue: mpsc::Receiver<Order>,
    stopping: bool,
}

impl Orders {
    pub(crate) fn new(queue: mpsc::Receiver<Order>) -> Self {
        Self { queue, stopping: false }
    }

    /// The next change, waited for; none when there will be no other.
    fn next(&mut self) -> Option<Box<dyn Job>> {
        // Once it is told to stop, it waits for nothing: a caller that was promised room in the queue and is never
        // polled again would be waited for for ever.
        if !self.stopping {
            match self.queue.blocking_recv()? {
                Order::Change(job) => return Some(job),
                Order::Stop => self.stop(),
            }
        }
        self.next_waiting()
    }

    /// The next change, if it waits already.
    fn next_waiting(&mut self) -> Option<Box<dyn Job>> {
        loop {
            match self.queue.try_recv().ok()? {
                Order::Change(job) => return Some(job),
                Order::Stop => self.stop(),
            }
        }
    }

    fn stop(&mut self) {
        self.queue.close();
        self.stopping = true;
    }
}

pub(crate) type Observers = Arc<RwLock<Vec<Arc<dyn Observer>>>>;

/// How much was committed since the store was opened.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) commits: AtomicU64,
    pub(crate) changes: AtomicU64,
}

/// What an open store is, whichever engine it is on.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observers: Observers,
    pub(crate) counts: Arc<Counts>,
    pub(crate) stopped: Stopped,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, observers: Observers::default(), counts: Arc::default(), stopped: Stopped::default() }
    }

    /// Takes note of a durable commit of `kept` changes.
    pub(crate) fn count(&self, kept: u64) {
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.changes.fetch_add(kept, Ordering::Relaxed);
    }

    /// Tells everybody what a durable commit brought about.
    pub(crate) fn tell(&self, effects: &Committed) -> Result<(), StoreError> {
        if effects.is_empty() {
            return Ok(());
        }
        let mut heard = true;
        for observer in self.observers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            heard &= caught(|| observer.committed(effects), "an observer panicked").is_some();
        }
        if heard {
            return Ok(());
        }
        self.stopped.set("an observer did not take note of a commit");
        Err(stopped())
    }
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) orders: Orders,
    pub(crate) shared: Shared,
    /// What readers may know of the zones' versions: those of committed groups.
    pub(crate) published: Arc<RwLock<Versions>>,
    /// What of it decisions remember.
    pub(crate) facts: Arc<Facts>,
    /// Moves when another connection commits.
    pub(crate) data_version: Option<i64>,
    pub(crate) versions: Versions,
}

impl Writer {
    /// Serves until it is told to stop and nothing waits any more, or every sender is gone.
    pub(crate) fn serve(mut self) {
        // However this thread ends, nobody may take the store for alive afterwards.
        let _ended = StopsOnDrop(self.shared.stopped.clone());
        while let Some(first) = self.orders.next() {
            self = self.serve_group(first);
        }
    }

    fn serve_group(mut self, first: Box<dyn Job>) -> Self {
        if self.shared.stopped.is_set() {
            settle([first], Some(&stopped()));
            return self;
        }
        if let Err(error) = self.connection.execute_batch(BEGIN) {
            settle([first], Some(&unavailable(error)));
            return self;
        }
        if self.somebody_else_has_written() {
            self.facts.forget_all();
        }
        let versions = mem::take(&mut self.versions);
        let mut tx = Tx::new(Engine::Sqlite(self.connection), self.shared.clock.now(), versions);
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            group.add(&mut tx, job, self.shared.clock.as_ref());
            if group.lost.is_none() && group.done.len() < GROUP {
                next = self.orders.next_waiting();
            }
        }
        let Group { done, kept, lost, .. } = group;
        let Tx { engine, versions, moved, effects, touched, .. } = tx;
        let Engine::Sqlite(connection) = engine else { unreachable!("it was one when it went in") };
        self.connection = connection;
        self.versions = versions;
        let failure = match lost {
            Some(error) => {
                self.roll_back();
                Some(error)
            }
            None if kept > 0 => self.commit(kept).err(),
            None => {
                self.roll_back();
                None
            }
        };
        // Before the versions: who sees a new version must not see what was true before it.
        self.facts.renew(touched, failure.is_none());
        debug_assert!(self.facts.is_true(&self.connection), "what decisions remember is not what the store holds");
        // A version that moved for a change that was rolled back costs others a second look, nothing more.
        self.published.write().unwrap_or_else(PoisonError::into_inner).publish(&self.versions, moved);
        let failure = failure.or_else(|| self.shared.tell(&effects).err());
        settle(done, failure.as_ref());
        self
    }

    /// Whether another connection has committed since this was asked last. None of ours does, and nobody else's may: whoever
    /// works on the file of a running system is not to go unnoticed for ever.
    fn somebody_else_has_written(&mut self) -> bool {
        let asked = self.connection.prepare_cached("PRAGMA data_version");
        let version: Option<i64> = asked.and_then(|mut asked| asked.query_row([], |row| row.get(0))).ok();
        mem::replace(&mut self.data_version, version) != version
    }

    fn commit(&self, kept: u64) -> Result<(), StoreError> {
        let noted = deployment::note_time(&self.connection, self.shared.clock.now());
        match noted.and_then(|()| self.connection.execute_batch("COMMIT")) {
            Ok(()) => {
                self.shared.count(kept);
                Ok(())
            }
            Err(error) => {
                self.shared.stopped.set_if_sync_failed(&error);
                self.roll_back();
                Err(unavailable(error))
            }
        }
    }

    /// Ends a transaction of which nothing shall stay, unless the engine has ended it already.
    fn roll_back(&self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK")
            && !self.connection.is_autocommit()
        {
            // The next group would join a transaction that others were told has failed.
            self.shared.stopped.set(&format!("a transaction could not be rolled back: {error}"));
        }
    }
}

/// Changes of one transaction.
#[derive(Default)]
struct Group {
    done: Vec<Box<dyn Job>>,
    /// How many of them changed something, and stay.
    kept: u64,
    /// Why none of them stays.
    lost: Option<StoreError>,
    /// Whether one had to be undone, and so each has a savepoint.
    careful: bool,
}

impl Group {
    /// Runs one more change.
    fn add(&mut self, tx: &mut Tx, mut job: Box<dyn Job>, clock: &dyn Clock) {
        if !self.careful {
            match run(tx, job.as_mut(), clock) {
                Ran::Kept => self.kept += 1,
                Ran::LeftNothing => {}
                Ran::ToBeUndone => {
                    self.done.push(job);
                    return self.start_over(tx, clock);
                }
            }
        } else {
            self.add_in_savepoint(tx, job.as_mut(), clock);
        }
        self.done.push(job);
    }

    /// Undoes everything, and does it again with care.
    fn start_over(&mut self, tx: &mut Tx, clock: &dyn Clock) {
        self.careful = true;
        self.kept = 0;
        tx.back_to(Mark::default());
        if let Err(error) = begin_again(tx) {
            self.lost = Some(error);
            return;
        }
        let mut jobs = mem::take(&mut self.done);
        for job in &mut jobs {
            if self.lost.is_none() {
                self.add_in_savepoint(tx, job.as_mut(), clock);
            }
        }
        self.done = jobs;
    }

    fn add_in_savepoint(&mut self, tx: &mut Tx, job: &mut dyn Job, clock: &dyn Clock) {
        match run_in_savepoint(tx, job, clock) {
            Ok(keep) => self.kept += u64::from(keep),
            Err(error) => self.lost = Some(error),
        }
    }
}

/// What became of a change that was run without a savepoint.
enum Ran {
    Kept,
    /// It failed before it had written anything.
    LeftNothing,
    /// It failed, and something of it may be there; or the engine has given up the transaction.
    ToBeUndone,
}

fn run(tx: &mut Tx, job: &mut dyn Job, clock: &dyn Clock) -> Ran {
    tx.now = clock.now();
    let written = |tx: &Tx| match &tx.engine {
        Engine::Sqlite(connection) if !connection.is_autocommit() => Some(connection.total_changes()),
        _ => None,
    };
    let (before, effects) = (written(tx), tx.mark());
    if attempted(tx, job) {
        return Ran::Kept;
    }
    tx.back_to(effects);
    if before.is_some() && before == written(tx) { Ran::LeftNothing } else { Ran::ToBeUndone }
}

/// Runs the change. `true` if what it wrote shall stay.
fn attempted(tx: &mut Tx, job: &mut dyn Job) -> bool {
    caught(|| polled_once(job.run(tx)), "a change panicked and was rolled back").flatten().unwrap_or(false)
}

fn begin_again(tx: &mut Tx) -> Result<(), StoreError> {
    let Engine::Sqlite(connection) = &mut tx.engine else { return Err(awaited_elsewhere()) };
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(unavailable)?;
    }
    connection.execute_batch(BEGIN).map_err(unavailable)
}

/// Whether what the change wrote stays. An error says that the whole transaction is lost.
fn run_in_savepoint(tx: &mut Tx, job: &mut dyn Job, clock: &dyn Clock) -> Result<bool, StoreError> {
    tx.now = clock.now();
    let before = tx.mark();
    savepoint(tx, "SAVEPOINT change")?;
    let keep = attempted(tx, job);
    if !keep {
        tx.back_to(before);
        savepoint(tx, "ROLLBACK TO change")?;
    }
    // Where the engine gave up the transaction, the savepoint is gone, and this or the statement above fails. Ignoring
    // that would let the next savepoint open, and its release commit, a transaction of its own.
    savepoint(tx, "RELEASE change")?;
    Ok(keep)
}

fn savepoint(tx: &mut Tx, sql: &str) -> Result<(), StoreError> {
    let Engine::Sqlite(connection) = &mut tx.engine else { return Err(awaited_elsewhere()) };
    connection.prepare_cached(sql).and_then(|mut statement| statement.raw_execute()).map(|_| ()).map_err(unavailable)
}

/// Answers each caller. One whose error or value panics must not cost the others their answers.
pub(crate) fn settle(jobs: impl IntoIterator<Item = Box<dyn Job>>, failure: Option<&StoreError>) {
    for job in jobs {
        caught(|| job.settle(failure.cloned()), "a caller could not be answered");
    }
}

/// Set once, when no further change may be accepted.
#[derive(Clone, Default)]
pub(crate) struct Stopped(Arc<AtomicBool>);

impl Stopped {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, why: &str) {
        tracing::error!(why, "the store accepts no further change");
        self.0.store(true, Ordering::SeqCst);
    }

    fn set_if_sync_failed(&self, error: &rusqlite::Error) {
        let sync_failed = error
            .sqlite_error()
            .is_some_and(|failure| matches!(failure.extended_code, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC));
        if sync_failed {
            self.set(&format!("a commit could not be made durable: {error}"));
        }
    }
}

struct StopsOnDrop(Stopped);

impl Drop for StopsOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}

/// The result of `what`, unless it panics.
fn caught<T>(what: impl FnOnce() -> T, message: &'static str) -> Option<T> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| tracing::error!(panic = panic_text(&panic), "{message}")).ok()
}

pub(crate) fn panic_text(panic: &Box<dyn Any + Send>) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Whatever hinders the group's own statements hinders everybody's: it is never one change's mistake.
fn unavailable(error: rusqlite::Error) -> StoreError {
    match StoreError::from(error) {
        error @ StoreError::Unavailable { .. } => error,
        other => StoreError::Unavailable { reason: other.to_string() },
    }
}

pub(crate) fn stopped() -> StoreError {
    StoreError::Unavailable { reason: "the store has stopped".to_owned() }
}

/// Runs a future that waits for nothing but the embedded engine, which never makes it wait.
pub(crate) fn run_now<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    polled_once(future).unwrap_or_else(|| Err(awaited_elsewhere()))
}

/// What a future comes to that never has to wait; none if it has to.
fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn awaited_elsewhere() -> StoreError {
    StoreError::Statement { reason: "a change awaited something other than the store".to_owned() }
}

#[cfg(test)]
mod t08_availability {
    use rusqlite::ffi::{Error, SQLITE_FULL, SQLITE_IOERR_WRITE};

    use super::*;

    struct Witness(std::sync::mpsc::Sender<(bool, Option<StoreError>)>, bool);

    impl Job for Witness {
        fn run<'t>(&'t mut self, _: &'t mut Tx) -> BoxFuture<'t, bool> {
            self.1 = true;
            Box::pin(std::future::ready(true))
        }

        fn settle(self: Box<Self>, failure: Option<StoreError>) {
            let _ = self.0.send((self.1, failure));
        }
    }

    fn writer(stopped: Stopped, orders: mpsc::Receiver<Order>) -> Writer {
        Writer {
            connection: Connection::open_in_memory().unwrap(),
            orders: Orders::new(orders),
            shared: Shared { stopped, ..Shared::new(Arc::new(crate::clock::SystemClock)) },
            published: Arc::default(),
            facts: Arc::new(Facts::new()),
            data_version: None,
            versions: Versions::default(),
        }
    }

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(Error::new(extended_code), None)
    }

    #[test]
    fn after_a_failed_sync_no_change_is_run_again() {
        for code in [SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC] {
            let stopped = Stopped::default();
            stopped.set_if_sync_failed(&failure(code));
            let (submit, orders) = mpsc::channel(2);
            let (answer, answers) = std::sync::mpsc::channel();
            submit.try_send(Order::Change(Box::new(Witness(answer, false)))).unwrap();
            drop(submit);
            writer(stopped, orders).serve();
            let (ran, failure) = answers.recv().unwrap();
            assert!(!ran && matches!(failure, Some(StoreError::Unavailable { .. })), "{code}");
        }
    }

    #[test]
    fn a_full_disk_is_no_reason_to_stop() {
        for code in [SQLITE_FULL, SQLITE_IOERR_WRITE] {
            let stopped = Stopped::default();
            stopped.set_if_sync_failed(&failure(code));
            assert!(!stopped.is_set(), "{code}");
        }
    }

    #[test]
    fn a_writer_that_has_ended_is_known_to_have_stopped() {
        let stopped = Stopped::default();
        let (submit, orders) = mpsc::channel(1);
        drop(submit);
        writer(stopped.clone(), orders).serve();
        assert!(stopped.is_set());
    }
}
