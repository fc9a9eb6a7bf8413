//! What is wrong with a bundle, for a person and for a machine.

use std::fmt;

use crate::ladder::EvaluationError;
use crate::literal::Position;
use crate::refusal::RefusalKind;
use crate::root::Root;
use crate::text::TextCode;

/// So many defects are reported at once; a hostile bundle could hold a hundred thousand.
const MAX_DEFECTS: usize = 32;

/// One defect of a bundle and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleDefect {
    /// Index of the document in the manifest, from 0.
    pub document: usize,
    /// Policy version id of that document.
    pub policy_version_id: String,
    /// Where in the document.
    pub at: Position,
    /// What is wrong.
    pub kind: DefectKind,
}

impl fmt::Display for BundleDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.at;
        write!(f, "policy version `{}`, line {line}, column {column}: {}", self.policy_version_id, self.kind)
    }
}

impl std::error::Error for BundleDefect {}

/// What is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefectKind {
    /// A document fails the text check of policy.md §7.1.
    #[error("{}", .0.explanation())]
    Text(TextCode),
    /// A document can't be read.
    #[error(transparent)]
    Refused(#[from] RefusalKind),
    /// With this document the bundle becomes larger than one may be.
    #[error("with this document the set holds more data than a set may; shorten its documents")]
    BundleTooLarge,
    /// Two rules give one root different values.
    #[error("`{root}` is already defined with another value at line {} of `{policy_version_id}`", at.line)]
    Conflict {
        /// The root.
        root: Root,
        /// Document of the first definition.
        policy_version_id: String,
        /// Place of the first definition.
        at: Position,
    },
    /// Two rules give one key of a root different values.
    #[error(
        "`{root}[{key}]` is already defined with another value at line {} of `{policy_version_id}`", at.line
    )]
    ConflictingKey {
        /// The root.
        root: Root,
        /// The key as JSON.
        key: String,
        /// Document of the first definition.
        policy_version_id: String,
        /// Place of the first definition.
        at: Position,
    },
    /// One root is defined both as a whole and by its parts, or by members and by elements.
    #[error(
        "`{root}` is defined in another form at line {} of `{policy_version_id}`; define it either as a whole, or by \
         `{root}[key] := value`, or by `{root} contains value`", at.line
    )]
    MixedForms {
        /// The root.
        root: Root,
        /// Document of the first form.
        policy_version_id: String,
        /// Place of the first form.
        at: Position,
    },
    /// Two `default` rules for one root.
    #[error("`{root}` already has a default at line {} of `{policy_version_id}`", at.line)]
    TwoDefaults {
        /// The root.
        root: Root,
        /// Document of the first default.
        policy_version_id: String,
        /// Place of the first default.
        at: Position,
    },
    /// One object names a key twice with different values.
    #[error("the key {0} is written twice with different values")]
    RepeatedKey(String),
    /// A value has a shape the root cannot use.
    #[error("`{path}` must be {expected}, and is {found}")]
    Malformed {
        /// The root.
        root: Root,
        /// Path of the value, for example `grants["resource://n"].roles`.
        path: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// No entry of `grants` has this member, so the whole document grants nothing.
    #[error("no entry of `grants` has `{0}`, so none can grant anything")]
    NoGrantHas(&'static str),
    /// A root whose rules, or those they read, read it.
    #[error("`{root}` depends on itself; a root may not read a root that reads it")]
    Recursive {
        /// The root.
        root: Root,
    },
    /// A root is read by its name, and nothing defines it.
    #[error(
        "`{root}` is read here and defined nowhere; define it, or read `data.caracal.authz.{root}`, which may be absent"
    )]
    UndefinedRoot {
        /// The root that is read.
        root: Root,
    },
    /// A root that depends on `input` is read where `input` is replaced.
    #[error("`{root}` depends on `input`, so it can't be read in a statement that replaces `input` by `with`")]
    ReplacedInput {
        /// The root that is read.
        root: Root,
    },
    /// Evaluating a root had no answer.
    #[error("`{root}` can't be evaluated: {error}")]
    NotEvaluated {
        /// The root.
        root: Root,
        /// Why.
        error: EvaluationError,
    },
    /// A root's value holds a number that documents can't compute with.
    #[error("`{root}` is read by a document that must be evaluated, and holds a number that is not computed with")]
    NumberTooLarge {
        /// The root.
        root: Root,
    },
    /// `risk` classifies one scope twice.
    #[error("scope `{scope}` is classified as `{first}` and as `{second}`; a scope has one tier")]
    DoublyClassified {
        /// The scope.
        scope: String,
        /// The tier named first.
        first: String,
        /// The other tier.
        second: String,
    },
}

impl DefectKind {
    /// Whether it is for a set to judge: it is about what the data say, or about what another document may define, and not
    /// about whether the document can be read and evaluated.
    pub fn is_for_a_set(&self) -> bool {
        matches!(
            self,
            DefectKind::Malformed { .. }
                | DefectKind::NoGrantHas(_)
                | DefectKind::DoublyClassified { .. }
                | DefectKind::RepeatedKey(_)
                | DefectKind::UndefinedRoot { .. }
        )
    }

    /// A stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            DefectKind::Text(_) => "text_check_failed",
            DefectKind::Refused(kind) => kind.code(),
            DefectKind::BundleTooLarge => "bundle_too_large",
            DefectKind::Conflict { .. } | DefectKind::ConflictingKey { .. } => "conflicting_definitions",
            DefectKind::MixedForms { .. } => "mixed_definition_forms",
            DefectKind::TwoDefaults { .. } => "two_defaults",
            DefectKind::RepeatedKey(_) => "repeated_key",
            DefectKind::Malformed { .. } => "malformed_data",
            DefectKind::NoGrantHas(_) => "defective_grants",
            DefectKind::DoublyClassified { .. } => "doubly_classified_scope",
            DefectKind::Recursive { .. } => "recursive_definition",
            DefectKind::UndefinedRoot { .. } => "undefined_root",
            DefectKind::ReplacedInput { .. } | DefectKind::NumberTooLarge { .. } => "not_evaluable",
            DefectKind::NotEvaluated { .. } => "evaluation_failed",
        }
    }
}

/// Collects defects up to a bound, in the order found.
pub(crate) struct Defects<'d> {
    ids: &'d [&'d str],
    found: Vec<BundleDefect>,
}

impl<'d> Defects<'d> {
    /// `ids`: the manifest's policy version ids.
    pub(crate) fn new(ids: &'d [&'d str]) -> Self {
        Self { ids, found: Vec::new() }
    }

    pub(crate) fn id(&self, document: usize) -> String {
        self.ids.get(document).map_or_else(String::new, |id| (*id).to_owned())
    }

    pub(crate) fn add(&mut self, document: usize, at: Position, kind: DefectKind) {
        if self.found.len() < MAX_DEFECTS {
            self.found.push(BundleDefect { document, policy_version_id: self.id(document), at, kind });
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_DEFECTS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found first.
    pub(crate) fn into_first(self) -> Option<BundleDefect> {
        self.found.into_iter().next()
    }

    /// The value, if nothing was found.
    pub(crate) fn none_or<T>(self, value: T) -> Result<T, Vec<BundleDefect>> {
        if self.found.is_empty() { Ok(value) } else { Err(self.found) }
    }
}

/// The first of several, for a message that has room for one.
pub(crate) fn first(defects: &[BundleDefect]) -> String {
    defects.first().map(BundleDefect::to_string).unwrap_or_default()
}
