//! `cargo xtask services`, as whoever calls it sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn services() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("services");
    command
}

/// The chore without a command, and the ports of its servers.
fn waiting() -> (Child, BufReader<ChildStdout>, Vec<u16>) {
    let mut chore = services().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(chore.stdout.take().unwrap());
    let mut ports = Vec::new();
    while ports.len() < 2 {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the servers did not start");
        let Some(address) = line.strip_prefix("export CARACAL_TEST_") else { continue };
        let (_, port) = address.trim().rsplit_once(':').unwrap();
        ports.push(port.split('/').next().unwrap().parse().unwrap());
    }
    assert!(ports.iter().all(|port| answers(*port)));
    (chore, said, ports)
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn become_silent(ports: &[u16]) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while ports.iter().any(|port| answers(*port)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    !ports.iter().any(|port| answers(*port))
}

#[test]
fn the_command_knows_the_servers_and_its_exit_code_is_passed_on() {
    let script = "case $CARACAL_TEST_POSTGRES_URL,$CARACAL_TEST_REDIS_URL in
        postgres://postgres@127.0.0.1:*,redis://127.0.0.1:*) exit 7;; esac";
    let status = services().args(["--", "sh", "-c", script]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn without_a_command_they_run_until_the_input_ends() {
    let (mut chore, mut said, ports) = waiting();
    drop(chore.stdin.take());
    said.read_to_string(&mut String::new()).unwrap();
    assert!(chore.wait().unwrap().success());
    assert!(!ports.iter().any(|port| answers(*port)));
}

#[test]
fn servers_do_not_outlive_a_chore_that_is_killed() {
    let (mut chore, _said, ports) = waiting();
    chore.kill().unwrap();
    chore.wait().unwrap();
    assert!(become_silent(&ports), "{ports:?}");
}
