//! What an identity provider publishes about itself (OpenID Connect Discovery, RFC 8414; contract: admin-api.md §5.4).

use caracal_http::egress::TargetUrl;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::Broker;
use crate::answer;
use crate::code::OPERATORS_PATIENCE;

/// Scopes that are passed on, and how long one may be.
const MOST_SCOPES: usize = 64;
const LONGEST_SCOPE: usize = 200;
/// Ways of a client to prove itself that a provider can be configured with.
const METHODS: [&str; 4] = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];

/// What was found, as far as a provider is configured with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// `issuer`, as the document says it.
    pub issuer: String,
    /// `token_endpoint`, which is `https`.
    pub token_endpoint: String,
    /// `authorization_endpoint`, if there is one and it is `https`.
    pub authorization_endpoint: Option<String>,
    /// `revocation_endpoint`, if there is one and it is `https`.
    pub revocation_endpoint: Option<String>,
    /// `scopes_supported`, if the document has any.
    pub scopes: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`: those of them that are known here, if the document has any.
    pub auth_methods: Option<Vec<String>>,
}

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDiscovered {
    /// Neither place has a document.
    #[error(
        "neither /.well-known/openid-configuration nor /.well-known/oauth-authorization-server of the issuer is a JSON document"
    )]
    NoDocument,
    /// The document is about somebody else.
    #[error("the document names another issuer than the one that was asked")]
    OtherIssuer,
    /// The document has no token endpoint that can be used.
    #[error("the document has no https token_endpoint")]
    NoTokenEndpoint,
}

impl Broker {
    /// Reads what `issuer`, an `https` address without query, publishes about itself.
    pub async fn discover(&self, issuer: &TargetUrl) -> Result<ServerMetadata, NotDiscovered> {
        let path = issuer.path().trim_end_matches('/');
        let origin = format!("https://{}", issuer.authority());
        for place in [
            format!("{origin}{path}/.well-known/openid-configuration"),
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
        ] {
            let Ok(url) = TargetUrl::parse(&place) else { continue };
            match self.endpoints.get(url, OPERATORS_PATIENCE).await {
                Ok(answer) if answer.status == StatusCode::OK => {
                    if let Some(document) = answer::members(&answer.body) {
                        return read(&format!("{origin}{path}"), &document);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a discovery document could not be read"),
            }
        }
        Err(NotDiscovered::NoDocument)
    }
}

fn read(asked: &str, document: &Map<String, Value>) -> Result<ServerMetadata, NotDiscovered> {
    let issuer = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    // Read as the one that was asked was: a host in capitals is the same host.
    let same = |issuer: &str| {
        let url = TargetUrl::parse(issuer).ok()?;
        let plain = url.is_https() && url.query().is_none() && !issuer.contains('#');
        plain.then(|| format!("https://{}{}", url.authority(), url.path().trim_end_matches('/')))
    };
    if same(issuer).as_deref() != Some(asked) {
        return Err(NotDiscovered::OtherIssuer);
    }
    let endpoint = |name: &str| {
        let text = document.get(name)?.as_str()?;
        TargetUrl::parse(text).is_ok_and(|url| url.is_https()).then(|| text.to_owned())
    };
    let texts = |name: &str| {
        let listed = document.get(name)?.as_array()?;
        Some(listed.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let scopes = texts("scopes_supported").map(|mut scopes| {
        scopes.retain(|scope| scope.encode_utf16().count() <= LONGEST_SCOPE);
        scopes.truncate(MOST_SCOPES);
        scopes
    });
    let auth_methods = texts("token_endpoint_auth_methods_supported").map(|mut methods| {
        methods.retain(|method| METHODS.contains(&method.as_str()));
        methods
    });
    Ok(ServerMetadata {
        issuer: issuer.to_owned(),
        token_endpoint: endpoint("token_endpoint").ok_or(NotDiscovered::NoTokenEndpoint)?,
        authorization_endpoint: endpoint("authorization_endpoint"),
        revocation_endpoint: endpoint("revocation_endpoint"),
        scopes,
        auth_methods,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(more: Value) -> Result<ServerMetadata, NotDiscovered> {
        let mut document = json!({"issuer": "https://idp.example/t", "token_endpoint": "https://idp.example/token"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read("https://idp.example/t", document.as_object().unwrap())
    }

    #[test]
    fn a_document_is_about_the_issuer_that_was_asked() {
        for same in ["https://idp.example/t", "https://idp.example/t/", "https://IDP.example/t//"] {
            assert!(found(json!({"issuer": same})).is_ok(), "{same}");
        }
        for other in
            ["https://idp.example", "https://idp.example/T", "http://idp.example/t", "https://idp.example/t?x=1", ""]
        {
            assert_eq!(found(json!({"issuer": other})), Err(NotDiscovered::OtherIssuer), "{other}");
        }
        assert_eq!(found(json!({"issuer": 1})), Err(NotDiscovered::OtherIssuer));
    }

    #[test]
    fn what_can_not_be_used_is_left_out() {
        let metadata = found(json!({
            "authorization_endpoint": "http://idp.example/authorize",
            "revocation_endpoint": "https://idp.example/revoke",
            "scopes_supported": ["a", 1, "x".repeat(201), "b"],
            "token_endpoint_auth_methods_supported": ["tls_client_auth", "none", "client_secret_jwt"],
        }))
        .unwrap();
        assert_eq!(metadata.authorization_endpoint, None);
        assert_eq!(metadata.revocation_endpoint.as_deref(), Some("https://idp.example/revoke"));
        assert_eq!(metadata.scopes.unwrap(), ["a", "b"]);
        assert_eq!(metadata.auth_methods.unwrap(), ["none"]);
        let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(found(json!({"scopes_supported": many})).unwrap().scopes.unwrap().len(), 64);
        for bad in [json!("http://idp.example/token"), json!(null), json!("https://u@idp.example/")] {
            assert_eq!(found(json!({"token_endpoint": bad})), Err(NotDiscovered::NoTokenEndpoint));
        }
    }
}
