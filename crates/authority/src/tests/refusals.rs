//! Every refusal has the status and the code the contract gives it. The table is typed from sts.md §3.3–3.8, §4, §7.4,
//! §9 and §11 with D7, not from the code.

use crate::delegation::LineageFault;
use crate::exchange::{ProviderReason, RefreshFailure, Refusal, Wanted};
use crate::federation::FederationFault;
use crate::record::DeadRecord;
use crate::resource::OperationRefused;
use crate::session::DeadSession;

use super::fixtures::{hold, id};

fn table() -> Vec<(Refusal, u16, &'static str)> {
    let credential = |reason| Refusal::ProviderCredentialUnavailable { reason };
    let refresh = |failure| credential(ProviderReason::Refresh(failure));
    vec![
        (Refusal::ClientUnauthenticated, 401, "access_denied"),
        (Refusal::ClientOfAnotherZone { actual: id("z-1"), requested: id("z-2") }, 403, "zone_invalid"),
        (Refusal::FederationShape, 400, "invalid_token"),
        (Refusal::FederationRejected { why: FederationFault::Expired }, 401, "invalid_token"),
        (Refusal::FederationKeysUnreachable, 503, "sts_unavailable"),
        (Refusal::NoResource, 400, "invalid_token"),
        (Refusal::TimeUnavailable, 503, "sts_unavailable"),
        (Refusal::SubjectTokenInvalid, 401, "invalid_token"),
        (Refusal::SubjectTokenWithoutRecord, 403, "invalid_token"),
        (Refusal::RecordDiffersFromToken, 403, "access_denied"),
        (Refusal::RecordOfAnotherClient, 403, "access_denied"),
        (Refusal::RecordOfAnotherSubject, 403, "access_denied"),
        (Refusal::RecordUnknown, 403, "access_denied"),
        (Refusal::RecordNotLive { why: DeadRecord::Revoked }, 403, "access_denied"),
        (Refusal::SessionDiffersFromToken, 403, "access_denied"),
        (Refusal::DelegationDiffersFromToken, 403, "access_denied"),
        (Refusal::ApprovalUnknown, 401, "access_denied"),
        (Refusal::ApprovalRejected { hold: Box::new(hold()) }, 403, "access_denied"),
        (Refusal::ApprovalExpired, 401, "access_denied"),
        (Refusal::ApprovalConsumed { lost_to: None }, 409, "approval_consumed"),
        (Refusal::RecordNotOfApplication, 403, "access_denied"),
        (Refusal::SessionUnknown, 403, "access_denied"),
        (Refusal::SessionNotLive { why: DeadSession::Lapsed }, 403, "access_denied"),
        (Refusal::SessionOfAnotherRecord, 403, "access_denied"),
        (Refusal::DelegationWithoutSession, 403, "access_denied"),
        (Refusal::DelegationUnknown, 403, "access_denied"),
        (Refusal::SourceSessionNotLive, 403, "access_denied"),
        (Refusal::DelegationUnusable { fault: LineageFault::Cycle }, 403, "access_denied"),
        (Refusal::ScopesExceedDelegation, 403, "access_denied"),
        (Refusal::TtlExceedsDelegation, 403, "access_denied"),
        (Refusal::EpochUnreadable, 403, "access_denied"),
        (Refusal::OperationNotPermitted { why: OperationRefused::Undeclared }, 403, "operation_not_permitted"),
        (Refusal::RateUnavailable, 503, "sts_unavailable"),
        (Refusal::ControlResourceRequiresControlKey, 403, "access_denied"),
        (Refusal::PolicyFailed, 503, "policy_eval_failed"),
        (Refusal::ApprovalRequired { wanted: Wanted::Known(Box::new(hold())) }, 401, "interaction_required"),
        (Refusal::TooManyApprovals, 429, "provider_rate_limited"),
        (Refusal::ApprovalClassConflict, 403, "access_denied"),
        (credential(ProviderReason::NoUserPrincipal), 403, "access_denied"),
        (credential(ProviderReason::NoProviderConnection), 403, "access_denied"),
        (refresh(RefreshFailure::NotRenewable), 403, "credential_expired_not_renewable"),
        (refresh(RefreshFailure::NotStored), 403, "internal_error"),
        (refresh(RefreshFailure::Uncoordinated), 403, "sts_unavailable"),
        (Refusal::RateLimited, 429, "provider_rate_limited"),
        (Refusal::NothingGranted { reason: None }, 403, "access_denied"),
        (Refusal::NothingGranted { reason: Some("role_scope_mismatch".into()) }, 403, "access_denied"),
        (Refusal::SubjectTokenOutsideGateway, 403, "access_denied"),
        (Refusal::TtlNegative, 400, "invalid_token"),
        (Refusal::TtlAboveMaximum { most: 900 }, 400, "invalid_token"),
        (Refusal::LifetimeExhausted, 403, "access_denied"),
        (Refusal::MandateTooLarge, 400, "invalid_token"),
        (Refusal::DirectiveUnavailable, 502, "http_request_failed"),
        (Refusal::WorkloadUnauthenticated, 401, "access_denied"),
        (Refusal::NothingBound, 404, "resource_not_found"),
        (Refusal::BindingUnknown, 404, "resource_not_found"),
        (Refusal::BoundResourceUnknown, 404, "resource_not_found"),
        (Refusal::BoundScopesNotOffered, 403, "access_denied"),
        (Refusal::NoProvider, 403, "access_denied"),
        (Refusal::ProviderGone, 403, "access_denied"),
        (Refusal::ProviderMisconfigured, 403, "access_denied"),
        (Refusal::InjectionNotAllowed, 403, "access_denied"),
        (Refusal::NoUserAtLaunch, 403, "access_denied"),
        (Refusal::ApprovalPolicyChanged, 409, "access_denied"),
    ]
}

#[test]
fn every_refusal_has_the_contracts_status_and_code() {
    for (refusal, status, code) in table() {
        assert_eq!((refusal.status(), refusal.code()), (status, code), "{}", refusal.name());
    }
}

#[test]
fn the_table_names_every_refusal_there_is() {
    let mut named: Vec<_> = table().iter().map(|(refusal, ..)| refusal.name()).collect();
    named.dedup();
    assert_eq!(named, Refusal::NAMES);
}

#[test]
fn every_refusal_has_an_evidence_token_and_a_plain_text() {
    for (refusal, ..) in table() {
        let text = refusal.to_string();
        assert!(text.len() >= 10 && !text.ends_with('.') && text.starts_with(char::is_lowercase), "{text}");
        let token = refusal.evaluation_status().as_str();
        assert!(token.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !token.is_empty(), "{token}");
    }
}

#[test]
fn a_denied_exchange_ends_with_the_first_policy_reason() {
    let because = |reason: &str| Refusal::NothingGranted { reason: Some(reason.into()) };
    assert_eq!(because("mandate_target_mismatch").to_string(), "policy denied (mandate_target_mismatch)");
    assert_eq!(Refusal::NothingGranted { reason: None }.to_string(), "policy denied");
}

mod t02_sts_disclosure {
    use super::*;

    #[test]
    fn what_belongs_to_others_reads_like_what_does_not_exist() {
        let unknown = Refusal::RecordUnknown.to_string();
        for foreign in
            [Refusal::RecordOfAnotherClient, Refusal::RecordOfAnotherSubject, Refusal::RecordNotOfApplication]
        {
            assert_eq!(foreign.to_string(), unknown);
        }
        assert_eq!(Refusal::SessionOfAnotherRecord.to_string(), Refusal::SessionUnknown.to_string());
    }
}
