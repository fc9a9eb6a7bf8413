//! Strict percent-decoding: an escape that is not `%` and two hex digits is an error, never a literal.

use std::borrow::Cow;

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A space, as in forms.
    Space,
    /// Itself, as in paths.
    Literal,
}

/// Decodes once; `None` on a bad escape. Borrowed when there was nothing to decode.
pub(crate) fn decode(text: &[u8], plus: Plus) -> Option<Cow<'_, [u8]>> {
    let special = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus == Plus::Space);
    let Some(first) = text.iter().position(special) else {
        return Some(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text[..first]);
    let mut rest = text[first..].iter();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            other => *other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_escapes_decode() {
        assert_eq!(decode(b"a%2Fb%2fc+", Plus::Literal).unwrap(), &b"a/b/c+"[..]);
        assert_eq!(decode(b"a+b%2b", Plus::Space).unwrap(), &b"a b+"[..]);
        assert!(matches!(decode(b"plain", Plus::Space), Some(Cow::Borrowed(_))));
        for bad in [&b"%"[..], b"%2", b"%zz", b"a%+1", b"%2 ", b"%%41"] {
            assert!(decode(bad, Plus::Space).is_none(), "{bad:?}");
        }
    }
}
