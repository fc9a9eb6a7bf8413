//! Forgetting what no decision can need any more: used mandates and nonces past their end, idempotency receipts past
//! their retention, approvals a day after they were over, counts of windows long past, notifications a week after they were
//! sent or given up, consents that nobody finished. Applications that registered themselves are archived a day after their
//! end. In small commits, so that nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_store::{
    Store, StoreError, applications, approvals, counts, notification_deliveries, oauth_states, receipts, used_mandates,
};
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_secs(60);
/// Rows of each kind removed in one commit.
const BATCH: i64 = 500;
/// A mandate is accepted up to a minute past its end, for the skew of clocks; its use is remembered for longer.
const MARGIN: Duration = Duration::from_secs(300);
/// How long an approval that is over can still be looked at (contract: sts.md §7.1).
const APPROVALS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long what became of a notification can be looked at (contract: admin-api.md §8).
const DELIVERIES_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long an application that registered itself can still be looked at after its end (contract: admin-api.md §11).
const REGISTRATIONS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Cleans up every minute until `shutdown` turns true, and counts the receipts that go.
pub(crate) async fn run(store: Store, forgotten: Arc<AtomicU64>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        loop {
            match forget_a_batch(&store, &forgotten).await {
                Ok(removed) if removed > 0 && !*shutdown.borrow() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "expired rows could not be removed; it is tried again in a minute");
                    break;
                }
            }
        }
    }
}

async fn forget_a_batch(store: &Store, forgotten: &AtomicU64) -> Result<usize, StoreError> {
    let (others, receipts) = store
        .commit_upkeep((), |tx, ()| {
            Box::pin(async move {
                let before = tx.now().minus(MARGIN);
                let used = used_mandates::purge_expired(tx, before, BATCH).await?;
                let over = tx.now().minus(APPROVALS_KEPT);
                let approvals = approvals::purge_terminal(tx, over, BATCH).await?;
                let counted = counts::purge_older(tx, before, BATCH).await?;
                let sent = tx.now().minus(DELIVERIES_KEPT);
                let sent = notification_deliveries::purge_settled(tx, sent, BATCH).await?;
                let begun = oauth_states::purge_expired(tx, before, BATCH).await?;
                let ended = tx.now().minus(REGISTRATIONS_KEPT);
                let archived = applications::archive_ended(tx, ended, BATCH).await?;
                let others = used + approvals + counted + sent + begun + archived;
                Ok::<_, StoreError>((others, receipts::purge_expired(tx, before, BATCH).await?))
            })
        })
        .await?;
    forgotten.fetch_add(u64::try_from(receipts).unwrap_or(0), Ordering::Relaxed);
    Ok(others + receipts)
}
