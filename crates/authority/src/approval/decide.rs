//! Who may decide a hold (contract: sts.md §7.7 checks 8 to 15, admin-api.md §5.9; property 10).

use std::fmt::Write;

use ring::digest::{SHA256, digest};

use super::{Approver, Hold, HoldState, Privacy};
use crate::mandate::Claims;
use crate::record::{self, RecordFacts, SubjectKind};
use crate::{AuthorityRecordId, Timestamp, ZoneId};

/// Somebody who shows a user's session mandate: its signature verified, its class, zone and time accepted.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'p> {
    /// The claims.
    pub claims: &'p Claims,
    /// The record they name, if the zone has it.
    pub record: Option<&'p RecordFacts>,
    /// That record and its ancestors, itself first.
    pub line: &'p [AuthorityRecordId],
    /// Every record that stands behind the request, each with its ancestors, itself first.
    pub requesting: &'p [Vec<AuthorityRecordId>],
    /// What the approver says they approve.
    pub binding: &'p str,
}

/// Why a hold is not decided on the subject's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotTheirs {
    /// 8: an application's own mandate.
    #[error("only a user can decide an approval here")]
    NotAUser,
    /// 9: the hold belongs to no application, so it has no users.
    #[error("this approval is decided by operators")]
    NoApplication,
    /// 10: the record behind the mandate is dead, somebody else's, or was made by another application.
    #[error("the mandate is not that of a user of the application that asks")]
    NotOfApplication,
    /// 11.
    #[error("this approval is decided by operators")]
    ReservedForOperators,
    /// 12: it is bound to another person.
    #[error("this approval waits for another person")]
    AnotherPerson,
    /// 13: the sign-in that the request itself stands on.
    #[error("the sign-in behind the request cannot approve it; sign in again and approve with the new mandate")]
    RequestingLineage,
    /// 14.
    #[error("the binding is not that of this approval; read what is asked again")]
    BindingDiffers,
    /// 15.
    #[error("the approval is {}", .0.as_str())]
    NotPending(HoldState),
}

impl NotTheirs {
    /// Its name: what evidence calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAUser => "NotAUser",
            Self::NoApplication => "NoApplication",
            Self::NotOfApplication => "NotOfApplication",
            Self::ReservedForOperators => "ReservedForOperators",
            Self::AnotherPerson => "AnotherPerson",
            Self::RequestingLineage => "RequestingLineage",
            Self::BindingDiffers => "BindingDiffers",
            Self::NotPending(_) => "NotPending",
        }
    }

    /// Whether it is the hold that stands in the way (409), not the person (403).
    pub fn is_conflict(self) -> bool {
        matches!(self, Self::BindingDiffers | Self::NotPending(_))
    }
}

/// Whether whoever presents this may decide `hold`, in the contract's order of checks.
pub fn subject_may_decide(hold: &Hold, by: &Presented<'_>, now: Timestamp) -> Result<(), NotTheirs> {
    let claims = by.claims;
    ensure(claims.kind == SubjectKind::User, NotTheirs::NotAUser)?; // 8
    let application = hold.application.as_ref().ok_or(NotTheirs::NoApplication)?; // 9
    let record = by.record.filter(|record| {
        claims.record.as_ref() == Some(&record.id)
            && record.zone == hold.zone
            && record.kind == SubjectKind::User
            && record.subject == claims.subject
            && record.client == *application
            && claims.client == *application
            && record::check_live(record, now).is_ok()
    });
    let record = record.ok_or(NotTheirs::NotOfApplication)?; // 10
    ensure(matches!(hold.approver, Approver::Subject | Approver::Any), NotTheirs::ReservedForOperators)?; // 11
    let is_anchor = hold.subject_anchor.as_ref().is_none_or(|anchor| *anchor == record.subject);
    ensure(is_anchor, NotTheirs::AnotherPerson)?; // 12
    let covered = hold.requesting.iter().all(|id| by.requesting.iter().any(|line| line.first() == Some(id)));
    let known = by.line.first() == Some(&record.id);
    // A line that was not read is taken for kin.
    let apart = covered && known && !by.requesting.iter().any(|line| are_related(by.line, line));
    ensure(apart, NotTheirs::RequestingLineage)?; // 13
    ensure(by.binding == hold.binding.as_str(), NotTheirs::BindingDiffers)?; // 14
    match hold.state(now) {
        HoldState::Pending => Ok(()),
        state => Err(NotTheirs::NotPending(state)), // 15
    }
}

/// Whether one of two records is the other, or descends from it. A line is a record and its ancestors, itself first.
pub fn are_related(one: &[AuthorityRecordId], other: &[AuthorityRecordId]) -> bool {
    let is_in = |line: &[AuthorityRecordId], of: &[AuthorityRecordId]| of.first().is_some_and(|id| line.contains(id));
    is_in(one, other) || is_in(other, one)
}

/// Why a hold is not decided by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotForOperators {
    /// It waits, but for the subject.
    SubjectOnly,
    /// It does not wait any more.
    NotPending(HoldState),
}

/// Whether an operator may decide `hold`. That the operator's token may decide at all is the Admin API's gate.
pub fn operator_may_decide(hold: &Hold, now: Timestamp) -> Result<(), NotForOperators> {
    match (hold.state(now), hold.approver) {
        (HoldState::Pending, Approver::Operator | Approver::Any) => Ok(()),
        (HoldState::Pending, Approver::Subject) => Err(NotForOperators::SubjectOnly),
        (state, _) => Err(NotForOperators::NotPending(state)),
    }
}

/// What is kept of a user who decided: as much as the hold's privacy allows.
pub fn identity(privacy: Privacy, zone: &ZoneId, subject: &str) -> String {
    match privacy {
        Privacy::Identified => format!("subject:{subject}"),
        Privacy::Pseudonymous => {
            let hash = digest(&SHA256, format!("{zone}\0{subject}").as_bytes());
            hash.as_ref().iter().take(8).fold("subject:pseudonym:".to_owned(), |mut text, byte| {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
        Privacy::Anonymous => "subject:redacted".to_owned(),
    }
}

fn ensure(holds: bool, otherwise: NotTheirs) -> Result<(), NotTheirs> {
    if holds { Ok(()) } else { Err(otherwise) }
}
