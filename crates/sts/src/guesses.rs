//! How often a caller may be wrong about a client secret, or an id_token (contract: sts.md §12, README D17), counted in this process or by
//! all replicas together.
//!
//! More than [`MOST`] wrong secrets of one guesser within a minute block it for a minute, the right secret included. A
//! guesser is an application's name and where the request comes from, so that nobody locks an application out from
//! elsewhere. Only a wrong secret counts; an outage never does. A count that can't be had refuses: a guess that nobody
//! counts would be a free one.

use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_http::limits::{Backoff, DEFAULT_MAX_KEYS, Source, Verdict};
use caracal_store::BoxFuture;

/// Wrong secrets in a minute that block nobody yet.
pub const MOST: u32 = 60;

/// Within this they count together, and for this long they block.
pub const SPAN: Duration = Duration::from_secs(60);

/// Who guesses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guesser {
    /// What it guesses at.
    pub at: Guessed,
    /// `application_id` as it was sent: any text, or none.
    pub application: String,
    /// Where the request comes from; `None` inside the process.
    pub source: Option<Source>,
}

/// What can be guessed at. Each is counted on its own: a user who sends nonsense must not keep the application from its
/// other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guessed {
    /// The application's secret.
    Secret,
    /// An identity provider's token that the application relays.
    IdToken,
}

impl Guessed {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::IdToken => "id_token",
        }
    }
}

/// Nobody can say how often it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failures can't be counted")]
pub struct CountUnavailable;

/// A counter of wrong secrets.
pub trait Guesses: Send + Sync + 'static {
    /// Whether the guesser may try a secret. Asked before anything is derived from it.
    fn check<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>>;

    /// Counts a wrong secret. Limited when this was one too many; then that is the answer to give.
    fn failed<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>>;
}

/// Counts in this process alone. A restart forgets: it costs who could cause one 60 more guesses at 256 random bits.
pub struct ProcessGuesses(Backoff);

impl Default for ProcessGuesses {
    fn default() -> Self {
        Self(Backoff::new(MOST, SPAN, SPAN, DEFAULT_MAX_KEYS))
    }
}

impl Guesses for ProcessGuesses {
    fn check<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(std::future::ready(Ok(self.0.check(guesser, now))))
    }

    fn failed<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(std::future::ready(Ok(self.0.failed(guesser, now))))
    }
}
