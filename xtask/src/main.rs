//! The project's own chores: `cargo xtask <chore>`. Each says what it is doing while it works, and ends with a
//! non-zero exit code when something is not as it should be.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore reports on the terminal")]

mod client;
mod deny;
mod examples;
mod fuzz;
mod h2spec;
mod instructions;
mod packages;
mod performance;
mod python;
mod reproduce;
mod services;
mod step;
mod suite;
mod threats;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use step::{Chore, Failed};

const HELP: &str = "\
cargo xtask <chore>

  test      the whole suite: every Rust test, then the clients of others against the built binary
  client    only the second half of that
  api       of that, only the requests that are generated from the description of the Admin API
  services  [-- COMMAND…]: private PostgreSQL and Redis servers while the command runs, or until this is interrupted
  examples  the examples of docs/, against the built binary (they are written with curl and jq)
  tidy      what the compiler does not check: rooms, names, sizes, words, links, generated pages
  deny      licences, withdrawn and vulnerable crates, duplicates, sources
  fuzz      [--seconds N] [TARGET]: hostile input for the parsers, N seconds (20) each; needs the nightly toolchain
  h2spec    [--h2spec PATH]: the HTTP/2 of the Gateway against h2spec (RFC 9113 and 7541), which somebody has installed
  soak      [--minutes N] [--streams N]: calls with failing upstreams for N minutes (3), or N event streams held open, and what is left
  opa       --opa PATH [--write]: ask a stock Open Policy Agent again, and compare or rewrite the vectors of the oracle
  threat-model  [write]: docs/threat-model.toml against the tests there are; or write the chapter that is generated from it
  sabotage  [--list] [--json] [ID]: put known defects into a copy of the tree, one by one; the tests must notice each
  sbom      what the binary is made of, as CycloneDX, from Cargo.lock: target/caracal.cdx.json
  reproduce build the last commit twice, in two places, and compare the programs byte for byte (many minutes)
  codegen   rewrite what is generated: the table in docs/settings.md, and the description of the Admin API
  instructions  [write]: how many instructions the hottest paths take, against xtask/instructions.txt; needs valgrind
  performance  [page | PART…]: measure what docs/performance.md says (half an hour, on a machine with nothing else to do); or only write the page
  ci        as .ci/run does: format, tidy, deny, lints, test, examples, instructions
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let chore = Chore::new(root);
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => suite::run(&chore),
        ["services"] => services::wait(&chore),
        ["services", "--", program, ref arguments @ ..] => match services::run(&chore, program, arguments) {
            Ok(code) => return code,
            Err(failed) => Err(failed),
        },
        ["client"] => client::build_and_run(&chore),
        ["api"] => client::build_and_generate(&chore),
        ["examples"] => examples::build_and_run(&chore),
        ["tidy"] => tidy::run(&chore),
        ["deny"] => deny::run(&chore),
        ["fuzz", ref wanted @ ..] => fuzz::run(&chore, wanted),
        ["h2spec", ref arguments @ ..] => h2spec::run(&chore, arguments),
        ["soak", ref arguments @ ..] => soak(&chore, arguments),
        ["opa", ref arguments @ ..] => opa(&chore, arguments),
        ["threat-model"] => threats::check(&chore),
        ["threat-model", "write"] => threats::write(&chore),
        ["sabotage", ref arguments @ ..] => match threats::sabotage(&chore.aside(), arguments) {
            Ok(code) => return code,
            Err(failed) => Err(failed),
        },
        ["sbom"] => threats::sbom(&chore),
        ["reproduce"] => reproduce::run(&chore),
        ["instructions"] => instructions::check(&chore),
        ["instructions", "write"] => instructions::write(&chore),
        ["performance", "page"] => performance::page(&chore),
        ["performance", ref parts @ ..] => performance::measure(&chore, parts),
        ["codegen"] => codegen(&chore),
        ["ci"] => ci(&chore),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("unknown chore: {}\n\n{HELP}", arguments.join(" "));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => {
            chore.say("done");
            ExitCode::SUCCESS
        }
        Err(Failed(what)) => {
            chore.say(&format!("FAILED: {what}"));
            ExitCode::FAILURE
        }
    }
}

fn codegen(chore: &Chore) -> Result<(), Failed> {
    let arguments = ["test", "--locked", "--package", "xtask", "--test", "settings_page"];
    chore
        .run("writing the table of docs/settings.md", chore.cargo().args(arguments).env("CARACAL_CODEGEN", "write"))?;
    let test = "openapi::the_committed_description_is_not_stale";
    let arguments = ["test", "--locked", "--package", "caracal-admin", "--test", "it", "--", "--exact", test];
    let what = "writing docs/schemas/caracal-admin-api.openapi.json";
    chore.run(what, chore.cargo().args(arguments).env("CARACAL_CODEGEN", "write"))
}

/// Stock OPA against the oracle, the ladder and the parser; whoever runs it has built or fetched the program.
fn opa(chore: &Chore, arguments: &[&str]) -> Result<(), Failed> {
    if !matches!(arguments, ["--opa", _] | ["--opa", _, "--write"]) {
        return Err(Failed("the chore is `cargo xtask opa --opa PATH [--write]`".to_owned()));
    }
    let run = ["run", "--locked", "--package", "caracal-oracle", "--"];
    chore.run("asking Open Policy Agent (a minute)", chore.cargo().args(run).args(arguments))
}

/// A system under calls whose upstreams fail, or under streams that stay open: the tests of `crates/caracal/tests/soak.rs`,
/// for longer than the suite has time.
fn soak(chore: &Chore, arguments: &[&str]) -> Result<(), Failed> {
    let (name, what, value, each) = match arguments {
        [] => ("calls", "SECONDS", "3", 60),
        ["--minutes", minutes] => ("calls", "SECONDS", *minutes, 60),
        ["--streams", streams] => ("streams", "STREAMS", *streams, 1),
        _ => return Err(Failed("the chore is `cargo xtask soak [--minutes N | --streams N]`".to_owned())),
    };
    let number = value.parse::<u32>().ok().filter(|number| (1..1_000_000).contains(number));
    let number = number.ok_or_else(|| Failed(format!("`{value}` is no number of minutes or streams")))?;
    let test = ["test", "--locked", "--release", "--package", "caracal", "--test", "soak", "--"];
    let mut soak = chore.cargo();
    soak.args(test).args(["--nocapture", "--exact", &format!("soak_{name}")]);
    soak.env(format!("CARACAL_SOAK_{what}"), (number * each).to_string());
    chore.run(
        &format!(
            "a soak of a release build (building one takes minutes): {number} {}",
            if each == 60 { "minutes" } else { "streams" }
        ),
        &mut soak,
    )
}

/// Quick findings first: a badly formatted file should not cost a build.
fn ci(chore: &Chore) -> Result<(), Failed> {
    chore.run("format", chore.cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run(chore)?;
    deny::run(chore)?;
    let lints = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    chore.run("lints", chore.cargo().args(lints))?;
    suite::run(chore)?;
    examples::run(chore)?;
    // Last, since it is a matter of seconds once everything is built.
    instructions::check(chore)
}
