//! When something is down or worn out, nobody is let through and everybody is told the truth (security property 13;
//! README D7).

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_http::limits::Verdict;
use caracal_store::{BoxFuture, StoreError, mint_limit};
use caracal_sts::{
    CountUnavailable, Guesser, Guesses, MintKey, MintRate, ProcessGuesses, ProcessMintRate, Sts, StsConfig,
};
use serde_json::json;

use crate::support::*;

const OUTAGE: (&str, &str) = ("503 sts_unavailable", "1");

fn told(answer: &Answer) -> (String, &str) {
    (answer.outcome(), answer.header("retry-after"))
}

mod t08_availability_of_denial {
    use super::*;

    #[tokio::test]
    async fn without_its_store_it_grants_nothing() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let exchange = Signed::exchange(&world, &mandate);
        world.store.close().await;
        for answer in [
            Ask::bootstrap().send(&world).await,
            Ask::mint().send(&world).await,
            Ask::bootstrap().set("client_secret", "x").send(&world).await,
            exchange.send(&world).await,
            world.get("/.well-known/jwks.json?zone_id=z-1").await,
        ] {
            assert_eq!(told(&answer), (OUTAGE.0.to_owned(), OUTAGE.1));
        }
        let refused = world.sts.exchange_for_gateway(gateway_call(&mandate)).await.err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "sts_unavailable"));
    }

    #[tokio::test]
    async fn a_damaged_row_is_an_outage_and_never_a_default() {
        for damage in [
            "UPDATE resources SET operation_enforcement = 'relaxed' WHERE id = 'r-docs'",
            "UPDATE resources SET scopes = 'all' WHERE id = 'r-docs'",
            "UPDATE agent_sessions SET status = 'running' WHERE id = 's-1'",
            "UPDATE agent_sessions SET lifecycle = 'service' WHERE id = 's-1'",
            "UPDATE delegation_edges SET status = 'fresh' WHERE id = 'e-1'",
            "UPDATE authority_records SET status = 'good' WHERE id = 'rec-app'",
            "UPDATE applications SET traits = 'none' WHERE id = 'app-docs'",
        ] {
            let world = World::new().await;
            world.tamper(damage);
            let answer = Ask::mint().send(&world).await;
            assert_eq!(answer.outcome(), "503 sts_unavailable", "{damage}");
            assert_eq!(world.record_ids(), ["rec-app"], "{damage}");
        }
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_signs_nothing() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.tamper("UPDATE signing_keys SET sealed_private = x'00'");
        let restarted = world.restarted();
        let answer = send_to(&restarted, Ask::mint().request()).await;
        assert_eq!(told(&answer), (OUTAGE.0.to_owned(), OUTAGE.1));
        assert_eq!(restarted.exchange_for_gateway(gateway_call(&mandate)).await.err().unwrap().status().as_u16(), 503);
        assert_eq!(world.record_ids().len(), 2);
        // Nor is its public half given out: who reads it can't see that it is this zone's (contract: sts.md §6).
        let keys = http::Request::get("/.well-known/jwks.json?zone_id=z-1").body(axum::body::Body::empty()).unwrap();
        assert_eq!(send_to(&restarted, keys).await.outcome(), "500 internal_error");
    }

    #[tokio::test]
    async fn policy_that_cannot_be_loaded_denies_and_uses_a_mandate_up() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world
            .activate_as(
                "package caracal.authz\napp_ids := {".to_owned(),
                caracal_policy::ContentSha256::of("package caracal.authz\napp_ids := {").to_string(),
            )
            .await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(told(&answer), ("503 policy_eval_failed".to_owned(), "1"));
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token");
        assert_eq!(world.sts.tell_loaded(&zone()).await.unwrap().loaded_at, None);
    }
}

mod t08_availability_of_mints {
    use super::*;

    #[tokio::test]
    async fn a_mint_refused_for_its_rate_alone_is_told_so() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 2).await;
        for _ in 0..2 {
            assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        }
        let limited = Ask::bootstrap().send(&world).await;
        assert_eq!(told(&limited), ("429 provider_rate_limited".to_owned(), "60"));
        let events = world.evidence().await;
        assert_eq!(events[events.len() - 2].outcome(), "deny rate_limited");
        // Another reason beside it, and it is a denial again.
        let mixed = Ask::bootstrap().add("resource", "resource://unknown").send(&world).await;
        assert_eq!(mixed.outcome(), "403 access_denied");
        // Every resource and application has a budget of its own.
        let notes = Ask::bootstrap().set("application_id", "app-notes").set("resource", NOTES);
        assert_eq!(notes.send(&world).await.status, 200);
        world.clock.advance(60);
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
    }

    /// Sets the working limit as the management API does.
    async fn set_limit(world: &World, per_minute: u32) {
        let done: Result<(), StoreError> = world
            .store
            .commit_deployment(per_minute, |tx, limit| {
                Box::pin(async move { mint_limit::set(tx, *limit, "admin:t-1").await.map(|_| ()) })
            })
            .await;
        done.unwrap();
    }

    /// How many of `asked` mints in a fresh minute are granted.
    async fn granted(world: &World, sts: &Arc<Sts>, asked: usize) -> usize {
        world.clock.advance(60);
        let mut granted = 0;
        for _ in 0..asked {
            granted += usize::from(send_to(sts, Ask::bootstrap().request()).await.status == 200);
        }
        granted
    }

    #[tokio::test]
    async fn the_limit_that_operators_set_holds_within_half_a_minute_on_every_replica() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 5).await;
        let limited = StsConfig { mint_rate_limit_per_min: 5, ..StsConfig::for_issuer(ISSUER) };
        let other = world.replica(limited, Arc::new(ProcessMintRate::default()));
        let replicas = [world.sts.clone(), other];
        for sts in &replicas {
            assert_eq!(granted(&world, sts, 6).await, 5);
        }
        for (set, expected) in [(2, 2), (4, 4), (1_000, 5)] {
            set_limit(&world, set).await;
            for sts in &replicas {
                assert_eq!(granted(&world, sts, 6).await, expected, "set to {set}");
            }
        }
        // Within one minute: what is over the new limit is refused as soon as it is known, half a minute later at most.
        set_limit(&world, 5).await;
        assert_eq!(granted(&world, &world.sts, 3).await, 3);
        set_limit(&world, 3).await;
        world.clock.advance(30);
        assert_eq!(told(&Ask::bootstrap().send(&world).await), ("429 provider_rate_limited".to_owned(), "60"));
    }

    #[tokio::test]
    async fn while_the_limit_cannot_be_read_the_last_one_known_holds() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 5).await;
        set_limit(&world, 2).await;
        assert_eq!(granted(&world, &world.sts, 3).await, 2);
        for nonsense in ["'{}'", "'x'", r#"'{"per_minute":0,"updated_by":"x","updated_at":0}'"#] {
            world.tamper(&format!("UPDATE deployment SET value = {nonsense} WHERE name = 'mint_rate_limit'"));
            assert_eq!(granted(&world, &world.sts, 3).await, 2, "{nonsense}");
        }
        set_limit(&world, 3).await;
        assert_eq!(granted(&world, &world.sts, 4).await, 3);
        // Who never knew another one has the ceiling.
        world.tamper("UPDATE deployment SET value = 'x' WHERE name = 'mint_rate_limit'");
        let limited = StsConfig { mint_rate_limit_per_min: 5, ..StsConfig::for_issuer(ISSUER) };
        let restarted = world.replica(limited, Arc::new(ProcessMintRate::default()));
        assert_eq!(granted(&world, &restarted, 6).await, 5);
    }

    /// A counter that nobody can ask.
    struct Unreachable;

    impl MintRate for Unreachable {
        fn count<'a>(&'a self, mints: &'a [MintKey], _: u32, _: Timestamp) -> BoxFuture<'a, Vec<Rate>> {
            Box::pin(std::future::ready(mints.iter().map(|_| Rate::Unavailable).collect()))
        }
    }

    /// Difference D7: a limit that can't be counted is not a limit that is reached, and it is not passed either.
    #[tokio::test]
    async fn a_counter_that_is_down_refuses_every_mint_and_says_so() {
        let world = World::new().await;
        let sts = world.replica(StsConfig::for_issuer(ISSUER), Arc::new(Unreachable));
        let answer = send_to(&sts, Ask::bootstrap().request()).await;
        assert_eq!(told(&answer), ("503 sts_unavailable".to_owned(), "1"));
        // Nothing was decided, so a mandate that was shown is not used up.
        let mandate = world.mandate().await;
        let config = StsConfig { gateway_key: Some(Arc::new(gateway_key())), ..StsConfig::for_issuer(ISSUER) };
        let gateways = world.replica(config, Arc::new(Unreachable));
        assert_eq!(send_to(&gateways, Signed::exchange(&world, &mandate).request()).await.status, 503);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn replicas_that_share_a_counter_share_a_limit() {
        let world = World::new().await;
        let counter: Arc<dyn MintRate> = Arc::new(ProcessMintRate::default());
        let limited = || StsConfig { mint_rate_limit_per_min: 3, ..StsConfig::for_issuer(ISSUER) };
        let replicas = [world.replica(limited(), counter.clone()), world.replica(limited(), counter)];
        let mut granted = 0;
        for number in 0..6 {
            let answer = send_to(&replicas[number % 2], Ask::bootstrap().request()).await;
            granted += u32::from(answer.status == 200);
        }
        assert_eq!(granted, 3);
    }

    /// Who can make the process fall over must not get a second budget by it.
    #[tokio::test]
    async fn a_restart_forgets_no_grant_of_the_last_minute() {
        let world = World::new().await;
        let restarted = async || {
            let limited = StsConfig { mint_rate_limit_per_min: 3, ..StsConfig::for_issuer(ISSUER) };
            world.replica(limited, Arc::new(ProcessMintRate::resumed(&world.store).await.unwrap()))
        };
        let status = async |sts: &Arc<Sts>, ask: Ask| send_to(sts, ask.request()).await.status;
        assert_eq!(status(&restarted().await, Ask::bootstrap()).await, 200);
        world.clock.advance(20);
        assert_eq!(status(&restarted().await, Ask::bootstrap()).await, 200);
        let third = restarted().await;
        assert_eq!(status(&third, Ask::bootstrap()).await, 200);
        let limited = send_to(&third, Ask::bootstrap().request()).await;
        assert_eq!(told(&limited), ("429 provider_rate_limited".to_owned(), "60"));
        // Another application's budget is its own, and denials use none of anybody's.
        let fourth = restarted().await;
        let notes = || Ask::bootstrap().set("application_id", "app-notes").set("resource", NOTES);
        assert_eq!(status(&fourth, Ask::bootstrap()).await, 429);
        assert_eq!(status(&fourth, notes()).await, 200);
        world.clock.advance(40);
        assert_eq!(status(&fourth, Ask::bootstrap()).await, 200);
        world.clock.advance(60);
        assert_eq!(status(&restarted().await, Ask::bootstrap()).await, 200);
    }

    #[tokio::test]
    async fn a_resource_over_its_rate_is_left_out_of_a_mint_that_has_others() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 1).await;
        world.add_resource("r-more", "resource://more", |_| {}).await;
        let grants = "\"resource://more\": {\"application\": \"docs\", \"roles\": {}},\n  \"resource://docs\"";
        world.activate(&POLICY.replace("\"resource://docs\"", grants)).await;
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        let answer = Ask::bootstrap().add("resource", "resource://more").send(&world).await;
        assert_eq!(answer.json["target_resources"], json!(["resource://more"]));
    }

    #[tokio::test]
    async fn gateway_exchanges_count_like_mints() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 2).await;
        let mandate = world.mandate().await;
        let other = world.mandate().await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(told(&answer), ("429 provider_rate_limited".to_owned(), "60"));
        world.clock.advance(60);
        assert_eq!(Signed::exchange(&world, &other).send(&world).await.status, 200);
    }
}

mod t08_availability_of_clients {
    use super::*;

    /// A counter that nobody can ask.
    struct Unreachable;

    impl Guesses for Unreachable {
        fn check<'a>(&'a self, _: &'a Guesser, _: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
            Box::pin(std::future::ready(Err(CountUnavailable)))
        }

        fn failed<'a>(&'a self, _: &'a Guesser, _: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
            Box::pin(std::future::ready(Err(CountUnavailable)))
        }
    }

    fn replica(world: &World, guesses: Arc<dyn Guesses>) -> Arc<Sts> {
        world.replica_counting(StsConfig::for_issuer(ISSUER), Arc::new(ProcessMintRate::default()), guesses)
    }

    /// Difference D7: a guess that nobody counts would be a free one.
    #[tokio::test]
    async fn while_guesses_cannot_be_counted_no_secret_is_looked_at() {
        let world = World::new().await;
        let sts = replica(&world, Arc::new(Unreachable));
        for ask in [Ask::bootstrap(), Ask::bootstrap().set("client_secret", "x")] {
            let answer = send_to(&sts, ask.request()).await;
            assert_eq!(told(&answer), (OUTAGE.0.to_owned(), OUTAGE.1));
        }
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn replicas_that_share_a_count_of_guesses_are_no_second_chance() {
        let world = World::new().await;
        let shared: Arc<dyn Guesses> = Arc::new(ProcessGuesses::new(world.store.clone()));
        let replicas = [replica(&world, shared.clone()), replica(&world, shared)];
        let wrong = || Ask::bootstrap().set("client_secret", "").request();
        for number in 0..60 {
            assert_eq!(send_to(&replicas[number % 2], wrong()).await.status, 401);
        }
        assert_eq!(send_to(&replicas[0], wrong()).await.status, 429);
        let right = send_to(&replicas[1], Ask::bootstrap().request()).await;
        assert_eq!(told(&right), ("429 provider_rate_limited".to_owned(), "60"));
    }

    /// What the embedded engine counts is there again after a restart: wrong secrets, and the block that follows them.
    #[tokio::test]
    async fn a_process_that_is_started_again_goes_on_counting_wrong_secrets() {
        let world = World::new().await;
        let started = async || {
            let guesses = ProcessGuesses::resumed(world.store.clone()).await.unwrap();
            replica(&world, Arc::new(guesses))
        };
        let wrong = || Ask::bootstrap().set("client_secret", "x").request();
        for _ in 0..4 {
            let sts = started().await;
            for _ in 0..15 {
                assert_eq!(send_to(&sts, wrong()).await.status, 401);
            }
        }
        let blocked = ("429 provider_rate_limited".to_owned(), "60");
        assert_eq!(told(&send_to(&started().await, wrong()).await), blocked);
        assert_eq!(told(&send_to(&started().await, Ask::bootstrap().request()).await), blocked);
        world.clock.advance(60);
        assert_eq!(send_to(&started().await, Ask::bootstrap().request()).await.status, 200);
    }
}

mod t08_availability_overload {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use caracal_http::admission::{Admission, Class, Gate};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn mints_are_turned_away_unread_and_what_was_begun_or_takes_authority_away_is_not() {
        let world = World::in_real_time().await;
        let mandate = world.mandate().await;
        let (time, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (clock, tells) = (time.clone(), told.clone());
        let gate =
            Gate::new(Admission::new(1, move || Duration::from_millis(clock.load(Ordering::SeqCst))), move || {
                tells.fetch_add(1, Ordering::SeqCst);
            });
        let listening = Listening::behind(&gate, TcpListener::bind("127.0.0.1:0").await.unwrap(), &world);
        let before = (world.evidence().await.len(), world.record_ids());
        // So much is under way, and for so long, that nothing new is begun.
        let places: Vec<_> = (0..40).map(|_| gate.ask(Class::Begins).unwrap()).collect();
        time.store(400, Ordering::SeqCst);
        let form = "Content-Type: application/x-www-form-urlencoded\r\nX-Request-Id: r-1\r\n";
        for path in ["/oauth/2/token", "/zones/z-1/oauth/2/token"] {
            // Not even a body that is none is looked at.
            for body in [Ask::mint().encoded(), "%zz".to_owned()] {
                let answer = listening.say(&format!("POST {path} HTTP/1.1\r\n{form}"), &body).await;
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                for line in ["retry-after: 1\r\n", "x-request-id: r-1\r\n", "\"error\":\"sts_unavailable\""] {
                    assert!(answer.contains(line), "{answer}");
                }
            }
        }
        assert_eq!((before, told.load(Ordering::SeqCst)), ((world.evidence().await.len(), world.record_ids()), 4));
        let exchange = Signed::exchange(&world, &mandate);
        let signed = format!(
            "POST /oauth/2/token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nX-Request-Id: {}\r\n\
             X-Caracal-Gateway-Timestamp: {}\r\nX-Caracal-Gateway-Request: {}\r\nX-Caracal-Gateway-Signature: {}\r\n",
            exchange.request_id,
            exchange.timestamp,
            exchange.nonce,
            exchange.signature()
        );
        let granted = listening.say(&signed, &exchange.ask.encoded()).await;
        assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
        for request in ["GET /health", "GET /ready", "GET /.well-known/jwks.json?zone_id=z-1"] {
            let answer = listening.say(&format!("{request} HTTP/1.1\r\n"), "").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
        }
        let revocation = Ask::mint().set("token", &mandate).encoded();
        let revoked = listening.say(&format!("POST /zones/z-1/oauth/2/revoke HTTP/1.1\r\n{form}"), &revocation).await;
        assert!(!revoked.starts_with("HTTP/1.1 5"), "{revoked}");
        drop(places);
        let granted = listening.say(&format!("POST /oauth/2/token HTTP/1.1\r\n{form}"), &Ask::mint().encoded()).await;
        assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
        assert_eq!((gate.counts().shed, gate.counts().in_progress), (4, 0));
        listening.end().await;
    }
}
