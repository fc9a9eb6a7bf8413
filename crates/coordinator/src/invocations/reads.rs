//! `GET /zones/:zoneId/invocations` and `…/:id`. An application sees what it asked and what it does the work for;
//! everything else does not exist for it (difference D26).

use caracal_authority::invocation::InvocationStatus;
use caracal_authority::{AgentSessionId, InvocationId, ServiceId};
use caracal_http::Problem;
use caracal_store::invocations::{self, Invocation, InvocationFilter};
use serde_json::Value;

use super::{InvocationRefused, invocation_json, row_json};
use crate::Coordinator;
use crate::auth::Principal;
use crate::page::Page;
use crate::wire::{Answer, invalid_query, query_value};

/// Shows an invocation.
pub(crate) async fn read(
    coordinator: &Coordinator,
    principal: &Principal,
    id: &InvocationId,
) -> Result<Answer, Problem> {
    let invocation = find(coordinator, principal, id).await?;
    Ok(Answer::ok(invocation_json(&invocation)))
}

async fn find(
    coordinator: &Coordinator,
    principal: &Principal,
    id: &InvocationId,
) -> Result<Invocation, InvocationRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let invocation = invocations::lookup(&mut snapshot.zone(principal.zone()), id).await?;
    invocation.filter(|invocation| may_see(principal, invocation)).ok_or(InvocationRefused::NotFound)
}

fn may_see(principal: &Principal, invocation: &Invocation) -> bool {
    let parties = [&invocation.service_application_id, &invocation.acting_application_id];
    principal.is_admin() || parties.iter().any(|party| principal.is(party.as_str()))
}

/// Lists invocations, newest first.
pub(crate) async fn list(
    coordinator: &Coordinator,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let page = Page::read(query)?;
    let rows = match filter(principal, query)? {
        Some(filter) => of_caller(coordinator, principal, &filter, &page).await?,
        // Named is what can't be an id, so nothing has it.
        None => Vec::new(),
    };
    Ok(Answer::ok(page.body(&rows, |row| row.id.as_str(), |row| Value::Object(row_json(row)))))
}

fn filter(principal: &Principal, query: Option<&str>) -> Result<Option<InvocationFilter>, Problem> {
    let status = query_value(query, "status")?;
    let status = status.map(|text| InvocationStatus::parse(&text).ok_or_else(invalid_query)).transpose()?;
    let service = query_value(query, "service_id")?.map(|id| ServiceId::parse(&id)).transpose();
    let session = query_value(query, "session_id")?.map(|id| AgentSessionId::parse(&id)).transpose();
    let (Ok(service), Ok(session)) = (service, session) else { return Ok(None) };
    let party = principal.application().filter(|_| !principal.is_admin()).map(|application| application.id.clone());
    Ok(Some(InvocationFilter { party, status, service, session }))
}

async fn of_caller(
    coordinator: &Coordinator,
    principal: &Principal,
    filter: &InvocationFilter,
    page: &Page,
) -> Result<Vec<Invocation>, InvocationRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    let before = match &page.cursor {
        None => None,
        Some(cursor) => {
            let id = InvocationId::parse(cursor).map_err(|_| InvocationRefused::Cursor)?;
            let row = invocations::lookup(zone, &id).await?;
            row.filter(|row| may_see(principal, row)).ok_or(InvocationRefused::Cursor)?;
            Some(id)
        }
    };
    Ok(invocations::list(zone, filter, before.as_ref(), page.limit).await?)
}
