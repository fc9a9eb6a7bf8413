//! The exchange of an identity provider's token (contract: sts.md §4): from somebody's word for who a user is to a
//! record of that user, and the bare session mandate that goes with it. No policy is asked, because nothing is granted
//! yet: the mandate has neither scope nor resource.

use super::outcome::Trail;
use super::{Client, Facts, Finding, Grant, Refusal, Request};
use crate::federation::FederationFault;
use crate::lifetime::{self, Bounds, LifetimeClass};
use crate::record::SubjectKind;

impl Request {
    /// Whether an id_token comes as it has to: from the application itself, beside nothing that it does not go with.
    pub fn is_bare_federation(&self) -> bool {
        !self.is_gateway()
            && self.resources.is_empty()
            && self.scope.get().is_empty()
            && self.record.is_absent()
            && self.session.is_absent()
            && self.delegation.is_absent()
            && self.approval_id.is_none()
    }
}

/// Decides one federation, in the order of §4.
pub(super) fn weigh(request: &Request, facts: &Facts, client: &Client, trail: &mut Trail) -> Result<Grant, Refusal> {
    if !request.is_bare_federation() {
        return Err(Refusal::FederationShape);
    }
    let now = facts.now.ok_or(Refusal::TimeUnavailable)?;
    if client.expires_at.is_some_and(|end| end <= now) {
        return Err(Refusal::ClientUnauthenticated);
    }
    let presented = facts.federation.as_ref().ok_or(rejected(FederationFault::Malformed))?;
    trail.context.federated_issuer = presented.registration.as_ref().map(|known| known.issuer.clone());
    let believed = presented.accept(now).map_err(rejected)?;
    trail.context.kind = Some(SubjectKind::User);
    let bounds = Bounds::none().until(client.expires_at).until(believed.until);
    let lifetime =
        lifetime::fix(LifetimeClass::Direct, request.ttl_seconds, bounds, now).map_err(super::lifetime_refusal)?;
    trail.findings.push(Finding::federated());
    let issuer = trail.context.federated_issuer.clone();
    Ok(Grant::of_user(request, client, believed.subject, issuer, lifetime))
}

fn rejected(why: FederationFault) -> Refusal {
    match why {
        FederationFault::KeysUnreachable => Refusal::FederationKeysUnreachable,
        why => Refusal::FederationRejected { why },
    }
}
