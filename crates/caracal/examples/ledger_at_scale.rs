//! What the ledger costs as the history of one zone grows: `ledger_at_scale [--sizes N,N,…] [--directory DIR] [--json]`.
//!
//! It fills an embedded store by the code that appends in production, lets the tree grow behind it, and at each size says
//! what another event costs, how long a proof takes, and how long the search for a request. The processor's time is that
//! of the whole process, which the store is a part of.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::ed25519::SigningKey;
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::transparency::{Given, LogSigners, TransparencyLog, checkpoint, prove};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, MetadataKey};
use caracal_store::transparency::{LogKeyRow, add_log_key, find_log_key};
use caracal_store::{BoxFuture, SqliteOptions, Store, StoreError, SystemClock, evidence};
use serde_json::{Value, json};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str = "ledger_at_scale [--sizes N,N,…] [--directory DIR] [--json]";
/// Events of one commit while the history is filled, and of one batch that is measured.
const BATCH: u64 = 1_000;
/// Batches measured at each size: the processor's time comes in hundredths of a second, which over so many events is a
/// microsecond each.
const BATCHES: u64 = 10;
/// Commits of one event, proofs and searches measured at each size.
const SAMPLES: u64 = 101;

struct Arguments {
    sizes: Vec<u64>,
    directory: Option<PathBuf>,
    json: bool,
}

fn arguments() -> Done<Arguments> {
    let mut given = Arguments { sizes: vec![10_000, 100_000, 1_000_000, 10_000_000], directory: None, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => given.json = true,
            "--directory" => given.directory = Some(words.next().ok_or(USAGE)?.into()),
            "--sizes" => {
                let sizes = words.next().ok_or(USAGE)?;
                given.sizes = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            _ => return Err(USAGE.into()),
        }
    }
    if given.sizes.is_empty() || given.sizes.contains(&0) || !given.sizes.is_sorted_by(|one, next| one < next) {
        return Err("--sizes are above 0, and each is larger than the one before".into());
    }
    Ok(given)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let arguments = arguments()?;
    let temporary = tempfile::tempdir()?;
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    let store = Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock))?;
    let mut history = History::new(store)?;
    let mut out = std::io::stdout();
    if !arguments.json {
        writeln!(out, "{}", Measured::HEAD)?;
    }
    for size in arguments.sizes {
        history.fill(size).await?;
        let measured = history.measure().await?;
        if arguments.json {
            writeln!(out, "{}", measured.to_json())?;
        } else {
            writeln!(out, "{}", measured.to_line())?;
        }
    }
    history.store.close().await;
    Ok(())
}

/// One zone's history.
struct History {
    store: Store,
    ledger: Ledger,
    log: TransparencyLog,
    zone: ZoneId,
    start: Timestamp,
    size: u64,
}

/// What was found at one size.
struct Measured {
    size: u64,
    batch_event: Duration,
    batch_event_cpu: Duration,
    commit: Spread,
    tree_event: Duration,
    proof: Spread,
    search: Spread,
}

/// The median and the longest of several.
struct Spread {
    median: Duration,
    longest: Duration,
}

impl Spread {
    fn of(mut samples: Vec<Duration>) -> Done<Self> {
        samples.sort_unstable();
        let longest = *samples.last().ok_or("nothing was measured")?;
        Ok(Self { median: samples[samples.len() / 2], longest })
    }

    fn to_json(&self) -> Value {
        json!({"p50_us": micros(self.median), "max_us": micros(self.longest)})
    }
}

impl History {
    fn new(store: Store) -> Done<Self> {
        let zone = ZoneId::parse("zone-1")?;
        let key = Keys { store: store.clone(), key: Arc::new(SigningKey::from_seed(&[7; 32]).ok_or("no key")?) };
        let log = TransparencyLog::new(store.clone(), Arc::new(key));
        let ledger = Ledger::new(Some(Arc::new(HmacKey::from_bytes(&[7; 32])?)));
        Ok(Self { start: store.now(), store, ledger, log, zone, size: 0 })
    }

    /// Appends until there are `size` events.
    async fn fill(&mut self, size: u64) -> Done {
        while self.size < size {
            self.append(BATCH.min(size - self.size)).await?;
        }
        self.grow().await
    }

    /// Appends so many events in one commit.
    async fn append(&mut self, count: u64) -> Done {
        let events = (self.size..self.size + count).map(|number| self.event(number)).collect::<Done<Vec<_>>>()?;
        let appended: Result<(), StoreError> = self
            .store
            .commit(&self.zone, (self.ledger.clone(), events), |tx, (ledger, events)| {
                Box::pin(async move { ledger.record(tx, events).await })
            })
            .await;
        appended?;
        self.size += count;
        Ok(())
    }

    /// The event of a granted mandate.
    fn event(&self, number: u64) -> Done<Evidence> {
        let at = self.start.plus(Duration::from_millis(number));
        let id = EventId::parse(&self.id(number, 1))?;
        let event = Evidence::new(
            id,
            self.zone.clone(),
            EventType::TokenExchange,
            Decision::Allow,
            EvaluationStatus::Complete,
            at,
        );
        Ok(event
            .request(self.id(number, 2))
            .under_policy(Some("set-1".parse()?), Some("version-1".parse()?), Some("00ff".repeat(16)))
            .determined_by("p1")
            .because("ok")
            .attribute(MetadataKey::ApplicationId, "app-1")
            .attribute(MetadataKey::Resource, "resource://notes")
            .attribute(MetadataKey::AgentSessionId, "0198c0de-0000-7000-8000-000000000003"))
    }

    /// An id as services make them: the time, then what is as good as random, so that indices grow as theirs do.
    fn id(&self, number: u64, kind: u64) -> String {
        let millis = self.start.as_micros() / 1_000 + number as i64;
        let (high, low) = (mixed(number * 4 + kind), mixed(!(number * 4 + kind)));
        format!(
            "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
            millis >> 16,
            millis & 0xffff,
            high & 0xfff,
            (high >> 12) & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// Lets the tree grow as far as the chain goes.
    async fn grow(&self) -> Done {
        self.log.catch_up_zone(&self.zone).await?;
        Ok(())
    }

    async fn measure(&mut self) -> Done<Measured> {
        let size = self.size;
        let (wall, cpu) = (Instant::now(), processor_time()?);
        for _ in 0..BATCHES {
            self.append(BATCH).await?;
        }
        let events = (BATCH * BATCHES) as u32;
        let (batch_event, batch_event_cpu) = (wall.elapsed() / events, (processor_time()? - cpu) / events);
        let began = Instant::now();
        self.grow().await?;
        let tree_event = began.elapsed() / events;
        let mut commits = Vec::new();
        for _ in 0..SAMPLES {
            let began = Instant::now();
            self.append(1).await?;
            commits.push(began.elapsed());
        }
        self.grow().await?;
        let (mut proofs, mut searches) = (Vec::new(), Vec::new());
        for sample in 0..SAMPLES {
            // All over the history, its first and its last event among them.
            let number = (self.size - 1) * sample / (SAMPLES - 1);
            let request = self.id(number, 2);
            let began = Instant::now();
            let file = prove(&mut self.store.snapshot().await?.zone(&self.zone), &request, Given::default()).await?;
            proofs.push(began.elapsed());
            let began = Instant::now();
            let found = evidence::find_by_request(&mut self.store.snapshot().await?.zone(&self.zone), &request).await?;
            searches.push(began.elapsed());
            let place = found.first().map(|row| row.chain_seq);
            if file.events.len() != 1 || found.len() != 1 || place != Some(number as i64 + 1) {
                return Err(format!("event {number} of {size} is not found where it was appended").into());
            }
        }
        let (commit, proof, search) = (Spread::of(commits)?, Spread::of(proofs)?, Spread::of(searches)?);
        Ok(Measured { size, batch_event, batch_event_cpu, commit, tree_event, proof, search })
    }
}

impl Measured {
    const HEAD: &str = "    events  in a batch  processor  in the tree       alone (longest)       proof (longest)      search (longest)";

    fn to_line(&self) -> String {
        let spread = |spread: &Spread| format!("{:>9.0} ({:>7.0})", micros(spread.median), micros(spread.longest));
        format!(
            "{:>10} {:>11.1} {:>10.1} {:>12.1}   {}   {}   {}   µs",
            self.size,
            micros(self.batch_event),
            micros(self.batch_event_cpu),
            micros(self.tree_event),
            spread(&self.commit),
            spread(&self.proof),
            spread(&self.search)
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "events": self.size,
            "append_in_batch_us": micros(self.batch_event),
            "append_in_batch_cpu_us": micros(self.batch_event_cpu),
            "tree_us": micros(self.tree_event),
            "append_alone": self.commit.to_json(),
            "proof": self.proof.to_json(),
            "search": self.search.to_json(),
            "is_optimised": !cfg!(debug_assertions),
        })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1_000.0
}

/// SplitMix64: the same on every run, and without a pattern that an index could profit from.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The processor's time that this process took, in hundredths of a second as Linux counts it for everybody.
fn processor_time() -> Done<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name before it may hold anything, a bracket too.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 10))
}

/// The log key of the zone.
struct Keys {
    store: Store,
    key: Arc<SigningKey>,
}

impl LogSigners for Keys {
    fn signer<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Arc<SigningKey>, String>> {
        Box::pin(async move {
            let (key_id, verifier_key) = checkpoint::key_names(zone, &self.key.public());
            let row = LogKeyRow { key_id, verifier_key, sealed_private: vec![1], created_at: self.store.now() };
            let added: Result<(), StoreError> = self
                .store
                .commit(zone, row, |tx, row| {
                    Box::pin(async move {
                        if find_log_key(tx).await?.is_some() {
                            return Ok(());
                        }
                        add_log_key(tx, row).await
                    })
                })
                .await;
            added.map_err(|error| error.to_string())?;
            Ok(Arc::clone(&self.key))
        })
    }
}
