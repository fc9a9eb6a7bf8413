//! The audit key, which can be replaced, and those that were in use before it (contract: audit-and-streams.md W24).
//!
//! A seal says by the key's name with which of them it was made. The name is public: it gives nothing of the key away, and
//! nothing is believed because of it. It tells a reader who lacks a key that he lacks it, where he would otherwise have to
//! take what it sealed for forged.
//!
//! Keys only go forward: what lies behind something sealed with a key was never sealed with one before that key. So whoever
//! got hold of a key that was replaced can't write history that goes on from today's.

use caracal_crypto::hmac::{HmacKey, HmacRing};
use subtle::ConstantTimeEq;

use crate::hex;

/// Keeps names apart from everything else the audit key signs.
const NAME_DOMAIN: &[u8] = b"caracal audit key id v1\n";
/// Bytes of a name.
const NAME_BYTES: usize = 8;

/// The audit key, as far as the ledger needs it: HMAC-SHA256.
pub trait ChainKey: Send + Sync {
    /// HMAC-SHA256 of `message` with the key in use.
    fn sign(&self, message: &[u8]) -> [u8; 32];

    /// HMAC-SHA256 of `message` with the key that was in use `age` keys ago, 0 being the one in use; nothing where that
    /// one is not at hand.
    fn sign_as(&self, age: usize, message: &[u8]) -> Option<[u8; 32]> {
        (age == 0).then(|| self.sign(message))
    }

    /// The public name of that key.
    fn id(&self, age: usize) -> Option<String> {
        let tag = self.sign_as(age, NAME_DOMAIN)?;
        tag.first_chunk::<NAME_BYTES>().map(|name| hex::encode(name))
    }
}

/// For keys made with `ring::hmac::HMAC_SHA256`. With another algorithm the seal is cut or padded to 32 bytes: still
/// a seal, but not the contract's.
impl ChainKey for ring::hmac::Key {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        let tag = ring::hmac::sign(self, message);
        let mut seal = [0; 32];
        for (to, from) in seal.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        seal
    }
}

impl ChainKey for HmacKey {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        HmacKey::sign(self, &[message])
    }
}

impl ChainKey for HmacRing {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        HmacRing::sign(self, &[message])
    }

    fn sign_as(&self, age: usize, message: &[u8]) -> Option<[u8; 32]> {
        self.at(age).map(|key| key.sign(&[message]))
    }
}

/// The names of all keys at hand, the one in use first.
pub fn key_ids(key: &dyn ChainKey) -> Vec<String> {
    (0..).map_while(|age| key.id(age)).collect()
}

/// Who made a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// The key of this age.
    By(usize),
    /// It says that a key of this name did, which is not at hand.
    ByUnknown(String),
    /// None of ours, or not over this message.
    Wrong,
}

/// The keys with their names, for many seals.
pub(crate) struct Keys<'k> {
    key: &'k dyn ChainKey,
    ids: Vec<String>,
}

impl<'k> Keys<'k> {
    pub(crate) fn of(key: &'k dyn ChainKey) -> Self {
        Self { key, ids: key_ids(key) }
    }

    /// The name of the key in use.
    pub(crate) fn current(&self) -> Option<&str> {
        self.ids.first().map(String::as_str)
    }

    /// The name of the key of that age.
    pub(crate) fn name(&self, age: usize) -> Option<&str> {
        self.ids.get(age).map(String::as_str)
    }

    /// Who made `seal` over `message`, as whom it names, if it names somebody. `likely` is tried first where it doesn't.
    pub(crate) fn who(&self, message: &[u8], seal: &str, named: Option<&str>, likely: usize) -> Sealed {
        if let Some(named) = named {
            return match self.ids.iter().position(|id| id == named) {
                Some(age) if self.made(age, message, seal) => Sealed::By(age),
                Some(_) => Sealed::Wrong,
                None => Sealed::ByUnknown(named.to_owned()),
            };
        }
        let others = (0..self.ids.len()).filter(|age| *age != likely);
        match std::iter::once(likely).chain(others).find(|age| self.made(*age, message, seal)) {
            Some(age) => Sealed::By(age),
            None => Sealed::Wrong,
        }
    }

    fn made(&self, age: usize, message: &[u8], seal: &str) -> bool {
        let tag = self.key.sign_as(age, message);
        tag.is_some_and(|tag| bool::from(hex::encode(&tag).as_bytes().ct_eq(seal.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HmacKey {
        HmacKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_seal_is_known_by_the_key_it_names_and_by_no_other() {
        let ring = HmacRing::new(key(3), vec![key(2), key(1)]);
        let keys = Keys::of(&ring);
        let name = |byte| ChainKey::id(&key(byte), 0).unwrap();
        assert_eq!(keys.ids, [name(3), name(2), name(1)]);
        assert!(keys.ids.iter().all(|id| id.len() == 16));
        let seal = |byte: u8| key(byte).sign_hex(&[b"x"]);
        for (age, byte) in [3, 2, 1].into_iter().enumerate() {
            assert_eq!(keys.who(b"x", &seal(byte), Some(&name(byte)), 0), Sealed::By(age));
            for likely in 0..3 {
                assert_eq!(keys.who(b"x", &seal(byte), None, likely), Sealed::By(age));
            }
            assert_eq!(keys.who(b"y", &seal(byte), None, 0), Sealed::Wrong);
            assert_eq!(keys.who(b"y", &seal(byte), Some(&name(byte)), 0), Sealed::Wrong);
        }
        assert_eq!(keys.who(b"x", &seal(2), Some(&name(3)), 0), Sealed::Wrong);
        assert_eq!(keys.who(b"x", &seal(4), None, 0), Sealed::Wrong);
        assert_eq!(keys.who(b"x", &seal(4), Some(&name(4)), 0), Sealed::ByUnknown(name(4)));
        assert_eq!(keys.who(b"x", "", None, 7), Sealed::Wrong);
    }
}
