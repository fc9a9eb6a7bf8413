//! What the jobs of this process did so far, as operators read it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::jobs::{JobCounts, Jobs, Removed};

/// Members of `/stats`, one per job.
pub(super) fn members(jobs: &Jobs, removed: Removed) -> Map<String, Value> {
    let job = |counts: &JobCounts, ended: &str| json!({"runs": read(&counts.runs), "failures": read(&counts.failures), ended: read(&counts.ended)});
    Map::from_iter([
        ("ttl_sweeper".to_owned(), job(&jobs.ttl, "terminated")),
        ("service_lease_sweeper".to_owned(), job(&jobs.leases, "suspended")),
        ("deadline_enforcer".to_owned(), job(&jobs.deadlines, "timed_out")),
        ("heartbeat_records".to_owned(), job(&jobs.records, "chained")),
        ("retention_cleaner".to_owned(), retention(&jobs.retention, removed)),
    ])
}

fn retention(counts: &JobCounts, removed: Removed) -> Value {
    json!({
        "runs": read(&counts.runs),
        "failures": read(&counts.failures),
        "expired_edges": read(&counts.expired_edges),
        "deleted_edges": read(&counts.deleted_edges),
        "deleted_sessions": read(&counts.ended),
        "deleted_outbox": removed.messages,
        "deleted_idempotency_receipts": removed.receipts,
    })
}

/// Metrics, by the rest of their names.
pub(super) fn totals(jobs: &Jobs) -> [(&'static str, u64); 5] {
    [
        ("ttl_sweeper_runs_total", read(&jobs.ttl.runs)),
        ("service_lease_sweeper_runs_total", read(&jobs.leases.runs)),
        ("deadline_enforcer_runs_total", read(&jobs.deadlines.runs)),
        ("retention_cleaner_runs_total", read(&jobs.retention.runs)),
        ("retention_sessions_deleted_total", read(&jobs.retention.ended)),
    ]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
