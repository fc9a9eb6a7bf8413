//! What is asked of others for a credential (contract: sts.md §10.3–§10.6).
//!
//! `docs-bot` calls an upstream that wants an access token of a company's identity provider. The STS has decided that it
//! may, and now needs that token: a [`Broker`] asks the provider's token endpoint for it ([`Broker::service_token`]),
//! proving who the client is by a secret or by a signed assertion. Ten calls at once are one request; a token is kept
//! while enough of it is left; a provider that keeps failing is left alone for a while. Where the upstream wants a token of
//! a person's account, it lies sealed in the store, and is renewed when it is about to run out
//! ([`Broker::account_token`]), by one process for all.
//!
//! - `settings`, `document`: what a provider's configuration and its opened secrets say. `key`, `der`, `assertion`: what
//!   signs, and what is signed.
//! - `endpoint`, `answer`: one question and its answer. `circuit`, `tokens`, `flights`: when none is asked.
//! - [`backends`]: where sealed secrets lie, if not in the store.
//! - `connections`, `revocation`: accounts, who renews them, and their end. `code`: how an account comes about that somebody
//!   has agreed to at its provider.
//! - `check`, `discovery`: what an operator asks before anybody else does.
//!
//! Every request goes through the one egress guard (`caracal_http::egress`), to a host that the provider's configuration
//! lists, and follows no redirect.
//!
//! Absent on purpose: who may have a credential. That was decided before anybody is asked here, and no snapshot, lock or
//! transaction is held meanwhile.

mod answer;
mod assertion;
pub mod backends;
mod check;
mod circuit;
mod code;
mod connections;
mod der;
mod discovery;
mod document;
mod endpoint;
mod error;
mod flights;
mod key;
mod metrics;
mod revocation;
mod settings;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{ConnectionId, ZoneId};
use caracal_custody::SealedSecrets;
use caracal_http::egress::GuardedConnector;
use caracal_store::Store;

pub use answer::Issued;
pub use check::{Check, CheckStatus};
pub use code::NoTokens;
pub use connections::{AccountToken, NoAccountToken};
pub use discovery::{NotDiscovered, ServerMetadata};
pub use document::SecretDocument;
pub use error::BrokerError;
pub use key::{AssertionKey, BadKey, Certificate};
pub use metrics::BrokerMetrics;
pub use revocation::UpstreamRevocation;
pub use settings::{BadSettings, RESERVED_PARAMETERS, TokenSettings};
pub use tokens::ServiceToken;

use circuit::Circuits;
use connections::Lease;
use endpoint::Endpoints;
use flights::Flights;
use tokens::{Place, Tokens};

/// What a broker works with.
pub struct Capabilities {
    /// The way out.
    pub connector: GuardedConnector,
    /// Where accounts lie, and what time it is.
    pub store: Store,
    /// Opens and seals their tokens, and opens providers' secrets.
    pub sealed: SealedSecrets,
    /// `MAX_GRANT_TTL_SECONDS`: no token is believed in for longer, whatever its endpoint says.
    pub longest_life: Duration,
}

/// Asks providers for credentials.
pub struct Broker {
    endpoints: Endpoints,
    store: Store,
    sealed: SealedSecrets,
    longest_life: Duration,
    lease: Lease,
    tokens: Tokens,
    renewals: Flights<(ZoneId, ConnectionId), Result<Arc<AccountToken>, NoAccountToken>>,
    circuits: Circuits<Place>,
    metrics: BrokerMetrics,
}

impl Broker {
    /// Nothing is asked yet.
    pub fn new(capabilities: Capabilities) -> Self {
        let Capabilities { connector, store, sealed, longest_life } = capabilities;
        Self {
            endpoints: Endpoints::new(connector, store.clone()),
            store,
            sealed,
            longest_life,
            lease: Lease::default(),
            tokens: Tokens::default(),
            renewals: Flights::default(),
            circuits: Circuits::default(),
            metrics: BrokerMetrics::default(),
        }
    }

    /// Waits for a token endpoint for this long and no longer, all attempts together.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.endpoints.patience = patience;
        self
    }

    /// Who renews an account has it to itself for `life`, and says every `beat` that it still does.
    #[must_use]
    pub fn with_lease(mut self, life: Duration, beat: Duration) -> Self {
        self.lease = Lease { life, beat };
        self
    }

    /// What was counted.
    pub fn metrics(&self) -> &BrokerMetrics {
        &self.metrics
    }

    /// How long a token is good for.
    fn life(&self, expires_in: Option<u64>) -> Duration {
        expires_in.map_or(self.longest_life, Duration::from_secs).min(self.longest_life)
    }

    /// Asks, unless the provider is being left alone, and remembers how it went.
    async fn through_circuit(
        &self,
        place: Place,
        asking: impl Future<Output = Result<Issued, BrokerError>>,
    ) -> Result<Issued, BrokerError> {
        if self.circuits.is_open(&place, self.store.now()) {
            return Err(BrokerError::CircuitOpen);
        }
        let asked = asking.await;
        match &asked {
            Ok(_) => self.circuits.succeeded(&place),
            Err(error) if error.counts() => {
                let (zone, provider) = &place;
                tracing::warn!(%zone, %provider, %error, "a token endpoint failed");
                if self.circuits.failed(place, self.store.now()) {
                    self.metrics.circuits_opened.up();
                }
            }
            // It answered, so it is there; what it thinks of us is no failure of its.
            Err(_) => {}
        }
        asked
    }
}
