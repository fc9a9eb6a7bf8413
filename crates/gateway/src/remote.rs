//! The STS in another process, asked over the contract's signed exchange (gateway.md §11).
//!
//! The Gateway proves with a shared key that the request is its own; the mandate inside proves whom it is for. One
//! question is one request on a connection that is kept for the next. It is sent again only when a kept connection
//! turned out to be closed before a byte of it was written. A connection that breaks later leaves open whether the
//! mandate was used up: the caller is told 502 and nothing is repeated, because a repetition could only be refused as a
//! replay and would hide what happened. The STS recorded its decision, if it made one, under the same request id.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_crypto::chance::random_bytes;
use caracal_crypto::encoding::hex;
use caracal_crypto::hmac::{HmacKey, gateway_signature};
use caracal_crypto::{Secret, SecretText};
use caracal_http::egress::{
    AddressPolicy, GuardedConnector, PrivateHosts, SimpleClient, SimpleError, SimpleRequest, SimpleResponse,
    SystemResolver, TargetUrl, TlsTrust,
};
use caracal_store::{BoxFuture, Clock};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::exchange::{Directive, Exchange, ExchangeRefusal, ExchangeRequest, Permitted, StsUnreachable};

const PATH: &str = "/oauth/2/token";
const LARGEST_ANSWER: usize = 16 * 1024;
/// Connections to the STS that are kept while nobody uses them.
const KEPT: usize = 200;
/// How long readiness waits for the STS.
const CHECK_WITHIN: Duration = Duration::from_secs(2);
/// What the STS says of a mandate that was used before.
const REPLAYED: &str = "token replay detected";

/// `application/x-www-form-urlencoded` leaves these as they are; a space becomes `+`.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// A way to the STS that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("STS_URL {0}")]
pub struct BadStsUrl(String);

/// The STS, as a Gateway in another process asks it.
pub struct RemoteSts {
    client: SimpleClient,
    token: TargetUrl,
    health: TargetUrl,
    key: Arc<HmacKey>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
}

impl RemoteSts {
    /// At `url`, signing with `key` at the time of `clock`, which both sides must share to a minute.
    pub fn new(
        url: &str,
        key: Arc<HmacKey>,
        clock: Arc<dyn Clock>,
        trust: TlsTrust,
        deadline: Duration,
    ) -> Result<Self, BadStsUrl> {
        let base = url.trim_end_matches('/');
        let target = |path: &str| TargetUrl::parse(&format!("{base}{path}"));
        let token = target(PATH).map_err(|error| BadStsUrl(format!("is no http or https URL: {error}")))?;
        let health = target("/health").map_err(|error| BadStsUrl(format!("is no http or https URL: {error}")))?;
        if token.path() != PATH || token.query().is_some() {
            return Err(BadStsUrl("must name the STS's root: no path, no query".to_owned()));
        }
        // The operator names the STS, so it may be where nobody else may send us.
        let host = PrivateHosts::parse(&token.host().to_string()).map_err(|error| BadStsUrl(error.to_string()))?;
        let connector = GuardedConnector::new(AddressPolicy::new(false, host), Arc::new(SystemResolver::new()), trust);
        Ok(Self { client: SimpleClient::keeping(connector, KEPT), token, health, key, clock, deadline })
    }

    async fn ask(&self, request: &ExchangeRequest) -> Result<SimpleResponse, ExchangeRefusal> {
        let body = form(request);
        let Ok(nonce) = random_bytes::<32>().map(|bytes| hex(&bytes)) else {
            return Err(ExchangeRefusal::unavailable());
        };
        let seconds = self.clock.now().as_seconds();
        let signature = gateway_signature(&self.key, seconds, &nonce, "POST", PATH, body.expose().as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("caracal-gateway"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        for (name, value) in [
            ("x-request-id", request.request_id.as_str()),
            ("x-caracal-gateway-timestamp", &seconds.to_string()),
            ("x-caracal-gateway-request", &nonce),
            ("x-caracal-gateway-signature", &signature),
        ] {
            let value = HeaderValue::from_str(value).map_err(|_| ExchangeRefusal::unavailable())?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let sent = self.client.send(SimpleRequest {
            method: Method::POST,
            url: self.token.clone(),
            headers,
            body: Bytes::copy_from_slice(body.expose().as_bytes()),
            deadline: self.deadline,
            max_response_bytes: LARGEST_ANSWER,
        });
        sent.await.map_err(|error| {
            tracing::warn!(%error, "the STS could not be asked");
            match error {
                SimpleError::Deadline => ExchangeRefusal::timed_out(),
                SimpleError::TooLarge => invalid(),
                SimpleError::Egress(_) | SimpleError::Transport(_) => {
                    ExchangeRefusal::undecided(StatusCode::BAD_GATEWAY, "sts unavailable")
                }
            }
        })
    }
}

impl Exchange for RemoteSts {
    fn exchange(&self, request: ExchangeRequest) -> BoxFuture<'_, Result<Permitted, ExchangeRefusal>> {
        Box::pin(async move { understood(&self.ask(&request).await?, &request.resource) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StsUnreachable>> {
        Box::pin(async move {
            let request = SimpleRequest {
                method: Method::GET,
                url: self.health.clone(),
                headers: HeaderMap::new(),
                body: Bytes::new(),
                deadline: CHECK_WITHIN.min(self.deadline),
                max_response_bytes: LARGEST_ANSWER,
            };
            match self.client.send(request).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                _ => Err(StsUnreachable),
            }
        })
    }
}

/// The fields in the order of their names. Holds the mandate.
fn form(request: &ExchangeRequest) -> SecretText {
    let mut text = String::new();
    for (name, value) in [
        ("application_id", request.client.as_str()),
        ("gateway_request_id", request.request_id.as_str()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("request_method", &request.method),
        ("request_path", &request.path),
        ("resource", &request.resource),
        ("subject_token", request.bearer.expose()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("zone_id", request.zone.as_str()),
    ] {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for (index, part) in value.split(' ').enumerate() {
            if index > 0 {
                text.push('+');
            }
            text.extend(utf8_percent_encode(part, FORM));
        }
    }
    Secret::new(text)
}

fn invalid() -> ExchangeRefusal {
    ExchangeRefusal::undecided(StatusCode::BAD_GATEWAY, "sts response invalid")
}

/// What an answer means (gateway.md §11.2). Whatever is not understood grants nothing.
fn understood(answer: &SimpleResponse, resource: &str) -> Result<Permitted, ExchangeRefusal> {
    let members = match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(members)) if is_json(&answer.headers) => Some(members),
        _ => None,
    };
    if answer.status != StatusCode::OK {
        return Err(refusal(answer.status, members.as_ref()));
    }
    let members = members.ok_or_else(invalid)?;
    let access_token = text(&members, "access_token").filter(|token| !token.is_empty()).ok_or_else(invalid)?;
    let upstream = match members.get("upstreams").and_then(|upstreams| upstreams.get(resource)) {
        Some(Value::Object(directive)) => Some(self::directive(directive).ok_or_else(invalid)?),
        Some(_) => return Err(invalid()),
        None => None,
    };
    Ok(Permitted { access_token: SecretText::new(access_token), upstream })
}

fn refusal(status: StatusCode, members: Option<&Map<String, Value>>) -> ExchangeRefusal {
    let told = |name: &str| members.and_then(|members| text(members, name)).filter(|text| !text.is_empty());
    let Some(code) = told("error") else {
        // A success that is none, and redirects, which nobody follows, are an STS's trouble too.
        let status =
            if status.is_client_error() || status.is_server_error() { status } else { StatusCode::BAD_GATEWAY };
        return ExchangeRefusal::undecided(status, status.canonical_reason().unwrap_or_default());
    };
    let description = told("error_description").unwrap_or_default();
    if status == StatusCode::UNAUTHORIZED && code == "invalid_token" && description == REPLAYED {
        return ExchangeRefusal::replayed();
    }
    if code == "sts_unavailable" {
        return ExchangeRefusal::undecided(status, description);
    }
    ExchangeRefusal::denied(status, code, description)
}

fn directive(members: &Map<String, Value>) -> Option<Directive> {
    let part = |name: &str| match members.get(name) {
        None => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    let hosts = match members.get("allowed_token_hosts") {
        None => Vec::new(),
        Some(Value::Array(hosts)) => {
            hosts.iter().map(|host| host.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Some(_) => return None,
    };
    Some(Directive {
        url: part("url")?,
        auth_mode: part("auth_mode")?,
        auth_location: part("auth_location")?,
        auth_header: part("auth_header")?,
        query_param_name: part("query_param_name")?,
        auth_scheme: part("auth_scheme")?,
        // A list that can't be read must not become "any host".
        allowed_token_hosts: hosts,
        provider_token: match part("provider_token")? {
            none if none.is_empty() => None,
            token => Some(SecretText::new(token)),
        },
        provider_id: part("provider_id")?,
        connection_id: part("connection_id")?,
        forward_caracal_identity: match members.get("forward_caracal_identity") {
            None => false,
            Some(Value::Bool(forward)) => *forward,
            Some(_) => return None,
        },
        expires_at: match members.get("expires_at") {
            None => None,
            Some(Value::Number(seconds)) => Some(seconds.as_i64()?),
            Some(_) => return None,
        },
    })
}

fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// `application/json` or a `+json` type, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use caracal_authority::{Timestamp, ZoneId};
    use caracal_http::RequestId;

    use super::*;
    use crate::exchange::RefusalKind;

    fn request() -> ExchangeRequest {
        ExchangeRequest {
            zone: ZoneId::parse("zone-1").unwrap(),
            client: "app-1".parse().unwrap(),
            bearer: SecretText::new("aaa.bbb.ccc".to_owned()),
            jti: "jti-1".parse().unwrap(),
            expires_at: Timestamp::from_seconds(1),
            resource: "resource://demo".to_owned(),
            method: "POST".to_owned(),
            path: "/api/a b".to_owned(),
            request_id: RequestId::parse(b"req-123").unwrap(),
        }
    }

    /// The vector of gateway.md §11.1.
    #[test]
    fn the_form_is_the_contracts_to_the_byte() {
        assert_eq!(
            form(&request()).expose(),
            "application_id=app-1&gateway_request_id=req-123&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&request_method=POST&request_path=%2Fapi%2Fa+b&resource=resource%3A%2F%2Fdemo&subject_token=aaa.bbb.ccc&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&zone_id=zone-1"
        );
    }

    fn answer(status: u16, media_type: &str, body: &str) -> SimpleResponse {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap());
        let (status, body) = (StatusCode::from_u16(status).unwrap(), Bytes::copy_from_slice(body.as_bytes()));
        SimpleResponse { status, headers, body }
    }

    #[test]
    fn a_grant_is_taken_only_whole() {
        let body = r#"{"access_token":"t","upstreams":{"r":{"url":"https://u","auth_mode":"none"}}}"#;
        for media_type in ["application/json", "application/json; charset=utf-8", "application/vnd.x+json"] {
            let granted = understood(&answer(200, media_type, body), "r").unwrap_or_else(|_| panic!("{media_type}"));
            assert_eq!(granted.upstream.map(|made| made.url).as_deref(), Some("https://u"));
        }
        assert!(
            understood(&answer(200, "application/json", body), "other").is_ok_and(|granted| granted.upstream.is_none())
        );
        for (media_type, body) in [
            ("text/html", body),
            ("application/json", "{"),
            ("application/json", "[]"),
            ("application/json", r#"{"upstreams":{"r":{"url":"https://u"}}}"#),
            ("application/json", r#"{"access_token":""}"#),
            ("application/json", r#"{"access_token":7}"#),
            ("application/json", r#"{"access_token":"t","upstreams":{"r":"https://u"}}"#),
            ("application/json", r#"{"access_token":"t","upstreams":{"r":{"url":7}}}"#),
            ("application/json", r#"{"access_token":"t","upstreams":{"r":{"url":"u","allowed_token_hosts":"h"}}}"#),
            ("application/json", r#"{"access_token":"t","upstreams":{"r":{"url":"u","allowed_token_hosts":[7]}}}"#),
            ("application/json", r#"{"access_token":"t","upstreams":{"r":{"url":"u","forward_caracal_identity":1}}}"#),
        ] {
            let refused = understood(&answer(200, media_type, body), "r").map(|_| ()).unwrap_err();
            assert_eq!((refused.status, refused.kind), (StatusCode::BAD_GATEWAY, RefusalKind::Unavailable), "{body}");
            assert_eq!(refused.description, "sts response invalid", "{body}");
        }
    }

    #[test]
    fn refusals_keep_status_code_and_description_and_nothing_else() {
        for (status, body, code, description, kind) in [
            (
                403,
                r#"{"error":"access_denied","error_description":"policy denied","x":1}"#,
                "access_denied",
                "policy denied",
                RefusalKind::Denied,
            ),
            (
                401,
                r#"{"error":"invalid_token","error_description":"token replay detected"}"#,
                "invalid_token",
                REPLAYED,
                RefusalKind::Replayed,
            ),
            (401, r#"{"error":"invalid_token"}"#, "invalid_token", "", RefusalKind::Denied),
            (
                503,
                r#"{"error":"sts_unavailable","error_description":"d"}"#,
                "sts_unavailable",
                "d",
                RefusalKind::Unavailable,
            ),
            (500, "boom", "sts_unavailable", "Internal Server Error", RefusalKind::Unavailable),
            (502, r#"{"error":""}"#, "sts_unavailable", "Bad Gateway", RefusalKind::Unavailable),
        ] {
            let refused = understood(&answer(status, "application/json", body), "r").map(|_| ()).unwrap_err();
            let expected = (status, code.to_owned(), description.to_owned(), kind);
            assert_eq!((refused.status.as_u16(), refused.code, refused.description, refused.kind), expected, "{body}");
        }
        for status in [201, 204, 302, 307] {
            let refused = understood(&answer(status, "application/json", "{}"), "r").map(|_| ()).unwrap_err();
            assert!(refused.is_outage(), "{status}");
        }
    }

    #[test]
    fn an_sts_is_named_by_its_root() {
        let made = |url: &str| {
            let key = Arc::new(HmacKey::from_bytes(&[1; 32]).unwrap());
            let clock = Arc::new(caracal_store::SystemClock);
            RemoteSts::new(url, key, clock, TlsTrust::load(None), Duration::from_secs(1)).map(|_| ())
        };
        for url in ["http://127.0.0.1:8080", "https://sts.internal/", "http://sts:8080"] {
            assert!(made(url).is_ok(), "{url}");
        }
        for url in ["", "sts", "ftp://sts", "https://sts/path", "https://sts/?x=1", "https://u:p@sts"] {
            assert!(made(url).is_err(), "{url}");
        }
    }
}
