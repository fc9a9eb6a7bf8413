//! The enforcing proxy (contract: gateway.md).
//!
//! An agent sends an ordinary HTTP request, with a one-shot mandate and the name of a resource. [`Gateway`] verifies
//! the mandate, asks the STS through [`Exchange`] for the final authority and for where the call goes, forwards it with
//! the credential the agent never sees, streams the answer back, and puts on record how it ended.
//!
//! One request, from file to file: `ingress` settles what the target means and answers fixed routes (`operator`); `checks` runs the contract's order and yields a permit; `egress` spends it:
//! target, credential, headers, dispatch; `upload` and `relay` carry the bodies, `tunnel` a WebSocket; `evidence` records; `wire` says every
//! refusal in the contract's words, `grpc` in those of gRPC. `remote` is the STS of another process. `revocation` knows what is revoked and cuts what is under way.
//!
//! What must be absent here: any opinion on what a caller may do, any other service, a body held whole, a second
//! attempt at anything.
//!
//! Not here yet: WebSockets over HTTP/2, HTTP/3.

mod checks;
mod circuit;
mod config;
mod egress;
mod evidence;
pub mod exchange;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
mod grpc;
mod histogram;
mod ingress;
mod metrics;
mod operator;
mod outgoing;
mod relay;
mod remote;
mod revocation;
mod spent;
mod trace;
mod tunnel;
mod upload;
mod wire;

pub use config::{ConfigMistake, ConfigMistakes, GatewayConfig, MetricsAccess};
pub use egress::ClientCertificate;
pub use exchange::{Directive, Exchange, ExchangeRefusal, ExchangeRequest, Permitted, RefusalKind, StsUnreachable};
pub use gateway::{Capabilities, FeedCounts, Gateway, Served};
pub use remote::{BadStsUrl, RemoteSts, RemoteStsConfig, RemoteStsError, StsUrl};
