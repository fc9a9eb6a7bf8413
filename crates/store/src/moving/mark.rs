//! The mark in a data directory whose store has moved: nobody starts it again by accident, and two systems never live on
//! from one state, where each would accept a mandate that the other has used.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

const FILE_NAME: &str = "moved";
const FIRST_LINE: &str = "moved to the database ";

/// The file of a data directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// Where the store of a directory has moved to.
pub(super) fn read(directory: &Path) -> Result<Option<String>, OpenError> {
    let path = path(directory);
    match fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let place = text.lines().next().and_then(|line| line.strip_prefix(FIRST_LINE));
            // However the file came to be cut or altered, it is a mark.
            Ok(Some(place.unwrap_or("(unreadable)").to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Unusable { path, reason: error.to_string() }),
    }
}

/// Refuses the store of a directory that has moved.
pub(crate) fn refuse_moved(directory: &Path) -> Result<(), OpenError> {
    match read(directory)? {
        Some(to) => Err(OpenError::Moved { directory: directory.to_owned(), to, mark: path(directory) }),
        None => Ok(()),
    }
}

/// Marks a directory, whole or not at all, and durably.
pub(super) fn write(directory: &Path, to: &str) -> Result<(), OpenError> {
    let (path, part) = (path(directory), directory.join(format!(".{FILE_NAME}.part")));
    let text = format!(
        "{FIRST_LINE}{to}\n\nThe store in this directory is not used any more, and is refused while this file is here.\n\
         To go back, as long as no process has run on that database: drop it, and remove this file. Once one has, there\n\
         is no way back: what was used or revoked there would be forgotten here.\n"
    );
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|error| OpenError::Unusable { path, reason: error.to_string() })
}
