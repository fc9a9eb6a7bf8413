//! How far the sweep has verified each chain: kept beside the heads, in a file of the same form, by whoever sweeps.
//!
//! A mark lets the next pass begin where the last one ended. And it is a witness of its own: a process that writes nothing
//! to the ledger has no heads of its own commits, yet having once seen an event it will miss it. A mark is under the audit
//! key, in another domain than heads are: a heads file that is put in its place does not pass for verified.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::chain::{Chain, ChainKey, Head};
use crate::heads::{HeadsError, HeadsFile};

const DIRECTORY: &str = "swept";
const DOMAIN: &[u8] = b"caracal ledger sweep v1\n";

struct OfSweeps(Arc<dyn ChainKey>);

impl ChainKey for OfSweeps {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.sign(&[DOMAIN, message].concat())
    }
}

/// The marks of one process.
pub struct SweepMarks {
    file: Mutex<HeadsFile>,
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
        fs::create_dir_all(&path).map_err(failed("making"))?;
        Ok(Self { file: Mutex::new(HeadsFile::open(&path, Arc::new(OfSweeps(key)))?) })
    }

    /// The last event of each chain that was found intact.
    pub fn read(&self) -> BTreeMap<Chain, Head> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).heads().clone()
    }

    /// Marks events. One that lies before a mark changes nothing.
    pub fn record(&self, verified: &[(Chain, Head)]) -> Result<(), HeadsError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = |(chain, head): &&(Chain, Head)| {
            file.heads().get(chain).is_none_or(|marked| marked.chain_seq < head.chain_seq)
        };
        let ahead: Vec<(Chain, Head)> = verified.iter().filter(ahead).cloned().collect();
        file.record(&ahead)
    }
}
