//! The part of a zone that a cascade can reach: running sessions and active edges. Never too small, and no larger than it
//! has to be: a zone may have a million sessions.

use std::collections::{BTreeMap, BTreeSet};

use caracal_authority::delegation::{Link, Node};
use caracal_authority::session::SessionStatus;
use caracal_authority::{AgentSessionId, EdgeId};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{StoreError, ZoneRead};

/// The row as the graph sees it.
pub fn link(row: &EdgeRow) -> Link {
    Link {
        edge: row.id.clone(),
        parent: row.parent_edge_id.clone(),
        source: row.source_session_id.clone(),
        target: row.target_session_id.clone(),
    }
}

/// What was gathered.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) sessions: BTreeMap<AgentSessionId, SessionRow>,
    edges: BTreeMap<EdgeId, Link>,
}

impl Part {
    /// The sessions and everything below them that runs.
    pub(crate) async fn add_trees(&mut self, tx: &mut ZoneRead<'_>, roots: &[SessionRow]) -> Result<(), StoreError> {
        self.add_below(tx, roots, |_| true).await
    }

    /// The sessions, and what lies below them through sessions of this status.
    pub(crate) async fn add_trees_of(
        &mut self,
        tx: &mut ZoneRead<'_>,
        roots: &[SessionRow],
        status: SessionStatus,
    ) -> Result<(), StoreError> {
        self.add_below(tx, roots, |row| row.status == status.as_str()).await
    }

    async fn add_below(
        &mut self,
        tx: &mut ZoneRead<'_>,
        roots: &[SessionRow],
        passes: impl Fn(&SessionRow) -> bool,
    ) -> Result<(), StoreError> {
        let mut next: Vec<SessionRow> = roots.to_vec();
        while let Some(session) = next.pop() {
            if self.sessions.contains_key(&session.id) {
                continue;
            }
            next.extend(sessions::list_running_children(tx, &session.id).await?.into_iter().filter(&passes));
            self.sessions.insert(session.id.clone(), session);
        }
        Ok(())
    }

    /// Edges from and to the sessions gathered so far, and all that is derived from any gathered edge.
    pub(crate) async fn add_touching(&mut self, tx: &mut ZoneRead<'_>) -> Result<(), StoreError> {
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

    /// The edges and every active edge that can be reached from their targets; the sessions they lead to that still run.
    pub(crate) async fn add_downstream(
        &mut self,
        tx: &mut ZoneRead<'_>,
        first: &[EdgeRow],
    ) -> Result<Vec<SessionRow>, StoreError> {
        let (mut seen, mut next, mut targets) = (BTreeSet::new(), Vec::new(), Vec::new());
        for edge in first {
            self.add_edge(edge);
            if seen.insert(edge.target_session_id.clone()) {
                next.push(edge.target_session_id.clone());
            }
        }
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

    pub(crate) fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let node = |row: &SessionRow| {
            let facts = row.facts()?;
            Ok(Node { session: facts.id, parent: facts.parent, status: facts.status })
        };
        self.sessions.values().map(node).collect()
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.edges.values().cloned().collect()
    }
}
