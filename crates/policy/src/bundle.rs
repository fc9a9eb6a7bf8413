//! A bundle: the documents of one policy set version, ready to decide by.
//!
//! Immutable, so one decision sees one bundle from start to end, and named by the hash of its manifest, so the
//! evidence can say which. There are two ways in, and they differ in what they forgive:
//!
//! - [`Bundle::build`] judges what an author hands in, when a set version is made or activated. It runs the text
//!   check on every document and refuses every conflict and every malformed shape (D31).
//! - [`Bundle::load`] reads what is stored. It tolerates what the contract tolerates at decision time (policy.md
//!   §2.1): a document without the directive line, grants that grant nothing, an unreadable `confinement`, `risk`
//!   or `approval_tiers`, a doubly classified scope. Each of these denies; none of them grants. It still refuses
//!   what the reference's bundle check refuses, every conflict between documents, and a confinement rule whose
//!   prefix is no string.
//!
//! Whatever `build` accepts `load` accepts, with the same data. Neither accepts more than a bundle may weigh: documents
//! are bounded one by one, but a set may have hundreds, and read they take many times the memory of their text.

use std::sync::Arc;

use crate::data::Data;
use crate::defect::{BundleDefect, DefectKind, Defects};
use crate::hashes::ManifestSha256;
use crate::input::Input;
use crate::ladder::EvaluationError;
use crate::literal::Position;
use crate::merge::{Sources, merge};
use crate::parse::ParsedDocument;
use crate::refusal::Refusal;
use crate::rego::{self, Budget, Evaluation, Plan, Program, Running};
use crate::root::{Root, Roots};
use crate::shape::{Tolerance, index, repeated_keys};
use crate::text;

/// What evidence calls the bundle of a zone without an active policy set.
pub const NO_ACTIVE_POLICY_SET: &str = "no_active_policy_set";

/// Most that the documents of a bundle may weigh, in bytes of memory, about: tens of thousands of grants.
const MAX_WEIGHT: usize = 32 << 20;

/// Adds up the documents of a bundle.
#[derive(Default)]
pub(crate) struct Scale(usize);

impl Scale {
    /// Adds a document, if the bundle may still have it.
    pub(crate) fn take(&mut self, document: &ParsedDocument) -> Result<(), DefectKind> {
        self.0 = self.0.saturating_add(document.weight);
        if self.0 > MAX_WEIGHT { Err(DefectKind::BundleTooLarge) } else { Ok(()) }
    }

    /// What they weigh.
    pub(crate) fn weight(&self) -> usize {
        self.0
    }
}

/// One entry of a manifest with its text.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The policy version's id; the manifest hash is taken over these, in order.
    pub policy_version_id: &'a str,
    /// The document's text.
    pub content: &'a str,
}

/// The data of one policy set version. Share it in an `Arc`.
#[derive(Debug)]
pub struct Bundle {
    manifest: Option<ManifestSha256>,
    manifest_text: Box<str>,
    /// Without the roots that depend on the question.
    pub(crate) data: Data,
    weight: usize,
    open: Option<Box<Open>>,
}

/// What depends on the question.
#[derive(Debug)]
struct Open {
    ids: Vec<String>,
    documents: Vec<Arc<ParsedDocument>>,
    plan: Plan,
    /// With the values of the other roots laid out.
    program: Program,
    ground: Evaluation,
}

/// What the roots that depend on the question come to for one.
#[derive(Debug)]
pub struct RootValues {
    manifest: Option<ManifestSha256>,
    input: Input,
    data: Data,
}

impl RootValues {
    /// The data, if they are those of this bundle for this question.
    pub(crate) fn data_for(&self, bundle: &Bundle, input: &Input) -> Option<&Data> {
        (bundle.manifest.is_some() && self.manifest == bundle.manifest && self.input == *input).then_some(&self.data)
    }

    /// Whether they are those of this bundle for this question.
    pub fn are_for(&self, bundle: &Bundle, input: &Input) -> bool {
        self.data_for(bundle, input).is_some()
    }
}

impl Bundle {
    /// Judges documents strictly, as an author's. Reports up to 32 defects at once.
    ///
    /// Documents may have to be evaluated, which takes a deep stack and its time: run it on a thread of
    /// [`crate::Evaluators`].
    pub fn build(documents: &[Document<'_>]) -> Result<Self, Vec<BundleDefect>> {
        Self::read(documents, Tolerance::Authored)
    }

    /// Reads documents as stored, with the tolerance of decision time. Run it where [`Bundle::build`] is run.
    pub fn load(documents: &[Document<'_>]) -> Result<Self, Vec<BundleDefect>> {
        Self::read(documents, Tolerance::Stored)
    }

    /// The bundle of a zone without an active policy set: everything is denied.
    pub fn no_active_policy_set() -> Self {
        Self {
            manifest: None,
            manifest_text: NO_ACTIVE_POLICY_SET.into(),
            data: Data::default(),
            weight: 0,
            open: None,
        }
    }

    /// Whether this is the bundle of a zone without an active policy set.
    pub fn is_no_active_policy_set(&self) -> bool {
        self.manifest.is_none()
    }

    /// The manifest's hash; `None` without an active policy set.
    pub fn manifest_sha256(&self) -> Option<ManifestSha256> {
        self.manifest
    }

    /// What evidence and approvals name: the manifest's hash in hexadecimal, or [`NO_ACTIVE_POLICY_SET`].
    pub fn manifest(&self) -> &str {
        &self.manifest_text
    }

    /// Whether data depend on the question: then they are evaluated for each, by [`Bundle::evaluate`].
    pub fn must_be_evaluated(&self) -> bool {
        self.open.is_some()
    }

    /// Evaluates what depends on the question. Run it on a thread of [`crate::Evaluators`].
    pub fn evaluate(&self, input: &Input, budget: Budget) -> Result<RootValues, EvaluationError> {
        let mut data = self.data.clone();
        if let Some(open) = &self.open {
            let json = serde_json::to_value(input).map_err(|error| EvaluationError::Failed(error.to_string()))?;
            data = open.evaluate(&json, &data, budget)?;
        }
        Ok(RootValues { manifest: self.manifest, input: input.clone(), data })
    }

    /// Bytes of memory it takes at most, about.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    fn read(documents: &[Document<'_>], tolerance: Tolerance) -> Result<Self, Vec<BundleDefect>> {
        let ids: Vec<&str> = documents.iter().map(|document| document.policy_version_id).collect();
        let mut defects = Defects::new(&ids);
        let mut scale = Scale::default();
        let mut parsed = Vec::with_capacity(documents.len());
        for (number, document) in documents.iter().enumerate() {
            if tolerance == Tolerance::Authored
                && let Err(defect) = text::check(document.content)
            {
                defects.add(number, defect.at, DefectKind::Text(defect.code));
                continue;
            }
            match ParsedDocument::parse_stored(document.content) {
                Ok(document) => {
                    if let Err(kind) = scale.take(&document) {
                        defects.add(number, Position { line: 1, column: 1 }, kind);
                        break;
                    }
                    parsed.push(Arc::new(document));
                }
                Err(Refusal { at, kind }) => defects.add(number, at, kind.into()),
            }
        }
        // What the readable documents say together means nothing while others are missing.
        defects.none_or(())?;
        Self::assemble(&ids, parsed, tolerance, scale.weight())
    }

    pub(crate) fn assemble(
        ids: &[&str],
        documents: Vec<Arc<ParsedDocument>>,
        tolerance: Tolerance,
        weight: usize,
    ) -> Result<Self, Vec<BundleDefect>> {
        let mut defects = Defects::new(ids);
        if tolerance == Tolerance::Authored {
            repeated_keys(&documents, &mut defects);
            rego::undefined_roots(&documents, &mut defects);
        }
        let plan = Plan::of(&documents, &mut defects);
        let dynamic = plan.dynamic;
        let mut ground = Evaluation::default();
        let mut program = None;
        if !plan.order.is_empty() && defects.is_empty() {
            program = Program::compile(&documents, &mut defects);
            if let Some(program) = &mut program {
                evaluate_ground(program, &plan, &documents, &mut ground, &mut defects);
            }
        }
        let sources = Sources { documents: &documents, ground: &ground, fresh: None };
        let data = index(&sources, |root| !dynamic.has(root), &Data::default(), tolerance, &mut defects);
        let manifest = ManifestSha256::of(ids.iter().copied());
        let manifest_text = manifest.to_string().into();
        let mut open = None;
        if !dynamic.is_empty()
            && let Some(program) = program
        {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            let made = Open { ids, documents, plan, program, ground };
            if tolerance == Tolerance::Authored && defects.is_empty() {
                made.try_out(&data, &mut defects);
            }
            open = Some(Box::new(made));
        }
        defects.none_or(Self { manifest: Some(manifest), manifest_text, data, weight, open })
    }
}

/// Evaluates what does not depend on the question, and lays out what others read.
fn evaluate_ground(
    program: &mut Program,
    plan: &Plan,
    documents: &[Arc<ParsedDocument>],
    ground: &mut Evaluation,
    defects: &mut Defects<'_>,
) {
    let running = Running::start(Budget::BUNDLE);
    let mut laid = Roots::default();
    for planned in &plan.order {
        for root in planned.reads.iter().filter(|root| !plan.dynamic.has(*root)) {
            if !laid.has(root) {
                laid.add(root);
                let sources = Sources { documents, ground, fresh: None };
                if let Err(kind) = lay(program, root, &sources, defects) {
                    return defects.add(planned.document, planned.at, kind);
                }
            }
        }
        if !plan.dynamic.has(planned.root) {
            match program.evaluate(planned, &running) {
                Ok(given) => ground.put(given),
                Err(error) => {
                    let kind = DefectKind::NotEvaluated { root: planned.root, error };
                    return defects.add(planned.document, planned.at, kind);
                }
            }
        }
    }
}

/// Lays out what a root is by all its sources.
fn lay(program: &mut Program, root: Root, sources: &Sources<'_>, defects: &mut Defects<'_>) -> Result<(), DefectKind> {
    let Some(merged) = merge(root, sources, defects) else { return Ok(()) };
    let value = rego::value_to_engine(&merged.to_literal()).ok_or(DefectKind::NumberTooLarge { root })?;
    program.lay(root, value).map_err(|error| DefectKind::NotEvaluated { root, error })
}

impl Open {
    fn evaluate(&self, input: &serde_json::Value, data: &Data, budget: Budget) -> Result<Data, EvaluationError> {
        let ids: Vec<&str> = self.ids.iter().map(String::as_str).collect();
        let mut defects = Defects::new(&ids);
        let mut program = self.program.clone();
        program.ask(input);
        let running = Running::start(budget);
        let mut fresh = Evaluation::default();
        let mut laid = Roots::default();
        for planned in self.plan.order.iter().filter(|planned| self.plan.dynamic.has(planned.root)) {
            for root in planned.reads.iter().filter(|root| self.plan.dynamic.has(*root)) {
                if !laid.has(root) {
                    laid.add(root);
                    let sources = self.sources(&fresh);
                    lay(&mut program, root, &sources, &mut defects)
                        .map_err(|kind| EvaluationError::Unusable(kind.to_string()))?;
                }
            }
            fresh.put(program.evaluate(planned, &running)?);
        }
        let dynamic = self.plan.dynamic;
        let data = index(&self.sources(&fresh), |root| dynamic.has(root), data, Tolerance::Asked, &mut defects);
        match defects.into_first() {
            None => Ok(data),
            Some(defect) => Err(EvaluationError::Unusable(defect.to_string())),
        }
    }

    fn sources<'s>(&'s self, fresh: &'s Evaluation) -> Sources<'s> {
        Sources { documents: &self.documents, ground: &self.ground, fresh: Some(fresh) }
    }

    /// The bundle check's evaluation with an empty input (policy.md §7.3): what fails even then is refused to its author.
    fn try_out(&self, data: &Data, defects: &mut Defects<'_>) {
        let empty = serde_json::Value::Object(serde_json::Map::new());
        if let Err(error) = self.evaluate(&empty, data, Budget::BUNDLE)
            && let Some(first) = self.plan.order.iter().find(|planned| self.plan.dynamic.has(planned.root))
        {
            defects.add(first.document, first.at, DefectKind::NotEvaluated { root: first.root, error });
        }
    }
}
