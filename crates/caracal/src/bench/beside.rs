//! What stands in the store, and what it does to a call: nothing, if all is well. One system, more and more of one thing in
//! it, and the same calls measured each time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EventId, Timestamp, ZoneId};
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, MetadataKey};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{SqliteOptions, Store, StoreError, SystemClock};
use clap::ValueEnum;
use http::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::load::Measured;
use super::plot::Curve;
use super::progress::Progress;
use super::subject::Subject;
use super::{BenchFlags, plot, report};
use crate::actors::client::HttpClient;
use crate::actors::operator::{NOTES, Operator, Provisioned};
use crate::commands::Failure;

/// Rows of one commit.
const BATCH: u64 = 1_000;
/// How long the trees and the sweep may take over what was written past them.
const SETTLED_WITHIN: Duration = Duration::from_secs(3_600);
const GLANCE: Duration = Duration::from_millis(200);
/// How long sessions live.
const DAY: Duration = Duration::from_secs(86_400);

/// What there is more and more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Beside {
    /// Live sessions of the caller's zone and application, half of them tasks, half of them services.
    Sessions,
    /// Zones.
    Zones,
    /// Events in the ledger of the caller's zone, in its chain and its tree.
    Events,
    /// Grants in the policy that decides.
    Grants,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Zones => "zones",
            Self::Events => "events",
            Self::Grants => "grants",
        }
    }

    /// What a policy document or a patient person holds.
    fn most(self) -> u64 {
        match self {
            Self::Grants => 5_000,
            Self::Zones => 100_000,
            Self::Sessions | Self::Events => 100_000_000,
        }
    }

    /// Whether so many can be asked for.
    pub(super) fn check(self, numbers: &[u64]) -> Result<(), Failure> {
        if numbers.is_empty() || numbers.contains(&0) || !numbers.is_sorted_by(|one, next| one < next) {
            return Err(Failure("--numbers are above 0, and each is larger than the one before".to_owned()));
        }
        if numbers.iter().any(|number| *number > self.most()) {
            return Err(Failure(format!("--beside {} goes up to {}", self.name(), self.most())));
        }
        Ok(())
    }
}

/// One system with more and more of one thing in it.
pub(super) struct Crowd<'c> {
    beside: Beside,
    home: &'c Path,
    runtime: &'c Runtime,
    provisioned: &'c Provisioned,
    /// This process and the system write into the same chain.
    ledger_key: String,
    shows_progress: bool,
    /// How many there are.
    count: u64,
    /// One for each number so far.
    points: Vec<(u64, Measured)>,
}

impl<'c> Crowd<'c> {
    /// Nothing yet. The system is in `home`, and has the `ledger_key`.
    pub(super) fn new(
        beside: Beside,
        flags: &BenchFlags,
        home: &'c Path,
        runtime: &'c Runtime,
        provisioned: &'c Provisioned,
        ledger_key: String,
    ) -> Self {
        let shows_progress = !flags.json;
        Self { beside, home, runtime, provisioned, ledger_key, shows_progress, count: 0, points: Vec::new() }
    }

    /// What was measured beside so many as there are now.
    pub(super) fn note(&mut self, measured: Measured) {
        self.points.push((self.count, measured));
    }

    /// Lets it be `number` of them. Where that is written past the system, the system is another process afterwards.
    pub(super) fn grow(&mut self, number: u64, subject: Subject) -> Result<Subject, Failure> {
        let subject = match self.beside {
            Beside::Zones => {
                self.runtime.block_on(self.make_zones(number, &subject))?;
                subject
            }
            Beside::Grants => {
                let client = HttpClient::new();
                let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
                self.runtime.block_on(operator.decide_among(self.provisioned, number))?;
                subject
            }
            Beside::Sessions => self.write_aside(number, subject, Self::sessions)?,
            Beside::Events => {
                let subject = self.write_aside(number, subject, Self::events)?;
                self.runtime.block_on(self.settled(number, &subject))?;
                subject
            }
        };
        self.count = number;
        Ok(subject)
    }

    async fn make_zones(&self, number: u64, subject: &Subject) -> Result<(), Failure> {
        let client = HttpClient::new();
        let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
        let mut progress = Progress::new(self.shows_progress);
        for zone in self.count..number {
            let body = json!({"name": format!("Beside {zone}")});
            operator.call(Method::POST, "/v1/zones", Some(&body)).await?.expect_success("making a zone")?;
            progress.count("making zones", zone, number);
        }
        progress.end();
        Ok(())
    }

    /// Stops the system, writes into its store, and starts it again.
    fn write_aside(
        &self,
        number: u64,
        subject: Subject,
        rows: fn(&Self, std::ops::Range<u64>, Timestamp) -> Result<Rows, Failure>,
    ) -> Result<Subject, Failure> {
        drop(subject);
        let zone = ZoneId::parse(&self.provisioned.zone)?;
        let store = Store::open(&SqliteOptions::in_directory(self.home.join("data")), Arc::new(SystemClock))?;
        let ledger = Ledger::new(Some(Arc::new(HmacKey::from_hex(&self.ledger_key)?)));
        let mut progress = Progress::new(self.shows_progress);
        let mut next = self.count;
        while next < number {
            let end = (next + BATCH).min(number);
            let batch = (ledger.clone(), rows(self, next..end, store.now())?);
            let written: Result<(), StoreError> =
                self.runtime.block_on(store.commit(&zone, batch, |tx, (ledger, rows)| {
                    Box::pin(async move {
                        match rows {
                            Rows::Events(events) => ledger.record(tx, events).await,
                            Rows::Sessions(rows) => {
                                for row in rows {
                                    sessions::add(tx, row).await?;
                                }
                                Ok(())
                            }
                        }
                    })
                }));
            written?;
            progress.count("writing rows", end, number);
            next = end;
        }
        progress.end();
        self.runtime.block_on(store.close());
        // Its directory is locked as long as it is there.
        drop(store);
        Subject::embedded(self.home, Some(&self.ledger_key))
    }

    fn sessions(&self, numbers: std::ops::Range<u64>, now: Timestamp) -> Result<Rows, Failure> {
        let (zone_id, application_id) =
            (ZoneId::parse(&self.provisioned.zone)?, ApplicationId::parse(&self.provisioned.application)?);
        let subject_record_id = AuthorityRecordId::parse("beside")?;
        let row = |number: u64| -> Result<SessionRow, Failure> {
            let is_service = number.is_multiple_of(2);
            Ok(SessionRow {
                zone_id: zone_id.clone(),
                id: AgentSessionId::parse(&id(now, number, 1))?,
                application_id: application_id.clone(),
                parent_id: None,
                subject_record_id: subject_record_id.clone(),
                lifecycle: if is_service { "service" } else { "task" }.to_owned(),
                labels: Vec::new(),
                metadata: Map::new(),
                status: "active".to_owned(),
                depth: 0,
                ttl_seconds: (!is_service).then_some(DAY.as_secs().cast_signed()),
                started_at: now,
                last_active_at: now,
                last_heartbeat_at: is_service.then_some(now),
                heartbeat_deadline_at: is_service.then(|| now.plus(DAY)),
                lease_generation: i64::from(is_service),
                terminated_at: None,
                termination_reason: None,
                updated_at: now,
            })
        };
        Ok(Rows::Sessions(numbers.map(row).collect::<Result<_, _>>()?))
    }

    /// Of granted mandates, as the STS records them.
    fn events(&self, numbers: std::ops::Range<u64>, now: Timestamp) -> Result<Rows, Failure> {
        let zone = ZoneId::parse(&self.provisioned.zone)?;
        let event = |number: u64| -> Result<Evidence, Failure> {
            let event_id = EventId::parse(&id(now, number, 2))?;
            let kind = EventType::TokenExchange;
            Ok(Evidence::new(event_id, zone.clone(), kind, Decision::Allow, EvaluationStatus::Complete, now)
                .request(id(now, number, 3))
                .determined_by("grants")
                .because("allowed")
                .attribute(MetadataKey::ApplicationId, self.provisioned.application.as_str())
                .attribute(MetadataKey::Resource, NOTES))
        };
        Ok(Rows::Events(numbers.map(event).collect::<Result<_, _>>()?))
    }

    /// Waits until the tree has taken the events in and the sweep has gone over them. A system does both as events come,
    /// and would now do it for all of them while it is measured.
    async fn settled(&self, number: u64, subject: &Subject) -> Result<(), Failure> {
        let client = HttpClient::new();
        let operator = Operator::new(&client, &subject.urls.api, &subject.admin_token);
        let checkpoint = format!("/v1/zones/{}/ledger/checkpoint", self.provisioned.zone);
        let metrics = format!("{}/metrics.json", subject.urls.audit);
        let mut progress = Progress::new(self.shows_progress);
        let until = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < until {
            let tree = operator.call(Method::GET, &checkpoint, None).await?;
            let size = if tree.status.is_success() { tree_size(&tree.body) } else { 0 };
            let found = client.send(Method::GET, &metrics, &[], None).await?.json();
            let swept_at = found.get("tamper_last_full_unix").and_then(Value::as_i64);
            if size >= number && swept_at.is_some_and(|at| at > 0) {
                progress.end();
                return Ok(());
            }
            progress.count("waiting for the tree and the sweep", size, number);
            tokio::time::sleep(GLANCE).await;
        }
        Err(Failure("the ledger's tree and its sweep did not get over what was written".to_owned()))
    }

    /// How many calls were not answered as they should be.
    pub(super) fn is_clean(&self) -> bool {
        self.points
            .iter()
            .all(|(_, measured)| measured.tally.errors + measured.tally.sheds + measured.tally.unsent == 0)
    }

    /// One line: what [`Report::json`] says, for each number.
    pub(super) fn json(&self, report: impl Fn(&Measured) -> Value) -> Value {
        let point = |(number, measured): &(u64, Measured)| {
            let mut said = report(measured);
            said["number"] = Value::from(*number);
            said
        };
        json!({"beside": self.beside.name(), "points": self.points.iter().map(point).collect::<Vec<_>>()})
    }

    /// A table.
    pub(super) fn text(&self, title: &str) -> String {
        let mut text = format!("{title}, beside more and more {}\n\n", self.beside.name());
        let head = [self.beside.name(), "a second", "p50 ms", "p99 ms", "server µs", "bytes", "MiB", "errors"];
        text.push_str(&head.iter().fold(String::new(), |line, name| format!("{line}{name:>12}")));
        for (number, measured) in &self.points {
            let tally = &measured.tally;
            let [p50, p99] = [0.5, 0.99].map(|quantile| report::quantile_ms(&tally.whole, quantile));
            let per_call = |count: Option<f64>| count.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}"));
            let server = report::us_per_call(measured, measured.server_time);
            let bytes = measured.bytes_written.map(|bytes| report::ratio(bytes, tally.calls));
            text.push_str(&format!(
                "\n{number:>12}{:>12.0}{p50:>12.2}{p99:>12.2}{:>12}{:>12}{:>12}{:>12}",
                measured.per_second(),
                per_call(server),
                per_call(bytes),
                per_call(measured.resident_mib),
                tally.errors
            ));
        }
        if let Some(why) = self.points.iter().find_map(|(_, measured)| measured.tally.first_error.as_deref()) {
            text.push_str(&format!("\n\nThe first call that was not answered as it should be: {why}"));
        }
        text
    }

    /// The latencies as curves.
    pub(super) fn svg(&self, title: &str) -> String {
        let at = |quantile: f64| {
            let point =
                |(number, measured): &(u64, Measured)| (*number, measured.tally.whole.0.value_at_quantile(quantile));
            self.points.iter().map(point).collect()
        };
        let curves = [Curve { name: "median", points: at(0.5) }, Curve { name: "99th percentile", points: at(0.99) }];
        plot::curves(&format!("{title}, beside {}", self.beside.name()), self.beside.name(), &curves)
    }
}

enum Rows {
    Sessions(Vec<SessionRow>),
    Events(Vec<Evidence>),
}

/// The second line of a checkpoint (C2SP tlog-checkpoint).
fn tree_size(checkpoint: &[u8]) -> u64 {
    let checkpoint = String::from_utf8_lossy(checkpoint);
    checkpoint.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or_default()
}

/// As services make them: the time, then what is as good as random, so that indices grow as theirs do.
pub(super) fn id(now: Timestamp, number: u64, kind: u64) -> String {
    let millis = (now.as_micros() / 1_000).unsigned_abs();
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

/// SplitMix64: the same on every run, and without a pattern that an index could profit from.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_and_end_where_a_policy_does() {
        let said =
            |beside: Beside, numbers: &[u64]| beside.check(numbers).err().map(|Failure(why)| why).unwrap_or_default();
        assert_eq!(said(Beside::Sessions, &[1_000, 1_000_000]), "");
        assert_eq!(said(Beside::Grants, &[10, 5_000]), "");
        assert!(said(Beside::Grants, &[5_001]).contains("up to 5000"));
        for numbers in [&[][..], &[0], &[2, 1], &[2, 2]] {
            assert!(said(Beside::Zones, numbers).contains("larger than the one before"), "{numbers:?}");
        }
    }

    #[test]
    fn the_size_of_a_tree_is_the_second_line_of_its_checkpoint() {
        assert_eq!(tree_size("caracal/zone\n12000\nhash=\n\n— name sig\n".as_bytes()), 12_000);
        assert_eq!(tree_size(b"nothing"), 0);
    }
}
