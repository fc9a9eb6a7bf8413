//! From the queue of a sink to its receiver.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use caracal_authority::Timestamp;
use caracal_crypto::chance;
use caracal_custody::RowSecret;
use caracal_http::egress::{SimpleRequest, TargetUrl};
use caracal_store::StoreError;
use caracal_store::evidence::{self, ChainRow, EvidenceRow};
use caracal_store::notification_deliveries::Delivery;
use caracal_store::notification_sinks::{self, Claimed, Due, Failure};
use http::Method;
use tokio::sync::watch;

use super::message;
use crate::Admin;

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a sink is one process's: longer than an attempt and its note can take.
const LEASE: Duration = Duration::from_secs(30);
/// Deliveries to one sink before others have their turn.
const IN_A_ROW: usize = 25;
/// Attempts before a delivery is given up.
const ATTEMPTS: i64 = 8;
/// The first pause, doubled with each further failure up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// Of an answer that nobody reads.
const SHORT_ANSWER: usize = 16 * 1024;

/// How an attempt went.
enum Attempt {
    /// With a status from 200 to 299.
    Taken(u16),
    NotTaken {
        status: Option<u16>,
        error: String,
    },
    /// There is nothing that could be sent.
    Nothing(&'static str),
}

impl Admin {
    /// Sends a sink what is open, one after the other, until it fails, has it all, or others have their turn.
    pub(super) async fn serve(self: Arc<Self>, mut due: Due, stopping: watch::Receiver<bool>) {
        for _ in 0..IN_A_ROW {
            if *stopping.borrow() {
                return;
            }
            match self.serve_one(&due).await {
                Ok(Some(next)) => due.due_at = next,
                Ok(None) => return,
                Err(error) => {
                    // The lease runs out, and it is tried again.
                    tracing::warn!(zone = %due.zone_id, sink = %due.id, %error, "a notification is not on record");
                    return;
                }
            }
        }
    }

    /// One delivery. Gives when the sink is due again, if it can be at once.
    async fn serve_one(&self, due: &Due) -> Result<Option<Timestamp>, StoreError> {
        let lease = self.store.now().plus(LEASE);
        let input = (due.clone(), lease);
        let claimed = self.store.commit_upkeep(input, |tx, (due, lease)| {
            Box::pin(async move {
                let mut zone = tx.zone_write(&due.zone_id);
                notification_sinks::claim(&mut zone, &due.id, due.due_at, *lease).await
            })
        });
        let Some(claimed) = claimed.await? else { return Ok(None) };
        match self.attempt(&claimed).await? {
            Attempt::Taken(status) => {
                self.notified.delivered.fetch_add(1, Ordering::Relaxed);
                self.note_delivered(claimed.delivery, lease, status).await
            }
            Attempt::Nothing(why) => {
                let Delivery { zone_id, id, .. } = &claimed.delivery;
                tracing::error!(zone = %zone_id, delivery = %id, why, "a notification was given up");
                self.notified.abandoned.fetch_add(1, Ordering::Relaxed);
                self.note_given_up(claimed.delivery, lease, why).await
            }
            Attempt::NotTaken { status, error } => {
                let Delivery { zone_id, id, sink_id, attempts, .. } = &claimed.delivery;
                tracing::warn!(zone = %zone_id, sink = %sink_id, delivery = %id, attempts, error, "a notification failed");
                self.notified.failed.fetch_add(1, Ordering::Relaxed);
                if attempts.saturating_add(1) >= ATTEMPTS {
                    self.notified.abandoned.fetch_add(1, Ordering::Relaxed);
                }
                self.note_failed(claimed.delivery, lease, status, error).await
            }
        }
    }

    async fn attempt(&self, Claimed { sink, delivery }: &Claimed) -> Result<Attempt, StoreError> {
        let Some(event) = self.event(delivery).await? else {
            return Ok(Attempt::Nothing("the event is not in the ledger any more"));
        };
        let Some(body) = message::body(&event) else {
            return Ok(Attempt::Nothing("the event can't be read"));
        };
        let place = RowSecret::Sink { zone: &sink.zone_id, sink: &sink.id };
        let secret = match self.sealed.open_of_row(place, &sink.secret) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(zone = %sink.zone_id, sink = %sink.id, %error, "a sink's secret does not open");
                return Ok(not_sent("the sink's secret does not open; rotate it"));
            }
        };
        let Ok(url) = TargetUrl::parse(&sink.url) else { return Ok(not_sent("the url is not usable")) };
        let Ok(headers) = message::headers(delivery, &secret, &body, self.store.now()) else {
            return Ok(not_sent("the event can't be named in a header"));
        };
        let request = SimpleRequest {
            method: Method::POST,
            url,
            headers,
            body: Bytes::from(body),
            deadline: PATIENCE,
            max_response_bytes: SHORT_ANSWER,
        };
        Ok(match self.outgoing.status(request).await {
            Ok(status) if status.is_success() => Attempt::Taken(status.as_u16()),
            Ok(status) => Attempt::NotTaken {
                status: Some(status.as_u16()),
                error: format!("sink responded {}", status.as_u16()),
            },
            Err(error) => not_sent(&error.to_string()),
        })
    }

    async fn event(&self, delivery: &Delivery) -> Result<Option<EvidenceRow>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let mut zone = snapshot.zone(&delivery.zone_id);
        let rows = evidence::list_chain(&mut zone, delivery.event_seq, 1).await?;
        Ok(rows.into_iter().find_map(|row| match row {
            ChainRow::Read(row) if row.id == delivery.event_id => Some(row),
            _ => None,
        }))
    }

    async fn note_delivered(
        &self,
        delivery: Delivery,
        lease: Timestamp,
        status: u16,
    ) -> Result<Option<Timestamp>, StoreError> {
        let noted = self.store.commit_upkeep((delivery, lease, i64::from(status)), |tx, (delivery, lease, status)| {
            Box::pin(async move {
                let now = tx.now();
                let mut zone = tx.zone_write(&delivery.zone_id);
                let held = notification_sinks::delivered(&mut zone, delivery, *lease, *status).await?;
                Ok(held.then_some(now))
            })
        });
        noted.await
    }

    async fn note_given_up(
        &self,
        delivery: Delivery,
        lease: Timestamp,
        why: &'static str,
    ) -> Result<Option<Timestamp>, StoreError> {
        let noted = self.store.commit_upkeep((delivery, lease), move |tx, (delivery, lease)| {
            Box::pin(async move {
                let now = tx.now();
                let mut zone = tx.zone_write(&delivery.zone_id);
                let held = notification_sinks::given_up(&mut zone, delivery, *lease, why).await?;
                Ok(held.then_some(now))
            })
        });
        noted.await
    }

    /// What failed is not tried again at once, nor is what comes after one that was given up: the receiver is away.
    async fn note_failed(
        &self,
        delivery: Delivery,
        lease: Timestamp,
        status: Option<u16>,
        error: String,
    ) -> Result<Option<Timestamp>, StoreError> {
        let number = delivery.attempts.saturating_add(1);
        let retry_at = (number < ATTEMPTS).then(|| self.store.now().plus(pause(number)));
        let failure = Failure { status: status.map(i64::from), error, retry_at };
        let noted: Result<bool, StoreError> = self
            .store
            .commit_upkeep((delivery, lease, failure), |tx, (delivery, lease, failure)| {
                Box::pin(async move {
                    let mut zone = tx.zone_write(&delivery.zone_id);
                    notification_sinks::failed(&mut zone, delivery, *lease, failure).await
                })
            })
            .await;
        noted.map(|_| None)
    }
}

fn not_sent(why: &str) -> Attempt {
    Attempt::NotTaken { status: None, error: why.chars().take(500).collect() }
}

/// How long is waited after failure `number`, from 1: doubled each time, and up to 30 % more, so that receivers that
/// failed together are not tried together.
fn pause(number: i64) -> Duration {
    let doublings = u32::try_from(number.saturating_sub(1)).unwrap_or(0).min(5);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let [random] = chance::random_bytes::<1>().unwrap_or([0]);
    pause + pause.mul_f64(0.3 * f64::from(random) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour_and_a_third_more_at_most() {
        for (number, least) in [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (7, 900), (70, 900)] {
            for _ in 0..20 {
                let waited = pause(number).as_secs_f64();
                assert!((f64::from(least)..=f64::from(least) * 1.3 + 0.001).contains(&waited), "{number}: {waited}");
            }
        }
    }
}
