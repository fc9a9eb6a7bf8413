//! A proxy of the same crates as the Gateway that decides nothing, signs nothing and writes nothing: what passing a call on
//! costs by itself.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
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
use crate::actors::client::{Answer, HttpClient};
use crate::actors::upstream::{KEY_HEADER, Upstream};
use crate::commands::Failure;

/// Calls before those that count: connections are made and code is loaded.
const FIRST: u32 = 50;

type Passing = Client<HttpConnector, Incoming>;

/// A running proxy, on threads of its own, as many as a Gateway has: neither callers nor the API are counted as its work.
pub(super) struct Proxy {
    pub(super) url: String,
    /// Those threads, as [`usage::threads_time`] takes them.
    pub(super) threads: Vec<PathBuf>,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<Result<(), Failure>>>,
}

impl Proxy {
    /// Passes on to `to`.
    pub(super) fn start(to: &str) -> Result<Self, Failure> {
        let (stop, stopping) = watch::channel(false);
        let (tell, told) = mpsc::channel();
        let to = to.to_owned();
        let serving = std::thread::spawn(move || serve(to, stopping, &tell));
        match told.recv() {
            Ok((url, threads)) => Ok(Self { url, threads, stop, serving: Some(serving) }),
            Err(_) => Err(serving.join().map_or_else(
                |_| broken_down(),
                |served| match served {
                    Err(why) => why,
                    Ok(()) => broken_down(),
                },
            )),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn broken_down() -> Failure {
    Failure("the proxy broke down".to_owned())
}

/// Seconds of processor time that the proxy takes for a call of one caller, over those that fit into `time`.
pub(super) fn processor_time(runtime: &Runtime, time: Duration) -> Result<Option<f64>, Failure> {
    let upstream = runtime.block_on(Upstream::start(UPSTREAM_KEY, false))?;
    let proxy = Proxy::start(&upstream.url)?;
    let time_used = || usage::threads_time(&proxy.threads);
    runtime.block_on(ask(&proxy.url, time, time_used))
}

async fn ask(url: &str, time: Duration, time_used: impl Fn() -> Option<Duration>) -> Result<Option<f64>, Failure> {
    let client = HttpClient::new();
    for _ in 0..FIRST {
        call(&client, url).await?.expect_success("the call through the bare proxy")?;
    }
    let (before, begun, mut times) = (time_used(), Instant::now(), 0_u32);
    while begun.elapsed() < time {
        call(&client, url).await?.expect_success("the call through the bare proxy")?;
        times += 1;
    }
    let used = time_used().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.map(|used| used.as_secs_f64() / f64::from(times.max(1))))
}

/// What a governed call asks for, with the credential that the Gateway would have put in.
pub(super) async fn call(client: &HttpClient, proxy: &str) -> Result<Answer, Failure> {
    client.send(Method::GET, &format!("{proxy}/notes"), &[(KEY_HEADER, UPSTREAM_KEY)], None).await
}

/// Passes on until told to stop; tells where, and on which threads.
fn serve(
    to: String,
    stopping: watch::Receiver<bool>,
    tell: &mpsc::Sender<(String, Vec<PathBuf>)>,
) -> Result<(), Failure> {
    let processors = std::thread::available_parallelism()?.get();
    let (started, threads) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors)
        .thread_name("bare-proxy")
        .on_thread_start(move || drop(started.send(usage::this_thread())))
        .enable_all()
        .build()?;
    let threads: Vec<PathBuf> = threads.iter().take(processors).flatten().collect();
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let _ = tell.send((format!("http://{}", listener.local_addr()?), threads));
    #[expect(clippy::disallowed_methods, reason = "what a proxy costs without any guard is the question")]
    let client: Passing = Client::builder(TokioExecutor::new()).build_http();
    let service = tower::service_fn(move |request| {
        let (client, to) = (client.clone(), to.clone());
        async move { Ok::<_, Infallible>(pass(&client, &to, request).await) }
    });
    let limits = Limits { grace: Duration::ZERO, ..Limits::default() };
    // On a worker, as everything else of it: this thread is not counted.
    let served = runtime.spawn(server::serve(listener, service, FreshId::new(String::new), limits, stopping));
    runtime.block_on(served).map(|_| ()).map_err(|_| broken_down())
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
    fn calls_go_through_and_cost_what_its_threads_are_busy_with() {
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
