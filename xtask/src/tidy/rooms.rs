//! The rooms of the house: what each may use, and what must be absent from it. `docs/architecture.md` says why.

use super::Findings;
use super::tree::File;

/// One room.
struct Room {
    name: &'static str,
    /// Rooms it may depend on.
    may_use: &'static [&'static str],
    /// Packages it must do without.
    without: &'static [&'static str],
}

/// What only a service or the shared HTTP face may speak.
const WIRE: &[&str] = &["axum", "hyper", "hyper-util", "tower", "rustls", "tokio-rustls"];
/// What a service gets as a capability, never by itself.
const ENGINE: &[&str] = &["rusqlite", "argon2", "rustls", "tokio-rustls", "clap", "uuid"];
/// Pure rooms have no way to reach anything.
const PURE: &[&str] = &[
    "axum",
    "hyper",
    "hyper-util",
    "tower",
    "rustls",
    "tokio-rustls",
    "tokio",
    "rusqlite",
    "argon2",
    "uuid",
    "tracing",
    "clap",
    "tempfile",
];
const SERVICE: &[&str] = &["authority", "policy", "crypto", "store", "cascade", "custody", "ledger", "http", "broker"];
/// The Gateway decides nothing, so it has no policy; nor has the Coordinator.
const WITHOUT_POLICY: &[&str] = &["authority", "crypto", "store", "cascade", "custody", "ledger", "http"];
/// The audit service reads what clients bring, so it has topics.
const OF_AUDIT: &[&str] = &["authority", "crypto", "store", "stream", "custody", "ledger", "http"];

const ROOMS: &[Room] = &[
    Room { name: "authority", may_use: &[], without: PURE },
    Room { name: "policy", may_use: &["authority"], without: PURE },
    Room {
        name: "crypto",
        may_use: &["authority"],
        without: &["axum", "hyper", "tower", "rusqlite", "rustls", "clap"],
    },
    Room {
        name: "store",
        may_use: &["authority"],
        // TLS is for the way to the database server.
        without: &["axum", "hyper", "tower", "argon2", "clap", "uuid"],
    },
    Room {
        name: "stream",
        may_use: &["authority", "crypto", "store"],
        without: &["axum", "hyper", "tower", "rusqlite", "tokio-postgres", "argon2", "clap", "uuid"],
    },
    Room { name: "cascade", may_use: &["authority", "crypto", "store"], without: WIRE },
    Room { name: "custody", may_use: &["authority", "crypto", "store"], without: WIRE },
    Room { name: "ledger", may_use: &["authority", "crypto", "store"], without: WIRE },
    Room { name: "http", may_use: &["authority"], without: &["rusqlite", "argon2", "ring", "uuid", "clap"] },
    Room { name: "broker", may_use: &["authority", "crypto", "store", "custody", "http"], without: ENGINE },
    Room { name: "sts", may_use: SERVICE, without: ENGINE },
    Room { name: "gateway", may_use: WITHOUT_POLICY, without: ENGINE },
    Room { name: "coordinator", may_use: WITHOUT_POLICY, without: ENGINE },
    Room { name: "admin", may_use: SERVICE, without: ENGINE },
    Room { name: "audit", may_use: OF_AUDIT, without: ENGINE },
    Room { name: "oracle", may_use: &["policy"], without: PURE },
];

/// Rooms that nothing which ships may depend on: what supports tests, and the second opinion, which must never be what
/// decides.
const FOR_TESTS_ONLY: &[&str] = &["testkit", "oracle"];

/// The decision contract as Rego text.
const ORACLES_TEXT: &str = "decision.rego";

/// Rooms that may use every other.
const WIRING: &[&str] = &["caracal"];

pub(super) fn check(files: &[File], findings: &mut Findings) {
    for manifest in files.iter().filter(|file| file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml") {
        check_manifest(manifest, findings);
    }
    for file in files.iter().filter(|file| file.is_rust()) {
        check_source(file, findings);
    }
}

fn check_manifest(manifest: &File, findings: &mut Findings) {
    if manifest.is_fuzz() {
        return check_fuzz_manifest(manifest, findings);
    }
    for line in ["version.workspace = true", "license.workspace = true", "publish.workspace = true"] {
        if !manifest.text.lines().any(|own| own == line) {
            findings.add(&manifest.path, format!("has no line `{line}`"));
        }
    }
    if !manifest.text.contains("\ndescription = \"") {
        findings.add(&manifest.path, "a sentence in `description` says what lives there");
    }
    if !manifest.text.contains("[lints]\nworkspace = true") {
        findings.add(&manifest.path, "does not use the workspace's lints");
    }
    let Some(name) = manifest.room() else { return check_chores(manifest, findings) };
    if name == "testkit" {
        // The chores build it first, and without the servers that need more.
        for dependency in dependencies(&without_optional(&manifest.text)) {
            let what = format!("`testkit` uses the standard library only, but for optional packages: `{dependency}`");
            findings.add(&manifest.path, what);
        }
        return;
    }
    for room in FOR_TESTS_ONLY.iter().filter(|room| uses_beyond_tests(&manifest.text, &format!("caracal-{room}"))) {
        findings.add(&manifest.path, format!("nothing that ships may depend on `{room}`, but for its tests"));
    }
    if WIRING.contains(&name) {
        return;
    }
    let Some(room) = ROOMS.iter().find(|known| known.name == name) else {
        findings.add(&manifest.path, "is a room that xtask/src/tidy/rooms.rs and docs/architecture.md do not know");
        return;
    };
    for dependency in dependencies(&manifest.text) {
        match dependency.strip_prefix("caracal-") {
            Some(other) if !room.may_use.contains(&other) => {
                findings.add(&manifest.path, format!("`{}` must not depend on `{other}`", room.name));
            }
            None if room.without.contains(&dependency) => {
                findings.add(&manifest.path, format!("`{dependency}` must be absent from `{}`", room.name));
            }
            _ => {}
        }
    }
}

/// The chores must build in seconds, before anything else does. What reads the threat model runs after the tests, and
/// knows nothing of the product.
fn check_chores(manifest: &File, findings: &mut Findings) {
    if manifest.path == "xtask/assurance/Cargo.toml" {
        for dependency in dependencies(&manifest.text).filter(|name| name.starts_with("caracal-")) {
            findings.add(&manifest.path, format!("what judges the rooms uses none of them: `{dependency}`"));
        }
        return;
    }
    for dependency in dependencies(&manifest.text).filter(|name| *name != "caracal-testkit") {
        findings.add(&manifest.path, format!("the chores use the standard library and `testkit` only: `{dependency}`"));
    }
}

/// Whether any kind of dependency but those of tests mentions `room`, be it under another name.
fn uses_beyond_tests(manifest: &str, room: &str) -> bool {
    let mut section = "";
    manifest.lines().filter(|line| !line.starts_with('#')).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let counts = section.contains("dependencies") && !section.contains("dev-dependencies");
        counts && line.contains(room)
    })
}

/// Fuzz targets stand outside, and attack the room they lie in and no other.
fn check_fuzz_manifest(manifest: &File, findings: &mut Findings) {
    let own = manifest.room().map(|room| format!("caracal-{room}.path = \"..\""));
    for line in own.iter().map(String::as_str).chain(["[workspace]", "publish = false"]) {
        if !manifest.text.lines().any(|known| known == line) {
            findings.add(&manifest.path, format!("has no line `{line}`"));
        }
    }
    let ours = dependencies(&manifest.text).filter_map(|name| name.strip_prefix("caracal-"));
    for other in ours.filter(|name| manifest.room() != Some(name)) {
        findings.add(&manifest.path, format!("fuzz targets of one room attack no other: `{other}`"));
    }
}

fn without_optional(manifest: &str) -> String {
    manifest.lines().filter(|line| !line.contains("optional = true")).map(|line| format!("{line}\n")).collect()
}

/// The names in `[dependencies]`; tests may use more.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
}

fn check_source(file: &File, findings: &mut Findings) {
    let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    if !is_test && !file.text.starts_with("//!") {
        findings.add(&file.path, "opens without saying what it is for (`//!`)");
    }
    let Some(room) = file.room().filter(|_| !is_test) else { return };
    let code = || file.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    for (number, line) in code() {
        let place = format!("{}:{}", file.path, number + 1);
        if line.contains("std::env::") && !["caracal", "testkit", "oracle"].contains(&room) {
            findings.add(&place, "settings are arguments; only `caracal` reads the environment");
        }
        if room != "oracle" && line.contains(ORACLES_TEXT) {
            findings.add(&place, "the oracle's text decides nothing: no other room reads it");
        }
        if room != "store"
            && ["\"SELECT ", "\"INSERT INTO ", "\"UPDATE ", "\"DELETE FROM "].iter().any(|sql| line.contains(sql))
        {
            findings.add(&place, "no statement leaves `store`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(&[File { path: path.to_owned(), text: text.to_owned() }], &mut findings);
        findings.0
    }

    fn manifest(dependencies: &str) -> String {
        format!(
            "[package]\nname = \"a\"\ndescription = \"A room.\"\nversion.workspace = true\nlicense.workspace = true\n\
             publish.workspace = true\n\n[lints]\nworkspace = true\n\n[dependencies]\n{dependencies}\n\n\
             [dev-dependencies]\naxum.workspace = true\n"
        )
    }

    #[test]
    fn arrows_point_down_only() {
        let path = "crates/policy/Cargo.toml";
        assert!(found(path, &manifest("caracal-authority.workspace = true")).is_empty());
        assert_eq!(found(path, &manifest("caracal-store.workspace = true")).len(), 1);
        assert_eq!(found("crates/gateway/Cargo.toml", &manifest("caracal-sts.workspace = true")).len(), 1);
    }

    #[test]
    fn what_ships_does_not_depend_on_the_servers_of_tests() {
        let path = "crates/caracal/Cargo.toml";
        assert_eq!(found(path, &manifest("caracal-testkit.workspace = true")).len(), 1);
        for other in [
            "kit = { package = \"caracal-testkit\", path = \"../testkit\" }",
            "[dependencies.caracal-testkit]\nworkspace = true",
            "[build-dependencies]\ncaracal-testkit.workspace = true",
            "[target.'cfg(unix)'.dependencies]\ncaracal-testkit.workspace = true",
        ] {
            assert_eq!(found(path, &manifest(other)).len(), 1, "{other}");
        }
        for tests_only in [
            "[dev-dependencies]\ncaracal-testkit.workspace = true",
            "[target.'cfg(unix)'.dev-dependencies]\ncaracal-testkit.workspace = true",
            "[dev-dependencies.caracal-testkit]\nworkspace = true",
        ] {
            assert!(found(path, &manifest(tests_only)).is_empty(), "{tests_only}");
        }
        assert_eq!(found(path, &manifest("caracal-oracle.workspace = true")).len(), 1);
        assert!(found("crates/oracle/Cargo.toml", &manifest("caracal-policy.workspace = true")).is_empty());
        assert_eq!(found("crates/oracle/Cargo.toml", &manifest("caracal-sts.workspace = true")).len(), 1);
        assert!(found("crates/testkit/Cargo.toml", &manifest("")).is_empty());
        assert_eq!(found("crates/testkit/Cargo.toml", &manifest("tokio.workspace = true")).len(), 1);
        let optional = "rustls = { workspace = true, optional = true }";
        assert!(found("crates/testkit/Cargo.toml", &manifest(optional)).is_empty());
    }

    #[test]
    fn the_chores_use_nothing_that_has_to_be_built_first() {
        assert!(found("xtask/Cargo.toml", &manifest("caracal-testkit.workspace = true")).is_empty());
        assert_eq!(found("xtask/Cargo.toml", &manifest("serde.workspace = true")).len(), 1);
        assert!(found("xtask/assurance/Cargo.toml", &manifest("serde.workspace = true")).is_empty());
        assert_eq!(found("xtask/assurance/Cargo.toml", &manifest("caracal-store.workspace = true")).len(), 1);
    }

    #[test]
    fn a_pure_room_reaches_nothing() {
        let path = "crates/authority/Cargo.toml";
        assert!(found(path, &manifest("serde.workspace = true")).is_empty());
        assert_eq!(found(path, &manifest("tokio = { workspace = true }")).len(), 1);
    }

    #[test]
    fn fuzz_targets_stand_outside_and_attack_their_own_room() {
        let path = "crates/http/fuzz/Cargo.toml";
        let manifest = |more: &str| format!("publish = false\n[workspace]\n[dependencies]\n{more}");
        assert!(found(path, &manifest("caracal-http.path = \"..\"\n")).is_empty());
        assert_eq!(found(path, &manifest("")).len(), 1);
        assert_eq!(found(path, &manifest("caracal-http.path = \"..\"\ncaracal-sts.path = \"../../sts\"\n")).len(), 1);
        assert_eq!(found(path, "[dependencies]\ncaracal-http.path = \"..\"\n").len(), 2);
    }

    #[test]
    fn a_new_room_has_to_be_introduced() {
        assert_eq!(found("crates/attic/Cargo.toml", &manifest("")).len(), 1);
    }

    #[test]
    fn the_second_opinion_is_read_by_no_other_room() {
        let text = "//! A story.\nconst TEXT: &str = include_str!(\"../../oracle/src/decision.rego\");\n";
        assert_eq!(found("crates/sts/src/lib.rs", text).len(), 1);
        assert!(found("crates/oracle/src/lib.rs", text).is_empty());
    }

    #[test]
    fn a_source_file_says_what_it_is_for_and_reads_no_environment() {
        let path = "crates/sts/src/lib.rs";
        assert!(found(path, "//! A story.\n").is_empty());
        assert_eq!(found(path, "use std::fmt;\n").len(), 1);
        assert_eq!(found(path, "//! A story.\nlet home = std::env::var(\"HOME\");\n").len(), 1);
        assert_eq!(found(path, "//! A story.\nconst SQL: &str = \"SELECT 1\";\n").len(), 1);
    }
}
