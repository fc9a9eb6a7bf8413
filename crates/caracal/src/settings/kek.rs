//! The key-encryption keys alone, for the command that seals everything anew.

use std::sync::Arc;

use caracal_crypto::envelope::{Kek, KekError, KekRing};

use super::secrets::{SecretFiles, SecretsError};
use super::variables::Reader;
use super::{Environment, Mistake, Mistakes, Service};

const CURRENT: &str = "SECRET_STORE_KEK";
const PREVIOUS: &str = "SECRET_STORE_KEK_PREVIOUS";

impl SecretFiles {
    /// The key in the environment, or the one that lies here; `None` when there is neither. Where the former key is given
    /// as the previous one, and `may_create`, a missing key is made here: it is the one to come.
    pub fn load_kek(&self, environment: &Environment, may_create: bool) -> Result<Option<Arc<KekRing>>, SecretsError> {
        let given = Given::read(environment)?;
        let current = match given.current.clone() {
            Some(current) => Some(current),
            None => match self.read(FILE)? {
                Some(lies_here) => Some(lies_here.expose().clone()),
                None if may_create && given.previous.is_some() => Some(self.read_or_create(FILE)?.expose().clone()),
                None => None,
            },
        };
        given.ring(current)
    }

    /// The key in the environment; `None` without one.
    pub fn given_kek(environment: &Environment) -> Result<Option<Arc<KekRing>>, SecretsError> {
        let given = Given::read(environment)?;
        let current = given.current.clone();
        given.ring(current)
    }
}

const FILE: &str = "secretStoreKek";

/// What the environment has of them.
struct Given {
    current: Option<String>,
    previous: Option<String>,
}

impl Given {
    fn read(environment: &Environment) -> Result<Self, SecretsError> {
        let mut mistakes = Vec::new();
        let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
        let given = Self { current: reader.secret(CURRENT), previous: reader.secret(PREVIOUS) };
        if mistakes.is_empty() { Ok(given) } else { Err(Mistakes(mistakes).into()) }
    }

    fn ring(self, current: Option<String>) -> Result<Option<Arc<KekRing>>, SecretsError> {
        let Some(current) = current else { return Ok(None) };
        let refused =
            |name: &str, error: KekError| Mistakes(vec![Mistake { name: name.to_owned(), what: error.to_string() }]);
        let current = Kek::from_hex(&current).map_err(|error| refused(CURRENT, error))?;
        let previous = self.previous.map(|text| Kek::from_hex(&text).map_err(|error| refused(PREVIOUS, error)));
        Ok(Some(Arc::new(KekRing::new(current, previous.transpose()?))))
    }
}
