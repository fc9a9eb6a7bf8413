//! Where the server is and how it is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::clock::{Clock, SystemClock};
use crate::error::OpenError;

/// How a store on PostgreSQL is reached, and within which bounds.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(super) config: Config,
    pub(super) root_certificates: Option<PathBuf>,
    /// Connections at most, 2 at least: a third of them for changes, the others for reads.
    pub connections: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a transaction may lie idle before the server ends it: a process that was cut off must not keep a
    /// zone's lock.
    pub idle_in_transaction_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// After which age a connection is replaced.
    pub max_lifetime: Duration,
    /// Whether a login is refused that could change evidence or look past the zones, such as the owner of the tables.
    pub refuse_powerful_login: bool,
    /// Whether an older schema is brought up to date when the login may do so.
    pub migrate: bool,
    /// The store's time, for tests; without it, the server's.
    pub clock: Option<Arc<dyn Clock>>,
    /// This machine's clock, by which time passes between two looks at the server's. It may be wrong.
    pub local_clock: Arc<dyn Clock>,
}

impl PostgresOptions {
    /// The usual settings for the server at `url` (`postgres://user:password@host:port/database?sslmode=…`).
    ///
    /// `sslmode` may be `disable`, `require`, `verify-ca` or `verify-full`; the last three mean the same: TLS, with the
    /// certificate and the name verified. Without it, only a server on a loopback address is spoken to in the clear.
    /// `sslrootcert` names a PEM file of authorities to trust beside the system's.
    pub fn at(url: &str) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Server { server: "DATABASE_URL".to_owned(), reason };
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut tls, mut root_certificates, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => {
                    tls = Some(match mode {
                        "disable" => SslMode::Disable,
                        "require" | "verify-ca" | "verify-full" => SslMode::Require,
                        _ => return Err(wrong(format!("sslmode `{mode}` is none of disable, require, verify-full"))),
                    });
                }
                Some(("sslrootcert", path)) => root_certificates = Some(PathBuf::from(path)),
                _ => rest.push(pair),
            }
        }
        let plain = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        if !plain.starts_with("postgres://") && !plain.starts_with("postgresql://") {
            return Err(wrong("must begin with postgres:// or postgresql://".to_owned()));
        }
        // The parser's own message may repeat a part of the text, and the text holds a password.
        let mut config: Config = plain.parse().map_err(|_| {
            wrong("is no URL of a PostgreSQL server, such as postgres://user:password@host:5432/database".to_owned())
        })?;
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host".to_owned()));
        }
        if config.get_dbname().is_none() {
            return Err(wrong("names no database".to_owned()));
        }
        config.ssl_mode(tls.unwrap_or(if is_local(&config) { SslMode::Disable } else { SslMode::Require }));
        config.application_name("caracal");
        Ok(Self {
            config,
            root_certificates,
            connections: 20,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(30 * 60),
            refuse_powerful_login: false,
            migrate: true,
            clock: None,
            local_clock: Arc::new(SystemClock),
        })
    }

    /// Whether the server is spoken to over TLS.
    pub fn uses_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }

    /// The servers that are spoken to without TLS: names, addresses or the directory of a socket.
    pub fn clear_text_hosts(&self) -> Vec<String> {
        if self.uses_tls() {
            return Vec::new();
        }
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        };
        self.config.get_hosts().iter().map(host).collect()
    }

    /// The server and the database, without login and password: for messages.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_server_is_spoken_to_in_the_clear_unasked() {
        for (url, tls) in [
            ("postgres://u@127.0.0.1/d", false),
            ("postgres://u@localhost/d", false),
            ("postgres://u@db.example/d", true),
            ("postgres://u@db.example/d?sslmode=disable", false),
            ("postgres://u@127.0.0.1/d?sslmode=verify-full", true),
            ("postgres://u@10.0.0.1/d?sslmode=require&connect_timeout=3", true),
        ] {
            assert_eq!(PostgresOptions::at(url).unwrap().uses_tls(), tls, "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_said_without_its_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?sslmode=prefer",
            "postgres://u:hunter2@h",
            "postgres:///d",
            "hunter2",
        ] {
            let error = PostgresOptions::at(url).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("`DATABASE_URL`") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_place_names_neither_login_nor_password() {
        let options = PostgresOptions::at("postgres://user:hunter2@db.example:6000/caracal").unwrap();
        assert_eq!(options.place(), "db.example:6000/caracal");
    }
}
