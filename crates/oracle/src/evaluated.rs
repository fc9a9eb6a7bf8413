//! Questions about documents that have to be evaluated for each of them.
//!
//! Production reads such a document, changes its text, evaluates what depends on the question by its own order, merges
//! it with what does not, and decides by what came out. The oracle evaluates the documents as they are written, whole, for
//! every question, and has the contract's text decide. Both evaluations are the interpreter's; everything around them is
//! compared.

use caracal_policy::Input;
use serde_json::Value;

use crate::chance::Chance;
use crate::engine::Oracle;
use crate::literal::Document;
use crate::opinions::{Difference, Ladder, Opinion, Outcome, read};
use crate::programs;
use crate::requests::{Request, request};
use crate::run::{Report, difference, texts};
use crate::shrink::Question;

/// Every so many zones there is one of these.
const EVERY: u64 = 4;
/// Requests that it is asked.
const REQUESTS: usize = 12;
/// Apart from the zones of literals.
const APART: u64 = 0x5EED_0F0E_7A1D_A7ED;

fn make(seed: u64, zone: u64) -> (Vec<Document>, Vec<Request>) {
    let mut chance = Chance::of(seed ^ APART, zone);
    let made = programs::zone(&mut chance);
    let requests = (0..REQUESTS).map(|_| request(&mut chance, &made)).collect();
    (made.documents, requests)
}

/// What a document is given: the input as production writes it.
pub(crate) fn as_given(input: &Input) -> Result<Value, String> {
    serde_json::to_value(input).map_err(|error| error.to_string())
}

/// Asks about the zone of this number, if there is one.
pub(crate) fn ask(oracle: &Oracle, seed: u64, zone: u64) -> Result<Report, Box<Difference>> {
    let mut report = Report::default();
    if !zone.is_multiple_of(EVERY) {
        return Ok(report);
    }
    let (documents, requests) = make(seed, zone);
    let texts = texts(&documents);
    let named: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (ladder, mut questions) = (Ladder::load(&named), oracle.questions(&named));
    let authored = Ladder::build(&named).ok();
    report.evaluated.zones += 1;
    report.evaluated.refused += u64::from(ladder.is_err());
    report.evaluated.strict += u64::from(authored.is_some());
    report.evaluated.open += u64::from(ladder.as_ref().is_ok_and(Ladder::must_be_evaluated));
    for (number, request) in requests.iter().enumerate() {
        let differs = |outcome: Outcome| {
            let name = format!("seed {seed}, evaluated zone {zone}, request {number}");
            let question = Question { documents: documents.clone(), input: request.input.clone() };
            Err(difference(oracle, question, request.simulated, name, outcome))
        };
        let given = read(&request.input, request.simulated).and_then(|(typed, _)| Ok((as_given(&typed)?, typed)));
        let (json, typed) = match given {
            Ok(given) => given,
            Err(why) => {
                let unread = Outcome { ladder: Opinion::Failed(why), oracle: Opinion::Refused("-".into()), row: None };
                return differs(unread);
            }
        };
        let (oracles, row) = match &mut questions {
            Ok(questions) => questions.opinion(&json),
            Err(none) => (none.clone().into(), None),
        };
        let ladders = ladder.as_ref().map_or_else(Clone::clone, |ladder| ladder.opinion(&typed));
        let outcome = Outcome { ladder: ladders, oracle: oracles, row }.of_evaluated();
        if !outcome.agrees() {
            return differs(outcome);
        }
        if let Some(strict) = &authored {
            let strict = Outcome { ladder: strict.opinion(&typed), ..outcome.clone() }.of_evaluated();
            if !strict.agrees() {
                return differs(strict);
            }
        }
        report.evaluated.cases += 1;
        match (&outcome.oracle, outcome.row) {
            (Opinion::Decided(_), Some(row)) => *report.evaluated.rows.entry(row).or_default() += 1,
            _ => report.evaluated.failed += 1,
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_programs_again_and_most_zones_have_one() {
        let made = |seed, zone| {
            let (documents, requests) = make(seed, zone);
            let inputs: Vec<Value> = requests.into_iter().map(|request| request.input).collect();
            (texts(&documents), inputs)
        };
        assert_eq!(made(1, 4), made(1, 4));
        assert_ne!(made(1, 4), made(2, 4));
        assert_ne!(made(1, 4), made(1, 8));
        let with_programs =
            (0..100).filter(|zone| made(7, *zone).0.iter().any(|(_, text)| text.contains(" if "))).count();
        assert!(with_programs > 70, "{with_programs}");
    }
}
