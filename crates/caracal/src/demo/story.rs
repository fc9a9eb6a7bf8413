//! The story, in the order it is told.

use http::{Method, StatusCode};
use serde_json::Value;

use super::report::{Report, Step};
use crate::actors::agent::{Agent, Session};
use crate::actors::client::HttpClient;
use crate::actors::operator::{Operator, Provisioned};
use crate::actors::upstream::{KEY_HEADER, Upstream};
use crate::commands::Failure;
use crate::system::System;

/// The upstream's real credential. It is made up here and only here: the agent's part never gets to see it.
const UPSTREAM_KEY: &str = "nk_live_51f0c2d7a9e84b63";

/// What later steps refer to.
pub(super) struct Cast {
    pub(super) zone: String,
    /// The allowed call, whose evidence is tampered with at the end.
    pub(super) allowed_request: String,
}

/// Tells everything that needs the running system.
pub(super) async fn tell(system: &System, report: &mut Report) -> Result<Cast, Failure> {
    let client = HttpClient::new();
    let upstream = Upstream::start(UPSTREAM_KEY, true).await?;
    let operator = Operator::new(&client, &system.urls().api, system.admin_token());
    let provisioned = provision(&operator, &upstream, report).await?;
    let agent = Agent::bootstrap(&client, system.urls(), &provisioned).await?;
    let (worker, edge) = begin(&agent, report).await?;
    let told = Telling { agent: &agent, upstream: &upstream, provisioned: &provisioned };
    let (mandate, allowed_request) = told.allowed_call(&worker, report).await?;
    let denied_request = told.out_of_scope(&worker, report).await?;
    told.replay(&mandate, report).await?;
    let child = told.narrowed_child(&worker, report).await?;
    told.revocation(&worker, &child, &edge, report).await?;
    trace(&operator, &provisioned.zone, &denied_request, report).await?;
    Ok(Cast { zone: provisioned.zone.clone(), allowed_request })
}

async fn provision(operator: &Operator<'_>, upstream: &Upstream, report: &mut Report) -> Result<Provisioned, Failure> {
    let provisioned = operator.provision("Demo", upstream, UPSTREAM_KEY).await?;
    let mut step = Step::new("provision", "The operator provisions a zone through the Admin API");
    step.see(
        format!(
            "an application, a resource at {}, its sealed API key, and a policy, in {} calls",
            upstream.url, provisioned.calls
        ),
        true,
    );
    step.see("the policy lets assistants read and write notes; nobody may delete any", true);
    report.add(step);
    Ok(provisioned)
}

/// Starts the agent's sessions and lends the worker what it may use.
async fn begin(agent: &Agent<'_>, report: &mut Report) -> Result<(Session, String), Failure> {
    let lead = agent.start(None).await?;
    let mut worker = agent.start(Some(&lead)).await?;
    let lent = agent.delegate(&lead, &worker, &["notes:read", "notes:write"], 3).await?;
    let mut step = Step::new("delegate", "The agent starts a worker session and lends it reading and writing");
    step.answered(&lent);
    let lent = lent.expect_success("the delegation")?;
    let edge = lent.text("delegation_edge_id")?;
    worker.edge = Some(edge.clone());
    step.see("the worker holds a delegation for 10 minutes, and no credential", true);
    report.add(step);
    Ok((worker, edge))
}

struct Telling<'t> {
    agent: &'t Agent<'t>,
    upstream: &'t Upstream,
    provisioned: &'t Provisioned,
}

impl Telling<'_> {
    async fn allowed_call(&self, worker: &Session, report: &mut Report) -> Result<(String, String), Failure> {
        let mint = self.agent.mint(worker, "notes:read").await?.expect_success("the mint")?;
        let mandate = mint.text("access_token")?;
        let answer = self.agent.call(&mandate, Method::GET, "/notes").await?;
        let received = self.upstream.received();
        let last = received.last();
        let mut step = Step::new("allowed_call", "An allowed call: GET /notes with a one-shot mandate");
        step.answered(&answer);
        step.see("the upstream answered, and the answer reached the agent", answer.status == StatusCode::OK);
        let injected = last.and_then(|request| request.header(KEY_HEADER)) == Some(UPSTREAM_KEY);
        step.see("the upstream received its real API key, injected by the Gateway", injected);
        let seen_by_agent = [&self.provisioned.client_secret, &mandate].iter().any(|text| text.contains(UPSTREAM_KEY))
            || String::from_utf8_lossy(&answer.body).contains(UPSTREAM_KEY);
        step.see("the agent never had that key", !seen_by_agent);
        step.see("the mandate never reached the upstream", !received.iter().any(|request| request.contains(&mandate)));
        let operation = last.map(|request| format!("{} {}", request.method, request.target)).unwrap_or_default();
        step.see(format!("what was authorised is what arrived: {operation}"), operation == "GET /notes");
        let request = answer.request_id();
        report.add(step);
        Ok((mandate, request))
    }

    async fn out_of_scope(&self, worker: &Session, report: &mut Report) -> Result<String, Failure> {
        let before = self.upstream.received().len();
        let denied = self.agent.mint(worker, "notes:delete").await?;
        let mut step = Step::new("out_of_scope", "An out-of-scope mint is denied: notes:delete was never lent");
        step.answered(&denied);
        step.see("the STS refused before anything happened", denied.status == StatusCode::FORBIDDEN);
        step.see("the upstream saw nothing of it", self.upstream.received().len() == before);
        let request = denied.request_id();
        report.add(step);
        Ok(request)
    }

    async fn replay(&self, mandate: &str, report: &mut Report) -> Result<(), Failure> {
        let before = self.upstream.received().len();
        let refused = self.agent.call(mandate, Method::GET, "/notes").await?;
        let mut step = Step::new("replay", "A replayed mandate is refused: each works once");
        step.answered(&refused);
        step.see("the Gateway refused the mandate of the allowed call", refused.status == StatusCode::UNAUTHORIZED);
        step.see("the upstream saw nothing of it", self.upstream.received().len() == before);
        report.add(step);
        Ok(())
    }

    async fn narrowed_child(&self, worker: &Session, report: &mut Report) -> Result<Session, Failure> {
        let mut child = self.agent.start(Some(worker)).await?;
        let lent = self.agent.delegate(worker, &child, &["notes:read"], 2).await?.expect_success("the narrowing")?;
        child.edge = Some(lent.text("delegation_edge_id")?);
        let mut step = Step::new("narrowed_child", "A narrowed child may do less, and cannot widen itself");
        let mint = self.agent.mint(&child, "notes:read").await?.expect_success("the child's mint")?;
        let read = self.agent.call(&mint.text("access_token")?, Method::GET, "/notes").await?;
        step.see("the child reads notes, as it was lent to", read.status == StatusCode::OK);
        let write = self.agent.mint(&child, "notes:write").await?;
        step.see("the child can't write, although its parent can", write.status == StatusCode::FORBIDDEN);
        let parent_writes = self.agent.mint(worker, "notes:write").await?;
        step.see("the parent still can", parent_writes.status == StatusCode::OK);
        let accomplice = self.agent.start(Some(&child)).await?;
        let widened = self.agent.delegate(&child, &accomplice, &["notes:read", "notes:write"], 1).await?;
        step.answered(&widened);
        step.see("lending on more than it holds is refused", widened.status == StatusCode::FORBIDDEN);
        report.add(step);
        Ok(child)
    }

    async fn revocation(
        &self,
        worker: &Session,
        child: &Session,
        edge: &str,
        report: &mut Report,
    ) -> Result<(), Failure> {
        // Both hold a fresh, unused mandate when the delegation is taken back.
        let of_worker =
            self.agent.mint(worker, "notes:read").await?.expect_success("the mint")?.text("access_token")?;
        let of_child = self.agent.mint(child, "notes:read").await?.expect_success("the mint")?.text("access_token")?;
        let before = self.upstream.received().len();
        let revoked = self.agent.revoke(edge).await?;
        let mut step = Step::new("revocation", "One revocation, and parent and child are refused at once");
        let count = |name: &str| revoked.json().get(name).and_then(Value::as_i64).unwrap_or_default();
        step.see(
            format!("{} delegations and {} sessions ended", count("revoked_edges"), count("terminated_sessions")),
            revoked.status == StatusCode::OK && count("revoked_edges") >= 2,
        );
        let worker_call = self.agent.call(&of_worker, Method::GET, "/notes").await?;
        step.see("the parent's unused mandate is refused", worker_call.status == StatusCode::UNAUTHORIZED);
        let child_call = self.agent.call(&of_child, Method::GET, "/notes").await?;
        step.answered(&child_call);
        step.see("the child's unused mandate is refused", child_call.status == StatusCode::UNAUTHORIZED);
        for (who, session) in [("parent", worker), ("child", child)] {
            let mint = self.agent.mint(session, "notes:read").await?;
            step.see(format!("the {who} gets no new one"), mint.status == StatusCode::FORBIDDEN);
        }
        step.see("the upstream saw nothing of it", self.upstream.received().len() == before);
        report.add(step);
        Ok(())
    }
}

async fn trace(operator: &Operator<'_>, zone: &str, request: &str, report: &mut Report) -> Result<(), Failure> {
    let path = format!("/v1/zones/{zone}/audit/by-request/{request}/explain");
    let answer = operator.call(Method::GET, &path, None).await?;
    let mut step = Step::new("trace", "The decision trace of the denied mint, as the auditor reads it");
    step.answered(&answer);
    step.request_id = Some(request.to_owned());
    let explained = answer.expect_success("the explanation")?.json();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    step.see(
        format!("final decision: {}", text(&explained, "final_decision")),
        text(&explained, "final_decision") == "deny",
    );
    let events = explained.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    for event in &events {
        let metadata = event.get("metadata_json").cloned().unwrap_or_default();
        let scopes = metadata.get("requested_scopes").cloned().unwrap_or_default();
        step.see(
            format!(
                "{} {}: {} for {} by {}",
                text(event, "event_type"),
                text(event, "decision"),
                text(event, "evaluation_status"),
                scopes,
                text(&metadata, "application_name")
            ),
            true,
        );
    }
    step.see(format!("{} event(s) explain it", events.len()), !events.is_empty());
    report.add(step);
    Ok(())
}
