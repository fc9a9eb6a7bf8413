//! The ledger's trees grow behind their chains, in whichever process is elected among those that hold the key-encryption
//! key: log keys are sealed under it.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_crypto::ed25519::SigningKey;
use caracal_custody::LogKeys;
use caracal_ledger::transparency::{LogSigners, TransparencyLog};
use caracal_store::BoxFuture;
use tokio::sync::watch;

/// So long an event waits for its place in the tree, at most and about.
const INTERVAL: Duration = Duration::from_secs(1);

/// The keys in custody, as the log asks for them.
pub(crate) struct Signers(pub(crate) LogKeys);

impl LogSigners for Signers {
    fn signer<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Arc<SigningKey>, String>> {
        Box::pin(async move { self.0.key(zone).await.map_err(|error| error.to_string()) })
    }
}

/// What is still to be done when a stop is asked for is given so long; what is left then is done after the next start.
const LAST_PASS: Duration = Duration::from_secs(5);

/// Lets trees grow every second, and once more when `stopping` turns true, so that a system that was stopped can prove
/// what it did last.
pub(crate) async fn run(log: Arc<TransparencyLog>, mut stopping: watch::Receiver<bool>) {
    let mut failed = false;
    loop {
        let is_last = *stopping.borrow();
        let grown = tokio::select! {
            grown = log.catch_up() => grown,
            // Nothing is lost with a pass that ends in between: a commit of it happened or did not.
            () = patience_ends(stopping.clone()) => return,
        };
        match grown {
            Ok(_) => failed = false,
            Err(error) if !failed => {
                tracing::warn!(%error, "the ledger's trees do not grow; it is tried again every second");
                failed = true;
            }
            Err(_) => {}
        }
        if is_last {
            return;
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn patience_ends(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
    tokio::time::sleep(LAST_PASS).await;
}
