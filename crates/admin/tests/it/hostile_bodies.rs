//! Documents that nobody meant, for every operation that takes one: made from the description of its body, with something
//! hostile in one place or in several. Whatever is sent, the service neither fails nor tells what is not the caller's, and what it
//! refuses has changed nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::LazyLock;

use caracal_admin::{AdminConfig, RouteInfo, document, route_list};
use http::Method;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::edges::{Furnished, filled, furnish};
use crate::openapi;
use crate::world::{Answer, BOOTSTRAP, EMPTY_GRANTS, World, request};

/// Enough for every operation to meet most of the hostile values; a few seconds.
const CASES: u32 = 700;

/// A private use character before a number stands for text that is no value.
const RAW: &str = "\u{e000}";

/// What a serialiser would not write.
static RAWS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
    vec![
        r#""\ud800""#.to_owned(),
        r#""\udc00\ud800x""#.to_owned(),
        r#"{"name":"a","name":"b"}"#.to_owned(),
        r#"{"\ud83d":1}"#.to_owned(),
        "1e400".to_owned(),
        "-0".to_owned(),
        "0123".to_owned(),
        "NaN".to_owned(),
        "18446744073709551616".to_owned(),
        "\"a\u{0}b\"".to_owned(),
        r#""\u0000""#.to_owned(),
        deep("[", "]"),
        deep("{\"a\":", "}"),
        "\u{feff}1".to_owned(),
        "/* */ 1".to_owned(),
    ]
});

#[derive(Debug, Clone)]
enum Hostile {
    Value(Value),
    /// The text of that number in [`RAWS`].
    Raw(Index),
    /// An id in the other zone.
    Foreign(Index),
    /// A member that nobody described, beside the place.
    Unknown(Value),
    /// The place is left out.
    Missing,
}

fn traps() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        " ",
        "\u{0}",
        "a\u{0}b",
        "a\r\nx: y",
        "\u{202e}gnp.exe",
        "\u{200b}",
        "\u{feff}Ops",
        "\u{fffd}\u{ffff}",
        "c\u{430}racal.sys/x",
        "\u{ff43}aracal.sys/x",
        "CARACAL.SYS/x",
        " caracal.sys/x",
        "caracal-sys-x",
        "caracal-sys://x",
        "provider://caracal-sys-x",
        "caracal-control",
        "caracal:shared",
        "ORG-0000-0000-0000",
        "../../admin-tokens",
        "%2e%2e%2f",
        "'; DROP TABLE zones; --",
        "%",
        "_",
        "http://169.254.169.254/latest/meta-data",
        "https://u:p@h/",
        "file:///etc/passwd",
        "https://[::1]:0/",
        "9999-12-31T23:59:60Z",
        "-271821-04-20T00:00:00Z",
        "null",
        "__proto__",
    ];
    prop_oneof![
        4 => prop::sample::select(texts.to_vec()).prop_map(|text| json!(text)),
        1 => any::<String>().prop_map(|text| json!(text)),
        1 => (1_usize..70_000).prop_map(|length| json!("\u{1f600}".repeat(length / 4))),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|value| json!(value)),
        prop::sample::select(vec![i64::MIN, -1, 0, 1, 2, i64::from(i32::MAX) + 1, i64::MAX]).prop_map(|n| json!(n)),
        Just(json!(u64::MAX)),
        prop::sample::select(vec![1.5, -0.0, 1e308, 5e-324]).prop_map(|number| json!(number)),
        traps(),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn hostile() -> impl Strategy<Value = Hostile> {
    prop_oneof![
        8 => values().prop_map(Hostile::Value),
        2 => any::<Index>().prop_map(Hostile::Raw),
        2 => any::<Index>().prop_map(Hostile::Foreign),
        2 => values().prop_map(Hostile::Unknown),
        2 => Just(Hostile::Missing),
    ]
}

/// What is sent to which operation.
#[derive(Debug, Clone)]
struct Attempt {
    operation: Index,
    wrongs: Vec<(Index, Hostile)>,
}

fn attempts() -> impl Strategy<Value = Attempt> {
    let wrongs = prop::collection::vec((any::<Index>(), hostile()), 0..4);
    (any::<Index>(), wrongs).prop_map(|(operation, wrongs)| Attempt { operation, wrongs })
}

/// The description of what an operation reads.
pub(crate) fn schema(route: &RouteInfo) -> Option<&'static Value> {
    let path = route.path.replace("{*", "{");
    let operation = &document()["paths"][path][route.method.as_str().to_lowercase()];
    operation.pointer("/requestBody/content/application~1json/schema").map(openapi::resolved)
}

/// A document that the operation may well accept.
pub(crate) fn plausible(schema: &'static Value, name: &str, of: &Furnished) -> Value {
    let schema = openapi::resolved(schema);
    if let Some(only) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return only.clone();
    }
    for choice in ["anyOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return plausible(first, name, of);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match kind.unwrap_or("object") {
        "boolean" => json!(false),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "array" => json!([plausible(&schema["items"], name, of)]),
        "object" => {
            let members = schema["properties"].as_object().into_iter().flatten();
            members.map(|(name, member)| (name.clone(), plausible(member, name, of))).collect()
        }
        "null" => Value::Null,
        _ => json!(text(schema, name, of)),
    }
}

fn text<'o>(schema: &Value, name: &str, of: &'o Furnished) -> &'o str {
    match name {
        "application_id" => &of.ids["applications"],
        "resource_id" => &of.ids["resources"],
        "provider_id" | "credential_provider_id" => &of.ids["providers"],
        "policy_version_id" => &of.document,
        "version_id" => &of.version,
        "zone_id" => &of.zone,
        "content" => EMPTY_GRANTS,
        "method" => "GET",
        "event_types" => "token_exchange",
        "path" => "/a",
        "client_secret" => "a-secret-of-more-than-32-characters",
        "identifier" => "resource://x",
        _ if name.contains("url") || name == "issuer" => "https://x.example/y",
        _ if schema["format"] == "date-time" => "2030-01-01T00:00:00Z",
        _ => "read",
    }
}

/// Every place in a document, the whole of it first.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

/// The document with what is wrong with it, and whether it has a member of the top that nobody described.
fn spoilt(mut sent: Value, wrongs: &[(Index, Hostile)], other: &[&str]) -> (Value, bool) {
    let mut has_unknown = false;
    for (place, wrong) in wrongs {
        let mut found = Vec::new();
        places(&sent, "", &mut found);
        let at = place.get(&found).clone();
        match wrong {
            Hostile::Missing => {
                let Some((parent, name)) = at.rsplit_once('/') else { continue };
                if let Some(Value::Object(members)) = sent.pointer_mut(parent) {
                    members.remove(name);
                }
            }
            Hostile::Unknown(value) => {
                if let Some(Value::Object(members)) = sent.pointer_mut(&at) {
                    members.insert("nobody_knows".to_owned(), value.clone());
                    has_unknown |= at.is_empty();
                }
            }
            Hostile::Value(value) => *sent.pointer_mut(&at).unwrap() = value.clone(),
            Hostile::Raw(number) => {
                *sent.pointer_mut(&at).unwrap() = json!(format!("{RAW}{}", number.index(RAWS.len())));
            }
            Hostile::Foreign(number) => *sent.pointer_mut(&at).unwrap() = json!(number.get(other)),
        }
    }
    let has_unknown = has_unknown && sent.get("nobody_knows").is_some();
    (sent, has_unknown)
}

fn serialised(sent: &Value) -> String {
    let mut text = sent.to_string();
    for (number, raw) in RAWS.iter().enumerate() {
        text = text.replace(&format!("\"{RAW}{number}\""), raw);
    }
    text
}

pub(crate) async fn send(world: &World, token: &str, route: &RouteInfo, path: &str, body: &str) -> Answer {
    let mut asked = request(Some(token), route.method.as_str(), path, None);
    asked.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *asked.body_mut() = body.to_owned().into();
    world.send(asked).await
}

#[test]
fn t01_control_plane_whatever_a_body_is_it_is_read_or_refused_and_a_refusal_changes_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = AdminConfig { requests_per_minute: 0, auth_failures_per_minute: 0, ..AdminConfig::default() };
    let world = runtime.block_on(World::with(config));
    let (mut here, there) = runtime.block_on(async { (furnish(&world, "here").await, furnish(&world, "there").await) });
    // Nobody waits for a decision, so one about an id of nothing is asked for.
    here.ids.insert("approvals", "0b9f7a9e-8f52-4a51-9d2c-ffffffffffff".to_owned());
    let own = runtime.block_on(world.mint("write", Some(&here.zone)));
    // What is on record of refusals is written behind their answers; from here on, not at all.
    runtime.block_on(world.records(None));
    let operations: Vec<(RouteInfo, String, &Value)> = route_list()
        .into_iter()
        .filter(|route| route.method != Method::GET)
        .filter_map(|route| Some((filled(&route, &here.zone, &here)?, schema(&route)?, route)))
        .map(|(path, schema, route)| (route, path, schema))
        .collect();
    assert!(operations.len() > 30, "{}", operations.len());
    let other: Vec<&str> = there.ids.values().map(String::as_str).chain([there.zone.as_str()]).collect();
    let (refused, accepted, told) = (Cell::new(0), Cell::new(0), RefCell::new(HashSet::<&str>::new()));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&attempts(), |attempt| {
        let (route, path, schema) = attempt.operation.get(&operations);
        let (sent, has_unknown) = spoilt(plausible(schema, "", &here), &attempt.wrongs, &other);
        let body = serialised(&sent);
        // Decisions need a token that may do nothing else; the bootstrap token may do both.
        let decides = path.ends_with("/approve") || path.ends_with("/reject");
        let token = if route.in_zone && !decides { &own } else { BOOTSTRAP };
        let before = world.store.changes();
        let answer = runtime.block_on(send(&world, token, route, path, &body));
        let shown: String = body.chars().take(300).collect();
        let shown = format!("{} {path} {shown}: {} {}", route.method, answer.status, answer.text);
        // A provider that can't be reached is 502, in words of ours.
        prop_assert!(answer.status.as_u16() != 500 && answer.status.as_u16() <= 502, "{}", shown);
        if answer.status.is_success() {
            accepted.set(accepted.get() + 1);
            prop_assert!(answer.status != 201 || world.store.changes() > before, "{}", shown);
            prop_assert!(!has_unknown || schema.get("additionalProperties") != Some(&json!(false)), "{}", shown);
            openapi::hold(route.method.as_str(), path, serde_json::from_str(&body).ok().as_ref(), &answer);
        } else {
            refused.set(refused.get() + 1);
            answer.refused();
            prop_assert_eq!(world.store.changes(), before, "{}", shown);
            prop_assert!(answer.text.len() < 8_192, "{}", shown);
        }
        for secret in &there.secrets {
            prop_assert!(!answer.text.contains(secret.as_str()), "{}", shown);
        }
        // What was sent itself is shown again, by later answers too: a name may be any text, and so an id of elsewhere.
        told.borrow_mut().extend(other.iter().copied().filter(|id| body.contains(id)));
        for id in &other {
            prop_assert!(told.borrow().contains(id) || !answer.text.contains(id), "{}", shown);
        }
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{found}");
    }
    assert!(refused.get() > CASES / 2 && accepted.get() > CASES / 20, "{refused:?} {accepted:?}");
    // All of the other zone is there still, and as it was made.
    for (collection, id) in &there.ids {
        let one = runtime.block_on(world.get(&format!("/v1/zones/{}/{collection}/{id}", there.zone)));
        one.is(200);
    }
}
