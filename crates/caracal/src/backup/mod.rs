//! Backups of the embedded engine, and bringing one back.
//!
//! A backup is one tar archive. Its members, in this order and no others:
//!
//! ```text
//! manifest.json   what this is, and the SHA-256 of every part
//! manifest.hmac   HMAC-SHA256 of manifest.json with the audit key, where that was at hand
//! heads.log       the ledger's heads
//! secrets/…       the key files, only if they were asked for
//! store.db        the database at one instant
//! ```
//!
//! **Order.** The heads are read before the database. A head is written once the commit that it names is durable, so
//! whatever the file says at some instant, a database read later has it: the copy is never older than its heads. The
//! other way round, each commit between the two would look like a tail that was cut off.
//!
//! **What vouches for it.** The ledger vouches for itself, but most of a store is no ledger: a stolen archive that came
//! back with one more grant in a policy would bring somebody to power. So the manifest is sealed with the audit key, and
//! a key that lies in the same archive vouches for nothing: without another one a restore has to be told to go ahead.
//!
//! **Whole or not at all.** Both ways are prepared in a directory beside the target, synced, and become visible by
//! one rename. Whatever kills the process before leaves the target as it was; the next run clears that directory away.
//!
//! **A backup is the past.** What was revoked since is in force in it, and a mandate that was used since is unused. So
//! [`restore()`] ends everything that was alive in it, in the transaction that makes the copy a store
//! (docs/decisions/0019-a-restore-ends-what-was-alive.md).

mod archive;
mod make;
mod manifest;
mod restore;
mod workshop;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use caracal_crypto::hmac::HmacRing;
use caracal_ledger::{Chain, Head, HeadsError, LedgerReport, read_heads, verify_store};
use caracal_store::{OpenError, StoreError, inspect};

pub use archive::ArchiveError;
pub use make::{BackupError, Made, Making, make};
pub use manifest::{ChainSummary, LedgerSummary, Manifest, Part};
pub use restore::{RestoreError, Restored, Restoring, Vouched, restore};
pub use workshop::WorkshopError;

/// Where a backup or a restore is. Told before each step begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The database is copied.
    Copying {
        /// Pages done.
        done: u64,
        /// Of how many.
        of: u64,
    },
    /// The archive is unpacked, every hash checked.
    Unpacking,
    /// The engine looks through every page.
    CheckingPages,
    /// The ledger is verified.
    Verifying {
        /// Rows of the chain at hand.
        rows: i64,
    },
    /// The archive is written.
    Packing,
    /// What was written is read again.
    Rereading,
    /// What was alive is ended.
    Ending,
    /// All is done and synced but for the name.
    Naming,
    /// The name is there.
    Named,
}

/// Hears of each step.
pub type Progress<'p> = &'p mut dyn FnMut(Step);

/// Why a ledger could not be verified, or does not verify.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A chain is broken.
    #[error("the ledger does not verify: {0}")]
    Broken(String),
    /// The heads were not sealed with this key.
    #[error(
        "the ledger's heads were not sealed with the audit key at hand, or were altered: {0}. Give the AUDIT_HMAC_KEY of \
         this deployment"
    )]
    WrongKey(HeadsError),
    /// The heads can't be read.
    #[error(transparent)]
    Heads(HeadsError),
    /// The database can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database can't be read.
    #[error("the ledger can't be read")]
    Store(#[from] StoreError),
}

/// Verifies the ledger of a database that nobody changes: with the key against `heads_dir`, without one its hashes only.
fn verify(
    database: &Path,
    heads_dir: &Path,
    key: Option<&HmacRing>,
    progress: Progress<'_>,
) -> Result<LedgerReport, LedgerError> {
    let heads: BTreeMap<Chain, Head> = match key {
        None => BTreeMap::new(),
        Some(key) => match read_heads(heads_dir, key) {
            Ok(heads) => heads.unwrap_or_default(),
            Err(error @ (HeadsError::BadLine { .. } | HeadsError::UnknownKey { .. })) => {
                return Err(LedgerError::WrongKey(error));
            }
            Err(error) => return Err(LedgerError::Heads(error)),
        },
    };
    progress(Step::Verifying { rows: 0 });
    let mut inspection = inspect(database)?;
    let key = key.map(|key| key as &dyn caracal_ledger::ChainKey);
    let report =
        inspection.run(async |tx| verify_store(tx, key, &heads, |_, rows| progress(Step::Verifying { rows })).await)?;
    match report.first() {
        None => Ok(report),
        Some((chain, finding)) => Err(LedgerError::Broken(format!("{chain}: {finding}"))),
    }
}

/// A file or directory that the operating system did not let be used.
#[derive(Debug, thiserror::Error)]
#[error("can't {doing} `{}`", path.display())]
pub struct FileError {
    /// What was tried.
    doing: &'static str,
    /// On what.
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { doing, path, source }
}

/// The directory that a path lies in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(directory: &Path) -> Result<(), FileError> {
    std::fs::File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed("sync", directory))
}

#[cfg(test)]
mod tests;
