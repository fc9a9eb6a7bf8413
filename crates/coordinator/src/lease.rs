//! `POST /zones/:zoneId/agents/:id/lease` and `…/heartbeat`: taking a service over, and going on running it
//! (contract: coordinator.md §5.2, §5.3). [`caracal_authority::lease`] judges; here it is written down.
//!
//! Heartbeats are what a Coordinator hears most, and nearly all of them change one row and nothing else. So a heartbeat
//! first runs beside all other changes of its zone ([`caracal_store::Store::commit_row`]): its statement repeats what it
//! relies on, and whatever came between finds it, or is found by it. Only when something is amiss, because the lease was
//! missed, the user is gone or the row moved in between, is it judged again in turn with the zone's other changes, which may
//! end or suspend the session. Its management record leaves with it, and is chained a moment later.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use caracal_authority::lease::{Consequence, LeaseFault, renew, take_over};
use caracal_authority::record::{SubjectKind, check_live};
use caracal_authority::session::{Lease, SessionStatus, TerminationReason};
use caracal_authority::{AgentSessionId, AuthorityRecordId, ServiceId};
use caracal_cascade::{Suspension, end_sessions};
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::agent_services::{self, AgentService};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{StoreError, ZoneRead, ZoneWrite, leases, records};
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::agent_services::service_json;
use crate::auth::IdentityRevoked;
use crate::evidence::{Caller, leave_success, record_success};
use crate::outage::Outage;
use crate::schema::{Fields, Issues};
use crate::wire::{Answer, instant, invalid_body, refusal};

/// What a service may say of its health.
const HEALTH: [(&str, &str); 4] =
    [("starting", "starting"), ("healthy", "healthy"), ("degraded", "degraded"), ("unhealthy", "unhealthy")];
/// Largest number that every reader of JSON keeps exactly.
const MAX_WHOLE: u64 = 9_007_199_254_740_991;

/// Why there is no lease, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum LeaseRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("no such session")]
    NotFound,
    #[error("the session is another application's")]
    Ownership,
    #[error(transparent)]
    Fault(#[from] LeaseFault),
    #[error("the mandate does not stand on a live authority record of the session's application")]
    NotHolder,
    #[error("no such service of the session's application")]
    ServiceNotFound,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for LeaseRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<LeaseRefused> for Problem {
    fn from(error: LeaseRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            LeaseRefused::Caller(revoked) => return revoked.into(),
            LeaseRefused::NotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            LeaseRefused::Ownership => (StatusCode::FORBIDDEN, "application_ownership_required"),
            LeaseRefused::Fault(fault) => (StatusCode::CONFLICT, fault.code()),
            LeaseRefused::NotHolder => (StatusCode::UNAUTHORIZED, "identity_revoked"),
            LeaseRefused::ServiceNotFound => (StatusCode::NOT_FOUND, "agent_service_not_found"),
            LeaseRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

/// A heartbeat's body.
#[derive(Debug, Clone)]
struct Heartbeat {
    generation: u64,
    active_invocations: u64,
    /// The service it speaks for, and what it says of it.
    service: Option<String>,
    health: &'static str,
    metadata: Map<String, Value>,
}

/// What is wanted of a lease.
#[derive(Debug, Clone)]
enum Wish {
    TakeOver,
    Renew(Heartbeat),
}

#[derive(Clone)]
struct Request {
    caller: Arc<Caller>,
    ledger: Ledger,
    id: AgentSessionId,
    wish: Wish,
    length: Duration,
}

/// What became of a request that runs beside the zone's other changes.
enum Aside {
    Renewed(Answer),
    /// Not to be decided here.
    InTurn,
}

/// Takes a service over: the next generation holds it from now on.
pub(crate) async fn take_over_lease(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
) -> Result<Answer, Problem> {
    in_turn(coordinator, Request::new(coordinator, caller, id, Wish::TakeOver)).await
}

/// Goes on holding a service.
pub(crate) async fn heartbeat(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let wish = Wish::Renew(read(body).map_err(|issues| invalid_body(&issues))?);
    let request = Request::new(coordinator, caller, id, wish);
    let zone = request.caller.principal.zone().clone();
    let aside: Result<Aside, LeaseRefused> = coordinator
        .store
        .commit_row(&zone, request.id.as_str(), request.clone(), |tx, request| Box::pin(request.aside(tx)))
        .await;
    match aside? {
        Aside::Renewed(answer) => Ok(answer),
        Aside::InTurn => in_turn(coordinator, request).await,
    }
}

async fn in_turn(coordinator: &Coordinator, request: Request) -> Result<Answer, Problem> {
    let zone = request.caller.principal.zone().clone();
    let outcome: Result<Result<Answer, LeaseFault>, LeaseRefused> =
        coordinator.store.commit(&zone, request, |tx, request| Box::pin(request.in_turn(tx))).await;
    // A fault that ended or suspended something was committed with what it did; only then is it a refusal.
    Ok(outcome?.map_err(LeaseRefused::from)?)
}

fn read(body: Option<&Value>) -> Result<Heartbeat, Issues> {
    let mut fields = Fields::of(body)?;
    let generation = fields.optional_whole("lease_generation", 1..=MAX_WHOLE);
    if fields.raw("lease_generation").is_none() {
        fields.fault("lease_generation", None, "required");
    }
    let health = fields.optional_choice("status", &HEALTH).unwrap_or("healthy");
    let active_invocations = fields.optional_whole("active_invocations", 0..=MAX_WHOLE).unwrap_or(0);
    let metadata = fields.object("metadata");
    let service = fields.optional_text("service_id", 0);
    fields.finish()?;
    Ok(Heartbeat { generation: generation.unwrap_or(0), active_invocations, service, health, metadata })
}

impl Request {
    fn new(coordinator: &Coordinator, caller: Arc<Caller>, id: AgentSessionId, wish: Wish) -> Self {
        let (ledger, length) = (coordinator.ledger.clone(), coordinator.config.service_lease);
        Self { caller, ledger, id, wish, length }
    }

    /// A renewal beside the zone's other changes, if there is nothing else to it.
    async fn aside(&self, tx: &mut ZoneWrite<'_>) -> Result<Aside, LeaseRefused> {
        let session = self.session(tx).await?;
        let lease = match self.judge(tx, &session).await? {
            Ok(lease) => lease,
            Err(fault) if fault.consequence() == Consequence::None => return Err(fault.into()),
            Err(_) => return Ok(Aside::InTurn),
        };
        self.check_holder(tx, &session).await?;
        let merges = matches!(&self.wish, Wish::Renew(beat) if beat.service.is_some() && !beat.metadata.is_empty());
        // Members are merged with those that are there, which somebody else may be changing.
        if merges || !leases::renew(tx, &self.id, lease).await? {
            return Ok(Aside::InTurn);
        }
        let answer = self.answer(tx, &session, lease).await?;
        leave_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
        Ok(Aside::Renewed(answer))
    }

    /// The whole of it, in turn with the zone's other changes. `Err` within is a fault whose consequence was written.
    async fn in_turn(&self, tx: &mut ZoneWrite<'_>) -> Result<Result<Answer, LeaseFault>, LeaseRefused> {
        let session = self.session(tx).await?;
        let lease = match self.judge(tx, &session).await? {
            Ok(lease) => lease,
            Err(fault) => {
                match fault.consequence() {
                    Consequence::None => return Err(fault.into()),
                    Consequence::End => {
                        let reason = TerminationReason::SubjectAuthorityInactive;
                        end_sessions(tx, &[session], &reason).await.map_err(Outage::from)?;
                    }
                    Consequence::Suspend => {
                        let why = Suspension::HeartbeatLost;
                        caracal_cascade::suspend(tx, &session, why).await.map_err(Outage::from)?;
                    }
                }
                return Ok(Err(fault));
            }
        };
        self.check_holder(tx, &session).await?;
        let written = match self.wish {
            Wish::TakeOver => leases::take_over(tx, &self.id, lease).await?,
            Wish::Renew(_) => leases::renew(tx, &self.id, lease).await?,
        };
        if !written {
            // Only renewals run beside this, and none of them makes a lease that is good worse.
            let what = format!("the lease of `{}` can't be moved", self.id);
            return Err(StoreError::Corrupt { table: "agent_sessions", what }.into());
        }
        let answer = self.answer(tx, &session, lease).await?;
        record_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
        Ok(Ok(answer))
    }

    async fn session(&self, tx: &mut ZoneRead<'_>) -> Result<SessionRow, LeaseRefused> {
        let principal = &self.caller.principal;
        principal.check_alive(tx).await??;
        let session = sessions::lookup(tx, &self.id).await?.ok_or(LeaseRefused::NotFound)?;
        if principal.may_for("coordinator.spawn_for", session.application_id.as_str()) {
            Ok(session)
        } else {
            Err(LeaseRefused::Ownership)
        }
    }

    async fn judge(
        &self,
        tx: &mut ZoneRead<'_>,
        session: &SessionRow,
    ) -> Result<Result<Lease, LeaseFault>, StoreError> {
        let now = tx.now();
        let facts = session.facts()?;
        let subject = records::lookup(tx, &session.subject_record_id).await?;
        let subject = subject.map(|record| record.facts()).transpose()?;
        Ok(match &self.wish {
            Wish::TakeOver => take_over(&facts, subject.as_ref(), now, self.length),
            Wish::Renew(beat) => renew(&facts, subject.as_ref(), beat.generation, now, self.length),
        })
    }

    /// A service is run by its own application: the record behind the mandate has to be that application's, not a user's
    /// and not one of whoever may start sessions for it.
    async fn check_holder(&self, tx: &mut ZoneRead<'_>, session: &SessionRow) -> Result<(), LeaseRefused> {
        let now = tx.now();
        let held: Option<AuthorityRecordId> = self.caller.principal.application().map(|own| own.record.clone());
        let held = held.ok_or(LeaseRefused::NotHolder)?;
        let record = records::lookup(tx, &held).await?.ok_or(LeaseRefused::NotHolder)?.facts()?;
        let own = record.kind == SubjectKind::Application && record.subject == session.application_id.as_str();
        if own && check_live(&record, now).is_ok() { Ok(()) } else { Err(LeaseRefused::NotHolder) }
    }

    async fn answer(&self, tx: &mut ZoneWrite<'_>, session: &SessionRow, lease: Lease) -> Result<Answer, LeaseRefused> {
        let (now, deadline) = (tx.now(), instant(Some(lease.deadline)));
        Ok(Answer::ok(match &self.wish {
            Wish::TakeOver => json!({
                "status": SessionStatus::Active.as_str(),
                "heartbeat_deadline_at": deadline,
                "lease_generation": lease.generation,
            }),
            Wish::Renew(beat) => json!({
                "agent": {
                    "id": session.id,
                    "zone_id": session.zone_id,
                    "application_id": session.application_id,
                    "status": session.status,
                    "last_active_at": now,
                    "last_heartbeat_at": now,
                    "heartbeat_deadline_at": deadline,
                    "lease_generation": lease.generation,
                },
                "service": beat.note_service(tx, session).await?,
                "active_invocations": beat.active_invocations,
            }),
        }))
    }
}

impl Heartbeat {
    /// Notes what the heartbeat says of the service it speaks for, if it names one: one of the session's own application.
    async fn note_service(&self, tx: &mut ZoneWrite<'_>, session: &SessionRow) -> Result<Value, LeaseRefused> {
        let Some(named) = &self.service else { return Ok(Value::Null) };
        let id = ServiceId::parse(named).map_err(|_| LeaseRefused::ServiceNotFound)?;
        let service = agent_services::lookup(tx, &id).await?;
        let mut service = service
            .filter(|service| service.application_id == session.application_id)
            .ok_or(LeaseRefused::ServiceNotFound)?;
        service.metadata.extend(self.metadata.clone());
        let metadata = (!self.metadata.is_empty()).then_some(&service.metadata);
        if !agent_services::note_heartbeat(tx, &id, self.health, metadata).await? {
            return Err(LeaseRefused::ServiceNotFound);
        }
        let now = tx.now();
        let heard = AgentService { health: self.health.to_owned(), last_heartbeat_at: Some(now), ..service };
        Ok(service_json(&heard))
    }
}
