//! Stops that can be taken back. Nothing lasting is published of a suspension: whoever enforces looks whether the session is
//! live, and a revocation of its anchor could not be taken back by whoever heard of it (difference D15; the reference kills
//! the user's record with it, W2).

use std::time::Duration;

use caracal_authority::delegation;
use caracal_authority::session::SessionStatus;
use caracal_store::ZoneWrite;
use caracal_store::leases;
use caracal_store::sessions::{self, SessionRow};

use crate::gather::Part;
use crate::{CascadeError, events};

/// Why a session is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// Somebody asked for it.
    Requested,
    /// A service was not renewed in time.
    HeartbeatLost,
}

impl Suspension {
    /// `reason` on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::HeartbeatLost => "service_heartbeat_lost",
        }
    }
}

/// Suspends a session and all below it that is reached through active sessions. Returns how many; 0 when the session itself
/// is not active, or was to be suspended for a lease that was renewed meanwhile.
pub async fn suspend(tx: &mut ZoneWrite<'_>, root: &SessionRow, why: Suspension) -> Result<usize, CascadeError> {
    // The row is asked before anything below it is touched: a renewal may have come between reading it and now.
    let fell = match why {
        Suspension::Requested => sessions::suspend(tx, &root.id).await?,
        Suspension::HeartbeatLost => leases::suspend_missed(tx, &root.id).await?,
    };
    if !fell {
        return Ok(0);
    }
    let mut part = Part::default();
    part.add_trees_of(tx, std::slice::from_ref(root), SessionStatus::Active).await?;
    let mut suspended = 0;
    for id in delegation::suspend(&root.id, &part.nodes()?) {
        let Some(row) = part.sessions.get(&id) else { continue };
        if id == root.id || sessions::suspend(tx, &id).await? {
            events::suspended(tx, row, why.as_str()).await?;
            suspended += 1;
        }
    }
    Ok(suspended)
}

/// Resumes a session and all below it that is reached through suspended sessions; services get a lease of full length under
/// the generation they had. Returns how many; 0 when the session itself is not suspended.
pub async fn resume(tx: &mut ZoneWrite<'_>, root: &SessionRow, lease: Duration) -> Result<usize, CascadeError> {
    let mut part = Part::default();
    part.add_trees_of(tx, std::slice::from_ref(root), SessionStatus::Suspended).await?;
    let mut resumed = 0;
    for id in delegation::resume(&root.id, &part.nodes()?) {
        let Some(row) = part.sessions.get(&id) else { continue };
        if sessions::resume(tx, &id, lease).await? {
            events::resumed(tx, row).await?;
            resumed += 1;
        }
    }
    Ok(resumed)
}
