//! Tokens made to confuse, at every door that takes one: a client's exchange, a Gateway's, a relayed id_token, a decision
//! on an approval (contract: sts.md §3.7 step 5, §4, §7.7; security properties 2, 12; assurance T02).
//!
//! What the parser refuses by itself is shown in `caracal_crypto`. Here it is shown that nothing on the way to it, and no
//! branch beside it, believes what it would refuse: each token ends in the typed refusal, in time, and leaves no record.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use caracal_crypto::encoding::{base64url, from_base64url};
use serde_json::{Value, json};

use crate::support::*;

/// Nothing of a token of 64 KiB takes so long, also on a machine that is busy.
const IN_TIME: Duration = Duration::from_secs(5);

struct Scene {
    world: World,
    approval: String,
    saying: Value,
    session: Value,
    gateway: Value,
    /// Tokens refused so far: each comes from an address of its own, for too many from one are refused unseen.
    refused: AtomicU16,
}

impl Scene {
    async fn new() -> Self {
        let world = World::held_by("any").await;
        let hold = world.hold().await;
        let approval = hold["approval_id"].as_str().unwrap().to_owned();
        let saying = json!({"decision": "approved", "binding": hold["binding"]});
        let session = claims_of(&world.sign_in("user-1", "rec-u").await.mandate);
        world.activate(POLICY).await;
        let gateway = claims_of(&world.mandate().await);
        Self { world, approval, saying, session, gateway, refused: AtomicU16::new(0) }
    }

    /// Signed by the zone's key, as it stands.
    async fn signed(&self, payload: &str) -> String {
        let mut snapshot = self.world.store.snapshot().await.unwrap();
        let key = self.world.keys.signing_key(&mut snapshot.zone(&zone())).await.unwrap().unwrap();
        key.sign_payload(payload.as_bytes().to_vec()).unwrap()
    }

    /// Every door refuses the token, each in its own way, and nothing is minted or decided.
    async fn refuses(&self, what: &str, token: &str) {
        let Self { world, approval, .. } = self;
        let records = world.record_ids().len();
        let doors = async {
            let direct = Ask::direct(token).send(world).await;
            assert_eq!(direct.outcome(), "401 invalid_token", "{what}: a client's");
            assert_eq!(world.last_event().await.outcome(), "deny subject_token_invalid", "{what}: a client's");
            let gateway = Signed::exchange(world, token).send(world).await;
            assert_eq!(gateway.outcome(), "401 invalid_token", "{what}: a Gateway's");
            let [high, low] = self.refused.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let relayed = Ask::relay(token).from(&format!("10.0.{high}.{low}:1")).send(world).await;
            assert_eq!(relayed.outcome(), "401 invalid_token", "{what}: an id_token");
            if http::HeaderValue::from_str(token).is_ok() {
                let said = world.say(token, approval, &self.saying).await;
                assert_eq!(said.outcome(), "401 invalid_token", "{what}: a decision");
            }
        };
        assert!(tokio::time::timeout(IN_TIME, doors).await.is_ok(), "{what}: not in time");
        assert_eq!(world.record_ids().len(), records, "{what}");
        assert_eq!(world.state_of(approval).await, "pending", "{what}");
    }
}

/// Header, payload and signature as they stand.
fn put_together(header: &str, payload: &str, signature: &[u8]) -> String {
    format!("{}.{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()), base64url(signature))
}

fn header_of(token: &str) -> Value {
    serde_json::from_slice(&from_base64url(token.split('.').next().unwrap()).unwrap()).unwrap()
}

mod t02_sts_hostile_tokens {
    use super::*;

    /// The control: with nothing wrong, each door takes what it is for.
    #[tokio::test]
    async fn tokens_with_nothing_wrong_are_taken_where_they_belong() {
        let scene = Scene::new().await;
        let world = &scene.world;
        let session = scene.signed(&scene.session.to_string()).await;
        assert_eq!(Ask::direct(&session).send(world).await.outcome(), "403 access_denied");
        assert_ne!(world.last_event().await.outcome(), "deny subject_token_invalid");
        let gateway = scene.signed(&scene.gateway.to_string()).await;
        assert_eq!(Signed::exchange(world, &gateway).send(world).await.status, 200);
        assert_eq!(world.say(&session, &scene.approval, &scene.saying).await.status, 200);
    }

    /// Whoever reads the first and whoever reads the last of two members see two tokens.
    #[tokio::test]
    async fn a_member_that_is_there_twice_is_refused_however_it_is_spelt() {
        let scene = Scene::new().await;
        for claims in [&scene.session, &scene.gateway] {
            let text = claims.to_string();
            for (name, value) in [
                ("use", json!("gateway")),
                ("use", json!("session")),
                ("sub", json!("admin")),
                ("zone_id", json!(ZONE)),
                ("zone_id", json!(OTHER_ZONE)),
                ("client_id", json!("app-notes")),
                ("sid", json!("rec-app")),
                ("exp", json!(START + 900_000)),
                ("aud", json!([ISSUER])),
                ("scope", json!("docs:write")),
                ("jti", json!("another")),
            ] {
                if name == "scope" && claims.get("scope").is_none() {
                    continue;
                }
                let escaped = format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]);
                for twice in [
                    text.replacen('{', &format!("{{\"{name}\":{value},"), 1),
                    format!("{},\"{name}\":{value}}}", &text[..text.len() - 1]),
                    format!("{},\"{escaped}\":{value}}}", &text[..text.len() - 1]),
                ] {
                    scene.refuses(name, &scene.signed(&twice).await).await;
                }
            }
        }
        // Within a member that nobody reads, too: two readers would keep two tokens.
        let text = scene.session.to_string();
        let inside = text.replacen('{', r#"{"more":{"a":1,"a":2},"#, 1);
        scene.refuses("inside", &scene.signed(&inside).await).await;
        // And in the header, which is not what the key signed, but comes first.
        let token = scene.signed(&text).await;
        let header = header_of(&token).to_string();
        for (what, header) in [
            ("alg twice", header.replacen('{', r#"{"alg":"none","#, 1)),
            ("kid twice", header.replacen('{', r#"{"kid":"x","#, 1)),
        ] {
            scene.refuses(what, &put_together(&header, &text, &[7; 64])).await;
        }
    }

    /// The parser hands its own types through as objects with such a member: to whoever reads the claims once more, from
    /// evidence or as a question to policy, the text behind it would be JSON.
    #[tokio::test]
    async fn a_member_with_a_name_of_the_parser_s_own_is_refused() {
        let scene = Scene::new().await;
        let text = scene.session.to_string();
        for member in [
            r#""$serde_json::private::RawValue":"{}","#,
            r#""act":{"$serde_json::private::RawValue":"{\"sub\":\"admin\"}"},"#,
            r#""act":[[{"$serde_json::private::Number":"1"}]],"#,
            r#""act":{"\u0024serde_json::private::RawValue":"1"},"#,
        ] {
            let payload = text.replacen('{', &format!("{{{member}"), 1);
            scene.refuses(member, &scene.signed(&payload).await).await;
        }
        let token = scene.signed(&text).await;
        let header = header_of(&token).to_string().replacen('{', r#"{"x":{"$serde_json::private::RawValue":"1"},"#, 1);
        scene.refuses("in the header", &put_together(&header, &text, &[7; 64])).await;
        // The name alone is nobody's, and a text may say it.
        let said = text.replacen('{', r#"{"act":"$serde_json::private::RawValue","#, 1);
        assert_eq!(Ask::direct(&scene.signed(&said).await).send(&scene.world).await.outcome(), "403 access_denied");
    }

    #[tokio::test]
    async fn a_claim_that_nests_deep_ends_the_token_and_not_the_process() {
        let scene = Scene::new().await;
        let text = scene.session.to_string();
        for (what, open, close) in [("lists", "[", "]"), ("objects", "{\"a\":", "}")] {
            for depth in [200, 2_000, 8_000] {
                let inner = if open == "[" { "" } else { "1" };
                let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
                let payload = text.replacen('{', &format!("{{\"deep\":{deep},"), 1);
                // The zone signs no such thing; what it would sign is not what is looked at first.
                let token = put_together(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, &payload, &[7; 64]);
                if token.len() < 48_000 {
                    scene.refuses(what, &token).await;
                }
                let token = put_together(&format!(r#"{{"alg":"ES256","kid":"k","x":{deep}}}"#), &text, &[7; 64]);
                if token.len() < 48_000 {
                    scene.refuses(what, &token).await;
                }
            }
        }
        // Nor does it help not to close what was opened.
        let unclosed = put_together(r#"{"alg":"ES256","kid":"k"}"#, &"[".repeat(30_000), &[7; 64]);
        scene.refuses("unclosed", &unclosed).await;
    }

    #[tokio::test]
    async fn what_is_longer_than_a_mandate_can_be_is_refused_though_it_is_genuine() {
        let scene = Scene::new().await;
        let padded = |bytes: usize| {
            let mut claims = scene.session.clone();
            claims["padding"] = json!("x".repeat(bytes));
            claims.to_string()
        };
        scene.refuses("40 KB of a claim", &scene.signed(&padded(40_000)).await).await;
        scene.refuses("a claim too much", &scene.signed(&padded(3_000)).await).await;
        scene.refuses("no token at all", &"a".repeat(60_000)).await;
        scene.refuses("many parts", &"a.".repeat(25_000)).await;
        // With a smaller one it is what it was, with a member that nobody reads.
        let token = scene.signed(&padded(1_000)).await;
        assert_eq!(Ask::direct(&token).send(&scene.world).await.outcome(), "403 access_denied");
        let body = Ask::direct(&"a".repeat(70_000)).send(&scene.world).await;
        assert_eq!(body.outcome(), "413 payload_too_large");
    }

    /// Evidence and log keep nothing of a token that was refused.
    #[tokio::test]
    async fn a_refused_token_is_not_kept() {
        let scene = Scene::new().await;
        let mut claims = scene.session.clone();
        claims["padding"] = json!("nobody-keeps-this-either");
        claims["iss"] = json!("https://else.example");
        let token = scene.signed(&claims.to_string()).await;
        scene.refuses("another issuer", &token).await;
        let payload = token.split('.').nth(1).unwrap();
        assert!(!logged().contains(payload) && !logged().contains("nobody-keeps-this-either"));
        for event in scene.world.evidence().await {
            assert!(!event.row.metadata.contains(payload) && !event.row.metadata.contains("nobody-keeps-this-either"));
        }
    }
}

mod t02_sts_confused_keys {
    use super::*;
    use ring::hmac;

    #[tokio::test]
    async fn only_es256_by_a_key_of_the_zone_is_a_signature() {
        let scene = Scene::new().await;
        let text = scene.session.to_string();
        let genuine = scene.signed(&text).await;
        let kid = header_of(&genuine)["kid"].as_str().unwrap().to_owned();
        let published = scene.world.get("/.well-known/jwks.json?zone_id=z-1").await.json["keys"][0].clone();
        let coordinate = |name: &str| from_base64url(published[name].as_str().unwrap()).unwrap();
        let (x, y) = (coordinate("x"), coordinate("y"));
        let own = IdpKey::p256(&kid);

        // The public key, in every form of it, taken for a shared secret.
        let raw = [x.clone(), y.clone()].concat();
        let point = [vec![4], raw.clone()].concat();
        for (number, secret) in
            [raw, point, published.to_string().into_bytes(), kid.clone().into_bytes(), Vec::new()].iter().enumerate()
        {
            let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string();
            let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(text.as_bytes()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
            scene.refuses(&format!("HS256, {number}"), &format!("{signed}.{}", base64url(tag.as_ref()))).await;
        }

        // The genuine signature under another name of the algorithm, and none at all.
        let signature = from_base64url(genuine.split('.').nth(2).unwrap()).unwrap();
        for alg in [
            json!("none"),
            json!("None"),
            json!("nOnE"),
            json!(""),
            json!("es256"),
            json!("ES256 "),
            json!("ES256K"),
            json!("ES384"),
            json!("RS256"),
            json!("EdDSA"),
            json!(["ES256"]),
            json!(256),
            json!(null),
        ] {
            let header = json!({"alg": alg, "kid": kid, "typ": "JWT"}).to_string();
            for signature in [&signature[..], &[]] {
                scene.refuses(&format!("alg {alg}"), &put_together(&header, &text, signature)).await;
            }
        }

        // A key that the token brings along, or says where to find, under the zone's own name.
        for (what, more) in [
            ("jwk", json!({"jwk": own.jwk()})),
            ("jku", json!({"jku": "https://evil.example/keys"})),
            ("x5u", json!({"x5u": "https://evil.example/cert"})),
            ("x5c", json!({"x5c": ["MIIB"]})),
            ("crit", json!({"crit": ["exp"]})),
            ("plain", json!({})),
        ] {
            let mut header = json!({"alg": "ES256", "kid": kid, "typ": "JWT"});
            header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            scene.refuses(what, &own.sign(&header.to_string(), &text)).await;
        }

        // Names that are none.
        for kid in [
            json!("../k"),
            json!("k' OR '1'='1"),
            json!(""),
            json!("\u{0}"),
            json!(7),
            json!([kid]),
            json!("k".repeat(3_000)),
        ] {
            let header = json!({"alg": "ES256", "kid": kid, "typ": "JWT"}).to_string();
            scene.refuses(&format!("kid {kid}"), &own.sign(&header, &text)).await;
        }

        // Signatures that verify in a library that is careless.
        let (signed, _) = genuine.rsplit_once('.').unwrap();
        let der = [vec![0x30, 0x44, 2, 32], signature[..32].to_vec(), vec![2, 32], signature[32..].to_vec()].concat();
        for (what, bytes) in [
            ("zeros", vec![0; 64]),
            ("half", signature[..32].to_vec()),
            ("one byte more", [&signature[..], &[0]].concat()),
            ("DER", der),
            ("halves swapped", [&signature[32..], &signature[..32]].concat()),
        ] {
            scene.refuses(what, &format!("{signed}.{}", base64url(&bytes))).await;
        }
        for (what, token) in [
            ("padded", format!("{genuine}==")),
            ("a space", format!("{genuine} x")),
            ("a part more", format!("{genuine}.x")),
            ("an empty header", format!(".{}", genuine.split_once('.').unwrap().1)),
            ("a list of tokens", format!("[\"{genuine}\"]")),
        ] {
            scene.refuses(what, &token).await;
        }
        assert_eq!(
            Ask::direct(&genuine).send(&scene.world).await.outcome(),
            "403 access_denied",
            "and that one is good"
        );
    }

    /// Every zone has its own key: one zone's word is worth nothing in another, whatever the token says of its zone.
    #[tokio::test]
    async fn another_zone_s_key_signs_nothing_here() {
        let scene = Scene::new().await;
        let other = caracal_authority::ZoneId::parse(OTHER_ZONE).unwrap();
        scene.world.keys.create(&other).await.unwrap();
        let key = {
            let mut snapshot = scene.world.store.snapshot().await.unwrap();
            scene.world.keys.signing_key(&mut snapshot.zone(&other)).await.unwrap().unwrap()
        };
        let mut theirs = scene.session.clone();
        scene.refuses("their key, our zone", &key.sign(&theirs).unwrap()).await;
        theirs["zone_id"] = json!(OTHER_ZONE);
        scene.refuses("their key, their zone", &key.sign(&theirs).unwrap()).await;
        // Our key, for their zone: there the name of the key is unknown.
        let ours = scene.signed(&theirs.to_string()).await;
        scene.refuses("our key, their zone", &ours).await;
        let there = Ask::direct(&ours).set("zone_id", OTHER_ZONE).send(&scene.world).await;
        assert_eq!(there.outcome(), "403 zone_invalid", "and the client is not theirs either");
    }

    /// An application holds mandates of its own. If they counted as an identity provider's word, it would be a user, and
    /// could approve what it asks for.
    #[tokio::test]
    async fn a_mandate_is_nobody_s_id_token_even_where_somebody_registered_this_service() {
        let key = IdpKey::p256("k-1");
        let provider = IdentityProvider::publishing(&[&key]).await;
        let world = World::reaching(way_out(true, true), |_| {}).await;
        world
            .add_issuer("own", &provider.url("/keys"), |row| {
                row.issuer = ISSUER.to_owned();
                row.audience = ISSUER.to_owned();
            })
            .await;
        let session = Ask::bootstrap().send(&world).await.token().to_owned();
        let published = world.get("/.well-known/jwks.json?zone_id=z-1").await;
        provider.answer("/keys", Reply::body(published.json.to_string()));
        let records = world.record_ids().len();
        assert_eq!(Ask::relay(&session).send(&world).await.outcome(), "401 invalid_token");
        assert_eq!(world.last_event().await.text("reason"), "issuer_not_registered");
        assert_eq!((world.record_ids().len(), provider.asked()), (records, 0));
        // Nor is an id_token a mandate.
        let id_token = key.token(&id_claims());
        assert_eq!(Ask::direct(&id_token).send(&world).await.outcome(), "401 invalid_token");
        assert_eq!(Signed::exchange(&world, &id_token).send(&world).await.outcome(), "401 invalid_token");
    }
}
