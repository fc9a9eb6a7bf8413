//! From a form to a typed token request (contract: sts.md §3.2, §3.3). Every malformed form ends here.

use caracal_authority::exchange::ResourceNames;
use caracal_http::form::Form;
use zeroize::Zeroizing;

/// The only grant.
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// Fields whose mere presence, even empty, is refused: this service knows no actor tokens and no client assertions.
const FORBIDDEN: [&str; 3] = ["actor_token", "client_assertion", "client_assertion_type"];

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
    #[error("subject_token needs a subject_token_type")]
    TokenWithoutType,
    #[error("subject_token_type needs a subject_token")]
    TypeWithoutToken,
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

    /// Steps 5 to 9 of §3.3.
    pub(crate) fn parse(mut self) -> Result<TokenRequest, RequestFault> {
        let resources = ResourceNames::parse(self.form.all("resource")).map_err(|_| RequestFault::EmptyResource)?;
        if resources.iter().nth(MOST_RESOURCES).is_some() {
            return Err(RequestFault::TooManyResources);
        }
        if self.form.get("scope").is_some_and(|scope| scope.len() > LONGEST_SCOPE) {
            return Err(RequestFault::ScopeTooLong);
        }
        if self.form.get("grant_type") != Some(TOKEN_EXCHANGE) {
            return Err(RequestFault::GrantType);
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
        let client_secret = self.form.take("client_secret");
        let trimmed = |name: &str| {
            let text = self.form.get(name)?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Ok(TokenRequest {
            zone: trimmed("zone_id"),
            application: trimmed("application_id"),
            resources,
            scope: self.form.get("scope").unwrap_or_default().to_owned(),
            record: trimmed("session_id"),
            session: trimmed("agent_session_id"),
            delegation: trimmed("delegation_edge_id"),
            approval: trimmed("approval_id"),
            method: trimmed("request_method").map(|method| method.to_ascii_uppercase()),
            // Compared with the bytes that go upstream: nothing is trimmed off it (difference D18).
            path: self.form.get("request_path").map(str::to_owned),
            client_secret,
            subject_token,
            ttl_seconds: self.ttl_seconds,
        })
    }
}

#[cfg(test)]
mod t02_sts_form {
    use super::*;

    fn parse(body: &str) -> Result<TokenRequest, RequestFault> {
        let form = Form::parse_fields(body.as_bytes(), &["resource"]).unwrap();
        Screened::screen(form)?.parse()
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
}
