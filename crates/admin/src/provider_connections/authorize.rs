//! `POST /v1/zones/{zone}/provider-connections/oauth/authorize`: begins a consent. The answer is where somebody's browser is
//! to be sent; what comes back is for [`super::callback`].
//!
//! The state is what holds both together: 256 random bits of which only the digest is kept, good for ten minutes and one
//! use, bound to zone, subject and provider. The verifier of the code challenge lies beside it under seal, so that a code that
//! somebody else got hold of is of no use to them.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{ProviderId, Timestamp};
use caracal_crypto::hmac::{sha256, sha256_hex};
use caracal_crypto::{SecretText, chance, encoding};
use caracal_custody::RowSecret;
use caracal_http::egress::TargetUrl;
use caracal_store::oauth_states::{self, OauthState};
use caracal_store::providers::Provider;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::{Whose, provider_with_accounts};
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/provider-connections/oauth/authorize",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(authorize(admin, call)))),
    spec: Spec::shows::<Begun>(
        "provider_connections.authorize",
        "Begins to ask for a consent: answers where the browser has to go.",
    )
    .takes("invalid_provider_oauth_authorize", |body| whose(body).map(drop))
    .refuses(&[
        (404, "zone_not_found"),
        (404, "provider_not_found"),
        (400, "provider_connection_unsupported"),
        (400, "invalid_provider_config"),
        (400, "provider_authorization_endpoint_invalid"),
        (409, "reserved_namespace"),
        (502, "secret_backend_unavailable"),
    ]),
};

/// How long somebody may take to agree.
const PATIENCE: Duration = Duration::from_secs(600);

struct Change {
    subject: String,
    checked: Provider,
    digest: String,
    verifier: Vec<u8>,
    may_reserve: bool,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Begun<'a> {
        authorization_url: &'a str,
        state: &'a str,
        expires_at: Timestamp,
    }
}

fn whose(body: impl Into<Body>) -> Result<Whose, Mismatch> {
    Whose::read(&mut Fields::of(body)?)
}

async fn authorize(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let whose = whose(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider_oauth_authorize"))?;
    let mut snapshot = admin.store.snapshot().await?;
    let provider = provider_with_accounts(&mut snapshot.zone(&call.place.zone), &whose.provider).await?;
    drop(snapshot);
    let (state, verifier) = (chance::token("")?, chance::token("")?);
    let url = authorization_url(&provider.config, &state, &verifier)?;
    let digest = digest_of(state.expose());
    let place = RowSecret::Verifier { zone: &call.place.zone, digest: &digest };
    let sealed = admin.sealed.seal_of_row(place, &verifier).map_err(Refusal::secrets_unavailable)?;
    let change = Change {
        subject: whose.subject,
        checked: provider,
        digest,
        verifier: sealed,
        may_reserve: call.caller.is_bootstrap(),
        trace: call.trace,
    };
    let (expires_at, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let id: &ProviderId = &change.checked.id;
                let provider = provider_with_accounts(tx, id.as_str()).await?;
                reserved::guard(change.may_reserve, &provider.identifier, reserved::PROVIDER)?;
                let row = OauthState {
                    zone_id: tx.zone().clone(),
                    digest: change.digest.clone(),
                    subject_id: change.subject.clone(),
                    provider_id: provider.id,
                    verifier: change.verifier.clone(),
                    expires_at: tx.now().plus(PATIENCE),
                    created_at: tx.now(),
                };
                oauth_states::add(tx, &row).await?;
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((row.expires_at, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Begun { authorization_url: url.as_str(), state: state.expose(), expires_at }))
}

/// What a state is known by.
pub(crate) fn digest_of(state: &str) -> String {
    sha256_hex(state.as_bytes())
}

/// The provider's authorization endpoint with everything it has to be told. What the protocol says comes last, and stands for
/// whatever of the same name was there.
fn authorization_url(config: &Map<String, Value>, state: &SecretText, verifier: &SecretText) -> Result<Url, Refusal> {
    let required = |name: &str| {
        let text = config.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| Refusal::invalid("invalid_provider_config").describe(format!("{name} is missing")))
    };
    let endpoint = required("authorization_endpoint")?;
    let (redirect_uri, client_id) = (required("redirect_uri")?, required("client_id")?);
    let unusable = || {
        Refusal::invalid("provider_authorization_endpoint_invalid")
            .describe("authorization_endpoint must be an https url with a host and without user information")
    };
    let target = TargetUrl::parse(endpoint).ok().filter(TargetUrl::is_https).ok_or_else(unusable)?;
    let mut url = Url::parse(target.as_str()).map_err(|_| unusable())?;
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut set = |name: &str, value: &str| {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name.to_owned(), value.to_owned()));
    };
    if let Some(Value::Object(params)) = config.get("authorization_params") {
        for (name, value) in params {
            set(name, value.as_str().unwrap_or_default());
        }
    }
    set("response_type", "code");
    set("client_id", client_id);
    set("redirect_uri", redirect_uri);
    set("state", state.expose());
    if let Some(Value::Array(scopes)) = config.get("scopes") {
        let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
        if !scopes.is_empty() {
            set("scope", &scopes.join(" "));
        }
    }
    set("code_challenge", &encoding::base64url(&sha256(verifier.expose().as_bytes())));
    set("code_challenge_method", "S256");
    url.query_pairs_mut().clear().extend_pairs(&pairs);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(more: Value) -> Result<Url, Refusal> {
        let mut config = json!({
            "authorization_endpoint": "https://idp.example/authorize", "redirect_uri": "https://console.example/cb",
            "client_id": "c",
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // The verifier and the challenge are those of RFC 7636, appendix B.
        let verifier = SecretText::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        authorization_url(config.as_object().unwrap(), &SecretText::new("s".to_owned()), &verifier)
    }

    #[test]
    fn everything_is_asked_for_that_the_protocol_needs_and_the_operator_wants() {
        let plain = "https://idp.example/authorize?response_type=code&client_id=c\
                     &redirect_uri=https%3A%2F%2Fconsole.example%2Fcb&state=s\
                     &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
        assert_eq!(url(json!({})).unwrap().as_str(), plain);
        let rich = url(json!({
            "authorization_endpoint": "https://idp.example/authorize?tenant=t&state=x&prompt=none#f",
            "authorization_params": {"prompt": "consent", "access_type": "offline"}, "scopes": ["a", "b c"],
        }));
        let rich = rich.unwrap();
        let pairs: Vec<(String, String)> = rich.query_pairs().into_owned().collect();
        let one = |name: &str| {
            let values: Vec<_> =
                pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
            assert_eq!(values.len(), 1, "{name} of {rich}");
            values[0].to_owned()
        };
        assert_eq!((one("tenant"), one("state"), one("prompt")), ("t".into(), "s".into(), "consent".into()));
        assert_eq!((one("access_type"), one("scope"), rich.fragment()), ("offline".into(), "a b c".into(), None));
    }

    #[test]
    fn what_can_not_be_sent_a_browser_to_is_refused() {
        let code = |more: Value| url(more).unwrap_err().problem.code().unwrap().to_owned();
        for name in ["authorization_endpoint", "redirect_uri", "client_id"] {
            for value in [json!(null), json!(""), json!(" "), json!(7)] {
                assert_eq!(code(json!({(name): value})), "invalid_provider_config");
            }
        }
        for bad in ["http://idp.example/a", "idp.example", "https://u@idp.example/a", "javascript:alert(1)"] {
            assert_eq!(code(json!({"authorization_endpoint": bad})), "provider_authorization_endpoint_invalid");
        }
    }
}
