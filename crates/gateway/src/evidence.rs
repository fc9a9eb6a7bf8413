//! What the Gateway puts on record (contract: gateway.md §19, README D11).
//!
//! A call that got a directive leaves exactly one `gateway_resource_request`, however it ends: [`Attempt`] stands for
//! that duty, and whoever drops it without a word leaves the event that says so. A verified caller who is refused
//! before leaves one with `decision` `deny`, and a used mandate leaves `replay_detected`. Callers who proved nothing
//! are only counted.
//!
//! The authority behind a call, and the decision for it, were committed by the exchange before anything was forwarded.
//! How the call ended is known only when its last byte has left, and its caller does not wait for that to become
//! durable. So such events go through [`EvidenceLog`]: kept in order, committed in batches, tried again for as long as
//! the store fails, and drained when the process stops. What the store does not take at once lies on disk as well until it
//! does ([`parked`]), so that a killed process loses none of it. When too many wait, new calls wait before they may begin, and
//! refusals are only counted; events of calls that have begun always find room, so none is lost while the process lives.

mod parked;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::{ApplicationId, EventId, MandateId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_http::RequestId;
use caracal_http::limits::FixedWindow;
use caracal_ledger::{
    AnonymousDenials, Decision, EvaluationStatus, EventType, Evidence, Ledger, Metadata, MetadataKey as Key, Spool,
};
use caracal_store::{Store, StoreError};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::egress::Place;
use crate::metrics::{Counter, Metrics};
use crate::upload::Upload;

use parked::Parked;

/// Events that may wait before new calls do, usually.
pub(crate) const CAPACITY: usize = 10_000;
/// Events of one commit at most.
const BATCH: usize = 1_000;
/// How long the first event of a batch waits for company: one sync for many.
const LINGER: Duration = Duration::from_millis(10);
/// Pauses between attempts while the store fails.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Denials per minute of one mandate for one reason that get events of their own. A loop that retries for ever would
/// otherwise write to the chain as fast as it can ask, and keep other tenants' calls waiting for room; the rest is
/// counted and summarised.
const DENIALS_PER_MANDATE: u32 = 10;
/// The same for a used mandate that comes back: an attack that is worth more events.
const REPLAYS_PER_MANDATE: u32 = 100;

/// Who called for what: the part that all events of one call share. Holds nothing secret.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) zone: ZoneId,
    pub(crate) client: ApplicationId,
    pub(crate) jti: MandateId,
    pub(crate) resource: String,
    /// First eight bytes of the bearer's SHA-256, in hex.
    pub(crate) fingerprint: String,
    pub(crate) method: String,
    /// `user` or `application`, when the mandate says so.
    pub(crate) subject_kind: Option<&'static str>,
    pub(crate) request_id: RequestId,
}

impl Caller {
    fn metadata(&self, status: StatusCode, latency: Duration, response_bytes: u64) -> Metadata {
        Metadata::new()
            .with(Key::ApplicationId, self.client.as_str())
            .with(Key::Resource, self.resource.as_str())
            .with(Key::SubjectFingerprint, self.fingerprint.as_str())
            .with(Key::Method, self.method.as_str())
            .with(Key::GatewayStatus, status.as_u16())
            .with(Key::LatencyMs, u64::try_from(latency.as_millis()).unwrap_or(u64::MAX))
            .with(Key::ResponseBytes, response_bytes)
            .with_known(Key::SubjectKind, self.subject_kind)
    }
}

/// An event whose id is drawn when it is first to be committed, so that a moment without randomness loses nothing.
struct Draft {
    zone: ZoneId,
    event_type: EventType,
    decision: Decision,
    evaluation_status: EvaluationStatus,
    request_id: RequestId,
    reason: Option<String>,
    metadata: Metadata,
    occurred_at: Timestamp,
}

impl Draft {
    fn to_evidence(&self) -> Option<Evidence> {
        let id = chance::uuid_v7(self.occurred_at).ok()?;
        let id = EventId::parse(&id.to_string()).ok()?;
        let (event_type, decision) = (self.event_type.clone(), self.decision.clone());
        let event =
            Evidence::new(id, self.zone.clone(), event_type, decision, self.evaluation_status, self.occurred_at)
                .request(self.request_id.as_str())
                .with_metadata(self.metadata.clone());
        Some(match &self.reason {
            Some(reason) => event.because(reason.as_str()),
            None => event,
        })
    }
}

/// Drafts with their ids, as soon as there is randomness for them.
async fn drawn(drafts: &[Draft]) -> Vec<Evidence> {
    loop {
        let events: Option<Vec<Evidence>> = drafts.iter().map(Draft::to_evidence).collect();
        if let Some(events) = events {
            return events;
        }
        tracing::warn!("evidence could not be committed yet: there is no randomness");
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

/// The way into the chains for events that are not part of somebody's transaction.
pub(crate) struct EvidenceLog {
    store: Store,
    ledger: Ledger,
    anonymous: Arc<AnonymousDenials>,
    repeated: FixedWindow,
    metrics: Arc<Metrics>,
    capacity: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    room: Notify,
    pub(crate) parked: Parked,
    pub(crate) persisted: Counter,
    pub(crate) drained: Counter,
    pub(crate) sink_errors: Counter,
    /// Events lost. Once there is one, this process is not ready any more.
    pub(crate) dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Draft>,
    /// Taken by the writer and not yet committed.
    taken: usize,
    /// Those of them that have no id yet.
    undrawn: usize,
}

impl EvidenceLog {
    pub(crate) fn new(
        (store, ledger): (Store, Ledger),
        anonymous: Arc<AnonymousDenials>,
        metrics: Arc<Metrics>,
        spool: Option<Arc<Spool>>,
    ) -> Self {
        Self {
            store,
            ledger,
            anonymous,
            repeated: FixedWindow::per_minute(),
            metrics,
            capacity: CAPACITY,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            room: Notify::new(),
            parked: Parked::new(spool),
            persisted: Counter::default(),
            drained: Counter::default(),
            sink_errors: Counter::default(),
            dropped: Counter::default(),
        }
    }

    /// Waits until a new call may begin: until fewer events wait than may.
    pub(crate) async fn has_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.depth() < self.capacity {
                return;
            }
            room.await;
        }
    }

    /// Events not yet committed.
    pub(crate) fn depth(&self) -> usize {
        let waiting = self.lock();
        waiting.events.len() + waiting.taken
    }

    /// Counts a refusal of somebody who proved nothing.
    pub(crate) fn anonymous_denial(&self, reason: &'static str) {
        self.anonymous.count("gateway", reason);
    }

    /// Records that a verified caller was refused before dispatch.
    pub(crate) fn denied(&self, caller: &Caller, status: StatusCode, reason: EvaluationStatus, description: &str) {
        self.refused(caller, status, (reason, None), description);
    }

    /// Records that a verified caller went away before it was told what was decided. Whether it was, and the mandate used up
    /// with that, the STS's own evidence says.
    pub(crate) fn left(&self, caller: &Caller, status: StatusCode, description: &str) {
        self.refused(caller, status, (EvaluationStatus::StsOutcomeUnknown, Some(EndedBy::Caller)), description);
    }

    fn refused(
        &self,
        caller: &Caller,
        status: StatusCode,
        (reason, ended_by): (EvaluationStatus, Option<EndedBy>),
        description: &str,
    ) {
        let now = self.store.now();
        if !self.may_record(caller, reason.as_str(), DENIALS_PER_MANDATE, now) {
            return;
        }
        self.push(Draft {
            zone: caller.zone.clone(),
            event_type: EventType::GatewayResourceRequest,
            decision: Decision::Deny,
            evaluation_status: reason,
            request_id: caller.request_id.clone(),
            reason: Some(description.to_owned()),
            metadata: caller.metadata(status, Duration::ZERO, 0).with_known(Key::EndedBy, ended_by.map(EndedBy::name)),
            occurred_at: now,
        });
    }

    /// Records that a used mandate came back.
    pub(crate) fn replayed(&self, caller: &Caller) {
        let now = self.store.now();
        if !self.may_record(caller, "replay_detected", REPLAYS_PER_MANDATE, now) {
            return;
        }
        let metadata = Metadata::new()
            .with(Key::Jti, caller.jti.as_str())
            .with(Key::Resource, caller.resource.as_str())
            .with(Key::ClientId, caller.client.as_str())
            .with(Key::SubjectFp, caller.fingerprint.as_str())
            .with(Key::RequestId, caller.request_id.as_str());
        self.push(Draft {
            zone: caller.zone.clone(),
            event_type: EventType::ReplayDetected,
            decision: Decision::Deny,
            evaluation_status: EvaluationStatus::Anomaly,
            request_id: caller.request_id.clone(),
            reason: None,
            metadata,
            occurred_at: now,
        });
    }

    /// Whether a refusal gets an event of its own; else it is counted here. Nobody waits for the room of a refusal: when
    /// there is none, callers who are refused must not take what is left for those whose call has begun.
    fn may_record(&self, caller: &Caller, reason: &'static str, most: u32, now: Timestamp) -> bool {
        let few = self.repeated.hit(&(&caller.zone, &caller.jti, reason), most, now).is_allowed();
        let recorded = few && self.depth() < self.capacity;
        if !recorded {
            self.anonymous.count("gateway", reason);
        }
        recorded
    }

    /// Takes on the duty to record how a permitted call ended.
    pub(crate) fn attempt(self: &Arc<Self>, caller: Caller) -> Attempt {
        self.metrics.open.up();
        Attempt { log: self.clone(), call: Some(Call::new(caller)), _place: None }
    }

    fn push(&self, event: Draft) {
        self.lock().events.push_back(event);
        self.arrived.notify_one();
    }

    /// Commits what waits, until `stop` turns true and nothing is left.
    pub(crate) async fn write(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            let batch = self.take();
            if batch.is_empty() {
                if stopping {
                    return;
                }
                let arrived = tokio::select! {
                    () = self.arrived.notified() => true,
                    _ = stop.wait_for(|stop| *stop) => false,
                };
                if arrived {
                    tokio::time::sleep(LINGER).await;
                }
                continue;
            }
            let count = batch.len();
            let missing = self.commit(batch).await;
            self.lock().taken = 0;
            self.room.notify_waiters();
            let persisted = u64::try_from(count - missing).unwrap_or(0);
            self.persisted.add(persisted);
            if stopping {
                self.drained.add(persisted);
            }
        }
    }

    /// The writer was ended before it had written everything: what is left goes on disk. What can't is lost, and says so.
    pub(crate) fn give_up(&self) {
        let (drafts, mut lost) = {
            let mut waiting = self.lock();
            (std::mem::take(&mut waiting.events), waiting.undrawn)
        };
        let mut zones = Vec::new();
        for (_, drafts) in by_zone(drafts) {
            let events: Vec<Evidence> = drafts.iter().filter_map(Draft::to_evidence).collect();
            lost += drafts.len() - events.len();
            zones.push(events);
        }
        lost += self.parked.give_up(zones, self.store.now());
        if lost > 0 {
            self.dropped.add(u64::try_from(lost).unwrap_or(u64::MAX));
            tracing::error!(
                events = lost,
                "evidence was lost: the store did not take it before the process had to end"
            );
        }
    }

    /// Brings what processes before left on disk into its chain, until `stop` turns true.
    pub(crate) async fn drain(&self, stop: watch::Receiver<bool>) {
        self.parked.drain(&self.store, &self.ledger, stop).await;
    }

    fn take(&self) -> Vec<Draft> {
        let mut waiting = self.lock();
        let count = waiting.events.len().min(BATCH);
        let batch: Vec<Draft> = waiting.events.drain(..count).collect();
        (waiting.taken, waiting.undrawn) = (batch.len(), batch.len());
        batch
    }

    /// Commits each zone's events in order, zones side by side. Says how many are in no chain now.
    async fn commit(&self, batch: Vec<Draft>) -> usize {
        let zones = by_zone(batch);
        join_all(zones.iter().map(|(zone, events)| self.commit_zone(zone, events))).await.into_iter().sum()
    }

    async fn commit_zone(&self, zone: &ZoneId, drafts: &[Draft]) -> usize {
        let events = drawn(drafts).await;
        let batch = {
            let mut waiting = self.lock();
            waiting.undrawn = waiting.undrawn.saturating_sub(events.len());
            self.parked.take(&events)
        };
        let missing = self.commit_events(zone, &events, batch).await;
        self.parked.settle(batch);
        missing
    }

    async fn commit_events(&self, zone: &ZoneId, events: &[Evidence], batch: u64) -> usize {
        match self.commit_at_last(zone, events, (batch, false)).await {
            Ok(()) => 0,
            // Of these events nothing is wrong: they wait on disk for a store that is whole again.
            Err(error @ StoreError::Corrupt { .. }) => {
                let left = self.parked.leave(batch, self.store.now());
                if !left {
                    self.dropped.add(u64::try_from(events.len()).unwrap_or(u64::MAX));
                }
                tracing::error!(zone = %zone, %error, is_on_disk = left, "evidence can't be committed to a damaged store");
                events.len()
            }
            // One of them has no place in the chain; it must not take the others with it.
            Err(_) if events.len() > 1 => {
                let mut missing = 0;
                for event in events {
                    missing += Box::pin(self.commit_events(zone, std::slice::from_ref(event), batch)).await;
                }
                missing
            }
            Err(error) => {
                match self.parked.put_aside(events, self.store.now()) {
                    Ok(()) => {
                        tracing::error!(zone = %zone, %error, "the store will never take this evidence; it is put aside on disk")
                    }
                    Err(disk) => {
                        self.dropped.up();
                        tracing::error!(zone = %zone, %error, %disk, "evidence was lost: the store will never take it");
                    }
                }
                events.len()
            }
        }
    }

    /// Tries again while the store is unavailable. Any other failure is for good. A store that was lost in the middle of a
    /// commit may have made it: the events keep their ids, so that another try then finds them there, and no call is on
    /// record twice.
    async fn commit_at_last(
        &self,
        zone: &ZoneId,
        events: &[Evidence],
        (batch, mut tried): (u64, bool),
    ) -> Result<(), StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.try_commit(zone, events).await {
                Err(error) if tried && error.is_conflict_on("audit_events.id") => return Ok(()),
                Err(error @ StoreError::Unavailable { .. }) => error,
                outcome => return outcome,
            };
            tried = true;
            self.sink_errors.up();
            self.parked.keep(batch, self.store.now());
            tracing::warn!(zone = %zone, %error, "evidence could not be committed yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_commit(&self, zone: &ZoneId, events: &[Evidence]) -> Result<(), StoreError> {
        self.store
            .commit(zone, (self.ledger.clone(), events.to_vec()), |tx, (ledger, events)| {
                Box::pin(async move { ledger.record(tx, events).await })
            })
            .await
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drafts of each zone, in their order.
fn by_zone(drafts: impl IntoIterator<Item = Draft>) -> Vec<(ZoneId, Vec<Draft>)> {
    let mut zones: Vec<(ZoneId, Vec<Draft>)> = Vec::new();
    for event in drafts {
        match zones.iter_mut().find(|(zone, _)| *zone == event.zone) {
            Some((_, events)) => events.push(event),
            None => zones.push((event.zone.clone(), vec![event])),
        }
    }
    zones
}

/// How a permitted call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Relayed to the end, or cut by a revocation.
    Executed,
    /// The response broke off, or its caller did not take it.
    CopyFailed,
    /// No response; what the caller got instead.
    Transport(StatusCode),
    /// The guard refused the upstream, and why, for the operator.
    NotAddressable(String),
    /// The credential must not go to the upstream's host.
    HostNotAllowed,
    /// The request could not be built.
    BuildFailed,
    /// An anchor was revoked while the STS was being asked.
    RevokedBeforeDispatch,
    /// An anchor was revoked when the upstream had been sent the request, or a part of it, and had not answered.
    RevokedBeforeAnswer,
}

/// What ended a call that did not simply run to its end (README D11: a caller who goes away is no fault of the upstream).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// The caller went away, or took nothing any more.
    Caller,
    /// The upstream closed or broke off.
    Upstream,
    /// Nothing moved for too long.
    Silence,
    /// Too little moved.
    Slowness,
    /// An anchor of the mandate was revoked.
    Revocation,
    /// The mandate ended.
    Expiry,
    /// This process had to end.
    Stop,
}

impl EndedBy {
    fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Upstream => "upstream",
            Self::Silence => "silence",
            Self::Slowness => "slowness",
            Self::Revocation => "revocation",
            Self::Expiry => "expiry",
            Self::Stop => "stop",
        }
    }
}

/// The duty to record how one permitted call ended.
pub(crate) struct Attempt {
    log: Arc<EvidenceLog>,
    call: Option<Call>,
    /// Given back when nothing is left of the call, however it ended.
    _place: Option<Place>,
}

struct Call {
    caller: Caller,
    details: Vec<(Key, Value)>,
    latency: Duration,
    response_bytes: u64,
    /// When the request's head had been read.
    began: Instant,
    upload: Option<Arc<Upload>>,
    upstream_status: Option<StatusCode>,
}

impl Call {
    fn new(caller: Caller) -> Self {
        Self {
            caller,
            details: Vec::with_capacity(8),
            latency: Duration::ZERO,
            response_bytes: 0,
            began: Instant::now(),
            upload: None,
            upstream_status: None,
        }
    }
}

impl Attempt {
    /// Whose call it is.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.call.as_ref().map(|call| &call.caller)
    }

    /// Keeps the call's place at its upstream for as long as anything of the call is under way.
    pub(crate) fn hold(&mut self, place: Place) {
        self._place = Some(place);
    }

    /// Adds what becomes known on the way; empty text is left out.
    pub(crate) fn note(&mut self, key: Key, value: &str) {
        if let Some(call) = self.call.as_mut().filter(|_| !value.is_empty()) {
            call.details.push((key, Value::from(value)));
        }
    }

    /// When the call began, and the body that goes upstream for it.
    pub(crate) fn sending(&mut self, began: Instant, upload: Arc<Upload>) {
        if let Some(call) = &mut self.call {
            call.began = began;
            call.upload = Some(upload);
        }
    }

    /// What ended it.
    pub(crate) fn ended_by(&mut self, what: EndedBy) {
        self.note(Key::EndedBy, what.name());
    }

    /// The upstream's response head arrived, `latency` after dispatch.
    pub(crate) fn answered(&mut self, status: StatusCode, latency: Duration) {
        if let Some(call) = &mut self.call {
            call.upstream_status = Some(status);
            call.latency = latency;
            call.details.push((Key::UpstreamStatus, Value::from(status.as_u16())));
            call.details.push((Key::ResultClass, Value::from(result_class(status))));
        }
    }

    /// Bytes of the response body went on to the caller.
    pub(crate) fn relayed(&mut self, bytes: usize) {
        if let Some(call) = &mut self.call {
            call.response_bytes += u64::try_from(bytes).unwrap_or(0);
        }
    }

    /// The same for bytes that the caller sent behind its request, once it is known how many.
    pub(crate) fn received(&mut self, bytes: u64) {
        if let Some(call) = &mut self.call {
            call.details.push((Key::RequestBytes, Value::from(bytes)));
            call.upload = None;
        }
    }

    /// A revocation cut the call, before the upstream had answered or while its answer came.
    pub(crate) fn interrupted(&mut self) {
        self.ended_by(EndedBy::Revocation);
        let Some(call) = &mut self.call else { return };
        call.details.push((Key::RevocationInterrupted, Value::from(true)));
        let answered = call.upstream_status.is_some();
        self.end(if answered { Outcome::Executed } else { Outcome::RevokedBeforeAnswer });
    }

    /// Hands the event over. Only the first call has an effect.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        let Some(call) = self.call.take() else { return };
        let Call { caller, mut details, latency, response_bytes, began, upload, upstream_status } = call;
        let duration = began.elapsed();
        self.log.metrics.ended(duration, upstream_status.map(|_| latency));
        details.push((Key::DurationMs, Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))));
        if let Some(upload) = upload {
            details.push((Key::RequestBytes, Value::from(upload.passed())));
        }
        if !matches!(outcome, Outcome::Executed | Outcome::RevokedBeforeAnswer) {
            self.log.metrics.upstream_errors.up();
        }
        let upstream_status = upstream_status.unwrap_or(StatusCode::BAD_GATEWAY);
        let (evaluation_status, error_kind, status) = match &outcome {
            Outcome::Executed => (EvaluationStatus::Executed, None, upstream_status),
            Outcome::CopyFailed => (EvaluationStatus::UpstreamError, Some("response_copy_failed"), upstream_status),
            Outcome::Transport(status) => (EvaluationStatus::UpstreamError, Some("transport_error"), *status),
            Outcome::NotAddressable(_) => {
                (EvaluationStatus::UpstreamRejected, Some("upstream_not_addressable"), StatusCode::BAD_GATEWAY)
            }
            Outcome::HostNotAllowed => {
                (EvaluationStatus::UpstreamRejected, Some("provider_host_not_allowed"), StatusCode::BAD_GATEWAY)
            }
            Outcome::BuildFailed => {
                (EvaluationStatus::BuildFailed, Some("request_build_failed"), StatusCode::BAD_REQUEST)
            }
            Outcome::RevokedBeforeDispatch => {
                (EvaluationStatus::UpstreamRejected, Some("session_revoked"), StatusCode::UNAUTHORIZED)
            }
            // What the upstream had been sent may have had its effect.
            Outcome::RevokedBeforeAnswer => (EvaluationStatus::Executed, None, StatusCode::UNAUTHORIZED),
        };
        let mut metadata = caller.metadata(status, latency, response_bytes).with_known(Key::ErrorKind, error_kind);
        details.into_iter().for_each(|(key, value)| metadata.set(key, value));
        let Caller { zone, request_id, .. } = caller;
        self.log.push(Draft {
            zone,
            event_type: EventType::GatewayResourceRequest,
            decision: Decision::Allow,
            evaluation_status,
            request_id,
            reason: match outcome {
                Outcome::NotAddressable(reason) => Some(reason),
                _ => None,
            },
            metadata,
            occurred_at: self.log.store.now(),
        });
    }
}

/// A caller who goes away makes every future of the call disappear, and with them the last place that could say so:
/// this is the one.
impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(call) = &self.call else { return };
        let answered = call.upstream_status.is_some();
        self.ended_by(EndedBy::Caller);
        self.end(if answered { Outcome::CopyFailed } else { Outcome::Transport(crate::wire::client_closed_request()) });
    }
}

fn result_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "success",
        300..=399 => "redirect",
        400..=499 => "client_error",
        500.. => "server_error",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests;
