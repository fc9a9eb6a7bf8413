//! What is wrong between the model, the tests that there are, the tests that ran, and the list of what is open.

use std::collections::{BTreeMap, BTreeSet};

use crate::engines::{self, Engine};
use crate::faults::Faults;
use crate::listing::Listed;
use crate::model::{By, Kind, Model, Proof};

/// What the tree holds beside the model.
pub(crate) struct Tree<'a> {
    pub(crate) tests: &'a [Listed],
    /// `room/target` of every fuzz target.
    pub(crate) fuzz_targets: BTreeSet<String>,
    /// Chores that run in every build.
    pub(crate) chores: BTreeSet<String>,
    /// Rooms whose tests run on the embedded engine and on PostgreSQL.
    pub(crate) on_both: BTreeSet<String>,
    /// Folders that may hold a mitigation.
    pub(crate) rooms: BTreeSet<String>,
    /// `docs/threat-model/faults.toml`.
    pub(crate) faults: &'a Faults,
    /// `docs/threat-model/open.txt`.
    pub(crate) open: &'a str,
    /// `docs/threat-model/tests.txt`.
    pub(crate) inventory: &'a str,
}

/// What a run reported.
pub(crate) struct Ran<'a> {
    /// What the stores of the tests that say nothing else were on.
    pub(crate) engine: Engine,
    /// How often each full name passed.
    pub(crate) passed: BTreeMap<&'a str, usize>,
    /// The rooms whose tests ran there; all of them where this is empty.
    pub(crate) rooms: BTreeSet<String>,
}

/// Every finding, in the words of whoever has to mend it.
pub(crate) fn findings(model: &Model, tree: &Tree<'_>, runs: &[Ran<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    identities(model, &mut found);
    for mitigation in model.mitigations() {
        if !tree.rooms.contains(&mitigation.room) {
            found.push(format!("{}: there is no room `{}`", mitigation.id, mitigation.room));
        }
        if mitigation.proof.is_empty() {
            found.push(format!("{}: nothing proves it", mitigation.id));
        }
        for proof in &mitigation.proof {
            found.extend(missing(proof, tree).map(|what| format!("{}: {what}", mitigation.id)));
        }
    }
    orphans(model, tree, &mut found);
    open_ends(model, tree, &mut found);
    found.extend(tree.faults.findings(tree.tests));
    found.extend(drifted(&inventory(tree.tests), tree.inventory));
    found.extend(engines::findings(model, tree, runs));
    for ran in runs {
        not_run(tree.tests, ran, &mut found);
    }
    found
}

/// The names that the runner lists and the tree does not, and the other way round.
fn drifted(listed: &str, committed: &str) -> Vec<String> {
    let names = |text: &'_ str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    let (now, then) = (names(listed), names(committed));
    let gone = then.difference(&now).map(|name| {
        format!(
            "the test `{name}` is gone: bring it back, or, where something else shows the same, write \
                 docs/threat-model/tests.txt by `cargo xtask threat-model write` and say so in review"
        )
    });
    let new = now.difference(&then).map(|name| {
        format!(
            "the test `{name}` is not in docs/threat-model/tests.txt: `cargo xtask threat-model write` puts it there"
        )
    });
    let mut found: Vec<String> = gone.chain(new).collect();
    if found.is_empty() && listed != committed {
        found.push("docs/threat-model/tests.txt is not as `cargo xtask threat-model write` writes it".to_owned());
    }
    found
}

/// Ids that mean two things, or belong to nobody.
fn identities(model: &Model, found: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for threat in &model.threat {
        if !seen.insert(threat.id.as_str()) {
            found.push(format!("{} is there twice", threat.id));
        }
        for mitigation in &threat.mitigation {
            if !seen.insert(mitigation.id.as_str()) {
                found.push(format!("{} is there twice", mitigation.id));
            }
            if !mitigation.id.starts_with(&format!("{}.", threat.id)) {
                found.push(format!("{} stands under {}", mitigation.id, threat.id));
            }
        }
    }
}

/// Why a proof is none.
fn missing(proof: &Proof, tree: &Tree<'_>) -> Option<String> {
    let in_room = |path: &str, matches: fn(&Listed, &str) -> bool| {
        path.split_once("::")
            .is_some_and(|(room, name)| tree.tests.iter().any(|test| test.room == room && matches(test, name)))
    };
    match &proof.by {
        By::Test(path) => {
            (!in_room(path, |test, name| test.name == name)).then(|| format!("there is no test `{path}`"))
        }
        By::Tests(path) => {
            (!in_room(path, |test, name| test.segment() == name)).then(|| format!("there are no tests `{path}`"))
        }
        By::Fuzz(target) => {
            if !tree.fuzz_targets.contains(target) {
                return Some(format!("there is no fuzz target `{target}`"));
            }
            // A target runs for a night; what it starts from and has found is held in every build.
            let (room, name) = target.split_once('/').unwrap_or_default();
            let replays = |test: &&Listed| {
                let words: Vec<&str> = test.name.split(['_', ':']).collect();
                test.room == room && words.contains(&"corpus") && words.contains(&name)
            };
            (!tree.tests.iter().any(|test| replays(&test)))
                .then(|| format!("no test of `{room}` gives the corpus to the fuzz target `{name}`"))
        }
        // That the whole suite runs is what names are checked for; it argues for nothing in particular.
        By::Chore(chore) if chore == "test" && proof.kind != Kind::Check => {
            Some(format!("the whole suite is no {} proof: name the tests", proof.kind.name()))
        }
        By::Chore(chore) => (!tree.chores.contains(chore)).then(|| format!("no build runs the chore `{chore}`")),
    }
}

/// Tests that carry a threat's name, and that no mitigation of that threat names.
fn orphans(model: &Model, tree: &Tree<'_>, found: &mut Vec<String>) {
    let mut named: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for threat in &model.threat {
        for proof in threat.mitigation.iter().flat_map(|mitigation| &mitigation.proof) {
            if let By::Test(path) | By::Tests(path) = &proof.by
                && let Some((room, name)) = path.split_once("::")
            {
                named.insert((&threat.id, room, name));
            }
        }
    }
    let mut said = BTreeSet::new();
    for test in tree.tests {
        let threat = test.threat();
        let is_named = [test.segment(), &test.name].iter().any(|name| named.contains(&(&threat, &test.room, name)));
        if !is_named && said.insert((&test.room, test.segment())) {
            found.push(format!("no mitigation of {threat} names the tests `{}::{}`", test.room, test.segment()));
        }
    }
}

/// Claims and kinds of proof that nobody makes, against the list that says so.
fn open_ends(model: &Model, tree: &Tree<'_>, found: &mut Vec<String>) {
    let universe = model.universe();
    let mut claimed = BTreeSet::new();
    for mitigation in model.mitigations() {
        for claim in &mitigation.claims {
            if universe.contains(claim) {
                claimed.insert(claim.clone());
            } else {
                found.push(format!("{}: nobody knows the claim `{claim}`", mitigation.id));
            }
        }
    }
    let mut lacking: BTreeSet<String> = universe.difference(&claimed).cloned().collect();
    lacking.extend(tree.faults.open());
    for threat in &model.threat {
        let proved: BTreeSet<Kind> =
            threat.mitigation.iter().flat_map(|mitigation| &mitigation.proof).map(|proof| proof.kind).collect();
        lacking.extend(threat.kinds.difference(&proved).map(|kind| format!("{} {}", threat.id, kind.name())));
    }
    let open: BTreeSet<String> =
        tree.open.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect();
    for what in lacking.difference(&open) {
        found.push(format!("`{what}` is neither claimed by a mitigation nor in docs/threat-model/open.txt"));
    }
    for what in open.difference(&lacking).filter(|what| !what.is_empty()) {
        found.push(format!("`{what}` is in docs/threat-model/open.txt and not open: take it out"));
    }
}

/// Tests that there are, and that did not run and pass.
fn not_run(tests: &[Listed], ran: &Ran<'_>, found: &mut Vec<String>) {
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for test in tests.iter().filter(|test| ran.rooms.is_empty() || ran.rooms.contains(&test.room)) {
        *expected.entry(&test.full).or_default() += 1;
    }
    for (name, times) in expected {
        let passed = ran.passed.get(name).copied().unwrap_or_default();
        if passed < times {
            found.push(format!("`{name}` passed {passed} times of {times} on {}", ran.engine.said()));
        }
    }
}

/// The committed list of the tests, one a line.
pub(crate) fn inventory(tests: &[Listed]) -> String {
    let mut lines: Vec<String> = tests.iter().map(Listed::line).collect();
    lines.sort();
    lines.concat()
}
