//! `caracal bench`: how long a governed call takes on this machine, what it costs, and what of that could not be saved.
//!
//! The system under test is a process of its own, `caracal up` over a fresh data directory with the settings of production;
//! only the limit on mints is raised, because it exists to stop what a benchmark does. The callers and the API behind the
//! Gateway run here, so that the processor time of the two sides can be told apart. Each caller waits for an answer before
//! it asks again, which shows what a call costs, and not how the system behaves when more is asked of it than it can do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's own output")]
#![allow(clippy::disallowed_methods, reason = "measuring is what this is for, and no fact of authority")]

mod floor;
mod load;
mod report;
mod subject;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use crate::actors::client::HttpClient;
use crate::actors::operator::Operator;
use crate::actors::upstream::Upstream;
use crate::commands::Failure;
use load::{Calls, Plan};
use report::Report;
use subject::Subject;

/// What the API behind the Gateway wants to see. Made up, like the API.
const UPSTREAM_KEY: &str = "nk_bench_7d1f4c02a6e93b58";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A mandate, then a call through the Gateway with it.
    Governed,
    /// The mandate alone.
    Mint,
}

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub struct BenchFlags {
    /// The call.
    pub what: What,
    /// Callers that ask at the same time, each waiting for its answer.
    pub workers: usize,
    /// How long is measured.
    pub seconds: u64,
    /// How long is called before that.
    pub warm_up: u64,
    /// One line of JSON instead of text.
    pub json: bool,
}

/// Starts a system, measures it, and says what was found. Exit 0 only if every call was answered as it should be.
pub fn run(flags: &BenchFlags) -> Result<ExitCode, Failure> {
    if flags.workers == 0 || flags.seconds == 0 {
        return Err(Failure("a benchmark needs at least one caller and one second".to_owned()));
    }
    let home = tempfile::Builder::new().prefix("caracal-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let floor = floor::measure(&runtime, home.path())?;
    let subject = Subject::start(home.path())?;
    let (upstream, provisioned) = runtime.block_on(async {
        let client = HttpClient::new();
        let upstream = Upstream::start(UPSTREAM_KEY, false).await?;
        let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
        let provisioned = operator.provision("Bench", &upstream, UPSTREAM_KEY).await?;
        Ok::<_, Failure>((upstream, provisioned))
    })?;
    let plan = Plan {
        what: flags.what,
        workers: flags.workers,
        warm_up: Duration::from_secs(flags.warm_up),
        measured: Duration::from_secs(flags.seconds),
        shows_progress: !flags.json,
    };
    let calls = Calls { urls: &subject.urls, at: &provisioned };
    let measured = load::measure(&plan, &calls, &subject)?;
    drop(upstream);
    let report = Report::of(flags, &measured, &floor);
    println!("{}", if flags.json { report.json()? } else { report.text() });
    subject.stop()?;
    Ok(if measured.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
