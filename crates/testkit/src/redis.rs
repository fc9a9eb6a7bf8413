//! A private Redis, or Valkey, server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::directory::Directory;
use crate::server::{self, Missing, NotStarted, Process};

const WHAT: &str = "Redis";
const MISSING: Missing = Missing { what: WHAT, debian: "redis-server", fedora: "redis", homebrew: Some("redis") };

/// A server of its own, which keeps what it was told over a restart and evicts nothing.
pub struct Redis {
    program: PathBuf,
    directory: Directory,
    port: u16,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server.
    pub fn start() -> Result<Self, NotStarted> {
        Self::start_with(&[])
    }

    /// The same with settings of its own, such as `--requirepass`, `secret`.
    pub fn start_with(settings: &[&str]) -> Result<Self, NotStarted> {
        let program = server::find(&["redis-server", "valkey-server"], &["/opt/homebrew/bin".into()])
            .ok_or(NotStarted::Missing(MISSING))?;
        let failed = |error: std::io::Error| NotStarted::Failed { what: WHAT, reason: error.to_string() };
        let directory = Directory::create("redis").map_err(failed)?;
        server::give_to_server(directory.path()).map_err(failed)?;
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self { program, directory, port: 0, settings, process: None };
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
        let mut command = server::command(&self.program, self.directory.path());
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]);
        command.args(&self.settings);
        let mut process = Process::spawn(WHAT, &mut command, self.directory.path(), "TERM")?;
        process.wait_until(|| answers(self.port))?;
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
        let said = Command::new(&self.program).arg("--version").output();
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        said.split(" sha=").next().unwrap_or_default().to_owned()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Ends it in order: everything it was told is written.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end("TERM");
        }
    }

    /// Ends it at once: the last second may be lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

/// Whether a Redis answers there, or says that it wants a password. One that is still loading says something else.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut answer = [0; 64];
    let read = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer)).unwrap_or(0);
    let answer = answer.get(..read).unwrap_or_default();
    answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH")
}
