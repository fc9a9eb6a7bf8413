//! Finding a Python that the published client supports, and giving it an environment of its own under `target`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::step::{Chore, Failed};

/// The oldest Python that the client is published for.
const OLDEST: (u32, u32) = (3, 12);
/// A Python that is asked for its version has this long.
const PATIENCE: Duration = Duration::from_secs(20);

const NONE_FOUND: &str = "\
no Python 3.12 or newer was found. It is needed for the published client, whose flows are part of the suite.
           Looked for python3.14, python3.13, python3.12, python3 and python in PATH, and in ~/.pyenv/versions.
           Install one (Debian and Ubuntu: apt-get install python3 python3-venv; macOS: brew install python), or name
           one in the variable PYTHON, and run this again";

/// An interpreter, new enough.
pub(crate) struct Python {
    path: PathBuf,
    version: String,
}

/// The first that answers, newest first. A name in the path may be a shim for a version that is not there, so each is
/// run before it is believed.
pub(crate) fn find(chore: &Chore) -> Result<Python, Failed> {
    let named = env::var_os("PYTHON").map(PathBuf::from);
    let candidates = match named {
        Some(named) => vec![named],
        None => ["python3.14", "python3.13", "python3.12", "python3", "python"]
            .map(PathBuf::from)
            .into_iter()
            .chain(of_pyenv())
            .collect(),
    };
    for path in candidates {
        let print = "import sys; print('%d.%d.%d' % sys.version_info[:3])";
        let Some(version) = chore.ask(chore.program(&path).args(["-I", "-c", print]), PATIENCE) else { continue };
        let version = version.trim().to_owned();
        if is_new_enough(&version) {
            chore.say(&format!("Python {version} at {}", path.display()));
            return Ok(Python { path, version });
        }
    }
    Err(Failed(NONE_FOUND.to_owned()))
}

impl Python {
    /// An environment that holds exactly what `requirements` pins, made once per content. Returns its `bin`.
    pub(crate) fn environment(&self, chore: &Chore, name: &str, requirements: &Path) -> Result<PathBuf, Failed> {
        let directory = chore.target().join("python").join(format!("{name}-{}", self.version));
        let bin = directory.join(if cfg!(windows) { "Scripts" } else { "bin" });
        let stamp = directory.join("complete");
        let pinned = fs::read_to_string(chore.root().join(requirements))?;
        if fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == pinned) {
            return Ok(bin);
        }
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let what = format!("making an environment in {}", directory.display());
        chore.run(&what, chore.program(&self.path).args(["-I", "-m", "venv"]).arg(&directory))?;
        let mut pip = chore.program(bin.join("python"));
        pip.args(["-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(requirements);
        chore.run(&format!("installing what {} pins", requirements.display()), &mut pip)?;
        fs::write(stamp, pinned)?;
        Ok(bin)
    }
}

/// Interpreters that pyenv installed, newest first.
fn of_pyenv() -> Vec<PathBuf> {
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| env::home_dir().map(|home| home.join(".pyenv")));
    let Some(versions) = root.and_then(|root| fs::read_dir(root.join("versions")).ok()) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = versions
        .flatten()
        .map(|entry| (numbers(&entry.file_name().to_string_lossy()), entry.path().join("bin").join("python")))
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

fn is_new_enough(version: &str) -> bool {
    matches!(numbers(version)[..], [major, minor, ..] if (major, minor) >= OLDEST)
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_python_that_the_client_supports_is_taken() {
        for version in ["3.12.0", "3.12.1", "3.13.0", "3.100.1", "4.0.0"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["2.7.18", "3.11.7", "3.2.0", "", "three", "3"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(numbers("3.13.0") > numbers("3.9.18"));
    }
}
