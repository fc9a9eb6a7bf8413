//! More is asked than can be done: what the system still does, what it refuses, and how soon it is well again.

use std::time::{Duration, Instant};

use super::load::{self, Measured, Pace, Plan};
use super::subject::Subject;
use super::unit::{Caller, Calls};
use crate::actors::client::HttpClient;
use crate::commands::Failure;

/// How many times the capacity is offered.
pub(super) const TIMES: [u32; 3] = [1, 2, 5];
/// So many calls in a row have to be well.
const WELL: usize = 10;
/// A system that is not well by then has not recovered.
const PATIENCE: Duration = Duration::from_secs(30);

/// One step.
pub(super) struct Step {
    pub(super) times: u32,
    pub(super) offered_per_second: f64,
    pub(super) measured: Measured,
}

/// What was found.
pub(super) struct Overload {
    pub(super) steps: Vec<Step>,
    /// From the end of the last step, calls under way included, until calls one at a time were as they should be.
    pub(super) recovered_in: Option<Duration>,
}

/// Offers multiples of what `capacity` found.
pub(super) fn measure(
    plan: impl Fn(Pace, &'static str) -> Plan,
    in_flight: usize,
    calls: &Calls<'_>,
    subject: &Subject,
    capacity: &Measured,
) -> Result<Overload, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, what) = (HttpClient::new(), plan(Pace::Closed, "").what);
    // Before the load: its session and its delegation are not what is waited for.
    let caller = runtime.block_on(Caller::prepare(what, &client, calls, false))?;
    let mut steps: Vec<Step> = Vec::with_capacity(TIMES.len());
    for (times, doing) in TIMES.into_iter().zip(["offering the capacity", "offering twice", "offering five times"]) {
        let offered_per_second = capacity.per_second() * f64::from(times);
        let pace = Pace::Open { rate: offered_per_second, in_flight, patience: Duration::ZERO };
        let measured = load::measure(&Plan { replays: true, ..plan(pace, doing) }, calls, subject)?;
        steps.push(Step { times, offered_per_second, measured });
    }
    let last = steps.last().map(|last| last.measured.ended);
    let recovered_in = last.and_then(|ended| runtime.block_on(recovery(&caller, ended, usual(capacity))));
    Ok(Overload { steps, recovered_in })
}

/// What a call may take when all is well: what one in a hundred took when all callers were at work.
fn usual(capacity: &Measured) -> Duration {
    Duration::from_micros(capacity.tally.whole.0.value_at_quantile(0.99))
}

async fn recovery(caller: &Caller<'_>, ended: Instant, usual: Duration) -> Option<Duration> {
    let (mut in_a_row, mut since) = (0, ended.elapsed());
    while ended.elapsed() < PATIENCE {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, caller.once()).await;
        in_a_row += 1;
        if !matches!(outcome, Ok(Ok(_))) || begun.elapsed() > usual {
            (in_a_row, since) = (0, ended.elapsed());
        }
        if in_a_row == WELL {
            return Some(since);
        }
    }
    None
}
