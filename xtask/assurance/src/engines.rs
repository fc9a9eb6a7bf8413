//! On which engines a proof holds. A test that is silent about its store runs on the one that the run is for, so the suites
//! of some rooms run twice; a test that brings its engine along is known by its module or its program.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::check::{Ran, Tree};
use crate::listing::Listed;
use crate::model::{By, Model};

/// What state lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    Embedded,
    Postgresql,
    Redis,
}

impl Engine {
    /// As the files have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
        }
    }

    /// As people say it.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Self::Embedded => "the embedded engine",
            Self::Postgresql => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Embedded, Self::Postgresql, Self::Redis].into_iter().find(|engine| engine.name() == name)
    }

    /// The engine that a module's name speaks of: `in_postgresql`, `sqlite`, `on_a_redis`.
    pub(crate) fn of_module(module: &str) -> Option<Self> {
        module.split('_').find_map(|word| match word {
            "sqlite" => Some(Self::Embedded),
            "postgresql" => Some(Self::Postgresql),
            "redis" => Some(Self::Redis),
            _ => None,
        })
    }

    /// The engine that a program of tests is about: `tests/postgres.rs`, `tests/redis.rs`.
    pub(crate) fn of_program(program: &str) -> Option<Self> {
        match program {
            "postgres" => Some(Self::Postgresql),
            "redis" => Some(Self::Redis),
            _ => None,
        }
    }
}

/// The rooms whose tests run a second time, as `xtask/src/suite.rs` says it.
pub(crate) fn on_both(suite: &str) -> Result<BTreeSet<String>, String> {
    let list = suite.split_once("ON_BOTH_ENGINES: &[&str] = &[").and_then(|(_, rest)| rest.split_once("];"));
    let (list, _) = list.ok_or("xtask/src/suite.rs does not list what runs ON_BOTH_ENGINES")?;
    let packages = list.split('"').skip(1).step_by(2);
    Ok(packages.map(|package| package.trim_start_matches("caracal-").to_owned()).collect())
}

/// By room and name: a test as often as it is there, once for each engine it may be.
type ByName<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Listed>>;

/// Proofs that name an engine on which their tests do not run, or did not.
pub(crate) fn findings(model: &Model, tree: &Tree<'_>, runs: &[Ran<'_>]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let both = BTreeSet::from([Engine::Embedded, Engine::Postgresql]);
    for room in &tree.on_both {
        if !model.engines.get(room).is_some_and(|engines| engines.is_superset(&both)) {
            found.insert(format!("the suite of `{room}` runs on both engines, and [engines] does not ask for both"));
        }
    }
    let (mut tests, mut segments) = (ByName::new(), ByName::new());
    for test in tree.tests {
        tests.entry((&test.room, &test.name)).or_default().push(test);
        segments.entry((&test.room, test.segment())).or_default().push(test);
    }
    // Who names one test knows it better than who names them all.
    let mut alone = BTreeMap::<&str, BTreeSet<Engine>>::new();
    for proof in model.mitigations().flat_map(|mitigation| &mitigation.proof) {
        if let (By::Test(path), Some(engines)) = (&proof.by, &proof.engines) {
            alone.entry(path).or_default().extend(engines);
        }
    }
    for mitigation in model.mitigations() {
        for proof in &mitigation.proof {
            let (path, of) = match &proof.by {
                By::Test(path) => (path, &tests),
                By::Tests(path) => (path, &segments),
                By::Fuzz(_) | By::Chore(_) => continue,
            };
            let Some((room, name)) = path.split_once("::") else { continue };
            let Some(engines) = proof.engines.as_ref().or_else(|| model.engines.get(room)) else {
                found.insert(format!("[engines] does not say what the tests of `{room}` run on"));
                continue;
            };
            let names: BTreeSet<&str> =
                of.get(&(room, name)).into_iter().flatten().map(|test| test.name.as_str()).collect();
            for name in names {
                let path = format!("{room}::{name}");
                let same = tests.get(&(room, name)).map_or(&[][..], Vec::as_slice);
                for engine in alone.get(path.as_str()).unwrap_or(engines) {
                    if let Some(what) = lacking(tree, runs, same, *engine) {
                        found.insert(format!("{}: `{path}` {what}", mitigation.id));
                    }
                }
            }
        }
    }
    found
}

/// Why a test is no proof on an engine.
fn lacking(tree: &Tree<'_>, runs: &[Ran<'_>], same: &[&Listed], engine: Engine) -> Option<String> {
    let is_on_it = |test: &&&Listed| match test.engine {
        Some(own) => own == engine,
        None => engine == Engine::Embedded || engine == Engine::Postgresql && tree.on_both.contains(&test.room),
    };
    let on_it: Vec<&&Listed> = same.iter().filter(is_on_it).collect();
    let said = engine.said();
    if on_it.is_empty() {
        return Some(format!("does not run on {said}, where it is to hold by its own `engines` or those of its room"));
    }
    let has_passed = |test: &&Listed| {
        let run = if test.engine.is_some() { Engine::Embedded } else { engine };
        let of_room = |ran: &&Ran<'_>| ran.engine == run && (ran.rooms.is_empty() || ran.rooms.contains(&test.room));
        runs.iter().filter(of_room).any(|ran| ran.passed.contains_key(test.full.as_str()))
    };
    (!runs.is_empty() && !on_it.into_iter().any(has_passed)).then(|| format!("did not pass on {said}"))
}
