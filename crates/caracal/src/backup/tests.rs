//! Archives that are whole, archives that are not, and what is there after a crash at any step.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use caracal_authority::Timestamp;
use caracal_crypto::chance::uuid_v7;
use caracal_crypto::hmac::{HmacKey, HmacRing, sha256_hex};
use caracal_ledger::{AdminRecord, ChainKey, HeadsObserver, Ledger};
use caracal_store::{ManualClock, OpenError, SqliteOptions, Store, StoreError, SystemClock};
use serde_json::Value;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::settings::{Environment, SecretFiles};

const OTHER_KEY: &str = "8f3d9a712c45e6b0d18f2a4c6e9b3d57a1c4f8020e6a9c3d5b7f1a2c4e6d8b90";

/// A running system as a backup sees it: a store with a ledger, its heads, and key files.
struct World {
    place: TempDir,
    store: Store,
    heads: Arc<HeadsObserver>,
    ledger: Ledger,
    key: Arc<HmacRing>,
}

impl World {
    async fn with_records(count: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let store = Store::open(&SqliteOptions::in_directory(&data), Arc::new(SystemClock)).unwrap();
        let key = SecretFiles::in_data_dir(&data).load_or_create(&Environment::default()).unwrap().audit;
        let chain_key: Arc<dyn ChainKey> = key.clone();
        let heads = Arc::new(HeadsObserver::open(&data, chain_key.clone()).unwrap());
        store.observe(heads.clone());
        let world = Self { place, store, heads, ledger: Ledger::new(Some(chain_key)), key };
        for _ in 0..count {
            world.record().await;
        }
        fs::create_dir(world.path("out")).unwrap();
        world
    }

    async fn record(&self) {
        record(&self.store, &self.ledger).await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn secrets(&self) -> PathBuf {
        self.path("data/secrets")
    }

    fn making<'a>(&'a self, data_dir: &'a Path, to: &'a Path) -> Making<'a> {
        let now = Timestamp::from_seconds(1_800_000_000);
        Making { data_dir, to, force: false, with_secrets: false, key: Some(self.key.as_ref()), now }
    }

    /// A sealed archive without keys.
    fn archive(&self) -> PathBuf {
        self.archive_by(|_| ())
    }

    fn archive_by(&self, ask: impl FnOnce(&mut Making<'_>)) -> PathBuf {
        let (data, to) = (self.data(), self.path("archive.tar"));
        let mut making = self.making(&data, &to);
        making.force = true;
        ask(&mut making);
        make(&making, &mut |_| ()).unwrap();
        to
    }

    async fn stop(&self) {
        self.store.close().await;
        self.heads.close().unwrap();
    }

    /// Restores into `out/restored` with this deployment's keys.
    async fn bring_back(&self, from: &Path) -> Result<Restored, RestoreError> {
        self.bring_back_by(from, |_| ()).await
    }

    async fn bring_back_by(&self, from: &Path, ask: impl FnOnce(&mut Restoring<'_>)) -> Result<Restored, RestoreError> {
        let (target, secrets, environment) = (self.path("out/restored"), self.secrets(), Environment::default());
        let mut restoring = restoring(from, &target, &environment);
        restoring.secrets = Some(&secrets);
        ask(&mut restoring);
        restore(&restoring, &mut |_| ()).await
    }

    /// Restoring is refused, and nothing is left of the attempt.
    async fn refused(&self, from: &Path) -> String {
        let Err(refused) = self.bring_back(from).await else { panic!("{} was restored", from.display()) };
        self.nothing_is_left();
        said(&refused)
    }

    fn nothing_is_left(&self) {
        assert_eq!(names_in(&self.path("out")), BTreeSet::new());
    }
}

async fn record(store: &Store, ledger: &Ledger) {
    let now = store.now();
    let record = AdminRecord {
        id: uuid_v7(now).unwrap().to_string(),
        request_id: "r".to_owned(),
        actor_id: None,
        actor_name: None,
        actor_scope: None,
        action: "test".to_owned(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        zone: None,
        entity_type: None,
        entity_id: None,
        status_code: 200,
        payload: None,
        occurred_at: now,
    };
    let done: Result<(), StoreError> = store
        .commit_deployment((ledger.clone(), record), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
        })
        .await;
    done.unwrap();
}

fn restoring<'a>(from: &'a Path, data_dir: &'a Path, environment: &'a Environment) -> Restoring<'a> {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_900_000_000)));
    Restoring { from, data_dir, secrets: None, accept_unsealed: false, environment, clock }
}

fn said(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    said
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names_in(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy_tree(&from, &to) } else { fs::copy(&from, &to).map(|_| ()).unwrap() }
    }
}

/// The members of an archive, as somebody has them who takes it apart.
fn members(archive: &Path) -> Vec<(String, Vec<u8>)> {
    let mut read = tar::Archive::new(fs::File::open(archive).unwrap());
    let entries = read.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), content)
    });
    entries.collect()
}

/// An archive of any members, put together without asking what they are.
fn put_together(to: &Path, members: &[(String, Vec<u8>)]) {
    let plain =
        |(name, content): &(String, Vec<u8>)| (name.clone(), EntryType::Regular, String::new(), content.clone());
    put_together_of_kinds(to, &members.iter().map(plain).collect::<Vec<_>>());
}

fn put_together_of_kinds(to: &Path, members: &[(String, EntryType, String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(fs::File::create(to).unwrap());
    for (name, kind, link, content) in members {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap();
}

/// Changes the manifest, and leaves its seal as it was.
fn with_manifest(archive: &Path, change: impl FnOnce(&mut Value)) {
    let mut members = members(archive);
    let mut manifest: Value = serde_json::from_slice(&members[0].1).unwrap();
    change(&mut manifest);
    members[0].1 = serde_json::to_vec(&manifest).unwrap();
    put_together(archive, &members);
}

fn without_seal(archive: &Path) {
    let mut members = members(archive);
    members.retain(|(name, _)| name != "manifest.hmac");
    put_together(archive, &members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_load_has_every_acknowledged_change_and_verifies() {
    let world = Arc::new(World::with_records(1).await);
    let (acknowledged, ended) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (world, acknowledged, ended) = (world.clone(), acknowledged.clone(), ended.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    world.record().await;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=4 {
        while acknowledged.load(Ordering::Relaxed) < round * 100 {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(Ordering::Relaxed);
        let archive = tokio::task::block_in_place(|| world.archive());
        let restored = world.bring_back(&archive).await.unwrap();
        let found = &restored.manifest.ledger;
        assert!(found.seals_checked && found.chains[0].chain_seq >= before, "{found:?} after {before}");
        assert_eq!(restored.ledger.chains[0].chain_seq, found.chains[0].chain_seq + 1, "the restore is on record");
        fs::remove_dir_all(world.path("out/restored")).unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

/// The heads must not know of a commit that the copy has not: it would look like an end that was cut off.
#[tokio::test(flavor = "multi_thread")]
async fn changes_made_at_any_step_leave_the_ledger_in_it_whole() {
    let world = World::with_records(1).await;
    let (data, to) = (world.data(), world.path("out/archive.tar"));
    let mut made = 1;
    let made_by = tokio::task::block_in_place(|| {
        make(&world.making(&data, &to), &mut |_| {
            made += 1;
            tokio::runtime::Handle::current().block_on(world.record());
        })
    });
    let events = made_by.unwrap().manifest.ledger.events;
    assert!(1 < events && events < made, "{events} of {made}: some came before the copy, some after");
    world.bring_back(&to).await.unwrap();
}

#[tokio::test]
async fn a_restored_directory_is_a_store_with_the_same_ledger_and_one_record_more() {
    let world = World::with_records(3).await;
    let archive = world.archive();
    world.stop().await;
    let restored = world.bring_back(&archive).await.unwrap();
    assert_eq!((restored.vouched, restored.has_secrets), (Vouched::ByKey, true));
    assert_eq!((restored.manifest.ledger.events, restored.ledger.events), (3, 4));
    let target = world.path("out/restored");
    assert_eq!(names_in(&world.path("out")), ["restored".to_owned()].into());
    let store = Store::open(&SqliteOptions::in_directory(&target), Arc::new(SystemClock)).unwrap();
    // It goes on as any other: its heads and its keys are its own.
    let key: Arc<dyn ChainKey> =
        SecretFiles::in_data_dir(&target).load_audit_key(&Environment::default()).unwrap().unwrap();
    let heads = Arc::new(HeadsObserver::open(&target, key.clone()).unwrap());
    store.observe(heads.clone());
    record(&store, &Ledger::new(Some(key.clone()))).await;
    store.close().await;
    heads.close().unwrap();
    let report = crate::commands::verify_with_key(&target, key.as_ref(), |_, _| ()).map_err(|failure| failure.0);
    assert!(report.unwrap().is_intact());
}

#[cfg(unix)]
#[tokio::test]
async fn t05_secrets_what_is_made_is_the_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_records(1).await;
    let archive = world.archive_by(|making| making.with_secrets = true);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&archive), 0o600);
    world.bring_back_by(&archive, |asked| (asked.secrets, asked.accept_unsealed) = (None, true)).await.unwrap();
    let restored = world.path("out/restored");
    assert_eq!((mode(&restored), mode(&restored.join("secrets"))), (0o700, 0o700));
    for file in ["caracal.db", "heads.log", "secrets/auditHmacKey", "secrets/secretStoreKek"] {
        assert_eq!(mode(&restored.join(file)), 0o600, "{file}");
    }
}

mod refusals_of_a_backup {
    use super::*;

    fn refused(making: &Making<'_>) -> String {
        let Err(error) = make(making, &mut |_| ()) else { panic!("a backup was made") };
        said(&error)
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_replaced_only_by_force() {
        let world = World::with_records(1).await;
        let (data, to) = (world.data(), world.path("out/archive.tar"));
        fs::write(&to, "precious").unwrap();
        let message = refused(&world.making(&data, &to));
        assert!(message.contains("--force"), "{message}");
        assert_eq!(fs::read(&to).unwrap(), b"precious");
        make(&Making { force: true, ..world.making(&data, &to) }, &mut |_| ()).unwrap();
        assert!(archive::read_cover(&to).is_ok());
        fs::remove_file(&to).unwrap();
        fs::create_dir(&to).unwrap();
        let message = refused(&Making { force: true, ..world.making(&data, &to) });
        assert!(message.contains("is there already"), "a directory is no archive to replace: {message}");
    }

    /// Two of them could look at the same moment, so looking first is not enough.
    #[tokio::test]
    async fn a_file_that_came_to_be_meanwhile_is_not_replaced() {
        let world = World::with_records(1).await;
        let (data, to) = (world.data(), world.path("out/archive.tar"));
        let done = make(&world.making(&data, &to), &mut |step| {
            if step == Step::Naming {
                fs::write(&to, "precious").unwrap();
            }
        });
        assert!(matches!(done, Err(BackupError::Exists { .. })));
        assert_eq!(fs::read(&to).unwrap(), b"precious");
        assert_eq!(names_in(&world.path("out")), ["archive.tar".to_owned()].into());
    }

    #[tokio::test]
    async fn two_at_one_target_do_not_meet() {
        let world = World::with_records(1).await;
        let (data, to) = (world.data(), world.path("out/archive.tar"));
        let mut refusals = 0;
        make(&world.making(&data, &to), &mut |_| {
            let second = make(&world.making(&data, &to), &mut |_| ());
            refusals += usize::from(matches!(second, Err(BackupError::Workshop(WorkshopError::InUse { .. }))));
        })
        .unwrap();
        assert!(refusals > 4, "{refusals}");
    }

    #[tokio::test]
    async fn a_ledger_that_does_not_verify_is_not_buried_in_a_backup() {
        let world = World::with_records(2).await;
        let (data, to, older) = (world.data(), world.path("out/archive.tar"), world.path("older"));
        copy_tree(&world.data(), &older);
        world.record().await;
        world.stop().await;
        fs::copy(world.path("data/heads.log"), older.join("heads.log")).unwrap();
        let message = refused(&world.making(&older, &to));
        assert!(message.contains("does not verify") && message.contains("audit verify"), "{message}");
        let other = HmacRing::from(HmacKey::from_hex(OTHER_KEY).unwrap());
        let message = refused(&Making { key: Some(&other), ..world.making(&data, &to) });
        assert!(message.contains("AUDIT_HMAC_KEY"), "{message}");
        fs::remove_file(older.join("heads.log")).unwrap();
        let message = refused(&world.making(&older, &to));
        assert!(message.contains("no heads.log"), "{message}");
        let nowhere = world.path("nowhere");
        let message = refused(&world.making(&nowhere, &to));
        assert!(message.contains("nowhere"), "{message}");
        world.nothing_is_left();
        assert!(!nowhere.exists());
    }
}

mod t17_rollback {
    use super::*;

    #[tokio::test]
    async fn the_copy_out_of_an_archive_is_refused_as_a_store() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        let by_hand = world.path("by-hand");
        fs::create_dir(&by_hand).unwrap();
        for (name, content) in members(&archive) {
            match name.as_str() {
                "store.db" => fs::write(by_hand.join("caracal.db"), content).unwrap(),
                "heads.log" => fs::write(by_hand.join("heads.log"), content).unwrap(),
                _ => {}
            }
        }
        let opened = Store::open(&SqliteOptions::in_directory(&by_hand), Arc::new(SystemClock));
        assert!(matches!(opened, Err(OpenError::Copy { .. })));
    }

    #[tokio::test]
    async fn a_target_with_something_in_it_is_left_as_it_is() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        let target = world.path("out/restored");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), "precious").unwrap();
        let refused = world.bring_back(&archive).await.unwrap_err();
        assert!(matches!(refused, RestoreError::NotEmpty { .. }));
        assert_eq!(names_in(&target), ["mine".to_owned()].into());
        fs::remove_file(target.join("mine")).unwrap();
        world.bring_back(&archive).await.unwrap();
        assert!(target.join("caracal.db").exists(), "an empty directory is as good as none");
    }

    #[tokio::test]
    async fn one_that_was_filled_meanwhile_is_left_too() {
        let world = World::with_records(1).await;
        let (archive, target, environment) = (world.archive(), world.path("out/restored"), Environment::default());
        let secrets = world.secrets();
        let mut restoring = restoring(&archive, &target, &environment);
        restoring.secrets = Some(&secrets);
        let mut fill = |step| {
            if step == Step::Naming {
                fs::create_dir(&target).unwrap();
                fs::write(target.join("mine"), "precious").unwrap();
            }
        };
        assert!(restore(&restoring, &mut fill).await.is_err());
        assert_eq!(names_in(&target), ["mine".to_owned()].into());
        assert_eq!(names_in(&world.path("out")), ["restored".to_owned()].into());
    }
}

mod t06_evidence {
    use super::*;

    #[tokio::test]
    async fn an_archive_that_is_cut_short_is_refused() {
        let world = World::with_records(1).await;
        let whole = fs::read(world.archive()).unwrap();
        // Two empty blocks end an archive; nothing is lost with them.
        let content = whole.len() - 1024;
        let cut = world.path("cut.tar");
        let places = (0..content).step_by(content / 40).chain([1, 511, 512, 513, content - 513, content - 1]);
        for length in places {
            fs::write(&cut, &whole[..length]).unwrap();
            let message = world.refused(&cut).await;
            assert!(message.contains("damaged") || message.contains("not a backup"), "{length}: {message}");
        }
    }

    #[tokio::test]
    async fn one_changed_byte_anywhere_is_noticed() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        let whole = fs::read(&archive).unwrap();
        let mut places = Vec::new();
        for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let (header, content) = (entry.raw_header_position() as usize, entry.raw_file_position() as usize);
            let size = entry.size() as usize;
            places.extend([header, header + 124, header + 156]);
            places.extend((0..size).step_by((size / 16).max(1)).map(|at| content + at));
            places.extend((size > 0).then(|| content + size - 1));
        }
        assert!(places.len() > 40);
        let altered = world.path("altered.tar");
        for at in places {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x01;
            fs::write(&altered, bytes).unwrap();
            world.refused(&altered).await;
        }
    }

    /// Who can write an archive can write its hashes, too. What he lacks is the key.
    #[tokio::test]
    async fn new_hashes_over_another_store_do_not_match_the_seal() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        let mut forged = members(&archive);
        let store = forged.iter_mut().find(|(name, _)| name == "store.db").unwrap();
        let last = store.1.len() - 1;
        store.1[last] ^= 1;
        let hash = sha256_hex(&store.1);
        put_together(&archive, &forged);
        with_manifest(&archive, |manifest| manifest["parts"][1]["sha256"] = hash.into());
        let message = world.refused(&archive).await;
        assert!(message.contains("seal does not match"), "{message}");
        without_seal(&archive);
        let message = world.refused(&archive).await;
        assert!(message.contains("not sealed") && message.contains("--accept-unsealed"), "{message}");
    }

    #[tokio::test]
    async fn an_accepted_archive_still_has_to_verify() {
        let world = World::with_records(2).await;
        let archive = world.archive_by(|making| making.key = None);
        let message = world.refused(&archive).await;
        assert!(message.contains("not sealed"), "{message}");
        let restored = world.bring_back_by(&archive, |asked| asked.accept_unsealed = true).await.unwrap();
        assert_eq!(restored.vouched, Vouched::ByNobody);
        fs::remove_dir_all(world.path("out/restored")).unwrap();
        // An older store under newer heads: the end was cut off.
        world.record().await;
        let newer = fs::read(world.path("data/heads.log")).unwrap();
        let mut forged = members(&archive);
        forged.iter_mut().find(|(name, _)| name == "heads.log").unwrap().1 = newer.clone();
        put_together(&archive, &forged);
        with_manifest(&archive, |manifest| {
            manifest["parts"][0]["sha256"] = sha256_hex(&newer).into();
            manifest["parts"][0]["bytes"] = newer.len().into();
        });
        let refused = world.bring_back_by(&archive, |asked| asked.accept_unsealed = true).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Ledger(LedgerError::Broken(_))), "{}", said(&refused));
        world.nothing_is_left();
    }

    #[tokio::test]
    async fn another_deployment_s_key_is_told_apart() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        let environment = Environment::of([("AUDIT_HMAC_KEY", OTHER_KEY)]);
        let target = world.path("out/restored");
        let refused = restore(&restoring(&archive, &target, &environment), &mut |_| ()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::WrongKey), "{}", said(&refused));
        without_seal(&archive);
        let mut restoring = restoring(&archive, &target, &environment);
        restoring.accept_unsealed = true;
        let refused = restore(&restoring, &mut |_| ()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Ledger(LedgerError::WrongKey(_))), "{}", said(&refused));
        let none = Environment::default();
        restoring.environment = &none;
        let refused = restore(&restoring, &mut |_| ()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::NoKey), "{}", said(&refused));
        world.nothing_is_left();
    }

    /// A key that came with what it vouches for vouches for nothing.
    #[tokio::test]
    async fn an_archive_with_its_own_keys_is_not_its_own_witness() {
        let world = World::with_records(1).await;
        let archive = world.archive_by(|making| making.with_secrets = true);
        let (target, none) = (world.path("out/restored"), Environment::default());
        let mut asked = restoring(&archive, &target, &none);
        let refused = restore(&asked, &mut |_| ()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::OnlyItself), "{}", said(&refused));
        asked.accept_unsealed = true;
        let restored = restore(&asked, &mut |_| ()).await.unwrap();
        assert_eq!((restored.vouched, restored.has_secrets), (Vouched::ByItself, true));
        fs::remove_dir_all(&target).unwrap();
        let key = fs::read_to_string(world.secrets().join("auditHmacKey")).unwrap();
        let elsewhere = Environment::of([("AUDIT_HMAC_KEY", key.trim())]);
        let restored = restore(&restoring(&archive, &target, &elsewhere), &mut |_| ()).await.unwrap();
        assert_eq!(restored.vouched, Vouched::ByKey);
        assert_eq!(names_in(&target.join("secrets")), names_in(&world.secrets()));
        fs::remove_dir_all(&target).unwrap();
        assert!(matches!(world.bring_back(&archive).await, Err(RestoreError::TwoSecrets)));
        let empty = tempfile::tempdir().unwrap();
        let archive = world.archive();
        let mut asked = restoring(&archive, &target, &none);
        asked.secrets = Some(empty.path());
        let refused = restore(&asked, &mut |_| ()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::NoKeyFiles { .. }));
        world.nothing_is_left();
    }
}

mod t17_rollback_archives {
    use super::*;

    #[tokio::test]
    async fn what_is_no_backup_is_said_to_be_none() {
        let world = World::with_records(1).await;
        let file = world.path("foreign");
        let other = [("manifest.json".to_owned(), br#"{"product": "other", "format": 1}"#.to_vec())];
        for content in [Vec::new(), b"somebody else's data".to_vec(), vec![0; 4096], vec![0xFF; 4096]] {
            fs::write(&file, content).unwrap();
            let message = world.refused(&file).await;
            assert!(message.contains("not a backup"), "{message}");
        }
        for members in [&other[..], &[("readme".to_owned(), b"x".to_vec())]] {
            put_together(&file, members);
            let message = world.refused(&file).await;
            assert!(message.contains("not a backup"), "{message}");
        }
        let message = world.refused(&world.data()).await;
        assert!(message.contains("no file"), "{message}");
        let message = world.refused(&world.path("nowhere")).await;
        assert!(message.contains("can't read"), "{message}");
    }

    #[tokio::test]
    async fn a_newer_format_or_schema_asks_for_a_newer_version() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        with_manifest(&archive, |manifest| {
            manifest["schema"] = 4_000.into();
            manifest["version"] = "9.8.7".into();
        });
        let message = world.refused(&archive).await;
        assert!(message.contains("schema 4000") && message.contains("9.8.7"), "{message}");
        with_manifest(&archive, |manifest| {
            manifest["format"] = 2.into();
            manifest["unheard_of"] = true.into();
        });
        let message = world.refused(&archive).await;
        assert!(message.contains("format 2"), "{message}");
    }

    /// Nothing in an archive says where anything is written to: not by a path that leads out, not by a link, and not by
    /// a manifest that agrees with either. All of it goes without a seal, so that nothing but this refuses it.
    #[tokio::test]
    async fn no_path_leads_out_of_the_target() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        without_seal(&archive);
        let whole = members(&archive);
        let escaped = world.path("escaped");
        for name in
            ["../escaped", "../../escaped", "secrets/../../../escaped", "secrets/escaped", escaped.to_str().unwrap()]
        {
            let mut more = whole.clone();
            more.push((name.to_owned(), b"evil".to_vec()));
            put_together(&archive, &more);
            refused_whatever_vouches(&world, &archive, "does not belong").await;
            with_manifest(&archive, |manifest| {
                let part = serde_json::json!({"name": name, "bytes": 4, "sha256": sha256_hex(b"evil")});
                manifest["parts"].as_array_mut().unwrap().push(part);
                manifest["with_secrets"] = true.into();
            });
            refused_whatever_vouches(&world, &archive, "too much or not at all").await;
        }
        assert!(!escaped.exists());
    }

    #[tokio::test]
    async fn only_plain_files_in_their_order_are_taken() {
        let world = World::with_records(1).await;
        let archive = world.archive();
        without_seal(&archive);
        let plain = |(name, content): (String, Vec<u8>)| (name, EntryType::Regular, String::new(), content);
        let whole: Vec<_> = members(&archive).into_iter().map(plain).collect();
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Fifo, EntryType::GNUSparse] {
            let mut odd = whole.clone();
            odd[1] = ("heads.log".to_owned(), kind, "/etc/passwd".to_owned(), Vec::new());
            put_together_of_kinds(&archive, &odd);
            refused_whatever_vouches(&world, &archive, "").await;
        }
        // A long name before a member would give it another one.
        let mut odd = whole.clone();
        let long = ("././@LongLink".to_owned(), EntryType::GNULongName, String::new(), b"../escaped\0".to_vec());
        odd.insert(1, long);
        put_together_of_kinds(&archive, &odd);
        refused_whatever_vouches(&world, &archive, "not a plain file").await;
        let mut odd = whole.clone();
        odd.swap(1, 2);
        put_together_of_kinds(&archive, &odd);
        refused_whatever_vouches(&world, &archive, "lies where").await;
        let mut odd = whole.clone();
        odd.pop();
        put_together_of_kinds(&archive, &odd);
        refused_whatever_vouches(&world, &archive, "is missing").await;
        put_together_of_kinds(&archive, &whole);
        with_manifest(&archive, |manifest| {
            let parts = manifest["parts"].as_array_mut().unwrap();
            parts.push(parts[0].clone());
        });
        refused_whatever_vouches(&world, &archive, "too much").await;
    }

    async fn refused_whatever_vouches(world: &World, archive: &Path, why: &str) {
        let (target, environment) = (world.path("out/restored"), Environment::of([("AUDIT_HMAC_KEY", OTHER_KEY)]));
        let mut asked = restoring(archive, &target, &environment);
        asked.accept_unsealed = true;
        let refused = restore(&asked, &mut |_| ()).await.unwrap_err();
        let message = said(&refused);
        assert!(matches!(refused, RestoreError::Archive(_)) && message.contains(why), "{message}");
        world.nothing_is_left();
    }
}

mod crashes {
    use super::*;

    /// What a kill leaves is what lies there at that moment. So every moment is kept, and looked at afterwards.
    #[tokio::test]
    async fn a_backup_that_is_killed_leaves_none_or_a_whole_one() {
        let world = World::with_records(2).await;
        let (data, to, moments) = (world.data(), world.path("out/archive.tar"), world.path("moments"));
        let mut steps = Vec::new();
        make(&world.making(&data, &to), &mut |step| {
            copy_tree(&world.path("out"), &moments.join(steps.len().to_string()));
            steps.push(step);
        })
        .unwrap();
        assert!(steps.len() > 6 && steps.last() == Some(&Step::Named), "{steps:?}");
        for (moment, step) in steps.iter().enumerate() {
            let to = moments.join(moment.to_string()).join("archive.tar");
            if *step == Step::Named {
                world.bring_back(&to).await.unwrap();
                continue;
            }
            assert!(!to.exists(), "at {step:?}");
            make(&world.making(&data, &to), &mut |_| ()).unwrap();
            let left = names_in(&moments.join(moment.to_string()));
            assert_eq!(left, ["archive.tar".to_owned()].into(), "at {step:?}");
        }
    }

    #[tokio::test]
    async fn a_restore_that_is_killed_leaves_none_or_a_whole_one() {
        let world = World::with_records(2).await;
        let (archive, target, moments) = (world.archive(), world.path("out/restored"), world.path("moments"));
        let (secrets, environment) = (world.secrets(), Environment::default());
        let asked = Restoring { secrets: Some(&secrets), ..restoring(&archive, &target, &environment) };
        let mut steps = Vec::new();
        let mut keep = |step| {
            copy_tree(&world.path("out"), &moments.join(steps.len().to_string()));
            steps.push(step);
        };
        let whole = restore(&asked, &mut keep).await.unwrap().ledger.events;
        assert!(steps.len() > 5 && steps.contains(&Step::Ending) && steps.last() == Some(&Step::Named), "{steps:?}");
        for (moment, step) in steps.iter().enumerate() {
            let out = moments.join(moment.to_string());
            let target = out.join("restored");
            if *step == Step::Named {
                let report = crate::commands::verify_with_key(&target, world.key.as_ref(), |_, _| ());
                assert_eq!(report.map_err(|failure| failure.0).unwrap().rows(), whole);
                continue;
            }
            assert!(!target.exists(), "at {step:?}");
            let again = Restoring { secrets: Some(&secrets), ..restoring(&archive, &target, &environment) };
            assert_eq!(restore(&again, &mut |_| ()).await.unwrap().ledger.events, whole, "at {step:?}");
            assert_eq!(names_in(&out), ["restored".to_owned()].into(), "at {step:?}");
        }
    }
}
