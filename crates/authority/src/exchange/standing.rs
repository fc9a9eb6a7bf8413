//! Steps 5 to 9: whom a request speaks for. The presented mandate, its record, the session and the delegation, each
//! live, each the caller's, none contradicting another (contract: sts.md §3.7, §9).
//!
//! Whose something is comes before how it is: about another's record or session a caller learns nothing but "no".

use super::approvals::{self, Brought, Referred};
use super::{Asserted, Client, Context, Facts, Refusal, Request, SubjectToken};
use crate::delegation::{Ends, Lineage, validate_lineage};
use crate::mandate::{Claims, DelegationClaims, Use};
use crate::record::{self, LiveRecord, SubjectKind};
use crate::scope::Scopes;
use crate::session::{self, LiveSession, SessionFacts};
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, Timestamp, ZoneId};

/// Whom a request speaks for, all of it checked.
pub(super) struct Standing<'f> {
    pub(super) now: Timestamp,
    pub(super) client: &'f Client,
    pub(super) subject: Option<&'f Claims>,
    pub(super) record: Option<LiveRecord<'f>>,
    pub(super) session: Option<LiveSession<'f>>,
    pub(super) delegation: Option<Delegation<'f>>,
    pub(super) brought: Brought<'f>,
    /// What a mandate would say: the requested scopes, or for a Gateway exchange without any the presented ones.
    pub(super) scopes: &'f Scopes,
}

/// The delegation a request goes through.
pub(super) struct Delegation<'f> {
    pub(super) source: LiveSession<'f>,
    pub(super) lineage: Lineage<'f>,
    pub(super) epoch: u64,
}

impl Standing<'_> {
    /// The authority record's id, asserted or presented.
    pub(super) fn record_id(&self) -> Option<&AuthorityRecordId> {
        self.record.map(|record| &record.facts().id)
    }

    /// The `sub` of the presented mandate, else the application id.
    pub(super) fn subject(&self) -> &str {
        self.subject.map_or(self.client.id.as_str(), |claims| &claims.subject)
    }

    /// A user only when the presented mandate says so.
    pub(super) fn kind(&self) -> SubjectKind {
        self.subject.map_or(SubjectKind::Application, |claims| claims.kind)
    }

    pub(super) fn delegation_claims(&self) -> Option<DelegationClaims> {
        self.delegation.as_ref().map(|delegation| {
            let leaf = delegation.lineage.leaf();
            DelegationClaims {
                edge: leaf.id.clone(),
                source: leaf.source.clone(),
                target: leaf.target.clone(),
                path: delegation.lineage.path().cloned().collect(),
                chain: delegation.lineage.chain().to_vec(),
                epoch: delegation.epoch,
            }
        })
    }

    pub(super) fn context(&self) -> Context {
        Context {
            kind: Some(self.kind()),
            record: self.record_id().cloned(),
            session: self.session.map(|session| session.facts().id.clone()),
            delegation: self.delegation_claims(),
            federated_issuer: None,
        }
    }
}

/// Finds it, or says why the request speaks for nobody.
pub(super) fn find<'f>(
    request: &'f Request,
    facts: &'f Facts,
    client: &'f Client,
    now: Timestamp,
) -> Result<Standing<'f>, Refusal> {
    let subject = presented_mandate(request, facts)?; // 5
    let presented = subject.map(|claims| presented_record(request, facts, claims, now)).transpose()?; // 6
    let session_id = agreed(
        &request.session,
        subject.and_then(|claims| claims.session.as_ref()),
        Refusal::SessionUnknown,
        Refusal::SessionDiffersFromToken,
    )?; // 7
    let edge_id = agreed(
        &request.delegation,
        subject.and_then(|claims| claims.delegation.as_ref()),
        Refusal::DelegationUnknown,
        Refusal::DelegationDiffersFromToken,
    )?;
    let referred = Referred {
        subject,
        record: presented.map(|record| &record.facts().id).or(request.record.id()),
        session: session_id,
        edge: edge_id,
    };
    let brought = approvals::brought(request, facts, referred, now)?; // 8
    let record = match presented {
        Some(record) => Some(record),
        None => asserted_record(request, facts, client, now)?, // 9, rule 1
    };
    let session = session_id
        .map(|id| of_record(session_of(facts, &request.zone, &client.id, id, now)?, subject, record))
        .transpose()?; // 9, rule 2
    let scopes = match subject {
        Some(claims) if request.is_gateway() && request.scope.get().is_empty() => &claims.scope,
        _ => request.scope.get(),
    };
    let delegation = match (edge_id, session) {
        (None, _) => None,
        (Some(_), None) => return Err(Refusal::DelegationWithoutSession), //                    9, rule 3
        (Some(edge), Some(target)) => Some(delegation(request, facts, edge, target, scopes, now)?), // rules 4–10
    };
    Ok(Standing { now, client, subject, record, session, delegation, brought, scopes })
}

/// Step 5. The signature and the rest of [`Claims::accept`] are verified where the keys are; class and zone are
/// looked at again, because a mandate of another class would change everything that follows.
fn presented_mandate<'f>(request: &Request, facts: &'f Facts) -> Result<Option<&'f Claims>, Refusal> {
    if request.subject_token == SubjectToken::None {
        return Ok(None);
    }
    let wanted = if request.is_gateway() { Use::Gateway } else { Use::Session };
    let claims = facts.subject.as_ref().filter(|claims| claims.r#use == wanted && claims.zone == request.zone);
    claims.map(Some).ok_or(Refusal::SubjectTokenInvalid)
}

/// Step 6.
fn presented_record<'f>(
    request: &Request,
    facts: &'f Facts,
    claims: &Claims,
    now: Timestamp,
) -> Result<LiveRecord<'f>, Refusal> {
    let sid = claims.record.as_ref().ok_or(Refusal::SubjectTokenWithoutRecord)?;
    let agrees = match &request.record {
        Asserted::Absent => true,
        Asserted::Id(id) => id == sid,
        Asserted::NotAnId => false,
    };
    if !agrees {
        return Err(Refusal::RecordDiffersFromToken);
    }
    if claims.client != request.application {
        return Err(Refusal::RecordOfAnotherClient);
    }
    record_of(facts, claims, now)
}

/// The live record of a mandate: of the zone, the application and the subject that the mandate names.
pub(super) fn record_of<'f>(facts: &'f Facts, claims: &Claims, now: Timestamp) -> Result<LiveRecord<'f>, Refusal> {
    let sid = claims.record.as_ref().ok_or(Refusal::SubjectTokenWithoutRecord)?;
    let record = facts.record(&claims.zone, sid).ok_or(Refusal::RecordUnknown)?;
    if record.client != claims.client {
        return Err(Refusal::RecordOfAnotherClient);
    }
    if record.subject != claims.subject {
        return Err(Refusal::RecordOfAnotherSubject);
    }
    record::check_live(record, now).map_err(|why| Refusal::RecordNotLive { why })
}

/// Step 7, for one reference: the mandate's value fills an empty field and contradicts a different one.
fn agreed<'r, T: PartialEq>(
    asserted: &'r Asserted<T>,
    presented: Option<&'r T>,
    unknown: Refusal,
    differs: Refusal,
) -> Result<Option<&'r T>, Refusal> {
    match (asserted, presented) {
        (Asserted::Absent, presented) => Ok(presented),
        (Asserted::Id(id), None) => Ok(Some(id)),
        (Asserted::Id(id), Some(presented)) if id == presented => Ok(Some(id)),
        (Asserted::NotAnId, None) => Err(unknown),
        (Asserted::Id(_) | Asserted::NotAnId, Some(_)) => Err(differs),
    }
}

/// Step 9, rule 1, without a subject token: an application's own record.
fn asserted_record<'f>(
    request: &Request,
    facts: &'f Facts,
    client: &Client,
    now: Timestamp,
) -> Result<Option<LiveRecord<'f>>, Refusal> {
    if request.record.is_absent() {
        return Ok(None);
    }
    let found = request.record.id().and_then(|id| facts.record(&request.zone, id));
    let record = found.ok_or(Refusal::RecordUnknown)?;
    if record.kind != SubjectKind::Application {
        return Err(Refusal::RecordNotOfApplication);
    }
    if record.subject != client.id.as_str() {
        return Err(Refusal::RecordOfAnotherSubject);
    }
    record::check_live(record, now).map(Some).map_err(|why| Refusal::RecordNotLive { why })
}

/// A live session of this application, and no other's.
pub(super) fn session_of<'f>(
    facts: &'f Facts,
    zone: &ZoneId,
    application: &ApplicationId,
    id: &AgentSessionId,
    now: Timestamp,
) -> Result<LiveSession<'f>, Refusal> {
    let found = facts.session(zone, id).filter(|session| session.application == *application);
    live_session(facts, found.ok_or(Refusal::SessionUnknown)?, now)
}

fn live_session<'f>(facts: &'f Facts, session: &'f SessionFacts, now: Timestamp) -> Result<LiveSession<'f>, Refusal> {
    let anchor = facts.record(&session.zone, &session.subject_record);
    session::check_live(session, anchor, now).map_err(|why| Refusal::SessionNotLive { why })
}

/// A session mandate speaks only for sessions anchored to its own record.
fn of_record<'f>(
    session: LiveSession<'f>,
    subject: Option<&Claims>,
    record: Option<LiveRecord<'f>>,
) -> Result<LiveSession<'f>, Refusal> {
    let bound = subject.is_some_and(|claims| claims.r#use == Use::Session);
    let anchored = record.is_some_and(|record| record.facts().id == session.facts().subject_record);
    if bound && !anchored { Err(Refusal::SessionOfAnotherRecord) } else { Ok(session) }
}

/// Step 9, rules 4 to 10.
fn delegation<'f>(
    request: &'f Request,
    facts: &'f Facts,
    edge: &'f EdgeId,
    target: LiveSession<'f>,
    scopes: &Scopes,
    now: Timestamp,
) -> Result<Delegation<'f>, Refusal> {
    let (source, lineage) = lineage_to(facts, edge, target, now)?;
    if !lineage.scopes().covers(scopes) {
        return Err(Refusal::ScopesExceedDelegation);
    }
    let asked = request.ttl_seconds.unwrap_or(0);
    if lineage.ttl_cap().is_some_and(|most| asked > i64::from(most)) {
        return Err(Refusal::TtlExceedsDelegation);
    }
    let epoch = facts.epoch.ok_or(Refusal::EpochUnreadable)?;
    Ok(Delegation { source, lineage, epoch })
}

/// The delegation to a live session: the session that lends, and the whole lineage, both live.
pub(super) fn lineage_to<'f>(
    facts: &'f Facts,
    edge: &'f EdgeId,
    target: LiveSession<'f>,
    now: Timestamp,
) -> Result<(LiveSession<'f>, Lineage<'f>), Refusal> {
    let zone = &target.facts().zone;
    let leaf = facts.lineage.last().filter(|leaf| leaf.id == *edge && leaf.target == target.facts().id);
    let leaf = leaf.ok_or(Refusal::DelegationUnknown)?;
    let source = facts.session(zone, &leaf.source).ok_or(Refusal::DelegationUnknown)?;
    let source = live_session(facts, source, now).map_err(|_| Refusal::SourceSessionNotLive)?;
    let ends = Ends { zone, edge, source, target };
    let lineage =
        validate_lineage(&facts.lineage, &ends, now).map_err(|fault| Refusal::DelegationUnusable { fault })?;
    Ok((source, lineage))
}
