//! `GET /zones/:zoneId/delegations/inbound/:sessionId` and `…/:sessionId/:id` (contract: coordinator.md §6.4): what a
//! session was lent. An application reads of its own sessions, and only edges it issued or received.

use axum::http::StatusCode;
use caracal_authority::{AgentSessionId, EdgeId};
use caracal_http::Problem;
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::{StoreError, ZoneRead, sessions};
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::auth::Principal;
use crate::facts::edge_id;
use crate::outage::Outage;
use crate::wire::{Answer, instant, invalid_query, query_value, refusal};

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
enum ReadRefused {
    #[error("no such session")]
    SessionNotFound,
    #[error("no such delegation, or it is not active")]
    DelegationNotFound,
    #[error("the cursor names no delegation of the list")]
    Cursor,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for ReadRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<ReadRefused> for Problem {
    fn from(error: ReadRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            ReadRefused::SessionNotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            ReadRefused::DelegationNotFound => (StatusCode::NOT_FOUND, "delegation_not_found"),
            ReadRefused::Cursor => (StatusCode::BAD_REQUEST, "invalid_cursor"),
            ReadRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

struct Page {
    limit: i64,
    cursor: Option<String>,
}

/// Lists the delegations to a session, newest first, whatever their status.
pub(crate) async fn list_inbound(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let page = page(query)?;
    let rows = list(coordinator, principal, session, &page).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == page.limit);
    let next = rows.last().filter(|_| full).map(|row| row.id.clone());
    let items: Vec<Value> = rows.iter().map(|row| Value::Object(edge_json(row, "id"))).collect();
    Ok(Answer::ok(json!({"items": items, "next_cursor": next})))
}

async fn list(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    page: &Page,
) -> Result<Vec<EdgeRow>, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let mut zone = snapshot.zone(principal.zone());
    check_reader(&mut zone, principal, session).await?;
    // Whoever owns the target received the edge, so nothing in this list has to be hidden from a reader of it.
    let before = match &page.cursor {
        None => None,
        Some(cursor) => {
            let id = edge_id(cursor).ok_or(ReadRefused::Cursor)?;
            let row = delegations::lookup(&mut zone, &id).await?;
            row.filter(|row| row.target_session_id == *session).ok_or(ReadRefused::Cursor)?;
            Some(id)
        }
    };
    Ok(delegations::list_to(&mut zone, session, before.as_ref(), page.limit).await?)
}

/// Whether a delegation to a session is live.
pub(crate) async fn read_inbound(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    id: &EdgeId,
) -> Result<Answer, Problem> {
    check_live(coordinator, principal, session, id).await?;
    Ok(Answer::ok(json!({"id": id, "status": "active"})))
}

async fn check_live(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    id: &EdgeId,
) -> Result<(), ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let mut zone = snapshot.zone(principal.zone());
    check_reader(&mut zone, principal, session).await?;
    let now = zone.now();
    let edge = delegations::lookup(&mut zone, id).await?.ok_or(ReadRefused::DelegationNotFound)?;
    let live = edge.status == "active" && edge.expires_at > now;
    let received = principal.is_admin() || principal.is(edge.receiver_application_id.as_str());
    if live && received && edge.target_session_id == *session { Ok(()) } else { Err(ReadRefused::DelegationNotFound) }
}

/// The reader rule: the session in the path is the caller's own, or the caller sees all of the zone.
async fn check_reader(
    zone: &mut ZoneRead<'_>,
    principal: &Principal,
    session: &AgentSessionId,
) -> Result<(), ReadRefused> {
    if principal.is_admin() {
        return Ok(());
    }
    let session = sessions::lookup(zone, session).await?;
    let own = session.is_some_and(|session| principal.is(session.application_id.as_str()));
    if own { Ok(()) } else { Err(ReadRefused::SessionNotFound) }
}

fn page(query: Option<&str>) -> Result<Page, Problem> {
    let limit = match query_value(query, "limit")? {
        None => DEFAULT_LIMIT,
        Some(text) => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let limit = text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit));
            limit.ok_or_else(invalid_query)?
        }
    };
    let cursor = query_value(query, "cursor")?;
    if cursor.as_ref().is_some_and(String::is_empty) { Err(invalid_query()) } else { Ok(Page { limit, cursor }) }
}

/// An edge as lists and creations show it, its id under `id_name` (contract: coordinator.md §6.1).
pub(crate) fn edge_json(edge: &EdgeRow, id_name: &str) -> Map<String, Value> {
    let members = [
        (id_name, json!(edge.id)),
        ("zone_id", json!(edge.zone_id)),
        ("source_session_id", json!(edge.source_session_id)),
        ("target_session_id", json!(edge.target_session_id)),
        ("issuer_application_id", json!(edge.issuer_application_id)),
        ("receiver_application_id", json!(edge.receiver_application_id)),
        ("parent_edge_id", json!(edge.parent_edge_id)),
        ("resource_id", json!(edge.resource_id)),
        ("scopes", json!(edge.scopes)),
        ("constraints_json", json!(edge.constraints)),
        ("status", json!(edge.status)),
        ("expires_at", json!(edge.expires_at)),
        ("edge_version", json!(edge.edge_version)),
        ("revoked_at", instant(edge.revoked_at)),
        ("created_at", json!(edge.created_at)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
