//! What one call may take: the Gateway's own limits, and those of the resource (contract: gateway.md §15.5, §16, §17.2).
//!
//! A resource whose upstream thinks for minutes may be given more time, and one that only ever takes small questions
//! less room. Time is the resource's to say, in both directions: it costs its own zone a place. Room is the Gateway's:
//! a resource can ask for less and not for more.

use std::time::Duration;

use caracal_store::resources::CallLimits;

use crate::config::GatewayConfig;

/// The limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// From the end of the request to the head of the response.
    pub(crate) upstream_timeout: Duration,
    /// Silence within the response.
    pub(crate) idle: Duration,
    /// The whole of a response of known length.
    pub(crate) write: Duration,
    /// The request's body.
    pub(crate) request_bytes: u64,
}

impl Bounds {
    pub(crate) fn of(config: &GatewayConfig, limits: &CallLimits) -> Self {
        // No time at all would be a call that can't succeed: such a limit counts as the shortest there is.
        let time = |own: Duration, said: Option<u32>| {
            said.map_or(own, |milliseconds| Duration::from_millis(milliseconds.max(1).into()))
        };
        Self {
            upstream_timeout: time(config.upstream_timeout, limits.upstream_timeout_ms),
            idle: time(config.stream_idle_timeout, limits.stream_idle_timeout_ms),
            write: time(config.write_timeout, limits.write_timeout_ms),
            request_bytes: limits.max_request_bytes.unwrap_or(u64::MAX).min(config.max_request_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_says_its_times_and_at_most_less_room() {
        let config = GatewayConfig::default();
        let seconds = Duration::from_secs;
        let own = Bounds {
            upstream_timeout: seconds(30),
            idle: seconds(60),
            write: seconds(60),
            request_bytes: config.max_request_bytes,
        };
        assert_eq!(Bounds::of(&config, &CallLimits::default()), own);
        let said = CallLimits {
            upstream_timeout_ms: Some(120_000),
            stream_idle_timeout_ms: Some(0),
            write_timeout_ms: Some(600_000),
            max_request_bytes: Some(16),
        };
        let expected = Bounds {
            upstream_timeout: seconds(120),
            idle: Duration::from_millis(1),
            write: seconds(600),
            request_bytes: 16,
        };
        assert_eq!(Bounds::of(&config, &said), expected);
        let greedy = CallLimits { max_request_bytes: Some(u64::MAX), ..CallLimits::default() };
        assert_eq!(Bounds::of(&config, &greedy), own);
    }
}
