//! What is accepted, what is refused, and that a secret goes nowhere but under seal.

use serde_json::json;

use super::*;

fn check_with(kind: &str, config: Value, secrets: Secrets<'_>) -> Result<(Value, String), String> {
    let config = config.as_object().unwrap().clone();
    let read = judge(kind, &config, secrets)?;
    let document = String::from_utf8(read.document().ok().unwrap().expose().clone()).unwrap();
    Ok((Value::Object(read.public), document))
}

fn check(kind: &str, config: Value) -> Result<(Value, String), String> {
    check_with(kind, config, Secrets::Required)
}

#[test]
fn kinds_without_credential_take_no_configuration() {
    for kind in ["none", "caracal_mandate"] {
        assert_eq!(check(kind, json!({})).unwrap(), (json!({}), "{}".to_owned()));
        assert!(check(kind, json!({"api_key": "x"})).is_err());
    }
}

#[test]
fn an_api_key_travels_in_a_header_unless_told_otherwise() {
    let (public, secrets) = check("api_key", json!({"header_name": "X-Key", "api_key": " sk-1\n"})).unwrap();
    assert_eq!(public, json!({"auth_location": "header", "header_name": "X-Key"}));
    assert_eq!(secrets, r#"{"api_key":"sk-1"}"#);
    let (public, _) =
        check("api_key", json!({"auth_location": "query", "query_param_name": "key", "api_key": "k"})).unwrap();
    assert_eq!(public, json!({"auth_location": "query", "query_param_name": "key"}));
}

#[test]
fn a_configuration_outside_its_row_is_refused() {
    for (kind, config) in [
        ("api_key", json!({"api_key": "k"})),
        ("api_key", json!({"header_name": "X-Key"})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "  "})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "sk\n1"})),
        ("api_key", json!({"header_name": "X-Key", "api_key": 1})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "password": "x"})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "forward_caracal_identity": "yes"})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": []})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": ["a..b"]})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "allowed_token_hosts": ["a/b"]})),
        ("api_key", json!({"header_name": "X-Key", "api_key": "k", "auth_scheme": "1a"})),
        ("api_key", json!({"auth_location": "cookie", "header_name": "X-Key", "api_key": "k"})),
        ("api_key", json!({"auth_location": "query", "header_name": "X-Key", "api_key": "k"})),
        ("api_key", json!({"auth_location": "query", "query_param_name": "a b", "api_key": "k"})),
        ("api_key", json!({"auth_location": "query", "query_param_name": "a", "api_key": "k", "auth_scheme": "X"})),
        ("bearer_token", json!({"bearer_token": "t", "header_name": "X"})),
        ("bearer_token", json!({"bearer_token": "t", "auth_header": "a b"})),
        ("http_basic", json!({"username": "u"})),
        ("http_basic", json!({"password": "p"})),
        ("http_basic", json!({"username": "a:b", "password": "p"})),
        ("http_basic", json!({"username": "u", "password": "p", "allow_runtime_injection": true})),
        ("oauth2_client_credentials", json!({})),
    ] {
        assert!(check(kind, config.clone()).is_err(), "{kind} {config}");
    }
}

#[test]
fn a_pasted_scheme_is_refused_where_a_scheme_is_added() {
    let api_key = |key: &str, scheme: Option<&str>| {
        let mut config = json!({"header_name": "X-Key", "api_key": key});
        if let Some(scheme) = scheme {
            config["auth_scheme"] = json!(scheme);
        }
        check("api_key", config).is_ok()
    };
    assert!(!api_key("Bearer sk", Some("Bearer")));
    assert!(!api_key("bEARER sk", Some("Bearer")));
    assert!(api_key("Bearer sk", None));
    assert!(api_key("Bearersk", Some("Bearer")));
    assert!(check("bearer_token", json!({"bearer_token": "bearer t"})).is_err());
    assert!(check("bearer_token", json!({"bearer_token": "bearer t", "auth_scheme": "Token"})).is_ok());
}

#[test]
fn hosts_are_stored_in_lower_case() {
    let config = json!({"bearer_token": "t", "allowed_token_hosts": ["API.Example.com", "localhost"]});
    let (public, _) = check("bearer_token", config).unwrap();
    assert_eq!(public["allowed_token_hosts"], json!(["api.example.com", "localhost"]));
}

#[test]
fn without_its_secret_a_configuration_is_whole_only_when_one_is_stored() {
    let config = json!({"header_name": "X-Key"});
    assert!(check_with("api_key", config.clone(), Secrets::MayStay(&[])).is_ok());
    assert!(check_with("api_key", config, Secrets::Required).is_err());
    assert!(check_with("http_basic", json!({}), Secrets::MayStay(&[])).is_err());
}

mod t05_secrets_config {
    use super::*;

    #[test]
    fn a_secret_never_stays_in_the_public_part() {
        for (kind, config) in [
            ("api_key", json!({"header_name": "X-Key", "api_key": "sk-visible"})),
            ("bearer_token", json!({"bearer_token": "sk-visible"})),
            ("http_basic", json!({"username": "u", "password": "sk-visible"})),
        ] {
            let (public, secrets) = check(kind, config).unwrap();
            assert!(!public.to_string().contains("sk-visible"), "{kind}");
            assert!(secrets.contains("sk-visible"), "{kind}");
        }
    }

    #[test]
    fn a_refusal_does_not_quote_the_secret() {
        for (kind, config) in [
            ("api_key", json!({"header_name": "X-Key", "api_key": "sk-visible\n1"})),
            ("bearer_token", json!({"bearer_token": "Bearer sk-visible"})),
        ] {
            assert!(!check(kind, config).unwrap_err().contains("sk-visible"), "{kind}");
        }
    }
}

#[test]
fn t03_gateway_headers_that_frame_or_route_carry_no_credential() {
    for refused in ["X-Caracal-Foo", "Host", "traceparent", "x-forwarded-for", "Proxy-Anything", "TE", "a b", "a:b"] {
        assert!(!is_header_name(refused), "{refused}");
    }
    for good in ["Authorization", "X-Key", "api-key"] {
        assert!(is_header_name(good), "{good}");
    }
}

mod oauth {
    use super::*;

    const KEY: &str = include_str!("../../../../broker/tests/keys/p256.pkcs8.pem");
    const OTHER_KEY: &str = include_str!("../../../../broker/tests/keys/rsa.pkcs8.pem");
    const CERTIFICATE: &str = include_str!("../../../../broker/tests/keys/p256.crt.pem");

    fn merged(base: Value, more: Value) -> Value {
        let mut config = base;
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    /// Null takes a field away.
    fn without_null(mut config: Value) -> Value {
        config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        config
    }

    fn service(more: Value) -> Value {
        let base = json!({"token_endpoint": "https://IDP.example:8443/token", "client_id": "c", "client_secret": "s"});
        without_null(merged(base, more))
    }

    fn account(more: Value) -> Value {
        let base = json!({
            "authorization_endpoint": "https://idp.example/authorize",
            "token_endpoint": "https://idp.example/token",
            "redirect_uri": "https://console.example/callback",
            "client_id": "c",
            "client_secret": "s",
        });
        without_null(merged(base, more))
    }

    #[test]
    fn what_is_left_out_is_stored_as_its_default() {
        let (public, secrets) = check("oauth2_client_credentials", service(json!({}))).unwrap();
        assert_eq!(secrets, r#"{"client_secret":"s"}"#);
        assert_eq!(
            public,
            json!({
                "token_endpoint": "https://IDP.example:8443/token",
                "client_id": "c",
                "grant_type": "client_credentials",
                "client_auth_method": "client_secret_basic",
                "allowed_token_hosts": ["idp.example"],
            })
        );
        let bearer = json!({"grant_type": "jwt_bearer", "private_key": KEY, "client_secret": null});
        let (public, _) = check("oauth2_client_credentials", service(bearer)).unwrap();
        assert_eq!(public["client_auth_method"], "none");
        let (public, _) = check("oauth2_authorization_code", account(json!({}))).unwrap();
        assert_eq!(public["client_auth_method"], "client_secret_basic");
        assert_eq!(public.get("grant_type"), None);
    }

    #[test]
    fn every_field_of_a_service_goes_with_the_others() {
        let key = || json!({"client_auth_method": "private_key_jwt", "private_key": KEY, "client_secret": null});
        for more in [
            json!({"scopes": ["a"], "audience": "x", "resource": "y", "token_params": {"tenant": "t"}}),
            json!({"client_auth_method": "none", "client_secret": null}),
            merged(key(), json!({"key_id": "k", "certificate": CERTIFICATE})),
            json!({"grant_type": "jwt_bearer", "private_key": KEY, "client_auth_method": "client_secret_post"}),
        ] {
            assert!(check("oauth2_client_credentials", service(more.clone())).is_ok(), "{more}");
        }
        for more in [
            json!({"token_endpoint": null}),
            json!({"token_endpoint": "http://idp.example/token"}),
            json!({"token_endpoint": "https://u:p@idp.example/token"}),
            json!({"client_id": null}),
            json!({"client_secret": null}),
            json!({"client_auth_method": "private_key_jwt", "private_key": KEY}),
            json!({"client_auth_method": "tls_client_auth"}),
            json!({"grant_type": "password"}),
            json!({"grant_type": "jwt_bearer", "client_secret": null}),
            json!({"grant_type": "jwt_bearer", "private_key": KEY, "audience": "x"}),
            json!({"grant_type": "jwt_bearer", "private_key": KEY, "client_auth_method": "private_key_jwt"}),
            json!({"assertion_subject": "x"}),
            json!({"private_key": KEY}),
            json!({"key_id": "k"}),
            json!({"certificate": CERTIFICATE}),
            merged(key(), json!({"private_key": "x"})),
            merged(key(), json!({"private_key": OTHER_KEY, "certificate": CERTIFICATE})),
            merged(key(), json!({"certificate": "x"})),
            json!({"scopes": []}),
            json!({"scopes": [""]}),
            json!({"allowed_token_hosts": []}),
            json!({"token_params": {"scope": "a"}}),
            json!({"token_params": {"a b": "a"}}),
            json!({"token_params": {"a": " "}}),
            json!({"redirect_uri": "https://x.example"}),
        ] {
            assert!(check("oauth2_client_credentials", service(more.clone())).is_err(), "{more}");
        }
    }

    #[test]
    fn every_field_of_an_account_goes_with_the_others() {
        for more in [
            json!({"redirect_uri": "com.example.app:/callback"}),
            json!({"revocation_endpoint": "https://idp.example/revoke"}),
            json!({"authorization_params": {"prompt": "consent"}}),
            json!({"client_auth_method": "none", "client_secret": null}),
        ] {
            assert!(check("oauth2_authorization_code", account(more.clone())).is_ok(), "{more}");
        }
        for more in [
            json!({"authorization_endpoint": "http://idp.example/authorize"}),
            json!({"redirect_uri": "/callback"}),
            json!({"redirect_uri": "https:///callback"}),
            json!({"client_secret": null}),
            json!({"client_auth_method": "private_key_jwt"}),
            json!({"revocation_endpoint": "https://other.example/revoke"}),
            json!({"authorization_params": {"state": "x"}}),
            json!({"allow_runtime_injection": true}),
        ] {
            assert!(check("oauth2_authorization_code", account(more.clone())).is_err(), "{more}");
        }
    }

    #[test]
    fn a_needed_secret_is_in_the_request_or_under_seal() {
        let kind = "oauth2_client_credentials";
        let stored = |names: &[&str], more: Value| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            check_with(kind, service(more), Secrets::MayStay(&names)).is_ok()
        };
        assert!(stored(&["client_secret"], json!({"client_secret": null})));
        assert!(!stored(&[], json!({"client_secret": null})));
        assert!(stored(&[], json!({})));
        // A secret in the request replaces everything that is sealed, so what it leaves out is gone.
        let bearer = json!({"grant_type": "jwt_bearer", "client_auth_method": "client_secret_post"});
        assert!(!stored(&["private_key"], bearer));
    }
}
