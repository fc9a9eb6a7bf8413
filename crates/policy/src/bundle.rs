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

use crate::data::Data;
use crate::defect::{BundleDefect, DefectKind, Defects};
use crate::hashes::ManifestSha256;
use crate::literal::Position;
use crate::parse::ParsedDocument;
use crate::refusal::Refusal;
use crate::shape::{Tolerance, index};
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
    pub(crate) data: Data,
    weight: usize,
}

impl Bundle {
    /// Judges documents strictly, as an author's. Reports up to 32 defects at once.
    pub fn build(documents: &[Document<'_>]) -> Result<Self, Vec<BundleDefect>> {
        Self::read(documents, Tolerance::Authored)
    }

    /// Reads documents as stored, with the tolerance of decision time.
    pub fn load(documents: &[Document<'_>]) -> Result<Self, Vec<BundleDefect>> {
        Self::read(documents, Tolerance::Stored)
    }

    /// The bundle of a zone without an active policy set: everything is denied.
    pub fn no_active_policy_set() -> Self {
        Self { manifest: None, manifest_text: NO_ACTIVE_POLICY_SET.into(), data: Data::default(), weight: 0 }
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
            match ParsedDocument::parse(document.content) {
                Ok(document) => {
                    if let Err(kind) = scale.take(&document) {
                        defects.add(number, Position { line: 1, column: 1 }, kind);
                        break;
                    }
                    parsed.push(document);
                }
                Err(Refusal { at, kind }) => defects.add(number, at, kind.into()),
            }
        }
        // What the readable documents say together means nothing while others are missing.
        defects.none_or(())?;
        let parsed: Vec<&ParsedDocument> = parsed.iter().collect();
        Self::assemble(&ids, &parsed, tolerance, scale.weight())
    }

    pub(crate) fn assemble(
        ids: &[&str],
        parsed: &[&ParsedDocument],
        tolerance: Tolerance,
        weight: usize,
    ) -> Result<Self, Vec<BundleDefect>> {
        let mut defects = Defects::new(ids);
        let data = index(parsed, tolerance, &mut defects);
        let manifest = ManifestSha256::of(ids.iter().copied());
        let manifest_text = manifest.to_string().into();
        defects.none_or(Self { manifest: Some(manifest), manifest_text, data, weight })
    }
}
