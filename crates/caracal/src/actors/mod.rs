//! Who takes part in a governed call, as programs that have nothing but HTTP: an operator who provisions a zone, an agent that
//! acts in it, and the API behind the Gateway. The demonstration and the benchmark let them act on a running system.

pub(crate) mod agent;
pub(crate) mod client;
pub(crate) mod operator;
pub(crate) mod upstream;
