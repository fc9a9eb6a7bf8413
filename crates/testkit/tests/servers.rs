//! The servers are what they claim to be. Tests of everything else lean on that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use caracal_testkit::{Cut, CuttingProxy, Postgres, Redis};

fn sql(server: &Postgres, sql: &str) -> Result<String, String> {
    sql_at(&server.url(), sql)
}

fn sql_at(url: &str, sql: &str) -> Result<String, String> {
    let output = Command::new("psql").args([url, "-tAc", sql]).output().unwrap();
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
    server.restart().unwrap();
    assert_eq!(sql(&server, "SELECT n FROM kept").unwrap(), "7");
    assert_eq!(sql(&server, "SHOW fsync").unwrap(), "on");
}

#[test]
fn a_killed_postgres_says_nothing_to_those_who_wait_for_it() {
    let mut server = Postgres::start().unwrap();
    let url = server.url();
    let waiting = thread::spawn(move || sql_at(&url, "SELECT pg_sleep(1000)").unwrap_err());
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    assert!(comes_true(|| sql(&server, sleeping).unwrap() == "1"));
    server.kill();
    let heard = waiting.join().unwrap();
    assert!(heard.contains("server closed the connection unexpectedly"), "{heard}");
    assert!(!heard.contains("terminating connection"), "{heard}");
    server.resume().unwrap();
    assert_eq!(sql(&server, sleeping).unwrap(), "0");
}

#[test]
fn a_login_of_postgres_needs_its_password() {
    let server = Postgres::start().unwrap();
    sql(&server, "CREATE ROLE app LOGIN PASSWORD 'right'").unwrap();
    let ask = |password: &str| sql_at(&server.url_of("postgres", "app", password), "SELECT current_user");
    assert_eq!(ask("right").unwrap(), "app");
    assert!(ask("wrong").unwrap_err().contains("password authentication failed"));
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
    server.kill();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
    server.resume().unwrap();
    assert!(redis(&server, "GET kept").contains('7'));
    server.restart().unwrap();
    assert!(redis(&server, "GET kept").contains('7'));
    assert!(redis(&server, "CONFIG GET maxmemory-policy").contains("noeviction"));
    let guarded = Redis::start_with(&["--requirepass", "secret"]).unwrap();
    assert!(redis(&guarded, "GET kept").contains("NOAUTH"));
}

#[allow(clippy::disallowed_methods, reason = "a deadline of a test")]
fn comes_true(fact: impl Fn() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while !fact() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    fact()
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

/// How reading ends within a moment: with nothing, or with the end of the connection.
fn listen(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.read(&mut [0]).map_err(|error| error.kind())
}

#[test]
fn a_black_hole_swallows_the_end_of_a_connection_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = CuttingProxy::start(listener.local_addr().unwrap()).unwrap();
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    proxy.cut(Cut::BlackHole);
    drop(server);
    assert!(matches!(listen(&mut client), Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)));
    proxy.heal();
    assert!(matches!(listen(&mut client), Ok(0) | Err(ErrorKind::ConnectionReset)));
}

#[test]
fn healing_a_way_that_is_not_cut_hurts_nobody() {
    let proxy = CuttingProxy::start(echo()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    assert!(ask(&mut stream));
    proxy.heal();
    assert!(ask(&mut stream));
}

#[test]
fn a_proxy_that_is_gone_listens_no_more() {
    let proxy = CuttingProxy::start(echo()).unwrap();
    let address = proxy.address();
    let mut stream = TcpStream::connect(address).unwrap();
    assert!(ask(&mut stream));
    drop(proxy);
    assert!(!ask(&mut stream));
    // Asked without connecting, which would wake it.
    assert!(comes_true(|| TcpListener::bind(address).is_ok()));
}

#[test]
fn a_way_that_flips_bits_flips_one_of_what_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = CuttingProxy::start(listener.local_addr().unwrap()).unwrap();
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut passes = |said: [u8; 3]| {
        client.write_all(&said).unwrap();
        let mut heard = [0; 3];
        server.read_exact(&mut heard).unwrap();
        said.iter().zip(heard).map(|(said, heard)| (said ^ heard).count_ones()).sum::<u32>()
    };
    assert_eq!(passes(*b"abc"), 0);
    proxy.cut(Cut::Flip);
    assert_eq!(passes(*b"abc"), 1);
}
