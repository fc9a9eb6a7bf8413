//! Where secrets must not be (security property 8): evidence, refusals, logs, and the store's files.

use serde_json::json;

use crate::support::*;

mod t05_secrets_of_the_token_service {
    use super::*;

    #[tokio::test]
    async fn no_secret_and_no_bearer_shows_up_anywhere_but_in_the_answer_it_is_for() {
        let world = World::counting_derivations().await;
        let mut secrets = vec![SECRET.to_owned()];
        let mut refusals: Vec<Answer> = Vec::new();
        let mut keep = |answer: Answer, secrets: &mut Vec<String>| {
            if answer.status == 200 {
                // Its signature is what makes it a bearer; header and claims are no secret.
                secrets.push(answer.token().rsplit('.').next().unwrap().to_owned());
                answer.token().to_owned()
            } else {
                refusals.push(answer);
                String::new()
            }
        };
        for (kind, config, document, value) in [
            (
                "api_key",
                json!({"header_name": "X-Api-Key"}),
                json!({"api_key": "key-never-to-be-seen"}),
                "key-never-to-be-seen",
            ),
            ("bearer_token", json!({}), json!({"bearer_token": "bearer-never-to-be-seen"}), "bearer-never-to-be-seen"),
            (
                "http_basic",
                json!({"username": "u"}),
                json!({"password": "password-never-to-be-seen"}),
                "password-never-to-be-seen",
            ),
            // The directive of this one can't be made.
            (
                "api_key",
                json!({"auth_location": "cookie"}),
                json!({"api_key": "lost-never-to-be-seen"}),
                "lost-never-to-be-seen",
            ),
            (
                "api_key",
                json!({"header_name": "X"}),
                json!({"wrong_member": "odd-never-to-be-seen"}),
                "odd-never-to-be-seen",
            ),
        ] {
            world.provide(kind, config, Some(document)).await;
            secrets.push(value.to_owned());
            let mandate = keep(Ask::mint().send(&world).await, &mut secrets);
            keep(Signed::exchange(&world, &mandate).send(&world).await, &mut secrets);
            keep(Signed::exchange(&world, &mandate).send(&world).await, &mut secrets);
        }
        let session = keep(Ask::bootstrap().send(&world).await, &mut secrets);
        keep(Ask::direct(&session).send(&world).await, &mut secrets);
        keep(Ask::direct(&session).set("session_id", "rec-app").send(&world).await, &mut secrets);
        let forged = format!("{}.signature-never-to-be-seen", session.rsplit_once('.').unwrap().0);
        secrets.push("signature-never-to-be-seen".to_owned());
        keep(Ask::direct(&forged).send(&world).await, &mut secrets);
        for ask in [
            Ask::bootstrap().set("client_secret", "cs_guess-never-to-be-seen"),
            Ask::bootstrap().set("client_secret", "cs_guess-never-to-be-seen").set("resource", ""),
            Ask::bootstrap().set("client_secret", "cs_guess-never-to-be-seen").add("client_secret", "x"),
            Ask::bootstrap().set("application_id", "").set("client_secret", "cs_guess-never-to-be-seen"),
        ] {
            keep(ask.send(&world).await, &mut secrets);
        }
        secrets.push("cs_guess-never-to-be-seen".to_owned());
        world.tamper("UPDATE sealed_secrets SET envelope = x'00'");
        let mandate = keep(Ask::mint().send(&world).await, &mut secrets);
        keep(Signed::exchange(&world, &mandate).send(&world).await, &mut secrets);
        world.store.close().await;
        keep(Ask::bootstrap().send(&world).await, &mut secrets);
        assert!(refusals.len() >= 12 && secrets.len() >= 16, "{} refusals, {} secrets", refusals.len(), secrets.len());

        let mut places: Vec<(String, Vec<u8>)> = vec![("the log".to_owned(), logged().into_bytes())];
        for refusal in refusals {
            let text = format!("{:?} {}", refusal.headers, String::from_utf8_lossy(&refusal.body));
            places.push((format!("the answer {}", refusal.outcome()), text.into_bytes()));
        }
        // Evidence lies in the store, together with everything else that is kept.
        places.push(("the store".to_owned(), world.directory.everything_stored()));
        for (place, bytes) in places {
            for secret in &secrets {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} in {place}");
            }
        }
    }
}
