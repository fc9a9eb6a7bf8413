//! Governed sessions: who an agent is while it works, and when it stops being anyone.
//!
//! Three questions look alike and are not. *May it act?* is [`check_live`]: active, within its life, and the user
//! behind it still there. *Does it hold a slot?* is [`SessionFacts::holds_capacity`]: a suspended service does, a
//! lapsed task does not. *May it move?* are the transitions of [`SessionStatus`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{self, DeadRecord, RecordFacts, SubjectKind};
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, Timestamp, ZoneId};

/// Deepest level of the session tree; a root has depth 0.
pub const MAX_DEPTH: u8 = 10;
/// Most live children of one session.
pub const MAX_CHILDREN: usize = 10;
/// Most labels of one session.
pub const MAX_LABELS: usize = 32;
/// Longest label, in characters, after trimming.
pub const MAX_LABEL_CHARS: usize = 64;
/// Bounds of a task's life, in seconds.
pub const TTL_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

/// How a session ends: by its own time, or when nobody renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Ends at start + ttl.
    Task,
    /// Lives while its lease is renewed.
    Service,
}

impl Lifecycle {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Service => "service",
        }
    }

    /// From the wire name; anything else is no lifecycle.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "task" => Some(Self::Task),
            "service" => Some(Self::Service),
            _ => None,
        }
    }
}

/// The life of a session: each kind with exactly the facts it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// A task and its time to live, in seconds.
    Task {
        /// Seconds from start to end; 0 never lives.
        ttl_seconds: u32,
    },
    /// A service and its lease.
    Service(Lease),
}

impl Life {
    /// The lifecycle this is the life of.
    pub fn lifecycle(self) -> Lifecycle {
        match self {
            Self::Task { .. } => Lifecycle::Task,
            Self::Service(_) => Lifecycle::Service,
        }
    }
}

/// Who may renew a service, and until when it has (contract: coordinator.md §9 "Lease").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The one generation that may renew or retire the session, from 1.
    pub generation: u64,
    /// First instant at which the lease is lost.
    pub deadline: Timestamp,
}

/// A holder of an older (or invented) generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lease generation {held} is fenced off by generation {current}")]
pub struct Fenced {
    /// What the caller holds.
    pub held: u64,
    /// What is valid.
    pub current: u64,
}

impl Lease {
    /// The lease of a service that starts now.
    pub fn first(now: Timestamp, length: Duration) -> Self {
        Self { generation: 1, deadline: now.plus(length) }
    }

    /// A new holder takes over: whoever held the lease before is fenced off.
    #[must_use]
    pub fn taken_over(self, now: Timestamp, length: Duration) -> Self {
        Self { generation: self.generation.saturating_add(1), deadline: now.plus(length) }
    }

    /// The current holder renews.
    pub fn renewed(self, held: u64, now: Timestamp, length: Duration) -> Result<Self, Fenced> {
        self.held_by(held)?;
        Ok(Self { deadline: now.plus(length), ..self })
    }

    /// Whether `held` is the valid generation.
    pub fn held_by(self, held: u64) -> Result<(), Fenced> {
        if held == self.generation { Ok(()) } else { Err(Fenced { held, current: self.generation }) }
    }
}

/// The stored status of a session. Liveness also needs the time: see [`check_live`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// At work.
    Active,
    /// Stopped, may be resumed.
    Suspended,
    /// Ended by someone or something. Final.
    Terminated,
    /// A task that outlived its time. Final.
    Expired,
}

/// A move the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session cannot go from {from} to {to}", from = .from.as_str(), to = .to.as_str())]
pub struct IllegalMove {
    /// Where it is.
    pub from: SessionStatus,
    /// Where it was to go.
    pub to: SessionStatus,
}

impl SessionStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Terminated => "terminated",
            Self::Expired => "expired",
        }
    }

    /// From the wire name; anything else is no status.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "suspended" => Some(Self::Suspended),
            "terminated" => Some(Self::Terminated),
            "expired" => Some(Self::Expired),
            _ => None,
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Terminated | Self::Expired)
    }

    /// active → suspended: asked for, lease lost, or an ancestor suspended.
    pub fn suspend(self) -> Result<Self, IllegalMove> {
        self.moves(Self::Suspended, self == Self::Active)
    }

    /// suspended → active: asked for on itself or an ancestor.
    pub fn resume(self) -> Result<Self, IllegalMove> {
        self.moves(Self::Active, self == Self::Suspended)
    }

    /// active, suspended → terminated: see [`TerminationReason`].
    pub fn terminate(self) -> Result<Self, IllegalMove> {
        self.moves(Self::Terminated, !self.is_terminal())
    }

    /// active, suspended → expired: only a task has a time to outlive.
    pub fn expire(self, lifecycle: Lifecycle) -> Result<Self, IllegalMove> {
        self.moves(Self::Expired, !self.is_terminal() && lifecycle == Lifecycle::Task)
    }

    fn moves(self, to: Self, legal: bool) -> Result<Self, IllegalMove> {
        if legal { Ok(to) } else { Err(IllegalMove { from: self, to }) }
    }
}

/// Why a session ended (contract: coordinator.md §9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminationReason {
    /// Somebody ended it and said why (`requested` by default).
    Asked(String),
    /// Its time was up.
    Ttl,
    /// The user it acts for is gone.
    SubjectAuthorityInactive,
    /// A delegation into it, or upstream of it, was revoked.
    DelegationRevoked,
    /// An ancestor ended.
    ParentTerminated,
}

impl TerminationReason {
    /// `termination_reason` on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Asked(reason) => reason,
            Self::Ttl => "ttl",
            Self::SubjectAuthorityInactive => "subject_authority_inactive",
            Self::DelegationRevoked => "delegation_revoked",
            Self::ParentTerminated => "parent_terminated",
        }
    }

    /// The status a session ends in for this reason.
    pub fn final_status(&self) -> SessionStatus {
        if matches!(self, Self::Ttl) { SessionStatus::Expired } else { SessionStatus::Terminated }
    }
}

/// What the store knows of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// The session.
    pub id: AgentSessionId,
    /// Its zone.
    pub zone: ZoneId,
    /// The application that owns it.
    pub application: ApplicationId,
    /// The session it was started under.
    pub parent: Option<AgentSessionId>,
    /// The authority record it is anchored to, for good.
    pub subject_record: AuthorityRecordId,
    /// Roles the policy knows it by.
    pub labels: Vec<String>,
    /// Level in the tree.
    pub depth: u8,
    /// Stored status.
    pub status: SessionStatus,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it lives.
    pub life: Life,
}

impl SessionFacts {
    /// When a task's time is up. A service has no such instant: its lease moves, and is looked at in every exchange.
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.life {
            Life::Task { ttl_seconds } => Some(self.started_at.plus(Duration::from_secs(ttl_seconds.into()))),
            Life::Service(_) => None,
        }
    }

    /// Whether it may be an end of a new delegation: active, and within its time or lease (coordinator.md §6.2 row 6).
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.status == SessionStatus::Active && self.within_life(now)
    }

    /// Whether it counts against the limits (coordinator.md §4.2): a suspended service holds its slot past its
    /// deadline, a lapsed task does not.
    pub fn holds_capacity(&self, now: Timestamp) -> bool {
        match (self.status, self.life) {
            (SessionStatus::Suspended, Life::Service(_)) => true,
            (SessionStatus::Active | SessionStatus::Suspended, _) => self.within_life(now),
            (SessionStatus::Terminated | SessionStatus::Expired, _) => false,
        }
    }

    fn within_life(&self, now: Timestamp) -> bool {
        match self.life {
            Life::Task { .. } => self.ends_at().is_some_and(|end| end > now),
            Life::Service(lease) => lease.deadline > now,
        }
    }
}

/// A session that may act at the instant of the decision. Only [`check_live`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct LiveSession<'f> {
    facts: &'f SessionFacts,
    user_until: Option<Timestamp>,
}

impl<'f> LiveSession<'f> {
    /// The facts behind it.
    pub fn facts(self) -> &'f SessionFacts {
        self.facts
    }

    /// The last instant its authority can reach: the end of the task, and of the user's record behind it.
    pub fn bound(self) -> Option<Timestamp> {
        [self.facts.ends_at(), self.user_until].into_iter().flatten().min()
    }
}

/// Why a session may not act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeadSession {
    /// Its status is not active.
    #[error("the session is {}", .0.as_str())]
    Status(SessionStatus),
    /// The task's time is up.
    #[error("the session has outlived its time to live")]
    Lapsed,
    /// The service's lease was not renewed.
    #[error("the session's lease was not renewed")]
    LeaseLost,
    /// The record it is anchored to is not among the facts, so nobody knows whether a user stands behind it.
    #[error("the session's authority record is unknown")]
    SubjectUnknown,
    /// The user's record behind it is dead.
    #[error("the user behind the session is gone: {0}")]
    SubjectDead(DeadRecord),
}

/// Whether a session may act (contract: sts.md §9 "Live session"). `subject` is the record it is anchored to: a user's
/// must be live, an application's is not looked at, an absent one denies.
pub fn check_live<'f>(
    session: &'f SessionFacts,
    subject: Option<&RecordFacts>,
    now: Timestamp,
) -> Result<LiveSession<'f>, DeadSession> {
    if session.status != SessionStatus::Active {
        return Err(DeadSession::Status(session.status));
    }
    if !session.within_life(now) {
        return Err(match session.life {
            Life::Task { .. } => DeadSession::Lapsed,
            Life::Service(_) => DeadSession::LeaseLost,
        });
    }
    let subject = subject
        .filter(|record| record.id == session.subject_record && record.zone == session.zone)
        .ok_or(DeadSession::SubjectUnknown)?;
    let user_until = match subject.kind {
        SubjectKind::Application => None,
        SubjectKind::User => {
            Some(record::check_live(subject, now).map_err(DeadSession::SubjectDead)?.facts().expires_at)
        }
    };
    Ok(LiveSession { facts: session, user_until })
}

/// Labels no session can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// More than [`MAX_LABELS`].
    #[error("more than {MAX_LABELS} labels")]
    TooMany,
    /// The label at this index is not 1 to [`MAX_LABEL_CHARS`] characters after trimming, or has a control character.
    #[error("label {0} is not 1 to {MAX_LABEL_CHARS} printable characters")]
    Malformed(usize),
}

/// Labels as they are stored: each trimmed, order and duplicates kept.
pub fn parse_labels<S: AsRef<str>>(given: &[S]) -> Result<Vec<String>, LabelFault> {
    if given.len() > MAX_LABELS {
        return Err(LabelFault::TooMany);
    }
    let label = |(index, label): (usize, &S)| {
        let label = label.as_ref().trim();
        let fits = (1..=MAX_LABEL_CHARS).contains(&label.chars().count()) && !label.chars().any(char::is_control);
        if fits { Ok(label.to_owned()) } else { Err(LabelFault::Malformed(index)) }
    };
    given.iter().enumerate().map(label).collect()
}

/// The depth of a child under a parent at `parent`, or nothing when the tree is full (429 at the Coordinator).
pub fn child_depth(parent: u8) -> Option<u8> {
    parent.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)
}
