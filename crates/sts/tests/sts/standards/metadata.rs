//! Where a zone's endpoints lie (RFC 8414).

use serde_json::json;

use crate::support::*;

const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn a_zone_s_document_names_its_endpoints_and_the_issuer_it_was_found_by() {
    let world = World::new().await;
    let answer = world.get(&format!("{WELL_KNOWN}/zones/z-1")).await;
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    let expected = json!({
        "issuer": "https://sts.example/zones/z-1",
        "token_endpoint": "https://sts.example/zones/z-1/oauth/2/token",
        "jwks_uri": "https://sts.example/.well-known/jwks.json?zone_id=z-1",
        "response_types_supported": ["none"],
        "grant_types_supported": ["client_credentials", GRANT],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": "https://sts.example/zones/z-1/oauth/2/introspect",
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": "https://sts.example/zones/z-1/oauth/2/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "mandate_issuer": "https://sts.example",
    });
    assert_eq!((answer.status, &answer.json), (200, &expected));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "public, max-age=300, must-revalidate");
    assert_eq!(world.get(&format!("/zones/z-1{WELL_KNOWN}")).await.json, expected);
}

#[tokio::test]
async fn a_document_is_had_before_the_first_key_and_says_nothing_of_whether_the_zone_exists() {
    let world = World::new().await;
    let known = world.get(&format!("{WELL_KNOWN}/zones/{ZONE}")).await;
    let unknown = world.get(&format!("{WELL_KNOWN}/zones/z-9")).await;
    assert_eq!((known.status, unknown.status), (200, 200));
    let renamed = String::from_utf8(unknown.body).unwrap().replace("z-9", ZONE);
    assert_eq!(renamed.as_bytes(), known.body);
    // Nothing is read for it either.
    world.store.close().await;
    assert_eq!(world.get(&format!("{WELL_KNOWN}/zones/z-1")).await.status, 200);
}

#[tokio::test]
async fn paths_that_are_no_zone_s_issuer_have_no_document() {
    let world = World::new().await;
    for path in ["/zones", "/zones/", "/z-1", "/zones/z-1/", "/zones/a%20b", "/zones/%ff", "/zones/a%2Fb", ""] {
        let answer = world.get(&format!("{WELL_KNOWN}{path}")).await;
        assert_eq!(answer.outcome(), "404 resource_not_found", "{path}");
    }
    for path in ["/zones/a%20b", "/zones/%ff"] {
        assert_eq!(world.get(&format!("{path}{WELL_KNOWN}")).await.outcome(), "404 resource_not_found", "{path}");
    }
}
