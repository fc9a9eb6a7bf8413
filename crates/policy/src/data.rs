//! A zone's data as the ladder asks for it: every lookup is by hash, none grows with the number of resources.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::verdict::{ClassifiedScope, StepUp, TierDeclaration};

/// What the six roots of a bundle say. The default authorises nothing but workload launches. Cheap to clone: what depends on
/// the question replaces its part of a copy.
#[derive(Debug, Default, Clone)]
pub(crate) struct Data {
    /// `restrict` has an element.
    pub(crate) frozen: bool,
    /// `grants` by resource identifier, owners resolved through `app_ids`.
    pub(crate) grants: Arc<HashMap<Box<str>, Grant>>,
    pub(crate) confinement: Arc<Confinement>,
    pub(crate) risk: Arc<Risk>,
    pub(crate) approvals: Arc<Approvals>,
}

/// One entry of `grants`.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    /// `None` if the entry names no binding key, or one that `app_ids` does not know.
    pub(crate) owner: Option<Owner>,
    /// Label → scopes.
    pub(crate) roles: HashMap<Box<str>, HashSet<Box<str>>>,
}

/// The application that owns a resource, and the names of the policies that speak for it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) application_id: Box<str>,
    pub(crate) mint_policy: Arc<str>,
    pub(crate) use_policy: Arc<str>,
}

impl Owner {
    pub(crate) fn new(binding_key: &str, application_id: &str) -> Self {
        Self {
            application_id: Box::from(application_id),
            mint_policy: Arc::from(format!("caracal-{binding_key}-mint")),
            use_policy: Arc::from(format!("caracal-{binding_key}-use")),
        }
    }
}

impl Grant {
    /// The owner, if that is this application.
    pub(crate) fn owned_by(&self, application_id: &str) -> Option<&Owner> {
        self.owner.as_ref().filter(|owner| &*owner.application_id == application_id)
    }

    /// Whether some single label holds every one of the scopes. Roles are never united.
    pub(crate) fn covers<'s>(&self, labels: &[String], scopes: impl Iterator<Item = &'s str> + Clone) -> bool {
        labels
            .iter()
            .filter_map(|label| self.roles.get(label.as_str()))
            .any(|role| scopes.clone().all(|scope| role.contains(scope)))
    }
}

/// `confinement`: caps on sessions that carry a label.
#[derive(Debug)]
pub(crate) enum Confinement {
    /// Not readable as rules, or with a rule that names no prefix: every delegated mint is a violation.
    Closed,
    Caps(Vec<Cap>),
}

/// Sessions with a label of this prefix may hold these scopes at most.
#[derive(Debug)]
pub(crate) struct Cap {
    pub(crate) label_prefix: Box<str>,
    pub(crate) scopes: HashSet<Box<str>>,
}

impl Default for Confinement {
    fn default() -> Self {
        Confinement::Caps(Vec::new())
    }
}

impl Confinement {
    pub(crate) fn permits(&self, labels: &[String], wanted: &[String]) -> bool {
        let Confinement::Caps(caps) = self else { return false };
        caps.iter().all(|cap| {
            let confined = labels.iter().any(|label| label.starts_with(&*cap.label_prefix));
            !confined || wanted.iter().all(|scope| cap.scopes.contains(scope.as_str()))
        })
    }
}

/// `risk`: the tier of a scope.
#[derive(Debug)]
pub(crate) enum Risk {
    Malformed,
    Tiers(HashMap<Arc<str>, Tier>),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    One(Arc<str>),
    /// Different elements name different tiers: a mint of the scope cannot be decided.
    Several,
}

impl Default for Risk {
    fn default() -> Self {
        Risk::Tiers(HashMap::new())
    }
}

/// A scope that `risk` names with two tiers.
pub(crate) struct DoublyClassified<'s>(pub(crate) &'s str);

impl Risk {
    /// The classified ones among the wanted scopes, one per occurrence, sorted by scope.
    pub(crate) fn classify<'s>(&self, wanted: &'s [String]) -> Result<Vec<ClassifiedScope>, DoublyClassified<'s>> {
        let mut classified = Vec::new();
        if let Risk::Tiers(tiers) = self {
            for scope in wanted {
                match tiers.get_key_value(scope.as_str()) {
                    None => {}
                    Some((name, Tier::One(tier))) => {
                        classified.push(ClassifiedScope { scope: name.clone(), tier: tier.clone() });
                    }
                    Some((_, Tier::Several)) => return Err(DoublyClassified(scope)),
                }
            }
        }
        classified.sort_by(|a, b| a.scope.as_bytes().cmp(b.scope.as_bytes()));
        Ok(classified)
    }
}

/// `approval_tiers`: which tiers are held for a human.
#[derive(Debug)]
pub(crate) enum Approvals {
    Malformed,
    Declared {
        /// Each once, in the order of policy.md §4.4.
        declarations: Vec<Arc<TierDeclaration>>,
        /// Tier → indices into `declarations`, ascending.
        by_tier: HashMap<Arc<str>, Vec<usize>>,
    },
}

impl Default for Approvals {
    fn default() -> Self {
        Approvals::Declared { declarations: Vec::new(), by_tier: HashMap::new() }
    }
}

impl Approvals {
    /// Takes well-formed declarations in any order.
    pub(crate) fn declared(mut declarations: Vec<TierDeclaration>) -> Self {
        declarations.sort_by(|a, b| a.verbatim.cmp(&b.verbatim));
        declarations.dedup_by(|a, b| a.verbatim == b.verbatim);
        let declarations: Vec<_> = declarations.into_iter().map(Arc::new).collect();
        let mut by_tier: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, declaration) in declarations.iter().enumerate() {
            by_tier.entry(declaration.tier.clone()).or_default().push(index);
        }
        Approvals::Declared { declarations, by_tier }
    }

    /// The hold for these classified scopes, `None` if none of their tiers is declared.
    pub(crate) fn step_up(&self, classified: &[ClassifiedScope]) -> Option<StepUp> {
        let Approvals::Declared { declarations, by_tier } = self else {
            return None;
        };
        let mut matching: Vec<usize> =
            classified.iter().filter_map(|scope| by_tier.get(&scope.tier)).flatten().copied().collect();
        if matching.is_empty() {
            return None;
        }
        matching.sort_unstable();
        matching.dedup();
        Some(StepUp { tiers: matching.into_iter().map(|index| declarations[index].clone()).collect() })
    }
}
