//! Tokens that others forged, by what is publicly known to have worked elsewhere, shown at every door of the built binary.

use std::fmt::Write;

use caracal_crypto::encoding::base64url;
use caracal_crypto::hmac::HmacKey;
use caracal_crypto::jws::SigningKey;
use caracal_testkit::{FakeServer, Reply};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Addressed, Http, NOTES, Running, Tenant};

/// The bytes of unpadded base64url.
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    bytes
}

fn encoded(value: &Value) -> String {
    base64url(value.to_string().as_bytes())
}

/// Forged ones of a genuine token, whose key is public, each with what was tried.
fn forged(genuine: &str, jwk: &Value, all_keys: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = genuine.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("{genuine} is no compact token") };
    let header: Value = serde_json::from_slice(&decoded(head)).unwrap();
    let with = |changes: Value| {
        let mut changed = header.clone();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        encoded(&changed)
    };
    let mut all = Vec::new();
    let mut try_it = |what: &str, token: String| all.push((what.to_owned(), token));

    for alg in ["none", "None", "NONE", "nOnE", ""] {
        try_it(&format!("alg `{alg}` without signature"), format!("{}.{claims}.", with(json!({"alg": alg}))));
        try_it(&format!("alg `{alg}` with one"), format!("{}.{claims}.{signature}", with(json!({"alg": alg}))));
    }

    // The public key as the secret of an HMAC, in each form in which somebody may have it at hand.
    let coordinate = |name: &str| decoded(jwk[name].as_str().unwrap());
    let point = [coordinate("x"), coordinate("y")].concat();
    let info =
        [&b"0Y0\x13\x06\x07*\x86H\xce=\x02\x01\x06\x08*\x86H\xce=\x03\x01\x07\x03B\x00\x04"[..], &point].concat();
    for (form, secret) in [
        ("its point", point.clone()),
        ("its uncompressed point", [&[4][..], &point].concat()),
        ("its subject public key info", info),
        ("its JWK", jwk.to_string().into_bytes()),
        ("its key set", all_keys.as_bytes().to_vec()),
        ("its x", jwk["x"].as_str().unwrap().as_bytes().to_vec()),
    ] {
        let signed = format!("{}.{claims}", with(json!({"alg": "HS256"})));
        let mac = HmacKey::from_bytes(&secret).unwrap().sign(&[signed.as_bytes()]);
        try_it(&format!("an HMAC with {form}"), format!("{signed}.{}", base64url(&mac)));
        let mac = HmacKey::from_bytes(&secret).unwrap().sign(&[head.as_bytes(), b".", claims.as_bytes()]);
        try_it(&format!("an HMAC with {form}, said to be ES256"), format!("{head}.{claims}.{}", base64url(&mac)));
    }

    // A key of one's own under the name of the genuine one.
    let (own, _) = SigningKey::generate().unwrap();
    let payload: Value = serde_json::from_slice(&decoded(claims)).unwrap();
    try_it("another key under its name", own.sign(header["kid"].as_str().unwrap(), &payload).unwrap());

    // A genuine signature under something else.
    let changed = |name: &str, value: Value| {
        let mut changed = payload.clone();
        changed[name] = value;
        encoded(&changed)
    };
    try_it("another subject", format!("{head}.{}.{signature}", changed("sub", json!("app-other"))));
    try_it("a later end", format!("{head}.{}.{signature}", changed("exp", json!(4_102_444_800_i64))));
    try_it("a wider scope", format!("{head}.{}.{signature}", changed("scope", json!("notes:read notes:write"))));
    for (what, more) in [
        ("a critical extension", json!({"crit": ["exp"]})),
        ("an unencoded payload", json!({"crit": ["b64"], "b64": false})),
        ("a key of its own", json!({"jwk": jwk})),
        ("a place to get keys", json!({"jku": "http://127.0.0.1:9/jwks.json"})),
        ("a kid that is a path", json!({"kid": "../../../../dev/null"})),
        ("a kid that is a statement", json!({"kid": "x' UNION SELECT 'AAAA"})),
        ("a kid that is no text", json!({"kid": [header["kid"]]})),
        ("no kid", json!({"kid": null})),
        ("another algorithm of the curve", json!({"alg": "ES384"})),
        ("an RSA algorithm", json!({"alg": "RS256"})),
    ] {
        try_it(what, format!("{}.{claims}.{signature}", with(more)));
    }

    // Signatures that verified elsewhere.
    let bytes = decoded(signature);
    let (r, s) = bytes.split_at(32);
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&ORDER[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let der = |part: &[u8]| [&[2, 33, 0][..], part].concat();
    let sequence = [&[0x30, 70][..], &der(r), &der(s)].concat();
    for (what, forged) in [
        ("a signature of zeros", vec![0; 64]),
        ("r and s of the order", [&order[..], &order[..]].concat()),
        ("r of zero", [&[0; 32][..], s].concat()),
        ("s of zero", [r, &[0; 32][..]].concat()),
        ("r and s exchanged", [s, r].concat()),
        ("a signature in DER", sequence),
        ("a signature that is cut", bytes[..63].to_vec()),
        ("a signature with more behind", [&bytes[..], &[0]].concat()),
        ("no signature", Vec::new()),
    ] {
        try_it(what, format!("{head}.{claims}.{}", base64url(&forged)));
    }

    // Other spellings of the same bytes.
    try_it("padding", format!("{head}.{claims}.{signature}=="));
    try_it("a line feed escaped", format!("{head}.{claims}.{signature}%0A"));
    try_it("a fourth part", format!("{genuine}.{signature}"));
    try_it("a part too few", format!("{head}.{claims}"));
    try_it("five parts", format!("{head}..{claims}.{signature}.{signature}"));
    let last = signature.chars().last().unwrap();
    // 64 bytes leave four bits of the last digit unused.
    let twin = if last == 'A' { 'B' } else { char::from(u8::try_from(u32::from(last)).unwrap() + 1) };
    try_it("unused bits", format!("{head}.{claims}.{}{twin}", &signature[..signature.len() - 1]));
    let json = json!({"payload": claims, "protected": head, "signature": signature});
    try_it("its JSON form", json.to_string().replace('\n', ""));
    all
}

struct Doors<'d> {
    http: &'d Http,
    system: &'d Running,
    tenant: &'d Tenant,
}

impl Doors<'_> {
    async fn gateway(&self, token: &str) -> u16 {
        self.tenant.call(self.http, self.system, token).await.unwrap().status.as_u16()
    }

    async fn verify(&self, token: &str, audience: Option<&str>) -> (u16, Value) {
        let mut body = json!({"zone_id": self.tenant.zone, "token": token});
        if let Some(audience) = audience {
            body["audience"] = json!(audience);
        }
        let url = format!("{}/v1/verify", self.system.url("coordinator"));
        let answer = self.http.json(Method::POST, &url, "", Some(body)).await.unwrap();
        (answer.status.as_u16(), answer.json()["valid"].clone())
    }

    async fn start(&self, token: &str) -> u16 {
        let url = format!("{}/zones/{}/agents", self.system.url("coordinator"), self.tenant.zone);
        let body = json!({"application_id": self.tenant.application, "labels": ["reader"], "ttl_seconds": 60});
        self.http.json(Method::POST, &url, token, Some(body)).await.unwrap().status.as_u16()
    }
}

mod t16_verify {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_token_that_somebody_forged_is_worth_anything_at_any_door() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = FakeServer::http(|_| Reply::bytes(200, "notes"));
        let (http, system) =
            (Http::new(), Running::start_with(directory.path(), &[("VERIFY_RATE_LIMIT_PER_MIN", "0")]));
        let tenant = Tenant::provision(&http, &system, &upstream.url()).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let lifecycle = lifecycle.text("access_token");
        let url = format!("{}/.well-known/jwks.json?zone_id={}", system.url("sts"), tenant.zone);
        let published = http.send(Method::GET, &url, &[], "").await.unwrap();
        let keys = published.json();
        let key_of = |token: &str| {
            let header: Value = serde_json::from_slice(&decoded(token.split('.').next().unwrap())).unwrap();
            assert_eq!(header["alg"], "ES256");
            keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap().clone()
        };
        let all_keys = String::from_utf8(published.body.clone()).unwrap();
        let doors = Doors { http: &http, system: &system, tenant: &tenant };

        let mut said = String::new();
        let mut tried = 0;
        for (what, token) in forged(&mandate, &key_of(&mandate), &all_keys) {
            let at = doors.gateway(&token).await;
            if at != 401 {
                writeln!(said, "{what}, to be forwarded: {at}").unwrap();
            }
            tried += 1;
        }
        for (what, token) in forged(&lifecycle, &key_of(&lifecycle), &all_keys) {
            let at = (doors.start(&token).await, doors.verify(&token, None).await);
            if at != (401, (401, json!(false))) {
                writeln!(said, "{what}, to begin a session: {at:?}").unwrap();
            }
            tried += 1;
        }
        assert!(said.is_empty(), "{said}");
        assert!(tried > 100, "{tried}");
        assert_eq!(upstream.seen().len(), 0);

        // The genuine ones are what they were: nothing that was tried used them up. Each is good at its own door, and there only.
        for audience in [None, Some(NOTES)] {
            assert_eq!(doors.verify(&mandate, audience).await, (401, json!(false)), "{audience:?}");
        }
        assert_eq!((doors.gateway(&lifecycle).await, doors.start(&mandate).await), (401, 401));
        assert_eq!(doors.verify(&lifecycle, None).await, (200, json!(true)));
        assert_eq!((doors.gateway(&mandate).await, doors.gateway(&mandate).await), (200, 401));
        assert_eq!(doors.start(&lifecycle).await, 201);
        assert_eq!(upstream.seen().len(), 1);
    }
}
