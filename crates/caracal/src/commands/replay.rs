//! `caracal audit replay`: recorded questions, decided anew by another version of a policy set, before that version decides
//! anything.
//!
//! An event of a denial holds the whole question, one of an allowance enough to rebuild it. Rebuilt is not recorded,
//! though: so each question is first put to the version that decided it then. Only where that says again what was recorded
//! is the other version asked, and only such answers count. What can't be reproduced is counted apart.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use caracal_admin::recorded_question;
use caracal_authority::{PolicySetVersionId, Timestamp, ZoneId};
use caracal_ledger::{EvaluationStatus, MetadataKey, instant};
use caracal_policy::{Budget, Bundle, Document, Evaluators, Input, decide, decide_evaluated};
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use caracal_store::{Clock, DeploymentRead, StoreError, SystemClock, policies, policy_sets};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::place::Place;
use super::{Failure, runtime};

/// Events read at once.
const PAGE: i64 = 500;
/// How long an evaluation that was given up may take to say so.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to decide anew.
pub struct ReplayFlags {
    /// `--zone`; that of the version otherwise.
    pub zone: Option<String>,
    /// `--policy-set`.
    pub version: String,
    /// `--since`.
    pub since: Option<String>,
    /// `--examples`.
    pub examples: usize,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--json`.
    pub json: bool,
}

/// What would have been decided otherwise.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Decisions of policy in the range.
    decisions: u64,
    /// Those that the version which decided then decides again as it did.
    reproduced: u64,
    /// The others: their event does not tell enough, or that version is not there any more.
    not_reproduced: u64,
    /// Of those reproduced: the same answer.
    unchanged: u64,
    /// Allowed then, denied now.
    newly_denied: u64,
    /// Denied then, allowed now.
    newly_allowed: u64,
    /// Allowed or denied then, held for a human now.
    newly_held: u64,
    /// Held for a human then, allowed without one now.
    no_longer_held: u64,
    /// The first changes.
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Example {
    change: &'static str,
    event_id: String,
    request_id: String,
    occurred_at: Timestamp,
    application_id: String,
    resource: String,
    requested_scopes: Value,
    reason: String,
}

/// What a decision came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allow,
    Held,
    Deny,
}

/// An answer, and what it rests on.
struct Judged {
    answer: Answer,
    reason: String,
}

/// Decides anew and says what would change. Exit 0 whatever would.
pub fn replay(flags: &ReplayFlags) -> Result<ExitCode, Failure> {
    let asked = Asked::read(flags)?;
    let place = Place::find(flags.data_dir.clone())?;
    let report = runtime()?.block_on(place.read(async |tx| asked.answer(tx).await))?;
    let report = report.ok_or_else(|| {
        let place = asked.zone.as_ref().map_or("no zone has a".to_owned(), |zone| format!("zone `{zone}` has no"));
        Failure(format!(
            "{place} version `{}` of a policy set that can be evaluated; `GET /v1/zones/ID/policy-sets/ID/versions` lists those \
             there are",
            asked.version
        ))
    })?;
    if flags.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", told(&report));
    }
    Ok(ExitCode::SUCCESS)
}

struct Asked {
    zone: Option<ZoneId>,
    version: PolicySetVersionId,
    since: Option<Timestamp>,
    examples: usize,
}

impl Asked {
    fn read(flags: &ReplayFlags) -> Result<Self, Failure> {
        let no_id = |name: &str, text: &str| Failure(format!("{name}: `{text}` is no id"));
        let since = flags.since.as_deref().map(|text| {
            let ago = || humantime::parse_duration(text).ok().map(|ago| SystemClock.now().minus(ago));
            instant(text).or_else(ago).ok_or_else(|| {
                Failure(format!(
                    "--since: `{text}` is neither an instant such as 2026-01-01T00:00:00Z nor a time such as 7d"
                ))
            })
        });
        let zone = flags.zone.as_deref().map(|text| ZoneId::parse(text).map_err(|_| no_id("--zone", text)));
        Ok(Self {
            zone: zone.transpose()?,
            version: PolicySetVersionId::parse(&flags.version).map_err(|_| no_id("--policy-set", &flags.version))?,
            since: since.transpose()?,
            examples: flags.examples,
        })
    }

    /// None when there is no such version to decide by.
    async fn answer(&self, tx: &mut DeploymentRead<'_>) -> Result<Option<Report>, StoreError> {
        let mut bundles = Bundles::default();
        let zone = match &self.zone {
            Some(zone) => Some(zone.clone()),
            None => policy_sets::find_zone_of_version(tx, &self.version).await?,
        };
        let Some(zone) = zone else { return Ok(None) };
        let Some(draft) = bundles.of(tx, &zone, self.version.as_str()).await? else { return Ok(None) };
        let filter = EvidenceFilter {
            since: self.since,
            event_types: vec!["token_exchange".to_owned(), "run_launch".to_owned()],
            ..EvidenceFilter::default()
        };
        let (mut report, mut after) = (Report::default(), 0);
        loop {
            let rows = evidence::search(&mut tx.zone(&zone), &filter, after, PAGE).await?;
            let Some(last) = rows.last().map(|row| row.chain_seq) else { return Ok(Some(report)) };
            for row in rows.iter().filter(|row| was_of_policy(row)) {
                report.decisions += 1;
                let recorded = bundles.of(tx, &zone, &row.policy_set_version_id).await?;
                let question = recorded_question(row);
                let then = recorded.and_then(|bundle| judge(&zone, &bundle, &question).ok());
                match then {
                    Some(then) if then.answer == recorded_answer(row) => {
                        report.reproduced += 1;
                        // What has no answer is denied, as it would be.
                        let now = judge(&zone, &draft, &question)
                            .unwrap_or_else(|reason| Judged { answer: Answer::Deny, reason });
                        self.compare(&mut report, row, then.answer, now);
                    }
                    _ => report.not_reproduced += 1,
                }
            }
            after = last;
        }
    }

    fn compare(&self, report: &mut Report, row: &EvidenceRow, then: Answer, now: Judged) {
        let (count, change) = match (then, now.answer) {
            (then, now) if then == now => {
                report.unchanged += 1;
                return;
            }
            (_, Answer::Deny) => (&mut report.newly_denied, "newly_denied"),
            (_, Answer::Held) => (&mut report.newly_held, "newly_held"),
            (Answer::Deny, Answer::Allow) => (&mut report.newly_allowed, "newly_allowed"),
            (_, Answer::Allow) => (&mut report.no_longer_held, "no_longer_held"),
        };
        *count += 1;
        if report.examples.len() >= self.examples {
            return;
        }
        let metadata: Value = serde_json::from_str(&row.metadata).unwrap_or_default();
        let text = |key: MetadataKey| metadata.get(key.as_str()).and_then(Value::as_str).unwrap_or_default().to_owned();
        let who = if text(MetadataKey::ApplicationId).is_empty() {
            text(MetadataKey::WorkloadId)
        } else {
            text(MetadataKey::ApplicationId)
        };
        report.examples.push(Example {
            change,
            event_id: row.id.clone(),
            request_id: row.request_id.clone(),
            occurred_at: Timestamp::from_micros(row.occurred_at),
            application_id: who,
            resource: text(MetadataKey::Resource),
            requested_scopes: metadata.get(MetadataKey::RequestedScopes.as_str()).cloned().unwrap_or_else(|| json!([])),
            reason: now.reason,
        });
    }
}

/// Whether policy decided it, by a version that is named. Who was held was refused for the time being, whatever became of
/// the approval; policy had said yes, with a condition.
fn was_of_policy(row: &EvidenceRow) -> bool {
    let decided = row.evaluation_status == EvaluationStatus::Complete.as_str()
        && matches!(row.decision.as_str(), "allow" | "deny");
    !row.policy_set_version_id.is_empty() && (decided || says_held(&diagnostics(row)))
}

fn recorded_answer(row: &EvidenceRow) -> Answer {
    let diagnostics = diagnostics(row);
    match row.evaluation_status.as_str() {
        "complete" => answer_of(&row.decision, &diagnostics),
        _ => Answer::Held,
    }
}

fn diagnostics(row: &EvidenceRow) -> Value {
    serde_json::from_str(&row.diagnostics).unwrap_or_default()
}

fn says_held(diagnostics: &Value) -> bool {
    diagnostics.as_array().is_some_and(|list| list.iter().any(|one| one.get("step_up_required").is_some()))
}

fn answer_of(decision: &str, diagnostics: &Value) -> Answer {
    match decision {
        "allow" if says_held(diagnostics) => Answer::Held,
        "allow" => Answer::Allow,
        _ => Answer::Deny,
    }
}

/// The versions that decided and the one that would, each read once.
#[derive(Default)]
struct Bundles(HashMap<String, Option<Arc<Bundle>>>);

impl Bundles {
    /// None where the version, or what it is made of, is not there or makes no bundle.
    async fn of(
        &mut self,
        tx: &mut DeploymentRead<'_>,
        zone: &ZoneId,
        version: &str,
    ) -> Result<Option<Arc<Bundle>>, StoreError> {
        if let Some(known) = self.0.get(version) {
            return Ok(known.clone());
        }
        let bundle = Self::read(&mut tx.zone(zone), version).await?;
        self.0.insert(version.to_owned(), bundle.clone());
        Ok(bundle)
    }

    async fn read(tx: &mut caracal_store::ZoneRead<'_>, version: &str) -> Result<Option<Arc<Bundle>>, StoreError> {
        let Ok(id) = PolicySetVersionId::parse(version) else { return Ok(None) };
        let Some(version) = policy_sets::lookup_version(tx, &id).await? else { return Ok(None) };
        let mut documents = Vec::with_capacity(version.manifest.len());
        for id in &version.manifest {
            let Some(document) = policies::lookup_version(tx, id).await? else { return Ok(None) };
            documents.push((document.id.to_string(), document.content));
        }
        let zone = tx.zone().clone();
        let loaded = on_evaluator(&zone, move || {
            let documents: Vec<Document<'_>> =
                documents.iter().map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
            Bundle::load(&documents).ok()
        });
        Ok(loaded.flatten().map(Arc::new))
    }
}

/// What a version says; the error is why it says nothing.
fn judge(zone: &ZoneId, bundle: &Arc<Bundle>, question: &Value) -> Result<Judged, String> {
    let question: Map<String, Value> = question.as_object().cloned().unwrap_or_default();
    let input = Input::for_simulation(question).map_err(|error| error.to_string())?;
    let verdict = if bundle.must_be_evaluated() {
        let bundle = bundle.clone();
        let evaluated = on_evaluator(zone, move || {
            let values = bundle.evaluate(&input, Budget::QUESTION).map_err(|error| error.to_string())?;
            decide_evaluated(&bundle, &values, &input).map_err(|error| error.to_string())
        });
        evaluated.ok_or("the documents could not be evaluated")??
    } else {
        decide(bundle, &input).map_err(|error| error.to_string())?
    };
    let verdict = serde_json::to_value(&verdict).map_err(|error| error.to_string())?;
    let decision = verdict.get("decision").and_then(Value::as_str).unwrap_or_default();
    let diagnostics = verdict.get("diagnostics").cloned().unwrap_or_default();
    let policies = verdict.get("determining_policies").cloned().unwrap_or_default();
    let first = |list: &Value, name: &str| {
        let found = list.as_array().and_then(|list| list.iter().find_map(|one| one.get(name)?.as_str()));
        found.map(str::to_owned)
    };
    let reason = first(&diagnostics, "reason").or_else(|| first(&policies, "policy")).unwrap_or_default();
    Ok(Judged { answer: answer_of(decision, &diagnostics), reason })
}

/// Documents need a deep stack and may take their time. None when the evaluation broke off.
fn on_evaluator<T: Send + 'static>(zone: &ZoneId, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = mpsc::channel();
    let submitted = Evaluators::of_process().submit(zone.as_str(), move || {
        let _ = sender.send(job());
    });
    submitted.ok()?;
    done.recv_timeout(PATIENCE).ok()
}

fn told(report: &Report) -> String {
    let Report { decisions, reproduced, not_reproduced, unchanged, .. } = report;
    let mut text = format!(
        "{decisions} decisions of policy; {reproduced} could be decided again as they were, {not_reproduced} could not\n\
         {unchanged} unchanged, {} newly denied, {} newly allowed, {} newly held for a human, {} no longer held\n",
        report.newly_denied, report.newly_allowed, report.newly_held, report.no_longer_held
    );
    for example in &report.examples {
        let Example { change, occurred_at, application_id, resource, requested_scopes, reason, request_id, .. } =
            example;
        let (resource, reason) = (resource.escape_debug(), reason.escape_debug());
        text.push_str(&format!(
            "  {change} {occurred_at} {application_id} {resource} {requested_scopes}: {reason} (request {})\n",
            request_id.escape_debug()
        ));
    }
    text
}
