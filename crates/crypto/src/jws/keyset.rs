//! Public keys as they are published and fetched: JSON Web Keys.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::key::PublicKey;
use super::{ALG, object};
use crate::encoding::{base64url, from_base64url};

/// One published key (contract: sts.md §6), members in the order of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The key's id, as in token headers.
    pub kid: String,
    /// `ES256`.
    pub alg: String,
    /// 32 bytes, big-endian, base64url: 43 characters.
    pub x: String,
    /// Likewise.
    pub y: String,
}

impl Jwk {
    /// The published form of `key` under the id `kid`.
    pub fn new(kid: &str, key: &PublicKey) -> Self {
        let (x, y) = key.coordinates();
        Self {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            usage: "sig".to_owned(),
            kid: kid.to_owned(),
            alg: ALG.to_owned(),
            x: base64url(x),
            y: base64url(y),
        }
    }
}

/// The document at `/.well-known/jwks.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// Newest key first.
    pub keys: Vec<Jwk>,
}

/// The usable keys of one zone by `kid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: HashMap<String, PublicKey>,
}

/// A document that yields no key to verify with. Never a reason to accept, nor to keep an older set for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKeySet {
    /// Not a JSON object with a list `keys`.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// Not one of its keys can be used.
    #[error("the key set has no usable key")]
    NoUsableKey,
}

impl KeySet {
    /// From a fetched document. Keys that cannot be used (another type, curve, algorithm or purpose, no `kid`, off the
    /// curve) are skipped, the last of several with one `kid` wins (contract: gateway.md §8). The document's size is
    /// the caller's to bound.
    pub fn from_jwks(document: &[u8]) -> Result<Self, UnusableKeySet> {
        let keys: HashMap<_, _> = entries(document)?.iter().filter_map(Value::as_object).filter_map(usable).collect();
        if keys.is_empty() { Err(UnusableKeySet::NoUsableKey) } else { Ok(Self { keys }) }
    }

    /// The key a token claims to be signed with. `None` means that the token must not be accepted.
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.get(kid)
    }

    /// How many keys can be used; at least one.
    #[allow(clippy::len_without_is_empty, reason = "a set without keys is never built")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

/// What the member `keys` of a document lists.
pub(super) fn entries(document: &[u8]) -> Result<Vec<Value>, UnusableKeySet> {
    match object::parse(document).and_then(|mut document| document.remove("keys")) {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err(UnusableKeySet::Malformed),
    }
}

/// Whether a key is meant for verifying signatures, or leaves open what it is meant for; `None` for nonsense.
pub(super) fn may_verify(jwk: &Map<String, Value>) -> Option<bool> {
    let for_signatures = match jwk.get("use") {
        None => true,
        Some(usage) => matches!(usage.as_str(), Some("" | "sig")),
    };
    let for_verifying = match jwk.get("key_ops") {
        None => true,
        Some(operations) => {
            let operations = operations.as_array()?;
            operations.is_empty() || operations.iter().any(|operation| operation == "verify")
        }
    };
    Some(for_signatures && for_verifying)
}

fn usable(jwk: &Map<String, Value>) -> Option<(String, PublicKey)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").filter(|kid| !kid.is_empty())?;
    if text("kty")? != "EC" || text("crv")? != "P-256" || text("alg")? != ALG || !may_verify(jwk)? {
        return None;
    }
    let coordinate = |name| from_base64url(text(name)?)?.try_into().ok();
    let key = PublicKey::from_coordinates(&coordinate("x")?, &coordinate("y")?).ok()?;
    Some((kid.to_owned(), key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::encoding::array_from_hex;
    use crate::jws::SigningKey;

    fn jwk(kid: &str) -> (Value, PublicKey) {
        let (key, _) = SigningKey::generate().unwrap();
        (serde_json::to_value(Jwk::new(kid, key.public())).unwrap(), key.public().clone())
    }

    fn key_set(keys: Value) -> Result<KeySet, UnusableKeySet> {
        KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn a_published_key_reads_as_the_contract_says() {
        let (key, _) = SigningKey::generate().unwrap();
        let published = Jwk::new("k-1", key.public());
        let text = serde_json::to_string(&Jwks { keys: vec![published.clone()] }).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"keys":[{{"kty":"EC","crv":"P-256","use":"sig","kid":"k-1","alg":"ES256","x":"{}","y":"{}"}}]}}"#,
                published.x, published.y
            )
        );
        assert_eq!((published.x.len(), published.y.len()), (43, 43));
        assert_eq!(serde_json::from_str::<Jwks>(&text).unwrap().keys, [published]);
        let set = KeySet::from_jwks(text.as_bytes()).unwrap();
        assert_eq!((set.len(), set.get("k-1"), set.get("k-2")), (1, Some(key.public()), None));
    }

    #[test]
    fn small_coordinates_are_padded_to_32_bytes() {
        let x = "00000003fa15f963949d5f03a6f5c7f86f9e0015eeb23aebbff1173937ba748e";
        let y = "1099872070e8e87c555fa13659cca5d7fadcfcb0023ea889548ca48af2ba7e71";
        let key = PublicKey::from_coordinates(&array_from_hex(x).unwrap(), &array_from_hex(y).unwrap()).unwrap();
        let published = Jwk::new("k-1", &key);
        assert_eq!(published.x, "AAAAA_oV-WOUnV8DpvXH-G-eABXusjrrv_EXOTe6dI4");
        assert_eq!(published.y.len(), 43);
    }

    mod t16_verify {
        use super::*;

        #[test]
        fn an_unusable_key_is_skipped() {
            let change = |name: &str, value: Value| {
                let (mut entry, _) = jwk("k-1");
                entry[name] = value;
                entry
            };
            let remove = |name: &str| {
                let (mut entry, _) = jwk("k-1");
                entry.as_object_mut().unwrap().remove(name);
                entry
            };
            let short = base64url(&[1; 31]);
            let long = base64url(&[1; 33]);
            let unusable = [
                change("kty", json!("RSA")),
                change("kty", json!("ec")),
                change("crv", json!("P-384")),
                change("alg", json!("ES384")),
                change("alg", json!("none")),
                change("alg", json!(["ES256"])),
                change("use", json!("enc")),
                change("use", json!(null)),
                change("key_ops", json!(["sign"])),
                change("key_ops", json!("verify")),
                change("kid", json!("")),
                change("kid", json!(1)),
                change("x", json!(short)),
                change("y", json!(long)),
                change("y", json!(base64url(&[1; 32]))),
                change("x", json!(format!("{}=", base64url(&[1; 32])))),
                remove("kty"),
                remove("crv"),
                remove("alg"),
                remove("kid"),
                remove("x"),
                remove("y"),
                json!("k-1"),
                json!(null),
            ];
            for entry in &unusable {
                assert_eq!(key_set(json!([entry])), Err(UnusableKeySet::NoUsableKey), "{entry}");
            }
            let (good, key) = jwk("k-2");
            let mut keys = unusable.to_vec();
            keys.insert(10, good);
            let set = key_set(json!(keys)).unwrap();
            assert_eq!((set.len(), set.get("k-1"), set.get("k-2")), (1, None, Some(&key)));
        }

        #[test]
        fn a_key_may_leave_its_purpose_open_or_name_it() {
            for (name, value) in [
                ("use", json!("")),
                ("use", json!("sig")),
                ("key_ops", json!([])),
                ("key_ops", json!(["verify"])),
                ("key_ops", json!(["sign", "verify"])),
                ("x5u", json!("ignored")),
            ] {
                let (mut entry, key) = jwk("k-1");
                entry[name] = value;
                assert_eq!(key_set(json!([entry])).unwrap().get("k-1"), Some(&key), "{entry}");
            }
            let (mut entry, key) = jwk("k-1");
            entry.as_object_mut().unwrap().remove("use");
            assert_eq!(key_set(json!([entry])).unwrap().get("k-1"), Some(&key));
        }

        #[test]
        fn the_last_of_two_keys_with_one_kid_wins() {
            let ((first, _), (last, key)) = (jwk("k-1"), jwk("k-1"));
            let set = key_set(json!([first, last])).unwrap();
            assert_eq!((set.len(), set.get("k-1")), (1, Some(&key)));
            // Only among usable ones: a broken late-comer does not displace a good key.
            let mut broken = first.clone();
            broken["use"] = json!("enc");
            assert_eq!(key_set(json!([last, broken])).unwrap().get("k-1"), Some(&key));
        }

        #[test]
        fn a_document_that_is_no_key_set_yields_none() {
            for (document, expected) in [
                ("", UnusableKeySet::Malformed),
                ("[]", UnusableKeySet::Malformed),
                ("{}", UnusableKeySet::Malformed),
                (r#"{"keys":{}}"#, UnusableKeySet::Malformed),
                (r#"{"keys":null}"#, UnusableKeySet::Malformed),
                (r#"{"keys":[],"keys":[]}"#, UnusableKeySet::Malformed),
                (r#"{"keys":[]}"#, UnusableKeySet::NoUsableKey),
            ] {
                assert_eq!(KeySet::from_jwks(document.as_bytes()), Err(expected), "{document}");
            }
        }
    }
}
