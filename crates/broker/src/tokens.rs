//! Tokens of the client's own (contract: sts.md §10.3): asked for once, however many wait for one, and kept while more
//! than half a minute of them is left.
//!
//! They are kept in this process alone. What would have to be shared is a credential: every replica asking for its own
//! costs a request per replica and token's life, and keeps upstream credentials out of the database and of Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_crypto::SecretText;
use caracal_store::providers::Provider;
use ring::digest::{self, SHA256};

use crate::Broker;
use crate::answer::Issued;
use crate::document::SecretDocument;
use crate::error::BrokerError;
use crate::flights::Flights;
use crate::settings::TokenSettings;

/// A token with less left is not handed out again: it has to last for the call it is for.
const LEAST_LEFT: Duration = Duration::from_secs(30);
/// From so many tokens on, those that have run out are dropped.
const TIDY_FROM: usize = 1_024;

/// Whose circuit.
pub(crate) type Place = (ZoneId, ProviderId);

/// A token, and for how long it is good.
pub struct ServiceToken {
    /// The token.
    pub access_token: SecretText,
    /// When it has run out, by the store's clock.
    pub expires_at: Timestamp,
}

type Outcome = Result<Arc<ServiceToken>, BrokerError>;

/// What makes one token another: whose it is, and everything that goes into asking for it. Whoever changes the
/// configuration or the secret gets a token that was asked for with the new one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity([u8; 32]);

impl Identity {
    fn of(provider: &Provider, secrets: &SecretDocument) -> Self {
        let mut context = digest::Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        };
        add(provider.zone_id.as_str().as_bytes());
        add(provider.id.as_str().as_bytes());
        add(provider.kind.as_bytes());
        // Members are ordered by name, so the text is the same whenever the configuration is.
        add(serde_json::Value::from(provider.config.clone()).to_string().as_bytes());
        for (name, value) in secrets.sorted() {
            add(name.as_bytes());
            add(value.expose().as_bytes());
        }
        let mut identity = [0; 32];
        identity.copy_from_slice(context.finish().as_ref());
        Self(identity)
    }
}

/// Tokens at hand, and requests under way.
#[derive(Default)]
pub(crate) struct Tokens {
    kept: Mutex<HashMap<Identity, Arc<ServiceToken>>>,
    under_way: Flights<Identity, Outcome>,
}

impl Tokens {
    fn kept(&self, identity: &Identity, now: Timestamp) -> Option<Arc<ServiceToken>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(identity).filter(|token| now.plus(LEAST_LEFT) < token.expires_at).cloned()
    }

    fn keep(&self, identity: Identity, token: &Arc<ServiceToken>, now: Timestamp) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TIDY_FROM {
            kept.retain(|_, token| now < token.expires_at);
        }
        kept.insert(identity, token.clone());
    }
}

impl Broker {
    /// A token for `provider`, of kind `oauth2_client_credentials`.
    ///
    /// May take as long as its token endpoint does, but no longer than some seconds: hold nothing meanwhile that others
    /// wait for. A request that was begun is brought to its end even when nobody waits for it any more.
    pub async fn service_token(self: &Arc<Self>, provider: &Provider, secrets: SecretDocument) -> Outcome {
        let identity = Identity::of(provider, &secrets);
        if let Some(token) = self.tokens.kept(&identity, self.store.now()) {
            return Ok(token);
        }
        let settings = TokenSettings::read(&provider.config)?;
        let (broker, place) = (self.clone(), (provider.zone_id.clone(), provider.id.clone()));
        let keep_as = identity.clone();
        let fetching = self.tokens.under_way.join(identity, async move {
            let outcome = broker.fetch(place, &settings, &secrets).await;
            // Kept before it is no longer under way: whoever comes between finds one or the other.
            if let Ok(token) = &outcome {
                broker.tokens.keep(keep_as, token, broker.store.now());
            }
            outcome
        });
        fetching.await.unwrap_or(Err(BrokerError::GivenUp))
    }

    async fn fetch(&self, place: Place, settings: &TokenSettings, secrets: &SecretDocument) -> Outcome {
        let asked = self.through_circuit(place, self.endpoints.client_credentials(settings, secrets));
        let Issued { access_token, expires_in, .. } = asked.await?;
        let expires_at = self.store.now().plus(self.life(expires_in));
        Ok(Arc::new(ServiceToken { access_token, expires_at }))
    }
}
