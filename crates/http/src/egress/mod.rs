//! The one way out (contract: README D9, gateway.md §14, sts.md §10.5, admin-api.md §7).
//!
//! Upstreams, token endpoints, key sets and webhooks are named by people whom the network does not trust: a URL can
//! name the cloud's metadata service, a neighbour's database or this very process, and a DNS answer can do so a moment
//! after it named something harmless. So every outbound connection of this system goes the same way. A [`TargetUrl`] is
//! parsed once, by the rules of browsers. Its name is resolved once, whether now or some seconds ago. [`AddressPolicy`] judges every answer; one bad
//! answer refuses them all. [`GuardedConnector`] dials only [`Admitted`] addresses, which nothing but that judgement can
//! make: there is no second look-up for an attacker to win. Redirects are never followed, proxies from the environment
//! never asked. Only a [`PeerConnector`] is not judged: where a deployment's own STS lies is its operator's word. So is where
//! its secrets lie; an [`OperatorClient`] still keeps away from the addresses at which clouds hand out credentials.

mod address;
mod client;
mod connect;
mod credential;
mod identity;
mod lookups;
mod peer;
mod policy;
mod race;
mod target;
mod tls;

pub use address::{AddressClass, classify};
pub use client::{
    EgressClient, OperatorClient, PoolSettings, SimpleClient, SimpleError, SimpleRequest, SimpleResponse, client,
    peer_client,
};
pub use connect::{EgressStream, GuardedConnector, Resolver, Reuse, Timeouts};
pub use credential::{folded, may_carry_credential};
pub use identity::{ClientIdentity, ClientIdentityError};
pub use lookups::SystemResolver;
pub use peer::{PeerClient, PeerConnector};
pub use policy::{AddressPolicy, Admitted, BadPrivateHost, PrivateHosts};
pub use target::{Host, Scheme, TargetError, TargetUrl};
pub use tls::{TlsTrust, TlsTrustError};

/// Why an outbound connection was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The target is no absolute `http` or `https` URL with a host.
    #[error("egress target refused")]
    Target(#[from] TargetError),
    /// The host is, or resolves to, an address that must not be reached.
    #[error("egress to `{host}` refused: {class} address{}", admission(.admitted_by))]
    Refused {
        /// The host as it was named.
        host: String,
        /// What kind of address it is.
        class: AddressClass,
        /// The setting that would admit it, for the operator; `None` when nothing can.
        admitted_by: Option<&'static str>,
    },
    /// The name could not be resolved, or not in time.
    #[error("`{host}` could not be resolved: {reason}")]
    ResolveFailed {
        /// The host as it was named.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No admitted address answered in time.
    #[error("connecting to `{host}` timed out")]
    ConnectTimeout {
        /// The host as it was named.
        host: String,
    },
    /// No admitted address accepted the connection.
    #[error("connecting to `{host}` failed: {reason}")]
    ConnectFailed {
        /// The host as it was named.
        host: String,
        /// The system's last answer.
        reason: String,
    },
    /// The TLS handshake failed or took too long, or no trust is configured that could succeed.
    #[error("tls with `{host}` failed: {reason}")]
    TlsFailed {
        /// The host as it was named.
        host: String,
        /// What the TLS layer said.
        reason: String,
    },
}

impl EgressError {
    /// The cause of a failed request of an [`EgressClient`], when it failed for want of a connection.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

fn admission(admitted_by: &Option<&'static str>) -> String {
    admitted_by.map(|variable| format!(" (admitted by {variable})")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
