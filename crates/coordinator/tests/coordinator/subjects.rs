//! On whose authority a session is started (contract: coordinator.md W1, README D13).

mod t04_state_subject {
    use serde_json::{Value, json};

    use crate::support::{House, ISSUER};

    /// The mandate of a login, as federation mints it.
    fn login(house: &House) -> Value {
        json!({
            "iss": ISSUER, "sub": "user-1", "aud": [ISSUER], "iat": house.now(), "exp": house.now() + 900,
            "jti": "jti-u", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-user", "root_sid": "rec-user",
            "use": "session", "sub_type": "user",
        })
    }

    async fn house() -> House {
        let house = House::open().await;
        house.add_record("rec-user", "user", "user-1", "app-1").await;
        house.add_record("rec-other", "user", "user-2", "app-1").await;
        house
    }

    async fn check(house: &House, anchor: &str, proof: Option<&Value>) -> (u16, String) {
        let token = house.mandate("app-1").await;
        let mut body = json!({"application_id": "app-1", "subject_session_id": anchor});
        if let Some(proof) = proof {
            body["subject_token"] = json!(house.sign(proof).await);
        }
        let reply = house.start(&token, body).await;
        (reply.status.as_u16(), reply.code().to_owned())
    }

    #[tokio::test]
    async fn a_session_for_a_user_needs_the_mandate_of_that_users_login() {
        let house = house().await;
        let invalid = (401, "invalid_subject_proof".to_owned());
        assert_eq!(check(&house, "rec-user", None).await, invalid);
        let login = login(&house);
        assert_eq!(check(&house, "rec-user", Some(&login)).await.0, 201);
        assert_eq!(check(&house, "rec-other", Some(&login)).await, invalid);
        let with = |name: &str, value: Value| {
            let mut claims = login.clone();
            claims[name] = value;
            claims
        };
        for wrong in [
            with("root_sid", json!("rec-other")),
            with("sid", json!("rec-other")),
            with("use", json!("gateway")),
            with("sub_type", json!("application")),
            with("scope", json!("agent:lifecycle")),
            with("target", json!(["resource://docs"])),
            with("delegation_path", json!(["e-1"])),
            with("agent_session_id", json!("s-1")),
            with("delegation_edge_id", json!("e-1")),
            with("jti", Value::Null),
            with("iat", Value::Null),
            with("exp", json!(house.now() - 60)),
            with("aud", json!(["resource://docs"])),
            with("zone_id", json!("z-2")),
        ] {
            assert_eq!(check(&house, "rec-user", Some(&wrong)).await, invalid, "{wrong}");
        }
        let foreign = with("client_id", json!("app-2"));
        let mismatch = (403, "subject_proof_application_mismatch".to_owned());
        assert_eq!(check(&house, "rec-user", Some(&foreign)).await, mismatch);
        let token = house.mandate("app-1").await;
        for garbage in ["", "x", &"x".repeat(5_000)] {
            let body = json!({
                "application_id": "app-1", "subject_session_id": "rec-user", "subject_token": garbage,
            });
            house.start(&token, body).await.refused(401, "invalid_subject_proof");
        }
        assert_eq!(house.holding().await, 1);
    }

    #[tokio::test]
    async fn another_applications_record_does_not_exist_for_the_caller() {
        let house = house().await;
        assert_eq!(check(&house, "rec-2", None).await, (404, "session_not_found".to_owned()));
        house.add_record("rec-1b", "application", "app-1", "app-1").await;
        assert_eq!(check(&house, "rec-1b", None).await.0, 201);
    }

    #[tokio::test]
    async fn a_record_that_is_revoked_or_expired_anchors_nothing_whatever_is_proven() {
        let house = house().await;
        house.revoke_record("rec-user").await;
        let login = login(&house);
        assert_eq!(check(&house, "rec-user", Some(&login)).await, (404, "session_not_found".to_owned()));
    }

    #[tokio::test]
    async fn a_child_may_inherit_the_user_its_parent_acts_for() {
        let house = house().await;
        let token = house.mandate("app-1").await;
        let proof = house.sign(&login(&house)).await;
        let body = json!({"application_id": "app-1", "subject_session_id": "rec-user", "subject_token": proof});
        let parent = house.start(&token, body).await.expect(201).text("agent_session_id");
        let child = |anchor: &str, parent: &str| json!({"application_id": "app-1", "subject_session_id": anchor, "parent_id": parent});
        let reply = house.start(&token, child("rec-user", &parent)).await.expect(201);
        assert_eq!(reply.body["subject_authority_record_id"], "rec-user");
        house.start(&token, child("rec-other", &parent)).await.refused(401, "invalid_subject_proof");
        let unrelated = house.task().await;
        house.start(&token, child("rec-user", &unrelated)).await.refused(401, "invalid_subject_proof");
        house.terminate(&token, &parent).await.expect(204);
        house.start(&token, child("rec-user", &parent)).await.refused(404, "session_not_found");
    }
}
