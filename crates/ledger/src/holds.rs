//! What evidence says of a hold, whichever service decides or spends it (contract: audit-and-streams.md §2.3).

use caracal_authority::approval::Hold;

use crate::event::Metadata;

impl Metadata {
    /// What every event about a hold says of it.
    pub fn of_hold(hold: &Hold) -> Self {
        let labels = (!hold.labels.is_empty()).then(|| hold.labels.clone());
        Self::new()
            .with("challenge_id", hold.id.as_str())
            .with("tier", hold.tier.as_str())
            .with("approver_class", hold.approver.as_str())
            .with("privacy_mode", hold.privacy.as_str())
            .with("binding", hold.binding.as_str())
            .with("expires_at", hold.expires_at.to_seconds_text())
            .with_known("subject_anchor", hold.subject_anchor.as_deref())
            .with_known("application_id", hold.application.as_ref().map(|id| id.as_str()))
            .with_known("session_id", hold.record.as_ref().map(|id| id.as_str()))
            .with_known("agent_session_id", hold.session.as_ref().map(|id| id.as_str()))
            .with_known("delegation_edge_id", hold.delegation.as_ref().map(|id| id.as_str()))
            .with_known("agent_labels", labels)
    }
}
