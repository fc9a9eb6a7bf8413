//! Resources, and the operation floor: which method on which path of an upstream needs which scope.
//!
//! An agent holds `books:read` and its Gateway call says `DELETE /v1/books/7`. The resource declares
//! `GET /v1/books/{id}` for `books:read` and nothing for `DELETE`: the call ends here, whatever policy says
//! (contract: sts.md §3.9, with the templates of D18).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::scope::{Scope, Scopes};
use crate::{ProviderId, ResourceId, ZoneId};

/// The public name of a resource, compared byte by byte: what `aud` and `target` of a mandate carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceIdentifier(Arc<str>);

/// Text that names no resource: empty, or with a control character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a resource identifier: expected non-empty text without control characters")]
pub struct NotAnIdentifier;

impl ResourceIdentifier {
    /// Takes text that comes from outside. Which identifiers may be registered is the Admin API's to say.
    pub fn parse(text: &str) -> Result<Self, NotAnIdentifier> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(NotAnIdentifier);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceIdentifier({})", &self.0)
    }
}

impl Serialize for ResourceIdentifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ResourceIdentifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Both names of a resource: the row, which a re-created resource does not inherit, and the public identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceRef {
    /// Row id.
    pub id: ResourceId,
    /// Public identifier.
    pub identifier: ResourceIdentifier,
}

/// How an upstream credential is made (contract: sts.md §10.2). Names are exact, case included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// The upstream needs no credential.
    None,
    /// The upstream verifies the mandate itself.
    CaracalMandate,
    /// A stored API key, in a header or the query.
    ApiKey,
    /// A stored bearer token.
    BearerToken,
    /// A stored user name and password.
    HttpBasic,
    /// A user's connection.
    Oauth2AuthorizationCode,
    /// A service token.
    Oauth2ClientCredentials,
    /// A stored kind this build cannot make a credential for: the exchange may decide, the directive fails (502).
    Unrecognised,
}

impl ProviderKind {
    /// From the stored name. What is not known exactly is [`ProviderKind::Unrecognised`].
    pub fn parse(text: &str) -> Self {
        match text {
            "none" => Self::None,
            "caracal_mandate" => Self::CaracalMandate,
            "api_key" => Self::ApiKey,
            "bearer_token" => Self::BearerToken,
            "http_basic" => Self::HttpBasic,
            "oauth2_authorization_code" => Self::Oauth2AuthorizationCode,
            "oauth2_client_credentials" => Self::Oauth2ClientCredentials,
            _ => Self::Unrecognised,
        }
    }
}

/// The credential provider a resource names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProvider {
    /// The provider the resource row points at.
    pub id: ProviderId,
    /// Its kind; `None` when no live provider of that id exists in the zone.
    pub kind: Option<ProviderKind>,
}

/// Whether the operation list of a resource is a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationEnforcement {
    /// Only declared operations pass. An empty list lets nothing pass.
    #[default]
    Enforced,
    /// One endpoint carries every operation (MCP and the like): no check per operation.
    TransportUniform,
}

impl OperationEnforcement {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::TransportUniform => "transport_uniform",
        }
    }

    /// From the stored name. Anything but the exact exception is enforced.
    pub fn parse(text: &str) -> Self {
        if text == Self::TransportUniform.as_str() { Self::TransportUniform } else { Self::Enforced }
    }
}

/// One declared operation of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Upper-case method: the Admin API stores it so, and the request's is compared as it goes upstream.
    pub method: String,
    /// Exact path, or a template: see [`path_matches`].
    pub path: String,
    /// The scope the mandate must carry.
    pub scope: Scope,
}

/// A resource of a zone, as far as a decision is concerned. Archived resources have no facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its zone.
    pub zone: ZoneId,
    /// Its names.
    pub name: ResourceRef,
    /// Whether an upstream URL is set, which makes `agent:lifecycle` an implicit scope.
    pub has_upstream: bool,
    /// Declared scopes.
    pub scopes: Scopes,
    /// Declared operations, in their order.
    pub operations: Vec<Operation>,
    /// Whether they are enforced.
    pub enforcement: OperationEnforcement,
    /// The provider attached to it, if any.
    pub provider: Option<AttachedProvider>,
}

/// The scope with which an application bootstraps and speaks to the Coordinator.
pub const LIFECYCLE_SCOPE: &str = "agent:lifecycle";

impl Resource {
    /// Whether this resource can be asked for all of `wanted` (contract: sts.md §3.8 row 2).
    pub fn offers(&self, wanted: &Scopes) -> bool {
        wanted.distinct().iter().all(|scope| {
            self.scopes.contains(scope.as_str()) || (self.has_upstream && scope.as_str() == LIFECYCLE_SCOPE)
        })
    }
}

/// What goes upstream: the bytes of the request line, query excluded. Only a Gateway signature makes it believable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamCall {
    /// Method, as it goes upstream.
    pub method: String,
    /// Path, as it goes upstream before the base path is put in front: neither decoded nor trimmed.
    pub path: String,
}

/// Why an operation is not permitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationRefused {
    /// No declared operation matches.
    #[error("the operation is not declared")]
    Undeclared,
    /// The first operation that matches needs a scope the mandate does not carry.
    #[error("the operation needs the scope `{0}`")]
    ScopeNotCarried(Scope),
}

/// The operation floor: the first declared operation that matches `call` decides, and the presented mandate must
/// carry its scope. A later, laxer operation never rescues a call.
pub fn operation_floor(resource: &Resource, call: &UpstreamCall, carried: &Scopes) -> Result<(), OperationRefused> {
    if resource.enforcement == OperationEnforcement::TransportUniform {
        return Ok(());
    }
    let declared = resource
        .operations
        .iter()
        .find(|operation| operation.method == call.method && path_matches(&operation.path, &call.path))
        .ok_or(OperationRefused::Undeclared)?;
    if carried.contains(declared.scope.as_str()) {
        Ok(())
    } else {
        Err(OperationRefused::ScopeNotCarried(declared.scope.clone()))
    }
}

/// Whether the path `actual` is what `declared` describes.
///
/// A segment `{name}` of `declared` matches exactly one non-empty segment, a final segment `**` one or more segments,
/// the last of which may be empty (`/v1/**` covers `/v1/` and `/v1/a/b`, not `/v1`). Everything else is exact, byte
/// for byte: braces and stars inside a longer segment, too. A wildcard never swallows a segment that an upstream
/// could read as another path: dot segments, and encoded `/`, `\`, `.`, `%` or NUL.
pub fn path_matches(declared: &str, actual: &str) -> bool {
    let mut wanted = declared.split('/').peekable();
    let mut given = actual.split('/');
    while let Some(segment) = wanted.next() {
        if segment == "**" && wanted.peek().is_none() {
            let Some(first) = given.next() else { return false };
            return std::iter::once(first).chain(given).all(stays_a_segment);
        }
        let matched = match given.next() {
            None => false,
            Some(value) if is_parameter(segment) => !value.is_empty() && stays_a_segment(value),
            Some(value) => value == segment,
        };
        if !matched {
            return false;
        }
    }
    given.next().is_none()
}

/// Whether a declared segment is `{name}`.
fn is_parameter(segment: &str) -> bool {
    segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// Whether an upstream reads `segment` as one segment, however it decodes. Some drop what follows a `;` before they
/// resolve dots, and some take the overlong forms that begin with `%c0` or `%c1` for the ASCII they imitate.
fn stays_a_segment(segment: &str) -> bool {
    const ENCODED: [&str; 7] = ["%2f", "%5c", "%2e", "%25", "%00", "%c0", "%c1"];
    let name = segment.split(';').next().unwrap_or_default();
    if name == "." || name == ".." || segment.contains(['\\', '?', '#', '\0']) {
        return false;
    }
    !segment.bytes().enumerate().filter(|(_, byte)| *byte == b'%').any(|(at, _)| {
        segment.as_bytes().get(at..at + 3).is_none_or(|escape| {
            ENCODED.iter().any(|refused| escape.eq_ignore_ascii_case(refused.as_bytes()))
                || !escape[1..].iter().all(u8::is_ascii_hexdigit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(operations: &[(&str, &str, &str)]) -> Resource {
        Resource {
            zone: ZoneId::parse("z-1").unwrap(),
            name: ResourceRef {
                id: ResourceId::parse("res-1").unwrap(),
                identifier: ResourceIdentifier::parse("resource://books").unwrap(),
            },
            has_upstream: true,
            scopes: Scopes::from_text("read write"),
            operations: operations
                .iter()
                .map(|(method, path, scope)| Operation {
                    method: (*method).into(),
                    path: (*path).into(),
                    scope: Scope::parse(scope).unwrap(),
                })
                .collect(),
            enforcement: OperationEnforcement::Enforced,
            provider: None,
        }
    }

    fn floor(resource: &Resource, method: &str, path: &str, carried: &str) -> Result<(), OperationRefused> {
        let call = UpstreamCall { method: method.into(), path: path.into() };
        operation_floor(resource, &call, &Scopes::from_text(carried))
    }

    mod t02_sts_operations {
        use super::*;

        #[test]
        fn exact_paths_are_compared_with_the_bytes_that_go_upstream() {
            for (declared, actual, matches) in [
                ("/items", "/items", true),
                ("/items", "/items/", false),
                ("/items", "/Items", false),
                ("/items", "/items%20", false),
                ("/items", " /items", false),
                ("/items", "/items?x=1", false),
                ("/a/b", "/a%2Fb", false),
                ("/", "/", true),
                ("/", "", false),
                ("/a/{id}.json", "/a/1.json", false),
                ("/a/{id}.json", "/a/{id}.json", true),
                ("/a/**/b", "/a/x/b", false),
                ("/a/**/b", "/a/**/b", true),
                ("/a/b**", "/a/bcd", false),
                ("/a/{}", "/a/x", false),
                ("/a/{1}", "/a/x", false),
            ] {
                assert_eq!(path_matches(declared, actual), matches, "{declared} against {actual}");
            }
        }

        #[test]
        fn a_parameter_is_one_non_empty_segment() {
            for (actual, matches) in [
                ("/v1/books/7", true),
                ("/v1/books/a%20b", true),
                ("/v1/books/", false),
                ("/v1/books", false),
                ("/v1/books/7/", false),
                ("/v1/books/7/pages", false),
                ("/v1/books/..", false),
                ("/v1/books/.", false),
                ("/v1/books/7%2Fpages", false),
                ("/v1/books/7%2fpages", false),
                ("/v1/books/%2e%2e", false),
                ("/v1/books/%252e%252e", false),
                ("/v1/books/7%5c", false),
                ("/v1/books/7\\x", false),
                ("/v1/books/7%00", false),
                ("/v1/books/..;", false),
                ("/v1/books/..;v=1", false),
                ("/v1/books/.;", false),
                ("/v1/books/7;v=1", true),
                ("/v1/books/%c0%ae%C0%AE", false),
                ("/v1/books/%C1%9c", false),
                ("/v1/books/%c3%a9", true),
                ("/v1/books/7%", false),
                ("/v1/books/7%zz", false),
                ("/v1/books/7?all", false),
            ] {
                assert_eq!(path_matches("/v1/books/{id}", actual), matches, "{actual}");
            }
        }

        #[test]
        fn a_final_double_star_is_the_rest_below_its_prefix() {
            for (actual, matches) in [
                ("/v1/", true),
                ("/v1/a", true),
                ("/v1/a/b/c", true),
                ("/v1/a/", true),
                ("/v1", false),
                ("/v10/a", false),
                ("/v1/../admin", false),
                ("/v1/a/%2e%2e/admin", false),
                ("/v1/a/..%2fadmin", false),
                ("/v1/..;/admin", false),
            ] {
                assert_eq!(path_matches("/v1/**", actual), matches, "{actual}");
            }
            assert!(path_matches("/v1/{tenant}/**", "/v1/acme/x/y"));
            assert!(!path_matches("/v1/{tenant}/**", "/v1//x"));
        }

        #[test]
        fn the_first_operation_that_matches_decides() {
            let books = resource(&[
                ("GET", "/books/secret", "write"),
                ("GET", "/books/{id}", "read"),
                ("POST", "/books", "write"),
            ]);
            assert_eq!(floor(&books, "GET", "/books/7", "read"), Ok(()));
            assert_eq!(floor(&books, "POST", "/books", "read write"), Ok(()));
            let needs_write = Err(OperationRefused::ScopeNotCarried(Scope::parse("write").unwrap()));
            assert_eq!(floor(&books, "GET", "/books/secret", "read"), needs_write);
            assert_eq!(floor(&books, "POST", "/books", "read"), needs_write);
            assert_eq!(floor(&books, "POST", "/books", ""), needs_write);
            for (method, path) in [("DELETE", "/books/7"), ("get", "/books/7"), ("GET ", "/books/7"), ("GET", "/admin")]
            {
                assert_eq!(
                    floor(&books, method, path, "read write"),
                    Err(OperationRefused::Undeclared),
                    "{method} {path}"
                );
            }
        }

        #[test]
        fn an_enforced_resource_without_operations_lets_nothing_pass() {
            let mut bare = resource(&[]);
            assert_eq!(floor(&bare, "GET", "/", "read"), Err(OperationRefused::Undeclared));
            bare.enforcement = OperationEnforcement::TransportUniform;
            assert_eq!(floor(&bare, "GET", "/", ""), Ok(()));
            for (stored, parsed) in [
                ("transport_uniform", OperationEnforcement::TransportUniform),
                ("enforced", OperationEnforcement::Enforced),
                ("Transport_Uniform", OperationEnforcement::Enforced),
                ("", OperationEnforcement::Enforced),
            ] {
                assert_eq!(OperationEnforcement::parse(stored), parsed, "{stored:?}");
            }
        }
    }

    #[test]
    fn the_lifecycle_scope_is_implied_by_an_upstream_only() {
        let mut books = resource(&[]);
        assert!(books.offers(&Scopes::from_text("agent:lifecycle read")));
        assert!(!books.offers(&Scopes::from_text("delete")));
        books.has_upstream = false;
        assert!(!books.offers(&Scopes::from_text("agent:lifecycle")));
        books.scopes = Scopes::from_text("agent:lifecycle");
        assert!(books.offers(&Scopes::from_text("agent:lifecycle")));
    }

    #[test]
    fn provider_kinds_are_exact() {
        assert_eq!(ProviderKind::parse("api_key"), ProviderKind::ApiKey);
        for odd in ["API_KEY", "api_key ", "", "kerberos"] {
            assert_eq!(ProviderKind::parse(odd), ProviderKind::Unrecognised, "{odd:?}");
        }
    }
}
