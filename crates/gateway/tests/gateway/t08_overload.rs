//! More calls than the process can work on: turned away before they cost anybody anything (README D7, D11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_http::admission::{Admission, Class, Gate, Place};
use caracal_ledger::Ledger;
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::ChainRow;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{World, request, to};

/// A Gateway in whose process so much is under way, and for so long, that there is room for nothing more; until what is
/// returned is dropped.
pub(crate) fn overloaded(world: &World) -> Vec<Place> {
    let time = Arc::new(AtomicU64::new(0));
    let (clock, denials) = (time.clone(), world.denials.clone());
    let admission = Admission::new(1, move || Duration::from_millis(clock.load(Ordering::SeqCst)));
    let gate = Gate::new(admission, move || denials.count("gateway", "overloaded"));
    world.gateway.admit_with(gate.clone());
    let places = (0..200).map(|_| gate.ask(Class::Completes).unwrap()).collect();
    time.store(5_000, Ordering::SeqCst);
    places
}

#[tokio::test]
async fn a_call_that_is_one_too_many_costs_no_mandate_and_reaches_nobody() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({})).await;
    let call = request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n");
    let places = overloaded(&world);
    for _ in 0..3 {
        let answer = world.ask(&call).await;
        let text = "more is asked than can be done; nothing was used up, try again".to_owned();
        assert_eq!(answer.refusal(), (503, "sts_unavailable".to_owned(), text));
        assert_eq!((answer.get("retry-after"), answer.get("x-request-id")), (Some("1"), Some("r-1")));
    }
    assert_eq!((world.sts.times_asked(), upstream.received().len()), (0, 0));
    // Who asks how the Gateway is, is answered.
    for (path, status) in [("/health", 200), ("/ready", 200), ("/metrics", 200)] {
        assert_eq!(world.ask(&format!("GET {path} HTTP/1.1\r\nHost: g\r\n\r\n")).await.status(), status, "{path}");
    }
    for (key, expected) in [("requests_shed", 3), ("work_in_progress", 200), ("work_limit", 32), ("requests_denied", 3)]
    {
        assert_eq!(world.metric(key).await, expected, "{key}");
    }
    drop(places);
    assert_eq!(world.ask(&call).await.status(), 200);
    assert_eq!(world.metric("work_in_progress").await, 0);
    // One summary, and not a row for each.
    world.denials.summarise(&world.store, &Ledger::new(None)).await.unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 1, 10).await.unwrap();
    let [ChainRow::Read(summary)] = rows.as_slice() else { panic!("{rows:?}") };
    let payload: Value = serde_json::from_str(summary.payload.as_deref().unwrap()).unwrap();
    assert_eq!(payload, json!({"gateway": {"overloaded": 3}}));
    drop(snapshot);
    assert_eq!(world.events("r-1", 1).await.len(), 1);
}

#[tokio::test]
async fn a_call_that_waits_for_its_upstream_is_no_work_of_ours() {
    let reached = Arc::new(Notify::new());
    let tells = reached.clone();
    let upstream = Upstream::raw(move |mut stream| {
        let tells = tells.clone();
        async move {
            read_head(&mut stream).await;
            tells.notify_one();
            std::future::pending().await
        }
    });
    let url = upstream.await.url("");
    let world = World::scripted(move |_| Said::Go(to(url.clone()))).await;
    let gate = Gate::new(Admission::new(1, || Duration::ZERO), || ());
    world.gateway.admit_with(gate.clone());
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "").await).await;
    reached.notified().await;
    assert_eq!(world.metric("calls_open").await, 1);
    assert_eq!(gate.counts().in_progress, 0);
}
