//! When a zone's keys sign, and for how long they are believed: pure functions of the keys and the time.
//!
//! `k1` signs. An operator rotates at 12:00, and `k2` is made: it is published with the commit that makes it, and signs from
//! 12:16. A verifier keeps a key set for ten minutes at most and need not fetch another for a key it does not know; what it
//! fetches may have lain in a cache of HTTP for five. So the set it holds at 12:16 is of 12:01 or later, and has `k2`. If
//! `k2` signed at once, whoever fetched at 11:59 would refuse every mandate until 12:09.
//!
//! From 12:16 on `k1` signs nothing. The last mandate it signed may live for an hour, and is looked at for a minute more:
//! `k1` is published and believed until 13:17, and ten minutes beyond, so that nobody drops it a moment too soon. Then it is
//! gone, and what somebody who finds it later signs with it is worth nothing.
//!
//! Nothing is said of how many rotations lie in that time. Each key's end hangs on its own successor, so a second rotation
//! at 12:05 takes nothing from the first: `k2` signs from 12:16, `k3` from 12:21, and `k1` stays until 13:27.

use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_authority::lifetime::LifetimeClass;

/// For how long a verifier may use a key set that it fetched (contract: sts.md §6, README D5).
pub const CACHE_PERIOD: Duration = Duration::from_secs(600);

/// For how long a key is published before it signs: the cache of a verifier, the five minutes that `Cache-Control` allows to
/// those in between, and one for a slow commit and a slow network.
pub const PUBLISHED_BEFORE: Duration = CACHE_PERIOD.saturating_add(Duration::from_secs(300 + 60));

/// For how long past its end a mandate is still looked at.
const LEEWAY: Duration = Duration::from_secs(60);

/// Keys a zone publishes at most. A verifier takes a document of 256 KiB, and a key takes up some 230 bytes of it.
pub const MOST_PUBLISHED: usize = 256;

/// What the schedule knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Later keys have higher versions.
    pub(crate) version: i64,
    /// From when on it signs, until one of a higher version does.
    pub(crate) signs_from: Timestamp,
}

/// Why no key can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// How long until one of the published keys is not needed any more.
    pub(crate) retry_after: Duration,
}

/// The turn of the next key of a zone that has `turns`, in any order. The first one signs whatever the time is: no verifier
/// holds an older set, and a clock that is a moment behind must not find a zone without a key.
pub(crate) fn next(turns: &[Turn], now: Timestamp) -> Result<Turn, Crowded> {
    let Some(last) = turns.iter().max_by_key(|turn| turn.version) else {
        return Ok(Turn { version: 1, signs_from: Timestamp::EPOCH });
    };
    let published = turns.iter().filter(|turn| is_published(turns, turn.version, now));
    let ends: Vec<Option<Timestamp>> = published.map(|turn| retires_at(turns, turn.version)).collect();
    if ends.len() >= MOST_PUBLISHED {
        let first = ends.into_iter().flatten().min().unwrap_or(now);
        return Err(Crowded { retry_after: now.until(first) });
    }
    // Never before its predecessor, should the clock have been put back.
    Ok(Turn { version: last.version + 1, signs_from: now.plus(PUBLISHED_BEFORE).max(last.signs_from) })
}

/// When nothing that the key of `version` signed is accepted any more; `None` while it has no successor.
pub(crate) fn retires_at(turns: &[Turn], version: i64) -> Option<Timestamp> {
    let successors = turns.iter().filter(|turn| turn.version > version);
    let last_signature = successors.map(|turn| turn.signs_from).min()?;
    Some(last_signature.plus(longest_life()).plus(LEEWAY).plus(CACHE_PERIOD))
}

/// Whether a key is in the zone's key set at `now`. It is from the moment it is made.
pub(crate) fn is_published(turns: &[Turn], version: i64, now: Timestamp) -> bool {
    retires_at(turns, version).is_none_or(|end| now < end)
}

/// No mandate lives longer.
fn longest_life() -> Duration {
    let classes = [LifetimeClass::Direct, LifetimeClass::Gateway];
    Duration::from_secs(classes.into_iter().map(|class| u64::from(class.most_seconds())).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds)
    }

    fn turn(version: i64, seconds: i64) -> Turn {
        Turn { version, signs_from: at(seconds) }
    }

    #[test]
    fn the_first_key_signs_at_once_and_others_are_published_before() {
        let first = next(&[], at(0)).unwrap();
        assert_eq!(first, Turn { version: 1, signs_from: Timestamp::EPOCH });
        let second = next(&[first], at(0)).unwrap();
        assert_eq!(second, turn(2, 960));
        assert_eq!(next(&[second, first], at(300)), Ok(turn(3, 1_260)));
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_change_the_order() {
        assert_eq!(next(&[turn(1, 0), turn(2, 5_000)], at(0)), Ok(turn(3, 5_000)));
    }

    #[test]
    fn a_key_stays_for_as_long_as_what_its_successor_let_it_sign() {
        let turns = [turn(3, 900), turn(1, 0), turn(2, 600)];
        assert_eq!(retires_at(&turns, 1), Some(at(600 + 3_600 + 60 + 600)));
        assert_eq!(retires_at(&turns, 2), Some(at(900 + 3_600 + 60 + 600)));
        assert_eq!(retires_at(&turns, 3), None);
        assert!(is_published(&turns, 1, at(4_859)) && !is_published(&turns, 1, at(4_860)));
    }

    /// One that never signed because a later one came with the same turn, or an earlier.
    #[test]
    fn a_key_that_was_overtaken_ends_with_the_one_before() {
        let turns = [turn(1, 0), turn(2, 600), turn(3, 600)];
        assert_eq!(retires_at(&turns, 1), retires_at(&turns, 2));
    }

    #[test]
    fn a_zone_publishes_no_more_keys_than_a_verifier_reads() {
        let crowd: Vec<Turn> = (1..=256).map(|version| turn(version, version)).collect();
        assert_eq!(next(&crowd, at(1_000)), Err(Crowded { retry_after: Duration::from_secs(2 + 4_260 - 1_000) }));
        assert_eq!(next(&crowd, at(2 + 4_260)).unwrap().version, 257);
    }
}
