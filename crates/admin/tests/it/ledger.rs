//! A zone's log, as those who may read the zone follow it.

use std::sync::Arc;

use caracal_authority::{EventId, ZoneId};
use caracal_crypto::ed25519::SigningKey;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_custody::LogKeys;
use caracal_ledger::transparency::merkle::leaf_hash;
use caracal_ledger::transparency::tiles::from_bytes;
use caracal_ledger::transparency::{Checkpoint, LogSigners, Note, TransparencyLog, VerifierKey, checkpoint};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger};
use caracal_store::{BoxFuture, StoreError};

use crate::world::{KEK, World};

struct Signers(LogKeys);

impl LogSigners for Signers {
    fn signer<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Arc<SigningKey>, String>> {
        Box::pin(async move { self.0.key(zone).await.map_err(|error| error.to_string()) })
    }
}

async fn record(world: &World, zone: &str, count: usize) {
    let zone = ZoneId::parse(zone).unwrap();
    let at = world.store.now();
    let event = |number: usize| {
        let id = EventId::parse(&format!("e-{number}")).unwrap();
        Evidence::new(id, zone.clone(), EventType::TokenExchange, Decision::Deny, EvaluationStatus::Complete, at)
    };
    let events: Vec<Evidence> = (0..count).map(event).collect();
    let recorded: Result<(), StoreError> = world
        .store
        .commit(&zone, (world.ledger.clone(), events), |tx, input: &(Ledger, Vec<Evidence>)| {
            Box::pin(async move { input.0.record(tx, &input.1).await })
        })
        .await;
    recorded.unwrap();
    let ring = Arc::new(KekRing::new(Kek::from_hex(KEK).unwrap(), None));
    let keys = LogKeys::new(world.store.clone(), ring, checkpoint::key_names);
    let log = TransparencyLog::new(world.store.clone(), Arc::new(Signers(keys)));
    assert_eq!(log.catch_up().await.unwrap(), count as u64);
}

#[tokio::test]
async fn the_log_of_a_zone_is_served_as_tiles_that_its_checkpoint_was_signed_over() {
    let world = World::new().await;
    let (zone, empty) = (world.zone("Ops").await, world.zone("Empty").await);
    record(&world, &zone, 260).await;
    let get = async |path: &str| world.get(&format!("/v1/zones/{zone}/ledger/{path}")).await;
    let key = get("log-key").await;
    assert_eq!(
        (key.status, key.headers["content-type"].to_str().unwrap()),
        (http::StatusCode::OK, "text/plain; charset=utf-8")
    );
    let key = VerifierKey::parse(std::str::from_utf8(&key.body).unwrap()).unwrap();
    let note = get("checkpoint").await;
    let note = Note::parse(std::str::from_utf8(&note.body).unwrap()).unwrap();
    let said = Checkpoint::verified(&note, &key).unwrap();
    assert_eq!((said.size, said.origin), (260, format!("caracal/ledger/{zone}")));

    let full = get("tile/0/000").await;
    assert_eq!((full.body.len(), full.headers["content-type"].to_str().unwrap()), (8_192, "application/octet-stream"));
    let partial = get("tile/0/001.p/4").await;
    assert_eq!(partial.body.len(), 4 * 32);
    assert_eq!(get("tile/0/001.p/3").await.body, partial.body[..3 * 32]);
    assert_eq!(get("tile/1/000.p/1").await.body.len(), 32);
    let bundle = get("tile/entries/001.p/4").await.body;
    let mut rest = &bundle[..];
    for leaf in from_bytes(&partial.body).unwrap() {
        let (length, behind) = rest.split_first_chunk::<2>().unwrap();
        let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        assert_eq!(leaf_hash(entry), leaf);
        rest = behind;
    }
    assert!(rest.is_empty());
    for path in [
        "tile/0/001",
        "tile/0/001.p/5",
        "tile/0/002",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/entries/001",
        "tile/0/1",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/64/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/x",
        "tile/0/000.p/04",
        "tile/63/000.p/1",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ] {
        get(path).await.is_refused(404, "tile_not_found");
    }
    for path in ["log-key", "checkpoint"] {
        world.get(&format!("/v1/zones/{empty}/ledger/{path}")).await.is_refused(404, "checkpoint_not_found");
    }
}
