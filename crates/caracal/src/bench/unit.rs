//! What is called over and over: one caller with a session of its own, and the requests that make up one call.

use std::cell::Cell;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use serde_json::json;

use super::floor::Floor;
use super::proxy;
use crate::actors::agent::{Agent, Session};
use crate::actors::client::{Answer, HttpClient};
use crate::actors::operator::{Operator, Provisioned};
use crate::commands::Failure;
use crate::system::Urls;
use caracal_crypto::SecretText;
use caracal_crypto::hmac::HmacKey;

/// Rows that a search is to find.
const FOUND: usize = 50;

/// One mandate in so many is shown twice, where that is asked for.
const SHOWN_AGAIN: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A mandate, then a call through the Gateway with it.
    Governed,
    /// The mandate alone.
    Mint,
    /// The Coordinator says whether a mandate is genuine.
    Verify,
    /// A session is started and terminated.
    Cycle,
    /// A session lends to another.
    Delegate,
    /// A mandate is refused: one event in the ledger, and nothing else.
    Append,
    /// The applications of a zone are listed through the Admin API.
    List,
    /// The newest fifty allowed calls are searched in the ledger through the Admin API.
    Search,
    /// A provider is made through the Admin API, and read.
    Manage,
    /// A question that is none is refused: what HTTP takes of a mint. Part of `--parts`.
    #[value(skip)]
    Form,
    /// A mandate, then the exchange that a Gateway would ask for. Part of `--parts`.
    #[value(skip)]
    Exchange,
    /// A call through the bare proxy. Part of `--parts`.
    #[value(skip)]
    Passed,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Governed => "governed",
            Self::Mint => "mint",
            Self::Verify => "verify",
            Self::Cycle => "cycle",
            Self::Delegate => "delegate",
            Self::Append => "append",
            Self::List => "list",
            Self::Search => "search",
            Self::Manage => "manage",
            Self::Form => "form",
            Self::Exchange => "exchange",
            Self::Passed => "passed",
        }
    }

    /// Its requests, in order.
    pub(super) fn phases(self) -> &'static [&'static str] {
        match self {
            Self::Governed => &["mint", "call"],
            Self::Cycle => &["start", "terminate"],
            Self::Mint => &["mint"],
            Self::Verify => &["verify"],
            Self::Delegate => &["delegate"],
            Self::Append => &["append"],
            Self::List => &["list"],
            Self::Search => &["search"],
            Self::Manage => &["create", "read"],
            Self::Form => &["form"],
            Self::Exchange => &["mint", "exchange"],
            Self::Passed => &["passed"],
        }
    }

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Governed => "governed calls: a mandate, then a call through the Gateway",
            Self::Mint => "mandates",
            Self::Verify => "verifications by the Coordinator",
            Self::Cycle => "sessions started and terminated",
            Self::Delegate => "delegations",
            Self::Append => "mandates refused: an event in the ledger each",
            Self::List => "lists of applications",
            Self::Search => "searches in the ledger",
            Self::Manage => "management: a provider made, then read",
            Self::Form => "forms that ask for nothing",
            Self::Exchange => "exchanges: a mandate, then its final authority",
            Self::Passed => "calls through a bare proxy",
        }
    }

    /// What of it can't be saved, in microseconds, with a commit at `commit_us`. Nothing for what only reads, which has
    /// no cryptography and no sync to be held against.
    pub(super) fn floor_us(self, floor: &Floor, commit_us: f64) -> Option<f64> {
        let decision_us = floor.decision_ns / 1_000.0;
        Some(match self {
            // The mandate and the final one are signed, the one shown is verified twice, at the Gateway and at the
            // exchange, both are decided, and each is one commit.
            Self::Governed => 2.0 * (floor.sign_us + floor.verify_us + decision_us + commit_us),
            Self::Mint => floor.sign_us + decision_us + commit_us,
            Self::Verify => floor.verify_us,
            Self::Cycle => 2.0 * (floor.verify_us + commit_us),
            Self::Delegate => floor.verify_us + commit_us,
            Self::Append => decision_us + commit_us,
            Self::Manage => commit_us,
            Self::List | Self::Search | Self::Form | Self::Exchange | Self::Passed => return None,
        })
    }
}

/// Where and as whom to call.
#[derive(Clone, Copy)]
pub(super) struct Calls<'b> {
    pub(super) urls: &'b Urls,
    pub(super) at: &'b Provisioned,
    pub(super) admin_token: &'b SecretText,
    /// Where a proxy that decides nothing passes on to the same API; there is none unless parts are measured.
    pub(super) proxy: Option<&'b str>,
    /// What a Gateway signs with; there is none unless parts are measured.
    pub(super) gateway_key: Option<&'b HmacKey>,
}

/// What was not answered as it should be.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) kind: Kind,
    pub(super) told: String,
}

/// How it was answered instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 503 with `Retry-After`: the system says that it is too busy, and when to come again.
    Shed,
    /// Something was granted that must not be.
    Violation,
    Other,
}

impl From<Failure> for Wrong {
    fn from(Failure(told): Failure) -> Self {
        Self { kind: Kind::Other, told }
    }
}

/// How long each request of a call took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Took([Duration; 2]);

impl Took {
    pub(super) fn of(self, phase: usize) -> Duration {
        self.0.get(phase).copied().unwrap_or_default()
    }
}

/// One caller.
pub(super) struct Caller<'c> {
    what: What,
    client: &'c HttpClient,
    agent: Agent<'c>,
    operator: Operator<'c>,
    zone: &'c str,
    proxy: &'c str,
    gateway_key: Option<&'c HmacKey>,
    lead: Session,
    session: Session,
    /// Calls through the Gateway so far, if some mandates are to be shown twice.
    replays: Option<Cell<usize>>,
    /// Objects made so far: each has a name of its own.
    made: Cell<usize>,
}

impl<'c> Caller<'c> {
    /// With a session that a lead has lent to.
    pub(super) async fn prepare(
        what: What,
        client: &'c HttpClient,
        calls: &Calls<'c>,
        replays: bool,
    ) -> Result<Self, Failure> {
        let agent = Agent::bootstrap(client, calls.urls, calls.at).await?;
        let lead = agent.start(None).await?;
        let mut session = agent.start(Some(&lead)).await?;
        let lent = agent.delegate(&lead, &session, &["notes:read"], 1).await?.expect_success("the delegation")?;
        session.edge = Some(lent.text("delegation_edge_id")?);
        let operator = Operator::new(client, &calls.urls.api, calls.admin_token);
        let replays = replays.then(Cell::default);
        let (proxy, gateway_key) = (calls.proxy.unwrap_or_default(), calls.gateway_key);
        let caller = Self {
            what,
            client,
            agent,
            operator,
            zone: &calls.at.zone,
            proxy,
            gateway_key,
            lead,
            session,
            replays,
            made: Cell::default(),
        };
        if what == What::Search {
            for _ in 0..FOUND {
                caller.agent.mint(&caller.session, "notes:read").await?.expect_success("the mint")?;
            }
        }
        Ok(caller)
    }

    /// One call.
    pub(super) async fn once(&self) -> Result<Took, Wrong> {
        let begun = Instant::now();
        let first = self.first().await?;
        let took = begun.elapsed();
        let begun = Instant::now();
        match self.what {
            What::Governed => {
                let mandate = first.text("access_token")?;
                answered(self.agent.call(&mandate, Method::GET, "/notes").await?, "the call", StatusCode::OK)?;
                let took = Took([took, begun.elapsed()]);
                self.show_again(&mandate).await?;
                return Ok(took);
            }
            What::Exchange => {
                let mandate = first.text("access_token")?;
                let key = self.gateway_key.ok_or_else(|| Failure("there is no key of a Gateway".to_owned()))?;
                answered(self.agent.exchange_as_gateway(&mandate, key).await?, "the exchange", StatusCode::OK)?;
            }
            What::Cycle => {
                let started = Session { id: first.text("agent_session_id")?, edge: None };
                answered(self.agent.terminate(&started).await?, "terminating", StatusCode::NO_CONTENT)?;
            }
            What::Manage => {
                let path = self.path(&format!("providers/{}", first.text("id")?));
                answered(self.operator.call(Method::GET, &path, None).await?, "the read", StatusCode::OK)?;
            }
            _ => return Ok(Took([took, Duration::ZERO])),
        }
        Ok(Took([took, begun.elapsed()]))
    }

    /// Shows a used mandate again, now and then: however busy the Gateway is, it must not let it pass.
    async fn show_again(&self, mandate: &str) -> Result<(), Wrong> {
        let Some(calls) = &self.replays else { return Ok(()) };
        calls.set(calls.get() + 1);
        if calls.get() % SHOWN_AGAIN == 0 && self.agent.call(mandate, Method::GET, "/notes").await?.status.is_success()
        {
            let told = "a used mandate was let through again".to_owned();
            return Err(Wrong { kind: Kind::Violation, told });
        }
        Ok(())
    }

    /// Of the zone, in the Admin API.
    fn path(&self, rest: &str) -> String {
        format!("/v1/zones/{}/{rest}", self.zone)
    }

    async fn first(&self) -> Result<Answer, Wrong> {
        let (answer, what, status) = match self.what {
            What::Governed | What::Mint | What::Exchange => {
                (self.agent.mint(&self.session, "notes:read").await?, "the mint", StatusCode::OK)
            }
            What::Append => {
                (self.agent.mint(&self.session, "notes:delete").await?, "what is not lent", StatusCode::FORBIDDEN)
            }
            What::Form => (self.agent.ask_nothing(&self.session).await?, "the form", StatusCode::BAD_REQUEST),
            What::Passed => (proxy::call(self.client, self.proxy).await?, "the call through the proxy", StatusCode::OK),
            What::Verify => (self.agent.verify_own().await?, "the verification", StatusCode::OK),
            What::Cycle => (self.agent.ask_to_start(None).await?, "the start", StatusCode::CREATED),
            What::Delegate => {
                let asked = self.agent.delegate(&self.lead, &self.session, &["notes:read"], 1).await?;
                (asked, "the delegation", StatusCode::CREATED)
            }
            What::List => {
                (self.operator.call(Method::GET, &self.path("applications"), None).await?, "the list", StatusCode::OK)
            }
            What::Search => {
                let path = self.path(&format!("audit?decision=allow&limit={FOUND}"));
                (self.operator.call(Method::GET, &path, None).await?, "the search", StatusCode::OK)
            }
            What::Manage => {
                self.made.set(self.made.get() + 1);
                let identifier = format!("provider://{}-{}", self.session.id, self.made.get());
                let body = json!({"identifier": identifier, "kind": "none"});
                let asked = self.operator.call(Method::POST, &self.path("providers"), Some(&body)).await?;
                (asked, "the change", StatusCode::CREATED)
            }
        };
        answered(answer, what, status)
    }
}

fn answered(answer: Answer, what: &str, wanted: StatusCode) -> Result<Answer, Wrong> {
    if answer.status == wanted {
        return Ok(answer);
    }
    let is_shed = answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.headers.contains_key(RETRY_AFTER);
    let kind = if is_shed { Kind::Shed } else { Kind::Other };
    Err(Wrong { kind, told: format!("{what} was answered {} {}", answer.status, answer.reason()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, retry_after: Option<&str>) -> Answer {
        let mut headers = http::HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.parse().unwrap());
        }
        Answer { status, headers, body: bytes::Bytes::from_static(br#"{"error":"sts_unavailable"}"#) }
    }

    #[test]
    fn only_503_with_retry_after_is_shed() {
        for (status, retry_after, is_shed) in [
            (StatusCode::SERVICE_UNAVAILABLE, Some("1"), true),
            (StatusCode::SERVICE_UNAVAILABLE, None, false),
            (StatusCode::TOO_MANY_REQUESTS, Some("1"), false),
            (StatusCode::FORBIDDEN, None, false),
        ] {
            let wrong = answered(answer(status, retry_after), "the mint", StatusCode::OK).err().unwrap();
            assert_eq!(wrong.kind, if is_shed { Kind::Shed } else { Kind::Other }, "{status}");
            assert!(wrong.told.contains(status.as_str()) && wrong.told.contains("sts_unavailable"), "{}", wrong.told);
        }
        // What is wanted is a matter of the unit: a refusal can be the right answer.
        assert!(answered(answer(StatusCode::FORBIDDEN, None), "what is not lent", StatusCode::FORBIDDEN).is_ok());
    }
}
