//! One Gateway: its parts, its life.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caracal_crypto::chance;
use caracal_custody::VerificationKeys;
use caracal_http::FreshId;
use caracal_http::admission::Gate;
use caracal_http::egress::GuardedConnector;
use caracal_http::health::{Probe, Probes};
use caracal_http::limits::Backoff;
use caracal_http::server::{self, Ended, Limits, ServerTls, Transport};
use caracal_ledger::{AnonymousDenials, Ledger, Spool};
use caracal_store::{Message, Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};

use crate::circuit::Circuit;
use crate::config::{ConfigMistakes, GatewayConfig};
use crate::egress::{Clients, Places};
use crate::evidence::EvidenceLog;
use crate::exchange::Exchange;
use crate::ingress::Ingress;
use crate::metrics::Metrics;
use crate::revocation::{BEAT, Revocations};
use crate::spent::Spent;

/// Connections of operators at a time: a probe, a scraper, a few people.
const OPERATOR_CONNECTIONS: usize = 64;

/// How soon a reading is tried again without which nothing is let through.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the files of the certificate are looked at.
const CERTIFICATE_RENEWAL: Duration = Duration::from_secs(30);

/// What a Gateway works with.
pub struct Capabilities {
    /// Used mandates, revocations and evidence.
    pub store: Store,
    /// The keys that mandates are verified with.
    pub keys: Arc<dyn VerificationKeys>,
    /// The evidence chains.
    pub ledger: Ledger,
    /// Where refusals of callers who proved nothing are counted.
    pub denials: Arc<AnonymousDenials>,
    /// The STS.
    pub exchange: Arc<dyn Exchange>,
    /// The way to upstreams.
    pub connector: GuardedConnector,
    /// Who the public listener is, where it speaks TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// Where evidence lies that the store does not take; without, it waits in memory alone.
    pub spool: Option<Arc<Spool>>,
}

/// The enforcing proxy.
pub struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) store: Store,
    pub(crate) keys: Arc<dyn VerificationKeys>,
    pub(crate) exchange: Arc<dyn Exchange>,
    pub(crate) connector: GuardedConnector,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) clients: Clients,
    pub(crate) places: Places,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) circuit: Circuit,
    pub(crate) spent: Spent,
    /// Failed guesses of the admin token.
    pub(crate) guesses: Backoff,
    pub(crate) evidence: Arc<EvidenceLog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fresh: FreshId,
    pub(crate) probes: Probes,
    /// What turns calls away when there are too many.
    pub(crate) gate: OnceLock<Arc<Gate>>,
    pub(crate) feed: OnceLock<Box<dyn Fn() -> FeedCounts + Send + Sync>>,
}

/// What became of the messages that other processes published, before they were [heard](Gateway::hear) or instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Those that waited while the feed was away, read once it was back.
    pub caught_up: u64,
    /// Those that nobody can act on and that were put aside for people to look at.
    pub dead_letters: u64,
    /// Those that none of us signed.
    pub invalid_signatures: u64,
}

/// How a Gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether every request under way was answered.
    pub connections: Ended,
    /// Events that could not be committed in time; each was logged as lost.
    pub evidence_lost: u64,
}

impl Gateway {
    /// Puts a Gateway together. From here on it hears of every revocation that `store` commits.
    pub fn new(config: GatewayConfig, with: Capabilities) -> Result<Arc<Self>, ConfigMistakes> {
        let config = config.checked()?;
        let Capabilities { store, keys, ledger, denials, exchange, connector, tls, spool } = with;
        let metrics = Arc::new(Metrics::default());
        let revocations = Arc::new(Revocations::new(store.clone()));
        store.observe(revocations.clone());
        Ok(Arc::new(Self {
            evidence: Arc::new(EvidenceLog::new((store.clone(), ledger), denials, metrics.clone(), spool)),
            places: Places::new(config.max_upstream_connections),
            clients: Clients::new(&connector, &config.client_certificates),
            config,
            store,
            keys,
            exchange,
            connector,
            tls,
            revocations,
            circuit: Circuit::default(),
            spent: Spent::new(),
            guesses: Backoff::for_credentials(),
            metrics,
            // Without randomness there is no name; the shared face of a request says so itself.
            fresh: FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default()),
            probes: Probes::default(),
            gate: OnceLock::new(),
            feed: OnceLock::new(),
        }))
    }

    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.probes.set(probe);
    }

    /// Calls pass `gate` from now on. The first one stays; without one none is turned away for being one too many.
    pub fn admit_with(&self, gate: Arc<Gate>) {
        let _ = self.gate.set(gate);
    }

    /// Whom metrics ask about the feed of messages. The first one stays; without one there is no feed, and nothing is counted.
    pub fn count_feed_with(&self, counts: impl Fn() -> FeedCounts + Send + Sync + 'static) {
        let _ = self.feed.set(Box::new(counts));
    }

    /// Reads revocation state, then serves `listener` until `shutdown` turns true (or its sender is gone), then drains:
    /// requests under way first, evidence last. Fails, without having answered anybody, when the first reading does.
    ///
    /// Run [`run_snapshot_refresh`](Self::run_snapshot_refresh) beside it: without it, everything is refused after
    /// seventy seconds.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Served, StoreError> {
        self.refresh_revocations().await?;
        let (stop_writing, stop) = watch::channel(false);
        let evidence = self.evidence.clone();
        let draining = tokio::spawn({
            let (evidence, stop) = (evidence.clone(), stop.clone());
            async move { evidence.drain(stop).await }
        });
        let mut writing = tokio::spawn(async move { evidence.write(stop).await });
        let evidence = self.evidence.clone();
        let transport = Transport {
            tls: self.tls.clone(),
            cleartext_http2: self.config.cleartext_http2,
            on_head_fault: Some(Arc::new(move |fault| evidence.anonymous_denial(fault.reason()))),
        };
        let (service, fresh) = (Ingress::public(self.clone()), self.fresh.clone());
        let connections = server::serve_over(listener, service, fresh, self.limits(), transport, shutdown).await;
        let _ = stop_writing.send(true);
        if tokio::time::timeout(self.config.evidence_grace, &mut writing).await.is_err() {
            writing.abort();
            let _ = writing.await;
            self.evidence.give_up();
        }
        // A commit that is left behind is made or not; the file tells whoever comes next.
        draining.abort();
        Ok(Served { connections, evidence_lost: self.evidence.dropped.get() })
    }

    /// Serves the operators' routes alone, in the clear, until `shutdown` turns true. Give it a listener that callers can't
    /// reach.
    pub async fn serve_operators(self: Arc<Self>, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Ended {
        let limits = Limits { max_connections: OPERATOR_CONNECTIONS.min(self.config.max_connections), ..self.limits() };
        server::serve(listener, Ingress::operators(self.clone()), self.fresh.clone(), limits, shutdown).await
    }

    fn limits(&self) -> Limits {
        Limits {
            head: self.config.read_header_timeout,
            idle: self.config.idle_timeout,
            write_stall: self.config.stream_idle_timeout,
            max_connections: self.config.max_connections,
            grace: self.config.grace,
        }
    }

    /// Reads revocation state again and again until `shutdown` turns true, and at once when the process has stood still: the
    /// messages of that time come late, and who waits longest to be heard may be a revocation.
    pub async fn run_snapshot_refresh(&self, mut shutdown: watch::Receiver<bool>) {
        let every = self.config.revocation_refresh;
        let woken = Notify::new();
        let reading = async {
            let mut next = interval(every);
            next.reset();
            loop {
                tokio::select! {
                    _ = next.tick() => {}
                    () = woken.notified() => next.reset(),
                }
                // The failure is logged and counted; seventy seconds of them and everything is refused. Behind a pause
                // nothing is let through without a reading, so the next try can't wait as long.
                while self.refresh_revocations().await.is_err() && !self.revocations.is_read() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        // Beside the reading, which can take longer than a process that runs is silent.
        let beating = async {
            let mut next = interval(BEAT);
            loop {
                next.tick().await;
                if self.revocations.beat(std::time::Instant::now()) {
                    tracing::warn!("the process stood still; revocation state is read again");
                    woken.notify_one();
                }
            }
        };
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = reading => {}
            () = beating => {}
        }
    }

    /// Looks for a renewed certificate again and again until `shutdown` turns true; returns at once without TLS.
    pub async fn run_certificate_renewal(&self, shutdown: watch::Receiver<bool>) {
        if let Some(tls) = self.tls.clone() {
            tls.keep_reloading(CERTIFICATE_RENEWAL, shutdown).await;
        }
    }

    /// Takes note of a message that another process published. Those of this process's own commits are known already. False
    /// for a revocation that names no anchor: nobody can act on that one.
    pub fn hear(&self, message: &Message) -> bool {
        self.revocations.hear(message)
    }

    /// Reads revocation state now. Says how many anchors are revoked.
    pub async fn refresh_revocations(&self) -> Result<u64, StoreError> {
        self.metrics.reloads.up();
        self.revocations.refresh().await.inspect_err(|error| {
            self.metrics.reload_errors.up();
            tracing::error!(%error, "revocation state could not be read");
        })
    }
}

/// Ticks that are not made up for.
fn interval(every: Duration) -> Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
