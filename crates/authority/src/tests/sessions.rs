//! The state machine of sessions and leases, liveness, limits (contract: coordinator.md §4.2, §9, §15).

use std::time::Duration;

use super::fixtures::*;
use crate::record::{DeadRecord, RecordFacts, RecordStatus, SubjectKind};
use crate::session::{
    DeadSession, Fenced, IllegalMove, LabelFault, Lease, Life, Lifecycle, SessionFacts, SessionStatus,
    TerminationReason, check_live, child_depth, parse_labels,
};

use SessionStatus::{Active, Expired, Suspended, Terminated};

const TASK: Life = Life::Task { ttl_seconds: 60 };

fn service(deadline: crate::Timestamp) -> Life {
    Life::Service(Lease { generation: 1, deadline })
}

mod t04_state_sessions {
    use super::*;

    #[test]
    fn every_move_is_legal_or_names_both_ends() {
        for from in [Active, Suspended, Terminated, Expired] {
            let moves = [
                (from.suspend(), Suspended, from == Active),
                (from.resume(), Active, from == Suspended),
                (from.terminate(), Terminated, matches!(from, Active | Suspended)),
                (from.expire(Lifecycle::Task), Expired, matches!(from, Active | Suspended)),
                (from.expire(Lifecycle::Service), Expired, false),
            ];
            for (moved, to, legal) in moves {
                assert_eq!(moved, if legal { Ok(to) } else { Err(IllegalMove { from, to }) });
            }
        }
        assert_eq!(Expired.resume().unwrap_err().to_string(), "a session cannot go from expired to active");
    }

    #[test]
    fn exactly_one_generation_renews() {
        let lease = Duration::from_secs(120);
        let first = Lease::first(now(), lease);
        assert_eq!(first, Lease { generation: 1, deadline: later(120) });
        let second = first.taken_over(later(10), lease);
        assert_eq!(second, Lease { generation: 2, deadline: later(130) });
        assert_eq!(second.renewed(1, later(20), lease), Err(Fenced { held: 1, current: 2 }));
        assert_eq!(second.renewed(3, later(20), lease), Err(Fenced { held: 3, current: 2 }));
        assert_eq!(second.renewed(2, later(20), lease), Ok(Lease { generation: 2, deadline: later(140) }));
        assert_eq!(second.held_by(2), Ok(()));
    }

    #[test]
    fn a_session_acts_while_active_within_its_life_and_with_its_user() {
        let anchor = record("rec-anchor");
        let user = RecordFacts { kind: SubjectKind::User, expires_at: later(30), ..anchor.clone() };
        let gone = RecordFacts { status: RecordStatus::Revoked, ..user.clone() };
        let elsewhere = RecordFacts { id: id("rec-other"), ..anchor.clone() };
        let foreign = RecordFacts { zone: id("z-2"), ..anchor.clone() };
        let lapsed_application = RecordFacts { status: RecordStatus::Revoked, ..anchor.clone() };
        for (status, life, subject, expected) in [
            (Active, TASK, Some(&anchor), None),
            (Active, TASK, Some(&lapsed_application), None),
            (Active, TASK, Some(&user), None),
            (Active, service(later(1)), Some(&anchor), None),
            (Suspended, TASK, Some(&anchor), Some(DeadSession::Status(Suspended))),
            (Terminated, TASK, Some(&anchor), Some(DeadSession::Status(Terminated))),
            (Expired, TASK, Some(&anchor), Some(DeadSession::Status(Expired))),
            (Active, Life::Task { ttl_seconds: 0 }, Some(&anchor), Some(DeadSession::Lapsed)),
            (Active, service(now()), Some(&anchor), Some(DeadSession::LeaseLost)),
            (Active, TASK, Some(&gone), Some(DeadSession::SubjectDead(DeadRecord::Revoked))),
            (Active, TASK, Some(&elsewhere), Some(DeadSession::SubjectUnknown)),
            (Active, TASK, Some(&foreign), Some(DeadSession::SubjectUnknown)),
            (Active, TASK, None, Some(DeadSession::SubjectUnknown)),
        ] {
            let facts = SessionFacts { status, life, ..session("s-1") };
            assert_eq!(check_live(&facts, subject, now()).err(), expected, "{status:?} {life:?}");
        }
    }

    #[test]
    fn a_task_is_over_at_the_very_instant() {
        let facts = SessionFacts { life: TASK, ..session("s-1") };
        let anchor = record("rec-anchor");
        let last = crate::Timestamp::from_micros(later(60).as_micros() - 1);
        assert!(check_live(&facts, Some(&anchor), last).is_ok());
        assert_eq!(check_live(&facts, Some(&anchor), later(60)).err(), Some(DeadSession::Lapsed));
    }

    #[test]
    fn its_authority_is_bounded_by_its_task_and_its_user_not_by_a_lease_that_moves() {
        let anchor = record("rec-anchor");
        let user = RecordFacts { kind: SubjectKind::User, expires_at: later(30), ..anchor.clone() };
        for (life, subject, bound) in [
            (TASK, &anchor, Some(later(60))),
            (TASK, &user, Some(later(30))),
            (service(later(1)), &anchor, None),
            (service(later(1)), &user, Some(later(30))),
        ] {
            let facts = SessionFacts { life, ..session("s-1") };
            assert_eq!(check_live(&facts, Some(subject), now()).unwrap().bound(), bound, "{life:?}");
        }
    }

    #[test]
    fn suspended_services_hold_their_slot_and_lapsed_tasks_do_not() {
        let over = Life::Task { ttl_seconds: 0 };
        for (status, life, holds) in [
            (Active, TASK, true),
            (Active, over, false),
            (Suspended, TASK, true),
            (Suspended, over, false),
            (Active, service(later(1)), true),
            (Active, service(now()), false),
            (Suspended, service(now()), true),
            (Terminated, service(later(1)), false),
            (Expired, TASK, false),
        ] {
            let facts = SessionFacts { status, life, ..session("s-1") };
            assert_eq!(facts.holds_capacity(now()), holds, "{status:?} {life:?}");
        }
    }
}

#[test]
fn reasons_have_their_wire_names_and_final_status() {
    for (reason, name, status) in [
        (TerminationReason::Asked("done".into()), "done", Terminated),
        (TerminationReason::Ttl, "ttl", Expired),
        (TerminationReason::SubjectAuthorityInactive, "subject_authority_inactive", Terminated),
        (TerminationReason::DelegationRevoked, "delegation_revoked", Terminated),
        (TerminationReason::ParentTerminated, "parent_terminated", Terminated),
    ] {
        assert_eq!((reason.as_str(), reason.final_status()), (name, status));
    }
    for status in [Active, Suspended, Terminated, Expired] {
        assert_eq!(SessionStatus::parse(status.as_str()), Some(status));
    }
    assert_eq!(SessionStatus::parse("Active"), None);
    for lifecycle in [Lifecycle::Task, Lifecycle::Service] {
        assert_eq!(Lifecycle::parse(lifecycle.as_str()), Some(lifecycle));
    }
    assert_eq!(Lifecycle::parse("daemon"), None);
}

#[test]
fn labels_are_trimmed_and_bounded() {
    assert_eq!(parse_labels(&[" b ", "a", "a"]), Ok(vec!["b".into(), "a".into(), "a".into()]));
    assert_eq!(parse_labels(&vec!["x"; 33]), Err(LabelFault::TooMany));
    assert!(parse_labels(&vec!["x"; 32]).is_ok());
    for (label, fits) in [("é".repeat(64), true), ("é".repeat(65), false), ("  ".into(), false), ("a\0b".into(), false)]
    {
        let expected = if fits { Ok(vec![label.clone()]) } else { Err(LabelFault::Malformed(1)) };
        assert_eq!(parse_labels(&["x", &label]).map(|labels| labels[1..].to_vec()), expected, "{label}");
    }
}

#[test]
fn the_tree_has_eleven_levels() {
    assert_eq!(child_depth(0), Some(1));
    assert_eq!(child_depth(9), Some(10));
    assert_eq!(child_depth(10), None);
    assert_eq!(child_depth(u8::MAX), None);
}
