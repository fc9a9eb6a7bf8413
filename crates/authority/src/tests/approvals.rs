//! A gated mint: what is held, what is surfaced, what is spent (contract: sts.md §7.3, §7.4; property 9).

use std::time::Duration;

use super::fixtures::*;
use crate::approval::{Approver, Consumed, Hold, NewHold};
use crate::exchange::{
    Asserted, Class, Decision, Found, Outcome, PolicyAnswer, Rate, Refusal, ResourceNames, Spending, Wanted,
};
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::scope::{Requested, Scopes};
use crate::{Timestamp, exchange};

/// [`mint`], which policy holds for `payments`.
fn gated() -> Case {
    let mut case = mint();
    case.advice.answer = allow_if_approved("payments");
    case
}

/// What is changed in a case or a hold, with what is expected of it or what it is called.
type Named<T> = (&'static str, fn(&mut T));

fn raised(outcome: &Outcome) -> NewHold {
    match outcome.refusal() {
        Some(Refusal::ApprovalRequired { wanted: Wanted::New(hold) }) => (**hold).clone(),
        other => panic!("{other:?}"),
    }
}

/// The hold that `case` raises, as the store would have it.
fn raise(case: &mut Case) -> Hold {
    let new = raised(&case.decide());
    Hold {
        principal: new.principal,
        record: new.record,
        session: new.session,
        delegation: new.delegation,
        requesting: new.requesting,
        binding: new.binding,
        ..hold()
    }
}

/// A gated mint whose hold is among the facts, changed by `change`.
fn with_hold(change: impl FnOnce(&mut Hold)) -> Case {
    let mut case = gated();
    let mut hold = raise(&mut case);
    change(&mut hold);
    case.facts.holds.push(hold);
    case
}

fn bring(case: &mut Case) {
    case.request.approval_id = Some(case.facts.holds[0].id.to_string());
}

fn spent(seconds_ago: u64) -> Option<Consumed> {
    Some(Consumed { at: now().minus(Duration::from_secs(seconds_ago)), record: Some(id("rec-made")) })
}

mod t02_sts_approvals {
    use super::*;

    #[test]
    fn a_gated_mint_is_held_with_all_that_was_asked_and_leaves_no_allow() {
        let mut case = gated();
        let outcome = case.decide();
        let hold = raised(&outcome);
        assert_eq!((hold.principal.as_str(), hold.requirement.tier.as_str()), ("app-1", "payments"));
        assert_eq!(hold.requirement.approver, Approver::Operator);
        assert_eq!((hold.record, hold.session, hold.delegation), (None, Some(id("s-2")), Some(id("e-1"))));
        assert_eq!((hold.scopes, hold.resources), (vec!["docs:read".to_owned()], vec!["resource://docs".to_owned()]));
        assert_eq!((hold.requesting, hold.subject_anchor), (vec![id("rec-anchor")], None));
        let kept: Vec<_> =
            outcome.findings.iter().map(|finding| (finding.decision, finding.evaluation_status.as_str())).collect();
        assert_eq!(kept, [(Decision::Deny, "approval_required"), (Decision::Deny, "approval_required")]);
        assert_eq!(outcome.findings[0].found, Found::Refused("ApprovalRequired"));
        assert!(outcome.findings[0].policy.is_some(), "what policy saw is kept");
    }

    #[test]
    fn one_hold_covers_the_whole_request_even_where_some_of_it_is_denied() {
        let mut case = gated();
        case.leaf().constraints = Some(constraints(serde_json::json!({})));
        case.request.resources = ResourceNames::parse(["resource://docs", "res-2", "resource://gone"]).unwrap();
        case.facts.resources.push(found("res-2", resource("res-2", "resource://more")));
        let mut answers = vec![allow_if_approved("export"), allow_if_approved("payments")];
        let mut counsel =
            (|_: &crate::resource::Resource| Rate::Within, |_: &exchange::PolicyQuestion<'_>| answers.pop().unwrap());
        let outcome = exchange::decide(&case.request, &case.facts, &mut counsel);
        let hold = raised(&outcome);
        assert_eq!(hold.requirement.tier, "export,payments");
        assert_eq!(hold.resources, ["resource://more", "resource://docs", "resource://gone"]);
    }

    #[test]
    fn a_request_that_can_never_be_minted_holds_nobody_up() {
        let changes: [Named<Case>; 5] = [
            ("TtlNegative", |case| case.request.ttl_seconds = Some(-1)),
            ("TtlAboveMaximum", |case| case.request.ttl_seconds = Some(4_000)),
            ("DelegationUnusable", |case| case.leaf().expires_at = now()),
            ("LifetimeExhausted", |case| case.leaf().expires_at = Timestamp::from_micros(NOW_MICROS + 1)),
            ("NothingGranted", |case| case.advice.answer = deny("role_scope_mismatch")),
        ];
        for (expected, change) in changes {
            let mut case = gated();
            change(&mut case);
            assert_eq!(case.name(), expected);
        }
        let mut case = direct();
        case.advice.answer = allow_if_approved("payments");
        assert_eq!(case.name(), "SubjectTokenOutsideGateway");
    }

    #[test]
    fn tiers_that_no_one_person_could_approve_are_refused() {
        let mut case = gated();
        let PolicyAnswer::Allow { tiers, .. } = &mut case.advice.answer else { panic!() };
        tiers.push(exchange::ApprovalTier { approver: Some(Approver::Subject), ..tiers[0].clone() });
        assert_eq!(case.name(), "ApprovalClassConflict");
        assert_eq!(case.decide().findings[0].evaluation_status.as_str(), "approval_class_conflict");
    }

    #[test]
    fn without_an_id_the_hold_that_answers_for_the_request_is_found() {
        let changes: [Named<Hold>; 6] = [
            ("ApprovalRequired", |_| {}),
            ("granted", |hold| hold.approved_at = Some(now())),
            ("ApprovalRejected", |hold| hold.rejected_at = Some(now())),
            // What is over or spent answers for nothing: the next hold is a new one.
            ("ApprovalRequired", |hold| (hold.rejected_at, hold.expires_at) = (Some(now()), now())),
            ("ApprovalRequired", |hold| (hold.approved_at, hold.expires_at) = (Some(now()), now())),
            ("ApprovalRequired", |hold| hold.consumed = spent(1)),
        ];
        for (index, (expected, change)) in changes.into_iter().enumerate() {
            let mut case = with_hold(change);
            assert_eq!(case.name(), expected, "{index}");
            if let Some(Refusal::ApprovalRequired { wanted }) = case.decide().refusal() {
                assert_eq!(matches!(wanted, Wanted::Known(_)), index == 0, "{index}");
            }
        }
    }

    #[test]
    fn an_approval_that_is_brought_is_judged_by_its_state() {
        let changes: [Named<Hold>; 5] = [
            ("ApprovalRequired", |_| {}),
            ("granted", |hold| hold.approved_at = Some(now())),
            ("ApprovalRejected", |hold| hold.rejected_at = Some(now())),
            ("ApprovalExpired", |hold| (hold.approved_at, hold.expires_at) = (Some(now()), now())),
            ("ApprovalConsumed", |hold| hold.consumed = spent(1)),
        ];
        for (expected, change) in changes {
            let mut case = with_hold(change);
            bring(&mut case);
            assert_eq!(case.name(), expected);
        }
    }

    #[test]
    fn an_approval_is_good_for_the_request_it_was_given_to_and_no_other() {
        let changes: [Named<Case>; 13] = [
            ("its id", |case| case.request.approval_id = Some("0b9f7a9e-0000-4000-8000-000000000000".into())),
            ("its zone", |case| case.facts.holds[0].zone = id("z-2")),
            ("its principal", |case| case.facts.holds[0].principal = "app-2".into()),
            ("its record", |case| case.facts.holds[0].record = Some(id("rec-anchor"))),
            ("the record asked with", |case| case.request.record = Asserted::Id(id("rec-anchor"))),
            ("the session", |case| case.request.session = Asserted::Id(id("s-1"))),
            ("the delegation", |case| case.request.delegation = Asserted::Absent),
            ("the resources", |case| {
                case.request.resources = ResourceNames::parse(["resource://docs", "resource://more"]).unwrap();
            }),
            ("the case of a resource", |case| {
                case.request.resources = ResourceNames::parse(["Resource://docs"]).unwrap();
            }),
            ("the scopes", |case| {
                case.request.scope = Requested::new(Scopes::from_text("docs:read docs:write"));
            }),
            ("the policy version", |case| case.facts.policy.version = "psv-2".into()),
            ("the upstream", |case| case.facts.resources[0].upstream = Some("https://evil.example".into())),
            ("the operations", |case| case.resource().operations.clear()),
        ];
        for (what, change) in changes {
            let mut case = with_hold(|hold| hold.approved_at = Some(now()));
            bring(&mut case);
            assert_eq!(case.name(), "granted");
            change(&mut case);
            assert_eq!(case.name(), "ApprovalUnknown", "{what}");
        }
    }

    /// The same where the request names no approval: what was approved for another request does not answer for this one.
    #[test]
    fn a_hold_that_is_found_answers_for_its_own_request_alone() {
        let changes: [Named<Hold>; 4] = [
            ("its zone", |hold| hold.zone = id("z-2")),
            ("its principal", |hold| hold.principal = "app-2".into()),
            ("its record", |hold| hold.record = Some(id("rec-anchor"))),
            ("its binding", |hold| {
                let mut other = gated();
                other.facts.policy.version = "psv-2".into();
                hold.binding = raised(&other.decide()).binding;
            }),
        ];
        for (what, change) in changes {
            let mut case = with_hold(|hold| hold.approved_at = Some(now()));
            assert_eq!(case.name(), "granted");
            change(&mut case.facts.holds[0]);
            // A new one is wanted.
            assert_eq!(raised(&case.decide()).principal, "app-1", "{what}");
        }
    }

    #[test]
    fn what_a_held_request_would_become_is_told_with_it() {
        let mut case = gated();
        let outcome = case.decide();
        let awaited = outcome.awaited.as_ref().unwrap();
        assert!(outcome.grant().is_none() && awaited.spending().is_none());
        let mut approved = with_hold(|hold| hold.approved_at = Some(now()));
        let granted = approved.decide();
        let grant = granted.grant().unwrap();
        assert_eq!((awaited.record(), awaited.targets()), (grant.record(), grant.targets()));
        assert_eq!((awaited.lifetime(), awaited.scopes()), (grant.lifetime(), grant.scopes()));
        assert!(granted.awaited.is_none(), "nobody is waited for");
        // Nor is anybody waited for where somebody said no.
        assert!(with_hold(|hold| hold.rejected_at = Some(now())).decide().awaited.is_none());
    }

    #[test]
    fn order_and_repetition_of_scopes_are_the_same_request() {
        let mut case = gated();
        case.request.scope = Requested::new(Scopes::from_text("docs:write docs:read docs:read"));
        let one = raised(&case.decide()).binding;
        case.request.scope = Requested::new(Scopes::from_text("docs:read docs:write"));
        assert_eq!(raised(&case.decide()).binding, one);
    }

    #[test]
    fn a_grant_says_which_hold_it_spends_and_policy_still_decides() {
        for by_id in [true, false] {
            let mut case = with_hold(|hold| hold.approved_at = Some(now()));
            if by_id {
                bring(&mut case);
            }
            let outcome = case.decide();
            let spending = outcome.grant().unwrap().spending().cloned();
            assert_eq!(spending, Some(Spending::Spend(case.facts.holds[0].clone())));
            case.advice.answer = deny("restriction_active");
            assert_eq!(case.name(), "NothingGranted");
        }
        assert_eq!(mint().decide().grant().unwrap().spending(), None);
    }

    #[test]
    fn what_was_spent_a_moment_ago_is_told_again_while_its_record_lives() {
        let made = || RecordFacts { expires_at: later(100), ..record("rec-made") };
        let dead = || RecordFacts { status: RecordStatus::Revoked, ..made() };
        for (ago, record, expected) in [
            (0, Some(made()), "granted"),
            (120, Some(made()), "granted"),
            (121, Some(made()), "ApprovalConsumed"),
            (60, None, "ApprovalConsumed"),
            (60, Some(dead()), "ApprovalConsumed"),
        ] {
            let mut case = with_hold(|hold| hold.consumed = spent(ago));
            bring(&mut case);
            case.facts.records.extend(record);
            assert_eq!(case.name(), expected, "{ago}");
            if let Some(grant) = case.decide().grant() {
                let again = Spending::Reissue { hold: case.facts.holds[0].clone(), record: id("rec-made") };
                assert_eq!(grant.spending(), Some(&again));
                assert_eq!(grant.lifetime().expires_in(), 100, "no longer than what is left of the record");
            }
        }
    }

    #[test]
    fn the_user_behind_the_session_is_the_one_who_may_approve_as_the_subject() {
        let mut case = gated();
        *case.record("rec-anchor") =
            RecordFacts { kind: SubjectKind::User, subject: "user-1".into(), ..record("rec-anchor") };
        let hold = raised(&case.decide());
        assert_eq!(hold.subject_anchor.as_deref(), Some("user-1"));
        assert_eq!(hold.requesting, [id("rec-anchor")], "and not with the sign-in the session stands on");
    }

    #[test]
    fn policy_is_told_whether_an_approval_was_brought() {
        let told = |case: &Case| {
            let mut told = None;
            let mut counsel = (
                |_: &crate::resource::Resource| Rate::Within,
                |question: &exchange::PolicyQuestion<'_>| {
                    told = Some(question.approved);
                    allow_if_approved("payments")
                },
            );
            exchange::decide(&case.request, &case.facts, &mut counsel);
            told.unwrap()
        };
        let mut case = with_hold(|hold| hold.approved_at = Some(now()));
        assert!(!told(&case));
        bring(&mut case);
        assert!(told(&case));
    }

    #[test]
    fn every_class_that_policy_gates_is_held() {
        for (case, class) in
            [(bootstrap(), Class::Bootstrap), (mint(), Class::DelegatedMint), (gateway(), Class::GatewayExchange)]
        {
            let mut case = Case { advice: Advice { answer: allow_if_approved("any"), ..case.advice }, ..case };
            let outcome = case.decide();
            assert_eq!(outcome.class, class);
            assert_eq!(raised(&outcome).record.is_some(), class == Class::GatewayExchange);
        }
    }
}
