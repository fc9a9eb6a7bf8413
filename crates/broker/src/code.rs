//! The code that a provider hands out when somebody has agreed, and the tokens that it stands for (RFC 6749 §4.1.3, RFC 7636;
//! contract: admin-api.md §5.5).

use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_store::providers::Provider;
use http::StatusCode;

use crate::Broker;
use crate::answer::{self, Issued, NOT_BEARER};
use crate::document::SecretDocument;
use crate::error::BrokerError;
use crate::settings::{BadSettings, TokenSettings};

/// Somebody waits in front of a browser, and no Gateway does (contract: admin-api.md §7).
pub(crate) const OPERATORS_PATIENCE: Duration = Duration::from_secs(15);

/// Why a code was not turned into tokens. The texts are for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTokens {
    /// The configuration, or a secret that it needs, is missing or not usable. Nothing was sent.
    #[error("{0}")]
    Settings(BrokerError),
    /// The token endpoint is not one that credentials of this provider may go to. Nothing was sent.
    #[error("{0}")]
    NotAllowed(BrokerError),
    /// There was no answer, or one that says no.
    #[error("{0}")]
    NotExchanged(BrokerError),
    /// The answer holds no token.
    #[error("{0}")]
    NoToken(BrokerError),
    /// The token is of a type that nobody has said how to use.
    #[error("{0}")]
    TokenType(BrokerError),
}

impl From<BrokerError> for NoTokens {
    fn from(error: BrokerError) -> Self {
        match &error {
            BrokerError::Settings(BadSettings::EndpointNotAllowed) => Self::NotAllowed(error),
            BrokerError::Settings(_) | BrokerError::Secret(_) | BrokerError::NotSigned => Self::Settings(error),
            BrokerError::BadAnswer { status: 200, what } if *what == NOT_BEARER => Self::TokenType(error),
            // Some endpoints say 200 and mean no.
            BrokerError::BadAnswer { status: 200, .. } | BrokerError::Refused { status: 200, .. } => {
                Self::NoToken(error)
            }
            _ => Self::NotExchanged(error),
        }
    }
}

impl Broker {
    /// Turns `code` into the tokens of an account at `provider`. Asked once: a code is good for one use, and whoever lost
    /// the answer has to begin anew.
    pub async fn exchange_code(
        &self,
        provider: &Provider,
        secrets: &SecretDocument,
        code: &SecretText,
        verifier: &SecretText,
    ) -> Result<Issued, NoTokens> {
        let settings = TokenSettings::read(&provider.config).map_err(BrokerError::from)?;
        let redirect_uri = provider.config.get("redirect_uri").and_then(|uri| uri.as_str()).unwrap_or_default();
        let answer = self.endpoints.ask_once(&settings, secrets, OPERATORS_PATIENCE, |form, _| {
            form.set("grant_type", "authorization_code");
            form.set("code", code.expose().as_str());
            form.set("redirect_uri", redirect_uri);
            form.set("code_verifier", verifier.expose().as_str());
            Ok(())
        });
        let answer = answer.await?;
        if answer.status != StatusCode::OK {
            let error = BrokerError::BadAnswer { status: answer.status.as_u16(), what: "the status is not 200" };
            return Err(NoTokens::NotExchanged(error));
        }
        Ok(answer::read(&answer, settings.names_scheme)?)
    }
}
