//! Mandates on the wire: sizes, and the strict reading of claims (contract: sts.md §5, sdk-and-verify.md §11.3).

use serde_json::{Map, Value, json};

use super::fixtures::*;
use crate::ZoneId;
use crate::lifetime::{Bounds, LifetimeClass, fix};
use crate::mandate::{
    ChainHop, Claims, Core, DelegationClaims, Expected, MAX_TOKEN_BYTES, MandateClaims, NotAccepted, TooLarge, Use,
    token_bytes,
};
use crate::record::SubjectKind;
use crate::resource::ResourceIdentifier;

/// Size of `{"alg":"ES256","kid":"<36>","typ":"JWT"}`.
const HEADER_BYTES: usize = 73;

fn uuid(kind: &str, number: usize) -> String {
    format!("0199c0de-{kind}-7000-8000-{number:012}")
}

fn deep(depth: usize) -> DelegationClaims {
    let hop = |hop: usize| ChainHop {
        application_id: id(&uuid("aaaa", hop)),
        agent_session_id: Some(id(&uuid("5555", hop))),
        delegation_edge_id: (hop < depth).then(|| id(&uuid("eeee", hop))),
    };
    DelegationClaims {
        edge: id(&uuid("eeee", depth - 1)),
        source: id(&uuid("5555", depth - 1)),
        target: id(&uuid("5555", depth)),
        path: (0..depth).map(|hop| id(&uuid("eeee", hop))).collect(),
        chain: (0..=depth).map(hop).collect(),
        epoch: 123_456,
    }
}

fn mandate(depth: usize, scope: &str) -> MandateClaims {
    let (zone, client): (ZoneId, _) = (id(&uuid("2222", 0)), id(&uuid("aaaa", depth)));
    let core = Core {
        issuer: "https://sts.caracal.example.com",
        zone: &zone,
        client: &client,
        subject: client.as_str(),
        kind: SubjectKind::Application,
        record: &id(&uuid("cccc", 1)),
        jti: &id(&uuid("dddd", 1)),
        lifetime: fix(LifetimeClass::Direct, None, Bounds::none(), now()).unwrap(),
        scope,
        targets: vec![ResourceIdentifier::parse("resource://documents").unwrap()],
    };
    MandateClaims::gateway(core, id(&uuid("5555", depth)), deep(depth))
}

fn read(payload: &[u8]) -> Claims {
    let object: Map<String, Value> = serde_json::from_slice(payload).unwrap();
    Claims::parse(&object).unwrap()
}

#[test]
fn a_mandate_fits_at_every_depth_and_says_everything_as_long_as_it_can() {
    for depth in 1..=10 {
        let claims = mandate(depth, "docs:read docs:write");
        let full = serde_json::to_vec(&claims).unwrap();
        let payload = claims.to_payload(HEADER_BYTES).unwrap();
        assert!(token_bytes(HEADER_BYTES, payload.len()) <= MAX_TOKEN_BYTES, "depth {depth}");
        let written = read(&payload);
        assert_eq!((written.path.len(), written.chain.len(), written.hop_count), (depth, depth + 1, depth as u64));
        assert_eq!(written.chain[0].application_id, id(&uuid("aaaa", 0)));
        assert_eq!(payload == full, token_bytes(HEADER_BYTES, full.len()) <= MAX_TOKEN_BYTES, "depth {depth}");
        assert_eq!(payload == full, depth <= 9, "depth {depth}");
    }
}

#[test]
fn what_a_deep_chain_leaves_out_is_said_elsewhere() {
    let written = read(&mandate(10, "docs:read").to_payload(HEADER_BYTES).unwrap());
    assert!(written.chain.iter().all(|hop| hop.delegation_edge_id.is_none() && hop.agent_session_id.is_some()));
    assert_eq!(written.path[3], id(&uuid("eeee", 3)));
}

#[test]
fn a_mandate_nobody_would_accept_is_not_made() {
    let long = "s".repeat(3_000);
    assert!(matches!(mandate(1, &long).to_payload(HEADER_BYTES), Err(TooLarge { bytes }) if bytes > MAX_TOKEN_BYTES));
}

#[test]
fn a_token_is_as_long_as_its_parts() {
    for (header, payload, expected) in [(0, 0, 88), (1, 2, 93), (3, 3, 96), (HEADER_BYTES, 100, 98 + 1 + 134 + 1 + 86)]
    {
        assert_eq!(token_bytes(header, payload), expected);
    }
}

fn minimal() -> Value {
    json!({
        "iss": "http://issuer", "aud": ["http://issuer", "x"], "sub": "app-1", "exp": 10_900, "iat": 10_000,
        "jti": "jti-1", "zone_id": "z-1", "client_id": "app-1", "use": "session", "sub_type": "application",
    })
}

fn parse(claim: &str, value: Value) -> Result<Claims, String> {
    let mut object = minimal().as_object().unwrap().clone();
    object.insert(claim.into(), value);
    Claims::parse(&object).map_err(|fault| fault.to_string())
}

mod t16_verify_claims {
    use super::*;

    #[test]
    fn each_required_claim_is_required() {
        for claim in ["iss", "aud", "sub", "exp", "iat", "jti", "zone_id", "client_id", "use", "sub_type"] {
            let mut object = minimal().as_object().unwrap().clone();
            object.remove(claim);
            let missing = Err(format!("the claim `{claim}` is missing"));
            assert_eq!(Claims::parse(&object).map_err(|fault| fault.to_string()), missing);
            assert_eq!(parse(claim, json!(null)), missing);
            if !["exp", "iat"].contains(&claim) {
                assert_eq!(parse(claim, json!("")), missing);
            }
        }
    }

    #[test]
    fn a_wrong_json_type_is_invalid_not_absent() {
        for (claim, value) in [
            ("exp", json!("10900")),
            ("exp", json!(10_900.5)),
            ("exp", json!(-1)),
            ("exp", json!(1e20)),
            ("iat", json!(true)),
            ("nbf", json!("0")),
            ("sub", json!(1)),
            ("aud", json!([1])),
            ("aud", json!([""])),
            ("aud", json!({})),
            ("jti", json!("no id")),
            ("zone_id", json!("../z")),
            ("client_id", json!(["app-1"])),
            ("use", json!("admin")),
            ("sub_type", json!("User")),
            ("sid", json!(7)),
            ("root_sid", json!(["r"])),
            ("scope", json!(["a"])),
            ("scope", json!(null)),
            ("target", json!("resource://docs")),
            ("target", json!([""])),
            ("agent_session_id", json!(1)),
            ("delegation_edge_id", json!({})),
            ("delegation_path", json!("e-1")),
            ("delegation_path", json!([""])),
            ("delegation_chain", json!([{}])),
            ("delegation_chain", json!([{"application_id": ""}])),
            ("delegation_chain", json!([{"application_id": "a", "agent_session_id": 1}])),
            ("hop_count", json!(-1)),
            ("hop_count", json!(1.5)),
            ("delegation_graph_epoch", json!("7")),
        ] {
            assert_eq!(parse(claim, value.clone()), Err(format!("the claim `{claim}` is invalid")), "{value}");
        }
    }

    #[test]
    fn optional_ids_may_be_null_or_empty_and_unknown_claims_anything() {
        for claim in
            ["sid", "root_sid", "agent_session_id", "delegation_edge_id", "source_session_id", "target_session_id"]
        {
            for absent in [json!(null), json!("")] {
                assert_eq!(parse(claim, absent), Ok(claims(minimal())), "{claim}");
            }
        }
        assert_eq!(parse("graph_epoch", json!([])), Ok(claims(minimal())));
        assert_eq!(parse("aud", json!("one")).unwrap().audience, ["one"]);
        assert_eq!(parse("scope", json!("a b")).unwrap().scope.distinct().len(), 2);
    }

    #[test]
    fn claims_are_accepted_for_one_issuer_audience_zone_use_and_time() {
        let mut given = claims(minimal());
        given.not_before = Some(10_000);
        let (zone, other) = (id("z-1"), id("z-2"));
        let expected =
            Expected { issuer: "http://issuer", audience: "http://issuer", zone: &zone, r#use: Use::Session };
        for (expected, now, result) in [
            (expected, 10_000, Ok(())),
            (expected, 9_940, Ok(())),
            (expected, 9_939, Err(NotAccepted::NotYet)),
            (expected, 10_959, Ok(())),
            (expected, 10_960, Err(NotAccepted::Expired)),
            (Expected { issuer: "http://issuer/", ..expected }, 10_000, Err(NotAccepted::Issuer)),
            (Expected { audience: "resource://docs", ..expected }, 10_000, Err(NotAccepted::Audience)),
            (Expected { zone: &other, ..expected }, 10_000, Err(NotAccepted::Zone)),
            (Expected { r#use: Use::Gateway, ..expected }, 10_000, Err(NotAccepted::Use)),
        ] {
            assert_eq!(given.accept(&expected, now), result, "{expected:?} at {now}");
        }
        given.not_before = Some(10_061);
        assert_eq!(given.accept(&expected, 10_000), Err(NotAccepted::NotYet));
    }

    #[test]
    fn what_is_minted_reads_back() {
        let written = read(&mandate(2, "docs:read").to_payload(HEADER_BYTES).unwrap());
        assert_eq!((written.r#use, written.epoch, written.hop_count), (Use::Gateway, Some(123_456), 2));
        assert_eq!(written.chain, deep(2).chain);
        assert_eq!(written.record, written.root_record);
    }
}
