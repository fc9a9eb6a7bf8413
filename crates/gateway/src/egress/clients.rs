//! With whose certificate an upstream is called (contract: gateway.md §16, "Weaknesses": no client certificates).
//!
//! An upstream that asks for a certificate takes whoever shows it for the operator's. If every tenant's calls showed it,
//! any tenant could name that upstream in a resource of its own and be let in. So a certificate belongs to exact hosts
//! and exact zones. Connections that were opened with it are pooled apart, and sessions of TLS are resumed apart, so
//! that no other zone's call ever travels on one.

use caracal_authority::ZoneId;
use caracal_http::egress::{ClientIdentity, GuardedConnector, Host, PoolSettings, TargetUrl, client};

use super::UpstreamClient;

/// A certificate, where it is shown and for whom.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// Exact hosts of upstreams, without port. They see it over `https` alone.
    pub hosts: Vec<Host>,
    /// The zones whose calls are made with it.
    pub zones: Vec<ZoneId>,
    /// The certificate and its key.
    pub identity: ClientIdentity,
}

impl ClientCertificate {
    fn is_for(&self, zone: &ZoneId, target: &TargetUrl) -> bool {
        target.is_https() && self.zones.contains(zone) && self.hosts.contains(target.host())
    }
}

/// The clients of the data path: one without a certificate, and one for each certificate.
pub(crate) struct Clients {
    own: UpstreamClient,
    identified: Vec<(ClientCertificate, UpstreamClient)>,
}

impl Clients {
    pub(crate) fn new(connector: &GuardedConnector, certificates: &[ClientCertificate]) -> Self {
        // A kept connection that the upstream has closed meanwhile is found out before a byte of the request is
        // written; only then is it sent on a new one. That is no second attempt: the first never began.
        let settings = PoolSettings { retry_unsent: true, ..PoolSettings::default() };
        let identified = certificates
            .iter()
            .map(|certificate| (certificate.clone(), client(connector.presenting(&certificate.identity), &settings)));
        Self { identified: identified.collect(), own: client(connector.clone(), &settings) }
    }

    /// The client for calls of `zone` to `target`.
    pub(crate) fn of(&self, zone: &ZoneId, target: &TargetUrl) -> &UpstreamClient {
        let identified = self.identified.iter().find(|(certificate, _)| certificate.is_for(zone, target));
        identified.map_or(&self.own, |(_, client)| client)
    }
}

#[cfg(test)]
mod t03_gateway_egress {
    use std::sync::Arc;

    use caracal_http::egress::{AddressPolicy, SystemResolver, TlsTrust};

    use super::*;

    #[tokio::test]
    async fn a_certificate_is_for_its_own_zones_at_its_own_hosts_over_tls() {
        let (chain, key) = caracal_testkit::client_pair().unwrap();
        let identity = ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let zone = |text: &str| ZoneId::parse(text).unwrap();
        let certificate = |host: &str, name: &str| ClientCertificate {
            hosts: vec![Host::parse(host).unwrap()],
            zones: vec![zone(name)],
            identity: identity.clone(),
        };
        let resolver = Arc::new(SystemResolver::new());
        let connector = GuardedConnector::new(AddressPolicy::default(), resolver, TlsTrust::from_pem(false, None));
        let listed = [certificate("bank.example", "z-1"), certificate("bank.example", "z-2")];
        let clients = Clients::new(&connector, &listed);
        let which = |name: &str, url: &str| {
            let client = clients.of(&zone(name), &TargetUrl::parse(url).unwrap());
            clients.identified.iter().position(|(_, known)| std::ptr::eq(client, known))
        };
        for (name, url, expected) in [
            ("z-1", "https://bank.example/x", Some(0)),
            ("z-1", "https://BANK.example:8443/", Some(0)),
            ("z-2", "https://bank.example/", Some(1)),
            ("z-3", "https://bank.example/", None),
            ("z-1", "http://bank.example/", None),
            ("z-1", "https://bank.example./", None),
            ("z-1", "https://x.bank.example/", None),
            ("z-1", "https://other.example/", None),
        ] {
            assert_eq!(which(name, url), expected, "{name} {url}");
        }
    }
}
