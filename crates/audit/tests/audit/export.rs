//! Evidence in an archive: each event once, whatever happens on the way (contract: audit-and-streams.md §5.6, §13).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use caracal_audit::{Archive, ArchiveError, AuditConfig, DirectoryArchive, Object, Put};
use caracal_ledger::{Decision, Evidence, Metadata, MetadataKey};
use caracal_store::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::parquet;
use crate::world::{NOON, World, configured, event, until};

const HOUR: i64 = 3_600;

/// What becomes of the objects that come: as the process would have it, or as a machine has it that dies.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Gone before anything of it was written.
    Lost,
    /// Half of it lies there under the draft's name.
    Half,
    /// It is there, and who wrote it never hears of that.
    Unheard,
}

/// A directory, and fates for the first objects that come.
struct Fated {
    directory: DirectoryArchive,
    root: PathBuf,
    fates: Mutex<VecDeque<Fate>>,
}

impl Archive for Fated {
    fn put<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Put, ArchiveError>> {
        let fate = self.fates.lock().unwrap().pop_front();
        Box::pin(async move {
            let died = Err(ArchiveError("died".to_owned()));
            match fate {
                None => self.directory.put(object).await,
                Some(Fate::Lost) => died,
                Some(Fate::Half) => {
                    let draft = self.root.join(&object.key).with_extension("parquet.part");
                    std::fs::create_dir_all(draft.parent().unwrap()).unwrap();
                    std::fs::write(draft, &object.bytes[..object.bytes.len() / 2]).unwrap();
                    died
                }
                Some(Fate::Unheard) => {
                    self.directory.put(object).await.unwrap();
                    died
                }
            }
        })
    }
}

struct Exporting {
    world: World,
    archive: Arc<Fated>,
    root: tempfile::TempDir,
}

impl Exporting {
    async fn new() -> Self {
        Self::with(configured()).await
    }

    async fn with(config: AuditConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let archive = Arc::new(Fated {
            directory: DirectoryArchive::new(root.path().join("archive")),
            root: root.path().join("archive"),
            fates: Mutex::default(),
        });
        let world = World::with_archive(config, archive.clone()).await;
        Self { world, archive, root }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("archive")
    }

    /// Runs the export until it has nothing left to do, or has failed once more.
    async fn export(&self) {
        let errors = self.metric("export_errors_total").await;
        let (stop, stopped) = watch::channel(false);
        let exporting = tokio::spawn(self.world.audit.clone().run_export(stopped));
        until("exported", async || {
            self.metric("export_errors_total").await > errors
                || self.is_complete().await && self.metric("export_backlog_hours").await == 0
        })
        .await;
        stop.send_replace(true);
        exporting.await.unwrap();
    }

    async fn is_complete(&self) -> bool {
        let mut snapshot = self.world.store.snapshot().await.unwrap();
        let now = self.world.store.now().as_seconds();
        let exported = caracal_store::exports::find(&mut snapshot.deployment()).await.unwrap();
        exported.is_some_and(|exported| exported.planned.is_none() && exported.hour == now - now % HOUR - HOUR)
    }

    async fn metric(&self, name: &str) -> i64 {
        self.world.metrics().await[name].as_i64().unwrap()
    }

    /// What lies in the archive: by name, the events with zone and position.
    fn objects(&self) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        walk(&self.path(), &mut |path| {
            let name = path.strip_prefix(self.path()).unwrap().to_str().unwrap().to_owned();
            let rows = parquet::rows(&std::fs::read(path).unwrap());
            let said = |row: &Value| format!("{}/{}", row["zone_id"].as_str().unwrap(), row["chain_seq"]);
            found.insert(name, rows.iter().map(said).collect());
        });
        found
    }

    /// One event of each of two zones, in each of `hours` hours.
    async fn record(&self, hours: std::ops::Range<i64>) {
        for hour in hours {
            for zone in ["z-1", "z-2"] {
                self.world.record(vec![event(zone, &format!("e-{hour}"), hour * HOUR * 1_000_000)]).await;
            }
            self.world.clock.advance(HOUR);
        }
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, see) } else { see(&path) }
    }
}

fn object(name: &str, events: &[&str]) -> (String, Vec<String>) {
    (format!("audit/2026/01/01/2026-01-01T{name}.parquet"), events.iter().map(|&event| event.to_owned()).collect())
}

mod t06_evidence_export {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fresh_archive_begins_with_the_last_hour_and_goes_on_by_the_hour() {
        let of = Exporting::new().await;
        of.record(0..2).await;
        of.export().await;
        let first = object("13", &["z-1/2", "z-2/2"]);
        assert_eq!(of.objects(), BTreeMap::from([first.clone()]), "what is older stays in the ledger alone");
        assert_eq!((of.metric("export_events_total").await, of.metric("export_backlog_hours").await), (2, 0));
        of.export().await;
        assert_eq!(of.objects().len(), 1, "safe to run twice");
        of.world.clock.advance(HOUR);
        of.export().await;
        assert_eq!(of.objects().len(), 1, "an hour without events has no object");
        of.record(3..5).await;
        of.export().await;
        let (one, two) = (object("15", &["z-1/3", "z-2/3"]), object("16", &["z-1/4", "z-2/4"]));
        assert_eq!(of.objects(), BTreeMap::from([first, one, two]), "two hours behind, two objects");
        assert_eq!(of.metric("export_errors_total").await, 0);
        assert_eq!(of.metric("export_lease_changes_total").await, 8, "for four runs");
    }

    /// An event that was stored in an hour whose object is there already lies behind the mark.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_whose_commit_was_slow_comes_with_the_next_hour() {
        let of = Exporting::new().await;
        of.record(0..1).await;
        of.export().await;
        of.world.clock.advance(-1);
        of.world.record(vec![event("z-1", "slow", 1)]).await;
        of.world.clock.advance(HOUR + 1);
        of.export().await;
        let expected = [object("12", &["z-1/1", "z-2/1"]), object("13", &["z-1/2"])];
        assert_eq!(of.objects(), BTreeMap::from(expected));
    }

    /// Killed at each write point, at every object of three: before the object, in it, and behind it. What is appended
    /// before the process comes back is in no object that was begun before.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_event_is_in_the_archive_once_wherever_the_process_was_killed() {
        for fate in [Fate::Lost, Fate::Half, Fate::Unheard] {
            let of = Exporting::new().await;
            of.record(0..1).await;
            of.export().await;
            of.record(1..3).await;
            for killed in 0..2 {
                of.archive.fates.lock().unwrap().push_back(fate);
                of.export().await;
                // Stored in an hour that has its plan, or its object.
                of.world.clock.advance(-1);
                of.world.record(vec![event("z-1", &format!("late-{killed}"), 1)]).await;
                of.world.clock.advance(1);
            }
            of.export().await;
            of.world.clock.advance(HOUR);
            of.export().await;
            assert!(of.archive.fates.lock().unwrap().is_empty());
            let objects = of.objects();
            let mut events: Vec<String> = objects.values().flatten().cloned().collect();
            events.sort_unstable();
            let expected = ["z-1/1", "z-1/2", "z-1/3", "z-1/4", "z-1/5", "z-2/1", "z-2/2", "z-2/3"];
            assert_eq!(events, expected, "{fate:?}: {objects:?}");
            assert!(objects.keys().all(|name| name.ends_with(".parquet") && name.len() == 38), "{objects:?}");
        }
    }

    /// The mark stays where it was, and what was missed comes with the next run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_t_be_read_is_an_error_and_moves_no_mark() {
        let of = Exporting::new().await;
        of.record(0..1).await;
        of.export().await;
        of.record(1..2).await;
        let (spoil, mend) = match of.world.place.database() {
            None => (
                "UPDATE audit_events SET decision = CAST(x'ff' AS TEXT) WHERE id = 'e-1'",
                "UPDATE audit_events SET decision = 'allow' WHERE id = 'e-1'",
            ),
            Some(_) => (
                "ALTER TABLE audit_events ALTER decision DROP NOT NULL; UPDATE audit_events SET decision = NULL WHERE id = 'e-1'",
                "UPDATE audit_events SET decision = 'allow' WHERE id = 'e-1'",
            ),
        };
        of.world.tamper(spoil);
        of.export().await;
        assert_eq!((of.metric("export_errors_total").await, of.metric("export_backlog_hours").await), (1, 1));
        let first = object("12", &["z-1/1", "z-2/1"]);
        assert_eq!(of.objects(), BTreeMap::from([first.clone()]));
        of.world.tamper(mend);
        of.export().await;
        assert_eq!(of.objects(), BTreeMap::from([first, object("13", &["z-1/2", "z-2/2"])]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_object_of_somebody_else_is_left_alone() {
        let of = Exporting::new().await;
        of.record(0..1).await;
        let taken = of.path().join("audit/2026/01/01/2026-01-01T12.parquet");
        std::fs::create_dir_all(taken.parent().unwrap()).unwrap();
        std::fs::write(&taken, "another").unwrap();
        of.export().await;
        assert_eq!(std::fs::read(&taken).unwrap(), b"another");
        std::fs::remove_file(taken).unwrap();
        assert_eq!(of.objects(), BTreeMap::from([object("12-0002", &["z-1/1", "z-2/1"])]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_goes_for_its_age_before_it_is_in_the_archive() {
        let of = Exporting::with(AuditConfig { retention_days: 1, ..configured() }).await;
        of.record(0..3).await;
        of.world.clock.advance(30 * 86_400);
        of.world.sweep().await;
        assert_eq!(of.metric("retention_dropped_total").await, 0, "no export has begun");
        of.export().await;
        let (stop, stopped) = watch::channel(false);
        let sweeping = tokio::spawn(of.world.audit.clone().run_sweep(stopped));
        until("removed", async || of.metric("retention_dropped_total").await == 4).await;
        stop.send_replace(true);
        sweeping.await.unwrap();
    }

    /// Every column, for an event that has everything in it and one that has nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_have_the_columns_of_the_contract() {
        let of = Exporting::new().await;
        let full: Evidence = Evidence { decision: Decision::Deny, ..event("z-1", "e-1", 1_234_567) };
        let full = full
            .request("req-1")
            .because("it \"said\" \u{1f431}")
            .with_metadata(Metadata::new().with(MetadataKey::Env, 1));
        of.world.record(vec![full, event("z-1", "e-2", 2)]).await;
        of.world.clock.advance(HOUR);
        of.export().await;
        let rows = parquet::rows(&std::fs::read(of.path().join("audit/2026/01/01/2026-01-01T12.parquet")).unwrap());
        let found = of.world.search("zone_id=z-1&since=2020-01-01T00:00:00Z&until=2050-01-01T00:00:00Z").await.is(200);
        let ledger = &found["events"][0];
        assert_eq!(
            rows[0],
            json!({
                "class_uid": 6003, "type_uid": 600_301, "severity_id": 2, "activity_id": 2,
                "time": NOON * 1_000 + 1_234, "zone_id": "z-1", "request_id": "req-1", "policy_set_version_id": "",
                "decision": "deny", "metadata_version": "1.7.0", "product_name": "caracal", "event_id": "e-1",
                "event_type": "token_exchange", "policy_set_id": "", "manifest_sha": "",
                "evaluation_status": "complete", "determining_policies_json": "[]",
                "diagnostics_json": "[{\"reason\": \"it \\\"said\\\" \u{1f431}\"}]", "metadata_json": "{\"env\": 1}",
                "content_sha256": ledger["ContentSHA256"], "chain_hmac": ledger["ChainHMAC"], "chain_seq": 1,
            })
        );
        assert_eq!((&rows[1]["severity_id"], &rows[1]["activity_id"]), (&json!(1), &json!(1)));
        assert_eq!(rows.len(), 2);
    }
}
