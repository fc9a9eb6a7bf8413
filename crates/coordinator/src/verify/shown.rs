//! A mandate's claims as `/v1/verify` tells them. A claim that is absent is absent here.

use serde_json::{Map, Value};

const NAMES: [(&str, &str); 19] = [
    ("sub", "sub"),
    ("zone_id", "zoneId"),
    ("client_id", "clientId"),
    ("sid", "authorityRecordId"),
    ("root_sid", "rootAuthorityRecordId"),
    ("use", "use"),
    ("sub_type", "subType"),
    ("jti", "jti"),
    ("iat", "issuedAt"),
    ("exp", "expiresAt"),
    ("scope", "scope"),
    ("target", "targetResources"),
    ("agent_session_id", "sessionId"),
    ("delegation_edge_id", "delegationId"),
    ("source_session_id", "sourceSessionId"),
    ("target_session_id", "targetSessionId"),
    ("delegation_path", "delegationPath"),
    ("delegation_graph_epoch", "graphEpoch"),
    ("hop_count", "hopCount"),
];

const HOP_NAMES: [(&str, &str); 3] =
    [("application_id", "applicationId"), ("agent_session_id", "sessionId"), ("delegation_edge_id", "delegationId")];

/// The claims under the names of the answer.
pub(super) fn claims_json(claims: &Map<String, Value>) -> Value {
    let mut shown = renamed(claims, &NAMES);
    if let Some(chain) = claims.get("delegation_chain").and_then(Value::as_array) {
        let hops = chain.iter().filter_map(Value::as_object).map(|hop| Value::Object(renamed(hop, &HOP_NAMES)));
        shown.insert("delegationChain".to_owned(), hops.collect());
    }
    Value::Object(shown)
}

fn renamed(members: &Map<String, Value>, names: &[(&str, &str)]) -> Map<String, Value> {
    let known = names.iter().filter_map(|(name, shown)| Some(((*shown).to_owned(), members.get(*name)?.clone())));
    known.filter(|(_, value)| !value.is_null()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_told_under_their_other_names_and_absent_ones_are_absent() {
        let claims = json!({
            "iss": "i", "aud": ["i"], "sub": "s", "zone_id": "z", "client_id": "c", "sid": "r", "root_sid": "q",
            "use": "session", "sub_type": "user", "jti": "j", "iat": 1, "exp": 2, "scope": "a b", "target": ["t"],
            "agent_session_id": null, "delegation_path": ["e"], "delegation_graph_epoch": 3, "hop_count": 1,
            "delegation_chain": [{"application_id": "a", "agent_session_id": "s", "delegation_edge_id": "e"},
                                 {"application_id": "b"}],
        });
        let shown = json!({
            "sub": "s", "zoneId": "z", "clientId": "c", "authorityRecordId": "r", "rootAuthorityRecordId": "q",
            "use": "session", "subType": "user", "jti": "j", "issuedAt": 1, "expiresAt": 2, "scope": "a b",
            "targetResources": ["t"], "delegationPath": ["e"], "graphEpoch": 3, "hopCount": 1,
            "delegationChain": [{"applicationId": "a", "sessionId": "s", "delegationId": "e"}, {"applicationId": "b"}],
        });
        assert_eq!(claims_json(claims.as_object().unwrap()), shown);
    }
}
