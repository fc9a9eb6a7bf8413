//! A range of a chain in a file of the archive's form, when somebody asks for it.

use caracal_audit::{AuditConfig, EventsFile, OnDemandError, Positions, Written, write_events};
use caracal_authority::ZoneId;
use caracal_crypto::hmac::chain_link;
use caracal_ledger::Evidence;
use caracal_store::evidence::{self, EvidenceRow};
use serde_json::Value;

use crate::parquet;
use crate::world::{World, configured, event};

const DAY: i64 = 86_400;

impl World {
    /// Five events of one zone, a day apart, between those of another.
    async fn of_two_zones(config: AuditConfig) -> Self {
        let world = Self::with(config).await;
        for day in 0..5_i64 {
            for zone in ["z-1", "z-2"] {
                world.record(vec![on_day(zone, day)]).await;
            }
            world.clock.advance(DAY);
        }
        world
    }

    async fn written(
        &self,
        zone: &str,
        from: Option<i64>,
        to: Option<i64>,
    ) -> Result<(Written, Vec<u8>), OnDemandError> {
        let (zone, mut file) = (ZoneId::parse(zone).unwrap(), Vec::new());
        let mut snapshot = self.store.snapshot().await?;
        let asked = Positions { from, to };
        let written = write_events(&mut snapshot.deployment(), &zone, asked, &mut file, |_, _| {}).await?;
        Ok((written, file))
    }

    /// Which positions a file has, as another reader sees them.
    async fn positions(&self, from: Option<i64>, to: Option<i64>) -> Vec<i64> {
        let (written, file) = self.written("z-1", from, to).await.unwrap();
        assert_eq!(written.bytes, file.len() as u64);
        let rows = parquet::rows(&file);
        assert!(rows.iter().all(|row| row["zone_id"] == "z-1"), "{rows:?}");
        let positions: Vec<i64> = rows.iter().map(|row| row["chain_seq"].as_i64().unwrap()).collect();
        assert_eq!((positions.first(), positions.last()), (Some(&written.first), Some(&written.last)));
        assert_eq!(positions.len() as u64, written.rows);
        positions
    }

    async fn refused(&self, zone: &str, from: Option<i64>, to: Option<i64>) -> String {
        self.written(zone, from, to).await.unwrap_err().to_string()
    }
}

fn on_day(zone: &str, day: i64) -> Evidence {
    event(zone, &format!("e-{day}"), day * DAY * 1_000_000)
}

mod t06_evidence_export {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_range_has_every_position_of_its_zone_and_no_other_event() {
        let world = World::of_two_zones(configured()).await;
        assert_eq!(world.positions(None, None).await, [1, 2, 3, 4, 5]);
        assert_eq!(world.positions(Some(2), Some(4)).await, [2, 3, 4]);
        assert_eq!(world.positions(Some(5), Some(5)).await, [5]);
        assert_eq!(world.positions(Some(4), Some(1_000)).await, [4, 5], "through the end of the chain");
        let (written, _) = world.written("z-1", Some(4), None).await.unwrap();
        assert_eq!((written.head, written.removed_through), (5, None));
    }

    /// Every column of the archive, and hashes with which the chain can be followed in the file alone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_rows_are_those_of_the_ledger_and_link_to_each_other() {
        let world = World::of_two_zones(configured()).await;
        let (_, file) = world.written("z-1", None, None).await.unwrap();
        let rows = parquet::rows(&file);
        let mut snapshot = world.store.snapshot().await.unwrap();
        let zone = ZoneId::parse("z-1").unwrap();
        let stored = evidence::list_between(&mut snapshot.zone(&zone), 0, 5, 10).await.unwrap();
        let key = crate::world::frame_key();
        let mut before: Option<String> = None;
        for (row, stored) in rows.iter().zip(&stored) {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            assert_eq!((text("event_id"), text("content_sha256")), (stored.id.clone(), stored.content_sha256.clone()));
            let seal = chain_link(&key, &text("content_sha256"), before.as_deref());
            assert_eq!(text("chain_hmac"), seal, "{row}");
            before = Some(text("content_sha256"));
        }
        assert_eq!((rows.len(), stored.len()), (5, 5));
        assert_eq!(rows[0].as_object().map(|row| row.len()), Some(22));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_removed_for_its_age_is_not_there_and_said() {
        let world = World::of_two_zones(AuditConfig { retention_days: 3, ..configured() }).await;
        world.sweep_and_retire(4).await;
        assert_eq!(world.positions(None, None).await, [3, 4, 5]);
        assert_eq!(world.positions(Some(1), Some(3)).await, [3]);
        let (written, _) = world.written("z-1", None, None).await.unwrap();
        assert_eq!(written.removed_through, Some(2));
        let said = world.refused("z-1", None, Some(2)).await;
        assert_eq!(said, "the range ends at position 2, and what lies up to 2 was removed for its age");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hole_is_an_error_and_never_a_shorter_file() {
        for gone in [1, 3, 5] {
            let world = World::of_two_zones(configured()).await;
            world.tamper(&format!("DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq = {gone}"));
            let said = world.refused("z-1", None, None).await;
            assert!(said.starts_with(&format!("the event at position {gone} is missing")), "{said}");
            if gone == 3 {
                assert_eq!(world.positions(None, Some(2)).await, [1, 2]);
                assert_eq!(world.positions(Some(4), None).await, [4, 5]);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_range_that_has_nothing_says_why() {
        let world = World::of_two_zones(configured()).await;
        assert_eq!(world.refused("z-9", None, None).await, "there is no zone `z-9`");
        let said = world.refused("z-1", Some(4), Some(3)).await;
        assert_eq!(said, "the range ends at position 3, before it begins at 4");
        let said = world.refused("z-1", Some(6), None).await;
        assert_eq!(said, "the range begins at position 6, and the chain ends at 5");
    }

    /// What lets a chain of any length be written with the memory of one row group.
    #[test]
    fn a_file_that_is_taken_in_pieces_is_the_same_file() {
        let row = |chain_seq: i64| EvidenceRow {
            zone_id: "z-1".to_owned(),
            chain_seq,
            id: format!("e-{chain_seq}"),
            event_type: "token_exchange".to_owned(),
            request_id: "req".to_owned(),
            decision: "allow".to_owned(),
            policy_set_id: String::new(),
            policy_set_version_id: String::new(),
            manifest_sha: String::new(),
            evaluation_status: "complete".to_owned(),
            determining_policies: "[]".to_owned(),
            diagnostics: "[]".to_owned(),
            metadata: format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20)),
            occurred_at: chain_seq,
            ingested_at: chain_seq,
            content_sha256: format!("{chain_seq:064x}"),
            prev_content_sha256: None,
            chain_hmac: String::new(),
            key_id: None,
        };
        let (mut whole, mut pieces, mut taken, mut largest) = (EventsFile::new(), EventsFile::new(), Vec::new(), 0);
        for chain_seq in 1..=30 {
            whole.add(&row(chain_seq));
            pieces.add(&row(chain_seq));
            let piece = pieces.take();
            largest = largest.max(piece.len());
            taken.extend(piece);
        }
        assert_eq!(whole.size(), pieces.size());
        let (identity, rest) = (whole.finish(), pieces.finish());
        taken.extend(&rest.0);
        assert_eq!((&taken, identity.1), (&identity.0, rest.1));
        assert!(rest.0.len() < taken.len() / 3 && largest < 10 << 20, "{} {largest} of {}", rest.0.len(), taken.len());
        let seqs: Vec<Value> = parquet::rows(&taken).iter().map(|row| row["chain_seq"].clone()).collect();
        assert_eq!(seqs, (1..=30).map(Value::from).collect::<Vec<_>>());
    }
}
