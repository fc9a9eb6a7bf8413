//! The engine with a bundle's documents in it, and one evaluation.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, PolicyLengthConfig, Value};

use super::plan::Planned;
use super::{PartForm, complaint, meter, value, verify};
use crate::defect::{DefectKind, Defects};
use crate::ladder::EvaluationError;
use crate::literal::{Literal, Position};
use crate::parse::{Form, ParsedDocument, Rule};
use crate::refusal::RefusalKind;
use crate::root::Root;

/// How long an evaluation may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// From its start, all roots together.
    pub time: Duration,
}

impl Budget {
    /// What one question may take (contract: policy.md §14.4).
    pub const QUESTION: Budget = Budget { time: Duration::from_millis(50) };
    /// What making a bundle may take: done once, and by an engine that has yet to look at the documents.
    pub const BUNDLE: Budget = Budget { time: Duration::from_millis(500) };
}

/// One evaluation's clock.
pub(crate) struct Running {
    started: Instant,
    budget: Budget,
}

impl Running {
    /// Starts an evaluation on this thread.
    pub(crate) fn start(budget: Budget) -> Self {
        meter::start();
        Self { started: Instant::now(), budget }
    }

    fn left(&self) -> Result<Duration, EvaluationError> {
        let left = self.budget.time.saturating_sub(self.started.elapsed());
        if left.is_zero() { Err(EvaluationError::TookTooLong { most: self.budget.time }) } else { Ok(left) }
    }
}

/// What roots came to, for those that were evaluated.
#[derive(Debug, Default)]
pub(crate) struct Evaluation(Vec<Given>);

/// What evaluation gave for one root: rules, as if they had been written so.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) root: Root,
    pub(crate) form: PartForm,
    pub(crate) document: usize,
    pub(crate) at: Position,
    /// None if no rule held.
    pub(crate) rules: Vec<Rule>,
}

impl Evaluation {
    pub(crate) fn put(&mut self, given: Given) {
        self.0.push(given);
    }

    pub(crate) fn of(&self, root: Root) -> Option<&Given> {
        self.0.iter().find(|given| given.root == root)
    }
}

/// The documents of a bundle, ready to be evaluated.
#[derive(Clone)]
pub(crate) struct Program(Engine);

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

/// An engine that reads as documents are written: v0 where they do not say v1, whatever the length of their lines.
pub(super) fn engine() -> Engine {
    const LINE: u32 = 1 << 22;
    const BYTES: usize = 1 << 22;
    let mut engine = Engine::new();
    engine.set_rego_v0(true);
    // What a function can't compute is undefined, as documents expect.
    engine.set_strict_builtin_errors(false);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::new(LINE).unwrap_or(NonZeroU32::MAX),
        max_file_bytes: NonZeroUsize::new(BYTES).unwrap_or(NonZeroUsize::MAX),
        max_lines: NonZeroUsize::new(BYTES).unwrap_or(NonZeroUsize::MAX),
    });
    engine
}

impl Program {
    /// Gives the engine all documents that must be evaluated, and has it look at them.
    pub(crate) fn compile(documents: &[Arc<ParsedDocument>], defects: &mut Defects<'_>) -> Option<Self> {
        let mut engine = engine();
        let mut compiled = meter::give_time().and_then(|()| meter::install(&mut engine));
        for (number, document) in documents.iter().enumerate() {
            if let (Ok(()), Some(evaluated)) = (&compiled, &document.evaluated) {
                compiled = engine.add_policy(number.to_string(), evaluated.text.clone()).map(drop);
            }
        }
        // A query of nothing: the engine looks at its documents before the first.
        let compiled = compiled.and_then(|()| verify(&mut engine));
        let compiled = compiled.and_then(|()| engine.eval_query("true".to_owned(), false).map(drop));
        let Err(error) = compiled else { return Some(Self(engine)) };
        let (at, message) = complaint(&error);
        let document = file_of(&error).unwrap_or_default();
        // Columns of the text that the engine has are not the author's; its lines are.
        let line = at.map_or(1, |at| at.line);
        let at = Position { line, column: 1 };
        defects.add(document, at, DefectKind::Refused(RefusalKind::NotEvaluable(message)));
        None
    }

    /// Lays a root's value where those who read it find it.
    pub(crate) fn lay(&mut self, root: Root, value: Value) -> Result<(), EvaluationError> {
        let object = |key: &str, value: Value| {
            let mut object = Value::new_object();
            if let Ok(inner) = object.as_object_mut() {
                inner.insert(Value::from(key), value);
            }
            object
        };
        self.0.add_data(object("roots", object(root.name(), value))).map_err(|error| failed(&error))
    }

    /// Sets the question.
    pub(crate) fn ask(&mut self, input: &serde_json::Value) {
        self.0.set_input(value::from_json(input));
    }

    /// Evaluates one root.
    pub(crate) fn evaluate(&mut self, planned: &Planned, running: &Running) -> Result<Given, EvaluationError> {
        let Planned { root, form, document, at, .. } = *planned;
        // The clock is looked at in every step: one step may compare what is large.
        let check_interval = NonZeroU32::MIN;
        self.0.set_execution_timer_config(ExecutionTimerConfig { limit: running.left()?, check_interval });
        let answer = self.0.eval_query(format!("data.caracal.authz.{root}"), false);
        // Looked at first: an answer that came about after something was given up is none.
        if meter::exceeded() {
            return Err(EvaluationError::TooLarge { root });
        }
        let answer = answer.map_err(|error| match error.downcast_ref::<LimitError>() {
            Some(LimitError::TimeLimitExceeded { .. }) => EvaluationError::TookTooLong { most: running.budget.time },
            _ => failed(&error),
        })?;
        running.left()?;
        let value = answer.result.first().and_then(|result| result.expressions.first()).map(|answer| &answer.value);
        let rules = match value {
            None | Some(Value::Undefined) => Vec::new(),
            Some(value) => {
                let literal = value::to_literal(value, at).ok_or(EvaluationError::TooLarge { root })?;
                rules(root, form, at, literal)?
            }
        };
        Ok(Given { root, form, document, at, rules })
    }
}

/// Whether what the engine was given calls no rule, however it was made: a rule that calls itself ends the process, so this
/// does not rest on who wrote the text for the engine having seen everything.
fn verify(engine: &mut Engine) -> anyhow::Result<()> {
    for module in engine.get_modules().iter() {
        for rule in &module.policy {
            verify::rule(rule)?;
        }
    }
    Ok(())
}

/// A value as the rules that would give it.
fn rules(root: Root, form: PartForm, at: Position, literal: Literal) -> Result<Vec<Rule>, EvaluationError> {
    use crate::literal::Value::{Object, Set};
    let rule = |form| Rule { root, at, form };
    Ok(match (form, literal.value) {
        (PartForm::Whole, value) => vec![rule(Form::Complete(Literal { at, value }))],
        (PartForm::Members, Object(members)) => members.into_iter().map(|member| rule(Form::Member(member))).collect(),
        (PartForm::Elements, Set(elements)) => {
            elements.into_iter().map(|element| rule(Form::Element(element))).collect()
        }
        _ => return Err(EvaluationError::Failed(format!("`{root}` came to something else than its rules give"))),
    })
}

fn failed(error: &anyhow::Error) -> EvaluationError {
    let (at, message) = complaint(error);
    EvaluationError::Failed(match at {
        Some(at) => format!("line {}: {message}", at.line),
        None => message,
    })
}

/// Which document an error is in.
fn file_of(error: &anyhow::Error) -> Option<usize> {
    let text = error.to_string();
    text.lines().find_map(|line| line.strip_prefix("--> ")?.split(':').next()?.parse().ok())
}
