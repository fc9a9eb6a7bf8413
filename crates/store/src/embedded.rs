//! The embedded engine: one database file, one thread that writes, connections that read.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caracal_authority::ZoneId;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::clock::Clock;
use crate::deployment;
use crate::directory::{self, Kind, OpenDirectory};
use crate::error::{OpenError, StoreError};
use crate::facts::Facts;
use crate::sqlite::SqliteOptions;
use crate::store::Connections;
use crate::tx::{Engine, Tx};
use crate::version::{Versions, ZoneVersion};
use crate::writer::{Job, Order, Orders, Shared, WAITING, Writer, stopped};

pub(crate) struct Embedded {
    shared: Shared,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    /// Its sender is dropped when the writer has ended and its connection is closed.
    ended: watch::Receiver<()>,
    readers: Readers,
    versions: Arc<RwLock<Versions>>,
    facts: Arc<Facts>,
    /// Held until the writer has closed its connection too: two processes never own one embedded store (threat T17).
    _lock: Arc<File>,
}

#[derive(Clone)]
struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    all: usize,
}

impl Embedded {
    pub(crate) fn open(options: &SqliteOptions, clock: Arc<dyn Clock>, kind: Kind) -> Result<Self, OpenError> {
        let OpenDirectory { lock, writer: connection, readers } = directory::open(options, clock.as_ref(), kind)?;
        let latest = deployment::latest(&connection).map_err(directory::engine(&options.database()))?;
        if let Some(latest) = latest {
            clock.has_been(latest);
        }
        let (orders, waiting) = mpsc::channel(WAITING);
        let (end, ended) = watch::channel(());
        let shared = Shared::new(clock);
        let versions = Arc::new(RwLock::new(Versions::default()));
        let facts = Arc::new(Facts::new());
        let writer = Writer {
            connection,
            orders: Orders::new(waiting),
            shared: shared.clone(),
            published: versions.clone(),
            facts: facts.clone(),
            data_version: None,
            versions: Versions::default(),
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
        let (all, permits) = (readers.len(), Arc::new(Semaphore::new(readers.len())));
        let readers = Readers { idle: Arc::new(Mutex::new(readers)), permits, all };
        Ok(Self { shared, orders: Mutex::new(Some(orders)), ended, readers, versions, facts, _lock: lock })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What committed changes have made of the zone's version.
    pub(crate) fn version(&self, zone: &ZoneId) -> ZoneVersion {
        self.versions.read().unwrap_or_else(PoisonError::into_inner).of(zone)
    }

    /// What decisions were made on.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) async fn begin(&self) -> Result<(Tx, Reader), StoreError> {
        let readers = self.readers.clone();
        let permit = readers.permits.clone().acquire_owned().await.map_err(|_| stopped())?;
        let connection = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(stopped)?;
        let reader = Reader { readers, _permit: permit };
        if let Err(error) = begin(&connection) {
            reader.give_back(connection);
            return Err(error.into());
        }
        // After the facts were fixed, so that nothing is judged by a time before them.
        let tx = Tx::new(Engine::Sqlite(connection), self.shared.clock.now(), Versions::default());
        Ok((tx, reader))
    }

    pub(crate) async fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let orders = orders.ok_or_else(stopped)?;
        orders.send(Order::Change(job)).await.map_err(|_| stopped())
    }

    pub(crate) fn waiting(&self) -> usize {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().map_or(0, |orders| orders.max_capacity() - orders.capacity())
    }

    pub(crate) fn connections(&self) -> Connections {
        let Readers { permits, all, .. } = &self.readers;
        Connections { all: *all, in_use: all.saturating_sub(permits.available_permits()) }
    }

    pub(crate) async fn close(&self) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(orders) = orders {
            // Said rather than shown by dropping every sender: a caller that waits for room and is not polled any more
            // holds one, and must not keep the store open.
            let _ = orders.send(Order::Stop).await;
        }
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
        self.readers.permits.close();
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// `BEGIN` alone fixes nothing: SQLite opens the transaction at its first read. So one is made here, of a page that is
/// always in memory.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN DEFERRED")?.raw_execute()?;
    connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?.exists([]).map(|_| ())
}

/// The place that a reading connection goes back to.
pub(crate) struct Reader {
    readers: Readers,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Ends the connection's transaction.
    pub(crate) fn give_back(self, connection: Connection) {
        if !connection.is_autocommit() {
            let ended = connection.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.raw_execute());
            if ended.is_err() && !connection.is_autocommit() {
                // Still inside a transaction: the next reader would see an old state. Its place stays empty; readers
                // that find none say the store is unavailable.
                tracing::error!("a read transaction could not be ended; its connection is closed");
                return;
            }
        }
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.readers.permits.is_closed() {
            idle.push(connection);
        }
    }
}
