//! Answers that more than one route gives (contract: coordinator.md §1).

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use caracal_authority::Timestamp;
use caracal_http::idempotency::REPLAYED;
use caracal_http::{Problem, Profile};
use serde_json::{Value, json};

use crate::schema::Issues;

/// What an operation brought about, as it is told to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// 200, 201 or 204.
    pub(crate) status: StatusCode,
    /// The body; none for 204.
    pub(crate) body: Option<Value>,
    /// Whether this is what an earlier request under the same idempotency key brought about.
    pub(crate) replayed: bool,
}

impl Answer {
    /// 200 with a body.
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body), replayed: false }
    }

    /// 204.
    pub(crate) fn done() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, replayed: false }
    }

    /// 201 with a body.
    pub(crate) fn created(body: Value, replayed: bool) -> Self {
        Self { status: StatusCode::CREATED, body: Some(body), replayed }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match &self.body {
            None => self.status.into_response(),
            Some(body) => Profile::COORDINATOR.json(self.status, body).into_response(),
        };
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// A refusal that is a code and nothing else.
pub(crate) fn refusal(status: StatusCode, code: &'static str) -> Problem {
    Problem::new(status, code)
}

/// 400 `invalid_body` with everything that is wrong with it.
pub(crate) fn invalid_body(issues: &Issues) -> Problem {
    refusal(StatusCode::BAD_REQUEST, "invalid_body")
        .describe("the body does not match the schema")
        .member("details", json!({"issues": issues.to_json()}))
}

/// 400 `invalid_params`: an id in the path is none.
pub(crate) fn invalid_params() -> Problem {
    refusal(StatusCode::BAD_REQUEST, "invalid_params")
}

/// 400 `invalid_query`.
pub(crate) fn invalid_query() -> Problem {
    refusal(StatusCode::BAD_REQUEST, "invalid_query")
}

/// 404 in the form of the unknown route.
pub(crate) fn unknown_route() -> Problem {
    refusal(StatusCode::NOT_FOUND, "Not Found").member("message", "no such route").member("statusCode", 404)
}

/// An instant, or `null`.
pub(crate) fn instant(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| at.to_millis_text().into())
}

/// The parameters of a query string that have this name, decoded.
pub(crate) fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).collect()
}

/// The parameter of this name, if it is there; twice is 400 `invalid_query`.
pub(crate) fn query_value(query: Option<&str>, name: &str) -> Result<Option<String>, Problem> {
    let mut values = query_values(query, name).into_iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(invalid_query()),
    }
}
