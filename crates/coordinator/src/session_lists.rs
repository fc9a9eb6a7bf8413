//! `GET /zones/:zoneId/agents` and `…/:id/children` (contract: coordinator.md §4.3). An application sees its own sessions;
//! everyone else's do not exist for it (difference D26).

use caracal_authority::session::{Lifecycle, SessionStatus};
use caracal_authority::{AgentSessionId, ApplicationId};
use caracal_http::Problem;
use caracal_store::sessions::{self, SessionFilter, SessionRow};
use caracal_store::{StoreError, ZoneRead};
use serde_json::{Value, json};

use crate::Coordinator;
use crate::auth::Principal;
use crate::facts::{application_id, session_id};
use crate::outage::Outage;
use crate::page::{Page, invalid_cursor};
use crate::read_session::session_json;
use crate::wire::{Answer, instant, invalid_query, query_value};

/// Longest label that can be asked for; no session has a longer one.
const MAX_LABEL_BYTES: usize = 4 * caracal_authority::session::MAX_LABEL_CHARS;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
enum ListRefused {
    #[error("the cursor names no session of the list")]
    Cursor,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for ListRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<ListRefused> for Problem {
    fn from(error: ListRefused) -> Self {
        match error {
            ListRefused::Cursor => invalid_cursor(),
            ListRefused::Outage(outage) => outage.problem(),
        }
    }
}

/// A query that could be read.
struct Wanted {
    page: Page,
    status: Option<SessionStatus>,
    lifecycle: Option<Lifecycle>,
    application: Option<String>,
    label: Option<String>,
}

/// Lists sessions of the zone, newest first.
pub(crate) async fn list_sessions(
    coordinator: &Coordinator,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let wanted = read(query)?;
    let rows = wanted.rows(coordinator, principal).await?;
    Ok(Answer::ok(wanted.page.body(&rows, |row| row.id.as_str(), session_json)))
}

/// Lists the sessions that were started directly under one, whatever became of them. Filters are read and not applied; an
/// unknown parent has no children.
pub(crate) async fn list_children(
    coordinator: &Coordinator,
    principal: &Principal,
    parent: &AgentSessionId,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let wanted = read(query)?;
    let rows = children(coordinator, principal, parent, &wanted.page).await?;
    Ok(Answer::ok(wanted.page.body(&rows, |row| row.id.as_str(), child_json)))
}

fn read(query: Option<&str>) -> Result<Wanted, Problem> {
    let page = Page::read(query)?;
    let status = query_value(query, "status")?;
    let status = status.map(|text| SessionStatus::parse(&text).ok_or_else(invalid_query)).transpose()?;
    let lifecycle = query_value(query, "lifecycle")?;
    let lifecycle = lifecycle.map(|text| Lifecycle::parse(&text).ok_or_else(invalid_query)).transpose()?;
    let text = |name, most: usize| {
        let value = query_value(query, name)?;
        let fits = |text: &String| !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
        if value.as_ref().is_none_or(fits) { Ok(value) } else { Err(invalid_query()) }
    };
    let application = text("application_id", usize::MAX)?;
    let label = text("label", MAX_LABEL_BYTES)?;
    Ok(Wanted { page, status, lifecycle, application, label })
}

impl Wanted {
    async fn rows(&self, coordinator: &Coordinator, principal: &Principal) -> Result<Vec<SessionRow>, ListRefused> {
        let mut snapshot = coordinator.store.snapshot().await?;
        let mut zone = snapshot.zone(principal.zone());
        let before = self.page.before(&mut zone, principal).await?;
        let named = self.application.as_deref().map(application_id);
        let application: Option<ApplicationId> = match (principal.visible_application(), named) {
            (None, None) => None,
            (None, Some(Some(named))) => Some(named),
            (Some(own), None) => Some(own.clone()),
            (Some(own), Some(Some(named))) if *own == named => Some(named),
            // Another application's sessions, or those of what can't be one: none that this caller can see.
            (_, Some(_)) => return Ok(Vec::new()),
        };
        let filter = SessionFilter {
            status: self.status,
            lifecycle: self.lifecycle,
            application: application.as_ref(),
            parent: None,
            label: self.label.as_deref(),
        };
        Ok(sessions::list(&mut zone, &filter, before.as_ref(), self.page.limit).await?)
    }
}

async fn children(
    coordinator: &Coordinator,
    principal: &Principal,
    parent: &AgentSessionId,
    page: &Page,
) -> Result<Vec<SessionRow>, ListRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let mut zone = snapshot.zone(principal.zone());
    let before = page.before(&mut zone, principal).await?;
    let application = principal.visible_application();
    let filter = SessionFilter { parent: Some(parent), application, ..SessionFilter::default() };
    Ok(sessions::list(&mut zone, &filter, before.as_ref(), page.limit).await?)
}

impl Page {
    /// The session that the cursor names, which the caller has to be able to see.
    async fn before(
        &self,
        zone: &mut ZoneRead<'_>,
        principal: &Principal,
    ) -> Result<Option<AgentSessionId>, ListRefused> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let id = session_id(cursor).ok_or(ListRefused::Cursor)?;
        let row = sessions::lookup(zone, &id).await?.ok_or(ListRefused::Cursor)?;
        let visible = principal.visible_application().is_none_or(|own| *own == row.application_id);
        if visible { Ok(Some(id)) } else { Err(ListRefused::Cursor) }
    }
}

fn child_json(session: &SessionRow) -> Value {
    json!({
        "agent_session_id": session.id,
        "zone_id": session.zone_id,
        "application_id": session.application_id,
        "parent_id": session.parent_id,
        "subject_authority_record_id": session.subject_record_id,
        "lifecycle": session.lifecycle,
        "labels": session.labels,
        "status": session.status,
        "depth": session.depth,
        "ttl_seconds": session.ttl_seconds,
        "metadata": session.metadata,
        "started_at": session.started_at,
        "last_heartbeat_at": instant(session.last_heartbeat_at),
        "heartbeat_deadline_at": instant(session.heartbeat_deadline_at),
    })
}
