//! Invocations: a request to a service of an application, and what may become of it (contract: coordinator.md §7).
//!
//! A worker starts one, does the work, and says how it went. It has until the deadline of its attempt. One that says
//! nothing in time has failed, and another may try again while attempts are left; one that was asked to stop and says
//! nothing is over. So nothing stays `running` for ever because a worker went away.

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
    /// The deadline of the attempt has passed.
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

    /// Where `asked` leads from here. The contract has no deadline for an attempt whose worker was asked to stop, so that
    /// it could stay that way for ever; here it times out, and is not tried again.
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
            (Self::Running | Self::CancelRequested, InvocationMove::TimeOut) => Ok(Self::TimedOut),
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
            (Pending, [Some(Running), Some(Canceled), None, None, None]),
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
