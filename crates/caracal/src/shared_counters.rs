//! What all replicas count together, on Redis (difference D7): mints, wrong client secrets, requests.

use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_crypto::hmac::sha256_hex;
use caracal_http::limits::Verdict;
use caracal_http::rate::SharedWindows;
use caracal_store::BoxFuture;
use caracal_stream::{Counters, FailureLimit, StreamError};
use caracal_sts::{CountUnavailable, Guesser, Guesses, LaunchKey, LaunchRate, MintKey, MintRate, guesses};

/// Mints counted by all replicas together.
pub(crate) struct SharedMintRate(pub(crate) Counters);

impl MintRate for SharedMintRate {
    fn count<'a>(&'a self, mints: &'a [MintKey], limit: u32, _: Timestamp) -> BoxFuture<'a, Vec<Rate>> {
        Box::pin(async move {
            let name =
                |mint: &MintKey| format!("caracal:rate:mint:{}:{}:{}", mint.zone, mint.resource, mint.application);
            let names: Vec<String> = mints.iter().map(name).collect();
            match self.0.hit_all(&names, Duration::from_secs(60)).await {
                Ok(counts) => {
                    let within = |count| if count <= u64::from(limit) { Rate::Within } else { Rate::Exceeded };
                    counts.into_iter().map(within).collect()
                }
                Err(error) => {
                    tracing::error!(%error, "mints can't be counted, so none is made");
                    mints.iter().map(|_| Rate::Unavailable).collect()
                }
            }
        })
    }
}

/// What workloads ask for, counted by all replicas together.
pub(crate) struct SharedLaunchRate(pub(crate) Counters);

impl LaunchRate for SharedLaunchRate {
    fn count<'a>(&'a self, launch: &'a LaunchKey, limit: u32, _: Timestamp) -> BoxFuture<'a, Rate> {
        Box::pin(async move {
            // The name can be any text of any length, so only its hash is a key.
            let name = format!("caracal:rate:launch:{}:{}", launch.step, sha256_hex(launch.workload.as_bytes()));
            match self.0.hit_all(&[name], Duration::from_secs(60)).await.map(|counts| counts.first().copied()) {
                Ok(Some(count)) if count <= u64::from(limit) => Rate::Within,
                Ok(Some(_)) => Rate::Exceeded,
                Ok(None) => Rate::Unavailable,
                Err(error) => {
                    tracing::error!(%error, "launches can't be counted, so none is carried out");
                    Rate::Unavailable
                }
            }
        })
    }
}

/// Wrong client secrets counted by all replicas together.
pub(crate) struct SharedGuesses(pub(crate) Counters);

impl SharedGuesses {
    const LIMIT: FailureLimit = FailureLimit { limit: guesses::MOST, window: guesses::SPAN, block: guesses::SPAN };

    const PREFIX: &str = "caracal:guesses:";
}

/// What the server said, as the verdict to give.
fn verdict(blocked: Result<Option<Duration>, StreamError>) -> Result<Verdict, CountUnavailable> {
    match blocked {
        Ok(None) => Ok(Verdict::Allowed),
        Ok(Some(retry_after)) => Ok(Verdict::Limited { retry_after }),
        Err(error) => {
            tracing::error!(%error, "wrong secrets can't be counted, so none is looked at");
            Err(CountUnavailable)
        }
    }
}

impl Guesses for SharedGuesses {
    fn check<'a>(&'a self, guesser: &'a Guesser, _: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(async move { verdict(self.0.blocked(&guesser.key(Self::PREFIX)).await) })
    }

    fn failed<'a>(&'a self, guesser: &'a Guesser, _: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(async move { verdict(self.0.failed(&guesser.key(Self::PREFIX), Self::LIMIT).await) })
    }
}

/// Requests counted by all replicas together.
pub(crate) struct SharedRequests(pub(crate) Counters);

impl SharedWindows for SharedRequests {
    fn hit<'a>(&'a self, key: &'a str, window: Duration) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async move {
            match self.0.hit_all(&[format!("caracal:rate:{key}")], window).await {
                Ok(counts) => counts.first().copied(),
                Err(error) => {
                    tracing::error!(%error, "requests can't be counted, so only those that take authority away are let through");
                    None
                }
            }
        })
    }
}
