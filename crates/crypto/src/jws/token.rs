//! What a caller presented as a token, taken apart but not yet believed.

use serde_json::{Map, Value};

use super::key::{BadSignature, PublicKey};
use super::proven::{self, Entry};
use super::{ALG, object};
use crate::encoding::from_base64url;

/// A well-formed compact JWS whose payload is a JSON object. Nothing in it may be believed before
/// [`UnverifiedToken::verify`] has said yes; until then the claims serve to choose the zone and key to verify with.
///
/// It borrows the bearer, so that no further copy of it is made, and like a secret it cannot be printed.
pub struct UnverifiedToken<'t> {
    compact: Compact<'t>,
    claims: Map<String, Value>,
}

/// Text that is not a token at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedToken {
    /// Not three parts between two dots.
    #[error("not three parts")]
    Parts,
    /// Header or payload is not unpadded base64url.
    #[error("{0} is not base64url")]
    Encoding(Part),
    /// Header or payload is not a JSON object, or one with a member twice.
    #[error("{0} is not a JSON object without repeated members")]
    Json(Part),
}

/// The parts of a token that must decode for it to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first part.
    Header,
    /// The second part.
    Payload,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
        })
    }
}

impl<'t> UnverifiedToken<'t> {
    /// Takes `text` apart. Its length is the caller's to bound.
    ///
    /// The signature part is only looked at by [`UnverifiedToken::verify`]: a wrong one is a bad signature, however it
    /// is spelt, and not a malformed token (contract: gateway.md §6 steps 4 and 11).
    pub fn parse(text: &'t str) -> Result<Self, MalformedToken> {
        let compact = Compact::parse(text)?;
        let claims = object::parse(&compact.payload).ok_or(MalformedToken::Json(Part::Payload))?;
        Ok(Self { compact, claims })
    }

    /// The header's `alg`, if it is text.
    pub fn alg(&self) -> Option<&str> {
        self.compact.member("alg")
    }

    /// The header's `kid`, if it is text.
    pub fn kid(&self) -> Option<&str> {
        self.compact.member("kid")
    }

    pub(super) fn compact(&self) -> &Compact<'t> {
        &self.compact
    }

    /// The decoded payload, byte for byte as signed.
    pub fn payload(&self) -> &[u8] {
        &self.compact.payload
    }

    /// The payload's members. Typed claims: `Claims::deserialize(token.claims())`.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The payload's members, when the token itself is no longer needed.
    pub fn into_claims(self) -> Map<String, Value> {
        self.claims
    }

    /// Whether `key` signed exactly this header and payload with ES256. The caller has chosen the key by zone and
    /// [`UnverifiedToken::kid`]; that the claims are in force is still to be checked.
    pub fn verify(&self, key: &PublicKey) -> Result<(), BadSignature> {
        proven::count();
        self.compact.verify(key)
    }

    /// The same answer as of [`verify`](Self::verify), and sooner for a token that this process has verified a moment ago.
    pub fn verify_once(&self, key: &PublicKey) -> Result<(), BadSignature> {
        let entry = Entry::of(key, self.compact.signed, self.compact.signature);
        if !entry.is_proven() {
            self.verify(key)?;
            entry.remember();
        }
        Ok(())
    }
}

/// The signed envelope without any opinion on the payload.
pub(super) struct Compact<'t> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signed: &'t str,
    signature: &'t str,
}

impl<'t> Compact<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, MalformedToken> {
        let (signed, signature) = text.rsplit_once('.').ok_or(MalformedToken::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(MalformedToken::Parts)?;
        if payload.contains('.') {
            return Err(MalformedToken::Parts);
        }
        let header = from_base64url(header).ok_or(MalformedToken::Encoding(Part::Header))?;
        let payload = from_base64url(payload).ok_or(MalformedToken::Encoding(Part::Payload))?;
        let header = object::parse(&header).ok_or(MalformedToken::Json(Part::Header))?;
        Ok(Self { header, payload, signed, signature })
    }

    pub(super) fn member(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    pub(super) fn has_member(&self, name: &str) -> bool {
        self.header.contains_key(name)
    }

    /// Header and payload as they were signed.
    pub(super) fn signed(&self) -> &str {
        self.signed
    }

    /// The signature, unless it is spelt wrongly.
    pub(super) fn signature(&self) -> Option<Vec<u8>> {
        from_base64url(self.signature)
    }

    pub(super) fn verify(&self, key: &PublicKey) -> Result<(), BadSignature> {
        if self.member("alg") != Some(ALG) {
            return Err(BadSignature);
        }
        let signature = self.signature().ok_or(BadSignature)?;
        key.verify(self.signed.as_bytes(), &signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::encoding::base64url;
    use crate::jws::SigningKey;

    fn refusal(text: &str) -> Option<MalformedToken> {
        UnverifiedToken::parse(text).err()
    }

    /// A token with any header and payload whatever, validly signed over both as they stand.
    fn signed(key: &SigningKey, header: &str, payload: &str) -> String {
        let parts = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        key.append_signature(parts).unwrap()
    }

    #[test]
    fn claims_are_read_as_signed() {
        #[derive(Deserialize)]
        struct Claims {
            sub: String,
            exp: i64,
        }
        let (key, _) = SigningKey::generate().unwrap();
        let text = key.sign("k-1", &json!({"sub": "app-1", "exp": 1_800_000_000})).unwrap();
        let token = UnverifiedToken::parse(&text).unwrap();
        assert_eq!((token.alg(), token.kid()), (Some("ES256"), Some("k-1")));
        assert_eq!(token.payload(), br#"{"exp":1800000000,"sub":"app-1"}"#);
        let claims = Claims::deserialize(token.claims()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.exp), ("app-1", 1_800_000_000));
        assert_eq!(token.verify(key.public()), Ok(()));
        assert_eq!(token.into_claims()["sub"], "app-1");
    }

    mod t16_verify {
        use super::*;

        #[test]
        fn a_token_that_was_verified_before_proves_no_other() {
            let (key, other) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
            let text = signed(&key, r#"{"alg":"ES256"}"#, r#"{"sub":"app-1"}"#);
            let verdict =
                |text: &str, key: &SigningKey| UnverifiedToken::parse(text).unwrap().verify_once(key.public());
            for _ in 0..2 {
                assert_eq!(verdict(&text, &other), Err(BadSignature));
                assert_eq!(verdict(&text, &key), Ok(()));
            }
            let (rest, signature) = text.rsplit_once('.').unwrap();
            let others = [
                format!(
                    "{}.{signature}",
                    rest.replace(&base64url(br#"{"sub":"app-1"}"#), &base64url(br#"{"sub":"app-2"}"#))
                ),
                format!(
                    "{}.{signature}",
                    rest.replacen(&base64url(br#"{"alg":"ES256"}"#), &base64url(br#"{"alg":"ES256","kid":"k"}"#), 1)
                ),
                format!("{rest}."),
                format!("{rest}.{signature}A"),
                format!("{rest}.{}", signature.chars().rev().collect::<String>()),
            ];
            for other in others {
                assert_ne!(other, text);
                for _ in 0..2 {
                    assert_eq!(verdict(&other, &key), Err(BadSignature), "{other}");
                }
            }
            // Nor does a name in the header: one that says it was not signed is never believed.
            let unsigned = signed(&key, r#"{"alg":"none"}"#, "{}");
            assert_eq!((verdict(&unsigned, &key), verdict(&unsigned, &key)), (Err(BadSignature), Err(BadSignature)));
        }

        proptest! {
            #[test]
            fn whether_it_was_verified_before_makes_no_difference(payload in "[a-z]{0,40}", at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
                let (key, _) = SigningKey::generate().unwrap();
                let whole = signed(&key, r#"{"alg":"ES256"}"#, &json!({"sub": payload}).to_string());
                let token = UnverifiedToken::parse(&whole).unwrap();
                prop_assert_eq!(token.verify_once(key.public()), Ok(()));
                let mut bent = whole.clone();
                let at = at.index(bent.len());
                bent.replace_range(at..=at, &with);
                if let Ok(token) = UnverifiedToken::parse(&bent) {
                    prop_assert_eq!(token.verify_once(key.public()), token.verify(key.public()));
                }
            }
        }

        #[test]
        fn what_is_not_three_parts_of_base64url_objects_is_no_token() {
            let (object, text) = (base64url(b"{}"), base64url(b"foo"));
            let cases: [(String, MalformedToken); 15] = [
                (String::new(), MalformedToken::Parts),
                (object.clone(), MalformedToken::Parts),
                (format!("{object}.{object}"), MalformedToken::Parts),
                (format!("{object}.{object}.x.x"), MalformedToken::Parts),
                (format!(".{object}."), MalformedToken::Json(Part::Header)),
                (format!("{object}.."), MalformedToken::Json(Part::Payload)),
                (format!("{object}=.{object}."), MalformedToken::Encoding(Part::Header)),
                (format!("{object}.{object}=."), MalformedToken::Encoding(Part::Payload)),
                (format!("{object} .{object}."), MalformedToken::Encoding(Part::Header)),
                (format!("{object}.a+/_."), MalformedToken::Encoding(Part::Payload)),
                (format!("{object}.e31."), MalformedToken::Encoding(Part::Payload)),
                (format!("{text}.{object}."), MalformedToken::Json(Part::Header)),
                (format!("{object}.{text}."), MalformedToken::Json(Part::Payload)),
                (format!("{}.{object}.", base64url(br#"{"kid":"a","kid":"b"}"#)), MalformedToken::Json(Part::Header)),
                (format!("{object}.{}.", base64url(br#"{"aud":"a","aud":"b"}"#)), MalformedToken::Json(Part::Payload)),
            ];
            for (text, expected) in cases {
                assert_eq!(refusal(&text), Some(expected), "{text}");
            }
        }

        #[test]
        fn only_es256_verifies_whatever_else_the_header_says() {
            let (key, _) = SigningKey::generate().unwrap();
            let verdict = |header: &str| {
                UnverifiedToken::parse(&signed(&key, header, "{}")).map(|token| token.verify(key.public()))
            };
            assert_eq!(verdict(r#"{"alg":"ES256"}"#), Ok(Ok(())));
            assert_eq!(verdict(r#"{"alg":"ES256","typ":"x","crit":["x"],"jku":"x","x5u":"x"}"#), Ok(Ok(())));
            for alg in [r#""none""#, r#""RS256""#, r#""HS256""#, r#""es256""#, r#""ES256 ""#, r#""""#, "null", "256"] {
                assert_eq!(verdict(&format!(r#"{{"alg":{alg}}}"#)), Ok(Err(BadSignature)), "{alg}");
            }
            assert_eq!(verdict("{}"), Ok(Err(BadSignature)));
            assert_eq!(verdict(r#"{"alg":["ES256"]}"#), Ok(Err(BadSignature)));
        }

        #[test]
        fn a_token_supplies_neither_its_key_nor_its_algorithm() {
            let ((ours, _), (theirs, _)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
            let jwk = serde_json::to_string(&crate::jws::Jwk::new("k-1", theirs.public())).unwrap();
            let text = signed(&theirs, &format!(r#"{{"alg":"ES256","kid":"k-1","jwk":{jwk}}}"#), "{}");
            assert_eq!(UnverifiedToken::parse(&text).unwrap().verify(ours.public()), Err(BadSignature));
            // The classic confusion: HMAC keyed with the public key.
            let (x, y) = ours.public().coordinates();
            let hmac = crate::hmac::HmacKey::from_bytes(&[x, y].concat()).unwrap();
            let signed = format!("{}.{}", base64url(br#"{"alg":"HS256","kid":"k-1"}"#), base64url(b"{}"));
            let text = format!("{signed}.{}", base64url(&hmac.sign(&[signed.as_bytes()])));
            assert_eq!(UnverifiedToken::parse(&text).unwrap().verify(ours.public()), Err(BadSignature));
        }

        #[test]
        fn a_wrongly_spelt_signature_is_a_bad_signature_not_a_malformed_token() {
            let (key, _) = SigningKey::generate().unwrap();
            let text = key.sign("k-1", &json!({})).unwrap();
            let (signed, signature) = text.rsplit_once('.').unwrap();
            let bytes = from_base64url(signature).unwrap();
            for wrong in [
                String::new(),
                "*".to_owned(),
                format!("{signature}="),
                format!("{signature}=="),
                base64url(&bytes[..63]),
                base64url(&[&bytes[..], b"\0"].concat()),
                base64url(&[0; 64]),
            ] {
                let text = format!("{signed}.{wrong}");
                let token = UnverifiedToken::parse(&text).unwrap();
                assert_eq!(token.verify(key.public()), Err(BadSignature), "{wrong}");
            }
        }

        proptest! {
            #[test]
            fn what_is_signed_verifies_with_its_key_only(kid in ".{0,40}", sub in ".*", n in any::<i64>()) {
                let ((key, _), (other, _)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
                let claims = json!({"sub": sub, "n": n, "list": [{"a": sub}]});
                let text = key.sign(&kid, &claims).unwrap();
                let token = UnverifiedToken::parse(&text).unwrap();
                prop_assert_eq!(token.kid(), Some(kid.as_str()));
                prop_assert_eq!(Value::Object(token.claims().clone()), claims);
                prop_assert_eq!(token.verify(key.public()), Ok(()));
                prop_assert_eq!(token.verify(other.public()), Err(BadSignature));
            }

            #[test]
            fn any_changed_byte_keeps_a_token_from_verifying(
                position in any::<prop::sample::Index>(),
                replacement in 0_u8..128,
            ) {
                let (key, _) = SigningKey::generate().unwrap();
                let genuine = key.sign("k-1", &json!({"sub": "app-1", "exp": 1_800_000_000})).unwrap();
                let mut changed = genuine.clone().into_bytes();
                let position = position.index(changed.len());
                prop_assume!(changed[position] != replacement);
                changed[position] = replacement;
                let changed = String::from_utf8(changed).unwrap();
                let accepted = UnverifiedToken::parse(&changed).is_ok_and(|token| token.verify(key.public()).is_ok());
                prop_assert!(!accepted, "{}", changed);
            }
        }
    }
}
