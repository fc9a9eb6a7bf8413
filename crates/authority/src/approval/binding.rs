//! What an approval is good for (contract: sts.md §7.5, README D34).
//!
//! Two parts are hashed together. The first is the contract's own, byte for byte, so that its vectors hold. But it folds
//! the case of resource names, and joins texts that may hold the very bytes it joins them with; and a name says nothing
//! of what stands behind it: somebody could approve `resource://books`, and find the books at another address. So where
//! the rows behind the names are known, which they are in every decision, a second part follows in which every text
//! stands as it is, with its length before it, and with the row of each resource.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use ring::digest::{Context, SHA256};

use crate::resource::{OperationEnforcement, Resource};

/// The hash of all that was asked: 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Binding(String);

/// Text that is no binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a binding: expected 64 lower-case hexadecimal digits")]
pub struct NotABinding;

/// Which policy was in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyStamp {
    /// The active policy set version; empty for none.
    pub version: String,
    /// The hash of its manifest.
    pub manifest: String,
    /// Version of the decision contract.
    pub contract: String,
    /// The hash of that contract.
    pub contract_sha: String,
}

/// A resource as a mint would reach it.
#[derive(Debug, Clone, Copy)]
pub struct ResourceRow<'b> {
    /// The row.
    pub resource: &'b Resource,
    /// Where it lies.
    pub upstream: Option<&'b str>,
}

/// Everything that an approval is bound to. What is absent is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bound<'b> {
    /// The requested resource names.
    pub resources: &'b [&'b str],
    /// The rows they were found to name.
    pub rows: &'b [ResourceRow<'b>],
    /// The requested scopes.
    pub scopes: &'b [&'b str],
    /// The principal.
    pub principal: &'b str,
    /// The authority record.
    pub record: &'b str,
    /// The governed session.
    pub session: &'b str,
    /// The delegation.
    pub delegation: &'b str,
    /// The application.
    pub application: &'b str,
    /// The variable of a workload's environment that the credential is for; of an exchange none.
    pub env: &'b str,
    /// The policy.
    pub policy: Option<&'b PolicyStamp>,
}

impl Binding {
    /// Takes text that comes from outside or from the store.
    pub fn parse(text: &str) -> Result<Self, NotABinding> {
        let is_hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { Ok(Self(text.to_owned())) } else { Err(NotABinding) }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The binding of a request.
    pub fn of(bound: &Bound<'_>) -> Self {
        let none = PolicyStamp::default();
        let policy = bound.policy.unwrap_or(&none);
        let resources = joined(bound.resources.iter().map(|name| name.trim().to_lowercase()));
        let scopes = joined(bound.scopes.iter().map(|scope| scope.trim().to_owned()));
        let mut context = Context::new(&SHA256);
        let sections = [
            ("resources", resources.as_str()),
            ("scopes", &scopes),
            ("principal", bound.principal),
            ("authority_record", bound.record),
            ("session", bound.session),
            ("delegation", bound.delegation),
            ("application", bound.application),
            ("policy_set_version", &policy.version),
            ("policy_manifest", &policy.manifest),
            ("decision_contract_version", &policy.contract),
            ("decision_contract_sha", &policy.contract_sha),
        ];
        for (index, (name, value)) in sections.into_iter().enumerate() {
            if index > 0 {
                context.update(b"\0");
            }
            context.update(name.as_bytes());
            context.update(b"\0");
            context.update(value.as_bytes());
        }
        if !bound.rows.is_empty() {
            context.update(b"\0exact\0");
            context.update(exact(bound, policy).as_bytes());
        }
        Self(context.finish().as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }
}

/// Distinct, in the order of their bytes, one to a line.
fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n")
}

/// All of it again in a form that no two requests share.
fn exact(bound: &Bound<'_>, policy: &PolicyStamp) -> String {
    let mut exact = Exact::default();
    exact.list(bound.resources.iter().map(|name| name.trim()).collect::<BTreeSet<_>>());
    exact.list(bound.scopes.iter().map(|scope| scope.trim()).collect::<BTreeSet<_>>());
    for text in [bound.principal, bound.record, bound.session, bound.delegation, bound.application] {
        exact.text(text);
    }
    for text in [&policy.version, &policy.manifest, &policy.contract, &policy.contract_sha] {
        exact.text(text);
    }
    // Asked for by id and by identifier, it is one row.
    let rows: BTreeSet<String> = bound.rows.iter().map(row).collect();
    exact.list(rows.iter().map(String::as_str));
    if !bound.env.is_empty() {
        exact.text(bound.env);
    }
    exact.0
}

fn row(row: &ResourceRow<'_>) -> String {
    let ResourceRow { resource, upstream } = row;
    let mut exact = Exact::default();
    exact.text(resource.name.id.as_str());
    exact.text(resource.name.identifier.as_str());
    exact.maybe(*upstream);
    exact.text(match resource.enforcement {
        OperationEnforcement::Enforced => "enforced",
        OperationEnforcement::TransportUniform => "transport_uniform",
    });
    // In their order: the first that matches decides.
    exact.list(
        resource
            .operations
            .iter()
            .flat_map(|declared| [declared.method.as_str(), declared.path.as_str(), declared.scope.as_str()]),
    );
    exact.maybe(resource.provider.as_ref().map(|provider| provider.id.as_str()));
    exact.text(&format!("{:?}", resource.provider.as_ref().and_then(|provider| provider.kind)));
    exact.0
}

/// Texts, each with its length before it.
#[derive(Default)]
struct Exact(String);

impl Exact {
    fn text(&mut self, text: &str) {
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{}:{text},", text.len());
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.list(text);
    }

    fn list<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        let mut inner = Self::default();
        for text in texts {
            inner.text(text);
        }
        self.text(&inner.0);
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({})", self.0)
    }
}
