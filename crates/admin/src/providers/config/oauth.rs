//! What fields of the OAuth kinds have to do with one another (contract: admin-api.md §5.4, "Field rule").

use caracal_broker::{AssertionKey, BadKey, Certificate};
use caracal_http::egress::TargetUrl;
use serde_json::Value;

use super::{Config, Secrets};

/// A key or certificate that can't be used, for people.
pub(super) fn told(bad: BadKey) -> &'static str {
    match bad {
        BadKey::NotPem | BadKey::NotSigned => "must be a PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        BadKey::Unsupported => "must be an RSA key of 2048 to 4096 bits, or an EC key on P-256, P-384 or P-521",
        BadKey::WithoutPublic => "leaves out its public key; write it again with `openssl pkey`",
        BadKey::NotACertificate => "must be a PEM X.509 certificate",
    }
}

pub(super) fn is_endpoint(text: &str) -> bool {
    TargetUrl::parse(text).is_ok_and(|url| url.is_https())
}

/// Any scheme, for applications on a device have their own; one of the web's needs a host.
pub(super) fn is_redirect_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let clean = !text.chars().any(|character| character.is_control() || character.is_whitespace());
    let web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
    named && clean && !rest.is_empty() && (!web || TargetUrl::parse(text).is_ok())
}

pub(super) fn parameters(value: &Value, reserved: &[&str]) -> Result<Value, &'static str> {
    let listed = value.as_object().ok_or("must be an object of texts")?;
    for (name, value) in listed {
        if name.is_empty() || !super::is_parameter_name(name) {
            return Err("has a name that is not made of letters, digits and . _ ~ -");
        }
        if reserved.contains(&name.as_str()) {
            return Err("has a name that the protocol sets itself");
        }
        if value.as_str().is_none_or(|text| text.trim().is_empty()) {
            return Err("must be an object of texts that are not blank");
        }
    }
    Ok(value.clone())
}

/// Fills in what was left to its default, and refuses what does not go together.
pub(super) fn settle(kind: &str, read: &mut Config, secrets: Secrets<'_>) -> Result<(), String> {
    let service = kind == "oauth2_client_credentials";
    let text = |read: &Config, name: &str| read.public.get(name).and_then(Value::as_str).map(str::to_owned);
    let jwt_bearer = text(read, "grant_type").as_deref() == Some("jwt_bearer");
    if service {
        read.public.entry("grant_type").or_insert_with(|| "client_credentials".into());
        let refused: &[&str] =
            if jwt_bearer { &["audience", "resource"] } else { &["assertion_subject", "assertion_audience"] };
        if let Some(name) = refused.iter().find(|name| read.public.contains_key(**name)) {
            let grant = if jwt_bearer { "jwt_bearer" } else { "client_credentials" };
            return Err(format!("{name} has no place beside grant_type {grant}"));
        }
    }
    let default = if jwt_bearer { "none" } else { "client_secret_basic" };
    read.public.entry("client_auth_method").or_insert_with(|| default.into());
    let method = text(read, "client_auth_method").unwrap_or_default();
    let assertion = method == "private_key_jwt";
    if assertion && (!service || jwt_bearer) {
        return Err("client_auth_method private_key_jwt is for grant_type client_credentials only".to_owned());
    }
    if assertion && read.secrets.contains_key("client_secret") {
        return Err("client_secret has no place beside client_auth_method private_key_jwt".to_owned());
    }
    let signs = assertion || jwt_bearer;
    if !signs && (read.secrets.contains_key("private_key") || read.public.contains_key("key_id")) {
        return Err("private_key and key_id are for private_key_jwt and jwt_bearer only".to_owned());
    }
    certificate(read, assertion)?;
    hosts(read)?;
    let by_secret = matches!(method.as_str(), "client_secret_basic" | "client_secret_post");
    for (name, needed) in [("client_secret", by_secret), ("private_key", signs)] {
        let there = read.secrets.contains_key(name)
            || matches!(secrets, Secrets::MayStay(stored) if read.secrets.is_empty() && stored.iter().any(|key| key == name));
        if needed && !there {
            return Err(format!("{name} is required"));
        }
    }
    Ok(())
}

fn certificate(read: &Config, assertion: bool) -> Result<(), String> {
    let Some(certificate) = read.public.get("certificate").and_then(Value::as_str) else { return Ok(()) };
    if !assertion {
        return Err("certificate is for client_auth_method private_key_jwt only".to_owned());
    }
    let Some(key) = read.secrets.get("private_key") else { return Ok(()) };
    let of_key = Certificate::from_pem(certificate)
        .and_then(|certificate| Ok(certificate.is_of(&AssertionKey::from_pem(key.expose())?)));
    if of_key == Ok(true) { Ok(()) } else { Err("certificate is not of the private_key".to_owned()) }
}

/// Where credentials of this provider may go: where its token endpoint lies, unless more is said.
fn hosts(read: &mut Config) -> Result<(), String> {
    let host = |name: &str| {
        let url = read.public.get(name).and_then(Value::as_str);
        url.and_then(|url| TargetUrl::parse(url).ok()).map(|url| url.host().to_string())
    };
    let (endpoint, revocation) = (host("token_endpoint").unwrap_or_default(), host("revocation_endpoint"));
    let allowed = read.public.entry("allowed_token_hosts").or_insert_with(|| Value::from(vec![endpoint]));
    let listed = |host: &str| {
        let hosts = allowed.as_array().into_iter().flatten().filter_map(Value::as_str);
        hosts.into_iter().any(|entry| entry.trim().eq_ignore_ascii_case(host))
    };
    match revocation {
        Some(host) if !listed(&host) => Err("the host of revocation_endpoint is not in allowed_token_hosts".to_owned()),
        _ => Ok(()),
    }
}
