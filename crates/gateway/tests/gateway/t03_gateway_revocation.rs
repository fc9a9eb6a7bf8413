//! Taking authority back: before a call and in the middle of one (gateway.md §10; properties 14, 15, 23).

use std::time::Duration;

use caracal_authority::record::SubjectKind;
use caracal_authority::{ApplicationId, AuthorityRecordId, Timestamp, ZoneId};
use caracal_gateway::{ExchangeRefusal, GatewayConfig};
use caracal_store::records::{self, RecordRow};
use caracal_store::{Store, StoreError};
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{NOW, World, ZONE, config, request, to};

const REVOKED: &str = "session revoked";
/// Far longer than anything takes, and shorter than the limits that would end a call by themselves.
const STUCK: Duration = Duration::from_secs(10);

/// An upstream that writes what the test says, when it says so, and tells when its caller has gone.
async fn driven(head: &'static str) -> (Upstream, mpsc::Sender<&'static [u8]>, mpsc::Receiver<()>) {
    let (say, said) = mpsc::channel::<&'static [u8]>(8);
    let (gone, is_gone) = mpsc::channel(8);
    let said = std::sync::Arc::new(tokio::sync::Mutex::new(said));
    let upstream = Upstream::raw(move |mut stream| {
        let (said, gone) = (said.clone(), gone.clone());
        async move {
            read_head(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut said = said.lock().await;
            let mut byte = [0];
            loop {
                tokio::select! {
                    words = said.recv() => match words {
                        Some(words) => if stream.write_all(words).await.is_err() { break },
                        None => break,
                    },
                    read = stream.read(&mut byte) => if read.unwrap_or(0) == 0 { break },
                }
            }
            let _ = gone.send(()).await;
        }
    })
    .await;
    (upstream, say, is_gone)
}

const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn each_anchor_alone_refuses_before_the_sts_is_asked() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (claim, field, id) in [
        ("sid", "session_id", "a"),
        ("root_sid", "session_id", "b"),
        ("agent_session_id", "agent_session_id", "c"),
        ("delegation_edge_id", "delegation_edge_id", "d"),
        ("delegation_edge_id", "edge_id", "e"),
    ] {
        world.revoke(field, id).await;
        let mandate = world.mandate(json!({claim: id})).await;
        let answer = world.ask(&request("GET", "/x", &mandate, "")).await;
        assert_eq!(answer.refusal(), (401, "invalid_token".to_owned(), REVOKED.to_owned()), "{claim}");
    }
    world.publish("caracal.delegations.invalidate", &[("event", "edge_revoke"), ("edge_id", "f")]).await;
    let mandate = world.mandate(json!({"delegation_edge_id": "f"})).await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.refusal().2, REVOKED);
    assert_eq!((world.sts.times_asked(), upstream.connections()), (0, 0));
    assert_eq!(world.get("/x").await.status(), 200);
    assert_eq!((world.metric("denials_revoked").await, world.metric("revocation_messages").await), (6, 6));
}

#[tokio::test]
async fn a_message_without_an_anchor_or_of_another_topic_revokes_nothing() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.publish("caracal.sessions.revoke", &[("reason", "r-1")]).await;
    world.publish("caracal.agents.lifecycle", &[("agent_session_id", "s-1")]).await;
    world.publish("caracal.delegations.invalidate", &[("event", "edge_create"), ("edge_id", "e-1")]).await;
    assert_eq!(world.get("/x").await.status(), 200);
}

#[tokio::test]
async fn a_revoked_mandate_is_not_used_up_and_leaves_evidence() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.revoke("agent_session_id", "s-1").await;
    let mandate = world.mandate(json!({})).await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n")).await.status(), 401);
    let (decision, status, metadata) = world.event("r-1").await;
    assert_eq!((decision.as_str(), status.as_str()), ("deny", "session_revoked"));
    assert_eq!((&metadata["gateway_status"], &metadata["resource"]), (&json!(401), &json!("resource://items")));
    // A suspension that was lifted: the next reading knows nothing of it.
    world.gateway.refresh_revocations().await.unwrap();
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
}

pub(crate) async fn add_revoked_record(store: &Store, id: &str) {
    let record = RecordRow {
        zone_id: ZoneId::parse(ZONE).unwrap(),
        id: AuthorityRecordId::parse(id).unwrap(),
        kind: SubjectKind::Application.as_str().to_owned(),
        subject_id: "app-1".to_owned(),
        client_id: ApplicationId::parse("app-1").unwrap(),
        use_class: "gateway".to_owned(),
        jti: format!("j-{id}"),
        status: "active".to_owned(),
        parent_id: None,
        agent_session_id: None,
        delegation_edge_id: None,
        expires_at: Timestamp::from_seconds(NOW + 900),
        created_at: Timestamp::from_seconds(NOW),
        revoked_at: None,
        revoked_reason: None,
        provenance: None,
    };
    let zone = record.zone_id.clone();
    let revoked: Result<(), StoreError> = store
        .commit(&zone, record, |tx, record| {
            Box::pin(async move {
                records::add(tx, record).await?;
                records::revoke_with_descendants(tx, &record.id, "test").await.map(drop)
            })
        })
        .await;
    revoked.unwrap();
}

#[tokio::test]
async fn a_suspension_blocks_here_then_at_the_sts_and_a_resume_lets_through() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.revoke("agent_session_id", "s-1").await;
    assert_eq!(world.get("/x").await.refusal().2, REVOKED);
    assert_eq!(world.sts.times_asked(), 0);
    // The next reading does not know of it: suspended is not revoked. From here on the STS refuses.
    world.gateway.refresh_revocations().await.unwrap();
    let inactive = || ExchangeRefusal::denied(StatusCode::FORBIDDEN, "access_denied", "session inactive");
    world.sts.says(move |_| Said::No(inactive()));
    assert_eq!(world.get("/x").await.refusal(), (403, "access_denied".to_owned(), "session inactive".to_owned()));
    let url = upstream.url("");
    world.sts.says(move |_| Said::Go(to(url.clone())));
    assert_eq!(world.get("/x").await.status(), 200);
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn what_the_store_says_is_revoked_is_learnt_with_the_next_reading() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    add_revoked_record(&world.store, "r-1").await;
    world.gateway.refresh_revocations().await.unwrap();
    assert_eq!(world.get("/x").await.refusal().2, REVOKED);
    assert_eq!(world.metric("revocations_active").await, 1);
}

#[tokio::test]
async fn a_gateway_knows_what_was_revoked_before_it_started() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let deployment = crate::world::Deployment::new(move |_| Said::Go(to(url.clone()))).await;
    add_revoked_record(&deployment.store, "r-1").await;
    let world = World::join(deployment, config()).await;
    assert_eq!(world.get("/x").await.refusal().2, REVOKED);
}

#[tokio::test]
async fn a_stream_ends_in_order_and_with_the_trailer() {
    let (upstream, say, mut gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    let head = caller.head().await;
    assert_eq!((head.status, head.get("trailer")), (200, Some("X-Caracal-Revoked")));
    say.send(b"8\r\ndata: 1\n\r\n").await.unwrap();
    assert_eq!(caller.chunk().await.unwrap(), b"data: 1\n");
    // The upstream stays silent: the stream is cut by the revocation itself, within a second.
    world.revoke("agent_session_id", "s-1").await;
    let cut = tokio::time::timeout(Duration::from_secs(1), caller.chunk()).await;
    assert_eq!(cut.unwrap().unwrap(), b"");
    assert_eq!(caller.fields().await.unwrap(), [("x-caracal-revoked".to_owned(), "true".to_owned())]);
    assert!(caller.is_closed().await);
    gone.recv().await.unwrap();
    let (decision, status, metadata) = world.event("r-1").await;
    assert_eq!((decision.as_str(), status.as_str()), ("allow", "executed"));
    assert_eq!((&metadata["revocation_interrupted"], &metadata["response_bytes"]), (&json!(true), &json!(8)));
    assert_eq!(metadata.get("error_kind"), None);
}

#[tokio::test]
async fn a_caller_who_announces_trailers_gets_the_same_one() {
    let (upstream, _say, _gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "TE: trailers\r\nConnection: TE\r\n").await).await;
    caller.head().await;
    world.revoke("session_id", "r-0").await;
    assert_eq!(caller.chunk().await.unwrap(), b"");
    assert_eq!(caller.fields().await.unwrap(), [("x-caracal-revoked".to_owned(), "true".to_owned())]);
    assert!(caller.is_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_anchor_ends_a_stream_and_others_do_not() {
    let (upstream, say, _gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    for (field, id) in
        [("session_id", "r-1"), ("session_id", "r-0"), ("agent_session_id", "s-1"), ("delegation_edge_id", "e-1")]
    {
        let mut caller = world.caller().await;
        caller.send(world.request("GET", "/x", "").await).await;
        caller.head().await;
        world.revoke(field, "another").await;
        say.send(b"1\r\nx\r\n").await.unwrap();
        assert_eq!(caller.chunk().await.unwrap(), b"x");
        world.revoke(field, id).await;
        assert_eq!(caller.chunk().await.unwrap(), b"", "{field} {id}");
        // Forgotten again, for the next round.
        world.gateway.refresh_revocations().await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_of_a_session_revoked_in_the_store_ends_with_the_reading() {
    let (upstream, _say, _gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await).await;
    caller.head().await;
    add_revoked_record(&world.store, "r-1").await;
    world.gateway.refresh_revocations().await.unwrap();
    assert_eq!(caller.chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn a_body_of_known_length_breaks_off_short() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let (upstream, say, _gone) = driven(head).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    say.send(b"0123456789").await.unwrap();
    let head = caller.head().await;
    assert_eq!(head.get("content-length"), Some("100"));
    // The part that came is there before the rest is cut.
    let mut body = Vec::new();
    while body.len() < 10 {
        body.extend(caller.some().await);
    }
    world.revoke("session_id", "r-1").await;
    body.extend(caller.rest().await);
    assert_eq!(body, b"0123456789");
    assert_eq!(world.event("r-1").await.2["revocation_interrupted"], true);
}

#[tokio::test]
async fn a_caller_of_http_1_0_sees_the_connection_close() {
    let (upstream, say, _gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await.replace("HTTP/1.1", "HTTP/1.0")).await;
    let head = caller.head().await;
    assert_eq!(head.get("transfer-encoding"), None);
    say.send(b"1\r\nx\r\n").await.unwrap();
    assert_eq!(caller.some().await, b"x");
    world.revoke("session_id", "r-1").await;
    assert_eq!(caller.rest().await, b"");
}

#[tokio::test]
async fn a_revocation_between_dispatch_and_first_byte_leaves_head_and_trailer() {
    let (upstream, _say, _gone) = driven(SSE).await;
    let url = upstream.url("");
    let world = World::scripted(move |_| Said::Wait(to(url.clone()))).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await).await;
    world.sts.arrived.notified().await;
    world.sts.go_on.notify_one();
    let head = caller.head().await;
    world.revoke("session_id", "r-1").await;
    assert_eq!((head.status, caller.chunk().await.unwrap()), (200, Vec::new()));
}

/// An upstream that says nothing while it is told something, or while it thinks, has said nothing that could be cut.
#[tokio::test]
async fn a_revocation_before_the_upstream_answers_ends_the_call_and_its_upload() {
    for (method, framing, begun, passed) in
        [("GET", "", "", 0), ("POST", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", 5)]
    {
        let (told, mut hears) = mpsc::channel(2);
        let upstream = Upstream::raw(move |mut stream| {
            let told = told.clone();
            async move {
                read_head(&mut stream).await;
                if method == "POST" {
                    stream.read_exact(&mut [0; 10]).await.unwrap();
                }
                told.send(()).await.unwrap();
                // Until its caller has gone.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                told.send(()).await.unwrap();
            }
        })
        .await;
        let world = World::before(&upstream).await;
        let mut caller = world.caller().await;
        let head = world.request(method, "/x", &format!("X-Request-Id: r-1\r\n{framing}")).await;
        caller.send(head + begun).await;
        hears.recv().await.unwrap();
        world.revoke("session_id", "r-1").await;
        let (status, code, description) = caller.answer(true).await.refusal();
        assert_eq!((status, code.as_str(), description.as_str()), (401, "invalid_token", REVOKED));
        tokio::time::timeout(STUCK, hears.recv()).await.expect("the upstream is left at once").unwrap();
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), &metadata["revocation_interrupted"]), ("executed", &json!(true)));
        assert_eq!((&metadata["ended_by"], &metadata["gateway_status"]), (&json!("revocation"), &json!(401)));
        assert_eq!((&metadata["request_bytes"], metadata.get("upstream_status")), (&json!(passed), None));
        assert_eq!(world.metric("upstream_errors").await, 0, "the upstream is not to blame");
    }
}

#[tokio::test]
async fn a_revocation_while_the_sts_decides_forwards_nothing() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let world = World::scripted(move |_| Said::Wait(to(url.clone()))).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    world.sts.arrived.notified().await;
    world.revoke("session_id", "r-1").await;
    world.sts.go_on.notify_one();
    assert_eq!(caller.answer(true).await.refusal().2, REVOKED);
    assert_eq!(upstream.connections(), 0);
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_rejected", &json!("session_revoked")));
}

#[tokio::test]
async fn a_caller_who_takes_its_time_still_sees_the_trailer_after_everything_that_was_sent() {
    let (stalled, mut is_stalled) = mpsc::channel(1);
    let upstream = Upstream::raw(move |mut stream| {
        let stalled = stalled.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(SSE.as_bytes()).await.unwrap();
            let chunk = [b"8000\r\n".to_vec(), vec![b'x'; 0x8000], b"\r\n".to_vec()].concat();
            // Until all buffers on the way are full.
            while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&chunk)).await {}
            stalled.send(()).await.unwrap();
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await).await;
    caller.head().await;
    is_stalled.recv().await.unwrap();
    world.revoke("session_id", "r-1").await;
    while !caller.chunk().await.expect("only whole chunks").is_empty() {}
    assert_eq!(caller.fields().await.unwrap(), [("x-caracal-revoked".to_owned(), "true".to_owned())]);
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn neither_the_mandates_end_nor_stale_state_ends_a_running_stream() {
    let (upstream, say, _gone) = driven(SSE).await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await).await;
    caller.head().await;
    world.clock.advance(10_000);
    say.send(b"1\r\nx\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(caller.chunk().await.unwrap(), b"x");
    assert_eq!(caller.chunk().await.unwrap(), b"");
    assert_eq!(caller.fields().await.unwrap(), []);
}

#[tokio::test]
async fn state_is_read_again_and_again() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let config = GatewayConfig { revocation_refresh: Duration::from_millis(5), ..config() };
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let gateway = world.gateway.clone();
    let refreshing = tokio::spawn(async move { gateway.run_snapshot_refresh(stopped).await });
    add_revoked_record(&world.store, "r-1").await;
    while world.metric("revocations_active").await == 0 {}
    stop.send(true).unwrap();
    refreshing.await.unwrap();
    assert_eq!(world.get("/x").await.refusal().2, REVOKED);
}
