//! Ends. **Which record ends with them.** An application's record belongs to all its sessions and to none: it is never
//! revoked as collateral (difference D15). A user's record ends with the last running session that is anchored to it,
//! whatever ended that session, and takes along what was minted from it. The reference also revokes it on the revocation of
//! an edge while other sessions still use it; that reaches too far (W4), and the sessions concerned are published by their
//! own names.

use std::collections::{BTreeSet, HashSet};

use caracal_authority::delegation::{Cascade, revoke, terminate};
use caracal_authority::record::SubjectKind;
use caracal_authority::session::TerminationReason;
use caracal_authority::{AgentSessionId, AuthorityRecordId, EdgeId};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{ZoneWrite, records};

use crate::gather::Part;
use crate::{CascadeError, events};

/// What a cascade changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fallen {
    /// Sessions that ended.
    pub sessions: usize,
    /// Edges that were revoked.
    pub edges: usize,
    /// For revoked edges: distinct records behind the sessions they led to.
    pub records: usize,
}

/// Ends running sessions and all that falls with them.
pub async fn end_sessions(
    tx: &mut ZoneWrite<'_>,
    roots: &[SessionRow],
    reason: &TerminationReason,
) -> Result<Fallen, CascadeError> {
    let mut part = Part::default();
    part.add_trees(tx, roots).await?;
    part.add_touching(tx).await?;
    let ids: Vec<AgentSessionId> = roots.iter().map(|root| root.id.clone()).collect();
    let cascade = terminate(&ids, reason, &part.nodes()?, &part.links());
    write_down(tx, &part, &cascade, reason, &[]).await
}

/// Revokes active edges, lapsed or not, and all that falls with them: what lies downstream, and the sessions all those
/// edges lead to. Their sources go on.
pub async fn revoke_edges(
    tx: &mut ZoneWrite<'_>,
    edges: &[EdgeRow],
    reason: &TerminationReason,
) -> Result<Fallen, CascadeError> {
    let mut part = Part::default();
    let targets = part.add_downstream(tx, edges).await?;
    part.add_trees(tx, &targets).await?;
    part.add_touching(tx).await?;
    let asked: Vec<EdgeId> = edges.iter().map(|edge| edge.id.clone()).collect();
    let cascade = revoke(&asked, reason, &part.nodes()?, &part.links());
    let mut fallen = write_down(tx, &part, &cascade, reason, &asked).await?;
    fallen.records = targets.iter().map(|target| &target.subject_record_id).collect::<HashSet<_>>().len();
    Ok(fallen)
}

/// Writes a cascade down. The epoch rises once, if an edge fell (D14). `asked` are the edges whose revocation was asked for:
/// their messages tell how many fell.
async fn write_down(
    tx: &mut ZoneWrite<'_>,
    part: &Part,
    cascade: &Cascade,
    reason: &TerminationReason,
    asked: &[EdgeId],
) -> Result<Fallen, CascadeError> {
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
            let affected = asked.contains(edge).then_some(revoked_edges.len());
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
) -> Result<HashSet<AuthorityRecordId>, CascadeError> {
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
