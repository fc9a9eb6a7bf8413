//! The engine on a PostgreSQL server, shared by any number of processes.
//!
//! Two replicas start a session and end another in one zone at once. Each runs its change in a transaction that first
//! takes the zone's lock, so the second one waits, and then reads what the first one committed: statements are read at
//! the time they run (READ COMMITTED), and nobody else changes the zone meanwhile. Changes of the whole deployment
//! take one lock against everybody. So changes are serialised as the seam promises, without a retry, and a lock goes
//! away with the connection that held it.
//!
//! - [`pool`]: connections, each with the statements it has prepared.
//! - [`session`]: one transaction on one of them; statements carry the zone they speak for, which row-level security
//!   checks.
//! - [`lanes`]: group commit. Changes of a zone that wait in this process share one transaction and one sync.
//! - [`election`]: jobs that one process does at a time.
//! - [`fate`]: what became of a commit whose answer was lost.
//! - [`lineage`]: a server that comes back with less than was seen of it is told from the one that was left.
//! - [`arrival`]: the transaction in which a whole store moves in.
//! - [`schema`]: migrations, roles and rights; what a server must be like.

mod arrival;
mod election;
mod fate;
mod lanes;
mod lineage;
mod options;
mod pool;
mod schema;
mod session;
mod tls;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caracal_authority::ZoneId;
use tokio::sync::Semaphore;

pub(crate) use arrival::{Array, Arrival, Arrived};
pub(crate) use election::Seat;
pub(crate) use lanes::Lane;
pub use options::PostgresOptions;
pub use schema::MigrationReport;
pub(crate) use session::Session;

use crate::ahead::Named;
use crate::error::{OpenError, StoreError};
use crate::store::Connections;
use crate::tx::{Engine, Tx};
use crate::version::{Versions, ZoneVersion};
use crate::writer::{Job, Shared, stopped};
use lanes::Lanes;
use pool::Pool;
use session::ServerClock;

/// The role that every connection of a running system works as, whoever logged in.
pub(crate) const RUNTIME_ROLE: &str = "caracal_runtime";

/// An open store on a server.
pub(crate) struct Postgres {
    shared: Shared,
    pool: Arc<Pool>,
    time: ServerClock,
    lanes: Arc<Lanes>,
    /// Reads at once. Changes have connections of their own, so that readers never keep a revocation waiting.
    readers: Arc<Semaphore>,
}

impl Postgres {
    pub(crate) async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        let (time, clock) = ServerClock::new(options.clock.clone(), options.local_clock.clone());
        let pool = Pool::open(options).await?;
        clock.has_been(pool.latest().await?);
        let (readers, writers) = pool.shares();
        let shared = Shared { stopped: pool.lineage.stopped.clone(), ..Shared::new(clock) };
        let lanes = Arc::new(Lanes::new(shared.clone(), pool.clone(), time.clone(), writers));
        Ok(Self { shared, pool, time, lanes, readers: Arc::new(Semaphore::new(readers)) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Opens a read transaction; for a decision, with the version of its zone and what is named of it.
    pub(crate) async fn begin(&self, decision: Option<(&ZoneId, &Named<'_>)>) -> Result<(Tx, ZoneVersion), StoreError> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| stopped())?;
        if self.shared.stopped.is_set() {
            return Err(stopped());
        }
        let zone = decision.map(|(zone, _)| zone);
        let asks = decision.map_or_else(Vec::new, |(zone, named)| named.asks(zone));
        let (session, begun, answers) = Session::begin_read(&self.pool, permit, zone, &asks, &self.time).await?;
        let version = begun.version();
        let mut tx = Tx::new(Engine::Postgres(Box::new(session)), begun.now, Versions::default());
        if let Some(zone) = zone {
            asks.into_iter().zip(answers).for_each(|(ask, rows)| tx.ahead.keep(zone, ask, rows));
        }
        Ok((tx, version))
    }

    /// Whether the server has all that was seen of it.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| stopped())?;
        Session::on(&self.pool, permit).await.map_err(|failure| failure.error)?.look_around().await
    }

    pub(crate) fn round_trips(&self) -> u64 {
        self.pool.round_trips.load(Ordering::Relaxed)
    }

    pub(crate) async fn submit(&self, lane: Lane, job: Box<dyn Job>) -> Result<(), StoreError> {
        self.lanes.submit(lane, job).await
    }

    pub(crate) async fn elect(&self, job: &str) -> Result<Option<Seat>, StoreError> {
        Seat::take(&self.pool, job).await
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lanes.waiting()
    }

    pub(crate) fn connections(&self) -> Connections {
        let (readers, writers) = self.pool.shares();
        let reading = readers.saturating_sub(self.readers.available_permits());
        Connections { all: readers + writers, in_use: reading + self.lanes.connections_in_use(writers) }
    }

    pub(crate) async fn close(&self) {
        self.lanes.close().await;
        self.readers.close();
        self.pool.close();
    }
}
