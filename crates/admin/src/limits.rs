//! How often somebody may ask (contract: admin-api.md §1.6; README D7).
//!
//! Every refusal says when to come back. A limit of 0 is none.

use caracal_authority::{AdminTokenId, Timestamp};
use caracal_http::Problem;
use caracal_http::limits::{FixedWindow, Source};

use crate::AdminConfig;
use crate::problem::Refusal;

pub(crate) struct Limits {
    sources: Limit,
    actors: Limit,
    failures: Limit,
    probes: Limit,
    refusals: FixedWindow,
}

/// Refusals for rate that one token gets records of its own for, per minute.
const RECORDED_REFUSALS: u32 = 10;

struct Limit {
    window: FixedWindow,
    per_minute: u32,
}

impl Limits {
    pub(crate) fn new(config: &AdminConfig) -> Self {
        let limit = |per_minute| Limit { window: FixedWindow::per_minute(), per_minute };
        Self {
            sources: limit(config.requests_per_minute),
            actors: limit(config.requests_per_minute),
            failures: limit(config.auth_failures_per_minute),
            probes: limit(config.ready_per_minute),
            refusals: FixedWindow::per_minute(),
        }
    }

    /// Counts a request of this address.
    pub(crate) fn by_source(&self, source: Source, now: Timestamp) -> Result<(), Refusal> {
        self.sources.hit(&source, now)
    }

    /// Counts a request of this token.
    pub(crate) fn by_actor(&self, actor: &AdminTokenId, now: Timestamp) -> Result<(), Refusal> {
        self.actors.hit(actor, now)
    }

    /// Counts a failed authentication from this address. Successes are never counted.
    pub(crate) fn failed(&self, source: Source, now: Timestamp) -> Result<(), Refusal> {
        self.failures.hit(&source, now)
    }

    /// Counts a refusal for rate of this token; whether it is one of the few that get a record each.
    pub(crate) fn leaves_a_record(&self, actor: &str, now: Timestamp) -> bool {
        self.refusals.hit(actor, RECORDED_REFUSALS, now).is_allowed()
    }

    /// Counts a readiness probe from this address.
    pub(crate) fn probe(&self, source: Source, now: Timestamp) -> Result<(), Refusal> {
        self.probes.hit(&source, now)
    }
}

impl Limit {
    fn hit(&self, key: &impl std::hash::Hash, now: Timestamp) -> Result<(), Refusal> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let verdict = self.window.hit(key, self.per_minute, now).into_result();
        verdict.map_err(|wait| Problem::limited("rate_limited", wait).into())
    }
}
