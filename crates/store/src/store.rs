//! The store's handle.
//!
//! # The contract of the seam
//!
//! - *Reads.* [`Store::snapshot`] opens one transaction; everything read through it is consistent and carries one
//!   time. It sees every change that was acknowledged before it was opened.
//! - *Changes.* [`Store::commit`] and [`Store::commit_deployment`] run one named change in one transaction, serialised
//!   with all others. The change sees the newest state. When it returns `Ok`, everything it wrote is durable (it
//!   survives power loss) and every observer has heard of it; when it returns `Err`, nothing it wrote is there.
//! - *Retries.* A change is a function of its input and may be run again by an engine that has to retry; it must not
//!   have effects beyond the transaction. Callers never retry.
//! - *Time.* A transaction carries the store's own time; no caller passes one in.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use caracal_authority::{Timestamp, ZoneId};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::clock::Clock;
use crate::effects::Observer;
use crate::error::{OpenError, StoreError};
use crate::sqlite::{self, SqliteOptions};
use crate::tx::{DeploymentRead, DeploymentWrite, Engine, Tx, ZoneRead, ZoneWrite};
use crate::version::{Versions, ZoneVersion};
use crate::writer::{Job, Observers, Writer, awaited_elsewhere, run_now, stopped};

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
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Readers,
    observers: Observers,
    versions: Arc<RwLock<Versions>>,
    stopped: Arc<AtomicBool>,
    /// Held until the writer has closed its connection too: two processes never own one embedded store (threat T17).
    _lock: Arc<File>,
}

#[derive(Clone)]
struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Store {
    /// Opens the embedded store, creating it when the directory is empty. Blocks; call it before serving.
    pub fn open(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = sqlite::open(options, clock.as_ref())?;
        let (jobs, waiting) = mpsc::channel(WAITING);
        let observers: Observers = Arc::new(RwLock::new(Vec::new()));
        let versions = Arc::new(RwLock::new(Versions::default()));
        let stopped = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            connection: opened.writer,
            clock: clock.clone(),
            jobs: waiting,
            observers: observers.clone(),
            published: versions.clone(),
            versions: Versions::default(),
            stopped: stopped.clone(),
        };
        let lock = Arc::new(opened.lock);
        let held = lock.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                writer.serve();
                drop(held);
            })
            .map_err(|error| OpenError::Engine {
                path: options.database(),
                reason: format!("can't start the writer: {error}"),
            })?;
        let permits = Arc::new(Semaphore::new(opened.readers.len()));
        Ok(Self {
            inner: Arc::new(Inner {
                clock,
                jobs: Mutex::new(Some(jobs)),
                writer: Mutex::new(Some(thread)),
                readers: Readers { idle: Arc::new(Mutex::new(opened.readers)), permits },
                observers,
                versions,
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
        let begun = connection.prepare_cached("BEGIN DEFERRED").and_then(|mut begin| begin.raw_execute());
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
        let sender = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or_else(stopped)?;
        let (reply, answer) = oneshot::channel();
        let change = Change { run, reply, result: None };
        sender.send(Box::new(change)).await.map_err(|_| stopped())?;
        drop(sender);
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    /// Whether reads and changes are being served; the error says why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.inner.stopped.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        let mut snapshot = self.snapshot().await?;
        snapshot.tx().query("SELECT count(*) FROM deployment", &[]).await.map(|_| ())
    }

    /// Finishes every change that was submitted, then closes. Later calls are refused.
    pub async fn close(&self) {
        drop(self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        self.inner.readers.permits.close();
    }
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
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Looks into a store's file from outside: no lock, no migration, no change. For the offline verifier.
pub fn inspect(path: &std::path::Path) -> Result<Inspection, OpenError> {
    let connection = sqlite::open_for_inspection(path)?;
    Ok(Inspection {
        tx: Tx::new(Engine::Sqlite(connection), Timestamp::EPOCH, Versions::default()),
    })
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
