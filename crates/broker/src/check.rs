//! Whether a provider's token endpoint would give what it is configured for, tried out (contract: admin-api.md §5.4).
//!
//! A client of its own is asked for a token, which is thrown away. For accounts there is nobody to agree now, so a code is
//! presented that no provider ever gave out: one that knows the client says so, and one that does not says that.
//!
//! What is told are findings of ours. Of the endpoint's words only an error code of the protocol is repeated.

use caracal_http::egress::{EgressError, SimpleResponse};
use caracal_http::form;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::Broker;
use crate::answer::{self, is_error_code};
use crate::code::OPERATORS_PATIENCE;
use crate::document::SecretDocument;
use crate::endpoint::own_grant;
use crate::error::BrokerError;
use crate::settings::{Grant, TokenSettings};

/// No provider gave it out.
const NO_CODE: &str = "caracal-connection-test";
/// Long enough to be one (RFC 7636 §4.1).
const NO_VERIFIER: &str = "caracal-connection-test-verifier-that-belongs-to-no-challenge";

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// The client is known, and may ask for what it is configured for.
    Ok,
    /// The client is not accepted.
    AuthFailed,
    /// There was no answer.
    Unreachable,
    /// There was one, and it is none that such an endpoint gives.
    EndpointError,
    /// The configuration can't work.
    ConfigError,
}

impl CheckStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::AuthFailed => "auth_failed",
            Self::Unreachable => "unreachable",
            Self::EndpointError => "endpoint_error",
            Self::ConfigError => "config_error",
        }
    }
}

/// A finding, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The finding.
    pub status: CheckStatus,
    /// For the operator.
    pub detail: String,
}

impl Check {
    fn of(status: CheckStatus, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    OwnToken,
    OwnAssertion,
    Account,
}

impl Broker {
    /// Tries out a provider with accounts, or one whose client asks for itself.
    pub async fn check(&self, has_accounts: bool, config: &Map<String, Value>, secrets: &SecretDocument) -> Check {
        let settings = match TokenSettings::read(config) {
            Ok(settings) => settings,
            Err(error) => return Check::of(CheckStatus::ConfigError, error.to_string()),
        };
        let asked = match (has_accounts, settings.grant) {
            (true, _) => Asked::Account,
            (false, Grant::ClientCredentials) => Asked::OwnToken,
            (false, Grant::JwtBearer) => Asked::OwnAssertion,
        };
        let redirect_uri = config.get("redirect_uri").and_then(Value::as_str).unwrap_or_default();
        let answer = self.endpoints.ask_once(&settings, secrets, OPERATORS_PATIENCE, |form, now| {
            if asked != Asked::Account {
                return own_grant(&settings, secrets, form, now);
            }
            form.set("grant_type", "authorization_code");
            form.set("code", NO_CODE);
            form.set("redirect_uri", redirect_uri);
            form.set("code_verifier", NO_VERIFIER);
            Ok(())
        });
        match answer.await {
            Ok(answer) => judge(asked, &answer),
            Err(error) => not_asked(&error),
        }
    }
}

/// The network's own words may be the endpoint's, and stay here.
fn not_asked(error: &BrokerError) -> Check {
    match error {
        BrokerError::Settings(_) | BrokerError::Secret(_) | BrokerError::NotSigned => {
            Check::of(CheckStatus::ConfigError, error.to_string())
        }
        BrokerError::NotReachable(refused @ EgressError::Refused { .. }) => {
            Check::of(CheckStatus::Unreachable, refused.to_string())
        }
        _ => {
            let detail = "the token endpoint gave no complete answer: its name, the network, TLS, its size or its time";
            Check::of(CheckStatus::Unreachable, detail)
        }
    }
}

/// What an answer says about errors.
enum Said {
    Nothing,
    Code(String),
    /// Something that is no code of the protocol.
    Other,
}

fn said(body: &[u8], members: Option<&Map<String, Value>>) -> Said {
    let named = match members {
        Some(members) => match members.get("error") {
            None | Some(Value::Null) => return Said::Nothing,
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Said::Other,
        },
        None => match form::Form::parse_fields(body, &[]).ok().and_then(|mut form| form.take("error")) {
            None => return Said::Nothing,
            Some(text) => text.to_string(),
        },
    };
    if is_error_code(&named) { Said::Code(named) } else { Said::Other }
}

fn judge(asked: Asked, answer: &SimpleResponse) -> Check {
    use CheckStatus::{AuthFailed, ConfigError, EndpointError, Ok};
    let members = answer::members(&answer.body);
    let said = said(&answer.body, members.as_ref());
    let status = answer.status;
    let found = |found, what: &str| Check::of(found, format!("{what} (status {})", status.as_u16()));
    let code = match &said {
        Said::Code(code) => code.as_str(),
        Said::Nothing if status == StatusCode::OK => {
            let token = members.as_ref().and_then(|members| members.get("access_token")).and_then(Value::as_str);
            return match (asked, token) {
                (Asked::Account, _) => found(EndpointError, "the token endpoint accepted a code that nobody gave out"),
                (_, Some(token)) if !token.is_empty() => found(Ok, "the token endpoint issued a token"),
                _ => found(EndpointError, "the token endpoint answered without a token"),
            };
        }
        Said::Nothing | Said::Other => "",
    };
    let refused = |status| found(status, &format!("the token endpoint said {code}"));
    match (asked, code) {
        (Asked::Account, "invalid_grant" | "bad_verification_code") => {
            found(Ok, "the token endpoint knows the client, and refused the code of the test")
        }
        (Asked::OwnAssertion, "invalid_grant" | "bad_verification_code") => refused(AuthFailed),
        (_, "invalid_client" | "unauthorized_client" | "incorrect_client_credentials") => refused(AuthFailed),
        (_, "") if status == StatusCode::UNAUTHORIZED => {
            found(AuthFailed, "the token endpoint did not accept the client")
        }
        (_, _) if status == StatusCode::UNAUTHORIZED => refused(AuthFailed),
        (Asked::OwnToken | Asked::OwnAssertion, "invalid_scope" | "invalid_target") => refused(ConfigError),
        (_, "") => {
            found(EndpointError, "the token endpoint answered with neither a token nor an error of the protocol")
        }
        (_, _) => refused(EndpointError),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    /// The contract's table of outcomes.
    #[test]
    fn an_answer_is_judged_by_what_was_asked() {
        let cases = [
            (200, r#"{"access_token":"t"}"#, ["ok", "ok", "endpoint_error"]),
            (200, r#"{"access_token":"t","error":null}"#, ["ok", "ok", "endpoint_error"]),
            (200, r#"{"access_token":""}"#, ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (200, r#"{"access_token":7}"#, ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (200, "{}", ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (200, "hello", ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (200, r#"{"access_token":"t","error":{"a":1}}"#, ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (400, r#"{"error":"invalid_grant"}"#, ["endpoint_error", "auth_failed", "ok"]),
            (401, r#"{"error":"invalid_grant"}"#, ["auth_failed", "auth_failed", "ok"]),
            (400, r#"{"error":"bad_verification_code"}"#, ["endpoint_error", "auth_failed", "ok"]),
            (200, "error=bad_verification_code", ["endpoint_error", "auth_failed", "ok"]),
            (400, r#"{"error":"invalid_client"}"#, ["auth_failed", "auth_failed", "auth_failed"]),
            (403, r#"{"error":"unauthorized_client"}"#, ["auth_failed", "auth_failed", "auth_failed"]),
            (200, "error=incorrect_client_credentials&x=1", ["auth_failed", "auth_failed", "auth_failed"]),
            (401, "<html>", ["auth_failed", "auth_failed", "auth_failed"]),
            (401, r#"{"error":"server_error"}"#, ["auth_failed", "auth_failed", "auth_failed"]),
            (400, r#"{"error":"invalid_scope"}"#, ["config_error", "config_error", "endpoint_error"]),
            (400, r#"{"error":"invalid_target"}"#, ["config_error", "config_error", "endpoint_error"]),
            (400, r#"{"error":"Leave <b>t0p</b>"}"#, ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (302, "", ["endpoint_error", "endpoint_error", "endpoint_error"]),
            (503, r#"{"error":"temporarily_unavailable"}"#, ["endpoint_error", "endpoint_error", "endpoint_error"]),
        ];
        for (status, body, expected) in cases {
            let answer = SimpleResponse {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
            };
            let checks = [Asked::OwnToken, Asked::OwnAssertion, Asked::Account].map(|asked| judge(asked, &answer));
            assert_eq!(checks.each_ref().map(|check| check.status.as_str()), expected, "{status} {body}");
            for check in checks {
                assert!(!check.detail.contains("t0p") && !check.detail.contains("html"), "{}", check.detail);
            }
        }
    }

    #[test]
    fn the_verifier_of_the_test_is_one() {
        assert!((43..=128).contains(&NO_VERIFIER.len()));
    }
}
