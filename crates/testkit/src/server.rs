//! What the servers have in common: finding the program, a port, another user, waiting, ending.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to answer after it was started.
const STARTING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A program that this machine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, for people.
    pub what: &'static str,
    /// Debian's package of it.
    pub debian: &'static str,
    /// Fedora's.
    pub fedora: &'static str,
    /// Homebrew's.
    pub homebrew: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not installed: `apt-get install {}`, `dnf install {}` or `brew install {}`",
            self.what, self.debian, self.fedora, self.homebrew
        )
    }
}

/// Why there is no server.
#[derive(Debug)]
pub enum NotStarted {
    /// It is not installed.
    Missing(Missing),
    /// It is, and did not come up.
    Failed {
        /// Which.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::Failed { what, reason } => write!(f, "{what} did not start: {reason}"),
        }
    }
}

impl std::error::Error for NotStarted {}

/// A port of the loopback address that nobody uses at this moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The first of `names` that is a program in one of `places` or in `PATH`.
pub(crate) fn find(names: &[&str], places: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    places
        .iter()
        .chain(&in_path)
        .flat_map(|place| names.iter().map(move |name| place.join(name)))
        .find(|program| program.is_file())
}

/// The user and group a server runs as that refuses to be run by root; none when we are not root.
pub(crate) fn unprivileged() -> Option<(u32, u32)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // Whose processes these are: root's can have changed the owner of nothing.
        let root = fs::metadata("/proc/self").map(|own| own.uid() == 0).unwrap_or(false);
        root.then(|| user("postgres").or_else(|| user("nobody")).unwrap_or((65_534, 65_534)))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then(|| fields.skip(1))
    })?;
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Gives `directory` to the user that the server runs as.
pub(crate) fn give_to_server(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(directory, Some(user), Some(group))?;
    }
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Writes a file that only the server's user may read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    give_to_server(path)
}

/// A command that runs as that user, in `directory`. It stays in our process group: Ctrl-C reaches it too.
pub(crate) fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    #[cfg(unix)]
    if let Some((user, group)) = unprivileged() {
        std::os::unix::process::CommandExt::uid(&mut command, user);
        std::os::unix::process::CommandExt::gid(&mut command, group);
    }
    command.current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs a command to its end and gives what it said when it failed.
pub(crate) fn run(what: &'static str, command: &mut Command) -> Result<(), NotStarted> {
    answer(what, command).map(|_| ())
}

/// The same, with what it said when it succeeded.
pub(crate) fn answer(what: &'static str, command: &mut Command) -> Result<String, NotStarted> {
    let failed = |reason: String| NotStarted::Failed { what, reason };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(failed(text(&output.stderr))) }
}

/// A server process and the file it writes its words to.
pub(crate) struct Process {
    what: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(what: &'static str, command: &mut Command, log: PathBuf) -> Result<Self, NotStarted> {
        let failed = |error: io::Error| NotStarted::Failed { what, reason: error.to_string() };
        let file = fs::File::options().create(true).append(true).open(&log).map_err(failed)?;
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { what, child, log })
    }

    /// Waits until `answers` says so, the process ends, or it takes too long.
    #[allow(clippy::disallowed_methods, reason = "a deadline of a test's server")]
    pub(crate) fn wait_until(&mut self, mut answers: impl FnMut() -> bool) -> Result<(), NotStarted> {
        let until = Instant::now() + STARTING;
        loop {
            if answers() {
                return Ok(());
            }
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() >= until {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let from = said.len().saturating_sub(2_000);
                let reason = said.get(from..).unwrap_or(&said).to_owned();
                return Err(NotStarted::Failed { what: self.what, reason });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args([OsStr::new("-s"), OsStr::new(signal), OsStr::new(&id)]).status();
        let _ = self.child.wait();
    }

    /// Ends it at once, without a chance to tidy up.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
