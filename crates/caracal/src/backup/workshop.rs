//! A directory beside the target in which something is prepared. It is on the target's file system, so that a rename
//! is enough, and only its owner can look into it. Its lock goes with the process: a workshop without an owner was left
//! by one that was killed, and is cleared away.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{FileError, failed, parent};

/// Why there is no place to work in.
#[derive(Debug, thiserror::Error)]
pub enum WorkshopError {
    /// Another process is at it.
    #[error("another process is preparing `{}` right now; wait for it, or choose another target", target.display())]
    InUse {
        /// What both want to make.
        target: PathBuf,
    },
    /// The target has no name.
    #[error("`{}` is no name for a file or directory", target.display())]
    Nameless {
        /// The target.
        target: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The directory, removed with all that is left in it when dropped.
pub(super) struct Workshop {
    path: PathBuf,
    _lock: File,
}

impl Workshop {
    /// Opens an empty workshop for `target`; `purpose` keeps it apart from those of others.
    pub(super) fn beside(target: &Path, purpose: &str) -> Result<Self, WorkshopError> {
        let name = target.file_name().ok_or_else(|| WorkshopError::Nameless { target: target.to_owned() })?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{purpose}"));
        let path = parent(target).join(hidden);
        if let Err(error) = private_directory(&path)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(failed("make", &path)(error).into());
        }
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let lock = options.open(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkshopError::InUse { target: target.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error).into()),
        }
        let workshop = Self { path, _lock: lock };
        workshop.clear(|entry| entry != "lock").map_err(failed("clear", &workshop.path))?;
        Ok(workshop)
    }

    /// Path of something in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn clear(&self, which: impl Fn(&OsString) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                _ if !which(&entry.file_name()) => {}
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What stays behind is no archive and no data directory, and the next run for this target clears it away.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes a directory that only its owner can look into.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a file that only its owner can read, and that was not there.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create_new(true).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
