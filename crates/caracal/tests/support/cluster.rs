//! Several processes on one PostgreSQL and one Redis.

use std::path::Path;
use std::time::Duration;

use super::{Addressed, Answer, Running, caracal, run};

/// How long to wait for something that happens soon. The next reading of what is revoked is thirty seconds away, so what
/// happens within this was heard of.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// What all processes of a deployment are told.
pub(crate) struct Deployment {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) admin_token: String,
}

impl Deployment {
    pub(crate) fn new(database: &str, redis: &str) -> Self {
        let key = |byte: u8| format!("{:02x}", byte).repeat(16) + &"9d".repeat(16);
        let mut environment: Vec<(String, String)> = [
            ("SECRET_STORE_KEK", "00010203040506070809a0b0c0d0e0f1112131415161718191a2a3a4a5a6a7a8".to_owned()),
            ("AUDIT_HMAC_KEY", key(2)),
            ("GATEWAY_STS_HMAC_KEY", key(3)),
            ("IDEMPOTENCY_HMAC_KEY", key(4)),
            ("ADMIN_TOKEN_HMAC_KEY", key(5)),
            ("STREAMS_HMAC_KEY", key(6)),
            ("CARACAL_COORDINATOR_TOKEN", key(7)),
            ("CARACAL_ADMIN_TOKEN", key(8)),
            ("STS_ADMIN_TOKEN", key(9)),
            ("ISSUER_URL", "http://issuer.test".to_owned()),
            ("DATABASE_URL", database.to_owned()),
            ("REDIS_URL", redis.to_owned()),
            ("STS_TIMEOUT", "2s".to_owned()),
            ("API_V1_RATE_LIMIT_PER_MIN", "0".to_owned()),
            ("STS_MINT_RATE_LIMIT_PER_MIN", "1000000".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        environment.sort();
        Self { directory: tempfile::tempdir().unwrap(), environment, admin_token: key(8) }
    }

    pub(crate) fn serve(&self, name: &str, roles: &str) -> Running {
        self.serve_told(name, roles, &[])
    }

    /// The same, for a process that is told something of its own.
    pub(crate) fn serve_told(&self, name: &str, roles: &str, own: &[(&str, String)]) -> Running {
        let mut environment = self.environment.clone();
        environment.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Running::serve(roles, &self.place(name), &environment)
    }

    pub(crate) fn gateway(&self, name: &str, sts: &str) -> Running {
        self.serve_told(name, "gateway", &[("STS_URL", sts.to_owned())])
    }

    pub(crate) fn place(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.directory.path()).join(name)
    }

    /// What an operator would be told of `name`.
    pub(crate) fn told(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap()
    }

    /// The ledger in the database, read by an outsider.
    pub(crate) fn verify_ledger(&self) {
        let mut verify = caracal();
        verify.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let said = run(verify.env("HOME", self.directory.path()).args(["audit", "verify", "--json"]));
        assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
    }
}

/// One process each for management and sessions, two that decide, two that enforce.
pub(crate) struct Cluster {
    pub(crate) deployment: Deployment,
    pub(crate) control: Running,
    pub(crate) sts: [Running; 2],
    pub(crate) gateways: [Running; 2],
}

impl Cluster {
    pub(crate) fn start(database: &str, redis: &str) -> Self {
        let deployment = Deployment::new(database, redis);
        let control = deployment.serve("control", "api,coordinator,audit");
        let sts = [deployment.serve("sts-0", "sts"), deployment.serve("sts-1", "sts")];
        let gateways =
            [deployment.gateway("gateway-0", &sts[0].url("sts")), deployment.gateway("gateway-1", &sts[1].url("sts"))];
        Self { deployment, control, sts, gateways }
    }

    /// As seen through one of the STSs and one of the Gateways.
    pub(crate) fn through(&self, number: usize) -> Through {
        Through {
            control: self.control.urls.clone(),
            sts: self.sts[number].url("sts"),
            gateway: self.gateways[number].url("gateway"),
            admin_token: self.deployment.admin_token.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Through {
    pub(crate) control: serde_json::Value,
    pub(crate) sts: String,
    pub(crate) gateway: String,
    pub(crate) admin_token: String,
}

impl Through {
    /// All services of one process, whose token is known from elsewhere.
    pub(crate) fn one(system: &Running, admin_token: &str) -> Self {
        let (sts, gateway) = (system.url("sts"), system.url("gateway"));
        Self { control: system.urls.clone(), sts, gateway, admin_token: admin_token.to_owned() }
    }
}

impl Addressed for Through {
    fn url(&self, service: &str) -> String {
        match service {
            "sts" => self.sts.clone(),
            "gateway" => self.gateway.clone(),
            other => self.control[other].as_str().unwrap().to_owned(),
        }
    }

    fn admin_token(&self) -> String {
        self.admin_token.clone()
    }
}

pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

pub(crate) fn description(answer: &Answer) -> String {
    answer.json()["error_description"].as_str().unwrap_or_default().to_owned()
}

pub(crate) const REPLAYED: &str = "token replay detected";
