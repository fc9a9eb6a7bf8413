//! The checker checked: each thing it is for is shown to be reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Ran, Tree, findings, inventory};
use crate::engines::{self, Engine};
use crate::faults::Faults;
use crate::listing::{Listed, named, passed};
use crate::model::{By, Model};

const MODEL: &str = r#"
claim = "It holds."

[[family]]
prefix = "STS-"
last = 2
says = "security properties of the STS"

[[boundary]]
between = "agent and STS"
distrusts = "every byte"
mediator = "the form parser"

[engines]
authority = []
sts = ["embedded", "postgresql"]

[[threat]]
id = "T02"
title = "The STS grants too much"
asset = "authority"
kinds = ["unit", "fuzz"]

[[threat.mitigation]]
id = "T02.1"
says = "Unknown means deny."
room = "sts"
claims = ["STS-1"]
proof = [
  { kind = "unit", test = "sts::t02_sts_form::unknown_is_denied" },
  { kind = "unit", tests = "authority::t02_sts_exchange" },
  { kind = "check", chore = "deny" },
]
"#;

const OPEN: &str = "# what nobody answers for yet\nSTS-2\nT02 fuzz # no target\n";

fn tests() -> Vec<Listed> {
    [("authority", "exchange::t02_sts_exchange::a: test"), ("sts", "t02_sts_form::unknown_is_denied: test")]
        .into_iter()
        .map(|(room, line)| named(room, line).unwrap())
        .collect()
}

struct Given {
    model: String,
    tests: Vec<Listed>,
    listed: Vec<Listed>,
    open: String,
    faults: String,
    embedded: String,
    servers: String,
    twice: &'static [&'static str],
}

impl Given {
    fn whole() -> Self {
        let ran = "exchange::t02_sts_exchange::a\nt02_sts_form::unknown_is_denied\n";
        Self {
            model: MODEL.to_owned(),
            tests: tests(),
            listed: tests(),
            open: OPEN.to_owned(),
            faults: String::new(),
            embedded: ran.to_owned(),
            servers: "t02_sts_form::unknown_is_denied\n".to_owned(),
            twice: &["sts"],
        }
    }

    fn found(&self) -> Vec<String> {
        let model = Model::parse(&self.model).unwrap();
        let known = inventory(&self.listed);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let tree = Tree {
            tests: &self.tests,
            fuzz_targets: set(&["http/form"]),
            chores: set(&["deny"]),
            on_both: set(self.twice),
            rooms: set(&["sts", "authority", "store"]),
            faults: &Faults::parse(&self.faults).unwrap(),
            open: &self.open,
            inventory: &known,
        };
        let runs = [
            Ran { engine: Engine::Embedded, passed: passed(&self.embedded), rooms: BTreeSet::new() },
            Ran { engine: Engine::Postgresql, passed: passed(&self.servers), rooms: set(self.twice) },
        ];
        findings(&model, &tree, &runs)
    }

    fn says(&self, what: &str) {
        let found = self.found();
        assert!(found.iter().any(|finding| finding.contains(what)), "`{what}` is not in {found:#?}");
    }
}

#[test]
fn a_whole_model_has_no_findings() {
    assert_eq!(Given::whole().found(), Vec::<String>::new());
}

#[test]
fn a_missing_a_renamed_and_an_orphaned_test_are_reported() {
    let mut given = Given::whole();
    given.tests.retain(|test| test.room != "sts");
    given.says("there is no test `sts::t02_sts_form::unknown_is_denied`");
    given.says("the test `sts::t02_sts_form::unknown_is_denied` is gone");
    let mut given = Given::whole();
    given.tests.retain(|test| test.room != "authority");
    given.says("there are no tests `authority::t02_sts_exchange`");
    let mut given = Given::whole();
    given.tests.push(named("sts", "x::t02_sts_new::b: test").unwrap());
    given.says("no mitigation of T02 names the tests `sts::t02_sts_new`");
    given.says("the test `sts::t02_sts_new::b` is not in docs/threat-model/tests.txt");
    // Named by its whole name only: another one in the same segment is an orphan.
    let mut given = Given::whole();
    given.tests.push(named("sts", "t02_sts_form::another: test").unwrap());
    given.says("no mitigation of T02 names the tests `sts::t02_sts_form`");
}

#[test]
fn a_test_that_was_skipped_or_ran_on_the_wrong_engine_only_is_reported() {
    let given = Given { embedded: "exchange::t02_sts_exchange::a\n".to_owned(), ..Given::whole() };
    given.says("`t02_sts_form::unknown_is_denied` passed 0 times of 1 on the embedded engine");
    let given = Given { servers: String::new(), ..Given::whole() };
    given.says("`t02_sts_form::unknown_is_denied` passed 0 times of 1 on PostgreSQL");
}

/// A proof that says what it holds on, in a room whose suite runs once and has a case for each engine.
fn stored(proofs: &str) -> Given {
    let cases = ["sqlite::t02_sts_store::a: test", "postgresql::t02_sts_store::a: test", "t02_sts_store::b: test"];
    let mut given = Given::whole();
    given.model = given.model.replace("authority = []", "authority = []\nstore = [\"embedded\", \"postgresql\"]");
    given.model =
        given.model.replace("  { kind = \"check\", chore", &format!("{proofs}\n  {{ kind = \"check\", chore"));
    given.tests.extend(cases.map(|line| named("store", line).unwrap()));
    given.listed = given.tests.clone();
    given.embedded += "sqlite::t02_sts_store::a\npostgresql::t02_sts_store::a\nt02_sts_store::b\n";
    given
}

const BOTH: &str = r#"{ kind = "unit", tests = "store::t02_sts_store" },"#;
const ALONE: &str = r#"{ kind = "unit", test = "store::t02_sts_store::b", engines = ["embedded"] },"#;

#[test]
fn a_proof_holds_on_every_engine_that_it_or_its_room_names() {
    assert_eq!(stored(&format!("{BOTH}{ALONE}")).found(), Vec::<String>::new());
    // What names one test has the last word, and what names them all speaks for the rest.
    stored(BOTH).says("T02.1: `store::t02_sts_store::b` does not run on PostgreSQL");
    stored(&format!("{BOTH}{}", ALONE.replace("embedded", "redis")))
        .says("T02.1: `store::t02_sts_store::b` does not run on Redis");
    let narrow = BOTH.replace("\" }", "\", engines = [\"embedded\"] }");
    assert_eq!(stored(&narrow).found(), Vec::<String>::new());
    // The case of one engine that is gone leaves the other's, which does not stand in for it.
    let mut given = stored(&format!("{BOTH}{ALONE}"));
    given.tests.retain(|test| test.engine != Some(Engine::Postgresql));
    given.says("T02.1: `store::t02_sts_store::a` does not run on PostgreSQL");
    given.says("the test `store::t02_sts_store::a on postgresql` is gone");
    // It is there, and has not run.
    let mut given = stored(&format!("{BOTH}{ALONE}"));
    given.embedded = given.embedded.replace("postgresql::t02_sts_store::a\n", "");
    given.says("T02.1: `store::t02_sts_store::a` did not pass on PostgreSQL");
    given.says("`postgresql::t02_sts_store::a` passed 0 times of 1 on the embedded engine");
}

#[test]
fn a_suite_that_runs_on_one_engine_only_proves_nothing_on_the_other() {
    let given = Given { twice: &[], ..Given::whole() };
    given.says("T02.1: `sts::t02_sts_form::unknown_is_denied` does not run on PostgreSQL");
    let given = Given { servers: String::new(), ..Given::whole() };
    given.says("T02.1: `sts::t02_sts_form::unknown_is_denied` did not pass on PostgreSQL");
    // What runs on both has to be asked for on both, and every room of a proof says what it runs on.
    let less = Given { model: MODEL.replace(r#"sts = ["embedded", "postgresql"]"#, "sts = []"), ..Given::whole() };
    less.says("the suite of `sts` runs on both engines, and [engines] does not ask for both");
    let none = Given { model: MODEL.replace("authority = []\n", ""), ..Given::whole() };
    none.says("[engines] does not say what the tests of `authority` run on");
    for (from, to) in [
        (r#""postgresql"]"#, r#""oracle"]"#),
        (r#"unknown_is_denied""#, r#"unknown_is_denied", engines = ["mysql"]"#),
        (r#"chore = "deny""#, r#"chore = "deny", engines = ["embedded"]"#),
    ] {
        assert!(Model::parse(&MODEL.replace(from, to)).is_err(), "{to}");
    }
    assert!(engines::on_both("const ON_ONE: &[&str] = &[];").is_err());
}

#[test]
fn an_unclaimed_property_and_an_unproved_kind_are_reported_and_what_is_settled_leaves_the_list() {
    let given = Given { open: "T02 fuzz\n".to_owned(), ..Given::whole() };
    given.says("`STS-2` is neither claimed by a mitigation nor in");
    let given = Given { open: "STS-2\n".to_owned(), ..Given::whole() };
    given.says("`T02 fuzz` is neither claimed by a mitigation nor in");
    let given = Given { open: format!("{OPEN}STS-1\n"), ..Given::whole() };
    given.says("`STS-1` is in docs/threat-model/open.txt and not open");
    let fuzzed = MODEL.replace(r#"kind = "check", chore = "deny""#, r#"kind = "fuzz", fuzz = "http/form""#);
    Given { model: fuzzed, ..Given::whole() }.says("`T02 fuzz` is in docs/threat-model/open.txt and not open");
}

#[test]
fn a_fault_that_nothing_answers_for_is_reported_until_it_is_in_the_list() {
    let faults = "[STS.killed]\nmust = \"It holds.\"\ntests = []\n";
    let given = Given { faults: faults.to_owned(), ..Given::whole() };
    given.says("`fault STS killed` is neither claimed by a mitigation nor in");
    let listed = Given { faults: faults.to_owned(), open: format!("{OPEN}fault STS killed\n"), ..Given::whole() };
    assert_eq!(listed.found(), Vec::<String>::new());
    Given { faults: String::new(), ..listed }.says("`fault STS killed` is in docs/threat-model/open.txt and not open");
}

#[test]
fn what_is_named_and_not_there_is_reported() {
    for (from, to, what) in [
        (r#"chore = "deny""#, r#"chore = "polish""#, "no build runs the chore `polish`"),
        (r#"chore = "deny""#, r#"fuzz = "http/none""#, "there is no fuzz target `http/none`"),
        (r#"chore = "deny""#, r#"fuzz = "http/form""#, "no test of `http` gives the corpus to the fuzz target `form`"),
        (r#""check", chore = "deny""#, r#""differential", chore = "test""#, "the whole suite is no differential proof"),
        (r#"room = "sts""#, r#"room = "attic""#, "there is no room `attic`"),
        (r#"claims = ["STS-1"]"#, r#"claims = ["STS-1", "STS-3"]"#, "nobody knows the claim `STS-3`"),
        (r#"id = "T02.1""#, r#"id = "T03.1""#, "T03.1 stands under T02"),
    ] {
        Given { model: MODEL.replace(from, to), ..Given::whole() }.says(what);
    }
    let twice = format!(
        "{MODEL}{}",
        MODEL.split_once("[[threat.mitigation]]").map(|(_, rest)| format!("\n[[threat.mitigation]]{rest}")).unwrap()
    );
    Given { model: twice, ..Given::whole() }.says("T02.1 is there twice");
}

#[test]
fn what_the_file_may_not_say_is_not_read() {
    for (from, to) in [
        ("title =", "titel ="),
        (r#"kinds = ["unit", "fuzz"]"#, r#"kinds = ["unit", "hope"]"#),
        (r#"test = "sts"#, r#"best = "sts"#),
    ] {
        assert!(Model::parse(&MODEL.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn a_name_that_two_rooms_share_has_to_pass_in_both() {
    let mut given = Given::whole();
    given.tests.push(named("authority", "t02_sts_form::unknown_is_denied: test").unwrap());
    given.says("passed 1 times of 2 on the embedded engine");
    let counts: BTreeMap<&str, usize> = passed("a\na\nb\n");
    assert_eq!((counts["a"], counts["b"]), (2, 1));
}

/// A test as the committed list has it; where it runs under its modules is not in there.
fn of_line(line: &str) -> Listed {
    let (line, engine) = line.split_once(" on ").map_or((line, None), |(line, on)| (line, Engine::named(on)));
    let (room, name) = line.split_once("::").unwrap();
    Listed { room: room.to_owned(), name: name.to_owned(), full: name.to_owned(), engine }
}

/// What this tree has, with the tests that its list names.
fn of_this_tree(check: impl FnOnce(&Model, &mut dyn FnMut(&[Listed], &BTreeSet<String>) -> Vec<String>, &[Listed])) {
    let root = crate::root();
    let model = crate::model(root).unwrap();
    let listing = crate::read(root, crate::TESTS).unwrap();
    let tests: Vec<Listed> = listing.lines().map(of_line).collect();
    let faults = Faults::parse(&crate::read(root, crate::FAULTS).unwrap()).unwrap();
    let open = crate::read(root, crate::OPEN).unwrap();
    let mut found = |left: &[Listed], on_both: &BTreeSet<String>| {
        // The list is written anew, as somebody would who wants it to be quiet.
        let known = inventory(left);
        let tree = Tree {
            tests: left,
            fuzz_targets: crate::fuzz_targets(root).unwrap(),
            chores: crate::chores(root).unwrap(),
            on_both: on_both.clone(),
            rooms: crate::rooms(root).unwrap(),
            faults: &faults,
            open: &open,
            inventory: &known,
        };
        findings(&model, &tree, &[])
    };
    check(&model, &mut found, &tests);
}

#[test]
fn t11_drift_no_proof_of_this_tree_can_lose_its_tests_unseen() {
    of_this_tree(|model, found, tests| {
        let on_both = crate::on_both(crate::root()).unwrap();
        assert_eq!(found(tests, &on_both), Vec::<String>::new());
        let proofs = model.mitigations().flat_map(|mitigation| &mitigation.proof);
        let paths: BTreeSet<&str> = proofs
            .filter_map(|proof| match &proof.by {
                By::Test(path) | By::Tests(path) => Some(path.as_str()),
                By::Fuzz(_) | By::Chore(_) => None,
            })
            .collect();
        assert!(paths.len() > 300, "{}", paths.len());
        for path in paths {
            let (room, name) = path.split_once("::").unwrap();
            let is_its = |test: &Listed| test.room == room && (test.name == name || test.segment() == name);
            let left: Vec<Listed> = tests.iter().filter(|test| !is_its(test)).cloned().collect();
            assert!(left.len() < tests.len(), "{path}");
            let said = found(&left, &on_both);
            assert!(said.iter().any(|finding| finding.contains(&format!("`{path}`"))), "{path}: {said:?}");
        }
    });
}

#[test]
fn t11_drift_no_room_of_this_tree_can_leave_an_engine_unseen() {
    of_this_tree(|_, found, tests| {
        let on_both = crate::on_both(crate::root()).unwrap();
        assert!(on_both.len() >= 8, "{on_both:?}");
        for room in &on_both {
            let mut less = on_both.clone();
            less.remove(room);
            let said = found(tests, &less);
            let is_told =
                |finding: &&String| finding.contains(&format!("`{room}::")) && finding.contains("on PostgreSQL");
            assert!(said.iter().filter(is_told).count() > 0, "{room}: {said:?}");
        }
        // The rooms that bring their engines along: a case of one engine out of those that there are for each.
        for room in ["store", "stream"] {
            let own: BTreeSet<Engine> =
                tests.iter().filter(|test| test.room == room).filter_map(|test| test.engine).collect();
            assert!(own.len() >= 2, "{room}: {own:?}");
            for engine in own {
                let left: Vec<Listed> =
                    tests.iter().filter(|test| test.room != room || test.engine != Some(engine)).cloned().collect();
                let said = found(&left, &on_both);
                let told = format!("does not run on {}", engine.said());
                assert!(
                    said.iter().any(|finding| finding.contains(&format!("`{room}::")) && finding.contains(&told)),
                    "{said:?}"
                );
            }
        }
    });
}

/// One test out of many of a segment is missed in the committed list. A hundred of them, spread over all rooms.
#[test]
fn t11_drift_no_test_of_this_tree_can_be_deleted_without_a_change_of_the_list() {
    let listing = crate::read(crate::root(), crate::TESTS).unwrap();
    let lines: Vec<&str> = listing.lines().collect();
    let names: Vec<Listed> = lines.iter().map(|line| of_line(line)).collect();
    assert_eq!(inventory(&names), listing);
    assert!(names.len() > 1_000, "{}", names.len());
    for gone in (0..names.len()).step_by(names.len() / 100) {
        let left: Vec<Listed> = names[..gone].iter().chain(&names[gone + 1..]).cloned().collect();
        assert_ne!(inventory(&left), listing, "{:?}", names[gone]);
    }
}
