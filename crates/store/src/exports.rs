//! How far evidence was exported, and what the next object of the archive holds (contract: audit-and-streams.md §5.6). One
//! for the deployment, because one process exports at a time; a later value replaces exactly the one it was made of, so
//! that two who both believe to be that process do not undo each other's.

use std::collections::BTreeMap;

use caracal_authority::ZoneId;
use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead};
use crate::value::{Bind, params};

const NAME: &str = "audit_export";

/// How far evidence was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Start of the last hour that is in the archive with everything it has, in seconds since 1970.
    pub hour: i64,
    /// Number of the next object of the hour behind that one, from 1.
    pub part: u32,
    /// The position of the last exported event of each chain; a chain that is not named was not exported yet.
    pub zones: BTreeMap<String, i64>,
    /// What is put into the archive next, or may be there already.
    pub planned: Option<Planned>,
}

/// What one object holds, decided before it is written: whoever goes on after a crash writes the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Through which position of each chain it goes on from what was exported.
    pub zones: BTreeMap<String, i64>,
    /// Whether it is the last of its hour.
    pub ends_hour: bool,
}

impl Exported {
    /// The position of the last exported event of `zone`; 0 when none was.
    pub fn through(&self, zone: &str) -> i64 {
        self.zones.get(zone).copied().unwrap_or(0)
    }
}

/// How far it is; none where nothing was ever exported.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Option<Exported>, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| StoreError::Corrupt {
        table: "deployment",
        what: format!("`{NAME}` does not say how far evidence was exported: {error}"),
    })
}

/// Puts `new` in the place of exactly `old`. `false`: something else is there by now.
pub async fn replace(tx: &mut DeploymentWrite<'_>, old: Option<&Exported>, new: &Exported) -> Result<bool, StoreError> {
    let (new, old) = (crate::json_text(new), old.map(crate::json_text));
    // Appended as evidence is: nobody's authority depends on it, so no decision has to be made anew.
    let changed = match old {
        Some(old) => {
            let sql = "UPDATE deployment SET value = ?3 WHERE name = ?1 AND value = ?2";
            tx.tx().append(sql, params![NAME, old, new]).await?
        }
        None => {
            let sql = "INSERT INTO deployment (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
            tx.tx().append(sql, params![NAME, new]).await?
        }
    };
    Ok(changed == 1)
}

/// The last position of the zone's chain behind `after` at which an event lies that was stored before `before`, in
/// microseconds since 1970. Who exports up to there exports by position: an event whose commit took long is behind it, and
/// comes next.
pub async fn find_last_stored(tx: &mut ZoneRead<'_>, after: i64, before: i64) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT max(chain_seq) FROM audit_events WHERE zone_id = ?1 AND chain_seq > ?2 AND ingested_at < ?3";
    let row = tx.tx.query_one(sql, params![tx.zone, after, before]).await?;
    row.map_or(Ok(None), |row| row.columns("audit_events").next())
}

/// The newest position of every chain.
pub async fn list_newest(tx: &mut DeploymentRead<'_>) -> Result<Vec<(ZoneId, i64)>, StoreError> {
    let rows = tx.tx().query("SELECT zone_id, chain_seq FROM audit_heads ORDER BY zone_id", &[]).await?;
    let read = |row: crate::value::Row| {
        let mut columns = row.columns("audit_heads");
        Ok((columns.next()?, columns.next()?))
    };
    rows.into_iter().map(read).collect()
}
