//! Invocations: a request to a service of an application, and what may become of it (contract: coordinator.md §7).
//!
//! A worker starts one, does the work, and says how it went. It has until the deadline of its attempt. One that says
//! nothing in time has failed, and another may try again while attempts are left; one that was asked to stop and says
//! nothing is over. So nothing stays `running` for ever because a worker went away, and nothing `pending` because none
//! ever came.

use std::time::Duration;

use crate::time::Timestamp;

/// The state of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvocationStatus {
    /// Nobody works on it yet.
    Pending,
    /// An attempt is under way.
    Running,
    /// An attempt is under way, and its worker has been asked to stop.
    CancelRequested,
    /// Final.
    Succeeded,
    /// The last attempt failed. Final unless attempts are left.
    Failed,
    /// Withdrawn before anybody worked on it. Final.
    Canceled,
    /// Nobody answered in time, and nobody will be asked again. Final.
    TimedOut,
    /// A name that lists can be filtered by. Nothing leads here.
    Dead,
}

/// All states, for whoever reads or lists them.
pub const INVOCATION_STATUSES: [InvocationStatus; 8] = [
    InvocationStatus::Pending,
    InvocationStatus::Running,
    InvocationStatus::CancelRequested,
    InvocationStatus::Succeeded,
    InvocationStatus::Failed,
    InvocationStatus::Canceled,
    InvocationStatus::TimedOut,
    InvocationStatus::Dead,
];

/// What is asked of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvocationMove {
    /// Begin an attempt.
    Start,
    /// Stop, or do not begin.
    Cancel,
    /// The worker says how the attempt went.
    Complete {
        /// Whether it did what was asked.
        succeeded: bool,
    },
    /// The deadline of the attempt has passed, or the time within which somebody had to begin.
    TimeOut,
}

/// Attempts begun so far, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Begun.
    pub made: u32,
    /// At most.
    pub most: u32,
}

impl Attempts {
    /// Whether another may begin.
    pub fn left(self) -> bool {
        self.made < self.most
    }
}

/// When a worker may begin, beside the state that it has to be in (contract: coordinator.md §7, W20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When it was asked.
    pub asked_at: Timestamp,
    /// How long what is asked waits for somebody to begin.
    pub waits: Duration,
    /// When the last attempt ended, if there was one.
    pub ended_at: Option<Timestamp>,
    /// The pause between two attempts that was asked for, if any was.
    pub pause: Option<Duration>,
}

/// Why nobody may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTime {
    /// Nobody began while it waited, and nobody shall any more.
    #[error("nobody began in time, and it is over")]
    Waited,
    /// The pause between two attempts is not over.
    #[error("the pause between two attempts ends at {until}")]
    Paused {
        /// When it is.
        until: Timestamp,
    },
}

impl Pace {
    /// Whether a worker may begin at `now`. What has waited too long may not, whether or not a job has ended it already.
    pub fn permits(self, from: InvocationStatus, now: Timestamp) -> Result<(), OutOfTime> {
        match (from, self.ended_at, self.pause) {
            (InvocationStatus::Pending, ..) if self.asked_at.plus(self.waits) <= now => Err(OutOfTime::Waited),
            (InvocationStatus::Failed, Some(ended), Some(pause)) if now < ended.plus(pause) => {
                Err(OutOfTime::Paused { until: ended.plus(pause) })
            }
            _ => Ok(()),
        }
    }
}

/// A move that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invocation that is {from} cannot be {asked}", from = .from.as_str(), asked = .asked.participle())]
pub struct IllegalInvocationMove {
    /// Where it is.
    pub from: InvocationStatus,
    /// What was asked.
    pub asked: InvocationMove,
}

impl IllegalInvocationMove {
    /// The Coordinator's error code (409).
    pub fn code(self) -> &'static str {
        match self.asked {
            InvocationMove::Start => "invocation_not_startable",
            InvocationMove::Cancel => "invocation_not_cancelable",
            InvocationMove::Complete { .. } | InvocationMove::TimeOut => "invocation_not_completable",
        }
    }
}

impl InvocationMove {
    fn participle(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Cancel => "canceled",
            Self::Complete { .. } => "completed",
            Self::TimeOut => "timed out",
        }
    }
}

impl InvocationStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::CancelRequested => "cancel_requested",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Dead => "dead",
        }
    }

    /// From the wire name; anything else is no status.
    pub fn parse(text: &str) -> Option<Self> {
        INVOCATION_STATUSES.into_iter().find(|status| status.as_str() == text)
    }

    /// Where `asked` leads from here. The contract has no deadline for an attempt whose worker was asked to stop, nor for
    /// what nobody begins, so that either could stay that way for ever (W20); here both time out, and are not tried again.
    pub fn after(self, asked: InvocationMove, attempts: Attempts) -> Result<Self, IllegalInvocationMove> {
        match (self, asked) {
            (Self::Pending, InvocationMove::Start) => Ok(Self::Running),
            (Self::Failed, InvocationMove::Start) if attempts.left() => Ok(Self::Running),
            (Self::Pending, InvocationMove::Cancel) => Ok(Self::Canceled),
            (Self::Running | Self::CancelRequested, InvocationMove::Cancel) => Ok(Self::CancelRequested),
            (Self::Running | Self::CancelRequested, InvocationMove::Complete { succeeded: true }) => {
                Ok(Self::Succeeded)
            }
            (Self::Running | Self::CancelRequested, InvocationMove::Complete { succeeded: false }) => Ok(Self::Failed),
            (Self::Running, InvocationMove::TimeOut) if attempts.left() => Ok(Self::Failed),
            (Self::Pending | Self::Running | Self::CancelRequested, InvocationMove::TimeOut) => Ok(Self::TimedOut),
            (from, asked) => Err(IllegalInvocationMove { from, asked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InvocationStatus::{CancelRequested, Canceled, Dead, Failed, Pending, Running, Succeeded, TimedOut};
    use super::*;

    const DONE: InvocationMove = InvocationMove::Complete { succeeded: true };
    const BROKEN: InvocationMove = InvocationMove::Complete { succeeded: false };
    const SOME: Attempts = Attempts { made: 1, most: 2 };
    const NONE: Attempts = Attempts { made: 2, most: 2 };

    #[test]
    fn an_invocation_moves_as_the_contracts_table_says_and_no_other_way() {
        let table = [
            (Pending, [Some(Running), Some(Canceled), None, None, Some(TimedOut)]),
            (Running, [None, Some(CancelRequested), Some(Succeeded), Some(Failed), Some(Failed)]),
            (CancelRequested, [None, Some(CancelRequested), Some(Succeeded), Some(Failed), Some(TimedOut)]),
            (Failed, [Some(Running), None, None, None, None]),
            (Succeeded, [None; 5]),
            (Canceled, [None; 5]),
            (TimedOut, [None; 5]),
            (Dead, [None; 5]),
        ];
        assert_eq!(table.map(|(from, _)| from).len(), INVOCATION_STATUSES.len());
        for (from, to) in table {
            for (asked, to) in [InvocationMove::Start, InvocationMove::Cancel, DONE, BROKEN, InvocationMove::TimeOut]
                .into_iter()
                .zip(to)
            {
                assert_eq!(from.after(asked, SOME).ok(), to, "{from:?} {asked:?}");
            }
        }
    }

    #[test]
    fn when_no_attempt_is_left_nothing_starts_again_and_silence_is_the_end() {
        assert_eq!(Failed.after(InvocationMove::Start, NONE).unwrap_err().code(), "invocation_not_startable");
        assert_eq!(Running.after(InvocationMove::TimeOut, NONE), Ok(TimedOut));
        assert_eq!(Running.after(BROKEN, NONE), Ok(Failed));
    }

    #[test]
    fn a_worker_begins_before_the_wait_is_over_and_not_before_a_pause_that_was_asked_for_is() {
        let at = Timestamp::from_seconds;
        let (waits, pause) = (Duration::from_secs(60), Duration::from_secs(5));
        let pace = Pace { asked_at: at(100), waits, ended_at: Some(at(200)), pause: Some(pause) };
        for (from, now, expected) in [
            (Pending, at(159), Ok(())),
            (Pending, at(160), Err(OutOfTime::Waited)),
            (Failed, at(204), Err(OutOfTime::Paused { until: at(205) })),
            (Failed, at(205), Ok(())),
            // Whatever else is wrong with these is for the state machine to say.
            (Running, at(900), Ok(())),
        ] {
            assert_eq!(pace.permits(from, now), expected, "{from:?} {now:?}");
        }
        assert_eq!(Pace { pause: None, ..pace }.permits(Failed, at(200)), Ok(()));
        assert_eq!(Pace { ended_at: None, ..pace }.permits(Failed, at(200)), Ok(()));
    }

    #[test]
    fn every_refusal_has_the_contracts_code_and_says_what_is() {
        for (asked, code) in [
            (InvocationMove::Start, "invocation_not_startable"),
            (InvocationMove::Cancel, "invocation_not_cancelable"),
            (DONE, "invocation_not_completable"),
            (BROKEN, "invocation_not_completable"),
        ] {
            let refused = Succeeded.after(asked, SOME).unwrap_err();
            assert_eq!(refused.code(), code);
            assert!(refused.to_string().contains("succeeded"), "{refused}");
        }
    }

    #[test]
    fn wire_names_round_trip_and_unknown_ones_are_nothing() {
        for status in INVOCATION_STATUSES {
            assert_eq!(InvocationStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(InvocationStatus::parse("RUNNING"), None);
    }
}
