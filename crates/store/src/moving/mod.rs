//! A whole store moves from the embedded engine to a database server.
//!
//! A team has outgrown one machine. Somewhere in what it carries over lie the marks of mandates that were used, the
//! revocations and the chains of evidence, and any of them lost would be authority given back, or a proof gone. So a move
//! is all or nothing, and what arrived is compared with what left:
//!
//! 1. [`Source`] holds the lock of the data directory until the end: nothing is served from there meanwhile. It reads
//!    every row once, refuses what the server could not keep as it is, and takes a digest of each table.
//! 2. [`Target`] is one transaction on an empty server. Rows arrive table by table; each table is then read back, in the
//!    order of its primary key, and must have the same digest. The caller verifies the chains in it, before it stands.
//! 3. The last row is a note of what arrived. It makes a second run on a whole target recognisable ([`arrived_at`]),
//!    whatever became of the first one. Only then is the directory marked as moved, so that nobody starts it again.
//!
//! Killed before the commit: the server rolls back, the directory is unmarked, and everything is as before. Killed
//! behind it: the next run finds the note and makes the mark. Between the two lies the commit of one transaction.
//!
//! Which rows there are to carry is asked of the two engines ([`tables`]), never listed here.

mod contents;
mod mark;
mod tables;

use std::fs::File;
use std::path::{Path, PathBuf};

use caracal_authority::Timestamp;

pub use contents::{Contents, TableContents};
pub(crate) use mark::refuse_moved;

use crate::error::{OpenError, StoreError};
use crate::postgres::{Array, Arrival, Arrived, PostgresOptions};
use crate::sqlite::SqliteOptions;
use crate::tx::{DeploymentRead, Engine, Tx};
use crate::value::{Param, Row, Value};
use crate::version::Versions;
use crate::writer::run_now;
use crate::{directory, known_version};
use contents::Digest;
use tables::{Kind, Pages, Table};

/// The value of the deployment that says what arrived by a move.
const NOTE: &str = "moved_from";

/// Why a store did not move. Unless the message says otherwise, the source is as it was and the target has no row.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the two can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source was last used by an older version.
    #[error(
        "the store in `{directory}` has schema {found}, this version moves schema {needed}: start it once with this \
         version, stop it, and move it then"
    )]
    Behind {
        /// The data directory.
        directory: PathBuf,
        /// Its schema.
        found: i64,
        /// What this version writes.
        needed: i64,
    },
    /// The source has a value that the server can't keep as it is. Nothing is altered to make it fit.
    #[error(
        "the column `{table}.{column}` holds {what} in the row ({row}), which PostgreSQL can't keep; nothing was copied. \
         Remove or rename what that row is of, then move again"
    )]
    Unfit {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The row's key.
        row: String,
        /// What is in it.
        what: &'static str,
    },
    /// The two ends do not agree on what there is to carry.
    #[error("the table `{table}` {what}; nothing was copied")]
    Schema {
        /// The table.
        table: String,
        /// How they differ.
        what: String,
    },
    /// The target is in use.
    #[error("the database `{place}` holds data already, in the table `{table}`: name an empty one in DATABASE_URL")]
    Filled {
        /// The database.
        place: String,
        /// The first table with a row.
        table: String,
    },
    /// What arrived is not what left.
    #[error(
        "the table `{table}` arrived with other content than it left with, so nothing was kept: is something else writing \
         to the source or to the target?"
    )]
    Differs {
        /// The table.
        table: String,
    },
    /// The source can't be read.
    #[error("the source: {0}")]
    Source(StoreError),
    /// The target failed before the commit.
    #[error("the target: {0}; it has kept nothing, run the command again")]
    Target(StoreError),
    /// The target was lost while it committed.
    #[error(
        "the database `{place}` was lost while it committed, so whether it has everything or nothing isn't known. Start \
         neither; once it is back, run the command again: it says what it finds"
    )]
    Unsure {
        /// The database.
        place: String,
    },
}

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'p> {
    /// What is being done.
    pub stage: Stage,
    /// With which table.
    pub table: &'p str,
    /// Rows done in this stage, of all tables.
    pub rows: u64,
    /// Rows there are; none while they are being counted.
    pub of: Option<u64>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Every row of the source is read and looked at.
    Reading,
    /// Rows go over.
    Copying,
    /// They are read back.
    Comparing,
}

/// A stopped embedded store that is to move. Its directory's lock is held until this is dropped.
pub struct Source {
    directory: PathBuf,
    tx: Tx,
    tables: Vec<Table>,
    _lock: File,
}

impl Source {
    /// Opens the store of a data directory, without a change to it. Blocks.
    pub fn open(directory: &Path) -> Result<Self, MoveError> {
        let options = SqliteOptions::in_directory(directory);
        let (connection, lock) = directory::open_to_move(&options)?;
        let failed = |error: rusqlite::Error| MoveError::Source(error.into());
        // One instant of it: programs of others may know nothing of the lock.
        connection.execute_batch("BEGIN").map_err(failed)?;
        let sql = "SELECT COALESCE(max(version), 0) FROM schema_migrations";
        let found: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        if found != known_version() {
            let directory = directory.to_owned();
            return Err(MoveError::Behind { directory, found, needed: known_version() });
        }
        let mut tx = Tx::new(Engine::Sqlite(connection), Timestamp::EPOCH, Versions::default());
        let tables = run_now(async { Ok(Table::of_source(&mut tx).await) }).map_err(MoveError::Source)??;
        Ok(Self { directory: directory.to_owned(), tx, tables, _lock: lock })
    }

    /// The database that the store has moved to, if it has.
    pub fn moved_to(&self) -> Result<Option<String>, OpenError> {
        mark::read(&self.directory)
    }

    /// The file that says so.
    pub fn mark(&self) -> PathBuf {
        mark::path(&self.directory)
    }

    /// Marks the directory, once what it holds stands on the server at `place`: it is not opened any more.
    pub fn mark_moved_to(&self, place: &str) -> Result<PathBuf, OpenError> {
        mark::write(&self.directory, place)?;
        Ok(self.mark())
    }

    /// Refuses a source that has moved.
    pub fn refuse_moved(&self) -> Result<(), OpenError> {
        refuse_moved(&self.directory)
    }

    /// Runs a read to its end on this thread.
    pub fn run<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        run_now(read(&mut DeploymentRead::new(&mut self.tx)))
    }

    /// Reads every row, and refuses one that the server could not keep. Blocks.
    pub fn contents(&mut self, mut progress: impl FnMut(Progress<'_>)) -> Result<Contents, MoveError> {
        let Self { tx, tables, .. } = self;
        let read = async {
            let mut contents = Contents { tables: Vec::new() };
            let mut before = 0;
            for table in tables.iter() {
                let (mut pages, mut digest) = (Pages::by_key(table), Digest::of(table));
                let mut done = before;
                loop {
                    let rows = pages.next(tx).await.map_err(MoveError::Source)?;
                    if rows.is_empty() {
                        break;
                    }
                    for row in &rows {
                        check(table, &row.values)?;
                        digest.add(&row.values);
                    }
                    done += rows.len() as u64;
                    progress(Progress { stage: Stage::Reading, table: &table.name, rows: done, of: None });
                }
                let digest = digest.finish(&table.name);
                before += digest.rows;
                contents.tables.push(digest);
            }
            Ok(contents)
        };
        run_now(async { Ok(read.await) }).map_err(MoveError::Source)?
    }

    /// The next rows of a table, in the order in which they have to arrive.
    fn page(&mut self, pages: &mut Pages<'_>) -> Result<Vec<Row>, MoveError> {
        run_now(pages.next(&mut self.tx)).map_err(MoveError::Source)
    }
}

/// Whether a move from somewhere has arrived on this server, and from what: the digest of all that it carried. `None` of
/// an empty server, which may not even have a schema yet; refused when it holds anything else.
pub async fn arrived_at(target: &PostgresOptions) -> Result<Option<String>, MoveError> {
    let found = target.look(NOTE).await?;
    match (found.filled, found.note) {
        (None, _) => Ok(None),
        (Some(_), Some(digest)) => Ok(Some(digest)),
        (Some(table), None) => Err(MoveError::Filled { place: target.place(), table }),
    }
}

/// The one transaction in which a store arrives. Dropping it leaves nothing.
pub struct Target {
    arrival: Arrival,
    place: String,
}

impl Target {
    /// Brings the schema up to date and opens the transaction on a server that has no row.
    pub async fn begin(options: PostgresOptions, source: &Source) -> Result<Self, MoveError> {
        options.apply_migrations().await?;
        let place = options.place();
        let mut arrival = Arrival::begin(options).await?;
        tables::check_target(&mut arrival.tx, &source.tables).await?;
        // Looked at again behind the lock: a process may have begun to work since.
        let filled = tables::first_filled(&mut arrival.tx, &source.tables).await.map_err(MoveError::Target)?;
        match filled {
            Some(table) => Err(MoveError::Filled { place, table }),
            None => Ok(Self { arrival, place }),
        }
    }

    /// Takes every row of `source` and reads it back. What arrived must be `contents`.
    pub async fn take(
        &mut self,
        source: &mut Source,
        contents: &Contents,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<(), MoveError> {
        let of = Some(contents.rows());
        let tables = source.tables.clone();
        let mut done = 0;
        for table in &tables {
            let (mut pages, sql) = (Pages::to_copy(table), table.insert());
            loop {
                let rows = source.page(&mut pages)?;
                if rows.is_empty() {
                    break;
                }
                done += rows.len() as u64;
                let arrays = arrays(table, rows).map_err(MoveError::Source)?;
                self.arrival.insert(&sql, &arrays).await.map_err(MoveError::Target)?;
                progress(Progress { stage: Stage::Copying, table: &table.name, rows: done, of });
            }
        }
        let mut done = 0;
        for table in &tables {
            let (mut pages, mut digest) = (Pages::by_key(table), Digest::of(table));
            loop {
                let rows = pages.next(&mut self.arrival.tx).await.map_err(MoveError::Target)?;
                if rows.is_empty() {
                    break;
                }
                done += rows.len() as u64;
                rows.iter().for_each(|row| digest.add(&row.values));
                progress(Progress { stage: Stage::Comparing, table: &table.name, rows: done, of });
            }
            let arrived = digest.finish(&table.name);
            if !contents.tables.contains(&arrived) {
                return Err(MoveError::Differs { table: arrived.name });
            }
        }
        Ok(())
    }

    /// What has arrived, to be read before it stands.
    pub fn deployment(&mut self) -> DeploymentRead<'_> {
        DeploymentRead::new(&mut self.arrival.tx)
    }

    /// Makes it stand, with a note of what it was.
    pub async fn commit(mut self, contents: &Contents) -> Result<(), MoveError> {
        let sql = "INSERT INTO deployment (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let digest = contents.sha256();
        self.arrival.tx.scope = None;
        let noted = self.arrival.tx.append(sql, &[Param::Text(NOTE), Param::Text(&digest)]).await;
        noted.map_err(MoveError::Target)?;
        match self.arrival.commit().await {
            Arrived::Committed => Ok(()),
            Arrived::RolledBack(error) => Err(MoveError::Target(error)),
            Arrived::Unknown => Err(MoveError::Unsure { place: self.place }),
        }
    }
}

/// Refuses a row with a value that the server has no room for.
fn check(table: &Table, values: &[Value]) -> Result<(), MoveError> {
    for (column, value) in table.columns.iter().zip(values) {
        let what = match (column.kind, value) {
            (_, Value::Null) | (Kind::Int, Value::Int(_)) | (Kind::Blob, Value::Blob(_)) => continue,
            (Kind::Text, Value::Text(text)) if text.contains('\0') => "a NUL character",
            (Kind::Text, Value::Text(_)) => continue,
            (Kind::Text, Value::Blob(_)) => "text that is not UTF-8",
            _ => "a value of another type",
        };
        let (table, column, row) = (table.name.clone(), column.name.clone(), table.row_name(values));
        return Err(MoveError::Unfit { table, column, row, what });
    }
    Ok(())
}

/// Rows, turned into columns.
fn arrays(table: &Table, rows: Vec<Row>) -> Result<Vec<Array>, StoreError> {
    let mut arrays: Vec<Array> = table
        .columns
        .iter()
        .map(|column| match column.kind {
            Kind::Int => Array::Int(Vec::with_capacity(rows.len())),
            Kind::Text => Array::Text(Vec::with_capacity(rows.len())),
            Kind::Blob => Array::Blob(Vec::with_capacity(rows.len())),
        })
        .collect();
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row.values) {
            match (array, value) {
                (Array::Int(numbers), Value::Int(number)) => numbers.push(Some(number)),
                (Array::Int(numbers), Value::Null) => numbers.push(None),
                (Array::Text(texts), Value::Text(text)) => texts.push(Some(text)),
                (Array::Text(texts), Value::Null) => texts.push(None),
                (Array::Blob(blobs), Value::Blob(bytes)) => blobs.push(Some(bytes)),
                (Array::Blob(blobs), Value::Null) => blobs.push(None),
                // Every row was looked at before; it has changed since.
                _ => return Err(StoreError::Corrupt { table: "source", what: format!("a row of `{}`", table.name) }),
            }
        }
    }
    Ok(arrays)
}
