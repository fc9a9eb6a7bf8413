//! `POST /v1/zones/{zone}/grants`. The same grant again is another one.

use std::sync::Arc;

use caracal_authority::{ApplicationId, GrantId, ResourceId};
use caracal_store::grants::{self, Grant};
use caracal_store::{Attribution, applications, resources};
use http::Method;

use super::{Core, MAX_SCOPES, SCOPE};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/grants",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<Core>("grants.create", "Grants an application scopes of a resource, for a user.")
        .takes("invalid_body", |body| Draft::read(body).map(drop))
        .refuses(&[
            (404, "zone_not_found"),
            (404, "application_not_found"),
            (404, "resource_not_found"),
            (403, "control_resource_not_grantable"),
            (403, "grant_scopes_exceed_resource"),
        ]),
};

struct Draft {
    application_id: String,
    user_id: String,
    resource_id: String,
    scopes: Vec<String>,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let some = Text::exact(1, usize::MAX);
        let mut fields = Fields::of(body)?;
        let draft = Self {
            application_id: fields.required_text("application_id", some)?,
            user_id: fields.required_text("user_id", some)?,
            resource_id: fields.required_text("resource_id", some)?,
            scopes: {
                let scopes = fields.texts("scopes", (1, MAX_SCOPES), SCOPE)?;
                fields.require("scopes", scopes)?
            },
        };
        Ok(draft)
    }
}

struct Change {
    draft: Draft,
    id: GrantId,
    by: String,
    control: String,
    sees_control: bool,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let change = Change {
        draft,
        id: fresh(call.now)?,
        by: call.caller.actor(),
        control: admin.config.control_audience.clone(),
        sees_control: call.caller.is_global(),
        trace: call.trace,
    };
    let (grant, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let Draft { application_id, user_id, resource_id, scopes } = &change.draft;
                // What is no id names nothing.
                let missing = || Refusal::missing("application_not_found");
                let application_id = ApplicationId::parse(application_id).map_err(|_| missing())?;
                let application = applications::lookup(tx, &application_id).await?;
                let now = tx.now();
                application.filter(|row| row.is_live(now)).ok_or_else(missing)?;
                let missing = || Refusal::missing("resource_not_found");
                let resource_id = ResourceId::parse(resource_id).map_err(|_| missing())?;
                let found = resources::lookup(tx, &resource_id).await?.filter(|row| row.archived_at.is_none());
                let resource = found.ok_or_else(missing)?;
                if resource.identifier == change.control {
                    // Whoever may not see the control resource is not told that it is there.
                    let grantable = || Refusal::forbidden("control_resource_not_grantable");
                    return Err(if change.sees_control { grantable() } else { missing() });
                }
                if let Some(beyond) = scopes.iter().find(|scope| !resource.scopes.contains(scope)) {
                    let what = format!("the resource has no scope `{beyond}`");
                    return Err(Refusal::forbidden("grant_scopes_exceed_resource").describe(what));
                }
                let mut attribution = Attribution::created(&change.by, now);
                attribution.updated_at = None;
                let grant = Grant {
                    zone_id: tx.zone().clone(),
                    id: change.id.clone(),
                    application_id,
                    user_id: user_id.clone(),
                    resource_id,
                    scopes: scopes.clone(),
                    status: "active".to_owned(),
                    attribution,
                };
                grants::add(tx, &grant).await?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &Core::from(&grant)).await?;
                Ok::<_, Refusal>((grant, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Core::from(&grant)))
}
