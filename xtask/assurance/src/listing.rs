//! The tests that there are, as the runner itself lists them, and the tests that ran, as it reported them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::engines::Engine;

/// One test with a threat's segment in its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// The folder of its crate: `gateway`.
    pub(crate) room: String,
    /// From the segment on: `t03_gateway_egress::a_sentence`, or the segment alone where it is the test's own name.
    pub(crate) name: String,
    /// As the runner says it.
    pub(crate) full: String,
    /// The engine it brings along; none where it runs on the one that the run is for, or on none.
    pub(crate) engine: Option<Engine>,
}

impl Listed {
    /// The segment: what stands before the first `::`.
    pub(crate) fn segment(&self) -> &str {
        self.name.split("::").next().unwrap_or_default()
    }

    /// As the committed list has it: `store::t06_evidence::a_sentence on postgresql`.
    pub(crate) fn line(&self) -> String {
        let on = self.engine.map_or_else(String::new, |engine| format!(" on {}", engine.name()));
        format!("{}::{}{on}\n", self.room, self.name)
    }

    /// `T03`.
    pub(crate) fn threat(&self) -> String {
        self.segment().chars().take(3).collect::<String>().to_uppercase()
    }
}

/// Asks every test program that cargo's messages tell of what is in it.
pub(crate) fn list(messages: &str) -> Result<Vec<Listed>, String> {
    let mut found = Vec::new();
    for (room, target, program) in messages.lines().filter_map(program) {
        let listed = Command::new(&program).args(["--list", "--format", "terse"]).output();
        let listed = listed.map_err(|error| format!("{program}: {error}"))?;
        found.extend(
            String::from_utf8_lossy(&listed.stdout)
                .lines()
                .filter_map(|line| named(&room, line))
                .map(|test| Listed { engine: test.engine.or_else(|| Engine::of_program(&target)), ..test }),
        );
    }
    if found.is_empty() {
        return Err("no test program was built".to_owned());
    }
    found.sort();
    Ok(found)
}

/// The room, the name and the path of a test program that a line of cargo's messages tells of.
pub(crate) fn program(line: &str) -> Option<(String, String, String)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let program = message.get("executable")?.as_str()?;
    let is_test = message.get("profile")?.get("test")?.as_bool()?;
    let manifest = message.get("manifest_path")?.as_str()?;
    let room = Path::new(manifest).parent()?.file_name()?.to_str()?;
    let target = message.get("target")?.get("name")?.as_str()?;
    is_test.then(|| (room.to_owned(), target.to_owned(), program.to_owned()))
}

/// `gateway::t03_gateway_headers::a_sentence: test`, if it has a threat's segment.
pub(crate) fn named(room: &str, line: &str) -> Option<Listed> {
    let full = line.strip_suffix(": test")?;
    let segments: Vec<&str> = full.split("::").collect();
    let at = segments.iter().position(|segment| is_prefixed(segment))?;
    let engine = segments.get(..at)?.iter().find_map(|module| Engine::of_module(module));
    Some(Listed { room: room.to_owned(), name: segments.get(at..)?.join("::"), full: full.to_owned(), engine })
}

/// `t03_` and more.
fn is_prefixed(segment: &str) -> bool {
    matches!(segment.as_bytes(), [b't', tens, ones, b'_', _, ..] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// How often each name passed, from lines that each hold one name.
pub(crate) fn passed(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in text.lines() {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_known_by_what_follows_its_threats_segment() {
        let listed = named("gateway", "headers::t03_gateway_headers::none_is_doubled: test").unwrap();
        assert_eq!(
            (listed.name.as_str(), listed.segment()),
            ("t03_gateway_headers::none_is_doubled", "t03_gateway_headers")
        );
        assert_eq!(listed.threat(), "T03");
        let alone = named("admin", "tests::t05_secrets_no_cell_is_a_formula: test").unwrap();
        assert_eq!(alone.segment(), alone.name);
        for other in ["tests::two_things: test", "t03::x: test", "tests::t03_gateway_x: benchmark", "t0x_a::b: test"] {
            assert_eq!(named("admin", other), None, "{other}");
        }
    }

    #[test]
    fn a_test_brings_the_engine_along_that_its_module_or_its_program_is_about() {
        for (module, engine) in [
            ("sqlite", Some(Engine::Embedded)),
            ("in_postgresql", Some(Engine::Postgresql)),
            ("on_a_redis", Some(Engine::Redis)),
            ("redistribution", None),
            ("tests", None),
        ] {
            let test = named("stream", &format!("{module}::t07_streams::without_redis: test")).unwrap();
            assert_eq!(test.engine, engine, "{module}");
        }
        let programs = ["postgres", "redis", "conformance"].map(Engine::of_program);
        assert_eq!(programs, [Some(Engine::Postgresql), Some(Engine::Redis), None]);
    }

    #[test]
    fn a_message_of_a_test_program_tells_its_room() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/x/crates/sts/Cargo.toml","target":{"name":"form"},"profile":{"test":true},"executable":"/x/target/debug/deps/sts-1"}"#;
        assert_eq!(program(line), Some(("sts".to_owned(), "form".to_owned(), "/x/target/debug/deps/sts-1".to_owned())));
        assert_eq!(program(&line.replace("\"test\":true", "\"test\":false")), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
