//! What a provider's configuration says about its token endpoint (contract: sts.md §10.3, §10.4). Read strictly: what is
//! there must be of its type, and a name that the protocol reserves is not a parameter of the operator's.

use caracal_http::egress::TargetUrl;
use serde_json::{Map, Value};

use crate::key::Certificate;

/// Form fields that are the protocol's own.
pub const RESERVED_PARAMETERS: &[&str] = &[
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "scope",
];

/// A configuration that can't be used. For evidence and logs; the texts name the field and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// A field is missing, or not what it must be.
    #[error("`{0}` is missing or not usable")]
    Field(&'static str),
    /// The token endpoint is not `https`, or its host is not one that credentials of this provider may go to.
    #[error("the token endpoint is not https, or its host is not in allowed_token_hosts")]
    EndpointNotAllowed,
}

/// How a client proves itself at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
    /// `private_key_jwt`.
    PrivateKeyJwt,
    /// `none`.
    None,
}

/// What is asked for with client credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// `client_credentials`.
    ClientCredentials,
    /// RFC 7523 with an assertion of our own.
    JwtBearer,
}

/// A provider's token endpoint, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    pub(crate) endpoint: TargetUrl,
    allowed: Vec<String>,
    /// As configured: what an assertion names as its audience.
    pub(crate) endpoint_text: String,
    pub(crate) client_id: String,
    pub(crate) auth: ClientAuth,
    pub(crate) grant: Grant,
    pub(crate) scopes: Vec<String>,
    pub(crate) audience: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) assertion_subject: Option<String>,
    pub(crate) assertion_audience: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) params: Vec<(String, String)>,
    /// Whether a token of another type than `bearer` can be used, because the configuration says how it is sent.
    pub(crate) names_scheme: bool,
}

impl TokenSettings {
    /// Reads the public part of a provider's configuration.
    pub fn read(config: &Map<String, Value>) -> Result<Self, BadSettings> {
        let text = |name| text(config, name);
        let required = |name| text(name)?.ok_or(BadSettings::Field(name));
        let endpoint_text = required("token_endpoint")?;
        let endpoint = TargetUrl::parse(&endpoint_text).map_err(|_| BadSettings::Field("token_endpoint"))?;
        let allowed = texts(config, "allowed_token_hosts")?;
        if !endpoint.is_https() || !is_listed(&allowed, &endpoint) {
            return Err(BadSettings::EndpointNotAllowed);
        }
        let certificate = text("certificate")?.map(|pem| Certificate::from_pem(&pem)).transpose();
        Ok(Self {
            endpoint,
            allowed,
            endpoint_text,
            client_id: required("client_id")?,
            auth: match text("client_auth_method")?.as_deref() {
                None | Some("client_secret_basic") => ClientAuth::Basic,
                Some("client_secret_post") => ClientAuth::Post,
                Some("private_key_jwt") => ClientAuth::PrivateKeyJwt,
                Some("none") => ClientAuth::None,
                Some(_) => return Err(BadSettings::Field("client_auth_method")),
            },
            grant: match text("grant_type")?.as_deref() {
                None | Some("client_credentials") => Grant::ClientCredentials,
                Some("jwt_bearer") => Grant::JwtBearer,
                Some(_) => return Err(BadSettings::Field("grant_type")),
            },
            scopes: texts(config, "scopes")?,
            audience: text("audience")?,
            resource: text("resource")?,
            assertion_subject: text("assertion_subject")?,
            assertion_audience: text("assertion_audience")?,
            key_id: text("key_id")?,
            certificate: certificate.map_err(|_| BadSettings::Field("certificate"))?,
            params: params(config)?,
            names_scheme: text("auth_scheme")?.is_some(),
        })
    }

    /// Whether credentials of this provider may go there.
    pub(crate) fn allows(&self, url: &TargetUrl) -> bool {
        is_listed(&self.allowed, url)
    }

    pub(crate) fn scope(&self) -> Option<String> {
        (!self.scopes.is_empty()).then(|| self.scopes.join(" "))
    }
}

/// Hosts are compared whole, but for their case.
fn is_listed(allowed: &[String], url: &TargetUrl) -> bool {
    let host = url.host().to_string();
    allowed.iter().any(|entry| entry.trim().eq_ignore_ascii_case(&host))
}

/// A text; an empty one is as good as none.
fn text(config: &Map<String, Value>, name: &'static str) -> Result<Option<String>, BadSettings> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(BadSettings::Field(name)),
    }
}

/// A list of texts, none of them blank.
fn texts(config: &Map<String, Value>, name: &'static str) -> Result<Vec<String>, BadSettings> {
    let listed = match config.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(_) => return Err(BadSettings::Field(name)),
    };
    let one = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
    listed.iter().map(|value| one(value).ok_or(BadSettings::Field(name))).collect()
}

fn params(config: &Map<String, Value>) -> Result<Vec<(String, String)>, BadSettings> {
    const NAME: &str = "token_params";
    let listed = match config.get(NAME) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(listed)) => listed,
        Some(_) => return Err(BadSettings::Field(NAME)),
    };
    let pair = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| !value.trim().is_empty())?;
        let good = !name.trim().is_empty() && !RESERVED_PARAMETERS.contains(&name.as_str());
        good.then(|| (name.clone(), value.to_owned()))
    };
    listed.iter().map(|entry| pair(entry).ok_or(BadSettings::Field(NAME))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<TokenSettings, BadSettings> {
        let mut config = json!({
            "token_endpoint": "https://idp.example/token",
            "client_id": "c-1",
            "allowed_token_hosts": ["IDP.example"],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        TokenSettings::read(config.as_object().unwrap())
    }

    #[test]
    fn what_is_left_out_has_the_contracts_default() {
        let settings = read(json!({})).unwrap();
        assert_eq!((settings.auth, settings.grant), (ClientAuth::Basic, Grant::ClientCredentials));
        assert_eq!((settings.scope(), settings.names_scheme), (None, false));
    }

    #[test]
    fn t03_egress_a_token_endpoint_is_https_and_its_exact_host_is_listed() {
        for (endpoint, hosts) in [
            ("http://idp.example/token", json!(["idp.example"])),
            ("https://idp.example/token", json!(["example"])),
            ("https://idp.example/token", json!(["*.example"])),
            ("https://idp.example/token", json!(["login.idp.example"])),
            ("https://idp.example/token", json!([])),
            ("https://idp.example/token", Value::Null),
            ("https://169.254.169.254/token", json!(["idp.example"])),
        ] {
            let refused = read(json!({"token_endpoint": endpoint, "allowed_token_hosts": hosts})).unwrap_err();
            assert_eq!(refused, BadSettings::EndpointNotAllowed, "{endpoint}");
        }
    }

    #[test]
    fn a_field_that_is_not_what_it_must_be_is_named() {
        for (more, field) in [
            (json!({"token_endpoint": null}), "token_endpoint"),
            (json!({"token_endpoint": "idp.example"}), "token_endpoint"),
            (json!({"token_endpoint": "https://u:p@idp.example/"}), "token_endpoint"),
            (json!({"client_id": ""}), "client_id"),
            (json!({"client_id": 1}), "client_id"),
            (json!({"client_auth_method": "tls_client_auth"}), "client_auth_method"),
            (json!({"grant_type": "password"}), "grant_type"),
            (json!({"scopes": "a b"}), "scopes"),
            (json!({"scopes": [" "]}), "scopes"),
            (json!({"certificate": "none"}), "certificate"),
            (json!({"token_params": {"scope": "x"}}), "token_params"),
            (json!({"token_params": {"tenant": ""}}), "token_params"),
            (json!({"token_params": {"": "x"}}), "token_params"),
            (json!({"token_params": {"tenant": 1}}), "token_params"),
        ] {
            assert_eq!(read(more.clone()).unwrap_err(), BadSettings::Field(field), "{more}");
        }
        for reserved in RESERVED_PARAMETERS {
            let mut params = Map::new();
            params.insert((*reserved).to_owned(), json!("x"));
            assert_eq!(read(json!({"token_params": params})).unwrap_err(), BadSettings::Field("token_params"));
        }
    }
}
