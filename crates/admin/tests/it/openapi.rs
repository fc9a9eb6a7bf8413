//! The description of the API, held against what the API does.
//!
//! [`hold`] is called with every answer that any test of this suite gets: its status has to be described for its operation,
//! a refusal's code as well, and its body has to be what the description says. A body that was accepted has to be one that
//! the description allows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use caracal_admin::{AdminConfig, document, route_list};
use http::StatusCode;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// Holds one exchange against the description.
#[track_caller]
pub(crate) fn hold(method: &str, path: &str, sent: Option<&Value>, answer: &Answer) {
    let Some(operation) = find(method, path.split('?').next().unwrap_or_default()) else { return };
    let name = operation["operationId"].as_str().unwrap();
    let said = resolved(&operation["responses"][answer.status.as_str()]);
    assert!(said.is_object(), "{name}: {} is not described: {}", answer.status, answer.text);
    if let (Some(sent), true) = (sent, answer.status.is_success())
        && let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema")
    {
        let found = mismatch(schema, sent, "body");
        assert!(found.is_none(), "{name} accepts what is not described: {}: {sent}", found.unwrap_or_default());
    }
    let Some(kind) = answer.headers.get("content-type") else {
        assert!(said.get("content").is_none() || method == "HEAD", "{name}: no content type at {}", answer.status);
        return;
    };
    let kind = kind.to_str().unwrap().split(';').next().unwrap();
    let content = &said["content"][kind];
    // A browser that comes back from a provider is shown a page, whatever came of it.
    let is_page = kind == "text/html" && operation["responses"]["201"]["content"]["text/html"].is_object();
    assert!(content.is_object() || is_page, "{name}: {kind} is not described at {}", answer.status);
    if kind == "application/json" && method != "HEAD" {
        let found = mismatch(&content["schema"], &answer.json(), "answer");
        assert!(found.is_none(), "{name} at {}: {}: {}", answer.status, found.unwrap_or_default(), answer.text);
    }
}

/// What a reference leads to.
pub(crate) fn resolved(said: &'static Value) -> &'static Value {
    let Some(name) = said["$ref"].as_str() else { return said };
    document().pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} leads nowhere"))
}

/// The operation that a path leads to: the one with the fewest parameters.
fn find(method: &str, path: &str) -> Option<&'static Value> {
    let method = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
    let fits = |template: &str| {
        let rest = template.split('/').any(|part| part == "{tile}");
        let (known, asked): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
        let same = |(known, asked): (&&str, &&str)| known == asked || known.starts_with('{') && !asked.is_empty();
        (known.len() == asked.len() || rest && known.len() <= asked.len()) && known.iter().zip(&asked).all(same)
    };
    let paths = document()["paths"].as_object().unwrap();
    let fitting = paths.iter().filter(|(template, methods)| fits(template) && methods.get(&method).is_some());
    let (_, methods) = fitting.min_by_key(|(template, _)| template.matches('{').count())?;
    Some(&methods[&method])
}

/// Where and why `value` is not what `schema` says. Knows the words that the description uses; patterns are for those who
/// generate values from it, and are tried out there.
fn mismatch(schema: &'static Value, value: &Value, at: &str) -> Option<String> {
    let no = |what: String| Some(format!("{at}: {what}"));
    let schema = resolved(schema);
    if let Some(kind) = schema.get("type") {
        let kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind.clone()]);
        if !kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap())) {
            return no(format!("{value} is not {kind}"));
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return no(format!("{value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return no(format!("{value} is none of {}", schema["enum"]));
    }
    if let Some(choices) = schema["anyOf"].as_array()
        && choices.iter().all(|choice| mismatch(choice, value, at).is_some())
    {
        return mismatch(&choices[0], value, at);
    }
    if let Some(found) = schema["allOf"].as_array().into_iter().flatten().find_map(|part| mismatch(part, value, at)) {
        return Some(found);
    }
    if let Some(number) = value.as_f64() {
        let beyond =
            |bound: &str, is: fn(&f64, &f64) -> bool| schema[bound].as_f64().is_some_and(|end| is(&number, &end));
        if beyond("minimum", f64::lt) || beyond("maximum", f64::gt) {
            return no(format!("{value} is out of bounds"));
        }
    }
    // Lengths are counted after white space is gone where the description asks for some that is none.
    if let Some(text) = value.as_str() {
        let length = text.trim().chars().count() as u64;
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            return no("is too long".to_owned());
        }
    }
    if let Some(items) = value.as_array() {
        let size = items.len() as u64;
        let few = schema["minItems"].as_u64().is_some_and(|least| size < least);
        if few || schema["maxItems"].as_u64().is_some_and(|most| size > most) {
            return no(format!("{size} elements"));
        }
        return items.iter().find_map(|item| mismatch(&schema["items"], item, &format!("{at}[]")));
    }
    let members = value.as_object()?;
    let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = needed.into_iter().find(|name| !members.contains_key(*name)) {
        return no(format!("{missing} is missing"));
    }
    members.iter().find_map(|(name, member)| match schema["properties"].get(name) {
        Some(schema) => mismatch(schema, member, &format!("{at}.{name}")),
        None if schema.get("additionalProperties") == Some(&json!(false)) => no(format!("{name} is not described")),
        None => None,
    })
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

fn operations() -> Vec<(String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap().iter();
    let methods = |(path, methods): (&String, &'static Value)| {
        let path = path.clone();
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, what)| (format!("{} {path}", method.to_uppercase()), what))
    };
    paths.flat_map(methods).collect()
}

/// Every route of the table is described, under a name of its own, and nothing else is.
#[test]
fn every_route_is_described_once() {
    let described: BTreeSet<String> = operations().into_iter().map(|(name, _)| name).collect();
    let served = route_list().into_iter().map(|route| format!("{} {}", route.method, route.path.replace("{*", "{")));
    assert_eq!(described, served.collect());
    let names: BTreeSet<&str> = operations().iter().map(|(_, what)| what["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations().len());
}

/// Whoever has not the right token is told so by every operation that needs one, and the description says which.
#[test]
fn every_operation_that_needs_a_token_says_so() {
    for route in route_list() {
        let what = &document()["paths"][route.path.replace("{*", "{")][route.method.as_str().to_lowercase()];
        let needs = what["security"][0]["adminToken"][0].as_str();
        assert_eq!(needs.is_none(), route.is_public, "{}", route.path);
        assert_eq!(what["responses"].get("401").is_some(), !route.is_public, "{}", route.path);
    }
}

/// What a reader notes is what it reads: bounds, patterns, choices, members of lists, and whether others are refused.
#[test]
fn a_body_is_described_as_its_reader_reads_it() {
    let schema = |path: &str, method: &str| {
        document()["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    assert_eq!(
        schema("/v1/zones", "post"),
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 120, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"},
                "slug": {"type": "string", "minLength": 1, "maxLength": 2_000, "pattern": "^[a-z0-9-]+$"},
                "dcr_enabled": {"type": "boolean"},
            },
            "required": ["name"],
            "additionalProperties": false,
        })
    );
    let workload = schema("/v1/zones/{zone}/workloads/{id}", "put");
    let binding = &workload["properties"]["bindings"]["items"];
    assert_eq!(workload["properties"]["bindings"]["maxItems"], 64);
    assert_eq!(binding["required"], json!(["env", "resource"]));
    assert_eq!(binding["properties"]["on_failure"]["enum"], json!(["warn", "error"]));
    assert_eq!(binding["additionalProperties"], json!(false));
    assert_eq!(schema("/v1/admin-tokens", "post")["required"], json!(["name", "scope"]));
    assert_eq!(schema("/v1/zones/{zone}/resources", "post")["required"], json!(["scopes"]));
    assert_eq!(schema("/v1/zones/{zone}/grants", "post")["required"].as_array().unwrap().len(), 4);
    let life = &schema("/v1/zones/{zone}/applications/dcr", "post")["properties"]["expires_in"];
    assert_eq!((&life["minimum"], &life["maximum"]), (&json!(1), &json!(3_600)));
}

/// The readers of all bodies and queries run to their end on notes, so that nothing behind a refusal stays undescribed.
#[test]
fn every_reader_notes_all_that_it_reads() {
    let members = |path: &str, method: &str| {
        let what = &document()["paths"][path][method];
        let schema = &what["requestBody"]["content"]["application/json"]["schema"]["properties"];
        schema.as_object().map_or(0, serde_json::Map::len)
    };
    for (path, method, count) in [
        ("/v1/zones/{zone}", "patch", 6),
        ("/v1/zones/{zone}/applications", "post", 3),
        ("/v1/zones/{zone}/resources", "post", 9),
        ("/v1/zones/{zone}/providers", "post", 5),
        ("/v1/zones/{zone}/subject-issuers", "post", 3),
        ("/v1/zones/{zone}/provider-connections", "post", 5),
        ("/v1/zones/{zone}/notification-sinks", "post", 3),
        ("/v1/zones/{zone}/policy-sets/{id}/simulate", "post", 2),
        ("/v1/admin-tokens", "post", 5),
    ] {
        assert_eq!(members(path, method), count, "{method} {path}");
    }
    let parameters = |path: &str| {
        let parameters = document()["paths"][path]["get"]["parameters"].as_array().unwrap().iter();
        parameters.filter(|parameter| parameter["in"] == "query").count()
    };
    for (path, count) in [
        ("/v1/zones/{zone}/audit", 13),
        ("/v1/zones/{zone}/admin-audit", 10),
        ("/v1/zones/{zone}/sessions", 9),
        ("/v1/zones/{zone}/authority-records", 7),
        ("/v1/zones/{zone}/grants", 9),
        ("/v1/zones/{zone}/subjects", 4),
        ("/v1/zones/{zone}/provider-connections/oauth/callback", 4),
    ] {
        assert_eq!(parameters(path), count, "{path}");
    }
}

/// docs/schemas/caracal-admin-api.openapi.json is what the program serves; `cargo xtask codegen` rewrites it.
#[test]
fn the_committed_description_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas/caracal-admin-api.openapi.json");
    let fresh = format!("{}\n", in_lines(document(), 0));
    if std::env::var("CARACAL_CODEGEN").as_deref() == Ok("write") {
        fs::write(&path, fresh).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "{} is stale: run `cargo xtask codegen`", path.display());
}

/// A line for each operation and each schema: what changed is seen in the lines that did.
fn in_lines(value: &Value, depth: usize) -> String {
    match value.as_object() {
        Some(members) if depth < 3 && !members.is_empty() => {
            let indent = "  ".repeat(depth + 1);
            let line =
                |(name, member): (&String, &Value)| format!("{indent}{}: {}", json!(name), in_lines(member, depth + 1));
            let lines: Vec<String> = members.iter().map(line).collect();
            format!("{{\n{}\n{}}}", lines.join(",\n"), "  ".repeat(depth))
        }
        _ => value.to_string(),
    }
}

/// The page is served where it is switched on, to anybody, with nothing in it that a browser would run or fetch.
#[tokio::test]
async fn the_description_is_served_as_a_page_and_as_json() {
    let world = World::with(AdminConfig { docs: true, ..AdminConfig::default() }).await;
    let page = world.call_as(None, "GET", "/docs", None).await;
    assert_eq!(
        (page.status, page.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    for foreign in ["<script", "<link", "<img", "<iframe", "src=", "href=\"http", "@import", "url("] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
    for (name, _) in operations() {
        let (method, path) = name.split_once(' ').unwrap();
        assert!(page.text.contains(&format!("{method}</b> <code>{path}</code>")), "{name}");
    }
    let json = world.call_as(None, "GET", "/docs/openapi.json", None).await.is(200);
    assert_eq!(&json, document());
}

#[tokio::test]
async fn the_description_is_not_served_unless_it_is_switched_on() {
    let world = World::new().await;
    for path in ["/docs", "/docs/openapi.json"] {
        world.call_as(None, "GET", path, None).await.is_refused(404, "not_found");
    }
}
