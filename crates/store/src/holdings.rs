//! What hangs on a subject, an application, a resource or a zone: the authority that ends with it (contract: admin-api.md
//! §5.1, §5.8; README D19).

use caracal_authority::{ApplicationId, AuthorityRecordId, MetadataKey, ResourceId, Timestamp};

use crate::delegations::{self, EdgeRow};
use crate::error::StoreError;
use crate::sessions::{self, SessionRow};
use crate::tx::ZoneRead;
use crate::value::{Bind, params};

/// Whose authority is to end.
#[derive(Debug, Clone, Copy)]
pub enum Holder<'a> {
    /// A subject's, through whatever application.
    Subject(&'a str),
    /// All that an application asked for, on whoever's behalf.
    Client(&'a ApplicationId),
    /// Everybody's.
    Zone,
}

impl Holder<'_> {
    /// A condition on `authority_records r`, and what is bound at ?2 for it.
    fn condition(&self) -> (&'static str, &str) {
        match self {
            Self::Subject(subject) => ("r.subject_id = ?2", subject),
            Self::Client(application) => ("r.client_id = ?2", application.as_str()),
            Self::Zone => ("?2 = ''", ""),
        }
    }
}

/// Active records of the holder that end after `after`, and active ones that descend from any of the holder's whatever
/// state that is in; oldest first.
pub async fn list_active_records(
    tx: &mut ZoneRead<'_>,
    holder: Holder<'_>,
    after: Timestamp,
) -> Result<Vec<AuthorityRecordId>, StoreError> {
    let (condition, of) = holder.condition();
    // `UNION` drops what was met already, so it ends whatever the parents say.
    let sql = format!(
        "WITH RECURSIVE family (id) AS (
           SELECT r.id FROM authority_records r WHERE r.zone_id = ?1 AND {condition} AND r.expires_at > ?3
           UNION SELECT r.id FROM family f CROSS JOIN authority_records r WHERE r.zone_id = ?1 AND r.parent_id = f.id
         )
         SELECT r.id FROM family f CROSS JOIN authority_records r
         WHERE r.zone_id = ?1 AND r.id = f.id AND r.status = 'active' AND r.expires_at > ?3 ORDER BY r.created_at, r.id"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, of, after]).await?;
    rows.into_iter().map(|row| row.columns("authority_records").next()).collect()
}

/// Live records behind mandates that were granted for `resource` since `since`, by what evidence says of them: what could
/// be presented to the resource itself or at the Gateway. Records of sessions are not among them.
pub async fn list_active_mandates(
    tx: &mut ZoneRead<'_>,
    resource: &str,
    since: Timestamp,
) -> Result<Vec<AuthorityRecordId>, StoreError> {
    let (granted, of) = (
        tx.tx.json_member("e.metadata", MetadataKey::Resource),
        tx.tx.json_member("e.metadata", MetadataKey::AuthorityRecordId),
    );
    let sql = format!(
        "SELECT DISTINCT r.id FROM audit_events e JOIN authority_records r ON r.zone_id = ?1 AND r.id = {of}
         WHERE e.zone_id = ?1 AND e.occurred_at >= ?2 AND e.event_type = 'token_exchange' AND e.decision = 'allow'
           AND {granted} = ?3 AND r.use_class <> 'session' AND r.status = 'active' AND r.expires_at > ?2 ORDER BY r.id"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, since, resource]).await?;
    rows.into_iter().map(|row| row.columns("authority_records").next()).collect()
}

/// Running sessions that are anchored to a record of the holder or run as the holder's application, and those whose
/// anchor descends from such a record.
pub async fn list_running_sessions(tx: &mut ZoneRead<'_>, holder: Holder<'_>) -> Result<Vec<SessionRow>, StoreError> {
    let columns: Vec<String> = sessions::COLUMNS.split(',').map(|column| format!("s.{}", column.trim())).collect();
    let columns = columns.join(", ");
    let (condition, of) = holder.condition();
    let sql = match holder {
        // Down from what is the subject's: that is little, however many sessions run.
        Holder::Subject(_) => format!(
            "WITH RECURSIVE family (id) AS (
               SELECT r.id FROM authority_records r WHERE r.zone_id = ?1 AND {condition}
               UNION SELECT r.id FROM family f CROSS JOIN authority_records r WHERE r.zone_id = ?1 AND r.parent_id = f.id
             )
             SELECT {columns} FROM family f CROSS JOIN agent_sessions s
             WHERE s.zone_id = ?1 AND s.subject_record_id = f.id AND s.capacity_until IS NOT NULL ORDER BY s.id"
        ),
        // Up the line of each anchor: of what runs there is little, beside all records that an application ever had.
        Holder::Client(_) | Holder::Zone => {
            let own = if matches!(holder, Holder::Client(_)) { "s.application_id = ?2" } else { "?2 = ''" };
            format!(
                "WITH RECURSIVE line (session, record) AS (
                   SELECT s.id, s.subject_record_id FROM agent_sessions s WHERE s.zone_id = ?1 AND s.capacity_until IS NOT NULL
                   UNION SELECT l.session, r.parent_id FROM line l CROSS JOIN authority_records r
                   WHERE r.zone_id = ?1 AND r.id = l.record AND r.parent_id IS NOT NULL
                 )
                 SELECT {columns} FROM agent_sessions s WHERE s.zone_id = ?1 AND s.capacity_until IS NOT NULL AND ({own} OR s.id IN
                   (SELECT l.session FROM line l CROSS JOIN authority_records r
                    WHERE r.zone_id = ?1 AND r.id = l.record AND {condition}))
                 ORDER BY s.id"
            )
        }
    };
    tx.tx.query(&sql, params![tx.zone, of]).await?.into_iter().map(sessions::read).collect()
}

/// Active edges that are bound to the resource, lapsed ones included.
pub async fn list_active_edges(tx: &mut ZoneRead<'_>, resource: &ResourceId) -> Result<Vec<EdgeRow>, StoreError> {
    let sql = format!(
        "SELECT {} FROM delegation_edges WHERE zone_id = ?1 AND resource_id = ?2 AND status = 'active' ORDER BY id",
        delegations::COLUMNS
    );
    tx.tx.query(&sql, params![tx.zone, resource]).await?.into_iter().map(delegations::read).collect()
}
