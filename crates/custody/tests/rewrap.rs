//! A new key-encryption key: everything is sealed anew, whoever writes meanwhile and wherever it is interrupted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use caracal_authority::{ApplicationId, ConnectionId, KeyId, ProviderId, ZoneId};
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::jws::SigningKey;
use caracal_crypto::{SecretText, encoding};
use caracal_custody::mandate::verify;
use caracal_custody::rewrap::{Mode, Next, Report, Rewrap};
use caracal_custody::{
    Account, BackendError, ConnectionToken, CustodyError, LogKeys, SealedSecrets, SecretBackend, SigningKeys,
    application_secret_ref, kek, provider_secret_ref,
};
use caracal_store::applications::{self, Application};
use caracal_store::conformance::WatchedClock;
use caracal_store::provider_connections::{self, Connection};
use caracal_store::signing_keys::{self, SigningKeyRow};
use caracal_store::{
    Attribution, BoxFuture, Store, StoreError, SystemClock, ZoneWrite, conformance, deployment, sealed_secrets,
};
use caracal_testkit::{Place, Steps, kill_at};
use serde_json::json;

const OLD: &str = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
const NEW: &str = "9f3a4c1d22e07b58a1c6d4e8f70b39255d1e8a6c47f2903b6ae1d5c8047b92f6";
const THIRD: &str = "5a01c27f3e9b44d08871f6b2e3cc90a4d17e5f60b8239a4c6d0f1e2b3a495867";
const ZONES: [&str; 2] = ["z-1", "z-2"];

fn ring(current: &str, previous: Option<&str>) -> Arc<KekRing> {
    let kek = |text| Kek::from_hex(text).unwrap();
    Arc::new(KekRing::new(kek(current), previous.map(kek)))
}

fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// A deployment whose zones each have a signing key, two secrets and an account, all sealed under [`OLD`].
struct World {
    store: Store,
    /// A mandate of each zone.
    mandates: Vec<String>,
    place: Place,
}

fn provider() -> ProviderId {
    ProviderId::parse("p-1").unwrap()
}

fn application() -> ApplicationId {
    ApplicationId::parse("a-1").unwrap()
}

fn account<'a>(zone: &'a ZoneId, provider: &'a ProviderId) -> Account<'a> {
    Account { zone, provider, subject: "user:1" }
}

fn log_keys(store: &Store, ring: &Arc<KekRing>) -> LogKeys {
    LogKeys::new(store.clone(), ring.clone(), |_, public| (encoding::hex(&public[..4]), encoding::hex(public)))
}

impl World {
    async fn new() -> Self {
        let place = Place::new();
        let store = conformance::open(place.path(), place.database_url().as_deref(), Arc::new(SystemClock)).await;
        let old = ring(OLD, None);
        kek::check(&store, &old).await.unwrap();
        let keys = SigningKeys::new(store.clone(), old.clone());
        let mut mandates = Vec::new();
        for name in ZONES {
            let zone = zone(name);
            let key = keys.create(&zone).await.unwrap();
            log_keys(&store, &old).key(&zone).await.unwrap();
            mandates.push(key.sign(&json!({"zone_id": name})).unwrap());
            let secrets = SealedSecrets::new(old.clone());
            let row = connection(&secrets, &zone);
            commit(&store, &zone, (secrets, row), |tx, (secrets, row)| {
                Box::pin(async move {
                    let zone = tx.zone().clone();
                    secrets.put(tx, &provider_secret_ref(&zone, &provider()), b"provider").await?;
                    secrets.put(tx, &application_secret_ref(&zone, &application()), b"application").await?;
                    provider_connections::add(tx, row).await?;
                    Ok(())
                })
            })
            .await;
        }
        Self { store, mandates, place }
    }

    /// What another process finds at `place`.
    async fn again(place: Place, mandates: Vec<String>) -> Self {
        let store = conformance::open(place.path(), place.database_url().as_deref(), Arc::new(SystemClock)).await;
        Self { store, mandates, place }
    }

    /// Every secret there is opens under `ring`, and is what it was; mandates verify.
    async fn opens_with(&self, ring: &Arc<KekRing>) -> Result<(), CustodyError> {
        let keys = SigningKeys::new(self.store.clone(), ring.clone());
        let secrets = SealedSecrets::new(ring.clone());
        for (name, mandate) in ZONES.into_iter().zip(&self.mandates) {
            let zone = zone(name);
            let mut snapshot = self.store.snapshot().await.unwrap();
            let mut tx = snapshot.zone(&zone);
            keys.signing_key(&mut tx).await?.unwrap();
            log_keys(&self.store, ring).key(&zone).await?;
            for (reference, expected) in [
                (provider_secret_ref(&zone, &provider()), "provider"),
                (application_secret_ref(&zone, &application()), "application"),
            ] {
                let opened = secrets.open(&mut tx, &reference).await?.unwrap();
                assert_eq!(opened.expose(), expected.as_bytes(), "{reference}");
            }
            let row = connection_of(&self.store, &zone).await;
            let access = secrets.open_token(ConnectionToken::Access, (&row).into(), &row.access_token)?;
            let sealed = row.refresh_token.as_ref().unwrap();
            let refresh = secrets.open_token(ConnectionToken::Refresh, (&row).into(), sealed)?;
            assert_eq!((access.expose().as_str(), refresh.expose().as_str()), ("at", "rt"));
            verify(&keys, mandate).await.map_err(|_| CustodyError::Foreign { place: "a mandate".to_owned() })?;
        }
        Ok(())
    }

    async fn rewrap(&self, ring: &Arc<KekRing>) -> Report {
        Rewrap::new(ring.clone(), None).run(&self.store, Mode::Rewrap, |_| Next::GoOn).await.unwrap()
    }

    async fn check(&self, ring: &Arc<KekRing>) -> Report {
        Rewrap::new(ring.clone(), None).run(&self.store, Mode::Check, |_| Next::GoOn).await.unwrap()
    }
}

fn connection(secrets: &SealedSecrets, zone: &ZoneId) -> Connection {
    let (provider, now) = (provider(), caracal_authority::Timestamp::from_seconds(1_800_000_000));
    let seal = |which, token| secrets.seal_token(which, account(zone, &provider), &text(token)).unwrap();
    Connection {
        zone_id: zone.clone(),
        id: ConnectionId::parse("c-1").unwrap(),
        subject_id: "user:1".to_owned(),
        provider_id: provider.clone(),
        status: "active".to_owned(),
        access_token: seal(ConnectionToken::Access, "at"),
        refresh_token: Some(seal(ConnectionToken::Refresh, "rt")),
        expires_at: None,
        refreshed_at: None,
        version: 0,
        lease_until: None,
        refresh_failed_at: None,
        created_at: now,
        updated_at: now,
    }
}

async fn connection_of(store: &Store, zone: &ZoneId) -> Connection {
    let mut snapshot = store.snapshot().await.unwrap();
    let id = ConnectionId::parse("c-1").unwrap();
    provider_connections::lookup(&mut snapshot.zone(zone), &id).await.unwrap().unwrap()
}

async fn commit<I: Send + Sync + 'static>(
    store: &Store,
    zone: &ZoneId,
    input: I,
    change: impl for<'t> Fn(&'t mut ZoneWrite<'_>, &'t I) -> BoxFuture<'t, Result<(), CustodyError>> + Send + Sync + 'static,
) {
    store.commit(zone, input, change).await.unwrap();
}

/// Current, rewrapped, left, failed, of each kind of which there is anything.
fn counts(report: &Report) -> Vec<(u64, u64, u64, u64)> {
    let counted = report.kinds.iter().map(|tally| (tally.current, tally.rewrapped, tally.left, tally.failed));
    counted.filter(|counts| *counts != (0, 0, 0, 0)).collect()
}

/// The same of one kind.
fn counts_of(report: &Report, kind: &str) -> (u64, u64, u64, u64) {
    let tally = report.kinds.iter().find(|tally| tally.kind == kind).unwrap();
    (tally.current, tally.rewrapped, tally.left, tally.failed)
}

/// A vault of files, which takes steps before and behind each write.
struct FileVault {
    directory: PathBuf,
    steps: Option<Arc<Steps>>,
}

impl FileVault {
    fn file(&self, reference: &str) -> PathBuf {
        self.directory.join(reference.replace('/', "-"))
    }

    fn take(&self, step: &str) {
        if let Some(steps) = &self.steps {
            steps.take(step);
        }
    }
}

impl SecretBackend for FileVault {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(std::future::ready(Ok(std::fs::read(self.file(reference)).ok())))
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        self.take("before the vault's write");
        std::fs::write(self.file(reference), envelope).unwrap();
        self.take("behind the vault's write");
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        unreachable!("nothing is removed")
    }
}

mod t05_secrets_crash {
    use super::*;

    fn vault_in(directory: &Path, steps: Option<Arc<Steps>>) -> Arc<FileVault> {
        Arc::new(FileVault { directory: directory.join("vault"), steps })
    }

    fn rewrap_of(vault: Arc<FileVault>) -> Rewrap {
        Rewrap::new(ring(NEW, Some(OLD)), Some(vault)).in_batches_of(2)
    }

    /// Every envelope there is, from files and by SQL.
    fn envelopes(place: &Place) -> Vec<Vec<u8>> {
        let vault = std::fs::read_dir(place.path().join("vault")).unwrap();
        let mut found: Vec<_> = vault.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        let texts = |hex: &str, check: &str| {
            let tables = [
                ("signing_keys", "sealed_private"),
                ("ledger_log_keys", "sealed_private"),
                ("sealed_secrets", "envelope"),
                ("provider_connections", "access_token"),
                ("provider_connections", "refresh_token"),
            ];
            let mut sql: Vec<String> = tables
                .iter()
                .map(|(table, column)| format!("SELECT {} FROM {table}", hex.replace('?', column)))
                .collect();
            sql.push(check.to_owned());
            sql.join(" UNION ALL ")
        };
        let check = "SELECT value FROM deployment WHERE name = 'kek_check'";
        let lines: Vec<String> = match place.database() {
            Some(database) => {
                database.run(&texts("encode(?, 'hex')", check)).unwrap().lines().map(str::to_owned).collect()
            }
            None => {
                let file = rusqlite::Connection::open(place.path().join("caracal.db")).unwrap();
                let mut rows = file.prepare(&texts("hex(?)", check)).unwrap();
                let rows = rows.query_map([], |row| row.get(0)).unwrap();
                rows.collect::<Result<_, _>>().unwrap()
            }
        };
        let bytes = |line: &String| {
            encoding::from_hex(&line.to_lowercase()).or_else(|| encoding::from_base64url(line)).unwrap()
        };
        found.extend(lines.iter().map(bytes));
        found
    }

    /// How many of them say of themselves that they are sealed under this key (contract: audit-and-streams.md §9.1).
    fn under(envelopes: &[Vec<u8>], key: &str) -> usize {
        let id = &ring(key, None).seal("any", b"any").unwrap()[4..12];
        envelopes.iter().filter(|envelope| &envelope[..4] == b"CSS1" && &envelope[4..12] == id).count()
    }

    fn vault_opens(vault: &FileVault, references: &[String], ring: &Arc<KekRing>) {
        for reference in references {
            let opened = ring.open(reference, &std::fs::read(vault.file(reference)).unwrap()).unwrap();
            assert_eq!(opened.expose(), reference.as_bytes());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_rewrap_that_is_killed_anywhere_leaves_every_secret_to_be_opened_and_the_next_one_finishes_it() {
        if let Some(steps) = Steps::of_this_process() {
            let (directory, url) = Steps::place();
            let asking = steps.clone();
            let asked = Box::new(move || asking.take("between two writes"));
            let clock = Arc::new(WatchedClock { of: Arc::new(SystemClock), asked });
            let store = conformance::open(&directory, url.as_deref(), clock).await;
            steps.begin();
            let rewrap = rewrap_of(vault_in(&directory, Some(steps)));
            rewrap.run(&store, Mode::Rewrap, |_| Next::GoOn).await.unwrap();
            return;
        }
        let name = "t05_secrets_crash::\
                    a_rewrap_that_is_killed_anywhere_leaves_every_secret_to_be_opened_and_the_next_one_finishes_it";
        let (old, both, back, new) = (ring(OLD, None), ring(NEW, Some(OLD)), ring(OLD, Some(NEW)), ring(NEW, None));
        let world = World::new().await;
        t05_secrets::add_applications(&world).await;
        let World { store, mandates, place: original } = world;
        store.close().await;
        drop(store);
        let references: Vec<String> = ZONES
            .iter()
            .flat_map(|name| (1..=2).map(move |number| (zone(name), format!("{name}-app-{number}"))))
            .map(|(zone, id)| application_secret_ref(&zone, &ApplicationId::parse(&id).unwrap()))
            .collect();
        let vault = vault_in(original.path(), None);
        std::fs::create_dir(&vault.directory).unwrap();
        for reference in &references {
            std::fs::write(vault.file(reference), old.seal(reference, reference.as_bytes()).unwrap()).unwrap();
        }
        let all = 13 + references.len();
        assert_eq!(under(&envelopes(&original), OLD), all);
        let (mut seen, mut before) = (BTreeSet::new(), 0);
        for number in 1.. {
            let place = original.copy();
            let Some(step) = kill_at(name, number, &place) else { break };
            let found = envelopes(&place);
            let renewed = under(&found, NEW);
            assert_eq!((found.len(), under(&found, OLD)), (all, all - renewed), "{number}, {step}");
            assert!(renewed >= before, "{number}, {step}: the same steps came less far");
            (before, _) = (renewed, seen.insert((renewed, step.clone())));
            // Whichever of the two keys is the current one now, a new process opens every secret,
            let vault = vault_in(place.path(), None);
            let world = World::again(place, mandates.clone()).await;
            for ring in [&both, &back] {
                world.opens_with(ring).await.unwrap();
                vault_opens(&vault, &references, ring);
                kek::check(&world.store, ring).await.unwrap();
            }
            // and none starts without the old key before the last of them is sealed under the new one.
            assert!(kek::check(&world.store, &new).await.is_err(), "{number}, {step}");
            let rest = rewrap_of(vault.clone()).run(&world.store, Mode::Rewrap, |_| Next::GoOn).await.unwrap();
            assert_eq!((rest.is_done(), rest.rewrapped() as usize), (true, all - renewed), "{number}, {step}");
            world.opens_with(&new).await.unwrap();
            vault_opens(&vault, &references, &new);
            kek::check(&world.store, &new).await.unwrap();
            assert_eq!(under(&envelopes(&world.place), NEW), all, "{number}, {step}");
        }
        let mut expected: BTreeSet<_> = (0..=12).step_by(2).map(|renewed| (renewed, "between two writes")).collect();
        for renewed in 12..16 {
            expected.extend([(renewed, "before the vault's write"), (renewed + 1, "behind the vault's write")]);
        }
        // What the vault has is looked up one by one, and each look-up ends.
        expected.extend((13..=16).map(|renewed| (renewed, "between two writes")));
        assert_eq!(seen, expected.into_iter().map(|(renewed, step)| (renewed, step.to_owned())).collect());
    }
}

mod t05_secrets {
    use super::*;

    #[tokio::test]
    async fn everything_is_sealed_under_the_new_key_and_the_old_one_can_go() {
        let world = World::new().await;
        let (old, both, new) = (ring(OLD, None), ring(NEW, Some(OLD)), ring(NEW, None));
        world.opens_with(&both).await.unwrap();
        // Log keys, access tokens, refresh tokens, secrets, signing keys, the check of the key.
        let before = world.check(&both).await;
        assert_eq!(
            counts(&before),
            [(0, 0, 2, 0), (0, 0, 2, 0), (0, 0, 2, 0), (0, 0, 4, 0), (0, 0, 2, 0), (0, 0, 1, 0)]
        );
        assert!(!before.is_done() && before.left() == 13);
        let done = world.rewrap(&both).await;
        assert_eq!(counts(&done), [(0, 2, 0, 0), (0, 2, 0, 0), (0, 2, 0, 0), (0, 4, 0, 0), (0, 2, 0, 0), (0, 1, 0, 0)]);
        assert!(done.is_done());
        world.opens_with(&new).await.unwrap();
        kek::check(&world.store, &new).await.unwrap();
        // A backup of the key is worth nothing any more.
        assert!(world.opens_with(&old).await.is_err());
        assert!(kek::check(&world.store, &old).await.is_err());
        // Again, nothing is to be done, and nothing is.
        for report in [world.rewrap(&both).await, world.check(&new).await] {
            assert_eq!(
                counts(&report),
                [(2, 0, 0, 0), (2, 0, 0, 0), (2, 0, 0, 0), (4, 0, 0, 0), (2, 0, 0, 0), (1, 0, 0, 0)]
            );
        }
    }

    #[tokio::test]
    async fn a_check_changes_nothing() {
        let world = World::new().await;
        world.check(&ring(NEW, Some(OLD))).await;
        world.opens_with(&ring(OLD, None)).await.unwrap();
        kek::check(&world.store, &ring(OLD, None)).await.unwrap();
    }

    /// The crash table: every batch is one commit, and behind each of them the process may be gone.
    #[tokio::test]
    async fn wherever_it_is_interrupted_everything_opens_and_the_next_run_finishes_it() {
        let (both, back, new) = (ring(NEW, Some(OLD)), ring(OLD, Some(NEW)), ring(NEW, None));
        for written in 1..=10_u64 {
            let world = World::new().await;
            let mut batches = 0;
            let stopping = Rewrap::new(both.clone(), None).in_batches_of(1);
            let report = stopping.run(&world.store, Mode::Rewrap, |_| {
                batches += 1;
                if batches == written { Next::Stop } else { Next::GoOn }
            });
            let report = report.await.unwrap();
            assert_eq!((batches, report.rewrapped()), (written, written));
            // Whichever of the two is the current one now, nothing is lost,
            world.opens_with(&both).await.unwrap();
            world.opens_with(&back).await.unwrap();
            kek::check(&world.store, &both).await.unwrap();
            kek::check(&world.store, &back).await.unwrap();
            // and nobody can start without the old key before everything is done.
            assert!(kek::check(&world.store, &new).await.is_err(), "after {written}");
            assert_eq!(world.check(&both).await.left(), 13 - written);
            let rest = world.rewrap(&both).await;
            assert_eq!((rest.rewrapped(), rest.left(), rest.failed()), (13 - written, 0, 0));
            world.opens_with(&new).await.unwrap();
            kek::check(&world.store, &new).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_rotation_can_be_taken_back_half_way() {
        let world = World::new().await;
        let mut batches = 0;
        let stop = |_| {
            batches += 1;
            if batches == 3 { Next::Stop } else { Next::GoOn }
        };
        let half = Rewrap::new(ring(NEW, Some(OLD)), None).in_batches_of(1);
        half.run(&world.store, Mode::Rewrap, stop).await.unwrap();
        assert!(world.rewrap(&ring(OLD, Some(NEW))).await.is_done());
        world.opens_with(&ring(OLD, None)).await.unwrap();
    }

    /// Old envelopes were bound to their column alone, so rows could be exchanged within a table (contract: W20).
    #[tokio::test]
    async fn envelopes_bound_to_a_column_open_and_are_bound_to_their_row() {
        let world = World::new().await;
        let (old, new, z) = (ring(OLD, None), ring(NEW, Some(OLD)), zone("z-1"));
        let former = |place: &str, plaintext: &[u8]| old.seal(place, plaintext).unwrap();
        let (key, pkcs8) = SigningKey::generate().unwrap();
        let (x, y) = key.public().coordinates();
        let row = SigningKeyRow {
            zone_id: z.clone(),
            kid: KeyId::parse("k-former").unwrap(),
            version: 2,
            public_x: encoding::base64url(x),
            public_y: encoding::base64url(y),
            sealed_private: former("caracal/secrets/zoneSigningKey", pkcs8.expose()),
            created_at: caracal_authority::Timestamp::EPOCH,
            // Published, and yet to sign: the key before it goes on.
            signs_from: caracal_authority::Timestamp::from_seconds(4_000_000_000),
        };
        let tokens = provider_connections::SealedTokens {
            access_token: former("caracal/providerConnections/accessToken", b"at"),
            refresh_token: Some(former("caracal/providerConnections/refreshToken", b"rt")),
            expires_at: None,
        };
        commit(&world.store, &z, (row, tokens), |tx, (row, tokens)| {
            Box::pin(async move {
                signing_keys::add(tx, row).await?;
                let id = ConnectionId::parse("c-1").unwrap();
                assert!(provider_connections::replace_tokens(tx, &id, tokens).await?);
                Ok(())
            })
        })
        .await;
        let published = async |ring: &Arc<KekRing>| {
            let keys = SigningKeys::new(world.store.clone(), ring.clone()).jwks(&z).await.unwrap().unwrap();
            keys.keys.len()
        };
        world.opens_with(&new).await.unwrap();
        assert_eq!(published(&new).await, 2);
        // Also where the key stays the same: they are what is left to do.
        assert_eq!(world.check(&old).await.left(), 3);
        let done = world.rewrap(&new).await;
        assert_eq!((done.is_done(), done.rewrapped()), (true, 14));
        world.opens_with(&ring(NEW, None)).await.unwrap();
        assert_eq!(published(&ring(NEW, None)).await, 2);
        // Bound to their rows now: those of one zone do not open in the other.
        let (mine, theirs) = (connection_of(&world.store, &z).await, connection_of(&world.store, &zone("z-2")).await);
        let secrets = SealedSecrets::new(new.clone());
        let moved = secrets.open_token(ConnectionToken::Access, (&theirs).into(), &mine.access_token);
        assert!(matches!(moved, Err(CustodyError::Sealed { .. })));
    }

    #[tokio::test]
    async fn a_token_of_one_account_does_not_open_as_that_of_another() {
        let secrets = SealedSecrets::new(ring(OLD, None));
        let (z, y, p, q) = (zone("z-1"), zone("z-2"), provider(), ProviderId::parse("p-2").unwrap());
        let own = Account { zone: &z, provider: &p, subject: "user:1" };
        let sealed = secrets.seal_token(ConnectionToken::Access, own, &text("at")).unwrap();
        assert!(secrets.open_token(ConnectionToken::Access, own, &sealed).is_ok());
        assert!(secrets.open_token(ConnectionToken::Refresh, own, &sealed).is_err());
        for other in [
            Account { zone: &y, ..own },
            Account { provider: &q, ..own },
            Account { subject: "user:2", ..own },
            Account { subject: "user:1/accessToken", ..own },
            Account { subject: "", ..own },
        ] {
            assert!(secrets.open_token(ConnectionToken::Access, other, &sealed).is_err(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_opens_with_neither_key_is_told_and_keeps_the_old_key_needed() {
        let world = World::new().await;
        let (both, z) = (ring(NEW, Some(OLD)), zone("z-1"));
        let foreign = ring(THIRD, None).seal("lost", b"x").unwrap();
        commit(&world.store, &z, foreign, |tx, foreign| {
            Box::pin(async move {
                sealed_secrets::put(tx, "lost", foreign).await?;
                sealed_secrets::put(tx, "no-envelope", b"x").await?;
                Ok(())
            })
        })
        .await;
        let report = world.rewrap(&both).await;
        assert_eq!((report.rewrapped(), report.left(), report.failed(), report.is_done()), (12, 1, 2, false));
        let told: BTreeMap<_, _> =
            report.failures.iter().map(|failed| (failed.place.as_str(), failed.reason.as_str())).collect();
        let expected = [
            ("sealed_secrets.envelope of zone z-1, reference lost", "sealed under a different KEK"),
            ("sealed_secrets.envelope of zone z-1, reference no-envelope", "not a sealed envelope"),
        ];
        assert_eq!(told, BTreeMap::from(expected));
        // Everything else is done; the check is not, so a start without the old key says what is wrong.
        world.opens_with(&ring(NEW, None)).await.unwrap();
        assert!(kek::check(&world.store, &ring(NEW, None)).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_has_to_stop_writing_and_no_write_is_lost() {
        let world = Arc::new(World::new().await);
        let both = ring(NEW, Some(OLD));
        // Processes that were given the new key, and one that was not yet.
        let writers: Vec<_> = [both.clone(), both.clone(), ring(OLD, Some(NEW))]
            .into_iter()
            .enumerate()
            .map(|(number, ring)| {
                let world = world.clone();
                tokio::spawn(async move {
                    let secrets = SealedSecrets::new(ring);
                    for round in 0..20 {
                        let input = (secrets.clone(), format!("w-{number}"), format!("{number} {round}"));
                        commit(&world.store, &zone("z-1"), input, |tx, (secrets, reference, value)| {
                            Box::pin(async move { secrets.put(tx, reference, value.as_bytes()).await })
                        })
                        .await;
                    }
                })
            })
            .collect();
        let rewraps = {
            let (world, both) = (world.clone(), both.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    assert_eq!(world.rewrap(&both).await.failed(), 0);
                }
            })
        };
        for writer in writers {
            writer.await.unwrap();
        }
        rewraps.await.unwrap();
        assert!(world.rewrap(&both).await.is_done());
        let secrets = SealedSecrets::new(ring(NEW, None));
        let mut snapshot = world.store.snapshot().await.unwrap();
        for number in 0..3 {
            let opened = secrets.open(&mut snapshot.zone(&zone("z-1")), &format!("w-{number}")).await.unwrap().unwrap();
            assert_eq!(opened.expose(), format!("{number} 19").as_bytes());
        }
    }

    /// A vault without any sense of its own.
    #[derive(Default)]
    struct Vault {
        kept: Mutex<BTreeMap<String, Vec<u8>>>,
        /// What happens to a reference between it being read and it being compared.
        meanwhile: Mutex<Option<(String, Vec<u8>)>>,
        refuses: Mutex<Option<String>>,
    }

    impl SecretBackend for Vault {
        fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
            if self.refuses.lock().unwrap().as_deref() == Some(reference) {
                let down = BackendError { kind: "test", doing: "read", reason: "503".to_owned() };
                return Box::pin(std::future::ready(Err(down)));
            }
            let found = self.kept.lock().unwrap().get(reference).cloned();
            let mut meanwhile = self.meanwhile.lock().unwrap();
            if meanwhile.as_ref().is_some_and(|(of, _)| of == reference) {
                let (of, envelope) = meanwhile.take().unwrap();
                self.kept.lock().unwrap().insert(of, envelope);
            }
            Box::pin(std::future::ready(Ok(found)))
        }

        fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
            self.kept.lock().unwrap().insert(reference.to_owned(), envelope.to_vec());
            Box::pin(std::future::ready(Ok(())))
        }

        fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
            self.kept.lock().unwrap().remove(reference);
            Box::pin(std::future::ready(Ok(())))
        }
    }

    pub(super) async fn add_applications(world: &World) {
        for name in ZONES {
            for number in 1..=2 {
                let now = world.store.now();
                let row = Application {
                    zone_id: zone(name),
                    id: ApplicationId::parse(&format!("{name}-app-{number}")).unwrap(),
                    name: format!("app {number}"),
                    registration_method: "managed".to_owned(),
                    traits: Vec::new(),
                    secret_hash: Some("argon2id$a$b".to_owned()),
                    expires_at: None,
                    archived_at: None,
                    attribution: Attribution::created("test", now),
                };
                commit(&world.store, &zone(name), row, |tx, row| {
                    Box::pin(async move { Ok(applications::add(tx, row).await?) })
                })
                .await;
            }
        }
    }

    #[tokio::test]
    async fn what_lies_in_a_backend_is_sealed_anew_as_well() {
        let world = World::new().await;
        add_applications(&world).await;
        let (vault, both, new) = (Arc::new(Vault::default()), ring(NEW, Some(OLD)), ring(NEW, None));
        let reference = |name: &str, number: u32| {
            application_secret_ref(&zone(name), &ApplicationId::parse(&format!("{name}-app-{number}")).unwrap())
        };
        let old = ring(OLD, None);
        let put = |reference: &str| {
            let sealed = old.seal(reference, reference.as_bytes()).unwrap();
            vault.kept.lock().unwrap().insert(reference.to_owned(), sealed);
        };
        // One of the four is not there: it was made before secrets were kept.
        let (first, second, third) = (reference("z-1", 1), reference("z-1", 2), reference("z-2", 1));
        for reference in [&first, &second, &third] {
            put(reference);
        }
        let rewrap = || Rewrap::new(both.clone(), Some(vault.clone())).in_batches_of(1);
        let checked = rewrap().run(&world.store, Mode::Check, |_| Next::GoOn).await.unwrap();
        assert_eq!(counts_of(&checked, "secrets of applications in the backend"), (0, 0, 3, 0));
        assert_eq!(counts_of(&checked, "secrets of providers in the backend"), (0, 0, 0, 0));
        // One can't be read, and one is changed in this very moment by a process that was not given the new key yet.
        *vault.refuses.lock().unwrap() = Some(third.clone());
        let theirs = old.seal(&second, b"theirs").unwrap();
        *vault.meanwhile.lock().unwrap() = Some((second.clone(), theirs));
        let report = rewrap().run(&world.store, Mode::Rewrap, |_| Next::GoOn).await.unwrap();
        assert_eq!(counts_of(&report, "secrets of applications in the backend"), (0, 2, 0, 1));
        assert!(!report.is_done(), "the check of the key waits for what is in the backend");
        assert_eq!(report.failures[0].place, third);
        *vault.refuses.lock().unwrap() = None;
        assert!(rewrap().run(&world.store, Mode::Rewrap, |_| Next::GoOn).await.unwrap().is_done());
        let kept = vault.kept.lock().unwrap();
        for (reference, expected) in [(&first, first.as_str()), (&second, "theirs"), (&third, third.as_str())] {
            let opened = new.open(reference, &kept[reference]).unwrap();
            assert_eq!(opened.expose(), expected.as_bytes(), "{reference}");
        }
    }

    /// The check itself, damaged, is no consent to anything.
    #[tokio::test]
    async fn a_damaged_check_of_the_key_is_told_and_left_alone() {
        let world = World::new().await;
        let damaged: Result<(), StoreError> =
            world.store.commit_deployment((), |tx, ()| Box::pin(deployment::put(tx, "kek_check", "damaged"))).await;
        damaged.unwrap();
        let report = world.rewrap(&ring(NEW, Some(OLD))).await;
        assert_eq!(counts(&report).last(), Some(&(0, 0, 0, 1)));
        assert_eq!(report.failures[0].place, "caracal/deployment/kekCheck");
    }
}
