use p521::ecdsa::signature::Signer;
use proptest::prelude::*;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use serde_json::json;

use super::*;
use crate::encoding::base64url;

/// Something that signs, with its published form.
struct Signer521(p521::ecdsa::SigningKey);
struct SignerEc(EcdsaKeyPair);

fn p521() -> (Signer521, Value) {
    let key =
        p521::ecdsa::SigningKey::from_slice(&[7; 66][..].iter().enumerate().map(first_is_small).collect::<Vec<_>>());
    let key = key.unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let (x, y) = point.as_bytes()[1..].split_at(66);
    (Signer521(key), json!({"kty": "EC", "crv": "P-521", "kid": "k", "x": base64url(x), "y": base64url(y)}))
}

/// A P-521 scalar has 521 bits: the first of 66 bytes is 0 or 1.
fn first_is_small((index, byte): (usize, &u8)) -> u8 {
    if index == 0 { 1 } else { *byte }
}

fn ec(curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> (SignerEc, Value) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "kid": "k", "x": base64url(x), "y": base64url(y)});
    (SignerEc(pair), jwk)
}

trait Sign {
    fn sign(&self, message: &[u8]) -> Vec<u8>;

    fn token(&self, header: &Value, payload: &Value) -> String {
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload.to_string().as_bytes()));
        let signature = base64url(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

impl Sign for Signer521 {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p521::ecdsa::Signature = self.0.sign(message);
        signature.to_bytes().to_vec()
    }
}

impl Sign for SignerEc {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

fn set(keys: Value) -> Result<ForeignKeySet, UnusableKeySet> {
    ForeignKeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
}

fn judge(set: &ForeignKeySet, text: &str) -> Result<bool, ForeignHeaderFault> {
    let token = UnverifiedToken::parse(text).unwrap();
    let header = ForeignHeader::of(&token)?;
    Ok(set.verify(&token, &header).is_ok())
}

/// A 2048-bit modulus that nobody has the factors of; good for everything but verifying.
fn modulus(first: u8, last: u8, bytes: usize) -> Vec<u8> {
    let mut n = vec![0x5A; bytes];
    n[0] = first;
    n[bytes - 1] = last;
    n
}

fn rsa_jwk(n: &[u8], e: &[u8]) -> Value {
    json!({"kty": "RSA", "kid": "k", "n": base64url(n), "e": base64url(e)})
}

mod t02_sts_foreign_tokens {
    use super::*;

    #[test]
    fn each_curve_verifies_with_its_own_algorithm_and_no_other() {
        let (p256, jwk256) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        let (p384, jwk384) = ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING);
        let (p521, jwk521) = p521();
        let signers: [(&dyn Sign, Value, &str); 3] =
            [(&p256, jwk256, "ES256"), (&p384, jwk384, "ES384"), (&p521, jwk521, "ES512")];
        for (signer, jwk, own) in &signers {
            let set = set(json!([jwk])).unwrap();
            for alg in ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] {
                let text = signer.token(&json!({"alg": alg, "kid": "k"}), &json!({"a": 1}));
                assert_eq!(judge(&set, &text), Ok(alg == *own), "{own} key, {alg} token");
            }
        }
    }

    #[test]
    fn symmetric_and_unknown_algorithms_are_refused_whatever_signed() {
        let (signer, _) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        for alg in ["HS256", "HS384", "HS512", "none", "None", "PS256", "EdDSA", "ES256K", "es256", "RS256 ", ""] {
            let text = signer.token(&json!({"alg": alg, "kid": "k"}), &json!({}));
            let token = UnverifiedToken::parse(&text).unwrap();
            assert_eq!(ForeignHeader::of(&token), Err(ForeignHeaderFault::Algorithm), "{alg}");
        }
        for (header, fault) in [
            (json!({"kid": "k"}), ForeignHeaderFault::Algorithm),
            (json!({"alg": ["ES256"], "kid": "k"}), ForeignHeaderFault::Algorithm),
            (json!({"alg": "ES256"}), ForeignHeaderFault::NoKeyNamed),
            (json!({"alg": "ES256", "kid": ""}), ForeignHeaderFault::NoKeyNamed),
            (json!({"alg": "ES256", "kid": 1}), ForeignHeaderFault::NoKeyNamed),
            (json!({"alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false}), ForeignHeaderFault::Critical),
        ] {
            let text = signer.token(&header, &json!({}));
            let token = UnverifiedToken::parse(&text).unwrap();
            assert_eq!(ForeignHeader::of(&token), Err(fault), "{header}");
        }
    }

    /// The classic confusion: what everybody may fetch used as a secret.
    #[test]
    fn a_published_key_is_never_a_secret() {
        let (_, jwk) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        for keys in [json!([jwk.clone(), {"kty": "oct", "kid": "s", "k": "AAAA"}]), json!([jwk])] {
            let set = set(keys).unwrap();
            assert!(!set.contains("s"));
            let hmac = crate::hmac::HmacKey::from_bytes(&[1; 32]).unwrap();
            let signed = format!("{}.{}", base64url(br#"{"alg":"HS256","kid":"k"}"#), base64url(b"{}"));
            let text = format!("{signed}.{}", base64url(&hmac.sign(&[signed.as_bytes()])));
            assert_eq!(judge(&set, &text), Err(ForeignHeaderFault::Algorithm));
        }
        assert_eq!(set(json!([{"kty": "oct", "kid": "s", "k": "AAAA"}])).err(), Some(UnusableKeySet::NoUsableKey));
    }

    #[test]
    fn a_token_verifies_with_the_key_it_names_only() {
        let (signer, mut jwk) = ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING);
        let (_, mut other) = ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING);
        (jwk["kid"], other["kid"]) = (json!("own"), json!("other"));
        let set = set(json!([jwk, other])).unwrap();
        for (kid, verifies) in [("own", true), ("other", false), ("none", false), ("OWN", false)] {
            let text = signer.token(&json!({"alg": "ES384", "kid": kid}), &json!({}));
            assert_eq!(judge(&set, &text), Ok(verifies), "{kid}");
        }
    }

    #[test]
    fn keys_of_two_types_may_share_an_id() {
        let (p256, one) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        let (p521, other) = p521();
        let set = set(json!([one, rsa_jwk(&modulus(0x80, 1, 256), &[1, 0, 1]), other])).unwrap();
        assert_eq!(judge(&set, &p256.token(&json!({"alg": "ES256", "kid": "k"}), &json!({}))), Ok(true));
        assert_eq!(judge(&set, &p521.token(&json!({"alg": "ES512", "kid": "k"}), &json!({}))), Ok(true));
    }

    #[test]
    fn a_key_that_names_its_algorithm_verifies_that_one_alone() {
        let (signer, mut jwk) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        let text = signer.token(&json!({"alg": "ES256", "kid": "k"}), &json!({}));
        for (alg, verifies) in [("ES256", true), ("ES384", false), ("RS256", false)] {
            jwk["alg"] = json!(alg);
            assert_eq!(judge(&set(json!([jwk])).unwrap(), &text), Ok(verifies), "{alg}");
        }
        for alg in [json!("ECDH-ES"), json!("HS256"), json!(null), json!(["ES256"]), json!("")] {
            jwk["alg"] = alg;
            assert!(set(json!([jwk])).is_err());
        }
    }

    #[test]
    fn an_unusable_key_is_skipped() {
        let (_, good) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
        let (_, good521) = p521();
        let change = |jwk: &Value, name: &str, value: Value| {
            let mut jwk = jwk.clone();
            jwk[name] = value;
            jwk
        };
        let n = modulus(0x80, 1, 256);
        for unusable in [
            change(&good, "kid", json!("")),
            change(&good, "kid", json!(null)),
            change(&good, "kid", json!(7)),
            change(&good, "use", json!("enc")),
            change(&good, "use", json!(null)),
            change(&good, "key_ops", json!(["sign"])),
            change(&good, "kty", json!("OKP")),
            change(&good, "kty", json!("ec")),
            change(&good, "crv", json!("secp256k1")),
            change(&good, "crv", json!("P-384")),
            change(&good, "x", good["y"].clone()),
            change(&good, "x", json!(base64url(&[1; 31]))),
            change(&good, "x", json!(base64url(&[0; 33]))),
            change(&good521, "y", json!(base64url(&[1; 66]))),
            change(&good521, "x", json!(base64url(&[1; 65]))),
            json!({"kty": "RSA", "kid": "k", "n": base64url(&n)}),
            rsa_jwk(&modulus(0x7F, 1, 256), &[1, 0, 1]),
            rsa_jwk(&modulus(0x80, 1, 128), &[1, 0, 1]),
            rsa_jwk(&modulus(0x01, 1, 1025), &[1, 0, 1]),
            rsa_jwk(&modulus(0x80, 2, 256), &[1, 0, 1]),
            rsa_jwk(&n, &[1]),
            rsa_jwk(&n, &[2]),
            rsa_jwk(&n, &[4]),
            rsa_jwk(&n, &[]),
            rsa_jwk(&[], &[3]),
            rsa_jwk(&n, &[0x80, 0, 0, 1]),
            rsa_jwk(&n, &[1, 0, 0, 0, 1]),
            json!("k"),
        ] {
            assert_eq!(set(json!([unusable])).err(), Some(UnusableKeySet::NoUsableKey), "{unusable}");
            let set = set(json!([unusable, change(&good, "kid", json!("good"))])).unwrap();
            assert!(set.contains("good") && !set.contains("k"), "{unusable}");
        }
        for usable in [
            rsa_jwk(&n, &[3]),
            rsa_jwk(&n, &[0x7F, 0xFF, 0xFF, 0xFF]),
            rsa_jwk(&[&[0, 0], &n[..]].concat(), &[0, 1, 0, 1]),
            rsa_jwk(&modulus(0x80, 1, 1024), &[3]),
            change(&good, "use", json!("sig")),
        ] {
            assert!(set(json!([usable])).is_ok(), "{usable}");
        }
    }

    #[test]
    fn a_document_that_is_no_key_set_yields_none() {
        for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            assert_eq!(ForeignKeySet::from_jwks(document.as_bytes()).err(), Some(UnusableKeySet::Malformed));
        }
    }

    #[test]
    fn signatures_of_p521_that_no_key_makes_are_refused() {
        let (signer, jwk) = p521();
        let set = set(json!([jwk])).unwrap();
        let text = signer.token(&json!({"alg": "ES512", "kid": "k"}), &json!({}));
        assert_eq!(judge(&set, &text), Ok(true));
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let bytes = from_base64url(signature).unwrap();
        let order = crate::encoding::from_hex(concat!(
            "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa",
            "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"
        ));
        let order = order.unwrap();
        let zero = vec![0; 66];
        for wrong in [
            Vec::new(),
            bytes[..131].to_vec(),
            [&bytes[..], &[0]].concat(),
            [&zero[..], &bytes[66..]].concat(),
            [&bytes[..66], &zero].concat(),
            [&order[..], &bytes[66..]].concat(),
            [&bytes[..66], &order].concat(),
            vec![0xFF; 132],
        ] {
            let text = format!("{signed}.{}", base64url(&wrong));
            assert_eq!(judge(&set, &text), Ok(false), "{}", crate::encoding::hex(&wrong));
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_keeps_a_foreign_token_from_verifying(
            curve in 0..3_usize,
            position in any::<prop::sample::Index>(),
            replacement in 0_u8..128,
        ) {
            let (p256, p384, p521) = (
                ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
                ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
                p521(),
            );
            let (signer, jwk, alg): (&dyn Sign, &Value, &str) = match curve {
                0 => (&p256.0, &p256.1, "ES256"),
                1 => (&p384.0, &p384.1, "ES384"),
                _ => (&p521.0, &p521.1, "ES512"),
            };
            let set = set(json!([jwk])).unwrap();
            let genuine = signer.token(&json!({"alg": alg, "kid": "k"}), &json!({"sub": "u", "exp": 1_800_000_000}));
            prop_assert_eq!(judge(&set, &genuine), Ok(true));
            let mut changed = genuine.into_bytes();
            let position = position.index(changed.len());
            prop_assume!(changed[position] != replacement);
            changed[position] = replacement;
            let changed = String::from_utf8(changed).unwrap();
            let accepted = UnverifiedToken::parse(&changed)
                .is_ok_and(|token| ForeignHeader::of(&token).is_ok_and(|header| set.verify(&token, &header).is_ok()));
            prop_assert!(!accepted, "{}", changed);
        }

        #[test]
        fn no_document_is_too_strange_to_be_refused(document in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ForeignKeySet::from_jwks(&document);
        }
    }
}
