//! Everything this test process logs, kept: every event and span of every level, with all its fields.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Keep;

impl Subscriber for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Line);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Line);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line;

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Formatted before the lock is taken: formatting may log.
        let text = format!("{}={value:?}\n", field.name());
        let _ = LOGGED.lock().unwrap_or_else(PoisonError::into_inner).write_str(&text);
    }
}

/// Keeps what is logged from the first call on. Nothing else may be this process's subscriber.
///
/// # Panics
/// If something else is.
pub fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ours = tracing::subscriber::set_global_default(Keep);
        assert!(ours.is_ok(), "something else takes what this process logs");
    });
}

/// What was logged until now.
pub fn logged() -> String {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
