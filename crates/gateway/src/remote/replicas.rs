//! The replicas behind one name: found, asked in turn, passed over while they accept nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_http::egress::{Host, Resolver};
use tokio::time::Instant;

/// How long a look-up counts: new replicas are found, and old ones forgotten, within this.
const LOOKUP_COUNTS: Duration = Duration::from_secs(5);
/// How long a replica that accepted nothing is asked last.
const ASKED_LAST: Duration = Duration::from_secs(5);

pub(super) struct Replicas {
    host: Host,
    port: u16,
    resolver: Arc<dyn Resolver>,
    /// How long a look-up may take.
    patience: Duration,
    /// One look-up at a time, whoever needs it.
    looking_up: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    looked_up: Option<Instant>,
    down_until: HashMap<SocketAddr, Instant>,
}

impl Replicas {
    pub(super) fn new(host: Host, port: u16, resolver: Arc<dyn Resolver>, patience: Duration) -> Self {
        let known = Mutex::new(Known::default());
        Self {
            host,
            port,
            resolver,
            patience,
            looking_up: tokio::sync::Mutex::default(),
            known,
            turn: AtomicUsize::new(0),
        }
    }

    /// Every replica, the one whose turn it is first, those that accepted nothing lately last. `anew`: by a look-up
    /// that began after this was asked for.
    pub(super) async fn in_turn(&self, anew: bool) -> Vec<SocketAddr> {
        let addresses = self.addresses(anew).await;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut known = self.lock();
        known.down_until.retain(|_, until| now < *until);
        let (down, mut up): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| known.down_until.contains_key(address));
        if !up.is_empty() {
            let first = turn % up.len();
            up.rotate_left(first);
        }
        up.extend(down);
        up
    }

    pub(super) fn answered(&self, replica: SocketAddr) {
        self.lock().down_until.remove(&replica);
    }

    pub(super) fn did_not_accept(&self, replica: SocketAddr) {
        self.lock().down_until.insert(replica, Instant::now() + ASKED_LAST);
    }

    async fn addresses(&self, anew: bool) -> Vec<SocketAddr> {
        let name = match &self.host {
            Host::Address(address) => return vec![SocketAddr::new(*address, self.port)],
            Host::Name(name) => name,
        };
        let asked = Instant::now();
        let good_since = if anew { Some(asked) } else { asked.checked_sub(LOOKUP_COUNTS) };
        let counts = |known: &Known| known.looked_up.is_some_and(|at| good_since.is_none_or(|since| at >= since));
        {
            let known = self.lock();
            if counts(&known) {
                return known.addresses.clone();
            }
        }
        let _turn = self.looking_up.lock().await;
        {
            let known = self.lock();
            if counts(&known) {
                return known.addresses.clone();
            }
        }
        let began = Instant::now();
        let found = tokio::time::timeout(self.patience, self.resolver.resolve(name)).await;
        let mut known = self.lock();
        known.looked_up = Some(began);
        match found {
            Ok(Ok(found)) if !found.is_empty() => {
                known.addresses = found.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
                known.addresses.dedup();
            }
            // Whoever answered a moment ago is a better guess than nobody.
            Ok(Ok(_)) => tracing::warn!(name, "the name of the sts has no address"),
            Ok(Err(error)) => tracing::warn!(name, %error, "the name of the sts can't be resolved"),
            Err(_) => tracing::warn!(name, "the name of the sts is not resolved in time"),
        }
        known.addresses.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves addresses that are still addresses.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
