//! Counters that all replicas share (difference D7): each count is one atomic step on the server, so of any number of
//! concurrent hits at most the limit are within it. A server that can't be asked counts nothing, and whoever asked
//! refuses.

use std::sync::Arc;
use std::time::Duration;

use crate::redis::{Redis, StreamError};

/// Counts, and lets the window begin with the first hit. The window's end is never moved by later ones.
const HIT: &str = "local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count";

/// Whether the key is blocked, and for how many milliseconds more.
const BLOCKED: &str = "return redis.call('PTTL', KEYS[1])";

/// Counts a failure of a key that is not blocked, and blocks it when that was one too many. Gives for how many
/// milliseconds it is blocked, or a negative number.
const FAIL: &str = "local left = redis.call('PTTL', KEYS[2])
if left > 0 then return left end
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if count <= tonumber(ARGV[1]) then return -2 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], 1, 'PX', ARGV[3])
return tonumber(ARGV[3])";

/// More than `limit` failures of a key within `window` block it for `block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureLimit {
    /// Failures that are still let pass.
    pub limit: u32,
    /// The window begins with the first failure.
    pub window: Duration,
    /// How long the key is blocked then.
    pub block: Duration,
}

/// Counters on a server.
#[derive(Clone)]
pub struct Counters {
    redis: Arc<Redis>,
}

impl Counters {
    /// On this server.
    pub fn new(redis: Arc<Redis>) -> Self {
        Self { redis }
    }

    /// Counts one hit of each key, in one round trip, and gives how many there were in each key's window by then.
    pub async fn hit_all(&self, keys: &[String], window: Duration) -> Result<Vec<u64>, StreamError> {
        let mut hits = ::redis::pipe();
        for key in keys {
            let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            hits.cmd("EVAL").arg(HIT).arg(1).arg(key).arg(window);
        }
        let counts: Vec<u64> = self.redis.ask_all(&hits).await?;
        if counts.len() == keys.len() {
            return Ok(counts);
        }
        Err(StreamError::Refused(format!("{} counts for {} keys", counts.len(), keys.len())))
    }

    /// For how long `key` is blocked by its failures, if it is.
    pub async fn blocked(&self, key: &str) -> Result<Option<Duration>, StreamError> {
        let mut command = ::redis::cmd("EVAL");
        command.arg(BLOCKED).arg(1).arg(blocking(key));
        Ok(left(self.redis.ask(&command).await?))
    }

    /// Counts a failure of `key`, and gives for how long it is blocked, by this failure or by earlier ones.
    pub async fn failed(&self, key: &str, limit: FailureLimit) -> Result<Option<Duration>, StreamError> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let mut command = ::redis::cmd("EVAL");
        command.arg(FAIL).arg(2).arg(counting(key)).arg(blocking(key));
        command.arg(limit.limit).arg(millis(limit.window)).arg(millis(limit.block));
        Ok(left(self.redis.ask(&command).await?))
    }
}

/// Both keys of a count lie in one slot of a cluster, because of the braces.
fn counting(key: &str) -> String {
    format!("{{{key}}}:failures")
}

fn blocking(key: &str) -> String {
    format!("{{{key}}}:blocked")
}

/// A server's time to live: negative where there is no key.
fn left(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)
}
