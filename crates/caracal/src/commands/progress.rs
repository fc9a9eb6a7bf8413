//! Progress of a command that takes long.

use std::io::{IsTerminal, Write};

/// One line of a terminal, each text in the place of the last. Nothing where standard error is none, or nobody reads along.
pub(super) struct Line {
    on: bool,
}

impl Line {
    pub(super) fn new(json: bool) -> Self {
        Self { on: !json && std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, text: &str) {
        if self.on {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    }

    pub(super) fn clear(&self) {
        if self.on {
            eprint!("\r\x1b[K");
        }
    }
}
