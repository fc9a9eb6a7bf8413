//! Policy at decision time: which bundle governs a zone, and what it says of one resource.
//!
//! The active version is read in the decision's own snapshot, so an activation reaches the next decision of every
//! replica without being told. Only the bundle is remembered, by the hash of its manifest, and that never changes.

use std::collections::HashMap;
use std::sync::Arc;

use caracal_authority::approval::PolicyStamp;
use caracal_authority::exchange::{ApprovalTier, Approver, Counsel, PolicyAnswer, PolicyQuestion, Privacy, Rate};
use caracal_authority::resource::Resource;
use caracal_authority::{PolicySetVersionId, ResourceId, Timestamp, ZoneId};
use caracal_policy::{
    Action, ActionId, Bundle, ContentSha256, Context, DECISION_CONTRACT_VERSION, DelegationEdge, Input, ManifestSha256,
    PolicyCache, Principal, PrincipalKind, SchemaVersion, Session, StoredDocument, Verdict, decide,
    decision_contract_sha256,
};
use caracal_store::policy_sets::{self, ActivePolicySet};
use caracal_store::{Store, StoreError, ZoneRead, policies};
use serde_json::{Map, Value};

use crate::metrics::PolicyMetrics;

/// What governs a zone in one snapshot.
pub(crate) struct Governing {
    /// The active set version; none when nothing is active.
    pub(crate) active: Option<ActivePolicySet>,
    /// Its bundle, or why there is none: then nothing is decided.
    pub(crate) bundle: Result<Arc<Bundle>, String>,
}

impl Governing {
    /// The hash of the manifest that decides, or of the one that could not be loaded; `no_active_policy_set` for none.
    pub(crate) fn manifest(&self) -> Option<&str> {
        match (&self.bundle, &self.active) {
            (Ok(bundle), _) => Some(bundle.manifest()),
            (Err(_), active) => active.as_ref().map(|active| active.manifest_sha256.as_str()),
        }
    }

    /// What an approval is bound to of it: the very bundle that is asked.
    pub(crate) fn stamp(&self) -> PolicyStamp {
        PolicyStamp {
            version: self.active.as_ref().map(|active| active.version_id.to_string()).unwrap_or_default(),
            manifest: self.manifest().unwrap_or_default().to_owned(),
            contract: DECISION_CONTRACT_VERSION.to_owned(),
            contract_sha: decision_contract_sha256().to_owned(),
        }
    }
}

/// What is in force in a zone, for the activation status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The active set version; none when nothing is active and everything is denied.
    pub policy_set_version_id: Option<PolicySetVersionId>,
    /// Its manifest hash, or `no_active_policy_set`.
    pub manifest_sha256: String,
    /// Since when; for no active set, now.
    pub loaded_at: Timestamp,
}

/// Bundles of all zones.
#[derive(Default)]
pub(crate) struct PolicyRuntime {
    cache: PolicyCache,
    pub(crate) metrics: PolicyMetrics,
}

impl PolicyRuntime {
    /// What governs the transaction's zone. A store failure is an error; a version that can't be loaded is a bundle
    /// that answers nothing, so that its decisions fail as policy failures do.
    pub(crate) async fn governing(&self, tx: &mut ZoneRead<'_>) -> Result<Governing, StoreError> {
        let Some(active) = policy_sets::find_active(tx).await? else {
            return Ok(Governing { active: None, bundle: Ok(self.cache.no_active_policy_set()) });
        };
        let bundle = match ManifestSha256::parse(&active.manifest_sha256) {
            Ok(manifest) => match self.cache.bundle(manifest) {
                Some(bundle) => Ok(bundle),
                None => self.load(tx, &active, manifest).await?,
            },
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &bundle {
            tracing::error!(zone = %tx.zone(), version = %active.version_id, error, "the active policy can't be loaded");
        }
        Ok(Governing { active: Some(active), bundle })
    }

    async fn load(
        &self,
        tx: &mut ZoneRead<'_>,
        active: &ActivePolicySet,
        manifest: ManifestSha256,
    ) -> Result<Result<Arc<Bundle>, String>, StoreError> {
        let Some(version) = policy_sets::lookup_version(tx, &active.version_id).await? else {
            return Ok(Err("the active policy set version is missing".to_owned()));
        };
        let mut rows = Vec::with_capacity(version.manifest.len());
        for id in &version.manifest {
            match policies::lookup_version(tx, id).await? {
                Some(row) => rows.push(row),
                None => return Ok(Err(format!("policy version `{id}` is missing"))),
            }
        }
        let documents: Result<Vec<StoredDocument<'_>>, _> = rows
            .iter()
            .map(|row| {
                Ok(StoredDocument {
                    policy_version_id: row.id.as_str(),
                    content: &row.content,
                    content_sha256: ContentSha256::parse(&row.content_sha256)?,
                })
            })
            .collect();
        let documents = match documents {
            Ok(documents) => documents,
            Err(caracal_policy::NotASha256) => return Ok(Err("a policy version has no usable hash".to_owned())),
        };
        let load = || self.cache.load(manifest, &documents);
        Ok(self.metrics.compilations.count(load).map_err(|error| error.to_string()))
    }

    /// What is in force in `zone`, loaded now if it was not. `None` when it can't be loaded.
    pub(crate) async fn in_force(&self, store: &Store, zone: &ZoneId) -> Result<Option<InForce>, StoreError> {
        let mut snapshot = store.snapshot().await?;
        let now = snapshot.now();
        let governing = self.governing(&mut snapshot.zone(zone)).await?;
        let Ok(bundle) = governing.bundle else { return Ok(None) };
        Ok(Some(InForce {
            policy_set_version_id: governing.active.as_ref().map(|active| active.version_id.clone()),
            manifest_sha256: bundle.manifest().to_owned(),
            loaded_at: governing.active.map_or(now, |active| active.activated_at),
        }))
    }
}

/// Whom a decision asks: what was counted of its mints, and the zone's policy.
pub(crate) struct Advice<'a> {
    pub(crate) zone: &'a ZoneId,
    pub(crate) bundle: &'a Result<Arc<Bundle>, String>,
    pub(crate) registration_method: Option<&'a str>,
    pub(crate) request_id: &'a str,
    /// All members of the verified subject token.
    pub(crate) raw_claims: Option<&'a Map<String, Value>>,
    /// What the counter said to this exchange before: a decision that is made anew because its zone moved neither
    /// counts a second time nor escapes what it was told.
    pub(crate) rated: &'a HashMap<ResourceId, Rate>,
    /// Mints that still have to be counted; the decision took them for within their limit.
    pub(crate) uncounted: Vec<ResourceId>,
    pub(crate) metrics: &'a PolicyMetrics,
}

impl Counsel for Advice<'_> {
    fn rate(&mut self, resource: &Resource) -> Rate {
        let id = &resource.name.id;
        if let Some(counted) = self.rated.get(id) {
            return *counted;
        }
        if !self.uncounted.contains(id) {
            self.uncounted.push(id.clone());
        }
        Rate::Within
    }

    fn policy(&mut self, question: &PolicyQuestion<'_>) -> PolicyAnswer {
        let bundle = match self.bundle {
            Ok(bundle) => bundle,
            Err(error) => return PolicyAnswer::Failed { error: error.clone() },
        };
        match self.metrics.evaluations.count(|| decide(bundle, &self.input(question))) {
            Ok(verdict) => answer(&verdict),
            Err(error) => PolicyAnswer::Failed { error: error.to_string() },
        }
    }
}

impl Advice<'_> {
    fn input(&self, question: &PolicyQuestion<'_>) -> Input {
        let session = question.session;
        let edge = question.lineage.map(|lineage| {
            let leaf = lineage.leaf();
            DelegationEdge {
                id: leaf.id.to_string(),
                source_session_id: Some(leaf.source.to_string()),
                target_session_id: Some(leaf.target.to_string()),
                issuer_application_id: Some(leaf.issuer.to_string()),
                receiver_application_id: Some(leaf.receiver.to_string()),
                resource_id: leaf.resource.as_ref().map(|resource| resource.id.to_string()),
                scopes: lineage.scopes().listed().iter().map(text_of_scope).collect(),
                edge_version: 0,
                graph_epoch: i64::try_from(question.epoch).unwrap_or(i64::MAX),
                path: lineage.path().map(ToString::to_string).collect(),
                constraints_json: leaf.constraints.as_ref().map(|constraints| Value::Object(constraints.to_json())),
            }
        });
        let mut actor_claims = Map::new();
        actor_claims.insert("caracal_client_id".to_owned(), Value::from(question.client.id.as_str()));
        Input {
            schema_version: SchemaVersion,
            principal: Principal {
                kind: PrincipalKind::Application,
                id: question.client.id.to_string(),
                zone_id: self.zone.to_string(),
                registration_method: self.registration_method.map(str::to_owned),
                agent_session_id: session.map(|session| session.id.to_string()),
                lifecycle: session.map(|session| session.life.lifecycle().as_str().to_owned()),
                labels: session.map(|session| session.labels.clone()).unwrap_or_default(),
            },
            resource: caracal_policy::Resource {
                kind: caracal_policy::Resource::KIND.to_owned(),
                id: question.resource.name.id.to_string(),
                identifier: question.resource.name.identifier.to_string(),
                scopes: question.resource.scopes.listed().iter().map(text_of_scope).collect(),
            },
            action: Action {
                id: ActionId::TokenExchange,
                method: question.call.map(|call| call.method.clone()).filter(|method| !method.is_empty()),
                path: question.call.map(|call| call.path.clone()).filter(|path| !path.is_empty()),
            },
            session: question.record.map(|record| Session { id: record.to_string() }),
            context: Context {
                actor_claims,
                subject_claims: question.subject.and(self.raw_claims).cloned(),
                trace_id: Some(self.request_id.to_owned()),
                session_id: question.record.map(ToString::to_string),
                agent_session_id: session.map(|session| session.id.to_string()),
                delegation_edge_id: edge.as_ref().map(|edge| edge.id.clone()),
                challenge_resolved: question.approved,
                requested_scopes: question.requested.listed().iter().map(text_of_scope).collect(),
            },
            delegation_edge: edge,
        }
    }
}

fn text_of_scope(scope: &caracal_authority::scope::Scope) -> String {
    scope.as_str().to_owned()
}

fn answer(verdict: &Verdict) -> PolicyAnswer {
    let determining = verdict.determining().map(str::to_owned).into_iter().collect();
    let diagnostics = match serde_json::to_value(verdict.diagnostics()) {
        Ok(diagnostics) => diagnostics,
        Err(error) => return PolicyAnswer::Failed { error: error.to_string() },
    };
    match verdict.reason() {
        Some(reason) => PolicyAnswer::Deny { reason: reason.as_str().to_owned(), determining, diagnostics },
        None => {
            let tiers = verdict.step_up().map(|gate| gate.tiers.iter().map(|tier| approval_tier(tier)).collect());
            PolicyAnswer::Allow { determining, diagnostics, tiers: tiers.unwrap_or_default() }
        }
    }
}

fn approval_tier(tier: &caracal_policy::TierDeclaration) -> ApprovalTier {
    ApprovalTier {
        tier: tier.tier.to_string(),
        approver: tier.approver.map(|approver| match approver {
            caracal_policy::Approver::Operator => Approver::Operator,
            caracal_policy::Approver::Subject => Approver::Subject,
            caracal_policy::Approver::Any => Approver::Any,
        }),
        ttl_seconds: tier.ttl_seconds,
        privacy: tier.privacy.map(|privacy| match privacy {
            caracal_policy::Privacy::Identified => Privacy::Identified,
            caracal_policy::Privacy::Pseudonymous => Privacy::Pseudonymous,
            caracal_policy::Privacy::Anonymous => Privacy::Anonymous,
        }),
    }
}
