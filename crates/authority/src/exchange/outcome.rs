//! What a decision ends in: a grant or a refusal, and the evidence of how it came about.

use super::standing::Standing;
use super::{Class, Client, PolicyAnswer, Reach, RefreshFailure, Refusal, Request, Spending};
use crate::evidence::EvaluationStatus;
use crate::federation::ExternalSubject;
use crate::lifetime::Lifetime;
use crate::mandate::{Core, DelegationClaims, MandateClaims, Use};
use crate::record::SubjectKind;
use crate::resource::ResourceRef;
use crate::scope::{Granted, Scopes};
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, MandateId, Timestamp, ZoneId};

/// One decided exchange.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The shape of the request.
    pub class: Class,
    /// What was granted, or why nothing was.
    pub decision: Result<Grant, Refusal>,
    /// What the request was found to speak for, as far as the decision came; for evidence.
    pub context: Context,
    /// Evidence to be, in the order of the decision. A refusal leaves no `allow` among them: an allow is recorded
    /// only with the authority it granted (D11).
    pub findings: Vec<Finding>,
    /// What would be granted once a human agreed, where a human is waited for: so that nobody is asked to approve what
    /// could not be carried out anyway.
    pub awaited: Option<Grant>,
}

impl Outcome {
    /// What was granted, if anything was.
    pub fn grant(&self) -> Option<&Grant> {
        self.decision.as_ref().ok()
    }

    /// Why nothing was, if nothing was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.decision.as_ref().err()
    }
}

/// What a decision leaves behind on its way.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) context: Context,
    pub(super) findings: Vec<Finding>,
    pub(super) awaited: Option<Grant>,
}

impl Trail {
    /// Turns what had been allowed into what it became, and adds the exchange's own finding unless the resource that
    /// stopped it has already told.
    pub(super) fn withhold(&mut self, refusal: &Refusal) {
        let name = refusal.name();
        for finding in self.findings.iter_mut().filter(|finding| finding.found == Found::Granted) {
            finding.decision = Decision::Deny;
            finding.evaluation_status = refusal.evaluation_status();
            finding.found = Found::Refused(name);
        }
        if !self.findings.iter().any(|finding| finding.found == Found::Stopped(name)) {
            self.findings.push(Finding {
                resource: None,
                decision: Decision::Deny,
                evaluation_status: refusal.evaluation_status(),
                found: Found::Refused(name),
                policy: None,
            });
        }
    }
}

/// What a request was found to speak for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// The subject's kind; absent when the decision ended before it was known.
    pub kind: Option<SubjectKind>,
    /// The authority record.
    pub record: Option<AuthorityRecordId>,
    /// The governed session.
    pub session: Option<AgentSessionId>,
    /// The validated delegation.
    pub delegation: Option<DelegationClaims>,
    /// The registered identity provider that an id_token names.
    pub federated_issuer: Option<String>,
}

/// `decision` of an evidence event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// `allow`.
    Allow,
    /// `deny`.
    Deny,
}

impl Decision {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One evidence event to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The resource's identifier, or the requested name when nothing was found under it; absent for what concerns
    /// the exchange as a whole.
    pub resource: Option<String>,
    /// Allow or deny.
    pub decision: Decision,
    /// `evaluation_status`.
    pub evaluation_status: EvaluationStatus,
    /// What was found.
    pub found: Found,
    /// What policy answered, where it was asked. What is granted without was granted to a control key.
    pub policy: Option<PolicyAnswer>,
}

/// What was found about a resource, or about the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The resource is granted.
    Granted,
    /// A user is taken in.
    Federated,
    /// The resource is not; the rest of the exchange goes on.
    Skipped(Skip),
    /// The resource ended the exchange, with the refusal of this name.
    Stopped(&'static str),
    /// The exchange was refused, with the refusal of this name, and with it what this resource had been allowed.
    Refused(&'static str),
}

impl Finding {
    pub(super) fn federated() -> Self {
        Self {
            resource: None,
            decision: Decision::Allow,
            evaluation_status: EvaluationStatus::Complete,
            found: Found::Federated,
            policy: None,
        }
    }

    pub(super) fn granted(resource: &str, policy: Option<PolicyAnswer>) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            decision: Decision::Allow,
            evaluation_status: EvaluationStatus::Complete,
            found: Found::Granted,
            policy,
        }
    }

    pub(super) fn skipped(resource: &str, skip: Skip, policy: Option<PolicyAnswer>) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            decision: Decision::Deny,
            evaluation_status: skip.evaluation_status(),
            found: Found::Skipped(skip),
            policy,
        }
    }

    pub(super) fn stopped(resource: &str, refusal: &Refusal, policy: Option<PolicyAnswer>) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            decision: Decision::Deny,
            evaluation_status: refusal.evaluation_status(),
            found: Found::Stopped(refusal.name()),
            policy,
        }
    }

    /// Why the resource was skipped, if it was.
    pub fn skip(&self) -> Option<&Skip> {
        match &self.found {
            Found::Skipped(skip) => Some(skip),
            Found::Granted | Found::Federated | Found::Stopped(_) | Found::Refused(_) => None,
        }
    }

    /// The `reason` of provider cases.
    pub fn reason(&self) -> Option<&'static str> {
        self.skip().and_then(Skip::provider_reason).map(ProviderReason::as_str)
    }
}

/// Why a resource is skipped (contract: sts.md §3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// No unarchived resource of that name in the zone.
    ResourceNotFound,
    /// It does not offer a requested scope.
    ScopeMismatch,
    /// The delegation is for other resources.
    ResourceOutsideDelegation,
    /// Too many mints.
    RateLimited,
    /// Its credential provider is gone.
    ProviderUnavailable,
    /// The subject has no account at its provider.
    CredentialNotProvisioned {
        /// What is missing.
        reason: ProviderReason,
    },
    /// The subject's account could not be refreshed.
    CredentialRefreshFailed {
        /// Why.
        failure: RefreshFailure,
    },
    /// Policy said no.
    PolicyDenied {
        /// The first diagnostic's reason token.
        reason: String,
    },
}

impl Skip {
    /// `evaluation_status` of its evidence.
    pub fn evaluation_status(&self) -> EvaluationStatus {
        match self {
            Self::ResourceNotFound => EvaluationStatus::ResourceNotFound,
            Self::ScopeMismatch => EvaluationStatus::ScopeMismatch,
            Self::ResourceOutsideDelegation => EvaluationStatus::ResourceOutsideDelegation,
            Self::RateLimited => EvaluationStatus::RateLimited,
            Self::ProviderUnavailable => EvaluationStatus::ProviderUnavailable,
            Self::CredentialNotProvisioned { .. } => EvaluationStatus::CredentialNotProvisioned,
            Self::CredentialRefreshFailed { .. } => EvaluationStatus::CredentialRefreshFailed,
            Self::PolicyDenied { .. } => EvaluationStatus::Complete,
        }
    }

    /// The provider reason it records, which decides the code when nothing is granted.
    pub fn provider_reason(&self) -> Option<ProviderReason> {
        match self {
            Self::CredentialNotProvisioned { reason } => Some(*reason),
            Self::CredentialRefreshFailed { failure } => Some(ProviderReason::Refresh(*failure)),
            _ => None,
        }
    }
}

/// What stands between a subject and a provider's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderReason {
    /// Nobody's account could be meant.
    NoUserPrincipal,
    /// No active account.
    NoProviderConnection,
    /// The account could not be refreshed.
    Refresh(RefreshFailure),
}

impl ProviderReason {
    /// The reason token of evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoUserPrincipal => "no_user_principal",
            Self::NoProviderConnection => "no_provider_connection",
            Self::Refresh(failure) => failure.code(),
        }
    }

    /// The error code of an exchange that fails for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoUserPrincipal | Self::NoProviderConnection => "access_denied",
            Self::Refresh(failure) => failure.code(),
        }
    }
}

/// The authority record a mint inserts, all but its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Its zone.
    pub zone: ZoneId,
    /// Whom it speaks for.
    pub kind: SubjectKind,
    /// The application id, or the user's `sub`.
    pub subject: String,
    /// The application that made the exchange.
    pub client: ApplicationId,
    /// The asserted or presented record. The reference sets it for resource mandates only; here every class hangs on
    /// the record it was asked with, so that revoking that record takes all of them along.
    pub parent: Option<AuthorityRecordId>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The identity provider that vouched for the user, if one did.
    pub issuer: Option<String>,
}

/// A mandate to be: everything it will say but the ids of itself and of its record. Only the decision makes one.
#[derive(Debug, Clone)]
pub struct Grant {
    record: NewRecord,
    form: Form,
    scopes: Granted<Scopes>,
    targets: Vec<ResourceRef>,
    lifetime: Lifetime,
    spending: Option<Spending>,
}

/// What only some classes of mandate say.
#[derive(Debug, Clone)]
enum Form {
    Session { session: Option<AgentSessionId> },
    Gateway { session: AgentSessionId, delegation: DelegationClaims },
    Resource { root: Option<AuthorityRecordId>, session: Option<AgentSessionId>, delegation: Option<DelegationClaims> },
}

impl Grant {
    pub(super) fn new(
        request: &Request,
        standing: &Standing<'_>,
        reach: Reach,
        lifetime: Lifetime,
        spending: Option<Spending>,
    ) -> Self {
        let session = standing.session.map(|session| session.facts().id.clone());
        let form = match (standing.subject, standing.delegation_claims(), session) {
            (Some(presented), delegation, session) => {
                let root = presented.root_record.clone().or_else(|| presented.record.clone());
                Form::Resource { root, session, delegation }
            }
            (None, _, _) if reach.control.is_some() => Form::Resource { root: None, session: None, delegation: None },
            (None, Some(delegation), Some(session)) => Form::Gateway { session, delegation },
            (None, _, session) => Form::Session { session },
        };
        let record = NewRecord {
            zone: request.zone.clone(),
            kind: standing.kind(),
            subject: standing.subject().to_owned(),
            client: standing.client.id.clone(),
            parent: standing.record_id().cloned(),
            expires_at: lifetime.ends_at(),
            issuer: None,
        };
        Self { record, form, scopes: Granted::new(standing.scopes.clone()), targets: reach.granted, lifetime, spending }
    }

    /// The bare session mandate of a user who was taken in: without scope, resource, session or parent.
    pub(super) fn of_user(
        request: &Request,
        client: &Client,
        subject: ExternalSubject,
        issuer: Option<String>,
        lifetime: Lifetime,
    ) -> Self {
        let record = NewRecord {
            zone: request.zone.clone(),
            kind: SubjectKind::User,
            subject: subject.as_str().to_owned(),
            client: client.id.clone(),
            parent: None,
            expires_at: lifetime.ends_at(),
            issuer,
        };
        let form = Form::Session { session: None };
        Self { record, form, scopes: Granted::new(Scopes::none()), targets: Vec::new(), lifetime, spending: None }
    }

    /// The class of mandate.
    pub fn r#use(&self) -> Use {
        match self.form {
            Form::Session { .. } => Use::Session,
            Form::Gateway { .. } => Use::Gateway,
            Form::Resource { .. } => Use::Resource,
        }
    }

    /// The granted scopes: what was requested, or what the presented mandate carried.
    pub fn scopes(&self) -> &Granted<Scopes> {
        &self.scopes
    }

    /// The granted resources, each once.
    pub fn targets(&self) -> &[ResourceRef] {
        &self.targets
    }

    /// The life of the mandate.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// What it does to the approval it was given, if it needed one.
    pub fn spending(&self) -> Option<&Spending> {
        self.spending.as_ref()
    }

    /// The record to insert in the transaction that makes the mandate real; a grant that is told once more
    /// ([`Spending::Reissue`]) has its record already.
    pub fn record(&self) -> &NewRecord {
        &self.record
    }

    /// The claims to sign once the record `sid` is committed.
    pub fn claims(&self, issuer: &str, sid: &AuthorityRecordId, jti: &MandateId) -> MandateClaims {
        let scope = self.scopes.get().text();
        let core = Core {
            issuer,
            zone: &self.record.zone,
            client: &self.record.client,
            subject: &self.record.subject,
            kind: self.record.kind,
            record: sid,
            jti,
            lifetime: self.lifetime,
            scope: &scope,
            targets: self.targets.iter().map(|target| target.identifier.clone()).collect(),
        };
        match self.form.clone() {
            Form::Session { session } => MandateClaims::session(core, session),
            Form::Gateway { session, delegation } => MandateClaims::gateway(core, session, delegation),
            Form::Resource { root, session, delegation } => MandateClaims::resource(core, root, session, delegation),
        }
    }
}
