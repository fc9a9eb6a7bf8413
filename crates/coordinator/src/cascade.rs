//! What falls with a session or an edge (contract: coordinator.md §9, differences D14 and D15).
//!
//! A session ends. Its children run on its authority, so they end; every edge from or to any of them lends nothing any
//! more, so it is revoked; and where the session was the last to act for a user, the user's record, which was proven for
//! that session, ends too. `authority` says what falls ([`graph`](caracal_authority::delegation)); this module gathers
//! exactly the part of the zone it needs to know, and writes the result down as one change with all its messages.
//!
//! All of it happens inside the caller's transaction. A mint reads sessions and edges in its own, so it either committed
//! before and is found by its anchors, or finds them ended and fails (difference D4).
//!
//! **Which record ends.** An application's record belongs to all its sessions and to none: it is never revoked as
//! collateral (D15). A user's record ends with the last running session that is anchored to it, whatever ended that
//! session, and takes along what was minted from it. The reference also revokes it on the revocation of an edge while
//! other sessions still use it; that reaches too far (W4), and the sessions concerned are published by their own names.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use caracal_authority::delegation::{Cascade, Link, Node, revoke, terminate};
use caracal_authority::record::SubjectKind;
use caracal_authority::session::TerminationReason;
use caracal_authority::{AgentSessionId, AuthorityRecordId, EdgeId};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{StoreError, ZoneRead, ZoneWrite, records};

use crate::events;
use crate::facts::link;
use crate::outage::Outage;

/// What a cascade changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fallen {
    /// Sessions that ended.
    pub(crate) sessions: usize,
    /// Edges that were revoked.
    pub(crate) edges: usize,
    /// Distinct records behind the sessions that the revoked edges led to.
    pub(crate) records: usize,
}

/// Ends running sessions and all that falls with them.
pub(crate) async fn end_sessions(
    tx: &mut ZoneWrite<'_>,
    roots: &[SessionRow],
    reason: &TerminationReason,
) -> Result<Fallen, Outage> {
    let mut part = Part::default();
    part.add_trees(tx, roots).await?;
    part.add_touching(tx).await?;
    let ids: Vec<AgentSessionId> = roots.iter().map(|root| root.id.clone()).collect();
    let cascade = terminate(&ids, reason, &part.nodes()?, &part.links());
    write_down(tx, &part, &cascade, reason, None).await
}

/// Revokes an active edge, lapsed or not, and all that falls with it. Its source goes on.
pub(crate) async fn revoke_edge(tx: &mut ZoneWrite<'_>, edge: &EdgeRow) -> Result<Fallen, Outage> {
    let mut part = Part::default();
    let targets = part.add_downstream(tx, edge).await?;
    part.add_trees(tx, &targets).await?;
    part.add_touching(tx).await?;
    let cascade = revoke(&edge.id, &part.nodes()?, &part.links());
    let mut fallen = write_down(tx, &part, &cascade, &TerminationReason::DelegationRevoked, Some(&edge.id)).await?;
    fallen.records = targets.iter().map(|target| &target.subject_record_id).collect::<HashSet<_>>().len();
    Ok(fallen)
}

/// The part of a zone that a cascade can reach: running sessions and active edges.
#[derive(Default)]
struct Part {
    sessions: BTreeMap<AgentSessionId, SessionRow>,
    edges: BTreeMap<EdgeId, Link>,
}

impl Part {
    /// The sessions and everything below them that runs.
    async fn add_trees(&mut self, tx: &mut ZoneRead<'_>, roots: &[SessionRow]) -> Result<(), StoreError> {
        let mut next: Vec<SessionRow> = roots.to_vec();
        while let Some(session) = next.pop() {
            if self.sessions.contains_key(&session.id) {
                continue;
            }
            next.extend(sessions::list_running_children(tx, &session.id).await?);
            self.sessions.insert(session.id.clone(), session);
        }
        Ok(())
    }

    /// Edges from and to the sessions gathered so far, and all that is derived from any gathered edge.
    async fn add_touching(&mut self, tx: &mut ZoneRead<'_>) -> Result<(), StoreError> {
        let mut next: Vec<EdgeId> = self.edges.keys().cloned().collect();
        let ids: Vec<AgentSessionId> = self.sessions.keys().cloned().collect();
        for session in &ids {
            for edge in delegations::list_active_from(tx, session).await? {
                next.extend(self.add_edge(&edge));
            }
            for edge in delegations::list_active_to(tx, session).await? {
                next.extend(self.add_edge(&edge));
            }
        }
        while let Some(parent) = next.pop() {
            for edge in delegations::list_active_derived(tx, &parent).await? {
                next.extend(self.add_edge(&edge));
            }
        }
        Ok(())
    }

    /// The edge and every active edge that can be reached from its target; the sessions they lead to that still run.
    async fn add_downstream(&mut self, tx: &mut ZoneRead<'_>, first: &EdgeRow) -> Result<Vec<SessionRow>, StoreError> {
        self.add_edge(first);
        let mut seen = BTreeSet::from([first.target_session_id.clone()]);
        let mut next = vec![first.target_session_id.clone()];
        let mut targets = Vec::new();
        while let Some(session) = next.pop() {
            for edge in delegations::list_active_from(tx, &session).await? {
                self.add_edge(&edge);
                if seen.insert(edge.target_session_id.clone()) {
                    next.push(edge.target_session_id);
                }
            }
            let target = sessions::lookup(tx, &session).await?;
            targets.extend(target.filter(|target| matches!(target.status.as_str(), "active" | "suspended")));
        }
        Ok(targets)
    }

    /// Gathers an edge; says which when it is new.
    fn add_edge(&mut self, row: &EdgeRow) -> Option<EdgeId> {
        self.edges.insert(row.id.clone(), link(row)).is_none().then(|| row.id.clone())
    }

    fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let node = |row: &SessionRow| {
            let facts = row.facts()?;
            Ok(Node { session: facts.id, parent: facts.parent, status: facts.status })
        };
        self.sessions.values().map(node).collect()
    }

    fn links(&self) -> Vec<Link> {
        self.edges.values().cloned().collect()
    }
}

/// Writes a cascade down. The epoch rises once, if an edge fell (D14). `asked` is the edge whose revocation was asked for:
/// its message tells how many fell with it.
async fn write_down(
    tx: &mut ZoneWrite<'_>,
    part: &Part,
    cascade: &Cascade,
    reason: &TerminationReason,
    asked: Option<&EdgeId>,
) -> Result<Fallen, Outage> {
    for ended in &cascade.sessions {
        sessions::end(tx, &ended.session, ended.reason.final_status(), ended.reason.as_str()).await?;
    }
    let mut revoked_edges = Vec::new();
    for edge in &cascade.edges {
        if delegations::revoke(tx, edge).await? {
            revoked_edges.push(edge);
        }
    }
    let rows: Vec<&SessionRow> =
        cascade.sessions.iter().filter_map(|ended| part.sessions.get(&ended.session)).collect();
    let records = revoke_unused_records(tx, &rows, reason.as_str()).await?;
    for row in rows {
        let record = Some(&row.subject_record_id).filter(|record| records.contains(record));
        // The root's reason, also for descendants: whoever hears of a child asks why all of it ended.
        events::terminated(tx, row, record, reason.as_str()).await?;
    }
    if !revoked_edges.is_empty() {
        let epoch = delegations::raise_epoch(tx).await?;
        for edge in &revoked_edges {
            let affected = asked.filter(|asked| *asked == *edge).map(|_| revoked_edges.len());
            events::edge_revoked(tx, edge, reason.as_str(), affected, epoch).await?;
        }
    }
    Ok(Fallen { sessions: cascade.sessions.len(), edges: revoked_edges.len(), records: 0 })
}

/// Revokes the user records behind `ended` that no running session is anchored to any more, with what descends from
/// them. Returns those records; their descendants are published here.
async fn revoke_unused_records(
    tx: &mut ZoneWrite<'_>,
    ended: &[&SessionRow],
    reason: &str,
) -> Result<HashSet<AuthorityRecordId>, Outage> {
    let anchors: BTreeSet<&AuthorityRecordId> = ended.iter().map(|row| &row.subject_record_id).collect();
    let mut unused = HashSet::new();
    for anchor in anchors {
        let Some(record) = records::lookup(tx, anchor).await? else { continue };
        if record.facts()?.kind != SubjectKind::User || sessions::is_anchor(tx, anchor).await? {
            continue;
        }
        for fallen in records::revoke_with_descendants(tx, anchor, reason).await? {
            if fallen != *anchor {
                events::record_revoked(tx, &fallen, reason).await?;
            }
        }
        unused.insert(anchor.clone());
    }
    Ok(unused)
}
