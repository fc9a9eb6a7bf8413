//! The servers are what they claim to be. Tests of everything else lean on that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use caracal_testkit::{Cut, CuttingProxy, Postgres, Redis};

fn sql(server: &Postgres, sql: &str) -> Result<String, String> {
    let output = Command::new("psql").args([&server.url(), "-tAc", sql]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn redis(server: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn postgres_keeps_what_it_has_over_a_crash() {
    let mut server = Postgres::start().unwrap();
    assert!(server.version().contains("PostgreSQL"), "{}", server.version());
    sql(&server, "CREATE TABLE kept (n int)").unwrap();
    sql(&server, "INSERT INTO kept VALUES (7)").unwrap();
    server.kill();
    assert!(sql(&server, "SELECT 1").is_err());
    server.resume().unwrap();
    assert_eq!(sql(&server, "SELECT n FROM kept").unwrap(), "7");
    server.stop();
    server.resume().unwrap();
    assert_eq!(sql(&server, "SELECT n FROM kept").unwrap(), "7");
    assert_eq!(sql(&server, "SHOW fsync").unwrap(), "on");
}

#[test]
fn redis_keeps_what_it_has_and_evicts_nothing() {
    let mut server = Redis::start().unwrap();
    assert!(server.version().contains("server"), "{}", server.version());
    assert!(redis(&server, "SET kept 7").contains("OK"));
    server.stop();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
    server.resume().unwrap();
    assert!(redis(&server, "GET kept").contains('7'));
    assert!(redis(&server, "CONFIG GET maxmemory-policy").contains("noeviction"));
    let guarded = Redis::start_with(&["--requirepass", "secret"]).unwrap();
    assert!(redis(&guarded, "GET kept").contains("NOAUTH"));
}

/// Answers every byte with the same byte.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    address
}

fn ask(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut byte = [0];
    stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).is_ok()
}

#[test]
fn a_cut_way_lets_nothing_through_until_it_is_healed() {
    let proxy = CuttingProxy::start(echo()).unwrap();
    for how in [Cut::Refuse, Cut::BlackHole] {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert!(ask(&mut stream), "{how:?}");
        proxy.cut(how);
        assert!(!ask(&mut stream), "{how:?}");
        let mut fresh = TcpStream::connect(proxy.address()).unwrap();
        assert!(!ask(&mut fresh), "{how:?}");
        proxy.heal();
        assert!(!ask(&mut stream), "{how:?}: what hung does not come alive");
        let mut fresh = TcpStream::connect(proxy.address()).unwrap();
        assert!(ask(&mut fresh), "{how:?}");
    }
}
