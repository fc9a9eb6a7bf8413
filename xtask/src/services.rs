//! PostgreSQL and Redis for the tests: private servers on free ports, gone when the chore ends.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use caracal_testkit::{Database, Missing, NotStarted, Postgres, Redis};

use crate::step::{Chore, Failed};

const POSTGRES: &str = "CARACAL_TEST_POSTGRES_URL";
const REDIS: &str = "CARACAL_TEST_REDIS_URL";
const TEMPLATE: &str = "CARACAL_TEST_POSTGRES_TEMPLATE";
/// What tells Debian's packages not to start servers of their own while they are installed.
const START_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Running servers, and how tests find them.
pub(crate) struct Services {
    postgres: Postgres,
    redis: Redis,
}

impl Services {
    /// Starts both, installing what is missing where that is allowed.
    pub(crate) fn start(chore: &Chore) -> Result<Self, Failed> {
        let mut lists = Lists::Old;
        let postgres = started(chore, &mut lists, Postgres::start)?;
        let redis = started(chore, &mut lists, Redis::start)?;
        chore.say(&format!("{} and {}", postgres.version(), redis.version()));
        Ok(Self { postgres, redis })
    }

    /// The database server, as its superuser.
    pub(crate) fn postgres_url(&self) -> String {
        self.postgres.url()
    }

    /// The Redis server.
    pub(crate) fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// Prepares a database with the schema of `binary`, which tests copy instead of making their own step by step.
    /// Returns the variable that tells them.
    pub(crate) fn prepare_template(&self, chore: &Chore, binary: &Path) -> Result<(&'static str, String), Failed> {
        let database = Database::on(&self.postgres.url(), "caracal_template");
        let url = database.map_err(|error| Failed(error.to_string()))?.url();
        let mut migrate = chore.program(binary);
        chore
            .run("the schema that tests copy", migrate.arg("migrate").env("DATABASE_URL", url).stdout(Stdio::null()))?;
        Ok((TEMPLATE, "caracal_template".to_owned()))
    }

    /// Tells a command where they are.
    pub(crate) fn known_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(POSTGRES, self.postgres.url()).env(REDIS, self.redis.url())
    }
}

/// `cargo xtask services`: says where they are, and keeps them until standard input ends.
pub(crate) fn wait(chore: &Chore) -> Result<(), Failed> {
    let services = Services::start(chore)?;
    println!("export {POSTGRES}={}", services.postgres.url());
    println!("export {REDIS}={}", services.redis.url());
    chore.say("both run until this is interrupted or its input ends");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// `cargo xtask services -- COMMAND…`: keeps them while the command runs, whose exit code is ours.
pub(crate) fn run(chore: &Chore, program: &str, arguments: &[&str]) -> Result<ExitCode, Failed> {
    let services = Services::start(chore)?;
    let mut command = Command::new(program);
    let status = services.known_to(command.args(arguments)).status();
    let status = status.map_err(|error| Failed(format!("can't start `{program}`: {error}")))?;
    Ok(ExitCode::from(code(status)))
}

/// As a shell has it: 128 and the number of the signal, for a command that was ended by one.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Whether Debian's lists of packages were fetched by this chore.
#[derive(PartialEq, Eq)]
enum Lists {
    Old,
    Fetched,
}

fn started<S>(chore: &Chore, lists: &mut Lists, start: impl Fn() -> Result<S, NotStarted>) -> Result<S, Failed> {
    match start() {
        Err(NotStarted::Missing(missing)) if may_install(chore) => {
            install(chore, lists, missing)?;
            start().map_err(|error| Failed(error.to_string()))
        }
        other => other.map_err(|error| Failed(error.to_string())),
    }
}

/// A machine that exists for this run may be changed by it; a person's is not, unasked. `.ci/run` asks.
fn may_install(chore: &Chore) -> bool {
    let asked = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_root = || chore.ask(Command::new("id").arg("-u"), Duration::from_secs(5)).is_some_and(|id| id.trim() == "0");
    asked && Path::new("/usr/bin/apt-get").exists() && is_root()
}

fn install(chore: &Chore, lists: &mut Lists, missing: Missing) -> Result<(), Failed> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    if *lists == Lists::Old {
        chore.run("fetching Debian's lists", &mut apt(&["update", "-qq"]))?;
        *lists = Lists::Fetched;
    }
    // Where the machine has a policy already, it stays.
    let held_back = !Path::new(START_POLICY).exists();
    if held_back {
        std::fs::write(START_POLICY, "#!/bin/sh\nexit 101\n")?;
    }
    let hold_back = || {
        let mut command = Command::new("chmod");
        chore.run("no server of the system's own is started", command.args(["755", START_POLICY]))
    };
    let arguments = ["install", "-y", "-qq", "--no-install-recommends", missing.debian];
    let installed = if held_back { hold_back() } else { Ok(()) }
        .and_then(|()| chore.run(&format!("installing {}", missing.what), &mut apt(&arguments)));
    if held_back {
        std::fs::remove_file(START_POLICY)?;
    }
    installed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> u8 {
        code(Command::new("sh").args(["-c", script]).status().unwrap())
    }

    #[test]
    fn a_command_ends_as_a_shell_would_say() {
        assert_eq!(ended("exit 0"), 0);
        assert_eq!(ended("exit 7"), 7);
        assert_eq!(ended("kill -s KILL $$"), 137);
    }
}
