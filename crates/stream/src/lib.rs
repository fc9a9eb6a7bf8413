//! What replicas share beside the store: signed topics with groups, the relay that brings the outbox's messages there, and
//! counters.
//!
//! A replica of the Coordinator ends a session. Its commit puts a message into the outbox; the [`Relay`], which runs in
//! one process at a time, publishes it on a topic with an origin signature; every Gateway [follows](Tail) the topic and
//! cuts the session's streams. A resource server with a published client reads the same topic, in the contract's wire
//! format (audit-and-streams.md §6), and never notices which implementation wrote it. What must be done once for all
//! replicas is done by a [`Consumer`]: its group shares a topic's messages, and keeps each until it is handled.
//!
//! [`Streams`] are on a Redis server, or in the store of a system without one; nobody above can tell which.
//!
//! Nothing here is what authority rests on. A message that is late or lost makes others notice later, by their next
//! reading of the store; one that is forged, garbled or too large is counted, put aside and never acted on.

mod consumer;
mod counters;
mod entry;
mod known;
mod on_redis;
mod on_store;
mod raw;
mod redis;
mod relay;
mod streams;
mod tail;

pub use consumer::{Consumer, ConsumerOptions, ConsumerState, Failed};
pub use counters::{Counters, FailureLimit};
pub use entry::{Rejection, dead_letter_topic};
pub use raw::{Fields, RawEntry};
pub use redis::{OpenError, Redis, RedisOptions, StreamError};
pub use relay::{Relay, RelayOptions, RelayState};
pub use streams::{
    Begin, DeadLetter, Delivery, GroupState, Member, Patience, PublishError, Retried, Streams, TopicState, Topics,
    dead_letters_of, state_of,
};
pub use tail::{Tail, TailState};

/// What was revoked: sessions, records and delegations by their anchors.
pub const REVOCATIONS: &str = "caracal.sessions.revoke";
/// What changed in the graph of delegations.
pub const DELEGATIONS: &str = "caracal.delegations.invalidate";
/// Sessions that began or ended.
pub const LIFECYCLE: &str = "caracal.agents.lifecycle";
/// What was asked of services, and what became of it.
pub const INVOCATIONS: &str = "caracal.invocations.lifecycle";
/// Which version of a policy set decides.
pub const POLICIES: &str = caracal_store::policy_sets::INVALIDATED;
/// Approvals that were decided: wakes those who wait for one.
pub const APPROVALS: &str = caracal_store::approvals::DECIDED;
/// Signing keys that an operator withdrew.
pub const KEYS: &str = caracal_store::signing_keys::WITHDRAWN;
/// Evidence of clients and exporters: frames that carry a signature of their own (contract: audit-and-streams.md §2.4).
pub const AUDIT_EVENTS: &str = "caracal.audit.events";
/// What was put aside of them.
pub const AUDIT_DEAD_LETTERS: &str = "caracal.audit.events.dlq";
/// Every topic that is published on.
pub const TOPICS: [&str; 7] = [REVOCATIONS, DELEGATIONS, LIFECYCLE, INVOCATIONS, POLICIES, APPROVALS, KEYS];
