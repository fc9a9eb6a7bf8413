//! The threat model, held to the tests that there are and that ran. What checks it is a program of its own
//! (`xtask/assurance`), because it reads TOML and JSON, and this one builds from the standard library alone.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use crate::services::Services;
use crate::step::{Chore, Failed, succeeded};

const PACKAGE: [&str; 6] = ["run", "--locked", "--quiet", "--package", "caracal-assurance", "--"];

/// Without a run: what the files name, and what there is.
pub(crate) fn check(chore: &Chore) -> Result<(), Failed> {
    let built = built(chore)?;
    chore.run("the threat model", chore.cargo().args(PACKAGE).arg("check").arg(built))
}

/// What is generated from the files, and from the tests there are.
pub(crate) fn write(chore: &Chore) -> Result<(), Failed> {
    let built = built(chore)?;
    chore.run("writing the threat model's chapter", chore.cargo().args(PACKAGE).arg("write").arg(built))
}

/// After a run: every test that answers a threat has passed on every engine its room runs on.
pub(crate) fn check_run(chore: &Chore, embedded: &[String], servers: &[String], rooms: &[&str]) -> Result<(), Failed> {
    let built = built(chore)?;
    let folder = folder(chore)?;
    for (name, passed) in [("embedded.txt", embedded), ("servers.txt", servers)] {
        std::fs::write(folder.join(name), passed.join("\n"))?;
    }
    let mut check = chore.cargo();
    check.args(PACKAGE).arg("check").arg(built).arg("--ran").arg(folder).args(["--on-servers", &rooms.join(",")]);
    chore.run("the threat model, against what ran", &mut check)
}

/// Defects on purpose, each in a copy of the tree, and their tests, which need servers. What the other program prints is the
/// whole output, which may be JSON.
pub(crate) fn sabotage(chore: &Chore, arguments: &[&str]) -> Result<ExitCode, Failed> {
    let mut sabotage = chore.cargo();
    sabotage.args(PACKAGE).arg("sabotage").arg(chore.target().join("sabotage")).args(arguments);
    let services = if arguments.contains(&"--list") { None } else { Some(Services::start(chore)?) };
    if let Some(services) = &services {
        services.known_to(&mut sabotage);
    }
    let status = sabotage.stdin(Stdio::null()).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the binary is made of, for whoever has to answer for it.
pub(crate) fn sbom(chore: &Chore) -> Result<(), Failed> {
    std::fs::create_dir_all(chore.target())?;
    let file = chore.target().join("caracal.cdx.json");
    chore.run("the bill of materials", chore.cargo().args(PACKAGE).arg("sbom").arg(file))
}

fn folder(chore: &Chore) -> Result<PathBuf, Failed> {
    let folder = chore.target().join("ran");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What cargo says of every test program, which it builds where that was not done. Asked here and not by the other program,
/// whose environment would make build scripts run once more.
fn built(chore: &Chore) -> Result<PathBuf, Failed> {
    chore.say("listing the tests");
    let arguments = ["test", "--locked", "--workspace", "--no-run", "--message-format", "json"];
    let mut listing = chore.cargo();
    let output = listing.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    succeeded("building the tests", output.status)?;
    let file = folder(chore)?.join("built.json");
    std::fs::write(&file, output.stdout)?;
    Ok(file)
}
