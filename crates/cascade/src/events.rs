//! What the rest of the world hears of a change: messages that leave with its commit (contract: coordinator.md §12,
//! audit-and-streams.md §6.4). Absent members are left out, not written as `null`.
//!
//! Whoever verifies mandates offline learns of an end only from here. So every ended session and every revoked edge is
//! published by its own name, whatever else is published about the record behind it (difference D15).

use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, OutboxId};
use caracal_store::invocations::Invocation;
use caracal_store::sessions::SessionRow;
use caracal_store::{ZoneWrite, outbox};

use crate::{CascadeError, new_id};

const LIFECYCLE: &str = "caracal.agents.lifecycle";
const REVOKE: &str = "caracal.sessions.revoke";
const INVALIDATE: &str = "caracal.delegations.invalidate";
const INVOCATIONS: &str = "caracal.invocations.lifecycle";

/// A message in the making: fields in order, the zone always among them.
struct Message {
    topic: &'static str,
    dedupe_key: String,
    fields: Vec<(String, String)>,
}

impl Message {
    fn new(topic: &'static str, dedupe_key: String) -> Self {
        Self { topic, dedupe_key, fields: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    fn with_known(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    async fn publish(self, tx: &mut ZoneWrite<'_>) -> Result<(), CascadeError> {
        let zone = tx.zone().clone();
        let message = self.with("zone_id", zone);
        let id: OutboxId = new_id(tx.now())?;
        outbox::add(tx, id, message.topic, &message.dedupe_key, message.fields).await?;
        Ok(())
    }
}

/// A session started.
pub async fn spawned(
    tx: &mut ZoneWrite<'_>,
    session: &AgentSessionId,
    parent: Option<&AgentSessionId>,
    application: &ApplicationId,
) -> Result<(), CascadeError> {
    Message::new(LIFECYCLE, format!("spawn:{session}"))
        .with("event", "spawn")
        .with("agent_session_id", session)
        .with_known("parent_id", parent)
        .with("application_id", application)
        .publish(tx)
        .await
}

/// A session ended. `revoked` is its record, when that ended with it.
pub async fn terminated(
    tx: &mut ZoneWrite<'_>,
    session: &SessionRow,
    revoked: Option<&AuthorityRecordId>,
    reason: &str,
) -> Result<(), CascadeError> {
    Message::new(REVOKE, format!("agent_terminate:{}", session.id))
        .with_known("session_id", revoked)
        .with("agent_session_id", &session.id)
        .with("reason", reason)
        .publish(tx)
        .await?;
    Message::new(LIFECYCLE, format!("terminate:{}", session.id))
        .with("event", "terminate")
        .with("agent_session_id", &session.id)
        .with_known("parent_id", session.parent_id.as_ref())
        .with("reason", reason)
        .publish(tx)
        .await
}

/// A session was suspended, for the reason `requested` or `service_heartbeat_lost`. The time is part of the key, so that
/// each of several suspensions is published.
pub async fn suspended(tx: &mut ZoneWrite<'_>, session: &SessionRow, reason: &str) -> Result<(), CascadeError> {
    Message::new(LIFECYCLE, format!("suspend:{}:{}", session.id, tx.now().to_micros_text()))
        .with("event", "suspend")
        .with("agent_session_id", &session.id)
        .with_known("parent_id", session.parent_id.as_ref())
        .with("reason", reason)
        .publish(tx)
        .await
}

/// A session was resumed.
pub async fn resumed(tx: &mut ZoneWrite<'_>, session: &SessionRow) -> Result<(), CascadeError> {
    Message::new(LIFECYCLE, format!("resume:{}:{}", session.id, tx.now().to_micros_text()))
        .with("event", "resume")
        .with("agent_session_id", &session.id)
        .with_known("parent_id", session.parent_id.as_ref())
        .publish(tx)
        .await
}

/// A record was revoked by itself, or because the record it descends from was.
pub async fn record_revoked(
    tx: &mut ZoneWrite<'_>,
    record: &AuthorityRecordId,
    reason: &str,
) -> Result<(), CascadeError> {
    Message::new(REVOKE, format!("record_revoke:{record}"))
        .with("session_id", record)
        .with("reason", reason)
        .publish(tx)
        .await
}

/// An edge was made. The epoch is told, not raised: nobody's authority shrank (difference D14).
pub async fn edge_created(
    tx: &mut ZoneWrite<'_>,
    edge: &EdgeId,
    source: &AgentSessionId,
    target: &AgentSessionId,
    epoch: i64,
) -> Result<(), CascadeError> {
    Message::new(INVALIDATE, format!("edge_create:{edge}"))
        .with("event", "edge_create")
        .with("edge_id", edge)
        .with("source_session_id", source)
        .with("target_session_id", target)
        .with("epoch", epoch)
        .publish(tx)
        .await
}

/// Edges lapsed and were marked as expired: the epoch rose once for all of them.
pub async fn edges_expired(tx: &mut ZoneWrite<'_>, edges: &[EdgeId], epoch: i64) -> Result<(), CascadeError> {
    // Ids have no character that JSON would escape.
    let listed: Vec<String> = edges.iter().map(|edge| format!("\"{edge}\"")).collect();
    Message::new(INVALIDATE, format!("edge_expire:{}:{epoch}", tx.zone()))
        .with("event", "edge_expire")
        .with("affected_edges", edges.len())
        .with("edge_ids", format!("[{}]", listed.join(",")))
        .with("epoch", epoch)
        .publish(tx)
        .await
}

/// An edge was revoked: its anchor for those who look at anchors, the epoch for those who compare epochs.
/// `affected` is the number of edges that fell, told with the edge that was asked for.
pub async fn edge_revoked(
    tx: &mut ZoneWrite<'_>,
    edge: &EdgeId,
    reason: &str,
    affected: Option<usize>,
    epoch: i64,
) -> Result<(), CascadeError> {
    Message::new(REVOKE, format!("delegation:{edge}"))
        .with("delegation_edge_id", edge)
        .with("reason", reason)
        .publish(tx)
        .await?;
    Message::new(INVALIDATE, format!("edge_revoke:{edge}"))
        .with("event", "edge_revoke")
        .with("edge_id", edge)
        .with("reason", reason)
        .with_known("affected_edges", affected)
        .with("epoch", epoch)
        .publish(tx)
        .await
}

/// An invocation was asked for, or moved. Each attempt has messages of its own.
pub async fn invocation_moved(
    tx: &mut ZoneWrite<'_>,
    event: &'static str,
    invocation: &Invocation,
) -> Result<(), CascadeError> {
    Message::new(INVOCATIONS, format!("{event}:{}:{}", invocation.id, invocation.attempts))
        .with("event", event)
        .with("service_id", &invocation.service_id)
        .with("invocation_id", &invocation.id)
        .publish(tx)
        .await
}
