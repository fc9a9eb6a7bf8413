//! `caracal bench`: how long a governed call takes on this machine, what it costs, and what of that could not be saved.
//!
//! The system under test is a process of its own: `caracal up` over a fresh data directory, or over servers that are named,
//! with the settings of production; only limits are raised that exist to stop what a benchmark does. Or it is one that runs
//! already. The callers and the API behind the Gateway run here, so that the processor time of the two sides can be told
//! apart. In a closed loop each caller waits for an answer before it asks again, which shows what a call costs; in an open
//! loop calls come due however long the answers take, which shows what callers see at a given load; and beyond the capacity
//! it is seen what the system does with more than it can do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's own output")]
#![allow(clippy::disallowed_methods, reason = "measuring is what this is for, and no fact of authority")]

mod beside;
mod compare;
mod flags;
mod floor;
mod load;
mod overload;
mod parts;
mod plot;
mod progress;
mod proxy;
mod report;
mod subject;
mod unit;
mod usage;

pub use beside::Beside;
pub use flags::BenchFlags;
pub use unit::What;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::actors::client::HttpClient;
use crate::actors::operator::{Operator, Provisioned};
use crate::actors::upstream::Upstream;
use crate::commands::Failure;
use beside::Crowd;
use caracal_crypto::chance;
use caracal_crypto::hmac::HmacKey;
use floor::Floor;
use load::{Measured, Pace, Plan};
use parts::Parts;
use proxy::Proxy;
use report::Report;
use subject::Subject;
use unit::Calls;

/// What the API behind the Gateway wants to see. Made up, like the API.
const UPSTREAM_KEY: &str = "nk_bench_7d1f4c02a6e93b58";
/// How long after the end what came due before it may still be sent, where it was not asked for too much on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds a system or starts one, measures it, and says what was found. Exit 0 only if every call was answered as it should
/// be; of an overloaded system it may also be refused as it should be.
pub fn run(flags: &BenchFlags) -> Result<ExitCode, Failure> {
    flags.check()?;
    // Before anything is measured: a file that is not there should not cost a run.
    let earlier = match &flags.compare {
        Some(file) => Some(compare::read(file)?),
        None => None,
    };
    if let Some(earlier) = &earlier {
        compare::same_unit(earlier, flags.what.name())?;
    }
    let home = tempfile::Builder::new().prefix("caracal-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if flags.parts {
        return run_parts(flags, home.path(), &runtime);
    }
    let floor = floor::measure(&runtime, home.path(), Duration::from_secs_f64(flags.seconds))?;
    if let Some(beside) = flags.beside {
        return run_beside(beside, flags, home.path(), &runtime, &floor);
    }
    let subject = Subject::of(flags, home.path())?;
    let (upstream, provisioned) = runtime.block_on(provision(flags, &subject))?;
    let calls = Calls {
        urls: &subject.urls,
        at: &provisioned,
        admin_token: &subject.admin_token,
        proxy: None,
        gateway_key: None,
    };
    let measured = measure(flags, &calls, &subject);
    drop(upstream);
    if subject.stays() {
        clear_away(&runtime, &subject, &provisioned);
    }
    let (measured, overload) = measured?;
    let report =
        Report { flags, engine: subject.engine, measured: &measured, overload: overload.as_ref(), floor: &floor };
    draw(flags, || report.svg())?;
    say(&report, flags.json, earlier.as_ref())?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One system, measured again and again while it fills.
fn run_beside(
    beside: Beside,
    flags: &BenchFlags,
    home: &Path,
    runtime: &Runtime,
    floor: &Floor,
) -> Result<ExitCode, Failure> {
    let ledger_key = subject::key()?;
    let mut subject = Subject::embedded(home, Some(&ledger_key))?;
    let (_upstream, provisioned) = runtime.block_on(provision(flags, &subject))?;
    let mut crowd = Crowd::new(beside, flags, home, runtime, &provisioned, ledger_key);
    for number in &flags.numbers {
        subject = crowd.grow(*number, subject)?;
        let calls = Calls {
            urls: &subject.urls,
            at: &provisioned,
            admin_token: &subject.admin_token,
            proxy: None,
            gateway_key: None,
        };
        let (measured, _) = measure(flags, &calls, &subject)?;
        crowd.note(measured);
    }
    draw(flags, || crowd.svg(flags.what.title()))?;
    if flags.json {
        let report = |measured: &Measured| Report { flags, engine: "embedded", measured, overload: None, floor }.json();
        println!("{}", serde_json::to_string(&crowd.json(report))?);
    } else {
        println!("{}", crowd.text(flags.what.title()));
    }
    Ok(if crowd.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One system, and by turns what a governed call is made of.
fn run_parts(flags: &BenchFlags, home: &Path, runtime: &Runtime) -> Result<ExitCode, Failure> {
    let subject = Subject::of(flags, home)?;
    let (upstream, provisioned) = runtime.block_on(provision(flags, &subject))?;
    let proxy = Proxy::start(&upstream.url)?;
    let admin_token = &subject.admin_token;
    let gateway_key = subject.gateway_key.as_deref().map(HmacKey::from_hex).transpose()?;
    let (proxied, gateway_key) = (Some(proxy.url.as_str()), gateway_key.as_ref());
    let calls = Calls { urls: &subject.urls, at: &provisioned, admin_token, proxy: proxied, gateway_key };
    let parts = Parts::measure(flags, home, runtime, &calls, &subject, &proxy.threads)?;
    if flags.json {
        println!("{}", serde_json::to_string(&parts.json())?);
    } else {
        println!("{}", parts.text());
    }
    Ok(ExitCode::SUCCESS)
}

fn draw(flags: &BenchFlags, picture: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(file) = &flags.plot else { return Ok(()) };
    std::fs::write(file, picture()).map_err(|error| Failure(format!("can't write `{}`: {error}", file.display())))
}

/// A zone of its own, and an API behind the Gateway.
async fn provision(flags: &BenchFlags, subject: &Subject) -> Result<(Upstream, Provisioned), Failure> {
    let client = HttpClient::new();
    let on = if flags.target.is_some() { flags.upstream_on } else { IpAddr::from([127, 0, 0, 1]) };
    let upstream = Upstream::start_on(on, UPSTREAM_KEY, false).await?;
    let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
    let [a, b, c, d] = chance::random_bytes()?;
    let zone = format!("Bench {:08x}", u32::from_be_bytes([a, b, c, d]));
    let provisioned = operator.provision(&zone, &upstream, UPSTREAM_KEY).await?;
    Ok((upstream, provisioned))
}

/// In a system that goes on, the zone ends with the benchmark. Its evidence stays, like any other.
fn clear_away(runtime: &Runtime, subject: &Subject, provisioned: &Provisioned) {
    let client = HttpClient::new();
    let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
    let path = format!("/v1/zones/{}", provisioned.zone);
    let deleted = runtime.block_on(operator.call(Method::DELETE, &path, None));
    if let Err(Failure(why)) = deleted.and_then(|answer| answer.expect_success("deleting the zone of the benchmark")) {
        eprintln!("caracal: the zone {} stays: {why}", provisioned.zone);
    }
}

fn measure(
    flags: &BenchFlags,
    calls: &Calls<'_>,
    subject: &Subject,
) -> Result<(Measured, Option<overload::Overload>), Failure> {
    let plan = |pace: Pace, doing: &'static str| Plan {
        what: flags.what,
        workers: flags.workers,
        warm_up: Duration::from_secs_f64(flags.warm_up),
        measured: Duration::from_secs_f64(flags.seconds),
        pace,
        replays: false,
        server: Vec::new(),
        doing,
        shows_progress: !flags.json,
    };
    let pace = match flags.rate {
        Some(rate) => Pace::Open { rate, in_flight: flags.in_flight, patience: PATIENCE },
        None => Pace::Closed,
    };
    let measured = load::measure(&plan(pace, "measuring"), calls, subject)?;
    if measured.tally.calls == 0 || measured.tally.in_time == 0 {
        let why = measured.tally.first_error.unwrap_or_else(|| "none was answered in time".to_owned());
        return Err(Failure(format!("no call succeeded: {why}")));
    }
    let overload = match flags.overload {
        true => Some(overload::measure(plan, flags.in_flight, calls, subject, &measured)?),
        false => None,
    };
    Ok((measured, overload))
}

fn say(report: &Report<'_>, json: bool, earlier: Option<&Value>) -> Result<(), Failure> {
    let mut found = report.json();
    if json {
        if let Some(earlier) = earlier {
            let compared = compare::json(earlier, &found);
            found["compared"] = compared;
        }
        println!("{}", serde_json::to_string(&found)?);
        return Ok(());
    }
    println!("{}", report.text());
    if let Some(earlier) = earlier {
        println!("\n{}", compare::text(earlier, &found));
    }
    Ok(())
}
