//! Zones (contract: admin-api.md §5.1).

pub(crate) mod archive;
pub(crate) mod create;
pub(crate) mod dcr_status;
pub(crate) mod list;
pub(crate) mod overview;
pub(crate) mod read;
pub(crate) mod update;

use caracal_authority::ZoneId;
use caracal_store::ZoneRead;
use caracal_store::zones::{self, Zone};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::openapi::shape::described;
use crate::problem::Refusal;

described! {
    /// A zone as answers show it. To whom it belongs is not shown.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a ZoneId,
        name: &'a str,
        slug: &'a str,
        dcr_enabled: bool,
        operator_coauthor_badge: bool,
        operator_governed: bool,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

impl<'a> From<&'a Zone> for View<'a> {
    fn from(zone: &'a Zone) -> Self {
        Self {
            id: &zone.id,
            name: &zone.name,
            slug: &zone.slug,
            dcr_enabled: zone.dcr_enabled,
            operator_coauthor_badge: zone.operator_coauthor_badge,
            operator_governed: zone.operator_governed,
            by: (&zone.attribution).into(),
        }
    }
}

/// For what is created in a zone: it must still be there when the change commits.
pub(crate) async fn require_live_zone(tx: &mut ZoneRead<'_>) -> Result<(), Refusal> {
    live(tx).await.map(|_| ())
}

/// The zone, if it is there and not archived.
pub(crate) async fn live(tx: &mut ZoneRead<'_>) -> Result<Zone, Refusal> {
    let zone = zones::lookup(tx).await?.filter(|zone| zone.archived_at.is_none());
    zone.ok_or_else(|| Refusal::missing("zone_not_found"))
}
