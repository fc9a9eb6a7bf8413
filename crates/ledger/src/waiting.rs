//! Management records that leave with a change which can't extend the chain itself, because it runs beside all others of
//! its zone: renewals of leases. The record is in the very commit of the change, so there is no change without it; it gets
//! its place in the chain a moment later, once, in the order of its id. What waits is not yet proven: until then it is a row
//! like any other.

use caracal_authority::ZoneId;
use caracal_store::waiting_changes::{self, WaitingChange};
use caracal_store::{Store, StoreError, ZoneWrite, admin_evidence};

use crate::admin_chain::{AdminRecord, StoredAdminRecord};
use crate::append::{Ledger, not_canonical};

impl Ledger {
    /// Leaves the record of a change in the change's own transaction, to be chained by [`Ledger::chain_waiting`].
    pub async fn leave_change(&self, tx: &mut ZoneWrite<'_>, record: &AdminRecord) -> Result<(), StoreError> {
        let record = record.to_stored().map_err(not_canonical)?;
        if record.zone_id.as_deref() != Some(tx.zone().as_str()) {
            return Err(StoreError::Statement { reason: "a management record of another zone".to_owned() });
        }
        let text = serde_json::to_string(&record)
            .map_err(|error| StoreError::Statement { reason: format!("a management record has no text: {error}") })?;
        waiting_changes::add(tx, &WaitingChange { id: record.id, record: text }).await
    }

    /// Gives the records that wait in a zone their places in its chain, oldest first, `limit` at most. Returns how many.
    /// One that can't be read is corruption and stops the zone: it must not be passed over quietly.
    pub async fn chain_waiting(&self, store: &Store, zone: &ZoneId, limit: u32) -> Result<usize, StoreError> {
        store
            .commit(zone, (self.clone(), i64::from(limit.max(1))), |tx, (ledger, limit)| {
                Box::pin(async move {
                    let waiting = waiting_changes::list(tx, *limit).await?;
                    for change in &waiting {
                        let record: StoredAdminRecord = serde_json::from_str(&change.record).map_err(|error| {
                            StoreError::Corrupt { table: "waiting_changes", what: format!("`{}`: {error}", change.id) }
                        })?;
                        if record.id != change.id || record.zone_id.as_deref() != Some(tx.zone().as_str()) {
                            let what = format!("`{}` is a record of something else", change.id);
                            return Err(StoreError::Corrupt { table: "waiting_changes", what });
                        }
                        let head = admin_evidence::head(tx).await?.map(|head| ledger.extendable(head)).transpose()?;
                        let row = ledger.admin_row(tx.zone().as_str().to_owned(), head.as_ref(), record);
                        admin_evidence::append(tx, &row).await?;
                        waiting_changes::remove(tx, &change.id).await?;
                    }
                    Ok(waiting.len())
                })
            })
            .await
    }
}
