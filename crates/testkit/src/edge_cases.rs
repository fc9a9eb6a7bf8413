//! Holds a room's table of edge cases to the tests that show them: each row of a contract's "Edge cases worth a test" names
//! its tests, and [`unproved`] says which of them are not there. So a row loses its proof only together with a line of the
//! table, where whoever reads the change sees it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A row as the contract has it, and the tests that show it.
///
/// A test is named `file::test`: a file of the table's own folder by its name, any other by its path below `crates` without
/// ending. `room::test` is a test anywhere in that room.
pub type Row = (&'static str, &'static [&'static str]);

/// What is wrong with a table that lies in the folder `home` below `crates`: rows of the contract that are missing or there
/// twice, rows without a test, names of what is no test or would not run.
pub fn unproved(home: &str, rows: &[Row], of_the_contract: usize) -> Vec<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    unproved_in(&crates, home, rows, of_the_contract)
}

fn unproved_in(crates: &Path, home: &str, rows: &[Row], of_the_contract: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if rows.len() != of_the_contract {
        wrong.push(format!("{} rows, and the contract has {of_the_contract}", rows.len()));
    }
    let mut places = BTreeMap::new();
    for (at, (row, named)) in rows.iter().enumerate() {
        if rows.iter().take(at).any(|(earlier, _)| earlier == row) {
            wrong.push(format!("{row}: is there twice"));
        }
        if named.is_empty() {
            wrong.push(format!("{row}: nothing shows it"));
        }
        for test in *named {
            let (place, function) = test.rsplit_once("::").unwrap_or(("", test));
            let tests = places.entry(place).or_insert_with(|| tests_of(&sources(crates, home, place)));
            match tests.get(function) {
                Some(Runs::Always) => {}
                Some(Runs::OnRequest) => wrong.push(format!("{row}: `{test}` is ignored")),
                None => wrong.push(format!("{row}: there is no test `{test}`")),
            }
        }
    }
    wrong
}

/// The sources that a name's first part means.
fn sources(crates: &Path, home: &str, place: &str) -> Vec<PathBuf> {
    let below = if place.contains('/') { crates.to_owned() } else { crates.join(home) };
    let file = below.join(format!("{place}.rs"));
    if file.is_file() {
        return vec![file];
    }
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests"].map(|folder| crates.join(place).join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// In two parts: what looks for words in sources is not to find it here.
const IGNORED: &str = concat!("#[ign", "ore");

/// Whether the runner runs a test without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    Always,
    OnRequest,
}

fn tests_of(files: &[PathBuf]) -> BTreeMap<String, Runs> {
    let mut tests = BTreeMap::new();
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        // Attributes and function stand on lines of their own: a helper that a row may look like is no test.
        let (mut is_test, mut runs) = (false, Runs::Always);
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if line.starts_with(IGNORED) {
                runs = Runs::OnRequest;
            } else if let Some((_, name)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
                if is_test {
                    tests.insert(name.split(['(', '<']).next().unwrap_or(name).to_owned(), runs);
                }
                (is_test, runs) = (false, Runs::Always);
            }
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::directory::Directory;

    const SOURCE: &str = concat!(
        "
        fn a_helper() {}
        #[test]
        fn it_holds() {}
        #[tokio::test(flavor = \"multi_thread\")]
        async fn it_holds_at_once() {}
        #[test]
        #[ign",
        "ore = \"takes an hour\"]
        fn it_holds_for_an_hour() {}
        // #[test] and a comment about fn nothing() {}
        fn another_helper() {}
    "
    );

    fn wrong_with(rows: &[Row], of_the_contract: usize) -> Vec<String> {
        let crates = Directory::create("edge-cases").unwrap();
        for file in ["room/tests/it/here.rs", "room/src/inner/deep.rs", "other/tests/there.rs"] {
            let path = crates.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, SOURCE).unwrap();
        }
        unproved_in(crates.path(), "room/tests/it", rows, of_the_contract)
    }

    #[test]
    fn tests_are_found_beside_the_table_by_path_and_anywhere_in_a_room() {
        let named = &[
            "here::it_holds",
            "here::it_holds_at_once",
            "other/tests/there::it_holds",
            "room::it_holds",
            "other::it_holds",
        ];
        assert_eq!(wrong_with(&[("a row", named)], 1), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_test_proves_nothing() {
        let lines: [&[&str]; 9] = [
            &["here::a_helper"],
            &["here::another_helper"],
            &["here::nothing"],
            &["here::it_held"],
            &["there::it_holds"],
            &["other/tests/here::it_holds"],
            &["nowhere::it_holds"],
            &["it_holds"],
            &["here::it_holds_for_an_hour"],
        ];
        for named in lines {
            assert_eq!(wrong_with(&[("a row", named)], 1).len(), 1, "{named:?}");
        }
    }

    #[test]
    fn rows_are_there_once_and_all_and_each_with_a_test() {
        let shown: &[&str] = &["here::it_holds"];
        assert_eq!(wrong_with(&[("a row", shown)], 2), ["1 rows, and the contract has 2"]);
        assert_eq!(wrong_with(&[("a row", shown), ("a row", shown)], 2), ["a row: is there twice"]);
        assert_eq!(wrong_with(&[("a row", &[])], 1), ["a row: nothing shows it"]);
    }
}
