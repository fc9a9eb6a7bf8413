//! Who may go on running a service (contract: coordinator.md §5.2, §5.3, §9 "Lease").
//!
//! A service lives while its holder renews it. A second process that takes it over gets the next generation, and whatever
//! the first one still says under its own is refused from then on: at every instant exactly one generation can renew or
//! retire the session. What is found on the way may end more than the request: a user who is gone takes the session along,
//! and a lease that was missed suspends it, whoever notices first. So a [`LeaseFault`] says what is to be done about it.

use std::time::Duration;

use crate::Timestamp;
use crate::record::{self, RecordFacts, SubjectKind};
use crate::session::{Fenced, Lease, Life, SessionFacts, SessionStatus};

/// Why a lease is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseFault {
    /// A task has no lease.
    #[error("the session is a task, which has no lease")]
    NotService,
    /// Resume it first.
    #[error("the session is suspended; resume it before it is taken over")]
    Suspended,
    /// It has ended.
    #[error("the session has ended")]
    NotLive,
    /// The user it acts for is gone.
    #[error("the user's authority behind the session is gone; the session has ended with it")]
    SubjectInactive,
    /// Somebody else holds the lease.
    #[error("the lease has passed to another holder")]
    Fenced(#[from] Fenced),
    /// It was not renewed in time.
    #[error("the lease was not renewed in time; the session is suspended until it is resumed")]
    Expired,
}

/// What a fault brings about beyond the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing.
    None,
    /// The session and all below it end.
    End,
    /// The session and all below it are suspended.
    Suspend,
}

impl LeaseFault {
    /// `error` on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotService => "session_not_service",
            Self::Suspended => "session_suspended",
            Self::NotLive => "session_not_live",
            Self::SubjectInactive => "session_subject_inactive",
            Self::Fenced(_) => "session_lease_fenced",
            Self::Expired => "session_lease_expired",
        }
    }

    /// What is to be done about it.
    pub fn consequence(self) -> Consequence {
        match self {
            Self::SubjectInactive => Consequence::End,
            Self::Expired => Consequence::Suspend,
            Self::NotService | Self::Suspended | Self::NotLive | Self::Fenced(_) => Consequence::None,
        }
    }
}

/// The lease of whoever takes a service over. `subject` is the record the session is anchored to.
pub fn take_over(
    session: &SessionFacts,
    subject: Option<&RecordFacts>,
    now: Timestamp,
    length: Duration,
) -> Result<Lease, LeaseFault> {
    let Life::Service(lease) = session.life else { return Err(LeaseFault::NotService) };
    match session.status {
        SessionStatus::Active => {}
        SessionStatus::Suspended => return Err(LeaseFault::Suspended),
        SessionStatus::Terminated | SessionStatus::Expired => return Err(LeaseFault::NotLive),
    }
    check_subject(session, subject, now)?;
    if lease.deadline <= now {
        return Err(LeaseFault::Expired);
    }
    Ok(lease.taken_over(now, length))
}

/// The lease after the holder of generation `held` renews it. A suspended session can be renewed and stays suspended: its
/// holder is there, and shall find it when it is resumed.
pub fn renew(
    session: &SessionFacts,
    subject: Option<&RecordFacts>,
    held: u64,
    now: Timestamp,
    length: Duration,
) -> Result<Lease, LeaseFault> {
    if session.status.is_terminal() {
        return Err(LeaseFault::NotLive);
    }
    let Life::Service(lease) = session.life else { return Err(LeaseFault::NotService) };
    check_subject(session, subject, now)?;
    let renewed = lease.renewed(held, now, length)?;
    if session.status == SessionStatus::Active && lease.deadline <= now {
        return Err(LeaseFault::Expired);
    }
    Ok(renewed)
}

/// An application's record is not looked at; a user's has to live; of an absent one nobody knows whether it was a user's.
fn check_subject(session: &SessionFacts, subject: Option<&RecordFacts>, now: Timestamp) -> Result<(), LeaseFault> {
    let subject = subject.filter(|record| record.id == session.subject_record && record.zone == session.zone);
    let subject = subject.ok_or(LeaseFault::SubjectInactive)?;
    match subject.kind {
        SubjectKind::Application => Ok(()),
        SubjectKind::User => record::check_live(subject, now).map(|_| ()).map_err(|_| LeaseFault::SubjectInactive),
    }
}
