//! What is said at the end: a table for people, one line for machines.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::floor::Floor;
use super::load::{Measured, Phase};
use super::{BenchFlags, What};
use crate::commands::{Failure, VERSION};

/// The findings beside the floor they stand on.
pub(super) struct Report<'r> {
    flags: &'r BenchFlags,
    measured: &'r Measured,
    floor: &'r Floor,
}

impl<'r> Report<'r> {
    pub(super) fn of(flags: &'r BenchFlags, measured: &'r Measured, floor: &'r Floor) -> Self {
        Self { flags, measured, floor }
    }

    fn name(&self) -> &'static str {
        match self.flags.what {
            What::Governed => "governed",
            What::Mint => "mint",
        }
    }

    fn per_second(&self) -> f64 {
        ratio(self.measured.calls, 1) / self.measured.elapsed.as_secs_f64()
    }

    fn floor_us(&self) -> f64 {
        match self.flags.what {
            What::Governed => self.floor.of_a_governed_call_us(),
            What::Mint => self.floor.of_a_mint_us(),
        }
    }

    fn per_call(&self, count: u64) -> f64 {
        ratio(count, self.measured.calls)
    }

    fn us_per_call(&self, time: Option<Duration>) -> Option<f64> {
        Some(time?.as_secs_f64() * 1e6 / ratio(self.measured.calls, 1))
    }

    /// How many times the floor one caller waits at the median.
    fn ratio_to_floor(&self) -> f64 {
        quantile_ms(&self.measured.whole, 0.5) * 1_000.0 / self.floor_us()
    }

    /// One line.
    pub(super) fn json(&self) -> Result<String, Failure> {
        let Self { flags, measured, floor } = self;
        let counted = measured.counted;
        let phase = |phase: &Phase| {
            json!({
                "p50_ms": quantile_ms(phase, 0.5), "p90_ms": quantile_ms(phase, 0.9),
                "p99_ms": quantile_ms(phase, 0.99), "max_ms": quantile_ms(phase, 1.0)
            })
        };
        let mut whole = phase(&measured.whole);
        let more = json!({
            "calls": measured.calls,
            "per_second": self.per_second(),
            "server_cpu_us_per_call": self.us_per_call(measured.server_time),
            "client_cpu_us_per_call": self.us_per_call(measured.client_time),
            "commits_per_call": self.per_call(counted.commits),
            "changes_per_call": self.per_call(counted.changes),
            "round_trips_per_call": self.per_call(counted.round_trips),
            "signatures_per_call": self.per_call(counted.signatures),
            "bytes_written_per_call": measured.bytes_written.map(|bytes| self.per_call(bytes)),
        });
        if let (Some(whole), Value::Object(more)) = (whole.as_object_mut(), more) {
            whole.extend(more);
        }
        let mut line = json!({
            "version": VERSION,
            "what": self.name(),
            "workers": flags.workers, "seconds": flags.seconds, "warm_up_seconds": flags.warm_up,
            "mint": phase(&measured.mint),
            "call": measured.call.as_ref().map(phase),
            "floor": {
                "sign_us": floor.sign_us, "verify_us": floor.verify_us,
                "decision_us": floor.decision_ns / 1_000.0,
                "decision_of_5000_grants_us": floor.decision_of_many_ns / 1_000.0,
                "commit_us": floor.commit_us, "call_us": self.floor_us()
            },
            "ratio_to_floor": self.ratio_to_floor(),
            "rss_mib": measured.resident_mib,
            "errors": measured.errors,
            "first_error": measured.first_error,
        });
        line[self.name()] = whole;
        Ok(serde_json::to_string(&line)?)
    }

    /// A table.
    pub(super) fn text(&self) -> String {
        let Self { flags, measured, floor } = self;
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what}");
        };
        let unit = match flags.what {
            What::Governed => "governed calls: a mandate, then a call through the Gateway",
            What::Mint => "mandates",
        };
        line(format_args!(
            "{} {unit}; {} callers, {:.1} s\n",
            measured.calls,
            flags.workers,
            measured.elapsed.as_secs_f64()
        ));
        line(format_args!("{:<10} {:>10} {:>10} {:>10} {:>10}", "ms", "p50", "p90", "p99", "max"));
        let phases =
            [("mint", Some(&measured.mint)), ("call", measured.call.as_ref()), ("together", Some(&measured.whole))];
        for (name, phase) in phases {
            let Some(phase) = phase else { continue };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|quantile| quantile_ms(phase, quantile));
            line(format_args!("{name:<10} {p50:>10.2} {p90:>10.2} {p99:>10.2} {max:>10.2}"));
        }
        line(format_args!("\n{:<26} {:>10.0}", "per second", self.per_second()));
        for (name, us) in [("server", measured.server_time), ("callers and upstream", measured.client_time)] {
            if let Some(us) = self.us_per_call(us) {
                line(format_args!("{:<26} {us:>10.0} µs of processor time a call", name));
            }
        }
        let counted = measured.counted;
        for (name, count) in [
            ("signatures", counted.signatures),
            ("changes", counted.changes),
            ("commits", counted.commits),
            ("database round trips", counted.round_trips),
        ] {
            line(format_args!("{name:<26} {:>10.2} a call", self.per_call(count)));
        }
        if let Some(bytes) = measured.bytes_written {
            line(format_args!("{:<26} {:>10.0} bytes a call", "written", self.per_call(bytes)));
        }
        if let Some(mib) = measured.resident_mib {
            line(format_args!("{:<26} {mib:>10.0} MiB", "memory of the server"));
        }
        line(format_args!("\nThis machine alone, one at a time:"));
        for (name, us) in [
            ("sign", floor.sign_us),
            ("verify", floor.verify_us),
            ("decide", floor.decision_ns / 1_000.0),
            ("decide, 5,000 grants", floor.decision_of_many_ns / 1_000.0),
            ("commit", floor.commit_us),
        ] {
            line(format_args!("{name:<26} {us:>10.2} µs"));
        }
        line(format_args!(
            "\nA call can't take less than {:.0} µs here; the median is {:.1} times that.",
            self.floor_us(),
            self.ratio_to_floor()
        ));
        if measured.errors > 0 {
            let told = measured.first_error.as_deref().unwrap_or_default();
            line(format_args!("\n{} calls were not answered as they should be; the first: {told}", measured.errors));
        }
        text.trim_end().to_owned()
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below what a double can't tell apart")]
fn ratio(count: u64, by: u64) -> f64 {
    count as f64 / by as f64
}

fn quantile_ms(phase: &Phase, quantile: f64) -> f64 {
    ratio(phase.0.value_at_quantile(quantile), 1_000)
}
