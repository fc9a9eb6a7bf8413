//! The delegation algebra over random chains: a child never holds more than its parent, nor any ancestor, in any
//! dimension, and no life grows along a lineage. The oracle compares what edges hold; it never asks the algebra.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::fixtures::*;
use crate::Timestamp;
use crate::delegation::{
    Constraints, Edge, EdgeStatus, Ends, Lineage, LineageFault, MAX_LINEAGE, NarrowedEdge, ProposedEdge, mirror,
    narrow, validate_lineage,
};
use crate::lifetime::{Bounds, LifetimeClass, fix};
use crate::resource::ResourceRef;
use crate::scope::{Scope, Scopes};
use crate::session::{SessionFacts, check_live};

/// How a child differs from its parent; most differences narrow, some do not.
#[derive(Debug, Clone)]
struct Step {
    mirrored: bool,
    scopes: u8,
    twice: bool,
    by_row: Option<u8>,
    by_name: u8,
    hops: i8,
    ttl: Option<i16>,
    budget: Option<i8>,
    date: Option<i16>,
    expiry: i16,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        (prop::bool::weighted(0.2), any::<u8>(), any::<bool>(), prop::option::weighted(0.3, 0u8..4), any::<u8>()),
        (
            -1i8..=2,
            prop::option::weighted(0.8, -5i16..50),
            prop::option::of(-1i8..3),
            prop::option::of(-5i16..60),
            -5i16..60,
        ),
    );
    let step = step.prop_map(|((mirrored, scopes, twice, by_row, by_name), (hops, ttl, budget, date, expiry))| Step {
        mirrored,
        scopes,
        twice,
        by_row,
        by_name,
        hops,
        ttl,
        budget,
        date,
        expiry,
    });
    prop::collection::vec(step, 1..14)
}

const SCOPES: [&str; 4] = ["a", "b", "c", "d"];

fn resource_row(index: u8) -> ResourceRef {
    row(&format!("res-{index}"), &format!("resource://{index}"))
}

/// The scopes of `held` picked by `mask`; the highest bits may add a foreign one.
fn pick(held: &Scopes, mask: u8, twice: bool) -> Scopes {
    let mut picked: Vec<Scope> = held
        .distinct()
        .iter()
        .enumerate()
        .filter(|(at, _)| mask & (1 << at) != 0)
        .map(|(_, scope)| scope.clone())
        .collect();
    if mask >= 0xe0 {
        picked.push(Scope::parse(SCOPES[usize::from(mask & 3)]).unwrap());
    }
    if twice {
        picked.extend(picked.first().cloned());
    }
    Scopes::from_list(picked)
}

fn number<T: Into<i64>>(base: Option<i64>, delta: Option<T>, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    delta.map(|delta| (base.unwrap_or(*range.end() / 2) - delta.into()).clamp(*range.start(), *range.end()))
}

fn propose(parent: &Edge, step: &Step, target: &str) -> ProposedEdge {
    let above = parent.constraints.clone().unwrap();
    let mut limits = Map::new();
    let mut put = |key: &str, value: Option<i64>| {
        if let Some(value) = value {
            limits.insert(key.into(), json!(value));
        }
    };
    put("max_hops", number(Some(above.hops().into()), Some(step.hops), 1..=10));
    put("ttl_seconds", number(above.ttl_seconds().map(i64::from), step.ttl, 1..=1_000));
    put("budget", number(above.budget().map(i64::from), step.budget, 1..=6));
    if let Some(date) = step.date {
        let at = above.expires_at().unwrap_or(parent.expires_at).as_seconds() - i64::from(date);
        limits.insert("expires_at".into(), json!(Timestamp::from_seconds(at).to_millis_text()));
    }
    let names: Vec<String> =
        (0..4).filter(|at| step.by_name & (1 << at) != 0).map(|at| format!("resource://{at}")).collect();
    if !names.is_empty() {
        limits.insert("resources".into(), json!(names));
    }
    ProposedEdge {
        source: parent.target.clone(),
        target: id(target),
        issuer: parent.receiver.clone(),
        receiver: id("app-1"),
        resource: step.by_row.map(resource_row),
        scopes: pick(&parent.scopes, step.scopes, step.twice),
        constraints: Constraints::parse(&limits).unwrap(),
        expires_at: Timestamp::from_seconds(parent.expires_at.as_seconds() - i64::from(step.expiry)),
    }
}

fn store(at: usize, checked: &NarrowedEdge) -> Edge {
    let edge = checked.edge();
    Edge {
        parent: checked.parent().cloned(),
        resource: edge.resource.clone(),
        scopes: edge.scopes.clone(),
        constraints: Some(edge.constraints.clone()),
        expires_at: edge.expires_at,
        ..super::fixtures::edge(&format!("e-{at}"), None, edge.source.as_str(), edge.target.as_str())
    }
}

/// The chain that comes of it: what the algebra refuses is left out and the next step tried.
fn grow(steps: &[Step]) -> Vec<Edge> {
    let root = Edge {
        scopes: scopes("a b c d"),
        constraints: Some(constraints(json!({"max_hops": 10}))),
        ..edge("e-0", None, "s-0", "s-1")
    };
    let mut chain = vec![root];
    for step in steps {
        let parent = chain.last().unwrap();
        let target = format!("s-{}", chain.len() + 1);
        let checked = if step.mirrored {
            mirror(parent, &id(&target)).ok()
        } else {
            narrow(parent, &propose(parent, step, &target)).ok()
        };
        if let Some(checked) = checked {
            let next = store(chain.len(), &checked);
            chain.push(next);
        }
    }
    chain
}

/// What an edge lends, as plain sets and numbers: the largest value stands for "no bound".
#[derive(Debug, PartialEq)]
struct Holds {
    scopes: BTreeSet<String>,
    resources: BTreeSet<u8>,
    expires: Timestamp,
    hops: u8,
    ttl: u32,
    budget: u8,
}

fn holds(edge: &Edge) -> Holds {
    let limits = edge.constraints.as_ref().unwrap();
    let admits = |at: &u8| {
        let resource = resource_row(*at);
        edge.resource.as_ref().is_none_or(|row| row.id == resource.id)
            && (limits.resources().is_empty() || limits.resources().contains(&resource.identifier))
    };
    Holds {
        scopes: edge.scopes.listed().iter().map(ToString::to_string).collect(),
        resources: (0..5).filter(admits).collect(),
        expires: edge.expires_at,
        hops: limits.hops(),
        ttl: limits.ttl_seconds().unwrap_or(u32::MAX),
        budget: limits.budget().unwrap_or(u8::MAX),
    }
}

fn with_lineage<T>(chain: &[Edge], look: impl FnOnce(Result<Lineage<'_>, LineageFault>) -> T) -> T {
    let leaf = chain.last().unwrap();
    let anchor = record("rec-anchor");
    let (source, target): (SessionFacts, SessionFacts) = (session(leaf.source.as_str()), session(leaf.target.as_str()));
    let zone = id("z-1");
    let ends = Ends {
        zone: &zone,
        edge: &leaf.id,
        source: check_live(&source, Some(&anchor), now()).unwrap(),
        target: check_live(&target, Some(&anchor), now()).unwrap(),
    };
    look(validate_lineage(chain, &ends, now()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_descendant_holds_more_than_any_ancestor(steps in steps()) {
        let chain = grow(&steps);
        for (at, ancestor) in chain.iter().enumerate() {
            for descendant in &chain[at + 1..] {
                let (above, below) = (holds(ancestor), holds(descendant));
                prop_assert!(below.scopes.is_subset(&above.scopes));
                prop_assert!(below.resources.is_subset(&above.resources));
                prop_assert!(below.expires <= above.expires);
                prop_assert!(below.hops <= above.hops);
                prop_assert!(below.ttl <= above.ttl);
                prop_assert!(below.budget <= above.budget);
            }
        }
    }

    #[test]
    fn narrowing_is_transitive(steps in steps()) {
        let chain = grow(&steps);
        for (at, ancestor) in chain.iter().enumerate() {
            for (further, descendant) in chain.iter().enumerate().skip(at + 1) {
                let mirrors_only = chain[at..=further].windows(2).all(|pair| pair[1].mirrors(&pair[0]));
                if !mirrors_only {
                    let (above, below) = (ancestor.bounds().unwrap(), descendant.bounds().unwrap());
                    prop_assert_eq!(crate::delegation::narrows(above, below), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_narrowed_edge_consumes_a_hop_along_the_whole_lineage(steps in steps()) {
        let chain = grow(&steps);
        for (at, ancestor) in chain.iter().enumerate() {
            let narrowed = chain[at..].windows(2).filter(|pair| !pair[1].mirrors(&pair[0])).count();
            prop_assert!(narrowed < usize::from(ancestor.constraints.as_ref().unwrap().hops()));
        }
    }

    #[test]
    fn what_the_algebra_makes_the_walk_accepts(steps in steps()) {
        let chain = grow(&steps);
        let ends = |edge: &Edge| edge.constraints.as_ref().unwrap().expires_at().unwrap_or(edge.expires_at).min(edge.expires_at);
        let earliest = chain.iter().map(ends).min().unwrap();
        with_lineage(&chain, |walked| {
            if chain.len() > MAX_LINEAGE {
                prop_assert_eq!(walked.err(), Some(LineageFault::TooLong));
            } else if earliest <= now() {
                prop_assert!(matches!(walked, Err(LineageFault::Expired(_))));
            } else {
                let lineage = walked.unwrap();
                prop_assert_eq!(lineage.expires_at(), earliest);
                prop_assert_eq!(lineage.hop_count(), chain.len());
                prop_assert_eq!(lineage.ttl_cap().unwrap_or(u32::MAX), holds(chain.last().unwrap()).ttl);
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_life_grows_along_a_lineage(steps in steps(), asked in prop::option::of(1i64..=3_600)) {
        let chain = grow(&steps);
        let mut before = None;
        for length in 1..=chain.len().min(MAX_LINEAGE) {
            let life = with_lineage(&chain[..length], |walked| {
                let lineage = walked.ok()?;
                let bounds = Bounds::none().until(lineage.expires_at()).at_most(lineage.ttl_cap());
                fix(LifetimeClass::Direct, asked, bounds, now()).ok()
            });
            match (before, life) {
                (Some(None), Some(_)) => prop_assert!(false, "a life after death"),
                (Some(Some(before)), Some(life)) => prop_assert!(end(life) <= end(before)),
                _ => {}
            }
            before = Some(life);
        }
    }

    #[test]
    fn a_widened_edge_in_the_store_ends_its_lineage(steps in steps(), at in any::<prop::sample::Index>(), how in 0..6usize) {
        let mut chain = grow(&steps);
        chain.truncate(MAX_LINEAGE);
        let at = at.index(chain.len());
        if at > 0 && widen(&mut chain, at, how) {
            with_lineage(&chain, |walked| {
                prop_assert!(walked.is_err(), "{how} at {at}: {chain:?}");
                Ok(())
            })?;
        }
    }
}

fn end(life: crate::lifetime::Lifetime) -> Timestamp {
    life.ends_at()
}

/// Gives the edge at `at` more than its parent has, in one dimension; false when there is nothing more to have.
fn widen(chain: &mut [Edge], at: usize, how: usize) -> bool {
    let above = holds(&chain[at - 1]);
    let edge = &mut chain[at];
    let mut limits = edge.constraints.as_ref().unwrap().to_json();
    match how {
        0 => {
            edge.scopes = Scopes::from_list(["a", "b", "c", "d", "e"].map(|scope| Scope::parse(scope).unwrap()).into())
        }
        1 => edge.expires_at = Timestamp::from_micros(above.expires.as_micros() + 1),
        2 if above.resources.len() < 5 => {
            edge.resource = None;
            limits.remove("resources");
        }
        3 => {
            limits.remove("max_depth");
            limits.insert("max_hops".into(), json!(above.hops.saturating_add(1).min(10)));
            if above.hops == 10 {
                // Equal hops only pass as a mirror; differ in something harmless.
                edge.expires_at = Timestamp::from_micros(edge.expires_at.as_micros() - 1);
            }
        }
        4 if above.ttl < u32::MAX => drop(limits.remove("ttl_seconds")),
        5 if above.budget < 64 => drop(limits.insert("budget".into(), json!(above.budget + 1))),
        _ => return false,
    }
    edge.constraints = Some(Constraints::parse(&limits).unwrap());
    edge.status == EdgeStatus::Active
}

#[test]
fn the_generator_reaches_deep_chains_and_every_dimension() {
    let step = Step {
        mirrored: false,
        scopes: 0b0111,
        twice: false,
        by_row: None,
        by_name: 0b0011,
        hops: 1,
        ttl: Some(1),
        budget: Some(0),
        date: Some(1),
        expiry: 1,
    };
    let chain = grow(&vec![step.clone(); 13]);
    assert_eq!(chain.len(), 10, "ten hops, the root's own included");
    let refused = [
        Step { scopes: 0xff, ..step.clone() },
        Step { by_name: 0b1111, ..step.clone() },
        Step { hops: 0, ..step.clone() },
        Step { ttl: Some(-1), ..step.clone() },
        Step { budget: Some(-1), ..step.clone() },
        Step { expiry: -1, ..step.clone() },
    ];
    for widening in refused {
        let chain = grow(&[step.clone(), widening.clone()]);
        assert_eq!(chain.len(), 2, "{widening:?}");
    }
}
