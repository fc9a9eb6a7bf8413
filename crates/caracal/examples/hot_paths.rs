//! The work that every governed call does, without a network, a disk or a clock, for counting its instructions:
//! `hot_paths PATH TIMES` does one of them so many times. `cargo xtask instructions` runs it.

use std::error::Error;
use std::hint::black_box;

use caracal_authority::Timestamp;
use caracal_crypto::hmac::HmacKey;
use caracal_crypto::jws::{SigningKey, UnverifiedToken};
use caracal_ledger::{ChainKey, Decision, EvaluationStatus, EventType, Evidence, MetadataKey, next_link};
use caracal_policy::{Bundle, Document, Input, decide};
use serde_json::{Map, Value, json};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, times] = arguments.as_slice() else { return Err("hot_paths PATH TIMES".into()) };
    let times = times.parse()?;
    match path.as_str() {
        "sign" => sign(times),
        "verify" => verify(times),
        "decide" => decision(1, times),
        "decide_of_5000_grants" => decision(5_000, times),
        "append" => append(times),
        other => Err(format!("there is no path `{other}`").into()),
    }
}

/// A mandate is signed.
fn sign(times: u32) -> Done {
    let (key, _) = SigningKey::generate()?;
    let claims = claims();
    for _ in 0..times {
        black_box(key.sign("k-1", black_box(&claims))?);
    }
    Ok(())
}

/// A mandate is verified.
fn verify(times: u32) -> Done {
    let (key, _) = SigningKey::generate()?;
    let token = key.sign("k-1", &claims())?;
    for _ in 0..times {
        black_box(UnverifiedToken::parse(black_box(&token))?.verify(key.public())?);
    }
    Ok(())
}

/// A question is answered by a policy of so many grants.
fn decision(grants: usize, times: u32) -> Done {
    let grant = |number: usize| (format!("r{number}"), json!({"application": "a", "roles": {"r": ["n"]}}));
    let grants: Map<String, Value> = (0..grants).map(grant).collect();
    let content = format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n",
        json!({"a": "app-1"}),
        Value::Object(grants)
    );
    let document = Document { policy_version_id: "pv-1", content: &content };
    let bundle = Bundle::load(&[document]).map_err(|defects| format!("{defects:?}"))?;
    let input: Input = serde_json::from_value(json!({
        "principal": {"type": "Application", "id": "app-1", "zone_id": "z", "agent_session_id": "s", "labels": ["r"]},
        "resource": {"type": "Resource", "id": "r", "identifier": "r0", "scopes": ["n"]},
        "action": {"id": "TokenExchange"},
        "delegation_edge": {"id": "e", "scopes": ["n"]},
        "context": {"agent_session_id": "s", "delegation_edge_id": "e", "requested_scopes": ["n"]}
    }))?;
    for _ in 0..times {
        if !black_box(decide(&bundle, black_box(&input))?).is_allow() {
            return Err("the policy does not allow what it should".into());
        }
    }
    Ok(())
}

/// An event is made canonical and linked to the chain; what the store does with it is the disk's.
fn append(times: u32) -> Done {
    let key = HmacKey::from_bytes(&[7; 32])?;
    let mut head = None;
    for _ in 0..times {
        let event = Evidence::new(
            "0198c0de-0000-7000-8000-000000000001".parse()?,
            "zone-1".parse()?,
            EventType::TokenExchange,
            Decision::Allow,
            EvaluationStatus::Complete,
            Timestamp::EPOCH,
        )
        .request("0198c0de-0000-7000-8000-000000000002")
        .under_policy(Some("set-1".parse()?), Some("version-1".parse()?), Some("00ff".repeat(16)))
        .determined_by("p1")
        .because("ok")
        .attribute(MetadataKey::ApplicationId, "app-1")
        .attribute(MetadataKey::Resource, "resource://notes")
        .attribute(MetadataKey::AgentSessionId, "0198c0de-0000-7000-8000-000000000003");
        let stored = black_box(event).to_stored()?;
        let link = next_link(Some(&key as &dyn ChainKey), head.as_ref(), &stored);
        head = Some(black_box(link).head());
    }
    Ok(())
}

/// A mandate of usual size.
fn claims() -> Value {
    json!({
        "iss": "https://sts.example", "sub": "app-1", "aud": "resource://n", "zone_id": "zone-1", "client_id": "app-1",
        "sid": "0198c0de-0000-7000-8000-000000000001", "root_sid": "0198c0de-0000-7000-8000-000000000001",
        "jti": "0198c0de-0000-7000-8000-000000000002", "agent_session_id": "0198c0de-0000-7000-8000-000000000003",
        "delegation_edge_id": "0198c0de-0000-7000-8000-000000000004", "scope": "n:read", "target": ["resource://n"],
        "use": "gateway", "iat": 1_767_225_600, "exp": 1_767_226_500
    })
}
