//! From merged values to indexed data, and what each root tolerates (contract: policy.md §2.1).
//!
//! One walk serves two judgements. [`Tolerance::Stored`] is what the contract tolerates at decision time: a
//! defective entry grants nothing, an unreadable `confinement`, `risk` or `approval_tiers` denies mints.
//! [`Tolerance::Authored`] refuses all of these (D31), because an author who wrote them meant something else.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::data::{Approvals, Cap, Confinement, Data, Grant, Owner, Risk, Tier};
use crate::defect::{DefectKind, Defects};
use crate::literal::{Literal, Position, Value};
use crate::merge::{Item, Kind, Merged, Sources, merge};
use crate::parse::{ParsedDocument, shortened};
use crate::root::Root;
use crate::verdict::{Approver, Privacy, TierDeclaration};

/// How strictly shapes are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// When a set version is made: every malformed shape is a defect.
    Authored,
    /// When a stored set version is loaded: only what the contract refuses then is one.
    Stored,
    /// When roots are evaluated for one question: entries that it does not have others may have, so no judgement is
    /// made of all of them.
    Asked,
}

/// The data of a bundle: `roots` from their sources, the others as they are in `data`. What it returns counts only if no
/// defect was added.
pub(crate) fn index(
    sources: &Sources<'_>,
    roots: impl Fn(Root) -> bool,
    data: &Data,
    tolerance: Tolerance,
    defects: &mut Defects<'_>,
) -> Data {
    let mut data = data.clone();
    // Who owns a resource is resolved through `app_ids`.
    if roots(Root::Grants) || roots(Root::AppIds) {
        let app_ids = Walk::of(Root::AppIds, sources, tolerance, defects).map(Walk::app_ids).unwrap_or_default();
        // What is known of grants that depend on the question is not all of them.
        let known = if tolerance == Tolerance::Stored && !roots(Root::Grants) { Tolerance::Asked } else { tolerance };
        let grants = Walk::of(Root::Grants, sources, known, defects).map(|walk| walk.grants(&app_ids));
        data.grants = Arc::new(grants.unwrap_or_default());
    }
    if roots(Root::Confinement) {
        let confinement = Walk::of(Root::Confinement, sources, tolerance, defects).map(Walk::confinement);
        data.confinement = Arc::new(confinement.unwrap_or_default());
    }
    if roots(Root::Restrict) {
        data.frozen = Walk::of(Root::Restrict, sources, tolerance, defects).is_some_and(Walk::restrict);
    }
    if roots(Root::Risk) {
        data.risk = Arc::new(Walk::of(Root::Risk, sources, tolerance, defects).map(Walk::risk).unwrap_or_default());
    }
    if roots(Root::ApprovalTiers) {
        let approvals = Walk::of(Root::ApprovalTiers, sources, tolerance, defects).map(Walk::approvals);
        data.approvals = Arc::new(approvals.unwrap_or_default());
    }
    data
}

/// Keys that documents write twice, for an author.
pub(crate) fn repeated_keys(documents: &[Arc<ParsedDocument>], defects: &mut Defects<'_>) {
    for (document, parsed) in documents.iter().enumerate() {
        for (at, key) in &parsed.repeated_keys {
            defects.add(document, *at, DefectKind::RepeatedKey(key.clone()));
        }
    }
}

/// One root on its way into the index.
struct Walk<'w, 'd, 'i> {
    root: Root,
    merged: Merged<'d>,
    tolerance: Tolerance,
    defects: &'w mut Defects<'i>,
}

impl<'w, 'd, 'i> Walk<'w, 'd, 'i> {
    fn of(root: Root, sources: &Sources<'d>, tolerance: Tolerance, defects: &'w mut Defects<'i>) -> Option<Self> {
        merge(root, sources, defects).map(|merged| Walk { root, merged, tolerance, defects })
    }

    fn is_strict(&self) -> bool {
        self.tolerance == Tolerance::Authored
    }

    /// A shape refused whoever asks.
    fn refuse(&mut self, document: usize, at: Position, path: &str, expected: &'static str, found: &'static str) {
        let path = if path.is_empty() { self.root.name().to_owned() } else { path.to_owned() };
        self.defects.add(document, at, DefectKind::Malformed { root: self.root, path, expected, found });
    }

    fn refuse_root(&mut self, expected: &'static str) {
        let Merged { document, at, kind, .. } = self.merged;
        self.refuse(document, at, "", expected, kind.name());
    }

    /// A shape refused only to an author. The path is built only if it is needed.
    fn object_to(&mut self, document: usize, literal: &Literal, path: impl FnOnce() -> String, expected: &'static str) {
        if self.is_strict() && !self.defects.is_full() {
            let path = path();
            self.refuse(document, literal.at, &path, expected, literal.kind());
        }
    }

    /// A member that is missing, refused only to an author.
    fn object_to_missing(
        &mut self,
        document: usize,
        holder: &Literal,
        path: impl FnOnce() -> String,
        expected: &'static str,
    ) {
        if self.is_strict() && !self.defects.is_full() {
            let path = path();
            self.refuse(document, holder.at, &path, expected, "missing");
        }
    }

    fn items(&mut self) -> Vec<Item<'d>> {
        std::mem::take(&mut self.merged.items)
    }

    fn restrict(mut self) -> bool {
        if matches!(self.merged.kind, Kind::Scalar(_)) {
            self.refuse_root("a set, an object or an array");
        }
        !self.merged.items.is_empty()
    }

    /// Binding key → application id. A key or an id that is no string names nothing.
    fn app_ids(mut self) -> HashMap<&'d str, &'d str> {
        match self.merged.kind {
            Kind::Object => {}
            Kind::Scalar(_) => self.refuse_root("an object of binding key to application id"),
            Kind::Array | Kind::Set => {
                if self.is_strict() {
                    self.refuse_root("an object of binding key to application id");
                }
                return HashMap::new();
            }
        }
        let mut ids = HashMap::new();
        for item in self.items() {
            let Some(key) = item.key else { continue };
            let path = || member_path("app_ids", key);
            match (key.as_str(), item.value.as_str()) {
                (None, _) => self.object_to(item.document, key, || "a key of app_ids".into(), "a string"),
                (_, None) => self.object_to(item.document, item.value, path, "an application id, a string"),
                (Some(key), Some(id)) => {
                    if id.is_empty() && self.is_strict() {
                        self.refuse(item.document, item.value.at, &path(), "an application id", "empty");
                    }
                    ids.insert(key, id);
                }
            }
        }
        ids
    }

    fn grants(mut self, app_ids: &HashMap<&str, &str>) -> HashMap<Box<str>, Grant> {
        if self.merged.kind != Kind::Object {
            self.refuse_root("an object of resource identifier to grant");
            return HashMap::new();
        }
        let items = self.items();
        if self.tolerance == Tolerance::Stored {
            // The type check of the reference: one entry with the member is enough (policy.md §2.1).
            for member in ["application", "roles"] {
                if !items.is_empty() && items.iter().all(|item| item.value.get(member).is_none()) {
                    let Merged { document, at, .. } = self.merged;
                    self.defects.add(document, at, DefectKind::NoGrantHas(member));
                }
            }
        }
        let mut grants = HashMap::with_capacity(items.len());
        for item in items {
            let Some(key) = item.key else { continue };
            match key.as_str() {
                Some(identifier) => {
                    let grant = self.grant(item, key, app_ids);
                    grants.insert(Box::from(identifier), grant);
                }
                None => {
                    self.object_to(item.document, key, || "a key of grants".into(), "a resource identifier, a string")
                }
            }
        }
        grants
    }

    fn grant(&mut self, item: Item<'d>, key: &Literal, app_ids: &HashMap<&str, &str>) -> Grant {
        let Item { document, value, .. } = item;
        let path = |member: &str| format!("{}{member}", member_path("grants", key));
        if !matches!(value.value, Value::Object(_)) {
            self.object_to(document, value, || path(""), "an object with `application` and `roles`");
            return Grant::default();
        }
        let owner = match value.get("application") {
            None => {
                self.object_to_missing(document, value, || path(".application"), "a binding key");
                None
            }
            Some(application) => {
                if application.as_str().is_none() {
                    self.object_to(document, application, || path(".application"), "a binding key, a string");
                }
                application.as_str().and_then(|key| Some(Owner::new(key, app_ids.get(key)?)))
            }
        };
        let mut roles = HashMap::new();
        match value.get("roles") {
            None => self.object_to_missing(document, value, || path(".roles"), "an object of label to scopes"),
            Some(Literal { value: Value::Object(members), .. }) => {
                for member in members {
                    match member.key.as_str() {
                        Some(label) => {
                            let scopes =
                                self.scopes(document, &member.value, || member_path(&path(".roles"), &member.key));
                            roles.insert(Box::from(label), scopes);
                        }
                        None => self.object_to(document, &member.key, || path(".roles"), "keyed by labels, strings"),
                    }
                }
            }
            Some(other) => self.object_to(document, other, || path(".roles"), "an object of label to scopes"),
        }
        Grant { owner, roles }
    }

    /// The scopes of a role or a cap: what a search through the collection would find. A scalar holds nothing.
    fn scopes(&mut self, document: usize, literal: &Literal, path: impl Fn() -> String) -> HashSet<Box<str>> {
        let Some(elements) = literal.elements() else {
            self.object_to(document, literal, path, "a list of scopes");
            return HashSet::new();
        };
        let mut scopes = HashSet::new();
        for element in elements {
            match element.as_str() {
                Some(scope) => {
                    scopes.insert(Box::from(scope));
                }
                None => self.object_to(document, element, || format!("{}[…]", path()), "a scope, a string"),
            }
        }
        scopes
    }

    fn confinement(mut self) -> Confinement {
        if let Kind::Scalar(_) = self.merged.kind {
            if self.is_strict() {
                self.refuse_root("an array of rules with `label_prefix` and `scopes`");
            }
            return Confinement::Closed;
        }
        let mut caps = Vec::new();
        let mut closed = false;
        for item in self.items() {
            let Item { document, value, .. } = item;
            if !self.is_object(document, value) {
                closed = true;
                continue;
            }
            let prefix = match value.get("label_prefix") {
                Some(prefix) => prefix,
                None => {
                    closed = true;
                    let expected = "a string that labels start with";
                    self.object_to_missing(document, value, || "confinement[…].label_prefix".into(), expected);
                    continue;
                }
            };
            let Some(label_prefix) = prefix.as_str() else {
                // Refused on every path: the reference ignores such a rule and so loses the cap (policy.md §2.1).
                self.refuse(document, prefix.at, "confinement[…].label_prefix", "a string", prefix.kind());
                closed = true;
                continue;
            };
            let path = || "confinement[…].scopes".to_owned();
            let scopes = match value.get("scopes") {
                Some(scopes) => self.scopes(document, scopes, path),
                None => {
                    self.object_to_missing(document, value, path, "a list of scopes");
                    HashSet::new()
                }
            };
            caps.push(Cap { label_prefix: Box::from(label_prefix), scopes });
        }
        if closed { Confinement::Closed } else { Confinement::Caps(caps) }
    }

    fn risk(mut self) -> Risk {
        if self.merged.kind != Kind::Array {
            if self.is_strict() {
                self.refuse_root("an array of objects with `scope` and `tier`");
            }
            return Risk::Malformed;
        }
        let mut tiers: HashMap<Arc<str>, Tier> = HashMap::new();
        let mut malformed = false;
        for Item { document, value, .. } in self.items() {
            let readable = self.is_object(document, value);
            let scope = readable.then(|| self.text_member(document, value, "scope")).flatten();
            let tier = readable.then(|| self.text_member(document, value, "tier")).flatten();
            let (Some(scope), Some(tier)) = (scope, tier) else {
                malformed = true;
                continue;
            };
            match tiers.entry(Arc::from(scope)) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Tier::One(Arc::from(tier)));
                }
                Entry::Occupied(mut occupied) => match occupied.get() {
                    Tier::One(first) if **first != *tier => {
                        if self.is_strict() {
                            let kind = DefectKind::DoublyClassified {
                                scope: shortened(scope),
                                first: shortened(first),
                                second: shortened(tier),
                            };
                            self.defects.add(document, value.at, kind);
                        }
                        occupied.insert(Tier::Several);
                    }
                    _ => {}
                },
            }
        }
        if malformed { Risk::Malformed } else { Risk::Tiers(tiers) }
    }

    fn approvals(mut self) -> Approvals {
        if self.merged.kind != Kind::Array {
            if self.is_strict() {
                self.refuse_root("an array of objects with `tier`");
            }
            return Approvals::Malformed;
        }
        let items = self.items();
        let mut declarations = Vec::with_capacity(items.len());
        let mut malformed = false;
        for item in items {
            match self.declaration(item) {
                Some(declaration) => declarations.push(declaration),
                None => malformed = true,
            }
        }
        if malformed { Approvals::Malformed } else { Approvals::declared(declarations) }
    }

    fn declaration(&mut self, item: Item<'d>) -> Option<TierDeclaration> {
        let Item { document, value, .. } = item;
        if !self.is_object(document, value) {
            return None;
        }
        let tier = self.text_member(document, value, "tier");
        let approver = self.optional_member(document, value, "approver", "`operator`, `subject` or `any`", |literal| {
            literal.as_str().and_then(Approver::named)
        });
        let privacy = self.optional_member(
            document,
            value,
            "privacy",
            "`identified`, `pseudonymous` or `anonymous`",
            |literal| literal.as_str().and_then(Privacy::named),
        );
        let ttl_seconds =
            self.optional_member(document, value, "ttl_seconds", "a whole number from 1 to 2^53", |literal| {
                match &literal.value {
                    Value::Number(number) => number.as_positive_integer(),
                    _ => None,
                }
            });
        Some(TierDeclaration {
            tier: Arc::from(tier?),
            approver: approver?,
            ttl_seconds: ttl_seconds?,
            privacy: privacy?,
            verbatim: value.clone(),
        })
    }

    /// Whether an element can have members at all; if not, the root is malformed.
    fn is_object(&mut self, document: usize, element: &Literal) -> bool {
        let object = matches!(element.value, Value::Object(_));
        if !object {
            let root = self.root;
            self.object_to(document, element, || format!("{root}[…]"), "an object");
        }
        object
    }

    /// A member that must be a non-empty string; `None` makes the root malformed.
    fn text_member(&mut self, document: usize, holder: &'d Literal, name: &str) -> Option<&'d str> {
        let root = self.root;
        let path = || format!("{root}[…].{name}");
        match holder.get(name) {
            None => {
                self.object_to_missing(document, holder, path, "a non-empty string");
                None
            }
            Some(member) => match member.as_str() {
                Some("") | None => {
                    self.object_to(document, member, path, "a non-empty string");
                    None
                }
                text => text,
            },
        }
    }

    /// A member that may be absent: `Some(None)`; a present one must read, else the root is malformed: `None`.
    fn optional_member<T>(
        &mut self,
        document: usize,
        holder: &Literal,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&Literal) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(member) = holder.get(name) else {
            return Some(None);
        };
        let value = read(member);
        if value.is_none() {
            let root = self.root;
            self.object_to(document, member, || format!("{root}[…].{name}"), expected);
        }
        value.map(Some)
    }
}

/// `holder[key]`, the key as JSON and not longer than a message can bear.
fn member_path(holder: &str, key: &Literal) -> String {
    format!("{holder}[{}]", shortened(&serde_json::to_string(key).unwrap_or_default()))
}
