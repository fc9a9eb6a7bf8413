//! Tests that return before their end. One that does so when a server or a variable is missing has passed without a look at
//! anything, and no runner tells. So none returns early, but for those below.

use super::Findings;
use super::tree::File;

/// Returns that there are, by file: a child process that does what its test kills, and a chore that writes what the test
/// compares.
const KNOWN: &[(&str, usize)] = &[
    ("crates/admin/tests/it/openapi.rs", 1),
    ("crates/audit/tests/audit/crash.rs", 2),
    ("crates/caracal/tests/soak.rs", 1),
    ("crates/custody/tests/rewrap.rs", 1),
    ("crates/ledger/tests/crash.rs", 2),
    ("crates/store/tests/open.rs", 1),
];

pub(super) fn check(files: &[File], findings: &mut Findings) {
    for file in files.iter().filter(|file| file.path.ends_with(".rs") && !file.is_data()) {
        let returns = early_returns(&file.text);
        let known = KNOWN.iter().find(|(path, _)| *path == file.path).map_or(0, |(_, known)| *known);
        if returns.len() < known {
            findings.add(&file.path, "a test returns early less often than xtask/src/tidy/early.rs says: say so there");
        }
        for line in returns.iter().filter(|_| returns.len() > known) {
            let place = format!("{}:{line}", file.path);
            findings.add(&place, "a test that returns before its end may have looked at nothing: assert, or fail");
        }
    }
}

/// Lines, counted from 1, with a `return` out of a test's own body. Reads what `rustfmt` writes: a block ends with a brace
/// as far in as the line that opened it begins.
fn early_returns(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let attribute = line.trim_start();
        if !(attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test")) {
            continue;
        }
        let Some(head) = (at..lines.len()).find(|n| lines.get(*n).is_some_and(|line| line.contains("fn "))) else {
            break;
        };
        let indent = lines.get(head).map_or(0, |line| indent(line));
        // Headers of the blocks that the line stands in, outermost first: how far in, and whether `return` ends there.
        let mut blocks: Vec<(usize, bool)> = Vec::new();
        at = head + 1;
        while let Some(line) = lines.get(at).filter(|line| **line != format!("{}}}", " ".repeat(indent))) {
            at += 1;
            let code = line.split("//").next().unwrap_or_default();
            let deep = self::indent(line);
            if code.trim().is_empty() {
                continue;
            }
            blocks.retain(|(block, _)| *block < deep);
            if let Some(before) = returns(code)
                && !blocks.iter().any(|(_, ends)| *ends)
                && !ends_returns(before)
            {
                found.push(at);
            }
            if code.trim_end().ends_with(['{', '(', '[']) {
                blocks.push((deep, ends_returns(code)));
            }
        }
    }
    found
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// What stands before a `return`. A case that a generator made and that says nothing is left out by `return Ok(())`.
fn returns(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("return")?;
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '"' | '`'));
    let is_other = is_word(before.chars().next_back()) || is_word(after.chars().next());
    (!is_other && !after.starts_with(" Ok(())") && before.matches('"').count() % 2 == 0).then_some(before)
}

/// Whether a block that this opens is a body of its own: of a closure, a future or a function.
fn ends_returns(code: &str) -> bool {
    code.contains('|') && !code.contains("||") && !code.trim_start().starts_with("if ")
        || code.contains("move ||")
        || code.contains("(||")
        || code.contains("async")
        || code.contains("fn ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_gives_up_before_its_end_is_found() {
        for body in [
            "    if std::env::var(\"A\").is_err() {\n        return;\n    }\n    b();\n",
            "    let Ok(url) = std::env::var(\"A\") else { return };\n    b(url);\n",
            "    for n in 0..9 {\n        match n {\n            _ => return,\n        }\n    }\n",
            "    if a || b {\n        return c();\n    }\n",
        ] {
            for attribute in ["#[test]\nfn a", "#[tokio::test(flavor = \"multi_thread\")]\nasync fn a"] {
                let text = format!("{attribute}() {{\n{body}}}\n");
                assert_eq!(early_returns(&text).len(), 1, "{text}");
                let mut findings = Findings::default();
                check(&[File { path: "crates/a/tests/b.rs".to_owned(), text }], &mut findings);
                assert_eq!(findings.0.len(), 1);
            }
        }
    }

    #[test]
    fn a_file_may_have_as_many_early_returns_as_are_known_neither_more_nor_less() {
        let (path, known) = KNOWN[0];
        for (returns, expected) in [(known, 0), (known + 1, known + 1), (known - 1, 1)] {
            let text = "#[test]\nfn a() {\n    return;\n}\n".repeat(returns);
            let mut findings = Findings::default();
            check(&[File { path: path.to_owned(), text }], &mut findings);
            assert_eq!(findings.0.len(), expected, "{:?}", findings.0);
        }
    }

    #[test]
    fn what_only_ends_a_closure_a_future_or_a_case_does_not_end_a_test() {
        for body in [
            "    let a = b(move |c| {\n        if c {\n            return;\n        }\n        d();\n    });\n",
            "    let a = async {\n        return 1;\n    };\n",
            "    fn a() -> u8 {\n        return 1;\n    }\n",
            "    let Some(a) = b else { return Ok(()) };\n",
            "    // it may return;\n    assert!(a, \"it does not return here\");\n    returned();\n",
            "    tokio::spawn(async move { return 1 });\n",
        ] {
            let text = format!("#[test]\nfn a() {{\n{body}}}\n\nfn no_test() {{\n    return;\n}}\n");
            assert_eq!(early_returns(&text), Vec::<usize>::new(), "{text}");
        }
    }
}
