//! `caracal audit export`: one zone's events in a file of the archive's form, when somebody asks for it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use caracal_audit::{OnDemandError, Positions, Written, write_events};
use caracal_authority::ZoneId;
use caracal_crypto::hmac::Sha256;
use serde_json::json;
use tempfile::NamedTempFile;

use super::place::Place;
use super::progress::Line;
use super::{Failure, runtime};

/// What `audit export` is asked for.
pub struct ExportFlags {
    /// The zone.
    pub zone: String,
    /// The file to make.
    pub out: PathBuf,
    /// The first position.
    pub from: Option<i64>,
    /// The last position.
    pub to: Option<i64>,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// JSON instead of text.
    pub json: bool,
}

/// Writes the file. Exit 0 once it lies there, whole and durably.
pub fn export(flags: &ExportFlags) -> Result<ExitCode, Failure> {
    let zone =
        ZoneId::parse(&flags.zone).map_err(|_| Failure(format!("`{}` is no zone's id", flags.zone.escape_debug())))?;
    let place = Place::find(flags.data_dir.clone())?;
    let mut draft = Draft::begin(&flags.out)?;
    let line = Line::new(flags.json);
    let asked = Positions { from: flags.from, to: flags.to };
    let progress = |done, of| line.show(&format!("writing events: {done} of {of}"));
    let read = async |tx: &mut caracal_store::DeploymentRead<'_>| {
        Ok(write_events(tx, &zone, asked, &mut draft, progress).await)
    };
    let written = runtime()?.block_on(place.read(read));
    line.clear();
    let written = written?.map_err(|error| failure(error, &zone, &flags.out))?;
    let sha256 = draft.keep(&flags.out)?;
    if flags.json {
        println!("{}", as_json(&written, &zone, &flags.out, &sha256));
    } else {
        tell(&written, &zone, &flags.out, &sha256);
    }
    Ok(ExitCode::SUCCESS)
}

/// A file without its name, beside where it will lie. Gone with the value, unless it is kept.
struct Draft {
    file: NamedTempFile,
    hash: Sha256,
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or(bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Draft {
    fn begin(out: &Path) -> Result<Self, Failure> {
        if out == Path::new("-") {
            return Err(Failure("--out: a Parquet file is not for standard output; name a file".to_owned()));
        }
        // Before anything is read. A link that leads nowhere takes the name as well.
        if out.symlink_metadata().is_ok() {
            return Err(exists(out));
        }
        // Readable by its owner only: events are not for everybody.
        let made = tempfile::Builder::new().prefix(".caracal-export-").suffix(".part").tempfile_in(directory(out));
        Ok(Self { file: made.map_err(|error| not_written(out, &error))?, hash: Sha256::default() })
    }

    /// Gives the file its name once all of it is on the disk, and says its hash. Whatever took the name meanwhile stays.
    fn keep(self, out: &Path) -> Result<String, Failure> {
        let failed = |error: &io::Error| not_written(out, error);
        self.file.as_file().sync_all().map_err(|error| failed(&error))?;
        self.file.persist_noclobber(out).map_err(|refused| match refused.error.kind() {
            ErrorKind::AlreadyExists => exists(out),
            _ => failed(&refused.error),
        })?;
        File::open(directory(out)).and_then(|directory| directory.sync_all()).map_err(|error| failed(&error))?;
        Ok(self.hash.finish_hex())
    }
}

fn directory(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn exists(out: &Path) -> Failure {
    Failure(format!("`{}` is there already, and nothing is written over: name another file with --out", out.display()))
}

fn not_written(out: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "Nothing of it was kept: make room, name a file on another disk with --out, or narrow the range with --from and \
             --to"
        }
        _ => "Name another file with --out",
    };
    Failure(format!("can't write `{}`: {error}. {advice}", out.display()))
}

/// What went wrong, and what to do about it.
fn failure(error: OnDemandError, zone: &ZoneId, out: &Path) -> Failure {
    let advice = match &error {
        OnDemandError::Write(error) => return not_written(out, error),
        OnDemandError::Store(_) => return error.into(),
        OnDemandError::UnknownZone(_) => {
            "`caracal audit log-key --json` lists the zones that have events, `GET /v1/zones` all of them".to_owned()
        }
        OnDemandError::NoEvent(_) => "Nothing was written".to_owned(),
        OnDemandError::Backwards { .. } => "--from is the first position, --to the last, both inclusive".to_owned(),
        OnDemandError::Ahead { .. } => "Nothing was written: give a smaller --from, or none".to_owned(),
        OnDemandError::Removed { removed_through, .. } => {
            format!("What is left begins at {}", removed_through.saturating_add(1))
        }
        OnDemandError::Missing(seq) => format!(
            "Nothing was written. `caracal audit verify` says what is wrong with the chain of {zone}; what lies before and \
             behind that position can be exported with --to {} and --from {}",
            seq.saturating_sub(1),
            seq.saturating_add(1)
        ),
        OnDemandError::RemovedMeanwhile(_) => "Nothing was written: run it again".to_owned(),
    };
    Failure(format!("{error}. {advice}"))
}

fn as_json(written: &Written, zone: &ZoneId, out: &Path, sha256: &str) -> serde_json::Value {
    json!({
        "file": out, "zone_id": zone, "rows": written.rows, "first_seq": written.first, "last_seq": written.last,
        "head_seq": written.head, "removed_through_seq": written.removed_through, "bytes": written.bytes,
        "sha256": sha256,
    })
}

fn tell(written: &Written, zone: &ZoneId, out: &Path, sha256: &str) {
    let Written { rows, first, last, head, removed_through, bytes } = written;
    let events = if *rows == 1 { "1 event".to_owned() } else { format!("{rows} events") };
    println!("{events} of zone {zone} in {}: {bytes} bytes", out.display());
    println!("  positions  {first} to {last}, of a chain that ends at {head}");
    if let Some(removed) = removed_through {
        println!("  retention  removed what lies up to {removed}; a chain begins behind that");
    }
    println!("  sha256     {sha256}");
}
