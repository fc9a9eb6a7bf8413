//! Running other programs, with the time since the start in front of what is said about it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What went wrong, for the last line.
pub(crate) struct Failed(pub(crate) String);

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// One chore under way.
pub(crate) struct Chore {
    root: PathBuf,
    began: Instant,
    /// What is said goes to standard error, because standard output is somebody else's.
    aside: bool,
}

impl Chore {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), began: Instant::now(), aside: false }
    }

    /// The same chore, which leaves standard output to the program it runs.
    pub(crate) fn aside(&self) -> Self {
        Self { root: self.root.clone(), began: self.began, aside: true }
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where built and downloaded things lie.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// One line on the terminal.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("[{:6.1} s] {what}", self.began.elapsed().as_secs_f64());
        if self.aside {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    /// The toolchain's own `cargo`, in the root of the tree.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// Any program, in the root of the tree.
    pub(crate) fn program(&self, path: impl AsRef<Path>) -> Command {
        let mut command = Command::new(path.as_ref());
        command.current_dir(&self.root);
        command
    }

    /// Runs `command` and insists that it succeeds.
    pub(crate) fn run(&self, what: &str, command: &mut Command) -> Result<(), Failed> {
        self.say(what);
        let status = command.stdin(Stdio::null()).status().map_err(|error| no_start(command, &error))?;
        succeeded(what, status)
    }

    /// Runs `command`, hands every line of its standard output to `look` after printing it, and says how it ended.
    pub(crate) fn watch(
        &self,
        what: &str,
        command: &mut Command,
        mut look: impl FnMut(&str),
    ) -> Result<ExitStatus, Failed> {
        self.say(what);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| no_start(command, &error))?;
        for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
            let line = line?;
            println!("{line}");
            look(&line);
        }
        Ok(child.wait()?)
    }

    /// The standard output of `command`, if it succeeds within `limit`. What it says on standard error is dropped.
    pub(crate) fn ask(&self, command: &mut Command, limit: Duration) -> Option<String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let output = child.stdout.take()?;
        let reader = thread::spawn(move || std::io::read_to_string(output).unwrap_or_default());
        let until = Instant::now() + limit;
        loop {
            match child.try_wait().ok()? {
                Some(status) if status.success() => return reader.join().ok(),
                Some(_) => return None,
                None if Instant::now() >= until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return None;
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Turns the end of a program into a result.
pub(crate) fn succeeded(what: &str, status: ExitStatus) -> Result<(), Failed> {
    if status.success() { Ok(()) } else { Err(Failed(format!("{what} ({status})"))) }
}

fn no_start(command: &Command, error: &std::io::Error) -> Failed {
    Failed(format!("can't start `{}`: {error}", command.get_program().display()))
}
