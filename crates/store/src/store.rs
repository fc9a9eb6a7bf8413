//! The store's handle.
//!
//! # The contract of the seam
//!
//! - *Reads.* [`Store::snapshot`] opens one transaction; everything read through it is consistent and carries one
//!   time. It sees every change that was acknowledged before it was opened.
//! - *Changes.* [`Store::commit`] and [`Store::commit_deployment`] run one named change in one transaction, serialised
//!   with all others. The change sees the newest state. When it returns `Ok`, everything it wrote is durable (it
//!   survives power loss) and every observer has heard of it; when it returns `Err`, nothing it wrote is there.
//!   The one exception is a store that stops for good because a sync failed or an observer did: what the last group
//!   wrote may turn up once the store is opened again, and until then nothing can be changed. Callers that went away
//!   do not cancel their change.
//! - *Retries.* A change is a function of its input and may be run again by an engine that has to retry; it must not
//!   have effects beyond the transaction. Callers never retry.
//! - *Time.* A transaction carries the store's own time; no caller passes one in.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use caracal_authority::{Timestamp, ZoneId};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::directory::{self, OpenDirectory};
use crate::effects::Observer;
use crate::error::{OpenError, StoreError};
use crate::sqlite::SqliteOptions;
use crate::tx::{DeploymentRead, DeploymentWrite, Engine, Tx, ZoneRead, ZoneWrite};
use crate::version::{Versions, ZoneVersion};
use crate::writer::{Counts, Job, Observers, Order, Orders, Stopped, Writer, awaited_elsewhere, run_now, stopped};

/// Changes that may wait for the writer before callers have to.
const WAITING: usize = 4096;

/// A boxed future that borrows from the transaction and the change's input.
pub type BoxFuture<'t, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 't>>;

/// Product state. Cloning is cheap; all clones speak to the same engine.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    /// Its sender is dropped when the writer has ended and its connection is closed.
    ended: watch::Receiver<()>,
    readers: Readers,
    observers: Observers,
    versions: Arc<RwLock<Versions>>,
    counts: Arc<Counts>,
    stopped: Stopped,
    /// Held until the writer has closed its connection too: two processes never own one embedded store (threat T17).
    _lock: Arc<File>,
}

#[derive(Clone)]
struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Store {
    /// Opens the embedded store, creating it when the directory has none. Blocks; call it before serving.
    pub fn open(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let OpenDirectory { lock, writer: connection, readers } = directory::open(options, clock.as_ref())?;
        let (orders, waiting) = mpsc::channel(WAITING);
        let (end, ended) = watch::channel(());
        let observers: Observers = Arc::new(RwLock::new(Vec::new()));
        let versions = Arc::new(RwLock::new(Versions::default()));
        let (counts, stopped) = (Arc::new(Counts::default()), Stopped::default());
        let writer = Writer {
            connection,
            clock: clock.clone(),
            orders: Orders::new(waiting),
            observers: observers.clone(),
            published: versions.clone(),
            versions: Versions::default(),
            counts: counts.clone(),
            stopped: stopped.clone(),
        };
        let lock = Arc::new(lock);
        let held = lock.clone();
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                // Dropped in reverse order, and also when the writer panics: connection, lock, then word of the end.
                let _end = end;
                let _held = held;
                writer.serve();
            })
            .map_err(|error| OpenError::Engine {
                path: options.database(),
                reason: format!("can't start the writer: {error}"),
            })?;
        let permits = Arc::new(Semaphore::new(readers.len()));
        Ok(Self {
            inner: Arc::new(Inner {
                clock,
                orders: Mutex::new(Some(orders)),
                ended,
                readers: Readers { idle: Arc::new(Mutex::new(readers)), permits },
                observers,
                versions,
                counts,
                stopped,
                _lock: lock,
            }),
        })
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Adds someone who is told of every commit, before its callers are.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner.observers.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Opens one consistent read transaction.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let readers = self.inner.readers.clone();
        let permit = readers.permits.clone().acquire_owned().await.map_err(|_| stopped())?;
        let connection = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(stopped)?;
        let begun = begin(&connection);
        // After the facts were fixed, so that nothing is judged by a time before them.
        let tx = Tx::new(Engine::Sqlite(connection), self.now(), Versions::default());
        let snapshot = Snapshot { tx: Some(tx), readers, _permit: permit };
        begun?;
        Ok(snapshot)
    }

    /// Opens a read transaction to decide something of `zone` in, with the version that the decision has to be
    /// committed at: see [`ZoneWrite::is_at`].
    pub async fn decision_snapshot(&self, zone: &ZoneId) -> Result<(ZoneVersion, Snapshot), StoreError> {
        // Taken first: the facts may be newer than the version, never older.
        let version = self.inner.versions.read().unwrap_or_else(PoisonError::into_inner).of(zone);
        Ok((version, self.snapshot().await?))
    }

    /// Runs one change of one zone. `change` is a function of `input` alone.
    pub async fn commit<I, T, E, F>(&self, zone: &ZoneId, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let zone = zone.clone();
        self.submit(move |tx: &mut Tx| poll_now(change(&mut ZoneWrite::new(tx, zone.clone()), &input))).await
    }

    /// Runs one change that spans zones or belongs to none.
    pub async fn commit_deployment<I, T, E, F>(&self, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut DeploymentWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        self.submit(move |tx: &mut Tx| poll_now(change(&mut DeploymentWrite::new(tx), &input))).await
    }

    async fn submit<T, E>(&self, run: impl FnMut(&mut Tx) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let orders = self.inner.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let orders = orders.ok_or_else(stopped)?;
        let (reply, answer) = oneshot::channel();
        let change = Change { run, reply, result: None };
        orders.send(Order::Change(Box::new(change))).await.map_err(|_| stopped())?;
        drop(orders);
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    /// Whether reads and changes are being served; the error says why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.inner.stopped.is_set() {
            return Err(stopped());
        }
        let mut snapshot = self.snapshot().await?;
        snapshot.tx().query("SELECT count(*) FROM deployment", &[]).await.map(|_| ())
    }

    /// Durable commits since the store was opened. Each carries one or more changes, see [`Store::changes`].
    pub fn commits(&self) -> u64 {
        self.inner.counts.commits.load(Ordering::Relaxed)
    }

    /// Changes made durable since the store was opened. Divided by [`Store::commits`]: how many shared one sync.
    pub fn changes(&self) -> u64 {
        self.inner.counts.changes.load(Ordering::Relaxed)
    }

    /// Changes that wait for the writer now.
    pub fn waiting(&self) -> usize {
        let orders = self.inner.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().map_or(0, |orders| orders.max_capacity() - orders.capacity())
    }

    /// Finishes every change that was submitted, then closes. Later calls are refused. Returns, to every caller, when
    /// the writer has ended; snapshots that are open then can still be read.
    pub async fn close(&self) {
        let orders = self.inner.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(orders) = orders {
            // Said rather than shown by dropping every sender: a caller that waits for room and is not polled any more
            // holds one, and must not keep the store open.
            let _ = orders.send(Order::Stop).await;
        }
        let mut ended = self.inner.ended.clone();
        while ended.changed().await.is_ok() {}
        self.inner.readers.permits.close();
        self.inner.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// `BEGIN` alone fixes nothing: SQLite opens the transaction at its first read. So one is made here, of a page that is
/// always in memory.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN DEFERRED")?.raw_execute()?;
    connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?.exists([]).map(|_| ())
}

/// One consistent read transaction. Dropping it gives its connection back.
pub struct Snapshot {
    tx: Option<Tx>,
    readers: Readers,
    _permit: OwnedSemaphorePermit,
}

impl Snapshot {
    /// Reads of one zone.
    pub fn zone(&mut self, zone: &ZoneId) -> ZoneRead<'_> {
        ZoneRead { tx: self.tx(), zone: zone.clone() }
    }

    /// Reads across zones.
    pub fn deployment(&mut self) -> DeploymentRead<'_> {
        DeploymentRead { tx: self.tx() }
    }

    /// The store's time when the snapshot was opened.
    pub fn now(&mut self) -> Timestamp {
        self.tx().now
    }

    #[allow(clippy::expect_used, reason = "the transaction is taken only by drop")]
    fn tx(&mut self) -> &mut Tx {
        self.tx.as_mut().expect("present until dropped")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(Tx { engine: Engine::Sqlite(connection), .. }) = self.tx.take() else {
            return;
        };
        let ended = connection.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.raw_execute());
        if ended.is_err() && !connection.is_autocommit() {
            // Still inside a transaction: the next reader would see an old state. Its place stays empty; readers that
            // find none say the store is unavailable.
            tracing::error!("a read transaction could not be ended; its connection is closed");
            return;
        }
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.readers.permits.is_closed() {
            idle.push(connection);
        }
    }
}

/// Looks into a store's file from outside: no lock, no migration, no change. For the offline verifier, and for copies
/// of a running store (the database and its `-wal` file together).
pub fn inspect(path: &std::path::Path) -> Result<Inspection, OpenError> {
    let connection = directory::open_for_inspection(path)?;
    Ok(Inspection { tx: Tx::new(Engine::Sqlite(connection), Timestamp::EPOCH, Versions::default()) })
}

/// An outsider's view of a store's file.
pub struct Inspection {
    tx: Tx,
}

impl Inspection {
    /// Runs a read to its end on this thread.
    pub fn run<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        run_now(read(&mut DeploymentRead { tx: &mut self.tx }))
    }
}

struct Change<T, E, R> {
    run: R,
    reply: oneshot::Sender<Result<T, E>>,
    result: Option<Result<T, E>>,
}

impl<T, E, R> Job for Change<T, E, R>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
    R: FnMut(&mut Tx) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Tx) -> bool {
        let result = (self.run)(tx);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn settle(self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (failure, self.result) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(result)) => result,
            (None, None) => Err(StoreError::Statement { reason: "the change did not finish".to_owned() }.into()),
        };
        // A caller that went away does not need the answer; its change stands.
        let _ = self.reply.send(answer);
    }
}

fn poll_now<T, E: From<StoreError>>(mut future: BoxFuture<'_, Result<T, E>>) -> Result<T, E> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(awaited_elsewhere().into()),
    }
}
