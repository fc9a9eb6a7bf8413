//! `cargo xtask sabotage`: would the tests notice? Each file of `docs/threat-model/sabotage/` puts one real defect back
//! in, by exchanging a few lines, and names the tests that must fail for it. A mitigation whose tests stay green without
//! it does not count as present.
//!
//! A defect is put into a copy of the tree, which is built into a folder of its own, so that nothing of the work at hand
//! is touched or rebuilt. The same tests run on the unharmed copy first: what fails anyway has noticed nothing. What is
//! exchanged must occur exactly once; where the code has moved on, the file fails in every build, and not only at night.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::listing::{named, program};
use crate::model::Model;

/// Where the defects lie.
pub(crate) const FOLDER: &str = "docs/threat-model/sabotage";
/// A test that was made to wait for ever says nothing of what is wrong.
const PATIENCE: Duration = Duration::from_secs(180);

/// One defect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defect {
    /// The name of its file.
    #[serde(skip)]
    pub(crate) id: String,
    /// What it takes away.
    pub(crate) mitigation: String,
    /// What somebody could then do.
    pub(crate) says: String,
    /// Which test program of the room knows: `--lib`, or `--test it`.
    target: Vec<String>,
    /// `room::t03_gateway_egress::a_sentence`, all of one room; each must fail.
    pub(crate) fails: Vec<String>,
    change: Vec<Change>,
}

/// A few lines of one file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    file: String,
    from: String,
    to: String,
}

impl Change {
    fn of(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.from).count() {
            _ if self.from == self.to => Err(format!("changes nothing in {}", self.file)),
            1 => Ok(text.replacen(&self.from, &self.to, 1)),
            0 => Err(format!("what it exchanges is no longer in {}: follow the code, and run it", self.file)),
            times => Err(format!("what it exchanges is {times} times in {}", self.file)),
        }
    }
}

impl Defect {
    pub(crate) fn parse(id: &str, text: &str) -> Result<Self, String> {
        let mut defect: Self = toml::from_str(text).map_err(|error| format!("{FOLDER}/{id}.toml: {error}"))?;
        defect.id = id.to_owned();
        Ok(defect)
    }

    /// The files it changes.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.change.iter().map(|change| change.file.as_str())
    }

    /// The one room whose tests notice it.
    fn room(&self) -> &str {
        self.fails.first().and_then(|test| test.split("::").next()).unwrap_or_default()
    }

    /// The tests' names as they follow the room's.
    fn tests(&self) -> impl Iterator<Item = &str> {
        self.fails.iter().filter_map(|test| test.split_once("::").map(|(_, name)| name))
    }

    fn package(&self) -> String {
        match self.room() {
            room @ ("caracal" | "xtask") => room.to_owned(),
            room => format!("caracal-{room}"),
        }
    }
}

/// Every defect there is.
pub(crate) fn all(root: &Path) -> Result<Vec<Defect>, String> {
    let mut names = crate::folders(root, FOLDER)?;
    names.sort();
    let read = |name: &String| {
        let id = name.strip_suffix(".toml").ok_or_else(|| format!("{FOLDER}/{name} is no file of a defect"))?;
        Defect::parse(id, &crate::read(root, &format!("{FOLDER}/{name}"))?)
    };
    names.iter().map(read).collect()
}

/// What is wrong with the defects themselves, without building any: they fit the code, name tests that there are, and
/// every threat that has an answer has one.
pub(crate) fn findings(
    defects: &[Defect],
    model: &Model,
    tests: &str,
    text_of: impl Fn(&str) -> Result<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    let tests: BTreeSet<&str> = tests.lines().filter_map(|line| line.split(' ').next()).collect();
    let known: BTreeSet<&str> = model.mitigations().map(|mitigation| mitigation.id.as_str()).collect();
    for defect in defects {
        let mut say = |what: String| found.push(format!("{FOLDER}/{}.toml: {what}", defect.id));
        if !known.contains(defect.mitigation.as_str()) {
            say(format!("there is no mitigation `{}`", defect.mitigation));
        }
        if !defect.id.starts_with(&format!("{}-", defect.mitigation)) {
            say(format!("its name begins with `{}-`", defect.mitigation));
        }
        if defect.fails.is_empty() || defect.change.is_empty() {
            say("names a change and a test that notices it".to_owned());
        }
        for test in defect.fails.iter().filter(|test| !tests.contains(test.as_str())) {
            say(format!("there is no test `{test}`"));
        }
        if defect.fails.iter().any(|test| test.split("::").next() != Some(defect.room())) {
            say("its tests are those of one room".to_owned());
        }
        for change in &defect.change {
            if let Err(what) = text_of(&change.file).and_then(|text| change.of(&text)) {
                say(what);
            }
        }
    }
    for threat in model.threat.iter().filter(|threat| !threat.mitigation.is_empty()) {
        if !defects.iter().any(|defect| defect.mitigation.starts_with(&format!("{}.", threat.id))) {
            found.push(format!("nothing in {FOLDER} shows that the tests of {} have teeth", threat.id));
        }
    }
    found
}

/// What became of one defect.
enum Outcome {
    Noticed,
    /// These tests passed all the same.
    Unnoticed(Vec<String>),
    /// Nobody knows.
    Broken(String),
}

/// What a caller asks for.
pub(crate) struct Wanted<'a> {
    /// A defect, a mitigation or a threat; all of them when absent.
    pub(crate) name: Option<&'a str>,
    pub(crate) json: bool,
}

/// Puts in each defect that is wanted and runs its tests. `place` is for the copy and what is built of it.
pub(crate) fn run(root: &Path, place: &Path, wanted: &Wanted<'_>) -> Result<String, String> {
    let all = all(root)?;
    let is_wanted = |defect: &&Defect| wanted.name.is_none_or(|name| matches(defect, name));
    let mut chosen: Vec<&Defect> = all.iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        return Err("there is no such defect; --list shows those there are".to_owned());
    }
    // One unharmed build for all that share a test program.
    chosen.sort_by_key(|defect| (defect.room().to_owned(), defect.target.clone(), defect.id.clone()));
    let copy = Copy::of(root, place)?;
    let began = Instant::now();
    let mut results: Vec<(&Defect, Outcome, f64)> = Vec::new();
    let mut sound: Option<(String, Result<(), String>)> = None;
    for (number, defect) in chosen.iter().enumerate() {
        let say = |what: &str| {
            eprintln!(
                "[{:6.1} s] {}/{} {}: {what}",
                began.elapsed().as_secs_f64(),
                number + 1,
                chosen.len(),
                defect.id
            );
        };
        let group = format!("{} {}", defect.package(), defect.target.join(" "));
        if sound.as_ref().is_none_or(|(known, _)| *known != group) {
            say(&format!("the tests of {group} without any defect"));
            let same = |other: &&&Defect| (other.room(), &other.target) == (defect.room(), &defect.target);
            let names: Vec<&str> = chosen.iter().filter(same).flat_map(|other| other.tests()).collect();
            sound = Some((group, copy.all_pass(defect, &names)));
        }
        let since = Instant::now();
        let outcome = match sound.as_ref().map(|(_, sound)| sound) {
            Some(Err(what)) => Outcome::Broken(format!("without it, {what}")),
            _ => {
                say(&defect.says);
                copy.suffer(defect)
            }
        };
        say(match &outcome {
            Outcome::Noticed => "noticed",
            Outcome::Unnoticed(_) => "NOT NOTICED",
            Outcome::Broken(_) => "COULD NOT BE TRIED",
        });
        results.push((defect, outcome, since.elapsed().as_secs_f64()));
    }
    report(&results, wanted.json)
}

/// The lines that `--list` prints.
pub(crate) fn list(root: &Path) -> Result<String, String> {
    let line = |defect: &Defect| format!("{}: {} ({})", defect.id, defect.says, defect.fails.join(", "));
    Ok(all(root)?.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn matches(defect: &Defect, name: &str) -> bool {
    defect.id == name || defect.mitigation == name || defect.mitigation.split('.').next() == Some(name)
}

fn report(results: &[(&Defect, Outcome, f64)], as_json: bool) -> Result<String, String> {
    let noticed = results.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Noticed)).count();
    let of = |(defect, outcome, seconds): &(&Defect, Outcome, f64)| {
        let (outcome, detail) = match outcome {
            Outcome::Noticed => ("noticed", Value::Null),
            Outcome::Unnoticed(tests) => ("unnoticed", json!(tests)),
            Outcome::Broken(what) => ("not tried", json!(what)),
        };
        json!({"id": defect.id, "mitigation": defect.mitigation, "says": defect.says, "tests": defect.fails,
               "outcome": outcome, "detail": detail, "seconds": seconds.round()})
    };
    let said = if as_json {
        let defects: Vec<Value> = results.iter().map(of).collect();
        json!({"defects": defects, "noticed": noticed, "tried": results.len()}).to_string()
    } else {
        let line = |(defect, outcome, _): &(&Defect, Outcome, f64)| match outcome {
            Outcome::Noticed => None,
            Outcome::Unnoticed(tests) => {
                Some(format!("{}: these tests pass with it: {}\n", defect.id, tests.join(", ")))
            }
            Outcome::Broken(what) => Some(format!("{}: {what}\n", defect.id)),
        };
        format!(
            "{}{noticed} of {} defects were noticed",
            results.iter().filter_map(line).collect::<String>(),
            results.len()
        )
    };
    if noticed == results.len() { Ok(said) } else { Err(said) }
}

/// The copy that is harmed, and what is built of it.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Brings the copy up to date. What is equal is left alone, so that it need not be built again.
    fn of(root: &Path, place: &Path) -> Result<Self, String> {
        let copy = Self { tree: place.join("tree"), target: place.join("target") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git: {error}"))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut paths: BTreeSet<&str> = listed.split('\0').filter(|path| root.join(path).is_file()).collect();
        paths.remove("");
        if paths.is_empty() {
            return Err(format!("git lists no file in {}", root.display()));
        }
        for path in &paths {
            let (from, to) = (root.join(path), copy.tree.join(path));
            let done = || {
                let bytes = fs::read(&from)?;
                if fs::read(&to).is_ok_and(|known| known == bytes) {
                    return Ok(());
                }
                fs::create_dir_all(to.parent().unwrap_or(&copy.tree))?;
                fs::write(&to, bytes)
            };
            done().map_err(|error: std::io::Error| format!("{}: {error}", to.display()))?;
        }
        copy.forget(&copy.tree, &paths)?;
        Ok(copy)
    }

    /// Removes what the tree no longer has.
    fn forget(&self, folder: &Path, paths: &BTreeSet<&str>) -> Result<(), String> {
        let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = path.strip_prefix(&self.tree).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                self.forget(&path, paths)?;
            } else if !paths.contains(name.as_str()) {
                fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(())
    }

    fn suffer(&self, defect: &Defect) -> Outcome {
        let mut kept: Vec<(PathBuf, String)> = Vec::new();
        let mut harm = || -> Result<(), String> {
            for change in &defect.change {
                let path = self.tree.join(&change.file);
                let text = crate::read(&self.tree, &change.file)?;
                fs::write(&path, change.of(&text)?).map_err(|error| format!("{}: {error}", path.display()))?;
                kept.push((path, text));
            }
            Ok(())
        };
        let outcome = match harm().and_then(|()| self.failing(defect, &defect.tests().collect::<Vec<_>>())) {
            Ok(passed) if passed.is_empty() => Outcome::Noticed,
            Ok(passed) => Outcome::Unnoticed(passed),
            Err(what) => Outcome::Broken(what),
        };
        for (path, text) in kept.into_iter().rev() {
            // A copy that could not be mended would make the next defect two.
            if let Err(error) = fs::write(&path, text) {
                return Outcome::Broken(format!("{} could not be mended: {error}", path.display()));
            }
        }
        outcome
    }

    fn all_pass(&self, of: &Defect, names: &[&str]) -> Result<(), String> {
        let passed: BTreeSet<String> = self.failing(of, names)?.into_iter().collect();
        let failed: Vec<&str> = names.iter().copied().filter(|name| !passed.contains(*name)).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("these tests fail already: {}", failed.join(", "))) }
    }

    /// Builds the test program and gives those of the tests that do **not** fail.
    fn failing(&self, of: &Defect, names: &[&str]) -> Result<Vec<String>, String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["test", "--locked", "--no-run", "--message-format", "json", "--package", &of.package()]);
        cargo.args(&of.target).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // What cargo told this program of itself would make build scripts run once more.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"].iter().any(|start| text.starts_with(start)) {
                cargo.env_remove(name);
            }
        }
        let built = cargo.stdin(Stdio::null()).output().map_err(|error| format!("cargo: {error}"))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            let error = said.lines().find(|line| line.starts_with("error")).or_else(|| said.lines().last());
            return Err(format!("the copy does not build ({}): {}", built.status, error.unwrap_or_default()));
        }
        let messages = String::from_utf8_lossy(&built.stdout).into_owned();
        let programs: Vec<String> = messages.lines().filter_map(program).map(|(.., path)| path).collect();
        let mut passed = Vec::new();
        for name in names {
            if !self.fails(&programs, of.room(), name)? {
                passed.push((*name).to_owned());
            }
        }
        Ok(passed)
    }

    /// Whether the one test that has this name fails.
    fn fails(&self, programs: &[String], room: &str, name: &str) -> Result<bool, String> {
        for program in programs {
            let listed = Command::new(program).args(["--list", "--format", "terse"]).output();
            let listed = listed.map_err(|error| format!("{program}: {error}"))?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let Some(test) = listed.lines().filter_map(|line| named(room, line)).find(|test| test.name == name) else {
                continue;
            };
            let mut run = Command::new(program);
            run.args(["--exact", &test.full]).current_dir(self.tree.join("crates").join(room));
            if !self.tree.join("crates").join(room).is_dir() {
                run.current_dir(&self.tree);
            }
            return match within(&mut run, PATIENCE)? {
                Some(status) => Ok(!status.success()),
                None => Err(format!("`{name}` does not end")),
            };
        }
        Err(format!("no test program has `{name}`"))
    }
}

/// How a program ended, if it did.
fn within(command: &mut Command, limit: Duration) -> Result<Option<ExitStatus>, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFECT: &str = "mitigation = \"T02.1\"\nsays = \"It grants.\"\ntarget = [\"--lib\"]\nfails = [\"sts::t02_sts_a::b\"]\n\
                          [[change]]\nfile = \"a.rs\"\nfrom = \"deny\"\nto = \"allow\"\n";

    fn model() -> Model {
        let mitigation = "id = \"T02.1\"\nsays = \"x\"\nroom = \"sts\"\nproof = []\n";
        let threat = "[[threat]]\nid = \"T02\"\ntitle = \"x\"\nasset = \"x\"\nkinds = []\n";
        let text = format!("claim = \"x\"\nfamily = []\nboundary = []\n{threat}[[threat.mitigation]]\n{mitigation}");
        Model::parse(&text).unwrap()
    }

    fn found(id: &str, defect: &str, source: &'static str) -> Vec<String> {
        let defects = [Defect::parse(id, defect).unwrap()];
        findings(&defects, &model(), "sts::t02_sts_a::b\n", |file| match file {
            "a.rs" => Ok(source.to_owned()),
            other => Err(format!("{other}: not there")),
        })
    }

    #[test]
    fn t11_drift_a_defect_that_no_longer_fits_is_reported_without_building_it() {
        let id = "T02.1-grants";
        assert_eq!(found(id, DEFECT, "deny by default"), Vec::<String>::new());
        for (id, from, to, source, what) in [
            (id, "", "", "refuse by default", "is no longer in a.rs"),
            (id, "", "", "deny, deny", "is 2 times in a.rs"),
            (id, "\"allow\"", "\"deny\"", "deny", "changes nothing"),
            (id, "a.rs", "b.rs", "deny", "b.rs: not there"),
            (id, "a::b", "a::c", "deny", "there is no test `sts::t02_sts_a::c`"),
            (id, "\"T02.1\"", "\"T02.9\"", "deny", "there is no mitigation `T02.9`"),
            ("T03.1-x", "", "", "deny", "its name begins with `T02.1-`"),
            (id, "[\"sts::t02_sts_a::b\"]", "[]", "deny", "names a change and a test"),
        ] {
            let found = found(id, &DEFECT.replace(from, to), source);
            assert!(found.iter().any(|finding| finding.contains(what)), "{what}: {found:?}");
        }
        assert!(Defect::parse(id, &DEFECT.replace("says", "said")).is_err());
    }

    #[test]
    fn t11_drift_an_answered_threat_without_a_defect_is_reported() {
        let found = findings(&[], &model(), "", |_| Ok(String::new()));
        assert_eq!(found, ["nothing in docs/threat-model/sabotage shows that the tests of T02 have teeth"]);
    }

    #[test]
    fn t11_drift_a_defect_that_nobody_notices_fails_the_run_and_is_named() {
        let defect = Defect::parse("T02.1-grants", DEFECT).unwrap();
        assert_eq!(report(&[(&defect, Outcome::Noticed, 1.0)], false), Ok("1 of 1 defects were noticed".to_owned()));
        for (outcome, words) in [
            (Outcome::Unnoticed(vec!["t02_sts_a::b".to_owned()]), ["unnoticed", "t02_sts_a::b"]),
            (Outcome::Broken("the copy does not build".to_owned()), ["not tried", "does not build"]),
        ] {
            let results = [(&defect, outcome, 1.0)];
            let (text, parsed) = (report(&results, false).unwrap_err(), report(&results, true).unwrap_err());
            assert!(text.contains("T02.1-grants") && text.contains("0 of 1") && text.contains(words[1]), "{text}");
            let parsed: Value = serde_json::from_str(&parsed).unwrap();
            assert_eq!((&parsed["noticed"], &parsed["defects"][0]["outcome"]), (&json!(0), &json!(words[0])));
        }
    }

    #[test]
    fn t11_drift_a_name_selects_a_defect_a_mitigation_or_a_threat() {
        let defect = Defect::parse("T02.1-grants", DEFECT).unwrap();
        for (name, is_meant) in
            [("T02.1-grants", true), ("T02.1", true), ("T02", true), ("T0", false), ("T02.10", false)]
        {
            assert_eq!(matches(&defect, name), is_meant, "{name}");
        }
        assert_eq!((defect.room(), defect.package().as_str()), ("sts", "caracal-sts"));
    }

    #[test]
    fn t11_drift_every_defect_of_this_tree_still_fits_its_code() {
        let root = crate::root();
        let tests = crate::read(root, crate::TESTS).unwrap();
        let found = findings(&all(root).unwrap(), &crate::model(root).unwrap(), &tests, |file| crate::read(root, file));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
