//! Who may decide a hold, over every combination of what matters (contract: sts.md §7.7, admin-api.md §5.9).

use serde_json::json;

use super::fixtures::{claims, hold, id, later, now, record};
use crate::approval::{
    Approver, Consumed, Hold, HoldState, NotForOperators, NotTheirs, Presented, Privacy, are_related, identity,
    operator_may_decide, subject_may_decide,
};
use crate::mandate::Claims;
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::{AuthorityRecordId, ZoneId};

/// A user's session mandate of another sign-in than the one that the request stands on.
fn mandate(kind: &str) -> Claims {
    claims(json!({
        "iss": "http://issuer", "aud": ["http://issuer"], "sub": "user-1", "exp": 10_900, "iat": 10_000,
        "jti": "jti-1", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-user", "root_sid": "rec-user",
        "use": "session", "sub_type": kind,
    }))
}

fn user_record() -> RecordFacts {
    RecordFacts { kind: SubjectKind::User, subject: "user-1".into(), ..record("rec-user") }
}

fn line(ids: &[&str]) -> Vec<AuthorityRecordId> {
    ids.iter().map(|text| id(text)).collect()
}

struct Attempt {
    hold: Hold,
    claims: Claims,
    record: Option<RecordFacts>,
    line: Vec<AuthorityRecordId>,
    requesting: Vec<Vec<AuthorityRecordId>>,
    binding: String,
}

type Change = fn(&mut Attempt);

impl Attempt {
    /// One that is in order.
    fn new() -> Self {
        let hold = Hold { approver: Approver::Any, ..hold() };
        Self {
            claims: mandate("user"),
            record: Some(user_record()),
            line: line(&["rec-user"]),
            requesting: vec![line(&["rec-anchor", "rec-root"])],
            binding: hold.binding.as_str().to_owned(),
            hold,
        }
    }

    fn judge(&self) -> Result<(), NotTheirs> {
        let presented = Presented {
            claims: &self.claims,
            record: self.record.as_ref(),
            line: &self.line,
            requesting: &self.requesting,
            binding: &self.binding,
        };
        subject_may_decide(&self.hold, &presented, now())
    }
}

mod t14_automation_approver {
    use super::*;

    #[test]
    fn a_user_of_the_application_who_signed_in_anew_may_decide() {
        assert_eq!(Attempt::new().judge(), Ok(()));
    }

    /// What can be wrong, in the order of the checks.
    const FAULTS: [(NotTheirs, Change); 8] = [
        (NotTheirs::NotAUser, |attempt| attempt.claims = mandate("application")),
        (NotTheirs::NoApplication, |attempt| attempt.hold.application = None),
        (NotTheirs::NotOfApplication, |attempt| attempt.record.as_mut().unwrap().client = id("app-2")),
        (NotTheirs::ReservedForOperators, |attempt| attempt.hold.approver = Approver::Operator),
        (NotTheirs::AnotherPerson, |attempt| attempt.hold.subject_anchor = Some("user-2".into())),
        (NotTheirs::RequestingLineage, |attempt| attempt.requesting[0].push(id("rec-user"))),
        (NotTheirs::BindingDiffers, |attempt| attempt.binding = attempt.binding.to_uppercase()),
        (NotTheirs::NotPending(HoldState::Rejected), |attempt| attempt.hold.rejected_at = Some(now())),
    ];

    #[test]
    fn of_all_that_is_wrong_the_first_in_the_contracts_order_is_said() {
        for faults in 1_u32..(1 << FAULTS.len()) {
            let mut attempt = Attempt::new();
            let mut expected = None;
            for (index, (fault, make)) in FAULTS.iter().enumerate() {
                if faults & (1 << index) != 0 {
                    make(&mut attempt);
                    expected = expected.or(Some(*fault));
                }
            }
            assert_eq!(attempt.judge().err(), expected, "{faults:b}");
        }
    }

    #[test]
    fn a_record_that_is_dead_or_another_s_is_no_approver() {
        let changes: [(&str, Change); 9] = [
            ("none", |attempt| attempt.record = None),
            ("revoked", |attempt| attempt.record.as_mut().unwrap().status = RecordStatus::Revoked),
            ("over", |attempt| attempt.record.as_mut().unwrap().expires_at = now()),
            ("another person's", |attempt| attempt.record.as_mut().unwrap().subject = "user-2".into()),
            ("an application's", |attempt| attempt.record.as_mut().unwrap().kind = SubjectKind::Application),
            ("of another zone", |attempt| attempt.record.as_mut().unwrap().zone = id("z-2")),
            ("another than the mandate's", |attempt| attempt.record.as_mut().unwrap().id = id("rec-other")),
            ("a mandate without one", |attempt| attempt.claims.record = None),
            ("a mandate of another application", |attempt| attempt.claims.client = id("app-2")),
        ];
        for (what, change) in changes {
            let mut attempt = Attempt::new();
            change(&mut attempt);
            assert_eq!(attempt.judge(), Err(NotTheirs::NotOfApplication), "{what}");
        }
    }

    #[test]
    fn the_requesting_lineage_never_approves_and_a_line_that_was_not_read_counts_as_kin() {
        // Lines are written as they are read: a record, and behind it its ancestors.
        for (what, own, requesting, may) in [
            ("the very record", "rec-user", "rec-anchor;rec-user", false),
            ("an ancestor", "rec-user", "rec-anchor rec-user rec-root", false),
            ("a descendant", "rec-user rec-anchor", "rec-anchor", false),
            ("a sibling", "rec-user rec-root", "rec-anchor rec-root", true),
            ("nobody", "rec-user", "rec-anchor", true),
            ("unread", "rec-user", "", false),
            ("the approver's own unread", "", "rec-anchor", false),
        ] {
            let read = |text: &str| line(&text.split_whitespace().collect::<Vec<_>>());
            let mut attempt = Attempt::new();
            attempt.line = read(own);
            attempt.requesting = requesting.split(';').map(read).collect();
            assert_eq!(attempt.judge().is_ok(), may, "{what}");
        }
        let mut without = Attempt::new();
        (without.hold.requesting, without.requesting) = (vec![], vec![]);
        assert_eq!(without.judge(), Ok(()), "there is no lineage to be of");
        assert!(!are_related(&[], &line(&["a"])));
    }

    #[test]
    fn only_the_person_it_is_anchored_to() {
        let mut attempt = Attempt::new();
        attempt.hold.subject_anchor = Some("user-1".into());
        assert_eq!(attempt.judge(), Ok(()));
        attempt.hold.subject_anchor = Some("User-1".into());
        assert_eq!(attempt.judge(), Err(NotTheirs::AnotherPerson));
    }

    /// A hold in each state, of each class.
    fn holds() -> Vec<(HoldState, Approver, Hold)> {
        let mut all = Vec::new();
        for approver in [Approver::Operator, Approver::Subject, Approver::Any] {
            for state in HoldState::ALL {
                let mut hold = Hold { approver, ..hold() };
                match state {
                    HoldState::Pending => {}
                    HoldState::Approved => hold.approved_at = Some(now()),
                    HoldState::Rejected => hold.rejected_at = Some(now()),
                    HoldState::Expired => hold.expires_at = now(),
                    HoldState::Consumed => hold.consumed = Some(Consumed { at: now(), record: None }),
                }
                all.push((state, approver, hold));
            }
        }
        all
    }

    #[test]
    fn each_side_decides_what_waits_for_it_and_nothing_else() {
        for (state, approver, hold) in holds() {
            let by_operator = match (state, approver) {
                (HoldState::Pending, Approver::Subject) => Err(NotForOperators::SubjectOnly),
                (HoldState::Pending, _) => Ok(()),
                _ => Err(NotForOperators::NotPending(state)),
            };
            assert_eq!(operator_may_decide(&hold, now()), by_operator, "{state:?} {approver:?}");
            let attempt = Attempt { hold, ..Attempt::new() };
            let by_subject = match (state, approver) {
                (_, Approver::Operator) => Err(NotTheirs::ReservedForOperators),
                (HoldState::Pending, _) => Ok(()),
                _ => Err(NotTheirs::NotPending(state)),
            };
            assert_eq!(attempt.judge(), by_subject, "{state:?} {approver:?}");
        }
    }
}

#[test]
fn what_is_kept_of_an_approver_is_what_privacy_allows() {
    let zone: ZoneId = id("zone-1");
    assert_eq!(identity(Privacy::Identified, &zone, "user-1"), "subject:user-1");
    assert_eq!(identity(Privacy::Pseudonymous, &zone, "user-1"), "subject:pseudonym:5522eb4bfa40b0c3");
    assert_eq!(identity(Privacy::Anonymous, &zone, "user-1"), "subject:redacted");
}

#[test]
fn a_state_follows_from_the_marks_in_one_order() {
    for marks in 0_u8..16 {
        let has = |mark: u8| marks & mark != 0;
        let hold = Hold {
            expires_at: if has(4) { now() } else { later(1) },
            approved_at: has(1).then(now),
            rejected_at: has(2).then(now),
            consumed: has(8).then(|| Consumed { at: now(), record: None }),
            ..hold()
        };
        let expected = if has(8) {
            HoldState::Consumed
        } else if has(2) {
            HoldState::Rejected
        } else if has(4) {
            HoldState::Expired
        } else if has(1) {
            HoldState::Approved
        } else {
            HoldState::Pending
        };
        assert_eq!(hold.state(now()), expected, "{marks:04b}");
        assert_eq!(hold.answers_for(now()), !has(8) && !has(4), "{marks:04b}");
    }
    for state in HoldState::ALL {
        assert_eq!(HoldState::parse(state.as_str()), Some(state));
    }
    assert_eq!(HoldState::parse("weird"), None);
}

#[test]
fn refusals_of_the_person_and_of_the_hold_are_told_apart() {
    for (fault, conflict) in [
        (NotTheirs::NotAUser, false),
        (NotTheirs::RequestingLineage, false),
        (NotTheirs::BindingDiffers, true),
        (NotTheirs::NotPending(HoldState::Consumed), true),
    ] {
        assert_eq!(fault.is_conflict(), conflict, "{}", fault.name());
    }
}
