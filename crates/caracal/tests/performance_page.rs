//! What docs/performance.md says of speed is what was measured, and nobody's hand.

#[path = "../examples/performance/page.rs"]
mod page;

use std::path::Path;

#[test]
fn the_tables_are_those_of_the_measurement() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let measured = std::fs::read_to_string(docs.join("performance/measured.json")).unwrap();
    let shown = std::fs::read_to_string(docs.join("performance.md")).unwrap();
    let tables = page::tables(&serde_json::from_str(&measured).unwrap());
    assert!(tables.lines().count() > 60, "{tables}");
    let written = page::put(&shown, &tables).unwrap();
    assert!(shown == written, "run `cargo xtask performance page`");
}
