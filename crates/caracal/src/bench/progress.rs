//! A bar for whoever waits at a terminal; nothing for anybody else.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Signs of a full bar.
const WIDTH: usize = 30;

pub(super) struct Progress {
    shows: bool,
}

impl Progress {
    pub(super) fn new(wanted: bool) -> Self {
        Self { shows: wanted && std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, doing: &str, passed: Duration, of: Duration, done: &AtomicU64) {
        if self.shows {
            eprint!("\r\x1b[2K{}", line(doing, passed, of, done.load(Ordering::Relaxed)));
            let _ = std::io::stderr().flush();
        }
    }

    /// Of what is counted and not timed.
    pub(super) fn count(&mut self, doing: &str, done: u64, of: u64) {
        if self.shows {
            let line = format!("[{}] {doing}, {done} of {of}", bar(done.into(), of.into()));
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        }
    }

    pub(super) fn end(&mut self) {
        if self.shows {
            eprint!("\r\x1b[2K");
        }
    }
}

fn line(doing: &str, passed: Duration, of: Duration, done: u64) -> String {
    let passed = passed.min(of);
    let bar = bar(passed.as_millis(), of.as_millis());
    format!("[{bar}] {doing}, {:.0} of {:.0} s, {done} calls", passed.as_secs_f64(), of.as_secs_f64())
}

fn bar(done: u128, of: u128) -> String {
    let full = WIDTH as u128 * done.min(of) / of.max(1);
    let full = usize::try_from(full).unwrap_or(WIDTH).min(WIDTH);
    "#".repeat(full) + &"-".repeat(WIDTH - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_the_time_and_no_further() {
        let at = |ms: u64| line("measuring", Duration::from_millis(ms), Duration::from_secs(2), 7);
        assert_eq!(at(0), format!("[{}] measuring, 0 of 2 s, 7 calls", "-".repeat(30)));
        assert_eq!(at(1_000), format!("[{}{}] measuring, 1 of 2 s, 7 calls", "#".repeat(15), "-".repeat(15)));
        assert_eq!(at(9_000), format!("[{}] measuring, 2 of 2 s, 7 calls", "#".repeat(30)));
    }
}
