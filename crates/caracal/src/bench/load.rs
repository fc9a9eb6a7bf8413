//! Callers: in a closed loop each asks again as soon as it is answered; in an open loop calls are due at times that no
//! answer can move, and latency counts from when a call was due, so that a stall is as many slow calls as came due in it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::progress::Progress;
use super::subject::Subject;
use super::unit::{Caller, Calls, Kind, Took, What, Wrong};
use super::usage;
use crate::actors::client::HttpClient;
use crate::commands::Failure;
use crate::system::Urls;

/// Latencies are kept in microseconds, to three digits, up to a minute.
const LONGEST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;
/// After this a call is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// How often the one who watches looks.
const GLANCE: Duration = Duration::from_millis(100);

/// When the next call is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When the last one was answered.
    Closed,
    /// So many a second in all.
    Open {
        rate: f64,
        /// Under way at the same time, in all.
        in_flight: usize,
        /// How long after the end what came due before it may still be sent.
        patience: Duration,
    },
}

/// How to measure.
pub(super) struct Plan {
    pub(super) what: What,
    pub(super) workers: usize,
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    pub(super) pace: Pace,
    /// Whether some mandates are shown twice, and the second time must be refused.
    pub(super) replays: bool,
    /// The threads of this process that serve the calls, where it is not the system that does.
    pub(super) server: Vec<PathBuf>,
    /// What is measured, for whoever looks on.
    pub(super) doing: &'static str,
    pub(super) shows_progress: bool,
}

/// Latencies of one kind of request, in microseconds.
pub(super) struct Phase(pub(super) Histogram<u64>);

impl Phase {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What became of the calls that count: those that began, or came due, in the time that is measured.
pub(super) struct Tally {
    /// Answered as they should be.
    pub(super) calls: u64,
    /// Answered so within the time, by whichever call: what throughput is made of.
    pub(super) in_time: u64,
    /// Refused by a system that is too busy, and says so.
    pub(super) sheds: u64,
    /// Due, and never sent: too many were under way.
    pub(super) unsent: u64,
    /// Everything else that went wrong.
    pub(super) errors: u64,
    /// Those of them in which something was granted that must not be.
    pub(super) violations: u64,
    /// What the first of those was told.
    pub(super) first_error: Option<String>,
    /// Of each request of a call.
    pub(super) phases: Vec<(&'static str, Phase)>,
    /// Of the call: in an open loop from when it was due.
    pub(super) whole: Phase,
}

impl Tally {
    fn new(what: What) -> Result<Self, Failure> {
        let phases = what.phases().iter().map(|name| Ok((*name, Phase::new()?))).collect::<Result<_, Failure>>()?;
        let whole = Phase::new()?;
        Ok(Self {
            calls: 0,
            in_time: 0,
            sheds: 0,
            unsent: 0,
            errors: 0,
            violations: 0,
            first_error: None,
            phases,
            whole,
        })
    }

    fn answered(&mut self, took: Took, whole: Duration) {
        self.calls += 1;
        self.whole.record(whole);
        for (number, (_, phase)) in self.phases.iter_mut().enumerate() {
            phase.record(took.of(number));
        }
    }

    fn failed(&mut self, wrong: Wrong) {
        if wrong.kind == Kind::Shed {
            self.sheds += 1;
            return;
        }
        self.violations += u64::from(wrong.kind == Kind::Violation);
        self.errors += 1;
        self.first_error.get_or_insert(wrong.told);
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.calls += other.calls;
        self.in_time += other.in_time;
        self.sheds += other.sheds;
        self.unsent += other.unsent;
        self.errors += other.errors;
        self.violations += other.violations;
        self.first_error = self.first_error.take().or(other.first_error);
        self.whole.0.add(other.whole.0)?;
        for ((_, phase), (_, others)) in self.phases.iter_mut().zip(other.phases) {
            phase.0.add(others.0)?;
        }
        Ok(())
    }
}

/// What was found.
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// The time that was measured.
    pub(super) elapsed: Duration,
    /// The same, and until the last call that counts was answered.
    pub(super) server_time: Option<Duration>,
    pub(super) client_time: Option<Duration>,
    pub(super) bytes_written: Option<u64>,
    /// The most that was seen.
    pub(super) resident_mib: Option<f64>,
    pub(super) counted: Option<Counted>,
    /// When the callers stopped.
    pub(super) ended: Instant,
}

impl Measured {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run are far below what a double can't tell apart")]
    pub(super) fn per_second(&self) -> f64 {
        self.tally.in_time as f64 / self.elapsed.as_secs_f64()
    }
}

/// What the system counts of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Syncs to storage.
    pub(super) commits: u64,
    /// Changes, several of which may share a commit.
    pub(super) changes: u64,
    /// Waits for a database server.
    pub(super) round_trips: u64,
    /// Mandates signed.
    pub(super) signatures: u64,
}

impl Counted {
    /// Nothing where the system does not say it to everybody.
    async fn now(client: &HttpClient, urls: &Urls) -> Result<Option<Self>, Failure> {
        let answer = client.send(Method::GET, &format!("{}/metrics.json", urls.sts), &[], None).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let metrics = answer.json();
        let of = |name: &str| {
            let found = metrics.get("sts").and_then(|sts| sts.get(name)).and_then(Value::as_u64);
            found.ok_or_else(|| Failure(format!("the system does not say its `{name}`")))
        };
        Ok(Some(Self {
            commits: of("store_commits")?,
            changes: of("store_changes")?,
            round_trips: of("store_round_trips")?,
            signatures: of("signatures")?,
        }))
    }

    fn since(self, before: Self) -> Self {
        Self {
            commits: self.commits.saturating_sub(before.commits),
            changes: self.changes.saturating_sub(before.changes),
            round_trips: self.round_trips.saturating_sub(before.round_trips),
            signatures: self.signatures.saturating_sub(before.signatures),
        }
    }
}

/// What callers and the one who watches them have in common.
struct Shared {
    /// All callers have their sessions.
    prepared: Barrier,
    /// Whether what begins now counts.
    counts: AtomicBool,
    /// When it was over.
    over: OnceLock<Instant>,
    done: AtomicU64,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// Whether what came due before the end is no longer to be sent.
    fn gave_up(&self, patience: Duration) -> bool {
        self.over.get().is_some_and(|over| over.elapsed() >= patience)
    }
}

/// A call of an open loop.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    counts: bool,
}

/// Lets the callers call for the time planned.
pub(super) fn measure(plan: &Plan, calls: &Calls<'_>, subject: &Subject) -> Result<Measured, Failure> {
    let shared = Shared {
        prepared: Barrier::new(plan.workers + 1),
        counts: AtomicBool::new(false),
        over: OnceLock::new(),
        done: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut workers = Vec::with_capacity(plan.workers);
        for _ in 0..plan.workers {
            let (sender, due) = mpsc::unbounded_channel();
            senders.push(sender);
            let shared = &shared;
            workers.push(scope.spawn(move || worker(plan, calls, shared, due)));
        }
        shared.prepared.wait();
        if let Pace::Open { rate, .. } = plan.pace {
            let shared = &shared;
            scope.spawn(move || come_due(rate, &senders, shared));
        }
        let watch = Watch::new(plan, calls.urls, subject)?;
        let watched = watch.over_the_time(&shared);
        let ended = *shared.over.get_or_init(Instant::now);
        let mut tally = Tally::new(plan.what)?;
        for worker in workers {
            tally.add(worker.join().map_err(|_| Failure("a caller broke down".to_owned()))??)?;
        }
        let (elapsed, before, resident_mib) = watched?;
        let used = watch.look()?.since(before);
        Ok(Measured {
            tally,
            elapsed,
            server_time: used.server_time,
            client_time: used.client_time,
            bytes_written: used.bytes_written,
            resident_mib,
            counted: used.counted,
            ended,
        })
    })
}

/// Who looks at the system from outside.
struct Watch<'w> {
    runtime: tokio::runtime::Runtime,
    client: HttpClient,
    urls: &'w Urls,
    subject: &'w Subject,
    plan: &'w Plan,
}

/// What had been used at a moment.
#[derive(Clone, Copy)]
struct Used {
    server_time: Option<Duration>,
    client_time: Option<Duration>,
    bytes_written: Option<u64>,
    counted: Option<Counted>,
}

impl Used {
    fn since(self, before: Self) -> Self {
        let between = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
        Self {
            server_time: between(before.server_time, self.server_time),
            client_time: between(before.client_time, self.client_time),
            bytes_written: self.bytes_written.zip(before.bytes_written).map(|(now, then)| now.saturating_sub(then)),
            counted: self.counted.zip(before.counted).map(|(now, then)| now.since(then)),
        }
    }
}

impl<'w> Watch<'w> {
    fn new(plan: &'w Plan, urls: &'w Urls, subject: &'w Subject) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, client: HttpClient::new(), urls, subject, plan })
    }

    fn look(&self) -> Result<Used, Failure> {
        let server = self.subject.pid();
        Ok(Used {
            counted: self.runtime.block_on(Counted::now(&self.client, self.urls))?,
            server_time: match self.plan.server.as_slice() {
                [] => server.and_then(usage::processor_time),
                threads => usage::threads_time(threads),
            },
            client_time: usage::processor_time(std::process::id()),
            bytes_written: server.and_then(usage::bytes_written),
        })
    }

    /// Lets the time pass, and says how long it was, what had been used before, and the most memory that was held.
    fn over_the_time(&self, shared: &Shared) -> Result<(Duration, Used, Option<f64>), Failure> {
        let plan = self.plan;
        let mut progress = Progress::new(plan.shows_progress);
        let resident = || self.subject.pid().and_then(usage::resident_mib);
        wait(plan.warm_up, shared, |passed| progress.show("warming up", passed, plan.warm_up, &shared.done));
        let (before, begun) = (self.look()?, Instant::now());
        shared.counts.store(true, Ordering::Relaxed);
        let mut most = resident();
        wait(plan.measured, shared, |passed| {
            progress.show(plan.doing, passed, plan.measured, &shared.done);
            most = resident().into_iter().chain(most).reduce(f64::max);
        });
        shared.counts.store(false, Ordering::Relaxed);
        let ended = *shared.over.get_or_init(Instant::now);
        progress.end();
        Ok((ended.duration_since(begun), before, most))
    }
}

/// Lets time pass, unless all is lost already.
fn wait(time: Duration, shared: &Shared, mut glance: impl FnMut(Duration)) {
    let begun = Instant::now();
    while begun.elapsed() < time && !shared.is_over() {
        std::thread::sleep(GLANCE.min(time.saturating_sub(begun.elapsed())));
        glance(begun.elapsed());
    }
}

/// Says when calls are due, evenly and to no one's convenience. A thread's own sleep is ten times as fine as the runtime's.
fn come_due(rate: f64, workers: &[mpsc::UnboundedSender<Due>], shared: &Shared) {
    let begun = Instant::now();
    let mut number = 0_u32;
    for worker in workers.iter().cycle() {
        let at = begun + Duration::from_secs_f64(f64::from(number) / rate);
        while !shared.is_over() {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(GLANCE));
        }
        if shared.is_over() || worker.send(Due { at, counts: shared.counts.load(Ordering::Relaxed) }).is_err() {
            return;
        }
        number = number.saturating_add(1);
    }
}

/// One caller, on a thread of its own, with connections of its own and a session of its own.
fn worker(
    plan: &Plan,
    calls: &Calls<'_>,
    shared: &Shared,
    due: mpsc::UnboundedReceiver<Due>,
) -> Result<Tally, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = HttpClient::new();
    let prepared = match &runtime {
        Ok(runtime) => runtime.block_on(Caller::prepare(plan.what, &client, calls, plan.replays)),
        Err(error) => Err(Failure(error.to_string())),
    };
    if prepared.is_err() {
        shared.over.get_or_init(Instant::now);
    }
    // Also by one that failed: the others wait for all.
    shared.prepared.wait();
    let (caller, runtime) = (prepared?, runtime?);
    let mut tally = Tally::new(plan.what)?;
    match plan.pace {
        Pace::Closed => runtime.block_on(in_turn(&caller, shared, &mut tally)),
        Pace::Open { in_flight, patience, .. } => {
            let at_once = in_flight.div_ceil(plan.workers);
            runtime.block_on(as_due(&caller, shared, due, at_once, patience, &mut tally));
        }
    }
    Ok(tally)
}

async fn in_turn(caller: &Caller<'_>, shared: &Shared, tally: &mut Tally) {
    while !shared.is_over() {
        let due = Due { at: Instant::now(), counts: shared.counts.load(Ordering::Relaxed) };
        let outcome = once(caller).await;
        note(due, outcome, shared, tally);
    }
}

async fn as_due(
    caller: &Caller<'_>,
    shared: &Shared,
    mut due: mpsc::UnboundedReceiver<Due>,
    at_once: usize,
    patience: Duration,
    tally: &mut Tally,
) {
    let mut under_way = FuturesUnordered::new();
    let mut more = true;
    while more || !under_way.is_empty() {
        tokio::select! {
            biased;
            Some((due, outcome)) = under_way.next(), if !under_way.is_empty() => note(due, outcome, shared, tally),
            next = due.recv(), if more && under_way.len() < at_once => match next {
                Some(due) if shared.gave_up(patience) => tally.unsent += u64::from(due.counts),
                Some(due) => under_way.push(async move { (due, once(caller).await) }),
                None => more = false,
            },
        }
    }
}

async fn once(caller: &Caller<'_>) -> Result<Took, Wrong> {
    let lost = |_| Wrong { kind: Kind::Other, told: format!("no answer within {} s", LOST_AFTER.as_secs()) };
    tokio::time::timeout(LOST_AFTER, caller.once()).await.map_err(lost)?
}

fn note(due: Due, outcome: Result<Took, Wrong>, shared: &Shared, tally: &mut Tally) {
    shared.done.fetch_add(1, Ordering::Relaxed);
    tally.in_time += u64::from(outcome.is_ok() && shared.counts.load(Ordering::Relaxed));
    match outcome {
        _ if !due.counts => {}
        Ok(took) => tally.answered(took, due.at.elapsed()),
        Err(wrong) => tally.failed(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn shared() -> Shared {
        Shared {
            prepared: Barrier::new(1),
            counts: AtomicBool::new(true),
            over: OnceLock::new(),
            done: AtomicU64::new(0),
        }
    }

    #[test]
    fn latency_counts_from_when_a_call_was_due_and_not_from_when_it_was_sent() {
        let (shared, mut tally) = (shared(), Tally::new(What::Mint).unwrap_or_else(|Failure(why)| panic!("{why}")));
        let due = Due { at: Instant::now().checked_sub(ms(500)).unwrap(), counts: true };
        note(due, Ok(Took::default()), &shared, &mut tally);
        assert!(tally.whole.0.min() >= 499_000, "{}", tally.whole.0.min());
        assert!(tally.phases[0].1.0.max() < 499_000);
    }

    #[test]
    fn what_began_before_the_time_is_throughput_and_no_latency() {
        let (shared, mut tally) = (shared(), Tally::new(What::Mint).unwrap_or_else(|Failure(why)| panic!("{why}")));
        note(Due { at: Instant::now(), counts: false }, Ok(Took::default()), &shared, &mut tally);
        assert_eq!((tally.calls, tally.in_time, tally.whole.0.len()), (0, 1, 0));
        shared.counts.store(false, Ordering::Relaxed);
        note(Due { at: Instant::now(), counts: true }, Ok(Took::default()), &shared, &mut tally);
        assert_eq!((tally.calls, tally.in_time, tally.whole.0.len()), (1, 1, 1));
    }

    #[test]
    fn sheds_errors_and_answers_are_told_apart_and_added_up() {
        let shared = shared();
        let due = Due { at: Instant::now(), counts: true };
        let wrong = |kind: Kind, told: &str| Err(Wrong { kind, told: told.to_owned() });
        let tally = || Tally::new(What::Governed).unwrap_or_else(|Failure(why)| panic!("{why}"));
        let (mut sum, mut other) = (tally(), tally());
        note(due, wrong(Kind::Shed, "busy"), &shared, &mut other);
        note(due, wrong(Kind::Other, "first"), &shared, &mut other);
        note(due, wrong(Kind::Violation, "second"), &shared, &mut other);
        note(due, Ok(Took::default()), &shared, &mut other);
        sum.add(other).unwrap_or_else(|Failure(why)| panic!("{why}"));
        assert_eq!((sum.calls, sum.sheds, sum.errors, sum.violations, sum.in_time), (1, 1, 2, 1, 1));
        assert_eq!(sum.first_error.as_deref(), Some("first"));
        assert_eq!(
            sum.phases.iter().map(|(name, phase)| (*name, phase.0.len())).collect::<Vec<_>>(),
            [("mint", 1), ("call", 1)]
        );
    }

    #[test]
    fn calls_come_due_evenly_and_in_turn() {
        let shared = shared();
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        std::thread::scope(|scope| {
            scope.spawn(|| come_due(1_000.0, &senders, &shared));
            let mut due = Vec::new();
            for number in 0..10 {
                due.push(receivers[number % 2].blocking_recv().unwrap());
            }
            shared.over.set(Instant::now()).unwrap();
            for pair in due.windows(2) {
                assert_eq!(pair[1].at - pair[0].at, ms(1));
            }
        });
    }
}
