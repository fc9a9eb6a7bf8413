//! Why an exchange ends without a mandate: one table of findings, with status, code, evidence and text.
//!
//! The caller reads status, code and text; `name` and the fields are for evidence and logs. Texts about what belongs
//! to somebody else are the same as about what does not exist.

use std::borrow::Cow;
use std::fmt;

use super::{ProviderReason, Wanted};
use crate::ZoneId;
use crate::approval::Hold;
use crate::delegation::LineageFault;
use crate::evidence::EvaluationStatus;
use crate::federation::FederationFault;
use crate::record::DeadRecord;
use crate::resource::OperationRefused;
use crate::session::DeadSession;

macro_rules! refusals {
    ($(
        $(#[$doc:meta])*
        $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? })?
            => $status:literal $code:expr, $evidence:ident, $text:expr;
    )+) => {
        /// A typed deny reason.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Refusal {$(
            $(#[$doc])*
            $name $({ $($(#[$field_doc])* $field: $type),+ })?,
        )+}

        #[allow(unused_variables, reason = "each column of the table reads the fields it needs")]
        impl Refusal {
            /// The name of every refusal there is, in the order of the table.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Its name: what evidence and logs call it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name)),+ }
            }

            /// HTTP status.
            pub fn status(&self) -> u16 {
                match self { $(Self::$name { .. } => $status),+ }
            }

            /// Error code.
            pub fn code(&self) -> &'static str {
                match self { $(Self::$name $({ $($field),+ })? => $code),+ }
            }

            /// `evaluation_status` of its evidence. Where the contract records nothing, the word is ours (D11).
            pub fn evaluation_status(&self) -> EvaluationStatus {
                match self { $(Self::$name { .. } => EvaluationStatus::$evidence),+ }
            }
        }

        /// `error_description`.
        #[allow(unused_variables, reason = "each text reads the fields it needs")]
        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text: Cow<'_, str> = match self { $(Self::$name $({ $($field),+ })? => Cow::from($text)),+ };
                f.write_str(&text)
            }
        }
    };
}

const NO_RECORD: &str = "no such authority record of this application";
const NO_SESSION: &str = "no such agent session of this application";
const NO_DELEGATION: &str = "no such delegation to this agent session";

refusals! {
    // Steps 1 to 4.
    /// Unknown, archived or expired application, missing or wrong secret, or a Gateway without subject token: one
    /// answer for all.
    ClientUnauthenticated => 401 "access_denied", ClientUnauthenticated, "invalid client credentials";
    /// The secret is right and belongs to an application of another zone. Raised where secrets are verified.
    ClientOfAnotherZone {
        /// The application's zone.
        actual: ZoneId,
        /// The zone asked for.
        requested: ZoneId,
    } => 403 "zone_invalid", ZoneInvalid,
        format!("the application belongs to zone `{actual}`, not to `{requested}`");
    /// An id_token beside fields that do not go with it.
    FederationShape => 400 "invalid_token", SubjectFederationInvalid,
        "an id_token is exchanged by the application itself, without resource, scope, session, delegation or approval";
    /// An id_token that is not believed.
    FederationRejected {
        /// Why.
        why: FederationFault,
    } => 401 "invalid_token", SubjectFederationRejected, why.to_string();
    /// Nobody can say whether an id_token is genuine: its issuer's keys cannot be had now.
    FederationKeysUnreachable => 503 "sts_unavailable", SubjectFederationRejected,
        FederationFault::KeysUnreachable.to_string();
    /// No resource requested.
    NoResource => 400 "invalid_token", RequestInvalid, "at least one resource is required";
    /// The store's clock could not be read.
    TimeUnavailable => 503 "sts_unavailable", TimeUnavailable, "authority time is unavailable";

    // Steps 5 to 7: the presented mandate.
    /// Not a mandate, or not one that may be presented here.
    SubjectTokenInvalid => 401 "invalid_token", SubjectTokenInvalid, "invalid subject_token";
    /// A mandate without `sid`.
    SubjectTokenWithoutRecord => 403 "invalid_token", SubjectTokenInvalid,
        "the subject_token names no authority record";
    /// `session_id` is not the mandate's `sid`.
    RecordDiffersFromToken => 403 "access_denied", ReferenceInvalid, "session_id is not that of the subject_token";
    /// The mandate or its record was made by another application.
    RecordOfAnotherClient => 403 "access_denied", ReferenceInvalid, NO_RECORD;
    /// The record speaks for another subject.
    RecordOfAnotherSubject => 403 "access_denied", ReferenceInvalid, NO_RECORD;
    /// No such record in the zone.
    RecordUnknown => 403 "access_denied", ReferenceInvalid, NO_RECORD;
    /// The record is dead.
    RecordNotLive {
        /// Of what.
        why: DeadRecord,
    } => 403 "access_denied", ReferenceInvalid, why.to_string();
    /// `agent_session_id` is not the mandate's.
    SessionDiffersFromToken => 403 "access_denied", ReferenceInvalid,
        "agent_session_id is not that of the subject_token";
    /// `delegation_edge_id` is not the mandate's.
    DelegationDiffersFromToken => 403 "access_denied", ReferenceInvalid,
        "delegation_edge_id is not that of the subject_token";

    // Step 8.
    /// No such approval: wrong id, zone, principal, record or binding.
    ApprovalUnknown => 401 "access_denied", ApprovalInvalid,
        "the approval is not valid for this request; ask again without approval_id for one that is";
    /// Somebody said no.
    ApprovalRejected {
        /// To what.
        hold: Box<Hold>,
    } => 403 "access_denied", ApprovalRejected, "the approval was rejected";
    /// Nobody approved in time, or what was approved was not used in time.
    ApprovalExpired => 401 "access_denied", ApprovalExpired,
        "the approval has expired; ask again without approval_id for a new one";
    /// The approval was spent on something, or is being spent by somebody else at this moment.
    ApprovalConsumed {
        /// The hold, where another exchange spent it between this one's decision and its commit.
        lost_to: Option<Box<Hold>>,
    } => 409 "approval_consumed", ApprovalAlreadyConsumed,
        "the approval was used already; ask again without approval_id for a new one";

    // Step 9: references.
    /// A user's record, asserted without presenting the user's mandate.
    RecordNotOfApplication => 403 "access_denied", ReferenceInvalid, NO_RECORD;
    /// No such session in the zone, or another application's.
    SessionUnknown => 403 "access_denied", ReferenceInvalid, NO_SESSION;
    /// The session may not act.
    SessionNotLive {
        /// Why.
        why: DeadSession,
    } => 403 "access_denied", ReferenceInvalid, why.to_string();
    /// The session is anchored to another record than that of the presented session mandate.
    SessionOfAnotherRecord => 403 "access_denied", ReferenceInvalid, NO_SESSION;
    /// A delegation for no session.
    DelegationWithoutSession => 403 "access_denied", ReferenceInvalid,
        "delegation_edge_id requires agent_session_id";
    /// No such delegation to that session.
    DelegationUnknown => 403 "access_denied", ReferenceInvalid, NO_DELEGATION;
    /// The session that lends may not act itself.
    SourceSessionNotLive => 403 "access_denied", ReferenceInvalid, "the delegating agent session is not live";
    /// The delegation's lineage lends nothing.
    DelegationUnusable {
        /// Why.
        fault: LineageFault,
    } => 403 "access_denied", ReferenceInvalid, fault.to_string();
    /// A scope the delegation does not lend.
    ScopesExceedDelegation => 403 "access_denied", ReferenceInvalid, "the delegation does not lend these scopes";
    /// A longer life than the delegation lends.
    TtlExceedsDelegation => 403 "access_denied", ReferenceInvalid, "the delegation does not lend that ttl_seconds";
    /// The delegation epoch could not be read.
    EpochUnreadable => 403 "access_denied", ReferenceInvalid, "the delegation state cannot be read";

    // Step 10: stops of the resource loop.
    /// The upstream operation is not declared, or needs a scope the mandate does not carry.
    OperationNotPermitted {
        /// Which of the two.
        why: OperationRefused,
    } => 403 "operation_not_permitted", OperationNotPermitted, why.to_string();
    /// The mint rate could not be counted.
    RateUnavailable => 503 "sts_unavailable", RateUnavailable, "the mint rate cannot be counted";
    /// The control audience, not asked for by a control key.
    ControlResourceRequiresControlKey => 403 "access_denied", ControlResourceRequiresControlKey,
        "the control resource requires a control key";
    /// No policy decision came about.
    PolicyFailed => 503 "policy_eval_failed", PolicyEvalFailed, "policy evaluation failed";

    // Steps 11 to 15.
    /// A human has to agree first.
    ApprovalRequired {
        /// The hold to wait for.
        wanted: Wanted,
    } => 401 "interaction_required", ApprovalRequired,
        "a human has to approve this request; wait until the approval is decided and send the request again";
    /// So many requests of this principal wait already that another would only hide them.
    TooManyApprovals => 429 "provider_rate_limited", ApprovalRequired,
        "too many requests wait for approval already; wait until some are decided";
    /// Different declarations want different approvers.
    ApprovalClassConflict => 403 "access_denied", ApprovalClassConflict,
        "the approval tiers of this request name both an operator and the subject as approver";
    /// The only reason was a provider account that cannot be used.
    ProviderCredentialUnavailable {
        /// Which.
        reason: ProviderReason,
    } => 403 reason.code(), ExchangeDenied, match reason {
        ProviderReason::NoUserPrincipal => "the provider needs a subject",
        ProviderReason::NoProviderConnection => "the subject has no connection at the provider",
        ProviderReason::Refresh(_) => "the subject's connection at the provider cannot be refreshed",
    };
    /// Every resource was refused for the mint rate alone (D7).
    RateLimited => 429 "provider_rate_limited", ExchangeDenied, "too many mints for this resource";
    /// No resource was granted.
    NothingGranted {
        /// The first policy diagnostic, if policy was asked.
        reason: Option<String>,
    } => 403 "access_denied", ExchangeDenied, match reason {
        Some(reason) => format!("policy denied ({reason})"),
        None => "policy denied".to_owned(),
    };
    /// A session mandate cannot be traded outside the Gateway.
    SubjectTokenOutsideGateway => 403 "access_denied", GatewayRequired,
        "a subject_token is exchanged through the Gateway only";
    /// `ttl_seconds` below zero.
    TtlNegative => 400 "invalid_token", TtlInvalid, "ttl_seconds must not be negative";
    /// `ttl_seconds` above the most of its class.
    TtlAboveMaximum {
        /// The most.
        most: u32,
    } => 400 "invalid_token", TtlInvalid, format!("ttl_seconds must not exceed {most}");
    /// What the mandate hangs on ends within the second.
    LifetimeExhausted => 403 "access_denied", LifetimeExhausted, "no lifetime is left for this exchange";

    // Steps 16 to 18, raised by whoever carries the grant out.
    /// The mandate would be longer than the Gateway and the Coordinator accept.
    MandateTooLarge => 400 "invalid_token", MandateTooLarge, "too many resources or scopes for one mandate";
    /// The upstream directive or its credential could not be made.
    DirectiveUnavailable => 502 "http_request_failed", ProviderCredentialUnavailable,
        "the provider credential could not be obtained";

    // Launches of workloads (sts.md §11).
    /// Unknown workload, or a wrong secret: one answer for both.
    WorkloadUnauthenticated => 401 "access_denied", WorkloadAuthFailed, "invalid workload credentials";
    /// The workload has no binding at all.
    NothingBound => 404 "resource_not_found", BindingNotFound, "no credential is bound to this workload";
    /// Nothing is bound to the variable.
    BindingUnknown => 404 "resource_not_found", BindingNotFound, "no credential is bound to this variable";
    /// What is bound names no resource of the zone that is in use.
    BoundResourceUnknown => 404 "resource_not_found", ResourceNotFound,
        "the bound resource does not exist in this zone";
    /// The resource does not offer a scope that the binding names.
    BoundScopesNotOffered => 403 "access_denied", ScopeMismatch,
        "the bound resource does not offer these scopes";
    /// The resource has no provider, so there is no credential to inject.
    NoProvider => 403 "access_denied", CredentialNotProvisioned, "the bound resource has no credential provider";
    /// The provider was archived.
    ProviderGone => 403 "access_denied", ProviderUnavailable,
        "the credential provider of the bound resource does not exist any more";
    /// The provider's configuration is not one a credential can be made by.
    ProviderMisconfigured => 403 "access_denied", ProviderUnavailable,
        "the credential provider of the bound resource is not configured correctly";
    /// The provider does not let its credential leave the Gateway.
    InjectionNotAllowed => 403 "access_denied", CredentialInjectionDenied,
        "the credential provider does not allow its credential to be injected; set allow_runtime_injection on it";
    /// The credential is that of a person's account, and a launch is nobody's.
    NoUserAtLaunch => 403 "access_denied", CredentialNotProvisioned,
        "the credential belongs to a person's account, and a workload is started for nobody";
    /// The zone's policy became another while this very request, approved under the former, was carried out.
    ApprovalPolicyChanged => 409 "access_denied", ApprovalPolicyChanged,
        "the policy changed while the approval was being used; ask again without approval_id";
}

impl Refusal {
    /// The `reason` of its evidence, where one says more than the status does.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::FederationRejected { why } => Some(why.reason()),
            Self::FederationKeysUnreachable => Some(FederationFault::KeysUnreachable.reason()),
            Self::NoProvider => Some("no_provider"),
            Self::ProviderGone => Some("provider_not_found"),
            Self::ProviderMisconfigured => Some("provider_config_invalid"),
            Self::InjectionNotAllowed => Some("runtime_injection_not_allowed"),
            Self::NoUserAtLaunch => Some("no_user_principal"),
            _ => None,
        }
    }
}

impl std::error::Error for Refusal {}
