//! The heads of all chains, kept in a file of their own beside the store: `<dir>/heads.log`.
//!
//! A chain shows every change but one: when its last rows are gone, what is left is a shorter chain, and it verifies.
//! So after each group of commits is durable, the new heads are written here, and verification compares.
//!
//! # The file
//!
//! Text, one line per chain that grew and per group:
//!
//! ```text
//! <kind> <zone> <seq> <content sha256> <key id> <mac>
//! evidence 0199c0de-… 17 a43bfd4d… 41d1b6f07a0cd5c2 6ffe5e88…
//! admin (none) 3 9ad609dc… 41d1b6f07a0cd5c2 5f24450b…
//! ```
//!
//! `kind` is `evidence` or `admin`; `(none)`, which is no id, stands for the chain without zone. `mac` is HMAC-SHA256
//! with the audit key over the line **and the mac before it**, so that lines can neither be altered, nor left out in
//! the middle, nor reordered by someone without the key. The last line of a chain is its head. A file past its limit
//! is rewritten to its newest lines beside itself, synced, renamed over the old one, and the directory synced: a
//! crash leaves the old file or the new one.
//!
//! Whoever opens a file that holds lines of a key that was replaced, or lines that do not name their key, as they were
//! before keys had names, rewrites it so at once: from then on the key in use vouches for all of it.
//!
//! # What it shows, and what not
//!
//! * It never leads: a head is written only once the commit that it names is durable. A chain that ends before its
//!   recorded head has lost rows.
//! * After a killed process it is exact but for the group that was being written: each group is one `write`, and what
//!   was written stays with the operating system. A line cut short at the end is ignored.
//! * After power loss it may lag, by what the operating system had not yet written back: there is no sync per commit,
//!   because the chain itself is what must be durable. A tail cut within that lag does not show.
//! * It is one more place, not another world: who can write both the store and this file can put an older copy of
//!   both in place, or cut both. Against that helps only a head that was handed to someone else.
//! * A missing file says nothing about a store that never recorded. Beside one that has, it was taken away or not
//!   restored: nobody should go on without it unless the operator says so, by an empty file in its place.
//!
//! One process owns the file, the one that holds the lock of the data directory. Others may read.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::ZoneId;

use crate::chain::{Chain, Head};
use crate::hex;
use crate::keys::{ChainKey, Keys, Sealed};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "heads.log";
/// Size from which the file is rewritten, unless its newest lines alone need more than half of it.
pub const COMPACT_BYTES: u64 = 1 << 20;

const NEW_FILE_NAME: &str = "heads.log.new";
/// Keeps these seals apart from everything else the audit key signs.
const DOMAIN: &str = "caracal ledger heads v1\n";
const NO_ZONE: &str = "(none)";

/// Whether heads were ever recorded in `dir`. The file is made, and the directory synced, before the first record is.
pub fn is_kept_in(dir: &Path) -> bool {
    dir.join(FILE_NAME).exists()
}

/// Why heads cannot be read or recorded.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// The operating system refused.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The group was recorded, but the file could not be made smaller; it goes on growing, and it is tried again later.
    #[error("rewriting `{}`", path.display())]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A whole line is not one of ours: edited, reordered, a line before it removed, or written with another key.
    #[error("line {line} of `{}` {what}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A whole line says that it was written with a key that is not at hand.
    #[error(
        "line {line} of `{}` was signed with an audit key that is not at hand (id {key_id}): give the key of this \
         deployment as AUDIT_HMAC_KEY, and those before it as AUDIT_HMAC_KEY_PREVIOUS",
        path.display()
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key's public name.
        key_id: String,
    },
    /// A head would go back, or change in place: the store holds an older or another history than was recorded.
    /// Nothing was recorded for this chain, so that the finding stays; the other chains of the group were recorded.
    #[error("{chain} would go back from recorded seq {recorded} to seq {offered}")]
    WouldGoBack {
        /// Which chain.
        chain: Chain,
        /// The recorded head.
        recorded: i64,
        /// The one offered.
        offered: i64,
    },
    /// Not a head: a sequence number below 1 or a hash that is not lower-case hex of 32 bytes. Nothing was recorded.
    #[error("{chain}: not a head")]
    NotAHead {
        /// Which chain.
        chain: Chain,
    },
    /// An earlier failure left a line cut short in the middle. Open the file again to mend it.
    #[error("the heads file is damaged by an earlier failure")]
    Damaged,
}

/// The recorded heads of `dir`, or `None` where none were ever recorded. For verification beside a running process;
/// the file may grow meanwhile.
pub fn read_heads(dir: &Path, key: &dyn ChainKey) -> Result<Option<BTreeMap<Chain, Head>>, HeadsError> {
    let path = dir.join(FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Content::read(&path, &bytes, key)?.heads)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HeadsError::Io { doing: "reading", path, source }),
    }
}

/// The file, open for recording by the process that owns the data directory.
pub struct HeadsFile {
    dir: PathBuf,
    path: PathBuf,
    key: Arc<dyn ChainKey>,
    key_id: String,
    file: File,
    content: Content,
    /// Size from which the next group triggers a rewrite.
    compact_at: u64,
    limit: u64,
    /// A failed write left half a line that could not be taken back.
    damaged: bool,
}

impl HeadsFile {
    /// Opens or creates the file of `dir`, readable by its owner only, and takes away a line that was cut short.
    pub fn open(dir: &Path, key: Arc<dyn ChainKey>) -> Result<Self, HeadsError> {
        Self::open_with_limit(dir, key, COMPACT_BYTES)
    }

    /// [`open`](Self::open) with another size than [`COMPACT_BYTES`].
    pub fn open_with_limit(dir: &Path, key: Arc<dyn ChainKey>, limit: u64) -> Result<Self, HeadsError> {
        let path = dir.join(FILE_NAME);
        let new_path = dir.join(NEW_FILE_NAME);
        if let Err(source) = remove_if_there(&new_path) {
            return Err(HeadsError::Io { doing: "removing an unfinished rewrite", path: new_path, source });
        }
        let failed = |doing| {
            let path = path.clone();
            move |source| HeadsError::Io { doing, path, source }
        };
        let existed = path.exists();
        let file = owner_only().open(&path).map_err(failed("opening"))?;
        restrict_to_owner(&file).map_err(failed("restricting"))?;
        if !existed {
            let failed = |source| HeadsError::Io { doing: "syncing", path: dir.to_owned(), source };
            sync_dir(dir).map_err(failed)?;
        }
        let bytes = fs::read(&path).map_err(failed("reading"))?;
        let content = Content::read(&path, &bytes, key.as_ref())?;
        file.set_len(content.bytes).map_err(failed("cutting an unfinished line of"))?;
        let compact_at = limit.max(2 * content.newest_bytes());
        let key_id = key.id(0).unwrap_or_default();
        let (dir, renewed) = (dir.to_owned(), content.is_old);
        let mut opened = Self { dir, path, key, key_id, file, content, compact_at, limit, damaged: false };
        if renewed {
            opened.compact()?;
        }
        Ok(opened)
    }

    /// The recorded heads.
    pub fn heads(&self) -> &BTreeMap<Chain, Head> {
        &self.content.heads
    }

    /// Records the new heads of one group of commits, **after** that group is durable in the store. One `write`, no
    /// sync. A head that is recorded already is not repeated.
    ///
    /// An error of the rewrite that keeps the file small ([`HeadsError::Rewrite`]) comes after the group was recorded.
    pub fn record(&mut self, group: &[(Chain, Head)]) -> Result<(), HeadsError> {
        if self.damaged {
            return Err(HeadsError::Damaged);
        }
        if let Some((chain, _)) = group.iter().find(|(_, head)| !is_head(head)) {
            return Err(HeadsError::NotAHead { chain: chain.clone() });
        }
        let mut next = Appended { mac: self.content.mac.clone(), lines: String::new() };
        let mut moved: BTreeMap<&Chain, &Head> = BTreeMap::new();
        let mut refused = None;
        for (chain, head) in group {
            match moved.get(chain).copied().or_else(|| self.content.heads.get(chain)) {
                Some(recorded) if recorded == head => continue,
                Some(recorded) if recorded.chain_seq >= head.chain_seq => {
                    refused.get_or_insert_with(|| HeadsError::WouldGoBack {
                        chain: chain.clone(),
                        recorded: recorded.chain_seq,
                        offered: head.chain_seq,
                    });
                    continue;
                }
                _ => {}
            }
            next.push(chain, head, (&self.key_id, self.key.as_ref()));
            moved.insert(chain, head);
        }
        if !next.lines.is_empty() {
            self.append(next.lines.as_bytes())?;
            self.content.mac = next.mac;
            for (chain, head) in moved {
                self.content.heads.insert(chain.clone(), head.clone());
            }
        }
        // Before the rewrite: that a history went back matters more than the size of a file.
        refused.map_or(Ok(()), Err)?;
        if self.content.bytes > self.compact_at { self.compact() } else { Ok(()) }
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), HeadsError> {
        if let Err(source) = self.file.write_all(lines) {
            // Part of the group may be in the file; another line behind half a line would make both unreadable.
            self.damaged = self.file.set_len(self.content.bytes).is_err();
            return Err(self.io("writing", source));
        }
        self.content.bytes += lines.len() as u64;
        Ok(())
    }

    /// Rewrites the file to the newest line of each chain.
    fn compact(&mut self) -> Result<(), HeadsError> {
        // Should this fail, it is tried again only once the file has grown by as much again.
        self.compact_at = self.content.bytes + self.limit;
        let mut newest = Appended { mac: String::new(), lines: String::new() };
        for (chain, head) in &self.content.heads {
            newest.push(chain, head, (&self.key_id, self.key.as_ref()));
        }
        let new_path = self.dir.join(NEW_FILE_NAME);
        let rewrite = || -> io::Result<File> {
            remove_if_there(&new_path)?;
            let mut file = owner_only().open(&new_path)?;
            file.write_all(newest.lines.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new_path, &self.path)?;
            Ok(file)
        };
        let failed = |source| HeadsError::Rewrite { path: self.path.clone(), source };
        self.file = rewrite().map_err(failed)?;
        self.content.bytes = newest.lines.len() as u64;
        self.content.mac = newest.mac;
        self.compact_at = self.limit.max(2 * self.content.bytes);
        sync_dir(&self.dir).map_err(failed)
    }

    /// Makes what was recorded durable. For an orderly stop; commits do not wait for it.
    pub fn close(self) -> Result<(), HeadsError> {
        self.file.sync_all().map_err(|source| self.io("syncing", source))
    }

    fn io(&self, doing: &'static str, source: io::Error) -> HeadsError {
        HeadsError::Io { doing, path: self.path.clone(), source }
    }
}

/// Lines to be appended, and the mac of the last of them.
struct Appended {
    mac: String,
    lines: String,
}

impl Appended {
    fn push(&mut self, chain: &Chain, head: &Head, (key_id, key): (&str, &dyn ChainKey)) {
        let zone = chain.zone().map_or(NO_ZONE, ZoneId::as_str);
        let body = format!("{} {zone} {} {} {key_id}", chain.kind(), head.chain_seq, head.content_sha256);
        self.mac = hex::encode(&key.sign(&message(&self.mac, &body)));
        self.lines.push_str(&body);
        self.lines.push(' ');
        self.lines.push_str(&self.mac);
        self.lines.push('\n');
    }
}

fn message(before: &str, body: &str) -> Vec<u8> {
    format!("{DOMAIN}{before}\n{body}").into_bytes()
}

fn is_head(head: &Head) -> bool {
    head.chain_seq >= 1 && hex::is_sha256(&head.content_sha256)
}

/// What the whole lines of the file say.
struct Content {
    heads: BTreeMap<Chain, Head>,
    /// Mac of the last whole line; empty before the first.
    mac: String,
    /// Bytes up to the end of the last whole line.
    bytes: u64,
    /// Whether some line is not one of the key in use, or doesn't say so.
    is_old: bool,
}

impl Content {
    fn read(path: &Path, bytes: &[u8], key: &dyn ChainKey) -> Result<Self, HeadsError> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut content = Self { heads: BTreeMap::new(), mac: String::new(), bytes: whole as u64, is_old: false };
        let (keys, mut newest) = (Keys::of(key), None::<usize>);
        for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let bad = |what| HeadsError::BadLine { path: path.to_owned(), line: index + 1, what };
            let line = line.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
            let (body, seal) = line.and_then(|line| line.rsplit_once(' ')).ok_or_else(|| bad("is not a head line"))?;
            let named = body.split(' ').nth(4);
            let age = match keys.who(&message(&content.mac, body), seal, named, newest.unwrap_or_default()) {
                Sealed::By(age) => age,
                Sealed::ByUnknown(key_id) if hex::is_key_id(&key_id) => {
                    return Err(HeadsError::UnknownKey { path: path.to_owned(), line: index + 1, key_id });
                }
                Sealed::ByUnknown(_) => return Err(bad("is not a head line")),
                Sealed::Wrong => {
                    return Err(bad(
                        "does not carry the mac that belongs there: it was altered, or written with another \
                                    audit key; the one in use before goes into AUDIT_HMAC_KEY_PREVIOUS",
                    ));
                }
            };
            if newest.is_some_and(|newest| age > newest) {
                return Err(bad("was signed with an audit key that had been replaced, behind one of a later key"));
            }
            newest = Some(age);
            content.is_old |= named.is_none() || named != keys.current();
            let (chain, head) = parse_body(body).ok_or_else(|| bad("is not a head line"))?;
            content.heads.insert(chain, head);
            content.mac = seal.to_owned();
        }
        Ok(content)
    }

    /// About the size of a file of newest lines only.
    fn newest_bytes(&self) -> u64 {
        let line = |chain: &Chain| 187 + chain.zone().map_or(NO_ZONE.len(), |zone| zone.as_str().len()) as u64;
        self.heads.keys().map(line).sum()
    }
}

fn parse_body(body: &str) -> Option<(Chain, Head)> {
    let mut words = body.split(' ');
    let (kind, zone, seq, hash) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let zone = if zone == NO_ZONE { None } else { Some(ZoneId::parse(zone).ok()?) };
    let chain = match kind {
        "evidence" => Chain::Evidence(zone?),
        "admin" => Chain::Admin(zone),
        _ => return None,
    };
    let head = Head { chain_seq: seq.parse().ok()?, content_sha256: hash.to_owned() };
    let named = words.next().is_none_or(hex::is_key_id);
    (named && words.next().is_none() && is_head(&head)).then_some((chain, head))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Options for appending to a file that only its owner may read.
fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Mends the mode of a file that existed before.
fn restrict_to_owner(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_write_that_cannot_be_taken_back_nothing_is_written_until_the_file_is_opened_again() {
        let dir = tempfile::TempDir::new().unwrap();
        let key: Arc<dyn ChainKey> = Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]));
        let chain = Chain::Admin(None);
        let head = |chain_seq| Head { chain_seq, content_sha256: "0".repeat(64) };
        let mut heads = HeadsFile::open(dir.path(), key.clone()).unwrap();
        heads.record(&[(chain.clone(), head(1))]).unwrap();
        // A handle that can neither write nor cut.
        heads.file = File::open(&heads.path).unwrap();
        assert!(matches!(heads.record(&[(chain.clone(), head(2))]), Err(HeadsError::Io { doing: "writing", .. })));
        assert!(matches!(heads.record(&[(chain.clone(), head(2))]), Err(HeadsError::Damaged)));
        assert_eq!(heads.heads()[&chain], head(1));
        let mut heads = HeadsFile::open(dir.path(), key).unwrap();
        heads.record(&[(chain.clone(), head(2))]).unwrap();
        assert_eq!(heads.heads()[&chain], head(2));
    }
}
