//! `GET /v1/zones/{zone}/notification-sinks/{id}/deliveries`: what became of each event. A sink that is not there has had
//! none.

use std::sync::Arc;

use caracal_authority::{NotificationDeliveryId, NotificationSinkId, Timestamp};
use caracal_store::notification_deliveries::{self, Delivery};
use http::Method;
use serde::Serialize;

use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/notification-sinks/{id}/deliveries",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<Item>>("notification_sinks.deliveries", "Lists what was sent to a sink, newest first.")
        .in_pages(),
};

described! {
    #[derive(Serialize)]
    struct Item<'a> {
        id: &'a NotificationDeliveryId,
        sink_id: &'a NotificationSinkId,
        event_id: &'a str,
        event_type: &'a str,
        attempts: i64,
        available_at: Timestamp,
        delivered_at: Option<Timestamp>,
        abandoned_at: Option<Timestamp>,
        response_status: Option<i64>,
        last_error: Option<&'a str>,
        created_at: Timestamp,
    }
}

impl<'a> From<&'a Delivery> for Item<'a> {
    fn from(row: &'a Delivery) -> Self {
        Self {
            id: &row.id,
            sink_id: &row.sink_id,
            event_id: &row.event_id,
            event_type: &row.event_type,
            attempts: row.attempts,
            available_at: row.available_at,
            delivered_at: row.delivered_at,
            abandoned_at: row.abandoned_at,
            response_status: row.response_status,
            last_error: row.last_error.as_deref(),
            created_at: row.created_at,
        }
    }
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (page, sink) = (call.query.page()?, call.id("id")?);
    let mut snapshot = admin.store.snapshot().await?;
    let rows = notification_deliveries::list(&mut snapshot.zone(&call.place.zone), &sink, &page).await?;
    Ok(Answer::ok(&Listing::of(&rows, &page, |row: &Delivery| (row.created_at, row.id.to_string()), Item::from)))
}
