//! Reading variables. `NAME_FILE` stands in for `NAME` when that is empty (contract: control-cli-deploy.md §7.1).

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::Mistake;

/// A variable of the embedded system, for the operator's table.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Default, in words where there is no literal one.
    pub default: &'static str,
    /// What it does.
    pub effect: &'static str,
    /// Whether `NAME_FILE` may name a file with the value.
    pub file: bool,
}

const fn variable(name: &'static str, default: &'static str, effect: &'static str) -> Variable {
    Variable { name, default, effect, file: false }
}

const fn secret(name: &'static str, default: &'static str, effect: &'static str) -> Variable {
    Variable { name, default, effect, file: true }
}

/// Every variable that `caracal up` and `caracal serve` read.
pub const VARIABLES: &[Variable] = &[
    variable("CARACAL_MODE", "dev on loopback, else stable", "dev, rc or stable: how strict to be"),
    variable("CARACAL_HOME", "the platform's data directory", "data directory when --data-dir is not given"),
    variable("ISSUER_URL", "the STS's address", "issuer of every mandate; must be what clients and verifiers are told"),
    secret("DATABASE_URL", "none: the embedded store", "postgres://user:password@host:port/database?sslmode=…"),
    secret("REDIS_URL", "none", "redis:// or rediss://user:password@host:port; needed with DATABASE_URL"),
    variable("STS_URL", "none", "where a gateway without an sts in its own process asks one"),
    variable("DB_POOL_MAX", "20", "connections to the database, 2 or more; a third of them for changes"),
    variable("DB_CONNECTION_TIMEOUT_MS", "5000", "connecting to the database"),
    variable("DB_STATEMENT_TIMEOUT_MS", "10000", "one statement, its wait for a lock included"),
    variable(
        "DB_IDLE_IN_TX_TIMEOUT_MS",
        "30000",
        "after which the database ends a transaction of a process that hangs",
    ),
    variable("DB_IDLE_TIMEOUT_MS", "30000", "how long an unused connection to the database is kept"),
    variable("DB_MAX_CONN_LIFETIME", "30m", "after which age a connection to the database is replaced"),
    variable("REDIS_DIAL_TIMEOUT", "5s", "connecting to Redis"),
    variable("REDIS_READ_TIMEOUT", "3s", "one answer of Redis"),
    variable("OUTBOX_POLL_MS", "250", "how often the relay looks for messages of other processes"),
    variable("OUTBOX_BATCH_SIZE", "256", "messages published in one round trip"),
    variable("OUTBOX_MAX_ATTEMPTS", "10", "tries of a message that Redis refuses; outages are not counted"),
    variable("CARACAL_PRIVATE_EGRESS_HOSTS", "empty", "exact upstream hosts that may be private or loopback addresses"),
    variable("UPSTREAM_HOST_ALLOWLIST", "empty", "when set, the only upstream hosts"),
    variable("CARACAL_TLS_EXTRA_CA_FILE", "none", "PEM certificates trusted for upstreams beside the system's"),
    variable("CONTROL_AUDIENCE", "caracal-control", "identifier of the control resource"),
    variable(
        "TRUST_PROXY",
        "false",
        "believe what the proxy before us writes into X-Forwarded-For and X-Forwarded-Proto",
    ),
    variable("LOG_LEVEL", "info", "error, warn, info, debug or trace"),
    variable(
        "REQUEST_TIMEOUT_MS",
        "30000",
        "how long the body of a management or Coordinator request may take to arrive",
    ),
    variable("READY_RATE_LIMIT_PER_MIN", "120", "readiness probes per minute and address; 0 turns it off"),
    variable("API_BODY_LIMIT_BYTES", "1048576", "largest body of a management request"),
    variable("API_V1_RATE_LIMIT_PER_MIN", "600", "management requests per minute, address and token; 0 turns it off"),
    variable("ADMIN_AUTH_FAIL_LIMIT_PER_MIN", "60", "refused admin tokens per minute and address; 0 turns it off"),
    variable("API_MAX_RESOURCES_PER_ZONE", "100000", "resources of a zone; 0 turns it off"),
    variable("STS_MINT_RATE_LIMIT_PER_MIN", "1000", "mints per minute, zone, resource and application"),
    variable("STS_SECRET_VERIFY_CONCURRENCY", "2", "client secrets checked at once; each takes 64 MiB"),
    variable("COORDINATOR_BODY_LIMIT_BYTES", "262144", "largest body of a Coordinator request"),
    variable("COORDINATOR_RATE_LIMIT_PER_MIN", "600", "Coordinator requests per minute and address; 0 turns it off"),
    variable("MAX_AGENTS_PER_ZONE", "10000", "live sessions in a zone"),
    variable("MAX_AGENTS_PER_APP", "1000", "live sessions of an application"),
    variable("IDEMPOTENCY_RETENTION_SECONDS", "604800", "how long an idempotency key counts"),
    variable("GENERATED_IDEMPOTENCY_RETENTION_SECONDS", "86400", "the same of a key that a client library made up"),
    variable(
        "IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE",
        "10000",
        "live idempotency keys per operation, zone and application",
    ),
    variable("TTL_SWEEP_INTERVAL_MS", "60000", "how often tasks whose time is up are marked as ended"),
    variable("SWEEPER_BATCH_SIZE", "500", "tasks ended in one commit"),
    variable("MAX_REQUEST_BYTES", "10485760", "largest request body the Gateway forwards"),
    variable("STS_TIMEOUT", "5s", "one exchange of the Gateway"),
    variable("UPSTREAM_TIMEOUT", "30s", "from the end of an upstream request to the head of its response"),
    variable("READ_HEADER_TIMEOUT", "5s", "the head of a request to the Gateway"),
    variable(
        "READ_TIMEOUT",
        "45s",
        "a whole request to the Gateway; longer than STS_TIMEOUT and UPSTREAM_TIMEOUT together",
    ),
    variable("WRITE_TIMEOUT", "60s", "a response of known length through the Gateway"),
    variable("STREAM_IDLE_TIMEOUT", "60s", "silence within a response through the Gateway"),
    variable("IDLE_TIMEOUT", "120s", "a connection to the Gateway between two requests"),
    secret("CARACAL_ADMIN_TOKEN", "made at first start", "the bootstrap admin token"),
    secret("CARACAL_COORDINATOR_TOKEN", "made at first start", "the Coordinator's operator token"),
    secret("METRICS_BEARER", "none", "bearer for /metrics; without it open in dev, closed otherwise"),
    secret("SECRET_STORE_KEK", "made at first start", "64 hex digits: seals every stored secret and signing key"),
    secret("SECRET_STORE_KEK_PREVIOUS", "none", "the key before a rotation; opens what it sealed"),
    secret("AUDIT_HMAC_KEY", "made at first start", "hex, 32 bytes or more: keys the ledger's chain"),
    secret("GATEWAY_STS_HMAC_KEY", "made at first start", "hex, 32 bytes or more: signs exchanges between processes"),
    secret("STREAMS_HMAC_KEY", "none; needed with DATABASE_URL", "hex, 32 bytes or more: signs messages to replicas"),
    secret("IDEMPOTENCY_HMAC_KEY", "made at first start", "hex, 32 bytes or more: digests idempotency keys"),
    secret("ADMIN_TOKEN_HMAC_KEY", "made at first start", "hex, 32 bytes or more: digests stored admin tokens"),
    secret("IDEMPOTENCY_HMAC_KEY_PREVIOUS", "none", "the key before a rotation"),
];

/// The environment as an argument.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        Self(std::env::vars().collect())
    }

    /// From pairs.
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        pairs.into_iter().collect()
    }

    /// The value of `name`, if set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<'p> FromIterator<(&'p str, &'p str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'p str, &'p str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Reads typed values and collects mistakes.
pub(super) struct Reader<'r> {
    pub(super) environment: &'r Environment,
    pub(super) mistakes: &'r mut Vec<Mistake>,
}

impl Reader<'_> {
    pub(super) fn mistake(&mut self, name: &str, what: String) {
        self.mistakes.push(Mistake { name: name.to_owned(), what });
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(str::to_owned)
    }

    /// The value of `NAME`, else the content of the file that `NAME_FILE` names, trailing white space removed.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        if let Some(value) = self.text(name) {
            return Some(value);
        }
        let file_name = format!("{name}_FILE");
        let path = self.text(&file_name)?;
        match std::fs::read_to_string(&path) {
            Ok(content) if !content.trim_end().is_empty() => Some(content.trim_end().to_owned()),
            Ok(_) => {
                self.mistake(&file_name, format!("`{path}` is empty"));
                None
            }
            Err(error) => {
                self.mistake(&file_name, format!("can't read `{path}`: {error}"));
                None
            }
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()).collect()
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => {
                self.mistake(name, format!("`{text}` is neither true nor false"));
                default
            }
        }
    }

    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        name: &str,
        default: T,
        least: T,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        match text.trim().parse::<T>() {
            Ok(number) if number >= least => number,
            _ => {
                self.mistake(name, format!("`{text}` is not a whole number of {least} or more"));
                default
            }
        }
    }

    pub(super) fn milliseconds(&mut self, name: &str, default: u32, least: u32) -> Duration {
        Duration::from_millis(u64::from(self.number(name, default, least)))
    }

    /// A span of time with units, such as `1m30s` or `500ms`, and longer than none (contract: gateway.md §21).
    pub(super) fn duration(&mut self, name: &str, default_seconds: u64) -> Duration {
        let default = Duration::from_secs(default_seconds);
        let Some(text) = self.text(name) else { return default };
        match humantime::parse_duration(text.trim()) {
            Ok(duration) if !duration.is_zero() => duration,
            _ => {
                self.mistake(name, format!("`{text}` is not a time longer than none, such as 30s, 1m30s or 500ms"));
                default
            }
        }
    }

    /// An absolute http or https URL without user, query or fragment (contract: sts.md §17), taken verbatim.
    pub(super) fn issuer(&mut self) -> Option<String> {
        let text = self.text("ISSUER_URL")?;
        let good = text.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.query().is_none()
                && !text.contains('#')
        });
        if !good {
            self.mistake(
                "ISSUER_URL",
                format!("`{text}` is not an absolute http(s) URL without user, query and fragment"),
            );
        }
        Some(text)
    }
}
