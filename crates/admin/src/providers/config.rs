//! What a provider of each kind is configured with (contract: admin-api.md §5.4, tables "Config per kind").
//!
//! A configuration comes in as one object and leaves as two: the public part, which everybody who may read the provider
//! sees, and the secrets, which go under seal and are never seen again. A key that its kind does not know is refused, so
//! a misspelt secret can't end up in the public part.

mod fields;
mod oauth;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use caracal_broker::{AssertionKey, Certificate};
use caracal_crypto::{Secret, SecretBytes, SecretText};
use caracal_http::egress::may_carry_credential;
use http::HeaderName;
use serde_json::{Map, Value, json};

use self::fields::{Field, Holds};
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

/// Whether some kind of a provider has a secret under this key.
pub(super) fn is_secret(key: &str) -> bool {
    let holds = |field: &Field| field.name == key && matches!(field.holds, Holds::Secret | Holds::PrivateKey);
    super::KINDS.iter().filter_map(|kind| fields::of_kind(kind)).any(|fields| fields.iter().any(holds))
}

/// Whether a kind's secrets have to be in the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets<'s> {
    /// A new provider, or one that becomes of this kind.
    Required,
    /// What is sealed already, under these names, may stay.
    MayStay(&'s [String]),
}

/// What a configuration may hold, whatever the kind: which of it a kind takes, and needs, is judged with the kind at hand.
pub(super) fn schema() -> Value {
    let mut properties = Map::new();
    for field in super::KINDS.iter().flat_map(|kind| fields::of_kind(kind).unwrap_or_default()) {
        properties.entry(field.name).or_insert_with(|| field.holds.schema());
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// Reads the configuration of a provider of `kind`, else 400 `invalid_provider_config`.
pub(super) fn read(kind: &str, config: &Map<String, Value>, secrets: Secrets<'_>) -> Result<Config, Refusal> {
    judge(kind, config, secrets)
        .map_err(|description| Refusal::invalid("invalid_provider_config").describe(description))
}

fn judge(kind: &str, config: &Map<String, Value>, secrets: Secrets<'_>) -> Result<Config, String> {
    let fields = fields::of_kind(kind).ok_or_else(|| format!("{kind} is no kind of a provider"))?;
    if let Some(unknown) = config.keys().find(|key| !fields.iter().any(|field| field.name == key.as_str())) {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(format!("a provider of kind {kind} has no key {unknown:?}"));
    }
    let mut read = Config { public: Map::new(), secrets: BTreeMap::new() };
    for Field { name, holds, required } in fields {
        match config.get(*name) {
            None if *required && (secrets == Secrets::Required || *holds != Holds::Secret) => {
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
        "oauth2_authorization_code" | "oauth2_client_credentials" => oauth::settle(kind, &mut read, secrets)?,
        "bearer_token" => refuse_pasted_scheme(&read, "bearer_token", Some(scheme.unwrap_or("Bearer")))?,
        _ => {}
    }
    Ok(read)
}

fn take(name: &'static str, holds: Holds, value: &Value, read: &mut Config) -> Result<(), &'static str> {
    let text = || value.as_str().filter(|text| !text.trim().is_empty()).ok_or("must be a string that is not blank");
    let good = match holds {
        Holds::Secret | Holds::PrivateKey => {
            let secret = text()?.trim();
            if holds == Holds::Secret && secret.chars().any(|character| character.is_ascii_control()) {
                return Err("must not contain control characters");
            }
            if holds == Holds::PrivateKey {
                AssertionKey::from_pem(secret).map_err(oauth::told)?;
            }
            read.secrets.insert(name, Secret::new(secret.to_owned()));
            return Ok(());
        }
        Holds::Certificate => {
            Certificate::from_pem(text()?).map_err(oauth::told)?;
            value.clone()
        }
        Holds::Text => text()?.trim().into(),
        Holds::Texts | Holds::EndpointHosts => texts(value)?,
        Holds::OneOf(choices) => named(text()?, |text| choices.contains(&text), "is none of the known values")?,
        Holds::Endpoint => {
            named(text()?, oauth::is_endpoint, "must be an absolute https URL without user information")?
        }
        Holds::RedirectUri => named(text()?, oauth::is_redirect_uri, "must be an absolute URI")?,
        Holds::Parameters(reserved) => oauth::parameters(value, reserved)?,
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

/// A list of texts that are not blank, and not empty itself.
fn texts(value: &Value) -> Result<Value, &'static str> {
    let texts = value.as_array().filter(|texts| !texts.is_empty()).ok_or("must be a list that is not empty")?;
    let good = texts.iter().all(|text| text.as_str().is_some_and(|text| !text.trim().is_empty()));
    if good { Ok(value.clone()) } else { Err("must be a list of texts that are not blank") }
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
