//! Authority that stands in a zone, put there as the STS and the Coordinator would: records, sessions, delegations.

use std::time::Duration;

use caracal_authority::session::SessionFacts;
use caracal_authority::{AgentSessionId, AuthorityRecordId, EdgeId, ZoneId};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Metadata, MetadataKey};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::records::{self, Provenance, RecordRow};
use caracal_store::sessions::{self, SessionRow};
use caracal_store::{Message, StoreError};
use serde_json::{Map, json};

use crate::world::World;

/// What is to stand in a zone.
#[derive(Default, Clone)]
pub(crate) struct Standing {
    pub(crate) records: Vec<RecordRow>,
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) edges: Vec<EdgeRow>,
}

impl World {
    /// A record of an application for itself, alive for an hour.
    pub(crate) fn record(&self, zone: &str, id: &str, subject: &str) -> RecordRow {
        let now = self.store.now();
        RecordRow {
            zone_id: zone.parse().unwrap(),
            id: id.parse().unwrap(),
            kind: "application".to_owned(),
            subject_id: subject.to_owned(),
            client_id: "whatever".parse().unwrap(),
            use_class: "session".to_owned(),
            jti: format!("jti-{id}"),
            status: "active".to_owned(),
            parent_id: None,
            agent_session_id: None,
            delegation_edge_id: None,
            expires_at: now.plus(Duration::from_secs(3_600)),
            created_at: now,
            revoked_at: None,
            revoked_reason: None,
            provenance: None,
        }
    }

    /// A record of a user, asked for by `client`.
    pub(crate) fn user_record(&self, zone: &str, id: &str, user: &str, client: &str) -> RecordRow {
        RecordRow {
            kind: "user".to_owned(),
            client_id: client.parse().unwrap(),
            provenance: Some(Provenance { iss: "https://idp.example".to_owned() }),
            ..self.record(zone, id, user)
        }
    }

    /// A task of ten minutes that rides `record`.
    pub(crate) fn session(&self, zone: &str, id: &str, application: &str, record: &str) -> SessionRow {
        let now = self.store.now();
        SessionRow {
            zone_id: zone.parse().unwrap(),
            id: id.parse().unwrap(),
            application_id: application.parse().unwrap(),
            parent_id: None,
            subject_record_id: record.parse().unwrap(),
            lifecycle: "task".to_owned(),
            labels: vec!["{role},x".to_owned()],
            metadata: Map::new(),
            status: "active".to_owned(),
            depth: 0,
            ttl_seconds: Some(600),
            started_at: now,
            last_active_at: now,
            last_heartbeat_at: None,
            heartbeat_deadline_at: None,
            lease_generation: 0,
            terminated_at: None,
            termination_reason: None,
            updated_at: now,
        }
    }

    /// A delegation from one session to another, for ten minutes.
    pub(crate) fn edge(&self, zone: &str, id: &str, (source, target): (&str, &str)) -> EdgeRow {
        let now = self.store.now();
        EdgeRow {
            zone_id: zone.parse().unwrap(),
            id: id.parse().unwrap(),
            source_session_id: source.parse().unwrap(),
            target_session_id: target.parse().unwrap(),
            issuer_application_id: "whatever".parse().unwrap(),
            receiver_application_id: "whatever".parse().unwrap(),
            parent_edge_id: None,
            mirrored: false,
            resource_id: None,
            scopes: vec!["read".to_owned()],
            constraints: Map::new(),
            status: "active".to_owned(),
            expires_at: now.plus(Duration::from_secs(600)),
            edge_version: 0,
            broad_reason: Some("test".to_owned()),
            revoked_at: None,
            created_at: now,
        }
    }

    pub(crate) async fn stand(&self, zone: &str, standing: Standing) {
        let added: Result<(), StoreError> = self
            .store
            .commit(&ZoneId::parse(zone).unwrap(), standing, |tx, standing| {
                Box::pin(async move {
                    for record in &standing.records {
                        records::add(tx, record).await?;
                    }
                    for session in &standing.sessions {
                        sessions::add(tx, session).await?;
                    }
                    for edge in &standing.edges {
                        delegations::add(tx, edge).await?;
                    }
                    Ok(())
                })
            })
            .await;
        added.unwrap();
    }

    /// The evidence that `record` was granted for `resource`.
    pub(crate) async fn granted(&self, zone: &str, record: &str, resource: &str) {
        let zone = ZoneId::parse(zone).unwrap();
        let id = format!("event-of-{record}").parse().unwrap();
        let event = Evidence::new(
            id,
            zone.clone(),
            EventType::TokenExchange,
            Decision::Allow,
            EvaluationStatus::Complete,
            self.store.now(),
        );
        let metadata =
            Metadata::new().with(MetadataKey::Resource, resource).with(MetadataKey::AuthorityRecordId, record);
        let event = event.request("req-1").with_metadata(metadata);
        let ledger = self.ledger.clone();
        let recorded: Result<(), StoreError> = self
            .store
            .commit(&zone, (ledger, event), |tx, (ledger, event)| {
                Box::pin(async move { ledger.record(tx, std::slice::from_ref(event)).await })
            })
            .await;
        recorded.unwrap();
    }

    /// Status of a record, and why it was revoked.
    pub(crate) async fn record_state(&self, zone: &str, id: &str) -> (String, Option<String>) {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let (zone, id) = (ZoneId::parse(zone).unwrap(), AuthorityRecordId::parse(id).unwrap());
        let row = records::lookup(&mut snapshot.zone(&zone), &id).await.unwrap().unwrap();
        (row.status, row.revoked_reason)
    }

    /// Status of a session, and why it ended.
    pub(crate) async fn session_state(&self, zone: &str, id: &str) -> (String, Option<String>) {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let (zone, id) = (ZoneId::parse(zone).unwrap(), AgentSessionId::parse(id).unwrap());
        let row = sessions::lookup(&mut snapshot.zone(&zone), &id).await.unwrap().unwrap();
        let _: SessionFacts = row.facts().unwrap();
        (row.status, row.termination_reason)
    }

    /// Status of a delegation.
    pub(crate) async fn edge_state(&self, zone: &str, id: &str) -> String {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let (zone, id) = (ZoneId::parse(zone).unwrap(), EdgeId::parse(id).unwrap());
        delegations::lookup(&mut snapshot.zone(&zone), &id).await.unwrap().unwrap().status
    }

    /// What was announced as revoked: kind of anchor, its id and the reason, in order of their text.
    pub(crate) fn revoked(&self) -> Vec<String> {
        let heard = self.messages.lock().unwrap();
        let told = |message: &Message| {
            let anchors = ["agent_session_id", "delegation_edge_id", "session_id"];
            let anchor = anchors.into_iter().find_map(|name| message.field(name).map(|id| format!("{name} {id}")));
            format!("{} {}", anchor.unwrap(), message.field("reason").unwrap())
        };
        let mut told: Vec<String> =
            heard.iter().filter(|message| message.topic == "caracal.sessions.revoke").map(told).collect();
        told.sort();
        told
    }

    /// A user's record with a session and its child, a delegation from there to another application's session, and that
    /// application's own record; ids carry `prefix`.
    pub(crate) async fn stand_usual(&self, zone: &str, prefix: &str, user: &str, client: &str) {
        let id = |name: &str| format!("{prefix}-{name}");
        let minted = RecordRow {
            parent_id: Some(id("user").parse().unwrap()),
            use_class: "gateway".to_owned(),
            ..self.record(zone, &id("minted"), "another-app")
        };
        let child = SessionRow {
            parent_id: Some(id("root").parse().unwrap()),
            depth: 1,
            ..self.session(zone, &id("child"), client, &id("user"))
        };
        self.stand(
            zone,
            Standing {
                records: vec![
                    self.user_record(zone, &id("user"), user, client),
                    minted,
                    self.record(zone, &id("bystander"), "bystander"),
                ],
                sessions: vec![
                    self.session(zone, &id("root"), client, &id("user")),
                    child,
                    self.session(zone, &id("other"), "other-app", &id("bystander")),
                ],
                edges: vec![self.edge(zone, &id("edge"), (&id("child"), &id("other")))],
            },
        )
        .await;
    }
}

/// What a zone answers when nothing of `stand_usual` was left alive but the bystander's.
pub(crate) fn usual_revocations(prefix: &str, reason: &str) -> Vec<String> {
    let mut expected: Vec<String> = [
        ("agent_session_id", "child"),
        ("agent_session_id", "root"),
        ("delegation_edge_id", "edge"),
        ("session_id", "minted"),
        ("session_id", "user"),
    ]
    .into_iter()
    .map(|(anchor, name)| format!("{anchor} {prefix}-{name} {reason}"))
    .collect();
    expected.sort();
    expected
}

/// `{"name": …}` of an application that operators manage.
pub(crate) fn managed(name: &str) -> serde_json::Value {
    json!({"name": name, "registration_method": "managed"})
}
