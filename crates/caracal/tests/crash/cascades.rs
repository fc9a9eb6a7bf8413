//! A cascade that is cut off by SIGKILL: after the next start all of it happened or nothing did, whoever was told of it was told
//! of exactly that, and nothing alive stands under what fell. On both engines.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use caracal_crypto::SecretText;
use caracal_crypto::hmac::HmacKey;
use caracal_store::{Message, SqliteOptions, Store, SystemClock, outbox};
use caracal_stream::{Consumer, ConsumerOptions, DELEGATIONS, GroupState, REVOCATIONS, Redis, RedisOptions, Streams};
use caracal_testkit::Database;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::cluster::{Deployment, Through, until};
use crate::support::{Addressed, Http, NOTES, Running, Tenant, caracal, run, upstream};

const LIFECYCLE: &str = "caracal.agents.lifecycle";
/// When a cascade is cut off, in percent of the time that a whole one took.
const MOMENTS: [u32; 4] = [45, 65, 80, 95];

/// A deployment on one of the engines.
pub(super) struct Place {
    pub(super) deployment: Deployment,
    servers: Option<(Database, caracal_testkit::Redis)>,
}

impl Place {
    pub(super) fn embedded() -> Self {
        let mut deployment = Deployment::new("", "");
        deployment.environment.retain(|(name, _)| !["DATABASE_URL", "REDIS_URL"].contains(&name.as_str()));
        Self { deployment, servers: None }
    }

    pub(super) fn on_servers() -> Self {
        let (database, redis) = (Database::create().unwrap(), caracal_testkit::Redis::start().unwrap());
        Self { deployment: Deployment::new(&database.url(), &redis.url()), servers: Some((database, redis)) }
    }

    pub(super) fn start(&self) -> (Running, Through) {
        let mut environment = self.deployment.environment.clone();
        environment.push(("COORDINATOR_RATE_LIMIT_PER_MIN".to_owned(), "0".to_owned()));
        let directory = self.deployment.place("one");
        let system = if self.servers.is_some() {
            Running::serve("api,sts,coordinator,audit", &directory, &environment)
        } else {
            let told: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            Running::start_with(&directory, &told)
        };
        let through = Through {
            control: system.urls.clone(),
            sts: system.url("sts"),
            gateway: String::new(),
            admin_token: self.deployment.admin_token.clone(),
        };
        (system, through)
    }

    /// What an outsider finds of the chains, the system having ended.
    pub(super) fn verify_ledger(&self) {
        if self.servers.is_some() {
            return self.deployment.verify_ledger();
        }
        let mut verify = caracal();
        verify.envs(self.deployment.environment.iter().map(|(name, value)| (name, value)));
        let verified = run(verify.args(["audit", "verify", "--json", "--data-dir"]).arg(self.deployment.place("one")));
        assert_eq!(verified.code, Some(0), "{} {}", verified.stdout, verified.stderr);
    }

    /// Every message on these topics, read by a consumer that believes no unsigned one. The system must have ended.
    async fn published(&self, topics: &[&'static str]) -> Vec<Message> {
        let key = Arc::new(HmacKey::from_hex(self.deployment.told("STREAMS_HMAC_KEY")).unwrap());
        let streams = match &self.servers {
            Some((_, redis)) => {
                let redis = Redis::open(RedisOptions::at(SecretText::new(redis.url()))).await.unwrap();
                Streams::on_redis(redis, key)
            }
            None => {
                let options = SqliteOptions::in_directory(self.deployment.place("one"));
                let store = Store::open(&options, Arc::new(SystemClock)).unwrap();
                let waiting = outbox::backlog(&mut store.snapshot().await.unwrap().deployment()).await.unwrap();
                assert_eq!((waiting.pending, waiting.dead), (0, 0));
                Streams::in_store(store, key)
            }
        };
        let heard = Arc::new(Mutex::new(Vec::new()));
        for topic in topics {
            let consumer = Consumer::new(streams.clone(), ConsumerOptions::new(topic, "outsider", "one"));
            let (state, told, (stop, stopping)) = (consumer.state(), heard.clone(), watch::channel(false));
            let task = tokio::spawn(consumer.run(stopping, move |message| {
                told.lock().unwrap().push(message);
                async { Ok(()) }
            }));
            // Some come twice, and a consumer hands on one of them.
            let all = |group: &GroupState| (group.pending, group.lag) == (0, 0);
            until("consumed", async || streams.list_groups(topic).await.unwrap().first().is_some_and(all)).await;
            assert_eq!(state.bad_signatures(), 0);
            stop.send_replace(true);
            task.await.unwrap();
        }
        std::mem::take(&mut *heard.lock().unwrap())
    }
}

/// A root that lends to three children, each of which lends on to two of its own: ten sessions, nine edges.
struct Tree {
    sessions: Vec<String>,
    /// Each with its source, its target and the edge it was cut from, by their places.
    edges: Vec<(String, usize, usize, Option<usize>)>,
}

/// What is asked to fall, and what falls with it, by name.
struct Cascade {
    method: Method,
    path: String,
    sessions: BTreeSet<String>,
    edges: BTreeSet<String>,
}

impl Tree {
    async fn plant(http: &Http, base: &str, bearer: &str, application: &str) -> Self {
        let mut tree = Self { sessions: Vec::new(), edges: Vec::new() };
        for parent in [None, Some(0), Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)] {
            let above = parent.map(|parent: usize| tree.sessions[parent].clone());
            let body = json!({"application_id": application, "parent_id": above, "parent_authority": "none", "labels": ["reader"]});
            let started = http.json(Method::POST, &format!("{base}/agents"), bearer, Some(body)).await.unwrap();
            let target = tree.sessions.len();
            tree.sessions.push(started.text("agent_session_id"));
            let Some(source) = parent else { continue };
            let body = json!({
                "issuer_application_id": application, "receiver_application_id": application,
                "source_session_id": tree.sessions[source], "target_session_id": tree.sessions[target],
                "scopes": ["notes:read"], "ttl_seconds": if source == 0 { 3_600 } else { 1_800 },
                "constraints": {"resources": [NOTES], "max_hops": if source == 0 { 3 } else { 2 }}
            });
            let lent = http.json(Method::POST, &format!("{base}/delegations"), bearer, Some(body)).await.unwrap();
            let cut_from = tree.edges.iter().position(|(_, _, reached, _)| *reached == source);
            tree.edges.push((lent.text("delegation_edge_id"), source, target, cut_from));
        }
        tree
    }

    fn end_of_the_root(&self) -> Cascade {
        Cascade {
            method: Method::DELETE,
            path: format!("/agents/{}", self.sessions[0]),
            sessions: self.sessions.iter().cloned().collect(),
            edges: self.edges.iter().map(|(edge, ..)| edge.clone()).collect(),
        }
    }

    /// The first child with both of its own, and the three edges that lead to them.
    fn revocation_of_the_first_edge(&self) -> Cascade {
        let reached = [1, 4, 5];
        Cascade {
            method: Method::PATCH,
            path: format!("/delegations/{}/revoke", self.edges[0].0),
            sessions: reached.iter().map(|place| self.sessions[*place].clone()).collect(),
            edges: self
                .edges
                .iter()
                .filter(|(_, _, to, _)| reached.contains(to))
                .map(|(edge, ..)| edge.clone())
                .collect(),
        }
    }
}

/// What stands now, as the operator's token shows it.
struct Standing {
    sessions: BTreeSet<String>,
    edges: BTreeSet<String>,
}

async fn standing(http: &Http, base: &str, token: &str) -> Standing {
    let active = async |path: &str| -> BTreeSet<String> {
        let answer = http.json(Method::GET, &format!("{base}{path}limit=500"), token, None).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
        let id = |item: &Value| item.get("agent_session_id").unwrap_or(&item["id"]).as_str().unwrap().to_owned();
        answer.json()["items"].as_array().unwrap().iter().map(id).collect()
    };
    Standing { sessions: active("/agents?status=active&").await, edges: active("/delegations/active?").await }
}

/// All of it fell, or nothing of it did. Says which.
fn fell(cascade: &Cascade, standing: &Standing) -> bool {
    let sessions = cascade.sessions.intersection(&standing.sessions).count();
    let edges = cascade.edges.intersection(&standing.edges).count();
    match (sessions, edges) {
        (0, 0) => true,
        all if all == (cascade.sessions.len(), cascade.edges.len()) => false,
        some => panic!("{some:?} of {} sessions and {} edges stand", cascade.sessions.len(), cascade.edges.len()),
    }
}

async fn check(place: Place) {
    let (http, token) = (Arc::new(Http::new()), place.deployment.told("CARACAL_COORDINATOR_TOKEN").to_owned());
    let (mut system, mut through) = place.start();
    let tenant = Tenant::provision(&http, &through, &upstream().await).await;
    let base = |through: &Through| format!("{}/zones/{}", through.url("coordinator"), tenant.zone);
    let lifecycle = tenant.exchange(&http, &through, &[("scope", "agent:lifecycle")]).await.unwrap();
    let mut trees = Vec::new();
    for _ in 0..2 * MOMENTS.len() + 1 {
        let bearer = lifecycle.text("access_token");
        trees.push(Tree::plant(&http, &base(&through), &bearer, &tenant.application).await);
    }
    // The way to the Coordinator is open, and this is how long a whole one takes.
    let whole = trees.pop().unwrap().end_of_the_root();
    standing(&http, &base(&through), &token).await;
    let began = Instant::now();
    let url = format!("{}{}", base(&through), whole.path);
    assert!(http.json(whole.method.clone(), &url, &token, None).await.unwrap().status.is_success());
    let took = began.elapsed();
    assert!(fell(&whole, &standing(&http, &base(&through), &token).await));
    let (mut lost_sessions, mut lost_edges) = (whole.sessions, whole.edges);
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let cascades =
            [trees[2 * round].end_of_the_root(), trees[2 * round + 1].revocation_of_the_first_edge()].map(Arc::new);
        let asking: Vec<_> = cascades
            .iter()
            .map(|cascade| {
                let (http, token, cascade) = (http.clone(), token.clone(), cascade.clone());
                let url = format!("{}{}", base(&through), cascade.path);
                tokio::spawn(async move { http.json(cascade.method.clone(), &url, &token, None).await })
            })
            .collect();
        tokio::time::sleep(took * moment / 100).await;
        system.kill();
        (system, through) = place.start();
        let now = standing(&http, &base(&through), &token).await;
        for (cascade, asking) in cascades.iter().zip(asking) {
            let fallen = fell(cascade, &now);
            if let Some(answer) = asking.await.unwrap() {
                assert!(answer.status.is_success() && fallen, "round {round}: answered, and it stands");
            }
            if fallen {
                lost_sessions.extend(cascade.sessions.clone());
                lost_edges.extend(cascade.edges.clone());
            }
        }
        for tree in &trees {
            for (edge, source, target, cut_from) in &tree.edges {
                let above = [source, target].map(|place| &tree.sessions[*place]);
                let derived = cut_from.is_none_or(|parent| now.edges.contains(&tree.edges[parent].0));
                let grounded = derived && above.iter().all(|session| now.sessions.contains(*session));
                assert!(!now.edges.contains(edge) || grounded, "round {round}: `{edge}` stands on what fell");
                // Every child of these trees was lent to by its parent.
                let [parent, child] = above;
                assert!(!now.sessions.contains(child) || now.sessions.contains(parent), "round {round}: {child}");
            }
        }
    }
    // What fell gives nothing, and what stands does.
    let now = standing(&http, &base(&through), &token).await;
    for (edge, _, target, _) in trees.iter().flat_map(|tree| tree.edges.first().into_iter().chain(tree.edges.get(8))) {
        let tree = trees.iter().find(|tree| tree.edges.iter().any(|(known, ..)| known == edge)).unwrap();
        let minted = tenant.mint(&http, &through, (&tree.sessions[*target], edge)).await.unwrap();
        assert_eq!(minted.status.is_success(), now.edges.contains(edge), "{}", minted.json());
    }
    assert!(system.terminate());
    let messages = place.published(&[LIFECYCLE, REVOCATIONS, DELEGATIONS]).await;
    let told = |topic: &str, event: Option<&str>, field: &str| -> BTreeSet<String> {
        let about = messages.iter().filter(|message| message.topic == topic && message.field("event") == event);
        about.filter_map(|message| message.field(field).map(str::to_owned)).collect()
    };
    assert_eq!(told(LIFECYCLE, Some("terminate"), "agent_session_id"), lost_sessions);
    assert_eq!(told(REVOCATIONS, None, "agent_session_id"), lost_sessions);
    assert_eq!(told(REVOCATIONS, None, "delegation_edge_id"), lost_edges);
    assert_eq!(told(DELEGATIONS, Some("edge_revoke"), "edge_id"), lost_edges);
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_a_cascade_cut_off_by_a_kill_happened_wholly_or_not_at_all() {
    check(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_a_cascade_cut_off_by_a_kill_on_servers_happened_wholly_or_not_at_all() {
    check(Place::on_servers()).await;
}
