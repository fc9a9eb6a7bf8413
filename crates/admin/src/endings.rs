//! What ends with a subject, an application, a resource or a zone (contract: admin-api.md §5.1, §5.8, §10; README D15, D19).
//!
//! An operator pulls the plug. In one commit every live record of the holder is revoked with all that descends from it,
//! whoever's that is; every running session that rides any of them ends, with all below it; every delegation from or to
//! such a session is taken back; and each of them is announced by its own name, so that Gateways and verifiers that know
//! nothing of operators refuse what was minted from it.
//!
//! Nothing is passed over because somebody else holds it: a mint that comes later finds the zone moved, and what was
//! minted before is found here (README D4).

use std::time::Duration;

use caracal_authority::lifetime::LifetimeClass;
use caracal_authority::session::TerminationReason;
use caracal_cascade::{end_sessions, events, revoke_edges};
use caracal_store::holdings::{self, Holder};
use caracal_store::resources::Resource;
use caracal_store::{ZoneWrite, records};

use crate::problem::Refusal;

/// A mandate is looked at for so long past its end, for the skew of clocks. A record beyond it can do nothing any more.
const LEEWAY: Duration = Duration::from_secs(120);

/// How much ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ended {
    pub(crate) records: usize,
    pub(crate) sessions: usize,
    pub(crate) delegations: usize,
}

impl Ended {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            sessions: self.sessions + other.sessions,
            delegations: self.delegations + other.delegations,
        }
    }
}

/// Why it ends: what is kept with the records, and what everybody is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Why<'w> {
    pub(crate) kept: &'static str,
    pub(crate) told: &'w str,
}

impl From<&'static str> for Why<'static> {
    fn from(reason: &'static str) -> Self {
        Self { kept: reason, told: reason }
    }
}

/// Ends everything that hangs on the holder.
pub(crate) async fn of_holder(tx: &mut ZoneWrite<'_>, holder: Holder<'_>, why: Why<'_>) -> Result<Ended, Refusal> {
    let after = tx.now().minus(LEEWAY);
    let revoked = holdings::list_active_records(tx, holder, after).await?;
    records::revoke_each(tx, &revoked, why.kept).await?;
    for record in &revoked {
        events::record_revoked(tx, record, why.told).await?;
    }
    let roots = holdings::list_running_sessions(tx, holder).await?;
    let fallen = end_sessions(tx, &roots, &TerminationReason::Asked(why.told.to_owned())).await?;
    Ok(Ended { records: revoked.len(), sessions: fallen.sessions, delegations: fallen.edges })
}

/// Ends what was lent or granted for the resource: delegations that are bound to it, with what lies downstream of them, and
/// mandates that could be presented to it. What is not bound to it lives on, and is granted nothing for it any more.
pub(crate) async fn of_resource(
    tx: &mut ZoneWrite<'_>,
    resource: &Resource,
    reason: &'static str,
) -> Result<Ended, Refusal> {
    let longest = Duration::from_secs(LifetimeClass::Direct.most_seconds().into());
    let since = tx.now().minus(longest + LEEWAY);
    let mandates = holdings::list_active_mandates(tx, &resource.identifier, since).await?;
    records::revoke_each(tx, &mandates, reason).await?;
    for record in &mandates {
        events::record_revoked(tx, record, reason).await?;
    }
    let edges = holdings::list_active_edges(tx, &resource.id).await?;
    let fallen = revoke_edges(tx, &edges, &TerminationReason::Asked(reason.to_owned())).await?;
    Ok(Ended { records: mandates.len(), sessions: fallen.sessions, delegations: fallen.edges })
}
