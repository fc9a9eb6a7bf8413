//! Against servers that say what no STS says, and say it byte by byte.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal_authority::{ApplicationId, MandateId, Timestamp, ZoneId};
use caracal_crypto::SecretText;
use caracal_http::RequestId;
use caracal_http::form::Form;
use caracal_store::ManualClock;
use caracal_store::resources::CallLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::exchange::RefusalKind;

const NOW: i64 = 1_800_000_000;

#[derive(Default)]
struct Names {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn point(&self, name: &str, addresses: &[IpAddr]) {
        self.known.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.known.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// What a server does with each request.
#[derive(Clone)]
enum Does {
    /// Says this, and keeps the connection.
    Says(String),
    /// Says this, closes, and waits until the far end has closed, too.
    Ends(String),
    /// Says nothing, for ever.
    Hangs,
}

/// A server on loopback. Ends when dropped.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn at(address: &str, does: Does) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let closed = Arc::new(AtomicUsize::new(0));
        let (hearing, counting, closing) = (heard.clone(), connections.clone(), closed.clone());
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counting.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream, does.clone(), hearing.clone(), closing.clone()));
            }
        });
        Self { address, heard, connections, closed, task }
    }

    async fn that(does: Does) -> Self {
        Self::at("127.0.0.1:0", does).await
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, does: Does, heard: Arc<Mutex<Vec<String>>>, closed: Arc<AtomicUsize>) {
    while let Some(request) = one_request(&mut stream).await {
        heard.lock().unwrap().push(request);
        match &does {
            Does::Says(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Does::Ends(answer) => {
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read(&mut [0]).await;
                closed.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Does::Hangs => std::future::pending().await,
        }
    }
}

async fn one_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&some[..read]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return Some(text);
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn json(status: &str, body: &str) -> String {
    answer(status, "Content-Type: application/json\r\n", body)
}

const ALLOW: &str = r#"{"access_token":"a.b.c","upstreams":{"resource://docs":{"url":"https://up.example/"}}}"#;

fn key() -> Arc<HmacKey> {
    Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap())
}

fn sts_with(url: &str, change: impl FnOnce(&mut RemoteStsConfig)) -> RemoteSts {
    let mut config = RemoteStsConfig {
        url: StsUrl::parse(url, false).unwrap(),
        key: Some(key()),
        timeout: Duration::from_secs(5),
        clock: Arc::new(ManualClock::at(Timestamp::from_seconds(NOW))),
        resolver: Arc::new(Names::default()),
        trust: TlsTrust::from_pem(false, None),
    };
    change(&mut config);
    RemoteSts::new(config).unwrap()
}

fn sts(server: &Server) -> RemoteSts {
    sts_with(&format!("http://{}", server.address), |_| {})
}

fn question() -> ExchangeRequest {
    ExchangeRequest {
        zone: ZoneId::parse("z-1").unwrap(),
        client: ApplicationId::parse("app-1").unwrap(),
        bearer: SecretText::new("aaa.bbb.ccc".to_owned()),
        jti: MandateId::parse("m-1").unwrap(),
        expires_at: Timestamp::from_seconds(NOW + 300),
        resource: "resource://docs".to_owned(),
        method: "POST".to_owned(),
        path: "/api/a%20b".to_owned(),
        request_id: RequestId::parse(b"req-123").unwrap(),
    }
}

async fn refusal(sts: &RemoteSts) -> ExchangeRefusal {
    match sts.exchange(question()).await {
        Ok(permitted) => panic!("permitted: {}", permitted.upstream.map(|found| found.url).unwrap_or_default()),
        Err(refusal) => refusal,
    }
}

fn short(refusal: &ExchangeRefusal) -> (u16, &str, &str, RefusalKind) {
    (refusal.status.as_u16(), &refusal.code, &refusal.description, refusal.kind)
}

#[tokio::test]
async fn t02_sts_gateway_signature_the_question_is_the_contracts_and_every_try_has_a_nonce_of_its_own() {
    let server = Server::that(Does::Says(json("200 OK", ALLOW))).await;
    let sts = sts(&server);
    for _ in 0..2 {
        let permitted = sts.exchange(question()).await.ok().unwrap();
        assert_eq!(permitted.access_token.expose(), "a.b.c");
        assert_eq!(permitted.upstream.unwrap().url, "https://up.example/");
    }
    let heard = server.heard();
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    let nonces: Vec<&str> = heard.iter().map(|request| line(request, "x-caracal-gateway-request")).collect();
    assert!(nonces[0] != nonces[1] && nonces.iter().all(|nonce| nonce.len() == 64), "{nonces:?}");
    let (head, body) = heard[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /oauth/2/token HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", server.address.to_string().as_str()),
        ("user-agent", "caracal-gateway"),
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-request-id", "req-123"),
        ("x-caracal-gateway-timestamp", "1800000000"),
    ] {
        assert_eq!(line(head, name), value, "{name}");
    }
    let signature = gateway_signature(&key(), NOW, nonces[0], "POST", "/oauth/2/token", body.as_bytes());
    assert_eq!(line(head, "x-caracal-gateway-signature"), signature);
    assert_eq!(
        body,
        "application_id=app-1&gateway_request_id=req-123&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-\
         exchange&request_method=POST&request_path=%2Fapi%2Fa%2520b&resource=resource%3A%2F%2Fdocs&subject_token=aaa.\
         bbb.ccc&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&zone_id=z-1"
    );
    let form = Form::parse_fields(body.as_bytes(), &[]).unwrap();
    assert_eq!(form.get("request_path"), Some("/api/a%20b"), "the path is asked about byte for byte");
}

fn line<'t>(text: &'t str, name: &str) -> &'t str {
    let prefix = format!("{name}: ");
    text.lines().find_map(|line| line.strip_prefix(prefix.as_str())).unwrap_or_default()
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let server = Server::that(Does::Says(json("401 Unauthorized", r#"{"error":"access_denied"}"#))).await;
    let sts = sts_with(&format!("http://{}/base/", server.address), |config| config.key = None);
    assert_eq!(short(&refusal(&sts).await), (401, "access_denied", "", RefusalKind::Unknown));
    let heard = server.heard().remove(0);
    assert!(heard.starts_with("POST /base/oauth/2/token ") && !heard.contains("x-caracal-gateway"), "{heard}");
}

#[tokio::test]
async fn every_member_of_a_directive_arrives() {
    let body = r#"{"access_token":"t","token_type":"Bearer","upstreams":{"other":{"url":"x"},"resource://docs":{
        "url":"https://up","auth_mode":"provider_apikey","auth_location":"query","auth_header":"X-Key",
        "query_param_name":"key","auth_scheme":"Key","allowed_token_hosts":["a","b"],"provider_token":"secret",
        "provider_id":"p","connection_id":"c","forward_caracal_identity":true,"expires_at":17,"news":1}}}"#;
    let server =
        Server::that(Does::Says(answer("200 OK", "Content-Type: application/vnd.x+JSON; a=b\r\n", body))).await;
    let directive = sts(&server).exchange(question()).await.ok().unwrap().upstream.unwrap();
    let texts = [
        (directive.url, "https://up"),
        (directive.auth_mode, "provider_apikey"),
        (directive.auth_location, "query"),
        (directive.auth_header, "X-Key"),
        (directive.query_param_name, "key"),
        (directive.auth_scheme, "Key"),
        (directive.provider_id, "p"),
        (directive.connection_id, "c"),
        (directive.allowed_token_hosts.join(" "), "a b"),
        (directive.provider_token.map(|token| token.expose().clone()).unwrap_or_default(), "secret"),
    ];
    for (found, expected) in texts {
        assert_eq!(found, expected);
    }
    assert!(directive.forward_caracal_identity && directive.expires_at == Some(17));
}

#[tokio::test]
async fn limits_arrive_and_one_that_nobody_here_could_hold_to_is_no_answer() {
    let with = |limits: &str| ALLOW.replace(r#""}}}"#, &format!(r#"","limits":{limits}}}}}}}"#));
    let server = Server::that(Does::Says(json("200 OK", &with(r#"{"max_request_bytes":16}"#)))).await;
    let directive = sts(&server).exchange(question()).await.ok().unwrap().upstream.unwrap();
    assert_eq!(directive.limits, CallLimits { max_request_bytes: Some(16), ..CallLimits::default() });
    let server = Server::that(Does::Says(json("200 OK", &with(r#"{"max_response_bytes":16}"#)))).await;
    assert_eq!(short(&refusal(&sts(&server)).await).2, "sts response invalid");
}

#[tokio::test]
async fn an_answer_without_the_resource_names_no_upstream() {
    for body in [r#"{"access_token":"t"}"#, r#"{"access_token":"t","upstreams":{"resource://other":{"url":"x"}}}"#] {
        let server = Server::that(Does::Says(json("200 OK", body))).await;
        assert!(sts(&server).exchange(question()).await.ok().unwrap().upstream.is_none(), "{body}");
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn nothing_malformed_grants_anything() {
        let huge = format!(r#"{{"access_token":"t","padding":"{}"}}"#, "x".repeat(17 * 1024));
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{huge}\r\n\
             0\r\n\r\n",
            huge.len()
        );
        let cases = [
            answer("200 OK", "Content-Type: text/plain\r\n", ALLOW),
            answer("200 OK", "", ALLOW),
            json("200 OK", &huge),
            chunked,
            json("200 OK", ""),
            json("200 OK", "{}"),
            json("200 OK", "[]"),
            json("200 OK", r#"{"access_token":""}"#),
            json("200 OK", r#"{"access_token":7}"#),
            json("200 OK", r#"{"access_token":"a","access_token":"b"}"#),
            json("200 OK", r#"{"access_token":"t","upstreams":[]}"#),
            json("200 OK", r#"{"access_token":"t","upstreams":{"resource://docs":{"url":7}}}"#),
            json("200 OK", r#"{"access_token":"t","upstreams":{"resource://docs":{"allowed_token_hosts":"a"}}}"#),
            json("201 Created", ALLOW),
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        ];
        for case in cases {
            let server = Server::that(Does::Ends(case.clone())).await;
            let refused = refusal(&sts(&server)).await;
            let expected = (502, "sts_unavailable", "sts response invalid", RefusalKind::Unknown);
            assert_eq!(short(&refused), expected, "{case:.200}");
            assert!(refused.is_outage());
        }
    }

    #[tokio::test]
    async fn other_answers_keep_status_code_text_and_time_to_wait_and_nothing_else() {
        let decided = |decision: &str, more: &str, body: &str, status: &str| {
            let headers = format!("Content-Type: application/json\r\nX-Caracal-Gateway-Decision: {decision}\r\n{more}");
            answer(status, &headers, body)
        };
        let denied = r#"{"error":"access_denied","error_description":"policy denied","approval_id":"x"}"#;
        let limited = r#"{"error":"provider_rate_limited","requestId":"other"}"#;
        let replayed = r#"{"error":"invalid_token","error_description":"token replay detected"}"#;
        let down = r#"{"error":"sts_unavailable","error_description":"sts unavailable"}"#;
        use RefusalKind as K;
        type Expected<'e> = (u16, &'e str, &'e str, RefusalKind);
        let rows: [(String, Expected<'_>, Option<u64>); 12] = [
            (
                decided("denied", "Retry-After: 9\r\n", denied, "403 Forbidden"),
                (403, "access_denied", "policy denied", K::Denied),
                None,
            ),
            (
                decided("denied", "Retry-After: 60\r\n", limited, "429 Too Many"),
                (429, "provider_rate_limited", "", K::Denied),
                Some(60),
            ),
            (
                decided("denied", "Retry-After: soon\r\n", limited, "429 Too Many"),
                (429, "provider_rate_limited", "", K::Denied),
                None,
            ),
            (
                decided("denied", "Retry-After: 99999999\r\n", limited, "429 Too Many"),
                (429, "provider_rate_limited", "", K::Denied),
                Some(86_400),
            ),
            (
                decided("replayed", "", replayed, "401 Unauthorized"),
                (401, "invalid_token", "token replay detected", K::Replayed),
                None,
            ),
            (
                decided("none", "Retry-After: 1\r\n", down, "503 Down"),
                (503, "sts_unavailable", "sts unavailable", K::Unavailable),
                Some(1),
            ),
            (json("403 Forbidden", denied), (403, "access_denied", "policy denied", K::Unknown), None),
            (
                answer("302 Found", "Location: http://169.254.169.254/\r\n", ""),
                (302, "sts_unavailable", "Found", K::Unknown),
                None,
            ),
            (answer("500 Oops", "", ""), (500, "sts_unavailable", "Internal Server Error", K::Unknown), None),
            (
                answer("503 Down", "Content-Type: text/html\r\n", "<p>"),
                (503, "sts_unavailable", "Service Unavailable", K::Unknown),
                None,
            ),
            (json("403 Forbidden", r#"{"error":""}"#), (403, "sts_unavailable", "Forbidden", K::Unknown), None),
            (json("403 Forbidden", r#"{"error":7}"#), (403, "sts_unavailable", "Forbidden", K::Unknown), None),
        ];
        for (case, expected, wait) in rows {
            let server = Server::that(Does::Ends(case.clone())).await;
            let refused = refusal(&sts(&server)).await;
            assert_eq!((short(&refused), refused.retry_after), (expected, wait.map(Duration::from_secs)), "{case}");
            assert_eq!(server.heard().len(), 1, "a redirect is not followed");
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_never_sent_again() {
        for (case, expected) in [
            ("", (503, "sts answer lost, the mandate may be used up")),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
                (503, "sts answer lost, the mandate may be used up"),
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
                (503, "sts answer lost, the mandate may be used up"),
            ),
            ("SSH-2.0-OpenSSH_9.9\r\n\r\n", (502, "sts unavailable")),
        ] {
            let server = Server::that(Does::Ends(case.to_owned())).await;
            let refused = refusal(&sts(&server)).await;
            let expected = (expected.0, "sts_unavailable", expected.1, RefusalKind::Unknown);
            assert_eq!((short(&refused), server.heard().len()), (expected, 1), "{case}");
            assert!(refused.is_outage());
        }
    }

    #[tokio::test]
    async fn an_sts_that_hangs_costs_the_deadline_and_no_more() {
        let server = Server::that(Does::Hangs).await;
        let url = format!("http://{}", server.address);
        let sts = sts_with(&url, |config| config.timeout = Duration::from_millis(100));
        let refused = refusal(&sts).await;
        assert_eq!(short(&refused), (504, "sts_unavailable", "sts timeout", RefusalKind::Unknown));
        assert_eq!((server.heard().len(), sts.check().await), (1, Err(StsUnreachable)));
        // An answer whose end never comes, too.
        let server = Server::that(Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned())).await;
        let url = format!("http://{}", server.address);
        let sts = sts_with(&url, |config| config.timeout = Duration::from_millis(100));
        assert_eq!(refusal(&sts).await.status, StatusCode::GATEWAY_TIMEOUT);
    }

    #[tokio::test]
    async fn an_sts_that_is_not_there_is_an_outage_in_which_nothing_was_used() {
        let server = Server::that(Does::Hangs).await;
        let sts = sts(&server);
        drop(server);
        let refused = refusal(&sts).await;
        assert_eq!(short(&refused), (502, "sts_unavailable", "sts unavailable", RefusalKind::Unavailable));
        assert!(refused.is_outage());
        let nameless = sts_with("http://nowhere.test:8080", |_| {});
        assert_eq!(short(&refusal(&nameless).await), short(&refused));
        assert_eq!(nameless.check().await, Err(StsUnreachable));
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_sts_has_closed_is_replaced() {
        let server = Server::that(Does::Ends(json("200 OK", ALLOW))).await;
        let sts = sts(&server);
        for asked in 1..=5 {
            assert!(sts.exchange(question()).await.is_ok());
            assert_eq!(server.heard().len(), asked);
            let seen = async {
                while server.closed.load(Ordering::SeqCst) < asked {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap();
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn readiness_asks_for_health() {
        let server = Server::that(Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned())).await;
        assert_eq!(sts(&server).check().await, Ok(()));
        assert!(server.heard()[0].starts_with("GET /health HTTP/1.1\r\n"), "{:?}", server.heard());
        let server = Server::that(Does::Says(json("503 Down", "{}"))).await;
        assert_eq!(sts(&server).check().await, Err(StsUnreachable));
    }
}

mod replicas {
    use super::*;

    /// Three addresses of this machine behind one name, on one port.
    async fn three(answering: [bool; 3]) -> (Vec<Server>, Arc<Names>, RemoteSts) {
        let ip = |last: u8| IpAddr::from([127, 0, 0, last]);
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = reserved.local_addr().unwrap().port();
        drop(reserved);
        let mut servers = Vec::new();
        for last in 1..=3_u8 {
            if answering[usize::from(last) - 1] {
                servers.push(Server::at(&format!("127.0.0.{last}:{port}"), Does::Says(json("200 OK", ALLOW))).await);
            }
        }
        let names = Arc::new(Names::default());
        names.point("sts.test", &[ip(1), ip(2), ip(3)]);
        let resolver = names.clone();
        let sts = sts_with(&format!("http://sts.test:{port}"), |config| config.resolver = resolver);
        (servers, names, sts)
    }

    #[tokio::test]
    async fn each_is_asked_in_turn() {
        let (servers, names, sts) = three([true; 3]).await;
        for _ in 0..12 {
            assert!(sts.exchange(question()).await.is_ok());
        }
        for server in &servers {
            assert_eq!((server.heard().len(), server.connections.load(Ordering::SeqCst)), (4, 1));
            assert!(line(&server.heard()[0], "host").starts_with("sts.test:"));
        }
        assert_eq!(names.asked.load(Ordering::SeqCst), 1, "a look-up counts for a while");
    }

    #[tokio::test]
    async fn a_dead_one_is_passed_over_and_then_asked_last() {
        let (servers, _, sts) = three([true, false, true]).await;
        for _ in 0..12 {
            assert!(sts.exchange(question()).await.is_ok());
        }
        assert_eq!(servers.iter().map(|server| server.heard().len()).sum::<usize>(), 12);
        assert!(servers.iter().all(|server| server.heard().len() >= 5), "the others share its part");
    }

    #[tokio::test]
    async fn replicas_that_were_all_replaced_are_found_at_once() {
        let (servers, names, sts) = three([true, false, true]).await;
        names.point("sts.test", &[IpAddr::from([127, 0, 0, 2])]);
        assert_eq!(refusal(&sts).await.status, StatusCode::BAD_GATEWAY);
        names.point("sts.test", &[IpAddr::from([127, 0, 0, 3])]);
        assert!(sts.exchange(question()).await.is_ok());
        assert_eq!(servers[1].heard().len(), 1);
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_still_leads_where_it_led() {
        let (_servers, names, sts) = three([true; 3]).await;
        assert!(sts.exchange(question()).await.is_ok());
        names.known.lock().unwrap().clear();
        assert_eq!(sts.replicas.in_turn(true).await.len(), 3);
        assert!(sts.exchange(question()).await.is_ok());
        assert_eq!(names.asked.load(Ordering::SeqCst), 2);
    }
}

mod address {
    use super::*;

    #[test]
    fn published_modes_insist_on_tls_but_nearby() {
        let judged = |text: &str, published| StsUrl::parse(text, published).err();
        for near in [
            "http://sts:8080",
            "http://localhost:8080/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "https://sts.example.com",
        ] {
            assert_eq!((judged(near, true), judged(near, false)), (None, None), "{near}");
        }
        for far in ["http://sts.example.com", "http://10.0.0.1:8080", "http://localhost.:8080", "http://sts.ns.svc"] {
            assert_eq!((judged(far, true), judged(far, false)), (Some(BadStsUrl::ClearText), None), "{far}");
        }
        for bad in ["", "sts:8080", "ftp://sts", "http://u:p@sts", "http://sts?x=1", "http://sts#x", "/sts", "http://"]
        {
            assert_eq!(judged(bad, false), Some(BadStsUrl::NotAbsolute), "{bad}");
        }
    }

    #[test]
    fn a_remote_sts_needs_a_deadline_and_trust_where_there_is_tls() {
        let config = |url: &str, timeout, bundle: &[u8]| RemoteStsConfig {
            url: StsUrl::parse(url, false).unwrap(),
            key: Some(key()),
            timeout: Duration::from_secs(timeout),
            clock: Arc::new(ManualClock::at(Timestamp::EPOCH)),
            resolver: Arc::new(Names::default()),
            trust: TlsTrust::from_pem(false, Some(bundle)),
        };
        assert_eq!(RemoteSts::new(config("http://sts", 0, b"")).err(), Some(RemoteStsError::Timeout));
        assert!(matches!(RemoteSts::new(config("https://sts", 5, b"x")), Err(RemoteStsError::Trust(_))));
        assert!(RemoteSts::new(config("http://sts", 5, b"x")).is_ok());
    }
}
