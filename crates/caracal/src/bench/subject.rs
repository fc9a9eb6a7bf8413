//! The system under test: a process of its own that is started here, or one that runs already.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use caracal_crypto::SecretText;
use caracal_crypto::chance;
use serde::Deserialize;

use super::BenchFlags;
use crate::commands::Failure;
use crate::settings::{Environment, Service, key_variables};
use crate::system::Urls;

/// Ports are looked for from here on, in steps that keep the five of one system apart from those of the next.
const FIRST_OFFSET: u16 = 20_000;
const STEP: u16 = 131;
const ATTEMPTS: u16 = 40;

const GATEWAY_KEY: &str = "GATEWAY_STS_HMAC_KEY";

/// Limits that exist to stop what a benchmark does, and 0 or a number that stops nothing.
const LIMITS: [(&str, &str); 6] = [
    ("STS_MINT_RATE_LIMIT_PER_MIN", "1000000000"),
    ("COORDINATOR_RATE_LIMIT_PER_MIN", "0"),
    ("VERIFY_RATE_LIMIT_PER_MIN", "0"),
    ("API_V1_RATE_LIMIT_PER_MIN", "0"),
    ("MAX_AGENTS_PER_ZONE", "4000000000"),
    ("MAX_AGENTS_PER_APP", "4000000000"),
];

/// A running system. Killed when dropped, if it was started here.
pub(super) struct Subject {
    pub(super) urls: Urls,
    pub(super) admin_token: SecretText,
    /// What a Gateway signs its questions to the STS with, of a system that was started here.
    pub(super) gateway_key: Option<String>,
    /// What it keeps its store on, where that is known.
    pub(super) engine: &'static str,
    process: Process,
}

enum Process {
    Ours(Child),
    Theirs(Option<u32>),
}

/// What `caracal up --json` says when it is ready.
#[derive(Deserialize)]
struct Ready {
    urls: Urls,
    admin_token_file: Option<std::path::PathBuf>,
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Process::Ours(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Subject {
    /// The one that the flags name, or a new one below `home`.
    pub(super) fn of(flags: &BenchFlags, home: &Path) -> Result<Self, Failure> {
        if flags.target.is_some() {
            return Self::running(flags, &Environment::of_process());
        }
        match flags.postgres.as_deref().zip(flags.redis.as_deref()) {
            Some((postgres, redis)) => Self::on_servers(home, postgres, redis),
            None => Self::embedded(home, None),
        }
    }

    /// On the embedded store below `home`, with this key for its ledger or one of its own.
    pub(super) fn embedded(home: &Path, ledger_key: Option<&str>) -> Result<Self, Failure> {
        let mut settings: Vec<(&str, String)> = LIMITS.map(|(name, value)| (name, value.to_owned())).into();
        settings.extend(ledger_key.map(|key| ("AUDIT_HMAC_KEY", key.to_owned())));
        settings.push((GATEWAY_KEY, key()?));
        Self::start(home, "embedded", &settings)
    }

    fn running(flags: &BenchFlags, environment: &Environment) -> Result<Self, Failure> {
        let address = flags.target.ok_or_else(|| Failure("there is no target".to_owned()))?;
        let token = match (environment.get("CARACAL_ADMIN_TOKEN"), environment.get("CARACAL_ADMIN_TOKEN_FILE")) {
            (Some(token), _) => token.to_owned(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| Failure(format!("can't read `{file}` of CARACAL_ADMIN_TOKEN_FILE: {error}")))?,
            (None, None) => {
                let why = "a running system is measured with its bootstrap admin token: set CARACAL_ADMIN_TOKEN, or \
                           CARACAL_ADMIN_TOKEN_FILE to the file that `caracal up` names";
                return Err(Failure(why.to_owned()));
            }
        };
        let url = |service: Service| -> Result<String, Failure> {
            let port = service.port().checked_add(flags.port_offset);
            let port = port.ok_or_else(|| Failure(format!("--port-offset {} is too large", flags.port_offset)))?;
            Ok(format!("http://{}", SocketAddr::new(address, port)))
        };
        Ok(Self {
            urls: Urls {
                api: url(Service::Api)?,
                sts: url(Service::Sts)?,
                gateway: url(Service::Gateway)?,
                coordinator: url(Service::Coordinator)?,
                audit: url(Service::Audit)?,
            },
            admin_token: SecretText::new(token.trim().to_owned()),
            gateway_key: None,
            engine: "target",
            process: Process::Theirs(flags.server_pid),
        })
    }

    /// On servers that are there. All keys are new: a database that another system has sealed is not opened with them, and
    /// so not written to.
    fn on_servers(home: &Path, postgres: &str, redis: &str) -> Result<Self, Failure> {
        let mut settings: Vec<(&str, String)> = LIMITS.map(|(name, value)| (name, value.to_owned())).into();
        for name in key_variables() {
            settings.push((name, key()?));
        }
        settings.push(("DATABASE_URL", postgres.to_owned()));
        settings.push(("REDIS_URL", redis.to_owned()));
        let mut migrate = command(home, &settings)?;
        let migrated = migrate.arg("migrate").stdin(Stdio::null()).output()?;
        if !migrated.status.success() {
            return Err(Failure(String::from_utf8_lossy(&migrated.stderr).trim().to_owned()));
        }
        Self::start(home, "postgresql", &settings)
    }

    fn start(home: &Path, engine: &'static str, settings: &[(&str, String)]) -> Result<Self, Failure> {
        let spread = u16::try_from(std::process::id() % 50).unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            let offset = FIRST_OFFSET + (spread + attempt * 7) % 100 * STEP;
            match Self::attempt(home, engine, settings, offset)? {
                Ok(subject) => return Ok(subject),
                Err(said) if said.contains("the port is in use") => {}
                Err(said) => return Err(Failure(format!("the system did not start: {}", said.trim()))),
            }
        }
        Err(Failure("no free ports were found for the system under test".to_owned()))
    }

    /// One start. The inner error is what it said.
    fn attempt(
        home: &Path,
        engine: &'static str,
        settings: &[(&str, String)],
        offset: u16,
    ) -> Result<Result<Self, String>, Failure> {
        let mut command = command(home, settings)?;
        // Several processes could share those servers, and would have to name the same issuer.
        command.env("ISSUER_URL", format!("http://127.0.0.1:{}", Service::Sts.port() + offset));
        command.args(["up", "--json", "--port-offset", &offset.to_string(), "--data-dir"]).arg(home.join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure("the system under test has no output".to_owned()));
        };
        let log = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(Ready { urls, admin_token_file }) = serde_json::from_str(&line) else {
            child.wait()?;
            return Ok(Err(log.join().unwrap_or_default()));
        };
        // From here on it is killed whatever happens.
        let unknown = SecretText::new(String::new());
        let setting = |wanted: &str| settings.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
        let gateway_key = setting(GATEWAY_KEY);
        let mut subject = Self { urls, admin_token: unknown, gateway_key, engine, process: Process::Ours(child) };
        let given = setting("CARACAL_ADMIN_TOKEN");
        let token = match (given, admin_token_file) {
            (Some(token), _) => token,
            (None, Some(file)) => std::fs::read_to_string(file)?,
            (None, None) => return Err(Failure("the system under test does not say its admin token".to_owned())),
        };
        subject.admin_token = SecretText::new(token.trim().to_owned());
        Ok(Ok(subject))
    }

    /// Its process, where it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Ours(child) => Some(child.id()),
            Process::Theirs(pid) => *pid,
        }
    }

    /// Whether it goes on when the benchmark is over.
    pub(super) fn stays(&self) -> bool {
        matches!(self.process, Process::Theirs(_))
    }
}

/// This program, with nothing in its environment but what is given here: whatever the caller's is set up for must not decide
/// what is measured.
fn command(home: &Path, settings: &[(&str, String)]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_clear().env("HOME", home).env("LOG_LEVEL", "error");
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// 64 hex digits by chance.
pub(super) fn key() -> Result<String, Failure> {
    let bytes: [u8; 32] = chance::random_bytes()?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: BenchFlags,
    }

    fn running(arguments: &[&str], environment: &Environment) -> Result<Subject, String> {
        let line = ["bench"].iter().chain(arguments).copied();
        Subject::running(&Line::try_parse_from(line).unwrap().flags, environment).map_err(|Failure(why)| why)
    }

    #[test]
    fn a_target_is_its_address_its_offset_and_a_token_of_the_environment() {
        let environment = Environment::of([("CARACAL_ADMIN_TOKEN", "secret\n")]);
        let subject = running(&["--target", "::1", "--port-offset", "5"], &environment).unwrap();
        assert_eq!((subject.urls.api.as_str(), subject.urls.sts.as_str()), ("http://[::1]:3005", "http://[::1]:8085"));
        assert_eq!((subject.admin_token.expose().as_str(), subject.pid(), subject.stays()), ("secret", None, true));
        let known = running(&["--target", "127.0.0.1", "--server-pid", "7"], &environment).unwrap();
        assert_eq!(known.pid(), Some(7));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file\n").unwrap();
        let environment = Environment::of([("CARACAL_ADMIN_TOKEN_FILE", file.path().to_str().unwrap())]);
        let subject = running(&["--target", "127.0.0.1"], &environment).unwrap();
        assert_eq!(subject.admin_token.expose(), "from a file");
    }

    #[test]
    fn a_target_without_a_token_or_beyond_the_ports_is_refused() {
        let why = running(&["--target", "127.0.0.1"], &Environment::default()).err().unwrap();
        assert!(why.contains("CARACAL_ADMIN_TOKEN"), "{why}");
        let environment = Environment::of([("CARACAL_ADMIN_TOKEN", "secret")]);
        let why = running(&["--target", "127.0.0.1", "--port-offset", "60000"], &environment).err().unwrap();
        assert!(why.contains("too large") && !why.contains("secret"), "{why}");
        let environment = Environment::of([("CARACAL_ADMIN_TOKEN_FILE", "/nonexistent/token")]);
        let why = running(&["--target", "127.0.0.1"], &environment).err().unwrap();
        assert!(why.contains("/nonexistent/token"), "{why}");
    }
}
