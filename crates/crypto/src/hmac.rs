//! Keyed signatures between our own parts, and on what they publish: gateway requests, stream messages, evidence
//! frames, chain links, idempotency receipts.
//!
//! All are HMAC-SHA256 in lower-case hex. What differs is the text that is signed, and whether two different inputs
//! could ever produce the same text; each function below says how that is excluded.

use std::collections::BTreeMap;

use ring::{digest, hmac};

use crate::chance::{ChanceUnavailable, random_bytes};
use crate::encoding::{array_from_hex, from_hex, hex};
use crate::secret::{Secret, SecretText, constant_time_eq};

/// Fewest bytes an HMAC key may have (contract: audit-and-streams.md §10, gateway.md §21).
pub const MIN_KEY_BYTES: usize = 32;

/// An HMAC-SHA256 key, prepared once: signing hashes the message only.
pub struct HmacKey(hmac::Key);

/// A configured key that cannot be used. The caller adds the name of the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something other than pairs of hex digits.
    #[error("the key is not hex")]
    NotHex,
    /// Fewer than [`MIN_KEY_BYTES`].
    #[error("the key has {0} bytes, at least 32 are needed")]
    TooShort(usize),
}

impl HmacKey {
    /// From hex text of at least 32 bytes, the form of `AUDIT_HMAC_KEY`, `STREAMS_HMAC_KEY`, `GATEWAY_STS_HMAC_KEY`
    /// and `IDEMPOTENCY_HMAC_KEY`.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let bytes = Secret::new(from_hex(text).ok_or(KeyError::NotHex)?);
        Self::from_bytes(bytes.expose())
    }

    /// From at least 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < MIN_KEY_BYTES {
            return Err(KeyError::TooShort(bytes.len()));
        }
        Ok(Self::of_any_length(bytes))
    }

    /// A new random key, with the hex text to keep it by: the key itself does not give its bytes back.
    pub fn generate() -> Result<(Self, SecretText), ChanceUnavailable> {
        let bytes = Secret::new(random_bytes::<32>()?);
        Ok((Self::of_any_length(bytes.expose()), Secret::new(hex(bytes.expose()))))
    }

    /// For keys that are tokens, whose length is not ours to choose.
    pub(crate) fn of_any_length(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The tag over the concatenation of `parts`. The parts' boundaries are **not** signed.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// [`HmacKey::sign`] in lower-case hex.
    pub fn sign_hex(&self, parts: &[&[u8]]) -> String {
        hex(&self.sign(parts))
    }

    /// Whether `presented` is the tag over `parts`: 64 hex digits in either case, compared in constant time.
    pub fn verify_hex(&self, parts: &[&[u8]], presented: &str) -> bool {
        match array_from_hex::<32>(presented) {
            Some(presented) => constant_time_eq(&self.sign(parts), &presented),
            None => false,
        }
    }
}

/// A key that can be replaced, with those that were in use before it: the one in use signs, and what one of the others
/// signed is known by it.
pub struct HmacRing {
    current: HmacKey,
    /// Newest first.
    previous: Vec<HmacKey>,
}

impl HmacRing {
    /// `current` signs; `previous` are those before it, the one that was in use last first.
    pub fn new(current: HmacKey, previous: Vec<HmacKey>) -> Self {
        Self { current, previous }
    }

    /// The key that was in use `age` keys ago; 0 is the one in use.
    pub fn at(&self, age: usize) -> Option<&HmacKey> {
        age.checked_sub(1).map_or(Some(&self.current), |before| self.previous.get(before))
    }

    /// [`HmacKey::sign`] with the key in use.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.current.sign(parts)
    }

    /// [`HmacKey::sign_hex`] with the key in use.
    pub fn sign_hex(&self, parts: &[&[u8]]) -> String {
        self.current.sign_hex(parts)
    }

    /// Whether [`HmacKey::verify_hex`] holds of one of the keys.
    pub fn verify_hex(&self, parts: &[&[u8]], presented: &str) -> bool {
        self.current.verify_hex(parts, presented) || self.previous.iter().any(|key| key.verify_hex(parts, presented))
    }
}

impl From<HmacKey> for HmacRing {
    fn from(key: HmacKey) -> Self {
        Self::new(key, Vec::new())
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// SHA-256 of what comes in pieces.
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all of them, in lower-case hex.
    pub fn finish_hex(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// The signature of a Gateway's request to the STS (contract: sts.md §10.1). `escaped_path` is the path as it stands
/// in the request line, without the query.
///
/// The lines cannot be shifted into each other: the time is a number, the body its digest, and neither a method nor
/// the nonce, path or header values of an HTTP request can contain a line feed ([`verify_gateway_signature`] insists).
pub fn gateway_signature(
    key: &HmacKey,
    timestamp_secs: i64,
    nonce: &str,
    method: &str,
    escaped_path: &str,
    body: &[u8],
) -> String {
    key.sign_hex(&[gateway_text(timestamp_secs, nonce, method, escaped_path, body).as_bytes()])
}

/// Whether `presented` is the [`gateway_signature`] of this request. Skew and single use of the nonce are the
/// caller's to check.
pub fn verify_gateway_signature(
    key: &HmacKey,
    timestamp_secs: i64,
    nonce: &str,
    method: &str,
    escaped_path: &str,
    body: &[u8],
    presented: &str,
) -> bool {
    let one_line = |text: &str| !text.is_empty() && !text.contains(|character: char| character.is_ascii_control());
    one_line(nonce)
        && one_line(method)
        && one_line(escaped_path)
        && key.verify_hex(&[gateway_text(timestamp_secs, nonce, method, escaped_path, body).as_bytes()], presented)
}

fn gateway_text(timestamp_secs: i64, nonce: &str, method: &str, escaped_path: &str, body: &[u8]) -> String {
    let method = method.to_ascii_uppercase();
    format!("{timestamp_secs}\n{nonce}\n{method}\n{escaped_path}\n{}", sha256_hex(body))
}

/// A stream message whose canonical text would be ambiguous. Its fields are named, never its values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsignableMessage {
    /// A control character in the stream's name, a field's name or its value. A line feed would let one value imitate
    /// further fields.
    #[error("control character in `{0}`")]
    ControlCharacter(String),
    /// A field's name contains `=`, or is empty.
    #[error("`{0}` cannot be a field name")]
    FieldName(String),
    /// Two fields of one name.
    #[error("field `{0}` appears twice")]
    RepeatedField(String),
}

/// The origin signature `_sig` of a stream message (contract: audit-and-streams.md §6.2, sts.md §13): over the
/// stream's name and the fields in ascending order of their names, as they stand on the wire. Leave out absent fields;
/// an old `_sig` among them is ignored.
///
/// The canonical form of the contract is injective only without control characters, so such a message is refused
/// here rather than signed: strip them where free text enters.
pub fn stream_signature<'m>(
    key: &HmacKey,
    stream: &str,
    fields: impl IntoIterator<Item = (&'m str, &'m str)>,
) -> Result<String, UnsignableMessage> {
    Ok(key.sign_hex(&[stream_text(stream, fields)?.as_bytes()]))
}

/// Whether `presented` is the [`stream_signature`] of this message. A message that could not have been signed is
/// never accepted.
pub fn verify_stream_signature<'m>(
    key: &HmacKey,
    stream: &str,
    fields: impl IntoIterator<Item = (&'m str, &'m str)>,
    presented: &str,
) -> bool {
    stream_text(stream, fields).is_ok_and(|text| key.verify_hex(&[text.as_bytes()], presented))
}

fn stream_text<'m>(
    stream: &str,
    fields: impl IntoIterator<Item = (&'m str, &'m str)>,
) -> Result<String, UnsignableMessage> {
    let has_control = |text: &str| text.contains(|character: char| character.is_ascii_control());
    if has_control(stream) {
        return Err(UnsignableMessage::ControlCharacter("stream name".to_owned()));
    }
    let mut ordered = BTreeMap::new();
    for (name, value) in fields.into_iter().filter(|(name, _)| *name != "_sig") {
        if name.is_empty() || name.contains('=') || has_control(name) {
            return Err(UnsignableMessage::FieldName(name.escape_default().to_string()));
        }
        if has_control(value) {
            return Err(UnsignableMessage::ControlCharacter(name.to_owned()));
        }
        if ordered.insert(name, value).is_some() {
            return Err(UnsignableMessage::RepeatedField(name.to_owned()));
        }
    }
    let length: usize = ordered.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut text = String::with_capacity(stream.len() + 1 + length);
    text.push_str(stream);
    text.push('\n');
    for (name, value) in ordered {
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    Ok(text)
}

/// The keyed link of a ledger row to its predecessor (contract: audit-and-streams.md §5.2 item 3, admin-api.md §9):
/// over both content digests in hex, joined by `|`. `previous` is `None` for the first row of a chain.
pub fn chain_link(key: &HmacKey, content_sha256: &str, previous: Option<&str>) -> String {
    key.sign_hex(&[content_sha256.as_bytes(), b"|", previous.unwrap_or_default().as_bytes()])
}

/// The digest under which an idempotency receipt is kept (contract: coordinator.md §10), so that no key stands in the
/// store in clear.
pub fn idempotency_key_digest(key: &HmacKey, idempotency_key: &str) -> String {
    key.sign_hex(&[b"caracal:coordinator:idempotency:v1\0", idempotency_key.as_bytes()])
}

/// What a webhook is signed with (contract: admin-api.md §8): `timestamp` in Unix seconds, a dot, the body as it is sent.
/// The timestamp has no dot, so it can't grow into the body. The key is the whole secret, `nsk_` included.
pub fn webhook_signature(secret: &SecretText, timestamp: i64, body: &[u8]) -> String {
    let key = HmacKey::of_any_length(secret.expose().as_bytes());
    format!("v1={}", key.sign_hex(&[timestamp.to_string().as_bytes(), b".", body]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_signs_with_the_key_in_use_and_knows_what_those_before_it_signed() {
        let key = |byte: u8| HmacKey::from_bytes(&[byte; 32]).unwrap();
        let ring = HmacRing::new(key(3), vec![key(2), key(1)]);
        assert_eq!(ring.sign_hex(&[b"x"]), key(3).sign_hex(&[b"x"]));
        assert_eq!(ring.sign(&[b"x"]), key(3).sign(&[b"x"]));
        for (byte, known) in [(3, true), (2, true), (1, true), (4, false)] {
            assert_eq!(ring.verify_hex(&[b"x"], &key(byte).sign_hex(&[b"x"])), known, "{byte}");
        }
        assert!(!ring.verify_hex(&[b"y"], &key(2).sign_hex(&[b"x"])));
        let ages = (0..4).map(|age| ring.at(age).map(|key| key.sign_hex(&[b"x"])));
        let expected = [Some(3), Some(2), Some(1), None].map(|byte| byte.map(|byte| key(byte).sign_hex(&[b"x"])));
        assert!(ages.eq(expected));
    }

    #[test]
    fn webhook_signatures_match_the_contract() {
        let secret = Secret::new(format!("nsk_{}", "0".repeat(48)));
        let expected = "v1=3e705086301f79b068986125e6b372a1abefde22270f323bfb8ba145093483fd";
        assert_eq!(webhook_signature(&secret, 1_767_225_600, br#"{"id":"evt-1"}"#), expected);
    }

    const REPEATED: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const AUDIT: &str = "cc7d03253da31f992f76b1a1b99f3e0324c5c926d4a48eec28a92a4ccc3ed55f";

    fn key(text: &str) -> HmacKey {
        HmacKey::from_hex(text).unwrap()
    }

    /// Bytes 00..1f, the key of most of the contract's vectors.
    fn counting_key() -> HmacKey {
        HmacKey::from_bytes(&std::array::from_fn::<u8, 32, _>(|index| u8::try_from(index).unwrap())).unwrap()
    }

    #[test]
    fn digests_are_sha256() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(&sha256(b"abc")), sha256_hex(b"abc"));
    }

    /// The tag is that of RFC 4231, test case 2.
    #[test]
    fn parts_are_signed_as_one_text() {
        let short = HmacKey::of_any_length(b"Jefe");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(short.sign_hex(&[b"what do ya want for nothing?"]), expected);
        assert_eq!(short.sign_hex(&[b"what do ya ", b"", b"want for nothing?"]), expected);
    }

    #[test]
    fn a_generated_key_is_restored_from_its_text() {
        let (generated, text) = HmacKey::generate().unwrap();
        assert_eq!(key(text.expose()).sign(&[b"x"]), generated.sign(&[b"x"]));
        assert_ne!(HmacKey::generate().unwrap().0.sign(&[b"x"]), generated.sign(&[b"x"]));
    }

    #[test]
    fn gateway_signatures_match_the_contract() {
        let key = counting_key();
        let mint = b"application_id=app-1&gateway_request_id=rid-1&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&request_method=GET&request_path=%2Fitems&resource=resource%3A%2F%2Fbooks&subject_token=abc&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&zone_id=zone-1";
        assert_eq!(
            gateway_signature(&key, 1_800_000_000, "nonce-1", "POST", "/oauth/2/token", mint),
            "ab7711f49d9f8b87fb2b4efe52ba0e55055ba9c16663f1a9f43deb0954bb4fc9"
        );
        assert_eq!(
            gateway_signature(&key, 1_800_000_000, "nonce-2", "get", "/internal/policy/status/zone-1", b""),
            "65e7462a5e7127acdd4acb46476ef4ea9a242182f776e6c7ee118128492ce434"
        );
        let call = b"application_id=app-1&gateway_request_id=req-123&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&request_method=POST&request_path=%2Fapi%2Fa+b&resource=resource%3A%2F%2Fdemo&subject_token=aaa.bbb.ccc&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&zone_id=zone-1";
        assert_eq!(
            gateway_signature(&key, 1_700_000_000, &"0".repeat(64), "POST", "/oauth/2/token", call),
            "4a9608bf79fa9f929a874115ed31a38ebd6053b06954945d81594e2b60c6a336"
        );
    }

    #[test]
    fn stream_signatures_match_the_contract() {
        let check = |key: &HmacKey, stream: &str, fields: &[(&str, &str)], expected: &str| {
            assert_eq!(stream_signature(key, stream, fields.iter().copied()).as_deref(), Ok(expected));
            assert!(verify_stream_signature(key, stream, fields.iter().copied(), expected));
        };
        check(
            &counting_key(),
            "caracal.sessions.revoke",
            &[("reason", "logout"), ("session_id", "ar-1"), ("zone_id", "zone-1")],
            "5c5955964df36bbff336c8616a5e20e187adf861d45f5a3be7d1b14080fd2d06",
        );
        check(
            &key(AUDIT),
            "caracal.sessions.revoke",
            &[
                ("outbox_id", "ob-1"),
                ("dedupe_key", "agent_terminate:s-1"),
                ("zone_id", "z-1"),
                ("session_id", "ar-1"),
                ("agent_session_id", "s-1"),
                ("reason", "requested"),
                ("_sig", "an old one is ignored"),
            ],
            "a7bedd49b4c277fae9b873eac86550be68ca371813c4ea71194aea9effdc70e2",
        );
        check(
            &key(AUDIT),
            "caracal.delegations.invalidate",
            &[
                ("outbox_id", "ob-2"),
                ("dedupe_key", "edge_create:e-1"),
                ("event", "edge_create"),
                ("zone_id", "z-1"),
                ("edge_id", "e-1"),
                ("source_session_id", "s-1"),
                ("target_session_id", "s-2"),
                ("epoch", "7"),
            ],
            "5829b78bb498e38d35c74747c94dc7c48026cc7be88af9504b5ddad7441fb156",
        );
        check(
            &key(REPEATED),
            "audit:events",
            &[("active", "true"), ("count", "0"), ("name", "")],
            "dd36b85d880107b52155410569f95436acd8b5a656bba83e37c4b0196fb32ae1",
        );
        check(
            &key(REPEATED),
            "caracal.sessions.revoke",
            &[("outbox_id", "ob-1"), ("reason", "dcr_shutdown"), ("session_id", "s1"), ("zone_id", "z1")],
            "8aae372d1162cc4428af29abc2c48d90b1bf3d072345f742e841a2091fcedc53",
        );
    }

    #[test]
    fn evidence_frames_match_the_contract() {
        let data = r#"{"id":"ev-1","zone_id":"z-1","event_type":"token_exchange","request_id":"req-1","decision":"allow","evaluation_status":"complete","determining_policies_json":[{"policy":"p1"}],"diagnostics_json":[],"metadata_json":{"resource":"resource://api","requested_scopes":["read"]},"occurred_at":"2026-01-02T03:04:05.123456789Z"}"#;
        let expected = "6333298de062503ad82c123126cb4e1289ad882a11430666b6edad2a69225123";
        assert_eq!(key(AUDIT).sign_hex(&[data.as_bytes()]), expected);
        assert!(key(AUDIT).verify_hex(&[data.as_bytes()], &expected.to_uppercase()));
    }

    #[test]
    fn chain_links_match_the_contract() {
        let first = "a43bfd4d3e1b8c8b768700edb0c92862ce0153ae50f5dfa011fe2e30adcd0f6a";
        let second = "153847fc5d5dacc9470652ac78ad812a84cae3b67a89adeaced72a8ec9f860d3";
        assert_eq!(
            chain_link(&key(AUDIT), first, None),
            "6ffe5e8870bea0909718acd9e02a6ea5ab71dc29d43588148937f761eb841ea8"
        );
        assert_eq!(
            chain_link(&key(AUDIT), second, Some(first)),
            "f9f5a58f43a10de26c082a747425392c8e489e708425d9c01ea8469da532c8cf"
        );
        let admin = "9ad609dc0a5811971b132bd1eb6f54bce1880b964192f086b85c463aa51e9427";
        assert_eq!(
            chain_link(&HmacKey::from_bytes(&[7; 32]).unwrap(), admin, None),
            "5f24450b4f135c307edf73099b9170e533cdcf6479a577c2517fe4ee904dffb3"
        );
        let coordinator = "f25ee2416eb8b88d0307b550b95303be1c01de6c2cd6de8bfe2eb4118a0a0df1";
        assert_eq!(
            chain_link(&counting_key(), coordinator, None),
            "c79d5af0cb50b9610833b8f5e20e79ec5bc443d4dbc678505b828793c4c00e53"
        );
    }

    #[test]
    fn idempotency_digests_match_the_contract() {
        assert_eq!(
            idempotency_key_digest(&counting_key(), "delivery-42"),
            "070a7f8528252fdcc7ea14f666d07a66cb20c36566328f9f94ef24d74d0dd6ce"
        );
    }

    mod t05_secrets {
        use super::*;

        #[test]
        fn a_short_or_malformed_key_is_refused_with_its_reason() {
            let refusal = |text: &str| HmacKey::from_hex(text).err();
            assert_eq!(refusal(&"ab".repeat(31)), Some(KeyError::TooShort(31)));
            assert_eq!(refusal(""), Some(KeyError::TooShort(0)));
            assert_eq!(refusal(&"a".repeat(65)), Some(KeyError::NotHex));
            assert_eq!(refusal(&"zz".repeat(32)), Some(KeyError::NotHex));
            assert_eq!(refusal(&"ab".repeat(32)), None);
            assert_eq!(refusal(&"AB".repeat(64)), None);
            assert_eq!(HmacKey::from_bytes(&[1; 31]).err(), Some(KeyError::TooShort(31)));
        }
    }

    mod t02_sts_keys {
        use super::*;

        #[test]
        fn a_gateway_signature_is_bound_to_every_part_of_the_request() {
            let key = counting_key();
            let signature = gateway_signature(&key, 1_800_000_000, "n-1", "POST", "/p", b"body");
            let verify = |time, nonce, method, path, body: &[u8], signature: &str| {
                verify_gateway_signature(&key, time, nonce, method, path, body, signature)
            };
            assert!(verify(1_800_000_000, "n-1", "POST", "/p", b"body", &signature));
            assert!(verify(1_800_000_000, "n-1", "post", "/p", b"body", &signature));
            assert!(!verify(1_800_000_001, "n-1", "POST", "/p", b"body", &signature));
            assert!(!verify(1_800_000_000, "n-2", "POST", "/p", b"body", &signature));
            assert!(!verify(1_800_000_000, "n-1", "PUT", "/p", b"body", &signature));
            assert!(!verify(1_800_000_000, "n-1", "POST", "/P", b"body", &signature));
            assert!(!verify(1_800_000_000, "n-1", "POST", "/p", b"bodY", &signature));
            let other = HmacKey::from_bytes(&[1; 32]).unwrap();
            assert!(!verify_gateway_signature(&other, 1_800_000_000, "n-1", "POST", "/p", b"body", &signature));
        }

        #[test]
        fn lines_of_a_gateway_request_cannot_be_shifted_into_each_other() {
            let key = counting_key();
            let signature = gateway_signature(&key, 1, "n\nPOST", "POST", "/p", b"");
            assert!(!verify_gateway_signature(&key, 1, "n\nPOST", "POST", "/p", b"", &signature));
            assert!(!verify_gateway_signature(&key, 1, "n", "POST", "POST\n/p", b"", &signature));
            assert!(!verify_gateway_signature(&key, 1, "", "POST", "/p", b"", &{
                gateway_signature(&key, 1, "", "POST", "/p", b"")
            }));
        }

        #[test]
        fn only_64_hex_digits_of_the_right_tag_verify() {
            let key = counting_key();
            let right = key.sign_hex(&[b"message"]);
            assert!(key.verify_hex(&[b"message"], &right));
            for wrong in ["", "bad", &right[..63], &right[..62], &format!("{right}0"), &format!(" {right}")] {
                assert!(!key.verify_hex(&[b"message"], wrong), "{wrong:?}");
            }
            for position in 0..64 {
                let mut changed = right.clone().into_bytes();
                changed[position] = if changed[position] == b'0' { b'1' } else { b'0' };
                assert!(!key.verify_hex(&[b"message"], std::str::from_utf8(&changed).unwrap()));
            }
        }
    }

    mod t07_streams {
        use std::collections::BTreeSet;

        use proptest::collection::btree_map;
        use proptest::prelude::*;

        use super::*;

        type Fields<'t> = Vec<(&'t str, &'t str)>;
        type Message<'t> = (&'t str, Fields<'t>);

        /// Every message whose canonical text, by the letter of the contract (audit-and-streams.md §6.2), is this one: each
        /// line feed may end the stream's name or a field, or be part of it, and each `=` may be the one after the name.
        fn readings(text: &str) -> Vec<Message<'_>> {
            let streams = text.match_indices('\n').map(|(at, _)| (&text[..at], Vec::new(), &text[at + 1..]));
            let mut begun: Vec<(&str, Fields<'_>, &str)> = streams.collect();
            let mut whole = Vec::new();
            while let Some((stream, fields, rest)) = begun.pop() {
                if rest.is_empty() {
                    whole.push((stream, fields));
                    continue;
                }
                for (end, _) in rest.match_indices('\n') {
                    for (at, _) in rest[..end].match_indices('=') {
                        let more = fields.iter().copied().chain([(&rest[..at], &rest[at + 1..end])]).collect();
                        begun.push((stream, more, &rest[end + 1..]));
                    }
                }
            }
            whole.retain(|(_, fields)| fields.is_sorted_by(|one, next| one.0 <= next.0));
            whole
        }

        /// Texts that are easily mistaken: small alphabets, and in some of them the signs that part lines and names.
        fn message() -> impl Strategy<Value = (String, std::collections::BTreeMap<String, String>)> {
            let plain = ("[ab=]{0,2}", btree_map("[ab]{1,2}", "[ab=]{0,3}", 0..4));
            let broken = ("[ab\n]{0,2}", btree_map("[ab=\n]{0,2}", "[ab=\n\r]{0,4}", 0..4));
            prop_oneof![plain, broken]
        }

        proptest! {
            /// The text of a message that is signed can be read as that message only; no other has its signature or is
            /// taken for it. Where nobody refuses, the contract's form alone does not keep messages apart (its W16).
            #[test]
            fn whatever_the_fields_hold_a_signature_is_that_of_one_message_and_no_other_is_taken_for_it(
                (stream, fields) in message()
            ) {
                let key = counting_key();
                let pairs = || fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let text = pairs().fold(format!("{stream}\n"), |text, (name, value)| format!("{text}{name}={value}\n"));
                let by_the_letter = key.sign_hex(&[text.as_bytes()]);
                let own: Message<'_> = (&stream, pairs().collect());
                let all = readings(&text);
                prop_assert!(all.contains(&own), "{own:?}");

                let mut taken = BTreeSet::new();
                for (stream, fields) in all {
                    let signed = stream_signature(&key, stream, fields.iter().copied());
                    let verified = verify_stream_signature(&key, stream, fields.iter().copied(), &by_the_letter);
                    prop_assert_eq!(signed.is_ok(), verified);
                    if let Ok(signed) = signed {
                        prop_assert_eq!(&signed, &by_the_letter);
                        taken.insert((stream, fields));
                    }
                }
                let is_plain = |text: &str| !text.contains(['\n', '\r']);
                let is_signable = is_plain(&stream)
                    && pairs().all(|(name, value)| !name.is_empty() && !name.contains('=') && is_plain(name) && is_plain(value));
                prop_assert!(taken.len() <= 1, "{taken:?}");
                prop_assert_eq!(taken.contains(&own), is_signable);
            }
        }

        /// What the contract's form would let pass: a free text imitates the zone of another message.
        #[test]
        fn by_the_letter_of_the_contract_one_text_is_that_of_two_messages() {
            let text = "s\nreason=x\nzone_id=z-2\n";
            let one: Message<'_> = ("s", vec![("reason", "x\nzone_id=z-2")]);
            let other: Message<'_> = ("s", vec![("reason", "x"), ("zone_id", "z-2")]);
            let all = readings(text);
            assert!(all.contains(&one) && all.contains(&other), "{all:?}");
            let signable = |(stream, fields): &Message<'_>| {
                stream_signature(&counting_key(), stream, fields.iter().copied()).is_ok()
            };
            assert_eq!(all.iter().filter(|message| signable(message)).collect::<Vec<_>>(), [&other]);
        }

        #[test]
        fn a_message_that_could_be_read_two_ways_is_neither_signed_nor_accepted() {
            let key = counting_key();
            type Fields = &'static [(&'static str, &'static str)];
            let refused: [(&str, Fields, UnsignableMessage); 8] = [
                ("s", &[("reason", "x\nzone_id=z2")], UnsignableMessage::ControlCharacter("reason".into())),
                ("s", &[("reason", "\u{7f}")], UnsignableMessage::ControlCharacter("reason".into())),
                ("s", &[("reason", "\0")], UnsignableMessage::ControlCharacter("reason".into())),
                ("s\n", &[("a", "b")], UnsignableMessage::ControlCharacter("stream name".into())),
                ("s", &[("a=b", "c")], UnsignableMessage::FieldName("a=b".into())),
                ("s", &[("a\n", "c")], UnsignableMessage::FieldName("a\\n".into())),
                ("s", &[("", "c")], UnsignableMessage::FieldName(String::new())),
                ("s", &[("a", "b"), ("a", "c")], UnsignableMessage::RepeatedField("a".into())),
            ];
            for (stream, fields, expected) in refused {
                assert_eq!(stream_signature(&key, stream, fields.iter().copied()), Err(expected));
                // What a signer without this rule would have produced.
                let mut text = format!("{stream}\n");
                for (name, value) in fields {
                    text.push_str(&format!("{name}={value}\n"));
                }
                let forged = key.sign_hex(&[text.as_bytes()]);
                assert!(!verify_stream_signature(&key, stream, fields.iter().copied(), &forged));
            }
        }

        #[test]
        fn the_signature_covers_the_stream_and_every_field_in_any_order() {
            let key = counting_key();
            let signature = stream_signature(&key, "s", [("a", "1"), ("b", "ü")]).unwrap();
            assert!(verify_stream_signature(&key, "s", [("b", "ü"), ("a", "1")], &signature));
            assert!(!verify_stream_signature(&key, "t", [("a", "1"), ("b", "ü")], &signature));
            assert!(!verify_stream_signature(&key, "s", [("a", "1")], &signature));
            assert!(!verify_stream_signature(&key, "s", [("a", "1"), ("b", "u")], &signature));
            assert!(!verify_stream_signature(&key, "s", [("a", "1"), ("b", "ü"), ("c", "")], &signature));
            assert!(!verify_stream_signature(&key, "s", [("a", "1"), ("b", "ü")], ""));
        }
    }
}
