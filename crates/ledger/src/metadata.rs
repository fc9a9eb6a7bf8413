//! Which keys the metadata of an event may have, by its type (contract: audit-and-streams.md §2.3). Beside what the contract
//! asks for, ours say what a decision saw, so that it can be explained and tried again (README D33), and how a call ended
//! (README D11).

use caracal_authority::MetadataKey as Key;

use crate::event::EventType;

/// What every event about a hold says of it.
const HOLD: &[Key] = &[
    Key::ChallengeId,
    Key::Tier,
    Key::ApproverClass,
    Key::PrivacyMode,
    Key::Binding,
    Key::ExpiresAt,
    Key::SubjectAnchor,
    Key::ApplicationId,
    Key::SessionId,
    Key::AgentSessionId,
    Key::DelegationEdgeId,
    Key::AgentLabels,
];
/// Who asked for what, as an application and as a workload: `token_exchange` has them by the contract, and other events of
/// the same request have them from us.
const ASKED: &[Key] = &[
    Key::ApplicationId,
    Key::ApplicationName,
    Key::ApplicationRegistrationMethod,
    Key::Resource,
    Key::RequestedScopes,
    Key::SessionId,
    Key::AgentSessionId,
    Key::DelegationEdgeId,
    Key::SubjectKind,
    Key::AgentLifecycle,
    Key::AgentLabels,
    Key::AgentDepth,
    Key::AgentParentId,
    Key::DelegationChain,
    Key::DelegationHopCount,
    Key::DelegationGraphEpoch,
    Key::FederatedUserIssuer,
    Key::WorkloadId,
    Key::WorkloadName,
    Key::LaunchId,
    Key::Env,
];
/// What the decision saw besides.
const SEEN: &[Key] = &[Key::PresentedScope, Key::PresentedTargets, Key::DelegationScopes, Key::ProviderId];

impl EventType {
    /// The keys that the contract gives an event of this type, in groups. Some belong to some of its events only.
    pub fn contract_keys(&self) -> &'static [&'static [Key]] {
        match self {
            Self::TokenExchange => &[ASKED, HOLD, &[Key::Reason, Key::Method, Key::Path, Key::Requested]],
            Self::RunLaunch => &[&[
                Key::WorkloadId,
                Key::WorkloadName,
                Key::LaunchId,
                Key::BindingCount,
                Key::Env,
                Key::RequestedScopes,
            ]],
            Self::StepUpIssued => &[HOLD],
            Self::StepUpConsumed => &[HOLD, &[Key::Reissued, Key::AuthorityRecordId]],
            Self::StepUpDecided => {
                &[HOLD, &[Key::ApproverPlane, Key::ApproverSessionId, Key::ApproverSubjectId, Key::Reason]]
            }
            Self::JtiCollision => &[&[Key::Jti, Key::AppId, Key::RequestId]],
            Self::ReplayDetected => &[&[Key::Jti, Key::Resource, Key::ClientId, Key::SubjectFp, Key::RequestId]],
            Self::GatewayResourceRequest => &[&[
                Key::ApplicationId,
                Key::Resource,
                Key::SubjectFingerprint,
                Key::Method,
                Key::GatewayStatus,
                Key::LatencyMs,
                Key::ResponseBytes,
                Key::TraceId,
                Key::SubjectKind,
                Key::UpstreamHost,
                Key::AuthMode,
                Key::ProviderId,
                Key::ConnectionId,
                Key::UpstreamStatus,
                Key::ResultClass,
                Key::RevocationInterrupted,
                Key::ErrorKind,
            ]],
            Self::ControlInvoke => &[&[
                Key::Subject,
                Key::Jti,
                Key::ClientId,
                Key::Command,
                Key::Subcommand,
                Key::Reason,
                Key::IdempotencyKey,
                Key::AuthorizedBy,
            ]],
            Self::CredentialRevealed => &[&[
                Key::Credential,
                Key::ApplicationId,
                Key::ApplicationName,
                Key::WorkloadId,
                Key::WorkloadName,
                Key::Actor,
            ]],
            Self::MandateRevoked | Self::StepUpRefused | Self::LedgerIncident | Self::Other(_) => &[],
        }
    }

    /// The keys that we give an event of this type besides, in groups.
    pub fn own_keys(&self) -> &'static [&'static [Key]] {
        match self {
            Self::TokenExchange => &[
                SEEN,
                &[
                    Key::AuthorityRecordId,
                    Key::MandateId,
                    Key::Use,
                    Key::Refusal,
                    Key::RequestedZoneId,
                    Key::PolicyInput,
                ],
            ],
            // The resource where a secret is replaced while a credential is made ready.
            Self::RunLaunch => &[&[Key::Refusal, Key::Resource, Key::ProviderId]],
            Self::StepUpIssued | Self::JtiCollision => &[ASKED, SEEN],
            Self::StepUpConsumed => &[ASKED, SEEN, &[Key::MandateId]],
            Self::GatewayResourceRequest => &[&[Key::DurationMs, Key::RequestBytes, Key::EndedBy]],
            Self::MandateRevoked => &[&[
                Key::ApplicationId,
                Key::ApplicationName,
                Key::ApplicationRegistrationMethod,
                Key::AuthorityRecordId,
                Key::MandateId,
                Key::MandateApplicationId,
                Key::Use,
                Key::SubjectKind,
                Key::AgentSessionId,
                Key::DelegationEdgeId,
                Key::RevokedRecords,
            ]],
            Self::StepUpRefused => &[HOLD, &[Key::ApproverPlane, Key::ApproverSessionId, Key::Refusal]],
            Self::LedgerIncident => {
                &[&[Key::Problem, Key::Chain, Key::Findings, Key::ChainSeq, Key::EventId, Key::Stored, Key::Incoming]]
            }
            Self::StepUpDecided | Self::ReplayDetected | Self::ControlInvoke | Self::CredentialRevealed => &[],
            Self::Other(_) => &[],
        }
    }

    /// Whether an event of this type may have the key. Events of other producers may have any.
    pub fn may_have(&self, key: &str) -> bool {
        if let Self::Other(_) = self {
            return true;
        }
        let of = |groups: &[&[Key]]| groups.iter().any(|group| group.iter().any(|known| known.as_str() == key));
        of(self.contract_keys()) || of(self.own_keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_belongs_to_an_event_and_those_of_the_contract_by_the_contract() {
        for key in Key::ALL {
            let given = |groups: fn(&EventType) -> &'static [&'static [Key]]| {
                EventType::ALL.iter().any(|of| groups(of).concat().contains(key))
            };
            assert_eq!(given(EventType::contract_keys), key.is_of_the_contract(), "{key}");
            assert!(key.is_of_the_contract() || given(EventType::own_keys), "{key}");
        }
    }

    #[test]
    fn what_is_not_given_to_a_type_it_may_not_have() {
        assert!(EventType::ReplayDetected.may_have("subject_fp") && !EventType::ReplayDetected.may_have("method"));
        assert!(EventType::RunLaunch.may_have("refusal") && !EventType::RunLaunch.may_have("token"));
        assert!(EventType::Other("acme.thing".to_owned()).may_have("token"));
    }
}
