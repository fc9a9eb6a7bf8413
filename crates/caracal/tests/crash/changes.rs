//! Management changes that are cut off by SIGKILL: after the next start each is there together with its record, or neither is,
//! and whoever was told that it happened finds both. Read by an outsider: lists, records and the offline verifier. On both engines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cascades::Place;
use crate::support::cluster::Through;
use crate::support::{Addressed, Http};

const WRITERS: usize = 6;
/// Who was told of so many changes sees the process die; from the first moments to the middle of a full load.
const MOMENTS: [usize; 4] = [5, 23, 60, 111];

/// One that makes a provider, renames it, and makes the next.
struct Writer {
    http: Arc<Http>,
    url: String,
    token: String,
    /// The last number that the answer to a change of each provider told.
    told: Arc<Mutex<BTreeMap<String, u64>>>,
    dead: Arc<AtomicBool>,
}

impl Writer {
    async fn change(&self, method: Method, url: &str, number: u64) -> Option<Value> {
        let mut body = json!({"name": format!("after {number}")});
        if method == Method::POST {
            body["kind"] = json!("none");
        }
        let answer = self.http.json(method, url, &self.token, Some(body)).await?;
        assert!(answer.status.is_success(), "{}", answer.json());
        let made = answer.json();
        self.told.lock().unwrap().insert(made["id"].as_str().unwrap().to_owned(), number);
        Some(made)
    }

    /// Until the process is dead.
    async fn work(self) {
        while !self.dead.load(Ordering::Relaxed) {
            let Some(made) = self.change(Method::POST, &self.url, 1).await else { continue };
            let one = format!("{}/{}", self.url, made["id"].as_str().unwrap());
            for number in 2..5 {
                if self.change(Method::PATCH, &one, number).await.is_none() {
                    break;
                }
            }
        }
    }
}

/// All items of a list.
async fn all(http: &Http, url: &str, token: &str) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.json(Method::GET, &format!("{url}&limit=500{after}"), token, None).await.unwrap();
        assert_eq!(page.status, StatusCode::OK, "{}", page.json());
        let page = page.json();
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return items };
        after = format!("&cursor={next}");
    }
}

async fn check(place: Place) {
    let http = Arc::new(Http::new());
    let (mut system, mut through) = place.start();
    let token = through.admin_token();
    let zones = |through: &Through| format!("{}/v1/zones", through.url("api"));
    let zone = http.json(Method::POST, &zones(&through), &token, Some(json!({"name": "Ops"}))).await.unwrap();
    let zone = zone.text("id");
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let (dead, before) = (Arc::new(AtomicBool::new(false)), told.lock().unwrap().len());
        let url = format!("{}/{zone}/providers", zones(&through));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (http, url, token) = (http.clone(), url.clone(), token.clone());
                let (told, dead) = (told.clone(), dead.clone());
                tokio::spawn(Writer { http, url, token, told, dead }.work())
            })
            .collect();
        while told.lock().unwrap().len() - before < moment.div_ceil(4) {
            tokio::task::yield_now().await;
        }
        system.kill();
        dead.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        (system, through) = place.start();
        let base = format!("{}/{zone}", zones(&through));
        let listed = all(&http, &format!("{base}/providers?status=active"), &token).await;
        let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
        for record in all(&http, &format!("{base}/admin-audit?entity_type=providers"), &token).await {
            assert!(record["status_code"].as_u64().unwrap() < 300, "{record}");
            *recorded.entry(record["entity_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        // Each change of one raised the number in its name by one, and left one record.
        let number = |item: &Value| item["name"].as_str().unwrap().strip_prefix("after ").unwrap().parse().unwrap();
        let there: BTreeMap<String, u64> =
            listed.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), number(item))).collect();
        assert_eq!(there, recorded, "round {round}");
        for (id, number) in told.lock().unwrap().iter() {
            assert!(there.get(id).is_some_and(|found| found >= number), "round {round}: {id} {number}");
        }
    }
    assert!(system.terminate());
    place.verify_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_a_management_change_cut_off_by_a_kill_is_there_with_its_record_or_not_at_all() {
    check(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_a_management_change_cut_off_by_a_kill_on_servers_is_there_with_its_record_or_not_at_all() {
    check(Place::on_servers()).await;
}
