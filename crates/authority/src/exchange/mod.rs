//! The exchange decision: may this request become a mandate, and which? (contract: sts.md §3.6–3.11, §5, §9)
//!
//! An agent's application asks for `docs:read` on `resource://docs`, for the session it works in and through the
//! delegation that session holds. The STS has parsed the form into a [`Request`] and read everything the request
//! names into [`Facts`], in one snapshot. [`decide`] goes through the contract's steps in the contract's order and
//! ends in a [`Grant`], which says all that a mandate will say, or in a [`Refusal`], which has its status and code;
//! beside it a [`Finding`] for every resource it looked at, which is the evidence to be.
//!
//! What is absent from the facts denies: there is no default that grants. Only two things cannot be known before the
//! decision reaches them, because asking has an effect or depends on the way there: the mint rate and the policy.
//! They are asked through [`Counsel`], for the resources that got so far.
//!
//! Not decided here: whether the client's secret, the Gateway's signature and the presented token's signature are
//! genuine (their results are facts), and what happens afterwards: insert the record, sign, build the directive.
//!
//! Where policy wants a human to agree first, a grant says which hold it spends, and a refusal which hold to wait for.
//!
//! Served: bootstrap, session-bound, delegated mint, Gateway exchange, control key, federation. An application that presents a
//! session mandate itself is decided and never minted for.

mod active;
mod approvals;
mod counsel;
mod facts;
mod federation;
mod outcome;
mod refusal;
mod request;
mod resources;
mod standing;

pub use active::{Inactive, check_active};
pub(crate) use approvals::settle;
pub use approvals::{Spending, Wanted};
pub use counsel::{ApprovalTier, Approver, Counsel, PolicyAnswer, PolicyQuestion, Privacy, Rate};
pub use facts::{Client, Connection, Facts, RefreshFailure, ResourceFacts};
pub use outcome::{Context, Decision, Finding, Found, Grant, NewRecord, Outcome, ProviderReason, Skip};
pub use refusal::Refusal;
pub use request::{Asserted, Caller, Class, EmptyResource, References, Request, ResourceNames, SubjectToken};

use crate::control::ControlKey;
use crate::lifetime::{self, Bounds, LifetimeClass, LifetimeFault};
use outcome::Trail;
use resources::Reach;
use standing::Standing;

/// Decides one exchange.
pub fn decide(request: &Request, facts: &Facts, counsel: &mut (impl Counsel + ?Sized)) -> Outcome {
    let mut trail = Trail::default();
    let decision = weigh(request, facts, counsel, &mut trail);
    if let Err(refusal) = &decision {
        trail.withhold(refusal);
    }
    let Trail { context, findings, awaited } = trail;
    Outcome { class: request.class(), decision, context, findings, awaited }
}

/// The core pipeline. Numbers are those of sts.md §3.7.
fn weigh(
    request: &Request,
    facts: &Facts,
    counsel: &mut (impl Counsel + ?Sized),
    trail: &mut Trail,
) -> Result<Grant, Refusal> {
    let client = authenticated_client(request, facts)?; // 1
    if request.subject_token == SubjectToken::IdToken {
        return federation::weigh(request, facts, client, trail); // 2
    }
    if request.resources.is_empty() {
        return Err(Refusal::NoResource); // 3
    }
    let now = facts.now.ok_or(Refusal::TimeUnavailable)?; // 4
    if client.expires_at.is_some_and(|end| end <= now) {
        return Err(Refusal::ClientUnauthenticated); // belongs to 1, needs the time of 4
    }
    let standing = standing::find(request, facts, client, now)?; // 5 to 9
    trail.context = standing.context();
    let reach = resources::walk(request, facts, &standing, counsel, &mut trail.findings)?; // 10
    if reach.granted.is_empty() {
        return Err(nothing_granted(&trail.findings)); // 12
    }
    if standing.subject.is_some() && !request.is_gateway() {
        return Err(Refusal::SubjectTokenOutsideGateway); // 13
    }
    let lifetime = lifetime(request, &standing, reach.control.as_ref())?; // 14, 15
    // 11 comes last: an exchange that can never be minted must not hold a human up.
    match approvals::gate(request, facts, &standing, &reach) {
        Ok(spending) => Ok(Grant::new(request, &standing, reach, lifetime, spending)),
        Err(refusal) => {
            if let Refusal::ApprovalRequired { .. } = refusal {
                trail.awaited = Some(Grant::new(request, &standing, reach, lifetime, None));
            }
            Err(refusal)
        }
    }
}

/// Step 1. That a client is among the facts means that it exists, unarchived, and proved who it is: with its secret,
/// or by the Gateway's signature, which speaks for it only with a subject token.
fn authenticated_client<'f>(request: &Request, facts: &'f Facts) -> Result<&'f Client, Refusal> {
    let client = facts.client.as_ref().filter(|client| client.id == request.application);
    let client = client.filter(|client| client.zone == request.zone).ok_or(Refusal::ClientUnauthenticated)?;
    if request.is_gateway() && request.subject_token == SubjectToken::None {
        return Err(Refusal::ClientUnauthenticated);
    }
    Ok(client)
}

/// Step 12, in its precedence: a provider's reason, then the rate alone (D7), then policy.
fn nothing_granted(findings: &[Finding]) -> Refusal {
    let skips = || findings.iter().filter_map(Finding::skip);
    if let Some(reason) = skips().find_map(Skip::provider_reason) {
        return Refusal::ProviderCredentialUnavailable { reason };
    }
    if skips().next().is_some() && skips().all(|skip| *skip == Skip::RateLimited) {
        return Refusal::RateLimited;
    }
    let reason = skips().find_map(|skip| match skip {
        Skip::PolicyDenied { reason } if !reason.is_empty() => Some(reason.clone()),
        _ => None,
    });
    Refusal::NothingGranted { reason }
}

/// Steps 14 and 15: the minimum of everything the mandate hangs on.
fn lifetime(
    request: &Request,
    standing: &Standing<'_>,
    control: Option<&ControlKey>,
) -> Result<lifetime::Lifetime, Refusal> {
    let class = if request.is_gateway() { LifetimeClass::Gateway } else { LifetimeClass::Direct };
    let presented = standing.subject.map(|claims| crate::Timestamp::from_seconds(claims.expires_at));
    let mut bounds = Bounds::none()
        .until(standing.client.expires_at)
        .until(presented)
        .until(standing.record.map(|record| record.facts().expires_at))
        .until(standing.session.and_then(|session| session.bound()))
        .until(standing.brought.bound());
    if let Some(delegation) = &standing.delegation {
        bounds = bounds
            .until(delegation.source.bound())
            .until(delegation.lineage.expires_at())
            .at_most(delegation.lineage.ttl_cap());
    }
    if let Some(key) = control {
        let seconds = key.max_ttl().map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        bounds = bounds.until(key.ends_at()).at_most(seconds);
    }
    lifetime::fix(class, request.ttl_seconds, bounds, standing.now).map_err(lifetime_refusal)
}

fn lifetime_refusal(fault: LifetimeFault) -> Refusal {
    match fault {
        LifetimeFault::Negative => Refusal::TtlNegative,
        LifetimeFault::AboveMaximum { most } => Refusal::TtlAboveMaximum { most },
        LifetimeFault::Exhausted => Refusal::LifetimeExhausted,
    }
}
