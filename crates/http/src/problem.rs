//! The one error body of every service (contract: sts.md §1, gateway.md §18, admin-api.md §1.3, coordinator.md §1,
//! README D7 and D28).
//!
//! A handler only says *what* went wrong. It cannot forget the request's id or choose a content type, because it has
//! neither: the [`Face`](crate::Face) around the router knows both and renders the body on the way out.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::request_id::{self, RequestId};

/// What a caller is told to wait when nobody knows better (429 and 503 never go out without `Retry-After`).
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a service is called, and how it writes its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    service: &'static str,
    content_type: &'static str,
    newline: bool,
}

impl Profile {
    /// `application/json`, bodies end with a newline.
    pub const STS: Self = Self { service: "caracal-sts", content_type: "application/json", newline: true };
    /// As the STS.
    pub const GATEWAY: Self = Self { service: "caracal-gateway", ..Self::STS };
    /// As the STS.
    pub const AUDIT: Self = Self { service: "caracal-audit", ..Self::STS };
    /// `application/json; charset=utf-8`, no newline.
    pub const ADMIN: Self =
        Self { service: "caracal-api", content_type: "application/json; charset=utf-8", newline: false };
    /// As the Admin API.
    pub const COORDINATOR: Self = Self { service: "caracal-coordinator", ..Self::ADMIN };

    /// Every service that has a profile, by name.
    pub const SERVICES: [&'static str; 5] =
        [Self::ADMIN.service, Self::STS.service, Self::GATEWAY.service, Self::AUDIT.service, Self::COORDINATOR.service];

    /// The service's name in logs and traces.
    pub const fn service(self) -> &'static str {
        self.service
    }

    /// An answer with `body` as JSON, in this service's form.
    pub fn json<T: Serialize + ?Sized>(self, status: StatusCode, body: &T) -> http::Response<Full<Bytes>> {
        let (status, mut bytes) = match serde_json::to_vec(body) {
            Ok(bytes) => (status, bytes),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as json");
                (StatusCode::INTERNAL_SERVER_ERROR, br#"{"error":"internal_error"}"#.to_vec())
            }
        };
        if self.newline {
            bytes.push(b'\n');
        }
        let mut response = http::Response::new(Full::new(Bytes::from(bytes)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

/// A refusal on its way to the caller: status, stable code, and what else the contract puts in the body.
///
/// Everything in it may be read by the caller. Causes that only the operator should see belong in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: Option<Cow<'static, str>>,
    description: Option<String>,
    retry_after: Option<Duration>,
    members: Vec<(Cow<'static, str>, Value)>,
}

impl Problem {
    /// A refusal with the stable `code` of the contract.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some(code.into()), ..Self::uncoded(status) }
    }

    /// 500 `internal_error`: our fault, nothing more to say to the caller.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
    }

    /// 429 with the time after which the caller may try again.
    pub fn limited(code: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code).retry_after(retry_after)
    }

    /// A readiness body has no `error` member.
    pub(crate) fn uncoded(status: StatusCode) -> Self {
        Self { status, code: None, description: None, retry_after: None, members: Vec::new() }
    }

    /// Adds `error_description`: free prose for people.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds a member beside `error`. The envelope's own names (`error`, `error_description`, `requestId`,
    /// `request_id`) can't be replaced this way: such a member is left out.
    #[must_use]
    pub fn member(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        let name = name.into();
        let taken = matches!(&*name, "error" | "error_description" | "requestId" | "request_id");
        if !taken && !self.members.iter().any(|(known, _)| *known == name) {
            self.members.push((name, value.into()));
        }
        self
    }

    /// Sets `Retry-After`, rounded up to whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code, where there is one.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The prose for people, where there is any.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The finished answer. Handlers behind a [`Face`](crate::Face) return the problem itself instead.
    pub fn render(&self, id: &RequestId, profile: Profile) -> http::Response<Full<Bytes>> {
        let mut response = profile.json(self.status, &Envelope { problem: self, id });
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, id.to_header());
        let must_wait = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(wait) = self.retry_after.or(must_wait.then_some(DEFAULT_RETRY_AFTER)) {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response
    }
}

/// Leaves as status and extension; the body is written by the [`Face`](crate::Face), which knows id and profile.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

struct Envelope<'a> {
    problem: &'a Problem,
    id: &'a RequestId,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(code) = &self.problem.code {
            map.serialize_entry("error", code)?;
        }
        if let Some(description) = self.problem.description.as_deref().filter(|text| !text.is_empty()) {
            map.serialize_entry("error_description", description)?;
        }
        map.serialize_entry("requestId", self.id.as_str())?;
        map.serialize_entry("request_id", self.id.as_str())?;
        for (name, value) in &self.problem.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    async fn rendered(problem: Problem, profile: Profile) -> (http::HeaderMap, String) {
        let response = problem.render(&RequestId::parse(b"r-1").unwrap(), profile);
        assert_eq!(response.status(), problem.status());
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_service_has_its_content_type_and_line_end() {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "invalid_token").describe("missing bearer token");
        let (headers, body) = rendered(problem.clone(), Profile::STS).await;
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(headers["x-request-id"], "r-1");
        let expected = concat!(
            r#"{"error":"invalid_token","error_description":"missing bearer token","#,
            r#""requestId":"r-1","request_id":"r-1"}"#
        );
        assert_eq!(body, format!("{expected}\n"));
        let (headers, body) = rendered(problem, Profile::ADMIN).await;
        assert_eq!(headers[CONTENT_TYPE], "application/json; charset=utf-8");
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn members_stand_beside_the_envelope_and_never_replace_it() {
        let problem = Problem::new(StatusCode::CONFLICT, "approval_not_decidable")
            .member("state", "expired")
            .member("state", "again")
            .member("error", "forged")
            .member("requestId", "forged")
            .describe("");
        let (_, body) = rendered(problem, Profile::ADMIN).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let expected =
            json!({"error": "approval_not_decidable", "requestId": "r-1", "request_id": "r-1", "state": "expired"});
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn t08_availability_every_429_and_503_says_when_to_come_back() {
        for (problem, expected) in [
            (Problem::limited("rate_limited", Duration::from_millis(1500)), "2"),
            (Problem::limited("rate_limited", Duration::ZERO), "1"),
            (Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable"), "1"),
            (Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited"), "1"),
        ] {
            assert_eq!(rendered(problem, Profile::STS).await.0[RETRY_AFTER], expected);
        }
        assert!(rendered(Problem::internal(), Profile::STS).await.0.get(RETRY_AFTER).is_none());
    }
}
