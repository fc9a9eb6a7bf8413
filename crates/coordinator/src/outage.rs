//! What can fail on our side of any operation, and the one answer for it.

use std::str::FromStr;

use axum::http::StatusCode;
use caracal_authority::Timestamp;
use caracal_cascade::CascadeError;
use caracal_crypto::chance::ChanceUnavailable;
use caracal_http::Problem;
use caracal_store::StoreError;

/// A failure that no caller can be blamed for. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Outage {
    /// The store failed, or holds what it should not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes for a new id.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// The change's management record can't be written.
    #[error("the record of a change could not be written: {0}")]
    Unrecorded(StoreError),
    /// A new id that is none: a defect of this program.
    #[error("a new id has an impossible form")]
    ImpossibleId,
}

impl From<CascadeError> for Outage {
    fn from(error: CascadeError) -> Self {
        match error {
            CascadeError::Store(error) => Self::Store(error),
            CascadeError::Chance(error) => Self::Chance(error),
            CascadeError::ImpossibleId => Self::ImpossibleId,
        }
    }
}

impl Outage {
    /// What became of a change whose record failed with `error`. A store that is away says so itself.
    pub(crate) fn unrecorded(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Store(error),
            _ => Self::Unrecorded(error),
        }
    }

    /// 503 when trying again may help, else 500; the cause goes to the log only.
    pub(crate) fn problem(&self) -> Problem {
        tracing::error!(error = %self, "an operation failed");
        match self {
            Self::Store(StoreError::Unavailable { .. }) | Self::Chance(_) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "internal_error")
                    .describe("the service can't answer right now")
            }
            Self::Unrecorded(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_unavailable").member(
                "message",
                "nothing was changed, because no audit record of it could be written; it may be asked for again",
            ),
            Self::Store(_) | Self::ImpossibleId => Problem::internal().describe("unexpected failure"),
        }
    }
}

/// A new id of any kind: lower-case UUIDv7 text.
pub(crate) fn new_id<I: FromStr>(now: Timestamp) -> Result<I, Outage> {
    Ok(caracal_cascade::new_id(now)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t08_availability_only_what_may_pass_is_worth_another_try() {
        let reason = || "secret detail".to_owned();
        let (internal, unrecorded) = ("internal_error", Outage::unrecorded);
        for (outage, status, code) in [
            (Outage::Store(StoreError::Unavailable { reason: reason() }), 503, internal),
            (Outage::Chance(ChanceUnavailable), 503, internal),
            (Outage::Store(StoreError::Corrupt { table: "agent_sessions", what: reason() }), 500, internal),
            (Outage::Store(StoreError::Statement { reason: reason() }), 500, internal),
            (Outage::Store(StoreError::Conflict { constraint: reason() }), 500, internal),
            (Outage::ImpossibleId, 500, internal),
            (unrecorded(StoreError::Unavailable { reason: reason() }), 503, internal),
            (unrecorded(StoreError::Statement { reason: reason() }), 500, "audit_unavailable"),
        ] {
            let problem = outage.problem();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, Some(code)), "{outage}");
            assert!(!format!("{problem:?}").contains("secret detail"), "{outage}");
        }
    }
}
