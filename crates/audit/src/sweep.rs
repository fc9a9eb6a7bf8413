//! The sweep. At start and then hourly it goes on where the last pass ended, and looks at that event again, so that it costs
//! what is new in the chains and their trees; at start and
//! then daily it goes over every chain from its first row, because whoever owns the database can alter what was verified
//! long ago. A pass that finds something is followed by one over everything, which says what there is.
//!
//! Findings are counted, logged, recorded as incidents, and make the service unready: evidence that does not verify must
//! not look like evidence that does. Nor must evidence that could not be verified: whoever removes or forges what the
//! verifier needs would silence it otherwise.
//!
//! One process sweeps for all. What it has once seen it keeps in mind outside the store ([`SweepMarks`]), so that it misses
//! the end of a chain also where it wrote none of it.
//!
//! [`SweepMarks`]: caracal_ledger::SweepMarks

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_ledger::{Begin, Chain, Head, LedgerReport, Marks};
use tokio::sync::watch;

use crate::Audit;
use crate::incidents::{raise_found, settle};
use crate::metrics::{add, set};

const INTERVAL: Duration = Duration::from_secs(3_600);
/// After a sweep that could not run.
const RETRY: Duration = Duration::from_secs(60);
/// How often everything is gone over.
const FULL_EVERY: Duration = Duration::from_secs(86_400);
/// How often what is old enough is removed.
const RETIRE_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// What the sweeps have found.
#[derive(Default)]
pub(crate) struct Sweeps {
    broken: AtomicBool,
    unverified: AtomicBool,
    /// The last event of each chain that this process found intact from its first row on. Empty while anything is wrong.
    verified: Mutex<BTreeMap<Chain, Head>>,
}

impl Sweeps {
    /// What the last sweep has against the ledger, as a reason not to be ready. Before the first one ends, that is
    /// nothing.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        if self.broken.load(Ordering::Relaxed) {
            return Some("ledger_tampered");
        }
        self.unverified.load(Ordering::Relaxed).then_some("ledger_unverified")
    }

    pub(crate) fn verified(&self) -> BTreeMap<Chain, Head> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, report: &LedgerReport, full: bool) {
        let lacks_keys = report.lacks_keys_only();
        self.broken.store(!report.is_intact() && !lacks_keys, Ordering::Relaxed);
        self.unverified.store(lacks_keys, Ordering::Relaxed);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if !report.is_intact() {
            verified.clear();
        } else if full || !verified.is_empty() {
            // A pass that began at marks adds to what one over everything has verified, and is worth nothing without it.
            verified.extend(Marks::of(report).events);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Intact,
    Broken,
    Failed,
}

/// What comes next, and when.
struct Plan {
    full_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
    pass: Begin,
}

impl Plan {
    /// How long to wait for the next pass.
    fn after(&mut self, outcome: Outcome, now: Timestamp) -> Duration {
        if self.pass == Begin::AtFirst && outcome != Outcome::Failed {
            self.full_at = Some(now);
        }
        match (outcome, self.pass) {
            (Outcome::Failed, _) => RETRY,
            (Outcome::Broken, Begin::AtMarks) => {
                self.pass = Begin::AtFirst;
                Duration::ZERO
            }
            // Over everything while anything is wrong: marks say nothing then.
            (Outcome::Broken, Begin::AtFirst) => INTERVAL,
            (Outcome::Intact, _) => {
                let due = self.full_at.is_none_or(|at| at.until(now) + INTERVAL > FULL_EVERY);
                self.pass = if due { Begin::AtFirst } else { Begin::AtMarks };
                if self.full_at.is_none() { Duration::ZERO } else { INTERVAL }
            }
        }
    }
}

impl Audit {
    /// Sweeps until `shutdown` turns true, and removes what is old enough. For one process at a time.
    pub async fn run_sweep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let _leads = self.metrics.sweeper.take();
        let pass = if self.marks().is_empty() { Begin::AtFirst } else { Begin::AtMarks };
        let mut plan = Plan { full_at: None, retired_at: None, pass };
        loop {
            let outcome = tokio::select! {
                // A pass that is under way only reads; it may be left behind.
                _ = shutdown.wait_for(|stop| *stop) => return,
                outcome = self.pass(plan.pass) => outcome,
            };
            let now = self.store.now();
            let wait = plan.after(outcome, now);
            let due = plan.retired_at.is_none_or(|at| at.until(now) >= RETIRE_EVERY);
            if outcome == Outcome::Intact && due && !self.sweeps.verified().is_empty() {
                match self.retire().await {
                    Ok(_) => plan.retired_at = Some(now),
                    Err(error) => tracing::error!(%error, "old evidence could not be removed; it is tried again"),
                }
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn marks(&self) -> Marks {
        self.marks.as_ref().map(|marks| marks.read()).unwrap_or_default()
    }

    async fn pass(&self, pass: Begin) -> Outcome {
        let (marks, verifier) = (self.marks(), self.verifier.clone());
        let ended = tokio::task::spawn_blocking(move || verifier.verify(&marks, pass)).await;
        match ended.map_err(|error| error.to_string()).and_then(|verdict| verdict) {
            Ok(report) => self.judge(&report, pass).await,
            Err(error) => {
                tracing::error!(error, "the ledger could not be verified");
                self.sweeps.unverified.store(true, Ordering::Relaxed);
                Outcome::Failed
            }
        }
    }

    async fn judge(&self, report: &LedgerReport, pass: Begin) -> Outcome {
        // What a pass over everything finds as well is counted there.
        let counted = pass == Begin::AtFirst || report.is_intact();
        add(&self.metrics.checked, report.rows());
        for totals in report.chains.iter().map(|chain| chain.totals).filter(|_| counted) {
            add(&self.metrics.mismatches, totals.mismatches);
            add(&self.metrics.seals, totals.seals);
            add(&self.metrics.breaks, totals.breaks);
        }
        self.sweeps.note(report, pass == Begin::AtFirst);
        for (chain, finding) in report.chains.iter().filter_map(|chain| Some((chain, chain.first()?))) {
            if report.lacks_keys_only() {
                tracing::error!(chain = %chain.chain, %finding, "the ledger can't be verified");
                continue;
            }
            tracing::error!(chain = %chain.chain, %finding, "the ledger does not verify");
            raise_found(&self.store, &self.ledger, chain).await;
        }
        if pass == Begin::AtFirst {
            match settle(&self.store, report).await {
                Ok(standing) => set(&self.metrics.standing, u64::try_from(standing).unwrap_or(u64::MAX)),
                Err(error) => {
                    tracing::error!(%error, "what does not stand any more could not be noted; it is tried again")
                }
            }
        }
        if report.is_intact() {
            tracing::info!(rows = report.rows(), chains = report.chains.len(), "the ledger verifies");
            if let Some(Err(error)) = self.marks.as_ref().map(|marks| marks.record(&Marks::of(report))) {
                tracing::error!(%error, "how far the ledger was verified could not be noted");
            }
        }
        let now = self.store.now().as_seconds();
        self.metrics.last_sweep.store(now, Ordering::Relaxed);
        if pass == Begin::AtFirst {
            self.metrics.last_full.store(now, Ordering::Relaxed);
        }
        if report.is_intact() { Outcome::Intact } else { Outcome::Broken }
    }
}
