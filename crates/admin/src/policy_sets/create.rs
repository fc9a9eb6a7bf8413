//! `POST /v1/zones/{zone}/policy-sets`.

use std::sync::Arc;

use caracal_authority::PolicySetId;
use caracal_store::policy_sets::{self, PolicySet};
use caracal_store::{Attribution, StoreError, ZoneWrite};
use http::Method;

use super::Core;
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::policies::NAME;
use crate::problem::Refusal;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policy-sets",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<Core>("policy_sets.create", "Creates a policy set.")
        .takes("invalid_body", |body| Draft::read(body).map(drop))
        .refuses(&[(404, "zone_not_found"), (409, "policy_set_name_conflict")]),
};

/// A set that is about to be.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) description: Option<String>,
}

impl Draft {
    pub(super) fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self {
            name: fields.required_text("name", NAME)?,
            description: fields.text("description", Text::exact(0, usize::MAX))?,
        })
    }
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let (id, hand): (PolicySetId, _) = (fresh(call.now)?, Hand::of(&admin, &call));
    let (set, recorded) = admin
        .store
        .commit(&call.place.zone, (draft, id, hand), |tx, (draft, id, hand)| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let set = add(tx, hand, id, draft).await?;
                let recorded = hand.trace.creation(tx, id.as_str(), &Core::from(&set)).await?;
                Ok::<_, Refusal>((set, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Core::from(&set)))
}

/// Adds the set without versions, in the commit that records it.
pub(super) async fn add(
    tx: &mut ZoneWrite<'_>,
    hand: &Hand,
    id: &PolicySetId,
    draft: &Draft,
) -> Result<PolicySet, Refusal> {
    let set = PolicySet {
        zone_id: tx.zone().clone(),
        id: id.clone(),
        name: draft.name.clone(),
        description: draft.description.clone(),
        archived_at: None,
        active_version_id: None,
        attribution: Attribution::created(&hand.by, tx.now()),
    };
    policy_sets::add(tx, &set).await.map_err(conflict)?;
    Ok(set)
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("policy_sets.name") { Refusal::conflict("policy_set_name_conflict") } else { error.into() }
}
