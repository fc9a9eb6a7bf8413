//! The evidence of an exchange (contract: sts.md §16, audit-and-streams.md §2.3): one event for every resource that was
//! looked at, and one for the exchange when it was refused as a whole. Beside what the contract asks for, an event
//! says what the decision saw, so that a denial can be explained and tried again (D33).

use caracal_authority::approval::Hold;
use caracal_authority::exchange::{
    Class, Context, Decision as Ruled, Finding, Found, Grant, Outcome, PolicyAnswer, Refusal, Request, Wanted,
};
use caracal_authority::mandate::{Claims, DelegationClaims};
use caracal_authority::session::SessionFacts;
use caracal_authority::{AuthorityRecordId, EventId, Timestamp};
use caracal_crypto::chance::{self, ChanceUnavailable};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Metadata, MetadataKey as Key};
use caracal_store::applications::Application;
use caracal_store::policy_sets::ActivePolicySet;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What the contract calls the rule by which a user is taken in.
const SUBJECT_FEDERATION: &str = "caracal-subject-federation";

/// What every event of one exchange shares.
pub(crate) struct Account<'a> {
    pub(crate) request: &'a Request,
    pub(crate) request_id: &'a str,
    pub(crate) application: Option<&'a Application>,
    pub(crate) session: Option<&'a SessionFacts>,
    /// What the presented delegation lends, as it was when the decision was made.
    pub(crate) delegation_scopes: Vec<&'a str>,
    /// The presented mandate's claims, where one was accepted.
    pub(crate) presented: Option<&'a Claims>,
    /// What policy was asked about resources that it did not allow, by their identifiers.
    pub(crate) denied: Option<&'a HashMap<String, Value>>,
    pub(crate) active: Option<&'a ActivePolicySet>,
    /// `no_active_policy_set`, or the manifest of the bundle that decided.
    pub(crate) manifest: Option<&'a str>,
    pub(crate) occurred_at: Timestamp,
}

/// The record that an allowed exchange ends in.
pub(crate) struct Minted<'a> {
    pub(crate) grant: &'a Grant,
    pub(crate) record: &'a AuthorityRecordId,
    pub(crate) jti: &'a str,
}

impl Account<'_> {
    /// Events for everything that `outcome` found.
    pub(crate) fn of_outcome(
        &self,
        outcome: &Outcome,
        minted: Option<&Minted<'_>>,
        hold: Option<&Hold>,
    ) -> Result<Vec<Evidence>, ChanceUnavailable> {
        let of = |finding| {
            let mut event = self.of_finding(finding, outcome, minted)?;
            if let Some(hold) = hold.filter(|_| finding.resource.is_none()) {
                event.metadata = event.metadata.and(Metadata::of_hold(hold));
            }
            Ok(event)
        };
        outcome.findings.iter().map(of).collect()
    }

    /// The event for a hold that was raised, or spent.
    pub(crate) fn of_hold(
        &self,
        event_type: EventType,
        decision: Decision,
        hold: &Hold,
        context: &Context,
    ) -> Result<Evidence, ChanceUnavailable> {
        let mut event = self.event(event_type, decision, EvaluationStatus::Complete)?;
        event.metadata = self.base(context).and(Metadata::of_hold(hold));
        Ok(event)
    }

    /// The event for an exchange that was refused before or after its decision; `reason` where a token says more than
    /// the status does.
    pub(crate) fn of_refusal(
        &self,
        refusal: &Refusal,
        resource: Option<&str>,
        reason: Option<&'static str>,
        context: &Context,
    ) -> Result<Evidence, ChanceUnavailable> {
        let mut event = self.event(EventType::TokenExchange, Decision::Deny, refusal.evaluation_status())?;
        let mut metadata = self.base(context).with_known(Key::Reason, reason).with(Key::Refusal, refusal.name());
        match resource {
            Some(resource) => metadata.set(Key::Resource, resource),
            None => metadata.set(Key::Requested, self.requested()),
        }
        if let Some(hold) = held(refusal) {
            metadata = metadata.and(Metadata::of_hold(hold));
        }
        if let Refusal::ClientOfAnotherZone { requested, .. } = refusal {
            metadata.set(Key::RequestedZoneId, requested.as_str());
        }
        event.metadata = metadata;
        Ok(event)
    }

    /// The event for a mandate whose id another one has already (§16). None comes of it.
    pub(crate) fn of_collision(&self, jti: &str, context: &Context) -> Result<Evidence, ChanceUnavailable> {
        let mut event = self.event(EventType::JtiCollision, Decision::Deny, EvaluationStatus::Anomaly)?;
        event.metadata = self
            .base(context)
            .with(Key::Jti, jti)
            .with(Key::AppId, self.request.application.as_str())
            .with(Key::RequestId, self.request_id);
        Ok(event)
    }

    fn of_finding(
        &self,
        finding: &Finding,
        outcome: &Outcome,
        minted: Option<&Minted<'_>>,
    ) -> Result<Evidence, ChanceUnavailable> {
        let decision = match finding.decision {
            Ruled::Allow => Decision::Allow,
            Ruled::Deny => Decision::Deny,
        };
        let mut event = self.event(EventType::TokenExchange, decision, finding.evaluation_status)?;
        let context = &outcome.context;
        let mut metadata = self.base(context).with_known(Key::Resource, finding.resource.as_deref());
        if finding.resource.is_none() && outcome.class != Class::Federation {
            metadata.set(Key::Requested, self.requested());
        }
        let reason = finding.reason().or_else(|| outcome.refusal().and_then(Refusal::reason));
        metadata = metadata.with_known(Key::Reason, reason).with_known(Key::Refusal, refusal_of(finding));
        if let Some(call) = self.request.upstream_call() {
            // The bytes that were authorised are the bytes that go upstream; a query is never part of them.
            metadata = metadata.with(Key::Method, call.method.as_str()).with(Key::Path, call.path.as_str());
        }
        if let Some(minted) = minted.filter(|_| finding.decision == Ruled::Allow) {
            metadata = metadata
                .with(Key::AuthorityRecordId, minted.record.as_str())
                .with(Key::MandateId, minted.jti)
                .with(Key::Use, minted.grant.r#use().as_str());
            if finding.found == Found::Federated {
                metadata.set(Key::SessionId, minted.record.as_str());
                event = event.determined_by(SUBJECT_FEDERATION);
            }
        }
        // The whole question: whoever explains the denial can ask it again, of whatever policy (README D33).
        if finding.decision == Ruled::Deny && finding.policy.is_some() {
            let asked = finding.resource.as_ref().and_then(|resource| self.denied?.get(resource));
            metadata = metadata.with_known(Key::PolicyInput, asked.cloned());
        }
        event.metadata = metadata;
        Ok(match &finding.policy {
            Some(answer) => under_policy(event, self.active, self.manifest, answer),
            None if finding.found == Found::Granted => event.determined_by("control-key"),
            None => event,
        })
    }

    fn event(
        &self,
        event_type: EventType,
        decision: Decision,
        evaluation_status: EvaluationStatus,
    ) -> Result<Evidence, ChanceUnavailable> {
        let zone = self.request.zone.clone();
        let id = event_id(self.occurred_at)?;
        let event = Evidence::new(id, zone, event_type, decision, evaluation_status, self.occurred_at);
        Ok(event.request(self.request_id))
    }

    fn requested(&self) -> Vec<&str> {
        self.request.resources.iter().collect()
    }

    /// Who asked, for which session and through which delegation. Ids that are not there are empty texts, as the
    /// contract has them.
    fn base(&self, context: &Context) -> Metadata {
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        let mut metadata = Metadata::new()
            .with(Key::ApplicationId, self.request.application.as_str())
            .with_known(Key::ApplicationName, self.application.map(|application| application.name.as_str()))
            .with_known(
                Key::ApplicationRegistrationMethod,
                self.application.map(|application| application.registration_method.as_str()),
            )
            .with(
                Key::RequestedScopes,
                self.request.scope.get().listed().iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            )
            .with(Key::SessionId, text(context.record.as_ref().or(self.request.record.id()).map(AsRef::as_ref)))
            .with(Key::AgentSessionId, text(context.session.as_ref().or(self.request.session.id()).map(AsRef::as_ref)))
            .with(Key::DelegationEdgeId, self.delegation_id(context))
            .with_known(Key::SubjectKind, context.kind.map(|kind| kind.as_str()))
            .with_known(Key::FederatedUserIssuer, context.federated_issuer.as_deref());
        // Of a session that is the caller's own it is said what it was also where the request failed before the session was
        // looked at: whoever asks the question again needs it.
        let own = self.session.filter(|session| session.application == self.request.application);
        let validated = self.session.filter(|session| context.session.as_ref() == Some(&session.id));
        if let Some(session) = validated.or(own) {
            metadata = metadata
                .with(Key::AgentLifecycle, session.life.lifecycle().as_str())
                .with(Key::AgentLabels, session.labels.clone())
                .with(Key::AgentDepth, session.depth)
                .with_known(Key::AgentParentId, session.parent.as_ref().map(|parent| parent.as_str()));
        }
        // Policy looks at what a presented mandate carries instead of at what is asked for.
        if let Some(presented) = self.presented {
            metadata = metadata
                .with(Key::PresentedScope, presented.scope.text().into_owned())
                .with(Key::PresentedTargets, presented.target.clone());
        }
        match &context.delegation {
            Some(delegation) => {
                with_delegation(metadata, delegation).with(Key::DelegationScopes, self.delegation_scopes.clone())
            }
            None if own.is_some() && !self.delegation_scopes.is_empty() => {
                metadata.with(Key::DelegationScopes, self.delegation_scopes.clone())
            }
            None => metadata,
        }
    }

    fn delegation_id(&self, context: &Context) -> String {
        let validated = context.delegation.as_ref().map(|delegation| &delegation.edge);
        validated.or(self.request.delegation.id()).map(ToString::to_string).unwrap_or_default()
    }
}

/// The event of what policy answered, by the version that did.
pub(crate) fn under_policy(
    event: Evidence,
    active: Option<&ActivePolicySet>,
    manifest: Option<&str>,
    answer: &PolicyAnswer,
) -> Evidence {
    let mut event = event.under_policy(
        active.map(|active| active.policy_set_id.clone()),
        active.map(|active| active.version_id.clone()),
        manifest.map(str::to_owned),
    );
    let (determining, diagnostics) = match answer {
        PolicyAnswer::Allow { determining, diagnostics, .. } | PolicyAnswer::Deny { determining, diagnostics, .. } => {
            (determining.as_slice(), diagnostics.clone())
        }
        PolicyAnswer::Failed { error } => (&[][..], json!([{ "error": error }])),
    };
    for policy in determining {
        event = event.determined_by(policy);
    }
    if let Value::Array(diagnostics) = diagnostics {
        event.diagnostics.extend(diagnostics);
    }
    event
}

/// The hold that a refusal is about.
pub(crate) fn held(refusal: &Refusal) -> Option<&Hold> {
    match refusal {
        Refusal::ApprovalRequired { wanted: Wanted::Known(hold) }
        | Refusal::ApprovalRejected { hold }
        | Refusal::ApprovalConsumed { lost_to: Some(hold) } => Some(hold),
        _ => None,
    }
}

/// The refusal behind a finding. Several share an `evaluation_status`; whoever looks into a denial wants to know which.
fn refusal_of(finding: &Finding) -> Option<&'static str> {
    match &finding.found {
        Found::Stopped(name) | Found::Refused(name) => Some(name),
        Found::Granted | Found::Federated | Found::Skipped(_) => None,
    }
}

fn with_delegation(metadata: Metadata, delegation: &DelegationClaims) -> Metadata {
    let chain: Vec<Value> = delegation
        .chain
        .iter()
        .filter(|hop| hop.delegation_edge_id.is_some())
        .filter_map(|hop| serde_json::to_value(hop).ok())
        .collect();
    metadata
        .with(Key::DelegationChain, chain)
        .with(Key::DelegationHopCount, delegation.path.len())
        .with(Key::DelegationGraphEpoch, delegation.epoch)
}

/// A fresh event id.
pub(crate) fn event_id(now: Timestamp) -> Result<EventId, ChanceUnavailable> {
    let id = chance::uuid_v7(now)?.to_string();
    EventId::parse(&id).map_err(|_| ChanceUnavailable)
}
