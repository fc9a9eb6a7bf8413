//! A hold and its state (contract: sts.md §7.1).

use std::time::Duration;

use super::{Approver, Binding, PolicyStamp, Privacy, Requirement};
use crate::record::SubjectKind;
use crate::{AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, EdgeId, Timestamp, ZoneId};

/// How long after it was spent a hold still answers for what it was spent on: an answer that was lost on its way can be
/// asked for again (§7.4).
pub const REISSUE_WINDOW: Duration = Duration::from_secs(120);

/// What kind of principal authority is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// An application, for itself.
    Application,
    /// A user.
    User,
    /// A workload, at its launch.
    Workload,
}

impl PrincipalKind {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::User => "user",
            Self::Workload => "workload",
        }
    }
}

impl From<SubjectKind> for PrincipalKind {
    fn from(kind: SubjectKind) -> Self {
        match kind {
            SubjectKind::Application => Self::Application,
            SubjectKind::User => Self::User,
        }
    }
}

/// What whoever decides is shown of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOf {
    /// The workload's name.
    pub name: String,
    /// The variable that is to hold the credential.
    pub env: String,
}

/// What to raise: a hold without an id and a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHold {
    /// Its zone.
    pub zone: ZoneId,
    /// For whom authority is asked: the `sub` of the presented mandate, else the id of the application or workload.
    pub principal: String,
    /// What kind of principal that is.
    pub principal_kind: PrincipalKind,
    /// The launch it is for, if it is for one.
    pub launch: Option<LaunchOf>,
    /// The authority record, asserted or presented.
    pub record: Option<AuthorityRecordId>,
    /// The application that asks.
    pub application: Option<ApplicationId>,
    /// The governed session it asks for.
    pub session: Option<AgentSessionId>,
    /// The delegation it asks through.
    pub delegation: Option<EdgeId>,
    /// The session's labels.
    pub labels: Vec<String>,
    /// Records that stand behind the request: the record itself, and those to which the session and the session that
    /// lends to it are anchored. None of their kin may approve.
    pub requesting: Vec<AuthorityRecordId>,
    /// What is asked of the approver.
    pub requirement: Requirement,
    /// The one person who may approve on the subject's side; anybody of the application's users when there is none.
    pub subject_anchor: Option<String>,
    /// What an approval is good for.
    pub binding: Binding,
    /// The requested scopes, in order.
    pub scopes: Vec<String>,
    /// The requested resources, by identifier where they have one.
    pub resources: Vec<String>,
    /// The policy that asked for it.
    pub policy: PolicyStamp,
}

/// A hold as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id: whoever knows it may ask for its state.
    pub id: ApprovalId,
    /// Its zone.
    pub zone: ZoneId,
    /// For whom authority was asked.
    pub principal: String,
    /// The authority record it was asked with.
    pub record: Option<AuthorityRecordId>,
    /// The application that asked; a workload has none.
    pub application: Option<ApplicationId>,
    /// The governed session.
    pub session: Option<AgentSessionId>,
    /// The delegation.
    pub delegation: Option<EdgeId>,
    /// The session's labels.
    pub labels: Vec<String>,
    /// Records that stand behind the request.
    pub requesting: Vec<AuthorityRecordId>,
    /// Names of the tiers.
    pub tier: String,
    /// Who may approve.
    pub approver: Approver,
    /// How much of the approver is kept.
    pub privacy: Privacy,
    /// The one person who may approve on the subject's side.
    pub subject_anchor: Option<String>,
    /// What an approval is good for.
    pub binding: Binding,
    /// First instant at which it can neither be decided nor spent.
    pub expires_at: Timestamp,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When it was rejected.
    pub rejected_at: Option<Timestamp>,
    /// When and on what it was spent.
    pub consumed: Option<Consumed>,
}

/// How a hold was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// When.
    pub at: Timestamp,
    /// The authority record that came of it; a workload's credential has none.
    pub record: Option<AuthorityRecordId>,
}

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// Waits for somebody.
    Pending,
    /// May be spent.
    Approved,
    /// Somebody said no; that stands until the hold expires.
    Rejected,
    /// Nobody decided in time, or nobody used what was approved.
    Expired,
    /// Spent.
    Consumed,
}

impl HoldState {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Rejected, Self::Expired, Self::Consumed];

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }

    /// From the wire name; anything else is no state.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl Hold {
    /// Where it stands at `now`. Spent comes before everything, a no before the end of its time, and the end of its time
    /// before a yes.
    pub fn state(&self, now: Timestamp) -> HoldState {
        if self.consumed.is_some() {
            HoldState::Consumed
        } else if self.rejected_at.is_some() {
            HoldState::Rejected
        } else if self.expires_at <= now {
            HoldState::Expired
        } else if self.approved_at.is_some() {
            HoldState::Approved
        } else {
            HoldState::Pending
        }
    }

    /// Whether it answers a request that names none: not spent, and its time not over.
    pub fn answers_for(&self, now: Timestamp) -> bool {
        self.consumed.is_none() && self.expires_at > now
    }

    /// The record to issue a mandate for once more, if the hold was spent so recently that the answer may have been lost.
    pub fn reissuable(&self, now: Timestamp) -> Option<&AuthorityRecordId> {
        let consumed = self.consumed.as_ref()?;
        let recent = consumed.at.plus(REISSUE_WINDOW) >= now;
        consumed.record.as_ref().filter(|_| recent)
    }
}
