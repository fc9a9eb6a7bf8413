//! Where a test lies: the file that holds it, so that the chapter leads there by one click.
//!
//! It is found by reading, as a newcomer would: the function by its name, in the file that opens the test's segment. Names
//! that a macro or a table gives to tests are found where they are written.

use std::collections::BTreeMap;

use crate::surface::Source;

/// The texts of the tree, as far as tests can be in them.
pub(crate) struct Places<'a> {
    /// By room: path and text.
    rooms: BTreeMap<&'a str, Vec<(&'a str, &'a str)>>,
    /// By room and name: the files that open a module of that name, or are one.
    modules: BTreeMap<(&'a str, &'a str), Vec<&'a str>>,
    /// The same for functions.
    functions: BTreeMap<(&'a str, &'a str), Vec<&'a str>>,
}

impl<'a> Places<'a> {
    pub(crate) fn of(sources: &'a [Source]) -> Self {
        let mut places = Self { rooms: BTreeMap::new(), modules: BTreeMap::new(), functions: BTreeMap::new() };
        for (path, text) in sources.iter().filter(|(path, _)| path.ends_with(".rs")) {
            let Some(room) = room_of(path) else { continue };
            places.rooms.entry(room).or_default().push((path, text));
            let own = path.rsplit('/').next().and_then(|file| file.strip_suffix(".rs")).into_iter();
            for module in own.chain(named(text, "mod ", '{')) {
                note(&mut places.modules, (room, module), path);
            }
            for function in named(text, "fn ", '(') {
                note(&mut places.functions, (room, function), path);
            }
        }
        places
    }

    /// The folder of a room.
    pub(crate) fn folder(room: &str) -> String {
        match room {
            "xtask" => room.to_owned(),
            "assurance" => "xtask/assurance".to_owned(),
            room => format!("crates/{room}"),
        }
    }

    /// The files of a room that open a segment, or have it as a test's own name.
    pub(crate) fn segment(&self, room: &str, segment: &str) -> Vec<&'a str> {
        let (modules, functions) = (self.modules.get(&(room, segment)), self.functions.get(&(room, segment)));
        let mut found: Vec<&str> = modules.into_iter().chain(functions).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { self.naming(room, segment).collect() } else { found }
    }

    /// The file of one test, `name` being what follows its room.
    pub(crate) fn test(&self, room: &str, name: &str) -> Option<&'a str> {
        let (segment, last) = (name.split("::").next()?, name.rsplit("::").next()?);
        let (opened, functions) = (self.segment(room, segment), self.functions.get(&(room, last)));
        let mut written = functions.into_iter().flatten().copied();
        let in_segment = written.clone().find(|path| opened.contains(path));
        in_segment.or_else(|| written.next()).or_else(|| self.naming(room, last).next())
    }

    fn naming(&self, room: &str, name: &str) -> impl Iterator<Item = &'a str> {
        let texts = self.rooms.get(room).into_iter().flatten();
        texts.filter(move |(_, text)| text.contains(name)).map(|(path, _)| *path)
    }
}

fn note<'a>(names: &mut BTreeMap<(&'a str, &'a str), Vec<&'a str>>, name: (&'a str, &'a str), path: &'a str) {
    let paths = names.entry(name).or_default();
    if paths.last() != Some(&path) {
        paths.push(path);
    }
}

fn room_of(path: &str) -> Option<&str> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["xtask", "assurance", ..] => Some("assurance"),
        ["xtask", ..] => Some("xtask"),
        ["crates", room, ..] => Some(room),
        _ => None,
    }
}

/// The names between a word and a sign: `fn it_holds(`.
fn named<'a>(text: &'a str, word: &'static str, sign: char) -> impl Iterator<Item = &'a str> {
    text.split(word).skip(1).filter_map(move |rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let (name, behind) = rest.split_at_checked(end)?;
        behind.trim_start().starts_with(sign).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t11_drift_a_test_is_found_in_the_file_that_opens_its_segment() {
        let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let sources = [
            source("crates/a/src/one.rs", "fn it_holds() {}"),
            source("crates/a/src/two.rs", "mod t01_x {\n fn it_holds() {}\n}"),
            source("crates/a/src/t02_y.rs", "fn it_stays() {}"),
            source("crates/a/tests/three.rs", "fn t03_z_it_is_so() {}\nfor_each!(t04_w, it_is_made);"),
            source("crates/b/src/two.rs", "mod t01_x {\n fn another() {}\n}"),
        ];
        let places = Places::of(&sources);
        for (name, path) in [
            ("t01_x::it_holds", Some("crates/a/src/two.rs")),
            ("t02_y::it_stays", Some("crates/a/src/t02_y.rs")),
            ("t03_z_it_is_so", Some("crates/a/tests/three.rs")),
            ("t04_w::it_is_made", Some("crates/a/tests/three.rs")),
            ("t01_x::another", None),
        ] {
            assert_eq!(places.test("a", name), path, "{name}");
        }
        assert_eq!(places.segment("a", "t01_x"), ["crates/a/src/two.rs"]);
        assert_eq!(places.segment("b", "t02_y"), Vec::<&str>::new());
    }

    /// What the chapter says of each test, a newcomer can open; that the files are there, `cargo xtask tidy` sees by its
    /// links.
    #[test]
    fn t11_drift_every_test_of_this_tree_leads_to_a_file_that_has_its_name() {
        let root = crate::root();
        let sources = crate::sources(root).unwrap();
        let places = Places::of(&sources);
        for line in crate::read(root, crate::TESTS).unwrap().lines() {
            let (room, name) = line.split(' ').next().unwrap().split_once("::").unwrap();
            let path = places.test(room, name).unwrap_or_else(|| panic!("no file has {line}"));
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            assert!(text.contains(name.rsplit("::").next().unwrap()), "{line} is not in {path}");
        }
    }

    #[test]
    fn t11_drift_every_answer_of_the_chapter_leads_to_its_room_and_every_proof_to_its_file() {
        let root = crate::root();
        let page = crate::read(root, crate::PAGE).unwrap();
        let threats = page.split("## Threats\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let (mut answers, mut proofs) = (0, 0);
        for line in threats.lines() {
            let links: Vec<&str> = line.split("](../").skip(1).filter_map(|rest| rest.split(')').next()).collect();
            if line.starts_with("- **T") {
                assert_eq!(links.len(), 1, "{line}");
                assert!(root.join(links[0]).is_dir(), "{line}");
                answers += 1;
            } else if line.starts_with("  - ") && !line.contains("cargo xtask") {
                assert!(!links.is_empty() && links.iter().all(|link| root.join(link).is_file()), "{line}");
                proofs += 1;
            }
        }
        assert!(answers > 60 && proofs > 300, "{answers} {proofs}");
    }
}
