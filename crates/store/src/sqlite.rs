//! The embedded engine's statements and connections. WAL with `synchronous=FULL`: a commit that was acknowledged
//! survives power loss. One connection writes (see [`crate::writer`]), the others only read.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};

use crate::clock::Clock;
use crate::error::{OpenError, StoreError};
use crate::migrations;
use crate::value::{Param, Row, Value};

/// "CRCL": marks a database file as ours in SQLite's header.
const APPLICATION_ID: i32 = 0x4352_434C;
const STATEMENTS_KEPT: usize = 256;

/// Where the embedded store lives and how much it may hold open.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The data directory. Created with mode 0700 when absent.
    pub directory: PathBuf,
    /// Connections for reads; each read runs inline on the caller's thread.
    pub readers: usize,
}

impl SqliteOptions {
    /// The usual settings for a store in `directory`.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), readers: 8 }
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.directory.join("caracal.db")
    }
}

/// An exclusively locked data directory with an up-to-date database in it.
pub(crate) struct OpenDirectory {
    pub(crate) lock: File,
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
}

/// Locks the directory, recognises foreign files, applies migrations. A refusal changes nothing that was there.
pub(crate) fn open(options: &SqliteOptions, clock: &dyn Clock) -> Result<OpenDirectory, OpenError> {
    create_directory(&options.directory)?;
    let lock = lock(&options.directory)?;
    let path = options.database();
    recognise(&path)?;
    let engine = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign { path: path.clone() },
        _ => OpenError::Engine { path: path.clone(), reason: error.to_string() },
    };
    let mut writer = connect(&path, true).map_err(engine)?;
    writer
        .execute_batch(&format!(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA application_id={APPLICATION_ID};
             PRAGMA wal_autocheckpoint=4000; PRAGMA foreign_keys=ON; PRAGMA cache_size=-65536;"
        ))
        .map_err(engine)?;
    restrict(&path)?;
    migrations::apply(&mut writer, &path, clock)?;
    let readers = (0..options.readers.max(1)).map(|_| connect(&path, false)).collect::<Result<_, _>>();
    Ok(OpenDirectory { lock, writer, readers: readers.map_err(engine)? })
}

fn connect(path: &Path, write: bool) -> rusqlite::Result<Connection> {
    let access = if write {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    } else {
        // A read-only handle could not recover the WAL's index; `query_only` forbids changes just as well.
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    if !write {
        connection.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-16384; PRAGMA mmap_size=268435456;")?;
    }
    Ok(connection)
}

/// Opens a database for an outsider's look, such as the offline verifier's: no lock, no migration, no change.
pub(crate) fn open_for_inspection(path: &Path) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::Unusable { path: path.to_owned(), reason: "there is no store here".to_owned() });
    }
    recognise(path)?;
    let engine = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign { path: path.to_owned() },
        _ => OpenError::Engine { path: path.to_owned(), reason: error.to_string() },
    };
    let connection = connect(path, false).map_err(engine)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(engine)?;
    let found: i64 = connection
        .query_row("SELECT max(version) FROM schema_migrations", [], |row| row.get(0))
        .map_err(|_| OpenError::Foreign { path: path.to_owned() })?;
    if found > migrations::known_version() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: migrations::known_version() });
    }
    Ok(connection)
}

fn create_directory(directory: &Path) -> Result<(), OpenError> {
    let unusable =
        |error: std::io::Error| OpenError::Unusable { path: directory.to_owned(), reason: error.to_string() };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(unusable)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let unusable = |error: std::io::Error| OpenError::Unusable { path: path.clone(), reason: error.to_string() };
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Refuses a file that is not a database of ours, by its header, before any engine could touch it.
fn recognise(path: &Path) -> Result<(), OpenError> {
    use std::io::Read;
    let unusable = |error: std::io::Error| OpenError::Unusable { path: path.to_owned(), reason: error.to_string() };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
    };
    let mut header = Vec::with_capacity(100);
    Read::by_ref(&mut file).take(100).read_to_end(&mut header).map_err(unusable)?;
    if header.is_empty() {
        return Ok(());
    }
    // SQLite file format, §1.3: magic at offset 0, application id big-endian at offset 68. It is 0 until the first
    // checkpoint of a store that was cut off during its very first start.
    let magic = header.starts_with(b"SQLite format 3\0");
    let id = header.get(68..72).map(|bytes| bytes.iter().fold(0u32, |id, byte| (id << 8) | u32::from(*byte)));
    let ours = u32::try_from(APPLICATION_ID).ok();
    let first_start = id == Some(0) && path.with_extension("db-wal").exists();
    if magic && (id == ours || first_start) { Ok(()) } else { Err(OpenError::Foreign { path: path.to_owned() }) }
}

fn restrict(path: &Path) -> Result<(), OpenError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let unusable = |error: std::io::Error| OpenError::Unusable { path: path.to_owned(), reason: error.to_string() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(unusable)?;
    }
    Ok(())
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
    Ok(found)
}

pub(crate) fn execute(connection: &Connection, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params))?)
}
