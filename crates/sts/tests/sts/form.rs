//! What is not a token request (contract: sts.md §3.1 to §3.3). Each row gets its exact answer, costs no derivation and
//! writes nothing.

use axum::body::Body;
use http::Request;
use http::header::CONTENT_TYPE;

use crate::support::*;

const FORM: &str = "application/x-www-form-urlencoded";

fn raw(target: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(target).header(CONTENT_TYPE, content_type).body(body.into()).unwrap()
}

mod t02_sts_form {
    use super::*;

    #[tokio::test]
    async fn every_malformed_form_has_its_status_and_writes_nothing() {
        let world = World::counting_derivations().await;
        let whole = Ask::bootstrap().encoded();
        let form = |more: &str| raw("/oauth/2/token", FORM, format!("{whole}&{more}"));
        let jwt = "subject_token_type=urn:ietf:params:oauth:token-type:jwt";
        let access = "subject_token_type=urn:ietf:params:oauth:token-type:access_token";
        let rows = [
            ("a query", raw("/oauth/2/token?x=1", FORM, whole.clone()), "400 invalid_token"),
            ("a query and json", raw("/oauth/2/token?x=1", "application/json", "{}"), "400 invalid_token"),
            ("json", raw("/oauth/2/token", "application/json", "{}"), "415 invalid_token"),
            (
                "no media type",
                Request::post("/oauth/2/token").body(Body::from(whole.clone())).unwrap(),
                "415 invalid_token",
            ),
            ("a media type that is none", raw("/oauth/2/token", "form", whole.clone()), "415 invalid_token"),
            ("65537 bytes", raw("/oauth/2/token", FORM, vec![b'a'; 65_537]), "413 payload_too_large"),
            ("a bad escape", form("a=%zz"), "400 invalid_token"),
            ("a semicolon", form("a=1;b=2"), "400 invalid_token"),
            ("bytes that are no text", form("a=%ff"), "400 invalid_token"),
            ("scope twice", form("scope=b"), "400 invalid_token"),
            ("an unknown field twice", form("foo=1&foo=2"), "400 invalid_token"),
            ("the secret twice", form("client_secret=cs_example"), "400 invalid_token"),
            ("an actor token", form("actor_token="), "400 invalid_token"),
            ("a client assertion", form("client_assertion=x"), "400 invalid_token"),
            ("a client assertion type", form("client_assertion_type="), "400 invalid_token"),
            ("a ttl that is no number", form("ttl_seconds=abc"), "400 invalid_token"),
            ("an empty resource", form("resource="), "400 invalid_token"),
            ("a blank resource", form("resource=%20"), "400 invalid_token"),
            ("an unknown subject token type", form(jwt), "400 invalid_token"),
            ("a type without token", form(access), "400 invalid_token"),
            ("a token without type", form("subject_token=x"), "400 invalid_token"),
            (
                "another grant type",
                Ask::bootstrap().set("grant_type", "client_credentials").request(),
                "400 invalid_token",
            ),
            ("no grant type", Ask::bootstrap().without("grant_type").request(), "400 invalid_token"),
            ("an empty form", raw("/oauth/2/token", FORM, ""), "400 invalid_token"),
        ];
        for (what, request, expected) in rows {
            let answer = world.send(request).await;
            assert_eq!(answer.outcome(), expected, "{what}");
            assert_eq!(answer.header("content-type"), "application/json", "{what}");
            assert_eq!(answer.text("requestId"), answer.header("x-request-id"), "{what}");
            assert_eq!(answer.body.last(), Some(&b'\n'), "{what}");
        }
        let twice = world.send(form("foo=1&foo=2")).await;
        assert!(twice.text("error_description").contains("`foo`"));
        assert_eq!(world.verifier.derivations(), 0);
        assert!(world.evidence().await.is_empty());
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn a_charset_unknown_fields_and_a_full_body_are_no_fault() {
        let world = World::new().await;
        let whole = format!("{}&foo=1&bar", Ask::bootstrap().encoded());
        let padded = format!("{whole}&padding={}", "a".repeat(65_536 - whole.len() - 9));
        assert_eq!(padded.len(), 65_536);
        for request in [
            raw("/oauth/2/token", "application/x-www-form-urlencoded; charset=utf-8", whole.clone()),
            raw("/oauth/2/token?", FORM, whole),
            raw("/oauth/2/token", FORM, padded),
        ] {
            assert_eq!(world.send(request).await.status, 200);
        }
    }
}

mod t08_availability_form {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_body_that_never_comes_ends_with_its_deadline() {
        let world = World::configured(|config| config.body_deadline = Duration::from_millis(20)).await;
        let answer = world.send(raw("/oauth/2/token", FORM, Body::new(Silent))).await;
        assert_eq!(answer.outcome(), "400 invalid_token");
    }

    #[tokio::test]
    async fn evidence_does_not_grow_beyond_what_a_mandate_could_carry() {
        let world = World::new().await;
        let mut many = Ask::bootstrap();
        for number in 0..64 {
            many = many.add("resource", &format!("resource://{number}"));
        }
        assert_eq!(many.send(&world).await.outcome(), "400 invalid_token");
        let long = Ask::bootstrap().set("scope", &"s ".repeat(2_049));
        assert_eq!(long.send(&world).await.outcome(), "400 invalid_token");
        assert!(world.evidence().await.is_empty());
    }

    /// Sends nothing, for ever.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
}
