//! Who may go on running a service: the order of checks, and that one holder at a time can (contract: coordinator.md §5, §9).

use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::*;
use crate::lease::{Consequence, LeaseFault, renew, take_over};
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::session::{Fenced, Lease, Life, SessionFacts, SessionStatus};

use SessionStatus::{Active, Expired, Suspended, Terminated};

const LEASE: Duration = Duration::from_secs(120);

fn service(status: SessionStatus, generation: u64, seconds_left: i64) -> SessionFacts {
    let life = Life::Service(Lease { generation, deadline: later(seconds_left) });
    SessionFacts { status, life, subject_record: id("rec-anchor"), ..session("s-1") }
}

fn user() -> RecordFacts {
    RecordFacts { kind: SubjectKind::User, ..record("rec-anchor") }
}

#[test]
fn a_take_over_is_refused_in_the_order_of_the_contract() {
    let task = SessionFacts { life: Life::Task { ttl_seconds: 60 }, status: Suspended, ..service(Active, 1, 1) };
    let gone = RecordFacts { status: RecordStatus::Revoked, ..user() };
    let lapsed = RecordFacts { expires_at: now(), ..user() };
    let foreign = RecordFacts { zone: id("z-2"), ..user() };
    let take = |session: &SessionFacts, subject: Option<&RecordFacts>| take_over(session, subject, now(), LEASE);
    // Every fault at once, then one fewer each time.
    assert_eq!(take(&task, Some(&gone)), Err(LeaseFault::NotService));
    assert_eq!(take(&service(Suspended, 1, 0), Some(&gone)), Err(LeaseFault::Suspended));
    assert_eq!(take(&service(Terminated, 1, 0), Some(&gone)), Err(LeaseFault::NotLive));
    assert_eq!(take(&service(Expired, 1, 0), Some(&gone)), Err(LeaseFault::NotLive));
    for subject in [Some(&gone), Some(&lapsed), Some(&foreign), Some(&record("rec-other")), None] {
        assert_eq!(take(&service(Active, 1, 0), subject), Err(LeaseFault::SubjectInactive), "{subject:?}");
    }
    assert_eq!(take(&service(Active, 1, 0), Some(&user())), Err(LeaseFault::Expired));
    assert_eq!(take(&service(Active, 1, 1), Some(&user())), Ok(Lease { generation: 2, deadline: later(120) }));
}

#[test]
fn a_renewal_is_refused_in_the_order_of_the_contract() {
    let task = |status| SessionFacts { life: Life::Task { ttl_seconds: 60 }, ..service(status, 1, 1) };
    let gone = RecordFacts { status: RecordStatus::Revoked, ..user() };
    let beat = |session: &SessionFacts, subject: &RecordFacts| renew(session, Some(subject), 2, now(), LEASE);
    let fenced = Err(LeaseFault::Fenced(Fenced { held: 2, current: 1 }));
    assert_eq!(beat(&task(Terminated), &gone), Err(LeaseFault::NotLive));
    assert_eq!(beat(&task(Suspended), &gone), Err(LeaseFault::NotService));
    assert_eq!(beat(&service(Active, 1, 0), &gone), Err(LeaseFault::SubjectInactive));
    assert_eq!(beat(&service(Active, 1, 0), &user()), fenced);
    assert_eq!(beat(&service(Suspended, 1, 0), &user()), fenced);
    assert_eq!(beat(&service(Active, 2, 0), &user()), Err(LeaseFault::Expired));
    let renewed = Ok(Lease { generation: 2, deadline: later(120) });
    assert_eq!(beat(&service(Active, 2, 1), &user()), renewed);
    assert_eq!(beat(&service(Suspended, 2, -1_000), &user()), renewed, "frozen while it is suspended");
}

#[test]
fn the_record_of_an_application_may_lapse_under_its_service() {
    let lapsed = RecordFacts { status: RecordStatus::Revoked, ..record("rec-anchor") };
    assert!(take_over(&service(Active, 1, 1), Some(&lapsed), now(), LEASE).is_ok());
    assert!(renew(&service(Active, 1, 1), Some(&lapsed), 1, now(), LEASE).is_ok());
}

#[test]
fn only_a_lost_user_and_a_missed_lease_have_consequences() {
    let fenced = LeaseFault::Fenced(Fenced { held: 1, current: 2 });
    for (fault, code, consequence) in [
        (LeaseFault::NotService, "session_not_service", Consequence::None),
        (LeaseFault::Suspended, "session_suspended", Consequence::None),
        (LeaseFault::NotLive, "session_not_live", Consequence::None),
        (LeaseFault::SubjectInactive, "session_subject_inactive", Consequence::End),
        (fenced, "session_lease_fenced", Consequence::None),
        (LeaseFault::Expired, "session_lease_expired", Consequence::Suspend),
    ] {
        assert_eq!((fault.code(), fault.consequence()), (code, consequence));
    }
}

/// What can happen to a service. Holders are numbered by the generation they were given.
#[derive(Debug, Clone)]
enum Event {
    TakeOver,
    Beat(u64),
    Wait(i64),
    Suspend,
    Resume,
    End,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::TakeOver),
        6 => (1_u64..6).prop_map(Event::Beat),
        4 => (0_i64..200).prop_map(Event::Wait),
        1 => Just(Event::Suspend),
        1 => Just(Event::Resume),
        1 => Just(Event::End),
    ]
}

proptest! {
    #[test]
    fn at_every_instant_one_generation_renews_and_no_older_one_ever_again(events in prop::collection::vec(event(), 1..60)) {
        let anchor = user();
        let anchor = RecordFacts { expires_at: later(1_000_000), ..anchor };
        let mut session = service(Active, 1, 120);
        let (mut seconds, mut highest) = (0, 1);
        for event in events {
            let at = later(seconds);
            match event {
                Event::Wait(more) => seconds += more,
                Event::Suspend => session.status = session.status.suspend().unwrap_or(session.status),
                Event::Resume => if let (Suspended, Life::Service(lease)) = (session.status, session.life) {
                    session.status = Active;
                    session.life = Life::Service(Lease { deadline: at.plus(LEASE), ..lease });
                },
                Event::End => session.status = session.status.terminate().unwrap_or(session.status),
                Event::TakeOver => match take_over(&session, Some(&anchor), at, LEASE) {
                    Ok(lease) => {
                        prop_assert!(session.is_active(at));
                        prop_assert_eq!(lease.generation, highest + 1);
                        highest = lease.generation;
                        session.life = Life::Service(lease);
                    }
                    Err(fault) => prop_assert!(!session.is_active(at), "{:?}", fault),
                },
                Event::Beat(held) => match renew(&session, Some(&anchor), held, at, LEASE) {
                    Ok(lease) => {
                        prop_assert_eq!((held, lease.generation), (highest, highest));
                        prop_assert!(session.status == Suspended || session.is_active(at));
                        prop_assert_eq!(lease.deadline, at.plus(LEASE));
                        session.life = Life::Service(lease);
                    }
                    Err(_) => prop_assert!(
                        held != highest || session.status.is_terminal() || (session.status == Active && !session.is_active(at))
                    ),
                },
            }
        }
    }
}
