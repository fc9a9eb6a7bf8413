//! Where a command that only reads finds the store: in a data directory, or in the database of `DATABASE_URL`.

use std::path::PathBuf;

use caracal_authority::ZoneId;
use caracal_store::{DeploymentRead, PostgresOptions, SqliteOptions, Store, StoreError, inspect, transparency};

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

/// The zone that is named, or the only one with such a request in its ledger.
pub(super) async fn zone_of_request(place: &Place, zone: Option<&str>, request: &str) -> Result<ZoneId, Failure> {
    if let Some(zone) = zone {
        return zone_named(zone);
    }
    let mut zones = place.read(async |tx| transparency::list_zones_of_request(tx, request).await).await?;
    let request = request.escape_debug();
    match (zones.pop(), zones.is_empty()) {
        (Some(zone), true) => Ok(zone),
        (Some(_), false) => Err(Failure(format!("several zones have a request `{request}`: name one with --zone"))),
        (None, _) => Err(Failure(format!(
            "no zone has a request `{request}` in its ledger: the id is the `requestId` of an answer, or its X-Request-Id"
        ))),
    }
}

pub(super) fn zone_named(zone: &str) -> Result<ZoneId, Failure> {
    ZoneId::parse(zone).map_err(|_| Failure(format!("`{}` is no zone's id", zone.escape_debug())))
}
