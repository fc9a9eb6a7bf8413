//! Making a backup, beside a running system or of a stopped one. See [the module](super) for what is in it and why in
//! this order.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use caracal_authority::Timestamp;
use caracal_crypto::hmac::HmacRing;
use caracal_store::{OpenError, SqliteOptions, backup};

use super::archive::{self, ArchiveError, Cover};
use super::manifest::{HEADS, LedgerSummary, Manifest, SECRETS, STORE, seal};
use super::workshop::{Workshop, WorkshopError, private_file};
use super::{FileError, LedgerError, Progress, Step, failed, parent, sync_directory, verify};
use crate::settings::SecretFiles;

/// What is asked for.
pub struct Making<'a> {
    /// The data directory.
    pub data_dir: &'a Path,
    /// The archive to make.
    pub to: &'a Path,
    /// Whether an archive of that name may be replaced.
    pub force: bool,
    /// Whether the key files go into it.
    pub with_secrets: bool,
    /// The audit key, where it is at hand.
    pub key: Option<&'a HmacRing>,
    /// The time.
    pub now: Timestamp,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// What the archive says of itself.
    pub manifest: Manifest,
    /// Size of the archive.
    pub bytes: u64,
    /// Whether the audit key vouches for it.
    pub sealed: bool,
}

/// Why no backup was made. Nothing was left behind, and what was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something of that name.
    #[error("`{}` is there already; choose another name, or replace it with --force", to.display())]
    Exists {
        /// The target.
        to: PathBuf,
    },
    /// The store has no heads.
    #[error(
        "`{}` has no heads.log: whether the end of its ledger was cut off can't be told, and a backup of it would not \
         tell either. Put it back first", data_dir.display()
    )]
    HeadsMissing {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The ledger of the copy.
    #[error("the store was not backed up: {0}. A backup would only bury that; `caracal audit verify` shows all of it")]
    Ledger(#[from] LedgerError),
    /// The store can't be copied.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// There is no place to work in.
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was written is not what is read.
    #[error("what was written does not read back")]
    Unreadable(#[from] ArchiveError),
}

/// Makes a backup.
pub fn make(making: &Making<'_>, progress: Progress<'_>) -> Result<Made, BackupError> {
    refuse_existing(making)?;
    let workshop = Workshop::beside(making.to, "backup")?;
    // Heads first: see the module's story.
    let heads = workshop.path(HEADS);
    copy_heads(making.data_dir, &heads)?;
    let store = workshop.path(STORE);
    progress(Step::Copying { done: 0, of: 0 });
    let options = SqliteOptions::in_directory(making.data_dir);
    let schema = backup::copy(&options, &store, making.now, |done, of| progress(Step::Copying { done, of }))?;
    progress(Step::CheckingPages);
    backup::check_integrity(&store)?;
    let report = verify(&store, &workshop.path(""), making.key, progress)?;

    progress(Step::Packing);
    let mut files = vec![(HEADS.to_owned(), heads)];
    if making.with_secrets {
        files.extend(secrets(making.data_dir));
    }
    files.push((STORE.to_owned(), store));
    let mut parts = Vec::new();
    for (name, path) in files {
        parts.push((archive::part(&name, &path).map_err(failed("read", &path))?, path));
    }
    let listed = parts.iter().map(|(part, _)| part.clone()).collect();
    let ledger = LedgerSummary::of(&report, making.key.is_some());
    let manifest = Manifest::new(making.now.to_millis_text(), schema, listed, ledger);
    let cover = cover(manifest, making.key)?;
    let made = workshop.path("archive");
    let file = private_file(&made).map_err(failed("make", &made))?;
    archive::write(&cover, &parts, making.now, file).map_err(failed("write", &made))?;

    progress(Step::Rereading);
    let again = archive::read_cover(&made)?;
    archive::unpack(&made, &again, |_| Ok(io::sink()), |_| Ok(()))?;
    let bytes = fs::metadata(&made).map_err(failed("read", &made))?.len();
    progress(Step::Naming);
    name(making, &made)?;
    sync_directory(parent(making.to))?;
    progress(Step::Named);
    Ok(Made { manifest: again.manifest, bytes, sealed: again.seal.is_some() })
}

fn refuse_existing(making: &Making<'_>) -> Result<(), BackupError> {
    match fs::symlink_metadata(making.to) {
        Ok(found) if found.is_file() && making.force => Ok(()),
        Ok(_) => Err(BackupError::Exists { to: making.to.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("use", making.to)(error).into()),
    }
}

/// The whole lines of the heads file: a running system may be writing the next one.
fn copy_heads(data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    let from = data_dir.join(HEADS);
    let mut lines = match fs::read(&from) {
        Ok(lines) => lines,
        Err(error) if error.kind() == ErrorKind::NotFound && data_dir.is_dir() => {
            // Where there is no store, that is what has to be said.
            drop(caracal_store::inspect(&SqliteOptions::in_directory(data_dir).database())?);
            return Err(BackupError::HeadsMissing { data_dir: data_dir.to_owned() });
        }
        Err(error) => return Err(failed("read", &from)(error).into()),
    };
    lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let mut file = private_file(to).map_err(failed("make", to))?;
    io::Write::write_all(&mut file, &lines).map_err(failed("write", to))?;
    Ok(())
}

/// The key files that are there. Keys that the environment gives have none.
fn secrets(data_dir: &Path) -> Vec<(String, PathBuf)> {
    let files = SecretFiles::in_data_dir(data_dir);
    let there = SecretFiles::names().map(|name| (format!("{SECRETS}{name}"), files.path(name)));
    there.filter(|(_, path)| path.is_file()).collect()
}

fn cover(manifest: Manifest, key: Option<&HmacRing>) -> Result<Cover, BackupError> {
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| {
        let source = io::Error::other(error);
        FileError { doing: "write", path: PathBuf::from("manifest.json"), source }
    })?;
    text.push(b'\n');
    let seal = key.map(|key| seal(key, &text));
    Ok(Cover { manifest, text, seal })
}

/// Gives the archive its name. Without --force not even one is replaced that came to be meanwhile.
fn name(making: &Making<'_>, made: &Path) -> Result<(), BackupError> {
    if making.force {
        return Ok(fs::rename(made, making.to).map_err(failed("name", making.to))?);
    }
    let named = tempfile::TempPath::try_from_path(made).map_err(failed("use", made))?.persist_noclobber(making.to);
    match named {
        Ok(()) => Ok(()),
        Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {
            Err(BackupError::Exists { to: making.to.to_owned() })
        }
        Err(refused) => Err(failed("name", making.to)(refused.error).into()),
    }
}
