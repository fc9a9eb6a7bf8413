//! The second opinion never decides: the binary that ships contains nothing of it.

#![allow(clippy::expect_used, reason = "the helpers of a test file are test code")]

use std::process::Command;

/// Packages that end up in the binary, its build scripts included, with every feature on.
fn packages_of_the_binary() -> Vec<String> {
    let tree = ["tree", "--locked", "--offline", "--package", "caracal", "--all-features", "--target", "all"];
    let output = Command::new(env!("CARGO"))
        .args(tree)
        .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are text");
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_binary_does_not_depend_on_the_oracle() {
    let packages = packages_of_the_binary();
    assert!(packages.contains(&"caracal-policy".to_owned()), "the ladder is in it: {packages:?}");
    assert!(!packages.contains(&"caracal-oracle".to_owned()), "{packages:?}");
}

#[test]
fn no_other_room_reads_the_oracles_text() {
    let rooms = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut read = 0;
    let mut folders = vec![rooms];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "oracle" && name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "toml") {
                let text = std::fs::read_to_string(&path).expect("source is text");
                let named = concat!("decision", ".rego");
                assert!(!text.contains(named), "{} reads the oracle's text", path.display());
                read += 1;
            }
        }
    }
    assert!(read > 100, "only {read} files were looked at");
}
