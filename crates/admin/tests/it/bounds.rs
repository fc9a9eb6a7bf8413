//! Every bound that the description of a body states, overstepped by one at its place in a body that is good otherwise.

use std::collections::BTreeSet;

use caracal_admin::{AdminConfig, route_list};
use http::Method;
use serde_json::{Value, json};

use crate::edges::{filled, furnish};
use crate::hostile_bodies::{plausible, schema, send};
use crate::openapi;
use crate::world::{BOOTSTRAP, World};

/// One body that oversteps one bound.
struct Overstepped {
    bound: &'static str,
    /// Where, as `details.issues` names it.
    place: Vec<Value>,
    body: Value,
}

/// Every body that is `good` but for one bound of `schema`, which describes what is at `place`.
fn overstepped(schema: &'static Value, good: &Value, place: &[Value], found: &mut Vec<Overstepped>) {
    let schema = openapi::resolved(schema);
    if let Some(first) = schema["anyOf"].get(0).or_else(|| schema["allOf"].get(0)) {
        return overstepped(first, good, place, found);
    }
    let Some(value) = at(good, place) else { return };
    let mut inner: Vec<(&'static Value, Value)> = Vec::new();
    let mut step = |bound: &'static str, below: Option<Value>, wrong: Option<Value>| {
        let place: Vec<Value> = place.iter().cloned().chain(below).collect();
        let mut body = good.clone();
        match (wrong, place.split_last()) {
            (None, Some((name, parent))) => {
                at_mut(&mut body, parent).as_object_mut().unwrap().remove(name.as_str().unwrap());
            }
            (wrong, _) => *at_mut(&mut body, &place) = json!(wrong),
        }
        found.push(Overstepped { bound, place, body });
    };
    let count = |bound: &str| schema[bound].as_u64().and_then(|count| usize::try_from(count).ok());
    if value.is_string() {
        step("type", None, Some(json!(true)));
        if let Some(most) = count("maxLength") {
            step("maxLength", None, Some(json!("a".repeat(most + 1))));
        }
        if count("minLength").is_some_and(|least| least > 0) {
            step("minLength", None, Some(json!("")));
        }
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            step("enum", None, Some(json!("nobody-knows")));
        }
        step("U+0000", None, Some(json!("a\0b")));
    }
    if value.is_number() {
        step("type", None, Some(json!("1")));
        for (bound, by) in [("minimum", -1), ("maximum", 1)] {
            if let Some(end) = schema[bound].as_i64() {
                step(bound, None, Some(json!(end + by)));
            }
        }
    }
    if value.is_boolean() {
        step("type", None, Some(json!("true")));
    }
    if let Some(items) = value.as_array() {
        step("type", None, Some(json!({})));
        if let Some(most) = count("maxItems").filter(|most| *most < 10_000) {
            step("maxItems", None, Some(json!(vec![items[0].clone(); most + 1])));
        }
        if count("minItems").is_some_and(|least| least > 0) {
            step("minItems", None, Some(json!([])));
        }
        inner.push((&schema["items"], json!(0)));
    }
    if let Some(members) = value.as_object() {
        if !place.is_empty() {
            step("type", None, Some(json!([])));
        }
        if schema.get("additionalProperties") == Some(&json!(false)) {
            step("additionalProperties", Some(json!("nobody_knows")), Some(json!(1)));
        }
        // What a provider of each kind is set up with is judged kind by kind, under codes of its own (`providers.rs`).
        for name in members.keys().filter(|name| *name != "config_json") {
            if schema["required"].as_array().is_some_and(|names| names.contains(&json!(name))) {
                step("required", Some(json!(name)), None);
            }
            inner.push((&schema["properties"][name], json!(name)));
        }
    }
    for (schema, part) in inner {
        let place: Vec<Value> = place.iter().cloned().chain([part]).collect();
        overstepped(schema, good, &place, found);
    }
}

fn at<'v>(value: &'v Value, place: &[Value]) -> Option<&'v Value> {
    place.iter().try_fold(value, |value, part| match part {
        Value::String(name) => value.get(name),
        part => value.get(usize::try_from(part.as_u64()?).ok()?),
    })
}

fn at_mut<'v>(value: &'v mut Value, place: &[Value]) -> &'v mut Value {
    place.iter().fold(value, |value, part| match part {
        Value::String(name) => &mut value[name],
        part => &mut value[usize::try_from(part.as_u64().unwrap()).unwrap()],
    })
}

/// Whether a refusal says where: by path or, where a reader judges a whole object, by the name of that in words.
fn names(refusal: &Value, place: &[Value]) -> bool {
    if refusal["details"]["issues"][0]["path"] == json!(place) {
        return true;
    }
    let description = refusal["error_description"].as_str().unwrap_or_default();
    place[0].as_str().is_some_and(|name| description.starts_with(name))
}

#[test]
fn t01_control_plane_every_bound_that_is_described_is_held_at_its_place() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = AdminConfig { requests_per_minute: 0, auth_failures_per_minute: 0, ..AdminConfig::default() };
    let world = runtime.block_on(World::with(config));
    let mut here = runtime.block_on(furnish(&world, "here"));
    here.ids.insert("approvals", "0b9f7a9e-8f52-4a51-9d2c-ffffffffffff".to_owned());
    let (mut met, mut bounds) = (0, BTreeSet::new());
    let mut wrong = Vec::new();
    for route in route_list().into_iter().filter(|route| route.method != Method::GET) {
        let (Some(path), Some(schema)) = (filled(&route, &here.zone, &here), schema(&route)) else { continue };
        let mut bodies = Vec::new();
        overstepped(schema, &plausible(schema, "", &here), &[], &mut bodies);
        for Overstepped { bound, place, body } in bodies {
            let answer = runtime.block_on(send(&world, BOOTSTRAP, &route, &path, &body.to_string()));
            if answer.status.as_u16() != 400 || !names(&answer.json(), &place) {
                let text: String = answer.text.chars().take(300).collect();
                wrong.push(format!("{} {path}: {bound} of {}: {} {text}", route.method, json!(place), answer.status));
            }
            met += 1;
            bounds.insert(bound);
        }
    }
    assert!(wrong.is_empty(), "{} of {met}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(met > 300, "{met}");
    assert_eq!(bounds.len(), 11, "{bounds:?}");
}
