//! Delegated grants: a user may be represented by an application on a resource (contract: policy.md §11). No decision reads
//! them.

use caracal_authority::{ApplicationId, GrantId, ProviderId, ResourceId, ZoneId};

use crate::ahead::by_id;
use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Columns, Param, params};

/// A grant.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: GrantId,
    /// Who represents.
    pub application_id: ApplicationId,
    /// Who is represented: the `sub` of records.
    pub user_id: String,
    /// On what.
    pub resource_id: ResourceId,
    /// With which scopes.
    pub scopes: Vec<String>,
    /// `active` or `revoked`.
    pub status: String,
    /// Who made it, and who revoked it.
    pub attribution: Attribution,
}

/// A grant with the names of what it speaks of, as far as they are known.
#[derive(Debug, Clone)]
pub struct ListedGrant {
    /// The grant.
    pub grant: Grant,
    /// Name of its application.
    pub application_name: Option<String>,
    /// Name of its resource.
    pub resource_name: Option<String>,
    /// The provider of that resource.
    pub provider_id: Option<ProviderId>,
    /// Name of that.
    pub provider_name: Option<String>,
    /// Kind of that.
    pub provider_kind: Option<String>,
}

/// Which grants a list shows; what is absent does not narrow it.
#[derive(Debug, Clone, Default)]
pub struct GrantFilter {
    /// Of this application.
    pub application_id: Option<String>,
    /// Of this user.
    pub user_id: Option<String>,
    /// On this resource.
    pub resource_id: Option<String>,
    /// On resources of this provider.
    pub provider_id: Option<String>,
    /// In this status.
    pub status: Option<String>,
    /// With all of these scopes.
    pub scopes: Vec<String>,
}

const COLUMNS: &str = "zone_id, id, application_id, user_id, resource_id, scopes, status, created_by, \
                       created_via_operator, updated_by, updated_via_operator, created_at, updated_at";

fn read(columns: &mut Columns) -> Result<Grant, StoreError> {
    Ok(Grant {
        zone_id: columns.next()?,
        id: columns.next()?,
        application_id: columns.next()?,
        user_id: columns.next()?,
        resource_id: columns.next()?,
        scopes: columns.json()?,
        status: columns.next()?,
        attribution: Attribution::read(columns)?,
    })
}

/// The grant, revoked or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &GrantId) -> Result<Option<Grant>, StoreError> {
    let sql = by_id("delegated_grants", COLUMNS);
    let row = tx.tx.query_one(&sql, params![tx.zone, id]).await?;
    row.map(|row| read(&mut row.columns("delegated_grants"))).transpose()
}

/// Grants of the zone, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, filter: &GrantFilter, page: &Page) -> Result<Vec<ListedGrant>, StoreError> {
    let columns: Vec<String> = COLUMNS.split(", ").map(|column| format!("g.{column}")).collect();
    let columns = columns.join(", ");
    // Scopes have no character that JSON escapes, so the text of a list holds the text of each as it is.
    let quoted: Vec<String> = filter.scopes.iter().map(crate::json_text).collect();
    let with_scopes: String =
        (0..quoted.len()).map(|index| format!(" AND replace(g.scopes, ?{}, '') <> g.scopes", index + 10)).collect();
    let sql = format!(
        "SELECT {columns}, a.name, r.name, p.id, p.name, p.kind FROM delegated_grants g
           LEFT JOIN applications a ON a.zone_id = g.zone_id AND a.id = g.application_id
           LEFT JOIN resources r ON r.zone_id = g.zone_id AND r.id = g.resource_id
           LEFT JOIN providers p ON p.zone_id = g.zone_id AND p.id = r.credential_provider_id
         WHERE g.zone_id = ?1 AND (g.created_at, g.id) < (?2, ?3)
           AND (?4 = '' OR g.application_id = ?4) AND (?5 = '' OR g.user_id = ?5) AND (?6 = '' OR g.resource_id = ?6)
           AND (?7 = '' OR p.id = ?7) AND (?8 = '' OR g.status = ?8){with_scopes}
         ORDER BY g.created_at DESC, g.id DESC LIMIT ?9"
    );
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (application, user) = (text(&filter.application_id), text(&filter.user_id));
    let (resource, provider, status) = (text(&filter.resource_id), text(&filter.provider_id), text(&filter.status));
    let (zone, at, id, limit) = (tx.zone.clone(), page.at(), page.id(), page.limit());
    let fixed: &[Param<'_>] = params![zone, at, id, application, user, resource, provider, status, limit];
    let all: Vec<Param<'_>> = fixed.iter().copied().chain(quoted.iter().map(Bind::bind)).collect();
    let mut found = Vec::new();
    for row in tx.tx.query(&sql, &all).await? {
        let mut columns = row.columns("delegated_grants");
        found.push(ListedGrant {
            grant: read(&mut columns)?,
            application_name: columns.next()?,
            resource_name: columns.next()?,
            provider_id: columns.next()?,
            provider_name: columns.next()?,
            provider_kind: columns.next()?,
        });
    }
    Ok(found)
}

/// Adds a grant.
pub async fn add(tx: &mut ZoneWrite<'_>, grant: &Grant) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO delegated_grants (zone_id, id, application_id, user_id, resource_id, scopes, status, created_by,
                 created_via_operator, updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, NULL, ?10, ?11)";
    let (zone, by) = (tx.zone.clone(), &grant.attribution);
    let scopes = crate::json_text(&grant.scopes);
    let params = params![
        zone,
        grant.id,
        grant.application_id,
        grant.user_id,
        grant.resource_id,
        scopes,
        grant.status,
        by.created_by,
        by.created_via_operator,
        by.created_at,
        by.updated_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Marks a grant revoked by `by`, again if it was before. `false`: it is not there.
pub async fn revoke(tx: &mut ZoneWrite<'_>, id: &GrantId, by: &str) -> Result<bool, StoreError> {
    let sql =
        "UPDATE delegated_grants SET status = 'revoked', updated_by = ?3, updated_via_operator = 0, updated_at = ?4
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.append(sql, params![zone, id, by, now]).await? == 1)
}
