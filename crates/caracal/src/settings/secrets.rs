//! The deployment's own keys. The first start makes what the environment does not give and keeps it in files that only
//! the owner can read; later starts read them. A file that is there is never rewritten.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_crypto::SecretText;
use caracal_crypto::chance::{self, ChanceUnavailable};
use caracal_crypto::encoding::hex;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::hmac::{HmacKey, HmacRing};

use super::variables::Reader;
use super::{Environment, Mistake, Mistakes, Service};

/// Why the keys are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A key in the environment or in a file is unusable.
    #[error(transparent)]
    Unusable(#[from] Mistakes),
    /// A file can't be read or written.
    #[error("can't use `{path}`: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// No randomness for a new key.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
}

/// The directory of key files, `<data-dir>/secrets`.
#[derive(Debug, Clone)]
pub struct SecretFiles {
    directory: PathBuf,
}

/// The keys, ready for use.
pub struct KeyMaterial {
    /// The bootstrap admin token.
    pub admin_token: SecretText,
    /// Where that token lies, unless the environment gave it.
    pub admin_token_file: Option<PathBuf>,
    /// The Coordinator's operator token.
    pub coordinator_token: SecretText,
    /// The metrics bearer, if one is set.
    pub metrics_bearer: Option<SecretText>,
    /// Opens the evidence service, if another than the bootstrap token does.
    pub audit_admin_token: Option<SecretText>,
    /// The bearer of the STS's operators, if one is set.
    pub sts_admin_token: Option<SecretText>,
    /// The key-encryption keys.
    pub kek: Arc<KekRing>,
    /// Keys the ledger's chain and its heads; with the keys that did before rotations.
    pub audit: Arc<HmacRing>,
    /// Signs exchanges between processes.
    pub gateway_sts: Arc<HmacKey>,
    /// Digests idempotency keys.
    pub idempotency: HmacKey,
    /// The idempotency key before a rotation.
    pub idempotency_previous: Option<HmacKey>,
    /// Digests admin tokens.
    pub admin_token_digests: HmacKey,
    /// Signs what is published on topics.
    pub streams: Arc<HmacKey>,
}

impl SecretFiles {
    /// The key files of a data directory.
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("secrets") }
    }

    /// The key files of the directory that holds them.
    pub fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The names that a key file can have.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, file)| *file).chain([AUDIT_PREVIOUS_FILE])
    }

    /// Path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the admin token is read from, unless the environment has it.
    fn admin_token_file(&self, environment: &Environment) -> Option<PathBuf> {
        let named = || environment.get("CARACAL_ADMIN_TOKEN_FILE").map(PathBuf::from);
        environment.get("CARACAL_ADMIN_TOKEN").is_none().then(|| named().unwrap_or_else(|| self.path(NAMES[0].1)))
    }

    /// Reads all keys, making those that are missing.
    pub fn load_or_create(&self, environment: &Environment) -> Result<KeyMaterial, SecretsError> {
        let mut given = Given::read(environment, &Service::ALL)?;
        self.add_previous_audit(&mut given)?;
        let mut values = Vec::new();
        for ((_, file), value) in NAMES.iter().zip(&given.values) {
            values.push(match value {
                Some(value) => SecretText::new(value.clone()),
                None => self.read_or_create(file)?,
            });
        }
        given.checked(values, self.admin_token_file(environment))
    }

    /// Reads the keys that `roles` use, all from the environment: replicas that made their own would not understand each
    /// other. What no role here uses may be missing, and a worthless key stands in its place.
    pub fn load_given(environment: &Environment, roles: &[Service]) -> Result<KeyMaterial, SecretsError> {
        let given = Given::read(environment, roles)?;
        let (mut values, mut mistakes) = (Vec::new(), Vec::new());
        for ((name, _), value) in NAMES.iter().zip(&given.values) {
            let users: Vec<&str> =
                needed_by(name).iter().filter(|role| roles.contains(role)).map(|role| role.name()).collect();
            values.push(match value {
                Some(value) => SecretText::new(value.clone()),
                None if !users.is_empty() => {
                    mistakes.push(missing(name, &users.join(", ")));
                    // Of those that are there, the worthless ones are to be reported as well.
                    SecretText::new(hex(&chance::random_bytes::<32>()?))
                }
                None => SecretText::new(hex(&chance::random_bytes::<32>()?)),
            });
        }
        match given.checked(values, None) {
            Ok(keys) if mistakes.is_empty() => Ok(keys),
            Err(SecretsError::Unusable(Mistakes(found))) => {
                mistakes.extend(found);
                Err(Mistakes(mistakes).into())
            }
            Ok(_) => Err(Mistakes(mistakes).into()),
            Err(other) => Err(other),
        }
    }

    /// What is wrong with the keys that `roles` are given.
    pub(super) fn mistakes_of_given(environment: &Environment, roles: &[Service]) -> Vec<Mistake> {
        told(Self::load_given(environment, roles))
    }

    /// What is wrong with the keys that are given or lie here. Makes none.
    pub(super) fn mistakes(&self, environment: &Environment) -> Vec<Mistake> {
        let looked_at = Given::read(environment, &Service::ALL).and_then(|mut given| {
            self.add_previous_audit(&mut given)?;
            let mut values = Vec::new();
            for ((_, file), value) in NAMES.iter().zip(&given.values) {
                let value = value.clone().map(SecretText::new);
                values.push(match value.map_or_else(|| self.read(file), |value| Ok(Some(value)))? {
                    Some(value) => value,
                    None => SecretText::new(hex(&chance::random_bytes::<32>()?)),
                });
            }
            given.checked(values, None)
        });
        told(looked_at)
    }

    /// Whether a key lies here under the file name of `variable`.
    pub(super) fn holds(&self, variable: &str) -> bool {
        self.files().any(|(name, path)| name == variable && path.is_file())
    }

    /// The variables whose keys lie here, each with its file.
    pub fn present(&self) -> Vec<(&'static str, PathBuf)> {
        self.files().filter(|(_, path)| path.is_file()).collect()
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let previous = (AUDIT_PREVIOUS, AUDIT_PREVIOUS_FILE);
        NAMES.into_iter().chain([previous]).map(|(name, file)| (name, self.path(file)))
    }

    /// The keys before the audit key lie here unless the environment has them.
    fn add_previous_audit(&self, given: &mut Given) -> Result<(), SecretsError> {
        if given.previous_audit.is_none() {
            given.previous_audit = self.read(AUDIT_PREVIOUS_FILE)?.map(|text| text.expose().clone());
        }
        Ok(())
    }

    /// The audit key alone, for the offline verifier. Makes nothing.
    pub fn load_audit_key(&self, environment: &Environment) -> Result<Option<Arc<HmacRing>>, SecretsError> {
        let (mut key, mut previous) = given_audit_keys(environment)?;
        if key.is_none() {
            key = self.read(AUDIT_KEY_FILE)?;
        }
        if previous.is_none() {
            previous = self.read(AUDIT_PREVIOUS_FILE)?;
        }
        key.map(|key| audit_ring(&key, previous.as_ref())).transpose()
    }

    /// The audit key, if the environment gives it or names its file.
    pub fn given_audit_key(environment: &Environment) -> Result<Option<Arc<HmacRing>>, SecretsError> {
        let (key, previous) = given_audit_keys(environment)?;
        key.map(|key| audit_ring(&key, previous.as_ref())).transpose()
    }

    pub(super) fn read_or_create(&self, name: &str) -> Result<SecretText, SecretsError> {
        if let Some(value) = self.read(name)? {
            return Ok(value);
        }
        let value = SecretText::new(hex(&chance::random_bytes::<32>()?));
        self.create(name, value.expose())?;
        Ok(value)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<SecretText>, SecretsError> {
        let path = self.path(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SecretsError::File { path, reason: error.to_string() }),
        };
        let mut content = String::new();
        if let Err(error) = file.read_to_string(&mut content) {
            return Err(SecretsError::File { path, reason: error.to_string() });
        }
        let value = content.trim_end().to_owned();
        if value.is_empty() {
            let reason = "the file is empty; remove it to have a new key made, if nothing was sealed yet".to_owned();
            return Err(SecretsError::File { path, reason });
        }
        Ok(Some(SecretText::new(value)))
    }

    /// Writes a new file completely before it gets its name, so that a crash leaves none or all of it.
    fn create(&self, name: &str, value: &str) -> Result<(), SecretsError> {
        let path = self.path(name);
        let part = self.path(&format!(".{name}.part"));
        let failed = |error: std::io::Error| SecretsError::File { path: path.clone(), reason: error.to_string() };
        let mut directory = std::fs::DirBuilder::new();
        directory.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
        directory.create(&self.directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&part).map_err(failed)?;
        file.write_all(value.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

/// Characters of a token that operators make up themselves, at least.
const LEAST_TOKEN: usize = 32;

/// The audit key and those before it, as far as the environment has them.
fn given_audit_keys(environment: &Environment) -> Result<(Option<SecretText>, Option<SecretText>), SecretsError> {
    let mut mistakes = Vec::new();
    let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
    let given = (reader.secret("AUDIT_HMAC_KEY"), reader.secret(AUDIT_PREVIOUS));
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes).into());
    }
    Ok((given.0.map(SecretText::new), given.1.map(SecretText::new)))
}

fn audit_ring(key: &SecretText, previous: Option<&SecretText>) -> Result<Arc<HmacRing>, SecretsError> {
    let mut check = Check { mistakes: Vec::new() };
    let ring = check.audit(key.expose(), previous.map(|previous| previous.expose().as_str()));
    ring.map(Arc::new).ok_or(SecretsError::Unusable(Mistakes(check.mistakes)))
}

const AUDIT_KEY_FILE: &str = "auditHmacKey";
const AUDIT_PREVIOUS: &str = "AUDIT_HMAC_KEY_PREVIOUS";
/// Never made: who replaces a key that was made puts it there.
const AUDIT_PREVIOUS_FILE: &str = "auditHmacKeyPrevious";

/// Variable and file of each key that is made when it is missing.
const NAMES: [(&str, &str); 8] = [
    ("CARACAL_ADMIN_TOKEN", "caracalAdminToken"),
    ("CARACAL_COORDINATOR_TOKEN", "caracalCoordinatorToken"),
    ("SECRET_STORE_KEK", "secretStoreKek"),
    ("AUDIT_HMAC_KEY", AUDIT_KEY_FILE),
    ("GATEWAY_STS_HMAC_KEY", "gatewayStsHmacKey"),
    ("IDEMPOTENCY_HMAC_KEY", "idempotencyHmacKey"),
    ("ADMIN_TOKEN_HMAC_KEY", "adminTokenHmacKey"),
    ("STREAMS_HMAC_KEY", "streamsHmacKey"),
];

/// The variables of all keys that a deployment of several processes has to be told.
pub(crate) fn key_variables() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(variable, _)| *variable)
}

/// The roles that can't do without a key. Gateway and Coordinator open zone keys to know that a public half is genuine.
/// Without the bootstrap token, Gateway and audit service keep their operators' routes shut.
fn needed_by(name: &str) -> &'static [Service] {
    use Service::{Api, Coordinator, Gateway, Sts};
    match name {
        "CARACAL_ADMIN_TOKEN" | "ADMIN_TOKEN_HMAC_KEY" => &[Api],
        "CARACAL_COORDINATOR_TOKEN" | "IDEMPOTENCY_HMAC_KEY" => &[Coordinator],
        "SECRET_STORE_KEK" => &[Api, Sts],
        "GATEWAY_STS_HMAC_KEY" => &[Sts, Gateway],
        _ => &Service::ALL,
    }
}

/// The mistakes of a look at the keys. A file that can't be read is one.
fn told(looked_at: Result<KeyMaterial, SecretsError>) -> Vec<Mistake> {
    match looked_at {
        Ok(_) => Vec::new(),
        Err(SecretsError::Unusable(Mistakes(found))) => found,
        Err(other) => vec![Mistake { name: "--data-dir".to_owned(), what: other.to_string() }],
    }
}

fn missing(name: &str, users: &str) -> Mistake {
    let what = format!("is needed by {users}, the same in every process; give it, or a file with it as {name}_FILE");
    Mistake { name: name.to_owned(), what }
}

/// What the environment has of the keys.
struct Given {
    /// In the order of [`NAMES`].
    values: Vec<Option<String>>,
    previous_kek: Option<String>,
    previous_audit: Option<String>,
    previous_idempotency: Option<String>,
    metrics_bearer: Option<SecretText>,
    audit_admin_token: Option<SecretText>,
    sts_admin_token: Option<SecretText>,
}

impl Given {
    fn read(environment: &Environment, roles: &[Service]) -> Result<Self, SecretsError> {
        let mut mistakes = Vec::new();
        let mut reader = Reader { environment, roles, mistakes: &mut mistakes };
        let given = Self {
            values: NAMES.iter().map(|(variable, _)| reader.secret(variable)).collect(),
            previous_kek: reader.secret("SECRET_STORE_KEK_PREVIOUS"),
            previous_audit: reader.secret(AUDIT_PREVIOUS),
            previous_idempotency: reader.secret("IDEMPOTENCY_HMAC_KEY_PREVIOUS"),
            metrics_bearer: reader.secret("METRICS_BEARER").map(SecretText::new),
            audit_admin_token: reader.secret("AUDIT_ADMIN_TOKEN").map(SecretText::new),
            sts_admin_token: reader.secret("STS_ADMIN_TOKEN").map(SecretText::new),
        };
        if mistakes.is_empty() { Ok(given) } else { Err(Mistakes(mistakes).into()) }
    }

    /// The keys of `values`, in the order of [`NAMES`], ready for use.
    fn checked(self, values: Vec<SecretText>, admin_token_file: Option<PathBuf>) -> Result<KeyMaterial, SecretsError> {
        let [admin_token, coordinator_token, kek, audit, gateway_sts, idempotency, admin_token_digests, streams] =
            <[SecretText; 8]>::try_from(values)
                .unwrap_or_else(|_| std::array::from_fn(|_| SecretText::new(String::new())));
        let mut check = Check { mistakes: Vec::new() };
        let kek = check.kek("SECRET_STORE_KEK", kek.expose());
        let previous_kek = self.previous_kek.and_then(|text| check.kek("SECRET_STORE_KEK_PREVIOUS", &text));
        let audit = check.audit(audit.expose(), self.previous_audit.as_deref());
        let gateway_sts = check.hmac("GATEWAY_STS_HMAC_KEY", gateway_sts.expose());
        let idempotency = check.hmac("IDEMPOTENCY_HMAC_KEY", idempotency.expose());
        let admin_token_digests = check.hmac("ADMIN_TOKEN_HMAC_KEY", admin_token_digests.expose());
        let idempotency_previous =
            self.previous_idempotency.and_then(|text| check.hmac("IDEMPOTENCY_HMAC_KEY_PREVIOUS", &text));
        let streams = check.hmac("STREAMS_HMAC_KEY", streams.expose());
        // Whoever guesses it is not slowed down, so there must be too much to guess.
        if self.sts_admin_token.as_ref().is_some_and(|token| token.expose().len() < LEAST_TOKEN) {
            let what = format!("has fewer than {LEAST_TOKEN} characters; give 32 random bytes in hex");
            check.note("STS_ADMIN_TOKEN", what);
        }
        match (kek, audit, gateway_sts, idempotency, admin_token_digests, streams) {
            (
                Some(kek),
                Some(audit),
                Some(gateway_sts),
                Some(idempotency),
                Some(admin_token_digests),
                Some(streams),
            ) if check.mistakes.is_empty() => Ok(KeyMaterial {
                admin_token,
                admin_token_file,
                coordinator_token,
                metrics_bearer: self.metrics_bearer,
                audit_admin_token: self.audit_admin_token,
                sts_admin_token: self.sts_admin_token,
                kek: Arc::new(KekRing::new(kek, previous_kek)),
                audit: Arc::new(audit),
                gateway_sts: Arc::new(gateway_sts),
                idempotency,
                idempotency_previous,
                admin_token_digests,
                streams: Arc::new(streams),
            }),
            _ => Err(Mistakes(check.mistakes).into()),
        }
    }
}

struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn kek(&mut self, name: &str, text: &str) -> Option<Kek> {
        Kek::from_hex(text).map_err(|error| self.note(name, error.to_string())).ok()
    }

    fn hmac(&mut self, name: &str, text: &str) -> Option<HmacKey> {
        HmacKey::from_hex(text).map_err(|error| self.note(name, error.to_string())).ok()
    }

    fn audit(&mut self, current: &str, previous: Option<&str>) -> Option<HmacRing> {
        let current = self.hmac("AUDIT_HMAC_KEY", current);
        let texts = previous.unwrap_or_default().split(|c: char| c == ',' || c.is_whitespace());
        let previous: Vec<Option<HmacKey>> =
            texts.filter(|text| !text.is_empty()).map(|text| self.hmac(AUDIT_PREVIOUS, text)).collect();
        let (current, previous) = (current?, previous.into_iter().collect::<Option<Vec<_>>>()?);
        // Two keys are the same when they sign the same.
        let signed = |key: &HmacKey| key.sign(&[AUDIT_PREVIOUS.as_bytes()]);
        let mut seen = vec![signed(&current)];
        for key in &previous {
            if seen.contains(&signed(key)) {
                let what = "names a key twice, or the one in AUDIT_HMAC_KEY: a key that was replaced isn't used again";
                self.note(AUDIT_PREVIOUS, what.to_owned());
                return None;
            }
            seen.push(signed(key));
        }
        Some(HmacRing::new(current, previous))
    }

    fn note(&mut self, name: &str, what: String) {
        self.mistakes.push(Mistake { name: name.to_owned(), what });
    }
}
