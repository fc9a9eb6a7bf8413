//! Approvals on the operators' side (contract: admin-api.md §5.9). The STS raises and spends them; here an operator sees
//! what waits, and says yes or no.

pub(crate) mod counts;
pub(crate) mod decide;
pub(crate) mod list;
pub(crate) mod read;

use caracal_authority::approval::HoldState;
use caracal_authority::{ApplicationId, ApprovalId, AuthorityRecordId, Timestamp, ZoneId};
use caracal_store::approvals::{self, ApprovalRow};
use caracal_store::{StoreError, ZoneRead};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::openapi::shape::described;
use crate::problem::Refusal;

const MISSING: &str = "approval_not_found";

described! {
    /// A hold as answers show it.
    #[derive(Serialize)]
    struct View {
        id: ApprovalId,
        zone_id: ZoneId,
        session_id: Option<AuthorityRecordId>,
        principal_id: String,
        application_id: Option<ApplicationId>,
        approval_type: &'static str,
        tier: String,
        approver_class: String,
        privacy_mode: String,
        subject_anchor: Option<String>,
        binding: String,
        metadata_json: Map<String, Value>,
        decision_reason: Option<String>,
        created_at: Timestamp,
        expires_at: Timestamp,
        satisfied_at: Option<Timestamp>,
        rejected_at: Option<Timestamp>,
        consumed_at: Option<Timestamp>,
        approver_subject_id: Option<String>,
        principal_federated: bool,
        prior_approved: i64,
        prior_rejected: i64,
        state: &'static str,
    }
}

impl View {
    fn of(row: ApprovalRow, (prior_approved, prior_rejected): (i64, i64), now: Timestamp) -> Result<Self, StoreError> {
        let state = row.facts()?.state(now).as_str();
        Ok(Self {
            id: row.id,
            zone_id: row.zone_id,
            session_id: row.record_id,
            principal_federated: row.principal_kind == "user",
            principal_id: row.principal_id,
            application_id: row.application_id,
            approval_type: "human_approval",
            tier: row.tier,
            approver_class: row.approver_class,
            privacy_mode: row.privacy_mode,
            subject_anchor: row.subject_anchor,
            binding: row.binding,
            metadata_json: row.metadata,
            decision_reason: row.decision_reason,
            created_at: row.created_at,
            expires_at: row.expires_at,
            satisfied_at: row.approved_at,
            rejected_at: row.rejected_at,
            consumed_at: row.consumed_at,
            approver_subject_id: row.approver_id,
            prior_approved,
            prior_rejected,
            state,
        })
    }
}

/// Rows as answers show them.
async fn views(tx: &mut ZoneRead<'_>, rows: Vec<ApprovalRow>) -> Result<Vec<View>, StoreError> {
    let now = tx.now();
    let prior = approvals::count_prior(tx, &rows).await?;
    rows.into_iter().zip(prior).map(|(row, prior)| View::of(row, prior, now)).collect()
}

async fn existing(tx: &mut ZoneRead<'_>, id: &ApprovalId) -> Result<ApprovalRow, Refusal> {
    approvals::lookup(tx, id).await?.ok_or_else(|| Refusal::missing(MISSING))
}

fn names() -> Vec<&'static str> {
    HoldState::ALL.into_iter().map(HoldState::as_str).collect()
}
