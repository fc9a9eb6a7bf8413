//! What a chore needs from the system's packages, on a machine that may be changed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::step::{Chore, Failed};

/// What tells Debian's packages not to start servers of their own while they are installed.
const START_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether Debian's lists of packages were fetched by this chore.
#[derive(PartialEq, Eq)]
pub(crate) enum Lists {
    Old,
    Fetched,
}

/// A machine that exists for this run may be changed by it; a person's is not, unasked. `.ci/run` asks.
pub(crate) fn may_install(chore: &Chore) -> bool {
    let asked = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_root = || chore.ask(Command::new("id").arg("-u"), Duration::from_secs(5)).is_some_and(|id| id.trim() == "0");
    asked && Path::new("/usr/bin/apt-get").exists() && is_root()
}

/// Installs one of Debian's packages, fetching the lists first where this chore has not yet.
pub(crate) fn install(chore: &Chore, lists: &mut Lists, package: &str) -> Result<(), Failed> {
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
    let arguments = ["install", "-y", "-qq", "--no-install-recommends", package];
    let installed = if held_back { hold_back() } else { Ok(()) }
        .and_then(|()| chore.run(&format!("installing {package}"), &mut apt(&arguments)));
    if held_back {
        std::fs::remove_file(START_POLICY)?;
    }
    installed
}
