//! `docs/threat-model.toml` and the files of its threats, typed. What the file may not say can't be read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::engines::Engine;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    /// What everything else argues for.
    pub(crate) claim: String,
    /// Families of claims that somebody has to answer for.
    pub(crate) family: Vec<Family>,
    /// Who stands between whom.
    pub(crate) boundary: Vec<Boundary>,
    /// By room: the engines on which its proofs have to hold, unless they name theirs. None where nothing is stored.
    #[serde(default)]
    pub(crate) engines: BTreeMap<String, BTreeSet<Engine>>,
    /// What could make the claim false.
    #[serde(default)]
    pub(crate) threat: Vec<Threat>,
}

/// The file of one threat.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfThreat {
    threat: Vec<Threat>,
}

/// Reads the file of one threat.
pub(crate) fn threats(text: &str) -> Result<Vec<Threat>, String> {
    toml::from_str::<OfThreat>(text).map(|file| file.threat).map_err(|error| error.to_string())
}

/// Numbered statements of one document: `STS-1` to `STS-15`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    /// What stands before the number, with its hyphen if it has one.
    pub(crate) prefix: String,
    /// The last number; the first is one.
    pub(crate) last: u32,
    /// What the statements are.
    pub(crate) says: String,
}

/// A place where trust changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Boundary {
    pub(crate) between: String,
    pub(crate) distrusts: String,
    pub(crate) mediator: String,
}

/// What goes wrong if nobody prevents it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threat {
    /// `T01` and so on. Tests that answer it have a segment in their names that starts with it, in lower case.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) asset: String,
    /// Kinds of proof without which the answer is not whole.
    pub(crate) kinds: BTreeSet<Kind>,
    #[serde(default)]
    pub(crate) mitigation: Vec<Mitigation>,
}

/// One reason why it does not go wrong.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mitigation {
    pub(crate) id: String,
    pub(crate) says: String,
    /// The folder under `crates/` that holds it; for what the build itself does, `xtask`.
    pub(crate) room: String,
    #[serde(default)]
    pub(crate) claims: BTreeSet<String>,
    pub(crate) proof: Vec<Proof>,
}

/// What would notice its absence.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Proof {
    pub(crate) kind: Kind,
    pub(crate) by: By,
    /// What it has to hold on, where that is not what its room says.
    pub(crate) engines: Option<BTreeSet<Engine>>,
}

/// Where the proof is.
#[derive(Debug)]
pub(crate) enum By {
    /// One test: `room::t03_gateway_egress::a_sentence`.
    Test(String),
    /// All tests of a segment: `room::t03_gateway_egress`.
    Tests(String),
    /// A fuzz target: `room/target`.
    Fuzz(String),
    /// A chore of `cargo xtask` that runs in every build.
    Chore(String),
}

/// A proof as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: Kind,
    test: Option<String>,
    tests: Option<String>,
    fuzz: Option<String>,
    chore: Option<String>,
    engines: Option<BTreeSet<Engine>>,
}

impl TryFrom<Written> for Proof {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let by = match (written.test, written.tests, written.fuzz, written.chore) {
            (Some(test), None, None, None) => By::Test(test),
            (None, Some(tests), None, None) => By::Tests(tests),
            (None, None, Some(target), None) => By::Fuzz(target),
            (None, None, None, Some(chore)) => By::Chore(chore),
            _ => return Err("a proof names one of test, tests, fuzz and chore"),
        };
        if written.engines.is_some() && matches!(by, By::Fuzz(_) | By::Chore(_)) {
            return Err("only tests have engines");
        }
        Ok(Self { kind: written.kind, by, engines: written.engines })
    }
}

/// How a proof argues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Unit,
    Property,
    Differential,
    Fuzz,
    Fault,
    BlackBox,
    Check,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Property => "property",
            Self::Differential => "differential",
            Self::Fuzz => "fuzz",
            Self::Fault => "fault",
            Self::BlackBox => "black-box",
            Self::Check => "check",
        }
    }
}

impl Model {
    /// Reads the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Everything that has to be claimed.
    pub(crate) fn universe(&self) -> BTreeSet<String> {
        let numbered = |family: &Family| (1..=family.last).map(|n| format!("{}{n}", family.prefix)).collect::<Vec<_>>();
        self.family.iter().flat_map(numbered).collect()
    }

    pub(crate) fn mitigations(&self) -> impl Iterator<Item = &Mitigation> {
        self.threat.iter().flat_map(|threat| &threat.mitigation)
    }
}
