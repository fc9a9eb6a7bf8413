//! The Gateway as its callers, its upstreams and its operators meet it: over sockets, with a real store, real keys and
//! real evidence. Only the STS is a script, and even that uses mandates up the way the contract demands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod caller;
mod sts;
mod upstream;
mod world;

mod edge_cases;
mod evidence;
mod operations;
mod remote;
mod t03_gateway_checks;
mod t03_gateway_desync;
mod t03_gateway_egress;
mod t03_gateway_framing;
mod t03_gateway_headers;
mod t03_gateway_http2;
mod t03_gateway_path;
mod t03_gateway_replay;
mod t03_gateway_revocation;
mod t03_gateway_stream;
mod t03_gateway_websocket;
mod t05_secrets;
mod t08_availability;
mod t08_limits;
mod t08_overload;
mod t08_places;
