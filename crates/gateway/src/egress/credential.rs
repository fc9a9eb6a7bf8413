//! Placing the credential (contract: gateway.md §15.4).
//!
//! The directive says where; this says where never. A credential in a framing, tracing or Caracal-owned header would
//! either break the request or let an upstream take it for something else, so such a directive builds no request at
//! all, whatever its mode.

use caracal_crypto::SecretText;
use caracal_http::egress::may_carry_credential;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::request::BuildFault;
use crate::exchange::Directive;

/// A credential and where it goes.
pub(crate) struct Placed {
    /// The credential's header. The caller's own of that name is removed even when no value is set.
    pub(crate) header: HeaderName,
    /// Its value.
    pub(crate) value: Option<HeaderValue>,
    /// The parameter that takes the provider's token instead.
    pub(crate) query: Option<String>,
    /// `X-Caracal-Identity`.
    pub(crate) identity: Option<HeaderValue>,
}

/// Follows the directive, or says why it can't be followed.
pub(crate) fn place(directive: &Directive, access_token: &SecretText) -> Result<Placed, BuildFault> {
    let header = header(&directive.auth_header)?;
    let mut placed = Placed { header, value: None, query: None, identity: None };
    let provider = match directive.auth_mode.as_str() {
        "none" => false,
        "caracal_jwt" => {
            let scheme = if directive.auth_scheme.is_empty() { "Bearer" } else { &directive.auth_scheme };
            placed.value = Some(sensitive(scheme, access_token)?);
            false
        }
        "provider_apikey" if directive.auth_location == "query" => {
            if directive.query_param_name.trim().is_empty() {
                return Err(BuildFault::Credential("no query parameter is named"));
            }
            provider_token(directive)?;
            placed.query = Some(directive.query_param_name.clone());
            true
        }
        "provider_oauth" | "provider_apikey" => {
            placed.value = Some(sensitive(&directive.auth_scheme, provider_token(directive)?)?);
            true
        }
        _ => return Err(BuildFault::Credential("unknown auth_mode")),
    };
    if provider && directive.forward_caracal_identity {
        placed.identity = Some(sensitive("", access_token)?);
    }
    Ok(placed)
}

/// The provider's token. A call without it would go out unauthenticated, which nobody asked for.
pub(crate) fn provider_token(directive: &Directive) -> Result<&SecretText, BuildFault> {
    let token = directive.provider_token.as_ref().filter(|token| !token.expose().is_empty());
    token.ok_or(BuildFault::Credential("no provider token"))
}

fn header(name: &str) -> Result<HeaderName, BuildFault> {
    if name.is_empty() {
        return Ok(AUTHORIZATION);
    }
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BuildFault::Credential("no header name"))?;
    if may_carry_credential(&header) { Ok(header) } else { Err(BuildFault::Credential("reserved header name")) }
}

/// `[scheme ]token`, marked so that it is never printed.
fn sensitive(scheme: &str, token: &SecretText) -> Result<HeaderValue, BuildFault> {
    let value = if scheme.is_empty() {
        HeaderValue::from_str(token.expose())
    } else {
        let line = caracal_crypto::Secret::new(format!("{scheme} {}", token.expose()));
        HeaderValue::from_str(line.expose())
    };
    let mut value = value.map_err(|_| BuildFault::Credential("not a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod t03_gateway_headers {
    use caracal_crypto::Secret;

    use super::*;

    fn directive(mode: &str) -> Directive {
        let provider_token = Some(Secret::new("p-token".to_owned()));
        Directive { auth_mode: mode.to_owned(), provider_token, ..Directive::default() }
    }

    /// Header, value, query parameter and identity, in that order.
    type Placement = [Option<String>; 4];

    fn placement(directive: &Directive) -> Result<Placement, BuildFault> {
        let placed = place(directive, &Secret::new("mandate".to_owned()))?;
        let text = |value: Option<HeaderValue>| {
            value.map(|value| {
                assert!(value.is_sensitive());
                value.to_str().unwrap().to_owned()
            })
        };
        Ok([Some(placed.header.to_string()), text(placed.value), placed.query, text(placed.identity)])
    }

    fn expect(directive: &Directive, header: &str, value: &str, query: &str, identity: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        assert_eq!(placement(directive), Ok([some(header), some(value), some(query), some(identity)]));
    }

    #[test]
    fn each_mode_sends_what_the_contract_says() {
        expect(&directive("none"), "authorization", "", "", "");
        expect(&directive("caracal_jwt"), "authorization", "Bearer mandate", "", "");
        let mut jwt = directive("caracal_jwt");
        (jwt.auth_header, jwt.auth_scheme, jwt.forward_caracal_identity) = ("X-Auth".into(), "Token".into(), true);
        expect(&jwt, "x-auth", "Token mandate", "", "");
        let mut basic = directive("provider_oauth");
        basic.auth_scheme = "Basic".to_owned();
        expect(&basic, "authorization", "Basic p-token", "", "");
        basic.forward_caracal_identity = true;
        expect(&basic, "authorization", "Basic p-token", "", "mandate");
        let mut key = directive("provider_apikey");
        key.auth_header = "X-Api-Key".to_owned();
        expect(&key, "x-api-key", "p-token", "", "");
        (key.auth_location, key.query_param_name) = ("query".to_owned(), "api_key".to_owned());
        expect(&key, "x-api-key", "", "api_key", "");
    }

    #[test]
    fn no_directive_puts_a_credential_where_it_must_not_be() {
        let names = [
            "Host",
            "X-Caracal-Identity",
            "X_Caracal_Identity",
            "Proxy-X",
            "Proxy-Authorization",
            "X-Request-Id",
            "baggage",
            "Connection",
            "Content-Encoding",
            "Content-Length",
            "content_length",
            "Content-Type",
            "Expect",
            "Forwarded",
            "Keep-Alive",
            "TE",
            "Traceparent",
            "Tracestate",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Via",
            "X-Real-Ip",
            "X-Forwarded-For",
            "bad name",
            "bad\nname",
            "ü",
        ];
        for name in names {
            for mode in ["none", "caracal_jwt", "provider_oauth", "provider_apikey"] {
                let mut directive = directive(mode);
                directive.auth_header = name.to_owned();
                assert!(placement(&directive).is_err(), "{mode} {name}");
            }
        }
    }

    #[test]
    fn a_directive_that_makes_no_sense_builds_nothing() {
        assert!(placement(&directive("")).is_err());
        assert!(placement(&directive("PROVIDER_OAUTH")).is_err());
        let mut query = directive("provider_apikey");
        (query.auth_location, query.query_param_name) = ("query".to_owned(), " ".to_owned());
        assert!(placement(&query).is_err());
        for mode in ["provider_oauth", "provider_apikey"] {
            let mut bare = directive(mode);
            bare.provider_token = None;
            assert!(placement(&bare).is_err(), "{mode}");
            bare.provider_token = Some(Secret::new("a\r\nX-Injected: 1".to_owned()));
            assert!(placement(&bare).is_err(), "{mode}");
        }
    }
}
