//! `GET /v1/zones/{zone}/policy-sets/{id}/versions/{version}`: with its manifest, also for archived sets.

use std::sync::Arc;

use caracal_authority::PolicyVersionId;
use http::Method;
use serde::Serialize;

use super::{VersionView, version_of};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets/{id}/versions/{version}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read_version(admin, call)))),
    spec: Spec::shows::<WithManifest>("policy_sets.read_version", "Shows a version of a policy set.")
        .refuses(&[(404, "policy_set_not_found"), (404, "policy_set_version_not_found")]),
};

described! {
    #[derive(Serialize)]
    struct WithManifest<'a> {
        #[serde(flatten)]
        version: VersionView<'a>,
        manifest_json: Vec<Entry<'a>>,
        policies: &'a [PolicyVersionId],
    }
}

described! {
    #[derive(Serialize)]
    struct Entry<'a> {
        policy_version_id: &'a PolicyVersionId,
    }
}

async fn read_version(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (set, id) = (call.id("id")?, call.id("version")?);
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let version = version_of(&mut tx, &set, &id, "policy_set_version_not_found").await?;
    let manifest_json = version.manifest.iter().map(|policy_version_id| Entry { policy_version_id }).collect();
    Ok(Answer::ok(&WithManifest { version: (&version).into(), manifest_json, policies: &version.manifest }))
}
