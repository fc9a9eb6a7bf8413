//! The six documents a zone may define (contract: policy.md §2).

use std::fmt;

/// One of the six root documents of package `caracal.authz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// Binding key → application id.
    AppIds,
    /// Resource identifier → owning binding key and roles.
    Grants,
    /// Caps on sessions whose label has a prefix.
    Confinement,
    /// Reasons to freeze the zone.
    Restrict,
    /// Scope → tier.
    Risk,
    /// Tiers that are held for a human.
    ApprovalTiers,
}

impl Root {
    /// All six, in the order of their names.
    pub const ALL: [Root; 6] =
        [Root::AppIds, Root::ApprovalTiers, Root::Confinement, Root::Grants, Root::Restrict, Root::Risk];

    /// The name in a document.
    pub fn name(self) -> &'static str {
        match self {
            Root::AppIds => "app_ids",
            Root::Grants => "grants",
            Root::Confinement => "confinement",
            Root::Restrict => "restrict",
            Root::Risk => "risk",
            Root::ApprovalTiers => "approval_tiers",
        }
    }

    /// The root of that name, `None` if it is none of the six.
    pub fn named(name: &str) -> Option<Root> {
        Root::ALL.into_iter().find(|root| root.name() == name)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of the roots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Roots(u8);

impl Roots {
    pub(crate) fn add(&mut self, root: Root) {
        self.0 |= 1 << root as u8;
    }

    pub(crate) fn add_all(&mut self, roots: Roots) {
        self.0 |= roots.0;
    }

    pub(crate) fn has(self, root: Root) -> bool {
        self.0 & (1 << root as u8) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Root> {
        Root::ALL.into_iter().filter(move |root| self.has(*root))
    }
}
