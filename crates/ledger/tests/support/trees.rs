//! Trees beside the chains of a store, as the operator lets them grow.
#![allow(dead_code, reason = "each file of tests uses its part")]

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_crypto::ed25519::SigningKey;
use caracal_ledger::transparency::{
    EvidenceFile, LogSigners, Refuted, StoredTree, TransparencyLog, Trusted, Verified, VerifierKey, checkpoint,
};
use caracal_store::transparency::{LogKeyRow, add_log_key, find_log_key};
use caracal_store::{BoxFuture, Store, StoreError};
use caracal_testkit::Place;

use crate::support::*;

/// The log key of every zone, as the operator has it: Mallory, who is the operator, has it too.
struct Keys(Store);

pub(crate) const SEED: [u8; 32] = [7; 32];

impl LogSigners for Keys {
    fn signer<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Arc<SigningKey>, String>> {
        Box::pin(async move {
            let key = SigningKey::from_seed(&SEED).unwrap();
            let (key_id, verifier_key) = checkpoint::key_names(zone, &key.public());
            let row = LogKeyRow { key_id, verifier_key, sealed_private: vec![1], created_at: self.0.now() };
            let added: Result<(), StoreError> = self
                .0
                .commit(zone, row, |tx, row| {
                    Box::pin(async move {
                        if find_log_key(tx).await?.is_some() {
                            return Ok(());
                        }
                        add_log_key(tx, row).await
                    })
                })
                .await;
            added.map_err(|error| error.to_string())?;
            Ok(Arc::new(key))
        })
    }
}

pub(crate) fn log(store: &Store) -> TransparencyLog {
    TransparencyLog::new(store.clone(), Arc::new(Keys(store.clone())))
}

pub(crate) fn log_key(zone_name: &str) -> VerifierKey {
    checkpoint::verifier_key(&zone(zone_name), &SigningKey::from_seed(&SEED).unwrap().public()).unwrap()
}

/// The newest checkpoint, signed.
pub(crate) async fn checkpoint_of(store: &Store) -> String {
    let mut snapshot = store.snapshot().await.unwrap();
    StoredTree::find(&mut snapshot.zone(&zone("z-1"))).await.unwrap().unwrap().unwrap().note
}

pub(crate) fn verify(file: &EvidenceFile, held: Option<&str>) -> Result<Verified, Refuted> {
    file.verify(&Trusted { log_key: &log_key("z-1"), held, witnesses: &[] })
}

/// A store with five events in `z-1` and a tree over them, and what an auditor keeps of it: the checkpoint.
pub(crate) async fn logged(place: &Place) -> (Store, String) {
    let store = recorded(place).await;
    // Five in one zone and two in another.
    assert_eq!(log(&store).catch_up().await.unwrap(), 7);
    assert_eq!(log(&store).catch_up().await.unwrap(), 0);
    let held = checkpoint_of(&store).await;
    (store, held)
}
