//! The one transaction in which a whole store arrives on a server. It holds the deployment's lock, so that no process of
//! a running system comes between, and works as the role of one: the rights of the owner are not needed for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::fate::{self, Fate};
use super::lanes::{self, Lane};
use super::options::PostgresOptions;
use super::pool::Pool;
use super::session::{ServerClock, Session};
use crate::error::{OpenError, StoreError};
use crate::tx::{Engine, Tx};
use crate::version::Versions;
use crate::writer::stopped;

/// One page of rows, or the wait for the lock of the deployment.
const STATEMENT: Duration = Duration::from_secs(60);
/// While the other end reads its next page.
const IDLE: Duration = Duration::from_secs(300);

/// An open transaction of the deployment. Dropping it leaves nothing.
pub(crate) struct Arrival {
    pub(crate) tx: Tx,
    pool: Arc<Pool>,
    /// The number under which the server remembers how it ended.
    transaction: i64,
}

/// What became of it.
pub(crate) enum Arrived {
    Committed,
    /// Nothing was kept.
    RolledBack(StoreError),
    /// The server was lost and did not come back.
    Unknown,
}

impl Arrival {
    /// Opens it on a server whose schema is up to date.
    pub(crate) async fn begin(mut options: PostgresOptions) -> Result<Self, OpenError> {
        options.migrate = false;
        options.statement_timeout = STATEMENT;
        options.idle_in_transaction_timeout = IDLE;
        let place = options.place();
        let refused = |error: StoreError| OpenError::Server { server: place.clone(), reason: error.to_string() };
        let (time, _) = ServerClock::new(options.clock.clone(), options.local_clock.clone());
        let pool = Pool::open(options).await?;
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.map_err(|_| refused(stopped()))?;
        let mut session = Session::on(&pool, permit).await.map_err(|failure| refused(failure.error))?;
        let begun = session.begin_change(&lanes::begin(&Lane::Deployment), None, &time).await.map_err(refused)?;
        let tx = Tx::new(Engine::Postgres(Box::new(session)), begun.now, Versions::default());
        Ok(Self { tx, pool, transaction: begun.transaction })
    }

    /// Adds rows, given column by column.
    pub(crate) async fn insert(&mut self, sql: &str, columns: &[Array]) -> Result<usize, StoreError> {
        let Engine::Postgres(session) = &mut self.tx.engine else { return Err(stopped()) };
        let arrays: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
        session.execute_with(None, sql, &arrays).await.inspect_err(|_| self.tx.failed = true)
    }

    /// Makes it stand.
    pub(crate) async fn commit(self) -> Arrived {
        // The server takes "commit" for "roll back", without an error, once a statement has failed.
        if self.tx.failed {
            let reason = "a statement of it had failed".to_owned();
            return Arrived::RolledBack(StoreError::Statement { reason });
        }
        let Engine::Postgres(mut session) = self.tx.engine else { return Arrived::RolledBack(stopped()) };
        let sought = session.sought(self.transaction);
        let Err(error) = session.batch("COMMIT").await else {
            session.end();
            return Arrived::Committed;
        };
        let Some(sought) = sought.filter(|_| !session.is_connected()) else { return Arrived::RolledBack(error) };
        drop(session);
        match fate::of(&self.pool, &sought).await {
            Fate::Committed => Arrived::Committed,
            Fate::RolledBack => Arrived::RolledBack(error),
            Fate::Unknown => Arrived::Unknown,
        }
    }
}

/// What a server holds before anything is done to it.
pub(crate) struct Found {
    /// The first table with a row in it, whoever made it.
    pub(crate) filled: Option<String>,
    /// The value called by the name asked for.
    pub(crate) note: Option<String>,
}

impl PostgresOptions {
    /// Looks for rows in any table of the schema but the lists of migrations and commits, and for one value of the deployment.
    pub(crate) async fn look(&self, note: &str) -> Result<Found, OpenError> {
        let client = self.owner().await?;
        super::schema::inspect(&client, self).await?;
        let failed = |error: tokio_postgres::Error| self.refused(super::wire::whole(&error));
        client.batch_execute("SET caracal.zone = '*'").await.map_err(failed)?;
        let sql = "SELECT CAST(t.relname AS text), quote_ident(t.relname) FROM pg_class t
                   JOIN pg_namespace n ON n.oid = t.relnamespace
                   WHERE n.nspname = current_schema() AND t.relkind IN ('r', 'p')
                     AND t.relname NOT IN ('schema_migrations', 'last_commits')
                   ORDER BY t.relname";
        let mut found = Found { filled: None, note: None };
        for row in client.query(sql, &[]).await.map_err(failed)? {
            let (name, quoted): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            let filled = client.query(&format!("SELECT 1 FROM {quoted} LIMIT 1"), &[]).await.map_err(failed)?;
            if !filled.is_empty() && name == "deployment" {
                let value = client.query_opt("SELECT value FROM deployment WHERE name = $1", &[&note]).await;
                let value = value.map_err(failed)?.map(|row| row.try_get(0)).transpose();
                found.note = value.map_err(failed)?;
            }
            if !filled.is_empty() && found.filled.is_none() {
                found.filled = Some(name);
            }
        }
        Ok(found)
    }
}

/// The values of one column of many rows.
#[derive(Debug)]
pub(crate) enum Array {
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Blob(Vec<Option<Vec<u8>>>),
}

impl ToSql for Array {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Int(numbers) => numbers.to_sql_checked(ty, out),
            Self::Text(texts) => texts.to_sql_checked(ty, out),
            Self::Blob(blobs) => blobs.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
