//! Evidence that is old enough goes, and nothing else does (contract: audit-and-streams.md §5.5, §13).

use caracal_audit::AuditConfig;
use caracal_ledger::Evidence;
use caracal_store::{StoreError, retention};
use tokio::sync::watch;

use crate::world::{World, configured, event, until};

const DAY: i64 = 86_400;

impl World {
    /// Three events, a day apart.
    async fn aging(days: u32) -> Self {
        let world = Self::with(AuditConfig { retention_days: days, ..configured() }).await;
        for day in 0..3_i64 {
            world.record(vec![on_day("z-1", day)]).await;
            world.record(vec![on_day("z-2", day)]).await;
            world.clock.advance(DAY);
        }
        world
    }

    async fn set_days(&self, days: u32) {
        let set: Result<_, StoreError> =
            self.store.commit_deployment(days, |tx, days| Box::pin(retention::set(tx, *days, "admin:t-1"))).await;
        set.unwrap();
    }

    async fn left(&self, zone: &str) -> Vec<i64> {
        let found =
            self.search(&format!("zone_id={zone}&since=2020-01-01T00:00:00Z&until=2050-01-01T00:00:00Z")).await.is(200);
        let rows = found["events"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["ChainSeq"].as_i64().unwrap()).collect()
    }

    /// A sweep and what follows it.
    pub(crate) async fn sweep_and_retire(&self, removed: i64) {
        let (stop, stopped) = watch::channel(false);
        let sweeping = tokio::spawn(self.audit.clone().run_sweep(stopped));
        until("removed", async || self.metrics().await["retention_dropped_total"] == removed).await;
        stop.send_replace(true);
        sweeping.await.unwrap();
    }
}

fn on_day(zone: &str, day: i64) -> Evidence {
    event(zone, &format!("e-{day}"), day * 86_400_000_000)
}

mod t06_evidence_retention {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_older_than_the_ceiling_goes_behind_an_anchor_and_the_rest_verifies() {
        let world = World::aging(2).await;
        world.sweep_and_retire(2).await;
        assert_eq!((world.left("z-1").await, world.left("z-2").await), (vec![2, 3], vec![2, 3]));
        assert_eq!(world.metrics().await["retention_created_total"], 2, "an anchor for each chain");
        world.sweep().await;
        world.ask("GET", "/ready", None).await.is(200);
        world.clock.advance(1_000 * DAY);
        world.sweep_and_retire(4).await;
        assert_eq!(world.left("z-1").await, [3], "the newest of a chain always stays");
        world.record(vec![on_day("z-1", 2_000)]).await;
        assert_eq!(world.left("z-1").await, [3, 4]);
        world.clock.advance(1_000 * DAY);
        world.sweep().await;
        world.ask("GET", "/ready", None).await.is(200);
        assert_eq!(world.left("z-1").await, [4], "until there is a newer one");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn operators_can_only_shorten_it() {
        let world = World::aging(365).await;
        world.set_days(1).await;
        world.sweep_and_retire(4).await;
        assert_eq!(world.left("z-1").await, [3]);

        let world = World::aging(2).await;
        world.set_days(90).await;
        world.sweep_and_retire(2).await;
        assert_eq!(world.left("z-1").await, [2, 3], "the ceiling counts");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_they_set_and_can_t_be_read_leaves_the_ceiling() {
        let world = World::aging(2).await;
        let set: Result<(), StoreError> = world
            .store
            .commit_deployment((), |tx, ()| {
                Box::pin(async move { caracal_store::deployment::put(tx, "audit_retention", "{").await })
            })
            .await;
        set.unwrap();
        world.sweep_and_retire(2).await;
        assert_eq!(world.left("z-1").await, [2, 3]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_goes_that_is_in_no_tree_where_trees_are_kept() {
        let world = World::with(AuditConfig { retention_days: 1, keeps_trees: true, ..configured() }).await;
        world.record(vec![on_day("z-1", 0)]).await;
        world.record(vec![on_day("z-1", 1)]).await;
        world.clock.advance(30 * DAY);
        world.sweep().await;
        assert_eq!(world.left("z-1").await, [1, 2]);
    }

    /// One that was taken when nobody asked whether it can have happened.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_that_says_a_later_time_keeps_none_that_follow() {
        let world = World::with(AuditConfig { retention_days: 2, ..configured() }).await;
        world.record(vec![on_day("z-1", 0)]).await;
        world.record(vec![on_day("z-1", 1_000_000)]).await;
        for day in 0..4_i64 {
            world.record(vec![event("z-1", &format!("later-{day}"), day * 86_400_000_000 + 1)]).await;
            world.clock.advance(DAY);
        }
        world.sweep_and_retire(4).await;
        assert_eq!(world.left("z-1").await, [5, 6]);
        world.sweep().await;
        world.ask("GET", "/ready", None).await.is(200);
    }

    /// Removing the beginning would make what is wrong with it genuine.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_goes_while_anything_is_wrong() {
        let world = World::aging(2).await;
        world.tamper("UPDATE audit_events SET decision = 'deny' WHERE zone_id = 'z-2' AND chain_seq = 1");
        world.sweep().await;
        world.clock.advance(30 * DAY);
        world.sweep().await;
        assert_eq!(
            (world.left("z-1").await.len(), world.metrics().await["retention_dropped_total"].as_i64()),
            (3, Some(0))
        );
    }
}
