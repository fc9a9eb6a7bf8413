//! A disk whose cache is lost with the power: what was synced is there, and of the rest whatever the disk had come to.

use std::collections::BTreeMap;

use crate::trace::{Call, Event};

/// The files of a directory, by name.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum Entry {
    Add { name: String, file: usize },
    Remove { name: String },
    Rename { from: String, to: String },
}

/// What came after the last sync, and when it had ended: a sync is for what had ended before it began.
struct Pending<T> {
    what: T,
    ended: usize,
}

/// What of a write comes to the disk, which writes sectors of 512 bytes wholly or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Kept,
    Lost,
    /// The file has become as long, with nothing in it.
    Length,
    /// What lies before, or behind, a boundary between sectors, counted from the front.
    Front(usize),
    Back(usize),
}

/// What becomes of each change that is not synced: of those to files, file by file, and of those to the directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Left {
    pub(crate) writes: Vec<Fate>,
    pub(crate) entries: Vec<bool>,
}

const SECTOR: usize = 512;

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Pending<Change>>,
}

#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// The directory as processes see it, and as it was when it was synced last.
    names: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    pending: Vec<Pending<Entry>>,
}

impl Disk {
    /// Takes a call into account.
    pub(crate) fn take(&mut self, event: &Event) {
        let ended = event.ended;
        match &event.call {
            Call::Create { file, empties } => {
                if let Some(file) = self.names.get(file) {
                    if *empties {
                        self.files[*file].pending.push(Pending { what: Change::Length(0), ended });
                    }
                } else {
                    self.files.push(File::default());
                    self.rename(Entry::Add { name: file.clone(), file: self.files.len() - 1 }, ended);
                }
            }
            Call::Write { file, offset, bytes } => {
                let what = Change::Write { offset: *offset, bytes: bytes.clone() };
                self.file(file).pending.push(Pending { what, ended });
            }
            Call::Truncate { file, length } => {
                self.file(file).pending.push(Pending { what: Change::Length(*length), ended });
            }
            Call::Sync { file } if file.is_empty() => {
                let synced = &mut self.synced;
                self.pending.retain(|pending| {
                    let waits = pending.ended >= event.began;
                    if !waits {
                        pending.what.apply(synced);
                    }
                    waits
                });
            }
            Call::Sync { file } => {
                let File { synced, pending } = self.file(file);
                pending.retain(|pending| {
                    let waits = pending.ended >= event.began;
                    if !waits {
                        pending.what.apply(Fate::Kept, synced);
                    }
                    waits
                });
            }
            Call::Remove { file } => self.rename(Entry::Remove { name: file.clone() }, ended),
            Call::Rename { from, to } => self.rename(Entry::Rename { from: from.clone(), to: to.clone() }, ended),
            Call::Said(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let file = self.names.get(name).unwrap_or_else(|| panic!("{name} was written to and never made"));
        &mut self.files[*file]
    }

    fn rename(&mut self, what: Entry, ended: usize) {
        what.apply(&mut self.names);
        self.pending.push(Pending { what, ended });
    }

    /// How many changes to files and to the directory are not synced.
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.files.iter().map(|file| file.pending.len()).sum(), self.pending.len())
    }

    /// What lies on the disk when its unsynced changes have come to `left`.
    pub(crate) fn image(&self, left: &Left) -> Image {
        let mut names = self.synced.clone();
        for (pending, _) in self.pending.iter().zip(&left.entries).filter(|(_, is_there)| **is_there) {
            pending.what.apply(&mut names);
        }
        let mut before = 0;
        let mut contents = Vec::new();
        for file in &self.files {
            let fates = left.writes.iter().skip(before);
            contents.push(file.pending.iter().zip(fates));
            before += file.pending.len();
        }
        let content = |file: usize| {
            let mut bytes = self.files[file].synced.clone();
            for (pending, fate) in contents[file].clone() {
                pending.what.apply(*fate, &mut bytes);
            }
            bytes
        };
        names.into_iter().map(|(name, file)| (name, content(file))).collect()
    }
}

impl Entry {
    /// A name whose file never came to be can't be moved.
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add { name, file } => drop(names.insert(name.clone(), *file)),
            Self::Remove { name } => drop(names.remove(name)),
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, fate: Fate, file: &mut Vec<u8>) {
        match (self, fate) {
            (_, Fate::Lost) | (Self::Length(_), Fate::Front(_) | Fate::Back(_)) => {}
            (Self::Length(length), Fate::Kept | Fate::Length) => file.resize(*length, 0),
            (Self::Write { offset, bytes }, fate) => {
                let end = offset + bytes.len();
                // The boundary that lies `sectors` behind the one before the write, as far as it lies in the write.
                let boundary = |sectors: usize| ((offset / SECTOR + sectors) * SECTOR).clamp(*offset, end);
                let (from, to) = match fate {
                    Fate::Kept => (*offset, end),
                    Fate::Front(sectors) => (*offset, boundary(sectors)),
                    Fate::Back(sectors) => (boundary(sectors), end),
                    Fate::Length | Fate::Lost => (end, end),
                };
                if from < to || fate == Fate::Length {
                    file.resize(file.len().max(to), 0);
                }
                if from < to {
                    file[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
    }
}
