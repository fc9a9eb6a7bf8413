//! One transaction on one connection.
//!
//! What opens a transaction and its first statement travel together, and so do a change of zone and the statement that
//! needed it: the server works through them in order, and only the last answer is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::fate::Sought;
use super::pool::{Connection, Pool};
use super::wire::{Failure, read};
use crate::ahead::Ask;
use crate::clock::{Clock, SteadyClock};
use crate::error::StoreError;
use crate::value::{Bind, Param, Row};
use crate::version::{Versions, ZoneVersion};

/// Beyond its own limit the server gets this long to say that a statement ran out of time.
const GRACE: Duration = Duration::from_secs(2);

/// For how long time may stand still, in microseconds, because the server's clock was set back. Whatever is alive lives on
/// meanwhile; further back nothing is decided.
const STANDS_STILL: i64 = 2 * 3_600 * 1_000_000;

/// Whom statements of the deployment speak for: row-level security lets them see every zone.
const EVERY_ZONE: &str = "*";

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const SET_ZONE: &str = "SELECT set_config('caracal.zone', ?1, true)";

/// The store's time, the deployment's version, and that of the zone named. And whether the server takes no changes: what a
/// standby says may be long past.
const STATE: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint),
                            COALESCE((SELECT version FROM zone_versions WHERE zone_id = ''), 0),
                            COALESCE((SELECT version FROM zone_versions WHERE zone_id = ?1), 0), 0::bigint,
                            pg_is_in_recovery() OR CAST(current_setting('default_transaction_read_only') AS boolean)";

/// The same, and the number under which the server remembers how the transaction ended. A row that commits with it says
/// whose the number was: a server that crashed gives out again what it had not yet written down. And what time it has been:
/// see [`Pool::latest`](super::pool::Pool::latest).
const STATE_TO_CHANGE: &str = "WITH own AS (
                              INSERT INTO last_commits (connection, transaction, at)
                              VALUES (?2, CAST(CAST(pg_current_xact_id() AS text) AS bigint),
                                      CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))
                              ON CONFLICT (connection)
                              DO UPDATE SET transaction = excluded.transaction, at = greatest(last_commits.at, excluded.at))
                            SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint),
                            COALESCE((SELECT version FROM zone_versions WHERE zone_id = ''), 0),
                            COALESCE((SELECT version FROM zone_versions WHERE zone_id = ?1), 0),
                            CAST(CAST(pg_current_xact_id() AS text) AS bigint), false";

/// An open transaction. Dropping it rolls back and gives the connection away.
pub(crate) struct Session {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    /// Whom the server takes the statements to speak for.
    zone: String,
    limit: Duration,
    /// What made the transaction unusable.
    fault: Option<Fault>,
    _permit: OwnedSemaphorePermit,
}

/// Why a transaction has to end.
pub(super) struct Fault {
    pub(super) error: StoreError,
    /// Whether running it again can help.
    pub(super) again: bool,
}

/// What a transaction began with.
pub(super) struct Begun {
    pub(super) now: Timestamp,
    /// By the server's clock, microseconds.
    pub(super) at: i64,
    pub(super) deployment: u64,
    pub(super) zone: u64,
    /// 0 of a transaction that only reads.
    pub(super) transaction: i64,
}

impl Begun {
    pub(super) fn version(&self) -> ZoneVersion {
        ZoneVersion::new(self.deployment, self.zone)
    }

    /// The versions that are known to a change of `zone`.
    pub(super) fn versions(&self, zone: Option<&ZoneId>) -> Versions {
        let mut versions = Versions::default();
        versions.learn_deployment(self.deployment);
        if let Some(zone) = zone {
            versions.learn(zone, self.zone);
        }
        versions
    }
}

impl Session {
    /// Opens a transaction that reads one instant of the store.
    pub(super) async fn begin_read(
        pool: &Arc<Pool>,
        permit: OwnedSemaphorePermit,
        zone: Option<&ZoneId>,
        asks: &[Ask],
        time: &ServerClock,
    ) -> Result<(Self, Begun, Vec<Vec<Row>>), StoreError> {
        let mut session = Self::on(pool, permit).await.map_err(|failure| failure.error)?;
        match session.begin(READ, STATE, zone, asks, time).await {
            Ok((begun, answers)) => Ok((session, begun, answers)),
            // An idle connection can have died without a word, as when the server was restarted. Nothing was read yet.
            Err(_) if session.fault.as_ref().is_some_and(|fault| fault.again) => {
                session.connection = Some(pool.connect().await.map_err(|failure| failure.error)?);
                session.fault = None;
                let (begun, answers) = session.begin(READ, STATE, zone, asks, time).await?;
                Ok((session, begun, answers))
            }
            Err(error) => Err(error),
        }
    }

    /// A connection outside any transaction.
    pub(super) async fn on(pool: &Arc<Pool>, permit: OwnedSemaphorePermit) -> Result<Self, Failure> {
        let connection = pool.get().await?;
        let limit = pool.options.statement_timeout.saturating_add(GRACE);
        let zone = String::new();
        Ok(Self { connection: Some(connection), pool: pool.clone(), zone, limit, fault: None, _permit: permit })
    }

    /// Opens a transaction that changes the store, with the statements `begin`.
    pub(super) async fn begin_change(
        &mut self,
        begin: &str,
        zone: Option<&ZoneId>,
        time: &ServerClock,
    ) -> Result<Begun, StoreError> {
        self.begin(begin, STATE_TO_CHANGE, zone, &[], time).await.map(|(begun, _)| begun)
    }

    /// Runs `begin`, then reads the state of things and what is asked besides, in one round trip.
    async fn begin(
        &mut self,
        begin: &str,
        state: &str,
        zone: Option<&ZoneId>,
        asks: &[Ask],
        time: &ServerClock,
    ) -> Result<(Begun, Vec<Vec<Row>>), StoreError> {
        self.zone.clear();
        let id = zone.map_or("", ZoneId::as_str);
        let params: Vec<Vec<Param<'_>>> = asks.iter().map(|ask| ask.params.iter().map(Bind::bind).collect()).collect();
        let params: Vec<_> = params.iter().map(|params| as_wire(params)).collect();
        let floor = self.pool.lineage.floor(id);
        let (rows, answers) = self
            .run(async |connection: &mut Connection| {
                let state = connection.statement(state).await?;
                let set = connection.statement(SET_ZONE).await?;
                let mut statements = Vec::with_capacity(asks.len());
                for ask in asks {
                    statements.push(connection.statement(&ask.sql).await?);
                }
                let scope = zone.map_or(EVERY_ZONE, ZoneId::as_str);
                let client = &connection.client;
                let begun = client.batch_execute(begin);
                let scope: Params<'_, 1> = [&scope];
                let scoped = client.execute(&set, &scope);
                let known: Params<'_, 2> = [&id, &connection.name];
                let read = client.query(&state, known.get(..state.params().len()).unwrap_or_default());
                // Polled in this order, and so sent in it.
                let asked = join_all(statements.iter().zip(&params).map(|(ask, params)| client.query(ask, params)));
                let (begun, (scoped, (read, asked))) = join(begun, join(scoped, join(read, asked))).await;
                begun?;
                scoped?;
                Ok((read?, asked.into_iter().collect::<Result<Vec<_>, _>>()?))
            })
            .await?;
        self.zone = zone.map_or(EVERY_ZONE, ZoneId::as_str).to_owned();
        let row = rows.first().ok_or_else(|| StoreError::Statement { reason: "the store has no state".to_owned() })?;
        let mut columns = read(row)?.columns("zone_versions");
        let at = columns.next()?;
        let (deployment, zone): (i64, i64) = (columns.next()?, columns.next()?);
        let (deployment, zone) = (deployment.unsigned_abs(), zone.unsigned_abs());
        let (transaction, is_read_only) = (columns.next()?, columns.next::<i64>()? != 0);
        if is_read_only {
            // The next connection may lead to the server that took its place.
            self.connection = None;
            let reason = "the database server takes no changes: it is a standby, or was made read-only".to_owned();
            return Err(StoreError::Unavailable { reason });
        }
        let begun = Begun { now: time.at(at)?, at, deployment, zone, transaction };
        self.pool.lineage.compare(&floor, id, &begun)?;
        let answers = answers.iter().map(|rows| rows.iter().map(read).collect());
        Ok((begun, answers.collect::<Result<_, _>>()?))
    }

    pub(crate) async fn query(
        &mut self,
        scope: Option<&ZoneId>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let scope = scope.map_or(EVERY_ZONE, ZoneId::as_str);
        let params = as_wire(params);
        let moves = self.zone != scope;
        let rows = self
            .run(async |connection: &mut Connection| {
                let statement = connection.statement(sql).await?;
                if !moves {
                    return connection.client.query(&statement, &params).await;
                }
                let set = connection.statement(SET_ZONE).await?;
                let scope: Params<'_, 1> = [&scope];
                let set = connection.client.execute(&set, &scope);
                let (set, rows) = join(set, connection.client.query(&statement, &params)).await;
                set.and(rows)
            })
            .await?;
        if moves {
            scope.clone_into(&mut self.zone);
        }
        rows.iter().map(read).collect()
    }

    pub(crate) async fn execute(
        &mut self,
        scope: Option<&ZoneId>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<usize, StoreError> {
        self.execute_with(scope, sql, &as_wire(params)).await
    }

    /// The same, with parameters of any type that the server has.
    pub(super) async fn execute_with(
        &mut self,
        scope: Option<&ZoneId>,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<usize, StoreError> {
        let scope = scope.map_or(EVERY_ZONE, ZoneId::as_str);
        let moves = self.zone != scope;
        let changed = self
            .run(async |connection: &mut Connection| {
                let statement = connection.statement(sql).await?;
                if !moves {
                    return connection.client.execute(&statement, params).await;
                }
                let set = connection.statement(SET_ZONE).await?;
                let scope: Params<'_, 1> = [&scope];
                let set = connection.client.execute(&set, &scope);
                let (set, changed) = join(set, connection.client.execute(&statement, params)).await;
                set.and(changed)
            })
            .await?;
        if moves {
            scope.clone_into(&mut self.zone);
        }
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Whether the server has all that was seen of it.
    pub(super) async fn look_around(mut self) -> Result<(), StoreError> {
        let pool = self.pool.clone();
        let look = async |connection: &mut Connection| pool.lineage.look_around(&connection.client).await;
        let mut looked = self.run(look).await;
        if self.fault.as_ref().is_some_and(|fault| fault.again) {
            // It was an idle connection that had died.
            self.connection = Some(pool.connect().await.map_err(|failure| failure.error)?);
            self.fault = None;
            looked = self.run(look).await;
        }
        self.end();
        looked?
    }

    /// The version of one zone.
    pub(crate) async fn zone_version(&mut self, zone: &ZoneId) -> Result<u64, StoreError> {
        let sql = "SELECT COALESCE((SELECT version FROM zone_versions WHERE zone_id = ?1), 0)";
        let rows = self.query(None, sql, &[Param::Text(zone.as_str())]).await?;
        let row = rows.into_iter().next();
        let row = row.ok_or_else(|| StoreError::Statement { reason: "a zone has no version".to_owned() })?;
        row.columns("zone_versions").next::<i64>().map(i64::unsigned_abs)
    }

    /// Sends statements whose success needs no proof: were one of them to fail, so would all that follow.
    pub(super) fn send(&mut self, sql: &str) {
        if let Some(connection) = &self.connection {
            // The first poll hands it to the connection, behind whatever was sent before.
            let _ = Box::pin(connection.client.batch_execute(sql)).as_mut().now_or_never();
        }
    }

    /// Runs a statement without parameters and waits for it.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.run(async |connection: &mut Connection| connection.client.batch_execute(sql).await).await
    }

    /// The zone is set again with the next statement: a savepoint that is rolled back takes the setting with it.
    pub(super) fn forget_zone(&mut self) {
        self.zone.clear();
    }

    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// What `transaction` of this session can be looked up by; none once the connection is lost.
    pub(super) fn sought(&self, transaction: i64) -> Option<Sought> {
        let connection = self.connection.as_ref()?;
        Some(Sought { transaction, connection: connection.name.clone(), backend: connection.backend })
    }

    /// What the server remembers this session's commits by.
    pub(super) fn connection_name(&self) -> Option<String> {
        self.connection.as_ref().map(|connection| connection.name.clone())
    }

    /// Whether the server can still be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Gives the connection back to the pool, outside any transaction.
    pub(super) fn end(mut self) {
        if self.fault.is_none()
            && let Some(connection) = self.connection.take()
        {
            self.pool.give_back(connection);
        }
    }

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut Connection) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        if let Some(fault) = &self.fault {
            return Err(fault.error.clone());
        }
        let Some(connection) = &mut self.connection else {
            return Err(StoreError::Unavailable { reason: "the transaction has ended".to_owned() });
        };
        self.pool.round_trips.fetch_add(1, Ordering::Relaxed);
        let constraints = connection.constraints.clone();
        let failure = match timeout(self.limit, statement(connection)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Failure::of(&error, &constraints),
            Err(_) => Failure::late(),
        };
        if failure.lost || failure.again {
            self.fault = Some(Fault { error: failure.error.clone(), again: failure.again });
        }
        if failure.lost {
            // Whatever it was doing ends with it; nobody else gets it.
            self.connection = None;
        }
        Err(failure.error)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Told to roll back, it can be used by the next transaction at once: the server works in order.
        self.send("ROLLBACK");
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}

type Params<'p, const N: usize> = [&'p (dyn tokio_postgres::types::ToSql + Sync); N];

fn as_wire<'p>(params: &'p [Param<'p>]) -> Vec<&'p (dyn tokio_postgres::types::ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn tokio_postgres::types::ToSql + Sync)).collect()
}

/// The server's time between two looks at it: this machine's clock, corrected by how far it was off last time. Where one of
/// the two is set back, time does not go back with it: what has ended would begin again (threat T17). This machine's goes on at
/// its own pace, see [`SteadyClock`]; the server's time stands still until the server has caught up, because that is the same
/// in every process.
#[derive(Clone)]
pub(super) struct ServerClock {
    /// The latest time that a transaction had.
    latest: Arc<AtomicI64>,
    /// Server minus local, microseconds.
    offset: Arc<AtomicI64>,
    /// What stands in for the server's time in tests.
    given: Option<Arc<dyn Clock>>,
    local: Arc<dyn Clock>,
}

impl ServerClock {
    /// The clock for transactions, and the same for whoever asks the store for its time.
    pub(super) fn new(given: Option<Arc<dyn Clock>>, local: Arc<dyn Clock>) -> (Self, Arc<dyn Clock>) {
        let local: Arc<dyn Clock> = Arc::new(SteadyClock::of(local));
        let clock = Self { latest: Arc::default(), offset: Arc::default(), given, local };
        (clock.clone(), Arc::new(clock))
    }

    /// The time of a transaction to which the server said that it is `micros`.
    fn at(&self, micros: i64) -> Result<Timestamp, StoreError> {
        if let Some(given) = &self.given {
            return Ok(given.now());
        }
        let latest = self.latest.fetch_max(micros, Ordering::Relaxed).max(micros);
        if latest.saturating_sub(micros) > STANDS_STILL {
            let reason = format!(
                "the server's clock is {} seconds behind a change that was committed earlier: set it right, or, where it was \
                 wrong then, wait until it has caught up",
                latest.saturating_sub(micros) / 1_000_000
            );
            return Err(StoreError::Unavailable { reason });
        }
        self.offset.store(latest.saturating_sub(self.local.now().as_micros()), Ordering::Relaxed);
        Ok(Timestamp::from_micros(latest))
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        match &self.given {
            Some(given) => given.now(),
            None => {
                let local = self.local.now().as_micros();
                let corrected = local.saturating_add(self.offset.load(Ordering::Relaxed));
                Timestamp::from_micros(corrected.max(self.latest.load(Ordering::Relaxed)))
            }
        }
    }

    fn has_been(&self, time: Timestamp) {
        self.latest.fetch_max(time.as_micros(), Ordering::Relaxed);
    }
}
