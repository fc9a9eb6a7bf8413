//! Steps 8 and 11: the approval a request brings, and the one it needs (contract: sts.md §7.3, §7.4).
//!
//! Whoever decides brings the hold of `approval_id` among the facts, and, for a gated request without one, whatever hold
//! answers for its binding. A hold that is not there is one to be raised; should the store know better when it is, the
//! request is decided once more with that hold among its facts.

use super::resources::Reach;
use super::standing::Standing;
use super::{Facts, Refusal, Request};
use crate::approval::{self, Binding, Bound, Hold, HoldState, NewHold, Requirement, ResourceRow};
use crate::mandate::Claims;
use crate::record::{self, LiveRecord, SubjectKind};
use crate::{AgentSessionId, AuthorityRecordId, EdgeId, Timestamp};

/// What a grant does to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spending {
    /// Spends it, in the commit of the record.
    Spend(Hold),
    /// It was spent a moment ago: the same authority is told once more, under the record that it made.
    Reissue {
        /// The hold.
        hold: Hold,
        /// The record.
        record: AuthorityRecordId,
    },
}

/// A hold that a caller is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// None answers for the request yet.
    New(Box<NewHold>),
    /// This one does, and waits.
    Known(Box<Hold>),
}

/// The approval that a request brings along, looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Brought<'f> {
    Nothing,
    /// Approved: will be spent.
    Approved(&'f Hold),
    /// Spent a moment ago, on this record.
    Spent(&'f Hold, LiveRecord<'f>),
}

impl Brought<'_> {
    pub(super) fn is_given(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// A mandate that is issued again ends with the record that it names.
    pub(super) fn bound(&self) -> Option<Timestamp> {
        match self {
            Self::Spent(_, record) => Some(record.facts().expires_at),
            Self::Nothing | Self::Approved(_) => None,
        }
    }
}

/// What a request refers to once the presented mandate has had its say.
#[derive(Clone, Copy)]
pub(super) struct Referred<'f> {
    pub(super) subject: Option<&'f Claims>,
    pub(super) record: Option<&'f AuthorityRecordId>,
    pub(super) session: Option<&'f AgentSessionId>,
    pub(super) edge: Option<&'f EdgeId>,
}

/// Step 8.
pub(super) fn brought<'f>(
    request: &Request,
    facts: &'f Facts,
    referred: Referred<'_>,
    now: Timestamp,
) -> Result<Brought<'f>, Refusal> {
    let Some(id) = &request.approval_id else { return Ok(Brought::Nothing) };
    let binding = binding(request, facts, referred);
    // One answer for an id of nobody's, of somebody else's and of another request.
    let hold = facts.holds.iter().find(|hold| hold.id.as_str() == id);
    let hold = hold.filter(|hold| {
        hold.zone == request.zone
            && hold.principal == principal(request, referred.subject)
            && hold.record.as_ref() == referred.record
            && hold.binding == binding
    });
    let hold = hold.ok_or(Refusal::ApprovalUnknown)?;
    let made = hold.reissuable(now).and_then(|id| facts.record(&request.zone, id));
    if let Some(record) = made.and_then(|record| record::check_live(record, now).ok()) {
        return Ok(Brought::Spent(hold, record));
    }
    settle(hold, now)?;
    Ok(Brought::Approved(hold))
}

/// What comes of a hold for the request that it is for: it can be spent, or this is the answer.
pub(crate) fn settle(hold: &Hold, now: Timestamp) -> Result<(), Refusal> {
    match hold.state(now) {
        HoldState::Approved => Ok(()),
        HoldState::Pending => Err(Refusal::ApprovalRequired { wanted: Wanted::Known(Box::new(hold.clone())) }),
        HoldState::Rejected => Err(Refusal::ApprovalRejected { hold: Box::new(hold.clone()) }),
        HoldState::Expired => Err(Refusal::ApprovalExpired),
        HoldState::Consumed => Err(Refusal::ApprovalConsumed { lost_to: None }),
    }
}

/// Step 11: what the grant does to a hold, or the hold that the caller has to wait for.
pub(super) fn gate(
    request: &Request,
    facts: &Facts,
    standing: &Standing<'_>,
    reach: &Reach,
) -> Result<Option<Spending>, Refusal> {
    match standing.brought {
        Brought::Approved(hold) => return Ok(Some(Spending::Spend(hold.clone()))),
        Brought::Spent(hold, made) => {
            return Ok(Some(Spending::Reissue { hold: hold.clone(), record: made.facts().id.clone() }));
        }
        Brought::Nothing if reach.tiers.is_empty() => return Ok(None),
        Brought::Nothing => {}
    }
    let requirement = approval::merge(&reach.tiers).map_err(|_| Refusal::ApprovalClassConflict)?;
    let new = wanted(request, facts, standing, requirement);
    let known = facts.holds.iter().find(|hold| {
        hold.zone == new.zone
            && hold.principal == new.principal
            && hold.record == new.record
            && hold.binding == new.binding
            && hold.answers_for(standing.now)
    });
    let Some(hold) = known else { return Err(Refusal::ApprovalRequired { wanted: Wanted::New(Box::new(new)) }) };
    settle(hold, standing.now)?;
    Ok(Some(Spending::Spend(hold.clone())))
}

/// The hold for a request.
fn wanted(request: &Request, facts: &Facts, standing: &Standing<'_>, requirement: Requirement) -> NewHold {
    let session = standing.session.map(|session| session.facts());
    let referred = Referred {
        subject: standing.subject,
        record: standing.record_id(),
        session: session.map(|session| &session.id),
        edge: standing.delegation.as_ref().map(|delegation| &delegation.lineage.leaf().id),
    };
    let sources = standing.delegation.as_ref().map(|delegation| &delegation.source.facts().subject_record);
    let mut requesting: Vec<AuthorityRecordId> = Vec::new();
    for record in [standing.record_id(), session.map(|session| &session.subject_record), sources].into_iter().flatten()
    {
        if !requesting.contains(record) {
            requesting.push(record.clone());
        }
    }
    let mut resources: Vec<String> = Vec::new();
    for name in request.resources.iter() {
        let found = facts.resource(&request.zone, name);
        let identifier = found.map_or(name, |found| found.resource.name.identifier.as_str());
        if !resources.iter().any(|known| known == identifier) {
            resources.push(identifier.to_owned());
        }
    }
    NewHold {
        zone: request.zone.clone(),
        principal: principal(request, standing.subject).to_owned(),
        principal_kind: standing.kind().into(),
        launch: None,
        record: referred.record.cloned(),
        application: Some(standing.client.id.clone()),
        session: referred.session.cloned(),
        delegation: referred.edge.cloned(),
        labels: session.map(|session| session.labels.clone()).unwrap_or_default(),
        requesting,
        requirement,
        subject_anchor: anchor(facts, standing),
        binding: binding(request, facts, referred),
        scopes: request.scope.get().listed().iter().map(|scope| scope.as_str().to_owned()).collect(),
        resources,
        policy: facts.policy.clone(),
    }
}

/// The one person who may approve as the subject (§7.2): the user whose mandate was presented, else the user to whom
/// the session is anchored.
fn anchor(facts: &Facts, standing: &Standing<'_>) -> Option<String> {
    if standing.kind() == SubjectKind::User {
        return Some(standing.subject().to_owned());
    }
    let session = standing.session?.facts();
    let record = facts.record(&session.zone, &session.subject_record)?;
    (record.kind == SubjectKind::User).then(|| record.subject.clone())
}

fn principal<'r>(request: &'r Request, subject: Option<&'r Claims>) -> &'r str {
    subject.map_or(request.application.as_str(), |claims| claims.subject.as_str())
}

fn binding(request: &Request, facts: &Facts, referred: Referred<'_>) -> Binding {
    let names: Vec<&str> = request.resources.iter().collect();
    let scopes: Vec<&str> = request.scope.get().listed().iter().map(|scope| scope.as_str()).collect();
    let rows: Vec<ResourceRow<'_>> = names
        .iter()
        .filter_map(|name| facts.resource(&request.zone, name))
        .map(|found| ResourceRow { resource: &found.resource, upstream: found.upstream.as_deref() })
        .collect();
    Binding::of(&Bound {
        resources: &names,
        rows: &rows,
        scopes: &scopes,
        principal: principal(request, referred.subject),
        record: referred.record.map_or("", AuthorityRecordId::as_str),
        session: referred.session.map_or("", AgentSessionId::as_str),
        delegation: referred.edge.map_or("", EdgeId::as_str),
        application: request.application.as_str(),
        env: "",
        policy: Some(&facts.policy),
    })
}
