//! What a caller may present as a token, or a fetched document as keys, to confuse whoever reads it. The fuzz targets
//! `token` and `keyset` ask the same of bytes, for longer.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{BadSignature, Jwk, Jwks, KeySet, MalformedToken, Part, SigningKey, UnusableKeySet, UnverifiedToken};
use crate::encoding::{base64url, from_base64url, from_hex};
use crate::hmac::HmacKey;

fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.x", base64url(header.as_bytes()), base64url(payload.as_bytes()))
}

/// Brackets nested so deep that reading them one in another would need a stack of its own.
fn nested(open: &str, close: &str, levels: usize) -> String {
    format!(r#"{{"a":{}1{}}}"#, open.repeat(levels), close.repeat(levels))
}

fn key() -> Value {
    let (key, _) = SigningKey::generate().unwrap();
    serde_json::to_value(Jwk::new("k-1", key.public())).unwrap()
}

mod t16_verify {
    use super::*;

    #[test]
    fn nesting_without_end_is_refused_in_every_place() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            for levels in [128, 1_000, 100_000] {
                let deep = nested(open, close, levels);
                let header = UnverifiedToken::parse(&token(&deep, "{}")).err();
                assert_eq!(header, Some(MalformedToken::Json(Part::Header)), "{levels}");
                let payload = UnverifiedToken::parse(&token("{}", &deep)).err();
                assert_eq!(payload, Some(MalformedToken::Json(Part::Payload)), "{levels}");
                let unclosed = UnverifiedToken::parse(&token("{}", &deep[..deep.len() / 2])).err();
                assert_eq!(unclosed, Some(MalformedToken::Json(Part::Payload)), "{levels}");
                assert_eq!(KeySet::from_jwks(deep.as_bytes()), Err(UnusableKeySet::Malformed), "{levels}");
            }
        }
    }

    #[test]
    fn a_member_twice_is_refused_wherever_it_stands_and_however_it_is_spelt() {
        for twice in [
            r#"{"alg":"ES256","alg":"none"}"#,
            r#"{"alg":"ES256","\u0061lg":"ES256"}"#,
            r#"{"a":{"kid":"x","kid":"x"}}"#,
            r#"{"a":[0,{"":1,"":1}]}"#,
        ] {
            let header = UnverifiedToken::parse(&token(twice, "{}")).err();
            assert_eq!(header, Some(MalformedToken::Json(Part::Header)), "{twice}");
            let payload = UnverifiedToken::parse(&token("{}", twice)).err();
            assert_eq!(payload, Some(MalformedToken::Json(Part::Payload)), "{twice}");
        }
        let one = key().to_string();
        let twice = one.replacen(r#""kty""#, r#""kty":"oct","kty""#, 1);
        let set = |key: &str| KeySet::from_jwks(format!(r#"{{"keys":[{key}]}}"#).as_bytes());
        assert!(set(&one).is_ok());
        assert_eq!(set(&twice), Err(UnusableKeySet::Malformed));
    }

    /// Every form in which somebody who has only read the key set could feed it to an HMAC.
    #[test]
    fn no_form_of_a_published_key_is_a_secret_to_sign_with() {
        let (key, _) = SigningKey::generate().unwrap();
        let (x, y) = key.public().coordinates();
        let point = [&[4][..], x, y].concat();
        // RFC 5480: the fixed head of a P-256 public key, before its point.
        let head = from_hex("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        let der = [head, point.clone()].concat();
        let jwk = serde_json::to_string(&Jwk::new("k-1", key.public())).unwrap();
        let forms = [
            x.to_vec(),
            [x, y].concat(),
            point,
            der.clone(),
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64url(&der)).into_bytes(),
            jwk.clone().into_bytes(),
            format!(r#"{{"keys":[{jwk}]}}"#).into_bytes(),
        ];
        for secret in forms {
            let hmac = HmacKey::from_bytes(&secret).unwrap();
            for alg in ["HS256", "ES256", "none", "RS256", "PS256", "ES256K", "EdDSA"] {
                let header = format!(r#"{{"alg":"{alg}","kid":"k-1"}}"#);
                let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(b"{}"));
                let tag = hmac.sign(&[signed.as_bytes()]);
                for signature in [&tag[..], &[&tag[..], &tag[..]].concat(), b""] {
                    let text = format!("{signed}.{}", base64url(signature));
                    let token = UnverifiedToken::parse(&text).unwrap();
                    assert_eq!(token.verify(key.public()), Err(BadSignature), "{alg}");
                }
            }
        }
    }

    #[test]
    fn a_header_that_brings_its_own_key_changes_nothing() {
        let ((ours, _), (theirs, _)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let jwk = serde_json::to_value(Jwk::new("k-1", theirs.public())).unwrap();
        for (name, value) in [
            ("jwk", jwk.clone()),
            ("jku", json!("https://attacker.example/keys")),
            ("x5u", json!("https://attacker.example/certificate")),
            ("x5c", json!(["MIIB"])),
            ("x5t", json!("AAAA")),
            ("keys", json!([jwk])),
            ("crit", json!(["jwk"])),
        ] {
            let mut header = json!({"alg": "ES256", "kid": "k-1", "typ": "JWT"});
            header[name] = value;
            let parts = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(b"{}"));
            for (signer, expected) in [(&theirs, Err(BadSignature)), (&ours, Ok(()))] {
                let text = signer.append_signature(parts.clone()).unwrap();
                assert_eq!(UnverifiedToken::parse(&text).unwrap().verify(ours.public()), expected, "{name}");
            }
        }
    }

    /// Bounds are the caller's; without them it is slow and still right.
    #[test]
    fn a_huge_header_or_payload_verifies_exactly_when_it_was_signed() {
        let ((ours, _), (theirs, _)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let huge = "x".repeat(1 << 20);
        let head = format!(r#"{{"alg":"ES256","kid":"k-1","x":"{huge}"}}"#);
        let many: String = (0..50_000).map(|number| format!(r#""m{number}":{number},"#)).collect();
        let claims = format!(r#"{{{many}"zone_id":"z-1"}}"#);
        for (header, payload) in [
            (head.as_str(), "{}"),
            (r#"{"alg":"ES256","kid":"k-1"}"#, claims.as_str()),
            (head.as_str(), claims.as_str()),
        ] {
            let parts = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
            let text = theirs.append_signature(parts).unwrap();
            let token = UnverifiedToken::parse(&text).unwrap();
            assert_eq!((token.verify(theirs.public()), token.verify(ours.public())), (Ok(()), Err(BadSignature)));
        }
    }

    /// A key of another kind under the id of a good one neither verifies nor displaces it.
    #[test]
    fn a_key_of_another_kind_takes_no_ones_place() {
        let good = key();
        let expected = KeySet::from_jwks(json!({ "keys": [good] }).to_string().as_bytes()).unwrap();
        let mut as_secret = good.clone();
        as_secret["alg"] = json!("HS256");
        let mut other_curve = good.clone();
        other_curve["crv"] = json!("secp256k1");
        for confusing in [
            json!({"kty": "oct", "kid": "k-1", "alg": "ES256", "k": good["x"]}),
            json!({"kty": "oct", "kid": "k-1", "alg": "HS256", "k": good["x"], "crv": "P-256", "x": good["x"], "y": good["y"]}),
            json!({"kty": "RSA", "kid": "k-1", "alg": "ES256", "n": good["x"], "e": "AQAB"}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "k-1", "alg": "ES256", "x": good["x"]}),
            as_secret,
            other_curve,
        ] {
            let alone = KeySet::from_jwks(json!({ "keys": [confusing] }).to_string().as_bytes());
            assert_eq!(alone, Err(UnusableKeySet::NoUsableKey), "{confusing}");
            for keys in [json!([good, confusing]), json!([confusing, good])] {
                let set = KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes());
                assert_eq!(set.as_ref(), Ok(&expected), "{confusing}");
            }
        }
    }

    /// One step beside a genuine key set: members of all kinds, left out, exchanged, wrongly typed.
    fn bent_key() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["kty", "crv", "use", "kid", "alg", "x", "y", "key_ops", "d", "k"]);
        let value = prop_oneof![
            prop::sample::select(vec!["EC", "oct", "P-256", "sig", "enc", "ES256", "HS256", "none", "k-1", "k-2", ""])
                .prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 30..35).prop_map(|bytes| base64url(&bytes).into()),
            Just(json!(["verify"])),
            Just(Value::Null),
            Just(json!(7)),
        ];
        prop::collection::vec((name, prop::option::of(value)), 0..3).prop_map(|changes| {
            let mut entry = key();
            for (name, value) in changes {
                let members = entry.as_object_mut().unwrap();
                match value {
                    Some(value) => drop(members.insert(name.to_owned(), value)),
                    None => drop(members.remove(name)),
                }
            }
            entry
        })
    }

    proptest! {
        #[test]
        fn what_is_usable_of_a_key_set_can_be_published_and_read_again(
            keys in prop::collection::vec(bent_key(), 0..5),
        ) {
            let document = json!({ "keys": keys });
            let Ok(set) = KeySet::from_jwks(document.to_string().as_bytes()) else { return Ok(()) };
            let mut kids: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
            kids.retain(|kid| set.get(kid).is_some());
            kids.sort_unstable();
            kids.dedup();
            prop_assert!(!kids.is_empty() && set.get("").is_none());
            prop_assert_eq!(kids.len(), set.len());
            let published = Jwks { keys: kids.iter().filter_map(|kid| Some(Jwk::new(kid, set.get(kid)?))).collect() };
            let again = KeySet::from_jwks(&serde_json::to_vec(&published).unwrap());
            prop_assert_eq!(again, Ok(set));
        }

        #[test]
        fn whatever_is_taken_apart_is_spelt_in_the_one_way(
            parts in prop::collection::vec(prop_oneof![
                3 => prop::sample::select(vec!["{}", "{\"alg\":\"ES256\"}", "[]", "{\"a\":1,\"a\":1}", "\u{feff}{}"])
                    .prop_map(|text| base64url(text.as_bytes())),
                1 => "[A-Za-z0-9_=+/ -]{0,12}",
                1 => any::<String>(),
            ], 1..5),
        ) {
            let text = parts.join(".");
            let Ok(token) = UnverifiedToken::parse(&text) else { return Ok(()) };
            let (signed, _) = text.rsplit_once('.').unwrap();
            let (header, payload) = signed.split_once('.').unwrap();
            prop_assert_eq!(base64url(&from_base64url(header).unwrap()), header);
            prop_assert_eq!(base64url(token.payload()), payload);
            let claims: Value = serde_json::from_slice(token.payload()).unwrap();
            prop_assert_eq!(claims.as_object(), Some(token.claims()));
            let (own, _) = SigningKey::generate().unwrap();
            prop_assert!(token.verify(own.public()).is_err());
        }
    }
}
