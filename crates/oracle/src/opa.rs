//! What stock Open Policy Agent says, as vectors: so that machines without it are held to its answers.
//!
//! Two files in `tests/vectors`, written by `cargo xtask opa --opa PATH --write` and compared by the same chore without
//! `--write`:
//!
//! - `opa-documents.jsonl`: documents of every spelling, whether OPA takes them, and what their roots come to.
//! - `opa-decisions.jsonl`: zones and requests as [`crate::run`] makes them, and what OPA answers with the oracle's text.

mod documents;
mod program;
mod sample;

pub use documents::{Checked, DocumentVector, check_documents, document_vectors};
pub use program::{Opa, OpaFailed};
pub use sample::{Question, ZoneVector, check_zones, compact, zone_vectors};

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where both files lie.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("vectors")
}

/// File name of [`DocumentVector`]s.
pub const DOCUMENTS: &str = "opa-documents.jsonl";
/// File name of [`ZoneVector`]s.
pub const DECISIONS: &str = "opa-decisions.jsonl";

/// Reads a file of vectors, one a line.
pub fn read<T: DeserializeOwned>(name: &str) -> Result<Vec<T>, OpaFailed> {
    let path = vectors().join(name);
    let text = std::fs::read_to_string(&path).map_err(|error| OpaFailed(format!("{}: {error}", path.display())))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| OpaFailed(format!("{name}, line {}: {error}", at + 1)))
        })
        .collect()
}

/// The text of a file of vectors.
pub fn written<T: Serialize>(vectors: &[T]) -> Result<String, OpaFailed> {
    let mut text = String::new();
    for vector in vectors {
        text += &serde_json::to_string(vector).map_err(|error| OpaFailed(error.to_string()))?;
        text.push('\n');
    }
    Ok(text)
}
