//! Streams that are open when authority is taken back, and answers that are open when the system stops.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::support::{Addressed, Http, Running, Tenant, caracal, run};
use crate::{OpenCall, PATIENCE, head_of, start, until};

mod t03_gateway_stream {
    use super::*;

    /// An upstream that says one thing and then nothing more. Tells when its caller is gone.
    async fn silent_upstream() -> (String, oneshot::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (gone, is_gone) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head_of(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}d\r\ndata: hello\n\n\r\n").as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = gone.send(());
        });
        (url, is_gone)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revocation_ends_a_stream_whose_upstream_is_silent() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path()));
        let (upstream, upstream_left) = silent_upstream().await;
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let mut call = OpenCall::begin(&system, &mandate, "open-stream").await;
        let begun = call.until("data: hello").await;
        assert!(begun.starts_with("HTTP/1.1 200 "), "{begun}");

        let revoked = tenant.revoke(&http, &system, &edge).await.unwrap();
        assert_eq!(revoked.status, 200, "{}", revoked.json());
        // Neither the upstream's next byte nor an idle timeout nor the next snapshot comes within our patience.
        let rest = call.rest().await;
        assert!(rest.to_ascii_lowercase().ends_with("0\r\nx-caracal-revoked: true\r\n\r\n"), "{rest:?}");
        upstream_left.await.unwrap();
        let event = until("the evidence of the interruption", async || {
            let events = tenant.evidence(&http, &system, "open-stream").await;
            let of_gateway = |event: &&serde_json::Value| event["event_type"] == "gateway_resource_request";
            events.as_array()?.iter().find(of_gateway).cloned()
        })
        .await;
        assert_eq!((&event["decision"], &event["evaluation_status"]), (&json!("allow"), &json!("executed")));
        assert_eq!(event["metadata_json"]["revocation_interrupted"], true, "{event}");
        let again = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
        assert_eq!(again.status, 403, "{}", again.json());
    }
}

mod t08_availability_killed {
    use super::*;

    /// An upstream that says as much as its request's number tells, without an end. Tells when each caller is gone.
    async fn endless_upstream() -> (String, mpsc::Receiver<()>) {
        const HEADS: [&str; 2] = [
            "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nd\r\ndata: hello\n\n\r\n",
            "content-length: 1000\r\n\r\ndata: hello\n\n",
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (gone, is_gone) = mpsc::channel(8);
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let gone = gone.clone();
                tokio::spawn(async move {
                    head_of(&mut stream).await;
                    stream.write_all(format!("HTTP/1.1 200 OK\r\n{}", HEADS[n % 2]).as_bytes()).await.unwrap();
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                    let _ = gone.send(()).await;
                });
            }
        });
        (url, is_gone)
    }

    /// Everybody finds out: the callers that what they have is a part, the upstream that nobody listens, and whoever comes with
    /// the same mandate to the next Gateway that it was used.
    #[tokio::test(flavor = "multi_thread")]
    async fn streams_of_a_gateway_that_is_killed_end_as_broken_and_their_mandates_stay_used() {
        let directory = tempfile::tempdir().unwrap();
        let named = [("ISSUER_URL", "http://issuer.test"), ("API_V1_RATE_LIMIT_PER_MIN", "0")];
        let (http, mut system) = (Http::new(), Running::start_with(directory.path(), &named));
        let (upstream, mut gone) = endless_upstream().await;
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let (mut calls, mut mandates) = (Vec::new(), Vec::new());
        for n in 0..4 {
            let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
            let mut call = OpenCall::begin(&system, &mandate, &format!("killed-{n}")).await;
            let begun = call.until("data: hello").await;
            assert!(begun.starts_with("HTTP/1.1 200 "), "{begun}");
            calls.push((call, begun));
            mandates.push(mandate);
        }
        system.kill();
        for (call, begun) in calls {
            let promised = begun.contains("content-length: 1000");
            let rest = call.rest_however_it_ends().await;
            let whole = if promised { rest.len() >= 1000 } else { rest.ends_with("0\r\n\r\n") };
            assert!(!whole && !rest.contains("x-caracal-revoked"), "it passes for the whole: {rest:?}");
        }
        for _ in 0..4 {
            tokio::time::timeout(PATIENCE, gone.recv()).await.expect("the upstream hears of it").unwrap();
        }
        let said = run(caracal().args(["audit", "verify", "--data-dir"]).arg(directory.path()));
        assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
        let system = system.started_again();
        for (n, mandate) in mandates.iter().enumerate() {
            let again = tenant.call(&http, &system, mandate).await.unwrap();
            let described = again.json()["error_description"].as_str().unwrap_or_default().to_owned();
            assert_eq!((again.status.as_u16(), described.as_str()), (401, "token replay detected"), "{n}");
            // What let the call go is on record, for it was there before the call went.
            let events = tenant.evidence(&http, &system, &format!("killed-{n}")).await;
            let exchanged =
                |event: &&serde_json::Value| event["event_type"] == "token_exchange" && event["decision"] == "allow";
            assert_eq!(events.as_array().unwrap().iter().filter(exchanged).count(), 1, "{events}");
        }
        // And the next one is let through: nothing needs a hand.
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        OpenCall::begin(&system, &mandate, "afterwards").await.until("data: hello").await;
    }
}

mod t08_availability_drain {
    use super::*;

    /// An upstream whose answer has two halves, the second of which comes when told.
    async fn slow_upstream() -> (String, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (finish, told) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head_of(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfirst ").await.unwrap();
            let _ = told.await;
            stream.write_all(b"second").await.unwrap();
        });
        (url, finish)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ctrl_c_lets_an_open_answer_finish_and_takes_no_new_callers() {
        for signal in ["-INT", "-TERM"] {
            let directory = tempfile::tempdir().unwrap();
            let (http, mut system) = (Http::new(), start(directory.path()));
            let (upstream, finish) = slow_upstream().await;
            let tenant = Tenant::provision(&http, &system, &upstream).await;
            let (session, edge) = tenant.delegation(&http, &system).await;
            let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
            let mut call = OpenCall::begin(&system, &mandate, "open-answer").await;
            let begun = call.until("first ").await;

            system.signal(signal);
            for service in ["api", "sts", "gateway", "coordinator", "audit"] {
                until("the listener to close", async || {
                    let refused = tokio::net::TcpStream::connect(system.address(service)).await.is_err();
                    refused.then_some(())
                })
                .await;
            }
            assert!(system.child.try_wait().unwrap().is_none(), "it waits for the open answer");
            finish.send(()).unwrap();
            let whole = begun + &call.rest().await;
            assert!(whole.ends_with("\r\n\r\nfirst second"), "{signal}: {whole}");
            assert!(system.child.wait().unwrap().success(), "{signal}: a drained system ends with 0");

            let said = run(caracal().args(["audit", "verify", "--data-dir"]).arg(directory.path()));
            assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
            let system = system.started_again();
            let events = tenant.evidence(&http, &system, "open-answer").await;
            let executed = |event: &serde_json::Value| {
                event["evaluation_status"] == "executed" && event["metadata_json"]["response_bytes"] == 12
            };
            assert!(events.as_array().unwrap().iter().any(executed), "{signal}: {events}");
        }
    }
}
