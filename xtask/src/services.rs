//! PostgreSQL and Redis for the tests: private servers on free ports, gone when the chore ends.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use caracal_testkit::{Missing, NotStarted, Postgres, Redis};

use crate::step::{Chore, Failed, succeeded};

const POSTGRES: &str = "CARACAL_TEST_POSTGRES_URL";
const REDIS: &str = "CARACAL_TEST_REDIS_URL";
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
        let postgres = started(chore, Postgres::start)?;
        let redis = started(chore, Redis::start)?;
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

    /// Tells a command where they are.
    pub(crate) fn known_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(POSTGRES, self.postgres.url()).env(REDIS, self.redis.url())
    }
}

/// `cargo xtask services`: with a command, for as long as it runs; without, until standard input ends.
pub(crate) fn run(chore: &Chore, command: &[&str]) -> Result<(), Failed> {
    let services = Services::start(chore)?;
    match command {
        [] => {
            println!("export {POSTGRES}={}", services.postgres.url());
            println!("export {REDIS}={}", services.redis.url());
            chore.say("both run until this is interrupted or its input ends");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            Ok(())
        }
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            let status = services.known_to(command.args(arguments)).status();
            succeeded(program, status.map_err(|error| Failed(format!("can't start `{program}`: {error}")))?)
        }
    }
}

fn started<S>(chore: &Chore, start: impl Fn() -> Result<S, NotStarted>) -> Result<S, Failed> {
    match start() {
        Err(NotStarted::Missing(missing)) if may_install() => {
            install(chore, missing)?;
            start().map_err(|error| Failed(error.to_string()))
        }
        other => other.map_err(|error| Failed(error.to_string())),
    }
}

/// A machine that exists for this run may be changed by it; a person's is not, unasked.
fn may_install() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty()) && Path::new("/usr/bin/apt-get").exists()
}

fn install(chore: &Chore, missing: Missing) -> Result<(), Failed> {
    let held_back = !Path::new(START_POLICY).exists();
    if held_back {
        std::fs::write(START_POLICY, "#!/bin/sh\nexit 101\n")?;
        chore.run("no server of the system's own is started", Command::new("chmod").args(["755", START_POLICY]))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    let installed = chore.run("fetching Debian's lists", &mut apt(&["update", "-qq"])).and_then(|()| {
        let arguments = ["install", "-y", "-qq", "--no-install-recommends", missing.debian];
        chore.run(&format!("installing {}", missing.what), &mut apt(&arguments))
    });
    if held_back {
        std::fs::remove_file(START_POLICY)?;
    }
    installed
}
