//! One token in the wrong hands must not grow.

use serde_json::json;

use crate::world::World;

mod t12_foothold_tokens {
    use super::*;

    #[tokio::test]
    async fn a_revoked_token_is_refused_at_once() {
        let world = World::new().await;
        let token = world.mint("write", None).await;
        world.call_as(Some(&token), "GET", "/v1/zones", None).await.is(200);
        let revoked: Result<usize, caracal_store::StoreError> = world
            .store
            .commit_deployment((), |tx, ()| {
                Box::pin(
                    async move { caracal_store::admin_tokens::revoke_predecessors(tx, "admin:test", "none").await },
                )
            })
            .await;
        assert_eq!(revoked.unwrap(), 1);
        world.call_as(Some(&token), "GET", "/v1/zones", None).await.is_refused(401, "invalid_admin_token");
    }

    #[tokio::test]
    async fn a_token_of_a_kind_nobody_knows_opens_nothing() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        for (scope, capability, bound) in [
            ("global", "own everything", None),
            ("global", "", None),
            ("global", "WRITE", None),
            ("zone", "admin", Some(&zone)),
            ("zone", "write", None),
            ("global", "write", Some(&zone)),
            ("fleet", "write", None),
            ("", "read", Some(&zone)),
        ] {
            let token = world.mint_row(scope, capability, bound.map(String::as_str)).await;
            let sets = format!("/v1/zones/{zone}/policy-sets");
            let content = json!({"content": crate::world::EMPTY_GRANTS});
            for (method, path, body) in [
                ("GET", "/v1/zones", None),
                ("GET", "/v1/policy-templates", None),
                ("POST", "/v1/policies/validate", Some(content)),
                ("GET", &sets, None),
                ("POST", &sets, Some(json!({"name": "s"}))),
                ("GET", "/v1/nowhere", None),
            ] {
                let answer = world.call_as(Some(&token), method, path, body).await;
                assert_eq!(
                    answer.refused(),
                    (401, "invalid_admin_token".to_owned()),
                    "{scope:?} {capability:?} {path}"
                );
            }
        }
        world.get(&format!("/v1/zones/{zone}/policy-sets")).await.is(200);
    }

    #[tokio::test]
    async fn a_zone_token_sees_nothing_of_another_zone_by_its_own_paths() {
        let world = World::new().await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let token = world.mint("write", Some(&own)).await;
        let app = json!({"name": "Bot", "registration_method": "managed"});
        let foreign = [
            ("applications", world.create(&format!("/v1/zones/{other}/applications"), app).await),
            (
                "providers",
                world.create(&format!("/v1/zones/{other}/providers"), json!({"name": "p", "kind": "none"})).await,
            ),
            ("policy-sets", world.create(&format!("/v1/zones/{other}/policy-sets"), json!({"name": "s"})).await),
            (
                "subject-issuers",
                world
                    .create(
                        &format!("/v1/zones/{other}/subject-issuers"),
                        json!({"issuer": "https://i.example", "jwks_url": "https://i.example", "audience": "a"}),
                    )
                    .await,
            ),
        ];
        for (kind, id) in foreign {
            let path = format!("/v1/zones/{own}/{kind}/{id}");
            assert_eq!(world.call_as(Some(&token), "GET", &path, None).await.status, 404, "{kind}");
            assert_eq!(world.get(&path).await.status, 404, "{kind}");
            let patch = Some(json!({"name": "stolen"}));
            assert_eq!(world.call_as(Some(&token), "PATCH", &path, patch).await.status, 404, "{kind}");
        }
    }

    #[tokio::test]
    async fn only_the_bootstrap_token_touches_a_reserved_application() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let write = world.mint("write", None).await;
        let path = format!("/v1/zones/{zone}/applications");
        let body = json!({"name": "caracal.sys/operator", "registration_method": "managed"});
        let id = world.create(&path, body).await;
        let one = format!("{path}/{id}");
        let secret = Some(json!({"client_secret": "s".repeat(32)}));
        world.call_as(Some(&write), "PATCH", &one, secret).await.is_refused(409, "reserved_namespace");
        let rotate = format!("{one}/rotate-secret");
        world.call_as(Some(&write), "POST", &rotate, None).await.is_refused(409, "reserved_namespace");
        world.call("POST", &rotate, None).await.is(200);
    }

    #[tokio::test]
    async fn a_zone_token_can_t_take_a_control_key_over_by_giving_it_a_secret() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let own = world.mint("write", Some(&zone)).await;
        let path = format!("/v1/zones/{zone}/applications");
        for (name, traits) in [("a", json!(["team:x", "control:invoke"])), ("b", json!(["caracal.sys:x"]))] {
            let body = json!({"name": name, "registration_method": "managed", "traits": traits});
            let created = world.call("POST", &path, Some(body)).await.is(201);
            let (id, secret) = (created["id"].as_str().unwrap(), created["client_secret"].as_str().unwrap());
            let one = format!("{path}/{id}");
            let chosen = "s".repeat(32);
            for (method, path, body) in [
                ("POST", format!("{one}/rotate-secret"), None),
                ("PATCH", one.clone(), Some(json!({"client_secret": chosen}))),
                ("PATCH", one.clone(), Some(json!({"client_secret": chosen, "traits": []}))),
            ] {
                world.call_as(Some(&own), method, &path, body).await.is_refused(403, "trait_forbidden");
            }
            assert!(world.secret_is_right(&zone, id, secret).await);
            assert_eq!(world.get(&one).await.is(200)["traits"], traits);
            let write = world.mint("write", None).await;
            world.call_as(Some(&write), "POST", &format!("{one}/rotate-secret"), None).await.is(200);
            assert!(!world.secret_is_right(&zone, id, secret).await);
            // Without the traits it is an application like any other.
            world.call_as(Some(&own), "PATCH", &one, Some(json!({"traits": []}))).await.is(200);
            world.call_as(Some(&own), "PATCH", &one, Some(json!({"client_secret": chosen}))).await.is(200);
        }
    }

    #[tokio::test]
    async fn only_the_bootstrap_token_touches_a_reserved_provider() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let write = world.mint("write", None).await;
        let path = format!("/v1/zones/{zone}/providers");
        let id = world.create(&path, json!({"identifier": "provider://caracal-sys-x", "kind": "none"})).await;
        let rename = Some(json!({"identifier": "provider://mine"}));
        let answer = world.call_as(Some(&write), "PATCH", &format!("{path}/{id}"), rename).await;
        answer.is_refused(409, "reserved_namespace");
    }
}
