//! Time as authority decisions see it: microseconds of UTC, always handed in, never read here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// An instant in microseconds since 1970-01-01T00:00:00Z. Never negative, never past year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Text that is not an instant of the accepted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC instant: expected `YYYY-MM-DDTHH:MM:SS[.fraction]Z`")]
pub struct NotATimestamp;

const LAST_MICROS: i64 = 253_402_300_799_999_999;
const MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const DATE_TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the epoch, clamped to the years 1970 to 9999.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(0, LAST_MICROS))
    }

    /// From whole seconds since the epoch, clamped likewise.
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_micros(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: the form of `iat` and `exp`.
    pub fn as_seconds(self) -> i64 {
        self.0 / 1_000_000
    }

    /// This instant plus `duration`, saturating at the end of year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This instant minus `duration`, saturating at the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_sub(micros))
    }

    /// How long until `later`; zero when it has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// `2026-01-01T12:00:00.000Z`: the form of every answer of the management and coordination APIs.
    pub fn to_millis_text(self) -> String {
        self.format(MILLIS)
    }

    /// `2026-01-01T12:00:00.000000Z`: full precision.
    pub fn to_micros_text(self) -> String {
        self.format(MICROS)
    }

    /// `2026-01-01T12:00:00Z`: whole seconds.
    pub fn to_seconds_text(self) -> String {
        self.format(SECONDS)
    }

    fn format(self, form: &[BorrowedFormatItem<'_>]) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|instant| instant.format(form).ok())
            .unwrap_or_default()
    }

    /// Parses `YYYY-MM-DDTHH:MM:SS[.fraction]Z`: a real calendar date, seconds mandatory, only an upper-case `Z`.
    /// Digits beyond microseconds are cut off, not rounded (contract: admin-api.md §1.4, audit-and-streams.md §2.1).
    pub fn parse(text: &str) -> Result<Self, NotATimestamp> {
        let body = text.strip_suffix('Z').ok_or(NotATimestamp)?;
        let (whole, fraction) = match body.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (body, None),
        };
        if whole.len() != 19 {
            return Err(NotATimestamp);
        }
        let instant = PrimitiveDateTime::parse(whole, DATE_TIME).map_err(|_| NotATimestamp)?.assume_utc();
        let micros = match fraction {
            None => 0,
            Some(digits) if (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{digits:0<6}")[..6].parse::<i64>().map_err(|_| NotATimestamp)?
            }
            Some(_) => return Err(NotATimestamp),
        };
        let total = instant.unix_timestamp().checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros));
        match total {
            Some(total) if (0..=LAST_MICROS).contains(&total) => Ok(Self(total)),
            _ => Err(NotATimestamp),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_micros_text())
    }
}

/// On the wire an instant is text with milliseconds.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_millis_text())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_extra_digits_are_cut_off() {
        let instant = Timestamp::parse("2026-01-02T03:04:05.123456789Z").unwrap();
        assert_eq!(instant.as_micros(), 1_767_323_045_123_456);
        assert_eq!(instant.to_micros_text(), "2026-01-02T03:04:05.123456Z");
        assert_eq!(instant.to_millis_text(), "2026-01-02T03:04:05.123Z");
        assert_eq!(instant.to_seconds_text(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn only_the_one_form_is_accepted() {
        for refused in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01T00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01t00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00z",
        ] {
            assert_eq!(Timestamp::parse(refused), Err(NotATimestamp), "{refused}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::EPOCH.minus(Duration::from_secs(1)), Timestamp::EPOCH);
        let last = Timestamp::from_micros(i64::MAX);
        assert_eq!(last.plus(Duration::from_secs(1)), last);
        assert_eq!(last.until(Timestamp::EPOCH), Duration::ZERO);
    }
}
