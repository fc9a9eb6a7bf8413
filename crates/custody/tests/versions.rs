//! Secrets in a backend that gives back what they once were.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_custody::rewrap::{Mode, Next, Rewrap};
use caracal_custody::{BackendError, CustodyError, SealedSecrets, SecretBackend, Staged};
use caracal_store::providers::{self, Provider};
use caracal_store::{Attribution, BoxFuture, ManualClock, Store, StoreError, conformance};

const OLD: &str = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
const NEW: &str = "9f3a4c1d22e07b58a1c6d4e8f70b39255d1e8a6c47f2903b6ae1d5c8047b92f6";

/// Where the secret of these tests lies: that of a provider, so that sealing everything anew finds it.
const PLACE: &str = "zones/z-1/providers/p-1/secretConfig";

fn ring(current: &str, previous: Option<&str>) -> Arc<KekRing> {
    let kek = |text| Kek::from_hex(text).unwrap();
    Arc::new(KekRing::new(kek(current), previous.map(kek)))
}

/// A backend that can be brought back from a backup.
#[derive(Default)]
struct Vault {
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    is_down: AtomicBool,
}

impl Vault {
    fn has(&self) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().get(PLACE).cloned()
    }

    fn bring_back(&self, envelope: Option<Vec<u8>>) {
        let mut kept = self.kept.lock().unwrap();
        kept.remove(PLACE);
        kept.extend(envelope.map(|envelope| (PLACE.to_owned(), envelope)));
    }

    fn answer<T: Send + 'static>(
        &self,
        doing: &'static str,
        what: impl FnOnce() -> T,
    ) -> BoxFuture<'static, Result<T, BackendError>> {
        let is_down = self.is_down.load(Ordering::SeqCst);
        let answer =
            if is_down { Err(BackendError { kind: "test", doing, reason: "503".to_owned() }) } else { Ok(what()) };
        Box::pin(std::future::ready(answer))
    }
}

impl SecretBackend for Vault {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        self.answer("read", || self.kept.lock().unwrap().get(reference).cloned())
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        self.answer("write", || {
            self.kept.lock().unwrap().insert(reference.to_owned(), envelope.to_vec());
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        self.answer("remove", || {
            self.kept.lock().unwrap().remove(reference);
        })
    }
}

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    vault: Arc<Vault>,
    sealed: SealedSecrets,
    _place: caracal_testkit::Place,
}

impl World {
    async fn new() -> Self {
        let place = caracal_testkit::Place::new();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000)));
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock.clone()).await;
        let vault = Arc::new(Vault::default());
        let sealed = SealedSecrets::new(ring(OLD, None)).in_backend(vault.clone(), store.clone());
        Self { store, clock, vault, sealed, _place: place }
    }

    async fn stage(&self, secret: &str) -> Result<Staged, CustodyError> {
        Ok(self.sealed.stage(PLACE, Some(secret.as_bytes())).await?.unwrap())
    }

    /// The commit of the change that was staged.
    async fn commit(&self) -> Result<(), CustodyError> {
        let zone = ZoneId::parse("z-1").unwrap();
        self.store
            .commit(&zone, self.sealed.clone(), |tx, sealed| {
                Box::pin(async move { sealed.put(tx, PLACE, b"lies in the backend").await })
            })
            .await
    }

    /// Gives the secret, and says what the backend has then.
    async fn give(&self, secret: &str) -> Option<Vec<u8>> {
        let _staged = self.stage(secret).await.unwrap();
        self.commit().await.unwrap();
        self.vault.has()
    }

    async fn fetch(&self) -> Result<Option<String>, CustodyError> {
        let text = |opened: caracal_crypto::SecretBytes| String::from_utf8(opened.expose().to_vec()).unwrap();
        Ok(self.sealed.fetch(PLACE).await?.map(text))
    }

    async fn has(&self, secret: &str) {
        assert_eq!(self.fetch().await.unwrap().as_deref(), Some(secret));
    }

    async fn refuses(&self, envelope: &Option<Vec<u8>>) {
        let before = self.vault.has();
        self.vault.bring_back(envelope.clone());
        let refused = self.fetch().await;
        assert!(matches!(refused, Err(CustodyError::OtherVersion { .. })), "{refused:?}");
        self.vault.bring_back(before);
    }
}

/// The row that the secret belongs to.
async fn add_provider(world: &World) {
    let zone = ZoneId::parse("z-1").unwrap();
    let row = Provider {
        zone_id: zone.clone(),
        id: ProviderId::parse("p-1").unwrap(),
        name: "p".to_owned(),
        identifier: "provider://p".to_owned(),
        kind: "api_key".to_owned(),
        config: serde_json::Map::new(),
        secret_config_keys: vec!["api_key".to_owned()],
        connectivity_failed_at: None,
        archived_at: None,
        attribution: Attribution::created("test", world.store.now()),
    };
    let added: Result<(), StoreError> =
        world.store.commit(&zone, row, |tx, row| Box::pin(async move { providers::add(tx, row).await })).await;
    added.unwrap();
}

mod t05_secrets_versions {
    use super::*;

    #[tokio::test]
    async fn what_a_secret_was_before_is_refused_when_the_backend_gives_it_back() {
        let world = World::new().await;
        let first = world.give("one").await;
        let second = world.give("two").await;
        world.has("two").await;
        world.refuses(&first).await;
        let third = world.give("three").await;
        for former in [&first, &second] {
            world.refuses(former).await;
        }
        world.vault.bring_back(third.clone());
        world.has("three").await;
        // That it is gone is said as before.
        world.vault.bring_back(None);
        assert_eq!(world.fetch().await.unwrap(), None);
        // Nor does the version of a secret that was removed come back with another.
        let staged = world.sealed.stage(PLACE, None).await.unwrap();
        let zone = ZoneId::parse("z-1").unwrap();
        let removed: Result<(), CustodyError> = world
            .store
            .commit(&zone, world.sealed.clone(), |tx, sealed| Box::pin(async move { sealed.remove(tx, PLACE).await }))
            .await;
        removed.unwrap();
        drop(staged);
        world.give("four").await;
        world.has("four").await;
        world.refuses(&third).await;
    }

    #[tokio::test]
    async fn what_was_sealed_before_there_were_versions_opens_until_the_secret_is_given_anew() {
        let world = World::new().await;
        let plain = Some(ring(OLD, None).seal(PLACE, b"of before").unwrap());
        world.vault.bring_back(plain.clone());
        world.has("of before").await;
        world.give("new").await;
        world.has("new").await;
        world.refuses(&plain).await;
    }

    /// Whoever changes a secret dies after the backend has got the envelope, or before.
    #[tokio::test]
    async fn a_change_that_was_cut_off_leaves_a_secret_that_opens_whichever_lies_there() {
        for had in [false, true] {
            let world = World::new().await;
            let before = if had { world.give("before").await } else { None };
            let staged = world.stage("cut off").await.unwrap();
            drop(staged);
            let written = world.vault.has();
            world.has("cut off").await;
            world.vault.bring_back(before.clone());
            assert_eq!(world.fetch().await.unwrap().as_deref(), had.then_some("before"));
            // Nobody changes it before the one that was cut off is over.
            let busy = world.stage("too early").await.map(drop);
            assert!(matches!(busy, Err(CustodyError::UnderWay { .. })), "{busy:?}");
            world.clock.advance(121);
            // What the next one finds may be either, also when it is cut off itself.
            world.vault.bring_back(written.clone());
            drop(world.stage("cut off again").await.unwrap());
            for envelope in [&written, &before, &world.vault.has()] {
                world.vault.bring_back(envelope.clone());
                assert_eq!(world.fetch().await.unwrap().is_some(), envelope.is_some());
            }
            world.clock.advance(121);
            world.give("after").await;
            world.has("after").await;
            world.refuses(&written).await;
            if had {
                world.refuses(&before).await;
            }
        }
    }

    #[tokio::test]
    async fn a_change_that_failed_leaves_what_was_there_and_nothing_else() {
        for had in [false, true] {
            let world = World::new().await;
            let before = if had { world.give("before").await } else { None };
            let staged = world.stage("failed").await.unwrap();
            let failed = world.vault.has();
            staged.undo().await;
            assert_eq!(world.vault.has(), before);
            assert_eq!(world.fetch().await.unwrap().as_deref(), had.then_some("before"));
            if had {
                world.refuses(&failed).await;
            }
            // The next one does not have to wait.
            world.give("after").await;
            world.has("after").await;
            // A backend that is down ends a change before anything is written, and holds up no other.
            world.vault.is_down.store(true, Ordering::SeqCst);
            assert!(matches!(world.stage("never").await.map(drop), Err(CustodyError::Backend(_))));
            world.vault.is_down.store(false, Ordering::SeqCst);
            world.has("after").await;
            world.give("last").await;
        }
    }

    /// The change was committed, and only the word of it was lost. Then nothing is undone.
    #[tokio::test]
    async fn a_change_that_came_about_after_all_is_not_undone() {
        let world = World::new().await;
        world.give("before").await;
        let staged = world.stage("came about").await.unwrap();
        world.commit().await.unwrap();
        staged.undo().await;
        world.has("came about").await;
        world.give("after").await;
        world.has("after").await;
    }

    #[tokio::test]
    async fn sealing_everything_anew_keeps_the_version() {
        let world = World::new().await;
        let first = world.give("one").await;
        world.give("two").await;
        let both = ring(NEW, Some(OLD));
        add_provider(&world).await;
        let backend: Arc<dyn SecretBackend> = world.vault.clone();
        let rewrap = Rewrap::new(both.clone(), Some(backend));
        let report = rewrap.run(&world.store, Mode::Rewrap, |_| Next::GoOn).await.unwrap();
        assert!(report.is_done() && report.rewrapped() == 2, "the secret, and its version: {report:?}");
        let sealed = SealedSecrets::new(ring(NEW, None)).in_backend(world.vault.clone(), world.store.clone());
        assert_eq!(sealed.fetch(PLACE).await.unwrap().unwrap().expose(), b"two");
        world.vault.bring_back(first);
        let sealed = SealedSecrets::new(both).in_backend(world.vault.clone(), world.store.clone());
        let refused = sealed.fetch(PLACE).await.map(|_| ());
        assert!(matches!(refused, Err(CustodyError::OtherVersion { .. })), "{refused:?}");
    }
}
