//! Policy at decision time: which bundle governs a zone, and what it says of one resource.
//!
//! The active version is read in the decision's own snapshot, so an activation reaches the next decision of every
//! replica without being told. Only the bundle is remembered, by the hash of its manifest, and that never changes.
//!
//! Documents that are programs are read and evaluated on the threads of [`Evaluators`], never on one that serves requests
//! and never while a snapshot is held. The decision can't wait for that, so it is made once as if such a question were
//! denied, which shows what is to be evaluated; that is evaluated; and the decision is made again, like with mint rates.

use std::collections::HashMap;
use std::sync::Arc;

use caracal_authority::approval::PolicyStamp;
use caracal_authority::exchange::{ApprovalTier, Approver, Counsel, PolicyAnswer, PolicyQuestion, Privacy, Rate};
use caracal_authority::resource::Resource;
use caracal_authority::{ResourceId, ZoneId};
use caracal_policy::{
    Action, ActionId, Budget, Bundle, ContentSha256, Context, DECISION_CONTRACT_VERSION, DelegationEdge, Document,
    EvaluationError, Evaluators, Input, ManifestSha256, PolicyCache, Principal, PrincipalKind, RootValues,
    SchemaVersion, Session, SimulationError, StoredDocument, Verdict, decide, decide_evaluated,
    decision_contract_sha256,
};
use caracal_policy::{LoadError, NotASha256, Overloaded};
use caracal_store::policies::PolicyVersion;
use caracal_store::policy_replicas::LoadedPolicy;
use caracal_store::policy_sets::{self, ActivePolicySet};
use caracal_store::{Committed, Store, StoreError, ZoneRead, policies};
use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::loads::Loads;
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

/// What governs a zone, perhaps still to be read: that is done when the snapshot is given back.
pub(crate) struct Found {
    active: Option<ActivePolicySet>,
    bundle: Result<Arc<Bundle>, String>,
    unread: Option<Unread>,
}

/// A set version whose documents must be evaluated.
struct Unread {
    manifest: ManifestSha256,
    rows: Vec<PolicyVersion>,
}

impl Unread {
    fn load(
        &self,
        load: impl FnOnce(ManifestSha256, &[StoredDocument<'_>]) -> Option<Result<Arc<Bundle>, LoadError>>,
    ) -> Option<Result<Arc<Bundle>, String>> {
        let documents: Result<Vec<StoredDocument<'_>>, NotASha256> = self
            .rows
            .iter()
            .map(|row| {
                Ok(StoredDocument {
                    policy_version_id: row.id.as_str(),
                    content: &row.content,
                    content_sha256: ContentSha256::parse(&row.content_sha256)?,
                })
            })
            .collect();
        match documents {
            Ok(documents) => load(self.manifest, &documents).map(|loaded| loaded.map_err(|error| error.to_string())),
            Err(NotASha256) => Some(Err("a policy version has no usable hash".to_owned())),
        }
    }
}

/// Bundles of all zones.
pub(crate) struct PolicyRuntime {
    cache: Arc<PolicyCache>,
    evaluators: Evaluators,
    pub(crate) metrics: Arc<PolicyMetrics>,
    pub(crate) loads: Arc<Loads>,
}

impl PolicyRuntime {
    /// Nothing is loaded. It hears of activations that this process commits.
    pub(crate) fn over(store: &Store) -> Self {
        let loads = Loads::new(store.now());
        let hearing = Arc::downgrade(&loads);
        store.observe(Arc::new(move |committed: &Committed| {
            if let Some(loads) = hearing.upgrade() {
                committed.messages.iter().for_each(|message| loads.hear(message));
            }
        }));
        Self { cache: Arc::default(), evaluators: Evaluators::of_process(), metrics: Arc::default(), loads }
    }

    /// What governs the transaction's zone. A store failure is an error; a version that can't be loaded is a bundle
    /// that answers nothing, so that its decisions fail as policy failures do.
    pub(crate) async fn find(&self, tx: &mut ZoneRead<'_>) -> Result<Found, StoreError> {
        let Some(active) = policy_sets::find_active(tx).await? else {
            return Ok(Found { active: None, bundle: Ok(self.cache.no_active_policy_set()), unread: None });
        };
        let unread = |error: &str| Err(error.to_owned());
        let manifest = match ManifestSha256::parse(&active.manifest_sha256) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Found { active: Some(active), bundle: unread(&error.to_string()), unread: None }),
        };
        if let Some(bundle) = self.cache.bundle(manifest) {
            return Ok(Found { active: Some(active), bundle: Ok(bundle), unread: None });
        }
        let Some(version) = policy_sets::lookup_version(tx, &active.version_id).await? else {
            let bundle = unread("the active policy set version is missing");
            return Ok(Found { active: Some(active), bundle, unread: None });
        };
        let mut rows = Vec::with_capacity(version.manifest.len());
        for id in &version.manifest {
            match policies::lookup_version(tx, id).await? {
                Some(row) => rows.push(row),
                None => {
                    let bundle = unread(&format!("policy version `{id}` is missing"));
                    return Ok(Found { active: Some(active), bundle, unread: None });
                }
            }
        }
        let version = Unread { manifest, rows };
        Ok(Found { active: Some(active), bundle: unread("not read"), unread: Some(version) })
    }

    /// Reads what [`Self::find`] left to be read. Call it without a snapshot.
    pub(crate) async fn read(&self, zone: &ZoneId, found: Found) -> Governing {
        let Found { active, mut bundle, unread } = found;
        if let Some(unread) = unread {
            bundle = self.load(zone, unread).await;
        }
        if let (Err(error), Some(active)) = (&bundle, &active) {
            tracing::error!(%zone, version = %active.version_id, error, "the active policy can't be loaded");
        }
        Governing { active, bundle }
    }

    async fn load(&self, zone: &ZoneId, unread: Unread) -> Result<Arc<Bundle>, String> {
        let literal = unread.load(|manifest, documents| {
            let load = || match self.cache.load_literals(manifest, documents) {
                Some(loaded) => loaded.map(Some),
                None => Ok(None),
            };
            self.metrics.compilations.count_if(load, |loaded| loaded.as_ref().is_ok_and(Option::is_none)).transpose()
        });
        if let Some(loaded) = literal {
            return loaded;
        }
        let (cache, metrics) = (self.cache.clone(), self.metrics.clone());
        let loaded = self.evaluated(zone, move || {
            let load = |manifest, documents: &[StoredDocument<'_>]| {
                Some(metrics.compilations.count(|| cache.load(manifest, documents)))
            };
            unread.load(load).unwrap_or_else(|| Err("not read".to_owned()))
        });
        match loaded.await {
            Ok(loaded) => loaded,
            Err(error) => Err(error.to_string()),
        }
    }

    /// Has something done on a thread for documents, as the zone's turn comes. Nobody waiting for it, it is not done.
    async fn evaluated<T: Send + 'static>(
        &self,
        zone: &ZoneId,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EvaluationError> {
        self.on_evaluator(zone.as_str(), job).await
    }

    async fn on_evaluator<T: Send + 'static>(
        &self,
        share: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EvaluationError> {
        let (sender, answer) = oneshot::channel();
        let job = move || {
            if !sender.is_closed() {
                let _ = sender.send(job());
            }
        };
        self.evaluators.submit(share, job).map_err(|Overloaded| EvaluationError::Overloaded)?;
        answer.await.map_err(|_| EvaluationError::BrokenOff)
    }

    /// Evaluates the documents of a bundle for each question, side by side as far as the zone's share goes.
    pub(crate) async fn evaluate(&self, zone: &ZoneId, bundle: &Arc<Bundle>, asked: Vec<Asked>) -> Vec<Answered> {
        let jobs = asked.into_iter().map(|Asked { resource, input }| {
            let (bundle, metrics, question) = (bundle.clone(), self.metrics.clone(), input.clone());
            let evaluation = self
                .evaluated(zone, move || metrics.evaluations.count(|| bundle.evaluate(&question, Budget::QUESTION)));
            async move {
                let values = match evaluation.await {
                    Ok(values) => values,
                    Err(error) => Err(error),
                };
                Answered { resource, input, values }
            }
        });
        join_all(jobs).await
    }

    /// Looks at what governs `zone`, loads it if it was not, and says whether it is still to be told.
    pub(crate) async fn look(&self, store: &Store, zone: &ZoneId) -> Result<(LoadedPolicy, bool), StoreError> {
        let mut snapshot = store.snapshot().await?;
        let seen_at = snapshot.now();
        let found = self.find(&mut snapshot.zone(zone)).await?;
        drop(snapshot);
        let governing = self.read(zone, found).await;
        Ok(self.loads.note(zone, &governing, seen_at))
    }

    /// What documents that need not be active would decide. Nothing is kept or counted.
    pub(crate) async fn simulate(&self, zone: &str, simulation: Simulation) -> Result<Verdict, NotSimulated> {
        let simulated = self.on_evaluator(zone, move || {
            let documents: Vec<Document<'_>> = simulation
                .documents
                .iter()
                .map(|(policy_version_id, content)| Document { policy_version_id, content })
                .collect();
            caracal_policy::simulate(&documents, simulation.input)
        });
        match simulated.await {
            Ok(simulated) => Ok(simulated?),
            Err(error) => Err(NotSimulated::NobodyEvaluates(error)),
        }
    }
}

/// A question about documents that need not be active.
pub struct Simulation {
    /// The documents with the ids of their versions, in the order of the manifest.
    pub documents: Vec<(String, String)>,
    /// The input; `None` judges the documents as an author's, and asks the empty question.
    pub input: Option<Map<String, Value>>,
}

/// Why a simulation has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum NotSimulated {
    /// Documents and input have none.
    #[error(transparent)]
    Failed(#[from] SimulationError),
    /// There was nobody to ask; it may be asked again.
    #[error(transparent)]
    NobodyEvaluates(EvaluationError),
}

/// A question for documents that must be evaluated.
pub(crate) struct Asked {
    resource: ResourceId,
    input: Input,
}

/// What they came to for it.
pub(crate) struct Answered {
    resource: ResourceId,
    input: Input,
    values: Result<RootValues, EvaluationError>,
}

/// Whom a decision asks: what was counted of its mints, and the zone's policy.
pub(crate) struct Advice<'a> {
    pub(crate) zone: &'a ZoneId,
    pub(crate) registration_method: Option<&'a str>,
    pub(crate) request_id: &'a str,
    /// All members of the verified subject token.
    pub(crate) raw_claims: Option<&'a Map<String, Value>>,
    /// What the counter said to this exchange before: a decision that is made anew because its zone moved neither
    /// counts a second time nor escapes what it was told.
    pub(crate) rated: &'a HashMap<ResourceId, Rate>,
    /// Mints that still have to be counted; the decision took them for within their limit.
    pub(crate) uncounted: Vec<ResourceId>,
    pub(crate) questions: Questions<'a>,
}

/// What a bundle is asked in one run of a decision.
pub(crate) struct Questions<'a> {
    pub(crate) bundle: &'a Result<Arc<Bundle>, String>,
    /// What documents came to for questions that were asked before.
    pub(crate) answered: &'a [Answered],
    /// Questions that documents must be evaluated for; the decision took them for denied.
    pub(crate) unanswered: Vec<Asked>,
    /// What was asked about resources that were not allowed, by their identifiers: evidence keeps it.
    pub(crate) denied: HashMap<String, Value>,
    pub(crate) metrics: &'a PolicyMetrics,
}

impl Questions<'_> {
    /// What policy says of `resource`.
    pub(crate) fn ask(&mut self, resource: &ResourceId, input: Input) -> PolicyAnswer {
        let bundle = match self.bundle {
            Ok(bundle) => bundle,
            Err(error) => return PolicyAnswer::Failed { error: error.clone() },
        };
        let verdict = match bundle.must_be_evaluated() {
            false => self.metrics.evaluations.count(|| decide(bundle, &input)),
            true => {
                let known = self.answered.iter().find(|known| known.resource == *resource && known.input == input);
                match known.map(|known| &known.values) {
                    Some(Ok(values)) => decide_evaluated(bundle, values, &input),
                    Some(Err(error)) => Err(error.clone()),
                    None => {
                        self.unanswered.push(Asked { resource: resource.clone(), input });
                        return pending();
                    }
                }
            }
        };
        if !verdict.as_ref().is_ok_and(Verdict::is_allow) {
            let asked = serde_json::to_value(&input).unwrap_or_default();
            self.denied.insert(input.resource.identifier.clone(), asked);
        }
        match verdict {
            Ok(verdict) => answer(&verdict),
            Err(error) => PolicyAnswer::Failed { error: error.to_string() },
        }
    }
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
        let input = self.input(question);
        self.questions.ask(&question.resource.name.id, input)
    }
}

/// Stands for an answer that is still to come. The decision that sees it counts for nothing.
fn pending() -> PolicyAnswer {
    PolicyAnswer::Deny { reason: String::new(), determining: Vec::new(), diagnostics: Value::Array(Vec::new()) }
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
            resource: resource_input(question.resource),
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

/// A resource as policy is told of it.
pub(crate) fn resource_input(resource: &Resource) -> caracal_policy::Resource {
    caracal_policy::Resource {
        kind: caracal_policy::Resource::KIND.to_owned(),
        id: resource.name.id.to_string(),
        identifier: resource.name.identifier.to_string(),
        scopes: resource.scopes.listed().iter().map(text_of_scope).collect(),
    }
}

pub(crate) fn text_of_scope(scope: &caracal_authority::scope::Scope) -> String {
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
