//! `caracal migrate`: the schema of the database in `DATABASE_URL`. Safe when several processes run it at once.

use std::process::ExitCode;

use super::{Failure, environment, runtime};
use crate::settings::database;

/// Applies what is missing, or with `check` only says what that is: then exit 1 when anything is.
pub fn migrate(check: bool, json: bool) -> Result<ExitCode, Failure> {
    let options = database(&environment())?.ok_or_else(|| {
        Failure(
            "DATABASE_URL is not set: it names the database to migrate, with a login that owns it. The embedded store is \
             migrated by `caracal up`"
                .to_owned(),
        )
    })?;
    let report = runtime()?.block_on(async {
        if check { options.missing_migrations().await } else { options.apply_migrations().await }
    })?;
    let behind = check && !report.migrations.is_empty();
    if json {
        println!(
            "{}",
            serde_json::json!({
                "database": report.place, "from": report.from, "to": report.to, "migrations": report.migrations,
                "applied": !check && !report.migrations.is_empty(),
            })
        );
    } else if report.migrations.is_empty() {
        println!("{} has schema {}: up to date", report.place, report.to);
    } else {
        let (names, done) = (report.migrations.join(", "), if check { "needs" } else { "now has" });
        println!("{} had schema {}, {done} {}: {names}", report.place, report.from, report.to);
    }
    Ok(if behind { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
