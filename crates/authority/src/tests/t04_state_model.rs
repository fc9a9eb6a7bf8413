//! A zone lives: sessions start, lend, are suspended, resumed, ended and revoked in any order, and after every step nothing
//! is alive that hangs on something dead, and nothing fell without a reason (contract: coordinator.md §9, §17).
//!
//! What falls is compared with what an outsider computes: rules applied one at a time until none applies any more, with none
//! of the algebra's code. `CARACAL_MODEL_STEPS=1000000` runs as many steps; a run in between takes some ten thousand.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::fixtures::id;
use crate::delegation::{Link, Node, closes_cycle, resume, revoke, suspend, terminate};
use crate::session::{SessionStatus, TerminationReason};
use crate::{AgentSessionId, EdgeId};

use SessionStatus::{Active, Suspended};

const STEPS_IN_A_LIFE: usize = 80;
const STEPS: usize = 24_000;

#[derive(Debug, Clone)]
enum Step {
    Start(Option<Index>),
    Delegate(Index, Index, Index),
    Suspend(Index),
    Resume(Index),
    End(Vec<Index>),
    Revoke(Vec<Index>),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        6 => prop::option::weighted(0.7, index()).prop_map(Step::Start),
        8 => (index(), index(), index()).prop_map(|(source, target, parent)| Step::Delegate(source, target, parent)),
        2 => index().prop_map(Step::Suspend),
        2 => index().prop_map(Step::Resume),
        1 => prop::collection::vec(index(), 1..3).prop_map(Step::End),
        1 => prop::collection::vec(index(), 1..3).prop_map(Step::Revoke),
    ]
}

#[derive(Default)]
struct Zone {
    nodes: Vec<Node>,
    links: Vec<(Link, bool)>,
}

/// What a step is to change.
#[derive(Debug, PartialEq, Eq, Default)]
struct Fall {
    sessions: BTreeSet<AgentSessionId>,
    edges: BTreeSet<EdgeId>,
}

impl Zone {
    fn live(&self) -> Vec<Link> {
        self.links.iter().filter(|(_, live)| *live).map(|(link, _)| link.clone()).collect()
    }

    fn status(&self, session: &AgentSessionId) -> SessionStatus {
        self.nodes.iter().find(|node| node.session == *session).unwrap().status
    }

    fn set(&mut self, session: &AgentSessionId, status: SessionStatus) {
        self.nodes.iter_mut().find(|node| node.session == *session).unwrap().status = status;
    }

    /// Everything that has to fall, one rule at a time until none applies.
    fn expected(&self, mut fall: Fall, revoked: &BTreeSet<EdgeId>) -> Fall {
        let mut downstream = revoked.clone();
        loop {
            let before = (fall.sessions.len(), fall.edges.len(), downstream.len());
            for link in self.live() {
                let reached =
                    self.live().iter().any(|above| downstream.contains(&above.edge) && above.target == link.source);
                if reached {
                    downstream.insert(link.edge.clone());
                }
                if downstream.contains(&link.edge) {
                    fall.edges.insert(link.edge.clone());
                    if !self.status(&link.target).is_terminal() {
                        fall.sessions.insert(link.target.clone());
                    }
                }
                let touches = fall.sessions.contains(&link.source) || fall.sessions.contains(&link.target);
                if touches || link.parent.as_ref().is_some_and(|parent| fall.edges.contains(parent)) {
                    fall.edges.insert(link.edge.clone());
                }
            }
            for node in &self.nodes {
                if !node.status.is_terminal() && node.parent.as_ref().is_some_and(|up| fall.sessions.contains(up)) {
                    fall.sessions.insert(node.session.clone());
                }
            }
            if before == (fall.sessions.len(), fall.edges.len(), downstream.len()) {
                return fall;
            }
        }
    }

    fn apply(&mut self, cascade: &crate::delegation::Cascade) -> Fall {
        for ended in &cascade.sessions {
            self.set(&ended.session, ended.reason.final_status());
        }
        for (link, live) in &mut self.links {
            *live &= !cascade.edges.contains(&link.edge);
        }
        let sessions = cascade.sessions.iter().map(|ended| ended.session.clone()).collect();
        Fall { sessions, edges: cascade.edges.clone() }
    }

    fn take(&mut self, step: &Step) {
        let pick = |index: &Index| self.nodes.get(index.index(self.nodes.len().max(1))).cloned();
        match step {
            Step::Start(parent) => {
                let parent = parent.as_ref().and_then(pick).filter(|parent| parent.status == Active);
                let session = id(&format!("s-{}", self.nodes.len()));
                self.nodes.push(Node { session, parent: parent.map(|parent| parent.session), status: Active });
            }
            Step::Delegate(source, target, parent) => {
                let (Some(source), Some(target)) = (pick(source), pick(target)) else { return };
                let live = self.live();
                let can = source.status == Active && target.status == Active;
                if !can || closes_cycle(&live, &source.session, &target.session) {
                    return;
                }
                let inbound: Vec<&Link> = live.iter().filter(|link| link.target == source.session).collect();
                let parent = (!inbound.is_empty()).then(|| parent.get(&inbound).edge.clone());
                let edge = id(&format!("e-{}", self.links.len()));
                self.links.push((Link { edge, parent, source: source.session, target: target.session }, true));
            }
            Step::Suspend(root) => {
                let Some(root) = pick(root) else { return };
                let before = self.nodes.clone();
                let fell = suspend(&root.session, &self.nodes);
                assert_eq!(fell.is_empty(), root.status != Active);
                fell.iter().for_each(|session| self.set(session, Suspended));
                // Taken back at once, it restores exactly what was there, and no other session has moved.
                let mut restored = self.nodes.clone();
                let back: BTreeSet<AgentSessionId> = resume(&root.session, &self.nodes).into_iter().collect();
                if root.status == Active {
                    assert!(fell.iter().all(|session| back.contains(session)));
                }
                restored.iter_mut().filter(|node| fell.contains(&node.session)).for_each(|node| node.status = Active);
                assert_eq!(restored, before);
            }
            Step::Resume(root) => {
                let Some(root) = pick(root) else { return };
                let woken = resume(&root.session, &self.nodes);
                assert_eq!(woken.is_empty(), root.status != Suspended);
                for session in woken {
                    assert_eq!(self.status(&session), Suspended);
                    self.set(&session, Active);
                }
            }
            Step::End(roots) => {
                let roots: Vec<AgentSessionId> = roots.iter().filter_map(pick).map(|node| node.session).collect();
                let running = roots.iter().filter(|root| !self.status(root).is_terminal()).cloned().collect();
                let expected = self.expected(Fall { sessions: running, edges: BTreeSet::new() }, &BTreeSet::new());
                let cascade = terminate(&roots, &TerminationReason::Ttl, &self.nodes, &self.live());
                assert_eq!(self.apply(&cascade), expected);
            }
            Step::Revoke(edges) => {
                let live = self.live();
                let edges: Vec<EdgeId> = edges
                    .iter()
                    .filter_map(|index| live.get(index.index(live.len().max(1))))
                    .map(|link| link.edge.clone())
                    .collect();
                let expected = self.expected(Fall::default(), &edges.iter().cloned().collect());
                let cascade = revoke(&edges, &TerminationReason::DelegationRevoked, &self.nodes, &live);
                assert_eq!(self.apply(&cascade), expected);
            }
        }
    }

    fn check(&self) {
        for node in &self.nodes {
            let orphan = node.parent.as_ref().is_some_and(|parent| self.status(parent).is_terminal());
            assert!(!orphan || node.status.is_terminal(), "{node:?} outlives its parent");
        }
        for link in self.live() {
            assert!(!self.status(&link.source).is_terminal() && !self.status(&link.target).is_terminal(), "{link:?}");
            let mut above = link.parent.clone();
            while let Some(parent) = above {
                let (up, live) = self.links.iter().find(|(link, _)| link.edge == parent).unwrap();
                assert!(live, "{link:?} lives under {up:?}, which does not");
                above = up.parent.clone();
            }
        }
    }
}

#[test]
fn nothing_lives_under_what_was_ended_and_no_bystander_falls() {
    let steps = std::env::var("CARACAL_MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(STEPS);
    let cases = u32::try_from(steps / STEPS_IN_A_LIFE).unwrap_or(u32::MAX).max(1);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let life = prop::collection::vec(step(), STEPS_IN_A_LIFE);
    let lived = runner.run(&life, |steps| {
        let mut zone = Zone::default();
        for step in &steps {
            zone.take(step);
            zone.check();
        }
        Ok(())
    });
    lived.unwrap();
}
