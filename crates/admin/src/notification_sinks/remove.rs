//! `DELETE /v1/zones/{zone}/notification-sinks/{id}`: it is gone with its deliveries, sent or not.

use std::sync::Arc;

use caracal_authority::NotificationSinkId;
use caracal_store::notification_sinks;
use http::{Method, StatusCode};

use super::missing;
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/notification-sinks/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(remove(admin, call)))),
    spec: Spec::removes("notification_sinks.remove", "Deletes a notification sink and its deliveries.")
        .refuses(&[(404, "sink_not_found")]),
};

struct Change {
    id: NotificationSinkId,
    trace: Arc<Trace>,
}

async fn remove(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change { id: call.id("id")?, trace: call.trace };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                if !notification_sinks::remove(tx, &change.id).await? {
                    return Err(missing());
                }
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
