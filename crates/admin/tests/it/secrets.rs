//! Where secrets are, and where they are not.

use serde_json::json;

use crate::world::World;

mod t05_secrets_at_rest {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_shown_to_its_maker_once_and_is_nowhere_in_clear() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let at = |path: &str| format!("/v1/zones/{zone}{path}");
        let body = json!({"name": "Bot", "registration_method": "managed"});
        let created = world.call("POST", &at("/applications"), Some(body)).await.is(201);
        let (app, first) = (created["id"].as_str().unwrap(), created["client_secret"].as_str().unwrap().to_owned());
        let chosen = "chosen-secret-of-thirty-two-or-more-characters".to_owned();
        let one = at(&format!("/applications/{app}"));
        world.call("PATCH", &one, Some(json!({"client_secret": chosen}))).await.is(200);
        let rotated = world.call("POST", &format!("{one}/rotate-secret"), None).await.is(200);
        let rotated = rotated["client_secret"].as_str().unwrap().to_owned();
        let mut secrets = vec![first, chosen, rotated];
        for (kind, config, key) in [
            ("api_key", json!({"header_name": "X-Key", "api_key": "sk-visible-api-key"}), "sk-visible-api-key"),
            ("bearer_token", json!({"bearer_token": "sk-visible-bearer"}), "sk-visible-bearer"),
            ("http_basic", json!({"username": "u", "password": "sk-visible-password"}), "sk-visible-password"),
        ] {
            world.create(&at("/providers"), json!({"name": kind, "kind": kind, "config_json": config})).await;
            secrets.push(key.to_owned());
        }

        let mut seen = String::new();
        for path in ["/applications", "/providers", "/resources", "/audit"] {
            seen.push_str(&world.get(&at(path)).await.text);
        }
        seen.push_str(&world.get(&one).await.text);
        for row in world.records(Some(&zone)).await {
            seen.push_str(&format!("{row:?}"));
        }
        let stored = world.bytes_on_disk();
        // What is not secret is found where it is looked for, so that finding nothing means something.
        assert!(stored.windows(5).any(|bytes| bytes == b"X-Key") && seen.contains("X-Key"));
        for secret in secrets {
            assert!(!seen.contains(&secret), "{secret} is shown");
            assert!(
                !stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()),
                "{secret} is stored in clear"
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_never_quotes_the_body() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let secret = "sk-visible";
        for (method, path, body) in [
            ("POST", "providers", json!({"name": "p", "kind": "api_key", "config_json": {"api_key": secret}})),
            ("POST", "providers", json!({"name": "p", "kind": "none", "config_json": {"api_key": secret}})),
            ("POST", "providers", json!({"name": "p", "kind": "api_key", "config_json": {"auth_scheme": secret}})),
            ("PATCH", "applications/none", json!({"client_secret": secret})),
            ("POST", "applications", json!({"name": "x", "registration_method": secret})),
            (
                "POST",
                "resources",
                json!({"name": "x", "scopes": ["a"], "upstream_url": format!("https://u:{secret}@h")}),
            ),
        ] {
            let answer = world.call(method, &format!("/v1/zones/{zone}/{path}"), Some(body.clone())).await;
            assert!(answer.status.is_client_error() && !answer.text.contains(secret), "{body}: {}", answer.text);
        }
    }

    #[tokio::test]
    async fn when_a_secret_can_t_be_kept_nothing_changes_and_the_old_one_works() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let at = |path: &str| format!("/v1/zones/{zone}{path}");
        let body = |name: &str| Some(json!({"name": name, "registration_method": "managed"}));
        let created = world.call("POST", &at("/applications"), body("Bot")).await.is(201);
        let (app, secret) = (created["id"].as_str().unwrap(), created["client_secret"].as_str().unwrap());
        let config = json!({"header_name": "A", "api_key": "sk-1"});
        let provider = json!({"name": "p", "kind": "api_key", "config_json": config});
        let id = world.create(&at("/providers"), provider.clone()).await;
        world.outside("DROP TABLE sealed_secrets");

        let one = at(&format!("/applications/{app}"));
        let before = (world.get(&at("/applications")).await.text, world.get(&at("/providers")).await.text);
        for (method, path, body) in [
            ("POST", at("/applications"), body("Other")),
            ("PATCH", one.clone(), Some(json!({"name": "B", "client_secret": "s".repeat(32)}))),
            ("POST", format!("{one}/rotate-secret"), None),
            ("POST", at("/providers"), Some(provider)),
            ("PATCH", at(&format!("/providers/{id}")), Some(json!({"name": "q", "config_json": config}))),
        ] {
            world.call(method, &path, body).await.is_refused(502, "secret_backend_unavailable");
        }
        let after = (world.get(&at("/applications")).await.text, world.get(&at("/providers")).await.text);
        assert_eq!(before, after);
        assert!(world.secret_is_right(&zone, app, secret).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_rotations_at_once_the_copy_and_the_hash_are_of_the_same_one() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/applications");
        let id = world.create(&path, json!({"name": "Bot", "registration_method": "managed"})).await;
        let (one, chosen) = (format!("{path}/{id}"), "c".repeat(32));
        let rotate = format!("{one}/rotate-secret");
        let (first, second, third) = tokio::join!(
            world.call("POST", &rotate, None),
            world.call("POST", &rotate, None),
            world.call("PATCH", &one, Some(json!({"client_secret": chosen}))),
        );
        third.is(200);
        let secret = |answer: &crate::world::Answer| answer.is(200)["client_secret"].as_str().unwrap().to_owned();
        let all = [secret(&first), secret(&second), chosen];
        let kept = world.application_secret(&zone, &id).await.unwrap();
        for secret in &all {
            assert_eq!(world.secret_is_right(&zone, &id, secret).await, *secret == kept, "{secret}");
        }
        assert!(all.contains(&kept));
    }
}
