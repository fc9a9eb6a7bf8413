//! From a form to a typed token request (contract: sts.md §3.2, §3.3). Every malformed form ends here.

use caracal_authority::exchange::ResourceNames;
use caracal_http::form::Form;
use http::HeaderMap;
use zeroize::Zeroizing;

use crate::standards::Door;
use crate::standards::credentials::ClientCredentials;

/// The contract's only grant.
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What an application asks for itself alone, at its zone's own endpoint (RFC 6749 §4.4).
pub(crate) const CLIENT_CREDENTIALS: &str = "client_credentials";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// Fields whose mere presence, even empty, is refused: this service knows no actor tokens and no client assertions.
const FORBIDDEN: [&str; 3] = ["actor_token", "client_assertion", "client_assertion_type"];

/// Fields of an exchange that speaks for more than the application itself.
const NOT_OF_A_CLIENT: [&str; 5] =
    ["subject_token", "subject_token_type", "session_id", "agent_session_id", "delegation_edge_id"];

/// More resources than this are no request for a mandate: a delegation can't name more either. Evidence is kept for
/// each of them, and one small form must not be able to ask for megabytes of it.
const MOST_RESOURCES: usize = 64;

/// A mandate has 4096 bytes; a longer text never fits into one, and would be kept with the evidence of every resource.
const LONGEST_SCOPE: usize = 4096;

/// A form that is not a token request. All of them are 400 `invalid_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestFault {
    #[error("`{0}` is not supported")]
    Forbidden(&'static str),
    #[error("ttl_seconds must be a whole number")]
    Ttl,
    #[error("resource must not be empty")]
    EmptyResource,
    #[error("more than {MOST_RESOURCES} resources")]
    TooManyResources,
    #[error("scope is longer than {LONGEST_SCOPE} bytes")]
    ScopeTooLong,
    #[error("grant_type must be urn:ietf:params:oauth:grant-type:token-exchange")]
    GrantType,
    #[error("subject_token_type is not supported")]
    SubjectTokenType,
    #[error("`{0}` does not go with grant_type client_credentials; use token exchange")]
    NotOfAClient(&'static str),
    #[error("subject_token needs a subject_token_type")]
    TokenWithoutType,
    #[error("subject_token_type needs a subject_token")]
    TypeWithoutToken,
    #[error(
        "the request names two applications; name one, as application_id or client_id or in the authorization header"
    )]
    TwoApplications,
    #[error("client_secret is in the form and in the authorization header; send it in one of them")]
    TwoSecrets,
    #[error(
        "the authorization header holds no readable Basic credentials: base64 of the form-encoded id, `:` and secret"
    )]
    Basic,
    #[error("zone_id is not the zone of this endpoint")]
    AnotherZone,
    #[error("token is required")]
    NoToken,
    #[error("`{0}` is required")]
    Missing(&'static str),
}

/// A form past the checks that come before the Gateway's signature is looked at.
pub(crate) struct Screened {
    form: Form,
    ttl_seconds: Option<i64>,
}

/// What was presented as `subject_token`.
pub(crate) enum PresentedToken {
    /// A mandate of this service.
    Access(Zeroizing<String>),
    /// A token of a zone's identity provider.
    Id(Zeroizing<String>),
}

/// A token request. Texts are trimmed; an empty one is as good as none.
pub(crate) struct TokenRequest {
    pub(crate) zone: Option<String>,
    pub(crate) application: Option<String>,
    pub(crate) client_secret: Option<Zeroizing<String>>,
    pub(crate) resources: ResourceNames,
    /// As sent.
    pub(crate) scope: String,
    pub(crate) subject_token: Option<PresentedToken>,
    pub(crate) record: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) delegation: Option<String>,
    pub(crate) ttl_seconds: Option<i64>,
    pub(crate) approval: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
}

impl Screened {
    /// Steps 2 and 3 of §3.3.
    pub(crate) fn screen(form: Form) -> Result<Self, RequestFault> {
        if let Some(name) = FORBIDDEN.into_iter().find(|name| form.get(name).is_some()) {
            return Err(RequestFault::Forbidden(name));
        }
        let ttl_seconds = match form.get("ttl_seconds") {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| RequestFault::Ttl)?),
        };
        Ok(Self { form, ttl_seconds })
    }

    /// The id that a Gateway's exchange names, for the check that comes first of its checks.
    pub(crate) fn gateway_request_id(&self) -> Option<&str> {
        self.form.get("gateway_request_id")
    }

    /// Steps 5 to 9 of §3.3. By a zone's own door, the zone is the door's.
    pub(crate) fn parse(mut self, door: Door<'_>) -> Result<TokenRequest, RequestFault> {
        let resources = ResourceNames::parse(self.form.all("resource")).map_err(|_| RequestFault::EmptyResource)?;
        if resources.iter().nth(MOST_RESOURCES).is_some() {
            return Err(RequestFault::TooManyResources);
        }
        if self.form.get("scope").is_some_and(|scope| scope.len() > LONGEST_SCOPE) {
            return Err(RequestFault::ScopeTooLong);
        }
        match (self.form.get("grant_type"), door) {
            (Some(TOKEN_EXCHANGE), _) => {}
            // The same exchange, where it can mean nothing else.
            (Some(CLIENT_CREDENTIALS), Door::Zone(_)) => {
                let filled = |name: &&str| self.form.get(name).is_some_and(|value| !value.trim().is_empty());
                if let Some(name) = NOT_OF_A_CLIENT.into_iter().find(filled) {
                    return Err(RequestFault::NotOfAClient(name));
                }
            }
            _ => return Err(RequestFault::GrantType),
        }
        let kind = self.form.get("subject_token_type").unwrap_or_default().to_owned();
        if !matches!(kind.as_str(), "" | ACCESS_TOKEN | ID_TOKEN) {
            return Err(RequestFault::SubjectTokenType);
        }
        let token = self.form.take("subject_token").filter(|token| !token.is_empty());
        let subject_token = match (token, kind.as_str()) {
            (None, "") => None,
            (Some(_), "") => return Err(RequestFault::TokenWithoutType),
            (None, _) => return Err(RequestFault::TypeWithoutToken),
            (Some(token), ID_TOKEN) => Some(PresentedToken::Id(token)),
            (Some(token), _) => Some(PresentedToken::Access(token)),
        };
        let ClientCredentials { application, secret } = ClientCredentials::of_form(&mut self.form)?;
        let zone = door.zone(&self.form)?;
        let trimmed = |name: &str| {
            let text = self.form.get(name)?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Ok(TokenRequest {
            zone,
            application,
            resources,
            scope: self.form.get("scope").unwrap_or_default().to_owned(),
            record: trimmed("session_id"),
            session: trimmed("agent_session_id"),
            delegation: trimmed("delegation_edge_id"),
            approval: trimmed("approval_id"),
            method: trimmed("request_method").map(|method| method.to_ascii_uppercase()),
            // Compared with the bytes that go upstream: nothing is trimmed off it (difference D18).
            path: self.form.get("request_path").map(str::to_owned),
            client_secret: secret,
            subject_token,
            ttl_seconds: self.ttl_seconds,
        })
    }
}

impl TokenRequest {
    /// The same with what the `Authorization` header says of the client (RFC 6749 §2.3.1).
    pub(crate) fn or_by_basic(mut self, headers: &HeaderMap) -> Result<Self, RequestFault> {
        let in_form = ClientCredentials { application: self.application, secret: self.client_secret };
        let ClientCredentials { application, secret } = in_form.or_by_basic(headers)?;
        (self.application, self.client_secret) = (application, secret);
        Ok(self)
    }
}

#[cfg(test)]
mod t02_sts_form {
    use super::*;

    fn parse(body: &str) -> Result<TokenRequest, RequestFault> {
        parse_at(Door::Contract, body)
    }

    fn parse_at(door: Door<'_>, body: &str) -> Result<TokenRequest, RequestFault> {
        let form = Form::parse_fields(body.as_bytes(), &["resource"]).unwrap();
        Screened::screen(form)?.parse(door)
    }

    const GRANT: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange";
    const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";

    #[test]
    fn the_first_failing_check_in_the_contract_s_order_is_the_answer() {
        let rows = [
            ("actor_token=&client_assertion=x&ttl_seconds=abc".to_owned(), RequestFault::Forbidden("actor_token")),
            ("client_assertion=&client_assertion_type=".to_owned(), RequestFault::Forbidden("client_assertion")),
            ("client_assertion_type=".to_owned(), RequestFault::Forbidden("client_assertion_type")),
            ("ttl_seconds=abc&resource=".to_owned(), RequestFault::Ttl),
            ("ttl_seconds=1.5".to_owned(), RequestFault::Ttl),
            ("ttl_seconds=99999999999999999999".to_owned(), RequestFault::Ttl),
            ("resource=&grant_type=x".to_owned(), RequestFault::EmptyResource),
            ("resource=a&resource=%20".to_owned(), RequestFault::EmptyResource),
            ("subject_token_type=x".to_owned(), RequestFault::GrantType),
            ("grant_type=client_credentials".to_owned(), RequestFault::GrantType),
            (
                format!("{GRANT}&subject_token_type=urn:ietf:params:oauth:token-type:jwt"),
                RequestFault::SubjectTokenType,
            ),
            (format!("{GRANT}&subject_token=x"), RequestFault::TokenWithoutType),
            (format!("{GRANT}&subject_token_type={ACCESS}"), RequestFault::TypeWithoutToken),
            (format!("{GRANT}&subject_token_type={ACCESS}&subject_token="), RequestFault::TypeWithoutToken),
        ];
        for (body, expected) in rows {
            assert_eq!(parse(&body).err(), Some(expected), "{body}");
        }
    }

    #[test]
    fn resources_are_trimmed_distinct_and_sorted() {
        let request = parse(&format!("{GRANT}&resource=b&resource= a&resource=a&resource=B")).unwrap();
        assert_eq!(request.resources.iter().collect::<Vec<_>>(), ["B", "a", "b"]);
    }

    #[test]
    fn what_no_mandate_could_carry_is_refused_before_anything_is_read_for_it() {
        let names = |count: usize| (0..count).map(|n| format!("&resource=r{n}")).collect::<String>();
        assert!(parse(&format!("{GRANT}{}{}", names(64), names(64))).is_ok());
        assert_eq!(parse(&format!("{GRANT}{}", names(65))).err(), Some(RequestFault::TooManyResources));
        assert!(parse(&format!("{GRANT}&scope={}", "a".repeat(4096))).is_ok());
        assert_eq!(parse(&format!("{GRANT}&scope={}", "a".repeat(4097))).err(), Some(RequestFault::ScopeTooLong));
    }

    #[test]
    fn an_empty_text_is_as_good_as_none_and_the_path_keeps_its_bytes() {
        let request = parse(&format!(
            "{GRANT}&zone_id=+z+&application_id=&ttl_seconds=&session_id=%20&request_path=/a%20&request_method=+get&scope=+a++b"
        ))
        .unwrap();
        assert_eq!(request.zone.as_deref(), Some("z"));
        assert_eq!((request.application, request.record, request.ttl_seconds), (None, None, None));
        assert_eq!((request.path.as_deref(), request.method.as_deref()), (Some("/a "), Some("GET")));
        assert_eq!(request.scope, " a  b");
        assert_eq!(parse(&format!("{GRANT}&ttl_seconds=-1")).unwrap().ttl_seconds, Some(-1));
    }

    #[test]
    fn client_id_is_another_name_of_the_application_and_two_names_are_refused() {
        for (fields, expected) in [
            ("client_id=app", Ok(Some("app"))),
            ("client_id=+app+&application_id=app", Ok(Some("app"))),
            ("client_id=&application_id=app", Ok(Some("app"))),
            ("client_id=app&application_id=+", Ok(Some("app"))),
            ("client_id=+", Ok(None)),
            ("client_id=other&application_id=app", Err(RequestFault::TwoApplications)),
        ] {
            let parsed = parse(&format!("{GRANT}&{fields}")).map(|request| request.application);
            assert_eq!(parsed, expected.map(|found| found.map(str::to_owned)), "{fields}");
        }
    }

    #[test]
    fn client_credentials_is_a_grant_of_a_zone_s_own_door_and_of_the_application_alone() {
        let zone = Door::Zone("z-1");
        assert_eq!(parse_at(zone, "grant_type=client_credentials").unwrap().zone.as_deref(), Some("z-1"));
        assert_eq!(parse_at(zone, "grant_type=client_credentials&zone_id=+z-1").unwrap().zone.as_deref(), Some("z-1"));
        assert_eq!(parse_at(zone, GRANT).unwrap().zone.as_deref(), Some("z-1"));
        assert_eq!(parse_at(zone, "grant_type=password").err(), Some(RequestFault::GrantType));
        let elsewhere = parse_at(zone, "grant_type=client_credentials&zone_id=z-2").err();
        assert_eq!(elsewhere, Some(RequestFault::AnotherZone));
        for name in NOT_OF_A_CLIENT {
            let filled = parse_at(zone, &format!("grant_type=client_credentials&{name}=x")).err();
            assert_eq!(filled, Some(RequestFault::NotOfAClient(name)));
            assert!(parse_at(zone, &format!("grant_type=client_credentials&{name}=")).is_ok(), "{name}");
        }
    }
}
