//! Connections to the server.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use caracal_authority::Timestamp;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, Statement};

use super::RUNTIME_ROLE;
use super::lineage::Lineage;
use super::options::PostgresOptions;
use super::schema;
use super::tls::{self, Tls};
use super::wire::{Constraints, Failure, placeholders, whole};
use crate::error::OpenError;

/// Statements that a connection keeps prepared. Their texts are few; the bound guards against one that is not.
const STATEMENTS_KEPT: usize = 512;

/// What connections that are long gone committed last. Nobody asks about a commit after a few seconds.
const FORGET_COMMITS: &str = "DELETE FROM last_commits WHERE connection IN (
    SELECT connection FROM last_commits WHERE at < extract(epoch FROM clock_timestamp() - interval '1 day') * 1000000
    FOR UPDATE SKIP LOCKED)";

const LATEST_COMMIT: &str = "SELECT COALESCE(max(at), 0) FROM last_commits";

/// Idle connections and the way to new ones. How many there are is bounded by whoever asks for one.
pub(crate) struct Pool {
    pub(super) options: PostgresOptions,
    tls: Tls,
    idle: Mutex<Option<Vec<Connection>>>,
    constraints: Arc<Constraints>,
    pub(super) lineage: Lineage,
    /// How often a transaction waited for an answer.
    pub(super) round_trips: AtomicU64,
}

/// A connection, usable by one transaction at a time.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The server process behind it.
    pub(super) backend: i32,
    /// What no other connection was ever called. Numbers of processes and of transactions are given out again after
    /// a crash.
    pub(super) name: String,
    pub(super) constraints: Arc<Constraints>,
    statements: HashMap<String, Statement>,
    born: Instant,
    used: Instant,
}

impl Pool {
    /// Looks at the server, brings the schema up to date where that is wanted, and checks what the login may do.
    pub(super) async fn open(options: PostgresOptions) -> Result<Arc<Self>, OpenError> {
        let server = |reason: String| OpenError::Server { server: options.place(), reason };
        let tls = tls::connector(options.root_certificates.as_deref()).map_err(server)?;
        let client = connect(&options, &tls).await.map_err(server)?;
        schema::prepare(&client, &options).await?;
        let constraints = Arc::new(schema::constraints(&client).await.map_err(|error| server(whole(&error)))?);
        drop(client);
        let (idle, lineage) = (Mutex::new(Some(Vec::new())), Lineage::default());
        let pool = Self { options, tls, idle, constraints, lineage, round_trips: AtomicU64::new(0) };
        // The first connection as it will be used: a role that can't be taken is said now.
        let first = pool
            .connect()
            .await
            .map_err(|failure| OpenError::Server { server: pool.options.place(), reason: failure.error.to_string() })?;
        pool.give_back(first);
        Ok(Arc::new(pool))
    }

    /// The latest time at which a change was made, as far as the server remembers: its clock may have been set back since.
    pub(super) async fn latest(&self) -> Result<Timestamp, OpenError> {
        let refused = |reason: String| OpenError::Server { server: self.options.place(), reason };
        let connection = self.get().await.map_err(|failure| refused(failure.error.to_string()))?;
        let asked = connection.client.query_one(LATEST_COMMIT, &[]).await.and_then(|row| row.try_get(0));
        let micros = asked.map_err(|error| refused(whole(&error)))?;
        self.give_back(connection);
        Ok(Timestamp::from_micros(micros))
    }

    /// How many connections reads and changes may use at once.
    pub(super) fn shares(&self) -> (usize, usize) {
        let all = self.options.connections.max(2);
        let writers = (all / 3).max(1);
        (all - writers, writers)
    }

    /// An idle connection that seems alive, or a new one.
    pub(super) async fn get(&self) -> Result<Connection, Failure> {
        while let Some(connection) = self.pop() {
            if self.is_fit(&connection) {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop()
    }

    fn is_fit(&self, connection: &Connection) -> bool {
        !connection.client.is_closed()
            && connection.born.elapsed() < self.options.max_lifetime
            && connection.used.elapsed() < self.options.idle_timeout
    }

    /// A new connection, working as the runtime role.
    #[allow(clippy::disallowed_methods, reason = "the age of a connection is no fact of authority")]
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let refused = |reason: String| Failure {
            error: crate::error::StoreError::Unavailable { reason },
            again: true,
            lost: true,
        };
        let client = connect(&self.options, &self.tls).await.map_err(refused)?;
        let (statement, idle) = (self.options.statement_timeout, self.options.idle_in_transaction_timeout);
        // A lock that is waited for counts as a statement that runs, so its wait is bounded too.
        let set = format!(
            "SET ROLE {RUNTIME_ROLE}; SET synchronous_commit = on; SET statement_timeout = {};
             SET idle_in_transaction_session_timeout = {}; SET caracal.zone = '';
             {FORGET_COMMITS}",
            statement.as_millis(),
            idle.as_millis()
        );
        client.batch_execute(&set).await.map_err(|error| Failure::of(&error, &self.constraints))?;
        let own = client.query_one("SELECT pg_backend_pid(), CAST(gen_random_uuid() AS text)", &[]).await;
        let own = own.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let (backend, name) = own.map_err(|error| Failure::of(&error, &self.constraints))?;
        // What answers now may not be what answered before.
        let looked = timeout(self.options.connect_timeout, self.lineage.look(&client)).await;
        let looked = looked.map_err(|_| Failure::late())?;
        let looked = looked.map_err(|error| Failure::of(&error, &self.constraints))?;
        looked.map_err(|error| Failure { error, again: false, lost: true })?;
        let (born, constraints) = (Instant::now(), self.constraints.clone());
        Ok(Connection { client, backend, name, constraints, statements: HashMap::new(), born, used: born })
    }

    /// Takes back a connection that is outside any transaction, or has been told to leave it.
    #[allow(clippy::disallowed_methods, reason = "the age of a connection is no fact of authority")]
    pub(super) fn give_back(&self, mut connection: Connection) {
        connection.used = Instant::now();
        if let Some(idle) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // The stalest are at the front and looked at last; those past their time go now.
            idle.retain(|other| self.is_fit(other));
            idle.push(connection);
        }
    }

    pub(super) fn close(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Connection {
    /// The statement with the shared text `sql`, prepared on this connection.
    pub(super) async fn statement(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(&placeholders(sql)).await?;
        if self.statements.len() >= STATEMENTS_KEPT {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// A connection as the login that the URL names, or why there is none.
pub(super) async fn connect(options: &PostgresOptions, tls: &Tls) -> Result<Client, String> {
    let mut config = options.config.clone();
    config.connect_timeout(options.connect_timeout);
    config.tcp_user_timeout(options.statement_timeout.saturating_add(options.connect_timeout));
    let connecting = async {
        // The task ends with its client, or with the server.
        if options.uses_tls() {
            let (client, connection) = config.connect(tls.clone()).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        }
    };
    match timeout(options.connect_timeout, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(why_not(&error, options)),
        Err(_) => Err(format!("did not answer within {:?}", options.connect_timeout)),
    }
}

/// What an operator has to do about a connection that was refused. Never holds the password: the server does not send
/// it back, and nothing here adds it.
fn why_not(error: &tokio_postgres::Error, options: &PostgresOptions) -> String {
    use tokio_postgres::error::SqlState;
    let user = options.config.get_user().unwrap_or_default();
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            let said = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
            format!("refused the login `{user}`: {said}; check user and password of DATABASE_URL, and pg_hba.conf")
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            let database = options.config.get_dbname().unwrap_or_default();
            format!("has no database `{database}`; create it, or name another one in DATABASE_URL")
        }
        Some(_) => whole(error),
        None if options.uses_tls() && whole(error).contains("does not support TLS") => {
            "does not offer TLS, which DATABASE_URL asks for; turn it on at the server (ssl = on), or, on a network that \
             nobody else can read, say sslmode=disable"
                .to_owned()
        }
        None => format!("can't be reached: {}", whole(error)),
    }
}
