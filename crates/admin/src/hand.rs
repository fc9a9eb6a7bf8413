//! Who makes a change, with what it takes to make one: the part that changes of most kinds carry into their commit.

use std::sync::Arc;

use caracal_custody::SealedSecrets;

use crate::Admin;
use crate::evidence::Trace;
use crate::gate::{Call, InZone};
use crate::problem::Refusal;
use crate::reserved;

/// The maker of a change.
#[derive(Clone)]
pub(crate) struct Hand {
    /// As whom the change is kept.
    pub(crate) by: String,
    /// Whether it may touch what is reserved.
    pub(crate) may_reserve: bool,
    /// Whether its token is bound to no zone.
    pub(crate) is_global: bool,
    /// The control resource's identifier.
    pub(crate) control: String,
    /// Custody.
    pub(crate) sealed: SealedSecrets,
    /// What the evidence will say.
    pub(crate) trace: Arc<Trace>,
}

impl Hand {
    /// Of the caller.
    pub(crate) fn of(admin: &Admin, call: &Call<InZone>) -> Self {
        Self {
            by: call.caller.actor(),
            may_reserve: call.caller.is_bootstrap(),
            is_global: call.caller.is_global(),
            control: admin.config.control_audience.clone(),
            sealed: admin.sealed.clone(),
            trace: call.trace.clone(),
        }
    }

    /// Refuses to touch a reserved name unless this hand may.
    pub(crate) fn guard(&self, value: &str, prefix: &str) -> Result<(), Refusal> {
        reserved::guard(self.may_reserve, value, prefix)
    }
}
