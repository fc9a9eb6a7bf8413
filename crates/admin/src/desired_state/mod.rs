//! A zone's configuration as one document (docs/decisions/0048; contract: control-cli-deploy.md §3, whose format and report
//! these routes share).
//!
//! A team keeps what its zone should be beside its code. `GET …/export` writes the document, `POST …/import` makes the zone
//! be what a document says: all of it in one commit, or nothing. `?dry_run=true` carries the very same import out and takes
//! it back, so the plan that it shows is what would happen. No secret is in an export, and none is needed where one is
//! sealed already.
//!
//! Each kind of object has its own rules in its own room (`applications::desired` and so on). Here are the document
//! ([`document`]), what is there ([`state`]), what was done ([`report`]), and the order of things ([`import`]).

mod document;
pub(crate) mod export;
pub(crate) mod import;
mod report;
mod state;

use std::collections::BTreeMap;

pub(crate) use self::document::{Kind, Object};
pub(crate) use self::report::Did;
pub(crate) use self::state::State;
use crate::hand::Hand;

/// What every object of an import is settled with.
pub(crate) struct Import {
    /// Who does it.
    pub(crate) hand: Hand,
    /// Resources the zone may have; 0 is any number.
    pub(crate) max_resources: u32,
    /// What was found out about the policy sets of the document, by name.
    pub(crate) judged: BTreeMap<String, Judged>,
}

/// Whether the policies that a set is to have can decide together. Found out before the commit, for evaluating takes
/// long; within it the hashes say whether it was found out of the same texts.
pub(crate) struct Judged {
    /// Of the documents, in order.
    pub(crate) content_sha256: Vec<String>,
    /// What keeps them from it.
    pub(crate) defect: Option<String>,
}
