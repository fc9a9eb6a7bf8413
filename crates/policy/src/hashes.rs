//! The two hashes of the policy layer (contract: policy.md §10.2).
//!
//! Two types, because a manifest hash must never be looked up as a content hash.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Serialize, Serializer};

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: expected 64 lower-case hexadecimal digits")]
pub struct NotASha256;

macro_rules! hashes {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes a stored hash: 64 lower-case hexadecimal digits.
            pub fn parse(hex: &str) -> Result<Self, NotASha256> {
                parse_hex(hex).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

hashes! {
    /// SHA-256 of one document's UTF-8 bytes exactly as received.
    ContentSha256;
    /// SHA-256 of a manifest's canonical text, `[{"policy_version_id":"<id>"},…]`.
    ManifestSha256;
}

impl ContentSha256 {
    /// The hash of a document's text: no trimming, no change of line ends.
    pub fn of(content: &str) -> Self {
        Self(sha256(content.as_bytes()))
    }
}

impl ManifestSha256 {
    /// The hash of a manifest that lists these policy version ids, in this order.
    pub fn of<'a>(policy_version_ids: impl IntoIterator<Item = &'a str>) -> Self {
        let mut manifest = String::from("[");
        for (index, id) in policy_version_ids.into_iter().enumerate() {
            if index > 0 {
                manifest.push(',');
            }
            manifest.push_str("{\"policy_version_id\":");
            // A JSON string literal: the escapes of `serde_json` are those of `JSON.stringify`.
            manifest.push_str(&serde_json::Value::from(id).to_string());
            manifest.push('}');
        }
        manifest.push(']');
        Self(sha256(manifest.as_bytes()))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn parse_hex(hex: &str) -> Result<[u8; 32], NotASha256> {
    fn nibble(digit: u8) -> Result<u8, NotASha256> {
        match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotASha256),
        }
    }
    let digits: &[u8; 64] = hex.as_bytes().try_into().map_err(|_| NotASha256)?;
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_hashes_are_those_of_the_contract() {
        for (manifest, hash) in [
            (&["pv-1"][..], "91b75ab3559277a91e4c37e18e60a405963aa4893f36d8e237f7907a79763f97"),
            (&["pv-1", "pv-2"], "e7388625e7afa28ca7927662b2decb5077ef39c5ff1ab43f1847845232968087"),
        ] {
            assert_eq!(ManifestSha256::of(manifest.iter().copied()).to_string(), hash);
        }
    }

    #[test]
    fn the_document_the_clients_author_has_their_hash() {
        let content = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n\
                       app_ids := {\"app-1\":\"app-1\"}\n\
                       grants := {\"resource://n\":{\"application\":\"app-1\",\"roles\":{\"app-1\":[\"n:read\"]}}}\n";
        assert_eq!(content.len(), 170);
        assert_eq!(
            ContentSha256::of(content).to_string(),
            "d83c824a54849ee22238792e2292341cc34b6f849f8bbccd74590c99ba1a2877"
        );
    }

    #[test]
    fn a_stored_hash_is_read_back_and_nothing_else_is_one() {
        let hash = ContentSha256::of("x");
        assert_eq!(ContentSha256::parse(&hash.to_string()), Ok(hash));
        let upper = hash.to_string().to_uppercase();
        for text in ["", "ab", "no_active_policy_set", upper.as_str(), &"g".repeat(64), &"a".repeat(63)] {
            assert_eq!(ContentSha256::parse(text), Err(NotASha256), "{text}");
        }
    }
}
