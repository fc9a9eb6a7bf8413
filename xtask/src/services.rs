//! PostgreSQL and Redis for the tests: private servers on free ports, gone when the chore ends.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use caracal_testkit::{Database, NotStarted, Postgres, Redis, strace};

use crate::packages::{Lists, install, may_install};
use crate::step::{Chore, Failed};

const POSTGRES: &str = "CARACAL_TEST_POSTGRES_URL";
const REDIS: &str = "CARACAL_TEST_REDIS_URL";
const TEMPLATE: &str = "CARACAL_TEST_POSTGRES_TEMPLATE";

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
        // No server, but likewise what tests can't do without, and don't run on any other system.
        if cfg!(target_os = "linux") {
            started(chore, &mut lists, || strace().map_err(NotStarted::Missing))?;
        }
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

fn started<S>(chore: &Chore, lists: &mut Lists, start: impl Fn() -> Result<S, NotStarted>) -> Result<S, Failed> {
    match start() {
        Err(NotStarted::Missing(missing)) if may_install(chore) => {
            install(chore, lists, missing.debian)?;
            start().map_err(|error| Failed(error.to_string()))
        }
        other => other.map_err(|error| Failed(error.to_string())),
    }
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
