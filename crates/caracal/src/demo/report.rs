//! What the demonstration says: a step at a time for people, one document for machines.

use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;

use crate::actors::client::Answer;

/// One step and how it went.
#[derive(Serialize)]
pub(super) struct Step {
    /// Stable name.
    pub(super) step: &'static str,
    /// What it shows.
    pub(super) title: &'static str,
    /// Whether it went as told.
    pub(super) ok: bool,
    /// The request to look up in the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
    /// Status of the decisive answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The reason given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What was seen, each with whether it is as it should be.
    pub(super) seen: Vec<Seen>,
}

/// One observation.
#[derive(Serialize)]
pub(super) struct Seen {
    pub(super) what: String,
    pub(super) as_told: bool,
}

impl Step {
    pub(super) fn new(step: &'static str, title: &'static str) -> Self {
        Self { step, title, ok: true, request_id: None, status: None, reason: None, seen: Vec::new() }
    }

    /// Notes something seen; a step with one thing that is not as told has failed.
    pub(super) fn see(&mut self, what: impl Into<String>, as_told: bool) {
        self.ok &= as_told;
        self.seen.push(Seen { what: what.into(), as_told });
    }

    /// Notes the decisive answer.
    pub(super) fn answered(&mut self, answer: &Answer) {
        self.request_id = Some(answer.request_id()).filter(|id| !id.is_empty());
        self.status = Some(answer.status.as_u16());
        self.reason = Some(answer.reason()).filter(|reason| !reason.is_empty());
    }
}

/// Collects steps and shows each as it is done.
pub(super) struct Report {
    json: bool,
    colour: bool,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Document<'r> {
    ok: bool,
    elapsed_ms: u128,
    steps: &'r [Step],
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, steps: Vec::new() }
    }

    /// Says something to people only.
    pub(super) fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    pub(super) fn add(&mut self, step: Step) {
        if !self.json {
            self.show(&step);
        }
        self.steps.push(step);
    }

    fn show(&self, step: &Step) {
        let number = self.steps.len() + 1;
        println!("\n{} {number}. {}", self.mark(step.ok), self.bold(step.title));
        for seen in &step.seen {
            println!("     {} {}", self.mark(seen.as_told), seen.what);
        }
        let mut tail = Vec::new();
        tail.extend(step.status.map(|status| format!("status {status}")));
        tail.extend(step.reason.as_ref().map(|reason| format!("reason \"{reason}\"")));
        tail.extend(step.request_id.as_ref().map(|id| format!("request {id}")));
        if !tail.is_empty() {
            println!("       {}", self.dim(&tail.join(" · ")));
        }
    }

    /// Ends the report and says whether everything went as told.
    pub(super) fn finish(self, elapsed: Duration) -> bool {
        let ok = self.steps.iter().all(|step| step.ok);
        if self.json {
            let document = Document { ok, elapsed_ms: elapsed.as_millis(), steps: &self.steps };
            println!("{}", serde_json::to_string(&document).unwrap_or_default());
        } else if ok {
            println!(
                "\n{} All {} steps went as told, in {:.1} s.",
                self.mark(true),
                self.steps.len(),
                elapsed.as_secs_f64()
            );
        } else {
            println!("\n{} Not everything went as told; the steps marked above did not.", self.mark(false));
        }
        ok
    }

    fn mark(&self, ok: bool) -> String {
        match (ok, self.colour) {
            (true, true) => "\u{1b}[32m✓\u{1b}[0m".to_owned(),
            (true, false) => "✓".to_owned(),
            (false, true) => "\u{1b}[31m✗\u{1b}[0m".to_owned(),
            (false, false) => "✗".to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn dim(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
