//! Evidence that the store did not take, on disk until it does (contract: audit-and-streams.md §3.1, W11).
//!
//! A batch is put there when the store first fails to take it, and goes from there once it is in its chain: by the writer
//! that has it in hand, or by whoever finds the file, when this process was killed. Either way it gets there in one commit,
//! so that nobody finds half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_ledger::spool::{Backlog, Batch, Spooled};
use caracal_ledger::{Evidence, Ingested, Ledger, Spool, StoredEvent};
use caracal_store::{Store, StoreError};
use tokio::sync::watch;

use crate::metrics::Counter;

/// How often it is looked what others have left.
const LOOK: Duration = Duration::from_secs(5);

/// A batch that the writer has in hand.
struct InHand {
    events: Vec<Evidence>,
    spooled: Option<Spooled>,
}

/// Batches in hand, and where they are put when the store fails.
pub(crate) struct Parked {
    spool: Option<Arc<Spool>>,
    in_hand: Mutex<BTreeMap<u64, InHand>>,
    /// Events brought into their chains from files of processes before.
    pub(crate) replayed: Counter,
    /// Events and lines that no chain takes, kept in files beside for somebody to look at.
    pub(crate) aside: Counter,
}

impl Parked {
    pub(crate) fn new(spool: Option<Arc<Spool>>) -> Self {
        Self { spool, in_hand: Mutex::default(), replayed: Counter::default(), aside: Counter::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, InHand>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch of one zone in hand.
    pub(super) fn take(&self, events: &[Evidence]) -> u64 {
        let mut in_hand = self.lock();
        let number = in_hand.last_key_value().map_or(0, |(last, _)| last + 1);
        in_hand.insert(number, InHand { events: events.to_vec(), spooled: None });
        number
    }

    /// The store did not take it yet: from now on it is on disk as well. Blocks for a sync; nobody's call waits for it.
    pub(super) fn keep(&self, number: u64, now: Timestamp) {
        if let Some(batch) = self.lock().get_mut(&number) {
            self.spool_batch(batch, now);
        }
    }

    fn spool_batch(&self, batch: &mut InHand, now: Timestamp) {
        let Some(spool) = self.spool.as_ref().filter(|_| batch.spooled.is_none()) else { return };
        match spool.write(&batch.events, now) {
            Ok(spooled) => batch.spooled = Some(spooled),
            Err(error) => {
                tracing::error!(%error, "evidence that the store does not take could not be put on disk either")
            }
        }
    }

    /// It is in its chain, or never will be.
    pub(super) fn settle(&self, number: u64) {
        let spooled = self.lock().remove(&number).and_then(|batch| batch.spooled);
        if let (Some(spool), Some(spooled)) = (&self.spool, spooled)
            && let Err(error) = spool.remove(&spooled)
        {
            // Whoever finds it finds its events in their chain, too.
            tracing::warn!(%error, "a file of evidence that is in its chain could not be removed");
        }
    }

    /// Leaves a batch on disk for whoever looks there next, this process included. Says whether it lies there.
    pub(super) fn leave(&self, number: u64, now: Timestamp) -> bool {
        let mut in_hand = self.lock();
        let Some(batch) = in_hand.get_mut(&number) else { return true };
        self.spool_batch(batch, now);
        let lies_there = batch.spooled.is_some();
        if lies_there {
            in_hand.remove(&number);
        }
        lies_there
    }

    /// Keeps events that no chain takes where lines without a place are kept.
    pub(super) fn put_aside(&self, events: &[Evidence], now: Timestamp) -> io::Result<()> {
        let spool = self.spool.as_ref().ok_or_else(|| io::Error::other("there is no directory for evidence"))?;
        spool.put_aside(events, now)?;
        self.aside.add(u64::try_from(events.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Puts on disk what is in hand or was not yet, before the process has to end. Says how many events that failed for.
    pub(super) fn give_up(&self, waiting: Vec<Vec<Evidence>>, now: Timestamp) -> usize {
        let mut in_hand = std::mem::take(&mut *self.lock());
        let last = in_hand.last_key_value().map_or(0, |(last, _)| last + 1);
        in_hand.extend((last..).zip(waiting.into_iter().map(|events| InHand { events, spooled: None })));
        let mut lost = 0;
        for mut batch in in_hand.into_values() {
            self.spool_batch(&mut batch, now);
            if batch.spooled.is_none() {
                lost += batch.events.len();
            }
        }
        lost
    }

    pub(crate) fn backlog(&self, now: Timestamp) -> Backlog {
        self.spool.as_ref().and_then(|spool| spool.backlog(now).ok()).unwrap_or_default()
    }

    /// Whether evidence could be put on disk if it had to be.
    pub(crate) fn is_available(&self) -> bool {
        self.spool.as_ref().is_none_or(|spool| spool.check().is_ok())
    }

    /// Brings what processes before left into its chain, until `stop` turns true.
    pub(super) async fn drain(&self, store: &Store, ledger: &Ledger, mut stop: watch::Receiver<bool>) {
        let Some(spool) = &self.spool else { return };
        while !*stop.borrow() {
            match spool.list() {
                Ok(found) => self.drain_files(spool, store, ledger, found).await,
                Err(error) => tracing::error!(%error, "evidence on disk can't be looked for"),
            }
            tokio::select! {
                ended = stop.wait_for(|stop| *stop) => if ended.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn drain_files(&self, spool: &Spool, store: &Store, ledger: &Ledger, found: Vec<Spooled>) {
        let own: BTreeSet<Spooled> = self.lock().values().filter_map(|batch| batch.spooled.clone()).collect();
        for spooled in found.into_iter().filter(|spooled| !own.contains(spooled)) {
            match self.drain_file(spool, store, ledger, &spooled).await {
                Ok(()) => {}
                // The next would meet the same.
                Err(Waits::Store(error)) => {
                    tracing::warn!(%error, "evidence on disk waits for the store");
                    return;
                }
                // Others may have theirs in a chain that is whole.
                Err(Waits::Chain(error)) => {
                    tracing::error!(%error, "evidence on disk waits for a chain that is damaged; it is tried again")
                }
                Err(Waits::File(error)) => {
                    tracing::error!(%error, "a file of evidence can't be read, put aside or removed; it is tried again")
                }
            }
        }
    }

    /// A file goes when each of its lines is in its chain or put aside. Until then all of them stay, and what has its place
    /// already is known there.
    async fn drain_file(&self, spool: &Spool, store: &Store, ledger: &Ledger, spooled: &Spooled) -> Result<(), Waits> {
        let Batch { events, mut bad } = match spool.read(spooled) {
            // Its writer was done with it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(Waits::File)?,
        };
        let mut zones: BTreeMap<ZoneId, Vec<Line>> = BTreeMap::new();
        for (event, line) in events {
            match ZoneId::parse(&event.zone_id) {
                Ok(zone) => zones.entry(zone).or_default().push((event, line)),
                Err(_) => bad.push(line),
            }
        }
        for (zone, lines) in &zones {
            bad.extend(self.bring_in(store, ledger, zone, lines).await?);
        }
        if !bad.is_empty() {
            tracing::error!(
                lines = bad.len(),
                "lines of evidence on disk have no place in a chain; they are put aside"
            );
            spool.quarantine(spooled, &bad).map_err(Waits::File)?;
            self.aside.add(u64::try_from(bad.len()).unwrap_or(u64::MAX));
        }
        spool.remove(spooled).map_err(Waits::File)
    }

    /// Brings one zone's lines into its chain, and says which have no place there.
    async fn bring_in(
        &self,
        store: &Store,
        ledger: &Ledger,
        zone: &ZoneId,
        lines: &[Line],
    ) -> Result<Vec<Vec<u8>>, Waits> {
        let events: Vec<StoredEvent> = lines.iter().map(|(event, _)| event.clone()).collect();
        let ingested: Result<(u64, Vec<usize>), StoreError> = store
            .commit(zone, (ledger.clone(), events), |tx, (ledger, events)| {
                Box::pin(async move {
                    let (mut added, mut refused) = (0, Vec::new());
                    for (at, event) in events.iter().enumerate() {
                        match ledger.ingest(tx, event).await? {
                            Ingested::Added => added += 1,
                            Ingested::Known => {}
                            Ingested::Conflicts { .. } => refused.push(at),
                        }
                    }
                    Ok((added, refused))
                })
            })
            .await;
        match ingested {
            Ok((added, refused)) => {
                self.replayed.add(added);
                Ok(refused.into_iter().filter_map(|at| lines.get(at)).map(|(_, line)| line.clone()).collect())
            }
            Err(error @ StoreError::Unavailable { .. }) => Err(Waits::Store(error)),
            Err(error @ StoreError::Corrupt { .. }) => Err(Waits::Chain(error)),
            // One of them has no place in the chain; it must not keep the others from theirs.
            Err(_) if lines.len() > 1 => {
                let mut refused = Vec::new();
                for line in lines {
                    refused.extend(Box::pin(self.bring_in(store, ledger, zone, std::slice::from_ref(line))).await?);
                }
                Ok(refused)
            }
            Err(error) => {
                tracing::error!(%zone, %error, "the store will never take a line of evidence that lay on disk");
                Ok(lines.iter().map(|(_, line)| line.clone()).collect())
            }
        }
    }
}

/// An event and the line that it was read from.
type Line = (StoredEvent, Vec<u8>);

/// Why a file stays where it is.
enum Waits {
    Store(StoreError),
    Chain(StoreError),
    File(io::Error),
}
