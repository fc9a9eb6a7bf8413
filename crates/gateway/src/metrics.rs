//! Counters and gauges of the Gateway (contract: gateway.md §20.2), without labels: what callers send can't make them
//! grow. Series that belong to parts this Gateway does not have (replay files, a consumer group) are not shown.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

/// Counts up and never down.
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
    pub(crate) revocations_active: u64,
    pub(crate) snapshot_age: u64,
    pub(crate) snapshot_fresh: bool,
    pub(crate) revocation_messages: u64,
    pub(crate) propagation_seconds: u64,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Name in Prometheus without prefix, key in JSON, type, help, value.
type Series = (&'static str, &'static str, &'static str, &'static str, u64);

impl Metrics {
    /// Every series, in the contract's order.
    #[rustfmt::skip]
    fn series(&self, now: &Gauges) -> [Series; 31] {
        [
            ("requests_total", "requests_total", COUNTER, "Proxied requests received.", self.requests.get()),
            ("requests_allowed_total", "requests_allowed", COUNTER, "Responses relayed.", self.allowed.get()),
            ("requests_denied_total", "requests_denied", COUNTER, "Requests refused before dispatch.", self.denied.get()),
            ("denials_missing_auth_total", "denials_missing_auth", COUNTER, "Refused without a bearer.", self.missing_auth.get()),
            ("denials_bad_bearer_total", "denials_bad_bearer", COUNTER, "Refused for a bearer that is no mandate.", self.bad_bearer.get()),
            ("denials_expiring_total", "denials_expiring", COUNTER, "Refused for a mandate that ends too soon.", self.expiring.get()),
            ("denials_bad_routing_total", "denials_bad_routing", COUNTER, "Refused for routing headers or claims.", self.bad_routing.get()),
            ("denials_path_traversal_total", "denials_path_traversal", COUNTER, "Refused for an unsafe path.", self.path_traversal.get()),
            ("denials_signature_total", "denials_signature", COUNTER, "Refused for a signature.", self.signature.get()),
            ("denials_jti_replay_total", "denials_jti_replay", COUNTER, "Refused for a used mandate.", self.replay.get()),
            ("denials_revoked_total", "denials_revoked", COUNTER, "Refused for a revoked anchor.", self.revoked.get()),
            ("denials_revocation_stale_total", "denials_revocation_stale", COUNTER, "Refused for stale revocation state.", self.revocation_stale.get()),
            ("sts_exchange_errors_total", "sts_exchange_errors", COUNTER, "Exchanges that yielded no authority.", self.exchange_errors.get()),
            ("sts_exchange_latency_ms", "sts_exchange_latency_ms", GAUGE, "Duration of the last exchange.", self.exchange_latency.get()),
            ("sts_circuit_open", "sts_circuit_open", GAUGE, "Whether a zone is turned away.", now.circuit_open.into()),
            ("sts_circuit_opened_total", "sts_circuit_opened", COUNTER, "Times the circuit opened.", self.circuit_opened.get()),
            ("sts_circuit_fast_fail_total", "sts_circuit_fast_fail", COUNTER, "Requests turned away by the circuit.", self.circuit_fast_fail.get()),
            ("upstream_errors_total", "upstream_errors", COUNTER, "Failures after a permitted exchange.", self.upstream_errors.get()),
            ("audit_dropped_total", "audit_dropped", COUNTER, "Events lost.", now.evidence_dropped),
            ("audit_sink_errors_total", "audit_sink_errors", COUNTER, "Commits of evidence that failed and were tried again.", now.evidence_sink_errors),
            ("audit_queue_depth", "audit_queue_depth", GAUGE, "Events waiting.", now.evidence_depth),
            ("audit_queue_capacity", "audit_queue_cap", GAUGE, "Events that may wait before requests do.", now.evidence_capacity),
            ("audit_persisted_total", "audit_persisted", COUNTER, "Events committed.", now.evidence_persisted),
            ("audit_drained_total", "audit_drained", COUNTER, "Events committed while stopping.", now.evidence_drained),
            ("revocations_active", "revocations_active", GAUGE, "Revoked anchors known.", now.revocations_active),
            ("revocation_snapshot_age_seconds", "revocation_snapshot_age_seconds", GAUGE, "Age of the last reading.", now.snapshot_age),
            ("revocation_snapshot_fresh", "revocation_snapshot_fresh", GAUGE, "Whether it is recent enough.", now.snapshot_fresh.into()),
            ("revocation_messages_total", "revocation_messages", COUNTER, "Revocation messages applied.", now.revocation_messages),
            ("revocation_reloads_total", "revocation_reloads", COUNTER, "Readings of revocation state.", self.reloads.get()),
            ("revocation_reload_errors_total", "revocation_reload_errors", COUNTER, "Readings that failed.", self.reload_errors.get()),
            ("revocation_propagation_seconds", "revocation_propagation_seconds", GAUGE, "Age of the last message when applied.", now.propagation_seconds),
        ]
    }

    /// Prometheus text, version 0.0.4.
    pub(crate) fn text(&self, now: &Gauges) -> String {
        let mut text = String::with_capacity(8 * 1024);
        for (name, _, kind, help, value) in self.series(now) {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# HELP caracal_gateway_{name} {help}\n# TYPE caracal_gateway_{name} {kind}\ncaracal_gateway_{name} {value}\n"
            );
        }
        text
    }

    /// The same as a flat object.
    pub(crate) fn json(&self, now: &Gauges) -> Value {
        let series = self.series(now).into_iter();
        Value::Object(series.map(|(_, key, _, _, value)| (key.to_owned(), Value::from(value))).collect::<Map<_, _>>())
    }
}
