//! An application takes a mandate of its own back (RFC 7009).

use std::sync::{Arc, Mutex};

use caracal_store::Committed;

use crate::support::*;

fn take_back(token: &str) -> Ask {
    Ask::about("revoke", token)
}

fn sid(token: &str) -> String {
    claims_of(token)["sid"].as_str().unwrap().to_owned()
}

async fn status_of(world: &World, token: &str) -> String {
    world.record(&sid(token)).await.unwrap().status
}

/// Everything that was told to the rest of the process from now on: topic and fields.
fn listen(world: &World) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    world.store.observe(Arc::new(move |committed: &Committed| {
        let said = committed.messages.iter().map(|message| format!("{} {:?}", message.topic, message.fields));
        told.lock().unwrap().extend(said);
    }));
    heard
}

#[tokio::test]
async fn a_mandate_that_was_taken_back_opens_nothing_and_everybody_hears_of_it() {
    let world = World::new().await;
    let token = world.mandate().await;
    let heard = listen(&world);
    let answer = take_back(&token).send(&world).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
    let record = world.record(&sid(&token)).await.unwrap();
    assert_eq!((record.status.as_str(), record.revoked_reason.as_deref()), ("revoked", Some("client_revoked")));
    assert_eq!(Signed::exchange(&world, &token).send(&world).await.outcome(), "403 access_denied");
    assert_eq!(Ask::about("introspect", &token).send(&world).await.json["active"], false);
    let fields = format!(r#"[("session_id", "{}"), ("reason", "client_revoked"), ("zone_id", "z-1")]"#, sid(&token));
    assert_eq!(*heard.lock().unwrap(), [format!("caracal.sessions.revoke {fields}")]);
    let events = world.evidence().await;
    let event = events.iter().find(|event| event.row.event_type == "mandate_revoked").unwrap();
    assert_eq!(
        (event.outcome().as_str(), event.row.request_id.as_str()),
        ("allow complete", answer.header("x-request-id"))
    );
    assert_eq!(
        (event.text("authority_record_id"), event.text("mandate_id")),
        (sid(&token).as_str(), claims_of(&token)["jti"].as_str().unwrap())
    );
    assert_eq!((event.text("application_id"), event.metadata["revoked_records"].as_u64()), (APP, Some(1)));
    assert!(world.metrics().await.contains("caracal_sts_mandates_revoked_total 1"));
}

#[tokio::test]
async fn taking_back_twice_is_one_revocation() {
    let world = World::new().await;
    let token = world.mandate().await;
    let heard = listen(&world);
    for _ in 0..3 {
        assert_eq!(take_back(&token).send(&world).await.status, 200);
    }
    assert_eq!(heard.lock().unwrap().len(), 1);
    assert_eq!(world.evidence().await.iter().filter(|event| event.row.event_type == "mandate_revoked").count(), 1);
}

#[tokio::test]
async fn what_was_minted_from_a_mandate_falls_with_it_and_nothing_else_does() {
    let world = World::new().await;
    let (token, other) = (world.mandate().await, world.mandate().await);
    let resource = Signed::exchange(&world, &token).send(&world).await.token().to_owned();
    let heard = listen(&world);
    assert_eq!(take_back(&token).send(&world).await.status, 200);
    assert_eq!(
        (status_of(&world, &token).await, status_of(&world, &resource).await),
        ("revoked".into(), "revoked".into())
    );
    assert_eq!(status_of(&world, &other).await, "active");
    // The record its sessions are anchored to is shared: nothing of them ends (difference D15).
    assert_eq!(world.record("rec-app").await.unwrap().status, "active");
    assert_eq!(heard.lock().unwrap().len(), 2);
    assert_eq!(Signed::exchange(&world, &other).send(&world).await.status, 200);
}

#[tokio::test]
async fn what_was_minted_from_a_mandate_is_taken_back_alone() {
    let world = World::new().await;
    let token = world.mandate().await;
    let resource = Signed::exchange(&world, &token).send(&world).await.token().to_owned();
    assert_eq!(take_back(&resource).send(&world).await.status, 200);
    assert_eq!(
        (status_of(&world, &token).await, status_of(&world, &resource).await),
        ("active".into(), "revoked".into())
    );
}

#[tokio::test]
async fn another_application_s_mandate_stays_as_it_is_and_the_attempt_is_on_record() {
    let world = World::new().await;
    let token = world.mandate().await;
    let heard = listen(&world);
    let by_other = take_back(&token).basic("app-notes", SECRET);
    // Told like an unknown token.
    let answer = by_other.send(&world).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
    assert_eq!(status_of(&world, &token).await, "active");
    assert!(heard.lock().unwrap().is_empty());
    let event = world.last_event().await;
    assert_eq!(event.outcome(), "deny mandate_of_another_application");
    assert_eq!((event.text("application_id"), event.text("mandate_application_id")), ("app-notes", APP));
    assert_eq!(Signed::exchange(&world, &token).send(&world).await.status, 200);
}

#[tokio::test]
async fn a_token_that_is_none_of_ours_changes_nothing_and_writes_nothing() {
    let world = World::new().await;
    let own = Ask::bootstrap().send(&world).await.token().to_owned();
    let mut claims = claims_of(&own);
    claims["sid"] = "rec-9".into();
    let unknown = world.sign(&claims).await;
    let before = world.evidence().await.len();
    for token in ["x", &own[..own.len() - 6], &unknown, &"x".repeat(60_000)] {
        assert_eq!(take_back(token).send(&world).await.status, 200);
    }
    assert_eq!((world.evidence().await.len(), status_of(&world, &own).await), (before, "active".to_owned()));
}

#[tokio::test]
async fn without_its_evidence_a_revocation_is_none_and_nobody_hears_of_it() {
    let world = World::new().await;
    let token = world.mandate().await;
    let heard = listen(&world);
    world.break_evidence();
    assert_eq!(take_back(&token).send(&world).await.outcome(), "500 internal_error");
    assert_eq!((status_of(&world, &token).await, heard.lock().unwrap().len()), ("active".to_owned(), 0));
    world.mend_evidence();
    assert_eq!(take_back(&token).send(&world).await.status, 200);
    assert_eq!((status_of(&world, &token).await, heard.lock().unwrap().len()), ("revoked".to_owned(), 1));
}

#[tokio::test]
async fn a_user_s_mandate_is_taken_back_by_the_application_that_the_user_signed_in_through() {
    let world = World::new().await;
    Ask::bootstrap().send(&world).await;
    let person = world.sign_in("user-1", "rec-u").await;
    world.add_session("s-u", |row| row.subject_record_id = "rec-u".parse().unwrap()).await;
    assert_eq!(take_back(&person.mandate).basic("app-notes", SECRET).send(&world).await.status, 200);
    assert_eq!(status_of(&world, &person.mandate).await, "active");
    assert_eq!(take_back(&person.mandate).send(&world).await.status, 200);
    assert_eq!(status_of(&world, &person.mandate).await, "revoked");
    // Who the session acts for is gone, so nothing is minted for it.
    let refused = Ask::mint().set("agent_session_id", "s-u").without("delegation_edge_id").send(&world).await;
    assert_eq!(
        (refused.outcome().as_str(), world.last_event().await.text("refusal")),
        ("403 access_denied", "SessionNotLive")
    );
}

#[tokio::test]
async fn nobody_takes_anything_back_or_asks_after_it_in_an_archived_zone() {
    let world = World::new().await;
    let token = world.mandate().await;
    world.tamper("UPDATE zones SET archived_at = 1 WHERE id = 'z-1'");
    assert_eq!(take_back(&token).send(&world).await.outcome(), "401 invalid_client");
    assert_eq!(Ask::about("introspect", &token).send(&world).await.outcome(), "401 invalid_client");
    assert_eq!(status_of(&world, &token).await, "active");
}

#[tokio::test]
async fn an_expired_mandate_is_left_as_it_is() {
    let world = World::new().await;
    let token = world.mandate().await;
    world.clock.advance(900);
    assert_eq!(take_back(&token).send(&world).await.status, 200);
    assert_eq!(status_of(&world, &token).await, "active");
}

#[tokio::test]
async fn nobody_takes_back_unproven_or_while_the_store_is_gone() {
    let world = World::new().await;
    let token = world.mandate().await;
    for (what, asked, expected) in [
        ("a wrong secret", take_back(&token).basic(APP, "cs_wrong"), "401 invalid_client"),
        ("another zone", take_back(&token).at("/zones/z-2/oauth/2/revoke"), "401 invalid_client"),
        ("the mandate itself", take_back(&token).authorization(&format!("Bearer {token}")), "401 invalid_client"),
        ("no token", take_back(&token).without("token"), "400 invalid_request"),
    ] {
        assert_eq!(asked.send(&world).await.outcome(), expected, "{what}");
    }
    assert_eq!(status_of(&world, &token).await, "active");
    world.store.close().await;
    assert_eq!(take_back(&token).send(&world).await.outcome(), "503 sts_unavailable");
}
