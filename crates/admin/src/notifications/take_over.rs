//! From the chain of a zone to the queues of its sinks.

use std::collections::BTreeSet;

use caracal_authority::{NotificationDeliveryId, Timestamp};
use caracal_crypto::chance;
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use caracal_store::notification_deliveries::{self, Delivery};
use caracal_store::notification_sinks::{self, Behind, Sink};
use caracal_store::{StoreError, ZoneRead};

use crate::Admin;

/// Places in chains that are looked up at once.
const PAGE: i64 = 200;
/// Events of a chain that are looked at for one commit, and those of them that are taken.
const LINKS: i64 = 2_000;
const TAKEN: i64 = 100;
/// A sink that has so many events to be sent gets no more; its place in the chain stays until it has taken some.
const MOST_OPEN: i64 = 1_000;

/// A sink, and what is to be added to its queue.
struct Advance {
    sink: Sink,
    deliveries: Vec<Delivery>,
}

/// Sinks of one zone, and how far they get.
struct Step {
    to: i64,
    advances: Vec<Advance>,
}

impl Admin {
    /// Brings every active sink up to the end of its zone's chain.
    pub(super) async fn take_over_events(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let mut snapshot = self.store.snapshot().await?;
            let behind = notification_sinks::list_behind(&mut snapshot.deployment(), after.as_ref(), PAGE).await?;
            drop(snapshot);
            let Some(last) = behind.last() else { return Ok(()) };
            after = Some(last.clone());
            for place in behind {
                self.catch_up(place).await?;
            }
        }
    }

    /// Takes sinks that are at one place on as far as the chain goes.
    async fn catch_up(&self, mut place: Behind) -> Result<(), StoreError> {
        while let Some(step) = self.step(&place).await? {
            let (from, to) = (place.position, step.to);
            place.position = to;
            self.store
                .commit_upkeep((place.zone_id.clone(), from, step), |tx, (zone, from, step)| {
                    Box::pin(async move {
                        let mut zone = tx.zone_write(zone);
                        for Advance { sink, deliveries } in &step.advances {
                            notification_sinks::advance(&mut zone, &sink.id, (*from, step.to), deliveries).await?;
                        }
                        Ok::<_, StoreError>(())
                    })
                })
                .await?;
        }
        Ok(())
    }

    /// The next events of a chain and who wants them. `None`: there are none, or nobody is there that has room.
    async fn step(&self, place: &Behind) -> Result<Option<Step>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let mut zone = snapshot.zone(&place.zone_id);
        // All of it is one instant: no event that is recorded meanwhile can fall between two questions.
        let head = evidence::head(&mut zone).await?.map_or(0, |head| head.chain_seq);
        if head <= place.position {
            return Ok(None);
        }
        let mut sinks = Vec::new();
        for sink in notification_sinks::list_at(&mut zone, place.position).await? {
            if notification_deliveries::count_open(&mut zone, &sink.id, MOST_OPEN).await? < MOST_OPEN {
                sinks.push(sink);
            }
        }
        if sinks.is_empty() {
            return Ok(None);
        }
        let types: BTreeSet<String> = sinks.iter().flat_map(|sink| sink.event_types.iter().cloned()).collect();
        let (events, to) = next_events(&mut zone, types, place.position, head).await?;
        let now = zone.now();
        drop(snapshot);
        let wanted = |sink: Sink| -> Result<Advance, StoreError> {
            let of_sink = events.iter().filter(|event| sink.event_types.contains(&event.event_type));
            let deliveries = of_sink.map(|event| delivery(&sink, event, now)).collect::<Result<_, _>>()?;
            Ok(Advance { sink, deliveries })
        };
        let advances = sinks.into_iter().map(wanted).collect::<Result<_, _>>()?;
        Ok(Some(Step { to, advances }))
    }
}

/// Events of these types behind `from`, and how far they reach.
async fn next_events(
    zone: &mut ZoneRead<'_>,
    types: BTreeSet<String>,
    from: i64,
    head: i64,
) -> Result<(Vec<EvidenceRow>, i64), StoreError> {
    let to = head.min(from.saturating_add(LINKS));
    let filter = EvidenceFilter { event_types: types.into_iter().collect(), ..EvidenceFilter::default() };
    let events = evidence::search_up_to(zone, &filter, (from, to), TAKEN).await?;
    let full = i64::try_from(events.len()).is_ok_and(|length| length >= TAKEN);
    let to = if full { events.last().map_or(to, |last| last.chain_seq) } else { to };
    Ok((events, to))
}

fn delivery(sink: &Sink, event: &EvidenceRow, now: Timestamp) -> Result<Delivery, StoreError> {
    let failed = |reason: String| StoreError::Statement { reason };
    let id = chance::uuid_v7(now).map_err(|error| failed(error.to_string()))?.to_string();
    Ok(Delivery {
        zone_id: sink.zone_id.clone(),
        id: NotificationDeliveryId::parse(&id).map_err(|error| failed(error.to_string()))?,
        sink_id: sink.id.clone(),
        event_seq: event.chain_seq,
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        attempts: 0,
        available_at: now,
        delivered_at: None,
        abandoned_at: None,
        response_status: None,
        last_error: None,
        created_at: now,
    })
}
