//! The archive, written and read. Reading trusts nothing: a member counts only where the manifest has it, with the size
//! and the hash that the manifest says, as a plain file. So nothing in an archive decides where anything is written to,
//! and neither links, long names nor paths that lead out are ever looked at.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use caracal_authority::Timestamp;
use caracal_crypto::hmac::Sha256;
use tar::{Archive, Builder, EntryType, Header};

use super::manifest::{FORMAT, Manifest, Part};

const MANIFEST: &str = "manifest.json";
const SEAL: &str = "manifest.hmac";
/// More than the manifest of a million chains needs.
const MOST_MANIFEST_BYTES: u64 = 512 << 20;
const MOST_SEAL_BYTES: u64 = 256;

/// Why a file is not an archive that can be brought back. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not one of ours.
    #[error("`{}` is not a backup made by `caracal backup`: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: String,
    },
    /// Written by a newer version.
    #[error(
        "`{}` has format {found}, this version reads {FORMAT}; bring it back with the version that made it, or a newer \
         one", path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A member is missing, too much, or another than the manifest says.
    #[error("`{}` was damaged or tampered with: {what}. Take another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file can't be read.
    #[error("can't read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was read can't be written.
    #[error("can't write `{name}` out of the backup")]
    Unwritable {
        /// The member.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// The first members of an archive.
pub(super) struct Cover {
    pub(super) manifest: Manifest,
    /// The manifest's very bytes: what the seal is over.
    pub(super) text: Vec<u8>,
    pub(super) seal: Option<String>,
}

/// Size and hash of a file.
pub(super) fn part(name: &str, file: &Path) -> io::Result<Part> {
    let (bytes, sha256) = copy_hashed(&mut File::open(file)?, &mut io::sink()).map_err(Copying::into_io)?;
    Ok(Part { name: name.to_owned(), bytes, sha256 })
}

/// Writes an archive of the files `parts`, each with the path that its bytes are at, and syncs it.
pub(super) fn write(cover: &Cover, parts: &[(Part, PathBuf)], made_at: Timestamp, to: File) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 18, to));
    let mtime = u64::try_from(made_at.as_seconds()).unwrap_or(0);
    let mut add = |name: &str, bytes: u64, content: &mut dyn Read| {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(mtime);
        header.set_size(bytes);
        archive.append_data(&mut header, name, content)
    };
    add(MANIFEST, cover.text.len() as u64, &mut cover.text.as_slice())?;
    if let Some(seal) = &cover.seal {
        add(SEAL, seal.len() as u64, &mut seal.as_bytes())?;
    }
    for (part, path) in parts {
        add(&part.name, part.bytes, &mut File::open(path)?)?;
    }
    archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Reads what an archive says of itself.
pub(super) fn read_cover(path: &Path) -> Result<Cover, ArchiveError> {
    let mut cover = None;
    walk(path, |found, _| {
        cover = Some(found);
        Ok(())
    })?;
    cover.ok_or_else(|| foreign(path, "it is empty"))
}

/// Reads every part, in order, into the writer that `open` gives for it, and checks all of it. `cover` is what was read
/// before: an archive that was replaced since is refused.
pub(super) fn unpack<W: Write>(
    path: &Path,
    cover: &Cover,
    mut open: impl FnMut(&Part) -> io::Result<W>,
    mut close: impl FnMut(W) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let damaged = |what: String| ArchiveError::Damaged { path: path.to_owned(), what };
    walk(path, |found, entries| {
        if found.text != cover.text || found.seal != cover.seal {
            return Err(damaged("it was replaced while it was read".to_owned()));
        }
        for part in &cover.manifest.parts {
            let mut entry = entries.next(path)?.ok_or_else(|| damaged(format!("`{}` is missing", part.name)))?;
            if entry.name != part.name {
                return Err(damaged(format!("`{}` lies where `{}` should", entry.name.escape_debug(), part.name)));
            }
            if entry.content.size() != part.bytes {
                return Err(damaged(format!("`{}` is not what the manifest says", part.name)));
            }
            let unwritable = |source| ArchiveError::Unwritable { name: part.name.clone(), source };
            let mut to = open(part).map_err(unwritable)?;
            let (bytes, sha256) = copy_hashed(&mut entry.content, &mut to).map_err(|error| match error {
                Copying::Read(error) => damaged(format!("`{}` can't be read: {error}", part.name)),
                Copying::Write(error) => unwritable(error),
            })?;
            if bytes != part.bytes || sha256 != part.sha256 {
                return Err(damaged(format!("`{}` is not what the manifest says", part.name)));
            }
            close(to).map_err(unwritable)?;
        }
        match entries.next(path)? {
            None => Ok(()),
            Some(more) => Err(damaged(format!("`{}` does not belong into it", more.name.escape_debug()))),
        }
    })
}

/// The members of an archive one after the other, plain files only.
struct Entries<'a, R: Read> {
    entries: tar::Entries<'a, R>,
    /// One that was looked at and not taken.
    put_back: Option<Entry<'a, R>>,
}

struct Entry<'a, R: Read> {
    name: String,
    content: tar::Entry<'a, R>,
}

impl<'a, R: Read> Entries<'a, R> {
    fn next(&mut self, path: &Path) -> Result<Option<Entry<'a, R>>, ArchiveError> {
        if let Some(entry) = self.put_back.take() {
            return Ok(Some(entry));
        }
        let damaged = |what: String| ArchiveError::Damaged { path: path.to_owned(), what };
        let Some(entry) = self.entries.next() else { return Ok(None) };
        let entry = entry.map_err(|error| damaged(error.to_string()))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular {
            return Err(damaged(format!("`{}` is not a plain file", name.escape_debug())));
        }
        Ok(Some(Entry { name, content: entry }))
    }
}

/// Opens an archive, reads its cover, and hands on what follows.
fn walk(
    path: &Path,
    then: impl FnOnce(Cover, &mut Entries<'_, BufReader<File>>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let unreadable = |source| ArchiveError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(foreign(path, "it is no file"));
    }
    let mut archive = Archive::new(BufReader::with_capacity(1 << 18, file));
    // Raw: members that would rename or resize the one behind them are members like any other, and refused.
    let entries = archive.entries().map_err(unreadable)?.raw(true);
    let mut entries = Entries { entries, put_back: None };
    let first = entries.next(path).map_err(|error| foreign(path, &format!("it has no manifest: {error}")))?;
    let mut first = first.filter(|first| first.name == MANIFEST).ok_or_else(|| foreign(path, "it has no manifest"))?;
    let text = read_small(path, &mut first, MOST_MANIFEST_BYTES)?;
    drop(first);
    match Manifest::format_of(&text) {
        None => return Err(foreign(path, "its manifest is about something else")),
        Some(FORMAT) => {}
        Some(found) => return Err(ArchiveError::NewerFormat { path: path.to_owned(), found }),
    }
    let damaged = |what: String| ArchiveError::Damaged { path: path.to_owned(), what };
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("the manifest can't be read: {error}")))?;
    if let Some(name) = manifest.misplaced() {
        return Err(damaged(format!("the manifest has `{}` too much or not at all", name.escape_debug())));
    }
    let seal = match entries.next(path)? {
        Some(mut entry) if entry.name == SEAL => {
            let seal = read_small(path, &mut entry, MOST_SEAL_BYTES)?;
            Some(String::from_utf8(seal).map_err(|_| damaged("the seal is no text".to_owned()))?)
        }
        other => {
            entries.put_back = other;
            None
        }
    };
    then(Cover { manifest, text, seal }, &mut entries)
}

fn read_small<R: Read>(path: &Path, entry: &mut Entry<'_, R>, most: u64) -> Result<Vec<u8>, ArchiveError> {
    let damaged = |what: String| ArchiveError::Damaged { path: path.to_owned(), what };
    if entry.content.size() > most {
        return Err(damaged(format!("`{}` is too large", entry.name)));
    }
    let mut text = Vec::new();
    let read = entry.content.read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
    if read as u64 != entry.content.size() {
        return Err(damaged(format!("`{}` is cut short", entry.name)));
    }
    Ok(text)
}

fn foreign(path: &Path, what: &str) -> ArchiveError {
    ArchiveError::Foreign { path: path.to_owned(), what: what.to_owned() }
}

/// Whose failure it was.
enum Copying {
    Read(io::Error),
    Write(io::Error),
}

impl Copying {
    fn into_io(self) -> io::Error {
        match self {
            Self::Read(error) | Self::Write(error) => error,
        }
    }
}

fn copy_hashed(from: &mut dyn Read, to: &mut dyn Write) -> Result<(u64, String), Copying> {
    let mut hash = Sha256::default();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hash.finish_hex())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copying::Read(error)),
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        hash.update(chunk);
        to.write_all(chunk).map_err(Copying::Write)?;
        bytes += read as u64;
    }
}
