//! What the Gateway speaks, and where its operators come in (gateway.md §2, §3).

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use caracal_http::egress::{
    AddressPolicy, GuardedConnector, PrivateHosts, Resolver, SimpleClient, SimpleRequest, SimpleResponse, TargetUrl,
    TlsTrust,
};
use http::{HeaderMap, Method};

use crate::support::{Addressed, Running};
use crate::{PATIENCE, exchange_raw};

/// Every name is this machine.
struct Here;

impl Resolver for Here {
    fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

async fn get(trusting: &str, url: &str) -> SimpleResponse {
    let trust = TlsTrust::from_pem(false, Some(trusting.as_bytes()));
    let connector = GuardedConnector::new(AddressPolicy::new(true, PrivateHosts::default()), Arc::new(Here), trust);
    let request = SimpleRequest {
        method: Method::GET,
        url: TargetUrl::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        deadline: PATIENCE,
        max_response_bytes: 1024 * 1024,
    };
    SimpleClient::new(connector).send(request).await.unwrap()
}

#[tokio::test]
async fn the_gateway_speaks_tls_and_its_operators_come_in_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, secret) = caracal_testkit::pair_for("gateway.test").unwrap();
    let (certificate, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, &chain).unwrap();
    std::fs::write(&key, &secret).unwrap();
    let operators = format!("127.0.0.1:{}", caracal_testkit::free_port().unwrap());
    let environment = [
        ("TLS_CERT_FILE", certificate.to_str().unwrap()),
        ("TLS_KEY_FILE", key.to_str().unwrap()),
        ("GATEWAY_OPERATOR_ADDRESS", operators.as_str()),
    ];
    let mut system = Running::start_with(&directory.path().join("data"), &environment);
    let url = system.url("gateway");
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let by_name = url.replace("127.0.0.1", "gateway.test");
    // Everything there is proxied, and so needs a mandate.
    for path in ["/metrics", "/ready", "/x"] {
        let answer = get(&chain, &format!("{by_name}{path}")).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let plain = b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert!(exchange_raw(url.trim_start_matches("https://"), plain).await.is_none());
    for (path, status) in [("/health", 200), ("/ready", 200), ("/metrics", 200), ("/x", 404)] {
        let line = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        assert_eq!(exchange_raw(&operators, line.as_bytes()).await.unwrap().status, status, "{path}");
    }
    assert!(system.terminate());
}
