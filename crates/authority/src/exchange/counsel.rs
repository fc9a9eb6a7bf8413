//! What the decision asks while it goes: the mint rate, which counting changes, and the policy.

use serde_json::Value;

use super::Client;
use crate::AuthorityRecordId;
pub use crate::approval::{ApprovalTier, Approver, Privacy};
use crate::delegation::Lineage;
use crate::mandate::Claims;
use crate::resource::{Resource, UpstreamCall};
use crate::scope::Scopes;
use crate::session::SessionFacts;

/// The answer of the mint rate limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Within the limit; this mint has been counted.
    Within,
    /// Above it.
    Exceeded,
    /// Nobody could say.
    Unavailable,
}

/// What policy is asked about one resource. Whoever answers adds what only it knows: registration method, trace id,
/// the raw claims of the subject token.
#[derive(Debug)]
pub struct PolicyQuestion<'q> {
    /// The resource.
    pub resource: &'q Resource,
    /// The calling application, never the subject.
    pub client: &'q Client,
    /// The requested scopes, duplicates kept; empty for a Gateway exchange without scope.
    pub requested: &'q Scopes,
    /// The presented mandate.
    pub subject: Option<&'q Claims>,
    /// The authority record, asserted or presented.
    pub record: Option<&'q AuthorityRecordId>,
    /// The governed session, live and the caller's.
    pub session: Option<&'q SessionFacts>,
    /// The delegation, validated.
    pub lineage: Option<&'q Lineage<'q>>,
    /// The zone's delegation epoch; 0 without a delegation.
    pub epoch: u64,
    /// What will go upstream, from the Gateway only.
    pub call: Option<&'q UpstreamCall>,
    /// Whether the caller presented an approval that was given and can be spent, or was spent a moment ago.
    pub approved: bool,
}

/// What policy answers. Whatever is neither a complete allow nor a complete deny is a failure.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyAnswer {
    /// Allowed, unless a human has to agree first.
    Allow {
        /// Names of the policies that decided.
        determining: Vec<String>,
        /// `diagnostics` of the result document, as evidence keeps it.
        diagnostics: Value,
        /// Declarations that hold the mint; empty for none.
        tiers: Vec<ApprovalTier>,
    },
    /// Denied.
    Deny {
        /// The reason token of the first diagnostic.
        reason: String,
        /// Names of the policies that decided.
        determining: Vec<String>,
        /// `diagnostics` of the result document, as evidence keeps it.
        diagnostics: Value,
    },
    /// No decision came about.
    Failed {
        /// What the engine says of it; for evidence, not for the caller.
        error: String,
    },
}

/// Whom the decision asks.
pub trait Counsel {
    /// Counts a mint for `resource` by the calling application, and says whether it is within the limit.
    fn rate(&mut self, resource: &Resource) -> Rate;

    /// Evaluates policy for one resource.
    fn policy(&mut self, question: &PolicyQuestion<'_>) -> PolicyAnswer;
}

/// Two closures, first the rate, then the policy.
impl<R, P> Counsel for (R, P)
where
    R: FnMut(&Resource) -> Rate,
    P: FnMut(&PolicyQuestion<'_>) -> PolicyAnswer,
{
    fn rate(&mut self, resource: &Resource) -> Rate {
        (self.0)(resource)
    }

    fn policy(&mut self, question: &PolicyQuestion<'_>) -> PolicyAnswer {
        (self.1)(question)
    }
}
