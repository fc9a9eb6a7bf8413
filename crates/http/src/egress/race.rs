//! Several addresses, one connection (RFC 8305, "happy eyeballs").
//!
//! A name has an IPv6 address that leads nowhere from here and an IPv4 address that works. Trying one after the other
//! costs each caller the whole patience with the first. So addresses of both families take turns, each has a moment
//! alone before the next is tried beside it, one that fails makes way at once, and the first that connects wins; the
//! others are dropped before a byte is sent on them. All of them have been admitted before: the race chooses among
//! permitted places and permits none.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::connect::{Timeouts, dial_one};

/// Addresses that are tried for one connection: a name with hundreds is no reason to knock on hundreds of doors.
const MOST: usize = 16;

/// No address could be connected to.
#[derive(Debug)]
pub(super) enum Lost {
    /// The last to fail did so by itself.
    Refused(io::Error),
    /// The last to fail was given up, or all of them together took too long.
    TimedOut,
}

/// Connects to whichever of `addresses` answers first.
pub(super) async fn connect(addresses: &[SocketAddr], timeouts: &Timeouts) -> Result<TcpStream, Lost> {
    let all = Instant::now() + timeouts.connect_all;
    timeout_at(all, race(in_turn(addresses), timeouts.connect, timeouts.stagger)).await.unwrap_or(Err(Lost::TimedOut))
}

async fn race(addresses: Vec<SocketAddr>, patience: Duration, stagger: Duration) -> Result<TcpStream, Lost> {
    let mut waiting = addresses.into_iter();
    // Dropped with everything still under way in it.
    let mut racing = JoinSet::new();
    let mut lost = Lost::TimedOut;
    loop {
        let started = waiting.next().map(|address| racing.spawn(timeout(patience, dial_one(address)))).is_some();
        if racing.is_empty() {
            return Err(lost);
        }
        let next = Instant::now() + stagger;
        tokio::select! {
            biased;
            Some(outcome) = racing.join_next() => match outcome {
                Ok(Ok(Ok(stream))) => return Ok(stream),
                Ok(Ok(Err(error))) => lost = Lost::Refused(error),
                Ok(Err(_)) => lost = Lost::TimedOut,
                Err(error) => lost = Lost::Refused(io::Error::other(error)),
            },
            () = sleep_until(next), if started => {}
        }
    }
}

/// The families in turn, that of the first address first; within a family the resolver's order.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6() == first);
    let mut others = others.into_iter();
    let mut turns = Vec::with_capacity(addresses.len());
    for address in preferred {
        turns.push(address);
        turns.extend(others.next());
    }
    turns.extend(others);
    turns.truncate(MOST);
    turns
}

#[cfg(test)]
pub(super) mod t03_gateway_egress {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const PATIENT: Timeouts = Timeouts {
        resolve: Duration::from_secs(600),
        connect: Duration::from_secs(600),
        connect_all: Duration::from_secs(600),
        handshake: Duration::from_secs(600),
        stagger: Duration::from_millis(5),
    };

    /// A place that neither accepts nor refuses: the queue of its listener is full.
    pub(in crate::egress) async fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue never fills");
        }
        (address, listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_delays_no_connection() {
        let (nowhere, _listener, _queue) = silent().await;
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = here.local_addr().unwrap();
        let connected = connect(&[nowhere, nowhere, there], &PATIENT).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_way_at_once() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = here.local_addr().unwrap();
        let never = Timeouts { stagger: Duration::from_secs(600), ..PATIENT };
        let connected = connect(&[closed, closed, there], &never).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
        assert!(matches!(connect(&[closed, closed], &never).await, Err(Lost::Refused(_))));
    }

    #[tokio::test]
    async fn a_race_that_nobody_wins_ends() {
        let (nowhere, _listener, _queue) = silent().await;
        let short = Timeouts { connect_all: Duration::from_millis(30), ..PATIENT };
        assert!(matches!(connect(&[nowhere; 4], &short).await, Err(Lost::TimedOut)));
        let short = Timeouts { connect: Duration::from_millis(10), ..PATIENT };
        assert!(matches!(connect(&[nowhere; 2], &short).await, Err(Lost::TimedOut)));
        assert!(connect(&[], &PATIENT).await.is_err());
    }

    #[test]
    fn families_take_turns_and_the_resolvers_first_choice_begins() {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = parse(&["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1", "192.0.2.2:1"]);
        let expected = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"];
        assert_eq!(in_turn(&given), parse(&expected));
        let given = parse(&["192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]);
        assert_eq!(in_turn(&given), parse(&["192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]));
        assert_eq!(in_turn(&vec![given[0]; 100]).len(), MOST);
    }
}
