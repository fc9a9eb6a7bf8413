//! Services never know each other; where one asks another, it does so through a trait of its own. Here those traits are
//! fulfilled within one process: a question is a function call.

use std::path::PathBuf;
use std::sync::Arc;

use caracal_admin::{Loaded, PolicyRuntime, RuntimeState};
use caracal_audit::Verifier;
use caracal_authority::ZoneId;
use caracal_authority::resource::UpstreamCall;
use caracal_gateway::{Directive, Exchange, ExchangeRefusal, ExchangeRequest, Permitted, RefusalKind, StsUnreachable};
use caracal_ledger::{ChainKey, LedgerReport};
use caracal_store::BoxFuture;
use caracal_sts::{Decision, ExchangeError, GatewayCall, Granted, Sts};

use crate::commands::{Failure, verify_with_key};

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
            connection_id: String::new(),
            forward_caracal_identity: made.forward_caracal_identity,
            expires_at: None,
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

/// The STS, as the Admin API asks it what decides.
pub(crate) struct StsPolicyRuntime(pub(crate) Arc<Sts>);

impl PolicyRuntime for StsPolicyRuntime {
    fn status<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, RuntimeState> {
        Box::pin(async move {
            match self.0.in_force(zone).await {
                Ok(Some(in_force)) => RuntimeState::Loaded(Loaded {
                    policy_set_version_id: in_force.policy_set_version_id,
                    manifest_sha256: in_force.manifest_sha256,
                    loaded_at: in_force.loaded_at,
                }),
                Ok(None) => RuntimeState::Failed { detail: "the active version can't be loaded".to_owned() },
                Err(error) => RuntimeState::Unreachable { detail: error.to_string() },
            }
        })
    }
}

/// The verifier of `caracal audit verify`, for the sweep of a running system: it opens the store as an outsider does.
pub(crate) struct OfflineVerifier {
    pub(crate) data_dir: PathBuf,
    pub(crate) key: Arc<dyn ChainKey>,
}

impl Verifier for OfflineVerifier {
    fn verify(&self) -> Result<LedgerReport, String> {
        verify_with_key(&self.data_dir, self.key.as_ref(), |_, _| {}).map_err(|Failure(message)| message)
    }
}
