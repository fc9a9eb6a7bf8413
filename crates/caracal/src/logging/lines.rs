//! How a line is made: redacted, bounded, with the ids of the request it belongs to, never waiting for whoever reads it.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_http::{log_counts, redact, trace};
use caracal_store::{Clock, SystemClock};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::LogSettings;

/// The layer that writes events to `W`.
pub(super) struct Lines<W> {
    out: W,
    /// What the queue behind `out` had no room for.
    lost: Option<ErrorCounter>,
    constant: Map<String, Value>,
    max_field_bytes: usize,
    debug_one_in: u64,
    debug_seen: AtomicU64,
}

impl<W> Lines<W> {
    pub(super) fn new(out: W, lost: Option<ErrorCounter>, settings: &LogSettings) -> Self {
        let mut constant = Map::new();
        constant.insert("hostname".to_owned(), settings.hostname.clone().into());
        constant.insert("pid".to_owned(), std::process::id().into());
        constant.insert("version".to_owned(), settings.version.clone().into());
        constant.insert("env".to_owned(), settings.env.clone().into());
        Self {
            out,
            lost,
            constant,
            max_field_bytes: settings.max_field_bytes,
            debug_one_in: settings.debug_one_in.max(1),
            debug_seen: AtomicU64::new(0),
        }
    }

    /// One in so many debug lines is written, the first one always.
    fn leaves_out(&self, level: Level) -> bool {
        level >= Level::DEBUG && !self.debug_seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.debug_one_in)
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == trace::TARGET
            && let Some(span) = context.span(id)
        {
            let mut ids = Ids::default();
            attributes.record(&mut ids);
            span.extensions_mut().insert(ids);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(ids) = span.extensions_mut().get_mut::<Ids>()
        {
            values.record(ids);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if self.leaves_out(level) {
            log_counts::sampled();
            return;
        }
        let mut members = Members(Map::new());
        event.record(&mut members);
        let mut line = Map::new();
        line.insert("level".to_owned(), name(level).into());
        line.insert("time".to_owned(), SystemClock.now().to_millis_text().into());
        line.insert("service".to_owned(), event.metadata().target().into());
        line.extend(self.constant.iter().map(|(key, value)| (key.clone(), value.clone())));
        line.insert("msg".to_owned(), members.0.remove("message").unwrap_or_default());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(ids) = span.extensions().get::<Ids>() {
                ids.complete(&mut line);
            }
        }
        line.extend(members.0);
        let mut line = Value::Object(line);
        redact::record(&mut line, self.max_field_bytes);
        let mut text = line.to_string();
        text.push('\n');
        // There is nobody left to tell that telling failed.
        let _ = self.out.make_writer().write_all(text.as_bytes());
        log_counts::emitted();
        if let Some(lost) = &self.lost {
            log_counts::dropped_so_far(u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX));
        }
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

/// The ids of a request, kept with its span.
#[derive(Default)]
struct Ids {
    service: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

impl Ids {
    /// Inner spans come first, and have the last word.
    fn complete(&self, line: &mut Map<String, Value>) {
        if let Some(service) = &self.service {
            line.insert("service".to_owned(), service.as_str().into());
        }
        for (key, id) in [("request_id", &self.request_id), ("trace_id", &self.trace_id), ("span_id", &self.span_id)] {
            if let Some(id) = id {
                line.entry(key).or_insert_with(|| id.as_str().into());
            }
        }
    }

    fn of(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            trace::SERVICE => Some(&mut self.service),
            "request_id" => Some(&mut self.request_id),
            "trace_id" => Some(&mut self.trace_id),
            "span_id" => Some(&mut self.span_id),
            _ => None,
        }
    }
}

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Nothing else is formatted.
        if let Some(id) = self.of(field.name()) {
            *id = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(id) = self.of(field.name()) {
            *id = Some(value.to_owned());
        }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use caracal_http::RequestId;
    use http::{HeaderMap, Method};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(settings: &LogSettings, work: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let out = written.clone();
        let subscriber = tracing_subscriber::registry().with(Lines::new(move || out.clone(), None, settings));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = written.0.lock().unwrap().clone();
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn settings() -> LogSettings {
        LogSettings {
            level: "trace".to_owned(),
            max_field_bytes: 64,
            queue_size: 16,
            debug_one_in: 1,
            env: "test".to_owned(),
            version: "9.9.9".to_owned(),
            hostname: "here".to_owned(),
        }
    }

    #[test]
    fn a_line_within_a_request_carries_the_ids_by_which_it_is_found() {
        let mut headers = HeaderMap::new();
        headers.insert(trace::HEADER, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        let lines = lines_of(&settings(), || {
            let id = RequestId::parse(b"req-1").unwrap();
            let span = trace::request("caracal-sts", &Method::GET, "/health", &headers, &id);
            span.in_scope(|| {
                tracing::info!("within");
                trace::step("caracal-sts", "decide").in_scope(|| tracing::info!(request_id = "its own", "deeper"));
            });
            tracing::info!("outside");
        });
        let of = |at: usize, key: &str| lines[at].get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        assert_eq!((of(0, "request_id"), of(0, "service")), ("req-1".to_owned(), "caracal-sts".to_owned()));
        assert_eq!(of(0, "trace_id"), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(of(0, "span_id"), "b7ad6b7169203331");
        assert_eq!((of(1, "request_id"), of(1, "trace_id")), ("its own".to_owned(), of(0, "trace_id")));
        assert_eq!((of(2, "request_id"), of(2, "trace_id")), ("-".to_owned(), "-".to_owned()));
        for line in &lines {
            assert_eq!((line["env"].as_str(), line["version"].as_str()), (Some("test"), Some("9.9.9")));
            assert_eq!(
                (line["hostname"].as_str(), line["pid"].as_u64()),
                (Some("here"), Some(std::process::id().into()))
            );
        }
    }

    #[test]
    fn one_in_so_many_debug_lines_is_written_and_every_other_line() {
        let settings = LogSettings { debug_one_in: 3, ..settings() };
        let lines = lines_of(&settings, || {
            for _ in 0..7 {
                tracing::debug!("often");
                tracing::info!("always");
            }
        });
        let count = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
        assert_eq!((count("debug"), count("info")), (3, 7));
    }

    #[test]
    fn no_secret_and_no_endless_text_is_in_a_line() {
        let lines = lines_of(&settings(), || {
            tracing::info!(
                client_secret = "hunter2hunter2",
                long = "x".repeat(500),
                "asked with Bearer abcdefghijklmnop"
            );
        });
        let text = lines[0].to_string();
        assert!(!text.contains("hunter2") && !text.contains("abcdefghijklmnop"), "{text}");
        assert!(lines[0]["long"].as_str().unwrap().len() < 100, "{text}");
    }
}
