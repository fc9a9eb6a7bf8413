//! Each engine against the suite that every engine has to pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;

use caracal_store::conformance::Fresh;
use caracal_store::{BoxFuture, Clock, PostgresOptions, SqliteOptions, Store};
use caracal_testkit::Database;

fn on_disk(clock: Arc<dyn Clock>) -> BoxFuture<'static, Fresh> {
    Box::pin(async {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&SqliteOptions::in_directory(directory.path()), clock).unwrap();
        Fresh { store, kept: Box::new(directory) }
    })
}

fn on_postgres(clock: Arc<dyn Clock>) -> BoxFuture<'static, Fresh> {
    Box::pin(async {
        let database = Database::create().unwrap();
        let mut options = PostgresOptions::at(&database.url()).unwrap();
        options.clock = Some(clock);
        let store = Store::open_postgres(options).await.unwrap();
        Fresh { store, kept: Box::new(database) }
    })
}

mod sqlite {
    caracal_store::conformance_suite!(crate::on_disk);
}

mod postgresql {
    caracal_store::conformance_suite!(crate::on_postgres);
}

/// A case that nobody listed would never run.
#[test]
fn every_case_of_the_suite_is_listed() {
    let listed = include_str!("../src/conformance/mod.rs");
    let mut cases = 0;
    for source in [
        include_str!("../src/conformance/transactions.rs"),
        include_str!("../src/conformance/decisions.rs"),
        include_str!("../src/conformance/ledger.rs"),
        include_str!("../src/conformance/isolation.rs"),
        include_str!("../src/conformance/pages.rs"),
        include_str!("../src/conformance/repositories/approvals.rs"),
        include_str!("../src/conformance/repositories/management.rs"),
        include_str!("../src/conformance/repositories/runtime.rs"),
        include_str!("../src/conformance/repositories/evidence.rs"),
        include_str!("../src/conformance/repositories/leases.rs"),
        include_str!("../src/conformance/repositories/services.rs"),
    ] {
        for case in source.split("\npub async fn ").skip(1).filter_map(|text| text.split('(').next()) {
            assert!(listed.contains(&format!("                {case}\n")), "{case}");
            cases += 1;
        }
    }
    assert!(cases > 30, "{cases} cases");
}
