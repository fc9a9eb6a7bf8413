//! Log lines: one JSON object each on standard error, redacted before they are written (contract:
//! audit-and-streams.md §11).

use std::io::Write;
use std::sync::Mutex;

use caracal_http::redact;
use caracal_store::{Clock, SystemClock};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at `level`. A second call does nothing.
pub(crate) fn start(level: &str) {
    let filter = match level.trim().to_ascii_lowercase().as_str() {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        "off" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    let lines = Lines { out: Mutex::new(std::io::stderr()) };
    // Tests start several systems in one process; the first one's logging serves all.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

struct Lines<W> {
    out: Mutex<W>,
}

impl<S: Subscriber, W: Write + 'static> Layer<S> for Lines<W>
where
    Mutex<W>: Sync + Send,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut members = Members(Map::new());
        event.record(&mut members);
        let mut line = Map::new();
        line.insert("level".to_owned(), name(*event.metadata().level()).into());
        line.insert("time".to_owned(), SystemClock.now().to_millis_text().into());
        line.insert("service".to_owned(), event.metadata().target().into());
        line.insert("pid".to_owned(), std::process::id().into());
        line.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        let message = members.0.remove("message").unwrap_or_default();
        line.insert("msg".to_owned(), message);
        line.extend(members.0);
        let mut line = Value::Object(line);
        redact::record(&mut line, redact::DEFAULT_MAX_BYTES);
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // There is nobody left to tell that telling failed.
        let _ = writeln!(out, "{line}");
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

struct Members(Map<String, Value>);

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
