//! The fault matrix: what must hold when a part of a system is killed, paused, breaks, or comes back with less, and the
//! tests that hold it to that. A cell without a test, or whose tests leave something out, stands in the list of what is
//! open, so that nobody takes the table for more than it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;

use crate::chapter::test_link;
use crate::listing::Listed;
use crate::places::Places;

/// The file.
pub(crate) const FAULTS: &str = "docs/threat-model/faults.toml";

/// What can happen to a part, as the file and as people say it.
const KINDS: [(&str, &str); 4] = [
    ("killed", "killed, power cut"),
    ("slow", "paused, slow"),
    ("errors", "errors, full, garbage"),
    ("less", "comes back with less"),
];

/// One part under one fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    must: String,
    /// `room::t08_availability::a_sentence`.
    tests: Vec<String>,
    /// What they leave out.
    lacks: Option<String>,
}

/// The matrix.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Faults(BTreeMap<String, BTreeMap<String, Cell>>);

impl Faults {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("{FAULTS}: {error}"))
    }

    fn cells(&self) -> impl Iterator<Item = (&str, &str, &Cell)> {
        self.0
            .iter()
            .flat_map(|(part, cells)| cells.iter().map(move |(fault, cell)| (part.as_str(), fault.as_str(), cell)))
    }

    /// Parts and the faults they are asked about.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cells().map(|(part, fault, _)| (part, fault))
    }

    /// What stands in the list of what is open.
    pub(crate) fn open(&self) -> impl Iterator<Item = String> {
        let is_open = |cell: &Cell| cell.tests.is_empty() || cell.lacks.is_some();
        self.cells().filter(move |(.., cell)| is_open(cell)).map(|(part, fault, _)| format!("fault {part} {fault}"))
    }

    /// What is wrong with it.
    pub(crate) fn findings(&self, tests: &[Listed]) -> Vec<String> {
        let known: BTreeSet<String> = tests.iter().map(|test| format!("{}::{}", test.room, test.name)).collect();
        let mut found = Vec::new();
        for (part, fault, cell) in self.cells() {
            if !KINDS.iter().any(|(kind, _)| *kind == fault) {
                found.push(format!("{FAULTS}: `{fault}` of {part} is no fault"));
            }
            for test in cell.tests.iter().filter(|test| !known.contains(*test)) {
                found.push(format!("{FAULTS}: {part}, {fault}: there is no test `{test}`"));
            }
        }
        found
    }

    /// The table of the chapter.
    pub(crate) fn write(&self, page: &mut String, places: &Places<'_>) {
        page.push_str(
            "## When parts fail\n\nFor each part and each thing that can happen to it: what must then hold, and the tests that show it. Where tests leave something out, it is said.\n\n",
        );
        for (part, cells) in &self.0 {
            let _ = writeln!(page, "**{part}**\n");
            for (kind, told) in KINDS {
                let Some(cell) = cells.get(kind) else { continue };
                let tests: Vec<String> = cell.tests.iter().map(|test| test_link(test, places)).collect();
                let tests = if tests.is_empty() { "no test yet".to_owned() } else { tests.join(", ") };
                let lacks = cell.lacks.as_ref().map_or_else(String::new, |lacks| format!(" (open: {lacks})"));
                let _ = writeln!(page, "- *{told}:* {} — {tests}{lacks}", cell.must);
            }
            page.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::named;

    const CELL: &str = "[STS.killed]\nmust = \"It holds.\"\ntests = [\"sts::t08_availability::a\"]\n";

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let faults = Faults::parse(text).unwrap();
        let tests = [named("sts", "t08_availability::a: test").unwrap()];
        (faults.findings(&tests), faults.open().collect())
    }

    #[test]
    fn t11_drift_a_cell_names_tests_that_there_are_or_is_open() {
        assert_eq!(read(CELL), (vec![], vec![]));
        let none = CELL.replace("\"sts::t08_availability::a\"", "");
        let lacking = format!("{CELL}lacks = \"half of it\"\n");
        for text in [none, lacking] {
            assert_eq!(read(&text), (vec![], vec!["fault STS killed".to_owned()]));
        }
        let (found, _) = read(&CELL.replace("::a\"", "::b\""));
        assert_eq!(found, ["docs/threat-model/faults.toml: STS, killed: there is no test `sts::t08_availability::b`"]);
        let (found, _) = read(&CELL.replace("killed", "bored"));
        assert_eq!(found, ["docs/threat-model/faults.toml: `bored` of STS is no fault"]);
        assert!(Faults::parse(&CELL.replace("must", "may")).is_err());
    }
}
