//! `POST /v1/zones/{zone}/approvals/{id}/approve` and `…/reject`: an operator decides what waits for operators.
//!
//! One conditional write decides, so of two operators one has decided and the other is told so. With it commit the
//! management record, the event of the zone's chain, and the word that wakes who waits at the STS.

use std::sync::Arc;

use caracal_authority::approval::{Hold, NotForOperators, operator_may_decide};
use caracal_authority::{ApprovalId, EventId, OutboxId, Timestamp};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, Metadata, MetadataKey as Key};
use caracal_store::approvals::{self, Verdict};
use http::{Method, StatusCode};
use serde::Serialize;

use super::{MISSING, existing};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const APPROVE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/approvals/{id}/approve",
    needs: Needs::Approve,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(decide(admin, call, true)))),
    spec: Spec::shows::<Decided>("approvals.approve", "Approves what waits for a person.")
        .may_take("invalid_body", |body| reason(body).map(drop))
        .refuses(&[(404, "approval_not_found"), (403, "subject_approval_required"), (409, "approval_not_decidable")]),
};

pub(crate) const REJECT: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/approvals/{id}/reject",
    needs: Needs::Approve,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(decide(admin, call, false)))),
    spec: Spec::shows::<Decided>("approvals.reject", "Rejects what waits for a person.")
        .may_take("invalid_body", |body| reason(body).map(drop))
        .refuses(&[(404, "approval_not_found"), (403, "subject_approval_required"), (409, "approval_not_decidable")]),
};

struct Change {
    id: ApprovalId,
    verdict: Verdict,
    event: EventId,
    ledger: Ledger,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Decided<'d> {
        id: &'d ApprovalId,
        state: &'static str,
        satisfied_at: Option<Timestamp>,
        rejected_at: Option<Timestamp>,
        approver_subject_id: &'d str,
    }
}

fn reason(body: impl Into<Body>) -> Result<Option<String>, Mismatch> {
    Fields::of(body)?.text("reason", Text::exact(0, 500))
}

async fn decide(admin: Arc<Admin>, mut call: Call<InZone>, approved: bool) -> Result<Changed, Refusal> {
    let reason = match call.body.take() {
        None => None,
        body => reason(body).map_err(|mismatch| mismatch.refuse("invalid_body"))?,
    };
    // What has not the shape of an id names no approval.
    let id: ApprovalId = call.id("id")?;
    let approver = call.caller.approver();
    let change = Change {
        id: id.clone(),
        verdict: Verdict {
            approved,
            approver: approver.clone(),
            approver_record: None,
            reason: reason.filter(|reason| !reason.is_empty()),
            message: fresh::<OutboxId>(call.now)?,
        },
        event: fresh(call.now)?,
        ledger: admin.ledger.clone(),
        trace: call.trace,
    };
    let (at, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let hold = existing(tx, &change.id).await?.facts()?;
                let now = tx.now();
                operator_may_decide(&hold, now).map_err(refuse)?;
                if !approvals::decide(tx, &change.id, &change.verdict).await? {
                    return Err(Refusal::missing(MISSING));
                }
                change.ledger.record(tx, std::slice::from_ref(&change.evidence(&hold, now))).await?;
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((now, recorded))
            })
        })
        .await?;
    let decided = Decided {
        id: &id,
        state: if approved { "approved" } else { "rejected" },
        satisfied_at: approved.then_some(at),
        rejected_at: (!approved).then_some(at),
        approver_subject_id: &approver,
    };
    Ok(recorded.answer(&decided))
}

impl Change {
    /// The event of the zone's chain (contract: admin-api.md §10).
    fn evidence(&self, hold: &Hold, now: Timestamp) -> Evidence {
        let decision = if self.verdict.approved { Decision::Approved } else { Decision::Rejected };
        let (id, zone) = (self.event.clone(), hold.zone.clone());
        let metadata = Metadata::of_hold(hold)
            .without(Key::ExpiresAt)
            .with(Key::SessionId, hold.record.as_ref().map_or("", |id| id.as_str()))
            .with(Key::ApproverPlane, "operator")
            .with(Key::ApproverSubjectId, self.verdict.approver.as_str())
            .with_known(Key::Reason, self.verdict.reason.as_deref());
        Evidence::new(id, zone, EventType::StepUpDecided, decision, EvaluationStatus::Complete, now)
            .request(self.trace.request_id())
            .with_metadata(metadata)
    }
}

fn refuse(why: NotForOperators) -> Refusal {
    match why {
        NotForOperators::SubjectOnly => Refusal::forbidden("subject_approval_required")
            .describe("this approval waits for the user for whom the agent works"),
        NotForOperators::NotPending(state) => Refusal::conflict("approval_not_decidable")
            .describe(format!("the approval is {}", state.as_str()))
            .member("state", state.as_str()),
    }
}
