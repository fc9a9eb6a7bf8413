//! What a workload is started with (contract: sts.md §11).
//!
//! `nightly-report` is about to be started by a launcher that holds the workload's secret. It asks for the manifest, which
//! says which variables are bound, and then for one credential after the other; what policy holds for a human is waited
//! for. Decided is with the same rows and the same policy as at an exchange, and recorded likewise: a credential leaves
//! only when the evidence of it, and the spending of its approval, are durable.
//!
//! - `workload`: who is asking. `rate`: how often. `facts`: what a decision knows.
//! - `manifest`, `release`: the two answers. `evidence`: what is recorded.
//!
//! What it costs: two snapshots, the workload's and that of all facts, what the provider's token endpoint takes, and one
//! commit. The manifest costs one snapshot and one commit. A wrong secret costs one derivation whether or not there is such
//! a workload, in the budget that all derivations share.

mod evidence;
mod facts;
mod manifest;
mod rate;
mod release;
mod workload;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use caracal_authority::exchange::Rate;
use caracal_http::form::{self, Form, FormError};
use caracal_http::{RequestId, body};
use http::{HeaderMap, HeaderValue, Request};
use zeroize::Zeroizing;

use crate::approvals::is_uuid;
use crate::request::RequestFault;
use crate::routes::{refused, unkept};
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

pub use rate::{LaunchKey, LaunchRate, LaunchStep, ProcessLaunchRate};

/// Names one launch on everything that is recorded of it.
const LAUNCH_ID: &str = "x-caracal-launch-id";

/// Who asks, as the form has it; nothing is proven.
struct Presented {
    /// Trimmed, and anything but empty.
    workload: String,
    secret: Zeroizing<String>,
    /// The launcher's own id of this launch, if it is a UUID. The request's id beside it.
    launch: LaunchIds,
}

/// What ties the evidence of one launch together.
#[derive(Clone)]
struct LaunchIds {
    launch: Option<String>,
    request: String,
}

impl LaunchIds {
    /// Anything but a UUID is dropped: nobody writes texts of their own into the ledger.
    fn of(headers: &HeaderMap, id: &RequestId) -> Self {
        let launch = headers.get(LAUNCH_ID).and_then(|value: &HeaderValue| value.to_str().ok());
        Self {
            launch: launch.filter(|text| is_uuid(text)).map(str::to_ascii_lowercase),
            request: id.as_str().to_owned(),
        }
    }
}

/// `POST /v1/run/manifest`.
pub(crate) async fn manifest(State(sts): State<Arc<Sts>>, id: RequestId, request: Request<Body>) -> Response {
    match sts.launched_with(&id, request).await {
        Ok(manifest) => unkept(&manifest),
        Err(ended) => refused(ended),
    }
}

/// `POST /v1/run/credential`.
pub(crate) async fn credential(State(sts): State<Arc<Sts>>, id: RequestId, request: Request<Body>) -> Response {
    let released = sts.released(&id, request).await;
    match &released {
        Ok(_) => sts.metrics.launched(&Ok::<_, &ExchangeError>(())),
        Err(Ended::Exchange(error)) => sts.metrics.launched(&Err::<(), _>(error)),
        Err(Ended::Form(_) | Ended::Request(_)) => {}
    }
    match released {
        Ok(released) => unkept(&released),
        Err(ended) => refused(ended),
    }
}

impl Sts {
    async fn launched_with(&self, id: &RequestId, request: Request<Body>) -> Result<manifest::Manifest, Ended> {
        let (headers, mut form) = self.launch_form(request).await?;
        let presented = Presented::take(&mut form, LaunchIds::of(&headers, id))?;
        self.count_launch(LaunchStep::Manifest, &presented).await?;
        let workload = self.authenticated(&presented).await?;
        Ok(self.manifest(&workload, &presented.launch).await?)
    }

    /// Rows 1 to 3 of §11; the others are behind [`Sts::release`].
    async fn released(&self, id: &RequestId, request: Request<Body>) -> Result<release::Released, Ended> {
        let (headers, mut form) = self.launch_form(request).await?;
        let presented = Presented::take(&mut form, LaunchIds::of(&headers, id))?; // 1
        let env = required(&form, "env")?;
        let approval = form.get("approval_id").map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned);
        self.count_launch(LaunchStep::Credential, &presented).await?; // 2
        let workload = self.authenticated(&presented).await?; // 3
        Ok(Box::pin(self.release(workload, env, approval, &presented.launch)).await?)
    }

    /// The form rules of §3.1: no field twice.
    async fn launch_form(&self, request: Request<Body>) -> Result<(HeaderMap, Form), Ended> {
        let (parts, body) = request.into_parts();
        Form::check_head(parts.uri.query(), &parts.headers)?;
        let bytes = body::read(body, form::MAX_BYTES, self.config.body_deadline).await.map_err(FormError::from)?;
        Ok((parts.headers, Form::parse_fields(&bytes, &[])?))
    }

    /// Counts one request of whoever the form names, before anything is looked up or derived for it.
    async fn count_launch(&self, step: LaunchStep, presented: &Presented) -> Result<(), ExchangeError> {
        let key = LaunchKey { step, workload: presented.workload.clone() };
        match self.launch_rate.count(&key, self.config.mint_rate_limit_per_min, self.store.now()).await {
            Rate::Within => Ok(()),
            Rate::Exceeded => {
                self.denials.count("sts", "launch_rate_limited");
                Err(ExchangeError::TooManyLaunches)
            }
            Rate::Unavailable => Err(ExchangeError::Unavailable),
        }
    }
}

impl Presented {
    fn take(form: &mut Form, launch: LaunchIds) -> Result<Self, RequestFault> {
        let workload = required(form, "workload_id")?;
        let secret = form.take("secret").filter(|secret| !secret.is_empty()).ok_or(RequestFault::Missing("secret"))?;
        Ok(Self { workload, secret, launch })
    }
}

fn required(form: &Form, name: &'static str) -> Result<String, RequestFault> {
    let text = form.get(name).map(str::trim).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or(RequestFault::Missing(name))
}
