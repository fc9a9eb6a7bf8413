//! Who made and who last changed an object, as answers show it (contract: admin-api.md §1.7).

use caracal_authority::Timestamp;
use caracal_store::Attribution;
use serde::Serialize;

use crate::openapi::shape::described;

described! {
    /// The attribution members of an object.
    #[derive(Serialize)]
    pub(crate) struct Attributed<'a> {
        created_by: Option<&'a str>,
        created_via_operator: bool,
        updated_by: Option<&'a str>,
        updated_via_operator: bool,
        created_at: Timestamp,
        updated_at: Option<Timestamp>,
    }
}

impl<'a> From<&'a Attribution> for Attributed<'a> {
    fn from(by: &'a Attribution) -> Self {
        Self {
            created_by: by.created_by.as_deref(),
            created_via_operator: by.created_via_operator,
            updated_by: by.updated_by.as_deref(),
            updated_via_operator: by.updated_via_operator.unwrap_or(false),
            created_at: by.created_at,
            updated_at: by.updated_at,
        }
    }
}

/// Notes that `by` changed the object at `now`.
pub(crate) fn changed(attribution: &mut Attribution, by: &str, now: Timestamp) {
    attribution.updated_by = Some(by.to_owned());
    attribution.updated_via_operator = Some(false);
    attribution.updated_at = Some(now);
}
