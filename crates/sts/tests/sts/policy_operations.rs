//! What other processes ask of policy, what every replica says it has loaded, and denials that are asked again (contract:
//! policy.md §10.4, §10.5, §12.3; sts.md §14).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use caracal_authority::{OutboxId, PolicySetVersionId, Timestamp};
use caracal_crypto::chance;
use caracal_crypto::hmac::{HmacKey, gateway_signature};
use caracal_store::policy_replicas::{self, Replica};
use caracal_store::{Attribution, Message, StoreError, grants, policy_sets};
use caracal_sts::loads::ALIVE;
use caracal_sts::{ProcessMintRate, Simulation, Sts, StsConfig};
use http::Request;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::support::*;

const SIMULATE: &str = "/internal/policy/simulate";

/// A request that a process of the deployment signs.
struct Internal {
    method: &'static str,
    path: String,
    body: Vec<u8>,
    nonce: String,
    timestamp: i64,
    key: HmacKey,
}

impl Internal {
    fn new(method: &'static str, path: &str, body: Vec<u8>) -> Self {
        let nonce = chance::uuid_v4().unwrap().to_string();
        Self { method, path: path.to_owned(), body, nonce, timestamp: START, key: gateway_key() }
    }

    fn simulate(body: &Value) -> Self {
        Self::new("POST", SIMULATE, body.to_string().into_bytes())
    }

    fn status(zone: &str) -> Self {
        Self::new("GET", &format!("/internal/policy/status/{zone}"), Vec::new())
    }

    fn request(&self) -> Request<Body> {
        let Self { method, path, body, nonce, timestamp, key } = self;
        let signature = gateway_signature(key, *timestamp, nonce, method, path, body);
        Request::builder()
            .method(*method)
            .uri(path)
            .header("x-caracal-gateway-timestamp", timestamp.to_string())
            .header("x-caracal-gateway-request", nonce)
            .header("x-caracal-gateway-signature", signature)
            .body(Body::from(body.clone()))
            .unwrap()
    }

    async fn send(&self, world: &World) -> Answer {
        world.send(self.request()).await
    }
}

fn document(rules: &str) -> String {
    format!("# caracal:data-document\npackage caracal.authz\nimport rego.v1\n{rules}\n")
}

/// A bootstrap of `app-docs` under `rules`.
fn question(rules: &str) -> Value {
    json!({
        "policy_set_id": "ps", "version_id": "psv", "manifest_sha256": "ab", "zone_id": ZONE,
        "policies": [{"id": "pv", "content": document(rules)}],
        "input": {
            "principal": {"type": "Application", "id": "app-docs", "zone_id": ZONE},
            "resource": {"identifier": DOCS}, "action": {"id": "TokenExchange"},
            "context": {"requested_scopes": ["agent:lifecycle"]},
        },
    })
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

mod t02_sts_internal_policy {
    use super::*;

    #[tokio::test]
    async fn what_would_be_decided_is_answered_with_the_names_that_were_sent() {
        let world = World::new().await;
        let answer = Internal::simulate(&question(POLICY)).send(&world).await;
        let expected = json!({
            "policy_set_id": "ps", "version_id": "psv", "manifest_sha256": "ab",
            "result": {
                "decision": "allow", "evaluation_status": "complete",
                "determining_policies": [{"policy": "caracal-bootstrap"}], "diagnostics": [],
            },
        });
        assert_eq!((answer.status, answer.json), (200, expected));
        let evaluated = format!("{POLICY}\nrestrict contains \"x\" if input.principal.id == \"app-docs\"");
        let answer = Internal::simulate(&question(&evaluated)).send(&world).await;
        assert_eq!(answer.json["result"]["diagnostics"], json!([{"reason": "restriction_active"}]));
        // Nobody heard of it: no event, no counter, and what is active decides.
        assert!(world.evidence().await.is_empty());
        let bearer = format!("Bearer {METRICS_BEARER}");
        let metrics = Request::get("/metrics.json").header("authorization", bearer).body(Body::empty()).unwrap();
        let metrics = world.send(metrics).await.json;
        assert_eq!((&metrics["opa"]["eval_total"], &metrics["opa"]["compile_total"]), (&json!(0), &json!(0)));
        assert_eq!(Ask::mint().send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn only_a_process_of_the_deployment_is_answered_and_once() {
        let world = World::new().await;
        let of = |change: &dyn Fn(&mut Internal)| {
            let mut request = Internal::simulate(&question(POLICY));
            change(&mut request);
            request
        };
        for (what, request) in [
            ("another key", of(&|request| request.key = HmacKey::from_bytes(&[7; 32]).unwrap()).request()),
            ("long ago", of(&|request| request.timestamp -= 61).request()),
            ("in a while", of(&|request| request.timestamp += 61).request()),
            ("unsigned", Request::post(SIMULATE).body(Body::from(question(POLICY).to_string())).unwrap()),
            ("another body", {
                let mut request = of(&|_| {}).request();
                *request.body_mut() = Body::from(question("grants := {}").to_string());
                request
            }),
            ("unsigned status", Request::get("/internal/policy/status/z-1").body(Body::empty()).unwrap()),
        ] {
            assert_eq!(world.send(request).await.outcome(), "401 access_denied", "{what}");
        }
        assert_eq!(world.counted("gateway_signature").await, 6);
        let once = of(&|_| {});
        assert_eq!(once.send(&world).await.status, 200);
        assert_eq!(once.send(&world).await.outcome(), "401 access_denied");
        let keyless = World::configured(|config| config.gateway_key = None).await;
        assert_eq!(of(&|_| {}).send(&keyless).await.outcome(), "401 access_denied");
    }

    #[tokio::test]
    async fn what_is_no_question_is_400_and_what_has_no_verdict_422_with_the_reason() {
        let world = World::new().await;
        let with = |name: &str, value: Value| {
            let mut body = question(POLICY);
            body[name] = value;
            body
        };
        let typed = |value: Value| {
            let mut body = question(POLICY);
            body["input"]["principal"]["labels"] = value;
            body
        };
        for (body, outcome, says) in [
            (json!("x"), "400 invalid_token", "the body is no question"),
            (json!({}), "400 invalid_token", "policy_set_id"),
            (with("policies", json!([])), "400 invalid_token", "`policies` is empty"),
            (with("policies", json!([{"id": "pv"}])), "400 invalid_token", "content"),
            (with("input", json!("x")), "400 invalid_token", "the body is no question"),
            (typed(json!("x")), "400 invalid_token", "wrong type"),
            (question("grants := {"), "422 policy_eval_failed", "`pv`, line 5"),
            (question("result := 1\ngrants := {}"), "422 policy_eval_failed", "`pv`, line 4"),
            (question("restrict contains \"x\" if restrict[\"y\"]"), "422 policy_eval_failed", "`pv`, line 4"),
            (
                question("restrict := {1} if input.principal\nrestrict := {2} if input.resource"),
                "422 policy_eval_failed",
                "conflicts",
            ),
        ] {
            let answer = Internal::simulate(&body).send(&world).await;
            assert_eq!(answer.outcome(), outcome, "{body}");
            assert!(answer.text("error_description").contains(says), "{}: {}", says, answer.text("error_description"));
        }
    }

    #[tokio::test]
    async fn a_question_that_two_readers_could_read_in_two_ways_is_none() {
        let world = World::new().await;
        let text = question(POLICY).to_string();
        for (what, body) in [
            ("twice", text.replacen('{', r#"{"zone_id":"z-2","#, 1)),
            ("twice in the input", text.replacen(r#""principal":{"#, r#""principal":{"id":"app-else","#, 1)),
            (
                "a name of the parser's own",
                text.replacen(
                    r#""principal":{"#,
                    r#""principal":{"labels":{"$serde_json::private::RawValue":"[]"},"#,
                    1,
                ),
            ),
        ] {
            assert_ne!(body, text, "{what}");
            let answer = Internal::new("POST", SIMULATE, body.into_bytes()).send(&world).await;
            assert_eq!(answer.outcome(), "400 invalid_token", "{what}");
        }
        assert_eq!(Internal::new("POST", SIMULATE, text.into_bytes()).send(&world).await.status, 200);
    }

    /// Without an input documents are judged as their author's: what a decision would bear is refused.
    #[tokio::test]
    async fn without_an_input_it_is_the_check_of_a_bundle() {
        let world = World::new().await;
        let check = async |rules: &str| {
            let mut body = question(rules);
            body.as_object_mut().unwrap().remove("input");
            Internal::simulate(&body).send(&world).await
        };
        let good = check(POLICY).await;
        assert_eq!(good.json["result"]["diagnostics"], json!([{"reason": "no_rule_matched"}]));
        let twice = "risk := [{\"scope\": \"a\", \"tier\": \"x\"}, {\"scope\": \"a\", \"tier\": \"y\"}]";
        assert_eq!(check(twice).await.outcome(), "422 policy_eval_failed");
        assert_eq!(Internal::simulate(&question(twice)).send(&world).await.status, 200, "a decision bears it");
    }

    /// A document may have 256 Ki characters, a bundle many documents: 64 KiB would not be enough for the check of one.
    #[tokio::test]
    async fn a_bundle_as_large_as_one_may_be_is_taken_and_a_larger_body_is_not() {
        let world = World::new().await;
        let padded = |bytes: usize| {
            let mut body = question(POLICY);
            let entry =
                json!({"id": "pad", "content": document(&format!("restrict := {{}}\n#{}", "x".repeat(250_000)))});
            for _ in 0..bytes / 250_000 {
                body["policies"].as_array_mut().unwrap().push(entry.clone());
            }
            body
        };
        assert_eq!(Internal::simulate(&padded(4_000_000)).send(&world).await.status, 200);
        let too_large = Internal::simulate(&padded(34_000_000)).send(&world).await;
        assert_eq!(too_large.status, 413, "{}", String::from_utf8_lossy(&too_large.body));
    }

    #[tokio::test]
    async fn the_status_of_a_zone_is_what_this_replica_has_loaded() {
        let world = World::new().await;
        let version = world.activate(POLICY).await;
        world.clock.advance(5);
        let at = |seconds: i64| Timestamp::from_seconds(START + seconds).to_millis_text();
        let mut first = Internal::status(ZONE);
        first.timestamp += 5;
        let loaded = first.send(&world).await.json;
        let manifest = loaded["manifest_sha256"].clone();
        assert_eq!(
            loaded,
            json!({"zone_id": ZONE, "loaded": true, "policy_set_version_id": version.as_str(),
                "manifest_sha256": manifest, "loaded_at": at(5), "age_seconds": 0})
        );
        world.clock.advance(3);
        assert_eq!(Internal::status(ZONE).send(&world).await.json["age_seconds"], 3);
        let none = Internal::status(OTHER_ZONE).send(&world).await.json;
        assert_eq!(
            (&none["loaded"], &none["manifest_sha256"], none.get("policy_set_version_id")),
            (&json!(true), &json!("no_active_policy_set"), None)
        );
        let broken = world.activate("result := 1").await;
        let failed = Internal::status(ZONE).send(&world).await.json;
        assert_eq!((&failed["loaded"], &failed["policy_set_version_id"]), (&json!(false), &json!(broken.as_str())));
        assert!(failed["detail"].as_str().unwrap().contains("result"), "{failed}");
        assert_eq!(Internal::status("a%20b").send(&world).await.outcome(), "404 resource_not_found");
    }
}

/// What is told of the zone by those that were heard of lately.
async fn told(world: &World) -> Vec<Replica> {
    let mut snapshot = world.store.snapshot().await.unwrap();
    let since = snapshot.now().minus(ALIVE);
    policy_replicas::list(&mut snapshot.zone(&zone()), since).await.unwrap()
}

fn second_replica(world: &World) -> Arc<Sts> {
    world.replica(StsConfig::for_issuer(ISSUER), Arc::new(ProcessMintRate::default()))
}

fn versions(told: &[Replica]) -> Vec<Option<PolicySetVersionId>> {
    told.iter().map(|replica| replica.loaded.as_ref().and_then(|loaded| loaded.policy_set_version_id.clone())).collect()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Activates `version` of its set once more, which changes nothing but who is told.
async fn announce(stss: &[Arc<Sts>]) {
    let message = Message {
        id: OutboxId::parse("m").unwrap(),
        zone: zone(),
        topic: policy_sets::INVALIDATED.to_owned(),
        dedupe_key: "m".to_owned(),
        fields: Vec::new(),
        created_at: Timestamp::from_seconds(START),
    };
    stss.iter().for_each(|sts| sts.hear(&message));
}

mod t04_state_replicas {
    use super::*;

    /// README D32: two token services over one store, each says what it has.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_replica_says_what_it_has_loaded_and_is_forgotten_when_it_leaves() {
        let world = World::new().await;
        let stss = [world.sts.clone(), second_replica(&world)];
        let first = world.activate(POLICY).await;
        let (stop, stopping) = watch::channel(false);
        let poll = Duration::from_secs(60);
        let jobs: Vec<_> =
            stss.iter().map(|sts| tokio::spawn(sts.clone().run_policy_reports(poll, stopping.clone()))).collect();
        let both = |version: &PolicySetVersionId| vec![Some(version.clone()), Some(version.clone())];
        until("both have the first", async || versions(&told(&world).await) == both(&first)).await;
        // One that is heard of reaches both, without a poll.
        let second = world.activate(POLICY).await;
        announce(&stss).await;
        until("both have the second", async || versions(&told(&world).await) == both(&second)).await;
        let ids: Vec<_> = told(&world).await.into_iter().map(|replica| replica.id).collect();
        assert_ne!(ids[0], ids[1]);
        stop.send_replace(true);
        for job in jobs {
            job.await.unwrap();
        }
        assert!(told(&world).await.is_empty(), "they left");
    }

    #[tokio::test]
    async fn a_replica_that_is_not_heard_of_is_gone() {
        let world = World::new().await;
        world.activate(POLICY).await;
        world.sts.tell_loaded(&zone()).await.unwrap();
        assert_eq!(told(&world).await.len(), 1);
        world.clock.advance(30);
        assert_eq!(told(&world).await.len(), 1);
        world.clock.advance(1);
        assert!(told(&world).await.is_empty());
        // Another one says so of itself, and is there.
        second_replica(&world).tell_loaded(&zone()).await.unwrap();
        assert_eq!(told(&world).await.len(), 1);
    }

    /// The reference never reaches `loaded` here.
    #[tokio::test]
    async fn a_version_with_the_documents_of_the_one_before_is_loaded_under_its_own_id() {
        let world = World::new().await;
        let first = world.activate(POLICY).await;
        world.sts.tell_loaded(&zone()).await.unwrap();
        let manifest = told(&world).await[0].loaded.clone().unwrap().manifest_sha256;
        let again: PolicySetVersionId = PolicySetVersionId::parse("psv-again").unwrap();
        let (from, to) = (first.clone(), again.clone());
        world
            .change((from, to), |tx, (from, to)| {
                Box::pin(async move {
                    let version = policy_sets::lookup_version(tx, from).await?.unwrap();
                    let set = version.policy_set_id.clone();
                    let next = policy_sets::PolicySetVersion { id: to.clone(), version: 2, ..version };
                    policy_sets::add_version(tx, &next).await?;
                    policy_sets::activate(tx, &set, to).await
                })
            })
            .await;
        world.clock.advance(7);
        world.sts.tell_loaded(&zone()).await.unwrap();
        let loaded = told(&world).await[0].loaded.clone().unwrap();
        assert_eq!((loaded.policy_set_version_id, loaded.manifest_sha256), (Some(again), manifest));
        assert_eq!(loaded.loaded_at, Some(after(7)));
    }

    #[tokio::test]
    async fn what_can_not_be_loaded_is_told_with_the_reason_and_mended_by_the_next() {
        let world = World::new().await;
        let broken = world.activate("result := 1").await;
        let loaded = world.sts.tell_loaded(&zone()).await.unwrap();
        assert_eq!((loaded.policy_set_version_id, loaded.loaded_at), (Some(broken), None));
        assert!(loaded.error.unwrap().contains("result"));
        let good = world.activate(POLICY).await;
        world.sts.tell_loaded(&zone()).await.unwrap();
        let loaded = told(&world).await[0].loaded.clone().unwrap();
        assert_eq!((loaded.policy_set_version_id, loaded.error), (Some(good), None));
    }

    /// `opa_max_policy_age_seconds` counts from the last look that found all as it should be, not from the load.
    #[tokio::test]
    async fn the_age_of_policy_is_that_of_the_last_good_look() {
        let world = World::new().await;
        let age = async || {
            let bearer = format!("Bearer {METRICS_BEARER}");
            let request = Request::get("/metrics").header("authorization", bearer).body(Body::empty()).unwrap();
            let text = String::from_utf8(world.send(request).await.body).unwrap();
            assert!(text.contains("# TYPE caracal_sts_opa_max_policy_age_seconds gauge"));
            let line = text.lines().find(|line| line.starts_with("caracal_sts_opa_max_policy_age_seconds ")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(age().await, 0, "nothing is loaded, so nothing is old");
        world.activate(POLICY).await;
        world.sts.tell_loaded(&zone()).await.unwrap();
        world.clock.advance(40);
        assert_eq!(age().await, 40);
        world.sts.tell_loaded(&zone()).await.unwrap();
        assert_eq!(age().await, 0, "it is as old as ever and still what should be");
        world.activate("result := 1").await;
        world.clock.advance(10);
        world.sts.tell_loaded(&zone()).await.unwrap();
        assert_eq!(age().await, 10, "a look that found it wrong is no good one");
    }
}

/// README D33: every reason to deny that evidence can show, asked again as it was and once its cause is mended.
mod t06_evidence_replay {
    use super::*;

    async fn asked_again(world: &World, rules: &str, input: &Value) -> Value {
        let documents = vec![("pv".to_owned(), document(rules))];
        let verdict = world.sts.simulate(&zone(), Simulation { documents, input: Some(map(input)) }).await.unwrap();
        serde_json::to_value(verdict).unwrap()
    }

    /// The denial of `answer`, asked again under `rules`, is denied for `reason`, and under `mended` allowed.
    async fn replay(world: &World, rules: &str, reason: &str, mended: &str) -> Value {
        let event = denied(world, "complete").await;
        assert_eq!(event.diagnostics, json!([{"reason": reason}]), "{}", event.metadata);
        let input = event.metadata["policy_input"].clone();
        if !rules.is_empty() {
            let again = asked_again(world, rules, &input).await;
            assert_eq!((&again["decision"], &again["diagnostics"]), (&json!("deny"), &event.diagnostics), "{input}");
        }
        let allowed = asked_again(world, mended, &input).await;
        assert_eq!(allowed["decision"], "allow", "{reason}: {allowed} {input}");
        input
    }

    /// The newest denial with this status: of one resource, behind which there may be one of the whole exchange.
    async fn denied(world: &World, status: &str) -> Event {
        let outcome = format!("deny {status}");
        world.evidence().await.into_iter().rev().find(|event| event.outcome() == outcome).unwrap()
    }

    #[tokio::test]
    async fn a_denied_mint_is_allowed_once_its_cause_is_mended() {
        let world = World::new().await;
        for (more, reason) in [
            ("restrict := {\"x\"}", "restriction_active"),
            ("risk := [{\"scope\": \"docs:read\"}]", "malformed_risk_data"),
            ("approval_tiers := [{\"tier\": \"\"}]", "malformed_approval_data"),
            ("confinement := [{\"label_prefix\": \"read\", \"scopes\": []}]", "confinement_violation"),
        ] {
            let rules = format!("{POLICY}{more}");
            world.activate(&rules).await;
            assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied", "{reason}");
            let input = replay(&world, &rules, reason, POLICY).await;
            assert_eq!(input["delegation_edge"]["scopes"], json!(["docs:read"]));
            assert_eq!(input["principal"]["labels"], json!(["reader"]));
        }
        for (rules, reason) in [
            ("grants := {}\napp_ids := {}", "resource_not_granted"),
            (
                "app_ids := {\"docs\": \"app-docs\"}\ngrants := {\"resource://docs\": {\"application\": \"docs\", \
                 \"roles\": {\"reader\": [\"docs:list\"]}}}",
                "role_scope_mismatch",
            ),
        ] {
            world.activate(rules).await;
            assert_eq!(Ask::mint().send(&world).await.outcome(), "403 access_denied", "{reason}");
            replay(&world, rules, reason, POLICY).await;
        }
    }

    #[tokio::test]
    async fn a_denial_without_any_active_set_is_allowed_by_the_set_that_is_to_be_activated() {
        let world = World::new().await;
        world.tamper("DELETE FROM active_policy_sets WHERE zone_id = 'z-1'");
        let restarted = world.restarted();
        assert_eq!(send_to(&restarted, Ask::mint().request()).await.outcome(), "403 access_denied");
        assert_eq!(denied(&world, "complete").await.row.manifest_sha, "no_active_policy_set");
        replay(&world, "", "no_active_policy_set", POLICY).await;
    }

    #[tokio::test]
    async fn a_denied_bootstrap_comes_back_without_ids_that_it_had_not() {
        let world = World::new().await;
        world.activate("grants := {}").await;
        assert_eq!(Ask::bootstrap().send(&world).await.outcome(), "403 access_denied");
        let input = replay(&world, "grants := {}", "no_rule_matched", POLICY).await;
        assert!(input.get("session").is_none() && input.get("delegation_edge").is_none(), "{input}");
        assert!(input["context"].get("agent_session_id").is_none());
    }

    /// A mandate is presented, so the claims it was asked with are part of the question.
    #[tokio::test]
    async fn a_denied_use_comes_back_with_the_claims_that_were_presented() {
        let world = World::new().await;
        let narrowed = "app_ids := {\"docs\": \"app-docs\"}\ngrants := {\"resource://docs\": {\"application\": \"docs\", \
                        \"roles\": {\"reader\": [\"docs:list\"]}}}";
        let taken = "app_ids := {\"docs\": \"app-other\"}\ngrants := {\"resource://docs\": {\"application\": \"docs\", \
                     \"roles\": {\"reader\": [\"docs:read\"]}}}";
        for (rules, reason) in [
            (narrowed, "role_scope_mismatch"),
            (taken, "resource_not_granted"),
            ("restrict := {\"x\"}", "restriction_active"),
        ] {
            world.activate(POLICY).await;
            let mandate = world.mandate().await;
            world.activate(rules).await;
            let answer = Signed::exchange(&world, &mandate).send(&world).await;
            assert_eq!(answer.outcome(), "403 access_denied", "{reason}");
            let input = replay(&world, rules, reason, POLICY).await;
            assert_eq!(input["context"]["subject_claims"]["target"], json!([DOCS]));
            assert_eq!((&input["action"]["method"], &input["action"]["path"]), (&json!("GET"), &json!("/items")));
        }
    }

    /// Refused before policy is asked. What it takes to ask it all the same is on record: who, what, and what was lent.
    #[tokio::test]
    async fn a_mint_beyond_its_delegation_says_what_was_lent_and_to_whom() {
        let world = World::new().await;
        world.add_session("s-w", |row| row.labels = vec!["writer".to_owned()]).await;
        world.add_edge("e-w", |row| row.target_session_id = "s-w".parse().unwrap()).await;
        let wide =
            Ask::mint().set("scope", "docs:write").set("agent_session_id", "s-w").set("delegation_edge_id", "e-w");
        assert_eq!(wide.send(&world).await.outcome(), "403 access_denied");
        let metadata = world.last_event().await.metadata;
        assert_eq!(metadata["refusal"], "ScopesExceedDelegation");
        for (name, value) in [
            ("requested", json!([DOCS])),
            ("requested_scopes", json!(["docs:write"])),
            ("delegation_edge_id", json!("e-w")),
            ("delegation_scopes", json!(["docs:read"])),
            ("agent_session_id", json!("s-w")),
            ("agent_labels", json!(["writer"])),
        ] {
            assert_eq!(metadata[name], value, "{name}: {metadata}");
        }
    }

    /// Whose session it is not is not told its labels.
    #[tokio::test]
    async fn of_another_applications_session_nothing_is_told() {
        let world = World::new().await;
        let foreign = Ask::mint().set("application_id", "app-notes").set("resource", NOTES).set("scope", "notes:read");
        assert_eq!(foreign.send(&world).await.outcome(), "403 access_denied");
        assert!(world.last_event().await.metadata.get("agent_labels").is_none());
    }

    #[tokio::test]
    async fn an_evaluation_that_failed_keeps_its_question_too() {
        let world = World::new().await;
        world
            .activate(&format!("{POLICY}restrict := {{1}} if input.principal\nrestrict := {{2}} if input.resource"))
            .await;
        assert_eq!(Ask::mint().send(&world).await.outcome(), "503 policy_eval_failed");
        let input = denied(&world, "policy_eval_failed").await.metadata["policy_input"].clone();
        assert_eq!(asked_again(&world, POLICY, &input).await["decision"], "allow");
    }

    #[tokio::test]
    async fn what_is_granted_keeps_no_question() {
        let world = World::new().await;
        assert_eq!(Ask::mint().send(&world).await.status, 200);
        assert!(world.last_event().await.metadata.get("policy_input").is_none());
    }
}

/// Contract: policy.md §11. They are for people; no decision reads one.
#[tokio::test]
async fn a_grant_to_represent_a_user_changes_no_decision() {
    let world = World::new().await;
    let decided = async || {
        let answers = [Ask::mint().send(&world).await, Ask::mint().set("scope", "docs:write").send(&world).await];
        answers.map(|answer| format!("{} {}", answer.outcome(), answer.text("error_description")))
    };
    let without = decided().await;
    let grant = grants::Grant {
        zone_id: zone(),
        id: "g-1".parse().unwrap(),
        application_id: APP.parse().unwrap(),
        user_id: APP.to_owned(),
        resource_id: "r-docs".parse().unwrap(),
        scopes: vec!["docs:read".to_owned(), "docs:write".to_owned()],
        status: "active".to_owned(),
        attribution: Attribution::created("admin", world.store.now()),
    };
    world.change(grant, |tx, grant| Box::pin(async move { grants::add(tx, grant).await })).await;
    assert_eq!(decided().await, without);
    world.change((), |tx, ()| Box::pin(async move { grants::revoke(tx, &"g-1".parse().unwrap(), "x").await })).await;
    assert_eq!(decided().await, without);
}

/// A store that fails says so: nothing is told that nobody has seen.
#[tokio::test]
async fn while_the_store_is_away_nothing_is_told() {
    let world = World::new().await;
    world.activate(POLICY).await;
    world.store.close().await;
    assert!(matches!(world.sts.tell_loaded(&zone()).await, Err(StoreError::Unavailable { .. })));
}
