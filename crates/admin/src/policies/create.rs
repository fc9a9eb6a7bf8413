//! `POST /v1/zones/{zone}/policies`: a policy with its first version.

use std::sync::Arc;

use caracal_authority::{PolicyId, PolicyVersionId, ZoneId};
use caracal_store::policies::{self, Policy, PolicyVersion};
use caracal_store::{Attribution, StoreError, ZoneWrite};
use http::Method;
use serde::Serialize;

use super::{NAME, SOME, VersionView, invalid_body, next_version, require_good_text};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
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

/// A policy that is about to be.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) content: String,
}

impl Draft {
    pub(super) fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self {
            name: fields.required_text("name", NAME)?,
            description: fields.text("description", Text::exact(0, usize::MAX))?,
            content: fields.required_text("content", SOME)?,
        })
    }
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

impl<'a> Created<'a> {
    fn of(policy: &'a Policy, version: &'a PolicyVersion) -> Self {
        Self {
            id: &policy.id,
            version_id: &version.id,
            zone_id: &policy.zone_id,
            name: &policy.name,
            description: policy.description.as_deref(),
            version: CreatedVersion { id: &version.id, version: version.into() },
        }
    }
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(invalid_body)?;
    let hand = Hand::of(&admin, &call);
    hand.guard(&draft.name, reserved::NAME)?;
    require_good_text(&draft.content)?;
    let ids: (PolicyId, PolicyVersionId) = (fresh(call.now)?, fresh(call.now)?);
    let (policy, version, recorded) = admin
        .store
        .commit(&call.place.zone, (draft, ids, hand), |tx, (draft, ids, hand)| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let (policy, version) = add(tx, hand, ids, draft).await?;
                let shown = Created::of(&policy, &version);
                let recorded = hand.trace.creation(tx, policy.id.as_str(), &shown).await?;
                Ok::<_, Refusal>((policy, version, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Created::of(&policy, &version)))
}

/// Adds the policy with its first version, in the commit that records it.
pub(super) async fn add(
    tx: &mut ZoneWrite<'_>,
    hand: &Hand,
    (id, version_id): &(PolicyId, PolicyVersionId),
    draft: &Draft,
) -> Result<(Policy, PolicyVersion), Refusal> {
    let policy = Policy {
        zone_id: tx.zone().clone(),
        id: id.clone(),
        name: draft.name.clone(),
        description: draft.description.clone(),
        archived_at: None,
        attribution: Attribution::created(&hand.by, tx.now()),
    };
    policies::add(tx, &policy).await.map_err(conflict)?;
    let version = next_version(tx, version_id, id, &draft.content, &hand.by).await?;
    policies::add_version(tx, &version).await?;
    Ok((policy, version))
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("policies.name") { Refusal::conflict("policy_name_conflict") } else { error.into() }
}
