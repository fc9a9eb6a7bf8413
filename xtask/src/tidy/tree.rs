//! The files of the tree, read once.

use std::fs;
use std::path::Path;

use crate::step::Failed;

/// Built, fetched or foreign things.
const NOT_OURS: &[&str] = &[".git", "target", ".venv", "__pycache__", "node_modules"];

/// A text file.
pub(super) struct File {
    /// Path from the root of the tree, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// Whether it is test data taken from elsewhere or generated, which is kept as it is.
    pub(super) fn is_data(&self) -> bool {
        self.path.contains("/vectors/")
            || self.path.contains("/fuzz/corpus/")
            || self.path.contains("/fuzz/artifacts/")
            || self.path.rsplit('/').next().is_some_and(|name| name.starts_with("Cargo.lock"))
            || self.path == "LICENSE"
    }

    /// Whether it belongs to a room's fuzz targets: a workspace of its own, which no build of ours contains.
    pub(super) fn is_fuzz(&self) -> bool {
        self.path.starts_with("crates/") && self.path.split('/').nth(2) == Some("fuzz")
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The name of the crate's folder, for files in `crates/`.
    pub(super) fn room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

/// Every text file below `root`, sorted by path.
pub(super) fn read(root: &Path) -> Result<Vec<File>, Failed> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn walk(root: &Path, directory: &Path, files: &mut Vec<File>) -> Result<(), Failed> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push(File { path, text });
        }
    }
    Ok(())
}
