//! Subjects, and the way to stop one at once (contract: admin-api.md §5.8).

pub(crate) mod list;
pub(crate) mod overview;
pub(crate) mod revoke;

use caracal_authority::Timestamp;
use caracal_store::subjects::Subject;
use serde::Serialize;

use crate::input::Text;
use crate::openapi::shape::described;
use crate::problem::Refusal;

/// What a subject's id may be: an identity provider chose it.
const ID: Text = Text::exact(1, 512);

described! {
    /// A subject as answers show it: what its records tell.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        subject_id: &'a str,
        federated: bool,
        application_name: Option<&'a str>,
        total_sessions: i64,
        active_sessions: i64,
        revoked_sessions: i64,
        first_seen: Timestamp,
        last_seen: Timestamp,
        last_revoked_at: Option<Timestamp>,
        issuer: Option<&'a str>,
    }
}

impl<'a> From<&'a Subject> for View<'a> {
    fn from(subject: &'a Subject) -> Self {
        Self {
            subject_id: &subject.id,
            federated: subject.is_user,
            application_name: subject.application_name.as_deref(),
            total_sessions: subject.total,
            active_sessions: subject.active,
            revoked_sessions: subject.revoked,
            first_seen: subject.first_seen,
            last_seen: subject.last_seen,
            last_revoked_at: subject.last_revoked,
            issuer: subject.provenance.as_ref().map(|provenance| provenance.iss.as_str()),
        }
    }
}

fn missing() -> Refusal {
    Refusal::missing("subject_not_found").describe("no authority was ever granted to this subject in the zone")
}
