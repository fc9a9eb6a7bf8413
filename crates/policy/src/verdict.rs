//! What the ladder answers (contract: policy.md §4.3, §4.4).

use std::fmt;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::literal::Literal;

/// The only status of an answered evaluation; anything else is an error and therefore a denial.
pub const EVALUATION_STATUS: &str = "complete";

/// The two values of `decision`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// May happen, perhaps held for a human first.
    Allow,
    /// May not happen.
    #[default]
    Deny,
}

impl Decision {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
        }
    }
}

/// The outcome of one evaluation. Serialises as the result document of policy.md §4.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed by the named policy.
    Allow(Allowance),
    /// Denied for this reason.
    Deny(DenyReason),
}

/// An allowed evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Name of the determining policy.
    pub policy: Arc<str>,
    /// The hold for a human that stands in front of it, if any.
    pub step_up: Option<StepUp>,
    /// Classified scopes among the requested ones, one per requested occurrence, sorted by scope.
    pub risk: Vec<ClassifiedScope>,
}

/// The approval a gated mint needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    /// The matching declarations, each once, in the order of policy.md §4.4. Never empty.
    pub tiers: Vec<Arc<TierDeclaration>>,
}

/// The `type` of a step-up requirement.
pub const HUMAN_APPROVAL: &str = "human_approval";

/// One well-formed element of `approval_tiers`. Serialises verbatim, extra members included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierDeclaration {
    /// The tier it holds.
    pub tier: Arc<str>,
    /// Who may approve, if declared.
    pub approver: Option<Approver>,
    /// How long an approval may stay open, in seconds, if declared. At least 1; not clamped here.
    pub ttl_seconds: Option<u64>,
    /// How the approver is recorded, if declared.
    pub privacy: Option<Privacy>,
    pub(crate) verbatim: Literal,
}

/// Who may approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Approver {
    /// An operator.
    Operator,
    /// The subject.
    Subject,
    /// Either.
    Any,
}

/// How an approver is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privacy {
    /// By identity.
    Identified,
    /// By pseudonym.
    Pseudonymous,
    /// Not at all.
    Anonymous,
}

impl Approver {
    /// The declared text.
    pub fn as_str(self) -> &'static str {
        match self {
            Approver::Operator => "operator",
            Approver::Subject => "subject",
            Approver::Any => "any",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Approver::Operator, Approver::Subject, Approver::Any].into_iter().find(|approver| approver.as_str() == name)
    }
}

impl Privacy {
    /// The declared text.
    pub fn as_str(self) -> &'static str {
        match self {
            Privacy::Identified => "identified",
            Privacy::Pseudonymous => "pseudonymous",
            Privacy::Anonymous => "anonymous",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Privacy::Identified, Privacy::Pseudonymous, Privacy::Anonymous]
            .into_iter()
            .find(|privacy| privacy.as_str() == name)
    }
}

/// A requested scope and the tier it is classified in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassifiedScope {
    /// The scope.
    #[serde(serialize_with = "as_text")]
    pub scope: Arc<str>,
    /// Its tier.
    #[serde(serialize_with = "as_text")]
    pub tier: Arc<str>,
}

macro_rules! deny_reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// Why an evaluation denies. The texts are exact on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DenyReason {
            $($(#[$doc])* $variant,)+
        }

        impl DenyReason {
            /// Every reason.
            pub const ALL: &'static [DenyReason] = &[$(DenyReason::$variant,)+];

            /// The wire text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(DenyReason::$variant => $text,)+
                }
            }
        }
    };
}

deny_reasons! {
    /// The zone has no active policy set.
    NoActivePolicySet = "no_active_policy_set",
    /// `restrict` freezes the zone.
    RestrictionActive = "restriction_active",
    /// `risk` is malformed, so no mint can be known to need no approval.
    MalformedRiskData = "malformed_risk_data",
    /// `approval_tiers` is malformed, likewise.
    MalformedApprovalData = "malformed_approval_data",
    /// The caller's application does not own the resource.
    ResourceNotGranted = "resource_not_granted",
    /// A scope outside the delegation.
    DelegationScopeExceeded = "delegation_scope_exceeded",
    /// A confinement rule stands against it.
    ConfinementViolation = "confinement_violation",
    /// No single label holds all scopes.
    RoleScopeMismatch = "role_scope_mismatch",
    /// The presented mandate is for other resources.
    MandateTargetMismatch = "mandate_target_mismatch",
    /// No row allows it.
    NoRuleMatched = "no_rule_matched",
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict::Deny(DenyReason::NoRuleMatched)
    }
}

impl Verdict {
    /// Allow or deny.
    pub fn decision(&self) -> Decision {
        match self {
            Verdict::Allow(_) => Decision::Allow,
            Verdict::Deny(_) => Decision::Deny,
        }
    }

    /// Whether it allows; a held mint allows, too.
    pub fn is_allow(&self) -> bool {
        matches!(self, Verdict::Allow(_))
    }

    /// Name of the policy that allowed it.
    pub fn determining(&self) -> Option<&str> {
        match self {
            Verdict::Allow(allowance) => Some(&allowance.policy),
            Verdict::Deny(_) => None,
        }
    }

    /// Why it denies.
    pub fn reason(&self) -> Option<DenyReason> {
        match self {
            Verdict::Allow(_) => None,
            Verdict::Deny(reason) => Some(*reason),
        }
    }

    /// The approval it needs first.
    pub fn step_up(&self) -> Option<&StepUp> {
        match self {
            Verdict::Allow(allowance) => allowance.step_up.as_ref(),
            Verdict::Deny(_) => None,
        }
    }

    /// The member `determining_policies`, also the evidence's `determining_policies_json`.
    pub fn determining_policies(&self) -> DeterminingPolicies<'_> {
        DeterminingPolicies(self)
    }

    /// The member `diagnostics`, also the evidence's `diagnostics_json`.
    pub fn diagnostics(&self) -> Diagnostics<'_> {
        Diagnostics(self)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut result = serializer.serialize_struct("Verdict", 4)?;
        result.serialize_field("decision", &self.decision())?;
        result.serialize_field("evaluation_status", EVALUATION_STATUS)?;
        result.serialize_field("determining_policies", &self.determining_policies())?;
        result.serialize_field("diagnostics", &self.diagnostics())?;
        result.end()
    }
}

/// `[]` or `[{"policy": name}]`.
#[derive(Debug, Clone, Copy)]
pub struct DeterminingPolicies<'v>(&'v Verdict);

impl Serialize for DeterminingPolicies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let policies = self.0.determining().map(|policy| Single("policy", policy));
        serializer.collect_seq(policies)
    }
}

/// `[{"reason": …}]` for a denial; step-up, then risk, for an allowed mint.
#[derive(Debug, Clone, Copy)]
pub struct Diagnostics<'v>(&'v Verdict);

impl Serialize for Diagnostics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        match self.0 {
            Verdict::Deny(reason) => sequence.serialize_element(&Single("reason", reason.as_str()))?,
            Verdict::Allow(allowance) => {
                if let Some(step_up) = &allowance.step_up {
                    sequence.serialize_element(&Single("step_up_required", step_up))?;
                }
                if !allowance.risk.is_empty() {
                    sequence.serialize_element(&Single("risk", &allowance.risk))?;
                }
            }
        }
        sequence.end()
    }
}

impl Serialize for StepUp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Declarations<'t>(&'t [Arc<TierDeclaration>]);
        impl Serialize for Declarations<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(|declaration| &declaration.verbatim))
            }
        }
        let mut requirement = serializer.serialize_struct("StepUp", 2)?;
        requirement.serialize_field("type", HUMAN_APPROVAL)?;
        requirement.serialize_field("tiers", &Declarations(&self.tiers))?;
        requirement.end()
    }
}

impl Serialize for TierDeclaration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.verbatim.serialize(serializer)
    }
}

/// An object with one member.
struct Single<T>(&'static str, T);

impl<T: Serialize> Serialize for Single<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
