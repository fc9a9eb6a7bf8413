//! What can go wrong at the seam, sorted by blame.

use std::path::PathBuf;

/// A read or change that did not happen. Nothing of a failed change is stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another row already holds this unique value; `constraint` names the columns as the engine reports them.
    #[error("conflicts with an existing row: {constraint}")]
    Conflict {
        /// The violated uniqueness, in the engine's words.
        constraint: String,
    },
    /// The store can't serve right now (disk full, input/output error, shutting down). The caller may try again later.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What the engine reported.
        reason: String,
    },
    /// A stored row is not one this system could have written.
    #[error("corrupt row in `{table}`: {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// Which row and what is wrong with it.
        what: String,
    },
    /// A statement is wrong: a defect of this program, never of its input.
    #[error("statement failed: {reason}")]
    Statement {
        /// What the engine reported.
        reason: String,
    },
}

impl StoreError {
    /// Whether the failure is a violated uniqueness that names `column` (as `table.column`).
    pub fn is_conflict_on(&self, column: &str) -> bool {
        matches!(self, Self::Conflict { constraint } if constraint.split(", ").any(|part| part == column))
    }

    /// Whether the failure is a violated uniqueness of any kind.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            return Self::Statement { reason: error.to_string() };
        };
        let text = message.clone().unwrap_or_else(|| failure.to_string());
        match failure.code {
            ErrorCode::ConstraintViolation => match text.strip_prefix("UNIQUE constraint failed: ") {
                Some(columns) => Self::Conflict { constraint: columns.to_owned() },
                None => Self::Statement { reason: text },
            },
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed => Self::Unavailable { reason: text },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { table: "database", what: text },
            _ => Self::Statement { reason: text },
        }
    }
}

/// Why a store can't be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns this data directory.
    #[error("`{path}` is in use by another process; stop it, or give this one its own --data-dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory can't be created, read or written.
    #[error("can't use `{path}`: {reason}")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The file is a database of some other program, or no database at all.
    #[error("`{path}` is not a Caracal store; choose another --data-dir, nothing in this one was changed")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The store has moved to a database server; the one that was left must not live on beside it.
    #[error(
        "the store in `{directory}` has moved to the database `{to}`: start with DATABASE_URL. To go back, as long as no \
         process has run on that database, drop it and remove `{mark}`"
    )]
    Moved {
        /// The data directory.
        directory: PathBuf,
        /// Host, port and database.
        to: String,
        /// The file that says so.
        mark: PathBuf,
    },
    /// The database is the copy that a backup holds, put in a store's place by hand.
    #[error(
        "`{path}` is the copy out of a backup: everything that was revoked or used since it was made would be in force \
         again. Bring the backup back with `caracal restore`, which ends what was alive in it; nothing was changed"
    )]
    Copy {
        /// The database file.
        path: PathBuf,
    },
    /// The engine finds the file inconsistent.
    #[error("`{path}` is damaged: {what}")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// The first thing that is wrong with it.
        what: String,
    },
    /// The store was written by a newer version.
    #[error("`{path}` has schema {found}, this version knows up to {known}; start it with the newer version")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Highest applied migration.
        found: i64,
        /// Highest migration of this binary.
        known: i64,
    },
    /// An applied migration is not the one this binary carries.
    #[error("migration {version} of `{path}` was altered after it was applied; restore the store from a backup")]
    Altered {
        /// The database file.
        path: PathBuf,
        /// The migration.
        version: i64,
    },
    /// The engine refused.
    #[error("can't open `{path}`: {reason}")]
    Engine {
        /// The database file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A database server can't be used.
    #[error("the database `{server}` {reason}")]
    Server {
        /// Host, port and database, without login.
        server: String,
        /// What is wrong and what to do.
        reason: String,
    },
}
