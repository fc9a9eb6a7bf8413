mod t03_gateway_egress {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::future::{Future, pending};
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use http::{HeaderMap, Method, Request, Response, Uri};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_rustls::TlsAcceptor;
    use tower::ServiceExt;

    use crate::egress::race::t03_gateway_egress::silent;
    use crate::egress::*;
    use crate::server::{Limits, serve};
    use crate::{FreshId, PeerAddr};

    /// Answers by list, one entry per question, and counts the questions.
    struct Scripted {
        answers: HashMap<&'static str, Vec<Vec<IpAddr>>>,
        asked: AtomicUsize,
    }

    impl Scripted {
        fn new(answers: &[(&'static str, &[&[&str]])]) -> Arc<Self> {
            let parse = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
            let answers = answers.iter().map(|(host, lists)| (*host, lists.iter().map(|list| parse(list)).collect()));
            Arc::new(Self { answers: answers.collect(), asked: AtomicUsize::new(0) })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Resolver for Scripted {
        fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
            let turn = self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answers.get(host).map(|lists| lists[turn.min(lists.len() - 1)].clone());
            Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such host")) })
        }
    }

    struct Silent;

    impl Resolver for Silent {
        fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
            Box::pin(pending())
        }
    }

    const QUICK: Timeouts = Timeouts {
        resolve: Duration::from_millis(50),
        connect: Duration::from_millis(100),
        connect_all: Duration::from_millis(300),
        stagger: Duration::from_millis(20),
        handshake: Duration::from_millis(100),
    };

    fn strict() -> AddressPolicy {
        AddressPolicy::default()
    }

    fn dev() -> AddressPolicy {
        AddressPolicy::new(true, PrivateHosts::default())
    }

    fn connector(policy: AddressPolicy, resolver: Arc<dyn Resolver>) -> GuardedConnector {
        GuardedConnector::with_timeouts(policy, resolver, TlsTrust::from_pem(false, None), QUICK)
    }

    async fn connect(connector: GuardedConnector, uri: &str) -> Result<(), EgressError> {
        connector.oneshot(uri.parse::<Uri>().unwrap()).await.map(drop)
    }

    /// An upstream that says which path it was asked for and where redirects would lead.
    async fn upstream() -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let service = tower::service_fn(|request: Request<Incoming>| async move {
            assert!(request.extensions().get::<PeerAddr>().is_some());
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = match request.uri().path() {
                "/large" => "x".repeat(10_000),
                "/hangs" => pending().await,
                path => format!("{} {host}{path}", request.method()),
            };
            let mut response = Response::new(Full::new(Bytes::from(body)));
            if request.uri().path() == "/redirects" {
                *response.status_mut() = http::StatusCode::FOUND;
                response.headers_mut().insert("location", "http://169.254.169.254/".parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(serve(listener, service, FreshId::new(|| "id".to_owned()), Limits::default(), stopped));
        (address, stop)
    }

    fn request(url: &str) -> SimpleRequest {
        SimpleRequest {
            method: Method::GET,
            url: TargetUrl::parse(url).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline: Duration::from_secs(5),
            max_response_bytes: 1_000,
        }
    }

    #[tokio::test]
    async fn an_address_in_the_uri_is_judged_without_any_resolver() {
        for uri in [
            "http://127.0.0.1:9/",
            "http://10.0.0.1/",
            "http://169.254.169.254/",
            "http://[::1]:9/",
            "https://[fe80::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://0x7f.1:9/",
            "http://2852039166/",
            "http://0/",
        ] {
            let resolver = Scripted::new(&[]);
            let outcome = connect(connector(strict(), resolver.clone()), uri).await;
            assert!(matches!(outcome, Err(EgressError::Refused { .. })), "{uri}: {outcome:?}");
            assert_eq!(resolver.asked(), 0, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_uri_that_is_no_target_is_refused() {
        for uri in ["/relative", "ftp://h/", "http://user@127.0.0.1/", "host:80"] {
            let outcome = connect(connector(dev(), Scripted::new(&[])), uri).await;
            assert!(matches!(outcome, Err(EgressError::Target(_))), "{uri}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_bad_answer_among_good_ones_refuses_all_before_anything_is_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = Scripted::new(&[("mixed", &[&["127.0.0.1", "169.254.169.254"]])]);
        let outcome = connect(connector(dev(), resolver), &format!("http://mixed:{port}/")).await;
        let Err(EgressError::Refused { host, class, admitted_by: None }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((host.as_str(), class), ("mixed", AddressClass::Metadata));
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err(), "dialled");
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_and_the_address_that_was_judged_is_dialled() {
        let (upstream, _running) = upstream().await;
        // The second answer is the rebinding: it must never be asked for.
        let resolver = Scripted::new(&[("rebinds", &[&["127.0.0.1"], &["169.254.169.254"]])]);
        let client = SimpleClient::new(connector(dev(), resolver.clone()));
        let answer = client.send(request(&format!("http://rebinds:{}/a", upstream.port()))).await.unwrap();
        assert_eq!(answer.body, format!("GET rebinds:{}/a", upstream.port()));
        assert_eq!(resolver.asked(), 1);
        // And when a new connection asks again, the new answer is judged like the first.
        let outcome = connect(connector(dev(), resolver), &format!("http://rebinds:{}/", upstream.port())).await;
        assert!(matches!(outcome, Err(EgressError::Refused { class: AddressClass::Metadata, .. })));
    }

    #[tokio::test]
    async fn a_listed_host_reaches_its_private_address_and_no_other_host_does() {
        let (upstream, _running) = upstream().await;
        let policy = AddressPolicy::new(false, PrivateHosts::parse("crm.internal").unwrap());
        let resolver = Scripted::new(&[("crm.internal", &[&["127.0.0.1"]]), ("other.internal", &[&["127.0.0.1"]])]);
        let client = SimpleClient::new(connector(policy, resolver));
        assert!(client.send(request(&format!("http://CRM.internal:{}/", upstream.port()))).await.is_ok());
        let refused = client.send(request(&format!("http://other.internal:{}/", upstream.port()))).await;
        let Err(SimpleError::Egress(error @ EgressError::Refused { .. })) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("CARACAL_PRIVATE_EGRESS_HOSTS"));
    }

    #[tokio::test]
    async fn redirects_are_handed_back_and_not_followed() {
        let (upstream, _running) = upstream().await;
        let resolver = Scripted::new(&[("up", &[&["127.0.0.1"]])]);
        let client = SimpleClient::new(connector(dev(), resolver.clone()));
        let answer = client.send(request(&format!("http://up:{}/redirects", upstream.port()))).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["location"]),
            (302, &"http://169.254.169.254/".parse().unwrap())
        );
        assert_eq!(resolver.asked(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_or_too_late_is_no_answer() {
        let (upstream, _running) = upstream().await;
        let client = SimpleClient::new(connector(dev(), Scripted::new(&[])));
        let large = client.send(request(&format!("http://{upstream}/large"))).await;
        assert_eq!(large.err(), Some(SimpleError::TooLarge));
        let late =
            SimpleRequest { deadline: Duration::from_millis(50), ..request(&format!("http://{upstream}/hangs")) };
        assert_eq!(client.send(late).await.err(), Some(SimpleError::Deadline));
    }

    #[tokio::test]
    async fn a_failed_connection_makes_its_name_be_looked_up_again() {
        struct Forgetting(Arc<Scripted>, AtomicUsize);
        impl Resolver for Forgetting {
            fn resolve<'a>(
                &'a self,
                host: &'a str,
            ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
                self.0.resolve(host)
            }
            fn forget(&self, host: &str) {
                assert_eq!(host, "moved");
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (upstream, _running) = upstream().await;
        let answers = Scripted::new(&[("moved", &[&["127.255.255.254"], &["127.0.0.1"]])]);
        let resolver = Arc::new(Forgetting(answers, AtomicUsize::new(0)));
        let uri = format!("http://moved:{}/", upstream.port());
        let failed = connect(connector(dev(), resolver.clone()), &uri).await;
        assert!(matches!(failed, Err(EgressError::ConnectFailed { .. })), "{failed:?}");
        assert_eq!(connect(connector(dev(), resolver.clone()), &uri).await, Ok(()));
        assert_eq!(resolver.1.load(Ordering::Relaxed), 1);
    }

    /// An upstream that never closes, and how often it was connected to.
    async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connected) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = connected.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                    }
                });
            }
        });
        (address, connected)
    }

    #[tokio::test]
    async fn only_so_many_connections_are_kept_and_one_more_serves_one_request() {
        let (one, connected_to_one) = counting().await;
        let (two, connected_to_two) = counting().await;
        let trust = TlsTrust::from_pem(false, None);
        let connector = GuardedConnector::keeping(1, dev(), Scripted::new(&[]), trust, QUICK);
        let client = SimpleClient::new(connector);
        for _ in 0..3 {
            for address in [one, two] {
                assert_eq!(client.send(request(&format!("http://{address}/"))).await.unwrap().body, "ok");
            }
        }
        assert_eq!(connected_to_one.load(Ordering::Relaxed), 1, "kept");
        assert_eq!(connected_to_two.load(Ordering::Relaxed), 3, "one too many");
    }

    #[tokio::test]
    async fn addresses_are_tried_in_order_until_one_answers() {
        let (upstream, _running) = upstream().await;
        // Nobody listens on the first one.
        let resolver = Scripted::new(&[("two", &[&["127.255.255.254", "127.0.0.1"]])]);
        let client = client::<Full<Bytes>>(connector(dev(), resolver), &PoolSettings::default());
        let uri: Uri = format!("http://two:{}/second", upstream.port()).parse().unwrap();
        let answer = client.get(uri).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, format!("GET two:{}/second", upstream.port()));
    }

    #[tokio::test]
    async fn every_failure_has_its_own_name() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let resolver = Scripted::new(&[("empty", &[&[]])]);
        let outcome = connect(connector(dev(), resolver.clone()), "http://nowhere/").await;
        assert!(matches!(outcome, Err(EgressError::ResolveFailed { .. })), "{outcome:?}");
        let outcome = connect(connector(dev(), resolver.clone()), "http://empty/").await;
        assert!(matches!(outcome, Err(EgressError::ResolveFailed { .. })), "{outcome:?}");
        let outcome = connect(connector(dev(), Arc::new(Silent)), "http://silent/").await;
        assert!(matches!(outcome, Err(EgressError::ResolveFailed { .. })), "{outcome:?}");
        let outcome = connect(connector(dev(), resolver.clone()), &format!("http://127.0.0.1:{closed}/")).await;
        assert!(matches!(outcome, Err(EgressError::ConnectFailed { .. })), "{outcome:?}");
        let client = client::<Full<Bytes>>(connector(strict(), resolver), &PoolSettings::default());
        let error = client.get("http://10.0.0.1/".parse().unwrap()).await.unwrap_err();
        assert!(matches!(EgressError::find(&error), Some(EgressError::Refused { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_times_out() {
        let (address, _listener, _queue) = silent().await;
        let outcome = connect(connector(dev(), Scripted::new(&[])), &format!("http://{address}/")).await;
        assert!(matches!(outcome, Err(EgressError::ConnectTimeout { .. })), "{outcome:?}");
    }

    /// A TLS server for one name, and the PEM of the certificate that vouches for it.
    async fn tls_upstream(name: &str) -> (u16, String) {
        tls_upstream_asking(name, None).await
    }

    /// The same; where it asks its clients for a certificate that `clients` vouch for, it says whether there was one.
    async fn tls_upstream_asking(name: &str, clients: Option<&CertificateDer<'static>>) -> (u16, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            }
        };
        let is_asking = clients.is_some();
        let config = builder.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let session = stream.get_ref().1;
                    let name = match (is_asking, session.peer_certificates()) {
                        (false, _) => session.server_name().unwrap_or("none").to_owned(),
                        (true, certificates) => if certificates.is_some() { "known" } else { "nobody" }.to_owned(),
                    };
                    let _ = stream.read(&mut [0; 4096]).await;
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        (port, pem("CERTIFICATE", certificate.der()))
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    async fn over_tls(trust: TlsTrust, host: &'static str, port: u16) -> Result<Bytes, SimpleError> {
        let resolver = Scripted::new(&[(host, &[&["127.0.0.1"]])]);
        let timeouts = Timeouts { handshake: Duration::from_secs(5), ..QUICK };
        let client = SimpleClient::new(GuardedConnector::with_timeouts(dev(), resolver, trust, timeouts));
        client.send(request(&format!("https://{host}:{port}/"))).await.map(|answer| answer.body)
    }

    #[tokio::test]
    async fn tls_is_verified_for_the_name_and_against_the_trusted_roots() {
        let (port, pem) = tls_upstream("secure.test").await;
        let trust = |bundle: Option<&str>| TlsTrust::from_pem(false, bundle.map(str::as_bytes));
        assert_eq!(over_tls(trust(Some(&pem)), "secure.test", port).await.unwrap(), "secure.test");
        for outcome in [
            over_tls(trust(Some(&pem)), "other.test", port).await,
            over_tls(trust(None), "secure.test", port).await,
            over_tls(TlsTrust::load(None), "secure.test", port).await,
            over_tls(trust(Some("no certificate")), "secure.test", port).await,
        ] {
            assert!(matches!(outcome, Err(SimpleError::Egress(EgressError::TlsFailed { .. }))), "{outcome:?}");
        }
        // Plain HTTP where TLS is expected, and nothing at all, fail alike.
        let (plain, _running) = upstream().await;
        let outcome = over_tls(trust(Some(&pem)), "secure.test", plain.port()).await;
        assert!(matches!(outcome, Err(SimpleError::Egress(EgressError::TlsFailed { .. }))), "{outcome:?}");
    }

    /// A peer is dialled by address; whom it has to prove to be is the name all the same.
    #[tokio::test]
    async fn a_certificate_is_shown_by_its_own_connector_and_its_sessions_are_nobody_elses() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["caracal".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key).unwrap();
        let texts = (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()));
        let identity = ClientIdentity::from_pem(texts.0.as_bytes(), texts.1.as_bytes()).unwrap();
        let (port, vouching) = tls_upstream_asking("bank.test", Some(certificate.der())).await;
        let resolver = Scripted::new(&[("bank.test", &[&["127.0.0.1"]])]);
        let timeouts = Timeouts { handshake: Duration::from_secs(5), ..QUICK };
        let trust = TlsTrust::from_pem(false, Some(vouching.as_bytes()));
        let plain = GuardedConnector::with_timeouts(dev(), resolver, trust, timeouts);
        let (plain, known) = (SimpleClient::new(plain.clone()), SimpleClient::new(plain.presenting(&identity)));
        // The server keeps no connection, so each request has a handshake, and could resume a session of one before.
        for (client, expected) in [(&plain, "nobody"), (&known, "known"), (&plain, "nobody"), (&known, "known")] {
            let answer = client.send(request(&format!("https://bank.test:{port}/"))).await.unwrap();
            assert_eq!(answer.body, expected);
        }
    }

    #[test]
    fn an_identity_is_a_certificate_and_its_own_key() {
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let certificate = CertificateParams::new(["c".to_owned()]).unwrap().self_signed(&keys[0]).unwrap();
        let certificate = pem("CERTIFICATE", certificate.der());
        let [own, other] = keys.map(|key| pem("PRIVATE KEY", &key.serialize_der()));
        let read = |chain: &str, key: &str| ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert_eq!(read(&certificate, &own), None);
        assert_eq!(read(&own, &own), Some(ClientIdentityError::Certificate));
        assert_eq!(read("", &own), Some(ClientIdentityError::Certificate));
        assert_eq!(read(&certificate, &certificate), Some(ClientIdentityError::Key));
        assert!(matches!(read(&certificate, &other), Some(ClientIdentityError::Pair(_))));
    }

    #[tokio::test]
    async fn a_peer_is_asked_by_address_and_proves_its_name() {
        let (port, pem) = tls_upstream("sts.test").await;
        let ask = async |name: &str, bundle: Option<&str>, uri: String, patience| {
            let trust = TlsTrust::from_pem(false, bundle.map(str::as_bytes));
            let connector = PeerConnector::new(Host::parse(name).unwrap(), trust, patience);
            let client: PeerClient<Full<Bytes>> = peer_client(connector, &PoolSettings::default());
            let answer = client.request(Request::get(uri).body(Full::default()).unwrap()).await;
            match answer {
                Ok(answer) => Ok(answer.into_body().collect().await.unwrap().to_bytes()),
                Err(error) => {
                    assert!(error.is_connect(), "nothing was sent: {error:?}");
                    Err(EgressError::find(&error).cloned().unwrap())
                }
            }
        };
        let (https, patience) = (format!("https://127.0.0.1:{port}/"), Duration::from_secs(5));
        assert_eq!(ask("sts.test", Some(&pem), https.clone(), patience).await.unwrap(), "sts.test");
        for outcome in
            [ask("other.test", Some(&pem), https.clone(), patience).await, ask("sts.test", None, https, patience).await]
        {
            assert!(matches!(outcome, Err(EgressError::TlsFailed { .. })), "{outcome:?}");
        }
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stalled = format!("https://{}/", silent.local_addr().unwrap());
        let outcome = ask("sts.test", Some(&pem), stalled, Duration::from_millis(50)).await;
        assert!(matches!(outcome, Err(EgressError::ConnectTimeout { .. })), "{outcome:?}");
        // No name in a URI is ever resolved on this way.
        let outcome = ask("sts.test", None, "http://localhost:1/".to_owned(), patience).await;
        assert!(matches!(outcome, Err(EgressError::Target(_))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_handshake_that_stalls_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}/", listener.local_addr().unwrap());
        let outcome = connect(connector(dev(), Scripted::new(&[])), &uri).await;
        assert!(matches!(outcome, Err(EgressError::TlsFailed { .. })), "{outcome:?}");
    }

    #[test]
    fn an_unusable_ca_bundle_breaks_all_trust_and_an_absent_one_none() {
        let directory = std::env::temp_dir();
        assert_eq!(TlsTrust::load(Some(&directory.join("caracal-no-such-bundle.pem"))).fault(), None);
        assert!(matches!(TlsTrust::load(Some(&directory)).fault(), Some(TlsTrustError::Unreadable(_))));
        let torn = "-----BEGIN CERTIFICATE-----\nAAAA";
        for garbage in ["", "no certificate", torn, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(TlsTrust::from_pem(true, Some(garbage.as_bytes())).fault(), Some(&TlsTrustError::Garbage));
        }
    }
}
