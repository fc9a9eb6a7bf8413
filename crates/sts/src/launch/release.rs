//! One credential for one variable: from the request to its release, or to a refusal with evidence (contract: sts.md §11,
//! rows 4 to 16).
//!
//! Like an exchange, a launch is decided on one snapshot and committed at that zone version, and decided anew when the zone
//! moved on in between. The credential is had between the two, with nothing held; it is told only after the commit, so
//! that an approval is never spent twice, and no credential leaves without evidence.

use std::collections::HashMap;

use caracal_authority::approval::{Hold, NewHold, PolicyStamp};
use caracal_authority::exchange::{PolicyAnswer, Refusal, Wanted};
use caracal_authority::launch::{self, Launch, Outcome, Question, Release};
use caracal_crypto::SecretText;
use caracal_ledger::{Decision, EventType, Evidence};
use caracal_policy::{Action, ActionId, Context, Input, Principal, PrincipalKind, SchemaVersion};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::LaunchIds;
use super::evidence::{Account, Asked};
use super::facts::Loaded;
use super::workload::AuthenticatedWorkload;
use crate::approvals::holds;
use crate::commit::{self, Denial, NotCommitted, Raise};
use crate::credential::Credential;
use crate::directive::{self, NoDirective};
use crate::exchange::{ATTEMPTS, Unsettled};
use crate::facts::Sources;
use crate::policy::{Questions, resource_input, text_of_scope};
use crate::{ExchangeError, Sts};

/// The answer.
#[derive(Serialize)]
pub(super) struct Released {
    env: String,
    #[serde(serialize_with = "in_clear")]
    credential: SecretText,
    /// Unix seconds; where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

/// The one place where a credential is written out: into the answer to who may have it.
fn in_clear<S: Serializer>(credential: &SecretText, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(credential.expose())
}

impl Sts {
    /// Carries one request through.
    pub(super) async fn release(
        &self,
        workload: AuthenticatedWorkload,
        env: String,
        approval_id: Option<String>,
        ids: &LaunchIds,
    ) -> Result<Released, ExchangeError> {
        let launch = Launch { zone: workload.zone().clone(), workload: workload.id().clone(), env, approval_id };
        let sources = Sources {
            store: &self.store,
            keys: &self.keys,
            secrets: &self.secrets,
            policy: &self.policy,
            metrics: &self.metrics,
            control_audience: &self.config.control_audience,
        };
        let mut answering: Option<Box<Hold>> = None;
        let mut approved_under: Option<PolicyStamp> = None;
        for _ in 0..ATTEMPTS {
            let mut loaded = sources.load_launch(&launch, &workload).await?;
            loaded.facts.holds.extend(answering.take().map(|hold| *hold));
            loaded.facts.approved_under.clone_from(&approved_under);
            let (outcome, denied) = self.decided(&launch, &loaded, ids).await;
            let case = Case { sts: self, launch: &launch, workload: &workload, ids, loaded: &loaded, denied };
            match case.conclude(&outcome).await {
                Err(Unsettled::Stale) => {
                    self.metrics.redecided.up();
                    if outcome.decision.is_ok_and(|release| release.spends().is_some()) {
                        approved_under.get_or_insert_with(|| loaded.facts.policy.clone());
                    }
                }
                Err(Unsettled::Answered(hold)) => answering = Some(hold),
                Err(Unsettled::Failed(error)) => return Err(error),
                // No account's token is ever released.
                Err(Unsettled::NotRenewed(..)) => return Err(ExchangeError::Internal),
                Ok(released) => return Ok(released),
            }
        }
        tracing::warn!(zone = %launch.zone, "a launch was overtaken by changes of its zone {ATTEMPTS} times");
        Err(ExchangeError::Busy)
    }

    /// Decides, with documents of policy evaluated where they must be; and what policy was asked if it did not allow it.
    async fn decided(&self, launch: &Launch, loaded: &Loaded, ids: &LaunchIds) -> (Outcome, Option<Value>) {
        let bundle = &loaded.governing.bundle;
        let mut answered = Vec::new();
        loop {
            let metrics = &self.policy.metrics;
            let mut questions =
                Questions { bundle, answered: &answered, unanswered: Vec::new(), denied: HashMap::new(), metrics };
            let outcome = launch::decide(launch, &loaded.facts, &mut |question| {
                questions.ask(&question.resource.name.id, input(question, &ids.request))
            });
            let Questions { unanswered, denied, .. } = questions;
            match bundle {
                Ok(bundle) if !unanswered.is_empty() => {
                    answered.extend(self.policy.evaluate(&launch.zone, bundle, unanswered).await);
                }
                _ => return (outcome, denied.into_values().next()),
            }
        }
    }
}

/// What policy is told of a launch (contract: policy.md §3).
fn input(question: &Question<'_>, request_id: &str) -> Input {
    let mut actor_claims = Map::new();
    actor_claims.insert("caracal_client_id".to_owned(), Value::from(question.workload.id.as_str()));
    Input {
        schema_version: SchemaVersion,
        principal: Principal {
            kind: PrincipalKind::Workload,
            id: question.workload.id.to_string(),
            zone_id: question.workload.zone.to_string(),
            ..Principal::default()
        },
        resource: resource_input(question.resource),
        action: Action { id: ActionId::CredentialInjection, method: None, path: None },
        session: None,
        context: Context {
            actor_claims,
            trace_id: Some(request_id.to_owned()),
            challenge_resolved: question.approved,
            requested_scopes: question.scopes.listed().iter().map(text_of_scope).collect(),
            ..Context::default()
        },
        delegation_edge: None,
    }
}

/// One decided launch on its way to durability.
struct Case<'c> {
    sts: &'c Sts,
    launch: &'c Launch,
    workload: &'c AuthenticatedWorkload,
    ids: &'c LaunchIds,
    loaded: &'c Loaded,
    /// What policy was asked, if it did not allow it.
    denied: Option<Value>,
}

impl Case<'_> {
    async fn conclude(&self, outcome: &Outcome) -> Result<Released, Unsettled> {
        let answer = outcome.policy.as_ref();
        match &outcome.decision {
            Ok(release) => match Box::pin(self.credential()).await {
                Ok(credential) => self.grant(release, credential, answer).await,
                Err(why) => {
                    let workload = self.workload.id();
                    tracing::warn!(zone = %self.launch.zone, %workload, %why, "no credential for a workload");
                    Err(self.refuse(Refusal::DirectiveUnavailable, Some(why.reason()), answer).await)
                }
            },
            Err(Refusal::ApprovalRequired { wanted: Wanted::New(new) }) => Err(self.raise(new, answer).await),
            Err(refusal) => Err(self.refuse(refusal.clone(), None, answer).await),
        }
    }

    /// Row 15.
    async fn credential(&self) -> Result<Credential, NoDirective> {
        let upstream = self.loaded.upstream.as_ref().ok_or(NoDirective::Config)?;
        let provider = upstream.provider.as_ref().ok_or(NoDirective::Config)?;
        let lacks = directive::lacks(&upstream.resource.identifier, provider)?;
        self.sts.provider_credential(provider, upstream.secret.as_ref(), lacks).await
    }

    /// Row 16, and only then the answer.
    async fn grant(
        &self,
        release: &Release,
        credential: Credential,
        answer: Option<&PolicyAnswer>,
    ) -> Result<Released, Unsettled> {
        let account = self.account();
        let mut evidence = vec![account.of_credential(None, None, &self.loaded.governing, answer)?];
        if let Some(hold) = release.spends() {
            evidence.push(account.of_hold(EventType::StepUpConsumed, Decision::Consumed, hold)?);
        }
        let durable = commit::Release {
            version: self.loaded.version,
            ledger: self.sts.ledger.clone(),
            spends: release.spends().map(|hold| (hold.id.clone(), hold.binding.clone())),
            evidence,
        };
        match commit::release(&self.sts.store, &self.launch.zone, durable).await {
            Ok(()) => Ok(Released {
                env: self.launch.env.clone(),
                credential: credential.token,
                expires_at: credential.expires_at.map(caracal_authority::Timestamp::as_seconds),
            }),
            Err(NotCommitted::Spent(hold)) => {
                Err(self.refuse(Refusal::ApprovalConsumed { lost_to: Some(hold) }, None, answer).await)
            }
            Err(other) => Err(Unsettled::by(other)),
        }
    }

    /// Row 13: raises the hold, and refuses until it is approved.
    async fn raise(&self, new: &NewHold, answer: Option<&PolicyAnswer>) -> Unsettled {
        let raise = match self.raised(new, answer) {
            Ok(raise) => raise,
            Err(error) => return error.into(),
        };
        match commit::raise(&self.sts.store, &self.launch.zone, raise).await {
            Ok(hold) => Refusal::ApprovalRequired { wanted: Wanted::Known(hold) }.into(),
            Err(NotCommitted::Crowded) => self.refuse(Refusal::TooManyApprovals, None, answer).await,
            Err(other) => Unsettled::by(other),
        }
    }

    fn raised(&self, new: &NewHold, answer: Option<&PolicyAnswer>) -> Result<Raise, ExchangeError> {
        let account = self.account();
        let row = holds::row(new, self.now())?;
        let hold = row.facts()?;
        let issued = account.of_hold(EventType::StepUpIssued, Decision::Pending, &hold)?;
        let waits = Refusal::ApprovalRequired { wanted: Wanted::Known(Box::new(hold)) };
        Ok(Raise {
            version: self.loaded.version,
            ledger: self.sts.ledger.clone(),
            used: None,
            evidence: vec![account.of_credential(Some(&waits), None, &self.loaded.governing, answer)?],
            issued,
            row,
            request_id: self.ids.request.clone(),
        })
    }

    /// Refuses, with evidence.
    async fn refuse(&self, refusal: Refusal, reason: Option<&'static str>, answer: Option<&PolicyAnswer>) -> Unsettled {
        match self.refusal(&refusal, reason, answer).await {
            Ok(()) => refusal.into(),
            Err(error) => error.into(),
        }
    }

    async fn refusal(
        &self,
        refusal: &Refusal,
        reason: Option<&'static str>,
        answer: Option<&PolicyAnswer>,
    ) -> Result<(), ExchangeError> {
        let account = self.account();
        let event: Evidence = match refusal {
            // Its secret was replaced, or its zone archived, while it was being verified.
            Refusal::WorkloadUnauthenticated => account.of_launch(Some(refusal))?,
            _ => account.of_credential(Some(refusal), reason, &self.loaded.governing, answer)?,
        };
        let denial = Denial {
            ledger: self.sts.ledger.clone(),
            used: None,
            evidence: vec![event],
            request_id: self.ids.request.clone(),
        };
        commit::deny(&self.sts.store, &self.launch.zone, denial).await
    }

    fn now(&self) -> caracal_authority::Timestamp {
        self.loaded.facts.now.unwrap_or_else(|| self.sts.store.now())
    }

    fn account(&self) -> Account<'_> {
        let bound = self.loaded.bound.as_ref();
        let upstream = self.loaded.upstream.as_ref();
        let identifier = upstream.map(|upstream| upstream.resource.identifier.as_str());
        Account::of(self.workload.row(), self.ids, self.now()).asked(Asked {
            env: &self.launch.env,
            resource: identifier.or(bound.map(|bound| bound.resource.as_str())),
            scopes: bound.map(|bound| bound.scopes.as_slice()).unwrap_or_default(),
            provider: upstream.and_then(|upstream| upstream.provider.as_ref()).map(|provider| &provider.id),
            policy_input: self.denied.as_ref(),
        })
    }
}
