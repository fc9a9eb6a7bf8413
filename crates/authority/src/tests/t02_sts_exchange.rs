//! Properties of single exchanges: lives end with what they hang on, and the classes of mandates never mix.

use serde_json::json;

use super::fixtures::*;
use crate::control::ControlKey;
use crate::exchange::{Asserted, Refusal, ResourceNames, SubjectToken};
use crate::mandate::Use;
use crate::record::{RecordFacts, SubjectKind};
use crate::scope::{Requested, Scopes};
use crate::session::Life;

type Change = fn(&mut Case);

fn expires_in(case: &mut Case) -> u64 {
    case.decide().grant().unwrap().lifetime().expires_in()
}

mod t02_sts_lifetime {
    use super::*;

    /// Not merely one that has nothing left to lend: who has ended is nobody, and is told what nobody is told.
    #[test]
    fn an_application_that_has_ended_is_no_client() {
        for mut case in [bootstrap(), mint(), gateway(), direct(), federation()] {
            case.facts.client.as_mut().unwrap().expires_at = Some(now());
            assert_eq!(case.name(), "ClientUnauthenticated");
            case.facts.client.as_mut().unwrap().expires_at = Some(now().plus(std::time::Duration::from_micros(1)));
            assert_ne!(case.name(), "ClientUnauthenticated");
        }
    }

    #[test]
    fn a_mandate_ends_with_the_first_thing_it_hangs_on() {
        let rows: [(&str, Change); 8] = [
            ("client", |case| case.facts.client.as_mut().unwrap().expires_at = Some(later(50))),
            ("presented mandate", |case| case.subject().expires_at = 10_050),
            ("record", |case| case.record("rec-mint").expires_at = later(50)),
            ("session", |case| case.session("s-2").life = Life::Task { ttl_seconds: 50 }),
            ("source session", |case| case.session("s-1").life = Life::Task { ttl_seconds: 50 }),
            ("edge", |case| case.leaf().expires_at = later(50)),
            ("constraint", |case| {
                let at = later(50).to_millis_text();
                case.leaf().constraints = Some(constraints(json!({"expires_at": at})));
            }),
            ("user", |case| {
                *case.record("rec-anchor") =
                    RecordFacts { kind: SubjectKind::User, expires_at: later(50), ..record("rec-anchor") };
            }),
        ];
        for (name, bound) in rows {
            let mut case = gateway();
            assert!(expires_in(&mut case) > 800);
            bound(&mut case);
            let outcome = case.decide();
            let lifetime = outcome.grant().unwrap().lifetime();
            assert!(lifetime.ends_at() <= later(50), "{name}: {}", lifetime.ends_at());
            assert!((49..=50).contains(&lifetime.expires_in()), "{name}");
            assert_eq!(outcome.grant().unwrap().record().expires_at, lifetime.ends_at(), "{name}");
        }
    }

    #[test]
    fn a_ttl_out_of_its_class_is_refused_after_policy_and_an_exhausted_life_never_granted() {
        for (fresh, asked, expected) in [
            (bootstrap as fn() -> Case, -1, "TtlNegative"),
            (bootstrap, 3_601, "TtlAboveMaximum"),
            (bootstrap, 3_600, "granted"),
            (mint, 3_601, "TtlAboveMaximum"),
            (gateway, 901, "TtlAboveMaximum"),
            (gateway, 900, "granted"),
        ] {
            let mut case = fresh();
            case.request.ttl_seconds = Some(asked);
            assert_eq!(case.name(), expected, "{asked}");
            assert_eq!(case.advice.asked.len(), 1);
        }
        let mut case = mint();
        case.leaf().expires_at = crate::Timestamp::from_micros(NOW_MICROS + 999_999);
        assert_eq!(case.name(), "LifetimeExhausted");
    }
}

mod t02_sts_use_classes {
    use super::*;

    #[test]
    fn a_presented_mandate_is_of_the_one_class_its_presenter_may_present() {
        for (fresh, r#use, expected) in [
            (gateway as fn() -> Case, Use::Gateway, "granted"),
            (gateway, Use::Session, "SubjectTokenInvalid"),
            (gateway, Use::Resource, "SubjectTokenInvalid"),
            (direct, Use::Gateway, "SubjectTokenInvalid"),
            (direct, Use::Resource, "SubjectTokenInvalid"),
            (direct, Use::Session, "SubjectTokenOutsideGateway"),
        ] {
            let mut case = fresh();
            case.subject().r#use = r#use;
            assert_eq!(case.name(), expected, "{use:?}");
        }
    }

    #[test]
    fn a_session_mandate_is_never_traded_outside_the_gateway_and_holds_nobody_up() {
        let mut case = direct();
        case.advice.answer = allow_if_approved("payments");
        assert_eq!(case.name(), "SubjectTokenOutsideGateway");
        case.advice.answer = deny("no_rule_matched");
        assert_eq!(case.decide().refusal().unwrap().to_string(), "policy denied (no_rule_matched)");
    }

    #[test]
    fn a_session_mandate_speaks_only_for_sessions_of_its_record() {
        let mut case = direct();
        case.request.session = Asserted::Id(id("s-2"));
        case.facts.sessions = vec![session("s-2")];
        assert_eq!(case.name(), "SubjectTokenOutsideGateway");
        case.facts.records.push(record("rec-other"));
        case.session("s-2").subject_record = id("rec-other");
        assert_eq!(case.name(), "SessionOfAnotherRecord");
    }

    #[test]
    fn the_gateway_speaks_for_nobody_without_a_mandate() {
        let mut case = gateway();
        case.request.subject_token = SubjectToken::None;
        assert_eq!(case.name(), "ClientUnauthenticated");
    }

    #[test]
    fn unsigned_callers_cannot_name_an_operation() {
        let mut case = mint();
        case.resource().operations.clear();
        assert_eq!(case.request.upstream_call(), None);
        assert_eq!(case.name(), "granted");
    }

    #[test]
    fn the_control_audience_is_not_for_ordinary_applications() {
        let mut case = bootstrap();
        case.facts.control_audience = "resource://docs".into();
        let outcome = case.decide();
        assert_eq!(outcome.refusal(), Some(&Refusal::ControlResourceRequiresControlKey));
        assert_eq!(outcome.findings[0].evaluation_status.as_str(), "control_resource_requires_control_key");
        assert!(case.advice.asked.is_empty());
    }

    /// A control key that asks for the control audience, which is `resource://docs` here.
    fn control() -> Case {
        let mut case = bootstrap();
        case.facts.control_audience = "resource://docs".into();
        case.resource().scopes = scopes("control:app:read control:app:write");
        case.request.scope = Requested::new(Scopes::from_text("control:app:read"));
        let traits = ["control:invoke", "control:scope:control:app:read", "control:max-ttl:120"];
        let traits: Vec<String> = traits.iter().map(|name| (*name).to_owned()).collect();
        case.facts.client.as_mut().unwrap().control = ControlKey::of(&traits);
        case
    }

    #[test]
    fn a_control_key_is_granted_the_control_audience_without_policy_and_within_its_bound() {
        let mut case = control();
        let outcome = case.decide();
        let grant = outcome.grant().unwrap();
        assert_eq!((grant.r#use(), grant.lifetime().expires_in()), (Use::Resource, 120));
        assert!(case.advice.asked.is_empty() && !case.advice.counted.is_empty());
        let claims = serde_json::to_value(grant.claims("http://issuer", &id("rec-new"), &id("jti-new"))).unwrap();
        assert_eq!((&claims["aud"], &claims["root_sid"]), (&json!(["resource://docs"]), &json!("rec-new")));
    }

    #[test]
    fn whatever_else_a_control_request_brings_it_is_refused() {
        let rows: [fn(&mut Case); 5] = [
            |case| case.facts.client.as_mut().unwrap().control = None,
            |case| case.request.scope = Requested::new(Scopes::from_text("control:app:write")),
            |case| {
                case.request.record = Asserted::Id(id("rec-anchor"));
                case.facts.records = vec![record("rec-anchor")];
            },
            |case| {
                case.request.session = Asserted::Id(id("s-2"));
                case.facts.records = vec![record("rec-anchor")];
                case.facts.sessions = vec![session("s-2")];
            },
            |case| {
                // Policy would allow the other one.
                case.request.resources = ResourceNames::parse(["resource://docs", "resource://more"]).unwrap();
                let mut more = resource("res-2", "resource://more");
                more.scopes = scopes("control:app:read");
                case.facts.resources.push(found("resource://more", more));
            },
        ];
        for (number, change) in rows.into_iter().enumerate() {
            let mut case = control();
            change(&mut case);
            assert_eq!(case.name(), "ControlResourceRequiresControlKey", "row {number}");
        }
    }
}
