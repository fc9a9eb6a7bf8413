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
    /// 503 when trying again may help, else 500; the cause goes to the log only.
    pub(crate) fn problem(&self) -> Problem {
        tracing::error!(error = %self, "an operation failed");
        match self {
            Self::Store(StoreError::Unavailable { .. }) | Self::Chance(_) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "internal_error")
                    .describe("the service can't answer right now")
            }
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
        for (outage, status) in [
            (Outage::Store(StoreError::Unavailable { reason: reason() }), 503),
            (Outage::Chance(ChanceUnavailable), 503),
            (Outage::Store(StoreError::Corrupt { table: "agent_sessions", what: reason() }), 500),
            (Outage::Store(StoreError::Statement { reason: reason() }), 500),
            (Outage::Store(StoreError::Conflict { constraint: reason() }), 500),
            (Outage::ImpossibleId, 500),
        ] {
            let problem = outage.problem();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, Some("internal_error")), "{outage}");
            assert!(!format!("{problem:?}").contains("secret detail"), "{outage}");
        }
    }
}
