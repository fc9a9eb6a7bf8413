//! Policies of a document (contract: control-cli-deploy.md §3.1). Another text is a new version; the old ones stay.

use caracal_policy::ContentSha256;
use caracal_store::ZoneWrite;
use caracal_store::policies::{self, LatestVersion};
use serde_json::Value;

use super::create::{self, Draft};
use super::{invalid_body, next_version, require_good_text};
use crate::admin::fresh;
use crate::desired_state::{Did, Import, Object, State};
use crate::problem::Refusal;

const MEMBERS: [(&str, &str); 3] = [("name", "name"), ("description", "description"), ("content", "content")];

/// Makes the policy what the document says.
pub(crate) async fn settle(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
) -> Result<(Did, String), Refusal> {
    let hand = &import.hand;
    let mut draft = Draft::read(Some(Value::Object(object.body(&MEMBERS)))).map_err(invalid_body)?;
    draft.name.clone_from(&object.identity);
    require_good_text(&draft.content)?;
    let Some((policy, latest)) = state.policies.get_mut(&object.identity) else {
        let ids = (fresh(tx.now())?, fresh(tx.now())?);
        let (policy, version) = create::add(tx, hand, &ids, &draft).await?;
        let latest = LatestVersion { id: version.id, version: version.version, content_sha256: version.content_sha256 };
        let id = policy.id.to_string();
        state.policies.insert(object.identity.clone(), (policy, Some(latest)));
        return Ok((Did::Create, id));
    };
    let sha256 = ContentSha256::of(&draft.content).to_string();
    if latest.as_ref().is_some_and(|latest| latest.content_sha256 == sha256) {
        return Ok((Did::Nothing, policy.id.to_string()));
    }
    let id = fresh(tx.now())?;
    let version = next_version(tx, &id, &policy.id, &draft.content, &hand.by).await?;
    policies::add_version(tx, &version).await?;
    *latest = Some(LatestVersion { id: version.id, version: version.version, content_sha256: version.content_sha256 });
    Ok((Did::Update(vec!["content"]), policy.id.to_string()))
}
