//! `DELETE /v1/zones/{zone}`: the zone is archived, and with it, in the same commit, ends all authority in it: records,
//! sessions, delegations, accounts at providers, and the admin tokens that are bound to it (README D19). What it holds can
//! still be read, by global tokens; nothing brings it back.

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_store::holdings::Holder;
use caracal_store::{admin_tokens, provider_connections, subjects, zones};
use http::{Method, StatusCode};

use crate::Admin;
use crate::answer::Changed;
use crate::endings;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("zones.archive", "Archives a zone, and ends what lives in it.")
        .refuses(&[(404, "zone_not_found")]),
};

const REASON: &str = "zone_archived";

struct Change {
    zone: ZoneId,
    by: String,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change { zone: call.place.zone, by: call.caller.actor(), trace: call.trace };
    let recorded = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                let mut zone = tx.zone_write(&change.zone);
                if !zones::archive(&mut zone, &change.by).await? {
                    return Err(Refusal::missing("zone_not_found"));
                }
                let ended = endings::of_holder(&mut zone, Holder::Zone, REASON.into()).await?;
                for connection in subjects::list_active_connections(&mut zone, None).await? {
                    provider_connections::end(&mut zone, &connection, "revoked").await?;
                }
                let recorded = change.trace.telling(ended).change(&mut zone, StatusCode::NO_CONTENT, None).await?;
                admin_tokens::revoke_of_zone(tx, &change.zone).await?;
                Ok(recorded)
            })
        })
        .await?;
    Ok(recorded.empty())
}
