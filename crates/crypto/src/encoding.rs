//! The two text forms of bytes on our wires: hex and unpadded base64url. Decoders accept only what an encoder could
//! have written (hex in either case), so accepted text is canonical.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Bytes of hex in either case. `None` for an odd length or anything but hex digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    // Exact capacity: key material must not leave copies behind by reallocation.
    let mut bytes = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(bytes)
}

/// Exactly `N` bytes of hex in either case.
pub fn array_from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Appends `bytes` in unpadded base64url. For secrets, give `text` its final capacity beforehand.
pub fn push_base64url(text: &mut String, bytes: &[u8]) {
    URL_SAFE_NO_PAD.encode_string(bytes, text);
}

/// Bytes of unpadded base64url. `None` for padding, another alphabet, white space or stray trailing bits.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_everything_else() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&hex(&bytes)), Some(bytes.clone()));
        assert_eq!(from_hex(&hex(&bytes).to_uppercase()), Some(bytes));
        assert_eq!(array_from_hex("00fF"), Some([0, 255]));
        for refused in ["0", "0g", " 00", "0x00", "00 ", "é0"] {
            assert_eq!(from_hex(refused), None, "{refused:?}");
        }
        for refused in ["", "00", "000000", "0g00", "éé"] {
            assert_eq!(array_from_hex::<2>(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn base64url_has_one_spelling_per_value() {
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        assert_eq!(from_base64url("-_8"), Some(vec![0xfb, 0xff]));
        for refused in ["-_8=", "+/8", "-_9", "-_8\n", " -_8", "-"] {
            assert_eq!(from_base64url(refused), None, "{refused:?}");
        }
    }
}
