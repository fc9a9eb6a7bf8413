//! Killed at every step of an export and of a retention: before each durable write, with all of it written and nothing
//! committed, and, of an object, with half of it there. What lies there then is read by an outsider: rows by SQL, objects by
//! the description of their format; then the next process goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_audit::{Archive, ArchiveError, AuditConfig, DirectoryArchive, Object, Put};
use caracal_authority::Timestamp;
use caracal_store::conformance::{self, WatchedClock};
use caracal_store::{BoxFuture, DeploymentRead, ManualClock, SqliteOptions, StoreError, SystemClock, exports, inspect};
use caracal_testkit::{Place, Steps, kill_at};
use serde_json::Value;
use tokio::sync::watch;

use crate::world::{NOON, Parts, World, configured, event, frame_key, until};
use crate::{outsider, parquet};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// Processes are started between the opening and the closing of stores: one at a time, as each of them has for a moment
/// whatever locks the others hold.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The service of a process that is to be killed, at `now`; steps are taken whenever it asks for the time.
async fn watched(steps: &Arc<Steps>, now: i64, config: AuditConfig, archive: Option<Arc<dyn Archive>>) -> Parts {
    let (directory, url) = Steps::place();
    let asking = steps.clone();
    let clock = WatchedClock {
        of: Arc::new(ManualClock::at(Timestamp::from_seconds(now))),
        asked: Box::new(move || asking.take("between two writes")),
    };
    let parts = Parts::over(&directory, url.as_deref(), Arc::new(clock), config, false, archive).await;
    steps.begin();
    parts
}

/// A look at the store of a process that is to be killed, of which it takes no notice.
async fn look<T>(reading: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>) -> T {
    let (directory, url) = Steps::place();
    let read = match url {
        None => inspect(&SqliteOptions::in_directory(&directory).database()).unwrap().run(reading),
        Some(url) => {
            let store = conformance::open(&directory, Some(&url), Arc::new(SystemClock)).await;
            reading(&mut store.snapshot().await.unwrap().deployment()).await
        }
    };
    read.unwrap()
}

/// An archive that takes steps, with half of an object written and with all of it.
struct Stepping {
    steps: Arc<Steps>,
    directory: DirectoryArchive,
    root: PathBuf,
}

impl Archive for Stepping {
    fn put<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Put, ArchiveError>> {
        Box::pin(async move {
            let draft = self.root.join(&object.key).with_extension("parquet.part");
            std::fs::create_dir_all(draft.parent().unwrap()).unwrap();
            std::fs::write(&draft, &object.bytes[..object.bytes.len() / 2]).unwrap();
            self.steps.take("half of an object");
            let put = self.directory.put(object).await;
            self.steps.take("an object without its mark");
            put
        })
    }
}

fn root_in(directory: &Path) -> PathBuf {
    directory.join("archive")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The rows of every object, and how many drafts lie beside them.
fn archived(place: &Place) -> (Vec<Value>, usize) {
    let (objects, drafts): (Vec<_>, Vec<_>) =
        files(&root_in(place.path())).into_iter().partition(|path| path.extension().unwrap() == "parquet");
    (objects.iter().flat_map(|path| parquet::rows(&std::fs::read(path).unwrap())).collect(), drafts.len())
}

/// Each of these is one of the ledger's, as it lies there, and none is there twice.
fn are_of(rows: &[Value], found: &outsider::Found, step: &str) -> BTreeSet<(String, i64)> {
    let mut places = BTreeSet::new();
    for row in rows {
        let (zone, seq) = (outsider::text(row, "zone_id"), outsider::number(row, "chain_seq"));
        let own = found.chains[zone].iter().find(|own| own["chain_seq"] == row["chain_seq"]).unwrap();
        let names = [("id", "event_id"), ("content_sha256", "content_sha256"), ("chain_hmac", "chain_hmac")];
        for (column, name) in names {
            assert_eq!(own[column], row[name], "{step}: {row}");
        }
        assert!(places.insert((zone.to_owned(), seq)), "{step}: twice in the archive: {row}");
    }
    places
}

impl World {
    async fn export_until(&self, hour: i64) {
        let (stop, stopped) = watch::channel(false);
        let exporting = tokio::spawn(self.audit.clone().run_export(stopped));
        until("exported", async || {
            let exported = exports::find(&mut self.store.snapshot().await.unwrap().deployment()).await.unwrap();
            exported.is_some_and(|exported| exported.planned.is_none() && exported.hour == hour)
        })
        .await;
        stop.send_replace(true);
        exporting.await.unwrap();
    }
}

mod t06_evidence_crash {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_export_that_is_killed_anywhere_leaves_whole_objects_and_each_event_comes_once() {
        const LAST: i64 = NOON + 2 * HOUR;
        if let Some(steps) = Steps::of_this_process() {
            let root = root_in(&Steps::place().0);
            let directory = DirectoryArchive::new(root.clone());
            let archive = Arc::new(Stepping { steps: steps.clone(), directory, root });
            let parts = watched(&steps, NOON + 3 * HOUR, configured(), Some(archive)).await;
            let (_stop, stopped) = watch::channel(false);
            tokio::spawn(parts.audit.clone().run_export(stopped));
            let is_done = async || {
                let exported = look(async |tx| exports::find(tx).await).await.unwrap();
                exported.planned.is_none() && exported.hour == LAST
            };
            return until("exported", is_done).await;
        }
        let name = "crash::t06_evidence_crash::\
                    an_export_that_is_killed_anywhere_leaves_whole_objects_and_each_event_comes_once";
        let _alone = ALONE.lock().await;
        let world = World::new().await;
        for hour in 0..3 {
            for zone in ["z-1", "z-2"] {
                world.record(vec![event(zone, &format!("e-{hour}"), hour * HOUR * 1_000_000)]).await;
            }
            world.clock.advance(HOUR);
        }
        let original = world.end().await;
        let exporting = async |place: Place, now: i64| {
            let archive = DirectoryArchive::new(root_in(place.path()));
            World::again(place, now, configured(), Some(Arc::new(archive))).await
        };
        let first = exporting(original, NOON + HOUR).await;
        first.export_until(NOON).await;
        let original = first.end().await;
        let mut seen = BTreeSet::new();
        for number in 1.. {
            let place = original.copy();
            let Some(step) = kill_at(name, number, &place) else { break };
            let found = outsider::read(&place, &frame_key());
            let (rows, drafts) = archived(&place);
            let there = are_of(&rows, &found, &step);
            assert_eq!(drafts, usize::from(step == "half of an object"), "{step}");
            seen.insert((there.len(), step.clone()));
            // An event is stored in an hour that has its plan, or its object, already.
            let world = exporting(place, NOON + 3 * HOUR - 1).await;
            world.record(vec![event("z-1", "late", 1)]).await;
            world.clock.advance(1);
            world.export_until(LAST).await;
            world.clock.advance(HOUR);
            world.export_until(LAST + HOUR).await;
            let place = world.end().await;
            let found = outsider::read(&place, &frame_key());
            let (rows, drafts) = archived(&place);
            let all =
                found.chains.iter().flat_map(|(zone, rows)| (1..=rows.len() as i64).map(|seq| (zone.clone(), seq)));
            assert_eq!((are_of(&rows, &found, &step), drafts), (all.collect(), 0), "{step}");
        }
        let expected = [
            (2, "between two writes"),
            (2, "half of an object"),
            (4, "an object without its mark"),
            (4, "between two writes"),
            (4, "half of an object"),
            (6, "an object without its mark"),
            (6, "between two writes"),
        ];
        let expected = expected.map(|(events, step)| (events, step.to_owned()));
        assert_eq!(seen, BTreeSet::from(expected), "a step is missing from the table");
    }

    /// More than goes in one commit, and another zone behind it.
    const OLD: i64 = 600;
    const LATER: i64 = NOON + 30 * DAY;

    fn short() -> AuditConfig {
        AuditConfig { retention_days: 2, ..configured() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_retention_that_is_killed_anywhere_leaves_a_chain_that_begins_behind_its_anchor() {
        if let Some(steps) = Steps::of_this_process() {
            let parts = watched(&steps, LATER, short(), None).await;
            let (_stop, stopped) = watch::channel(false);
            tokio::spawn(parts.audit.clone().run_sweep(stopped));
            let is_done = async || {
                let zone = caracal_authority::ZoneId::parse("z-2").unwrap();
                let left = look(async |tx| caracal_store::evidence::list_between(&mut tx.zone(&zone), 0, 9, 9).await);
                left.await.len() == 1
            };
            return until("removed", is_done).await;
        }
        let name = "crash::t06_evidence_crash::\
                    a_retention_that_is_killed_anywhere_leaves_a_chain_that_begins_behind_its_anchor";
        let _alone = ALONE.lock().await;
        let world = World::new().await;
        for (zone, old) in [("z-1", OLD), ("z-2", 2)] {
            world.record((1..=old).map(|number| event(zone, &format!("e-{number}"), number)).collect()).await;
        }
        world.clock.advance(30 * DAY);
        for zone in ["z-1", "z-2"] {
            world.record(vec![event(zone, "young", 30 * DAY * 1_000_000)]).await;
        }
        let original = world.end().await;
        let mut seen = BTreeSet::new();
        for number in 1.. {
            let place = original.copy();
            let Some(step) = kill_at(name, number, &place) else { break };
            // Whole chains, whose first rows may be gone where an anchor says so, and nothing else.
            let found = outsider::read(&place, &frame_key());
            let (one, two) = (found.ends("z-1"), found.ends("z-2"));
            assert_eq!((one.1, two.1), (OLD + 1, 3), "{step}");
            for (zone, anchored) in [("z-1", OLD), ("z-2", 2)] {
                let anchor = found.anchors.get(zone).map(|(seq, _)| *seq);
                assert!(anchor == Some(anchored) || anchor.is_none() && found.ends(zone).0 == 1, "{step}: {anchor:?}");
            }
            seen.insert((found.anchors.len(), one.0, two.0));
            let world = World::again(place, LATER, short(), None).await;
            let left = OLD + 2 - (one.0 - 1) - (two.0 - 1);
            world.sweep_and_retire(left).await;
            world.ask("GET", "/ready", None).await.is(200);
            world.sweep().await;
            world.ask("GET", "/ready", None).await.is(200);
            let found = outsider::read(&world.end().await, &frame_key());
            assert_eq!((found.ids("z-1"), found.ids("z-2")), (vec!["young"], vec!["young"]), "{step}");
        }
        let expected = [(0, 1, 1), (1, 1, 1), (2, 1, 1), (2, 501, 1), (2, 601, 1)];
        assert!(expected.iter().all(|state| seen.contains(state)) && seen.len() <= 6, "a step is missing: {seen:?}");
    }
}
