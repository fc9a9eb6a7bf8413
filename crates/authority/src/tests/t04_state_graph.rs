//! The delegation graph stays acyclic, and what is taken back takes all below it along.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::fixtures::id;
use crate::delegation::{Cascade, Link, Node, closes_cycle, downstream, resume, revoke, suspend, terminate};
use crate::session::{SessionStatus, TerminationReason};
use crate::{AgentSessionId, EdgeId};

use SessionStatus::{Active, Suspended, Terminated};

fn s(number: usize) -> AgentSessionId {
    id(&format!("s-{number}"))
}

fn link(edge: &str, parent: Option<&str>, source: usize, target: usize) -> Link {
    Link { edge: id(edge), parent: parent.map(id), source: s(source), target: s(target) }
}

fn node(number: usize, parent: Option<usize>, status: SessionStatus) -> Node {
    Node { session: s(number), parent: parent.map(s), status }
}

fn ids<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn ended(cascade: &Cascade) -> Vec<(String, &str)> {
    cascade.sessions.iter().map(|ended| (ended.session.to_string(), ended.reason.as_str())).collect()
}

/// Repeatedly takes away sessions nothing points at: what is left over is a circle. Knows nothing of the subject.
fn is_acyclic(links: &[Link]) -> bool {
    let mut left: Vec<&Link> = links.iter().collect();
    loop {
        let before = left.len();
        let targets: BTreeSet<_> = left.iter().map(|link| link.target.clone()).collect();
        left.retain(|link| targets.contains(&link.source));
        if left.len() == before {
            return left.is_empty();
        }
    }
}

#[test]
fn every_graph_of_four_sessions_is_judged_like_the_oracle() {
    let pairs: Vec<(usize, usize)> = (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
    let all: Vec<Link> = pairs.iter().enumerate().map(|(at, (a, b))| link(&format!("e-{at}"), None, *a, *b)).collect();
    for mask in 0..1u32 << all.len() {
        let chosen = |links: &[Link]| -> Vec<Link> {
            links.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0).map(|(_, link)| link.clone()).collect()
        };
        let links = chosen(&all);
        if is_acyclic(&links) {
            for extra in &all {
                let closed = closes_cycle(&links, &extra.source, &extra.target);
                let with_extra = [links.clone(), vec![extra.clone()]].concat();
                assert_eq!(closed, !is_acyclic(&with_extra), "{links:?} + {extra:?}");
            }
        }
    }
}

#[test]
fn a_circle_is_refused_at_any_length() {
    let links: Vec<Link> = (0..40).map(|at| link(&format!("e-{at}"), None, at, at + 1)).collect();
    assert!(closes_cycle(&links, &s(40), &s(0)));
    assert!(closes_cycle(&links, &s(2), &s(0)));
    assert!(!closes_cycle(&links, &s(0), &s(40)));
    assert!(closes_cycle(&[], &s(0), &s(0)), "a session that lends to itself");
}

#[test]
fn downstream_of_a_diamond_each_edge_is_met_once() {
    let links = [
        link("e-0", None, 0, 1),
        link("e-1", None, 1, 2),
        link("e-2", None, 1, 3),
        link("e-3", None, 2, 4),
        link("e-4", None, 3, 4),
        link("e-5", None, 4, 5),
        link("e-9", None, 8, 9),
    ];
    let met: Vec<_> = downstream(&links, &id("e-0")).iter().map(|met| (met.link.edge.to_string(), met.depth)).collect();
    let expected = [("e-0", 1), ("e-1", 2), ("e-2", 2), ("e-3", 3), ("e-4", 3), ("e-5", 4)];
    assert_eq!(met, expected.map(|(edge, depth)| (edge.to_owned(), depth)));
    assert!(downstream(&links, &id("e-7")).is_empty());
    let nodes: Vec<Node> = (0..6).map(|number| node(number, None, Active)).collect();
    assert_eq!(
        revoke(&[id("e-1")], &TerminationReason::DelegationRevoked, &nodes, &links).edges.len(),
        4,
        "e-1, e-3, e-5, and e-4 into an ended session"
    );
}

#[test]
fn revoking_the_middle_of_a_chain_spares_what_is_above() {
    // A → B → C, and C has a child session.
    let links = [link("e-ab", None, 0, 1), link("e-bc", Some("e-ab"), 1, 2)];
    let nodes = [node(0, None, Active), node(1, None, Active), node(2, None, Suspended), node(3, Some(2), Active)];
    let cascade = revoke(&[id("e-ab")], &TerminationReason::DelegationRevoked, &nodes, &links);
    assert_eq!(ids(&cascade.edges), ["e-ab", "e-bc"]);
    let revoked = |session: &str| (session.to_owned(), "delegation_revoked");
    assert_eq!(ended(&cascade), [revoked("s-1"), revoked("s-2"), ("s-3".into(), "parent_terminated")]);
    assert_eq!(revoke(&[id("e-gone")], &TerminationReason::DelegationRevoked, &nodes, &links), Cascade::default());
}

#[test]
fn ending_a_session_ends_its_subtree_every_edge_it_touches_and_what_derives_from_them() {
    let links = [
        link("e-01", None, 0, 1),
        link("e-12", Some("e-01"), 1, 2),
        link("e-23", Some("e-12"), 2, 3),
        link("e-43", None, 4, 3),
        link("e-50", None, 5, 0),
    ];
    let nodes = [
        node(0, None, Active),
        node(1, None, Active),
        node(5, Some(1), Active),
        node(6, Some(5), Terminated),
        node(7, Some(6), Active),
        node(2, None, Active),
    ];
    let cascade = terminate(&[s(1)], &TerminationReason::Ttl, &nodes, &links);
    assert_eq!(ended(&cascade), [("s-1".to_owned(), "ttl"), ("s-5".to_owned(), "parent_terminated")]);
    assert_eq!(cascade.sessions[0].reason.final_status(), SessionStatus::Expired);
    assert_eq!(ids(&cascade.edges), ["e-01", "e-12", "e-23", "e-50"], "e-23 derives from e-12; e-43 does not");
    assert_eq!(terminate(&[s(6)], &TerminationReason::Ttl, &nodes, &links), Cascade::default(), "already over");
}

#[test]
fn suspension_and_resumption_go_as_far_as_their_own_status() {
    let nodes =
        [node(0, None, Active), node(1, Some(0), Suspended), node(2, Some(1), Active), node(3, Some(0), Active)];
    assert_eq!(ids(suspend(&s(0), &nodes)), ["s-0", "s-3"]);
    assert_eq!(ids(resume(&s(1), &nodes)), ["s-1"]);
    assert!(suspend(&s(1), &nodes).is_empty() && resume(&s(0), &nodes).is_empty());
    let all: Vec<Node> = nodes.into_iter().map(|node| Node { status: Suspended, ..node }).collect();
    assert_eq!(ids(resume(&s(0), &all)), ["s-0", "s-1", "s-3", "s-2"]);
}

/// A forest of sessions, and edges kept only when they close no circle; the edge before into the source, if any, is
/// the parent.
fn world() -> impl Strategy<Value = (Vec<Node>, Vec<Link>)> {
    let parents = prop::collection::vec((prop::option::of(any::<prop::sample::Index>()), 0..4u8), 2..14);
    let edges =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..30);
    (parents, edges).prop_map(|(parents, edges)| {
        let status = |kind| [Active, Active, Suspended, Terminated][usize::from(kind)];
        let nodes: Vec<Node> = parents
            .iter()
            .enumerate()
            .map(|(at, (parent, kind))| {
                node(at, parent.filter(|_| at > 0).map(|parent| parent.index(at)), status(*kind))
            })
            .collect();
        let mut links: Vec<Link> = Vec::new();
        for (at, (source, target, derives)) in edges.into_iter().enumerate() {
            let (source, target) = (s(source.index(nodes.len())), s(target.index(nodes.len())));
            if !closes_cycle(&links, &source, &target) {
                let parent = links.iter().filter(|_| derives).find(|link| link.target == source);
                let parent = parent.map(|link| link.edge.clone());
                links.push(Link { edge: id(&format!("e-{at}")), parent, source, target });
            }
        }
        (nodes, links)
    })
}

/// What is still alive after `cascade`.
fn after(cascade: &Cascade, nodes: &[Node], links: &[Link]) -> (Vec<Node>, Vec<Link>) {
    let over: BTreeSet<&AgentSessionId> = cascade.sessions.iter().map(|ended| &ended.session).collect();
    let alive = |node: &&Node| !node.status.is_terminal() && !over.contains(&node.session);
    let live = |link: &&Link| !cascade.edges.contains(&link.edge);
    (nodes.iter().filter(alive).cloned().collect(), links.iter().filter(live).cloned().collect())
}

/// The ancestors of an edge, by derivation.
fn ancestors<'l>(link: &'l Link, all: &'l [Link]) -> Vec<&'l EdgeId> {
    let by_id: HashMap<&EdgeId, &Link> = all.iter().map(|link| (&link.edge, link)).collect();
    let above = |link: &&'l Link| link.parent.as_ref().and_then(|parent| by_id.get(parent).copied());
    std::iter::successors(above(&link), above).map(|link| &link.edge).collect()
}

proptest! {
    #[test]
    fn the_graph_is_acyclic_after_every_addition((_, links) in world()) {
        for length in 0..=links.len() {
            prop_assert!(is_acyclic(&links[..length]));
        }
    }

    #[test]
    fn a_revoked_edge_leaves_no_live_descendant((nodes, links) in world(), at in any::<prop::sample::Index>()) {
        prop_assume!(!links.is_empty());
        let edge = &links[at.index(links.len())];
        let cascade = revoke(std::slice::from_ref(&edge.edge), &TerminationReason::DelegationRevoked, &nodes, &links);
        let (alive, live) = after(&cascade, &nodes, &links);
        prop_assert!(cascade.edges.contains(&edge.edge));
        prop_assert!(!alive.iter().any(|node| node.session == edge.target));
        for link in &live {
            prop_assert!(ancestors(link, &links).iter().all(|above| !cascade.edges.contains(*above)), "{link:?} derives");
            prop_assert!(cascade.sessions.iter().all(|ended| ended.session != link.source && ended.session != link.target));
            let reached = downstream(&links, &edge.edge).iter().any(|met| met.link.edge == link.edge);
            prop_assert!(!reached, "{link:?} is downstream");
        }
        let orphan = alive.iter().find(|node| {
            cascade.sessions.iter().any(|ended| Some(&ended.session) == node.parent.as_ref())
        });
        prop_assert!(orphan.is_none(), "{orphan:?} outlives its parent");
    }

    #[test]
    fn a_cascade_takes_nothing_it_has_no_reason_to((nodes, links) in world(), at in any::<prop::sample::Index>()) {
        prop_assume!(!links.is_empty());
        let edge = &links[at.index(links.len())];
        let cascade = revoke(std::slice::from_ref(&edge.edge), &TerminationReason::DelegationRevoked, &nodes, &links);
        let reached: BTreeSet<EdgeId> = downstream(&links, &edge.edge).iter().map(|met| met.link.edge.clone()).collect();
        let targets: BTreeSet<AgentSessionId> = downstream(&links, &edge.edge).iter().map(|met| met.link.target.clone()).collect();
        let over: BTreeSet<AgentSessionId> = cascade.sessions.iter().map(|ended| ended.session.clone()).collect();
        for ended in &cascade.sessions {
            let node = nodes.iter().find(|node| node.session == ended.session).unwrap();
            prop_assert!(!node.status.is_terminal());
            let is_root = ended.reason == TerminationReason::DelegationRevoked;
            prop_assert_eq!(is_root, targets.contains(&ended.session));
            prop_assert!(is_root || node.parent.as_ref().is_some_and(|parent| over.contains(parent)));
        }
        for link in links.iter().filter(|link| cascade.edges.contains(&link.edge)) {
            let touches = over.contains(&link.source) || over.contains(&link.target);
            let derives = ancestors(link, &links).iter().any(|above| cascade.edges.contains(*above));
            prop_assert!(reached.contains(&link.edge) || touches || derives);
        }
    }

    #[test]
    fn an_ended_session_leaves_no_running_descendant_and_no_edge((nodes, links) in world(), at in any::<prop::sample::Index>()) {
        let root = &nodes[at.index(nodes.len())];
        let cascade = terminate(std::slice::from_ref(&root.session), &TerminationReason::Ttl, &nodes, &links);
        prop_assert_eq!(cascade.sessions.is_empty(), root.status.is_terminal());
        let over: BTreeSet<&AgentSessionId> = cascade.sessions.iter().map(|ended| &ended.session).collect();
        prop_assert_eq!(over.len(), cascade.sessions.len());
        let (alive, live) = after(&cascade, &nodes, &links);
        prop_assert!(alive.iter().all(|node| node.parent.as_ref().is_none_or(|parent| !over.contains(parent))));
        prop_assert!(live.iter().all(|link| !over.contains(&link.source) && !over.contains(&link.target)));
    }
}
