//! The delegation graph and the session tree: circles, what lies downstream, and what a revocation takes with it
//! (contract: coordinator.md §9). Plain graph functions over facts; who locks and commits is the Coordinator's affair.
//!
//! Nothing here stops after ten edges: a longer path, however it came to be, is walked to its end, each edge once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::Edge;
use crate::session::{SessionStatus, TerminationReason};
use crate::{AgentSessionId, EdgeId};

/// An edge as the graph sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The edge.
    pub edge: EdgeId,
    /// The edge it was narrowed from or mirrors.
    pub parent: Option<EdgeId>,
    /// The session that lends.
    pub source: AgentSessionId,
    /// The session that receives.
    pub target: AgentSessionId,
}

impl From<&Edge> for Link {
    fn from(edge: &Edge) -> Self {
        Self {
            edge: edge.id.clone(),
            parent: edge.parent.clone(),
            source: edge.source.clone(),
            target: edge.target.clone(),
        }
    }
}

/// A session as the tree sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The session.
    pub session: AgentSessionId,
    /// The session it was started under.
    pub parent: Option<AgentSessionId>,
    /// Stored status.
    pub status: SessionStatus,
}

/// Whether an edge `source` → `target` would close a circle: a path target → source exists among `links`, the edges
/// that lend something now. A session that lends to itself is a circle of one.
pub fn closes_cycle(links: &[Link], source: &AgentSessionId, target: &AgentSessionId) -> bool {
    let out = outgoing(links);
    let mut seen = HashSet::from([target]);
    let mut queue = vec![target];
    while let Some(session) = queue.pop() {
        if session == source {
            return true;
        }
        let next = out.get(session).into_iter().flatten().map(|link| &link.target);
        queue.extend(next.filter(|session| seen.insert(session)));
    }
    false
}

/// An edge downstream of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached<'l> {
    /// The edge.
    pub link: &'l Link,
    /// Its distance: 1 is the edge asked for.
    pub depth: u32,
}

/// The edge `start` and every edge that can be reached from its target, nearest first, then by id; each once.
/// Empty when `start` is not among `links`.
pub fn downstream<'l>(links: &'l [Link], start: &EdgeId) -> Vec<Reached<'l>> {
    reachable(links, std::slice::from_ref(start))
}

/// [`downstream`] of several edges at once, each edge at its distance from the nearest of them.
fn reachable<'l>(links: &'l [Link], starts: &[EdgeId]) -> Vec<Reached<'l>> {
    let starts: HashSet<&EdgeId> = starts.iter().collect();
    let out = outgoing(links);
    let mut seen = HashSet::new();
    let first = links.iter().filter(|link| starts.contains(&link.edge) && seen.insert(&link.edge));
    let mut reached: Vec<Reached<'_>> = first.map(|link| Reached { link, depth: 1 }).collect();
    let mut queue: VecDeque<(&AgentSessionId, u32)> = reached.iter().map(|first| (&first.link.target, 1)).collect();
    while let Some((session, depth)) = queue.pop_front() {
        for link in out.get(session).into_iter().flatten().filter(|link| seen.insert(&link.edge)) {
            reached.push(Reached { link, depth: depth + 1 });
            queue.push_back((&link.target, depth + 1));
        }
    }
    reached.sort_by(|one, other| (one.depth, &one.link.edge).cmp(&(other.depth, &other.link.edge)));
    reached
}

/// A session that a cascade ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The session.
    pub session: AgentSessionId,
    /// Why; also says the status it ends in.
    pub reason: TerminationReason,
}

/// All that one termination or revocation takes with it, to be committed as one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cascade {
    /// Edges to revoke, by id. Raises the epoch once if there is any.
    pub edges: BTreeSet<EdgeId>,
    /// Sessions to end: those the cascade starts from, then descendants, parents before children.
    pub sessions: Vec<Ended>,
}

/// What ending `roots` takes with it: every descendant through sessions that still run, every edge from or to any of
/// them, and every edge derived from such an edge. The reference leaves derived edges `active`; no lineage through
/// them ever validates again, so they are revoked by name and verifiers hear of them.
///
/// `nodes`: at least the roots and all that descends from them. `links`: all edges with status active, lapsed or not.
pub fn terminate(roots: &[AgentSessionId], reason: &TerminationReason, nodes: &[Node], links: &[Link]) -> Cascade {
    let sessions = ended(roots, reason, nodes);
    let over: HashSet<&AgentSessionId> = sessions.iter().map(|ended| &ended.session).collect();
    let touching = links.iter().filter(|link| over.contains(&link.source) || over.contains(&link.target));
    let edges = with_derived(touching.map(|link| &link.edge).collect(), links);
    Cascade { edges, sessions }
}

/// What revoking `edges` takes with it: the edges, all that is downstream of them, and the end of every session all those
/// edges lead to, for `reason`. The sessions that lent through them survive, unless they lie downstream themselves.
///
/// `nodes` and `links` as for [`terminate`]; edges that are not among `links` take nothing with them.
pub fn revoke(edges: &[EdgeId], reason: &TerminationReason, nodes: &[Node], links: &[Link]) -> Cascade {
    let reached = reachable(links, edges);
    let mut seen = HashSet::new();
    let targets: Vec<AgentSessionId> =
        reached.iter().map(|reached| &reached.link.target).filter(|target| seen.insert(*target)).cloned().collect();
    let mut cascade = terminate(&targets, reason, nodes, links);
    cascade.edges.extend(with_derived(reached.iter().map(|reached| &reached.link.edge).collect(), links));
    cascade
}

/// The sessions that suspending `root` suspends: itself and what descends from it through active sessions.
pub fn suspend(root: &AgentSessionId, nodes: &[Node]) -> Vec<AgentSessionId> {
    subtree([root], nodes, |status| status == SessionStatus::Active)
        .into_iter()
        .map(|(session, _)| session.clone())
        .collect()
}

/// The sessions that resuming `root` resumes: itself and what descends from it through suspended sessions.
pub fn resume(root: &AgentSessionId, nodes: &[Node]) -> Vec<AgentSessionId> {
    subtree([root], nodes, |status| status == SessionStatus::Suspended)
        .into_iter()
        .map(|(session, _)| session.clone())
        .collect()
}

fn ended(roots: &[AgentSessionId], reason: &TerminationReason, nodes: &[Node]) -> Vec<Ended> {
    let running = subtree(roots, nodes, |status| !status.is_terminal());
    let reason = |is_root| if is_root { reason.clone() } else { TerminationReason::ParentTerminated };
    running.into_iter().map(|(session, is_root)| Ended { session: session.clone(), reason: reason(is_root) }).collect()
}

/// `roots` that satisfy `through`, then their descendants reachable through sessions that satisfy it, level by level,
/// each once, with whether it is one of the roots.
fn subtree<'n>(
    roots: impl IntoIterator<Item = &'n AgentSessionId>,
    nodes: &'n [Node],
    through: impl Fn(SessionStatus) -> bool,
) -> Vec<(&'n AgentSessionId, bool)> {
    let mut status = HashMap::new();
    let mut children: HashMap<&AgentSessionId, Vec<&AgentSessionId>> = HashMap::new();
    for node in nodes {
        status.insert(&node.session, node.status);
        if let Some(parent) = &node.parent {
            children.entry(parent).or_default().push(&node.session);
        }
    }
    let passes = |session: &AgentSessionId| status.get(session).is_some_and(|status| through(*status));
    let mut seen = HashSet::new();
    let mut found: Vec<(&AgentSessionId, bool)> =
        roots.into_iter().filter(|root| passes(root) && seen.insert(*root)).map(|root| (root, true)).collect();
    let mut at = 0;
    while let Some((session, _)) = found.get(at).copied() {
        let below = children.get(session).into_iter().flatten().copied();
        found.extend(below.filter(|child| passes(child) && seen.insert(*child)).map(|child| (child, false)));
        at += 1;
    }
    found
}

/// `edges` and every edge that has one of them above it.
fn with_derived(edges: HashSet<&EdgeId>, links: &[Link]) -> BTreeSet<EdgeId> {
    let mut derived: HashMap<&EdgeId, Vec<&EdgeId>> = HashMap::new();
    for link in links {
        if let Some(parent) = &link.parent {
            derived.entry(parent).or_default().push(&link.edge);
        }
    }
    let mut all: BTreeSet<EdgeId> = BTreeSet::new();
    let mut queue: Vec<&EdgeId> = edges.into_iter().collect();
    while let Some(edge) = queue.pop() {
        if all.insert(edge.clone()) {
            queue.extend(derived.get(edge).into_iter().flatten().copied());
        }
    }
    all
}

fn outgoing(links: &[Link]) -> HashMap<&AgentSessionId, Vec<&Link>> {
    let mut out: HashMap<&AgentSessionId, Vec<&Link>> = HashMap::new();
    for link in links {
        out.entry(&link.source).or_default().push(link);
    }
    out
}
