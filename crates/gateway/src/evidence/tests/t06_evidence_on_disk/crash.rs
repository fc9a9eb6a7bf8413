//! Killed and without room: what was put on disk comes into its chain once, and what was not says so.
//!
//! A child is this very test binary, running the one test that started it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const ROOT: &str = "CARACAL_GATEWAY_TEST_ROOT";

fn root_of_child() -> Option<std::path::PathBuf> {
    std::env::var_os(ROOT).map(Into::into)
}

/// `before` is what a shell does first.
fn child(test: &str, root: &Path, before: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("evidence::tests::t06_evidence_on_disk::crash::{test}"), "--nocapture"])
        .env(ROOT, root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

/// One line in one write, so that a kill leaves no half of it. The runner's own lines begin otherwise.
fn report(word: &str, about: impl std::fmt::Display) {
    std::io::stdout().write_all(format!("\n+{word} {about}\n").as_bytes()).unwrap();
}

/// What the child said with `word`, in order.
fn reported<'l>(lines: &'l [String], word: &'l str) -> impl Iterator<Item = &'l str> {
    lines.iter().filter_map(move |line| line.strip_prefix('+')?.strip_prefix(word)?.strip_prefix(' '))
}

/// Events of calls, as they are put on disk.
async fn events(log: &Arc<EvidenceLog>, zone: &str, calls: std::ops::Range<usize>) -> Vec<Evidence> {
    calls.for_each(|n| log.attempt(caller(zone, n)).end(Outcome::Executed));
    drawn(&log.take()).await
}

fn aside(root: &Path) -> Vec<String> {
    let text = |path: std::path::PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    files(root, "quarantined")
        .into_iter()
        .flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn what_was_put_on_disk_is_there_after_kill_9_at_any_moment() {
    if let Some(root) = root_of_child() {
        let log = log(&root);
        let spool = Spool::open(root.join("spool"), key()).unwrap();
        let first = usize::try_from(std::process::id()).unwrap() * 1_000_000;
        for n in (first..).step_by(3) {
            let events = events(&log, "z-1", n..n + 3).await;
            report("tried", n);
            spool.write(&events, log.store.now()).unwrap();
            report("kept", n);
        }
    }
    let seed = RandomState::new().hash_one("moments");
    println!("seed {seed}");
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    let (mut tried, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..4u32 {
        let (mut child, said) = child("what_was_put_on_disk_is_there_after_kill_9_at_any_moment", root.path(), "");
        let moment = usize::try_from((seed >> (round * 6)) % 64).unwrap() + 5;
        let (mut lines, mut killed) = (Vec::new(), false);
        for line in said.lines() {
            lines.push(line.unwrap());
            if !killed && reported(&lines, "tried").count() == moment {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "{lines:?}");
        child.wait().unwrap();
        let of = |word| reported(&lines, word).map(|n| n.parse::<usize>().unwrap()).collect::<Vec<_>>();
        tried.extend(of("tried"));
        kept.extend(of("kept"));
    }
    let (found, replayed) = after(root.path()).await;
    let found_once: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!((found.len(), u64::try_from(found.len()).unwrap()), (found_once.len(), replayed), "none is there twice");
    let requests = |batches: &BTreeSet<usize>| -> BTreeSet<String> {
        batches.iter().flat_map(|n| (*n..*n + 3).map(|n| format!("r-{n}"))).collect()
    };
    assert!(kept.len() > 10);
    assert_eq!(requests(&kept).difference(&found_once).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(found_once.difference(&requests(&tried)).collect::<Vec<_>>(), Vec::<&String>::new());
    // Of each kill at most the one line that was being written.
    assert!(aside(root.path()).len() <= 4);
}

#[tokio::test]
async fn what_is_brought_in_is_there_once_after_kill_9_at_any_moment() {
    if let Some(root) = root_of_child() {
        let log = log(&root);
        log.store.observe(Arc::new(|_: &caracal_store::Committed| report("commit", "")));
        let (_stop, stopped) = watch::channel(false);
        report("begins", "");
        log.drain(stopped).await;
    }
    let seed = RandomState::new().hash_one("moments");
    println!("seed {seed}");
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    let log = log(root.path());
    let spool = Spool::open(root.path().join("spool"), key()).unwrap();
    for n in 0..60 {
        let both = [events(&log, "z-1", n * 4..n * 4 + 2).await, events(&log, "z-2", n * 4 + 2..n * 4 + 4).await];
        spool.write(&both.concat(), log.store.now()).unwrap();
    }
    log.store.close().await;
    drop(log);
    for path in files(root.path(), "ndjson").iter().step_by(7) {
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"not ours\n").unwrap();
    }
    let bad = files(root.path(), "ndjson").len().div_ceil(7);
    for round in 0..4u32 {
        let (mut child, said) = child("what_is_brought_in_is_there_once_after_kill_9_at_any_moment", root.path(), "");
        let moment = usize::try_from((seed >> (round * 5)) % 20).unwrap() + 1;
        let (mut lines, mut killed) = (Vec::new(), false);
        for line in said.lines() {
            lines.push(line.unwrap());
            if !killed && reported(&lines, "commit").count() == moment {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "{lines:?}");
        child.wait().unwrap();
    }
    assert!(!files(root.path(), "ndjson").is_empty(), "some is left to be brought in");
    let (found, replayed) = after(root.path()).await;
    let expected: Vec<String> = [0, 2]
        .into_iter()
        .flat_map(|of| (0..60).flat_map(move |n| [n * 4 + of, n * 4 + of + 1]).map(|n| format!("r-{n}")))
        .collect();
    assert_eq!(found, expected, "each once and in order");
    assert!(replayed < 240, "the others were killed over it");
    assert_eq!(aside(root.path()), vec!["not ours"; bad]);
}

/// The operating system refuses to let a file grow, in the middle of writing a batch and of putting lines aside.
#[tokio::test]
async fn a_full_disk_takes_no_half_of_a_batch_and_keeps_what_it_has() {
    if let Some(root) = root_of_child() {
        let log = log(&root);
        let (stop, stopped) = watch::channel(false);
        let draining = tokio::spawn({
            let log = log.clone();
            async move { log.drain(stopped).await }
        });
        while log.parked.replayed.get() < 6 {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        draining.await.unwrap();
        report("waits", log.parked.backlog(log.store.now()).files);
        log.store.close().await;
        (100..1_600).for_each(|n| log.attempt(caller("z-1", n)).end(Outcome::Executed));
        log.give_up();
        report("lost", log.dropped.get());
        report("waits", log.parked.backlog(log.store.now()).files);
        end(&log, 10..16);
        log.give_up();
        report("lost", log.dropped.get());
        report("waits", log.parked.backlog(log.store.now()).files);
        std::process::exit(0);
    }
    let root = tempfile::tempdir().unwrap();
    killed(root.path()).await;
    let [one, two] = files(root.path(), "ndjson").try_into().unwrap();
    let junk = "not ours\n".repeat(100_000);
    let all = [fs::read(&one).unwrap(), fs::read(&two).unwrap(), junk.clone().into_bytes()].concat();
    fs::write(&one, &all).unwrap();
    fs::remove_file(&two).unwrap();
    // No file may grow beyond 600 blocks of 512 or 1024 bytes, and trying is an error instead of a signal.
    let limit = "trap '' XFSZ && ulimit -f 600 &&";
    let (mut child, said) = child("a_full_disk_takes_no_half_of_a_batch_and_keeps_what_it_has", root.path(), limit);
    let lines: Vec<String> = said.lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    // What could not be put aside waits; a batch that found no room is no file and is said to be lost; the next has its room.
    assert_eq!(reported(&lines, "waits").collect::<Vec<_>>(), ["1", "1", "3"], "{lines:?}");
    assert_eq!(reported(&lines, "lost").collect::<Vec<_>>(), ["1500", "1500"], "{lines:?}");
    assert_eq!(fs::read(&one).unwrap(), all);
    let expected = ["r-0", "r-2", "r-4", "r-10", "r-12", "r-14", "r-1", "r-3", "r-5", "r-11", "r-13", "r-15"];
    assert_eq!(after(root.path()).await, (expected.map(str::to_owned).to_vec(), 6));
    assert_eq!(aside(root.path()).join("\n") + "\n", junk);
}
