//! Nothing is granted from missing facts, and every fact that is asked for matters.

use proptest::prelude::*;

use super::fixtures::*;
use crate::delegation::{Edge, EdgeStatus};
use crate::exchange::{Decision, PolicyAnswer, Rate};
use crate::record::{RecordFacts, RecordStatus};
use crate::resource::Resource;
use crate::session::{Life, SessionFacts, SessionStatus};

/// What is lost, and how. Losing something that is already gone changes nothing.
type Loss = (&'static str, fn(&mut Case));

fn on_resource(case: &mut Case, change: fn(&mut Resource)) {
    case.facts.resources.iter_mut().for_each(|found| change(&mut found.resource));
}

fn on_session(case: &mut Case, name: &str, change: fn(&mut SessionFacts)) {
    case.facts.sessions.iter_mut().filter(|session| session.id.as_str() == name).for_each(change);
}

fn on_record(case: &mut Case, name: &str, change: fn(&mut RecordFacts)) {
    case.facts.records.iter_mut().filter(|record| record.id.as_str() == name).for_each(change);
}

fn on_edge(case: &mut Case, change: fn(&mut Edge)) {
    case.facts.lineage.iter_mut().for_each(change);
}

const ALWAYS: [Loss; 11] = [
    ("time", |case| case.facts.now = None),
    ("client", |case| case.facts.client = None),
    ("client of this name", |case| case.facts.client.iter_mut().for_each(|client| client.id = id("app-2"))),
    ("client of this zone", |case| case.facts.client.iter_mut().for_each(|client| client.zone = id("z-2"))),
    ("client's time", |case| case.facts.client.iter_mut().for_each(|client| client.expires_at = Some(now()))),
    ("resource", |case| case.facts.resources.clear()),
    ("resource of this name", |case| on_resource(case, |resource| resource.name = row("res-9", "resource://other"))),
    ("resource of this zone", |case| on_resource(case, |resource| resource.zone = id("z-2"))),
    ("offered scopes", |case| {
        on_resource(case, |resource| {
            resource.scopes = scopes("other");
            resource.has_upstream = false;
        });
    }),
    ("rate", |case| case.advice.rate = Rate::Unavailable),
    ("policy", |case| case.advice.answer = PolicyAnswer::Failed { error: "no bundle".into() }),
];

const DELEGATED: [Loss; 21] = [
    ("records", |case| case.facts.records.clear()),
    ("target session", |case| case.facts.sessions.retain(|session| session.id.as_str() != "s-2")),
    ("source session", |case| case.facts.sessions.retain(|session| session.id.as_str() != "s-1")),
    ("owned target", |case| on_session(case, "s-2", |session| session.application = id("app-2"))),
    ("target of this zone", |case| on_session(case, "s-2", |session| session.zone = id("z-2"))),
    ("sessions of this zone, records and all", |case| {
        case.facts.sessions.iter_mut().for_each(|session| session.zone = id("z-2"));
        case.facts.records.iter_mut().for_each(|record| record.zone = id("z-2"));
    }),
    ("active target", |case| on_session(case, "s-2", |session| session.status = SessionStatus::Suspended)),
    ("active source", |case| on_session(case, "s-1", |session| session.status = SessionStatus::Terminated)),
    ("target's time", |case| on_session(case, "s-2", |session| session.life = Life::Task { ttl_seconds: 0 })),
    ("source's time", |case| on_session(case, "s-1", |session| session.started_at = later(-3_600))),
    ("source's anchor", |case| on_session(case, "s-1", |session| session.subject_record = id("rec-gone"))),
    ("lineage", |case| case.facts.lineage.clear()),
    ("edge of this zone", |case| on_edge(case, |edge| edge.zone = id("z-2"))),
    ("active edge", |case| on_edge(case, |edge| edge.status = EdgeStatus::Revoked)),
    ("edge's time", |case| on_edge(case, |edge| edge.expires_at = now())),
    ("edge to the session", |case| on_edge(case, |edge| edge.target = id("s-3"))),
    ("edge's application", |case| on_edge(case, |edge| edge.receiver = id("app-2"))),
    ("root", |case| on_edge(case, |edge| edge.parent = Some(id("e-0")))),
    ("readable constraints", |case| on_edge(case, |edge| edge.constraints = None)),
    ("lent scopes", |case| on_edge(case, |edge| edge.scopes = scopes("docs:write"))),
    ("epoch", |case| case.facts.epoch = None),
];

const PRESENTED: [Loss; 12] = [
    ("mandate", |case| case.facts.subject = None),
    ("mandate of its class", |case| {
        case.facts.subject.iter_mut().for_each(|claims| claims.r#use = crate::mandate::Use::Resource);
    }),
    ("mandate of this zone", |case| case.facts.subject.iter_mut().for_each(|claims| claims.zone = id("z-2"))),
    ("mandate's record", |case| case.facts.subject.iter_mut().for_each(|claims| claims.record = None)),
    ("mandate of this client", |case| case.facts.subject.iter_mut().for_each(|claims| claims.client = id("app-2"))),
    ("record", |case| case.facts.records.retain(|record| record.id.as_str() != "rec-mint")),
    ("active record", |case| on_record(case, "rec-mint", |record| record.status = RecordStatus::Revoked)),
    ("record's time", |case| on_record(case, "rec-mint", |record| record.expires_at = now())),
    ("record of this subject", |case| on_record(case, "rec-mint", |record| record.subject = "app-2".into())),
    ("record of this client", |case| on_record(case, "rec-mint", |record| record.client = id("app-2"))),
    ("operation", |case| on_resource(case, |resource| resource.operations.clear())),
    ("provider", |case| {
        on_resource(case, |resource| resource.provider.iter_mut().for_each(|provider| provider.kind = None));
    }),
];

/// A Gateway exchange asks for no scopes: what the resource offers was a question of the mint.
fn losses_of_a_gateway_exchange() -> Vec<Loss> {
    let always = ALWAYS.into_iter().filter(|(name, _)| *name != "offered scopes");
    always.chain(DELEGATED).chain(PRESENTED).collect()
}

fn each_one_denies(fresh: fn() -> Case, losses: &[Loss]) {
    assert_eq!(fresh().name(), "granted");
    for (name, lose) in losses {
        let mut case = fresh();
        lose(&mut case);
        let outcome = case.decide();
        assert!(outcome.grant().is_none(), "granted without {name}");
        assert!(outcome.findings.iter().all(|finding| finding.decision == Decision::Deny), "an allow without {name}");
        assert!(!outcome.findings.is_empty(), "no evidence without {name}");
    }
}

#[test]
fn a_bootstrap_needs_each_of_its_facts() {
    each_one_denies(bootstrap, &ALWAYS);
}

#[test]
fn a_delegated_mint_needs_each_of_its_facts() {
    each_one_denies(mint, &ALWAYS.into_iter().chain(DELEGATED).collect::<Vec<_>>());
}

#[test]
fn a_gateway_exchange_needs_each_of_its_facts() {
    each_one_denies(gateway, &losses_of_a_gateway_exchange());
}

proptest! {
    #[test]
    fn no_loss_makes_up_for_another(
        lost in proptest::sample::subsequence(losses_of_a_gateway_exchange(), 1..=20).prop_shuffle(),
    ) {
        let mut case = gateway();
        lost.iter().for_each(|(_, lose)| lose(&mut case));
        prop_assert!(case.decide().grant().is_none());
    }
}
