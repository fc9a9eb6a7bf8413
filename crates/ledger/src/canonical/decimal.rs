//! JSON numbers as PostgreSQL's `numeric` reads and prints them, digit by digit.

use super::NotCanonical;

/// Place of the highest digit `numeric` holds: 10^131071.
const HIGHEST_PLACE: i64 = 131_071;
/// Most digits after the decimal point.
const MAX_SCALE: i64 = 16_383;
/// `numeric` refuses exponents from here on, even for zero.
const EXPONENT_LIMIT: i64 = 1_073_741_823;

/// A number of the JSON grammar, known to lie within `numeric`.
pub(super) struct Decimal<'a> {
    /// Whether to print a sign: never for zero.
    negative: bool,
    /// Digits before the point as written.
    whole: &'a [u8],
    /// Digits behind it.
    fraction: &'a [u8],
    /// How many of all digits stand before the decimal point once the exponent is applied. May be negative, and
    /// may be more than there are digits.
    point: i64,
    /// Index of the first digit that is not zero, if any.
    leading: Option<i64>,
    /// Digits to print behind the point.
    scale: i64,
}

impl<'a> Decimal<'a> {
    /// Reads the longest number at `start` and says where it ends.
    pub(super) fn parse(text: &'a str, start: usize) -> Result<(Self, usize), NotCanonical> {
        let bytes = text.as_bytes();
        let digits_from = |from: usize| {
            let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            (&bytes[from..from + count], from + count)
        };
        let negative = bytes.get(start) == Some(&b'-');
        let (whole, mut at) = digits_from(start + usize::from(negative));
        if whole.is_empty() || (whole[0] == b'0' && whole.len() > 1) {
            return Err(NotCanonical::Syntax(at));
        }
        let mut fraction: &[u8] = &[];
        if bytes.get(at) == Some(&b'.') {
            (fraction, at) = digits_from(at + 1);
            if fraction.is_empty() {
                return Err(NotCanonical::Syntax(at));
            }
        }
        let mut exponent = 0;
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let falling = bytes.get(at + 1) == Some(&b'-');
            let signed = falling || bytes.get(at + 1) == Some(&b'+');
            let digits;
            (digits, at) = digits_from(at + 1 + usize::from(signed));
            if digits.is_empty() {
                return Err(NotCanonical::Syntax(at));
            }
            for digit in digits {
                // Saturates just past the limit, so that leading zeros are free and length is harmless.
                exponent = (exponent * 10 + i64::from(digit - b'0')).min(EXPONENT_LIMIT);
            }
            if exponent == EXPONENT_LIMIT {
                return Err(NotCanonical::NumberOutOfRange(start));
            }
            if falling {
                exponent = -exponent;
            }
        }
        let out_of_range = |_| NotCanonical::NumberOutOfRange(start);
        let before = i64::try_from(whole.len()).map_err(out_of_range)?;
        let behind = i64::try_from(fraction.len()).map_err(out_of_range)?;
        let leading = whole.iter().chain(fraction).position(|digit| *digit != b'0');
        let leading = leading.map(i64::try_from).transpose().map_err(out_of_range)?;
        let point = before + exponent;
        let scale = (behind - exponent).max(0);
        if scale > MAX_SCALE || leading.is_some_and(|leading| point - leading - 1 > HIGHEST_PLACE) {
            return Err(NotCanonical::NumberOutOfRange(start));
        }
        Ok((Self { negative: negative && leading.is_some(), whole, fraction, point, leading, scale }, at))
    }

    /// Prints every digit; zero has no sign, and the digits behind the point are those that were written.
    pub(super) fn write(&self, out: &mut String) {
        if self.negative {
            out.push('-');
        }
        match self.leading {
            Some(leading) if leading < self.point => self.write_digits(leading, self.point, out),
            _ => out.push('0'),
        }
        if self.scale > 0 {
            out.push('.');
            self.write_digits(self.point, self.point + self.scale, out);
        }
    }

    /// The digits of the places `from..to`, where places outside the written digits are zero.
    fn write_digits(&self, from: i64, to: i64, out: &mut String) {
        for place in from..to {
            let digit = usize::try_from(place).ok().and_then(|place| match place.checked_sub(self.whole.len()) {
                None => self.whole.get(place),
                Some(behind) => self.fraction.get(behind),
            });
            out.push(char::from(digit.copied().unwrap_or(b'0')));
        }
    }
}
