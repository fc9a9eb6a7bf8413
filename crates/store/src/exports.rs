//! How far the evidence of each zone was exported. A plan is stored before an object is written, so that whoever goes on
//! after a crash writes the very same object again: one that is there already then holds all that it should.

use caracal_authority::ZoneId;
use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::evidence;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead};
use crate::value::{Bind, params};

const NAME: &str = "audit_export";

/// Where the export of the deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The last hour that is exported, in hours since 1970; 0 before the first.
    pub exported_hour: i64,
    /// The hour whose object is being written, if one is.
    pub planned_hour: Option<i64>,
}

/// Which rows of a zone an object holds: those behind `after`, up to `through`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The zone.
    pub zone_id: ZoneId,
    /// Position before the first row.
    pub after: i64,
    /// Position of the last row.
    pub through: i64,
}

/// Where the export stands.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Progress, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(Progress::default()) };
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt {
        table: "deployment",
        what: format!("`{NAME}` does not say how far evidence was exported"),
    })
}

/// Plans the object of `hour`: of each zone what was not exported yet and was stored before `end`, in microseconds since
/// 1970. A chain is cut at its first row that was stored later: so no row is passed over, whenever it was committed.
pub async fn plan(tx: &mut DeploymentWrite<'_>, hour: i64, end: i64) -> Result<(), StoreError> {
    let mut progress = find(tx).await?;
    progress.planned_hour = Some(hour);
    for zone in evidence::list_chains(tx).await? {
        let sql = "INSERT INTO audit_exports (zone_id, exported_seq, planned_seq) VALUES (?1, 0, 0)
                   ON CONFLICT (zone_id) DO NOTHING";
        let mut zone = tx.zone_write(&zone);
        let id = zone.zone.clone();
        zone.tx.append(sql, params![id]).await?;
        let sql = "UPDATE audit_exports SET planned_seq = COALESCE(
                     (SELECT min(chain_seq) - 1 FROM audit_events
                      WHERE zone_id = ?1 AND chain_seq > audit_exports.exported_seq AND ingested_at >= ?2),
                     (SELECT max(chain_seq) FROM audit_events WHERE zone_id = ?1),
                     exported_seq)
                   WHERE zone_id = ?1";
        zone.tx.append(sql, params![id, end]).await?;
    }
    put(tx, progress).await
}

/// The ranges of the object that is planned, by zone.
pub async fn list_planned(tx: &mut DeploymentRead<'_>) -> Result<Vec<Range>, StoreError> {
    let sql = "SELECT zone_id, exported_seq, planned_seq FROM audit_exports WHERE planned_seq > exported_seq
               ORDER BY zone_id";
    let mut ranges = Vec::new();
    for row in tx.tx().query(sql, &[]).await? {
        let mut columns = row.columns("audit_exports");
        ranges.push(Range { zone_id: columns.next()?, after: columns.next()?, through: columns.next()? });
    }
    Ok(ranges)
}

/// Notes that the planned object is stored.
pub async fn finish(tx: &mut DeploymentWrite<'_>, hour: i64) -> Result<(), StoreError> {
    tx.tx().append("UPDATE audit_exports SET exported_seq = planned_seq WHERE planned_seq > exported_seq", &[]).await?;
    put(tx, Progress { exported_hour: hour, planned_hour: None }).await
}

/// The lowest position of a zone that still has to be exported, where evidence is exported at all.
pub async fn exported_through(tx: &mut ZoneRead<'_>) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT exported_seq FROM audit_exports WHERE zone_id = ?1";
    tx.tx.query_one(sql, params![tx.zone]).await?.map(|row| row.columns("audit_exports").next()).transpose()
}

async fn put(tx: &mut DeploymentWrite<'_>, progress: Progress) -> Result<(), StoreError> {
    deployment::put(tx, NAME, &crate::json_text(&progress)).await
}
