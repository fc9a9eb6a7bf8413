//! The words of evidence, each typed once: what may stand in `evaluation_status` of an event that we write, and
//! as a key in its `metadata_json` (contract: audit-and-streams.md §2.2, §2.3).
//!
//! Here rather than in the ledger, because a decision says with which of them it goes on record. What clients bring to the
//! ledger is free text, and is read as such.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every word there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire and in the store.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The word that is spelled like this; others have brought any other.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// `evaluation_status` (§2.2). Where the contract records nothing, the word is ours (README D11); those stand last.
    EvaluationStatus {
        /// The decision ran to its end, whichever it is.
        Complete = "complete",
        /// No policy decision came about.
        PolicyEvalFailed = "policy_eval_failed",
        /// An approval of another request, or none.
        ApprovalInvalid = "approval_invalid",
        /// An approval that was spent.
        ApprovalAlreadyConsumed = "approval_already_consumed",
        /// Somebody said no.
        ApprovalRejected = "approval_rejected",
        /// An approval that was not used in time.
        ApprovalExpired = "approval_expired",
        /// The policy became another while the approval was used.
        ApprovalPolicyChanged = "approval_policy_changed",
        /// Tiers that no one approver can serve.
        ApprovalClassConflict = "approval_class_conflict",
        /// No resource of that name in the zone.
        ResourceNotFound = "resource_not_found",
        /// The resource does not offer a scope.
        ScopeMismatch = "scope_mismatch",
        /// The delegation is for other resources.
        ResourceOutsideDelegation = "resource_outside_delegation",
        /// The upstream operation is not declared, or not lent.
        OperationNotPermitted = "operation_not_permitted",
        /// Too many mints of one resource.
        RateLimited = "rate_limited",
        /// The control audience, not asked for by a control key.
        ControlResourceRequiresControlKey = "control_resource_requires_control_key",
        /// The credential provider is gone, or can't be used as it is configured.
        ProviderUnavailable = "provider_unavailable",
        /// The subject has no account at the provider, or the resource no provider.
        CredentialNotProvisioned = "credential_not_provisioned",
        /// The subject's account could not be refreshed.
        CredentialRefreshFailed = "credential_refresh_failed",
        /// The provider does not let its credential leave the Gateway.
        CredentialInjectionDenied = "credential_injection_denied",
        /// The provider's credential could not be obtained.
        ProviderCredentialUnavailable = "provider_credential_unavailable",
        /// Nothing was granted.
        ExchangeDenied = "exchange_denied",
        /// An id_token beside fields that do not go with it.
        SubjectFederationInvalid = "subject_federation_invalid",
        /// An id_token that is not believed.
        SubjectFederationRejected = "subject_federation_rejected",
        /// A workload's secret is wrong.
        WorkloadAuthFailed = "workload_auth_failed",
        /// What should not happen did: an id that is taken, a mandate that comes back, a ledger that is not as it was.
        Anomaly = "anomaly",
        /// The upstream answered.
        Executed = "executed",
        /// The upstream may not be reached, or not with this credential.
        UpstreamRejected = "upstream_rejected",
        /// No request could be built for the upstream.
        BuildFailed = "build_failed",
        /// No answer, or not all of it.
        UpstreamError = "upstream_error",

        /// Client credentials that were right when the request came, and are not at its commit.
        ClientUnauthenticated = "client_unauthenticated",
        /// The right secret of an application of another zone.
        ZoneInvalid = "zone_invalid",
        /// A request that asks for no resource.
        RequestInvalid = "request_invalid",
        /// The store's clock could not be read.
        TimeUnavailable = "time_unavailable",
        /// A subject token that is none, or may not be presented.
        SubjectTokenInvalid = "subject_token_invalid",
        /// A record, session or delegation that is not there for the caller.
        ReferenceInvalid = "reference_invalid",
        /// The mint rate could not be counted.
        RateUnavailable = "rate_unavailable",
        /// A human has to agree first.
        ApprovalRequired = "approval_required",
        /// A session mandate, traded outside the Gateway.
        GatewayRequired = "gateway_required",
        /// A `ttl_seconds` that no mandate has.
        TtlInvalid = "ttl_invalid",
        /// What the mandate hangs on ends at once.
        LifetimeExhausted = "lifetime_exhausted",
        /// A mandate that nobody would accept for its length.
        MandateTooLarge = "mandate_too_large",
        /// Nothing is bound to the workload or to its variable.
        BindingNotFound = "binding_not_found",
        /// Somebody decides a hold that is not theirs to decide.
        ApproverRefused = "approver_refused",
        /// Somebody takes back a mandate of another application.
        MandateOfAnotherApplication = "mandate_of_another_application",
        /// The Gateway knows an anchor of the mandate as revoked.
        SessionRevoked = "session_revoked",
        /// A body that says it is too large.
        RequestTooLarge = "request_too_large",
        /// The Gateway does not ask the STS for now.
        StsCircuitOpen = "sts_circuit_open",
        /// The STS said that it can't decide, or was not reached.
        StsUnavailable = "sts_unavailable",
        /// The STS did not answer in time.
        StsTimeout = "sts_timeout",
        /// The STS was asked, and nobody knows what it decided.
        StsOutcomeUnknown = "sts_outcome_unknown",
        /// The resource has no upstream.
        UpstreamNotConfigured = "upstream_not_configured",
    }
}

impl EvaluationStatus {
    /// Whether the contract's table has it.
    pub fn is_of_the_contract(self) -> bool {
        self <= Self::UpstreamError
    }
}

words! {
    /// A key of `metadata_json` (§2.3). Those that the contract does not have are ours, and stand last.
    MetadataKey {
        /// The application that asked, or whose hold or secret it is.
        ApplicationId = "application_id",
        /// What the application is called.
        ApplicationName = "application_name",
        /// How the application came to be registered.
        ApplicationRegistrationMethod = "application_registration_method",
        /// The resource's identifier, or the requested name when nothing was found under it.
        Resource = "resource",
        /// The scopes that were asked for.
        RequestedScopes = "requested_scopes",
        /// The authority record; empty when there is none.
        SessionId = "session_id",
        /// The governed session; empty when there is none.
        AgentSessionId = "agent_session_id",
        /// The delegation; empty when there is none.
        DelegationEdgeId = "delegation_edge_id",
        /// `application` or `user`.
        SubjectKind = "subject_kind",
        /// Of the session: `task` or `service`.
        AgentLifecycle = "agent_lifecycle",
        /// Of the session: its labels.
        AgentLabels = "agent_labels",
        /// Of the session: how many sessions stand above it.
        AgentDepth = "agent_depth",
        /// Of the session: the one that started it.
        AgentParentId = "agent_parent_id",
        /// Every hop of the delegation that is an edge.
        DelegationChain = "delegation_chain",
        /// How many hops the delegation has.
        DelegationHopCount = "delegation_hop_count",
        /// The zone's delegation epoch that the walk was made at.
        DelegationGraphEpoch = "delegation_graph_epoch",
        /// A token that says more than the status does, or an operator's words.
        Reason = "reason",
        /// The upstream operation's method.
        Method = "method",
        /// The upstream operation's path, without a query.
        Path = "path",
        /// Every resource that was asked for, in events of the request as a whole.
        Requested = "requested",
        /// The registered identity provider that an id_token names.
        FederatedUserIssuer = "federated_user_issuer",
        /// The workload that is launched, or whose secret it is.
        WorkloadId = "workload_id",
        /// What the workload is called.
        WorkloadName = "workload_name",
        /// The launch, where the launcher named it by a UUID.
        LaunchId = "launch_id",
        /// How many credentials are bound to the workload.
        BindingCount = "binding_count",
        /// The variable that a credential is bound to.
        Env = "env",
        /// The hold.
        ChallengeId = "challenge_id",
        /// The approval tier.
        Tier = "tier",
        /// Who may approve.
        ApproverClass = "approver_class",
        /// How the approver is recorded.
        PrivacyMode = "privacy_mode",
        /// What exactly is to be approved, as a hash in hex.
        Binding = "binding",
        /// When the hold is over.
        ExpiresAt = "expires_at",
        /// Whose hold it is, where it is a user's.
        SubjectAnchor = "subject_anchor",
        /// True where a mandate was told once more because its answer was lost.
        Reissued = "reissued",
        /// The record behind the mandate that was made.
        AuthorityRecordId = "authority_record_id",
        /// `subject` or `operator`.
        ApproverPlane = "approver_plane",
        /// The record of the user who decided.
        ApproverSessionId = "approver_session_id",
        /// The operator who decided.
        ApproverSubjectId = "approver_subject_id",
        /// The mandate's id.
        Jti = "jti",
        /// The application, where an id collided.
        AppId = "app_id",
        /// The request, once more.
        RequestId = "request_id",
        /// The application that the mandate was issued to.
        ClientId = "client_id",
        /// First eight bytes of the bearer's SHA-256, in hex, of a replay.
        SubjectFp = "subject_fp",
        /// First eight bytes of the bearer's SHA-256, in hex, of a call.
        SubjectFingerprint = "subject_fingerprint",
        /// The HTTP status that the caller got.
        GatewayStatus = "gateway_status",
        /// From dispatch to the head of the response.
        LatencyMs = "latency_ms",
        /// Bytes of the response body that went on to the caller.
        ResponseBytes = "response_bytes",
        /// The trace that the call belongs to.
        TraceId = "trace_id",
        /// Where the call went.
        UpstreamHost = "upstream_host",
        /// How the upstream is authenticated to.
        AuthMode = "auth_mode",
        /// The credential provider.
        ProviderId = "provider_id",
        /// The subject's account at the provider.
        ConnectionId = "connection_id",
        /// The HTTP status of the upstream.
        UpstreamStatus = "upstream_status",
        /// The class of the upstream's status.
        ResultClass = "result_class",
        /// True where a revocation cut the response.
        RevocationInterrupted = "revocation_interrupted",
        /// What kept the upstream from answering.
        ErrorKind = "error_kind",
        /// Who commanded.
        Subject = "subject",
        /// What was commanded.
        Command = "command",
        /// What of it was commanded.
        Subcommand = "subcommand",
        /// The key under which a command is carried out once.
        IdempotencyKey = "idempotency_key",
        /// What allowed a command.
        AuthorizedBy = "authorized_by",
        /// Which kind of secret was shown.
        Credential = "credential",
        /// To whom it was shown.
        Actor = "actor",

        /// The name of the refusal: several share a status.
        Refusal = "refusal",
        /// The zone that was asked for with another zone's secret.
        RequestedZoneId = "requested_zone_id",
        /// The mandate that was made, or is taken back.
        MandateId = "mandate_id",
        /// The mandate's class.
        Use = "use",
        /// The whole question that policy did not allow (README D33).
        PolicyInput = "policy_input",
        /// The scopes of the presented mandate.
        PresentedScope = "presented_scope",
        /// The resources of the presented mandate.
        PresentedTargets = "presented_targets",
        /// What the delegation lends.
        DelegationScopes = "delegation_scopes",
        /// From the request's head to the end of the call.
        DurationMs = "duration_ms",
        /// Bytes of the request body that went on to the upstream.
        RequestBytes = "request_bytes",
        /// What ended a call that did not run to its end (README D11).
        EndedBy = "ended_by",
        /// The application that a mandate to be taken back was issued to.
        MandateApplicationId = "mandate_application_id",
        /// How many records fell with the mandate's.
        RevokedRecords = "revoked_records",
        /// What is wrong with the ledger.
        Problem = "problem",
        /// In which chain.
        Chain = "chain",
        /// How much is wrong with it.
        Findings = "findings",
        /// At which place.
        ChainSeq = "chain_seq",
        /// With which event.
        EventId = "event_id",
        /// Its hash as it is stored.
        Stored = "stored",
        /// Its hash as it came once more.
        Incoming = "incoming",
    }
}

impl MetadataKey {
    /// Whether the contract's table has it.
    pub fn is_of_the_contract(self) -> bool {
        self <= Self::Actor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_spelled_like_no_other_and_read_as_itself() {
        for status in EvaluationStatus::ALL {
            assert_eq!(EvaluationStatus::parse(status.as_str()), Some(*status));
            assert!(status.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{status}");
        }
        for other in ["", "Complete", "partial", "complete "] {
            assert_eq!(EvaluationStatus::parse(other), None);
        }
    }

    /// The table of §2.2, which `control.invoke` adds nothing to.
    #[test]
    fn the_contract_has_twenty_eight_of_them() {
        let ours = EvaluationStatus::ALL.iter().filter(|status| !status.is_of_the_contract()).count();
        assert_eq!(EvaluationStatus::ALL.len() - ours, 28);
        assert!(EvaluationStatus::Complete.is_of_the_contract() && EvaluationStatus::Executed.is_of_the_contract());
        assert!(!EvaluationStatus::ClientUnauthenticated.is_of_the_contract());
    }
}
