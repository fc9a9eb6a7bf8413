//! `caracal audit verify`: the ledger, checked by an outsider. It opens the store without its lock, recomputes every
//! hash and seal, and compares with the heads that are kept outside the store.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use caracal_ledger::{Begin, Chain, ChainKey, LedgerReport, Marks, read_heads, verify_store, verify_store_marked};
use caracal_store::{PostgresOptions, SqliteOptions, Store, inspect};

use super::{Failure, environment, runtime};
use crate::settings::{Environment, SecretFiles, database, default_data_dir};
use crate::system::heads_dir;

/// Verifies the store of a data directory, or, where none is named and `DATABASE_URL` is set, of that database. Exit 0
/// only if everything verifies.
pub fn verify(data_dir: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let show_progress = !json && std::io::stderr().is_terminal();
    let progress = |chain: &Chain, rows: i64| {
        if show_progress {
            eprint!("\r\x1b[Kverifying the {chain}: {rows} rows");
            let _ = std::io::stderr().flush();
        }
    };
    let report = match (data_dir, database(&environment)?) {
        (Some(data_dir), _) => verify_data_dir(&data_dir, &environment, progress)?,
        (None, Some(options)) => verify_database(options, &environment, progress)?,
        (None, None) => verify_data_dir(&default_data_dir(&environment)?, &environment, progress)?,
    };
    if show_progress {
        eprint!("\r\x1b[K");
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies a database that processes share, in one snapshot of it. The heads are those that a process with the default
/// data directory wrote on this machine, if one did.
fn verify_database(
    mut options: PostgresOptions,
    environment: &Environment,
    mut progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, Failure> {
    options.migrate = false;
    let data_dir = default_data_dir(environment)?;
    let Some(key) = SecretFiles::in_data_dir(&data_dir).load_audit_key(environment)? else {
        return Err(Failure(
            "AUDIT_HMAC_KEY is not set: without it a rewritten ledger can't be told from a genuine one".to_owned(),
        ));
    };
    let heads = read_heads(&heads_dir(&data_dir, &options.place()), key.as_ref())?.unwrap_or_default();
    runtime()?.block_on(async {
        let store = Store::open_postgres(options).await?;
        let mut snapshot = store.snapshot().await?;
        let report = verify_store(&mut snapshot.deployment(), Some(key.as_ref()), &heads, &mut progress).await?;
        drop(snapshot);
        store.close().await;
        Ok(report)
    })
}

/// Verifies the store of `data_dir`. `progress` hears of each page of rows, as chain and number of rows.
pub fn verify_data_dir(
    data_dir: &Path,
    environment: &Environment,
    progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, Failure> {
    let key = SecretFiles::in_data_dir(data_dir).load_audit_key(environment)?;
    let Some(key) = key else {
        return Err(Failure(format!(
            "`{}` has no audit key (secrets/auditHmacKey), and AUDIT_HMAC_KEY is not set: without it a rewritten ledger \
             can't be told from a genuine one",
            data_dir.display()
        )));
    };
    verify_with_key(data_dir, key.as_ref(), progress)
}

/// [`verify_data_dir`] with the key at hand.
pub(crate) fn verify_with_key(
    data_dir: &Path,
    key: &dyn ChainKey,
    progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, Failure> {
    verify_marked(data_dir, key, (&Marks::default(), Begin::AtFirst), progress)
}

/// The same for somebody who has marked events that have to be where they were.
pub(crate) fn verify_marked(
    data_dir: &Path,
    key: &dyn ChainKey,
    marks: (&Marks, Begin),
    mut progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, Failure> {
    // Heads first: a running ledger may grow past them while it is read, but never falls behind them.
    let heads = read_heads(data_dir, key)?.ok_or_else(|| {
        Failure(format!(
            "`{}` has no heads.log: whether the end of the ledger was cut off can't be told. Restore the file, or verify \
             a backup that has it",
            data_dir.display()
        ))
    })?;
    let mut inspection = inspect(&SqliteOptions::in_directory(data_dir).database())?;
    Ok(inspection.run(async |tx| verify_store_marked(tx, Some(key), &heads, marks, &mut progress).await)?)
}
