//! On which engine a system runs: the embedded one, or a PostgreSQL and a Redis server shared by many processes.

use std::net::IpAddr;
use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_store::{OpenError, PostgresOptions};
use caracal_stream::{RedisOptions, RelayOptions};

use super::variables::Reader;
use super::{Environment, Mistakes, Mode, Service};

/// The engine, with how it is used.
#[derive(Debug, Clone)]
pub enum Engine {
    /// A store in the data directory, which this process owns.
    Embedded,
    /// Servers that other processes use as well.
    Shared(SharedTuning),
}

/// How the servers are used.
#[derive(Debug, Clone)]
pub struct SharedTuning {
    /// `DB_POOL_MAX`.
    pub connections: usize,
    /// `DB_CONNECTION_TIMEOUT_MS`.
    pub connect_timeout: Duration,
    /// `DB_STATEMENT_TIMEOUT_MS`.
    pub statement_timeout: Duration,
    /// `DB_IDLE_IN_TX_TIMEOUT_MS`.
    pub idle_in_transaction_timeout: Duration,
    /// `DB_IDLE_TIMEOUT_MS`.
    pub idle_timeout: Duration,
    /// `DB_MAX_CONN_LIFETIME`.
    pub max_lifetime: Duration,
    /// `REDIS_DIAL_TIMEOUT`.
    pub redis_dial_timeout: Duration,
    /// `REDIS_READ_TIMEOUT`.
    pub redis_read_timeout: Duration,
    /// `OUTBOX_POLL_MS`, `OUTBOX_BATCH_SIZE` and `OUTBOX_MAX_ATTEMPTS`.
    pub relay: RelayOptions,
}

/// Where the servers are. The addresses hold passwords, so they are not among the settings.
pub struct Servers {
    database: SecretText,
    redis: SecretText,
}

impl Engine {
    /// `DATABASE_URL` decides. One server without the other is a mistake: neither can stand for both.
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        let (database, redis) = (reader.secret("DATABASE_URL"), reader.secret("REDIS_URL"));
        let shared = match (database.is_some(), redis.is_some()) {
            (true, false) => {
                reader
                    .mistake("REDIS_URL", "is needed with DATABASE_URL: replicas hear of revocations there".to_owned());
                true
            }
            (false, true) => {
                let what = "is used with DATABASE_URL only; the embedded store has no replicas to tell";
                reader.mistake("REDIS_URL", what.to_owned());
                false
            }
            (both, _) => both,
        };
        if let Some(url) = &database {
            match PostgresOptions::at(url) {
                Ok(options) => {
                    if mode.is_published() && options.clear_text_hosts().iter().any(|host| !is_near(host)) {
                        let what = format!("needs sslmode=verify-full {UNLESS_NEAR}");
                        reader.mistake("DATABASE_URL", what);
                    }
                }
                Err(OpenError::Server { reason, .. }) => reader.mistake("DATABASE_URL", reason),
                Err(other) => reader.mistake("DATABASE_URL", other.to_string()),
            }
        }
        if let Some(url) = &redis {
            match redis_host(url) {
                None => {
                    let what = "must be redis:// or rediss://, then user:password@ if there is one, and host:port";
                    reader.mistake("REDIS_URL", what.to_owned());
                }
                Some((false, host)) if mode.is_published() && !is_near(host) => {
                    reader.mistake("REDIS_URL", format!("must be rediss:// {UNLESS_NEAR}"));
                }
                Some(_) => {}
            }
        }
        let tuning = SharedTuning::read(reader);
        if shared { Self::Shared(tuning) } else { Self::Embedded }
    }
}

impl SharedTuning {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            connections: reader.either(
                ("DB_POOL_MAX", |reader| reader.number("DB_POOL_MAX", 20, 2)),
                ("DB_MAX_CONNS", |reader| reader.number("DB_MAX_CONNS", 20, 2)),
            ),
            connect_timeout: reader.either(
                ("DB_CONNECTION_TIMEOUT_MS", |reader| reader.milliseconds("DB_CONNECTION_TIMEOUT_MS", 5_000, 1)),
                ("DB_CONNECT_TIMEOUT", |reader| reader.duration("DB_CONNECT_TIMEOUT", 5)),
            ),
            statement_timeout: reader.milliseconds("DB_STATEMENT_TIMEOUT_MS", 10_000, 1),
            idle_in_transaction_timeout: reader.milliseconds("DB_IDLE_IN_TX_TIMEOUT_MS", 30_000, 1),
            idle_timeout: reader.either(
                ("DB_IDLE_TIMEOUT_MS", |reader| reader.milliseconds("DB_IDLE_TIMEOUT_MS", 30_000, 1)),
                ("DB_MAX_CONN_IDLE", |reader| reader.duration("DB_MAX_CONN_IDLE", 30)),
            ),
            max_lifetime: reader.duration("DB_MAX_CONN_LIFETIME", 1_800),
            redis_dial_timeout: reader.duration("REDIS_DIAL_TIMEOUT", 5),
            redis_read_timeout: reader.duration("REDIS_READ_TIMEOUT", 3),
            relay: RelayOptions {
                poll: reader.milliseconds("OUTBOX_POLL_MS", 250, 10),
                batch: reader.number("OUTBOX_BATCH_SIZE", 256, 1),
                max_attempts: reader.number("OUTBOX_MAX_ATTEMPTS", 10, 1),
            },
        }
    }

    /// How the store at `servers` is opened.
    pub fn postgres(&self, servers: &Servers, mode: Mode) -> Result<PostgresOptions, OpenError> {
        let mut options = PostgresOptions::at(servers.database.expose())?;
        options.connections = self.connections;
        options.connect_timeout = self.connect_timeout;
        options.statement_timeout = self.statement_timeout;
        options.idle_in_transaction_timeout = self.idle_in_transaction_timeout;
        options.idle_timeout = self.idle_timeout;
        options.max_lifetime = self.max_lifetime;
        options.refuse_powerful_login = mode.is_published();
        Ok(options)
    }

    /// How the streams at `servers` are reached.
    pub fn redis(&self, servers: &Servers) -> RedisOptions {
        RedisOptions {
            url: SecretText::new(servers.redis.expose().clone()),
            dial_timeout: self.redis_dial_timeout,
            read_timeout: self.redis_read_timeout,
        }
    }
}

impl Servers {
    /// Where they are, as the environment has it.
    pub fn read(environment: &Environment) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
        let (database, redis) = (reader.secret("DATABASE_URL"), reader.secret("REDIS_URL"));
        match (database, redis) {
            (Some(database), Some(redis)) if mistakes.is_empty() => {
                Ok(Self { database: SecretText::new(database), redis: SecretText::new(redis) })
            }
            _ => Err(Mistakes(mistakes)),
        }
    }
}

/// The one rule for every secret that crosses a network (contract: gateway.md §21, of `STS_URL`).
const UNLESS_NEAR: &str =
    "when CARACAL_MODE is rc or stable, unless its host is a loopback address, a socket or a name without a dot";

/// Whether a host is on this machine, or on a private network by its name.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.starts_with('/') || !host.contains('.'),
    }
}

/// Whether the address of a Redis server means TLS, and its host. `None` when it is no such address.
fn redis_host(url: &str) -> Option<(bool, &str)> {
    let (tls, rest) = match url.split_once("://")? {
        ("redis", rest) => (false, rest),
        ("rediss", rest) => (true, rest),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':')))?,
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let good = !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    good.then_some((tls, host))
}

/// The database alone, for commands that work on nothing else.
pub fn database(environment: &Environment) -> Result<Option<PostgresOptions>, Mistakes> {
    let mut mistakes = Vec::new();
    let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
    let options = reader.secret("DATABASE_URL").map(|url| PostgresOptions::at(&url));
    let options = match options.transpose() {
        Ok(options) => options,
        Err(OpenError::Server { reason, .. }) => {
            reader.mistake("DATABASE_URL", reason);
            None
        }
        Err(other) => {
            reader.mistake("DATABASE_URL", other.to_string());
            None
        }
    };
    if mistakes.is_empty() { Ok(options) } else { Err(Mistakes(mistakes)) }
}

/// The Redis server alone, for commands that work on nothing else.
pub fn topics(environment: &Environment) -> Result<Option<RedisOptions>, Mistakes> {
    let mut mistakes = Vec::new();
    let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
    let options = reader.secret("REDIS_URL").map(|url| RedisOptions::at(SecretText::new(url)));
    if mistakes.is_empty() { Ok(options) } else { Err(Mistakes(mistakes)) }
}
