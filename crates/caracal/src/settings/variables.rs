//! The variables there are, who reads them, and how. `NAME_FILE` stands in for `NAME` when that is empty (contract: control-cli-deploy.md §7.1).

use std::str::FromStr;
use std::time::Duration;

use super::{Environment, Mistake, Service};

use Service::{Api, Audit, Coordinator, Gateway, Sts};

/// A variable, for the operator's table and for who may read it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Default, in words where there is no literal one.
    pub default: &'static str,
    /// What it does.
    pub effect: &'static str,
    /// Whether it is a secret: never shown, and `NAME_FILE` may name a file with the value.
    pub secret: bool,
    /// The roles that read it. In a process of other roles it is as good as not set.
    pub roles: &'static [Service],
    /// Whether it is read with `DATABASE_URL` only.
    pub shared: bool,
}

const ALL: &[Service] = &Service::ALL;
const MADE: &str = "made at first start; needed with DATABASE_URL";

const fn variable(
    roles: &'static [Service],
    name: &'static str,
    default: &'static str,
    effect: &'static str,
) -> Variable {
    Variable { name, default, effect, secret: false, roles, shared: false }
}

const fn secret(
    roles: &'static [Service],
    name: &'static str,
    default: &'static str,
    effect: &'static str,
) -> Variable {
    Variable { secret: true, ..variable(roles, name, default, effect) }
}

const fn shared(
    roles: &'static [Service],
    name: &'static str,
    default: &'static str,
    effect: &'static str,
) -> Variable {
    Variable { shared: true, ..variable(roles, name, default, effect) }
}

/// Every variable that `caracal up` and `caracal serve` read, but for the switches that only stop a start.
pub const VARIABLES: &[Variable] = &[
    variable(ALL, "CARACAL_MODE", "dev on loopback, else stable", "dev, rc or stable: how strict to be"),
    variable(ALL, "CARACAL_ENV_FILE", "none", "file of NAME=value lines for what the environment does not set"),
    variable(ALL, "CARACAL_HOME", "the platform's data directory", "data directory when --data-dir is not given"),
    variable(
        &[Sts, Coordinator],
        "ISSUER_URL",
        "the STS's address",
        "issuer of every mandate; must be what clients and verifiers are told",
    ),
    variable(ALL, "PORT", "the contract's", "the port of `caracal serve` with one role"),
    secret(ALL, "DATABASE_URL", "none: the embedded store", "postgres://user:password@host:port/database?sslmode=…"),
    secret(ALL, "REDIS_URL", "none", "redis:// or rediss://user:password@host:port; needed with DATABASE_URL"),
    variable(
        &[Gateway, Coordinator],
        "STS_URL",
        "none",
        "where a process without an sts asks one: a gateway for authority, and both for the keys of zones",
    ),
    shared(ALL, "DB_POOL_MAX", "20", "connections to the database, 2 or more; a third of them for changes"),
    shared(ALL, "DB_MAX_CONNS", "–", "another name of DB_POOL_MAX"),
    shared(ALL, "DB_CONNECTION_TIMEOUT_MS", "5000", "connecting to the database"),
    shared(ALL, "DB_CONNECT_TIMEOUT", "–", "the same as DB_CONNECTION_TIMEOUT_MS, with a unit"),
    shared(ALL, "DB_STATEMENT_TIMEOUT_MS", "10000", "one statement, its wait for a lock included"),
    shared(
        ALL,
        "DB_IDLE_IN_TX_TIMEOUT_MS",
        "30000",
        "after which the database ends a transaction of a process that hangs",
    ),
    shared(ALL, "DB_IDLE_TIMEOUT_MS", "30000", "how long an unused connection to the database is kept"),
    shared(ALL, "DB_MAX_CONN_IDLE", "–", "the same as DB_IDLE_TIMEOUT_MS, with a unit"),
    shared(ALL, "DB_MAX_CONN_LIFETIME", "30m", "after which age a connection to the database is replaced"),
    shared(ALL, "REDIS_DIAL_TIMEOUT", "5s", "connecting to Redis"),
    shared(ALL, "REDIS_READ_TIMEOUT", "3s", "one answer of Redis"),
    shared(ALL, "OUTBOX_POLL_MS", "250", "how often the relay looks for messages of other processes"),
    shared(ALL, "OUTBOX_BATCH_SIZE", "256", "messages published in one round trip"),
    shared(ALL, "OUTBOX_MAX_ATTEMPTS", "10", "tries of a message that Redis refuses; outages are not counted"),
    variable(
        &[Api, Sts, Gateway],
        "CARACAL_PRIVATE_EGRESS_HOSTS",
        "empty",
        "exact hosts of upstreams, identity providers and token endpoints that may be private or loopback addresses",
    ),
    variable(&[Gateway], "UPSTREAM_HOST_ALLOWLIST", "empty", "when set, the only upstream hosts"),
    variable(
        &[Api, Sts, Gateway, Audit],
        "CARACAL_TLS_EXTRA_CA_FILE",
        "none",
        "PEM certificates trusted for upstreams, identity providers, token endpoints, secret backends and the archive's bucket \
         beside the system's",
    ),
    variable(
        &[Gateway],
        "UPSTREAM_CLIENT_CERTS_FILE",
        "none",
        "certificates that upstreams are called with, by host and zone",
    ),
    variable(&[Api, Sts], "CONTROL_AUDIENCE", "caracal-control", "identifier of the control resource"),
    variable(
        ALL,
        "TRUST_PROXY",
        "false",
        "believe what the proxy before us writes into X-Forwarded-For and X-Forwarded-Proto",
    ),
    variable(
        ALL,
        "CARACAL_DEV_CLOCK_OFFSET_MS",
        "0",
        "how far this process's clock is put wrong, to try out what that does; refused in rc and stable",
    ),
    variable(ALL, "LOG_LEVEL", "info", "off, error, warn, info, debug or trace"),
    variable(ALL, "CARACAL_LOG_LEVEL", "LOG_LEVEL", "the same, and heard first"),
    variable(
        ALL,
        "CARACAL_LOG_MAX_FIELD_BYTES",
        "8192",
        "longest text of a log line, in bytes; the rest is cut off; 0 or less for no limit",
    ),
    variable(
        ALL,
        "CARACAL_LOG_QUEUE_SIZE",
        "16384",
        "log lines that may wait to be written; further ones are dropped and counted, because no request waits for a log",
    ),
    variable(ALL, "CARACAL_LOG_SAMPLE_DEBUG", "1", "one in so many debug lines is written"),
    variable(ALL, "CARACAL_ENV", "APP_ENV, else CARACAL_MODE", "what log lines call this environment"),
    variable(ALL, "APP_ENV", "none", "the same, and heard second"),
    variable(ALL, "CARACAL_VERSION", "the version of the binary", "what log lines call this version"),
    variable(
        ALL,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "empty: no traces",
        "the collector that traces are sent to; /v1/traces is added",
    ),
    variable(ALL, "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "the only protocol that is spoken"),
    variable(
        ALL,
        "OTEL_RESOURCE_ATTRIBUTES",
        "empty",
        "key=value pairs, with commas between them, that every trace says about this deployment",
    ),
    variable(
        &[Api, Coordinator],
        "REQUEST_TIMEOUT_MS",
        "30000",
        "how long the body of a management or Coordinator request may take to arrive",
    ),
    variable(
        &[Api, Coordinator],
        "READY_RATE_LIMIT_PER_MIN",
        "120",
        "readiness probes per minute and address; 0 turns it off",
    ),
    variable(&[Api], "API_BODY_LIMIT_BYTES", "1048576", "largest body of a management request"),
    variable(
        &[Api],
        "API_V1_RATE_LIMIT_PER_MIN",
        "600",
        "management requests per minute, address and token; 0 turns it off",
    ),
    variable(
        &[Api],
        "ADMIN_AUTH_FAIL_LIMIT_PER_MIN",
        "60",
        "refused admin tokens per minute and address; 0 turns it off",
    ),
    variable(&[Api], "API_MAX_RESOURCES_PER_ZONE", "100000", "resources of a zone; 0 turns it off"),
    variable(
        &[Api],
        "ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC",
        "60",
        "seconds by which the last use of an admin token may be out of date",
    ),
    variable(
        &[Api],
        "API_ENABLE_DOCS",
        "true",
        "serve the description of the management API at /docs; in dev only, whatever this says",
    ),
    variable(
        &[Api, Sts],
        "STS_MINT_RATE_LIMIT_PER_MIN",
        "1000",
        "mints per minute, zone, resource and application; what operators set at run time can only be lower",
    ),
    variable(
        &[Sts],
        "STS_PUBLIC_RATE_LIMIT_PER_MIN",
        "6000",
        "key sets per minute and address, and likewise questions after approvals",
    ),
    variable(&[Sts], "MAX_GRANT_TTL_SECONDS", "3600", "longest life of a provider's token, whatever its endpoint says"),
    variable(&[Api, Sts], "STS_SECRET_VERIFY_CONCURRENCY", "2", "client secrets checked at once; each takes 64 MiB"),
    variable(&[Coordinator], "COORDINATOR_BODY_LIMIT_BYTES", "262144", "largest body of a Coordinator request"),
    variable(
        &[Coordinator],
        "COORDINATOR_RATE_LIMIT_PER_MIN",
        "600",
        "Coordinator requests per minute and address; 0 turns it off",
    ),
    variable(
        &[Coordinator],
        "VERIFY_RATE_LIMIT_PER_MIN",
        "60",
        "mandates that the Coordinator verifies per minute and address; 0 turns it off",
    ),
    variable(
        &[Coordinator],
        "INVOCATION_RATE_LIMIT_PER_MIN",
        "120",
        "requests that make or move invocations per minute, zone and application; 0 turns it off",
    ),
    variable(&[Coordinator], "MAX_AGENTS_PER_ZONE", "10000", "live sessions in a zone"),
    variable(&[Coordinator], "MAX_AGENTS_PER_APP", "1000", "live sessions of an application"),
    variable(&[Coordinator], "IDEMPOTENCY_RETENTION_SECONDS", "604800", "how long an idempotency key counts"),
    variable(
        &[Coordinator],
        "GENERATED_IDEMPOTENCY_RETENTION_SECONDS",
        "86400",
        "the same of a key that a client library made up",
    ),
    variable(
        &[Coordinator],
        "IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE",
        "10000",
        "live idempotency keys per operation, zone and application",
    ),
    variable(&[Coordinator], "TTL_SWEEP_INTERVAL_MS", "60000", "how often tasks whose time is up are marked as ended"),
    variable(&[Coordinator], "SWEEPER_BATCH_SIZE", "500", "tasks ended, or services suspended, in one commit"),
    variable(&[Coordinator], "SERVICE_AGENT_LEASE_SECONDS", "120", "how long a service lives without a heartbeat"),
    variable(
        &[Coordinator],
        "SERVICE_LEASE_SWEEP_INTERVAL_MS",
        "30000",
        "how often services whose lease was missed are marked as suspended",
    ),
    variable(
        &[Coordinator],
        "RETENTION_CLEANUP_INTERVAL_MS",
        "900000",
        "how often lapsed delegations are marked and what is long over is removed",
    ),
    variable(&[Coordinator], "RETENTION_CLEANUP_BATCH_SIZE", "500", "rows of each kind removed in one commit"),
    variable(&[Coordinator], "SESSION_RETENTION_DAYS", "90", "how long a session is kept after its end"),
    variable(&[Coordinator], "DELEGATION_RETENTION_DAYS", "90", "how long a delegation is kept after its end"),
    variable(
        &[Coordinator],
        "DEADLINE_SWEEP_INTERVAL_MS",
        "5000",
        "how often invocations are ended whose deadline has passed",
    ),
    variable(
        &[Coordinator],
        "INVOCATION_PENDING_TIMEOUT_SECONDS",
        "86400",
        "how long an invocation waits for a worker to begin",
    ),
    variable(&[Gateway], "MAX_REQUEST_BYTES", "10485760", "largest request body the Gateway forwards"),
    variable(
        &[Gateway],
        "UPSTREAM_MAX_CONNECTIONS",
        "1000",
        "calls under way at one upstream, streams included; a zone gets half of them at most",
    ),
    variable(&[Gateway, Coordinator], "STS_TIMEOUT", "5s", "one question to the STS"),
    variable(&[Gateway], "UPSTREAM_TIMEOUT", "30s", "from the end of an upstream request to the head of its response"),
    variable(&[Gateway], "READ_HEADER_TIMEOUT", "5s", "the head of a request to the Gateway"),
    variable(
        &[Gateway],
        "READ_TIMEOUT",
        "45s",
        "a whole request to the Gateway; longer than STS_TIMEOUT and UPSTREAM_TIMEOUT together",
    ),
    variable(
        &[Gateway],
        "WRITE_TIMEOUT",
        "60s",
        "in which a response of known length through the Gateway has to bring 64 KiB, or its end",
    ),
    variable(&[Gateway], "STREAM_IDLE_TIMEOUT", "60s", "silence within a response or WebSocket through the Gateway"),
    variable(&[Gateway], "IDLE_TIMEOUT", "120s", "a connection to the Gateway between two requests"),
    variable(
        &[Gateway],
        "TLS_CERT_FILE",
        "none: no TLS",
        "PEM certificate chain that the Gateway shows callers, leaf first; read again every 30 s",
    ),
    variable(&[Gateway], "TLS_KEY_FILE", "none", "its private key in PEM form, with TLS_CERT_FILE"),
    variable(
        &[Gateway],
        "GATEWAY_CLEARTEXT_HTTP2",
        "false",
        "accept HTTP/2 without TLS, from the first byte of a connection on: for a proxy in front that speaks it",
    ),
    variable(
        &[Gateway],
        "GATEWAY_OPERATOR_ADDRESS",
        "none: the Gateway's port",
        "address and port where /health, /ready, /metrics and the reload are served instead of the Gateway's port",
    ),
    variable(&[Api, Audit], "AUDIT_RETENTION_DAYS", "365", "for how many days evidence is kept at most"),
    shared(&[Audit], "HOSTNAME", "audit-worker-0", "by which name this process reads clients' audit frames"),
    shared(
        &[Audit],
        "AUDIT_MAX_DELIVERIES",
        "8",
        "how often a client's audit frame is handed out that nobody comes to an end with",
    ),
    shared(&[Audit], "AUDIT_CLAIM_IDLE_SECS", "30", "for how long a process may hold a client's audit frame"),
    shared(&[Audit], "AUDIT_READY_DLQ_MAX", "off", "not ready with more frames put aside than this"),
    shared(&[Audit], "AUDIT_READY_LAG_MAX", "off", "not ready with more frames to come than this"),
    shared(
        &[Audit],
        "AUDIT_READY_PEL_OLDEST_SECS_MAX",
        "off",
        "not ready when a frame was read and not stored for longer than this",
    ),
    variable(
        &[Gateway],
        "AUDIT_REPLAY_DIR",
        "audit-replay in the data directory",
        "where evidence of calls lies while the store takes none; of one process alone",
    ),
    variable(&[Audit], "AUDIT_EXPORT_S3_BUCKET", "none", "the bucket that evidence is exported to, every hour"),
    variable(
        &[Audit],
        "AUDIT_EXPORT_S3_ENDPOINT",
        "AWS' own in the region",
        "https address of another store with the protocol of S3; the bucket stands in the path",
    ),
    variable(&[Audit], "AUDIT_EXPORT_S3_REGION", "us-east-1", "region of the bucket"),
    variable(
        &[Audit],
        "AUDIT_EXPORT_LOCK_MODE",
        "none: no lock",
        "governance or compliance: how each object is locked in a bucket that has object lock",
    ),
    variable(&[Audit], "AUDIT_EXPORT_LOCK_DAYS", "none", "for how many days, with AUDIT_EXPORT_LOCK_MODE"),
    variable(&[Audit], "AUDIT_EXPORT_DIR", "none", "the directory that evidence is exported to instead"),
    secret(&[Api, Gateway, Audit], "CARACAL_ADMIN_TOKEN", MADE, "the bootstrap admin token"),
    secret(
        &[Audit],
        "AUDIT_ADMIN_TOKEN",
        "CARACAL_ADMIN_TOKEN",
        "opens the search of evidence in every zone, and what was put aside",
    ),
    secret(&[Coordinator], "CARACAL_COORDINATOR_TOKEN", MADE, "the Coordinator's operator token"),
    secret(
        &[Api, Sts, Gateway, Audit, Coordinator],
        "METRICS_BEARER",
        "none",
        "bearer for /metrics; without it open in dev, closed otherwise",
    ),
    secret(
        &[Sts],
        "STS_ADMIN_TOKEN",
        "none",
        "bearer for the rotation of signing keys, 32 characters or more; without it that route is not there",
    ),
    variable(
        &[Sts],
        "OPA_POLL_SECONDS",
        "60",
        "how often an STS looks at what is active in every zone, beside hearing of it; 1 to 300",
    ),
    secret(&[Api, Sts], "SECRET_STORE_KEK", MADE, "64 hex digits: seals every stored secret and signing key"),
    variable(
        &[Api, Sts],
        "CARACAL_SECRET_BACKEND",
        "builtin",
        "where sealed secrets lie: builtin, vault, infisical, azurekeyvault, awssecretsmanager, gcpsecretmanager or custom",
    ),
    variable(&[Api, Sts], "CARACAL_VAULT_ADDR", "none", "the vault's https address"),
    variable(&[Api, Sts], "CARACAL_VAULT_MOUNT", "secret", "mount of its key-value engine, version 2"),
    variable(&[Api, Sts], "CARACAL_VAULT_NAMESPACE", "none", "its namespace"),
    secret(&[Api, Sts], "CARACAL_VAULT_TOKEN", "none", "a token that may read, write and delete there"),
    variable(&[Api, Sts], "CARACAL_CUSTOM_SECRETS_URL", "none", "https address of a server that keeps /secrets/…"),
    secret(&[Api, Sts], "CARACAL_CUSTOM_SECRETS_TOKEN", "none", "its bearer"),
    variable(
        &[Api, Sts],
        "CARACAL_INFISICAL_URL",
        "https://app.infisical.com",
        "Infisical's https address; one of your own, or the cloud of your region",
    ),
    variable(&[Api, Sts], "CARACAL_INFISICAL_PROJECT_ID", "none", "the project that secrets lie in"),
    variable(&[Api, Sts], "CARACAL_INFISICAL_ENV", "prod", "slug of the environment"),
    variable(&[Api, Sts], "CARACAL_INFISICAL_PATH", "/", "the folder; it must be there"),
    secret(&[Api, Sts], "CARACAL_INFISICAL_TOKEN", "none", "a token that may read, write and delete there"),
    variable(&[Api, Sts], "CARACAL_AZURE_VAULT_URL", "none", "https address of the key vault"),
    variable(&[Api, Sts], "CARACAL_AZURE_TENANT_ID", "none", "tenant of the client, with CARACAL_AZURE_CLIENT_SECRET"),
    variable(
        &[Api, Sts],
        "CARACAL_AZURE_CLIENT_ID",
        "none",
        "the client; without a secret, which of the machine's identities, if it has several",
    ),
    secret(&[Api, Sts], "CARACAL_AZURE_CLIENT_SECRET", "none: the identity of the machine", "the client's secret"),
    variable(&[Api, Sts], "CARACAL_AWS_REGION", "AWS_REGION", "region of Secrets Manager"),
    variable(&[Api, Sts], "AWS_REGION", "none", "what CARACAL_AWS_REGION is without being given"),
    variable(
        &[Api, Sts],
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "AWS' own in the region",
        "https address of Secrets Manager, for an interface endpoint with a name of its own or an emulator",
    ),
    variable(&[Api, Sts, Audit], "AWS_ACCESS_KEY_ID", "none", "id of the key that signs"),
    secret(
        &[Api, Sts, Audit],
        "AWS_SECRET_ACCESS_KEY",
        "none: what the container's platform lends",
        "the key that signs",
    ),
    secret(&[Api, Sts, Audit], "AWS_SESSION_TOKEN", "none", "with a key that was lent; it is not renewed"),
    variable(
        &[Api, Sts, Audit],
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "set by ECS",
        "path at 169.254.170.2 where keys are lent to the container",
    ),
    variable(
        &[Api, Sts, Audit],
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "set by EKS",
        "where keys are lent to the container: https, loopback, or one of the platform's own addresses",
    ),
    secret(
        &[Api, Sts, Audit],
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "none",
        "what the container's platform is shown; a file is read each time",
    ),
    variable(&[Api, Sts], "CARACAL_GCP_PROJECT", "none", "project of Secret Manager, by id or number"),
    variable(
        &[Api, Sts],
        "CARACAL_GCP_CREDENTIALS_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "key file of a service account, in JSON",
    ),
    variable(
        &[Api, Sts],
        "GOOGLE_APPLICATION_CREDENTIALS",
        "none: the account of the machine",
        "what CARACAL_GCP_CREDENTIALS_FILE is without being given",
    ),
    secret(&[Api, Sts], "SECRET_STORE_KEK_PREVIOUS", "none", "the key before a rotation; opens what it sealed"),
    secret(ALL, "AUDIT_HMAC_KEY", MADE, "hex, 32 bytes or more: keys the ledger's chain"),
    secret(
        ALL,
        "AUDIT_HMAC_KEY_PREVIOUS",
        "none",
        "the audit keys before rotations, the last one first, separated by commas; they verify what they sealed",
    ),
    secret(&[Sts, Gateway], "GATEWAY_STS_HMAC_KEY", MADE, "hex, 32 bytes or more: signs exchanges between processes"),
    secret(ALL, "STREAMS_HMAC_KEY", MADE, "hex, 32 bytes or more: signs what is published on topics"),
    secret(&[Coordinator], "IDEMPOTENCY_HMAC_KEY", MADE, "hex, 32 bytes or more: digests idempotency keys"),
    secret(&[Api], "ADMIN_TOKEN_HMAC_KEY", MADE, "hex, 32 bytes or more: digests stored admin tokens"),
    secret(&[Coordinator], "IDEMPOTENCY_HMAC_KEY_PREVIOUS", "none", "the key before a rotation"),
];

/// Names of the contract that other implementations read and this one has no use for.
pub const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("AUDIT_TAMPER_ROLLING_HOURS", "a sweep goes on where the last one ended, however long ago"),
    ("AUDIT_EXPORT_TMP_DIR", "what is exported is made in memory, 64 MiB at a time"),
    ("OUTBOX_LOCK_SEC", "the relay is elected and locks no rows"),
    ("OUTBOX_STREAM_MAXLEN", "topics keep a day of history, whatever its length"),
    ("STREAMS_MAXLEN", "topics keep a day of history, whatever its length"),
    ("OUTBOX_INTERVAL_MS", "OUTBOX_POLL_MS is what counts"),
    ("DB_MIN_CONNS", "connections are made when they are needed"),
    ("DB_HEALTH_CHECK_PERIOD", "a connection is looked at when it is used"),
    ("REDIS_WRITE_TIMEOUT", "REDIS_READ_TIMEOUT bounds a question with its answer"),
    ("REDIS_POOL_SIZE", "one connection carries all questions"),
    ("REDIS_MIN_IDLE_CONNS", "one connection carries all questions"),
    ("REDIS_POOL_TIMEOUT", "one connection carries all questions"),
];

/// Reads typed values and collects mistakes.
pub(super) struct Reader<'r> {
    pub(super) environment: &'r Environment,
    /// Whose variables are read.
    pub(super) roles: &'r [Service],
    pub(super) mistakes: &'r mut Vec<Mistake>,
}

impl Reader<'_> {
    pub(super) fn mistake(&mut self, name: &str, what: String) {
        self.mistakes.push(Mistake { name: name.to_owned(), what });
    }

    /// Whether any role of this process reads it.
    pub(super) fn reads(&self, name: &str) -> bool {
        let known = VARIABLES.iter().find(|variable| variable.name == name);
        known.is_none_or(|variable| variable.roles.iter().any(|role| self.roles.contains(role)))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.environment.get(name).filter(|_| self.reads(name)).map(str::to_owned)
    }

    /// Whether a switch that only weakens is turned on, in any spelling of any service of the contract.
    pub(super) fn is_on(&self, name: &str) -> bool {
        let text = self.text(name).unwrap_or_default();
        matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "t" | "true" | "yes" | "on")
    }

    /// The value of `NAME`, else the content of the file that `NAME_FILE` names, trailing white space removed.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        if !self.reads(name) {
            return None;
        }
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

    /// One value under two names of the contract.
    pub(super) fn either<T: PartialEq>(
        &mut self,
        (name, one): (&str, impl FnOnce(&mut Self) -> T),
        (other_name, other): (&str, impl FnOnce(&mut Self) -> T),
    ) -> T {
        if self.text(other_name).is_none() {
            return one(self);
        }
        let alone = self.text(name).is_none();
        let before = self.mistakes.len();
        let (value, other) = (one(self), other(self));
        if !alone && value != other && self.mistakes.len() == before {
            self.mistake(other_name, format!("says something else than {name}; set one of the two"));
        }
        if alone { other } else { value }
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
            // Not repeated: what stands before an `@` may be a password.
            self.mistake("ISSUER_URL", "is not an absolute http(s) URL without user, query and fragment".to_owned());
        }
        Some(text)
    }
}
