//! Delegation: one session lends another a part of what it may do.
//!
//! Alice's agent (session A) may read and write the books and lends a helper (session B) the reading for ten minutes:
//! edge A→B, a root. B lends a summariser (session C) the same for five: edge B→C, whose parent is A→B. When C asks
//! for a mandate, the STS walks A→B→C and believes it only if every edge is live, each begins where the one before
//! ends, and each holds no more than the one before ([`validate_lineage`]). The Coordinator makes edges only through
//! [`narrow`] and [`mirror`], so the walk finds nothing new unless the store was tampered with or time has passed.
//!
//! What an edge bounds, the dimensions of [`WidenedDimension`]: scopes, resources, expiry, hops, mandate ttl, budget.
//!
//! **Hops.** `max_hops` counts edges from this one on: an edge with 1 (the default) lends to nobody further, one with
//! 3 may be followed by an edge with at most 2. Each narrowed edge therefore consumes one along the whole lineage;
//! a mirrored edge repeats its parent for a child session and consumes none. No lineage is longer than
//! [`MAX_LINEAGE`] edges, mirrors included, which is what verifiers accept.

mod constraints;
mod effective;
mod graph;
mod lineage;
mod narrow;

pub use constraints::{ConstraintFault, Constraints, MAX_BUDGET, MAX_HOPS, parse_date_time};
pub use effective::{EffectiveAuthority, effective_authority};
pub use graph::{Cascade, Ended, Link, Node, Reached, closes_cycle, downstream, resume, revoke, suspend, terminate};
pub use lineage::{Ends, Lineage, LineageFault, MAX_LINEAGE, validate_lineage};
pub(crate) use narrow::{Bounds, narrows};
pub use narrow::{
    InheritFault, NarrowedEdge, ParentFault, ProposedEdge, WidenedDimension, choose_parent, expiry, inherited_edge,
    mirror, narrow,
};

use serde::{Deserialize, Serialize};

use crate::resource::ResourceRef;
use crate::scope::Scopes;
use crate::{AgentSessionId, ApplicationId, EdgeId, Timestamp, ZoneId};

/// The stored status of an edge. Liveness also needs the time: see [`Edge::is_live`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeStatus {
    /// Lends until it expires.
    Active,
    /// Taken back. Final.
    Revoked,
    /// Swept after its expiry. Final.
    Expired,
}

/// A move the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an edge cannot go from {from} to {to}", from = .from.as_str(), to = .to.as_str())]
pub struct IllegalEdgeMove {
    /// Where it is.
    pub from: EdgeStatus,
    /// Where it was to go.
    pub to: EdgeStatus,
}

impl EdgeStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// From the wire name; anything else is no status.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "revoked" => Some(Self::Revoked),
            "expired" => Some(Self::Expired),
            _ => None,
        }
    }

    /// active → revoked, a lapsed but unswept edge included.
    pub fn revoke(self) -> Result<Self, IllegalEdgeMove> {
        self.leaves_active_for(Self::Revoked)
    }

    /// active → expired, by the retention job.
    pub fn expire(self) -> Result<Self, IllegalEdgeMove> {
        self.leaves_active_for(Self::Expired)
    }

    fn leaves_active_for(self, to: Self) -> Result<Self, IllegalEdgeMove> {
        if self == Self::Active { Ok(to) } else { Err(IllegalEdgeMove { from: self, to }) }
    }
}

/// What the store knows of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The edge.
    pub id: EdgeId,
    /// Its zone.
    pub zone: ZoneId,
    /// The edge it was narrowed from or mirrors; none for a root.
    pub parent: Option<EdgeId>,
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
    /// Its constraints; `None` when the stored text does not parse, and then the edge lends nothing.
    pub constraints: Option<Constraints>,
    /// Stored status.
    pub status: EdgeStatus,
    /// First instant at which it is no longer live.
    pub expires_at: Timestamp,
}

impl Edge {
    /// Active and unexpired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.status == EdgeStatus::Active && self.expires_at > now
    }

    /// Whether this edge is the mirror of `parent`: begins where it ends, stays in the application, and holds exactly
    /// the same. It is read off the edge, not stored: a narrowed edge always has fewer hops than its parent, so it
    /// can never pass for a mirror.
    pub fn mirrors(&self, parent: &Self) -> bool {
        self.parent.as_ref() == Some(&parent.id)
            && self.source == parent.target
            && self.issuer == parent.receiver
            && self.receiver == parent.receiver
            && self.resource == parent.resource
            && self.scopes == parent.scopes
            && self.constraints.is_some()
            && self.constraints == parent.constraints
            && self.expires_at == parent.expires_at
    }
}
