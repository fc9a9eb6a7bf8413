//! Scopes: exact strings, never patterns. `docs:read` covers `docs:read` and nothing else.
//!
//! What a caller asks for and what the decision gives are different types: [`Requested`] anyone may build,
//! [`Granted`] only this crate, so that a request can never be signed as if it had been a grant.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One scope: non-empty text without control characters, compared byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

/// Text that is not a scope: empty, or with a control character, which could split a line of a stream message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: expected non-empty text without control characters")]
pub struct NotAScope;

impl Scope {
    /// Takes text that comes from outside.
    pub fn parse(text: &str) -> Result<Self, NotAScope> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(NotAScope);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A set of scopes that remembers how it was written: order and duplicates of a list, or the raw text of a form
/// field, which is echoed and minted as it came (contract: sts.md §3.2). Equality is that of the sets.
///
/// On the wire (edges, resources) it is an array; in a mandate it is [`Scopes::text`].
#[derive(Clone, Default)]
pub struct Scopes {
    listed: Vec<Scope>,
    sorted: Vec<Scope>,
    text: Option<Arc<str>>,
}

impl Scopes {
    /// No scope at all: covered by everything, covers only itself.
    pub fn none() -> Self {
        Self::default()
    }

    /// From a list, as edges and resources store it.
    pub fn from_list(listed: Vec<Scope>) -> Self {
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        sorted.dedup();
        Self { listed, sorted, text: None }
    }

    /// From the space-delimited text of a form field or a `scope` claim, split on Unicode white space.
    pub fn from_text(text: &str) -> Self {
        // A piece between white space is never empty; control characters that are not white space make no scope that
        // anything could cover, so the piece is kept as it is and covered by nothing declared.
        let listed = text.split_whitespace().map(|piece| Scope(Arc::from(piece))).collect();
        Self { text: Some(Arc::from(text)), ..Self::from_list(listed) }
    }

    /// Whether there is no scope.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The scopes as they were written, duplicates kept.
    pub fn listed(&self) -> &[Scope] {
        &self.listed
    }

    /// The distinct scopes, byte-sorted.
    pub fn distinct(&self) -> &[Scope] {
        &self.sorted
    }

    /// Whether `scope` is one of them, byte for byte.
    pub fn contains(&self, scope: &str) -> bool {
        self.sorted.binary_search_by(|known| known.as_str().cmp(scope)).is_ok()
    }

    /// Whether every scope of `other` is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_subset_of(self)
    }

    /// Whether every one of these scopes is in `other`. The empty set is a subset of everything.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.sorted.iter().all(|scope| other.contains(scope.as_str()))
    }

    /// The scopes in both, byte-sorted.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self::from_list(self.sorted.iter().filter(|scope| other.contains(scope.as_str())).cloned().collect())
    }

    /// The form of a `scope` parameter or claim: the text as given, or the list joined by one space.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.text {
            _ if self.is_empty() => Cow::Borrowed(""),
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(self.listed.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")),
        }
    }
}

impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        self.sorted == other.sorted
    }
}

impl Eq for Scopes {}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.listed).finish()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.listed.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Scope>::deserialize(deserializer).map(Self::from_list)
    }
}

/// What a caller asks for. Says nothing about what it may have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requested<T>(T);

impl<T> Requested<T> {
    /// Marks `wanted` as asked for.
    pub fn new(wanted: T) -> Self {
        Self(wanted)
    }

    /// What is asked for.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// What the decision gave. Only [`crate::exchange::decide`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted<T>(T);

impl<T> Granted<T> {
    pub(crate) fn new(given: T) -> Self {
        Self(given)
    }

    /// What was given.
    pub fn get(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split_on_unicode_white_space_and_kept_as_given() {
        let scopes = Scopes::from_text(" b\u{2003}a\ta ");
        assert_eq!(scopes.listed().iter().map(Scope::as_str).collect::<Vec<_>>(), ["b", "a", "a"]);
        assert_eq!(scopes.distinct().len(), 2);
        assert_eq!(scopes.text(), " b\u{2003}a\ta ");
        assert_eq!(Scopes::from_text(" \t ").text(), "");
        assert!(Scopes::from_text(" \t ").is_empty());
    }

    #[test]
    fn comparison_is_exact() {
        let held = Scopes::from_text("docs:read docs:write");
        for (wanted, covered) in [
            ("", true),
            ("docs:read", true),
            ("docs:write docs:read docs:read", true),
            ("Docs:read", false),
            ("docs", false),
            ("docs:*", false),
            ("docs:read docs:delete", false),
        ] {
            assert_eq!(held.covers(&Scopes::from_text(wanted)), covered, "{wanted}");
        }
        assert!(Scopes::none().is_subset_of(&Scopes::none()));
        assert!(!Scopes::none().covers(&held));
        assert_eq!(held.intersection(&Scopes::from_text("docs:write x")), Scopes::from_text("docs:write"));
    }

    #[test]
    fn on_the_wire_a_set_is_a_list_of_non_empty_strings() {
        let scopes: Scopes = serde_json::from_str(r#"["b","a","b"]"#).unwrap();
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["b","a","b"]"#);
        assert_eq!(scopes.text(), "b a b");
        for refused in [r#"[""]"#, r#"["a\u0000"]"#, r#"[1]"#, "null", r#""a""#] {
            assert!(serde_json::from_str::<Scopes>(refused).is_err(), "{refused}");
        }
    }
}
