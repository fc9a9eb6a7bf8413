//! The launch decision, row by row (contract: sts.md §11).

use super::fixtures::{allow, allow_if_approved, deny, hold, id, later, now, resource, scopes};
use crate::approval::{Approver, Hold, NewHold, PolicyStamp, PrincipalKind};
use crate::exchange::{ApprovalTier, PolicyAnswer, Refusal, Wanted};
use crate::launch::{BoundCredential, BoundResource, Facts, Launch, Outcome, Workload, decide};
use crate::resource::{AttachedProvider, ProviderKind};

/// A launch, the facts it meets and what policy says: change one thing and see.
struct Case {
    launch: Launch,
    facts: Facts,
    answer: PolicyAnswer,
    asked: Vec<bool>,
}

impl Case {
    fn good() -> Self {
        let found = BoundResource {
            resource: resource("r-1", "resource://docs"),
            upstream: Some("https://docs.example".into()),
            is_configured: true,
            allows_injection: true,
        };
        let facts = Facts {
            now: Some(now()),
            workload: Some(Workload { id: id("w-1"), zone: id("z-1"), name: "nightly".into() }),
            bound: Some(BoundCredential { resource: "resource://docs".into(), scopes: scopes("docs:read") }),
            resource: Some(found),
            ..Facts::default()
        };
        let launch = Launch { zone: id("z-1"), workload: id("w-1"), env: "DOCS_TOKEN".into(), approval_id: None };
        Self { launch, facts, answer: allow(), asked: Vec::new() }
    }

    fn decide(&mut self) -> Outcome {
        let asked = &mut self.asked;
        let answer = &self.answer;
        decide(&self.launch, &self.facts, &mut |question| {
            asked.push(question.approved);
            answer.clone()
        })
    }

    fn refusal(&mut self) -> Refusal {
        self.decide().decision.unwrap_err()
    }

    fn name(&mut self) -> &'static str {
        self.refusal().name()
    }

    fn provider(&mut self, kind: Option<ProviderKind>) {
        self.resource().resource.provider = Some(AttachedProvider { id: id("prov-1"), kind });
    }

    fn resource(&mut self) -> &mut BoundResource {
        self.facts.resource.as_mut().unwrap()
    }

    /// The hold that a gated launch raises, as it would be stored.
    fn held(&mut self) -> (NewHold, Hold) {
        self.answer = allow_if_approved("secrets");
        let Refusal::ApprovalRequired { wanted: Wanted::New(new) } = self.refusal() else { panic!("not held") };
        let stored = Hold {
            principal: new.principal.clone(),
            record: None,
            application: None,
            session: None,
            delegation: None,
            labels: Vec::new(),
            requesting: Vec::new(),
            binding: new.binding.clone(),
            ..hold()
        };
        (*new, stored)
    }
}

fn approved(hold: &Hold) -> Hold {
    Hold { approved_at: Some(now()), ..hold.clone() }
}

#[test]
fn what_is_bound_allowed_and_in_order_is_released() {
    let mut case = Case::good();
    let outcome = case.decide();
    assert!(outcome.decision.unwrap().spends().is_none());
    assert_eq!((outcome.policy, case.asked), (Some(allow()), vec![false]));
}

mod t02_sts_launch {
    use super::*;

    /// Each row's fact is broken while those behind it stay so, from the last to the first: the earliest is the answer.
    #[test]
    fn the_first_failing_row_is_the_answer() {
        let mut case = Case::good();
        let mut broken = vec![];
        case.answer = deny("restriction_active");
        broken.push((case.name(), "NothingGranted"));
        case.answer = PolicyAnswer::Failed { error: "x".into() };
        broken.push((case.name(), "PolicyFailed"));
        case.launch.approval_id = Some("0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11".into());
        broken.push((case.name(), "ApprovalUnknown"));
        case.facts.approved_under = Some(PolicyStamp { version: "psv-0".into(), ..PolicyStamp::default() });
        broken.push((case.name(), "ApprovalPolicyChanged"));
        case.provider(Some(ProviderKind::Oauth2AuthorizationCode));
        broken.push((case.name(), "NoUserAtLaunch"));
        case.resource().allows_injection = false;
        broken.push((case.name(), "InjectionNotAllowed"));
        case.resource().is_configured = false;
        broken.push((case.name(), "ProviderMisconfigured"));
        case.provider(None);
        broken.push((case.name(), "ProviderGone"));
        case.resource().resource.provider = None;
        broken.push((case.name(), "NoProvider"));
        case.facts.bound.as_mut().unwrap().scopes = scopes("docs:read docs:delete");
        broken.push((case.name(), "BoundScopesNotOffered"));
        case.facts.resource = None;
        broken.push((case.name(), "BoundResourceUnknown"));
        case.facts.bound = None;
        broken.push((case.name(), "BindingUnknown"));
        case.facts.now = None;
        broken.push((case.name(), "TimeUnavailable"));
        case.facts.workload = None;
        broken.push((case.name(), "WorkloadUnauthenticated"));
        for (found, expected) in broken {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn no_missing_fact_releases_anything() {
        let missing: [fn(&mut Facts); 4] = [
            |facts| facts.now = None,
            |facts| facts.workload = None,
            |facts| facts.bound = None,
            |facts| facts.resource = None,
        ];
        for forget in missing {
            let mut case = Case::good();
            forget(&mut case.facts);
            assert!(case.decide().decision.is_err());
            assert!(case.asked.is_empty());
        }
    }

    #[test]
    fn what_belongs_to_another_zone_or_workload_proves_nothing() {
        let mut case = Case::good();
        case.facts.workload.as_mut().unwrap().zone = id("z-2");
        assert_eq!(case.name(), "WorkloadUnauthenticated");
        let mut case = Case::good();
        case.launch.workload = id("w-2");
        assert_eq!(case.name(), "WorkloadUnauthenticated");
        let mut case = Case::good();
        case.resource().resource.zone = id("z-2");
        assert_eq!(case.name(), "BoundResourceUnknown");
    }

    #[test]
    fn only_kinds_whose_credential_may_leave_the_gateway_are_injected() {
        for (kind, expected) in [
            (ProviderKind::ApiKey, None),
            (ProviderKind::BearerToken, None),
            (ProviderKind::Oauth2ClientCredentials, None),
            (ProviderKind::None, Some("InjectionNotAllowed")),
            (ProviderKind::CaracalMandate, Some("InjectionNotAllowed")),
            (ProviderKind::HttpBasic, Some("InjectionNotAllowed")),
            (ProviderKind::Oauth2AuthorizationCode, Some("NoUserAtLaunch")),
            (ProviderKind::Unrecognised, Some("ProviderMisconfigured")),
        ] {
            let mut case = Case::good();
            case.provider(Some(kind));
            assert_eq!(case.decide().decision.err().map(|refusal| refusal.name()), expected, "{kind:?}");
            case.resource().allows_injection = false;
            assert!(case.decide().decision.is_err(), "{kind:?}");
        }
    }
}

mod t14_automation {
    use super::*;

    #[test]
    fn a_gated_launch_raises_a_hold_for_the_workload_alone() {
        let (new, _) = Case::good().held();
        assert_eq!((new.principal.as_str(), new.principal_kind), ("w-1", PrincipalKind::Workload));
        assert_eq!((new.record, new.application, new.session, new.delegation), (None, None, None, None));
        assert_eq!((new.subject_anchor, new.requesting.len()), (None, 0));
        let launch = new.launch.unwrap();
        assert_eq!((launch.name.as_str(), launch.env.as_str()), ("nightly", "DOCS_TOKEN"));
        assert_eq!((new.resources, new.scopes), (vec!["resource://docs".to_owned()], vec!["docs:read".to_owned()]));
    }

    #[test]
    fn an_approval_is_spent_whether_or_not_it_is_named() {
        for named in [true, false] {
            let mut case = Case::good();
            let (_, hold) = case.held();
            case.launch.approval_id = named.then(|| hold.id.to_string());
            case.facts.holds = vec![approved(&hold)];
            case.asked.clear();
            let release = case.decide().decision.unwrap();
            assert_eq!(release.spends().map(|hold| &hold.id), Some(&hold.id));
            assert_eq!(case.asked, [named]);
        }
    }

    #[test]
    fn a_hold_that_is_not_approved_says_what_it_is() {
        let mut case = Case::good();
        let (_, pending) = case.held();
        let consumed = crate::approval::Consumed { at: now(), record: None };
        for (hold, named, unnamed) in [
            (pending.clone(), "ApprovalRequired", "ApprovalRequired"),
            (Hold { rejected_at: Some(now()), ..pending.clone() }, "ApprovalRejected", "ApprovalRejected"),
            (Hold { expires_at: now(), ..approved(&pending) }, "ApprovalExpired", "ApprovalRequired"),
            // No re-issue window: what was released is not told again.
            (Hold { consumed: Some(consumed), ..approved(&pending) }, "ApprovalConsumed", "ApprovalRequired"),
        ] {
            case.facts.holds = vec![hold.clone()];
            case.launch.approval_id = Some(hold.id.to_string());
            assert_eq!(case.name(), named);
            case.launch.approval_id = None;
            assert_eq!(case.name(), unnamed);
        }
    }

    #[test]
    fn an_approval_is_good_for_one_variable_one_resource_one_workload_and_one_policy() {
        let changes: [fn(&mut Case); 8] = [
            |case| case.launch.env = "OTHER_TOKEN".into(),
            |case| case.facts.bound.as_mut().unwrap().scopes = scopes("docs:read docs:write"),
            |case| case.facts.bound.as_mut().unwrap().resource = "r-1".into(),
            |case| case.resource().resource.name.id = id("r-2"),
            |case| case.resource().upstream = Some("https://elsewhere.example".into()),
            |case| case.provider(Some(ProviderKind::BearerToken)),
            |case| case.facts.policy.manifest = "m-2".into(),
            |case| {
                case.launch.workload = id("w-2");
                case.facts.workload.as_mut().unwrap().id = id("w-2");
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut case = Case::good();
            let (_, hold) = case.held();
            case.facts.holds = vec![approved(&hold)];
            case.launch.approval_id = Some(hold.id.to_string());
            assert!(case.decide().decision.is_ok());
            change(&mut case);
            assert_eq!(case.name(), "ApprovalUnknown", "change {index}");
        }
    }

    #[test]
    fn the_approval_of_an_application_is_none_of_a_workload() {
        let mut case = Case::good();
        let (_, hold) = case.held();
        case.launch.approval_id = Some(hold.id.to_string());
        for foreign in [
            Hold { application: Some(id("app-1")), ..approved(&hold) },
            Hold { record: Some(id("rec-1")), ..approved(&hold) },
            Hold { zone: id("z-2"), ..approved(&hold) },
        ] {
            case.facts.holds = vec![foreign];
            assert_eq!(case.name(), "ApprovalUnknown");
        }
    }

    #[test]
    fn a_policy_that_changed_while_an_approval_was_used_ends_it() {
        let mut case = Case::good();
        let (_, hold) = case.held();
        case.facts.holds = vec![approved(&hold)];
        case.launch.approval_id = Some(hold.id.to_string());
        case.facts.approved_under = Some(case.facts.policy.clone());
        assert!(case.decide().decision.is_ok(), "the zone moved, its policy did not");
        case.facts.policy.version = "psv-2".into();
        assert_eq!(case.name(), "ApprovalPolicyChanged");
    }

    #[test]
    fn tiers_that_want_different_approvers_are_refused() {
        let tier =
            |approver| ApprovalTier { tier: "t".into(), approver: Some(approver), ttl_seconds: None, privacy: None };
        let mut case = Case::good();
        let tiers = vec![tier(Approver::Operator), tier(Approver::Subject)];
        case.answer = PolicyAnswer::Allow { determining: vec![], diagnostics: serde_json::json!([]), tiers };
        assert_eq!(case.refusal(), Refusal::ApprovalClassConflict);
        case.facts.now = Some(later(1));
        assert_eq!(case.refusal().evaluation_status().as_str(), "approval_class_conflict");
    }
}
