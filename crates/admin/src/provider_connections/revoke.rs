//! `POST /v1/zones/{zone}/provider-connections/revoke`. The account ends here first and always; then its provider is told,
//! which may fail without changing that.

use std::sync::Arc;

use caracal_store::provider_connections::{self, Connection};
use caracal_store::providers;
use http::{Method, StatusCode};
use serde::Serialize;

use super::{View, Whose};
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/provider-connections/revoke",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(revoke(admin, call)))),
    spec: Spec::shows::<Revoked>(
        "provider_connections.revoke",
        "Ends an account here, and then at its provider if that can be told.",
    )
    .takes("invalid_provider_connection_revoke", |body| whose(body).map(drop))
    .refuses(&[(404, "provider_connection_not_found"), (409, "reserved_namespace")]),
};

struct Change {
    whose: Whose,
    may_reserve: bool,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Revoked<'a> {
        #[serde(flatten)]
        shown: View<'a>,
        upstream_revocation: &'static str,
    }
}

fn whose(body: impl Into<Body>) -> Result<Whose, Mismatch> {
    Whose::read(&mut Fields::of(body)?)
}

async fn revoke(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let whose = whose(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider_connection_revoke"))?;
    let change = Change { whose, may_reserve: call.caller.is_bootstrap(), trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let missing = || Refusal::missing("provider_connection_not_found");
                let provider = change.whose.provider.parse().map_err(|_| missing())?;
                if let Some(provider) = providers::lookup(tx, &provider).await? {
                    reserved::guard(change.may_reserve, &provider.identifier, reserved::PROVIDER)?;
                }
                let found = provider_connections::find_active(tx, &provider, &change.whose.subject).await?;
                let found = found.ok_or_else(missing)?;
                provider_connections::end(tx, &found.id, "revoked").await?;
                let row = Connection { status: "revoked".to_owned(), updated_at: tx.now(), ..found };
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    let upstream_revocation = admin.broker.revoke_upstream(&row).await.as_str();
    Ok(recorded.answer(&Revoked { shown: View::from(&row), upstream_revocation }))
}
