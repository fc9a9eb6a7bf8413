//! A zone's transparency log, for whoever may read the zone: `/v1/zones/{zone}/ledger` is the prefix of C2SP tlog-tiles.
//! What is served says where events are and what they hash to, not what they say.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use caracal_ledger::transparency::{Served, StoredTree, TreeDefect};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::{Content, Spec};
use crate::problem::Refusal;

/// `GET /v1/zones/{zone}/ledger/log-key`: the public key, as text.
pub(crate) const LOG_KEY: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/ledger/log-key",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| {
        Box::pin(async move { Ok(text(format!("{}\n", tree(&admin, &call).await?.log_key))) })
    })),
    spec: Spec::of(
        "ledger.log_key",
        "Shows the public key that signs the checkpoints of a zone.",
        StatusCode::OK,
        Content::File("text/plain"),
    )
    .refuses(&[(404, "checkpoint_not_found")]),
};

/// `GET /v1/zones/{zone}/ledger/checkpoint`: the newest signed checkpoint.
pub(crate) const CHECKPOINT: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/ledger/checkpoint",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(async move { Ok(text(tree(&admin, &call).await?.note)) }))),
    spec: Spec::of(
        "ledger.checkpoint",
        "Shows the newest signed checkpoint of a zone.",
        StatusCode::OK,
        Content::File("text/plain"),
    )
    .refuses(&[(404, "checkpoint_not_found")]),
};

/// `GET /v1/zones/{zone}/ledger/tile/{level or "entries"}/{position}[.p/{width}]`: hashes, or entries.
pub(crate) const TILE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/ledger/tile/{*tile}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(tile(admin, call)))),
    spec: Spec::of(
        "ledger.tile",
        "Serves a tile of hashes or a bundle of entries of a zone.",
        StatusCode::OK,
        Content::File("application/octet-stream"),
    )
    .refuses(&[(404, "tile_not_found")]),
};

async fn tree(admin: &Admin, call: &Call<InZone>) -> Result<StoredTree, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let tree = StoredTree::find(&mut snapshot.zone(&call.place.zone)).await?.map_err(damaged)?;
    tree.ok_or_else(|| Refusal::missing("checkpoint_not_found"))
}

async fn tile(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let path: String = call.id("tile")?;
    let served = Served::parse(&path).ok_or_else(|| Refusal::missing("tile_not_found"))?;
    let mut snapshot = admin.store.snapshot().await?;
    let bytes = served.read(&mut snapshot.zone(&call.place.zone)).await?.map_err(damaged)?;
    let bytes = bytes.ok_or_else(|| Refusal::missing("tile_not_found"))?;
    Ok(answer(bytes, "application/octet-stream"))
}

/// What is damaged is not served as if it were whole. The sweep reports it, too.
fn damaged(defect: TreeDefect) -> Refusal {
    tracing::error!(%defect, "the ledger's tree is damaged; run `caracal audit verify`");
    caracal_http::Problem::internal().into()
}

fn text(text: String) -> Answer {
    answer(text.into_bytes(), "text/plain; charset=utf-8")
}

fn answer(bytes: Vec<u8>, kind: &'static str) -> Answer {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Answer::raw(response)
}
