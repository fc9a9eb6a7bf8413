//! The keys of identity providers: where they may come from, for how long they are used, and how often anybody is asked
//! (contract: sts.md §4, §10.5).

use std::time::Duration;

use serde_json::json;

use crate::support::*;

/// The reason for which the one token is refused, with its status; or nothing, where it is accepted.
async fn verdict(world: &World, token: &str) -> (u16, String) {
    let answer = Ask::relay(token).send(world).await;
    if answer.status == 200 {
        return (200, String::new());
    }
    let event = world.last_event().await;
    assert_eq!(event.outcome(), "deny subject_federation_rejected");
    (answer.status, event.text("reason").to_owned())
}

async fn scene(key: &IdpKey) -> (World, IdentityProvider) {
    let provider = IdentityProvider::publishing(&[key]).await;
    let brief = |config: &mut caracal_sts::StsConfig| config.issuer_keys_deadline = Duration::from_secs(2);
    let world = World::reaching(way_out(true, true), brief).await;
    world.add_issuer("idp-1", &provider.url("/keys"), |_| {}).await;
    (world, provider)
}

fn accepted() -> (u16, String) {
    (200, String::new())
}

fn unusable() -> (u16, String) {
    (401, "keys_unusable".to_owned())
}

fn unreachable() -> (u16, String) {
    (503, "keys_unreachable".to_owned())
}

mod t02_sts_issuer_keys {
    use super::*;

    #[tokio::test]
    async fn what_is_no_key_set_of_a_trusted_server_is_refused() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        let token = key.token(&id_claims());
        let good = json!({"keys": [key.jwk()]}).to_string();
        let of_size = |bytes: usize| {
            let padding = bytes - good.len() - r#","x":"""#.len();
            let mut document = good.clone();
            document.insert_str(document.len() - 1, &format!(r#","x":"{}""#, " ".repeat(padding)));
            assert_eq!(document.len(), bytes);
            Reply::body(document)
        };
        let redirect = Reply::With { status: 302, headers: "Location: /keys\r\n", body: good.clone().into_bytes() };
        let mut off_the_curve = key.jwk();
        off_the_curve["y"] = off_the_curve["x"].clone();
        let rows = [
            ("/oct", Reply::body(json!({"keys": [{"kty": "oct", "kid": "k-1", "k": "AAAA"}]}).to_string()), unusable()),
            ("/redirect", redirect, unusable()),
            ("/none", Reply::status(404), unusable()),
            ("/empty", Reply::body(r#"{"keys":[]}"#), unusable()),
            ("/garbage", Reply::body("<html>"), unusable()),
            ("/twice", Reply::body(good.replacen('{', r#"{"keys":[],"#, 1)), unusable()),
            ("/again", Reply::body(good.replacen(r#""kid":"#, r#""kid":"k-0","kid":"#, 1)), unusable()),
            (
                "/private",
                Reply::body(json!({"keys": [{"$serde_json::private::RawValue": key.jwk().to_string()}]}).to_string()),
                unusable(),
            ),
            ("/curve", Reply::body(json!({"keys": [off_the_curve]}).to_string()), unusable()),
            ("/large", of_size(256 * 1024), accepted()),
            ("/larger", of_size(256 * 1024 + 1), unusable()),
            ("/failing", Reply::status(500), unreachable()),
            ("/busy", Reply::status(429), unreachable()),
            ("/cut", Reply::Nothing, unreachable()),
            ("/silent", Reply::Silence, unreachable()),
            ("/good", Reply::body(good.clone()), accepted()),
        ];
        for (path, reply, expected) in rows {
            provider.answer(path, reply);
            world.change_issuer("idp-1", |row| row.jwks_url = provider.url(path)).await;
            assert_eq!(verdict(&world, &token).await, expected, "{path}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, expected) in [
            // Rows that the Admin API does not let in.
            (format!("http://127.0.0.1:{}/good", provider.port), unusable()),
            ("ftp://127.0.0.1/good".to_owned(), unusable()),
            (format!("https://{closed}/good"), unreachable()),
        ] {
            world.change_issuer("idp-1", |row| row.jwks_url = url.clone()).await;
            assert_eq!(verdict(&world, &token).await, expected, "{url}");
        }
        let answer = Ask::relay(&token).send(&world).await;
        assert_eq!(answer.header("retry-after"), "1");
    }

    #[tokio::test]
    async fn addresses_that_must_not_be_reached_are_not() {
        let key = IdpKey::p256("k-1");
        let provider = IdentityProvider::publishing(&[&key]).await;
        let token = key.token(&id_claims());
        let world = World::reaching(way_out(false, true), |_| {}).await;
        world.add_issuer("idp-1", &provider.url("/keys"), |_| {}).await;
        for url in [
            provider.url("/keys"),
            format!("https://localhost:{}/keys", provider.port),
            "https://10.0.0.1/keys".to_owned(),
            "https://169.254.169.254/latest/meta-data".to_owned(),
            "https://[64:ff9b::a9fe:a9fe]/keys".to_owned(),
            "https://0x7f.1/keys".to_owned(),
        ] {
            world.change_issuer("idp-1", |row| row.jwks_url = url.clone()).await;
            assert_eq!(verdict(&world, &token).await, unusable(), "{url}");
        }
        assert_eq!(provider.asked(), 0);
        // Nor is a server that proves to be nobody whom we know.
        let world = World::reaching(way_out(true, false), |_| {}).await;
        world.add_issuer("idp-1", &provider.url("/keys"), |_| {}).await;
        assert_eq!(verdict(&world, &token).await, unusable());
        assert_eq!(provider.asked(), 0);
    }

    #[tokio::test]
    async fn keys_are_used_for_ten_minutes_and_not_a_second_longer() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        let token = key.token(&id_claims());
        assert_eq!(verdict(&world, &token).await, accepted());
        provider.answer("/keys", Reply::status(500));
        world.clock.advance(599);
        assert_eq!((verdict(&world, &token).await, provider.asked()), (accepted(), 1));
        world.clock.advance(1);
        assert_eq!((verdict(&world, &token).await, provider.asked()), (unreachable(), 2));
        // It is left alone for a second, and asked again then.
        assert_eq!((verdict(&world, &token).await, provider.asked()), (unreachable(), 2));
        provider.answer("/keys", Reply::keys(&[&key]));
        world.clock.advance(1);
        assert_eq!((verdict(&world, &token).await, provider.asked()), (accepted(), 3));
    }

    #[tokio::test]
    async fn a_key_that_its_owner_withdrew_is_not_believed_once_the_set_is_fetched_again() {
        let (old, new) = (IdpKey::p256("k-1"), IdpKey::p256("k-2"));
        let (world, provider) = scene(&old).await;
        assert_eq!(verdict(&world, &old.token(&id_claims())).await, accepted());
        provider.answer("/keys", Reply::keys(&[&new]));
        world.clock.advance(600);
        assert_eq!(verdict(&world, &old.token(&id_claims())).await, (401, "key_unknown".to_owned()));
        assert_eq!(verdict(&world, &new.token(&id_claims())).await, accepted());
    }

    #[tokio::test]
    async fn a_key_that_is_new_is_asked_for_and_found() {
        let (old, new) = (IdpKey::p256("k-1"), IdpKey::rsa("k-2"));
        let (world, provider) = scene(&old).await;
        assert_eq!(verdict(&world, &old.token(&id_claims())).await, accepted());
        provider.answer("/keys", Reply::keys(&[&old, &new]));
        world.clock.advance(10);
        assert_eq!((verdict(&world, &new.token(&id_claims())).await, provider.asked()), (accepted(), 2));
        assert_eq!((verdict(&world, &old.token(&id_claims())).await, provider.asked()), (accepted(), 2));
    }

    #[tokio::test]
    async fn made_up_key_ids_have_a_provider_asked_every_ten_seconds_at_most_and_keep_nobody_out() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        assert_eq!(verdict(&world, &key.token(&id_claims())).await, accepted());
        let made_up = |number: i64| key.named(&format!("made-up-{number}")).token(&id_claims());
        for second in 0..30 {
            for number in 0..2 {
                let unknown = (401, "key_unknown".to_owned());
                assert_eq!(verdict(&world, &made_up(10 * second + number)).await, unknown);
            }
            assert_eq!(verdict(&world, &key.token(&id_claims())).await, accepted());
            world.clock.advance(1);
            if second == 20 {
                // So that the count of rejections does not get in the way of this one.
                world.clock.advance(60);
            }
        }
        assert!(provider.asked() <= 1 + 30 / 10 + 1, "{}", provider.asked());
        // When the provider is away, those who name a key that is at hand do not notice.
        world.clock.advance(60);
        provider.answer("/keys", Reply::Nothing);
        let asked = provider.asked();
        for number in 0..5 {
            assert_eq!(verdict(&world, &made_up(1_000 + number)).await, unreachable());
            assert_eq!(verdict(&world, &key.token(&id_claims())).await, accepted());
        }
        assert_eq!(provider.asked(), asked + 1);
    }

    #[tokio::test]
    async fn a_changed_address_is_asked_at_once() {
        let (old, new) = (IdpKey::p256("k-1"), IdpKey::p256("k-1"));
        let (world, provider) = scene(&old).await;
        provider.answer("/new", Reply::keys(&[&new]));
        assert_eq!(verdict(&world, &old.token(&id_claims())).await, accepted());
        world.change_issuer("idp-1", |row| row.jwks_url = provider.url("/new")).await;
        assert_eq!(verdict(&world, &new.token(&id_claims())).await, accepted());
        assert_eq!(verdict(&world, &old.token(&id_claims())).await, (401, "signature_invalid".to_owned()));
        assert_eq!(provider.asked(), 2);
    }

    #[tokio::test]
    async fn two_registrations_of_one_address_share_no_keys() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        assert_eq!(verdict(&world, &key.token(&id_claims())).await, accepted());
        world.archive_issuer("idp-1").await;
        world.add_issuer("idp-2", &provider.url("/keys"), |_| {}).await;
        assert_eq!((verdict(&world, &key.token(&id_claims())).await, provider.asked()), (accepted(), 2));
    }

    #[tokio::test]
    async fn who_comes_while_keys_are_fetched_waits_for_them_and_nobody_asks_twice() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        let relay = Ask::relay(&key.token(&id_claims()));
        provider.hold_back();
        let crowd: Vec<_> = (0..12)
            .map(|_| {
                let (sts, request) = (world.sts.clone(), relay.request());
                tokio::spawn(async move { send_to(&sts, request).await.status })
            })
            .collect();
        provider.until_asked(1).await;
        provider.release();
        for one in crowd {
            assert_eq!(one.await.unwrap(), 200);
        }
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_take_the_answer_along() {
        let key = IdpKey::p256("k-1");
        let (world, provider) = scene(&key).await;
        let relay = Ask::relay(&key.token(&id_claims()));
        provider.hold_back();
        {
            let mut gone = Box::pin(relay.send(&world));
            while provider.asked() == 0 {
                assert!(waits(gone.as_mut()).await);
                tokio::task::yield_now().await;
            }
        }
        provider.release();
        assert_eq!(relay.send(&world).await.status, 200);
        assert_eq!(provider.asked(), 1);
    }
}
