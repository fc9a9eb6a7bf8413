//! The tables of docs/performance.md, from what was measured.

use std::fmt::Write as _;

use serde_json::Value;

const BEGIN: &str = "<!-- measured: written by `cargo xtask performance` -->\n";
const END: &str = "<!-- end of what was measured -->\n";
/// What is wrong with a page that has no place for them.
#[allow(dead_code, reason = "the test of the page has no page without one")]
pub(crate) const NO_PLACE: &str = "docs/performance.md has no place for what was measured";

/// The page with `tables` in their place; none if it has no such place.
pub(crate) fn put(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

/// All tables.
pub(crate) fn tables(found: &Value) -> String {
    let mut text = String::new();
    let runs = &found["closed"]["runs"];
    machine(&mut text, &found["machine"], &runs[0]);
    again(&mut text, found);
    aims(&mut text, found);
    closed(&mut text, runs);
    parts(&mut text, &found["parts"]);
    units(&mut text, &found["units"]);
    floor(&mut text, &runs[3]["floor"]);
    overload(&mut text, &found["overload"]);
    servers(&mut text, &found["postgresql"]);
    beside(&mut text, found);
    ledger(&mut text, &found["ledger"]);
    text.trim_end().to_owned() + "\n"
}

fn say(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// So many digits; a dash for what is not known.
fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |number| thousands(&format!("{number:.digits$}")))
}

/// With commas before the point.
fn thousands(shown: &str) -> String {
    let (whole, rest) =
        shown.split_once('.').map_or((shown, String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

fn kilobytes(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |bytes| format!("{:.0}", bytes / 1_000.0))
}

/// What a run says of its unit.
fn unit(run: &Value) -> &Value {
    &run[run["what"].as_str().unwrap_or_default()]
}

fn machine(text: &mut String, machine: &Value, run: &Value) {
    let name = |member: &str| machine[member].as_str().unwrap_or("unknown").to_owned();
    let optimised = if run["is_optimised"] == Value::Bool(false) { "a build for debugging" } else { "a release build" };
    say(
        text,
        format_args!(
            "Measured on {} with {optimised} of commit `{}`: {} processors ({}), {} GiB, {}. Callers, API and system share them.\n",
            name("date"),
            name("commit"),
            machine["processors"],
            name("processor"),
            machine["memory_gib"],
            name("kernel"),
        ),
    );
}

/// Which parts were measured by themselves, on which build.
fn again(text: &mut String, found: &Value) {
    let (commit, date) = (&found["machine"]["commit"], &found["machine"]["date"]);
    for (part, of) in found["again"].as_object().into_iter().flatten() {
        if of["commit"] != *commit || of["date"] != *date {
            let said = |member: &str| of[member].as_str().unwrap_or("unknown").to_owned();
            say(text, format_args!("`{part}` was measured on {} with commit `{}`.\n", said("date"), said("commit")));
        }
    }
}

/// What was wanted, and what was found.
fn aims(text: &mut String, found: &Value) {
    let processors = found["machine"]["processors"].as_f64().unwrap_or(1.0);
    let governed = |run: &Value, member: &str| run["governed"][member].as_f64();
    let closed = list(&found["closed"]["runs"]);
    let best =
        |member: &str, pick: fn(f64, f64) -> f64| closed.iter().filter_map(|run| governed(run, member)).reduce(pick);
    let most = best("per_second", f64::max);
    let at_eight = closed.get(3).and_then(|run| governed(run, "per_second"));
    let on_servers = list(&found["postgresql"]).iter().filter_map(|run| governed(run, "per_second")).reduce(f64::max);
    let memory = closed.iter().filter_map(|run| run["rss_mib"].as_f64()).reduce(f64::max);
    let steps = list(&found["overload"]["overload"]["steps"]);
    let goodput = |times: u64| {
        steps.iter().find(|step| step["times"] == times).and_then(|step| step["goodput_per_second"].as_f64())
    };
    let peak =
        [1, 2, 5].into_iter().filter_map(goodput).chain(governed(&found["overload"], "per_second")).reduce(f64::max);
    let kept = goodput(5).zip(peak).map(|(kept, peak)| 100.0 * kept / peak);
    let violations: f64 = steps.iter().filter_map(|step| step["violations"].as_f64()).sum();
    let rows = [
        (
            "governed calls a second for each processor, generator beside it",
            "2,000",
            most.map(|most| most / processors),
            0,
            Bound::Least(2_000.0),
        ),
        (
            "processor time of a governed call, µs (the least of the table below)",
            "≤ 500",
            best("server_cpu_us_per_call", f64::min),
            0,
            Bound::Most(500.0),
        ),
        ("median at half load, ms", "< 2", governed(&found["closed"]["half"], "p50_ms"), 2, Bound::Most(2.0)),
        (
            "99th percentile at half load, ms",
            "< 10",
            governed(&found["closed"]["half"], "p99_ms"),
            2,
            Bound::Most(10.0),
        ),
        (
            "PostgreSQL and Redis on the same machine, of what is done embedded with 8 callers, %",
            "≥ 33",
            on_servers.zip(at_eight).map(|(servers, embedded)| 100.0 * servers / embedded),
            0,
            Bound::Least(33.0),
        ),
        ("memory at full load, MiB", "< 150", memory, 0, Bound::Most(150.0)),
        ("done at five times the capacity, of the most that was done, %", "≥ 90", kept, 0, Bound::Least(90.0)),
        ("used mandates let through again under overload", "0", Some(violations), 0, Bound::Most(0.0)),
        (
            "recovery after it, ms",
            "< 1,000",
            found["overload"]["overload"]["recovery_ms"].as_f64(),
            0,
            Bound::Most(1_000.0),
        ),
    ];
    say(text, format_args!("### Aims\n\n| | Aim | Found | |\n|---|--:|--:|---|"));
    for (what, aim, value, digits, bound) in rows {
        let shown = value.map_or_else(|| "–".to_owned(), |value| thousands(&format!("{value:.digits$}")));
        let verdict = match value {
            Some(value) if bound.holds(value) => "met",
            Some(_) => "not met",
            None => "not measured",
        };
        say(text, format_args!("| {what} | {aim} | {shown} | {verdict} |"));
    }
    text.push('\n');
}

#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Least(least) => value >= least,
            Self::Most(most) => value <= most,
        }
    }
}

const HEAD: &str = "a second | p50 ms | p99 ms | server µs | callers µs | commits | KB | MiB | errors |";
const RULE: &str = "--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Throughput, latency and cost of one run.
fn row(run: &Value) -> String {
    let said = unit(run);
    format!(
        "{} | {} | {} | {} | {} | {} | {} | {} | {} |",
        number(&said["per_second"], 0),
        number(&said["p50_ms"], 2),
        number(&said["p99_ms"], 2),
        number(&said["server_cpu_us_per_call"], 0),
        number(&said["client_cpu_us_per_call"], 0),
        number(&said["commits_per_call"], 2),
        kilobytes(&said["bytes_written_per_call"]),
        number(&run["rss_mib"], 0),
        run["errors"]
    )
}

fn closed(text: &mut String, runs: &Value) {
    say(text, format_args!("### Governed calls, embedded\n\n| Callers | {HEAD} Of the floor |\n|--:|{RULE}--:|"));
    for run in list(runs) {
        say(text, format_args!("| {} | {} {} × |", run["workers"], row(run), number(&run["ratio_to_floor"], 2)));
    }
    say(text, format_args!("\nCosts are those of one call. ![At half load](performance/half-load.svg)\n"));
}

fn parts(text: &mut String, runs: &Value) {
    let columns = list(runs).iter().map(|run| format!(" {} |", run["workers"])).collect::<String>();
    let rule = "--:|".repeat(list(runs).len());
    say(
        text,
        format_args!(
            "### A call through the Gateway, taken apart, embedded (`parts`)\n\n| Callers |{columns}\n|---|{rule}"
        ),
    );
    for (what, member, digits) in [
        ("a proxy that decides nothing, µs", "/measured/proxy_us", 0),
        ("+ one exchange, with its verification", "/exchange_us", 0),
        ("+ the record of its end", "/measured/record_us", 0),
        ("= together", "/together_us", 0),
        ("a call: a governed call without its mint", "/call_us", 0),
        ("the call, of its parts together", "/ratio", 2),
    ] {
        let of = |run: &Value| format!(" {} |", number(run.pointer(member).unwrap_or(&Value::Null), digits));
        say(text, format_args!("| {what} |{}", list(runs).iter().map(of).collect::<String>()));
    }
    text.push('\n');
}

fn units(text: &mut String, runs: &Value) {
    say(text, format_args!("### Everything else, embedded, 8 callers\n\n| | {HEAD}\n|---|{RULE}"));
    for run in list(runs) {
        say(text, format_args!("| `{}` | {}", run["what"].as_str().unwrap_or_default(), row(run)));
    }
    text.push('\n');
}

fn floor(text: &mut String, floor: &Value) {
    say(text, format_args!("### The floor of this machine\n\n| | µs |\n|---|--:|"));
    for (what, member, digits) in [
        ("one signature", "sign_us", 1),
        ("one verification", "verify_us", 1),
        ("one decision", "decision_us", 2),
        ("the same of 5,000 grants", "decision_of_5000_grants_us", 2),
        ("one commit, alone", "commit_us", 0),
        ("of that, processor time", "commit_cpu_us", 0),
        ("a call through a bare proxy, processor time", "proxy_us", 0),
        ("a governed call, processor time", "call_cpu_us", 0),
    ] {
        say(text, format_args!("| {what} | {} |", number(&floor[member], digits)));
    }
    text.push('\n');
}

fn overload(text: &mut String, run: &Value) {
    let found = &run["overload"];
    say(
        text,
        format_args!(
            "### More than it can do, embedded\n\nCapacity in a closed loop: {} a second. Well again {} ms after the last step.\n\n\
             | Offered | a second | done a second | p50 ms | p99 ms | shed | errors | let through again | unsent |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            number(&run["governed"]["per_second"], 0),
            number(&found["recovery_ms"], 0)
        ),
    );
    for step in list(&found["steps"]) {
        say(
            text,
            format_args!(
                "| {} × | {} | {} | {} | {} | {} | {} | {} | {} |",
                step["times"],
                number(&step["offered_per_second"], 0),
                number(&step["goodput_per_second"], 0),
                number(&step["p50_ms"], 0),
                number(&step["p99_ms"], 0),
                number(&step["sheds"], 0),
                step["errors"],
                step["violations"],
                step["unsent"]
            ),
        );
    }
    say(text, format_args!("\n![Latencies as more is offered](performance/overload.svg)\n"));
}

fn servers(text: &mut String, runs: &Value) {
    say(
        text,
        format_args!(
            "### Governed calls, PostgreSQL and Redis on the same machine\n\n| Callers | {HEAD} round trips |\n|--:|{RULE}--:|"
        ),
    );
    for run in list(runs) {
        let trips = number(&unit(run)["round_trips_per_call"], 1);
        say(text, format_args!("| {} | {} {trips} |", run["workers"], row(run)));
    }
    say(text, format_args!("\nThe processor time of the servers is not in `server µs`.\n"));
}

fn beside(text: &mut String, found: &Value) {
    say(text, format_args!("### Beside more and more, embedded, 2 callers\n\n| | {HEAD}\n|---|{RULE}"));
    let kinds = ["sessions", "zones", "events", "grants"];
    for what in kinds {
        for point in list(&found[format!("beside-{what}")]["points"]) {
            say(text, format_args!("| {} {what} | {}", number(&point["number"], 0), row(point)));
        }
    }
    text.push('\n');
    for what in kinds {
        say(text, format_args!("![Beside {what}](performance/beside-{what}.svg)"));
    }
    text.push('\n');
}

fn ledger(text: &mut String, sizes: &Value) {
    say(
        text,
        format_args!(
            "### A long ledger\n\n`ledger_at_scale`: µs for an event in a batch of a thousand, its processor time, its place in the tree; for an event \
             alone, a proof and a search by request the median and the longest of 101.\n\n\
             | Events | in a batch | processor | tree | alone | longest | proof | longest | search | longest |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        ),
    );
    for size in list(sizes) {
        let pair =
            |member: &str| format!("{} | {}", number(&size[member]["p50_us"], 0), number(&size[member]["max_us"], 0));
        say(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                number(&size["events"], 0),
                number(&size["append_in_batch_us"], 0),
                number(&size["append_in_batch_cpu_us"], 0),
                number(&size["tree_us"], 0),
                pair("append_alone"),
                pair("proof"),
                pair("search")
            ),
        );
    }
}
