//! `GET /v1/zones/{zone}/audit`: evidence by time, newest first, as JSON or CSV.

use std::sync::Arc;

use caracal_store::Page;
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use http::Method;

use super::{View, csv, place};
use crate::Admin;
use crate::answer::Answer;
use crate::export::{Columns, Exported};
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::Chosen;
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query, invalid};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/audit",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::in_files::<Chosen<View>>(
        "audit.list",
        "Lists the events of a zone, newest first, as JSON or as a CSV file.",
    )
    .asks(|query| asked(query).map(drop)),
};

const MAX_TYPES: usize = 16;

struct Asked {
    filter: EvidenceFilter,
    page: Page,
    is_csv: bool,
    columns: Option<Columns<EvidenceRow>>,
}

fn asked(query: &Query) -> Result<Asked, Refusal> {
    let limit = query.limit(100, 1000)?;
    let mut filter = filter(query)?;
    let is_csv = query.is_csv()?;
    let fields = query.fields(EvidenceRow::FIELDS)?;
    let types = query.bounded("event_type", 1, 512)?;
    query.bounded("cursor", 1, 512)?;
    let columns = fields.map(Columns::parse).transpose()?;
    filter.event_types = types.map(event_types).transpose()?.unwrap_or_default();
    Ok(Asked { filter, page: Page { limit, after: query.cursor()? }, is_csv, columns })
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let Asked { filter, page, is_csv, columns } = asked(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = evidence::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    drop(snapshot);
    if is_csv {
        let columns = columns.unwrap_or_else(Columns::all);
        let name = format!("audit-{}.csv", call.place.zone);
        return csv::file(&name, columns.names(), rows.iter().map(|row| columns.values(row)));
    }
    Ok(match columns {
        None => Answer::ok(&Listing::of(&rows, &page, place, View::from)),
        Some(columns) => Answer::ok(&Listing::of(&rows, &page, place, |row: &EvidenceRow| columns.object(row))),
    })
}

fn filter(query: &Query) -> Result<EvidenceFilter, Refusal> {
    let text = |name, max| Ok::<_, Refusal>(query.bounded(name, 1, max)?.map(str::to_owned));
    Ok(EvidenceFilter {
        since: query.instant("since")?,
        until: query.instant("until")?,
        request_id: text("request_id", 128)?,
        decision: query.choice("decision", &["allow", "deny", "partial"])?.map(str::to_owned),
        event_types: Vec::new(),
        application_id: text("application_id", 128)?,
        agent_session_id: text("session_id", 128)?,
        authority_record_id: text("authority_record_id", 128)?,
        label: text("label", 64)?,
    })
}

/// A comma list of 1 to 16 types.
fn event_types(list: &str) -> Result<Vec<String>, Refusal> {
    let types: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    if types.len() > MAX_TYPES || types.iter().any(String::is_empty) {
        return Err(invalid("event_type", "expected 1 to 16 types with commas between them"));
    }
    Ok(types)
}
