//! What falls in the store is what falls by the algebra, for graphs of any shape: the part of a zone that a cascade gathers
//! is never too small.

use std::collections::{BTreeMap, BTreeSet};

use caracal_authority::delegation::{Cascade, Link, Node, revoke, terminate};
use caracal_authority::session::{SessionStatus, TerminationReason};
use caracal_authority::{AgentSessionId, EdgeId};

use crate::support::{House, OPERATOR};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Sessions and edges of a zone, as the algebra sees all of them.
struct Zone {
    nodes: Vec<Node>,
    links: Vec<Link>,
}

fn session(number: u64) -> AgentSessionId {
    AgentSessionId::parse(&format!("s-{number}")).unwrap()
}

fn edge(number: u64) -> EdgeId {
    EdgeId::parse(&format!("e-{number}")).unwrap()
}

/// Trees and graphs that no sequence of requests would build, circles and edges into the past included.
async fn build(house: &House, dice: &mut Dice) -> Zone {
    let (sessions, edges) = (3 + dice.roll(8), dice.roll(16));
    let mut zone = Zone { nodes: Vec::new(), links: Vec::new() };
    for number in 0..sessions {
        let parent = (number > 0 && dice.roll(2) == 0).then(|| session(dice.roll(number)));
        let status = ["active", "active", "active", "suspended", "terminated"][usize::try_from(dice.roll(5)).unwrap()];
        house
            .add_session(&format!("s-{number}"), |row| {
                row.parent_id.clone_from(&parent);
                row.status = status.to_owned();
            })
            .await;
        let status = SessionStatus::parse(status).unwrap();
        zone.nodes.push(Node { session: session(number), parent, status });
    }
    for number in 0..edges {
        let (source, target) = (session(dice.roll(sessions)), session(dice.roll(sessions)));
        let parent = (number > 0 && dice.roll(3) == 0).then(|| edge(dice.roll(number)));
        let active = dice.roll(5) > 0;
        house
            .add_edge(&format!("e-{number}"), source.as_str(), target.as_str(), |row| {
                row.parent_edge_id.clone_from(&parent);
                row.status = if active { "active" } else { "revoked" }.to_owned();
            })
            .await;
        if active {
            zone.links.push(Link { edge: edge(number), parent, source, target });
        }
    }
    zone
}

async fn states(house: &House, zone: &Zone) -> (BTreeMap<AgentSessionId, String>, BTreeSet<EdgeId>) {
    let mut sessions = BTreeMap::new();
    for node in &zone.nodes {
        let row = house.session(node.session.as_str()).await;
        sessions.insert(node.session.clone(), row.termination_reason.unwrap_or(row.status));
    }
    let mut revoked = BTreeSet::new();
    for link in &zone.links {
        if house.edge_row(link.edge.as_str()).await.status == "revoked" {
            revoked.insert(link.edge.clone());
        }
    }
    (sessions, revoked)
}

async fn check(house: &House, zone: &Zone, expected: &Cascade, seed: u64) {
    let (sessions, revoked) = states(house, zone).await;
    assert_eq!(revoked, expected.edges, "seed {seed}");
    for node in &zone.nodes {
        let ended = expected.sessions.iter().find(|ended| ended.session == node.session);
        let state = ended.map_or(node.status.as_str(), |ended| ended.reason.as_str());
        assert_eq!(sessions[&node.session], state, "seed {seed}, {}", node.session);
    }
}

#[tokio::test]
async fn ending_a_session_of_any_graph_ends_what_the_algebra_says() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let house = House::open().await;
        let zone = build(&house, &mut dice).await;
        let root = &zone.nodes[usize::try_from(dice.roll(u64::try_from(zone.nodes.len()).unwrap())).unwrap()];
        let reason = TerminationReason::Asked("requested".to_owned());
        let expected = terminate(std::slice::from_ref(&root.session), &reason, &zone.nodes, &zone.links);
        let status = if root.status.is_terminal() { 404 } else { 204 };
        house.terminate(OPERATOR, root.session.as_str()).await.expect(status);
        check(&house, &zone, &expected, seed).await;
    }
}

#[tokio::test]
async fn revoking_an_edge_of_any_graph_ends_what_the_algebra_says() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let house = House::open().await;
        let zone = build(&house, &mut dice).await;
        let Some(link) = zone.links.first() else { continue };
        let expected =
            revoke(std::slice::from_ref(&link.edge), &TerminationReason::DelegationRevoked, &zone.nodes, &zone.links);
        let reply = house.revoke(OPERATOR, link.edge.as_str()).await.expect(200);
        assert_eq!(reply.body["revoked_edges"], expected.edges.len(), "seed {seed}");
        assert_eq!(reply.body["terminated_sessions"], expected.sessions.len(), "seed {seed}");
        check(&house, &zone, &expected, seed).await;
    }
}
