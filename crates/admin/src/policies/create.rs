//! `POST /v1/zones/{zone}/policies`: a policy with its first version.

use std::sync::Arc;

use caracal_authority::{PolicyId, PolicyVersionId, ZoneId};
use caracal_store::policies::{self, Policy};
use caracal_store::{Attribution, StoreError};
use http::{Method, StatusCode};
use serde::Serialize;

use super::{SOME, VersionView, invalid_body, next_version, require_good_text};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policies",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<Created>("policies.create", "Creates a policy with its first version.")
        .takes("invalid_body", |body| Draft::read(body).map(drop))
        .refuses(&[
            (404, "zone_not_found"),
            (409, "reserved_namespace"),
            (422, "invalid_rego"),
            (409, "policy_name_conflict"),
        ]),
};

struct Draft {
    name: String,
    description: Option<String>,
    content: String,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self {
            name: fields.required_text("name", SOME)?,
            description: fields.text("description", Text::exact(0, usize::MAX))?,
            content: fields.required_text("content", SOME)?,
        })
    }
}

struct Change {
    draft: Draft,
    id: PolicyId,
    version_id: PolicyVersionId,
    by: String,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Created<'a> {
        id: &'a PolicyId,
        version_id: &'a PolicyVersionId,
        zone_id: &'a ZoneId,
        name: &'a str,
        description: Option<&'a str>,
        version: CreatedVersion<'a>,
    }
}

described! {
    #[derive(Serialize)]
    struct CreatedVersion<'a> {
        id: &'a PolicyVersionId,
        #[serde(flatten)]
        version: VersionView<'a>,
    }
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(invalid_body)?;
    reserved::guard(call.caller.is_bootstrap(), &draft.name, reserved::NAME)?;
    require_good_text(&draft.content)?;
    let change = Change {
        draft,
        id: fresh(call.now)?,
        version_id: fresh(call.now)?,
        by: call.caller.actor(),
        trace: call.trace,
    };
    let (policy, version, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let policy = Policy {
                    zone_id: tx.zone().clone(),
                    id: change.id.clone(),
                    name: change.draft.name.clone(),
                    description: change.draft.description.clone(),
                    archived_at: None,
                    attribution: Attribution::created(&change.by, tx.now()),
                };
                policies::add(tx, &policy).await.map_err(conflict)?;
                let content = &change.draft.content;
                let version = next_version(tx, &change.version_id, &change.id, content, &change.by).await?;
                policies::add_version(tx, &version).await?;
                let recorded = change.trace.change(tx, StatusCode::CREATED, Some(change.id.as_str())).await?;
                Ok::<_, Refusal>((policy, version, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Created {
        id: &policy.id,
        version_id: &version.id,
        zone_id: &policy.zone_id,
        name: &policy.name,
        description: policy.description.as_deref(),
        version: CreatedVersion { id: &version.id, version: (&version).into() },
    }))
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("policies.name") { Refusal::conflict("policy_name_conflict") } else { error.into() }
}
