//! One question asked of documents that need not be active (contract: policy.md §10.5). Nothing is kept, and nothing but the
//! documents that are given is looked at.

use serde_json::{Map, Value};

use crate::bundle::{Bundle, Document};
use crate::defect::{BundleDefect, first};
use crate::input::{Input, SimulationInputError};
use crate::ladder::{EvaluationError, decide, decide_evaluated};
use crate::rego::Budget;
use crate::verdict::Verdict;

/// Why a simulation has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The input is none.
    #[error(transparent)]
    Input(#[from] SimulationInputError),
    /// The documents make no bundle.
    #[error("the documents make no bundle: {}", first(.0))]
    Defective(Vec<BundleDefect>),
    /// The question has no answer.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

impl SimulationError {
    /// The contract's code: `invalid_token` for an input of the wrong shape, else `policy_eval_failed`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Input(SimulationInputError::WrongType(_)) => "invalid_token",
            Self::Input(SimulationInputError::UnsupportedSchema(_)) | Self::Defective(_) | Self::Evaluation(_) => {
                "policy_eval_failed"
            }
        }
    }
}

/// What documents would decide, read as a decision reads them. With no input they are judged as an author's instead, and
/// asked the empty question: that is the bundle check.
///
/// Documents may have to be evaluated: run it on a thread of [`crate::Evaluators`].
pub fn simulate(documents: &[Document<'_>], input: Option<Map<String, Value>>) -> Result<Verdict, SimulationError> {
    let is_check = input.is_none();
    let input = Input::for_simulation(input.unwrap_or_default())?;
    let bundle = if is_check { Bundle::build(documents) } else { Bundle::load(documents) };
    let bundle = bundle.map_err(SimulationError::Defective)?;
    if !bundle.must_be_evaluated() {
        return Ok(decide(&bundle, &input)?);
    }
    let values = bundle.evaluate(&input, Budget::QUESTION)?;
    Ok(decide_evaluated(&bundle, &values, &input)?)
}
