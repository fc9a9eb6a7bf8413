//! Counters of the token service (contract: sts.md §15), without labels: what callers send can't make them grow.
//! Series of a queue of evidence and its files stay at 0: evidence commits with what it is of, so none is ever queued or
//! dropped; they are shown for the alerts of operators who came from where there was one. Policy is read in the snapshot of every decision; its age is that of the last
//! look which found that what is active is loaded.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::ExchangeError;

/// Counts up and never down.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn up(&self) {
        self.add(1);
    }

    fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted as it happens.
#[derive(Default)]
pub(crate) struct Metrics {
    granted: Counter,
    refused: Counter,
    failed: Counter,
    released: Counter,
    withheld: Counter,
    /// Decisions made anew because their zone had moved on before they were committed.
    pub(crate) redecided: Counter,
    /// Lineages read, and those that could not be.
    pub(crate) traversals: Counter,
    pub(crate) traversal_errors: Counter,
    /// Questions whether a mandate is good, and those that were answered with no.
    pub(crate) introspections: Counter,
    pub(crate) introspections_inactive: Counter,
    /// Mandates that their own application took back.
    pub(crate) revocations: Counter,
    /// Snapshots of what is revoked, made for resource servers.
    pub(crate) snapshots: Counter,
    /// Holds by what became of them here. What operators decide is counted by the Admin API.
    pub(crate) issued: Counter,
    pub(crate) consumed: Counter,
    pub(crate) reissued: Counter,
    pub(crate) approved: Counter,
    pub(crate) rejected: Counter,
    /// Decisions of those whose decision it was not.
    pub(crate) decisions_refused: Counter,
    /// Requests without a credential that came too often.
    pub(crate) public_limited: Counter,
    /// One-shot mandates whose use is durable.
    pub(crate) used_up: Counter,
}

/// How often something was done, how often it failed, and how long it took in all.
#[derive(Default)]
pub(crate) struct Timed {
    total: Counter,
    errors: Counter,
    nanos: Counter,
}

impl Timed {
    /// Does it.
    pub(crate) fn count<T, E>(&self, what: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.count_if(what, |_| false)
    }

    /// Does it, and counts it unless it turns out to be none.
    pub(crate) fn count_if<T, E>(
        &self,
        what: impl FnOnce() -> Result<T, E>,
        is_none: impl FnOnce(&Result<T, E>) -> bool,
    ) -> Result<T, E> {
        let started = Instant::now();
        let done = what();
        if is_none(&done) {
            return done;
        }
        self.nanos.add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.total.up();
        if done.is_err() {
            self.errors.up();
        }
        done
    }
}

/// What is counted of policy. The contract calls it `opa`.
#[derive(Default)]
pub(crate) struct PolicyMetrics {
    pub(crate) evaluations: Timed,
    pub(crate) compilations: Timed,
}

/// When it was last seen that what is active is loaded.
#[derive(Clone, Copy)]
pub(crate) struct PolicyAge {
    /// How long ago, in the zone where it is longest.
    pub(crate) seconds: u64,
    /// How often it is looked.
    pub(crate) poll_seconds: u64,
}

/// Name in Prometheus without prefix, help, value.
pub(crate) type Series = (&'static str, &'static str, u64);

/// Name in Prometheus without prefix, type, value, help.
pub(crate) type Counted = (&'static str, &'static str, u64, &'static str);

/// Of a queue of evidence that does not exist. Kind, name in Prometheus without prefix, help.
const OF_NO_QUEUE: [(&str, &str, &str); 7] = [
    ("counter", "audit_dropped_total", "Events lost: none, evidence is committed with what it is of."),
    ("counter", "audit_replay_replayed_total", "Events read back from files: none are written."),
    ("counter", "audit_sink_errors_total", "Events that could not be sent: none are, they are committed."),
    ("gauge", "audit_replay_pending", "Events waiting in files."),
    ("gauge", "audit_replay_files", "The files."),
    ("gauge", "audit_replay_bytes", "Their size."),
    ("gauge", "audit_replay_oldest_age_seconds", "Age of the oldest of them."),
];

impl Metrics {
    /// Counts an exchange by how it ended.
    pub(crate) fn ended<T, E: Borrow<ExchangeError>>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.granted.up(),
            Err(error) if error.borrow().status().is_server_error() => self.failed.up(),
            Err(_) => self.refused.up(),
        }
    }

    /// Counts a workload's request for a credential by how it ended.
    pub(crate) fn launched<T, E: Borrow<ExchangeError>>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.released.up(),
            Err(_) => self.withheld.up(),
        }
    }

    /// Counts a request that was none.
    pub(crate) fn malformed(&self) {
        self.refused.up();
    }

    fn series(&self) -> [Series; 20] {
        [
            ("graph_traversals_total", "Delegation lineages read.", self.traversals.get()),
            (
                "graph_traversal_errors_total",
                "Delegation lineages that could not be read.",
                self.traversal_errors.get(),
            ),
            ("exchanges_granted_total", "Exchanges that ended in a mandate.", self.granted.get()),
            ("exchanges_refused_total", "Exchanges refused.", self.refused.get()),
            ("exchanges_failed_total", "Exchanges that could not be decided.", self.failed.get()),
            ("credentials_released_total", "Credentials that workloads were launched with.", self.released.get()),
            (
                "credentials_withheld_total",
                "Credentials that workloads asked for and did not get.",
                self.withheld.get(),
            ),
            ("mandates_used_total", "Presented mandates that were used up.", self.used_up.get()),
            ("exchanges_redecided_total", "Decisions made anew because their zone had moved.", self.redecided.get()),
            ("introspections_total", "Mandates asked after.", self.introspections.get()),
            (
                "introspections_inactive_total",
                "Mandates asked after that were not active, or not the caller's to ask after.",
                self.introspections_inactive.get(),
            ),
            ("mandates_revoked_total", "Mandates revoked by their application.", self.revocations.get()),
            (
                "revocation_snapshots_total",
                "Lists of what is revoked, made for resource servers.",
                self.snapshots.get(),
            ),
            ("approvals_issued_total", "Holds raised for a human.", self.issued.get()),
            ("approvals_consumed_total", "Holds spent on a mandate.", self.consumed.get()),
            ("approvals_reissued_total", "Mandates told once more after their hold was spent.", self.reissued.get()),
            ("approvals_approved_total", "Holds that the user of an application approved.", self.approved.get()),
            ("approvals_rejected_total", "Holds that the user of an application rejected.", self.rejected.get()),
            (
                "approvals_decisions_refused_total",
                "Decisions by somebody whose decision it was not.",
                self.decisions_refused.get(),
            ),
            ("public_limited_total", "Requests without a credential that came too often.", self.public_limited.get()),
        ]
    }

    /// Prometheus text, version 0.0.4.
    pub(crate) fn text(&self, policy: &PolicyMetrics, age: PolicyAge, others: &[Series], work: &[Counted]) -> String {
        let mut text = String::with_capacity(4 * 1024);
        let mut write_as = |kind: &str, name: &str, help: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# HELP caracal_sts_{name} {help}\n# TYPE caracal_sts_{name} {kind}\ncaracal_sts_{name} {value}\n"
            );
        };
        let help = "Seconds since it was last seen that what is active is loaded.";
        write_as("gauge", "opa_max_policy_age_seconds", help, &age.seconds);
        write_as("gauge", "opa_poll_interval_seconds", "How often it is looked.", &age.poll_seconds);
        for (kind, name, help) in OF_NO_QUEUE {
            write_as(kind, name, help, &0);
        }
        for (name, kind, value, help) in work {
            write_as(kind, name, help, value);
        }
        let mut write = |name: &str, help: &str, value: &dyn std::fmt::Display| write_as("counter", name, help, value);
        for (name, help, value) in self.series().into_iter().chain(others.iter().copied()) {
            write(name, help, &value);
        }
        for (what, timed) in [("eval", &policy.evaluations), ("compile", &policy.compilations)] {
            write(&format!("opa_{what}_total"), "Done.", &timed.total.get());
            write(&format!("opa_{what}_errors_total"), "Failed.", &timed.errors.get());
            let seconds = Duration::from_nanos(timed.nanos.get()).as_secs_f64();
            write(&format!("opa_{what}_duration_seconds_total"), "Time spent.", &seconds);
        }
        text
    }

    /// The same as JSON.
    pub(crate) fn json(&self, policy: &PolicyMetrics, age: PolicyAge, others: &[Series], work: &[Counted]) -> Value {
        let none = OF_NO_QUEUE.into_iter().map(|(_, name, help)| (name, help, 0));
        let work = work.iter().map(|(name, _, value, help)| (*name, *help, *value));
        let series = self.series().into_iter().chain(others.iter().copied()).chain(none).chain(work);
        let sts = series.map(|(name, _, value)| (name.trim_end_matches("_total").to_owned(), value.into()));
        let mut opa = Map::new();
        for (what, timed) in [("eval", &policy.evaluations), ("compile", &policy.compilations)] {
            opa.insert(format!("{what}_total"), timed.total.get().into());
            opa.insert(format!("{what}_errors"), timed.errors.get().into());
            opa.insert(format!("{what}_duration_ns"), timed.nanos.get().into());
        }
        opa.insert("max_policy_age_seconds".to_owned(), age.seconds.into());
        opa.insert("poll_interval_seconds".to_owned(), age.poll_seconds.into());
        opa.insert("decision_contract_version".to_owned(), caracal_policy::DECISION_CONTRACT_VERSION.into());
        opa.insert("decision_contract_sha256".to_owned(), caracal_policy::decision_contract_sha256().into());
        json!({"sts": sts.collect::<Map<_, _>>(), "opa": opa, "audit_dropped": 0})
    }
}
