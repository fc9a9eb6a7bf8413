//! Two clean builds of the last commit, in two places, must be the same program byte for byte: then whoever builds it can
//! tell whether a program that they were given is what its source says.
//!
//! Anything that a build takes from where it stands would differ: so the paths of the tree, of the registry and of the
//! compiler's own library are replaced by fixed ones, in Rust and in the C that comes with dependencies. The flags are
//! part of the recipe: a program that is to be compared is built with `RUSTFLAGS` and `CFLAGS` as they are printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::step::{Chore, Failed};

/// Of different lengths, so that a path that stays in would move what follows it.
const PLACES: [&str; 2] = ["first", "second-and-elsewhere"];
const PROGRAM: &str = "caracal";

/// Builds twice and compares.
pub(crate) fn run(chore: &Chore) -> Result<(), Failed> {
    let changed = chore.ask(chore.program("git").args(["status", "--porcelain", "--untracked-files=no"]), PATIENCE);
    if changed.is_none_or(|changed| !changed.trim().is_empty()) {
        chore.say("there are changes that are not committed; they are not in either build");
    }
    let above = chore.target().join("reproduce");
    let mut programs = Vec::new();
    for place in PLACES {
        programs.push(build(chore, &above.join(place))?);
    }
    let read = |path: &PathBuf| fs::read(path).map_err(|error| Failed(format!("{}: {error}", path.display())));
    let [first, second] = [read(&programs[0])?, read(&programs[1])?];
    match difference(&first, &second) {
        None => {
            chore.say(&format!("both are the same {} bytes: {}", first.len(), programs[0].display()));
            Ok(())
        }
        Some(what) => Err(Failed(format!("{what}; compare {} and {}", programs[0].display(), programs[1].display()))),
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn build(chore: &Chore, place: &Path) -> Result<PathBuf, Failed> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    let (tree, target) = (place.join("tree"), place.join("target"));
    let mut clone = chore.program("git");
    chore.run("a clean copy of the last commit", clone.args(["clone", "--quiet", "--no-local", "."]).arg(&tree))?;
    let mut asked = chore.program(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = chore.ask(asked.args(["--print", "sysroot"]), PATIENCE);
    let sysroot = sysroot.ok_or_else(|| Failed("the compiler does not say where its library is".to_owned()))?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.map_err(|_| Failed("neither CARGO_HOME nor HOME is set".to_owned()))?;
    let fixed: [(String, &str); 4] = [
        (tree.display().to_string(), "/caracal"),
        (target.display().to_string(), "/target"),
        (home, "/cargo"),
        (sysroot.trim().to_owned(), "/rust"),
    ];
    let rust: Vec<String> = fixed.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c: Vec<String> = fixed.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    println!("  RUSTFLAGS={}\n  CFLAGS={}", rust.join(" "), c.join(" "));
    let mut cargo = chore.cargo();
    cargo.current_dir(&tree).args(["build", "--locked", "--release", "--package", PROGRAM]);
    // In this variable a path may have spaces.
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f"));
    cargo.env("CFLAGS", c.join(" ")).env("SOURCE_DATE_EPOCH", "0");
    chore.run(&format!("building in {}", place.display()), &mut cargo)?;
    Ok(target.join("release").join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX)))
}

/// Where two programs differ.
fn difference(first: &[u8], second: &[u8]) -> Option<String> {
    if first == second {
        return None;
    }
    let bytes = first.iter().zip(second).filter(|(one, other)| one != other).count();
    let at = first.iter().zip(second).position(|(one, other)| one != other).unwrap_or(first.len().min(second.len()));
    let sizes = format!("{} and {} bytes", first.len(), second.len());
    Some(format!("the programs differ, first at byte {at}, in {bytes} places ({sizes})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_release_builds_that_differ_in_a_byte_or_in_length_are_told_apart() {
        assert_eq!(difference(b"abc", b"abc"), None);
        let said = difference(b"abc", b"axc").unwrap();
        assert!(said.contains("byte 1, in 1 places"), "{said}");
        let said = difference(b"abc", b"abcd").unwrap();
        assert!(said.contains("byte 3") && said.contains("3 and 4 bytes"), "{said}");
    }
}
