//! Step 10: every requested resource on its own (contract: sts.md §3.8). A skipped resource is not granted and the
//! loop goes on; a stop ends the whole exchange.

use std::collections::HashSet;

use super::{
    ApprovalTier, Caller, Class, Connection, Counsel, Facts, Finding, PolicyAnswer, PolicyQuestion, ProviderReason,
    Rate, Refusal, Request, ResourceFacts, Skip, Standing,
};
use crate::control::ControlKey;
use crate::resource::{ProviderKind, Resource, ResourceRef, operation_floor};

/// What may be granted.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) granted: Vec<ResourceRef>,
    pub(super) tiers: Vec<ApprovalTier>,
    /// The control key that the control audience was granted to; then nothing else was granted.
    pub(super) control: Option<ControlKey>,
}

/// What a resource that came through rows 2 to 8 is granted by.
enum Ground {
    Policy,
    ControlKey(ControlKey),
}

/// Why a resource does not get as far as policy.
enum Halt {
    Skip(Skip),
    Stop(Refusal),
}

impl From<Skip> for Halt {
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Stop(refusal)
    }
}

/// Rules on every requested name, in sorted order, and leaves a finding for each resource.
pub(super) fn walk(
    request: &Request,
    facts: &Facts,
    standing: &Standing<'_>,
    counsel: &mut (impl Counsel + ?Sized),
    findings: &mut Vec<Finding>,
) -> Result<Reach, Refusal> {
    let mut reach = Reach::default();
    let mut seen = HashSet::new();
    for name in request.resources.iter() {
        let Some(found) = facts.resource(&request.zone, name) else {
            findings.push(Finding::skipped(name, Skip::ResourceNotFound, None)); // row 1
            continue;
        };
        let resource = &found.resource;
        // Asked for by id and by identifier, it is one resource: one policy question, one place in the audience.
        if !seen.insert(&resource.name.id) {
            continue;
        }
        let identifier = resource.name.identifier.as_str();
        match before_policy(request, facts, standing, found, counsel) {
            Ok(Ground::Policy) => {}
            Ok(Ground::ControlKey(key)) => {
                reach.granted.push(resource.name.clone()); // 6
                reach.control = Some(key);
                findings.push(Finding::granted(identifier, None));
                continue;
            }
            Err(Halt::Skip(skip)) => {
                findings.push(Finding::skipped(identifier, skip, None));
                continue;
            }
            Err(Halt::Stop(refusal)) => {
                findings.push(Finding::stopped(identifier, &refusal, None));
                return Err(refusal);
            }
        }
        match counsel.policy(&question(request, standing, resource)) {
            answer @ PolicyAnswer::Failed { .. } => {
                findings.push(Finding::stopped(identifier, &Refusal::PolicyFailed, Some(answer))); // 9
                return Err(Refusal::PolicyFailed);
            }
            PolicyAnswer::Allow { determining, diagnostics, tiers } => {
                reach.granted.push(resource.name.clone()); // 10
                reach.tiers.extend(tiers.iter().cloned());
                let answer = PolicyAnswer::Allow { determining, diagnostics, tiers };
                findings.push(Finding::granted(identifier, Some(answer)));
            }
            PolicyAnswer::Deny { reason, determining, diagnostics } => {
                let skip = Skip::PolicyDenied { reason: reason.clone() };
                let answer = PolicyAnswer::Deny { reason, determining, diagnostics };
                findings.push(Finding::skipped(identifier, skip, Some(answer)));
            }
        }
    }
    if reach.control.is_some() && reach.granted.len() > 1 {
        // A mandate for the control audience is good there and nowhere else.
        return Err(Refusal::ControlResourceRequiresControlKey);
    }
    Ok(reach)
}

/// Rows 2 to 8.
fn before_policy(
    request: &Request,
    facts: &Facts,
    standing: &Standing<'_>,
    found: &ResourceFacts,
    counsel: &mut (impl Counsel + ?Sized),
) -> Result<Ground, Halt> {
    let resource = &found.resource;
    ensure(resource.offers(request.scope.get()), Skip::ScopeMismatch)?; // 2
    let admitted = standing.delegation.as_ref().is_none_or(|delegation| delegation.lineage.admits(resource));
    ensure(admitted, Skip::ResourceOutsideDelegation)?; // 3
    if let Caller::Gateway(call) = &request.caller {
        let carried = standing.subject.map(|claims| &claims.scope).ok_or(Refusal::SubjectTokenInvalid)?;
        operation_floor(resource, call, carried).map_err(|why| Refusal::OperationNotPermitted { why })?; // 4
    }
    match counsel.rate(resource) {
        Rate::Within => {} // 5
        Rate::Exceeded => return Err(Skip::RateLimited.into()),
        Rate::Unavailable => return Err(Refusal::RateUnavailable.into()),
    }
    if resource.name.identifier.as_str() == facts.control_audience {
        let key = control_key(request, standing).ok_or(Refusal::ControlResourceRequiresControlKey)?; // 7
        return Ok(Ground::ControlKey(key.clone())); // 6
    }
    if request.is_gateway() {
        provider_can_serve(resource, found.connection, standing.subject())?; // 8
    }
    Ok(Ground::Policy)
}

/// The key that the request is made with: an application that asks for itself alone, for scopes that its traits list
/// (contract: sts.md §3.10).
fn control_key<'f>(request: &Request, standing: &Standing<'f>) -> Option<&'f ControlKey> {
    let alone = request.class() == Class::Bootstrap && request.record.is_absent();
    let key = standing.client.control.as_ref().filter(|_| alone)?;
    key.admits(request.scope.get(), standing.now).then_some(key)
}

fn question<'q>(request: &'q Request, standing: &'q Standing<'_>, resource: &'q Resource) -> PolicyQuestion<'q> {
    PolicyQuestion {
        resource,
        client: standing.client,
        requested: request.scope.get(),
        subject: standing.subject,
        record: standing.record_id(),
        session: standing.session.map(|session| session.facts()),
        lineage: standing.delegation.as_ref().map(|delegation| &delegation.lineage),
        epoch: standing.delegation.as_ref().map_or(0, |delegation| delegation.epoch),
        call: request.upstream_call(),
        approved: standing.brought.is_given(),
    }
}

/// Rows 8 to 8c.
fn provider_can_serve(resource: &Resource, connection: Connection, subject: &str) -> Result<(), Skip> {
    let Some(provider) = &resource.provider else { return Ok(()) };
    let kind = provider.kind.ok_or(Skip::ProviderUnavailable)?;
    if kind != ProviderKind::Oauth2AuthorizationCode {
        return Ok(());
    }
    let not_provisioned = |reason| Skip::CredentialNotProvisioned { reason };
    ensure(!subject.is_empty(), not_provisioned(ProviderReason::NoUserPrincipal))?;
    match connection {
        Connection::Ready => Ok(()),
        Connection::RefreshFailed(failure) => Err(Skip::CredentialRefreshFailed { failure }),
        Connection::NotProvisioned => Err(not_provisioned(ProviderReason::NoProviderConnection)),
    }
}

fn ensure(holds: bool, otherwise: Skip) -> Result<(), Skip> {
    if holds { Ok(()) } else { Err(otherwise) }
}
