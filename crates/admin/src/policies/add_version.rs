//! `POST /v1/zones/{zone}/policies/{id}/versions`. The same text again is a new version.

use std::sync::Arc;

use caracal_authority::{PolicyId, PolicyVersionId};
use caracal_store::policies::{self, PolicyVersion};
use http::Method;
use serde::Serialize;

use super::{VersionView, content, existing, invalid_body, next_version, require_good_text};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policies/{id}/versions",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(add_version(admin, call)))),
    spec: Spec::creates::<Created>("policies.add_version", "Adds a version to a policy.")
        .takes("invalid_body", |body| content(body).map(drop))
        .refuses(&[(404, "policy_not_found"), (409, "reserved_namespace"), (422, "invalid_rego")]),
};

struct Change {
    policy: PolicyId,
    id: PolicyVersionId,
    content: String,
    by: String,
    may_reserve: bool,
    trace: Arc<Trace>,
}

described! {
    /// `id` repeats the version's id: clients of either spelling find it.
    #[derive(Serialize)]
    struct Created<'a> {
        version_id: &'a PolicyVersionId,
        id: &'a PolicyVersionId,
        #[serde(flatten)]
        version: VersionView<'a>,
    }
}

impl<'a> From<&'a PolicyVersion> for Created<'a> {
    fn from(version: &'a PolicyVersion) -> Self {
        Self { version_id: &version.id, id: &version.id, version: version.into() }
    }
}

async fn add_version(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let content = content(call.body.take()).map_err(invalid_body)?;
    require_good_text(&content)?;
    let change = Change {
        policy: call.id("id")?,
        id: fresh(call.now)?,
        content,
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        trace: call.trace,
    };
    let (version, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let policy = existing(tx, &change.policy).await?;
                reserved::guard(change.may_reserve, &policy.name, reserved::NAME)?;
                let version = next_version(tx, &change.id, &change.policy, &change.content, &change.by).await?;
                policies::add_version(tx, &version).await?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &Created::from(&version)).await?;
                Ok::<_, Refusal>((version, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Created::from(&version)))
}
