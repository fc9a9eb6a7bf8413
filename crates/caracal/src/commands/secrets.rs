//! `caracal secrets rewrap`: everything sealed anew under the key-encryption key of now, or with `--check` a count of what
//! still needs the previous one. On servers it works beside the processes; an embedded store must not be in use, but
//! `--check` looks at it from outside, and a system on one does the same by itself once it has both keys.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use caracal_crypto::encoding::hex;
use caracal_crypto::envelope::KekRing;
use caracal_custody::rewrap::{Mode, Next, Progress, Report, Rewrap, Tally};
use caracal_store::{PostgresOptions, SqliteOptions, Store, SystemClock, inspect};

use super::{Failure, environment, runtime};
use crate::settings::{Environment, SecretFiles, database, default_data_dir};
use crate::system::backend_of;

/// Seals everything anew, or counts. Exit 0 only when nothing needs the previous key any more.
pub fn rewrap(data_dir: Option<PathBuf>, check: bool, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let run = Run { check, shown: !json && std::io::stderr().is_terminal() };
    let (ring, report) = match (data_dir, database(&environment)?) {
        (Some(data_dir), _) => run.embedded(&data_dir, &environment)?,
        (None, Some(options)) => run.on_server(options, &environment)?,
        (None, None) => run.embedded(&default_data_dir(&environment)?, &environment)?,
    };
    if run.shown {
        eprint!("\r\x1b[K");
    }
    let kek_id = hex(&ring.current_id());
    if json {
        println!(
            "{}",
            serde_json::json!({
                "check": check, "done": report.is_done(), "kek_id": kek_id, "rewrapped": report.rewrapped(),
                "left": report.left(), "failed": report.failed(), "kinds": report.kinds, "failures": report.failures,
            })
        );
    } else {
        tell(&report, &kek_id, ring.has_previous(), check);
    }
    Ok(if report.is_done() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run {
    check: bool,
    shown: bool,
}

impl Run {
    fn mode(&self) -> Mode {
        if self.check { Mode::Check } else { Mode::Rewrap }
    }

    fn on_server(
        &self,
        mut options: PostgresOptions,
        environment: &Environment,
    ) -> Result<(Arc<KekRing>, Report), Failure> {
        options.migrate = false;
        let ring = SecretFiles::given_kek(environment)?.ok_or_else(|| {
            Failure("SECRET_STORE_KEK is not set: give the key that everything is to be sealed under".to_owned())
        })?;
        let rewrap = Rewrap::new(ring.clone(), backend_of(environment)?);
        let report = runtime()?.block_on(async {
            let store = Store::open_postgres(options).await?;
            let report = rewrap.run(&store, self.mode(), |progress| self.show(progress)).await;
            store.close().await;
            Ok::<_, Failure>(report?)
        })?;
        Ok((ring, report))
    }

    fn embedded(&self, data_dir: &Path, environment: &Environment) -> Result<(Arc<KekRing>, Report), Failure> {
        let options = SqliteOptions::in_directory(data_dir);
        // What is no data directory of ours must not become one by being asked, so this comes first.
        let mut file = inspect(&options.database())?;
        let files = SecretFiles::in_data_dir(data_dir);
        let ring = files.load_kek(environment, !self.check)?.ok_or_else(|| {
            Failure(format!(
                "there is no key-encryption key: SECRET_STORE_KEK is not set, and `{}` has none",
                files.path("secretStoreKek").display()
            ))
        })?;
        let rewrap = Rewrap::new(ring.clone(), backend_of(environment)?);
        let show = |progress| self.show(progress);
        let report = runtime()?.block_on(async {
            if self.check {
                return Ok::<_, Failure>(rewrap.check_file(&mut file, show).await?);
            }
            drop(file);
            let store = Store::open(&options, Arc::new(SystemClock))?;
            let report = rewrap.run(&store, Mode::Rewrap, show).await;
            store.close().await;
            Ok(report?)
        })?;
        Ok((ring, report))
    }

    fn show(&self, Progress { kind, done }: Progress) -> Next {
        if self.shown {
            let doing = if self.check { "looking at" } else { "sealing anew" };
            eprint!("\r\x1b[K{doing} {kind}: {done}");
            let _ = std::io::stderr().flush();
        }
        Next::GoOn
    }
}

fn tell(report: &Report, kek_id: &str, has_previous: bool, check: bool) {
    for Tally { kind, current, rewrapped, left, failed } in &report.kinds {
        let mut parts = vec![format!("{current} current")];
        for (count, what) in [(rewrapped, "sealed anew"), (left, "to be sealed anew"), (failed, "failed")] {
            if *count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        println!("{kind}: {}", parts.join(", "));
    }
    for failed in &report.failures {
        println!("failed: {}: {}", failed.place, failed.reason);
    }
    if report.is_done() {
        let rest = if has_previous { "; SECRET_STORE_KEK_PREVIOUS can be removed" } else { "" };
        println!("Everything is sealed under the key {kek_id}{rest}");
        return;
    }
    if report.left() > 0 {
        let next = if check { "run `caracal secrets rewrap`" } else { "run it again" };
        println!("{} envelopes still have to be sealed anew under the key {kek_id}; {next}", report.left());
    }
    if report.failed() > 0 {
        println!(
            "{} envelopes failed and lie where they lay; keep SECRET_STORE_KEK_PREVIOUS. What was sealed under another key \
             needs that key; what was altered needs a backup, or to be given anew",
            report.failed()
        );
    }
}
