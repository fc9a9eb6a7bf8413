//! Every kind of row: what goes in comes out, absent values as absent ones; lists and changes touch what they say.
#![allow(missing_docs, reason = "a case says in its name what it shows")]

pub(super) mod samples;

mod approvals;
mod connections;
mod envelopes;
mod evidence;
mod leases;
mod management;
mod named;
mod notifications;
mod operations;
mod oversight;
mod runtime;
mod services;

pub use approvals::*;
pub use connections::*;
pub use envelopes::*;
pub use evidence::*;
pub use leases::*;
pub use management::*;
pub use named::*;
pub use notifications::*;
pub use operations::*;
pub use oversight::*;
pub use runtime::*;
pub use services::*;
