//! Sealed envelopes, form "CSS1" (contract: audit-and-streams.md §9.1): how secrets lie in a store.
//!
//! Each value is sealed under a data key of its own, and that key under the deployment's key-encryption key (KEK).
//! Both times ChaCha20-Poly1305 authenticates: an edited envelope, one moved to another place (another `aad`) or one
//! of another deployment does not open. Whoever holds the store without the KEK holds nothing. Rotating the KEK means
//! sealing with the new one while envelopes of the previous one still open ([`KekRing`]).
//!
//! ```text
//! "CSS1" | KEK id 8 | nonce 12 | data key + tag 48 | nonce 12 | value + tag n+16
//! ```

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::chance::{ChanceUnavailable, random_bytes};
use crate::encoding::{from_hex, hex};
use crate::hmac::sha256;
use crate::secret::{Secret, SecretBytes, SecretText};

const MAGIC: &[u8; 4] = b"CSS1";
const KEK_ID_LEN: usize = 8;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const DATA_KEY_AAD: &[u8] = b"caracal.css1.dek";
/// Length of an envelope around an empty value, the shortest there is.
pub const MIN_ENVELOPE_BYTES: usize = 4 + KEK_ID_LEN + NONCE_LEN + KEY_LEN + TAG_LEN + NONCE_LEN + TAG_LEN;

/// A key-encryption key, prepared once.
pub struct Kek {
    id: [u8; KEK_ID_LEN],
    key: LessSafeKey,
}

/// A configured KEK that is refused. The caller adds the name of the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KekError {
    /// Something other than pairs of hex digits.
    #[error("the key-encryption key is not hex")]
    NotHex,
    /// Any other length than 32 bytes.
    #[error("the key-encryption key has {0} bytes, exactly 32 are needed")]
    Length(usize),
    /// Nothing but zeros.
    #[error("the key-encryption key is all zeros")]
    AllZeros,
    /// One byte, repeated.
    #[error("the key-encryption key repeats one byte")]
    RepeatedByte,
    /// Each byte one more than the byte before.
    #[error("the key-encryption key is an ascending sequence")]
    Ascending,
    /// Each byte one less than the byte before.
    #[error("the key-encryption key is a descending sequence")]
    Descending,
    /// Two bytes in turn.
    #[error("the key-encryption key alternates between two bytes")]
    Alternating,
    /// The provider did not take the key.
    #[error("the key-encryption key was not accepted")]
    NotAccepted,
}

impl Kek {
    /// From 64 hex digits, the form of `SECRET_STORE_KEK`. Keys that a person typed rather than drew are refused
    /// (contract: audit-and-streams.md §9.2).
    pub fn from_hex(text: &str) -> Result<Self, KekError> {
        let bytes = Secret::new(from_hex(text).ok_or(KekError::NotHex)?);
        let bytes: &[u8; KEY_LEN] =
            bytes.expose().as_slice().try_into().map_err(|_| KekError::Length(bytes.expose().len()))?;
        refuse_weak(bytes)?;
        Self::prepare(bytes)
    }

    /// A new random key, with the hex text to keep it by: the key itself does not give its bytes back.
    pub fn generate() -> Result<(Self, SecretText), SealError> {
        let bytes = Secret::new(random_bytes::<KEY_LEN>()?);
        let kek = Self::prepare(bytes.expose()).map_err(|_| SealError::NotSealed)?;
        Ok((kek, Secret::new(hex(bytes.expose()))))
    }

    fn prepare(bytes: &[u8; KEY_LEN]) -> Result<Self, KekError> {
        let mut id = [0; KEK_ID_LEN];
        id.copy_from_slice(&sha256(bytes)[..KEK_ID_LEN]);
        Ok(Self { id, key: prepared(bytes).ok_or(KekError::NotAccepted)? })
    }

    /// The first 8 bytes of the key's SHA-256: names the key in envelopes, says nothing about it.
    pub fn id(&self) -> [u8; KEK_ID_LEN] {
        self.id
    }
}

fn refuse_weak(bytes: &[u8; KEY_LEN]) -> Result<(), KekError> {
    let each = |step: fn(u8) -> u8| bytes.windows(2).all(|pair| pair[1] == step(pair[0]));
    if bytes.iter().all(|byte| *byte == 0) {
        Err(KekError::AllZeros)
    } else if each(|byte| byte) {
        Err(KekError::RepeatedByte)
    } else if each(|byte| byte.wrapping_add(1)) {
        Err(KekError::Ascending)
    } else if each(|byte| byte.wrapping_sub(1)) {
        Err(KekError::Descending)
    } else if bytes.windows(3).all(|three| three[0] == three[2]) {
        Err(KekError::Alternating)
    } else {
        Ok(())
    }
}

/// A value that could not be sealed. Nothing may be stored in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No randomness for the data key or a nonce.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// The provider refused, as it does for values beyond 256 GiB.
    #[error("the value could not be sealed")]
    NotSealed,
}

/// An envelope that did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, or not an envelope of this form.
    #[error("not a sealed envelope")]
    Malformed,
    /// Neither the current nor the previous KEK: an operator's mistake (a wrong or missing key), not an attack.
    #[error("sealed under a different KEK")]
    UnknownKek,
    /// The KEK is right, but the bytes are not those that were sealed, or they were sealed for another place.
    #[error("the envelope was altered, or belongs somewhere else")]
    Tampered,
}

/// The KEK that seals, and the one it replaced, whose envelopes still open.
pub struct KekRing {
    current: Kek,
    previous: Option<Kek>,
}

impl KekRing {
    /// `previous` is `SECRET_STORE_KEK_PREVIOUS`, set while a rotation is under way.
    pub fn new(current: Kek, previous: Option<Kek>) -> Self {
        Self { current, previous }
    }

    /// Id of the KEK that seals.
    pub fn current_id(&self) -> [u8; KEK_ID_LEN] {
        self.current.id
    }

    /// Whether envelopes of another KEK open as well: a rotation is under way.
    pub fn has_previous(&self) -> bool {
        self.previous.as_ref().is_some_and(|previous| previous.id != self.current.id)
    }

    /// Whether `envelope` says that it was sealed under the current KEK. It may lie; opening it shows.
    pub fn is_current(&self, envelope: &[u8]) -> bool {
        Parts::of(envelope).is_some_and(|parts| *parts.kek_id == self.current.id)
    }

    /// Seals `plaintext` for the place named by `aad`, under the current KEK.
    pub fn seal(&self, aad: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let data_key = Secret::new(random_bytes::<KEY_LEN>()?);
        seal_with(&self.current, data_key.expose(), random_bytes()?, random_bytes()?, aad, plaintext)
            .ok_or(SealError::NotSealed)
    }

    /// Opens what was sealed for the place named by `aad`, with whichever KEK the envelope names.
    pub fn open(&self, aad: &str, envelope: &[u8]) -> Result<SecretBytes, OpenError> {
        let parts = Parts::of(envelope).ok_or(OpenError::Malformed)?;
        let kek = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|kek| kek.id == *parts.kek_id)
            .ok_or(OpenError::UnknownKek)?;
        let data_key = opened(&kek.key, *parts.data_key_nonce, DATA_KEY_AAD, parts.data_key)
            .and_then(|bytes| prepared(bytes.expose().as_slice()))
            .ok_or(OpenError::Tampered)?;
        opened(&data_key, *parts.value_nonce, aad.as_bytes(), parts.value).ok_or(OpenError::Tampered)
    }
}

struct Parts<'e> {
    kek_id: &'e [u8; KEK_ID_LEN],
    data_key_nonce: &'e [u8; NONCE_LEN],
    data_key: &'e [u8],
    value_nonce: &'e [u8; NONCE_LEN],
    value: &'e [u8],
}

impl<'e> Parts<'e> {
    fn of(envelope: &'e [u8]) -> Option<Self> {
        let rest = envelope.strip_prefix(MAGIC)?;
        let (kek_id, rest) = rest.split_first_chunk()?;
        let (data_key_nonce, rest) = rest.split_first_chunk()?;
        let (data_key, rest) = rest.split_at_checked(KEY_LEN + TAG_LEN)?;
        let (value_nonce, value) = rest.split_first_chunk()?;
        (value.len() >= TAG_LEN).then_some(Self { kek_id, data_key_nonce, data_key, value_nonce, value })
    }
}

/// Everything chosen by the caller: [`KekRing::seal`] draws the data key and both nonces, the contract's vector sets
/// them. A nonce is used once with its key: data keys are never reused, and 96 random bits under one KEK do not meet
/// before some 2^32 envelopes.
fn seal_with(
    kek: &Kek,
    data_key: &[u8; KEY_LEN],
    data_key_nonce: [u8; NONCE_LEN],
    value_nonce: [u8; NONCE_LEN],
    aad: &str,
    plaintext: &[u8],
) -> Option<Vec<u8>> {
    let mut envelope = Vec::with_capacity(MIN_ENVELOPE_BYTES + plaintext.len());
    envelope.extend_from_slice(MAGIC);
    envelope.extend_from_slice(&kek.id);
    append_sealed(&mut envelope, &kek.key, data_key_nonce, DATA_KEY_AAD, data_key)?;
    append_sealed(&mut envelope, &prepared(data_key)?, value_nonce, aad.as_bytes(), plaintext)?;
    Some(envelope)
}

fn append_sealed(
    envelope: &mut Vec<u8>,
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> Option<()> {
    envelope.extend_from_slice(&nonce);
    let start = envelope.len();
    envelope.extend_from_slice(plaintext);
    let value = &mut envelope[start..];
    match key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), value) {
        Ok(tag) => envelope.extend_from_slice(tag.as_ref()),
        Err(_) => {
            // What was refused is still in clear.
            value.zeroize();
            return None;
        }
    }
    Some(())
}

fn opened(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(Secret::new(std::mem::take(&mut *buffer)))
}

fn prepared(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::array_from_hex;

    const KEK: &str = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
    const OTHER: &str = "8f3d9a712c45e6b0d18f2a4c6e9b3d57a1c4f8020e6a9c3d5b7f1a2c4e6d8b90";
    const PLACE: &str = "zones/z-1/providers/p-1/secretConfig";

    fn kek(text: &str) -> Kek {
        Kek::from_hex(text).unwrap()
    }

    fn ring() -> KekRing {
        KekRing::new(kek(KEK), None)
    }

    fn vector() -> Vec<u8> {
        from_hex(
            "4353533154140c0b23897265000102030405060708090a0be3a5aca17c77a8c6deae451a9fc3052ac7523b299b8e56b9de5eb6475\
             a7a6efd2d49c763baca40abefa91002415716d70b0a09080706050403020100c76526301802c60397dd2230b5216ae6672108f563\
             52db9b9ecd1471f58099",
        )
        .unwrap()
    }

    #[test]
    fn the_envelope_is_the_contracts_byte_for_byte() {
        let data_key = array_from_hex("57344ba20d1a651270e85519eecbd9dfa1b0523086c1fdc66769b2817d55c694").unwrap();
        let up = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let down = std::array::from_fn(|index| u8::try_from(11 - index).unwrap());
        let sealed = seal_with(&kek(KEK), &data_key, up, down, PLACE, br#"{"api_key":"k"}"#);
        assert_eq!(sealed, Some(vector()));
        assert_eq!(ring().open(PLACE, &vector()).unwrap().expose(), br#"{"api_key":"k"}"#);
    }

    #[test]
    fn a_kek_is_named_by_its_fingerprint() {
        assert_eq!(hex(&kek(KEK).id()), "54140c0b23897265");
        assert_eq!(hex(&kek(OTHER).id()), "8547798a706fba72");
        let (generated, text) = Kek::generate().unwrap();
        assert_eq!(kek(text.expose()).id(), generated.id());
        assert_eq!(KekRing::new(generated, Some(kek(KEK))).current_id(), kek(text.expose()).id());
    }

    #[test]
    fn an_empty_value_makes_the_shortest_envelope() {
        let sealed = ring().seal("a", b"").unwrap();
        assert_eq!(sealed.len(), MIN_ENVELOPE_BYTES);
        assert_eq!(MIN_ENVELOPE_BYTES, 100);
        assert!(ring().open("a", &sealed).unwrap().expose().is_empty());
    }

    mod t05_secrets {
        use proptest::prelude::*;

        use super::*;

        #[test]
        fn a_weak_kek_is_refused_with_its_reason() {
            let text = |byte: fn(u8) -> u8| hex(&(0..32).map(byte).collect::<Vec<u8>>());
            for (weak, expected) in [
                (text(|_| 0), KekError::AllZeros),
                (text(|_| 0xaa), KekError::RepeatedByte),
                (text(|index| index), KekError::Ascending),
                (text(|index| index.wrapping_sub(8)), KekError::Ascending),
                (text(|index| 31 - index), KekError::Descending),
                ("aa55".repeat(16), KekError::Alternating),
                ("ab".repeat(31), KekError::Length(31)),
                ("ab".repeat(33), KekError::Length(33)),
                (String::new(), KekError::Length(0)),
                ("g".repeat(64), KekError::NotHex),
                ("a".repeat(63), KekError::NotHex),
                (format!(" {KEK}"), KekError::NotHex),
            ] {
                assert_eq!(Kek::from_hex(&weak).err(), Some(expected), "{weak}");
            }
            assert!(Kek::from_hex(&KEK.to_uppercase()).is_ok());
        }

        #[test]
        fn envelopes_of_the_previous_kek_open_only_while_it_is_kept() {
            let sealed = KekRing::new(kek(OTHER), None).seal(PLACE, b"old").unwrap();
            let rotating = KekRing::new(kek(KEK), Some(kek(OTHER)));
            assert_eq!(rotating.open(PLACE, &sealed).unwrap().expose(), b"old");
            assert_eq!(ring().open(PLACE, &sealed).err(), Some(OpenError::UnknownKek));
            let resealed = rotating.seal(PLACE, b"new").unwrap();
            assert_eq!(ring().open(PLACE, &resealed).unwrap().expose(), b"new");
        }

        #[test]
        fn an_envelope_says_which_kek_it_needs() {
            let sealed = KekRing::new(kek(OTHER), None).seal(PLACE, b"old").unwrap();
            let rotating = KekRing::new(kek(KEK), Some(kek(OTHER)));
            assert!(rotating.is_current(&vector()) && !rotating.is_current(&sealed));
            assert!(rotating.has_previous() && !ring().has_previous());
            assert!(!KekRing::new(kek(KEK), Some(kek(KEK))).has_previous(), "the same key is no other");
            for damaged in [&[] as &[u8], b"CSS1", &vector()[..MIN_ENVELOPE_BYTES - 1], &vector()[1..]] {
                assert!(!rotating.is_current(damaged));
            }
        }

        #[test]
        fn an_envelope_moved_to_another_place_does_not_open() {
            let sealed = ring().seal(PLACE, b"0123456789").unwrap();
            for place in ["", "zones/z-2/providers/p-1/secretConfig", "zones/z-1/providers/p-1/secretConfig "] {
                for envelope in [&vector(), &sealed] {
                    assert_eq!(ring().open(place, envelope).err(), Some(OpenError::Tampered), "{place}");
                }
            }
        }

        #[test]
        fn every_shorter_or_longer_envelope_is_refused() {
            let sealed = ring().seal(PLACE, b"0123456789").unwrap();
            for length in 0..sealed.len() {
                let expected = if length < MIN_ENVELOPE_BYTES { OpenError::Malformed } else { OpenError::Tampered };
                assert_eq!(ring().open(PLACE, &sealed[..length]).err(), Some(expected), "{length}");
            }
            assert_eq!(ring().open(PLACE, &[&sealed[..], b"\0"].concat()).err(), Some(OpenError::Tampered));
        }

        #[test]
        fn sealing_twice_shares_no_key_and_no_nonce() {
            let (one, two) = (ring().seal(PLACE, b"same").unwrap(), ring().seal(PLACE, b"same").unwrap());
            let (one, two) = (Parts::of(&one).unwrap(), Parts::of(&two).unwrap());
            assert_ne!(one.data_key_nonce, two.data_key_nonce);
            assert_ne!(one.data_key, two.data_key);
            assert_ne!(one.value_nonce, two.value_nonce);
            assert_ne!(one.value, two.value);
        }

        proptest! {
            #[test]
            fn what_is_sealed_opens_to_the_same_bytes(aad in ".*", value in prop::collection::vec(any::<u8>(), 0..300)) {
                let sealed = ring().seal(&aad, &value).unwrap();
                prop_assert_eq!(sealed.len(), MIN_ENVELOPE_BYTES + value.len());
                let opened = ring().open(&aad, &sealed).unwrap();
                prop_assert_eq!(opened.expose(), &value);
            }

            #[test]
            fn any_flipped_bit_keeps_an_envelope_shut(
                value in prop::collection::vec(any::<u8>(), 0..64),
                position in any::<prop::sample::Index>(),
            ) {
                let mut sealed = ring().seal(PLACE, &value).unwrap();
                let bit = position.index(sealed.len() * 8);
                sealed[bit / 8] ^= 1 << (bit % 8);
                let expected = match bit / 8 {
                    0..4 => OpenError::Malformed,
                    4..12 => OpenError::UnknownKek,
                    _ => OpenError::Tampered,
                };
                prop_assert_eq!(ring().open(PLACE, &sealed).err(), Some(expected));
            }
        }
    }
}
