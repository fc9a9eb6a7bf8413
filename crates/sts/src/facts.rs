//! Everything one decision needs, read in one snapshot (architecture rule 2). Rows become facts here; nothing is judged.

use std::collections::HashMap;
use std::sync::Arc;

use caracal_authority::control::ControlKey;
use caracal_authority::delegation::{Edge, MAX_LINEAGE};
use caracal_authority::exchange::{Client, Connection, Facts, References, RefreshFailure, Request, ResourceFacts};
use caracal_authority::mandate::Claims;
use caracal_authority::resource::{
    AttachedProvider, Operation, OperationEnforcement, ProviderKind, Resource, ResourceIdentifier, ResourceRef,
};
use caracal_authority::scope::{Scope, Scopes};
use caracal_authority::session::SessionFacts;
use caracal_authority::{ApprovalId, AuthorityRecordId, ProviderId, ResourceId, ZoneId};
use caracal_crypto::SecretBytes;
use caracal_custody::{CustodyError, SealedSecrets, SigningKeys, ZoneKey, provider_secret_ref};
use caracal_store::applications::{self, Application};
use caracal_store::provider_connections::{self, Connection as Account};
use caracal_store::providers::{self, Provider};
use caracal_store::resources::CallLimits;
use caracal_store::{
    Named, Snapshot, Store, StoreError, ZoneRead, ZoneVersion, approvals, delegations, records, resources, sessions,
    signing_keys, zones,
};

use crate::client::AuthenticatedClient;
use crate::directive::{needs_account, needs_secret};
use crate::federation::Federated;
use crate::metrics::Metrics;
use crate::policy::{Found, Governing, PolicyRuntime};

/// One snapshot, as facts and as what the carrying out of a grant needs beside them.
pub(crate) struct Loaded {
    /// What the grant has to be committed at.
    pub(crate) version: ZoneVersion,
    pub(crate) facts: Facts,
    /// The row of the calling application, archived or not: for evidence. The decision knows it by `facts.client`.
    pub(crate) application: Option<Application>,
    /// The session it is for, with what evidence says of it.
    pub(crate) session: Option<SessionFacts>,
    pub(crate) governing: Governing,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) key: Option<Arc<ZoneKey>>,
}

/// Where a resource lies and how it is reached.
pub(crate) struct Upstream {
    pub(crate) resource: ResourceRef,
    pub(crate) url: Option<String>,
    pub(crate) limits: CallLimits,
    pub(crate) provider: Option<Provider>,
    /// The account of the subject at the provider, where the provider needs one.
    pub(crate) account: Option<Account>,
    /// The provider's secret document, opened; read only for a Gateway's exchange and where a directive needs it.
    pub(crate) secret: Option<SecretBytes>,
}

/// What facts are asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a Request,
    client: &'a AuthenticatedClient,
    subject: Option<(&'a Claims, &'a str)>,
    federated: Option<&'a Federated>,
    unusable: &'a HashMap<ProviderId, RefreshFailure>,
    references: &'a References,
    approval: Option<&'a ApprovalId>,
}

/// What was read of it; the documents of the policy may still have to be.
struct Read {
    version: ZoneVersion,
    facts: Facts,
    application: Option<Application>,
    session: Option<SessionFacts>,
    found: Found,
    upstreams: Vec<Upstream>,
    key: Option<Arc<ZoneKey>>,
}

impl Read {
    async fn conclude(self, policy: &PolicyRuntime, zone: &ZoneId) -> Loaded {
        let Self { version, mut facts, application, session, found, upstreams, key } = self;
        let governing = policy.read(zone, found).await;
        facts.policy = governing.stamp();
        Loaded { version, facts, application, session, governing, upstreams, key }
    }
}

/// Where facts come from.
pub(crate) struct Sources<'s> {
    pub(crate) store: &'s Store,
    pub(crate) keys: &'s SigningKeys,
    pub(crate) secrets: &'s SealedSecrets,
    pub(crate) policy: &'s PolicyRuntime,
    pub(crate) metrics: &'s Metrics,
    pub(crate) control_audience: &'s str,
}

impl Sources<'_> {
    /// Reads what `request` of `client` refers to. `subject` are the accepted claims of its subject token and the key that
    /// signed them, `federated` is what was found out about its id_token.
    pub(crate) async fn load(
        &self,
        request: &Request,
        client: &AuthenticatedClient,
        subject: Option<(Claims, &str)>,
        federated: Option<&Federated>,
        unusable: &HashMap<ProviderId, RefreshFailure>,
    ) -> Result<Loaded, CustodyError> {
        let references = References::of(request, subject.as_ref().map(|(claims, _)| claims));
        let resources: Vec<&str> = request.resources.iter().collect();
        // What is no id names nothing; the decision says so.
        let approval = request.approval_id.as_deref().and_then(|id| ApprovalId::parse(id).ok());
        let named = Named {
            application: Some(&request.application),
            workload: None,
            record: references.record.as_ref(),
            session: references.session.as_ref(),
            delegation: references.delegation.as_ref(),
            resources: &resources,
            secrets: request.is_gateway(),
            account_of: subject.as_ref().map(|(claims, _)| claims.subject.as_str()).filter(|_| request.is_gateway()),
            approval: approval.as_ref(),
            subject_issuer: federated.and_then(Federated::issuer),
        };
        let asked = Asked {
            request,
            client,
            subject: subject.as_ref().map(|(claims, kid)| (claims, *kid)),
            federated,
            unusable,
            references: &references,
            approval: approval.as_ref(),
        };
        if let Some((version, mut snapshot)) = self.store.remembered_decision(&request.zone, &named) {
            let found = self.read(version, &mut snapshot, asked).await;
            if !snapshot.is_incomplete() {
                drop(snapshot);
                return Ok(found?.conclude(self.policy, &request.zone).await);
            }
        }
        let (version, mut snapshot) = self.store.decision_snapshot(&request.zone, &named).await?;
        let found = self.read(version, &mut snapshot, asked).await;
        // Documents take their time, and a snapshot keeps a reader from everybody else.
        drop(snapshot);
        Ok(found?.conclude(self.policy, &request.zone).await)
    }

    async fn read(
        &self,
        version: ZoneVersion,
        snapshot: &mut Snapshot,
        asked: Asked<'_>,
    ) -> Result<Read, CustodyError> {
        let Asked { request, client, subject, federated, unusable, references, approval } = asked;
        let now = snapshot.now();
        let mut tx = snapshot.zone(&request.zone);
        let mut facts = Facts::none(self.control_audience);
        facts.now = Some(now);
        let application = applications::lookup(&mut tx, &request.application).await?;
        let proven = application.as_ref().filter(|row| client.still_holds(row));
        facts.client = live_client(&mut tx, proven).await?;
        // A key may have been withdrawn since it was looked up, in whichever process that was. What it signed is then as
        // good as absent; and as a withdrawal moves the zone, none is committed on what was read before it.
        if let Some((claims, kid)) = subject
            && signing_keys::exists(&mut tx, kid).await?
        {
            facts.subject = Some(claims.clone());
        }
        if let Some(federated) = federated {
            let in_force = federated.registration(&mut tx).await?;
            facts.federation = Some(federated.with(in_force));
        }
        add_references(&mut tx, &mut facts, references, self.metrics).await?;
        let session = facts.sessions.iter().find(|session| Some(&session.id) == references.session.as_ref()).cloned();
        let upstreams = self.add_resources(&mut tx, &mut facts, request, unusable).await?;
        if let Some(id) = approval {
            add_hold(&mut tx, &mut facts, id).await?;
        }
        let found = self.policy.find(&mut tx).await?;
        let key = self.keys.signing_key(&mut tx).await?;
        Ok(Read { version, facts, application, session, found, upstreams, key })
    }

    async fn add_resources(
        &self,
        tx: &mut ZoneRead<'_>,
        facts: &mut Facts,
        request: &Request,
        unusable: &HashMap<ProviderId, RefreshFailure>,
    ) -> Result<Vec<Upstream>, StoreError> {
        let subject = facts.subject.as_ref().map(|claims| claims.subject.clone());
        let mut upstreams = Vec::new();
        for requested in request.resources.iter() {
            let Some(row) = resources::find_by_name(tx, requested).await? else { continue };
            let provider = match &row.credential_provider_id {
                Some(id) => providers::lookup(tx, id).await?.filter(|provider| provider.archived_at.is_none()),
                None => None,
            };
            let resource = resource(&row, provider.as_ref())?;
            let secret = match provider.as_ref().filter(|provider| request.is_gateway() && needs_secret(provider)) {
                Some(provider) => self.secret(tx, provider).await?,
                None => None,
            };
            let url = row.upstream_url;
            let needs_account = provider.as_ref().filter(|provider| request.is_gateway() && needs_account(provider));
            let account = match (needs_account, &subject) {
                (Some(provider), Some(subject)) => provider_connections::find_usable(tx, &provider.id, subject).await?,
                _ => None,
            };
            // Whether one that is about to run out can be renewed is found out when it was granted, and not before.
            let unusable = provider.as_ref().and_then(|provider| unusable.get(&provider.id));
            let connection = match (&account, unusable) {
                (_, Some(why)) => Connection::RefreshFailed(*why),
                (Some(_), None) => Connection::Ready,
                (None, None) => Connection::NotProvisioned,
            };
            let (name, limits) = (resource.name.clone(), row.limits);
            upstreams.push(Upstream { resource: name, url: url.clone(), limits, provider, account, secret });
            facts.resources.push(ResourceFacts {
                requested: requested.to_owned(),
                resource,
                upstream: url,
                connection,
            });
        }
        Ok(upstreams)
    }

    /// A secret that does not open is as good as none: the directive can't be made (contract: sts.md §10.2, 502).
    pub(crate) async fn secret(
        &self,
        tx: &mut ZoneRead<'_>,
        provider: &Provider,
    ) -> Result<Option<SecretBytes>, StoreError> {
        match self.secrets.open(tx, &provider_secret_ref(&provider.zone_id, &provider.id)).await {
            Ok(secret) => Ok(secret),
            Err(CustodyError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(zone = %provider.zone_id, provider = %provider.id, %error, "a provider's secret does not open");
                Ok(None)
            }
        }
    }
}

/// The application as whoever acts in the zone: there, alive, and not in a zone that was archived, whatever of it is still
/// there (difference D19).
pub(crate) async fn live_client(
    tx: &mut ZoneRead<'_>,
    application: Option<&Application>,
) -> Result<Option<Client>, StoreError> {
    let now = tx.now();
    let zone_lives = zones::lookup(tx).await?.is_some_and(|zone| zone.archived_at.is_none());
    Ok(application.filter(|row| zone_lives && row.is_live(now)).map(|row| Client {
        id: row.id.clone(),
        zone: row.zone_id.clone(),
        expires_at: row.expires_at,
        control: ControlKey::of(&row.traits),
    }))
}

/// What is known of a mandate that was issued: all that [`check_active`](caracal_authority::exchange::check_active) asks
/// for, with the application it was issued to.
pub(crate) async fn of_issued(tx: &mut ZoneRead<'_>, claims: &Claims, metrics: &Metrics) -> Result<Facts, StoreError> {
    // Resources are not looked at, so neither is the one that only control keys may ask for.
    let mut facts = Facts::none(String::new());
    facts.now = Some(tx.now());
    let application = applications::lookup(tx, &claims.client).await?;
    facts.client = live_client(tx, application.as_ref()).await?;
    let references = References {
        record: claims.record.clone(),
        session: claims.session.clone(),
        delegation: claims.delegation.clone(),
    };
    add_references(tx, &mut facts, &references, metrics).await?;
    if let Some(root) = &claims.root_record {
        add_record(tx, &mut facts, root).await?;
    }
    Ok(facts)
}

/// The record, the session with the record it is anchored to, and the lineage of the delegation.
async fn add_references(
    tx: &mut ZoneRead<'_>,
    facts: &mut Facts,
    references: &References,
    metrics: &Metrics,
) -> Result<(), StoreError> {
    if let Some(id) = &references.record {
        add_record(tx, facts, id).await?;
    }
    if let Some(id) = &references.session
        && let Some(row) = sessions::lookup(tx, id).await?
    {
        add_session(tx, facts, row.facts()?).await?;
    }
    if let Some(id) = &references.delegation {
        metrics.traversals.up();
        add_lineage(tx, facts, id).await.inspect_err(|_| metrics.traversal_errors.up())?;
        facts.epoch = u64::try_from(delegations::epoch(tx).await?).ok();
    }
    Ok(())
}

/// A hold comes with the record it was spent on: the same mandate may be asked for once more.
async fn add_hold(tx: &mut ZoneRead<'_>, facts: &mut Facts, id: &ApprovalId) -> Result<(), StoreError> {
    let Some(row) = approvals::lookup(tx, id).await? else { return Ok(()) };
    if let Some(record) = &row.consumed_record_id {
        add_record(tx, facts, record).await?;
    }
    facts.holds.push(row.facts()?);
    Ok(())
}

async fn add_record(tx: &mut ZoneRead<'_>, facts: &mut Facts, id: &AuthorityRecordId) -> Result<(), StoreError> {
    if facts.records.iter().all(|known| known.id != *id)
        && let Some(row) = records::lookup(tx, id).await?
    {
        facts.records.push(row.facts()?);
    }
    Ok(())
}

/// A session comes with the record it is anchored to: whether it lives can depend on it.
async fn add_session(tx: &mut ZoneRead<'_>, facts: &mut Facts, session: SessionFacts) -> Result<(), StoreError> {
    add_record(tx, facts, &session.subject_record).await?;
    facts.sessions.push(session);
    Ok(())
}

/// An edge comes with its whole lineage and with the session that lends through it.
async fn add_lineage(
    tx: &mut ZoneRead<'_>,
    facts: &mut Facts,
    id: &caracal_authority::EdgeId,
) -> Result<(), StoreError> {
    // One more than a lineage may have, so that a longer one is seen to be longer.
    let rows = delegations::lineage(tx, id, MAX_LINEAGE + 1).await?;
    let mut lineage: Vec<Edge> = Vec::with_capacity(rows.len());
    let mut named: Vec<ResourceRef> = Vec::new();
    for row in rows {
        let resource = match &row.resource_id {
            Some(id) => resource_ref(tx, &mut named, id).await?,
            None => None,
        };
        lineage.push(row.edge(resource)?);
    }
    if let Some(source) = lineage.last().map(|leaf| leaf.source.clone())
        && facts.sessions.iter().all(|known| known.id != source)
        && let Some(row) = sessions::lookup(tx, &source).await?
    {
        add_session(tx, facts, row.facts()?).await?;
    }
    facts.lineage = lineage;
    Ok(())
}

async fn resource_ref(
    tx: &mut ZoneRead<'_>,
    named: &mut Vec<ResourceRef>,
    id: &ResourceId,
) -> Result<Option<ResourceRef>, StoreError> {
    if let Some(known) = named.iter().find(|known| known.id == *id) {
        return Ok(Some(known.clone()));
    }
    let Some(row) = resources::lookup(tx, id).await?.filter(|row| row.archived_at.is_none()) else { return Ok(None) };
    let found = names(&row)?;
    named.push(found.clone());
    Ok(Some(found))
}

pub(crate) fn resource(row: &resources::Resource, provider: Option<&Provider>) -> Result<Resource, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt {
        table: "resources",
        what: format!("resource {} of zone {}: {what}", row.id, row.zone_id),
    };
    let scope = |text: &String| Scope::parse(text).map_err(|_| corrupt("a scope is none"));
    let operation = |declared: &resources::Operation| {
        Ok(Operation { method: declared.method.clone(), path: declared.path.clone(), scope: scope(&declared.scope)? })
    };
    Ok(Resource {
        zone: row.zone_id.clone(),
        name: names(row)?,
        has_upstream: row.upstream_url.is_some(),
        scopes: Scopes::from_list(row.scopes.iter().map(scope).collect::<Result<_, _>>()?),
        operations: row.operations.iter().map(operation).collect::<Result<_, StoreError>>()?,
        enforcement: match row.operation_enforcement.as_str() {
            "enforced" => OperationEnforcement::Enforced,
            "transport_uniform" => OperationEnforcement::TransportUniform,
            _ => return Err(corrupt("unknown operation enforcement")),
        },
        provider: row.credential_provider_id.as_ref().map(|id| AttachedProvider {
            id: id.clone(),
            kind: provider.map(|provider| ProviderKind::parse(&provider.kind)),
        }),
    })
}

fn names(row: &resources::Resource) -> Result<ResourceRef, StoreError> {
    let identifier = ResourceIdentifier::parse(&row.identifier).map_err(|_| StoreError::Corrupt {
        table: "resources",
        what: format!("resource {} of zone {}: unusable identifier", row.id, row.zone_id),
    })?;
    Ok(ResourceRef { id: row.id.clone(), identifier })
}
