//! What ends with a subject, an application, a resource or a zone, and what does not (admin-api.md §5.1, §5.8; D15, D19).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::standing::{Standing, managed, usual_revocations};
use crate::world::{BOOTSTRAP, World};

fn ended(reason: &str) -> (String, Option<String>) {
    ("terminated".to_owned(), Some(reason.to_owned()))
}

fn revoked(reason: &str) -> (String, Option<String>) {
    ("revoked".to_owned(), Some(reason.to_owned()))
}

fn active() -> (String, Option<String>) {
    ("active".to_owned(), None)
}

mod t12_foothold_kill_switch {
    use super::*;

    fn path(zone: &str) -> String {
        format!("/v1/zones/{zone}/subjects/revoke")
    }

    #[tokio::test]
    async fn the_kill_switch_leaves_nothing_of_the_subject_and_says_how_much_there_was() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let user = "auth0|507f1f77";
        world.stand_usual(&zone, "a", user, "app-1").await;
        world.stand_usual(&zone, "b", "auth0|other", "app-1").await;
        let body = json!({"subject_id": user, "reason": "stolen laptop"});
        let done = world.call("POST", &path(&zone), Some(body.clone())).await.is(200);
        let expected =
            json!({"subject_id": user, "authority_records": 2, "sessions": 2, "delegations": 1, "connections": 0});
        assert_eq!(done, expected);
        // The reason that was given is told; with a record stands the contract's.
        assert_eq!(world.record_state(&zone, "a-user").await, revoked("subject_revoked"));
        assert_eq!(world.record_state(&zone, "a-minted").await, revoked("subject_revoked"));
        assert_eq!(world.session_state(&zone, "a-root").await, ended("stolen laptop"));
        assert_eq!(world.session_state(&zone, "a-child").await.0, "terminated");
        assert_eq!(world.edge_state(&zone, "a-edge").await, "revoked");
        assert_eq!(world.revoked(), usual_revocations("a", "stolen laptop"));
        // Nobody else's.
        assert_eq!(world.record_state(&zone, "a-bystander").await, active());
        assert_eq!(world.session_state(&zone, "a-other").await, active());
        assert_eq!(world.record_state(&zone, "b-user").await, active());
        assert_eq!(world.session_state(&zone, "b-child").await, active());
        assert_eq!(world.edge_state(&zone, "b-edge").await, "active");

        let again = world.call("POST", &path(&zone), Some(body)).await.is(200);
        let zeros =
            json!({"subject_id": user, "authority_records": 0, "sessions": 0, "delegations": 0, "connections": 0});
        assert_eq!(again, zeros);
        let unknown = Some(json!({"subject_id": "nobody"}));
        world.call("POST", &path(&zone), unknown).await.is_refused(404, "subject_not_found");

        let rows = world.records(Some(&zone)).await;
        let own: Vec<_> = rows.iter().filter(|row| row.action == "Subject authority revoked").collect();
        assert_eq!(
            (own.len(), own[0].entity_id.as_deref(), own[0].entity_type.as_deref()),
            (2, Some(user), Some("subjects"))
        );
        let payload: Value = serde_json::from_str(own[0].payload.as_deref().unwrap()).unwrap();
        assert_eq!(
            (&payload["revoked_authority_records"], &payload["terminated_sessions"], &payload["revoked_delegations"]),
            (&json!(2), &json!(2), &json!(1))
        );
        assert_eq!((&payload["reason"], &payload["revoked_connections"]), (&json!("stolen laptop"), &json!(0)));
    }

    #[tokio::test]
    async fn the_kill_switch_ends_the_subjects_accounts_at_providers_and_no_one_elses() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let config = json!({
            "authorization_endpoint": "https://idp.example/authorize", "redirect_uri": "https://console.example/",
            "token_endpoint": "https://idp.example/token", "client_id": "c", "client_secret": "cs-upstream",
        });
        let body = json!({"name": "idp", "kind": "oauth2_authorization_code", "config_json": config});
        let provider = world.create(&format!("/v1/zones/{zone}/providers"), body).await;
        let connections = format!("/v1/zones/{zone}/provider-connections");
        for subject in ["user-1", "user-2", "caracal:shared"] {
            let body = json!({"provider_id": provider, "subject_id": subject, "access_token": "at"});
            world.create(&connections, body).await;
        }
        world.stand_usual(&zone, "a", "user-1", "app-1").await;
        let done = world.call("POST", &path(&zone), Some(json!({"subject_id": "user-1"}))).await.is(200);
        assert_eq!(done["connections"], 1);
        let active = world.get(&format!("{connections}?status=active")).await.is(200);
        let subjects: BTreeSet<&str> =
            active["items"].as_array().unwrap().iter().map(|item| item["subject_id"].as_str().unwrap()).collect();
        assert_eq!(subjects, BTreeSet::from(["user-2", "caracal:shared"]));
    }

    #[tokio::test]
    async fn a_switch_that_can_t_be_meant_ends_nothing() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        world.stand_usual(&zone, "a", "user-1", "app-1").await;
        for body in [
            json!({}),
            json!({"subject_id": ""}),
            json!({"subject_id": "x".repeat(513)}),
            json!({"subject_id": "user-1", "reason": "x".repeat(513)}),
            // A line feed would be another line of what is signed.
            json!({"subject_id": "user-1", "reason": "a\nreason=b"}),
            json!({"subject_id": 1}),
        ] {
            world.call("POST", &path(&zone), Some(body)).await.is_refused(400, "invalid_subject_revoke");
        }
        assert_eq!(world.record_state(&zone, "a-user").await, active());
        assert_eq!(world.revoked(), Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_minted_while_the_switch_is_thrown_is_ended_or_was_minted_after() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        world.stand_usual(&zone, "a", "user-1", "app-1").await;
        let (body, path) = (json!({"subject_id": "user-1"}), path(&zone));
        let mints = async {
            for number in 0..20 {
                let child = caracal_store::records::RecordRow {
                    parent_id: Some("a-user".parse().unwrap()),
                    ..world.user_record(&zone, &format!("late-{number}"), "user-1", "app-1")
                };
                world.stand(&zone, Standing { records: vec![child], ..Standing::default() }).await;
            }
        };
        let (first, ()) = tokio::join!(world.call("POST", &path, Some(body.clone())), mints);
        let second = world.call("POST", &path, Some(body.clone())).await.is(200);
        let ended =
            first.is(200)["authority_records"].as_u64().unwrap() + second["authority_records"].as_u64().unwrap();
        // Each exactly once: no record is passed over, none counted twice.
        assert_eq!(ended, 22);
        let third = world.call("POST", &path, Some(body)).await.is(200);
        assert_eq!(third["authority_records"], 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_another_change_holds_while_the_switch_is_thrown_is_waited_for_and_ended() {
        let world = Arc::new(World::new().await);
        let zone = world.zone("Ops").await;
        world.stand_usual(&zone, "a", "user-1", "app-1").await;
        let child = caracal_store::records::RecordRow {
            parent_id: Some("a-user".parse().unwrap()),
            ..world.user_record(&zone, "held", "user-1", "app-1")
        };
        let (runs, running) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (store, place) = (world.store.clone(), zone.parse().unwrap());
        let holding = tokio::spawn(async move {
            let input = (Mutex::new(Some(runs)), Mutex::new(released), child);
            let held: Result<(), caracal_store::StoreError> = store
                .commit(&place, input, |tx, (runs, released, child)| {
                    Box::pin(async move {
                        caracal_store::records::add(tx, child).await?;
                        if let Some(runs) = runs.lock().unwrap().take() {
                            runs.send(()).unwrap();
                        }
                        // An error means that the sender is gone, which is the sign, too.
                        let _ = tokio::task::block_in_place(|| released.lock().unwrap().recv());
                        Ok(())
                    })
                })
                .await;
            held.unwrap();
        });
        running.await.unwrap();
        let (thrower, at) = (world.clone(), path(&zone));
        let switch =
            tokio::spawn(async move { thrower.call("POST", &at, Some(json!({"subject_id": "user-1"}))).await.is(200) });
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert!(!switch.is_finished(), "it answers for what it has not seen");
        release.send(()).unwrap();
        holding.await.unwrap();
        assert_eq!(switch.await.unwrap()["authority_records"], 3);
        assert_eq!(world.record_state(&zone, "held").await, revoked("subject_revoked"));
    }
}

mod t04_state_archives {
    use super::*;

    #[tokio::test]
    async fn all_that_an_application_asked_for_ends_with_it() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/applications");
        let id = world.create(&path, managed("Bot")).await;
        world.stand_usual(&zone, "a", "user-1", &id).await;
        world.stand_usual(&zone, "b", "user-1", "another").await;
        let one = format!("{path}/{id}");
        world.call("DELETE", &one, None).await.is(204);
        assert_eq!(world.revoked(), usual_revocations("a", "application_archived"));
        assert_eq!(world.record_state(&zone, "b-user").await, active());
        assert_eq!(world.session_state(&zone, "b-root").await, active());
        assert_eq!(world.application_secret(&zone, &id).await, None);
        world.call("DELETE", &one, None).await.is_refused(404, "application_not_found");
        world.get(&one).await.is_refused(404, "application_not_found");
        world.create(&path, managed("bot")).await;
    }

    #[tokio::test]
    async fn what_was_lent_or_granted_for_a_resource_ends_with_it_and_nothing_else() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let provider = world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "p", "kind": "none"})).await;
        let path = format!("/v1/zones/{zone}/resources");
        let body = json!({"identifier": "resource://r", "scopes": ["read"], "upstream_url": "https://r.example",
            "credential_provider_id": provider});
        let id = world.create(&path, body).await;
        let mandate = |name: &str| caracal_store::records::RecordRow {
            use_class: "resource".to_owned(),
            ..world.record(&zone, name, "app-1")
        };
        let bound = caracal_store::delegations::EdgeRow {
            resource_id: Some(id.parse().unwrap()),
            broad_reason: None,
            ..world.edge(&zone, "bound", ("source", "target"))
        };
        world
            .stand(
                &zone,
                Standing {
                    records: vec![
                        mandate("for-it"),
                        mandate("for-another"),
                        world.record(&zone, "of-a-session", "app-1"),
                    ],
                    sessions: ["source", "target", "neighbour"]
                        .map(|name| world.session(&zone, name, "app-1", "of-a-session"))
                        .to_vec(),
                    edges: vec![bound, world.edge(&zone, "unbound", ("source", "neighbour"))],
                },
            )
            .await;
        world.granted(&zone, "for-it", "resource://r").await;
        world.granted(&zone, "of-a-session", "resource://r").await;
        world.granted(&zone, "for-another", "resource://s").await;
        world.call("DELETE", &format!("{path}/{id}"), None).await.is(204);
        let expected = [
            "agent_session_id target resource_archived",
            "delegation_edge_id bound resource_archived",
            "session_id for-it resource_archived",
        ];
        assert_eq!(world.revoked(), expected);
        assert_eq!(world.record_state(&zone, "of-a-session").await, active());
        assert_eq!(world.record_state(&zone, "for-another").await, active());
        assert_eq!(world.edge_state(&zone, "unbound").await, "active");
        world.call("DELETE", &format!("{path}/{id}"), None).await.is_refused(404, "resource_not_found");
    }

    #[tokio::test]
    async fn nothing_lives_on_in_an_archived_zone_and_its_tokens_are_nobodys() {
        let world = World::new().await;
        let (zone, other) = (world.zone("Ops").await, world.zone("Other").await);
        world.stand_usual(&zone, "a", "user-1", "app-1").await;
        world.stand_usual(&other, "b", "user-1", "app-1").await;
        let (own, foreign) = (world.mint("write", Some(&zone)).await, world.mint("read", Some(&other)).await);
        let path = format!("/v1/zones/{zone}");
        world.call_as(Some(&own), "DELETE", &path, None).await.is(204);
        let mut expected = usual_revocations("a", "zone_archived");
        expected.extend(
            ["agent_session_id a-other zone_archived", "session_id a-bystander zone_archived"].map(str::to_owned),
        );
        expected.sort();
        assert_eq!(world.revoked(), expected);
        world.call_as(Some(&own), "GET", &path, None).await.is_refused(401, "invalid_admin_token");
        world.call_as(Some(&foreign), "GET", &format!("/v1/zones/{other}"), None).await.is(200);
        assert_eq!(world.record_state(&other, "b-user").await, active());
        world.call("DELETE", &path, None).await.is_refused(404, "zone_not_found");
        world.get(&path).await.is_refused(404, "zone_not_found");
        // What happened there can still be read.
        let rows = world.get(&format!("{path}/admin-audit?method=DELETE")).await.is(200);
        let is_the_end = |row: &Value| row["status_code"] == 204 && row["action"] == format!("DELETE {path}");
        assert!(rows["items"].as_array().unwrap().iter().any(is_the_end));
    }

    #[tokio::test]
    async fn an_end_whose_record_can_t_be_written_ends_nothing() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let id = world.create(&format!("/v1/zones/{zone}/applications"), managed("Bot")).await;
        world.stand_usual(&zone, "a", "user-1", &id).await;
        world.outside("DROP TABLE admin_audit_events");
        for (method, path, body) in [
            ("DELETE", format!("/v1/zones/{zone}/applications/{id}"), None),
            ("DELETE", format!("/v1/zones/{zone}"), None),
            ("POST", format!("/v1/zones/{zone}/subjects/revoke"), Some(json!({"subject_id": "user-1"}))),
        ] {
            world.call(method, &path, body).await.is_refused(500, "audit_unavailable");
        }
        assert_eq!(world.record_state(&zone, "a-user").await, active());
        assert_eq!(world.session_state(&zone, "a-root").await, active());
        assert_eq!(world.revoked(), Vec::<String>::new());
        world.get(&format!("/v1/zones/{zone}/applications/{id}")).await.is(200);
    }

    #[tokio::test]
    async fn a_provider_goes_with_its_secrets() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/providers");
        let config = json!({"header_name": "X-Key", "api_key": "sk-1"});
        let id = world.create(&path, json!({"name": "p", "kind": "api_key", "config_json": config})).await;
        assert!(world.provider_secrets(&zone, &id).await.is_some());
        world.call("DELETE", &format!("{path}/{id}"), None).await.is(204);
        assert_eq!(world.provider_secrets(&zone, &id).await, None);
        world.call("DELETE", &format!("{path}/{id}"), None).await.is_refused(404, "provider_not_found");
        let archived = world.get(&format!("{path}?status=archived")).await.is(200);
        assert_eq!(archived["items"][0]["id"], *id);
    }
}

mod t12_foothold_archives {
    use super::*;

    #[tokio::test]
    async fn only_the_bootstrap_token_archives_what_is_reserved_and_nobody_the_control_resource() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let at = |kind: &str| format!("/v1/zones/{zone}/{kind}");
        let write = world.mint("write", None).await;
        let app = world.create(&at("applications"), managed("caracal.sys/operator")).await;
        let provider = json!({"identifier": "provider://caracal-sys-x", "kind": "none"});
        let provider = world.create(&at("providers"), provider).await;
        let resource = json!({"identifier": "caracal-sys://x", "scopes": ["a"], "upstream_url": "https://r.example",
            "credential_provider_id": provider});
        let resource = world.create(&at("resources"), resource).await;
        for path in [format!("applications/{app}"), format!("resources/{resource}"), format!("providers/{provider}")] {
            let path = at(&path);
            world.call_as(Some(&write), "DELETE", &path, None).await.is_refused(409, "reserved_namespace");
            world.call_as(Some(BOOTSTRAP), "DELETE", &path, None).await.is(204);
        }
        let control = json!({"identifier": "caracal-control", "scopes": ["control:app:read"]});
        let control = world.create(&at("resources"), control).await;
        let path = at(&format!("resources/{control}"));
        world.call("DELETE", &path, None).await.is_refused(409, "protected_resource");
    }
}

mod t04_state_rehearsals {
    use super::*;

    #[tokio::test]
    async fn a_rehearsal_says_what_would_end_and_ends_nothing() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let at = |path: &str| format!("/v1/zones/{zone}{path}?dry_run=true");
        let id = world.create(&format!("/v1/zones/{zone}/applications"), managed("Bot")).await;
        world.stand_usual(&zone, "a", "user-1", &id).await;
        let counts = json!({"revoked_authority_records": 2, "terminated_sessions": 2, "revoked_delegations": 1});
        for (method, path, body, status) in [
            ("DELETE", at(&format!("/applications/{id}")), None, 204),
            ("POST", at("/subjects/revoke"), Some(json!({"subject_id": "user-1"})), 200),
        ] {
            let told = world.call(method, &path, body).await.is(200);
            assert_eq!((&told["dry_run"], &told["would_answer"]), (&json!(true), &json!(status)), "{path}");
            for (name, count) in counts.as_object().unwrap() {
                assert_eq!(told[name], *count, "{path} {name}");
            }
        }
        let told = world.call("DELETE", &at(""), None).await.is(200);
        assert_eq!((&told["terminated_sessions"], &told["change_kind"]), (&json!(3), &json!("delete")));
        let made = world.call("POST", &at("/applications"), Some(managed("Other"))).await.is(200);
        let expected = json!({"dry_run": true, "would_answer": 201, "change_kind": "create",
            "changed_fields": ["name", "registration_method"]});
        assert_eq!(made, expected);
        // What would be refused is refused.
        world.call("POST", &at("/applications"), Some(managed("bot"))).await.is_refused(409, "application_name_taken");
        let odd = format!("/v1/zones/{zone}/applications?dry_run=maybe");
        world.call("POST", &odd, Some(managed("x"))).await.is_refused(400, "invalid_query");
        world.call("POST", &at("/provider-connections"), None).await.is_refused(400, "dry_run_unsupported");

        assert_eq!(world.record_state(&zone, "a-user").await, active());
        assert_eq!(world.session_state(&zone, "a-root").await, active());
        assert_eq!(world.revoked(), Vec::<String>::new());
        let listed = world.get(&format!("/v1/zones/{zone}/applications")).await.is(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        let successes = world.records(Some(&zone)).await.into_iter().filter(|row| row.status_code < 400);
        assert_eq!(successes.count(), 2);
    }
}
