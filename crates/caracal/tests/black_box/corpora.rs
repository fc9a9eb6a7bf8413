//! What others already found, against the built binary: the corpora of `testkit`.

use caracal_testkit::corpora;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Addressed, Http, NOTES, Tenant, upstream};
use crate::{PATIENCE, Raw, exchange_raw, start};

const SERVICES: [&str; 5] = ["api", "sts", "gateway", "coordinator", "audit"];

/// The statuses of all answers on one connection, which ends by itself.
async fn statuses(address: &str, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A refusal may come, and the connection close, before everything is sent.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection stays open");
    let said = String::from_utf8_lossy(&said).into_owned();
    said.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

mod t03_gateway_framing {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_listener_reads_a_second_request_where_another_reader_sees_none() {
        let directory = tempfile::tempdir().unwrap();
        let system = start(directory.path());
        for case in corpora::requests() {
            for service in SERVICES {
                // Alone, and sent ahead of the answer to a good request.
                for before in [&b""[..], b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"] {
                    let good = usize::from(!before.is_empty());
                    let said = statuses(&system.address(service), &[before, &case.bytes].concat()).await;
                    let is_right = match case.verdict {
                        "refuse" => said.len() == good + 1 && said.last() == Some(&400),
                        "never-two" => said.len() <= good + 1,
                        _ => said.len() == good + 2,
                    };
                    assert!(is_right, "{service}, {}: {said:?} and not {good} and {}", case.name, case.verdict);
                }
            }
        }
    }
}

mod t03_gateway_path {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_gateway_forwards_no_path_that_two_readers_take_for_two_places() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path()));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let ask = async |path: &str| -> Raw {
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {mandate}\r\nx-caracal-resource: {NOTES}\r\n\
                 connection: close\r\n\r\n"
            );
            exchange_raw(&system.address("gateway"), head.as_bytes()).await.unwrap()
        };
        // One mandate makes one call, and the good paths would be it.
        for case in corpora::paths().into_iter().filter(|case| case.verdict != "pass") {
            let (path, answer) = (case.text(), ask(&case.text()).await);
            match case.verdict.split_once(' ') {
                Some((_, to)) => {
                    assert_eq!((answer.status, answer.header("location")), (307, Some(to)), "{path}");
                }
                None => {
                    assert_eq!(answer.status, 400, "{path}: {}", answer.body);
                    // An escape that is none is no path at all, and gets the contract's plain word (gateway.md §2).
                    let told = ["path traversal not permitted", "400 Bad Request"];
                    assert!(told.iter().any(|told| answer.body.contains(told)), "{path}: {}", answer.body);
                }
            }
        }
        // None of all these was forwarded: the mandate is still good, once.
        assert_eq!((ask("/notes").await.body.as_str(), ask("/notes").await.status), ("notes", 401));
    }
}

mod t03_gateway_egress {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn metadata_and_private_addresses_are_refused_in_every_spelling() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path()));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let resources = format!("{}/v1/zones/{}/resources", system.url("api"), tenant.zone);
        let token = system.admin_token();
        let listed = http.json(Method::GET, &resources, &token, None).await.unwrap().json();
        let resource = format!("{resources}/{}", listed["items"][0]["id"].as_str().unwrap());
        let mut refused = 0;
        for case in corpora::addresses().iter().filter(|case| ["metadata", "private"].contains(&case.verdict)) {
            let url = format!("http://{}/", case.text());
            let patched =
                http.json(Method::PATCH, &resource, &token, Some(json!({"upstream_url": url}))).await.unwrap();
            assert_eq!(patched.status, 200, "{url}: {}", patched.json());
            let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
            let call = tenant.call(&http, &system, &mandate).await.unwrap();
            let told = (call.status.as_u16(), call.json()["error_description"].clone());
            assert_eq!(told, (502, json!("upstream not addressable")), "{url}");
            refused += 1;
        }
        assert!(refused > 35, "{refused}");
    }
}

mod t01_control_plane_outside {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_document_that_parsers_disagree_about_is_refused_before_it_means_anything() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path()));
        let url = format!("{}/v1/policies/validate", system.url("api"));
        let bearer = format!("Bearer {}", system.admin_token());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let unread = ["must not be empty", "is not valid json", "holds a forbidden member name"];
        for case in corpora::json() {
            let answer = http.send(Method::POST, &url, &headers, case.bytes.clone()).await.unwrap();
            let said = answer.json();
            let description = said["error_description"].as_str().unwrap_or_default();
            let is_unread = unread.iter().any(|what| description == format!("request body {what}"));
            // What is read is then told what it lacks: none of these is a policy.
            let code = if is_unread { "internal_error" } else { "invalid_body" };
            assert_eq!((answer.status.as_u16(), &said["error"]), (400, &json!(code)), "{}: {said}", case.name);
            assert_eq!(is_unread, case.verdict == "refuse", "{}: {said}", case.name);
        }
    }
}
