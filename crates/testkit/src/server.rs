//! What the servers have in common: finding the program, a port, another user, waiting, ending.

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
/// How long it may take to end after it was told to.
const ENDING: Duration = Duration::from_secs(30);
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
    /// Homebrew's, where it has one.
    pub homebrew: Option<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, debian, fedora, homebrew } = self;
        write!(f, "{what} is not installed: `apt-get install {debian}` or `dnf install {fedora}`")?;
        homebrew.map_or(Ok(()), |homebrew| write!(f, " or `brew install {homebrew}`"))
    }
}

/// What writes down the system calls of a test's child.
pub fn strace() -> Result<PathBuf, Missing> {
    let missing = Missing { what: "strace", debian: "strace", fedora: "strace", homebrew: None };
    find(&["strace"], &[]).ok_or(missing)
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

/// What ends a server whose test process is gone: killed, it drops nothing. The pipe's other end is ours alone, so it
/// ends with us however we end, and only then. The directory goes too, which nobody else knows of any more.
const WATCHER: &str = r#"cat >/dev/null
kill -s "$2" "$1"
tries=0
while kill -0 "$1" && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL "$1"
rm -rf "$3"
"#;

/// A server process, what it writes its words to, and its watcher.
pub(crate) struct Process {
    what: &'static str,
    child: Child,
    watcher: Child,
    log: PathBuf,
    /// How long the log was before.
    earlier: usize,
}

impl Process {
    /// Starts `command`, whose words go to the file `log` of `directory`. `signal` is what ends it quickly.
    pub(crate) fn spawn(
        what: &'static str,
        command: &mut Command,
        directory: &Path,
        signal: &str,
    ) -> Result<Self, NotStarted> {
        let failed = |error: io::Error| NotStarted::Failed { what, reason: error.to_string() };
        let log = directory.join("log");
        let file = fs::File::options().create(true).append(true).open(&log).map_err(failed)?;
        let earlier = fs::read(&log).map_err(failed)?.len();
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        let mut child = command.spawn().map_err(failed)?;
        match watch(child.id(), signal, directory) {
            Ok(watcher) => Ok(Self { what, child, watcher, log, earlier }),
            Err(error) => {
                let _ = (child.kill(), child.wait());
                Err(failed(error))
            }
        }
    }

    /// Waits until the server says that it is ready and `answers` finds it so, the process ends, or it takes too long.
    ///
    /// Its own words count, since an answer alone can be another's: a server that was quicker to take the same port.
    #[allow(clippy::disallowed_methods, reason = "a deadline of a test's server")]
    pub(crate) fn wait_until(&mut self, mut answers: impl FnMut() -> bool) -> Result<(), NotStarted> {
        let until = Instant::now() + STARTING;
        loop {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            let said = self.said();
            if !ended && said.contains("eady to accept connections") && answers() {
                return Ok(());
            }
            if ended || Instant::now() >= until {
                // The last words say why; what came before was in order.
                let lines: Vec<&str> = said.lines().collect();
                let reason = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
                return Err(NotStarted::Failed { what: self.what, reason });
            }
            thread::sleep(PAUSE);
        }
    }

    /// What it has said since it was started.
    fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.earlier..).unwrap_or_default()).into_owned()
    }

    /// Sends a signal and waits for the end, but not for ever.
    #[allow(clippy::disallowed_methods, reason = "a deadline of a test's server")]
    pub(crate) fn end(&mut self, signal: &str) {
        send(signal, self.child.id());
        self.dismiss_watcher();
        let until = Instant::now() + ENDING;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < until {
            thread::sleep(PAUSE);
        }
        self.kill();
    }

    /// Ends it at once, without a chance to tidy up.
    pub(crate) fn kill(&mut self) {
        self.dismiss_watcher();
        let _ = (self.child.kill(), self.child.wait());
    }

    /// Before the server is waited for: from then on its id may become another's.
    fn dismiss_watcher(&mut self) {
        let _ = (self.watcher.kill(), self.watcher.wait());
    }

    /// Ends it and every process it has made at once, and waits until none is left.
    #[allow(clippy::disallowed_methods, reason = "a deadline of a test's server")]
    pub(crate) fn kill_with_children(&mut self) {
        let id = self.child.id();
        // Held first, so that it makes no further ones and none of them sees it go.
        send("STOP", id);
        let children: Vec<u32> = processes().into_iter().filter(|other| other.parent == id).map(|own| own.id).collect();
        children.iter().for_each(|&child| send("KILL", child));
        self.kill();
        let until = Instant::now() + ENDING;
        while processes().iter().any(|other| children.contains(&other.id)) && Instant::now() < until {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the watcher of `server`. It is out of reach of the terminal's Ctrl-C, which would end it before its time.
fn watch(server: u32, signal: &str, directory: &Path) -> io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", WATCHER, "watcher", &server.to_string(), signal]).arg(directory);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn send(signal: &str, process: u32) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &process.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = kill.status();
}

struct Running {
    id: u32,
    parent: u32,
}

/// Every process of this machine that has not ended. One that nobody has waited for yet has ended.
fn processes() -> Vec<Running> {
    let Ok(entries) = fs::read_dir("/proc") else {
        let listed = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="]).output();
        let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        return listed
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                running(fields.next()?, fields.next()?, fields.next()?)
            })
            .collect();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let own = fs::read_to_string(entry.path().join("stat")).ok()?;
            // `1234 (any name, with) brackets) S 1 …`
            let (name, rest) = own.rsplit_once(')')?;
            let mut fields = rest.split_whitespace();
            let state = fields.next()?;
            running(name.split_whitespace().next()?, fields.next()?, state)
        })
        .collect()
}

fn running(id: &str, parent: &str, state: &str) -> Option<Running> {
    let ended = state.starts_with(['Z', 'X']);
    if ended { None } else { Some(Running { id: id.parse().ok()?, parent: parent.parse().ok()? }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;

    /// Says at once what a server says, and stays.
    fn server(directory: &Directory) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", "echo Ready to accept connections; exec sleep 1000"]);
        let mut process = Process::spawn("a server", &mut command, directory.path(), "TERM").unwrap();
        process.wait_until(|| true).unwrap();
        process
    }

    #[allow(clippy::disallowed_methods, reason = "a deadline of a test")]
    fn comes_true(fact: impl Fn() -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while !fact() && Instant::now() < until {
            thread::sleep(PAUSE);
        }
        fact()
    }

    #[test]
    fn a_server_does_not_outlive_the_process_that_wanted_it() {
        let directory = Directory::create("watched").unwrap();
        let mut process = server(&directory);
        // What the system does when we are killed.
        drop(process.watcher.stdin.take());
        assert!(comes_true(|| !processes().iter().any(|other| other.id == process.child.id())));
        // Ours to wait for; nobody's when we are gone.
        process.child.wait().unwrap();
        assert!(comes_true(|| !directory.path().exists()));
    }

    #[test]
    fn a_server_that_was_ended_in_order_keeps_its_directory() {
        let directory = Directory::create("ended").unwrap();
        let mut process = server(&directory);
        process.end("TERM");
        assert!(process.watcher.try_wait().unwrap().is_some());
        assert!(directory.path().exists());
    }

    #[test]
    fn the_answer_of_another_server_is_not_taken_for_ones_own() {
        let directory = Directory::create("late").unwrap();
        let start = |says: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo {says}; exit 1")]);
            let mut process = Process::spawn("a server", &mut command, directory.path(), "TERM").unwrap();
            process.wait_until(|| true)
        };
        // The second finds the words of the first in the log that they share.
        let _ = start("Ready to accept connections");
        let refused = start("the port is taken").unwrap_err().to_string();
        assert_eq!(refused, "a server did not start: the port is taken");
    }
}
