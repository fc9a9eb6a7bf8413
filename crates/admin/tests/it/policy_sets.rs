//! Policy sets: manifests, activation, and how far it has come.

use caracal_admin::{Loaded, RuntimeState, Unreachable};
use caracal_authority::{PolicyId, PolicyVersionId, ZoneId};
use caracal_store::{StoreError, policies};
use serde_json::{Value, json};

use crate::world::{EMPTY_GRANTS, REPLICAS, World};

pub(crate) struct Setting {
    pub(crate) world: World,
    pub(crate) zone: String,
    pub(crate) sets: String,
    pub(crate) set: String,
}

impl Setting {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let sets = format!("/v1/zones/{zone}/policy-sets");
        let set = world.create(&sets, json!({"name": "main"})).await;
        Self { world, zone, sets, set }
    }

    /// Id of the first version of a new policy.
    pub(crate) async fn policy(&self, name: &str, rules: &str) -> String {
        let content = format!("# caracal:data-document\npackage caracal.authz\nimport rego.v1\n{rules}\n");
        let path = format!("/v1/zones/{}/policies", self.zone);
        let created = self.world.call("POST", &path, Some(json!({"name": name, "content": content}))).await.is(201);
        created["version_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn add(&self, set: &str, manifest: &[&str]) -> crate::world::Answer {
        let entries: Vec<Value> = manifest.iter().map(|id| json!({"policy_version_id": id})).collect();
        let path = format!("{}/{set}/versions", self.sets);
        self.world.call("POST", &path, Some(json!({"manifest": entries}))).await
    }

    pub(crate) async fn version(&self, set: &str, manifest: &[&str]) -> String {
        self.add(set, manifest).await.is(201)["version_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn activate(&self, set: &str, version: &str) -> Value {
        let path = format!("{}/{set}/activate", self.sets);
        let activated = self.world.call("POST", &path, Some(json!({"version_id": version}))).await.is(202);
        self.world.relay().await;
        activated
    }

    pub(crate) async fn status(&self, set: &str, query: &str) -> crate::world::Answer {
        self.world.get(&format!("{}/{set}/activation-status?{query}", self.sets)).await
    }

    pub(crate) fn events(&self) -> Vec<Vec<(String, String)>> {
        self.world.messages.lock().unwrap().iter().map(|message| message.fields.clone()).collect()
    }
}

#[tokio::test]
async fn t02_sts_policy_a_set_is_created_and_gets_immutable_versions() {
    let setting = Setting::new().await;
    let Setting { world, zone, sets, set } = &setting;
    let other = world.call("POST", sets, Some(json!({"name": "other", "description": "d"}))).await.is(201);
    assert!(other.get("active_version_id").is_none());
    let found = world.get(&format!("{sets}/{}", other["id"].as_str().unwrap())).await.is(200);
    assert_eq!((&found["active_version_id"], &found["description"]), (&json!(null), &json!("d")));
    world.call("POST", sets, Some(json!({"name": "main"}))).await.is_refused(409, "policy_set_name_conflict");
    world.call("POST", sets, Some(json!({"name": ""}))).await.is_refused(400, "invalid_body");
    world.call("POST", "/v1/zones/none/policy-sets", Some(json!({}))).await.is_refused(404, "zone_not_found");
    world.get(&format!("{sets}/none")).await.is_refused(404, "policy_set_not_found");

    let (first, second) = (setting.policy("a", "grants := {}").await, setting.policy("b", "app_ids := {}").await);
    let created = setting.add(set, &[&first, &second]).await.is(201);
    assert_eq!((&created["version"], &created["policy_set_id"]), (&json!(1), &json!(set)));
    assert_eq!(created["version_id"], created["id"]);
    assert_eq!(created["manifest_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(setting.add(set, &[&second, &first]).await.is(201)["version"], 2);

    let versions = world.get(&format!("{sets}/{set}/versions")).await.is(200);
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
    let version = created["version_id"].as_str().unwrap();
    let full = world.get(&format!("{sets}/{set}/versions/{version}")).await.is(200);
    assert_eq!(full["policies"], json!([first, second]));
    let manifest = json!([{"policy_version_id": first}, {"policy_version_id": second}]);
    assert_eq!((&full["manifest_json"], &full["created_by"]), (&manifest, &found["created_by"]));
    let unknown = world.get(&format!("{sets}/{set}/versions/none")).await;
    unknown.is_refused(404, "policy_set_version_not_found");
    let foreign = format!("{sets}/{}/versions/{version}", other["id"].as_str().unwrap());
    world.get(&foreign).await.is_refused(404, "policy_set_version_not_found");
    world.get(&format!("{sets}/none/versions")).await.is_refused(404, "policy_set_not_found");
    let listed = world.get(sets).await.is(200);
    let main = listed["items"].as_array().unwrap().iter().find(|item| item["name"] == "main").unwrap();
    assert_eq!((&main["latest_version"]["version"], &main["zone_id"]), (&json!(2), &json!(zone)));
}

#[tokio::test]
async fn t02_sts_policy_a_manifest_must_name_this_zones_versions_once() {
    let setting = Setting::new().await;
    let own = setting.policy("a", "grants := {}").await;
    let other = setting.world.zone("Other").await;
    let path = format!("/v1/zones/{other}/policies");
    let body = json!({"name": "x", "content": EMPTY_GRANTS});
    let foreign =
        setting.world.call("POST", &path, Some(body)).await.is(201)["version_id"].as_str().unwrap().to_owned();
    for (manifest, says) in [
        (vec![own.as_str(), &own], "duplicate"),
        (vec![&own, "unknown"], "missing policy versions"),
        (vec![&own, "not an id"], "missing policy versions"),
        (vec![&own, &foreign], "different zone"),
    ] {
        let answer = setting.add(&setting.set, &manifest).await;
        answer.is_refused(422, "invalid_policy_contract");
        assert!(answer.json()["error_description"].as_str().unwrap().contains(says), "{}", answer.text);
    }
    for body in [
        json!({}),
        json!({"manifest": []}),
        json!({"manifest": ["x"]}),
        json!({"manifest": [{"policy_version_id": ""}]}),
        json!({"manifest": vec![json!({"policy_version_id": own}); 257]}),
    ] {
        let path = format!("{}/{}/versions", setting.sets, setting.set);
        setting.world.call("POST", &path, Some(body)).await.is_refused(400, "invalid_body");
    }
    setting.add("none", &[&own]).await.is_refused(404, "policy_set_not_found");
}

#[tokio::test]
async fn documents_of_another_schema_make_no_set() {
    let setting = Setting::new().await;
    let own = setting.policy("a", "grants := {}").await;
    let zone = ZoneId::parse(&setting.zone).unwrap();
    let added: Result<(), StoreError> = setting
        .world
        .store
        .commit(&zone, (), |tx, ()| {
            Box::pin(async move {
                let version = policies::PolicyVersion {
                    zone_id: tx.zone().clone(),
                    id: PolicyVersionId::parse("old").unwrap(),
                    policy_id: PolicyId::parse("p-old").unwrap(),
                    version: 1,
                    content: EMPTY_GRANTS.to_owned(),
                    content_sha256: "0".repeat(64),
                    schema_version: "2020-01-01".to_owned(),
                    created_by: None,
                    created_via_operator: false,
                    created_at: tx.now(),
                };
                policies::add_version(tx, &version).await
            })
        })
        .await;
    added.unwrap();
    for (manifest, says) in
        [(vec![own.as_str(), "old"], "does not match policy set schema"), (vec!["old"], "unsupported_schema_version")]
    {
        let answer = setting.add(&setting.set, &manifest).await;
        answer.is_refused(422, "invalid_policy_contract");
        assert!(answer.json()["error_description"].as_str().unwrap().contains(says), "{}", answer.text);
    }
}

#[tokio::test]
async fn documents_that_contradict_each_other_are_refused_with_the_place() {
    let setting = Setting::new().await;
    let grants = |owner: &str| format!("grants := {{\"r://a\": {{\"application\": \"{owner}\", \"roles\": {{}}}}}}");
    let a = setting.policy("a", &grants("x")).await;
    let b = setting.policy("b", &grants("y")).await;
    let partial = setting.policy("c", "app_ids := {}\ngrants[\"k\"] := {}").await;
    let scalar = setting.policy("d", "restrict := 5").await;
    let doubly =
        setting.policy("e", "risk := [{\"scope\": \"s\", \"tier\": \"a\"}, {\"scope\": \"s\", \"tier\": \"b\"}]").await;
    let circular = setting.policy("f", "restrict contains \"m\" if restrict[\"x\"]").await;
    let outside = setting.policy("g", "restrict contains \"m\" if regex.match(\"a\", input.principal.id)").await;
    let endless = setting.policy("h", "restrict contains \"m\" if numbers.range(1, 1000000000)[0] == 1").await;
    let fails = setting.policy("i", "restrict := {1} if true\nrestrict := {2} if true").await;
    for manifest in [
        vec![a.as_str(), &b],
        vec![&a, &partial],
        vec![&scalar],
        vec![&doubly],
        vec![&circular],
        vec![&outside],
        vec![&endless],
        vec![&fails],
    ] {
        let answer = setting.add(&setting.set, &manifest).await;
        answer.is_refused(422, "invalid_policy_bundle");
        let body = answer.json();
        let first = &body["details"]["defects"][0];
        assert_eq!(first["line"].as_u64().map(|line| line >= 4), Some(true), "{body}");
        assert!(first["column"].as_u64().unwrap() >= 1 && first["code"].is_string());
        let named = first["policy_version_id"].as_str().unwrap();
        assert!(manifest.contains(&named));
        assert!(body["error_description"].as_str().unwrap().contains(named));
    }
    let versions = setting.world.get(&format!("{}/{}/versions", setting.sets, setting.set)).await.is(200);
    assert_eq!(versions["items"], json!([]));
}

#[tokio::test]
async fn documents_that_must_be_evaluated_make_a_set() {
    let setting = Setting::new().await;
    let condition = "restrict contains msg if {\n  id := input.principal.id\n  id == \"app-1\"\n  msg := sprintf(\"%s rests\", \
                     [id])\n}";
    let conditional = setting.policy("a", condition).await;
    let computed = setting.policy("b", "risk := [{\"scope\": s, \"tier\": \"t\"} | some s in {\"a\", \"b\"}]").await;
    let version = setting.version(&setting.set, &[&conditional, &computed]).await;
    assert_eq!(setting.activate(&setting.set, &version).await["activated"], true);
}

/// The zone's evaluators, kept busy until this is dropped.
struct Occupied {
    _release: std::sync::mpsc::Sender<()>,
    occupy: Box<dyn Fn() -> Result<(), caracal_policy::Overloaded> + Send + Sync>,
}

impl Occupied {
    /// As many as run at once, so that none leaves the line once it is full.
    fn of(zone: &str) -> Self {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        let (started, starts) = std::sync::mpsc::channel();
        let zone = zone.to_owned();
        let occupy = Box::new(move || {
            let (held, started) = (held.clone(), started.clone());
            let wait = move || {
                let _ = started.send(());
                drop(held.lock().map(|held| held.recv()));
            };
            caracal_policy::Evaluators::of_process().submit(&zone, wait)
        });
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).max(2) / 2 {
            occupy().unwrap();
            starts.recv().unwrap();
        }
        Self { _release: release, occupy }
    }

    /// Nothing more may wait.
    fn fill(&self) {
        while (self.occupy)().is_ok() {}
    }
}

/// The way out of a set that keeps its zone's evaluators busy must not lead through them.
#[tokio::test]
async fn a_zone_whose_evaluations_wait_can_still_activate_what_was_judged_before() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "restrict contains \"m\" if input.principal.id == \"app-1\"").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let occupied = Occupied::of(&setting.zone);
    occupied.fill();
    setting.add(&setting.set, &[&policy]).await.is_refused(503, "policy_verification_unavailable");
    assert_eq!(setting.activate(&setting.set, &version).await["activated"], true);
}

/// The set is archived while the documents of the version are still judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t02_sts_policy_a_set_that_is_archived_on_the_way_is_not_activated_and_nobody_is_told() {
    let setting = std::sync::Arc::new(Setting::new().await);
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let occupied = Occupied::of(&setting.zone);
    let path = format!("{}/{}/activate", setting.sets, setting.set);
    let activating = {
        let setting = setting.clone();
        tokio::spawn(async move { setting.world.call("POST", &path, Some(json!({"version_id": version}))).await })
    };
    // It has found the version, and waits for its turn: what it reads of the set, it reads before that.
    let archive = format!("{}/{}", setting.sets, setting.set);
    setting.world.call("DELETE", &archive, None).await.is(204);
    drop(occupied);
    activating.await.unwrap().is_refused(404, "version_not_found");
    assert!(setting.events().is_empty());
    let zone = ZoneId::parse(&setting.zone).unwrap();
    let mut snapshot = setting.world.store.snapshot().await.unwrap();
    assert_eq!(caracal_store::policy_sets::find_active(&mut snapshot.zone(&zone)).await.unwrap(), None);
}

#[tokio::test]
async fn an_activation_reaches_loaded() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    setting.status(&setting.set, "").await.is_refused(404, "active_policy_set_version_not_found");
    setting.status("none", "").await.is_refused(404, "policy_set_binding_not_found");
    let before = setting.status(&setting.set, &format!("version_id={version}")).await.is(200);
    assert_eq!(before["propagation_status"], "waiting_for_activation");
    assert_eq!((&before["active"], &before["outbox"]["state"]), (&json!(false), &json!("missing")));

    let activated = setting.activate(&setting.set, &version).await;
    assert_eq!((&activated["activated"], &activated["version_id"]), (&json!(true), &json!(version)));
    let status = setting.world.get(activated["status_url"].as_str().unwrap()).await.is(200);
    let sha = status["manifest_sha256"].clone();
    // A message that a relay sent is gone, and with it when that was.
    let expected = json!({
        "zone_id": setting.zone, "policy_set_id": setting.set, "version_id": version, "active": true,
        "active_version_id": version, "manifest_sha256": sha, "propagation_status": "loaded",
        "outbox": {
            "id": activated["outbox_id"], "state": "dispatched", "attempts": 0, "last_error": null,
            "dispatched_at": null,
        },
        "sts": {
            "state": "loaded", "loaded": true, "zone_id": setting.zone, "policy_set_version_id": version,
            "manifest_sha256": sha, "loaded_at": "2026-01-01T00:00:00.000Z", "age_seconds": 0,
        },
        "replicas": REPLICAS.map(|id| json!({
            "id": id, "seen_at": "2026-01-01T00:00:00.000Z",
            "state": "loaded", "loaded": true, "zone_id": setting.zone, "policy_set_version_id": version,
            "manifest_sha256": sha, "loaded_at": "2026-01-01T00:00:00.000Z", "age_seconds": 0,
        })),
    });
    assert_eq!(status, expected);
    assert_eq!(setting.status(&setting.set, "").await.is(200), expected);
    let event = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let announced = vec![
        event("zone_id", &setting.zone),
        event("policy_set_id", &setting.set),
        event("policy_set_version_id", &version),
    ];
    assert_eq!(setting.events(), [announced]);
    let set = setting.world.get(&format!("{}/{}", setting.sets, setting.set)).await.is(200);
    assert_eq!((&set["active_version_id"], set["updated_by"].is_string()), (&json!(version), true));
}

#[tokio::test]
async fn a_version_with_an_unchanged_manifest_is_loaded_under_its_own_id() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let (one, two) = (setting.version(&setting.set, &[&policy]).await, setting.version(&setting.set, &[&policy]).await);
    setting.activate(&setting.set, &one).await;
    setting.activate(&setting.set, &two).await;
    let status = setting.status(&setting.set, &format!("version_id={two}")).await.is(200);
    assert_eq!(
        (&status["propagation_status"], &status["sts"]["policy_set_version_id"]),
        (&json!("loaded"), &json!(two))
    );
    let old = setting.status(&setting.set, &format!("version_id={one}")).await.is(200);
    assert_eq!(old["propagation_status"], "waiting_for_activation");
    // Rolling back, and activating again what is active already, are activations like any other.
    setting.activate(&setting.set, &one).await;
    setting.activate(&setting.set, &one).await;
    assert_eq!(setting.events().len(), 4);
    assert_eq!(setting.status(&setting.set, "").await.is(200)["version_id"], json!(one));
}

#[tokio::test]
async fn activation_status_follows_the_first_thing_that_is_missing() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let other_set = setting.world.create(&setting.sets, json!({"name": "other"})).await;
    let other_version = setting.version(&other_set, &[&policy]).await;
    let foreign = setting.activate(&other_set, &other_version).await["outbox_id"].as_str().unwrap().to_owned();
    setting.activate(&setting.set, &version).await;
    let path = format!("{}/{other_set}/activate", setting.sets);
    let waiting = setting.world.call("POST", &path, Some(json!({"version_id": other_version}))).await.is(202);
    let path = format!("{}/{}/activate", setting.sets, setting.set);
    setting.world.call("POST", &path, Some(json!({"version_id": version}))).await.is(202);
    let check = async |query: &str, state: &str, propagation: &str| {
        let status = setting.status(&setting.set, query).await.is(200);
        assert_eq!((&status["outbox"]["state"], &status["propagation_status"]), (&json!(state), &json!(propagation)));
    };
    check("outbox_id=unknown", "missing", "waiting_for_outbox").await;
    check("", "pending", "waiting_for_outbox").await;
    check(&format!("outbox_id={}", waiting["outbox_id"].as_str().unwrap()), "mismatch", "failed").await;
    setting.world.relay().await;
    // Sent, and gone: it is still known what it announced.
    check(&format!("outbox_id={foreign}"), "mismatch", "failed").await;
    check("outbox_id=unknown", "missing", "waiting_for_outbox").await;
    let tell = |states: Vec<RuntimeState>| *setting.world.runtime.states.lock().unwrap() = Some(Ok(states));
    tell(vec![RuntimeState::NotLoaded]);
    check("", "dispatched", "waiting_for_sts").await;
    tell(Vec::new());
    check("", "dispatched", "waiting_for_sts").await;
    *setting.world.runtime.states.lock().unwrap() = Some(Err(Unreachable("gone".to_owned())));
    check("", "dispatched", "waiting_for_sts").await;
    let status = setting.status(&setting.set, "").await.is(200);
    assert_eq!((&status["sts"], &status["replicas"]), (&json!({"state": "unreachable", "detail": "gone"}), &json!([])));
    let failed = |version: &str| RuntimeState::Failed {
        policy_set_version_id: Some(version.parse().unwrap()),
        detail: "bad bundle".to_owned(),
    };
    tell(vec![failed(&version)]);
    check("", "dispatched", "failed").await;
    let status = setting.status(&setting.set, "").await.is(200);
    assert_eq!(status["sts"], json!({"state": "failed", "detail": "bad bundle"}));
    // What failed before is not what is active now.
    tell(vec![failed(&other_version)]);
    check("", "dispatched", "waiting_for_sts").await;
    setting.status(&setting.set, "version_id=").await.is_refused(400, "invalid_body");
    setting.status(&setting.set, "outbox_id=").await.is_refused(400, "invalid_body");
}

/// A message that is dead is told to be, so that whoever waits gives up.
#[tokio::test]
async fn an_announcement_that_nobody_can_send_has_failed() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let path = format!("{}/{}/activate", setting.sets, setting.set);
    setting.world.call("POST", &path, Some(json!({"version_id": version}))).await.is(202);
    setting.world.outside("UPDATE outbox SET dead_at = 1, attempts = 100, last_error = 'refused'");
    let status = setting.status(&setting.set, "").await.is(200);
    let told = (&status["outbox"]["state"], &status["outbox"]["last_error"], &status["propagation_status"]);
    assert_eq!(told, (&json!("dead"), &json!("refused"), &json!("failed")));
}

/// The message of an activation is delivered and its row deleted, and the same version is activated once more.
#[tokio::test]
async fn a_message_that_was_sent_reads_dispatched_for_ever() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let first = setting.activate(&setting.set, &version).await;
    let second = setting.activate(&setting.set, &version).await;
    for activated in [first, second] {
        let status = setting.world.get(activated["status_url"].as_str().unwrap()).await.is(200);
        let told = (&status["outbox"]["state"], &status["outbox"]["id"], &status["propagation_status"]);
        assert_eq!(told, (&json!("dispatched"), &activated["outbox_id"], &json!("loaded")));
    }
}

/// README D32: `loaded` is said when all have it, and the one that has it not is named.
#[tokio::test]
async fn a_version_is_loaded_when_every_process_has_it() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let (old, new) = (setting.version(&setting.set, &[&policy]).await, setting.version(&setting.set, &[&policy]).await);
    setting.activate(&setting.set, &new).await;
    let loaded = |version: &str| {
        RuntimeState::Loaded(Loaded {
            policy_set_version_id: Some(version.parse().unwrap()),
            manifest_sha256: "ab".repeat(32),
            loaded_at: setting.world.store.now(),
        })
    };
    let failed = RuntimeState::Failed { policy_set_version_id: Some(new.parse().unwrap()), detail: "why".to_owned() };
    for (states, expected, sts) in [
        (vec![loaded(&new), loaded(&new)], "loaded", "loaded"),
        (vec![loaded(&new), loaded(&old)], "waiting_for_sts", "loaded"),
        (vec![loaded(&old), loaded(&new)], "waiting_for_sts", "loaded"),
        (vec![loaded(&new), RuntimeState::NotLoaded], "waiting_for_sts", "not_loaded"),
        (vec![loaded(&new), failed.clone()], "failed", "failed"),
        (vec![failed, loaded(&old)], "failed", "failed"),
    ] {
        *setting.world.runtime.states.lock().unwrap() = Some(Ok(states.clone()));
        let status = setting.status(&setting.set, "").await.is(200);
        assert_eq!(
            (&status["propagation_status"], &status["sts"]["state"]),
            (&json!(expected), &json!(sts)),
            "{states:?}"
        );
        let ids: Vec<&Value> = status["replicas"].as_array().unwrap().iter().map(|replica| &replica["id"]).collect();
        assert_eq!(ids, REPLICAS);
    }
}

#[tokio::test]
async fn t02_sts_policy_activating_one_set_ends_the_other() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let a = setting.version(&setting.set, &[&policy]).await;
    let other = setting.world.create(&setting.sets, json!({"name": "other"})).await;
    let b = setting.version(&other, &[&policy]).await;
    setting.activate(&setting.set, &a).await;
    setting.activate(&other, &b).await;
    let active = async |set: &str| {
        setting.world.get(&format!("{}/{set}", setting.sets)).await.is(200)["active_version_id"].clone()
    };
    assert_eq!((active(&setting.set).await, active(&other).await), (json!(null), json!(b)));
    for (set, version) in [(&other, &a), (&setting.set, &"none".to_owned()), (&"none".to_owned(), &a)] {
        let path = format!("{}/{set}/activate", setting.sets);
        let answer = setting.world.call("POST", &path, Some(json!({"version_id": version}))).await;
        answer.is_refused(404, "version_not_found");
    }
    let path = format!("{}/{other}/activate", setting.sets);
    setting.world.call("POST", &path, Some(json!({}))).await.is_refused(400, "invalid_body");
    assert_eq!(setting.events().len(), 2);
}

#[tokio::test]
async fn archiving_the_active_set_leaves_nothing_that_decides() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let version = setting.version(&setting.set, &[&policy]).await;
    let idle = setting.world.create(&setting.sets, json!({"name": "idle"})).await;
    setting.activate(&setting.set, &version).await;
    // A policy that is archived goes on deciding in the set that names it.
    let policies = format!("/v1/zones/{}/policies", setting.zone);
    let listed = setting.world.get(&policies).await.is(200);
    let id = listed["items"][0]["id"].as_str().unwrap();
    assert_eq!(setting.world.call("DELETE", &format!("{policies}/{id}"), None).await.status, 204);
    assert_eq!(setting.status(&setting.set, "").await.is(200)["propagation_status"], "loaded");
    setting.version(&idle, &[&policy]).await;

    assert_eq!(setting.world.call("DELETE", &format!("{}/{idle}", setting.sets), None).await.status, 204);
    assert_eq!(setting.events().len(), 1, "an idle set decides nothing, so nobody need hear of it");
    let one = format!("{}/{}", setting.sets, setting.set);
    assert_eq!(setting.world.call("DELETE", &one, None).await.status, 204);
    let ended = vec![("zone_id".to_owned(), setting.zone.clone()), ("policy_set_id".to_owned(), setting.set.clone())];
    assert_eq!(setting.events().last().unwrap(), &ended);
    for answer in [setting.world.call("DELETE", &one, None).await, setting.world.get(&one).await] {
        answer.is_refused(404, "policy_set_not_found");
    }
    setting.status(&setting.set, "").await.is_refused(404, "policy_set_binding_not_found");
    let path = format!("{one}/activate");
    let answer = setting.world.call("POST", &path, Some(json!({"version_id": version}))).await;
    answer.is_refused(404, "version_not_found");
    // Versions of archived sets can still be looked at.
    setting.world.get(&format!("{one}/versions/{version}")).await.is(200);
    let zone = ZoneId::parse(&setting.zone).unwrap();
    let mut snapshot = setting.world.store.snapshot().await.unwrap();
    assert_eq!(caracal_store::policy_sets::find_active(&mut snapshot.zone(&zone)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t02_sts_policy_of_concurrent_activations_each_is_announced_and_one_decides() {
    let setting = Setting::new().await;
    let policy = setting.policy("a", "grants := {}").await;
    let other = setting.world.create(&setting.sets, json!({"name": "other"})).await;
    let (a, b) = (setting.version(&setting.set, &[&policy]).await, setting.version(&other, &[&policy]).await);
    let setting = std::sync::Arc::new(setting);
    let mut calls = Vec::new();
    for turn in 0..8 {
        let (setting, set, version) = if turn % 2 == 0 {
            (setting.clone(), setting.set.clone(), a.clone())
        } else {
            (setting.clone(), other.clone(), b.clone())
        };
        calls.push(tokio::spawn(async move { setting.activate(&set, &version).await }));
    }
    for call in calls {
        call.await.unwrap();
    }
    let listed = setting.world.get(&setting.sets).await.is(200);
    let active: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|set| &set["active_version_id"]).collect();
    assert_eq!(active.iter().filter(|version| version.is_string()).count(), 1, "{active:?}");
    let events = setting.events();
    let last = events.last().unwrap().last().unwrap().1.clone();
    assert_eq!(events.len(), 8);
    assert!(active.contains(&&json!(last)), "what was announced last is what decides");
}

#[tokio::test]
async fn t08_availability_a_hostile_document_is_refused_in_no_time() {
    let setting = Setting::new().await;
    let started = std::time::Instant::now();
    let validate = async |content: String| {
        setting.world.call("POST", "/v1/policies/validate", Some(json!({"content": content}))).await
    };
    let head = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n";
    let open = validate(format!("{head}grants := {}", "(".repeat(262_000))).await;
    open.is_refused(422, "invalid_rego");
    let nested = format!("grants := {}{}", "[".repeat(20), "]".repeat(20));
    let recursive = "restrict contains \"x\" if restrict[\"y\"]".to_owned();
    let range = "restrict := numbers.range(1, 1000000000)".to_owned();
    for (name, rules) in [("nested", nested), ("recursive", recursive), ("range", range)] {
        let version = setting.policy(name, &rules).await;
        setting.add(&setting.set, &[&version]).await.is_refused(422, "invalid_policy_bundle");
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
