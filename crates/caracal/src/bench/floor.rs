//! What of a governed call could not be saved: one signature, one verification, one decision and one commit on this machine,
//! each measured alone, in this process, in the same run; and beside it what a proxy takes that decides nothing.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_authority::Timestamp;
use caracal_crypto::jws::{SigningKey, UnverifiedToken};
use caracal_policy::{Bundle, Document, Input, decide};
use caracal_store::counts::{self, Count};
use caracal_store::{SqliteOptions, Store, StoreError, SystemClock};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{proxy, usage};
use crate::commands::Failure;

/// How long each is repeated: this part of the time in which calls are measured, and at most so long.
const PART: u32 = 50;
const AT_MOST: Duration = Duration::from_millis(500);
/// Grants of a large policy.
const MANY: usize = 5_000;

/// Microseconds each, but for decisions, which are given in nanoseconds.
pub(super) struct Floor {
    pub(super) sign_us: f64,
    pub(super) verify_us: f64,
    pub(super) decision_ns: f64,
    /// The same decision where the policy has [`MANY`] grants.
    pub(super) decision_of_many_ns: f64,
    /// What one waits for a commit, the sync included.
    pub(super) commit_us: f64,
    /// Processor time of a commit; the wait for the disk is none.
    pub(super) commit_cpu_us: Option<f64>,
    /// Processor time of one call through a proxy that only passes on.
    pub(super) proxy_us: Option<f64>,
}

/// Measures all of it, for a run in which calls are measured so long.
pub(super) fn measure(runtime: &Runtime, home: &Path, run: Duration) -> Result<Floor, Failure> {
    let time = (run / PART).min(AT_MOST);
    let (key, _) = SigningKey::generate()?;
    let claims = claims();
    let token = key.sign("k-1", &claims)?;
    let sign = each(time, || Ok(key.sign("k-1", black_box(&claims))?))?;
    let verify = each(time, || Ok(UnverifiedToken::parse(black_box(&token))?.verify(key.public())?))?;
    let (commit, commit_cpu) = commit(runtime, home, time)?;
    Ok(Floor {
        sign_us: sign * 1e6,
        verify_us: verify * 1e6,
        decision_ns: decision(time, 1)? * 1e9,
        decision_of_many_ns: decision(time, MANY)? * 1e9,
        commit_us: commit * 1e6,
        commit_cpu_us: commit_cpu.map(|seconds| seconds * 1e6),
        proxy_us: proxy::processor_time(runtime, time)?.map(|seconds| seconds * 1e6),
    })
}

/// Seconds that one of them takes, over as many as fit the time.
fn each<T>(time: Duration, mut once: impl FnMut() -> Result<T, Failure>) -> Result<f64, Failure> {
    once()?;
    let (begun, mut times) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        black_box(once()?);
        times += 1;
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(times))
}

/// A mandate of usual size.
fn claims() -> Value {
    json!({
        "iss": "https://sts.example", "sub": "app-1", "aud": "resource://n", "zone_id": "zone-1", "client_id": "app-1",
        "sid": "0198c0de-0000-7000-8000-000000000001", "root_sid": "0198c0de-0000-7000-8000-000000000001",
        "jti": "0198c0de-0000-7000-8000-000000000002", "agent_session_id": "0198c0de-0000-7000-8000-000000000003",
        "delegation_edge_id": "0198c0de-0000-7000-8000-000000000004", "scope": "n:read", "target": ["resource://n"],
        "use": "gateway", "iat": 1_767_225_600, "exp": 1_767_226_500
    })
}

fn decision(time: Duration, grants: usize) -> Result<f64, Failure> {
    // As short as can be, so that many fit into a document.
    let grant = |number: usize| (format!("r{number}"), json!({"application": "a", "roles": {"r": ["n"]}}));
    let grants: serde_json::Map<String, Value> = (0..grants).map(grant).collect();
    let content = format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n",
        json!({"a": "app-1"}),
        Value::Object(grants)
    );
    let document = Document { policy_version_id: "pv-1", content: &content };
    let refused = |defects| Failure(format!("the policy of the benchmark is not one: {defects:?}"));
    let bundle = Bundle::load(&[document]).map_err(refused)?;
    let input: Input = serde_json::from_value(json!({
        "principal": {"type": "Application", "id": "app-1", "zone_id": "z", "agent_session_id": "s", "labels": ["r"]},
        "resource": {"type": "Resource", "id": "r", "identifier": "r0", "scopes": ["n"]},
        "action": {"id": "TokenExchange"},
        "delegation_edge": {"id": "e", "scopes": ["n"]},
        "context": {"agent_session_id": "s", "delegation_edge_id": "e", "requested_scopes": ["n"]}
    }))?;
    if !decide(&bundle, &input)?.is_allow() {
        return Err(Failure("the policy of the benchmark does not allow what it should".to_owned()));
    }
    each(time, || Ok(decide(&bundle, black_box(&input))?))
}

/// One change alone, made durable: what the storage of this machine takes for a sync, and the processor time of it.
fn commit(runtime: &Runtime, home: &Path, time: Duration) -> Result<(f64, Option<f64>), Failure> {
    let store = Store::open(&SqliteOptions::in_directory(home.join("floor")), Arc::new(SystemClock))?;
    let mut number = 0_i64;
    let once = || {
        number += 1;
        let count = Count { name: "floor".to_owned(), count: number, began_at: Timestamp::EPOCH, blocked: false };
        let kept: Result<(), StoreError> =
            runtime.block_on(store.commit_upkeep(count, |tx, count| Box::pin(counts::put(tx, count))));
        Ok(kept?)
    };
    let (before, elapsed) = (usage::own_threads_time(), each(time, once)?);
    let used = usage::own_threads_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    let used = used.map(|used| used.as_secs_f64() / f64::from(u32::try_from(number).unwrap_or(u32::MAX)));
    Ok((elapsed, used))
}
