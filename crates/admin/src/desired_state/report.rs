//! What an import came to, or would (contract: control-cli-deploy.md §3.3).

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Kind;
use crate::openapi::shape::Definitions;
use crate::problem::Refusal;

/// What was done with one object.
#[derive(Debug, Clone)]
pub(crate) enum Did {
    /// It was not there.
    Create,
    /// It was something else, in these respects.
    Update(Vec<&'static str>),
    /// It is what it should be.
    Nothing,
    /// It is there and should not be.
    Prune,
}

impl Did {
    /// Nothing, if nothing drifted.
    pub(crate) fn update(drift: Vec<&'static str>) -> Self {
        if drift.is_empty() { Self::Nothing } else { Self::Update(drift) }
    }

    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update(_) => "update",
            Self::Nothing => "unchanged",
            Self::Prune => "prune",
        }
    }

    pub(super) fn drift(&self) -> &[&'static str] {
        if let Self::Update(drift) = self { drift } else { &[] }
    }
}

/// One object, and what became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    pub(crate) identity: String,
    pub(crate) result: Result<(Did, String), Failed>,
}

/// Why an object can't be what it should be.
#[derive(Debug)]
pub(crate) struct Failed {
    code: &'static str,
    reason: String,
    description: Option<String>,
    was_pruning: bool,
}

impl Failed {
    /// What a refusal says of one object; a refusal that says nothing of it, but of the store or of us, goes on.
    pub(super) fn of(refusal: Refusal, was_pruning: bool) -> Result<Self, Refusal> {
        let status = refusal.problem.status();
        if status.is_server_error() {
            return Err(refusal);
        }
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::CONFLICT => "conflict",
            StatusCode::FORBIDDEN => "denied",
            _ => "invalid",
        };
        let named = refusal.problem.code().unwrap_or("internal_error");
        Ok(Self {
            code,
            reason: format!("{named} (HTTP {})", status.as_u16()),
            description: refusal.problem.description().map(str::to_owned),
            was_pruning,
        })
    }
}

/// The schema of a report.
pub(super) fn schema(_: &mut Definitions) -> Value {
    let count = || json!({"type": "integer", "minimum": 0});
    let outcome = json!({
        "type": "object",
        "properties": {
            "kind": {"type": "string"},
            "identity": {"type": "string"},
            "action": {"type": "string", "enum": ["create", "update", "unchanged", "prune"]},
            "applied": {"type": "boolean"},
            "id": {"type": "string"},
            "drift": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["kind", "identity", "action", "applied"],
    });
    let counts = ["created", "updated", "unchanged", "pruned", "failed"];
    let counted: Map<String, Value> = counts.into_iter().map(|name| (name.to_owned(), count())).collect();
    json!({
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "dryRun": {"type": "boolean"},
            "prune": {"type": "boolean"},
            "zoneId": {"type": "string"},
            "drift": {"type": "boolean"},
            "outcomes": {"type": "array", "items": outcome},
            "summary": {"type": "object", "properties": counted, "required": counts},
        },
        "required": ["ok", "dryRun", "prune", "zoneId", "drift", "outcomes", "summary"],
    })
}

/// The whole.
pub(super) struct Report<'r> {
    pub(super) zone: &'r str,
    pub(super) is_dry_run: bool,
    pub(super) prunes: bool,
    pub(super) outcomes: &'r [Outcome],
}

impl Report<'_> {
    pub(super) fn is_ok(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.result.is_ok())
    }

    fn count(&self, action: &str) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.action() == action).count()
    }

    /// Nothing of an import that fails is applied, and nothing of one that was only rehearsed.
    pub(super) fn to_json(&self) -> Value {
        let applied = self.is_ok() && !self.is_dry_run;
        let outcomes: Vec<Value> = self.outcomes.iter().map(|outcome| outcome.to_json(applied)).collect();
        json!({
            "ok": self.is_ok(),
            "dryRun": self.is_dry_run,
            "prune": self.prunes,
            "zoneId": self.zone,
            "drift": self.outcomes.iter().any(|outcome| outcome.action() != "unchanged"),
            "outcomes": outcomes,
            "summary": self.summary(),
        })
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "created": self.count("create"),
            "updated": self.count("update"),
            "unchanged": self.count("unchanged"),
            "pruned": self.count("prune"),
            "failed": self.outcomes.iter().filter(|outcome| outcome.result.is_err()).count(),
        })
    }
}

impl Outcome {
    fn action(&self) -> &'static str {
        match &self.result {
            Ok((did, _)) => did.as_str(),
            Err(failed) if failed.was_pruning => Did::Prune.as_str(),
            Err(_) => Did::Nothing.as_str(),
        }
    }

    fn to_json(&self, applied: bool) -> Value {
        let mut told = json!({"kind": self.kind.as_str(), "identity": self.identity, "action": self.action()});
        match &self.result {
            Ok((did, id)) => {
                told["applied"] = (applied || matches!(did, Did::Nothing)).into();
                // What was not made has no id.
                if applied || !matches!(did, Did::Create) {
                    told["id"] = id.as_str().into();
                }
                if !did.drift().is_empty() {
                    told["drift"] = did.drift().into();
                }
            }
            Err(failed) => {
                told["applied"] = false.into();
                let mut error = json!({"code": failed.code, "reason": failed.reason});
                if let Some(description) = &failed.description {
                    error["description"] = description.as_str().into();
                }
                told["error"] = error;
            }
        }
        told
    }
}
