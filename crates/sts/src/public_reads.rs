//! What anybody may ask for without showing anything: the key sets, and the state of an approval whose id they know
//! (contract: sts.md §6, §7.6).
//!
//! The reference limits neither. Each costs a reading of the store, so whoever asks in a loop would take the store away
//! from those who mint. Every source has a budget for each kind, counted in this process: what is protected is this
//! process's share of the store, and a count that had to be asked for elsewhere would cost as much as the answer. Callers
//! whose source nobody knows share one budget.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use caracal_http::limits::{FixedWindow, Source, Verdict};
use caracal_http::{PeerAddr, Problem};
use http::request::Parts;

use crate::Sts;

/// What is asked for. Each has a budget of its own: who waits for an approval must not keep verifiers from their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Public {
    /// A zone's key set.
    Keys,
    /// An approval: its state, or a decision on it.
    Approval,
}

/// The counts of this process.
pub(crate) struct PublicReads(FixedWindow);

impl Default for PublicReads {
    fn default() -> Self {
        Self(FixedWindow::per_minute())
    }
}

/// Where a request comes from.
pub(crate) struct AskedFrom(Option<Source>);

impl FromRequestParts<Arc<Sts>> for AskedFrom {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, sts: &Arc<Sts>) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<PeerAddr>().map(|peer| peer.ip());
        Ok(Self(Source::of(&parts.headers, peer, sts.config.trust_proxy)))
    }
}

impl Sts {
    /// Counts a request that shows nothing, and refuses it when its source has asked for more of `what` in this minute
    /// than it may. Asked before anything is read.
    pub(crate) fn admit_public(&self, what: Public, from: &AskedFrom) -> Result<(), Problem> {
        let limit = self.config.public_rate_limit_per_min;
        match self.public_reads.0.hit(&(what, from.0), limit, self.store.now()) {
            Verdict::Allowed => Ok(()),
            Verdict::Limited { retry_after } => Err(self.too_often(retry_after)),
        }
    }

    fn too_often(&self, retry_after: Duration) -> Problem {
        self.denials.count("sts", "public_rate");
        self.metrics.public_limited.up();
        Problem::limited("provider_rate_limited", retry_after)
            .describe("too many requests from this address in a minute; wait as long as Retry-After says")
    }
}
