//! The way to a Redis or Valkey server.
//!
//! Commands share one connection, on which they are pipelined. Reads that wait for new entries have connections of
//! their own: on a shared one, everything behind them would wait too. A connection that was lost is replaced by
//! whoever needs it next.
//!
//! A server can cease to be one that keeps what it is told while we are connected: it is made a replica of another, or told to
//! evict. It answers every command all the same. So it is looked at whenever a connection is made, and by whoever asks
//! whether it is fit ([`Redis::check`]); until it is again, no command is sent to it.

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Value};
use caracal_crypto::SecretText;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::entry::Entry;

/// XAUTOCLAIM and XTRIM MINID, which consumers of our topics use, came with it.
const OLDEST: (u32, u32) = (6, 2);

/// How long after a failed connection nobody else tries.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Where the server is and how long it may take.
pub struct RedisOptions {
    /// `redis://` or `rediss://` (TLS), with user and password where it wants them.
    pub url: SecretText,
    /// How long connecting may take.
    pub dial_timeout: Duration,
    /// How long an answer may take.
    pub read_timeout: Duration,
}

impl RedisOptions {
    /// The usual times for the server at `url`.
    pub fn at(url: SecretText) -> Self {
        Self { url, dial_timeout: Duration::from_secs(5), read_timeout: Duration::from_secs(3) }
    }
}

/// Why a server can't be used. Holds neither URL nor password.
#[derive(Debug, thiserror::Error)]
#[error("the Redis server {place} {reason}")]
pub struct OpenError {
    /// Host and port.
    pub place: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// A command that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The server can't be reached or does not answer. Whether it did what it was told is not known.
    #[error("redis is unavailable: {0}")]
    Unavailable(String),
    /// The server answered that it won't.
    #[error("redis refused: {0}")]
    Refused(String),
    /// The topic has no such group: it was never made, or went away with what the server held.
    #[error("there is no such group: {0}")]
    NoGroup(String),
}

/// A server that was found usable.
pub struct Redis {
    client: Client,
    place: String,
    dial_timeout: Duration,
    read_timeout: Duration,
    commands: Mutex<Commands>,
    /// Why it must not be relied on, as it was found last.
    unfit: Lock<Option<String>>,
}

/// The shared connection, or when there was last none to be had.
#[derive(Default)]
struct Commands {
    connection: Option<MultiplexedConnection>,
    refused: Option<Instant>,
}

impl Redis {
    /// Connects and looks whether the server can keep what is promised.
    pub async fn open(options: RedisOptions) -> Result<Arc<Self>, OpenError> {
        let unusable = |reason: &str| OpenError { place: "of REDIS_URL".to_owned(), reason: reason.to_owned() };
        // The client's own message repeats the URL, which holds the password.
        let client = Client::open(options.url.expose().as_str())
            .map_err(|_| unusable("is named by no URL of one, such as redis://user:password@host:6379/0"))?;
        let address = client.get_connection_info().addr().clone();
        let place = match &address {
            ::redis::ConnectionAddr::Unix(path) => format!("at {}", path.display()),
            other => format!("at {other}"),
        };
        let redis = Self {
            client,
            place,
            dial_timeout: options.dial_timeout,
            read_timeout: options.read_timeout,
            commands: Mutex::default(),
            unfit: Lock::default(),
        };
        redis.inspect().await?;
        Ok(Arc::new(redis))
    }

    /// Host and port, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the server answers, takes what it is told and keeps it.
    pub async fn check(&self) -> Result<(), StreamError> {
        let mut look = looking();
        // A server that is full, can't write to its disk or has become a replica answers to reading.
        look.cmd("SET").arg("caracal:probe").arg(1).arg("PX").arg(1000);
        let answer = self.run(&look, false).await?.map_err(|error| failure(&error))?;
        let mut answers: Vec<Value> = from(answer)?;
        answers.truncate(LOOKS);
        self.judge(answers)?;
        self.is_fit()
    }

    /// Takes note of what the server says of itself.
    fn judge(&self, said: Vec<Value>) -> Result<(), StreamError> {
        let said: Vec<String> = from(Value::Array(said))?;
        let found = why_unfit(&said.concat());
        let mut unfit = self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        match (unfit.as_deref(), found.as_deref()) {
            (before, Some(now)) if before != Some(now) => {
                tracing::error!(place = self.place, "the Redis server {now}; until then nothing is granted");
            }
            (Some(_), None) => tracing::info!(place = self.place, "the Redis server can be relied on again"),
            _ => {}
        }
        *unfit = found;
        Ok(())
    }

    fn is_fit(&self) -> Result<(), StreamError> {
        match &*self.unfit.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(StreamError::Unavailable(format!("the server {reason}"))),
            None => Ok(()),
        }
    }

    async fn inspect(&self) -> Result<(), OpenError> {
        let refused = |reason: String| OpenError { place: self.place.clone(), reason };
        let mut connection = self.connect().await.map_err(|error| refused(why_not(&error)))?;
        let info: String = timeout(self.read_timeout, ::redis::cmd("INFO").query_async(&mut connection))
            .await
            .map_err(|_| refused(format!("did not answer within {:?}", self.read_timeout)))?
            .map_err(|error| refused(why_not(&error)))?;
        let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let version = line("redis_version").unwrap_or("0");
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(refused(format!("is version {version}; 6.2 or newer is needed")));
        }
        if let Some(reason) = why_unfit(&info) {
            return Err(refused(reason));
        }
        let policy: Result<Vec<String>, RedisError> =
            ::redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut connection).await;
        let reported = line("maxmemory_policy").map(str::to_owned);
        match policy.ok().and_then(|pair| pair.into_iter().nth(1)).or(reported) {
            Some(policy) if policy != "noeviction" => Err(refused(evicts(&policy))),
            Some(_) => Ok(()),
            None => {
                tracing::warn!(place = self.place, "the eviction policy can't be read; it must be noeviction");
                Ok(())
            }
        }
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        // How long an answer may take is said by each caller: a read that waits takes as long as it was told to.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.dial_timeout)).set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.dial_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        }
    }

    async fn shared(&self) -> Result<MultiplexedConnection, StreamError> {
        let mut commands = self.commands.lock().await;
        if let Some(connection) = &commands.connection {
            return Ok(connection.clone());
        }
        // Those who wait here would otherwise each wait for a server that does not answer, one after the other.
        if commands.refused.is_some_and(|refused| refused.elapsed() < RETRY_AFTER) {
            return Err(StreamError::Unavailable("it could not be reached a moment ago".to_owned()));
        }
        let found = async {
            let mut connection = self.connect().await.map_err(|error| failure(&error))?;
            // What listens there now may be another server, or have been told something else.
            let said = timeout(self.read_timeout, looking().query_async(&mut connection)).await;
            let said = said.map_err(|_| self.no_answer())?.map_err(|error| failure(&error))?;
            self.judge(said)?;
            Ok(connection)
        };
        match found.await {
            Ok(connection) => Ok(commands.connection.insert(connection).clone()),
            Err(error) => {
                commands.refused = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn no_answer(&self) -> StreamError {
        StreamError::Unavailable(format!("no answer within {:?}", self.read_timeout))
    }

    /// Runs commands in one round trip on the shared connection, and once more on a new one when that turned out to be lost: an idle
    /// connection does not notice that its server was restarted. So a command may be done twice, and whoever calls this
    /// bears that. Where it `relies` on the server, the server has to be fit for that.
    async fn run(&self, commands: &Pipeline, relies: bool) -> Result<Result<Value, RedisError>, StreamError> {
        for again in [true, false] {
            let mut connection = self.shared().await?;
            if relies {
                self.is_fit()?;
            }
            match timeout(self.read_timeout, commands.query_async(&mut connection)).await {
                Ok(Err(error)) if error.clone().into_server_errors().is_none() => {
                    self.commands.lock().await.connection = None;
                    if !(again && (error.is_io_error() || error.is_connection_dropped())) {
                        return Ok(Err(error));
                    }
                }
                Ok(answer) => return Ok(answer),
                Err(_) => {
                    self.commands.lock().await.connection = None;
                    return Err(self.no_answer());
                }
            }
        }
        Err(StreamError::Unavailable("the connection was lost twice".to_owned()))
    }

    /// Runs one command on the shared connection.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StreamError> {
        let mut commands = ::redis::pipe();
        commands.add_command(command.clone());
        let mut answers: Vec<T> = self.ask_all(&commands).await?;
        answers.pop().ok_or_else(|| StreamError::Refused("no answer to a command".to_owned()))
    }

    /// Runs commands in one round trip. An error says nothing about any of them.
    pub(crate) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StreamError> {
        from(self.run(commands, true).await?.map_err(|error| failure(&error))?)
    }

    /// Adds an entry, and gives its id. Where the answer was lost it may be there twice.
    pub(crate) async fn add(&self, topic: &str, fields: &[(String, String)]) -> Result<String, StreamError> {
        self.ask(&addition(topic, fields)).await
    }

    /// Adds entries in one round trip, and says of each whether the server took it. An error says nothing about any.
    pub(crate) async fn add_all(
        &self,
        entries: &[(&str, &[(String, String)])],
    ) -> Result<Vec<Result<(), StreamError>>, StreamError> {
        let mut additions = ::redis::pipe();
        for (topic, fields) in entries {
            additions.add_command(addition(topic, fields));
        }
        let mut taken: Vec<Result<(), StreamError>> = entries.iter().map(|_| Ok(())).collect();
        let Err(error) = self.run(&additions, true).await? else { return Ok(taken) };
        let Some(refusals) = error.clone().into_server_errors() else { return Err(failure(&error)) };
        for (at, refusal) in refusals.iter() {
            if let Some(entry) = taken.get_mut(*at) {
                *entry = Err(of_server(refusal.code(), &refusal.to_string()));
            }
        }
        Ok(taken)
    }

    /// The id of the newest entry; `0-0` before the first.
    pub(crate) async fn newest(&self, topic: &str) -> Result<String, StreamError> {
        let mut command = ::redis::cmd("XREVRANGE");
        let entries: Value = self.ask(command.arg(topic).arg("+").arg("-").arg("COUNT").arg(1)).await?;
        Ok(entries_of(entries).into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
    }
}

/// How many commands it takes to look at a server.
const LOOKS: usize = 2;

/// Asks a server what it is.
fn looking() -> Pipeline {
    let mut look = ::redis::pipe();
    look.cmd("INFO").arg("replication").cmd("INFO").arg("memory");
    look
}

/// Why a server that says this of itself must not be relied on.
fn why_unfit(info: &str) -> Option<String> {
    let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if line("role") == Some("slave") {
        // Where it takes writes at all, it loses them to its primary.
        return Some("is a replica, which takes no messages; name the primary".to_owned());
    }
    line("maxmemory_policy").filter(|policy| *policy != "noeviction").map(evicts)
}

fn evicts(policy: &str) -> String {
    format!(
        "evicts keys when its memory is full (maxmemory-policy {policy}), so revocations could be lost; set \
         maxmemory-policy noeviction"
    )
}

fn from<T: FromRedisValue>(answer: Value) -> Result<T, StreamError> {
    T::from_redis_value(answer).map_err(|error| StreamError::Refused(error.to_string()))
}

/// `XADD topic * name value …`.
fn addition(topic: &str, fields: &[(String, String)]) -> Cmd {
    let mut command = ::redis::cmd("XADD");
    command.arg(topic).arg("*");
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    command
}

/// Entry ids are two numbers, compared as such.
pub(crate) fn id_of(id: &str) -> (u64, u64) {
    let (millis, number) = id.split_once('-').unwrap_or((id, "0"));
    (millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// The entries of an answer `[[id, [name, value, …]], …]`, in order.
pub(crate) fn entries_of(answer: Value) -> Vec<Entry> {
    let Value::Array(entries) = answer else { return Vec::new() };
    entries.into_iter().filter_map(entry_of).collect()
}

fn entry_of(entry: Value) -> Option<Entry> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let id = String::from_redis_value(parts.next()?).ok()?;
    let fields = match parts.next() {
        Some(Value::Array(flat)) => {
            let texts: Result<Vec<String>, _> = flat.into_iter().map(String::from_redis_value).collect();
            texts.ok().map(|texts| {
                let mut texts = texts.into_iter();
                std::iter::from_fn(|| Some((texts.next()?, texts.next()?))).collect()
            })
        }
        _ => None,
    };
    Some(Entry { id, fields })
}

pub(crate) fn failure(error: &RedisError) -> StreamError {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, refusal), ..]) => of_server(refusal.code(), &refusal.to_string()),
        _ => StreamError::Unavailable(error.to_string()),
    }
}

/// A server that is loading its data, that became a replica or that is full may take it later.
fn of_server(code: &str, text: &str) -> StreamError {
    let later =
        ["LOADING", "READONLY", "MASTERDOWN", "OOM", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS"];
    match code {
        "NOGROUP" => StreamError::NoGroup(text.to_owned()),
        code if later.contains(&code) => StreamError::Unavailable(text.to_owned()),
        _ => StreamError::Refused(text.to_owned()),
    }
}

/// What an operator has to do about a connection that was refused.
fn why_not(error: &RedisError) -> String {
    match error.code() {
        Some("WRONGPASS") => "refused user or password; check REDIS_URL".to_owned(),
        Some("NOAUTH") => "wants a password, and REDIS_URL has none".to_owned(),
        Some("NOPERM") => format!("does not let this user do what is needed: {error}"),
        Some(_) => format!("refused: {error}"),
        None if error.kind() == ::redis::ErrorKind::AuthenticationFailed => {
            "refused user or password; check REDIS_URL".to_owned()
        }
        None if error.is_connection_refusal() => "can't be reached: nobody listens there".to_owned(),
        None => format!("can't be reached: {error}; if the server speaks TLS, say rediss://, if it does not, redis://"),
    }
}
