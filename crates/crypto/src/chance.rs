//! The only home of randomness. Everything drawn here comes from the operating system; when it cannot answer, the
//! caller gets an error and must refuse, because a predictable id or key is worse than none.

use std::sync::{Mutex, PoisonError};

use caracal_authority::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::{Builder, Uuid};

use crate::encoding::push_base64url;
use crate::secret::{Secret, SecretText};

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random source is unavailable")]
pub struct ChanceUnavailable;

/// `N` random bytes. For key material, wrap the result in a [`Secret`] at once.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], ChanceUnavailable> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ChanceUnavailable)?;
    Ok(bytes)
}

/// A token as the contract issues them: `prefix` followed by 32 random bytes in unpadded base64url (43 characters).
/// Prefixes: `cs_` client secrets, `ws_` workload secrets, `cat_` admin tokens.
pub fn token(prefix: &str) -> Result<SecretText, ChanceUnavailable> {
    let bytes = Secret::new(random_bytes::<32>()?);
    let mut text = String::with_capacity(prefix.len() + 43);
    text.push_str(prefix);
    push_base64url(&mut text, bytes.expose());
    Ok(Secret::new(text))
}

/// A random id (version 4): 122 random bits, fit to be a capability, as approval ids are.
pub fn uuid_v4() -> Result<Uuid, ChanceUnavailable> {
    Ok(Builder::from_random_bytes(random_bytes()?).into_uuid())
}

/// A time-ordered id (version 7) for the instant `now`. Not a capability: its order and time are public.
///
/// Ids drawn by one process ascend as long as the time handed in does not step back by more than [`SLACK_MILLIS`]
/// (threads that read the clock a moment apart may arrive in the other order). The ascending part is a counter in the
/// 12 bits after the version and the 14 bits after the variant (RFC 9562 §6.2, method 1): each new millisecond starts
/// it at a random value below 2^25, so at least 2^25 ids fit into one millisecond. The remaining 48 bits are random in
/// every id; together with the random start they keep ids of different processes apart.
pub fn uuid_v7(now: Timestamp) -> Result<Uuid, ChanceUnavailable> {
    static LAST: Mutex<Tick> = Mutex::new(Tick { millis: 0, counter: 0 });
    let random = random_bytes::<10>()?;
    let start = u32::from_be_bytes([random[0], random[1], random[2], random[3]]);
    let millis = u64::try_from(now.as_micros() / 1_000).unwrap_or(0);
    let tick = {
        // A thread that panicked inside cannot have left half a tick: both fields are written at once.
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.next(millis, start);
        *last
    };
    Ok(tick.id([random[4], random[5], random[6], random[7], random[8], random[9]]))
}

/// How far behind the newest id's time an instant may lie and still get an id that sorts after it.
pub const SLACK_MILLIS: u64 = 1_000;

const COUNTER_BITS: u32 = 26;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Tick {
    millis: u64,
    counter: u32,
}

impl Tick {
    fn next(self, millis: u64, random: u32) -> Self {
        let start = random & ((1 << (COUNTER_BITS - 1)) - 1);
        if millis > self.millis || self.millis - millis > SLACK_MILLIS {
            Self { millis, counter: start }
        } else if self.counter + 1 < 1 << COUNTER_BITS {
            Self { millis: self.millis, counter: self.counter + 1 }
        } else {
            // The millisecond is full: borrow the next one rather than repeat or go back.
            Self { millis: self.millis + 1, counter: start }
        }
    }

    fn id(self, random: [u8; 6]) -> Uuid {
        let (high, low) = (self.counter >> 14, self.counter & 0x3fff);
        let [_, _, h0, h1] = high.to_be_bytes();
        let [_, _, l0, l1] = low.to_be_bytes();
        let [r0, r1, r2, r3, r4, r5] = random;
        // The builder overwrites the top four bits of the first byte (version) and the top two of the third (variant);
        // the counter leaves exactly those free.
        Builder::from_unix_timestamp_millis(self.millis, &[h0, h1, l0, l1, r0, r1, r2, r3, r4, r5]).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_token_is_its_prefix_and_43_characters() {
        let (one, two) = (token("cs_").unwrap(), token("cs_").unwrap());
        assert_eq!(one.expose().len(), 46);
        let bytes = crate::encoding::from_base64url(one.expose().strip_prefix("cs_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert!(one.expose() != two.expose());
    }

    #[test]
    fn ids_carry_their_version_and_time() {
        assert_eq!(uuid_v4().unwrap().get_version_num(), 4);
        let tick = Tick { millis: 1_767_323_045_123, counter: 0x03ff_ffff };
        let id = tick.id([0; 6]);
        assert_eq!(id.to_string(), "019b7ca9-8d03-7fff-bfff-000000000000");
        let zero = Tick { counter: 0, ..tick }.id([0xff; 6]);
        assert_eq!(zero.to_string(), "019b7ca9-8d03-7000-8000-ffffffffffff");
        assert!(zero < id);
        let now = Timestamp::from_micros(1_767_323_045_123_456);
        assert_eq!(uuid_v7(now).unwrap().get_version_num(), 7);
    }

    #[test]
    fn ids_of_one_millisecond_ascend_across_threads_and_never_repeat() {
        let now = Timestamp::from_micros(1_767_323_045_123_456);
        let draw = || (0..2_000).map(|_| uuid_v7(now).unwrap()).collect::<Vec<_>>();
        let drawn: Vec<Vec<Uuid>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(drawn.iter().all(|ids| ids.is_sorted()));
        assert_eq!(drawn.iter().flatten().collect::<HashSet<_>>().len(), 8_000);
    }

    #[test]
    fn a_counter_ascends_over_small_steps_back_full_milliseconds_and_new_ones() {
        let last = Tick { millis: 5_000, counter: 7 };
        assert_eq!(last.next(5_000, 99), Tick { millis: 5_000, counter: 8 });
        assert_eq!(last.next(4_000, 99), Tick { millis: 5_000, counter: 8 });
        assert_eq!(last.next(5_001, 99), Tick { millis: 5_001, counter: 99 });
        assert_eq!(last.next(3_999, 99), Tick { millis: 3_999, counter: 99 });
        let full = Tick { millis: 5_000, counter: (1 << 26) - 1 };
        assert_eq!(full.next(5_000, 3), Tick { millis: 5_001, counter: 3 });
        assert_eq!(last.next(9_000, u32::MAX).counter, (1 << 25) - 1);
    }
}
