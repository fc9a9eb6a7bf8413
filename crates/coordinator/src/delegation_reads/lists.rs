//! `GET /zones/:zoneId/delegations/active`, `…/inbound/:sessionId`, `…/outbound/:sessionId` and
//! `…/inbound/:sessionId/:id`: delegations as they are stored, page by page. Those of a session are listed whatever
//! became of them, a lapsed one as `active` until it is swept; `active` shows only what lends something now.

use caracal_authority::{AgentSessionId, EdgeId};
use caracal_http::Problem;
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::{ZoneRead, delegation_reads};
use serde_json::{Map, Value, json};

use super::{ReadRefused, check_reader};
use crate::Coordinator;
use crate::auth::Principal;
use crate::facts::edge_id;
use crate::page::Page;
use crate::wire::{Answer, instant};

/// Which delegations of a session.
#[derive(Clone, Copy)]
enum Side {
    /// What it was lent.
    Inbound,
    /// What it lends.
    Outbound,
}

/// Lists the delegations to a session, newest first, whatever their status.
pub(crate) async fn list_inbound(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    list_side(coordinator, principal, session, Side::Inbound, query).await
}

/// Lists the delegations from a session, newest first, whatever their status.
pub(crate) async fn list_outbound(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    list_side(coordinator, principal, session, Side::Outbound, query).await
}

async fn list_side(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    side: Side,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let page = Page::read(query)?;
    let rows = of_session(coordinator, principal, session, side, &page).await?;
    Ok(Answer::ok(page.body(&rows, |row| row.id.as_str(), |row| Value::Object(edge_json(row, "id")))))
}

async fn of_session(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
    side: Side,
    page: &Page,
) -> Result<Vec<EdgeRow>, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    check_reader(zone, principal, session).await?;
    // Whoever owns a session received what leads to it and issued what leads from it, so nothing in its lists has to be
    // hidden from a reader of it.
    let listed = |row: &EdgeRow| match side {
        Side::Inbound => row.target_session_id == *session,
        Side::Outbound => row.source_session_id == *session,
    };
    let before = cursor(zone, page, listed).await?;
    Ok(match side {
        Side::Inbound => delegations::list_to(zone, session, before.as_ref(), page.limit).await?,
        Side::Outbound => delegation_reads::list_from(zone, session, before.as_ref(), page.limit).await?,
    })
}

/// Lists what lends something now, newest first: of the caller's own applications' delegations, or of all.
pub(crate) async fn list_active(
    coordinator: &Coordinator,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let page = Page::read(query)?;
    let rows = live(coordinator, principal, &page).await?;
    Ok(Answer::ok(page.body(&rows, |row| row.id.as_str(), active_json)))
}

async fn live(coordinator: &Coordinator, principal: &Principal, page: &Page) -> Result<Vec<EdgeRow>, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    let visible = |row: &EdgeRow| {
        let parties = [&row.issuer_application_id, &row.receiver_application_id];
        principal.is_admin() || parties.iter().any(|party| principal.is(party.as_str()))
    };
    let before = cursor(zone, page, visible).await?;
    let party = principal.application().filter(|_| !principal.is_admin()).map(|application| &application.id);
    Ok(delegation_reads::list_live(zone, party, before.as_ref(), page.limit).await?)
}

/// The delegation that a page goes on behind: one that exists and is of the list.
async fn cursor(
    zone: &mut ZoneRead<'_>,
    page: &Page,
    listed: impl Fn(&EdgeRow) -> bool,
) -> Result<Option<EdgeId>, ReadRefused> {
    let Some(cursor) = &page.cursor else { return Ok(None) };
    let id = edge_id(cursor).ok_or(ReadRefused::Cursor)?;
    let row = delegations::lookup(zone, &id).await?;
    row.filter(listed).ok_or(ReadRefused::Cursor)?;
    Ok(Some(id))
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

fn active_json(edge: &EdgeRow) -> Value {
    let mut members = edge_json(edge, "id");
    members.insert("broad_reason".to_owned(), json!(edge.broad_reason));
    Value::Object(members)
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
