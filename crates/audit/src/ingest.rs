//! Evidence that clients and exporters bring: signed frames on a topic, each of which becomes one event of its zone's chain
//! (contract: audit-and-streams.md §4).
//!
//! A frame that somebody forged, garbled or changed on its way never reaches the ledger. It is put aside with the reason,
//! and only once that is written is it let go: so an event is in the ledger, put aside, or comes again, wherever the process
//! dies. The same frame may come any number of times. One that says something else under the name of an event that is there
//! changes nothing and is an incident. What only the ledger says of itself no frame may say.
//!
//! What a page has of a zone is stored in one commit, and all that is stored is let go of at once: the commit is what costs. Cut
//! off in between, the frames come again and are known. Where the store refuses a page, each of its frames is offered for
//! itself, so that only the one is put aside that is to blame.
//!
//! One that can't be put aside, while dead letters can't be written, stays where it is and is tried again when it was held for too
//! long; no other waits for it, and the service is not ready meanwhile.
//!
//! While the store is away nothing is read and nothing is put aside: an outage is nobody's fault, and must not turn a
//! backlog into dead letters.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::hmac::HmacRing;
use caracal_ledger::{Bounds, Ingested, StoredEvent, read_event};
use caracal_store::StoreError;
use caracal_stream::{AUDIT_DEAD_LETTERS, AUDIT_EVENTS, Begin, Delivery, Fields, Member, Patience, StreamError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Audit;
use crate::incidents::{Incident, raise_tried};
use crate::metrics::add;
use crate::retention::DAY;

/// The group that shares the topic's frames among replicas.
pub(crate) const GROUP: &str = "audit-ingestor";
const PAGE: usize = 100;
const WAIT: Duration = Duration::from_secs(1);
/// Most bytes of frames in one commit, which keeps its zone from others.
const TOGETHER: usize = 1 << 20;
/// After an error.
const PAUSE: Duration = Duration::from_secs(1);
/// Dead letters that are kept, the newest.
const KEPT: usize = 100_000;
/// How long a frame stays on the topic after every group had it.
const HISTORY: Duration = Duration::from_secs(86_400);
/// How much longer than two times the patience it counts that a frame could not be put aside.
const UNSAID: Duration = Duration::from_secs(10);
const TRIM_EVERY: Duration = Duration::from_secs(3_600);

/// How long frames are taken that were signed with a key that was replaced: whoever makes them needs the new one by then. A
/// key that was replaced because somebody got hold of it must not bring evidence for good.
const AFTER_ROTATION: Duration = Duration::from_secs(86_400);

/// What frames are signed with.
pub struct FrameKeys {
    keys: Arc<HmacRing>,
    /// Until when a key that was replaced does.
    previous_until: Timestamp,
}

impl FrameKeys {
    /// With the audit key, which is in use since `since`, and those before it.
    pub fn new(keys: Arc<HmacRing>, since: Timestamp) -> Self {
        Self { keys, previous_until: since.plus(AFTER_ROTATION) }
    }

    fn signed(&self, data: &str, signature: &str, now: Timestamp) -> bool {
        // Over the bytes as they came: no two producers write JSON the same way.
        let parts = [data.as_bytes()];
        self.keys.at(0).is_some_and(|key| key.verify_hex(&parts, signature))
            || (now < self.previous_until && self.keys.verify_hex(&parts, signature))
    }
}

enum Verdict {
    Stored,
    Aside(String),
}

impl Audit {
    /// Takes frames into the ledger until `shutdown` turns true.
    pub async fn run_ingest(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut member = self.streams.member(AUDIT_EVENTS, GROUP, &self.config.consumer_name);
        let mut turn = Turn { joined: false, reclaimed: false, reclaim_at: Instant::now(), trim_at: Instant::now() };
        loop {
            let batch = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                batch = self.fetch(&mut member, &mut turn) => batch,
            };
            let done = match batch {
                Ok(batch) => {
                    self.consuming.store(true, Ordering::Relaxed);
                    self.work(&member, batch, &mut shutdown).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                // The group went away with the server's memory, say.
                turn.joined &= !matches!(error, StreamError::NoGroup(_));
                if self.consuming.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%error, "audit frames can't be read; it is tried until they can");
                }
                tokio::select! {
                    _ = shutdown.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    /// Frames that somebody held for too long, or new ones, waited for.
    async fn fetch(&self, member: &mut Member, turn: &mut Turn) -> Result<Vec<Delivery>, StreamError> {
        if !turn.joined {
            // From the start: frames may have been written before the first process that reads them was there.
            self.streams.create_group(AUDIT_EVENTS, GROUP, Begin::Start).await?;
            turn.joined = true;
        }
        if Instant::now() >= turn.trim_at {
            self.streams.trim(AUDIT_EVENTS, self.store.now().minus(HISTORY).as_micros() / 1_000).await?;
            turn.trim_at = Instant::now() + TRIM_EVERY;
        }
        let idle = self.config.claim_idle;
        // By turns: what can't be put aside is due again and again, and must not keep from what is new.
        if std::mem::take(&mut turn.reclaimed) {
            let new = member.read(PAGE, Duration::ZERO).await?;
            if !new.is_empty() {
                return Ok(new);
            }
        }
        if Instant::now() >= turn.reclaim_at {
            let reclaimed = member.reclaim(Patience { first: idle, longest: idle }, PAGE).await?;
            if !reclaimed.is_empty() {
                turn.reclaimed = true;
                return Ok(reclaimed);
            }
            turn.reclaim_at = Instant::now() + idle;
        }
        member.read(PAGE, WAIT.min(idle)).await
    }

    /// One commit for what a page has of a zone, and one word to let go of all that is stored.
    async fn work(
        &self,
        member: &Member,
        batch: Vec<Delivery>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), StreamError> {
        let mut verdicts: BTreeMap<usize, Verdict> = BTreeMap::new();
        let mut pages = Pages::default();
        for (at, delivery) in batch.iter().enumerate() {
            if delivery.deliveries() > 1 {
                add(&self.metrics.retries, 1);
            }
            match self.read(delivery) {
                Ok((zone, event)) => pages.add(zone, Offered { at, event, size: size_of(delivery) }, delivery),
                Err(reason) => {
                    verdicts.insert(at, Verdict::Aside(reason));
                }
            }
        }
        'pages: for (zone, page) in pages.all() {
            loop {
                match self.take(&zone, &page).await {
                    Ok(taken) => {
                        verdicts.extend(page.iter().map(|offered| offered.at).zip(taken));
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "audit frames can't be stored; it is tried until they can");
                        add(&self.metrics.retries, 1);
                        tokio::select! {
                            _ = shutdown.wait_for(|stop| *stop) => break 'pages,
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                        member.keep(&batch.iter().map(Delivery::id).collect::<Vec<_>>()).await?;
                    }
                }
            }
            if *shutdown.borrow() {
                break;
            }
        }
        let known = |at: &usize| batch.get(*at);
        let stored = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Stored));
        let stored: Vec<&str> = stored.filter_map(|(at, _)| known(at)).map(Delivery::id).collect();
        member.acknowledge_all(&stored).await?;
        for (at, verdict) in &verdicts {
            let (Verdict::Aside(reason), Some(delivery)) = (verdict, known(at)) else { continue };
            match self.put_aside(member, delivery, reason).await {
                Err(error @ StreamError::Refused(_)) => self.is_kept(delivery, reason, &error),
                done => done?,
            }
            if *shutdown.borrow() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a frame says, in the contract's order of checks; or the reason for which it is put aside.
    fn read(&self, delivery: &Delivery) -> Result<(ZoneId, StoredEvent), String> {
        let Some(data) = delivery.field("data") else { return Err("missing_data_field".to_owned()) };
        if !self.frame_keys.signed(data, delivery.field("sig").unwrap_or_default(), self.store.now()) {
            return Err("hmac_verify_failed".to_owned());
        }
        if delivery.deliveries() > self.config.max_deliveries {
            let deliveries = delivery.deliveries();
            return Err(format!(
                "transient_exceeded_max_deliveries:handed out {deliveries} times, and nobody came to an end with it"
            ));
        }
        let (zone, event) = read_event(data).map_err(|error| format!("json_parse_error:{error}"))?;
        let bounds = Bounds::at(self.store.now(), DAY.saturating_mul(self.config.retention_days));
        event.admit(&bounds).map_err(|refused| refused.to_string())?;
        Ok((zone, event))
    }

    /// What becomes of events of one zone. The error is an outage of the store.
    async fn take(&self, zone: &ZoneId, page: &[Offered]) -> Result<Vec<Verdict>, StoreError> {
        match self.offer(zone, page).await {
            Err(error @ StoreError::Unavailable { .. }) => Err(error),
            Ok(outcomes) => Ok(self.judged(zone, page, outcomes).await),
            Err(error) if page.len() == 1 => Ok(vec![Verdict::Aside(format!("pg_permanent_error:{error}"))]),
            Err(error) => {
                tracing::warn!(%zone, %error, "a page of audit frames is not stored; each of them is tried for itself");
                let mut verdicts = Vec::with_capacity(page.len());
                for one in page.chunks(1) {
                    match self.offer(zone, one).await {
                        Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                        Ok(outcomes) => verdicts.extend(self.judged(zone, one, outcomes).await),
                        Err(error) => verdicts.push(Verdict::Aside(format!("pg_permanent_error:{error}"))),
                    }
                }
                Ok(verdicts)
            }
        }
    }

    async fn offer(&self, zone: &ZoneId, page: &[Offered]) -> Result<Vec<Ingested>, StoreError> {
        let events: Vec<StoredEvent> = page.iter().map(|offered| offered.event.clone()).collect();
        self.store
            .commit(zone, (self.ledger.clone(), events), |tx, (ledger, events)| {
                Box::pin(async move { ledger.ingest_all(tx, events).await })
            })
            .await
    }

    async fn judged(&self, zone: &ZoneId, page: &[Offered], outcomes: Vec<Ingested>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(page.len());
        for (Offered { event, .. }, outcome) in page.iter().zip(outcomes) {
            verdicts.push(match outcome {
                Ingested::Added => {
                    add(&self.metrics.inserts, 1);
                    Verdict::Stored
                }
                Ingested::Known => Verdict::Stored,
                Ingested::Conflicts { stored, incoming } => {
                    let id = &event.id;
                    tracing::error!(%zone, event = ?id, stored, incoming, "an event came again with other content");
                    let incident = Incident::of_replay(id, &stored, &incoming);
                    raise_tried(&self.store, &self.ledger, &self.frame_keys.keys, zone, &incident).await;
                    Verdict::Aside("tamper_on_replay".to_owned())
                }
            });
        }
        verdicts
    }

    /// A frame can't be put aside, which the server says and not its absence: so others can be let go.
    fn is_kept(&self, delivery: &Delivery, reason: &str, error: &StreamError) {
        tracing::error!(entry = delivery.id(), reason, %error, "an audit frame can't be put aside; it waits where it is");
        add(&self.metrics.retries, 1);
        // Until it was tried again. Another replica may be who succeeds, so that this says nothing for longer.
        let until = Instant::now() + self.config.claim_idle * 2 + UNSAID;
        *self.kept_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether frames wait that can't be put aside.
    pub(crate) fn keeps_bad_frames(&self) -> bool {
        let until = *self.kept_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Counted only once it is written.
    async fn put_aside(&self, member: &Member, delivery: &Delivery, reason: &str) -> Result<(), StreamError> {
        tracing::warn!(entry = delivery.id(), reason, "an audit frame is put aside");
        let letter = letter(delivery, reason, self.store.now().as_micros() / 1_000);
        if !member.put_aside(delivery, AUDIT_DEAD_LETTERS, letter, KEPT).await? {
            return Ok(());
        }
        *self.kept_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        add(&self.metrics.put_aside, 1);
        match reason {
            "hmac_verify_failed" => add(&self.metrics.bad_signatures, 1),
            "tamper_on_replay" => add(&self.metrics.tamper_replays, 1),
            "missing_data_field" => add(&self.metrics.parse_errors, 1),
            reason if reason.starts_with("occurred_at_out_of_bounds:") => add(&self.metrics.out_of_bounds, 1),
            reason if reason.starts_with("json_parse_error:") => add(&self.metrics.parse_errors, 1),
            _ => {}
        }
        Ok(())
    }
}

/// An event of a page, and which of its frames it came in.
struct Offered {
    at: usize,
    event: StoredEvent,
    size: usize,
}

fn size_of(delivery: &Delivery) -> usize {
    delivery.field("data").map_or(0, str::len)
}

/// What is stored together: a page's events by zone, in their order.
#[derive(Default)]
struct Pages(BTreeMap<ZoneId, Vec<Vec<Offered>>>);

impl Pages {
    fn add(&mut self, zone: ZoneId, offered: Offered, delivery: &Delivery) {
        let pages = self.0.entry(zone).or_default();
        // One that was handed out before is for itself: somebody may have died of it, and must not take others along.
        let alone = delivery.deliveries() > 1;
        match pages.last_mut() {
            Some(page) if !alone && page.iter().map(|known| known.size).sum::<usize>() + offered.size <= TOGETHER => {
                page.push(offered);
            }
            _ => pages.push(vec![offered]),
        }
    }

    fn all(self) -> impl Iterator<Item = (ZoneId, Vec<Offered>)> {
        self.0.into_iter().flat_map(|(zone, pages)| pages.into_iter().map(move |page| (zone.clone(), page)))
    }
}

struct Turn {
    joined: bool,
    reclaimed: bool,
    reclaim_at: Instant,
    trim_at: Instant,
}

/// A dead letter (§4.2). Because frames have a field named `id`, `src_id` holds that where there is one; the entry's own
/// name is `src_entry_id`.
fn letter(delivery: &Delivery, reason: &str, now_millis: i64) -> Fields {
    let mut letter: Fields = vec![
        ("reason".to_owned(), reason.to_owned()),
        ("received_at".to_owned(), now_millis.to_string()),
        ("src_entry_id".to_owned(), delivery.id().to_owned()),
    ];
    let mut source = delivery.fields().unwrap_or_default().to_vec();
    if !source.iter().any(|(name, _)| name == "id") {
        source.push(("id".to_owned(), delivery.id().to_owned()));
    }
    for (name, value) in source {
        let name = format!("src_{name}");
        if !letter.iter().any(|(known, _)| *known == name) {
            letter.push((name, value));
        }
    }
    letter
}
