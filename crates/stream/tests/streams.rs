//! Each engine against the suite that every engine of the topics has to pass, and what is particular to one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod suite;

use std::sync::Arc;
use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_store::{BoxFuture, PostgresOptions, SqliteOptions, Store, SystemClock};
use caracal_stream::{Begin, Consumer, REVOCATIONS, Redis, RedisOptions, Streams};
use caracal_testkit::Database;
use caracal_testkit::Redis as Server;
use suite::{Consuming, Fresh, PATIENT, Raw, ids, key, message, options, until};

fn on_redis() -> BoxFuture<'static, Fresh> {
    Box::pin(async {
        let server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        let raw = raw(&server).await;
        Fresh { streams, raw: Raw::Redis(raw), kept: Box::new(server) }
    })
}

fn on_sqlite() -> BoxFuture<'static, Fresh> {
    Box::pin(async {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&SqliteOptions::in_directory(directory.path()), Arc::new(SystemClock)).unwrap();
        let streams = Streams::in_store(store.clone(), key());
        Fresh { streams, raw: Raw::Store(store), kept: Box::new(directory) }
    })
}

/// Not what a system on servers uses, but the same statements.
fn on_postgres() -> BoxFuture<'static, Fresh> {
    Box::pin(async {
        let database = Database::create().unwrap();
        let store = Store::open_postgres(PostgresOptions::at(&database.url()).unwrap()).await.unwrap();
        let streams = Streams::in_store(store.clone(), key());
        Fresh { streams, raw: Raw::Store(store), kept: Box::new(database) }
    })
}

async fn redis_streams(server: &Server) -> Streams {
    let redis = Redis::open(RedisOptions::at(SecretText::new(server.url()))).await.unwrap();
    Streams::on_redis(redis, key())
}

async fn raw(server: &Server) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

mod on_a_redis {
    crate::conformance_suite!(crate::on_redis);
}

mod in_sqlite {
    crate::conformance_suite!(crate::on_sqlite);
}

mod in_postgresql {
    crate::conformance_suite!(crate::on_postgres);
}

/// A case that nobody listed would never run.
#[test]
fn every_case_of_the_suite_is_listed() {
    let listed = include_str!("suite/mod.rs");
    let mut cases = 0;
    for source in [include_str!("suite/topics.rs"), include_str!("suite/consumers.rs")] {
        for case in source.split("\npub(crate) async fn ").skip(1).filter_map(|text| text.split('(').next()) {
            assert!(listed.contains(&format!("                {case}\n")), "{case}");
            cases += 1;
        }
    }
    assert!(cases > 20, "{cases} cases");
}

mod sqlite_alone {
    use super::*;

    fn open(directory: &std::path::Path) -> Store {
        Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn t07_streams_nothing_is_lost_when_the_process_is_restarted() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let streams = Streams::in_store(store.clone(), key());
        streams.create_group("t", "g", Begin::Start).await.unwrap();
        let first = streams.publish("t", &message("m-1")).await.unwrap();
        streams.publish("t", &message("m-2")).await.unwrap();
        let handed = streams.member("t", "g", "before").read(1, Duration::ZERO).await.unwrap();
        assert_eq!(handed[0].id(), first);
        store.close().await;
        drop((streams, store));

        let store = open(directory.path());
        let streams = Streams::in_store(store.clone(), key());
        let group = streams.list_groups("t").await.unwrap().pop().unwrap();
        assert_eq!((group.pending, group.lag, group.oldest_pending.as_deref()), (1, 1, Some(first.as_str())));
        assert!(streams.publish("t", &message("m-3")).await.unwrap() > first);
        let consuming = Consuming::start(&streams, options("t", "g", "after"));
        until("handled", async || consuming.sorted() == ["m-1", "m-2", "m-3"]).await;
        consuming.stop().await;
        store.close().await;
    }
}

mod redis_alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn t07_streams_an_outage_is_seen_and_outlived() {
        let mut server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        let consuming = Consuming::start(&streams, options("t", "g", "c"));
        streams.publish("t", &message("m-1")).await.unwrap();
        until("heard", async || consuming.sorted() == ["m-1"]).await;
        assert!(consuming.state.is_healthy());
        server.stop();
        until("noticed", async || !consuming.state.is_healthy()).await;
        assert!(streams.publish("t", &message("m-2")).await.is_err());
        server.resume().unwrap();
        until("published", async || streams.publish("t", &message("m-2")).await.is_ok()).await;
        until("heard", async || consuming.sorted() == ["m-1", "m-2"]).await;
        until("healthy", async || consuming.state.is_healthy()).await;
        consuming.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn t07_streams_a_server_that_forgot_everything_gets_its_groups_again() {
        let server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        let consuming = Consuming::start(&streams, options("t", "g", "c"));
        streams.publish("t", &message("m-1")).await.unwrap();
        until("heard", async || consuming.sorted() == ["m-1"]).await;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut raw(&server).await).await.unwrap();
        streams.publish("t", &message("m-1")).await.unwrap();
        streams.publish("t", &message("m-2")).await.unwrap();
        until("heard", async || consuming.sorted() == ["m-1", "m-2"]).await;
        assert_eq!(consuming.state.repeated(), 1);
        consuming.stop().await;
    }

    /// What other clients write and read: audit-and-streams.md §6.3.
    #[tokio::test(flavor = "multi_thread")]
    async fn dead_letters_and_bytes_that_are_no_text_are_as_the_wire_has_them() {
        let server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        let mut connection = raw(&server).await;
        let garbage: String = redis::cmd("XADD")
            .arg(REVOCATIONS)
            .arg("*")
            .arg("x")
            .arg(&b"\xff\xfe"[..])
            .query_async(&mut connection)
            .await
            .unwrap();
        let unsigned: String = redis::cmd("XADD")
            .arg(REVOCATIONS)
            .arg("*")
            .arg("reason")
            .arg("x")
            .query_async(&mut connection)
            .await
            .unwrap();
        let consuming = Consuming::start(&streams, options(REVOCATIONS, "g", "c"));
        until("put aside", async || consuming.state.dead() == 2).await;
        consuming.stop().await;
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let dead: Entries = redis::cmd("XRANGE")
            .arg(format!("{REVOCATIONS}.dead"))
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .unwrap();
        let letter = |source: &str, reason: &str, payload: &str| {
            [("source_id", source), ("reason", reason), ("group", "g"), ("payload", payload)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        };
        let expected = [letter(&garbage, "not_text", ""), letter(&unsigned, "invalid_signature", r#"{"reason":"x"}"#)];
        assert_eq!(dead.into_iter().map(|(_, fields)| fields).collect::<Vec<_>>(), expected);
    }

    /// Removed by an older producer that trims by length, under a member that holds it.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_that_is_gone_is_held_no_longer() {
        let server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        streams.create_group("t", "g", Begin::Start).await.unwrap();
        let gone = streams.publish("t", &message("m-1")).await.unwrap();
        let kept = streams.publish("t", &message("m-2")).await.unwrap();
        let mut member = streams.member("t", "g", "dead");
        assert_eq!(member.read(10, Duration::ZERO).await.unwrap().len(), 2);
        let _: i64 = redis::cmd("XDEL").arg("t").arg(&gone).query_async(&mut raw(&server).await).await.unwrap();
        let other = streams.member("t", "g", "other");
        until("reclaimed", async || ids(&other.reclaim(PATIENT, 10).await.unwrap()) == [kept.clone()]).await;
        assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_consumer_that_can_not_begin_tries_until_it_can() {
        let mut server = Server::start().unwrap();
        let streams = redis_streams(&server).await;
        server.stop();
        let consumer = Consumer::new(streams.clone(), options("t", "g", "c"));
        let consuming = Consuming::of(consumer);
        server.resume().unwrap();
        until("published", async || streams.publish("t", &message("m-1")).await.is_ok()).await;
        until("heard", async || consuming.sorted() == ["m-1"]).await;
        consuming.stop().await;
    }
}
