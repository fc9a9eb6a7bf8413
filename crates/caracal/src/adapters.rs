//! Services never know each other; where one asks another, it does so through a trait of its own. Here those traits are
//! fulfilled within one process: a question is a function call.

use std::path::PathBuf;
use std::sync::Arc;

use caracal_admin::{Loaded, NotSimulated, PolicyRuntime, Replica, RuntimeState, Simulation, Unreachable};
use caracal_audit::{Archive, ArchiveError, Object, Put, Verifier};
use caracal_authority::Timestamp;
use caracal_authority::ZoneId;
use caracal_authority::resource::UpstreamCall;
use caracal_broker::backends::{Bucket, Kept};
use caracal_custody::BackendError;
use caracal_gateway::{Directive, Exchange, ExchangeRefusal, ExchangeRequest, Permitted, RefusalKind, StsUnreachable};
use caracal_http::health::{Objections, Probe};
use caracal_ledger::{Begin, Chain, ChainKey, LedgerReport, Marks, read_heads, verify_store_marked};
use caracal_store::policy_replicas::{self, LoadedPolicy};
use caracal_store::{BoxFuture, Clock, Store, StoreError, outbox};
use caracal_stream::Redis;
use caracal_sts::loads::ALIVE;
use caracal_sts::{Decision, ExchangeError, GatewayCall, Granted, Sts};

use crate::commands::{Failure, verify_marked};

/// The STS, as the Gateway asks it.
pub(crate) struct InProcessSts(pub(crate) Arc<Sts>);

impl Exchange for InProcessSts {
    fn exchange(&self, request: ExchangeRequest) -> BoxFuture<'_, Result<Permitted, ExchangeRefusal>> {
        Box::pin(async move {
            let resource = request.resource.clone();
            let call = GatewayCall {
                zone: request.zone,
                application: request.client,
                mandate: request.bearer,
                resource: request.resource,
                call: UpstreamCall { method: request.method, path: request.path },
                request_id: request.request_id.as_str().to_owned(),
            };
            match self.0.exchange_for_gateway(call).await {
                Ok(granted) => Ok(permitted(granted, &resource)),
                Err(error) => Err(refusal(&error)),
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StsUnreachable>> {
        Box::pin(async move { self.0.check().await.map_err(|_| StsUnreachable) })
    }
}

fn permitted(granted: Granted, resource: &str) -> Permitted {
    let made = granted.upstreams.into_iter().find(|made| made.resource.as_str() == resource);
    Permitted {
        access_token: granted.access_token,
        upstream: made.map(|made| Directive {
            url: made.url,
            auth_mode: made.auth_mode.to_owned(),
            auth_location: made.auth_location.to_owned(),
            auth_header: made.auth_header,
            query_param_name: made.query_param_name,
            auth_scheme: made.auth_scheme,
            allowed_token_hosts: made.allowed_token_hosts,
            provider_token: made.provider_token,
            provider_id: made.provider_id,
            connection_id: made.connection_id,
            forward_caracal_identity: made.forward_caracal_identity,
            expires_at: made.expires_at.map(Timestamp::as_seconds),
            limits: made.limits,
        }),
    }
}

fn refusal(error: &ExchangeError) -> ExchangeRefusal {
    ExchangeRefusal {
        status: error.status(),
        code: error.code().to_owned(),
        description: error.to_string(),
        kind: match error.decision() {
            Decision::Denied => RefusalKind::Denied,
            Decision::Replayed => RefusalKind::Replayed,
            Decision::None => RefusalKind::Unavailable,
        },
        retry_after: error.retry_after(),
    }
}

/// The STS, as the Admin API asks it what decides and what would. Where this process serves no STS, the code is here all the
/// same, so that a version can be tried out while every STS is down; what is loaded is asked of those that serve.
pub(crate) struct StsPolicyRuntime {
    pub(crate) sts: Arc<Sts>,
    pub(crate) serves: bool,
    pub(crate) store: Store,
}

impl PolicyRuntime for StsPolicyRuntime {
    fn replicas<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Vec<Replica>, Unreachable>> {
        Box::pin(async move {
            let unreachable = |error: StoreError| Unreachable(error.to_string());
            if self.serves {
                self.sts.tell_loaded(zone).await.map_err(unreachable)?;
            }
            let mut snapshot = self.store.snapshot().await.map_err(unreachable)?;
            let since = snapshot.now().minus(ALIVE);
            let alive = policy_replicas::list(&mut snapshot.zone(zone), since).await.map_err(unreachable)?;
            Ok(alive.into_iter().map(replica).collect())
        })
    }

    fn simulate<'a>(
        &'a self,
        zone: &'a ZoneId,
        simulation: Simulation,
    ) -> BoxFuture<'a, Result<serde_json::Value, NotSimulated>> {
        Box::pin(async move {
            let Simulation { documents, input } = simulation;
            let asked = caracal_sts::Simulation { documents, input: Some(input) };
            let verdict = self.sts.simulate(zone, asked).await.map_err(|error| match error {
                caracal_sts::NotSimulated::Failed(error) => {
                    NotSimulated::Failed { code: error.code(), text: error.to_string() }
                }
                caracal_sts::NotSimulated::NobodyEvaluates(error) => NotSimulated::Unreachable(error.to_string()),
            })?;
            serde_json::to_value(verdict).map_err(|error| NotSimulated::Unreachable(error.to_string()))
        })
    }
}

fn replica(row: policy_replicas::Replica) -> Replica {
    let policy_replicas::Replica { id, seen_at, loaded } = row;
    let state = match loaded {
        None => RuntimeState::NotLoaded,
        Some(LoadedPolicy { policy_set_version_id, manifest_sha256, loaded_at: Some(loaded_at), .. }) => {
            RuntimeState::Loaded(Loaded { policy_set_version_id, manifest_sha256, loaded_at })
        }
        Some(LoadedPolicy { policy_set_version_id, error, .. }) => {
            RuntimeState::Failed { policy_set_version_id, detail: error.unwrap_or_default() }
        }
    };
    Replica { id, seen_at, state }
}

/// The verifier of `caracal audit verify`, for the sweep of a running system: it opens the store as an outsider does.
pub(crate) struct OfflineVerifier {
    pub(crate) data_dir: PathBuf,
    pub(crate) key: Arc<dyn ChainKey>,
}

impl Verifier for OfflineVerifier {
    fn verify(&self, marks: &Marks, begin: Begin) -> Result<LedgerReport, String> {
        let verified = verify_marked(&self.data_dir, self.key.as_ref(), (marks, begin), |_, _| {});
        verified.map_err(|Failure(message)| message)
    }
}

/// The same for a store that is shared: one snapshot, read to its end. The heads are those that this process committed.
pub(crate) struct SharedVerifier {
    pub(crate) store: Store,
    pub(crate) heads_dir: PathBuf,
    pub(crate) key: Arc<dyn ChainKey>,
}

impl Verifier for SharedVerifier {
    fn verify(&self, marks: &Marks, begin: Begin) -> Result<LedgerReport, String> {
        let heads = read_heads(&self.heads_dir, self.key.as_ref()).map_err(|error| error.to_string())?;
        let reading = async {
            let mut snapshot = self.store.snapshot().await?;
            verify_store_marked(
                &mut snapshot.deployment(),
                Some(self.key.as_ref()),
                &heads.unwrap_or_default(),
                (marks, begin),
                &mut |_: &Chain, _: i64| {},
            )
            .await
        };
        // The sweep runs this on a thread of its own.
        tokio::runtime::Handle::current().block_on(reading).map_err(|error| error.to_string())
    }
}

/// What every service looks at: Redis, where there is one, and messages that nobody can send.
pub(crate) struct StreamsProbe {
    pub(crate) redis: Option<Arc<Redis>>,
    pub(crate) store: Store,
}

impl Probe for StreamsProbe {
    fn objections(&self) -> BoxFuture<'_, Objections> {
        Box::pin(async move {
            let redis_answers = async {
                match &self.redis {
                    Some(redis) => redis.check().await.is_ok(),
                    None => true,
                }
            };
            // That the store answers was found out before.
            let (redis_answers, dead) = tokio::join!(redis_answers, count_dead(&self.store));
            Objections { redis_unreachable: !redis_answers, outbox_dead: dead.unwrap_or(0).unsigned_abs() }
        })
    }
}

async fn count_dead(store: &Store) -> Result<i64, StoreError> {
    outbox::count_dead(&mut store.snapshot().await?.deployment()).await
}

/// The store's time, which on servers is the database's: what one process signs, another judges by the same clock.
pub(crate) struct StoreTime(pub(crate) Store);

impl Clock for StoreTime {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// A bucket as the archive that evidence is exported to.
pub(crate) struct BucketArchive(pub(crate) Bucket);

impl Archive for BucketArchive {
    fn put<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Put, ArchiveError>> {
        Box::pin(async move {
            let Object { key, identity, bytes } = object;
            match self.0.keep(key, identity, bytes.clone()).await {
                Ok(Kept::There) => Ok(Put::Done),
                Ok(Kept::Other) => Ok(Put::OtherIsThere),
                Err(BackendError { doing, reason, .. }) => {
                    Err(ArchiveError(format!("the bucket did not {doing}: {reason}")))
                }
            }
        })
    }
}
