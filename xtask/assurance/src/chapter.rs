//! The chapter of the book that is generated from the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::engines::Engine;
use crate::faults::Faults;
use crate::listing::Listed;
use crate::model::{By, Model, Proof};
use crate::places::Places;
use crate::sabotage::Defect;
use crate::surface::Surface;

/// The whole page.
pub(crate) fn write(
    model: &Model,
    tests: &[Listed],
    open: &str,
    surface: &Surface,
    faults: &Faults,
    places: &Places<'_>,
    defects: &[Defect],
) -> String {
    let mut page = String::from("# Threat model\n\n");
    let _ = writeln!(page, "{}\n", model.claim.trim());
    page.push_str(
        "This page is generated from [threat-model.toml](threat-model.toml) and the files beside [open.txt](threat-model/open.txt), which say for every threat what answers it, which room of the tree holds that answer, \
         and which tests fail without it. `cargo xtask threat-model` fails when one of them is missing, did not run, or is claimed by nobody. To look something up: find \
         the threat, then the mitigation; its room leads to the folder that holds it, and each proof to the file of its tests, in which they are found by the name after the last `::`. Where a defect \
         is kept that takes the answer away, it leads to the very lines: `cargo xtask sabotage` puts it in, and the tests named there fail.\n\n",
    );
    page.push_str("## Boundaries\n\n| Between | Not trusted | Who mediates |\n|---|---|---|\n");
    for boundary in &model.boundary {
        let _ = writeln!(page, "| {} | {} | {} |", boundary.between, boundary.distrusts, boundary.mediator);
    }
    page.push_str("\n## At a glance\n\n| Threat | What goes wrong | Mitigations | Tests |\n|---|---|---|---|\n");
    for threat in &model.threat {
        let count = tests.iter().filter(|test| test.threat() == threat.id).count();
        let anchor = threat.id.to_lowercase();
        let _ =
            writeln!(page, "| [{}](#{anchor}) | {} | {} | {count} |", threat.id, threat.title, threat.mitigation.len());
    }
    page.push_str("\n## Threats\n\n");
    page.push_str(&on_engines(model));
    for threat in &model.threat {
        let _ = writeln!(page, "### {}\n\n**{}.** At stake: {}.\n", threat.id, threat.title, threat.asset);
        if threat.mitigation.is_empty() {
            let kinds: Vec<&str> = threat.kinds.iter().map(|kind| kind.name()).collect();
            let _ = writeln!(
                page,
                "No answer yet: what it threatens is not in the tree. Proofs of these kinds are wanted: {}.",
                kinds.join(", ")
            );
        }
        for mitigation in &threat.mitigation {
            let claims: Vec<&str> = mitigation.claims.iter().map(String::as_str).collect();
            let claims = if claims.is_empty() { String::new() } else { format!(" ({})", claims.join(", ")) };
            let _ = writeln!(
                page,
                "- **{}** {} — room [`{}`](../{}){claims}",
                mitigation.id,
                mitigation.says.trim(),
                mitigation.room,
                Places::folder(&mitigation.room)
            );
            for proof in &mitigation.proof {
                let _ = writeln!(page, "  - {}", told(proof, tests, places));
            }
            for defect in defects.iter().filter(|defect| defect.mitigation == mitigation.id) {
                let _ = writeln!(page, "  - {}", put_in(defect, places));
            }
        }
        page.push('\n');
    }
    faults.write(&mut page, places);
    page.push_str(
        "## What there is to touch\n\nRead off the sources in every build. Each line of [inventory.toml](threat-model/inventory.toml) names the threats \
         it takes part in; a new route, table, topic, setting, way out, listener, program or package fails `cargo xtask threat-model` until it has its line.\n\n\
         | Kind | How many |\n|---|---|\n",
    );
    for (kind, count) in surface.counts() {
        let _ = writeln!(page, "| {kind} | {count} |");
    }
    page.push('\n');
    page.push_str(
        "## What is open\n\nClaims of the contract and kinds of proof that no mitigation above names. That does not mean untested: it means that nobody has yet \
         said which test would notice. The list, [open.txt](threat-model/open.txt), only shrinks.\n\n",
    );
    let open: BTreeSet<&str> = open
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    page.push_str("| Claims | What they are | Answered | Open |\n|---|---|---|---|\n");
    for family in &model.family {
        let all = || (1..=family.last).map(|number| format!("{}{number}", family.prefix));
        let left: Vec<String> = all().filter(|claim| open.contains(claim.as_str())).collect();
        let (prefix, last, answered) = (&family.prefix, family.last, all().count() - left.len());
        let _ = writeln!(page, "| {prefix}1 to {prefix}{last} | {} | {answered} | {} |", family.says, left.join(", "));
    }
    let kinds: Vec<&str> = open.iter().copied().filter(|entry| entry.contains(' ')).collect();
    let _ = writeln!(page, "\nKinds of proof that are wanted and not there: {}.", kinds.join(", "));
    page
}

/// Where a defect goes, what it would bring about, and who notices.
fn put_in(defect: &Defect, places: &Places<'_>) -> String {
    let mut files: Vec<&str> = defect.files().collect();
    files.dedup();
    let code: Vec<String> = files.iter().map(|file| linked(file, &[file])).collect();
    let tests: Vec<String> = defect.fails.iter().map(|test| test_link(test, places)).collect();
    format!(
        "defect [`{}`](threat-model/sabotage/{}.toml) in {}: {} Noticed by {}",
        defect.id,
        defect.id,
        code.join(", "),
        defect.says,
        tests.join(", ")
    )
}

/// One test, leading to its file.
pub(crate) fn test_link(path: &str, places: &Places<'_>) -> String {
    let file = path.split_once("::").and_then(|(room, name)| places.test(room, name));
    linked(path, file.as_slice())
}

/// What the proofs of a room hold on where they do not say otherwise.
fn on_engines(model: &Model) -> String {
    let mut by_engines = BTreeMap::<&BTreeSet<Engine>, Vec<String>>::new();
    for (room, engines) in model.engines.iter().filter(|(_, engines)| !engines.is_empty()) {
        by_engines.entry(engines).or_default().push(format!("`{room}`"));
    }
    let told: Vec<String> = by_engines
        .iter()
        .map(|(engines, rooms)| format!("on {} those of {}", together(engines), rooms.join(", ")))
        .collect();
    format!(
        "Where a proof does not name its engines, its tests have run and passed on all that its room names: {}. The tests of other rooms keep nothing, or are started on what they are about.\n\n",
        told.join("; ")
    )
}

fn together(engines: &BTreeSet<Engine>) -> String {
    engines.iter().map(|engine| engine.said()).collect::<Vec<_>>().join(" and ")
}

fn told(proof: &Proof, tests: &[Listed], places: &Places<'_>) -> String {
    let kind = proof.kind.name();
    let on = match &proof.engines {
        Some(engines) if !engines.is_empty() => format!(", on {}", together(engines)),
        _ => String::new(),
    };
    match &proof.by {
        By::Test(path) => format!("{kind}: {}{on}", test_link(path, places)),
        By::Tests(path) => {
            let count = tests.iter().filter(|test| format!("{}::{}", test.room, test.segment()) == *path).count();
            let files = path.split_once("::").map(|(room, segment)| places.segment(room, segment)).unwrap_or_default();
            let tests = if count == 1 { "test" } else { "tests" };
            format!("{kind}: {}, {count} {tests}{on}", linked(path, &files))
        }
        By::Fuzz(target) => {
            let file = target.split_once('/').map(|(room, name)| format!("crates/{room}/fuzz/fuzz_targets/{name}.rs"));
            format!("{kind}: fuzz target {}", linked(target, file.as_deref().as_slice()))
        }
        By::Chore(chore) => format!("{kind}: `cargo xtask {chore}` in every build"),
    }
}

/// A name that leads to its file; to further ones by their numbers, where it lies in several.
fn linked(name: &str, files: &[&str]) -> String {
    let mut text = match files.first() {
        Some(file) => format!("[`{name}`](../{file})"),
        None => format!("`{name}`"),
    };
    for (number, file) in files.iter().enumerate().skip(1) {
        let _ = write!(text, " [{}](../{file})", number + 1);
    }
    text
}
