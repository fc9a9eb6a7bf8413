//! What a zone has of the kinds that a document can speak of, by identity.
//!
//! Left out is what is nobody's configuration: applications that registered themselves, the control resource, the built-in
//! provider of the zone, and whatever is reserved.

use std::collections::BTreeMap;

use caracal_authority::{ProviderId, Timestamp};
use caracal_store::applications::{self, Application};
use caracal_store::policies::{self, LatestVersion, Policy};
use caracal_store::policy_sets::{self, LatestSetVersion, PolicySet};
use caracal_store::providers::{self, Provider};
use caracal_store::resources::{self, Resource, ResourceFilter};
use caracal_store::{Page, Position, ZoneRead};

use crate::problem::Refusal;
use crate::reserved::{self, is_reserved};

/// Rows read at a time.
const BATCH: usize = 500;
/// What the ids of built-in providers start with.
const BUILT_IN: &str = "provider-none-";
/// Most objects of one kind in a zone that is handled as one document.
const MOST: usize = 10_000;

/// What there is.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) providers: BTreeMap<String, Provider>,
    pub(crate) applications: BTreeMap<String, Application>,
    pub(crate) resources: BTreeMap<String, Resource>,
    pub(crate) policies: BTreeMap<String, (Policy, Option<LatestVersion>)>,
    pub(crate) sets: BTreeMap<String, (PolicySet, Option<LatestSetVersion>)>,
    /// Every provider's identifier by its id, those included that are nobody's configuration.
    pub(crate) provider_names: BTreeMap<String, String>,
}

/// All rows of a list, page by page.
macro_rules! all {
    (|$page:ident| $list:expr, |$row:ident| $place:expr) => {{
        let mut rows = Vec::new();
        let mut after: Option<Position> = None;
        loop {
            let $page = &Page { limit: BATCH, after: after.take() };
            let batch = $list.await?;
            let is_last = batch.len() < BATCH;
            after = batch.last().map(|$row| place($place));
            rows.extend(batch);
            if rows.len() > MOST {
                return Err(Refusal::conflict("zone_too_large")
                    .describe(format!("a zone with more than {MOST} objects of a kind is not one document")));
            }
            if is_last {
                break rows;
            }
        }
    }};
}

fn place((at, id): (Timestamp, &str)) -> Position {
    Position { at, id: id.to_owned() }
}

impl State {
    /// Reads all of it. `control` is the control resource's identifier.
    pub(super) async fn read(tx: &mut ZoneRead<'_>, control: &str) -> Result<Self, Refusal> {
        let mut state = Self::default();
        let rows = all!(|page| providers::list(tx, false, page), |row| (row.attribution.created_at, row.id.as_str()));
        for row in rows {
            state.provider_names.insert(row.id.to_string(), row.identifier.clone());
            let is_built_in = row.id.as_str().starts_with(BUILT_IN);
            if !is_built_in && !is_reserved(&row.identifier, reserved::PROVIDER) {
                state.providers.insert(row.identifier.clone(), row);
            }
        }
        let rows =
            all!(|page| applications::list(tx, false, page), |row| (row.attribution.created_at, row.id.as_str()));
        for row in rows {
            if row.registration_method == "managed" && !is_reserved(&row.name, reserved::NAME) {
                state.applications.insert(row.name.clone(), row);
            }
        }
        let filter = ResourceFilter { archived: false, hidden: Some(control.to_owned()) };
        let rows = all!(|page| resources::list(tx, &filter, page), |row| (row.attribution.created_at, row.id.as_str()));
        for row in rows {
            if !is_reserved(&row.identifier, reserved::RESOURCE) {
                state.resources.insert(row.identifier.clone(), row);
            }
        }
        let rows = all!(|page| policies::list(tx, page), |row| (row.0.attribution.created_at, row.0.id.as_str()));
        for row in rows {
            if !is_reserved(&row.0.name, reserved::NAME) {
                state.policies.insert(row.0.name.clone(), row);
            }
        }
        let rows = all!(|page| policy_sets::list(tx, page), |row| (row.0.attribution.created_at, row.0.id.as_str()));
        for row in rows {
            state.sets.insert(row.0.name.clone(), row);
        }
        Ok(state)
    }

    /// Takes note of a provider as it is now.
    pub(crate) fn know(&mut self, provider: Provider) {
        self.provider_names.insert(provider.id.to_string(), provider.identifier.clone());
        self.providers.insert(provider.identifier.clone(), provider);
    }

    /// The live provider with this identifier.
    pub(crate) fn provider_of(&self, identifier: &str) -> Option<ProviderId> {
        let (id, _) = self.provider_names.iter().find(|(_, name)| name.as_str() == identifier)?;
        ProviderId::parse(id).ok()
    }

    /// The policies by their newest versions.
    pub(crate) fn names_of_latest(&self) -> BTreeMap<&str, &str> {
        self.policies
            .values()
            .filter_map(|(policy, latest)| Some((latest.as_ref()?.id.as_str(), policy.name.as_str())))
            .collect()
    }
}
