//! Reading governed sessions (contract: admin-api.md §5.12). They are started and ended at the Coordinator.

pub(crate) mod list;
