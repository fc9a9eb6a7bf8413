//! What the compiler does not check. Every finding names a file and says what to do; all are reported together.

mod docs;
mod early;
mod rooms;
mod text;
mod tree;

use crate::step::{Chore, Failed};

/// Findings of one run.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, file: &str, what: impl AsRef<str>) {
        self.0.push(format!("{file}: {}", what.as_ref()));
    }
}

/// Runs every check over the tree.
pub(crate) fn run(chore: &Chore) -> Result<(), Failed> {
    chore.say("tidiness of the tree");
    let files = tree::read(chore.root())?;
    let mut findings = Findings::default();
    early::check(&files, &mut findings);
    text::check(&files, &mut findings);
    rooms::check(&files, &mut findings);
    docs::check(&files, &mut findings);
    for finding in &findings.0 {
        println!("  {finding}");
    }
    match findings.0.len() {
        0 => Ok(()),
        found => Err(Failed(format!("{found} untidy places"))),
    }
}
