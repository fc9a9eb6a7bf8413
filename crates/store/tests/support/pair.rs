//! What a process that is to be stopped at any instant does: it commits pairs of rows, and says before and after each.

use std::io::Write;

use caracal_authority::ZoneId;
use caracal_store::{Store, StoreError, outbox, used_mandates};

/// What tells a child which directory to work in: children are the very test binary, running the one test that started
/// them.
pub(crate) const DIRECTORY: &str = "CARACAL_STORE_TEST_DIRECTORY";

pub(crate) fn zone() -> ZoneId {
    ZoneId::parse("z-1").unwrap()
}

/// Commits two rows that must never be there one without the other; `payload` bytes make one of them as large.
pub(crate) async fn commit(store: &Store, name: &str, payload: usize) -> Result<(), StoreError> {
    store
        .commit(&zone(), (name.to_owned(), "x".repeat(payload)), |tx, (name, payload)| {
            Box::pin(async move {
                let end = tx.now();
                assert!(used_mandates::consume(tx, name, "r-1", end).await?);
                let fields = vec![("payload".to_owned(), payload.clone())];
                assert!(outbox::add(tx, name.parse().unwrap(), "topic", name, fields).await?);
                Ok(())
            })
        })
        .await
}

/// Commits them, and tells who started this process.
pub(crate) async fn acknowledged(store: &Store, name: &str, payload: usize) {
    report("tried", name);
    commit(store, name, payload).await.unwrap();
    report("acknowledged", name);
}

/// One line in one write, so that a kill leaves no half of it.
pub(crate) fn report(word: &str, name: &str) {
    std::io::stderr().write_all(format!("{word} {name}\n").as_bytes()).unwrap();
}
