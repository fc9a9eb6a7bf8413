//! Generated zones and requests, answered by OPA with the oracle's own text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::program::{Opa, OpaFailed};
use crate::engine::Oracle;
use crate::opinions::{Ladder, Opinion, read};
use crate::run::{REQUESTS, case_of};

/// One zone and what OPA says about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneVector {
    /// Where the zone comes from.
    pub name: String,
    /// Name → text.
    pub documents: BTreeMap<String, String>,
    /// Whether OPA, or the contract's own check of shapes, takes the documents.
    pub taken: bool,
    /// Questions and answers; none if the documents are not taken.
    pub questions: Vec<Question>,
}

/// One input, as the contract is given it, and OPA's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The input.
    pub input: Value,
    /// Row and result; `None` if the evaluation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
}

impl Question {
    /// The row that decided.
    pub fn row(&self) -> Option<u64> {
        self.answer.as_ref()?["row"].as_u64()
    }
}

const ANSWER: &str = "data.caracal.oracle.answer";

const SEED: u64 = 19;
/// So often each row is in the sample that is kept, and so many zones that are not taken.
const OFTEN: usize = 16;
const REFUSED: usize = 10;

/// Asks OPA about so many zones, every question of each, and hands every zone to `each`.
pub fn zone_vectors(opa: &Opa, zones: u64, mut each: impl FnMut(&ZoneVector)) -> Result<Vec<ZoneVector>, OpaFailed> {
    let mut answered = Vec::new();
    for zone in 0..zones {
        let vector = zone_vector(opa, SEED, zone)?;
        each(&vector);
        answered.push(vector);
    }
    Ok(answered)
}

fn zone_vector(opa: &Opa, seed: u64, zone: u64) -> Result<ZoneVector, OpaFailed> {
    let mut documents = BTreeMap::new();
    let mut inputs = Vec::new();
    for number in 0..usize::try_from(REQUESTS).unwrap_or(0) {
        let Some(case) = case_of(seed, zone, number) else { break };
        let (_, input) = read(&case.input, case.simulated).map_err(OpaFailed)?;
        documents = case.documents;
        inputs.push(input);
    }
    opa.open(&documents)?;
    let empty = json!({});
    // Every root is read once, so that a contradiction is noticed whichever root it is in.
    let shapes = opa.ask("data.caracal.oracle.refused", &empty)?;
    let taken = shapes == Some(json!([])) && opa.ask("data.caracal.authz", &empty)?.is_some();
    let mut questions = Vec::new();
    if taken {
        let all = json!({"questions": inputs});
        let query = format!("[answer | question := input.questions[_]; answer := {ANSWER} with input as question]");
        let together = opa.ask(&query, &all)?;
        let answers = match together {
            Some(Value::Array(answers)) if answers.len() == inputs.len() => answers.into_iter().map(Some).collect(),
            // One of them has no answer: each is asked alone.
            _ => inputs.iter().map(|input| opa.ask(ANSWER, input)).collect::<Result<Vec<_>, _>>()?,
        };
        questions = inputs.into_iter().zip(answers).map(|(input, answer)| Question { input, answer }).collect();
    }
    let name = format!("seed {seed}, zone {zone}");
    Ok(ZoneVector { name, documents, taken, questions })
}

/// Whether the oracle, run by the interpreter, and the ladder say what OPA says. The first difference is an error.
pub fn check_zones(oracle: &Oracle, zones: &[ZoneVector]) -> Result<(), String> {
    for ZoneVector { name, documents, taken, questions } in zones {
        let documents: Vec<(&str, &str)> =
            documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let ladder = Ladder::load(&documents);
        let mut zone = match oracle.live_zone(&documents).and_then(|_| oracle.zone(&documents)) {
            Ok(zone) if *taken && ladder.is_ok() => zone,
            Err(_) if !*taken && ladder.is_err() => continue,
            answering => {
                let interpreter = answering.err().map_or("taken".to_owned(), |error| error.to_string());
                let ladder = ladder.err().map_or("taken".to_owned(), |refused| refused.to_string());
                let stock = if *taken { "taken" } else { "not taken" };
                let texts = documents.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
                return Err(format!("{name}: OPA: {stock}; interpreter: {interpreter}; ladder: {ladder}\n{texts}"));
            }
        };
        for Question { input, answer } in questions {
            let stock = match answer {
                Some(answer) => Opinion::Decided(answer["result"].clone()),
                None => Opinion::Failed("failed".to_owned()),
            };
            let (interpreter, row) = zone.opinion(input);
            let (typed, _) = read(input, false)?;
            let ladder = ladder.as_ref().map(|ladder| ladder.opinion(&typed)).map_err(ToString::to_string)?;
            let same_row = row.map(u64::from) == answer.as_ref().and_then(|answer| answer["row"].as_u64());
            if !stock.agrees(&interpreter) || !stock.agrees(&ladder) || !same_row {
                let texts = documents.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
                return Err(format!(
                    "{name}: {input}\nOPA: {stock}\ninterpreter: {interpreter}\nladder: {ladder}\n{texts}"
                ));
            }
        }
    }
    Ok(())
}

/// The sample worth keeping: zones until every row, and the failing evaluation, has come up `often` times, with the
/// questions that brought them up and no others.
pub fn compact(zones: Vec<ZoneVector>) -> Vec<ZoneVector> {
    compacted(zones, OFTEN, REFUSED)
}

fn compacted(zones: Vec<ZoneVector>, often: usize, refused: usize) -> Vec<ZoneVector> {
    let mut seen: BTreeMap<Option<u64>, usize> = BTreeMap::new();
    let mut not_taken = 0;
    let mut kept = Vec::new();
    for mut zone in zones {
        if !zone.taken {
            not_taken += 1;
            if not_taken <= refused {
                kept.push(zone);
            }
            continue;
        }
        let mut here: BTreeMap<Option<u64>, usize> = BTreeMap::new();
        zone.questions.retain(|question| {
            let count = seen.entry(question.row()).or_default();
            let of_zone = here.entry(question.row()).or_default();
            // At most two of a kind from one zone, so that zones differ; failures are rare.
            let most = if question.answer.is_some() { 2 } else { 4 };
            let wanted = *count < often && *of_zone < most;
            if wanted {
                *count += 1;
                *of_zone += 1;
            }
            wanted
        });
        if !zone.questions.is_empty() {
            kept.push(zone);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_every_row_and_no_more_than_asked_for() {
        let zone = |rows: &[u64], taken| ZoneVector {
            name: String::new(),
            documents: BTreeMap::new(),
            taken,
            questions: rows
                .iter()
                .map(|row| Question { input: json!({}), answer: Some(json!({"row": row})) })
                .collect(),
        };
        let kept = compacted(
            vec![zone(&[1, 1, 1, 2], true), zone(&[], false), zone(&[], false), zone(&[1, 2], true), zone(&[1], true)],
            3,
            1,
        );
        let rows: Vec<Vec<Option<u64>>> =
            kept.iter().map(|zone| zone.questions.iter().map(Question::row).collect()).collect();
        assert_eq!(rows, [vec![Some(1), Some(1), Some(2)], vec![], vec![Some(1), Some(2)]]);
    }
}
