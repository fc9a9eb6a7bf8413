//! Management evidence: who changed what, and who was refused what (contract: admin-api.md §9).
//!
//! A change writes its record inside its own transaction and gets a [`Recorded`] for it, without which it has no
//! success to answer. So no crash and no full disk lies between a change and its evidence: both are there, or neither.
//! A refusal changes nothing; its record follows in the background through a bounded queue, and when that is full the
//! refusal is logged and counted instead: nobody can grow our memory by being refused.
//!
//! What a record says of a body are the names of its members, never a value, and not the names of secrets either.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use caracal_authority::ZoneId;
use caracal_crypto::chance::uuid_v7;
use caracal_http::{Problem, redact};
use caracal_ledger::{AdminRecord, Ledger};
use caracal_store::admin_tokens::AdminToken;
use caracal_store::receipts::Keyed;
use caracal_store::{DeploymentWrite, Store, StoreError, ZoneWrite};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use crate::answer::Recorded;
use crate::endings::Ended;
use crate::gate::{Route, Visit};
use crate::idempotency;
use crate::problem::Refusal;

/// Path segments behind which an object's id may follow.
const COLLECTIONS: [&str; 16] = [
    "zones",
    "applications",
    "workloads",
    "resources",
    "providers",
    "provider-connections",
    "policies",
    "policy-sets",
    "policy-templates",
    "grants",
    "subject-issuers",
    "subjects",
    "approvals",
    "notification-sinks",
    "admin-tokens",
    "operator-conversations",
];

/// Members at the top of a body that some route takes. Where a body has more names than a record holds, these come
/// first: whoever pads a body with members that nobody reads can't push what took effect off the record.
const EFFECTIVE: [&str; 35] = [
    "name",
    "slug",
    "dcr_enabled",
    "registration_method",
    "client_secret",
    "traits",
    "identifier",
    "kind",
    "config_json",
    "check",
    "upstream_url",
    "scopes",
    "credential_provider_id",
    "operations",
    "operation_enforcement",
    "content",
    "description",
    "manifest",
    "version_id",
    "reason",
    "bindings",
    "dcr_shutdown",
    "operator_coauthor_badge",
    "operator_governed",
    "expires_in",
    "subject_id",
    "scope",
    "zone_id",
    "capability",
    "expires_at",
    "retention_days",
    "limit_per_minute",
    "url",
    "event_types",
    "active",
];

/// Whether objects follow behind this segment of a path.
pub(crate) fn is_collection(segment: &str) -> bool {
    COLLECTIONS.contains(&segment)
}

const MAX_FIELDS: usize = 64;
const MAX_DEPTH: usize = 3;
const MAX_PATH: usize = 1024;
const MAX_NAME: usize = 256;

/// What the record of one request will say, whatever becomes of it.
#[derive(Clone)]
pub(crate) struct Trace {
    ledger: Ledger,
    record: AdminRecord,
    /// The chain it goes to: the token's own zone, else the zone of the path if there is one.
    chain: Option<ZoneId>,
    /// The path ends in a collection: a 201 is about the object that was created.
    collection: Option<&'static str>,
    change: Change,
    /// Nothing is to be changed: the caller asks what would be.
    is_rehearsal: bool,
    /// Under which key something is created.
    keyed: Option<Arc<Keyed>>,
}

/// What a successful change was, for `change_kind`, `changed_fields` and `secret_rotated`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Change {
    kind: Option<&'static str>,
    fields: Vec<String>,
    secrets: bool,
}

impl Trace {
    /// The trace of a request that a route was found for and whose token is known.
    #[allow(clippy::too_many_arguments, reason = "each is one fact of the record")]
    pub(crate) fn of(
        ledger: &Ledger,
        visit: &Visit,
        route: &Route,
        parts: &Parts,
        token: &AdminToken,
        chain: Option<ZoneId>,
        body: Option<&Value>,
        ids: &[(String, String)],
    ) -> Result<Self, Refusal> {
        let mut trace = Self::of_unmatched(ledger, visit, parts, token)?;
        trace.chain = chain;
        Ok(trace.about(route, body, ids))
    }

    /// The trace of a visitor of one zone: nobody is on record.
    pub(crate) fn of_visitor(
        ledger: &Ledger,
        visit: &Visit,
        route: &Route,
        parts: &Parts,
        zone: &ZoneId,
        ids: &[(String, String)],
    ) -> Result<Self, Refusal> {
        let trace = Self::by(ledger, visit, parts, None, Some(zone))?;
        Ok(trace.about(route, None, ids))
    }

    fn about(mut self, route: &Route, body: Option<&Value>, ids: &[(String, String)]) -> Self {
        let segments: Vec<&'static str> = route.path.split('/').skip(2).collect();
        let (entity, verb) = entity(&segments, ids);
        if let Some((collection, id)) = entity {
            self.record.entity_type = Some(collection.to_owned());
            self.record.entity_id = Some(id);
        }
        // An application that registers itself is made below the collection that it then is in.
        let made_in = segments.iter().rev().find(|segment| **segment != "dcr");
        self.collection = made_in.copied().filter(|last| COLLECTIONS.contains(last));
        self.change = Change::of(&route.method, verb, body);
        self
    }

    /// The trace of a request that no route was found for.
    pub(crate) fn of_unmatched(
        ledger: &Ledger,
        visit: &Visit,
        parts: &Parts,
        token: &AdminToken,
    ) -> Result<Self, Refusal> {
        Self::by(ledger, visit, parts, Some(token), token.zone_id.as_ref())
    }

    /// The trace of a request of `token`, if there is one, that is confined to `zone`, if it is to one.
    fn by(
        ledger: &Ledger,
        visit: &Visit,
        parts: &Parts,
        token: Option<&AdminToken>,
        zone: Option<&ZoneId>,
    ) -> Result<Self, Refusal> {
        let path: String = parts.uri.path().chars().take(MAX_PATH).collect();
        let mut payload = Map::new();
        let (mode, confined_to) = match zone {
            Some(zone) => ("zone_scoped", zone.as_str()),
            None => ("control_plane_wildcard", "*"),
        };
        payload.insert("rls_mode".to_owned(), mode.into());
        payload.insert("rls_zone_guc".to_owned(), confined_to.into());
        let record = AdminRecord {
            id: uuid_v7(visit.now)?.to_string(),
            request_id: visit.request_id.as_str().to_owned(),
            actor_id: token.map(|token| token.id.as_str().to_owned()),
            actor_name: token.map(|token| token.name.clone()),
            actor_scope: token.map(|token| token.scope.clone()),
            action: format!("{} {path}", parts.method),
            method: parts.method.as_str().to_owned(),
            path,
            zone: None,
            entity_type: None,
            entity_id: None,
            status_code: 0,
            payload: Some(payload),
            occurred_at: visit.now,
        };
        let ledger = ledger.clone();
        let (chain, change) = (zone.cloned(), Change::default());
        Ok(Self { ledger, record, chain, collection: None, change, is_rehearsal: false, keyed: None })
    }

    /// The same, done for a console account.
    pub(crate) fn by_operator(&self, account: &str) -> Self {
        let mut trace = self.clone();
        if let Some(payload) = &mut trace.record.payload {
            payload.insert("operator".to_owned(), account.into());
        }
        trace
    }

    /// The same, of a change that is taken back as soon as its record is written.
    pub(crate) fn rehearsed(&self) -> Self {
        Self { is_rehearsal: true, ..self.clone() }
    }

    /// The same, of a change that is remembered under a key.
    pub(crate) fn under(&self, keyed: Keyed) -> Self {
        Self { keyed: Some(Arc::new(keyed)), ..self.clone() }
    }

    /// The same, of a request whose change was made before.
    pub(crate) fn replayed(&self) -> Self {
        let mut trace = self.clone();
        trace.record.payload.get_or_insert_default().insert("idempotency_replayed".to_owned(), true.into());
        trace
    }

    /// The same, telling how much ended with the change.
    pub(crate) fn telling(&self, ended: Ended) -> Self {
        let mut trace = self.clone();
        let payload = trace.record.payload.get_or_insert_default();
        for (name, count) in [
            ("revoked_authority_records", ended.records),
            ("terminated_sessions", ended.sessions),
            ("revoked_delegations", ended.delegations),
        ] {
            payload.insert(name.to_owned(), count.into());
        }
        trace
    }

    /// The proof that `record` is written, or all that a rehearsal comes to.
    fn done(&self, status: StatusCode, record: AdminRecord) -> Result<Recorded, Refusal> {
        if !self.is_rehearsal {
            return Ok(Recorded::with(status));
        }
        let mut told = Map::new();
        told.insert("dry_run".to_owned(), true.into());
        told.insert("would_answer".to_owned(), status.as_u16().into());
        let whose = ["rls_mode", "rls_zone_guc", "operator"];
        let what = record.payload.unwrap_or_default().into_iter();
        told.extend(what.filter(|(name, _)| !whose.contains(&name.as_str())));
        Err(Refusal::rehearsed(told.into()))
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.is_rehearsal
    }

    /// The request that is on record.
    pub(crate) fn request_id(&self) -> &str {
        &self.record.request_id
    }

    /// The token that is on record; empty when there is none.
    pub(crate) fn actor(&self) -> &str {
        self.record.actor_id.as_deref().unwrap_or_default()
    }

    /// The zone whose chain takes the record; none is the chain of what belongs to no zone.
    pub(crate) fn chain(&self) -> Option<&ZoneId> {
        self.chain.as_ref()
    }

    /// Writes the record of a successful change into its transaction. `created` is the id of what a 201 made.
    pub(crate) async fn change(
        &self,
        tx: &mut ZoneWrite<'_>,
        status: StatusCode,
        created: Option<&str>,
    ) -> Result<Recorded, Refusal> {
        let mut record = self.success(status, created);
        record.zone = Some(tx.zone().clone());
        record.occurred_at = tx.now();
        self.ledger.record_change(tx, &record).await.map_err(unwritable)?;
        self.done(status, record)
    }

    /// The same for a 201. `shown` is the answer, without any secret: it is what a repeated request gets.
    pub(crate) async fn creation(
        &self,
        tx: &mut ZoneWrite<'_>,
        created: &str,
        shown: &impl Serialize,
    ) -> Result<Recorded, Refusal> {
        if let Some(keyed) = &self.keyed {
            idempotency::require_first(tx, keyed).await?;
            keyed.add_receipt(tx, created, StatusCode::CREATED.as_u16(), &as_json(shown)?).await?;
        }
        self.change(tx, StatusCode::CREATED, Some(created)).await
    }

    /// The same for a 201 of something that is found without knowing its zone.
    pub(crate) async fn remember_zoneless(
        &self,
        tx: &mut DeploymentWrite<'_>,
        created: &str,
        shown: &impl Serialize,
    ) -> Result<(), Refusal> {
        match &self.keyed {
            Some(keyed) => idempotency::remember_zoneless(tx, keyed, created, &as_json(shown)?).await,
            None => Ok(()),
        }
    }

    /// The same for a change that belongs to no zone.
    pub(crate) async fn zoneless_change(
        &self,
        tx: &mut DeploymentWrite<'_>,
        status: StatusCode,
    ) -> Result<Recorded, Refusal> {
        self.write_zoneless(tx, status, None).await
    }

    /// The same for a 201 of something that belongs to no zone.
    pub(crate) async fn zoneless_creation(
        &self,
        tx: &mut DeploymentWrite<'_>,
        created: &str,
        shown: &impl Serialize,
    ) -> Result<Recorded, Refusal> {
        self.remember_zoneless(tx, created, shown).await?;
        self.zoneless_record(tx, created).await
    }

    /// The record of a 201 of something that belongs to no zone.
    pub(crate) async fn zoneless_record(
        &self,
        tx: &mut DeploymentWrite<'_>,
        created: &str,
    ) -> Result<Recorded, Refusal> {
        self.write_zoneless(tx, StatusCode::CREATED, Some(created)).await
    }

    async fn write_zoneless(
        &self,
        tx: &mut DeploymentWrite<'_>,
        status: StatusCode,
        created: Option<&str>,
    ) -> Result<Recorded, Refusal> {
        let mut record = self.success(status, created);
        record.occurred_at = tx.now();
        self.ledger.record_zoneless_change(tx, &record).await.map_err(unwritable)?;
        self.done(status, record)
    }

    /// Writes a second record of the request, of what the change did beyond its own object, before the change's own.
    pub(crate) async fn consequence(
        &self,
        tx: &mut ZoneWrite<'_>,
        action: &str,
        entity: (&str, &str),
        payload: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let mut record = self.record.clone();
        record.id = uuid_v7(tx.now())?.to_string();
        record.action = action.to_owned();
        record.zone = Some(tx.zone().clone());
        record.entity_type = Some(entity.0.to_owned());
        record.entity_id = Some(entity.1.to_owned());
        record.status_code = StatusCode::OK.as_u16();
        record.payload.get_or_insert_default().extend(payload);
        record.occurred_at = tx.now();
        self.ledger.record_change(tx, &record).await.map_err(unwritable)
    }

    fn success(&self, status: StatusCode, created: Option<&str>) -> AdminRecord {
        let mut record = self.record.clone();
        record.status_code = status.as_u16();
        if let (Some(collection), Some(id), StatusCode::CREATED) = (self.collection, created, status) {
            record.entity_type = Some(collection.to_owned());
            record.entity_id = Some(id.to_owned());
        }
        if let Some(payload) = &mut record.payload {
            if let Some(kind) = self.change.kind {
                payload.insert("change_kind".to_owned(), kind.into());
            }
            payload.insert("changed_fields".to_owned(), self.change.fields.clone().into());
            if self.change.secrets {
                payload.insert("secret_rotated".to_owned(), true.into());
            }
        }
        record
    }

    fn refusal(&self, status: StatusCode) -> AdminRecord {
        AdminRecord { status_code: status.as_u16(), zone: self.chain.clone(), ..self.record.clone() }
    }
}

fn as_json(shown: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(shown).map_err(|_| Problem::internal().into())
}

/// A change whose record can't be written does not happen. A store that is down says so itself.
fn unwritable(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable { .. } => error.into(),
        _ => {
            let mut refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_unavailable")
                .describe("the change was not made, because its audit record could not be written");
            refusal.cause = Some(error.to_string().into());
            refusal
        }
    }
}

/// The innermost `<collection>/<next segment>` pair of a path, and the segment behind it if that is a verb.
fn entity(
    segments: &[&'static str],
    ids: &[(String, String)],
) -> (Option<(&'static str, String)>, Option<&'static str>) {
    let at = segments.windows(2).rposition(|pair| COLLECTIONS.contains(&pair[0]));
    let Some(at) = at else { return (None, None) };
    let next = segments[at + 1];
    let name = next.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    let id = match name {
        None => next.to_owned(),
        Some(name) => ids.iter().find(|(key, _)| key == name).map(|(_, id)| id.clone()).unwrap_or_default(),
    };
    let verb = segments.get(at + 2).copied().filter(|verb| !COLLECTIONS.contains(verb));
    (Some((segments[at], id)), verb)
}

impl Change {
    fn of(method: &Method, verb: Option<&'static str>, body: Option<&Value>) -> Self {
        let secrets = verb == Some("rotate-secret") || body.is_some_and(holds_secrets);
        let mut names = BTreeSet::new();
        if let Some(Value::Object(members)) = body {
            let (effective, others): (Vec<_>, Vec<_>) =
                members.iter().partition(|(name, _)| EFFECTIVE.contains(&name.as_str()));
            for (name, value) in effective.into_iter().chain(others) {
                collect(name, value, "", 0, &mut names);
            }
        }
        let fields: Vec<String> = names.into_iter().collect();
        let kind = if *method == Method::DELETE {
            Some("delete")
        } else if verb.is_some() {
            Some(if secrets { "secret_rotation" } else { "action" })
        } else if *method == Method::POST {
            Some("create")
        } else if secrets {
            Some("secret_rotation")
        } else {
            (!fields.is_empty()).then_some("update")
        };
        Self { kind, fields, secrets }
    }
}

/// Whether a member anywhere in `value` has the name of a secret. Looked for apart from the names, which are bounded.
fn holds_secrets(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, inner)| is_secret(name) || holds_secrets(inner)),
        Value::Array(items) => items.iter().any(holds_secrets),
        _ => false,
    }
}

fn is_secret(name: &str) -> bool {
    redact::is_secret_member(name)
}

/// Adds the dotted names of a member, as long as there is room; says whether there was one to add. An object without any
/// is listed itself.
fn collect(name: &str, value: &Value, prefix: &str, depth: usize, names: &mut BTreeSet<String>) -> bool {
    if is_secret(name) {
        return false;
    }
    let name: String = name.chars().filter(|character| *character != '\0').take(MAX_NAME).collect();
    let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
    let mut listed_below = false;
    if let Value::Object(inner) = value
        && depth < MAX_DEPTH
    {
        for (inner_name, value) in inner {
            listed_below |= collect(inner_name, value, &name, depth + 1, names);
        }
    }
    if !listed_below && names.len() < MAX_FIELDS {
        names.insert(name);
    }
    true
}

/// How many refusals may wait for their record.
const WAITING: usize = 1024;

/// A refusal that waits for its record.
type Refused = (Arc<Trace>, StatusCode);

/// Records refusals in the background.
pub(crate) struct Recorder {
    queue: mpsc::Sender<Refused>,
    waiting: Mutex<Option<mpsc::Receiver<Refused>>>,
    dropped: AtomicU64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { queue, waiting: Mutex::new(Some(waiting)), dropped: AtomicU64::new(0) }
    }

    /// Puts a refusal on the queue. Never waits.
    pub(crate) fn note(&self, trace: Arc<Trace>, status: StatusCode) {
        if self.queue.try_send((trace, status)).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // Once per doubling: a flood of refusals must not become a flood of log lines.
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "refusals of management requests are not on record, the queue is full");
            }
        }
    }

    /// Writes what is on the queue until `shutdown` turns true, then what is left. Runs at most once.
    pub(crate) async fn run(&self, store: &Store, mut shutdown: watch::Receiver<bool>) {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = taken else { return };
        loop {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                _ = shutdown.wait_for(|stop| *stop) => break,
            };
            match next {
                Some((trace, status)) => write(store, &trace, status, &shutdown).await,
                None => return,
            }
        }
        waiting.close();
        while let Some((trace, status)) = waiting.recv().await {
            write(store, &trace, status, &shutdown).await;
        }
    }
}

async fn write(store: &Store, trace: &Trace, status: StatusCode, stopping: &watch::Receiver<bool>) {
    let (zone, records) = (trace.chain.as_ref(), vec![trace.refusal(status)]);
    if let Err(error) = trace.ledger.record_afterwards(store, zone, records, stopping).await {
        tracing::error!(request_id = trace.record.request_id, %error, "a refusal could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    mod t05_secrets_evidence {
        use super::*;

        #[test]
        fn a_body_leaves_names_and_never_a_secrets_name_or_any_value() {
            let body = json!({"config_json": {"api_key": "x", "header_name": "y"}});
            let change = Change::of(&Method::PATCH, None, Some(&body));
            let expected = Change {
                kind: Some("secret_rotation"),
                fields: vec!["config_json.header_name".to_owned()],
                secrets: true,
            };
            assert_eq!(change, expected);
        }

        #[test]
        fn an_object_of_secrets_only_is_listed_itself() {
            let body = json!({"config_json": {"API_KEY": "x"}, "name": "n"});
            let change = Change::of(&Method::POST, None, Some(&body));
            assert_eq!(change.fields, ["config_json", "name"]);
            assert_eq!((change.kind, change.secrets), (Some("create"), true));
        }
    }

    #[test]
    fn the_kind_of_a_change_follows_method_verb_and_secrets() {
        let (empty, name) = (json!({}), json!({"name": "x"}));
        for (method, verb, body, kind) in [
            (Method::DELETE, None, &empty, Some("delete")),
            (Method::POST, None, &name, Some("create")),
            (Method::POST, Some("activate"), &name, Some("action")),
            (Method::POST, Some("rotate-secret"), &empty, Some("secret_rotation")),
            (Method::PATCH, None, &name, Some("update")),
            (Method::PATCH, None, &empty, None),
            (Method::PUT, None, &json!({"secret": 1}), Some("secret_rotation")),
        ] {
            assert_eq!(Change::of(&method, verb, Some(body)).kind, kind, "{method} {verb:?} {body}");
        }
    }

    #[test]
    fn names_are_bounded_in_number_and_depth_and_free_of_nul() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("k{n:04}"), Value::from(n))).collect();
        assert_eq!(Change::of(&Method::POST, None, Some(&Value::Object(many))).fields.len(), 64);
        let deep = json!({"a": {"b": {"c": {"d": {"e": 1}}}}, "n\0ul": 1});
        assert_eq!(Change::of(&Method::POST, None, Some(&deep)).fields, ["a.b.c.d", "nul"]);
    }

    #[test]
    fn the_entity_is_the_innermost_pair() {
        let ids = [("zone".to_owned(), "z1".to_owned()), ("id".to_owned(), "p1".to_owned())];
        let pair = |path: &'static str| {
            let segments: Vec<&'static str> = path.split('/').skip(2).collect();
            let (entity, verb) = entity(&segments, &ids);
            (entity.map(|(collection, id)| format!("{collection}/{id}")), verb)
        };
        for (path, expected, verb) in [
            ("/v1/zones/{zone}/providers/{id}", "providers/p1", None),
            ("/v1/zones/{zone}/policy-sets/{id}/activate", "policy-sets/p1", Some("activate")),
            ("/v1/zones/{zone}/policy-sets/{id}/versions", "policy-sets/p1", Some("versions")),
            ("/v1/zones/{zone}/applications", "zones/z1", None),
            ("/v1/policies/validate", "policies/validate", None),
        ] {
            assert_eq!(pair(path), (Some(expected.to_owned()), verb), "{path}");
        }
        assert_eq!(pair("/v1/zones"), (None, None));
    }
}
