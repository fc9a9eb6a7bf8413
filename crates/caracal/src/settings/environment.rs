//! What variables are set, and where each comes from: the process's environment before the file that `CARACAL_ENV_FILE`
//! names (contract: control-cli-deploy.md §7.1). No file of the current directory is ever read: whoever can put a `.env`
//! where an operator happens to stand must not be able to turn a deployment's checks off.

use std::collections::BTreeMap;
use std::fmt;

/// Largest file that is read.
const MOST_BYTES: u64 = 1024 * 1024;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The environment of the process.
    Environment,
    /// `CARACAL_ENV_FILE`.
    EnvFile,
    /// The file that `NAME_FILE` names.
    File,
    /// A key file of the data directory.
    DataDirectory,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Environment => "environment",
            Self::EnvFile => "environment file",
            Self::File => "file",
            Self::DataDirectory => "data directory",
        })
    }
}

/// The environment as an argument.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, (String, Source)>,
    warnings: Vec<String>,
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Environment {
    /// The process's own, and what `CARACAL_ENV_FILE` adds to it.
    pub fn of_process() -> Self {
        // What is not text is no value of ours.
        let pairs =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let values = pairs.map(|(name, value)| (name, (value, Source::Environment))).collect();
        Self { values, warnings: Vec::new() }.with_file()
    }

    /// From pairs.
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        pairs.into_iter().collect()
    }

    /// The value of `name`, if set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Where the value of `name` comes from.
    pub fn source(&self, name: &str) -> Source {
        match self.values.get(name) {
            Some((value, source)) if !value.is_empty() => *source,
            _ => Source::Default,
        }
    }

    /// What an operator should know although it stops nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds the variables of the file that `CARACAL_ENV_FILE` names, where they are not set. A file that is malformed in
    /// any line adds none.
    fn with_file(mut self) -> Self {
        let Some(path) = self.get("CARACAL_ENV_FILE").map(str::to_owned) else { return self };
        match read(&path) {
            Ok(pairs) => self.fill(pairs),
            Err(why) => self.warnings.push(format!("CARACAL_ENV_FILE: `{path}` is not used: {why}")),
        }
        self
    }

    /// `NAME` and `NAME_FILE` are one: whichever the environment sets keeps the file from setting the other.
    fn fill(&mut self, pairs: Vec<(String, String)>) {
        let is_set = |name: &str| {
            let other = name.strip_suffix("_FILE").map_or_else(|| format!("{name}_FILE"), str::to_owned);
            [name, other.as_str()].iter().any(|name| self.values.contains_key(*name))
        };
        let added: Vec<(String, String)> = pairs.into_iter().filter(|(name, _)| !is_set(name)).collect();
        self.values.extend(added.into_iter().map(|(name, value)| (name, (value, Source::EnvFile))));
    }
}

impl<'p> FromIterator<(&'p str, &'p str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'p str, &'p str)>>(pairs: I) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), (value.to_owned(), Source::Environment));
        Self { values: pairs.into_iter().map(own).collect(), warnings: Vec::new() }.with_file()
    }
}

fn read(path: &str) -> Result<Vec<(String, String)>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text).map_err(|line| format!("line {line} is not NAME=value"))
}

/// `NAME=value` by line, with `#` comments, an optional `export` and optional quotes. Nothing is expanded. Fails with the
/// number of the first line that is none of these; what stands in it may be a secret.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = pair.split_once('=').ok_or(number + 1)?;
        let name = name.trim();
        let mut letters = name.chars();
        let good = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        let value = value_of(value.trim()).filter(|_| good).ok_or(number + 1)?;
        // Of two lines for one name the last one counts, as in a shell.
        pairs.retain(|(known, _)| known != name);
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

fn value_of(text: &str) -> Option<String> {
    let quote = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        // A comment needs a space before it: a value may hold a `#`.
        _ => return Some(text.split(" #").next().unwrap_or_default().trim_end().to_owned()),
    };
    let mut value = String::new();
    let mut letters = text.chars();
    letters.next();
    loop {
        match letters.next()? {
            end if end == quote => break,
            '\\' if quote == '"' => match letters.next()? {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                _ => return None,
            },
            letter => value.push(letter),
        }
    }
    let rest = letters.as_str().trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_values_with_comments_and_quotes() {
        let text = "# a comment\n\nA=1\n  export B = two words # said\nC=\"x \\\"y\\\" #z\\n\" # end\nD='$HOME \\n'\nE=\nF=a#b\nA=3\r\n";
        let expected =
            [("B", "two words"), ("C", "x \"y\" #z\n"), ("D", "$HOME \\n"), ("E", ""), ("F", "a#b"), ("A", "3")];
        let found = parse(text).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number_alone() {
        for (text, line) in [
            ("A", 1),
            ("A=1\n=2", 2),
            ("A=1\n\n1B=2", 3),
            ("A B=1", 1),
            ("A=\"open", 1),
            ("A='open", 1),
            ("A='x' y", 1),
            ("A=\"\\q\"", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text}");
        }
    }

    fn with_file(content: &str, pairs: &[(&str, &str)]) -> Environment {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("caracal.env");
        std::fs::write(&path, content).unwrap();
        let file = ("CARACAL_ENV_FILE", path.to_str().unwrap());
        pairs.iter().copied().chain([file]).collect()
    }

    #[test]
    fn a_file_fills_only_what_is_not_set() {
        let content = "A=file\nB=file\nC=file\nKEY=file\nTOKEN_FILE=/file\nD=file\n";
        let set = [("A", "process"), ("B", ""), ("KEY_FILE", "/process"), ("TOKEN", "process")];
        let environment = with_file(content, &set);
        assert_eq!((environment.get("A"), environment.source("A")), (Some("process"), Source::Environment));
        assert_eq!((environment.get("B"), environment.source("B")), (None, Source::Default), "set to nothing is set");
        assert_eq!((environment.get("C"), environment.source("C")), (Some("file"), Source::EnvFile));
        // A key that the process names by file is not overridden by one that the file holds, nor the other way round.
        assert_eq!((environment.get("KEY"), environment.get("KEY_FILE")), (None, Some("/process")));
        assert_eq!((environment.get("TOKEN"), environment.get("TOKEN_FILE")), (Some("process"), None));
        assert!(environment.warnings().is_empty());
    }

    #[test]
    fn a_malformed_or_missing_file_is_skipped_with_a_warning_that_quotes_nothing() {
        let environment = with_file("A=1\nSECRET_STORE_KEK abc123\n", &[]);
        assert_eq!(environment.get("A"), None);
        let [warning] = environment.warnings() else { panic!("{:?}", environment.warnings()) };
        assert!(warning.contains("line 2") && !warning.contains("abc123"), "{warning}");
        let missing = Environment::of([("CARACAL_ENV_FILE", "/nowhere/caracal.env")]);
        assert!(missing.warnings()[0].contains("/nowhere/caracal.env"), "{:?}", missing.warnings());
    }

    #[test]
    fn an_environment_is_printed_without_its_values() {
        let environment = Environment::of([("SECRET_STORE_KEK", "abc123")]);
        assert_eq!(format!("{environment:?}"), "{\"SECRET_STORE_KEK\"}");
    }
}
