//! Services that applications offer to agents.

use caracal_authority::{ApplicationId, ServiceId, Timestamp, ZoneId};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A service. An application has at most one at each endpoint.
#[derive(Debug, Clone)]
pub struct AgentService {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: ServiceId,
    /// Whose it is.
    pub application_id: ApplicationId,
    /// Where it is; nothing here ever calls it.
    pub endpoint_url: String,
    /// Versions of the protocol it speaks, in the order given.
    pub protocol_versions: Vec<String>,
    /// What it is built with.
    pub framework_name: Option<String>,
    /// Which version of it.
    pub framework_version: Option<String>,
    /// What it can do, in the order given.
    pub capabilities: Vec<String>,
    /// `starting`, `healthy`, `degraded` or `unhealthy`, as it said last.
    pub health: String,
    /// Free members.
    pub metadata: Map<String, Value>,
    /// When it last said so.
    pub last_heartbeat_at: Option<Timestamp>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "zone_id, id, application_id, endpoint_url, protocol_versions, framework_name, framework_version, \
                       capabilities, health, metadata, last_heartbeat_at, created_at, updated_at";

fn read(row: Row) -> Result<AgentService, StoreError> {
    let mut columns = row.columns("agent_services");
    Ok(AgentService {
        zone_id: columns.next()?,
        id: columns.next()?,
        application_id: columns.next()?,
        endpoint_url: columns.next()?,
        protocol_versions: columns.json()?,
        framework_name: columns.next()?,
        framework_version: columns.next()?,
        capabilities: columns.json()?,
        health: columns.next()?,
        metadata: columns.json()?,
        last_heartbeat_at: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
    })
}

/// One service.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ServiceId) -> Result<Option<AgentService>, StoreError> {
    let sql = by_id("agent_services", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The service of an application at an endpoint.
pub async fn find_by_endpoint(
    tx: &mut ZoneRead<'_>,
    application: &ApplicationId,
    endpoint: &str,
) -> Result<Option<AgentService>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agent_services WHERE zone_id = ?1 AND application_id = ?2 AND endpoint_url = ?3"
    );
    tx.tx.query_one(&sql, params![tx.zone, application, endpoint]).await?.map(read).transpose()
}

/// Services, newest first, `limit` at most, only those with an id below `before`; only `application`'s, if one is named.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    application: Option<&ApplicationId>,
    before: Option<&ServiceId>,
    limit: i64,
) -> Result<Vec<AgentService>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agent_services
         WHERE zone_id = ?1 AND (CAST(?2 AS TEXT) IS NULL OR application_id = ?2)
           AND (CAST(?3 AS TEXT) IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4"
    );
    tx.tx.query(&sql, params![tx.zone, application, before, limit]).await?.into_iter().map(read).collect()
}

/// Adds a service.
pub async fn add(tx: &mut ZoneWrite<'_>, service: &AgentService) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO agent_services (zone_id, id, application_id, endpoint_url, protocol_versions, framework_name,
                 framework_version, capabilities, health, metadata, last_heartbeat_at, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let zone = tx.zone.clone();
    let (versions, capabilities) =
        (crate::json_text(&service.protocol_versions), crate::json_text(&service.capabilities));
    let metadata = crate::json_text(&service.metadata);
    let params = params![
        zone,
        service.id,
        service.application_id,
        service.endpoint_url,
        versions,
        service.framework_name,
        service.framework_version,
        capabilities,
        service.health,
        metadata,
        service.last_heartbeat_at,
        service.created_at,
        service.updated_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Notes that a service was heard of, with what it says of its health, and its members where they are given. Everything else
/// stays. `false` when there is no such service.
pub async fn note_heartbeat(
    tx: &mut ZoneWrite<'_>,
    id: &ServiceId,
    health: &str,
    metadata: Option<&Map<String, Value>>,
) -> Result<bool, StoreError> {
    let sql = "UPDATE agent_services SET health = ?3, metadata = COALESCE(CAST(?4 AS TEXT), metadata),
                 last_heartbeat_at = ?5, updated_at = ?5
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let metadata = metadata.map(crate::json_text);
    Ok(tx.tx.append(sql, params![zone, id, health, metadata, now]).await? == 1)
}

/// Replaces what a service says of itself: versions, framework, capabilities, health, metadata and the time of its last
/// heartbeat. Where it is and whose it is stay. `false` when there is no such service.
pub async fn update(tx: &mut ZoneWrite<'_>, service: &AgentService) -> Result<bool, StoreError> {
    let sql = "UPDATE agent_services SET protocol_versions = ?3, framework_name = ?4, framework_version = ?5,
                 capabilities = ?6, health = ?7, metadata = ?8, last_heartbeat_at = ?9, updated_at = ?10
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let (versions, capabilities) =
        (crate::json_text(&service.protocol_versions), crate::json_text(&service.capabilities));
    let metadata = crate::json_text(&service.metadata);
    let params = params![
        zone,
        service.id,
        versions,
        service.framework_name,
        service.framework_version,
        capabilities,
        service.health,
        metadata,
        service.last_heartbeat_at,
        now
    ];
    Ok(tx.tx.append(sql, params).await? == 1)
}
