//! `caracal config check`: everything that is set, and everything that is wrong with it, at once. Opens nothing.

use std::net::IpAddr;
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, environment};
use crate::settings::{Engine, Mistakes, SecretFiles, Service, Settings, Source, UpFlags, VARIABLES};

#[derive(Serialize)]
struct Report {
    ok: bool,
    mode: Option<String>,
    engine: Option<&'static str>,
    roles: Vec<&'static str>,
    mistakes: Vec<Said>,
    variables: Vec<Line>,
}

#[derive(Serialize)]
struct Said {
    name: String,
    what: String,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    value: String,
    source: Source,
}

/// Checks the settings that `caracal up`, or with `roles` `caracal serve`, would run with. Exit 0 when nothing is wrong.
pub fn config_check(bind: IpAddr, roles: Option<String>, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let flags = UpFlags { data_dir: None, bind, port_offset: 0, roles };
    let (settings, mut mistakes) = match Settings::read(&flags, &environment) {
        Ok(settings) => (Some(settings), Vec::new()),
        Err(Mistakes(mistakes)) => (None, mistakes),
    };
    // With settings that are wrong it may be unclear which roles there are; the keys are looked at all the same.
    let roles = settings.as_ref().map_or_else(|| Service::ALL.to_vec(), |settings| settings.roles.clone());
    let embedded = settings
        .as_ref()
        .map_or(environment.get("DATABASE_URL").is_none(), |settings| matches!(settings.engine, Engine::Embedded));
    let keys = SecretFiles::check_given(&environment, &roles, embedded);
    mistakes.extend(keys);
    let report = Report {
        ok: mistakes.is_empty(),
        mode: settings.as_ref().map(|settings| settings.mode.to_string()),
        engine: settings.as_ref().map(|_| if embedded { "embedded" } else { "postgresql and redis" }),
        roles: settings.iter().flat_map(|settings| settings.roles.iter().map(|role| role.name())).collect(),
        mistakes: mistakes.into_iter().map(|mistake| Said { name: mistake.name, what: mistake.what }).collect(),
        variables: VARIABLES
            .iter()
            .map(|variable| {
                let (value, source) = variable.effective(&environment);
                Line { name: variable.name, value, source }
            })
            .collect(),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report) {
    for Line { name, value, source } in &report.variables {
        let mark = match source {
            Source::Default => "",
            Source::Environment => "  (environment)",
            Source::File => "  (file)",
        };
        println!("{name:<40} {value}{mark}");
    }
    println!();
    for Said { name, what } in &report.mistakes {
        println!("WRONG {name}: {what}");
    }
    match (&report.mode, report.engine) {
        (Some(mode), Some(engine)) if report.ok => {
            println!("Nothing is wrong: {mode} mode, {engine}, {}.", report.roles.join(", "));
        }
        _ => println!("{} to mend.", report.mistakes.len()),
    }
}
