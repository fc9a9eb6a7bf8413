//! The data directory: whose it is, and how a store comes to be in it.
//!
//! A refusal changes nothing that was there. So a directory is recognised before anything is written to it: first by
//! the file's header, then by its schema, read through a connection that leaves no trace ([`open_for_inspection`]).
//!
//! A new store is made beside its place and renamed into it once it is complete and synced. A database file that
//! exists is therefore a whole one: an empty or cut one is refused as foreign instead of being taken for a fresh start,
//! in which every revocation would be forgotten (threat T17).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::backup;
use crate::clock::Clock;
use crate::error::OpenError;
use crate::migrations;
use crate::moving;
use crate::sqlite::{self, SqliteOptions};

/// "CRCL": marks a database file as ours in SQLite's header.
const APPLICATION_ID: i32 = 0x4352_434C;

/// An exclusively locked data directory with an up-to-date database in it.
pub(crate) struct OpenDirectory {
    pub(crate) lock: File,
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
}

/// What a database may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Store,
    /// Also a copy that was made for a backup.
    StoreOrCopy,
}

/// Locks the directory, recognises what is in it, creates or migrates the database.
pub(crate) fn open(options: &SqliteOptions, clock: &dyn Clock, kind: Kind) -> Result<OpenDirectory, OpenError> {
    let path = options.database();
    create_directory(&options.directory)?;
    let lock_path = options.directory.join("lock");
    if !lock_path.exists() {
        // No store ever ran here. What is not ours does not even get a lock file.
        recognise(&path)?;
    }
    let lock = lock(lock_path)?;
    // Behind the lock: a move that was under way a moment ago has made its mark before it let go.
    moving::refuse_moved(&options.directory)?;
    match recognise(&path)? {
        Found::Nothing => create(&path, &options.directory, clock)?,
        Found::Ours => {
            let found = open_for_inspection(&path)?;
            if kind == Kind::Store && backup::is_marked(&found).map_err(engine(&path))? {
                return Err(OpenError::Copy { path });
            }
        }
    }
    let mut writer = sqlite::connect_writer(options).map_err(engine(&path))?;
    migrations::apply(&mut writer, &path, clock)?;
    let readers = (0..options.readers.max(1)).map(|_| sqlite::connect_reader(&path)).collect::<Result<_, _>>();
    Ok(OpenDirectory { lock, writer, readers: readers.map_err(engine(&path))? })
}

/// Opens the store of a directory to be moved away: with the lock, which is to be held until it has arrived, and without
/// a change to anything.
pub(crate) fn open_to_move(options: &SqliteOptions) -> Result<(Connection, File), OpenError> {
    let path = options.database();
    if let Found::Nothing = recognise(&path)? {
        return Err(OpenError::Unusable { path, reason: "there is no store here".to_owned() });
    }
    let lock = lock(options.directory.join("lock"))?;
    let found = open_for_inspection(&path)?;
    // On a server it would be in force again as it would be here.
    if backup::is_marked(&found).map_err(engine(&path))? {
        return Err(OpenError::Copy { path });
    }
    Ok((found, lock))
}

/// Opens a database for an outsider's look, such as the offline verifier's: no lock, no migration, no change, not even
/// a file beside it.
pub(crate) fn open_for_inspection(path: &Path) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::Unusable { path: path.to_owned(), reason: "there is no store here".to_owned() });
    }
    let (wal, index) = (beside(path, "-wal").exists(), beside(path, "-shm").exists());
    let connection = if !wal {
        // Everything is in the one file, and nobody is using it: a running store always has a WAL.
        immutable(path)
    } else {
        sqlite::connect_inspector(path, !index)
    };
    let connection = connection.map_err(engine(path))?;
    check_ours(&connection, path)?;
    Ok(connection)
}

/// Opens the database of a directory to be copied: a store in use as one more of its readers, any other one with the
/// directory's lock, which is to be held until the copy is made.
pub(crate) fn open_to_copy(options: &SqliteOptions) -> Result<(Connection, Option<File>), OpenError> {
    let path = options.database();
    if let Found::Nothing = recognise(&path)? {
        return Err(OpenError::Unusable { path, reason: "there is no store here".to_owned() });
    }
    match lock(options.directory.join("lock")) {
        Ok(held) => Ok((open_for_inspection(&path)?, Some(held))),
        Err(OpenError::Locked { .. }) => {
            // Its owner may be about to make the WAL: a look that trusted the one file would miss what is written next.
            let connection = sqlite::connect_inspector(&path, false).map_err(engine(&path))?;
            check_ours(&connection, &path)?;
            Ok((connection, None))
        }
        Err(other) => Err(other),
    }
}

/// Refuses a database that is not a store of ours, or one of another version.
fn check_ours(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(engine(path))?;
    if id != APPLICATION_ID || !connection.table_exists(None, "schema_migrations").map_err(engine(path))? {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    migrations::verify(connection, path)
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

enum Found {
    Nothing,
    Ours,
}

/// Refuses a file that is not a database of ours, by its header, before any engine could touch it.
fn recognise(path: &Path) -> Result<Found, OpenError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return nothing_at(path),
        Err(error) => return Err(unusable(path)(error)),
    };
    let mut header = Vec::with_capacity(100);
    Read::by_ref(&mut file).take(100).read_to_end(&mut header).map_err(unusable(path))?;
    // SQLite file format, §1.3: magic at offset 0, application id big-endian at offset 68.
    let ours = header.starts_with(b"SQLite format 3\0") && header.get(68..72) == Some(&APPLICATION_ID.to_be_bytes());
    if ours { Ok(Found::Ours) } else { Err(OpenError::Foreign { path: path.to_owned() }) }
}

/// A new database must neither replace a link whose target is away, nor come to lie beside the WAL of another one: the
/// engine would replay it.
fn nothing_at(path: &Path) -> Result<Found, OpenError> {
    if path.is_symlink() {
        let reason = "the link leads nowhere".to_owned();
        return Err(OpenError::Unusable { path: path.to_owned(), reason });
    }
    for left in ["-wal", "-journal"].map(|suffix| beside(path, suffix)) {
        if left.exists() {
            let reason = "the database it belongs to is missing".to_owned();
            return Err(OpenError::Unusable { path: left, reason });
        }
    }
    Ok(Found::Nothing)
}

fn create_directory(directory: &Path) -> Result<(), OpenError> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(unusable(directory))?;
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => sync_directory(Path::new(".")),
    }
}

fn lock(path: PathBuf) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(unusable(&path)(error)),
    }
}

/// Makes an empty store of the current schema, whole or not at all. Holds the lock, so whatever lies in the new file's
/// place was left by a first start that was cut off.
fn create(path: &Path, directory: &Path, clock: &dyn Clock) -> Result<(), OpenError> {
    let new = beside(path, ".new");
    for left in [beside(&new, "-journal"), new.clone()] {
        match fs::remove_file(&left) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(&left)(error)),
            _ => {}
        }
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    // The engine gives its other files the mode of this one.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&new).map_err(unusable(&new))?;
    let mut connection = Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(engine(&new))?;
    connection
        .execute_batch(&format!("PRAGMA synchronous=FULL; PRAGMA application_id={APPLICATION_ID}"))
        .map_err(engine(&new))?;
    migrations::apply(&mut connection, &new, clock)?;
    connection.close().map_err(|(_, error)| engine(&new)(error))?;
    fs::rename(&new, path).map_err(unusable(path))?;
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable(directory))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn unusable(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

pub(crate) fn engine(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError {
    move |error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign { path: path.to_owned() },
        _ => OpenError::Engine { path: path.to_owned(), reason: error.to_string() },
    }
}
