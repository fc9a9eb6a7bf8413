//! The end of the story, when the system is down: the ledger verifies, and in a copy one changed byte does not stay
//! unseen.

use std::path::{Path, PathBuf};

use caracal_ledger::LedgerReport;
use caracal_store::SqliteOptions;

use super::report::{Report, Step};
use super::story::Cast;
use crate::commands::{Failure, verify_data_dir};
use crate::settings::Environment;

/// Verifies the store, then a copy of it with one byte changed.
pub(super) fn show(
    data_dir: &Path,
    home: &Path,
    environment: &Environment,
    cast: &Cast,
    drained: bool,
    report: &mut Report,
) -> Result<(), Failure> {
    let verified = verify_data_dir(data_dir, environment, |_, _| {})?;
    let mut step = Step::new("verify", "The ledger is verified from the stored bytes alone");
    step.see("the system stopped with nothing cut off", drained);
    step.see(
        format!(
            "{} chained records in {} chains, every hash, link and seal recomputed",
            verified.rows(),
            verified.chains.len()
        ),
        verified.is_intact() && verified.rows() > 0,
    );
    report.add(step);

    let copy = home.join("copy");
    copy_data(data_dir, &copy)?;
    let database = SqliteOptions::in_directory(&copy).database();
    let (changed, verified) =
        change_one_byte(&database, &cast.allowed_request, || verify_data_dir(&copy, environment, |_, _| {}))?;
    let mut step = Step::new("tamper", "One byte changed in a copy of the store, and the verifier names the event");
    step.see(format!("changed byte {} of {}", changed.offset, changed.what), true);
    match verified.first() {
        Some((chain, finding)) => {
            step.reason = Some(finding.to_string());
            let named = chain.zone().is_some_and(|zone| zone.as_str() == cast.zone);
            step.see(format!("found in the {chain}"), named);
        }
        None => step.see("the change was not found", false),
    }
    report.add(step);
    Ok(())
}

fn copy_data(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to.join("secrets"))?;
    for folder in [PathBuf::new(), PathBuf::from("secrets")] {
        for entry in std::fs::read_dir(from.join(&folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(&folder).join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

struct Changed {
    offset: usize,
    what: String,
}

/// Changes one letter of the stored evidence of `request`, and says what the verifier then says.
///
/// A database file also holds what it no longer uses. Where the letter is found in such a place, changing it changes
/// nothing anyone can read; it is put back, and the next place is tried.
fn change_one_byte(
    database: &Path,
    request: &str,
    verify: impl Fn() -> Result<LedgerReport, Failure>,
) -> Result<(Changed, LedgerReport), Failure> {
    let mut bytes = std::fs::read(database)?;
    // In a row of the evidence table the request id is followed by the decision; in an index it is not.
    let row = [request.as_bytes(), b"allow"].concat();
    let places: Vec<usize> =
        bytes.windows(row.len()).enumerate().filter(|(_, window)| *window == row).map(|(at, _)| at).collect();
    for place in places {
        // "allow" becomes "allou".
        let offset = place + row.len() - 1;
        bytes[offset] ^= 2;
        std::fs::write(database, &bytes)?;
        let report = verify()?;
        if !report.is_intact() {
            let what = format!("the stored decision of request {request}");
            return Ok((Changed { offset, what }, report));
        }
        bytes[offset] ^= 2;
    }
    Err(Failure(format!("no byte of the evidence of request {request} could be changed unseen or seen")))
}
