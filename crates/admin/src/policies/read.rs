//! `GET /v1/zones/{zone}/policies/{id}`: the policy with all its versions, documents included.

use std::sync::Arc;

use caracal_authority::{PolicyId, PolicyVersionId, Timestamp};
use caracal_store::policies::{self, PolicyVersion};
use http::Method;
use serde::Serialize;

use super::{View, existing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policies/{id}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<WithVersions>("policies.read", "Shows a policy with all of its versions.")
        .refuses(&[(404, "policy_not_found")]),
};

described! {
    #[derive(Serialize)]
    struct WithVersions<'a> {
        #[serde(flatten)]
        policy: View<'a>,
        versions: Vec<FullVersion<'a>>,
    }
}

described! {
    /// A version with all its columns. Its time has another form than all others: microseconds and an offset.
    #[derive(Serialize)]
    struct FullVersion<'a> {
        id: &'a PolicyVersionId,
        policy_id: &'a PolicyId,
        version: i64,
        content: &'a str,
        content_sha256: &'a str,
        schema_version: &'a str,
        created_by: Option<&'a str>,
        created_at: String,
        archived_at: Option<()>,
        created_via_operator: bool,
    }
}

impl<'a> From<&'a PolicyVersion> for FullVersion<'a> {
    fn from(version: &'a PolicyVersion) -> Self {
        Self {
            id: &version.id,
            policy_id: &version.policy_id,
            version: version.version,
            content: &version.content,
            content_sha256: &version.content_sha256,
            schema_version: &version.schema_version,
            created_by: version.created_by.as_deref(),
            created_at: with_offset(version.created_at),
            archived_at: None,
            created_via_operator: version.created_via_operator,
        }
    }
}

fn with_offset(at: Timestamp) -> String {
    at.to_micros_text().replace('Z', "+00:00")
}

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let policy = existing(&mut tx, &id).await?;
    let versions = policies::list_versions(&mut tx, &id).await?;
    let versions = versions.iter().map(FullVersion::from).collect();
    Ok(Answer::ok(&WithVersions { policy: View::from(&policy), versions }))
}
