//! `cargo xtask threat-model`: reads `docs/threat-model.toml` and says what is missing, or writes what is generated from it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore reports on the terminal")]

mod chapter;
mod check;
mod demands;
mod engines;
mod faults;
mod listing;
mod model;
mod places;
mod sabotage;
mod sbom;
mod surface;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use check::{Ran, Tree, findings, inventory};
use engines::Engine;
use faults::{FAULTS, Faults};
use listing::{list, passed};
use model::Model;
use places::Places;
use surface::{INVENTORY, Source, Surface};

const MODEL: &str = "docs/threat-model.toml";
/// One file for each threat, named by its id.
const THREATS: &str = "docs/threat-model";
const PAGE: &str = "docs/threat-model.md";
const OPEN: &str = "docs/threat-model/open.txt";
const TESTS: &str = "docs/threat-model/tests.txt";

const HELP: &str = "\
caracal-assurance check BUILT [--ran DIR --on-servers ROOMS]   what is missing; with DIR, also which tests did not run
caracal-assurance write BUILT                                  docs/threat-model.md and docs/threat-model/tests.txt
caracal-assurance sabotage PLACE [--list] [--json] [ID]        defects on purpose, in a copy of the tree at PLACE
caracal-assurance sbom FILE                                    what the binary is made of, as CycloneDX

BUILT holds what `cargo test --no-run --message-format json` said.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check", built] => check_tree(built, None),
        ["check", built, "--ran", folder, "--on-servers", rooms] => check_tree(built, Some((folder, rooms))),
        ["write", built] => write(built),
        ["sbom", to] => bill_of_materials(to),
        ["sabotage", place, ref wanted @ ..] => sabotaged(Path::new(place), wanted),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(found) => {
            eprintln!("{found}");
            ExitCode::FAILURE
        }
    }
}

fn check_tree(built: &str, ran: Option<(&str, &str)>) -> Result<String, String> {
    let root = root();
    let model = model(root)?;
    let tests = list(&read(Path::new(""), built)?)?;
    let (open, known) = (read(root, OPEN)?, read(root, TESTS).unwrap_or_default());
    let faults = Faults::parse(&read(root, FAULTS)?)?;
    let tree = Tree {
        tests: &tests,
        faults: &faults,
        fuzz_targets: fuzz_targets(root)?,
        chores: chores(root)?,
        on_both: on_both(root)?,
        rooms: rooms(root)?,
        open: &open,
        inventory: &known,
    };
    let reports = match ran {
        Some((folder, rooms)) => {
            let report = |name: &str| read(Path::new(folder), name);
            Some((report("embedded.txt")?, report("servers.txt")?, rooms))
        }
        None => None,
    };
    let runs: Vec<Ran<'_>> =
        reports.iter().flat_map(|(embedded, servers, rooms)| runs(embedded, servers, rooms)).collect();
    let mut found = findings(&model, &tree, &runs);
    found.extend(demands::findings(&model, &faults, &open));
    let sources = sources(root)?;
    let surface = Surface::read(&sources);
    found.extend(
        surface.findings(&read(root, INVENTORY)?, &model.threat.iter().map(|threat| threat.id.as_str()).collect()),
    );
    let defects = sabotage::all(root)?;
    found.extend(sabotage::findings(&defects, &model, &known, |file| read(root, file)));
    let places = Places::of(&sources);
    if chapter::write(&model, &tests, &open, &surface, &faults, &places, &defects)
        != read(root, PAGE).unwrap_or_default()
    {
        found.push(format!("{PAGE} is not what the model says: write it with `cargo xtask threat-model write`"));
    }
    if found.is_empty() {
        let engines = if runs.is_empty() { "" } else { ", all of which ran and passed" };
        Ok(format!(
            "{} threats, {} mitigations, {} tests{engines}",
            model.threat.len(),
            model.mitigations().count(),
            tests.len()
        ))
    } else {
        Err(found.join("\n"))
    }
}

fn sabotaged(place: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut wanted = sabotage::Wanted { name: None, json: false };
    for argument in arguments {
        match *argument {
            "--list" => return sabotage::list(root()),
            "--json" => wanted.json = true,
            name if !name.starts_with('-') && wanted.name.is_none() => wanted.name = Some(name),
            _ => return Err("the chore is `cargo xtask sabotage [--list] [--json] [ID]`".to_owned()),
        }
    }
    sabotage::run(root(), place, &wanted)
}

fn bill_of_materials(to: &str) -> Result<String, String> {
    let written = sbom::write(&read(root(), "Cargo.lock")?, &manifests(root())?)?;
    std::fs::write(to, written).map_err(|error| format!("{to}: {error}"))?;
    Ok(format!("{to} is written"))
}

/// The manifests of this tree's packages; the fuzz targets are workspaces of their own.
fn manifests(root: &Path) -> Result<Vec<String>, String> {
    let mut found = vec![read(root, "xtask/Cargo.toml")?, read(root, "xtask/assurance/Cargo.toml")?];
    for room in folders(root, "crates")? {
        found.push(read(root, &format!("crates/{room}/Cargo.toml"))?);
    }
    Ok(found)
}

fn runs<'a>(embedded: &'a str, servers: &'a str, rooms: &str) -> [Ran<'a>; 2] {
    let rooms = rooms.split(',').map(|room| room.trim_start_matches("caracal-").to_owned()).collect();
    [
        Ran { engine: Engine::Embedded, passed: passed(embedded), rooms: BTreeSet::new() },
        Ran { engine: Engine::Postgresql, passed: passed(servers), rooms },
    ]
}

fn write(built: &str) -> Result<String, String> {
    let root = root();
    let model = model(root)?;
    let (tests, open) = (list(&read(Path::new(""), built)?)?, read(root, OPEN)?);
    let sources = sources(root)?;
    let (surface, places) = (Surface::read(&sources), Places::of(&sources));
    let faults = Faults::parse(&read(root, FAULTS)?)?;
    let chapter = chapter::write(&model, &tests, &open, &surface, &faults, &places, &sabotage::all(root)?);
    for (path, text) in [(PAGE, chapter), (TESTS, inventory(&tests))] {
        std::fs::write(root.join(path), text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(format!("{PAGE} and {TESTS} are written"))
}

/// The file and those of its threats, in their order.
fn model(root: &Path) -> Result<Model, String> {
    let is_threat = |name: &String| name.starts_with('T') && name.ends_with(".toml");
    let mut names: Vec<String> = folders(root, THREATS)?.into_iter().filter(is_threat).collect();
    names.sort();
    let mut threats = Vec::new();
    for name in names {
        let path = format!("{THREATS}/{name}");
        let found = model::threats(&read(root, &path)?).map_err(|error| format!("{path}: {error}"))?;
        if found.iter().any(|threat| format!("{}.toml", threat.id) != name) {
            return Err(format!("{path} holds the threat that it is named after, and no other"));
        }
        threats.extend(found);
    }
    let mut model = Model::parse(&read(root, MODEL)?).map_err(|error| format!("{MODEL}: {error}"))?;
    model.threat.extend(threats);
    Ok(model)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap_or(Path::new("."))
}

fn read(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

/// The texts that the inventory is read from.
fn sources(root: &Path) -> Result<Vec<Source>, String> {
    let mut found = vec![("docs/settings.md".to_owned(), read(root, "docs/settings.md")?)];
    for top in ["crates", "xtask"] {
        walk(root, top, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn walk(root: &Path, folder: &str, found: &mut Vec<Source>) -> Result<(), String> {
    for name in folders(root, folder)? {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            // Built by the fuzzer's own workspace.
            if name != "target" {
                walk(root, &path, found)?;
            }
        } else if [".rs", ".sql", "/Cargo.toml"].iter().any(|end| path.ends_with(end)) {
            found.push((path.clone(), read(root, &path)?));
        }
    }
    Ok(())
}

fn folders(root: &Path, path: &str) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn rooms(root: &Path) -> Result<BTreeSet<String>, String> {
    let mut rooms: BTreeSet<String> = folders(root, "crates")?.into_iter().collect();
    rooms.insert("xtask".to_owned());
    Ok(rooms)
}

fn fuzz_targets(root: &Path) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for room in rooms(root)? {
        // Most rooms have none.
        for file in folders(root, &format!("crates/{room}/fuzz/fuzz_targets")).unwrap_or_default() {
            found.extend(file.strip_suffix(".rs").map(|target| format!("{room}/{target}")));
        }
    }
    Ok(found)
}

/// Read where it is said.
fn on_both(root: &Path) -> Result<BTreeSet<String>, String> {
    engines::on_both(&read(root, "xtask/src/suite.rs")?)
}

/// The chores that `cargo xtask ci` runs, read where it says so: some by itself, some as parts of the suite.
fn chores(root: &Path) -> Result<BTreeSet<String>, String> {
    let source = read(root, "xtask/src/main.rs")?;
    let mut body =
        source.split("fn ci(").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap_or_default().to_owned();
    if body.contains("suite::run(") {
        body.push_str(&read(root, "xtask/src/suite.rs")?);
    }
    let known = ["tidy", "deny", "suite", "examples", "client"];
    let runs = known.into_iter().filter(|chore| body.contains(&format!("{chore}::run(")));
    Ok(runs.map(|chore| if chore == "suite" { "test" } else { chore }.to_owned()).collect())
}
