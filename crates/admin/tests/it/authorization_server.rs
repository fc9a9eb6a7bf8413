//! An authorization server as RFC 6749 and RFC 7636 want it: consent, a code for one use, and tokens for whoever shows the
//! code, the verifier of its challenge, the address it was sent to, and who the client is.
//!
//! Clients of certain names are answered otherwise, as some servers do.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caracal_crypto::hmac::sha256;
use caracal_testkit::{Received, Reply};
use serde_json::json;

/// The secret of every client.
pub(crate) const SECRET: &str = "cs-upstream";

struct Consent {
    client: String,
    challenge: String,
    redirect_uri: String,
}

/// The server.
#[derive(Default)]
pub(crate) struct AuthorizationServer {
    given_out: Mutex<HashMap<String, Consent>>,
}

impl AuthorizationServer {
    pub(crate) fn answer(&self, request: &Received) -> Reply {
        match request.path() {
            "/authorize" => self.agree(request),
            "/token" => self.token(request),
            "/tenant/.well-known/openid-configuration" => {
                let host = request.header("host").unwrap();
                Reply::json(
                    200,
                    json!({
                        "issuer": format!("https://{host}/tenant"),
                        "token_endpoint": format!("https://{host}/token"),
                        "authorization_endpoint": format!("https://{host}/authorize"),
                        "scopes_supported": ["openid", "files"],
                        "token_endpoint_auth_methods_supported": ["client_secret_basic", "tls_client_auth"],
                        "claims_supported": ["sub"],
                    })
                    .to_string(),
                )
            }
            "/.well-known/oauth-authorization-server/other" => {
                Reply::json(200, json!({"issuer": "https://somebody.example/other"}).to_string())
            }
            _ => Reply::bytes(404, "nothing here"),
        }
    }

    /// Whoever is sent here agrees at once.
    fn agree(&self, request: &Received) -> Reply {
        let (Some("code"), Some("S256")) =
            (request.query("response_type").as_deref(), request.query("code_challenge_method").as_deref())
        else {
            return Reply::bytes(400, "no code with S256 is asked for");
        };
        let of = |name: &str| request.query(name).unwrap();
        let mut given_out = self.given_out.lock().unwrap();
        let code = format!("code-{}-of-{}", given_out.len(), of("client_id"));
        let consent =
            Consent { client: of("client_id"), challenge: of("code_challenge"), redirect_uri: of("redirect_uri") };
        let target = format!("{}?code={code}&state={}", consent.redirect_uri, of("state"));
        given_out.insert(code, consent);
        Reply::bytes(302, "").with("location", &target)
    }

    fn token(&self, request: &Received) -> Reply {
        let error =
            |status, code: &str| Reply::json(status, json!({"error": code, "error_description": "t0p"}).to_string());
        let Some(client) = client(request) else { return error(401, "invalid_client") };
        let issued = json!({"access_token": "at-issued", "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": "rt-issued"});
        match client.as_str() {
            "mac" => return Reply::json(200, r#"{"access_token":"at-mac","token_type":"mac"}"#),
            "html" => return Reply::bytes(200, "<html>t0p</html>"),
            "tokenless" => return Reply::json(200, "{}"),
            "polite" => return Reply::json(200, r#"{"error":"invalid_grant"}"#),
            "away" => return Reply::bytes(503, ""),
            "moved" => return Reply::bytes(302, "").with("location", "https://elsewhere.example/"),
            "endless" => return Reply::json(200, r#"{"access_token":"at-endless"}"#),
            _ => {}
        }
        match request.field("grant_type").as_deref() {
            Some("client_credentials") => Reply::json(200, issued.to_string()),
            Some("authorization_code") => {
                let code = request.field("code").unwrap_or_default();
                let Some(consent) = self.given_out.lock().unwrap().remove(&code) else {
                    return error(400, "invalid_grant");
                };
                let challenge = URL_SAFE_NO_PAD.encode(sha256(request.field("code_verifier").unwrap().as_bytes()));
                let good = consent.client == client
                    && consent.challenge == challenge
                    && request.field("redirect_uri").as_deref() == Some(&consent.redirect_uri);
                if good { Reply::json(200, issued.to_string()) } else { error(400, "invalid_grant") }
            }
            _ => error(400, "unsupported_grant_type"),
        }
    }
}

/// The client, if it proved who it is.
fn client(request: &Received) -> Option<String> {
    let basic = request.header("authorization")?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    let (client, secret) = pair.split_once(':')?;
    (secret == SECRET).then(|| client.to_owned())
}
