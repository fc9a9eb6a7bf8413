//! Killed, full and cut short: what was acknowledged is there, what was not is whole or absent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use caracal_store::{SqliteOptions, Store, StoreError, SystemClock, outbox, used_mandates};

#[path = "support/pair.rs"]
mod pair;

use pair::{DIRECTORY, acknowledged, commit, report, zone};

fn open(directory: &Path, max_pages: Option<u32>) -> Store {
    let options = SqliteOptions { max_pages, ..SqliteOptions::in_directory(directory) };
    Store::open(&options, Arc::new(SystemClock)).unwrap()
}

/// Whether both rows are there; one alone is a failure.
async fn is_whole(store: &Store, name: &str) -> bool {
    let mut snapshot = store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone());
    let used = used_mandates::is_used(&mut read, name).await.unwrap();
    let message = outbox::lookup(&mut read, &name.parse().unwrap()).await.unwrap().is_some();
    assert_eq!(used, message, "half of {name} is there");
    used
}

fn child(test: &str, directory: &Path, shell: Option<&str>) -> (Child, BufReader<ChildStderr>) {
    let binary = std::env::current_exe().unwrap();
    let mut command = match shell {
        None => Command::new(binary),
        Some(before) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(binary);
            shell
        }
    };
    let mut child = command
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    (child, lines)
}

/// Eight callers commit without end; `run` keeps the names of different children apart.
async fn commit_for_ever(directory: &Path, run: u32) {
    let store = open(directory, None);
    let next = Arc::new(AtomicU32::new(0));
    let mut callers = tokio::task::JoinSet::<()>::new();
    for _ in 0..8 {
        let (store, next) = (store.clone(), next.clone());
        callers.spawn(async move {
            loop {
                let name = format!("{run}-{}", next.fetch_add(1, Ordering::SeqCst));
                acknowledged(&store, &name, 100).await;
            }
        });
    }
    panic!("a caller ended: {:?}", callers.join_next().await);
}

mod t04_state_crash {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
        if let Ok(directory) = std::env::var(DIRECTORY) {
            commit_for_ever(Path::new(&directory), std::process::id()).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let (mut tried, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
        let seed = RandomState::new().hash_one("moments");
        println!("seed {seed}");
        for round in 0..10 {
            let name = "t04_state_crash::what_was_acknowledged_survives_kill_9_at_any_moment";
            let (mut child, mut lines) = child(name, directory.path(), None);
            // Some lines on, at whatever the child is doing then.
            let moment = (seed >> (round * 6)) % 64 + 10;
            let mut killed = false;
            let mut line = String::new();
            for count in 0.. {
                line.clear();
                if lines.read_line(&mut line).unwrap() == 0 {
                    break;
                }
                match line.trim_end().split_once(' ') {
                    Some(("tried", name)) => drop(tried.insert(name.to_owned())),
                    Some(("acknowledged", name)) => drop(acknowledged.insert(name.to_owned())),
                    _ => panic!("the child said {line:?}"),
                }
                if count == moment {
                    child.kill().unwrap();
                    killed = true;
                }
            }
            child.wait().unwrap();
            assert!(killed, "the child ended by itself");
        }
        let store = open(directory.path(), None);
        let mut whole = 0;
        for name in &tried {
            let there = is_whole(&store, name).await;
            assert!(there || !acknowledged.contains(name), "{name} was acknowledged and is gone");
            whole += usize::from(there);
        }
        assert!(whole >= acknowledged.len() && acknowledged.len() >= 10, "{whole} of {} tried", tried.len());
        store.close().await;
    }
}

mod t08_availability_full {
    use super::*;

    async fn fill(store: &Store, prefix: &str, payload: usize) -> (Vec<String>, String) {
        let mut acknowledged = Vec::new();
        for number in 0..10_000 {
            let name = format!("{prefix}-{number}");
            match commit(store, &name, payload).await {
                Ok(()) => acknowledged.push(name),
                Err(StoreError::Unavailable { .. }) => return (acknowledged, name),
                Err(other) => panic!("{other}"),
            }
        }
        panic!("it never filled up");
    }

    #[tokio::test]
    async fn a_full_store_refuses_keeps_what_it_has_and_heals_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), Some(200));
        let (acknowledged, refused) = fill(&store, "a", 3_000).await;
        assert!(acknowledged.len() > 10, "{}", acknowledged.len());
        assert!(!is_whole(&store, &refused).await);
        for name in &acknowledged {
            assert!(is_whole(&store, name).await, "{name}");
        }
        // It serves reads, and is not broken for good.
        store.check().await.unwrap();
        let freed: Result<usize, StoreError> = store
            .commit_deployment((), |tx, ()| {
                Box::pin(async move {
                    let now = tx.now().plus(std::time::Duration::from_secs(1));
                    used_mandates::purge_expired(tx, now, 10_000).await
                })
            })
            .await;
        assert_eq!(freed.unwrap(), acknowledged.len());
        store.close().await;
        drop(store);

        let store = open(directory.path(), Some(400));
        commit(&store, &refused, 3_000).await.unwrap();
        assert!(is_whole(&store, &refused).await);
        store.close().await;
    }

    /// The engine gives up the whole transaction when a statement finds no room. Callers whose part had succeeded must
    /// not be told so, and those behind must not be committed on their own.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_that_finds_no_room_is_refused_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), Some(200));
        let told = Arc::new(AtomicU32::new(0));
        let observer = told.clone();
        store.observe(Arc::new(move |committed: &caracal_store::Committed| {
            observer.fetch_add(u32::try_from(committed.messages.len()).unwrap(), Ordering::SeqCst);
        }));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (running, runs) = tokio::sync::oneshot::channel();
        let input = (std::sync::Mutex::new(Some(running)), std::sync::Mutex::new(released));
        let held = tokio::spawn({
            let store = store.clone();
            async move {
                store
                    .commit_deployment(input, |tx, (running, released)| {
                        Box::pin(async move {
                            let end = tx.now();
                            assert!(used_mandates::consume(&mut tx.zone_write(&zone()), "held", "r-1", end).await?);
                            running.lock().unwrap().take().unwrap().send(()).unwrap();
                            let _ = released.lock().unwrap().recv();
                            Ok::<_, StoreError>(())
                        })
                    })
                    .await
            }
        });
        runs.await.unwrap();
        let mut callers = Vec::new();
        for (name, payload) in [("small", 10), ("too large", 2_000_000), ("behind", 10)] {
            let name = name.replace(' ', "-");
            let caller = store.clone();
            callers.push((name.clone(), tokio::spawn(async move { commit(&caller, &name, payload).await })));
            while store.waiting() < callers.len() {
                tokio::task::yield_now().await;
            }
        }
        drop(release);
        let mut outcomes = vec![("held".to_owned(), held.await.unwrap())];
        for (name, caller) in callers {
            outcomes.push((name, caller.await.unwrap()));
        }
        let mut acknowledged = 0;
        for (name, outcome) in &outcomes {
            let mut snapshot = store.snapshot().await.unwrap();
            let there = used_mandates::is_used(&mut snapshot.zone(&zone()), name).await.unwrap();
            assert_eq!(there, outcome.is_ok(), "{name}: {outcome:?}");
            acknowledged += u32::from(outcome.is_ok() && name != "held");
            if let Err(error) = outcome {
                assert!(matches!(error, StoreError::Unavailable { .. }), "{name}: {error}");
            }
        }
        assert!(outcomes[2].1.is_err(), "there was room for it");
        assert!(outcomes[0].1.is_err() && outcomes[1].1.is_err(), "they shared its transaction");
        assert_eq!(told.load(Ordering::SeqCst), acknowledged);
        commit(&store, "next", 10).await.unwrap();
        store.close().await;
    }

    /// The operating system refuses to let the log grow, in the middle of writing a commit.
    #[tokio::test]
    async fn a_commit_that_finds_no_room_leaves_nothing() {
        const CHILD: &str = "t08_availability_full::a_commit_that_finds_no_room_leaves_nothing";
        if let Ok(directory) = std::env::var(DIRECTORY) {
            let store = open(Path::new(&directory), None);
            let (acknowledged, refused) = fill(&store, "c", 3_000).await;
            for name in &acknowledged {
                assert!(is_whole(&store, name).await);
                report("acknowledged", name);
            }
            assert!(!is_whole(&store, &refused).await);
            report("refused", &refused);
            std::process::exit(0);
        }
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), None).close().await;
        // No file may grow beyond 2000 blocks of 512 or 1024 bytes, and trying is an error instead of a signal.
        let (mut child, lines) = child(CHILD, directory.path(), Some("trap '' XFSZ && ulimit -f 2000"));
        let lines: Vec<String> = lines.lines().map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{lines:?}");
        let store = open(directory.path(), None);
        let mut refused = None;
        for line in &lines {
            match line.split_once(' ') {
                Some(("acknowledged", name)) => assert!(is_whole(&store, name).await, "{name}"),
                Some(("refused", name)) => refused = Some(name),
                _ => panic!("the child said {line:?}"),
            }
        }
        let refused = refused.unwrap();
        assert!(lines.len() > 10, "{lines:?}");
        // With room again it can be done, because nothing of it is there.
        assert!(!is_whole(&store, refused).await);
        commit(&store, refused, 3_000).await.unwrap();
        store.close().await;
    }
}
