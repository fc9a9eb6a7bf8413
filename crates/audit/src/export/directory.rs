//! An archive in a directory. A file gets its name once all of it is on the disk, and never another content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use caracal_store::BoxFuture;

use super::archive::{Archive, ArchiveError, Object, Put};

/// Files below a directory, named as objects of a bucket are.
pub struct DirectoryArchive {
    root: PathBuf,
}

impl DirectoryArchive {
    /// Below `root`, which is made when it is not there.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Archive for DirectoryArchive {
    fn put<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Put, ArchiveError>> {
        Box::pin(async move {
            let (path, object) = (self.root.join(&object.key), object.clone());
            let written = tokio::task::spawn_blocking(move || put(&path, &object).map_err(|error| (path, error))).await;
            match written {
                Ok(Ok(put)) => Ok(put),
                Ok(Err((path, error))) => Err(ArchiveError(format!("`{}`: {error}", path.display()))),
                Err(error) => Err(ArchiveError(error.to_string())),
            }
        })
    }
}

fn put(path: &Path, object: &Object) -> io::Result<Put> {
    let directory = path.parent().unwrap_or(Path::new("."));
    make_durably(directory)?;
    // Of the one process that exports; what another left half written is written over.
    let draft = path.with_extension("parquet.part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft)?;
    file.write_all(&object.bytes)?;
    file.sync_all()?;
    drop(file);
    // A link is refused where the name is taken; a rename would put one file in another's place.
    let put = match fs::hard_link(&draft, path) {
        Ok(()) => Put::Done,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if says(path, &object.identity)? {
                Put::Done
            } else {
                Put::OtherIsThere
            }
        }
        Err(error) => return Err(error),
    };
    fs::remove_file(&draft)?;
    File::open(directory)?.sync_all()?;
    Ok(put)
}

/// Makes a directory and those above it, so that they are there after a loss of power, too.
fn make_durably(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_durably(above)?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        return File::open(above)?.sync_all();
    }
    fs::create_dir_all(directory)
}

/// Whether the file at `path` says of itself, at its end, that it is the object of this identity.
fn says(path: &Path, identity: &str) -> io::Result<bool> {
    /// More than the description of any file that we write.
    const END: u64 = 256 * 1024;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(END)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end.windows(identity.len()).any(|bytes| bytes == identity.as_bytes()))
}
