//! What a benchmark can be told on the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::beside::Beside;
use super::parts::PARTS;
use super::unit::What;
use crate::commands::Failure;

/// What is lent to a caller ends after ten minutes, so a run has to be over by then.
const LONGEST_RUN_SECONDS: f64 = 500.0;
/// What is shorter says nothing.
const SHORTEST_RUN_SECONDS: f64 = 0.1;

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct BenchFlags {
    /// What is called.
    #[arg(long, value_enum, default_value_t = What::Governed)]
    pub what: What,
    /// Callers at the same time, each waiting for its answer before it asks again; with --rate, threads that send.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub workers: usize,
    /// Seconds that are measured; may be a fraction.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of calls before that.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub warm_up: f64,
    /// Calls a second that arrive whether or not others were answered. Latency counts from when a call was due.
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Calls under way at most with --rate and --overload; what finds no place waits, and its wait counts.
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub in_flight: usize,
    /// Measure the capacity, then offer once, twice and five times as much, and see how long recovery takes.
    #[arg(long, conflicts_with = "rate")]
    pub overload: bool,
    /// What a governed call costs the processor beside what its parts cost by themselves, in turns: a proxy that decides
    /// nothing, a verification, an exchange, an event. --seconds is for each of them.
    #[arg(long, conflicts_with_all = ["what", "rate", "overload", "target", "beside", "plot", "compare", "in_flight"])]
    pub parts: bool,
    /// Measure the running system at this address instead of starting one. Its bootstrap admin token is read from
    /// CARACAL_ADMIN_TOKEN or the file CARACAL_ADMIN_TOKEN_FILE.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["postgres", "redis"])]
    pub target: Option<IpAddr>,
    /// The port offset that system was started with.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "target")]
    pub port_offset: u16,
    /// The process of that system, if it runs here: its processor time and memory are then known.
    #[arg(long, value_name = "PID", requires = "target")]
    pub server_pid: Option<u32>,
    /// Where the API behind the Gateway listens: an address that the Gateway can reach.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", requires = "target")]
    pub upstream_on: IpAddr,
    /// Let the system it starts use this database, which must be one that nobody needs: its schema is made, and what is
    /// written stays. A password on the command line is seen by others; use the variable.
    #[arg(long, value_name = "URL", requires = "redis", env = "CARACAL_BENCH_POSTGRES_URL", hide_env_values = true)]
    pub postgres: Option<String>,
    /// The Redis beside that database.
    #[arg(long, value_name = "URL", requires = "postgres", env = "CARACAL_BENCH_REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// Measure a system in which more and more of these stand, once for each of --numbers.
    #[arg(long, value_enum, requires = "numbers", conflicts_with_all = ["overload", "target", "postgres", "redis", "compare"])]
    pub beside: Option<Beside>,
    /// How many stand there, for example 1000,30000,1000000.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', requires = "beside")]
    pub numbers: Vec<u64>,
    /// Draw the latencies into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Compare with what an earlier run printed with --json.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// One line of JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

impl BenchFlags {
    /// What the parser can't see.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let refused = |why: &str| Err(Failure(why.to_owned()));
        if self.workers == 0 || self.in_flight == 0 {
            return refused("a benchmark needs at least one caller, and one call under way");
        }
        if !(self.seconds >= SHORTEST_RUN_SECONDS && self.warm_up >= 0.0) {
            return refused("a benchmark takes at least a tenth of a second, and no less than nothing before it");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1_000_000.0)) {
            return refused("--rate is calls a second: more than 0, and a million at most");
        }
        if let Some(beside) = self.beside {
            beside.check(&self.numbers)?;
        }
        let runs = if self.overload {
            4.0
        } else if self.parts {
            PARTS
        } else {
            1.0
        };
        if (self.seconds + self.warm_up) * runs > LONGEST_RUN_SECONDS {
            return refused(
                "a run may take 500 seconds in all, because what is lent to its callers ends after ten minutes",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: BenchFlags,
    }

    fn parse(arguments: &[&str]) -> Result<BenchFlags, String> {
        let line = std::iter::once("bench").chain(arguments.iter().copied());
        let flags = Line::try_parse_from(line).map_err(|error| error.to_string())?.flags;
        flags.check().map_err(|Failure(why)| why)?;
        Ok(flags)
    }

    #[test]
    fn without_flags_governed_calls_are_measured_in_a_closed_loop() {
        let flags = parse(&[]).unwrap();
        assert_eq!((flags.what, flags.rate, flags.overload), (What::Governed, None, false));
        assert_eq!((flags.target, flags.postgres, flags.in_flight), (None, None, 400));
    }

    #[test]
    fn every_unit_has_its_name() {
        for what in What::value_variants() {
            assert_eq!(parse(&["--what", what.name()]).unwrap().what, *what);
        }
        assert!(parse(&["--what", "everything"]).unwrap_err().contains("possible values"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, why) in [
            (&["--workers", "0"][..], "at least one caller"),
            (&["--seconds", "0"], "tenth of a second"),
            (&["--seconds", "NaN"], "tenth of a second"),
            (&["--warm-up", "NaN"], "tenth of a second"),
            (&["--in-flight", "0"], "one call under way"),
            (&["--rate", "0"], "--rate is"),
            (&["--rate", "NaN"], "--rate is"),
            (&["--rate", "-3"], "unexpected argument"),
            (&["--rate", "1e9"], "--rate is"),
            (&["--rate", "10", "--overload"], "cannot be used with"),
            (&["--seconds", "499", "--warm-up", "2"], "500 seconds"),
            (&["--parts", "--overload"], "cannot be used with"),
            (&["--parts", "--what", "mint"], "cannot be used with"),
            (&["--parts", "--seconds", "99", "--warm-up", "2"], "500 seconds"),
            (&["--overload", "--seconds", "124", "--warm-up", "2"], "500 seconds"),
            (&["--seconds", "inf"], "500 seconds"),
            (&["--beside", "sessions"], "--numbers"),
            (&["--numbers", "7"], "--beside"),
            (&["--beside", "grants", "--numbers", "10,9"], "larger than the one before"),
            (&["--beside", "grants", "--numbers", "9", "--overload"], "cannot be used with"),
            (&["--target", "here"], "invalid value"),
            (&["--server-pid", "1"], "--target"),
            (&["--postgres", "postgres://x"], "--redis"),
            (&["--target", "::1", "--postgres", "postgres://x", "--redis", "redis://x"], "cannot be used with"),
        ] {
            let said = parse(arguments).unwrap_err();
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }
}
