//! Whether a mandate that was issued is still good (RFC 7662): everything it stands on, taken away one by one.

use super::fixtures::*;
use crate::delegation::EdgeStatus;
use crate::exchange::{Facts, Inactive, check_active};
use crate::mandate::Claims;
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::session::SessionStatus;

/// The one-shot mandate of [`gateway`] with all that is known of it.
fn issued() -> (Claims, Case) {
    let mut case = gateway();
    case.facts.records.push(record("rec-root"));
    let claims = case.facts.subject.take().unwrap();
    (claims, case)
}

fn of(claims: &Claims, facts: &Facts) -> String {
    match check_active(claims, facts, false) {
        Ok(()) => "active".to_owned(),
        Err(Inactive::Unsupported(refusal)) => refusal.name().to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn a_mandate_is_active_while_everything_it_stands_on_lives() {
    let (claims, case) = issued();
    assert_eq!(check_active(&claims, &case.facts, false), Ok(()));
    assert_eq!(check_active(&claims, &case.facts, true), Err(Inactive::Used));
    // A root whose time has merely run out bounded the mandate when it was minted.
    let mut lapsed = case;
    lapsed.record("rec-root").expires_at = now();
    assert_eq!(check_active(&claims, &lapsed.facts, false), Ok(()));
}

#[test]
fn whatever_a_mandate_stands_on_ends_it_by_ending() {
    type Change = fn(&mut Claims, &mut Case);
    let rows: [(Change, &str); 20] = [
        (|_, case| case.facts.now = None, "TimeUnknown"),
        (|claims, _| claims.expires_at = NOW_MICROS / 1_000_000, "Expired"),
        (|_, case| case.facts.client = None, "ClientGone"),
        (|_, case| case.facts.client.as_mut().unwrap().id = id("app-2"), "ClientGone"),
        (|_, case| case.facts.client.as_mut().unwrap().expires_at = Some(now()), "ClientGone"),
        (|claims, _| claims.record = None, "SubjectTokenWithoutRecord"),
        (|claims, _| claims.record = Some(id("rec-9")), "RecordUnknown"),
        (|_, case| case.record("rec-mint").client = id("app-2"), "RecordOfAnotherClient"),
        (|_, case| case.record("rec-mint").subject = "user-1".into(), "RecordOfAnotherSubject"),
        (|_, case| case.record("rec-mint").status = RecordStatus::Revoked, "RecordNotLive"),
        (|_, case| case.record("rec-mint").expires_at = now(), "RecordNotLive"),
        (|_, case| case.record("rec-root").status = RecordStatus::Revoked, "RootRevoked"),
        (|claims, _| claims.root_record = Some(id("rec-9")), "RootRevoked"),
        (|claims, _| claims.session = None, "DelegationWithoutSession"),
        (|_, case| case.session("s-2").application = id("app-2"), "SessionUnknown"),
        (|_, case| case.session("s-2").status = SessionStatus::Suspended, "SessionNotLive"),
        (|_, case| case.session("s-1").status = SessionStatus::Terminated, "SourceSessionNotLive"),
        (|_, case| case.leaf().status = EdgeStatus::Revoked, "DelegationUnusable"),
        (|_, case| case.leaf().expires_at = now(), "DelegationUnusable"),
        (|_, case| case.facts.lineage.clear(), "DelegationUnknown"),
    ];
    for (number, (change, expected)) in rows.into_iter().enumerate() {
        let (mut claims, mut case) = issued();
        change(&mut claims, &mut case);
        assert_eq!(of(&claims, &case.facts), expected, "row {number}");
    }
}

#[test]
fn a_session_whose_user_is_gone_carries_no_mandate() {
    let (claims, mut case) = issued();
    let anchor = RecordFacts { kind: SubjectKind::User, subject: "user-1".into(), ..record("rec-anchor") };
    *case.record("rec-anchor") = anchor;
    assert_eq!(of(&claims, &case.facts), "active");
    case.record("rec-anchor").status = RecordStatus::Revoked;
    assert_eq!(of(&claims, &case.facts), "SessionNotLive");
}
