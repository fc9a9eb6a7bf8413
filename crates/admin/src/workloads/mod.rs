//! Workloads: what is launched with credentials in its environment (contract: admin-api.md §5.3). What a binding gives, and
//! when, is the STS's to say; here it is written down.

mod bindings;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod remove;
pub(crate) mod reveal_secret;
pub(crate) mod rotate_secret;
mod secret;
pub(crate) mod update;

use caracal_authority::{WorkloadId, ZoneId};
use caracal_store::workloads::{self, Binding, Workload};
use caracal_store::{StoreError, ZoneRead};
use serde::Serialize;

use crate::attribution::Attributed;
use crate::input::Text;
use crate::openapi::shape::described;
use crate::problem::Refusal;

const INVALID: &str = "invalid_workload";
const NAME: Text = Text::trimmed(1, 200);

described! {
    /// A workload as answers show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a WorkloadId,
        zone_id: &'a ZoneId,
        name: &'a str,
        bindings: Vec<Binding>,
        #[serde(flatten)]
        by: Attributed<'a>,
    }
}

described! {
    /// The one answer that shows a secret to whoever just made it.
    #[derive(Serialize)]
    pub(crate) struct WithSecret<'a> {
        #[serde(flatten)]
        workload: View<'a>,
        secret: &'a str,
    }
}

impl<'a> View<'a> {
    fn of(workload: &'a Workload) -> Result<Self, StoreError> {
        Ok(Self {
            id: &workload.id,
            zone_id: &workload.zone_id,
            name: &workload.name,
            bindings: workload.bindings.read()?,
            by: (&workload.attribution).into(),
        })
    }
}

impl<'a> WithSecret<'a> {
    fn of(workload: &'a Workload, secret: &'a str) -> Result<Self, StoreError> {
        Ok(Self { workload: View::of(workload)?, secret })
    }
}

/// The workload, if it is there.
async fn existing(tx: &mut ZoneRead<'_>, id: &WorkloadId) -> Result<Workload, Refusal> {
    workloads::lookup(tx, id).await?.ok_or_else(missing)
}

fn missing() -> Refusal {
    Refusal::missing("workload_not_found")
}

/// Names are unique in a zone, case aside.
async fn require_free_name(tx: &mut ZoneRead<'_>, name: &str, except: Option<&WorkloadId>) -> Result<(), Refusal> {
    match workloads::find_by_name(tx, name, except).await? {
        None => Ok(()),
        Some(_) => Err(Refusal::conflict("workload_name_taken")
            .describe("another workload of this zone has that name; names that differ only in case are one")),
    }
}
