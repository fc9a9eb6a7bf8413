//! `POST /v1/zones/{zone}/notification-sinks`. It is sent what is recorded from now on.

use std::sync::Arc;

use caracal_authority::NotificationSinkId;
use caracal_custody::RowSecret;
use caracal_store::evidence;
use caracal_store::notification_sinks::{self, Sink};
use http::Method;

use super::{APPROVALS, INVALID, NAME, URL, View, WithSecret, draw_secret, event_types, url};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/notification-sinks",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<WithSecret>(
        "notification_sinks.create",
        "Creates a notification sink, and shows the secret that signs what it gets.",
    )
    .takes(INVALID, |body| Draft::read(body).map(drop))
    .refuses(&[
        (404, "zone_not_found"),
        (400, "invalid_sink_url"),
        (409, "sink_limit_reached"),
        (502, "secret_backend_unavailable"),
    ]),
};

/// Sinks of a zone.
const MOST: i64 = 20;

struct Draft {
    name: String,
    url: String,
    event_types: Vec<String>,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self {
            name: fields.required_text("name", NAME)?,
            url: fields.required_text("url", URL)?,
            event_types: event_types(&mut fields)?.unwrap_or_else(|| APPROVALS.map(str::to_owned).to_vec()),
        })
    }
}

struct Change {
    id: NotificationSinkId,
    draft: Draft,
    secret: Vec<u8>,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    url::check(&draft.url)?;
    let (id, secret) = (fresh::<NotificationSinkId>(call.now)?, draw_secret()?);
    let place = RowSecret::Sink { zone: &call.place.zone, sink: &id };
    let sealed = admin.sealed.seal_of_row(place, &secret).map_err(Refusal::secrets_unavailable)?;
    let change = Change { id, draft, secret: sealed, trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                if notification_sinks::count(tx).await? >= MOST {
                    let refusal = Refusal::conflict("sink_limit_reached");
                    return Err(refusal.describe(format!("a zone has at most {MOST} sinks; delete one first")));
                }
                let row = Sink {
                    zone_id: tx.zone().clone(),
                    id: change.id.clone(),
                    name: change.draft.name.clone(),
                    url: change.draft.url.clone(),
                    event_types: change.draft.event_types.clone(),
                    secret: change.secret.clone(),
                    active: true,
                    position: evidence::head(tx).await?.map_or(0, |head| head.chain_seq),
                    due_at: None,
                    consecutive_failures: 0,
                    last_success_at: None,
                    last_failure_at: None,
                    last_error: None,
                    created_at: tx.now(),
                    updated_at: tx.now(),
                };
                notification_sinks::add(tx, &row).await?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &View::from(&row)).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&WithSecret::of(&row, &secret)))
}
