//! Why there is no credential.

use caracal_crypto::chance::ChanceUnavailable;
use caracal_http::egress::{EgressError, SimpleError};

use crate::settings::BadSettings;

/// Why a token endpoint gave nothing. For evidence and logs: a caller learns only that there is no credential. Nothing
/// here repeats what the endpoint said, but for an error code of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The configuration can't be used.
    #[error("the provider's configuration is not usable: {0}")]
    Settings(#[from] BadSettings),
    /// A secret that the configuration needs is not there, or is no key.
    #[error("the provider's `{0}` is missing or not usable")]
    Secret(&'static str),
    /// An assertion could not be signed.
    #[error("the assertion could not be signed")]
    NotSigned,
    /// Too many requests in a row have failed; none was sent.
    #[error("the token endpoint has failed too often; it is left alone for a while")]
    CircuitOpen,
    /// Where the endpoint lies must not be reached; nothing was sent.
    #[error("the token endpoint must not be reached: {0}")]
    NotReachable(EgressError),
    /// No complete answer.
    #[error("the token endpoint could not be asked: {0}")]
    Unreachable(SimpleError),
    /// An answer that says no (4xx). The code is one of the protocol, if the endpoint gave one.
    #[error("the token endpoint refused with {status}{}", code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// `error`, when it looks like one.
        code: Option<String>,
    },
    /// An answer that is neither a token nor a refusal.
    #[error("the token endpoint answered {status} without a usable token: {what}")]
    BadAnswer {
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No randomness.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// Whoever asked for all of us is gone.
    #[error("the request to the token endpoint was given up")]
    GivenUp,
}

impl BrokerError {
    /// The reason token of evidence.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Settings(BadSettings::Field(_)) => "provider_config_invalid",
            Self::Settings(BadSettings::EndpointNotAllowed) | Self::NotReachable(_) => "token_endpoint_not_allowed",
            Self::Secret(_) | Self::NotSigned => "provider_secret_unavailable",
            Self::CircuitOpen => "provider_circuit_open",
            Self::Unreachable(_) | Self::GivenUp | Self::Chance(_) => "token_endpoint_unreachable",
            Self::Refused { .. } => "token_endpoint_refused",
            Self::BadAnswer { .. } => "token_answer_invalid",
        }
    }

    /// Whether the endpoint is at fault, so that leaving it alone may help. A refusal is about what we sent.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::BadAnswer { .. })
    }

    /// Whether the same request can succeed a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(error) => !matches!(error, SimpleError::TooLarge),
            Self::BadAnswer { status, .. } => *status >= 500,
            _ => false,
        }
    }
}
