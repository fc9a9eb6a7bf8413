//! The narrowing algebra: what a child edge may hold under its parent (contract: coordinator.md §6.3, D24).

use std::time::Duration;

use super::{Constraints, Edge};
use crate::resource::ResourceRef;
use crate::scope::Scopes;
use crate::{AgentSessionId, ApplicationId, EdgeId, Timestamp};

/// An edge somebody wants to make: its ends are live sessions of these applications, its resource exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedEdge {
    /// The session that lends.
    pub source: AgentSessionId,
    /// The session that receives.
    pub target: AgentSessionId,
    /// The application of the source.
    pub issuer: ApplicationId,
    /// The application of the target.
    pub receiver: ApplicationId,
    /// The one resource it is tied to.
    pub resource: Option<ResourceRef>,
    /// What it lends.
    pub scopes: Scopes,
    /// Its normalised constraints.
    pub constraints: Constraints,
    /// When it ends: see [`expiry`].
    pub expires_at: Timestamp,
}

/// An edge that holds no more than what it comes from: the only kind that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarrowedEdge {
    parent: Option<EdgeId>,
    edge: ProposedEdge,
}

impl NarrowedEdge {
    /// A root: its source holds no delegation that it could exceed. Who may lend what from nothing is decided by
    /// ownership, the resource's scopes and, at the mint, by policy; [`choose_parent`] says whether this is the case.
    pub fn root(edge: ProposedEdge) -> Self {
        Self { parent: None, edge }
    }

    /// The edge it comes from; none for a root.
    pub fn parent(&self) -> Option<&EdgeId> {
        self.parent.as_ref()
    }

    /// What to store. A budget inherited from the parent has become explicit.
    pub fn edge(&self) -> &ProposedEdge {
        &self.edge
    }
}

/// The dimension in which a child would hold more than its parent (403 `delegation_exceeds_parent_authority`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WidenedDimension {
    /// The child does not begin at the session and application where the parent ends.
    #[error("the child does not begin where its parent ends")]
    Origin,
    /// The parent's stored constraints do not parse, so nobody knows what it holds.
    #[error("the parent's constraints cannot be read")]
    ParentConstraints,
    /// A scope the parent does not hold.
    #[error("the child holds a scope its parent does not")]
    Scopes,
    /// It would outlive the parent.
    #[error("the child outlives its parent")]
    Expiry,
    /// A resource the parent does not hold, or none named under a parent that is tied to some.
    #[error("the child reaches a resource its parent does not")]
    Resources,
    /// The parent may be followed by no edge, or by fewer than the child allows.
    #[error("the child allows more hops than its parent leaves")]
    Hops,
    /// Mandates of the child could live longer than mandates of the parent.
    #[error("the child's mandates live longer than its parent's")]
    Ttl,
    /// More scope elements than the parent allows a child.
    #[error("the child exceeds its parent's budget")]
    Budget,
}

/// What an edge holds, whether stored or proposed.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'e> {
    pub(crate) resource: Option<&'e ResourceRef>,
    pub(crate) scopes: &'e Scopes,
    pub(crate) constraints: &'e Constraints,
    pub(crate) expires_at: Timestamp,
}

impl ProposedEdge {
    pub(crate) fn bounds(&self) -> Bounds<'_> {
        Bounds {
            resource: self.resource.as_ref(),
            scopes: &self.scopes,
            constraints: &self.constraints,
            expires_at: self.expires_at,
        }
    }
}

impl Edge {
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let constraints = self.constraints.as_ref()?;
        Some(Bounds {
            resource: self.resource.as_ref(),
            scopes: &self.scopes,
            constraints,
            expires_at: self.expires_at,
        })
    }
}

/// Admits `child` under `parent` if it holds no more in any dimension. A parent's budget becomes the child's own when
/// the child names none, so that the bound is not forgotten one hop further down.
pub fn narrow(parent: &Edge, child: &ProposedEdge) -> Result<NarrowedEdge, WidenedDimension> {
    let held = parent.bounds().ok_or(WidenedDimension::ParentConstraints)?;
    if child.source != parent.target || child.issuer != parent.receiver {
        return Err(WidenedDimension::Origin);
    }
    narrows(held, child.bounds())?;
    let mut edge = child.clone();
    if held.constraints.budget().is_some() {
        let listed = u8::try_from(edge.scopes.listed().len()).map_err(|_| WidenedDimension::Budget)?;
        edge.constraints = edge.constraints.with_default_budget(listed.max(1));
    }
    Ok(NarrowedEdge { parent: Some(parent.id.clone()), edge })
}

/// The edge with which a child session inherits `parent`'s authority: the same in everything, consuming no hop.
pub fn mirror(parent: &Edge, child: &AgentSessionId) -> Result<NarrowedEdge, WidenedDimension> {
    let constraints = parent.constraints.clone().ok_or(WidenedDimension::ParentConstraints)?;
    let edge = ProposedEdge {
        source: parent.target.clone(),
        target: child.clone(),
        issuer: parent.receiver.clone(),
        receiver: parent.receiver.clone(),
        resource: parent.resource.clone(),
        scopes: parent.scopes.clone(),
        constraints,
        expires_at: parent.expires_at,
    };
    Ok(NarrowedEdge { parent: Some(parent.id.clone()), edge })
}

/// Each dimension in the contract's order.
pub(crate) fn narrows(parent: Bounds<'_>, child: Bounds<'_>) -> Result<(), WidenedDimension> {
    let held = parent.constraints;
    let asked = child.constraints;
    let check = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
    check(child.scopes.is_subset_of(parent.scopes), WidenedDimension::Scopes)?;
    check(child.expires_at <= parent.expires_at, WidenedDimension::Expiry)?;
    check(resources_narrow(parent, child), WidenedDimension::Resources)?;
    check(held.hops() >= 2 && asked.hops() < held.hops(), WidenedDimension::Hops)?;
    let ttl_fits = held.ttl_seconds().is_none_or(|most| asked.ttl_seconds().is_some_and(|ttl| ttl <= most));
    check(ttl_fits, WidenedDimension::Ttl)?;
    let spent = asked.budget().map_or(child.scopes.listed().len(), usize::from);
    check(held.budget().is_none_or(|most| spent <= usize::from(most)), WidenedDimension::Budget)
}

/// Under a parent tied to resources the child must name at least one, by row or by identifier, and none that the
/// parent does not hold. Rows are compared by id: a re-created resource is another resource. The reference lets a
/// child list further identifiers beside the parent's row; they never lent anything, and are refused here. A parent
/// whose row is not among its own identifiers holds nothing.
fn resources_narrow(parent: Bounds<'_>, child: Bounds<'_>) -> bool {
    let names = child.constraints.resources();
    let names_any = child.resource.is_some() || !names.is_empty();
    match (parent.resource, parent.constraints.resources()) {
        (Some(held), listed) => {
            (listed.is_empty() || listed.contains(&held.identifier))
                && names_any
                && child.resource.is_none_or(|row| row.id == held.id)
                && names.iter().all(|name| *name == held.identifier)
        }
        (None, []) => true,
        (None, held) => {
            names_any
                && child.resource.is_none_or(|row| held.contains(&row.identifier))
                && names.iter().all(|name| held.contains(name))
        }
    }
}

/// When a new edge ends: the earliest of every bound the request sets (D24). `None` when it sets none
/// (400 `delegation_expiry_required`); whether the instant has passed is for the caller to see.
pub fn expiry(
    now: Timestamp,
    date: Option<Timestamp>,
    ttl_seconds: Option<u32>,
    constraints: &Constraints,
) -> Option<Timestamp> {
    let after = |seconds: Option<u32>| seconds.map(|seconds| now.plus(Duration::from_secs(seconds.into())));
    [date, constraints.expires_at(), after(ttl_seconds), after(constraints.ttl_seconds())].into_iter().flatten().min()
}

/// Why the parent of a new edge cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParentFault {
    /// The named parent is no live delegation to the source, or all delegations to the source have lapsed: its
    /// narrowing must not lapse with them (D25).
    #[error("the delegation to the source session is not active")]
    NotActive,
    /// More than one live delegation, and none named.
    #[error("several delegations to the source session are active; name one")]
    Ambiguous,
}

impl ParentFault {
    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::NotActive => 403,
            Self::Ambiguous => 409,
        }
    }

    /// The Coordinator's error code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotActive => "parent_delegation_not_active",
            Self::Ambiguous => "parent_delegation_ambiguous",
        }
    }
}

/// The edge a new edge must be narrowed from, out of `inbound`: every edge to its source session, whatever its status.
/// `None`: the source never held a delegation, the new edge is a root.
pub fn choose_parent<'e>(
    inbound: &'e [Edge],
    named: Option<&EdgeId>,
    now: Timestamp,
) -> Result<Option<&'e Edge>, ParentFault> {
    let mut live = inbound.iter().filter(|edge| edge.is_live(now) && named.is_none_or(|id| edge.id == *id));
    match (live.next(), live.next()) {
        (Some(_), Some(_)) => Err(ParentFault::Ambiguous),
        (Some(edge), None) => Ok(Some(edge)),
        (None, _) if inbound.is_empty() && named.is_none() => Ok(None),
        (None, _) => Err(ParentFault::NotActive),
    }
}

/// Why a child session cannot inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InheritFault {
    /// The named edge is not live, or the parent once held a delegation and holds none now.
    #[error("the parent session's delegation is not active")]
    NotActive,
    /// More than one live edge.
    #[error("the parent session holds several active delegations; name one")]
    Ambiguous,
}

impl InheritFault {
    /// The Coordinator's error code (409).
    pub fn code(self) -> &'static str {
        match self {
            Self::NotActive => "inherit_parent_edge_not_active",
            Self::Ambiguous => "inherit_parent_edge_ambiguous",
        }
    }
}

/// The edge a child session inherits (contract: coordinator.md §4.2), out of `candidates`: every edge to the parent
/// session whose receiver is the child's application, whatever its status. `None`: nothing to inherit.
pub fn inherited_edge<'e>(
    candidates: &'e [Edge],
    named: Option<&EdgeId>,
    now: Timestamp,
) -> Result<Option<&'e Edge>, InheritFault> {
    choose_parent(candidates, named, now).map_err(|fault| match fault {
        ParentFault::NotActive => InheritFault::NotActive,
        ParentFault::Ambiguous => InheritFault::Ambiguous,
    })
}
