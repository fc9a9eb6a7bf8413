//! `/docs`: the description for people and for programs (contract: admin-api.md §12).
//!
//! The page is one document of our own words, without script and with nothing from elsewhere, and its policy says so to
//! the browser: whoever could put something into it could act with the token of whoever reads it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use caracal_crypto::encoding;
use caracal_crypto::hmac::sha256;
use caracal_http::Profile;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::document;
use crate::provider_connections::page::escaped;

static PAGE: LazyLock<String> = LazyLock::new(|| of(document()));

/// Nothing but the one style that is in the page, by its digest. Both alphabets of base64 are understood there.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = encoding::base64url(&sha256(STYLE.as_bytes()));
    let rest = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    HeaderValue::from_str(&format!("default-src 'none'; style-src 'sha256-{digest}='; {rest}"))
        .unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// `GET /docs/openapi.json`.
pub(crate) async fn as_json() -> Response {
    Profile::ADMIN.json(StatusCode::OK, document()).map(Body::new)
}

/// `GET /docs`.
pub(crate) async fn as_page() -> Response {
    let mut response = Response::new(Body::from(PAGE.as_str()));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

const STYLE: &str = "body{font:16px/1.5 system-ui;margin:2em auto;max-width:60em;padding:0 1em}\
summary{cursor:pointer;padding:.2em 0}code,pre{font-family:ui-monospace,monospace;font-size:.9em}\
pre{overflow:auto;background:#8881;padding:.6em}b.m{display:inline-block;min-width:4.5em}\
table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.15em .8em .15em 0}\
:root{color-scheme:light dark}";

fn of(document: &Value) -> String {
    let mut page = String::new();
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let (title, about) = (text(&document["info"]["title"]), text(&document["info"]["description"]));
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p>{about}</p><p>For programs: <a href=\"/docs/openapi.json\">/docs/openapi.json</a></p>"
    );
    let mut operations: Vec<(&str, &str, &Value)> = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        operations.extend(
            methods.as_object().into_iter().flatten().map(|(method, what)| (path.as_str(), method.as_str(), what)),
        );
    }
    operations.sort_by_key(|(path, _, what)| (what["tags"][0].as_str(), *path));
    let mut chapter = "";
    for (path, method, what) in operations {
        let tag = what["tags"][0].as_str().unwrap_or_default();
        if tag != chapter {
            chapter = tag;
            let _ = write!(page, "<h2>{}</h2>", escaped(&tag.replace('_', " ")));
        }
        write_operation(&mut page, path, method, what);
    }
    page.push_str("<h2>Schemas</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(
            page,
            "<details id=\"{0}\"><summary><code>{0}</code></summary>{1}</details>",
            escaped(name),
            pre(schema)
        );
    }
    page.push_str("</body></html>");
    page
}

fn write_operation(page: &mut String, path: &str, method: &str, what: &Value) {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let _ = write!(
        page,
        "<details><summary><b class=\"m\">{}</b> <code>{}</code> {}</summary><p>{}</p>",
        escaped(&method.to_ascii_uppercase()),
        escaped(path),
        text(&what["summary"]),
        text(&what["description"]),
    );
    if let Some(parameters) = what["parameters"].as_array() {
        page.push_str("<table><tr><th>Parameter</th><th>In</th><th>Schema</th></tr>");
        for parameter in parameters {
            let must = if parameter["required"] == true { "" } else { ", optional" };
            let _ = write!(
                page,
                "<tr><td><code>{}</code></td><td>{}{must}</td><td><code>{}</code></td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                escaped(&parameter["schema"].to_string()),
            );
        }
        page.push_str("</table>");
    }
    if let Some(body) = what.get("requestBody") {
        let must = if body["required"] == true { "" } else { " (may be left out)" };
        let _ = write!(page, "<h4>Body{must}</h4>{}", pre(&body["content"]["application/json"]["schema"]));
    }
    page.push_str("<h4>Answers</h4><table>");
    for (status, answer) in what["responses"].as_object().into_iter().flatten() {
        let shared = answer["$ref"].as_str().and_then(|name| document().pointer(name.trim_start_matches('#')));
        let _ = write!(page, "<tr><td>{}</td><td>{}</td></tr>", escaped(status), answers(shared.unwrap_or(answer)));
    }
    page.push_str("</table></details>");
}

/// The codes of a refusal, else what a success holds.
fn answers(answer: &Value) -> String {
    let mut kinds = answer["content"].as_object().into_iter().flatten().peekable();
    if kinds.peek().is_none() {
        return "nothing".to_owned();
    }
    let show = |(kind, content): (&String, &Value)| {
        let schema = &content["schema"];
        let codes = schema["allOf"][1]["properties"]["error"]["enum"].as_array();
        match codes {
            Some(codes) => {
                let names: Vec<String> = codes
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|code| format!("<code>{}</code>", escaped(code)))
                    .collect();
                names.join(", ")
            }
            None => format!("{} <code>{}</code>", escaped(kind), escaped(&schema.to_string())),
        }
    };
    kinds.map(show).collect::<Vec<_>>().join("<br>")
}

fn pre(value: &Value) -> String {
    format!("<pre>{}</pre>", escaped(&serde_json::to_string_pretty(value).unwrap_or_default()))
}
