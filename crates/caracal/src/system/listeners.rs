//! The sockets of a process and where they are reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::StartError;
use crate::settings::{Service, Settings};

/// One bound socket per service that this process runs.
#[derive(Default)]
pub struct Listeners {
    services: BTreeMap<Service, TcpListener>,
    /// Where the Gateway's operators come in, when not by its own.
    gateway_operators: Option<TcpListener>,
    /// The Gateway's speaks TLS.
    gateway_tls: bool,
}

impl Listeners {
    /// Binds the contract's ports, moved by the offset.
    pub async fn bind(settings: &Settings) -> Result<Self, StartError> {
        let mut bound = BTreeMap::new();
        for service in &settings.roles {
            bound.insert(*service, listen(settings.bind, settings.port(*service), *service).await?);
        }
        let operators = settings.gateway.operator_address.filter(|_| settings.runs(Service::Gateway));
        let gateway_operators = match operators {
            Some(address) => Some(listen(address.ip(), address.port(), Service::Gateway).await?),
            None => None,
        };
        Ok(Self { services: bound, gateway_operators, gateway_tls: settings.gateway.tls.is_some() })
    }

    /// Binds ports that happen to be free, for all services.
    pub async fn on_free_ports(address: IpAddr) -> Result<Self, StartError> {
        Self::for_roles_on_free_ports(address, &Service::ALL).await
    }

    /// The same for some of them.
    pub async fn for_roles_on_free_ports(address: IpAddr, roles: &[Service]) -> Result<Self, StartError> {
        let mut bound = BTreeMap::new();
        for service in roles {
            bound.insert(*service, listen(address, 0, *service).await?);
        }
        Ok(Self { services: bound, ..Self::default() })
    }

    /// How many there are beside that of the Gateway's callers.
    pub(super) fn beside_callers(&self) -> usize {
        let services = self.services.keys().filter(|service| **service != Service::Gateway).count();
        services + usize::from(self.gateway_operators.is_some())
    }

    /// The socket of the Gateway's operators, to be served.
    pub(super) fn take_gateway_operators(&mut self) -> Option<TcpListener> {
        self.gateway_operators.take()
    }

    /// The socket of `service`, to be served.
    pub(super) fn take(&mut self, service: Service) -> Option<TcpListener> {
        self.services.remove(&service)
    }

    pub(super) fn urls(&self) -> Urls {
        let url = |service| {
            let address = self.services.get(&service).and_then(|listener| listener.local_addr().ok());
            let scheme = if service == Service::Gateway && self.gateway_tls { "https" } else { "http" };
            address.map(|address| format!("{scheme}://{}", reachable(address))).unwrap_or_default()
        };
        Urls {
            api: url(Service::Api),
            sts: url(Service::Sts),
            gateway: url(Service::Gateway),
            coordinator: url(Service::Coordinator),
            audit: url(Service::Audit),
        }
    }
}

/// An address that a client on this machine can use: nobody connects to "any".
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        _ => address,
    }
}

async fn listen(address: IpAddr, port: u16, service: Service) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|error| StartError::Port {
        address,
        service: service.name(),
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use; stop whatever uses it, or move all ports with --port-offset".to_owned()
            }
            _ => error.to_string(),
        },
    })
}

/// Where each service of this process is reached; empty for those that it does not run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Urls {
    /// The Admin API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api: String,
    /// The token service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sts: String,
    /// The Gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// The Coordinator.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub coordinator: String,
    /// The evidence service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audit: String,
}

impl Urls {
    /// Name and URL of each, in the order they are announced.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all: [(&str, &str); 5] = [
            ("api", &self.api),
            ("sts", &self.sts),
            ("gateway", &self.gateway),
            ("coordinator", &self.coordinator),
            ("audit", &self.audit),
        ];
        all.into_iter().filter(|(_, url)| !url.is_empty())
    }
}
