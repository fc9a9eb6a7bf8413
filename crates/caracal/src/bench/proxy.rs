//! A proxy of the same crates as the Gateway that decides nothing, signs nothing and writes nothing: what passing a call on
//! costs by itself.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caracal_http::FreshId;
use caracal_http::server::{self, Limits};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::{UPSTREAM_KEY, usage};
use crate::actors::client::HttpClient;
use crate::actors::upstream::{KEY_HEADER, Upstream};
use crate::commands::Failure;

/// Calls before those that count: connections are made and code is loaded.
const FIRST: u32 = 50;

type Passing = Client<HttpConnector, Incoming>;

/// Seconds of processor time that the proxy takes for a call, over those that fit into `time`. It has a thread to itself, so
/// that the caller and the API are not counted.
pub(super) fn processor_time(runtime: &Runtime, time: Duration) -> Result<Option<f64>, Failure> {
    let upstream = runtime.block_on(Upstream::start(UPSTREAM_KEY, false))?;
    let (stop, stopping) = watch::channel(false);
    let (tell, told) = mpsc::channel();
    let to = upstream.url.clone();
    std::thread::scope(|scope| {
        let proxy = scope.spawn(move || serve(to, stopping, &tell));
        let measured = told.recv().map_err(|_| Failure("the proxy did not start".to_owned())).and_then(
            |(url, thread): (String, Option<PathBuf>)| {
                let time_used = || thread.as_deref().and_then(usage::thread_time);
                runtime.block_on(ask(&url, time, time_used))
            },
        );
        stop.send_replace(true);
        let served = proxy.join().map_err(|_| Failure("the proxy broke down".to_owned()))?;
        served.and(measured)
    })
}

async fn ask(url: &str, time: Duration, time_used: impl Fn() -> Option<Duration>) -> Result<Option<f64>, Failure> {
    let client = HttpClient::new();
    let url = format!("{url}/notes");
    let once = async || {
        let answer = client.send(Method::GET, &url, &[(KEY_HEADER, UPSTREAM_KEY)], None).await?;
        answer.expect_success("the call through the bare proxy")
    };
    for _ in 0..FIRST {
        once().await?;
    }
    let (before, begun, mut times) = (time_used(), Instant::now(), 0_u32);
    while begun.elapsed() < time {
        once().await?;
        times += 1;
    }
    let used = time_used().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.map(|used| used.as_secs_f64() / f64::from(times.max(1))))
}

/// Passes on until told to stop; tells where, and on which thread.
fn serve(
    to: String,
    stopping: watch::Receiver<bool>,
    tell: &mpsc::Sender<(String, Option<PathBuf>)>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let _ = tell.send((format!("http://{}", listener.local_addr()?), usage::this_thread()));
        let client: Passing = Client::builder(TokioExecutor::new()).build_http();
        let service = tower::service_fn(move |request| {
            let (client, to) = (client.clone(), to.clone());
            async move { Ok::<_, Infallible>(pass(&client, &to, request).await) }
        });
        let limits = Limits { grace: Duration::ZERO, ..Limits::default() };
        server::serve(listener, service, FreshId::new(String::new), limits, stopping).await;
        Ok(())
    })
}

async fn pass(client: &Passing, to: &str, mut request: Request<Incoming>) -> Response<Either<Incoming, Full<Bytes>>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let passed = match format!("{to}{path}").parse::<Uri>() {
        Ok(uri) => {
            *request.uri_mut() = uri;
            request.headers_mut().remove(http::header::HOST);
            client.request(request).await.ok()
        }
        Err(_) => None,
    };
    passed.map_or_else(
        || {
            let mut response = Response::new(Either::Right(Full::default()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        },
        |response| response.map(Either::Left),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_through_and_their_cost_is_that_of_one_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seconds =
            processor_time(&runtime, Duration::from_millis(50)).unwrap_or_else(|Failure(why)| panic!("{why}"));
        if cfg!(target_os = "linux") {
            // Nothing that is served takes less than a microsecond, or a tenth of a second.
            let seconds = seconds.unwrap();
            assert!(seconds > 1e-6 && seconds < 0.1, "{seconds}");
        }
    }
}
