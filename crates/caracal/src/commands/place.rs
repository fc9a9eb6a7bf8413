//! Where a command that only reads finds the store: in a data directory, or in the database of `DATABASE_URL`.

use std::path::PathBuf;

use caracal_store::{DeploymentRead, PostgresOptions, SqliteOptions, Store, StoreError, inspect};

use super::{Failure, environment};
use crate::settings::{database, default_data_dir};

/// Where the ledger lies.
pub(super) enum Place {
    Embedded(PathBuf),
    Server(Box<PostgresOptions>),
}

impl Place {
    pub(super) fn find(data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let environment = environment();
        Ok(match (data_dir, database(&environment)?) {
            (Some(data_dir), _) => Self::Embedded(data_dir),
            (None, Some(mut options)) => {
                options.migrate = false;
                Self::Server(Box::new(options))
            }
            (None, None) => Self::Embedded(default_data_dir(&environment)?),
        })
    }

    /// Runs one read, beside whoever has the store in use.
    pub(super) async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, Failure> {
        match self {
            Self::Embedded(data_dir) => Ok(inspect(&SqliteOptions::in_directory(data_dir).database())?.run(read)?),
            Self::Server(options) => {
                let store = Store::open_postgres((**options).clone()).await?;
                let mut snapshot = store.snapshot().await?;
                let outcome = read(&mut snapshot.deployment()).await;
                drop(snapshot);
                store.close().await;
                Ok(outcome?)
            }
        }
    }
}
