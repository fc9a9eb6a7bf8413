//! Transactions as the repositories see them. A zone is a type, not a filter: a statement on a tenant's table can only
//! be reached through [`ZoneRead`] or [`ZoneWrite`], which know the zone they are confined to; what spans zones goes
//! through [`DeploymentRead`] and [`DeploymentWrite`].

use std::ops::{Deref, DerefMut};

use caracal_authority::{Timestamp, ZoneId};

use crate::effects::Committed;
use crate::error::StoreError;
use crate::sqlite;
use crate::value::{Param, Row};
use crate::version::{Moved, Versions, ZoneVersion};

/// One open transaction on some engine, with the store's time at its start.
pub(crate) struct Tx {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) effects: Committed,
    /// Whom the running change speaks for; none for the deployment.
    pub(crate) scope: Option<ZoneId>,
    pub(crate) versions: Versions,
    pub(crate) moved: Moved,
}

/// The engines behind the seam.
pub(crate) enum Engine {
    Sqlite(rusqlite::Connection),
}

impl Tx {
    pub(crate) fn new(engine: Engine, now: Timestamp, versions: Versions) -> Self {
        Self { engine, now, effects: Committed::default(), scope: None, versions, moved: Moved::default() }
    }

    /// Runs a statement that returns rows.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        match &mut self.engine {
            Engine::Sqlite(connection) => sqlite::query(connection, sql, params),
        }
    }

    /// Runs a statement that returns at most one row.
    pub(crate) async fn query_one(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement that may take authority away, and says how many rows it changed. Moves the zone's version, if
    /// there were any: who repeats a revocation that is done must not be able to keep others from minting.
    pub(crate) async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        let changed = self.append(sql, params).await?;
        if changed > 0 {
            self.versions.advance(self.scope.as_ref(), &mut self.moved);
        }
        Ok(changed)
    }

    /// Runs a statement that only adds, or removes what no decision reads, and says how many rows it changed.
    pub(crate) async fn append(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        match &mut self.engine {
            Engine::Sqlite(connection) => sqlite::execute(connection, sql, params),
        }
    }

    /// The engine's expression for the text of the top-level member `key` of the JSON text in `column`.
    pub(crate) fn json_member(&self, column: &'static str, key: &str) -> String {
        debug_assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        match &self.engine {
            Engine::Sqlite(_) => format!("json_extract({column}, '$.{key}')"),
        }
    }

    /// The engine's condition that the array member `key` of the JSON text in `column` has the text bound at `{}`.
    pub(crate) fn json_array_contains(&self, column: &'static str, key: &str) -> String {
        debug_assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        match &self.engine {
            Engine::Sqlite(_) => {
                format!("EXISTS (SELECT 1 FROM json_each({column}, '$.{key}') member WHERE member.value = {{}})")
            }
        }
    }
}

/// Reads of one zone within one consistent transaction.
pub struct ZoneRead<'c> {
    pub(crate) tx: &'c mut Tx,
    pub(crate) zone: ZoneId,
}

impl ZoneRead<'_> {
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
        tx.scope = Some(zone.clone());
        Self { read: ZoneRead { tx, zone } }
    }

    /// Whether nothing that could take authority away was committed since `version` was taken.
    pub fn is_at(&self, version: ZoneVersion) -> bool {
        self.read.tx.versions.of(&self.read.zone) == version
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
    pub(crate) tx: &'c mut Tx,
}

impl DeploymentRead<'_> {
    /// The store's time at the start of the transaction.
    pub fn now(&self) -> Timestamp {
        self.tx.now
    }

    /// The same transaction, confined to `zone`.
    pub fn zone(&mut self, zone: &ZoneId) -> ZoneRead<'_> {
        ZoneRead { tx: self.tx, zone: zone.clone() }
    }
}

/// Changes across zones, and of what belongs to no zone.
pub struct DeploymentWrite<'c> {
    read: DeploymentRead<'c>,
}

impl<'c> DeploymentWrite<'c> {
    pub(crate) fn new(tx: &'c mut Tx) -> Self {
        tx.scope = None;
        Self { read: DeploymentRead { tx } }
    }

    /// The same transaction, confined to `zone`.
    pub fn zone_write(&mut self, zone: &ZoneId) -> ZoneWrite<'_> {
        ZoneWrite::new(self.read.tx, zone.clone())
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
        // Whoever had it confined to a zone is done: what follows speaks for the deployment again.
        self.read.tx.scope = None;
        &mut self.read
    }
}
