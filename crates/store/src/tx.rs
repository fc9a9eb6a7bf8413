//! Transactions as the repositories see them. A zone is a type, not a filter: a statement on a tenant's table can only
//! be reached through [`ZoneRead`] or [`ZoneWrite`], which know the zone they are confined to; what spans zones goes
//! through [`DeploymentRead`] and [`DeploymentWrite`].

use std::ops::{Deref, DerefMut};

use caracal_authority::{MetadataKey, Timestamp, ZoneId};

use crate::ahead::Ahead;
use crate::effects::Committed;
use crate::error::StoreError;
use crate::facts::{Memory, NotRemembered, Touched};
use crate::postgres::Session;
use crate::sqlite;
use crate::value::{Param, Row};
use crate::version::{Moved, Versions, ZoneVersion};

/// One open transaction on some engine, with the store's time at its start.
pub(crate) struct Tx {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) effects: Committed,
    /// Whom the next statement speaks for; none for the deployment.
    pub(crate) scope: Option<ZoneId>,
    pub(crate) versions: Versions,
    pub(crate) moved: Moved,
    /// Whether a statement of the running change failed. Such a change can't succeed any more: an engine may have given
    /// up everything since its savepoint.
    pub(crate) failed: bool,
    /// What was asked together with the opening of the transaction; empty where it can change the store.
    pub(crate) ahead: Ahead,
    /// What it has to do with the facts that are kept in memory.
    pub(crate) memory: Memory,
    pub(crate) touched: Touched,
    /// Whether the running change is upkeep: it holds no lock, so it must not touch what decisions are made on.
    pub(crate) upkeep: bool,
}

/// How far the effects of a transaction had come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    messages: usize,
    heads: usize,
    records: usize,
}

/// The engines behind the seam.
pub(crate) enum Engine {
    Sqlite(rusqlite::Connection),
    Postgres(Box<Session>),
    /// No transaction at all: what the embedded engine has in memory.
    Remembered,
}

impl Tx {
    pub(crate) fn new(engine: Engine, now: Timestamp, versions: Versions) -> Self {
        let (effects, moved) = (Committed::default(), Moved::default());
        Self {
            engine,
            now,
            effects,
            scope: None,
            versions,
            moved,
            failed: false,
            ahead: Ahead::default(),
            memory: Memory::None,
            touched: Touched::default(),
            upkeep: false,
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        let Committed { messages, heads, .. } = &self.effects;
        Mark { messages: messages.len(), heads: heads.len(), records: self.touched.added.len() }
    }

    /// Takes back what was noted after `mark`.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.effects.messages.truncate(mark.messages);
        self.effects.heads.truncate(mark.heads);
        self.touched.added.truncate(mark.records);
    }

    /// Runs a statement that returns rows.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        if let Some(rows) = self.ahead.find(sql, params) {
            return Ok(rows);
        }
        if let Some(rows) = self.memory.find(self.scope.as_ref(), sql, params) {
            return rows.map_err(|NotRemembered| self.not_remembered());
        }
        self.effects.statements += 1;
        let rows = match &mut self.engine {
            Engine::Remembered => return Err(self.not_remembered()),
            Engine::Sqlite(connection) => {
                let rows = sqlite::query(connection, sql, params);
                rows.inspect(|rows| self.memory.keep(self.scope.as_ref(), sql, params, rows))
            }
            // Boxed, so that the futures of everything above stay as small as the embedded engine needs them.
            Engine::Postgres(session) => Box::pin(session.query(self.scope.as_ref(), sql, params)).await,
        };
        rows.inspect_err(|_| self.failed = true)
    }

    /// Runs a statement that returns at most one row.
    pub(crate) async fn query_one(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement that looks out of the zone that the transaction is confined to.
    pub(crate) async fn query_everywhere(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let scope = self.scope.take();
        let rows = self.query(sql, params).await;
        self.scope = scope;
        rows
    }

    /// Runs a statement that may take authority away, and says how many rows it changed. Moves the zone's version, if
    /// there were any: who repeats a revocation that is done must not be able to keep others from minting.
    pub(crate) async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        if self.upkeep {
            self.failed = true;
            return Err(StoreError::Statement { reason: "upkeep must not take authority away".to_owned() });
        }
        let changed = self.append(sql, params).await?;
        if changed > 0 {
            let scope = self.scope.clone();
            self.know_version(scope.as_ref()).await?;
            self.versions.advance(scope.as_ref(), &mut self.moved);
        }
        Ok(changed)
    }

    /// Runs a statement that only adds, or removes what no decision reads, and says how many rows it changed.
    pub(crate) async fn append(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        self.effects.statements += 1;
        let changed = match &mut self.engine {
            Engine::Sqlite(connection) => {
                self.touched.note(self.scope.as_ref(), sql);
                sqlite::execute(connection, sql, params)
            }
            Engine::Postgres(session) => Box::pin(session.execute(self.scope.as_ref(), sql, params)).await,
            Engine::Remembered => return Err(self.not_remembered()),
        };
        changed.inspect_err(|_| self.failed = true)
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.engine, Engine::Sqlite(_) | Engine::Remembered)
    }

    /// Whoever gets this asks the store itself: see [`crate::store::Snapshot::is_incomplete`].
    fn not_remembered(&mut self) -> StoreError {
        self.failed = true;
        StoreError::Unavailable { reason: "it is not in memory".to_owned() }
    }

    /// Has the version of `zone` at hand, where the engine does not keep them all in memory.
    async fn know_version(&mut self, zone: Option<&ZoneId>) -> Result<(), StoreError> {
        let Engine::Postgres(session) = &mut self.engine else { return Ok(()) };
        let Some(zone) = zone.filter(|zone| !self.versions.knows(zone)) else { return Ok(()) };
        let version = Box::pin(session.zone_version(zone)).await.inspect_err(|_| self.failed = true)?;
        self.versions.learn(zone, version);
        Ok(())
    }

    /// The engine's expression for the text of the top-level member `key` of the JSON text in `column`.
    pub(crate) fn json_member(&self, column: &'static str, key: MetadataKey) -> String {
        match &self.engine {
            Engine::Sqlite(_) | Engine::Remembered => format!("json_extract({column}, '$.{key}')"),
            Engine::Postgres(_) => format!("(CAST({column} AS jsonb) ->> '{key}')"),
        }
    }

    /// Has the embedded engine go by this index. It keeps no statistics, takes the rows of a zone to be few, and so would rather
    /// look at all of them than go by an index to one: a million sessions made the end of one a matter of a sixth of a second.
    /// A server knows how many they are.
    pub(crate) fn by_index(&self, name: &'static str) -> String {
        if self.is_embedded() { format!("INDEXED BY {name}") } else { String::new() }
    }

    /// The engine's condition that the JSON array in `column` has the text bound at `{}`.
    pub(crate) fn json_array_has(&self, column: &'static str) -> String {
        match &self.engine {
            Engine::Sqlite(_) | Engine::Remembered => {
                format!("EXISTS (SELECT 1 FROM json_each({column}) member WHERE member.value = {{}})")
            }
            Engine::Postgres(_) => format!("CAST({column} AS jsonb) @> to_jsonb(CAST({{}} AS text))"),
        }
    }

    /// The engine's condition that the array member `key` of the JSON text in `column` has the text bound at `{}`.
    pub(crate) fn json_array_contains(&self, column: &'static str, key: MetadataKey) -> String {
        match &self.engine {
            Engine::Sqlite(_) | Engine::Remembered => {
                format!("EXISTS (SELECT 1 FROM json_each({column}, '$.{key}') member WHERE member.value = {{}})")
            }
            // Whatever is no array has no members.
            Engine::Postgres(_) => format!("(CAST({column} AS jsonb) -> '{key}') @> to_jsonb(CAST({{}} AS text))"),
        }
    }
}

/// Reads of one zone within one consistent transaction.
pub struct ZoneRead<'c> {
    pub(crate) tx: &'c mut Tx,
    pub(crate) zone: ZoneId,
}

impl<'c> ZoneRead<'c> {
    pub(crate) fn new(tx: &'c mut Tx, zone: ZoneId) -> Self {
        tx.scope = Some(zone.clone());
        Self { tx, zone }
    }

    /// The zone everything here is confined to.
    pub fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// The store's time at the start of the transaction.
    pub fn now(&self) -> Timestamp {
        self.tx.now
    }
}

/// Reads and changes of one zone within one transaction.
pub struct ZoneWrite<'c> {
    read: ZoneRead<'c>,
}

impl<'c> ZoneWrite<'c> {
    pub(crate) fn new(tx: &'c mut Tx, zone: ZoneId) -> Self {
        Self { read: ZoneRead::new(tx, zone) }
    }

    /// Whether nothing that could take authority away was committed since `version` was taken.
    pub async fn is_at(&mut self, version: ZoneVersion) -> Result<bool, StoreError> {
        let ZoneRead { tx, zone } = &mut self.read;
        tx.know_version(Some(zone)).await?;
        Ok(tx.versions.of(zone) == version)
    }
}

impl<'c> Deref for ZoneWrite<'c> {
    type Target = ZoneRead<'c>;
    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

impl DerefMut for ZoneWrite<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.read
    }
}

/// Reads across zones, and of what belongs to no zone.
pub struct DeploymentRead<'c> {
    inner: &'c mut Tx,
}

impl<'c> DeploymentRead<'c> {
    pub(crate) fn new(tx: &'c mut Tx) -> Self {
        Self { inner: tx }
    }

    /// The store's time at the start of the transaction.
    pub fn now(&self) -> Timestamp {
        self.inner.now
    }

    /// The same transaction, confined to `zone`.
    pub fn zone(&mut self, zone: &ZoneId) -> ZoneRead<'_> {
        ZoneRead::new(self.inner, zone.clone())
    }

    /// The transaction, for a statement that speaks for the deployment, whomever it was confined to before.
    pub(crate) fn tx(&mut self) -> &mut Tx {
        self.inner.scope = None;
        self.inner
    }
}

/// Changes across zones, and of what belongs to no zone.
pub struct DeploymentWrite<'c> {
    read: DeploymentRead<'c>,
}

impl<'c> DeploymentWrite<'c> {
    pub(crate) fn new(tx: &'c mut Tx) -> Self {
        Self { read: DeploymentRead::new(tx) }
    }

    /// The same transaction, confined to `zone`.
    pub fn zone_write(&mut self, zone: &ZoneId) -> ZoneWrite<'_> {
        ZoneWrite::new(self.read.inner, zone.clone())
    }
}

impl<'c> Deref for DeploymentWrite<'c> {
    type Target = DeploymentRead<'c>;
    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

impl DerefMut for DeploymentWrite<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.read
    }
}
