//! Policies: data documents with their versions (contract: policy.md §8).

pub(crate) mod add_version;
pub(crate) mod archive;
pub(crate) mod create;
pub(crate) mod desired;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod templates;
pub(crate) mod validate;

use caracal_authority::{PolicyId, PolicyVersionId, Timestamp, ZoneId};
use caracal_policy::text::{self, TextDefect};
use caracal_policy::{BundleDefect, ContentSha256, INPUT_SCHEMA_VERSION};
use caracal_store::ZoneRead;
use caracal_store::policies::{self, LatestVersion, Policy, PolicyVersion};
use serde::Serialize;
use serde_json::json;

use crate::attribution::Attributed;
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::problem::Refusal;

/// The schema that documents are written for.
pub(crate) const SCHEMA: &str = INPUT_SCHEMA_VERSION;

/// At least one character, and no bound but the body's: what is too long has its own code.
const SOME: Text = Text::exact(1, usize::MAX);
/// Names are looked up in an index, and not every engine's takes a row of any length.
pub(crate) const NAME: Text = Text::exact(1, 512);

described! {
    /// A policy as lists show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a PolicyId,
        zone_id: &'a ZoneId,
        name: &'a str,
        description: Option<&'a str>,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

impl<'a> From<&'a Policy> for View<'a> {
    fn from(policy: &'a Policy) -> Self {
        Self {
            id: &policy.id,
            zone_id: &policy.zone_id,
            name: &policy.name,
            description: policy.description.as_deref(),
            by: (&policy.attribution).into(),
        }
    }
}

described! {
    /// The newest version without its document, so that who reconciles need not fetch every policy (README D31).
    #[derive(Serialize)]
    struct LatestView<'a> {
        version_id: &'a PolicyVersionId,
        version: i64,
        content_sha256: &'a str,
    }
}

impl<'a> From<&'a LatestVersion> for LatestView<'a> {
    fn from(latest: &'a LatestVersion) -> Self {
        Self { version_id: &latest.id, version: latest.version, content_sha256: &latest.content_sha256 }
    }
}

described! {
    /// A version as the answers that create one show it.
    #[derive(Serialize)]
    struct VersionView<'a> {
        policy_id: &'a PolicyId,
        version: i64,
        content_sha256: &'a str,
        schema_version: &'a str,
        created_at: Timestamp,
    }
}

impl<'a> From<&'a PolicyVersion> for VersionView<'a> {
    fn from(version: &'a PolicyVersion) -> Self {
        Self {
            policy_id: &version.policy_id,
            version: version.version,
            content_sha256: &version.content_sha256,
            schema_version: &version.schema_version,
            created_at: version.created_at,
        }
    }
}

/// 400 `invalid_body`.
fn invalid_body(mismatch: Mismatch) -> Refusal {
    mismatch.refuse("invalid_body")
}

/// The `content` of a body; other members do not matter.
fn content(body: impl Into<Body>) -> Result<String, Mismatch> {
    Fields::of(body)?.required_text("content", SOME)
}

/// The text check (policy.md §7.1). 422 with the code as description, and the place beside it.
fn require_good_text(content: &str) -> Result<(), Refusal> {
    text::check(content).map(|_| ()).map_err(|defect| bad_text(&defect))
}

fn bad_text(defect: &TextDefect) -> Refusal {
    Refusal::unprocessable("invalid_rego").describe(defect.code.to_string()).details(json!({
        "line": defect.at.line,
        "column": defect.at.column,
        "message": defect.code.explanation(),
    }))
}

/// A document that passes the text check and that no set could serve.
fn bad_document(defect: &BundleDefect) -> Refusal {
    Refusal::unprocessable("invalid_rego").describe(defect.kind.code()).details(json!({
        "line": defect.at.line,
        "column": defect.at.column,
        "message": defect.kind.to_string(),
    }))
}

/// The next version of a policy, whose number is taken inside the commit: concurrent calls get consecutive ones.
async fn next_version(
    tx: &mut ZoneRead<'_>,
    id: &PolicyVersionId,
    policy: &PolicyId,
    content: &str,
    by: &str,
) -> Result<PolicyVersion, Refusal> {
    Ok(PolicyVersion {
        zone_id: tx.zone().clone(),
        id: id.clone(),
        policy_id: policy.clone(),
        version: policies::highest_version(tx, policy).await? + 1,
        content: content.to_owned(),
        content_sha256: ContentSha256::of(content).to_string(),
        schema_version: SCHEMA.to_owned(),
        created_by: Some(by.to_owned()),
        created_via_operator: false,
        created_at: tx.now(),
    })
}

/// The policy, if it is there and not archived.
async fn existing(tx: &mut ZoneRead<'_>, id: &PolicyId) -> Result<Policy, Refusal> {
    let found = policies::lookup(tx, id).await?.filter(|policy| policy.archived_at.is_none());
    found.ok_or_else(|| Refusal::missing("policy_not_found"))
}
