//! `caracal restore`: a data directory out of an archive, in which nothing is alive that was when the backup was made.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use caracal_store::SystemClock;
use serde_json::json;

use super::backup::{Shown, counted};
use super::{Failure, environment, runtime};
use crate::backup::{Restored, Restoring, Vouched, restore as bring_back};

/// What `caracal restore` was asked for.
pub struct RestoreFlags {
    /// The archive.
    pub from: PathBuf,
    /// The data directory to make.
    pub data_dir: PathBuf,
    /// A directory of key files to put into it.
    pub secrets: Option<PathBuf>,
    /// Whether an archive is accepted that no key from elsewhere vouches for.
    pub accept_unsealed: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// Brings a backup back.
pub fn restore(flags: &RestoreFlags) -> Result<ExitCode, Failure> {
    let environment = environment();
    let restoring = Restoring {
        from: &flags.from,
        data_dir: &flags.data_dir,
        secrets: flags.secrets.as_deref(),
        accept_unsealed: flags.accept_unsealed,
        environment: &environment,
        clock: Arc::new(SystemClock),
    };
    let mut progress = Shown::new(flags.json);
    let restored = runtime()?.block_on(bring_back(&restoring, &mut |step| progress.show(&step)));
    progress.clear();
    let restored = restored?;
    if flags.json {
        let Restored { manifest, vouched, has_secrets, ended, ledger } = &restored;
        let ended = json!({"records": ended.records, "sessions": ended.sessions, "delegations": ended.edges});
        println!(
            "{}",
            json!({
                "data_dir": flags.data_dir, "vouched_for_by": vouched.name(), "has_secrets": has_secrets, "ended": ended,
                "ledger": ledger, "manifest": manifest,
            })
        );
    } else {
        tell(&restored, &flags.from, &flags.data_dir);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(restored: &Restored, from: &Path, data_dir: &Path) {
    let ended = restored.ended;
    println!("Restored {} to {}.", from.display(), data_dir.display());
    println!();
    println!("  as of        {}", restored.manifest.created_at);
    match restored.vouched {
        Vouched::ByKey => println!("  vouched for  by the audit key"),
        Vouched::ByItself => println!("  vouched for  by nothing but itself: its key came with it"),
        Vouched::ByNobody => println!("  vouched for  by nobody: it is not sealed"),
    }
    println!("  store        pages and ledger verified: {}", counted(&restored.ledger));
    println!("  ended        {} records, {} sessions, {} delegations", ended.records, ended.sessions, ended.edges);
    if !restored.has_secrets {
        println!("  keys         not in it: put them into {}", data_dir.join("secrets").display());
        println!("               before the start, or give them in the environment");
    }
    println!();
    println!(
        "What was changed after the backup is not in it: secrets and keys that were rotated, applications that were archived,"
    );
    println!("policies that were activated. See to those before agents come back.");
}
