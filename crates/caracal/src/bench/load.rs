//! Callers that ask again as soon as they are answered.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use serde_json::Value;

use super::subject::Subject;
use super::{What, usage};
use crate::actors::agent::{Agent, Session};
use crate::actors::client::HttpClient;
use crate::actors::operator::Provisioned;
use crate::commands::Failure;
use crate::system::Urls;

/// Latencies are kept in microseconds, to three digits, up to a minute.
const LONGEST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// How to measure.
pub(super) struct Plan {
    pub(super) what: What,
    pub(super) workers: usize,
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    pub(super) shows_progress: bool,
}

/// Where and as whom to call.
#[derive(Clone, Copy)]
pub(super) struct Calls<'b> {
    pub(super) urls: &'b Urls,
    pub(super) at: &'b Provisioned,
}

/// Latencies of one kind of request, in microseconds.
pub(super) struct Phase(pub(super) Histogram<u64>);

impl Phase {
    fn new() -> Result<Self, Failure> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?))
    }

    fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What was found.
pub(super) struct Measured {
    /// Calls that were answered as they should be.
    pub(super) calls: u64,
    /// Calls that were not.
    pub(super) errors: u64,
    /// What the first of those was told.
    pub(super) first_error: Option<String>,
    pub(super) elapsed: Duration,
    pub(super) mint: Phase,
    /// The call through the Gateway, where there was one.
    pub(super) call: Option<Phase>,
    /// Both together.
    pub(super) whole: Phase,
    pub(super) server_time: Option<Duration>,
    pub(super) client_time: Option<Duration>,
    pub(super) bytes_written: Option<u64>,
    pub(super) resident_mib: Option<f64>,
    pub(super) counted: Counted,
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
    async fn now(client: &HttpClient, urls: &Urls) -> Result<Self, Failure> {
        let answer = client.send(Method::GET, &format!("{}/metrics.json", urls.sts), &[], None).await?;
        let metrics = answer.expect_success("the metrics")?.json();
        let of = |name: &str| {
            let found = metrics.get("sts").and_then(|sts| sts.get(name)).and_then(Value::as_u64);
            found.ok_or_else(|| Failure(format!("the system does not say its `{name}`")))
        };
        Ok(Self {
            commits: of("store_commits")?,
            changes: of("store_changes")?,
            round_trips: of("store_round_trips")?,
            signatures: of("signatures")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            commits: self.commits - before.commits,
            changes: self.changes - before.changes,
            round_trips: self.round_trips - before.round_trips,
            signatures: self.signatures - before.signatures,
        }
    }
}

/// What callers and the one who watches them have in common.
struct Shared {
    /// Whether what is done now counts.
    counts: AtomicBool,
    over: AtomicBool,
    done: AtomicU64,
}

/// What one caller found.
struct Part {
    calls: u64,
    errors: u64,
    first_error: Option<String>,
    mint: Phase,
    call: Phase,
    whole: Phase,
}

/// Lets the callers call for the time planned.
pub(super) fn measure(plan: &Plan, calls: &Calls<'_>, subject: &Subject) -> Result<Measured, Failure> {
    let shared = Shared { counts: AtomicBool::new(false), over: AtomicBool::new(false), done: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers).map(|_| scope.spawn(|| caller(plan.what, calls, &shared))).collect();
        let watched = watch(plan, calls, subject, &shared);
        shared.over.store(true, Ordering::Relaxed);
        let mut parts = Vec::with_capacity(workers.len());
        for worker in workers {
            parts.push(worker.join().map_err(|_| Failure("a caller broke down".to_owned()))??);
        }
        collect(plan.what, watched?, parts)
    })
}

/// What is known of the system over the time that counts.
struct Watched {
    elapsed: Duration,
    server_time: Option<Duration>,
    client_time: Option<Duration>,
    bytes_written: Option<u64>,
    resident_mib: Option<f64>,
    counted: Counted,
}

fn watch(plan: &Plan, calls: &Calls<'_>, subject: &Subject, shared: &Shared) -> Result<Watched, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = HttpClient::new();
    let counted = || runtime.block_on(Counted::now(&client, calls.urls));
    let (server, own) = (subject.pid(), std::process::id());
    let used = || (usage::processor_time(server), usage::processor_time(own), usage::bytes_written(server));
    wait(plan, "warming up", plan.warm_up, shared);
    let (before, used_before, begun) = (counted()?, used(), Instant::now());
    shared.counts.store(true, Ordering::Relaxed);
    wait(plan, "measuring", plan.measured, shared);
    shared.counts.store(false, Ordering::Relaxed);
    let (elapsed, used_after, after) = (begun.elapsed(), used(), counted()?);
    let between = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
    Ok(Watched {
        elapsed,
        server_time: between(used_before.0, used_after.0),
        client_time: between(used_before.1, used_after.1),
        bytes_written: used_after.2.zip(used_before.2).map(|(after, before)| after.saturating_sub(before)),
        resident_mib: usage::resident_mib(server),
        counted: after.since(before),
    })
}

/// Lets time pass, and shows where somebody looks.
fn wait(plan: &Plan, doing: &str, time: Duration, shared: &Shared) {
    let begun = Instant::now();
    let shows = plan.shows_progress && std::io::stderr().is_terminal();
    while begun.elapsed() < time {
        std::thread::sleep(Duration::from_millis(100).min(time.saturating_sub(begun.elapsed())));
        if shows {
            let done = shared.done.load(Ordering::Relaxed);
            eprint!("\r{doing}: {:>4.1} of {} s, {done} calls ", begun.elapsed().as_secs_f64(), time.as_secs());
            let _ = std::io::stderr().flush();
        }
    }
    if shows {
        eprint!("\r\x1b[2K");
    }
}

/// One caller, on a thread of its own, with connections of its own and a session of its own.
fn caller(what: What, calls: &Calls<'_>, shared: &Shared) -> Result<Part, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = HttpClient::new();
        let agent = Agent::bootstrap(&client, calls.urls, calls.at).await?;
        let lead = agent.start(None).await?;
        let mut session = agent.start(Some(&lead)).await?;
        let lent = agent.delegate(&lead, &session, &["notes:read"], 1).await?.expect_success("the delegation")?;
        session.edge = Some(lent.text("delegation_edge_id")?);
        let mut part = Part {
            calls: 0,
            errors: 0,
            first_error: None,
            mint: Phase::new()?,
            call: Phase::new()?,
            whole: Phase::new()?,
        };
        while !shared.over.load(Ordering::Relaxed) {
            let counted = shared.counts.load(Ordering::Relaxed);
            let outcome = once(what, &agent, &session).await;
            shared.done.fetch_add(1, Ordering::Relaxed);
            if !counted {
                continue;
            }
            match outcome {
                Ok((mint, call)) => {
                    part.calls += 1;
                    part.mint.record(mint);
                    part.call.record(call);
                    part.whole.record(mint + call);
                }
                Err(Failure(told)) => {
                    part.errors += 1;
                    part.first_error.get_or_insert(told);
                }
            }
        }
        Ok(part)
    })
}

/// One call, and how long its parts took.
async fn once(what: What, agent: &Agent<'_>, session: &Session) -> Result<(Duration, Duration), Failure> {
    let begun = Instant::now();
    let minted = agent.mint(session, "notes:read").await?.expect_success("the mint")?;
    let mandate = minted.text("access_token")?;
    let minted = begun.elapsed();
    if what == What::Mint {
        return Ok((minted, Duration::ZERO));
    }
    let begun = Instant::now();
    let answer = agent.call(&mandate, Method::GET, "/notes").await?;
    if answer.status != StatusCode::OK {
        return Err(Failure(format!("the call was answered {} {}", answer.status, answer.reason())));
    }
    Ok((minted, begun.elapsed()))
}

fn collect(what: What, watched: Watched, parts: Vec<Part>) -> Result<Measured, Failure> {
    let (mut mint, mut call, mut whole) = (Phase::new()?, Phase::new()?, Phase::new()?);
    let (mut calls, mut errors, mut first_error) = (0, 0, None);
    for part in parts {
        calls += part.calls;
        errors += part.errors;
        first_error = first_error.or(part.first_error);
        mint.0.add(part.mint.0)?;
        call.0.add(part.call.0)?;
        whole.0.add(part.whole.0)?;
    }
    if calls == 0 {
        let why = first_error.unwrap_or_else(|| "none ended in time".to_owned());
        return Err(Failure(format!("no call succeeded: {why}")));
    }
    let Watched { elapsed, server_time, client_time, bytes_written, resident_mib, counted } = watched;
    let call = (what == What::Governed).then_some(call);
    Ok(Measured {
        calls,
        errors,
        first_error,
        elapsed,
        mint,
        call,
        whole,
        server_time,
        client_time,
        bytes_written,
        resident_mib,
        counted,
    })
}
