//! The store's handle.
//!
//! # The contract of the seam
//!
//! - *Reads.* [`Store::snapshot`] opens one transaction; everything read through it is consistent and carries one
//!   time. It sees every change that was acknowledged before it was opened.
//! - *Changes.* [`Store::commit`] and [`Store::commit_deployment`] run one named change in one transaction, serialised
//!   with all others of its zone and with all of the deployment. The change sees the newest state. When it returns
//!   `Ok`, everything it wrote is durable (it survives power loss) and every observer in this process has heard of it;
//!   when it returns `Err`, nothing it wrote is there. Two exceptions: a store that stops for good because a sync
//!   failed or an observer did, where what the last group wrote may turn up once the store is opened again; and a
//!   database server that was lost between "commit" and its answer and does not come back in time, which is said as
//!   [`StoreError::Unavailable`]. Callers that went away do not cancel their change.
//! - *Failed statements.* A change whose statement failed, fails. It can't catch the error and go on.
//! - *Retries.* A change is a function of its input and may be run again by an engine that has to retry; it must not
//!   have effects beyond the transaction. Callers never retry.
//! - *Time.* A transaction carries the store's own time; no caller passes one in.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use caracal_authority::{Timestamp, ZoneId};
use tokio::sync::oneshot;

use crate::ahead::Named;
use crate::clock::Clock;
use crate::directory;
use crate::effects::Observer;
use crate::embedded::{Embedded, Reader};
use crate::error::{OpenError, StoreError};
use crate::facts::Memory;
use crate::migrations;
use crate::postgres::{Lane, Postgres, PostgresOptions, Seat};
use crate::sqlite::SqliteOptions;
use crate::tx::{DeploymentRead, DeploymentWrite, Engine, Tx, ZoneRead, ZoneWrite};
use crate::version::{Versions, ZoneVersion};
use crate::writer::{Job, Shared, run_now, stopped};

/// A boxed future that borrows from the transaction and the change's input.
pub type BoxFuture<'t, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 't>>;

/// Product state. Cloning is cheap; all clones speak to the same engine.
#[derive(Clone)]
pub struct Store {
    engine: Handle,
}

#[derive(Clone)]
enum Handle {
    Embedded(Arc<Embedded>),
    Postgres(Arc<Postgres>),
}

impl Store {
    /// Opens the embedded store, creating it when the directory has none. Blocks; call it before serving.
    pub fn open(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_kind(options, clock, directory::Kind::Store)
    }

    pub(crate) fn open_kind(
        options: &SqliteOptions,
        clock: Arc<dyn Clock>,
        kind: directory::Kind,
    ) -> Result<Self, OpenError> {
        Embedded::open(options, clock, kind).map(|embedded| Self { engine: Handle::Embedded(Arc::new(embedded)) })
    }

    /// Opens a store on a PostgreSQL server, bringing its schema up to date where this login may.
    pub async fn open_postgres(options: PostgresOptions) -> Result<Self, OpenError> {
        Postgres::open(options).await.map(|postgres| Self { engine: Handle::Postgres(Arc::new(postgres)) })
    }

    fn shared(&self) -> &Shared {
        match &self.engine {
            Handle::Embedded(embedded) => embedded.shared(),
            Handle::Postgres(postgres) => postgres.shared(),
        }
    }

    /// Whether other processes can change this store too: then what this process hears of commits is not all there is.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Handle::Postgres(_))
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.shared().clock.now()
    }

    /// Adds someone who is told of every commit of this process, before its callers are.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared().observers.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Opens one consistent read transaction.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        match &self.engine {
            Handle::Embedded(embedded) => {
                let (tx, reader) = embedded.begin().await?;
                Ok(Snapshot { tx: Some(tx), reader: Some(reader) })
            }
            Handle::Postgres(postgres) => {
                let (tx, _) = Box::pin(postgres.begin(None)).await?;
                Ok(Snapshot { tx: Some(tx), reader: None })
            }
        }
    }

    /// Opens a read transaction to decide something of `zone` in, with the version that the decision has to be
    /// committed at: see [`ZoneWrite::is_at`]. What is `named` costs no further round trip to a server.
    pub async fn decision_snapshot(
        &self,
        zone: &ZoneId,
        named: &Named<'_>,
    ) -> Result<(ZoneVersion, Snapshot), StoreError> {
        match &self.engine {
            Handle::Embedded(embedded) => {
                // Taken first: the facts may be newer than the version, never older. And the page before the snapshot.
                let version = embedded.version(zone);
                let page = embedded.facts().page(zone);
                let mut snapshot = self.snapshot().await?;
                snapshot.tx().memory = Memory::filling(page, embedded.facts().shape(named));
                Ok((version, snapshot))
            }
            Handle::Postgres(postgres) => {
                let (tx, version) = Box::pin(postgres.begin(Some((zone, named)))).await?;
                Ok((version, Snapshot { tx: Some(tx), reader: None }))
            }
        }
    }

    /// The same without looking into the store, where everything that such a decision asks is in memory: none where it is not.
    /// See whether the snapshot [is incomplete](Snapshot::is_incomplete) before you go by what was read.
    pub fn remembered_decision(&self, zone: &ZoneId, named: &Named<'_>) -> Option<(ZoneVersion, Snapshot)> {
        let Handle::Embedded(embedded) = &self.engine else { return None };
        let (version, shape) = (embedded.version(zone), embedded.facts().shape(named));
        let page = embedded.facts().page(zone);
        if !page.has(shape, named.record) || self.shared().stopped.is_set() {
            return None;
        }
        let mut tx = Tx::new(Engine::Remembered, self.now(), Versions::default());
        tx.memory = Memory::only(page, shape);
        Some((version, Snapshot { tx: Some(tx), reader: None }))
    }

    /// Runs one change of one zone. `change` is a function of `input` alone.
    pub async fn commit<I, T, E, F>(&self, zone: &ZoneId, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        self.submit(Lane::Zone(zone.clone()), input, InZone { zone: zone.clone(), change, upkeep: false }).await
    }

    /// Runs one change of one row, `row`, that gives and never takes, beside all other changes of its zone: a renewal. So
    /// each of its statements has to say in its condition what it relies on, and those that could take authority away are
    /// refused. On a server it is a transaction of its own: it holds nothing that another row's renewal would wait for.
    pub async fn commit_row<I, T, E, F>(&self, zone: &ZoneId, row: &str, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let lane = Lane::Row(zone.clone(), row.to_owned());
        self.submit(lane, input, InZone { zone: zone.clone(), change, upkeep: true }).await
    }

    /// Runs one change that spans zones or belongs to none.
    pub async fn commit_deployment<I, T, E, F>(&self, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut DeploymentWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        self.submit(Lane::Deployment, input, InDeployment { change, upkeep: false }).await
    }

    /// Runs one change of what no decision is made on: messages that were sent, marks and receipts past their time, a
    /// mark whose key alone makes it single. Other changes may run at the same time, and read it half done or not at
    /// all; statements that could take authority away are refused.
    pub async fn commit_upkeep<I, T, E, F>(&self, input: I, change: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut DeploymentWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        self.submit(Lane::Upkeep, input, InDeployment { change, upkeep: true }).await
    }

    /// Makes this process the one that does `job`, if no other is. The store's word holds until the value is dropped,
    /// the process ends or its connection is lost: look with [`Election::holds`] before each piece of work.
    pub async fn elect(&self, job: &'static str) -> Result<Option<Election>, StoreError> {
        match &self.engine {
            // The only process there is.
            Handle::Embedded(_) => Ok(Some(Election { seat: None })),
            Handle::Postgres(postgres) => {
                Ok(Box::pin(postgres.elect(job)).await?.map(|seat| Election { seat: Some(seat) }))
            }
        }
    }

    async fn submit<I, T, E, R>(&self, lane: Lane, input: I, run: R) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        R: Run<I, T, E> + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let change = Box::new(Change { input, run, reply, result: None });
        match &self.engine {
            Handle::Embedded(embedded) => embedded.submit(change).await?,
            Handle::Postgres(postgres) => Box::pin(postgres.submit(lane, change)).await?,
        }
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    /// Whether reads and changes are being served; the error says why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.shared().stopped.is_set() {
            return Err(stopped());
        }
        if let Handle::Postgres(postgres) = &self.engine {
            Box::pin(postgres.look()).await?;
        }
        let mut snapshot = self.snapshot().await?;
        snapshot.tx().query("SELECT count(*) FROM deployment", &[]).await.map(|_| ())
    }

    /// Durable commits since the store was opened. Each carries one or more changes, see [`Store::changes`].
    pub fn commits(&self) -> u64 {
        self.shared().counts.commits.load(Ordering::Relaxed)
    }

    /// Changes made durable since the store was opened. Divided by [`Store::commits`]: how many shared one sync.
    pub fn changes(&self) -> u64 {
        self.shared().counts.changes.load(Ordering::Relaxed)
    }

    /// How often a transaction waited for an answer of a database server since the store was opened; 0 embedded.
    pub fn round_trips(&self) -> u64 {
        match &self.engine {
            Handle::Embedded(_) => 0,
            Handle::Postgres(postgres) => postgres.round_trips(),
        }
    }

    /// Changes that wait for their turn now.
    pub fn waiting(&self) -> usize {
        match &self.engine {
            Handle::Embedded(embedded) => embedded.waiting(),
            Handle::Postgres(postgres) => postgres.waiting(),
        }
    }

    /// The connections that transactions share. An embedded store has one more, for changes.
    pub fn connections(&self) -> Connections {
        match &self.engine {
            Handle::Embedded(embedded) => embedded.connections(),
            Handle::Postgres(postgres) => postgres.connections(),
        }
    }

    /// Finishes every change that was submitted, then closes. Later calls are refused. Returns, to every caller, when
    /// the last change has ended; snapshots that are open then can still be read.
    pub async fn close(&self) {
        match &self.engine {
            Handle::Embedded(embedded) => embedded.close().await,
            Handle::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// How many connections a store has, and how many of them carry a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Beyond which transactions wait.
    pub all: usize,
    /// Those with a transaction.
    pub in_use: usize,
}

/// This process is the one that does a job, as long as [`holds`](Self::holds) says so.
pub struct Election {
    seat: Option<Seat>,
}

impl Election {
    /// Whether the store still says so.
    pub async fn holds(&self) -> bool {
        match &self.seat {
            None => true,
            Some(seat) => Box::pin(seat.holds()).await,
        }
    }
}

/// One consistent read transaction. Dropping it gives its connection back.
pub struct Snapshot {
    tx: Option<Tx>,
    /// Where an embedded connection goes back to; a session of a server knows that itself.
    reader: Option<Reader>,
}

impl Snapshot {
    /// Reads of one zone.
    pub fn zone(&mut self, zone: &ZoneId) -> ZoneRead<'_> {
        ZoneRead::new(self.tx(), zone.clone())
    }

    /// Reads across zones.
    pub fn deployment(&mut self) -> DeploymentRead<'_> {
        DeploymentRead::new(self.tx())
    }

    /// The store's time when the snapshot was opened.
    pub fn now(&mut self) -> Timestamp {
        self.tx().now
    }

    /// Whether something was asked of a [`remembered_decision`](Store::remembered_decision) that was not in memory. Then whatever
    /// came of it is void, and the store has to be asked.
    pub fn is_incomplete(&mut self) -> bool {
        self.tx().memory.has_missed()
    }

    #[allow(clippy::expect_used, reason = "the transaction is taken only by drop")]
    fn tx(&mut self) -> &mut Tx {
        self.tx.as_mut().expect("present until dropped")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(Tx { engine, memory, failed, .. }) = self.tx.take() else { return };
        memory.conclude(failed);
        if let (Engine::Sqlite(connection), Some(reader)) = (engine, self.reader.take()) {
            reader.give_back(connection);
        }
    }
}

/// Looks into a store's file from outside: no lock, no migration, no change. For the offline verifier, and for copies
/// of a running store (the database and its `-wal` file together).
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let connection = directory::open_for_inspection(path)?;
    migrations::show_as_current(&connection, path)?;
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
        run_now(read(&mut DeploymentRead::new(&mut self.tx)))
    }
}

/// A change as the caller wrote it, with what it is confined to.
trait Run<I, T, E>: Send + Sync {
    fn run<'t>(&'t self, tx: &'t mut Tx, input: &'t I) -> BoxFuture<'t, Result<T, E>>;
}

struct InZone<F> {
    zone: ZoneId,
    change: F,
    upkeep: bool,
}

impl<I, T, E, F> Run<I, T, E> for InZone<F>
where
    I: Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
{
    fn run<'t>(&'t self, tx: &'t mut Tx, input: &'t I) -> BoxFuture<'t, Result<T, E>> {
        tx.upkeep = self.upkeep;
        Box::pin(async move { (self.change)(&mut ZoneWrite::new(tx, self.zone.clone()), input).await })
    }
}

struct InDeployment<F> {
    change: F,
    upkeep: bool,
}

impl<I, T, E, F> Run<I, T, E> for InDeployment<F>
where
    I: Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: for<'t> Fn(&'t mut DeploymentWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
{
    fn run<'t>(&'t self, tx: &'t mut Tx, input: &'t I) -> BoxFuture<'t, Result<T, E>> {
        tx.upkeep = self.upkeep;
        Box::pin(async move { (self.change)(&mut DeploymentWrite::new(tx), input).await })
    }
}

struct Change<I, T, E, R> {
    input: I,
    run: R,
    reply: oneshot::Sender<Result<T, E>>,
    result: Option<Result<T, E>>,
}

impl<I, T, E, R> Job for Change<I, T, E, R>
where
    I: Send + Sync + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
    R: Run<I, T, E>,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool> {
        Box::pin(async move {
            self.result = None;
            tx.failed = false;
            let mut result = self.run.run(tx, &self.input).await;
            if tx.failed && result.is_ok() {
                let reason = "a change went on after one of its statements had failed".to_owned();
                result = Err(StoreError::Statement { reason }.into());
            }
            let keep = result.is_ok();
            self.result = Some(result);
            keep
        })
    }

    fn settle(self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (failure, self.result) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(result)) => result,
            (None, None) => {
                let reason = "the change panicked, or awaited something other than the store".to_owned();
                Err(StoreError::Statement { reason }.into())
            }
        };
        // A caller that went away does not need the answer; its change stands.
        let _ = self.reply.send(answer);
    }
}
