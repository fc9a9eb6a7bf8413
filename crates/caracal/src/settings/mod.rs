//! Settings: environment and flags are read once into one complete value; only that value can be run. All mistakes are
//! reported together. The operator's table in `docs/settings.md` is printed from [`VARIABLES`].

mod audit;
mod backend;
mod check;
mod clouds;
mod engine;
mod environment;
mod export;
mod kek;
mod logs;
mod secrets;
mod services;
mod variables;

pub use audit::AuditTuning;
pub use backend::{SecretBackendSettings, secret_backend};
pub use check::{Checked, Shown};
pub use engine::{Engine, Servers, SharedTuning, database, topics};
pub use environment::{Environment, Source};
pub use export::ExportSettings;
pub use logs::{LogSettings, TraceSettings};
pub(crate) use secrets::key_variables;
pub use secrets::{KeyMaterial, SecretFiles, SecretsError};
pub use services::{ApiTuning, CoordinatorTuning, GatewayTuning, TlsFiles};
pub use variables::{VARIABLES, Variable, WITHOUT_EFFECT};

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use caracal_gateway::StsUrl;

/// How strict the deployment is (contract: audit-and-streams.md §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One person's machine: loopback upstreams are admitted, metrics are open.
    Dev,
    /// A release candidate: as strict as stable.
    Rc,
    /// Production.
    Stable,
}

impl Mode {
    /// Parses `dev`, `rc` or `stable`, ignoring case and outer white space.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "dev" => Some(Self::Dev),
            "rc" => Some(Self::Rc),
            "stable" => Some(Self::Stable),
            _ => None,
        }
    }

    /// Whether it is `rc` or `stable`.
    pub fn is_published(self) -> bool {
        self != Self::Dev
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Rc => "rc",
            Self::Stable => "stable",
        })
    }
}

/// The five ports of a deployment, in the order of [`Service::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The Admin API.
    Api,
    /// The token service.
    Sts,
    /// The enforcing proxy.
    Gateway,
    /// The evidence service.
    Audit,
    /// Sessions and delegations.
    Coordinator,
}

impl Service {
    /// All of them, in the order they are announced and probed.
    pub const ALL: [Self; 5] = [Self::Api, Self::Sts, Self::Gateway, Self::Audit, Self::Coordinator];

    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sts => "sts",
            Self::Gateway => "gateway",
            Self::Audit => "audit",
            Self::Coordinator => "coordinator",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// Its port in the contract (control-cli-deploy.md §4.2).
    pub fn port(self) -> u16 {
        match self {
            Self::Api => 3000,
            Self::Sts => 8080,
            Self::Gateway => 8081,
            Self::Audit => 9090,
            Self::Coordinator => 4000,
        }
    }
}

/// A mistake in the settings. Several are reported together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable or flag.
    pub name: String,
    /// What is wrong and what is accepted.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// All mistakes of one start.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What the command line of `caracal up` or `caracal serve` says.
#[derive(Debug, Clone)]
pub struct UpFlags {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--bind`.
    pub bind: IpAddr,
    /// `--port-offset`.
    pub port_offset: u16,
    /// `--roles`: the services this process runs. None stands for all.
    pub roles: Option<String>,
}

/// Everything a process needs to run, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the store, the keys and the ledger's heads lie.
    pub data_dir: PathBuf,
    /// The address every service binds.
    pub bind: IpAddr,
    /// Added to every port.
    pub port_offset: u16,
    /// `PORT`: the port of the only role of this process.
    pub port: Option<u16>,
    /// How strict to be.
    pub mode: Mode,
    /// The services this process runs, in the order of [`Service::ALL`].
    pub roles: Vec<Service>,
    /// On what it runs.
    pub engine: Engine,
    /// `STS_URL`: where an STS is asked that is not in the same process.
    pub sts_url: Option<StsUrl>,
    /// `ISSUER_URL`; without it, the STS's own address.
    pub issuer: Option<String>,
    /// `CARACAL_PRIVATE_EGRESS_HOSTS`: hosts that may be private addresses.
    pub private_egress_hosts: Vec<String>,
    /// `UPSTREAM_HOST_ALLOWLIST`: when not empty, the only upstream hosts.
    pub upstream_host_allowlist: Vec<String>,
    /// `CONTROL_AUDIENCE`.
    pub control_audience: String,
    /// `TRUST_PROXY`.
    pub trust_proxy: bool,
    /// `CARACAL_DEV_CLOCK_OFFSET_MS`: how far this process's clock is put wrong.
    pub clock_offset_ms: i64,
    /// How log lines are made.
    pub logs: LogSettings,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: where traces go, if anywhere.
    pub traces: Option<TraceSettings>,
    /// `REQUEST_TIMEOUT_MS`: how long a body may take to arrive at the Admin API or the Coordinator.
    pub body_deadline: Duration,
    /// `READY_RATE_LIMIT_PER_MIN`.
    pub ready_per_minute: u32,
    /// `STS_MINT_RATE_LIMIT_PER_MIN`.
    pub mint_rate_limit_per_min: u32,
    /// `STS_PUBLIC_RATE_LIMIT_PER_MIN`.
    pub public_rate_limit_per_min: u32,
    /// `OPA_POLL_SECONDS`: how often an STS looks at what is active in every zone, beside hearing of it.
    pub policy_poll: Duration,
    /// `CARACAL_SECRET_BACKEND`: where secrets lie.
    pub secret_backend: SecretBackendSettings,
    /// `MAX_GRANT_TTL_SECONDS`: how long a token of a provider is believed in, whatever its endpoint says.
    pub max_grant_ttl: Duration,
    /// `STS_SECRET_VERIFY_CONCURRENCY`.
    pub secret_verify_concurrency: usize,
    /// The Admin API's own.
    pub api: ApiTuning,
    /// The Coordinator's own.
    pub coordinator: CoordinatorTuning,
    /// The Gateway's own.
    pub gateway: GatewayTuning,
    /// The evidence service's own.
    pub audit: AuditTuning,
    /// `UPSTREAM_CLIENT_CERTS_FILE`.
    pub client_certs_file: Option<PathBuf>,
    /// `CARACAL_TLS_EXTRA_CA_FILE`.
    pub extra_ca_file: Option<PathBuf>,
}

impl Settings {
    /// Reads flags and environment. Reports every mistake at once.
    pub fn read(flags: &UpFlags, environment: &Environment) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let roles = roles(&mut mistakes, flags.roles.as_deref());
        let mut reader = variables::Reader { environment, roles: &roles, mistakes: &mut mistakes };
        let mode = mode(&mut reader, flags);
        if mode.is_published() {
            for name in ["INSECURE_STS", "INSECURE_HTTP", "JTI_FAIL_OPEN"] {
                if reader.is_on(name) {
                    reader.mistake(name, "is not accepted when CARACAL_MODE is rc or stable; unset it".to_owned());
                }
            }
        }
        let engine = Engine::read(&mut reader, mode);
        if roles.len() < Service::ALL.len() && !roles.is_empty() && matches!(engine, Engine::Embedded) {
            let what = "the embedded store belongs to one process, which has to run all roles; set DATABASE_URL and \
                        REDIS_URL to split them";
            reader.mistake("--roles", what.to_owned());
        }
        let settings = Self {
            data_dir: match flags.data_dir.clone().map_or_else(|| default_data_dir(environment), Ok) {
                Ok(data_dir) => data_dir,
                Err(Mistakes(found)) => {
                    reader.mistakes.extend(found);
                    PathBuf::new()
                }
            },
            bind: flags.bind,
            port_offset: flags.port_offset,
            mode,
            port: port(&mut reader, flags, mode),
            sts_url: sts_url(&mut reader, mode),
            roles: roles.clone(),
            issuer: reader.issuer(),
            private_egress_hosts: reader.list("CARACAL_PRIVATE_EGRESS_HOSTS"),
            upstream_host_allowlist: reader.list("UPSTREAM_HOST_ALLOWLIST"),
            control_audience: reader.text("CONTROL_AUDIENCE").unwrap_or_else(|| "caracal-control".to_owned()),
            trust_proxy: reader.flag("TRUST_PROXY", false),
            clock_offset_ms: clock_offset_ms(&mut reader, mode),
            logs: LogSettings::read(&mut reader, mode),
            traces: TraceSettings::read(&mut reader),
            body_deadline: reader.milliseconds("REQUEST_TIMEOUT_MS", 30_000, 1),
            ready_per_minute: reader.number("READY_RATE_LIMIT_PER_MIN", 120, 0),
            mint_rate_limit_per_min: reader.number("STS_MINT_RATE_LIMIT_PER_MIN", 1_000, 1),
            public_rate_limit_per_min: reader.number("STS_PUBLIC_RATE_LIMIT_PER_MIN", 6_000, 1),
            policy_poll: policy_poll(&mut reader),
            secret_backend: SecretBackendSettings::read(&mut reader),
            max_grant_ttl: Duration::from_secs(u64::from(reader.number::<u32>("MAX_GRANT_TTL_SECONDS", 3_600, 1))),
            secret_verify_concurrency: reader.number("STS_SECRET_VERIFY_CONCURRENCY", 2, 1),
            api: ApiTuning::read(&mut reader),
            coordinator: CoordinatorTuning::read(&mut reader),
            gateway: GatewayTuning::read(&mut reader),
            audit: AuditTuning::read(&mut reader),
            client_certs_file: reader.text("UPSTREAM_CLIENT_CERTS_FILE").map(PathBuf::from),
            extra_ca_file: reader.text("CARACAL_TLS_EXTRA_CA_FILE").map(PathBuf::from),
            engine,
        };
        if matches!(settings.engine, Engine::Shared(_)) && settings.issuer.is_none() && reader.reads("ISSUER_URL") {
            // Replicas have addresses of their own, and a mandate must not depend on which one minted it.
            reader.mistake(
                "ISSUER_URL",
                "is needed with DATABASE_URL: every replica must name the same issuer".to_owned(),
            );
        }
        let last = roles.iter().map(|service| service.port()).max().unwrap_or(0);
        if last.checked_add(flags.port_offset).is_none() {
            reader.mistake("--port-offset", format!("{} puts port {last} past 65535", flags.port_offset));
        }
        mistakes.extend(match settings.engine {
            // Not known where: that is a mistake of its own, and no reason to look in the current directory.
            Engine::Embedded if settings.data_dir.as_os_str().is_empty() => Vec::new(),
            Engine::Embedded => SecretFiles::in_data_dir(&settings.data_dir).mistakes(environment),
            Engine::Shared(_) => SecretFiles::mistakes_of_given(environment, &roles),
        });
        if mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(mistakes)) }
    }

    /// Whether this process runs `service`.
    pub fn runs(&self, service: Service) -> bool {
        self.roles.contains(&service)
    }

    /// Whether this process holds the key-encryption key. One that strangers talk to first, and that only verifies, does
    /// not.
    pub fn holds_kek(&self) -> bool {
        self.runs(Service::Sts) || self.runs(Service::Api)
    }

    /// The port of `service`.
    pub fn port(&self, service: Service) -> u16 {
        self.port.unwrap_or_else(|| service.port().saturating_add(self.port_offset))
    }
}

/// One to three hundred seconds (contract: sts.md §17).
fn policy_poll(reader: &mut variables::Reader<'_>) -> Duration {
    const MOST: u64 = 300;
    let seconds = reader.number("OPA_POLL_SECONDS", 60, 1);
    if seconds > MOST {
        reader.mistake("OPA_POLL_SECONDS", format!("`{seconds}` is more than {MOST}"));
    }
    Duration::from_secs(seconds.min(MOST))
}

fn mode(reader: &mut variables::Reader<'_>, flags: &UpFlags) -> Mode {
    match reader.text("CARACAL_MODE") {
        // A system on loopback is one person's machine; anything reachable is held to production rules.
        None if flags.bind.is_loopback() => Mode::Dev,
        None => Mode::Stable,
        Some(text) => Mode::parse(&text).unwrap_or_else(|| {
            reader.mistake("CARACAL_MODE", format!("`{text}` is none of dev, rc, stable"));
            Mode::Stable
        }),
    }
}

/// For trying out, and for nothing else: a published system whose clock somebody put wrong would let authority live on.
fn clock_offset_ms(reader: &mut variables::Reader<'_>, mode: Mode) -> i64 {
    const A_DAY: i64 = 86_400_000;
    let name = "CARACAL_DEV_CLOCK_OFFSET_MS";
    let Some(text) = reader.text(name) else { return 0 };
    if mode.is_published() {
        reader.mistake(name, "is accepted only when CARACAL_MODE is dev; unset it".to_owned());
        return 0;
    }
    match text.trim().parse::<i64>() {
        Ok(offset) if (-A_DAY..=A_DAY).contains(&offset) => offset,
        _ => {
            reader.mistake(name, format!("`{text}` is not a whole number from -{A_DAY} to {A_DAY}"));
            0
        }
    }
}

/// The services of a comma-separated list, all without one.
fn roles(mistakes: &mut Vec<Mistake>, list: Option<&str>) -> Vec<Service> {
    let Some(list) = list else { return Service::ALL.to_vec() };
    let mut mistake = |what: String| mistakes.push(Mistake { name: "--roles".to_owned(), what });
    let known = Service::ALL.map(Service::name).join(", ");
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        mistake(format!("names none; give one or more of {known}"));
    }
    let mut roles = Vec::new();
    for name in names {
        match Service::named(name) {
            Some(service) => roles.push(service),
            None => mistake(format!("`{name}` is none of {known}")),
        }
    }
    roles.sort_unstable();
    roles.dedup();
    roles
}

/// `PORT`, which containers of one role are told. In published modes those whose port the contract fixes keep it: probes,
/// network policies and neighbours count on it (control-cli-deploy.md §7.2).
fn port(reader: &mut variables::Reader<'_>, flags: &UpFlags, mode: Mode) -> Option<u16> {
    // `caracal up` runs all roles, and on one person's machine a PORT is often another program's.
    flags.roles.as_ref()?;
    let text = reader.text("PORT")?;
    let [role] = reader.roles else {
        reader.mistake("PORT", "is the port of one role; with several use --port-offset".to_owned());
        return None;
    };
    let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let fixed = matches!(role, Service::Sts | Service::Gateway | Service::Audit);
    match port {
        None => reader.mistake("PORT", format!("`{text}` is no port, which is a number from 1 to 65535")),
        Some(_) if flags.port_offset > 0 => {
            reader.mistake("PORT", "goes without --port-offset: give one of the two".to_owned());
        }
        Some(port) if mode.is_published() && fixed && port != role.port() => {
            let what = format!("must be {} for {} when CARACAL_MODE is rc or stable", role.port(), role.name());
            reader.mistake("PORT", what);
        }
        Some(_) => {}
    }
    port
}

/// Where an STS is asked that is not in the same process: by a Gateway, and for the keys of zones by whoever holds no
/// key-encryption key. One that is given is judged in every process that may need it: the same environment may be read by
/// one that does.
fn sts_url(reader: &mut variables::Reader<'_>, mode: Mode) -> Option<StsUrl> {
    let url = reader.text("STS_URL");
    let runs = |service| reader.roles.contains(&service);
    let for_keys = runs(Service::Coordinator) && !runs(Service::Api);
    let needed = (runs(Service::Gateway) || for_keys) && !runs(Service::Sts);
    let Some(url) = url else {
        if needed {
            let what = "is needed by a gateway or coordinator in a process without an sts: the address of one, or a name of several";
            reader.mistake("STS_URL", what.to_owned());
        }
        return None;
    };
    match StsUrl::parse(&url, mode.is_published()) {
        Ok(url) => Some(url).filter(|_| needed),
        Err(error) => {
            reader.mistake("STS_URL", error.to_string());
            None
        }
    }
}

/// `CARACAL_HOME`, else the platform's place for application data.
pub fn default_data_dir(environment: &Environment) -> Result<PathBuf, Mistakes> {
    if let Some(home) = environment.get("CARACAL_HOME") {
        return Ok(PathBuf::from(home));
    }
    if let Some(data) = environment.get("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("caracal"));
    }
    let home = environment.get(if cfg!(windows) { "LOCALAPPDATA" } else { "HOME" }).map(PathBuf::from);
    match home {
        Some(home) if cfg!(windows) => Ok(home.join("caracal")),
        Some(home) if cfg!(target_os = "macos") => Ok(home.join("Library/Application Support/caracal")),
        Some(home) => Ok(home.join(".local/share/caracal")),
        None => Err(Mistakes(vec![Mistake {
            name: "--data-dir".to_owned(),
            what: "give one: neither CARACAL_HOME nor HOME is set".to_owned(),
        }])),
    }
}

#[cfg(test)]
mod tests;
