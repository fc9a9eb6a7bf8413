//! The evidence of a launch (contract: sts.md §16): `run_launch` for the manifest and for who got its secret wrong,
//! `token_exchange` for each credential that was asked for.

use caracal_authority::approval::Hold;
use caracal_authority::exchange::{PolicyAnswer, Refusal};
use caracal_authority::{ProviderId, Timestamp};
use caracal_crypto::chance::ChanceUnavailable;
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Metadata, MetadataKey as Key};
use caracal_store::workloads::Workload;
use serde_json::Value;

use super::LaunchIds;
use crate::evidence::{event_id, held, under_policy};
use crate::policy::Governing;

/// What every event of one launch shares.
pub(super) struct Account<'a> {
    workload: &'a Workload,
    launch: &'a LaunchIds,
    occurred_at: Timestamp,
    asked: Option<Asked<'a>>,
}

/// What was asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) env: &'a str,
    /// By identifier, or as it is bound where there is none of that name.
    pub(super) resource: Option<&'a str>,
    pub(super) scopes: &'a [String],
    pub(super) provider: Option<&'a ProviderId>,
    /// What policy was asked, if it did not allow it.
    pub(super) policy_input: Option<&'a Value>,
}

impl<'a> Account<'a> {
    pub(super) fn of(workload: &'a Workload, launch: &'a LaunchIds, occurred_at: Timestamp) -> Self {
        Self { workload, launch, occurred_at, asked: None }
    }

    /// The same for one credential.
    pub(super) fn asked(self, asked: Asked<'a>) -> Self {
        Self { asked: Some(asked), ..self }
    }

    /// The event of the launch itself.
    pub(super) fn of_launch(&self, refused: Option<&Refusal>) -> Result<Evidence, ChanceUnavailable> {
        self.outcome(EventType::RunLaunch, refused, None)
    }

    /// The event of a credential that is released, or of why it is not; `reason` where a token says more than the
    /// refusal does.
    pub(super) fn of_credential(
        &self,
        refused: Option<&Refusal>,
        reason: Option<&'static str>,
        governing: &Governing,
        answer: Option<&PolicyAnswer>,
    ) -> Result<Evidence, ChanceUnavailable> {
        let mut event = self.outcome(EventType::TokenExchange, refused, reason)?;
        // The whole question: whoever explains the denial can ask it again, of whatever policy (README D33).
        if let (Some(_), Some(_), Some(asked)) = (refused, answer, self.asked) {
            event.metadata =
                std::mem::take(&mut event.metadata).with_known(Key::PolicyInput, asked.policy_input.cloned());
        }
        Ok(match answer {
            Some(answer) => under_policy(event, governing.active.as_ref(), governing.manifest(), answer),
            None => event,
        })
    }

    /// The event of a hold that was raised, or spent.
    pub(super) fn of_hold(
        &self,
        event_type: EventType,
        decision: Decision,
        hold: &Hold,
    ) -> Result<Evidence, ChanceUnavailable> {
        let event = self.event(event_type, decision, EvaluationStatus::Complete)?;
        Ok(event.with_metadata(self.base().and(Metadata::of_hold(hold))))
    }

    fn outcome(
        &self,
        event_type: EventType,
        refused: Option<&Refusal>,
        reason: Option<&'static str>,
    ) -> Result<Evidence, ChanceUnavailable> {
        let (decision, status) = match refused {
            None => (Decision::Allow, EvaluationStatus::Complete),
            // There is one resource, so its denial is the whole answer.
            Some(Refusal::NothingGranted { .. }) => (Decision::Deny, EvaluationStatus::Complete),
            Some(refusal) => (Decision::Deny, refusal.evaluation_status()),
        };
        let mut metadata = self
            .base()
            .with_known(Key::Reason, reason.or(refused.and_then(Refusal::reason)))
            .with_known(Key::Refusal, refused.map(Refusal::name));
        if let Some(hold) = refused.and_then(held) {
            metadata = metadata.and(Metadata::of_hold(hold));
        }
        Ok(self.event(event_type, decision, status)?.with_metadata(metadata))
    }

    fn event(
        &self,
        event_type: EventType,
        decision: Decision,
        status: EvaluationStatus,
    ) -> Result<Evidence, ChanceUnavailable> {
        let (id, zone) = (event_id(self.occurred_at)?, self.workload.zone_id.clone());
        let event = Evidence::new(id, zone, event_type, decision, status, self.occurred_at);
        Ok(event.request(self.launch.request.as_str()))
    }

    fn base(&self) -> Metadata {
        let metadata = Metadata::new()
            .with(Key::WorkloadId, self.workload.id.as_str())
            .with(Key::WorkloadName, self.workload.name.as_str())
            .with_known(Key::LaunchId, self.launch.launch.as_deref());
        let Some(asked) = &self.asked else { return metadata };
        metadata
            .with(Key::Env, asked.env)
            .with_known(Key::Resource, asked.resource)
            .with(Key::RequestedScopes, asked.scopes.to_vec())
            .with_known(Key::ProviderId, asked.provider.map(|id| id.as_str()))
    }
}
