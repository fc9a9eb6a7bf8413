//! A hold as it is stored, recorded and told (contract: sts.md §7.3, §7.5, §16).

use std::sync::Arc;

use caracal_authority::ApprovalId;
use caracal_authority::Timestamp;
use caracal_authority::approval::{Hold, NewHold};
use caracal_authority::exchange::Outcome;
use caracal_crypto::chance;
use caracal_http::Problem;
use caracal_ledger::{Decision, EventType, Ledger};
use caracal_store::ZoneVersion;
use caracal_store::approvals::ApprovalRow;
use serde_json::{Map, Value, json};

use crate::ExchangeError;
use crate::commit::Raise;
use crate::evidence::Account;

/// Everything that raising `new` makes durable, but for the use of a presented mandate.
pub(crate) fn raise(
    version: ZoneVersion,
    ledger: &Arc<Ledger>,
    new: &NewHold,
    account: &Account<'_>,
    outcome: &Outcome,
) -> Result<Raise, ExchangeError> {
    let row = row(new, account.occurred_at)?;
    let hold = row.facts()?;
    let issued = account.of_hold(EventType::StepUpIssued, Decision::Pending, &hold, &outcome.context)?;
    Ok(Raise {
        version,
        ledger: ledger.clone(),
        used: None,
        evidence: account.of_outcome(outcome, None, Some(&hold))?,
        issued,
        row,
        request_id: account.request_id.to_owned(),
    })
}

/// The row of a hold that is raised at `now`.
pub(crate) fn row(new: &NewHold, now: Timestamp) -> Result<ApprovalRow, ExchangeError> {
    // Its id is a capability: whoever knows it may ask for its state.
    let id = ApprovalId::parse(&chance::uuid_v4()?.to_string()).map_err(|_| ExchangeError::Internal)?;
    Ok(ApprovalRow {
        zone_id: new.zone.clone(),
        id,
        principal_id: new.principal.clone(),
        principal_kind: new.principal_kind.as_str().to_owned(),
        record_id: new.record.clone(),
        application_id: new.application.clone(),
        agent_session_id: new.session.clone(),
        delegation_edge_id: new.delegation.clone(),
        requesting: new.requesting.clone(),
        tier: new.requirement.tier.clone(),
        approver_class: new.requirement.approver.as_str().to_owned(),
        privacy_mode: new.requirement.privacy.as_str().to_owned(),
        subject_anchor: new.subject_anchor.clone(),
        binding: new.binding.as_str().to_owned(),
        metadata: metadata(new),
        created_at: now,
        expires_at: now.plus(new.requirement.window),
        approved_at: None,
        rejected_at: None,
        approver_id: None,
        approver_record_id: None,
        decision_reason: None,
        consumed_at: None,
        consumed_record_id: None,
    })
}

/// What who decides is shown of the request (§7.5).
fn metadata(new: &NewHold) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut put = |name: &str, value: Value| metadata.insert(name.to_owned(), value);
    put("requested_scopes", json!(new.scopes));
    put("resources", json!(new.resources));
    if let Some(session) = &new.session {
        put("agent_session_id", json!(session));
    }
    if !new.labels.is_empty() {
        put("agent_labels", json!(new.labels));
    }
    if let Some(delegation) = &new.delegation {
        put("delegation_edge_id", json!(delegation));
    }
    if let Some(launch) = &new.launch {
        put("workload_id", json!(new.principal));
        put("workload_name", json!(launch.name));
        put("env", json!(launch.env));
    }
    put("policy_set_version_id", json!(new.policy.version));
    put("policy_manifest_sha", json!(new.policy.manifest));
    put("decision_contract_version", json!(new.policy.contract));
    put("decision_contract_sha", json!(new.policy.contract_sha));
    metadata
}

/// Adds what a caller needs to wait for `hold`, and to come back (§7.3). Who is told of one, is told of one that waits.
pub(crate) fn describe(problem: Problem, hold: &Hold) -> Problem {
    let problem = problem
        .member("approval_id", hold.id.as_str())
        .member("approval_type", "human_approval")
        .member("state", "pending")
        .member("binding", hold.binding.as_str())
        .member("approval_expires_at", hold.expires_at.to_seconds_text());
    if hold.tier.is_empty() { problem } else { problem.member("tier", hold.tier.as_str()) }
}
