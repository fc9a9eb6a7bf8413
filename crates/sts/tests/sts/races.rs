//! What happens between the snapshot a decision is made on and its commit (README D4, D35).
//!
//! Two kinds of tests. In the first the writer is held inside a change that is made but not committed while a mint
//! decides on the state before it: the worst moment, every time. In the second everything runs freely, many times over,
//! and the order is read off the zone's chain afterwards: a change reads the head of the chain in its own transaction,
//! so whatever was committed after it has a greater position.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use caracal_authority::session::SessionStatus;
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, PolicySetId, PolicySetVersionId};
use caracal_store::{StoreError, ZoneWrite, applications, delegations, evidence, policy_sets, records, sessions};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::*;

/// A change that takes authority away.
#[derive(Clone)]
enum Change {
    RevokeRecord(AuthorityRecordId),
    RevokeEdge(EdgeId),
    EndSession(AgentSessionId),
    Activate(PolicySetId, PolicySetVersionId),
    Deactivate(PolicySetId),
    RotateSecret(ApplicationId),
}

impl Change {
    /// Makes it, and says where the zone's chain ended at that moment.
    async fn make(&self, tx: &mut ZoneWrite<'_>) -> Result<i64, StoreError> {
        match self {
            Self::RevokeRecord(id) => drop(records::revoke_with_descendants(tx, id, "test").await?),
            Self::RevokeEdge(id) => drop(delegations::revoke(tx, id).await?),
            Self::EndSession(id) => drop(sessions::end(tx, id, SessionStatus::Terminated, "test").await?),
            Self::Activate(set, version) => policy_sets::activate(tx, set, version).await?,
            Self::Deactivate(set) => drop(policy_sets::deactivate(tx, set).await?),
            Self::RotateSecret(id) => {
                if let Some(mut row) = applications::lookup(tx, id).await? {
                    row.secret_hash = Some("argon2id$of$another".to_owned());
                    applications::update(tx, &row).await?;
                }
            }
        }
        Ok(evidence::head(tx).await?.map_or(0, |head| head.chain_seq))
    }
}

fn revoke_edge(id: &str) -> Change {
    Change::RevokeEdge(EdgeId::parse(id).unwrap())
}

fn revoke_record(id: &str) -> Change {
    Change::RevokeRecord(AuthorityRecordId::parse(id).unwrap())
}

fn set_of(version: &PolicySetVersionId) -> PolicySetId {
    PolicySetId::parse(&version.as_str().replacen("psv-", "ps-", 1)).unwrap()
}

/// A change that has been made and waits to be committed.
struct Held {
    release: mpsc::Sender<()>,
    committed: JoinHandle<Result<i64, StoreError>>,
}

impl Held {
    async fn back(world: &World, change: Change) -> Self {
        let (release, released) = mpsc::channel();
        let (made, is_made) = mpsc::channel();
        let store = world.store.clone();
        let committed = tokio::spawn(async move {
            store
                .commit(&zone(), (change, Mutex::new((made, released))), |tx, (change, gate)| {
                    Box::pin(async move {
                        let head = change.make(tx).await?;
                        let gate = gate.lock().unwrap();
                        gate.0.send(()).unwrap();
                        tokio::task::block_in_place(|| gate.1.recv().unwrap());
                        Ok(head)
                    })
                })
                .await
        });
        tokio::task::spawn_blocking(move || is_made.recv().unwrap()).await.unwrap();
        Self { release, committed }
    }

    /// Commits it, and whatever had been submitted behind it.
    async fn let_go(self, world: &World) -> i64 {
        self.release.send(()).unwrap();
        let head = self.committed.await.unwrap().unwrap();
        world.change((), |_, ()| Box::pin(async { Ok(()) })).await;
        head
    }
}

/// Runs `asked` until its commit waits behind the held change.
async fn decide<F: Future>(world: &World, mut asked: Pin<&mut F>) {
    while world.store.waiting() == 0 {
        assert!(waits(asked.as_mut()).await, "answered without a commit");
        tokio::task::yield_now().await;
    }
}

async fn redecided(world: &World) -> u64 {
    let request = http::Request::get("/metrics.json")
        .header(http::header::AUTHORIZATION, format!("Bearer {METRICS_BEARER}"))
        .body(axum::body::Body::empty())
        .unwrap();
    world.send(request).await.json["sts"]["exchanges_redecided"].as_u64().unwrap()
}

mod t02_sts_overtaken {
    use super::*;

    /// What can be taken from a mint, in a world of its own.
    async fn change_of(world: &World, what: &str) -> Change {
        match what {
            "its edge" => revoke_edge("e-1"),
            "its session" => Change::EndSession("s-1".parse().unwrap()),
            "the lending session" => Change::EndSession("s-root".parse().unwrap()),
            "the asserted record" => revoke_record("rec-app"),
            "its role" => {
                let stricter = world.activate(&POLICY.replace("reader", "nobody")).await;
                world.activate(POLICY).await;
                Change::Activate(set_of(&stricter), stricter)
            }
            "all policy" => Change::Deactivate(set_of(&world.activate(POLICY).await)),
            "its secret" => Change::RotateSecret(APP.parse().unwrap()),
            _ => panic!("{what}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_mint_that_a_revocation_overtakes_is_decided_anew_and_refused() {
        for (what, expected) in [
            ("its edge", "403 access_denied"),
            ("its session", "403 access_denied"),
            ("the lending session", "403 access_denied"),
            ("the asserted record", "403 access_denied"),
            ("its role", "403 access_denied"),
            ("all policy", "403 access_denied"),
            ("its secret", "401 access_denied"),
        ] {
            let world = World::new().await;
            let change = change_of(&world, what).await;
            // The secret is remembered and the key made, so that a mint waits for nothing but its commit.
            assert_eq!(Ask::mint().send(&world).await.status, 200);
            let records = world.record_ids().len();
            let held = Held::back(&world, change).await;
            let ask = Ask::mint().set("session_id", "rec-app");
            let mut asked = std::pin::pin!(ask.send(&world));
            decide(&world, asked.as_mut()).await;
            let head = held.let_go(&world).await;
            assert_eq!(asked.await.outcome(), expected, "{what}");
            assert_eq!(redecided(&world).await, 1, "{what}");
            assert_eq!(world.record_ids().len(), records, "{what}");
            let events = world.evidence().await;
            assert!(events.iter().filter(|event| event.row.chain_seq > head).all(|event| event.row.decision == "deny"));
            assert_eq!(events.last().unwrap().row.decision, "deny", "{what}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_exchange_that_is_overtaken_is_refused_and_its_mandate_used_up() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let presented = claims_of(&mandate)["sid"].as_str().unwrap().to_owned();
        let held = Held::back(&world, revoke_record(&presented)).await;
        let mut asked = std::pin::pin!(world.sts.exchange_for_gateway(gateway_call(&mandate)));
        decide(&world, asked.as_mut()).await;
        held.let_go(&world).await;
        assert_eq!(asked.await.err().unwrap().status().as_u16(), 403);
        let again = world.sts.exchange_for_gateway(gateway_call(&mandate)).await.err().unwrap();
        assert_eq!(again.to_string(), "token replay detected");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_takes_nothing_from_this_mint_only_makes_it_look_again() {
        let world = World::new().await;
        world.add_edge("e-2", |_| {}).await;
        let version = world.activate(POLICY).await;
        assert_eq!(Ask::mint().send(&world).await.status, 200);
        for change in [revoke_edge("e-2"), Change::Activate(set_of(&version), version.clone())] {
            let held = Held::back(&world, change).await;
            let ask = Ask::mint();
            let mut asked = std::pin::pin!(ask.send(&world));
            decide(&world, asked.as_mut()).await;
            held.let_go(&world).await;
            assert_eq!(asked.await.status, 200);
        }
        assert_eq!(redecided(&world).await, 2);
        assert!(world.evidence().await.iter().all(|event| event.outcome() == "allow complete"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn looking_again_neither_counts_a_mint_twice_nor_lifts_its_limit() {
        let world = World::configured(|config| config.mint_rate_limit_per_min = 2).await;
        world.add_resource("r-more", "resource://more", |_| {}).await;
        world.add_edge("e-2", |_| {}).await;
        let grants = "\"resource://more\": {\"application\": \"docs\", \"roles\": {}},\n  \"resource://docs\"";
        world.activate(&POLICY.replace("\"resource://docs\"", grants)).await;
        // The docs are used up, of the others one is left.
        for _ in 0..2 {
            assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        }
        let more = Ask::bootstrap().set("resource", "resource://more");
        assert_eq!(more.send(&world).await.status, 200);
        let held = Held::back(&world, revoke_edge("e-2")).await;
        let ask = more.clone().add("resource", DOCS);
        let mut asked = std::pin::pin!(ask.send(&world));
        decide(&world, asked.as_mut()).await;
        held.let_go(&world).await;
        assert_eq!(asked.await.json["target_resources"], json!(["resource://more"]));
        assert_eq!(redecided(&world).await, 1);
        assert_eq!(more.send(&world).await.outcome(), "429 provider_rate_limited");
    }
}

mod t08_availability_overtaken {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_that_never_holds_still_is_told_to_come_back_and_nothing_is_used_up() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        for number in 0..16 {
            world.add_edge(&format!("e-other-{number}"), |_| {}).await;
        }
        let mut asked = std::pin::pin!(world.sts.exchange_for_gateway(gateway_call(&mandate)));
        for number in 0..16 {
            let held = Held::back(&world, revoke_edge(&format!("e-other-{number}"))).await;
            decide(&world, asked.as_mut()).await;
            held.let_go(&world).await;
        }
        let busy = asked.await.err().unwrap();
        assert_eq!((busy.status().as_u16(), busy.code()), (503, "sts_unavailable"));
        assert!(world.sts.exchange_for_gateway(gateway_call(&mandate)).await.is_ok());
    }
}

mod t02_sts_races {
    use super::*;

    const MINTERS: usize = 4;

    #[tokio::test(flavor = "multi_thread")]
    async fn of_fifty_exchanges_of_one_mandate_one_is_granted() {
        let world = Arc::new(World::in_real_time().await);
        let mandate = world.mandate().await;
        let exchanges = (0..50).map(|number| {
            let (world, mandate) = (world.clone(), mandate.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    let answer = Signed::exchange(&world, &mandate).send(&world).await;
                    (answer.status, answer.text("error_description").to_owned())
                } else {
                    match world.sts.exchange_for_gateway(gateway_call(&mandate)).await {
                        Ok(_) => (200, String::new()),
                        Err(error) => (error.status().as_u16(), error.to_string()),
                    }
                }
            })
        });
        let mut found = Vec::new();
        for exchange in exchanges.collect::<Vec<_>>() {
            found.push(exchange.await.unwrap());
        }
        found.sort();
        assert_eq!(found.remove(0), (200, String::new()));
        assert_eq!(found, vec![(401, "token replay detected".to_owned()); 49]);
        // One for the mint, one for the exchange; what came back is the Gateway's to record.
        let events = world.evidence().await;
        assert_eq!(events.iter().map(Event::outcome).collect::<Vec<_>>(), ["allow complete"; 2]);
        assert_eq!(world.record_ids().len(), 3);
    }

    /// Minters ask again and again until they are refused; meanwhile, once enough were granted, `change` is made. Says
    /// where the chain ended when it was, and how many had been granted in all.
    async fn race(world: &Arc<World>, ask: &Ask, enough: usize, change: Change) -> (i64, usize) {
        let granted = Arc::new(AtomicUsize::new(0));
        let minters = (0..MINTERS).map(|_| {
            let (world, ask, granted) = (world.clone(), ask.clone(), granted.clone());
            tokio::spawn(async move {
                loop {
                    let answer = ask.send(&world).await;
                    if answer.status != 200 {
                        return answer.outcome();
                    }
                    granted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let minters: Vec<_> = minters.collect();
        while granted.load(Ordering::SeqCst) < enough && !minters.iter().all(JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        let head = world.change(change, |tx, change| Box::pin(change.make(tx))).await;
        for minter in minters {
            assert_eq!(minter.await.unwrap(), "403 access_denied");
        }
        (head, granted.load(Ordering::SeqCst))
    }

    fn allowed_after(events: &[Event], head: i64) -> usize {
        events.iter().filter(|event| event.row.chain_seq > head && event.row.decision == "allow").count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_an_edge_or_a_session_has_fallen_no_mint_through_it_is_committed() {
        let world = Arc::new(World::in_real_time().await);
        let mut before = 0;
        for round in 0..40 {
            let (session, edge) = (format!("s-{round}x"), format!("e-{round}x"));
            world.add_session(&session, |_| {}).await;
            world.add_edge(&edge, |row| row.target_session_id = session.parse().unwrap()).await;
            let ask = Ask::mint().set("agent_session_id", &session).set("delegation_edge_id", &edge);
            let change = if round % 2 == 0 { revoke_edge(&edge) } else { Change::EndSession(session.parse().unwrap()) };
            let (head, granted) = race(&world, &ask, 1 + round % 7, change).await;
            let events = world.evidence().await;
            assert_eq!(allowed_after(&events, head), 0, "round {round}");
            let of_edge =
                events.iter().filter(|event| event.row.decision == "allow" && event.text("delegation_edge_id") == edge);
            assert_eq!(of_edge.count(), granted, "round {round}");
            before += granted;
        }
        assert_eq!(world.record_ids().len(), before + 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revocation_either_takes_a_record_along_or_is_seen_by_its_mint() {
        let world = Arc::new(World::in_real_time().await);
        for round in 0..40 {
            let record = format!("rec-{round}");
            world.add_record(&record, |_| {}).await;
            let ask = Ask::bootstrap().set("session_id", &record);
            let (head, granted) = race(&world, &ask, 1 + round % 7, revoke_record(&record)).await;
            let events = world.evidence().await;
            assert_eq!(allowed_after(&events, head), 0, "round {round}");
            let children =
                events.iter().filter(|event| event.row.decision == "allow" && event.text("session_id") == record);
            let children: BTreeSet<String> =
                children.map(|event| event.text("authority_record_id").to_owned()).collect();
            assert_eq!(children.len(), granted, "round {round}");
            for child in children {
                assert_eq!(world.record(&child).await.unwrap().status, "revoked", "round {round}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_an_activation_on_every_decision_is_the_new_version_s() {
        let world = Arc::new(World::in_real_time().await);
        let versions =
            [world.activate(&format!("{POLICY}\n# a")).await, world.activate(&format!("{POLICY}\n# b")).await];
        let (minting, granted) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let minters = (0..MINTERS).map(|_| {
            let (world, minting, granted) = (world.clone(), minting.clone(), granted.clone());
            tokio::spawn(async move {
                while minting.load(Ordering::SeqCst) {
                    let answer = Ask::mint().send(&world).await;
                    assert_eq!(answer.status, 200, "{}", answer.outcome());
                    granted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let minters: Vec<_> = minters.collect();
        // Where the chain was when a version came into force.
        let mut in_force = vec![(0, versions[1].clone())];
        for round in 0..60 {
            let version = versions[round % 2].clone();
            let change = Change::Activate(set_of(&version), version.clone());
            let head = world.change(change, |tx, change| Box::pin(change.make(tx))).await;
            in_force.push((head, version));
            // Not so fast that some mint is overtaken until it gives up.
            let until = granted.load(Ordering::SeqCst) + round % 3;
            while granted.load(Ordering::SeqCst) < until && !minters.iter().any(JoinHandle::is_finished) {
                tokio::task::yield_now().await;
            }
        }
        minting.store(false, Ordering::SeqCst);
        for minter in minters {
            minter.await.unwrap();
        }
        let events = world.evidence().await;
        assert!(events.len() > MINTERS);
        for event in events {
            let (_, version) = in_force.iter().rev().find(|(head, _)| *head < event.row.chain_seq).unwrap();
            assert_eq!(event.row.policy_set_version_id, version.as_str(), "seq {}", event.row.chain_seq);
        }
    }
}
