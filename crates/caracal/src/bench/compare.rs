//! This run beside an earlier one.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::commands::Failure;

/// What says how was measured, and is no finding.
const SETUP: [&str; 8] = ["what", "loop", "engine", "workers", "rate", "in_flight", "seconds", "warm_up_seconds"];
/// What is no finding either, and no setting.
const LEFT_OUT: [&str; 3] = ["version", "first_error", "compared"];

/// What an earlier run said with `--json`: the last line of `file`.
pub(super) fn read(file: &Path) -> Result<Value, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Failure(format!("can't read `{shown}`: {error}")))?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let said: Option<Value> = serde_json::from_str(line).ok();
    said.filter(|said| said.get("what").is_some_and(Value::is_string))
        .ok_or_else(|| Failure(format!("the last line of `{shown}` is not what `caracal bench --json` ends with")))
}

/// Refuses runs that have nothing to say to each other.
pub(super) fn same_unit(old: &Value, what: &str) -> Result<(), Failure> {
    match old.get("what").and_then(Value::as_str) {
        Some(before) if before == what => Ok(()),
        before => Err(Failure(format!("the earlier run measured `{}`, this one `{what}`", before.unwrap_or_default()))),
    }
}

/// A number of both runs.
struct Pair {
    name: String,
    old: f64,
    new: f64,
}

impl Pair {
    /// Nothing where the old one is nothing.
    fn ratio(&self) -> Option<f64> {
        (self.old != 0.0).then(|| self.new / self.old)
    }
}

/// Each number that both runs have, with the ratio of the new one to the old one.
pub(super) fn json(old: &Value, new: &Value) -> Value {
    let rows = pairs(old, new).into_iter().map(|pair| {
        let row = json!({"old": pair.old, "new": pair.new, "ratio": pair.ratio()});
        (pair.name, row)
    });
    Value::Object(rows.collect::<Map<_, _>>())
}

/// The same for people.
pub(super) fn text(old: &Value, new: &Value) -> String {
    let mut text = format!("{:<44} {:>12} {:>12} {:>8}", "compared", "before", "now", "ratio");
    for pair in pairs(old, new) {
        let ratio = pair.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        // Writing to a string does not fail.
        let _ = write!(text, "\n{:<44} {:>12.2} {:>12.2} {ratio:>8}", pair.name, pair.old, pair.new);
    }
    for name in SETUP {
        let (before, now) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
        if before != now {
            let _ = write!(text, "\n`{name}` is not the same: {before} before, {now} now");
        }
    }
    text
}

fn pairs(old: &Value, new: &Value) -> Vec<Pair> {
    let mut found = Vec::new();
    walk("", old, new, &mut found);
    found
}

/// Numbers are compared by name; what stands in a list has none.
fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<Pair>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, now) in new {
                let Some(before) = old.get(name) else { continue };
                if path.is_empty() && (SETUP.contains(&name.as_str()) || LEFT_OUT.contains(&name.as_str())) {
                    continue;
                }
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&path, before, now, found);
            }
        }
        (Value::Number(old), Value::Number(new)) => {
            if let (Some(old), Some(new)) = (old.as_f64(), new.as_f64()) {
                found.push(Pair { name: path.to_owned(), old, new });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(what: &str, per_second: f64, workers: u64) -> Value {
        json!({
            "version": "0.1.0", "what": what, "workers": workers, "errors": 0,
            "mint": {"per_second": per_second, "histogram": [[1, 2]], "server_cpu_us_per_call": null}
        })
    }

    #[test]
    fn numbers_of_both_runs_are_compared_and_settings_are_not() {
        let (old, new) = (said("mint", 100.0, 8), said("mint", 150.0, 4));
        assert_eq!(
            json(&old, &new),
            json!({
                "errors": {"old": 0.0, "new": 0.0, "ratio": null},
                "mint.per_second": {"old": 100.0, "new": 150.0, "ratio": 1.5}
            })
        );
        let table = text(&old, &new);
        assert!(table.contains("1.50") && table.contains("`workers` is not the same: 8 before, 4 now"), "{table}");
        assert!(!table.contains("version"), "{table}");
    }

    #[test]
    fn only_runs_of_the_same_unit_are_compared() {
        assert!(same_unit(&said("mint", 1.0, 1), "mint").is_ok());
        let Failure(why) = same_unit(&said("mint", 1.0, 1), "governed").unwrap_err();
        assert_eq!(why, "the earlier run measured `mint`, this one `governed`");
    }

    #[test]
    fn the_last_line_of_a_file_is_read_and_nothing_else_is_taken_for_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("warming up\n{}\n\n", said("mint", 1.0, 1))).unwrap();
        assert_eq!(read(file.path()).unwrap_or_default()["mint"]["per_second"], 1.0);
        for text in ["", "{}", "[]", "no", r#"{"what": 1}"#] {
            std::fs::write(file.path(), text).unwrap();
            let Failure(why) = read(file.path()).unwrap_err();
            assert!(why.contains("the last line of"), "{text}: {why}");
        }
        let Failure(why) = read(Path::new("/nonexistent/old.json")).unwrap_err();
        assert!(why.contains("can't read `/nonexistent/old.json`"), "{why}");
    }
}
