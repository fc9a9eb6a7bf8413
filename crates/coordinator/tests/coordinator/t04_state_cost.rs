//! What a session costs while others live: as many statements beside a crowd as alone, on both engines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId};
use caracal_store::sessions::SessionRow;
use caracal_store::{Committed, StoreError, sessions};
use serde_json::json;

use crate::support::{House, OPERATOR, zone};

const CROWD: usize = 300;

/// Sessions of another application, in one change: half of them tasks, half of them services.
async fn crowd(house: &House) {
    let now = house.store.now();
    let row = |number: usize| SessionRow {
        zone_id: zone(),
        id: AgentSessionId::parse(&format!("crowd-{number}")).unwrap(),
        application_id: ApplicationId::parse("app-2").unwrap(),
        parent_id: None,
        subject_record_id: AuthorityRecordId::parse("rec-2").unwrap(),
        lifecycle: if number.is_multiple_of(2) { "task" } else { "service" }.to_owned(),
        labels: Vec::new(),
        metadata: serde_json::Map::new(),
        status: "active".to_owned(),
        depth: 0,
        ttl_seconds: number.is_multiple_of(2).then_some(3_600),
        started_at: now,
        last_active_at: now,
        last_heartbeat_at: (!number.is_multiple_of(2)).then_some(now),
        heartbeat_deadline_at: (!number.is_multiple_of(2)).then(|| now.plus(std::time::Duration::from_secs(120))),
        lease_generation: i64::from(!number.is_multiple_of(2)),
        terminated_at: None,
        termination_reason: None,
        updated_at: now,
    };
    let rows: Vec<SessionRow> = (0..CROWD).map(row).collect();
    let added: Result<(), StoreError> = house
        .store
        .commit(&zone(), rows, |tx, rows| {
            Box::pin(async move {
                for row in rows {
                    sessions::add(tx, row).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}

/// Statements of the changes and round trips of everything, of each of: a start, a heartbeat, a read, an end.
async fn cycle(house: &House, statements: &AtomicU64) -> Vec<(u64, u64)> {
    let token = house.mandate("app-1").await;
    let mut costs = Vec::new();
    let mut before = (statements.load(Ordering::Relaxed), house.store.round_trips());
    let mut spent = || {
        let now = (statements.load(Ordering::Relaxed), house.store.round_trips());
        costs.push((now.0 - before.0, now.1 - before.1));
        before = now;
    };
    let body = json!({"application_id": "app-1", "lifecycle": "service"});
    let id = house.start(&token, body).await.expect(201).text("agent_session_id");
    spent();
    let path = format!("/zones/z-1/agents/{id}");
    house.post(&format!("{path}/heartbeat"), &token, json!({"lease_generation": 1})).await.expect(200);
    spent();
    house.get(&path, &token).await.expect(200);
    spent();
    house.terminate(OPERATOR, &id).await.expect(204);
    spent();
    costs
}

#[tokio::test]
async fn a_session_costs_as_many_statements_beside_a_crowd_as_alone() {
    let house = House::open().await;
    let statements = Arc::new(AtomicU64::new(0));
    let counted = statements.clone();
    house.store.observe(Arc::new(move |committed: &Committed| {
        counted.fetch_add(committed.statements, Ordering::Relaxed);
    }));
    // Statements are known to a server once they were asked.
    cycle(&house, &statements).await;
    let alone = cycle(&house, &statements).await;
    crowd(&house).await;
    let beside_others = cycle(&house, &statements).await;
    assert_eq!(house.holding().await, i64::try_from(CROWD).unwrap());
    assert_eq!(beside_others, alone);
    // A heartbeat announces nothing, so that its statements are counted by their round trips alone; a read changes nothing.
    let [start, _, read, end] = alone[..] else { panic!("{alone:?}") };
    assert!(start.0 > 0 && read.0 == 0 && end.0 > 0, "{alone:?}");
    assert_eq!(alone.iter().all(|(_, trips)| *trips > 0), house.store.is_shared());
}
