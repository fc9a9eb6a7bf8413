//! Agents that mint and call while something is lost, and an account of what became of each request, taken from three
//! places that know nothing of one another: what the agents were answered, what reached the upstream, and what is in the
//! database.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_testkit::Database;
use http::{Method, StatusCode};

use super::cluster::{Through, until};
use super::{Addressed, Answer, Http, NOTES, Tenant};

/// An upstream that counts how often each numbered call reaches it.
pub(crate) struct CountingUpstream {
    pub(crate) url: String,
    reached: Arc<Mutex<HashMap<String, usize>>>,
}

impl CountingUpstream {
    pub(crate) async fn start() -> Self {
        let reached = Arc::<Mutex<HashMap<String, usize>>>::default();
        let counts = reached.clone();
        let router = axum::Router::new().fallback(move |uri: http::Uri| {
            *counts.lock().unwrap().entry(uri.query().unwrap_or_default().to_owned()).or_insert(0) += 1;
            async { "notes" }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, reached }
    }
}

/// What agents saw.
#[derive(Default)]
struct Seen {
    /// Requests whose mint was answered with a mandate.
    minted: Vec<String>,
    /// Requests whose call was answered by the upstream, by the Gateway they went through.
    called: [Vec<String>; 2],
    /// Ids of the keys that signed mandates, by the STS that minted them.
    kids: [Vec<String>; 2],
    /// Every answer, by what was asked.
    answers: BTreeMap<(&'static str, u16), usize>,
    /// What must not happen.
    wrong: Vec<String>,
}

/// A delegation that agents use, and whether its revocation has been acknowledged.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) session: String,
    pub(crate) edge: String,
    revoked: Arc<AtomicBool>,
}

impl Lent {
    pub(crate) async fn new(tenant: &Tenant, http: &Http, system: &Through) -> Self {
        let (session, edge) = tenant.delegation(http, system).await;
        Self { session, edge, revoked: Arc::default() }
    }

    /// From now on nothing may be granted by it.
    pub(crate) fn is_revoked(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }
}

/// Agents at work, until they are told to stop.
pub(crate) struct Load {
    http: Arc<Http>,
    tenant: Arc<Tenant>,
    upstream: CountingUpstream,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) async fn on(http: &Arc<Http>, tenant: &Arc<Tenant>, upstream: CountingUpstream) -> Self {
        let (http, tenant) = (http.clone(), tenant.clone());
        Self { http, tenant, upstream, seen: Arc::default(), stop: Arc::default(), agents: Vec::new() }
    }

    /// Adds agents that use `lent`: mandates of one STS are shown to its own Gateway first and then to the other one.
    pub(crate) fn add(&mut self, agents: usize, lent: &Lent, systems: &[Through; 2]) {
        for _ in 0..agents {
            let number = self.agents.len();
            let agent = Agent {
                number,
                pair: number % 2,
                http: self.http.clone(),
                tenant: self.tenant.clone(),
                systems: systems.clone(),
                lent: lent.clone(),
                seen: self.seen.clone(),
            };
            let stop = self.stop.clone();
            self.agents.push(tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    agent.round(round).await;
                }
            }));
        }
    }

    fn called(&self, pair: usize) -> usize {
        self.seen.lock().unwrap().called[pair].len()
    }

    /// Waits until `more` further calls have succeeded through the Gateway of `pair`.
    pub(crate) async fn goes_on(&self, pair: usize, more: usize) {
        let before = self.called(pair);
        until(&format!("calls go on through gateway {pair}"), async || self.called(pair) >= before + more).await;
    }

    /// Waits until both STSs sign with `kid`.
    pub(crate) async fn is_signed_with(&self, kid: &str) {
        for sts in 0..2 {
            let signs = async || self.seen.lock().unwrap().kids[sts].last().is_some_and(|last| last == kid);
            until(&format!("sts {sts} signs with the new key"), signs).await;
        }
    }

    /// Ends the agents. Fails if any of them saw what must not happen, or an answer that is not among `expected`.
    pub(crate) async fn stop(mut self, expected: &[u16]) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        for agent in self.agents.drain(..) {
            agent.await.unwrap();
        }
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
        let odd: Vec<_> = seen.answers.iter().filter(|((_, status), _)| !expected.contains(status)).collect();
        assert!(odd.is_empty(), "{odd:?} among {:?}", seen.answers);
        let reached = self.upstream.reached.lock().unwrap().clone();
        Account { seen, reached }
    }
}

struct Agent {
    number: usize,
    pair: usize,
    http: Arc<Http>,
    tenant: Arc<Tenant>,
    systems: [Through; 2],
    lent: Lent,
    seen: Arc<Mutex<Seen>>,
}

impl Agent {
    async fn round(&self, round: usize) {
        let revoked = self.lent.revoked.load(Ordering::SeqCst);
        let asked = (self.lent.session.as_str(), self.lent.edge.as_str());
        let minted = self.tenant.mint(&self.http, &self.systems[self.pair], asked).await;
        self.note("mint", minted.as_ref());
        let Some(minted) = minted.filter(|answer| answer.status == StatusCode::OK) else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            return;
        };
        let mandate = minted.text("access_token");
        {
            let mut seen = self.seen.lock().unwrap();
            seen.minted.push(minted.request_id());
            seen.kids[self.pair].push(kid(&mandate));
            if revoked {
                seen.wrong.push(format!("{} was granted by a revoked delegation", minted.request_id()));
            }
        }
        let mut used = 0;
        for gateway in [self.pair, 1 - self.pair] {
            let revoked = self.lent.revoked.load(Ordering::SeqCst);
            let url = format!("{}/notes?call={}-{round}", self.systems[gateway].url("gateway"), self.number);
            let bearer = format!("Bearer {mandate}");
            let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES)];
            let answer = self.http.send(Method::GET, &url, &headers, "").await;
            self.note(if gateway == self.pair { "call" } else { "call elsewhere" }, answer.as_ref());
            let Some(answer) = answer.filter(|answer| answer.status == StatusCode::OK) else { continue };
            used += 1;
            let mut seen = self.seen.lock().unwrap();
            seen.called[gateway].push(answer.request_id());
            if revoked || used > 1 {
                seen.wrong.push(format!("{} was let through: revoked {revoked}, use {used}", answer.request_id()));
            }
        }
    }

    fn note(&self, what: &'static str, answer: Option<&Answer>) {
        // No answer at all is what a connection that broke gives.
        let status = answer.map_or(0, |answer| answer.status.as_u16());
        *self.seen.lock().unwrap().answers.entry((what, status)).or_insert(0) += 1;
    }
}

/// The id of the key that signed a mandate.
pub(crate) fn kid(mandate: &str) -> String {
    let head = mandate.split('.').next().unwrap();
    let head = caracal_crypto::encoding::from_base64url(head).unwrap();
    let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
    head["kid"].as_str().unwrap().to_owned()
}

/// What was seen, to be compared with what is on record.
pub(crate) struct Account {
    seen: Seen,
    reached: HashMap<String, usize>,
}

impl Account {
    /// Calls and mints that succeeded.
    pub(crate) fn successes(&self) -> (usize, usize) {
        (self.seen.called.iter().map(Vec::len).sum(), self.seen.minted.len())
    }

    /// How often `what` was answered with `status`.
    pub(crate) fn answers(&self, what: &'static str, status: u16) -> usize {
        self.seen.answers.get(&(what, status)).copied().unwrap_or(0)
    }

    /// Every mandate and every call that was granted is on record, each once, and nothing reached the upstream twice or
    /// without being on record.
    pub(crate) async fn is_on_record(&self, database: &Database) {
        let twice: Vec<_> = self.reached.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "a mandate was used more than once: {twice:?}");
        // How a call ended is recorded a moment after its caller has the answer.
        let mut missing = Vec::new();
        until("every answer is on record", async || {
            missing = self.missing(&Recorded::read(database));
            missing.is_empty()
        })
        .await;
        let recorded = Recorded::read(database);
        let doubled: Vec<_> = recorded.0.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "recorded twice: {doubled:?}");
        let exchanged = recorded.0.keys().filter(|(_, what)| what == "gateway_resource_request").count();
        assert!(
            self.reached.len() <= exchanged,
            "{} calls reached the upstream, {exchanged} are on record",
            self.reached.len()
        );
    }

    fn missing(&self, recorded: &Recorded) -> Vec<String> {
        let has = |request: &str, what: &str| recorded.0.contains_key(&(request.to_owned(), what.to_owned()));
        let mints = self.seen.minted.iter().filter(|request| !has(request, "token_exchange"));
        let calls = self.seen.called.iter().flatten();
        let calls =
            calls.filter(|request| !has(request, "token_exchange") || !has(request, "gateway_resource_request"));
        mints.chain(calls).cloned().collect()
    }
}

/// How often each request has an event that allowed something, by kind, as the database says.
struct Recorded(HashMap<(String, String), usize>);

impl Recorded {
    fn read(database: &Database) -> Self {
        let sql = "SELECT request_id, event_type, count(*) FROM audit_events
                   WHERE decision = 'allow' OR event_type = 'gateway_resource_request' GROUP BY 1, 2";
        let said = database.run(sql).unwrap();
        let rows = said.lines().map(|line| {
            let [request, what, count] = line.split('|').collect::<Vec<_>>()[..] else { panic!("not a row: {line}") };
            ((request.to_owned(), what.to_owned()), count.parse().unwrap())
        });
        Self(rows.collect())
    }
}
