//! What decides whether a mandate or a credential is minted (contract: policy.md).
//!
//! A zone contributes data, never decisions. An operator writes a document: Rego text that defines some of six
//! roots as literals. [`text::check`] looks at the text, [`Bundle::build`] refuses whatever is malformed or
//! contradictory, with line and column. When the set version is active, the STS takes its [`Bundle`] from a
//! [`PolicyCache`] and asks [`decide`] one question per resource, as an [`Input`]. The [`Verdict`] is an allowance
//! by a named policy, perhaps held for a human, or one of ten reasons to deny. An evaluation that has no answer is
//! an [`EvaluationError`], and an error is a denial.
//!
//! Most documents are literals, and cost a decision a few lookups. One with conditions, comprehensions or calls is a tenant's
//! program: it is read, checked and evaluated by `rego`, on a thread of [`Evaluators`], within bounds, and what comes out
//! is data again ([`RootValues`], for [`decide_evaluated`]).
//!
//! What must stay absent here: chance, network, storage, and any time but that by which an evaluation is given up.

mod bundle;
mod cache;
mod contract;
mod data;
mod defect;
mod evaluators;
mod hashes;
mod input;
mod ladder;
mod literal;
mod merge;
mod number;
mod parse;
mod refusal;
mod rego;
mod root;
mod scan;
mod shape;
mod simulate;
mod templates;
pub mod text;
mod verdict;

pub use bundle::{Bundle, Document, NO_ACTIVE_POLICY_SET, RootValues};
pub use cache::{LoadError, PolicyCache, StoredDocument};
pub use contract::{DECISION_CONTRACT_STATEMENT, DECISION_CONTRACT_VERSION, decision_contract_sha256};
pub use defect::{BundleDefect, DefectKind};
pub use evaluators::{Evaluators, Overloaded};
pub use hashes::{ContentSha256, ManifestSha256, NotASha256};
pub use input::{
    Action, ActionId, Context, DelegationEdge, INPUT_SCHEMA_VERSION, Input, LIFECYCLE_SCOPE, Principal, PrincipalKind,
    Resource, SchemaVersion, Session, SimulationInputError,
};
pub use ladder::{EvaluationError, decide, decide_evaluated};
pub use literal::{Literal, Member, Position, Value};
pub use number::Number;
pub use parse::{MAX_DEPTH, ParsedDocument};
pub use refusal::{Refusal, RefusalKind};
pub use rego::Budget;
pub use root::Root;
pub use simulate::{SimulationError, simulate};
pub use templates::{TEMPLATES, Template};
pub use verdict::{
    Allowance, Approver, ClassifiedScope, Decision, DenyReason, DeterminingPolicies, Diagnostics, EVALUATION_STATUS,
    HUMAN_APPROVAL, Privacy, StepUp, TierDeclaration, Verdict,
};
