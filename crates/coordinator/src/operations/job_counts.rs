//! What the jobs of this process did so far, as operators read it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::jobs::{JobCounts, Jobs};

/// Members of `/stats`, one per job.
pub(super) fn members(jobs: &Jobs) -> Map<String, Value> {
    let job = |counts: &JobCounts, ended: &str| json!({"runs": read(&counts.runs), "failures": read(&counts.failures), ended: read(&counts.ended)});
    Map::from_iter([
        ("ttl_sweeper".to_owned(), job(&jobs.ttl, "terminated")),
        ("deadline_enforcer".to_owned(), job(&jobs.deadlines, "timed_out")),
    ])
}

/// Metrics, by the rest of their names.
pub(super) fn totals(jobs: &Jobs) -> [(&'static str, u64); 2] {
    [("ttl_sweeper_runs_total", read(&jobs.ttl.runs)), ("deadline_enforcer_runs_total", read(&jobs.deadlines.runs))]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
