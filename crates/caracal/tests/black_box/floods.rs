//! Floods of HTTP/2, frame by frame, at the Gateway of a running system: each is ended or bounded, the process does not grow
//! by it, others are answered meanwhile, and what is on record is what happened (gateway.md, property 21).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::support::{Addressed, Http, NOTES, Running, Tenant};
use crate::{PATIENCE, until};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const CALM: u32 = 11;
const COMPRESSION_ERROR: u32 = 9;

/// What the process may grow by, whatever is sent to it: far less than any of the floods sends, or makes it unpack.
const GROWTH_MIB: usize = 48;
/// Frames of a flood that nobody ends.
const MANY: usize = 200_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A string of HPACK, not compressed.
fn text(into: &mut Vec<u8>, value: &str) {
    match value.len() {
        short @ 0..127 => into.push(u8::try_from(short).unwrap()),
        long => {
            into.push(127);
            let mut left = long - 127;
            while left >= 128 {
                into.push(u8::try_from(left % 128).unwrap() | 128);
                left /= 128;
            }
            into.push(u8::try_from(left).unwrap());
        }
    }
    into.extend(value.as_bytes());
}

/// The head of a call, each field as it is.
fn head(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // `:method GET` and `:scheme http` have their numbers; `:path` and `:authority` have them for their names.
    let mut block = vec![0x82, 0x86, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "gateway.test");
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// What a field counts of a head (RFC 9113 §6.5.2).
fn unpacked(name: &str, value: &str) -> usize {
    name.len() + value.len() + 32
}

/// What came back on a connection.
#[derive(Debug, Default)]
struct Heard {
    /// Frames by their kind.
    frames: HashMap<u8, usize>,
    /// Of `GOAWAY`.
    reason: Option<u32>,
    /// Streams that the other side reset.
    reset: Vec<u32>,
}

/// A caller who keeps no rule but those of frames.
struct Rogue {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Rogue {
    /// Begins a connection with these settings, and takes those of the other side.
    async fn connect(system: &Running, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(system.address("gateway")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (from, to) = stream.into_split();
        let mut this = Self { from, to };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        this.to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        this.to.write_all(&frame(SETTINGS, 0, 0, &payload)).await.unwrap();
        loop {
            let (kind, flags, ..) = next(&mut this.from).await.unwrap();
            if kind == SETTINGS && flags & ACK == 0 {
                break;
            }
        }
        this.to.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        this
    }

    /// Sends what `each` makes, up to `most` times, and takes in what comes back. Says how often it was taken, and what was
    /// heard until the other side ended the connection, or until it has answered a last `PING`.
    async fn flood(mut self, most: usize, mut each: impl FnMut(usize) -> Vec<u8>) -> (usize, Heard) {
        let sending = async {
            for n in 0..most {
                if self.to.write_all(&each(n)).await.is_err() {
                    return n;
                }
            }
            let _ = self.to.write_all(&frame(PING, 0, 0, b"the last")).await;
            most
        };
        let hearing = async {
            let mut heard = Heard::default();
            while let Some((kind, flags, stream, payload)) = next(&mut self.from).await {
                *heard.frames.entry(kind).or_default() += 1;
                match kind {
                    GOAWAY => heard.reason = Some(number(&payload[4..8])),
                    RESET => heard.reset.push(stream),
                    PING if flags & ACK != 0 && payload == b"the last" => break,
                    _ => {}
                }
            }
            heard
        };
        timeout(PATIENCE, async { tokio::join!(sending, hearing) }).await.expect("an end of the flood")
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The next frame; `None` when the connection has ended, in order or not.
async fn next(from: &mut OwnedReadHalf) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, from.read_exact(&mut head)).await.expect("a frame or an end").ok()?;
    let mut payload = vec![0; usize::try_from(number(&head[..3])).unwrap()];
    from.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], number(&head[5..9]) & 0x7fff_ffff, payload))
}

/// Answers everything, `/notes?large` with more than anybody takes in at once, and counts what it is asked.
async fn counting_upstream() -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let asked = Arc::<Mutex<HashMap<String, usize>>>::default();
    let counts = asked.clone();
    let router = axum::Router::new().fallback(move |uri: http::Uri| {
        let query = uri.query().unwrap_or_default().to_owned();
        *counts.lock().unwrap().entry(query.clone()).or_default() += 1;
        async move { if query == "large" { "x".repeat(1 << 20) } else { "notes".to_owned() } }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// Resident memory of a process, in MiB.
fn resident(system: &Running) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", system.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// A system under a flood, and somebody else who uses it.
struct Scene {
    http: Arc<Http>,
    system: Arc<Running>,
    tenant: Arc<Tenant>,
    lent: Arc<(String, String)>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    before: usize,
    /// Calls of others so far.
    others: AtomicUsize,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment = [
            ("GATEWAY_CLEARTEXT_HTTP2", "true"),
            ("API_V1_RATE_LIMIT_PER_MIN", "0"),
            ("STS_MINT_RATE_LIMIT_PER_MIN", "1000000"),
            ("STREAM_IDLE_TIMEOUT", "1s"),
            ("LOG_LEVEL", "error"),
        ];
        let (http, system) = (Http::new(), Running::start_with(directory.path(), &environment));
        let (url, asked) = counting_upstream().await;
        let tenant = Tenant::provision(&http, &system, &url).await;
        let lent = tenant.delegation(&http, &system).await;
        let (http, system, tenant, lent) = (Arc::new(http), Arc::new(system), Arc::new(tenant), Arc::new(lent));
        let mut scene =
            Self { http, system, tenant, lent, asked, before: 0, others: AtomicUsize::new(0), _directory: directory };
        // What the first calls make the process keep is no growth.
        for n in 0..20 {
            call(&scene.http, &scene.system, &scene.tenant, &scene.lent, &format!("warm-{n}")).await;
        }
        scene.asked.lock().unwrap().clear();
        scene.before = resident(&scene.system);
        scene
    }

    /// The time of a flood, during which somebody else goes on calling, and an account of it.
    async fn during<T>(&self, flood: impl Future<Output = T>) -> T {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (http, system) = (self.http.clone(), self.system.clone());
        let (tenant, lent) = (self.tenant.clone(), self.lent.clone());
        let (told, highest) = (stop.clone(), peak.clone());
        let begun = self.others.load(Ordering::Relaxed);
        let other = tokio::spawn(async move {
            let mut calls = begun;
            while calls < begun + 3 || !told.load(Ordering::Relaxed) {
                call(&http, &system, &tenant, &lent, &format!("other-{calls}")).await;
                calls += 1;
                let now = resident(&system);
                let mut highest = highest.lock().unwrap();
                *highest = now.max(*highest);
            }
            calls
        });
        let outcome = flood.await;
        stop.store(true, Ordering::Relaxed);
        let calls: usize = timeout(PATIENCE, other).await.expect("others are answered").unwrap();
        let grown = (*peak.lock().unwrap()).saturating_sub(self.before);
        assert!(grown <= GROWTH_MIB, "grown by {grown} MiB");
        until("evidence is committed", async || (self.metric("audit_queue_depth").await == 0).then_some(())).await;
        assert_eq!(self.metric("audit_dropped").await, 0);
        self.others.store(calls, Ordering::Relaxed);
        for n in begun..calls {
            assert_eq!(self.executed(&format!("other-{n}")).await, 1, "call {n} of {calls}");
        }
        assert_eq!(self.asked.lock().unwrap().get("other").copied(), Some(calls));
        outcome
    }

    async fn metric(&self, name: &str) -> u64 {
        let url = format!("{}/metrics.json", self.system.url("gateway"));
        self.http.send(http::Method::GET, &url, &[], "").await.unwrap().json()[name].as_u64().unwrap()
    }

    /// How often a call of this request is on record.
    async fn executed(&self, request: &str) -> usize {
        let events = self.tenant.evidence(&self.http, &*self.system, request).await;
        let is_call = |event: &&serde_json::Value| event["event_type"] == "gateway_resource_request";
        events.as_array().map_or(0, |events| events.iter().filter(is_call).count())
    }

    fn asked(&self, query: &str) -> usize {
        self.asked.lock().unwrap().get(query).copied().unwrap_or(0)
    }

    async fn mandate(&self) -> String {
        let minted = self.tenant.mint(&self.http, &*self.system, (&self.lent.0, &self.lent.1)).await;
        minted.unwrap().text("access_token")
    }

    /// The head of a call with a mandate of its own.
    async fn asking(&self, path: &str, id: &str) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.mandate().await);
        head(path, &[("authorization", &bearer), ("x-caracal-resource", NOTES), ("x-request-id", id)])
    }
}

/// A call that must succeed.
async fn call(http: &Http, system: &Running, tenant: &Tenant, lent: &(String, String), id: &str) {
    let minted = tenant.mint(http, system, (&lent.0, &lent.1)).await.unwrap();
    let (url, bearer) =
        (format!("{}/notes?other", system.url("gateway")), format!("Bearer {}", minted.text("access_token")));
    let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES), ("x-request-id", id)];
    let answer = timeout(PATIENCE, http.send(http::Method::GET, &url, &headers, "")).await.expect("an answer");
    let answer = answer.expect("a connection that holds");
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, &b"notes"[..]), "{id}");
}

mod t08_availability_floods {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_never_ends_ends_its_connection() {
        let scene = Scene::new().await;
        let asking = scene.asking("/notes?flood", "flood").await;
        let begun = frame(HEADERS, END_STREAM, 1, &asking);
        // Fields that are whole, one field that is not, and nothing at all.
        let mut whole = vec![0];
        text(&mut whole, "x-more");
        text(&mut whole, &"x".repeat(4096));
        let mut endless = vec![0];
        text(&mut endless, "x-more");
        endless.extend([127, 255, 255, 255, 7]);
        for piece in [whole, vec![b'x'; 16_000], Vec::new()] {
            let rogue = Rogue::connect(&scene.system, &[]).await;
            let first = if piece.first() == Some(&b'x') { endless.clone() } else { Vec::new() };
            let (sent, heard) = scene
                .during(rogue.flood(MANY, |n| match n {
                    0 => begun.clone(),
                    1 => frame(CONTINUATION, 0, 1, &first),
                    _ => frame(CONTINUATION, 0, 1, &piece),
                }))
                .await;
            assert!(sent < MANY, "{heard:?}");
            assert!(matches!(heard.reason, Some(CALM | COMPRESSION_ERROR)), "{heard:?}");
        }
        assert_eq!((scene.asked("flood"), scene.executed("flood").await), (0, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_that_are_taken_back_at_once_end_their_connection() {
        let scene = Scene::new().await;
        let asking = scene.asking("/notes?flood", "flood").await;
        let rogue = Rogue::connect(&scene.system, &[]).await;
        let (sent, heard) = scene
            .during(rogue.flood(MANY, |n| {
                let stream = u32::try_from(n).unwrap() * 2 + 1;
                let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream, &asking);
                [asked, frame(RESET, 0, stream, &8u32.to_be_bytes())].concat()
            }))
            .await;
        assert!(sent < MANY, "{heard:?}");
        // The one mandate is good for one call, which is on record if it got as far as that.
        let (asked, executed) = (scene.asked("flood"), scene.executed("flood").await);
        assert!(asked <= 1 && executed >= asked, "{asked} asked, {executed} on record");
    }

    /// Many short fields: less than 20 KiB as HTTP/1 would write them, so that only the count of HTTP/2 is in question.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_may_unpack_to_just_under_twenty_kib_and_a_byte_more_reaches_nobody() {
        let scene = Scene::new().await;
        let stream = TcpStream::connect(scene.system.address("gateway")).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let bearer = format!("Bearer {}", scene.mandate().await);
        // The mandate of the one that was refused is as good as before.
        for (size, query, status) in [(20_480, "above", 431), (20_479, "below", 200)] {
            let mut request = http::Request::get(format!("http://gateway.test/notes?{query}"));
            let fields = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES), ("x-request-id", query)];
            for (name, value) in fields {
                request = request.header(name, value);
            }
            let path = format!("/notes?{query}");
            let own =
                [(":method", "GET"), (":scheme", "http"), (":path", path.as_str()), (":authority", "gateway.test")];
            let mut left = size - own.iter().chain(&fields).map(|(name, value)| unpacked(name, value)).sum::<usize>();
            let filler = "x".repeat(200);
            while left >= 2 * unpacked("x-more", &filler) {
                request = request.header("x-more", &filler);
                left -= unpacked("x-more", &filler);
            }
            request = request.header("x-last", "x".repeat(left - unpacked("x-last", "")));
            let request = request.body(Full::new(Bytes::new())).unwrap();
            let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("an answer").unwrap();
            assert_eq!(answer.status(), status, "{size}");
            let calls = usize::from(status == 200);
            assert_eq!(scene.asked(query), calls);
            until("its evidence", async || (scene.executed(query).await == calls).then_some(())).await;
        }
    }

    /// A field that HTTP/2 has no use for makes a head malformed (RFC 9113 §8.2.2).
    #[tokio::test(flavor = "multi_thread")]
    async fn after_two_hundred_and_fifty_six_streams_that_were_reset_for_what_they_said_the_next_ends_its_connection() {
        let scene = Scene::new().await;
        let mut malformed = scene.asking("/notes?flood", "flood").await;
        malformed.push(0);
        text(&mut malformed, "connection");
        text(&mut malformed, "close");
        let mut rogue = Rogue::connect(&scene.system, &[]).await;
        let faults = async {
            for n in 0.. {
                let asking = frame(HEADERS, END_STREAM | END_HEADERS, n * 2 + 1, &malformed);
                rogue.to.write_all(&asking).await.unwrap();
                loop {
                    match next(&mut rogue.from).await.expect("a reset or a reason") {
                        (RESET, _, stream, _) if stream == n * 2 + 1 => break,
                        (GOAWAY, _, _, payload) => return (n, number(&payload[4..8])),
                        (kind, ..) => assert!(![HEADERS, DATA].contains(&kind), "{n} is answered"),
                    }
                }
            }
            unreachable!("numbers end")
        };
        assert_eq!(scene.during(faults).await, (256, CALM));
        assert_eq!((scene.asked("flood"), scene.executed("flood").await), (0, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_unpacks_to_far_more_than_was_sent_reaches_nobody() {
        let scene = Scene::new().await;
        let asking = scene.asking("/notes?flood", "flood").await;
        // One field is learned, and then named by a byte each time: 4 MB of field out of a kilobyte.
        let mut bomb = asking;
        bomb.push(0x40);
        text(&mut bomb, "x-bomb");
        text(&mut bomb, &"x".repeat(3_900));
        bomb.extend([0xbe; 1_000]);
        let rogue = Rogue::connect(&scene.system, &[]).await;
        let (sent, heard) =
            scene
                .during(rogue.flood(5_000, |n| {
                    frame(HEADERS, END_STREAM | END_HEADERS, u32::try_from(n).unwrap() * 2 + 1, &bomb)
                }))
                .await;
        assert!(sent < 5_000 && heard.reason == Some(CALM), "{sent} {heard:?}");
        assert_eq!((scene.asked("flood"), scene.executed("flood").await), (0, 0));
    }

    /// The library counts them, over the life of a connection, and can't be told how many are too many: what is written down in
    /// docs/gateway.md holds for as long as this does.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_hundred_frames_of_a_body_may_hold_nothing_and_one_more_ends_the_connection() {
        let scene = Scene::new().await;
        for (empty, id) in [(100, "enough"), (101, "flood")] {
            let asking = scene.asking(&format!("/notes?{id}"), id).await;
            let begun = frame(HEADERS, END_HEADERS, 1, &asking);
            let frames = [begun, frame(DATA, 0, 1, &[]).repeat(empty), frame(DATA, END_STREAM, 1, b"x")].concat();
            let mut rogue = Rogue::connect(&scene.system, &[]).await;
            let answered = async {
                // The other side may have ended the connection by then.
                let _ = rogue.to.write_all(&frames).await;
                loop {
                    match next(&mut rogue.from).await.expect("an answer or a reason") {
                        // `:status 200` has a number of its own.
                        (HEADERS, _, 1, fields) => return Ok(fields[0] == 0x88),
                        (GOAWAY, _, _, payload) => return Err(number(&payload[4..8])),
                        _ => {}
                    }
                }
            };
            let answered = scene.during(answered).await;
            assert_eq!(answered, if empty == 100 { Ok(true) } else { Err(CALM) }, "{empty}");
        }
        until("a call", async || (scene.executed("enough").await == 1).then_some(())).await;
        assert_eq!(scene.asked("enough"), 1);
        // The other was a call until its body broke off.
        let (asked, executed) = (scene.asked("flood"), scene.executed("flood").await);
        assert!(executed >= asked && executed <= 1, "{asked} asked, {executed} on record");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_without_end_are_answered_one_by_one() {
        let scene = Scene::new().await;
        for asking in [frame(PING, 0, 0, b"question"), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])] {
            let rogue = Rogue::connect(&scene.system, &[]).await;
            let many = 20_000;
            let (sent, heard) = scene.during(rogue.flood(many, |_| asking.clone())).await;
            let answers = heard.frames[&asking[3]];
            assert!((many..=many + 2).contains(&answers), "{sent} sent, {answers} answers");
        }
    }

    /// Who takes no answers is not read on: what is sent waits in the sockets, and then the connection is given up.
    #[tokio::test(flavor = "multi_thread")]
    async fn questions_whose_answers_nobody_takes_end_their_connection() {
        let scene = Scene::new().await;
        for asking in [frame(PING, 0, 0, b"question"), frame(SETTINGS, 0, 0, &[])] {
            let mut rogue = Rogue::connect(&scene.system, &[]).await;
            let batch = asking.repeat(1_000);
            let sent = scene
                .during(async {
                    let mut sent = 0;
                    // Ends: the sockets hold only so much.
                    while timeout(PATIENCE, rogue.to.write_all(&batch)).await.expect("given up").is_ok() {
                        sent += 1;
                        assert!(sent < 100_000, "all of it is taken");
                    }
                    sent
                })
                .await;
            assert!(sent > 0);
        }
    }

    /// As many calls as a connection may have, each with an answer that is given no room.
    #[tokio::test(flavor = "multi_thread")]
    async fn answers_that_are_given_no_room_are_given_up_and_on_record() {
        let scene = Scene::new().await;
        let calls = 64;
        let mut heads = Vec::new();
        for n in 0..calls {
            let asking = scene.asking("/notes?large", &format!("slow-{n}")).await;
            heads.push(frame(HEADERS, END_STREAM | END_HEADERS, n * 2 + 1, &asking));
        }
        // `SETTINGS_INITIAL_WINDOW_SIZE`: nothing may be sent on a stream.
        let mut rogue = Rogue::connect(&scene.system, &[(4, 0)]).await;
        scene
            .during(async {
                rogue.to.write_all(&heads.concat()).await.unwrap();
                let mut reset = Vec::new();
                while reset.len() < heads.len() {
                    let (kind, _, stream, _) = next(&mut rogue.from).await.expect("the connection goes on");
                    if kind == RESET {
                        reset.push(stream);
                    }
                    assert_ne!(kind, DATA, "there is no room");
                }
            })
            .await;
        assert_eq!(scene.asked("large"), heads.len());
        for n in 0..calls {
            let events = scene.tenant.evidence(&scene.http, &*scene.system, &format!("slow-{n}")).await;
            let events: Vec<_> = events.as_array().unwrap().iter().collect();
            let [event] =
                events.iter().filter(|event| event["event_type"] == "gateway_resource_request").collect::<Vec<_>>()[..]
            else {
                panic!("{events:?}")
            };
            assert_eq!(event["evaluation_status"], "upstream_error", "{event}");
            assert_eq!(event["metadata_json"]["error_kind"], json!("response_copy_failed"));
        }
        until("calls end", async || (scene.metric("calls_open").await == 0).then_some(())).await;
    }
}
