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
}
