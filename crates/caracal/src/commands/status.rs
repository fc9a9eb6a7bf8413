//! `caracal status` (contract: control-cli-deploy.md §4.2): asks each service's `/health` or `/ready`.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::{Failure, runtime};
use crate::settings::Service;

const PATIENCE: Duration = Duration::from_millis(1_500);
const MOST_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct Report {
    mode: &'static str,
    services: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    name: &'static str,
    url: String,
    port: u16,
    ok: bool,
    detail: String,
}

/// Probes all services at once. Exit 0 only if every one answers well.
pub fn status(bind: IpAddr, port_offset: u16, ready: bool, json: bool) -> Result<ExitCode, Failure> {
    let bind = if bind.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { bind };
    let services = runtime()?.block_on(async move {
        let probes = Service::ALL.map(|service| tokio::spawn(probe(service, bind, port_offset, ready)));
        let mut answers = Vec::new();
        for probe in probes {
            answers.extend(probe.await.ok());
        }
        answers
    });
    let ok = services.len() == Service::ALL.len() && services.iter().all(|answer| answer.ok);
    let report = Report { mode: if ready { "ready" } else { "health" }, services };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for answer in &report.services {
            let mark = if answer.ok { "ok  " } else { "FAIL" };
            println!("{mark} {:<12} {:<40} {}", answer.name, answer.url, answer.detail);
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn probe(service: Service, bind: IpAddr, port_offset: u16, ready: bool) -> Answer {
    let port = service.port().saturating_add(port_offset);
    let path = if ready { "ready" } else { "health" };
    let url = format!("http://{}/{path}", SocketAddr::new(bind, port));
    let (ok, detail) = match tokio::time::timeout(PATIENCE, ask(&url)).await {
        Ok(Some((status, body))) if status.is_success() => (true, with_reason(status, &body)),
        Ok(Some((status, body))) => (false, with_reason(status, &body)),
        Ok(None) => (false, "unreachable".to_owned()),
        Err(_) => (false, "timeout".to_owned()),
    };
    Answer { name: service.name(), url, port, ok, detail }
}

async fn ask(url: &str) -> Option<(http::StatusCode, Bytes)> {
    #[expect(clippy::disallowed_methods, reason = "it asks loopback and the operator's own addresses")]
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(url.parse().ok()?).await.ok()?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MOST_BYTES).collect().await.ok()?.to_bytes();
    Some((parts.status, body))
}

/// The status code, and what the body gives as reason.
fn with_reason(status: http::StatusCode, body: &[u8]) -> String {
    let members: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = ["reason", "error", "detail"].iter().find_map(|name| members.get(name)?.as_str());
    match reason {
        Some(reason) if !status.is_success() => format!("{} {reason}", status.as_str()),
        _ => status.as_str().to_owned(),
    }
}
