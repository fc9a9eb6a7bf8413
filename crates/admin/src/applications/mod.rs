//! Applications (contract: admin-api.md §5.2).

pub(crate) mod archive;
pub(crate) mod create;
pub(crate) mod desired;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod register;
pub(crate) mod reveal_secret;
pub(crate) mod rotate_secret;
mod secret;
mod traits;
pub(crate) mod update;

use caracal_authority::{ApplicationId, Timestamp, ZoneId};
use caracal_store::ZoneRead;
use caracal_store::applications::{self, Application};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::openapi::shape::described;
use crate::problem::Refusal;

described! {
    /// An application as answers show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        #[serde(flatten)]
        core: Core<'a>,
        archived_at: Option<Timestamp>,
        /// Only global tokens see them: a zone's own operators have no business with control keys.
        #[serde(skip_serializing_if = "Option::is_none")]
        traits: Option<&'a [String]>,
    }
}

described! {
    /// What every answer about an application has, the one with its secret included.
    #[derive(Serialize)]
    pub(crate) struct Core<'a> {
        id: &'a ApplicationId,
        zone_id: &'a ZoneId,
        name: &'a str,
        registration_method: &'a str,
        expires_at: Option<Timestamp>,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

described! {
    /// The one answer that shows a secret: to whoever just made it.
    #[derive(Serialize)]
    pub(crate) struct WithSecret<'a> {
        #[serde(flatten)]
        core: Core<'a>,
        client_secret: &'a str,
    }
}

impl<'a> View<'a> {
    fn of(application: &'a Application, is_global: bool) -> Self {
        Self {
            core: application.into(),
            archived_at: application.archived_at,
            traits: is_global.then_some(&application.traits),
        }
    }
}

impl<'a> WithSecret<'a> {
    fn of(application: &'a Application, client_secret: &'a str) -> Self {
        Self { core: application.into(), client_secret }
    }
}

impl<'a> From<&'a Application> for Core<'a> {
    fn from(application: &'a Application) -> Self {
        Self {
            id: &application.id,
            zone_id: &application.zone_id,
            name: &application.name,
            registration_method: &application.registration_method,
            expires_at: application.expires_at,
            by: (&application.attribution).into(),
        }
    }
}

/// The application, if it exists for the outside: archived is absent.
async fn existing(tx: &mut ZoneRead<'_>, id: &ApplicationId) -> Result<Application, Refusal> {
    let found = applications::lookup(tx, id).await?.filter(|application| application.archived_at.is_none());
    found.ok_or_else(missing)
}

fn missing() -> Refusal {
    Refusal::missing("application_not_found")
}

/// Names of managed applications are unique in a zone, case aside.
async fn require_free_name(tx: &mut ZoneRead<'_>, name: &str, except: Option<&ApplicationId>) -> Result<(), Refusal> {
    match applications::find_managed_by_name(tx, name, except).await? {
        None => Ok(()),
        Some(_) => Err(Refusal::conflict("application_name_taken")),
    }
}
