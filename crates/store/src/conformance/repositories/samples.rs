//! Rows to store: of each kind one with every optional column filled, and one with every optional column empty.

use caracal_authority::invocation::InvocationStatus;
use caracal_authority::{Timestamp, ZoneId};
use serde_json::json;

use crate::admin_evidence::AdminEvidenceRow;
use crate::admin_tokens::AdminToken;
use crate::agent_services::AgentService;
use crate::applications::Application;
use crate::approvals::ApprovalRow;
use crate::conformance::fixtures::{at, attribution, id, zone};
use crate::delegations::EdgeRow;
use crate::evidence::EvidenceRow;
use crate::grants::Grant;
use crate::invocations::Invocation;
use crate::notification_deliveries::Delivery;
use crate::notification_sinks::Sink;
use crate::oauth_states::OauthState;
use crate::policies::{Policy, PolicyVersion};
use crate::policy_sets::{PolicySet, PolicySetVersion};
use crate::provider_connections::Connection;
use crate::providers::Provider;
use crate::receipts::{KeyScope, Receipt};
use crate::records::{Provenance, RecordRow};
use crate::resources::{CallLimits, Operation, Resource};
use crate::sessions::SessionRow;
use crate::signing_keys::SigningKeyRow;
use crate::subject_issuers::SubjectIssuer;
use crate::transparency::LogKeyRow;
use crate::workloads::{Binding, Bindings, OnFailure, Workload};
use crate::zones::Zone;

/// Text that a careless layer would change: quotes, a backslash, a line break, something beyond the BMP.
pub(crate) const ODD: &str = "O'Neil \"\\%_\n\u{1F600}ß";

fn z() -> ZoneId {
    zone("z-1")
}

pub(crate) fn a_zone(name: &str, full: bool) -> Zone {
    Zone {
        id: zone(name),
        name: ODD.to_owned(),
        slug: format!("slug-{name}"),
        dcr_enabled: full,
        operator_coauthor_badge: !full,
        operator_governed: full,
        attribution: attribution(full, true),
        archived_at: None,
    }
}

pub(crate) fn application(name: &str, full: bool) -> Application {
    Application {
        zone_id: z(),
        id: id!(name),
        name: format!("{ODD} {name}"),
        registration_method: if full { "dcr" } else { "managed" }.to_owned(),
        traits: if full { vec!["control:read".to_owned(), ODD.to_owned()] } else { Vec::new() },
        secret_hash: full.then(|| "argon2id$a$b".to_owned()),
        expires_at: full.then(|| at(100)),
        archived_at: None,
        attribution: attribution(full, false),
    }
}

pub(crate) fn workload(name: &str, full: bool) -> Workload {
    let required = Binding {
        env: "NOTES_TOKEN".to_owned(),
        resource: "resource://notes".to_owned(),
        scopes: Vec::new(),
        optional: false,
        on_failure: None,
    };
    let optional = Binding {
        env: "_docs".to_owned(),
        resource: ODD.to_owned(),
        scopes: vec!["read".to_owned(), ODD.to_owned()],
        optional: true,
        on_failure: Some(OnFailure::Warn),
    };
    Workload {
        zone_id: z(),
        id: id!(name),
        name: format!("{ODD} {name}"),
        secret_hash: format!("argon2id$a$b-{name}"),
        bindings: Bindings::of(&if full { vec![required, optional] } else { Vec::new() }),
        attribution: attribution(full, false),
    }
}

pub(crate) fn provider(name: &str, full: bool) -> Provider {
    let config = json!({"url": ODD, "nested": {"list": [1, null, true]}});
    Provider {
        zone_id: z(),
        id: id!(name),
        name: ODD.to_owned(),
        identifier: format!("provider://{name}"),
        kind: "api_key".to_owned(),
        config: config.as_object().filter(|_| full).cloned().unwrap_or_default(),
        secret_config_keys: if full { vec!["api_key".to_owned()] } else { Vec::new() },
        connectivity_failed_at: full.then(|| at(3)),
        archived_at: None,
        attribution: attribution(full, true),
    }
}

pub(crate) fn subject_issuer(name: &str, full: bool) -> SubjectIssuer {
    SubjectIssuer {
        zone_id: z(),
        id: id!(name),
        issuer: format!("https://{name}.example/{ODD}"),
        jwks_url: "https://idp.example/keys".to_owned(),
        audience: ODD.to_owned(),
        archived_at: None,
        attribution: attribution(full, true),
    }
}

pub(crate) fn connection(name: &str, full: bool) -> Connection {
    Connection {
        zone_id: z(),
        id: id!(name),
        subject_id: ODD.to_owned(),
        provider_id: id!("prov-1"),
        status: "active".to_owned(),
        access_token: vec![0, 1, 255],
        refresh_token: full.then(|| vec![2, 0]),
        expires_at: full.then(|| at(100)),
        refreshed_at: full.then(|| at(1)),
        version: 3,
        lease_until: full.then(|| at(4)),
        refresh_failed_at: full.then(|| at(2)),
        created_at: at(1),
        updated_at: at(2),
    }
}

pub(crate) fn sink(name: &str, full: bool) -> Sink {
    let types: &[&str] = if full { &["step_up_issued", "step_up_consumed"] } else { &["step_up_decided"] };
    Sink {
        zone_id: z(),
        id: id!(name),
        name: ODD.to_owned(),
        url: "https://hooks.example/?x=1".to_owned(),
        event_types: types.iter().map(|name| (*name).to_owned()).collect(),
        secret: vec![0, 1, 255],
        active: full,
        position: if full { 7 } else { 0 },
        due_at: full.then(|| at(4)),
        consecutive_failures: if full { 2 } else { 0 },
        last_success_at: full.then(|| at(1)),
        last_failure_at: full.then(|| at(2)),
        last_error: full.then(|| ODD.to_owned()),
        created_at: at(1),
        updated_at: at(2),
    }
}

pub(crate) fn delivery(name: &str, sink: &str, event_seq: i64) -> Delivery {
    Delivery {
        zone_id: z(),
        id: id!(name),
        sink_id: id!(sink),
        event_seq,
        event_id: format!("e-{event_seq}"),
        event_type: "step_up_issued".to_owned(),
        attempts: 0,
        available_at: at(1),
        delivered_at: None,
        abandoned_at: None,
        response_status: None,
        last_error: None,
        created_at: at(1),
    }
}

pub(crate) fn oauth_state(digest: &str) -> OauthState {
    OauthState {
        zone_id: z(),
        digest: digest.to_owned(),
        subject_id: ODD.to_owned(),
        provider_id: id!("prov-1"),
        verifier: vec![0, 1, 255],
        expires_at: at(60),
        created_at: at(1),
    }
}

pub(crate) fn grant(name: &str, full: bool) -> Grant {
    let scopes: &[&str] = if full { &["n:read", "n:pay_all"] } else { &["n:read"] };
    Grant {
        zone_id: z(),
        id: id!(name),
        application_id: id!("app-1"),
        user_id: ODD.to_owned(),
        resource_id: id!("r-1"),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        status: "active".to_owned(),
        attribution: attribution(full, full),
    }
}

pub(crate) fn resource(name: &str, full: bool) -> Resource {
    let operation = Operation { method: "GET".to_owned(), path: "/a/{b}/**".to_owned(), scope: "read".to_owned() };
    Resource {
        zone_id: z(),
        id: id!(name),
        name: ODD.to_owned(),
        identifier: format!("resource://{name}"),
        upstream_url: full.then(|| "https://example.com/%20?q=1".to_owned()),
        scopes: if full { vec!["read".to_owned(), "write".to_owned()] } else { Vec::new() },
        credential_provider_id: full.then(|| id!("prov-1")),
        operations: if full { vec![operation] } else { Vec::new() },
        operation_enforcement: "enforced".to_owned(),
        limits: if full { call_limits() } else { CallLimits::default() },
        archived_at: None,
        attribution: attribution(full, true),
    }
}

/// Every limit, and each at an end of what its column holds.
fn call_limits() -> CallLimits {
    CallLimits {
        upstream_timeout_ms: Some(u32::MAX),
        stream_idle_timeout_ms: Some(1),
        write_timeout_ms: Some(0),
        max_request_bytes: Some(u64::MAX),
    }
}

pub(crate) fn policy(name: &str, full: bool) -> Policy {
    Policy {
        zone_id: z(),
        id: id!(name),
        name: format!("policy {name}"),
        description: full.then(|| ODD.to_owned()),
        archived_at: None,
        attribution: attribution(full, true),
    }
}

pub(crate) fn policy_version(policy: &str, version: i64) -> PolicyVersion {
    PolicyVersion {
        zone_id: z(),
        id: id!(format!("{policy}-v{version}")),
        policy_id: id!(policy),
        version,
        content: ODD.to_owned(),
        content_sha256: format!("{version:064x}"),
        schema_version: "2026-05-21".to_owned(),
        created_by: (version > 1).then(|| "token:1".to_owned()),
        created_via_operator: version > 1,
        created_at: at(2),
    }
}

pub(crate) fn policy_set(name: &str, full: bool) -> PolicySet {
    PolicySet {
        zone_id: z(),
        id: id!(name),
        name: format!("set {name}"),
        description: full.then(|| ODD.to_owned()),
        archived_at: None,
        active_version_id: None,
        attribution: attribution(full, true),
    }
}

pub(crate) fn policy_set_version(set: &str, version: i64) -> PolicySetVersion {
    PolicySetVersion {
        zone_id: z(),
        id: id!(format!("{set}-v{version}")),
        policy_set_id: id!(set),
        version,
        manifest: if version > 1 { vec![id!("p-2-v1"), id!("p-1-v1")] } else { Vec::new() },
        manifest_sha256: format!("{version:064x}"),
        schema_version: "2026-05-21".to_owned(),
        created_by: (version > 1).then(|| "token:1".to_owned()),
        created_via_operator: version > 1,
        created_at: at(2),
    }
}

/// A service when `full`, a task otherwise.
pub(crate) fn session(name: &str, full: bool) -> SessionRow {
    let metadata = json!({"k": ODD});
    SessionRow {
        zone_id: z(),
        id: id!(name),
        application_id: id!("app-1"),
        parent_id: full.then(|| id!("parent")),
        subject_record_id: id!("rec-1"),
        lifecycle: if full { "service" } else { "task" }.to_owned(),
        labels: if full { vec![ODD.to_owned(), "b".to_owned()] } else { Vec::new() },
        metadata: metadata.as_object().filter(|_| full).cloned().unwrap_or_default(),
        status: "active".to_owned(),
        depth: i64::from(full),
        ttl_seconds: (!full).then_some(300),
        started_at: at(1),
        last_active_at: at(2),
        last_heartbeat_at: full.then(|| at(3)),
        heartbeat_deadline_at: full.then(|| at(400)),
        lease_generation: i64::from(full),
        terminated_at: None,
        termination_reason: None,
        updated_at: at(5),
    }
}

pub(crate) fn edge(name: &str, full: bool) -> EdgeRow {
    let constraints = json!({"max_hops": 2, "note": ODD});
    EdgeRow {
        zone_id: z(),
        id: id!(name),
        source_session_id: id!("s-1"),
        target_session_id: id!("s-2"),
        issuer_application_id: id!("app-1"),
        receiver_application_id: id!("app-2"),
        parent_edge_id: full.then(|| id!("parent")),
        mirrored: full,
        resource_id: full.then(|| id!("r-1")),
        scopes: if full { vec!["read".to_owned()] } else { Vec::new() },
        constraints: constraints.as_object().filter(|_| full).cloned().unwrap_or_default(),
        status: "active".to_owned(),
        expires_at: at(600),
        edge_version: i64::from(full),
        broad_reason: full.then(|| ODD.to_owned()),
        revoked_at: None,
        created_at: at(1),
    }
}

pub(crate) fn agent_service(name: &str, full: bool) -> AgentService {
    let metadata = json!({"k": ODD});
    AgentService {
        zone_id: z(),
        id: id!(name),
        application_id: if full { id!("app-1") } else { id!("app-2") },
        endpoint_url: format!("https://service.example/{name}?q={ODD}"),
        protocol_versions: if full { vec!["1".to_owned(), ODD.to_owned()] } else { Vec::new() },
        framework_name: full.then(|| ODD.to_owned()),
        framework_version: full.then(|| "1.2".to_owned()),
        capabilities: if full { vec![ODD.to_owned()] } else { Vec::new() },
        health: "starting".to_owned(),
        metadata: metadata.as_object().filter(|_| full).cloned().unwrap_or_default(),
        last_heartbeat_at: full.then(|| at(3)),
        created_at: at(1),
        updated_at: at(2),
    }
}

pub(crate) fn invocation(name: &str, full: bool) -> Invocation {
    let members = json!({"k": ODD});
    Invocation {
        zone_id: z(),
        id: id!(name),
        service_id: id!("v-1"),
        service_application_id: id!("app-1"),
        acting_application_id: if full { id!("app-2") } else { id!("app-1") },
        source_session_id: full.then(|| id!("s-source")),
        target_session_id: full.then(|| id!("s-target")),
        method: ODD.to_owned(),
        params: if full { json!([1, null, ODD]) } else { json!(null) },
        metadata: members.as_object().filter(|_| full).cloned().unwrap_or_default(),
        status: if full { InvocationStatus::Failed } else { InvocationStatus::Pending },
        attempts: i64::from(full),
        max_attempts: 3,
        backoff_ms: 1_000,
        backoff_named: true,
        timeout_ms: 30_000,
        deadline_at: full.then(|| at(40)),
        cancel_requested_at: full.then(|| at(3)),
        started_at: full.then(|| at(2)),
        completed_at: full.then(|| at(4)),
        error: members.as_object().filter(|_| full).cloned(),
        created_at: at(1),
        updated_at: at(4),
    }
}

pub(crate) fn record(name: &str, full: bool) -> RecordRow {
    RecordRow {
        zone_id: z(),
        id: id!(name),
        kind: if full { "user" } else { "application" }.to_owned(),
        subject_id: ODD.to_owned(),
        client_id: id!("app-1"),
        use_class: "session".to_owned(),
        jti: format!("jti-{name}"),
        status: "active".to_owned(),
        parent_id: full.then(|| id!("parent")),
        agent_session_id: full.then(|| id!("s-1")),
        delegation_edge_id: full.then(|| id!("e-1")),
        expires_at: at(600),
        created_at: at(1),
        revoked_at: None,
        revoked_reason: None,
        provenance: full.then(|| Provenance { iss: ODD.to_owned() }),
    }
}

pub(crate) fn receipt(key: &str, generated: bool) -> Receipt {
    Receipt {
        operation: "session.start.v2".to_owned(),
        scope: KeyScope::Application(id!("app-1")),
        key_digest: key.to_owned(),
        request_digest: "digest".to_owned(),
        entity_id: "s-1".to_owned(),
        generated,
        status: 201,
        response: format!("{{\"note\":{}}}", json!(ODD)),
        created_at: at(0),
        expires_at: at(60),
    }
}

pub(crate) fn admin_token(name: &str, full: bool) -> AdminToken {
    AdminToken {
        id: id!(name),
        name: ODD.to_owned(),
        scope: if full { "zone" } else { "global" }.to_owned(),
        capability: "write".to_owned(),
        zone_id: full.then(z),
        created_by: "env-bootstrap".to_owned(),
        created_at: at(1),
        last_used_at: None,
        revoked_at: None,
        expires_at: full.then(|| at(500)),
    }
}

pub(crate) fn signing_key(kid: &str, version: i64) -> SigningKeyRow {
    SigningKeyRow {
        zone_id: z(),
        kid: id!(kid),
        version,
        public_x: "x".to_owned(),
        public_y: "y".to_owned(),
        sealed_private: vec![0, 255, 39, 92, 10],
        created_at: at(1),
        signs_from: Timestamp::from_seconds(version),
    }
}

pub(crate) fn log_key() -> LogKeyRow {
    LogKeyRow {
        key_id: "00ff27ab".to_owned(),
        verifier_key: "caracal/ledger/z-1+00ff27ab+AQ==".to_owned(),
        sealed_private: vec![0, 255, 39, 92, 10],
        created_at: at(1),
    }
}

pub(crate) fn evidence(seq: i64) -> EvidenceRow {
    let metadata = format!(
        r#"{{"application_id": "app-{seq}", "agent_labels": ["l-{seq}", "all"], "agent_session_id": "s-{seq}", "session_id": "r-{seq}"}}"#
    );
    EvidenceRow {
        zone_id: "z-1".to_owned(),
        chain_seq: seq,
        id: format!("e-{seq}"),
        event_type: if seq % 2 == 0 { "token_exchange" } else { "replay_detected" }.to_owned(),
        request_id: format!("req-{seq}"),
        decision: if seq % 2 == 0 { "allow" } else { "deny" }.to_owned(),
        policy_set_id: String::new(),
        policy_set_version_id: "v-1".to_owned(),
        manifest_sha: String::new(),
        evaluation_status: "complete".to_owned(),
        determining_policies: "[]".to_owned(),
        diagnostics: format!("[{}]", json!(ODD)),
        metadata,
        occurred_at: at(u64::try_from(seq).unwrap()).as_micros(),
        ingested_at: at(100).as_micros(),
        content_sha256: format!("{seq:064x}"),
        prev_content_sha256: (seq > 1).then(|| format!("{:064x}", seq - 1)),
        chain_hmac: String::new(),
        key_id: None,
    }
}

pub(crate) fn admin_evidence(chain: &str, seq: i64) -> AdminEvidenceRow {
    let known = |text: &str| (seq > 1).then(|| text.to_owned());
    AdminEvidenceRow {
        chain: chain.to_owned(),
        chain_seq: seq,
        id: format!("a-{seq}"),
        request_id: format!("req-{seq}"),
        actor_id: known("token:1"),
        actor_name: known(ODD),
        actor_scope: known("global"),
        action: "POST /v1/zones".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/zones".to_owned(),
        zone_id: Some("z-1".to_owned()),
        entity_type: known("zones"),
        entity_id: known("z-1"),
        status_code: 201,
        payload: known("{\"a\": 1}"),
        occurred_at: at(1).as_micros(),
        content_sha256: format!("{seq:064x}"),
        prev_content_sha256: (seq > 1).then(|| format!("{:064x}", seq - 1)),
        chain_hmac: "00".to_owned(),
        key_id: Some("k-1".to_owned()),
    }
}

/// A hold that waits for a minute.
pub(crate) fn approval(name: &str, full: bool) -> ApprovalRow {
    let metadata = json!({"agent_labels": ["reader", ODD], "resources": [ODD]});
    ApprovalRow {
        zone_id: z(),
        id: id!(name),
        principal_id: if full { ODD.to_owned() } else { "app-1".to_owned() },
        principal_kind: if full { "user" } else { "application" }.to_owned(),
        record_id: full.then(|| id!("rec-1")),
        application_id: full.then(|| id!("app-1")),
        agent_session_id: full.then(|| id!("s-1")),
        delegation_edge_id: full.then(|| id!("e-1")),
        requesting: if full { vec![id!("rec-1"), id!("rec-2")] } else { Vec::new() },
        tier: if full { ODD.to_owned() } else { String::new() },
        approver_class: if full { "subject" } else { "operator" }.to_owned(),
        privacy_mode: if full { "anonymous" } else { "identified" }.to_owned(),
        subject_anchor: full.then(|| ODD.to_owned()),
        binding: if full { "a" } else { "b" }.repeat(64),
        metadata: metadata.as_object().filter(|_| full).cloned().unwrap_or_default(),
        created_at: at(1),
        expires_at: at(50),
        approved_at: None,
        rejected_at: None,
        approver_id: None,
        approver_record_id: None,
        decision_reason: None,
        consumed_at: None,
        consumed_record_id: None,
    }
}
