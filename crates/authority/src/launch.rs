//! The launch decision: may this workload have the credential that is bound to one of its variables? (contract: sts.md §11)
//!
//! `nightly-report` is about to be started. Its launcher shows the workload's secret and asks for what `WAREHOUSE_TOKEN` is
//! bound to. The STS has read everything that names into [`Facts`], in one snapshot; [`decide`] goes through the contract's
//! rows in their order and ends in a [`Release`] or in a [`Refusal`](crate::exchange::Refusal), which is one of the
//! exchange's: both share their table, so that a caller is told the same thing in the same words.
//!
//! A credential that is released leaves the system: no Gateway stands before its use, and no revocation reaches it. So
//! a provider has to allow it by name, what a person's account gives is never released, and policy is asked as always.
//!
//! What is absent from the facts denies. Not decided here: whether the secret was right (that the workload is there is the
//! fact), and whether the credential can be had from where it lies.

use crate::approval::{
    self, Binding, Bound, Hold, LaunchOf, NewHold, PolicyStamp, PrincipalKind, Requirement, ResourceRow,
};
use crate::exchange::{PolicyAnswer, Refusal, Wanted, settle};
use crate::resource::{ProviderKind, Resource};
use crate::scope::Scopes;
use crate::{Timestamp, WorkloadId, ZoneId};

/// A request for one credential.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The workload's zone.
    pub zone: ZoneId,
    /// The workload.
    pub workload: WorkloadId,
    /// The variable.
    pub env: String,
    /// `approval_id`, non-empty.
    pub approval_id: Option<String>,
}

/// The workload: present means that it exists, in a zone that is in use, and proved who it is.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its id.
    pub id: WorkloadId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its name, for who decides an approval.
    pub name: String,
}

/// What is bound to the variable.
#[derive(Debug, Clone)]
pub struct BoundCredential {
    /// The resource, by identifier or id.
    pub resource: String,
    /// What it is wanted for.
    pub scopes: Scopes,
}

/// The resource that the binding names, with its provider.
#[derive(Debug, Clone)]
pub struct BoundResource {
    /// The resource.
    pub resource: Resource,
    /// Where it lies: an approval is good for that place only.
    pub upstream: Option<String>,
    /// Whether the provider's configuration is one a credential can be made by.
    pub is_configured: bool,
    /// `allow_runtime_injection` of the provider.
    pub allows_injection: bool,
}

/// One snapshot.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The store's time.
    pub now: Option<Timestamp>,
    /// Who asks.
    pub workload: Option<Workload>,
    /// What is bound to the variable.
    pub bound: Option<BoundCredential>,
    /// The resource it names, unless there is none or it is archived.
    pub resource: Option<BoundResource>,
    /// The approval that the request names, and what answers for the request as far as that is known.
    pub holds: Vec<Hold>,
    /// The policy that is asked.
    pub policy: PolicyStamp,
    /// The policy under which this very request was about to spend an approval, when the zone moved on. What was approved
    /// under one policy is not used under another (row 12).
    pub approved_under: Option<PolicyStamp>,
}

/// What policy is asked.
#[derive(Debug)]
pub struct Question<'q> {
    /// The workload.
    pub workload: &'q Workload,
    /// The resource.
    pub resource: &'q Resource,
    /// The scopes of the binding.
    pub scopes: &'q Scopes,
    /// Whether the caller presented an approval that was given and can be spent.
    pub approved: bool,
}

/// One decided launch.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was decided.
    pub decision: Result<Release, Refusal>,
    /// What policy answered, where it was asked.
    pub policy: Option<PolicyAnswer>,
}

/// The credential may be released. Only the decision makes one.
#[derive(Debug, Clone)]
pub struct Release {
    spends: Option<Hold>,
}

impl Release {
    /// The approval that is spent on it, if it needed one.
    pub fn spends(&self) -> Option<&Hold> {
        self.spends.as_ref()
    }
}

/// Decides one launch of one credential.
pub fn decide(launch: &Launch, facts: &Facts, policy: &mut dyn FnMut(&Question<'_>) -> PolicyAnswer) -> Outcome {
    let mut answered = None;
    let decision = weigh(launch, facts, &mut |question| {
        let answer = policy(question);
        answered = Some(answer.clone());
        answer
    });
    Outcome { decision, policy: answered }
}

/// What is known to be in order of a request.
struct Standing<'f> {
    workload: &'f Workload,
    env: &'f str,
    now: Timestamp,
    bound: &'f BoundCredential,
    found: &'f BoundResource,
    policy: &'f PolicyStamp,
}

/// Numbers are the rows of sts.md §11.
fn weigh(
    launch: &Launch,
    facts: &Facts,
    policy: &mut dyn FnMut(&Question<'_>) -> PolicyAnswer,
) -> Result<Release, Refusal> {
    let proven = facts.workload.as_ref().filter(|known| known.id == launch.workload && known.zone == launch.zone);
    let workload = proven.ok_or(Refusal::WorkloadUnauthenticated)?; // 3
    let now = facts.now.ok_or(Refusal::TimeUnavailable)?; // 4
    let bound = facts.bound.as_ref().ok_or(Refusal::BindingUnknown)?; // 5
    let found = facts.resource.as_ref().filter(|found| found.resource.zone == launch.zone);
    let found = found.ok_or(Refusal::BoundResourceUnknown)?; // 6
    // The reference takes the binding's word for what the resource offers.
    ensure(found.resource.offers(&bound.scopes), Refusal::BoundScopesNotOffered)?;
    provider_may_be_injected(found)?; // 7 to 9
    // Before 10: under another policy the approval has another binding, and would be called unknown.
    let unchanged = facts.approved_under.as_ref().is_none_or(|policy| *policy == facts.policy);
    ensure(unchanged, Refusal::ApprovalPolicyChanged)?; // 12
    let standing = Standing { workload, env: &launch.env, now, bound, found, policy: &facts.policy };
    let brought = brought(launch, facts, &standing)?; // 10
    let question = Question { workload, resource: &found.resource, scopes: &bound.scopes, approved: brought.is_some() };
    let tiers = match policy(&question) {
        PolicyAnswer::Failed { .. } => return Err(Refusal::PolicyFailed), // 11
        PolicyAnswer::Deny { reason, .. } => {
            return Err(Refusal::NothingGranted { reason: Some(reason).filter(|reason| !reason.is_empty()) }); // 14
        }
        PolicyAnswer::Allow { tiers, .. } => tiers,
    };
    if brought.is_some() || tiers.is_empty() {
        return Ok(Release { spends: brought.cloned() });
    }
    let requirement = approval::merge(&tiers).map_err(|_| Refusal::ApprovalClassConflict)?; // 13
    let new = standing.wanted(requirement);
    let known = facts.holds.iter().find(|hold| standing.is_for(hold, &new.binding) && hold.answers_for(now));
    let Some(hold) = known else { return Err(Refusal::ApprovalRequired { wanted: Wanted::New(Box::new(new)) }) };
    settle(hold, now)?;
    Ok(Release { spends: Some(hold.clone()) })
}

/// Rows 7 to 9.
fn provider_may_be_injected(found: &BoundResource) -> Result<(), Refusal> {
    let provider = found.resource.provider.as_ref().ok_or(Refusal::NoProvider)?;
    let kind = provider.kind.ok_or(Refusal::ProviderGone)?;
    ensure(found.is_configured && kind != ProviderKind::Unrecognised, Refusal::ProviderMisconfigured)?;
    // Nothing that could be injected, or a user name and a password, which are for the upstream alone.
    let stays = matches!(kind, ProviderKind::None | ProviderKind::CaracalMandate | ProviderKind::HttpBasic);
    ensure(found.allows_injection && !stays, Refusal::InjectionNotAllowed)?;
    ensure(kind != ProviderKind::Oauth2AuthorizationCode, Refusal::NoUserAtLaunch)
}

/// Row 10: as for an exchange, but for a workload that stands on no record and for no application; and what was spent is
/// not told again.
fn brought<'f>(launch: &Launch, facts: &'f Facts, standing: &Standing<'_>) -> Result<Option<&'f Hold>, Refusal> {
    let Some(id) = &launch.approval_id else { return Ok(None) };
    let binding = standing.binding();
    let hold = facts.holds.iter().find(|hold| hold.id.as_str() == id && standing.is_for(hold, &binding));
    let hold = hold.ok_or(Refusal::ApprovalUnknown)?;
    settle(hold, standing.now)?;
    Ok(Some(hold))
}

impl Standing<'_> {
    /// Whether a hold is for this very request.
    fn is_for(&self, hold: &Hold, binding: &Binding) -> bool {
        hold.zone == self.workload.zone
            && hold.principal == self.workload.id.as_str()
            && hold.record.is_none()
            && hold.application.is_none()
            && hold.binding == *binding
    }

    fn scopes(&self) -> Vec<&str> {
        self.bound.scopes.listed().iter().map(|scope| scope.as_str()).collect()
    }

    fn binding(&self) -> Binding {
        Binding::of(&Bound {
            resources: &[&self.bound.resource],
            rows: &[ResourceRow { resource: &self.found.resource, upstream: self.found.upstream.as_deref() }],
            scopes: &self.scopes(),
            principal: self.workload.id.as_str(),
            env: self.env,
            policy: Some(self.policy),
            ..Bound::default()
        })
    }

    fn wanted(&self, requirement: Requirement) -> NewHold {
        NewHold {
            zone: self.workload.zone.clone(),
            principal: self.workload.id.to_string(),
            principal_kind: PrincipalKind::Workload,
            launch: Some(LaunchOf { name: self.workload.name.clone(), env: self.env.to_owned() }),
            record: None,
            application: None,
            session: None,
            delegation: None,
            labels: Vec::new(),
            requesting: Vec::new(),
            requirement,
            subject_anchor: None,
            binding: self.binding(),
            scopes: self.scopes().into_iter().map(str::to_owned).collect(),
            resources: vec![self.found.resource.name.identifier.to_string()],
            policy: self.policy.clone(),
        }
    }
}

fn ensure(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
}
