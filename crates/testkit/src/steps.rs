//! A crash table: what a test does runs in a process of its own, which is killed at every step that it takes, one run after
//! the other.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::Place;

const STEP: &str = "CARACAL_TEST_KILLED_AT";
const DIRECTORY: &str = "CARACAL_TEST_KILLED_IN";
const DATABASE: &str = "CARACAL_TEST_KILLED_DATABASE";
/// What says that the process has come to its step, and waits.
const REACHED: &str = "killed at: ";

/// The steps of a process that is to be killed at one of them.
pub struct Steps {
    at: u32,
    taken: AtomicU32,
    counts: AtomicBool,
}

impl Steps {
    /// Those of this process, if [`kill_at`] has started it.
    pub fn of_this_process() -> Option<Arc<Self>> {
        let at = std::env::var(STEP).ok()?.parse().ok()?;
        Some(Arc::new(Self { at, taken: AtomicU32::new(0), counts: AtomicBool::new(false) }))
    }

    /// Where the store of the test lies: its directory, and its database's address if it has one.
    pub fn place() -> (std::path::PathBuf, Option<String>) {
        (std::env::var_os(DIRECTORY).unwrap_or_default().into(), std::env::var(DATABASE).ok())
    }

    /// From here on steps count: what came before was only to begin.
    pub fn begin(&self) {
        self.counts.store(true, Ordering::SeqCst);
    }

    /// Takes a step; never comes back from the one at which the process is killed.
    pub fn take(&self, name: &str) {
        if !self.counts.load(Ordering::SeqCst) || self.taken.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return;
        }
        // Whatever the harness does with output, this line is out, and in one piece.
        let _ = std::io::stderr().write_all(format!("\n{REACHED}{name}\n").as_bytes());
        loop {
            std::thread::park();
        }
    }
}

/// Runs the test `name` of this very binary in a process of its own over the store at `place`, and kills it with SIGKILL at
/// its step number `step`, whose name is the answer. None when it came to its end before.
#[allow(clippy::panic, reason = "a test fails by panicking")]
pub fn kill_at(name: &str, step: u32, place: &Place) -> Option<String> {
    let spawned = std::env::current_exe().and_then(|binary| {
        let mut command = Command::new(binary);
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(STEP, step.to_string());
        command.env(DIRECTORY, place.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(url) = place.database_url() {
            command.env(DATABASE, url);
        }
        command.spawn()
    });
    let mut child = spawned.unwrap_or_else(|error| panic!("{name} could not be started: {error}"));
    let mut said = Vec::new();
    for line in child.stderr.take().into_iter().flat_map(|lines| BufReader::new(lines).lines().map_while(Result::ok)) {
        if let Some(reached) = line.strip_prefix(REACHED) {
            let killed = child.kill().and_then(|()| child.wait());
            killed.unwrap_or_else(|error| panic!("{name} could not be killed: {error}"));
            return Some(reached.to_owned());
        }
        said.push(line);
    }
    match child.wait() {
        Ok(status) if status.success() => None,
        ended => panic!("{name}, in a process of its own, ended with {ended:?}:\n{}", said.join("\n")),
    }
}
