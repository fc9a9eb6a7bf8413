//! The system under test, in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use caracal_crypto::SecretText;
use serde::Deserialize;

use crate::commands::Failure;
use crate::system::Urls;

/// Ports are looked for from here on, in steps that keep the five of one system apart from those of the next.
const FIRST_OFFSET: u16 = 20_000;
const STEP: u16 = 131;
const ATTEMPTS: u16 = 40;

/// A running system. Killed when dropped.
pub(super) struct Subject {
    pub(super) urls: Urls,
    pub(super) admin_token: SecretText,
    child: Child,
}

/// What `caracal up --json` says when it is ready.
#[derive(Deserialize)]
struct Ready {
    urls: Urls,
    admin_token_file: std::path::PathBuf,
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject {
    /// Starts `caracal up` below `home`.
    pub(super) fn start(home: &Path) -> Result<Self, Failure> {
        let spread = u16::try_from(std::process::id() % 50).unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            let offset = FIRST_OFFSET + (spread + attempt * 7) % 100 * STEP;
            match Self::attempt(home, offset)? {
                Ok(subject) => return Ok(subject),
                Err(said) if said.contains("the port is in use") => {}
                Err(said) => return Err(Failure(format!("the system did not start: {}", said.trim()))),
            }
        }
        Err(Failure("no free ports were found for the system under test".to_owned()))
    }

    /// One start. The inner error is what it said.
    fn attempt(home: &Path, offset: u16) -> Result<Result<Self, String>, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        // Whatever the caller's environment is set up for must not decide what is measured.
        command.env_clear().env("HOME", home).env("LOG_LEVEL", "error");
        command.env("STS_MINT_RATE_LIMIT_PER_MIN", "1000000000");
        command.args(["up", "--json", "--port-offset", &offset.to_string(), "--data-dir"]).arg(home.join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure("the system under test has no output".to_owned()));
        };
        let log = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(Ready { urls, admin_token_file }) = serde_json::from_str(&line) else {
            child.wait()?;
            return Ok(Err(log.join().unwrap_or_default()));
        };
        let token = std::fs::read_to_string(admin_token_file)?;
        Ok(Ok(Self { urls, admin_token: SecretText::new(token.trim().to_owned()), child }))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it. What it does in a temporary place need not be finished.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
