//! `caracal config check`: every mistake at once, and what every variable would be.

use std::process::ExitCode;

use super::{Failure, environment, say_failure};
use crate::settings::{Checked, UpFlags};

/// Checks the settings of a start with the same flags. Exit 0 only if it would be accepted.
pub fn check_config(flags: &UpFlags, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let checked = Checked::of(flags, &environment);
    if json {
        println!("{}", serde_json::to_string_pretty(&checked)?);
    } else {
        println!("mode {}, engine {}, roles {}", checked.mode, checked.engine, checked.roles.join(", "));
        println!();
        for shown in &checked.variables {
            println!("{:<40} {:<36} {}", shown.name, shown.value, shown.source);
        }
        for note in checked.notes.iter().filter(|note| !environment.warnings().contains(note)) {
            eprintln!("note: {note}");
        }
        for mistake in &checked.mistakes {
            say_failure(&mistake.to_string());
        }
        println!();
        match checked.mistakes.len() {
            0 => println!("Nothing is wrong."),
            1 => println!("1 mistake."),
            many => println!("{many} mistakes."),
        }
    }
    Ok(if checked.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
