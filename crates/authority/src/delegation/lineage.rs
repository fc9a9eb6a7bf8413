//! The walk from a root to the edge a mandate is minted through (contract: sts.md §9 rules 4–9).

use std::collections::HashSet;

use super::{Bounds, Edge, EdgeStatus, WidenedDimension, narrows};
use crate::mandate::ChainHop;
use crate::resource::Resource;
use crate::scope::Scopes;
use crate::session::LiveSession;
use crate::{AgentSessionId, EdgeId, Timestamp, ZoneId};

/// Most edges of one lineage, mirrors included: verifiers refuse a higher `hop_count`.
pub const MAX_LINEAGE: usize = 10;

/// Between whom the presented edge must run. Both sessions are live; whether the caller owns the target is its
/// caller's check.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'f> {
    /// The zone of the exchange.
    pub zone: &'f ZoneId,
    /// The presented edge.
    pub edge: &'f EdgeId,
    /// The session that lends.
    pub source: LiveSession<'f>,
    /// The session that receives.
    pub target: LiveSession<'f>,
}

/// Why a lineage lends nothing. All end as 403 `access_denied`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineageFault {
    /// The presented edge is not among the facts, or of another zone.
    #[error("the delegation does not exist")]
    Unknown,
    /// More than [`MAX_LINEAGE`] edges.
    #[error("the delegation is more than {MAX_LINEAGE} hops long")]
    TooLong,
    /// An edge of the lineage was taken back.
    #[error("the delegation `{0}` is revoked")]
    Revoked(EdgeId),
    /// An edge of the lineage has lapsed.
    #[error("the delegation `{0}` has expired")]
    Expired(EdgeId),
    /// An edge whose stored constraints do not parse.
    #[error("the constraints of the delegation `{0}` cannot be read")]
    ConstraintsUnreadable(EdgeId),
    /// The first edge has a parent: the root is missing.
    #[error("the delegation has no root")]
    Unrooted,
    /// An edge does not continue the one before: another parent, session, application or zone.
    #[error("the delegation `{0}` does not continue its parent")]
    Discontinuous(EdgeId),
    /// An edge or session appears twice.
    #[error("the delegation goes in a circle")]
    Cycle,
    /// The presented edge lends to another session, or from one that was not looked at.
    #[error("the delegation is not between these sessions")]
    OtherSessions,
    /// The applications of the presented edge are not those of its sessions.
    #[error("the delegation is not between the applications of its sessions")]
    OtherApplications,
    /// A stored edge holds more than the one before it.
    #[error("the delegation `{edge}` exceeds its parent: {dimension}")]
    Widened {
        /// The edge.
        edge: EdgeId,
        /// In what.
        dimension: WidenedDimension,
    },
}

/// A lineage that holds: live, rooted, continuous, acyclic and narrowing. Only [`validate_lineage`] makes one.
#[derive(Debug, Clone)]
pub struct Lineage<'f> {
    edges: &'f [Edge],
    leaf: &'f Edge,
    chain: Vec<ChainHop>,
    expires_at: Timestamp,
    ttl_cap: Option<u32>,
}

impl<'f> Lineage<'f> {
    /// The presented edge.
    pub fn leaf(&self) -> &'f Edge {
        self.leaf
    }

    /// Edge ids, root first.
    pub fn path(&self) -> impl ExactSizeIterator<Item = &'f EdgeId> {
        self.edges.iter().map(|edge| &edge.id)
    }

    /// `delegation_chain`: the issuing side of every edge, then the receiver.
    pub fn chain(&self) -> &[ChainHop] {
        &self.chain
    }

    /// Number of edges.
    pub fn hop_count(&self) -> usize {
        self.edges.len()
    }

    /// What may be minted: the leaf's scopes, which narrowing has put inside every ancestor's.
    pub fn scopes(&self) -> &'f Scopes {
        &self.leaf.scopes
    }

    /// The earliest end of any edge or constraint in it.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The shortest mandate life any edge sets, in seconds.
    pub fn ttl_cap(&self) -> Option<u32> {
        self.ttl_cap
    }

    /// Edges that may still follow the leaf.
    pub fn remaining_hops(&self) -> u8 {
        self.leaf.constraints.as_ref().map_or(0, |constraints| constraints.hops().saturating_sub(1))
    }

    /// Whether every edge of it admits `resource`: by row id where the edge is tied to a row, by identifier where its
    /// constraints list some (contract: sts.md §3.8 row 3).
    pub fn admits(&self, resource: &Resource) -> bool {
        self.edges.iter().all(|edge| {
            let names = edge.constraints.as_ref().map_or(&[][..], |constraints| constraints.resources());
            edge.resource.as_ref().is_none_or(|row| row.id == resource.name.id)
                && (names.is_empty() || names.contains(&resource.name.identifier))
        })
    }
}

/// Walks `edges`, root first and ending in the presented edge, and accepts them only as one whole.
pub fn validate_lineage<'f>(edges: &'f [Edge], ends: &Ends<'f>, now: Timestamp) -> Result<Lineage<'f>, LineageFault> {
    let leaf = edges.last().filter(|leaf| leaf.id == *ends.edge && leaf.zone == *ends.zone);
    let leaf = leaf.ok_or(LineageFault::Unknown)?;
    let (source, target) = (ends.source.facts(), ends.target.facts());
    if leaf.source != source.id || leaf.target != target.id {
        return Err(LineageFault::OtherSessions);
    }
    if leaf.issuer != source.application || leaf.receiver != target.application {
        return Err(LineageFault::OtherApplications);
    }
    if edges.len() > MAX_LINEAGE {
        return Err(LineageFault::TooLong);
    }
    if edges.first().is_some_and(|root| root.parent.is_some()) {
        return Err(LineageFault::Unrooted);
    }
    let mut expires_at = leaf.expires_at;
    let mut ttl_cap = None;
    let mut parent: Option<(&Edge, Bounds<'_>)> = None;
    for edge in edges {
        let held = live_bounds(edge, now)?;
        if let Some((above, above_holds)) = parent {
            continues(above, edge)?;
            // Pairwise is enough: every narrowed edge has fewer hops than the one before, so a lineage never has more
            // narrowed edges than its root allows, and a mirror is equal in everything.
            if !edge.mirrors(above) {
                narrows(above_holds, held)
                    .map_err(|dimension| LineageFault::Widened { edge: edge.id.clone(), dimension })?;
            }
        }
        expires_at =
            [Some(held.expires_at), held.constraints.expires_at()].into_iter().flatten().fold(expires_at, Ord::min);
        ttl_cap = [ttl_cap, held.constraints.ttl_seconds()].into_iter().flatten().min();
        parent = Some((edge, held));
    }
    if expires_at <= now {
        return Err(LineageFault::Expired(leaf.id.clone()));
    }
    no_circle(edges)?;
    Ok(Lineage { edges, leaf, chain: chain(edges, leaf), expires_at, ttl_cap })
}

/// Rule 9 for one edge: active, not revoked, unexpired, and readable.
fn live_bounds(edge: &Edge, now: Timestamp) -> Result<Bounds<'_>, LineageFault> {
    match edge.status {
        EdgeStatus::Revoked => Err(LineageFault::Revoked(edge.id.clone())),
        EdgeStatus::Expired => Err(LineageFault::Expired(edge.id.clone())),
        EdgeStatus::Active if !edge.is_live(now) => Err(LineageFault::Expired(edge.id.clone())),
        EdgeStatus::Active => edge.bounds().ok_or_else(|| LineageFault::ConstraintsUnreadable(edge.id.clone())),
    }
}

/// The receiver of a hop is the issuer of the next, as session and as application, inside one zone.
fn continues(above: &Edge, edge: &Edge) -> Result<(), LineageFault> {
    let continuous = edge.parent.as_ref() == Some(&above.id)
        && edge.zone == above.zone
        && edge.source == above.target
        && edge.issuer == above.receiver;
    if continuous { Ok(()) } else { Err(LineageFault::Discontinuous(edge.id.clone())) }
}

fn no_circle(edges: &[Edge]) -> Result<(), LineageFault> {
    let mut ids = HashSet::new();
    let mut sessions: HashSet<&AgentSessionId> = edges.first().map(|root| &root.source).into_iter().collect();
    if edges.iter().all(|edge| ids.insert(&edge.id) && sessions.insert(&edge.target)) {
        Ok(())
    } else {
        Err(LineageFault::Cycle)
    }
}

fn chain(edges: &[Edge], leaf: &Edge) -> Vec<ChainHop> {
    let issuing = edges.iter().map(|edge| ChainHop {
        application_id: edge.issuer.clone(),
        agent_session_id: Some(edge.source.clone()),
        delegation_edge_id: Some(edge.id.clone()),
    });
    let receiver = ChainHop {
        application_id: leaf.receiver.clone(),
        agent_session_id: Some(leaf.target.clone()),
        delegation_edge_id: None,
    };
    issuing.chain([receiver]).collect()
}
