//! Shared counters on a real Redis.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_stream::{Counters, FailureLimit, Redis, RedisOptions};
use caracal_testkit::Redis as Server;
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: FailureLimit = FailureLimit { limit: 3, window: MINUTE, block: MINUTE };

async fn replica(server: &Server) -> Counters {
    Counters::new(Redis::open(RedisOptions::at(SecretText::new(server.url()))).await.unwrap())
}

#[tokio::test]
async fn of_concurrent_hits_of_replicas_at_most_the_limit_are_within_it() {
    let server = Server::start().unwrap();
    let replicas = [Arc::new(replica(&server).await), Arc::new(replica(&server).await)];
    let mut asked = JoinSet::new();
    for number in 0..40 {
        let replica = replicas[number % 2].clone();
        asked.spawn(async move { replica.hit_all(&["a".to_owned(), "b".to_owned()], MINUTE).await.unwrap() });
    }
    let mut counts: Vec<Vec<u64>> = asked.join_all().await;
    counts.sort();
    assert_eq!(counts.iter().map(|count| count[0]).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    assert_eq!(counts.iter().filter(|count| count[1] <= 7).count(), 7);
}

#[tokio::test]
async fn one_failure_too_many_blocks_on_every_replica_and_nobody_else() {
    let server = Server::start().unwrap();
    let (one, other) = (replica(&server).await, replica(&server).await);
    for _ in 0..3 {
        assert_eq!(one.failed("guessed", LIMIT).await.unwrap(), None);
        assert_eq!(other.blocked("guessed").await.unwrap(), None);
    }
    assert_eq!(other.failed("guessed", LIMIT).await.unwrap(), Some(MINUTE));
    let left = one.blocked("guessed").await.unwrap().unwrap();
    assert!(left <= MINUTE && left > Duration::from_secs(30), "{left:?}");
    assert!(one.failed("guessed", LIMIT).await.unwrap().unwrap() <= left, "a failure while blocked prolongs nothing");
    assert_eq!(one.blocked("neighbour").await.unwrap(), None);
}

#[tokio::test]
async fn a_block_ends_by_itself_and_the_count_begins_anew() {
    let server = Server::start().unwrap();
    let counters = replica(&server).await;
    let brief = FailureLimit { limit: 1, window: MINUTE, block: Duration::from_millis(20) };
    assert_eq!(counters.failed("guessed", brief).await.unwrap(), None);
    assert_eq!(counters.failed("guessed", brief).await.unwrap(), Some(brief.block));
    while counters.blocked("guessed").await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(counters.failed("guessed", brief).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_is_gone_counts_nothing() {
    let mut server = Server::start().unwrap();
    let counters = replica(&server).await;
    server.stop();
    assert!(counters.hit_all(&["a".to_owned()], MINUTE).await.is_err());
    assert!(counters.blocked("a").await.is_err());
    assert!(counters.failed("a", LIMIT).await.is_err());
}
