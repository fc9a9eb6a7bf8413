//! The embedded engine's statements and connections. WAL with `synchronous=FULL`: a commit that was acknowledged
//! survives power loss. One connection writes (see [`crate::writer`]), the others only read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};

use crate::error::StoreError;
use crate::value::{Param, Row, Value};

const STATEMENTS_KEPT: usize = 256;

/// Where the embedded store lives and how much it may hold.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The data directory. Created with mode 0700 when absent.
    pub directory: PathBuf,
    /// Connections for reads; each read runs inline on the caller's thread.
    pub readers: usize,
    /// The database's size limit in pages of 4 KiB, none for the engine's own. At the limit the store is as on a full
    /// disk: changes that need room are refused until some is freed or the limit raised.
    pub max_pages: Option<u32>,
    /// After how many pages of 4 KiB the write-ahead log is written back into the database.
    pub checkpoint_pages: u32,
}

impl SqliteOptions {
    /// The usual settings for a store in `directory`.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), readers: 8, max_pages: None, checkpoint_pages: 4_000 }
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.directory.join("caracal.db")
    }
}

/// The connection that writes.
pub(crate) fn connect_writer(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = connect(&options.database())?;
    // Without recursive triggers a REPLACE would remove rows past the triggers that forbid it.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={}; PRAGMA foreign_keys=ON;
         PRAGMA recursive_triggers=ON; PRAGMA cache_size=-32768;",
        options.checkpoint_pages
    ))?;
    if let Some(pages) = options.max_pages {
        connection.execute_batch(&format!("PRAGMA max_page_count={pages}"))?;
    }
    Ok(connection)
}

/// A connection that reads.
pub(crate) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    // A read-only handle could not recover the WAL's index; `query_only` forbids changes just as well.
    let connection = connect(path)?;
    // Every commit of the writer empties a reader's cache, so a large one would only take memory.
    connection.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-2048; PRAGMA mmap_size=268435456;")?;
    Ok(connection)
}

/// A connection for one look at a database with a WAL, which leaves both as they are. In a `copy`, the WAL's index is
/// built in memory instead of in a file beside them; nobody else can read the copy meanwhile.
pub(crate) fn connect_inspector(path: &Path, copy: bool) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    // Else the last one to close would write the WAL back into the database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The lock comes first: whatever else is set may already read.
    let locking = if copy { "PRAGMA locking_mode=EXCLUSIVE;" } else { "" };
    connection.execute_batch(&format!("{locking} PRAGMA query_only=ON"))?;
    Ok(connection)
}

/// A connection to a file that is there already.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Else whatever value is bound to a parameter that an index could be judged by has the statement planned anew, which took
    // longer than running it. There are no statistics that the plan could be better by.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(crate) fn query(connection: &Connection, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(width);
        for index in 0..width {
            values.push(match row.get_ref(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Blob(text.to_vec()),
                },
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                ValueRef::Real(_) => {
                    return Err(StoreError::Statement { reason: "a floating-point column".to_owned() });
                }
            });
        }
        found.push(Row { values });
    }
    #[cfg(feature = "conformance")]
    {
        drop(rows);
        work::did(&statement);
    }
    Ok(found)
}

/// What queries have cost by the engine's own count, for cases about how much is looked at to answer.
#[cfg(feature = "conformance")]
pub(crate) mod work {
    use std::cell::Cell;

    use rusqlite::{Statement, StatementStatus};

    thread_local! {
        /// Reads run on their caller's thread, so each test counts its own.
        static STEPS: Cell<i64> = const { Cell::new(0) };
    }

    pub(super) fn did(statement: &Statement<'_>) {
        let steps = i64::from(statement.reset_status(StatementStatus::VmStep));
        STEPS.set(STEPS.get() + steps);
    }

    /// Steps of the engine's machine in queries of this thread so far.
    pub(crate) fn done() -> i64 {
        STEPS.get()
    }
}

pub(crate) fn execute(connection: &Connection, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params))?)
}
