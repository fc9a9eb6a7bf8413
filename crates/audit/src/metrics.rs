//! What is counted, under the contract's names (audit-and-streams.md §7.3), for a scraper and for the diagnostics command.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use serde_json::{Map, Value};

/// Counts and last values.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) inserts: AtomicU64,
    pub(crate) parse_errors: AtomicU64,
    pub(crate) put_aside: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) bad_signatures: AtomicU64,
    pub(crate) tamper_replays: AtomicU64,
    pub(crate) out_of_bounds: AtomicU64,
    pub(crate) checked: AtomicU64,
    pub(crate) mismatches: AtomicU64,
    pub(crate) breaks: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) standing: AtomicU64,
    pub(crate) last_sweep: AtomicI64,
    pub(crate) last_full: AtomicI64,
    pub(crate) anchors: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) lag: AtomicU64,
    pub(crate) oldest_pending_secs: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) oldest_dead_secs: AtomicU64,
    pub(crate) sweeper: Lead,
    pub(crate) exported: AtomicU64,
    pub(crate) export_errors: AtomicU64,
    pub(crate) export_duration_ms: AtomicU64,
    pub(crate) export_backlog: AtomicU64,
    pub(crate) exporter: Lead,
}

/// Whether this process does a job that one does for all.
#[derive(Default)]
pub(crate) struct Lead {
    leads: AtomicBool,
    changes: AtomicU64,
}

impl Lead {
    /// Notes that it does until the value is dropped.
    pub(crate) fn take(&self) -> Leading<'_> {
        self.leads.store(true, Ordering::Relaxed);
        add(&self.changes, 1);
        Leading(self)
    }
}

pub(crate) struct Leading<'l>(&'l Lead);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.leads.store(false, Ordering::Relaxed);
        add(&self.0.changes, 1);
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(crate) fn set(gauge: &AtomicU64, to: u64) {
    gauge.store(to, Ordering::Relaxed);
}

enum Number {
    Counter(u64),
    Gauge(i64),
    /// Milliseconds in JSON, seconds for a scraper.
    Millis(u64),
    Flag(bool),
}

impl Metrics {
    /// Name in JSON, name for a scraper, and the number.
    fn all(&self) -> Vec<(&'static str, &'static str, Number)> {
        let count = |counter: &AtomicU64| Number::Counter(counter.load(Ordering::Relaxed));
        let level = |gauge: &AtomicU64| Number::Gauge(i64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let last = |gauge: &AtomicI64| Number::Gauge(gauge.load(Ordering::Relaxed));
        let leads = |lead: &Lead| Number::Flag(lead.leads.load(Ordering::Relaxed));
        let same = |name: &'static str, number| (name, name, number);
        vec![
            same("inserts_total", count(&self.inserts)),
            same("export_events_total", count(&self.exported)),
            same("export_errors_total", count(&self.export_errors)),
            (
                "export_duration_ms",
                "export_duration_seconds",
                Number::Millis(self.export_duration_ms.load(Ordering::Relaxed)),
            ),
            same("export_backlog_hours", level(&self.export_backlog)),
            same("is_export_leader", leads(&self.exporter)),
            ("export_lease_changes_total", "export_lease_transitions_total", count(&self.exporter.changes)),
            same("consumer_lag", level(&self.lag)),
            ("consumer_pel_oldest_secs", "consumer_pel_oldest_seconds", level(&self.oldest_pending_secs)),
            same("dlq_size", level(&self.dead)),
            ("dlq_oldest_age_secs", "dlq_oldest_age_seconds", level(&self.oldest_dead_secs)),
            same("parse_errors_total", count(&self.parse_errors)),
            same("dlq_total", count(&self.put_aside)),
            same("retries_total", count(&self.retries)),
            same("hmac_failures_total", count(&self.bad_signatures)),
            same("tamper_replay_total", count(&self.tamper_replays)),
            same("occurred_at_out_of_bounds_total", count(&self.out_of_bounds)),
            same("tamper_checked_total", count(&self.checked)),
            same("tamper_mismatch_total", count(&self.mismatches)),
            ("tamper_chain_breaks", "tamper_chain_breaks_total", count(&self.breaks)),
            ("tamper_hmac_failures", "tamper_hmac_failures_total", count(&self.seals)),
            same("incidents_standing", level(&self.standing)),
            same("tamper_last_sweep_unix", last(&self.last_sweep)),
            same("tamper_last_full_unix", last(&self.last_full)),
            same("retention_created_total", count(&self.anchors)),
            same("retention_dropped_total", count(&self.removed)),
            same("is_retention_leader", leads(&self.sweeper)),
            ("retention_lease_changes_total", "retention_lease_transitions_total", count(&self.sweeper.changes)),
        ]
    }

    pub(crate) fn json(&self) -> Map<String, Value> {
        let shown = |number| match number {
            Number::Counter(number) => Value::from(number),
            Number::Gauge(number) => Value::from(number),
            Number::Millis(number) => Value::from(number),
            Number::Flag(flag) => Value::from(flag),
        };
        self.all().into_iter().map(|(name, _, number)| (name.to_owned(), shown(number))).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (_, name, number) in self.all() {
            let (kind, shown) = match number {
                Number::Counter(number) => ("counter", number.to_string()),
                Number::Gauge(number) => ("gauge", number.to_string()),
                Number::Millis(number) => ("gauge", format!("{}.{:03}", number / 1_000, number % 1_000)),
                Number::Flag(flag) => ("gauge", u8::from(flag).to_string()),
            };
            text.push_str(&format!("# TYPE caracal_audit_{name} {kind}\ncaracal_audit_{name} {shown}\n"));
        }
        text
    }
}
