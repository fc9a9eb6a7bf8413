//! Requests by chance: every shape of policy.md §4.1 and what lies just beside each, as JSON.

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::zones::{APPLICATIONS, Known, LABELS, RESOURCES, Zone, scope, scopes};

/// An input, and whether it is sent by a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) input: Value,
    pub(crate) simulated: bool,
}

pub(crate) fn request(chance: &mut Chance, zone: &Zone) -> Request {
    let aim = Aim::of(chance, zone);
    let mut input = match chance.weighted(&[10, 46, 12, 26, 6]) {
        0 => bootstrap(chance, &aim),
        1 => mint(chance, &aim),
        2 => workload(chance, &aim),
        3 => presented(chance, &aim),
        _ => shapeless(chance, &aim),
    };
    for _ in 0..chance.weighted(&[78, 17, 5]) {
        bend(chance, &mut input);
    }
    let simulated = chance.percent(15);
    if simulated {
        loosen(chance, &mut input);
    }
    Request { input, simulated }
}

/// What the request is about. Mostly it fits the zone.
struct Aim {
    resource: String,
    application: String,
    labels: Vec<String>,
    wanted: Vec<String>,
    edge: Vec<String>,
}

impl Aim {
    fn of(chance: &mut Chance, zone: &Zone) -> Self {
        let known = (!zone.known.is_empty() && chance.percent(88)).then(|| chance.pick(&zone.known).clone());
        let known = known.unwrap_or_else(|| Known {
            resource: (*chance.pick(RESOURCES)).to_owned(),
            application: (*chance.pick(APPLICATIONS)).to_owned(),
            roles: Vec::new(),
        });
        let fitting = chance.percent(85);
        let application = if chance.percent(90) { known.application } else { (*chance.pick(APPLICATIONS)).to_owned() };
        let role = (fitting && !known.roles.is_empty()).then(|| chance.pick(&known.roles).clone());
        let (mut labels, mut wanted) = match role {
            Some((label, held)) if !held.is_empty() => {
                let wanted = (0..=chance.below(3)).map(|_| chance.pick(&held).clone()).collect();
                (vec![label], wanted)
            }
            _ => (chance.some(LABELS, 2), scopes(chance, 3)),
        };
        if chance.percent(30) {
            labels.push((*chance.pick(LABELS)).to_owned());
            let turned = chance.below(labels.len());
            labels.rotate_left(turned);
        }
        if chance.percent(8) {
            wanted.push(scope(chance).to_owned());
        }
        // Policy never mints it, so most mints do not ask for it.
        if chance.percent(90) {
            wanted.retain(|scope| scope != "agent:lifecycle");
        }
        let mut edge = wanted.clone();
        if chance.percent(16) && !edge.is_empty() {
            let left_out = edge.swap_remove(chance.below(edge.len()));
            edge.retain(|scope| *scope != left_out);
        }
        // Long lists are searched in another way than short ones.
        let more = if chance.percent(8) { 40 } else { 3 };
        edge.extend(scopes(chance, more));
        Self { resource: known.resource, application, labels, wanted, edge }
    }
}

fn base(aim: &Aim) -> Value {
    json!({
        "schema_version": "2026-05-20",
        "principal": {"type": "Application", "id": aim.application, "zone_id": "z", "registration_method": "managed"},
        "resource": {
            "type": "Resource", "id": "r", "identifier": aim.resource, "scopes": ["n:pay", "n:read"],
        },
        "action": {"id": "TokenExchange"},
        "context": {
            "actor_claims": {"caracal_client_id": aim.application},
            "challenge_resolved": false,
            "requested_scopes": aim.wanted,
        },
    })
}

fn bootstrap(chance: &mut Chance, aim: &Aim) -> Value {
    let mut input = base(aim);
    let scopes = match chance.weighted(&[80, 10, 10]) {
        0 => vec!["agent:lifecycle"],
        1 => vec!["agent:lifecycle", "agent:lifecycle"],
        _ => vec!["agent:lifecycle", "n:read"],
    };
    input["context"]["requested_scopes"] = json!(scopes);
    input
}

fn mint(chance: &mut Chance, aim: &Aim) -> Value {
    let mut input = base(aim);
    input["principal"]["agent_session_id"] = json!("s-1");
    input["principal"]["lifecycle"] = json!("task");
    input["principal"]["labels"] = json!(aim.labels);
    input["delegation_edge"] = json!({
        "id": "e-1", "source_session_id": "s-0", "target_session_id": "s-1", "scopes": aim.edge, "edge_version": 1,
    });
    if chance.percent(10) {
        input["delegation_edge"]["constraints_json"] = json!({"ttl_seconds": 60, "resources": ["x"]});
        input["delegation_edge"]["path"] = json!(["e-0", "e-1"]);
    }
    input["context"]["agent_session_id"] = json!("s-1");
    input["context"]["delegation_edge_id"] = json!("e-1");
    input
}

fn workload(chance: &mut Chance, aim: &Aim) -> Value {
    let mut input = base(aim);
    let id = if chance.percent(90) { "wl" } else { aim.application.as_str() };
    input["principal"] = json!({"type": "Workload", "id": id, "zone_id": "z"});
    input["action"] = json!({"id": "CredentialInjection"});
    if chance.percent(15) {
        input["context"]["requested_scopes"] = json!(["agent:lifecycle"]);
    }
    input
}

fn presented(chance: &mut Chance, aim: &Aim) -> Value {
    let mut input = mint(chance, aim);
    if chance.percent(50)
        && let Some(members) = input.as_object_mut()
    {
        members.remove("delegation_edge");
    }
    input["context"]["requested_scopes"] = json!([]);
    let resource = aim.resource.as_str();
    let target = match chance.weighted(&[76, 8, 3, 3, 3, 3, 4]) {
        0 => json!([resource]),
        1 => json!(["x", resource, 5]),
        2 => json!(["resource://other"]),
        3 => json!(resource),
        4 => json!([]),
        5 => json!([[resource]]),
        _ => json!(null),
    };
    let joined = aim.wanted.join(" ");
    let scope = match chance.weighted(&[78, 6, 4, 3, 3, 3, 3]) {
        0 => json!(joined),
        1 => json!(format!(" {} ", aim.wanted.join("  "))),
        2 => json!(aim.wanted.join("\t")),
        3 => json!(aim.wanted),
        4 => json!(""),
        5 => json!("   "),
        _ => json!(7),
    };
    let edge = match chance.weighted(&[90, 4, 2, 2, 2]) {
        0 => json!("e-1"),
        1 => json!(""),
        2 => json!(null),
        3 => json!(false),
        _ => json!({"id": 0}),
    };
    let mut claims = Map::from_iter([
        ("sub".to_owned(), json!("user-1")),
        ("delegation_edge_id".to_owned(), edge),
        ("target".to_owned(), target),
        ("scope".to_owned(), scope),
    ]);
    if chance.percent(6) {
        let name = *chance.pick(&["delegation_edge_id", "target", "scope"]);
        claims.remove(name);
    }
    input["context"]["subject_claims"] = Value::Object(claims);
    input
}

fn shapeless(chance: &mut Chance, aim: &Aim) -> Value {
    let mut input = mint(chance, aim);
    let (object, member) =
        *chance.pick(&[("", "delegation_edge"), ("context", "agent_session_id"), ("context", "requested_scopes")]);
    let holder = if object.is_empty() { Some(&mut input) } else { input.get_mut(object) };
    if let Some(members) = holder.and_then(Value::as_object_mut) {
        members.remove(member);
    }
    input
}

/// One step beside what was meant, as an exchange could still make it.
fn bend(chance: &mut Chance, input: &mut Value) {
    let labels = chance.some(LABELS, 4);
    let few = scopes(chance, 3);
    let resource = *chance.pick(RESOURCES);
    let application = *chance.pick(APPLICATIONS);
    match chance.below(18) {
        0 => input["principal"]["labels"] = json!(labels),
        1 => input["principal"]["labels"] = json!([]),
        2 => remove(input, "principal", "labels"),
        3 => input["principal"]["type"] = json!(*chance.pick(&["Workload", "Application", "workload", "User"])),
        4 => input["principal"]["id"] = json!(application),
        5 => input["resource"]["identifier"] = json!(resource),
        6 => input["action"]["id"] = json!(*chance.pick(&["CredentialInjection", "TokenExchange", "Other"])),
        7 => input["action"]["method"] = json!("POST"),
        8 => input["context"]["requested_scopes"] = json!(few),
        9 => input["context"]["requested_scopes"] = json!([]),
        10 => input["context"]["requested_scopes"] = Value::Null,
        11 => remove(input, "context", "agent_session_id"),
        12 => input["context"]["agent_session_id"] = json!("s-9"),
        13 => input["context"]["subject_claims"] = json!({"sub": "user-2"}),
        14 => remove(input, "context", "subject_claims"),
        15 => input["context"]["challenge_resolved"] = json!(true),
        16 => input["session"] = json!({"id": "record"}),
        _ if input.get("delegation_edge").is_some() => match chance.below(4) {
            0 => remove(input, "delegation_edge", "scopes"),
            1 => input["delegation_edge"]["scopes"] = json!(few),
            2 => input["delegation_edge"]["scopes"] = json!([]),
            _ => input["delegation_edge"]["id"] = json!(""),
        },
        _ => input["delegation_edge"] = json!({"id": "e-7", "scopes": few}),
    }
}

fn remove(input: &mut Value, object: &str, member: &str) {
    if let Some(members) = input.get_mut(object).and_then(Value::as_object_mut) {
        members.remove(member);
    }
}

/// What only a simulation can send: empty members, missing objects, unknown ones.
fn loosen(chance: &mut Chance, input: &mut Value) {
    for _ in 0..chance.below(3) {
        match chance.below(9) {
            0 => input["context"]["subject_claims"] = json!({}),
            1 => input["context"]["agent_session_id"] = json!(""),
            2 => input["delegation_edge"] = Value::Null,
            3 => input["schema_version"] = json!(""),
            4 => input["more"] = json!({"unknown": [1, 2, 3]}),
            5 => remove(input, "resource", "identifier"),
            6 => remove(input, "principal", "id"),
            7 => input["principal"]["labels"] = Value::Null,
            _ => {
                let object = *chance.pick(&["principal", "resource", "action", "context", "session"]);
                if let Some(members) = input.as_object_mut() {
                    members.remove(object);
                }
            }
        }
    }
}
