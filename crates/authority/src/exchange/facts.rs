//! What is known when an exchange is decided: one consistent snapshot. What is not in it denies.

use crate::approval::{Hold, PolicyStamp};
use crate::control::ControlKey;
use crate::delegation::Edge;
use crate::federation::PresentedIdToken;
use crate::mandate::Claims;
use crate::record::RecordFacts;
use crate::resource::Resource;
use crate::session::SessionFacts;
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, Timestamp, ZoneId};

/// The calling application: present means it exists, is not archived, and proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The application.
    pub id: ApplicationId,
    /// Its zone.
    pub zone: ZoneId,
    /// When its registration ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// The key to the Control endpoint that it is, if it is one.
    pub control: Option<ControlKey>,
}

/// How far the subject's account at an upstream provider is usable (contract: sts.md §3.8 rows 8b and 8c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Connection {
    /// No active connection with an access token.
    #[default]
    NotProvisioned,
    /// A usable one.
    Ready,
    /// There was one; refreshing it failed.
    RefreshFailed(RefreshFailure),
}

/// Why a connection could not be refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshFailure {
    /// Nothing can renew it.
    NotRenewable,
    /// Its new tokens could not be stored.
    NotStored,
    /// Nobody could say who refreshes it.
    Uncoordinated,
}

impl RefreshFailure {
    /// The error code of the exchange, and the reason in its evidence.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotRenewable => "credential_expired_not_renewable",
            Self::NotStored => "internal_error",
            Self::Uncoordinated => "sts_unavailable",
        }
    }
}

/// A resource found under one of the requested names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFacts {
    /// The name it was requested by: its identifier or its id.
    pub requested: String,
    /// The resource.
    pub resource: Resource,
    /// Where it lies: an approval is good for that place only.
    pub upstream: Option<String>,
    /// The subject's connection, for providers that need one.
    pub connection: Connection,
}

/// One snapshot.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The store's clock at the snapshot.
    pub now: Option<Timestamp>,
    /// The authenticated client.
    pub client: Option<Client>,
    /// The claims of the presented mandate: signature verified, and accepted by [`Claims::accept`].
    pub subject: Option<Claims>,
    /// The presented id_token; absent where none that could be looked at was presented.
    pub federation: Option<PresentedIdToken>,
    /// Authority records found: the referenced one, and those the sessions are anchored to.
    pub records: Vec<RecordFacts>,
    /// Sessions found: the referenced one, and the source of the delegation.
    pub sessions: Vec<SessionFacts>,
    /// The lineage of the referenced edge, root first, whatever its state.
    pub lineage: Vec<Edge>,
    /// The zone's delegation epoch, 0 when it has none; absent when it could not be read.
    pub epoch: Option<u64>,
    /// Unarchived resources found, one per requested name.
    pub resources: Vec<ResourceFacts>,
    /// The audience that only control keys may ask for. Always known, so that it can never be forgotten.
    pub control_audience: String,
    /// Holds found: the one that the request brings, and the one that answers for it.
    pub holds: Vec<Hold>,
    /// The policy that is asked.
    pub policy: PolicyStamp,
}

impl Facts {
    /// A snapshot in which nothing was found.
    pub fn none(control_audience: impl Into<String>) -> Self {
        Self {
            now: None,
            client: None,
            subject: None,
            federation: None,
            records: Vec::new(),
            sessions: Vec::new(),
            lineage: Vec::new(),
            epoch: None,
            resources: Vec::new(),
            control_audience: control_audience.into(),
            holds: Vec::new(),
            policy: PolicyStamp::default(),
        }
    }

    pub(super) fn record(&self, zone: &ZoneId, id: &AuthorityRecordId) -> Option<&RecordFacts> {
        self.records.iter().find(|record| record.id == *id && record.zone == *zone)
    }

    pub(super) fn session(&self, zone: &ZoneId, id: &AgentSessionId) -> Option<&SessionFacts> {
        self.sessions.iter().find(|session| session.id == *id && session.zone == *zone)
    }

    /// The resource a requested name means. A row that bears neither of the two names is no answer to the question.
    pub(super) fn resource(&self, zone: &ZoneId, name: &str) -> Option<&ResourceFacts> {
        self.resources.iter().find(|found| {
            let row = &found.resource;
            found.requested == name
                && row.zone == *zone
                && (row.name.identifier.as_str() == name || row.name.id.as_str() == name)
        })
    }
}
