//! Fuzzing: hostile bytes for the parsers, for a while. The targets lie in the room they attack, in
//! `crates/<room>/fuzz`, in the layout of `cargo fuzz`, which is not needed: this chore builds and runs them itself.
//!
//! Each run starts from the committed corpus and from what earlier runs on this machine found worth keeping, which lies
//! under `target`. An input that breaks something is kept there too, and the last line says how to run it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::step::{Chore, Failed};

const SECONDS: u64 = 20;
/// Neither a build without end nor a run without end is what somebody meant.
const MOST_SECONDS: u64 = 24 * 3600;
/// A compiler that is asked for its version has this long; `rustup` may be looking for it.
const PATIENCE: Duration = Duration::from_secs(20);
const TOOLCHAIN: &str = "nightly";

/// Coverage that libFuzzer can read, and the address sanitizer, for the `unsafe` of our dependencies and for its count
/// of memory. Only the nightly compiler has the sanitizer.
const INSTRUMENTED: &[&str] = &[
    "--cfg=fuzzing",
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The bounds of one input. No parser here needs a second or 64 MiB at once for 16 KiB of text; what does is a finding.
const BOUNDS: &[&str] = &["-max_len=16384", "-timeout=5", "-malloc_limit_mb=64", "-rss_limit_mb=2048"];

const NO_NIGHTLY: &str = "\
the nightly toolchain does not answer. It is needed for fuzzing, and for nothing else here.
           Install it (rustup toolchain install nightly --profile minimal) and run this again";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    seconds: u64,
    /// A target, `room/target`, or a whole room; everything when absent.
    name: Option<&'a str>,
}

/// One program that takes bytes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    room: String,
    name: String,
}

impl Target {
    fn is(&self, name: &str) -> bool {
        name == self.name || name == self.room || name.split_once('/') == Some((&self.room, &self.name))
    }
}

/// Builds and runs the targets that `arguments` (`[--seconds N] [TARGET]`) ask for.
pub(crate) fn run(chore: &Chore, arguments: &[&str]) -> Result<(), Failed> {
    let wanted = parse(arguments)?;
    let all = targets(chore.root())?;
    let known = || all.iter().map(|target| format!("{}/{}", target.room, target.name)).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Target> = all.iter().filter(|target| wanted.name.is_none_or(|name| target.is(name))).collect();
    if chosen.is_empty() {
        return Err(Failed(format!("there is no such target; there are {}", known())));
    }
    let triple = nightly(chore)?;
    let mut rooms: Vec<&str> = chosen.iter().map(|target| target.room.as_str()).collect();
    rooms.dedup();
    for room in rooms {
        build(chore, room, &triple)?;
    }
    let mut broken = Vec::new();
    for target in &chosen {
        // One finding must not hide those of the targets behind it.
        if let Err(Failed(what)) = attack(chore, target, &triple, wanted.seconds) {
            chore.say(&what);
            broken.push(format!("{}/{}", target.room, target.name));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(Failed(format!("something was found: {}", broken.join(", ")))) }
}

fn parse<'a>(arguments: &[&'a str]) -> Result<Wanted<'a>, Failed> {
    let mut wanted = Wanted { seconds: SECONDS, name: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if *argument == "--seconds" {
            let number = rest.next().and_then(|text| text.parse().ok());
            let usable = number.filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
            wanted.seconds = usable.ok_or_else(|| Failed(format!("--seconds takes 1 to {MOST_SECONDS}")))?;
        } else if argument.starts_with('-') || wanted.name.is_some() {
            return Err(Failed("the chore is `cargo xtask fuzz [--seconds N] [TARGET]`".to_owned()));
        } else {
            wanted.name = Some(argument);
        }
    }
    Ok(wanted)
}

/// Every target of the tree, by room and name: a file in `fuzz_targets` is a target.
fn targets(root: &Path) -> Result<Vec<Target>, Failed> {
    let mut targets = Vec::new();
    for room in sorted(&root.join("crates"))? {
        let folder = room.join("fuzz").join("fuzz_targets");
        if !folder.is_dir() {
            continue;
        }
        for file in sorted(&folder)?.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
            let text = |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
            targets.push(Target { room: text(room.file_name()), name: text(file.file_stem()) });
        }
    }
    Ok(targets)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}

/// Makes sure of the nightly compiler and asks which machine it builds for.
fn nightly(chore: &Chore) -> Result<String, Failed> {
    let mut rustc = chore.program("rustup");
    let said = chore.ask(rustc.args(["run", TOOLCHAIN, "rustc", "--version", "--verbose"]), PATIENCE);
    let said = said.ok_or_else(|| Failed(NO_NIGHTLY.to_owned()))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failed("the nightly compiler does not name its host".to_owned()))
}

fn build(chore: &Chore, room: &str, triple: &str) -> Result<(), Failed> {
    let folder = chore.root().join("crates").join(room).join("fuzz");
    take_lock(&chore.root().join("Cargo.lock"), &folder)?;
    let mut cargo = chore.program("rustup");
    cargo.args(["run", TOOLCHAIN, "cargo", "build", "--release", "--target", triple, "--manifest-path"]);
    cargo.arg(folder.join("Cargo.toml")).env("CARGO_TARGET_DIR", place(chore));
    // Not the variables of the pinned toolchain that runs this.
    cargo.env_remove("CARGO").env_remove("RUSTC").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", INSTRUMENTED.join(" "));
    chore.run(&format!("building the targets of {room} (a first build takes a minute)"), &mut cargo)
}

/// The targets attack the product with the dependencies it ships with: their lock file starts as a copy of its own, and
/// starts again when that changes.
fn take_lock(from: &Path, folder: &Path) -> Result<(), Failed> {
    let (copy, basis) = (folder.join("Cargo.lock"), folder.join("Cargo.lock.basis"));
    let shipped = fs::read_to_string(from)?;
    if copy.is_file() && fs::read_to_string(&basis).is_ok_and(|known| known == shipped) {
        return Ok(());
    }
    fs::write(copy, &shipped)?;
    Ok(fs::write(basis, shipped)?)
}

fn attack(chore: &Chore, target: &Target, triple: &str, seconds: u64) -> Result<(), Failed> {
    let Target { room, name } = target;
    let folder = chore.root().join("crates").join(room).join("fuzz");
    let grown = place(chore).join("corpus").join(room).join(name);
    let broken = place(chore).join("artifacts").join(room).join(name);
    let program = place(chore).join(triple).join("release").join(name);
    fs::create_dir_all(&grown)?;
    fs::create_dir_all(&broken)?;
    let log = broken.join("log.txt");
    let mut fuzzer = chore.program(&program);
    fuzzer.args(BOUNDS).arg(format!("-max_total_time={seconds}"));
    fuzzer.arg(format!("-artifact_prefix={}/", broken.display())).args(["-print_final_stats=1", "-print_funcs=0"]);
    let words = folder.join("dictionaries").join(format!("{name}.txt"));
    if words.is_file() {
        fuzzer.arg(format!("-dict={}", words.display()));
    }
    // What is new goes to the first folder.
    fuzzer.arg(&grown);
    let seeds = folder.join("corpus").join(name);
    if seeds.is_dir() {
        fuzzer.arg(&seeds);
    }
    fuzzer.stderr(fs::File::create(&log)?);
    let done = chore.run(&format!("{room}/{name}, {seconds} s"), &mut fuzzer);
    // An input is not always text, and neither is what is said about it.
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let Err(Failed(what)) = done else {
        let count = |name| statistic(&said, name).unwrap_or("?");
        let (inputs, pace) = (count("number_of_executed_units"), count("average_exec_per_sec"));
        chore.say(&format!("{inputs} inputs, {pace} a second, {} worth keeping", count("new_units_added")));
        return Ok(());
    };
    println!("{}", finding(&said));
    let input = said.lines().find_map(|line| line.split_once("Test unit written to ")).map_or("", |(_, path)| path);
    Err(Failed(format!("{what}; all of it: {}; again: {} {input}", log.display(), program.display())))
}

/// A number of the closing lines, `stat::name: number`.
fn statistic<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The part that says what went wrong: from the panic or the fuzzer's own complaint, a screen of it.
fn finding(said: &str) -> String {
    let lines = || said.lines();
    let complaint = |line: &str| line.contains("panicked at") || line.contains("ERROR: ");
    let from = lines().position(complaint).unwrap_or_else(|| lines().count().saturating_sub(20));
    lines().skip(from).take(20).collect::<Vec<_>>().join("\n")
}

fn place(chore: &Chore) -> PathBuf {
    chore.target().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_in_either_order() {
        let read = |arguments: &[&'static str]| parse(arguments).ok();
        assert_eq!(read(&[]), Some(Wanted { seconds: 20, name: None }));
        assert_eq!(read(&["--seconds", "5", "form"]), Some(Wanted { seconds: 5, name: Some("form") }));
        assert_eq!(read(&["http/form", "--seconds", "5"]), Some(Wanted { seconds: 5, name: Some("http/form") }));
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--second", "5"], &["a", "b"]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_target_answers_to_its_name_and_its_room() {
        let target = Target { room: "http".to_owned(), name: "form".to_owned() };
        for name in ["form", "http", "http/form"] {
            assert!(target.is(name), "{name}");
        }
        for name in ["", "json", "crypto/form", "http/", "http/form/"] {
            assert!(!target.is(name), "{name}");
        }
    }

    #[test]
    fn what_the_fuzzer_says_is_found_again() {
        let said = "INFO: x\nthread 'a' panicked at a.rs:1:2:\nleft\nstat::new_units_added:          12\n";
        assert_eq!(statistic(said, "new_units_added"), Some("12"));
        assert_eq!(statistic(said, "new_units"), None);
        assert!(finding(said).starts_with("thread 'a' panicked"));
        assert_eq!(finding("only this\n"), "only this");
    }

    #[test]
    fn every_target_of_the_tree_is_declared_and_has_a_small_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let targets = targets(root).ok().unwrap();
        assert!(targets.len() >= 10, "{targets:?}");
        for Target { room, name } in &targets {
            let folder = root.join("crates").join(room).join("fuzz");
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{room}/{name}");
            // Not what a run left behind: libFuzzer names an input by the 40 digits of its hash.
            let seeds = sorted(&folder.join("corpus").join(name)).ok().unwrap();
            let seeds = seeds.iter().filter(|seed| seed.file_name().unwrap().len() != 40);
            let sizes: Vec<u64> = seeds.map(|seed| fs::metadata(seed).unwrap().len()).collect();
            assert!((1..30).contains(&sizes.len()) && sizes.iter().sum::<u64>() < 100_000, "{room}/{name}: {sizes:?}");
        }
        let mut names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        // They are built into one folder.
        assert_eq!(names.len(), targets.len());
    }
}
