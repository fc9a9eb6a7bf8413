//! Topics and relay on a real Redis, with the store on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_crypto::SecretText;
use caracal_crypto::hmac::{HmacKey, verify_stream_signature};
use caracal_store::{Message, PostgresOptions, Store, StoreError, outbox};
use caracal_stream::{
    Counters, DELEGATIONS, LIFECYCLE, REVOCATIONS, Redis, RedisOptions, Rejection, Relay, RelayOptions, RelayState,
    StreamError, Streams, Tail, TailState,
};
use caracal_testkit::Redis as Server;
use caracal_testkit::{Cut, CuttingProxy, Database};
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

fn key() -> Arc<HmacKey> {
    Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap())
}

async fn open(server: &Server) -> Arc<Redis> {
    Redis::open(RedisOptions::at(SecretText::new(server.url()))).await.unwrap()
}

/// The server, over a way that can be cut.
async fn behind_a_way(server: &Server) -> (CuttingProxy, Arc<Redis>) {
    let way = CuttingProxy::start(([127, 0, 0, 1], server.port()).into()).unwrap();
    let redis = Redis::open(RedisOptions::at(SecretText::new(format!("redis://{}/", way.address())))).await.unwrap();
    (way, redis)
}

async fn store(database: &Database) -> Store {
    Store::open_postgres(PostgresOptions::at(&database.url()).unwrap()).await.unwrap()
}

/// What a test does behind our back.
async fn raw(server: &Server) -> MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn commit(store: &Store, topic: &'static str, id: &str) {
    commit_about(store, topic, id, "agent_session_id").await;
}

/// A message whose field `about` is `id`, too.
async fn commit_about(store: &Store, topic: &'static str, id: &str, about: &'static str) {
    let added: Result<bool, StoreError> = store
        .commit(&ZoneId::parse("z-1").unwrap(), (topic, id.to_owned(), about), |tx, (topic, id, about)| {
            Box::pin(async move {
                let fields = vec![("zone_id".to_owned(), "z-1".to_owned()), ((*about).to_owned(), id.clone())];
                outbox::add(tx, id.parse().unwrap(), topic, id, fields).await
            })
        })
        .await;
    assert!(added.unwrap());
}

async fn pending(store: &Store) -> (i64, i64) {
    let mut snapshot = store.snapshot().await.unwrap();
    let backlog = outbox::backlog(&mut snapshot.deployment()).await.unwrap();
    (backlog.pending, backlog.dead)
}

/// Every message on `topic`, by its id, in the order of the stream.
async fn published(connection: &mut MultiplexedConnection, topic: &str) -> Vec<String> {
    let entries: Vec<(String, HashMap<String, String>)> =
        redis::cmd("XRANGE").arg(topic).arg("-").arg("+").query_async(connection).await.unwrap();
    entries.into_iter().map(|(_, fields)| fields["outbox_id"].clone()).collect()
}

async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("{what}: not within 20 s"));
}

struct Relaying {
    state: Arc<RelayState>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relaying {
    async fn start(store: &Store, server: &Server) -> Self {
        Self::over(store, open(server).await)
    }

    fn over(store: &Store, redis: Arc<Redis>) -> Self {
        let options = RelayOptions { poll: Duration::from_millis(20), batch: 16, max_attempts: 2 };
        let relay = Relay::new(store.clone(), Streams::on_redis(redis, key()), options);
        let (stop, stopping) = watch::channel(false);
        Self { state: relay.state(), stop, task: tokio::spawn(relay.run(stopping)) }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

struct Following {
    heard: Arc<Mutex<Vec<Message>>>,
    state: Arc<TailState>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Following {
    async fn start(server: &Server) -> Self {
        Self::over(open(server).await).await
    }

    async fn over(redis: Arc<Redis>) -> Self {
        let tail = Tail::begin(redis, key(), &[REVOCATIONS, DELEGATIONS]).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (state, told) = (tail.state(), heard.clone());
        let task = tokio::spawn(async move {
            tail.run(stopping, |message: &Message| {
                let says_what = message.field("agent_session_id").is_some();
                told.lock().unwrap().push(message.clone());
                says_what.then_some(()).ok_or(Rejection::NoAnchor)
            })
            .await;
        });
        Self { heard, state, stop, task }
    }

    fn ids(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|message| message.id.to_string()).collect()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_published_signed_and_leaves_the_outbox() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let (relay, following) = (Relaying::start(&store, &server).await, Following::start(&server).await);
    commit(&store, REVOCATIONS, "m-1").await;
    until("heard", async || following.ids() == ["m-1"]).await;
    until("removed", async || pending(&store).await == (0, 0)).await;
    let entries: Vec<(String, HashMap<String, String>)> =
        redis::cmd("XRANGE").arg(REVOCATIONS).arg("-").arg("+").query_async(&mut raw(&server).await).await.unwrap();
    let [(_, fields)] = &entries[..] else { panic!("{entries:?}") };
    let signed = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    assert!(verify_stream_signature(&key(), REVOCATIONS, signed, &fields["_sig"]));
    assert_eq!((fields["agent_session_id"].as_str(), fields["dedupe_key"].as_str()), ("m-1", "m-1"));
    assert!(relay.state.is_elected() && relay.state.published() == 1);
    until("counted", async || relay.state.removed() == 1).await;
    following.stop().await;
    relay.stop().await;
    store.close().await;
}

/// Difference D6: an invalidation reaches every replica, not one per group.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_follows_hears_everything_from_when_they_began() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let relay = Relaying::start(&store, &server).await;
    commit(&store, REVOCATIONS, "before").await;
    until("published", async || relay.state.published() == 1).await;
    let followers = [Following::start(&server).await, Following::start(&server).await];
    for id in ["m-1", "m-2", "m-3"] {
        commit(&store, REVOCATIONS, id).await;
    }
    for following in followers {
        until("heard", async || following.ids() == ["m-1", "m-2", "m-3"]).await;
        following.stop().await;
    }
    relay.stop().await;
    store.close().await;
}

/// Redis is gone; changes go on. When it is back, everything arrives: revocations first, the rest in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_delays_messages_and_loses_none() {
    let (database, mut server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let (relay, following) = (Relaying::start(&store, &server).await, Following::start(&server).await);
    commit(&store, REVOCATIONS, "m-0").await;
    until("heard", async || following.ids() == ["m-0"]).await;
    server.stop();
    until("noticed", async || !following.state.is_healthy()).await;
    for number in 1..=40 {
        commit(&store, LIFECYCLE, &format!("l-{number}")).await;
        commit(&store, REVOCATIONS, &format!("m-{number}")).await;
    }
    until("failing", async || relay.state.is_failing()).await;
    assert_eq!(pending(&store).await, (80, 0));
    server.resume().unwrap();
    until("sent", async || pending(&store).await == (0, 0)).await;
    let expected: Vec<String> = (0..=40).map(|number| format!("m-{number}")).collect();
    until("heard", async || following.ids() == expected).await;
    let mut connection = raw(&server).await;
    assert_eq!(published(&mut connection, REVOCATIONS).await, expected);
    let expected: Vec<String> = (1..=40).map(|number| format!("l-{number}")).collect();
    assert_eq!(published(&mut connection, LIFECYCLE).await, expected);
    // Of what had piled up, the revocations came first.
    let first = |topic: &'static str, id: &'static str| {
        let mut connection = connection.clone();
        async move {
            let entries: Vec<(String, HashMap<String, String>)> =
                redis::cmd("XRANGE").arg(topic).arg("-").arg("+").query_async(&mut connection).await.unwrap();
            let (entry, _) = entries.into_iter().find(|(_, fields)| fields["outbox_id"] == id).unwrap();
            entry.split_once('-').map(|(millis, _)| millis.parse::<u64>().unwrap()).unwrap()
        }
    };
    assert!(first(REVOCATIONS, "m-40").await <= first(LIFECYCLE, "l-1").await);
    assert!(following.state.is_healthy() && !relay.state.is_failing());
    following.stop().await;
    relay.stop().await;
    store.close().await;
}

/// The process ends while Redis is away and much waits. Whoever runs next goes on where it was, from what is stored alone.
#[tokio::test(flavor = "multi_thread")]
async fn t07_streams_after_a_restart_what_waited_goes_on_in_order_and_revocations_first() {
    let (database, mut server) = (Database::create().unwrap(), Server::start().unwrap());
    let before = store(&database).await;
    let relay = Relaying::start(&before, &server).await;
    commit(&before, LIFECYCLE, "l-0").await;
    until("sent", async || pending(&before).await == (0, 0)).await;
    server.stop();
    // More than a relay takes at a time, and whatever takes authority away comes last.
    for number in 1..=40 {
        commit(&before, LIFECYCLE, &format!("l-{number}")).await;
    }
    for number in 1..=40 {
        commit(&before, REVOCATIONS, &format!("m-{number}")).await;
    }
    until("failing", async || relay.state.is_failing()).await;
    relay.stop().await;
    before.close().await;
    drop(before);

    let after = store(&database).await;
    assert_eq!(pending(&after).await, (80, 0));
    server.resume().unwrap();
    let monitor = monitor(&server).await;
    let relay = Relaying::start(&after, &server).await;
    let ids = |kind: &str| (1..=40).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>();
    assert_eq!(additions(monitor, 80).await, [ids("m"), ids("l")].concat());
    until("sent", async || pending(&after).await == (0, 0)).await;
    relay.stop().await;
    after.close().await;
}

/// A connection that is told every command the server takes.
async fn monitor(server: &Server) -> BufReader<TcpStream> {
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    connection.write_all(b"MONITOR\r\n").await.unwrap();
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    connection.read_line(&mut line).await.unwrap();
    assert_eq!(line, "+OK\r\n");
    connection
}

/// The ids of the next `count` messages that are added to any topic, in the order in which the server takes them.
async fn additions(monitor: BufReader<TcpStream>, count: usize) -> Vec<String> {
    let (mut lines, mut ids) = (monitor.lines(), Vec::new());
    let reading = async {
        while ids.len() < count {
            let line = lines.next_line().await.unwrap().unwrap();
            let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            if words[0].eq_ignore_ascii_case("XADD") {
                let name = words.iter().position(|word| *word == "outbox_id").unwrap();
                ids.push(words[name + 1].to_owned());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
    ids
}

/// The way of one follower is cut: what was published meanwhile is what it reads first, and is counted as such.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_while_a_follower_was_cut_off_is_read_once_it_is_back() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let relay = Relaying::start(&store, &server).await;
    let (way, redis) = behind_a_way(&server).await;
    let following = Following::over(redis).await;
    commit(&store, REVOCATIONS, "m-0").await;
    until("heard", async || following.ids() == ["m-0"]).await;
    way.cut(Cut::Refuse);
    until("noticed", async || !following.state.is_healthy()).await;
    commit(&store, REVOCATIONS, "m-1").await;
    commit(&store, DELEGATIONS, "d-1").await;
    until("sent", async || pending(&store).await == (0, 0)).await;
    way.heal();
    until("heard", async || following.ids().len() == 3).await;
    commit(&store, REVOCATIONS, "m-2").await;
    until("heard", async || following.ids().len() == 4).await;
    assert_eq!((following.state.heard(), following.state.caught_up()), (4, 2));
    following.stop().await;
    relay.stop().await;
    store.close().await;
}

/// A message was added and nobody said so: it fails, but it persists. So does a relay that ends between publishing and
/// removing leave it.
#[tokio::test(flavor = "multi_thread")]
async fn t07_streams_a_message_whose_answer_was_lost_is_published_again_and_acted_on_once() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let (way, redis) = behind_a_way(&server).await;
    let relay = Relaying::over(&store, redis);
    let following = Following::start(&server).await;
    let mut raw = raw(&server).await;
    commit(&store, REVOCATIONS, "m-0").await;
    until("sent", async || pending(&store).await == (0, 0)).await;
    // From the message on: were the answer to a look at the server's health lost before it, nothing would be sent.
    way.cut(Cut::MuteFrom("XADD"));
    commit(&store, REVOCATIONS, "m-1").await;
    until("heard", async || following.ids() == ["m-0", "m-1"]).await;
    assert_eq!(pending(&store).await, (1, 0), "nobody told the relay");
    way.cut(Cut::Refuse);
    way.heal();
    until("sent", async || pending(&store).await == (0, 0)).await;
    assert_eq!(published(&mut raw, REVOCATIONS).await, ["m-0", "m-1", "m-1"]);
    commit(&store, REVOCATIONS, "m-2").await;
    until("heard", async || following.ids().contains(&"m-2".to_owned())).await;
    assert_eq!(following.ids(), ["m-0", "m-1", "m-2"]);
    following.stop().await;
    relay.stop().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_relays_works_and_another_takes_over() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let (one, other) = (store(&database).await, store(&database).await);
    let first = Relaying::start(&one, &server).await;
    until("elected", async || first.state.is_elected()).await;
    let second = Relaying::start(&other, &server).await;
    for number in 0..20 {
        commit(if number % 2 == 0 { &one } else { &other }, REVOCATIONS, &format!("m-{number}")).await;
    }
    until("sent", async || pending(&one).await == (0, 0)).await;
    assert!(!second.state.is_elected());
    // Gone without a word.
    first.task.abort();
    commit(&other, REVOCATIONS, "m-20").await;
    until("taken over", async || pending(&other).await == (0, 0)).await;
    assert!(second.state.is_elected());
    let expected: Vec<String> = (0..=20).map(|number| format!("m-{number}")).collect();
    assert_eq!(published(&mut raw(&server).await, REVOCATIONS).await, expected, "each once, in order");
    second.stop().await;
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_stream_refuses_holds_nobody_back_and_ends_dead() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    // A key of another kind is in the topic's place.
    let _: () = redis::cmd("SET").arg(LIFECYCLE).arg("x").query_async(&mut raw(&server).await).await.unwrap();
    let relay = Relaying::start(&store, &server).await;
    commit(&store, LIFECYCLE, "l-1").await;
    commit(&store, REVOCATIONS, "m-1").await;
    until("dead", async || pending(&store).await == (0, 1)).await;
    assert_eq!(published(&mut raw(&server).await, REVOCATIONS).await, ["m-1"]);
    assert_eq!(relay.state.refused(), 2);
    let _: () = redis::cmd("DEL").arg(LIFECYCLE).query_async(&mut raw(&server).await).await.unwrap();
    let z = ZoneId::parse("z-1").unwrap();
    let requeued: Result<usize, StoreError> =
        store.commit(&z, (), |tx, ()| Box::pin(async move { outbox::requeue(tx, None).await })).await;
    assert_eq!(requeued.unwrap(), 1);
    until("sent", async || pending(&store).await == (0, 0)).await;
    assert_eq!(published(&mut raw(&server).await, LIFECYCLE).await, ["l-1"]);
    relay.stop().await;
    store.close().await;
}

/// Unsigned, forged, garbled and oversized entries among good ones, and a good one twice.
#[tokio::test(flavor = "multi_thread")]
async fn t06_evidence_hostile_entries_are_counted_put_aside_once_and_never_acted_on() {
    let (database, server) = (Database::create().unwrap(), Server::start().unwrap());
    let store = store(&database).await;
    let relay = Relaying::start(&store, &server).await;
    let followers = [Following::start(&server).await, Following::start(&server).await];
    commit(&store, REVOCATIONS, "m-1").await;
    until("sent", async || pending(&store).await == (0, 0)).await;
    let mut connection = raw(&server).await;
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(REVOCATIONS).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let good = entries[0].1.clone();
    let mut forged = good.clone();
    let at = forged.iter().position(|text| text == "agent_session_id").unwrap();
    forged[at + 1] = "s-of-somebody-else".to_owned();
    let unsigned = ["outbox_id", "m-9", "zone_id", "z-1", "agent_session_id", "s-9"].map(str::to_owned).to_vec();
    let oversized = ["outbox_id".to_owned(), "x".repeat(100_000)].to_vec();
    for fields in [&forged, &unsigned, &oversized, &good] {
        let _: String =
            redis::cmd("XADD").arg(REVOCATIONS).arg("*").arg(fields).query_async(&mut connection).await.unwrap();
    }
    let _: String = redis::cmd("XADD")
        .arg(REVOCATIONS)
        .arg("*")
        .arg("x")
        .arg(&b"\xff\xfe"[..])
        .query_async(&mut connection)
        .await
        .unwrap();
    // Signed, and yet nothing that anybody could act on (gateway.md §10.3).
    commit_about(&store, REVOCATIONS, "m-0", "something_else").await;
    commit(&store, REVOCATIONS, "m-2").await;
    for following in &followers {
        until("heard", async || following.ids() == ["m-1", "m-0", "m-2"]).await;
        let state = &following.state;
        until("counted", async || state.heard() == 2).await;
        assert_eq!((state.rejected(), state.bad_signatures(), state.repeated(), state.caught_up()), (5, 2, 1, 0));
    }
    assert_eq!(followers.iter().map(|following| following.state.dead_letters()).sum::<u64>(), 3, "each once");
    let dead: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
        .arg(format!("{REVOCATIONS}.dead"))
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut reasons: Vec<_> = dead.iter().map(|(_, fields)| fields["reason"].clone()).collect();
    reasons.sort();
    // What is forged is not kept (contract: audit-and-streams.md §6.6): it would push out what is ours.
    assert_eq!(reasons, ["missing_revocation_anchor", "not_text", "oversized"]);
    for following in followers {
        following.stop().await;
    }
    relay.stop().await;
    store.close().await;
}

mod starting {
    use super::*;

    async fn refusal(url: &str) -> String {
        let refused = Redis::open(RedisOptions::at(SecretText::new(url.to_owned()))).await.map(|_| ()).unwrap_err();
        let refused = refused.to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        refused
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_server_is_said_with_what_to_do() {
        assert!(refusal("http://:hunter2@localhost").await.contains("no URL"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(refusal(&format!("redis://:hunter2@127.0.0.1:{port}/")).await.contains("nobody listens"));
        let guarded = Server::start_with(&["--requirepass", "right"]).unwrap();
        let address = format!("127.0.0.1:{}", guarded.port());
        assert!(refusal(&format!("redis://{address}/")).await.contains("wants a password"));
        assert!(refusal(&format!("redis://:hunter2@{address}/")).await.contains("check REDIS_URL"));
        assert!(refusal(&format!("rediss://:hunter2@{address}/")).await.contains("redis://"));
        Redis::open(RedisOptions::at(SecretText::new(format!("redis://:right@{address}/")))).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_may_drop_keys_is_refused() {
        let evicting = Server::start_with(&["--maxmemory-policy", "allkeys-lru"]).unwrap();
        let refused = refusal(&evicting.url()).await;
        assert!(refused.contains("allkeys-lru") && refused.contains("noeviction"), "{refused}");
    }
}

mod t08_availability_redis {
    use super::*;

    async fn counts(redis: &Arc<Redis>) -> Result<Vec<u64>, StreamError> {
        Counters::new(redis.clone()).hit_all(&["caracal:rate:of-a-test".to_owned()], Duration::from_secs(60)).await
    }

    fn is_unavailable<T: std::fmt::Debug>(answer: &Result<T, StreamError>) -> bool {
        matches!(answer, Err(StreamError::Unavailable(_)))
    }

    /// A server that was fit when it was found is told otherwise while we are connected. It goes on to answer.
    #[tokio::test]
    async fn a_server_that_evicts_or_takes_nothing_is_relied_on_again_only_once_it_keeps_what_it_is_told() {
        let server = Server::start().unwrap();
        let (redis, mut operator) = (open(&server).await, raw(&server).await);
        for (what, harm, cure) in [
            ("evicts", "CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
            ("is full", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
            ("is a replica", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
            ("loses what it takes", "REPLICAOF 127.0.0.1 1;CONFIG SET replica-read-only no", "REPLICAOF NO ONE"),
            ("refuses", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ] {
            let mut say = async |commands: &str| {
                for command in commands.split(';') {
                    let mut words = command.split(' ');
                    let mut said = redis::cmd(words.next().unwrap());
                    said.arg(words.collect::<Vec<_>>()).query_async::<()>(&mut operator).await.unwrap();
                }
            };
            redis.check().await.unwrap();
            let before = counts(&redis).await.unwrap()[0];
            say(harm).await;
            let checked = redis.check().await;
            assert!(is_unavailable(&checked), "{what}: {checked:?}");
            let counted = counts(&redis).await;
            assert!(is_unavailable(&counted), "{what}: {counted:?}");
            say(cure).await;
            redis.check().await.unwrap();
            assert_eq!(counts(&redis).await.unwrap(), [before + 1], "{what}: nothing was counted meanwhile");
        }
    }

    /// The connection breaks, and what answers then was told to evict. Nobody has to ask first.
    #[tokio::test]
    async fn a_server_that_evicts_when_it_is_found_again_is_sent_nothing() {
        let server = Server::start().unwrap();
        let (redis, mut operator) = (open(&server).await, raw(&server).await);
        counts(&redis).await.unwrap();
        let policy = async |policy: &str, operator: &mut MultiplexedConnection| {
            redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", policy]).query_async::<()>(operator).await.unwrap();
        };
        policy("volatile-ttl", &mut operator).await;
        let cut = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query_async::<i64>(&mut operator).await;
        assert!(cut.unwrap() > 0);
        let counted = counts(&redis).await;
        assert!(is_unavailable(&counted), "{counted:?}");
        policy("noeviction", &mut operator).await;
        redis.check().await.unwrap();
        assert_eq!(counts(&redis).await.unwrap(), [2]);
    }
}
