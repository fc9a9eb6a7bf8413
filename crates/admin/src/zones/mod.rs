//! Zones (contract: admin-api.md §5.1).

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod read;

use caracal_authority::ZoneId;
use caracal_store::ZoneWrite;
use caracal_store::zones::{self, Zone};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::problem::Refusal;

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
pub(crate) async fn require_live_zone(tx: &mut ZoneWrite<'_>) -> Result<(), Refusal> {
    let zone = zones::lookup(tx).await?;
    match zone.filter(|zone| zone.archived_at.is_none()) {
        Some(_) => Ok(()),
        None => Err(Refusal::missing("zone_not_found")),
    }
}
