//! Giving the management records of heartbeats their places in the chain (see [`crate::lease`]).

use caracal_authority::ZoneId;
use caracal_ledger::Ledger;
use caracal_store::{Store, waiting_changes};

use super::Failed;
use crate::outage::Outage;

/// Records chained in one commit.
const BATCH: u32 = 64;

/// Chains all that waits, zone by zone.
pub(crate) async fn chain(store: &Store, ledger: &Ledger) -> Result<Failed, Outage> {
    let (mut zone, mut failed) = (next_zone(store, None).await?, 0);
    while let Some(current) = zone {
        loop {
            match ledger.chain_waiting(store, &current, BATCH).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(zone = %current, %error, "records of heartbeats could not be chained yet");
                    failed += 1;
                    break;
                }
            }
        }
        zone = next_zone(store, Some(&current)).await?;
    }
    Ok(failed)
}

async fn next_zone(store: &Store, after: Option<&ZoneId>) -> Result<Option<ZoneId>, Outage> {
    let mut snapshot = store.snapshot().await?;
    Ok(waiting_changes::find_zone(&mut snapshot.deployment(), after).await?)
}
