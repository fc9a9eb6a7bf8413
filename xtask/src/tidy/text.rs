//! Sizes, words, and tests that would not run.

use super::Findings;
use super::tree::File;

/// A file that is longer can't be read in one sitting.
const MOST_LINES: usize = 900;

/// Generated: as long as what they are made of, which is split. The list of tests is for a comparison; who reads the chapter
/// looks one threat up.
const GENERATED: &[&str] = &["docs/threat-model/tests.txt", "docs/threat-model.md"];

/// Traces of one machine, of a package mirror, of unfinished work. Split, so that this file is not a finding.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("arti", "factory"), "the name of a package mirror"),
    (concat!("index.crates", ".io"), "the host of a package registry"),
    (concat!("static.crates", ".io"), "the host of a package registry"),
    (concat!("pypi", ".org"), "the host of a package registry"),
    (concat!("python", "hosted.org"), "the host of a package registry"),
    (concat!("npmjs", ".org"), "the host of a package registry"),
    (concat!("proxy.golang", ".org"), "the host of a package registry"),
    (concat!("deb.debian", ".org"), "the host of a package registry"),
    (concat!("TO", "DO"), "unfinished work: finish it, or file it"),
    (concat!("FIX", "ME"), "unfinished work: finish it, or file it"),
    (concat!("XX", "X:"), "unfinished work: finish it, or file it"),
];

/// Attributes and calls that take a test out of the run.
const UNRUN: &[(&str, &str)] = &[
    (concat!("#[ign", "ore"), "a test that is ignored proves nothing"),
    (concat!("should_", "panic]"), "say which panic is expected"),
    (concat!("unittest.", "skip"), "a test that is skipped proves nothing"),
    (concat!("pytest.mark.", "skip"), "a test that is skipped proves nothing"),
];

pub(super) fn check(files: &[File], findings: &mut Findings) {
    for file in files {
        if file.path.starts_with(".github/") || file.path.contains("/.github/") {
            findings.add(&file.path, "this project is not built on that platform");
        }
        if file.is_data() {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > MOST_LINES && !GENERATED.contains(&file.path.as_str()) {
            findings.add(&file.path, format!("{lines} lines; split it, {MOST_LINES} is the most"));
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.add(&file.path, "the last line is not ended");
        }
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                findings.add(&place(), format!("`{word}` is {why}"));
            }
            for (word, why) in UNRUN.iter().filter(|(word, _)| line.contains(word)) {
                findings.add(&place(), format!("`{word}`: {why}"));
            }
            if line.ends_with(' ') && !file.path.ends_with(".txt") {
                findings.add(&place(), "white space at the end of the line");
            }
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

    #[test]
    fn each_kind_of_untidiness_is_found_once() {
        let long = "a\n".repeat(MOST_LINES + 1);
        for (path, text) in [
            (".github/workflows/ci.yml", "on: push\n"),
            ("docs/long.md", long.as_str()),
            ("docs/a.md", "no end"),
            ("docs/a.md", "a blank \n"),
            ("crates/a/src/lib.rs", concat!("// in /ro", "ot/here\n")),
            ("crates/a/src/lib.rs", concat!("// TO", "DO later\n")),
            ("crates/a/src/lib.rs", concat!("#[ign", "ore = \"slow\"]\n")),
        ] {
            assert_eq!(found(path, text).len(), 1, "{path}: {text:?}");
        }
    }

    #[test]
    fn test_data_is_left_alone() {
        for path in ["crates/a/tests/vectors/a.json", "crates/a/fuzz/corpus/b/seed", "crates/a/fuzz/Cargo.lock"] {
            assert!(found(path, "no end").is_empty(), "{path}");
        }
    }
}
