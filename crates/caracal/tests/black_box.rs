//! The built binary as a process, seen by an outsider: sockets, signals, files. What an attacker or an operator would try
//! from there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "black_box/artefact.rs"]
mod artefact;
#[path = "black_box/browser.rs"]
mod browser;
#[path = "black_box/corpora.rs"]
mod corpora;
#[path = "black_box/correlation.rs"]
mod correlation;
#[path = "black_box/descriptors.rs"]
mod descriptors;
#[path = "black_box/egress.rs"]
mod egress;
#[path = "black_box/face.rs"]
mod face;
#[path = "black_box/floods.rs"]
mod floods;
#[path = "black_box/lifecycle.rs"]
mod lifecycle;
#[path = "black_box/secrets.rs"]
mod secrets;
#[path = "black_box/streams.rs"]
mod streams;
#[path = "black_box/tokens.rs"]
mod tokens;
#[path = "black_box/traces.rs"]
mod traces;
#[path = "black_box/transport.rs"]
mod transport;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Addressed, Running};

/// How long to wait for something that happens at once. Only a defect takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` says what it waits for.
async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A system in which polling is not limited.
fn start(data_dir: &std::path::Path) -> Running {
    Running::start_with(data_dir, &[("API_V1_RATE_LIMIT_PER_MIN", "0")])
}

/// An answer byte by byte.
struct Raw {
    status: u16,
    /// The head as it came.
    head: String,
    body: String,
}

impl Raw {
    fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        let found = self.head.lines().skip(1).find(|text| line(text))?;
        found.split_once(':').map(|(_, value)| value.trim())
    }
}

/// Sends bytes and reads to the end of the connection. `None` when nothing came back.
async fn exchange_raw(address: &str, request: &[u8]) -> Option<Raw> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A refusal may come, and the connection close, before everything is sent.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Raw { status, head: head.to_owned(), body: body.to_owned() })
}

/// A call through the Gateway whose answer is read piece by piece.
struct OpenCall(TcpStream);

impl OpenCall {
    async fn begin(system: &Running, mandate: &str, request_id: &str) -> Self {
        let mut stream = TcpStream::connect(system.address("gateway")).await.unwrap();
        let head = format!(
            "GET /notes HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {mandate}\r\nx-caracal-resource: {}\r\n\
             x-request-id: {request_id}\r\nconnection: close\r\n\r\n",
            support::NOTES
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Reads until `text` has come.
    async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&seen).contains(text) {
                let read = self.0.read(&mut buffer).await.unwrap();
                assert!(read > 0, "ended before `{text}`: {}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&buffer[..read]);
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited in vain for `{text}`"));
        String::from_utf8(seen).unwrap()
    }

    /// Reads to the end, which may be a reset.
    async fn rest_however_it_ends(mut self) -> String {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        let _ = ended.expect("the stream stays open");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Reads to the end.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        let ended = tokio::time::timeout(PATIENCE, self.0.read_to_string(&mut rest)).await;
        ended.expect("the stream stays open").unwrap();
        rest
    }
}

/// Reads a request's head off an upstream's connection.
async fn head_of(stream: &mut TcpStream) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0; 1]);
    while !seen.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}
