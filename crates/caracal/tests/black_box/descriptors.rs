//! How many files a system may have open, and who is left out when they are too few.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Addressed, Http, Running, Tenant, caracal, run, upstream};
use crate::{PATIENCE, until};

/// The binary under limits of a shell's making.
fn under(limits: &str) -> Command {
    let binary = caracal();
    let mut command = Command::new("sh");
    command.env_clear().env("HOME", "/nonexistent").env("LOG_LEVEL", "warn").env("API_V1_RATE_LIMIT_PER_MIN", "0");
    command.args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")]).arg(binary.get_program());
    command
}

/// Soft and hard limit of open files of a process.
fn limits_of(system: &Running) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", system.child.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

fn open_files(system: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", system.child.id())).unwrap().count()
}

mod t08_availability_descriptors {
    use super::*;

    const LIMIT: usize = 400;
    /// Of the Gateway's callers, when a quarter of what is no reserve is theirs and another their upstreams'.
    const SHARE: usize = (LIMIT - 160) / 4;

    #[tokio::test(flavor = "multi_thread")]
    async fn callers_who_take_every_connection_they_can_keep_nobody_from_revoking() {
        let directory = tempfile::tempdir().unwrap();
        let (http, notes) = (Http::new(), upstream().await);
        let system = Running::start_by(under(&format!("ulimit -n {LIMIT}")), directory.path());
        let tenant = Tenant::provision(&http, &system, &notes).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        // Each is answered once and then stays, or waits for its turn, if need be before it has a connection.
        let served = Arc::new(AtomicUsize::new(0));
        let mut crowd = JoinSet::new();
        for _ in 0..LIMIT + SHARE {
            let (address, served) = (system.address("gateway"), served.clone());
            crowd.spawn(async move {
                let mut caller = TcpStream::connect(address).await.unwrap();
                caller.write_all(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
                caller.read_exact(&mut [0; 12]).await.unwrap();
                served.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            });
        }
        until("the first are served", async || (served.load(Ordering::SeqCst) >= SHARE).then_some(())).await;
        // Others are, too: a mandate can be had, and what it rests on can be taken back.
        let others = Http::new();
        let minted = timeout(PATIENCE, tenant.mint(&others, &system, (&session, &edge))).await.expect("an answer");
        assert_eq!(minted.expect("a connection").status.as_u16(), 200);
        let revoked = timeout(PATIENCE, tenant.revoke(&others, &system, &edge)).await.expect("an answer");
        assert!(revoked.expect("a connection").status.is_success());
        let minted = timeout(PATIENCE, tenant.mint(&others, &system, (&session, &edge))).await.expect("an answer");
        assert_eq!(minted.expect("a connection").status.as_u16(), 403);
        assert_eq!(served.load(Ordering::SeqCst), SHARE);
        assert!(open_files(&system) < LIMIT - SHARE, "{} of {LIMIT}", open_files(&system));
        // Who comes later has its turn when the others have gone.
        crowd.shutdown().await;
        let health = format!("{}/health", system.url("gateway"));
        let answer = timeout(PATIENCE, others.send(http::Method::GET, &health, &[], "")).await.expect("a turn");
        assert_eq!(answer.expect("a connection").status.as_u16(), 200);
        assert!(system.said().contains("raise the hard limit"));
    }

    #[tokio::test]
    async fn a_process_takes_as_many_files_as_it_may_have() {
        let directory = tempfile::tempdir().unwrap();
        let system = Running::start_by(under("ulimit -Sn 300 && ulimit -Hn 2000"), directory.path());
        assert_eq!(limits_of(&system), ("2000".to_owned(), "2000".to_owned()));
    }

    #[tokio::test]
    async fn too_few_files_are_refused_before_anything_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let said = run(under("ulimit -n 100").args(["up", "--json", "--port-offset", "1", "--data-dir"]).arg(&data));
        assert!(said.stderr.contains("100 files open") && said.stderr.contains("ulimit -n"), "{}", said.stderr);
        assert!(said.code != Some(0) && !data.exists());
    }
}
