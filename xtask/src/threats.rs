//! The threat model, held to the tests that there are and that ran. What checks it is a program of its own
//! (`xtask/assurance`), because it reads TOML and JSON, and this one builds from the standard library alone.

use crate::step::{Chore, Failed};

const PACKAGE: [&str; 5] = ["run", "--locked", "--quiet", "--package", "caracal-assurance"];

/// Without a run: what the file names, and what there is.
pub(crate) fn check(chore: &Chore) -> Result<(), Failed> {
    chore.run("the threat model (the tests are built to be listed)", chore.cargo().args(PACKAGE).args(["--", "check"]))
}

/// What is generated from the file, and from the tests there are.
pub(crate) fn write(chore: &Chore) -> Result<(), Failed> {
    chore.run("writing the threat model's chapter", chore.cargo().args(PACKAGE).args(["--", "write"]))
}

/// After a run: every test that answers a threat has passed on every engine its room runs on.
pub(crate) fn check_run(chore: &Chore, embedded: &[String], servers: &[String], rooms: &[&str]) -> Result<(), Failed> {
    let folder = chore.target().join("ran");
    std::fs::create_dir_all(&folder)?;
    for (name, passed) in [("embedded.txt", embedded), ("servers.txt", servers)] {
        std::fs::write(folder.join(name), passed.join("\n"))?;
    }
    let mut check = chore.cargo();
    check.args(PACKAGE).args(["--", "check", "--ran"]).arg(folder).args(["--on-servers", &rooms.join(",")]);
    chore.run("the threat model, against what ran", &mut check)
}
