//! Who a client says it is and what proves it: in the form, or in the `Authorization` header (RFC 6749 §2.3.1).
//!
//! Two parsers of one request must not see two clients. So a secret in both places is refused, and so are two names; a
//! name alone may stand in the form beside Basic, as many libraries send it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_http::form::{self, Form};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::request::RequestFault;

/// What a client presented. The name is trimmed, and not empty; the secret is as it came.
#[derive(Default)]
pub(crate) struct ClientCredentials {
    pub(crate) application: Option<String>,
    pub(crate) secret: Option<Zeroizing<String>>,
}

impl ClientCredentials {
    /// Those of the form. `client_id` is OAuth's name of the contract's `application_id`.
    pub(crate) fn of_form(form: &mut Form) -> Result<Self, RequestFault> {
        let named = |field: &str| form.get(field).map(str::trim).filter(|name| !name.is_empty());
        let application = match (named("application_id"), named("client_id")) {
            (Some(ours), Some(theirs)) if ours != theirs => return Err(RequestFault::TwoApplications),
            (ours, theirs) => ours.or(theirs).map(str::to_owned),
        };
        Ok(Self { application, secret: form.take("client_secret") })
    }

    /// These, or those of the `Authorization` header when it says Basic. Other schemes are not looked at.
    pub(crate) fn or_by_basic(self, headers: &HeaderMap) -> Result<Self, RequestFault> {
        if !is_basic(headers) {
            return Ok(self);
        }
        let (application, secret) = basic(headers).ok_or(RequestFault::Basic)?;
        if self.secret.is_some() {
            return Err(RequestFault::TwoSecrets);
        }
        if self.application.is_some_and(|named| named != application) {
            return Err(RequestFault::TwoApplications);
        }
        Ok(Self { application: Some(application).filter(|name| !name.is_empty()), secret: Some(secret) })
    }
}

/// Whether any `Authorization` line says Basic.
pub(crate) fn is_basic(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|line| payload(line).is_some())
}

/// Name and secret of the one `Authorization` line, each form-decoded.
fn basic(headers: &HeaderMap) -> Option<(String, Zeroizing<String>)> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let decoded = Zeroizing::new(STANDARD.decode(payload(line)?.trim_ascii()).ok()?);
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, secret) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
    Some((form::decode(name).ok()?.trim().to_owned(), Zeroizing::new(form::decode(secret).ok()?)))
}

/// What follows the scheme, whose name has no case (RFC 9110 §11.1).
fn payload(line: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = line.as_bytes().split_at_checked("Basic".len())?;
    (scheme.eq_ignore_ascii_case(b"Basic") && rest.first().is_none_or(|byte| *byte == b' ')).then_some(rest)
}

#[cfg(test)]
mod t02_sts_form {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (AUTHORIZATION, line.parse().unwrap())).collect()
    }

    fn said(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    fn presented(form: &str, lines: &[&str]) -> Result<(Option<String>, Option<String>), RequestFault> {
        let mut form = Form::parse_fields(form.as_bytes(), &[]).unwrap();
        let found = ClientCredentials::of_form(&mut form)?.or_by_basic(&headers(lines))?;
        Ok((found.application, found.secret.map(|secret| secret.as_str().to_owned())))
    }

    #[test]
    fn name_and_secret_of_basic_are_form_decoded_and_split_at_the_first_colon() {
        for (text, name, secret) in [
            ("app:cs_1", "app", "cs_1"),
            ("app%3Aone:cs_%2B+%25:", "app:one", "cs_+ %:"),
            ("app:", "app", ""),
            ("app:a:b", "app", "a:b"),
        ] {
            let found = presented("", &[&said(text)]).unwrap();
            assert_eq!(found, (Some(name.to_owned()), Some(secret.to_owned())), "{text}");
        }
        assert_eq!(presented("", &[&said(":cs_1")]).unwrap(), (None, Some("cs_1".to_owned())));
        let spelt = presented("", &[&said("app:cs_1").replace("Basic", "bASIC")]).unwrap();
        assert_eq!(spelt.0.as_deref(), Some("app"));
    }

    #[test]
    fn a_secret_in_two_places_and_two_names_are_refused() {
        let basic = said("app:cs_1");
        assert_eq!(presented("client_secret=cs_1", &[&basic]), Err(RequestFault::TwoSecrets));
        assert_eq!(presented("client_secret=", &[&basic]), Err(RequestFault::TwoSecrets));
        assert_eq!(presented("client_id=other", &[&basic]), Err(RequestFault::TwoApplications));
        assert_eq!(presented("application_id=other", &[&basic]), Err(RequestFault::TwoApplications));
        assert!(presented("client_id=app&application_id=app", &[&basic]).is_ok());
    }

    #[test]
    fn basic_that_can_t_be_read_is_a_fault_and_other_schemes_are_not_looked_at() {
        let unreadable = |text: &str| presented("", &[text]).err();
        let unpadded = said("app:c").trim_end_matches('=').to_owned();
        let not_text = format!("Basic {}", STANDARD.encode([0xff, b':']));
        for line in ["Basic", "Basic ", "Basic %%%", &unpadded, &said("no colon"), &said("app:%zz"), &not_text] {
            assert_eq!(unreadable(line), Some(RequestFault::Basic), "{line}");
        }
        assert_eq!(presented("", &[&said("a:b"), "Bearer x"]), Err(RequestFault::Basic));
        for line in ["Bearer eyJ", "Basically x", "Digest a=b", ""] {
            assert_eq!(presented("client_id=app", &[line]).unwrap().0.as_deref(), Some("app"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_name_and_secret_a_client_has_basic_carries_them(name in ".{0,40}", secret in ".{0,60}") {
            let encoded = |text: &str| form::encode([("", text)]).split_off(1);
            let found = presented("", &[&said(&format!("{}:{}", encoded(&name), encoded(&secret)))]).unwrap();
            let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            prop_assert_eq!(found, (name, Some(secret)));
        }

        #[test]
        fn whatever_a_line_holds_it_is_credentials_or_a_fault_and_never_the_form_s(payload in "[ -~]{0,60}") {
            for line in [format!("Basic {payload}"), said(&payload)] {
                match presented("", &[&line]) {
                    Ok((_, secret)) => prop_assert!(secret.is_some()),
                    Err(fault) => prop_assert_eq!(fault, RequestFault::Basic),
                }
                prop_assert!(presented("client_secret=cs_1", &[&line]).is_err());
            }
        }
    }
}
