//! `caracal demo`: a governed call end to end, told step by step and checked at each.
//!
//! Everything is real: the system runs on free ports over a temporary data directory, the operator speaks to the Admin
//! API and the agent to STS, Coordinator and Gateway over HTTP, the upstream is a server that wants its own key. A step
//! that does not go as told makes the exit code 1.
#![allow(clippy::print_stdout, reason = "this is the command's own output")]

mod report;
mod story;
mod tampering;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Instant;

use crate::commands::Failure;
use crate::settings::{Environment, Settings, UpFlags};
use crate::system::{Listeners, System};
use report::{Report, Step};

/// Runs the demonstration.
#[allow(clippy::disallowed_methods, reason = "how long a demonstration took is no fact of authority")]
pub async fn run(json: bool) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let mut report = Report::new(json);
    report
        .say("Caracal decides what an agent may do before it does it, proves what it did, and takes it back at once.");
    report.say("This runs the whole system in a temporary place and lets a real agent call a real API through it.");

    let home = tempfile::Builder::new().prefix("caracal-demo-").tempdir()?;
    let address = IpAddr::from([127, 0, 0, 1]);
    let flags = UpFlags { data_dir: Some(home.path().join("data")), bind: address, port_offset: 0, roles: None };
    // A demonstration must not depend on, or reach into, whatever the caller's environment is set up for.
    let environment = Environment::default();
    let settings = Settings::read(&flags, &environment)?;
    let system = System::start(settings, &environment, Listeners::on_free_ports(address).await?).await?;
    let mut step = Step::new("start", "Start everything in one process, on free ports and a fresh store");
    step.see(format!("five services are ready after {} ms", system.started_in().as_millis()), true);
    report.add(step);

    let told = story::tell(&system, &mut report).await;
    let data_dir = system.data_dir().to_owned();
    let drained = system.stop().await;
    let cast = told?;
    tampering::show(&data_dir, home.path(), &environment, &cast, drained, &mut report)?;
    let ok = report.finish(begun.elapsed());
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
