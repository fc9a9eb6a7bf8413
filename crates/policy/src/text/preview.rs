//! What `POST /v1/policies/validate` tells about an accepted text (contract: policy.md §8). A static read.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Checked, PACKAGE, is_name_byte, is_space};
use crate::input::INPUT_SCHEMA_VERSION;

/// The body of a successful validation.
#[derive(Debug, Serialize)]
pub struct Validation {
    /// Always `true`: a text that fails has no validation.
    pub valid: bool,
    /// Schema of the document.
    pub schema_version: &'static str,
    /// Schema of the input a decision sees.
    pub input_schema_version: &'static str,
    /// What a decision answers with.
    pub output_contract: OutputContract,
    /// What the text defines and refers to.
    pub preview: Preview,
}

/// Where decisions come from and the values they may take.
#[derive(Debug, Serialize)]
pub struct OutputContract {
    /// The package queried.
    pub package: &'static str,
    /// The rule queried.
    pub rule: &'static str,
    /// Values of `decision`.
    pub decision: [&'static str; 2],
    /// Values of `evaluation_status`.
    pub evaluation_status: [&'static str; 1],
}

/// A static view of a document.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The package of the document.
    pub package: &'static str,
    /// Detected rules, sorted.
    pub rules: Vec<String>,
    /// Whether the text speaks of a `default result`.
    pub default_result: bool,
    /// Distinct values of literal `"decision"` members, sorted.
    pub decisions: Vec<&'static str>,
    /// Distinct dotted paths below `input`, sorted.
    pub inputs_referenced: Vec<String>,
    /// Distinct dotted paths below `data`, sorted.
    pub data_referenced: Vec<String>,
}

impl Checked<'_> {
    /// The static view of the text.
    pub fn preview(&self) -> Preview {
        Preview {
            package: PACKAGE,
            rules: self.rules.clone(),
            default_result: self.content.contains("default result"),
            decisions: ["allow", "deny"].into_iter().filter(|value| mentions_decision(self.content, value)).collect(),
            inputs_referenced: paths_below(&self.masked.text, "input"),
            data_referenced: paths_below(&self.masked.text, "data"),
        }
    }

    /// The answer of the validate route.
    pub fn validation(&self) -> Validation {
        Validation {
            valid: true,
            schema_version: INPUT_SCHEMA_VERSION,
            input_schema_version: INPUT_SCHEMA_VERSION,
            output_contract: OutputContract {
                package: PACKAGE,
                rule: "result",
                decision: ["allow", "deny"],
                evaluation_status: ["complete"],
            },
            preview: self.preview(),
        }
    }
}

/// Whether the raw text has a member `"decision": "<value>"`.
fn mentions_decision(content: &str, value: &str) -> bool {
    const MEMBER: &str = "\"decision\"";
    content.match_indices(MEMBER).any(|(offset, _)| {
        content[offset + MEMBER.len()..]
            .trim_start_matches(is_space)
            .strip_prefix(':')
            .and_then(|rest| rest.trim_start_matches(is_space).strip_prefix('"'))
            .and_then(|rest| rest.strip_prefix(value))
            .is_some_and(|rest| rest.starts_with('"'))
    })
}

/// Dotted paths that start at `root`, up to the first character that is neither a name nor a dot before a name.
fn paths_below(masked: &str, root: &str) -> Vec<String> {
    let bytes = masked.as_bytes();
    let mut found = BTreeSet::new();
    for (offset, _) in masked.match_indices(root) {
        // Looked at first: in `input.input.input…` only one path starts, and only that one is walked along.
        if bytes[..offset].last().is_some_and(|byte| is_name_byte(*byte)) {
            continue;
        }
        let mut end = offset + root.len();
        while bytes.get(end) == Some(&b'.')
            && bytes.get(end + 1).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        {
            end += 1;
            while bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                end += 1;
            }
        }
        if end > offset + root.len() {
            found.insert(masked[offset..end].to_owned());
        }
    }
    found.into_iter().collect()
}
