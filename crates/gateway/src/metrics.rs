//! Counters and gauges of the Gateway (contract: gateway.md §20.2), without labels: what callers send can't make them
//! grow.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_http::admission::Counts;
use caracal_ledger::spool::Backlog;
use caracal_store::Connections;
use serde_json::{Map, Value};

use crate::gateway::FeedCounts;
use crate::histogram::Histogram;

/// Counts up, and gauges also down.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For a gauge that falls, too.
    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// For the one gauge among the counters.
    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }
}

/// What is counted as it happens. The rest is asked for when somebody reads.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Proxied requests received.
    pub(crate) requests: Counter,
    /// Responses relayed.
    pub(crate) allowed: Counter,
    /// Requests refused before dispatch.
    pub(crate) denied: Counter,
    pub(crate) missing_auth: Counter,
    pub(crate) bad_bearer: Counter,
    pub(crate) expiring: Counter,
    pub(crate) bad_routing: Counter,
    pub(crate) path_traversal: Counter,
    pub(crate) signature: Counter,
    pub(crate) replay: Counter,
    pub(crate) revoked: Counter,
    pub(crate) revocation_stale: Counter,
    pub(crate) exchange_errors: Counter,
    /// A gauge: the last exchange, in milliseconds.
    pub(crate) exchange_latency: Counter,
    pub(crate) circuit_opened: Counter,
    pub(crate) circuit_fast_fail: Counter,
    /// Failures after an exchange permitted the call, broken copies included.
    pub(crate) upstream_errors: Counter,
    pub(crate) reloads: Counter,
    pub(crate) reload_errors: Counter,
    /// A gauge: permitted calls that have not ended, streams and WebSockets included.
    pub(crate) open: Counter,
    /// A gauge: those of them that are WebSockets.
    pub(crate) websockets: Counter,
    /// Permitted calls from the end of their heads to their own.
    pub(crate) durations: Histogram,
    /// Dispatch to the head of the upstream's response.
    pub(crate) upstream_latencies: Histogram,
    /// Exchanges, whatever came of them.
    pub(crate) exchanges: Histogram,
}

/// What is asked for when somebody reads.
pub(crate) struct Gauges {
    pub(crate) circuit_open: bool,
    pub(crate) evidence_dropped: u64,
    pub(crate) evidence_sink_errors: u64,
    pub(crate) evidence_depth: u64,
    pub(crate) evidence_capacity: u64,
    pub(crate) evidence_persisted: u64,
    pub(crate) evidence_drained: u64,
    pub(crate) evidence_replayed: u64,
    pub(crate) evidence_aside: u64,
    pub(crate) parked: Backlog,
    pub(crate) revocations_active: u64,
    pub(crate) snapshot_age: u64,
    pub(crate) snapshot_fresh: bool,
    pub(crate) revocation_messages: u64,
    pub(crate) propagation_seconds: u64,
    pub(crate) feed: FeedCounts,
    /// Where there is a gate.
    pub(crate) work: Option<Counts>,
    pub(crate) connections: Connections,
    pub(crate) verifications: u64,
    pub(crate) commits: u64,
    pub(crate) changes: u64,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Name in Prometheus without prefix, type, value, help.
type Series = (&'static str, &'static str, u64, &'static str);

/// The name of a series in JSON: without `_total`, but for two that the contract spells otherwise.
fn key(name: &'static str) -> &'static str {
    match name {
        "requests_total" => name,
        "audit_queue_capacity" => "audit_queue_cap",
        other => other.strip_suffix("_total").unwrap_or(other),
    }
}

impl Metrics {
    /// A permitted call has ended; its upstream's response began `latency` after dispatch, if it did.
    pub(crate) fn ended(&self, duration: Duration, latency: Option<Duration>) {
        self.open.down();
        self.durations.observe(duration);
        if let Some(latency) = latency {
            self.upstream_latencies.observe(latency);
        }
    }

    /// Every series of one number: the contract's in its order, then ours.
    #[rustfmt::skip]
    fn series(&self, now: &Gauges) -> [Series; 45] {
        [
            ("requests_total", COUNTER, self.requests.get(), "Proxied requests received."),
            ("requests_allowed_total", COUNTER, self.allowed.get(), "Responses relayed."),
            ("requests_denied_total", COUNTER, self.denied.get(), "Requests refused before dispatch."),
            ("denials_missing_auth_total", COUNTER, self.missing_auth.get(), "Refused without a bearer."),
            ("denials_bad_bearer_total", COUNTER, self.bad_bearer.get(), "Refused for a bearer that is no mandate."),
            ("denials_expiring_total", COUNTER, self.expiring.get(), "Refused for a mandate that ends too soon."),
            ("denials_bad_routing_total", COUNTER, self.bad_routing.get(), "Refused for routing headers or claims."),
            ("denials_path_traversal_total", COUNTER, self.path_traversal.get(), "Refused for an unsafe path."),
            ("denials_signature_total", COUNTER, self.signature.get(), "Refused for a signature."),
            ("denials_jti_replay_total", COUNTER, self.replay.get(), "Refused for a used mandate."),
            ("denials_revoked_total", COUNTER, self.revoked.get(), "Refused for a revoked anchor."),
            ("denials_revocation_stale_total", COUNTER, self.revocation_stale.get(), "Refused for stale revocations."),
            ("sts_exchange_errors_total", COUNTER, self.exchange_errors.get(), "Exchanges that yielded no authority."),
            ("sts_exchange_latency_ms", GAUGE, self.exchange_latency.get(), "Duration of the last exchange."),
            ("sts_circuit_open", GAUGE, now.circuit_open.into(), "Whether a zone is turned away."),
            ("sts_circuit_opened_total", COUNTER, self.circuit_opened.get(), "Times the circuit opened."),
            ("sts_circuit_fast_fail_total", COUNTER, self.circuit_fast_fail.get(), "Turned away by the circuit."),
            ("upstream_errors_total", COUNTER, self.upstream_errors.get(), "Failures after a permitted exchange."),
            ("audit_replay_files", GAUGE, now.parked.files, "Files of evidence that the store did not take yet."),
            ("audit_replay_bytes", GAUGE, now.parked.bytes, "Their size."),
            ("audit_replay_oldest_age_seconds", GAUGE, now.parked.oldest.as_secs(), "Age of the oldest of them."),
            ("audit_replayed_total", COUNTER, now.evidence_replayed, "Events committed from files of processes before."),
            ("audit_quarantined_total", COUNTER, now.evidence_aside, "Events that no chain takes, put aside on disk."),
            ("audit_dropped_total", COUNTER, now.evidence_dropped, "Events lost."),
            ("audit_sink_errors_total", COUNTER, now.evidence_sink_errors, "Commits that were tried again."),
            ("audit_queue_depth", GAUGE, now.evidence_depth, "Events waiting."),
            ("audit_queue_capacity", GAUGE, now.evidence_capacity, "Events that may wait before requests do."),
            ("audit_persisted_total", COUNTER, now.evidence_persisted, "Events committed."),
            ("audit_drained_total", COUNTER, now.evidence_drained, "Events committed while stopping."),
            ("revocations_active", GAUGE, now.revocations_active, "Revoked anchors known."),
            ("revocation_snapshot_age_seconds", GAUGE, now.snapshot_age, "Age of the last reading."),
            ("revocation_snapshot_fresh", GAUGE, now.snapshot_fresh.into(), "Whether it is recent enough."),
            ("revocation_messages_total", COUNTER, now.revocation_messages, "Revocation messages applied."),
            ("revocation_pending_replayed_total", COUNTER, now.feed.caught_up, "Messages read that waited while the feed was away."),
            ("revocation_dead_letters_total", COUNTER, now.feed.dead_letters, "Messages put aside that nobody can act on."),
            ("revocation_invalid_signatures_total", COUNTER, now.feed.invalid_signatures, "Messages ignored for their signature."),
            ("revocation_reloads_total", COUNTER, self.reloads.get(), "Readings of revocation state."),
            ("revocation_reload_errors_total", COUNTER, self.reload_errors.get(), "Readings that failed."),
            ("revocation_propagation_seconds", GAUGE, now.propagation_seconds, "Age of the last message when applied."),
            ("calls_open", GAUGE, self.open.get(), "Permitted calls that have not ended."),
            ("websockets_open", GAUGE, self.websockets.get(), "Those of them that are WebSockets."),
            ("sts_exchanges_total", COUNTER, self.exchanges.count(), "Exchanges, whatever came of them."),
            ("signature_verifications_total", COUNTER, now.verifications, "Signatures of mandates that this process worked out."),
            ("store_commits_total", COUNTER, now.commits, "Commits of this process's store."),
            ("store_changes_total", COUNTER, now.changes, "Changes made durable; several may share a commit."),
        ]
    }

    fn all(&self, now: &Gauges) -> impl Iterator<Item = Series> {
        self.series(now).into_iter().chain(now.work.into_iter().flat_map(Counts::series))
    }

    /// Prometheus text, version 0.0.4.
    pub(crate) fn text(&self, now: &Gauges) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (name, kind, value, help) in self.all(now) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP caracal_gateway_{name} {help}");
            let _ = writeln!(text, "# TYPE caracal_gateway_{name} {kind}");
            let _ = writeln!(text, "caracal_gateway_{name} {value}");
        }
        write_connections(&mut text, now.connections);
        self.durations.write(&mut text, "call_duration_seconds", "Permitted calls, from head to end.");
        self.upstream_latencies.write(&mut text, "upstream_latency_seconds", "Dispatch to the upstream's head.");
        self.exchanges.write(&mut text, "sts_exchange_duration_seconds", "Exchanges, whatever came of them.");
        text
    }

    /// Every series of one number as a flat object.
    pub(crate) fn json(&self, now: &Gauges) -> Value {
        let series = self.all(now);
        Value::Object(
            series.map(|(name, _, value, _)| (key(name).to_owned(), Value::from(value))).collect::<Map<_, _>>(),
        )
    }
}

/// The store's connections, under the names that no service has to itself.
fn write_connections(text: &mut String, Connections { all, in_use }: Connections) {
    let ratio = if all == 0 { 0.0 } else { in_use as f64 / all as f64 };
    for (name, value, help) in [
        ("in_use_ratio", ratio.to_string(), "Part of the connections to the store that are in use."),
        ("max_conns", all.to_string(), "Connections to the store that transactions share."),
        ("acquired_conns", in_use.to_string(), "Those of them that are in use."),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP caracal_db_pool_{name} {help}");
        let _ = writeln!(text, "# TYPE caracal_db_pool_{name} {GAUGE}");
        let _ = writeln!(text, "caracal_db_pool_{name} {value}");
    }
}
