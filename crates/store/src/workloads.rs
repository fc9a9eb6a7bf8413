//! Workloads: what is launched with credentials in its environment (contract: admin-api.md §5.3, sts.md §11).

use caracal_authority::{WorkloadId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ahead::by_id;
use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id, unique in the deployment.
    pub id: WorkloadId,
    /// Display name; unique in the zone, case aside.
    pub name: String,
    /// Argon2id hash of its secret, never the secret.
    pub secret_hash: String,
    /// Which variable gets which credential.
    pub bindings: Bindings,
    /// Who made it.
    pub attribution: Attribution,
}

/// Which variable of a workload's environment gets a credential for which resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The variable.
    pub env: String,
    /// The resource, by identifier or id.
    pub resource: String,
    /// What it is wanted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Whether the workload may start without it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// What happens when an optional one is not had; kept of optional ones alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What the launcher does when an optional credential is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Says so and goes on.
    Warn,
    /// Starts nothing.
    Error,
}

/// The bindings of a workload as they are stored. They are read by whoever needs them, after the workload has proved
/// itself: damage in them must not be seen by anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bindings(String);

impl Bindings {
    /// These, in this order.
    pub fn of(bindings: &[Binding]) -> Self {
        Self(crate::json_text(bindings))
    }

    /// The list.
    pub fn read(&self) -> Result<Vec<Binding>, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt {
            table: "workloads",
            what: format!("the bindings are unreadable: {error}"),
        };
        serde_json::from_str(&self.0).map_err(corrupt)
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, secret_hash, bindings, created_by, created_via_operator, updated_by, \
                                  updated_via_operator, created_at, updated_at";

fn read(row: Row) -> Result<Workload, StoreError> {
    let mut columns = row.columns("workloads");
    Ok(Workload {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        secret_hash: columns.next()?,
        bindings: Bindings(columns.next()?),
        attribution: Attribution::read(&mut columns)?,
    })
}

/// One workload of the zone.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &WorkloadId) -> Result<Option<Workload>, StoreError> {
    let sql = by_id("workloads", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The workload in whatever zone it is: it names no zone when it proves itself. Nothing of it may be told to a caller
/// without that proof.
pub async fn find_in_any_zone(tx: &mut DeploymentRead<'_>, id: &WorkloadId) -> Result<Option<Workload>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM workloads WHERE id = ?1");
    tx.tx().query_one(&sql, params![id]).await?.map(read).transpose()
}

/// What two names that differ only in case have in common.
fn name_key(name: &str) -> String {
    name.to_lowercase()
}

/// Workloads of the zone, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, page: &Page) -> Result<Vec<Workload>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM workloads WHERE zone_id = ?1
           AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?;
    rows.into_iter().map(read).collect()
}

/// The workload of this name in whatever case, other than `except`.
pub async fn find_by_name(
    tx: &mut ZoneRead<'_>,
    name: &str,
    except: Option<&WorkloadId>,
) -> Result<Option<Workload>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM workloads WHERE zone_id = ?1 AND name_key = ?2
           AND (CAST(?3 AS TEXT) IS NULL OR id <> ?3)"
    );
    tx.tx.query_one(&sql, params![tx.zone, name_key(name), except]).await?.map(read).transpose()
}

/// Adds a workload. Conflicts on `workloads.id` and on `workloads.name_key`.
pub async fn add(tx: &mut ZoneWrite<'_>, workload: &Workload) -> Result<(), StoreError> {
    let sql = "INSERT INTO workloads (zone_id, id, name, secret_hash, bindings, created_by, created_via_operator,
                 updated_by, updated_via_operator, created_at, updated_at, name_key)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, NULL, ?8, NULL, ?9)";
    let (zone, name_key) = (tx.zone.clone(), name_key(&workload.name));
    let by = &workload.attribution;
    let params = params![
        zone,
        workload.id,
        workload.name,
        workload.secret_hash,
        workload.bindings.0,
        by.created_by,
        by.created_via_operator,
        by.created_at,
        name_key
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Stores name, secret hash, bindings and last change of a workload, and says whether it was there. Conflicts on
/// `workloads.name_key`.
pub async fn update(tx: &mut ZoneWrite<'_>, workload: &Workload) -> Result<bool, StoreError> {
    let sql = "UPDATE workloads SET name = ?3, name_key = ?4, secret_hash = ?5, bindings = ?6, updated_by = ?7,
                 updated_via_operator = ?8, updated_at = ?9 WHERE zone_id = ?1 AND id = ?2";
    let (zone, name_key) = (tx.zone.clone(), name_key(&workload.name));
    let by = &workload.attribution;
    let params = params![
        zone,
        workload.id,
        workload.name,
        name_key,
        workload.secret_hash,
        workload.bindings.0,
        by.updated_by,
        by.updated_via_operator,
        by.updated_at
    ];
    Ok(tx.tx.execute(sql, params).await? > 0)
}

/// Removes a workload, and says whether it was there.
pub async fn remove(tx: &mut ZoneWrite<'_>, id: &WorkloadId) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    Ok(tx.tx.execute("DELETE FROM workloads WHERE zone_id = ?1 AND id = ?2", params![zone, id]).await? > 0)
}
