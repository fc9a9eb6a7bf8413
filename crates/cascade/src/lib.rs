//! What falls with a session or a delegation (contract: coordinator.md §9, differences D14, D15, D19).
//!
//! A session ends. Its children run on its authority, so they end; every edge from or to any of them lends nothing any
//! more, so it is revoked; and where the session was the last to act for a user, the user's record, which was proven for
//! that session, ends too. A request, a sweep, a lost lease, the kill switch and an archived application all bring about
//! the same thing, so all of them come here.
//!
//! `authority` says what falls ([`caracal_authority::delegation`]); this room gathers exactly the part of the zone that it
//! needs to know, and writes the result down with all its messages. All of it happens inside the caller's transaction. A
//! mint reads sessions and edges in its own, so it either committed before and is found by its anchors, or finds them ended
//! and fails (difference D4).
//!
//! - [`end_sessions`], [`revoke_edges`]: ends, which are final.
//! - [`suspend`], [`resume`]: a stop that can be taken back, so nothing lasting is published of it (D15).
//! - [`events`]: the messages of the life of sessions, edges and invocations.
//!
//! What must be absent here: who may ask for it, HTTP, SQL, and the graph rules themselves.

mod end;
pub mod events;
mod gather;
mod pause;

use std::str::FromStr;

use caracal_authority::Timestamp;
use caracal_crypto::chance::{self, ChanceUnavailable};
use caracal_store::StoreError;

pub use end::{Fallen, end_sessions, revoke_edges};
pub use gather::link;
pub use pause::{Suspension, resume, suspend};

/// A cascade that could not be written. The transaction must not commit.
#[derive(Debug, thiserror::Error)]
pub enum CascadeError {
    /// The store failed, or holds what it should not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes for the id of a message.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// A new id that is none: a defect of this program.
    #[error("a new id has an impossible form")]
    ImpossibleId,
}

/// A new id of any kind: lower-case UUIDv7 text.
pub fn new_id<I: FromStr>(now: Timestamp) -> Result<I, CascadeError> {
    chance::uuid_v7(now)?.to_string().parse().map_err(|_| CascadeError::ImpossibleId)
}
