//! Places at upstreams: how many calls one upstream has under way at a time, and whose turn it is (contract: gateway.md
//! §16, "Weaknesses": no isolation between tenants).
//!
//! Two zones call the same provider. One of them opens a thousand event streams that never end. Without bounds this
//! process would run out of sockets for everybody; with one bound for all, the other zone would wait for ever behind
//! streams that are none of its own. So an upstream has so many places, one zone gets half of them at most, and when
//! all are taken, zones take turns: whoever asks a hundred times waits a hundred turns, and not the others.
//!
//! A place is held until the response has ended, streams included. Who waits does so for a bounded time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caracal_authority::ZoneId;
use caracal_http::egress::TargetUrl;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// The places of every upstream. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Places(Arc<Inner>);

struct Inner {
    /// At one upstream.
    most: usize,
    /// Of one zone at one upstream.
    share: usize,
    /// Only upstreams that are being called: memory does not depend on how many there have ever been.
    upstreams: Mutex<HashMap<Arc<str>, Upstream>>,
}

#[derive(Default)]
struct Upstream {
    taken: usize,
    /// Zones that hold a place or wait for one.
    zones: HashMap<ZoneId, Zone>,
    /// Zones with somebody waiting, in the order of their turns.
    turns: VecDeque<ZoneId>,
}

#[derive(Default)]
struct Zone {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// No place became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

impl Places {
    /// `most` places at each upstream; at least one for each zone that calls it.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self(Arc::new(Inner { most, share: most.div_ceil(2), upstreams: Mutex::default() }))
    }

    /// A place at `target` for a call of `zone`, at once or when it is its turn.
    pub(crate) async fn take(&self, target: &TargetUrl, zone: &ZoneId, deadline: Instant) -> Result<Place, Busy> {
        // Two schemes are two upstreams even where the authority reads alike.
        let scheme = if target.is_https() { "https" } else { "http" };
        let upstream: Arc<str> = format!("{scheme}://{}", target.authority()).into();
        let turn = {
            let mut upstreams = self.0.lock();
            let state = upstreams.entry(upstream.clone()).or_default();
            let own = state.zones.entry(zone.clone()).or_default();
            if state.taken < self.0.most && own.taken < self.0.share {
                own.taken += 1;
                state.taken += 1;
                return Ok(Place { places: self.0.clone(), upstream, zone: zone.clone() });
            }
            // Those who gave up leave before somebody new is turned away for them.
            own.waiting.retain(|waiting| !waiting.is_closed());
            if own.waiting.len() >= self.0.most {
                return Err(Busy);
            }
            let (tell, turn) = oneshot::channel();
            own.waiting.push_back(tell);
            if !state.turns.contains(zone) {
                state.turns.push_back(zone.clone());
            }
            turn
        };
        // A place that is handed over in the moment of giving up is dropped with the channel, and so passed on.
        timeout_at(deadline, turn).await.ok().and_then(Result::ok).ok_or(Busy)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Upstream>> {
        // No step between two consistent states can panic.
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place back and gives out what is free.
    fn give_back(self: &Arc<Self>, name: &Arc<str>, zone: &ZoneId) {
        let mut upstreams = self.lock();
        let Some(upstream) = upstreams.get_mut(name) else { return };
        upstream.taken = upstream.taken.saturating_sub(1);
        if let Some(own) = upstream.zones.get_mut(zone) {
            own.taken = own.taken.saturating_sub(1);
        }
        let mut unwanted = Vec::new();
        while upstream.taken < self.most {
            let Some((next, tell)) = upstream.next_turn(self.share) else { break };
            // Counted before it is handed over: if nobody takes it, dropping it counts it back.
            upstream.taken += 1;
            upstream.zones.entry(next.clone()).or_default().taken += 1;
            unwanted.extend(tell.send(Place { places: self.clone(), upstream: name.clone(), zone: next }).err());
        }
        upstream.zones.retain(|_, own| own.taken > 0 || !own.waiting.is_empty());
        if upstream.zones.is_empty() {
            upstreams.remove(name);
        }
        // Giving one back takes the lock.
        drop(upstreams);
        drop(unwanted);
    }
}

impl Upstream {
    /// Whose turn it is. Zones that have their share already are passed over and keep their turn.
    fn next_turn(&mut self, share: usize) -> Option<(ZoneId, oneshot::Sender<Place>)> {
        for _ in 0..self.turns.len() {
            let zone = self.turns.pop_front()?;
            let Some(own) = self.zones.get_mut(&zone) else { continue };
            if own.taken >= share {
                self.turns.push_back(zone);
                continue;
            }
            own.waiting.retain(|waiting| !waiting.is_closed());
            let tell = own.waiting.pop_front();
            if !own.waiting.is_empty() {
                self.turns.push_back(zone.clone());
            }
            if let Some(tell) = tell {
                return Some((zone, tell));
            }
        }
        None
    }
}

/// Leave to have one call under way at an upstream. Dropping it gives it back.
pub(crate) struct Place {
    places: Arc<Inner>,
    upstream: Arc<str>,
    zone: ZoneId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(&self.upstream, &self.zone);
    }
}

#[cfg(test)]
mod t08_availability {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    fn target(url: &str) -> TargetUrl {
        TargetUrl::parse(url).unwrap()
    }

    fn zone(name: &str) -> ZoneId {
        ZoneId::parse(name).unwrap()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    /// One look at a future, without waiting.
    fn now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    async fn taken(places: &Places, url: &str, name: &str) -> Option<Place> {
        let (target, zone) = (target(url), zone(name));
        let mut taking = pin!(places.take(&target, &zone, later()));
        now(taking.as_mut()).map(Result::unwrap)
    }

    #[tokio::test]
    async fn one_zone_leaves_half_of_an_upstream_to_others() {
        let places = Places::new(4);
        let greedy: Vec<_> = [taken(&places, "http://h/", "a").await, taken(&places, "http://h/x", "a").await].into();
        assert!(greedy.iter().all(Option::is_some));
        assert!(taken(&places, "http://h/", "a").await.is_none());
        let _modest = taken(&places, "http://h/", "b").await.unwrap();
        let _another = taken(&places, "http://h/", "c").await.unwrap();
        assert!(taken(&places, "http://h/", "d").await.is_none(), "all are taken");
        // Another port, another scheme, another upstream.
        for url in ["http://h:81/", "https://h/"] {
            assert!(taken(&places, url, "a").await.is_some(), "{url}");
        }
    }

    #[tokio::test]
    async fn zones_take_turns_however_many_wait_for_one_of_them() {
        let places = Places::new(2);
        let (held, free) = (taken(&places, "http://h/", "x").await.unwrap(), taken(&places, "http://h/", "y").await);
        let (target, a, b) = (target("http://h/"), zone("a"), zone("b"));
        let mut of_a: Vec<_> = (0..2).map(|_| Box::pin(places.take(&target, &a, later()))).collect();
        assert!(of_a.iter_mut().all(|waiting| now(waiting.as_mut()).is_none()));
        let mut of_b = Box::pin(places.take(&target, &b, later()));
        assert!(now(of_b.as_mut()).is_none());
        drop(free);
        let first = now(of_a[0].as_mut()).unwrap().unwrap();
        // The share of `a` is one place, and then it is the turn of `b`.
        drop(held);
        assert!(now(of_a[1].as_mut()).is_none());
        let _second = now(of_b.as_mut()).unwrap().unwrap();
        drop(first);
        assert!(now(of_a[1].as_mut()).is_some());
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_place_with_it() {
        let places = Places::new(4);
        let held = taken(&places, "http://h/", "a").await.unwrap();
        let other = taken(&places, "http://h/", "a").await.unwrap();
        let (target, a) = (target("http://h/"), zone("a"));
        let mut gives_up = Box::pin(places.take(&target, &a, later()));
        assert!(now(gives_up.as_mut()).is_none());
        let mut told_but_gone = Box::pin(places.take(&target, &a, later()));
        assert!(now(told_but_gone.as_mut()).is_none());
        let mut stays = Box::pin(places.take(&target, &a, later()));
        assert!(now(stays.as_mut()).is_none());
        drop(gives_up);
        drop(held);
        // This one was handed the place and never looked.
        drop(told_but_gone);
        assert!(now(stays.as_mut()).unwrap().is_ok());
        drop(other);
        assert!(places.0.lock().is_empty(), "nothing is kept of an upstream that nobody calls");
    }

    #[tokio::test]
    async fn waiting_ends_and_only_so_many_wait() {
        let places = Places::new(1);
        let _held = taken(&places, "http://h/", "a").await.unwrap();
        let (target, a) = (target("http://h/"), zone("a"));
        assert!(matches!(places.take(&target, &a, Instant::now()).await, Err(Busy)));
        let mut waits = Box::pin(places.take(&target, &a, later()));
        assert!(now(waits.as_mut()).is_none());
        assert!(matches!(places.take(&target, &a, later()).await, Err(Busy)));
        assert!(now(waits.as_mut()).is_none());
    }
}
