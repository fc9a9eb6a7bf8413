//! `caracal up`: settings, keys, store, listeners, services, in this order; then wait; then drain and say how it ended.

use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, environment, runtime};
use crate::logging;
use crate::settings::{Settings, UpFlags};
use crate::system::{Listeners, System};

/// Runs everything until Ctrl-C or SIGTERM. Exit 0 when all work in flight was finished.
pub fn up(flags: &UpFlags, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let settings = Settings::read(flags, &environment)?;
    let runtime = runtime()?;
    let mut logging = logging::start(&settings.logs, settings.traces.as_ref(), runtime.handle().clone());
    let ended = runtime.block_on(async move {
        // Armed before anything is opened, so that no signal finds the process unprepared.
        let mut signals = Signals::listen()?;
        // Ports first: a second start on a busy port says so without having touched the data.
        let listeners = Listeners::bind(&settings).await?;
        let system = System::start(settings, &environment, listeners).await?;
        announce(&system, json)?;
        signals.wait().await;
        if !json {
            eprintln!("caracal: stopping; work in flight is finished first, a second signal ends at once");
        }
        tokio::select! {
            clean = system.stop() => Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            () = signals.wait() => Ok(ExitCode::FAILURE),
        }
    });
    logging.flush_traces();
    // A verification pass may be under way on a thread of its own. It only reads, and nobody waits for its verdict.
    runtime.shutdown_background();
    ended
}

fn announce(system: &System, json: bool) -> Result<(), Failure> {
    let urls = system.urls();
    let token_file = system.admin_token_file().map(|path| path.display().to_string());
    if json {
        let line = serde_json::json!({"ready": true, "urls": urls, "admin_token_file": token_file});
        println!("{line}");
        return Ok(());
    }
    println!("Caracal is ready ({} mode, {}).", system.mode(), readable(system.started_in()));
    println!();
    for (name, url) in urls.pairs() {
        println!("  {name:<12} {url}");
    }
    println!();
    println!("  data         {}", system.data_dir().display());
    if let Some(file) = token_file {
        println!("  admin token  {file}");
    }
    println!();
    println!("Stop with Ctrl-C. See a governed call with: caracal demo");
    Ok(())
}

fn readable(elapsed: Duration) -> String {
    format!("started in {} ms", elapsed.as_millis())
}

struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// Returns at the next Ctrl-C or SIGTERM.
    async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
