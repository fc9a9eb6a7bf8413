//! Accounts at providers, and their renewal (contract: sts.md §10.4).
//!
//! Three replicas are asked at once for a token of Ann's account, which runs out in twenty seconds. Each sees it in the
//! row. One of them takes the lease in that row and asks the token endpoint; the others, and everybody else in its own
//! process, wait, look at the row again, and find the new token there. Refresh tokens can often be used only once: two
//! who asked would have lost the account.
//!
//! A lease is short, so that a holder that is gone is not waited for long; and its holder renews it for as long as it is at
//! work, however long a backend takes to give the client's secret. Should one come back from the dead, the row's version
//! refuses what it brings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_authority::exchange::RefreshFailure;
use caracal_authority::{ConnectionId, Timestamp, ZoneId};
use caracal_crypto::{SecretText, chance};
use caracal_custody::{ConnectionToken, CustodyError, provider_secret_ref};
use caracal_store::provider_connections::{self, Connection, SealedTokens};
use caracal_store::providers::{self, Provider};
use caracal_store::{BoxFuture, StoreError, ZoneWrite};

use crate::Broker;
use crate::answer::Issued;
use crate::document::SecretDocument;
use crate::error::BrokerError;
use crate::settings::TokenSettings;

/// A token with less left is renewed first.
const LEAST_LEFT: Duration = Duration::from_secs(30);
/// For how long a failure answers those who come after it.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// Between two looks at a row that somebody else renews.
const POLL_MILLIS: u64 = 50;
const WRITES: u32 = 3;

/// Who renews an account, and for how long nobody else does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) life: Duration,
    /// How often it is renewed while its holder is at work.
    pub(crate) beat: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self { life: Duration::from_secs(15), beat: Duration::from_secs(5) }
    }
}

/// An access token of an account.
pub struct AccountToken {
    /// The token.
    pub access_token: SecretText,
    /// When it runs out, if that is known.
    pub expires_at: Option<Timestamp>,
}

/// Why an account has no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAccountToken {
    /// It is not active any more: whoever saw it active looks again.
    #[error("the account was taken away meanwhile")]
    Gone,
    /// What is stored does not open.
    #[error("the stored token does not open")]
    Sealed,
    /// It has run out, and could not be renewed.
    #[error("{}", .0.code())]
    Failed(RefreshFailure),
}

type Outcome = Result<Arc<AccountToken>, NoAccountToken>;

/// What a row says of its token.
enum State {
    Good,
    /// To be renewed, by somebody.
    Due,
    /// Run out, and nothing can renew it.
    Over,
}

fn state(row: &Connection, now: Timestamp) -> State {
    match row.expires_at {
        None => State::Good,
        Some(end) if row.refresh_token.is_none() => {
            if now < end {
                State::Good
            } else {
                State::Over
            }
        }
        Some(end) if now.plus(LEAST_LEFT) < end => State::Good,
        Some(_) => State::Due,
    }
}

impl Broker {
    /// A token of the account in `row`, which was active when it was read.
    ///
    /// Where it has to be renewed this may take some seconds; hold nothing meanwhile that others wait for.
    pub async fn account_token(self: &Arc<Self>, row: &Connection) -> Outcome {
        if matches!(state(row, self.store.now()), State::Good) {
            return self.opened(row);
        }
        let (broker, zone, id) = (self.clone(), row.zone_id.clone(), row.id.clone());
        let renewing = self.renewals.join((zone.clone(), id.clone()), async move {
            let renewed = broker.renewed(&zone, &id).await;
            if let Err(error) = &renewed {
                broker.metrics.refresh_errors.up();
                tracing::warn!(%zone, connection = %id, %error, "an account has no token");
            }
            renewed
        });
        renewing.await.unwrap_or(Err(NoAccountToken::Failed(RefreshFailure::NotRenewable)))
    }

    fn opened(&self, row: &Connection) -> Outcome {
        match self.sealed.open_token(ConnectionToken::Access, row.into(), &row.access_token) {
            Ok(access_token) => Ok(Arc::new(AccountToken { access_token, expires_at: row.expires_at })),
            Err(error) => {
                tracing::error!(zone = %row.zone_id, connection = %row.id, %error, "an account's token does not open");
                Err(NoAccountToken::Sealed)
            }
        }
    }

    /// Renews the account, or waits for whoever does.
    async fn renewed(&self, zone: &ZoneId, id: &ConnectionId) -> Outcome {
        let begun = Instant::now();
        let mut waited = false;
        loop {
            let row = self.active(zone, id).await?;
            let now = self.store.now();
            match state(&row, now) {
                State::Good => {
                    self.metrics.refresh_shared.up();
                    return self.opened(&row);
                }
                State::Over => {
                    self.end(&row).await?;
                    return Err(NoAccountToken::Failed(RefreshFailure::NotRenewable));
                }
                State::Due => {}
            }
            if row.refresh_failed_at.is_some_and(|failed| now < failed.plus(FAILED_FOR)) {
                return Err(NoAccountToken::Failed(RefreshFailure::NotRenewable));
            }
            if let Some(holder) = self.claim(&row).await? {
                self.metrics.refresh_leased.up();
                // Never drops what `renew` has begun: a refresh token may be good for one use.
                return tokio::select! {
                    biased;
                    renewed = self.renew(&row, &holder) => renewed,
                    never = self.keep_lease(&row, &holder) => match never {},
                };
            }
            if !std::mem::replace(&mut waited, true) {
                self.metrics.refresh_waited.up();
            }
            if begun.elapsed() >= self.endpoints.patience {
                return Err(NoAccountToken::Failed(RefreshFailure::Uncoordinated));
            }
            let [random] = chance::random_bytes::<1>().map_err(|_| uncoordinated())?;
            tokio::time::sleep(Duration::from_millis(POLL_MILLIS + u64::from(random) * POLL_MILLIS / 255)).await;
        }
    }

    /// With the lease: asks, and stores what was had.
    async fn renew(&self, row: &Connection, holder: &str) -> Outcome {
        let zone = row.zone_id.clone();
        let issued = match self.ask(row).await {
            Ok(issued) => issued,
            Err(error) => {
                tracing::warn!(%zone, connection = %row.id, %error, reason = error.reason(), "an account was not renewed");
                self.give_up(row, holder).await;
                return Err(NoAccountToken::Failed(RefreshFailure::NotRenewable));
            }
        };
        let expires_at = Some(self.store.now().plus(self.life(issued.expires_in)));
        let sealed = || -> Result<SealedTokens, CustodyError> {
            let seal = |which, token| self.sealed.seal_token(which, row.into(), token);
            Ok(SealedTokens {
                access_token: seal(ConnectionToken::Access, &issued.access_token)?,
                refresh_token: match &issued.refresh_token {
                    Some(token) => Some(seal(ConnectionToken::Refresh, token)?),
                    // None was sent: the one we have goes on being good.
                    None => row.refresh_token.clone(),
                },
                expires_at,
            })
        };
        let tokens = sealed().map_err(|error| not_stored(row, &error))?;
        let mut version = row.version;
        for _ in 0..WRITES {
            let stored = self.store_refreshed(row, version, tokens.clone()).await;
            if stored.map_err(|error| not_stored(row, &error))? {
                return Ok(Arc::new(AccountToken { access_token: issued.access_token, expires_at }));
            }
            // Somebody else has changed it: if their token is good, it is the one.
            let other = self.active(&zone, &row.id).await?;
            if matches!(state(&other, self.store.now()), State::Good) {
                return self.opened(&other);
            }
            version = other.version;
        }
        tracing::error!(%zone, connection = %row.id, "an account's new tokens could not be stored: it keeps changing");
        Err(NoAccountToken::Failed(RefreshFailure::NotStored))
    }

    async fn ask(&self, row: &Connection) -> Result<Issued, BrokerError> {
        let unreadable = |_| BrokerError::Secret("client_secret");
        let (provider, secrets) = self.provider(row).await.map_err(unreadable)?;
        let provider = provider.ok_or(BrokerError::Settings(crate::BadSettings::Field("kind")))?;
        let secrets = secrets.ok_or(BrokerError::Secret("client_secret"))?;
        let settings = TokenSettings::read(&provider.config)?;
        let sealed = row.refresh_token.as_deref().unwrap_or_default();
        let refresh_token = self.sealed.open_token(ConnectionToken::Refresh, row.into(), sealed);
        let refresh_token = refresh_token.map_err(|_| BrokerError::Secret("refresh_token"))?;
        let place = (row.zone_id.clone(), row.provider_id.clone());
        self.through_circuit(place, self.endpoints.refresh(&settings, &secrets, &refresh_token)).await
    }

    /// The provider if it is there and of the right kind, and its secrets if they can be read.
    pub(crate) async fn provider(
        &self,
        row: &Connection,
    ) -> Result<(Option<Provider>, Option<SecretDocument>), CustodyError> {
        let mut snapshot = self.store.snapshot().await?;
        let mut tx = snapshot.zone(&row.zone_id);
        let provider = providers::lookup(&mut tx, &row.provider_id).await?;
        let live = |provider: &Provider| provider.archived_at.is_none() && provider.kind == "oauth2_authorization_code";
        let Some(provider) = provider.filter(live) else { return Ok((None, None)) };
        let place = provider_secret_ref(&row.zone_id, &row.provider_id);
        let opened = if self.sealed.is_external() {
            drop(snapshot);
            self.sealed.fetch(&place).await?
        } else {
            self.sealed.open(&mut tx, &place).await?
        };
        Ok((Some(provider), SecretDocument::read(opened.as_ref())))
    }

    async fn active(&self, zone: &ZoneId, id: &ConnectionId) -> Result<Connection, NoAccountToken> {
        let read = async {
            let mut snapshot = self.store.snapshot().await?;
            provider_connections::lookup(&mut snapshot.zone(zone), id).await
        };
        let row = read.await.map_err(|error| unreachable_store(&error))?;
        row.filter(|row| row.status == "active").ok_or(NoAccountToken::Gone)
    }

    /// The name under which this call holds the lease, if it got it.
    async fn claim(&self, row: &Connection) -> Result<Option<String>, NoAccountToken> {
        let holder = chance::uuid_v4().map_err(|_| uncoordinated())?.to_string();
        let until = self.store.now().plus(self.lease.life);
        let input = (row.id.clone(), row.version, holder.clone(), until);
        let claimed = self.change(row, input, |tx, (id, version, holder, until)| {
            Box::pin(provider_connections::claim_refresh(tx, id, *version, holder, *until))
        });
        let claimed = claimed.await.map_err(|error| unreachable_store(&error))?;
        Ok(claimed.then_some(holder))
    }

    /// Renews the lease again and again. Whoever has lost it goes on with its work, for it may have used up the refresh
    /// token; what it brings is stored only if nobody else was faster.
    async fn keep_lease(&self, row: &Connection, holder: &str) -> Infallible {
        loop {
            tokio::time::sleep(self.lease.beat).await;
            let input = (row.id.clone(), holder.to_owned(), self.store.now().plus(self.lease.life));
            let kept = self.change(row, input, |tx, (id, holder, until)| {
                Box::pin(provider_connections::extend_refresh(tx, id, holder, *until))
            });
            match kept.await {
                Ok(true) => {}
                Ok(false) => std::future::pending().await,
                Err(error) => {
                    tracing::warn!(zone = %row.zone_id, connection = %row.id, %error, "a lease could not be renewed");
                }
            }
        }
    }

    async fn store_refreshed(&self, row: &Connection, version: i64, tokens: SealedTokens) -> Result<bool, StoreError> {
        self.change(row, (row.id.clone(), version, tokens), |tx, (id, version, tokens)| {
            Box::pin(provider_connections::store_refreshed(tx, id, *version, tokens))
        })
        .await
    }

    async fn end(&self, row: &Connection) -> Result<bool, NoAccountToken> {
        let ended = self.change(row, row.id.clone(), |tx, id| Box::pin(provider_connections::end(tx, id, "expired")));
        ended.await.map_err(|error| unreachable_store(&error))
    }

    /// Those who wait for us need not wait for the lease to lapse.
    async fn give_up(&self, row: &Connection, holder: &str) {
        let input = (row.id.clone(), holder.to_owned());
        let given =
            self.change(row, input, |tx, (id, holder)| Box::pin(provider_connections::refresh_failed(tx, id, holder)));
        if let Err(error) = given.await {
            tracing::warn!(zone = %row.zone_id, connection = %row.id, %error, "a lease could not be given back");
        }
    }

    async fn change<I: Send + Sync + 'static, T: Send + 'static>(
        &self,
        row: &Connection,
        input: I,
        change: impl for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<T, StoreError>>
        + Send
        + Sync
        + 'static,
    ) -> Result<T, StoreError> {
        self.store.commit(&row.zone_id, input, change).await
    }
}

fn uncoordinated() -> NoAccountToken {
    NoAccountToken::Failed(RefreshFailure::Uncoordinated)
}

/// Nobody can say who renews the account, so nobody does.
fn unreachable_store(error: &StoreError) -> NoAccountToken {
    tracing::error!(%error, "the store failed the renewal of an account");
    uncoordinated()
}

fn not_stored(row: &Connection, error: &dyn std::fmt::Display) -> NoAccountToken {
    tracing::error!(zone = %row.zone_id, connection = %row.id, %error, "an account's new tokens could not be stored");
    NoAccountToken::Failed(RefreshFailure::NotStored)
}
