//! Rows as the Admin API and the Coordinator would have written them, with whatever a test wants to be different.

use std::time::Duration;

use caracal_authority::{
    AgentSessionId, ApplicationId, AuthorityRecordId, ConnectionId, EdgeId, PolicyId, PolicySetId, PolicySetVersionId,
    PolicyVersionId, ProviderId, ResourceId, SubjectIssuerId, Timestamp, WorkloadId, ZoneId,
};
use caracal_crypto::SecretText;
use caracal_custody::{Account, ConnectionToken, CustodyError, provider_secret_ref};
use caracal_policy::{ContentSha256, ManifestSha256};
use caracal_store::applications::{self, Application};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::policies::{self, Policy, PolicyVersion};
use caracal_store::policy_sets::{self, PolicySet, PolicySetVersion};
use caracal_store::provider_connections::{self, Connection};
use caracal_store::providers::{self, Provider};
use caracal_store::records::{self, RecordRow};
use caracal_store::resources::{self, CallLimits, Operation, Resource};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::subject_issuers::{self, SubjectIssuer};
use caracal_store::workloads::{self, Binding, Bindings, Workload};
use caracal_store::zones::{self, Zone};
use caracal_store::{Attribution, StoreError};
use serde_json::{Map, Value};

use super::{APP, DOCS, NOTES, OTHER_ZONE, SECRET_HASH, WORKLOAD, World, ZONE, zone};

/// `reader` may read, `writer` may write as well. `app-notes` owns the notes.
pub(crate) const POLICY: &str = r#"
app_ids := {"docs": "app-docs", "notes": "app-notes"}
grants := {
  "resource://docs": {"application": "docs", "roles": {"reader": ["docs:read"], "writer": ["docs:read", "docs:write"]}},
  "resource://notes": {"application": "notes", "roles": {"reader": ["notes:read"]}},
}
"#;

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// All at once, so that the changes share a sync.
pub(crate) async fn seed(world: &World) {
    tokio::join!(
        world.add_zone(ZONE),
        world.add_zone(OTHER_ZONE),
        world.add_application(APP, |_| {}),
        world.add_application("app-notes", |_| {}),
        world.add_resource("r-docs", DOCS, |_| {}),
        world.add_resource("r-notes", NOTES, |row| {
            row.scopes = vec!["notes:read".to_owned()];
            row.operations.clear();
        }),
        world.add_record("rec-app", |_| {}),
        world.add_session("s-root", |_| {}),
        world.add_session("s-1", |row| row.parent_id = Some(AgentSessionId::parse("s-root").unwrap())),
        world.add_edge("e-1", |_| {}),
        world.activate(POLICY),
    );
}

impl World {
    fn created(&self) -> Attribution {
        Attribution::created("admin", self.store.now())
    }

    pub(crate) async fn add_zone(&self, id: &str) {
        let row = Zone {
            id: ZoneId::parse(id).unwrap(),
            name: id.to_owned(),
            slug: id.to_owned(),
            dcr_enabled: false,
            operator_coauthor_badge: false,
            operator_governed: false,
            attribution: self.created(),
            archived_at: None,
        };
        let done: Result<(), StoreError> =
            self.store.commit_deployment(row, |tx, row| Box::pin(async move { zones::add(tx, row).await })).await;
        done.unwrap();
    }

    /// An application with the usual secret, in the zone.
    pub(crate) async fn add_application(&self, id: &str, change: impl FnOnce(&mut Application)) {
        let mut row = Application {
            zone_id: zone(),
            id: ApplicationId::parse(id).unwrap(),
            name: format!("Name of {id}"),
            registration_method: "managed".to_owned(),
            traits: Vec::new(),
            secret_hash: Some(SECRET_HASH.to_owned()),
            expires_at: None,
            archived_at: None,
            attribution: self.created(),
        };
        change(&mut row);
        let home = row.zone_id.clone();
        let done: Result<(), StoreError> =
            self.store.commit(&home, row, |tx, row| Box::pin(async move { applications::add(tx, row).await })).await;
        done.unwrap();
    }

    /// The workload `w-1` with the usual secret, in the zone, and what is bound to it.
    pub(crate) async fn add_workload(&self, bindings: &[Binding]) {
        let row = Workload {
            zone_id: zone(),
            id: WorkloadId::parse(WORKLOAD).unwrap(),
            name: "nightly".to_owned(),
            secret_hash: SECRET_HASH.to_owned(),
            bindings: Bindings::of(bindings),
            attribution: self.created(),
        };
        self.change(row, |tx, row| Box::pin(async move { workloads::add(tx, row).await })).await;
    }

    /// Changes it.
    pub(crate) async fn change_workload(&self, change: impl FnOnce(&mut Workload)) {
        let id = WorkloadId::parse(WORKLOAD).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut row = workloads::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap();
        drop(snapshot);
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { workloads::update(tx, row).await })).await;
    }

    /// Changes an application that is there.
    pub(crate) async fn change_application(&self, id: &str, change: impl FnOnce(&mut Application)) {
        let id = ApplicationId::parse(id).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut row = applications::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap();
        drop(snapshot);
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { applications::update(tx, row).await })).await;
    }

    /// A registration of the identity provider, in the zone.
    pub(crate) async fn add_issuer(&self, id: &str, jwks_url: &str, change: impl FnOnce(&mut SubjectIssuer)) {
        let mut row = SubjectIssuer {
            zone_id: zone(),
            id: SubjectIssuerId::parse(id).unwrap(),
            issuer: super::IDP.to_owned(),
            jwks_url: jwks_url.to_owned(),
            audience: super::AUDIENCE.to_owned(),
            archived_at: None,
            attribution: self.created(),
        };
        change(&mut row);
        let home = row.zone_id.clone();
        let done: Result<(), StoreError> =
            self.store.commit(&home, row, |tx, row| Box::pin(async move { subject_issuers::add(tx, row).await })).await;
        done.unwrap();
    }

    /// Changes a registration that is there.
    pub(crate) async fn change_issuer(&self, id: &str, change: impl FnOnce(&mut SubjectIssuer)) {
        let id = SubjectIssuerId::parse(id).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut row = subject_issuers::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap();
        drop(snapshot);
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { subject_issuers::update(tx, row).await })).await;
    }

    pub(crate) async fn archive_issuer(&self, id: &str) {
        let id = SubjectIssuerId::parse(id).unwrap();
        self.change(id, |tx, id| Box::pin(async move { subject_issuers::archive(tx, id, "x").await })).await;
    }

    pub(crate) async fn add_resource(&self, id: &str, identifier: &str, change: impl FnOnce(&mut Resource)) {
        let operation = |method: &str, scope: &str| Operation {
            method: method.to_owned(),
            path: "/items".to_owned(),
            scope: scope.to_owned(),
        };
        let mut row = Resource {
            zone_id: zone(),
            id: ResourceId::parse(id).unwrap(),
            name: id.to_owned(),
            identifier: identifier.to_owned(),
            upstream_url: Some("https://upstream.example/base".to_owned()),
            scopes: vec!["docs:read".to_owned(), "docs:write".to_owned()],
            credential_provider_id: None,
            operations: vec![operation("GET", "docs:read"), operation("POST", "docs:write")],
            operation_enforcement: "enforced".to_owned(),
            limits: CallLimits::default(),
            archived_at: None,
            attribution: self.created(),
        };
        change(&mut row);
        let home = row.zone_id.clone();
        let done: Result<(), StoreError> =
            self.store.commit(&home, row, |tx, row| Box::pin(async move { resources::add(tx, row).await })).await;
        done.unwrap();
    }

    /// Changes a resource that is there.
    pub(crate) async fn change_resource(&self, id: &str, change: impl FnOnce(&mut Resource)) {
        let id = ResourceId::parse(id).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut row = resources::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap();
        drop(snapshot);
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { resources::update(tx, row).await })).await;
    }

    /// Puts a provider in front of `resource://docs`. `secret` is its sealed document, if it has one.
    pub(crate) async fn provide(&self, kind: &str, config: Value, secret: Option<Value>) -> ProviderId {
        let id = ProviderId::parse(&format!("p-{}", caracal_crypto::chance::uuid_v4().unwrap())).unwrap();
        let row = Provider {
            zone_id: zone(),
            id: id.clone(),
            name: "Provider".to_owned(),
            identifier: format!("provider://{id}"),
            kind: kind.to_owned(),
            config: map(config),
            secret_config_keys: Vec::new(),
            connectivity_failed_at: None,
            archived_at: None,
            attribution: self.created(),
        };
        let document = secret.map(|secret| secret.to_string());
        let done: Result<(), CustodyError> = self
            .store
            .commit(&zone(), (row, document, self.secrets.clone()), |tx, (row, document, secrets)| {
                Box::pin(async move {
                    providers::add(tx, row).await?;
                    if let Some(document) = document {
                        let place = provider_secret_ref(&row.zone_id, &row.id);
                        secrets.put(tx, &place, document.as_bytes()).await?;
                    }
                    Ok(())
                })
            })
            .await;
        done.unwrap();
        self.change_resource("r-docs", |row| row.credential_provider_id = Some(id.clone())).await;
        id
    }

    /// An active account of `subject` at `provider`, with the access token `at-old`. It runs out so many seconds from now,
    /// and can be renewed where there is a refresh token.
    pub(crate) async fn add_account(
        &self,
        provider: &ProviderId,
        subject: &str,
        seconds: Option<u64>,
        refresh_token: Option<&str>,
    ) -> ConnectionId {
        let (now, text) = (self.store.now(), |text: &str| SecretText::new(text.to_owned()));
        let zone = zone();
        let account = Account { zone: &zone, provider, subject };
        let seal = |which, token: &str| self.secrets.seal_token(which, account, &text(token)).unwrap();
        let id = ConnectionId::parse(&format!("c-{}", caracal_crypto::chance::uuid_v4().unwrap())).unwrap();
        let row = Connection {
            zone_id: zone.clone(),
            id: id.clone(),
            subject_id: subject.to_owned(),
            provider_id: provider.clone(),
            status: "active".to_owned(),
            access_token: seal(ConnectionToken::Access, "at-old"),
            refresh_token: refresh_token.map(|token| seal(ConnectionToken::Refresh, token)),
            expires_at: seconds.map(|seconds| now.plus(Duration::from_secs(seconds))),
            refreshed_at: None,
            version: 0,
            lease_until: None,
            refresh_failed_at: None,
            created_at: now,
            updated_at: now,
        };
        self.change(row, |tx, row| Box::pin(async move { provider_connections::add(tx, row).await })).await;
        id
    }

    pub(crate) async fn account(&self, id: &ConnectionId) -> Connection {
        let mut snapshot = self.store.snapshot().await.unwrap();
        provider_connections::lookup(&mut snapshot.zone(&zone()), id).await.unwrap().unwrap()
    }

    /// An application record of `app-docs` that lives for an hour.
    pub(crate) async fn add_record(&self, id: &str, change: impl FnOnce(&mut RecordRow)) {
        let now = self.store.now();
        let mut row = RecordRow {
            zone_id: zone(),
            id: AuthorityRecordId::parse(id).unwrap(),
            kind: "application".to_owned(),
            subject_id: APP.to_owned(),
            client_id: ApplicationId::parse(APP).unwrap(),
            use_class: "session".to_owned(),
            jti: format!("jti-of-{id}"),
            status: "active".to_owned(),
            parent_id: None,
            agent_session_id: None,
            delegation_edge_id: None,
            expires_at: now.plus(Duration::from_secs(3600)),
            created_at: now,
            revoked_at: None,
            revoked_reason: None,
            provenance: None,
        };
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { records::add(tx, row).await })).await;
    }

    /// Revokes a record and what descends from it.
    pub(crate) async fn revoke_record(&self, id: &str) {
        let id = AuthorityRecordId::parse(id).unwrap();
        self.change(id, |tx, id| Box::pin(async move { records::revoke_with_descendants(tx, id, "test").await })).await;
    }

    /// A task of `app-docs` with the role `reader`, for an hour, anchored to `rec-app`.
    pub(crate) async fn add_session(&self, id: &str, change: impl FnOnce(&mut SessionRow)) {
        let now = self.store.now();
        let mut row = SessionRow {
            zone_id: zone(),
            id: AgentSessionId::parse(id).unwrap(),
            application_id: ApplicationId::parse(APP).unwrap(),
            parent_id: None,
            subject_record_id: AuthorityRecordId::parse("rec-app").unwrap(),
            lifecycle: "task".to_owned(),
            labels: vec!["reader".to_owned()],
            metadata: Map::new(),
            status: "active".to_owned(),
            depth: 0,
            ttl_seconds: Some(3600),
            started_at: now,
            last_active_at: now,
            last_heartbeat_at: None,
            heartbeat_deadline_at: None,
            lease_generation: 0,
            terminated_at: None,
            termination_reason: None,
            updated_at: now,
        };
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { sessions::add(tx, row).await })).await;
    }

    /// An edge that lends `docs:read` on `resource://docs` from `s-root` to `s-1`, for half an hour.
    pub(crate) async fn add_edge(&self, id: &str, change: impl FnOnce(&mut EdgeRow)) {
        let now = self.store.now();
        let mut row = EdgeRow {
            zone_id: zone(),
            id: EdgeId::parse(id).unwrap(),
            source_session_id: AgentSessionId::parse("s-root").unwrap(),
            target_session_id: AgentSessionId::parse("s-1").unwrap(),
            issuer_application_id: ApplicationId::parse(APP).unwrap(),
            receiver_application_id: ApplicationId::parse(APP).unwrap(),
            parent_edge_id: None,
            mirrored: false,
            resource_id: Some(ResourceId::parse("r-docs").unwrap()),
            scopes: vec!["docs:read".to_owned()],
            constraints: Map::new(),
            status: "active".to_owned(),
            expires_at: now.plus(Duration::from_secs(1800)),
            edge_version: 0,
            broad_reason: None,
            revoked_at: None,
            created_at: now,
        };
        change(&mut row);
        self.change(row, |tx, row| Box::pin(async move { delegations::add(tx, row).await })).await;
    }

    /// An edge to a session of its own with these constraints, as stored.
    pub(crate) async fn add_constrained(&self, name: &str, constraints: Value) {
        let session = AgentSessionId::parse(&format!("s-{name}")).unwrap();
        self.add_session(session.as_str(), |_| {}).await;
        self.add_edge(&format!("e-{name}"), |row| {
            row.target_session_id = session.clone();
            row.constraints = map(constraints);
        })
        .await;
    }

    pub(crate) async fn revoke_edge(&self, id: &str) {
        let id = EdgeId::parse(id).unwrap();
        self.change(id, |tx, id| Box::pin(async move { delegations::revoke(tx, id).await })).await;
    }

    /// Makes `rules` the zone's whole policy, and says which set version that is.
    pub(crate) async fn activate(&self, rules: &str) -> PolicySetVersionId {
        self.activate_in(&zone(), rules).await
    }

    /// The same in another zone.
    pub(crate) async fn activate_in(&self, zone: &ZoneId, rules: &str) -> PolicySetVersionId {
        let content = format!("# caracal:data-document\npackage caracal.authz\n\nimport rego.v1\n{rules}");
        let content_sha256 = ContentSha256::of(&content).to_string();
        self.activate_text(zone, content, content_sha256).await
    }

    /// The same, with a content hash that may be wrong.
    pub(crate) async fn activate_as(&self, content: String, content_sha256: String) -> PolicySetVersionId {
        self.activate_text(&zone(), content, content_sha256).await
    }

    async fn activate_text(&self, zone: &ZoneId, content: String, content_sha256: String) -> PolicySetVersionId {
        let fresh = caracal_crypto::chance::uuid_v4().unwrap();
        let now = self.store.now();
        let policy = Policy {
            zone_id: zone.clone(),
            id: PolicyId::parse(&format!("pol-{fresh}")).unwrap(),
            name: fresh.to_string(),
            description: None,
            archived_at: None,
            attribution: self.created(),
        };
        let version = PolicyVersion {
            zone_id: zone.clone(),
            id: PolicyVersionId::parse(&format!("pv-{fresh}")).unwrap(),
            policy_id: policy.id.clone(),
            version: 1,
            content,
            content_sha256,
            schema_version: "2026-05-20".to_owned(),
            created_by: None,
            created_via_operator: false,
            created_at: now,
        };
        let set = PolicySet {
            zone_id: zone.clone(),
            id: PolicySetId::parse(&format!("ps-{fresh}")).unwrap(),
            name: fresh.to_string(),
            description: None,
            archived_at: None,
            active_version_id: None,
            attribution: self.created(),
        };
        let set_version = PolicySetVersion {
            zone_id: zone.clone(),
            id: PolicySetVersionId::parse(&format!("psv-{fresh}")).unwrap(),
            policy_set_id: set.id.clone(),
            version: 1,
            manifest: vec![version.id.clone()],
            manifest_sha256: ManifestSha256::of([version.id.as_str()]).to_string(),
            schema_version: "2026-05-20".to_owned(),
            created_by: None,
            created_via_operator: false,
            created_at: now,
        };
        let made = set_version.id.clone();
        let rows = (policy, version, set, set_version);
        let done: Result<(), StoreError> = self
            .store
            .commit(zone, rows, |tx, (policy, version, set, set_version)| {
                Box::pin(async move {
                    policies::add(tx, policy).await?;
                    policies::add_version(tx, version).await?;
                    policy_sets::add(tx, set).await?;
                    policy_sets::add_version(tx, set_version).await?;
                    policy_sets::activate(tx, &set.id, &set_version.id).await
                })
            })
            .await;
        done.unwrap();
        made
    }
}

/// An instant so many seconds after [`super::START`].
pub(crate) fn after(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(super::START + seconds)
}
