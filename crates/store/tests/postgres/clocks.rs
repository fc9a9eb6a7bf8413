//! What becomes of the store's time when the clock of the server, or this machine's, is set back.

use super::*;

const HOUR: i64 = 3_600;

/// A server whose clock can be put wrong: its own function for the time is found behind one that a test sets.
async fn with_a_clock(database: &Database) -> Client {
    let client = connect(&database.url()).await;
    let sql = "CREATE SCHEMA hands; CREATE TABLE hands.ahead (seconds bigint); INSERT INTO hands.ahead VALUES (0);
               CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS
                 'SELECT pg_catalog.clock_timestamp() + (SELECT seconds FROM hands.ahead) * interval ''1 second''';
               DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
               END $$";
    client.batch_execute(sql).await.unwrap();
    client
}

async fn put(server: &Client, ahead: i64) {
    server.execute("UPDATE hands.ahead SET seconds = $1", &[&ahead]).await.unwrap();
}

async fn times(store: &Store) -> [i64; 2] {
    [store.snapshot().await.unwrap().now().as_seconds(), store.now().as_seconds()]
}

#[tokio::test]
async fn a_server_whose_clock_is_set_back_by_an_hour_revives_nothing() {
    let database = Database::create().unwrap();
    // The schema first, so that every later connection finds the clock.
    open(&database).await.close().await;
    let server = with_a_clock(&database).await;
    let store = open(&database).await;
    let [began, _] = times(&store).await;
    put(&server, HOUR).await;
    let [ahead, _] = times(&store).await;
    assert!((HOUR..HOUR + 60).contains(&(ahead - began)), "{began} {ahead}");
    raise(&store, &zone("z-1")).await.unwrap();
    put(&server, 0).await;
    for time in times(&store).await {
        assert!((0..60).contains(&(time - ahead)), "{ahead} {time}");
    }
    // So far back that everything would live on for hours, nothing is decided, until it is right again.
    put(&server, -2 * HOUR).await;
    let refused = store.snapshot().await.map(drop).unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable { reason } if reason.contains("clock")), "{refused}");
    assert!(raise(&store, &zone("z-1")).await.is_err());
    put(&server, 0).await;
    // One that starts now knows it from what others have done, though they have done more since.
    raise(&store, &zone("z-1")).await.unwrap();
    let other = open(&database).await;
    for time in times(&other).await {
        assert!((0..60).contains(&(time - ahead)), "{ahead} {time}");
    }
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn between_two_looks_at_the_server_a_clock_set_back_takes_no_time_back() {
    let database = Database::create().unwrap();
    let hands = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000)));
    let mut options = PostgresOptions::at(&database.url()).unwrap();
    options.local_clock = hands.clone();
    let store = Store::open_postgres(options).await.unwrap();
    let [servers, before] = times(&store).await;
    assert!((0..=1).contains(&(before - servers)), "{servers} {before}");
    hands.advance(-HOUR);
    assert!(store.now().as_seconds() >= before);
    hands.advance(80);
    assert!(store.now().as_seconds() >= before + 70);
    // The next look puts it right.
    let [servers, now] = times(&store).await;
    assert!((0..=1).contains(&(now - servers)) && servers < before + 70, "{before} {servers} {now}");
    store.close().await;
}
