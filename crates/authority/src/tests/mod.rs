//! Tests that look at the crate as its users do. Modules named `t02_…` and `t04_…` prove rows of the assurance case.

mod active;
mod approvals;
mod approvers;
mod bindings;
mod delegations;
mod exchanges;
mod fixtures;
mod launches;
mod mandates;
mod refusals;
mod sessions;
mod t02_sts_algebra;
mod t02_sts_exchange;
mod t02_sts_federation;
mod t02_sts_missing_facts;
mod t04_state_constraints;
mod t04_state_graph;
mod t04_state_leases;
mod t04_state_model;
