//! The whole suite. A test that did not run is a failure, like one that failed: nothing here may be skipped quietly.

use crate::services::Services;
use crate::step::{Chore, Failed};
use crate::{client, python, threats};

/// Rooms whose tests run a second time, with their stores on PostgreSQL.
const ON_BOTH_ENGINES: &[&str] = &[
    "caracal-custody",
    "caracal-broker",
    "caracal-ledger",
    "caracal-sts",
    "caracal-gateway",
    "caracal-coordinator",
    "caracal-admin",
    "caracal-audit",
];

/// What the closing lines of the test runner add up to.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
}

/// Runs every Rust test, those of the services on both engines, then the published client's flows.
pub(crate) fn run(chore: &Chore) -> Result<(), Failed> {
    // What is missing is said before minutes are spent on building.
    let python = python::find(chore)?;
    let services = Services::start(chore)?;
    client::build(chore)?;
    let mut tally = Tally::default();
    let (mut embedded, mut servers) = (Vec::new(), Vec::new());
    let tests = ["test", "--locked", "--workspace", "--no-fail-fast"];
    let status = chore.watch("every Rust test", services.known_to(chore.cargo().args(tests)), |line| {
        tally.add(line);
        embedded.extend(passed(line).map(str::to_owned));
    })?;
    // Once more on the other engine, whatever speaks to a store through the seam alone.
    let mut again = vec!["test", "--locked", "--no-fail-fast"];
    again.extend(ON_BOTH_ENGINES.iter().flat_map(|room| ["--package", room]));
    let (template, name) = services.prepare_template(chore, &client::binary(chore))?;
    let mut suites = chore.cargo();
    services.known_to(suites.args(again)).env("CARACAL_TEST_ENGINE", "postgresql").env(template, name);
    let on_servers = chore.watch("the suites of the services on PostgreSQL", &mut suites, |line| {
        tally.add(line);
        servers.extend(passed(line).map(str::to_owned));
    })?;
    chore.say(&format!("Rust: {} passed, {} failed, {} ignored", tally.passed, tally.failed, tally.ignored));
    if !on_servers.success() {
        return Err(Failed(format!("Rust tests failed on PostgreSQL ({on_servers})")));
    }
    if !status.success() || tally.failed > 0 {
        return Err(Failed(format!("{} Rust tests failed ({status})", tally.failed)));
    }
    if tally.ignored > 0 || tally.filtered > 0 || tally.passed == 0 {
        let skipped = tally.ignored + tally.filtered;
        return Err(Failed(format!("{} Rust tests ran and {skipped} were skipped; none may be", tally.passed)));
    }
    threats::check_run(chore, &embedded, &servers, ON_BOTH_ENGINES)?;
    let checks = client::run(chore, &python, &services)?;
    println!("{} passed, 0 failed", tally.passed + checks);
    Ok(())
}

/// The name of a test that the runner says has passed.
fn passed(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
    Some(name.strip_suffix(" - should panic").unwrap_or(name))
}

impl Tally {
    /// Takes a line like `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; …` into account.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                Some("filtered") => self.filtered += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passed_is_taken_for_passed() {
        assert_eq!(passed("test a::b ... ok"), Some("a::b"));
        assert_eq!(passed("test a::b - should panic ... ok"), Some("a::b"));
        for line in ["test a::b ... FAILED", "test a::b ... ignored", "test result: ok. 3 passed", "running 3 tests"] {
            assert_eq!(passed(line), None, "{line}");
        }
    }

    #[test]
    fn closing_lines_add_up() {
        let mut tally = Tally::default();
        tally.add("running 4 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.add("test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s");
        assert_eq!(tally, Tally { passed: 5, failed: 5, ignored: 1, filtered: 7 });
    }
}
