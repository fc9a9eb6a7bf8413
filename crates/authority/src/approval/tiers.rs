//! From the declarations of a zone's policy to the one requirement of a hold (contract: sts.md §7.2).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SHORTEST: u64 = 60;
const LONGEST_OPERATOR: u64 = 604_800;
const LONGEST_SUBJECT: u64 = 86_400;
const DEFAULT_OPERATOR: u64 = 14_400;
const DEFAULT_SUBJECT: u64 = 900;

/// Who may approve a held mint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approver {
    /// An operator, through the Admin API.
    #[default]
    Operator,
    /// The user it is done for.
    Subject,
    /// Either.
    Any,
}

impl Approver {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Subject => "subject",
            Self::Any => "any",
        }
    }

    /// From the wire name; anything else is no class.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "operator" => Some(Self::Operator),
            "subject" => Some(Self::Subject),
            "any" => Some(Self::Any),
            _ => None,
        }
    }

    /// How long a hold of this class may wait, in seconds.
    fn window(self, declared: Option<u64>) -> u64 {
        let (default, longest) = match self {
            Self::Operator => (DEFAULT_OPERATOR, LONGEST_OPERATOR),
            Self::Subject | Self::Any => (DEFAULT_SUBJECT, LONGEST_SUBJECT),
        };
        declared.unwrap_or(default).clamp(SHORTEST, longest)
    }
}

/// How much of the approver is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privacy {
    /// The name.
    #[default]
    Identified,
    /// A pseudonym.
    Pseudonymous,
    /// Nothing.
    Anonymous,
}

impl Privacy {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identified => "identified",
            Self::Pseudonymous => "pseudonymous",
            Self::Anonymous => "anonymous",
        }
    }

    /// From the wire name; anything else is no mode.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "identified" => Some(Self::Identified),
            "pseudonymous" => Some(Self::Pseudonymous),
            "anonymous" => Some(Self::Anonymous),
            _ => None,
        }
    }
}

/// A declaration that a mint must be approved by a human.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalTier {
    /// The zone's own name for it.
    pub tier: String,
    /// Who may approve; `None` when not declared.
    pub approver: Option<Approver>,
    /// How long the hold waits, in seconds; `None` when not declared.
    pub ttl_seconds: Option<u64>,
    /// How much of the approver is kept; `None` when not declared.
    pub privacy: Option<Privacy>,
}

/// What all declarations of one request come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The distinct names, sorted, joined with `,`.
    pub tier: String,
    /// Who may approve.
    pub approver: Approver,
    /// How much of the approver is kept: the most that any declaration asks to be kept back.
    pub privacy: Privacy,
    /// How long the hold waits: the shortest that was declared, within the bounds of its class.
    pub window: Duration,
}

/// One declaration wants an operator, another the user: nobody could approve both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the approval tiers of this request name both an operator and the subject as approver")]
pub struct ClassConflict;

/// Merges the declarations.
pub fn merge(tiers: &[ApprovalTier]) -> Result<Requirement, ClassConflict> {
    let mut class = None;
    for tier in tiers {
        let wanted = tier.approver.unwrap_or_default();
        class = Some(match (class, wanted) {
            (None | Some(Approver::Any), wanted) => wanted,
            (Some(known), Approver::Any) => known,
            (Some(known), wanted) if known == wanted => known,
            (Some(_), _) => return Err(ClassConflict),
        });
    }
    let approver = class.unwrap_or_default();
    let names: BTreeSet<&str> = tiers.iter().map(|tier| tier.tier.as_str()).collect();
    let shortest = tiers.iter().filter_map(|tier| tier.ttl_seconds).filter(|seconds| *seconds > 0).min();
    Ok(Requirement {
        tier: names.into_iter().collect::<Vec<_>>().join(","),
        approver,
        privacy: tiers.iter().filter_map(|tier| tier.privacy).max().unwrap_or_default(),
        window: Duration::from_secs(approver.window(shortest)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tier(
        name: &str,
        approver: Option<Approver>,
        ttl_seconds: Option<u64>,
        privacy: Option<Privacy>,
    ) -> ApprovalTier {
        ApprovalTier { tier: name.to_owned(), approver, ttl_seconds, privacy }
    }

    #[test]
    fn a_specific_class_is_stronger_than_any_and_two_specific_ones_conflict() {
        use Approver::{Any, Operator, Subject};
        for (classes, expected) in [
            (vec![], Ok(Operator)),
            (vec![None], Ok(Operator)),
            (vec![Some(Any)], Ok(Any)),
            (vec![Some(Any), Some(Subject)], Ok(Subject)),
            (vec![Some(Subject), Some(Any)], Ok(Subject)),
            (vec![Some(Any), None], Ok(Operator)),
            (vec![Some(Operator), Some(Any), None], Ok(Operator)),
            (vec![Some(Operator), Some(Subject)], Err(ClassConflict)),
            (vec![Some(Subject), None], Err(ClassConflict)),
            (vec![Some(Any), Some(Subject), Some(Any), Some(Operator)], Err(ClassConflict)),
        ] {
            let tiers: Vec<_> = classes.iter().map(|class| tier("t", *class, None, None)).collect();
            assert_eq!(merge(&tiers).map(|merged| merged.approver), expected, "{classes:?}");
        }
    }

    #[test]
    fn the_window_is_the_shortest_declared_within_its_class_or_its_default() {
        use Approver::{Any, Operator, Subject};
        for (class, declared, expected) in [
            (Operator, vec![], 14_400),
            (Subject, vec![], 900),
            (Any, vec![], 900),
            (Operator, vec![1], 60),
            (Subject, vec![30 * 86_400], 86_400),
            (Operator, vec![30 * 86_400], 604_800),
            (Any, vec![3_600, 120, 7_200], 120),
            (Operator, vec![0, 300], 300),
            (Operator, vec![0], 14_400),
        ] {
            let mut tiers = vec![tier("t", Some(class), None, None)];
            tiers.extend(declared.iter().map(|ttl| tier("t", Some(class), Some(*ttl), None)));
            assert_eq!(merge(&tiers).unwrap().window, Duration::from_secs(expected), "{class:?} {declared:?}");
        }
    }

    #[test]
    fn names_are_sorted_once_each_and_privacy_is_the_strongest() {
        let merged = merge(&[
            tier("payments", None, None, Some(Privacy::Pseudonymous)),
            tier("export", None, None, None),
            tier("payments", None, None, Some(Privacy::Identified)),
        ]);
        let merged = merged.unwrap();
        assert_eq!((merged.tier.as_str(), merged.privacy), ("export,payments", Privacy::Pseudonymous));
        assert_eq!(merge(&[tier("a", None, None, None)]).unwrap().privacy, Privacy::Identified);
    }

    #[test]
    fn words_are_exact() {
        for class in [Approver::Operator, Approver::Subject, Approver::Any] {
            assert_eq!(Approver::parse(class.as_str()), Some(class));
        }
        for mode in [Privacy::Identified, Privacy::Pseudonymous, Privacy::Anonymous] {
            assert_eq!(Privacy::parse(mode.as_str()), Some(mode));
        }
        assert_eq!((Approver::parse("Operator"), Privacy::parse("")), (None, None));
    }

    fn any_tier() -> impl Strategy<Value = ApprovalTier> {
        let class = prop::option::of(prop::sample::select(vec![Approver::Operator, Approver::Subject, Approver::Any]));
        let mode = prop::option::of(prop::sample::select(vec![
            Privacy::Identified,
            Privacy::Pseudonymous,
            Privacy::Anonymous,
        ]));
        ("[a-c]", class, prop::option::of(any::<u64>()), mode)
            .prop_map(|(name, approver, ttl, privacy)| tier(&name, approver, ttl, privacy))
    }

    proptest! {
        #[test]
        fn another_declaration_never_loosens_a_requirement(
            tiers in prop::collection::vec(any_tier(), 1..5),
            more in any_tier(),
        ) {
            let alone = merge(&tiers);
            let mut all = tiers.clone();
            all.push(more);
            if let (Ok(alone), Ok(both)) = (alone, merge(&all)) {
                prop_assert!(both.privacy >= alone.privacy);
                prop_assert!(alone.approver == Approver::Any || both.approver == alone.approver);
                prop_assert!(both.window >= Duration::from_secs(SHORTEST));
                prop_assert!(both.window <= Duration::from_secs(LONGEST_OPERATOR));
            }
        }

        #[test]
        fn the_order_of_declarations_does_not_matter(mut tiers in prop::collection::vec(any_tier(), 0..5)) {
            let one = merge(&tiers);
            tiers.reverse();
            prop_assert_eq!(one, merge(&tiers));
        }
    }
}
