//! Everything one launch's decision needs, read in one snapshot (architecture rule 2). Rows become facts here; nothing is
//! judged.

use caracal_authority::ApprovalId;
use caracal_authority::launch::{self, BoundCredential, BoundResource, Launch};
use caracal_authority::scope::{Scope, Scopes};
use caracal_store::workloads::{self, Binding};
use caracal_store::{Named, StoreError, ZoneRead, ZoneVersion, approvals, providers, resources, zones};
use serde_json::Value;

use super::workload::AuthenticatedWorkload;
use crate::ExchangeError;
use crate::directive::{self, needs_secret};
use crate::facts::{Sources, Upstream, resource};
use crate::policy::Governing;

/// One snapshot, as facts and as what the carrying out of a release needs beside them.
pub(super) struct Loaded {
    /// What the release has to be committed at.
    pub(super) version: ZoneVersion,
    pub(super) facts: launch::Facts,
    pub(super) governing: Governing,
    /// As it is stored.
    pub(super) bound: Option<Binding>,
    pub(super) upstream: Option<Upstream>,
}

impl Sources<'_> {
    /// Reads what `launch` of `workload` refers to.
    pub(super) async fn load_launch(
        &self,
        launch: &Launch,
        workload: &AuthenticatedWorkload,
    ) -> Result<Loaded, ExchangeError> {
        // What it was bound to a moment ago is most likely what it is bound to now.
        let guess = workload.row().bindings.read().ok().and_then(|bindings| binding(bindings, &launch.env));
        let resources: Vec<&str> = guess.iter().map(|binding| binding.resource.as_str()).collect();
        // What is no id names nothing; the decision says so.
        let approval = launch.approval_id.as_deref().and_then(|id| ApprovalId::parse(id).ok());
        let named = Named {
            workload: Some(&launch.workload),
            resources: &resources,
            secrets: true,
            approval: approval.as_ref(),
            ..Named::default()
        };
        let (version, mut snapshot) = self.store.decision_snapshot(&launch.zone, &named).await?;
        let now = snapshot.now();
        let mut tx = snapshot.zone(&launch.zone);
        // Nobody is launched in a zone that was archived (difference D19).
        let zone_lives = zones::lookup(&mut tx).await?.is_some_and(|zone| zone.archived_at.is_none());
        let row = workloads::lookup(&mut tx, &launch.workload).await?;
        let row = row.filter(|row| zone_lives && workload.still_holds(row));
        let mut facts = launch::Facts { now: Some(now), ..launch::Facts::default() };
        let (mut bound, mut upstream) = (None, None);
        if let Some(row) = row {
            bound = binding(row.bindings.read().map_err(ExchangeError::damaged)?, &launch.env);
            facts.workload = Some(launch::Workload { id: row.id, zone: row.zone_id, name: row.name });
        }
        if let Some(bound) = &bound {
            facts.bound = Some(credential(bound)?);
            upstream = self.add_bound_resource(&mut tx, &mut facts, &bound.resource).await?;
        }
        if let Some(id) = &approval
            && let Some(row) = approvals::lookup(&mut tx, id).await?
        {
            facts.holds.push(row.facts()?);
        }
        let found = self.policy.find(&mut tx).await?;
        // Documents take their time, and a snapshot keeps a reader from everybody else.
        drop(snapshot);
        let governing = self.policy.read(&launch.zone, found).await;
        facts.policy = governing.stamp();
        Ok(Loaded { version, facts, governing, bound, upstream })
    }

    async fn add_bound_resource(
        &self,
        tx: &mut ZoneRead<'_>,
        facts: &mut launch::Facts,
        name: &str,
    ) -> Result<Option<Upstream>, StoreError> {
        let Some(row) = resources::find_by_name(tx, name).await? else { return Ok(None) };
        let provider = match &row.credential_provider_id {
            Some(id) => providers::lookup(tx, id).await?.filter(|provider| provider.archived_at.is_none()),
            None => None,
        };
        let resource = resource(&row, provider.as_ref())?;
        let secret = match provider.as_ref().filter(|provider| needs_secret(provider)) {
            Some(provider) => self.secret(tx, provider).await?,
            None => None,
        };
        let identifier = &resource.name.identifier;
        let allows =
            |name: &str| provider.as_ref().and_then(|provider| provider.config.get(name)) == Some(&Value::Bool(true));
        facts.resource = Some(BoundResource {
            upstream: row.upstream_url.clone(),
            is_configured: provider.as_ref().is_some_and(|provider| directive::lacks(identifier, provider).is_ok()),
            allows_injection: allows("allow_runtime_injection"),
            resource: resource.clone(),
        });
        let (url, limits) = (row.upstream_url, row.limits);
        Ok(Some(Upstream { resource: resource.name, url, limits, provider, account: None, secret }))
    }
}

fn binding(bindings: Vec<Binding>, env: &str) -> Option<Binding> {
    bindings.into_iter().find(|binding| binding.env == env)
}

fn credential(bound: &Binding) -> Result<BoundCredential, ExchangeError> {
    let scopes: Result<Vec<Scope>, _> = bound.scopes.iter().map(|scope| Scope::parse(scope)).collect();
    let damaged = |_| {
        let what = format!("the binding of `{}` has a scope that is none", bound.env);
        ExchangeError::damaged(StoreError::Corrupt { table: "workloads", what })
    };
    Ok(BoundCredential { resource: bound.resource.clone(), scopes: Scopes::from_list(scopes.map_err(damaged)?) })
}
