//! A plain HTTP client: what an agent or an operator has, and nothing more.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::commands::Failure;

const MOST_BYTES: usize = 4 << 20;

/// Sends requests and reads whole answers.
pub(crate) struct HttpClient(Client<HttpConnector, Full<Bytes>>);

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The id under which evidence is found.
    pub(crate) fn request_id(&self) -> String {
        self.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The member `name`, as text.
    pub(crate) fn text(&self, name: &str) -> Result<String, Failure> {
        let found = self.json().get(name).and_then(Value::as_str).map(str::to_owned);
        found.ok_or_else(|| {
            Failure(format!("expected a member `{name}` in the answer {}: {}", self.status, self.shown()))
        })
    }

    /// Code and description of a refusal, in one line.
    pub(crate) fn reason(&self) -> String {
        let body = self.json();
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, description) = (text("error"), text("error_description"));
        match (code.is_empty(), description.is_empty()) {
            (true, _) => String::new(),
            (false, true) => code,
            (false, false) => format!("{code}: {description}"),
        }
    }

    /// The answer itself, if it is a success.
    pub(crate) fn expect_success(self, what: &str) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(Failure(format!("{what} was answered {} {}", self.status, self.shown())))
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(500).collect()
    }
}

impl HttpClient {
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "it asks the process beside it and the operator's own addresses")]
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// A request with a JSON body.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value)?);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        self.finish(request.body(Full::new(body))?).await
    }

    /// A form, as an OAuth client sends it.
    pub(crate) async fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.post_text_form(url, &[], caracal_http::form::encode(fields.iter().copied())).await
    }

    /// The same of a form that is written already.
    pub(crate) async fn post_text_form(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: String,
    ) -> Result<Answer, Failure> {
        let mut request = Request::post(url).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.finish(request.body(Full::new(Bytes::from(body)))?).await
    }

    async fn finish(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let response = self.0.request(request).await?;
        let (parts, body) = response.into_parts();
        let collected = Limited::new(body, MOST_BYTES).collect().await;
        let body = collected.map_err(|error| Failure(format!("an answer broke off: {error}")))?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}
