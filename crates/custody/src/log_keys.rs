//! The keys that sign checkpoints of ledgers: one pair for each zone, made once and never replaced, since checkpoints
//! that others hold have to verify as long as the ledger is kept. The private half lies sealed, bound to its zone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use caracal_authority::ZoneId;
use caracal_crypto::ed25519::{self, SigningKey};
use caracal_crypto::envelope::KekRing;
use caracal_store::transparency::{self, LogKeyRow};
use caracal_store::{Store, StoreError};

use crate::CustodyError;

/// What a log key's envelope is bound to.
pub(crate) fn log_key_ref(zone: &ZoneId, key_id: &str) -> String {
    format!("zones/{zone}/logKeys/{key_id}")
}

/// How the public half of a zone's log key is written down: its id, and the text that verifiers are given.
type Names = fn(&ZoneId, &[u8; ed25519::PUBLIC_BYTES]) -> (String, String);

/// The log keys of all zones.
pub struct LogKeys {
    store: Store,
    ring: Arc<KekRing>,
    names: Names,
    opened: Mutex<HashMap<ZoneId, Arc<SigningKey>>>,
}

impl LogKeys {
    /// Over `store`, sealed under `ring`. How keys are named is the ledger's to say.
    pub fn new(store: Store, ring: Arc<KekRing>, names: Names) -> Self {
        Self { store, ring, names, opened: Mutex::default() }
    }

    /// The zone's key, made now if there is none yet. Concurrent callers get the same one.
    pub async fn key(&self, zone: &ZoneId) -> Result<Arc<SigningKey>, CustodyError> {
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(zone) {
            return Ok(known.clone());
        }
        let mut snapshot = self.store.snapshot().await?;
        let stored = transparency::find_log_key(&mut snapshot.zone(zone)).await?;
        drop(snapshot);
        let row = match stored {
            Some(row) => row,
            None => self.create(zone).await?,
        };
        let key = Arc::new(self.open(zone, &row)?);
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone(), key.clone());
        Ok(key)
    }

    async fn create(&self, zone: &ZoneId) -> Result<LogKeyRow, CustodyError> {
        let seed = ed25519::new_seed()?;
        let made = SigningKey::from_seed(seed.expose());
        let public =
            made.map(|key| key.public()).ok_or_else(|| CustodyError::Foreign { place: "a seed".to_owned() })?;
        let (key_id, verifier_key) = (self.names)(zone, &public);
        let sealed_private = self.ring.seal(&log_key_ref(zone, &key_id), seed.expose())?;
        let row = LogKeyRow { key_id, verifier_key, sealed_private, created_at: self.store.now() };
        let added: Result<LogKeyRow, StoreError> = self
            .store
            .commit(zone, row, |tx, row| {
                Box::pin(async move {
                    if let Some(first) = transparency::find_log_key(tx).await? {
                        return Ok(first);
                    }
                    transparency::add_log_key(tx, row).await.map(|()| row.clone())
                })
            })
            .await;
        Ok(added?)
    }

    /// What lies there must be the very key whose public half is told: a signature by any other would be worth nothing.
    fn open(&self, zone: &ZoneId, row: &LogKeyRow) -> Result<SigningKey, CustodyError> {
        let place = log_key_ref(zone, &row.key_id);
        let opened = self.ring.open(&place, &row.sealed_private);
        let opened = opened.map_err(|reason| CustodyError::Sealed { place: place.clone(), reason })?;
        let key = SigningKey::from_seed(opened.expose());
        key.filter(|key| (self.names)(zone, &key.public()) == (row.key_id.clone(), row.verifier_key.clone()))
            .ok_or(CustodyError::Foreign { place })
    }
}
