//! What other processes of the deployment may ask of policy here (contract: sts.md §14). They prove themselves as Gateways
//! do (§10.1); nothing that is asked here changes anything.

pub(crate) mod simulate;
pub(crate) mod status;

use axum::body::Body;
use caracal_http::body;
use http::Request;

use crate::gateway_auth::{Presented, SignedRequest};
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

impl Sts {
    /// The body of a request that a process of the deployment signed, `limit` bytes at most. Without the three headers
    /// nothing of it is read.
    async fn signed_body(&self, request: Request<Body>, limit: usize) -> Result<bytes::Bytes, Ended> {
        let (parts, body) = request.into_parts();
        let read = match Presented::by(&parts.headers) {
            None => Err(ExchangeError::NotAGateway),
            Some(presented) => {
                let read = body::read(body, limit, self.config.body_deadline).await;
                let bytes = read.map_err(caracal_http::form::FormError::from)?;
                let signed =
                    SignedRequest { method: parts.method.as_str(), escaped_path: parts.uri.path(), body: &bytes };
                let key = self.config.gateway_key.as_deref();
                let verified = presented.verify(key, &signed, self.store.now(), &self.store).await;
                verified.map(|()| bytes).map_err(ExchangeError::from)
            }
        };
        if matches!(read, Err(ExchangeError::NotAGateway)) {
            self.denials.count("sts", "gateway_signature");
        }
        Ok(read?)
    }
}
