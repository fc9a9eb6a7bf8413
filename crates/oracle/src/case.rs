//! One question, complete: what a difference is reported as, and what can be run again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Documents and an input, in the form of the vectors of `caracal-policy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Where it comes from.
    pub name: String,
    /// Name → text of the zone's documents.
    pub documents: BTreeMap<String, String>,
    /// The input, as a simulation would send it or as an exchange would make it.
    pub input: Value,
    /// Whether the input is normalised first, as a simulation's is (policy.md §10.5).
    #[serde(default)]
    pub simulated: bool,
}
