//! Log lines, one JSON object each on standard error (contract: audit-and-streams.md §11), and traces over OTLP where an
//! endpoint is set (sts.md §15). Both hear of requests through the spans of `caracal_http::trace`.

mod lines;
mod traces;

use tokio::runtime::Handle;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogSettings, TraceSettings};
use lines::Lines;
use traces::Traces;

/// Keeps logging alive; what is still queued is written when it is dropped.
#[must_use]
pub(crate) struct Logging {
    traces: Option<Traces>,
    _queue: Option<WorkerGuard>,
}

/// Starts logging and, where they are asked for, traces, which are sent from `runtime`. A second call in one process does
/// nothing: tests start several systems, and the first one's logging serves all.
pub(crate) fn start(settings: &LogSettings, traces: Option<&TraceSettings>, runtime: Handle) -> Logging {
    let filter = match settings.level.trim().to_ascii_lowercase().as_str() {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        "off" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    let (out, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(settings.queue_size)
        .thread_name("log")
        .finish(std::io::stderr());
    let lost = out.error_counter();
    let lines = Lines::new(out, Some(lost), settings);
    let traces = traces.map(|traces| Traces::new(traces, runtime));
    let exported = traces.as_ref().map(Traces::layer);
    match tracing_subscriber::registry().with(exported).with(lines.with_filter(filter)).try_init() {
        Ok(()) => Logging { traces, _queue: Some(guard) },
        Err(_) => Logging { traces: None, _queue: None },
    }
}

impl Logging {
    /// Sends the spans that were not sent yet; while a runtime still runs. Waits two seconds at most: nobody's exit hangs
    /// on a collector.
    pub(crate) fn flush_traces(&mut self) {
        if let Some(traces) = self.traces.take() {
            traces.stop();
        }
    }
}
