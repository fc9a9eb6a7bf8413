//! How far the sweep has verified each chain: kept beside the heads, in a file of the same form, by whoever sweeps.
//!
//! A mark lets the next pass begin where the last one ended. And it is a witness of its own: a process that writes nothing
//! to the ledger has no heads of its own commits, yet having once seen an event it will miss it. A mark is under the audit
//! key, in another domain than heads are: a heads file that is put in its place does not pass for verified.
//!
//! Beside it lies how far the chain's tree was verified, as size and root. With the root the tree's right edge as it was
//! then can be read from its tiles and believed, so that a pass has to build what grew since, and no more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chain::{Chain, Head};
use crate::heads::{HeadsError, HeadsFile};
use crate::keys::ChainKey;
use crate::report::{ChainReport, LedgerReport};

const DIRECTORY: &str = "swept";
const TREES: &str = "trees";
const DOMAIN: &[u8] = b"caracal ledger sweep v1\n";
const DOMAIN_OF_TREES: &[u8] = b"caracal ledger swept trees v1\n";

struct OfSweeps(Arc<dyn ChainKey>, &'static [u8]);

impl ChainKey for OfSweeps {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.sign(&[self.1, message].concat())
    }

    fn sign_as(&self, age: usize, message: &[u8]) -> Option<[u8; 32]> {
        self.0.sign_as(age, &[self.1, message].concat())
    }

    fn id(&self, age: usize) -> Option<String> {
        self.0.id(age)
    }
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The last event of each chain.
    pub events: BTreeMap<Chain, Head>,
    /// The tree of each chain: its size as the position, its root as the hash.
    pub trees: BTreeMap<Chain, Head>,
}

impl Marks {
    /// What a pass found that found nothing wrong.
    pub fn of(report: &LedgerReport) -> Self {
        let known = |of: fn(&ChainReport) -> &Option<Head>| {
            report.chains.iter().filter_map(|chain| Some((chain.chain.clone(), of(chain).clone()?))).collect()
        };
        Self { events: known(|chain| &chain.head), trees: known(|chain| &chain.tree) }
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// The marks of one process.
pub struct SweepMarks {
    events: Mutex<HeadsFile>,
    trees: Mutex<HeadsFile>,
}

impl SweepMarks {
    /// Opens the marks that lie beside the heads in `dir`. With `forget`, which is for an operator who put an empty file in
    /// the place of the heads, what was marked is forgotten too.
    pub fn open(dir: &Path, key: Arc<dyn ChainKey>, forget: bool) -> Result<Self, HeadsError> {
        let path = dir.join(DIRECTORY);
        let failed = |doing| {
            let path = path.clone();
            move |source| HeadsError::Io { doing, path, source }
        };
        if forget {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing")(error))?,
                _ => {}
            }
        }
        let trees = path.join(TREES);
        fs::create_dir_all(&trees).map_err(failed("making"))?;
        let open = |path: &Path, domain| HeadsFile::open(path, Arc::new(OfSweeps(key.clone(), domain))).map(Mutex::new);
        Ok(Self { events: open(&path, DOMAIN)?, trees: open(&trees, DOMAIN_OF_TREES)? })
    }

    /// What was found intact.
    pub fn read(&self) -> Marks {
        Marks { events: lock(&self.events).heads().clone(), trees: lock(&self.trees).heads().clone() }
    }

    /// Marks what was found intact. What lies before a mark changes nothing.
    pub fn record(&self, verified: &Marks) -> Result<(), HeadsError> {
        record(&mut lock(&self.events), &verified.events)?;
        record(&mut lock(&self.trees), &verified.trees)
    }
}

fn lock(file: &Mutex<HeadsFile>) -> MutexGuard<'_, HeadsFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(file: &mut HeadsFile, verified: &BTreeMap<Chain, Head>) -> Result<(), HeadsError> {
    let ahead = |(chain, head): &(&Chain, &Head)| {
        file.heads().get(*chain).is_none_or(|marked| marked.chain_seq < head.chain_seq)
    };
    let ahead: Vec<(Chain, Head)> =
        verified.iter().filter(ahead).map(|(chain, head)| (chain.clone(), head.clone())).collect();
    file.record(&ahead)
}
