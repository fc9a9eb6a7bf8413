//! How often somebody may ask a service (contract: admin-api.md §1.6, coordinator.md §3), counted by all its replicas
//! together where there is a counter that they share.
//!
//! Each process counts for itself first, so a flood is turned away without asking anybody. What it lets pass is counted
//! together with the others'. When that can't be done, nobody knows whether the request is within its limit, and it is
//! refused: what can't be counted is not let through (difference D7). One kind of request is excepted, because the loss
//! of a counter must never keep anybody from taking authority back: for that, the process's own count is the limit.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caracal_authority::Timestamp;
use http::StatusCode;

use crate::Problem;
use crate::limits::{DEFAULT_MAX_KEYS, FixedWindow, Verdict};

const MINUTE: Duration = Duration::from_secs(60);

/// Windows that outlive a process: several count in them, or the next one goes on with them.
pub trait SharedWindows: Send + Sync + 'static {
    /// Counts one hit of `key` in the window that began with its first, and gives how many there were by then; `None`
    /// when nobody can say.
    fn hit<'a>(&'a self, key: &'a str, window: Duration) -> Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>>;
}

/// What a request is, as far as it may be let through uncounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only takes authority away.
    TakesAway,
    /// Anything else.
    Other,
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It is over the limit; when trying again can succeed.
    Limited(Duration),
    /// Nobody can say whether it is.
    Uncounted,
}

impl From<TurnedAway> for Problem {
    fn from(reason: TurnedAway) -> Self {
        match reason {
            TurnedAway::Limited(wait) => Self::limited("rate_limited", wait),
            TurnedAway::Uncounted => Self::new(StatusCode::SERVICE_UNAVAILABLE, "rate_limit_unavailable").describe(
                "requests can't be counted now, so only those that take authority away are let through; try again",
            ),
        }
    }
}

/// At most so many requests per key and window.
pub struct RateLimit {
    name: &'static str,
    most: u32,
    window: Duration,
    own: FixedWindow,
    shared: OnceLock<Arc<dyn SharedWindows>>,
}

impl RateLimit {
    /// `most` per minute; 0 is no limit. `name` keeps its keys apart from those of other limits.
    pub fn per_minute(name: &'static str, most: u32) -> Self {
        Self::per(MINUTE, name, most)
    }

    /// `most` in `window`, which begins with a key's first request; 0 is no limit.
    pub fn per(window: Duration, name: &'static str, most: u32) -> Self {
        Self { name, most, window, own: FixedWindow::new(window, DEFAULT_MAX_KEYS), shared: OnceLock::new() }
    }

    /// Counts together with whoever else counts in `windows` under the same name. The first stays.
    pub fn share(&self, windows: Arc<dyn SharedWindows>) {
        let _ = self.shared.set(windows);
    }

    /// Counts one request of `key`, refused ones included.
    pub async fn hit(
        &self,
        key: &(impl Hash + Display + ?Sized),
        request: Kind,
        now: Timestamp,
    ) -> Result<(), TurnedAway> {
        self.hit_here(key, now).into_result().map_err(TurnedAway::Limited)?;
        let Some(shared) = self.shared.get().filter(|_| self.most > 0) else { return Ok(()) };
        match shared.hit(&format!("{}:{key}", self.name), self.window).await {
            Some(count) if count > u64::from(self.most) => Err(TurnedAway::Limited(self.window)),
            Some(_) => Ok(()),
            None if request == Kind::TakesAway => Ok(()),
            None => Err(TurnedAway::Uncounted),
        }
    }

    /// Counts in this process alone, for requests that are about this process.
    pub fn hit_here(&self, key: &(impl Hash + ?Sized), now: Timestamp) -> Verdict {
        if self.most == 0 { Verdict::Allowed } else { self.own.hit(key, self.most, now) }
    }
}

#[cfg(test)]
mod t08_availability {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Together {
        counts: Mutex<HashMap<String, u64>>,
        is_down: bool,
    }

    impl SharedWindows for Together {
        fn hit<'a>(&'a self, key: &'a str, _: Duration) -> Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>> {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(key.to_owned()).or_default();
            *count += 1;
            Box::pin(std::future::ready((!self.is_down).then_some(*count)))
        }
    }

    fn replicas(most: u32, windows: Together) -> ([RateLimit; 2], Arc<Together>) {
        let shared = Arc::new(windows);
        let replicas = [RateLimit::per_minute("a", most), RateLimit::per_minute("a", most)];
        for replica in &replicas {
            replica.share(shared.clone());
        }
        (replicas, shared)
    }

    async fn allowed(replicas: &[RateLimit], request: Kind, hits: usize) -> usize {
        let mut allowed = 0;
        for number in 0..hits {
            let outcome = replicas[number % replicas.len()].hit("key", request, Timestamp::from_seconds(1)).await;
            allowed += usize::from(outcome.is_ok());
        }
        allowed
    }

    #[tokio::test]
    async fn replicas_have_one_budget_together() {
        let (replicas, _) = replicas(4, Together::default());
        assert_eq!(allowed(&replicas, Kind::Other, 20).await, 4);
    }

    #[tokio::test]
    async fn what_cannot_be_counted_is_refused() {
        let (replicas, _) = replicas(4, Together { is_down: true, ..Together::default() });
        let refused = replicas[0].hit("key", Kind::Other, Timestamp::from_seconds(1)).await;
        assert_eq!(refused, Err(TurnedAway::Uncounted));
        assert_eq!(Problem::from(TurnedAway::Uncounted).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(allowed(&replicas, Kind::Other, 20).await, 0);
    }

    #[tokio::test]
    async fn what_takes_authority_away_is_let_through_uncounted_within_each_replicas_own_limit() {
        let (replicas, _) = replicas(4, Together { is_down: true, ..Together::default() });
        assert_eq!(allowed(&replicas, Kind::TakesAway, 20).await, 8);
    }

    #[tokio::test]
    async fn what_takes_authority_away_has_the_same_limit_as_anything_else() {
        let (replicas, _) = replicas(4, Together::default());
        assert_eq!(allowed(&replicas, Kind::TakesAway, 20).await, 4);
    }

    #[tokio::test]
    async fn a_flood_does_not_reach_the_shared_counter() {
        let (replicas, shared) = replicas(4, Together::default());
        allowed(&replicas, Kind::Other, 1_000).await;
        assert!(shared.counts.lock().unwrap().values().sum::<u64>() <= 8);
    }

    #[tokio::test]
    async fn zero_is_no_limit_and_nothing_is_counted() {
        let (replicas, shared) = replicas(0, Together::default());
        assert_eq!(allowed(&replicas, Kind::Other, 1_000).await, 1_000);
        assert!(shared.counts.lock().unwrap().is_empty());
    }
}
