//! Every order in which the steps of several short scripts can come. Each step is one change of the zone, and changes come one
//! after another, so these are all the things that can happen when the scripts run at once (contract: coordinator.md §11). What
//! each step answers is compared with a model of a few lines, and what must always hold is looked at after the last.

use serde_json::{Value, json};

use crate::support::{House, Reply, delegation};

/// What one caller does, and what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    StartUnder,
    Suspend,
    Resume,
    End,
    LendOn,
    Revoke,
    TakeOver,
    Beat,
    Lapse,
}

/// All orders that keep each script's own.
fn interleavings(scripts: &[&[Step]]) -> Vec<Vec<Step>> {
    if scripts.iter().all(|script| script.is_empty()) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, script) in scripts.iter().enumerate() {
        let Some((first, rest)) = script.split_first() else { continue };
        let mut left = scripts.to_vec();
        left[place] = rest;
        all.extend(interleavings(&left).into_iter().map(|order| [&[*first], &order[..]].concat()));
    }
    all
}

/// A session with a delegation to it, from another that only lends; or a service.
struct Stage<'h> {
    house: &'h House,
    token: String,
    root: String,
    lender: String,
    edge: String,
    is_service: bool,
    children: Vec<String>,
    /// What the model knows.
    status: &'static str,
    edge_stands: bool,
    generation: u64,
    lapsed: bool,
}

impl<'h> Stage<'h> {
    async fn of_tasks(house: &'h House) -> Self {
        let (lender, root) = (house.task().await, house.task().await);
        let edge = house.edge(&lender, &root, |body| body["constraints"] = json!({"max_hops": 3})).await;
        Self::set(house, root, lender, edge, false).await
    }

    async fn of_a_service(house: &'h House) -> Self {
        let token = house.mandate("app-1").await;
        let body = json!({"application_id": "app-1", "lifecycle": "service"});
        let root = house.start(&token, body).await.expect(201).text("agent_session_id");
        Self::set(house, root, String::new(), String::new(), true).await
    }

    async fn set(house: &'h House, root: String, lender: String, edge: String, is_service: bool) -> Self {
        let token = house.mandate("app-1").await;
        let (children, status) = (Vec::new(), "active");
        Self {
            house,
            token,
            root,
            lender,
            edge,
            is_service,
            children,
            status,
            edge_stands: true,
            generation: 1,
            lapsed: false,
        }
    }

    async fn act(&self, method: &str, action: &str, body: Option<Value>) -> Reply {
        self.house.call(method, &format!("/zones/z-1/agents/{}{action}", self.root), &self.token, body).await
    }

    /// Takes one step, and says what was answered and what had to be.
    async fn take(&mut self, step: Step) -> (String, String) {
        let is_over = matches!(self.status, "terminated" | "expired");
        let (reply, expected): (Reply, &str) = match step {
            Step::StartUnder => {
                let body = json!({"application_id": "app-1", "parent_id": self.root, "parent_authority": "none"});
                let reply = self.house.start(&self.token, body).await;
                if reply.status == 201 {
                    self.children.push(reply.text("agent_session_id"));
                }
                let starts = self.status == "active" && !self.lapsed;
                (reply, if starts { "201 " } else { "404 parent_not_found" })
            }
            Step::Suspend => {
                let suspends = self.status == "active" && !self.lapsed;
                let reply = self.act("PATCH", "/suspend", None).await;
                if suspends {
                    self.status = "suspended";
                }
                (reply, if suspends { "200 " } else { "409 session_not_found_or_not_active" })
            }
            Step::Resume => {
                let resumes = self.status == "suspended";
                let reply = self.act("PATCH", "/resume", None).await;
                if resumes {
                    (self.status, self.lapsed) = ("active", false);
                }
                (reply, if resumes { "200 " } else { "409 session_not_found_or_not_suspended" })
            }
            Step::End => {
                let body = self.is_service.then(|| json!({"lease_generation": 1}));
                let reply = self.act("DELETE", "", body).await;
                let expected = if self.is_service && self.generation != 1 {
                    "409 session_lease_fenced"
                } else if is_over {
                    "404 session_not_found"
                } else {
                    (self.status, self.edge_stands) = ("terminated", false);
                    "204 "
                };
                (reply, expected)
            }
            Step::LendOn => {
                let target = self.house.task().await;
                let mut body = delegation(&self.root, &target);
                body["ttl_seconds"] = json!(60);
                let reply = self.house.delegate(body).await;
                (reply, if self.status == "active" { "201 " } else { "404 delegation_endpoint_not_found" })
            }
            Step::Revoke => {
                let reply = self.house.revoke(&self.token, &self.edge).await;
                let revokes = self.edge_stands;
                if revokes {
                    (self.status, self.edge_stands) = ("terminated", false);
                }
                (reply, if revokes { "200 " } else { "404 delegation_not_found" })
            }
            Step::TakeOver => {
                let reply = self.act("POST", "/lease", None).await;
                let expected = match self.status {
                    "suspended" => "409 session_suspended",
                    "active" if self.lapsed => {
                        self.status = "suspended";
                        "409 session_lease_expired"
                    }
                    "active" => {
                        self.generation += 1;
                        "200 "
                    }
                    _ => "409 session_not_live",
                };
                (reply, expected)
            }
            Step::Beat => {
                let reply = self.act("POST", "/heartbeat", Some(json!({"lease_generation": 1}))).await;
                let expected = match self.status {
                    "active" | "suspended" if self.generation != 1 => "409 session_lease_fenced",
                    "active" if self.lapsed => {
                        self.status = "suspended";
                        "409 session_lease_expired"
                    }
                    "active" | "suspended" => "200 ",
                    _ => "409 session_not_live",
                };
                (reply, expected)
            }
            Step::Lapse => {
                self.house.clock.advance(120);
                self.token = self.house.mandate("app-1").await;
                self.lapsed |= self.status == "active";
                return (String::new(), String::new());
            }
        };
        let (status, code) = reply.refusal();
        (format!("{status} {code}"), expected.to_owned())
    }

    async fn check(&self, order: &[Step]) {
        let root = self.house.session(&self.root).await;
        assert_eq!(root.status, self.status, "{order:?}");
        for child in &self.children {
            assert_eq!(self.house.session(child).await.status, self.status, "{order:?}: a child is not as its parent");
        }
        if self.is_service {
            assert_eq!(u64::try_from(root.lease_generation).unwrap(), self.generation, "{order:?}");
            return;
        }
        let stands = if self.edge_stands { "active" } else { "revoked" };
        assert_eq!(self.house.edge_row(&self.edge).await.status, stands, "{order:?}");
        assert_eq!(self.house.session(&self.lender).await.status, "active", "{order:?}: a bystander fell");
        let lent = format!("/zones/z-1/delegations/outbound/{}", self.root);
        for edge in self.house.get(&lent, &self.token).await.expect(200).body["items"].as_array().unwrap() {
            assert_eq!(edge["status"], if self.status == "terminated" { "revoked" } else { "active" }, "{order:?}");
        }
    }
}

async fn check(is_service: bool, scripts: &[&[Step]]) -> usize {
    let house = House::open().await;
    let orders = interleavings(scripts);
    for order in &orders {
        let mut stage = if is_service { Stage::of_a_service(&house).await } else { Stage::of_tasks(&house).await };
        for (number, step) in order.iter().enumerate() {
            let (answered, expected) = stage.take(*step).await;
            assert_eq!(answered, expected, "step {number} of {order:?}");
        }
        stage.check(order).await;
    }
    orders.len()
}

#[tokio::test]
async fn starts_under_a_session_that_is_suspended_resumed_and_ended_in_any_order() {
    let (parent, other) = ([Step::Suspend, Step::Resume, Step::End], [Step::StartUnder, Step::StartUnder]);
    assert_eq!(check(false, &[&parent, &other]).await, 10);
    assert_eq!(check(false, &[&[Step::End], &[Step::Suspend, Step::Resume], &[Step::StartUnder]]).await, 12);
}

#[tokio::test]
async fn lends_on_while_its_own_delegation_is_revoked_or_its_session_ends_in_any_order() {
    assert_eq!(check(false, &[&[Step::LendOn, Step::LendOn], &[Step::Revoke], &[Step::End]]).await, 12);
    assert_eq!(check(false, &[&[Step::LendOn], &[Step::Suspend, Step::Resume], &[Step::Revoke]]).await, 12);
}

#[tokio::test]
async fn holds_a_lease_that_is_taken_over_missed_suspended_and_resumed_in_any_order() {
    assert_eq!(check(true, &[&[Step::Beat, Step::End], &[Step::TakeOver, Step::TakeOver]]).await, 6);
    assert_eq!(check(true, &[&[Step::Beat, Step::Beat], &[Step::Lapse], &[Step::Resume]]).await, 12);
    assert_eq!(check(true, &[&[Step::Beat], &[Step::TakeOver], &[Step::Suspend, Step::Resume]]).await, 12);
    assert_eq!(check(true, &[&[Step::Beat, Step::StartUnder], &[Step::Lapse], &[Step::Resume]]).await, 12);
}
