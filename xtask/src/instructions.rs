//! How many instructions the hottest paths take, under valgrind, against `xtask/instructions.txt`. A count does not depend
//! on how busy the machine is, as a time does; so a path can't become slower unseen. Nor does it depend on the processor,
//! within one kind: valgrind shows a program the same one wherever it runs (see [`BASELINE_IS_OF`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::packages::{Lists, install, may_install};
use crate::step::{Chore, Failed};

const BASELINE: &str = "xtask/instructions.txt";
const HEAD: &str = "# Instructions of one pass, written by `cargo xtask instructions write`.\n";
/// What the counts in the tree were taken on. On a processor with AVX2 valgrind shows a program one fixed processor of that
/// generation, whatever there is above it; so the cryptography and the C library choose the same code on all of them.
const BASELINE_IS_OF: &str = "x86-64 with AVX2";
/// How far a count may lie from its baseline, in percent.
const TOLERANCE: u64 = 10;
/// Each path, and how often it is gone. What starting takes is taken away, by going once as often and twice as often.
const PATHS: [(&str, u64); 5] =
    [("sign", 20), ("verify", 20), ("decide", 400), ("decide_of_5000_grants", 400), ("append", 200)];

/// What became of a path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    AsBefore,
    More,
    Less,
    New,
}

/// Whether this machine is one on which the counts in the tree can be taken again.
fn is_comparable() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Counts, and compares.
pub(crate) fn check(chore: &Chore) -> Result<(), Failed> {
    if !is_comparable() {
        chore.say(&format!("instructions are not compared: the baseline is of {BASELINE_IS_OF}, and this is none"));
        return Ok(());
    }
    let text = std::fs::read_to_string(chore.root().join(BASELINE))?;
    let baseline = parse(&text)?;
    let mut wrong = Vec::new();
    for (path, count) in count(chore)? {
        let before = baseline.get(&path).copied();
        let found = compare(before, count);
        let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        chore.say(&format!("{path:<24} {count:>10} instructions, baseline {before}"));
        match found {
            Found::AsBefore => {}
            Found::More => wrong.push(format!("{path} takes over {TOLERANCE} % more than before")),
            Found::Less => {
                chore.say(&format!("{path} has become cheaper: keep that with `cargo xtask instructions write`"))
            }
            Found::New => wrong.push(format!("{path} has no baseline")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failed(wrong.join("; "))) }
}

/// Counts, and writes what was counted as the new baseline.
pub(crate) fn write(chore: &Chore) -> Result<(), Failed> {
    let lines = count(chore)?.into_iter().map(|(path, count)| format!("{path} {count}\n"));
    std::fs::write(chore.root().join(BASELINE), HEAD.to_owned() + &lines.collect::<String>())?;
    Ok(())
}

fn count(chore: &Chore) -> Result<Vec<(String, u64)>, Failed> {
    find_valgrind(chore)?;
    // With the features that the whole tree agrees on: built for its package alone it would be another program, and
    // after the suite there is nothing to build.
    let arguments = ["build", "--locked", "--workspace", "--example", "hot_paths"];
    chore.run("building the hot paths", chore.cargo().args(arguments))?;
    let program = chore.target().join("debug/examples/hot_paths");
    chore.say("counting instructions (half a minute)");
    let one = |(path, times): (&str, u64)| {
        let (once, twice) = (run(chore, &program, path, times)?, run(chore, &program, path, 2 * times)?);
        Ok((path.to_owned(), twice.saturating_sub(once) / times))
    };
    PATHS.into_iter().map(one).collect()
}

/// Installs it where that is allowed.
fn find_valgrind(chore: &Chore) -> Result<(), Failed> {
    let there = || chore.ask(chore.program("valgrind").arg("--version"), Duration::from_secs(10)).is_some();
    if !there() && may_install(chore) {
        install(chore, &mut Lists::Old, "valgrind")?;
    }
    if there() {
        return Ok(());
    }
    Err(Failed("there is no valgrind; it is in the package `valgrind` of every distribution".to_owned()))
}

fn run(chore: &Chore, program: &PathBuf, path: &str, times: u64) -> Result<u64, Failed> {
    let mut valgrind = chore.program("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    let output = valgrind.arg(program).args([path, &times.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match instructions(&said) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(Failed(format!("`hot_paths {path}` under valgrind ({}): {}", output.status, said.trim()))),
    }
}

/// Of a line like `==17== I   refs:      1,234,567`.
fn instructions(said: &str) -> Option<u64> {
    let line =
        said.lines().find_map(|line| line.split_once("refs:").filter(|(name, _)| name.trim_end().ends_with('I')))?;
    line.1.trim().replace(',', "").parse().ok()
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>, Failed> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let pair = line.split_once(' ').and_then(|(path, count)| Some((path.to_owned(), count.trim().parse().ok()?)));
        pair.ok_or_else(|| Failed(format!("{BASELINE}: `{line}` is not a path and a count")))
    });
    pairs.collect()
}

fn compare(before: Option<u64>, now: u64) -> Found {
    let Some(before) = before else { return Found::New };
    let (now, before) = (now.saturating_mul(100), before);
    if now > before.saturating_mul(100 + TOLERANCE) {
        Found::More
    } else if now < before.saturating_mul(100 - TOLERANCE) {
        Found::Less
    } else {
        Found::AsBefore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_tolerated_and_no_more_than_that() {
        let found: Vec<Found> = [1_100, 1_101, 900, 899].map(|now| compare(Some(1_000), now)).into();
        assert_eq!(found, [Found::AsBefore, Found::More, Found::AsBefore, Found::Less]);
        assert_eq!(compare(None, 1), Found::New);
    }

    #[test]
    fn the_count_is_read_from_what_valgrind_says() {
        let said = "==7== Cachegrind, a cache profiler\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(instructions(said), Some(1_234_567));
        assert_eq!(instructions("==7== I refs:        89\n"), Some(89));
        assert_eq!(instructions("valgrind: no such program\n"), None);
    }

    #[test]
    fn a_baseline_that_is_not_one_is_found() {
        let text = format!("{HEAD}sign 12\n\nverify  34\n");
        let parsed = parse(&text).unwrap_or_else(|Failed(why)| panic!("{why}"));
        assert_eq!(parsed.into_iter().collect::<Vec<_>>(), [("sign".to_owned(), 12), ("verify".to_owned(), 34)]);
        assert!(parse("sign many\n").is_err());
    }
}
