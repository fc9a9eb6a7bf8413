//! Edge-case rows of delegation that need no store (contract: coordinator.md §4.2, §6, §18; sts.md §9).

use serde_json::{Value, json};

use super::fixtures::*;
use crate::Timestamp;
use crate::delegation::{
    Constraints, Edge, EdgeStatus, Ends, InheritFault, LineageFault, NarrowedEdge, ParentFault, ProposedEdge,
    WidenedDimension, choose_parent, effective_authority, expiry, inherited_edge, mirror, narrow, validate_lineage,
};
use crate::scope::Scopes;
use crate::session::{SessionFacts, check_live};

fn parent(limits: Value) -> Edge {
    Edge { constraints: Some(constraints(limits)), ..edge("e-1", None, "s-1", "s-2") }
}

fn child(limits: Value, lent: &str) -> ProposedEdge {
    ProposedEdge {
        source: id("s-2"),
        target: id("s-3"),
        issuer: id("app-1"),
        receiver: id("app-1"),
        resource: None,
        scopes: scopes(lent),
        constraints: constraints(limits),
        expires_at: later(100),
    }
}

/// The edge as the store would have it.
fn stored(name: &str, checked: &NarrowedEdge) -> Edge {
    let terms = checked.edge().clone();
    Edge {
        id: id(name),
        zone: id("z-1"),
        parent: checked.parent().cloned(),
        source: terms.source,
        target: terms.target,
        issuer: terms.issuer,
        receiver: terms.receiver,
        resource: terms.resource,
        scopes: terms.scopes,
        constraints: Some(terms.constraints),
        status: EdgeStatus::Active,
        expires_at: terms.expires_at,
    }
}

#[test]
fn a_child_of_a_parent_with_hops_ttl_and_scope() {
    let docs = "resource://docs";
    let above =
        Edge { scopes: scopes("read"), ..parent(json!({"resources": [docs], "max_hops": 3, "ttl_seconds": 500})) };
    let limits = |hops: u8, ttl: u32| json!({"resources": [docs], "max_hops": hops, "ttl_seconds": ttl});
    for (asked, lent, expected) in [
        (limits(2, 400), "read", Ok(())),
        (limits(2, 400), "", Ok(())),
        (limits(2, 600), "read", Err(WidenedDimension::Ttl)),
        (json!({"resources": [docs], "max_hops": 2}), "read", Err(WidenedDimension::Ttl)),
        (limits(3, 400), "read", Err(WidenedDimension::Hops)),
        (limits(2, 400), "write", Err(WidenedDimension::Scopes)),
        (
            json!({"resources": ["resource://x"], "max_hops": 2, "ttl_seconds": 400}),
            "read",
            Err(WidenedDimension::Resources),
        ),
        (json!({"max_hops": 2, "ttl_seconds": 400}), "read", Err(WidenedDimension::Resources)),
    ] {
        assert_eq!(narrow(&above, &child(asked.clone(), lent)).map(|_| ()), expected, "{asked} {lent}");
    }
}

#[test]
fn a_parent_without_hops_has_no_child_but_has_mirrors() {
    let above = parent(json!({"resources": ["resource://docs"]}));
    let asked = child(json!({"resources": ["resource://docs"]}), "docs:read");
    assert_eq!(narrow(&above, &asked), Err(WidenedDimension::Hops));
    let mirrored = stored("e-2", &mirror(&above, &id("s-3")).unwrap());
    assert!(mirrored.mirrors(&above));
    assert_eq!(
        (&mirrored.scopes, &mirrored.constraints, mirrored.expires_at),
        (&above.scopes, &above.constraints, above.expires_at)
    );
    assert!(!Edge { expires_at: later(1), ..mirrored.clone() }.mirrors(&above));
    assert!(!Edge { receiver: id("app-2"), ..mirrored.clone() }.mirrors(&above));
    assert!(!Edge { constraints: None, ..mirrored }.mirrors(&Edge { constraints: None, ..above }));
}

#[test]
fn a_budget_counts_scope_elements_and_is_never_forgotten() {
    let above = parent(json!({"budget": 1, "max_hops": 5}));
    assert_eq!(narrow(&above, &child(json!({"budget": 2}), "docs:read")), Err(WidenedDimension::Budget));
    assert_eq!(narrow(&above, &child(json!({}), "docs:read docs:read")), Err(WidenedDimension::Budget));
    let below = narrow(&above, &child(json!({"max_hops": 4}), "docs:read")).unwrap();
    assert_eq!(below.edge().constraints.budget(), Some(1));
    assert_eq!(narrow(&parent(json!({"max_hops": 2})), &child(json!({"budget": 64}), "docs:read")).map(|_| ()), Ok(()));
}

#[test]
fn a_resource_is_named_by_row_or_identifier_and_never_beside_the_parents() {
    let docs = || Some(row("res-1", "resource://docs"));
    let by_row = Edge { resource: docs(), ..parent(json!({"max_hops": 2})) };
    let by_name = parent(json!({"max_hops": 2, "resources": ["resource://docs", "resource://more"]}));
    let broad = parent(json!({"max_hops": 2}));
    let contradictory = Edge { resource: docs(), ..parent(json!({"max_hops": 2, "resources": ["resource://more"]})) };
    let asking = |resource, names: &[&str]| ProposedEdge {
        resource,
        ..child(if names.is_empty() { json!({}) } else { json!({"resources": names}) }, "docs:read")
    };
    for (above, asked, fits) in [
        (&by_row, asking(docs(), &[]), true),
        (&by_row, asking(None, &["resource://docs"]), true),
        (&by_row, asking(docs(), &["resource://docs"]), true),
        (&by_row, asking(docs(), &["resource://docs", "resource://more"]), false),
        (&by_row, asking(None, &["resource://docs", "resource://more"]), false),
        (&by_row, asking(None, &[]), false),
        // The same identifier on a re-created row is another resource.
        (&by_row, asking(Some(row("res-9", "resource://docs")), &[]), false),
        (&by_name, asking(docs(), &[]), true),
        (&by_name, asking(None, &["resource://more"]), true),
        (&by_name, asking(docs(), &["resource://other"]), false),
        (&by_name, asking(Some(row("res-7", "resource://other")), &[]), false),
        (&by_name, asking(None, &[]), false),
        (&contradictory, asking(docs(), &[]), false),
        (&contradictory, asking(None, &["resource://more"]), false),
        (&broad, asking(None, &[]), true),
        (&broad, asking(docs(), &["resource://other"]), true),
    ] {
        let expected = if fits { Ok(()) } else { Err(WidenedDimension::Resources) };
        assert_eq!(narrow(above, &asked).map(|_| ()), expected, "{above:?} {asked:?}");
    }
}

#[test]
fn a_child_begins_where_its_parent_ends_and_ends_before_it() {
    let above = parent(json!({"max_hops": 2}));
    let asked = child(json!({}), "docs:read");
    let from_elsewhere = ProposedEdge { source: id("s-9"), ..asked.clone() };
    let by_another = ProposedEdge { issuer: id("app-2"), ..asked.clone() };
    let at_its_end = ProposedEdge { expires_at: above.expires_at, ..asked.clone() };
    let longer = ProposedEdge { expires_at: Timestamp::from_micros(above.expires_at.as_micros() + 1), ..asked.clone() };
    assert_eq!(narrow(&above, &from_elsewhere), Err(WidenedDimension::Origin));
    assert_eq!(narrow(&above, &by_another), Err(WidenedDimension::Origin));
    assert_eq!(narrow(&above, &longer), Err(WidenedDimension::Expiry));
    assert!(narrow(&above, &at_its_end).is_ok());
    assert_eq!(narrow(&Edge { constraints: None, ..above }, &asked), Err(WidenedDimension::ParentConstraints));
}

#[test]
fn a_new_edge_ends_with_the_earliest_bound_of_its_request() {
    let own = |limits: Value| constraints(limits);
    let date = later(300).to_millis_text();
    let truncated = constraints(json!({"expires_at": date})).expires_at().unwrap();
    for (at, ttl, limits, expected) in [
        (None, None, own(json!({})), None),
        (None, Some(600), own(json!({"ttl_seconds": 500})).with_default_ttl(Some(600)), Some(later(500))),
        (None, Some(400), own(json!({"ttl_seconds": 500})), Some(later(400))),
        (Some(later(60)), Some(400), own(json!({})).with_default_ttl(Some(400)), Some(later(60))),
        (Some(later(600)), Some(400), own(json!({})).with_default_ttl(Some(400)), Some(later(400))),
        (Some(later(600)), None, own(json!({"expires_at": date})), Some(truncated)),
        (Some(later(-5)), None, own(json!({})), Some(later(-5))),
    ] {
        assert_eq!(expiry(now(), at, ttl, &limits), expected);
    }
}

#[test]
fn the_parent_of_a_new_edge_is_live_named_or_the_only_one() {
    let live = edge("e-1", None, "s-1", "s-2");
    let other = edge("e-2", None, "s-0", "s-2");
    let lapsed = Edge { expires_at: now(), ..edge("e-3", None, "s-1", "s-2") };
    let revoked = Edge { status: EdgeStatus::Revoked, ..edge("e-4", None, "s-1", "s-2") };
    let named = |name: &'static str| Some(name);
    for (inbound, name, expected) in [
        (vec![], None, Ok(None)),
        (vec![], named("e-1"), Err(ParentFault::NotActive)),
        (vec![live.clone(), lapsed.clone(), revoked.clone()], None, Ok(Some("e-1"))),
        (vec![live.clone(), other.clone()], None, Err(ParentFault::Ambiguous)),
        (vec![live.clone(), other.clone()], named("e-2"), Ok(Some("e-2"))),
        (vec![live.clone(), other.clone()], named("e-9"), Err(ParentFault::NotActive)),
        // D25: lapsed narrowing does not turn into a root.
        (vec![lapsed.clone()], None, Err(ParentFault::NotActive)),
        (vec![revoked.clone()], named("e-4"), Err(ParentFault::NotActive)),
    ] {
        let name = name.map(id);
        let chosen = choose_parent(&inbound, name.as_ref(), now()).map(|edge| edge.map(|edge| edge.id.to_string()));
        assert_eq!(chosen, expected.map(|edge| edge.map(str::to_owned)));
        let inherited = inherited_edge(&inbound, name.as_ref(), now()).map(|edge| edge.map(|edge| edge.id.to_string()));
        let fault = |fault| match fault {
            ParentFault::NotActive => InheritFault::NotActive,
            ParentFault::Ambiguous => InheritFault::Ambiguous,
        };
        assert_eq!(inherited, chosen.map_err(fault));
    }
    assert_eq!((ParentFault::NotActive.status(), ParentFault::NotActive.code()), (403, "parent_delegation_not_active"));
    assert_eq!((ParentFault::Ambiguous.status(), ParentFault::Ambiguous.code()), (409, "parent_delegation_ambiguous"));
    assert_eq!(InheritFault::NotActive.code(), "inherit_parent_edge_not_active");
    assert_eq!(InheritFault::Ambiguous.code(), "inherit_parent_edge_ambiguous");
}

#[test]
fn effective_authority_is_what_all_live_edges_allow() {
    let first = Edge {
        scopes: scopes("write read"),
        resource: Some(row("res-1", "resource://docs")),
        ..parent(json!({"max_hops": 3, "ttl_seconds": 600}))
    };
    let second = Edge {
        id: id("e-2"),
        scopes: scopes("read"),
        expires_at: later(50),
        ..parent(json!({"max_hops": 2, "ttl_seconds": 300}))
    };
    let unreadable = Edge { id: id("e-3"), constraints: None, scopes: scopes("admin"), ..second.clone() };
    let lapsed = Edge { id: id("e-4"), expires_at: now(), ..first.clone() };
    let held = effective_authority(&[first, second, unreadable.clone(), lapsed], now()).unwrap();
    assert_eq!(held.inbound_edges, ["e-1", "e-2", "e-3"].map(id));
    assert_eq!(Scopes::from_list(held.scopes), scopes("read"));
    assert_eq!((held.max_hops, held.ttl_seconds, held.earliest_expires_at), (Some(2), Some(300), Some(later(50))));
    assert_eq!(held.resource_ids.into_iter().collect::<Vec<_>>(), [id("res-1")]);
    assert_eq!(held.resources.into_iter().collect::<Vec<_>>(), [identifier("resource://docs")]);
    assert!(held.resource_constrained);
    let unknown = effective_authority(&[unreadable], now()).unwrap();
    assert_eq!((unknown.scopes, unknown.max_hops, unknown.earliest_expires_at), (vec![], None, None));
    assert_eq!(effective_authority(&[], now()), None);
}

/// A lineage of `length` narrowed edges over sessions s-1, s-2, …
fn lineage(length: u8) -> Vec<Edge> {
    let edge = |hop: u8| Edge {
        constraints: Some(constraints(json!({"max_hops": length - hop + 1}))),
        ..edge(
            &format!("e-{hop}"),
            (hop > 1).then(|| format!("e-{}", hop - 1)).as_deref(),
            &format!("s-{hop}"),
            &format!("s-{}", hop + 1),
        )
    };
    (1..=length).map(edge).collect()
}

fn walk(edges: &[Edge]) -> Result<(usize, u8), LineageFault> {
    let leaf = edges.last().unwrap();
    walk_between(edges, (leaf.source.as_str(), "app-1"), (leaf.target.as_str(), "app-1"))
}

/// Walks with these sessions, each of its application, at the ends.
fn walk_between(edges: &[Edge], source: (&str, &str), target: (&str, &str)) -> Result<(usize, u8), LineageFault> {
    let facts = |(name, application)| SessionFacts { application: id(application), ..session(name) };
    let (source, target, anchor, zone) = (facts(source), facts(target), record("rec-anchor"), id("z-1"));
    let ends = Ends {
        zone: &zone,
        edge: &edges.last().unwrap().id,
        source: check_live(&source, Some(&anchor), now()).unwrap(),
        target: check_live(&target, Some(&anchor), now()).unwrap(),
    };
    validate_lineage(edges, &ends, now()).map(|lineage| (lineage.hop_count(), lineage.remaining_hops()))
}

mod t02_sts_lineage {
    use super::*;

    #[test]
    fn a_lineage_is_live_rooted_continuous_acyclic_and_narrowing() {
        assert_eq!(walk(&lineage(3)), Ok((3, 0)));
        type Change = fn(&mut Vec<Edge>);
        let rows: [(Change, LineageFault); 13] = [
            (|edges| edges[0].status = EdgeStatus::Revoked, LineageFault::Revoked(id("e-1"))),
            (|edges| edges[1].status = EdgeStatus::Expired, LineageFault::Expired(id("e-2"))),
            (|edges| edges[1].expires_at = now(), LineageFault::Expired(id("e-2"))),
            (|edges| edges[1].constraints = None, LineageFault::ConstraintsUnreadable(id("e-2"))),
            (|edges| drop(edges.remove(0)), LineageFault::Unrooted),
            (|edges| drop(edges.remove(1)), LineageFault::Discontinuous(id("e-3"))),
            (|edges| edges[1].parent = Some(id("e-9")), LineageFault::Discontinuous(id("e-2"))),
            (|edges| edges[0].receiver = id("app-2"), LineageFault::Discontinuous(id("e-2"))),
            (|edges| edges[0].target = id("s-9"), LineageFault::Discontinuous(id("e-2"))),
            (|edges| edges[0].zone = id("z-2"), LineageFault::Discontinuous(id("e-2"))),
            (|edges| edges[0].source = id("s-4"), LineageFault::Cycle),
            (
                |edges| edges[0].scopes = scopes("docs:read"),
                LineageFault::Widened { edge: id("e-2"), dimension: WidenedDimension::Scopes },
            ),
            (
                |edges| edges[0].expires_at = later(10),
                LineageFault::Widened { edge: id("e-2"), dimension: WidenedDimension::Expiry },
            ),
        ];
        for (change, expected) in rows {
            let mut edges = lineage(3);
            change(&mut edges);
            assert_eq!(walk(&edges), Err(expected));
        }
        assert_eq!(walk(&[Edge { zone: id("z-2"), ..edge("e-1", None, "s-1", "s-2") }]), Err(LineageFault::Unknown));
    }

    #[test]
    fn a_lineage_ends_between_the_sessions_and_applications_it_names() {
        for (source, target, expected) in [
            (("s-3", "app-1"), ("s-4", "app-1"), Ok((3, 0))),
            (("s-1", "app-1"), ("s-4", "app-1"), Err(LineageFault::OtherSessions)),
            (("s-3", "app-1"), ("s-3", "app-1"), Err(LineageFault::OtherSessions)),
            (("s-3", "app-2"), ("s-4", "app-1"), Err(LineageFault::OtherApplications)),
            (("s-3", "app-1"), ("s-4", "app-2"), Err(LineageFault::OtherApplications)),
        ] {
            assert_eq!(walk_between(&lineage(3), source, target), expected, "{source:?} {target:?}");
        }
    }

    #[test]
    fn ten_hops_are_the_most() {
        assert_eq!(walk(&lineage(10)), Ok((10, 0)));
        let mut eleven = lineage(10);
        let mirrored = mirror(eleven.last().unwrap(), &id("s-12")).unwrap();
        eleven.push(stored("e-11", &mirrored));
        assert_eq!(walk(&eleven), Err(LineageFault::TooLong));
    }

    #[test]
    fn mirrors_consume_no_hop_and_narrowed_edges_do() {
        let root = parent(json!({"max_hops": 2}));
        let first = stored("e-2", &mirror(&root, &id("s-3")).unwrap());
        let second = stored("e-3", &mirror(&first, &id("s-4")).unwrap());
        let edges = [root, first, second];
        assert_eq!(walk(&edges), Ok((3, 1)));
        let below = ProposedEdge { source: id("s-4"), target: id("s-5"), ..child(json!({}), "docs:read") };
        let fourth = stored("e-4", &narrow(&edges[2], &below).unwrap());
        let further = ProposedEdge { source: id("s-5"), target: id("s-6"), ..child(json!({}), "docs:read") };
        assert_eq!(narrow(&fourth, &further), Err(WidenedDimension::Hops));
        assert_eq!(walk(&[edges.to_vec(), vec![fourth]].concat()), Ok((4, 0)));
    }

    #[test]
    fn a_constraint_date_ends_the_whole_lineage() {
        let mut edges = lineage(2);
        let past = json!({"max_hops": 2, "expires_at": later(-1).to_millis_text()});
        edges[0].constraints = Some(constraints(past));
        assert_eq!(walk(&edges), Err(LineageFault::Expired(id("e-2"))));
    }
}

#[test]
fn an_edge_leaves_active_once() {
    assert_eq!(EdgeStatus::Active.revoke(), Ok(EdgeStatus::Revoked));
    assert_eq!(EdgeStatus::Active.expire(), Ok(EdgeStatus::Expired));
    for over in [EdgeStatus::Revoked, EdgeStatus::Expired] {
        assert!(over.revoke().is_err() && over.expire().is_err());
        assert_eq!(EdgeStatus::parse(over.as_str()), Some(over));
    }
    assert_eq!(EdgeStatus::parse(""), None);
    assert_eq!(Constraints::none().hops(), 1);
}
