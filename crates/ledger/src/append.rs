//! Appending: evidence gets its place in the chain in the very transaction whose effect it is evidence of.
//!
//! The head that a link refers to is read in that transaction. Two writers that did not exclude each other would both
//! extend the same tail; the store serialises changes of a zone, and the chain's key would refuse the second anyway.

use std::sync::Arc;

use caracal_store::admin_evidence::{self, AdminEvidenceRow, ZONELESS_CHAIN};
use caracal_store::evidence::{self, EvidenceRow};
use caracal_store::{DeploymentWrite, StoreError, ZoneWrite};

use crate::admin_chain::{AdminRecord, StoredAdminRecord};
use crate::canonical::NotCanonical;
use crate::chain::{Head, next_link};
use crate::event::{Evidence, StoredEvent};
use crate::keys::{ChainKey, key_ids};

/// The way into the chains. Cloning shares the key.
#[derive(Clone)]
pub struct Ledger {
    key: Option<Arc<dyn ChainKey>>,
    /// Names of the keys at hand, the one in use first.
    ids: Arc<[String]>,
}

impl Ledger {
    /// With the audit key, or without one where the deployment has none: then links are hashed, not sealed.
    pub fn new(key: Option<Arc<dyn ChainKey>>) -> Self {
        let ids = key.as_deref().map(key_ids).unwrap_or_default().into();
        Self { key, ids }
    }

    pub(crate) fn key(&self) -> Option<&dyn ChainKey> {
        self.key.as_deref()
    }

    /// The name of the key in use.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.ids.first().map(String::as_str)
    }

    /// The end of a chain that can be gone on from. It can't where it is sealed with a key that is not at hand: another
    /// process has that key already, and a seal of ours behind it would be one with a key that was replaced.
    pub(crate) fn extendable(&self, head: evidence::Head) -> Result<Head, StoreError> {
        match &head.key_id {
            Some(id) if self.key.is_some() && !self.ids.contains(id) => Err(StoreError::Unavailable {
                reason: format!(
                    "the ledger goes on under an audit key that this process does not have (id {id}): start it with that \
                     AUDIT_HMAC_KEY, and with the one it has now in AUDIT_HMAC_KEY_PREVIOUS"
                ),
            }),
            _ => Ok(own_head(head)),
        }
    }

    /// Appends events of the transaction's zone, in order.
    pub async fn record(&self, tx: &mut ZoneWrite<'_>, events: &[Evidence]) -> Result<(), StoreError> {
        let events: Result<Vec<_>, _> = events.iter().map(Evidence::to_stored).collect();
        self.append_events(tx, events.map_err(not_canonical)?).await
    }

    /// Appends events as their columns stand.
    pub(crate) async fn append_events(
        &self,
        tx: &mut ZoneWrite<'_>,
        events: Vec<StoredEvent>,
    ) -> Result<(), StoreError> {
        let mut head = evidence::head(tx).await?.map(|head| self.extendable(head)).transpose()?;
        let ingested_at = tx.now().as_micros();
        for event in events {
            if event.zone_id != tx.zone().as_str() {
                return Err(StoreError::Statement { reason: "evidence of another zone".to_owned() });
            }
            let link = next_link(self.key.as_deref(), head.as_ref(), &event);
            head = Some(link.head());
            let StoredEvent { occurred_at_micros: occurred_at, .. } = event;
            let row = EvidenceRow {
                zone_id: event.zone_id,
                chain_seq: link.chain_seq,
                id: event.id,
                event_type: event.event_type,
                request_id: event.request_id,
                decision: event.decision,
                policy_set_id: event.policy_set_id,
                policy_set_version_id: event.policy_set_version_id,
                manifest_sha: event.manifest_sha,
                evaluation_status: event.evaluation_status,
                determining_policies: event.determining_policies,
                diagnostics: event.diagnostics,
                metadata: event.metadata,
                occurred_at,
                ingested_at,
                content_sha256: link.content_sha256,
                prev_content_sha256: link.prev_content_sha256,
                chain_hmac: link.chain_hmac,
                key_id: self.key_id().map(str::to_owned),
            };
            evidence::append(tx, &row).await?;
        }
        Ok(())
    }

    /// Appends a management record of the transaction's zone.
    pub async fn record_change(&self, tx: &mut ZoneWrite<'_>, record: &AdminRecord) -> Result<(), StoreError> {
        let record = record.to_stored().map_err(not_canonical)?;
        if record.zone_id.as_deref() != Some(tx.zone().as_str()) {
            return Err(StoreError::Statement { reason: "a management record of another zone".to_owned() });
        }
        let head = admin_evidence::head(tx).await?.map(|head| self.extendable(head)).transpose()?;
        let chain = tx.zone().as_str().to_owned();
        let row = self.admin_row(chain, head.as_ref(), record);
        admin_evidence::append(tx, &row).await
    }

    /// Appends a management record that belongs to no zone.
    pub async fn record_zoneless_change(
        &self,
        tx: &mut DeploymentWrite<'_>,
        record: &AdminRecord,
    ) -> Result<(), StoreError> {
        let record = record.to_stored().map_err(not_canonical)?;
        if record.zone_id.is_some() {
            return Err(StoreError::Statement { reason: "a management record of a zone".to_owned() });
        }
        let head = admin_evidence::zoneless_head(tx).await?.map(|head| self.extendable(head)).transpose()?;
        let row = self.admin_row(ZONELESS_CHAIN.to_owned(), head.as_ref(), record);
        admin_evidence::append_zoneless(tx, &row).await
    }

    pub(crate) fn admin_row(&self, chain: String, head: Option<&Head>, record: StoredAdminRecord) -> AdminEvidenceRow {
        let link = next_link(self.key.as_deref(), head, &record);
        AdminEvidenceRow {
            chain,
            chain_seq: link.chain_seq,
            id: record.id,
            request_id: record.request_id,
            actor_id: record.actor_id,
            actor_name: record.actor_name,
            actor_scope: record.actor_scope,
            action: record.action,
            method: record.method,
            path: record.path,
            zone_id: record.zone_id,
            entity_type: record.entity_type,
            entity_id: record.entity_id,
            status_code: record.status_code,
            payload: record.payload_json,
            occurred_at: record.occurred_at_micros,
            content_sha256: link.content_sha256,
            prev_content_sha256: link.prev_content_sha256,
            chain_hmac: link.chain_hmac,
            key_id: self.key_id().map(str::to_owned),
        }
    }
}

pub(crate) fn own_head(head: evidence::Head) -> Head {
    Head { chain_seq: head.chain_seq, content_sha256: head.content_sha256 }
}

/// Evidence that can't be written must not be replaced by silence: its transaction fails.
pub(crate) fn not_canonical(error: NotCanonical) -> StoreError {
    StoreError::Statement { reason: format!("evidence has no canonical form: {error}") }
}
