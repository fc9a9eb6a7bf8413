//! The decision: fifteen rows, the first that holds decides (contract: policy.md §4).
//!
//! A delegated mint climbs rows 3 to 9: its classification must be readable before anything else, then the
//! application must own the resource, the delegation must cover the scopes, no confinement may stand against
//! them, and one single label must hold them all. Documents only ever narrow this: rows 1 to 8 deny, and what
//! row 9 allows, a tier can still hold for a human.

use crate::bundle::{Bundle, RootValues};
use crate::data::{Approvals, Data, DoublyClassified, Grant, Risk};
use crate::input::{ActionId, DelegationEdge, Input, LIFECYCLE_SCOPE, PrincipalKind, is_absent};
use crate::root::Root;
use crate::verdict::{Allowance, DenyReason, Verdict};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

const BOOTSTRAP_POLICY: &str = "caracal-bootstrap";
const WORKLOAD_POLICY: &str = "caracal-workload-mint";

/// An evaluation without an answer: the request ends with 503 `policy_eval_failed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// `risk` names a requested scope with two different tiers.
    #[error("scope `{scope}` is classified with more than one tier")]
    DoublyClassified {
        /// The scope.
        scope: String,
    },
    /// Documents of the bundle depend on the question, and were not evaluated for this one.
    #[error("the documents of the policy were not evaluated for this question")]
    NotEvaluated,
    /// The evaluation was given up.
    #[error("evaluating the documents of the policy took more than {} ms", most.as_millis())]
    TookTooLong {
        /// How long it may take.
        most: Duration,
    },
    /// Something became larger than a value may be.
    #[error("evaluating `{root}` made more of its data than fits a decision")]
    TooLarge {
        /// Which root.
        root: Root,
    },
    /// The engine has no answer.
    #[error("evaluating the documents of the policy failed: {0}")]
    Failed(String),
    /// What came out is no data of its root, or contradicts what is written.
    #[error("the documents of the policy came to no usable data: {0}")]
    Unusable(String),
    /// There was nobody to evaluate: too many evaluations wait, of this zone or of all.
    #[error("too many evaluations of policy documents are waiting")]
    Overloaded,
    /// The evaluation broke off.
    #[error("the evaluation of the documents of the policy broke off")]
    BrokenOff,
}

/// Decides one question by one bundle whose data do not depend on it. Pure: the same bundle and input always get the same
/// answer.
pub fn decide(bundle: &Bundle, input: &Input) -> Result<Verdict, EvaluationError> {
    if bundle.is_no_active_policy_set() {
        return deny(DenyReason::NoActivePolicySet);
    }
    if bundle.must_be_evaluated() {
        return Err(EvaluationError::NotEvaluated);
    }
    climb(&bundle.data, input)
}

/// Decides one question by one bundle, with what its documents came to for this very question.
pub fn decide_evaluated(bundle: &Bundle, values: &RootValues, input: &Input) -> Result<Verdict, EvaluationError> {
    climb(values.data_for(bundle, input).ok_or(EvaluationError::NotEvaluated)?, input)
}

fn climb(data: &Data, input: &Input) -> Result<Verdict, EvaluationError> {
    use DenyReason::*;

    let labels = &input.principal.labels;
    let wanted = &input.context.requested_scopes;
    let grant = data.grants.get(input.resource.identifier.as_str());
    let owned = grant.and_then(|grant| grant.owned_by(&input.principal.id).map(|owner| (grant, owner)));

    let bootstrap = is_bootstrap(input);
    let mint = mint_over(input);
    let workload = is_workload(input);
    let classified = (mint.is_some() || workload) && !bootstrap;

    // 1
    if data.frozen {
        return deny(RestrictionActive);
    }
    // 2. A workload whose id is also an application's would match row 10 as well: that row answers.
    if bootstrap && owned.is_some() && !workload {
        return allow(BOOTSTRAP_POLICY.into());
    }
    // 3, 4
    let malformed_risk = matches!(*data.risk, Risk::Malformed);
    let malformed_approvals = matches!(*data.approvals, Approvals::Malformed);
    if classified && malformed_risk {
        return deny(MalformedRiskData);
    }
    if classified && malformed_approvals {
        return deny(MalformedApprovalData);
    }
    // 5 to 9
    if let Some(edge) = mint {
        let Some((grant, owner)) = owned else {
            return deny(ResourceNotGranted);
        };
        if !all_within(wanted, &edge.scopes) {
            return deny(DelegationScopeExceeded);
        }
        if !data.confinement.permits(labels, wanted) {
            return deny(ConfinementViolation);
        }
        if !grant.covers(labels, wanted.iter().map(String::as_str)) {
            return deny(RoleScopeMismatch);
        }
        return allow_gated(data, owner.mint_policy.clone(), wanted);
    }
    // 10
    if workload && !malformed_risk && !malformed_approvals {
        return allow_gated(data, WORKLOAD_POLICY.into(), wanted);
    }
    // 11 to 14
    if let Some(presented) = presented(input) {
        if !presented.targets(&input.resource.identifier) {
            return deny(MandateTargetMismatch);
        }
        let Some((grant, owner)) = owned else {
            return deny(ResourceNotGranted);
        };
        if !presented.carried_within(grant, labels) {
            return deny(RoleScopeMismatch);
        }
        return allow(owner.use_policy.clone());
    }
    // 15
    deny(NoRuleMatched)
}

fn deny(reason: DenyReason) -> Result<Verdict, EvaluationError> {
    Ok(Verdict::Deny(reason))
}

fn allow(policy: Arc<str>) -> Result<Verdict, EvaluationError> {
    Ok(Verdict::Allow(Allowance { policy, step_up: None, risk: Vec::new() }))
}

/// An allowed mint with its diagnostics: perhaps held for a human (policy.md §4.4).
fn allow_gated(data: &Data, policy: Arc<str>, wanted: &[String]) -> Result<Verdict, EvaluationError> {
    let risk = data
        .risk
        .classify(wanted)
        .map_err(|DoublyClassified(scope)| EvaluationError::DoublyClassified { scope: scope.to_owned() })?;
    let step_up = data.approvals.step_up(&risk);
    Ok(Verdict::Allow(Allowance { policy, step_up, risk }))
}

/// No subject, no edge, no session: the request stands for itself.
fn stands_alone(input: &Input) -> bool {
    subject(input).is_none() && input.delegation_edge.is_none() && is_absent(&input.context.agent_session_id)
}

fn is_bootstrap(input: &Input) -> bool {
    let wanted = &input.context.requested_scopes;
    !wanted.is_empty() && wanted.iter().all(|scope| scope == LIFECYCLE_SCOPE) && stands_alone(input)
}

/// The edge a delegated mint goes over, `None` if the input is no such mint.
fn mint_over(input: &Input) -> Option<&DelegationEdge> {
    let wanted = &input.context.requested_scopes;
    let edge = input.delegation_edge.as_ref().filter(|edge| !edge.id.is_empty())?;
    let mint = !is_absent(&input.context.agent_session_id)
        && subject(input).is_none()
        && !wanted.is_empty()
        && wanted.iter().all(|scope| scope != LIFECYCLE_SCOPE);
    mint.then_some(edge)
}

fn is_workload(input: &Input) -> bool {
    input.principal.kind == PrincipalKind::Workload
        && input.action.id == ActionId::CredentialInjection
        && stands_alone(input)
}

fn subject(input: &Input) -> Option<&Map<String, Value>> {
    input.context.subject_claims.as_ref().filter(|claims| !claims.is_empty())
}

/// A mandate presented for use.
struct Presented<'i> {
    claims: &'i Map<String, Value>,
    carried: &'i str,
}

fn presented(input: &Input) -> Option<Presented<'_>> {
    let claims = subject(input)?;
    let edge = claims.get("delegation_edge_id")?;
    let carried = claims.get("scope")?.as_str()?;
    let presented = *edge != "" && input.context.requested_scopes.is_empty() && pieces(carried).next().is_some();
    presented.then_some(Presented { claims, carried })
}

impl Presented<'_> {
    /// A target that is one string, not a list, matches nothing.
    fn targets(&self, identifier: &str) -> bool {
        match self.claims.get("target") {
            Some(Value::Array(targets)) => targets.iter().any(|target| *target == identifier),
            _ => false,
        }
    }

    fn carried_within(&self, grant: &Grant, labels: &[String]) -> bool {
        grant.covers(labels, pieces(self.carried))
    }
}

/// Non-empty pieces between single spaces; a tab separates nothing.
fn pieces(scope: &str) -> impl Iterator<Item = &str> + Clone {
    scope.split(' ').filter(|piece| !piece.is_empty())
}

/// Whether every wanted scope is held. Long lists go through a set: both come from outside.
fn all_within(wanted: &[String], held: &[String]) -> bool {
    const SHORT: usize = 16;
    if held.len() <= SHORT {
        return wanted.iter().all(|scope| held.contains(scope));
    }
    let held: HashSet<&str> = held.iter().map(String::as_str).collect();
    wanted.iter().all(|scope| held.contains(scope.as_str()))
}
