//! The power is cut. What a store's process really wrote, in which order, and what of it was synced when somebody was told
//! that a commit is durable, is taken from a trace of its system calls. From that every disk is made that a loss of power
//! could leave at some instant, and a store is started on it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests fail by panicking")]

mod disk;
#[path = "../support/pair.rs"]
mod pair;
mod trace;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use caracal_store::{SqliteOptions, Store, SystemClock, outbox, used_mandates};
use rusqlite::Connection;

use crate::disk::{Disk, Fate, Image, Left};
use crate::pair::{DIRECTORY, acknowledged, commit, zone};
use crate::trace::{Call, Event};

const TEST: &str = "t04_state_power::every_acknowledged_commit_is_there_after_a_loss_of_power_at_any_instant";

fn open(directory: &Path) -> Result<Store, String> {
    // So that the log is written back, and begun anew, several times within what a trace holds.
    let options = SqliteOptions { readers: 1, checkpoint_pages: 60, ..SqliteOptions::in_directory(directory) };
    Store::open(&options, Arc::new(SystemClock)).map_err(|error| error.to_string())
}

/// What is traced: a first start, commits one after the other and several at once, an orderly end, and a second start
/// that the power is cut from.
async fn work(directory: &Path) {
    for start in 0..2 {
        let store = open(directory).unwrap();
        for number in 0..12 {
            acknowledged(&store, &format!("{start}-{number}"), [10, 3_000, 100, 20_000][number % 4]).await;
        }
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..4 {
            let store = store.clone();
            callers.spawn(async move {
                for number in 0..6 {
                    acknowledged(&store, &format!("{start}-{caller}-{number}"), 1_000 * number).await;
                }
            });
        }
        callers.join_all().await;
        if start == 0 {
            store.close().await;
        }
    }
    std::process::exit(0);
}

/// Small numbers without end, the same for the same seed.
struct Dice(u64);

impl Dice {
    /// One of the numbers below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// What the power can leave of so many changes that are not synced, four of them by chance.
fn fates((writes, entries): (usize, usize), dice: &mut Dice) -> Vec<Left> {
    let mut found = BTreeSet::new();
    let mut add = |fate: &dyn Fn(usize) -> Fate, is_there: &dyn Fn(usize) -> bool| {
        let (writes, entries) = ((0..writes).map(fate).collect(), (0..entries).map(is_there).collect());
        found.insert(Left { writes, entries });
    };
    let kept = |yes: bool| if yes { Fate::Kept } else { Fate::Lost };
    // All and nothing, of each kind.
    for is_there in [false, true] {
        for fate in [Fate::Lost, Fate::Kept, Fate::Length] {
            add(&|_| fate, &|_| is_there);
        }
    }
    if let Some(last) = writes.checked_sub(1) {
        // The last alone, all but one, and one of them torn.
        let (one, sectors) = (dice.below(writes), 1 + dice.below(8));
        add(&|number| kept(number == last), &|_| true);
        for one in [one, last] {
            for fate in [Fate::Lost, Fate::Front(sectors), Fate::Back(sectors)] {
                add(&|number| if number == one { fate } else { Fate::Kept }, &|_| true);
            }
        }
    }
    for one in 0..entries {
        add(&|_| Fate::Kept, &|number| number < one);
        add(&|_| Fate::Kept, &|number| number != one);
    }
    for _ in 0..4 {
        let mut writes_by_chance = Vec::new();
        for _ in 0..writes {
            let sectors = 1 + dice.below(8);
            writes_by_chance.push(match dice.below(8) {
                0..=2 => Fate::Kept,
                3..=4 => Fate::Lost,
                5 => Fate::Length,
                6 => Fate::Front(sectors),
                _ => Fate::Back(sectors),
            });
        }
        let entries_by_chance: Vec<bool> = (0..entries).map(|_| dice.below(2) == 0).collect();
        add(&|number| writes_by_chance[number], &|number| entries_by_chance[number]);
    }
    found.into_iter().collect()
}

/// Starts a store on what the power left, as any start does, and looks for what was acknowledged.
async fn is_kept(image: &Image, acknowledged: &[String], tried: &[String]) -> Result<(), String> {
    // Nobody takes the power from these: in memory they are there sooner.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for (name, bytes) in image {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let store = open(directory.path())?;
    let mut snapshot = store.snapshot().await.map_err(|error| error.to_string())?;
    let mut read = snapshot.zone(&zone());
    for name in tried {
        let used = used_mandates::is_used(&mut read, name).await.map_err(|error| format!("{name}: {error}"))?;
        let message = outbox::lookup(&mut read, &name.parse().unwrap()).await;
        let message = message.map_err(|error| format!("{name}: {error}"))?.is_some();
        if used != message {
            return Err(format!("half of {name} is there"));
        }
        if acknowledged.contains(name) && !used {
            return Err(format!("{name} was acknowledged and is gone"));
        }
    }
    drop(snapshot);
    commit(&store, "next", 10).await.map_err(|error| format!("the next commit: {error}"))?;
    store.close().await;
    let database = Connection::open(directory.path().join("caracal.db")).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    if verdict == "ok" { Ok(()) } else { Err(verdict) }
}

/// The rest of a line of the child that begins with `word`.
fn said(event: &Event, word: &str) -> Option<String> {
    let Call::Said(line) = &event.call else { return None };
    line.strip_prefix(word).map(|rest| rest.trim_end().to_owned())
}

/// Runs this very test as a child under strace, until it ends by itself.
fn traced(directory: &Path) -> Vec<Event> {
    let strace = caracal_testkit::strace().unwrap_or_else(|missing| panic!("{missing}"));
    let traces = tempfile::tempdir().unwrap();
    let trace = traces.path().join("trace");
    let mut command = Command::new(strace);
    command.args(["-f", "-y", "-xx", "-s", "1000000", "-e", "signal=none", "-e", trace::CALLS, "-o"]).arg(&trace);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", TEST, "--nocapture"]);
    command.env(DIRECTORY, directory).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the child, or strace, which must be allowed to trace: {said}");
    trace::read(&std::fs::read_to_string(&trace).unwrap(), directory)
}

mod t04_state_power {
    use super::*;

    #[tokio::test]
    async fn every_acknowledged_commit_is_there_after_a_loss_of_power_at_any_instant() {
        if let Ok(directory) = std::env::var(DIRECTORY) {
            work(Path::new(&directory)).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let events = traced(&directory.path().canonicalize().unwrap());
        let seed = RandomState::new().hash_one("fates");
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let tried: Vec<String> = events.iter().filter_map(|event| said(event, "tried ")).collect();
        let mut disk = Disk::default();
        let (mut acknowledged, mut started, mut begun_anew) = (Vec::new(), 0, 0);
        for (number, event) in events.iter().enumerate() {
            let told = said(event, "acknowledged ");
            let syncs = matches!(event.call, Call::Sync { .. });
            // Before a sync most is at stake, and when somebody was told something, what is synced must be enough.
            let chances = if syncs { 12 } else { usize::from(told.is_some() || dice.below(2) == 0) };
            if !syncs {
                disk.take(event);
            }
            acknowledged.extend(told.clone());
            let (writes, entries) = disk.pending();
            let fates = fates((writes, entries), &mut dice);
            let mut chosen: BTreeSet<usize> = (0..chances).map(|_| dice.below(fates.len())).collect();
            let nothing = Left { writes: vec![Fate::Lost; writes], entries: vec![false; entries] };
            chosen.extend(fates.iter().position(|left| told.is_some() && *left == nothing));
            for left in chosen.into_iter().map(|chosen| &fates[chosen]) {
                let image = disk.image(left);
                // Making a store takes far longer than finding one.
                if image.contains_key("caracal.db") || dice.below(40) == 0 {
                    started += 1;
                    let verdict = is_kept(&image, &acknowledged, &tried).await;
                    let last = acknowledged.last();
                    assert_eq!(
                        verdict,
                        Ok(()),
                        "call {number}, after {last:?} was acknowledged, seed {seed}: {left:?}"
                    );
                }
            }
            if syncs {
                disk.take(event);
            }
            let log = matches!(&event.call, Call::Write { file, offset: 0, .. } if file == "caracal.db-wal");
            begun_anew += usize::from(log && !acknowledged.is_empty());
        }
        assert_eq!((acknowledged.len(), tried.len()), (72, 72));
        assert!(started > 400, "of {} calls only {started} disks were made", events.len());
        assert!(begun_anew >= 4, "the log was begun anew only {begun_anew} times");
    }
}
