//! The description of the management API as OpenAPI 3.1, made from the operations themselves.
//!
//! Somebody adds a member to a body: `fields.flag("check")`. Nothing else has to be written, because what the document says
//! about a body comes from the function that reads bodies, run once on [`Notes`](notes::Notes) in the place of a body: every
//! `text`, `choice` or `flag` notes what it would take, and takes nothing. Queries are noted the same way, and what answers
//! look like comes from the types that are serialised ([`described!`](shape)). A route can't be in the table without a
//! [`Spec`](spec::Spec), so none is undescribed.
//!
//! What a type can't say, the spec beside the handler does: which codes an operation refuses with. The tests hold every
//! answer they get, from any operation, against the document, so a code or a member that is not in it fails there.

mod document;
pub(crate) mod notes;
mod page;
pub(crate) mod shape;
pub(crate) mod spec;

pub use document::document;
pub(crate) use page::{as_json, as_page};
