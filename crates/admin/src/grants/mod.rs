//! Delegated grants: a user may be represented by an application on a resource (contract: policy.md §11). They are records
//! for people. No decision reads one; revoking one ends what its user holds.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod revoke;

use caracal_authority::{ApplicationId, GrantId, ResourceId, Timestamp, ZoneId};
use caracal_store::grants::Grant;
use serde::Serialize;

use crate::input::{Form, Text};
use crate::openapi::shape::described;

described! {
    /// What every answer about a grant has.
    #[derive(Serialize)]
    struct Core<'a> {
        id: &'a GrantId,
        zone_id: &'a ZoneId,
        application_id: &'a ApplicationId,
        user_id: &'a str,
        resource_id: &'a ResourceId,
        scopes: &'a [String],
        status: &'a str,
        created_by: Option<&'a str>,
        created_via_operator: bool,
        created_at: Timestamp,
    }
}

described! {
    /// A grant with who changed it.
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(flatten)]
        core: Core<'a>,
        updated_by: Option<&'a str>,
        updated_via_operator: bool,
    }
}

impl<'a> From<&'a Grant> for Core<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            id: &grant.id,
            zone_id: &grant.zone_id,
            application_id: &grant.application_id,
            user_id: &grant.user_id,
            resource_id: &grant.resource_id,
            scopes: &grant.scopes,
            status: &grant.status,
            created_by: grant.attribution.created_by.as_deref(),
            created_via_operator: grant.attribution.created_via_operator,
            created_at: grant.attribution.created_at,
        }
    }
}

impl<'a> From<&'a Grant> for View<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            core: grant.into(),
            updated_by: grant.attribution.updated_by.as_deref(),
            updated_via_operator: grant.attribution.updated_via_operator.unwrap_or(false),
        }
    }
}

/// Most scopes of a grant, and of a filter.
const MAX_SCOPES: usize = 64;
/// A scope that a grant can have.
const SCOPE: Text = Text::exact(1, 200).like(Form {
    pattern: "^[a-z0-9:_./-]+$",
    is: is_scope,
    what: "must be 1 to 200 characters out of a-z, 0-9, `:`, `_`, `.`, `/` and `-`",
});

fn is_scope(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":_./-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::input::Fields;

    #[test]
    fn a_scope_of_a_grant_is_small_and_has_no_capitals() {
        for (text, expected) in [
            ("n:read", true),
            ("a_b./-9", true),
            ("", false),
            ("Read", false),
            ("a b", false),
            ("a\"b", false),
            ("ä", false),
            (&"a".repeat(200), true),
            (&"a".repeat(201), false),
        ] {
            let taken = Fields::of(Some(json!({"scope": text}))).unwrap().text("scope", SCOPE);
            assert_eq!(taken.is_ok(), expected, "{text}");
        }
    }
}
