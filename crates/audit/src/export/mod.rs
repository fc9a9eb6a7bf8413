//! The export: evidence by the hour into an archive, as Parquet (contract: audit-and-streams.md §5.6, W23).
//!
//! Events are told by their position in their chain, never by time alone. An hour's object takes each chain on from where
//! the last one ended, through the last event that was stored before the hour was over. So an event whose commit took long
//! and that lies behind the mark comes with the next hour, and none is left out or exported twice.
//!
//! What is durable, in this order: the plan of an object (through which position of each chain it goes), the object, the
//! mark behind it. Whoever goes on after a crash finds a plan and makes the same object from it, which is there already or
//! is not; an event appended meanwhile is not in it. Without the plan, an object that was there already would be taken for
//! one with that event in it.
//!
//! One process exports for all. One that lost its seat and does not know yet writes the same objects, and its marks do not
//! fit any more.

mod archive;
mod directory;
mod file;
mod on_demand;
mod parquet;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::exports::{self, Exported, Planned};
use caracal_store::{Snapshot, StoreError, evidence};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Audit;
use crate::metrics::{add, set};

pub use archive::{Archive, ArchiveError, Object, Put};
pub use directory::DirectoryArchive;
pub use file::EventsFile;
pub use on_demand::{OnDemandError, Positions, Written, write_events};

const HOUR: i64 = 3_600;
/// Behind the end of an hour, so that what was committed at its very end is in its object.
const LATE: i64 = 60;
const RETRY: Duration = Duration::from_secs(300);
/// Rows read at once.
const PAGE: i64 = 1_000;
/// An object goes on no further once it has so many bytes; the hour has another one then.
const OBJECT_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("another process exports")]
    Overtaken,
}

/// What an object was made of.
struct Built {
    object: Vec<u8>,
    identity: String,
    events: u64,
    plan: Planned,
}

impl Audit {
    /// Exports until `shutdown` turns true: what is due at once, and then with every hour. For one process at a time.
    pub async fn run_export(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let Some(archive) = self.archive.clone() else { return };
        let _leads = self.metrics.exporter.take();
        loop {
            let exported = tokio::select! {
                // Left behind wherever it is: whoever comes next goes on from what is durable.
                _ = shutdown.wait_for(|stop| *stop) => return,
                exported = self.export(archive.as_ref()) => exported,
            };
            let now = self.store.now().as_seconds();
            let wait = match exported {
                Ok(()) => Duration::from_secs((HOUR + LATE - now.rem_euclid(HOUR)).unsigned_abs()),
                Err(error) => {
                    add(&self.metrics.export_errors, 1);
                    tracing::error!(%error, "evidence could not be exported; it is tried again");
                    RETRY
                }
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Exports every hour that is over.
    async fn export(&self, archive: &dyn Archive) -> Result<(), ExportError> {
        loop {
            let now = self.store.now().as_seconds();
            let last_over = now - now.rem_euclid(HOUR) - HOUR;
            let Some(exported) = self.exported().await? else {
                self.begin(last_over).await?;
                continue;
            };
            let behind = (last_over - exported.hour) / HOUR;
            set(&self.metrics.export_backlog, behind.max(0).unsigned_abs());
            if exported.planned.is_some() {
                self.export_planned(archive, &exported).await?;
            } else if behind <= 0 {
                if behind < 0 {
                    tracing::warn!(hours = -behind, "nothing is exported: what was exported last is of the future");
                }
                return Ok(());
            } else {
                self.plan(&exported).await?;
            }
        }
    }

    /// How far evidence was exported.
    pub(crate) async fn exported(&self) -> Result<Option<Exported>, StoreError> {
        exports::find(&mut self.store.snapshot().await?.deployment()).await
    }

    /// An archive begins with the hour before it was first asked for; what is older stays in the ledger alone.
    async fn begin(&self, hour: i64) -> Result<(), ExportError> {
        let mut zones = BTreeMap::new();
        let mut snapshot = self.store.snapshot().await?;
        for (zone, _) in exports::list_newest(&mut snapshot.deployment()).await? {
            if let Some(last) = exports::find_last_stored(&mut snapshot.zone(&zone), 0, micros(hour)).await? {
                zones.insert(zone.as_str().to_owned(), last);
            }
        }
        drop(snapshot);
        self.replace(None, Exported { hour: hour - HOUR, part: 1, zones, planned: None }).await
    }

    /// Notes what the next object holds, or that the next hour has nothing.
    async fn plan(&self, exported: &Exported) -> Result<(), ExportError> {
        let end = micros(exported.hour + 2 * HOUR);
        let mut snapshot = self.store.snapshot().await?;
        let mut wanted = BTreeMap::new();
        for (zone, newest) in exports::list_newest(&mut snapshot.deployment()).await? {
            let after = exported.through(zone.as_str());
            if newest <= after {
                continue;
            }
            if let Some(last) = exports::find_last_stored(&mut snapshot.zone(&zone), after, end).await? {
                wanted.insert(zone.as_str().to_owned(), last);
            }
        }
        let next = if wanted.is_empty() {
            Exported { hour: exported.hour + HOUR, part: 1, ..exported.clone() }
        } else {
            let wanted = Planned { zones: wanted, ends_hour: true };
            let plan = build(&mut snapshot, exported, &wanted).await?.plan;
            Exported { planned: Some(plan), ..exported.clone() }
        };
        drop(snapshot);
        self.replace(Some(exported), next).await
    }

    async fn export_planned(&self, archive: &dyn Archive, exported: &Exported) -> Result<(), ExportError> {
        let Some(plan) = &exported.planned else { return Ok(()) };
        let began = Instant::now();
        let built = build(&mut self.store.snapshot().await?, exported, plan).await?;
        let key = key(exported.hour + HOUR, exported.part);
        let events = built.events;
        let put =
            archive.put(&Object { key: key.clone(), identity: built.identity, bytes: built.object.into() }).await?;
        let next = match put {
            Put::Done => {
                let mut zones = exported.zones.clone();
                zones.extend(plan.zones.clone());
                let (hour, part) =
                    if plan.ends_hour { (exported.hour + HOUR, 1) } else { (exported.hour, exported.part + 1) };
                Exported { hour, part, zones, planned: None }
            }
            // Of a deployment that was put back to an earlier state, or of another one.
            Put::OtherIsThere => {
                tracing::warn!(key, "another object lies where evidence was to be exported; it gets another name");
                Exported { part: exported.part + 1, ..exported.clone() }
            }
        };
        self.replace(Some(exported), next).await?;
        if put == Put::Done {
            add(&self.metrics.exported, events);
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            set(&self.metrics.export_duration_ms, took);
            tracing::info!(key, events, "evidence was exported");
        }
        Ok(())
    }

    async fn replace(&self, old: Option<&Exported>, new: Exported) -> Result<(), ExportError> {
        let replaced: Result<bool, StoreError> = self
            .store
            .commit_deployment((old.cloned(), new), |tx, (old, new)| {
                Box::pin(async move { exports::replace(tx, old.as_ref(), new).await })
            })
            .await;
        if replaced? { Ok(()) } else { Err(ExportError::Overtaken) }
    }
}

/// The object that goes on from `exported` as far as `wanted`, or as an object may be long, and how far that is.
async fn build(snapshot: &mut Snapshot, exported: &Exported, wanted: &Planned) -> Result<Built, ExportError> {
    let (mut file, mut zones) = (EventsFile::new(), BTreeMap::new());
    let mut ends = true;
    'zones: for (name, through) in &wanted.zones {
        let zone = ZoneId::parse(name)
            .map_err(|_| StoreError::Corrupt { table: "deployment", what: format!("`{name}` is no zone to export") })?;
        let mut after = exported.through(name);
        while after < *through {
            if file.size() >= OBJECT_BYTES {
                ends = false;
                break 'zones;
            }
            let page = evidence::list_between(&mut snapshot.zone(&zone), after, *through, PAGE).await?;
            for row in &page {
                file.add(row);
            }
            // What retention removed before it could be exported is in no page.
            after = page.last().map_or(*through, |row| row.chain_seq);
            zones.insert(name.clone(), after);
        }
    }
    let events = file.events();
    let (object, identity) = file.finish();
    let plan = Planned { zones, ends_hour: ends && wanted.ends_hour };
    Ok(Built { object, identity, events, plan })
}

fn micros(seconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000)
}

/// The name of an hour's object; of the second and later ones of an hour, with their number.
fn key(hour: i64, part: u32) -> String {
    let text = Timestamp::from_seconds(hour).to_seconds_text();
    let (day, hour) = (text.get(..10).unwrap_or_default(), text.get(11..13).unwrap_or_default());
    let part = if part > 1 { format!("-{part:04}") } else { String::new() };
    format!("audit/{}/{day}T{hour}{part}.parquet", day.replace('-', "/"))
}
