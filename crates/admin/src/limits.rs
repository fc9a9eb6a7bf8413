//! How often somebody may ask (contract: admin-api.md §1.6; README D7).
//!
//! Every refusal says when to come back. A limit of 0 is none.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{AdminTokenId, Timestamp, ZoneId};
use caracal_http::Problem;
use caracal_http::limits::{FixedWindow, Source, Verdict};
use caracal_http::rate::{Kind, RateLimit, SharedWindows, TurnedAway};

use crate::AdminConfig;
use crate::problem::Refusal;

pub(crate) struct Limits {
    sources: RateLimit,
    actors: RateLimit,
    failures: RateLimit,
    probes: RateLimit,
    registrations: RateLimit,
    checks: RateLimit,
    resource_checks: RateLimit,
    discoveries: RateLimit,
    refusals: FixedWindow,
}

/// Applications that one token registers in one zone, per second.
const REGISTRATIONS: u32 = 10;
/// Requests to a zone's providers and upstreams that operators may cause, per minute and kind (contract: admin-api.md §1.6).
const OUTGOING: u32 = 10;
/// Refusals for rate that one token gets records of its own for, per minute.
const RECORDED_REFUSALS: u32 = 10;

impl Limits {
    pub(crate) fn new(config: &AdminConfig) -> Self {
        Self {
            sources: RateLimit::per_minute("admin:source", config.requests_per_minute),
            actors: RateLimit::per_minute("admin:actor", config.requests_per_minute),
            failures: RateLimit::per_minute("admin:failure", config.auth_failures_per_minute),
            probes: RateLimit::per_minute("admin:probe", config.ready_per_minute),
            registrations: RateLimit::per(Duration::from_secs(1), "admin:registration", REGISTRATIONS),
            checks: RateLimit::per_minute("admin:provider-check", OUTGOING),
            resource_checks: RateLimit::per_minute("admin:resource-check", OUTGOING),
            discoveries: RateLimit::per_minute("admin:provider-discovery", OUTGOING),
            refusals: FixedWindow::per_minute(),
        }
    }

    /// Counts together with the other replicas: all but probes, which ask about this process.
    pub(crate) fn share(&self, windows: &Arc<dyn SharedWindows>) {
        let own = [&self.sources, &self.actors, &self.failures];
        for limit in
            own.into_iter().chain([&self.registrations, &self.checks, &self.resource_checks, &self.discoveries])
        {
            limit.share(windows.clone());
        }
    }

    /// Counts a request of this address.
    pub(crate) async fn by_source(&self, source: Source, request: Kind, now: Timestamp) -> Result<(), Refusal> {
        Ok(self.sources.hit(&source, request, now).await.map_err(Problem::from)?)
    }

    /// Counts a request of this token.
    pub(crate) async fn by_actor(&self, actor: &AdminTokenId, request: Kind, now: Timestamp) -> Result<(), Refusal> {
        Ok(self.actors.hit(actor, request, now).await.map_err(Problem::from)?)
    }

    /// Counts a registration of an application in `zone` by this actor.
    pub(crate) async fn registration(&self, zone: &ZoneId, actor: &str, now: Timestamp) -> Result<(), Refusal> {
        self.registrations.hit(&format!("{zone}:{actor}"), Kind::Other, now).await.map_err(|reason| match reason {
            TurnedAway::Limited(wait) => Problem::limited("dcr_rate_limit_exceeded", wait).into(),
            TurnedAway::Uncounted => Problem::from(reason).into(),
        })
    }

    /// Counts a failed authentication from this address. Successes are never counted.
    pub(crate) async fn failed(&self, source: Source, request: Kind, now: Timestamp) -> Result<(), Refusal> {
        Ok(self.failures.hit(&source, request, now).await.map_err(Problem::from)?)
    }

    /// Counts a check of a provider of this zone.
    pub(crate) async fn check(&self, zone: &ZoneId, now: Timestamp) -> Result<(), Refusal> {
        outgoing(&self.checks, "provider_test_rate_limited", zone, now).await
    }

    /// Counts a check of a resource of this zone.
    pub(crate) async fn resource_check(&self, zone: &ZoneId, now: Timestamp) -> Result<(), Refusal> {
        outgoing(&self.resource_checks, "resource_test_rate_limited", zone, now).await
    }

    /// Counts a discovery for this zone.
    pub(crate) async fn discovery(&self, zone: &ZoneId, now: Timestamp) -> Result<(), Refusal> {
        outgoing(&self.discoveries, "provider_discovery_rate_limited", zone, now).await
    }

    /// Counts a refusal for rate of this token; whether it is one of the few that get a record each.
    pub(crate) fn leaves_a_record(&self, actor: &str, now: Timestamp) -> bool {
        self.refusals.hit(actor, RECORDED_REFUSALS, now).is_allowed()
    }

    /// Counts a readiness probe from this address.
    pub(crate) fn probe(&self, source: Source, now: Timestamp) -> Result<(), Refusal> {
        within(self.probes.hit_here(&source, now))
    }
}

async fn outgoing(limit: &RateLimit, code: &'static str, zone: &ZoneId, now: Timestamp) -> Result<(), Refusal> {
    limit.hit(zone, Kind::Other, now).await.map_err(|turned_away| match turned_away {
        TurnedAway::Limited(wait) => Problem::limited(code, wait).into(),
        TurnedAway::Uncounted => Problem::from(turned_away).into(),
    })
}

fn within(verdict: Verdict) -> Result<(), Refusal> {
    verdict.into_result().map_err(|wait| Problem::limited("rate_limited", wait).into())
}
