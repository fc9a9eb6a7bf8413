//! The bytes of a sealed secret, as they may lie in a store that somebody edited.
//!
//! Only one envelope of this key is known here, the contract's vector; any other that opens is forged. The same bytes
//! taken as a value come back from an envelope whole, and from no other place than the one it was sealed for.

use std::sync::LazyLock;

use caracal_crypto::encoding::{from_hex, hex};
use caracal_crypto::envelope::{Kek, KekRing, MIN_ENVELOPE_BYTES, OpenError};

const KEK: &str = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
const PLACE: &str = "zones/z-1/providers/p-1/secretConfig";
const VECTOR: &str = "4353533154140c0b23897265000102030405060708090a0be3a5aca17c77a8c6deae451a9fc3052ac7523b299b8e56b9de5\
                      eb6475a7a6efd2d49c763baca40abefa91002415716d70b0a09080706050403020100c76526301802c60397dd2230b5216\
                      ae6672108f56352db9b9ecd1471f58099";

static RING: LazyLock<KekRing> = LazyLock::new(|| KekRing::new(Kek::from_hex(KEK).expect("a strong key"), None));

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    match RING.open(PLACE, data) {
        Ok(value) => {
            assert_eq!(hex(data), VECTOR);
            assert_eq!(value.expose().as_slice(), br#"{"api_key":"k"}"#);
        }
        Err(OpenError::Malformed) => assert!(data.len() < MIN_ENVELOPE_BYTES || !data.starts_with(b"CSS1")),
        Err(OpenError::UnknownKek) => assert!(data[4..12] != RING.current_id()),
        Err(OpenError::Tampered) => assert!(data[4..12] == RING.current_id() && hex(data) != VECTOR),
    }

    let sealed = RING.seal(PLACE, data).expect("random numbers");
    assert_eq!(sealed.len(), MIN_ENVELOPE_BYTES + data.len());
    assert!(RING.open(PLACE, &sealed).is_ok_and(|value| value.expose().as_slice() == data));
    assert_eq!(RING.open("zones/z-2/providers/p-1/secretConfig", &sealed).err(), Some(OpenError::Tampered));

    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(bytes) = from_hex(text) {
            assert_eq!(hex(&bytes), text.to_ascii_lowercase());
        }
        if let Ok(kek) = Kek::from_hex(text) {
            assert!(text.len() == 64 && (kek.id() == RING.current_id()) == text.eq_ignore_ascii_case(KEK));
        }
    }
}
