//! What somebody sees in their browser when they come back from a provider: one page of our own words, without script, and
//! with nothing of the outside in it but text.

use axum::body::Body;
use axum::response::Response;
use caracal_http::Problem;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Whether whoever asks wants a page rather than JSON.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named = |kind: &str, text: &str| text.to_ascii_lowercase().contains(kind);
    let all: Vec<&str> = kinds.by_ref().collect();
    all.iter().any(|text| named("text/html", text)) && !all.iter().any(|text| named("application/json", text))
}

/// The page of an outcome.
pub(crate) fn of(refused: Option<&Problem>) -> String {
    match refused {
        None => page("Connected", "The account is connected. You can close this window."),
        Some(problem) => {
            let code = problem.code().unwrap_or("error");
            let why = problem.description().unwrap_or("Nothing was connected.");
            page("Not connected", &format!("{} <code>{}</code>", escaped(why), escaped(code)))
        }
    }
}

/// The page in the place of the answer's body. An answer that says when to come back stays as it is.
pub(crate) fn dress(answer: Response, page: String) -> Response {
    if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return answer;
    }
    let mut dressed = Response::new(Body::from(page));
    *dressed.status_mut() = answer.status();
    let headers = dressed.headers_mut();
    headers.extend(answer.headers().clone());
    headers.remove(http::header::CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let nothing =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(nothing));
    dressed
}

fn page(title: &str, html: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px system-ui;margin:4em auto;max-width:36em;padding:0 1em}}code{{opacity:.6}}</style></head>\
         <body><h1>{title}</h1><p>{html}</p></body></html>"
    )
}

pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_browser_gets_a_page_and_a_program_gets_json() {
        for (accept, wanted) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("TEXT/HTML", true),
            ("text/html, application/json", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(is_wanted(&headers), wanted, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in "[<>&\"'a-z/=!-]{0,40}") {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "provider_oauth_denied").describe(text);
            let (shown, plain) = (of(Some(&problem)), of(Some(&Problem::new(StatusCode::BAD_REQUEST, "x").describe("y"))));
            let tags = |page: &str| page.matches('<').count() + page.matches('"').count();
            prop_assert_eq!(tags(&shown), tags(&plain));
        }
    }
}
