//! `POST /zones/:zoneId/delegations`: one session lends another a part of what it may do
//! (contract: coordinator.md §6.2, §6.3).
//!
//! What may be lent is decided by `authority`'s narrowing alone; here its facts are gathered, in the order in which the
//! contract reports what is wrong. Decision and edge are one commit, so two edges that would close a circle together
//! cannot both be made, and none can be made under an edge that is being revoked.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use caracal_authority::delegation::{
    ConstraintFault, Constraints, Edge, Link, MAX_LINEAGE, NarrowedEdge, ParentFault, ProposedEdge, WidenedDimension,
    choose_parent, closes_cycle, expiry, narrow, parse_date_time,
};
use caracal_authority::resource::{ResourceIdentifier, ResourceRef};
use caracal_authority::scope::{Scope, Scopes};
use caracal_authority::session::{SessionFacts, TTL_SECONDS};
use caracal_authority::{AgentSessionId, EdgeId, Timestamp};
use caracal_cascade::{events, link};
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::delegations::EdgeRow;
use caracal_store::receipts::Receipt;
use caracal_store::resources::{self, Resource};
use caracal_store::{StoreError, ZoneRead, ZoneWrite, delegations, sessions};
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::auth::{IdentityRevoked, Principal};
use crate::delegation_reads::edge_json;
use crate::evidence::{Caller, record_success};
use crate::facts::{application_id, edge_id, inbound, new_edge_row, session_id};
use crate::idempotency::{BadKey, KeyRefused, Keyed, Operation, remembered_body};
use crate::outage::{Outage, new_id};
use crate::schema::{Fields, Issues};
use crate::wire::{Answer, invalid_body, refusal};

const BROAD_WARNING: &str = "resource_null_delegation_broadens_resource_matching";

/// A request body that matches the schema, its constraints normalised.
#[derive(Debug, Clone)]
struct Wanted {
    source: String,
    target: String,
    issuer: String,
    receiver: String,
    parent: Option<String>,
    resource: Option<String>,
    scopes: Scopes,
    constraints: Constraints,
    date: Option<Timestamp>,
    ttl_seconds: Option<u32>,
}

impl Wanted {
    /// Whether it names no resource at all, and so reaches all of them.
    fn is_broad(&self) -> bool {
        self.resource.is_none() && self.constraints.resources().is_empty()
    }
}

/// Why no delegation is made, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum DelegateRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("the body does not match the schema")]
    Body(Issues),
    #[error(transparent)]
    Constraint(#[from] ConstraintFault),
    #[error("a delegation needs an end")]
    ExpiryRequired,
    #[error("the issuer is another application")]
    IssuerOwnership,
    #[error("a session cannot delegate to itself")]
    ToItself,
    #[error("a delegation without a resource needs a permission of its own")]
    BroadPermission,
    #[error(transparent)]
    BadKey(#[from] BadKey),
    #[error(transparent)]
    Key(#[from] KeyRefused),
    #[error("the source or target session does not exist or is not live")]
    EndpointNotFound,
    #[error("a session is not the named application's")]
    ApplicationMismatch,
    #[error("no such resource")]
    ResourceNotFound,
    #[error("the resource is not among the named resources")]
    ResourceScopeMismatch,
    #[error("a scope is not one of the named resources'")]
    ScopesExceedResource,
    #[error(transparent)]
    Parent(#[from] ParentFault),
    #[error("{0}")]
    Widened(#[from] WidenedDimension),
    #[error("the lineage would have more than {MAX_LINEAGE} delegations")]
    LineageTooLong,
    #[error("the delegation would close a circle")]
    Cycle,
    #[error("the delegation would have ended before it began")]
    Expired {
        /// Whether it would come from another delegation.
        derived: bool,
    },
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for DelegateRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<DelegateRefused> for Problem {
    fn from(error: DelegateRefused) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let (status, code) = match error {
            DelegateRefused::Caller(revoked) => return revoked.into(),
            DelegateRefused::Body(issues) => return invalid_body(&issues),
            DelegateRefused::BadKey(bad) => return bad.into(),
            DelegateRefused::Key(refused) => return refused.into(),
            DelegateRefused::Outage(outage) => return outage.problem(),
            DelegateRefused::Constraint(fault) => (S::BAD_REQUEST, fault.code()),
            DelegateRefused::ExpiryRequired => (S::BAD_REQUEST, "delegation_expiry_required"),
            DelegateRefused::IssuerOwnership => (S::FORBIDDEN, "issuer_ownership_required"),
            DelegateRefused::ToItself => (S::BAD_REQUEST, "self_delegation_denied"),
            DelegateRefused::BroadPermission => (S::FORBIDDEN, "broad_delegation_permission_required"),
            DelegateRefused::EndpointNotFound => (S::NOT_FOUND, "delegation_endpoint_not_found"),
            DelegateRefused::ApplicationMismatch => (S::CONFLICT, "delegation_application_mismatch"),
            DelegateRefused::ResourceNotFound => (S::NOT_FOUND, "resource_not_found"),
            DelegateRefused::ResourceScopeMismatch => (S::BAD_REQUEST, "delegation_resource_scope_mismatch"),
            DelegateRefused::ScopesExceedResource => (S::FORBIDDEN, "delegation_scopes_exceed_resource"),
            DelegateRefused::Parent(ParentFault::NotActive) => (S::FORBIDDEN, ParentFault::NotActive.code()),
            DelegateRefused::Parent(ParentFault::Ambiguous) => (S::CONFLICT, ParentFault::Ambiguous.code()),
            DelegateRefused::Widened(_)
            | DelegateRefused::LineageTooLong
            | DelegateRefused::Expired { derived: true } => (S::FORBIDDEN, "delegation_exceeds_parent_authority"),
            DelegateRefused::Cycle => (S::CONFLICT, "delegation_cycle_denied"),
            DelegateRefused::Expired { derived: false } => (S::BAD_REQUEST, "delegation_expired"),
        };
        refusal(status, code).describe(message)
    }
}

/// Makes a delegation.
pub(crate) async fn delegate(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let wanted = read(body)?;
    let Some(own) = caller.principal.application() else {
        return Err(refusal(StatusCode::UNAUTHORIZED, "invalid_token"));
    };
    check_permission(&caller.principal, &wanted)?;
    let issuer = application_id(&wanted.issuer).ok_or(DelegateRefused::EndpointNotFound)?;
    let key = Keyed::read(headers, &coordinator.config, Operation::CreateDelegation, &issuer, own, content(&wanted))
        .map_err(DelegateRefused::from)?;
    let zone = caller.principal.zone().clone();
    let delegate = Delegate { caller, ledger: coordinator.ledger.clone(), wanted, key };
    let made: Result<Answer, DelegateRefused> =
        coordinator.store.commit(&zone, delegate, |tx, delegate| Box::pin(delegate.commit(tx))).await;
    Ok(made?)
}

fn read(body: Option<&Value>) -> Result<Wanted, DelegateRefused> {
    let mut fields = Fields::of(body).map_err(DelegateRefused::Body)?;
    let source = fields.required_text("source_session_id");
    let target = fields.required_text("target_session_id");
    let issuer = fields.required_text("issuer_application_id");
    let receiver = fields.required_text("receiver_application_id");
    let parent = fields.optional_text("parent_edge_id", 1);
    let resource = fields.nullable_text("resource_id", 1);
    let listed = fields.text_list("scopes");
    let mut scopes = Vec::with_capacity(listed.len());
    for (index, text) in listed.into_iter().enumerate() {
        match Scope::parse(text) {
            Ok(scope) => scopes.push(scope),
            Err(_) => fields.fault("scopes", Some(index), "must be non-empty text without control characters"),
        }
    }
    let date = fields.optional_text("expires_at", 0).and_then(|text| {
        let date = parse_date_time(&text);
        if date.is_none() {
            fields.fault("expires_at", None, "expected an instant in UTC");
        }
        date
    });
    let bounds = u64::from(*TTL_SECONDS.start())..=u64::from(*TTL_SECONDS.end());
    let ttl_seconds = fields.optional_whole("ttl_seconds", bounds).and_then(|ttl| u32::try_from(ttl).ok());
    let constraints = constraints(&fields);
    fields.finish().map_err(DelegateRefused::Body)?;
    let constraints = Constraints::parse(&constraints?)?.with_default_ttl(ttl_seconds);
    let mut wanted = Wanted {
        source,
        target,
        issuer,
        receiver,
        parent,
        resource,
        scopes: Scopes::from_list(scopes),
        constraints,
        date,
        ttl_seconds,
    };
    if expiry(Timestamp::EPOCH, wanted.date, wanted.ttl_seconds, &wanted.constraints).is_none() {
        return Err(DelegateRefused::ExpiryRequired);
    }
    if wanted.is_broad() {
        wanted.constraints = wanted.constraints.marked_broad();
    }
    Ok(wanted)
}

/// Both spellings merged key by key; `constraints` wins.
fn constraints(fields: &Fields<'_>) -> Result<Map<String, Value>, ConstraintFault> {
    let mut merged = Map::new();
    for name in ["constraints_json", "constraints"] {
        match fields.raw(name) {
            None => {}
            Some(Value::Object(members)) => merged.extend(members.clone()),
            Some(_) => return Err(ConstraintFault::Unknown),
        }
    }
    Ok(merged)
}

/// Rows 2 to 4 of the contract's table: what needs no store.
fn check_permission(principal: &Principal, wanted: &Wanted) -> Result<(), DelegateRefused> {
    if !principal.may_for("coordinator.delegate_from", &wanted.issuer) {
        return Err(DelegateRefused::IssuerOwnership);
    }
    if wanted.source == wanted.target {
        return Err(DelegateRefused::ToItself);
    }
    let broad_allowed = principal.is_admin()
        || principal.holds("coordinator.delegate_broad")
        || principal.holds(&format!("coordinator.delegate_broad:{}", wanted.issuer));
    if wanted.is_broad() && !broad_allowed { Err(DelegateRefused::BroadPermission) } else { Ok(()) }
}

/// What makes two requests the same (contract: coordinator.md §10): the order of scopes does not.
fn content(wanted: &Wanted) -> Value {
    let mut scopes: Vec<&str> = wanted.scopes.listed().iter().map(Scope::as_str).collect();
    scopes.sort_unstable();
    json!({
        "source_session_id": wanted.source,
        "target_session_id": wanted.target,
        "issuer_application_id": wanted.issuer,
        "receiver_application_id": wanted.receiver,
        "parent_edge_id": wanted.parent,
        "resource_id": wanted.resource,
        "scopes": scopes,
        "constraints": wanted.constraints.to_json(),
        "expires_at": wanted.date,
        "ttl_seconds": wanted.ttl_seconds,
    })
}

/// One delegation, ready to be decided and written.
struct Delegate {
    caller: Arc<Caller>,
    ledger: Ledger,
    wanted: Wanted,
    key: Option<Keyed>,
}

/// What a delegation names, found.
struct Named {
    resource: Option<ResourceRef>,
    /// Every identifier it names, by row or in constraints, each once.
    identifiers: Vec<ResourceIdentifier>,
}

impl Delegate {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<Answer, DelegateRefused> {
        self.caller.principal.check_alive(tx).await??;
        let answer = self.decide(tx).await?;
        record_success(tx, &self.ledger, &self.caller, answer.status.as_u16()).await?;
        Ok(answer)
    }

    async fn decide(&self, tx: &mut ZoneWrite<'_>) -> Result<Answer, DelegateRefused> {
        if let Some(key) = &self.key
            && let Some(receipt) = key.find_receipt(tx).await?
        {
            return Ok(replay(tx, &receipt).await?);
        }
        let now = tx.now();
        let (source, target) = self.endpoints(tx).await?;
        let named = self.resources(tx).await?;
        let inbound = inbound(tx, &source.id).await?;
        let named_parent = self.named_parent()?;
        let parent = choose_parent(&inbound, named_parent.as_ref(), now)?;
        let proposed = ProposedEdge {
            source: source.id.clone(),
            target: target.id.clone(),
            issuer: source.application.clone(),
            receiver: target.application.clone(),
            resource: named.resource.clone(),
            scopes: self.wanted.scopes.clone(),
            constraints: self.wanted.constraints.clone(),
            expires_at: expiry(now, self.wanted.date, self.wanted.ttl_seconds, &self.wanted.constraints)
                .ok_or(DelegateRefused::ExpiryRequired)?,
        };
        let narrowed = match parent {
            None => NarrowedEdge::root(proposed),
            Some(parent) => narrow(parent, &proposed)?,
        };
        if let Some(parent) = parent
            && delegations::lineage(tx, &parent.id, MAX_LINEAGE).await?.len() >= MAX_LINEAGE
        {
            return Err(DelegateRefused::LineageTooLong);
        }
        if closes_cycle(&lending_on(tx, &target.id, now).await?, &source.id, &target.id) {
            return Err(DelegateRefused::Cycle);
        }
        if narrowed.edge().expires_at <= now {
            return Err(DelegateRefused::Expired { derived: parent.is_some() });
        }
        self.add(tx, &narrowed, &named, &inbound).await
    }

    /// Rows 6 and 7.
    async fn endpoints(&self, tx: &mut ZoneRead<'_>) -> Result<(SessionFacts, SessionFacts), DelegateRefused> {
        let source = endpoint(tx, &self.wanted.source).await?;
        let target = endpoint(tx, &self.wanted.target).await?;
        let fit =
            source.application.as_str() == self.wanted.issuer && target.application.as_str() == self.wanted.receiver;
        if fit { Ok((source, target)) } else { Err(DelegateRefused::ApplicationMismatch) }
    }

    /// Rows 8 to 10. A row is named by its id or by its identifier, in constraints by the identifier alone.
    async fn resources(&self, tx: &mut ZoneRead<'_>) -> Result<Named, DelegateRefused> {
        let mut found: Vec<Resource> = Vec::new();
        let mut resource = None;
        if let Some(name) = &self.wanted.resource {
            let row = resources::find_by_name(tx, name).await?.ok_or(DelegateRefused::ResourceNotFound)?;
            resource = Some(reference(&row)?);
            found.push(row);
        }
        for name in self.wanted.constraints.resources() {
            let row = resources::find_by_name(tx, name.as_str()).await?;
            let row = row.filter(|row| row.identifier == name.as_str()).ok_or(DelegateRefused::ResourceNotFound)?;
            if found.iter().all(|known| known.id != row.id) {
                found.push(row);
            }
        }
        let listed = self.wanted.constraints.resources();
        if let Some(resource) = &resource
            && !listed.is_empty()
            && !listed.contains(&resource.identifier)
        {
            return Err(DelegateRefused::ResourceScopeMismatch);
        }
        let held: HashSet<&str> = found.iter().flat_map(|row| row.scopes.iter().map(String::as_str)).collect();
        if !found.is_empty() && !self.wanted.scopes.distinct().iter().all(|scope| held.contains(scope.as_str())) {
            return Err(DelegateRefused::ScopesExceedResource);
        }
        let identifiers =
            found.iter().map(|row| Ok(reference(row)?.identifier)).collect::<Result<_, DelegateRefused>>()?;
        Ok(Named { resource, identifiers })
    }

    /// Text that can't be an id names no edge, and so no live one.
    fn named_parent(&self) -> Result<Option<EdgeId>, ParentFault> {
        self.wanted.parent.as_deref().map(|named| edge_id(named).ok_or(ParentFault::NotActive)).transpose()
    }

    async fn add(
        &self,
        tx: &mut ZoneWrite<'_>,
        narrowed: &NarrowedEdge,
        named: &Named,
        inbound: &[Edge],
    ) -> Result<Answer, DelegateRefused> {
        let now = tx.now();
        let (id, zone): (EdgeId, _) = (new_id(now)?, tx.zone().clone());
        let broad = self.wanted.is_broad();
        let reason = narrowed.edge().constraints.broad_reason().filter(|_| broad).map(str::to_owned);
        let row = new_edge_row(id, &zone, narrowed, false, reason, now);
        delegations::add(tx, &row).await?;
        let epoch = delegations::epoch(tx).await?;
        events::edge_created(tx, &row.id, &row.source_session_id, &row.target_session_id, epoch)
            .await
            .map_err(Outage::from)?;
        let live = inbound.iter().filter(|edge| edge.is_live(now)).map(|edge| edge.id.clone()).collect::<Vec<_>>();
        let body = created_json(&row, narrowed, named, broad, &live);
        if let Some(key) = &self.key {
            key.add_receipt(tx, row.id.as_str(), StatusCode::CREATED, &body).await?;
        }
        Ok(Answer::created(body, false))
    }
}

async fn endpoint(tx: &mut ZoneRead<'_>, named: &str) -> Result<SessionFacts, DelegateRefused> {
    let now = tx.now();
    let id = session_id(named).ok_or(DelegateRefused::EndpointNotFound)?;
    let row = sessions::lookup(tx, &id).await?.ok_or(DelegateRefused::EndpointNotFound)?;
    let facts = row.facts()?;
    if facts.is_active(now) { Ok(facts) } else { Err(DelegateRefused::EndpointNotFound) }
}

fn reference(row: &Resource) -> Result<ResourceRef, DelegateRefused> {
    let identifier = ResourceIdentifier::parse(&row.identifier).map_err(|_| StoreError::Corrupt {
        table: "resources",
        what: format!("`{}`: unreadable identifier", row.id),
    })?;
    Ok(ResourceRef { id: row.id.clone(), identifier })
}

/// Every edge that lends something now and can be reached from `start`: what a new edge to it could close a circle with.
async fn lending_on(
    tx: &mut ZoneRead<'_>,
    start: &AgentSessionId,
    now: Timestamp,
) -> Result<Vec<Link>, DelegateRefused> {
    let mut seen = HashSet::from([start.clone()]);
    let mut next = vec![start.clone()];
    let mut links = Vec::new();
    while let Some(session) = next.pop() {
        for row in delegations::list_active_from(tx, &session).await? {
            if row.expires_at > now {
                if seen.insert(row.target_session_id.clone()) {
                    next.push(row.target_session_id.clone());
                }
                links.push(link(&row));
            }
        }
    }
    Ok(links)
}

/// The first answer again, while the delegation is live.
async fn replay(tx: &mut ZoneRead<'_>, receipt: &Receipt) -> Result<Answer, KeyRefused> {
    let now = tx.now();
    let edge = match EdgeId::parse(&receipt.entity_id) {
        Ok(id) => delegations::lookup(tx, &id).await?,
        Err(_) => None,
    };
    let lives = edge.is_some_and(|edge| edge.status == "active" && edge.expires_at > now);
    if lives { Ok(Answer::created(remembered_body(receipt)?, true)) } else { Err(KeyRefused::ResultInactive) }
}

fn created_json(row: &EdgeRow, narrowed: &NarrowedEdge, named: &Named, broad: bool, considered: &[EdgeId]) -> Value {
    let constraints = &narrowed.edge().constraints;
    let warnings: &[&str] = if broad { &[BROAD_WARNING] } else { &[] };
    let mut body = edge_json(row, "delegation_edge_id");
    body.insert("warnings".to_owned(), json!(warnings));
    body.insert(
        "allow_reason".to_owned(),
        json!([
            "same_zone_endpoints_active",
            if broad { "broad_delegation_elevated" } else { "resource_scope_checked" },
            if row.parent_edge_id.is_some() { "parent_authority_narrowed" } else { "source_authority_root" },
            "typed_constraints_validated",
        ]),
    );
    body.insert(
        "effective_authority".to_owned(),
        json!({
            "source_session_id": row.source_session_id,
            "target_session_id": row.target_session_id,
            "parent_edge_id": row.parent_edge_id,
            "resource_id": row.resource_id,
            "resources": named.identifiers,
            "scopes": row.scopes,
            "expires_at": row.expires_at,
            "max_hops": constraints.hops(),
            "ttl_seconds": constraints.ttl_seconds(),
            "broad": broad,
            "parent_edges_considered": considered,
        }),
    );
    Value::Object(body)
}
