//! Whether all that a mandate hangs on still stands: its application, its records, its session, its delegations. What is
//! not there at all stands for nothing.

use std::collections::BTreeSet;

use caracal_authority::mandate::Claims;
use caracal_authority::record::RecordStatus;
use caracal_authority::{AuthorityRecordId, EdgeId};
use caracal_store::{StoreError, ZoneRead, applications, delegations, records, sessions};

/// Whether nothing that the mandate hangs on has ended. Signature, audience and time were looked at before; a record's own
/// expiry is the mandate's, for which clocks have their leeway.
pub(super) async fn stands(zone: &mut ZoneRead<'_>, claims: &Claims) -> Result<bool, StoreError> {
    let now = zone.now();
    let application = applications::lookup(zone, &claims.client).await?;
    if !application.is_some_and(|application| application.is_live(now)) {
        return Ok(false);
    }
    let anchors: BTreeSet<&AuthorityRecordId> = claims.record.iter().chain(&claims.root_record).collect();
    for anchor in anchors {
        let record = records::lookup(zone, anchor).await?.map(|record| record.facts()).transpose()?;
        if record.is_none_or(|record| record.status == RecordStatus::Revoked) {
            return Ok(false);
        }
    }
    if let Some(session) = &claims.session {
        let session = sessions::lookup(zone, session).await?.map(|session| session.facts()).transpose()?;
        if !session.is_some_and(|session| session.is_active(now)) {
            return Ok(false);
        }
    }
    let edges: BTreeSet<&EdgeId> = claims.delegation.iter().chain(&claims.path).collect();
    for edge in edges {
        let edge = delegations::lookup(zone, edge).await?;
        if !edge.is_some_and(|edge| edge.status == "active" && edge.expires_at > now) {
            return Ok(false);
        }
    }
    Ok(true)
}
