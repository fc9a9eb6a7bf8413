//! Policy sets: manifests of policy versions, one of which decides in a zone (contract: policy.md §10).

pub(crate) mod activate;
pub(crate) mod activation_status;
pub(crate) mod add_version;
pub(crate) mod archive;
pub(crate) mod bundle;
pub(crate) mod create;
pub(crate) mod desired;
pub(crate) mod list;
pub(crate) mod list_versions;
pub(crate) mod read;
pub(crate) mod read_version;
pub(crate) mod simulate;

use caracal_authority::{OutboxId, PolicySetId, PolicySetVersionId, Timestamp, ZoneId};
use caracal_store::policy_sets::{self, LatestSetVersion, PolicySet, PolicySetVersion};
use caracal_store::{ZoneRead, ZoneWrite, outbox};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::openapi::shape::described;
use crate::problem::Refusal;

described! {
    /// A set as answers show it, without what is active: the form in which it is created.
    #[derive(Serialize)]
    pub(crate) struct Core<'a> {
        id: &'a PolicySetId,
        zone_id: &'a ZoneId,
        name: &'a str,
        description: Option<&'a str>,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

impl<'a> From<&'a PolicySet> for Core<'a> {
    fn from(set: &'a PolicySet) -> Self {
        Self {
            id: &set.id,
            zone_id: &set.zone_id,
            name: &set.name,
            description: set.description.as_deref(),
            by: (&set.attribution).into(),
        }
    }
}

described! {
    /// A set with the version of it that decides, if one does.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        #[serde(flatten)]
        set: Core<'a>,
        active_version_id: Option<&'a PolicySetVersionId>,
    }
}

impl<'a> From<&'a PolicySet> for View<'a> {
    fn from(set: &'a PolicySet) -> Self {
        Self { set: set.into(), active_version_id: set.active_version_id.as_ref() }
    }
}

described! {
    /// The newest version, for those who reconcile (README D31).
    #[derive(Serialize)]
    struct LatestView<'a> {
        version_id: &'a PolicySetVersionId,
        version: i64,
        manifest_sha256: &'a str,
    }
}

impl<'a> From<&'a LatestSetVersion> for LatestView<'a> {
    fn from(latest: &'a LatestSetVersion) -> Self {
        Self { version_id: &latest.id, version: latest.version, manifest_sha256: &latest.manifest_sha256 }
    }
}

described! {
    /// A version as lists show it.
    #[derive(Serialize)]
    struct VersionView<'a> {
        id: &'a PolicySetVersionId,
        policy_set_id: &'a PolicySetId,
        version: i64,
        manifest_sha256: &'a str,
        schema_version: &'a str,
        created_by: Option<&'a str>,
        created_via_operator: bool,
        created_at: Timestamp,
    }
}

impl<'a> From<&'a PolicySetVersion> for VersionView<'a> {
    fn from(version: &'a PolicySetVersion) -> Self {
        Self {
            id: &version.id,
            policy_set_id: &version.policy_set_id,
            version: version.version,
            manifest_sha256: &version.manifest_sha256,
            schema_version: &version.schema_version,
            created_by: version.created_by.as_deref(),
            created_via_operator: version.created_via_operator,
            created_at: version.created_at,
        }
    }
}

/// The set, if it is there and not archived; else 404 with `code`.
async fn existing(tx: &mut ZoneRead<'_>, id: &PolicySetId, code: &'static str) -> Result<PolicySet, Refusal> {
    let found = policy_sets::lookup(tx, id).await?.filter(|set| set.archived_at.is_none());
    found.ok_or_else(|| Refusal::missing(code))
}

/// A version of this very set.
async fn version_of(
    tx: &mut ZoneRead<'_>,
    set: &PolicySetId,
    id: &PolicySetVersionId,
    code: &'static str,
) -> Result<PolicySetVersion, Refusal> {
    let found = policy_sets::lookup_version(tx, id).await?.filter(|version| version.policy_set_id == *set);
    found.ok_or_else(|| Refusal::missing(code))
}

/// Puts the event of an activation, or of an end of one, into the change that makes it.
async fn announce(
    tx: &mut ZoneWrite<'_>,
    message: &OutboxId,
    set: &PolicySetId,
    version: Option<&PolicySetVersionId>,
) -> Result<(), Refusal> {
    let mut fields = vec![("zone_id".to_owned(), tx.zone().to_string()), ("policy_set_id".to_owned(), set.to_string())];
    if let Some(version) = version {
        fields.push(("policy_set_version_id".to_owned(), version.to_string()));
    }
    let key = format!("{}{message}", dedupe_prefix(set, version));
    outbox::add(tx, message.clone(), policy_sets::INVALIDATED, &key, fields).await?;
    Ok(())
}

/// What the dedupe keys of all events of one version have in common.
fn dedupe_prefix(set: &PolicySetId, version: Option<&PolicySetVersionId>) -> String {
    format!("{set}/{}/", version.map(PolicySetVersionId::as_str).unwrap_or_default())
}
