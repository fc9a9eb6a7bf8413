//! Both sides asked the same, many times: zone after zone, spread over threads, until the first difference.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::case::Case;
use crate::chance::Chance;
use crate::engine::Oracle;
use crate::evaluated;
use crate::literal::Document;
use crate::opinions::{Difference, Ladder, Opinion, Outcome, compare, read};
use crate::requests::{Request, request};
use crate::shrink::{Question, shrink};
use crate::zones;

/// Requests that each zone is asked.
pub(crate) const REQUESTS: u64 = 50;
/// Every so many zones, the documents are also evaluated anew for some requests, instead of once.
const LIVE: u64 = 16;
/// Of a thread that asks.
const STACK: usize = 64 << 20;

/// What to ask.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Questions, at least so many.
    pub cases: u64,
    /// What everything is made from.
    pub seed: u64,
    /// Threads to ask on.
    pub threads: usize,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Questions asked so far.
    pub cases: u64,
    /// Questions wanted.
    pub of: u64,
}

/// What was asked, counted: so that a run which asks nothing of interest cannot pass for one that does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Questions that both answered alike.
    pub cases: u64,
    /// Zones that the questions were about.
    pub zones: u64,
    /// Zones whose documents both refused.
    pub refused: u64,
    /// Zones whose documents an author could hand in as they are.
    pub strict: u64,
    /// Questions by the row that decided.
    pub rows: BTreeMap<u8, u64>,
    /// Evaluations without an answer.
    pub failed: u64,
    /// Mints held for a human.
    pub held: u64,
    /// Allowed mints with a classified scope.
    pub classified: u64,
    /// Inputs normalised as a simulation's.
    pub simulated: u64,
    /// Questions answered with the documents as rules, too.
    pub live: u64,
    /// What was asked about documents that are programs; beside all the others.
    pub evaluated: Evaluated,
}

/// What was asked about documents that are programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Questions that both answered alike.
    pub cases: u64,
    /// Zones that the questions were about.
    pub zones: u64,
    /// Of them, those whose documents make no bundle.
    pub refused: u64,
    /// Those whose documents an author could hand in as they are.
    pub strict: u64,
    /// Those whose documents look at the question.
    pub open: u64,
    /// Questions by the row that decided.
    pub rows: BTreeMap<u8, u64>,
    /// Questions without an answer.
    pub failed: u64,
}

impl Evaluated {
    fn add(&mut self, other: &Evaluated) {
        self.cases += other.cases;
        self.zones += other.zones;
        self.refused += other.refused;
        self.strict += other.strict;
        self.open += other.open;
        self.failed += other.failed;
        for (row, count) in &other.rows {
            *self.rows.entry(*row).or_default() += count;
        }
    }
}

impl Report {
    /// Questions that this row decided.
    pub fn row(&self, row: u8) -> u64 {
        self.rows.get(&row).copied().unwrap_or(0)
    }

    fn count(&mut self, opinion: &Opinion, row: Option<u8>) {
        self.cases += 1;
        match (opinion, row) {
            (Opinion::Decided(result), Some(row)) => {
                *self.rows.entry(row).or_default() += 1;
                let diagnostics = result["diagnostics"].as_array().map_or(&[][..], Vec::as_slice);
                self.held += u64::from(diagnostics.iter().any(|entry| entry.get("step_up_required").is_some()));
                self.classified += u64::from(diagnostics.iter().any(|entry| entry.get("risk").is_some()));
            }
            _ => self.failed += 1,
        }
    }

    fn add(&mut self, other: &Report) {
        self.cases += other.cases;
        self.zones += other.zones;
        self.refused += other.refused;
        self.strict += other.strict;
        self.failed += other.failed;
        self.held += other.held;
        self.classified += other.classified;
        self.simulated += other.simulated;
        self.live += other.live;
        self.evaluated.add(&other.evaluated);
        for (row, count) in &other.rows {
            *self.rows.entry(*row).or_default() += count;
        }
    }
}

/// Asks until the plan is fulfilled or the two differ. `progress` is called from time to time, from any thread.
///
/// The same plan asks the same questions, on any machine and any number of threads.
pub fn run(oracle: &Oracle, plan: Plan, progress: impl Fn(Progress) + Sync) -> Result<Report, Box<Difference>> {
    let zones = plan.cases.div_ceil(REQUESTS);
    let next = AtomicU64::new(0);
    let asked = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Report::default());
    let found: Mutex<Option<(u64, Box<Difference>)>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            let own = oracle.clone();
            // As deep as the threads on which production evaluates. One that can't be started leaves its share to the
            // others.
            let deep = thread::Builder::new().stack_size(STACK);
            let _ = deep.spawn_scoped(scope, {
                let (next, asked, stop, total, found, progress) = (&next, &asked, &stop, &total, &found, &progress);
                move || {
                    let mut report = Report::default();
                    while !stop.load(Ordering::Relaxed) {
                        let zone = next.fetch_add(1, Ordering::Relaxed);
                        if zone >= zones {
                            break;
                        }
                        let asked_of = || {
                            let mut of_zone = ask(&own, plan.seed, zone)?;
                            of_zone.add(&evaluated::ask(&own, plan.seed, zone)?);
                            Ok(of_zone)
                        };
                        match asked_of() {
                            Ok(of_zone) => {
                                let cases = asked.fetch_add(of_zone.cases, Ordering::Relaxed) + of_zone.cases;
                                report.add(&of_zone);
                                progress(Progress { cases, of: plan.cases });
                            }
                            Err(difference) => {
                                stop.store(true, Ordering::Relaxed);
                                let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                                if found.as_ref().is_none_or(|(first, _)| zone < *first) {
                                    *found = Some((zone, difference));
                                }
                            }
                        }
                    }
                    total.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(&report);
                }
            });
        }
    });
    match found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some((_, difference)) => Err(difference),
        None => Ok(total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

/// The questions of one zone, as they are made from the seed.
fn make(seed: u64, zone: u64) -> (Vec<Document>, Vec<Request>) {
    let mut chance = Chance::of(seed, zone);
    let made = zones::zone(&mut chance);
    let requests = (0..REQUESTS).map(|_| request(&mut chance, &made)).collect();
    (made.documents, requests)
}

/// One question of a plan, as a case; for samples.
pub fn case_of(seed: u64, zone: u64, number: usize) -> Option<Case> {
    let (documents, requests) = make(seed, zone);
    let Request { input, simulated } = requests.get(number)?.clone();
    Some(case(&Question { documents, input }, simulated, name(seed, zone, number)))
}

fn name(seed: u64, zone: u64, number: usize) -> String {
    format!("seed {seed}, zone {zone}, request {number}")
}

fn case(question: &Question, simulated: bool, name: String) -> Case {
    let documents = texts(&question.documents).into_iter().collect();
    Case { name, documents, input: question.input.clone(), simulated }
}

/// The texts of documents, by name.
pub(crate) fn texts(documents: &[Document]) -> Vec<(String, String)> {
    documents.iter().enumerate().map(|(at, document)| (format!("pv-{at}"), document.spelt())).collect()
}

fn ask(oracle: &Oracle, seed: u64, zone: u64) -> Result<Report, Box<Difference>> {
    let (documents, requests) = make(seed, zone);
    let texts = texts(&documents);
    let named: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut report = Report { zones: 1, ..Report::default() };
    let reported = |number: usize, request: &Request, outcome: Outcome| {
        let question = Question { documents: documents.clone(), input: request.input.clone() };
        difference(oracle, question, request.simulated, name(seed, zone, number), outcome)
    };
    let (ladder, mut answering) = match (Ladder::load(&named), oracle.zone(&named)) {
        (Ok(ladder), Ok(answering)) => (ladder, answering),
        (ladder, answering) => {
            // No bundle: one question is as good as fifty.
            let refused = |opinion: Option<Opinion>| opinion.unwrap_or(Opinion::Decided(serde_json::Value::Null));
            let outcome = Outcome {
                ladder: refused(ladder.err()),
                oracle: refused(answering.err().map(Opinion::from)),
                row: None,
            };
            if !outcome.agrees() {
                return Err(reported(0, &requests[0], outcome));
            }
            return Ok(Report { cases: 1, refused: 1, ..report });
        }
    };
    let authored = Ladder::build(&named).ok();
    report.strict += u64::from(authored.is_some());
    let mut live = if zone.is_multiple_of(LIVE) { oracle.live_zone(&named).ok() } else { None };
    for (number, request) in requests.iter().enumerate() {
        let (typed, json) = match read(&request.input, request.simulated) {
            Ok(read) => read,
            Err(why) => {
                let unread = Outcome { ladder: Opinion::Failed(why), oracle: Opinion::Refused("-".into()), row: None };
                return Err(reported(number, request, unread));
            }
        };
        let (oracles, row) = answering.opinion(&json);
        let ladders = ladder.opinion(&typed);
        let mut outcome = Outcome { ladder: ladders, oracle: oracles, row };
        if outcome.agrees() {
            if let Some(strict) = authored.as_ref().map(|strict| strict.opinion(&typed)) {
                // Read strictly, the same documents decide the same.
                outcome = Outcome { ladder: strict, ..outcome };
            }
            if let Some(live) = live.as_mut().filter(|_| number % 8 == 0) {
                report.live += 1;
                let (evaluated, row) = live.opinion(&json);
                outcome = Outcome { oracle: evaluated, row, ..outcome };
            }
        }
        if !outcome.agrees() {
            return Err(reported(number, request, outcome));
        }
        report.simulated += u64::from(request.simulated);
        report.count(&outcome.oracle, outcome.row);
    }
    Ok(report)
}

/// The difference, made small. One that shows only the way it was found is reported as it is.
pub(crate) fn difference(
    oracle: &Oracle,
    question: Question,
    simulated: bool,
    name: String,
    found: Outcome,
) -> Box<Difference> {
    let outcome = |question: &Question| compare(oracle, &case(question, simulated, name.clone())).ok();
    let differs = |question: &Question| outcome(question).is_some_and(|outcome| !outcome.agrees());
    let small = if differs(&question) { shrink(question, differs) } else { question };
    let outcome = outcome(&small).filter(|outcome| !outcome.agrees()).unwrap_or(found);
    Box::new(Difference { case: case(&small, simulated, name), outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_questions_again_and_another_seed_others() {
        assert_eq!(case_of(1, 5, 7), case_of(1, 5, 7));
        assert_ne!(case_of(1, 5, 7), case_of(2, 5, 7));
        assert_ne!(case_of(1, 5, 7), case_of(1, 6, 7));
        assert_eq!(case_of(1, 5, 50), None);
    }
}
