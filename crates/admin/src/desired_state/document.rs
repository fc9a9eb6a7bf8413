//! The document: a list of objects, each of a kind, each with what it should be.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::input::{Body, Fields, Mismatch};
use crate::openapi::notes::list;
use crate::problem::Refusal;
use crate::reserved;

/// Most objects of one document.
const MOST: usize = 1_000;

/// What an object is. In the order in which they are made: a resource names its provider, a set its policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A credential provider.
    IdentityProvider,
    /// A managed application.
    Application,
    /// A resource.
    Resource,
    /// A policy.
    Policy,
    /// A policy set.
    PolicySet,
}

impl Kind {
    /// All of them, in order.
    pub(super) const ALL: [Self; 5] =
        [Self::IdentityProvider, Self::Application, Self::Resource, Self::Policy, Self::PolicySet];

    /// As documents write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::IdentityProvider => "identity-provider",
            Self::Application => "application",
            Self::Resource => "resource",
            Self::Policy => "policy",
            Self::PolicySet => "policy-set",
        }
    }

    /// Where objects of this kind are, as records name it.
    pub(super) fn collection(self) -> &'static str {
        match self {
            Self::IdentityProvider => "providers",
            Self::Application => "applications",
            Self::Resource => "resources",
            Self::Policy => "policies",
            Self::PolicySet => "policy-sets",
        }
    }

    /// What identities of this kind start with that nobody but the deployment may give.
    pub(super) fn reserved(self) -> Option<&'static str> {
        match self {
            Self::IdentityProvider => Some(reserved::PROVIDER),
            Self::Resource => Some(reserved::RESOURCE),
            Self::Application | Self::Policy => Some(reserved::NAME),
            Self::PolicySet => None,
        }
    }

    /// The member of a spec by which an object is found again.
    fn identity(self) -> &'static str {
        match self {
            Self::IdentityProvider | Self::Resource => "identifier",
            Self::Application | Self::Policy | Self::PolicySet => "name",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One object of a document.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// What it is found by.
    pub(crate) identity: String,
    /// What it should be.
    pub(crate) spec: Map<String, Value>,
}

impl Object {
    /// The spec's members of these names, as the body of a request for such an object.
    pub(crate) fn body(&self, names: &[(&'static str, &'static str)]) -> Map<String, Value> {
        let take = |(ours, theirs): &(&str, &str)| Some(((*theirs).to_owned(), self.spec.get(*ours)?.clone()));
        names.iter().filter_map(take).collect()
    }

    /// Whether the spec has this member.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.spec.contains_key(name)
    }
}

/// The code of what is no document.
pub(super) const INVALID: &str = "invalid_document";

/// The schema of a list of objects. What a spec may hold is what a request for such an object may.
pub(super) fn objects_schema() -> Value {
    let kinds = Kind::ALL.map(Kind::as_str);
    let object = json!({
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": kinds}, "spec": {"type": "object"}},
        "required": ["kind", "spec"],
    });
    list(object, (0, MOST))
}

/// The list of a body, whatever is in it: each object that is none is named by its place.
pub(super) fn entries(body: impl Into<Body>) -> Result<Vec<Value>, Mismatch> {
    let mut fields = Fields::of(body)?;
    let entries = match fields.any("objects", objects_schema) {
        Some(Value::Array(entries)) => Some(entries),
        Some(_) => return Err(fields.mismatch("objects", "expected a list")),
        None => None,
    };
    fields.require("objects", entries)
}

/// Reads a body. What is wrong with the document as a whole, or names the same object twice, is wrong with all of it.
pub(super) fn read(body: Option<Value>, zone: &str) -> Result<Vec<Object>, Refusal> {
    let entries = entries(body).map_err(|mismatch| mismatch.refuse(INVALID))?;
    if entries.len() > MOST {
        return Err(invalid(format!("objects: a document has at most {MOST}")));
    }
    let mut seen = BTreeSet::new();
    let mut objects = Vec::with_capacity(entries.len());
    for (at, entry) in entries.into_iter().enumerate() {
        let object = one(entry).map_err(|what| invalid(format!("objects.{at}: {what}")))?;
        align(&object, zone)?;
        if !seen.insert((object.kind, object.identity.clone())) {
            return Err(invalid(format!("objects.{at}: there are two of this {}", object.kind.as_str())));
        }
        objects.push(object);
    }
    Ok(objects)
}

fn one(entry: Value) -> Result<Object, &'static str> {
    let Value::Object(mut entry) = entry else { return Err("expected an object") };
    let kind = entry.get("kind").and_then(Value::as_str).and_then(Kind::parse);
    let kind = kind.ok_or("kind: expected application, identity-provider, resource, policy or policy-set")?;
    let Some(Value::Object(spec)) = entry.remove("spec") else { return Err("spec: expected an object") };
    let identity = spec.get(kind.identity()).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if identity.is_empty() {
        return Err("spec: name, or for providers and resources identifier, is required");
    }
    Ok(Object { kind, identity: identity.to_owned(), spec })
}

/// A document that was written for another zone is not for this one.
fn align(object: &Object, zone: &str) -> Result<(), Refusal> {
    let named = ["zone_id", "zone"].iter().find_map(|name| object.spec.get(*name)).and_then(Value::as_str);
    if named.is_some_and(|named| named != zone) {
        return Err(Refusal::conflict("zone_mismatch").describe("a spec names another zone"));
    }
    Ok(())
}

fn invalid(what: impl Into<String>) -> Refusal {
    Refusal::invalid(INVALID).describe(what)
}
