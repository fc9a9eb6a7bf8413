//! `caracal backup`: one archive of an embedded store, beside the running system or of a stopped one.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use caracal_store::{Clock, SystemClock};
use serde_json::json;

use super::{Failure, environment};
use crate::backup::{LedgerSummary, Made, Making, Step, make};
use crate::settings::{SecretFiles, database, default_data_dir};

/// What `caracal backup` was asked for.
pub struct BackupFlags {
    /// The data directory, if one was named.
    pub data_dir: Option<PathBuf>,
    /// The archive to make.
    pub to: PathBuf,
    /// Whether the key files go into it.
    pub with_secrets: bool,
    /// Whether an archive of that name may be replaced.
    pub force: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// Makes a backup.
pub fn backup(flags: &BackupFlags) -> Result<ExitCode, Failure> {
    let environment = environment();
    if flags.data_dir.is_none() && database(&environment)?.is_some() {
        let what = "DATABASE_URL is set: a database on a server is backed up with the server's own tools (docs/backup.md). \
                    To back up an embedded store, name its directory with --data-dir";
        return Err(Failure(what.to_owned()));
    }
    let data_dir = match &flags.data_dir {
        Some(named) => named.clone(),
        None => default_data_dir(&environment)?,
    };
    let key = SecretFiles::in_data_dir(&data_dir).load_audit_key(&environment)?;
    let making = Making {
        data_dir: &data_dir,
        to: &flags.to,
        force: flags.force,
        with_secrets: flags.with_secrets,
        key: key.as_deref(),
        now: SystemClock.now(),
    };
    let mut progress = Shown::new(flags.json);
    let made = make(&making, &mut |step| progress.show(&step));
    progress.clear();
    let made = made?;
    if flags.json {
        let Made { manifest, bytes, sealed } = &made;
        println!("{}", json!({"backup": flags.to, "bytes": bytes, "sealed": sealed, "manifest": manifest}));
    } else {
        tell(&made, &data_dir, &flags.to);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(made: &Made, data_dir: &Path, to: &Path) {
    let manifest = &made.manifest;
    println!("Backed up {} to {}: {} bytes, read back.", data_dir.display(), to.display(), made.bytes);
    println!();
    println!("  as of        {}", manifest.created_at);
    println!("  store        schema {}, pages and ledger verified: {}", manifest.schema, counted(&manifest.ledger));
    match made.sealed {
        true => println!("  seal         by the audit key"),
        false => {
            println!("  seal         none: the audit key was not at hand, so whoever can write the file can change it")
        }
    }
    match manifest.with_secrets {
        true => println!("  keys         in it: whoever can read the file has every secret of the deployment"),
        false => println!("  keys         not in it: it can't be used without {}", data_dir.join("secrets").display()),
    }
}

/// A ledger in a few words.
pub(super) fn counted(ledger: &LedgerSummary) -> String {
    let seals = if ledger.seals_checked { "" } else { ", hashes only" };
    format!("{} events in {} chains{seals}", ledger.events, ledger.chains.len())
}

/// Progress on a terminal, in one line that goes away.
pub(super) struct Shown {
    on: bool,
    last: String,
}

impl Shown {
    pub(super) fn new(json: bool) -> Self {
        Self { on: !json && std::io::stderr().is_terminal(), last: String::new() }
    }

    pub(super) fn show(&mut self, step: &Step) {
        let text = match step {
            Step::Copying { of: 0, .. } => "copying the store".to_owned(),
            Step::Copying { done, of } => format!("copying the store: {} %", done.saturating_mul(100) / of),
            Step::Unpacking => "unpacking".to_owned(),
            Step::CheckingPages => "checking every page".to_owned(),
            Step::Verifying { rows } => format!("verifying the ledger: {rows} rows"),
            Step::Packing => "writing the archive".to_owned(),
            Step::Rereading => "reading it again".to_owned(),
            Step::Ending => "ending what was alive".to_owned(),
            Step::Naming | Step::Named => "finishing".to_owned(),
        };
        if self.on && text != self.last {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
            self.last = text;
        }
    }

    pub(super) fn clear(&self) {
        if self.on {
            eprint!("\r\x1b[K");
        }
    }
}
