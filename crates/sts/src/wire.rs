//! How an exchange ends on the wire: one mapping from outcome to status and code (contract: sts.md §1, §3.7).

use std::time::Duration;

use caracal_authority::approval::Hold;
use caracal_authority::exchange::{Refusal, Wanted};
use caracal_crypto::chance::ChanceUnavailable;
use caracal_crypto::client_secret::VerifierUnavailable;
use caracal_custody::CustodyError;
use caracal_http::Problem;
use caracal_http::form::FormError;
use caracal_store::StoreError;
use http::StatusCode;

use crate::approvals;
use crate::gateway_auth::NotAGateway;
use crate::guesses::CountUnavailable;
use crate::request::RequestFault;

/// How long a caller who was refused for a lack of time or room is asked to wait.
const SHORTLY: Duration = Duration::from_secs(1);

/// Why an exchange granted nothing. The caller reads status, code and description; causes go to the log.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Decided against it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The presented one-shot mandate had been used.
    #[error("token replay detected")]
    Replayed,
    /// Too many wrong secrets for this application from this source.
    #[error("too many failed attempts")]
    Locked {
        /// For how long.
        retry_after: Duration,
    },
    /// The workload has asked too often.
    #[error("too many requests of this workload")]
    TooManyLaunches,
    /// The request claims to be a Gateway's, and is not.
    #[error("invalid gateway exchange signature")]
    NotAGateway,
    /// Not a token request.
    #[error("malformed request")]
    Malformed,
    /// The store or a key could not be had.
    #[error("sts unavailable")]
    Unavailable,
    /// More secrets are being verified than there is room for, or a zone never held still.
    #[error("sts busy")]
    Busy,
    /// Our own fault.
    #[error("internal error")]
    Internal,
}

impl ExchangeError {
    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => {
                StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Replayed | Self::NotAGateway => StatusCode::UNAUTHORIZED,
            Self::Locked { .. } | Self::TooManyLaunches => StatusCode::TOO_MANY_REQUESTS,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unavailable | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Replayed | Self::Malformed => "invalid_token",
            Self::Locked { .. } | Self::TooManyLaunches => "provider_rate_limited",
            Self::NotAGateway => "access_denied",
            Self::Unavailable | Self::Busy => "sts_unavailable",
            Self::Internal => "internal_error",
        }
    }
}

/// What became of a decision and of the mandate it would have used up. A Gateway is told: it records what the STS did
/// not, and recognises a replay without reading prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Decided against, with evidence, and the mandate used up.
    Denied,
    /// The mandate was used before.
    Replayed,
    /// None was made: nothing is used up, nothing recorded.
    None,
}

impl Decision {
    /// Its name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Replayed => "replayed",
            Self::None => "none",
        }
    }
}

impl ExchangeError {
    /// What became of the decision.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Refused(_) => Decision::Denied,
            Self::Replayed => Decision::Replayed,
            _ => Decision::None,
        }
    }

    /// The hold that the caller has to wait for.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Refused(Refusal::ApprovalRequired { wanted: Wanted::Known(hold) }) => Some(hold),
            _ => None,
        }
    }

    /// When trying again can succeed, where that is known (README D7).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Locked { retry_after } => Some(*retry_after),
            Self::Refused(Refusal::RateLimited | Refusal::TooManyApprovals) | Self::TooManyLaunches => {
                Some(Duration::from_secs(60))
            }
            Self::Refused(Refusal::FederationKeysUnreachable) | Self::Unavailable | Self::Busy => Some(SHORTLY),
            _ => None,
        }
    }
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        let mut problem = Self::new(error.status(), error.code()).describe(error.to_string());
        if let Some(hold) = error.hold() {
            problem = approvals::holds::describe(problem, hold);
        }
        match error.retry_after() {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }
}

/// Why is in the log already, told by who could not count.
impl From<CountUnavailable> for ExchangeError {
    fn from(_: CountUnavailable) -> Self {
        Self::Unavailable
    }
}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed an exchange");
        match error {
            StoreError::Unavailable { .. } => Self::Unavailable,
            // A record that can't be added is never a reason to go on without it.
            StoreError::Conflict { .. } | StoreError::Statement { .. } => Self::Internal,
            StoreError::Corrupt { .. } => Self::Unavailable,
        }
    }
}

impl ExchangeError {
    /// What a workload that proved itself is told when its own row is damaged (contract: sts.md §11): nothing but that it
    /// is not its fault.
    pub(crate) fn damaged(error: StoreError) -> Self {
        tracing::error!(%error, "the bindings of a workload are damaged");
        Self::Internal
    }
}

impl From<CustodyError> for ExchangeError {
    fn from(error: CustodyError) -> Self {
        match error {
            CustodyError::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "a key or secret could not be had");
                Self::Unavailable
            }
        }
    }
}

impl From<ChanceUnavailable> for ExchangeError {
    fn from(error: ChanceUnavailable) -> Self {
        tracing::error!(%error, "no randomness");
        Self::Unavailable
    }
}

impl From<VerifierUnavailable> for ExchangeError {
    fn from(_: VerifierUnavailable) -> Self {
        Self::Busy
    }
}

impl From<NotAGateway> for ExchangeError {
    fn from(error: NotAGateway) -> Self {
        match error {
            // Whether a nonce was used is not known: not believed, but not the caller's fault either (D7).
            NotAGateway::Store(error) => error.into(),
            NotAGateway::Signature | NotAGateway::Skew | NotAGateway::Replayed => Self::NotAGateway,
        }
    }
}

impl From<RequestFault> for Problem {
    fn from(fault: RequestFault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_token").describe(fault.to_string())
    }
}

/// A request that ended before there was an exchange to refuse.
pub(crate) enum Ended {
    Form(FormError),
    Request(RequestFault),
    Exchange(ExchangeError),
}

impl Ended {
    pub(crate) fn decision(&self) -> Decision {
        match self {
            Self::Exchange(error) => error.decision(),
            Self::Form(_) | Self::Request(_) => Decision::None,
        }
    }

    /// Whether nobody is known to have asked.
    pub(crate) fn proves_nobody(&self) -> bool {
        matches!(self, Self::Exchange(ExchangeError::Refused(Refusal::ClientUnauthenticated)))
    }

    /// Whether a human has to agree first.
    pub(crate) fn waits_for_approval(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.hold().is_some())
    }
}

impl From<FormError> for Ended {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl From<RequestFault> for Ended {
    fn from(error: RequestFault) -> Self {
        Self::Request(error)
    }
}

impl<E: Into<ExchangeError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Exchange(error.into())
    }
}

impl From<Ended> for Problem {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Form(error) => error.into(),
            Ended::Request(fault) => fault.into(),
            Ended::Exchange(error) => error.into(),
        }
    }
}
