//! Somebody's browser comes back from a provider, or is sent to us by somebody else: what it shows is ours.

use http::{HeaderMap, Method};
use serde_json::json;

use crate::start;
use crate::support::{Addressed, Http};

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// Texts that become something else where a page does not say that they are texts.
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</p></body></html><h1>Connected</h1>",
    "<!--",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "\u{0}<b>\u{2028}\u{202e}",
    "<style>*{background:url(//elsewhere.example)}</style>",
];

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What holds for every page, whoever sent the browser here.
#[track_caller]
fn check(headers: &HeaderMap, page: &str) {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), Some("text/html; charset=utf-8"), "{page}");
    let policy = header("content-security-policy").unwrap();
    for directive in ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("script"), "{policy}");
    assert_eq!((header("cache-control"), header("x-content-type-options")), (Some("no-store"), Some("nosniff")));
    assert_eq!((header("set-cookie"), header("location"), header("access-control-allow-origin")), (None, None, None));
    // Every tag is one of ours, without anything in it; what is quoted is the language and the set of characters.
    let ours = [
        "!doctype html",
        "html lang=\"en\"",
        "head",
        "meta charset=\"utf-8\"",
        "title",
        "/title",
        "style",
        "/style",
        "/head",
        "body",
        "h1",
        "/h1",
        "p",
        "/p",
        "code",
        "/code",
        "/body",
        "/html",
    ];
    let tags: Vec<&str> = page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
    assert!(tags.iter().all(|tag| ours.contains(tag)), "{tags:?}");
    assert_eq!(tags.iter().filter(|tag| **tag == "h1").count(), 1, "{page}");
    assert_eq!(page.matches('"').count(), 4, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_browser_whoever_sends_a_browser_here_nothing_of_theirs_becomes_part_of_our_page() {
    let directory = tempfile::tempdir().unwrap();
    let (http, system) = (Http::new(), start(directory.path()));
    let (api, token) = (system.url("api"), system.admin_token());
    let post = async |path: &str, body| {
        let answer = http.json(Method::POST, &format!("{api}/v1/zones{path}"), &token, Some(body)).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {}", answer.json());
        answer
    };
    let zone = post("", json!({"name": "Browsers"})).await.text("id");
    let config = json!({
        "authorization_endpoint": "https://idp.example/authorize", "token_endpoint": "https://idp.example/token",
        "redirect_uri": "https://console.example/callback", "client_id": "files", "client_secret": "a-secret-of-ours",
    });
    let body = json!({"name": "files", "kind": "oauth2_authorization_code", "config_json": config});
    let provider = post(&format!("/{zone}/providers"), body).await.text("id");
    let begin = async || {
        let body = json!({"provider_id": provider, "subject_id": "user-1"});
        post(&format!("/{zone}/provider-connections/oauth/authorize"), body).await.text("state")
    };
    let back = async |query: &str, accept: &str| {
        let url = format!("{api}/v1/zones/{zone}/provider-connections/oauth/callback?{query}");
        http.send(Method::GET, &url, &[("accept", accept)], "").await.unwrap()
    };
    let mut pages = 0;
    for text in HOSTILE {
        let (state, hostile) = (begin().await, escaped(text));
        for query in [
            format!("state={hostile}&code={hostile}"),
            format!("state={hostile}&error={hostile}&error_description={hostile}"),
            format!("{hostile}={hostile}&error={hostile}"),
            // The last of them is the provider's own answer, and uses the state up.
            format!("state={state}&error={hostile}&error_description={hostile}"),
            format!("state={state}&error={hostile}&error_description={hostile}"),
            format!("state={state}&code={hostile}"),
        ] {
            let answer = back(&query, BROWSER).await;
            assert!(answer.status.is_client_error(), "{query}: {}", answer.status);
            let page = String::from_utf8(answer.body.clone()).unwrap();
            assert!(page.contains("<h1>Not connected</h1>"), "{page}");
            check(&answer.headers, &page);
            pages += 1;
        }
    }
    assert_eq!(pages, HOSTILE.len() * 6);
    // What was denied or made up has connected nobody, and a state that came back is spent.
    let state = begin().await;
    let first = back(&format!("state={state}&error=access_denied"), "application/json").await;
    let second = back(&format!("state={state}&code=a-code"), "application/json").await;
    assert_eq!(first.json()["error"], "provider_oauth_denied", "{}", first.json());
    assert!(second.status.is_client_error());
    assert_ne!(second.json()["error"], first.json()["error"]);
    assert!(second.headers["content-type"].to_str().unwrap().starts_with("application/json"));
    let listed = format!("{api}/v1/zones/{zone}/provider-connections?subject_id=user-1");
    let listed = http.json(Method::GET, &listed, &token, None).await.unwrap();
    assert_eq!(listed.json()["items"], json!([]), "{}", listed.json());
}
