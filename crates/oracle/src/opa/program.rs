//! The program `opa`, asked through files and its command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::engine::MODULE;

/// OPA could not be asked, or said something that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpaFailed(pub(crate) String);

impl From<std::io::Error> for OpaFailed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A stock `opa` and a folder to hand it files in. The folder goes away with it.
#[derive(Debug)]
pub struct Opa {
    program: PathBuf,
    folder: PathBuf,
    version: String,
}

impl Opa {
    /// The program at `path`.
    pub fn at(path: &Path) -> Result<Self, OpaFailed> {
        let said = Command::new(path).arg("version").output().map_err(|error| {
            OpaFailed(format!("can't run `{}`: {error}; name a stock Open Policy Agent", path.display()))
        })?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned);
        let version = version.ok_or_else(|| OpaFailed(format!("`{}` names no version: {said}", path.display())))?;
        let folder = std::env::temp_dir().join(format!("caracal-oracle-opa-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { program: path.to_path_buf(), folder, version })
    }

    /// The version it names.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it takes the documents as they are, without the contract beside them.
    pub fn takes(&self, documents: &BTreeMap<String, String>) -> Result<bool, OpaFailed> {
        self.lay(documents, false)?;
        Ok(self.run(&["check", "--v0-compatible", "documents"])?.status.success())
    }

    /// What the documents define, by root; `None` if the evaluation fails.
    pub fn roots(&self, documents: &BTreeMap<String, String>) -> Result<Option<Value>, OpaFailed> {
        self.lay(documents, false)?;
        self.evaluate("data.caracal.authz", &Value::Object(serde_json::Map::new()))
    }

    /// Lays the documents out beside the contract, for [`Opa::ask`].
    pub fn open(&self, documents: &BTreeMap<String, String>) -> Result<(), OpaFailed> {
        self.lay(documents, true)
    }

    /// The value of `query` for one input; `None` if it has none or the evaluation fails.
    pub fn ask(&self, query: &str, input: &Value) -> Result<Option<Value>, OpaFailed> {
        self.evaluate(query, input)
    }

    fn lay(&self, documents: &BTreeMap<String, String>, with_contract: bool) -> Result<(), OpaFailed> {
        let folder = self.folder.join("documents");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (at, text) in documents.values().enumerate() {
            fs::write(folder.join(format!("{at}.rego")), text)?;
        }
        if with_contract {
            fs::write(folder.join("decision.rego"), MODULE)?;
        }
        Ok(())
    }

    fn evaluate(&self, query: &str, input: &Value) -> Result<Option<Value>, OpaFailed> {
        let file = self.folder.join("input.json");
        fs::write(&file, input.to_string())?;
        let arguments = ["eval", "--v0-compatible", "--format", "json", "-d", "documents", "-i", "input.json", query];
        let output = self.run(&arguments)?;
        if !output.status.success() {
            // A failed evaluation, or a number that it reads and cannot write.
            return Ok(None);
        }
        let said: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| OpaFailed(format!("`opa eval {query}` can't be read: {error}")))?;
        if said.get("errors").is_some() {
            return Ok(None);
        }
        Ok(said.pointer("/result/0/expressions/0/value").cloned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, OpaFailed> {
        Ok(Command::new(&self.program).args(arguments).current_dir(&self.folder).output()?)
    }
}

impl Drop for Opa {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
