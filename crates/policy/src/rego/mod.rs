//! Documents that must be evaluated (contract: policy.md §2, §7.3, §14.2, §14.4; D31).
//!
//! A tenant writes `restrict contains "night" if input.principal.lifecycle == "task"`. That is a program, and it will run
//! on the path that signs tokens, so what can go wrong is kept from happening before anything runs:
//!
//! 1. [`outline`]: the text is looked at byte by byte, and refused where the engine's parser would take long or deep.
//! 2. [`read`]: the engine's parser makes a tree. Its rules must be data documents' rules; what is literal in it is taken
//!    over as literal; the rest is kept as a text for the engine, changed by [`walk`] so that no rule calls another, no
//!    value grows unseen, and no function reaches outside.
//! 3. [`plan`]: over all documents of a bundle, which root depends on which, and that none depends on itself.
//! 4. [`verify`]: the engine's own reading of what it was given, once more, for what must never happen.
//! 5. [`program`]: roots that do not depend on the question are evaluated once, when the bundle is made; the others for
//!    each question, within a [`Budget`], and what comes out is read like literal data.
//!
//! Everything here is synchronous and as deep as its bounds allow: run it on a thread of [`crate::Evaluators`].
//!
//! Only the engine's interpreter is used. Its bytecode machine does not notice conflicting definitions.

mod builtins;
mod meter;
mod outline;
mod plan;
mod program;
mod read;
mod value;
mod verify;
mod walk;

pub(crate) use plan::{Plan, undefined_roots};
pub(crate) use program::{Evaluation, Given, Program, Running};
pub(crate) use read::read;
pub(crate) use value::to_engine as value_to_engine;

pub use program::Budget;

use crate::literal::Position;
use crate::root::{Root, Roots};

/// Longest text that is evaluated, in bytes.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// Deepest brackets in it.
pub(crate) const MAX_NESTING: usize = 8;
/// Most operators in one expression.
pub(crate) const MAX_OPERATORS: usize = 64;
/// Most computed elements of a set, or keys of an object, that are written in one place: each is compared with the others.
pub(crate) const MAX_COMPARED: usize = 32;
/// Most statements in one body.
pub(crate) const MAX_STATEMENTS: usize = 64;

/// What of a document must be evaluated.
#[derive(Debug)]
pub(crate) struct Evaluated {
    /// For the engine, on the author's lines.
    pub(crate) text: String,
    /// Its rules, in text order.
    pub(crate) parts: Vec<Part>,
}

/// A rule that must be evaluated.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) root: Root,
    pub(crate) form: PartForm,
    pub(crate) at: Position,
    pub(crate) reads: Reads,
}

/// What a rule gives to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartForm {
    /// All of it.
    Whole,
    /// Members of an object.
    Members,
    /// Elements of a set.
    Elements,
}

/// What a rule depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reads {
    pub(crate) input: bool,
    pub(crate) roots: Roots,
    /// Roots read where `input` is replaced.
    pub(crate) under_with: Roots,
    /// Roots read by their bare names, which OPA takes for variables where nothing of that name is defined.
    pub(crate) bare: Roots,
}

/// What an error of the engine says, without the tenant's text around it, and where.
pub(crate) fn complaint(error: &anyhow::Error) -> (Option<Position>, String) {
    let text = error.to_string();
    let place = text.lines().find_map(|line| {
        let mut numbers = line.strip_prefix("--> ")?.rsplitn(3, ':');
        let column = numbers.next()?.parse().ok()?;
        let line = numbers.next()?.parse().ok()?;
        // At the start of a line the engine counts from zero.
        Some(Position { line: u32::max(line, 1), column: u32::max(column, 1) })
    });
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let message = last.strip_prefix("error: ").unwrap_or(last);
    (place, message.chars().take(200).collect())
}
