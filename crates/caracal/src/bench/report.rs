//! What is said at the end: a table for people, one line for machines, a picture.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::BenchFlags;
use super::floor::Floor;
use super::load::{Measured, Phase};
use super::overload::{Overload, Step};
use super::plot::{self, Series};
use super::unit::What;
use crate::commands::VERSION;

/// Each step of a histogram ends so many times as far away as the one before; the first is this wide, in microseconds.
const STEPS: f64 = 1.25;
const FIRST_STEP_US: u64 = 50;

/// The findings beside the floor they stand on.
pub(super) struct Report<'r> {
    pub(super) flags: &'r BenchFlags,
    pub(super) engine: &'static str,
    pub(super) measured: &'r Measured,
    pub(super) overload: Option<&'r Overload>,
    pub(super) floor: &'r Floor,
}

impl Report<'_> {
    fn what(&self) -> What {
        self.flags.what
    }

    fn per_call(&self, count: u64) -> f64 {
        ratio(count, self.measured.tally.calls)
    }

    fn us_per_call(&self, time: Option<Duration>) -> Option<f64> {
        us_per_call(self.measured, time)
    }

    /// What one waits for at least.
    fn floor_us(&self) -> Option<f64> {
        self.what().floor_us(self.floor, self.floor.commit_us)
    }

    /// What a processor is busy with at least.
    fn floor_cpu_us(&self) -> Option<f64> {
        self.what().floor_us(self.floor, self.floor.commit_cpu_us?)
    }

    /// How many times that floor the server is busy with a call.
    fn ratio_to_floor(&self) -> Option<f64> {
        Some(self.us_per_call(self.measured.server_time)? / self.floor_cpu_us()?)
    }

    /// How many times the floor a caller waits at the median.
    fn latency_ratio_to_floor(&self) -> Option<f64> {
        Some(quantile_ms(&self.measured.tally.whole, 0.5) * 1_000.0 / self.floor_us()?)
    }

    /// All calls that went wrong, the refusals of an overloaded system left out.
    fn errors(&self) -> u64 {
        let steps = self.overload.iter().flat_map(|overload| &overload.steps);
        self.measured.tally.errors + steps.map(|step| step.measured.tally.errors).sum::<u64>()
    }

    fn first_error(&self) -> Option<&str> {
        let steps = self.overload.iter().flat_map(|overload| &overload.steps);
        let tallies = std::iter::once(self.measured).chain(steps.map(|step| &step.measured));
        tallies.filter_map(|measured| measured.tally.first_error.as_deref()).next()
    }

    /// Whether everything was answered as it should be.
    pub(super) fn is_clean(&self) -> bool {
        let tally = &self.measured.tally;
        let recovered = self.overload.is_none_or(|overload| overload.recovered_in.is_some());
        self.errors() == 0 && tally.sheds == 0 && tally.unsent == 0 && recovered
    }

    /// One line.
    pub(super) fn json(&self) -> Value {
        let Self { flags, measured, floor, .. } = self;
        let (tally, counted) = (&measured.tally, measured.counted);
        let per_call = |count: Option<u64>| count.map(|count| self.per_call(count));
        let mut whole = latencies(&tally.whole);
        whole.extend(members(json!({
            "calls": tally.calls,
            "per_second": measured.per_second(),
            "server_cpu_us_per_call": self.us_per_call(measured.server_time),
            "client_cpu_us_per_call": self.us_per_call(measured.client_time),
            "commits_per_call": per_call(counted.map(|counted| counted.commits)),
            "changes_per_call": per_call(counted.map(|counted| counted.changes)),
            "round_trips_per_call": per_call(counted.map(|counted| counted.round_trips)),
            "signatures_per_call": per_call(counted.map(|counted| counted.signatures)),
            "bytes_written_per_call": per_call(measured.bytes_written),
            "histogram": histogram(&tally.whole),
        })));
        let phases = tally.phases.iter().map(|(name, phase)| {
            let mut found = latencies(phase);
            found.insert("histogram".to_owned(), histogram(phase));
            ((*name).to_owned(), Value::Object(found))
        });
        let mut line = json!({
            "version": VERSION, "is_optimised": !cfg!(debug_assertions),
            "what": self.what().name(), "loop": if flags.rate.is_some() { "open" } else { "closed" },
            "engine": self.engine,
            "workers": flags.workers, "rate": flags.rate, "in_flight": flags.in_flight,
            "seconds": flags.seconds, "warm_up_seconds": flags.warm_up,
            "phases": phases.collect::<Map<_, _>>(),
            "floor": {
                "sign_us": floor.sign_us, "verify_us": floor.verify_us,
                "decision_us": floor.decision_ns / 1_000.0,
                "decision_of_5000_grants_us": floor.decision_of_many_ns / 1_000.0,
                "commit_us": floor.commit_us, "commit_cpu_us": floor.commit_cpu_us, "proxy_us": floor.proxy_us,
                "call_us": self.floor_us(), "call_cpu_us": self.floor_cpu_us()
            },
            "ratio_to_floor": self.ratio_to_floor(),
            "latency_ratio_to_floor": self.latency_ratio_to_floor(),
            "rss_mib": measured.resident_mib,
            "errors": self.errors(), "sheds": tally.sheds, "unsent": tally.unsent,
            "first_error": self.first_error(),
        });
        if let Some(overload) = self.overload {
            line["overload"] = json!({
                "steps": overload.steps.iter().map(|step| step.json()).collect::<Vec<_>>(),
                "recovery_ms": overload.recovered_in.map(|time| time.as_secs_f64() * 1_000.0),
            });
        }
        line[self.what().name()] = Value::Object(whole);
        line
    }

    /// A table.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.latency_table(&mut text);
        self.costs(&mut text);
        self.floor_table(&mut text);
        if let Some(overload) = self.overload {
            overload.table(&mut text);
        }
        let tally = &self.measured.tally;
        for (count, what) in [
            (tally.sheds, "were turned away, and told when to come again"),
            (tally.unsent, "came due and were never sent"),
        ] {
            if count > 0 {
                say(&mut text, format_args!("\n{count} calls {what}"));
            }
        }
        if self.errors() > 0 {
            let told = self.first_error().unwrap_or_default();
            say(
                &mut text,
                format_args!("\n{} calls were not answered as they should be; the first: {told}", self.errors()),
            );
        }
        text.trim_end().to_owned()
    }

    fn latency_table(&self, text: &mut String) {
        let Self { flags, measured, .. } = self;
        let tally = &measured.tally;
        let pace = match flags.rate {
            Some(rate) => format!("{rate} due a second"),
            None => format!("{} callers", flags.workers),
        };
        let (title, seconds) = (self.what().title(), measured.elapsed.as_secs_f64());
        say(text, format_args!("{} {title}; {pace}, {seconds:.1} s, {}\n", tally.calls, self.engine));
        say(text, format_args!("{:<10} {:>10} {:>10} {:>10} {:>10}", "ms", "p50", "p90", "p99", "max"));
        let mut rows: Vec<(&str, &Phase)> = tally.phases.iter().map(|(name, phase)| (*name, phase)).collect();
        if flags.rate.is_some() {
            rows.push(("since due", &tally.whole));
        } else if rows.len() > 1 {
            rows.push(("together", &tally.whole));
        }
        for (name, phase) in rows {
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|quantile| quantile_ms(phase, quantile));
            say(text, format_args!("{name:<10} {p50:>10.2} {p90:>10.2} {p99:>10.2} {max:>10.2}"));
        }
    }

    fn costs(&self, text: &mut String) {
        let measured = self.measured;
        say(text, format_args!("\n{:<26} {:>10.0}", "per second", measured.per_second()));
        for (name, us) in [("server", measured.server_time), ("callers and upstream", measured.client_time)] {
            if let Some(us) = self.us_per_call(us) {
                say(text, format_args!("{name:<26} {us:>10.0} µs of processor time a call"));
            }
        }
        if let Some(counted) = measured.counted {
            for (name, count) in [
                ("signatures", counted.signatures),
                ("changes", counted.changes),
                ("commits", counted.commits),
                ("database round trips", counted.round_trips),
            ] {
                say(text, format_args!("{name:<26} {:>10.2} a call", self.per_call(count)));
            }
        }
        if let Some(bytes) = measured.bytes_written {
            say(text, format_args!("{:<26} {:>10.0} bytes a call", "written", self.per_call(bytes)));
        }
        if let Some(mib) = measured.resident_mib {
            say(text, format_args!("{:<26} {mib:>10.0} MiB", "memory of the server"));
        }
    }

    fn floor_table(&self, text: &mut String) {
        let floor = self.floor;
        say(text, format_args!("\nThis machine alone, one at a time:"));
        for (name, us) in [
            ("sign", Some(floor.sign_us)),
            ("verify", Some(floor.verify_us)),
            ("decide", Some(floor.decision_ns / 1_000.0)),
            ("decide, 5,000 grants", Some(floor.decision_of_many_ns / 1_000.0)),
            ("commit", Some(floor.commit_us)),
            ("commit, processor time", floor.commit_cpu_us),
            ("bare proxy, processor time", floor.proxy_us),
        ] {
            if let Some(us) = us {
                say(text, format_args!("{name:<26} {us:>10.2} µs"));
            }
        }
        if let (Some(us), Some(ratio)) = (self.floor_us(), self.latency_ratio_to_floor()) {
            say(
                text,
                format_args!("\nA call can't take less than {us:.0} µs here; the median is {ratio:.1} times that."),
            );
        }
        if let (Some(us), Some(ratio)) = (self.floor_cpu_us(), self.ratio_to_floor()) {
            let line = "A processor can't be busy with it for less than";
            say(text, format_args!("{line} {us:.0} µs; the server is for {ratio:.1} times that."));
        }
    }

    /// The latencies as a picture.
    pub(super) fn svg(&self) -> String {
        let tally = &self.measured.tally;
        let mut series = Vec::new();
        let named = |name: &str, phase| Series { name: name.to_owned(), phase };
        match self.overload {
            Some(overload) => {
                series.push(named("closed loop", &tally.whole));
                let steps = overload.steps.iter();
                series
                    .extend(steps.map(|step| named(&format!("{} × offered", step.times), &step.measured.tally.whole)));
            }
            None => {
                series.push(named(if self.flags.rate.is_some() { "since due" } else { "call" }, &tally.whole));
                if tally.phases.len() > 1 {
                    series.extend(tally.phases.iter().map(|(name, phase)| named(&format!("its {name}"), phase)));
                }
            }
        }
        let title = format!("{}: {:.0} a second", self.what().title(), self.measured.per_second());
        plot::latencies(&title, &series)
    }
}

impl Step {
    fn json(&self) -> Value {
        let tally = &self.measured.tally;
        let mut found = latencies(&tally.whole);
        found.extend(members(json!({
            "times": self.times,
            "offered_per_second": self.offered_per_second,
            "goodput_per_second": self.measured.per_second(),
            "calls": tally.calls, "sheds": tally.sheds, "errors": tally.errors, "violations": tally.violations,
            "unsent": tally.unsent, "rss_mib": self.measured.resident_mib,
            "seconds": self.measured.elapsed.as_secs_f64(),
            "server_cpu_seconds": self.measured.server_time.map(|time| time.as_secs_f64()),
            "client_cpu_seconds": self.measured.client_time.map(|time| time.as_secs_f64()),
            "histogram": histogram(&tally.whole),
        })));
        Value::Object(found)
    }
}

impl Overload {
    fn table(&self, text: &mut String) {
        let head = ["offered/s", "done/s", "p50 ms", "p99 ms", "shed", "errors", "unsent"];
        say(text, format_args!("\nMore than it can do:"));
        let head = head.iter().fold(String::new(), |line, name| format!("{line} {name:>10}"));
        say(text, format_args!("{:<4}{head}", ""));
        for Step { times, offered_per_second, measured } in &self.steps {
            let tally = &measured.tally;
            let [p50, p99] = [0.5, 0.99].map(|quantile| quantile_ms(&tally.whole, quantile));
            say(
                text,
                format_args!(
                    "{times:<2}× {offered_per_second:>10.0} {:>10.0} {p50:>10.2} {p99:>10.2} {:>10} {:>10} {:>10}",
                    measured.per_second(),
                    tally.sheds,
                    tally.errors,
                    tally.unsent
                ),
            );
        }
        let violations: u64 = self.steps.iter().map(|step| step.measured.tally.violations).sum();
        say(text, format_args!("{violations} used mandates were let through again"));
        match self.recovered_in {
            Some(time) => say(text, format_args!("well again after {:.0} ms", time.as_secs_f64() * 1_000.0)),
            None => say(text, format_args!("not well again in time")),
        }
    }
}

fn say(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn latencies(phase: &Phase) -> Map<String, Value> {
    members(json!({
        "p50_ms": quantile_ms(phase, 0.5), "p90_ms": quantile_ms(phase, 0.9),
        "p99_ms": quantile_ms(phase, 0.99), "max_ms": quantile_ms(phase, 1.0)
    }))
}

/// Pairs: no longer than so many microseconds, and longer than the pair before says; how many calls.
fn histogram(phase: &Phase) -> Value {
    let steps = phase.0.iter_log(FIRST_STEP_US, STEPS).filter(|step| step.count_since_last_iteration() > 0);
    steps.map(|step| json!([step.value_iterated_to(), step.count_since_last_iteration()])).collect()
}

/// Microseconds of `time` for each call.
pub(super) fn us_per_call(measured: &Measured, time: Option<Duration>) -> Option<f64> {
    Some(time?.as_secs_f64() * 1e6 / ratio(measured.tally.calls, 1))
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below what a double can't tell apart")]
pub(super) fn ratio(count: u64, by: u64) -> f64 {
    count as f64 / by as f64
}

pub(super) fn quantile_ms(phase: &Phase, quantile: f64) -> f64 {
    ratio(phase.0.value_at_quantile(quantile), 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Failure;

    #[test]
    fn a_histogram_counts_every_call_once_in_growing_steps() {
        let mut phase = Phase::new().unwrap_or_else(|Failure(why)| panic!("{why}"));
        for us in [10, 40, 900, 901, 30_000, 59_000_000, 600_000_000] {
            phase.record(Duration::from_micros(us));
        }
        let found = histogram(&phase);
        let pairs: Vec<(u64, u64)> = serde_json::from_value(found).unwrap();
        assert_eq!(pairs.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0), "{pairs:?}");
        assert_eq!(pairs[0].1, 2, "{pairs:?}");
        // What took longer than a minute is kept as a minute.
        assert_eq!(pairs.last().unwrap().1, 2, "{pairs:?}");
    }
}
