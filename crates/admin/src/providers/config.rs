//! What a provider of each kind is configured with (contract: admin-api.md §5.4, tables "Config per kind").
//!
//! A configuration comes in as one object and leaves as two: the public part, which everybody who may read the provider
//! sees, and the secrets, which go under seal and are never seen again. A key that its kind does not know is refused, so
//! a misspelt secret can't end up in the public part.

use std::collections::BTreeMap;

use caracal_crypto::{Secret, SecretBytes, SecretText};
use caracal_http::egress::may_carry_credential;
use http::HeaderName;
use serde_json::{Map, Value};

use crate::problem::Refusal;

/// A configuration that passed.
pub(super) struct Config {
    /// What may be shown.
    pub(super) public: Map<String, Value>,
    secrets: BTreeMap<&'static str, SecretText>,
}

impl Config {
    /// Names of the secrets, sorted.
    pub(super) fn secret_keys(&self) -> Vec<String> {
        self.secrets.keys().map(|key| (*key).to_owned()).collect()
    }

    pub(super) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The document to seal: one JSON object. Written into a buffer of its final size, so that no copy is left behind.
    pub(super) fn document(&self) -> Result<SecretBytes, Refusal> {
        let longest: usize = self.secrets.iter().map(|(key, value)| key.len() + 6 * value.expose().len() + 8).sum();
        let mut text = Vec::with_capacity(longest + 2);
        let shown: BTreeMap<&str, &str> =
            self.secrets.iter().map(|(key, value)| (*key, value.expose().as_str())).collect();
        serde_json::to_writer(&mut text, &shown).map_err(Refusal::secrets_unavailable)?;
        Ok(Secret::new(text))
    }
}

/// Whether a kind's secrets have to be in the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// A new provider, or one that becomes of this kind.
    Required,
    /// What is sealed already may stay.
    MayStay,
}

/// Reads the configuration of a provider of `kind`, else 400 `invalid_provider_config`.
pub(super) fn read(kind: &str, config: &Map<String, Value>, secrets: Secrets) -> Result<Config, Refusal> {
    judge(kind, config, secrets)
        .map_err(|description| Refusal::invalid("invalid_provider_config").describe(description))
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Secret,
    HeaderName,
    ParameterName,
    Scheme,
    Flag,
    Hosts,
    Username,
    Placement,
}

struct Field {
    name: &'static str,
    holds: Holds,
    required: bool,
}

const fn field(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: false }
}

const fn required(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: true }
}

const NOTHING: &[Field] = &[];
const API_KEY: &[Field] = &[
    field("auth_location", Holds::Placement),
    field("header_name", Holds::HeaderName),
    field("query_param_name", Holds::ParameterName),
    required("api_key", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
    field("allow_runtime_injection", Holds::Flag),
];
const BEARER_TOKEN: &[Field] = &[
    required("bearer_token", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("auth_header", Holds::HeaderName),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
    field("allow_runtime_injection", Holds::Flag),
];
const HTTP_BASIC: &[Field] = &[
    required("username", Holds::Username),
    required("password", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("forward_caracal_identity", Holds::Flag),
];

fn judge(kind: &str, config: &Map<String, Value>, secrets: Secrets) -> Result<Config, String> {
    let fields = match kind {
        "none" | "caracal_mandate" => NOTHING,
        "api_key" => API_KEY,
        "bearer_token" => BEARER_TOKEN,
        "http_basic" => HTTP_BASIC,
        _ => return Err(format!("this build does not serve providers of kind {kind} yet")),
    };
    if let Some(unknown) = config.keys().find(|key| !fields.iter().any(|field| field.name == key.as_str())) {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(format!("a provider of kind {kind} has no key {unknown:?}"));
    }
    let mut read = Config { public: Map::new(), secrets: BTreeMap::new() };
    for Field { name, holds, required } in fields {
        match config.get(*name) {
            None if *required && (secrets == Secrets::Required || !matches!(holds, Holds::Secret)) => {
                return Err(format!("{name} is required"));
            }
            None => {}
            Some(value) => take(name, *holds, value, &mut read).map_err(|what| format!("{name} {what}"))?,
        }
    }
    let scheme = read.public.get("auth_scheme").and_then(Value::as_str);
    match kind {
        "api_key" => {
            place_api_key(&mut read)?;
            refuse_pasted_scheme(&read, "api_key", read.public.get("auth_scheme").and_then(Value::as_str))?;
        }
        "bearer_token" => refuse_pasted_scheme(&read, "bearer_token", Some(scheme.unwrap_or("Bearer")))?,
        _ => {}
    }
    Ok(read)
}

fn take(name: &'static str, holds: Holds, value: &Value, read: &mut Config) -> Result<(), &'static str> {
    let text = || value.as_str().filter(|text| !text.trim().is_empty()).ok_or("must be a string that is not blank");
    let good = match holds {
        Holds::Secret => {
            let secret = text()?.trim();
            if secret.chars().any(|character| character.is_ascii_control()) {
                return Err("must not contain control characters");
            }
            read.secrets.insert(name, Secret::new(secret.to_owned()));
            return Ok(());
        }
        Holds::Flag => value.is_boolean().then(|| value.clone()).ok_or("must be true or false")?,
        Holds::Hosts => hosts(value)?,
        Holds::HeaderName => named(text()?, is_header_name, "is not a header that a credential may travel in")?,
        Holds::ParameterName => named(text()?, is_parameter_name, "must be letters, digits and . _ ~ -")?,
        Holds::Scheme => named(text()?, is_scheme, "must start with a letter and be letters, digits and hyphens")?,
        Holds::Placement => named(text()?, |text| matches!(text, "header" | "query"), "must be header or query")?,
        Holds::Username => named(text()?, is_username, "must not contain a colon or control characters")?,
    };
    read.public.insert(name.to_owned(), good);
    Ok(())
}

fn named(text: &str, is_good: impl Fn(&str) -> bool, what: &'static str) -> Result<Value, &'static str> {
    if is_good(text) { Ok(Value::from(text)) } else { Err(what) }
}

/// A key travels in a header unless the configuration says otherwise, and that is what is stored.
fn place_api_key(read: &mut Config) -> Result<(), String> {
    let location = read.public.entry("auth_location").or_insert_with(|| Value::from("header"));
    let in_query = location == "query";
    if in_query && read.public.contains_key("auth_scheme") {
        return Err("auth_scheme has no place in a query".to_owned());
    }
    let needed = if in_query { "query_param_name" } else { "header_name" };
    if read.public.contains_key(needed) { Ok(()) } else { Err(format!("{needed} is required")) }
}

/// A secret that was pasted with its scheme would be sent with two of them.
fn refuse_pasted_scheme(read: &Config, name: &'static str, scheme: Option<&str>) -> Result<(), String> {
    let (Some(secret), Some(scheme)) = (read.secrets.get(name), scheme) else { return Ok(()) };
    match secret.expose().split_once(' ') {
        Some((first, _)) if first.eq_ignore_ascii_case(scheme) => {
            Err(format!("{name} must not start with its scheme {scheme:?}, which is added on every call"))
        }
        _ => Ok(()),
    }
}

fn is_header_name(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| may_carry_credential(&name))
}

fn is_parameter_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-'))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A colon would move the border between name and password (RFC 7617 §2).
fn is_username(text: &str) -> bool {
    !text.contains(':') && !text.chars().any(char::is_control)
}

fn hosts(value: &Value) -> Result<Value, &'static str> {
    let hosts = value.as_array().filter(|hosts| !hosts.is_empty()).ok_or("must be a list that is not empty")?;
    let host = |host: &Value| {
        let host = host.as_str().filter(|host| is_dns_host(host)).ok_or("must be a list of host names")?;
        Ok(Value::from(host.to_ascii_lowercase()))
    };
    hosts.iter().map(host).collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn is_dns_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_with(kind: &str, config: Value, secrets: Secrets) -> Result<(Value, String), String> {
        let config = config.as_object().unwrap().clone();
        let read = judge(kind, &config, secrets)?;
        let document = String::from_utf8(read.document().ok().unwrap().expose().clone()).unwrap();
        Ok((Value::Object(read.public), document))
    }

    fn check(kind: &str, config: Value) -> Result<(Value, String), String> {
        check_with(kind, config, Secrets::Required)
    }

    #[test]
    fn kinds_without_credential_take_no_configuration() {
        for kind in ["none", "caracal_mandate"] {
            assert_eq!(check(kind, json!({})).unwrap(), (json!({}), "{}".to_owned()));
            assert!(check(kind, json!({"api_key": "x"})).is_err());
        }
    }

    #[test]
    fn an_api_key_travels_in_a_header_unless_told_otherwise() {
        let (public, secrets) = check("api_key", json!({"header_name": "X-Key", "api_key": " sk-1\n"})).unwrap();
        assert_eq!(public, json!({"auth_location": "header", "header_name": "X-Key"}));
        assert_eq!(secrets, r#"{"api_key":"sk-1"}"#);
        let (public, _) =
            check("api_key", json!({"auth_location": "query", "query_param_name": "key", "api_key": "k"})).unwrap();
        assert_eq!(public, json!({"auth_location": "query", "query_param_name": "key"}));
    }

    #[test]
    fn a_configuration_outside_its_row_is_refused() {
        for (kind, config) in [
            ("api_key", json!({"api_key": "k"})),
            ("api_key", json!({"header_name": "X-Key"})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "  "})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "sk\n1"})),
            ("api_key", json!({"header_name": "X-Key", "api_key": 1})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "password": "x"})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "forward_caracal_identity": "yes"})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": []})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": ["a..b"]})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": ["a/b"]})),
            ("api_key", json!({"header_name": "X-Key", "api_key": "k", "auth_scheme": "1a"})),
            ("api_key", json!({"auth_location": "cookie", "header_name": "X-Key", "api_key": "k"})),
            ("api_key", json!({"auth_location": "query", "header_name": "X-Key", "api_key": "k"})),
            ("api_key", json!({"auth_location": "query", "query_param_name": "a b", "api_key": "k"})),
            ("api_key", json!({"auth_location": "query", "query_param_name": "a", "api_key": "k", "auth_scheme": "X"})),
            ("bearer_token", json!({"bearer_token": "t", "header_name": "X"})),
            ("bearer_token", json!({"bearer_token": "t", "auth_header": "a b"})),
            ("http_basic", json!({"username": "u"})),
            ("http_basic", json!({"password": "p"})),
            ("http_basic", json!({"username": "a:b", "password": "p"})),
            ("http_basic", json!({"username": "u", "password": "p", "allow_runtime_injection": true})),
            ("oauth2_client_credentials", json!({})),
        ] {
            assert!(check(kind, config.clone()).is_err(), "{kind} {config}");
        }
    }

    #[test]
    fn a_pasted_scheme_is_refused_where_a_scheme_is_added() {
        let api_key = |key: &str, scheme: Option<&str>| {
            let mut config = json!({"header_name": "X-Key", "api_key": key});
            if let Some(scheme) = scheme {
                config["auth_scheme"] = json!(scheme);
            }
            check("api_key", config).is_ok()
        };
        assert!(!api_key("Bearer sk", Some("Bearer")));
        assert!(!api_key("bEARER sk", Some("Bearer")));
        assert!(api_key("Bearer sk", None));
        assert!(api_key("Bearersk", Some("Bearer")));
        assert!(check("bearer_token", json!({"bearer_token": "bearer t"})).is_err());
        assert!(check("bearer_token", json!({"bearer_token": "bearer t", "auth_scheme": "Token"})).is_ok());
    }

    #[test]
    fn hosts_are_stored_in_lower_case() {
        let config = json!({"bearer_token": "t", "allowed_token_hosts": ["API.Example.com", "localhost"]});
        let (public, _) = check("bearer_token", config).unwrap();
        assert_eq!(public["allowed_token_hosts"], json!(["api.example.com", "localhost"]));
    }

    #[test]
    fn without_its_secret_a_configuration_is_whole_only_when_one_is_stored() {
        let config = json!({"header_name": "X-Key"});
        assert!(check_with("api_key", config.clone(), Secrets::MayStay).is_ok());
        assert!(check_with("api_key", config, Secrets::Required).is_err());
        assert!(check_with("http_basic", json!({}), Secrets::MayStay).is_err());
    }

    mod t05_secrets_config {
        use super::*;

        #[test]
        fn a_secret_never_stays_in_the_public_part() {
            for (kind, config) in [
                ("api_key", json!({"header_name": "X-Key", "api_key": "sk-visible"})),
                ("bearer_token", json!({"bearer_token": "sk-visible"})),
                ("http_basic", json!({"username": "u", "password": "sk-visible"})),
            ] {
                let (public, secrets) = check(kind, config).unwrap();
                assert!(!public.to_string().contains("sk-visible"), "{kind}");
                assert!(secrets.contains("sk-visible"), "{kind}");
            }
        }

        #[test]
        fn a_refusal_does_not_quote_the_secret() {
            for (kind, config) in [
                ("api_key", json!({"header_name": "X-Key", "api_key": "sk-visible\n1"})),
                ("bearer_token", json!({"bearer_token": "Bearer sk-visible"})),
            ] {
                assert!(!check(kind, config).unwrap_err().contains("sk-visible"), "{kind}");
            }
        }
    }

    #[test]
    fn t03_gateway_headers_that_frame_or_route_carry_no_credential() {
        for refused in ["X-Caracal-Foo", "Host", "traceparent", "x-forwarded-for", "Proxy-Anything", "TE", "a b", "a:b"]
        {
            assert!(!is_header_name(refused), "{refused}");
        }
        for good in ["Authorization", "X-Key", "api-key"] {
            assert!(is_header_name(good), "{good}");
        }
    }
}
