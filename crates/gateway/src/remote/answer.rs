//! From what an STS in another process answers to what the Gateway understands (contract: gateway.md §11.2). Nothing
//! that is malformed grants anything, and nothing of it but status, code, text and time to wait reaches the caller.

use std::collections::HashMap;
use std::time::Duration;

use caracal_crypto::{Secret, SecretText};
use caracal_store::resources::CallLimits;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::exchange::{Directive, ExchangeRefusal, Permitted, RefusalKind};

/// Largest answer that is looked at.
const MOST_BYTES: usize = 16 * 1024;
/// Longest time to wait that is passed on.
const LONGEST_WAIT_SECONDS: u64 = 86_400;
/// What the STS says became of the mandate. Of one that does not say so, it is not known.
const DECISION: &str = "x-caracal-gateway-decision";

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    upstreams: HashMap<String, Upstream>,
}

/// The members of sts.md §10.1. Absent ones are empty.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Upstream {
    url: String,
    auth_mode: String,
    auth_location: String,
    auth_header: String,
    query_param_name: String,
    auth_scheme: String,
    allowed_token_hosts: Vec<String>,
    provider_token: Option<String>,
    provider_id: String,
    connection_id: String,
    forward_caracal_identity: bool,
    expires_at: Option<i64>,
    limits: CallLimits,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Reads an answer for `resource`.
pub(super) async fn read(response: Response<Incoming>, resource: &str) -> Result<Permitted, ExchangeRefusal> {
    let (head, body) = response.into_parts();
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let body = if declared.is_some_and(|length| length > MOST_BYTES) {
        None
    } else {
        collect(body, MOST_BYTES).await.map_err(|_| ExchangeRefusal::answer_lost())?
    };
    let json = body.filter(|_| is_json(&head.headers));
    let json = json.as_ref().map(|body| body.expose().as_slice());
    if head.status == StatusCode::OK { granted(json, resource) } else { Err(refused(head.status, &head.headers, json)) }
}

fn granted(json: Option<&[u8]>, resource: &str) -> Result<Permitted, ExchangeRefusal> {
    // It meant to grant, so it has decided: the mandate is as good as used up.
    let invalid = || ExchangeRefusal::unknown(StatusCode::BAD_GATEWAY, "sts response invalid");
    let Granted { access_token, mut upstreams } =
        json.and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(invalid)?;
    let access_token = Secret::new(access_token);
    if access_token.expose().is_empty() {
        return Err(invalid());
    }
    Ok(Permitted { access_token, upstream: upstreams.remove(resource).map(Directive::from) })
}

fn refused(status: StatusCode, headers: &HeaderMap, json: Option<&[u8]>) -> ExchangeRefusal {
    if status.is_success() || status.is_informational() {
        return ExchangeRefusal::unknown(StatusCode::BAD_GATEWAY, "sts response invalid");
    }
    let told: Option<Refused> = json.and_then(|json| serde_json::from_slice(json).ok());
    let Some(told) = told.filter(|told| !told.error.is_empty()) else {
        return ExchangeRefusal::unknown(status, status.canonical_reason().unwrap_or_default());
    };
    let kind = match headers.get(DECISION).map(|decision| decision.as_bytes()) {
        Some(b"denied") => RefusalKind::Denied,
        Some(b"replayed") => RefusalKind::Replayed,
        Some(b"none") => RefusalKind::Unavailable,
        _ => RefusalKind::Unknown,
    };
    let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    ExchangeRefusal {
        status,
        code: told.error,
        description: told.error_description,
        kind,
        retry_after: retry_after(headers).filter(|_| waits),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT_SECONDS)))
}

/// The whole body in a buffer that is wiped: it carries credentials. `None` when there is too much of it.
pub(super) async fn collect(mut body: Incoming, most_bytes: usize) -> Result<Option<Secret<Vec<u8>>>, hyper::Error> {
    // Room for all of it from the start: what outgrows its place leaves a copy behind that nobody wipes.
    let mut bytes = Vec::with_capacity(most_bytes);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                drop(Secret::new(bytes));
                return Err(error);
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > most_bytes {
            drop(Secret::new(bytes));
            return Ok(None);
        }
        bytes.extend_from_slice(data);
    }
    Ok(Some(Secret::new(bytes)))
}

/// `application/json` or `application/*+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

impl From<Upstream> for Directive {
    fn from(told: Upstream) -> Self {
        Self {
            url: told.url,
            auth_mode: told.auth_mode,
            auth_location: told.auth_location,
            auth_header: told.auth_header,
            query_param_name: told.query_param_name,
            auth_scheme: told.auth_scheme,
            allowed_token_hosts: told.allowed_token_hosts,
            provider_token: told.provider_token.map(SecretText::new),
            provider_id: told.provider_id,
            connection_id: told.connection_id,
            forward_caracal_identity: told.forward_caracal_identity,
            expires_at: told.expires_at,
            limits: told.limits,
        }
    }
}
