//! Keys and secrets in a real store, against whoever can write to its file, and tokens against whoever can write text.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;

use caracal_authority::{ProviderId, ZoneId};
use caracal_crypto::encoding::{base64url, hex};
use caracal_crypto::envelope::{Kek, KekRing, OpenError};
use caracal_crypto::jws::SigningKey;
use caracal_custody::mandate::{self, SignedClaims, VerifyError};
use caracal_custody::{
    CustodyError, LogKeys, SealedSecrets, SigningKeys, application_secret_ref, kek, provider_secret_ref,
};
use caracal_store::{
    SqliteOptions, Store, StoreError, SystemClock, conformance, deployment, sealed_secrets, signing_keys,
};
use serde_json::{Value, json};

const KEK: &str = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
const OTHER_KEK: &str = "9f3a4c1d22e07b58a1c6d4e8f70b39255d1e8a6c47f2903b6ae1d5c8047b92f6";

fn ring(current: &str, previous: Option<&str>) -> Arc<KekRing> {
    let kek = |text| Kek::from_hex(text).unwrap();
    Arc::new(KekRing::new(kek(current), previous.map(kek)))
}

fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

/// A store that can be closed, written to behind its back, and opened again.
struct Place(caracal_testkit::Place);

impl Place {
    fn new() -> Self {
        Self(caracal_testkit::Place::new())
    }

    async fn open(&self) -> Store {
        conformance::open(self.0.path(), self.0.database_url().as_deref(), Arc::new(SystemClock)).await
    }

    /// Closes `store`, does `sql` to what it has written, and opens it again.
    async fn tampered(&self, store: Store, sql: &str) -> Store {
        store.close().await;
        drop(store);
        match self.0.database() {
            Some(database) => drop(database.run(sql).unwrap()),
            None => {
                let file = SqliteOptions::in_directory(self.0.path()).database();
                rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
            }
        }
        self.open().await
    }
}

fn keys(store: &Store) -> SigningKeys {
    SigningKeys::new(store.clone(), ring(KEK, None))
}

async fn signing_key(store: &Store, keys: &SigningKeys, zone: &ZoneId) -> Result<Option<String>, CustodyError> {
    let mut snapshot = store.snapshot().await.unwrap();
    let key = keys.signing_key(&mut snapshot.zone(zone)).await?;
    Ok(key.map(|key| key.kid().as_str().to_owned()))
}

mod t02_sts_keys {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn twenty_racing_creators_make_one_key() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        // Half of them share what they remember, half remember nothing.
        let shared = Arc::new(keys(&store));
        let creators = (0..20).map(|number| {
            let keys = if number % 2 == 0 { shared.clone() } else { Arc::new(keys(&store)) };
            let z = z.clone();
            tokio::spawn(async move {
                let key = keys.create(&z).await.unwrap();
                let token = key.sign(&json!({"zone_id": "z-1"})).unwrap();
                (key.kid().as_str().to_owned(), token)
            })
        });
        let mut made = Vec::new();
        for creator in creators.collect::<Vec<_>>() {
            made.push(creator.await.unwrap());
        }
        let kid = &made[0].0;
        assert!(made.iter().all(|(other, _)| other == kid), "{made:?}");
        let mut snapshot = store.snapshot().await.unwrap();
        assert_eq!(signing_keys::list(&mut snapshot.zone(&z)).await.unwrap().len(), 1);
        for (_, token) in &made {
            mandate::verify(&keys(&store), token).await.unwrap();
        }
        assert_eq!(signing_key(&store, &shared, &z).await.unwrap().as_ref(), Some(kid));
        assert_eq!(signing_key(&store, &shared, &zone("z-2")).await.unwrap(), None);
        assert!(shared.jwks(&zone("z-2")).await.unwrap().is_none());
        let published = serde_json::to_value(shared.jwks(&z).await.unwrap().unwrap()).unwrap();
        assert_eq!(published["keys"].as_array().unwrap().len(), 1);
        assert_eq!(published["keys"][0]["kid"], json!(kid));
        assert!(published["keys"][0].get("d").is_none(), "a private half was published");
    }

    #[tokio::test]
    async fn keys_survive_a_restart() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        let made = keys(&store).create(&z).await.unwrap();
        let token = made.sign(&json!({"zone_id": "z-1", "n": 1})).unwrap();
        let published = serde_json::to_value(keys(&store).jwks(&z).await.unwrap().unwrap()).unwrap();
        let store = place.tampered(store, "").await;
        let reopened = keys(&store);
        assert_eq!(signing_key(&store, &reopened, &z).await.unwrap().as_deref(), Some(made.kid().as_str()));
        assert_eq!(mandate::verify(&reopened, &token).await.unwrap().raw()["n"], json!(1));
        assert_eq!(serde_json::to_value(reopened.jwks(&z).await.unwrap().unwrap()).unwrap(), published);
        let mut snapshot = store.snapshot().await.unwrap();
        let key = reopened.signing_key(&mut snapshot.zone(&z)).await.unwrap().unwrap();
        mandate::verify(&reopened, &key.sign(&json!({"zone_id": "z-1"})).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_key_sealed_for_one_zone_does_not_open_in_another() {
        let place = Place::new();
        let store = place.open().await;
        let original = keys(&store).create(&zone("z-1")).await.unwrap();
        let sql = "INSERT INTO signing_keys SELECT 'z-2', kid, version, public_x, public_y, sealed_private, created_at, signs_from FROM signing_keys";
        let store = place.tampered(store, sql).await;
        let moved = signing_key(&store, &keys(&store), &zone("z-2")).await;
        assert!(matches!(moved, Err(CustodyError::Sealed { .. })));
        // Nor is it trusted there: what zone 1 signed in zone 2's name does not verify.
        let token = original.sign(&json!({"zone_id": "z-2"})).unwrap();
        assert!(matches!(mandate::verify(&keys(&store), &token).await, Err(VerifyError::Unavailable(_))));
    }

    /// By someone who can write to the store and hopes that verifiers will trust their key.
    #[tokio::test]
    async fn an_exchanged_public_half_is_refused_by_signer_and_verifier() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        let kid = keys(&store).create(&z).await.unwrap().kid().as_str().to_owned();
        let (theirs, _) = SigningKey::generate().unwrap();
        let (x, y) = theirs.public().coordinates();
        let sql = format!("UPDATE signing_keys SET public_x = '{}', public_y = '{}'", base64url(x), base64url(y));
        let store = place.tampered(store, &sql).await;
        let reopened = keys(&store);
        assert!(matches!(signing_key(&store, &reopened, &z).await, Err(CustodyError::Foreign { .. })));
        let forged = theirs.sign(&kid, &json!({"zone_id": "z-1"})).unwrap();
        assert!(matches!(mandate::verify(&reopened, &forged).await, Err(VerifyError::Unavailable(_))));
        let published = serde_json::to_value(reopened.jwks(&z).await.unwrap().unwrap()).unwrap();
        assert_eq!(published["keys"], json!([]), "nor is it given to those who can't look");
    }

    #[tokio::test]
    async fn one_damaged_key_does_not_take_the_others_with_it() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        let good = keys(&store).create(&z).await.unwrap();
        for (kid, x) in [("not-base64", "!"), ("short", "AAAA"), ("off-the-curve", &"A".repeat(43))] {
            let row = signing_keys::SigningKeyRow {
                zone_id: z.clone(),
                kid: kid.parse().unwrap(),
                version: 10 + i64::try_from(kid.len()).unwrap(),
                public_x: x.to_owned(),
                public_y: x.to_owned(),
                sealed_private: vec![1, 2, 3],
                created_at: store.now(),
                signs_from: store.now(),
            };
            let added: Result<(), StoreError> =
                store.commit(&z, row, |tx, row| Box::pin(async move { signing_keys::add(tx, row).await })).await;
            added.unwrap();
        }
        let published = serde_json::to_value(keys(&store).jwks(&z).await.unwrap().unwrap()).unwrap();
        let kids: Vec<_> = published["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
        assert_eq!(kids, [json!(good.kid().as_str())]);
        // The newest one signs, and it is a damaged one: nothing signs in its place.
        assert!(signing_key(&store, &keys(&store), &z).await.is_err());
    }
}

mod t05_secrets {
    use super::*;

    #[tokio::test]
    async fn a_wrong_key_encryption_key_is_refused_at_the_start_and_changes_nothing() {
        let place = Place::new();
        let store = place.open().await;
        let right = ring(KEK, None);
        kek::check(&store, &right).await.unwrap();
        kek::check(&store, &right).await.unwrap();
        store.close().await;
        drop(store);
        let before = place.0.everything_stored();
        let store = place.open().await;
        let refused = kek::check(&store, &ring(OTHER_KEK, None)).await.unwrap_err();
        let CustodyError::Sealed { reason, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*reason, OpenError::UnknownKek);
        let told = refused.to_string();
        assert!(told.contains("kekCheck") && told.contains("different KEK"), "{told}");
        assert!(!told.contains(KEK) && !told.contains(OTHER_KEK), "{told}");
        let (commits, changes) = (store.commits(), store.changes());
        assert_eq!((commits, changes), (0, 0));
        store.close().await;
        drop(store);
        assert!(place.0.everything_stored() == before, "the store was changed");
        // The right one is still right, also as the previous one of a rotation.
        let store = place.open().await;
        kek::check(&store, &ring(OTHER_KEK, Some(KEK))).await.unwrap();
        kek::check(&store, &right).await.unwrap();
        store.close().await;
    }

    #[tokio::test]
    async fn a_damaged_check_is_no_consent() {
        let place = Place::new();
        let store = place.open().await;
        let right = ring(KEK, None);
        let elsewhere = base64url(&right.seal("caracal/elsewhere", b"caracal").unwrap());
        let other_text = base64url(&right.seal("caracal/deployment/kekCheck", b"lynx").unwrap());
        for value in ["", "!", "AAAA", &elsewhere, &other_text] {
            let put: Result<(), StoreError> = store
                .commit_deployment(value.to_owned(), |tx, value| {
                    Box::pin(async move { deployment::put(tx, "kek_check", value).await })
                })
                .await;
            put.unwrap();
            assert!(kek::check(&store, &right).await.is_err(), "{value:?}");
            let mut snapshot = store.snapshot().await.unwrap();
            let kept = deployment::lookup(&mut snapshot.deployment(), "kek_check").await.unwrap();
            assert_eq!(kept.as_deref(), Some(value), "it was replaced");
        }
    }

    async fn put(store: &Store, zone: &ZoneId, reference: &str, plaintext: &'static [u8]) {
        let secrets = SealedSecrets::new(ring(KEK, None));
        let done: Result<(), CustodyError> = store
            .commit(zone, (secrets, reference.to_owned()), move |tx, (secrets, reference)| {
                Box::pin(async move { secrets.put(tx, reference, plaintext).await })
            })
            .await;
        done.unwrap();
    }

    async fn open(store: &Store, zone: &ZoneId, reference: &str) -> Result<Option<Vec<u8>>, CustodyError> {
        let mut snapshot = store.snapshot().await.unwrap();
        let opened = SealedSecrets::new(ring(KEK, None)).open(&mut snapshot.zone(zone), reference).await?;
        Ok(opened.map(|secret| secret.expose().clone()))
    }

    #[tokio::test]
    async fn a_sealed_secret_opens_where_it_was_sealed_and_nowhere_else() {
        let place = Place::new();
        let store = place.open().await;
        let (z1, z2) = (zone("z-1"), zone("z-2"));
        let provider: ProviderId = "p-1".parse().unwrap();
        let here = provider_secret_ref(&z1, &provider);
        assert_eq!(here, "zones/z-1/providers/p-1/secretConfig");
        assert_eq!(application_secret_ref(&z1, &"a-1".parse().unwrap()), "zones/z-1/applications/a-1/clientSecret");
        put(&store, &z1, &here, b"{\"api_key\":\"sk-very-secret\"}").await;
        assert_eq!(open(&store, &z1, &here).await.unwrap().unwrap(), b"{\"api_key\":\"sk-very-secret\"}");
        assert_eq!(open(&store, &z1, "zones/z-1/providers/p-2/secretConfig").await.unwrap(), None);
        assert_eq!(open(&store, &z2, &here).await.unwrap(), None);

        let there = provider_secret_ref(&z2, &provider);
        let store = place
            .tampered(
                store,
                &format!(
                    "INSERT INTO sealed_secrets SELECT 'z-1', 'zones/z-1/providers/p-2/secretConfig', envelope, 0 FROM sealed_secrets;
                     INSERT INTO sealed_secrets SELECT 'z-2', '{there}', envelope, 0 FROM sealed_secrets LIMIT 1;"
                ),
            )
            .await;
        for (zone, moved) in [(&z1, "zones/z-1/providers/p-2/secretConfig"), (&z2, there.as_str())] {
            let refused = open(&store, zone, moved).await;
            assert!(matches!(refused, Err(CustodyError::Sealed { .. })), "{moved}");
        }
        assert!(open(&store, &z1, &here).await.unwrap().is_some(), "the original still opens");
        let removed: Result<(), CustodyError> = store
            .commit(&z1, here.clone(), |tx, here| {
                Box::pin(async move { SealedSecrets::new(ring(KEK, None)).remove(tx, here).await })
            })
            .await;
        removed.unwrap();
        assert_eq!(open(&store, &z1, &here).await.unwrap(), None);
    }

    #[tokio::test]
    async fn every_changed_byte_of_an_envelope_keeps_it_shut() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        put(&store, &z, "ref", b"secret").await;
        let mut snapshot = store.snapshot().await.unwrap();
        let envelope = sealed_secrets::lookup(&mut snapshot.zone(&z), "ref").await.unwrap().unwrap();
        drop(snapshot);
        for at in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[at] ^= 1;
            let put: Result<(), StoreError> = store
                .commit(&z, changed, |tx, changed| {
                    Box::pin(async move { sealed_secrets::put(tx, "ref", changed).await })
                })
                .await;
            put.unwrap();
            assert!(matches!(open(&store, &z, "ref").await, Err(CustodyError::Sealed { .. })), "byte {at}");
        }
    }

    #[tokio::test]
    async fn neither_secrets_nor_private_keys_lie_in_the_files() {
        let place = Place::new();
        let store = place.open().await;
        let z = zone("z-1");
        put(&store, &z, "ref", b"sk-very-secret-0123456789").await;
        keys(&store).create(&z).await.unwrap();
        let pkcs8_of_p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let visible = |needle: &[u8]| {
            let stored = place.0.everything_stored();
            // A dump of a database writes bytes in hex.
            let hex = hex(needle);
            [needle, hex.as_bytes()].iter().any(|needle| stored.windows(needle.len()).any(|window| window == *needle))
        };
        let (_, pkcs8) = SigningKey::generate().unwrap();
        assert!(pkcs8.expose().windows(pkcs8_of_p256.len()).any(|window| window == pkcs8_of_p256));
        assert!(visible(b"z-1"), "the search would find it");
        assert!(!visible(b"sk-very-secret"));
        assert!(!visible(&pkcs8_of_p256), "the curve's name stands in every private key in clear");
        store.close().await;
        assert!(!visible(b"sk-very-secret") && !visible(&pkcs8_of_p256));
    }
}

mod t16_verify {
    use super::*;

    /// Two zones with a key each.
    async fn two_zones() -> (Place, Store, SigningKeys) {
        let place = Place::new();
        let store = place.open().await;
        let keys = keys(&store);
        for name in ["z-1", "z-2"] {
            keys.create(&zone(name)).await.unwrap();
        }
        (place, store, keys)
    }

    async fn kid(store: &Store, keys: &SigningKeys, name: &str) -> String {
        signing_key(store, keys, &zone(name)).await.unwrap().unwrap()
    }

    fn token(header: &Value, claims: &Value, signature: &[u8]) -> String {
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        format!("{}.{}.{}", part(header), part(claims), base64url(signature))
    }

    fn outcome(result: Result<SignedClaims, VerifyError>) -> &'static str {
        match result {
            Ok(_) => "verified",
            Err(VerifyError::Malformed) => "malformed",
            Err(VerifyError::UnknownKey) => "unknown key",
            Err(VerifyError::BadSignature) => "bad signature",
            Err(VerifyError::Unavailable(_)) => "unavailable",
        }
    }

    #[tokio::test]
    async fn a_token_is_tried_against_the_keys_of_the_zone_it_names_alone() {
        let (_place, store, keys) = two_zones().await;
        let mut snapshot = store.snapshot().await.unwrap();
        let key = keys.signing_key(&mut snapshot.zone(&zone("z-2"))).await.unwrap().unwrap();
        let own = key.sign(&json!({"zone_id": "z-2"})).unwrap();
        let signed = mandate::verify(&keys, &own).await.unwrap();
        assert_eq!(signed.zone(), &zone("z-2"));
        // Signed by zone 2 in the name of zone 1, under its own kid.
        let foreign = key.sign(&json!({"zone_id": "z-1"})).unwrap();
        assert_eq!(outcome(mandate::verify(&keys, &foreign).await), "unknown key");
        // The same under the kid of zone 1: the key is found, and did not sign this.
        let first = kid(&store, &keys, "z-1").await;
        let signature = own.rsplit('.').next().unwrap();
        let header = base64url(json!({"alg": "ES256", "kid": first, "typ": "JWT"}).to_string().as_bytes());
        let forged = format!("{header}.{}.{signature}", base64url(br#"{"zone_id":"z-1"}"#));
        assert_eq!(outcome(mandate::verify(&keys, &forged).await), "bad signature");
        assert_eq!(
            outcome(mandate::verify(&keys, &key.sign(&json!({"zone_id": "z-3"})).unwrap()).await),
            "unknown key"
        );
    }

    #[tokio::test]
    async fn only_the_one_algorithm_with_a_known_key_is_looked_at() {
        let (_place, store, keys) = two_zones().await;
        let kid = kid(&store, &keys, "z-1").await;
        let claims = json!({"zone_id": "z-1"});
        for (header, expected) in [
            (json!({"alg": "none", "kid": kid}), "unknown key"),
            (json!({"alg": "None", "kid": kid}), "unknown key"),
            (json!({"alg": "", "kid": kid}), "unknown key"),
            (json!({"kid": kid}), "unknown key"),
            (json!({"alg": 256, "kid": kid}), "unknown key"),
            (json!({"alg": ["ES256"], "kid": kid}), "unknown key"),
            (json!({"alg": "HS256", "kid": kid}), "unknown key"),
            (json!({"alg": "RS256", "kid": kid}), "unknown key"),
            (json!({"alg": "ES384", "kid": kid}), "unknown key"),
            (json!({"alg": "es256", "kid": kid}), "unknown key"),
            (json!({"alg": "ES256"}), "unknown key"),
            (json!({"alg": "ES256", "kid": ""}), "unknown key"),
            (json!({"alg": "ES256", "kid": 1}), "unknown key"),
            (json!({"alg": "ES256", "kid": null}), "unknown key"),
            (json!({"alg": "ES256", "kid": "unknown"}), "unknown key"),
            (json!({"alg": "ES256", "kid": "' OR 1 --"}), "unknown key"),
            (json!({"alg": "ES256", "kid": kid}), "bad signature"),
        ] {
            for signature in [&b""[..], &[0; 64], &[1; 32]] {
                let token = token(&header, &claims, signature);
                assert_eq!(outcome(mandate::verify(&keys, &token).await), expected, "{header} {}", signature.len());
            }
        }
    }

    #[tokio::test]
    async fn what_names_no_zone_or_is_no_token_is_malformed() {
        let (_place, store, keys) = two_zones().await;
        let kid = kid(&store, &keys, "z-1").await;
        let header = json!({"alg": "ES256", "kid": kid});
        for claims in [
            json!({}),
            json!({"zone_id": null}),
            json!({"zone_id": 1}),
            json!({"zone_id": ["z-1"]}),
            json!({"zone_id": ""}),
            json!({"zone_id": "z 1"}),
            json!({"zone_id": "x".repeat(129)}),
            json!([{"zone_id": "z-1"}]),
            json!("z-1"),
        ] {
            let token = token(&header, &claims, &[0; 64]);
            assert_eq!(outcome(mandate::verify(&keys, &token).await), "malformed", "{claims}");
        }
        let good = token(&header, &json!({"zone_id": "z-1"}), &[0; 64]);
        let twice = base64url(br#"{"zone_id":"z-2","zone_id":"z-1"}"#);
        let parts: Vec<&str> = good.split('.').collect();
        for text in [
            String::new(),
            "a".to_owned(),
            "..".to_owned(),
            parts[0].to_owned(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{good}.x"),
            format!(".{good}"),
            format!("{}.{twice}.{}", parts[0], parts[2]),
            format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
            format!(" {good}"),
        ] {
            assert_eq!(outcome(mandate::verify(&keys, &text).await), "malformed", "{text}");
        }
    }

    #[tokio::test]
    async fn every_changed_character_of_a_token_is_noticed() {
        let (_place, store, keys) = two_zones().await;
        let mut snapshot = store.snapshot().await.unwrap();
        let key = keys.signing_key(&mut snapshot.zone(&zone("z-1"))).await.unwrap().unwrap();
        drop(snapshot);
        let token = key.sign(&json!({"zone_id": "z-1", "sub": "application"})).unwrap();
        mandate::verify(&keys, &token).await.unwrap();
        for (at, character) in token.char_indices() {
            let other = if character == 'A' { 'B' } else { 'A' };
            let mut changed = token.clone();
            changed.replace_range(at..=at, &other.to_string());
            assert_ne!(outcome(mandate::verify(&keys, &changed).await), "verified", "character {at}");
        }
        for end in 0..token.len() {
            assert_ne!(outcome(mandate::verify(&keys, &token[..end]).await), "verified", "cut at {end}");
        }
    }

    #[tokio::test]
    async fn a_store_that_cannot_answer_is_not_a_bad_token() {
        let (_place, store, keys) = two_zones().await;
        let mut snapshot = store.snapshot().await.unwrap();
        let key = keys.signing_key(&mut snapshot.zone(&zone("z-1"))).await.unwrap().unwrap();
        drop(snapshot);
        let token = key.sign(&json!({"zone_id": "z-1"})).unwrap();
        store.close().await;
        assert_eq!(outcome(mandate::verify(&keys, &token).await), "unavailable");
    }
}

mod t06_log_keys {
    use super::*;

    fn log_keys(store: &Store, kek: &str) -> LogKeys {
        let names = |zone: &ZoneId, public: &[u8; 32]| (hex(&public[..4]), format!("{zone}+{}", hex(public)));
        LogKeys::new(store.clone(), ring(kek, None), names)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_has_one_log_key_whoever_asks_for_it_first() {
        let place = Place::new();
        let store = place.open().await;
        let asking = (0..10).map(|_| {
            let keys = log_keys(&store, KEK);
            tokio::spawn(async move { keys.key(&zone("z-1")).await.unwrap().public() })
        });
        let mut keys = Vec::new();
        for asked in asking.collect::<Vec<_>>() {
            keys.push(asked.await.unwrap());
        }
        keys.dedup();
        assert_eq!(keys.len(), 1);
        assert_ne!(log_keys(&store, KEK).key(&zone("z-2")).await.unwrap().public(), keys[0]);
        let other = log_keys(&store, OTHER_KEK).key(&zone("z-1")).await;
        assert!(matches!(other, Err(CustodyError::Sealed { reason: OpenError::UnknownKek, .. })));
    }

    #[tokio::test]
    async fn a_log_key_signs_only_where_it_was_made_and_as_what_it_says() {
        for sql in [
            // That of another zone, with all its columns.
            "DELETE FROM ledger_log_keys WHERE zone_id = 'z-1';
             UPDATE ledger_log_keys SET zone_id = 'z-1' WHERE zone_id = 'z-2'",
            // Its public half given out as another's.
            "UPDATE ledger_log_keys SET verifier_key = 'z-1+00' WHERE zone_id = 'z-1'",
        ] {
            let place = Place::new();
            let store = place.open().await;
            for name in ["z-1", "z-2"] {
                log_keys(&store, KEK).key(&zone(name)).await.unwrap();
            }
            let store = place.tampered(store, sql).await;
            let opened = log_keys(&store, KEK).key(&zone("z-1")).await;
            let is_refused = matches!(opened, Err(CustodyError::Sealed { .. } | CustodyError::Foreign { .. }));
            assert!(is_refused, "{sql}");
            store.close().await;
        }
    }
}
