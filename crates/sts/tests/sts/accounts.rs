//! Upstreams that want a token of somebody's account, and its renewal (contract: sts.md §10.4).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use caracal_authority::{ConnectionId, ProviderId, Timestamp};
use caracal_custody::ConnectionToken;
use caracal_store::provider_connections::{self, Connection, SHARED_SUBJECT};
use caracal_sts::{ProcessMintRate, StsConfig};
use caracal_testkit::{Received, Reply};
use serde_json::{Value, json};

use crate::support::providers::TokenEndpoint;
use crate::support::*;

const KIND: &str = "oauth2_authorization_code";

/// Hands out `at-1` with `rt-1`, then `at-2` with `rt-2`.
fn renewing() -> impl Fn(&Received) -> Reply + Send + Sync {
    let count = AtomicUsize::new(0);
    move |_: &Received| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let tokens = json!({"access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"),
            "token_type": "Bearer", "expires_in": 600});
        Reply::json(200, tokens.to_string())
    }
}

/// A provider with accounts in front of the documents.
async fn provided(world: &World, endpoint: &TokenEndpoint, more: Value) -> ProviderId {
    let mut config = json!({
        "authorization_endpoint": "https://idp.example/authorize", "redirect_uri": "https://console.example/",
        "token_endpoint": endpoint.url(), "client_id": "client-1", "allowed_token_hosts": ["localhost"],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.provide(KIND, config, Some(json!({"client_secret": "cs-upstream"}))).await
}

async fn exchanged(world: &World) -> Answer {
    Signed::exchange(world, &world.mandate().await).send(world).await
}

/// The token in the directive for the documents.
async fn token(world: &World) -> String {
    let answer = exchanged(world).await;
    assert_eq!(answer.status, 200, "{}", answer.outcome());
    answer.json["upstreams"][DOCS]["provider_token"].as_str().unwrap().to_owned()
}

/// How an exchange is refused, with status and reason of the resource's evidence.
async fn refused(world: &World) -> (String, String, String) {
    let answer = exchanged(world).await;
    let events = world.evidence().await;
    let event = &events[events.len() - 2];
    (answer.outcome(), event.outcome(), event.text("reason").to_owned())
}

fn refusal(answer: &str, evidence: &str, reason: &str) -> (String, String, String) {
    (answer.to_owned(), evidence.to_owned(), reason.to_owned())
}

fn opened(world: &World, which: ConnectionToken, row: &Connection) -> String {
    let sealed = match which {
        ConnectionToken::Access => &row.access_token,
        ConnectionToken::Refresh => row.refresh_token.as_ref().unwrap(),
    };
    world.secrets.open_token(which, row.into(), sealed).unwrap().expose().clone()
}

mod t02_sts_accounts {
    use super::*;

    #[tokio::test]
    async fn a_subject_uses_its_own_account_else_the_one_that_all_share() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({"auth_header": "X-Token"})).await;
        let none = refusal("403 access_denied", "deny credential_not_provisioned", "no_provider_connection");
        assert_eq!(refused(&world).await, none);
        world.add_account(&provider, "somebody-else", None, None).await;
        assert_eq!(refused(&world).await, none);
        let shared = world.add_account(&provider, SHARED_SUBJECT, None, None).await;
        let answer = exchanged(&world).await;
        let expected = json!({
            "url": "https://upstream.example/base",
            "auth_mode": "provider_oauth",
            "auth_header": "X-Token",
            "auth_scheme": "Bearer",
            "provider_token": "at-old",
            "provider_id": provider.as_str(),
            "connection_id": shared.as_str(),
        });
        assert_eq!(answer.json["upstreams"][DOCS], expected, "{}", answer.outcome());
        let own = world.add_account(&provider, APP, Some(300), Some("rt-old")).await;
        let answer = exchanged(&world).await;
        let directive = &answer.json["upstreams"][DOCS];
        assert_eq!(
            (&directive["connection_id"], &directive["expires_at"]),
            (&json!(own.as_str()), &json!(START + 300))
        );
        assert!(endpoint.seen().is_empty());
    }

    #[tokio::test]
    async fn an_account_that_is_about_to_run_out_is_renewed_and_stored() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({"token_params": {"tenant": "t"}})).await;
        let account = world.add_account(&provider, APP, Some(31), Some("rt-old")).await;
        assert_eq!(token(&world).await, "at-old");
        world.clock.advance(1);
        assert_eq!(token(&world).await, "at-1");
        assert_eq!(token(&world).await, "at-1");
        let [asked] = &endpoint.seen()[..] else { panic!("asked once") };
        assert_eq!(asked.text(), "grant_type=refresh_token&refresh_token=rt-old&tenant=t");
        let row = world.account(&account).await;
        assert_eq!(row.expires_at, Some(Timestamp::from_seconds(START + 601)));
        assert_eq!(
            (row.version, row.lease_until, row.refreshed_at),
            (1, None, Some(Timestamp::from_seconds(START + 1)))
        );
        assert_eq!(opened(&world, ConnectionToken::Access, &row), "at-1");
        assert_eq!(opened(&world, ConnectionToken::Refresh, &row), "rt-1");
        let everything = String::from_utf8_lossy(&world.directory.everything_stored()).into_owned();
        assert!(!everything.contains("at-1") && !everything.contains("rt-old"));
    }

    #[tokio::test]
    async fn a_refresh_token_that_is_not_replaced_is_kept_and_no_life_is_the_longest() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(|_| Reply::json(200, r#"{"access_token":"at-1"}"#));
        let provider = provided(&world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, Some(10), Some("rt-old")).await;
        assert_eq!(token(&world).await, "at-1");
        let row = world.account(&account).await;
        assert_eq!(opened(&world, ConnectionToken::Refresh, &row), "rt-old");
        assert_eq!(row.expires_at, Some(Timestamp::from_seconds(START + 3_600)));
    }

    #[tokio::test]
    async fn an_account_that_cannot_be_renewed_is_served_to_its_end_and_then_expired() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, Some(10), None).await;
        world.clock.advance(9);
        assert_eq!(token(&world).await, "at-old");
        world.clock.advance(1);
        let over = "credential_expired_not_renewable";
        let expected = refusal(&format!("403 {over}"), "deny credential_refresh_failed", over);
        assert_eq!(refused(&world).await, expected);
        assert_eq!(world.account(&account).await.status, "expired");
        let none = refusal("403 access_denied", "deny credential_not_provisioned", "no_provider_connection");
        assert_eq!(refused(&world).await, none);
        assert!(endpoint.seen().is_empty());
    }

    #[tokio::test]
    async fn a_renewal_that_fails_refuses_and_leaves_the_account_as_it_was() {
        let over = "credential_expired_not_renewable";
        let expected = || refusal(&format!("403 {over}"), "deny credential_refresh_failed", over);
        for (reply, requests) in [
            (Reply::json(400, r#"{"error":"invalid_grant"}"#), 1),
            (Reply::json(503, "{}"), 2),
            (Reply::json(200, r#"{"access_token":"at-1","token_type":"mac"}"#), 1),
        ] {
            let world = World::new().await;
            let endpoint = TokenEndpoint::new(move |_| reply.clone());
            let provider = provided(&world, &endpoint, json!({})).await;
            let account = world.add_account(&provider, APP, Some(10), Some("rt-old")).await;
            assert_eq!(refused(&world).await, expected());
            assert_eq!(endpoint.seen().len(), requests);
            // Those who come within five seconds are told the same.
            assert_eq!(refused(&world).await, expected());
            assert_eq!(endpoint.seen().len(), requests);
            let row = world.account(&account).await;
            assert_eq!((row.status.as_str(), row.version, row.lease_until), ("active", 0, None));
            assert_eq!(opened(&world, ConnectionToken::Refresh, &row), "rt-old");
            world.clock.advance(6);
            assert_eq!(refused(&world).await, expected());
            assert_eq!(endpoint.seen().len(), 2 * requests);
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_to_renew_what_is_not_granted() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({})).await;
        world.add_account(&provider, APP, Some(10), Some("rt-old")).await;
        let mandate = world.mandate().await;
        world.activate("app_ids := {}\ngrants := {}").await;
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "403 access_denied");
        assert!(endpoint.seen().is_empty());
    }

    #[tokio::test]
    async fn a_stored_token_that_does_not_open_is_no_credential() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, None, Some("rt-old")).await;
        world.tamper(&format!("UPDATE provider_connections SET access_token = refresh_token WHERE id = '{account}'"));
        assert_eq!(exchanged(&world).await.outcome(), "502 http_request_failed");
        assert_eq!(world.last_event().await.text("reason"), "provider_secret_unavailable");
    }
}

mod t04_state_renewals {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_calls_on_several_replicas_renew_an_account_once() {
        let world = World::in_real_time().await;
        let (release, held) = mpsc::channel::<()>();
        let (held, renew) = (Mutex::new(held), renewing());
        let endpoint = Arc::new(TokenEndpoint::new(move |request| {
            let _ = held.lock().unwrap().recv();
            renew(request)
        }));
        let provider = provided(&world, &endpoint, json!({})).await;
        world.add_account(&provider, APP, Some(20), Some("rt-old")).await;
        let replica = || world.replica(StsConfig::for_issuer(ISSUER), Arc::new(ProcessMintRate::default()));
        let replicas = [world.sts.clone(), replica(), replica()];
        let mut calls = Vec::new();
        for number in 0..100 {
            let (sts, mandate) = (replicas[number % 3].clone(), world.mandate().await);
            calls.push(tokio::spawn(async move {
                let granted =
                    sts.exchange_for_gateway(gateway_call(&mandate)).await.map_err(|error| error.to_string())?;
                Ok::<_, String>(granted.upstreams[0].provider_token.as_ref().unwrap().expose().clone())
            }));
        }
        while endpoint.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok("at-1".to_owned()));
        }
        assert_eq!(endpoint.seen().len(), 1);
    }

    /// Somebody else holds the lease and is gone.
    async fn leased_to_nobody(world: &World, account: &ConnectionId, seconds: u64) {
        let until = world.store.now().plus(Duration::from_secs(seconds));
        let claimed = world.change((account.clone(), until), |tx, (account, until)| {
            Box::pin(provider_connections::claim_refresh(tx, account, 0, "nobody", *until))
        });
        assert!(claimed.await);
    }

    #[tokio::test]
    async fn a_lease_of_one_who_is_gone_is_taken_over_when_its_time_is_up() {
        let world = World::new().await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, Some(10), Some("rt-old")).await;
        leased_to_nobody(&world, &account, 5).await;
        world.clock.advance(6);
        assert_eq!(token(&world).await, "at-1");
    }

    #[tokio::test]
    async fn who_waits_for_another_s_renewal_is_told_when_it_takes_too_long() {
        let world = World::impatient(Duration::from_millis(200)).await;
        let endpoint = TokenEndpoint::new(renewing());
        let provider = provided(&world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, Some(10), Some("rt-old")).await;
        leased_to_nobody(&world, &account, 15).await;
        let expected = refusal("403 sts_unavailable", "deny credential_refresh_failed", "sts_unavailable");
        assert_eq!(refused(&world).await, expected);
        assert!(endpoint.seen().is_empty());
    }

    /// The endpoint answers only after `meanwhile` was done.
    async fn renewed_beside(
        world: &World,
        meanwhile: impl AsyncFnOnce(&World, &ConnectionId),
    ) -> (Result<String, String>, ConnectionId) {
        let (asked, hears) = mpsc::channel();
        let (answers, waits) = mpsc::channel::<()>();
        let (waits, renew) = (Mutex::new(waits), renewing());
        let endpoint = TokenEndpoint::new(move |request| {
            let _ = asked.send(());
            let _ = waits.lock().unwrap().recv();
            renew(request)
        });
        let provider = provided(world, &endpoint, json!({})).await;
        let account = world.add_account(&provider, APP, Some(20), Some("rt-old")).await;
        let (sts, mandate) = (world.sts.clone(), world.mandate().await);
        let call = tokio::spawn(async move {
            let granted =
                sts.exchange_for_gateway(gateway_call(&mandate)).await.map_err(|error| error.code().to_owned())?;
            Ok(granted.upstreams[0].provider_token.as_ref().unwrap().expose().clone())
        });
        tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
        meanwhile(world, &account).await;
        answers.send(()).unwrap();
        (call.await.unwrap(), account)
    }

    #[tokio::test]
    async fn a_lease_lasts_for_as_long_as_its_holder_is_at_work() {
        let world = World::new().await;
        let world = world.tuned(|broker| broker.with_lease(Duration::from_secs(15), Duration::from_millis(5)));
        let (outcome, account) = renewed_beside(&world, async |world, account| {
            let first = world.account(account).await.lease_until.unwrap();
            world.clock.advance(14);
            while world.account(account).await.lease_until <= Some(first) {
                tokio::task::yield_now().await;
            }
            // The lease as it was taken is over, and still nobody else gets it.
            world.clock.advance(5);
            let until = world.store.now().plus(Duration::from_secs(15));
            let claimed = world.change((account.clone(), until), |tx, (account, until)| {
                Box::pin(provider_connections::claim_refresh(tx, account, 0, "another", *until))
            });
            assert!(!claimed.await);
        })
        .await;
        assert_eq!(outcome, Ok("at-1".to_owned()));
        assert_eq!(world.account(&account).await.lease_until, None);
    }

    #[tokio::test]
    async fn an_account_that_is_taken_away_while_it_is_renewed_is_gone() {
        let world = World::in_real_time().await;
        let (outcome, account) = renewed_beside(&world, async |world, account| {
            let revoke = world
                .change(account.clone(), |tx, account| Box::pin(provider_connections::end(tx, account, "revoked")));
            assert!(revoke.await);
        })
        .await;
        assert_eq!(outcome, Err("access_denied".to_owned()));
        let row = world.account(&account).await;
        assert_eq!(row.status, "revoked");
        assert_eq!(opened(&world, ConnectionToken::Access, &row), "at-old");
    }

    #[tokio::test]
    async fn tokens_that_somebody_stored_meanwhile_are_kept() {
        let world = World::in_real_time().await;
        let (outcome, account) = renewed_beside(&world, async |world, account| {
            let token = caracal_crypto::SecretText::new("at-imported".to_owned());
            let row = world.account(account).await;
            let tokens = provider_connections::SealedTokens {
                access_token: world.secrets.seal_token(ConnectionToken::Access, (&row).into(), &token).unwrap(),
                refresh_token: None,
                expires_at: None,
            };
            let replace = world.change((account.clone(), tokens), |tx, (account, tokens)| {
                Box::pin(provider_connections::replace_tokens(tx, account, tokens))
            });
            assert!(replace.await);
        })
        .await;
        assert_eq!(outcome, Ok("at-imported".to_owned()));
        let row = world.account(&account).await;
        assert_eq!(opened(&world, ConnectionToken::Access, &row), "at-imported");
    }
}
