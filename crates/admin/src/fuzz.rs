//! What a browser brings back from a provider, or from wherever somebody has sent it: from the bytes of the query to the page that is
//! shown, without a store. What the fuzz target `admin/callback` drives, and the tests with its corpus.

use std::iter;

use axum::response::IntoResponse;
use caracal_http::Problem;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use crate::page::Query;
use crate::problem::Refusal;
use crate::provider_connections::callback::{LONGEST_EXPLANATION, Presented};
use crate::provider_connections::{authorize, page};

const ENTITIES: [(&str, &str); 5] = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];

/// Reads a query as the route does and holds what is made of it to the rules. Panics where one is broken.
pub fn callback(query: &[u8]) {
    let refusal = match Presented::read(&Query::parse(&String::from_utf8_lossy(query))) {
        Err(refusal) => {
            assert_eq!(refusal.problem.code(), Some("invalid_oauth_callback"), "there is one way to be no callback");
            assert_eq!(refusal.problem.status(), StatusCode::BAD_REQUEST);
            refusal
        }
        Ok(presented) => read(&presented),
    };
    shown(&refusal.problem);
}

/// What was read is within its bounds. What it comes to when nobody has begun it, or the provider says no.
fn read(presented: &Presented) -> Refusal {
    let state = presented.state.expose();
    assert!((32..=256).contains(&state.encode_utf16().count()), "{}", state.len());
    // This alone is looked for.
    let digest = authorize::digest_of(state);
    assert!(digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{digest}");
    let code = presented.code.as_ref().map(|code| code.expose().encode_utf16().count());
    assert!(code.is_none_or(|length| (1..=8_192).contains(&length)), "{code:?}");
    match &presented.denied {
        None => Refusal::invalid("oauth_state_expired").describe("begin again"),
        Some(explanation) => {
            assert!(explanation.chars().count() <= LONGEST_EXPLANATION && !explanation.chars().any(char::is_control));
            Refusal::invalid("provider_oauth_denied").describe(explanation.clone())
        }
    }
}

/// The page of a refusal: ours in every character, but for one text that is its description and has no markup.
#[allow(clippy::panic, reason = "what fuzzing drives fails by panicking")]
fn shown(problem: &Problem) {
    let page = page::of(Some(problem));
    let plain = page::of(Some(&Problem::new(StatusCode::BAD_REQUEST, "code").describe("text")));
    let frame = plain.split_once("text <code>code</code>");
    let (Some((before, after)), Some(code)) = (frame, problem.code()) else { panic!("no frame: {plain}") };
    let text = page.strip_prefix(before).and_then(|page| page.strip_suffix(after));
    let Some(text) = text.and_then(|text| text.strip_suffix(&format!(" <code>{code}</code>"))) else {
        panic!("something of the outside is where our words are: {page}")
    };
    assert!(!text.contains(['<', '>', '"', '\'']), "{text}");
    let entity = |at: usize| ENTITIES.iter().any(|(entity, _)| text.get(at..).unwrap_or_default().starts_with(entity));
    assert!(text.match_indices('&').all(|(at, _)| entity(at)), "{text}");
    let read = ENTITIES.iter().fold(text.to_owned(), |text, (entity, meant)| text.replace(entity, meant));
    assert_eq!(read, problem.description().unwrap_or("Nothing was connected."), "it says what was said");

    let answer = page::dress(problem.clone().into_response(), page);
    assert_eq!(answer.status(), problem.status());
    let names: Vec<_> = answer.headers().keys().collect();
    assert!(names.len() == 2 && names.iter().all(|name| [CONTENT_TYPE, CONTENT_SECURITY_POLICY].contains(name)));
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap_or_default();
    for denied in ["default-src", "base-uri", "form-action", "frame-ancestors"] {
        assert!(policy.split("; ").any(|part| part == format!("{denied} 'none'")), "{policy}");
    }
    assert!(!policy.contains("script-src"), "{policy}");
}

/// As many inputs as are asked for, each a few changes away from one of `seeds`; the same for the same number.
pub fn changed(seeds: &[Vec<u8>], number: u64) -> impl Iterator<Item = Vec<u8>> {
    const PIECES: [&[u8]; 16] = [
        b"%00",
        b"%3C",
        b"%22",
        b"%26lt%3B",
        b"&",
        b"=",
        b"&state=",
        b"&error=",
        b"%",
        b"%ff",
        b"+",
        b"<",
        b"'",
        b"\xf0\x9f",
        b"%E2%80%AE",
        b"%0D%0A",
    ];
    let mut state = number;
    let mut below = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default() % bound.max(1)
    };
    iter::repeat_with(move || {
        let mut input = seeds.get(below(seeds.len())).cloned().unwrap_or_default();
        for _ in 0..=below(4) {
            let at = below(input.len() + 1);
            match below(5) {
                0 => drop(input.splice(at..at, PIECES.get(below(16)).copied().unwrap_or_default().iter().copied())),
                1 => drop(input.drain(at..(at + below(8)).min(input.len()))),
                2 => input.truncate(at.max(1)),
                3 => input.extend_from_within(at..),
                _ => {
                    if let Some(byte) = input.get_mut(at) {
                        *byte ^= 1 << below(8);
                    }
                }
            }
        }
        input
    })
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    /// Every input that fuzzing begins with keeps the rules, and so does what lies near one.
    #[test]
    fn t13_browser_callback_the_corpus_and_what_lies_near_it_keep_every_rule() {
        let seeds = caracal_testkit::corpora::committed(env!("CARGO_MANIFEST_DIR"), "callback");
        assert!(seeds.len() >= 10, "{}", seeds.len());
        seeds.iter().for_each(|seed| super::callback(seed));
        let number = RandomState::new().hash_one("changes");
        println!("number {number}");
        super::changed(&seeds, number).take(5_000).for_each(|input| super::callback(&input));
    }
}
