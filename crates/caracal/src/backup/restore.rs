//! Bringing a backup back.
//!
//! The past must not be trusted to grant. Between the backup and now somebody may have taken a delegation back, ended a
//! session, or used a mandate, and nothing in the archive knows of it. So the copy is never served as it is: one
//! transaction ends every authority record, session and delegation in it, writes that down in the management chain of
//! each zone, and removes the mark that keeps a copy from being started. A mandate rests on a record: those that the copy
//! knows are revoked, and one that it never heard of is unknown; both are refused. What agents need they start anew.
//!
//! What was used up stays so: used mandates are kept, and so are the receipts of idempotency keys. A key whose session or
//! delegation has ended is refused, where forgetting it would bring its effect about a second time. Admin tokens in force
//! are forgotten; the next start knows those it is given.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_crypto::chance::{ChanceUnavailable, uuid_v7};
use caracal_crypto::hmac::HmacRing;
use caracal_ledger::{AdminRecord, ChainKey, HeadsError, HeadsObserver, Ledger};
use caracal_store::backup::{self, Ended};
use caracal_store::{Clock, DeploymentWrite, OpenError, SqliteOptions, StoreError, known_version};
use serde_json::{Map, Value};

use super::archive::{self, ArchiveError, Cover};
use super::manifest::{HEADS, LedgerSummary, Manifest, SECRETS, STORE, is_sealed_by};
use super::workshop::{Workshop, WorkshopError, private_directory, private_file};
use super::{FileError, LedgerError, Progress, Step, failed, parent, sync_directory, verify};
use crate::settings::{Environment, SecretFiles, SecretsError};

/// Why everything ended, on record.
const REASON: &str = "restored";

/// What is asked for.
pub struct Restoring<'a> {
    /// The archive.
    pub from: &'a Path,
    /// The data directory to make.
    pub data_dir: &'a Path,
    /// A directory of key files to put into it.
    pub secrets: Option<&'a Path>,
    /// Whether an archive is accepted that no key from elsewhere vouches for.
    pub accept_unsealed: bool,
    /// Where the audit key may come from.
    pub environment: &'a Environment,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What was brought back.
#[derive(Debug)]
pub struct Restored {
    /// What the archive says of itself.
    pub manifest: Manifest,
    /// Who vouches for it.
    pub vouched: Vouched,
    /// Whether key files are in the directory.
    pub has_secrets: bool,
    /// What was alive in it and is ended.
    pub ended: Ended,
    /// The ledger of the result.
    pub ledger: LedgerSummary,
}

/// Who vouches for an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// The audit key, which did not come with it.
    ByKey,
    /// Only a key that lies in the archive itself.
    ByItself,
    /// Nobody.
    ByNobody,
}

impl Vouched {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByKey => "key",
            Self::ByItself => "itself",
            Self::ByNobody => "nobody",
        }
    }
}

/// Why nothing was brought back. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target has something in it.
    #[error(
        "`{}` is not empty; a restore makes a data directory and changes none. Move it away, and keep it: its ledger has \
         what happened since the backup", data_dir.display()
    )]
    NotEmpty {
        /// The target.
        data_dir: PathBuf,
    },
    /// Keys were given and are in the archive too.
    #[error(
        "the backup has its own key files; leave out --secrets, or keep those that are in it and give AUDIT_HMAC_KEY"
    )]
    TwoSecrets,
    /// The directory that was given holds no keys.
    #[error("`{}` has none of the key files; name the directory that they lie in, for example DATA-DIR/secrets", secrets.display())]
    NoKeyFiles {
        /// The directory.
        secrets: PathBuf,
    },
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive's store is newer than this version.
    #[error(
        "the backup has schema {found}, this version knows up to {known}; bring it back with version {version} or a newer \
         one"
    )]
    NewerSchema {
        /// The store's.
        found: i64,
        /// The newest of this version.
        known: i64,
        /// The version that made the backup.
        version: String,
    },
    /// The seal is another key's.
    #[error(
        "the backup's seal does not match the audit key at hand: either this is the key of another deployment, or the \
         manifest was altered. Give the AUDIT_HMAC_KEY that the backup was made with, or, if it was replaced since, that one in \
         AUDIT_HMAC_KEY_PREVIOUS"
    )]
    WrongKey,
    /// There is no seal.
    #[error(
        "the backup is not sealed: the audit key was not at hand when it was made, so whoever could write it could change \
         it. If you know that it is the one you made, say --accept-unsealed"
    )]
    Unsealed,
    /// The only key lies in the archive.
    #[error(
        "the only audit key at hand came with the backup, and whoever could write the one could write the other. Give the \
         AUDIT_HMAC_KEY that is kept elsewhere, or, if you know that it is the backup you made, say --accept-unsealed"
    )]
    OnlyItself,
    /// There is no key.
    #[error(
        "the audit key is not at hand: without it the ledger can't be verified, nor the end of what was alive be put on \
         record. Give it as AUDIT_HMAC_KEY or AUDIT_HMAC_KEY_FILE, or with all the others as --secrets DIR"
    )]
    NoKey,
    /// The keys can't be used.
    #[error(transparent)]
    Keys(#[from] SecretsError),
    /// The ledger in it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error("the store failed while what was alive in it was ended")]
    Store(#[from] StoreError),
    /// The heads can't be kept.
    #[error("the ledger's heads can't be kept")]
    Heads(#[from] HeadsError),
    /// No randomness for an id.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// There is no place to work in.
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Brings a backup back.
pub async fn restore(restoring: &Restoring<'_>, progress: Progress<'_>) -> Result<Restored, RestoreError> {
    refuse_existing(restoring.data_dir)?;
    let cover = archive::read_cover(restoring.from)?;
    refuse_newer(&cover.manifest)?;
    if restoring.secrets.is_some() && cover.manifest.with_secrets {
        return Err(RestoreError::TwoSecrets);
    }
    // A key that came with the archive can't vouch for it, so it is not looked for there yet.
    let outside = match restoring.secrets {
        Some(given) if SecretFiles::names().any(|name| given.join(name).is_file()) => {
            SecretFiles::in_directory(given).load_audit_key(restoring.environment)?
        }
        Some(given) => return Err(RestoreError::NoKeyFiles { secrets: given.to_owned() }),
        None => SecretFiles::given_audit_key(restoring.environment)?,
    };
    let vouched = vouched(&cover, outside.as_deref(), restoring.accept_unsealed)?;

    let workshop = Workshop::beside(restoring.data_dir, "restore")?;
    let data = workshop.path("data");
    progress(Step::Unpacking);
    let has_secrets = unpack(restoring, &cover, &data)?;
    let key = match outside {
        Some(key) => key,
        None => {
            let key =
                SecretFiles::in_data_dir(&data).load_audit_key(restoring.environment)?.ok_or(RestoreError::NoKey)?;
            if cover.seal.as_ref().is_some_and(|seal| !is_sealed_by(&key, &cover.text, seal)) {
                return Err(RestoreError::WrongKey);
            }
            key
        }
    };
    let options = SqliteOptions::in_directory(&data);
    progress(Step::CheckingPages);
    backup::check_integrity(&options.database())?;
    let found = LedgerSummary::of(&verify(&options.database(), &data, Some(&key), progress)?, true);
    if found.chains != cover.manifest.ledger.chains {
        let what = "its ledger is not the one that the manifest tells of".to_owned();
        return Err(ArchiveError::Damaged { path: restoring.from.to_owned(), what }.into());
    }

    progress(Step::Ending);
    let ended = end(&options, &key, restoring.clock.clone(), &cover.manifest).await?;
    let ledger = LedgerSummary::of(&verify(&options.database(), &data, Some(&key), progress)?, true);
    sync_tree(&data)?;
    progress(Step::Naming);
    // Takes the place of nothing, or of an empty directory.
    fs::rename(&data, restoring.data_dir).map_err(failed("name", restoring.data_dir))?;
    sync_directory(parent(restoring.data_dir))?;
    progress(Step::Named);
    Ok(Restored { manifest: cover.manifest, vouched, has_secrets, ended, ledger })
}

fn refuse_existing(data_dir: &Path) -> Result<(), RestoreError> {
    match fs::read_dir(data_dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !data_dir.is_symlink() => Ok(()),
        Ok(true) => Err(RestoreError::NotEmpty { data_dir: data_dir.to_owned() }),
        Err(error) => Err(failed("use", data_dir)(error).into()),
    }
}

fn refuse_newer(manifest: &Manifest) -> Result<(), RestoreError> {
    let (found, known) = (manifest.schema, known_version());
    if found <= known {
        return Ok(());
    }
    Err(RestoreError::NewerSchema { found, known, version: manifest.version.clone() })
}

fn vouched(cover: &Cover, outside: Option<&HmacRing>, accept_unsealed: bool) -> Result<Vouched, RestoreError> {
    match (&cover.seal, outside) {
        (Some(seal), Some(key)) if is_sealed_by(key, &cover.text, seal) => Ok(Vouched::ByKey),
        (Some(_), Some(_)) => Err(RestoreError::WrongKey),
        (Some(_), None) if !cover.manifest.with_secrets => Err(RestoreError::NoKey),
        (Some(_), None) if accept_unsealed => Ok(Vouched::ByItself),
        (Some(_), None) => Err(RestoreError::OnlyItself),
        (None, _) if accept_unsealed => Ok(Vouched::ByNobody),
        (None, _) => Err(RestoreError::Unsealed),
    }
}

/// Lays a data directory out of the archive, and of the keys that were given. Says whether it has key files.
fn unpack(restoring: &Restoring<'_>, cover: &Cover, data: &Path) -> Result<bool, RestoreError> {
    private_directory(data).map_err(failed("make", data))?;
    let keys = SecretFiles::in_data_dir(data);
    let keys_dir = keys.path("");
    if cover.manifest.with_secrets || restoring.secrets.is_some() {
        private_directory(&keys_dir).map_err(failed("make", &keys_dir))?;
    }
    let database = SqliteOptions::in_directory(data).database();
    let place = |name: &str| match name.strip_prefix(SECRETS) {
        Some(key) => keys.path(key),
        None if name == STORE => database.clone(),
        None => data.join(HEADS),
    };
    archive::unpack(restoring.from, cover, |part| private_file(&place(&part.name)), |file: File| file.sync_all())?;
    let mut has_secrets = cover.manifest.with_secrets;
    for name in SecretFiles::names() {
        let Some(from) = restoring.secrets.map(|given| given.join(name)).filter(|from| from.is_file()) else {
            continue;
        };
        let to = keys.path(name);
        let copy = || -> io::Result<()> {
            let mut file = private_file(&to)?;
            io::copy(&mut File::open(&from)?, &mut file)?;
            file.sync_all()
        };
        copy().map_err(failed("copy", &from))?;
        has_secrets = true;
    }
    Ok(has_secrets)
}

/// Makes the copy a store again, in one transaction: everything that was alive ends, each zone's management chain says
/// so, and the mark goes.
async fn end(
    options: &SqliteOptions,
    key: &Arc<HmacRing>,
    clock: Arc<dyn Clock>,
    manifest: &Manifest,
) -> Result<Ended, RestoreError> {
    let store = backup::open_copy(options, clock)?;
    let audit_key: Arc<dyn ChainKey> = key.clone();
    let heads = Arc::new(HeadsObserver::open(&options.directory, audit_key.clone())?);
    store.observe(heads.clone());
    let end = End { ledger: Ledger::new(Some(audit_key)), backup_created_at: manifest.created_at.clone() };
    let ended: Result<Ended, RestoreError> =
        store.commit_deployment(end, |tx, end| Box::pin(async move { end.commit(tx).await })).await;
    // Closed whatever came of it: the directory is to hold one file of data, and no process.
    store.close().await;
    heads.close()?;
    ended
}

struct End {
    ledger: Ledger,
    backup_created_at: String,
}

impl End {
    async fn commit(&self, tx: &mut DeploymentWrite<'_>) -> Result<Ended, RestoreError> {
        let mut all = Ended::default();
        let request_id = uuid_v7(tx.now())?.to_string();
        for zone in backup::list_zones(tx).await? {
            let mut in_zone = tx.zone_write(&zone);
            let ended = backup::end_authority(&mut in_zone, REASON).await?;
            all.records += ended.records;
            all.sessions += ended.sessions;
            all.edges += ended.edges;
            let mut record = self.record(&request_id, in_zone.now(), ended)?;
            record.zone = Some(zone);
            self.ledger.record_change(&mut in_zone, &record).await?;
        }
        let record = self.record(&request_id, tx.now(), all)?;
        self.ledger.record_zoneless_change(tx, &record).await?;
        backup::forget_admin_tokens(tx).await?;
        backup::remove_mark(tx).await?;
        Ok(all)
    }

    fn record(&self, request_id: &str, at: Timestamp, ended: Ended) -> Result<AdminRecord, RestoreError> {
        let mut payload = Map::new();
        payload.insert("backup_created_at".to_owned(), self.backup_created_at.clone().into());
        for (name, count) in [("records", ended.records), ("sessions", ended.sessions), ("delegations", ended.edges)] {
            payload.insert(format!("{name}_ended"), Value::from(count));
        }
        Ok(AdminRecord {
            id: uuid_v7(at)?.to_string(),
            request_id: request_id.to_owned(),
            actor_id: None,
            actor_name: Some("caracal restore".to_owned()),
            actor_scope: None,
            action: "restore".to_owned(),
            method: "RESTORE".to_owned(),
            path: "/".to_owned(),
            zone: None,
            entity_type: None,
            entity_id: None,
            status_code: 200,
            payload: Some(payload),
            occurred_at: at,
        })
    }
}

/// Makes everything in the directory durable, names included.
fn sync_tree(directory: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = entry.map_err(failed("read", directory))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
        }
    }
    sync_directory(directory)
}
