//! Both opinions on one question, and whether they are one.

use std::fmt;

use std::time::Duration;

use caracal_policy::{Budget, Bundle, Document, EvaluationError, Input, Verdict, decide, decide_evaluated};
use serde::Deserialize;
use serde_json::Value;

use crate::case::Case;
use crate::engine::{Answer, NoAnswer, Oracle, Questions, Zone};
use crate::evaluated::as_given;
use crate::literal::same_json;

/// What one of the two says.
#[derive(Debug, Clone)]
pub enum Opinion {
    /// The documents make no bundle.
    Refused(String),
    /// The evaluation has no answer: 503 `policy_eval_failed`.
    Failed(String),
    /// A result document.
    Decided(Value),
    /// A result document, or no bundle: the grants that one question has can grant nothing, and only who sees those of
    /// every question knows whether that is a defect of the whole.
    Barren {
        /// Why there might be no bundle.
        why: String,
        /// The result document.
        result: Value,
    },
}

impl Opinion {
    /// Whether both say the same. Why a bundle is refused or an evaluation fails is each one's own wording.
    pub fn agrees(&self, other: &Opinion) -> bool {
        match (self, other) {
            (Opinion::Refused(_), Opinion::Refused(_)) | (Opinion::Failed(_), Opinion::Failed(_)) => true,
            (Opinion::Decided(one), Opinion::Decided(other)) => same_json(one, other),
            _ => false,
        }
    }
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opinion::Refused(why) => write!(f, "no bundle: {why}"),
            Opinion::Failed(why) => write!(f, "no answer: {why}"),
            Opinion::Decided(result) => write!(f, "{result}"),
            Opinion::Barren { why, result } => write!(f, "{result}, or no bundle: {why}"),
        }
    }
}

/// How long an evaluation takes is not the subject here, and the machine may be busy.
const UNHURRIED: Budget = Budget { time: Duration::from_secs(60) };

/// A zone's documents as the ladder holds them.
#[derive(Debug)]
pub struct Ladder {
    bundle: Bundle,
}

impl Ladder {
    /// Reads the documents as they are stored, with the tolerance of decision time.
    pub fn load(documents: &[(&str, &str)]) -> Result<Self, Opinion> {
        Self::with(documents, Bundle::load)
    }

    /// Reads the documents as an author's. What this takes, [`Ladder::load`] takes with the same meaning.
    pub fn build(documents: &[(&str, &str)]) -> Result<Self, Opinion> {
        Self::with(documents, Bundle::build)
    }

    fn with(
        documents: &[(&str, &str)],
        make: impl Fn(&[Document<'_>]) -> Result<Bundle, Vec<caracal_policy::BundleDefect>>,
    ) -> Result<Self, Opinion> {
        let documents: Vec<Document<'_>> =
            documents.iter().map(|&(policy_version_id, content)| Document { policy_version_id, content }).collect();
        make(&documents)
            .map(|bundle| Self { bundle })
            .map_err(|defects| Opinion::Refused(defects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
    }

    /// Whether the documents look at the question.
    pub fn must_be_evaluated(&self) -> bool {
        self.bundle.must_be_evaluated()
    }

    fn decide(&self, input: &Input) -> Result<Verdict, EvaluationError> {
        if !self.must_be_evaluated() {
            return decide(&self.bundle, input);
        }
        let values = self.bundle.evaluate(input, UNHURRIED)?;
        decide_evaluated(&self.bundle, &values, input)
    }

    /// Decides one input.
    pub fn opinion(&self, input: &Input) -> Opinion {
        match self.decide(input).map(|verdict| serde_json::to_value(&verdict)) {
            Ok(Ok(result)) => Opinion::Decided(result),
            Ok(Err(error)) => Opinion::Failed(error.to_string()),
            Err(error) => Opinion::Failed(error.to_string()),
        }
    }
}

impl Zone {
    /// The oracle's opinion on one input, with the row it found.
    pub(crate) fn opinion(&mut self, input: &Value) -> (Opinion, Option<u8>) {
        told(self.answer(input))
    }
}

impl Questions {
    /// The oracle's opinion on one input, with the row it found.
    pub(crate) fn opinion(&mut self, input: &Value) -> (Opinion, Option<u8>) {
        told(self.answer(input))
    }
}

fn told(answer: Result<Answer, NoAnswer>) -> (Opinion, Option<u8>) {
    match answer {
        Ok(Answer { barren: Some(why), result, row }) => (Opinion::Barren { why, result }, Some(row)),
        Ok(answer) => (Opinion::Decided(answer.result), Some(answer.row)),
        Err(none) => (none.into(), None),
    }
}

impl From<NoAnswer> for Opinion {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::Refused(why) => Opinion::Refused(why),
            NoAnswer::Failed(why) => Opinion::Failed(why),
        }
    }
}

/// An input in the form that each of the two reads: the ladder its type, the oracle JSON.
pub(crate) fn read(input: &Value, simulated: bool) -> Result<(Input, Value), String> {
    if !simulated {
        let typed = Input::deserialize(input).map_err(|error| error.to_string())?;
        return Ok((typed, input.clone()));
    }
    let members = input.as_object().cloned().ok_or("an input is an object")?;
    let typed = Input::for_simulation(members).map_err(|error| error.to_string())?;
    let normal = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    Ok((typed, normal))
}

/// Both opinions on one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The ladder's.
    pub ladder: Opinion,
    /// The oracle's.
    pub oracle: Opinion,
    /// The row the oracle found.
    pub row: Option<u8>,
}

impl Outcome {
    /// Whether both are one.
    pub fn agrees(&self) -> bool {
        self.ladder.agrees(&self.oracle)
    }

    /// The same, where documents are evaluated for the question: what production finds in them when it reads them, and
    /// what it finds when it evaluates them, the oracle finds at one and the same time.
    pub(crate) fn of_evaluated(self) -> Self {
        let oracle = match (&self.ladder, self.oracle) {
            (Opinion::Refused(_), Opinion::Failed(why)) => Opinion::Refused(why),
            (Opinion::Failed(_), Opinion::Refused(why)) => Opinion::Failed(why),
            (Opinion::Refused(_), Opinion::Barren { why, .. }) => Opinion::Refused(why),
            (_, Opinion::Barren { result, .. }) => Opinion::Decided(result),
            (_, same) => same,
        };
        Self { oracle, ..self }
    }
}

/// Asks both. An input that has members of a wrong type is no question: an error.
pub fn compare(oracle: &Oracle, case: &Case) -> Result<Outcome, String> {
    let documents: Vec<(&str, &str)> =
        case.documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (typed, json) = read(&case.input, case.simulated)?;
    let whole = || match oracle.questions(&documents) {
        Ok(mut questions) => Ok(questions.opinion(&as_given(&typed)?)),
        Err(none) => Ok::<_, String>((none.into(), None)),
    };
    let ladder = match Ladder::load(&documents) {
        Ok(ladder) if ladder.must_be_evaluated() => {
            let (oracle, row) = whole()?;
            return Ok(Outcome { ladder: ladder.opinion(&typed), oracle, row }.of_evaluated());
        }
        Ok(ladder) => ladder.opinion(&typed),
        Err(refused) => {
            // What makes no bundle may show only where everything is looked at.
            let (oracle, row) = whole()?;
            return Ok(Outcome { ladder: refused, oracle, row }.of_evaluated());
        }
    };
    let (oracle, row) = match oracle.live_zone(&documents) {
        Ok(mut zone) => zone.opinion(&json),
        Err(none) => (none.into(), None),
    };
    Ok(Outcome { ladder, oracle, row })
}

/// Two opinions that are not one.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The question, made as small as it could be.
    pub case: Case,
    /// Both answers to it.
    pub outcome: Outcome,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the ladder and the oracle differ ({})", self.case.name)?;
        writeln!(f, "ladder: {}", self.outcome.ladder)?;
        writeln!(f, "oracle: {} (row {:?})", self.outcome.oracle, self.outcome.row)?;
        let case = serde_json::to_string(&self.case).map_err(|_| fmt::Error)?;
        write!(f, "run it again: cargo run -p caracal-oracle -- --case FILE, with this in FILE:\n{case}")
    }
}
