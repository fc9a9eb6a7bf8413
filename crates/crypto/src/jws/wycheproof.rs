//! What others already found: the public Wycheproof vectors against our verification.
//!
//! The files in `tests/vectors/wycheproof` know the results "valid" and "invalid"; a case marked "acceptable" does not
//! occur in them. Should an update bring one, [`is_valid`] fails and somebody has to decide and say why.

use serde_json::{Value, json};

use super::token::Compact;
use super::{BadSignature, ForeignAlg, ForeignHeader, ForeignKeySet, KeySet, PublicKey};
use crate::encoding::{array_from_hex, from_hex};

const ECDSA: &str = include_str!("../../tests/vectors/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json");
const JWS: &str = include_str!("../../tests/vectors/wycheproof/json_web_signature_test.json");
const JWK: &str = include_str!("../../tests/vectors/wycheproof/json_web_key_test.json");

/// Each test of a file, with the group it stands in.
fn for_each_test(file: &str, mut check: impl FnMut(&Value, &Value)) {
    let file: Value = serde_json::from_str(file).unwrap();
    let mut seen = 0;
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            check(group, test);
            seen += 1;
        }
    }
    assert_eq!(Some(seen), file["numberOfTests"].as_u64());
}

fn is_valid(test: &Value) -> bool {
    match test["result"].as_str() {
        Some("valid") => true,
        Some("invalid") => false,
        other => panic!("test {}: nobody has decided about the result {other:?}", test["tcId"]),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    from_hex(value.as_str().unwrap()).unwrap()
}

/// The ids of the tests in a JOSE file that verify with a key of their group.
///
/// The payloads are not JSON objects, so the tokens are taken apart below [`super::UnverifiedToken`]. The `kid` of the
/// header is not consulted: a wrong one must fail by its signature as well.
fn accepted(file: &str) -> Vec<u64> {
    let mut accepted = Vec::new();
    for_each_test(file, |group, test| {
        let keys = group.get("public").or_else(|| group.get("private")).unwrap();
        let document = if keys.get("keys").is_some() { keys.clone() } else { json!({ "keys": [keys] }) };
        let Ok(set) = KeySet::from_jwks(document.to_string().as_bytes()) else {
            return;
        };
        let key = set.get("kid-ec-sign").unwrap();
        // Later files wrap a token in an object; here it is always text.
        if Compact::parse(test["jws"].as_str().unwrap()).is_ok_and(|token| token.verify(key).is_ok()) {
            accepted.push(test["tcId"].as_u64().unwrap());
        }
    });
    accepted
}

/// The ids of the tests in a JOSE file that verify as foreign tokens do: with the algorithm and key their header names.
fn accepted_as_foreign(file: &str) -> Vec<u64> {
    let mut accepted = Vec::new();
    for_each_test(file, |group, test| {
        let keys = group.get("public").or_else(|| group.get("private")).unwrap();
        let mut document = if keys.get("keys").is_some() { keys.clone() } else { json!({ "keys": [keys] }) };
        for key in document["keys"].as_array_mut().unwrap() {
            // The name that the file gives the algorithm of P-521 does not exist.
            if key["alg"] == "ES521" {
                key["alg"] = json!("ES512");
            }
        }
        let Ok(set) = ForeignKeySet::from_jwks(document.to_string().as_bytes()) else { return };
        let Ok(token) = Compact::parse(test["jws"].as_str().unwrap_or_default()) else { return };
        let (Some(alg), Some(kid)) = (token.member("alg").and_then(ForeignAlg::parse), token.member("kid")) else {
            return;
        };
        if set.verify_compact(&token, &ForeignHeader { alg, kid }).is_ok() {
            accepted.push(test["tcId"].as_u64().unwrap());
        }
    });
    accepted
}

mod t02_sts_foreign_tokens {
    use super::*;

    /// Of what is valid there the RSA and EC ones that are for verifying; nothing symmetric, no PSS, nothing invalid.
    #[test]
    fn foreign_tokens_verify_exactly_when_they_are_valid_and_of_our_algorithms() {
        let mut expected = Vec::new();
        for_each_test(JWS, |group, test| {
            let keys = group.get("public").or_else(|| group.get("private")).unwrap();
            let alg = keys["alg"].as_str().unwrap_or_default();
            if is_valid(test) && (alg.starts_with("RS") || alg.starts_with("ES")) {
                expected.push(test["tcId"].as_u64().unwrap());
            }
        });
        assert_eq!(accepted_as_foreign(JWS), expected);
        assert!(expected.len() >= 17, "{expected:?}");
    }

    /// Test 7 is a key of a generator that chose badly (ROCA). It is a key like any other to look at; whoever registers
    /// an identity provider trusts it to keep better ones.
    #[test]
    fn no_foreign_token_verifies_with_a_key_that_must_not_be_used() {
        assert_eq!(accepted_as_foreign(JWK), [5, 7]);
    }
}

mod t16_verify {
    use super::*;

    #[test]
    fn ecdsa_signatures_verify_exactly_when_they_are_valid() {
        for_each_test(ECDSA, |group, test| {
            let point = group["publicKey"]["uncompressed"].as_str().unwrap();
            let (x, y) = point.strip_prefix("04").unwrap().split_at(64);
            let key = PublicKey::from_coordinates(&array_from_hex(x).unwrap(), &array_from_hex(y).unwrap()).unwrap();
            let expected = if is_valid(test) { Ok(()) } else { Err(BadSignature) };
            assert_eq!(key.verify(&bytes(&test["msg"]), &bytes(&test["sig"])), expected, "test {}", test["tcId"]);
        });
    }

    /// Valid and ES256 are 18 and 378. Everything else the file calls valid is RSA, HMAC or P-521: with one algorithm
    /// there is nothing to confuse, so those must fail here as surely as the invalid ones.
    #[test]
    fn of_all_signed_tokens_only_the_genuine_es256_ones_verify() {
        assert_eq!(accepted(JWS), [18, 378]);
        for_each_test(JWS, |_, test| {
            let id = test["tcId"].as_u64().unwrap();
            assert!(is_valid(test) || ![18, 378].contains(&id));
        });
    }

    /// The tokens with EC keys carry a genuine signature; what is wrong is the key: its type, curve, algorithm, use or
    /// point. The symmetric and RSA ones, valid or not, have no key that we could use. One set mixes an ES256 key with
    /// a secret; the token signed with the secret must not verify.
    #[test]
    fn no_token_verifies_with_a_key_that_must_not_be_used() {
        assert_eq!(accepted(JWK), [] as [u64; 0]);
        let mut genuine = 0;
        for_each_test(JWK, |_, test| {
            let token = test["jws"].as_str().unwrap_or_default();
            genuine += u32::from(is_valid(test) && token.starts_with("eyJhbGciOiJFUzI1NiIs"));
        });
        assert_eq!(genuine, 0, "the file now has an ES256 token that should verify");
    }
}
