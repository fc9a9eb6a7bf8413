//! How many files this process may have open, and how they are shared out among its listeners.
//!
//! Every connection is an open file. If callers of the Gateway could take the last one, nobody could revoke what they hold:
//! the operator's connection would wait behind theirs. So the process takes what its system allows it to take, and each
//! listener gets a part that all others together can't reach.

use super::StartError;

/// What is no caller's: the store, files, logs, connections to databases and to other services.
const RESERVE: u64 = 160;
/// Connections of a listener when there is enough, for the Gateway's callers and for everybody else's.
const CALLERS: u64 = 16_384;
const OTHERS: u64 = 8_192;
/// A call has a connection of its caller and one to its upstream.
const FILES_OF_A_CALL: u64 = 2;
/// With fewer than this a listener could not be relied on.
const LEAST: u64 = 16;

/// Connections of each listener at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Of the Gateway's callers.
    pub(super) callers: usize,
    /// Of any other listener.
    pub(super) others: usize,
}

/// Raises this process's limit as far as it may, shares it out, and says where it is too low for all that could be served.
pub(super) fn shares(with_gateway: bool, other_listeners: usize) -> Result<Shares, StartError> {
    let limit = raised();
    let (shares, wanted) = share_out(limit, with_gateway, other_listeners)?;
    if let Some(limit) = limit.filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            callers_of_the_gateway = shares.callers,
            of_any_other_listener = shares.others,
            "this process may have fewer files open than its connections can need, and takes fewer connections; raise the \
             hard limit (`ulimit -Hn`, LimitNOFILE=) to {wanted} for all of them"
        );
    }
    Ok(shares)
}

/// The shares under a limit, and the limit under which none is cut.
fn share_out(limit: Option<u64>, with_gateway: bool, other_listeners: usize) -> Result<(Shares, u64), StartError> {
    let others = u64::try_from(other_listeners).unwrap_or(u64::MAX);
    let callers = if with_gateway { CALLERS * FILES_OF_A_CALL } else { 0 };
    let all = others.saturating_mul(OTHERS).saturating_add(callers).max(1);
    let wanted = all.saturating_add(RESERVE);
    let left = limit.map_or(all, |limit| limit.saturating_sub(RESERVE)).min(all);
    // Multiplied first: what is lost by rounding is less than one connection of each.
    let part = |most: u64| u64::try_from(u128::from(most) * u128::from(left) / u128::from(all)).unwrap_or(most);
    let (callers, others) = (part(CALLERS), part(OTHERS));
    if callers.min(others) < LEAST {
        let least = RESERVE + LEAST * all.div_ceil(OTHERS);
        return Err(StartError::Setting(format!(
            "this process may have {} files open at a time, connections among them, which is too few to serve anybody \
             reliably; raise the limit (`ulimit -n`, LimitNOFILE=) to {least} at least, or to {wanted} for as many \
             connections as it can serve",
            limit.unwrap_or(u64::MAX)
        )));
    }
    let count = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
    Ok((Shares { callers: count(callers), others: count(others) }, wanted))
}

/// What is tried where the hard limit can't be had, which is so where it says "unlimited" and the system has a bound for all.
#[cfg(unix)]
const INSTEAD: [u64; 3] = [CALLERS * FILES_OF_A_CALL + 4 * OTHERS + RESERVE, 10_240, 4_096];

/// The limit, once it is as high as this process may make it. `None` where there is none.
#[cfg(unix)]
fn raised() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let set = |limit| setrlimit(Resource::Nofile, Rlimit { current: limit, maximum }).is_ok();
    highest(current, maximum, set)
}

/// The first limit that can be set, from the hard one downwards; what was allowed stays allowed.
#[cfg(unix)]
fn highest(current: Option<u64>, maximum: Option<u64>, mut set: impl FnMut(Option<u64>) -> bool) -> Option<u64> {
    let Some(now) = current.filter(|_| current != maximum) else { return current };
    let lower = INSTEAD.into_iter().filter(|limit| maximum.is_none_or(|most| *limit < most)).map(Some);
    let mut wanted = std::iter::once(maximum).chain(lower.filter(|limit| limit.is_some_and(|limit| limit > now)));
    wanted.find(|limit| set(*limit)).unwrap_or(current)
}

#[cfg(not(unix))]
fn raised() -> Option<u64> {
    None
}

#[cfg(test)]
mod t08_availability {
    use super::*;

    #[test]
    fn enough_files_cut_nobodys_share() {
        let whole = Shares { callers: 16_384, others: 8_192 };
        for limit in [None, Some(1 << 20), Some(65_536 + 160)] {
            assert_eq!(share_out(limit, true, 4).unwrap(), (whole, 65_696), "{limit:?}");
        }
        assert_ne!(share_out(Some(65_695), true, 4).unwrap().0, whole);
    }

    #[test]
    fn all_shares_together_leave_the_reserve_whatever_the_limit() {
        for with_gateway in [true, false] {
            for listeners in 1..=5_usize {
                let mut last = (0, 0);
                for limit in 0..70_000_u64 {
                    let Ok((shares, wanted)) = share_out(Some(limit), with_gateway, listeners) else {
                        assert!(limit < 400, "{limit} are enough for somebody");
                        continue;
                    };
                    let callers = if with_gateway { 2 * shares.callers } else { 0 };
                    let taken = u64::try_from(callers + listeners * shares.others).unwrap();
                    assert!(taken + RESERVE <= limit, "{shares:?} of {limit}");
                    assert!(shares.callers >= 16 && shares.others >= 16, "{shares:?} of {limit}");
                    assert!((shares.callers, shares.others) >= last, "more files, fewer connections");
                    assert!(limit < wanted || shares.others == 8_192);
                    last = (shares.callers, shares.others);
                }
            }
        }
    }

    /// Some systems call the hard limit unlimited, and refuse to set it.
    #[cfg(unix)]
    #[test]
    fn the_limit_is_raised_as_far_as_the_system_lets_it_and_never_lowered() {
        for (current, maximum, most, expected) in [
            (Some(256), Some(4_000), 4_000, Some(4_000)),
            (Some(256), None, u64::MAX, None),
            (Some(256), None, 10_240, Some(10_240)),
            (Some(8_000), None, 5_000, Some(8_000)),
            (Some(256), Some(100_000), 70_000, Some(65_696)),
            (Some(256), Some(300), 0, Some(256)),
            (Some(300), Some(300), 0, Some(300)),
            (None, None, 0, None),
        ] {
            let set = |limit: Option<u64>| limit.map_or(most == u64::MAX, |limit| limit <= most);
            assert_eq!(highest(current, maximum, set), expected, "{current:?} {maximum:?} {most}");
        }
    }

    #[test]
    fn too_few_are_refused_with_how_many_it_takes() {
        let error = share_out(Some(128), true, 4).unwrap_err().to_string();
        assert!(error.contains("128 files") && error.contains("ulimit -n"), "{error}");
        let least = error.split("to ").filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).next().unwrap();
        assert!(share_out(Some(least), true, 4).is_ok() && share_out(Some(least - 1), true, 4).is_err(), "{error}");
    }
}
