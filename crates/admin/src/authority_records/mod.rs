//! Reading authority records (contract: admin-api.md §5.12).

pub(crate) mod list;
