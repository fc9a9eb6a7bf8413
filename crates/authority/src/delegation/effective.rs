//! Effective authority of a session: what all live delegations to it allow at once (contract: coordinator.md §6.4).

use std::collections::BTreeSet;

use super::{Constraints, Edge};
use crate::resource::ResourceIdentifier;
use crate::scope::Scope;
use crate::{EdgeId, ResourceId, Timestamp};

/// What a session holds through its live inbound edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveAuthority {
    /// Every live inbound edge, those with unreadable constraints included.
    pub inbound_edges: Vec<EdgeId>,
    /// The intersection of their scopes, sorted.
    pub scopes: Vec<Scope>,
    /// The rows they are tied to, sorted.
    pub resource_ids: BTreeSet<ResourceId>,
    /// Every identifier they name, by row or in constraints, sorted.
    pub resources: BTreeSet<ResourceIdentifier>,
    /// Whether any of them names a resource.
    pub resource_constrained: bool,
    /// The fewest hops; nothing when no edge could be read.
    pub max_hops: Option<u8>,
    /// The shortest mandate life, in seconds.
    pub ttl_seconds: Option<u32>,
    /// The first expiry; nothing when no edge could be read.
    pub earliest_expires_at: Option<Timestamp>,
}

/// Combines the live ones of `inbound`, all edges to one session. `None` when none is live.
pub fn effective_authority(inbound: &[Edge], now: Timestamp) -> Option<EffectiveAuthority> {
    let live: Vec<&Edge> = inbound.iter().filter(|edge| edge.is_live(now)).collect();
    if live.is_empty() {
        return None;
    }
    let read: Vec<(&Edge, &Constraints)> =
        live.iter().filter_map(|edge| edge.constraints.as_ref().map(|constraints| (*edge, constraints))).collect();
    let scopes = read.iter().map(|(edge, _)| edge.scopes.clone()).reduce(|all, next| all.intersection(&next));
    let rows = || read.iter().filter_map(|(edge, _)| edge.resource.as_ref());
    let listed = || read.iter().flat_map(|(_, constraints)| constraints.resources());
    Some(EffectiveAuthority {
        inbound_edges: live.iter().map(|edge| edge.id.clone()).collect(),
        scopes: scopes.map(|scopes| scopes.distinct().to_vec()).unwrap_or_default(),
        resource_ids: rows().map(|row| row.id.clone()).collect(),
        resources: rows().map(|row| &row.identifier).chain(listed()).cloned().collect(),
        resource_constrained: rows().next().is_some() || listed().next().is_some(),
        max_hops: read.iter().map(|(_, constraints)| constraints.hops()).min(),
        ttl_seconds: read.iter().filter_map(|(_, constraints)| constraints.ttl_seconds()).min(),
        earliest_expires_at: read.iter().map(|(edge, _)| edge.expires_at).min(),
    })
}
