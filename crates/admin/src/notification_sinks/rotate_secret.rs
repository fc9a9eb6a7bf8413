//! `POST /v1/zones/{zone}/notification-sinks/{id}/rotate-secret`: a hard cut-over. What is sent from the commit on is
//! signed with the new one, deliveries under way included.

use std::sync::Arc;

use caracal_authority::NotificationSinkId;
use caracal_custody::RowSecret;
use caracal_store::notification_sinks;
use http::{Method, StatusCode};

use super::{WithSecret, draw_secret, existing, missing};
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/notification-sinks/{id}/rotate-secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(rotate(admin, call)))),
    spec: Spec::shows::<WithSecret>(
        "notification_sinks.rotate_secret",
        "Gives a sink another secret, and shows it. The old one stops at once.",
    )
    .refuses(&[(404, "sink_not_found"), (502, "secret_backend_unavailable")]),
};

struct Change {
    id: NotificationSinkId,
    secret: Vec<u8>,
    trace: Arc<Trace>,
}

async fn rotate(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, secret) = (call.id::<NotificationSinkId>("id")?, draw_secret()?);
    let place = RowSecret::Sink { zone: &call.place.zone, sink: &id };
    let sealed = admin.sealed.seal_of_row(place, &secret).map_err(Refusal::secrets_unavailable)?;
    let change = Change { id, secret: sealed, trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                if !notification_sinks::replace_secret(tx, &change.id, &change.secret).await? {
                    return Err(missing());
                }
                let row = existing(tx, &change.id).await?;
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&WithSecret::of(&row, &secret)))
}
