//! Users from outside (contract: sts.md §4, security property 12).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixtures::*;
use crate::Timestamp;
use crate::exchange::{Asserted, Caller, Class, Decision, Found, Refusal, ResourceNames};
use crate::federation::{ExternalSubject, FederationFault, IdTokenClaims, Registration, SubjectFault};
use crate::mandate::Use;
use crate::record::SubjectKind;
use crate::resource::UpstreamCall;
use crate::scope::{Requested, Scopes};

/// The reason for which a token with these claims is refused, or `granted`.
fn reason(claims: &Value) -> &'static str {
    let mut case = federation();
    case.facts.federation = Some(presented(claims));
    match case.decide().refusal() {
        None => "granted",
        Some(refusal) => {
            assert_eq!((refusal.status(), refusal.code()), (401, "invalid_token"), "{refusal:?}");
            assert_eq!(refusal.evaluation_status().as_str(), "subject_federation_rejected");
            refusal.reason().unwrap()
        }
    }
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = id_token();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = id_token();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn a_user_gets_a_bare_session_mandate_and_a_record_that_says_who_vouched() {
    let mut case = federation();
    let outcome = case.decide();
    assert_eq!((outcome.class, outcome.class.yields()), (Class::Federation, Some(Use::Session)));
    assert_eq!(outcome.context.kind, Some(SubjectKind::User));
    assert_eq!(outcome.context.federated_issuer.as_deref(), Some("https://idp.example"));
    let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert_eq!((finding.decision, finding.evaluation_status.as_str()), (Decision::Allow, "complete"));
    assert_eq!((&finding.found, &finding.resource, &finding.policy), (&Found::Federated, &None, &None));
    assert!(case.advice.asked.is_empty() && case.advice.counted.is_empty());
    let grant = outcome.grant().unwrap();
    let record = grant.record();
    assert_eq!((record.kind, record.subject.as_str(), &record.parent), (SubjectKind::User, "user-1", &None));
    assert_eq!((record.client.as_str(), record.issuer.as_deref()), ("app-1", Some("https://idp.example")));
    let claims = grant.claims("http://issuer", &id("rec-new"), &id("jti-new"));
    assert_eq!(
        serde_json::to_value(claims).unwrap(),
        json!({
            "iss": "http://issuer", "sub": "user-1", "aud": ["http://issuer"], "exp": 10_600, "iat": 10_000,
            "jti": "jti-new", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-new", "root_sid": "rec-new",
            "use": "session", "sub_type": "user",
        })
    );
}

#[test]
fn an_id_token_goes_with_nothing_but_a_lifetime() {
    let additions: [fn(&mut Case); 8] = [
        |case| case.request.resources = ResourceNames::parse(["x"]).unwrap(),
        |case| case.request.scope = Requested::new(Scopes::from_text("x")),
        |case| case.request.record = Asserted::Id(id("rec-1")),
        |case| case.request.session = Asserted::NotAnId,
        |case| case.request.session = Asserted::Id(id("s-1")),
        |case| case.request.delegation = Asserted::Id(id("e-1")),
        |case| case.request.approval_id = Some("a-1".into()),
        |case| case.request.caller = Caller::Gateway(UpstreamCall { method: "GET".into(), path: "/".into() }),
    ];
    for add in additions {
        let mut case = federation();
        add(&mut case);
        // The shape is judged before the token.
        case.facts.federation = None;
        case.facts.now = None;
        let outcome = case.decide();
        assert_eq!(outcome.refusal(), Some(&Refusal::FederationShape));
        assert_eq!(outcome.findings[0].evaluation_status.as_str(), "subject_federation_invalid");
    }
    let mut case = federation();
    case.request.ttl_seconds = Some(60);
    assert_eq!(case.decide().grant().unwrap().lifetime().expires_in(), 60);
}

#[test]
fn the_checks_come_in_the_contracts_order() {
    let mut case = federation();
    case.request.ttl_seconds = Some(-1);
    assert_eq!(case.name(), "TtlNegative");
    case.request.ttl_seconds = Some(3_601);
    assert_eq!(case.name(), "TtlAboveMaximum");
    case.facts.federation = Some(presented(&with("aud", json!("other"))));
    assert_eq!(case.name(), "FederationRejected");
    case.facts.now = None;
    assert_eq!(case.name(), "TimeUnavailable");
    case.request.scope = Requested::new(Scopes::from_text("x"));
    assert_eq!(case.name(), "FederationShape");
    case.facts.client = None;
    assert_eq!(case.name(), "ClientUnauthenticated");
}

#[test]
fn what_was_not_verified_is_not_believed_whatever_it_says() {
    for (fault, name) in [
        (FederationFault::Malformed, "FederationRejected"),
        (FederationFault::AlgorithmNotAccepted, "FederationRejected"),
        (FederationFault::KeyUnknown, "FederationRejected"),
        (FederationFault::SignatureInvalid, "FederationRejected"),
        (FederationFault::KeysUnusable, "FederationRejected"),
        (FederationFault::KeysUnreachable, "FederationKeysUnreachable"),
    ] {
        let mut case = federation();
        case.facts.federation.as_mut().unwrap().verified = Err(fault);
        assert_eq!(case.name(), name);
        assert_eq!(case.decide().refusal().unwrap().reason(), Some(fault.reason()));
    }
    let mut case = federation();
    case.facts.federation = None;
    assert_eq!(case.name(), "FederationRejected");
}

#[test]
fn a_registration_that_is_gone_or_has_moved_its_keys_vouches_for_nothing() {
    let changes: [fn(&mut Registration); 3] = [
        |registration| registration.id = id("idp-2"),
        |registration| registration.jwks_url = "https://elsewhere.example/keys".into(),
        |registration| registration.issuer = "https://other.example".into(),
    ];
    for change in changes {
        let mut case = federation();
        change(case.facts.federation.as_mut().unwrap().registration.as_mut().unwrap());
        assert_eq!(case.decide().refusal().unwrap().reason(), Some("issuer_not_registered"));
    }
    let mut case = federation();
    case.facts.federation.as_mut().unwrap().registration = None;
    assert_eq!(case.decide().refusal().unwrap().reason(), Some("issuer_not_registered"));
    // The audience is that of the snapshot, not the one the keys were fetched under.
    let mut case = federation();
    case.facts.federation.as_mut().unwrap().registration.as_mut().unwrap().audience = "other".into();
    assert_eq!(case.decide().refusal().unwrap().reason(), Some("audience_mismatch"));
}

#[test]
fn each_claim_is_there_of_its_type_and_in_force() {
    for (claims, expected) in [
        (id_token(), "granted"),
        (with("aud", json!(["x", "caracal"])), "granted"),
        (with("aud", json!(["caracal", 1])), "claim_invalid"),
        (with("aud", json!([])), "audience_mismatch"),
        (with("aud", json!("Caracal")), "audience_mismatch"),
        (with("aud", json!("caracal ")), "audience_mismatch"),
        (with("aud", json!({"caracal": true})), "claim_invalid"),
        (without("aud"), "claim_invalid"),
        (with("iss", json!("https://idp.example/")), "issuer_not_registered"),
        (with("iss", json!(["https://idp.example"])), "claim_invalid"),
        (without("iss"), "claim_invalid"),
        (without("exp"), "claim_invalid"),
        (with("exp", json!("10600")), "claim_invalid"),
        (with("exp", json!(null)), "claim_invalid"),
        (with("exp", json!(-1)), "claim_invalid"),
        (with("exp", json!(9_942)), "granted"),
        (with("exp", json!(9_941)), "token_expired"),
        (with("exp", json!(9_940.9)), "token_expired"),
        (with("exp", json!(10_600.5)), "granted"),
        (with("exp", json!(i64::MAX)), "granted"),
        (with("exp", json!(u64::MAX)), "claim_invalid"),
        (with("exp", json!(1e300)), "claim_invalid"),
        (without("iat"), "granted"),
        (with("iat", json!(10_060)), "granted"),
        (with("iat", json!(10_061)), "token_not_yet_valid"),
        (with("iat", json!("10000")), "claim_invalid"),
        (with("nbf", json!(10_060)), "granted"),
        (with("nbf", json!(10_061)), "token_not_yet_valid"),
        (with("nbf", json!(null)), "claim_invalid"),
        (with("sub", json!("caracal:shared")), "subject_invalid"),
        (with("sub", json!("a\nb")), "subject_invalid"),
        (with("sub", json!(7)), "subject_invalid"),
        (with("sub", json!("")), "subject_invalid"),
        (without("sub"), "subject_invalid"),
    ] {
        assert_eq!(reason(&claims), expected, "{claims}");
    }
}

#[test]
fn what_is_minted_ends_with_the_token_it_was_minted_for() {
    let lives = |exp: i64, ttl: Option<i64>| {
        let mut case = federation();
        case.request.ttl_seconds = ttl;
        case.facts.federation = Some(presented(&with("exp", json!(exp))));
        let outcome = case.decide();
        outcome.grant().map(|grant| (grant.lifetime().expires_in(), grant.record().expires_at.as_seconds()))
    };
    assert_eq!(lives(20_000, None), Some((900, 10_900)));
    assert_eq!(lives(20_000, Some(3_600)), Some((3_600, 13_600)));
    assert_eq!(lives(10_120, None), Some((119, 10_120)));
    assert_eq!(lives(10_120, Some(3_600)), Some((119, 10_120)));
    assert_eq!(lives(10_120, Some(60)), Some((60, 10_060)));
    // To our clock it ended half a minute ago, to its issuer's perhaps not: what is left of the leeway.
    assert_eq!(lives(9_970, None), Some((29, 10_030)));
    assert_eq!(lives(10_001, None), Some((60, 10_061)), "half a second to its end, so what is left of the leeway");
    assert_eq!(lives(9_941, None), None, "half a second left at most");
    let mut case = federation();
    case.facts.client.as_mut().unwrap().expires_at = Some(later(30));
    assert_eq!(case.decide().grant().unwrap().lifetime().expires_in(), 30);
    case.facts.client.as_mut().unwrap().expires_at = Some(now());
    assert_eq!(case.name(), "ClientUnauthenticated");
}

#[test]
fn names_of_people_and_machines_are_accepted_as_they_are() {
    for accepted in [
        "user-1",
        "Ada Lovelace",
        "ada@example.com",
        "https://idp.example/users/7?x=1#y",
        "arn:aws:iam::123456789012:user/Ada",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "Ζωή",
        "山田 太郎",
        "ליאור",
        "Caracal:shared",
        "caracal",
        "xcaracal:",
        "\u{1F98A}",
        "a\u{200F}b",
        &"é".repeat(256),
    ] {
        assert_eq!(ExternalSubject::parse(accepted).map(|subject| subject.as_str().to_owned()), Ok(accepted.into()));
    }
}

#[test]
fn subjects_that_could_pass_for_others_are_refused() {
    for (refused, why) in [
        ("", SubjectFault::Missing),
        ("caracal:", SubjectFault::Reserved),
        ("caracal:shared", SubjectFault::Reserved),
        (" caracal:shared", SubjectFault::Padded),
        ("user-1 ", SubjectFault::Padded),
        ("\u{00A0}user-1", SubjectFault::Padded),
        ("user-1\u{3000}", SubjectFault::Padded),
        (" ", SubjectFault::Padded),
        ("a\nb", SubjectFault::Character),
        ("a\0", SubjectFault::Character),
        ("a\u{7F}", SubjectFault::Character),
        ("a\u{85}b", SubjectFault::Character),
        ("a\u{FFFD}b", SubjectFault::Character),
        ("a\u{202E}b", SubjectFault::Character),
        ("a\u{202A}b", SubjectFault::Character),
        ("a\u{2066}b", SubjectFault::Character),
        ("a\u{2069}b", SubjectFault::Character),
        (&"a".repeat(513), SubjectFault::TooLong),
        (&"é".repeat(257), SubjectFault::TooLong),
    ] {
        assert_eq!(ExternalSubject::parse(refused), Err(why), "{refused:?}");
    }
}

/// Characters of the kind that may stand anywhere in a subject.
fn harmless() -> impl Strategy<Value = char> {
    prop_oneof![proptest::char::range('!', '~'), proptest::char::range('À', 'ÿ'), proptest::char::range('一', '龥')]
}

/// Those that may stand nowhere in one.
fn harmful() -> impl Strategy<Value = char> {
    prop_oneof![
        proptest::char::range('\0', '\u{1F}'),
        proptest::char::range('\u{7F}', '\u{9F}'),
        proptest::char::range('\u{202A}', '\u{202E}'),
        proptest::char::range('\u{2066}', '\u{2069}'),
        Just('\u{FFFD}'),
    ]
}

proptest! {
    #[test]
    fn an_accepted_subject_is_the_same_bytes(text in any::<String>()) {
        if let Ok(subject) = ExternalSubject::parse(&text) {
            prop_assert_eq!(subject.as_str().as_bytes(), text.as_bytes());
            prop_assert!(!text.starts_with("caracal:") && (1..=512).contains(&text.len()));
        }
    }

    #[test]
    fn harmless_characters_make_a_subject_and_one_harmful_one_unmakes_it(
        characters in proptest::collection::vec(harmless(), 1..100),
        bad in harmful(),
        at in any::<prop::sample::Index>(),
    ) {
        let text: String = characters.iter().collect();
        prop_assume!(!text.starts_with("caracal:"));
        prop_assert!(ExternalSubject::parse(&text).is_ok());
        let mut spoiled = characters;
        spoiled.insert(at.index(spoiled.len() + 1), bad);
        let spoiled: String = spoiled.into_iter().collect();
        prop_assert_eq!(ExternalSubject::parse(&spoiled), Err(SubjectFault::Character));
    }

    #[test]
    fn nothing_enters_the_names_of_ours(rest in any::<String>()) {
        let name = format!("caracal:{rest}");
        prop_assert!(ExternalSubject::parse(&name).is_err());
    }

    /// Whatever is asked for and whenever it ends: a mandate never outlives the instant until which its token is
    /// believed.
    #[test]
    fn nothing_minted_outlives_its_token(exp in 9_000..20_000_i64, ttl in proptest::option::of(0..=3_600_i64)) {
        let mut case = federation();
        case.request.ttl_seconds = ttl;
        case.facts.federation = Some(presented(&with("exp", json!(exp))));
        if let Some(grant) = case.decide().grant() {
            let end = if exp > 10_001 { exp } else { exp + 60 };
            prop_assert!(grant.lifetime().ends_at() <= Timestamp::from_seconds(end));
            prop_assert!(grant.lifetime().expires_in() <= ttl.filter(|ttl| *ttl > 0).unwrap_or(900).unsigned_abs());
        }
    }

    #[test]
    fn claims_of_any_shape_are_judged_without_surprise(text in "[\\[\\]{}:,\"a-z0-9. -]{0,40}", name in 0..6_usize) {
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let claims = with(["iss", "aud", "sub", "exp", "iat", "nbf"][name], value);
        let _ = IdTokenClaims::parse(claims.as_object().unwrap()).and_then(|read| read.accept(&registration(), now()));
    }
}
