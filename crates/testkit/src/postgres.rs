//! A private PostgreSQL server.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use crate::directory::Directory;
use crate::server::{self, Missing, NotStarted, Process};

const WHAT: &str = "PostgreSQL";
const MISSING: Missing =
    Missing { what: WHAT, debian: "postgresql", fedora: "postgresql-server", homebrew: Some("postgresql@17") };

/// A server of its own. Its superuser `postgres` needs no password on the loopback address; every other login does.
pub struct Postgres {
    programs: PathBuf,
    directory: Directory,
    port: u16,
    process: Option<Process>,
}

impl Postgres {
    /// Makes a server and starts it.
    pub fn start() -> Result<Self, NotStarted> {
        Self::start_as(None)
    }

    /// The same, offering TLS with this certificate and key, both PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Self, NotStarted> {
        Self::start_as(Some((certificate, key)))
    }

    fn start_as(tls: Option<(&str, &str)>) -> Result<Self, NotStarted> {
        let programs = programs().ok_or(NotStarted::Missing(MISSING))?;
        let failed = |error: std::io::Error| NotStarted::Failed { what: WHAT, reason: error.to_string() };
        let directory = Directory::create("postgres").map_err(failed)?;
        server::give_to_server(directory.path()).map_err(failed)?;
        let data = directory.path().join("data");
        let mut init = server::command(&programs.join("initdb"), directory.path());
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        server::run(WHAT, &mut init)?;
        let access =
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), access).map_err(failed)?;
        if let Some((certificate, key)) = tls {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                server::write_private(&data.join(name), text).map_err(failed)?;
            }
            fs::write(data.join("postgresql.auto.conf"), "ssl = on\n").map_err(failed)?;
        }
        let mut server = Self { programs, directory, port: 0, process: None };
        // Somebody else can take the port between its choice and its use.
        let mut tries = 0;
        loop {
            server.port = server::free_port().map_err(failed)?;
            tries += 1;
            match server.resume() {
                Err(_) if tries < 5 => {}
                other => return other.map(|()| server),
            }
        }
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), with what it had, on the same port.
    pub fn resume(&mut self) -> Result<(), NotStarted> {
        let data = self.directory.path().join("data");
        let mut command = server::command(&self.programs.join("postgres"), self.directory.path());
        command.arg("-D").arg(&data);
        let (port, sockets) = (self.port.to_string(), self.directory.path().display().to_string());
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={sockets}"),
            "max_connections=400".to_owned(),
            "shared_buffers=64MB".to_owned(),
            // Many databases come and go, and only what a crash of the server itself loses is of interest.
            "max_wal_size=2GB".to_owned(),
            "checkpoint_timeout=1h".to_owned(),
            "autovacuum_naptime=5min".to_owned(),
            // In its directory, where what a killed server leaves behind goes away with the rest.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let mut process = Process::spawn(WHAT, &mut command, self.directory.path(), "QUIT")?;
        let ready = self.programs.join("pg_isready");
        process.wait_until(|| {
            let mut ask = Command::new(&ready);
            ask.args(["-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
            ask.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it in order and starts it again, with what it had, on the same port.
    pub fn restart(&mut self) -> Result<(), NotStarted> {
        self.stop();
        self.resume()
    }

    /// Its version, as its own program says.
    pub fn version(&self) -> String {
        let said = Command::new(self.programs.join("postgres")).arg("--version").output();
        said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as the superuser.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The address of `database`, as `user` with `password`. Neither may need escaping in a URL.
    pub fn url_of(&self, database: &str, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Ends it in order, cutting off whoever is connected.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end("INT");
        }
    }

    /// Ends it as a power cut does: no process of it says a word to its clients or writes another byte. It recovers
    /// when it is started again.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_with_children();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Immediate shutdown": quick, and unlike a kill it gives back the shared memory, of which a machine has few.
        if let Some(mut process) = self.process.take() {
            process.end("QUIT");
        }
    }
}

/// Where the newest installed server's programs lie.
fn programs() -> Option<PathBuf> {
    let mut places = Vec::new();
    for versions in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        for entry in fs::read_dir(versions).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version: Option<u32> = name.strip_prefix("postgresql@").unwrap_or(&name).parse().ok();
            places.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    places.sort();
    let places: Vec<PathBuf> = places.into_iter().rev().map(|(_, place)| place).collect();
    let server = server::find(&["postgres"], &places)?;
    // A link in PATH may stand alone; the other programs are where it leads.
    let server = fs::canonicalize(&server).unwrap_or(server);
    let place = server.parent()?.to_owned();
    ["initdb", "pg_isready"].iter().all(|name| place.join(name).is_file()).then_some(place)
}

/// The server that the suite was given.
const SERVER: &str = "CARACAL_TEST_POSTGRES_URL";
/// A database of that server with the schema of the tree under test, to be copied.
const TEMPLATE: &str = "CARACAL_TEST_POSTGRES_TEMPLATE";

/// Databases of this process that nobody uses any more. The server writes down everything it holds, of every database,
/// before it removes one, and once for all that are removed at the same moment. So they are removed many at once.
static LEFT: Mutex<Vec<String>> = Mutex::new(Vec::new());
const LEFT_AT_MOST: usize = 24;

/// A database of its own on the server that the suite was given. Its space is given back some time after this value is
/// dropped: by this process, or by the next that makes one.
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Makes an empty one. Fails, saying how to run the suite, where no server was given.
    pub fn create() -> Result<Self, NotStarted> {
        Self::copy_of("template0")
    }

    /// Makes one with the schema in it, where the run has prepared that; else an empty one.
    pub fn create_for_store() -> Result<Self, NotStarted> {
        Self::copy_of(std::env::var(TEMPLATE).as_deref().unwrap_or("template0"))
    }

    fn copy_of(template: &str) -> Result<Self, NotStarted> {
        static FIRST: Once = Once::new();
        let server = std::env::var(SERVER).map_err(|_| NotStarted::Failed {
            what: WHAT,
            reason: format!("{SERVER} is not set; run `cargo xtask services -- cargo test …`"),
        })?;
        FIRST.call_once(|| {
            let server = server.clone();
            let _ = thread::spawn(move || remove_left_behind(&server));
        });
        let database = Self { server, name: Self::fresh_name() };
        database.make(template)?;
        Ok(database)
    }

    fn fresh_name() -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("t{}_{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    fn make(&self, template: &str) -> Result<(), NotStarted> {
        tell(&self.server, &[format!("CREATE DATABASE {} TEMPLATE {template} ENCODING 'UTF8'", self.name)])
    }

    /// A copy of it. Whoever is still connected to it is cut off.
    pub fn copy(&self) -> Result<Self, NotStarted> {
        let copy = Self { server: self.server.clone(), name: Self::fresh_name() };
        tell(&self.server, &self.closing())?;
        let made = copy.make(&self.name);
        tell(&self.server, &[self.opening()])?;
        made.map(|()| copy)
    }

    /// Has `other` answer under its name, and the other way round. Whoever is connected to either is cut off.
    pub fn trade_places_with(&self, other: &Self) -> Result<(), NotStarted> {
        let aside = Self::fresh_name();
        let rename = |from: &str, to: &str| format!("ALTER DATABASE {from} RENAME TO {to}");
        let mut statements: Vec<String> = self.closing().into_iter().chain(other.closing()).collect();
        statements.extend([rename(&self.name, &aside), rename(&other.name, &self.name), rename(&aside, &other.name)]);
        statements.extend([self.opening(), other.opening()]);
        tell(&self.server, &statements)
    }

    /// Statements after which nobody is connected to it, nor comes back.
    fn closing(&self) -> [String; 2] {
        let cut_off = format!(
            "DO $$BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'; END$$",
            self.name
        );
        [format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name), cut_off]
    }

    fn opening(&self) -> String {
        format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name)
    }

    /// Makes one on the server at `server`, the URL of its superuser.
    pub fn on(server: &str, name: &str) -> Result<Self, NotStarted> {
        let database = Self { server: server.to_owned(), name: name.to_owned() };
        tell(server, &[removal(name)])?;
        database.make("template0")?;
        Ok(database)
    }

    /// Its address, as the server's superuser.
    pub fn url(&self) -> String {
        let address = self.server.rsplit_once('/').map_or(self.server.as_str(), |(address, _)| address);
        format!("{address}/{}", self.name)
    }

    /// The server's own address, as its superuser.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs statements in it as the superuser, past every right, and gives what they answer, one line a row: rows as
    /// text, changes as `UPDATE 1`.
    pub fn run(&self, sql: &str) -> Result<String, NotStarted> {
        let places: Vec<PathBuf> = programs().into_iter().collect();
        let psql = server::find(&["psql"], &places).ok_or(NotStarted::Missing(MISSING))?;
        server::answer(WHAT, Command::new(psql).args([&self.url(), "-XtA", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Everything that is in it, as text; the same of the same contents.
    pub fn dump(&self) -> Result<String, NotStarted> {
        let program = programs().map(|place| place.join("pg_dump")).ok_or(NotStarted::Missing(MISSING))?;
        let said = server::answer(WHAT, Command::new(program).args(["--data-only", "--inserts", &self.url()]))?;
        // Newer versions begin and end with a word of chance, against dumps that run commands of their own.
        let is_chance = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
        Ok(said.lines().filter(|line| !is_chance(line)).collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // One by that name on a server of the test's own goes with the server.
        if std::env::var(SERVER).is_ok_and(|server| server == self.server) {
            let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
            left.push(std::mem::take(&mut self.name));
            if left.len() >= LEFT_AT_MOST {
                let (server, names) = (self.server.clone(), std::mem::take(&mut *left));
                drop(left);
                // No test waits for it. What the end of this process leaves undone the next does.
                let _ = thread::spawn(move || remove(&server, &names));
            }
        }
    }
}

fn removal(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
}

/// Removes the databases of processes that have ended.
fn remove_left_behind(server: &str) {
    let Some(psql) = server::find(&["psql"], &programs().into_iter().collect::<Vec<_>>()) else { return };
    let listed = server::answer(WHAT, Command::new(psql).args([server, "-XtAl"])).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split('|').next()).filter(|name| {
        let of_a_test = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
        of_a_test.is_some_and(|(process, number)| process.parse::<u32>().is_ok() && number.parse::<u32>().is_ok())
    });
    let is_over = |name: &&str| {
        let number = name.trim_start_matches('t').split('_').next().unwrap_or_default();
        !Command::new("kill").args(["-0", number]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let names: Vec<String> = names.filter(is_over).map(str::to_owned).collect();
    remove(server, &names);
}

/// Removes databases, many at the same moment.
fn remove(server: &str, names: &[String]) {
    let Some(psql) = server::find(&["psql"], &programs().into_iter().collect::<Vec<_>>()) else { return };
    for some in names.chunks(LEFT_AT_MOST) {
        let each = some.iter().map(|name| {
            let mut command = Command::new(&psql);
            command.args([server, "-qXc", &removal(name)]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn()
        });
        let each: Vec<_> = each.flatten().collect();
        for mut one in each {
            let _ = one.wait();
        }
    }
}

/// Runs statements one by one, each in a transaction of its own.
fn tell(server: &str, statements: &[String]) -> Result<(), NotStarted> {
    let places: Vec<PathBuf> = programs().into_iter().collect();
    let psql = server::find(&["psql"], &places).ok_or(NotStarted::Missing(MISSING))?;
    let mut command = Command::new(psql);
    command.args([server, "-qX", "-v", "ON_ERROR_STOP=1"]);
    command.args(statements.iter().flat_map(|statement| ["-c", statement]));
    server::run(WHAT, &mut command)
}
