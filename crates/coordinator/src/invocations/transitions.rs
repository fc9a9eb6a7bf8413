//! `PATCH /zones/:zoneId/invocations/:id/start`, `…/cancel` and `…/complete`: the application behind the service moves
//! what it was asked. Two workers that start the same invocation at once are one after the other here, and the second is
//! told that there is nothing to start.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use caracal_authority::InvocationId;
use caracal_authority::invocation::{Attempts, InvocationMove, InvocationStatus, Pace};
use caracal_cascade::events;
use caracal_http::Problem;
use caracal_http::rate::Kind;
use caracal_ledger::Ledger;
use caracal_store::invocations::{self, Invocation};
use caracal_store::{StoreError, ZoneWrite};
use serde_json::{Map, Value, json};

use super::{InvocationRefused, invocation_json, may_invoke};
use crate::Coordinator;
use crate::evidence::{Caller, record_success};
use crate::outage::Outage;
use crate::schema::{Fields, Issues};
use crate::wire::Answer;

/// What the worker asks, with what it says.
enum Asked {
    Start,
    Cancel { reason: Option<String> },
    Complete { succeeded: bool, error: Option<Map<String, Value>>, metadata: Map<String, Value> },
}

impl Asked {
    fn as_move(&self) -> InvocationMove {
        match self {
            Self::Start => InvocationMove::Start,
            Self::Cancel { .. } => InvocationMove::Cancel,
            Self::Complete { succeeded, .. } => InvocationMove::Complete { succeeded: *succeeded },
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Start => "invocation.started",
            Self::Cancel { .. } => "invocation.cancel_requested",
            Self::Complete { succeeded: true, .. } => "invocation.succeeded",
            Self::Complete { succeeded: false, .. } => "invocation.failed",
        }
    }
}

struct Transition {
    caller: Arc<Caller>,
    ledger: Ledger,
    id: InvocationId,
    asked: Asked,
    /// How long what is asked waits for somebody to begin.
    waits: Duration,
}

/// Begins an attempt.
pub(crate) async fn start(coordinator: &Coordinator, caller: Arc<Caller>, id: InvocationId) -> Result<Answer, Problem> {
    coordinator.count_invocation(&caller.principal, Kind::Other).await?;
    make(coordinator, caller, id, Asked::Start).await
}

/// Asks the worker to stop, or withdraws what nobody has begun.
pub(crate) async fn cancel(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: InvocationId,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    coordinator.count_invocation(&caller.principal, Kind::TakesAway).await?;
    let asked = cancellation(body).map_err(InvocationRefused::Body)?;
    make(coordinator, caller, id, asked).await
}

/// Says how an attempt went.
pub(crate) async fn complete(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: InvocationId,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    coordinator.count_invocation(&caller.principal, Kind::Other).await?;
    let asked = completion(body).map_err(InvocationRefused::Body)?;
    make(coordinator, caller, id, asked).await
}

/// An absent body gives no reason.
fn cancellation(body: Option<&Value>) -> Result<Asked, Issues> {
    let none = json!({});
    let mut fields = Fields::of(Some(body.unwrap_or(&none)))?;
    let reason = fields.optional_text("reason", 1);
    fields.finish()?;
    Ok(Asked::Cancel { reason })
}

fn completion(body: Option<&Value>) -> Result<Asked, Issues> {
    let mut fields = Fields::of(body)?;
    let succeeded = fields.optional_choice("status", &[("succeeded", true), ("failed", false)]);
    if fields.raw("status").is_none() {
        fields.fault("status", None, "required");
    }
    let error = match fields.raw("error") {
        None | Some(Value::Null) => None,
        Some(_) => Some(fields.object("error")),
    };
    let metadata = fields.object("metadata");
    fields.finish()?;
    Ok(Asked::Complete { succeeded: succeeded.unwrap_or(false), error, metadata })
}

async fn make(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: InvocationId,
    asked: Asked,
) -> Result<Answer, Problem> {
    let zone = caller.principal.zone().clone();
    let waits = coordinator.config.pending_invocations;
    let transition = Transition { caller, ledger: coordinator.ledger.clone(), id, asked, waits };
    let moved: Result<Invocation, InvocationRefused> =
        coordinator.store.commit(&zone, transition, |tx, transition| Box::pin(transition.commit(tx))).await;
    Ok(Answer::ok(invocation_json(&moved?)))
}

impl Transition {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<Invocation, InvocationRefused> {
        let principal = &self.caller.principal;
        principal.check_alive(tx).await??;
        let mut invocation = invocations::lookup(tx, &self.id).await?.ok_or(InvocationRefused::NotFound)?;
        if !may_invoke(principal, invocation.service_application_id.as_str()) {
            return Err(InvocationRefused::Ownership);
        }
        let now = tx.now();
        let next = invocation.status.after(self.asked.as_move(), attempts(&invocation)?)?;
        if matches!(self.asked, Asked::Start) {
            pace(&invocation, self.waits).permits(invocation.status, now)?;
        }
        invocation.status = next;
        match &self.asked {
            Asked::Start => {
                invocation.attempts += 1;
                invocation.started_at = Some(now);
                invocation.deadline_at = Some(now.plus(Duration::from_millis(invocation.timeout_ms.unsigned_abs())));
                invocation.completed_at = None;
                invocation.error = None;
            }
            Asked::Cancel { reason } => {
                invocation.cancel_requested_at = Some(now);
                if invocation.status == InvocationStatus::Canceled {
                    invocation.completed_at = Some(now);
                }
                if let Some(reason) = reason {
                    invocation.metadata.insert("cancel_reason".to_owned(), json!(reason));
                }
            }
            Asked::Complete { error, metadata, .. } => {
                invocation.completed_at = Some(now);
                invocation.error.clone_from(error);
                invocation.metadata.extend(metadata.clone());
            }
        }
        invocations::update(tx, &invocation).await?;
        events::invocation_moved(tx, self.asked.event(), &invocation).await.map_err(Outage::from)?;
        record_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
        Ok(invocation)
    }
}

/// The pause of a row holds only whoever asked for one: a worker of a client that named none begins again at once, as the
/// contract has it.
fn pace(invocation: &Invocation, waits: Duration) -> Pace {
    let pause = Duration::from_millis(u64::try_from(invocation.backoff_ms).unwrap_or(0));
    Pace {
        asked_at: invocation.created_at,
        waits,
        ended_at: invocation.completed_at,
        pause: invocation.backoff_named.then_some(pause),
    }
}

/// Attempts of a row; a number that none can be is corruption.
pub(crate) fn attempts(invocation: &Invocation) -> Result<Attempts, StoreError> {
    let number = |number: i64| {
        let corrupt = || StoreError::Corrupt { table: "invocations", what: format!("`{}`: attempts", invocation.id) };
        u32::try_from(number).map_err(|_| corrupt())
    };
    Ok(Attempts { made: number(invocation.attempts)?, most: number(invocation.max_attempts)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_says_how_it_went() {
        for (body, succeeded) in [
            (json!({"status": "succeeded"}), Some(true)),
            (json!({"status": "failed", "error": {"code": 7}, "metadata": {"a": 1}}), Some(false)),
            (json!({"status": "failed", "error": null}), Some(false)),
            (json!({}), None),
            (json!({"status": "running"}), None),
            (json!({"status": "failed", "error": "boom"}), None),
            (json!({"status": "failed", "metadata": []}), None),
            (json!([]), None),
        ] {
            let found = match completion(Some(&body)) {
                Ok(Asked::Complete { succeeded, .. }) => Some(succeeded),
                _ => None,
            };
            assert_eq!(found, succeeded, "{body}");
        }
        assert!(completion(None).is_err());
    }

    #[test]
    fn a_cancellation_may_give_a_reason() {
        let reason = |body: Option<Value>| match cancellation(body.as_ref()) {
            Ok(Asked::Cancel { reason }) => Ok(reason),
            _ => Err(()),
        };
        assert_eq!(reason(None), Ok(None));
        assert_eq!(reason(Some(json!({}))), Ok(None));
        assert_eq!(reason(Some(json!({"reason": "r"}))), Ok(Some("r".to_owned())));
        assert_eq!(reason(Some(json!({"reason": ""}))), Err(()));
        assert_eq!(reason(Some(json!([]))), Err(()));
    }
}
