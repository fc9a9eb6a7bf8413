//! `caracal-oracle`: any number of questions to both the ladder and the oracle, or one question again.
//!
//! ```text
//! caracal-oracle [--cases N] [--seed S] [--threads T]   asks N questions (100,000) made from S (1)
//! caracal-oracle --case FILE                            asks one question, as a difference is reported
//! caracal-oracle --opa PATH [--write]                   compares the vectors with what that OPA says, or writes them
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool reports on the terminal")]

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use caracal_oracle::opa::{self, Opa, OpaFailed};
use caracal_oracle::{Case, Oracle, Plan, Progress, compare, run};

const HELP: &str = "\
caracal-oracle [--cases N] [--seed S] [--threads T]   asks N questions (100,000) made from S (1)
caracal-oracle --case FILE                            asks one question, as a difference is reported
caracal-oracle --opa PATH [--write]                   compares the vectors with what that OPA says, or writes them
";

/// How often the progress line is written.
const EVERY: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match act(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &[&str]) -> Result<(), String> {
    let oracle = Oracle::new().map_err(|error| error.to_string())?;
    match arguments {
        ["--case", file] => again(&oracle, file),
        ["--opa", path] => stock(&oracle, path, false),
        ["--opa", path, "--write"] => stock(&oracle, path, true),
        _ => many(&oracle, plan(arguments)?),
    }
}

fn plan(arguments: &[&str]) -> Result<Plan, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut plan = Plan { cases: 100_000, seed: 1, threads };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(HELP.to_owned()) };
        let number: u64 = value.replace('_', "").parse().map_err(|_| format!("{name} takes a number\n\n{HELP}"))?;
        match *name {
            "--cases" => plan.cases = number,
            "--seed" => plan.seed = number,
            "--threads" => plan.threads = usize::try_from(number).map_err(|_| HELP.to_owned())?,
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(plan)
}

fn many(oracle: &Oracle, plan: Plan) -> Result<(), String> {
    let Plan { cases, seed, threads } = plan;
    println!("{cases} questions from seed {seed} on {threads} threads");
    let began = Instant::now();
    let last = Mutex::new(began);
    let progress = |Progress { cases, of }: Progress| {
        let Ok(mut last) = last.try_lock() else { return };
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            let seconds = began.elapsed().as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a rate for the eye")]
            let pace = cases as f64 / seconds;
            #[allow(clippy::cast_precision_loss, reason = "a rate for the eye")]
            let left = (of.saturating_sub(cases)) as f64 / pace;
            eprint!("\r{cases} of {of}, {pace:.0} a second, {left:.0} s to go    ");
            let _ = std::io::stderr().flush();
        }
    };
    let report = run(oracle, plan, progress).map_err(|difference| format!("\n{difference}"))?;
    eprintln!();
    println!("{report:#?}");
    println!("no difference in {} questions, {:.0} s", report.cases, began.elapsed().as_secs_f64());
    Ok(())
}

fn again(oracle: &Oracle, file: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("can't read {file}: {error}"))?;
    let case: Case = serde_json::from_str(&text).map_err(|error| format!("{file} is no case: {error}"))?;
    let outcome = compare(oracle, &case)?;
    println!("ladder: {}\noracle: {} (row {:?})", outcome.ladder, outcome.oracle, outcome.row);
    if outcome.agrees() { Ok(()) } else { Err("they differ".to_owned()) }
}

/// Zones that OPA is asked about, fifty questions each.
const ZONES: u64 = 240;
/// Documents with a character changed that OPA is asked about.
const BENT: usize = 500;

fn stock(oracle: &Oracle, path: &str, write: bool) -> Result<(), String> {
    let told = |error: OpaFailed| error.to_string();
    let path = std::fs::canonicalize(path).map_err(|error| format!("can't find `{path}`: {error}"))?;
    let program = Opa::at(&path).map_err(told)?;
    println!("OPA {}: documents", program.version());
    let documents = opa::document_vectors(&program, BENT).map_err(told)?;
    opa::check_documents(&documents)?;
    println!(
        "{} documents, {} taken; {ZONES} zones",
        documents.len(),
        documents.iter().filter(|one| one.taken).count()
    );
    let mut asked = 0;
    let zones = opa::zone_vectors(&program, ZONES, |zone| asked += zone.questions.len()).map_err(told)?;
    opa::check_zones(oracle, &zones)?;
    println!("{asked} questions, answered alike by OPA, the oracle and the ladder");
    let files = [
        (opa::DOCUMENTS, opa::written(&documents).map_err(told)?),
        (opa::DECISIONS, opa::written(&opa::compact(zones)).map_err(told)?),
    ];
    for (name, text) in files {
        let file = opa::vectors().join(name);
        if write {
            std::fs::write(&file, text).map_err(|error| format!("can't write {}: {error}", file.display()))?;
            println!("written: {}", file.display());
        } else if std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))? != text {
            return Err(format!("{} is not what this OPA says; look, then write it with --write", file.display()));
        }
    }
    Ok(())
}
