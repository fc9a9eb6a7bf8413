//! `GET /v1/zones/{zone}/provider-connections`.

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_store::Page;
use caracal_store::provider_connections::{self, Connection, ConnectionFilter};
use http::Method;
use serde::Serialize;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/provider-connections",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<Item>>(
        "provider_connections.list",
        "Lists the accounts at providers that a zone has, newest first.",
    )
    .asks(|query| asked(query).map(drop)),
};

described! {
    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(flatten)]
        shown: View<'a>,
        refreshed_at: Option<Timestamp>,
        renewable: bool,
    }
}

impl<'a> From<&'a Connection> for Item<'a> {
    fn from(row: &'a Connection) -> Self {
        Self { shown: row.into(), refreshed_at: row.refreshed_at, renewable: row.refresh_token.is_some() }
    }
}

fn asked(query: &Query) -> Result<(ConnectionFilter, Page), Refusal> {
    let page = query.page()?;
    let text = |name| Ok::<_, Refusal>(query.bounded(name, 1, 512)?.map(str::to_owned));
    let filter = ConnectionFilter {
        provider_id: text("provider_id")?,
        subject_id: text("subject_id")?,
        status: text("status")?,
    };
    Ok((filter, page))
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (filter, page) = asked(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = provider_connections::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    let place = |row: &Connection| (row.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, Item::from)))
}
