//! The same over a real listener, by a client that has the URL of the metadata and its credentials, and nothing else.

use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::*;

/// Asks an endpoint by the URL that the metadata gave, as `app-docs` with Basic.
async fn post(listening: &Listening, url: &Value, body: &str) -> (u16, Value) {
    let base = format!("http://{}", listening.address);
    let path = url.as_str().unwrap().strip_prefix(&base).unwrap();
    // `app-docs:cs_example`.
    let head = format!(
        "POST {path} HTTP/1.1\r\nAuthorization: Basic YXBwLWRvY3M6Y3NfZXhhbXBsZQ==\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n"
    );
    let answer = listening.say(&head, body).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ncache-control: no-store\r\n") && head.contains("\r\npragma: no-cache"), "{head}");
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_the_metadata_and_the_credentials_are_all_that_a_client_needs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let world = World::configured(|config| config.issuer.clone_from(&issuer)).await;
    let listening = Listening::on(listener, &world);
    let found = listening.say("GET /.well-known/oauth-authorization-server/zones/z-1 HTTP/1.1\r\n", "").await;
    let metadata: Value = serde_json::from_str(found.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(metadata["issuer"], format!("{issuer}/zones/z-1"));

    let ask = "grant_type=client_credentials&scope=agent%3Alifecycle&resource=resource%3A%2F%2Fdocs";
    let (status, granted) = post(&listening, &metadata["token_endpoint"], ask).await;
    assert_eq!((status, &granted["token_type"]), (200, &"Bearer".into()));
    let token = format!("token={}", granted["access_token"].as_str().unwrap());
    let (_, told) = post(&listening, &metadata["introspection_endpoint"], &token).await;
    assert_eq!((&told["active"], &told["iss"]), (&true.into(), &metadata["mandate_issuer"]));
    assert_eq!(post(&listening, &metadata["revocation_endpoint"], &token).await, (200, Value::Null));
    let (_, told) = post(&listening, &metadata["introspection_endpoint"], &token).await;
    assert_eq!(told["active"], false);
    let (status, refused) = post(&listening, &metadata["token_endpoint"], "grant_type=password").await;
    assert_eq!((status, &refused["error"]), (400, &"unsupported_grant_type".into()));
    listening.end().await;
}
