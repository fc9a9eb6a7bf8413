//! Leases of services: who holds one, until when, and whose was missed. See [`crate::sessions`] for the rest of a session.
//!
//! Renewals run beside all other changes of the zone ([`crate::Store::commit_row`]), so each statement here says in its
//! condition what it relies on. Whichever of a renewal, a take-over, a suspension and an end comes second finds the row as
//! the first one left it, and changes nothing where its condition no longer holds.

use caracal_authority::session::Lease;
use caracal_authority::{AgentSessionId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::sessions::{COLUMNS, SessionRow, for_ever, read};
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

/// Moves the deadline of a service that is still held under the lease's generation, and within its lease unless it is
/// suspended. `false` when it is not.
pub async fn renew(tx: &mut ZoneWrite<'_>, id: &AgentSessionId, lease: Lease) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let generation = i64::try_from(lease.generation).unwrap_or(i64::MAX);
    let sql = "UPDATE agent_sessions SET heartbeat_deadline_at = ?5, last_heartbeat_at = ?4, last_active_at = ?4,
                 updated_at = ?4, capacity_until = CASE WHEN status = 'active' THEN ?5 ELSE capacity_until END
               WHERE zone_id = ?1 AND id = ?2 AND lifecycle = 'service' AND lease_generation = ?3
                 AND (status = 'suspended' OR (status = 'active' AND heartbeat_deadline_at > ?4))";
    Ok(tx.tx.append(sql, params![zone, id, generation, now, lease.deadline]).await? == 1)
}

/// Gives an active service to a new holder under the lease's generation, which has to follow the one it has. `false` when
/// it does not, or the lease was missed meanwhile. Nobody mints under a generation, so no decision has to look again.
pub async fn take_over(tx: &mut ZoneWrite<'_>, id: &AgentSessionId, lease: Lease) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let generation = i64::try_from(lease.generation).unwrap_or(i64::MAX);
    let sql = "UPDATE agent_sessions SET lease_generation = ?3, heartbeat_deadline_at = ?5, last_heartbeat_at = ?4,
                 last_active_at = ?4, updated_at = ?4, capacity_until = ?5
               WHERE zone_id = ?1 AND id = ?2 AND lifecycle = 'service' AND lease_generation = ?3 - 1
                 AND status = 'active' AND heartbeat_deadline_at > ?4";
    Ok(tx.tx.append(sql, params![zone, id, generation, now, lease.deadline]).await? == 1)
}

/// Suspends an active service whose lease was missed; `false` when it was renewed meanwhile, or is not active.
pub async fn suspend_missed(tx: &mut ZoneWrite<'_>, id: &AgentSessionId) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE agent_sessions SET status = 'suspended', updated_at = ?3, capacity_until = ?4
               WHERE zone_id = ?1 AND id = ?2 AND lifecycle = 'service' AND status = 'active'
                 AND heartbeat_deadline_at <= ?3";
    Ok(tx.tx.execute(sql, params![zone, id, now, for_ever()]).await? == 1)
}

/// Active services whose lease was missed, longest overdue first, `limit` at most.
pub async fn list_missed(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<SessionRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agent_sessions
         WHERE zone_id = ?1 AND capacity_until <= ?2 AND lifecycle = 'service' AND status = 'active'
         ORDER BY capacity_until, id LIMIT ?3"
    );
    let now = tx.now();
    tx.tx.query(&sql, params![tx.zone, now, limit]).await?.into_iter().map(read).collect()
}

/// The first zone after `after`, in the order of ids, in which something that runs is past its time: a task its end, a
/// service its lease.
pub async fn find_overdue_zone(
    tx: &mut DeploymentRead<'_>,
    after: Option<&ZoneId>,
) -> Result<Option<ZoneId>, StoreError> {
    let after = after.map_or("", ZoneId::as_str);
    let now: Timestamp = tx.now();
    let sql = "SELECT zone_id FROM agent_sessions
               WHERE zone_id > ?1 AND capacity_until IS NOT NULL AND capacity_until <= ?2 ORDER BY zone_id LIMIT 1";
    let row = tx.tx().query_one(sql, params![after, now]).await?;
    row.map(|row| row.columns("agent_sessions").next()).transpose()
}
