//! What a governed call costs the processor, beside what its parts cost by themselves. All of it on one machine, in one run and
//! by turns: what else the machine does then falls on all of them alike.
//!
//! A call through the Gateway is a governed call without its mint. What it adds to a proxy of the same crates that decides
//! nothing should be one verification, one exchange and the record of its end. The exchange is asked for over HTTP, as a Gateway
//! of its own process would; its mint, its HTTP and the nonce that only such a question takes are taken off again, and
//! the verification is in it. The nonce and the record are measured in this process, by the code and on the store of production.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caracal_authority::{EventId, ZoneId};
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, MetadataKey as Key};
use caracal_store::{SqliteOptions, Store, StoreError, SystemClock, used_mandates};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::load::{self, Measured, Pace, Plan};
use super::subject::{self, Subject};
use super::unit::{Calls, What};
use super::{BenchFlags, PATIENCE, beside, report, usage};
use crate::actors::operator::NOTES;
use crate::commands::Failure;

/// So many are timed one after the other, each for `--seconds`.
pub(super) const PARTS: f64 = 7.0;
/// As long as an STS keeps one.
const NONCE_KEPT: Duration = Duration::from_secs(121);
/// Calls under way at most through the bare proxy.
const IN_FLIGHT: usize = 400;
/// How often each has its turn.
const ROUNDS: u32 = 5;

/// Processor time of one of each, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Costs {
    /// A mandate, and a call through the Gateway with it.
    governed: f64,
    mint: f64,
    /// The HTTP of a mint or an exchange alone.
    form: f64,
    /// A mandate, and the exchange of it over HTTP.
    exchanged: f64,
    /// A nonce used up, beside as many changes as share a commit of exchanges.
    nonce: f64,
    /// A call through the bare proxy, where there are as many a second as governed ones.
    passed: f64,
    /// One event made durable, beside as many as share a commit of governed calls.
    record: f64,
}

impl Costs {
    fn call(self) -> f64 {
        self.governed - self.mint
    }

    fn exchange(self) -> f64 {
        self.exchanged - self.mint - self.form - self.nonce
    }

    /// What a call should cost.
    fn together(self) -> f64 {
        self.passed + self.exchange() + self.record
    }
}

/// What was found, and how.
pub(super) struct Parts<'p> {
    flags: &'p BenchFlags,
    engine: &'static str,
    costs: Costs,
}

impl<'p> Parts<'p> {
    /// Gives each its turns. The bare proxy runs on the threads `proxy` of this process.
    pub(super) fn measure(
        flags: &'p BenchFlags,
        home: &Path,
        runtime: &Runtime,
        calls: &Calls<'_>,
        subject: &Subject,
        proxy: &[PathBuf],
    ) -> Result<Self, Failure> {
        let recorder = Recorder::new(home)?;
        let turn = Duration::from_secs_f64(flags.seconds) / ROUNDS;
        let served = |what: What, pace: Pace, doing: &'static str| {
            let plan = Plan {
                what,
                workers: flags.workers,
                warm_up: Duration::from_secs_f64(flags.warm_up) / ROUNDS,
                measured: turn,
                pace,
                replays: false,
                server: if what == What::Passed { proxy.to_owned() } else { Vec::new() },
                doing,
                shows_progress: !flags.json,
            };
            let found = load::measure(&plan, calls, subject)?;
            let tally = &found.tally;
            if tally.errors + tally.sheds + tally.unsent > 0 || tally.calls == 0 {
                let why = tally.first_error.as_deref().unwrap_or("none was answered in time");
                return Err(Failure(format!("{doing}: not all calls were answered as they should be: {why}")));
            }
            let us = report::us_per_call(&found, found.server_time).ok_or_else(unknown)?;
            Ok((us, found))
        };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (form, _) = served(What::Form, Pace::Closed, "HTTP alone")?;
            let (mint, _) = served(What::Mint, Pace::Closed, "mandates")?;
            let (governed, found) = served(What::Governed, Pace::Closed, "governed calls")?;
            // As many a second: what comes rarely costs more, because whoever waits for it has gone to sleep.
            let rate = Pace::Open { rate: found.per_second(), in_flight: IN_FLIGHT, patience: PATIENCE };
            let (passed, _) = served(What::Passed, rate, "calls through a bare proxy")?;
            let record = recorder.record(runtime, sharing(&found), turn)?;
            let (exchanged, found) = served(What::Exchange, Pace::Closed, "exchanges")?;
            let nonce = recorder.nonce(runtime, sharing(&found), turn)?;
            rounds.push(Costs { governed, mint, form, exchanged, nonce, passed, record });
        }
        Ok(Self { flags, engine: subject.engine, costs: middle(&rounds) })
    }

    /// One line.
    pub(super) fn json(&self) -> Value {
        let costs = self.costs;
        json!({
            "what": "parts", "engine": self.engine, "is_optimised": !cfg!(debug_assertions),
            "workers": self.flags.workers, "seconds": self.flags.seconds, "warm_up_seconds": self.flags.warm_up, "rounds": ROUNDS,
            "measured": {
                "governed_us": costs.governed, "mint_us": costs.mint, "form_us": costs.form, "exchanged_us": costs.exchanged,
                "nonce_us": costs.nonce, "proxy_us": costs.passed, "record_us": costs.record
            },
            "call_us": costs.call(), "exchange_us": costs.exchange(), "together_us": costs.together(),
            "ratio": costs.call() / costs.together(),
        })
    }

    /// A table.
    pub(super) fn text(&self) -> String {
        let costs = self.costs;
        let mut text = format!(
            "what a call through the Gateway costs the processor, {}, {} callers, µs (medians of {ROUNDS} turns)\n\n",
            self.engine, self.flags.workers
        );
        for (what, us) in [
            ("a proxy that decides nothing", costs.passed),
            ("+ one exchange, with its verification", costs.exchange()),
            ("+ the record of its end", costs.record),
            ("= together", costs.together()),
            ("a call: a governed call without its mint", costs.call()),
        ] {
            let _ = writeln!(text, "{what:<42}{us:>8.0}");
        }
        let ratio = costs.call() / costs.together();
        let _ = write!(text, "{:<42}{ratio:>8.2}", "the call, of its parts together");
        text
    }
}

/// How many changes shared a commit.
fn sharing(found: &Measured) -> usize {
    let counted = found.counted.unwrap_or_default();
    usize::try_from(counted.changes.div_ceil(counted.commits.max(1))).unwrap_or(usize::MAX).max(1)
}

fn unknown() -> Failure {
    Failure("the processor time of other processes is not known here: --parts needs Linux".to_owned())
}

/// Of each cost by itself: a turn in which the machine was busy elsewhere spoils one number, and not the others.
fn middle(rounds: &[Costs]) -> Costs {
    let of = |cost: fn(&Costs) -> f64| {
        let mut found: Vec<f64> = rounds.iter().map(cost).collect();
        found.sort_by(f64::total_cmp);
        found.get(found.len() / 2).copied().unwrap_or_default()
    };
    Costs {
        governed: of(|costs| costs.governed),
        mint: of(|costs| costs.mint),
        form: of(|costs| costs.form),
        passed: of(|costs| costs.passed),
        exchanged: of(|costs| costs.exchanged),
        nonce: of(|costs| costs.nonce),
        record: of(|costs| costs.record),
    }
}

/// A ledger of this process, on an embedded store of its own.
struct Recorder {
    store: Store,
    ledger: Ledger,
    zone: ZoneId,
    recorded: AtomicU64,
}

impl Recorder {
    fn new(home: &Path) -> Result<Self, Failure> {
        let store = Store::open(&SqliteOptions::in_directory(home.join("parts")), Arc::new(SystemClock))?;
        let ledger = Ledger::new(Some(Arc::new(HmacKey::from_hex(&subject::key()?)?)));
        Ok(Self { store, ledger, zone: ZoneId::parse("bench")?, recorded: AtomicU64::new(0) })
    }

    /// Microseconds of processor time that one event takes, where so many share a commit.
    fn record(&self, runtime: &Runtime, sharing: usize, time: Duration) -> Result<f64, Failure> {
        each_of(runtime, sharing, time, async || self.record_one().await)
    }

    /// The same of a nonce.
    fn nonce(&self, runtime: &Runtime, sharing: usize, time: Duration) -> Result<f64, Failure> {
        each_of(runtime, sharing, time, async || {
            let nonce = beside::id(self.store.now(), self.recorded.fetch_add(1, Ordering::Relaxed), 1);
            let until = self.store.now().plus(NONCE_KEPT);
            let taken: Result<bool, StoreError> = self
                .store
                .commit_upkeep((nonce, until), |tx, (nonce, until)| {
                    Box::pin(async move { used_mandates::consume_nonce(tx, nonce, *until).await })
                })
                .await;
            if taken? { Ok(()) } else { Err(Failure("a nonce was there before".to_owned())) }
        })
    }

    /// As a Gateway leaves one of a call.
    async fn record_one(&self) -> Result<(), Failure> {
        let now = self.store.now();
        let kind = EventType::GatewayResourceRequest;
        let number = self.recorded.fetch_add(1, Ordering::Relaxed);
        let event_id = EventId::parse(&beside::id(now, number, 2))?;
        let event = Evidence::new(event_id, self.zone.clone(), kind, Decision::Allow, EvaluationStatus::Complete, now)
            .request(beside::id(now, number, 3))
            .attribute(Key::Resource, NOTES)
            .attribute(Key::Method, "GET")
            .attribute(Key::UpstreamHost, "127.0.0.1:49152")
            .attribute(Key::UpstreamStatus, 200)
            .attribute(Key::GatewayStatus, 200)
            .attribute(Key::ResponseBytes, 512)
            .attribute(Key::LatencyMs, 3);
        let batch = (self.ledger.clone(), vec![event]);
        let written: Result<(), StoreError> = self
            .store
            .commit(&self.zone, batch, |tx, (ledger, events)| Box::pin(async move { ledger.record(tx, events).await }))
            .await;
        Ok(written?)
    }
}

/// Microseconds of this process that one of them takes, of so many at the same time.
fn each_of(
    runtime: &Runtime,
    at_once: usize,
    time: Duration,
    once: impl AsyncFn() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let before = usage::own_threads_time();
    let done = runtime.block_on(async {
        let begun = Instant::now();
        let caller = async || {
            let mut done = 0_u32;
            while begun.elapsed() < time {
                once().await?;
                done += 1;
            }
            Ok::<_, Failure>(done)
        };
        futures_util::future::try_join_all((0..at_once).map(|_| caller())).await
    })?;
    let used = usage::own_threads_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.ok_or_else(unknown)?.as_secs_f64() * 1e6 / f64::from(done.iter().sum::<u32>().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_held_against_a_proxy_an_exchange_and_a_record() {
        let costs = Costs {
            governed: 1_000.0,
            mint: 300.0,
            form: 50.0,
            exchanged: 700.0,
            nonce: 20.0,
            passed: 100.0,
            record: 90.0,
        };
        assert!((costs.call() - 700.0).abs() < 1e-9);
        assert!((costs.exchange() - 330.0).abs() < 1e-9);
        assert!((costs.together() - (100.0 + 330.0 + 90.0)).abs() < 1e-9);
    }

    #[test]
    fn each_cost_has_its_own_median() {
        let round = |governed: f64, mint: f64| Costs { governed, mint, ..Costs::default() };
        let found = middle(&[round(3.0, 1.0), round(1.0, 2.0), round(2.0, 9.0)]);
        assert_eq!(found, round(2.0, 2.0));
    }
}
