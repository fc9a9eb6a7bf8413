//! What clients find that know OAuth and nothing of us: metadata, a token endpoint, introspection, revocation.

mod introspection;
mod metadata;
mod over_a_socket;
mod revocation;
mod revocations;
mod token;
