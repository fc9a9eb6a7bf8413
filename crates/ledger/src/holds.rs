//! What evidence says of a hold, whichever service decides or spends it (contract: audit-and-streams.md §2.3).

use caracal_authority::MetadataKey as Key;
use caracal_authority::approval::Hold;

use crate::event::Metadata;

impl Metadata {
    /// What every event about a hold says of it.
    pub fn of_hold(hold: &Hold) -> Self {
        let labels = (!hold.labels.is_empty()).then(|| hold.labels.clone());
        Self::new()
            .with(Key::ChallengeId, hold.id.as_str())
            .with(Key::Tier, hold.tier.as_str())
            .with(Key::ApproverClass, hold.approver.as_str())
            .with(Key::PrivacyMode, hold.privacy.as_str())
            .with(Key::Binding, hold.binding.as_str())
            .with(Key::ExpiresAt, hold.expires_at.to_seconds_text())
            .with_known(Key::SubjectAnchor, hold.subject_anchor.as_deref())
            .with_known(Key::ApplicationId, hold.application.as_ref().map(|id| id.as_str()))
            .with_known(Key::SessionId, hold.record.as_ref().map(|id| id.as_str()))
            .with_known(Key::AgentSessionId, hold.session.as_ref().map(|id| id.as_str()))
            .with_known(Key::DelegationEdgeId, hold.delegation.as_ref().map(|id| id.as_str()))
            .with_known(Key::AgentLabels, labels)
    }
}
