//! Which roots are evaluated, in which order, and which of them for every question (contract: policy.md §7.3, §14.2 row 1).
//!
//! A rule may read other roots, in its own document or in another. Each root is evaluated on its own, after those it reads,
//! so a circle has no beginning: it is found here, whatever its rules would come to.

use std::sync::Arc;

use super::PartForm;
use crate::defect::{DefectKind, Defects};
use crate::literal::Position;
use crate::parse::{Form, ParsedDocument, Rule};
use crate::root::{Root, Roots};

/// A root that must be evaluated.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) root: Root,
    pub(crate) form: PartForm,
    /// Its first rule that must be evaluated.
    pub(crate) document: usize,
    pub(crate) at: Position,
    pub(crate) reads: Roots,
}

/// The roots of a bundle that must be evaluated, each after those it reads.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) order: Vec<Planned>,
    /// Those whose value depends on the question.
    pub(crate) dynamic: Roots,
}

impl Plan {
    /// What the documents need; what they can't have is a defect.
    pub(crate) fn of(documents: &[Arc<ParsedDocument>], defects: &mut Defects<'_>) -> Self {
        let parts = || {
            documents.iter().enumerate().flat_map(|(number, document)| {
                document
                    .evaluated
                    .iter()
                    .flat_map(move |evaluated| evaluated.parts.iter().map(move |part| (number, part)))
            })
        };
        let mut planned: Vec<Planned> = Vec::new();
        let mut dynamic = Roots::default();
        for (document, part) in parts() {
            let (root, form, at) = (part.root, part.form, part.at);
            if part.reads.input {
                dynamic.add(root);
            }
            match planned.iter_mut().find(|planned| planned.root == root) {
                Some(known) => known.reads.add_all(part.reads.roots),
                None => planned.push(Planned { root, form, document, at, reads: part.reads.roots }),
            }
            let first = first_form(documents, root);
            if let Some((earlier, earlier_at, _)) = first.filter(|(.., earlier_form)| *earlier_form != form) {
                let policy_version_id = defects.id(earlier);
                defects.add(document, at, DefectKind::MixedForms { root, policy_version_id, at: earlier_at });
            }
        }
        for planned in &planned {
            let Some((earlier, earlier_at, form)) = first_form(documents, planned.root) else { continue };
            for (document, rule) in literal_rules(documents, planned.root) {
                // Literal rules that contradict each other are found where they are merged.
                let by_a_part = (earlier, earlier_at) == (planned.document, planned.at);
                if by_a_part && form_of(rule) != form {
                    let (root, policy_version_id) = (planned.root, defects.id(earlier));
                    defects.add(document, rule.at, DefectKind::MixedForms { root, policy_version_id, at: earlier_at });
                }
            }
        }
        // Who reads what depends on the question depends on it.
        for _ in Root::ALL {
            for planned in &planned {
                if planned.reads.iter().any(|read| dynamic.has(read)) {
                    dynamic.add(planned.root);
                }
            }
        }
        for (document, part) in parts() {
            if let Some(root) = part.reads.under_with.iter().find(|root| dynamic.has(*root)) {
                defects.add(document, part.at, DefectKind::ReplacedInput { root });
            }
        }
        let mut order: Vec<Planned> = Vec::with_capacity(planned.len());
        while !planned.is_empty() {
            let waits_for = |next: &Planned| planned.iter().any(|other| next.reads.has(other.root));
            match planned.iter().position(|next| !waits_for(next)) {
                Some(index) => order.push(planned.remove(index)),
                None => {
                    // Everybody left waits for somebody left, so following the first one leads around.
                    for circular in planned.iter().filter(|one| reaches_itself(one.root, &planned)) {
                        defects.add(circular.document, circular.at, DefectKind::Recursive { root: circular.root });
                    }
                    break;
                }
            }
        }
        Self { order, dynamic }
    }
}

fn reaches_itself(root: Root, planned: &[Planned]) -> bool {
    let mut reached = Roots::default();
    for _ in Root::ALL {
        for one in planned {
            if one.root == root || reached.has(one.root) {
                reached.add_all(one.reads);
            }
        }
    }
    reached.has(root)
}

/// Roots that are read by their bare names and that no document defines: OPA refuses these as unsafe variables. Stored
/// documents may have them, and then they are undefined.
pub(crate) fn undefined_roots(documents: &[Arc<ParsedDocument>], defects: &mut Defects<'_>) {
    for (number, document) in documents.iter().enumerate() {
        for part in document.evaluated.iter().flat_map(|evaluated| evaluated.parts.iter()) {
            for root in part.reads.bare.iter().filter(|root| first_form(documents, *root).is_none()) {
                defects.add(number, part.at, DefectKind::UndefinedRoot { root });
            }
        }
    }
}

fn literal_rules(documents: &[Arc<ParsedDocument>], root: Root) -> impl Iterator<Item = (usize, &Rule)> {
    let rules = documents.iter().enumerate();
    rules.flat_map(move |(number, document)| {
        document.rules.iter().filter(move |rule| rule.root == root).map(move |rule| (number, rule))
    })
}

fn form_of(rule: &Rule) -> PartForm {
    match rule.form {
        Form::Default(_) | Form::Complete(_) => PartForm::Whole,
        Form::Member(_) => PartForm::Members,
        Form::Element(_) => PartForm::Elements,
    }
}

/// The form in which a root is given first, and where.
fn first_form(documents: &[Arc<ParsedDocument>], root: Root) -> Option<(usize, Position, PartForm)> {
    let literal = literal_rules(documents, root).map(|(number, rule)| (number, rule.at, form_of(rule)));
    let parts = documents.iter().enumerate().flat_map(|(number, document)| {
        let parts = document.evaluated.iter().flat_map(|evaluated| evaluated.parts.iter());
        parts.filter(|part| part.root == root).map(move |part| (number, part.at, part.form))
    });
    literal.chain(parts).min_by_key(|(number, at, _)| (*number, *at))
}
