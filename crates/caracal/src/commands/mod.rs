//! One file per command. Results go to standard output, progress and failures to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line's own output")]

mod backup;
mod config;
mod explain;
mod export;
mod migrate;
mod moving;
mod place;
mod progress;
mod prove;
mod replay;
mod restore;
mod secrets;
mod status;
mod streams;
mod up;
mod verify;
mod version;

pub use backup::{BackupFlags, backup};
pub use config::check_config;
pub use explain::{ExplainFlags, explain};
pub use export::{ExportFlags, export};
pub use migrate::migrate;
pub use moving::move_to_postgres;
pub use prove::{ProveFlags, VerifyFileFlags, checkpoint, log_key, prove, verify_file};
pub use replay::{ReplayFlags, replay};
pub use restore::{RestoreFlags, restore};
pub use secrets::rewrap;
pub use status::status;
pub use streams::{list_dead_letters, retry_dead_letters, show_streams};
pub use up::up;
pub(crate) use verify::verify_marked;
#[cfg(test)]
pub(crate) use verify::verify_with_key;
pub use verify::{verify, verify_data_dir};
pub use version::{VERSION, version};

use std::process::ExitCode;

use caracal_http::redact;

use crate::settings::Environment;

/// A command that did not do what it is for; the text says what happened, why, and what to do next.
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let text = next.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = next.source();
        }
        Self(message)
    }
}

/// Prints a text that was asked for.
pub fn say(text: &str) {
    println!("{}", text.trim_end());
}

/// Prints a failure on standard error, without anything that looks like a secret.
pub fn say_failure(message: &str) {
    eprintln!("caracal: {}", redact::text(message.trim_end()));
}

/// The process's environment. What is odd about it is said on standard error, and stops nothing.
fn environment() -> Environment {
    let environment = Environment::of_process();
    for warning in environment.warnings() {
        eprintln!("caracal: warning: {}", redact::text(warning));
    }
    environment
}

/// Runs the demonstration.
pub fn demo(json: bool) -> Result<ExitCode, Failure> {
    runtime()?.block_on(crate::demo::run(json))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
