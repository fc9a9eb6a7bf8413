//! `caracal audit prove`, `log-key` and `checkpoint`: what an auditor is handed, made beside a running system or out of a
//! stopped one. And `caracal audit verify FILE`, which needs nothing but the file and a public key.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_ledger::transparency::note::Use;
use caracal_ledger::transparency::{
    self, CannotProve, EvidenceFile, Given, StoredTree, TreeDefect, Trusted, Verified, VerifierKey,
};
use caracal_store::{DeploymentRead, transparency as stored};
use serde_json::{Value, json};

use super::place::{Place, zone_named, zone_of_request};
use super::{Failure, runtime};

/// Files and keys that are read are no larger.
const MOST_BYTES: u64 = 256 << 20;
/// How often, and how many times, it is looked whether an event has its place in the tree by now.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: usize = 40;

/// What `audit prove` is asked for.
pub struct ProveFlags {
    /// The request.
    pub request_id: String,
    /// The zone, where several have such a request.
    pub zone: Option<String>,
    /// Where the file goes; `-` is standard output.
    pub out: Option<PathBuf>,
    /// A file with an older checkpoint, which the log is shown to continue.
    pub since: Option<PathBuf>,
    /// A file with the checkpoint to prove by.
    pub checkpoint: Option<PathBuf>,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// JSON instead of text.
    pub json: bool,
}

/// What `audit verify FILE` is asked for.
pub struct VerifyFileFlags {
    /// The evidence file.
    pub file: PathBuf,
    /// The log's public key, or a file with it.
    pub log_key: String,
    /// A file with a checkpoint that the verifier holds.
    pub since: Option<PathBuf>,
    /// Public keys of witnesses, or files with them.
    pub witnesses: Vec<String>,
    /// JSON instead of text.
    pub json: bool,
}

/// Writes the evidence file of a request.
pub fn prove(flags: &ProveFlags) -> Result<ExitCode, Failure> {
    let since = flags.since.as_deref().map(read_text).transpose()?;
    let against = flags.checkpoint.as_deref().map(read_text).transpose()?;
    let place = Place::find(flags.data_dir.clone())?;
    let given = Given { against: against.as_deref(), since: since.as_deref() };
    let (zone, file) = runtime()?.block_on(async {
        let zone = zone_of_request(&place, flags.zone.as_deref(), &flags.request_id).await?;
        let file = made(&place, &zone, &flags.request_id, given).await?;
        Ok::<_, Failure>((zone, file))
    })?;
    let mut text = serde_json::to_string_pretty(&file)?;
    text.push('\n');
    let out = flags.out.clone().unwrap_or_else(|| default_name(&flags.request_id));
    if out == Path::new("-") {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    write_new(&out, &text)?;
    if flags.json {
        println!(
            "{}",
            json!({"file": out, "zone_id": zone, "request_id": flags.request_id, "events": file.events.len(), "log_key": file.log_key})
        );
    } else {
        println!("{} of request {} in {}", counted(file.events.len()), flags.request_id, out.display());
        println!("verify it with: caracal audit verify {} --log-key {}", out.display(), file.log_key);
    }
    Ok(ExitCode::SUCCESS)
}

/// The file, waiting a while for an event that has only just happened.
async fn made(place: &Place, zone: &ZoneId, request: &str, given: Given<'_>) -> Result<EvidenceFile, Failure> {
    let mut looks = 0;
    loop {
        let made = place.read(async |tx| Ok(transparency::prove(&mut tx.zone(zone), request, given).await)).await?;
        match made {
            Ok(file) => return Ok(file),
            Err(CannotProve::NotYet { .. }) if looks < LOOKS && given.against.is_none() => looks += 1,
            Err(error @ CannotProve::NotYet { .. }) if given.against.is_none() => {
                return Err(Failure(format!("{error}. Start the system once, then try again")));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints the public keys of the logs of all zones, or of one.
pub fn log_key(zone: Option<&str>, data_dir: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let place = Place::find(data_dir)?;
    let zone = zone.map(zone_named).transpose()?;
    let keys = runtime()?.block_on(place.read(stored::list_log_keys))?;
    let keys: Vec<_> = keys.into_iter().filter(|(of, _)| zone.as_ref().is_none_or(|zone| zone == of)).collect();
    if keys.is_empty() {
        let whose = zone.map_or_else(|| "no zone has a".to_owned(), |zone| format!("zone {zone} has no"));
        return Err(Failure(format!(
            "{whose} log key yet: a running system makes it about a second after the first event of a zone"
        )));
    }
    if json {
        let keys: Vec<Value> = keys.iter().map(|(zone, key)| json!({"zone_id": zone, "log_key": key})).collect();
        println!("{}", Value::from(keys));
    } else {
        for (_, key) in keys {
            println!("{key}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the newest checkpoint of a zone's log.
pub fn checkpoint(zone: &str, data_dir: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let place = Place::find(data_dir)?;
    let zone = zone_named(zone)?;
    let read = async |tx: &mut DeploymentRead<'_>| StoredTree::find(&mut tx.zone(&zone)).await;
    let tree: Result<Option<StoredTree>, TreeDefect> = runtime()?.block_on(place.read(read))?;
    let tree = tree?.ok_or_else(|| {
        Failure(format!(
            "the log of zone {zone} has no event yet: a running system takes in what happened about a second later"
        ))
    })?;
    print!("{}", tree.note);
    Ok(ExitCode::SUCCESS)
}

/// Verifies an evidence file. Exit 0 only if all of it holds.
pub fn verify_file(flags: &VerifyFileFlags) -> Result<ExitCode, Failure> {
    let log_key = key(&flags.log_key, Use::Note)?;
    let witnesses: Vec<VerifierKey> =
        flags.witnesses.iter().map(|witness| key(witness, Use::Cosignature)).collect::<Result<_, _>>()?;
    let held = flags.since.as_deref().map(read_text).transpose()?;
    let trusted = Trusted { log_key: &log_key, held: held.as_deref(), witnesses: &witnesses };
    let verdict = EvidenceFile::parse(&read(&flags.file)?).and_then(|file| file.verify(&trusted));
    match (&verdict, flags.json) {
        (Ok(shown), true) => println!("{}", as_json(shown)),
        (Ok(shown), false) => tell(shown),
        (Err(reason), true) => println!("{}", json!({"verified": false, "reason": reason.to_string()})),
        (Err(reason), false) => println!("NOT VERIFIED: {reason}"),
    }
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(shown: &Verified) -> Value {
    let event = |(event, link): &(caracal_ledger::StoredEvent, caracal_ledger::ChainLink)| {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
        json!({
            "id": event.id, "zone_id": event.zone_id, "event_type": event.event_type, "request_id": event.request_id,
            "decision": event.decision, "evaluation_status": event.evaluation_status, "policy_set_id": event.policy_set_id,
            "policy_set_version_id": event.policy_set_version_id, "manifest_sha": event.manifest_sha,
            "determining_policies_json": parsed(&event.determining_policies),
            "diagnostics_json": parsed(&event.diagnostics), "metadata_json": parsed(&event.metadata),
            "occurred_at": Timestamp::from_micros(event.occurred_at_micros), "chain_seq": link.chain_seq,
            "content_sha256": link.content_sha256,
        })
    };
    let witnesses: Vec<Value> =
        shown.witnesses.iter().map(|(name, at)| json!({"witness": name, "seen_at": seen_at(*at)})).collect();
    json!({
        "verified": true, "log": shown.checkpoint.origin, "size": shown.checkpoint.size,
        "root": shown.checkpoint.root.to_base64(), "continues": shown.continues, "witnesses": witnesses,
        "events": shown.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn seen_at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// What was read from a file on its way to a terminal, which must not take it for orders.
fn shown_text(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn counted(events: usize) -> String {
    if events == 1 { "1 event".to_owned() } else { format!("{events} events") }
}

fn tell(shown: &Verified) {
    let Verified { checkpoint, events, continues, witnesses } = shown;
    println!(
        "VERIFIED: {}, in the log {} when it had {} events",
        counted(events.len()),
        checkpoint.origin,
        checkpoint.size
    );
    for (event, link) in events {
        let at = Timestamp::from_micros(event.occurred_at_micros);
        println!("\n  seq {} at {at}", link.chain_seq);
        for (name, text) in event.texts() {
            if !text.is_empty() && name != "zone_id" {
                println!("    {name:<25} {}", shown_text(text));
            }
        }
    }
    println!();
    if let Some(size) = continues {
        println!("The log continues the checkpoint of {size} events that you hold: nothing before it was rewritten.");
    } else {
        println!(
            "Not compared with an older checkpoint: a rewritten history can't be told from a genuine one without."
        );
    }
    for (name, at) in witnesses {
        println!("Seen by the witness {name} at {}.", seen_at(*at));
    }
}

/// A public key as it is written, or the file that has it.
fn key(given: &str, used_for: Use) -> Result<VerifierKey, Failure> {
    let text = if given.contains('+') { given.to_owned() } else { read_text(Path::new(given))? };
    let what = match used_for {
        Use::Note => "the log's public key",
        Use::Cosignature => "a witness's public key",
    };
    let wrong = |why: &dyn std::fmt::Display| Failure(format!("`{}` is not {what}: {why}", given.escape_debug()));
    let key = VerifierKey::parse(&text).map_err(|reason| wrong(&reason))?;
    if key.used_for() == used_for { Ok(key) } else { Err(wrong(&"it is a key for another use")) }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| unreadable(path, &"it is no text"))
}

/// A file, or what comes out of a pipe; no more than is ever read of either, whatever a size says.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |why: &dyn std::fmt::Display| unreadable(path, why);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed(&format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure(format!("can't read `{}`: {why}", path.display()))
}

/// Request ids are any visible characters; a name of a file is not.
fn default_name(request_id: &str) -> PathBuf {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let plain: String = request_id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    PathBuf::from(format!("{plain}.evidence.json"))
}

/// Writes a file that was not there, readable by its owner only: events are not for everybody.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written =
        options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        Failure(format!(
            "can't write `{}`: {error}. Name another file with --out, or `-` for standard output",
            path.display()
        ))
    })
}
