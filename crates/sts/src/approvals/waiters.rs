//! Waiting for a decision (contract: sts.md §7.6).
//!
//! A hundred agents wait for as many approvals, each with a request that stays open for up to 25 seconds. Each reads its
//! hold once; from then on one task reads all holds that somebody waits for, every other second, in one snapshot. It
//! looks at once when a decision is committed: this process hears of its own commits from the store, and of others' from
//! the topic that the decision's own commit announces it on. So a decision is told at once where the way is short,
//! and within a reading's interval where no word of it arrives; that a hold's time is over is seen by a reading, too.
//!
//! The task is there while somebody waits. Whoever can't be seated is told to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use caracal_authority::approval::HoldState;
use caracal_authority::{ApprovalId, Timestamp};
use caracal_store::approvals::{self, DECIDED};
use caracal_store::{Committed, Message, Store, StoreError};
use tokio::sync::{Notify, watch};

/// How those wait who ask after an approval.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// How often the holds are read that somebody waits for.
    pub every: Duration,
    /// How many may wait at the same time.
    pub most: usize,
    /// How many of them for one hold.
    pub most_for_one: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { every: Duration::from_secs(2), most: 4_096, most_for_one: 64 }
    }
}

/// Where a hold was seen to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: HoldState,
    pub(crate) expires_at: Timestamp,
}

/// Why nobody looked.
#[derive(Debug)]
pub(crate) enum NotSeen {
    Store(StoreError),
    /// Too many wait.
    Crowded,
    /// Too many wait for this hold.
    CrowdedHold,
}

impl From<StoreError> for NotSeen {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Everybody who waits in this process.
pub(crate) struct Waiters {
    store: Store,
    waiting: Waiting,
    room: Mutex<Room>,
    look: Notify,
    stopping: OnceLock<watch::Receiver<bool>>,
}

#[derive(Default)]
struct Room {
    tables: HashMap<ApprovalId, Table>,
    seated: usize,
    /// Whether the task that reads is there.
    is_read: bool,
}

/// Those who wait for one hold.
struct Table {
    seated: usize,
    /// `None` until it no longer waits; then where it stands, or that it is gone.
    told: watch::Sender<Option<Option<Seen>>>,
}

/// A place among those who wait; given up when it is dropped.
struct Seat<'w> {
    waiters: &'w Waiters,
    id: ApprovalId,
    told: watch::Receiver<Option<Option<Seen>>>,
}

impl Waiters {
    /// Nobody waits yet; decisions of this process are heard from here on.
    pub(crate) fn over(store: Store, waiting: Waiting) -> Arc<Self> {
        let waiters = Arc::new(Self {
            store: store.clone(),
            waiting,
            room: Mutex::default(),
            look: Notify::new(),
            stopping: OnceLock::new(),
        });
        let hearing = Arc::downgrade(&waiters);
        store.observe(Arc::new(move |committed: &Committed| {
            if let Some(waiters) = hearing.upgrade() {
                committed.messages.iter().for_each(|message| waiters.hear(message));
            }
        }));
        waiters
    }

    pub(crate) fn end_on(&self, stopping: watch::Receiver<bool>) {
        // Who is told twice keeps to the first.
        let _ = self.stopping.set(stopping);
    }

    /// Looks at once if the message is of a hold that somebody waits for.
    pub(crate) fn hear(&self, message: &Message) {
        let decided = (message.topic == DECIDED).then(|| message.field("approval_id")).flatten();
        let id = decided.and_then(|id| ApprovalId::parse(id).ok());
        if id.is_some_and(|id| self.room().tables.contains_key(&id)) {
            self.look.notify_one();
        }
    }

    /// Where the hold stands: now, or as soon as it is not pending any more, or still pending when `wait` is over.
    /// `None` if there is no such hold.
    pub(crate) async fn state(self: &Arc<Self>, id: &ApprovalId, wait: Duration) -> Result<Option<Seen>, NotSeen> {
        if wait.is_zero() {
            return Ok(self.read(std::slice::from_ref(id)).await?.remove(id));
        }
        // Seated before the first look: what is decided between the two is told.
        let mut seat = self.seat(id)?;
        let Some(first) = self.read(std::slice::from_ref(id)).await?.remove(id) else { return Ok(None) };
        if first.state != HoldState::Pending {
            return Ok(Some(first));
        }
        self.be_read();
        tokio::select! {
            told = seat.told.wait_for(Option::is_some) => Ok(told.ok().and_then(|told| *told).unwrap_or(Some(first))),
            () = tokio::time::sleep(wait) => Ok(Some(first)),
            () = self.stopped() => Ok(Some(first)),
        }
    }

    fn seat(&self, id: &ApprovalId) -> Result<Seat<'_>, NotSeen> {
        let mut room = self.room();
        if room.seated >= self.waiting.most {
            return Err(NotSeen::Crowded);
        }
        let table = room.tables.entry(id.clone()).or_insert_with(|| Table { seated: 0, told: watch::channel(None).0 });
        if table.seated >= self.waiting.most_for_one {
            return Err(NotSeen::CrowdedHold);
        }
        table.seated += 1;
        let told = table.told.subscribe();
        room.seated += 1;
        Ok(Seat { waiters: self, id: id.clone(), told })
    }

    /// Has the task that reads, unless it is there.
    fn be_read(self: &Arc<Self>) {
        let was_read = std::mem::replace(&mut self.room().is_read, true);
        if !was_read {
            tokio::spawn(self.clone().read_while_somebody_waits());
        }
    }

    async fn read_while_somebody_waits(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.look.notified() => {}
                () = tokio::time::sleep(self.waiting.every) => {}
            }
            let ids: Vec<ApprovalId> = {
                let mut room = self.room();
                if room.tables.is_empty() {
                    room.is_read = false;
                    return;
                }
                room.tables.keys().cloned().collect()
            };
            match self.read(&ids).await {
                Ok(seen) => self.tell(&ids, &seen),
                Err(error) => tracing::warn!(%error, "approvals that are waited for could not be read; they are again"),
            }
        }
    }

    fn tell(&self, ids: &[ApprovalId], seen: &HashMap<ApprovalId, Seen>) {
        let room = self.room();
        for id in ids {
            let seen = seen.get(id).copied();
            let waits = seen.is_some_and(|seen| seen.state == HoldState::Pending);
            if let Some(table) = room.tables.get(id).filter(|_| !waits) {
                table.told.send_replace(Some(seen));
            }
        }
    }

    async fn read(&self, ids: &[ApprovalId]) -> Result<HashMap<ApprovalId, Seen>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let now = snapshot.now();
        let rows = approvals::find_anywhere(&mut snapshot.deployment(), ids).await?;
        rows.into_iter()
            .map(|row| {
                let hold = row.facts()?;
                Ok((row.id, Seen { state: hold.state(now), expires_at: hold.expires_at }))
            })
            .collect()
    }

    async fn stopped(&self) {
        match self.stopping.get() {
            // A sender that is gone says nothing any more.
            Some(stopping) if stopping.clone().wait_for(|stop| *stop).await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut room = self.waiters.room();
        room.seated = room.seated.saturating_sub(1);
        let is_empty = room.tables.get_mut(&self.id).is_some_and(|table| {
            table.seated = table.seated.saturating_sub(1);
            table.seated == 0
        });
        if is_empty {
            room.tables.remove(&self.id);
        }
    }
}
