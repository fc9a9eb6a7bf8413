//! The Gateway's settings, with the contract's defaults (gateway.md §21). Read from nowhere: whoever composes the
//! process hands them in, and [`Gateway::new`](crate::Gateway::new) takes nothing that has not been checked.

use std::time::Duration;

use caracal_crypto::SecretText;

use crate::egress::ClientCertificate;

/// Settings of one Gateway.
pub struct GatewayConfig {
    /// `STS_TIMEOUT`: one exchange, from question to answer.
    pub sts_timeout: Duration,
    /// `UPSTREAM_TIMEOUT`: from the end of the upstream request to the head of its response.
    pub upstream_timeout: Duration,
    /// `READ_HEADER_TIMEOUT`: a request's head.
    pub read_header_timeout: Duration,
    /// `READ_TIMEOUT`: a whole request, body included, from its start. Longer than the two timeouts above together.
    pub read_timeout: Duration,
    /// `WRITE_TIMEOUT`: the time in which a response of known length has to bring 64 KiB, or its end.
    pub write_timeout: Duration,
    /// `STREAM_IDLE_TIMEOUT`: silence of the upstream within a response, and of a caller who takes nothing.
    pub stream_idle_timeout: Duration,
    /// `IDLE_TIMEOUT`: a connection between two requests.
    pub idle_timeout: Duration,
    /// How often revocation state is read from the store. Far less than the seventy seconds after which it is stale.
    pub revocation_refresh: Duration,
    /// `MAX_REQUEST_BYTES`: largest request body.
    pub max_request_bytes: u64,
    /// `UPSTREAM_MAX_CONNECTIONS`: calls under way at one upstream, streams included; one zone gets half of them at most.
    pub max_upstream_connections: usize,
    /// `UPSTREAM_CLIENT_CERTS_FILE`: certificates that upstreams are called with.
    pub client_certificates: Vec<ClientCertificate>,
    /// `UPSTREAM_HOST_ALLOWLIST`: when not empty, the only upstream host names, without port, exact but for case.
    pub upstream_host_allowlist: Vec<String>,
    /// `TRUST_PROXY`: believe `X-Forwarded-For` and `X-Forwarded-Proto` of the peer.
    pub trust_proxy: bool,
    /// `CARACAL_ADMIN_TOKEN`: opens the reload route; without it the route does not exist.
    pub admin_token: Option<SecretText>,
    /// Who may read the metrics.
    pub metrics: MetricsAccess,
    /// Operators have a listener of their own ([`Gateway::serve_operators`](crate::Gateway::serve_operators)): the public one
    /// then has no routes of the Gateway's, and hides none of an upstream's.
    pub separate_operators: bool,
    /// Callers may speak HTTP/2 in the clear, from its first byte on; over TLS they may anyway.
    pub cleartext_http2: bool,
    /// Connections at a time; further callers wait in the system's backlog.
    pub max_connections: usize,
    /// How long requests under way may take after a stop.
    pub grace: Duration,
    /// How long waiting evidence may take after that.
    pub evidence_grace: Duration,
}

/// Who may read `/metrics` and `/metrics.json` (gateway.md §3).
pub enum MetricsAccess {
    /// Everybody: only in `CARACAL_MODE=dev`, and only without `METRICS_BEARER`.
    Open,
    /// Holders of `METRICS_BEARER`.
    Bearer(SecretText),
    /// Nobody: published modes without `METRICS_BEARER`.
    Closed,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            sts_timeout: seconds(5),
            upstream_timeout: seconds(30),
            read_header_timeout: seconds(5),
            read_timeout: seconds(45),
            write_timeout: seconds(60),
            stream_idle_timeout: seconds(60),
            idle_timeout: seconds(120),
            revocation_refresh: seconds(30),
            max_request_bytes: 10_485_760,
            max_upstream_connections: 1_000,
            client_certificates: Vec::new(),
            upstream_host_allowlist: Vec::new(),
            trust_proxy: false,
            admin_token: None,
            metrics: MetricsAccess::Closed,
            separate_operators: false,
            cleartext_http2: false,
            max_connections: 16_384,
            grace: seconds(14),
            evidence_grace: seconds(4),
        }
    }
}

/// One mistake in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigMistake {
    /// A limit of nothing lets nothing through, or waits for ever.
    #[error("{0} must be greater than zero")]
    Zero(&'static str),
    /// A request would time out while its exchange or upstream is still in time.
    #[error("READ_TIMEOUT must be longer than STS_TIMEOUT and UPSTREAM_TIMEOUT together")]
    ReadTimeoutTooShort,
    /// Comparing with an empty secret admits everybody who sends nothing.
    #[error("{0} must not be empty")]
    EmptySecret(&'static str),
}

/// Every mistake of one set of settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigMistakes(pub Vec<ConfigMistake>);

impl GatewayConfig {
    /// Finds every mistake and brings the host list into the form it is compared in.
    pub(crate) fn checked(mut self) -> Result<Self, ConfigMistakes> {
        let zeros = [
            ("STS_TIMEOUT", self.sts_timeout.is_zero()),
            ("UPSTREAM_TIMEOUT", self.upstream_timeout.is_zero()),
            ("READ_HEADER_TIMEOUT", self.read_header_timeout.is_zero()),
            ("READ_TIMEOUT", self.read_timeout.is_zero()),
            ("WRITE_TIMEOUT", self.write_timeout.is_zero()),
            ("STREAM_IDLE_TIMEOUT", self.stream_idle_timeout.is_zero()),
            ("IDLE_TIMEOUT", self.idle_timeout.is_zero()),
            ("revocation refresh", self.revocation_refresh.is_zero()),
            ("MAX_REQUEST_BYTES", self.max_request_bytes == 0),
            ("UPSTREAM_MAX_CONNECTIONS", self.max_upstream_connections == 0),
            ("max connections", self.max_connections == 0),
        ];
        let zero = zeros.iter().filter(|(_, zero)| *zero);
        let mut mistakes: Vec<ConfigMistake> = zero.map(|(name, _)| ConfigMistake::Zero(name)).collect();
        if self.read_timeout <= self.sts_timeout.saturating_add(self.upstream_timeout) {
            mistakes.push(ConfigMistake::ReadTimeoutTooShort);
        }
        if self.admin_token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            mistakes.push(ConfigMistake::EmptySecret("CARACAL_ADMIN_TOKEN"));
        }
        if matches!(&self.metrics, MetricsAccess::Bearer(bearer) if bearer.expose().is_empty()) {
            mistakes.push(ConfigMistake::EmptySecret("METRICS_BEARER"));
        }
        for host in &mut self.upstream_host_allowlist {
            *host = host.trim().to_ascii_lowercase();
        }
        self.upstream_host_allowlist.retain(|host| !host.is_empty());
        if mistakes.is_empty() { Ok(self) } else { Err(ConfigMistakes(mistakes)) }
    }
}

#[cfg(test)]
mod tests {
    use caracal_crypto::Secret;

    use super::*;

    #[test]
    fn the_defaults_are_the_contracts_and_without_mistake() {
        let config = GatewayConfig::default();
        let seconds = [
            (config.sts_timeout, 5),
            (config.upstream_timeout, 30),
            (config.read_header_timeout, 5),
            (config.read_timeout, 45),
            (config.write_timeout, 60),
            (config.stream_idle_timeout, 60),
            (config.idle_timeout, 120),
            (config.revocation_refresh, 30),
            (config.grace, 14),
            (config.evidence_grace, 4),
        ];
        assert!(seconds.iter().all(|(found, expected)| *found == Duration::from_secs(*expected)), "{seconds:?}");
        assert_eq!(config.max_request_bytes, 10_485_760);
        assert!(!config.trust_proxy && config.admin_token.is_none() && config.upstream_host_allowlist.is_empty());
        assert!(matches!(config.metrics, MetricsAccess::Closed));
        assert!(config.checked().is_ok());
    }

    #[test]
    fn a_request_may_take_longer_than_its_exchange_and_its_upstream_together() {
        let with = |seconds| GatewayConfig { read_timeout: Duration::from_secs(seconds), ..GatewayConfig::default() };
        assert_eq!(with(35).checked().err(), Some(ConfigMistakes(vec![ConfigMistake::ReadTimeoutTooShort])));
        assert!(with(36).checked().is_ok());
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let config = GatewayConfig {
            sts_timeout: Duration::ZERO,
            read_timeout: Duration::from_secs(30),
            max_request_bytes: 0,
            admin_token: Some(Secret::new(String::new())),
            metrics: MetricsAccess::Bearer(Secret::new(String::new())),
            ..GatewayConfig::default()
        };
        let expected = [
            ConfigMistake::Zero("STS_TIMEOUT"),
            ConfigMistake::Zero("MAX_REQUEST_BYTES"),
            ConfigMistake::ReadTimeoutTooShort,
            ConfigMistake::EmptySecret("CARACAL_ADMIN_TOKEN"),
            ConfigMistake::EmptySecret("METRICS_BEARER"),
        ];
        assert_eq!(config.checked().err(), Some(ConfigMistakes(expected.to_vec())));
    }

    #[test]
    fn the_host_list_is_trimmed_and_lower_case() {
        let hosts = [" API.Example.com", "", "  "].map(str::to_owned).to_vec();
        let config = GatewayConfig { upstream_host_allowlist: hosts, ..GatewayConfig::default() };
        assert_eq!(
            config.checked().ok().map(|config| config.upstream_host_allowlist),
            Some(vec!["api.example.com".to_owned()])
        );
    }
}
