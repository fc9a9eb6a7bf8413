//! `POST /zones/:zoneId/agents`: starting a session (contract: coordinator.md §4.2).
//!
//! Everything from the idempotency receipt on is decided and written in one commit: what was counted cannot have changed
//! when the session is added, a parent cannot end in between, and a repeated request finds the first one's receipt or
//! nothing of it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use caracal_authority::delegation::{Edge, InheritFault, MAX_LINEAGE, NarrowedEdge, inherited_edge, mirror};
use caracal_authority::record::{SubjectKind, check_live};
use caracal_authority::session::{
    LabelFault, Lifecycle, MAX_CHILDREN, SessionFacts, TTL_SECONDS, child_depth, parse_labels,
};
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, Timestamp};
use caracal_cascade::events;
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::applications::{self, Application};
use caracal_store::receipts::Receipt;
use caracal_store::sessions::{self, Among, SessionRow};
use caracal_store::{StoreError, ZoneRead, ZoneWrite, delegations, records};
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::auth::IdentityRevoked;
use crate::evidence::{Caller, record_success};
use crate::facts::{application_id, edge_id, edges, inbound, new_edge_row, session_id};
use crate::idempotency::{BadKey, KeyRefused, Keyed, Operation, remembered_body};
use crate::outage::{Outage, new_id};
use crate::schema::{Fields, Issues};
use crate::subject_proof::{ProofFault, SubjectProof};
use crate::wire::{Answer, instant, invalid_body, refusal};

const DEFAULT_TTL_SECONDS: u32 = 3_600;
const DCR: &str = "dcr";

/// A request body that matches the schema.
#[derive(Debug, Clone)]
struct Wanted {
    application: String,
    anchor: Option<String>,
    parent: Option<String>,
    lifecycle: Lifecycle,
    labels: Vec<String>,
    /// None for a service.
    ttl_seconds: Option<u32>,
    inherit: bool,
    inherit_edge: Option<String>,
    metadata: Map<String, Value>,
}

/// Why no session is started, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum StartRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("the application is another's")]
    ApplicationOwnership,
    #[error(transparent)]
    BadKey(#[from] BadKey),
    #[error(transparent)]
    Key(#[from] KeyRefused),
    #[error("no such application")]
    ApplicationNotFound,
    #[error("a self-registered application cannot host a service")]
    DcrService,
    #[error("a self-registered application cannot start a child")]
    DcrChild,
    #[error("no such authority record, or it is not active")]
    AnchorNotFound,
    #[error(transparent)]
    SubjectProof(#[from] ProofFault),
    #[error("the zone has as many sessions as it may have")]
    ZoneLimit,
    #[error("a self-registered application has one session at a time")]
    DcrBound,
    #[error("the application has as many sessions as it may have")]
    ApplicationLimit,
    #[error("no such parent session, or it is not active")]
    ParentNotFound,
    #[error("the parent belongs to a self-registered application")]
    DcrParent,
    #[error("a task cannot start a service")]
    TaskStartsService,
    #[error("the parent session is another application's")]
    ParentOwnership,
    #[error("the parent has as many children as it may have")]
    ChildrenLimit,
    #[error("the session would be too deep")]
    DepthLimit,
    #[error(transparent)]
    Inherit(#[from] InheritFault),
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for StartRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<StartRefused> for Problem {
    fn from(error: StartRefused) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let (status, code) = match error {
            StartRefused::Caller(revoked) => return revoked.into(),
            StartRefused::BadKey(bad) => return bad.into(),
            StartRefused::Key(refused) => return refused.into(),
            StartRefused::SubjectProof(fault) => return fault.into(),
            StartRefused::Outage(outage) => return outage.problem(),
            StartRefused::AnchorNotFound => {
                let answer = refusal(S::NOT_FOUND, "session_not_found");
                return answer.member("detail", "subject_session_id is not an active authority record");
            }
            StartRefused::Inherit(fault) => (S::CONFLICT, fault.code()),
            StartRefused::ApplicationOwnership => (S::FORBIDDEN, "application_ownership_required"),
            StartRefused::ApplicationNotFound => (S::NOT_FOUND, "application_not_found"),
            StartRefused::DcrService => (S::CONFLICT, "dcr_application_cannot_host_service"),
            StartRefused::DcrChild => (S::CONFLICT, "dcr_application_cannot_be_child"),
            StartRefused::ZoneLimit => (S::TOO_MANY_REQUESTS, "session_zone_limit_exceeded"),
            StartRefused::DcrBound => (S::CONFLICT, "dcr_application_already_bound"),
            StartRefused::ApplicationLimit => (S::TOO_MANY_REQUESTS, "session_limit_exceeded"),
            StartRefused::ParentNotFound => (S::NOT_FOUND, "parent_not_found"),
            StartRefused::DcrParent => (S::CONFLICT, "dcr_application_cannot_start_child"),
            StartRefused::TaskStartsService => (S::CONFLICT, "task_session_cannot_start_service"),
            StartRefused::ParentOwnership => (S::FORBIDDEN, "parent_ownership_required"),
            StartRefused::ChildrenLimit => (S::TOO_MANY_REQUESTS, "session_children_limit_exceeded"),
            StartRefused::DepthLimit => (S::TOO_MANY_REQUESTS, "session_depth_limit_exceeded"),
        };
        refusal(status, code).describe(message)
    }
}

/// Starts a session.
pub(crate) async fn start(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let (wanted, subject_token) = read(body).map_err(|issues| invalid_body(&issues))?;
    let Some(own) = caller.principal.application() else {
        return Err(refusal(StatusCode::UNAUTHORIZED, "invalid_token"));
    };
    if !caller.principal.may_for("coordinator.spawn_for", &wanted.application) {
        return Err(StartRefused::ApplicationOwnership.into());
    }
    // Text that can't be an id names nothing; a key cannot have brought about anything in its scope either.
    let application = application_id(&wanted.application).ok_or(StartRefused::ApplicationNotFound)?;
    let anchor = match &wanted.anchor {
        None => Some(own.record.clone()),
        Some(named) => AuthorityRecordId::parse(named).ok(),
    };
    let content = content(&wanted, anchor.as_ref());
    let key = Keyed::read(headers, &coordinator.config, Operation::StartSession, &application, own, content)
        .map_err(StartRefused::from)?;
    let zone = caller.principal.zone().clone();
    let proof = match &anchor {
        Some(anchor) if *anchor != own.record => SubjectProof::judge(
            coordinator.keys.as_ref(),
            &coordinator.config.issuer,
            &zone,
            subject_token.as_deref(),
            application.as_str(),
            anchor,
            coordinator.store.now(),
        )
        .await
        .map_err(|cause| Problem::from(crate::auth::Unauthenticated::Unavailable(cause)))?,
        _ => SubjectProof::None,
    };
    let start = Start {
        caller,
        ledger: coordinator.ledger.clone(),
        wanted,
        application,
        anchor,
        proof,
        key,
        limits: Limits {
            per_zone: coordinator.config.max_sessions_per_zone,
            per_application: coordinator.config.max_sessions_per_application,
            lease: coordinator.config.service_lease,
        },
    };
    let started: Result<Answer, StartRefused> =
        coordinator.store.commit(&zone, start, |tx, start| Box::pin(start.commit(tx))).await;
    Ok(started?)
}

fn read(body: Option<&Value>) -> Result<(Wanted, Option<String>), Issues> {
    let mut fields = Fields::of(body)?;
    let lifecycles = [("task", Lifecycle::Task), ("service", Lifecycle::Service)];
    let application = fields.required_text("application_id");
    let anchor = fields.optional_text("subject_session_id", 0);
    let parent = fields.nullable_text("parent_id", 0);
    let lifecycle = fields.optional_choice("lifecycle", &lifecycles).unwrap_or(Lifecycle::Task);
    let listed = fields.text_list("labels");
    let labels = parse_labels(&listed).unwrap_or_else(|fault| {
        match fault {
            LabelFault::TooMany => fields.fault("labels", None, "too many labels"),
            LabelFault::Malformed(index) => fields.fault("labels", Some(index), "must be 1 to 64 characters"),
        }
        Vec::new()
    });
    let bounds = u64::from(*TTL_SECONDS.start())..=u64::from(*TTL_SECONDS.end());
    let ttl = fields.optional_whole("ttl_seconds", bounds).and_then(|ttl| u32::try_from(ttl).ok());
    let ttl_seconds = match lifecycle {
        Lifecycle::Task => Some(ttl.unwrap_or(DEFAULT_TTL_SECONDS)),
        Lifecycle::Service => {
            if fields.raw("ttl_seconds").is_some() {
                fields.fault("ttl_seconds", None, "a service has no ttl");
            }
            None
        }
    };
    let inherit = fields.optional_choice("parent_authority", &[("inherit", true), ("none", false)]).unwrap_or(true);
    let inherit_edge = fields.optional_text("inherit_parent_edge_id", 1);
    let metadata = fields.object("metadata");
    let subject_token = fields.nullable_text("subject_token", 0);
    fields.finish()?;
    let wanted =
        Wanted { application, anchor, parent, lifecycle, labels, ttl_seconds, inherit, inherit_edge, metadata };
    Ok((wanted, subject_token))
}

/// What makes two requests the same (contract: coordinator.md §10). The proof is not part of it: it may be renewed.
fn content(wanted: &Wanted, anchor: Option<&AuthorityRecordId>) -> Value {
    json!({
        "application_id": wanted.application,
        "subject_authority_record_id": anchor.map(AuthorityRecordId::as_str).or(wanted.anchor.as_deref()),
        "parent_id": wanted.parent,
        "lifecycle": wanted.lifecycle.as_str(),
        "labels": wanted.labels,
        "ttl_seconds": wanted.ttl_seconds,
        "parent_authority": if wanted.inherit { "inherit" } else { "none" },
        "inherit_parent_edge_id": wanted.inherit_edge,
        "metadata": wanted.metadata,
    })
}

#[derive(Clone, Copy)]
struct Limits {
    per_zone: u32,
    per_application: u32,
    lease: Duration,
}

/// One start, ready to be decided and written.
struct Start {
    caller: Arc<Caller>,
    ledger: Ledger,
    wanted: Wanted,
    application: ApplicationId,
    /// None when the caller named what can't be a record.
    anchor: Option<AuthorityRecordId>,
    proof: SubjectProof,
    key: Option<Keyed>,
    limits: Limits,
}

/// The session under which another is started.
struct Parent {
    facts: SessionFacts,
    depth: u8,
}

impl Start {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<Answer, StartRefused> {
        self.caller.principal.check_alive(tx).await??;
        let answer = self.decide(tx).await?;
        record_success(tx, &self.ledger, &self.caller, answer.status.as_u16()).await?;
        Ok(answer)
    }

    async fn decide(&self, tx: &mut ZoneWrite<'_>) -> Result<Answer, StartRefused> {
        if let Some(key) = &self.key
            && let Some(receipt) = key.find_receipt(tx).await?
        {
            return Ok(replay(tx, &receipt).await?);
        }
        let application = self.application(tx).await?;
        let anchor = self.anchor(tx).await?;
        self.capacity(tx, &application).await?;
        let parent = self.parent(tx).await?;
        let inherited = match &parent {
            Some(parent) if self.wanted.inherit => self.inherited(tx, &parent.facts).await?,
            _ => None,
        };
        self.add(tx, anchor, parent, inherited).await
    }

    /// Rows 4 to 6 of the contract's table.
    async fn application(&self, tx: &mut ZoneRead<'_>) -> Result<Application, StartRefused> {
        let now = tx.now();
        let application = applications::lookup(tx, &self.application).await?;
        let application =
            application.filter(|application| application.is_live(now)).ok_or(StartRefused::ApplicationNotFound)?;
        if application.registration_method == DCR {
            if self.wanted.lifecycle == Lifecycle::Service {
                return Err(StartRefused::DcrService);
            }
            if self.wanted.parent.is_some() {
                return Err(StartRefused::DcrChild);
            }
        }
        Ok(application)
    }

    /// Row 7: a live record, and one this application may act on. Another application's record is none at all.
    async fn anchor(&self, tx: &mut ZoneRead<'_>) -> Result<AuthorityRecordId, StartRefused> {
        let now = tx.now();
        let anchor = self.anchor.as_ref().ok_or(StartRefused::AnchorNotFound)?;
        let record = records::lookup(tx, anchor).await?.ok_or(StartRefused::AnchorNotFound)?.facts()?;
        check_live(&record, now).map_err(|_| StartRefused::AnchorNotFound)?;
        let own = self.caller.principal.application().is_some_and(|caller| caller.record == *anchor);
        match record.kind {
            _ if own => {}
            SubjectKind::Application if record.subject == self.application.as_str() => {}
            SubjectKind::Application => return Err(StartRefused::AnchorNotFound),
            SubjectKind::User if self.parent_acts_for(tx, anchor).await? => {}
            SubjectKind::User => self.proof.check(anchor)?,
        }
        Ok(anchor.clone())
    }

    /// Whether the parent is a session of the same application for the same user: then control of the record was proven
    /// when that session, or the one above it, was started, and a child that inherits the anchor gains nothing by it.
    async fn parent_acts_for(&self, tx: &mut ZoneRead<'_>, anchor: &AuthorityRecordId) -> Result<bool, StartRefused> {
        let now = tx.now();
        let Some(parent) = self.wanted.parent.as_deref().and_then(session_id) else { return Ok(false) };
        let Some(parent) = sessions::lookup(tx, &parent).await? else { return Ok(false) };
        let same = parent.application_id == self.application && parent.subject_record_id == *anchor;
        Ok(same && parent.facts()?.is_active(now))
    }

    /// Rows 8 to 10.
    async fn capacity(&self, tx: &mut ZoneRead<'_>, application: &Application) -> Result<(), StartRefused> {
        if sessions::holding_reaches(tx, Among::Zone, self.limits.per_zone.into()).await? {
            return Err(StartRefused::ZoneLimit);
        }
        let own = Among::Application(&application.id);
        if application.registration_method == DCR && sessions::holding_reaches(tx, own, 1).await? {
            return Err(StartRefused::DcrBound);
        }
        if sessions::holding_reaches(tx, own, self.limits.per_application.into()).await? {
            return Err(StartRefused::ApplicationLimit);
        }
        Ok(())
    }

    /// Rows 11 to 16. A parent whose time is up is none, whether or not it was swept.
    async fn parent(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Parent>, StartRefused> {
        let Some(named) = &self.wanted.parent else { return Ok(None) };
        let now = tx.now();
        let id = session_id(named).ok_or(StartRefused::ParentNotFound)?;
        let row = sessions::lookup(tx, &id).await?.ok_or(StartRefused::ParentNotFound)?;
        let facts = row.facts()?;
        if !facts.is_active(now) {
            return Err(StartRefused::ParentNotFound);
        }
        let owner = applications::lookup(tx, &facts.application).await?;
        if owner.is_some_and(|owner| owner.registration_method == DCR) {
            return Err(StartRefused::DcrParent);
        }
        if facts.life.lifecycle() == Lifecycle::Task && self.wanted.lifecycle == Lifecycle::Service {
            return Err(StartRefused::TaskStartsService);
        }
        let principal = &self.caller.principal;
        let foreign = facts.application != self.application;
        if foreign && !principal.holds(&format!("coordinator.spawn_under:{}", facts.application)) {
            return Err(StartRefused::ParentOwnership);
        }
        let most = i64::try_from(MAX_CHILDREN).unwrap_or(i64::MAX);
        if sessions::holding_reaches(tx, Among::ChildrenOf(&id), most).await? {
            return Err(StartRefused::ChildrenLimit);
        }
        let depth = child_depth(facts.depth).ok_or(StartRefused::DepthLimit)?;
        Ok(Some(Parent { facts, depth }))
    }

    /// Row 17: the one edge of the parent's that the child repeats.
    async fn inherited(&self, tx: &mut ZoneRead<'_>, parent: &SessionFacts) -> Result<Option<Edge>, StartRefused> {
        let now = tx.now();
        let named = self.wanted.inherit_edge.as_deref();
        let named_id = named.map(|named| edge_id(named).ok_or(InheritFault::NotActive)).transpose()?;
        let candidates = match &named_id {
            // The child's application decides, so a cross-application child never inherits.
            _ if parent.application != self.application => Vec::new(),
            None => inbound(tx, &parent.id).await?,
            Some(id) => {
                let row = delegations::lookup(tx, id).await?.filter(|row| row.target_session_id == parent.id);
                edges(tx, row.as_slice()).await?
            }
        };
        let candidates: Vec<Edge> = candidates.into_iter().filter(|edge| edge.receiver == self.application).collect();
        let Some(edge) = inherited_edge(&candidates, named_id.as_ref(), now)? else { return Ok(None) };
        // A longer lineage could be stored but never used: no mint and no verifier accepts it.
        if delegations::lineage(tx, &edge.id, MAX_LINEAGE).await?.len() >= MAX_LINEAGE {
            return Err(StartRefused::DepthLimit);
        }
        Ok(Some(edge.clone()))
    }

    async fn add(
        &self,
        tx: &mut ZoneWrite<'_>,
        anchor: AuthorityRecordId,
        parent: Option<Parent>,
        inherited: Option<Edge>,
    ) -> Result<Answer, StartRefused> {
        let now = tx.now();
        let service = self.wanted.lifecycle == Lifecycle::Service;
        let session = SessionRow {
            zone_id: tx.zone().clone(),
            id: new_id(now)?,
            application_id: self.application.clone(),
            parent_id: parent.as_ref().map(|parent| parent.facts.id.clone()),
            subject_record_id: anchor,
            lifecycle: self.wanted.lifecycle.as_str().to_owned(),
            labels: self.wanted.labels.clone(),
            metadata: self.wanted.metadata.clone(),
            status: "active".to_owned(),
            depth: parent.as_ref().map_or(0, |parent| i64::from(parent.depth)),
            ttl_seconds: self.wanted.ttl_seconds.map(i64::from),
            started_at: now,
            last_active_at: now,
            last_heartbeat_at: service.then_some(now),
            heartbeat_deadline_at: service.then(|| now.plus(self.limits.lease)),
            lease_generation: i64::from(service),
            terminated_at: None,
            termination_reason: None,
            updated_at: now,
        };
        sessions::add(tx, &session).await?;
        events::spawned(tx, &session.id, session.parent_id.as_ref(), &session.application_id)
            .await
            .map_err(Outage::from)?;
        let edge = match inherited {
            Some(parent) => {
                // Constraints that can't be read lend nothing that could be repeated.
                let mirrored = mirror(&parent, &session.id).map_err(|_| InheritFault::NotActive)?;
                Some(self.add_mirror(tx, &mirrored, now).await?)
            }
            None => None,
        };
        let body = started_json(&session, edge.as_ref());
        if let Some(key) = &self.key {
            key.add_receipt(tx, session.id.as_str(), StatusCode::CREATED, &body).await?;
        }
        Ok(Answer::created(body, false))
    }

    async fn add_mirror(
        &self,
        tx: &mut ZoneWrite<'_>,
        mirrored: &NarrowedEdge,
        now: Timestamp,
    ) -> Result<EdgeId, StartRefused> {
        let id: EdgeId = new_id(now)?;
        let zone = tx.zone().clone();
        let broad = mirrored.edge().resource.is_none() && mirrored.edge().constraints.resources().is_empty();
        let reason = mirrored.edge().constraints.broad_reason().filter(|_| broad).map(str::to_owned);
        delegations::add(tx, &new_edge_row(id.clone(), &zone, mirrored, true, reason, now)).await?;
        let epoch = delegations::epoch(tx).await?;
        events::edge_created(tx, &id, &mirrored.edge().source, &mirrored.edge().target, epoch)
            .await
            .map_err(Outage::from)?;
        Ok(id)
    }
}

/// The first answer again, while the session it names still holds its place.
async fn replay(tx: &mut ZoneRead<'_>, receipt: &Receipt) -> Result<Answer, KeyRefused> {
    let now = tx.now();
    let session = match AgentSessionId::parse(&receipt.entity_id) {
        Ok(id) => sessions::lookup(tx, &id).await?,
        Err(_) => None,
    };
    let lives = match session {
        Some(session) => session.facts()?.holds_capacity(now),
        None => false,
    };
    if lives { Ok(Answer::created(remembered_body(receipt)?, true)) } else { Err(KeyRefused::ResultInactive) }
}

fn started_json(session: &SessionRow, edge: Option<&EdgeId>) -> Value {
    json!({
        "agent_session_id": session.id,
        "zone_id": session.zone_id,
        "application_id": session.application_id,
        "parent_id": session.parent_id,
        "subject_authority_record_id": session.subject_record_id,
        "lifecycle": session.lifecycle,
        "labels": session.labels,
        "status": session.status,
        "depth": session.depth,
        "ttl_seconds": session.ttl_seconds,
        "started_at": session.started_at,
        "last_heartbeat_at": instant(session.last_heartbeat_at),
        "heartbeat_deadline_at": instant(session.heartbeat_deadline_at),
        "lease_generation": session.lease_generation,
        "delegation_edge_id": edge,
    })
}
