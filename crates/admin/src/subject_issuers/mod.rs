//! Identity providers whose users a zone takes in (contract: admin-api.md §5.7).
//!
//! A registration is trust: whoever holds a key of what `jwks_url` publishes can be any user of the zone. So each is
//! named exactly, its keys come over TLS only, and the issuer of one that is there can't be changed into another.

pub(crate) mod archive;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod update;

use caracal_authority::{SubjectIssuerId, ZoneId};
use caracal_http::egress::TargetUrl;
use caracal_store::subject_issuers::{self, SubjectIssuer};
use caracal_store::{StoreError, ZoneRead};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::input::{Fields, Form, Mismatch, Text};
use crate::openapi::shape::described;
use crate::problem::Refusal;

const INVALID: &str = "invalid_subject_issuer";
const URL: Text = Text::exact(1, 2048).like(Form {
    pattern: r"^[Hh][Tt][Tt][Pp][Ss]://[^?#@]+$",
    is: |text| !text.contains(['?', '#']) && TargetUrl::parse(text).is_ok_and(|url| url.is_https()),
    what: "must be an https url without user information, query or fragment",
});
const AUDIENCE: Text = Text::exact(1, 512);

described! {
    /// A registration as answers show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a SubjectIssuerId,
        zone_id: &'a ZoneId,
        issuer: &'a str,
        jwks_url: &'a str,
        audience: &'a str,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

impl<'a> From<&'a SubjectIssuer> for View<'a> {
    fn from(row: &'a SubjectIssuer) -> Self {
        Self {
            id: &row.id,
            zone_id: &row.zone_id,
            issuer: &row.issuer,
            jwks_url: &row.jwks_url,
            audience: &row.audience,
            by: (&row.attribution).into(),
        }
    }
}

/// The registration, if it is there and not archived.
async fn existing(tx: &mut ZoneRead<'_>, id: &SubjectIssuerId) -> Result<SubjectIssuer, Refusal> {
    let found = subject_issuers::lookup(tx, id).await?.filter(|row| row.archived_at.is_none());
    found.ok_or_else(missing)
}

fn missing() -> Refusal {
    Refusal::missing("subject_issuer_not_found")
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("subject_issuers.issuer") {
        Refusal::conflict("subject_issuer_exists")
            .describe("this zone has a registration of that issuer; change or archive it")
    } else {
        error.into()
    }
}

/// The member `name`: an https address and nothing besides.
fn address(fields: &mut Fields, name: &str) -> Result<Option<String>, Mismatch> {
    fields.text(name, URL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_https_and_hides_nothing() {
        for (text, accepted) in [
            ("https://idp.example", true),
            ("https://idp.example/", true),
            ("https://idp.example:8443/realms/a%20b/", true),
            ("https://idp.example/@x", true),
            ("http://idp.example", false),
            ("HTTP://idp.example", false),
            ("https://u@h", false),
            ("https://u:p@h/x", false),
            ("https://h?x=1", false),
            ("https://h/?", false),
            ("https://h#f", false),
            ("https://h/#", false),
            (" https://h", false),
            ("https://h/a b", false),
            ("https:/h", false),
            ("https://", false),
            ("idp.example", false),
            ("", false),
        ] {
            let mut fields = Fields::of(Some(json!({"issuer": text}))).unwrap();
            assert_eq!(address(&mut fields, "issuer").is_ok(), accepted, "{text}");
        }
    }
}
