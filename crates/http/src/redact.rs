//! The one redactor (contract: audit-and-streams.md §11 and §8.1).
//!
//! It is the second line. The first is that secrets have a type that cannot be printed; this one is for what reaches a
//! log or an operator's screen as plain text all the same: an error quoting a URL, a caller's metadata. It works by key
//! and by value, and what it puts in place of a secret keeps a JSON text valid JSON.

use std::borrow::Cow;

use serde_json::Value;

/// What stands in a log where a secret stood.
pub const MASK: &str = "***";

/// Longest string in a log record unless configured otherwise (`CARACAL_LOG_MAX_FIELD_BYTES`), in bytes.
pub const DEFAULT_MAX_BYTES: usize = 8_192;

const TRUNCATED: &str = "…[truncated]";

/// Shorter strings hold no secret worth a search.
const MIN_BYTES: usize = 16;

/// Parts of a key, written without separators, that mark its value as a secret.
const SECRET_PARTS: [&str; 15] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "credential",
    "session",
    "assertion",
    "authorization",
    "cookie",
    "hmac",
    "signature",
];

/// Keys of identifiers that the rule above would hide although operators search for them. They name things and open
/// nothing; their values still pass the value patterns.
const IDENTIFIERS: [&str; 10] = [
    "session_id",
    "agent_session_id",
    "subject_session_id",
    "parent_session_id",
    "parent_agent_session_id",
    "approver_session_id",
    "admin_token_id",
    "token_type",
    "subject_token_type",
    "auth_mode",
];

/// What events of ours have under `credential`: which kind of secret was shown, never the secret.
const KINDS_OF_CREDENTIAL: [&str; 2] = ["application_client_secret", "workload_secret"];

/// Keys whose value is replaced in evidence that operators read, whatever it is: those of the contract, and `bearer_token`, which
/// records of changes know. A key is one of them however its words are put together. Any other key that would mark a secret in
/// a log marks one there, too.
const EVIDENCE_KEYS: [&str; 18] = [
    "password",
    "passwd",
    "secret",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "set_cookie",
    "client_secret",
    "private_key",
    "session",
    "session_id",
    "assertion",
    "bearer_token",
];

/// Members of a management request whose value is a secret: records of a change leave out their names, and say that a secret
/// was changed (contract: audit-and-streams.md §3.4).
const SECRET_MEMBERS: [&str; 10] = [
    "client_secret",
    "secret",
    "password",
    "token",
    "private_key",
    "api_key",
    "assertion",
    "bearer_token",
    "access_token",
    "refresh_token",
];

/// Parts of a query parameter's name that mark its value as a secret.
const SECRET_PARAMETERS: [&str; 9] =
    ["api_key", "apikey", "api-key", "token", "secret", "password", "signature", "access_key", "auth"];

/// Whether a log field of this name holds a secret, whatever its value looks like.
pub fn is_secret_key(key: &str) -> bool {
    if IDENTIFIERS.iter().any(|identifier| key.eq_ignore_ascii_case(identifier)) {
        return false;
    }
    let plain = plain(key);
    let is_auth = |word: &str| word.eq_ignore_ascii_case("auth");
    SECRET_PARTS.iter().any(|part| plain.contains(part)) || key.split(|c: char| !c.is_alphanumeric()).any(is_auth)
}

/// A key without its separators and its case.
fn plain(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether evidence hides from operators what stands under this key. Of keys that only look like a secret's, numbers are
/// counts and pass.
fn is_hidden_in_evidence(key: &str, value: &Value) -> bool {
    let is_kind = key == "credential" && value.as_str().is_some_and(|kind| KINDS_OF_CREDENTIAL.contains(&kind));
    let holds_text = matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_));
    is_of_the_contracts_list(key) || is_secret_key(key) && holds_text && !is_kind
}

fn is_of_the_contracts_list(key: &str) -> bool {
    let letters = || key.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    EVIDENCE_KEYS.iter().any(|hidden| letters().eq(hidden.bytes().filter(|byte| *byte != b'_')))
}

/// Whether a member of a management request of this name holds a secret.
pub fn is_secret_member(name: &str) -> bool {
    SECRET_MEMBERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// A log field: masked by key, else by value, then cut to `max_bytes` (0 means uncut).
pub fn field<'a>(key: &str, value: &'a str, max_bytes: usize) -> Cow<'a, str> {
    if is_secret_key(key) { Cow::Borrowed(MASK) } else { capped(text(value), max_bytes) }
}

/// Every member and string of a log record, at any depth.
pub fn record(value: &mut Value, max_bytes: usize) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if is_secret_key(key) {
                    *member = Value::from(MASK);
                } else {
                    record(member, max_bytes);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| record(item, max_bytes)),
        Value::String(string) => {
            if let Cow::Owned(redacted) = capped(text(string), max_bytes) {
                *string = redacted;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Evidence on its way to an operator, as JSON or in an export: members whose key is one of the contract's list, or would mark a
/// secret in a log, become `"[redacted]"`, at any depth, and what looks like a secret in any other text is masked as in a log. A client may have put
/// one into an event of its own. Whoever needs the event as it is hashed asks the audit service.
pub fn evidence(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if is_hidden_in_evidence(key, member) {
                    *member = Value::from("[redacted]");
                } else {
                    evidence(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(evidence),
        Value::String(string) => {
            if let Cow::Owned(redacted) = text(string) {
                *string = redacted;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Masks what looks like a secret in free text or in one line of JSON, which stays valid JSON: no pattern reaches
/// across a quote or swallows half an escape.
pub fn text(input: &str) -> Cow<'_, str> {
    if input.len() < MIN_BYTES {
        return Cow::Borrowed(input);
    }
    let mut scan = Scan { text: input.as_bytes(), no_jwt_before: 0 };
    let mut output = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < input.len() {
        match scan.secret_at(at) {
            Some(found) => {
                output.push_str(&input[copied..found.keep_to]);
                output.push_str(found.mask);
                copied = found.end;
                at = found.end.max(at + 1);
            }
            None => at += 1,
        }
    }
    if copied == 0 && output.is_empty() {
        return Cow::Borrowed(input);
    }
    output.push_str(&input[copied..]);
    Cow::Owned(output)
}

fn capped(text: Cow<'_, str>, max_bytes: usize) -> Cow<'_, str> {
    if max_bytes == 0 || text.len() <= max_bytes {
        return text;
    }
    Cow::Owned(format!("{}{TRUNCATED}", &text[..text.floor_char_boundary(max_bytes)]))
}

/// A secret in a text: everything from `keep_to` up to `end` is replaced by `mask`.
struct Found {
    keep_to: usize,
    end: usize,
    mask: &'static str,
}

/// One pass over a text. Every pattern consists of ASCII, so every boundary it finds is one between characters; every
/// attempt is bounded or consumes what it read, so the pass is linear.
struct Scan<'a> {
    text: &'a [u8],
    no_jwt_before: usize,
}

impl Scan<'_> {
    fn secret_at(&mut self, at: usize) -> Option<Found> {
        let found = match self.text[at] {
            b'-' => self.pem(at),
            b'b' | b'B' => return self.bearer(at),
            b'e' => self.jwt(at),
            b'A' => self.cloud_key(at),
            b'g' => self.forge_token(at),
            b'x' => self.chat_token(at),
            b'c' | b'w' | b'n' => self.own_token(at),
            _ => None,
        };
        if let Some(end) = found {
            return Some(Found { keep_to: at, end, mask: MASK });
        }
        self.parameter(at)
    }

    /// A private-key block, whole or cut off: up to its end marker, else up to whatever cannot be part of one.
    fn pem(&self, at: usize) -> Option<usize> {
        let rest = &self.text[at..];
        let label = rest.strip_prefix(b"-----BEGIN ")?;
        let label_end = label.iter().take(64).position(|byte| *byte == b'-')?;
        if !label[..label_end].ends_with(b"PRIVATE KEY") || !label[label_end..].starts_with(b"-----") {
            return None;
        }
        let mut end = at + rest.len() - label.len() + label_end + 5;
        while end < self.text.len() {
            if self.text[end..].starts_with(b"-----END ") {
                let tail = &self.text[end + 9..];
                let close = tail.iter().take(64).position(|byte| *byte == b'-').unwrap_or(0);
                return Some(end + 9 + close + if tail[close..].starts_with(b"-----") { 5 } else { 0 });
            }
            match self.text[end] {
                // Inside JSON the line breaks of the block are escapes.
                b'\\' if self.text.get(end + 1).is_some_and(|next| matches!(next, b'n' | b'r' | b't' | b'/')) => {
                    end += 2
                }
                byte if byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() => end += 1,
                // Legacy blocks begin with headers (`Proc-Type: 4,ENCRYPTED`).
                b'+' | b'/' | b'=' | b':' | b',' | b'-' => end += 1,
                _ => break,
            }
        }
        Some(end)
    }

    fn bearer(&self, at: usize) -> Option<Found> {
        let rest = &self.text[at..];
        if !rest.get(..6)?.eq_ignore_ascii_case(b"bearer") {
            return None;
        }
        let gap = run(&rest[6..], |byte| byte == b' ' || byte == b'\t');
        let token = run(&rest[6 + gap..], |byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
        (gap > 0 && token >= 8).then_some(Found { keep_to: at, end: at + 6 + gap + token, mask: "Bearer ***" })
    }

    /// Three parts of at least eight characters, and whatever parts follow (an encrypted token has five).
    fn jwt(&mut self, at: usize) -> Option<usize> {
        if at < self.no_jwt_before || !self.text[at..].starts_with(b"eyJ") {
            return None;
        }
        let (mut end, mut parts) = (at, 0);
        loop {
            let part = run(&self.text[end..], is_base64url);
            if part < 8 {
                break;
            }
            parts += 1;
            if parts == 1 {
                // Any other start within this run would end at the same place and fail for the same reason.
                self.no_jwt_before = end + part;
            }
            end += part;
            if parts >= 3 && run(self.text.get(end + 1..).unwrap_or_default(), is_base64url) < 8 {
                return Some(end);
            }
            if self.text.get(end) != Some(&b'.') {
                return (parts >= 3).then_some(end);
            }
            end += 1;
        }
        None
    }

    /// `AKIA…`, `ASIA…` and `AIza…`.
    fn cloud_key(&self, at: usize) -> Option<usize> {
        let rest = &self.text[at..];
        let (length, fits): (usize, fn(u8) -> bool) = match rest.get(..4)? {
            b"AKIA" | b"ASIA" => (16, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()),
            b"AIza" => (35, is_base64url),
            _ => return None,
        };
        let whole = rest.get(4..4 + length)?.iter().all(|byte| fits(*byte));
        whole.then_some(at + 4 + length)
    }

    /// `ghp_…` and its siblings.
    fn forge_token(&self, at: usize) -> Option<usize> {
        let rest = &self.text[at..];
        if !rest.starts_with(b"gh")
            || !matches!(rest.get(2)?, b'p' | b'o' | b'u' | b's' | b'r')
            || rest.get(3)? != &b'_'
        {
            return None;
        }
        let body = run(rest[4..].get(..255).unwrap_or(&rest[4..]), |byte| byte.is_ascii_alphanumeric());
        (body >= 36).then_some(at + 4 + body)
    }

    /// `xoxb-…` and its siblings.
    fn chat_token(&self, at: usize) -> Option<usize> {
        let rest = &self.text[at..];
        if !rest.starts_with(b"xox") || !b"abprs".contains(rest.get(3)?) || rest.get(4)? != &b'-' {
            return None;
        }
        let body = run(&rest[5..], |byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (body >= 10).then_some(at + 5 + body)
    }

    /// This system's own: client (`cs_`) and workload (`ws_`) secrets, admin tokens (`cat_`), webhook keys (`nsk_`).
    fn own_token(&self, at: usize) -> Option<usize> {
        if at > 0 && is_base64url(self.text[at - 1]) {
            return None;
        }
        let rest = &self.text[at..];
        let prefix = [&b"cs_"[..], b"ws_", b"cat_", b"nsk_"].into_iter().find(|prefix| rest.starts_with(prefix))?;
        let body = run(&rest[prefix.len()..], is_base64url);
        (body >= 32).then_some(at + prefix.len() + body)
    }

    /// `name=value` at the start of a word or behind `?` or `&`: the name stays.
    fn parameter(&self, at: usize) -> Option<Found> {
        let begins = at == 0 || !is_name(self.text[at - 1]);
        if !begins || !is_name(self.text[at]) {
            return None;
        }
        let name = run(self.text[at..].get(..64).unwrap_or(&self.text[at..]), is_name);
        if self.text.get(at + name) != Some(&b'=') {
            return None;
        }
        let lower = self.text[at..at + name].to_ascii_lowercase();
        let holds = |part: &str| lower.windows(part.len()).any(|window| window == part.as_bytes());
        if !SECRET_PARAMETERS.iter().any(|part| holds(part)) {
            return None;
        }
        let value_at = at + name + 1;
        let value = run(&self.text[value_at..], |byte| {
            !byte.is_ascii_whitespace() && !byte.is_ascii_control() && !b"&#\"'<>\\;,)]}".contains(&byte)
        });
        (value > 0).then_some(Found { keep_to: value_at, end: value_at + value, mask: MASK })
    }
}

fn run(text: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !fits(*byte)).unwrap_or(text.len())
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.%[]".contains(&byte)
}

#[cfg(test)]
mod t05_secrets {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhcHAifQ.c2lnbmF0dXJlLWJ5dGVz";

    #[test]
    fn secrets_are_masked_by_what_they_look_like() {
        let jwe = format!("{JWT}.YWJjZGVmZ2g.aWprbG1ub3A");
        for (input, expected) in [
            ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
            ("bearer  abcdefgh1234, next", "Bearer ***, next"),
            (&format!("got {JWT} here"), "got *** here"),
            (&format!("got {jwe}."), "got ***."),
            ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
            ("key ASIAIOSFODNN7EXAMPLE used", "key *** used"),
            ("key AIzaSyA-1234567890_abcdefghijklmnopqrst used", "key *** used"),
            (&format!("ghp_{} x", "a1".repeat(18)), "*** x"),
            ("xoxb-1234567890-abc rest of it", "*** rest of it"),
            (&format!("secret cs_{}", "aB-_".repeat(10)), "secret ***"),
            (&format!("token cat_{} end", "aB-_".repeat(10)), "token *** end"),
            (&format!("nsk_{}", "0".repeat(48)), "***"),
            ("https://h/p?api_key=sk-live-abc123def456&x=1", "https://h/p?api_key=***&x=1"),
            ("GET /p?a=1&X-Amz-Signature=abc#frag", "GET /p?a=1&X-Amz-Signature=***#frag"),
            ("body was client_secret=hunter2&b=c", "body was client_secret=***&b=c"),
            ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQ==\n-----END EC PRIVATE KEY----- x", "*** x"),
            ("-----BEGIN PRIVATE KEY-----\nMHcCAQ", "***"),
        ] {
            assert_eq!(text(input), expected, "{input}");
        }
    }

    #[test]
    fn ordinary_text_is_left_alone_and_not_copied() {
        for input in [
            "https://h/p?model=x&limit=100",
            "bearer of bad news",
            "eyJhbGciOiJFUzI1NiJ9 alone",
            "eyJhbGciOiJFUzI1NiJ9.short.eyJzdWIiOiJhcHAifQ",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "AKIA-not-a-key-at-all-here",
            "docs_and_news_ws_short_things",
            "token=x",
            "grüße an alle, überall",
        ] {
            assert!(matches!(text(input), Cow::Borrowed(same) if same == input), "{input}");
        }
    }

    #[test]
    fn secrets_are_masked_by_key_and_identifiers_are_not() {
        for key in [
            "password",
            "Passwd",
            "client_secret",
            "clientSecret",
            "access_token",
            "apiKey",
            "api-key",
            "x_api_key",
            "private_key",
            "privateKey",
            "signing_key",
            "encryption-key",
            "credentials",
            "session",
            "session_cookie",
            "client_assertion",
            "Authorization",
            "Set-Cookie",
            "set_cookie",
            "hmac",
            "signature",
            "auth",
            "proxy-auth",
            "AUTH",
        ] {
            assert!(is_secret_key(key), "{key}");
            assert_eq!(field(key, "x", 0), MASK, "{key}");
        }
        for key in ["author", "oauth2", "zone_id", "session_id", "agent_session_id", "Session_ID", "key", "path", "sid"]
        {
            assert!(!is_secret_key(key), "{key}");
        }
        assert_eq!(field("session_id", JWT, 0), MASK);
    }

    #[test]
    fn records_are_redacted_at_any_depth() {
        let mut log = json!({
            "msg": format!("refused {JWT}"), "token": {"nested": 1}, "n": 1,
            "list": [{"cookie": "c"}, "https://h/p?token=abcdef"], "agent_session_id": "s-1",
        });
        record(&mut log, 0);
        let expected = json!({
            "msg": "refused ***", "token": "***", "n": 1,
            "list": [{"cookie": "***"}, "https://h/p?token=***"], "agent_session_id": "s-1",
        });
        assert_eq!(log, expected);
    }

    #[test]
    fn evidence_hides_the_contracts_keys_and_what_looks_like_a_secret() {
        let mut shown =
            json!({"a": {"Session_ID": "s", "tokens": 1, "session_ids": 2}, "list": [{"api_key": [1]}], "x": JWT});
        evidence(&mut shown);
        let expected = json!({"a": {"Session_ID": "[redacted]", "tokens": 1, "session_ids": 2}, "list": [{"api_key": "[redacted]"}], "x": "***"});
        assert_eq!(shown, expected);
    }

    /// What a client calls its secrets is not on anybody's list.
    #[test]
    fn evidence_hides_what_a_log_would_hide() {
        for key in [
            "db_password",
            "signing_key",
            "x_session_token",
            "hmac",
            "webhookSecret",
            "private-key-pem",
            "x-auth",
            "cookies",
            "credentials",
            "signature",
        ] {
            let text = json!("hunter2");
            for value in [json!(["hunter2"]), json!({"value": "hunter2"}), text] {
                let mut shown = json!({"details": {key: value}});
                evidence(&mut shown);
                assert_eq!(shown, json!({"details": {key: "[redacted]"}}));
                let mut logged = json!({key: "hunter2"});
                record(&mut logged, 0);
                assert_eq!(logged, json!({key: MASK}));
            }
        }
        let mut kind = json!([{"credential": "workload_secret"}, {"credential": "hunter2"}]);
        evidence(&mut kind);
        assert_eq!(kind, json!([{"credential": "workload_secret"}, {"credential": "[redacted]"}]));
    }

    /// One rule: what operators do not see of evidence is in no log, and what a record of a change leaves out is in neither. A
    /// record's id is the one thing that a log may say: it opens nothing, and logs are searched by it.
    #[test]
    fn what_is_hidden_in_one_place_is_hidden_in_every_other() {
        for key in EVIDENCE_KEYS.iter().filter(|key| **key != "session_id") {
            assert!(is_secret_key(key), "{key} in logs");
        }
        for key in SECRET_MEMBERS {
            assert!(is_secret_key(key) && is_of_the_contracts_list(key), "{key}");
        }
        for key in ["Set-Cookie", "apiKey", "API-KEY", "accessToken", "client-secret", "sessionId", "Bearer_Token"] {
            let mut shown = json!({key: "opaque"});
            evidence(&mut shown);
            assert_eq!(shown, json!({key: "[redacted]"}));
        }
        let mut shown =
            json!({"tokens": 1, "resource": "resource://token", "agent_session_id": "s-1", "auth_mode": "x"});
        let before = shown.clone();
        evidence(&mut shown);
        assert_eq!(shown, before);
    }

    #[test]
    fn a_secret_is_masked_before_it_is_cut_in_half() {
        let value = format!("{}{JWT}", "a ".repeat(10));
        assert_eq!(field("msg", &value, 24), "a a a a a a a a a a ***");
        assert_eq!(field("msg", "ääääääääää", 5), "ää…[truncated]");
        assert_eq!(field("msg", "short", 5), "short");
    }

    #[test]
    fn a_json_line_stays_json() {
        let line = json!({
            "a": "-----BEGIN PRIVATE KEY-----\nMHcCAQ==\n-----END PRIVATE KEY-----\n", "b": "-----BEGIN PRIVATE KEY-----\nMHc",
            "c": format!("Bearer {JWT}"), "d": "x?password=a\"b\\", "e": "password=\u{1}",
        })
        .to_string();
        let redacted: Value = serde_json::from_str(&text(&line)).unwrap();
        assert_eq!((&redacted["a"], &redacted["b"]), (&json!("***\n"), &json!("***")));
        assert_eq!(redacted["c"], "Bearer ***");
        assert!(redacted["d"].as_str().unwrap().starts_with("x?password=***"));
    }

    #[test]
    fn t08_availability_hostile_text_is_scanned_in_linear_time() {
        let started = Instant::now();
        for unit in [
            "eyJ",
            "eyJaaaaaaaa.",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "bearer ",
            "bearer\t",
            "cs_",
            "token",
            "xoxb-a",
        ] {
            text(&unit.repeat(1_000_000 / unit.len()));
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn any_json_stays_json(strings in prop::collection::vec(
            r#"(bearer |eyJ|-----BEGIN PRIVATE KEY-----|-----END PRIVATE KEY-----|\?token=|["\\\n a-zä=&.-]){0,12}"#, 1..4,
        )) {
            let line = serde_json::to_string(&strings).unwrap();
            let redacted: Result<Vec<String>, _> = serde_json::from_str(&text(&line));
            prop_assert_eq!(redacted.map(|list| list.len()).ok(), Some(strings.len()), "{}", line);
        }

        #[test]
        fn a_token_never_survives(before in "[a-z ?&=\"{}:]{0,20}", after in "[ \"&}]{1,10}") {
            let redacted = text(&format!("{before}{JWT}{after}")).into_owned();
            prop_assert!(!redacted.contains("eyJzdWIi"), "{}", redacted);
        }
    }
}
