//! As much DER as it takes to find a number in a private key and a public key in a certificate. Definite lengths of at
//! most four bytes; what is read is never longer than what was given.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
/// A constructed value under the context-specific tag `n`.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// What is left of a text of values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Der<'d>(pub(crate) &'d [u8]);

impl<'d> Der<'d> {
    /// The next value and its tag.
    pub(crate) fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            short @ 0..=0x7f => usize::from(short),
            long @ 0x81..=0x84 => {
                let (bytes, behind) = rest.split_at_checked(usize::from(long & 0x7f))?;
                rest = behind;
                bytes.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte))
            }
            _ => return None,
        };
        let (value, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, value))
    }

    /// The next value, which must be tagged `tag`.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// The next value if it is tagged `tag`, otherwise none and nothing is taken.
    pub(crate) fn take_if(&mut self, tag: u8) -> Option<&'d [u8]> {
        let mut ahead = *self;
        let value = ahead.take(tag)?;
        *self = ahead;
        Some(value)
    }

    /// The bytes of the next value, a bit string of whole bytes.
    pub(crate) fn take_bits(&mut self) -> Option<&'d [u8]> {
        self.take(BIT_STRING)?.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
    }
}

/// The public key of an X.509 certificate, as its `subjectPublicKey` has it (RFC 5280 §4.1).
pub(crate) fn public_key_of_certificate(certificate: &[u8]) -> Option<&[u8]> {
    let mut signed = Der(Der(certificate).take(SEQUENCE)?);
    let mut inner = Der(signed.take(SEQUENCE)?);
    inner.take_if(context(0));
    inner.take(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        inner.take(SEQUENCE)?;
    }
    let mut key = Der(inner.take(SEQUENCE)?);
    key.take(SEQUENCE)?;
    key.take_bits()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_one_after_the_other() {
        let mut der = Der(&[0x02, 1, 5, 0x04, 0x81, 2, 7, 8]);
        assert_eq!(der.take_if(OCTET_STRING), None);
        assert_eq!(der.take(INTEGER), Some(&[5][..]));
        assert_eq!(der.take(OCTET_STRING), Some(&[7, 8][..]));
        assert_eq!(der.next(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_that_are_not_there(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut der = Der(&bytes);
            let mut left = bytes.len();
            while let Some((_, value)) = der.next() {
                prop_assert!(value.len() + 2 <= left && der.0.len() < left);
                left = der.0.len();
            }
            let _ = public_key_of_certificate(&bytes);
        }
    }
}
