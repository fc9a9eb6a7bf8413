//! `PATCH /v1/zones/{zone}/notification-sinks/{id}`. One that is switched off is sent nothing and keeps its place; switched
//! on again, it goes on from there.

use std::sync::Arc;

use caracal_authority::NotificationSinkId;
use caracal_store::notification_sinks;
use http::{Method, StatusCode};

use super::{INVALID, NAME, URL, View, event_types, existing, missing, url};
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}/notification-sinks/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("notification_sinks.update", "Changes a notification sink.")
        .takes(INVALID, |body| Patch::read(body).map(drop))
        .refuses(&[(400, "invalid_sink_url"), (404, "sink_not_found")]),
};

struct Patch {
    name: Option<String>,
    url: Option<String>,
    event_types: Option<Vec<String>>,
    active: Option<bool>,
}

impl Patch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self {
            name: fields.text("name", NAME)?,
            url: fields.text("url", URL)?,
            event_types: event_types(&mut fields)?,
            active: fields.flag("active")?,
        })
    }
}

struct Change {
    id: NotificationSinkId,
    patch: Patch,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Patch::read(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    if let Some(url) = &patch.url {
        url::check(url)?;
    }
    let change = Change { id: call.id("id")?, patch, trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let (patch, mut row) = (&change.patch, existing(tx, &change.id).await?);
                let moved = patch.url.as_ref().is_some_and(|url| *url != row.url);
                if let Some(name) = &patch.name {
                    row.name.clone_from(name);
                }
                if let Some(url) = &patch.url {
                    row.url.clone_from(url);
                }
                if let Some(types) = &patch.event_types {
                    row.event_types.clone_from(types);
                }
                row.active = patch.active.unwrap_or(row.active);
                if !notification_sinks::update(tx, &row).await? {
                    return Err(missing());
                }
                if moved {
                    notification_sinks::forget_failures(tx, &change.id).await?;
                }
                // Whoever sends may have noted something meanwhile.
                let row = existing(tx, &change.id).await?;
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&row)))
}
