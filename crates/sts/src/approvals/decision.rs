//! `POST /approvals/{id}/decision`: the user for whom an agent works says yes or no (contract: sts.md §7.7).
//!
//! The user signed in through the application, which holds the session mandate of that sign-in, and shows it here with
//! what the user said. Who may is judged by [`subject_may_decide`]; this module reads what it needs, in the contract's
//! order of checks, and commits the decision with its evidence and with the word that wakes those who wait. As with a
//! mint, the commit insists on the zone version of the judgement: a sign-in that is revoked meanwhile decides nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::approval::{Hold, HoldState, NotTheirs, Presented, identity, subject_may_decide};
use caracal_authority::mandate::{Claims, Expected, MAX_TOKEN_BYTES, Use};
use caracal_authority::record::RecordFacts;
use caracal_authority::{ApprovalId, AuthorityRecordId, OutboxId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_custody::mandate::{VerifyError, verify};
use caracal_http::{Problem, body, form};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, Metadata, MetadataKey};
use caracal_store::approvals::{self, Verdict};
use caracal_store::{Named, StoreError, ZoneVersion, records, zones};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::status::not_found;
use super::{Told, approval_id};
use crate::evidence::event_id;
use crate::public_reads::{AskedFrom, Public};
use crate::routes::BEARER_CHALLENGE;
use crate::routes::unkept;
use crate::{ExchangeError, Sts};

/// What is said to who brought a bearer that is not accepted (RFC 6750 §3.1).
const NOT_A_MANDATE: &str = r#"Bearer realm="caracal-sts", error="invalid_token""#;
/// Longest reason, in bytes.
const LONGEST_REASON: usize = 500;
/// How often a judgement is made anew because its zone moved on.
const ATTEMPTS: usize = 16;

/// What the user said.
#[derive(Deserialize)]
struct Said {
    decision: Option<String>,
    binding: Option<String>,
    reason: Option<String>,
}

/// What the user said, well formed.
struct Saying {
    approved: bool,
    binding: String,
    reason: Option<String>,
}

/// Why nothing was decided.
enum NotDecided {
    /// 1, 6: no such hold, or a zone that was archived.
    NoSuchApproval,
    /// 2.
    NoBearer,
    /// 3 to 5.
    Malformed(&'static str),
    /// 7.
    NotAMandate,
    /// 8 to 15.
    NotTheirs(NotTheirs),
    /// The store, a key or randomness could not be had, or the zone never held still.
    Failed(ExchangeError),
}

impl<E: Into<ExchangeError>> From<E> for NotDecided {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

pub(crate) async fn decide(
    State(sts): State<Arc<Sts>>,
    from: AskedFrom,
    id: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    if let Err(limited) = sts.admit_public(Public::Approval, &from) {
        return limited.into_response();
    }
    let id = id.ok().and_then(|Path(id)| approval_id(&id));
    match sts.decide_approval(id, request).await {
        Ok(hold) => {
            let approved = hold.approved_at.is_some();
            if approved {
                sts.metrics.approved.up()
            } else {
                sts.metrics.rejected.up()
            }
            let state = if approved { HoldState::Approved } else { HoldState::Rejected };
            unkept(&Told::of(&hold.id, state, hold.expires_at))
        }
        Err(refused) => {
            if let NotDecided::NoBearer | NotDecided::NotAMandate = refused {
                sts.denials.count("sts", "approver_unauthenticated");
            }
            if let NotDecided::NotTheirs(_) = refused {
                sts.metrics.decisions_refused.up();
            }
            refused.into_response()
        }
    }
}

impl IntoResponse for NotDecided {
    fn into_response(self) -> Response {
        let problem = |status, code| Problem::new(status, code);
        let unauthenticated = |challenge, text: &str| {
            let mut response = problem(StatusCode::UNAUTHORIZED, "invalid_token").describe(text).into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            response
        };
        match self {
            Self::NoSuchApproval => not_found().into_response(),
            Self::NoBearer => unauthenticated(BEARER_CHALLENGE, "the session mandate of a user is needed as bearer"),
            Self::NotAMandate => {
                unauthenticated(NOT_A_MANDATE, "the bearer is no session mandate of the approval's zone")
            }
            Self::Malformed(what) => problem(StatusCode::BAD_REQUEST, "invalid_token").describe(what).into_response(),
            Self::NotTheirs(why) => {
                let status = if why.is_conflict() { StatusCode::CONFLICT } else { StatusCode::FORBIDDEN };
                problem(status, "access_denied").describe(why.to_string()).into_response()
            }
            Self::Failed(error) => Problem::from(error).into_response(),
        }
    }
}

/// What one judgement rests on, of one snapshot.
struct Judging {
    version: ZoneVersion,
    now: Timestamp,
    hold: Hold,
    record: Option<RecordFacts>,
    line: Vec<AuthorityRecordId>,
    requesting: Vec<Vec<AuthorityRecordId>>,
}

impl Sts {
    /// Carries one decision through. Numbers are those of §7.7.
    async fn decide_approval(&self, id: Option<ApprovalId>, request: Request<Body>) -> Result<Hold, NotDecided> {
        let id = id.ok_or(NotDecided::NoSuchApproval)?; // 1
        let (parts, body) = request.into_parts();
        let bearer = bearer(&parts.headers).ok_or(NotDecided::NoBearer)?; // 2
        let saying = self.saying(body).await?; // 3 to 5
        let zone = self.zone_of(&id).await?.ok_or(NotDecided::NoSuchApproval)?; // 6
        let claims = self.approver(&bearer, &zone).await?; // 7
        for _ in 0..ATTEMPTS {
            let judging = self.judging(&zone, &id, &claims).await?.ok_or(NotDecided::NoSuchApproval)?;
            let presented = Presented {
                claims: &claims,
                record: judging.record.as_ref(),
                line: &judging.line,
                requesting: &judging.requesting,
                binding: &saying.binding,
            };
            if let Err(why) = subject_may_decide(&judging.hold, &presented, judging.now) {
                self.record_refused(&zone, &judging, &claims, why).await?;
                return Err(NotDecided::NotTheirs(why));
            }
            if let Some(decided) = self.commit_decision(&zone, &judging, &claims, &saying).await? {
                return Ok(decided);
            }
        }
        Err(NotDecided::Failed(ExchangeError::Busy))
    }

    /// Checks 3 to 5.
    async fn saying(&self, body: Body) -> Result<Saying, NotDecided> {
        let malformed = NotDecided::Malformed;
        let bytes = body::read(body, form::MAX_BYTES, self.config.body_deadline).await;
        let bytes = bytes.map_err(|_| malformed("the body could not be read within 64 KiB"))?;
        let said: Said = serde_json::from_slice(&bytes).map_err(|_| malformed("the body is not a json object"))?;
        let approved = match said.decision.as_deref() {
            Some("approved") => true,
            Some("rejected") => false,
            _ => return Err(malformed("decision must be approved or rejected")),
        };
        let reason = said.reason.filter(|reason| !reason.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.len() > LONGEST_REASON || reason.contains('\0')) {
            return Err(malformed("reason must have at most 500 bytes, and none of them U+0000"));
        }
        Ok(Saying { approved, binding: said.binding.unwrap_or_default(), reason })
    }

    async fn zone_of(&self, id: &ApprovalId) -> Result<Option<ZoneId>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let found = approvals::find_anywhere(&mut snapshot.deployment(), std::slice::from_ref(id)).await?;
        Ok(found.into_iter().next().map(|row| row.zone_id))
    }

    /// Check 7: the claims of a session mandate of the zone, signed by it and in force.
    async fn approver(&self, bearer: &str, zone: &ZoneId) -> Result<Claims, NotDecided> {
        if bearer.len() > MAX_TOKEN_BYTES {
            return Err(NotDecided::NotAMandate);
        }
        let signed = match verify(self.keys.as_ref(), bearer).await {
            Ok(signed) => signed,
            Err(VerifyError::Unavailable(error)) => return Err(error.into()),
            Err(_) => return Err(NotDecided::NotAMandate),
        };
        let (issuer, audience) = (self.config.issuer.as_str(), self.config.issuer.as_str());
        let expected = Expected { issuer, audience, zone, r#use: Use::Session };
        signed.accept(&expected, self.store.now()).map_err(|_| NotDecided::NotAMandate)
    }

    async fn judging(&self, zone: &ZoneId, id: &ApprovalId, claims: &Claims) -> Result<Option<Judging>, StoreError> {
        let (version, mut snapshot) = self.store.decision_snapshot(zone, &Named::default()).await?;
        let now = snapshot.now();
        let mut tx = snapshot.zone(zone);
        // Nothing is decided in a zone that was archived (difference D19).
        let lives = zones::lookup(&mut tx).await?.is_some_and(|zone| zone.archived_at.is_none());
        let Some(row) = approvals::lookup(&mut tx, id).await?.filter(|_| lives) else { return Ok(None) };
        let hold = row.facts()?;
        let (mut record, mut line) = (None, Vec::new());
        if let Some(id) = &claims.record {
            record = records::lookup(&mut tx, id).await?.map(|row| row.facts()).transpose()?;
            line = records::line(&mut tx, id).await?;
        }
        let mut requesting = Vec::with_capacity(hold.requesting.len());
        for id in &hold.requesting {
            requesting.push(records::line(&mut tx, id).await?);
        }
        Ok(Some(Judging { version, now, hold, record, line, requesting }))
    }

    /// Check 15: the decision, its evidence and the word of it, or nothing. `None` if the judgement has become old.
    async fn commit_decision(
        &self,
        zone: &ZoneId,
        judging: &Judging,
        claims: &Claims,
        saying: &Saying,
    ) -> Result<Option<Hold>, NotDecided> {
        let hold = &judging.hold;
        let message = OutboxId::parse(&chance::uuid_v7(judging.now)?.to_string());
        let verdict = Verdict {
            approved: saying.approved,
            approver: identity(hold.privacy, zone, &claims.subject),
            approver_record: claims.record.clone(),
            reason: saying.reason.clone(),
            message: message.map_err(|_| ExchangeError::Internal)?,
        };
        let decision = if saying.approved { Decision::Approved } else { Decision::Rejected };
        let event = event(judging, EventType::StepUpDecided, decision, EvaluationStatus::Complete)?;
        let metadata = of_subject(hold, claims);
        let change = Change {
            version: judging.version,
            ledger: self.ledger.clone(),
            id: hold.id.clone(),
            verdict,
            event: event.with_metadata(metadata),
        };
        let done = self.store.commit(zone, change, |tx, change| {
            Box::pin(async move {
                if !tx.is_at(change.version).await? || !approvals::decide(tx, &change.id, &change.verdict).await? {
                    return Ok::<_, StoreError>(false);
                }
                change.ledger.record(tx, std::slice::from_ref(&change.event)).await?;
                Ok(true)
            })
        });
        if !done.await? {
            return Ok(None);
        }
        let at = Some(judging.now);
        let (approved_at, rejected_at) = if saying.approved { (at, None) } else { (None, at) };
        Ok(Some(Hold { approved_at, rejected_at, ..hold.clone() }))
    }

    /// Somebody whom the zone knows tried (difference D11).
    async fn record_refused(
        &self,
        zone: &ZoneId,
        judging: &Judging,
        claims: &Claims,
        why: NotTheirs,
    ) -> Result<(), NotDecided> {
        let kind = EventType::StepUpRefused;
        let event = event(judging, kind, Decision::Deny, EvaluationStatus::ApproverRefused)?;
        let event = event.with_metadata(of_subject(&judging.hold, claims).with(MetadataKey::Refusal, why.name()));
        let done = self.store.commit(zone, (self.ledger.clone(), event), |tx, (ledger, event)| {
            Box::pin(async move { ledger.record(tx, std::slice::from_ref(event)).await })
        });
        Ok(done.await.map_err(ExchangeError::from)?)
    }
}

struct Change {
    version: ZoneVersion,
    ledger: Arc<Ledger>,
    id: ApprovalId,
    verdict: Verdict,
    event: Evidence,
}

fn event(
    judging: &Judging,
    kind: EventType,
    decision: Decision,
    status: EvaluationStatus,
) -> Result<Evidence, ExchangeError> {
    let (hold, now) = (&judging.hold, judging.now);
    let event = Evidence::new(event_id(now)?, hold.zone.clone(), kind, decision, status, now);
    Ok(event.request(hold.id.as_str()))
}

/// What evidence says of a user who decided: the record, whatever the hold's privacy, and never the name.
fn of_subject(hold: &Hold, claims: &Claims) -> Metadata {
    let metadata = Metadata::of_hold(hold).with(MetadataKey::ApproverPlane, "subject");
    metadata.with_known(MetadataKey::ApproverSessionId, claims.record.as_ref().map(|id| id.as_str()))
}

/// The bearer of the request; its scheme is compared case by case (§7.7).
fn bearer(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let token = line.to_str().ok()?.strip_prefix("Bearer ")?.trim();
    (!token.is_empty()).then(|| Zeroizing::new(token.to_owned()))
}
