//! Control keys: applications whose traits let them ask for the Control endpoint's audience (contract: sts.md §3.10).
//!
//! An application with the traits `control:invoke`, `control:scope:control:app:read` and `control:max-ttl:300` may ask for
//! `control:app:read` on the control audience, for five minutes at most. No policy is asked: whoever may give such traits
//! has decided. Traits only ever take away from each other: an end that can't be read has come, and of several bounds
//! the tightest counts.

use std::time::Duration;

use crate::Timestamp;
use crate::scope::{Scope, Scopes};

const INVOKE: &str = "control:invoke";
const SCOPE: &str = "control:scope:";
const EXPIRES: &str = "control:expires:";
const MAX_TTL: &str = "control:max-ttl:";

/// What every control scope begins with.
pub const SCOPE_PREFIX: &str = "control:";

/// What the traits of an application let it do at the Control endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlKey {
    scopes: Vec<Scope>,
    ends: Option<End>,
    max_ttl: Option<Duration>,
}

/// When a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    At(Timestamp),
    /// Its end can't be read. The reference takes that for "never".
    Unreadable,
}

impl ControlKey {
    /// The key that an application with these traits is; `None` when it is none.
    pub fn of(traits: &[String]) -> Option<Self> {
        if !traits.iter().any(|name| name == INVOKE) {
            return None;
        }
        let after = |prefix: &'static str| traits.iter().filter_map(move |name| name.strip_prefix(prefix));
        let end = |text| Timestamp::parse(text).map_or(End::Unreadable, End::At);
        let seconds = |text: &str| text.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Some(Self {
            scopes: after(SCOPE).filter_map(|text| Scope::parse(text).ok()).collect(),
            ends: after(EXPIRES).map(end).reduce(End::sooner),
            max_ttl: after(MAX_TTL).filter_map(seconds).min(),
        })
    }

    /// Whether it may ask for these scopes at this moment. All of them have to be control scopes that a trait lists.
    pub fn admits(&self, scopes: &Scopes, now: Timestamp) -> bool {
        let ended = match self.ends {
            None => false,
            Some(End::At(end)) => end <= now,
            Some(End::Unreadable) => true,
        };
        let listed = |scope: &Scope| scope.as_str().starts_with(SCOPE_PREFIX) && self.scopes.contains(scope);
        !ended && !scopes.is_empty() && scopes.listed().iter().all(listed)
    }

    /// When it ends, if it does.
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.ends {
            Some(End::At(end)) => Some(end),
            Some(End::Unreadable) => Some(Timestamp::EPOCH),
            None => None,
        }
    }

    /// The longest life of what is minted with it.
    pub fn max_ttl(&self) -> Option<Duration> {
        self.max_ttl
    }
}

impl End {
    fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            _ => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod t02_sts_control_keys {
    use proptest::prelude::*;

    use super::*;

    fn key(traits: &[&str]) -> Option<ControlKey> {
        ControlKey::of(&traits.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn now() -> Timestamp {
        Timestamp::parse("2030-01-01T00:00:00Z").unwrap()
    }

    fn admits(traits: &[&str], scope: &str) -> bool {
        key(traits).is_some_and(|key| key.admits(&Scopes::from_text(scope), now()))
    }

    const READ: &str = "control:scope:control:app:read";

    #[test]
    fn a_key_is_one_by_the_invoke_trait_and_for_the_scopes_its_traits_list() {
        assert!(admits(&["control:invoke", READ], "control:app:read"));
        assert!(!admits(&[READ], "control:app:read"));
        for (scope, why) in [
            ("", "nothing is asked for"),
            ("control:app:write", "not listed"),
            ("control:app:read control:app:write", "one of them is not listed"),
            ("control:app:read docs:read", "one of them is no control scope"),
        ] {
            assert!(!admits(&["control:invoke", READ], scope), "{why}");
        }
        assert!(
            !admits(&["control:invoke", "control:scope:docs:read"], "docs:read"),
            "a trait can't list another scope"
        );
    }

    #[test]
    fn a_key_whose_end_has_come_or_cannot_be_read_is_none() {
        for (end, good) in [
            ("2030-01-01T00:00:00.000001Z", true),
            ("2030-01-01T00:00:00Z", false),
            ("2029-12-31T23:59:59Z", false),
            ("2031-01-01", false),
            ("soon", false),
        ] {
            let end = format!("control:expires:{end}");
            assert_eq!(admits(&["control:invoke", READ, &end], "control:app:read"), good, "{end}");
            let also = "control:expires:2040-01-01T00:00:00Z";
            assert_eq!(admits(&["control:invoke", READ, also, &end], "control:app:read"), good, "{end}");
        }
    }

    #[test]
    fn the_tightest_bound_counts_and_one_that_is_none_does_not() {
        let ttl = |traits: &[&str]| key(traits).unwrap().max_ttl().map(|ttl| ttl.as_secs());
        assert_eq!(ttl(&["control:invoke", "control:max-ttl:300", "control:max-ttl:120"]), Some(120));
        assert_eq!(ttl(&["control:invoke", "control:max-ttl:0", "control:max-ttl:-1", "control:max-ttl:x"]), None);
    }

    proptest! {
        #[test]
        fn one_more_bound_never_makes_a_key_good(end in "\\PC{0,30}", ttl in "\\PC{0,12}") {
            let (end, ttl) = (format!("control:expires:{end}"), format!("control:max-ttl:{ttl}"));
            let past = "control:expires:2029-01-01T00:00:00Z";
            prop_assert!(!admits(&["control:invoke", READ, past, &end, &ttl], "control:app:read"));
        }
    }
}
