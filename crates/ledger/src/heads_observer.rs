//! Keeps the heads file in step with the store: told by the committing writer, after each durable commit and before
//! anyone is answered. So no answer is out whose evidence could be cut off unseen, but while the file can't be written:
//! then it lags until the next commit of the chain that can, and the log says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use caracal_authority::ZoneId;
use caracal_store::admin_evidence::ZONELESS_CHAIN;
use caracal_store::{ChainHead, ChainKind, Committed, Observer};

use crate::chain::{Chain, Head};
use crate::heads::{HeadsError, HeadsFile};
use crate::keys::ChainKey;

/// Records heads as commits happen.
pub struct HeadsObserver {
    file: Mutex<Option<HeadsFile>>,
}

impl HeadsObserver {
    /// Opens the heads file in `dir`.
    pub fn open(dir: &Path, key: Arc<dyn ChainKey>) -> Result<Self, HeadsError> {
        Ok(Self { file: Mutex::new(Some(HeadsFile::open(dir, key)?)) })
    }

    /// The recorded heads.
    pub fn recorded(&self) -> BTreeMap<Chain, Head> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map(|file| file.heads().clone()).unwrap_or_default()
    }

    /// Syncs and closes the file. Later commits are no longer noted; the heads then lag, which is harmless.
    pub fn close(&self) -> Result<(), HeadsError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        file.map_or(Ok(()), HeadsFile::close)
    }
}

impl Observer for HeadsObserver {
    fn committed(&self, committed: &Committed) {
        let mut newest: Vec<(Chain, Head)> = Vec::new();
        for head in &committed.heads {
            let Some(chain) = chain(head) else { continue };
            let head = Head { chain_seq: head.chain_seq, content_sha256: head.content_sha256.clone() };
            match newest.iter_mut().find(|(known, _)| *known == chain) {
                Some((_, known)) => *known = head,
                None => newest.push((chain, head)),
            }
        }
        if newest.is_empty() {
            return;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_mut()
            && let Err(error) = file.record(&newest)
        {
            // The evidence itself is durable. What suffers is the proof that its tail was not cut.
            tracing::error!(%error, "the ledger's heads could not be recorded");
        }
    }
}

fn chain(head: &ChainHead) -> Option<Chain> {
    match head.kind {
        ChainKind::Evidence => ZoneId::parse(&head.chain).ok().map(Chain::Evidence),
        ChainKind::Admin if head.chain == ZONELESS_CHAIN => Some(Chain::Admin(None)),
        ChainKind::Admin => ZoneId::parse(&head.chain).ok().map(|zone| Chain::Admin(Some(zone))),
    }
}
